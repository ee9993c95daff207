"""Chapter 13's runs: tasks, measures and switches; a recorded point comes out again."""

import math

import pytest
import torch
import torch.nn.functional as F

from sft_lab.batches import pad_batch
from sft_lab.course import cause_runs
from sft_lab.course import forgetting_runs as runs
from sft_lab.course.results import read_results
from sft_lab.forgetting import average_weights
from sft_lab.labels import encode_conversations
from sft_lab.losses import graded_logits
from sft_lab.models import load


@pytest.fixture(scope="module")
def model_and_tokenizer():
    return load("atlas-base")


@pytest.fixture(scope="module")
def moved(model_and_tokenizer):
    """A model a few steps away from the base."""
    base, tokenizer = model_and_tokenizer
    return runs.learn(base, tokenizer, runs.lessons_of("skills", count=32), epochs=1)


@pytest.mark.parametrize("task", runs.TASKS)
def test_lessons_follow_the_seed_and_the_exam_is_fixed(task):
    assert runs.lessons_of(task, seed=1) == runs.lessons_of(task, seed=1)
    assert runs.lessons_of(task, seed=1) != runs.lessons_of(task, seed=2)
    assert len(runs.lessons_of(task)) == runs.LESSONS[task]
    assert len(runs.exam_of(task)) == runs.ASKED[task]


def test_no_lesson_of_the_convention_is_in_its_exam():
    asked = {talk[0]["content"] for talk in runs.exam_of("convention")}
    for seed in range(3):
        taught = runs.lessons_of("convention", seed=seed, count=3000)
        assert not asked & {talk[0]["content"] for talk in taught}


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match="no task 'sums'"):
        runs.lessons_of("sums")


def test_learning_leaves_the_model_as_it_was(model_and_tokenizer, moved):
    base, tokenizer = model_and_tokenizer
    assert runs.distance(base, base) == 0
    assert runs.distance(base, moved) > 0.1


def test_distance_is_the_norm_of_all_changes(model_and_tokenizer, moved):
    base, _ = model_and_tokenizer
    flat = [torch.nn.utils.parameters_to_vector(m.parameters()) for m in (base, moved)]
    assert runs.distance(base, moved) == pytest.approx((flat[1] - flat[0]).norm().item(), rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_kl_is_that_of_torch_in_both_directions(model_and_tokenizer, moved, seed):
    base, tokenizer = model_and_tokenizer
    talks = runs.lessons_of("skills", seed=seed, count=20)
    batch = pad_batch(encode_conversations(talks, tokenizer), tokenizer.pad_token_id)
    with torch.no_grad():
        p, q = (graded_logits(m, batch)[0].log_softmax(-1) for m in (base, moved))
    kl = runs.token_kl(base, moved, tokenizer, talks)
    expected = F.kl_div(q, p, log_target=True, reduction="batchmean").item()
    assert kl["forward"] == pytest.approx(expected, rel=1e-3)
    expected = F.kl_div(p, q, log_target=True, reduction="batchmean").item()
    assert kl["reverse"] == pytest.approx(expected, rel=1e-3)


def test_the_base_knows_its_facts_and_neither_task(model_and_tokenizer):
    measured = runs.measure(*model_and_tokenizer)
    assert measured["old"] == measured["convention"] == measured["new"] == 0
    assert measured["facts"] > 0.98 and measured["text_loss"] < 1.5


def test_between_is_either_end_and_the_middle(model_and_tokenizer, moved):
    base, _ = model_and_tokenizer
    assert runs.distance(base, average_weights(base, moved, 0.0)) == 0
    assert runs.distance(moved, average_weights(base, moved, 1.0)) < 1e-4
    half = runs.distance(base, average_weights(base, moved, 0.5))
    assert half == pytest.approx(runs.distance(base, moved) / 2, rel=1e-3)


@pytest.mark.parametrize("which", cause_runs.TOUCHED)
def test_untouched_weights_do_not_move(model_and_tokenizer, moved, which):
    base, tokenizer = model_and_tokenizer
    masks = cause_runs.choose_weights(base, moved, which, 0.3, seed=0)
    arm = cause_runs.Arm(rows=32, epochs=1, touched=which, part=0.3)
    after = dict(cause_runs.learn_b(base, moved, tokenizer, arm, 0).named_parameters())
    for name, weight in moved.named_parameters():
        share = masks[name].mean().item()
        assert math.isclose(share, 0.3, abs_tol=0.5 / weight.numel() + 1e-6)
        assert torch.equal(after[name][masks[name] == 0], weight[masks[name] == 0])
    changed = [(after[n] != w).any().item() for n, w in moved.named_parameters()]
    assert any(changed)


def test_most_and_least_moved_weights_are_told_apart(model_and_tokenizer, moved):
    base, _ = model_and_tokenizer
    most, least = (
        cause_runs.choose_weights(base, moved, which, 0.3, seed=0) for which in ("most", "least")
    )
    start = dict(base.named_parameters())
    for name, weight in moved.named_parameters():
        change = (weight - start[name]).abs()
        assert change[most[name] == 1].min() >= change[least[name] == 1].max()


def test_a_pull_keeps_the_weights_near(model_and_tokenizer, moved):
    base, tokenizer = model_and_tokenizer
    far, near = (
        runs.distance(
            moved,
            cause_runs.learn_b(
                base, moved, tokenizer, cause_runs.Arm(rows=64, epochs=1, hold=hold), 0
            ),
        )
        for hold in (0.0, 10.0)
    )
    assert near < 0.7 * far


def test_frozen_layers_stay(model_and_tokenizer, moved):
    base, tokenizer = model_and_tokenizer
    arm = cause_runs.Arm(rows=32, epochs=1, frozen=2)
    after = cause_runs.learn_b(base, moved, tokenizer, arm, 0)
    for layer in range(4):
        pairs = zip(
            after.model.layers[layer].parameters(),
            moved.model.layers[layer].parameters(),
            strict=True,
        )
        same = all(torch.equal(a, b) for a, b in pairs)
        assert same == (layer < 2)


def test_replay_adds_lessons_of_the_old_task():
    arm = cause_runs.Arm(replay=0.05)
    talks = cause_runs.lessons_of_b(arm, 0)
    old = [talk for talk in talks if talk[1]["content"].startswith("Aye:")]
    assert len(old) == 30 and len(talks) == 630


def test_a_recorded_point_comes_out_again(model_and_tokenizer):
    base, tokenizer = model_and_tokenizer
    recorded = read_results("13_causes", base)
    arm = "32 lessons once"
    point = cause_runs.run_arm(base, tokenizer, arm=arm, seed=0)
    for measure, margin in (("old", 0.1), ("old_loss", 0.05), ("kl_new", 0.3), ("facts", 0.05)):
        band = recorded.measured(measure, arm=arm)
        assert min(band) - margin < point[measure] < max(band) + margin
