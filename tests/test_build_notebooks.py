"""The builder, on a small chapter of its own: what goes where, what is kept, what is refused."""

import base64
import io
import json
import shutil
from pathlib import Path

import build_notebooks
import nbformat
import numpy as np
import pytest
from build_notebooks import BLANK, blank_first_lines, shrink_pictures, to_notebook
from chapter_source import RELIED_ON, TELLS, BuildError, Cell, assemble, part_asserts
from PIL import Image

SLUG = "97_demo"
CHAPTER = '''\
# %% [markdown]
# # 97 · Doubling
#
# Can a number be doubled?

# %% tags=["setup"]
import os
import sys

from tqdm import tqdm

from sft_lab.course.checks import check
from sft_lab.course.exercises.kit import checks, same


@checks("97.1")
def _double(attempt):
    same(attempt(3), 6, [(9, "you squared it")])
    return "3 becomes 6"

# %% [markdown]
# Prose.

# %% tags=["predict"]
for _ in tqdm(range(3), disable=False):
    print("one")
print("two")
# fast enough
assert 1 + 1 == 2
for n in (1, 2):
    assert n < 3

# %%
import ipywidgets
import matplotlib.pyplot as plt

display(ipywidgets.IntSlider())
_ = plt.plot([1, 2])

# %% [markdown] tags=["exercise"]
# ### Exercise 97.1 · Double it · 2 min · ●○○
# Twice a number.

# %% tags=["stub"]
def double(x: float) -> float:
    """Return 2 x."""
    raise NotImplementedError

# %% tags=["solution"]
def double(x: float) -> float:
    """Return 2 x."""
    return 2 * x

# %% tags=["check"]
check("97.1", double)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>x + x</details>

# %% [markdown] tags=["explanation"]
# Because.

# %%
print("end")
'''
LIGHT = (
    CHAPTER[: CHAPTER.index("# %%\nimport ipywidgets")]
    + CHAPTER[CHAPTER.index("# %% [markdown] tags=") :]
)


def write_course(root: Path, chapter: str = CHAPTER) -> Path:
    """A course of one chapter in `root`; returns the chapter's path."""
    (root / "chapters").mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").write_text(
        '[project.urls]\nRepository = "https://github.com/someone/course"\n'
    )
    path = root / "chapters" / f"{SLUG}.py"
    path.write_text(chapter, encoding="utf-8")
    return path


def read(path: Path, edition: str) -> nbformat.NotebookNode:
    notebook = nbformat.read(path.parents[1] / edition / f"{path.stem}.ipynb", as_version=4)
    nbformat.validate(notebook)
    return notebook


def output_text(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(
        o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    path = write_course(tmp_path_factory.mktemp("built"))
    build_notebooks.build(path)
    return path


@pytest.fixture
def course(built, tmp_path) -> Path:
    """A fresh copy of the built course, to change."""
    shutil.copytree(built.parents[1], tmp_path, dirs_exist_ok=True)
    return tmp_path / "chapters" / built.name


@pytest.fixture
def no_execution(monkeypatch):
    monkeypatch.setattr(
        build_notebooks, "execute", lambda *_, **__: pytest.fail("a notebook was executed")
    )


def test_the_reader_gets_the_stub_and_no_solution(built):
    notebook = read(built, "notebooks")
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    assert tags == [
        *("setup", "bootstrap", "setup", "predict", "folded"),
        *("exercise", "stub", "check", "hint"),
    ]
    assert "97.1 not attempted yet" in output_text(notebook)
    assert "2 * x" not in json.dumps(notebook)


def test_the_solutions_hold_title_setup_and_each_exercise_solved(built):
    notebook = read(built, "solutions")
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    assert tags == ["setup", "bootstrap", "setup", "exercise", "solution", "check", "explanation"]
    assert output_text(notebook) == "97.1 ✓ 3 becomes 6\n"


def test_streams_are_merged_and_progress_bars_and_widgets_are_gone_but_the_picture_stays(built):
    code = build_notebooks.code_cells(read(built, "notebooks"))
    assert [(o.output_type, o.text) for o in code[2].outputs] == [
        ("stream", BLANK),
        ("stream", "one\none\none\ntwo\n"),
    ]
    assert ["image/png" in output.data for output in code[4].outputs] == [True]


def test_a_picture_gets_a_palette_once_and_looks_the_same():
    shades = np.linspace(0, 255, 40 * 60 * 3).astype(np.uint8).reshape(40, 60, 3)
    buffer = io.BytesIO()
    Image.fromarray(shades).save(buffer, "PNG")
    data = {"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": "a figure"}
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data=data)])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    shrink_pictures(notebook)
    once = notebook.cells[0].outputs[0].data["image/png"]
    small = Image.open(io.BytesIO(base64.b64decode(once)))
    assert small.mode == "P" and small.size == (60, 40)
    assert np.abs(np.asarray(small.convert("RGB")).astype(int) - shades).max() <= 4
    shrink_pictures(notebook)
    assert notebook.cells[0].outputs[0].data["image/png"] == once


def test_the_output_of_a_predict_cell_is_there_and_folded(built):
    _, _, predicted, _, shown, *_ = build_notebooks.code_cells(read(built, "notebooks"))
    assert predicted.outputs and predicted.metadata.jupyter == {"outputs_hidden": True}
    assert predicted.metadata.collapsed
    assert shown.outputs and "jupyter" not in shown.metadata


@pytest.mark.parametrize(
    ("data", "blank"),
    [
        ({"text/plain": "0.5"}, True),
        ({"text/plain": "<HTML>", "text/html": "<b>rises</b>"}, True),
        ({"text/plain": "<Figure>", "image/png": ""}, False),
    ],
)
def test_the_line_that_stands_for_a_folded_output_tells_nothing(data, blank):
    shown = nbformat.v4.new_output("display_data", data=data)
    cells = [nbformat.v4.new_code_cell(outputs=[shown]) for _ in range(2)]
    cells[0].metadata["jupyter"] = {"outputs_hidden": True}
    notebook = nbformat.v4.new_notebook(cells=cells)
    for _ in range(2):  # once is enough
        blank_first_lines(notebook)
    assert [o.get("text") for o in cells[0].outputs] == [BLANK, None][1 - blank :]
    assert cells[1].outputs == [shown]


def test_a_cell_may_be_folded_as_a_whole():
    [cell] = to_notebook([Cell("code", "1", ("predict", "folded"), 1)]).cells
    assert cell.metadata.jupyter == {"source_hidden": True, "outputs_hidden": True}


def test_asserts_that_would_tell_the_answer_stand_in_a_folded_cell_of_their_own(built):
    _, _, predicted, asserted, *_ = build_notebooks.code_cells(read(built, "notebooks"))
    assert predicted.source.endswith('print("two")')
    assert asserted.metadata.jupyter == {"source_hidden": True}
    assert asserted.metadata.cellView == "form"  # the same for Colab
    assert asserted.source.splitlines() == [
        RELIED_ON,
        "# fast enough",
        "assert 1 + 1 == 2",
        "for n in (1, 2):",
        "    assert n < 3",
    ]


@pytest.mark.parametrize(
    ("tags", "source"),
    [
        ((), "x = 1\nassert x"),
        (("predict",), "assert True"),
        (("predict",), "x = 1\nif x:\n    assert x\nelse:\n    print(x)"),
        (("folded",), f"{RELIED_ON}\nassert True"),
        (("predict",), "assert True\nx = 1"),
        (("predict",), "for x in (1, 2):\n    print(x)\n    assert x"),
    ],
)
def test_a_cell_without_asserts_to_part_stays_whole(tags, source):
    cell = Cell("code", source, tags, 7)
    assert part_asserts(cell, Path("97_doubling.py")) == [cell]


def test_the_line_that_stands_for_a_folded_source_tells_nothing():
    cell = Cell("code", 'draw("It rises")', ("predict", "folded"), 7)
    [folded] = part_asserts(cell, Path("97_doubling.py"))
    assert folded.source.splitlines() == [TELLS, 'draw("It rises")']
    assert folded.line + 2 == 7 + 1  # its second line is the first one in the file


def test_the_line_of_an_assert_is_that_of_the_chapter():
    source = "x = 1\ny = 2\n\nassert x < y"
    shown, asserted = part_asserts(Cell("code", source, ("predict",), 10), Path("97_doubling.py"))
    assert shown.source == "x = 1\ny = 2"
    # line k of a cell's source stands in line `cell.line` + k of the file
    line = asserted.source.splitlines().index("assert x < y") + 1
    assert asserted.line + line == 10 + 4


def test_a_predict_cell_that_is_no_python_is_named():
    with pytest.raises(BuildError, match=r"97_doubling.py:7: .*x ="):
        part_asserts(Cell("code", "x =", ("predict",), 7), Path("97_doubling.py"))


def test_the_title_has_a_badge_for_its_own_edition(built):
    for edition in build_notebooks.EDITIONS:
        title = read(built, edition).cells[0].source
        assert title.startswith("# 97 · Doubling")
        assert (
            f"https://colab.research.google.com/github/someone/course/blob/main/{edition}/{SLUG}.ipynb"
            in title
        )


def test_building_again_elsewhere_gives_the_same_bytes(built, tmp_path):
    again = write_course(tmp_path)
    build_notebooks.build(again)
    for edition in build_notebooks.EDITIONS:
        first, second = (root.parents[1] / edition / f"{SLUG}.ipynb" for root in (built, again))
        assert first.read_bytes() == second.read_bytes()


def test_a_built_chapter_has_no_differences(built, no_execution):
    assert build_notebooks.find_differences(built) == []


def test_a_change_of_prose_is_found_and_built_without_execution(course, no_execution):
    before = output_text(read(course, "notebooks"))
    course.write_text(CHAPTER.replace("# Prose.", "# Better prose."), encoding="utf-8")
    assert "cell 4 is not what" in build_notebooks.find_differences(course)[0]
    build_notebooks.build(course)
    assert build_notebooks.find_differences(course) == []
    assert output_text(read(course, "notebooks")) == before


def test_a_new_address_of_the_repository_is_no_difference_and_built_without_execution(
    course, no_execution
):
    (course.parents[1] / "pyproject.toml").write_text(
        '[project.urls]\nRepository = "https://github.com/else/where"\n'
    )
    assert build_notebooks.find_differences(course) == []
    build_notebooks.build(course)
    assert "github/else/where" in read(course, "notebooks").cells[0].source
    assert build_notebooks.find_differences(course) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("github/someone/course", "github/other/course"),  # the badge alone: two addresses
        ("github.com/someone/course /content", "10.0.0.1/someone/course /content"),
        ("git clone -q", "curl -q"),
    ],
)
def test_a_notebook_with_two_addresses_or_none_that_others_can_reach_is_a_difference(
    course, old, new
):
    target = course.parents[1] / "notebooks" / f"{SLUG}.ipynb"
    text = target.read_text("utf-8")
    assert old in text
    target.write_text(text.replace(old, new), encoding="utf-8")
    assert len(build_notebooks.find_differences(course)) == 1


def test_an_edited_output_is_found_and_executed_again(course, monkeypatch):
    target = course.parents[1] / "notebooks" / f"{SLUG}.ipynb"
    target.write_text(target.read_text("utf-8").replace('"two\\n"', '"too\\n"'), encoding="utf-8")
    assert "outputs or metadata" in build_notebooks.find_differences(course)[0]
    executed = []
    monkeypatch.setattr(
        build_notebooks, "execute", lambda *args, **kwargs: executed.append(args[3].name)
    )
    build_notebooks.build(course)
    assert executed == ["notebooks"]


def test_an_edited_cell_a_missing_notebook_and_an_orphan_are_found(course):
    root = course.parents[1]
    target = root / "notebooks" / f"{SLUG}.ipynb"
    target.write_text(target.read_text("utf-8").replace("Prose.", "Edited."), encoding="utf-8")
    (root / "solutions" / f"{SLUG}.ipynb").rename(root / "solutions" / "96_gone.ipynb")
    edited, missing = build_notebooks.find_differences(course)
    assert "cell 4" in edited
    assert "missing" in missing
    assert "96_gone" in build_notebooks.find_orphans(root)[0]


def test_an_error_names_chapter_cell_and_line_and_leaves_the_old_notebooks(course):
    root = course.parents[1]
    before = {
        edition: (root / edition / f"{SLUG}.ipynb").read_bytes()
        for edition in build_notebooks.EDITIONS
    }
    broken = LIGHT.replace('print("end")', 'print("end")\nundefined_name')
    course.write_text(broken, encoding="utf-8")
    line = broken.splitlines().index("undefined_name") + 1
    with pytest.raises(
        BuildError,
        match=rf"chapters/{SLUG}.py:{line - 2}, cell 11 of notebooks, line {line}: NameError",
    ):
        build_notebooks.build(course)
    assert {
        edition: (root / edition / f"{SLUG}.ipynb").read_bytes() for edition in before
    } == before


def test_a_solution_that_its_check_refuses_stops_the_build(course):
    course.write_text(LIGHT.replace("return 2 * x", "return x * x"), encoding="utf-8")
    with pytest.raises(BuildError, match=r"of solutions, line \d+: Mistake: 97.1 ✗ you squared it"):
        build_notebooks.build(course)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# # 97", "# 97", "begin with the title"),
        ('["hint"]', '["hnt"]', "unknown tag"),
        ("Exercise 97.1 ·", "Exercise 96.1 ·", "is not of 97"),
        ("· 2 min ·", "· two minutes ·", "expected '### Exercise 1.2"),
        ('[markdown] tags=["explanation"]', "[markdown]", "its cells must be"),
        ('tags=["solution"]\ndef double', 'tags=["solution"]\ndef triple', "does not define"),
        ('tags=["solution"]\ndef double', 'tags=["solution"]\ndef def', "invalid syntax"),
        ('check("97.1", double)', "check", r'must call check\("97.1"'),
        (
            '# %%\nprint("end")',
            '# %% tags=["check"]\nprint("end")',
            "its cells must be|outside an exercise",
        ),
    ],
)
def test_a_malformed_chapter_is_refused_with_its_place(tmp_path, old, new, message):
    assert old in CHAPTER
    with pytest.raises(BuildError, match=rf"^chapters/{SLUG}.py:\d+: .*({message})"):
        assemble(write_course(tmp_path, CHAPTER.replace(old, new)))
