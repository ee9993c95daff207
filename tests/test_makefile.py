"""What `make` would run, by its own dry run: nothing is installed or started."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def dry_run(target: str, user: int, folder: Path) -> str:
    """The commands of a target for the user with this number (0 is root), as one line."""
    (folder / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (folder / "id").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):  # those of the make that runs the tests
        environment.pop(name, None)
    places = (".venv", ".venv/deepspeed", ".venv/llamafactory")
    installed = [word for place in places for word in ("-o", f"{place}/installed")]
    command = ["make", "--dry-run", *installed, target]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return " ".join(done.stdout.replace("\\\n", " ").split())


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_jupyter_runs_as_root_where_it_must_with_a_token_on_this_machine_alone(
    user, allowed, tmp_path
):
    words = dry_run("lab", user, tmp_path).split()
    assert ("--allow-root" in words) == allowed
    assert "--ip=127.0.0.1" in words and "notebooks/00_what_happens_when_we_sft.ipynb" in words
    assert not [word for word in words if "token" in word or "password" in word]


def test_other_processors_are_two_and_each_runs_tests_and_both_editions(tmp_path):
    said = dry_run("test-processors", 1000, tmp_path)
    for capability in ("default", "avx2"):
        assert f"ATEN_CPU_CAPABILITY={capability} MKL_CBWR=" in said
    for suite in ("pytest -n 2 tests", "600 notebooks", "600 solutions"):
        assert suite in said
    assert "-m numeric" in dry_run("test-processors-quick", 1000, tmp_path)


def test_all_architectures_are_tried_by_one_command(tmp_path):
    assert "python tools/architectures.py" in dry_run("test-architectures", 1000, tmp_path)


def test_a_project_is_made_by_one_command_and_asks_for_its_file(tmp_path):
    said = dry_run("new", 1000, tmp_path)
    assert "Say which file: make new DATA=my.jsonl" in said
    for word in ("-m sft_lab.project", '--model "atlas-base"', '--out "my-project"'):
        assert word in said
