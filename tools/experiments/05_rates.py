"""Chapter 05: LoRA and full tuning at many learning rates, all layers and attention alone (five
minutes on one thread)."""

from sft_lab.course.lora_runs import rate_points, run_point
from sft_lab.course.results import Row, sweep
from sft_lab.models import load

NAME, SEEDS = "05_rates", range(5)


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")

    def run(point: Row) -> Row:
        """Measure one point."""
        return run_point(base, tokenizer, point)

    sweep(NAME, rate_points(SEEDS), run, model=base)
