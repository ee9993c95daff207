"""What a way of tuning costs: every number is that of real modules of the same shape."""

import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from sft_lab.adapters import (
    METHODS,
    add_adapters,
    add_biases,
    add_prefix,
    add_prompt,
    count_trained,
)
from sft_lab.costs import method_cost, model_operations
from sft_lab.lora import add_lora, merge_lora, save_adapter
from sft_lab.models import ATLAS_FOLDER
from sft_lab.shapes import head_dim, named_config

ADD = {
    "full": lambda model, size: model,
    "LoRA": lambda model, size: add_lora(model, rank=size),
    "adapter": lambda model, size: add_adapters(model, width=size),
    "prefix": lambda model, size: add_prefix(model, [3] * size),
    "prompt": lambda model, size: add_prompt(model, [3] * size),
    "BitFit": lambda model, size: add_biases(model),
}


def random_case(seed: int) -> tuple[PreTrainedConfig, int]:
    """A small config of any of the three kinds, and a size for the methods."""
    rng = random.Random(seed)
    kv_heads = rng.choice([1, 2])
    heads = kv_heads * rng.choice([1, 2])
    sizes = {
        "vocab_size": rng.randint(20, 60),
        "hidden_size": heads * rng.choice([4, 6, 10]),
        "intermediate_size": rng.choice([16, 28]),
        "num_hidden_layers": rng.randint(1, 3),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "tie_word_embeddings": rng.random() < 0.5,
        "attn_implementation": "eager",
    }
    kind = (Qwen3Config, Qwen2Config, LlamaConfig)[seed % 3]
    if kind is not Qwen2Config:  # whose heads always share the width of the model
        sizes["head_dim"] = rng.choice([4, 6])
    return kind(**sizes), rng.randint(1, 5)


def build(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


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
    config, size = random_case(seed)
    model = build(config)
    parameters = trained(ADD[method](model, size))
    found = method_cost(method, size, config)
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
    config, size = random_case(seed)
    plain_operations, plain_cache = operations_of_next_token(build(config))
    operations, cache = operations_of_next_token(ADD[method](build(config), size))
    found = method_cost(method, size, config)
    assert found.operations == operations - plain_operations
    assert (
        2 * found.cache_bytes == cache - plain_cache
    )  # the model here holds float32, the view counts bfloat16


def test_the_operations_of_the_model_are_all_but_attention():
    for seed in range(6):
        config, _ = random_case(seed)
        attention = (
            config.num_hidden_layers * 2 * 2 * config.num_attention_heads * head_dim(config) * 2
        )  # the token itself and the cached one
        assert operations_of_next_token(build(config))[0] - attention == model_operations(config)


def test_a_merged_lora_costs_no_operations():
    config, size = random_case(0)
    merged = merge_lora(add_lora(build(config), rank=size))
    assert operations_of_next_token(merged) == operations_of_next_token(build(config))


def test_the_file_of_an_adapter_has_these_bytes_and_a_small_header(tmp_path):
    config, size = AutoConfig.from_pretrained(ATLAS_FOLDER), 8
    model = add_lora(build(config), rank=size)
    save_adapter(model, tmp_path)
    file = (tmp_path / "adapter_model.safetensors").stat().st_size
    counted = method_cost("LoRA", size, config).file_bytes
    assert counted < file < counted + 16_000


def test_named_configs_have_the_parameters_of_their_model_cards():
    published = {"Qwen3-0.6B": 0.6e9, "Qwen3-1.7B": 1.7e9, "Qwen3-4B": 4.0e9, "Qwen3-8B": 8.2e9}
    for name, parameters in published.items():
        assert count_trained("full", 1, named_config(name)) == pytest.approx(parameters, rel=0.03)


def test_what_cannot_be_counted_is_refused_with_what_can():
    config, _ = random_case(0)
    with pytest.raises(ValueError, match="method is 'IA3'; there are full, LoRA"):
        method_cost("IA3", 4, config)
    for method in METHODS:
        with pytest.raises(ValueError, match="size is 0"):
            method_cost(method, 0, config)
