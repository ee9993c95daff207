"""Chapter 13 in the browser: the number of steps moves the bars and the words."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter("13")


def expect_words(view, words: str) -> str:
    expect(view.root).to_contain_text(words)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(words)))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_view(page):
    expect_words(find_view(page), "After 2 steps of task B")


def test_the_number_of_steps_is_chosen_with_the_mouse(page):
    view = fresh_view(page)
    before = expect_words(view, "After 2 steps of task B")
    view.button("16").click()
    assert expect_words(view, "After 16 steps of task B") != before


def test_the_number_of_steps_is_chosen_with_tab_and_space(page):
    view = fresh_view(page)
    view.tab_to(view.button("76"))
    page.keyboard.press("Space")
    expect_words(view, "After 76 steps of task B")


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch13")
