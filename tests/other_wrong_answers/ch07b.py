"""Wrong answers to the exercises of chapter 07b, written from the statements alone."""

import math
import random
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F


# 7b.1
def _by_length(lengths):
    return sorted(range(len(lengths)), key=lambda i: lengths[i])


def _slices(order, size):
    return [order[i : i + size] for i in range(0, len(order), size)]


def _shuffled(batches, seed):
    return random.Random(seed).sample(batches, len(batches))


def _batches(order=_by_length, slices=_slices, arrange=_shuffled):
    """The right batching, with one of its three parts changed."""

    def answer(lengths, batch_size, seed):
        return arrange(slices(order(lengths), batch_size), seed)

    return answer


def _drawn_rows(lengths, batch_size, seed):
    """Shuffled rows, as without grouping."""
    return _slices(_shuffled(list(range(len(lengths))), seed), batch_size)


def _ties_drawn_only(lengths, batch_size, seed):
    order = _shuffled(list(range(len(lengths))), seed)
    return _slices(sorted(order, key=lambda i: lengths[i]), batch_size)


def _small_pools(lengths, batch_size, seed):
    order, batches = _shuffled(list(range(len(lengths))), seed), []
    for pool in _slices(order, 3 * batch_size):
        batches += _slices(sorted(pool, key=lambda i: lengths[i]), batch_size)
    return _shuffled(batches, seed)


def _equal_lengths_only(lengths, batch_size, seed):
    batches = []
    for _, same in groupby(_by_length(lengths), key=lambda i: lengths[i]):
        batches += _slices(list(same), batch_size)
    return _shuffled(batches, seed)


def _lengths_for_indices(lengths, batch_size, seed):
    return _shuffled(_slices(sorted(lengths), batch_size), seed)


def _first_index_of_a_length(lengths, batch_size, seed):
    order = [lengths.index(length) for length in sorted(lengths)]
    return _shuffled(_slices(order, batch_size), seed)


def _one_row_a_length(lengths, batch_size, seed):
    places = {length: i for i, length in enumerate(lengths)}
    return _shuffled(_slices([places[x] for x in sorted(places)], batch_size), seed)


def _filled_up(lengths, batch_size, seed):
    order = _by_length(lengths)
    order += order[: -len(order) % batch_size]
    return _shuffled(_slices(order, batch_size), seed)


def _sorts_the_argument(lengths, batch_size, seed):
    answer = _shuffled(_slices(_by_length(lengths), batch_size), seed)
    lengths.sort()
    return answer


def _rows_of_pairs(lengths, batch_size, seed):
    return _shuffled(_slices(sorted((x, i) for i, x in enumerate(lengths)), batch_size), seed)


def _inside_the_batches(batches, seed):
    return [_shuffled(batch, seed) for batch in batches]


def _reshaped(lengths, batch_size, seed):
    """All full batches, the rest is lost."""
    order = np.argsort(lengths)[: len(lengths) // batch_size * batch_size]
    rows = order.reshape(-1, batch_size)
    return np.random.default_rng(seed).permutation(rows).tolist()


def _evenly(order, size):
    return [part.tolist() for part in np.array_split(order, -(-len(order) // size))]


def _dealt_out(order, size):
    count = -(-len(order) // size)
    return [order[k::count] for k in range(count)]


# 7b.2
def _chosen(hidden, weight, labels):
    graded = labels[:, 1:] != -100
    return hidden[:, :-1][graded] @ weight.T, labels[:, 1:][graded]


def _loss(reduce=F.cross_entropy, before=lambda *given: given, choose=_chosen):
    """The right loss, with one of its parts changed."""

    def answer(hidden, weight, labels):
        return reduce(*choose(*before(hidden, weight, labels)))

    return answer


def _masked(rule):
    """The right loss, with another rule for what is graded."""

    def choose(hidden, weight, labels):
        graded = rule(labels[:, 1:])
        return hidden[:, :-1][graded] @ weight.T, labels[:, 1:][graded]

    return _loss(choose=choose)


def _all_scores(hidden, weight, labels):
    scores = hidden @ weight.T
    return F.cross_entropy(scores[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def _all_but_the_last(hidden, weight, labels):
    scores = hidden[:, :-1] @ weight.T
    return F.cross_entropy(scores.flatten(0, 1), labels[:, 1:].flatten())


def _scores_chosen_afterwards(hidden, weight, labels):
    graded = labels[:, 1:] != -100
    return F.cross_entropy((hidden @ weight.T)[:, :-1][graded], labels[:, 1:][graded])


def _zeros_elsewhere(hidden, weight, labels):
    graded = labels[:, 1:] != -100
    scores = (hidden[:, :-1] * graded.unsqueeze(-1)) @ weight.T
    return F.cross_entropy(scores[graded], labels[:, 1:][graded])


def _from_the_first_graded_on(hidden, weight, labels):
    targets = labels[:, 1:]
    first = int((targets != -100).any(0).nonzero()[0])
    scores = hidden[:, first:-1] @ weight.T
    return F.cross_entropy(scores.flatten(0, 1), targets[:, first:].flatten())


def _rows_with_anything_graded(hidden, weight, labels):
    kept = (labels[:, 1:] != -100).any(1)
    return _all_but_the_last(hidden[kept], weight, labels[kept])


def _two_products(hidden, weight, labels):
    scores, targets = _chosen(hidden, weight, labels)
    again, _ = _chosen(hidden, weight, labels)
    return (scores.logsumexp(1) - again.gather(1, targets[:, None])[:, 0]).mean()


def _not_shifted(hidden, weight, labels):
    graded = labels != -100
    return F.cross_entropy(hidden[graded] @ weight.T, labels[graded])


def _shifted_the_other_way(hidden, weight, labels):
    graded = labels[:, :-1] != -100
    return F.cross_entropy(hidden[:, 1:][graded] @ weight.T, labels[:, :-1][graded])


def _flat_before_the_shift(hidden, weight, labels):
    states, targets = hidden.flatten(0, 1)[:-1], labels.flatten()[1:]
    graded = targets != -100
    return F.cross_entropy(states[graded] @ weight.T, targets[graded])


def _rolled_round(hidden, weight, labels):
    targets = labels.roll(-1, dims=1)
    graded = targets != -100
    return F.cross_entropy(hidden[graded] @ weight.T, targets[graded])


def _shifted_over_the_rows(hidden, weight, labels):
    graded = labels[1:] != -100
    return F.cross_entropy(hidden[:-1][graded] @ weight.T, labels[1:][graded])


def _mean_over(count):
    def answer(hidden, weight, labels):
        total = F.cross_entropy(*_chosen(hidden, weight, labels), reduction="sum")
        return total / count(labels)

    return answer


def _mean_of_the_rows(hidden, weight, labels):
    means = []
    for i in range(len(labels)):
        if (labels[i, 1:] != -100).any():
            one = slice(i, i + 1)
            means.append(F.cross_entropy(*_chosen(hidden[one], weight, labels[one])))
    return torch.stack(means).mean()


def _last_graded_of_a_row(hidden, weight, labels):
    states, targets = [], []
    for i, row in enumerate(labels):
        places = (row[1:] != -100).nonzero().flatten().tolist()
        if places:
            states.append(hidden[i, places[-1]])
            targets.append(row[places[-1] + 1])
    return F.cross_entropy(torch.stack(states) @ weight.T, torch.stack(targets))


def _labels_zeroed_in_place(hidden, weight, labels):
    answer = _loss()(hidden, weight, labels)
    labels[labels == -100] = 0
    return answer


def _first_label_masked_in_place(hidden, weight, labels):
    labels[:, 0] = -100
    return _rolled_round(hidden, weight, labels)


def _hidden_normed_in_place(hidden, weight, labels):
    answer = _loss()(hidden, weight, labels)
    with torch.no_grad():
        hidden.mul_(2)
    return answer


def _no_gradients(hidden, weight, labels):
    with torch.no_grad():
        return _loss()(hidden, weight, labels)


# 7b.3
def _whole(factor=lambda times: times, after=lambda left: 1 / left):
    """The right sum, with another reading of a part or of the whole."""

    def answer(shares, faster):
        return after(sum(x / factor(faster.get(part, 1)) for part, x in shares.items()))

    return answer


def _weighted_mean(shares, faster):
    return float(sum(x * faster.get(part, 1) for part, x in shares.items()))


def _multiplied(shares, faster):
    return float(math.prod(faster.values()))


def _named_parts_only(shares, faster):
    left = sum(shares[part] / times for part, times in faster.items())
    return 1 / left if left else 1.0


def _named_parts_gone(shares, faster):
    return 1 / (1 - sum(shares[part] for part in faster))


def _one_part_after_another(shares, faster):
    """Amdahl's law for each part alone, multiplied."""
    whole = 1.0
    for part, times in faster.items():
        whole *= 1 / (1 - shares[part] + shares[part] / times)
    return whole


def _last_part_only(shares, faster):
    whole = 1.0
    for part, times in faster.items():
        whole = 1 / (1 - shares[part] + shares[part] / times)
    return whole


def _gains_added(shares, faster):
    return 1.0 + sum(shares[p] * (1 - 1 / times) for p, times in faster.items())


def _unnamed_are_gone(shares, faster):
    return 1 / sum(x / faster.get(part, math.inf) for part, x in shares.items() if part in faster)


def _bottleneck(shares, faster):
    after = {part: x / faster.get(part, 1) for part, x in shares.items()}
    return max(shares.values()) / max(after.values())


def _shares_changed(shares, faster):
    for part, times in faster.items():
        shares[part] /= times
    return 1 / sum(shares.values())


def _faster_filled(shares, faster):
    for part in shares:
        faster.setdefault(part, 1)
    return 1 / sum(shares[part] / times for part, times in faster.items())


def _faster_emptied(shares, faster):
    return 1 / sum(x / faster.pop(part, 1) for part, x in shares.items())


def _with_places(shares, faster):
    """The second dict read by place."""
    factors = [*faster.values(), *[1] * len(shares)]
    return 1 / sum(x / times for x, times in zip(shares.values(), factors, strict=False))


def _every_part_named(shares, faster):
    return 1 / sum(x / faster[part] for part, x in shares.items())


OTHER_WRONG_ANSWERS = {
    "7b.1": [
        _batches(order=lambda lengths: list(range(len(lengths)))),
        _batches(arrange=lambda batches, seed: batches),
        _batches(arrange=lambda batches, seed: batches[::-1]),
        _batches(arrange=lambda batches, seed: random.sample(batches, len(batches))),
        _batches(arrange=lambda batches, seed: _shuffled(batches, 0)),
        _batches(arrange=lambda batches, seed: _shuffled(batches, seed or None)),
        _batches(arrange=lambda batches, seed: _shuffled(batches, seed) if seed else batches),
        _batches(arrange=lambda batches, seed: batches[::-1] if seed % 2 else batches),
        _batches(arrange=lambda batches, seed: [i for b in _shuffled(batches, seed) for i in b]),
        _batches(arrange=lambda batches, seed: _shuffled(batches, seed)[:-1]),
        _batches(
            arrange=lambda batches, seed: random.Random(seed).choices(batches, k=len(batches))
        ),
        _batches(arrange=_inside_the_batches),
        _batches(slices=lambda order, size: _slices(order, size + 1)),
        _batches(slices=lambda order, size: _slices(order, max(1, size - 1))),
        _batches(slices=lambda order, size: [*_slices(order, size), []]),
        _batches(slices=lambda order, size: [b for b in _slices(order, size) if len(b) == size]),
        _batches(
            slices=lambda order, size: [order[i : i + size] for i in range(0, len(order) + 1, size)]
        ),
        _batches(slices=lambda order, size: [[i + 1 for i in b] for b in _slices(order, size)]),
        _batches(slices=_evenly),
        _batches(slices=_dealt_out),
        _drawn_rows,
        _ties_drawn_only,
        _small_pools,
        _equal_lengths_only,
        _lengths_for_indices,
        _first_index_of_a_length,
        _one_row_a_length,
        _filled_up,
        _sorts_the_argument,
        _rows_of_pairs,
        _reshaped,
        _batches(order=lambda lengths: sorted(range(len(lengths)), key=lambda i: lengths[i] // 50)),
        _batches(order=lambda lengths: sorted(range(len(lengths)), key=lambda i: lengths[i] % 10)),
    ],
    "7b.2": [
        _all_scores,
        _all_but_the_last,
        _scores_chosen_afterwards,
        _zeros_elsewhere,
        _from_the_first_graded_on,
        _rows_with_anything_graded,
        _two_products,
        _not_shifted,
        _shifted_the_other_way,
        _flat_before_the_shift,
        _rolled_round,
        _shifted_over_the_rows,
        _mean_over(lambda labels: labels.numel()),
        _mean_over(lambda labels: labels[:, 1:].numel()),
        _mean_over(lambda labels: len(labels)),
        _mean_over(lambda labels: int((labels != -100).sum())),
        _mean_over(lambda labels: int((labels[:, 1:] > 0).sum())),
        _mean_of_the_rows,
        _last_graded_of_a_row,
        _masked(lambda targets: targets > 0),
        _masked(lambda targets: targets != 0),
        _masked(lambda targets: targets > 1),
        _masked(lambda targets: targets != -1),
        _loss(lambda scores, targets: F.cross_entropy(scores, targets, reduction="sum")),
        _loss(lambda scores, targets: F.cross_entropy(scores, targets, reduction="none")),
        _loss(lambda scores, targets: F.cross_entropy(scores, targets, label_smoothing=0.1)),
        _loss(lambda scores, targets: F.cross_entropy(scores, targets, ignore_index=0)),
        _loss(lambda scores, targets: F.cross_entropy(scores, targets).exp()),
        _loss(lambda scores, targets: F.cross_entropy(scores, targets) / math.log(2)),
        _loss(lambda scores, targets: F.cross_entropy(scores, targets).item()),
        _loss(lambda scores, targets: F.cross_entropy(scores, targets).reshape(1)),
        _loss(lambda scores, targets: -F.cross_entropy(scores, targets)),
        _loss(lambda scores, targets: F.cross_entropy(scores, targets, reduction="none").median()),
        _loss(lambda scores, targets: F.nll_loss(scores, targets)),
        _loss(lambda scores, targets: F.nll_loss(scores.softmax(1), targets)),
        _loss(lambda scores, targets: F.nll_loss(scores.log_softmax(0), targets)),
        _loss(before=lambda hidden, weight, labels: (hidden.detach(), weight, labels)),
        _loss(before=lambda hidden, weight, labels: (hidden, weight.detach(), labels)),
        _loss(before=lambda hidden, weight, labels: (hidden[:1], weight, labels[:1])),
        _no_gradients,
        _labels_zeroed_in_place,
        _first_label_masked_in_place,
        _hidden_normed_in_place,
    ],
    "7b.3": [
        _whole(after=lambda left: left),
        _whole(after=lambda left: 1 - left),
        _whole(after=lambda left: round(1 / left, 1)),
        _whole(after=lambda left: round(1 / left, 2)),
        _whole(after=lambda left: int(1 / left)),
        _whole(after=lambda left: str(1 / left)),
        _whole(after=lambda left: 1 / left - 1),
        _whole(after=lambda left: 100 / left),
        _whole(after=lambda left: max(1.0, 1 / left)),
        _whole(factor=lambda times: max(1, times)),
        _whole(factor=lambda times: 1 if times == math.inf else times),
        _whole(factor=lambda times: 1 + times),
        _whole(factor=lambda times: 1 / times if times < 1 else times),
        _whole(factor=lambda times: times**2),
        _whole(factor=lambda times: max(1, int(min(times, 1e9)))),
        _whole(factor=lambda times: min(times, 10)),
        _whole(factor=lambda times: 1 / times),
        _weighted_mean,
        _multiplied,
        _named_parts_only,
        _named_parts_gone,
        _one_part_after_another,
        _last_part_only,
        _gains_added,
        _unnamed_are_gone,
        _bottleneck,
        _shares_changed,
        _faster_filled,
        _faster_emptied,
        _with_places,
        _every_part_named,
        lambda shares, faster: 1 / 0.7,
        lambda shares, faster: max(faster.values(), default=1.0),
    ],
}
