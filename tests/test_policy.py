"""The formulas of reinforcement learning equal TRL's GRPO, exact sums over a small vocabulary,
finite differences and a brute-force sum."""

import importlib.util
import math
import pkgutil

import pytest
import torch
from tiny import make_model
from torch.testing import assert_close
from trl_grpo import LOSS_TYPES, make_trainer, trl_loss

from sft_lab.arguments import SettingError
from sft_lab.policy import (
    ValueHead,
    at_last_token,
    average_tokens,
    check_right_padded,
    clipped_tokens,
    discounted_advantages,
    group_advantages,
    kl_estimates,
    kl_terms,
    policy_loss,
    value_loss,
    whiten,
)

pytestmark = pytest.mark.numeric
CASES = 1000
LONGEST = 9


def draw_mask(rng: torch.Generator, rows: int) -> torch.Tensor:
    """Ones and then zeros; one row is full, others may have a single token."""
    lengths = torch.randint(1, LONGEST + 1, (rows,), generator=rng)
    lengths[0] = LONGEST
    return (torch.arange(LONGEST) < lengths[:, None]).float()


def draw(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """An answer a row: log-probabilities now, when drawn, and of a reference; far enough apart that
    clipping acts in every case."""
    rng = torch.Generator().manual_seed(seed)
    rows = 2 + seed % 5
    mask = draw_mask(rng, rows)
    now = -3 * torch.rand(rows, LONGEST, generator=rng, dtype=dtype)
    old = now + 0.4 * torch.randn(rows, LONGEST, generator=rng, dtype=dtype)
    reference = now + 0.4 * torch.randn(rows, LONGEST, generator=rng, dtype=dtype)
    advantages = torch.randn(rows, generator=rng, dtype=dtype)
    # the first row's first two tokens: outside of the range, pushed on, and pushed back
    advantages[:2] = torch.tensor([1.0, -1.0], dtype=dtype)
    old[:2, 0] = now[:2, 0] - 0.5
    return {
        "log_probs": now,
        "old_log_probs": old,
        "reference": reference,
        "advantages": advantages,
        "mask": mask.to(dtype),
    }


# advantages


@pytest.mark.parametrize(("scale", "trls"), [("std", "group"), ("none", "none")])
def test_advantages_are_trls(scale, trls, tmp_path):
    """Its own code from rewards to advantages, in a step that also draws the answers."""
    rng, given, samples = torch.Generator().manual_seed(0), [], 5

    def reward(prompts, completions, **_):
        rewards = torch.randn(len(completions), generator=rng)
        rewards[:samples] = 0.1  # a group without spread
        rewards[samples : 2 * samples] = (torch.arange(samples) == 2).float()
        rewards[2 * samples : 3 * samples] *= 1e-3  # where the floor counts
        given.append(rewards)
        return rewards.tolist()

    trainer = make_trainer(
        make_model(),
        tmp_path,
        reward,
        scale_rewards=trls,
        num_generations=samples,
        per_device_train_batch_size=samples,
        max_completion_length=1,
    )
    for _ in range(4):
        prompts = [{"prompt": f"w{2 + place // samples % 50}"} for place in range(samples * 256)]
        theirs = trainer._generate_and_score_completions(prompts)["advantages"]
        ours = group_advantages(given[-1].view(-1, samples), scale=scale)
        assert_close(ours.flatten(), theirs, rtol=1e-4, atol=2e-4)  # 1e-8 / 1e-4: equal rewards
        assert ours[0].tolist() == [0.0] * samples
        assert (ours[1:] != 0).all()


def test_an_advantage_knows_neither_a_shift_nor_with_std_a_scale_of_the_rewards():
    rng = torch.Generator().manual_seed(1)
    rewards = torch.randn(50, 8, generator=rng, dtype=torch.float64)
    assert_close(group_advantages(rewards + 3), group_advantages(rewards))
    plain = group_advantages(rewards, scale="none")
    assert_close(group_advantages(rewards * 7, scale="none"), 7 * plain)
    assert_close(group_advantages(rewards * 7), group_advantages(rewards), rtol=1e-2, atol=1e-3)
    assert_close(plain.sum(dim=1), torch.zeros(50, dtype=torch.float64))


# the loss


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize(
    ("average", "loss_type"), [(name, kind) for name, kinds in LOSS_TYPES.items() for kind in kinds]
)
def test_loss_and_gradient_are_trls(average, loss_type, beta, tmp_path):
    """Ratios off 1 and clipping in every case, 250 cases for each of eight settings; the KL term
    with TRL's correction, its default, and without."""
    trainer = make_trainer(
        make_model(),
        tmp_path,
        lambda completions, **_: [0.0] * len(completions),
        loss_type=loss_type,
        max_completion_length=LONGEST + 3,
    )
    assert trainer.args.use_bias_correction_kl  # what `kl_terms` takes for granted
    trainer.beta = beta  # as a setting it makes a copy of the model for the reference
    by = {"average": average}
    if average == "length":
        by["max_length"] = LONGEST + 3
    for seed in range(CASES // 4):
        case = draw(seed)
        now = case["log_probs"].requires_grad_()
        old = None if seed % 10 == 0 else case["old_log_probs"]
        rest = (case["advantages"], case["mask"])
        corrected = trainer.args.use_bias_correction_kl = seed % 3 > 0
        theirs = trl_loss(trainer, now, old, case["reference"], *rest)
        old = now.detach() if old is None else old
        ours = policy_loss(now, old, *rest, **by)
        apart = kl_terms(now, old, case["reference"], corrected=corrected)
        ours = ours + beta * average_tokens(apart, rest[1], **by)
        assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
        gradients = [torch.autograd.grad(loss, now)[0] for loss in (ours, theirs)]
        assert_close(*gradients, rtol=1e-4, atol=1e-7)
        outside = clipped_tokens(now, old, *rest)
        assert outside[0, 0] == (seed % 10 != 0)
        logged = trainer._metrics["train"]["clip_ratio/region_mean"][-1]
        assert_close((outside.sum() / rest[1].sum()).item(), logged, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("average", ["token", "answer", "length"])
def test_the_gradient_is_that_of_finite_differences(average):
    by = {"average": average, "max_length": LONGEST if average == "length" else None}
    for seed in range(100):
        case = draw(seed, torch.float64)
        now = case["log_probs"].requires_grad_()
        rest = (case["old_log_probs"], case["advantages"], case["mask"])
        # a kink has no gradient: none of the ratios stands on one
        ratios = (now - rest[0]).exp()
        assert ((ratios - 1).abs() - 0.2).abs().min() > 1e-5
        assert torch.autograd.gradcheck(
            lambda x, rest=rest: policy_loss(x, *rest, **by), now, eps=1e-7, atol=1e-5
        )


def test_clipping_takes_the_gradient_where_it_should_and_nowhere_else():
    for seed in range(CASES):
        case = draw(seed)
        now = case["log_probs"].requires_grad_()
        rest = (case["old_log_probs"], case["advantages"], case["mask"])
        (gradient,) = torch.autograd.grad(policy_loss(now, *rest), now)
        ratio = (now - rest[0]).exp().detach()
        better = (case["advantages"] > 0)[:, None]
        pushed_out = torch.where(better, ratio > 1.2, ratio < 0.8)
        wanted = pushed_out | (case["mask"] == 0)
        assert ((gradient == 0) == wanted).all()
        assert (gradient[1, 0] != 0) and ratio[1, 0] > 1.2  # outside, and pushed back
        (free,) = torch.autograd.grad(policy_loss(now, *rest, clip=math.inf), now)
        assert ((free == 0) == (case["mask"] == 0)).all()


def test_at_ratio_1_it_is_the_gradient_of_reinforce():
    for seed in range(200):
        case = draw(seed)
        now, mask = case["log_probs"].requires_grad_(), case["mask"]
        (ours,) = torch.autograd.grad(policy_loss(now, now, case["advantages"], mask), now)
        plain = -(case["advantages"][:, None] * now * mask).sum() / mask.sum()
        assert_close(ours, torch.autograd.grad(plain, now)[0])


def test_what_an_average_gives_a_token_of_a_short_and_a_long_answer():
    mask = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]])
    weights = {}
    for average, most in (("token", None), ("answer", None), ("length", 8)):
        values = torch.zeros(2, 4, requires_grad=True)
        average_tokens(values, mask, average=average, max_length=most).backward()
        weights[average] = (values.grad[0, 0].item(), values.grad[1, 0].item())
        assert (values.grad[mask == 0] == 0).all()
    assert weights["token"] == pytest.approx((1 / 5, 1 / 5))
    assert weights["answer"] == pytest.approx((1 / 2, 1 / 8))
    assert weights["length"] == pytest.approx((1 / 16, 1 / 16))


# exact sums over a small vocabulary


def draw_policies(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a policy and a reference over 3 to 8 tokens."""
    rng = torch.Generator().manual_seed(seed)
    size = 3 + seed % 6
    shape = {"generator": rng, "dtype": torch.float64}
    return 1.5 * torch.randn(size, **shape), 1.5 * torch.randn(size, **shape)


def exact_kl(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(one ‖ other) of two log-distributions."""
    return (one.exp() * (one - other)).sum()


def test_the_expectation_of_k1_and_k3_is_the_kl_divergence_and_that_of_k2_is_not():
    far = 0
    for seed in range(CASES):
        policy, reference = (logits.log_softmax(-1) for logits in draw_policies(seed))
        kl = exact_kl(policy, reference)
        mean = {
            kind: (policy.exp() * kl_estimates(policy, reference, kind)).sum()
            for kind in ("k1", "k2", "k3")
        }
        assert_close(mean["k1"], kl)
        assert_close(mean["k3"], kl)
        # the bias is known: half the second moment of the log-ratio instead of its mean
        assert_close(mean["k2"], (policy.exp() * (policy - reference) ** 2).sum() / 2)
        far += bool((mean["k2"] - kl).abs() > 0.1 * kl)
        assert (kl_estimates(policy, reference, "k3") >= 0).all()
        # near the reference k2's bias is of third order
        near = (draw_policies(seed)[0] + 1e-3 * draw_policies(seed)[1]).log_softmax(-1)
        close = (policy.exp() * kl_estimates(policy, near, "k2")).sum()
        assert_close(close, exact_kl(policy, near), rtol=1e-2, atol=0)
    assert far > CASES / 2


def test_with_the_sign_turned_round_the_estimators_are_wrong():
    """A published one has x = log π - log π_ref on tokens drawn from π."""
    for seed in range(100):
        policy, reference = (logits.log_softmax(-1) for logits in draw_policies(seed))
        kl = exact_kl(policy, reference)
        turned = kl_estimates(reference, policy, "k1")
        assert_close((policy.exp() * turned).sum(), -kl)
        turned = (policy.exp() * kl_estimates(reference, policy, "k3")).sum()
        assert (turned - kl).abs() > 1e-3 * kl


def test_as_loss_terms_k2_and_the_corrected_k3_have_the_gradient_of_the_kl_divergence():
    """On average over tokens that are drawn from the policy, whose drawing has no gradient."""
    for seed in range(CASES):
        logits, reference = draw_policies(seed)
        reference = reference.log_softmax(-1)
        logits.requires_grad_()
        policy = logits.log_softmax(-1)
        mean = {
            kind: torch.autograd.grad(
                (policy.detach().exp() * kl_estimates(policy, reference, kind)).sum(),
                logits,
                retain_graph=True,
            )[0]
            for kind in ("k1", "k2", "k3")
        }
        forward, backward = (
            torch.autograd.grad(kl, logits, retain_graph=True)[0]
            for kl in (exact_kl(policy, reference), exact_kl(reference, policy))
        )
        for corrected, wanted in ((True, forward), (False, backward)):
            terms = kl_terms(policy, policy, reference, corrected=corrected)
            (found,) = torch.autograd.grad(
                (policy.detach().exp() * terms).sum(), logits, retain_graph=True
            )
            assert_close(found, wanted)
        assert_close(mean["k1"], torch.zeros_like(logits))
        assert_close(mean["k2"], forward)
        assert_close(mean["k3"], backward)


def test_the_policy_gradient_is_the_gradient_of_the_expected_reward():
    """Two tokens an answer, every answer counted with its probability; a baseline changes nothing
    on average and the spread of the single terms a lot."""
    for seed in range(CASES):
        first, _ = draw_policies(seed)
        size = len(first)
        rng = torch.Generator().manual_seed(seed + CASES)
        second = torch.randn(size, size, generator=rng, dtype=torch.float64)
        reward = 5 + torch.randn(size, size, generator=rng, dtype=torch.float64)
        logits = [first.requires_grad_(), second.requires_grad_()]
        log_probs = [part.log_softmax(-1) for part in logits]
        answer = log_probs[0][:, None] + log_probs[1]  # (first token, second token)
        expected = (answer.exp() * reward).sum()
        exact = torch.autograd.grad(expected, logits, retain_graph=True)
        tokens = torch.stack([log_probs[0][:, None].expand(size, size), log_probs[1]], dim=-1)
        tokens = tokens.reshape(-1, 2)  # (answers, tokens)
        chance = answer.exp().detach().flatten()
        for baseline in (0.0, expected.item()):
            # each answer weighs its probability, which here is put into its advantage
            weighed = chance * (reward.flatten() - baseline)
            mask = torch.ones_like(tokens)
            loss = policy_loss(tokens, tokens, weighed, mask, average="length", max_length=2)
            found = torch.autograd.grad(-loss * 2 * len(tokens), logits, retain_graph=True)
            assert_close(found, exact, rtol=1e-6, atol=1e-10)


# PPO


def test_generalised_advantages_are_a_brute_force_double_sum():
    for seed in range(CASES):
        rng = torch.Generator().manual_seed(seed)
        rows = 1 + seed % 4
        mask = draw_mask(rng, rows).double()
        rewards, values = torch.randn(2, rows, LONGEST, generator=rng, dtype=torch.float64)
        gamma, decay = torch.rand(2, generator=rng).tolist()
        gamma, decay = [(gamma, decay), (1.0, 1.0), (1.0, 0.0), (0.9, 1.0)][seed % 4]
        advantages, returns = discounted_advantages(rewards, values, mask, gamma=gamma, decay=decay)
        wanted = torch.zeros_like(values)
        for i in range(rows):
            length = int(mask[i].sum())
            for t in range(length):
                for later in range(t, length):
                    after = values[i, later + 1] if later + 1 < length else 0.0
                    surprise = rewards[i, later] + gamma * after - values[i, later]
                    wanted[i, t] += (gamma * decay) ** (later - t) * surprise
        assert_close(advantages, wanted)
        assert_close(returns, (wanted + values) * mask)
        if decay == 1:  # the sum telescopes: what is still to come, minus what was expected
            weight = gamma ** torch.arange(LONGEST, dtype=torch.float64)
            to_come = (rewards * mask * weight).flip(1).cumsum(1).flip(1) / weight
            assert_close(advantages, (to_come - values) * mask)


def test_the_value_loss_has_the_gradient_of_finite_differences_and_none_beyond_its_clip():
    stuck = 0
    for seed in range(200):
        rng = torch.Generator().manual_seed(seed)
        rows = 1 + seed % 4
        mask = draw_mask(rng, rows).double()
        shape = (3, rows, LONGEST)
        old, values, returns = torch.randn(shape, generator=rng, dtype=torch.float64)
        values = (old + 0.4 * values).requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, rest=(old, returns, mask): value_loss(x, *rest), values, eps=1e-7, atol=1e-5
        )
        (gradient,) = torch.autograd.grad(value_loss(values, old, returns, mask), values)
        moved = (values - old).detach()
        beyond = (moved.abs() > 0.2) & ((returns - old - 0.2 * moved.sign()) * moved.sign() > 0)
        worse = (values.detach() - returns).abs() < (old + moved.clamp(-0.2, 0.2) - returns).abs()
        assert ((gradient == 0) == ((beyond & worse) | (mask == 0))).all()
        stuck += int((beyond & worse).sum())
        free = value_loss(values, old, returns, mask, clip=math.inf)
        kept = mask.bool()
        assert_close(free, 0.5 * torch.nn.functional.mse_loss(values[kept], returns[kept]))
    assert stuck > 100


def test_a_value_head_begins_at_0_and_can_learn():
    torch.manual_seed(0)
    head, states = ValueHead(6), torch.randn(40, 3, 6)
    assert head(states).shape == (40, 3)
    assert (head(states) == 0).all()
    returns, mask = states[..., 0] - 2 * states[..., 3] + 1, torch.ones(40, 3)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(300):
        loss = value_loss(head(states), returns, returns, mask, clip=math.inf)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3


def test_the_reward_stands_at_the_last_token_and_whitening_keeps_to_the_mask():
    mask = torch.tensor([[1, 0, 0], [1, 1, 1], [1, 1, 0]]).bool()
    placed = at_last_token(torch.tensor([5.0, 6.0, 7.0]), mask)
    assert placed.tolist() == [[5, 0, 0], [0, 0, 6], [0, 7, 0]]
    values = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)) * 4 + 9
    white = whiten(values, mask)
    assert (white[~mask] == 0).all()
    assert_close((white[mask].mean(), white[mask].std()), (torch.zeros(()), torch.ones(())))
    assert (whiten(torch.full((3, 3), 0.1), mask) == 0).all()
    assert (whiten(values[:1], mask[:1]) == 0).all()


def test_trl_has_no_ppo_left():
    """Neither at its top level nor among its experiments, so PPO is compared with its formulas."""
    trl = importlib.import_module("trl")
    experimental = importlib.import_module("trl.experimental")
    names = {name for name in trl.__all__ if "PPO" in name}
    places = [*trl.__path__, *experimental.__path__]
    modules = {module.name for module in pkgutil.iter_modules(places)}
    assert names == set()
    assert "grpo_trainer" not in modules and "trainer" in modules and "gkd" in modules
    assert {name for name in modules if "ppo" in name.lower()} == set()
    assert importlib.util.find_spec("trl.trainer.ppo_trainer") is None
    assert {"GRPOTrainer", "RLOOTrainer"} <= set(trl.__all__)


# refusals


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: group_advantages(torch.zeros(3, 1)), "at least 2 samples"),
        (lambda: group_advantages(torch.zeros(4)), "at least 2 samples"),
        (lambda: group_advantages(torch.tensor([[0.0, math.nan]])), r"reward at \[0, 1\] is nan"),
        (lambda: group_advantages(torch.zeros(2, 2), scale="batch"), "one of std, none"),
        (lambda: kl_estimates(torch.zeros(2), torch.zeros(3)), "differ in shape"),
        (lambda: kl_estimates(torch.zeros(2), torch.zeros(2), "k4"), "one of k1, k2, k3"),
        (lambda: average_tokens(torch.ones(2, 3), torch.zeros(2, 3)), "0 throughout"),
        (
            lambda: average_tokens(torch.ones(2, 3), torch.ones(2, 3), average="length"),
            "max_length",
        ),
        (
            lambda: average_tokens(
                torch.ones(2, 3), torch.ones(2, 3), average="length", max_length=2
            ),
            "at least 3",
        ),
        (lambda: average_tokens(torch.ones(2, 3), torch.ones(2, 3), max_length=9), "max_length"),
        (
            lambda: policy_loss(*[torch.ones(4, 3)] * 2, torch.ones(2, 2), torch.ones(4, 3)),
            "groups",
        ),
        (
            lambda: policy_loss(*[torch.ones(4, 3)] * 2, torch.ones(4), torch.ones(4, 3), clip=0),
            "clip is 0",
        ),
        (lambda: check_right_padded(torch.tensor([[0, 1]])), "ones and then zeros"),
        (lambda: at_last_token(torch.ones(1), torch.zeros(1, 2)), "a token in each row"),
        (lambda: ValueHead(0), "width is 0"),
    ],
)
def test_what_makes_no_sense_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_settings_are_setting_errors():
    with pytest.raises(SettingError):
        discounted_advantages(*[torch.ones(1, 2)] * 3, gamma=1.5)
