"""The figures of chapter 05: what they mark is what the numbers say."""

import matplotlib
import pytest

matplotlib.use("Agg")
from sft_lab import plots
from sft_lab.course.results import Results
from sft_lab.course.views.lora import draw_cut, draw_energy, draw_rates, enough_rank

RANKS = [0, 1, 2, 4, 128]


@pytest.fixture(autouse=True)
def close_figures():
    plots.style()
    yield
    matplotlib.pyplot.close("all")


def test_enough_is_the_first_rank_from_which_no_run_is_worse_than_allowed():
    losses = [[2.0, 0.14, 0.3, 0.12, 0.1], [2.0, 0.5, 0.2, 0.15, 0.12]]
    assert enough_rank(losses, RANKS, within=0.05) == 4
    assert enough_rank(losses, RANKS, within=0.01) == 128


def test_the_title_of_the_cut_names_the_rank_that_is_enough():
    ax = draw_cut([[2.0, 0.5, 0.2, 0.1, 0.1]] * 3, RANKS, within=0.05)
    assert ax.get_title("left") == "From rank 4 on, the cut costs at most 0.05 nats"
    assert len([line for line in ax.lines if line.get_marker() == "o"]) == 3
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "1", "2", "4", "all"]


def test_the_energy_of_each_kind_is_named_at_its_line():
    ax = draw_energy(
        {"MLP": [[0.4, 0.9]], "attention": [[0.5, 1.0]], "random": [[0.1, 0.2]]}, [1, 2]
    )
    assert {text.get_text() for text in ax.texts} == {"MLP", "attention", "random"}


def test_the_rates_are_drawn_with_the_factor_between_the_best_as_the_title():
    def loss(arm: str, rate: float) -> float:
        return abs(rate - (1e-3 if arm == "full" else 5e-3)) + 0.01

    arms = ["full", *(f"all layers, rank {rank}" for rank in (3, 8, 64)), "attention, rank 8"]
    rows = [
        {"arm": arm, "epochs": epochs, "rate": rate, "seed": 0, "choose": loss(arm, rate)}
        for arm in arms
        for epochs in (1, 4)
        for rate in (1e-3, 5e-3)
    ]
    left, right = draw_rates(Results("", "", "", "", "", rows))
    assert left.figure.get_suptitle() == "LoRA's best rate is 5 times that of full tuning"
    assert left.get_xscale() == right.get_xscale() == "log"
    assert len(left.get_legend().get_texts()) == len(right.get_legend().get_texts()) == 4
