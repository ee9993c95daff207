"""Ways of decoding against invention, for a model that was never taught to decline (chapter 15).

    python tools/experiments/15_decoding.py   # three minutes on one core; resumes

The same model, tuned on 400 known facts, answers 150 known and 150 unknown questions in each way.
"""

from sft_lab.course.results import Row, sweep
from sft_lab.course.unknown_runs import DECODING, measure_decoding
from sft_lab.models import load

SEEDS = (0, 1, 2)

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: Row) -> Row:
        return measure_decoding(base, tokenizer, point["group"], seed=point["seed"])

    points = [{"group": group, "seed": seed} for seed in SEEDS for group in DECODING]
    sweep("15_decoding", points, run, model=base)
