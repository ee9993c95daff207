"""Chapter 11: score against number of examples, wrong labels, wordings and tasks (9 minutes)."""

from itertools import product

from sft_lab.course.data_mix import Mix, measure_mix
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "11_data_mix"
SIZES = (3, 6, 12, 24, 48, 96, 192, 384)
SHARES = (0.1, 0.25, 0.5, 0.75)
KNOBS = product((6, 24, 96, 384), (0.0, 0.25, 0.5), (1, 4), (1, 2))  # every setting of the view


def points() -> list[dict]:
    """One knob at a time over five seeds, then all knobs of the view over three."""
    alone = [Mix(distinct=size) for size in SIZES]
    alone += [Mix(wrong=share, kind=kind) for share in SHARES for kind in ("scattered", "rule")]
    alone += [Mix(wordings=count) for count in (1, 2, 8)]
    together = [
        Mix(distinct=d, wrong=wrong, wordings=wordings, tasks=tasks)
        for d, wrong, wordings, tasks in KNOBS
    ]
    wanted = [(mix, seed) for mix in alone for seed in range(5)]
    wanted += [(mix, seed) for mix in together for seed in range(3)]
    return [{**vars(mix), "seed": seed} for mix, seed in dict.fromkeys(wanted)]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: dict) -> dict:
        settings = {name: value for name, value in point.items() if name != "seed"}
        return measure_mix(base, tokenizer, Mix(**settings), seed=point["seed"])

    _ = sweep(NAME, points(), run, model=base)
