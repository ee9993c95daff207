"""The jury: no name before the last vote, the sheet's own sides, and kappa with every program."""

import base64
import re

import matplotlib
import pytest

matplotlib.use("Agg")
from sft_lab.course.judge_runs import Finding, blind_sheet
from sft_lab.course.views.jury import (
    NO_VOTES,
    describe_jury,
    draw_agreement,
    draw_audit,
    draw_judge,
    draw_jury,
    draw_no_votes,
    draw_programs,
    explore_jury,
    vote_on_sheet,
)

NAMES = ("model-one", "model-two")
PAIRS = [(f"Question {i}?", f"one says {i}", f"two says {i}") for i in range(6)]
SHEET, KEY = blind_sheet(PAIRS, NAMES, seed=1)
PROGRAMS = {
    "for one": ["first" if by["answer 1 by"] == NAMES[0] else "second" for by in KEY],
    "always first": ["first"] * 6,
    "tie": ["tie"] * 6,
}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def press(view, label: str) -> None:
    buttons = {button.description: button for button in view.children[0].children}
    buttons[label].click()


def words(view) -> str:
    return re.sub(r"<[^>]+>", " ", view.children[-1].value)


def texts(figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_the_sides_are_those_of_the_sheet():
    vote = vote_on_sheet(SHEET, KEY)
    for row in SHEET:
        assert vote.shown() == (row["question"], row["answer 1"], row["answer 2"])
        vote.cast("A" if row["answer 1"].startswith("one") else "B")
    assert vote.tally() == {"model-one": 6, "model-two": 0, "tie": 0}


def test_agreement_is_told_with_every_program():
    vote = vote_on_sheet(SHEET, KEY)
    for said in PROGRAMS["for one"]:
        vote.cast({"first": "A", "second": "B"}[said])
    told = describe_jury(vote, PROGRAMS)
    assert "6 of 6 votes for model-one" in told and "for one 1.00" in told
    assert "always first 0.00" in told and "tie 0.00" in told
    shown = texts(draw_jury(vote, PROGRAMS))
    assert {"1.00", "0.00"} <= set(shown)


def test_agreement_that_is_not_defined_is_said_to_be_so():
    vote = vote_on_sheet(SHEET, KEY)
    for _ in SHEET:
        vote.cast("tie")
    assert "tie undefined" in describe_jury(vote, PROGRAMS)
    assert "undefined" in texts(draw_jury(vote, PROGRAMS))


def test_no_name_and_no_program_shows_before_the_last_vote():
    view = explore_jury(SHEET, KEY, PROGRAMS)
    assert NO_VOTES.strip() in words(view)
    for place in range(6):
        page = words(view) + view.children[-2].value
        assert not any(name in page for name in (*NAMES, *PROGRAMS))
        assert f"Pair {place + 1} of 6" in page
        press(view, "A is better")
    assert "No votes yet" not in words(view)
    assert all(name in words(view) for name in (*NAMES, *PROGRAMS))
    picture = re.search(r"base64,([^\"]+)", view.children[-2].value)[1]
    assert base64.b64decode(picture).startswith(b"\x89PNG")


def test_a_vote_can_be_taken_back_and_the_last_one_too():
    view = explore_jury(SHEET, KEY, PROGRAMS)
    press(view, "tie")
    assert "Pair 2 of 6" in words(view)
    press(view, "take back")
    assert "Pair 1 of 6" in words(view) and "No votes yet" in words(view)
    for _ in range(6):
        press(view, "B is better")
    press(view, "B is better")
    assert "of 6 votes for model-one" in words(view)
    press(view, "take back")
    assert "Pair 6 of 6" in words(view)


def test_the_still_picture_invents_no_votes():
    figure = draw_no_votes(SHEET, KEY, PROGRAMS)
    assert figure.axes[1].get_title(loc="left").startswith("No votes yet") or figure.axes[
        1
    ].get_title().startswith("No votes yet")
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert labels == list(PROGRAMS)


def test_bars_of_programs_are_shares_of_names_and_ties():
    ax = draw_programs(PROGRAMS, KEY, title="t")
    widths = [[round(bar.get_width(), 3) for bar in bars] for bars in ax.containers]
    one_first = sum(by["answer 1 by"] == NAMES[0] for by in KEY) / 6
    assert widths[0] == [1.0, round(one_first, 3), 0.0]  # for model-one
    assert widths[1] == [0.0, 0.0, 1.0]  # ties
    assert widths[2] == [0.0, round(1 - one_first, 3), 0.0]


def test_the_table_of_an_audit_is_bold_where_something_is_shown():
    none, shown = Finding(0.05, -0.1, 0.2), Finding(0.8, 0.7, 0.9)
    steady = Finding(0.1, 0.05, 0.15)
    ax = draw_audit({"judge": {"length": shown, "position": none, "noise": steady}}, title="t")
    weights = {text.get_text(): text.get_fontweight() for text in ax.texts}
    assert weights == {"+0.80 ± 0.10": "bold", "+0.05 ± 0.15": "normal", "+0.10 ± 0.05": "normal"}


def test_agreement_is_drawn_for_every_two_and_a_dash_where_undefined():
    ax = draw_agreement(PROGRAMS, title="t")
    shown = [text.get_text() for text in ax.texts]
    assert len(shown) == 9 and shown[0] == "1.00" and shown[-1] == "–"


def test_the_judge_is_drawn_with_every_temptation():
    shown = " ".join(text.get_text() for text in draw_judge().texts)
    for bias in ("position", "length", "repetition", "self-preference", "noise"):
        assert bias in shown
