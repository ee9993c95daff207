"""Chapter 12: what each loss does to values that are clean, partly wrong or new (10 minutes)."""

from sft_lab.course.loss_runs import RATE, country_facts, run_values
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "12_losses"
LOSSES = ("cross-entropy", "weighted", "focal", "smoothed", "DFT", "DFT, floor 0.1")


def points() -> list[dict]:
    """Every loss on clean and noisy data for one epoch and four, and with facts that the base never
    read; cross-entropy and DFT on noisy data at other rates too."""
    settings = [
        {"loss": loss, "data": data, "epochs": epochs, "rate": RATE}
        for data, epochs in (("clean", 1), ("noisy", 1), ("unknown", 4), ("clean", 4), ("noisy", 4))
        for loss in LOSSES
    ]
    settings += [
        {"loss": loss, "data": "noisy", "epochs": 4, "rate": rate}
        for loss in ("cross-entropy", "DFT")
        for rate in (5e-4, 5e-3)
    ]
    return [{**setting, "seed": seed} for setting in settings for seed in range(3)]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    facts = country_facts()
    sweep(NAME, points(), lambda point: run_values(base, tokenizer, facts, **point), model=base)
