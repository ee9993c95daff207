"""Recorded sweeps: what takes longer than a chapter may, one measured row for each setting and
seed.

`tools/experiments/NN_name.py` runs a sweep and writes `data/results/NN_name.json`; the chapter
reads it, draws it, and runs one or two of its points again. A row is a point (its settings, `seed`
among them) and what was measured there. The file says when, by which command, on which machines
and from which weights; rows of other weights are refused, never mixed.
"""

import hashlib
import json
import multiprocessing
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    jobs: int | None = None,
) -> Results:
    """Run every point that is not recorded yet, and keep each as soon as it is measured.

    points: settings, each with a `seed`. run: measures a point, with numbers and texts as values.
    An interrupted sweep goes on where it ended. Points that are no longer asked for are dropped.
    jobs: processes that measure at once (default: SFT_LAB_JOBS, else 1), a thread each; on a CPU.
    """
    points = list(points)
    jobs = jobs or int(os.environ.get("SFT_LAB_JOBS", "1"))
    path = folder / f"{name}.json"
    results = Results(
        date.today().isoformat(),
        shlex.join(["python", *_command()]),
        _describe_machine(model),
        model_name,
        hash_weights(model),
        [],
    )
    if path.exists():
        before = read_results(name, model, folder=folder)
        results.rows = before.rows
        machines = dict.fromkeys((*before.machine.split("; "), results.machine))
        results.machine = "; ".join(machines)
    kept = [next((row for row in results.rows if _is_at(row, point)), None) for point in points]
    folder.mkdir(parents=True, exist_ok=True)
    open_points = [(place, point) for place, point in enumerate(points) if kept[place] is None]
    measured = _measure(run, open_points, jobs)
    for place, row in tqdm(measured, desc=name, unit="run", total=len(open_points)):
        kept[place] = {**points[place], **row}
        results.rows = [row for row in kept if row is not None]
        write_json(path, asdict(results))
    results.rows = kept
    write_json(path, asdict(results))
    return results


def _measure(
    run: Callable[[Row], Row], points: Sequence[tuple[int, Row]], jobs: int
) -> Iterator[tuple[int, Row]]:
    """Place and measures of each point, as they come."""
    if jobs == 1:
        for place, point in points:
            yield place, run(point)
        return
    # a forked process has the model and `run` at once, which could not be sent to it
    fork = multiprocessing.get_context("fork")
    with fork.Pool(jobs, initializer=_begin_process, initargs=(run,)) as pool:
        yield from pool.imap_unordered(_measure_point, points)


_run_here: Callable[[Row], Row] | None = None  # what a process of the pool measures with


def _begin_process(run: Callable[[Row], Row]) -> None:
    global _run_here
    _run_here = run
    torch.set_num_threads(1)


def _measure_point(numbered: tuple[int, Row]) -> tuple[int, Row]:
    place, point = numbered
    return place, _run_here(point)


def _describe_machine(model: torch.nn.Module) -> str:
    device = next(model.parameters()).device
    place = f"{platform.machine()}, {os.cpu_count()} cores"
    if device.type == "cuda":
        place = torch.cuda.get_device_name(device)
    return f"{place}, torch {torch.__version__}"


def _is_at(row: Row, point: Row) -> bool:
    return all(name in row and row[name] == value for name, value in point.items())


def _command() -> list[str]:
    """The command line, with the script as seen from the root of the repository."""
    script, *arguments = sys.argv
    path = Path(script).resolve()
    inside = path.is_relative_to(ROOT)
    return [path.relative_to(ROOT).as_posix() if inside else path.name, *arguments]
