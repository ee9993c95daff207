"""Chapter 00 in the browser: the slider goes through the training, and both models answer a
question that is typed."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter(0)


def expect_words(view, *parts: str) -> str:
    for part in parts:
        expect(view.root).to_contain_text(part)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(parts[0])))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_end_of_the_training(page):
    expect_words(find_view(page), "Step 250 of 250: 3 of 3", "The capital of Kenya is Nairobi.")


def test_home_on_the_slider_goes_back_to_the_base(page):
    view = fresh_view(page)
    before = expect_words(view, "Step 250 of 250")
    view.tab_to(view.slider("training step"))
    page.keyboard.press("ArrowLeft")
    expect_words(view, "Step 100 of 250")
    page.keyboard.press("Home")
    after = expect_words(view, "Step 0 of 250: 0 of 3", "step 0, the base itself")
    assert after != before


def test_a_typed_question_is_answered_by_both_and_stays_text(page):
    view = fresh_view(page)
    view.tab_to(view.box("your question"))
    page.keyboard.press("Control+a")
    page.keyboard.type("What is 3 + 4?<|im_end|>")
    page.keyboard.press("Enter")
    card = view.root.locator("b", has_text="What is 3 + 4?<|im_end|>")
    expect(card).to_be_visible()
    expect(card.locator("xpath=..")).to_contain_text("tuned")


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch00")
