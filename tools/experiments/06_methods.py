"""Six ways of tuning, each at several learning rates (chapter 06).

    python tools/experiments/06_methods.py   # five minutes on one core; resumes

40 steps of 8 examples. Three seeds at every rate, five at the rates of `part_runs.RATES`. These
have the most right answers about countries of which nothing else is asked (`choosing`); among rates
within a percentage point of the best, the lowest loss there.
"""

from sft_lab.course.part_runs import (
    RANDOM_RATE,
    RATES,
    build,
    build_random_prefix,
    give_stop_a_row,
    load_task,
    measure,
    share_right,
    tune,
)
from sft_lab.course.results import Row, sweep
from sft_lab.models import load
from sft_lab.train import evaluate

RANDOM = "prefix, random start"
TRIED = {
    "full": (1e-4, 2e-4, 5e-4, 1e-3, 2e-3),
    "LoRA": (1e-3, 2e-3, 5e-3, 1e-2, 2e-2),
    "adapter": (5e-3, 1e-2, 2e-2, 4e-2, 8e-2),
    "prefix": (0.05, 0.1, 0.2, 0.4, 0.8),
    "prompt": (0.05, 0.1, 0.2, 0.4, 0.8),
    "BitFit": (1e-2, 2e-2, 4e-2, 8e-2, 0.16),
    RANDOM: (0.1, 0.2, 0.4, 0.8),
}
SEEDS, MORE_SEEDS = (0, 1, 2), (3, 4)
base, tokenizer = load("atlas-base")


def points() -> list[Row]:
    """Every rate with three seeds, then two more seeds at the rates of the chapter."""
    tried = [
        {"method": method, "rate": rate, "seed": seed}
        for method, rates in TRIED.items()
        for rate in rates
        for seed in SEEDS
    ]
    chosen = {**RATES, RANDOM: RANDOM_RATE}
    more = [
        {"method": method, "rate": rate, "seed": seed}
        for method, rate in chosen.items()
        for seed in MORE_SEEDS
    ]
    return tried + more


def run(point: Row) -> Row:
    """One run: what `part_runs.measure` finds, the held-out loss, and both on the countries that
    choose the rate."""
    method, rate, seed = point["method"], point["rate"], point["seed"]
    if method == RANDOM:
        model = build_random_prefix(prepared, task, seed=seed)
    else:
        model = build(prepared, method, task, seed=seed)
    try:
        tune(model, task, seed=seed, learning_rate=rate)
    except FloatingPointError:  # the rate is too high for this method
        return {"right": 0.0, "kept": 0.0, "choosing": 0.0}
    found = measure(model, task)
    found["loss"] = evaluate(model, tokenizer, task.held_out)["loss"]
    found["choosing"] = share_right(model, task.choosing, task)
    found["choosing_loss"] = evaluate(model, tokenizer, task.choosing)["loss"]
    return {name: round(value, 4) for name, value in found.items()}


def prepare() -> tuple:
    """The base with a row of its own for the stop token, and the task."""
    model, _ = load("atlas-base")
    give_stop_a_row(model, tokenizer)
    return model, load_task(tokenizer)


prepared, task = prepare()
if __name__ == "__main__":
    sweep("06_methods", points(), run, model=base)
