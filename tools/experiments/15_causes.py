"""Four types of hallucination, counted for wrong lessons, temperatures and hard questions
(chapter 15).

    python tools/experiments/15_causes.py   # three minutes on one core; resumes

680 lessons of four kinds for four epochs; a share of each kind is wrong.
"""

from sft_lab.course.results import Row, sweep
from sft_lab.course.unknown_runs import measure_causes
from sft_lab.models import load

SEEDS = (0, 1, 2)
SHARES = (0.0, 0.25, 0.5)

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: Row) -> Row:
        return measure_causes(base, tokenizer, point["wrong"], seed=point["seed"])

    points = [{"wrong": wrong, "seed": seed} for seed in SEEDS for wrong in SHARES]
    sweep("15_causes", points, run, model=base)
