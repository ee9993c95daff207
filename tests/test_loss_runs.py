"""Chapter 12: what its runs are made of, the calibration error, and points of its recorded sweeps
once more."""

import dataclasses
import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from sft_lab.course.loss_runs import (
    VALUE_WEIGHT,
    country_facts,
    encode_facts,
    floored_dft,
    losses_by_name,
    read_values,
    run_ends,
    run_values,
    spoil,
    ungrade_first,
    value_places,
    weigh_values,
)
from sft_lab.course.results import read_results
from sft_lab.labels import IGNORE_INDEX
from sft_lab.metrics import expected_calibration_error
from sft_lab.models import load
from sft_lab.token_losses import dft

ROOT = Path(__file__).resolve().parents[1]
USUAL = {"epochs": 1, "rate": 1.5e-3}


@pytest.fixture(scope="module")
def atlas():
    return load("atlas-base")


@pytest.fixture(scope="module")
def facts():
    return country_facts()


def test_the_value_of_an_answer_is_found_without_its_full_stop(atlas, facts):
    _, tokenizer = atlas
    some = facts["train"][:40] + facts["unknown"][:40]
    for fact, row in zip(some, encode_facts(some, tokenizer), strict=True):
        places = value_places(fact, row, tokenizer)
        said = tokenizer.decode(row.input_ids[places.start : places.stop])
        assert said.strip() == fact.relation.article + fact.value


def test_a_spoilt_fact_has_a_value_of_the_same_kind_that_is_not_its_own(facts):
    spoilt, wrong = spoil(facts["train"], 0.3, seed=1)
    assert 0.2 < sum(wrong) / len(wrong) < 0.4
    for fact, other, is_wrong in zip(facts["train"], spoilt, wrong, strict=True):
        assert dataclasses.replace(other, value=fact.value) == fact
        assert (other.value != fact.value) == is_wrong
    assert spoil(facts["train"], 0.0, seed=1) == (facts["train"], [False] * len(facts["train"]))


def test_only_the_first_token_of_an_answer_loses_its_grade(atlas, facts):
    rows = encode_facts(facts["train"][:5], atlas[1])
    for row, changed in zip(rows, ungrade_first(rows), strict=True):
        first = next(t for t, label in enumerate(row.labels) if label != IGNORE_INDEX)
        assert changed.labels[first] == IGNORE_INDEX and changed.input_ids == row.input_ids
        assert changed.labels[first + 1 :] == row.labels[first + 1 :]


def test_a_floor_of_one_is_cross_entropy_and_of_zero_is_dft():
    torch.manual_seed(0)
    logits, targets = 4 * torch.randn(30, 9, dtype=torch.float64), torch.randint(9, (30,))
    log_p = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(floored_dft(1.0).per_token(logits, targets), -log_p)
    half = floored_dft(0.2).per_token(logits, targets)
    torch.testing.assert_close(half, -log_p * log_p.exp().clamp(min=0.2))
    torch.testing.assert_close(
        floored_dft(0.0).per_token(logits, targets), dft().per_token(logits, targets)
    )


def test_the_slope_of_the_floored_loss_is_its_gradient():
    log_p = torch.linspace(-6, -0.01, 30, dtype=torch.float64).requires_grad_()
    loss = floored_dft(0.1)
    (slope,) = torch.autograd.grad(loss.value(log_p).sum(), log_p)
    torch.testing.assert_close(loss.slope(log_p.detach()), -slope)


def test_tokens_of_values_weigh_more_and_all_others_one(atlas, facts):
    base, tokenizer = atlas
    weights = weigh_values(facts["train"], tokenizer, base.config.vocab_size)
    ids = tokenizer.convert_tokens_to_ids(["<|im_end|>", "The", "."])
    assert weights[ids].tolist() == [1.0, 1.0, 1.0]
    kabul = tokenizer(" Kabul").input_ids
    assert weights[kabul].tolist() == [VALUE_WEIGHT] * len(kabul)
    assert losses_by_name(weights)["weighted"].divisor(torch.tensor(kabul)) == pytest.approx(
        VALUE_WEIGHT * len(kabul)
    )


def test_values_are_read_with_the_true_tokens_before_them(atlas, facts):
    base, tokenizer = atlas
    some = facts["held_out"][:12]
    together = read_values(base, tokenizer, some)
    assert together.nll.shape == together.token_ids.shape
    for place, fact in enumerate(some):
        alone = read_values(base, tokenizer, [fact])  # no padding beside it
        assert alone.confidence[0].item() == pytest.approx(
            together.confidence[place].item(), abs=1e-4
        )
        assert bool(alone.first_right[0]) == bool(together.first_right[place])


# the calibration error


def by_loops(confidence: list[float], right: list[bool], bins: int) -> float:
    """ECE as its definition reads."""
    total = 0.0
    for b in range(bins):
        inside = [
            i
            for i, c in enumerate(confidence)
            if b / bins <= c and (c < (b + 1) / bins or b == bins - 1)
        ]
        if inside:
            sure = sum(confidence[i] for i in inside) / len(inside)
            share = sum(right[i] for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(sure - share)
    return total


@pytest.mark.parametrize("seed", range(50))
def test_the_calibration_error_is_its_definition(seed):
    rng = random.Random(seed)
    bins, count = rng.choice((1, 4, 10, 15)), rng.randint(1, 60)
    confidence = [rng.choice((rng.random(), 0.0, 0.5, 1.0)) for _ in range(count)]
    right = [rng.random() < 0.5 for _ in range(count)]
    found = expected_calibration_error(confidence, right, bins=bins)
    assert found == pytest.approx(by_loops(confidence, right, bins))
    tensors = expected_calibration_error(torch.tensor(confidence), torch.tensor(right), bins=bins)
    assert tensors == pytest.approx(found, abs=1e-6)


def test_a_model_that_is_as_sure_as_right_has_no_error():
    assert expected_calibration_error([0.5] * 4, [True, False, True, False]) == 0.0
    assert expected_calibration_error([1.0] * 3, [False] * 3) == 1.0


@pytest.mark.parametrize(
    ("confidence", "right", "message"),
    [
        ([], [], "one confidence and one outcome"),
        ([0.5], [True, False], "one confidence and one outcome"),
        ([70.0], [True], "not logits or percentages"),
        ([-0.1], [True], "give probabilities"),
        ([np.nan], [True], "give probabilities"),
    ],
)
def test_what_is_no_probability_is_refused(confidence, right, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(confidence, right)


# the recorded sweeps


def test_a_point_of_the_recorded_stops_is_measured_again(atlas, facts):
    base, tokenizer = atlas
    recorded = read_results("12_stop", base)
    setting = {**USUAL, "floor": 0.0, "first_graded": True}
    stops = recorded.measured("log_stop", **setting)
    again = run_ends(base, tokenizer, facts, seed=1, **setting)
    assert min(stops) - 1 < again["log_stop"] < max(stops) + 1
    assert again["stops"] < 0.1


def test_a_point_of_the_recorded_losses_is_measured_again(atlas, facts):
    base, tokenizer = atlas
    recorded = read_results("12_losses", base)
    setting = {**USUAL, "loss": "cross-entropy", "data": "noisy"}
    right = recorded.measured("right", **setting)
    again = run_values(base, tokenizer, facts, seed=0, **setting)
    assert min(right) - 0.1 < again["right"] < max(right) + 0.1


@pytest.mark.parametrize("name", ["12_stop", "12_losses"])
def test_a_sweep_is_recorded_whole(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools/experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = read_results(name).rows
    assert len(rows) == len(module.points())
    for point in module.points():
        assert any(point.items() <= row.items() for row in rows)


def test_the_real_model_was_tuned_with_every_loss_on_three_seeds():
    rows = read_results("12_smollm2").rows
    seeds = {
        loss: [row["seed"] for row in rows if row["loss"] == loss]
        for loss in ("cross-entropy", "DFT", "DFT, floor 0.1")
    }
    assert all(found == [0, 1, 2] for found in seeds.values())
