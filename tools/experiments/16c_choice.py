"""Chapter 16c: one recipe, 24 times with another seed, on 360 questions: three families of eight
runs, of which the best is to be chosen (three minutes)."""

import numpy as np

from sft_lab.course.evaluation_runs import as_text, ask_exam, build_exam, tune_arm
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "16c_choice"
RUNS = 24

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    exam = build_exam("test")

    def run(point: dict) -> dict:
        model = tune_arm(base, tokenizer, "first", seed=100 + point["seed"])
        outcome = np.concatenate(list(ask_exam(model, tokenizer, exam).values()))
        return {"right": float(outcome.mean()), "outcomes": as_text(outcome)}

    sweep(NAME, [{"seed": seed} for seed in range(RUNS)], run, model=base)
