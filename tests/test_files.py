"""Files are there whole or not at all, whenever the process that writes them is killed."""

import ast
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sft_lab.files import (
    recover_folder,
    remove_folder,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)

ROOT = Path(__file__).resolve().parent.parent
WRITER = """
import itertools, sys
from pathlib import Path
from sft_lab.files import remove_folder, whole_folder, write_text
place = Path(sys.argv[1])
for number in itertools.count():
    write_text(place / "file", str(number) * 200_000)
    with whole_folder(place / "folder") as new:
        for name in "abc":
            (new / name).write_text(str(number) * 50_000)
    if number % 5 == 4:
        remove_folder(place / "folder")
    print(number, flush=True)
"""


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def read_folder(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_process_leaves_whole_files_and_whole_folders_or_none(seed, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    process.stdout.readline()  # it has written once
    time.sleep(random.Random(seed).uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    text = (tmp_path / "file").read_text()
    number = len(text) // 200_000
    assert text == text[:number] * 200_000
    recover_folder(tmp_path / "folder")
    if (tmp_path / "folder").exists():
        parts = read_folder(tmp_path / "folder")
        assert sorted(parts) == list("abc") and len(set(parts.values())) == 1
        assert len(parts["a"]) % 50_000 == 0 and parts["a"]
    remove_folder(tmp_path / "folder")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("folder")]


def test_text_and_json_come_back_as_they_were_given(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "中文\nline two")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "中文\nline two".encode()
    write_json(tmp_path / "b.json", {"word": "中文", "list": [1, 2.5, None]})
    text = (tmp_path / "b.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"word": "中文", "list": [1, 2.5, None]}
    assert "中文" in text and text.endswith("}\n")


def test_an_error_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a") as new:
        new.write_text("half")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"
    with pytest.raises(TypeError):
        write_json(tmp_path / "a", {1, 2})
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("call", range(1, 4))
@pytest.mark.parametrize("function", ["replace", "rmtree"])
def test_a_kill_at_any_call_while_a_folder_changes_leaves_the_old_or_the_new(
    function, call, tmp_path, monkeypatch
):
    folder, calls = tmp_path / "folder", []
    with whole_folder(folder) as new:
        (new / "a").write_text("old")
    module = {"replace": os, "rmtree": shutil}[function]
    real = getattr(module, function)

    def killed_at_its_turn(*arguments, **settings):
        calls.append(function)
        if len(calls) == call:
            raise Killed
        return real(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(module, function, killed_at_its_turn)
        try:
            with whole_folder(folder) as new:
                (new / "a").write_text("new")
        except Killed:
            pass
        else:
            assert call > 2 and function == "replace", "the kill came later: nothing was shown"
    recover_folder(folder)
    assert read_folder(folder) in ({"a": "old"}, {"a": "new"})


def renames(source: str) -> list[str]:
    """The calls of a source that rename files: os.replace, shutil.move, Path.rename …"""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        of_modules = owner in ("os", "shutil") and name in ("replace", "rename", "renames", "move")
        # str.replace takes two arguments, dataclasses.replace takes names
        of_paths = name == "rename" or name == "replace" and len(node.args) == 1
        if of_modules or (of_paths and not node.keywords):
            found.append(ast.unparse(node))
    return found


def test_no_other_module_or_tool_renames_a_file():
    found = {}
    for path in [*(ROOT / "sft_lab").rglob("*.py"), *(ROOT / "tools").glob("*.py")]:
        found[path.relative_to(ROOT).as_posix()] = renames(path.read_text(encoding="utf-8"))
    assert found.pop("sft_lab/files.py"), "the search finds nothing, not even where it must"
    assert {path: calls for path, calls in found.items() if calls} == {}


def test_renaming_is_told_from_replacing_text():
    source = """
os.replace(new, path)
new.replace(path)
path.rename("b")
shutil.move("a", "b")
text.replace("a", "b")
dataclasses.replace(row, name="b")
"""
    assert renames(source) == [
        "os.replace(new, path)",
        "new.replace(path)",
        "path.rename('b')",
        "shutil.move('a', 'b')",
    ]
