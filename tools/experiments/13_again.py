"""Chapter 13: a few lessons of task A again, for a model that once knew it and for one that never
did (4 minutes on one core; resumes).

    python tools/experiments/13_again.py
"""

from sft_lab.course.cause_runs import AGAIN, STARTS, run_again
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME, SEEDS = "13_again", range(3)

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    points = [
        {"start": start, "rows": rows, "seed": seed}
        for seed in SEEDS
        for start in STARTS
        for rows in AGAIN
    ]
    sweep(NAME, points, lambda point: run_again(base, tokenizer, **point), model=base)
