"""Chapter 11 in the browser: sliders mix a data set, and its scores follow."""

import pytest
from notebook_page import find_view, fresh_view

from sft_lab import plots
from sft_lab.course.results import read_results
from sft_lab.course.views.mix import describe_mix, draw_mix, mix_of


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter(11)


@pytest.fixture(scope="module")
def results():
    plots.style()
    return read_results("11_data_mix")


def expect(view, results, guess: int, *setting) -> None:
    mix = mix_of(*setting)
    view.expect_text(describe_mix(results, mix, guess))
    view.expect_picture(draw_mix(results, mix, guess))


def test_running_all_cells_shows_the_clean_data_set(page, results):
    expect(find_view(page), results, 50, 384, 0.0, 0.0, 4, 1)


def test_arrows_on_the_sliders_change_data_and_score(page, results):
    view = fresh_view(page)
    view.tab_to(view.slider("rows"))
    page.keyboard.press("ArrowLeft")
    expect(view, results, 50, 96, 0.0, 0.0, 4, 1)
    view.tab_to(view.slider("copies"))
    page.keyboard.press("ArrowRight")
    expect(view, results, 50, 96, 0.75, 0.0, 4, 1)
    view.tab_to(view.slider("wrong labels"))
    page.keyboard.press("End")
    expect(view, results, 50, 96, 0.75, 0.5, 4, 1)


def test_tasks_are_chosen_with_tab_and_space_and_the_guess_moves(page, results):
    view = fresh_view(page)
    view.tab_to(view.button("facts and sums"))
    page.keyboard.press("Space")
    expect(view, results, 50, 384, 0.0, 0.0, 4, 2)
    view.tab_to(view.slider("your guess, %"))
    page.keyboard.press("ArrowRight")
    expect(view, results, 55, 384, 0.0, 0.0, 4, 2)


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch11")
