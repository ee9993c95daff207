"""Chapter 19: what polite answers cost: four frames around every answer, five seeds (two
minutes)."""

import tempfile
from pathlib import Path

from sft_lab.course.project_runs import FRAMES, SEEDS, build_project, run_arm
from sft_lab.course.results import Row, sweep
from sft_lab.models import load

NAME = "19_project"

if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    with tempfile.TemporaryDirectory() as folder:
        learn, validation, test = build_project(Path(folder))

    def run(point: Row) -> Row:
        """One arm with one seed: asked on the validation part, and on the test part."""
        return run_arm(
            base,
            tokenizer,
            learn,
            validation,
            seed=point["seed"],
            frame=FRAMES[point["frame"]],
            test=test,
        )

    points = [{"frame": frame, "seed": seed} for frame in FRAMES for seed in SEEDS]
    sweep(NAME, points, run, model=base)
