"""Under "score": the Qwen3 decoder once more, for training short rows on a CPU; the same numbers in
half the time.

Matrix products are half of a training step of a small model. The other half is many small
operations of the transformers model: RMSNorm as seven of them with a gradient each, an attention
kernel made for long rows, three products where one would do, and a last layer that also computes
positions nobody grades. This forward pass uses the same weights, and calls every linear layer that
is not a plain one (so LoRA and adapters work). It writes out the rest again, with the gradients by
hand. Where the time goes is measured in chapter 07b.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Qwen3ForCausalLM
from transformers.activations import SiLUActivation
from transformers.models.qwen3.modeling_qwen3 import (
    Qwen3Attention,
    Qwen3DecoderLayer,
    Qwen3MLP,
    Qwen3Model,
    Qwen3RMSNorm,
)

from sft_lab.kernels.plain import is_plain

# attention scores are built in full, T x T for each head; beyond this a blockwise kernel wins
LONGEST_ROW = 256

Gradients = tuple[torch.Tensor | None, ...]


class RMSNorm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + epsilon) over the last dimension, with its gradient by hand:
    six passes over x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        scale = _inverse_root_mean_square(x, epsilon)
        unit = x * scale
        ctx.save_for_backward(unit, scale, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        unit, scale, weight = ctx.saved_tensors
        product = gradient * unit
        # A change of x along itself only rescales it, and the norm takes that out again: that part
        # of the gradient is subtracted.
        along = (product @ weight).unsqueeze_(-1) / unit.shape[-1]
        to_x = (gradient * weight).addcmul_(unit, along, value=-1).mul_(scale)
        to_weight = product.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, None


class Attend(torch.autograd.Function):
    """Causal attention between the input and the output projection, with its gradient by hand.

    (B, T, (heads + 2 * kv_heads) * d), the queries, keys and values of every token side by side,
    and the weights of q_norm and k_norm -> (B, T, heads * d). Queries and keys go through RMSNorm
    and the rotary embedding together. The query heads that share one key-value head stand one after
    the other in one matrix: one product for all of them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv: torch.Tensor,
        q_weight: torch.Tensor,
        k_weight: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        later: torch.Tensor,
        layer: Qwen3Attention,
    ) -> torch.Tensor:
        rows, length, width = qkv.shape
        size, shared = layer.head_dim, layer.num_key_value_groups
        kv_heads = width // size // (shared + 2)
        heads = kv_heads * shared
        parts = qkv.view(rows, length, -1, size)
        # queries and keys stand side by side, so that one norm and one rotation serve both
        qk = parts[:, :, : heads + kv_heads]
        weight = torch.cat(
            (q_weight.expand(heads, size), k_weight.expand(kv_heads, size))
        )  # (heads + kv_heads, d)
        scale = _inverse_root_mean_square(qk, layer.q_norm.variance_epsilon)
        unit = qk * scale
        # The rotation x cos + rotate(x) sin. Its halves are swapped by roll; the minus sign of one
        # of them is in `sin` already, and the norm's weight goes into the same two products.
        half = size // 2
        turned = (unit * (weight * cos)).addcmul_(unit.roll(half, -1), weight.roll(half, -1) * sin)
        q = turned[:, :, :heads].unflatten(2, (kv_heads, shared)).permute(0, 2, 3, 1, 4)
        q = q.reshape(-1, shared * length, size)  # (B * kv_heads, shared * T, d)
        k = turned[:, :, heads:].transpose(1, 2).reshape(-1, length, size)  # (B * kv_heads, T, d)
        v = parts[:, :, heads + kv_heads :].transpose(1, 2).reshape(-1, length, size)
        # `later` is -inf where a key comes after its query: added in the same pass as the product
        weights = torch.baddbmm(later, q, k.transpose(1, 2), alpha=layer.scaling).softmax(-1)
        ctx.save_for_backward(unit, scale, weight, cos, sin, q, k, v, weights)
        ctx.scaling = layer.scaling
        mixed = torch.bmm(weights, v).view(rows, kv_heads, shared, length, size)
        return mixed.permute(0, 3, 1, 2, 4).reshape(rows, length, -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        unit, scale, weight, cos, sin, q, k, v, weights = ctx.saved_tensors
        rows, length, _, size = unit.shape
        kv_heads, shared = len(k) // rows, q.shape[1] // length
        heads = kv_heads * shared
        to_mixed = gradient.view(rows, length, kv_heads, shared, size)
        to_mixed = to_mixed.permute(0, 2, 3, 1, 4).reshape(q.shape)
        to_weights = torch.bmm(to_mixed, v.transpose(1, 2))
        to_scores = torch.ops.aten._softmax_backward_data(
            to_weights, weights, -1, weights.dtype
        ).mul_(ctx.scaling)
        # one tensor for the gradients of queries, keys and values, laid out as they came in
        result = gradient.new_empty(rows, length, heads + 2 * kv_heads, size)

        def put_back(part: torch.Tensor, start: int, stop: int) -> None:
            """(B * kv_heads, n * T, d) -> heads `start` to `stop` of every token."""
            part = part.view(rows, kv_heads, -1, length, size).permute(0, 3, 1, 2, 4)
            result[:, :, start:stop].view(part.shape).copy_(part)

        put_back(torch.bmm(to_scores, k), 0, heads)
        put_back(torch.bmm(to_scores.transpose(1, 2), q), heads, heads + kv_heads)
        put_back(torch.bmm(weights.transpose(1, 2), to_mixed), heads + kv_heads, result.shape[2])
        qk = result[:, :, : heads + kv_heads]
        # the inverse of a rotation is the rotation by minus the angle: sin changes its sign
        back = (qk * cos).addcmul_(qk.roll(size // 2, -1), sin, value=-1)
        product = back * unit
        to_weight = product.sum((0, 1))  # (heads + kv_heads, d)
        along = (product * weight).sum(-1, keepdim=True).div_(size)  # as in RMSNorm
        torch.mul(back.mul_(weight).addcmul_(unit, along, value=-1), scale, out=qk)
        _, q_norm_trains, k_norm_trains, *_ = ctx.needs_input_grad
        to_q_weight = to_weight[:heads].sum(0) if q_norm_trains else None
        to_k_weight = to_weight[heads:].sum(0) if k_norm_trains else None
        return result.view(rows, length, -1), to_q_weight, to_k_weight, None, None, None, None


class SwiGLU(torch.autograd.Function):
    """silu(gate) * up of (..., 2 * width), gate and up side by side."""

    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        opened = F.silu(gate)
        ctx.save_for_backward(gate_up, opened)
        return opened * up

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gate_up, opened = ctx.saved_tensors
        # both gradients are written where they belong: nothing is joined afterwards
        result = torch.empty_like(gate_up)
        (gate, up), (to_gate, to_up) = gate_up.chunk(2, dim=-1), result.chunk(2, dim=-1)
        torch.mul(gradient, opened, out=to_up)
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=to_gate)
        return result


def handles(model: nn.Module, batch: dict[str, torch.Tensor]) -> bool:
    """True when `graded_states` computes what `model` would: a plain Qwen3 in float32 on a CPU,
    short unpacked rows.

    False as soon as a module that is written out here again is not the one transformers built, or
    has a hook. Linear layers and the MLP may be of any kind (LoRA, an adapter), because they are
    called as they are.
    """
    packed, length = "position_ids" in batch, batch["input_ids"].shape[1]
    if type(model) is not Qwen3ForCausalLM or packed or length > LONGEST_ROW:
        return False
    exact = model.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if model.device.type != "cpu" or not exact:
        return False
    decoder = model.model
    if decoder.has_sliding_layers or model.config.attention_dropout:
        return False
    if not (is_plain(decoder, Qwen3Model) and is_plain(decoder.norm, Qwen3RMSNorm)):
        return False
    return all(_handles_layer(layer) for layer in decoder.layers)


def _handles_layer(layer: nn.Module) -> bool:
    """Whether everything of a decoder layer that is written out here again is transformers' own."""
    if not is_plain(layer, Qwen3DecoderLayer) or layer.gradient_checkpointing:
        return False
    attention = layer.self_attn
    if not is_plain(attention, Qwen3Attention):
        return False
    norms = (
        layer.input_layernorm,
        layer.post_attention_layernorm,
        attention.q_norm,
        attention.k_norm,
    )
    return all(is_plain(norm, Qwen3RMSNorm) for norm in norms)


def graded_states(
    model: Qwen3ForCausalLM, input_ids: torch.Tensor, graded: torch.Tensor
) -> torch.Tensor:
    """Last hidden states at the graded positions alone: (N, D), as `model.model(input_ids)` gives
    them.

    input_ids: (B, T), padded on the right; graded: (B, T) bool. Other positions serve as keys and
    values for them up to the last layer, whose MLP they never enter.
    """
    decoder, length = model.model, input_ids.shape[1]
    x = decoder.embed_tokens(input_ids)  # (B, T, D)
    positions = torch.arange(length)[None]
    cos, sin = (part[0, :, None] for part in decoder.rotary_emb(x, positions))  # (T, 1, head_dim)
    # transformers negates the upper half of x before it goes down; here the sign is with its factor
    half = sin.shape[-1] // 2
    sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
    # the same triangle for every query head that shares a key-value head, one below the other
    shared = model.config.num_attention_heads // model.config.num_key_value_heads
    later = torch.full((length, length), -torch.inf).triu_(1).repeat(shared, 1)
    for layer in decoder.layers:
        attention = layer.self_attn
        qkv = _linear(
            _norm(x, layer.input_layernorm), attention.q_proj, attention.k_proj, attention.v_proj
        )
        seen = Attend.apply(
            qkv, attention.q_norm.weight, attention.k_norm.weight, cos, sin, later, attention
        )
        if layer is decoder.layers[-1]:  # from here on no position looks at another
            x, seen = x[graded], seen[graded]
        x = x + attention.o_proj(seen)
        x = x + _feed_forward(layer.mlp, _norm(x, layer.post_attention_layernorm))
    return _norm(x, decoder.norm)


def _inverse_root_mean_square(x: torch.Tensor, epsilon: float) -> torch.Tensor:
    """1 / sqrt(mean(x^2) + epsilon) over the last dimension, in one pass over x."""
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
    return mean_square.add_(epsilon).rsqrt_()


def _norm(x: torch.Tensor, norm: Qwen3RMSNorm) -> torch.Tensor:
    return RMSNorm.apply(x, norm.weight, norm.variance_epsilon)


def _feed_forward(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if not is_plain(mlp, Qwen3MLP):
        return mlp(x)
    # transformers has its own class beside torch's for the same function
    if not (is_plain(mlp.act_fn, nn.SiLU) or is_plain(mlp.act_fn, SiLUActivation)):
        return mlp(x)
    return mlp.down_proj(SwiGLU.apply(_linear(x, mlp.gate_proj, mlp.up_proj)))


def _linear(x: torch.Tensor, *layers: nn.Module) -> torch.Tensor:
    """The outputs of several layers side by side; plain ones as a single product with their weights
    joined."""
    if all(is_plain(layer, nn.Linear) and layer.bias is None for layer in layers):
        return F.linear(x, torch.cat([layer.weight for layer in layers]))
    return torch.cat([layer(x) for layer in layers], dim=-1)
