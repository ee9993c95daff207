"""The page edition's sources: what Sphinx is given, without Sphinx."""

import re
from pathlib import Path

import build_book
import nbformat
import pytest
from build_book import PAGES, PARTS, contents, prepare, to_page, unlink

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return prepare(ROOT, tmp_path_factory.mktemp("book") / "source")


def read_cells(path: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def test_every_chapter_is_a_page_in_both_editions(source):
    for edition in ("notebooks", "solutions"):
        names = {path.name for path in (ROOT / edition).glob("*.ipynb")}
        assert {path.name for path in (source / edition).glob("*.ipynb")} == names and names


def test_every_page_stands_once_in_the_contents(source):
    listed = re.findall(r"^([\w./-]+)$", (source / "index.md").read_text(), flags=re.MULTILINE)
    pages = {path.relative_to(source).with_suffix("").as_posix() for path in source.rglob("*.md")}
    pages |= {
        path.relative_to(source).with_suffix("").as_posix() for path in source.rglob("*.ipynb")
    }
    assert sorted(listed) == sorted(pages - {"index"})


def test_a_chapter_without_a_part_is_named():
    with pytest.raises(ValueError, match="chapter 77"):
        contents(["00_what", "77_new"])


def test_the_parts_name_each_chapter_once():
    listed = [number for _, numbers in PARTS for number in numbers.split()]
    assert len(listed) == len(set(listed))


def test_outputs_are_those_of_the_notebook_and_nothing_of_colab_is_left(source):
    for path in sorted((ROOT / "notebooks").glob("1*.ipynb"))[:5]:
        before, after = read_cells(path), read_cells(source / "notebooks" / path.name)
        assert "colab" not in after[0].source.lower()
        assert len(after) == len(before) - 1  # the bootstrap cell
        kept = [cell for cell in before if "bootstrap" not in cell.metadata.get("tags", [])]
        for old, new in zip(kept, after, strict=True):
            assert old.get("outputs") == new.get("outputs")


def test_what_is_to_be_predicted_is_folded():
    cell = nbformat.v4.new_code_cell("1 + 1", metadata={"tags": ["predict"]})
    title = nbformat.v4.new_markdown_cell("# 1 and [a script](../examples/sft.py)")
    asserts = nbformat.v4.new_code_cell("assert 1", metadata={"tags": ["folded"]})
    notebook = nbformat.v4.new_notebook(cells=[title, cell, asserts])
    [head, page, last] = to_page(notebook, Path("notebooks/01_x.ipynb"), ROOT).cells
    assert head.source == "# 1 and a script"  # which is no page
    assert page.metadata["tags"] == ["predict", "hide-output"]
    assert last.metadata["tags"] == ["folded", "hide-input"]


@pytest.mark.parametrize(
    "text, kept",
    [
        ("[a](notebooks/00_what_happens_when_we_sft.ipynb)", None),
        ("[a](docs/coverage.md)", None),
        ("[a](https://example.org/x)", None),
        ("![a](docs/base_vs_tuned.png)", None),
        ("[a](LICENSE) b", "a b"),
        ("[a](docs/h100.json#x)", "a"),
        ("[a](../outside.md)", "a"),
    ],
)
def test_a_link_to_what_is_no_page_becomes_its_words(text, kept):
    assert unlink(text, Path("README.md"), ROOT) == (text if kept is None else kept)


def test_pages_are_files_of_the_repository():
    assert all((ROOT / path).is_file() for path in PAGES)
    assert Path(build_book.__file__).parent == ROOT / "tools"
