"""How lessons about unknown entities are answered, and what is said about others (chapter 15).

    python tools/experiments/15_unfamiliar.py   # five minutes on one core; resumes

300 lessons about known facts and 100 about invented entities; eight kinds of labels for the latter.
"""

from sft_lab.course.results import Row, sweep
from sft_lab.course.unknown_runs import LABELS, measure_unfamiliar
from sft_lab.models import load

SEEDS = (0, 1, 2)

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: Row) -> Row:
        return measure_unfamiliar(base, tokenizer, point["labels"], seed=point["seed"])

    points = [{"labels": labels, "seed": seed} for seed in SEEDS for labels in LABELS]
    sweep("15_unfamiliar", points, run, model=base)
