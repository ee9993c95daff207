"""Chapter 16c: the evaluation of the base, of two rounds of tuning, of a control and of a model
that was tuned too narrowly (five minutes)."""

from sft_lab.course.evaluation_runs import ARMS, measure_round, tune_arm
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "16c_rounds"


def points() -> list[dict]:
    return [{"arm": arm, "seed": seed} for seed in range(5) for arm in ("base", *ARMS)]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: dict) -> dict:
        arm, seed = point["arm"], point["seed"]
        model = base if arm == "base" else tune_arm(base, tokenizer, arm, seed=seed)
        return measure_round(model, tokenizer, seed=seed)

    sweep(NAME, points(), run, model=base)
