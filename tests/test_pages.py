"""The HTML pages of the package: one frame for all, and what is alike stands there alone."""

import re
from itertools import combinations
from pathlib import Path

import pytest

import sft_lab
from sft_lab.pages import FRAME, fill_page

FOLDER = Path(sft_lab.__file__).parent
OWN = sorted(path.name for path in FOLDER.glob("*.html") if path.name != FRAME)
NAME = re.compile(r"\$(\w+)")


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def rules(style: str, around: str = "") -> set[str]:
    """Every rule of a style as "selector { declaration }", one for each selector and declaration;
    those of a media query with the query before them."""
    found = set()
    for selector, body, inner in re.findall(
        r"([^{}]+)\{(?:([^{}]*)|((?:[^{}]*\{[^{}]*\})+)\s*)\}", style
    ):
        if inner:
            found |= rules(inner, selector.strip() + " ")
        for one in selector.split(","):
            for declaration in filter(str.strip, body.split(";")):
                found.add(f"{around}{one.strip()} {{ {' '.join(declaration.split())} }}")
    return found


def style_of(name: str) -> str:
    return re.search(r"<style>(.*)</style>", read(name), re.DOTALL)[1]


def test_the_rules_of_a_style_are_read():
    style = "a, b { c: d; e: f }\n@media print { a { c: d; } }"
    alone = {f"{selector} {{ {what} }}" for selector in "ab" for what in ("c: d", "e: f")}
    assert rules(style) == alone | {"@media print a { c: d }"}
    assert len(OWN) >= 2 and all(len(rules(style_of(name))) > 20 for name in (*OWN, FRAME))


@pytest.mark.parametrize(("one", "other"), [*combinations([*OWN, FRAME], 2)])
def test_no_rule_and_no_line_of_a_head_stands_in_two_templates(one, other):
    assert rules(style_of(one)) & rules(style_of(other)) == set()
    heads = [set(re.findall(r"<(?:meta|html|!doctype|body)[^>]*>", read(n))) for n in (one, other)]
    assert heads[0] & heads[1] == set()


@pytest.mark.parametrize("name", OWN)
def test_a_filled_page_is_whole_and_what_is_filled_in_is_not_filled_in_again(name):
    values = {value: f"<i>{value} $main $5\n</i>" for value in NAME.findall(read(name))}
    page = fill_page(name, values)
    for tag in ("html", "head", "title", "body", "main"):
        assert page.count(f"<{tag}>") + page.count(f"<{tag} ") == page.count(f"</{tag}>") == 1
    head, _, body = page.partition("<body>")
    assert "default-src 'none'; style-src 'unsafe-inline'" in head and "<title>" in head
    styles = [rules(style) for style in re.findall(r"<style>(.*?)</style>", head, re.DOTALL)]
    assert styles == [rules(style_of(FRAME)), rules(style_of(name))]
    assert all(text in page for text in values.values())
    assert body.count("<h1>") == 1 and "$finding" not in page


def test_a_name_without_a_value_is_an_error():
    with pytest.raises(KeyError):
        fill_page(OWN[0], {})
