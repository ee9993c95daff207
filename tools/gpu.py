"""`make gpu`: what training Qwen3-0.6B costs on this card: tokens/s, peak memory, share of the
peak, in 9 minutes.

It measures full tuning and LoRA beside TRL on the same batches, every setting switched alone, the
loss head beside its bare matrix products, packing beside padding, and the quality of one tuning run
on data/instructions. Speed and memory are those of the architecture with random weights, which cost
the same as trained ones; the quality run takes Qwen3-0.6B-Base from the hub, and smollm2-135m where
the hub is out of reach.

Conventions. A token is a real one, padding counts as nothing. Operations are those of matrix
products that a step needs: 2 a weight and token forward, 2 for the gradient of the input, 2 for the
gradient of a trained weight; causal attention at half of T x T; recomputation counts as nothing.
The card's peak is its maker's figure for dense half precision. Peak memory is
torch.cuda.max_memory_allocated, which leaves out the driver's 0.5 to 1 GiB.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_measure import (
    RANK,
    attempt,
    matrix_ceiling,
    measure_head,
    measure_packing,
    measure_steps,
    measure_trl,
    operations_a_token,
    random_rows,
)
from transformers import PreTrainedConfig

from sft_lab.chat import generate_responses
from sft_lab.files import check_writable, write_json, write_text
from sft_lab.instructions import load_instructions
from sft_lab.labels import encode_conversations
from sft_lab.loop.update import mixed_precision
from sft_lab.lora import add_lora
from sft_lab.memory import predict_memory
from sft_lab.models import load, local_device
from sft_lab.shapes import named_config
from sft_lab.train import evaluate, train

# Dense half-precision peak in TFLOP/s, from the makers' data sheets; the first name that occurs in
# the card's name.
PEAKS = {
    "B200": 2250,
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A10G": 70,
    "RTX 4090": 165,
    "RTX 3090": 71,
    "V100": 125,
    "T4": 65,
}
LIMIT = 8.5 * 60  # seconds after which no further measurement starts
# What is switched, one at a time, on LoRA and rows of one document; "same" settings are those of
# sft_lab.train.
SWITCHES: dict[str, dict] = {
    "as sft_lab.train": {},
    "float32 products": {"dtype": torch.float32},
    "float16 with loss scaling": {"dtype": torch.float16},
    "eager attention": {"attention": "eager"},
    "all scores at once": {"head": "all"},
    "a third graded": {"graded": 1 / 3},
    "checkpointing": {"checkpointing": True},
    "torch.compile": {"compiled": True},
    "AdamW not fused": {"fused": False},
}


def describe_card(device: torch.device) -> dict:
    """Name, memory, the maker's peak if it is known here, and the speed of a product of two 8192 x
    8192 matrices."""
    if device.type != "cuda":
        return {
            "name": "CPU",
            "memory_gib": None,
            "peak": None,
            "ceiling": matrix_ceiling(device, torch.float32, 512),
        }
    properties = torch.cuda.get_device_properties(device)
    peak = next((value * 1e12 for part, value in PEAKS.items() if part in properties.name), None)
    return {
        "name": properties.name,
        "memory_gib": properties.total_memory / 2**30,
        "peak": peak,
        "ceiling": matrix_ceiling(device, local_device()[1], 8192),
    }


def measure_quality(name: str) -> dict:
    """LoRA on the training rows of data/instructions: loss on the held-out rows before and after,
    and three answers."""
    model, tokenizer = load(name)
    parts = {"train": load_instructions(), "heldout": load_instructions(part="held_out")}
    examples = {part: encode_conversations(rows, tokenizer) for part, rows in parts.items()}
    questions = [conversation[0]["content"] for conversation in parts["heldout"][:3]]
    # under the autocast of the run, or the two losses would differ by rounding too
    with mixed_precision(model) as (autocast, _), autocast:
        before = evaluate(model, tokenizer, examples["heldout"], batch_size=16)["loss"]
    answers = {"before": generate_responses(model, tokenizer, questions, max_new_tokens=60)}
    add_lora(model, rank=RANK)
    history = train(
        model,
        tokenizer,
        examples["train"],
        eval_examples=examples["heldout"],
        epochs=2,
        learning_rate=2e-4,
        batch_size=16,
    )
    answers["after"] = generate_responses(model, tokenizer, questions, max_new_tokens=60)
    return {
        "model": name,
        "rows": {part: len(rows) for part, rows in parts.items()},
        "heldout_loss_before": before,
        "heldout_loss_after": history.evaluations[-1]["loss"],
        "training_loss_last": history.losses[-1],
        "questions": questions,
        **answers,
    }


def predict_switch(config: PreTrainedConfig, rows: int, length: int, switch: dict) -> dict:
    """What arithmetic says before the measurement: GiB at the peak, and for a switch that changes
    how many operations a step takes, how many times as fast that alone would make it."""
    known = {
        key: value
        for key, value in switch.items()
        if key in ("attention", "head", "checkpointing", "graded")
    }
    parts = predict_memory(
        config,
        method="lora",
        rank=RANK,
        batch_size=rows,
        length=length,
        half=switch.get("dtype") != torch.float32,
        **{"head": "graded", **known},
    )
    base, graded = operations_a_token(config, length, "lora"), switch.get("graded", 1.0)
    again = (
        operations_a_token(config, length, "full") / 3 if switch.get("checkpointing") else 0
    )  # a forward pass more
    times = base / (operations_a_token(config, length, "lora", graded) + again)
    return {
        "gib": sum(parts.values()) / 2**30,
        "times": times if again or graded < 1 or not switch else None,
    }


def predict_gib(config: PreTrainedConfig, method: str, rows: int, length: int, half: bool) -> float:
    """GiB at the peak of a step of sft_lab.train, every position graded."""
    parts = predict_memory(
        config,
        method=method,
        rank=RANK,
        batch_size=rows,
        length=length,
        head="graded",
        half=half,
    )
    return sum(parts.values()) / 2**30


def choose_rows(config: PreTrainedConfig, method: str, length: int, memory_gib: float) -> int:
    """The largest power of two of rows, at most 8, whose predicted memory fills no more than 85 %
    of the card."""
    for rows in (8, 4, 2):
        if predict_gib(config, method, rows, length, half=True) < 0.85 * memory_gib:
            return rows
    return 1


Measured = Callable[[str, Callable[[], dict]], dict]


def start_clock() -> Measured:
    """(label, run) -> what run() found, or why not; after LIMIT seconds nothing starts any more."""
    started = time.perf_counter()

    def measured(label: str, run: Callable[[], dict]) -> dict:
        if time.perf_counter() - started > LIMIT:
            return {"failed": "left out: the time limit was reached"}
        print(label, file=sys.stderr)
        return attempt(run)

    return measured


def two_batches(
    config: PreTrainedConfig, rows: int, length: int, graded: float = 1.0
) -> list[dict[str, torch.Tensor]]:
    """Two, so that no step finds the batch of the step before in a cache."""
    return [random_rows(config, rows, length, graded, seed) for seed in range(2)]


def run_method(
    config: PreTrainedConfig, method: str, rows: int, length: int, measured: Measured, common: dict
) -> dict:
    """One method with sft_lab, compiled and not, and with TRL, on the same rows."""
    batches = two_batches(config, rows, length)
    settings = {"method": method, **common}
    return {
        "rows": rows,
        "predicted_gib": predict_gib(
            config, method, rows, length, half=common["dtype"] != torch.float32
        ),
        "operations_a_token": operations_a_token(config, length, method),
        "sft_lab, torch.compile": measured(
            f"{method}: sft_lab, compiled",
            lambda: measure_steps(config, batches, compiled=True, **settings),
        ),
        "sft_lab": measured(
            f"{method}: sft_lab", lambda: measure_steps(config, batches, **settings)
        ),
        "TRL": measured(f"{method}: TRL", lambda: measure_trl(config, batches, **settings)),
    }


def run_switch(
    config: PreTrainedConfig, name: str, rows: int, length: int, measured: Measured, common: dict
) -> dict:
    """LoRA with one of SWITCHES, beside what arithmetic predicts for it."""
    switch = SWITCHES[name]
    batches = two_batches(config, rows, length, switch.get("graded", 1.0))
    # how much is graded is a property of the rows, not of the step
    settings = common | {key: value for key, value in switch.items() if key != "graded"}
    found = measured(name, lambda: measure_steps(config, batches, method="lora", **settings))
    return {**found, "predicted": predict_switch(config, rows, length, switch)}


def run_quality(names: tuple[str, ...], measured: Measured) -> list[dict]:
    """The first of these models that can be loaded, tuned; why those before it cannot be."""
    results = []
    for name in names:
        results.append(measured(f"tuning {name}", lambda name=name: measure_quality(name)))
        if "failed" not in results[-1]:
            break
    return results


def run_all(
    config: PreTrainedConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    length: int = 2048,
    rows: int | None = None,
    head_sizes: tuple[tuple[int, int], ...] = ((1024, 8192), (4096, 8192)),
    quality: tuple[str, ...] = (),
) -> dict:
    """Everything `make gpu` measures, most important first; what the time limit leaves out says
    so."""
    started, card, measured = time.perf_counter(), describe_card(device), start_clock()
    common = {"device": device, "dtype": dtype}
    results: dict = {"card": card, "length": length, "format": str(dtype)[6:], "methods": {}}
    for method in ("lora", "full"):
        count = rows or choose_rows(config, method, length, card["memory_gib"])
        results["methods"][method] = run_method(config, method, count, length, measured, common)
    count = results["methods"]["lora"]["rows"]
    results["loss_head"] = [
        measured(
            f"loss head, width {width}",
            lambda width=width, tokens=tokens: measure_head(
                width, config.vocab_size, tokens, **common
            ),
        )
        for width, tokens in head_sizes
    ]
    results["switches"] = {
        name: run_switch(config, name, count, length, measured, common) for name in SWITCHES
    }
    results["packing"] = measured(
        "packing", lambda: measure_packing(config, count, length, **common)
    )
    results["quality"] = run_quality(quality, measured)
    results["seconds"] = time.perf_counter() - started
    return results


def table(results: dict) -> str:
    """The figures as Markdown."""
    card = results["card"]
    head = f"{card['name']}, rows of {results['length']:,} tokens, {results['format']}; "
    peak = f"peak {card['peak'] / 1e12:,.0f} TFLOP/s" if card["peak"] else "peak not known here"
    bare = f", a bare matrix product reaches {card['ceiling'] / 1e12:,.1f}"
    parts = (
        [head + peak + bare],
        _method_lines(results["methods"], card["peak"]),
        _switch_lines(results["switches"]),
        _head_lines(results["loss_head"]),
        _packing_lines(results["packing"]),
        *([_quality_line(found)] for found in results["quality"]),
    )
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _method_lines(methods: dict[str, dict], peak: float | None) -> list[str]:
    lines = [
        "| run | tokens/s | share of the peak | peak memory (GiB) | predicted |",
        "|---|---|---|---|---|",
    ]
    for method, runs in methods.items():
        for side in ("sft_lab", "sft_lab, torch.compile", "TRL"):
            found = runs[side]
            if "failed" in found:
                lines.append(f"| {method} · {side} | {found['failed']} | | | |")
                continue
            share = found["tokens_per_second"] * runs["operations_a_token"] / peak if peak else None
            lines.append(
                f"| {method} · {side} | {found['tokens_per_second']:,.0f} | {_percent(share)} | "
                f"{_number(found['peak_gib'])} | {_number(runs['predicted_gib'])} |"
            )
    return lines


def _switch_lines(switches: dict[str, dict]) -> list[str]:
    lines = [
        "| LoRA, one setting switched | tokens/s | times as fast | predicted | peak (GiB) | "
        "predicted |",
        "|---|---|---|---|---|---|",
    ]
    first = switches["as sft_lab.train"].get("tokens_per_second")
    for name, found in switches.items():
        speed, expected = found.get("tokens_per_second"), found["predicted"]
        cells = [
            found.get("failed") or f"{speed:,.0f}",
            _number(speed / first if speed and first else None),
            _number(expected["times"]),
            _number(found.get("peak_gib")),
            _number(expected["gib"]),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _head_lines(heads: list[dict]) -> list[str]:
    lines = ["| loss head | times its bare products | peak memory (GiB) |", "|---|---|---|"]
    for found in heads:
        if "failed" in found:
            continue
        for name in ("in chunks", "all at once"):
            lines.append(
                f"| width {found['width']:,}, {found['tokens']:,} tokens, {name} | "
                f"{found[name]['times_bare']:.2f} | {_number(found[name]['peak_gib'])} |"
            )
    return lines


def _packing_lines(packing: dict) -> list[str]:
    if "failed" in packing:
        return []
    lines = [f"Padded batches hold {packing['real_tokens_in_padded_batches']:.0%} real tokens."]
    for name in ("padded", "packed"):
        found = packing[name]
        speed = found.get("failed") or f"{found['tokens_per_second']:,.0f} real tokens/s"
        lines.append(f"- {name}: {speed}")
    return lines


def _quality_line(found: dict) -> str:
    if "failed" in found:
        return f"Quality: {found['failed']}"
    return (
        f"Quality: {found['model']}, LoRA on data/instructions: held-out loss "
        f"{found['heldout_loss_before']:.3f} -> {found['heldout_loss_after']:.3f} nats a token"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("reports/gpu.json"))
    arguments = parser.parse_args()
    device, dtype = local_device()
    if device.type != "cuda":
        sys.exit(
            "make gpu measures an NVIDIA card, and torch sees none here (nvidia-smi shows "
            "whether there is one; a CPU build of torch never sees it). `make bench` measures "
            "the CPU."
        )
    check_writable(arguments.output)
    config = named_config("Qwen3-0.6B")
    results = run_all(
        config, device=device, dtype=dtype, quality=("qwen3-0.6b-base", "smollm2-135m")
    )
    write_json(arguments.output, results)
    write_text(arguments.output.with_suffix(".md"), table(results))
    print(table(results))


if __name__ == "__main__":
    main()
