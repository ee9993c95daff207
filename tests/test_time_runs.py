"""Chapter 07b: the ways that are timed compute one loss, and a race keeps the fastest try."""

import copy

import pytest
import torch

from sft_lab import atlas
from sft_lab.batches import pad_batch
from sft_lab.course import time_runs
from sft_lab.course.time_runs import head_where_graded, padded_share, race, whole_head
from sft_lab.kernels import short_rows
from sft_lab.labels import encode_conversations
from sft_lab.models import load


@pytest.fixture(scope="module")
def model_and_tokenizer():
    return load("atlas-base")


@pytest.fixture(scope="module")
def examples(model_and_tokenizer):
    return encode_conversations(atlas.training_conversations(seed=2)[:8], model_and_tokenizer[1])


def test_both_heads_give_one_loss_and_one_gradient(model_and_tokenizer, examples):
    base, tokenizer = model_and_tokenizer
    batch = pad_batch(examples, tokenizer.pad_token_id)
    gradients = []
    for loss_of in (whole_head, head_where_graded):
        model = copy.deepcopy(base)
        loss = loss_of(model, batch)
        loss.backward()
        gradients.append((loss.detach(), model.lm_head.weight.grad))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_every_way_takes_time_in_every_phase_and_undoes_its_switches(model_and_tokenizer, examples):
    base, tokenizer = model_and_tokenizer
    batch = pad_batch(examples, tokenizer.pad_token_id)
    handles = short_rows.handles
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    phases = time_runs.plain_step_times(
        base, [batch], loss_of=head_where_graded, keep_memory=True, written_out=True
    )
    assert set(phases) == {"forward", "backward", "update"} and min(phases.values()) > 0
    of_trl = time_runs.trl_step_times(
        base, tokenizer, examples, 4, bf16=False, activation_checkpointing=False
    )
    assert of_trl["step"] > 0 and short_rows.handles is handles
    for name, weight in base.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_a_race_runs_the_ways_in_turn_and_keeps_the_fastest_try():
    seen, seconds = [], {"a": iter([5.0, 3.0, 4.0]), "b": iter([1.0, 2.0, 2.0])}

    def run(name):
        seen.append(name)
        return {"forward": 1.0, "backward": next(seconds[name])}

    best = race({"a": lambda: run("a"), "b": lambda: run("b")}, rounds=3)
    assert seen == ["a", "b"] * 3
    assert best == {
        "a": {"forward": 1.0, "backward": 3.0},
        "b": {"forward": 1.0, "backward": 1.0},
    }


def test_padding_is_the_share_of_positions_beyond_the_lengths():
    assert padded_share([[0, 1], [2]], [2, 4, 5]) == pytest.approx(2 / 13)
    assert padded_share([[0], [1], [2]], [2, 4, 5]) == 0
