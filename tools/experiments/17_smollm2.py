"""Chapter 17: the primary claim on a real model, smollm2-135m: what averaging over each answer or
over all tokens does to long wrong answers (about ten minutes on one thread).

Part "step" came first: six questions a seed, and a step. There the push was not shown (effect
-0.69, noise floor 0.41), so part "push" asks four times as many questions, and takes no step."""

import random

import torch

from sft_lab.course.policy_runs import run_push
from sft_lab.course.results import sweep
from sft_lab.models import load
from sft_lab.records import Conversation

NAME = "17_smollm2"
QUESTIONS, SAMPLES, TOKENS = {"step": 6, "push": 24}, 6, 40
TEMPERATURE = 0.6  # at 1 this model rambles, and is almost never right


def ask_sums(count: int, *, seed: int) -> list[Conversation]:
    """Small sums, which the model gets right now and then; the last turn is for the grade."""
    rng = random.Random(f"sums {seed}")
    tasks = []
    for _ in range(count):
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        question = f"What is {a} + {b}? Answer in one sentence."
        right = {"role": "assistant", "content": str(a + b)}
        tasks.append([{"role": "user", "content": question}, right])
    return tasks


if __name__ == "__main__":
    model, tokenizer = load("smollm2-135m", dtype=torch.float32)

    def run(point: dict) -> dict:
        return run_push(
            model,
            tokenizer,
            ask_sums(QUESTIONS[point["part"]], seed=point["seed"]),
            seed=point["seed"],
            samples=SAMPLES,
            max_new_tokens=TOKENS,
            temperature=TEMPERATURE,
            step=point["part"] == "step",
        )

    points = [{"part": part, "seed": seed} for part in QUESTIONS for seed in range(3)]
    sweep(NAME, points, run, model=model, model_name="smollm2-135m")
