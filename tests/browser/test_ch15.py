"""Chapter 15 in the browser: question and threshold decide what is given, in picture and words."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter(15)


def expect_words(view, *parts: str) -> str:
    for part in parts:
        expect(view.root).to_contain_text(part)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(parts[0])))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_view(page):
    expect_words(find_view(page), "Threshold 0.5.", "Of 400 questions")


def test_arrows_move_the_threshold(page):
    view = fresh_view(page)
    before = expect_words(view, "Threshold 0.5.")
    view.tab_to(view.slider("threshold"))
    page.keyboard.press("ArrowRight")
    after = expect_words(view, "Threshold 0.6.")
    assert after != before
    page.keyboard.press("Home")
    expect_words(view, "Threshold 0. “", ": given.", "100% are answered")


def test_another_question_is_chosen_with_the_keyboard(page):
    view = fresh_view(page)
    before = expect_words(view, "Threshold 0.5.")
    view.tab_to(view.slider("question"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    after = expect_words(view, "Threshold 0.5.")
    expect(view.root.locator("img")).not_to_have_attribute("src", before)
    assert after


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch15")
