"""Chapter 07 in the browser: every button draws its run over the reference, and says how far they
lie apart."""

import re

import pytest
from notebook_page import find_view, fresh_view
from playwright.sync_api import expect

# what the chapter itself measured when its cells ran is not known here: names and verdicts are
SAME = ("sft_lab.train", "Trainer", "SFTTrainer", "8 × 1 accumulated", "padding-free")
OTHER = ("bf16", "linear schedule", "everything graded")


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter(7)


def test_running_all_cells_shows_the_first_rung(page):
    expect(find_view(page).root).to_contain_text("sft_lab.train: over 20 steps")


def test_each_button_draws_its_run_and_says_whether_it_is_the_same(page):
    view = fresh_view(page)
    seen = set()
    for names, verdict in ((SAME, "the same run"), (OTHER, "another run")):
        for name in names:
            view.tab_to(view.button(name))
            page.keyboard.press("Space")
            expect(view.root).to_contain_text(
                re.compile(rf"{re.escape(name)}: over \d+ steps .*{verdict}")
            )
            picture = view.root.locator("img")
            assert picture.get_attribute("alt").startswith(f"{name}: over")
            seen.add(picture.get_attribute("src"))
    assert len(seen) == len(SAME) + len(OTHER)


def test_the_view_is_sound_after_all_this(page):
    find_view(page).check("ch07")
