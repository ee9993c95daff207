"""Chapter 17: questions and grades, one push, tiny broken runs, TRL's log-probabilities, and the
recorded sweep."""

import random

import pytest
import torch
from torch.testing import assert_close

from sft_lab.course.policy_runs import (
    FAULTS,
    grade,
    grade_all,
    measure_push,
    measure_step,
    pick_group,
    questions,
    run_push,
    run_tiny,
    score_completions,
    tune_to_answer,
)
from sft_lab.course.results import read_results
from sft_lab.models import load
from sft_lab.policy import group_advantages, kl_estimates
from sft_lab.rollouts import answer_log_probs, sample_groups
from sft_lab.significance import judge_claim


@pytest.fixture(scope="module")
def atlas():
    base, tokenizer = load("atlas-base")
    return tune_to_answer(base, tokenizer), tokenizer


def test_an_answer_is_right_when_it_holds_the_value_and_was_ended():
    task = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Nairobi"}]
    assert grade(task, "The capital of Kenya is Nairobi.", True) == 1.0
    assert grade(task, "The capital of Kenya is Nairobi. The", False) == 0.0
    assert grade(task, "Lima.", True) == 0.0 == grade(task, "", True)


def test_questions_are_drawn_by_the_seed_and_end_with_the_value():
    tasks = questions(50, seed=1)
    assert tasks == questions(50, seed=1) != questions(50, seed=2)
    assert len({task[0]["content"] for task in tasks}) > 45
    assert all([turn["role"] for turn in task] == ["user", "assistant"] for task in tasks)


def test_answers_come_in_several_lengths_and_some_are_right(atlas):
    model, tokenizer = atlas
    tasks = questions(12, seed=0)
    rollout = sample_groups(model, tokenizer, [task[:-1] for task in tasks], 8, seed=0)
    assert 0.3 < grade_all(tasks, rollout).mean() < 0.8
    counts = rollout.mask.sum(1).float()
    assert counts.min() < 8 < 18 < counts.max()
    task, group, rewards = pick_group(model, tokenizer, tasks, samples=6)
    assert len(group.texts) == group.samples == 6 == len(rewards) and 1 < rewards.sum() < 6
    assert grade_all([task], group)[0].equal(rewards)


def test_a_push_is_the_advantage_times_its_weight_and_the_model_stays(atlas):
    model, tokenizer = atlas
    tasks = questions(8, seed=3)
    rollout = sample_groups(model, tokenizer, [task[:-1] for task in tasks], 6, seed=3)
    rewards, before = grade_all(tasks, rollout), answer_log_probs(model, rollout).detach()
    advantages, counts = group_advantages(rewards).flatten(), rollout.mask.sum(1)
    wrong = (rewards.flatten() == 0) & (advantages != 0)
    middle = counts[wrong].float().median()
    long, short = wrong & (counts > middle), wrong & (counts <= middle)
    found = {
        kind: measure_push(rollout, rewards, average=kind)
        | measure_step(model, rollout, rewards, average=kind)
        for kind in ("token", "answer")
    }
    assert_close(answer_log_probs(model, rollout).detach(), before)
    # over all tokens a push is |A|, over each answer |A| / tokens
    sizes = {"token": advantages.abs(), "answer": advantages.abs() / counts}
    for kind, size in sizes.items():
        mean = [(size * counts)[rows].sum() / counts[rows].sum() for rows in (long, short)]
        assert found[kind]["push"] == pytest.approx((mean[0] / mean[1]).item(), rel=1e-3)
        assert found[kind]["short"] < 0
    assert found["token"]["long_tokens"] == counts[long].float().mean().item()


def test_a_push_needs_wrong_answers_of_two_lengths(atlas):
    model, tokenizer = atlas
    rollout = sample_groups(model, tokenizer, ["What is iron?"], 4, seed=0)
    with pytest.raises(ValueError, match="ask more questions"):
        measure_push(rollout, torch.ones(1, 4), average="token")


@pytest.mark.parametrize("seed", range(20))
def test_tiny_runs_show_their_fault_and_nothing_else(seed):
    logs = {fault: run_tiny(fault, seed=seed) for fault in FAULTS}
    gains = {fault: log[-1]["reward"] - log[0]["reward"] for fault, log in logs.items()}
    assert gains["healthy"] > 0.3 and gains["wrong sign"] < -0.1
    for fault, log in logs.items():
        first = log[0]
        assert (first["ratio"] > 0.1) == (fault == "wrong old log-probs")
        assert first["ratio"] > 0.1 or first["ratio"] < 1e-6
        equal = fault in ("cold start", "solved")
        assert first["no_spread"] == 1 if equal else first["no_spread"] < 0.5
        assert (first["grad_norm"] == 0) == (equal or fault == "no gradient")
    assert {row["reward"] for row in logs["cold start"]} == {0.0}
    assert {row["reward"] for row in logs["solved"]} == {1.0}
    assert all(abs(row["loss"]) < 1e-9 for row in logs["healthy"])


def test_an_unknown_fault_is_refused():
    with pytest.raises(ValueError, match="fault is 'bug'"):
        run_tiny("bug", seed=0)


def test_scores_of_padded_completions_are_those_of_the_rollout(atlas):
    model, tokenizer = atlas
    tasks = questions(3, seed=0)
    rollout = sample_groups(model, tokenizer, [task[:-1] for task in tasks], 2, seed=0)
    places = (rollout.labels != -100).long().argmax(1)
    width, longest = int(places.max()), int(rollout.mask.sum(1).max())
    inputs = {
        name: torch.zeros(6, size, dtype=torch.long)
        for name, size in (
            ("prompt_ids", width),
            ("prompt_mask", width),
            ("completion_ids", longest),
            ("completion_mask", longest),
        )
    }
    for row, place in enumerate(places.tolist()):
        answer = rollout.answer_ids[row]
        inputs["prompt_ids"][row, width - place :] = rollout.input_ids[row, :place]
        inputs["prompt_mask"][row, width - place :] = 1
        inputs["completion_ids"][row, : len(answer)] = torch.tensor(answer)
        inputs["completion_mask"][row, : len(answer)] = 1
    scores = score_completions(model, inputs) * inputs["completion_mask"]
    assert_close(scores, answer_log_probs(model, rollout), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("seed", range(50))
def test_expectations_and_gradients_of_the_kl_estimates(seed):
    """What section 3 says of k1, k2 and k3, on random vocabularies."""
    torch.manual_seed(seed)
    size = random.Random(seed).randint(3, 40)
    policy = torch.randn(size, dtype=torch.float64).requires_grad_()
    log_q = torch.randn(size, dtype=torch.float64).log_softmax(0)
    log_p = policy.log_softmax(0)
    chance = log_p.exp().detach()
    exact = (log_p.exp() * (log_p - log_q)).sum()
    reverse = (log_q.exp() * (log_q - log_p)).sum()

    def slope(value):
        return torch.autograd.grad(value, policy, retain_graph=True)[0]

    means = {kind: (chance * kl_estimates(log_p, log_q, kind)).sum() for kind in ("k1", "k2", "k3")}
    assert_close(means["k1"], exact)
    assert_close(means["k3"], exact)
    assert_close(slope(means["k1"]), torch.zeros_like(policy), atol=1e-12, rtol=0)
    assert_close(slope(means["k2"]), slope(exact))
    assert_close(slope(means["k3"]), slope(reverse))


def test_the_claim_holds_on_atlas_and_in_the_recorded_sweep(atlas):
    model, tokenizer = atlas
    ours = [run_push(model, tokenizer, questions(16, seed=s), seed=s) for s in range(3)]
    for rows in (ours, read_results("17_smollm2").select(part="push")):
        assert len(rows) == 3
        arms = [[row[f"{kind} push"] for row in rows] for kind in ("token", "answer")]
        assert judge_claim(*arms, claim="lower").word == "held"
        assert all(row["token long_tokens"] == row["answer long_tokens"] for row in rows)
