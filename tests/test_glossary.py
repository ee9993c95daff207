"""docs/glossary.md: every word is explained where its row says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
HEADER = ["| term | 中文 | what it means | chapter |", "|---|---|---|---|"]
LINK = re.compile(r"\[(\d\d[a-d]?)\]\(\.\./notebooks/(\1_\w+)\.ipynb\)")


def table_lines() -> list[str]:
    """The lines of the one table, its header included."""
    return [line for line in GLOSSARY.read_text("utf-8").splitlines() if line.startswith("|")]


def cells_of(line: str) -> list[str]:
    """The cells of a row; `\\|` is a character of a cell."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


ROWS = [cells_of(line) for line in table_lines()[2:]]
TERMS = [row[0] for row in ROWS]


def names_of(term: str) -> list[str]:
    """The names of a term: "top-k, top-p" has two; what stands in parentheses belongs to none."""
    return [name.strip() for name in re.sub(r"\s*\([^)]*\)", "", term).split(",")]


def prose_of(chapter: str) -> str:
    """The text of a chapter's markdown cells up to the Chinese summary, without emphasis."""
    source = (ROOT / "chapters" / f"{chapter}.py").read_text("utf-8")
    cells = [cell for cell in re.split(r"(?m)^# %%", source) if cell.startswith(" [markdown]")]
    text = "\n".join(cells).split("<summary>中文要点")[0]
    return " ".join(re.sub(r"(?m)^# ?", "", text).replace("*", "").split())


def occurs(name: str, text: str) -> bool:
    """Whether the name begins a word of the text, ignoring case: "merge" also finds "merged"."""
    return re.search(rf"(?<!\w){re.escape(name)}", text, re.IGNORECASE) is not None


def test_the_glossary_is_one_table_with_four_filled_cells_a_row():
    assert table_lines()[:2] == HEADER
    assert len(ROWS) > 100
    assert [row for row in ROWS if len(row) != 4 or not all(row)] == []


def test_no_name_has_two_rows():
    names = [name.casefold() for term in TERMS for name in names_of(term)]
    assert [name for name in names if names.count(name) > 1] == []


def test_rows_stand_in_alphabetical_order_ignoring_case():
    assert sorted(TERMS, key=str.casefold) == TERMS


def test_every_link_leads_to_the_notebook_that_it_names():
    links = [LINK.fullmatch(row[3]) for row in ROWS]
    assert [row for row, link in zip(ROWS, links, strict=True) if link is None] == []
    notebooks = {link[2] for link in links}
    assert {
        name for name in notebooks if not (ROOT / "notebooks" / f"{name}.ipynb").is_file()
    } == set()


@pytest.mark.parametrize("row", ROWS, ids=TERMS)
def test_a_term_occurs_in_the_chapter_to_which_it_links(row: list[str]):
    text = prose_of(LINK.fullmatch(row[3])[2])
    assert any(occurs(name, text) for name in names_of(row[0]))


def test_names_and_words_are_found_as_a_reader_would_find_them():
    assert names_of("top-k, top-p") == ["top-k", "top-p"]
    assert names_of("graded (here)") == ["graded"]
    assert occurs("merge", "A **Merged** model".replace("*", ""))
    assert not occurs("rank", "a frank word")
    assert cells_of(r"| a | `<\|x\|>` |") == ["a", r"`<\|x\|>`"]
