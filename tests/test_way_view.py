"""The figure of chapter 07b: what each change wins, the largest first, and all of them together."""

import matplotlib
import pytest

matplotlib.use("Agg")
from sft_lab.course.views.way import draw_way, wins
from sft_lab.plots import BLUE, VERMILLION

SECONDS = {"start": 12.0, "one": 6.0, "two": 8.0, "three": 2.0}


def test_a_win_is_the_time_before_over_the_time_after_the_largest_first():
    assert wins(SECONDS) == {"three": 4.0, "one": 2.0, "two": 0.75}
    assert list(wins(SECONDS)) == ["three", "one", "two"]


def test_bars_lie_to_the_right_of_1_where_a_change_wins_and_to_the_left_where_it_loses():
    ax = draw_way(SECONDS)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["three", "one", "two"]
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    assert ends == [pytest.approx(pair) for pair in ((1, 4), (1, 2), (1, 0.75))]
    colours = [bar.get_facecolor() for bar in ax.patches]
    wanted = [BLUE, BLUE, VERMILLION]
    assert all(map(matplotlib.colors.same_color, colours, wanted))
    assert "6.0 times as fast; the longest step: three" in ax.figure.get_suptitle()
    matplotlib.pyplot.close("all")
