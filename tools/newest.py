"""Install the newest releases of everything in requirements.txt beside the course, and say what
changed: the first half of `make test-newest`.

    python tools/newest.py FOLDER      FOLDER is the environment; build/newest holds the lists
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTS = ROOT / "build" / "newest"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    python = Path(sys.argv[1]) / "bin" / "python"
    LISTS.mkdir(parents=True, exist_ok=True)
    pinned = read_pins((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    wanted = LISTS / "requirements.txt"
    wanted.write_text("".join(f"{name}\n" for name in pinned), encoding="utf-8")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--upgrade", "-r", wanted], check=True)
    subprocess.run([*install, "--no-deps", "-e", ROOT], check=True)
    frozen = subprocess.run(
        [python, "-m", "pip", "freeze", "--exclude-editable"],
        check=True,
        capture_output=True,
        text=True,
    )
    changes = list_changes(pinned, read_pins(frozen.stdout))
    (LISTS / "changes.txt").write_text("\n".join(changes) + "\n", encoding="utf-8")
    print("\n".join(changes))


def read_pins(text: str) -> dict[str, str]:
    """Version by name of the lines `name==version`; names as pip compares them."""
    found = re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def list_changes(pinned: dict[str, str], newest: dict[str, str]) -> list[str]:
    """A line for each package whose version differs; one that says so where none does."""
    lines = [
        f"{name} {version} -> {newest[name]}"
        for name, version in pinned.items()
        if name in newest and newest[name] != version
    ]
    return lines or ["Nothing is newer than requirements.txt"]


if __name__ == "__main__":
    main()
