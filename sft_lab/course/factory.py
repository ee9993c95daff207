"""LLaMA-Factory from a notebook: its commands are really run where it is installed, and what they
left is read from a recording where it is not.

LLaMA-Factory needs older libraries than the course, so it lives in an environment beside ours,
which `make llamafactory` builds. A recording (docs/recorded/llamafactory) is marked as one wherever
it is used, and holds for the settings it was made with: other settings are refused.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from sft_lab.files import write_json, write_text

VERSION = "0.9.5"
ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv" / "llamafactory"
RECORDS = ROOT / "docs" / "recorded" / "llamafactory"
INSTALL = "make llamafactory"
# of what a command leaves: no optimizer state, no pickle, no merged model
KEPT = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "trainer_log.jsonl",
    "trainer_state.json",
    "config.json",
    "generation_config.json",
    "Modelfile",
)
EVENTS = "events.out.tfevents.recorded"
Settings = dict[str, Any]


class FactoryError(RuntimeError):
    """A command of LLaMA-Factory failed, or there is no recording of it."""


def is_installed() -> bool:
    """Whether `make llamafactory` was run, so that commands really run here."""
    return (ENVIRONMENT / "installed").exists()


def say_source() -> str:
    """One line: do the commands of this chapter run here, or are their outputs recorded?"""
    if is_installed():
        return f"LLaMA-Factory {VERSION} is installed: its commands run here."
    made = json.loads((RECORDS / "made.json").read_text("utf-8"))
    return (
        f"RECORDED: LLaMA-Factory is not installed here. What its commands left was recorded with "
        f"version {made['version']} on {made['date']}. To run them yourself, type: {INSTALL}"
    )


def run(command: str, settings: Settings, folder: Path, *, record: str, typed: str = "") -> str:
    """Run `llamafactory-cli COMMAND RECORD.yaml` in `folder`; returns what it printed.

    The settings are written to folder/RECORD.yaml, and paths among them are relative to the folder.
    typed: what stands on standard input, for `chat`. Without LLaMA-Factory the recording of this
    name is put into the output folder and its text returned. FactoryError when the command fails,
    with its last lines, and when the recording was made with other settings.
    """
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    write_text(folder / f"{record}.yaml", text)
    output = settings.get("output_dir") or settings.get("export_dir")
    if not is_installed():
        return _replay(record, {"command": command, "typed": typed, **settings}, folder, output)
    words = [str(ENVIRONMENT / "bin" / "llamafactory-cli"), command, f"{record}.yaml"]
    printed = _start(words, folder, typed, output)
    if _is_recording():
        asked = {"command": command, "typed": typed, **settings}
        _record(record, asked, printed, folder / output if output else None)
    return printed


def ask_worker(questions: dict[str, Settings], folder: Path, *, record: str) -> dict[str, Any]:
    """Answers of `factory_worker.py`, by the names of the questions: one start for all of them."""

    def ask() -> dict[str, Any]:
        asked, answered = folder / f"{record}.questions.json", folder / f"{record}.answers.json"
        write_json(asked, questions)
        worker = Path(__file__).with_name("factory_worker.py")
        words = [str(ENVIRONMENT / "bin" / "python"), str(worker), str(asked), str(answered)]
        _start(words, folder)
        return json.loads(answered.read_text("utf-8"))

    return measured(record, ask, of=questions)


def measured(record: str, compute: Callable[[], Any], *, of: Any = None) -> Any:
    """What `compute` finds out with LLaMA-Factory's help: numbers, texts, lists of them.

    Without LLaMA-Factory the recorded value is returned. of: what it depends on; a recording of
    something else raises FactoryError.
    """
    path = RECORDS / f"{record}.json"
    if is_installed():
        value = compute()
        if _is_recording():
            write_json(path, {"of": of, "value": value})
        return value
    recorded = json.loads(path.read_text("utf-8"))
    if recorded["of"] != json.loads(json.dumps(of)):
        raise FactoryError(_explain_other(record))
    return recorded["value"]


def read_extras() -> list[str]:
    """The extras, as in pip install "llamafactory[extra]", that the installed package declares."""
    packages = [str(path) for path in (ENVIRONMENT / "lib").glob("python*/site-packages")]
    (package,) = metadata.distributions(name="llamafactory", path=packages)
    return package.metadata.get_all("Provides-Extra") or []


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of trainer_log.jsonl that `llamafactory-cli train` leaves in its output folder."""
    lines = (folder / "trainer_log.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def read_state(folder: Path) -> list[dict[str, Any]]:
    """The log_history of trainer_state.json: a dict for each logged step or evaluation."""
    return json.loads((folder / "trainer_state.json").read_text("utf-8"))["log_history"]


def _start(words: list[str], folder: Path, typed: str = "", output: str | None = None) -> str:
    done = subprocess.run(
        words,
        cwd=folder,
        env=_environment(folder, output),
        input=typed,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).splitlines()[-8:])
        raise FactoryError(f"{Path(words[0]).name} {' '.join(words[1:])} failed:\n{last}")
    return done.stdout


def _environment(folder: Path, output: str | None) -> dict[str, str]:
    """The variables of a command: offline, on the CPU, caches in the folder, and none of our
    packages before its own."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {
        **own,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
        "TENSORBOARD_LOGGING_DIR": str(folder / (output or ".") / "runs"),
        "TOKENIZERS_PARALLELISM": "false",
        "MPLBACKEND": "agg",
        "PYTHONIOENCODING": "utf-8",
    }


def _is_recording() -> bool:
    """Whether outputs are to be recorded anew; tools/record_llamafactory.py sets the variable."""
    return os.environ.get("SFT_LAB_RECORD_FACTORY") == "1"


def _record(record: str, asked: Settings, printed: str, output: Path | None) -> None:
    kept = RECORDS / record
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    write_json(kept / "asked.json", asked)
    write_text(kept / "printed.txt", printed)
    for name in KEPT if output else ():
        if (output / name).exists():
            shutil.copy(output / name, kept / name)
    events = list((output / "runs").glob("*tfevents*")) if output else []
    if events:  # the largest: a last evaluation has a file of its own. Names hold time and machine
        shutil.copy(max(events, key=lambda path: path.stat().st_size), kept / EVENTS)


def _replay(record: str, asked: Settings, folder: Path, output: str | None) -> str:
    kept = RECORDS / record
    if not (kept / "asked.json").exists():
        raise FactoryError(_explain_other(record))
    if json.loads((kept / "asked.json").read_text("utf-8")) != json.loads(json.dumps(asked)):
        raise FactoryError(_explain_other(record))
    if output:
        for path in kept.iterdir():
            place = folder / output / ("runs" if path.name == EVENTS else "")
            place.mkdir(parents=True, exist_ok=True)
            if path.name in (*KEPT, EVENTS):
                shutil.copy(path, place / path.name)
    return (kept / "printed.txt").read_text("utf-8")


def _explain_other(record: str) -> str:
    return (
        f"there is no recording of {record!r} with these settings, and LLaMA-Factory is not "
        f"installed here: take the chapter's settings, or install it: {INSTALL}"
    )
