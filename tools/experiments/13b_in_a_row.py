"""Three tasks in a row, and two that contradict each other (chapter 13b).

python tools/experiments/13b_in_a_row.py   # eight minutes on one core; resumes
"""

from sft_lab.course.remedies import run_conflict, run_in_a_row
from sft_lab.course.results import Row, sweep
from sft_lab.models import load

SEEDS = (0, 1, 2)
ORDERS = ("convention,skills,json", "json,skills,convention")
REMEDIES = (
    ("nothing", 0.0),
    ("replay", 0.2),
    ("EWC, an anchor a task", 2e4),
    ("EWC, the last anchor", 2e4),
)
base, tokenizer = load("atlas-base")


def run(point: Row) -> Row:
    """One run of either experiment."""
    settings = {name: value for name, value in point.items() if name != "experiment"}
    measure = run_in_a_row if point["experiment"] == "in a row" else run_conflict
    return measure(base, tokenizer, **settings)


def points() -> list[Row]:
    rows = [
        {"experiment": "in a row", "order": order, "remedy": remedy, "strength": strength}
        for remedy, strength in REMEDIES
        for order in ORDERS
        if order == ORDERS[0] or remedy in ("replay", "EWC, an anchor a task")
    ]
    rows += [
        {"experiment": "conflict", "share": share, "named": named}
        for share in (0.5, 0.2)
        for named in (False, True)
    ]
    return [{**row, "seed": seed} for seed in SEEDS for row in rows]


if __name__ == "__main__":
    sweep("13b_in_a_row", points(), run, model=base)
