"""docs/coverage.md: every item that the course teaches has a place and a check, or a reason."""

from pathlib import Path

import build_coverage
import pytest
from build_coverage import Chapter, Item, find_problems, header_items, read_chapters, read_items

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = {"03": Chapter("03_x", "03 · X", {"1": "One guess"}, {"3.1"}, ["A1"])}
WHOLE = Item("A1", "what", ["03 §1"], ["3.1"], "")


def test_the_page_is_built_from_the_table_and_the_headers(capsys):
    assert build_coverage.main(["--check"]) == 0, capsys.readouterr().err


def test_the_table_has_every_item_of_the_course_once():
    ids = [item.id for item in read_items(ROOT / "docs" / "items.csv")]
    counts = {"A": 10, "B": 13, "C": 9, "D": 20, "L": 32}
    assert ids == [f"{letter}{n}" for letter, most in counts.items() for n in range(1, most + 1)]


def test_a_whole_table_has_no_problem():
    assert find_problems([WHOLE], CHAPTERS, ROOT) == []


@pytest.mark.parametrize(
    "item, words",
    [
        (WHOLE._replace(checks=[]), "neither a place with a check, nor a reason"),
        (WHOLE._replace(places=[]), "neither a place with a check, nor a reason"),
        (WHOLE._replace(places=["03 §1", "04 §1"]), "there is no chapter 04"),
        (WHOLE._replace(places=["03 §9"]), "chapter 03 has no section 9"),
        (WHOLE._replace(places=["03 §1", "make nothing"]), "no such target"),
        (WHOLE._replace(checks=["3.7"]), "there is no exercise 3.7"),
        (WHOLE._replace(checks=["tests/test_nothing.py"]), "there is no tests/test_nothing.py"),
        (WHOLE._replace(id="A2"), "chapter 03 names A1, which is no item"),
        (WHOLE._replace(places=["every chapter"]), "gives it no place there"),
    ],
)
def test_what_is_wrong_is_named(item, words):
    assert any(words in problem for problem in find_problems([item], CHAPTERS, ROOT))


def test_a_place_in_a_chapter_whose_header_is_silent_is_named():
    silent = {"03": CHAPTERS["03"]._replace(items=[])}
    [problem] = find_problems([WHOLE], silent, ROOT)
    assert problem.endswith("whose header does not name it")


def test_what_is_open_with_a_reason_needs_no_check():
    item = WHOLE._replace(places=[], checks=[], open="no card was at hand")
    assert find_problems([item], {"03": CHAPTERS["03"]._replace(items=[])}, ROOT) == []


def test_every_header_names_items():
    assert all(chapter.items for chapter in read_chapters(ROOT).values())
    assert header_items("# nothing") == []
