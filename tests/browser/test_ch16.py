"""Chapter 16 in the browser: two sentences, chosen or typed, and the score that is drawn."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter(16)


def expect_words(view, *parts: str) -> str:
    for part in parts:
        expect(view.root).to_contain_text(part)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(parts[0])))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_view(page):
    expect_words(find_view(page), "ROUGE-L: 3 words in order in both", "F1 0.75")


def test_a_score_is_chosen_with_tab_and_space(page):
    view = fresh_view(page)
    before = expect_words(view, "ROUGE-L: 3 words in order")
    view.tab_to(view.button("ROUGE-S"))
    page.keyboard.press("Space")
    assert expect_words(view, "ROUGE-S: 3 skip-bigrams in both", "F1 0.50") != before


def test_a_button_fills_both_boxes(page):
    view = fresh_view(page)
    before = expect_words(view, "ROUGE-L: 3 words in order")
    view.button("order").click()
    expect(view.box("reference")).to_have_value("on the mat sat the cat")
    expect(view.box("hypothesis")).to_have_value("the cat sat on the mat")
    view.button("METEOR").click()
    assert expect_words(view, "METEOR: 3 chunks in both (the cat, sat, on the mat)") != before


def test_chinese_is_compared_by_characters(page):
    view = fresh_view(page)
    view.button("中文").click()
    expect_words(view, "ROUGE-L: 5 words in order in both (今, 天, 天, 气, 好)")


def test_a_sentence_of_ones_own(page):
    view = fresh_view(page)
    box = view.box("hypothesis")
    box.fill("police killed the gunman")
    box.press("Enter")
    expect_words(view, "ROUGE-L: 4 words in order", "F1 1.00")
    box.fill("")
    box.press("Enter")
    expect(view.root).to_contain_text("without words: write some")
    box.fill("the gunman")
    box.press("Enter")
    expect_words(view, "ROUGE-L: 2 words in order")


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch16")
