"""A point of each recorded sweep of chapter 11b, measured again, falls into its band."""

import importlib.util
from pathlib import Path

import pytest

from sft_lab.course.results import read_results

ROOT = Path(__file__).resolve().parents[1]


def load_experiment(name: str):
    path = ROOT / "tools" / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def band(rows, measure: str) -> tuple[float, float]:
    values = [row[measure] for row in rows]
    return min(values) - 0.15, max(values) + 0.15


@pytest.mark.parametrize(
    ("name", "point", "measures"),
    [
        (
            "11b_wordings",
            {"start": "base", "wordings": 8, "taught": "known facts", "epochs": 1},
            ("known facts", "own words", "backwards"),
        ),
        (
            "11b_lessons",
            {"experiment": "follow-up", "arm": "two turns"},
            ("first", "second", "third"),
        ),
    ],
)
def test_a_point_falls_into_the_recorded_band(name, point, measures):
    experiment = load_experiment(name)
    rows = read_results(name, experiment.base).select(**point)
    found = experiment.run({**point, "seed": 0})
    for measure in measures:
        low, high = band(rows, measure)
        assert low <= found[measure] <= high, measure


@pytest.mark.parametrize("name", ["11b_wordings", "11b_lessons"])
def test_every_point_is_recorded(name):
    experiment, results = load_experiment(name), read_results(name)
    assert len(results.rows) == len(experiment.points())
    for point in experiment.points():
        assert len(results.select(**point)) == 1
