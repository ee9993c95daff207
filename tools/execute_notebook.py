"""Execute one notebook and make its outputs fit to be kept: the same on every machine, with nothing
private in them.

Used by `build_notebooks.py`. The kernel is offline, without a GPU and without the reader's settings
and progress file. Progress bars are dropped, streams are merged, widgets leave only the picture
beside them. What cannot be cleaned (a warning, a memory address, a path of this machine, a widget
without picture) is a `BuildError` that names the line.
"""

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

CELL_TIMEOUT = 900  # seconds
WIDGET = "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r"\d+%\|.*\| *[\d.]+\w*/|\d+it \[")  # what tqdm draws
BENIGN = re.compile(r"Matplotlib is building the font cache")  # once on a fresh machine, on stderr
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}")


def execute(
    notebook: NotebookNode,
    places: Sequence[str],
    lines: Sequence[int],
    folder: Path,
    *,
    strict: bool,
) -> None:
    """Run every cell of `notebook` in place, with `folder` as working directory.

    Cell i begins after line `lines[i]` of its chapter, and `places[i]` names it in errors. `strict`
    makes a failing exercise check an error. `BuildError` when a cell raises, hangs, kills the
    kernel, or leaves an output that cannot be kept; the errors of all cells' outputs are reported
    at once.
    """
    running = [0]
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        client = NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            store_widget_state=False,
            extra_arguments=["--log-level=ERROR"],
            on_cell_start=lambda cell, cell_index: running.__setitem__(0, cell_index),
        )
        try:
            client.execute(env=kernel_environment(Path(scratch), folder.parent, strict=strict))
        except CellExecutionError as error:
            found = re.search(r"Cell In\[\d+\], line (\d+)", strip_colors(error.traceback))
            line = lines[running[0]] + (int(found[1]) if found else 0)
            message = (
                f"{places[running[0]]}, line {line}: {error.ename}: {strip_colors(error.evalue)}"
            )
            raise BuildError(message) from error
        except CellTimeoutError as error:
            raise BuildError(
                f"{places[running[0]]}: still running after {CELL_TIMEOUT} s"
            ) from error
        except DeadKernelError as error:
            raise BuildError(
                f"{places[running[0]]}: the kernel died; the usual cause is too little memory"
            ) from error
    problems = []
    for cell, place in zip(notebook.cells, places, strict=True):
        if cell.cell_type == "code":
            cell.metadata.pop("execution", None)
            problems += [f"{place}: {problem}" for problem in clean_outputs(cell, folder.parent)]
    if problems:
        raise BuildError("\n".join(problems))


def kernel_environment(scratch: Path, root: Path, *, strict: bool) -> dict[str, str]:
    """The variables of the kernel: offline, on the CPU, and with none of the settings of who
    builds."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SFT_LAB_") and name != "MPLBACKEND"
    }
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONHASHSEED": "0",
        "IPYTHONDIR": str(scratch / "ipython"),
        "SFT_LAB_PROGRESS": str(scratch / "progress.json"),
        "SFT_LAB_STRICT": "1" if strict else "0",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def clean_outputs(cell: NotebookNode, root: Path) -> list[str]:
    """Clean the outputs of one executed cell in place; returns what stands in the way of keeping
    them."""
    problems, kept, lost_widget = [], [], False
    for output in cell.outputs:
        if output.output_type == "stream":
            output.text = drop_bars(output.text)
            if output.name == "stderr" and output.text.strip():
                problems.append(f"writes to stderr: {' '.join(output.text.split())[:300]}")
            elif output.name == "stdout" and kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
            elif output.name == "stdout" and output.text:
                kept.append(output)
            continue
        if output.output_type == "error":  # only in a cell tagged raises-exception
            output.traceback = [f"{output.ename}: {output.evalue}"]
        elif WIDGET in output.data:
            del output.data[WIDGET]
            if set(output.data) <= {"text/plain"}:
                lost_widget |= not BAR.search(output.data.get("text/plain", ""))
                continue
            output.data.pop("text/plain", None)  # the widget's repr
        kept.append(output)
    if lost_widget and not any(
        kind.startswith("image/") for output in kept for kind in output.get("data", {})
    ):
        problems.append(
            "shows a widget but leaves no picture for readers without a kernel: display one "
            "beside it"
        )
    text = "\n".join(visible_text(output) for output in kept)
    if ADDRESS.search(text):
        problems.append(
            "prints a memory address: end the cell with `_ = …`, or give the object a readable repr"
        )
    private = {
        str(root),
        str(Path.home()),
        sys.prefix,
        os.path.join(tempfile.gettempdir(), ""),
    } - {"/"}
    problems += [
        f"prints a path of this machine ({path})" for path in sorted(private) if path in text
    ]
    cell.outputs = kept
    return problems


def drop_bars(text: str) -> str:
    """Text as a terminal would leave it after its carriage returns, without progress bars and
    harmless notices."""
    lines = [line.removesuffix("\r").rsplit("\r", 1)[-1] for line in text.split("\n")]
    return "\n".join(line for line in lines if not BAR.search(line) and not BENIGN.search(line))


def visible_text(output: NotebookNode) -> str:
    """All that an output says in words."""
    data = output.get("data", {})
    words = [
        value for kind, value in data.items() if kind.startswith("text/") or kind == "image/svg+xml"
    ]
    return "\n".join([*words, output.get("text", ""), *output.get("traceback", [])])


def strip_colors(text: str) -> str:
    """Text without the escape sequences that colour it in a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class BuildError(Exception):
    """A chapter that cannot be built; the text begins with the place: file, line, cell."""
