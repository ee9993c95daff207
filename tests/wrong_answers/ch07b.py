"""Wrong answers to the exercises of chapter 07b, each with the words that must name its mistake."""

import math
import random

import torch
import torch.nn.functional as F

IGNORE = -100


def _cut(order, size):
    return [order[i : i + size] for i in range(0, len(order), size)]


def _batches(*, sort=True, shuffle=True, drop=False, seeded=True, extra=0):
    def answer(lengths, size, seed):
        rng = random.Random(seed) if seeded else random.Random()
        order = list(range(len(lengths)))
        rng.shuffle(order)
        if sort:
            order.sort(key=lengths.__getitem__)
        batches = _cut(order, size + extra)
        if drop:
            batches = [batch for batch in batches if len(batch) == size]
        if shuffle:
            rng.shuffle(batches)
        return batches

    return answer


def _one_order(lengths, size, seed):
    batches = _cut(sorted(range(len(lengths)), key=lengths.__getitem__), size)
    random.Random(0).shuffle(batches)
    return batches


def _by_budget(lengths, size, seed):
    """As many rows as fit a number of positions."""
    batches, batch = [], []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == size or (len(batch) + 1) * lengths[index] > 30 * size):
            batches.append(batch)
            batch = []
        batch.append(index)
    batches.append(batch)
    random.Random(seed).shuffle(batches)
    return batches


def _dealt_evenly(lengths, size, seed):
    order, count = sorted(range(len(lengths)), key=lengths.__getitem__), -(-len(lengths) // size)
    batches = [order[k * len(order) // count : (k + 1) * len(order) // count] for k in range(count)]
    random.Random(seed).shuffle(batches)
    return batches


def _of_lengths(lengths, size, seed):
    return _cut(sorted(lengths), size)


def _head(*, shift=1, ignore=IGNORE, choose=True, reduction="mean"):
    def answer(hidden, weight, labels):
        states, targets = (hidden[:, :-1], labels[:, 1:]) if shift else (hidden, labels)
        graded = targets != IGNORE if ignore == IGNORE else targets > 0
        scores = (states @ weight.T)[graded] if not choose else states[graded] @ weight.T
        return F.cross_entropy(scores, targets[graded], reduction=reduction)

    return answer


def _rows_run_together(hidden, weight, labels):
    return _head()(hidden.flatten(0, 1)[None], weight, labels.flatten()[None])


def _row_by_row(hidden, weight, labels):
    rows = zip(hidden, labels, strict=True)
    return torch.stack([_head()(h[None], weight, row[None]) for h, row in rows]).mean()


def _first_counts(hidden, weight, labels):
    return _head(reduction="sum")(hidden, weight, labels) / (labels != IGNORE).sum()


def _all_positions(hidden, weight, labels):
    return _head(reduction="sum")(hidden, weight, labels) / labels[:, 1:].numel()


def _only_named(shares, faster):
    left = sum(shares[part] / faster[part] for part in faster)
    return 1 / left if left else math.inf


WRONG_ANSWERS = {
    "7b.1": [
        (_batches(sort=False), "put rows of similar length into a batch"),
        (_batches(shuffle=False), "the batches go from short to long"),
        (_batches(drop=True), "keep the last one"),
        (_batches(seeded=False), "the same seed gave two orders"),
        (_batches(extra=1), "rows, for"),
        (_one_order, "every seed gives the same order"),
        (lambda n, size, seed: _batches()(n, size, seed or None), "the same seed gave two orders"),
        (_dealt_evenly, "all but one are full"),
        (_by_budget, "all but one are full"),
        (_of_lengths, "every index from 0"),
        (lambda lengths, size, seed: range(len(lengths)), "return a list of batches"),
    ],
    "7b.2": [
        (_head(choose=False), "choose the graded rows of hidden before the product"),
        (_head(shift=0), "row t of hidden predicts token t + 1"),
        (_head(ignore=0), "token 0 is a token like any other"),
        (_head(reduction="sum"), "divide by the number of graded tokens"),
        (_rows_run_together, "a row's last state predicts nothing of the next row"),
        (_row_by_row, "a mean of the rows' means"),
        (_first_counts, "the first label of a row has no prediction"),
        (_all_positions, "not by all positions"),
        (lambda *given: _head()(*given).item(), "the loss is a float"),
        (lambda *given: _head()(*given).detach(), "no gradient flows through the loss"),
        (
            lambda hidden, weight, labels: _head()(hidden.detach(), weight, labels),
            "the gradient of hidden",
        ),
    ],
    "7b.3": [
        (lambda s, f: sum(s[p] * f.get(p, 1) for p in s), "add up the times that are left"),
        (_only_named, "a part that is not named keeps its time"),
        (lambda s, f: math.prod(f.values()), "the factors multiply only where"),
        (lambda s, f: sum(s[p] / f.get(p, 1) for p in s), "this is the time that is left"),
        (lambda s, f: sum(f.get(p, 1) for p in s) / len(s), "says nothing about their shares"),
        (lambda s, f: torch.tensor(1.0), "expected a float"),
    ],
}
