"""The built notebooks are what the chapters build. Nothing is executed here; nbmake does that."""

from pathlib import Path

import build_notebooks
import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("[0-9][0-9]*_*.py"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_built_notebooks_are_what_the_chapter_builds(chapter):
    assert build_notebooks.find_differences(chapter) == []


def test_every_built_notebook_has_a_chapter():
    assert build_notebooks.find_orphans(ROOT) == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_what_is_folded_before_the_guess_shows_nothing(chapter):
    notebook = build_notebooks.read_notebook(ROOT / "notebooks" / f"{chapter.stem}.ipynb")
    open_below = [
        cell.source
        for cell in build_notebooks.code_cells(notebook)
        if "folded" in (tags := cell.metadata.get("tags", [])) and "predict" not in tags
        if cell.outputs
    ]
    # what an assert calls may print: compute it in the cell above
    assert open_below == []
