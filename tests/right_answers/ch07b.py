"""Right answers to the exercises of chapter 07b, each in another style; written from the statements
alone."""

import heapq
import math
import random
from collections import defaultdict
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F


# 7b.1
def _sorted_and_sliced(lengths, batch_size, seed):
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    random.Random(seed).shuffle(batches)
    return batches


def _numpy_argsort(lengths, batch_size, seed):
    order = np.argsort(np.array(lengths), kind="stable")
    batches = np.split(order, np.arange(batch_size, len(order), batch_size))
    return [batches[k].tolist() for k in np.random.default_rng(seed).permutation(len(batches))]


def _torch_split(lengths, batch_size, seed):
    batches = torch.tensor(lengths).argsort(descending=True).split(batch_size)
    generator = torch.Generator().manual_seed(seed)
    return [batches[k].tolist() for k in torch.randperm(len(batches), generator=generator)]


def _global_random_state(lengths, batch_size, seed):
    random.seed(seed)
    order = list(range(len(lengths)))
    random.shuffle(order)
    order.sort(key=lengths.__getitem__)
    batches = []
    while order:
        batches.append(order[:batch_size])
        del order[:batch_size]
    return random.sample(batches, len(batches))


def _heap_with_the_small_batch_first(lengths, batch_size, seed):
    heap = [(length, i) for i, length in enumerate(lengths)]
    heapq.heapify(heap)
    batches, room = [], len(lengths) % batch_size or batch_size
    while heap:
        batches.append([heapq.heappop(heap)[1] for _ in range(room)])
        room = batch_size
    random.Random(seed).shuffle(batches)
    return batches


def _by_counting(lengths, batch_size, seed):
    places = defaultdict(list)
    for i, length in enumerate(lengths):
        places[length].append(i)
    batches = [[]]
    for length in range(max(lengths), -1, -1):
        for i in places[length]:
            if len(batches[-1]) == batch_size:
                batches.append([])
            batches[-1].append(i)
    keys = np.random.RandomState(seed).rand(len(batches))
    return [batch for _, batch in sorted(zip(keys, batches, strict=True))]


def _in_large_pools(lengths, batch_size, seed):
    """Pools of 50 batches, as many trainers do."""
    rng = np.random.default_rng(seed)
    order, pool = rng.permutation(len(lengths)).tolist(), 50 * batch_size
    batches = []
    for start in range(0, len(order), pool):
        part = sorted(order[start : start + pool], key=lambda i: -lengths[i])
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[k] for k in rng.permutation(len(batches))]


def _recursive_batches(lengths, batch_size, seed):
    def cut(order):
        return [order[:batch_size], *cut(order[batch_size:])] if order else []

    batches = cut([i for _, i in sorted((x, i) for i, x in enumerate(lengths))])
    rng = random.Random(seed)
    return sorted(batches, key=lambda _: rng.random())


# 7b.2
def _shifted_and_chosen(hidden, weight, labels):
    states, targets = hidden[:, :-1], labels[:, 1:]
    graded = targets != -100
    return F.cross_entropy(states[graded] @ weight.T, targets[graded])


def _log_softmax_gathered(hidden, weight, labels):
    states = hidden[:, :-1].reshape(-1, hidden.shape[-1])
    targets = labels[:, 1:].reshape(-1)
    places = torch.nonzero(targets != -100).squeeze(1)
    scores = F.linear(states.index_select(0, places), weight)
    picked = scores.log_softmax(-1).gather(1, targets[places].unsqueeze(1))
    return -picked.mean()


def _logsumexp(hidden, weight, labels):
    row, place = torch.where(labels[:, 1:] >= 0)
    scores = torch.einsum("nd,vd->nv", hidden[row, place], weight)
    targets = labels[row, place + 1]
    return (scores.logsumexp(1) - scores[torch.arange(len(row)), targets]).mean()


def _token_by_token(hidden, weight, labels):
    losses = []
    for b in range(labels.shape[0]):
        for t in range(1, labels.shape[1]):
            target = int(labels[b, t])
            if target != -100:
                scores = weight @ hidden[b, t - 1]
                losses.append(torch.logsumexp(scores, 0) - scores[target])
    return torch.stack(losses).mean()


def _row_by_row(hidden, weight, labels):
    total, count = 0, 0
    for states, targets in zip(hidden, labels, strict=True):
        states, targets = states[:-1], targets[1:]
        graded = targets.ne(-100)
        if graded.any():
            scores = torch.mm(states[graded], weight.t())
            total = total + F.cross_entropy(scores, targets[graded], reduction="sum")
            count += int(graded.sum())
    return total / count


def _in_chunks(hidden, weight, labels):
    graded = labels[:, 1:] != -100
    states, targets = hidden[:, :-1][graded], labels[:, 1:][graded]
    total = hidden.new_zeros(())
    for some, wanted in zip(states.split(3), targets.split(3), strict=True):
        total = total - torch.log_softmax(some @ weight.T, 1)[range(len(wanted)), wanted].sum()
    return total / len(targets)


def _rolled_labels(hidden, weight, labels):
    targets = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], 1).flatten()
    graded = targets != -100
    scores = hidden.flatten(0, 1)[graded].matmul(weight.transpose(0, 1))
    return F.nll_loss(F.log_softmax(scores, dim=1), targets[graded])


def _one_hot(hidden, weight, labels):
    pairs = (labels[:, 1:] != -100).nonzero().tolist()
    states = torch.stack([hidden[b, t] for b, t in pairs])
    targets = torch.stack([labels[b, t + 1] for b, t in pairs])
    logs = torch.nn.functional.linear(states, weight).log_softmax(dim=-1)
    chosen = F.one_hot(targets, len(weight)).bool()
    return -logs[chosen].sum() / len(pairs)


# 7b.3
def _summed(shares, faster):
    return 1 / sum(share / faster.get(part, 1) for part, share in shares.items())


def _loop_over_parts(shares, faster):
    left = 0.0
    for part in shares:
        if part not in faster:
            left += shares[part]
        elif faster[part] != math.inf:
            left += shares[part] / faster[part]
    return 1.0 / left


def _saved_time(shares, faster):
    saved = math.fsum(shares[part] * (1 - 1 / times) for part, times in faster.items())
    return float(1 / (1 - saved))


def _numpy_dot(shares, faster):
    before = np.array(list(shares.values()))
    factor = np.array([1 / faster[part] if part in faster else 1.0 for part in shares])
    return float(before.sum() / (before @ factor))


def _exact(shares, faster):
    before = {part: Fraction(share) for part, share in shares.items()}
    after = dict(before)
    for part, times in faster.items():
        after[part] = Fraction(0) if math.isinf(times) else before[part] / Fraction(times)
    return float(sum(before.values()) / sum(after.values()))


def _recursive_sum(shares, faster):
    def time_of(parts):
        if not parts:
            return 0.0
        (name, share), *rest = parts
        return share / ({name: 1.0} | faster)[name] + time_of(rest)

    return 1 / time_of(list(shares.items()))


RIGHT_ANSWERS = {
    "7b.1": [
        _sorted_and_sliced,
        _numpy_argsort,
        _torch_split,
        _global_random_state,
        _heap_with_the_small_batch_first,
        _by_counting,
        _in_large_pools,
        _recursive_batches,
    ],
    "7b.2": [
        _shifted_and_chosen,
        _log_softmax_gathered,
        _logsumexp,
        _token_by_token,
        _row_by_row,
        _in_chunks,
        _rolled_labels,
        _one_hot,
    ],
    "7b.3": [
        _summed,
        _loop_over_parts,
        _saved_time,
        _numpy_dot,
        _exact,
        _recursive_sum,
    ],
}
