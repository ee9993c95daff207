"""Held-out loss after a short run at nine learning rates (chapter 04).

    python tools/experiments/04_rates.py   # two minutes on one core; resumes

A run is one epoch on 240 questions, 15 steps of 16, warm-up and cosine; five seeds a rate. It is
judged on 64 questions about other entities. Writes data/results/04_rates.json.
"""

import torch

from sft_lab.course.plain_loop import RATES, try_rate
from sft_lab.course.results import Row, sweep
from sft_lab.models import load

SEEDS = range(5)


def main() -> None:
    torch.set_num_threads(1)
    base, tokenizer = load("atlas-base", dtype=torch.float32)
    points = [{"rate": rate, "seed": seed} for rate in RATES for seed in SEEDS]

    def run(point: Row) -> Row:
        return try_rate(base, tokenizer, **point)

    sweep("04_rates", points, run, model=base)


if __name__ == "__main__":
    main()
