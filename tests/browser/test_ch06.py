"""Chapter 06 in the browser: model, method and size move the costs and their words."""

import pytest
from notebook_page import find_view, fresh_view

from sft_lab import plots
from sft_lab.course.views.choice import describe_choice, draw_choice

QWEN, LARGE = "Qwen3-0.6B", "Qwen3-8B"


@pytest.fixture(scope="module")
def page(open_chapter):
    plots.style()
    return open_chapter(6)


def expect_choice(view, *chosen) -> None:
    view.expect_text(describe_choice(*chosen))
    view.expect_picture(draw_choice(*chosen))


def test_running_all_cells_shows_the_view(page):
    expect_choice(find_view(page), QWEN, "LoRA", 16)


def test_an_arrow_on_the_slider_doubles_the_size(page):
    view = fresh_view(page)
    view.tab_to(view.slider("size"))
    page.keyboard.press("ArrowRight")
    expect_choice(view, QWEN, "LoRA", 32)
    page.keyboard.press("ArrowRight")
    expect_choice(view, QWEN, "LoRA", 64)


def test_method_and_model_are_chosen_with_tab_and_space(page):
    view = fresh_view(page)
    view.tab_to(view.button("prefix"))
    page.keyboard.press("Space")
    expect_choice(view, QWEN, "prefix", 16)
    view.button("Qwen3-8B").click()
    expect_choice(view, LARGE, "prefix", 16)


def test_controls_pressed_one_right_after_the_other_end_in_a_whole_picture(page):
    view = fresh_view(page)
    for method in ("prefix", "full", "prompt", "prefix"):
        view.button("Qwen3-4B").click()
        view.button(method).click()
        view.button("Qwen3-8B").click()
    expect_choice(view, LARGE, "prefix", 16)


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch06")
