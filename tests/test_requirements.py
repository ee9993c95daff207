"""requirements.txt is whole: everything that an installed package needs is pinned there, so that a
machine without network, or one of next year, gets the environment that was tested."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def read_pins() -> dict[str, str]:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    found = re.findall(r"^([\w.-]+)==(\S+)$", text, flags=re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def needed_by(name: str) -> list[str]:
    """The packages that an installed one requires on this machine, without its extras."""
    try:
        lines = distribution(name).requires or []
    except PackageNotFoundError:  # of another system, such as colorama on Windows
        return []
    wanted = [Requirement(line) for line in lines]
    return [
        canonicalize_name(one.name)
        for one in wanted
        if one.marker is None or one.marker.evaluate({"extra": ""})
    ]


def test_everything_that_a_pinned_package_needs_is_pinned():
    pins = read_pins()
    needed = {(one, name) for name in pins for one in needed_by(name)}
    # a CUDA build of torch brings its own libraries, which no CPU build has
    cuda = ("nvidia-", "cuda-", "triton")
    missing = {one: name for one, name in needed if one not in pins and not one.startswith(cuda)}
    assert missing == {}


def test_the_first_line_is_torch_and_the_last_the_course():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert lines[0].startswith("torch==") and lines[-2:] == ["-e", "."]
