"""Every remedy at several strengths, on one old and one new task (chapter 13b).

python tools/experiments/13b_plane.py   # twelve minutes on one core; resumes
"""

from sft_lab.course.remedies import fisher_of, learn_old, run_remedy
from sft_lab.course.results import Row, sweep
from sft_lab.models import load

SEEDS = (0, 1, 2)
STRENGTHS = {
    "nothing": (0.0,),
    "replay, stored": (0.01, 0.05, 0.1, 0.2, 0.5),
    "EWC, sampled labels": (1e2, 1e4, 2e4, 4e4, 8e4, 1e6),
    "L2 to the start": (0.1, 1.0, 2.0, 4.0, 8.0),
    "SI": (1e3, 1e4, 2e4, 4e4),
    "distillation, T 2": (0.1, 0.3, 0.5, 1.0),
    "replay, own answers": (0.1, 0.2),
    "replay, own questions": (0.1, 0.2, 0.5),
    "joint from the start": (0.1, 0.3, 0.5),
    "small rate": (3e-4, 1e-4, 3e-5),
    "columns": (64.0, 128.0),
    "a LoRA for each task": (8.0, 32.0),
    "averaging": (0.2, 0.4),
    "EWC, true labels": (1e4, 1e5, 2e5, 4e5, 8e5),
    "EWC, batch means": (1e5, 1e6, 2e6, 4e6, 8e6),
    "distillation, T 1": (0.3, 0.6),
    "distillation, T 4": (0.3, 0.6),
    "weight decay": (10.0,),
}
base, tokenizer = load("atlas-base")


def run(point: Row) -> Row:
    """Task A, then task B with the remedy."""
    return run_remedy(base, tokenizer, **point)


def points() -> list[Row]:
    return [
        {"remedy": remedy, "strength": strength, "seed": seed}
        for seed in SEEDS
        for remedy, strengths in STRENGTHS.items()
        for strength in strengths
    ]


if __name__ == "__main__":
    for seed in SEEDS:  # once, before the processes fork
        learn_old(base, tokenizer, seed)
        for labels in ("sampled", "true", "batch"):
            fisher_of(base, tokenizer, seed, labels)
    sweep("13b_plane", points(), run, model=base)
