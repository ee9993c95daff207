"""Chapter 11: tune on the right answer of eight, and on a random one of the same prompts
(three minutes)."""

from sft_lab.course.data_runs import play_rounds
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "11_best_of_k"

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    arms = [("sums", arm, 3) for arm in ("top", "random")]
    arms += [("facts", arm, 1) for arm in ("top", "random")]
    points = [
        {"skill": skill, "arm": arm, "rounds": rounds, "seed": seed}
        for seed in range(3)
        for skill, arm, rounds in arms
    ]

    def run(point: dict) -> dict:
        return play_rounds(base, tokenizer, **point)

    _ = sweep(NAME, points, run, model=base)
