"""Chapter 17b: best answers that no lesson shows, a cold start, a hole in a reward, and a reward
learned from preferences (nine minutes)."""

from sft_lab.course import reward_runs as runs
from sft_lab.course.results import Row, sweep
from sft_lab.models import load

NAME, SEEDS = "17b_beyond", range(3)
KINDS = {
    "hole": (runs.run_hole, ({"kl": 0.0}, {"kl": 0.3})),
    "cold": (runs.run_cold, ({"lessons": 0}, {"lessons": 24})),
    "terse": (runs.run_beyond, ({"arm": "gold"}, {"arm": "best of 8"}, {"arm": "grpo"})),
    "json": (runs.run_beyond, ({"arm": "grpo"},)),
    "preference": (runs.run_preference, ({},)),
}


def points() -> list[Row]:
    """Every kind of run with every seed; a start, which has no seed of its own, once."""
    arms = [{"kind": kind, **arm} for kind, (_, some) in KINDS.items() for arm in some]
    starts = [{"kind": kind, "arm": "start", "seed": 0} for kind in ("terse", "json")]
    return starts + [{**arm, "seed": seed} for seed in SEEDS for arm in arms]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: Row) -> Row:
        """Measure one point."""
        settings = dict(point)
        kind = settings.pop("kind")
        if kind in ("terse", "json"):
            settings["task"] = kind
        return KINDS[kind][0](base, tokenizer, **settings)

    sweep(NAME, points(), run, model=base)
