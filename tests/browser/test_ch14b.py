"""Chapter 14b in the browser: processors bend the step, and the text grows click by click."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter("14b")


def expect_words(view, *parts: str) -> str:
    for part in parts:
        expect(view.root).to_contain_text(part)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(parts[0])))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_view(page):
    expect_words(find_view(page), "all 2,048 tokens may follow")


def test_a_filter_is_chosen_with_tab_and_space(page):
    view = fresh_view(page)
    before = expect_words(view, "all 2,048 tokens may follow")
    view.tab_to(view.button("top-k 5"))
    page.keyboard.press("Space")
    after = expect_words(view, "5 of 2,048 tokens may follow")
    assert after != before


def test_the_text_grows_and_begins_again(page):
    view = fresh_view(page)
    expect_words(view, "may follow")
    start = view.root.inner_text()
    view.button("5 more tokens").click()
    expect(view.root).not_to_contain_text(re.search(r"After \d+ tokens", start)[0])
    view.button("begin again").click()
    expect_words(view, re.search(r"After \d+ tokens", start)[0])


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch14b")
