"""The blind side-by-side: sides are a fair coin, no name shows before the last vote, and the tally
counts right."""

import base64
import re

import matplotlib
import pytest

matplotlib.use("Agg")
from sft_lab.course.views.blind import (
    CHOICES,
    BlindVote,
    Pair,
    describe_pair,
    describe_tally,
    draw_example,
    draw_pair,
    draw_tally,
    explore_blind,
)

NAMES = ("model-one", "model-two")
PAIRS = [Pair(f"Question {i}?", (f"first {i}", f"second {i}"), f"second {i}") for i in range(12)]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def vote_for(vote: BlindVote, author: str) -> BlindVote:
    """Vote, on every pair, for the answer that names its author ("first" or "second")."""
    while not vote.finished:
        _, a, _ = vote.shown()
        vote.cast("A" if a.startswith(author) else "B")
    return vote


@pytest.mark.parametrize(("author", "name"), [("first", "model-one"), ("second", "model-two")])
def test_votes_go_to_the_author_whatever_the_side(author, name):
    for seed in range(30):
        tally = vote_for(BlindVote(PAIRS, NAMES, seed=seed), author).tally()
        assert tally == {"model-one": 0, "model-two": 0, "tie": 0} | {name: 12}


def test_a_voter_who_always_says_a_splits_evenly_over_many_shuffles():
    votes = {"model-one": 0, "model-two": 0, "tie": 0}
    for seed in range(200):
        vote = BlindVote(PAIRS, NAMES, seed=seed)
        for _ in PAIRS:
            vote.cast("A")
        for name, count in vote.tally().items():
            votes[name] += count
    assert (
        votes["tie"] == 0 and 1100 < votes["model-one"] < 1300
    )  # 2,400 coins: 1,200 with deviation 24


def test_the_side_of_one_pair_says_nothing_about_the_next():
    agree = [
        v.swapped[i] == v.swapped[i + 1]
        for v in (BlindVote(PAIRS, NAMES, seed=s) for s in range(200))
        for i in range(11)
    ]
    assert 0.45 < sum(agree) / len(agree) < 0.55


def test_without_a_seed_the_sides_are_drawn_anew():
    assert len({tuple(BlindVote(PAIRS, NAMES).swapped) for _ in range(10)}) > 1
    assert BlindVote(PAIRS, NAMES, seed=4).swapped == BlindVote(PAIRS, NAMES, seed=4).swapped


def test_the_tally_waits_for_the_last_vote():
    vote = BlindVote(PAIRS[:2], NAMES, seed=0)
    vote.cast("tie")
    with pytest.raises(ValueError, match="1 of 2 votes"):
        vote.tally()
    vote.cast("tie")
    assert vote.tally()["tie"] == 2
    with pytest.raises(ValueError, match="A, B or tie, once"):
        vote.cast("A")


def test_only_the_three_choices_are_votes():
    with pytest.raises(ValueError, match="vote 'model-one' on pair 1"):
        BlindVote(PAIRS, NAMES).cast("model-one")


@pytest.mark.parametrize("names", [("x", "x"), ("x", "tie")])
def test_names_that_a_tally_cannot_tell_apart_are_refused(names):
    with pytest.raises(ValueError, match="two different ones"):
        BlindVote(PAIRS, names)


def test_nothing_to_vote_on_is_refused():
    with pytest.raises(ValueError, match="no pairs"):
        explore_blind([], NAMES)


def test_right_answers_are_counted_only_where_references_are_known():
    assert BlindVote(PAIRS, NAMES).count_right() == {"model-one": 0, "model-two": 12}
    assert BlindVote([Pair("Q?", ("a", "b"))], NAMES).count_right() is None


def test_the_words_hold_question_answers_votes_and_the_test():
    vote = BlindVote(PAIRS, NAMES, seed=0)
    for part in ("Pair 1 of 12", "Question 0?", "first 0", "second 0"):
        assert part in describe_pair(vote)
    sentence = describe_tally({"x": 1, "y": 9, "tie": 2}, {"x": 3, "y": 10})
    for part in (
        "1 of 12 votes for x",
        "9 for y",
        "2 ties",
        "p = 0.021",
        "tell the two apart",
        "x 3, y 10 of 12",
    ):
        assert part in sentence
    assert "cannot tell" in describe_tally({"x": 2, "y": 3, "tie": 0})


def texts(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_the_picture_of_a_pair_holds_both_answers_and_dollar_signs_start_no_formula():
    figure = draw_pair("Costs $1 or $2?", "", "It costs $2$.")
    figure.canvas.draw()
    assert "(nothing)" in texts(figure) and "It costs $2$." in texts(figure)


def test_the_picture_of_the_tally_says_the_finding():
    assert "y is preferred (p = 0.021)" in texts(draw_tally({"x": 1, "y": 9, "tie": 2}))
    assert "decide nothing" in texts(draw_tally({"x": 0, "y": 0, "tie": 0}))


def test_the_static_picture_says_that_its_tally_is_an_example():
    assert "EXAMPLE" in texts(draw_example(PAIRS[0], NAMES))


def page_of(view) -> str:
    """Everything a reader or a page's source could show."""
    controls, picture, words = view.children
    return " ".join(
        [picture.value, words.value, *(button.description for button in controls.children)]
    )


def test_no_name_shows_before_the_last_vote_and_both_after_it():
    view = explore_blind(PAIRS[:3], NAMES, seed=1)
    a, b, tie, back = view.children[0].children
    for number, button in enumerate((a, tie, b), start=1):
        assert f"Pair {number} of 3" in page_of(view)
        assert not any(name in page_of(view) for name in NAMES)
        button.click()
    assert all(name in page_of(view) for name in NAMES) and "Sign test" in page_of(view)
    after = page_of(view)
    a.click()
    assert page_of(view) == after  # no vote after the last
    back.click()
    assert "Pair 3 of 3" in page_of(view) and not any(name in page_of(view) for name in NAMES)


def test_take_back_on_the_first_pair_changes_nothing():
    view = explore_blind(PAIRS[:2], NAMES, seed=1)
    before = page_of(view)
    view.children[0].children[3].click()
    assert page_of(view) == before


def test_the_picture_says_in_words_what_it_shows():
    view = explore_blind(PAIRS[:2], NAMES, seed=1)
    alt, source = re.match(
        r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', view.children[1].value
    ).groups()
    assert alt.startswith("Pair 1 of 2. Question 0?") and base64.b64decode(source).startswith(
        b"\x89PNG"
    )


def test_what_a_model_says_stays_text():
    view = explore_blind([Pair("Q?", ("<script>x</script>", "b"), "b")], NAMES, seed=1)
    view.children[0].children[2].click()
    assert "<script" not in page_of(view)


def test_there_is_a_button_for_every_choice():
    buttons = explore_blind(PAIRS, NAMES).children[0].children
    assert [button.description for button in buttons] == [
        "A is better",
        "B is better",
        "tie",
        "take back",
    ]
    assert len(CHOICES) == 3
