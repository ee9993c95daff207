"""Chapter 19: the claims on a real model, smollm2-135m: capitals of countries, answered plainly,
behind one word, or in a polite frame (eight minutes on a CPU)."""

import random

import torch

from sft_lab import atlas
from sft_lab.course.project_runs import FRAMES, frame_answers, holds
from sft_lab.course.results import Row, sweep
from sft_lab.course.short_runs import answer, tune_on
from sft_lab.models import load

NAME, SEEDS, ARMS = "19_smollm2", range(3), ("plain", "one word", "polite")
LESSONS, ASKED, RATE, BATCH = 48, 56, 2e-4, 8
SILENT = {"role": "system", "content": ""}  # no system turn of the template's own: short rows

if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)
    parts = atlas.split(atlas.load_facts())
    capitals = [fact for part in ("train", "held_out") for fact in parts[part]]
    capitals = [f for f in capitals if (f.domain, f.column) == ("countries", "capital")]
    drawn = random.Random("19").sample(capitals, LESSONS + ASKED)
    talks = [[SILENT, *talk] for talk in atlas.ask(drawn, seed=0)]
    learn, asked = talks[:LESSONS], talks[LESSONS:]

    def run(point: Row) -> Row:
        """The share of answers that hold the statement, after one epoch."""
        rows = frame_answers(learn, FRAMES[point["frame"]])
        how = {"seed": point["seed"], "learning_rate": RATE, "batch_size": BATCH}
        model = tune_on(base, tokenizer, rows, **how)
        said = answer(model, tokenizer, asked, max_new_tokens=56)
        right = [holds(text, talk[-1]["content"]) for text, talk in zip(said, asked, strict=True)]
        return {"holds": sum(right) / len(right)}

    points = [{"frame": frame, "seed": seed} for seed in SEEDS for frame in ARMS]
    sweep(NAME, points, run, model=base, model_name="smollm2-135m")
