"""Chapter 16d: a real model, smollm2-135m, as a judge of two answers: what does it prefer?

    python tools/experiments/16d_smollm2.py   # five minutes on one core; resumes

It reads a question and two answers and says the name of the better one; its preference is read from
the log-probabilities of both names. Nothing is trained.
"""

from sft_lab.course.judge_runs import NAMINGS, run_real
from sft_lab.course.results import Row, sweep
from sft_lab.models import load

SEEDS = (0, 1, 2)
KINDS = ("truth", "length")

if __name__ == "__main__":
    import torch

    model, tokenizer = load("smollm2-135m", dtype=torch.float32)

    def run(point: Row) -> Row:
        return run_real(model, tokenizer, **point)

    points = [
        {"kind": kind, "naming": naming, "seed": seed}
        for seed in SEEDS
        for kind in KINDS
        for naming in NAMINGS
    ]
    sweep("16d_smollm2", points, run, model=model, model_name="smollm2-135m")
