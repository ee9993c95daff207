"""Under "score": the Qwen3 decoder once more, for training short rows on a CPU; the same numbers in
half the time.

Matrix products are half of a training step of a small model. The other half is many small
operations of the transformers model: RMSNorm as seven of them with a gradient each, an attention
kernel made for long rows, three products where one would do, and a last layer that also computes
positions nobody grades. This forward pass uses the same weights, and calls every linear layer that
is not a plain one (so LoRA and adapters work). It writes out the rest again, with the gradients by
hand. Where the time goes is measured in chapter 07.
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

# attention scores are built in full, T x T for each head; beyond this a blockwise kernel wins
LONGEST_ROW = 256


class _RMSNorm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + epsilon) over the last dimension, with its gradient by hand:
    six passes over x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_() / x.shape[-1]
        scale = mean_square.add_(epsilon).rsqrt_()
        unit = x * scale
        ctx.save_for_backward(unit, scale, weight)
        return unit * weight

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        unit, scale, weight = ctx.saved_tensors
        product = gradient * unit
        along = (product @ weight).unsqueeze_(-1) / unit.shape[
            -1
        ]  # the part of the gradient that only rescales x
        to_x = (gradient * weight).addcmul_(unit, along, value=-1).mul_(scale)
        return to_x, product.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None, None


class _Attend(torch.autograd.Function):
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
        qk = parts[:, :, : heads + kv_heads]
        weight = torch.cat(
            (q_weight.expand(heads, size), k_weight.expand(kv_heads, size))
        )  # (heads + kv_heads, d)
        mean_square = torch.linalg.vector_norm(qk, dim=-1, keepdim=True).square_().div_(size)
        scale = mean_square.add_(layer.q_norm.variance_epsilon).rsqrt_()
        unit = qk * scale
        half = size // 2
        turned = (unit * (weight * cos)).addcmul_(unit.roll(half, -1), weight.roll(half, -1) * sin)
        q = turned[:, :, :heads].unflatten(2, (kv_heads, shared)).permute(0, 2, 3, 1, 4)
        q = q.reshape(-1, shared * length, size)  # (B * kv_heads, shared * T, d)
        k = turned[:, :, heads:].transpose(1, 2).reshape(-1, length, size)  # (B * kv_heads, T, d)
        v = parts[:, :, heads + kv_heads :].transpose(1, 2).reshape(-1, length, size)
        weights = torch.baddbmm(later, q, k.transpose(1, 2), alpha=layer.scaling).softmax(-1)
        ctx.save_for_backward(unit, scale, weight, cos, sin, q, k, v, weights)
        ctx.scaling = layer.scaling
        mixed = torch.bmm(weights, v).view(rows, kv_heads, shared, length, size)
        return mixed.permute(0, 3, 1, 2, 4).reshape(rows, length, -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        unit, scale, weight, cos, sin, q, k, v, weights = ctx.saved_tensors
        rows, length, _, size = unit.shape
        kv_heads, shared = len(k) // rows, q.shape[1] // length
        heads = kv_heads * shared
        to_mixed = (
            gradient.view(rows, length, kv_heads, shared, size)
            .permute(0, 2, 3, 1, 4)
            .reshape(q.shape)
        )
        to_scores = torch.bmm(to_mixed, v.transpose(1, 2))
        to_scores = torch.ops.aten._softmax_backward_data(
            to_scores, weights, -1, weights.dtype
        ).mul_(ctx.scaling)
        result = gradient.new_empty(rows, length, heads + 2 * kv_heads, size)

        def place(
            part: torch.Tensor, start: int, stop: int
        ) -> None:  # (B * kv_heads, n * T, d) back beside each other
            part = part.view(rows, kv_heads, -1, length, size).permute(0, 3, 1, 2, 4)
            result[:, :, start:stop].view(part.shape).copy_(part)

        place(torch.bmm(to_scores, k), 0, heads)
        place(torch.bmm(to_scores.transpose(1, 2), q), heads, heads + kv_heads)
        place(torch.bmm(weights.transpose(1, 2), to_mixed), heads + kv_heads, heads + 2 * kv_heads)
        qk = result[:, :, : heads + kv_heads]
        back = (qk * cos).addcmul_(qk.roll(size // 2, -1), sin, value=-1)  # turned back
        product = back * unit
        to_weight = product.sum((0, 1))  # (heads + kv_heads, d)
        along = (product * weight).sum(-1, keepdim=True).div_(size)
        torch.mul(back.mul_(weight).addcmul_(unit, along, value=-1), scale, out=qk)
        needed = ctx.needs_input_grad
        return (
            result.view(rows, length, -1),
            to_weight[:heads].sum(0) if needed[1] else None,
            to_weight[heads:].sum(0) if needed[2] else None,
            None,
            None,
            None,
            None,
        )


class _SwiGLU(torch.autograd.Function):
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
    if (
        type(model) is not Qwen3ForCausalLM
        or "position_ids" in batch
        or batch["input_ids"].shape[1] > LONGEST_ROW
    ):
        return False
    if (
        model.device.type != "cpu"
        or model.dtype != torch.float32
        or torch.is_autocast_enabled("cpu")
    ):
        return False
    decoder = model.model
    if decoder.has_sliding_layers or model.config.attention_dropout:
        return False
    rewritten = [decoder, decoder.norm]
    for layer in decoder.layers:
        if type(layer) is not Qwen3DecoderLayer or type(layer.self_attn) is not Qwen3Attention:
            return False
        if layer.gradient_checkpointing:
            return False
        norms = (
            layer.input_layernorm,
            layer.post_attention_layernorm,
            layer.self_attn.q_norm,
            layer.self_attn.k_norm,
        )
        rewritten += [layer, layer.self_attn, *norms]
    return all(
        _plain(part, Qwen3Model, Qwen3DecoderLayer, Qwen3Attention, Qwen3RMSNorm)
        for part in rewritten
    )


def _plain(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether a module is of just these kinds, no subclass, and has no hooks, so that its forward
    may be skipped."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return type(module) in kinds and not any(getattr(module, hook) for hook in hooks)


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
    cos, sin = (
        part[0, :, None] for part in decoder.rotary_emb(x, torch.arange(length)[None])
    )  # (T, 1, head_dim)
    half = sin.shape[-1] // 2
    sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
    shared = model.config.num_attention_heads // model.config.num_key_value_heads
    later = torch.full((length, length), -torch.inf).triu_(1).repeat(shared, 1)
    for layer in decoder.layers:
        attention = layer.self_attn
        qkv = _linear(
            _norm(x, layer.input_layernorm), attention.q_proj, attention.k_proj, attention.v_proj
        )
        seen = _Attend.apply(
            qkv, attention.q_norm.weight, attention.k_norm.weight, cos, sin, later, attention
        )
        if layer is decoder.layers[-1]:
            x, seen = x[graded], seen[graded]
        x = x + attention.o_proj(seen)
        x = x + _feed_forward(layer.mlp, _norm(x, layer.post_attention_layernorm))
    return _norm(x, decoder.norm)


def _norm(x: torch.Tensor, norm: Qwen3RMSNorm) -> torch.Tensor:
    return _RMSNorm.apply(x, norm.weight, norm.variance_epsilon)


def _feed_forward(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if not (_plain(mlp, Qwen3MLP) and isinstance(mlp.act_fn, nn.SiLU | SiLUActivation)):
        return mlp(x)
    return mlp.down_proj(_SwiGLU.apply(_linear(x, mlp.gate_proj, mlp.up_proj)))


def _linear(x: torch.Tensor, *layers: nn.Module) -> torch.Tensor:
    """The outputs of several layers side by side; plain ones as a single product with their weights
    joined."""
    if all(_plain(layer, nn.Linear) and layer.bias is None for layer in layers):
        return F.linear(x, torch.cat([layer.weight for layer in layers]))
    return torch.cat([layer(x) for layer in layers], dim=-1)
