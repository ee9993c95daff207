"""Chapter 05 in the browser: layer and rank move the picture of the update, its words, and the
parameters."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect

# What the words say at each rank comes from the run in the kernel; here: which numbers must be
# named, and which move.
QUERY = "q_proj, 128 × 128: {} of 128 singular values"


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter(5)


def expect_words(view, *parts: str) -> str:
    for part in parts:
        expect(view.root).to_contain_text(part)
    image = view.root.locator("img")
    expect(image).to_have_attribute("alt", re.compile(re.escape(parts[0])))
    return image.get_attribute("src")


def energy(view) -> int:
    return int(re.search(r"keep (\d+)%", view.root.inner_text())[1])


def test_running_all_cells_shows_the_view(page):
    expect_words(
        find_view(page), QUERY.format(4), "rank 4 learns 1,024 numbers, the full matrix has 16,384"
    )


def test_arrows_on_the_slider_change_the_rank_the_picture_and_the_energy(page):
    view = fresh_view(page)
    before, kept = expect_words(view, QUERY.format(4)), energy(view)
    view.tab_to(view.slider("rank"))
    for rank in (5, 6):
        page.keyboard.press("ArrowRight")
        after = expect_words(view, QUERY.format(rank), f"learns {256 * rank:,} numbers")
    assert after != before and energy(view) > kept
    page.keyboard.press("End")
    expect_words(
        view, QUERY.format(128), "keep 100%", "32,768 numbers, the full matrix has 16,384: 200%"
    )


def test_another_layer_is_chosen_with_tab_and_space_and_limits_the_rank(page):
    view = fresh_view(page)
    view.tab_to(view.slider("rank"))
    page.keyboard.press("End")
    expect_words(view, QUERY.format(128))
    view.tab_to(view.button("k_proj"))
    page.keyboard.press("Space")
    expect_words(
        view, "k_proj, 64 × 128: 64 of 64 singular values", "the full matrix has 8,192: 150%"
    )
    view.button("down_proj").click()
    expect_words(view, "down_proj, 128 × 384: 64 of 128 singular values")


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch05")
