"""Four types of invention under the remedies against them, after three tuning sets (chapter 15b).

python tools/experiments/15b_remedies.py   # four minutes on one thread; resumes
"""

from sft_lab.course.lookup_runs import REMEDY_ARMS, REMEDY_EPOCHS, measure_remedies, remedy_lessons
from sft_lab.course.results import Row, sweep
from sft_lab.course.short_runs import tune_on
from sft_lab.models import load

SEEDS = range(3)
base, tokenizer = load("atlas-base")


def points() -> list[Row]:
    return [{"arm": arm, "seed": seed} for seed in SEEDS for arm in REMEDY_ARMS]


def run(point: Row) -> Row:
    arm, seed = point["arm"], point["seed"]
    model = tune_on(
        base, tokenizer, remedy_lessons(arm, seed=seed), seed=seed, epochs=REMEDY_EPOCHS
    )
    return measure_remedies(model, tokenizer, arm, seed=seed)


if __name__ == "__main__":
    sweep("15b_remedies", points(), run, model=base)
