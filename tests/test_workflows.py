"""The course where others run it: workflows, container, Binder. None of these is started here;
what they call must be there."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read_steps(path: Path) -> list[dict]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_make_target_that_a_workflow_calls_is_there(path):
    targets = re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    called = [
        name
        for step in read_steps(path)
        for name in re.findall(r"\bmake ([\w-]+)", step.get("run", ""))
    ]
    assert called and {*called} <= {*targets}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_gets_no_more_rights_than_it_needs(path):
    rights = yaml.safe_load(path.read_text(encoding="utf-8"))["permissions"]
    assert rights in ({"contents": "read"}, {"contents": "read", "issues": "write"})


def test_the_two_commands_run_on_linux_macos_and_windows():
    jobs = yaml.safe_load((WORKFLOWS[0]).read_text(encoding="utf-8"))["jobs"]
    assert jobs["make"]["strategy"]["matrix"]["os"] == ["ubuntu-latest", "macos-latest"]
    assert jobs["pip"]["runs-on"] == "windows-latest"
    commands = [step.get("run", "") for step in jobs["pip"]["steps"]]
    for module in ("sft_lab.demo", "pytest -n 2 tests", "notebooks", "solutions"):
        assert [line for line in commands if module in line], module


def test_container_and_binder_install_what_is_tested():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make .venv/installed"
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).is_file()
    for name in ("postBuild", "start"):
        assert os.access(ROOT / ".binder" / name, os.X_OK)
    assert "-r requirements.txt" in (ROOT / ".binder" / "postBuild").read_text()
