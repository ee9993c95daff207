"""Training an output head alone: the numbers are those of torch's and transformers' own loop."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import make_examples, make_model, make_tokenizer
from torch.testing import assert_close
from transformers import get_cosine_schedule_with_warmup

from sft_lab.course.head_training import head_loss, make_head_task, train_head
from sft_lab.examples import IGNORE_INDEX, Example


@pytest.fixture(scope="module")
def task():
    return make_head_task(make_model(), make_tokenizer(), make_examples(40))


def test_the_head_on_its_hidden_states_has_the_loss_of_the_model(task):
    model, nll = make_model(), []
    with torch.no_grad():
        for example in make_examples(40):
            logits, labels = (
                model(torch.tensor([example.input_ids])).logits[0, :-1],
                torch.tensor(example.labels[1:]),
            )
            nll.append(F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum"))
    assert_close(
        head_loss(task, task.head), (sum(nll) / len(task.targets)).item(), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(("warmup_ratio", "steps"), [(0.0, 25), (0.1, 25), (0.5, 40)])
def test_a_run_is_that_of_a_plain_loop_with_transformers_schedule(task, warmup_ratio, steps):
    run = train_head(
        task, peak=0.03, warmup_ratio=warmup_ratio, steps=steps, tokens_a_step=16, seed=3
    )
    head = task.head.clone().requires_grad_()
    optimizer = torch.optim.AdamW([head], lr=0.03, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(warmup_ratio * steps), steps)
    generator, rates, losses = torch.Generator().manual_seed(3), [], []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        chosen = torch.randint(len(task.targets), (16,), generator=generator)
        loss = F.cross_entropy(F.linear(task.hidden[chosen], head), task.targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([head], 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert_close(run.rates, rates)
    assert_close(run.losses, losses, rtol=0, atol=1e-5)
    assert run.after < run.before, "nothing was learned, so equal losses would show little"
    assert_close(run.after, head_loss(task, head.detach()), rtol=0, atol=1e-5)


def test_training_leaves_the_task_as_it_is_and_repeats_itself(task):
    before = task.head.clone()
    runs = [train_head(task, peak=0.1, warmup_ratio=0.1, steps=20) for _ in range(2)]
    assert runs[0] == runs[1]
    assert torch.equal(task.head, before)


@pytest.mark.parametrize(("steps", "warmup_ratio"), [(0, 0.1), (10, -0.1), (10, 1.1)])
def test_a_schedule_that_makes_no_run_is_refused(task, steps, warmup_ratio):
    with pytest.raises(ValueError, match=f"steps is {steps} and warmup_ratio {warmup_ratio}"):
        train_head(task, peak=0.1, warmup_ratio=warmup_ratio, steps=steps)


def test_examples_without_a_graded_token_are_refused():
    with pytest.raises(ValueError, match="no graded token"):
        make_head_task(make_model(), make_tokenizer(), [Example([5, 6], [IGNORE_INDEX] * 2)])
