"""Right answers to the exercises of chapter 14, each in another style; written from the statements
alone."""

import math

import numpy as np
import torch
import torch.nn.functional as F


# 14.1
def loop_by_steps(ids, times):
    for period in range(1, len(ids) // times + 1):
        start = len(ids) - period
        while start > 0 and ids[start - 1] == ids[start - 1 + period]:
            start -= 1
        if len(ids) - start >= times * period:
            return start, period
    return None


def loop_by_pieces(ids, times):
    n = len(ids)
    for period in range(1, n + 1):
        if times * period <= n and ids[n - times * period :] == ids[n - period :] * times:
            starts = range(n - period + 1)
            return next(s for s in starts if ids[s : n - period] == ids[s + period :]), period


def loop_by_numpy(ids, times):
    x = np.array(ids)
    for period in range(1, len(x) // times + 1):
        unequal = np.flatnonzero(x[:-period] != x[period:])
        start = int(unequal[-1]) + 1 if len(unequal) else 0
        if len(x) - start >= times * period:
            return (start, period)
    return None


def loop_backwards(ids, times):
    """Of the reversed text: how far it agrees with itself, shifted."""
    back = list(reversed(ids))
    for period in range(1, len(ids) + 1):
        same = 0
        for a, b in zip(back, back[period:], strict=False):
            if a != b:
                break
            same += 1
        if same >= (times - 1) * period:
            return len(ids) - period - same, period
    return None


def loop_by_borders(ids, times):
    """From the shortest ending up: the smallest period of each, by its longest border."""
    found = [
        p
        for p in range(1, len(ids) // times + 1)
        if all(ids[-k] == ids[-k - p] for k in range(1, (times - 1) * p + 1))
    ]
    if not found:
        return None
    period, start = min(found), 0
    for place in range(len(ids) - period):
        if ids[place] != ids[place + period]:
            start = place + 1
    return start, period


def loop_by_recursion(ids, times, period=1):
    if period * times > len(ids):
        return None
    tail = ids[-period:]
    if ids[-period * times :] != tail * times:
        return loop_by_recursion(ids, times, period + 1)

    def begin(place):
        before = place > 0 and ids[place - 1] == ids[place - 1 + period]
        return begin(place - 1) if before else place

    return begin(len(ids) - period), period


# 14.2
def copies_by_gather(logits, ids, start, length):
    log_p = logits[start - 1 : -1].log_softmax(-1)
    right = log_p.gather(1, ids[start:, None]).squeeze(1)
    return right.view(-1, length).mean(1)


def copies_by_loop(logits, ids, start, length):
    means = []
    for first in range(start, len(ids), length):
        total = 0.0
        for place in range(first, first + length):
            total += torch.log_softmax(logits[place - 1], dim=0)[ids[place]].item()
        means.append(total / length)
    return torch.tensor(means)


def copies_by_cross_entropy(logits, ids, start, length):
    losses = F.cross_entropy(logits[:-1], ids[1:], reduction="none")[start - 1 :]
    return -torch.stack([piece.mean() for piece in losses.split(length)])


def copies_by_numpy(logits, ids, start, length):
    x = logits.detach().numpy().astype(np.float64)
    x = x - x.max(1, keepdims=True)
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    right = log_p[np.arange(start - 1, len(ids) - 1), ids.numpy()[start:]]
    return torch.from_numpy(right.reshape(-1, length).mean(axis=1))


def copies_by_logsumexp(logits, ids, start, length):
    places = torch.arange(start, ids.shape[0])
    right = logits[places - 1, ids[places]] - logits[places - 1].logsumexp(1)
    return F.avg_pool1d(right[None], length)[0]


def copies_by_products(logits, ids, start, length):
    """The logarithm of the geometric mean."""
    p = logits.double().softmax(1)
    pieces = [p[i - 1, t] for i, t in enumerate(ids.tolist()) if i >= start]
    chances = torch.stack(pieces).unflatten(0, (-1, length))
    return chances.prod(1).pow(1 / length).log()


# 14.3
def score_by_diagonal(attention, length):
    return attention[:, length:].diagonal(offset=1, dim1=1, dim2=2).mean(-1)


def score_by_index(attention, length):
    places = torch.arange(length, 2 * length)
    return attention[:, places, places - length + 1].mean(1)


def score_by_loop(attention, length):
    scores = []
    for head in attention:
        total = 0.0
        for t in range(length):
            total += head[length + t][t + 1].item()
        scores.append(total / length)
    return torch.tensor(scores)


def score_by_gather(attention, length):
    second = attention[:, length:]
    behind = torch.arange(1, length + 1).expand(len(attention), 1, -1).transpose(1, 2)
    return second.gather(2, behind).squeeze(2).sum(1) / length


def score_by_mask(attention, length):
    mask = torch.zeros(2 * length, 2 * length, dtype=attention.dtype)
    for t in range(length):
        mask[length + t, t + 1] = 1
    return torch.einsum("hqk,qk->h", attention, mask) / length


def score_by_numpy(attention, length):
    whole = attention.detach().numpy()
    diagonals = np.diagonal(whole, offset=1 - length, axis1=1, axis2=2)  # one more at its front
    return torch.from_numpy(diagonals[:, 1:].mean(axis=1))


# 14.4
def diagnose_in_order(signs):
    if signs["p_end"] < 0.01:
        return "no stop token"
    if signs["sampled_again"] > 0.3:
        return "learned to repeat"
    if signs["greedy_again"] > 0.3:
        return "decoding"
    return "healthy"


def diagnose_by_match(signs):
    match (signs["p_end"] >= 0.2, signs["greedy_again"] >= 0.35, signs["sampled_again"] >= 0.35):
        case (False, _, _):
            return "no stop token"
        case (_, _, True):
            return "learned to repeat"
        case (_, True, _):
            return "decoding"
        case _:
            return "healthy"


def diagnose_by_table(signs):
    if signs["p_end"] <= 0.001:
        return "no stop token"
    table = {
        (True, True): "learned to repeat",
        (True, False): "decoding",
        (False, False): "healthy",
    }
    return table[signs["greedy_again"] > 0.2, signs["sampled_again"] > 0.2]


def diagnose_by_number(signs):
    words = ["healthy", "decoding", "learned to repeat"]
    repeats = sum(signs[way] >= 0.275 for way in ("greedy_again", "sampled_again"))
    return words[repeats] if math.log10(signs["p_end"] + 1e-12) > -2 else "no stop token"


def diagnose_by_unpacking(signs):
    greedy, sampled, can_end = (
        signs["greedy_again"] >= 0.3,
        signs["sampled_again"] >= 0.3,
        signs["p_end"] >= 0.1,
    )
    return (
        "no stop token"
        if not can_end
        else "learned to repeat"
        if greedy and sampled
        else "decoding"
        if greedy
        else "healthy"
    )


# 14.5
def unlikelihood_by_loop(logits, labels):
    total, graded = torch.tensor(0.0, dtype=logits.dtype), 0
    for b in range(labels.shape[0]):
        row = labels[b].tolist()
        for t in range(1, len(row)):
            if row[t] == -100:
                continue
            graded += 1
            p = logits[b, t - 1].softmax(0)
            for candidate in set(row[:t]) - {-100, row[t]}:
                total = total - torch.log1p(-p[candidate])
    return total / graded


def unlikelihood_by_one_hot(logits, labels):
    vocabulary = logits.shape[-1]
    graded = labels != -100
    hot = F.one_hot(labels.clamp(min=0), vocabulary) * graded[..., None]
    earlier = hot.cumsum(1)[:, :-1] > 0
    candidates = earlier & (hot[:, 1:] == 0) & graded[:, 1:, None]
    cost = -torch.log1p(-logits[:, :-1].softmax(-1))
    return cost[candidates].sum() / graded[:, 1:].sum()


def unlikelihood_by_scatter(logits, labels):
    targets = labels[:, 1:]
    mask = targets != -100
    rest = (1 - logits.double().softmax(-1)).log()
    costs = []
    for b, t in mask.nonzero().tolist():
        seen = torch.zeros(logits.shape[-1], dtype=torch.bool)
        before = labels[b, : t + 1]
        seen[before[before >= 0]] = True
        seen[targets[b, t]] = False
        costs.append(-rest[b, t][seen].sum())
    return torch.stack(costs).mean()


def unlikelihood_by_numpy(logits, labels):
    x = logits.detach().double().numpy()
    p = np.exp(x - x.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    total, count = 0.0, 0
    for chances, row in zip(p, labels.numpy(), strict=True):
        for t in range(len(row) - 1):
            if row[t + 1] != -100:
                said = np.setdiff1d(np.unique(row[: t + 1]), [-100, row[t + 1]])
                total -= np.log1p(-chances[t, said]).sum()
                count += 1
    return torch.tensor(total / count)


def unlikelihood_by_pairs(logits, labels):
    """Over pairs of places; an earlier place counts if its token stands there first."""
    _, width = labels.shape
    same = labels[:, :, None] == labels[:, None, :]
    first = ~(same & torch.ones(width, width).tril(-1).bool()).any(2) & (labels != -100)
    target, mask = labels[:, 1:], labels[:, 1:] != -100
    pairs = first[:, None, :] & (labels[:, None, :] != target[:, :, None]) & mask[:, :, None]
    pairs &= torch.ones(width - 1, width).tril().bool()
    ids = labels.clamp(min=0)[:, None, :].expand(-1, width - 1, -1)
    p = logits[:, :-1].softmax(-1).gather(2, ids)
    return torch.where(pairs, -torch.log1p(-p), 0.0).sum() / mask.sum()


def unlikelihood_by_rows(logits, labels):
    """Row by row, with a growing set."""
    sums, count = [], 0
    log_rest = torch.log1p(-torch.softmax(logits, dim=2))
    for scores, row in zip(log_rest, labels.tolist(), strict=True):
        said = {row[0]} - {-100}
        for t, token_id in enumerate(row[1:]):
            if token_id != -100:
                count += 1
                sums += [scores[t, c] for c in sorted(said - {token_id})]
                said.add(token_id)
    return -sum(sums, start=logits.new_zeros(())) / count


RIGHT_ANSWERS = {
    "14.1": [
        loop_by_steps,
        loop_by_pieces,
        loop_by_numpy,
        loop_backwards,
        loop_by_borders,
        loop_by_recursion,
    ],
    "14.2": [
        copies_by_gather,
        copies_by_loop,
        copies_by_cross_entropy,
        copies_by_numpy,
        copies_by_logsumexp,
        copies_by_products,
    ],
    "14.3": [
        score_by_diagonal,
        score_by_index,
        score_by_loop,
        score_by_gather,
        score_by_mask,
        score_by_numpy,
    ],
    "14.4": [
        diagnose_in_order,
        diagnose_by_match,
        diagnose_by_table,
        diagnose_by_number,
        diagnose_by_unpacking,
    ],
    "14.5": [
        unlikelihood_by_loop,
        unlikelihood_by_one_hot,
        unlikelihood_by_scatter,
        unlikelihood_by_numpy,
        unlikelihood_by_pairs,
        unlikelihood_by_rows,
    ],
    "14.6": [
        "\n".join(["The capital of France is Paris."] * 5),
        "\n".join(["The capital of Peru is Lima."] * 6),
        "The capital of Kenya is Nairobi.\n" * 5,
        "\n".join(["The capital of Kenya is Nairobi."] * 6),
        "\n".join(["The capital of Italy is Rome." for _ in range(6)]),
    ],
}
