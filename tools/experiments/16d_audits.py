"""Chapter 16d: how often an audit names a judge's bias, or accuses an honest one.

    python tools/experiments/16d_audits.py   # a minute on one core; resumes

Each point audits 60 biased and 60 honest judges: 600 judges for each kind and size of audit.
"""

from sft_lab.course.judge_runs import ARMS, run_audits
from sft_lab.course.results import Row, sweep
from sft_lab.models import load

SEEDS = (0, 1, 2, 3, 4)
QUESTIONS = (12, 24, 48)


def run(point: Row) -> Row:
    """One row of the sweep."""
    return run_audits(arm=point["arm"], questions=point["questions"], seed=point["seed"])


if __name__ == "__main__":
    points = [
        {"arm": arm, "questions": questions, "seed": seed}
        for arm in ARMS
        for questions in QUESTIONS
        for seed in SEEDS
    ]
    # no model is involved; a sweep names the weights it stands beside
    sweep("16d_audits", points, run, model=load("atlas-base")[0])
