"""Chapter 16d in the browser: ten votes on a blind sheet, and names and programs only after the
last one."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect

HIDDEN = re.compile("lessons|kappa|judge:")
PAIRS = 10


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter("16d")


def test_running_all_cells_shows_the_first_pair_and_no_votes(page):
    view = find_view(page)
    expect(view.root).to_contain_text(f"No votes yet. Pair 1 of {PAIRS}")
    expect(view.root).not_to_contain_text(HIDDEN)


def test_ten_votes_with_the_keyboard_reveal_names_and_agreement(page):
    view = fresh_view(page)
    for number, choice in enumerate(["A is better", "tie", "B is better"] * 3, start=1):
        view.tab_to(view.button("A is better")) if choice == "A is better" else view.button(
            choice
        ).focus()
        page.keyboard.press("Space")
        expect(view.root).to_contain_text(f"Pair {number + 1} of {PAIRS}")
        expect(view.root).not_to_contain_text(HIDDEN)
    view.button("tie").click()
    expect(view.root).to_contain_text("4 ties. Sign test")
    expect(view.root).to_contain_text("agreement beyond chance (kappa) with right facts")
    expect(view.root.get_by_role("table")).to_contain_text("lessons")
    expect(view.root.locator("img")).to_have_attribute("alt", re.compile("judge: position"))


def test_take_back_hides_names_and_programs_again(page):
    view = find_view(page)
    view.button("take back").click()
    expect(view.root).to_contain_text(f"Pair {PAIRS} of {PAIRS}")
    expect(view.root).not_to_contain_text(HIDDEN)


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch16d")
