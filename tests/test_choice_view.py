"""The view of costs: every number is that of real modules of the same shape; its controls move
picture and words."""

import base64
import random
import re

import matplotlib
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

matplotlib.use("Agg")
from sft_lab.adapters import add_adapters, add_biases, add_prefix, add_prompt
from sft_lab.course.views.choice import (
    METHODS,
    SHAPES,
    Shape,
    cost,
    count_parameters,
    count_trained,
    describe_choice,
    draw_choice,
    explore_choice,
    format_bytes,
    format_share,
    model_operations,
)
from sft_lab.lora import add_lora, merge_lora, save_adapter
from sft_lab.models import ATLAS_FOLDER

ADD = {
    "full": lambda model, size: model,
    "LoRA": lambda model, size: add_lora(model, rank=size),
    "adapter": lambda model, size: add_adapters(model, width=size),
    "prefix": lambda model, size: add_prefix(model, [3] * size),
    "prompt": lambda model, size: add_prompt(model, [3] * size),
    "BitFit": lambda model, size: add_biases(model),
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def random_case(seed: int) -> tuple[Shape, int]:
    rng = random.Random(seed)
    kv_heads = rng.choice([1, 2])
    heads = kv_heads * rng.choice([1, 2])
    shape = Shape(
        "tiny",
        rng.randint(1, 3),
        rng.choice([8, 12, 20]),
        rng.choice([16, 28]),
        heads,
        kv_heads,
        rng.choice([4, 6]),
        rng.randint(20, 60),
        rng.random() < 0.5,
    )
    return shape, rng.randint(1, 5)


def build(shape: Shape) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
        attn_implementation="eager",
    )
    return Qwen3ForCausalLM(config).eval()


def trained(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def operations_of_next_token(model: PreTrainedModel) -> tuple[int, int]:
    """Operations of one more token after a cached one, and bytes of the cache before it."""
    with torch.no_grad():
        cache = model(input_ids=torch.tensor([[4]]), use_cache=True).past_key_values
        size = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.tensor([[5]]), past_key_values=cache, use_cache=True)
    assert isinstance(cache, DynamicCache)
    return counter.get_total_flops(), size


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("method", METHODS)
def test_parameters_and_optimizer_bytes_are_those_of_real_modules(method, seed):
    shape, size = random_case(seed)
    model = build(shape)
    assert count_parameters(shape) == sum(p.numel() for p in model.parameters())
    parameters = trained(ADD[method](model, size))
    found = cost(shape, method, size)
    assert found.trained == sum(parameter.numel() for parameter in parameters)
    optimizer = torch.optim.AdamW(parameters)
    model(input_ids=torch.tensor([[4, 5, 6]]), labels=torch.tensor([[4, 5, 6]])).loss.backward()
    optimizer.step()
    state = [value for entry in optimizer.state.values() for value in entry.values() if value.dim()]
    assert found.optimizer_bytes == sum(value.nbytes for value in state)
    assert found.file_bytes == sum(parameter.nbytes for parameter in parameters)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", METHODS)
def test_operations_and_cache_are_those_of_a_real_step(method, seed):
    shape, size = random_case(seed)
    plain_operations, plain_cache = operations_of_next_token(build(shape))
    operations, cache = operations_of_next_token(ADD[method](build(shape), size))
    found = cost(shape, method, size)
    assert found.operations == operations - plain_operations
    assert (
        2 * found.cache_bytes == cache - plain_cache
    )  # the model here holds float32, the view counts bfloat16


def test_the_operations_of_the_model_are_all_but_attention():
    for seed in range(6):
        shape, _ = random_case(seed)
        attention = (
            shape.layers * 2 * 2 * shape.heads * shape.head_dim * 2
        )  # the token itself and the cached one
        assert operations_of_next_token(build(shape))[0] - attention == model_operations(shape)


def test_a_merged_lora_costs_no_operations():
    shape, size = random_case(1)
    merged = merge_lora(add_lora(build(shape), rank=size))
    assert operations_of_next_token(merged) == operations_of_next_token(build(shape))


def test_the_file_of_an_adapter_has_these_bytes_and_a_small_header(tmp_path):
    shape, size = SHAPES[0], 8
    model = add_lora(build(shape), rank=size)
    save_adapter(model, tmp_path)
    file = (tmp_path / "adapter_model.safetensors").stat().st_size
    assert (
        cost(shape, "LoRA", size).file_bytes < file < cost(shape, "LoRA", size).file_bytes + 16_000
    )


def test_atlas_base_is_the_model_of_the_repository():
    config, shape = Qwen3Config.from_pretrained(ATLAS_FOLDER), SHAPES[0]
    assert shape == (
        "atlas-base",
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.vocab_size,
        config.tie_word_embeddings,
    )


def test_the_larger_shapes_have_the_parameters_of_their_model_cards():
    published = {"Qwen3-0.6B": 0.6e9, "Qwen3-4B": 4.0e9, "Qwen3-8B": 8.2e9}
    for shape in SHAPES[1:]:
        assert count_parameters(shape) == pytest.approx(published[shape.name], rel=0.02)


def test_the_words_name_all_five_costs():
    sentence = describe_choice(SHAPES[0], "prefix", 16)
    for part in (
        "atlas-base, prefix with 16 positions",
        "trains 8.19 k of 1.05 M parameters (0.78 %)",
        "AdamW keeps 65.5 kB",
        "file of a task takes 32.8 kB",
        "16.4 kB of cache",
        "1.6 % more operations",
    ):
        assert part in sentence
    of_lora = describe_choice(SHAPES[0], "LoRA", 8)
    assert "LoRA of rank 8:" in of_lora and "(none once merged)" in of_lora
    assert "no cache and no more operations" in describe_choice(SHAPES[0], "BitFit", 1)


def test_numbers_are_written_with_few_digits_and_a_unit():
    sizes = {
        0: "0",
        512: "512 B",
        65_536: "65.5 kB",
        4_764_000: "4.76 MB",
        65_000_000_000: "65.0 GB",
    }
    assert {count: format_bytes(count) for count in sizes} == sizes
    assert [format_share(x) for x in (0, 1, 0.123, 0.0123, 0.00004)] == [
        "0",
        "100 %",
        "12 %",
        "1.2 %",
        "0.004 %",
    ]


def test_the_chosen_method_is_marked_by_more_than_colour():
    figure = draw_choice(SHAPES[1], "adapter", 16)
    parameters, cache, operations = figure.axes
    assert [text.get_text() for text in parameters.get_yticklabels()] == [
        "full",
        "LoRA",
        "▶ adapter",
        "prefix",
        "prompt",
        "BitFit",
    ]
    assert [bar.get_linewidth() > 0 for bar in parameters.patches] == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]
    assert (len(parameters.patches), len(cache.patches), len(operations.patches)) == (6, 2, 4)
    assert all(ax.get_xscale() == "log" for ax in figure.axes)


def test_a_bar_ends_at_its_value():
    bars = draw_choice(SHAPES[1], "LoRA", 16).axes[0].patches
    for bar, method in zip(bars, METHODS, strict=True):
        assert bar.get_x() + bar.get_width() == pytest.approx(count_trained(SHAPES[1], method, 16))


@pytest.mark.parametrize("size", [1, 256], ids=["least", "most"])
@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_both_ends_of_the_slider_can_be_drawn(shape, size):
    assert f"LoRA, rank {size}" in draw_choice(shape, "LoRA", size).get_suptitle()


def test_the_controls_move_picture_and_words():
    models, methods, slider, picture, words = explore_choice("Qwen3-0.6B", "LoRA", 16).children
    assert describe_choice(SHAPES[1], "LoRA", 16) in words.value
    seen = {picture.value}
    slider.value = 64
    assert describe_choice(SHAPES[1], "LoRA", 64) in words.value
    seen.add(picture.value)
    methods.value = "prefix"
    assert describe_choice(SHAPES[1], "prefix", 64) in words.value
    seen.add(picture.value)
    models.value = "Qwen3-8B"
    assert describe_choice(SHAPES[3], "prefix", 64) in words.value
    seen.add(picture.value)
    assert len(seen) == 4
    alt, source = re.match(
        r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', picture.value
    ).groups()
    assert alt == describe_choice(SHAPES[3], "prefix", 64)
    assert base64.b64decode(source).startswith(b"\x89PNG")


def test_what_is_not_there_is_refused_with_what_is():
    with pytest.raises(ValueError, match="method is 'IA3'; there are full, LoRA"):
        cost(SHAPES[0], "IA3", 4)
    with pytest.raises(ValueError, match="size is 0"):
        cost(SHAPES[0], "LoRA", 0)
    with pytest.raises(ValueError, match="model is 'gpt2'; shown are atlas-base"):
        explore_choice("gpt2")
    with pytest.raises(ValueError, match="size is 3; the slider has 1, 2"):
        explore_choice(size=3)
