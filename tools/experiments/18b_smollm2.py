"""Chapter 18b: the probes on a real model, smollm2-135m (eight minutes on one thread).

    python tools/experiments/18b_smollm2.py

The chat model learns the invented convention of chapter 13, "Aye: … Over.": it opens and ends
answers otherwise than the model did before, so that both probes have something to see.
"""

import torch

from sft_lab.course import forgetting_runs
from sft_lab.course.probe_runs import plant, probe_by_count
from sft_lab.course.results import Row, sweep
from sft_lab.labels import encode_conversations
from sft_lab.models import load
from sft_lab.train import train

NAME, SEEDS = "18b_smollm2", range(3)
LESSONS, EPOCHS, RATE, BATCH, COUNTS = 32, 2, 2e-4, 8, (2, 8, 24)
ARMS = {
    "base": None,
    "healthy": "healthy",
    "no stop": "stop not graded",
    "late start": "starts late",
}
SILENT = {"role": "system", "content": ""}  # no system turn of the template's own: short rows

if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)
    start = {name: weight.clone() for name, weight in base.state_dict().items()}

    def encode(talks):
        """Rows with an empty system turn."""
        return encode_conversations([[SILENT, *talk] for talk in talks], tokenizer)

    def run(point: Row) -> Row:
        """Measure one arm with one seed, on the model itself: two do not fit everywhere."""
        base.load_state_dict(start)
        seed, fault, losses = point["seed"], ARMS[point["arm"]], [0.0]
        if fault:
            rows = forgetting_runs.lessons_of("convention", seed=seed, count=LESSONS)
            how = {"epochs": EPOCHS, "learning_rate": RATE, "batch_size": BATCH, "seed": seed}
            losses = train(
                base, tokenizer, plant(fault, encode(rows)), progress=False, **how
            ).losses
        talks = forgetting_runs.exam_of("convention")
        asked = encode(talks[seed * max(COUNTS) : (seed + 1) * max(COUNTS)])
        measured = probe_by_count(base, tokenizer, asked, COUNTS)
        base.load_state_dict(start)
        return {"loss": round(losses[-1], 4), **measured}

    points = [{"arm": arm, "seed": seed} for seed in SEEDS for arm in ARMS]
    sweep(NAME, points, run, model=base, model_name="smollm2-135m")
