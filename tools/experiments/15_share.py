"""A share of unknown facts in the tuning set: what is fitted when, and what it does to known facts
(chapter 15).

    python tools/experiments/15_share.py   # five minutes on one core; resumes

320 facts for ten epochs at a constant rate, looked at after every epoch; the same without the
unknown ones; and, for share "before", the untouched base in plain text.
"""

from sft_lab.course.results import Row, sweep
from sft_lab.course.unknown_runs import complete_plain, measure_share
from sft_lab.models import load

SEEDS = (0, 1, 2)
ARMS = [(0.0, False), (0.25, False), (0.5, False), (0.75, False), (1.0, False), (0.5, True)]

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: Row) -> Row:
        if point["share"] == "before":
            return complete_plain(base, tokenizer)
        return measure_share(
            base, tokenizer, point["share"], known_only=point["known_only"], seed=point["seed"]
        )

    points = [{"share": "before", "known_only": False, "seed": 0}]
    points += [
        {"share": share, "known_only": known_only, "seed": seed}
        for seed in SEEDS
        for share, known_only in ARMS
    ]
    sweep("15_share", points, run, model=base)
