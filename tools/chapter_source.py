"""Read a chapter: cells, tags, exercises, and what each edition of its notebook gets; for
`build_notebooks.py`.

A chapter is a Python file in percent format. Its first cell is markdown and holds the title;
`setup` cells go to both editions; `real` cells take a model that may stand on an accelerator
(tests/test_devices.py runs them on a pretended one); the outputs of `predict` cells are folded
until the reader runs or opens them, and so is the source of their last asserts and of `folded`
cells, which would tell the answer; the cells of an exercise are tagged with their part and follow
each other in one fixed order.
"""

import ast
import re
import subprocess
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import jupytext
from execute_notebook import BuildError

from sft_lab.course.progress import RETIRED, parse_heading, sort_key

ROLES = {
    "exercise": "E",
    "stub": "S",
    "solution": "O",
    "check": "C",
    "hint": "H",
    "explanation": "X",
}
ORDER = "exercise, stub, solution, check, hints (any number), explanation"
TAGS = {*ROLES, "setup", "real", "predict", "folded", "raises-exception"}
# JupyterLab shows the first line of a folded source
TELLS = "# open after your guess: the result"
RELIED_ON = "# asserted: the numbers that the text relies on"
# the first table of a chapter: its last column names the items that it covers
HEADER = re.compile(r"^\| needs .*\n\|[-| ]+\n\|.*\|(?P<items>[^|]*)\|(\n|$)", re.MULTILINE)
GLOSSARY = "Every term of the course stands in the [glossary](../docs/glossary.md) · 术语表."
COLAB = "https://colab.research.google.com"
GITHUB = "https://github.com/"
# https://host/owner/name or ssh://git@host/owner/name; the host has a public name, and a user or a
# password before it is no part of what is kept
HOSTED = re.compile(
    r"(?:https://(?:[^/@\s]*@)?|ssh://git@)((?:[\w-]+\.)+[a-z]{2,}/(?:[\w.-]+/)+[\w.-]+?)(?:\.git)?/?"
)
BOOTSTRAP = """\
# On Colab this cell fetches and installs the course. Anywhere else it does nothing.
from importlib.util import find_spec
if find_spec("google") and find_spec("google.colab"):
    import os, subprocess, sys
    if not os.path.isdir("/content/{name}"):
        subprocess.run("git clone -q --depth 1 {url} /content/{name}".split(), check=True)
    subprocess.run([sys.executable, *"-m pip install -q -e /content/{name}".split()], check=True)
    sys.path.insert(0, "/content/{name}")"""
STRICT = """
import os
os.environ["SFT_LAB_STRICT"] = "1"  # solutions must pass, and count for nobody's progress"""


def read_chapter(path: Path) -> list["Cell"]:
    """The cells of a chapter with their tags and first lines. `BuildError` names the file and the
    line."""
    text = path.read_text("utf-8")
    starts = [number for number, line in enumerate(text.splitlines(), 1) if line.startswith("# %%")]
    parsed = jupytext.reads(text, fmt="py:percent").cells
    if len(parsed) != len(starts):
        raise BuildError(
            f"chapters/{path.name}:1: {len(parsed)} cells, {len(starts)} lines '# %%': text "
            "above the first?"
        )
    cells = [
        Cell(cell.cell_type, cell.source, tuple(cell.metadata.get("tags", [])), start)
        for cell, start in zip(parsed, starts, strict=True)
    ]
    for cell in cells:
        if unknown := set(cell.tags) - TAGS:
            raise BuildError(
                f"chapters/{path.name}:{cell.line}: unknown tag {sorted(unknown)}; known: "
                f"{sorted(TAGS)}"
            )
    if not cells or cells[0].kind != "markdown" or not cells[0].source.startswith("# "):
        raise BuildError(
            f"chapters/{path.name}:1: the first cell must be '# %% [markdown]' and begin with "
            "the title '# # …'"
        )
    return cells


def name_chapter(path: Path) -> str:
    """The number of a chapter as its files name it: `"05"`, or `"11b"` for the second half of a
    chapter that became two."""
    return path.name.partition("_")[0]


def find_exercises(cells: list["Cell"], path: Path) -> list[list["Cell"]]:
    """The exercises of a chapter, each the list of its cells. `BuildError` when one is out of order
    or misnamed."""
    groups, previous = [], None
    for cell in cells:
        if cell.role == "E":
            groups.append([cell])
        elif cell.role and (previous is None or not previous.role):
            raise BuildError(
                f"chapters/{path.name}:{cell.line}: a {cell.tags} cell outside an exercise; its "
                f"order is {ORDER}"
            )
        elif cell.role:
            groups[-1].append(cell)
        previous = cell
    seen: set[str] = set()
    for group in groups:
        place = f"chapters/{path.name}:{group[0].line}"
        try:
            exercise = parse_heading(group[0].source.splitlines()[0])
        except ValueError as error:
            raise BuildError(f"{place}: {error}") from error
        if sort_key(exercise.id)[0] != name_chapter(path):
            raise BuildError(f"{place}: exercise {exercise.id} is not of {name_chapter(path)}")
        if exercise.id in seen | RETIRED:
            raise BuildError(
                f"{place}: the number {exercise.id} is taken, by another exercise or by one that "
                "is gone: a reader's progress counts it"
            )
        seen.add(exercise.id)
        if not re.fullmatch("ESOCH*X", "".join(cell.role for cell in group)):
            raise BuildError(
                f"{place}: exercise {exercise.id}: its cells must be {ORDER}, one after the other"
            )
        stub, solution, check = group[1:4]
        if f'check("{exercise.id}", ' not in check.source:
            raise BuildError(
                f"chapters/{path.name}:{check.line}: the check cell must call "
                f'check("{exercise.id}", …)'
            )
        try:
            lost = stub.names() - solution.names()
        except SyntaxError as error:
            raise BuildError(
                f"{place}: exercise {exercise.id}: {error.msg}: {error.text}"
            ) from error
        if lost:
            raise BuildError(
                f"chapters/{path.name}:{solution.line}: the solution does not define "
                f"{sorted(lost)}, the stub does"
            )
    return groups


def assemble(path: Path, url: str | None = None) -> dict[str, list["Cell"]]:
    """The cells of each edition of a chapter, for the repository at `url`, else at
    `find_address`."""
    cells, root = read_chapter(path), path.parents[1]
    exercises = find_exercises(cells, path)
    url = url or find_address(root)
    name = url.rpartition("/")[2]
    bootstrap = Cell("code", BOOTSTRAP.format(url=url, name=name), ("setup", "bootstrap"), 0)
    title, _, text = cells[0].source.partition("\n")
    first_code = next((i for i, cell in enumerate(cells) if cell.kind == "code"), len(cells))
    chapter = [*cells[1:first_code], bootstrap, *cells[first_code:]]
    chapter = [
        part for cell in chapter if cell.role not in ("O", "X") for part in part_asserts(cell, path)
    ]
    badge = write_badge(url, "notebooks", path.stem)
    top = replace(cells[0], source=f"{title}\n\n{badge}{link_header(text).lstrip()}".rstrip())
    editions = {"notebooks": [top, *chapter]}
    if exercises:
        pointer = f"Solutions to the exercises of [the chapter](../notebooks/{path.stem}.ipynb)."
        badge = write_badge(url, "solutions", path.stem)
        top = replace(cells[0], source=f"{title} · solutions\n\n{badge}{pointer}")
        bootstrap = replace(bootstrap, source=bootstrap.source + STRICT)
        setup = [cell for cell in cells if "setup" in cell.tags]
        solved = [cell for group in exercises for cell in group if cell.role not in ("S", "H")]
        editions["solutions"] = [top, bootstrap, *setup, *solved]
    return editions


def part_asserts(cell: "Cell", path: Path) -> list["Cell"]:
    """A `predict` cell and, apart from it, the asserts at its end in a folded cell: read before the
    guess, they would tell the answer. A cell that is folded as a whole begins with a line that
    tells nothing. Any other cell, and one of asserts alone, stays as it is."""
    if "folded" in cell.tags:
        if cell.source.startswith(RELIED_ON):
            return [cell]
        return [replace(cell, source=f"{TELLS}\n{cell.source}", line=cell.line - 1)]
    if "predict" not in cell.tags:
        return [cell]
    try:
        statements = ast.parse(cell.source).body
    except SyntaxError as error:
        raise BuildError(f"chapters/{path.name}:{cell.line}: {error.msg}: {error.text}") from error
    shown = len(statements)
    while shown and is_assert(statements[shown - 1]):
        shown -= 1
    if shown in (0, len(statements)):
        return [cell]
    end = statements[shown - 1].end_lineno
    lines = cell.source.splitlines()
    # the first line of the new cell stands in for the last one of the old
    tags = (*(tag for tag in cell.tags if tag != "predict"), "folded")
    asserts = "\n".join([RELIED_ON, *lines[end:]])
    return [
        replace(cell, source="\n".join(lines[:end])),
        replace(cell, source=asserts, tags=tags, line=cell.line + end - 1),
    ]


def is_assert(statement: ast.stmt) -> bool:
    """True for an assert, a call of PyTorch's or NumPy's `assert_…`, and a loop or a condition of
    nothing else."""
    if isinstance(statement, ast.For | ast.If | ast.With):
        inside = [*statement.body, *getattr(statement, "orelse", [])]
        return all(is_assert(inner) for inner in inside)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return ast.unparse(statement.value.func).rpartition(".")[2].startswith("assert_")
    return isinstance(statement, ast.Assert)


def link_header(text: str) -> str:
    """The first cell of a chapter with links: each item in the last column of its first table leads
    to its row of docs/coverage.md, and a line below leads to the glossary."""
    found = HEADER.search(text)
    if found is None:
        return text
    row, items = found[0].rstrip("\n"), found["items"]
    linked = re.sub(r"[A-DL]\d+", r"[\g<0>](../docs/coverage.md#\g<0>)", items)
    row = row[: -len(items) - 1] + linked + "|"
    return f"{text[: found.start()]}{row}\n\n{GLOSSARY}\n{text[found.end() :]}".rstrip()


def write_badge(url: str, edition: str, stem: str) -> str:
    """The badge that opens a notebook in Colab, as a paragraph; "" where Colab cannot: it reads
    notebooks from GitHub alone."""
    if not url.startswith(GITHUB):
        return ""
    place = f"{COLAB}/github/{url.removeprefix(GITHUB)}/blob/main/{edition}/{stem}.ipynb"
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({place})\n\n"


def find_address(root: Path) -> str:
    """The https address from which others can clone the repository: that of the git remote
    `origin` where it is hosted, so that a fork points to itself; else `[project.urls] Repository`
    of pyproject.toml."""
    pyproject = root / "pyproject.toml"
    urls = tomllib.loads(pyproject.read_text("utf-8")).get("project", {}).get("urls", {})
    address = urls.get("Repository", "")
    found = hosted_address(remote_of(root)) or hosted_address(address)
    if found is None:
        raise BuildError(
            f"{pyproject}: [project.urls] Repository is {address!r}, expected "
            "https://HOST/OWNER/NAME"
        )
    return found


def remote_of(root: Path) -> str:
    """The address of the remote `origin` of the repository in `root`, as git has it; "" without
    one."""
    if not (root / ".git").exists():  # git would look further up, and find another repository
        return ""
    command = ["git", "-C", str(root), "config", "--get", "remote.origin.url"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:  # no git on this machine
        return ""


def hosted_address(address: str) -> str | None:
    """https://host/owner/name for an address that anybody can reach, without user and password;
    None for a path, a machine without a public name, and a port."""
    found = HOSTED.fullmatch(re.sub(r"^git@([^:/]+):", r"ssh://git@\1/", address))
    return f"https://{found[1]}" if found else None


@dataclass(frozen=True)
class Cell:
    """One cell of a chapter: "code" or "markdown", its text and tags, and the line of its `# %%`
    (0: in no file)."""

    kind: str
    source: str
    tags: tuple[str, ...]
    line: int

    @property
    def role(self) -> str:
        """The letter of its part in an exercise, "" outside."""
        return "".join(ROLES.get(tag, "") for tag in self.tags)

    def names(self) -> set[str]:
        """The names that the cell's top level defines."""
        names = set()
        for node in ast.parse(self.source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign):
                names |= {
                    name.id
                    for target in node.targets
                    for name in ast.walk(target)
                    if isinstance(name, ast.Name)
                }
        return names
