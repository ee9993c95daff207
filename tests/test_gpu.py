"""`make gpu` where there is no GPU: every measurement runs on a tiny model on the CPU, and counts
what it should."""

import json
import sys

import gpu
import gpu_measure
import pytest
import torch
from transformers import Qwen3Config

from sft_lab.models import ROOT, ModelError
from sft_lab.shapes import named_config

CPU = torch.device("cpu")


def tiny_config() -> Qwen3Config:
    return Qwen3Config(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )


METERED = {
    "shape": "tiny",
    "method": "lora",
    "rank": 3,
    "batch_size": 2,
    "length": 40,
    "checkpointing": True,
    "head": "graded",
    "graded": 0.5,
}


@pytest.fixture(scope="module")
def results():
    """Everything but torch.compile, which needs a C++ compiler on a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        real = gpu.measure_steps

        def measure_steps(*arguments, compiled=False, **settings):
            if compiled:
                raise RuntimeError("no compiler here\nand a second line")
            return real(*arguments, **settings)

        def measure_quality(name):
            if name != "atlas":
                raise ModelError(f"{name} cannot be loaded")
            return {"model": name, "heldout_loss_before": 2.0, "heldout_loss_after": 1.0}

        patch.setattr(gpu, "measure_steps", measure_steps)
        patch.setattr(gpu, "measure_quality", measure_quality)
        patch.setattr(gpu, "named_config", lambda name: tiny_config())
        return gpu.run_all(
            tiny_config(),
            device=CPU,
            dtype=torch.bfloat16,
            length=64,
            rows=2,
            head_sizes=((32, 100),),
            steps_to_meter=(METERED,),
            quality=("neither/of-both", "atlas"),
        )


def test_every_run_has_a_speed_and_what_failed_says_why(results):
    for runs in results["methods"].values():
        assert runs["sft_lab"]["tokens_per_second"] > 0 and runs["TRL"]["tokens_per_second"] > 0
        assert runs["sft_lab, torch.compile"] == {"failed": "RuntimeError: no compiler here"}
    failed = [name for name, found in results["switches"].items() if "failed" in found]
    assert failed == ["torch.compile"]
    assert results["loss_head"][0]["in chunks"]["times_bare"] > 0
    assert 0.2 < results["packing"]["real_tokens_in_padded_batches"] < 0.95
    assert results["packing"]["packed"]["tokens_per_second"] > 0


def test_a_metered_step_stands_beside_its_prediction(results):
    (found,) = results["memory"]
    settings = {name: value for name, value in METERED.items() if name != "shape"}
    predicted = gpu.predict_memory(tiny_config(), half=True, **settings)
    assert found["predicted_gib"] == sum(predicted.values()) / 2**30
    assert found["tokens_per_second"] > 0 and found["peak_gib"] is None  # no card to ask


def test_a_step_too_large_for_the_card_is_left_out():
    def never(label, run):
        raise AssertionError("must not run")

    step = {"shape": "Qwen2.5-7B", "method": "full", "batch_size": 1, "length": 512, "head": "all"}
    found = gpu.meter_step(step, never, 80.0, {"device": CPU, "dtype": torch.bfloat16})
    assert found["predicted_gib"] > 80 and "more than this card" in found["failed"]


def test_the_table_has_a_row_for_every_figure(results):
    text = gpu.table(results)
    for name in (
        *gpu.SWITCHES,
        "lora · TRL",
        "full · sft_lab",
        "width 32, 100 tokens, in chunks",
        "- packed: ",
        "| tiny, lora 3, checkpointing | 2 × 40 | graded |",
        "Quality: ModelError: neither/of-both",
        "atlas, LoRA on data/instructions: held-out loss 2.000",
    ):
        assert name in text
    assert "nan" not in text and "None" not in text


def test_the_record_of_a_card_fills_the_table_and_keeps_what_chapter_08_predicts():
    record = json.loads((ROOT / "docs" / "h100.json").read_text("utf-8"))
    text = gpu.table(record | {"quality": []})
    assert "NVIDIA H100" in text and "lora · TRL" in text
    for step in record["memory"]:
        settings = {name: step[name] for name in METERED if name in step and name != "shape"}
        config = named_config(step["shape"])
        predicted = sum(gpu.predict_memory(config, half=True, **settings).values()) / 2**30
        assert step["predicted_gib"] == pytest.approx(predicted, rel=1e-4)


def test_operations_a_token_are_the_published_arithmetic_of_qwen3():
    config = named_config("Qwen3-0.6B")
    assert gpu.operations_a_token(config, 2048, "full") == pytest.approx(4.28e9, rel=0.003)
    assert gpu.operations_a_token(config, 2048, "lora") == pytest.approx(3.15e9, rel=0.003)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_operations_a_token_are_those_that_torch_counts(method):
    """torch counts attention over all of T x T, so its share is halved here; the rest must
    agree."""
    from torch.utils.flop_counter import FlopCounterMode

    config, length = tiny_config(), 32
    model = gpu_measure.build(config, method, torch.float32, CPU, attention="eager")
    batch = gpu_measure.random_rows(config, 2, length, 1.0, seed=0)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=batch["input_ids"], labels=batch["input_ids"]).loss.backward()
    attention = 3 * 4 * length / 2 * 32 * 2  # half of it: 3 passes, 2 products, width 32, 2 layers
    expected = gpu.operations_a_token(config, length, method) + attention
    if (
        method == "lora"
    ):  # the first layer's q, k, v and their A pass no gradient on to the embedding
        expected -= 2 * (32 * (32 + 16 + 16) + 3 * 32 * gpu.RANK)
    assert counter.get_total_flops() / (2 * length) == expected


def test_a_switch_that_changes_the_operations_or_the_memory_is_predicted():
    config = named_config("Qwen3-0.6B")
    plain, third, again, eager, every = (
        gpu.predict_switch(config, 8, 2048, switch)
        for switch in (
            {},
            {"graded": 1 / 3},
            {"checkpointing": True},
            {"attention": "eager"},
            {"head": "all"},
        )
    )
    assert plain["times"] == 1 and third["times"] == pytest.approx(
        3.15 / (3.15 - 4 * 0.1556 * 2 / 3), rel=0.005
    )
    assert again["times"] == pytest.approx(1 / 1.45, rel=0.01) and eager["times"] is None
    assert again["gib"] < third["gib"] < plain["gib"] < every["gib"] < eager["gib"]


def test_more_rows_are_chosen_for_a_larger_card():
    config = named_config("Qwen3-0.6B")
    rows = [gpu.choose_rows(config, "full", 2048, memory) for memory in (15, 24, 80)]
    assert rows == sorted(rows) and rows[0] < rows[-1] == 8


def test_without_a_card_it_says_so_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "local_device", lambda: (CPU, torch.float32))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--output", str(tmp_path / "gpu.json")])
    with pytest.raises(SystemExit, match="measures an NVIDIA card"):
        gpu.main()
    assert not list(tmp_path.iterdir())
