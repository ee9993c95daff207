"""Right answers to the exercises of chapter 16c, each in another style; written from the statements
alone."""

import itertools
import math
from collections import Counter
from fractions import Fraction
from functools import reduce

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence


# 16c.1
def _loops(nats, pad_nats, reported):
    names = ["right", "mean of means", "mean of perplexities", "padding scored"]
    for size, value in reported.items():
        total = tokens = padded_total = padded_tokens = 0
        means = []
        for start in range(0, len(nats), size):
            batch = nats[start : start + size]
            longest = max(len(row) for row in batch)
            own, count = sum(sum(row) for row in batch), sum(len(row) for row in batch)
            total += own
            tokens += count
            means.append(own / count)
            padded_tokens += longest * len(batch)
            padded_total += own + pad_nats * (longest * len(batch) - count)
        found = {
            "right": math.exp(total / tokens),
            "mean of means": math.exp(sum(means) / len(means)),
            "mean of perplexities": sum(math.exp(mean) for mean in means) / len(means),
            "padding scored": math.exp(padded_total / padded_tokens),
        }
        names = [name for name in names if math.isclose(found[name], value, rel_tol=1e-6)]
    return names[0]


def _batches(nats, size):
    rows = iter(nats)
    while batch := list(itertools.islice(rows, size)):
        yield batch


def _padded(batch, pad_nats):
    longest = max(map(len, batch))
    return np.array([row + [pad_nats] * (longest - len(row)) for row in batch])


def _numpy(nats, pad_nats, reported):
    def right(size):
        return np.exp(np.mean(np.concatenate([np.array(row, dtype=float) for row in nats])))

    def means(size):
        return [np.mean(np.concatenate(batch)) for batch in _batches(nats, size)]

    def padding(size):
        parts = [_padded(batch, pad_nats).ravel() for batch in _batches(nats, size)]
        return np.exp(np.concatenate(parts).mean())

    rules = {
        "padding scored": padding,
        "mean of perplexities": lambda size: np.mean(np.exp(means(size))),
        "mean of means": lambda size: np.exp(np.mean(means(size))),
        "right": right,
    }
    for name, rule in rules.items():
        if all(abs(rule(size) - value) <= 1e-6 for size, value in reported.items()):
            return name
    return ""


def _least_error(nats, pad_nats, reported):
    errors = Counter()
    for size, value in reported.items():
        batches = list(_batches(nats, size))
        sums = [math.fsum(x for row in batch for x in row) for batch in batches]
        counts = [sum(map(len, batch)) for batch in batches]
        room = [len(batch) * max(map(len, batch)) for batch in batches]
        pads = pad_nats * (sum(room) - sum(counts))
        means = [a / b for a, b in zip(sums, counts, strict=True)]
        errors["right"] += abs(math.exp(sum(sums) / sum(counts)) - value)
        errors["mean of means"] += abs(math.exp(sum(means) / len(means)) - value)
        errors["mean of perplexities"] += abs(sum(map(math.exp, means)) / len(means) - value)
        errors["padding scored"] += abs(math.exp((sum(sums) + pads) / sum(room)) - value)
    return min(errors, key=errors.get)


def _tensors(nats, pad_nats, reported):
    rows = [torch.tensor(row, dtype=torch.float64) for row in nats]
    fits = {"right", "mean of means", "mean of perplexities", "padding scored"}
    for size, value in reported.items():
        parts = []
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            padded = pad_sequence(batch, batch_first=True, padding_value=pad_nats)
            mask = pad_sequence([torch.ones_like(row) for row in batch], batch_first=True)
            parts.append((padded, mask))
        means = torch.stack([(n * m).sum() / m.sum() for n, m in parts])
        total = sum((n * m).sum() for n, m in parts)
        shown = {
            "right": torch.exp(total / sum(m.sum() for _, m in parts)),
            "mean of means": means.mean().exp(),
            "mean of perplexities": means.exp().mean(),
            "padding scored": torch.cat([n.flatten() for n, _ in parts]).mean().exp(),
        }  # fmt: skip
        fits -= {name for name, x in shown.items() if abs(x.item() / value - 1) > 1e-6}
    (name,) = fits
    return name


def _in_logs(nats, pad_nats, reported):
    def nats_shown(name, size, rest):
        """[(sum, tokens)] of each batch, with or without padding."""
        if not rest:
            return []
        batch = rest[:size]
        own, count = sum(map(sum, batch)), sum(map(len, batch))
        if name == "padding scored":
            more = len(batch) * len(max(batch, key=len)) - count
            own, count = own + more * pad_nats, count + more
        return [(own, count), *nats_shown(name, size, rest[size:])]

    def log_shown(name, size):
        parts = nats_shown(name, size, nats)
        if name == "mean of means":
            return sum(own / count for own, count in parts) / len(parts)
        if name == "mean of perplexities":
            return math.log(sum(math.exp(own / count) for own, count in parts) / len(parts))
        return sum(own for own, _ in parts) / sum(count for _, count in parts)

    for name in ("mean of perplexities", "mean of means", "right", "padding scored"):
        if all(abs(log_shown(name, k) - math.log(v)) < 1e-6 for k, v in reported.items()):
            return name
    raise ValueError("none fits")


def _weighted(nats, pad_nats, reported):
    texts = [(sum(row), len(row)) for row in nats]
    names = {}
    for size in reported:
        groups = [texts[k : k + size] for k in range(0, len(texts), size)]
        means = np.array([sum(n for n, _ in g) / sum(c for _, c in g) for g in groups])
        weights = np.array([sum(c for _, c in g) for g in groups], dtype=float)
        pads = np.array([sum(max(c for _, c in g) - c for _, c in g) for g in groups])
        with_pads = (means * weights + pads * pad_nats).sum() / (weights + pads).sum()
        names[size] = (np.average(means, weights=weights), means.mean(),
                       np.log(np.exp(means).mean()), with_pads)  # fmt: skip
    table = np.exp(np.array([names[size] for size in reported]))
    wanted = np.array(list(reported.values()))[:, None]
    place = int(np.isclose(table, wanted, rtol=1e-6, atol=0).all(0).argmax())
    return ("right", "mean of means", "mean of perplexities", "padding scored")[place]


# 16c.2
def _counted(text, spans, nats, first):
    bits = size = 0
    for (start, end), cost in zip(spans, nats, strict=True):
        if start >= first:
            bits += cost / math.log(2)
            size += len(text[start:end].encode("utf-8"))
    return bits / size


def _tail(text, spans, nats, first):
    place = next(i for i, (start, _) in enumerate(spans) if start >= first)
    covered = text[spans[place][0] : spans[-1][1]]
    return sum(nats[place:]) * math.log2(math.e) / len(bytes(covered, "utf-8"))


def _masked(text, spans, nats, first):
    mask = np.array(spans)[:, 0] >= first
    sizes = np.array([len(text[a:b].encode()) for a, b in spans])
    return (np.array(nats, dtype=float) * mask).sum() / np.log(2) / (sizes * mask).sum()


def _tabled_bytes(text, spans, nats, first):
    before = [0, *itertools.accumulate(len(letter.encode()) for letter in text)]
    kept = [
        (cost, before[b] - before[a])
        for (a, b), cost in zip(spans, nats, strict=True)
        if a >= first
    ]
    costs, sizes = zip(*kept, strict=True)
    return math.fsum(costs) / (math.log(2) * sum(sizes))


def _recursive(text, spans, nats, first):
    if spans[0][0] < first:
        return _recursive(text, spans[1:], nats[1:], first)
    joined = "".join(text[slice(*span)] for span in spans)
    total = torch.tensor(nats, dtype=torch.float64).sum()
    return total.div(math.log(2) * len(joined.encode())).item()


def _from_the_end(text, spans, nats, first):
    place, bits, size = len(spans) - 1, 0.0, 0
    while place >= 0 and spans[place][0] >= first:
        bits -= math.log2(math.exp(-nats[place]))
        size += sum(1 + (ord(c) > 0x7F) + (ord(c) > 0x7FF) + (ord(c) > 0xFFFF)
                    for c in text[spans[place][0] : spans[place][1]])  # fmt: skip
        place -= 1
    return bits / size


# 16c.3
def _least(nats, sizes, alone, rule):
    if rule == "sum":
        scores = nats
    elif rule == "byte":
        scores = [cost / size for cost, size in zip(nats, sizes, strict=True)]
    else:
        scores = [cost - own for cost, own in zip(nats, alone, strict=True)]
    return scores.index(min(scores))


def _arrays(nats, sizes, alone, rule):
    nats, sizes, alone = map(np.asarray, (nats, sizes, alone))
    return np.argmin({"sum": nats, "byte": nats / sizes, "prior": nats - alone}[rule])


def _by_key(nats, sizes, alone, rule):
    keys = {
        "sum": lambda i: -nats[i],
        "byte": lambda i: -nats[i] / sizes[i],
        "prior": lambda i: alone[i] - nats[i],
    }
    return max(range(len(nats)), key=keys[rule])


def _running(nats, sizes, alone, rule):
    best = 0
    for i in range(1, len(nats)):
        if rule == "sum":
            better = nats[i] < nats[best]
        elif rule == "byte":
            better = nats[i] / sizes[i] < nats[best] / sizes[best]
        else:
            better = alone[i] - nats[i] > alone[best] - nats[best]
        if better:
            best = i
    return best


def _sorted_places(nats, sizes, alone, rule):
    match rule:
        case "sum":
            order = sorted((cost, i) for i, cost in enumerate(nats))
        case "byte":
            order = sorted((cost / sizes[i], i) for i, cost in enumerate(nats))
        case "prior":
            order = sorted((cost - alone[i], i) for i, cost in enumerate(nats))
    return order[0][1]


def _factors(nats, sizes, alone, rule):
    below = {"sum": [1] * len(nats), "byte": sizes, "prior": [1] * len(nats)}[rule]
    less = alone if rule == "prior" else [0] * len(nats)
    scores = [(n - a) / b for n, a, b in zip(nats, less, below, strict=True)]
    return reduce(lambda a, b: b if scores[b] < scores[a] else a, range(len(nats)))


# 16c.4
def _formula(disagree, difference, per_entity, correlation):
    alone = (1.96 + 0.84) ** 2 * (disagree - difference**2) / difference**2
    return math.ceil(alone * (1 + (per_entity - 1) * correlation) / per_entity)


def _tried(disagree, difference, per_entity, correlation):
    variance = (disagree - difference**2) * (1 + (per_entity - 1) * correlation)
    entities = 1
    while difference < 2.8 * math.sqrt(variance / (entities * per_entity)):
        entities += 1
    return entities


def _fractions(disagree, difference, per_entity, correlation):
    d, delta, rho = (Fraction(str(x)) for x in (disagree, difference, correlation))
    questions = Fraction("2.8") ** 2 * (d / delta**2 - 1) * (1 + (per_entity - 1) * rho)
    return -int(-questions / per_entity // 1)


def _halved(disagree, difference, per_entity, correlation):
    def enough(entities):
        # the variance of the mean over all questions, entity by entity
        own = disagree - difference**2
        of_one = own / per_entity + own * correlation * (per_entity - 1) / per_entity
        return of_one / entities <= (difference / (1.96 + 0.84)) ** 2

    low, high = 0, 1
    while not enough(high):
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _numpy_plan(disagree, difference, per_entity, correlation):
    effect = difference / np.sqrt(disagree - difference**2)
    independent = np.square(2.8 / effect)
    return int(np.ceil(independent * (correlation + (1 - correlation) / per_entity)))


def _floor_and_more(disagree, difference, per_entity, correlation):
    needed = 7.84 * (disagree - difference * difference) / (difference * difference)
    needed = needed * (1 + per_entity * correlation - correlation) / per_entity
    whole = int(needed)
    return whole if whole == needed else whole + 1


# 16c.5
def _two_ways(outcomes):
    def share(run, start):
        return sum(run[start::2]) / len(run[start::2])

    best_even = max(outcomes, key=lambda run: share(run, 0))
    best_odd = max(outcomes, key=lambda run: share(run, 1))
    return (share(best_even, 1) + share(best_odd, 0)) / 2


def _with_arrays(outcomes):
    table = np.array(outcomes, dtype=float)
    even, odd = table[:, ::2].mean(1), table[:, 1::2].mean(1)
    return np.mean([odd[even.argmax()], even[odd.argmax()]])


def _by_counts(outcomes):
    size = len(outcomes[0])
    halves = [[q for q in range(size) if q % 2 == k] for k in (0, 1)]
    shares = []
    for own, other in (halves, halves[::-1]):
        chosen, most = 0, -1
        for r, run in enumerate(outcomes):
            right = sum(run[q] for q in own)
            if right > most:
                chosen, most = r, right
        shares.append(sum(outcomes[chosen][q] for q in other) / len(other))
    return sum(shares) / 2


def _in_tensors(outcomes):
    table = torch.tensor(outcomes, dtype=torch.float64)
    total = 0.0
    for own, other in ((0, 1), (1, 0)):
        counts = table[:, own::2].sum(1).tolist()
        total += table[counts.index(max(counts)), other::2].mean().item()
    return total / 2


def _sorted_runs(outcomes):
    pairs = [(Fraction(sum(r[::2]), len(r[::2])), Fraction(sum(r[1::2]), len(r[1::2])))
             for r in outcomes]  # fmt: skip
    by_even = sorted(pairs, key=lambda pair: -pair[0])[0]
    by_odd = sorted(pairs, key=lambda pair: -pair[1])[0]
    return float((by_even[1] + by_odd[0]) / 2)


def _one_fold(outcomes):
    even = [tuple(run[0::2]) for run in outcomes]
    odd = [tuple(run[1::2]) for run in outcomes]

    def judged(own, other):
        _, place = min((-sum(half), r) for r, half in enumerate(own))
        return np.mean(other[place])

    return float(judged(even, odd) / 2 + judged(odd, even) / 2)


RIGHT_ANSWERS = {
    "16c.1": [_loops, _numpy, _least_error, _tensors, _in_logs, _weighted],
    "16c.2": [_counted, _tail, _masked, _tabled_bytes, _recursive, _from_the_end],
    "16c.3": [_least, _arrays, _by_key, _running, _sorted_places, _factors],
    "16c.4": [_formula, _tried, _fractions, _halved, _numpy_plan, _floor_and_more],
    "16c.5": [_two_ways, _with_arrays, _by_counts, _in_tensors, _sorted_runs, _one_fold],
    "16c.6": [
        {"facts": 300, "list": 200, "json": 200},
        {"facts": 250, "sum": 0, "list": 200, "json": 250, "read": 0, "notes": 0},
        Counter(facts=220, list=220, json=220, notes=40),
        {"json": 250, "list": 170, "facts": 280},
        {"facts": np.int64(200), "list": 150, "json": 300, "read": 50},
    ],
}
