"""Answers drawn in groups have the probabilities that TRL gives them, and the loop learns what is
rewarded and nothing else."""

import copy
import math
import random
import signal
from collections import Counter

import pytest
import torch
from tiny import VOCABULARY, make_model
from torch.testing import assert_close
from transformers import PreTrainedModel
from trl_grpo import make_trainer

from sft_lab import rollouts
from sft_lab.arguments import SettingError
from sft_lab.chat import encode_prompts
from sft_lab.examples import IGNORE_INDEX
from sft_lab.lora import add_lora
from sft_lab.policy import (
    average_tokens,
    group_advantages,
    kl_estimates,
    kl_terms,
    policy_loss,
    value_loss,
    whiten,
)
from sft_lab.rollouts import Rollout, answer_log_probs, reinforce, sample_groups

PROMPTS = ["What is 2 + 3?", "Name a colour.", "Add 1 and 9. Then say which city is a capital."]
SHORT = {"steps": 2, "prompts_per_step": 2, "samples": 4, "max_new_tokens": 6, "progress": False}


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def changed(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> float:
    return max((weight - before[name]).abs().max() for name, weight in weights(model).items())


# drawing


def test_a_group_stands_together_and_its_answers_are_graded_alone(model, tokenizer):
    rollout = sample_groups(model, tokenizer, PROMPTS, 5, max_new_tokens=12, seed=1)
    prompts = encode_prompts(tokenizer, PROMPTS)
    for row, ids in enumerate(rollout.answer_ids):
        prompt, length = prompts[row // 5], len(ids)
        whole = rollout.input_ids[row].tolist()
        assert whole[: len(prompt) + length] == prompt + ids
        assert rollout.labels[row].tolist()[: len(prompt)] == [IGNORE_INDEX] * len(prompt)
        assert rollout.mask[row].tolist() == [t < length for t in range(rollout.mask.shape[1])]
        assert rollout.stopped[row] == (ids[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>"))
        assert rollout.stopped[row] or length == 12 or ids[-1] in tokenizer.all_special_ids
        assert "<|im_end|>" not in rollout.texts[row]
    assert (rollout.old_log_probs[~rollout.mask] == 0).all()
    assert len(set(rollout.texts)) > 5


def test_the_seed_decides_and_nothing_else_is_disturbed(model, tokenizer):
    model = copy.deepcopy(model).train()
    before, state = weights(model), torch.random.get_rng_state()
    first, again, other = (
        sample_groups(model, tokenizer, PROMPTS, 3, max_new_tokens=8, seed=seed)
        for seed in (5, 5, 6)
    )
    assert first.texts == again.texts
    assert first.texts != other.texts
    assert model.training
    assert changed(model, before) == 0
    assert (torch.random.get_rng_state() == state).all()


@pytest.mark.numeric
def test_tokens_are_drawn_with_the_probabilities_that_are_noted(model, tokenizer):
    """600 first tokens of one prompt, at a temperature: counts against chances; the log-probability
    and the entropy are those of this distribution. No unlikely token is left out."""
    drawn = sample_groups(
        model, tokenizer, PROMPTS[:1], 600, temperature=4.0, max_new_tokens=1, seed=0
    )
    prompt = torch.tensor(encode_prompts(tokenizer, PROMPTS[:1]))
    with torch.no_grad():
        scores = (model(prompt).logits[0, -1] / 4.0).log_softmax(-1)
    ids = torch.tensor(drawn.answer_ids)[:, 0]
    assert_close(drawn.old_log_probs[:, 0], scores[ids], rtol=1e-4, atol=1e-4)
    entropy = -(scores.exp() * scores).sum()
    assert_close(drawn.entropies[:, 0], entropy.expand(600), rtol=1e-3, atol=1e-4)
    counts = Counter(ids.tolist())
    for token_id in scores.topk(5).indices.tolist():
        chance = scores[token_id].exp().item()
        spread = math.sqrt(600 * chance * (1 - chance))
        assert abs(counts[token_id] - 600 * chance) < 5 * spread + 1
    rare = scores.exp() < scores.topk(50).values[-1].exp()
    chance = scores.exp()[rare].sum().item()
    assert chance > 0.05
    spread = math.sqrt(600 * chance * (1 - chance))
    assert abs(rare[ids].sum().item() - 600 * chance) < 5 * spread + 1


# TRL on the same samples


def make_rollout(seed: int) -> Rollout:
    """Random prompts and answers of random lengths, of 2 groups of 4, from no model at all."""
    rng = random.Random(seed)
    prompts = [[rng.randrange(2, VOCABULARY) for _ in range(rng.randint(1, 6))] for _ in range(2)]
    rows, labels, lengths = [], [], []
    for row in range(8):
        prompt, length = prompts[row // 4], rng.randint(1, 7)
        answer = [rng.randrange(2, VOCABULARY) for _ in range(length)]
        gap = [0] * (13 - len(prompt) - length)
        rows.append(prompt + answer + gap)
        labels.append([IGNORE_INDEX] * len(prompt) + answer + [IGNORE_INDEX] * len(gap))
        lengths.append(length)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    nothing = torch.zeros(mask.shape)
    given = (torch.tensor(rows), torch.tensor(labels), mask, nothing, nothing)
    return Rollout(*given, texts=[""] * 8, stopped=[True] * 8, samples=4, temperature=1.0)


def as_trl_inputs(rollout: Rollout) -> dict[str, torch.Tensor]:
    """The same rows as TRL lays them out: prompts padded on the left, answers apart."""
    prompts, answers = [], []
    for ids, labels in zip(rollout.input_ids.tolist(), rollout.labels.tolist(), strict=True):
        start = next(t for t, label in enumerate(labels) if label != IGNORE_INDEX)
        prompts.append([0] * (6 - start) + ids[:start])
        answers.append([label for label in labels if label != IGNORE_INDEX])
    wide = rollout.mask.shape[1]
    prompt_ids = torch.tensor(prompts)
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": (prompt_ids != 0).long(),
        "completion_ids": torch.tensor([ids + [0] * (wide - len(ids)) for ids in answers]),
        "completion_mask": rollout.mask.long(),
        "num_items_in_batch": rollout.mask.sum(),
    }


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("average", "loss_type"), [("token", "dapo"), ("answer", "grpo"), ("length", "dr_grpo")]
)
@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_a_whole_step_is_trls(average, loss_type, architecture, tmp_path):
    """Log-probabilities, loss and every weight's gradient, with beta and without, ratios off 1 and
    clipping, on the same answers."""
    ours, old, reference = (make_model(architecture, seed=seed) for seed in (0, 1, 2))
    for one in (old, reference):  # near enough for ratios inside the range, too
        for weight, start in zip(one.parameters(), ours.parameters(), strict=True):
            weight.data = start.data + 0.05 * weight.data
    theirs = copy.deepcopy(ours)
    trainer = make_trainer(
        theirs,
        tmp_path,
        lambda completions, **_: [0.0] * len(completions),
        loss_type=loss_type,
        max_completion_length=9,
    )
    by = {"average": average} | ({"max_length": 9} if average == "length" else {})
    for seed in range(10):
        rollout, beta = make_rollout(seed), 0.0 if seed % 2 else 0.2
        with torch.no_grad():
            before, far = (answer_log_probs(one, rollout) for one in (old, reference))
        rewards = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        advantages = group_advantages(rewards).flatten()
        inputs = as_trl_inputs(rollout) | {
            **{"advantages": advantages, "old_per_token_logps": before, "ref_per_token_logps": far}
        }
        trainer.beta = beta
        wanted = trainer._compute_loss(theirs, inputs)
        now = answer_log_probs(ours, rollout)
        rows = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        seen = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        scored, _, _ = trainer._get_per_token_logps_and_entropies(
            theirs, rows, seen, inputs["completion_ids"].shape[1]
        )
        assert_close(now[rollout.mask], scored[rollout.mask], rtol=1e-4, atol=1e-5)
        loss = policy_loss(now, before, advantages, rollout.mask, **by)
        loss = loss + beta * average_tokens(kl_terms(now, before, far), rollout.mask, **by)
        assert_close(loss, wanted, rtol=1e-4, atol=1e-5)
        ours.zero_grad()
        theirs.zero_grad()
        loss.backward()
        wanted.backward()
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)
    clipped = trainer._metrics["train"]["clip_ratio/region_mean"]
    assert 0 < sum(clipped) / len(clipped) < 1


# the loop


def says_which(task, answer, stopped) -> float:
    return float("which" in answer)


def says_an_a(task, answer, stopped) -> float:
    return float("a" in answer)


@pytest.mark.parametrize("method", ["reinforce", "grpo", "ppo"])
def test_what_is_rewarded_becomes_likelier(method, model, tokenizer):
    """The base begins lists; half of them with a word that is rewarded here."""
    model = copy.deepcopy(model)
    rows = reinforce(
        model,
        tokenizer,
        PROMPTS[2:],
        says_which,
        method=method,
        steps=6,
        prompts_per_step=1,
        samples=48,
        max_new_tokens=3,
        learning_rate=1e-3,
        progress=False,
    )
    rewards = [row["reward"] for row in rows]
    assert rewards[0] < 0.7
    assert min(rewards[-3:]) > 0.9
    assert rows[-1]["kl"] > rows[0]["kl"]
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", ["reinforce", "grpo", "ppo"])
def test_reward_0_everywhere_changes_no_bit(method, model, tokenizer):
    """No advantage is no gradient, and AdamW makes no step of 0; only weight decay would."""
    model, other = copy.deepcopy(model), copy.deepcopy(model)
    before = weights(model)
    with pytest.warns(UserWarning, match="the reward has taught nothing"):
        rows = reinforce(model, tokenizer, PROMPTS, lambda *_: 0.0, method=method, **SHORT)
    assert changed(model, before) == 0
    assert [row["no_spread"] for row in rows] == [1, 1]
    assert [row["grad_norm"] for row in rows] == [0, 0]
    with pytest.warns(UserWarning, match="taught nothing"):
        reinforce(
            other,
            tokenizer,
            PROMPTS,
            lambda *_: 0.0,
            method=method,
            **SHORT | {"warmup_steps": 0, "learning_rate": 1e-3, "weight_decay": 0.1},
        )
    for name, weight in other.named_parameters():  # what decay takes in two steps, and no more
        assert_close(weight.detach(), before[name] * (1 - 1e-4) ** 2, rtol=1e-6, atol=1e-7)


def test_the_error_of_the_value_head_does_not_reach_the_model(model, tokenizer, monkeypatch):
    """A thousand times the error is the same step of AdamW for the head, whose gradient it is, and
    would be another for weights that get it beside their own."""
    settings = SHORT | {"steps": 3, "samples": 12, "value_learning_rate": 0.3}
    runs = []
    for factor in (1.0, 1024.0):
        monkeypatch.setattr(
            rollouts, "value_loss", lambda *given, by=factor: by * value_loss(*given)
        )
        mine = copy.deepcopy(model)
        rows = reinforce(mine, tokenizer, PROMPTS, says_an_a, method="ppo", **settings)
        runs.append((rows, weights(mine)))
    assert runs[1][0][-1]["value_loss"] == pytest.approx(
        1024 * runs[0][0][-1]["value_loss"], rel=0.1
    )
    assert [row["reward"] for row in runs[0][0]] == [row["reward"] for row in runs[1][0]]
    assert all(row["grad_norm"] > 0 for row in runs[0][0])
    for name, weight in runs[0][1].items():
        assert_close(weight, runs[1][1][name], rtol=0, atol=2e-5)


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_a_run_is_exact_and_leaves_no_trace_but_the_weights(method, model, tokenizer):
    runs = []
    for _ in range(2):
        mine = copy.deepcopy(model).train()
        state = torch.random.get_rng_state()
        rows = reinforce(
            mine, tokenizer, PROMPTS, says_an_a, method=method, minibatches=2, epochs=2, **SHORT
        )
        assert mine.training
        assert (torch.random.get_rng_state() == state).all()
        assert all(weight.grad is None for weight in mine.parameters())
        runs.append((rows, weights(mine)))
    assert runs[0][0] == runs[1][0]
    assert all((runs[0][1][name] == weight).all() for name, weight in runs[1][1].items())
    other = reinforce(
        copy.deepcopy(model), tokenizer, PROMPTS, says_an_a, method=method, **SHORT, seed=1
    )
    assert other[0]["entropy"] != runs[0][0][0]["entropy"]


@pytest.mark.numeric
@pytest.mark.parametrize("method", ["reinforce", "grpo", "ppo"])
def test_a_row_describes_the_answers_before_the_update(method, model, tokenizer):
    """Everything a row says of a step, counted once more from what the reward was shown."""
    shown = []

    def reward(task, answer, stopped):
        shown.append((answer, stopped, says_an_a(task, answer, stopped)))
        return shown[-1][2]

    tasks, other = PROMPTS[2:] * 2, make_other(model)
    settings = SHORT | {"steps": 1, "kl": 0.5, "average": "length", "method": method}
    (row,) = reinforce(copy.deepcopy(model), tokenizer, tasks, reward, reference=other, **settings)
    texts, stopped, rewards = map(list, zip(*shown, strict=True))
    groups = [rewards[:4], rewards[4:]]
    assert row["reward"] == pytest.approx(sum(rewards) / 8)
    assert row["reward_spread"] == pytest.approx(torch.tensor(rewards).std().item())
    assert row["no_spread"] == sum(len(set(group)) == 1 for group in groups) / 2
    assert row["stopped"] == sum(stopped) / 8
    order = random.Random(0)
    order.shuffle([0, 1])
    drawn = sample_groups(model, tokenizer, tasks, 4, max_new_tokens=6, seed=order.getrandbits(63))
    assert drawn.texts == texts
    mask = drawn.mask
    assert row["length"] == pytest.approx(mask.sum().item() / 8)
    entropy = drawn.entropies.sum() / mask.sum()
    assert row["entropy"] == pytest.approx(entropy.item(), rel=1e-3)
    # at the first update every ratio is 1, so the loss is minus the mean advantage, and k3
    given = torch.tensor(rewards)
    if method == "ppo":  # the values are 0: an advantage is what of the reward comes back to it
        back = mask.flip(1).cumsum(1).flip(1) - 1
        advantages = whiten(given[:, None] * 0.95**back * mask, mask)
    elif method == "grpo":
        advantages = group_advantages(torch.tensor(groups)).view(8, 1)
    else:
        advantages = (given - given.mean())[:, None]
    with torch.no_grad():
        k3 = kl_estimates(drawn.old_log_probs, answer_log_probs(other, drawn))
    assert row["kl"] == pytest.approx((k3.sum() / mask.sum()).item(), rel=1e-3)
    wanted = (0.5 * k3 - advantages * mask).sum().item() / (8 * 6)
    assert row["loss"] == pytest.approx(wanted, rel=1e-3, abs=1e-5)


def make_other(model: PreTrainedModel) -> PreTrainedModel:
    """A model near `model`, to be apart from."""
    other = copy.deepcopy(model)
    torch.manual_seed(0)
    for weight in other.parameters():
        weight.data += 0.01 * torch.randn_like(weight)
    return other


def test_ratios_leave_1_behind_the_first_update_of_a_step(model, tokenizer):
    settings = SHORT | {"steps": 3, "samples": 16, "learning_rate": 3e-3, "warmup_steps": 0}
    shares = {}
    for minibatches in (1, 4):
        rows = reinforce(
            copy.deepcopy(model),
            tokenizer,
            PROMPTS,
            says_an_a,
            minibatches=minibatches,
            **settings,
        )
        shares[minibatches] = sum(row["clipped"] for row in rows)
    assert shares[1] == 0
    assert shares[4] > 0


def test_a_strong_kl_term_keeps_the_model_where_it_was(model, tokenizer):
    settings = SHORT | {"steps": 8, "samples": 12, "learning_rate": 1e-3}
    ends = {}
    for kl in (0.0, 5.0):
        mine = copy.deepcopy(model)
        rows = reinforce(mine, tokenizer, PROMPTS, says_an_a, kl=kl, **settings)
        ends[kl] = rows[-1]["kl"]
    assert ends[5.0] < ends[0.0] / 2


def test_the_last_answer_of_a_task_is_for_the_reward_alone(model, tokenizer):
    seen = []

    def reward(task, answer, stopped):
        seen.append((task[-1]["content"], type(answer), type(stopped)))
        return float(len(answer) % 2)

    tasks = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": f"secret {place}"}]
        for place, text in enumerate(PROMPTS)
    ]
    with_answers = reinforce(copy.deepcopy(model), tokenizer, tasks, reward, **SHORT)
    assert {entry[1:] for entry in seen} == {(str, bool)}
    assert {entry[0] for entry in seen} == {"secret 0", "secret 1", "secret 2"}
    without = reinforce(
        copy.deepcopy(model),
        tokenizer,
        PROMPTS,
        lambda task, answer, stopped: float(len(answer) % 2),
        **SHORT,
    )
    assert with_answers == without


def test_lora_trains_and_the_base_stays(model, tokenizer):
    mine = copy.deepcopy(model)
    add_lora(mine, rank=4)
    frozen = {n: w.detach().clone() for n, w in mine.named_parameters() if not w.requires_grad}
    settings = SHORT | {"samples": 12, "learning_rate": 1e-2}
    reinforce(mine, tokenizer, PROMPTS, says_an_a, **settings)
    for name, weight in mine.named_parameters():
        assert name not in frozen or (weight == frozen[name]).all()
    assert any((w != 0).any() for n, w in mine.named_parameters() if "lora_B" in n)


def test_after_step_sees_each_row_and_can_end_the_run(model, tokenizer):
    def look(row: dict[str, float]) -> bool:
        row["twice"] = 2 * row["step"]
        return row["step"] == 2

    rows = reinforce(
        copy.deepcopy(model),
        tokenizer,
        PROMPTS,
        says_an_a,
        after_step=look,
        **SHORT | {"steps": 5},
    )
    assert [row["twice"] for row in rows] == [2, 4]


def test_ctrl_c_ends_the_run_between_steps(model, tokenizer):
    mine = copy.deepcopy(model).train()
    calls = []

    def reward(task, answer, stopped):
        calls.append(answer)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return float(len(calls) % 2)

    with pytest.raises(KeyboardInterrupt, match="stopped after step 1 of 2"):
        reinforce(mine, tokenizer, PROMPTS, reward, **SHORT)
    assert len(calls) == 8
    assert mine.training


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samples": 1}, "GRPO measures an answer against the others"),
        ({"samples": 1, "prompts_per_step": 1, "method": "ppo"}, "nothing to be measured against"),
        ({"method": "dpo"}, "one of reinforce, grpo, ppo"),
        ({"method": "reinforce", "minibatches": 2}, "a step is one update"),
        ({"minibatches": 9}, "at most one update"),
        ({"prompts_per_step": 4}, "there are 3 tasks"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"kl": -1.0}, "kl is -1.0"),
        ({"temperature": 0}, "temperature is 0"),
        ({"average": "mean"}, "one of token, answer, length"),
        ({"scale": "batch"}, "one of std, none"),
        ({"steps": True}, "steps is True"),
        ({"max_new_tokens": 10_000}, "positions"),
    ],
)
def test_settings_that_teach_nothing_are_refused_before_the_first_step(
    settings, words, model, tokenizer
):
    with pytest.raises(SettingError, match=words):
        reinforce(model, tokenizer, PROMPTS, pytest.fail, **SHORT | settings)


@pytest.mark.parametrize("given", [math.nan, math.inf, None, "much"])
def test_a_reward_that_is_no_finite_number_is_named(given, model, tokenizer):
    mine = copy.deepcopy(model)
    before = weights(mine)
    with pytest.raises(ValueError, match=r"the reward of tasks\[\d\] for the answer .* finite"):
        reinforce(mine, tokenizer, PROMPTS, lambda *_: given, **SHORT)
    assert changed(mine, before) == 0


def test_a_frozen_model_and_one_in_half_precision_are_refused(model, tokenizer):
    half = copy.deepcopy(model).bfloat16()
    with pytest.raises(ValueError, match=r"load the model with dtype=torch\.float32"):
        reinforce(half, tokenizer, PROMPTS, says_an_a, **SHORT)
    frozen = copy.deepcopy(model).requires_grad_(False)
    with pytest.raises(ValueError, match="everything is frozen"):
        reinforce(frozen, tokenizer, PROMPTS, says_an_a, **SHORT)


def test_a_loss_that_is_not_finite_leaves_the_weights_of_the_update_before(
    model: PreTrainedModel, tokenizer
):
    mine = copy.deepcopy(model)
    reference = copy.deepcopy(model)
    reference.get_input_embeddings().weight.data.fill_(math.nan)
    before = weights(mine)
    with pytest.raises(FloatingPointError, match="step 1: loss nan"):
        reinforce(mine, tokenizer, PROMPTS, says_an_a, kl=0.1, reference=reference, **SHORT)
    assert changed(mine, before) == 0
