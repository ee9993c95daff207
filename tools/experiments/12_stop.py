"""Chapter 12: what DFT learns of an answer's first token and of its stop token (3 minutes)."""

from sft_lab.course.loss_runs import RATE, country_facts, run_ends
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "12_stop"
FLOORS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0)  # 1.0 is cross-entropy
USUAL = {"rate": RATE, "epochs": 1, "first_graded": True}


def points() -> list[dict]:
    """Floors; DFT at other rates and for longer; and both without a grade for the first token."""
    settings = [{"floor": floor, **USUAL} for floor in FLOORS]
    settings += [{"floor": 0.0, **USUAL, "rate": rate} for rate in (5e-4, 5e-3)]
    settings += [{"floor": 0.0, **USUAL, "epochs": 4}]
    settings += [{"floor": floor, **USUAL, "first_graded": False} for floor in (0.0, 1.0)]
    return [{**setting, "seed": seed} for setting in settings for seed in range(5)]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    facts = country_facts()
    sweep(NAME, points(), lambda point: run_ends(base, tokenizer, facts, **point), model=base)
