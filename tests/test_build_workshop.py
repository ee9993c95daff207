"""The workshop's zip: what lies in it, and that its scripts ask no network."""

import zipfile
from pathlib import Path

import build_workshop
import pytest
from build_workshop import INSTALL, INSTALL_WINDOWS, course_files, describe, pack

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def archive(tmp_path):
    wheel = tmp_path / "small-1.0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    files = [Path("README.md"), Path("sft_lab/train.py")]
    pack(tmp_path / "kit.zip", files, [wheel], describe(1))
    with zipfile.ZipFile(tmp_path / "kit.zip") as opened:
        yield opened


def test_the_course_its_wheels_and_its_scripts_lie_in_one_folder(archive):
    names = archive.namelist()
    assert all(name.startswith("sft-lab/") for name in names)
    assert {"sft-lab/install.sh", "sft-lab/install.bat", "sft-lab/WORKSHOP.txt"} <= {*names}
    assert "sft-lab/wheels/small-1.0-py3-none-any.whl" in names
    assert archive.read("sft-lab/sft_lab/train.py") == (ROOT / "sft_lab/train.py").read_bytes()


def test_install_sh_can_be_run(archive):
    assert archive.getinfo("sft-lab/install.sh").external_attr >> 16 == 0o755


def test_both_scripts_install_from_the_wheels_alone():
    assert "--no-index --find-links wheels" in INSTALL
    assert "PIP_NO_INDEX=1" in INSTALL_WINDOWS and "PIP_FIND_LINKS=wheels" in INSTALL_WINDOWS


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a copy without git lists no files")
def test_the_whole_course_is_packed_and_nothing_else():
    files = {path.as_posix() for path in course_files(ROOT)}
    assert {"requirements.txt", "notebooks/00_what_happens_when_we_sft.ipynb"} <= files
    assert not [name for name in files if name.startswith((".venv", "reports", ".git/"))]


def test_what_builds_the_package_is_brought_too():
    assert build_workshop.build_requirement().startswith("setuptools==")
