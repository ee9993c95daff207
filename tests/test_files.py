"""Files are there whole or not at all, whenever the process that writes them is killed."""

import ast
import contextlib
import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from file_calls import Killed, killed_before_call

from sft_lab.files import (
    MARK,
    OutputError,
    as_folder,
    check_files,
    check_folder,
    check_folder_writable,
    check_writable,
    recover_folder,
    remove_folder,
    whole_file,
    whole_files,
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


def read_folder(folder: Path, but: tuple[str, ...] = ()) -> dict[str, str]:
    """The files of a folder without their list, and without what a process that is not dead yet
    was writing."""
    return {
        path.name: path.read_text()
        for path in folder.iterdir()
        if path.name not in (MARK, *but) and not path.name.startswith(f"{MARK}.")
    }


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


def write_folder(folder: Path, content: dict[str, str]) -> None:
    with whole_folder(folder) as new:
        for name, text in content.items():
            (new / name).write_text(text)


def write_files(folder: Path, content: dict[str, str]) -> None:
    with whole_files(folder, last=["a"]) as new:
        for name, text in content.items():
            (new / name).write_text(text)


OLD, NEW = {"a": "old", "b": "old"}, {"a": "new", "c": "new"}


def count_calls(action, place: Path) -> int:
    with killed_before_call(None, place) as calls:
        action()
    return len(calls)


def test_a_kill_before_any_call_while_a_folder_changes_leaves_the_old_or_the_new(tmp_path):
    write_folder(tmp_path / "counted" / "folder", OLD)
    count = count_calls(lambda: write_folder(tmp_path / "counted" / "folder", NEW), tmp_path)
    found = []
    for number in range(count):
        folder = tmp_path / str(number) / "folder"
        write_folder(folder, OLD)
        with pytest.raises(Killed), killed_before_call(number, tmp_path):
            write_folder(folder, NEW)
        recover_folder(folder)
        found.append(read_folder(folder))
        write_folder(folder, NEW)  # what the kill left does not stand in the way
        assert read_folder(folder) == NEW and os.listdir(folder.parent) == ["folder"]
    assert count > 12 and found[0] == OLD and found[-1] == NEW
    assert all(content in (OLD, NEW) for content in found)


def test_a_kill_before_any_call_while_a_folder_goes_leaves_it_whole_or_gone(tmp_path):
    write_folder(tmp_path / "counted", OLD)
    count = count_calls(lambda: remove_folder(tmp_path / "counted"), tmp_path)
    for number in range(count):
        folder = tmp_path / str(number) / "folder"
        write_folder(folder, OLD)
        with pytest.raises(Killed), killed_before_call(number, tmp_path):
            remove_folder(folder)
        recover_folder(folder)
        assert not folder.exists() or read_folder(folder) == OLD
        remove_folder(folder)
        assert os.listdir(folder.parent) == []
    assert count >= 5


def test_a_kill_before_any_call_while_files_change_mixes_nothing_with_the_last_file(tmp_path):
    """ "a" is named last: where it stands, everything beside it is of the same writing."""
    write_files(tmp_path / "counted", OLD)
    count = count_calls(lambda: write_files(tmp_path / "counted", NEW), tmp_path)
    found = []
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "notes").write_text("of the reader")
        write_files(folder, OLD)
        with pytest.raises(Killed), killed_before_call(number, tmp_path):
            write_files(folder, NEW)
        content = read_folder(folder, but=("notes", "result.new"))
        found.append(content.get("a"))
        if "a" in content:
            assert content in (OLD, NEW)
        write_files(folder, NEW)
        assert read_folder(folder) == NEW | {"notes": "of the reader"}
    assert found[0] == "old" and None in found and found[-1] == "new"


def test_a_kill_before_any_call_while_a_text_is_written_leaves_the_old_or_the_new(tmp_path):
    write_text(tmp_path / "counted", "old")
    count = count_calls(lambda: write_text(tmp_path / "counted", "new"), tmp_path)
    for number in range(count):
        write_text(tmp_path / "a", "old")
        with pytest.raises(Killed), killed_before_call(number, tmp_path):
            write_text(tmp_path / "a", "new")
        assert (tmp_path / "a").read_text() in ("old", "new")


# --- what others wrote
# ----------------------------------------------------------------------------------------------


def put(kind: str, place: Path, elsewhere: Path) -> None:
    """Something at `place` that this program did not write."""
    elsewhere.mkdir(parents=True)
    (elsewhere / "precious").write_text("of the reader")
    marks = {
        "folder with no object as mark": "[]",
        "folder with another's mark": '{"written by": "another", "files": ["precious"]}',
        "folder with a broken mark": "{",
        "folder with a mark that leads out": (
            '{"written by": "sft_lab", "files": ["precious", "../elsewhere/precious"]}'
        ),
    }
    if kind == "file":
        place.write_text("of the reader")
    elif kind == "link to a folder":
        place.symlink_to(elsewhere)
    elif kind == "link to a folder of ours":
        write_folder(elsewhere.with_name("ours"), OLD)
        place.symlink_to(elsewhere.with_name("ours"))
    elif kind == "link to a file":
        place.symlink_to(elsewhere / "precious")
    elif kind == "link to nothing":
        place.symlink_to(elsewhere / "missing")
    else:
        place.mkdir()
        (place / "precious").write_text("of the reader")
        if kind in marks:
            (place / MARK).write_text(marks[kind])


def snapshot(place: Path) -> dict[str, str]:
    """Everything below a folder: links by their targets, files by their contents."""
    return {
        str(path): f"-> {os.readlink(path)}"
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else "folder"
        for path in sorted(place.rglob("*"))
    }


FOREIGN = [
    *("file", "link to a folder", "link to a folder of ours", "link to a file"),
    *("link to nothing", "folder", "folder with no object as mark"),
    *("folder with another's mark", "folder with a broken mark"),
    "folder with a mark that leads out",
]


@pytest.mark.parametrize("operation", ["write", "remove", "recover", "check"])
@pytest.mark.parametrize("ending", ["", ".new", ".old"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_others_wrote_is_neither_deleted_nor_renamed(kind, ending, operation, tmp_path):
    folder = tmp_path / "place" / "folder"
    folder.parent.mkdir()
    if ending:
        write_folder(folder, OLD)
    put(kind, folder.with_name(f"folder{ending}"), tmp_path / "elsewhere")
    before = snapshot(tmp_path)
    actions = {
        "write": lambda: write_folder(folder, NEW),
        "remove": lambda: remove_folder(folder),
        "recover": lambda: recover_folder(folder),
        "check": lambda: check_folder(folder),
    }
    words = "link" if "link" in kind else kind.split()[0]
    with pytest.raises(OutputError, match=f"folder{ending} is a .*{words}.* not written by this"):
        actions[operation]()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("seed", range(10))
def test_files_of_the_reader_in_a_folder_of_ours_outlive_it(seed, tmp_path):
    """Whatever is written and deleted, with kills in between."""
    rng, folder, theirs = random.Random(seed), tmp_path / "folder", {}
    for turn in range(12):
        if folder.exists() and rng.random() < 0.5:
            name = f"notes {turn}"
            (folder / name).write_text(name)
            theirs[name] = name
        number = rng.choice([None, rng.randrange(20)])
        with contextlib.suppress(Killed), killed_before_call(number, tmp_path):
            write_folder(folder, rng.choice([OLD, NEW]))
    write_folder(folder, NEW)
    assert read_folder(folder) == NEW | theirs
    remove_folder(folder)
    assert not theirs or read_folder(folder) == theirs
    assert os.listdir(tmp_path) == (["folder"] if theirs else [])
    if theirs:
        with pytest.raises(OutputError):
            write_folder(folder, NEW)


def test_a_file_of_the_reader_that_a_folder_would_replace_stays(tmp_path):
    write_folder(tmp_path / "folder", OLD)
    (tmp_path / "folder" / "c").write_text("of the reader")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match="folder/c was not written"):
        write_folder(tmp_path / "folder", NEW)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("name", ["a", "c"])
def test_files_of_others_are_not_replaced_by_whole_files(kind, name, tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    put(kind, folder / name, tmp_path / "elsewhere")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match=f"place/{name} was not written by this program"):
        write_files(folder, NEW)
    assert snapshot(tmp_path) == before


def test_whole_files_replaces_and_deletes_its_own_and_keeps_the_rest(tmp_path):
    (tmp_path / "notes").write_text("of the reader")
    write_files(tmp_path, OLD)
    assert read_folder(tmp_path) == OLD | {"notes": "of the reader"}
    write_files(tmp_path, NEW)
    assert read_folder(tmp_path) == NEW | {"notes": "of the reader"}
    check_files(tmp_path, ["a", "b", "c", "d*"])
    (tmp_path / "link").symlink_to("nowhere")
    for pattern in ("link", "li*"):
        with pytest.raises(OutputError, match="link was not written by this program"):
            check_files(tmp_path, ["a", pattern])
    (tmp_path / "link").unlink()
    with pytest.raises(OutputError, match="notes was not written by this program"):
        check_files(tmp_path, ["a", "no*"])
    before = snapshot(tmp_path)
    with pytest.raises(ZeroDivisionError), whole_files(tmp_path) as new:
        (new / "a").write_text("half")
        raise ZeroDivisionError
    assert snapshot(tmp_path) == before
    with whole_files(tmp_path) as new:
        (new / "below").mkdir()
        (new / "below" / "d").write_text("deep")
    assert read_folder(tmp_path / "below") == {"d": "deep"}
    assert sorted(os.listdir(tmp_path)) == ["below", "notes", MARK]


def test_a_mark_that_leads_out_and_a_folder_that_is_a_link_delete_nothing_elsewhere(tmp_path):
    folder, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    for place in (folder, elsewhere):
        place.mkdir()
    (elsewhere / "d").write_text("of the reader")
    names = ["../elsewhere/d", str(elsewhere / "d")]
    for name in names:
        (folder / MARK).write_text(json.dumps({"written by": "sft_lab", "files": [name]}))
        with pytest.raises(OutputError, match=f"{MARK} was not written by this program"):
            write_files(folder, NEW)
        assert os.listdir(folder) == [MARK]
        assert (elsewhere / "d").read_text() == "of the reader"
    (folder / MARK).unlink()
    with whole_files(folder) as new:
        (new / "below").mkdir()
        (new / "below" / "d").write_text("ours")
    (folder / "below" / "d").unlink()
    (folder / "below").rmdir()
    (folder / "below").symlink_to(elsewhere)
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match="place/below was not written by this program"):
        write_files(folder, NEW)
    assert snapshot(tmp_path) == before


def test_an_error_while_a_folder_is_written_leaves_the_old_and_no_half(tmp_path):
    write_folder(tmp_path / "folder", OLD)
    before = snapshot(tmp_path)
    with pytest.raises(OSError, match="No space"), whole_folder(tmp_path / "folder") as new:
        (new / "a").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert snapshot(tmp_path) == before


def test_what_killed_processes_left_beside_a_file_goes_and_all_else_stays(tmp_path):
    here = socket.gethostname()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stay = [
        f"a.{here}-{os.getpid()}-0.new",
        f"a.elsewhere-{dead.pid}-0.new",
        f"b.{here}-{dead.pid}-0.new",
        f"a.{here}-{dead.pid}-0.new.txt",
        f"a.{here}-{dead.pid}.new",
        "a.new",
    ]
    for name in [*stay, f"a.{here}-{dead.pid}-0.new", f"a.{here}-{dead.pid}-17.new"]:
        (tmp_path / name).write_text("")
    write_text(tmp_path / "a", "text")
    assert sorted(os.listdir(tmp_path)) == sorted([*stay, "a"])


def test_two_threads_write_one_file_whole(tmp_path):
    def write(letter: str) -> None:
        for _ in range(50):
            write_text(tmp_path / "a", letter * 10_000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, "wxyz"))
    assert len(set((tmp_path / "a").read_text())) == 1 and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("place", ["file", "file/below", "file/below/deeper", "link", "/proc/new"])
def test_a_folder_that_cannot_be_written_is_named_before_the_work(place, tmp_path):
    if place.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    (tmp_path / "file").write_text("of the reader")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for check in (check_folder_writable, lambda folder: check_writable(folder / "a.json")):
        with pytest.raises(OutputError, match=f"nothing can be written in .*{Path(place).name}"):
            check(tmp_path / place)
    assert (tmp_path / "file").read_text() == "of the reader"


@pytest.mark.parametrize("name", ["x" * 256, "a\0b", "\ud800", 7, False, b"x", "~no such reader/x"])
def test_what_no_folder_can_be_called_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match=r"^output_dir is .*: no folder can be called that") as e:
        as_folder("output_dir", name)
    assert len(str(e.value).splitlines()) == 1 and len(str(e.value)) < 200
    assert as_folder("output_dir", "a/b c") == Path("a/b c")


def test_a_full_disk_is_found_by_writing(tmp_path, small_disk):
    check_folder_writable(small_disk)
    with contextlib.suppress(OSError), (small_disk / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    for check in (check_folder_writable, lambda folder: check_writable(folder / "a.json")):
        with pytest.raises(OutputError, match="No space left"):
            check(small_disk)


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    for write in (check_writable, lambda path: write_text(path, "text")):
        with pytest.raises(OutputError, match="a is a folder, and a file is to be written"):
            write(tmp_path / "a")
    check_writable(tmp_path / "new" / "b.json")
    assert os.listdir(tmp_path / "new") == []


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
