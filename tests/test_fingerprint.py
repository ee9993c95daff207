"""A fingerprint knows its weights again in every number format, and no others."""

import copy
import random
import warnings

import pytest
import torch
from gguf import GGMLQuantizationType, quants
from tiny import make_model
from torch import nn
from transformers import PreTrainedModel

from sft_lab.fingerprint import check_fingerprint, fingerprint
from sft_lab.lora import LoRALinear, add_lora, merge_lora

FORMATS = (torch.float32, torch.bfloat16, torch.float16)
QUANTISED = ("Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1")


def verdict(there: nn.Module, here: nn.Module) -> str:
    """What is said of an adapter of `there` on `here`: "", a warning, or an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_fingerprint(fingerprint(there.named_parameters()), here.named_parameters(), "It")
        except ValueError as error:
            assert not caught
            return f"refused: {error}"
    return "".join(str(warning.message) for warning in caught)


def in_format(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    return copy.deepcopy(model).to(dtype)


@torch.no_grad()
def quantised(model: PreTrainedModel, kind: str) -> PreTrainedModel:
    """As transformers loads a GGUF file: matrices rounded to a grid, vectors as they were."""
    copied, kind = copy.deepcopy(model), GGMLQuantizationType[kind]
    for parameter in copied.parameters():
        if parameter.dim() > 1:
            packed = quants.quantize(parameter.float().numpy(), kind)
            parameter.copy_(torch.from_numpy(quants.dequantize(packed, kind)))
    return copied


# a model of the size of atlas-base: blocks of 32 numbers, as GGUF files have them
@pytest.fixture(scope="module")
def base(model) -> PreTrainedModel:
    return copy.deepcopy(model)


@pytest.mark.parametrize("there", FORMATS)
@pytest.mark.parametrize("here", FORMATS)
@pytest.mark.parametrize("made_in", FORMATS)
def test_the_same_base_in_another_format_is_the_same(base, made_in, there, here):
    for made in (base, make_model(seed=1), make_model("llama", seed=2)):
        original = in_format(in_format(made, made_in), torch.float32)
        assert verdict(in_format(original, there), in_format(original, here)) == ""


@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("dtype", FORMATS)
def test_a_quantised_copy_is_accepted_with_a_warning_and_known_again_without(base, kind, dtype):
    rounded = in_format(quantised(base, kind), dtype)
    for pair in ((base, rounded), (rounded, base), (in_format(base, torch.bfloat16), rounded)):
        assert "one of the two is a quantised copy" in verdict(*pair)
    for other in FORMATS:
        assert verdict(rounded, in_format(rounded, other)) == ""
    assert "refused" in verdict(rounded, make_other(base))


def test_two_quantised_copies_of_one_base_are_accepted_with_a_warning(base):
    assert "quantised copy" in verdict(quantised(base, "Q4_0"), quantised(base, "Q8_0"))


def make_other(base: PreTrainedModel) -> PreTrainedModel:
    """Other weights of the same shapes and sizes."""
    other = copy.deepcopy(base)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(
                parameter.flatten()[torch.randperm(parameter.numel())].view_as(parameter)
            )
    return other


def with_merged_update(base: PreTrainedModel, size: float, targets="all-linear"):
    """An adapter merged in whose update has `size` times the norm of the weights."""
    model = add_lora(copy.deepcopy(base), rank=2, targets=targets)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, LoRALinear):
                layer.lora_B.weight.normal_()
                update = layer.lora_B.weight @ layer.lora_A.weight * layer.alpha / layer.rank
                layer.lora_B.weight.mul_(size * layer.base_layer.weight.norm() / update.norm())
    return merge_lora(model)


@pytest.mark.parametrize(
    ("size", "targets"),
    [
        (1e-4, "all-linear"),
        (1e-2, "all-linear"),
        (1e-3, ["3.mlp.down_proj"]),
        (1, ["0.self_attn.k_proj"]),
    ],
)
@pytest.mark.parametrize("there", FORMATS)
@pytest.mark.parametrize("here", FORMATS)
def test_a_base_with_an_adapter_merged_in_is_another(base, size, targets, there, here):
    if size < 1e-2 and torch.bfloat16 in (there, here):
        size *= 10  # what a format rounds away is not there
    merged = with_merged_update(base, size, targets)
    layers = 28 if targets == "all-linear" else 1
    for pair in ((base, merged), (merged, base)):
        said = verdict(in_format(pair[0], there), in_format(pair[1], here))
        if {there, here} == {torch.bfloat16, torch.float16} and size < 0.1:
            continue  # two roundings differ by as much: a limit that the module's text names
        assert "refused: It, and these are other weights" in said
        assert f"({layers} of 46 tensors differ, first model.layers." in said


@pytest.mark.parametrize("seed", range(40))
def test_one_row_of_one_tensor_is_enough(base, seed):
    rng = random.Random(seed)
    changed = in_format(base, rng.choice(FORMATS))
    name, parameter = rng.choice(list(changed.named_parameters()))
    row = rng.randrange(len(parameter))
    with torch.no_grad():
        parameter[row] = parameter[row] * 1.5 + 0.01
    for pair in ((base, changed), (changed, base)):
        assert f"(1 of 46 tensors differ, first {name})" in verdict(*pair)


def test_a_step_of_full_training_and_other_weights_are_seen(base):
    tuned = copy.deepcopy(base).train()
    optimizer = torch.optim.SGD(tuned.parameters(), lr=1e-3)
    ids = torch.arange(5, 40)[None]
    tuned(ids, labels=ids).loss.backward()
    optimizer.step()
    for other in (tuned, make_other(base)):
        assert "refused" in verdict(base, other) and "refused" in verdict(other, base)
        # beside a quantised copy too: its vectors are exact
        assert "refused" in verdict(quantised(base, "Q4_0"), other)
        assert "refused" in verdict(quantised(other, "Q4_0"), base)


@pytest.mark.parametrize("kind", QUANTISED)
def test_a_quantised_base_with_an_adapter_merged_in_is_another(base, kind):
    rounded = quantised(base, kind)
    merged = with_merged_update(rounded, 1e-2)
    for pair in ((rounded, merged), (merged, rounded), (merged, base), (base, merged)):
        assert "refused" in verdict(*pair)


def test_a_tied_head_that_a_file_holds_twice_is_no_other_base(base):
    untied = copy.deepcopy(base)
    untied.lm_head.weight = nn.Parameter(base.lm_head.weight.detach().clone())
    assert len(list(untied.parameters())) == len(list(base.parameters())) + 1
    assert verdict(base, untied) == verdict(untied, base) == ""
    with torch.no_grad():
        untied.lm_head.weight[7] += 0.1
    assert "first lm_head.weight" in verdict(base, untied)
    assert "first lm_head.weight" in verdict(untied, base)


def test_other_shapes_and_other_names_are_other_weights(base):
    for other in (make_model(), make_model("llama")):
        assert "refused" in verdict(base, other) and "refused" in verdict(other, base)
    wider = copy.deepcopy(base)
    wider.resize_token_embeddings(2112)
    assert "first model.embed_tokens.weight" in verdict(base, wider)


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"a": 1}', '{"a": "AA"}', '{"a": "é"}', "null"])
def test_a_damaged_fingerprint_is_named(base, damage):
    with pytest.raises(ValueError, match="whose fingerprint is damaged"):
        check_fingerprint(damage, base.named_parameters(), "It")


def test_it_is_short(base):
    assert len(fingerprint(base.named_parameters())) < 4500
