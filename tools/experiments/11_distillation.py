"""Chapter 11: students of a good teacher and of teachers that are partly wrong (three minutes)."""

from functools import cache

from transformers import PreTrainedModel

from sft_lab.course.data_runs import measure_student, train_teacher
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "11_distillation"
SEEDS = range(3)


def points() -> list[dict]:
    """Gold, words and probabilities; few prompts only from the good teacher."""
    arms = [("gold", 1.0), ("words", 1.0), ("probabilities", 1.0), ("probabilities", 2.0)]
    students = [("good", 12, *arm) for arm in arms] + [("good", 96, *arm) for arm in arms]
    students += [(kind, 96, *arm) for kind in ("rule", "scattered") for arm in arms[1:3]]
    names = ("teacher", "prompts", "source", "temperature")
    return [
        {**dict(zip(names, student, strict=True)), "seed": seed}
        for seed in SEEDS
        for student in students
    ]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    @cache
    def teacher(kind: str, seed: int) -> PreTrainedModel:
        return train_teacher(base, tokenizer, kind, seed=seed)

    def run(point: dict) -> dict:
        settings = {name: value for name, value in point.items() if name != "teacher"}
        return measure_student(
            base, tokenizer, teacher(point["teacher"], point["seed"]), **settings
        )

    _ = sweep(NAME, points(), run, model=base)
