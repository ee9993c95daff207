"""Recorded sweeps: each point once, kept at once, and never mixed with other weights."""

import os

import pytest
import torch

from sft_lab.course.results import ROOT, read_results, sweep

POINTS = [{"arm": arm, "seed": seed} for arm in ("a", "b") for seed in (2, 0, 1)]


def model_of(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Linear(4, 4)


def measure(point: dict) -> dict:
    return {"loss": point["seed"] + (0.5 if point["arm"] == "b" else 0.0)}


def test_rows_come_in_the_order_of_their_seeds(tmp_path):
    sweep("x", POINTS, measure, model=model_of(0), folder=tmp_path)
    assert read_results("x", folder=tmp_path).measured("loss", arm="b") == [0.5, 1.5, 2.5]
    with pytest.raises(KeyError, match="no row with"):
        read_results("x", folder=tmp_path).select(arm="c")


def test_an_interrupted_sweep_goes_on_and_runs_no_point_twice(tmp_path):
    seen = []

    def stops_at_the_fourth(point):
        seen.append(point)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return measure(point)

    with pytest.raises(KeyboardInterrupt):
        sweep("x", POINTS, stops_at_the_fourth, model=model_of(0), folder=tmp_path)
    assert len(read_results("x", folder=tmp_path).rows) == 3
    results = sweep("x", POINTS, stops_at_the_fourth, model=model_of(0), folder=tmp_path)
    assert [point for point in seen if seen.count(point) > 1] == [POINTS[3]] * 2
    assert results.rows == [{**point, **measure(point)} for point in POINTS]


def test_several_processes_measure_the_same(tmp_path, monkeypatch):
    alone = sweep("x", POINTS, measure, model=model_of(0), folder=tmp_path / "alone")
    monkeypatch.setenv("SFT_LAB_JOBS", "2")
    parent = os.getpid()

    def measure_elsewhere(point):
        assert os.getpid() != parent and torch.get_num_threads() == 1
        return measure(point)

    together = sweep("x", POINTS, measure_elsewhere, model=model_of(0), folder=tmp_path / "pool")
    assert together.rows == alone.rows


def test_a_sweep_that_went_on_elsewhere_names_both_machines(tmp_path, monkeypatch):
    sweep("x", POINTS[:2], measure, model=model_of(0), folder=tmp_path)
    here = read_results("x", folder=tmp_path).machine
    monkeypatch.setattr("sft_lab.course.results.os.cpu_count", lambda: 999)
    for _ in range(2):
        sweep("x", POINTS, measure, model=model_of(0), folder=tmp_path)
    first, second = read_results("x", folder=tmp_path).machine.split("; ")
    assert first == here and "999 cores" in second


def test_rows_of_other_weights_are_refused(tmp_path):
    sweep("x", POINTS, measure, model=model_of(0), folder=tmp_path)
    with pytest.raises(ValueError, match="other weights of atlas-base"):
        read_results("x", model_of(1), folder=tmp_path)
    with pytest.raises(ValueError, match="other weights"):
        sweep("x", POINTS, measure, model=model_of(1), folder=tmp_path)


def test_points_that_are_no_longer_asked_for_are_dropped(tmp_path):
    sweep("x", POINTS, measure, model=model_of(0), folder=tmp_path)
    assert len(sweep("x", POINTS[:2], measure, model=model_of(0), folder=tmp_path).rows) == 2
    assert len(read_results("x", folder=tmp_path).rows) == 2


def test_a_missing_sweep_names_its_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="python tools/experiments/x.py"):
        read_results("x", folder=tmp_path)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "data" / "results").glob("*.json")), ids=lambda p: p.stem
)
def test_a_recorded_sweep_has_its_command_and_three_seeds_a_setting(path):
    results = read_results(path.stem)
    script = ROOT / results.command.removeprefix("python ").split()[0]
    assert script.exists(), results.command
    assert len({row["seed"] for row in results.rows}) >= 3
