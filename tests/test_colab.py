"""Every notebook opens in Colab: one address of the repository, one cell that does nothing anywhere
else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chapter_source import BuildError, assemble, find_address, hosted_address


def write_course(root: Path, address: str) -> Path:
    """A course with one chapter of two cells; returns the chapter's path."""
    (root / "chapters").mkdir()
    (root / "pyproject.toml").write_text(
        f'[project.urls]\nRepository = "{address}"\n', encoding="utf-8"
    )
    path = root / "chapters" / "97_demo.py"
    path.write_text("# %% [markdown]\n# # 97 · Demo\n\n# %%\nprint(1)\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("address", ["", "http://github.com/a/b", "https://github.com/someone"])
def test_a_project_address_that_nobody_can_clone_is_refused(tmp_path, address):
    with pytest.raises(BuildError, match="expected https://HOST/OWNER/NAME"):
        assemble(write_course(tmp_path, address))


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/someone/course", "https://github.com/someone/course"),
        ("https://github.com/someone/course.git", "https://github.com/someone/course"),
        ("https://someone:secret@github.com/someone/course/", "https://github.com/someone/course"),
        ("https://token@gitlab.com/group/part/course.git", "https://gitlab.com/group/part/course"),
        ("git@github.com:someone/my.course.git", "https://github.com/someone/my.course"),
        ("ssh://git@codeberg.org/someone/course.git", "https://codeberg.org/someone/course"),
        ("", None),
        ("/srv/git/course.git", None),
        ("file:///srv/git/course.git", None),
        ("http://github.com/someone/course", None),
        ("https://localhost/someone/course", None),
        ("https://10.0.0.1/someone/course", None),
        ("https://git.example.org:8443/someone/course", None),
        ("https://github.com/someone/course; rm -rf x", None),
        ("https://github.com/someone/course\n--upload-pack=x", None),
        ("https://github.com/course", None),
    ],
)
def test_only_an_address_that_others_can_reach_is_taken_and_without_credentials(remote, address):
    assert hosted_address(remote) == address


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def test_the_remote_goes_before_the_project_and_a_private_one_does_not(tmp_path):
    write_course(tmp_path, "https://github.com/someone/course")
    assert find_address(tmp_path) == "https://github.com/someone/course"
    git(tmp_path, "init")
    git(tmp_path, "remote", "add", "origin", "git@github.com:fork/course.git")
    assert find_address(tmp_path) == "https://github.com/fork/course"
    git(tmp_path, "remote", "set-url", "origin", "http://localhost:3000/fork/course")
    assert find_address(tmp_path) == "https://github.com/someone/course"


def test_a_course_inside_another_repository_has_not_that_ones_remote(tmp_path):
    git(tmp_path, "init")
    git(tmp_path, "remote", "add", "origin", "https://github.com/outer/repository")
    (tmp_path / "inner").mkdir()
    write_course(tmp_path / "inner", "https://github.com/someone/course")
    assert find_address(tmp_path / "inner") == "https://github.com/someone/course"


def test_outside_github_there_is_no_badge_because_colab_could_not_follow_it(tmp_path):
    path = write_course(tmp_path, "https://gitlab.com/someone/course")
    cells = assemble(path)["notebooks"]
    assert cells[0].source == "# 97 · Demo"
    assert "git clone -q --depth 1 https://gitlab.com/someone/course" in cells[1].source
    badge = assemble(path, "https://github.com/fork/course")["notebooks"][0].source
    assert "/github/fork/course/blob/main/notebooks/97_demo.ipynb" in badge


def bootstrap_of(tmp_path: Path) -> str:
    cells = assemble(write_course(tmp_path, "https://github.com/someone/course"))["notebooks"]
    return next(cell.source for cell in cells if "bootstrap" in cell.tags)


def test_the_bootstrap_cell_is_short_and_does_nothing_outside_colab(tmp_path):
    source = bootstrap_of(tmp_path)
    assert len(source.splitlines()) <= 8
    ran = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        env={"PATH": ""},
        cwd=tmp_path,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_bootstrap_cell_clones_and_installs_on_colab(tmp_path):
    (tmp_path / "google" / "colab").mkdir(parents=True)
    calls = "import subprocess; subprocess.run = lambda command, check: print(' '.join(command))\n"
    source = calls + bootstrap_of(tmp_path) + "\nprint(sys.path[0])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, env=environment, check=True
    )
    clone, install, path = ran.stdout.splitlines()
    assert clone == "git clone -q --depth 1 https://github.com/someone/course /content/course"
    assert install.endswith("-m pip install -q -e /content/course")
    assert path == "/content/course"
