"""One direction: the map in `sft_lab/__init__.py` lists every module once, each imports only from
those above it, and nobody reaches into another module's private names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sft_lab

ROOT = Path(__file__).resolve().parent.parent
WIDGETS = ("ipywidgets", "IPython")
# methods of a named tuple; the underscore only keeps them apart from its fields
NOT_PRIVATE = {"_replace", "_asdict", "_fields", "_make"}


def read_map(text: str) -> list[str]:
    """The modules in the order of a map's lines: `station    module    what it is for`."""
    lines = re.findall(r"^(?:\w+ +| +)([a-z][\w.]*) {2,}\S.*$", text, flags=re.MULTILINE)
    return [f"sft_lab.{name}" for name in lines]


def read_sources(root: Path) -> dict[str, str]:
    """Source text of every module of the package, by its dotted name."""
    sources = {}
    for path in sorted((root / "sft_lab").rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        sources[name.removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return sources


def find_entry(name: str, order: list[str]) -> str | None:
    """The line of the map that stands for a module; chapters share one: `chNN`."""
    name = re.sub(r"\d\d[a-z]?$", "NN", name)
    return name if name in order else None


def imported(name: str, source: str, modules: set[str]) -> Iterator[tuple[int, str, str, str]]:
    """(line, module, what of it, its name here) for every import, at any depth of the source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, "", alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".")[: -node.level] if node.level else []
            module = ".".join([*package, *([node.module] if node.module else [])])
            for alias in node.names:
                here, whole = alias.asname or alias.name, f"{module}.{alias.name}"
                is_module = whole in modules
                yield node.lineno, whole if is_module else module, "" if is_module else whole, here
        elif isinstance(node, ast.Call) and node.args:
            function = ast.unparse(node.func).rpartition(".")[2]
            given = node.args[0]
            if function in ("import_module", "__import__") and isinstance(given, ast.Constant):
                yield node.lineno, str(given.value), "", ""


def wrong_imports(sources: dict[str, str], order: list[str]) -> list[str]:
    """One line for each import that goes upwards, into the course, or to widgets from below."""
    found, modules = [], set(sources)
    for name, source in sources.items():
        here = find_entry(name, order)
        for line, module, _, _ in imported(name, source, modules):
            there = find_entry(module, order)
            at = f"{name}:{line} imports {module}"
            if module.startswith("sft_lab.course") and not name.startswith("sft_lab.course"):
                found.append(f"{at}: the library knows no course")
            elif here and there and order.index(there) >= order.index(here):
                found.append(f"{at}: it stands below, or at the same place of the map")
            if module.split(".")[0] in WIDGETS and not name.startswith("sft_lab.course.views."):
                found.append(f"{at}: widgets belong into sft_lab.course.views")
    return found


def private_uses(name: str, source: str, modules: set[str]) -> list[str]:
    """One line for each private name of another module of ours that a source uses."""
    found, ours = [], set()
    for line, module, what, here in imported(name, source, modules):
        if module.split(".")[0] != "sft_lab":
            continue
        ours.add(here)
        last = (what or module).rpartition(".")[2]
        if last.startswith("_") and not last.startswith("__"):
            found.append(f"{name}:{line} imports {what or module}")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute) or node.attr in NOT_PRIVATE:
            continue
        private = node.attr.startswith("_") and not node.attr.startswith("__")
        if private and ast.unparse(node.value) in ours:
            found.append(f"{name}:{node.lineno} uses {ast.unparse(node)}")
    return found


def says_only_what_is_shared(source: str) -> bool:
    """Whether a package's own file has a docstring and, at most, hands on names of its modules."""
    allowed = (ast.Expr, ast.ImportFrom, ast.Assign)
    body = ast.parse(source).body
    assigned = {
        ast.unparse(t) for node in body if isinstance(node, ast.Assign) for t in node.targets
    }
    return all(isinstance(node, allowed) for node in body) and assigned <= {"__all__"}


def wrong_map(sources: dict[str, str], order: list[str]) -> list[str]:
    """One line for each module that the map does not name, names twice, or only dreams of."""
    # a package is named by its modules: its own file only says what they have in common
    packages = {name for name in sources if any(other.startswith(name + ".") for other in sources)}
    found = [
        f"{name} does more than say what its modules share: give it a module of its own"
        for name in packages - {"sft_lab"}
        if not says_only_what_is_shared(sources[name])
    ]
    entries = {name: find_entry(name, order) for name in sources.keys() - packages}
    found += [f"{name} has no line in the map" for name, entry in entries.items() if not entry]
    found += [f"{name} stands twice in the map" for name in set(order) if order.count(name) > 1]
    found += [f"the map names {name}: no such module" for name in set(order) - {*entries.values()}]
    return found


def test_every_module_stands_once_in_the_map_and_the_map_names_nothing_else():
    assert wrong_map(read_sources(ROOT), read_map(sft_lab.__doc__)) == []


def read_tree(text: str) -> list[str]:
    """The files of the package that a tree names: indented by two columns a folder, a comment
    each."""
    files, folders = [], ["sft_lab"]
    inside = text.partition("\nsft_lab/\n")[2].partition("\ndata/")[0]
    for spaces, name in re.findall(r"^( +)([\w./]+) +\S.*$", inside, flags=re.MULTILINE):
        folders = folders[: len(spaces) // 2]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        else:
            files.append("/".join([*folders, name]))
    return files


def test_the_tree_in_the_readme_names_every_file_of_the_package_once_in_the_order_of_the_map():
    files = read_tree((ROOT / "README.md").read_text(encoding="utf-8"))
    order = [name.replace(".", "/") + ".py" for name in read_map(sft_lab.__doc__)]
    assert [name for name in files if name.endswith(".py")] == order
    others = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "sft_lab").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert {name for name in files if not name.endswith(".py")} == others


def test_the_library_imports_only_downwards():
    assert wrong_imports(read_sources(ROOT), read_map(sft_lab.__doc__)) == []


def test_nobody_uses_a_private_name_of_another_module():
    sources = read_sources(ROOT)
    modules, found = set(sources), []
    for folder in ("tools", "chapters"):
        for path in sorted((ROOT / folder).glob("*.py")):
            sources[f"{folder}/{path.name}"] = path.read_text(encoding="utf-8")
    for name, source in sources.items():
        found += private_uses(name, source, modules)
    assert found == []


# --- the rules can fail
# ---------------------------------------------------------------------------------------------

MAP = """A map. Each imports only from those above.

ground     low                 the lowest
score      parts.middle        in a package
           high                the highest
course     course.kit          for exercises
           course.views.one    a view
           course.ex.chNN      chapters
"""
TREE = {
    "sft_lab": "",
    "sft_lab.low": "_secret = 1",
    "sft_lab.parts": '"""Parts."""',
    "sft_lab.parts.middle": "from sft_lab.low import thing",
    "sft_lab.high": "from sft_lab.parts import middle",
    "sft_lab.course": '"""The course."""',
    "sft_lab.course.kit": "import sft_lab.high",
    "sft_lab.course.views": '"""Views."""',
    "sft_lab.course.views.one": "import ipywidgets\nfrom sft_lab.course.kit import same",
    "sft_lab.course.ex.ch01": "from sft_lab.course.views.one import look",
    "sft_lab.course.ex.ch02": "",
}


def test_a_tree_that_keeps_the_rules_passes():
    assert read_map(MAP) == [
        "sft_lab.low",
        "sft_lab.parts.middle",
        "sft_lab.high",
        "sft_lab.course.kit",
        "sft_lab.course.views.one",
        "sft_lab.course.ex.chNN",
    ]
    assert wrong_imports(TREE, read_map(MAP)) == []
    assert wrong_map(TREE, read_map(MAP)) == []


@pytest.mark.parametrize(
    ("tree", "line", "message"),
    [
        ({"sft_lab.new": ""}, "", "sft_lab.new has no line in the map"),
        ({"sft_lab.parts.new": ""}, "", "sft_lab.parts.new has no line in the map"),
        ({}, "show       low                 again", "sft_lab.low stands twice in the map"),
        ({}, "show       gone                away", "the map names sft_lab.gone: no such module"),
        ({"sft_lab.parts": "x = 1\ny = 2"}, "", "sft_lab.parts does more than say"),
    ],
)
def test_a_planted_gap_in_the_map_is_found(tree, line, message):
    (found,) = wrong_map(TREE | tree, read_map(MAP + line))
    assert message in found


def test_a_tree_is_read_with_its_folders():
    text = """
docs/          not the package
sft_lab/
  low.py       the lowest
  parts/       a folder
    middle.py  in it
  high.py      out of it
data/
  x.csv        not the package
"""
    assert read_tree(text) == ["sft_lab/low.py", "sft_lab/parts/middle.py", "sft_lab/high.py"]


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("low", "from sft_lab.high import f", "low:1 imports sft_lab.high: it stands below"),
        ("low", "import sft_lab.high as h", "low:1 imports sft_lab.high: it stands below"),
        ("low", "from sft_lab import high", "low:1 imports sft_lab.high: it stands below"),
        ("low", "from .parts import middle", "low:1 imports sft_lab.parts.middle: it stands"),
        ("low", "def f():\n    from sft_lab import high", "low:2 imports sft_lab.high: it stands"),
        ("low", "if True:\n    import sft_lab.high", "low:2 imports sft_lab.high: it stands below"),
        ("low", "import_module('sft_lab.high')", "low:1 imports sft_lab.high: it stands below"),
        ("parts.middle", "from ..high import f", "middle:1 imports sft_lab.high: it stands below"),
        ("high", "import sft_lab.course.kit", "sft_lab.course.kit: the library knows no course"),
        ("high", "from sft_lab.course.views.one import f", "one: the library knows no course"),
        ("course.kit", "from sft_lab.course.views import one", "one: it stands below"),
        ("course.ex.ch01", "import sft_lab.course.ex.ch02", "ch02: it stands below, or at the"),
        ("high", "from IPython.display import HTML", "widgets belong into sft_lab.course.views"),
        ("course.kit", "def f():\n    import ipywidgets", "kit:2 imports ipywidgets: widgets"),
    ],
)
def test_a_planted_import_is_found(name, source, message):
    tree = TREE | {f"sft_lab.{name}": source}
    (found,) = wrong_imports(tree, read_map(MAP))
    assert message in found


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("from sft_lab.low import _secret", "high:1 imports sft_lab.low._secret"),
        ("from sft_lab.low import _secret as open", "high:1 imports sft_lab.low._secret"),
        ("from sft_lab import low\nlow._secret", "high:2 uses low._secret"),
        ("import sft_lab.low\nsft_lab.low._secret", "high:2 uses sft_lab.low._secret"),
        ("import sft_lab.low as x\ndef f():\n    x._secret = 2", "high:3 uses x._secret"),
        ("from sft_lab.low import Thing\nThing._make_it()", "high:2 uses Thing._make_it"),
    ],
)
def test_a_planted_private_name_is_found(source, message):
    (found,) = private_uses("sft_lab.high", source, set(TREE))
    assert message in found


def test_private_names_of_ones_own_and_of_other_libraries_are_nobodys_business_here():
    source = "import torch\nfrom sft_lab.low import Row\ntorch._C\nself._own\nRow._make([1])"
    assert private_uses("sft_lab.high", source, set(TREE)) == []
