"""Memory that is predicted on paper and memory that a step takes: parameters, every method, the
allocator itself."""

import random

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from sft_lab.lora import add_lora
from sft_lab.memory import PARTS, count_layer, predict_memory, predict_moments
from sft_lab.memory_meter import PHASES, measure_memory
from sft_lab.shapes import SHAPES, count_parameters, named_config

CASES = 4  # random models and settings a row; each runs a training step


def random_config(
    rng: random.Random, kinds: tuple[type, ...] = (Qwen3Config, Qwen2Config)
) -> PreTrainedConfig:
    kv_heads, size = rng.choice([1, 2, 4]), rng.choice([16, 24, 32, 64])
    heads = kv_heads * rng.choice([1, 2, 4])
    sizes = {
        "vocab_size": rng.choice([997, 2503, 5009]),
        "num_hidden_layers": rng.randint(2, 4),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 1024,
        "intermediate_size": rng.choice([96, 208, 400, 608]),
        "tie_word_embeddings": rng.random() < 0.5,
    }
    if (kind := rng.choice(kinds)) is Qwen3Config:
        return Qwen3Config(hidden_size=rng.choice([64, 128, 192]), head_dim=size, **sizes)
    return kind(hidden_size=heads * size, **sizes)


def random_settings(rng: random.Random, **given: object) -> dict[str, object]:
    drawn = {
        "rank": rng.choice([2, 8, 16]),
        "batch_size": rng.randint(1, 4),
        "length": rng.choice([17, 64, 130]),
        "half": rng.random() < 0.6,
        "head": rng.choice(["all", "graded"]),
        "graded": rng.choice([0.2, 0.5, 0.9]),
        "attention": rng.choice(["sdpa", "sdpa", "eager"]),
    }
    return drawn | given


def total(parts: dict[str, int]) -> int:
    assert tuple(parts) == PARTS
    return sum(parts.values())


@pytest.mark.parametrize("name", SHAPES)
def test_the_parameters_of_a_named_shape_are_those_of_the_real_class(name):
    config = named_config(name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        base = sum(parameter.numel() for parameter in model.parameters())
        add_lora(model, rank=16)
    learned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    counts = count_parameters(config, 16)
    assert (counts["linear"] + counts["embedding"] + counts["other"], counts["lora"]) == (
        base,
        learned,
    )


@pytest.mark.parametrize(
    "kind", [Qwen3Config, Qwen2Config, LlamaConfig], ids=["qwen3", "qwen2", "llama"]
)
def test_the_parameters_of_random_models_are_counted_exactly(kind):
    rng = random.Random(0)
    for rank in (1, 4, 8, 16, 64):
        config = random_config(rng, (kind,))
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
            base = sum(parameter.numel() for parameter in model.parameters())
            add_lora(model, rank=rank)
        learned = sum(
            parameter.numel() for parameter in model.parameters() if parameter.requires_grad
        )
        counts = count_parameters(config, rank)
        assert (sum(counts.values()) - counts["lora"], counts["lora"]) == (base, learned)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["all kept", "checkpointing"])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_step_takes_the_memory_that_was_predicted(method, checkpointing):
    rng = random.Random(f"{method} {checkpointing}")
    for _ in range(CASES):
        config, settings = (
            random_config(rng),
            random_settings(rng, method=method, checkpointing=checkpointing),
        )
        predicted, measured = predict_memory(config, **settings), measure_memory(config, **settings)
        assert total(predicted) == pytest.approx(total(measured), rel=0.1), (
            settings,
            predicted,
            measured,
        )
        for part in ("weights", "optimizer"):
            assert predicted[part] == pytest.approx(measured[part], rel=0.01), (part, settings)


@pytest.mark.parametrize("half", [True, False], ids=["half", "float32"])
def test_freezing_all_but_the_last_layers_takes_the_memory_that_was_predicted(half):
    rng = random.Random(f"freeze {half}")
    for case in range(2 * CASES):
        config = random_config(rng)
        layers = rng.randint(1, config.num_hidden_layers)
        settings = random_settings(
            rng, method="freeze", trained_layers=layers, checkpointing=case >= CASES, half=half
        )
        predicted, measured = predict_memory(config, **settings), measure_memory(config, **settings)
        assert total(predicted) == pytest.approx(total(measured), rel=0.1), (settings, predicted)
        for part in ("weights", "optimizer"):
            assert predicted[part] == pytest.approx(measured[part], rel=0.01), (part, settings)


def test_freezing_a_model_as_large_as_qwen3_0_6b_keeps_nothing_below_the_trained_layers():
    config = named_config("Qwen3-0.6B")
    settings = {"method": "freeze", "trained_layers": 2, "batch_size": 2, "length": 512}
    predicted, measured = predict_memory(config, **settings), measure_memory(config, **settings)
    for part in PARTS:
        assert predicted[part] == pytest.approx(measured[part], rel=0.01, abs=2**20), part
    twice = predict_memory(config, **settings | {"trained_layers": 4})
    assert twice["optimizer"] == 2 * predicted["optimizer"]


def test_llama_is_counted_too_and_measured_for_real():
    rng = random.Random(5)
    for method in ("full", "lora"):
        config, settings = random_config(rng, (LlamaConfig,)), random_settings(rng, method=method)
        measured = measure_memory(config, fake=False, **settings)
        assert total(predict_memory(config, **settings)) == pytest.approx(total(measured), rel=0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {"length": 1024},
        {"length": 768, "checkpointing": True, "head": "graded"},
    ],  # the second: two chunks of scores
    ids=["all scores", "graded in chunks"],
)
def test_a_step_of_qwen3_0_6b_is_measured_with_nothing_allocated_and_every_part_is_as_predicted(
    settings,
):
    settings = {"method": "lora", "rank": 16, "batch_size": 4, **settings}
    predicted, measured = (
        work(named_config("Qwen3-0.6B"), **settings) for work in (predict_memory, measure_memory)
    )
    assert total(measured) > 3 * 2**30  # more than this test may take
    for part in PARTS:
        assert predicted[part] == pytest.approx(measured[part], rel=0.01, abs=2**20), part


def allocator_peak(work) -> tuple[object, int]:
    """What `work` returns, and the most bytes that PyTorch's own allocator held for it, from its
    profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = work()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return result, peak


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "full", "half": False},
        {"method": "lora"},
        {"method": "full", "checkpointing": True},
    ],
    ids=["full, float32", "lora, bfloat16", "full, autocast, checkpointing"],
)
def test_the_meter_counts_the_bytes_that_the_allocator_gives(settings):
    config = random_config(random.Random(2))
    measured, peak = allocator_peak(
        lambda: measure_memory(config, batch_size=2, length=128, fake=False, **settings)
    )
    assert total(measured) == pytest.approx(peak, rel=0.002)


@pytest.mark.parametrize("length", [8, 128], ids=["gradients largest", "scores largest"])
def test_a_plain_training_loop_that_nothing_watches_takes_what_was_predicted(length):
    config = Qwen3Config(
        vocab_size=2503,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=384,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
    )

    def two_steps() -> None:
        model = AutoModelForCausalLM.from_config(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        input_ids = torch.zeros(2, length, dtype=torch.long)
        for _ in range(2):
            output = model(input_ids=input_ids, labels=input_ids, use_cache=False)
            output.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            del output

    _, peak = allocator_peak(two_steps)
    predicted = predict_memory(config, method="full", half=False, batch_size=2, length=length)
    assert total(predicted) == pytest.approx(peak, rel=0.02)


def test_fake_tensors_and_real_ones_take_the_same_bytes():
    config = random_config(random.Random(3))
    for method in ("full", "lora"):
        settings = {"method": method, "batch_size": 2, "length": 64}
        assert measure_memory(config, **settings) == measure_memory(config, fake=False, **settings)


def test_checkpointing_graded_positions_and_four_bits_never_take_more():
    for seed in range(40):
        rng = random.Random(seed)
        config, settings = (
            random_config(rng),
            random_settings(rng, attention="sdpa", method="lora", half=True),
        )
        settings |= {"length": 1024, "checkpointing": False, "head": "all"}
        plain = total(predict_memory(config, **settings))
        assert total(predict_memory(config, **settings | {"checkpointing": True})) <= plain
        assert total(predict_memory(config, **settings | {"head": "graded"})) <= plain
        larger = settings | {"method": "qlora"}
        assert (
            predict_memory(config, **larger)["weights"]
            < predict_memory(config, **settings)["weights"]
        )


def test_scores_of_attention_grow_with_the_square_of_the_length_and_only_in_eager():
    def kept(length: int, attention: str) -> int:
        config = named_config("Qwen3-0.6B")
        return count_layer(
            config, length, length, method="full", rank=1, half=True, attention=attention
        )["attention"]

    assert kept(2048, "sdpa") == 2 * kept(1024, "sdpa")
    assert kept(2048, "eager") / kept(1024, "eager") == pytest.approx(4, rel=0.05)


def test_the_peak_is_the_largest_of_the_moments():
    for seed in range(20):
        rng = random.Random(seed)
        config, settings = (
            random_config(rng),
            random_settings(rng, method=rng.choice(["full", "lora", "qlora"])),
        )
        moments = predict_moments(config, **settings)
        assert total(predict_memory(config, **settings)) == max(
            sum(parts.values()) for parts in moments.values()
        )


@pytest.mark.parametrize("head", ["all", "graded"])
def test_a_timeline_goes_through_the_step_once_and_holds_its_peak(head):
    config, timeline = random_config(random.Random(3)), []
    peak = measure_memory(config, method="full", length=32, head=head, timeline=timeline)
    assert max((moment.held for moment in timeline), key=total) == peak
    phases = [moment.phase for moment in timeline]
    assert phases == sorted(phases, key=PHASES.index) and set(phases) == set(PHASES)
    first, last = timeline[0].held, timeline[-1].held
    for part in ("weights", "optimizer", "gradients"):
        assert first[part] == last[part], part
    assert first["gradients"] == 0 == first["activations"]
    before_the_update = next(one for one in timeline if one.phase == PHASES[2]).held
    gradients = before_the_update["gradients"]  # the weights hold a few frequencies besides
    assert gradients == pytest.approx(before_the_update["weights"], rel=1e-3)


@pytest.mark.parametrize("work", [predict_memory, measure_memory], ids=["predict", "measure"])
@pytest.mark.parametrize(
    "settings, message",
    [
        ({"method": "dora"}, "method is 'dora'.*full, lora, qlora"),
        ({"head": "last"}, "head is 'last'.*all, graded"),
        ({"attention": "flash"}, "attention is 'flash'.*sdpa, eager"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"length": 0}, "length is 0"),
        ({"rank": 0}, "rank is 0"),
        ({"graded": 0.0}, "graded is 0.0.*share"),
        ({"graded": 50}, "graded is 50.*share"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_mean_nothing_are_refused(work, settings, message):
    with pytest.raises(ValueError, match=message):
        work(named_config("Qwen3-0.6B"), **settings)


def test_other_architectures_and_unknown_names_are_refused():
    from transformers import GPT2Config

    with pytest.raises(ValueError, match="model_type is 'gpt2'.*only qwen2, qwen3 and llama"):
        predict_memory(GPT2Config())
    with pytest.raises(ValueError, match="'Qwen3-0.6b'; known: Qwen3-0.6B"):
        named_config("Qwen3-0.6b")


def test_what_fake_tensors_or_four_bits_cannot_show_is_refused():
    with pytest.raises(ValueError, match="the bytes, not the numbers"):
        measure_memory(named_config("Qwen3-0.6B"), method="qlora", fake=False)
    with pytest.raises(ValueError, match="fake=False"):
        measure_memory(LlamaConfig())
