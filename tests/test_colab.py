"""Every notebook opens in Colab: one address of the repository, one cell that does nothing anywhere
else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chapter_source import BuildError, assemble


def write_course(root: Path, address: str) -> Path:
    """A course with one chapter of two cells; returns the chapter's path."""
    (root / "chapters").mkdir()
    (root / "pyproject.toml").write_text(
        f'[project.urls]\nRepository = "{address}"\n', encoding="utf-8"
    )
    path = root / "chapters" / "97_demo.py"
    path.write_text("# %% [markdown]\n# # 97 · Demo\n\n# %%\nprint(1)\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "address", ["", "https://example.org/someone/course", "https://github.com/someone"]
)
def test_an_address_that_is_not_a_github_repository_is_refused(tmp_path, address):
    with pytest.raises(BuildError, match="expected https://github.com/OWNER/NAME"):
        assemble(write_course(tmp_path, address))


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
