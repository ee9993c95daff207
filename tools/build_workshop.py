"""Build a zip for a workshop without network: the course, its page edition, and the wheels of its
environment.

    python tools/build_workshop.py [--out build/sft-lab-workshop.zip]

Wheels belong to a system and a Python version: the zip serves machines like the one it was built
on, and its first page says which. Run it once on each system that the participants bring.
"""

import argparse
import platform
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import zipfile
from pathlib import Path

from tqdm.auto import tqdm

from sft_lab.files import whole_file

ROOT = Path(__file__).resolve().parent.parent
TOP = "sft-lab"  # the folder in the zip
STORED = {".whl", ".png", ".ipynb", ".safetensors"}  # packed already, or quick to read instead
INSTALL = """#!/usr/bin/env bash
# Installs the course from the wheels beside this file; needs no network.
set -euo pipefail
cd "$(dirname "$0")"
"${PYTHON:-python3}" -m venv .venv
.venv/bin/python -m pip install --no-index --find-links wheels -r requirements.txt
touch .venv/installed
.venv/bin/python -m sft_lab.demo
echo "Ready: .venv/bin/jupyter lab notebooks"
"""
INSTALL_WINDOWS = """@echo off
rem Installs the course from the wheels beside this file; needs no network.
cd /d "%~dp0"
py -m venv .venv || exit /b 1
set PIP_NO_INDEX=1
set PIP_FIND_LINKS=wheels
.venv\\Scripts\\python -m pip install -r requirements.txt || exit /b 1
.venv\\Scripts\\python -m sft_lab.demo || exit /b 1
echo Ready: .venv\\Scripts\\jupyter lab notebooks
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "sft-lab-workshop.zip")
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wheels = build_wheels(Path(folder))
        with whole_file(options.out) as unfinished:
            pack(unfinished, course_files(ROOT), wheels, describe(len(wheels)))
    size = options.out.stat().st_size / 2**20
    print(f"{options.out}: {len(wheels)} wheels, {size:,.0f} MiB. Unpack it, run install.sh")


def build_wheels(folder: Path) -> list[Path]:
    """Wheels of everything in requirements.txt and of what builds the course itself."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = folder / "requirements.txt"
    # the course itself is installed from its folder, which needs setuptools
    kept = [line for line in lines if line.strip() and not line.startswith("-e")]
    wanted.write_text("\n".join([*kept, build_requirement()]) + "\n", encoding="utf-8")
    wheels = folder / "wheels"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        + ["--wheel-dir", str(wheels), "-r", str(wanted)],
        check=True,
    )
    return sorted(wheels.glob("*.whl"))


def build_requirement() -> str:
    """What pyproject.toml names to build the package, such as setuptools==84.2.1."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [requirement] = settings["build-system"]["requires"]
    return requirement


def course_files(root: Path) -> list[Path]:
    """The files of the repository, and the page edition where it was built; from `root`."""
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-z"], check=True, capture_output=True, text=True
    )
    files = [Path(name) for name in listed.stdout.split("\0") if name]
    book = root / "build" / "book" / "html"
    pages = [path.relative_to(root) for path in sorted(book.rglob("*")) if path.is_file()]
    return [path for path in files if (root / path).is_file()] + pages


def pack(target: Path, files: list[Path], wheels: list[Path], words: str) -> None:
    """Write the zip."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (("install.sh", INSTALL), ("install.bat", INSTALL_WINDOWS)):
            entry = zipfile.ZipInfo(f"{TOP}/{name}", date_time=(2026, 1, 1, 0, 0, 0))
            entry.external_attr = 0o755 << 16  # install.sh can be run
            archive.writestr(entry, text)
        archive.writestr(f"{TOP}/WORKSHOP.txt", words)
        for path in tqdm(files, desc="course", unit="file", leave=False):
            place = path.as_posix().replace("build/book/html/", "book/", 1)
            archive.write(ROOT / path, f"{TOP}/{place}", compression(path))
        for wheel in tqdm(wheels, desc="wheels", unit="wheel", leave=False):
            archive.write(wheel, f"{TOP}/wheels/{wheel.name}", zipfile.ZIP_STORED)


def compression(path: Path) -> int:
    """How a file is packed: what is packed already is stored as it is."""
    return zipfile.ZIP_STORED if path.suffix in STORED else zipfile.ZIP_DEFLATED


def describe(count: int) -> str:
    """The first page: for which machines the wheels are, and what to do."""
    version = ".".join(map(str, sys.version_info[:2]))
    return (
        f"SFT Lab, for a workshop without network.\n\n"
        f"The {count} wheels serve {sysconfig.get_platform()} with Python {version} "
        f"(built on {platform.system()} {platform.release()}).\n\n"
        "Linux, macOS:  bash install.sh      Windows:  install.bat\n"
        "Then:          make lab, or .venv/bin/jupyter lab notebooks\n"
        "To read only:  book/index.html in any browser\n"
    )


if __name__ == "__main__":
    main()
