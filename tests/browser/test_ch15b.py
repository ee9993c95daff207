"""Chapter 15b in the browser: passages, thresholds and a question of one's own."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter("15b")


def expect_words(view, *parts: str) -> str:
    for part in parts:
        expect(view.root).to_contain_text(part)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(parts[0])))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_view(page):
    expect_words(find_view(page), "Best passage: ", "Source: ")


def test_passages_are_hidden_with_tab_and_space(page):
    view = fresh_view(page)
    before = expect_words(view, "Best passage: ")
    view.tab_to(view.button("not shown"))
    page.keyboard.press("Space")
    assert expect_words(view, "No passage is shown.", "Source: none") != before


def test_a_threshold_above_every_score_declines(page):
    view = fresh_view(page)
    view.tab_to(view.root.get_by_role("slider").first)
    page.keyboard.press("End")
    expect_words(view, "Best passage: ", "That is below 1.00")


def test_a_question_of_ones_own(page):
    view = fresh_view(page)
    box = view.root.get_by_role("textbox").first
    box.fill("What is the capital of Utopia?")
    box.press("Enter")
    expect_words(view, "Best passage: ")


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch15b")
