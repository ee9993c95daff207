"""Build the notebooks from the chapters: `python tools/build_notebooks.py [NN ...] [--check]
[--force]`.

chapters/NN_slug.py (percent format, the only place where a chapter is edited) becomes
- notebooks/NN_slug.ipynb: the reader's edition, with exercises as stubs, executed, outputs kept;
- solutions/NN_slug.ipynb: title, set-up, and each exercise with its solution, check and
  explanation, executed strictly (a check that fails stops the build). A chapter without exercises
  has none.

A notebook is executed only when its code changed; a change of prose keeps the outputs, and a change
in `sft_lab` alone does not show here: `--force` executes anyway. What is built depends on nothing
but its source: cell ids come from the content, and an output with a memory address, a path of this
machine or a warning is an error that names the line. `--check` writes nothing and exits with 1 when
a built notebook is not what its source builds; the address of the repository, which a build takes
from the git remote, may be any, so that a fork's check passes.
"""

import argparse
import base64
import copy
import hashlib
import io
import json
import re
import sys
import time
from collections import Counter
from itertools import zip_longest
from pathlib import Path

import nbformat
from chapter_source import BuildError, Cell, assemble, hosted_address, name_chapter
from execute_notebook import execute
from PIL import Image

from sft_lab.files import write_text

ROOT = Path(__file__).resolve().parents[1]
COLOURS = 128  # of a picture: drawings need no more, and a third of the bytes is left
# raise it when this file begins to write something else: every notebook is then executed again
FORMAT = 1
EDITIONS = ("notebooks", "solutions")
BLANK = " \n"
# tag -> what of its cell stays folded: in JupyterLab's word, and in the metadata that Colab reads
FOLDED = {
    "bootstrap": ("source_hidden", {}),
    "folded": ("source_hidden", {"cellView": "form"}),
    "predict": ("outputs_hidden", {"collapsed": True}),
}
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}


def main(arguments: list[str] | None = None) -> int:
    """Build or check the chapters named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "chapters", nargs="*", metavar="NN", help="numbers of chapters, default: all"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing, exit with 1 when a notebook is out of date",
    )
    parser.add_argument(
        "--force", action="store_true", help="execute even when the code did not change"
    )
    options = parser.parse_args(arguments)
    sources = sorted((ROOT / "chapters").glob("[0-9][0-9]*_*.py"))
    numbers = {number.zfill(2) for number in options.chapters}
    if missing := numbers - {name_chapter(path) for path in sources}:
        parser.error(f"no chapter {', '.join(sorted(missing))} in {ROOT / 'chapters'}")
    failures = [] if numbers else find_orphans(ROOT)
    for path in sources:
        if numbers and name_chapter(path) not in numbers:
            continue
        try:
            if options.check:
                failures += find_differences(path)
            else:
                build(path, force=options.force)
        except BuildError as error:
            failures.append(str(error))
    print(
        "\n".join(failures) or "every notebook is what its chapter builds",
        file=sys.stderr if failures else sys.stdout,
    )
    return 1 if failures else 0


def build(path: Path, *, force: bool = False) -> None:
    """Build both editions of one chapter, and replace the old files only when both succeeded.
    `BuildError` else."""
    root, written = path.parents[1], []
    for edition, cells in assemble(path).items():
        target = root / edition / f"{path.stem}.ipynb"
        old, notebook = read_notebook(target), to_notebook(cells)
        if not force and old is not None and can_keep_outputs(old, notebook):
            for new_cell, old_cell in zip(code_cells(notebook), code_cells(old), strict=True):
                new_cell.update(outputs=old_cell.outputs, execution_count=old_cell.execution_count)
            report = "outputs kept"
        else:
            started = time.perf_counter()
            places = [
                f"chapters/{path.name}:{cell.line}, cell {n} of {edition}"
                for n, cell in enumerate(cells, 1)
            ]
            execute(
                notebook,
                places,
                [cell.line for cell in cells],
                root / edition,
                strict=edition == "solutions",
            )
            report = f"executed in {time.perf_counter() - started:.1f} s"
        shrink_pictures(notebook)
        blank_first_lines(notebook)
        notebook.metadata = {**copy.deepcopy(METADATA), "sft_lab": signature(notebook)}
        written.append((target, nbformat.writes(notebook) + "\n"))
        print(f"{edition}/{target.name}: {report}", flush=True)
    for target, text in written:
        write_text(target, text)


def shrink_pictures(notebook: nbformat.NotebookNode) -> None:
    """Give every picture among the outputs a palette of COLOURS; one that has a palette stays."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if encoded := output.get("data", {}).get("image/png"):
                picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
                if picture.mode != "P":
                    output.data["image/png"] = encode_small(picture)


def encode_small(picture: Image.Image) -> str:
    """A picture as a PNG with a palette, in base64."""
    small = picture.convert("RGB").quantize(
        COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def blank_first_lines(notebook: nbformat.NotebookNode) -> None:
    """Begin the folded text outputs with an empty-looking line: JupyterLab shows the first line
    that is not empty in place of a folded output, and that line would tell the answer."""
    for cell in code_cells(notebook):
        if not (cell.metadata.get("jupyter", {}).get("outputs_hidden") and cell.outputs):
            continue
        first = cell.outputs[0]
        if first.get("text", "").startswith(BLANK):
            continue
        data = first.get("data", {})
        if "text/html" in data or not any(kind.startswith("image/") for kind in data):
            cell.outputs.insert(0, nbformat.v4.new_output("stream", name="stdout", text=BLANK))


def find_differences(path: Path) -> list[str]:
    """What tells the built notebooks of a chapter from what the chapter builds; executes
    nothing."""
    differences = []
    for edition in EDITIONS:
        target = path.parents[1] / edition / f"{path.stem}.ipynb"
        place, old = f"{edition}/{target.name}", read_notebook(target)
        editions = assemble(path, None if old is None else address_in(old))
        if edition not in editions:
            differences += (
                [f"{place}: the chapter has no exercises; delete it"] if target.exists() else []
            )
            continue
        again = f"run: python tools/build_notebooks.py {name_chapter(path)}"
        if old is None:
            differences.append(f"{place}: missing or not a notebook; {again}")
            continue
        pairs = zip_longest(
            map(inputs, old.cells), map(inputs, to_notebook(editions[edition]).cells)
        )
        changed = [number for number, (is_, ought) in enumerate(pairs, 1) if is_ != ought]
        if changed:
            differences.append(
                f"{place}: cell {changed[0]} is not what chapters/{path.name} builds; {again}"
            )
        elif old.metadata != {**METADATA, "sft_lab": signature(old)}:
            differences.append(
                f"{place}: outputs or metadata were changed after the build; {again} --force"
            )
    return differences


def find_orphans(root: Path) -> list[str]:
    """Built notebooks that no chapter stands behind."""
    built = [
        path
        for edition in EDITIONS
        for path in sorted((root / edition).glob("[0-9][0-9]*_*.ipynb"))
    ]
    return [
        f"{path.parent.name}/{path.name}: no chapter of that name; delete it"
        for path in built
        if not (root / "chapters" / f"{path.stem}.py").exists()
    ]


def to_notebook(cells: list[Cell]) -> nbformat.NotebookNode:
    """Cells as a notebook. A cell's id is a hash of its content, counted where the same content
    stands twice."""
    notebook, seen = nbformat.v4.new_notebook(metadata=copy.deepcopy(METADATA)), Counter()
    for cell in cells:
        make = nbformat.v4.new_code_cell if cell.kind == "code" else nbformat.v4.new_markdown_cell
        digest = digest_of([cell.kind, cell.source])
        seen[digest] += 1
        metadata = {"tags": list(cell.tags)} if cell.tags else {}
        for hidden, colab in (FOLDED[tag] for tag in cell.tags if tag in FOLDED):
            metadata |= {"jupyter": {**metadata.get("jupyter", {}), hidden: True}, **colab}
        notebook.cells.append(make(cell.source, id=f"{digest}-{seen[digest]}", metadata=metadata))
    return notebook


def read_notebook(path: Path) -> nbformat.NotebookNode | None:
    """A notebook as it stands on the disk; None when there is none or it cannot be read as one."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError):
        return None


def address_in(notebook: nbformat.NotebookNode) -> str | None:
    """The address of the repository for which a notebook was built; None when it names none."""
    for cell in code_cells(notebook):
        if "bootstrap" in cell.metadata.get("tags", []):
            found = re.search(r"git clone -q --depth 1 (\S+) /content/", cell.source)
            return hosted_address(found[1]) if found else None
    return None


def can_keep_outputs(old: nbformat.NotebookNode, new: nbformat.NotebookNode) -> bool:
    """True when the outputs of `old` are untouched and come from the code of `new`."""
    return (
        old.metadata.get("sft_lab") == signature(old)
        and signature(old)["code"] == signature(new)["code"]
    )


def signature(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Hashes of a notebook's code (without the bootstrap cell, which never changes an output) and
    of its outputs."""
    own = [
        cell for cell in code_cells(notebook) if "bootstrap" not in cell.metadata.get("tags", [])
    ]
    code = [FORMAT, [[cell.source, cell.metadata.get("tags", [])] for cell in own]]
    outputs = [[cell.outputs, cell.execution_count] for cell in code_cells(notebook)]
    return {"code": digest_of(code), "outputs": digest_of(outputs)}


def inputs(cell: nbformat.NotebookNode) -> dict:
    """A cell without what executing it adds."""
    return {
        name: value for name, value in cell.items() if name not in ("outputs", "execution_count")
    }


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def digest_of(value: object) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
