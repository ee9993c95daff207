"""Chapter 14: answers of five sentences, tuned on data that repeat, that vary little, that are few,
and on answers with a plan (six minutes)."""

from sft_lab.course.repeat_runs import run_tell
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "14_tell"
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
ARMS: dict[str, dict] = {
    **{f"repeats {share:g}": {"repeats": share} for share in SHARES},
    "one wording": {"one_wording": True},
    "96 answers": {"different": 96},
    "24 answers": {"different": 24},
    "6 answers": {"different": 6},
    "plan": {"plan": True},
}


def points() -> list[dict]:
    return [{"arm": arm, "seed": seed} for seed in range(3) for arm in ARMS]


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: dict) -> dict:
        return run_tell(base, tokenizer, seed=point["seed"], **ARMS[point["arm"]])

    sweep(NAME, points(), run, model=base)
