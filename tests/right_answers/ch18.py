"""Right answers to the exercises of chapter 18, each in another style; written from the statements
alone."""

import hashlib
import math
import random
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import chain, groupby
from statistics import fmean

import numpy as np
import torch


# 18.1
def _counter(train, test, vocabulary):
    counts = Counter(label for row in train for label in row if label != -100)
    total = sum(counts.values())
    costs = [
        -math.log((counts[label] + 1) / (total + vocabulary))
        for row in test
        for label in row
        if label != -100
    ]
    return sum(costs) / len(costs)


def _in_numpy(train, test, vocabulary):
    def flat(rows):
        labels = np.array(list(chain.from_iterable(rows)), dtype=np.int64)
        return labels[labels != -100]

    learned = flat(train)
    counts = np.bincount(learned, minlength=vocabulary)
    nll = np.log(len(learned) + vocabulary) - np.log(counts + 1.0)
    return nll[flat(test)].mean()


def _in_torch(train, test, vocabulary):
    counts = torch.ones(vocabulary, dtype=torch.float64)
    for row in train:
        for label in row:
            if label >= 0:
                counts[label] += 1
    logits = counts.log()
    targets = torch.tensor([label for row in test for label in row])
    scores = logits.expand(len(targets), -1)
    return torch.nn.functional.cross_entropy(scores, targets, ignore_index=-100).item()


def _loops(train, test, vocabulary):
    seen, total = {}, 0
    for row in train:
        for place in range(1, len(row)):
            if row[place] != -100:
                seen[row[place]] = seen.get(row[place], 0) + 1
                total += 1
    loss, number = 0.0, 0
    for row in test:
        for place in range(1, len(row)):
            if row[place] == -100:
                continue
            loss += math.log(total + vocabulary) - math.log(seen.get(row[place], 0) + 1)
            number += 1
    return loss / number


def _weighted_by_kind(train, test, vocabulary):
    """Cross-entropy of two histograms, in bits, then in nats."""
    learned, asked = (
        Counter(label for label in chain(*rows) if label >= 0) for rows in (train, test)
    )
    shares = {token: Fraction(count, asked.total()) for token, count in asked.items()}
    bits = sum(
        float(share) * math.log2((learned.total() + vocabulary) / (learned[token] + 1))
        for token, share in shares.items()
    )
    return bits * math.log(2)


def _list_count(train, test, vocabulary):
    learned = [label for row in train for label in row if label != -100]
    asked = [label for row in test for label in row if label != -100]
    return fmean(
        -math.log(learned.count(label) + 1) + math.log(len(learned) + vocabulary) for label in asked
    )


# 18.2
def _judge_slices(losses, epoch):
    if not all(math.isfinite(loss) for loss in losses):
        return "nan"
    if all(loss == 0 for loss in losses):
        return "zero"
    first, end = losses[0], sum(losses[-5:]) / 5
    if end > first:
        return "diverged"
    if end > 0.8 * first:
        return "flat"
    fall = first - end
    for t in range(3, len(losses) - 2):
        if sum(losses[t : t + 3]) / 3 - sum(losses[t - 3 : t]) / 3 > fall / 2:
            return "saw-tooth"
    drops = [
        sum(losses[b - 3 : b]) / 3 - sum(losses[b : b + 3]) / 3
        for b in range(epoch, len(losses) - 2, epoch)
    ]
    return "staircase" if sum(drops) > fall / 2 else "healthy"


def _judge_numpy(losses, epoch):
    curve = np.array(losses, dtype=float)
    if not np.isfinite(curve).all():
        return "nan"
    if not curve.any():
        return "zero"
    end = curve[-5:].mean()
    fall = curve[0] - end
    means = np.convolve(curve, np.ones(3) / 3, mode="valid")  # means[i]: losses i, i + 1, i + 2
    rises = means[3:] - means[:-3]  # rises[t - 3]
    borders = np.arange(epoch, len(curve) - 2, epoch)
    rules = {
        "diverged": end > curve[0],
        "flat": end > 0.8 * curve[0],
        "saw-tooth": rises.max() > 0.5 * fall,
        "staircase": -rises[borders - 3].sum() > 0.5 * fall,
    }
    return next((word for word, holds in rules.items() if holds), "healthy")


def _judge_torch(losses, epoch):
    curve = torch.tensor(losses, dtype=torch.float64)
    if curve.isnan().any() or curve.isinf().any():
        return "nan"
    if torch.count_nonzero(curve) == 0:
        return "zero"
    first, end = curve[0], curve[-5:].mean()
    if end > first:
        return "diverged"
    if end > 0.8 * first:
        return "flat"
    windows = curve.unfold(0, 3, 1).mean(1)
    steps = windows[3:] - windows[:-3]
    if (steps > (first - end) / 2).any():
        return "saw-tooth"
    total = sum(
        -steps[b - 3] for b in range(epoch, len(losses)) if b % epoch == 0 and b < len(losses) - 2
    )
    return "staircase" if total > (first - end) / 2 else "healthy"


def _judge_words(losses, epoch):
    """One test a word, asked in order."""
    size = len(losses)

    def end():
        return fmean(losses[size - 5 :])

    def half():
        return (losses[0] - end()) / 2

    def rise(t):
        return fmean(losses[t : t + 3]) - fmean([losses[t - 1], losses[t - 2], losses[t - 3]])

    rules = [
        ("nan", lambda: any(loss != loss or abs(loss) == math.inf for loss in losses)),
        ("zero", lambda: set(losses) == {0.0}),
        ("diverged", lambda: end() > losses[0]),
        ("flat", lambda: end() > 0.8 * losses[0]),
        ("saw-tooth", lambda: max(map(rise, range(3, size - 3 + 1))) > half()),
        ("staircase", lambda: -sum(map(rise, range(epoch, size - 2, epoch))) > half()),
    ]
    for word, holds in rules:
        if holds():
            return word
    return "healthy"


def _judge_while(losses, epoch):
    for loss in losses:
        if math.isnan(loss) or math.isinf(loss):
            return "nan"
    if max(losses) == min(losses) == 0.0:
        return "zero"
    end = 0.0
    for loss in losses[-5:]:
        end += loss / 5
    if end > losses[0]:
        return "diverged"
    if end - losses[0] * 0.8 > 0:
        return "flat"
    border = 3 * (losses[0] - end) / 2  # sums of three against three halves
    t = 3
    while t <= len(losses) - 3:
        after = losses[t] + losses[t + 1] + losses[t + 2]
        before = losses[t - 1] + losses[t - 2] + losses[t - 3]
        if after - before > border:
            return "saw-tooth"
        t += 1
    b, fallen = epoch, 0.0
    while b < len(losses) - 2:
        fallen += losses[b - 3] + losses[b - 2] + losses[b - 1]
        fallen -= losses[b] + losses[b + 1] + losses[b + 2]
        b += epoch
    if fallen > border:
        return "staircase"
    return "healthy"


# 18.3
def _smooth_sums(losses, graded, beta):
    smoothed = []
    for t in range(len(losses)):
        weights = [beta ** (t - s) * graded[s] for s in range(t + 1)]
        total = sum(w * loss for w, loss in zip(weights, losses, strict=False) if w)
        smoothed.append(total / sum(weights))
    return smoothed


def _smooth_running(losses, graded, beta):
    above, below, smoothed = 0.0, 0, []
    for loss, n in zip(losses, graded, strict=True):
        above, below = above * beta, below * beta
        if n > 0:
            above += n * loss
            below += n
        smoothed.append(above / below)
    return smoothed


def _smooth_matrix(losses, graded, beta):
    n = np.array(graded, dtype=float)
    known = np.where(n > 0, np.array(losses, dtype=float), 0.0)
    gaps = np.subtract.outer(np.arange(len(n)), np.arange(len(n)))
    weights = np.where(gaps >= 0, float(beta) ** np.maximum(gaps, 0), 0.0)
    return ((weights @ (n * known)) / (weights @ n)).tolist()


def _smooth_torch(losses, graded, beta):
    n = torch.tensor(graded, dtype=torch.float64)
    products = (torch.tensor(losses, dtype=torch.float64) * n).masked_fill(n == 0, 0.0)
    kept = torch.tensor([beta**k for k in range(len(losses))], dtype=torch.float64).flip(0)
    size = len(losses)
    return [
        (products[: t + 1] @ kept[size - t - 1 :] / (n[: t + 1] @ kept[size - t - 1 :])).item()
        for t in range(size)
    ]


def _smooth_recursive(losses, graded, beta):
    def sums(t):
        if t < 0:
            return 0.0, 0.0
        above, below = sums(t - 1)
        above, below = beta * above, beta * below
        if graded[t] == 0:
            return above, below
        return above + graded[t] * losses[t], below + graded[t]

    return [above / below for above, below in map(sums, range(len(losses)))]


def _smooth_by_step(losses, graded, beta):
    """An average that moves by the share of the step in all weights."""
    value, weight, smoothed = 0.0, 0.0, []
    for loss, n in zip(losses, graded, strict=True):
        weight = beta * weight + n
        if n:
            value += n / weight * (loss - value)
        smoothed.append(value)
    return smoothed


# 18.5
def _count(share, facts):
    return max(1, round(share * facts))


def _by_sample(rows, share, seed):
    rng, facts = random.Random(seed), defaultdict(list)
    for row in rows:
        if row["fact"] not in facts[row["topic"]]:
            facts[row["topic"]].append(row["fact"])
    chosen = set()
    for names in facts.values():
        chosen.update(rng.sample(names, _count(share, len(names))))
    train = [i for i, row in enumerate(rows) if row["fact"] not in chosen]
    held = [i for i, row in enumerate(rows) if row["fact"] in chosen]
    return train, held


def _by_permutation(rows, share, seed):
    rng = np.random.default_rng(seed)
    names = np.array([row["fact"] for row in rows])
    topics = np.array([row["topic"] for row in rows])
    held = np.zeros(len(rows), dtype=bool)
    for topic in np.unique(topics):
        facts = rng.permutation(np.unique(names[topics == topic]))
        held |= np.isin(names, facts[: _count(share, len(facts))])
    return np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist()


def _by_torch(rows, share, seed):
    generator = torch.Generator().manual_seed(seed)
    places = {}
    for i, row in enumerate(rows):
        places.setdefault(row["topic"], {}).setdefault(row["fact"], []).append(i)
    train, held = [], []
    for facts in places.values():
        groups = list(facts.values())
        order = torch.randperm(len(groups), generator=generator).tolist()
        for rank, which in enumerate(order):
            (held if rank < _count(share, len(groups)) else train).extend(groups[which])
    return train, held


def _by_hash(rows, share, seed):
    """Each fact draws a number of its own."""

    def number(fact):
        return hashlib.sha256(f"{seed}:{fact}".encode()).hexdigest()

    train, held = [], []
    for topic in {row["topic"] for row in rows}:
        facts = sorted({row["fact"] for row in rows if row["topic"] == topic}, key=number)
        chosen = facts[: _count(share, len(facts))]
        for i, row in enumerate(rows):
            if row["topic"] == topic:
                (held if row["fact"] in chosen else train).append(i)
    return train, held


def _by_shuffle(rows, share, seed):
    random.seed(seed)
    pairs = sorted({(row["topic"], row["fact"]) for row in rows})
    chosen = []
    for _, group in groupby(pairs, key=lambda pair: pair[0]):
        facts = [fact for _, fact in group]
        random.shuffle(facts)
        chosen += facts[-_count(share, len(facts)) :]
    held = [i for i in range(len(rows)) if rows[i]["fact"] in chosen]
    return sorted(set(range(len(rows))) - set(held), reverse=True), held


def _by_draws(rows, share, seed):
    """One generator a topic, one fact at a time."""
    left = {}
    for row in rows:
        left.setdefault(row["topic"], set()).add(row["fact"])
    chosen = set()
    for topic, facts in left.items():
        rng = random.Random(f"{topic}/{seed}")
        for _ in range(_count(share, len(facts))):
            fact = rng.choice(sorted(facts - chosen))
            chosen.add(fact)
    split = {True: [], False: []}
    for i, row in enumerate(rows):
        split[row["fact"] in chosen].append(i)
    return split[False], split[True]


def _begun_anew(rows, share, seed):
    """Each topic is drawn with the same seed."""
    topics = {row["topic"]: None for row in rows}
    for topic in topics:
        facts = sorted({row["fact"] for row in rows if row["topic"] == topic})
        topics[topic] = random.Random(seed).sample(facts, _count(share, len(facts)))
    train, held = [], []
    for i, row in enumerate(rows):
        (held if row["fact"] in topics[row["topic"]] else train).append(i)
    return train, held


RIGHT_ANSWERS = {
    "18.1": [_counter, _in_numpy, _in_torch, _loops, _weighted_by_kind, _list_count],
    "18.2": [_judge_slices, _judge_numpy, _judge_torch, _judge_words, _judge_while],
    "18.3": [
        _smooth_sums,
        _smooth_running,
        _smooth_matrix,
        _smooth_torch,
        _smooth_recursive,
        _smooth_by_step,
    ],
    "18.4": [0.004, 5e-3, 6 / 1000, np.float64(0.004), np.float64(0.006)],
    "18.5": [_by_sample, _by_permutation, _by_torch, _by_hash, _by_shuffle, _by_draws, _begun_anew],
}
