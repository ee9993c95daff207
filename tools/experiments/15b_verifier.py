"""Two models that judge statements, beside the answering model's own probability (chapter 15b).

python tools/experiments/15b_verifier.py   # two minutes on one thread; resumes
"""

from sft_lab.course.lookup_runs import JUDGE_EPOCHS, judge_lessons, measure_judges, read_lessons
from sft_lab.course.results import Row, sweep
from sft_lab.course.short_runs import tune_on
from sft_lab.models import load

SEEDS = range(3)
base, tokenizer = load("atlas-base")


def points() -> list[Row]:
    return [{"seed": seed} for seed in SEEDS]


def run(point: Row) -> Row:
    seed = point["seed"]
    judges = {
        name: tune_on(
            base,
            tokenizer,
            judge_lessons(with_notes=notes, seed=seed),
            seed=seed,
            epochs=JUDGE_EPOCHS,
        )
        for name, notes in (("alone", False), ("with note", True))
    }
    answerer = tune_on(base, tokenizer, read_lessons("notes", seed=seed), seed=seed)
    return measure_judges(judges, answerer, tokenizer, seed=seed)


if __name__ == "__main__":
    sweep("15b_verifier", points(), run, model=base)
