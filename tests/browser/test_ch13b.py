"""Chapter 13b in the browser: remedy and strength move the ring and the words."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter("13b")


def expect_words(view, *parts: str) -> str:
    for part in parts:
        expect(view.root).to_contain_text(part)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(parts[0])))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_view(page):
    expect_words(find_view(page), "replay, stored, old rows for a new one 0.01: old task")


def test_a_remedy_is_chosen_with_tab_and_space(page):
    view = fresh_view(page)
    before = expect_words(view, "replay, stored, old rows for a new one 0.01")
    view.tab_to(view.button("columns"))
    page.keyboard.press("Space")
    after = expect_words(view, "columns, width 64", "It keeps new weights a task")
    assert after != before


def test_the_slider_goes_to_the_next_strength(page):
    view = fresh_view(page)
    view.button("EWC, sampled labels").click()
    expect_words(view, "EWC, sampled labels, λ 100:")
    view.tab_to(view.slider("strength"))
    page.keyboard.press("ArrowRight")
    expect_words(view, "EWC, sampled labels, λ 10000:")


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch13b")
