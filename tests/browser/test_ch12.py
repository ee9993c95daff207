"""Chapter 12 in the browser: loss, number and probability move the pulls, in picture and words."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter(12)


def expect_words(view, *parts: str) -> str:
    for part in parts:
        expect(view.root).to_contain_text(part)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(parts[0])))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_view(page):
    expect_words(find_view(page), "focal, γ 2: a token at p = 0.01", "In the wrong answer")


def test_arrows_move_the_probability_and_the_number(page):
    view = fresh_view(page)
    before = expect_words(view, "focal, γ 2: a token at p = 0.01")
    view.tab_to(view.slider("p"))
    page.keyboard.press("ArrowRight")
    after = expect_words(view, "focal, γ 2: a token at p = 0.03")
    assert after != before
    view.tab_to(view.slider("number"))
    page.keyboard.press("ArrowRight")
    expect_words(view, "focal, γ 3: a token at p = 0.03")


def test_another_loss_is_chosen_with_tab_and_space_and_brings_its_own_numbers(page):
    view = fresh_view(page)
    view.tab_to(view.button("DFT"))
    page.keyboard.press("Space")
    expect_words(view, "DFT, floor 0: a token at p = 0.01", "weight 0.01")
    view.tab_to(view.slider("number"))
    page.keyboard.press("End")
    expect_words(view, "DFT, floor 1: a token at p = 0.01", "weight 1.")
    view.button("cross-entropy").click()
    expect_words(view, "cross-entropy: a token at p = 0.01")
    view.button("smoothed").click()
    expect_words(view, "smoothed, ε 0.1: a token at p = 0.01")


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch12")
