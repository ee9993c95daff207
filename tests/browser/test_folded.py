"""JupyterLab shows a line in place of what is folded: it must not tell the answer."""

import nbformat
import pytest
from build_notebooks import blank_first_lines, to_notebook
from chapter_source import RELIED_ON, TELLS, Cell, part_asserts
from lab_server import ROOT, START
from playwright.sync_api import expect


@pytest.fixture
def page(lab, browser):
    predicted = Cell("code", "print(share)\nassert share > 0.5", ("predict",), 1)
    drawn = Cell("code", 'draw("It rises")', ("predict", "folded"), 4)
    cells = [part for cell in (predicted, drawn) for part in part_asserts(cell, ROOT)]
    notebook = to_notebook(cells)
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", name="stdout", text="0.75\n")]
    blank_first_lines(notebook)
    nbformat.write(notebook, lab.folder / "folded.ipynb")
    page = browser.new_page()
    page.goto(f"{lab.url}lab/tree/folded.ipynb?token={lab.token}&reset")
    yield page
    page.close()


def test_the_lines_that_stand_for_folded_parts_tell_nothing(page):
    shown = page.locator(".jp-Notebook .jp-PlaceholderText")
    # output, source of the asserts, source and (empty) output of the drawing
    expect(shown).to_have_text(["", RELIED_ON, TELLS, ""], timeout=START * 1000)
    page.locator(".jp-OutputPlaceholder").first.click()
    expect(page.get_by_text("0.75")).to_be_visible()
