"""Build docs/coverage.md from docs/items.csv and the headers of the chapters: where each item that
the course teaches is explained, run and checked, and what is open.

    python tools/build_coverage.py           write docs/coverage.md
    python tools/build_coverage.py --check   say what is wrong, and write nothing
"""

import argparse
import csv
import re
import sys
from pathlib import Path
from typing import NamedTuple

from sft_lab.files import write_text

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path("docs") / "coverage.md"
EVERYWHERE = "every chapter"
ITEM = re.compile(r"\b[A-Z]\d+\b")
KINDS = {
    "A": "What SFT is",
    "B": "Training it, by hand and with tools",
    "C": "Loss, data and templates",
    "D": "The work around it: forgetting, repetition, hallucination, evaluation",
    "L": "What learners ask for",
}


class Item(NamedTuple):
    """A row of docs/items.csv. places: "03 §2", "19", "make book"; checks: "3.4", "tests/…"."""

    id: str
    item: str
    places: list[str]
    checks: list[str]
    open: str  # what is not done, and why; "" for nothing


class Chapter(NamedTuple):
    """What the page says of a chapter: its file's stem, title, sections by number, exercises, and
    the items its header names."""

    stem: str
    title: str
    sections: dict[str, str]
    exercises: set[str]
    items: list[str]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    items, chapters = read_items(ROOT / "docs" / "items.csv"), read_chapters(ROOT)
    problems = find_problems(items, chapters, ROOT)
    page = build_page(items, chapters)
    if options.check and (ROOT / PAGE).read_text(encoding="utf-8") != page:
        problems.append(f"{PAGE} is not what it is built from; run: python tools/build_coverage.py")
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    if not options.check:
        write_text(ROOT / PAGE, page)
    return 0


def read_items(path: Path) -> list[Item]:
    """The table of all items; places and checks are separated by commas."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [
            Item(row["id"], row["item"], *map(split, (row["places"], row["checks"])), row["open"])
            for row in csv.DictReader(lines)
        ]


def split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def read_chapters(root: Path) -> dict[str, Chapter]:
    """Every chapter by its number, from its source."""
    chapters = {}
    for path in sorted((root / "chapters").glob("[0-9]*.py")):
        text = path.read_text(encoding="utf-8")
        title = re.search(r"^# # (.+)$", text, flags=re.MULTILINE)[1]
        sections = dict(re.findall(r"^# ## (\d+) · (.+)$", text, flags=re.MULTILINE))
        exercises = set(re.findall(r"^# ### Exercise ([\w.]+)", text, flags=re.MULTILINE))
        number = path.stem.split("_")[0]
        chapters[number] = Chapter(path.stem, title, sections, exercises, header_items(text))
    return chapters


def header_items(text: str) -> list[str]:
    """The items that a chapter's header names, in the last cell of its first table."""
    row = re.search(r"^# \| needs .*\n# \|[-| ]+\n# (\|.+\|)$", text, flags=re.MULTILINE)
    return ITEM.findall(row[1].split("|")[-2]) if row else []


def find_problems(items: list[Item], chapters: dict[str, Chapter], root: Path) -> list[str]:
    """What is wrong with the table, a line each; [] for nothing."""
    problems = []
    for item in items:
        if not (item.places and item.checks) and not item.open:
            problems.append(f"{item.id}: neither a place with a check, nor a reason why it is open")
        problems += [
            f"{item.id}: {why}"
            for why in map(lambda p: wrong_place(p, chapters, root), item.places)
            if why
        ]
        problems += [
            f"{item.id}: {why}"
            for why in map(lambda c: wrong_check(c, chapters, root), item.checks)
            if why
        ]
    known = {item.id for item in items}
    for number, chapter in chapters.items():
        placed = {item.id for item in items if number in chapters_of(item)}
        named = {*chapter.items}
        problems += [f"chapter {number} names {one}, which is no item" for one in named - known]
        problems += [
            f"chapter {number} names {one}; docs/items.csv gives it no place there"
            for one in sorted((named & known) - placed)
        ]
        problems += [
            f"docs/items.csv places {one} in chapter {number}, whose header does not name it"
            for one in sorted(placed - named)
        ]
    return problems


def chapters_of(item: Item) -> list[str]:
    """The numbers of the chapters in which an item has a place."""
    return [place.split(" ")[0] for place in item.places if re.match(r"\d", place)]


def wrong_place(place: str, chapters: dict[str, Chapter], root: Path) -> str:
    """What is wrong with a place, "" for nothing."""
    if place == EVERYWHERE:
        return ""
    if place.startswith("make "):
        targets = re.findall(r"^([\w-]+):", (root / "Makefile").read_text(), flags=re.MULTILINE)
        return "" if place.removeprefix("make ") in targets else f"{place}: no such target"
    number, _, section = place.partition(" §")
    if number not in chapters:
        return f"there is no chapter {number}"
    if section and section not in chapters[number].sections:
        return f"chapter {number} has no section {section}"
    return ""


def wrong_check(check: str, chapters: dict[str, Chapter], root: Path) -> str:
    """What is wrong with a check, "" for nothing."""
    if check.startswith("tests/"):
        return "" if (root / check).is_file() else f"there is no {check}"
    known = {number for chapter in chapters.values() for number in chapter.exercises}
    return "" if check in known else f"there is no exercise {check}"


def build_page(items: list[Item], chapters: dict[str, Chapter]) -> str:
    """The whole page."""
    left = [item for item in items if item.open]
    parts = [
        "# What the course covers, and what is open",
        "",
        "Built by `python tools/build_coverage.py` from `docs/items.csv` and the headers of the "
        "chapters. A place is where an item is explained and run; a check would fail if it were "
        "wrong: an exercise by its number, or a file of tests. A test fails when an item has "
        "neither a place nor a reason.",
        "",
        f"{len(items)} items: {len(items) - len(left)} done, {len(left)} done in part; what is "
        "open in them is named below.",
        "",
    ]
    for letter, title in KINDS.items():
        rows = [item for item in items if item.id[0] == letter]
        parts += [
            f"## {title}",
            "",
            "| | item | explained and run | checked by |",
            "|---|---|---|---|",
        ]
        parts += [
            f"| <a id='{item.id}'></a>{item.id} | {item.item} | "
            f"{' · '.join(show_place(place, chapters) for place in item.places)} | "
            f"{', '.join(map(show_check, item.checks))} |"
            for item in rows
        ]
        parts.append("")
    parts += ["## Open", "", "| | what is open, and why |", "|---|---|"]
    parts += [f"| {item.id} | {item.open} |" for item in left]
    parts += ["", "## Chapter by chapter", "", "| chapter | items |", "|---|---|"]
    parts += [
        f"| [{chapter.title}](../notebooks/{chapter.stem}.ipynb) | {' '.join(chapter.items)} |"
        for chapter in chapters.values()
    ]
    return "\n".join(parts) + "\n"


def show_place(place: str, chapters: dict[str, Chapter]) -> str:
    """A place as a link to its notebook, with the title of the section."""
    number, _, section = place.partition(" §")
    if number not in chapters:
        return f"`{place}`" if place.startswith("make ") else place
    chapter = chapters[number]
    title = f" *{chapter.sections[section]}*" if section in chapter.sections else ""
    return f"[{place}](../notebooks/{chapter.stem}.ipynb){title}"


def show_check(check: str) -> str:
    return f"`{check}`" if check.startswith("tests/") else check


if __name__ == "__main__":
    sys.exit(main())
