"""LoRA, adapter and prefix on smollm2-135m (chapter 06).

    python tools/experiments/06_smollm2.py   # six minutes on one core; resumes

12 steps of 4 questions about countries. Each method is tried at two or three rates with one seed,
and runs with two more seeds at the rate whose loss is lowest on countries of which nothing else is
asked.
"""

import copy
import random

import torch
from transformers import PreTrainedModel

from sft_lab.adapters import add_adapters, add_prefix
from sft_lab.atlas import ask
from sft_lab.course.loss_runs import country_facts
from sft_lab.course.part_runs import QUESTION, exact_match
from sft_lab.course.results import Row, read_results, sweep
from sft_lab.examples import Example
from sft_lab.facts import Fact
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora
from sft_lab.models import load
from sft_lab.train import evaluate, train

NAME, STEPS, BATCH, ASKED = "06_smollm2", 12, 4, 16
TRIED = {
    "LoRA": (3e-4, 1e-3, 3e-3),
    "adapter": (3e-4, 1e-3, 3e-3),
    "prefix": (3e-2, 1e-1),
}
MORE_SEEDS = (1, 2)
base, tokenizer = load("smollm2-135m")


def encode(facts: list[Fact]) -> list[Example]:
    """Questions and answers behind an empty system turn, which keeps the rows short."""
    silent = {"role": "system", "content": ""}
    asked = [[silent, *turns] for turns in ask(facts, template=QUESTION)]
    return encode_conversations(asked, tokenizer)


facts = country_facts()
lessons = encode(facts["train"])
asked = random.Random(0).sample(facts["held_out"], 2 * ASKED)
exam, choosing = encode(asked[:ASKED]), encode(asked[ASKED:])


def build(method: str) -> PreTrainedModel:
    """A copy of the model with the part: rank 8, width 16, or the first lesson as a prefix."""
    model = copy.deepcopy(base)
    if method == "LoRA":
        return add_lora(model, rank=8)
    if method == "adapter":
        return add_adapters(model, width=16)
    if method == "prefix":
        return add_prefix(model, lessons[0].input_ids)
    return model  # "none"


def run(point: Row) -> Row:
    """Trained numbers, and loss (nats per graded token) and right answers afterwards."""
    torch.manual_seed(point["seed"])
    model = build(point["method"])
    trained = 0
    if point["method"] != "none":
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        rows = random.Random(point["seed"]).sample(lessons, STEPS * BATCH)
        train(
            model,
            tokenizer,
            rows,
            learning_rate=point["rate"],
            batch_size=BATCH,
            seed=point["seed"],
            progress=False,
        )
    right = exact_match(model, exam, tokenizer.pad_token_id, at_once=8)
    return {
        "trained": trained,
        "loss": round(evaluate(model, tokenizer, exam)["loss"], 4),
        "right": round(right.float().mean().item(), 4),
        "choosing_loss": round(evaluate(model, tokenizer, choosing)["loss"], 4),
    }


def first_points() -> list[Row]:
    """The model as it is, and every method at every rate, with seed 0."""
    tried = [(method, rate) for method, rates in TRIED.items() for rate in rates]
    return [{"method": method, "rate": rate, "seed": 0} for method, rate in [("none", 0.0), *tried]]


def best_rates(rows: list[Row]) -> dict[str, float]:
    """The rate of each method whose loss on the countries that choose is lowest, with seed 0."""
    first = [row for row in rows if row["seed"] == 0]
    return {
        method: min(
            (row for row in first if row["method"] == method), key=lambda row: row["choosing_loss"]
        )["rate"]
        for method in TRIED
    }


def more_points(rows: list[Row]) -> list[Row]:
    return [
        {"method": method, "rate": rate, "seed": seed}
        for method, rate in best_rates(rows).items()
        for seed in MORE_SEEDS
    ]


def points() -> list[Row]:
    """All points of the recorded file: the second half depends on the first."""
    return first_points() + more_points(read_results(NAME).rows)


if __name__ == "__main__":
    given = {"model": base, "model_name": "smollm2-135m"}
    try:
        wanted = points()
    except (FileNotFoundError, ValueError):  # nothing recorded yet, or not all of the first half
        sweep(NAME, first_points(), run, **given)
        wanted = points()
    sweep(NAME, wanted, run, **given)
