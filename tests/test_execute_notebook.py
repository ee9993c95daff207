"""What an executed notebook keeps of its outputs, and what it refuses to keep."""

from pathlib import Path

import nbformat
import pytest
from execute_notebook import ADDRESS, WIDGET, clean_outputs, drop_bars, kernel_environment


def test_the_kernel_is_offline_and_knows_nothing_of_who_builds(monkeypatch, tmp_path):
    monkeypatch.setenv("SFT_LAB_MODEL", "mine")
    monkeypatch.setenv("SFT_LAB_PROGRESS", "/home/reader/progress.json")
    environment = kernel_environment(tmp_path / "scratch", tmp_path, strict=True)
    assert "SFT_LAB_MODEL" not in environment
    assert environment["SFT_LAB_PROGRESS"].startswith(str(tmp_path / "scratch"))
    assert (environment["HF_HUB_OFFLINE"], environment["SFT_LAB_STRICT"]) == ("1", "1")


def test_text_keeps_what_a_terminal_would_show():
    assert (
        drop_bars(
            "a\n 10%|█   | 1/9 [00:01<?, ?it/s]\r100%|████| 9/9 [00:09<?]\nb\r\nloss 1\rloss 2\n"
        )
        == "a\nb\nloss 2\n"
    )


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        (
            nbformat.v4.new_output("stream", name="stderr", text="UserWarning: no"),
            "writes to stderr: UserWarning",
        ),
        (
            nbformat.v4.new_output(
                "execute_result", data={"text/plain": "<Line2D at 0x7fba12345678>"}
            ),
            "memory address",
        ),
        (
            nbformat.v4.new_output("stream", name="stdout", text=str(Path.home() / "data")),
            "path of this machine",
        ),
        (
            nbformat.v4.new_output("display_data", data={WIDGET: {}, "text/plain": "IntSlider()"}),
            "leaves no picture",
        ),
    ],
)
def test_an_output_that_cannot_be_kept_is_named(tmp_path, output, problem):
    (found,) = clean_outputs(nbformat.v4.new_code_cell(outputs=[output]), tmp_path)
    assert problem in found


def test_a_widget_that_carries_its_own_picture_leaves_the_picture(tmp_path):
    output = nbformat.v4.new_output(
        "display_data", data={WIDGET: {}, "text/plain": "VBox()", "image/png": "AAAA"}
    )
    cell = nbformat.v4.new_code_cell(outputs=[output])
    assert clean_outputs(cell, tmp_path) == []
    assert cell.outputs[0].data == {"image/png": "AAAA"}


def test_an_address_is_told_from_a_number():
    assert ADDRESS.search("<function f at 0x7fba12345678>")
    assert not ADDRESS.search("token 0x0A is a line feed")
