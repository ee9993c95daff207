"""Chapter 11b in the browser: the start and the number of wordings move the bars and the words."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter("11b")


def expect_words(view, *parts: str) -> str:
    for part in parts:
        expect(view.root).to_contain_text(part)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(parts[0])))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_view(page):
    expect_words(find_view(page), "From the base model, new facts taught in 1 wording.")


def test_the_number_of_wordings_is_chosen_with_tab_and_space(page):
    view = fresh_view(page)
    before = expect_words(view, "new facts taught in 1 wording.")
    view.tab_to(view.button("8"))
    page.keyboard.press("Space")
    after = expect_words(view, "new facts taught in 8 wordings.", "own words", "backwards")
    assert after != before


def test_another_start_moves_the_picture_and_a_gap_is_said(page):
    view = fresh_view(page)
    view.button("tuned").click()
    expect_words(view, "From the tuned model, new facts taught in 1 wording.")
    view.button("4").click()
    expect(view.root).to_contain_text("only 1 and 8 wordings were recorded")


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch11b")
