"""Drawings: one meaning a colour, text drawn as it is, and no warning about a glyph."""

import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb, to_rgba

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from sft_lab import plots


@pytest.fixture(autouse=True)
def styled():
    with plt.rc_context():
        plots.style()
        yield
    plt.close("all")


def draw(ax) -> None:
    """Render, with every warning an error: matplotlib warns about a missing glyph only when it
    draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax.figure.canvas.draw()


def box_colours(ax) -> list[tuple]:
    return [to_rgb(patch.get_facecolor()) for patch in ax.patches]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_roles_are_told_by_colour_prompt_grey_answer_orange_padding_white():
    labels, mask = [-100, -100, 7, 0, -100], [1, 1, 1, 1, 0]
    assert plots.token_colours(labels, mask) == [
        plots.PROMPT,
        plots.PROMPT,
        plots.ANSWER,
        plots.ANSWER,
        plots.PADDING,
    ]


def test_a_strip_draws_each_token_in_its_colour_and_a_key_of_what_occurs():
    ax = plots.token_strip(["Hi", "?", "Yes"], [-100, -100, 5], title="One token is graded")
    draw(ax)
    expected = [
        to_rgb(colour)
        for colour in (plots.PROMPT, plots.PROMPT, plots.ANSWER, plots.PROMPT, plots.ANSWER)
    ]
    assert box_colours(ax) == expected
    assert texts(ax) == ["Hi", "?", "Yes", "read, not graded", "graded"]


def test_a_long_strip_wraps_and_no_box_leaves_the_figure():
    ax = plots.token_strip(["token"] * 60, colours=[plots.SKY] * 60)
    draw(ax)
    right = max(patch.get_x() + patch.get_width() for patch in ax.patches)
    lines = {patch.get_y() for patch in ax.patches}
    assert right <= ax.get_xlim()[1] and len(lines) > 2


@pytest.mark.parametrize("width", [6.0, 9.0, 13.0])
def test_every_token_fits_in_its_box(width):
    tokens = ["<|im_start|>", "WWWW", "mmmm", "我爱你", "i", "👍", "assistant", "\n\n\n"]
    ax = plots.token_strip(tokens, colours=[plots.SKY] * 8, notes=[100_000] * 8, width=width)
    draw(ax)
    boxes, drawn = ax.patches, [text for text in ax.texts if text.get_text() != "100000"]
    for box, text in zip(boxes, drawn, strict=True):
        assert text.get_window_extent().width <= box.get_window_extent().width + 1, text.get_text()


def test_tokens_are_drawn_as_they_are():
    ax = plots.token_strip(["$x$", " a\n", "\\frac", "_^"], colours=[plots.SKY] * 4)
    draw(ax)
    assert texts(ax) == ["$x$", "·a↵", "\\frac", "_^"]


def test_a_character_without_a_glyph_becomes_its_code_point(monkeypatch):
    only_latin = plots._fonts()[:1]
    monkeypatch.setattr(plots, "_fonts", lambda: only_latin)
    plots._advance.cache_clear()
    try:
        assert plots.show_token("我!") == "U+6211!"
    finally:
        plots._advance.cache_clear()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"labels": [1], "colours": ["red"]},
        {"labels": [1, 2]},
        {"colours": ["red"], "notes": [1, 2]},
    ],
)
def test_a_strip_refuses_what_does_not_match(arguments):
    with pytest.raises(ValueError, match="token"):
        plots.token_strip(["a"], **arguments)


def test_bars_are_means_and_every_seed_is_a_dot():
    ax = plots.bars_with_spread(
        {"full": [1.0, 2.0, 3.0], "LoRA": [4.0]}, title="t", ylabel="loss, nats per token"
    )
    draw(ax)
    assert [bar.get_height() for bar in ax.patches] == [2.0, 4.0]
    assert sorted(y for dots in ax.collections for _, y in dots.get_offsets()) == [
        1.0,
        2.0,
        3.0,
        4.0,
    ]
    assert texts(ax) == ["2", "4"]


def test_base_and_tuned_keep_their_colours_side_by_side():
    values = {"base": {"capital": [0.0, 0.1]}, "tuned": {"capital": [0.9, 1.0]}}
    ax = plots.bars_with_spread(values, title="t", ylabel="right answers", percent=True)
    draw(ax)
    assert box_colours(ax) == [to_rgb(plots.BASE), to_rgb(plots.TUNED)]
    assert texts(ax) == ["5 %", "95 %"]


def test_bars_refuse_groups_that_differ_and_empty_lists():
    with pytest.raises(ValueError, match="groups"):
        plots.bars_with_spread({"base": {"a": [1]}, "tuned": {"b": [1]}}, title="", ylabel="")
    with pytest.raises(ValueError, match="no values for .base."):
        plots.bars_with_spread({"base": []}, title="", ylabel="")


def test_a_curve_of_several_seeds_is_their_mean_in_a_band():
    runs = np.array([[3.0, 2.0, 1.0], [5.0, 4.0, 1.0]])
    ax = plots.curve(
        [0, 1, 2], {"train": runs, "held-out": [4, 3, 3]}, title="t", xlabel="step", ylabel="loss"
    )
    draw(ax)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [4.0, 3.0, 1.0])
    assert len(ax.collections) == 1 and set(texts(ax)) == {"train", "held-out"}


def test_names_of_curves_that_end_together_do_not_overlap():
    ax = plots.curve(
        [0, 1],
        {name: [1, 0.5] for name in "abc"} | {"d": [3, 2]},
        title="t",
        xlabel="x",
        ylabel="y",
    )
    draw(ax)
    extents = sorted((text.get_window_extent() for text in ax.texts), key=lambda extent: extent.y0)
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in zip(extents, extents[1:], strict=False))


def test_a_curve_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 points and x has 3"):
        plots.curve([0, 1, 2], {"loss": [1, 2]}, title="", xlabel="", ylabel="")


def test_a_table_of_shares_names_rows_and_columns_and_writes_each_share():
    ax = plots.share_table(
        {"one task": [0.0, 1.0], "two tasks": [0.305, 0.9]}, ["fact as JSON", "list"], title="t"
    )
    assert [text.get_text() for text in ax.texts] == ["0 %", "100 %", "30 %", "90 %"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one task", "two tasks"]
    with pytest.raises(ValueError, match="'a' has 1 shares for 2 columns"):
        plots.share_table({"a": [0.5]}, ["b", "c"], title="t")


def test_colours_stay_apart_for_readers_who_confuse_red_and_green():
    """Deuteranopia after Machado et al. (2009): the pairs that stand side by side keep a clear
    distance."""
    simulate = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    for one, other in (
        (plots.BASE, plots.TUNED),
        (plots.PROMPT, plots.ANSWER),
        (plots.ANSWER, plots.PADDING),
    ):
        distance = np.linalg.norm(
            simulate @ (np.array(to_rgb(one)) ** 2.2 - np.array(to_rgb(other)) ** 2.2)
        )
        assert distance > 0.3, (one, other, distance)


def test_a_decoder_layer_lights_what_is_in_question_and_draws_what_is_added():
    ax = plots.decoder_layer(("q", "head"), lora=("q",), prefix=True, notes={"head": "26 %"})
    colours = [patch.get_facecolor() for patch in ax.patches]
    assert colours.count(to_rgba(plots.ORANGE)) == 2
    assert colours.count(to_rgba(plots.ADDED)) == 4  # A and B, keys and values
    assert {"A", "B", "+ prefix", "26 %"} <= {text.get_text() for text in ax.texts}
    assert len({x for x, y, _ in plots.PARTS.values()}) == len(plots.PARTS) - 3  # side by side


@pytest.mark.parametrize("wrong", [{"lit": ["query"]}, {"lora": ["head"]}, {"notes": {"Q": "1"}}])
def test_a_part_that_a_decoder_layer_does_not_have_is_named(wrong):
    with pytest.raises(ValueError, match="no such part.*(query|head|Q).*there are"):
        plots.decoder_layer(**wrong)
