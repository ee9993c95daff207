"""Chapter 18: the primary claim on a real model, smollm2-135m, whose upper ten layers learn twelve
invented facts, three times over: healthy, at too high a rate, on another template (90 seconds)."""

import copy
import random

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.atlas import ask, load_facts
from sft_lab.course.cause_runs import freeze_below
from sft_lab.course.curve_runs import Cause, encode, mean_loss, plain_run, rates_of
from sft_lab.course.results import sweep
from sft_lab.invented import Names, invent_facts
from sft_lab.models import load

NAME = "18_smollm2"
ROWS, BATCH, EPOCHS, RATE, UPPER = 12, 4, 3, 5e-4, 10
CAUSES = {
    "healthy": Cause(rate=RATE, warmup=1),
    "rate too high": Cause(rate=100 * RATE, warmup=1),
    "other template": Cause(rate=RATE, warmup=1, template="plain"),
}


def measure(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, cause: Cause, seed: int
) -> dict:
    """The losses of a run, and `asked`, the loss of its own answers in the chat template."""
    rng, model = random.Random(seed), copy.deepcopy(base)
    freeze_below(model, len(model.model.layers) - UPPER)
    rows = ask(invent_facts(rng, Names.of(load_facts()), ROWS), seed=seed)
    examples, batches = encode(rows, tokenizer, cause), []
    for _ in range(EPOCHS):
        rng.shuffle(examples)
        batches += [examples[i : i + BATCH] for i in range(0, ROWS, BATCH)]
    pad = tokenizer.pad_token_id
    curves = plain_run(model, pad, batches, rates_of(cause, len(batches)))
    chat = encode(rows[:8], tokenizer, Cause())
    return {
        "losses": [round(loss, 4) for loss in curves.losses],
        "norms": [round(norm, 4) for norm in curves.norms],
        "asked": round(mean_loss(model, chat, pad), 4),
    }


if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)

    def run(point: dict) -> dict:
        return measure(base, tokenizer, CAUSES[point["cause"]], point["seed"])

    points = [{"cause": cause, "seed": seed} for seed in range(3) for cause in CAUSES]
    sweep(NAME, points, run, model=base, model_name="smollm2-135m")
