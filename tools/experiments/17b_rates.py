"""Chapter 17b: rates and pulls at which SFT, GRPO and PPO work, 10 steps each (five minutes)."""

from sft_lab.course.results import Row, sweep
from sft_lab.course.reward_runs import run_arm
from sft_lab.models import load

NAME, SEEDS, STEPS = "17b_rates", range(3), 10
ARMS = ("gold", "grpo", "ppo")
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
LORA = {"rank": 8, "rates": (3e-4, 1e-3, 3e-3)}
PULLS = (0.1, 1.0)  # KL strengths, at a rate that breaks GRPO


def points() -> list[Row]:
    """Every setting with every seed."""
    settings = [
        {"arm": arm, "rate": rate, "rank": 0, "pull": 0.0} for arm in ARMS for rate in RATES
    ]
    settings += [
        {"arm": arm, "rate": rate, "rank": LORA["rank"], "pull": 0.0}
        for arm in ("gold", "grpo")
        for rate in LORA["rates"]
    ]
    settings += [{"arm": "grpo", "rate": 1e-3, "rank": 0, "pull": pull} for pull in PULLS]
    return [{**setting, "seed": seed} for seed in SEEDS for setting in settings]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: Row) -> Row:
        """Measure one point."""
        return run_arm(base, tokenizer, steps=STEPS, path=False, **point)

    sweep(NAME, points(), run, model=base)
