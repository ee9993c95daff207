"""Chapter 18b: how many examples the probes of a trained model need (three minutes on one thread).

python tools/experiments/18b_samples.py
"""

from sft_lab.course.probe_runs import ARMS, measure_arm
from sft_lab.course.results import Row, sweep
from sft_lab.models import load

NAME, SEEDS = "18b_samples", range(5)

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: Row) -> Row:
        """Measure one arm with one seed."""
        return measure_arm(base, tokenizer, arm=point["arm"], seed=point["seed"])

    points = [{"arm": arm, "seed": seed} for seed in SEEDS for arm in ARMS]
    sweep(NAME, points, run, model=base)
