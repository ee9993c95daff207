"""Under "score": the Qwen3 decoder once more, for training short rows on a CPU; the same numbers in half the time.

Matrix products are half of a training step of a small model. The other half is many small operations of the
transformers model: RMSNorm as seven of them with a gradient each, an attention kernel made for long rows, and a last
layer that also computes positions nobody grades. This forward pass calls the same weights and linear modules (so LoRA
layers work) and writes out only those parts again. Where the time goes is measured in chapter 07.
"""

from typing import Any

import torch
from torch import nn
from transformers import Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3DecoderLayer, Qwen3Model, Qwen3RMSNorm

LONGEST_ROW = 256  # attention scores are built in full, T x T for each head; beyond this a blockwise kernel wins


class _RMSNorm(torch.autograd.Function):
    """weight * x / sqrt(mean(x^2) + epsilon) over the last dimension, with its gradient by hand: six passes over x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_() / x.shape[-1]
        scale = mean_square.add_(epsilon).rsqrt_()
        unit = x * scale
        ctx.save_for_backward(unit, scale, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        unit, scale, weight = ctx.saved_tensors
        product = gradient * unit
        along = (product @ weight).unsqueeze_(-1) / unit.shape[-1]  # the part of the gradient that only rescales x
        to_x = (gradient * weight).addcmul_(unit, along, value=-1).mul_(scale)
        return to_x, product.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None, None


class _Rotate(torch.autograd.Function):
    """Rotary position embedding: every pair (i, i + d/2) turned by its angle; the gradient turns back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return (gradient * cos).addcmul_(gradient.roll(gradient.shape[-1] // 2, -1), sin, value=-1), None, None


def handles(model: nn.Module, batch: dict[str, torch.Tensor]) -> bool:
    """True when `graded_states` computes what `model` would: a plain Qwen3 in float32 on a CPU, short unpacked rows.

    False as soon as a module that is written out here again is not the one transformers built, or has a hook. Linear
    layers and the MLP may be of any kind (LoRA, an adapter), because they are called as they are.
    """
    if type(model) is not Qwen3ForCausalLM or "position_ids" in batch or batch["input_ids"].shape[1] > LONGEST_ROW:
        return False
    if model.device.type != "cpu" or model.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    decoder = model.model
    if decoder.has_sliding_layers or model.config.attention_dropout or model.is_activation_checkpointing:
        return False
    rewritten = [decoder, decoder.norm]
    for layer in decoder.layers:
        if type(layer) is not Qwen3DecoderLayer or type(layer.self_attn) is not Qwen3Attention:
            return False
        norms = (layer.input_layernorm, layer.post_attention_layernorm, layer.self_attn.q_norm, layer.self_attn.k_norm)
        rewritten += [layer, layer.self_attn, *norms]
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    known = (Qwen3Model, Qwen3DecoderLayer, Qwen3Attention, Qwen3RMSNorm)
    return all(type(part) in known and not any(getattr(part, hook) for hook in hooks) for part in rewritten)


def graded_states(model: Qwen3ForCausalLM, input_ids: torch.Tensor, graded: torch.Tensor) -> torch.Tensor:
    """Last hidden states at the graded positions alone: (N, D), as `model.model(input_ids)` gives them.

    input_ids: (B, T), padded on the right; graded: (B, T) bool. Other positions serve as keys and values for them up
    to the last layer, whose MLP they never enter.
    """
    decoder, length = model.model, input_ids.shape[1]
    x = decoder.embed_tokens(input_ids)  # (B, T, D)
    cos, sin = (part[0, :, None] for part in decoder.rotary_emb(x, torch.arange(length)[None]))  # (T, 1, head_dim)
    half = sin.shape[-1] // 2
    sin = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
    later = torch.full((length, length), -torch.inf).triu(1)
    for layer in decoder.layers:
        seen = _attend(layer.self_attn, _norm(x, layer.input_layernorm), cos, sin, later)
        if layer is decoder.layers[-1]:
            x, seen = x[graded], seen[graded]
        x = x + layer.self_attn.o_proj(seen)
        x = x + layer.mlp(_norm(x, layer.post_attention_layernorm))
    return _norm(x, decoder.norm)


def _norm(x: torch.Tensor, norm: Qwen3RMSNorm) -> torch.Tensor:
    return _RMSNorm.apply(x, norm.weight, norm.variance_epsilon)


def _attend(
    attention: Qwen3Attention, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, later: torch.Tensor
) -> torch.Tensor:
    """Causal attention before its output projection: (B, T, D) -> (B, T, heads * head_dim).

    Several query heads may share one key-value head; their queries stand one after the other in one matrix, so that
    every key-value head takes one matrix product for all of them.
    """
    rows, length, _ = x.shape
    shared, size = attention.num_key_value_groups, attention.head_dim
    q, k, v = (getattr(attention, name)(x).unflatten(-1, (-1, size)) for name in ("q_proj", "k_proj", "v_proj"))
    q = _Rotate.apply(_norm(q, attention.q_norm), cos, sin).unflatten(2, (-1, shared))  # (B, T, kv heads, shared, size)
    k = _Rotate.apply(_norm(k, attention.k_norm), cos, sin)
    q = q.permute(0, 2, 3, 1, 4).reshape(-1, shared * length, size)  # (B * kv heads, shared * T, size)
    k, v = (part.transpose(1, 2).reshape(-1, length, size) for part in (k, v))
    scores = torch.baddbmm(later.repeat(shared, 1), q, k.transpose(1, 2), alpha=attention.scaling)
    mixed = torch.bmm(scores.softmax(-1), v).view(rows, -1, shared, length, size)
    return mixed.permute(0, 3, 1, 2, 4).reshape(rows, length, -1)
