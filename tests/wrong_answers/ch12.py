"""Wrong answers to the exercises of chapter 12, each with what its reader is told."""

import torch
import torch.nn.functional as F


def _power(p, gamma):
    return (1 - p) ** gamma


def _second(p, gamma):
    return gamma * p * (1 - p) ** (gamma - 1) * p.log()


def _parts(logits, labels):
    """NLL, mean NLL over the vocabulary, and the mask, all (B, T - 1)."""
    targets, log_p = labels[:, 1:], logits[:, :-1].log_softmax(-1)
    nll = -log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return nll, -log_p.mean(-1), targets != -100


def _smoothing(form):
    return lambda logits, labels, e: form(*_parts(logits, labels), e, logits.shape[-1])


def _unshifted(logits, labels, e):
    graded = labels != -100
    log_p = logits[graded].log_softmax(-1)
    right = log_p.gather(1, labels[graded][:, None])[:, 0]
    return (-(1 - e) * right - e * log_p.mean(-1)).mean()


def _by_cross_entropy(logits, labels, e):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=e)


def _detached(logits, labels, e):
    nll, flat, on = _parts(logits, labels)
    return ((1 - e) * nll + e * flat.detach())[on].mean()


def _no_gradient(logits, labels, e):
    nll, flat, on = _parts(logits, labels)
    return ((1 - e) * nll + e * flat)[on].mean().detach()


def _sums(batches, weights):
    return [F.cross_entropy(z, t, weight=weights, reduction="sum") for z, t in batches]


def _own(batches, weights):
    return [weights[t[t != -100]].sum() for _, t in batches]


def _mean_of_means(batches, weights):
    return [
        (s / w if w > 0 else s) / len(batches)
        for s, w in zip(_sums(batches, weights), _own(batches, weights), strict=True)
    ]


def _torch_means(batches, weights):
    return [F.cross_entropy(z, t, weight=weights) / len(batches) for z, t in batches]


def _step(divisor):
    def answer(batches, weights):
        return [s / divisor(batches, weights) for s in _sums(batches, weights)]

    return answer


def _count(batches, weights):
    return sum((t != -100).sum() for _, t in batches)


def _careless(batches, weights):
    return sum(weights[t].sum() for _, t in batches)


def _constant_zero(batches, weights):
    total = sum(_own(batches, weights))
    losses = zip(_sums(batches, weights), _own(batches, weights), strict=True)
    return [s / total if own > 0 else torch.tensor(0.0) for s, own in losses]


def _one_graph(batches, weights):
    logits, targets = map(torch.cat, zip(*batches, strict=True))
    costs = F.cross_entropy(logits, targets, weight=weights, reduction="none")
    parts = (costs / sum(_own(batches, weights))).split([len(t) for _, t in batches])
    return [part.sum() for part in parts]


def _joined(batches, weights):
    return F.cross_entropy(*map(torch.cat, zip(*batches, strict=True)), weight=weights)


def _unweighted(batches, weights):
    return [F.cross_entropy(z, t, reduction="sum") / _count(batches, weights) for z, t in batches]


def _pull(loss, p, targets=(0,)):
    logits = torch.zeros(len(targets), 50, dtype=torch.float64)
    logits[:, 0] = torch.logit(torch.tensor(p)).item() + torch.tensor(49.0).log().item()
    logits.requires_grad_()
    (slope,) = torch.autograd.grad(loss(logits, torch.tensor(targets)), logits)
    return -slope[0, 0].item() / (1 - p)


def _name(low, high, *, detached=True, weights=True, loss=None):
    if high < -0.1:
        return "smoothed"
    if low < 0 and detached:
        return "DFT, not detached"
    if low < 0.5:
        return "DFT"
    if high < 0.5:
        return "focal"
    if not weights:
        return "cross-entropy"
    logits, every = torch.randn(50, 50), torch.arange(50)
    same = torch.isclose(loss(logits, every), F.cross_entropy(logits, every))
    return "cross-entropy" if same else "weighted"


def _misses_detach(loss):
    return _name(_pull(loss, 0.1), _pull(loss, 0.999), detached=False, loss=loss)


def _one_token(loss):
    return _name(_pull(loss, 0.1), _pull(loss, 0.999), weights=False)


def _low_only(loss):
    low = _pull(loss, 0.1)
    return _name(low, low, loss=loss) if low < 0.5 else "cross-entropy"


def _high_only(loss):
    high = _pull(loss, 0.999)
    return _name(1.0, high, loss=loss)


def _signs(loss):
    return "smoothed" if _pull(loss, 0.1) > 0 else "DFT, not detached"


def _bins(confidence):
    return (confidence * 10).long().clamp(max=9)


def _calibration(form, bins=_bins, count=10):
    def answer(confidence, right):
        chosen = [bins(confidence) == b for b in range(count)]
        full = [i for i in chosen if i.any()]
        gaps = [(confidence[i].mean() - right[i].double().mean()).item() for i in full]
        return float(form(gaps, [i.sum().item() / len(right) for i in full]))

    return answer


def _weighted_sum(gaps, share):
    return sum(abs(g) * s for g, s in zip(gaps, share, strict=True))


WRONG_ANSWERS = {
    "12.1": [
        (_power, "the product rule gives a second term"),
        (lambda p, g: _power(p, g) + _second(p, g), "the sign of the second term is reversed"),
        (lambda p, g: _power(p, g) - _second(p, g) / p, "lacks a factor p"),
        (lambda p, g: (_power(p, g) - _second(p, g)) / p, "this is the derivative by p"),
        (lambda p, g: _second(p, g) - _power(p, g), "the sign is reversed"),
        (lambda p, g: (_power(p, g) - _second(p, g)) * (1 - p), "this is the pull"),
        (lambda p, g: -_power(p, g) * p.log(), "this is the loss itself"),
        (lambda p, g: _power(p, g) - p * _power(p, g - 1) * p.log(), "own factor gamma is missing"),
        (lambda p, g: p, "this is the weight of DFT"),
    ],
    "12.2": [
        (
            _smoothing(
                lambda nll, flat, on, e, v: ((1 - e) * nll * on + e * flat).sum() / on.sum()
            ),
            "taken at positions that are not graded",
        ),
        (
            _smoothing(lambda nll, flat, on, e, v: (1 - e) * nll[on].mean() + e * flat.mean()),
            "taken at positions that are not graded",
        ),
        (
            _smoothing(lambda nll, flat, on, e, v: ((1 - e) * nll + e * flat).mean()),
            "as if their label were 0",
        ),
        (
            _smoothing(lambda nll, flat, on, e, v: (((1 - e) * nll + e * flat) * on).mean()),
            "divided by all positions",
        ),
        (_unshifted, "not shifted"),
        (
            _smoothing(
                lambda nll, flat, on, e, v: ((1 - e) * nll + e * (v * flat - nll) / (v - 1))[
                    on
                ].mean()
            ),
            "spread over the V - 1 wrong tokens",
        ),
        (
            _smoothing(lambda nll, flat, on, e, v: ((1 - e) * nll + e * v * flat)[on].mean()),
            "a sum over the vocabulary",
        ),
        (
            _smoothing(lambda nll, flat, on, e, v: (nll + e * flat)[on].mean()),
            "lacks its factor 1 - epsilon",
        ),
        (
            _smoothing(lambda nll, flat, on, e, v: (e * nll + (1 - e) * flat)[on].mean()),
            "are exchanged",
        ),
        (
            _smoothing(lambda nll, flat, on, e, v: ((1 - e) * nll + e * flat)[on].sum()),
            "this is the sum",
        ),
        (_smoothing(lambda nll, flat, on, e, v: nll[on].mean()), "this is plain cross-entropy"),
        (_by_cross_entropy, "cross_entropy is not to be used here"),
        (_detached, "the gradient by the logits"),
        (_no_gradient, "no gradient flows"),
    ],
    "12.3": [
        (_mean_of_means, "a mean of the micro-batches' means"),
        (_torch_means, "gives nan"),
        (_step(_count), "divided by the number of graded tokens"),
        (_step(_careless), "weights[-100] is a weight"),
        (lambda b, w: [w.new_zeros(())] * len(b), "no gradient flows"),
        (_unweighted, "the weights are not used"),
        (_sums, "these are sums"),
        (_joined, "return a list"),
        (_step(lambda b, w: w.sum()), "the weights of the whole vocabulary"),
        (lambda b, w: [_joined(b, w) / len(b)] * len(b), "the losses of the micro-batches"),
        (_constant_zero, "make the 0 from its logits"),
        (_one_graph, "the losses share a graph"),
    ],
    "12.4": [
        (_misses_detach, "look at the gradient where p is below 1/e"),
        (_one_token, "with one token the weight is divided away"),
        (_low_only, "is called 'smoothed'"),
        (_high_only, "is called"),
        (_signs, "is called"),
        (lambda loss: "focal", "everything is called 'focal'"),
        (lambda loss: "dft", "is none of the six names"),
    ],
    "12.5": [
        (0.1, "a quarter of 0.1 still teaches the stop token"),
        (1.0, "a quarter of 1 still teaches the stop token"),
        (0.001, "the stop token needs more weight"),
        (0.0, "a weight above 0"),
        (2, "at most 1"),
        ("0.02", "expected a float"),
    ],
    "12.6": [
        (
            _calibration(lambda gaps, share: sum(map(abs, gaps)) / len(gaps)),
            "every bin counts the same",
        ),
        (_calibration(lambda gaps, share: sum(map(abs, gaps)) / 10), "every bin counts the same"),
        (
            _calibration(lambda gaps, share: sum(g * s for g, s in zip(gaps, share, strict=True))),
            "distances have no sign",
        ),
        (_calibration(lambda gaps, share: max(map(abs, gaps))), "this is the largest distance"),
        (
            _calibration(
                lambda gaps, share: sum(g * g * s for g, s in zip(gaps, share, strict=True))
            ),
            "these are squares",
        ),
        (
            _calibration(_weighted_sum, lambda c: ((c * 10).ceil().long() - 1).clamp(min=0)),
            "belongs to the bin above it",
        ),
        (
            _calibration(_weighted_sum, lambda c: (c * 10).long()),
            "a confidence of 1.0 falls out",
        ),
        (
            _calibration(_weighted_sum, lambda c: (c * 10).long(), count=11),
            "makes an eleventh bin",
        ),
        (
            lambda c, r: (c - r.double()).abs().mean().item(),
            "a distance of every single guess",
        ),
        (lambda c, r: (c.mean() - r.double().mean()).abs().item(), "one bin for all guesses"),
        (lambda c, r: 100 * _calibration(_weighted_sum)(c, r), "a fraction, not percent"),
        (lambda c, r: torch.tensor(0.1), "expected a float"),
    ],
}
