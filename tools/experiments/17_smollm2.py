"""Chapter 17: the primary claim on a real model, smollm2-135m: what averaging over each answer or
over all tokens does to long wrong answers (about five minutes on one thread)."""

import random

import torch

from sft_lab.course.policy_runs import run_push
from sft_lab.course.results import sweep
from sft_lab.models import load
from sft_lab.records import Conversation

NAME = "17_smollm2"
QUESTIONS, SAMPLES, TOKENS = 6, 6, 40


def ask_products(count: int, *, seed: int) -> list[Conversation]:
    """Small products, which the model gets right now and then; the last turn is for the grade."""
    rng = random.Random(f"products {seed}")
    tasks = []
    for _ in range(count):
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        asked = {"role": "user", "content": f"What is {a} times {b}?"}
        tasks.append([asked, {"role": "assistant", "content": str(a * b)}])
    return tasks


if __name__ == "__main__":
    model, tokenizer = load("smollm2-135m", dtype=torch.float32)

    def run(point: dict) -> dict:
        tasks = ask_products(QUESTIONS, seed=point["seed"])
        size = {"samples": SAMPLES, "max_new_tokens": TOKENS}
        return run_push(model, tokenizer, tasks, **point, **size)

    points = [{"average": kind, "seed": s} for s in range(3) for kind in ("token", "answer")]
    sweep(NAME, points, run, model=model, model_name="smollm2-135m")
