"""Recorded sweeps: what takes longer than a chapter may, one measured row for each setting and
seed.

`tools/experiments/NN_name.py` runs a sweep and writes `data/results/NN_name.json`; the chapter
reads it, draws it, and runs one or two of its points again. A row is a point (its settings, `seed`
among them) and what was measured there. The file says when, by which command, on which processor
and from which weights; rows of other weights are refused, never mixed.
"""

import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from sft_lab.files import write_json
from sft_lab.fingerprint import fingerprint

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "data" / "results"
Row = dict[str, Any]


@dataclass
class Results:
    """A recorded sweep. weights: a hash of the fingerprint of the model it began from."""

    made: str
    command: str
    machine: str
    model: str
    weights: str
    rows: list[Row]

    def select(self, **settings: Any) -> list[Row]:
        """The rows with these settings, in the order of their seeds. KeyError when there is none:
        a typing error would otherwise look like an empty result."""
        found = [
            row
            for row in self.rows
            if all(row.get(name) == value for name, value in settings.items())
        ]
        if not found:
            raise KeyError(f"no row with {settings}; settings of the first: {self.rows[:1]}")
        return sorted(found, key=lambda row: row["seed"])

    def measured(self, measure: str, **settings: Any) -> list[float]:
        """One measure of the rows with these settings, a number a seed, in the order of the
        seeds."""
        return [row[measure] for row in self.select(**settings)]


def hash_weights(model: torch.nn.Module) -> str:
    """16 hexadecimal digits that stand for the weights a sweep begins from."""
    text = fingerprint(model.state_dict().items())
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_results(
    name: str, model: torch.nn.Module | None = None, *, folder: Path = FOLDER
) -> Results:
    """The recorded sweep `name`, for example "12_losses". With `model`: ValueError unless it began
    from these weights."""
    path = folder / f"{name}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run python tools/experiments/{name}.py")
    results = Results(**json.loads(path.read_text("utf-8")))
    if model is not None and hash_weights(model) != results.weights:
        raise ValueError(
            f"{path} was recorded from other weights of {results.model} than these: delete it and "
            f"run {results.command}"
        )
    return results


def sweep(
    name: str,
    points: Iterable[Row],
    run: Callable[[Row], Row],
    *,
    model: torch.nn.Module,
    model_name: str = "atlas-base",
    folder: Path = FOLDER,
) -> Results:
    """Run every point that is not recorded yet, and keep each as soon as it is measured.

    points: settings, each with a `seed`. run: measures a point, with numbers and texts as values.
    An interrupted sweep goes on where it ended. Points that are no longer asked for are dropped.
    """
    points = list(points)
    path = folder / f"{name}.json"
    results = Results(
        date.today().isoformat(),
        shlex.join(["python", *_command()]),
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        model_name,
        hash_weights(model),
        [],
    )
    if path.exists():
        results.rows = read_results(name, model, folder=folder).rows
    kept = [next((row for row in results.rows if _is_at(row, point)), None) for point in points]
    folder.mkdir(parents=True, exist_ok=True)
    for place, point in enumerate(tqdm(points, desc=name, unit="run")):
        if kept[place] is None:
            kept[place] = {**point, **run(point)}
            results.rows = [row for row in kept if row is not None]
            write_json(path, asdict(results))
    results.rows = kept
    write_json(path, asdict(results))
    return results


def _is_at(row: Row, point: Row) -> bool:
    return all(name in row and row[name] == value for name, value in point.items())


def _command() -> list[str]:
    """The command line, with the script as seen from the root of the repository."""
    script, *arguments = sys.argv
    path = Path(script).resolve()
    inside = path.is_relative_to(ROOT)
    return [path.relative_to(ROOT).as_posix() if inside else path.name, *arguments]
