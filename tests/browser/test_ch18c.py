"""Chapter 18c in the browser: a case, a tab and a cause are chosen by keyboard."""

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter("18c")


def test_running_all_cells_shows_the_clinic(page):
    expect(find_view(page).root).to_contain_text("0 of 26 named, in 0 tries")


def test_a_case_and_a_tab_are_chosen(page):
    view = fresh_view(page)
    view.tab_to(view.slider("case"))
    page.keyboard.press("ArrowRight")
    expect(view.root).to_contain_text("Case B:")
    view.tab_to(view.button("probes"))
    page.keyboard.press("Space")
    expect(view.root).to_contain_text("of 19 probes lie outside")
    view.tab_to(view.button("curve"))
    page.keyboard.press("Space")
    expect(view.root.locator("img")).to_have_count(1)


def test_a_wrong_cause_is_contradicted(page):
    view = fresh_view(page)
    view.tab_to(view.button("tied merge"))
    page.keyboard.press("Space")
    expect(view.root).to_contain_text("contradicts you")
    expect(view.root).to_contain_text("in 1 tries")


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch18c")
