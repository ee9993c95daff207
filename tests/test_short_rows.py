"""The short-row decoder is transformers' Qwen3: the same states, losses and gradients, or it leaves
the batch alone."""

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from tiny import PAD, VOCABULARY, make_examples, make_model
from torch import nn
from torch.testing import assert_close
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from sft_lab.batches import pack, pad_batch
from sft_lab.examples import IGNORE_INDEX
from sft_lab.kernels import short_rows
from sft_lab.lora import add_lora
from sft_lab.losses import graded_logits

pytestmark = pytest.mark.numeric


def random_qwen3(seed: int) -> Qwen3ForCausalLM:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kv_heads = rng.choice([1, 2, 3])
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=rng.choice([16, 24, 40]),
            num_hidden_layers=rng.randint(1, 3),
            num_attention_heads=kv_heads * rng.randint(1, 3),
            num_key_value_heads=kv_heads,
            head_dim=rng.choice([4, 8, 16]),
            intermediate_size=rng.choice([20, 48]),
            max_position_embeddings=128,
            tie_word_embeddings=rng.random() < 0.5,
            attention_bias=rng.random() < 0.3,
            rms_norm_eps=rng.choice([1e-6, 1e-5]),
            initializer_range=0.15,
            rope_parameters={"rope_type": "default", "rope_theta": rng.choice([1e4, 1e6])},
            pad_token_id=PAD,
            bos_token_id=None,
            eos_token_id=1,
        )
    )
    for name, parameter in model.named_parameters():
        if "norm" in name:  # transformers starts all at 1, where a forgotten weight would not show
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def loss_and_gradients(
    model: nn.Module, batch: dict
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = F.cross_entropy(*graded_logits(model, batch))
    loss.backward()
    return loss.detach(), {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("seed", range(30))
def test_loss_and_every_gradient_are_those_of_transformers(seed, monkeypatch):
    model = random_qwen3(seed)
    batch = pad_batch(make_examples(random.Random(seed).randint(1, 7), seed=seed), PAD)
    if seed % 3 == 0:
        add_lora(model, rank=3)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    assert short_rows.handles(model, batch)
    loss, gradients = loss_and_gradients(model, batch)
    monkeypatch.setattr(short_rows, "handles", lambda model, batch: False)
    right_loss, right_gradients = loss_and_gradients(model, batch)
    assert_close(loss, right_loss, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == right_gradients.keys() and gradients
    for name, right in right_gradients.items():
        assert_close(
            gradients[name],
            right,
            rtol=1e-3,
            atol=1e-4,  # written out by hand, its sums come in another order
            msg=lambda text, name=name: f"{name}: {text}",
        )


def test_the_gradient_by_hand_of_the_norm_is_that_of_finite_differences():
    x, weight = (torch.rand(shape, dtype=torch.float64) + 0.5 for shape in ((2, 3, 4), (4,)))
    x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, weight: short_rows.RMSNorm.apply(x, weight, 1e-6), (x, weight)
    )


def test_the_gradient_by_hand_of_attention_is_that_of_finite_differences():
    length, size = 4, 6
    attention = Qwen3Attention(
        Qwen3Config(
            hidden_size=8,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=size,
            rms_norm_eps=1e-6,
        ),
        layer_idx=0,
    )
    angle = torch.rand(length, 1, size // 2, dtype=torch.float64)
    cos, sin = torch.cat((angle.cos(), angle.cos()), -1), torch.cat((-angle.sin(), angle.sin()), -1)
    later = torch.full((length, length), -torch.inf, dtype=torch.float64).triu(1).repeat(2, 1)
    qkv = torch.randn(2, length, (4 + 2 * 2) * size, dtype=torch.float64, requires_grad=True)
    weights = [torch.rand(size, dtype=torch.float64).add_(0.5).requires_grad_() for _ in range(2)]
    run = lambda *inputs: short_rows.Attend.apply(*inputs, cos, sin, later, attention)  # noqa: E731
    assert torch.autograd.gradcheck(run, (qkv, *weights))


def test_the_gradient_by_hand_of_swiglu_is_that_of_finite_differences():
    gate_up = torch.randn(2, 3, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(short_rows.SwiGLU.apply, (gate_up,))


def _replace_mlp_norm(model):
    model.model.layers[1].post_attention_layernorm = nn.LayerNorm(32)


def _replace_attention(model):
    model.model.layers[0].self_attn = copy.deepcopy(nn.Sequential(model.model.layers[0].self_attn))


CHANGES = {
    "half precision": lambda model: model.bfloat16(),
    "a hook on a layer": lambda model: model.model.layers[0].register_forward_hook(lambda *a: None),
    "a hook on the decoder": lambda model: model.model.register_forward_pre_hook(lambda *a: None),
    "a hook on attention": lambda model: model.model.layers[1].self_attn.register_forward_pre_hook(
        lambda *a: None
    ),
    "a backward hook on a layer": lambda model: model.model.layers[
        0
    ].register_full_backward_pre_hook(lambda *a: None),
    "a backward hook on a norm": lambda model: model.model.layers[
        1
    ].self_attn.k_norm.register_full_backward_hook(lambda *a: None),
    "another forward of a layer": lambda model: setattr(
        model.model.layers[0], "forward", model.model.layers[0].forward
    ),
    "another norm": _replace_mlp_norm,
    "attention in a wrapper": _replace_attention,
    "gradient checkpointing": lambda model: model.activation_checkpointing_enable(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_left_to_transformers(change):
    model, batch = make_model(), pad_batch(make_examples(3), PAD)
    assert short_rows.handles(model, batch)
    CHANGES[change](model)
    assert not short_rows.handles(model, batch)


@pytest.mark.parametrize("part", ["mlp", "mlp.act_fn", "mlp.gate_proj", "self_attn.v_proj"])
def test_a_hook_on_a_part_that_may_be_of_any_kind_is_called(part):
    model, batch, called = make_model(), pad_batch(make_examples(3), PAD), []
    model.model.layers[1].get_submodule(part).register_forward_hook(lambda *_: called.append(1))
    assert short_rows.handles(model, batch)
    graded_logits(model, batch)
    assert len(called) == 1


def test_an_mlp_of_another_kind_is_called():
    model, batch = make_model(), pad_batch(make_examples(3), PAD)
    right, _ = graded_logits(model, batch)
    model.model.layers[1].mlp = nn.Sequential(model.model.layers[1].mlp)
    assert short_rows.handles(model, batch)
    assert_close(graded_logits(model, batch)[0], right, rtol=1e-4, atol=1e-5)


def test_other_batches_and_other_architectures_are_left_to_transformers():
    batch, long = (
        pad_batch(make_examples(3), PAD),
        pad_batch(make_examples(1, shortest=257, longest=257), PAD),
    )
    assert not short_rows.handles(make_model("llama"), batch)
    assert not short_rows.handles(make_model(attention_dropout=0.1), batch)
    assert not short_rows.handles(make_model(), pack(make_examples(3), 80)[0])
    assert not short_rows.handles(make_model(), long)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not short_rows.handles(make_model(), batch)


def test_an_adapter_in_place_of_a_linear_layer_is_called():
    model, batch = make_model(), pad_batch(make_examples(4), PAD)
    before = graded_logits(model, batch)[0]
    layer = model.model.layers[1].mlp
    layer.down_proj = nn.Sequential(layer.down_proj, nn.Linear(32, 32))
    assert short_rows.handles(model, batch)
    after, targets = graded_logits(model, batch)
    assert not torch.allclose(before, after)
    whole = model(input_ids=batch["input_ids"]).logits[:, :-1][
        batch["labels"][:, 1:] != IGNORE_INDEX
    ]
    assert_close(after, whole, rtol=1e-4, atol=1e-5)
