"""Chapter 14 in the browser: the text and the number of its copies move picture and words."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter(14)


def expect_words(view, *parts: str) -> str:
    for part in parts:
        expect(view.root).to_contain_text(part)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(parts[0])))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_view(page):
    expect_words(find_view(page), "in copy 6", "10 tokens")


def test_arrows_on_the_slider_change_the_copies(page):
    view = fresh_view(page)
    before = expect_words(view, "in copy 6")
    view.tab_to(view.slider("copies"))
    for copies in (5, 4):
        page.keyboard.press("ArrowLeft")
        after = expect_words(view, f"in copy {copies}")
    assert after != before
    page.keyboard.press("Home")
    expect_words(view, "no earlier copy")


def test_another_text_is_chosen_with_tab_and_space(page):
    view = fresh_view(page)
    before = expect_words(view, "10 tokens")
    view.tab_to(view.button("nonsense"))
    page.keyboard.press("Space")
    expect(view.root).not_to_contain_text("10 tokens")
    expect_words(view, "in copy 6")
    expect(view.root.locator("img")).not_to_have_attribute("src", before)


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch14")
