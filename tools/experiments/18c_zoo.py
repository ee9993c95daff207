"""Chapter 18c: 29 bugs, two decoys and healthy runs, each with its case file and all probes (twelve
minutes)."""

from sft_lab.course.results import sweep
from sft_lab.course.zoo_bugs import BUGS, DECOYS
from sft_lab.course.zoo_table import measure_case
from sft_lab.models import load

NAME = "18c_zoo"


def points() -> list[dict]:
    cases = [("healthy", seed) for seed in range(6)]
    cases += [("healthy, packed", seed) for seed in range(3)]
    cases += [(case.name, seed) for seed in range(3) for case in (*DECOYS, *BUGS)]
    return [{"case": case, "seed": seed} for case, seed in cases]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: dict) -> dict:
        return measure_case(point["case"], base, tokenizer, seed=point["seed"])

    sweep(NAME, points(), run, model=base)
