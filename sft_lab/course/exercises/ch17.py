"""Checks of chapter 17, from imitation to reward."""

import random
from collections.abc import Callable
from typing import Any

import torch

from sft_lab.course.exercises.kit import (
    checks,
    need_gradient,
    need_number,
    need_tensor,
    need_word,
    normal,
    same_for_all,
    unpack,
    without_autograd,
)
from sft_lab.course.policy_runs import FAULTS, run_tiny

Tensor = torch.Tensor


def _by_hand(form: Callable) -> Callable:
    """A gradient from (p, one-hot samples, gains)."""

    def answer(logits: Tensor, samples: Tensor, rewards: Tensor, baseline: float) -> Tensor:
        p = logits.softmax(0)
        drawn = torch.eye(len(logits), dtype=logits.dtype)[samples]
        return form(p, drawn, rewards - baseline, rewards)

    return answer


@checks("17.1")
def gradient_from_samples(attempt: Callable) -> str:
    inputs = []
    for size, count in ((4, 6), (6, 9), (5, 1)):
        samples = torch.randint(size, (count,))
        samples[0] = 0  # token 0 is a token like any other
        rewards = 1 + normal(count)
        rewards[1:2] = 0.0  # a sample that earned nothing counts as well
        inputs.append((normal(size), samples, rewards, random.uniform(0.5, 2.0)))
    # one answer drawn more than once, and a baseline of nought
    inputs.append((normal(4), torch.tensor([2, 2, 0]), normal(3), 0.0))

    def right(p: Tensor, drawn: Tensor, gains: Tensor, rewards: Tensor) -> Tensor:
        return (gains[:, None] * (drawn - p)).mean(0)

    mistakes = [
        (
            _by_hand(lambda p, d, g, r: (r[:, None] * (d - p)).mean(0)),
            "the baseline is not subtracted",
        ),
        (
            _by_hand(lambda p, d, g, r: (g[:, None] * (d - p)).sum(0)),
            "this is the sum over the samples: take the mean",
        ),
        (
            _by_hand(lambda p, d, g, r: (-g[:, None] * (d - p)).mean(0)),
            "the sign is reversed: this is the gradient of a loss",
        ),
        (
            _by_hand(lambda p, d, g, r: (g[:, None] * d).mean(0)),
            "the score that was drawn rises and the others stay: ∇ log π also lowers every score "
            "by its probability",
        ),
        (
            _by_hand(lambda p, d, g, r: ((d @ p)[:, None] * g[:, None] * (d - p)).mean(0)),
            "weighted by its probability once more: drawing the samples has done that",
        ),
        (
            _by_hand(lambda p, d, g, r: (g[:, None] * (d - p)).mean(0) * len(g) / len(p)),
            "divided by the size of the vocabulary: divide by the number of samples",
        ),
        (
            _by_hand(lambda p, d, g, r: (r[:, None] * (d - p)).mean(0) - (r - g)[0]),
            "the baseline is subtracted from the gradient: subtract it from the reward",
        ),
    ]

    def watched(*given: Any) -> Tensor:
        with without_autograd("write the gradient of log π by hand"):
            return attempt(*given)

    same_for_all(watched, inputs, _by_hand(right), mistakes, form=need_tensor, what="the gradient")
    return "the mean of (reward - baseline) · ∇ log π, by hand"


def _advantages(spread: Callable, floor: float = 1e-4) -> Callable:
    def answer(rewards: Tensor) -> Tensor:
        return (rewards - rewards.mean(1, keepdim=True)) / (spread(rewards) + floor)

    return answer


def _without_spread(rewards: Tensor) -> float:
    return (rewards == rewards[:, :1]).all(1).double().mean().item()


def _advantage_mistakes() -> list[tuple[Callable, str]]:
    return [
        (
            _advantages(lambda r: r.std(1, keepdim=True, unbiased=False)),
            "the variance is divided by K: divide by K - 1",
        ),
        (
            lambda r: (r - r.mean()) / (r.std() + 1e-4),
            "all rewards are taken as one group: each question has its own mean and spread",
        ),
        (
            lambda r: (r - r.mean(1, keepdim=True)) / (r.std() + 1e-4),
            "divided by the spread of all rewards: each question has its own",
        ),
        (
            lambda r: r - r.mean(1, keepdim=True),
            "the mean is subtracted: now divide by the standard deviation plus 1e-4",
        ),
        (
            _advantages(lambda r: r.var(1, keepdim=True)),
            "divided by the variance: take its square root",
        ),
        (
            _advantages(lambda r: r.std(1, keepdim=True), 0.0),
            "the 1e-4 is missing: equal rewards become 0 / 0",
        ),
        (
            lambda r: ((r - r.mean(1, keepdim=True)) / r.std(1, keepdim=True)).nan_to_num(),
            "the 1e-4 is missing: it belongs to every group",
        ),
        (
            _advantages(lambda r: r.std(1, keepdim=True), 1e-8),
            "add 1e-4 to the standard deviation, not a smaller number",
        ),
        (
            lambda r: (r - r.mean(0)) / (r.std(0) + 1e-4),
            "the mean of a column: the answers to one question stand in a row",
        ),
    ]


def _spread_mistakes() -> list[tuple[Callable, str]]:
    return [
        (lambda r: 1 - _without_spread(r), "this is the share of groups with a spread"),
        (
            lambda r: (r == 0).all(1).double().mean().item(),
            "groups that all earned the same count, whatever they earned",
        ),
        (
            lambda r: (r.std(1) < 0.01).double().mean().item(),
            "a small spread is a spread: rewards must be equal",
        ),
        (
            lambda r: _without_spread(r) * len(r),
            "this is their number: divide by the number of groups",
        ),
    ]


@checks("17.2")
def advantages_of_groups(attempt: Callable) -> str:
    # multiples of 1/4, so that a mean of equal rewards is exact; a group of small spread is a group
    # with a spread, and so is one that ends as it begins or has an answer at its mean; equal
    # rewards need not be 0
    inputs = []
    for questions, count in ((5, 4), (6, 8), (4, 2)):
        rewards = torch.randint(-4, 9, (questions, count)).double() / 4
        rewards[:, 0] += 1  # never equal by chance: the first is raised, or the last lowered
        rewards[:, -1] = rewards[:, 0] - 0.5
        rewards[0], rewards[1] = 0.0, 0.75
        rewards[2] = 0.5
        rewards[2, 0] += 2.0**-9
        if count > 2:
            rewards[3] = 0.25
            rewards[3, 1], rewards[3, 2] = 0.75, -0.25
        inputs.append((rewards,))

    def part(number: int) -> Callable:
        return lambda rewards: unpack(attempt(rewards), "advantages", "share")[number]

    mistakes = _advantage_mistakes()
    same_for_all(
        part(0),
        inputs,
        _advantages(lambda r: r.std(1, keepdim=True)),
        mistakes,
        form=need_tensor,
        what="the advantages",
    )
    # three times 0.1, by 3, is not 0.1: a rounded mean makes no spread
    rounded = torch.tensor([[0.1], [0.7], [0.4]], dtype=torch.float64).repeat(1, 3)
    rounded[2, 0] = 0.5
    inputs.append((rounded,))
    shares = _spread_mistakes()
    same_for_all(part(1), inputs, _without_spread, shares, form=need_number, what="the share")
    return "each group has its own mean and spread; equal rewards teach nothing"


def _clipped(form: Callable) -> Callable:
    def answer(log_probs: Tensor, old: Tensor, advantages: Tensor, clip: float) -> Tensor:
        ratio = (log_probs - old).exp()
        return form(ratio, ratio.clamp(1 - clip, 1 + clip), advantages)

    return answer


def _cut(ratio: Tensor, near: Tensor, advantages: Tensor) -> float:
    cut = ((ratio > near) & (advantages > 0)) | ((ratio < near) & (advantages < 0))
    return cut.double().mean().item()


def _draw_ratios(count: int, clip: float) -> tuple[Tensor, Tensor, Tensor, float]:
    """All four corners (ratio too high or too low, advantage above or below 0), some ratios in
    range, and an advantage of 0 outside; nothing near a border."""
    outside = [1 + clip + random.uniform(0.1, 1.0) for _ in range(4)]
    outside += [(1 - clip) * random.uniform(0.3, 0.9) for _ in range(3)]
    inside = [1 + clip * random.uniform(-0.9, 0.9) for _ in range(count)]
    ratio = torch.tensor(outside + inside, dtype=torch.float64)
    sizes = torch.rand(len(ratio), dtype=torch.float64) + 0.3
    # more tokens are cut than may go back, so that the two shares differ
    signs = torch.tensor([1.0, 1, -1, 0, 1, -1, 0] + [random.choice((1.0, -1.0)) for _ in inside])
    old = -normal(len(ratio)).abs() - 0.1
    order = torch.randperm(len(ratio))
    return (old + ratio.log())[order], old[order], (sizes * signs)[order], clip


def _loss_mistakes() -> list[tuple[Callable, str]]:
    return [
        (
            _clipped(lambda r, n, a: -(n * a).mean()),
            "the clipped ratio alone: take the smaller of both gains",
        ),
        (_clipped(lambda r, n, a: -(r * a).mean()), "nothing is clipped"),
        (
            _clipped(lambda r, n, a: -torch.maximum(r * a, n * a).mean()),
            "this takes the larger gain: take the smaller",
        ),
        (
            _clipped(lambda r, n, a: torch.minimum(r * a, n * a).mean()),
            "the sign is reversed: a loss is what training lowers",
        ),
        (
            _clipped(lambda r, n, a: -torch.minimum(r * a, n * a).sum()),
            "this is the sum: take the mean over the tokens",
        ),
        (
            _clipped(lambda r, n, a: -(torch.minimum(r, n) * a).mean()),
            "the smaller ratio is not the smaller gain where the advantage is negative",
        ),
        (
            lambda p, o, a, c: _clipped(lambda r, n, a: -torch.minimum(r * a, n * a).mean())(
                o, p, a, c
            ),
            "the ratio is turned over: the new policy stands above",
        ),
        (
            lambda p, o, a, c: -torch.minimum((p - o) * a, (p - o).clamp(-c, c) * a).mean(),
            "a difference of logarithms is no ratio: take exp of it",
        ),
    ]


def _cut_mistakes() -> list[tuple[Callable, str]]:
    return [
        (
            _clipped(lambda r, n, a: (r != n).double().mean().item()),
            "a ratio outside the range counts only where its advantage pushes it further out",
        ),
        (
            _clipped(lambda r, n, a: ((r != n) & (a != 0)).double().mean().item()),
            "a ratio outside the range counts only where its advantage pushes it further out",
        ),
        (
            _clipped(lambda r, n, a: 1 - _cut(r, n, a)),
            "this is the share of tokens that are not cut",
        ),
        (
            _clipped(lambda r, n, a: _cut(r, n, -a)),
            "these are the tokens that may go back: they keep their gradient",
        ),
        (
            _clipped(lambda r, n, a: ((r > n) & (a > 0)).double().mean().item()),
            "a ratio that is too low counts as well, where the advantage is negative",
        ),
        (
            _clipped(lambda r, n, a: _cut(r, n, a) * len(r)),
            "this is their number: divide by the number of tokens",
        ),
    ]


@checks("17.3")
def clipped_loss(attempt: Callable) -> str:
    inputs = [_draw_ratios(count, clip) for count, clip in ((3, 0.2), (6, 0.1), (1, 0.3))]
    one, zero = (
        torch.full((4,), -1.0, dtype=torch.float64),
        torch.tensor([1.0, -1, 0.5, -0.5]).double(),
    )
    inputs.append((one, one.clone(), zero, 0.2))  # the first step: loss 0, and a gradient

    def part(number: int) -> Callable:
        return lambda *given: unpack(attempt(*given), "the loss", "the share")[number]

    mistakes = _loss_mistakes()
    right = _clipped(lambda r, n, a: -torch.minimum(r * a, n * a).mean())
    same_for_all(part(0), inputs, right, mistakes, form=need_tensor, what="the loss")

    def slope_of(form: Callable) -> Callable:
        def slope(log_probs: Tensor, *others: Any) -> Tensor:
            log_probs = log_probs.clone().requires_grad_()
            loss = need_gradient(form(log_probs, *others), "the loss")
            return torch.autograd.grad(loss, log_probs)[0]

        return slope

    same_for_all(slope_of(part(0)), inputs, slope_of(right), what="the gradient of the loss")
    shares = _cut_mistakes()
    same_for_all(part(1), inputs, _clipped(_cut), shares, form=need_number, what="the share")
    return "the smaller of both gains; a token is cut only on the side it is pushed to"


@checks("17.4")
def kl_from_samples(attempt: Callable) -> str:
    inputs = []
    for shape in ((8,), (5, 12), (3, 4)):
        p, q = (1.5 * normal(*shape)).log_softmax(-1), (1.5 * normal(*shape)).log_softmax(-1)
        inputs.append((p, q))
    inputs.append((p, p.clone()))
    half = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    inputs.append((half, torch.tensor([0.25, 0.75], dtype=torch.float64).log()))

    def of(form: Callable) -> Callable:
        return lambda log_probs, reference: form(reference - log_probs)

    mistakes = [
        (of(lambda x: -x), "this is k1: right on average, but negative for some tokens"),
        (of(lambda x: x), "this has the expectation -KL: exchange the two"),
        (
            of(lambda x: (-x).exp() - 1 + x),
            "this is r - 1 - ln r with r = π / reference: its expectation is larger than the KL; "
            "the tokens come from π, so r must be reference / π",
        ),
        (of(lambda x: x**2 / 2), "this is k2: never negative, but its expectation is not the KL"),
        (of(lambda x: x.abs()), "cutting or turning negative values changes the expectation"),
        (
            of(lambda x: (-x).clamp(min=0)),
            "cutting or turning negative values changes the expectation",
        ),
        (
            of(lambda x: x.exp() - x),
            "its expectation is 1 + KL: E[reference / π] is 1, so subtract 1",
        ),
        (
            lambda p, q: p.exp() * (p - q),
            "this is the summand of the exact KL: a sample has its weight π already",
        ),
        (
            of(lambda x: 1 - x.exp() - x),
            "r - 1 is subtracted: right on average, but negative for some tokens",
        ),
    ]
    same_for_all(
        attempt,
        inputs,
        of(lambda x: x.expm1() - x),
        mistakes,
        form=need_tensor,
        what="the estimates",
    )
    log_probs, reference = inputs[1]
    mean = (log_probs.exp() * attempt(log_probs, reference)).sum(-1)
    exact = (log_probs.exp() * (log_probs - reference)).sum(-1)
    return f"expectation {mean[0]:.4f}, exact KL {exact[0]:.4f}; never negative"


def _backward(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float,
    decay: float,
    *,
    leak: bool = False,
    own_value: bool = False,
) -> tuple[Tensor, Tensor]:
    advantages = torch.zeros_like(values)
    kept = values if leak else values * mask
    advantage = torch.zeros(len(values), dtype=values.dtype)
    for t in reversed(range(values.shape[1])):
        nothing = torch.zeros_like(advantage)
        following = kept[:, t + 1] if t + 1 < values.shape[1] else nothing
        if own_value:
            last = mask[:, t + 1] == 0 if t + 1 < values.shape[1] else nothing == 0
            following = torch.where(last, values[:, t], following)
        surprise = rewards[:, t] + gamma * following - values[:, t]
        advantage = (surprise + gamma * decay * advantage) * mask[:, t]
        advantages[:, t] = advantage
    return advantages, (advantages + values) * mask


def _gae_mistakes() -> list[tuple[Callable, str]]:
    def right(r: Tensor, v: Tensor, m: Tensor, g: float, d: float) -> Tensor:
        return _backward(r, v, m, g, d)[0]

    def sums(r: Tensor, v: Tensor, m: Tensor, g: float, d: float) -> Tensor:
        return (_backward(r * m, 0 * v, m, g, 1.0)[0] - v) * m

    def surprises(r: Tensor, v: Tensor, m: Tensor, g: float, d: float) -> Tensor:
        return right(r, v, m, g, 0.0)

    def forward(r: Tensor, v: Tensor, m: Tensor, g: float, d: float) -> Tensor:
        surprise, total = surprises(r, v, m, g, d), torch.zeros(len(v), dtype=v.dtype)
        out = torch.zeros_like(v)
        for t in range(v.shape[1]):
            total = surprise[:, t] + g * d * total
            out[:, t] = total * m[:, t]
        return out

    return [
        (
            lambda r, v, m, g, d: _backward(r, v, m, g, d, leak=True)[0],
            "a value behind the end is read: there nothing is expected",
        ),
        (
            lambda r, v, m, g, d: _backward(r, v, m, g, d, own_value=True)[0],
            "behind the last token nothing is expected: its own value is not the next one",
        ),
        (surprises, "each surprise counts for its own token only: add the later ones"),
        (sums, "decay is not used: this is the sum of the rewards minus the value"),
        (
            lambda r, v, m, g, d: right(r, v, m, 1.0, d),
            "gamma is not used: it stands before the next value, and in the sum",
        ),
        (
            lambda r, v, m, g, d: right(r, v, m, g, d / g),
            "a surprise of k tokens later counts (gamma · decay)^k: gamma is missing there",
        ),
        (forward, "earlier surprises are added: an action answers for what comes after it"),
        (
            lambda r, v, m, g, d: -right(r, v, m, g, d),
            "the sign is reversed: a reward above the value is an advantage",
        ),
        (
            lambda r, v, m, g, d: _backward(r, v, m, g, d)[1],
            "these are the returns: the advantages come first",
        ),
    ]


@checks("17.5")
def gae(attempt: Callable) -> str:
    inputs = []
    for lengths, gamma, decay in (((3, 6, 1), 0.9, 0.8), ((5, 2), 0.95, 0.5), ((7, 4), 0.8, 0.9)):
        width = max(lengths) + 1
        mask = torch.zeros(len(lengths), width, dtype=torch.float64)
        for row, length in enumerate(lengths):
            mask[row, :length] = 1
        rewards, values = normal(len(lengths), width), normal(len(lengths), width)
        # behind the end stands anything
        rewards, values = rewards + 7 * (1 - mask), values - 5 * (1 - mask)
        inputs.append((rewards, values, mask, gamma, decay))
    # one answer without padding, rewarded at its end
    end = torch.tensor([[0, 0, 0, 1.0]], dtype=torch.float64)
    inputs.append((end, normal(1, 4), torch.ones(1, 4, dtype=torch.float64), 0.9, 0.7))

    def part(number: int) -> Callable:
        return lambda *given: unpack(attempt(*given), "advantages", "returns")[number]

    def masked(number: int) -> Callable:
        return lambda r, v, m, g, d: part(number)(r, v, m, g, d) * m

    for number, what in ((0, "the advantages"), (1, "the returns")):
        mistakes = _gae_mistakes() if number == 0 else _return_mistakes()
        same_for_all(
            masked(number),
            inputs,
            lambda *given, number=number: _backward(*given)[number],
            mistakes,
            form=need_tensor,
            what=what,
        )
    for number, what in ((0, "the advantages"), (1, "the returns")):
        same_for_all(
            lambda r, v, m, g, d, number=number: part(number)(r, v, m, g, d) * (1 - m),
            inputs,
            lambda r, v, m, g, d: 0 * v,
            form=need_tensor,
            what=f"{what} behind the end (0 is asked for)",
        )
    return "from the last token back; what stands behind the end is never read"


def _return_mistakes() -> list[tuple[Callable, str]]:
    def discounted(r: Tensor, v: Tensor, m: Tensor, g: float, d: float) -> Tensor:
        return _backward(r * m, 0 * v, m, g, 1.0)[0]

    return [
        (discounted, "the sum of the rewards: a return is the advantage plus the value"),
        (
            lambda *given: _backward(*given)[0],
            "these are the advantages once more: add the values",
        ),
        (
            lambda *given: _backward(*given)[0] - given[1] * given[2],
            "the value is subtracted: a return is the advantage plus the value",
        ),
    ]


def _described(rule: Callable) -> Callable:
    return lambda log: rule(
        log[0]["reward"],
        log[-1]["reward"] - log[0]["reward"],
        log[0]["no_spread"],
        log[0]["ratio"],
        max(abs(row["loss"]) for row in log),
        max(row["grad_norm"] for row in log),
    )


def _diagnose(
    reward: float, gain: float, equal: float, ratio: float, loss: float, slope: float
) -> str:
    if ratio > 0.01:
        return "wrong old log-probs"
    if equal == 1:
        return "cold start" if reward < 0.5 else "solved"
    if slope == 0:
        return "no gradient"
    return "healthy" if gain > 0 else "wrong sign"


def _fault_mistakes(truth: dict[int, str]) -> list[tuple[Callable, str]]:
    return [
        (
            _described(lambda r, g, e, q, lo, s: "no gradient" if lo < 1e-9 else "healthy"),
            "judged by the loss: it is 0 in a healthy run as well",
        ),
        (
            _described(
                lambda r, g, e, q, lo, s: (
                    "no gradient" if s == 0 and q < 0.01 else _diagnose(r, g, e, q, lo, s)
                )
            ),
            "equal rewards give no gradient either: look at no_spread first",
        ),
        (
            _described(lambda r, g, e, q, lo, s: _diagnose(r, g, e, 0.0, lo, s)),
            "before its first update a policy is the one that drew: the ratio must be 1",
        ),
        (
            lambda log: (
                "cold start"
                if log[-1]["no_spread"] == 1 and log[-1]["reward"] < 0.5
                else "solved"
                if log[-1]["no_spread"] == 1
                else truth[id(log)]
            ),
            "look at the first step: a run may end where all answers earn the same",
        ),
    ]


def _draw_log(fault: str, long: bool, start: int) -> list[dict[str, float]]:
    """A run of 24 steps, or one that ends where all answers earn the same, whatever brought it
    there. What is no sign of the fault says the opposite: in the short one the second step, and
    whether the loss falls; in the long one the sign of the first loss, which is 0 but for rounding.
    The same start gives the long ones of both signs the same first rewards."""
    if fault not in ("healthy", "wrong sign"):
        return run_tiny(fault, seed=random.randrange(10**6))
    seeds, better = random.Random(start), 1 if fault == "healthy" else -1
    for _ in range(200):
        seed = seeds.randrange(10**6)
        first, second = run_tiny(fault, seed=seed, steps=2)
        seems = -first["loss"] if long else second["reward"] - first["reward"]
        if seems * better < 0:
            log = run_tiny(fault, seed=seed, steps=60 if long else 24)
            if long or (log[0]["loss"] - log[-1]["loss"]) * better < 0:
                break
    else:  # a processor that rounds otherwise
        log = run_tiny(fault, seed=seed, steps=60 if long else 24)
    equal = [step for step, row in enumerate(log) if row["no_spread"] == 1]
    return log[: equal[0] + 1] if long and equal else log


@checks("17.6")
def find_the_fault(attempt: Callable) -> str:
    logs, truth, start = [], {}, random.randrange(10**6)
    for fault in FAULTS:
        for long in (True, False):
            log = _draw_log(fault, long, start)
            truth[id(log)] = fault
            logs.append((log,))
    random.shuffle(logs)
    mistakes = _fault_mistakes(truth)
    same_for_all(
        attempt,
        logs,
        lambda log: truth[id(log)],
        mistakes,
        form=lambda found: need_word(found, *FAULTS),
        what="the diagnosis",
    )
    return f"{len(logs)} logs of real small runs, each named"
