"""Wrong answers to the exercises of chapter 17, each with what its reader is told."""

import torch


def _push(form):
    def answer(logits, samples, rewards, baseline):
        p = logits.softmax(0)
        drawn = torch.nn.functional.one_hot(samples, len(logits)).to(p.dtype)
        return form(p, drawn, (rewards - baseline)[:, None], rewards[:, None])

    return answer


def _by_autograd(logits, samples, rewards, baseline):
    logits = logits.clone().requires_grad_()
    gain = ((rewards - baseline) * logits.log_softmax(0)[samples]).mean()
    return torch.autograd.grad(gain, logits)[0]


def _with_share(form):
    def answer(rewards):
        return form(rewards), float((rewards == rewards[:, :1]).all(1).double().mean())

    return answer


def _with_advantages(share):
    def answer(rewards):
        centred = rewards - rewards.mean(1, keepdim=True)
        return centred / (rewards.std(1, keepdim=True) + 1e-4), float(share(rewards))

    return answer


def _clip(form, share=None):
    def cut(ratio, near, advantages):
        return ((ratio > near) & (advantages > 0)) | ((ratio < near) & (advantages < 0))

    def answer(log_probs, old_log_probs, advantages, clip):
        ratio = (log_probs - old_log_probs).exp()
        near = ratio.clamp(1 - clip, 1 + clip)
        chosen = (share or cut)(ratio, near, advantages)
        return form(ratio, near, advantages), float(chosen.double().mean())

    return answer


def _right_loss(ratio, near, advantages):
    return -torch.minimum(ratio * advantages, near * advantages).mean()


def _gae(*, leak=False, own=False, use_gamma=True, decayed=True, order=(0, 1)):
    def answer(rewards, values, mask, gamma, decay):
        gamma = gamma if use_gamma else 1.0
        decay = decay if decayed else 0.0
        advantages, running = torch.zeros_like(values), 0.0
        for t in range(values.shape[1] - 1, -1, -1):
            last = t + 1 == values.shape[1]
            here = 0.0 if last else values[:, t + 1] * (1 if leak else mask[:, t + 1])
            if own:
                ends = torch.ones_like(mask[:, t]) if last else 1 - mask[:, t + 1]
                here = here + ends * values[:, t]
            running = rewards[:, t] + gamma * here - values[:, t] + gamma * decay * running
            running = running * mask[:, t]
            advantages[:, t] = running
        both = advantages, (advantages + values) * mask
        return both[order[0]], both[order[1]]

    return answer


def _unmasked_returns(rewards, values, mask, gamma, decay):
    advantages, _ = _gae()(rewards, values, mask, gamma, decay)
    return advantages, advantages + values


def _by_loss(log):
    return "no gradient" if all(abs(row["loss"]) < 1e-9 for row in log) else "healthy"


def _by_gradient(log):
    if log[0]["ratio"] > 0.01:
        return "wrong old log-probs"
    if log[0]["grad_norm"] == 0:
        return "no gradient"
    return "healthy" if log[-1]["reward"] > log[0]["reward"] else "wrong sign"


def _without_ratio(log):
    if log[0]["no_spread"] == 1:
        return "solved" if log[0]["reward"] == 1 else "cold start"
    if log[0]["grad_norm"] == 0:
        return "no gradient"
    return "healthy" if log[-1]["reward"] > log[0]["reward"] else "wrong sign"


def _by_last_row(log):
    if log[-1]["no_spread"] == 1:
        return "solved" if log[-1]["reward"] == 1 else "cold start"
    if log[0]["ratio"] > 0.01:
        return "wrong old log-probs"
    if log[0]["grad_norm"] == 0:
        return "no gradient"
    return "healthy" if log[-1]["reward"] > log[0]["reward"] else "wrong sign"


def _own_words(log):
    return "fine"


def _estimate(form):
    return lambda log_probs, reference_log_probs: form(reference_log_probs - log_probs)


WRONG_ANSWERS = {
    "17.1": [
        (_push(lambda p, d, g, r: (r * (d - p)).mean(0)), "the baseline is not subtracted"),
        (_push(lambda p, d, g, r: (g * (d - p)).sum(0)), "take the mean"),
        (_push(lambda p, d, g, r: -(g * (d - p)).mean(0)), "the sign is reversed"),
        (_push(lambda p, d, g, r: (g * d).mean(0)), "also lowers every score"),
        (
            _push(lambda p, d, g, r: (g * (d * p).sum(1, keepdim=True) * (d - p)).mean(0)),
            "weighted by its probability once more",
        ),
        (_by_autograd, "write the gradient of log π by hand"),
    ],
    "17.2": [
        (
            _with_share(
                lambda r: (
                    (r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True, correction=0) + 1e-4)
                )
            ),
            "divide by K - 1",
        ),
        (_with_share(lambda r: (r - r.mean()) / (r.std() + 1e-4)), "taken as one group"),
        (_with_share(lambda r: r - r.mean(1, keepdim=True)), "now divide"),
        (
            _with_share(lambda r: (r - r.mean(1, keepdim=True)) / r.std(1, keepdim=True)),
            "the 1e-4 is missing",
        ),
        (_with_advantages(lambda r: (r == 0).all(1).double().mean()), "whatever they earned"),
        (_with_advantages(lambda r: (r.std(1) > 0).double().mean()), "groups with a spread"),
        (_with_advantages(lambda r: (r.std(1) == 0).sum()), "this is their number"),
        (_with_share(lambda r: r.tolist()), "expected a tensor"),
        (lambda r: r - r.mean(1, keepdim=True), "return two things"),
    ],
    "17.3": [
        (_clip(lambda r, n, a: -(n * a).mean()), "the clipped ratio alone"),
        (_clip(lambda r, n, a: -(r * a).mean()), "nothing is clipped"),
        (_clip(lambda r, n, a: -torch.maximum(r * a, n * a).mean()), "the larger gain"),
        (_clip(lambda r, n, a: -_right_loss(r, n, a)), "the sign is reversed"),
        (_clip(lambda r, n, a: -(torch.minimum(r, n) * a).mean()), "is not the smaller gain"),
        (_clip(lambda r, n, a: _right_loss(r, n, a).detach()), "no gradient flows"),
        (_clip(_right_loss, lambda r, n, a: r != n), "pushes it further out"),
        (_clip(_right_loss, lambda r, n, a: (r > n) & (a > 0)), "too low counts as well"),
        (_clip(_right_loss, lambda r, n, a: (r - n) * a < 0), "they keep their gradient"),
    ],
    "17.4": [
        (_estimate(lambda x: -x), "this is k1"),
        (_estimate(lambda x: x), "the expectation -KL"),
        (_estimate(lambda x: torch.expm1(-x) + x), "r must be reference / π"),
        (_estimate(lambda x: 0.5 * x.square()), "this is k2"),
        (_estimate(lambda x: x.abs()), "changes the expectation"),
        (_estimate(lambda x: x.exp() - x), "subtract 1"),
        (_estimate(lambda x: -x.exp() + 1 - x), "right on average, but negative"),
        (lambda p, q: p.exp() * (p - q), "the summand of the exact KL"),
    ],
    "17.5": [
        (_gae(leak=True), "behind the end is read"),
        (_gae(own=True), "is not the next one"),
        (_gae(decayed=False), "add the later ones"),
        (_gae(use_gamma=False), "gamma is not used"),
        (_gae(order=(1, 0)), "the advantages come first"),
        (_gae(order=(0, 0)), "these are the advantages once more"),
        (_unmasked_returns, "the returns behind the end"),
    ],
    "17.6": [
        (_by_loss, "judged by the loss"),
        (_by_gradient, "look at no_spread first"),
        (_without_ratio, "the ratio must be 1"),
        (_by_last_row, "look at the first step"),
        (_own_words, "return one of"),
    ],
}
