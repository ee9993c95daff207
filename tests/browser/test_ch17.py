"""Chapter 17 in the browser: averages, marks and the KL move picture and words."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter(17)


def expect_words(view, *parts: str) -> str:
    for part in parts:
        expect(view.root).to_contain_text(part)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(parts[0])))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_view(page):
    expect_words(find_view(page), "of 6 answers are right", "strongest push")


def test_buttons_change_the_average_and_the_picture(page):
    view = fresh_view(page)
    before = expect_words(view, "of 6 answers are right")
    view.tab_to(view.button("over each answer"))
    page.keyboard.press("Space")
    expect(view.root.locator("img")).not_to_have_attribute("src", before)
    expect_words(view, "of 6 answers are right")


def test_equal_rewards_push_nothing_until_the_kl_does(page):
    view = fresh_view(page)
    view.tab_to(view.button("none"))
    page.keyboard.press("Space")
    expect_words(view, "All 6 answers earn 0", "No token is pushed")
    view.tab_to(view.slider("KL strength"))
    page.keyboard.press("ArrowRight")
    expect_words(view, "All 6 answers earn 0", "strongest push")
    page.keyboard.press("Home")
    expect_words(view, "All 6 answers earn 0", "No token is pushed")


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch17")
