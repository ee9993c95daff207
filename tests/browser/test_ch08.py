"""Chapter 08 in the browser: model, card, method, rows and tokens move the bars and the verdict."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect

from sft_lab.course.views.fit import describe_fit

START = ["Qwen3-0.6B", "T4", "lora", 8, 1024, False, "all"]  # what the chapter's cell shows first


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter(8)


def expect_setup(view, setup: list) -> str:
    """Words and alternative text are those of the plain function; returns the picture."""
    sentence = describe_fit(*setup)
    expect(view.root).to_contain_text(sentence)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(sentence[:60])))
    return image.get_attribute("src")


def test_running_all_cells_shows_the_view(page):
    expect_setup(find_view(page), START)


def test_buttons_are_pressed_with_space_and_change_the_verdict(page):
    view, setup = fresh_view(page), list(START)
    before = expect_setup(view, setup)
    for place, name, value in (
        (1, "RTX 4090", "RTX 4090"),
        (2, "QLoRA", "qlora"),
        (6, "graded positions", "graded"),
    ):
        view.tab_to(view.button(name))
        page.keyboard.press("Space")
        setup[place] = value
        after = expect_setup(view, setup)
        assert after != before
        before = after


def test_arrows_on_the_sliders_double_and_halve(page):
    view, setup = fresh_view(page), list(START)
    expect_setup(view, setup)
    view.tab_to(view.slider("rows"))
    page.keyboard.press("ArrowLeft")
    setup[3] = 4
    expect_setup(view, setup)
    page.keyboard.press("Home")
    setup[3] = 1
    expect_setup(view, setup)
    view.tab_to(view.slider("tokens a row"))
    page.keyboard.press("ArrowRight")
    setup[4] = 2048
    expect_setup(view, setup)


def test_a_larger_model_is_chosen_with_the_mouse(page):
    view, setup = fresh_view(page), list(START)
    view.button("Qwen2.5-7B").click()
    setup[0] = "Qwen2.5-7B"
    expect_setup(view, setup)


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch08")
