"""Reading from passages after five tuning sets that differ in their notes alone (chapter 15b).

python tools/experiments/15b_reading.py   # five minutes on one thread; resumes
"""

from sft_lab.course.lookup_runs import READ_ARMS, measure_reading, read_lessons
from sft_lab.course.results import Row, sweep
from sft_lab.course.short_runs import tune_on
from sft_lab.models import load

SEEDS = range(3)
base, tokenizer = load("atlas-base")


def points() -> list[Row]:
    return [{"arm": arm, "seed": seed} for seed in SEEDS for arm in READ_ARMS]


def run(point: Row) -> Row:
    arm, seed = point["arm"], point["seed"]
    model = tune_on(base, tokenizer, read_lessons(arm, seed=seed), seed=seed)
    return measure_reading(model, tokenizer, seed=seed)


if __name__ == "__main__":
    sweep("15b_reading", points(), run, model=base)
