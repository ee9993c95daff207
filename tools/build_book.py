"""Build the page edition: the executed notebooks as a static site that works without network.

    python tools/build_book.py              build/book/html/index.html
    python tools/build_book.py --prepare    only the sources, in build/book/source

Sphinx and its theme live in .venv/book (`make book` makes it); nothing is run again. What a
notebook asks the reader to predict stays folded, the cell for Colab is left out, and the worked
solutions stand in a part of their own.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "build" / "book"
BADGE = re.compile(r"\n*\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)\n*")
LINK = re.compile(r"(?<!!)\[([^\]\[]*)\]\((?!https?:|#|mailto:)([^)\s]+)\)")  # [words](file)
# tag of a notebook's cell -> how the page shows it
SHOWN = {"setup": "hide-input", "folded": "hide-input", "predict": "hide-output"}
PARTS = [
    ("What happens when we fine-tune", "00 01 02 03 03b 04 04b"),
    ("Fewer weights, other tools, real machines", "05 06 07 07b 08 09 09b 10"),
    ("What you show, and what you grade", "11 11b 12"),
    ("What goes wrong in the model", "13 13b 14 14b 15 15b"),
    ("How you know", "16 16b 16c 16d"),
    ("Beyond imitation", "17 17b"),
    ("Debug and ship", "18 18b 18c 19 19b"),
]
# pages beside the chapters; they keep their places, so that links between them hold
PAGES = [
    "README.md",
    "README.zh-CN.md",
    "docs/instructors.md",
    "docs/coverage.md",
    "docs/glossary.md",
    "data/models/atlas-base/README.md",
    "data/atlas/README.md",
    "data/instructions/README.md",
    "configs/README.md",
    "CONTRIBUTING.md",
]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--prepare", action="store_true", help="write the sources, run no Sphinx")
    parser.add_argument("--sphinx", default=sys.executable, help="the Python that has Sphinx")
    options = parser.parse_args(arguments)
    source = prepare(ROOT, BOOK / "source")
    if options.prepare:
        print(f"Prepared: {source}")
        return 0
    html = BOOK / "html"
    shutil.rmtree(html, ignore_errors=True)
    done = subprocess.run(
        [options.sphinx, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going"]
        + ["-d", str(BOOK / "doctrees"), str(source), str(html)]
    )
    if done.returncode:
        print("Sphinx found something wrong: its lines are above", file=sys.stderr)
        return done.returncode
    print(f"{len([*html.rglob('*.html')])} pages: open {html / 'index.html'}")
    return 0


def prepare(root: Path, source: Path) -> Path:
    """Write what Sphinx reads into the folder `source`, which is emptied first; returns it."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "docs" / "book", source)
    chapters = [path.stem for path in sorted((root / "notebooks").glob("[0-9]*.ipynb"))]
    for edition in ("notebooks", "solutions"):
        (source / edition).mkdir()
        for name in chapters:
            notebook = nbformat.read(root / edition / f"{name}.ipynb", as_version=4)
            path = Path(edition, f"{name}.ipynb")
            nbformat.write(to_page(notebook, path, root), source / path)
    for path in PAGES:
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        text = (root / path).read_text(encoding="utf-8")
        (source / path).write_text(unlink(text, Path(path), root), encoding="utf-8")
    for picture in (root / "docs").glob("*.png"):
        shutil.copy(picture, source / "docs")
    index = source / "index.md"
    index.write_text(index.read_text(encoding="utf-8") + contents(chapters), encoding="utf-8")
    return source


def to_page(notebook: nbformat.NotebookNode, path: Path, root: Path) -> nbformat.NotebookNode:
    """The notebook as its page: no cell for Colab, predictions and set-up folded, no link to a file
    that is no page. path: of the notebook, from `root`."""
    cells = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "bootstrap" in tags:
            continue
        # another tool's names for the same: what is folded in JupyterLab is folded on the page
        kept = [*tags, *(SHOWN[tag] for tag in tags if tag in SHOWN)]
        cell.metadata = nbformat.NotebookNode(tags=kept) if kept else nbformat.NotebookNode()
        if cell.cell_type == "markdown":
            # rows of the page of items are no headings, and Sphinx knows headings alone
            text = re.sub(r"(docs/coverage\.md)#\w+", r"\1", cell.source)
            cell.source = unlink(BADGE.sub("\n\n", text), path, root)
        cells.append(cell)
    notebook.cells = cells
    return notebook


def unlink(text: str, path: Path, root: Path) -> str:
    """A page's Markdown in which a link to a file that is no page is its words alone; the others
    stay as they are. path: of the page, from `root`."""

    def keep(found: re.Match) -> str:
        target = (root / path.parent / found[2].partition("#")[0]).resolve()
        name = target.relative_to(root).as_posix() if target.is_relative_to(root) else ""
        chapter = name.startswith(("notebooks/", "solutions/")) and name.endswith(".ipynb")
        if chapter or name in PAGES or name.endswith(".png"):
            return found[0]
        return found[1]

    return LINK.sub(keep, text)


def contents(chapters: list[str]) -> str:
    """The tables of contents, as the end of the index page. Raises ValueError for a chapter that
    no part names: a new chapter needs a place in PARTS."""
    name_of = {chapter.split("_")[0]: chapter for chapter in chapters}
    listed = [number for _, numbers in PARTS for number in numbers.split()]
    if missing := [number for number in name_of if number not in listed]:
        raise ValueError(f"no part of the book names chapter {missing[0]}: add it to PARTS")
    blocks = [
        toctree(caption, [f"notebooks/{name_of[n]}" for n in numbers.split() if n in name_of])
        for caption, numbers in PARTS
    ]
    blocks.append(toctree("Worked exercises", [f"solutions/{name}" for name in chapters]))
    blocks.append(toctree("About", [path.removesuffix(".md") for path in PAGES]))
    return "\n" + "\n".join(blocks)


def toctree(caption: str, entries: list[str]) -> str:
    """One table of contents in Sphinx's form, hidden from the page and shown at its side."""
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(entries) + "\n```\n"


if __name__ == "__main__":
    sys.exit(main())
