"""Chapter 01 in the browser: the view of one prediction step does what its plain functions say."""

import pytest
from notebook_page import find_view, fresh_view

from sft_lab import plots
from sft_lab.course.views.step import LEAST, describe_step, draw_step, set_probability

TOKENS, Q = ["Paris", "Rome", "Lima", "Oslo"], [0.5, 0.25, 0.125, 0.125]
ROME, LIMA, OSLO = 1, 2, 3


@pytest.fixture(scope="module")
def page(open_chapter):
    plots.style()
    return open_chapter(1)


def expect_step(view, target: int, probability: float) -> None:
    """The view says and draws this true token at this probability."""
    q = set_probability(Q, target, probability)
    sentence = describe_step(TOKENS, q, target)
    view.expect_text(sentence)
    view.expect_picture(draw_step(TOKENS, q, target))
    assert view.root.locator("img").get_attribute("alt") == sentence


def test_running_all_cells_shows_the_view(page):
    expect_step(find_view(page), ROME, Q[ROME])


def test_a_click_makes_another_token_true(page):
    view = fresh_view(page)
    view.button("Oslo").click()
    expect_step(view, OSLO, Q[OSLO])


def test_tab_and_space_make_another_token_true(page):
    view = fresh_view(page)
    view.tab_to(view.button("Lima"))
    page.keyboard.press("Space")
    expect_step(view, LIMA, Q[LIMA])


def test_four_presses_of_an_arrow_halve_or_double_the_probability(page):
    view = fresh_view(page)
    view.tab_to(view.slider("its probability"))
    for key, probability in [
        ("ArrowLeft", Q[ROME] / 2),
        ("ArrowRight", Q[ROME]),
        ("ArrowUp", 2 * Q[ROME]),
    ]:
        for _ in range(4):
            page.keyboard.press(key)
        expect_step(view, ROME, probability)


def test_home_and_end_go_to_the_ends_of_the_slider(page):
    view = fresh_view(page)
    view.tab_to(view.slider("its probability"))
    for key, probability in [("Home", LEAST), ("End", 1.0)]:
        page.keyboard.press(key)
        expect_step(view, ROME, probability)


def test_a_probability_can_be_typed(page):
    view = fresh_view(page)
    readout = view.root.locator(".widget-readout")
    view.tab_to(readout)
    page.keyboard.press("Control+a")
    page.keyboard.type("0.5")
    page.keyboard.press("Enter")
    expect_step(view, ROME, 0.5)


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch01")
