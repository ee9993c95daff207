"""Chapter 09 in the browser: votes are cast with the keyboard, and names appear only after the last
one."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect

NAMES = re.compile("ChatML|plain words")
PAIRS = 10


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter(9)


def test_running_all_cells_shows_the_first_pair_and_no_name(page):
    view = find_view(page)
    expect(view.root).to_contain_text(f"Pair 1 of {PAIRS}")
    expect(view.root).not_to_contain_text(NAMES)


def test_votes_with_the_space_bar_go_on_and_the_last_one_reveals_the_names(page):
    view = fresh_view(page)
    for number, choice in enumerate(["A is better", "tie", "B is better"] * 3, start=1):
        view.tab_to(view.button("A is better")) if choice == "A is better" else view.button(
            choice
        ).focus()
        page.keyboard.press("Space")
        expect(view.root).to_contain_text(f"Pair {number + 1} of {PAIRS}")
        expect(view.root).not_to_contain_text(NAMES)
    view.button("tie").click()
    expect(view.root).to_contain_text("4 ties. Sign test")
    expect(view.root.get_by_role("table")).to_contain_text(NAMES)
    expect(view.root.locator("img")).to_have_attribute("alt", re.compile("of 10 votes for ChatML"))


def test_take_back_hides_the_names_again(page):
    view = find_view(page)
    view.button("take back").click()
    expect(view.root).to_contain_text(f"Pair {PAIRS} of {PAIRS}")
    expect(view.root).not_to_contain_text(NAMES)


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch09")
