"""Two templates with eight seeds each, and what 140 steps keep of the base (chapters 09 and 09b).

python tools/experiments/09_recipes.py   # three minutes on one core; resumes
"""

from sft_lab.course.recipe_runs import CHATML, WORDS, measure_long, run_long, run_short
from sft_lab.course.results import sweep
from sft_lab.models import load

SEEDS, LONG_SEEDS = range(8), range(5)


def points() -> list[dict]:
    """Every run: short ones of both recipes, the base without tuning, and long ones."""
    short = [{"arm": recipe, "seed": seed} for seed in SEEDS for recipe in (CHATML, WORDS)]
    long = [{"arm": "long", "seed": seed} for seed in LONG_SEEDS]
    return [*short, {"arm": "base", "seed": 0}, *long]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: dict) -> dict:
        if point["arm"] == "base":
            return measure_long(base, tokenizer)
        if point["arm"] == "long":
            return run_long(base, tokenizer, point["seed"])
        return run_short(base, tokenizer, point["arm"], point["seed"])

    sweep("09_recipes", points(), run, model=base)
