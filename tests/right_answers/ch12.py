"""Right answers to the exercises of chapter 12, each in another style; written from the statements
alone."""

import math
from collections import defaultdict
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F


# 12.1
def weight_by_terms(p, gamma):
    return (1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * p.log()


def weight_factored(p, gamma):
    rest = 1 - p
    return rest ** (gamma - 1) * (rest - gamma * torch.xlogy(p, p))


def weight_by_loop(p, gamma):
    weights = [
        (1 - x) ** gamma * (1 + gamma * x / (1 - x) * -math.log(x)) for x in p.flatten().tolist()
    ]
    return torch.tensor(weights, dtype=p.dtype).reshape(p.shape)


def weight_by_numpy(p, gamma):
    """In float64, whatever p is."""
    x = p.numpy().astype(np.float64)
    surprise = -np.log(x)
    factor = np.power(1 - x, gamma)
    return torch.from_numpy(np.asarray(factor + gamma * x * surprise * factor / (1 - x)))


def weight_by_logs(p, gamma):
    return torch.exp(gamma * torch.log1p(-p)) * (1 - gamma * p.log() * torch.exp(torch.logit(p)))


def weight_by_branches(p, gamma):
    if gamma == 0:
        return torch.ones_like(p)
    slope = -gamma * torch.pow(1 - p, gamma - 1) * p  # of the factor, by log p
    return torch.addcmul(torch.pow(1 - p, gamma), slope, torch.log(p))


def weight_in_place_on_a_copy(p, gamma):
    q = p.clone().log_()
    out = torch.expm1(q).neg_()
    return out.pow(gamma).sub_(q.mul_(gamma).mul_(p).mul_(out.pow(gamma - 1)))


# 12.2
def smooth_rows(logits, labels, epsilon):
    graded = labels[:, 1:] != -100
    log_p = logits[:, :-1][graded].log_softmax(-1)
    right = log_p.gather(1, labels[:, 1:][graded].unsqueeze(1)).squeeze(1)
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean()


def smooth_by_where(logits, labels, epsilon):
    log_p, targets = torch.log_softmax(logits[:, :-1], dim=-1), labels[:, 1:]
    mask = targets == -100
    right = log_p.gather(-1, targets.masked_fill(mask, 0)[..., None])[..., 0]
    cost = -(1 - epsilon) * right - epsilon * log_p.mean(-1)
    return torch.where(mask, 0.0, cost).sum() / (~mask).sum()


def smooth_by_loop(logits, labels, epsilon):
    costs = []
    for row, targets in zip(logits, labels.tolist(), strict=True):
        for t, target in enumerate(targets[1:]):
            if target != -100:
                log_p = F.log_softmax(row[t], dim=0)
                costs.append(-(1 - epsilon) * log_p[target] - epsilon * log_p.sum() / len(log_p))
    return sum(costs) / len(costs)


def smooth_by_target_distribution(logits, labels, epsilon):
    size = logits.shape[-1]
    graded = labels[:, 1:].ge(0)
    rows, targets = logits[:, :-1][graded], labels[:, 1:][graded]
    spread = (1 - epsilon) * F.one_hot(targets, size).to(rows) + epsilon / size
    return -torch.einsum("nv,nv->", spread, torch.nn.LogSoftmax(dim=1)(rows)) / len(rows)


def smooth_by_nll_loss(logits, labels, epsilon):
    log_p = logits[:, :-1].log_softmax(-1).flatten(0, 1)
    targets = labels[:, 1:].flatten()
    spread = -log_p[targets != -100].mean()
    return torch.lerp(F.nll_loss(log_p, targets, ignore_index=-100), spread, epsilon)


def smooth_in_double(logits, labels, epsilon):
    places = (labels[:, 1:] != -100).nonzero()
    log_p = logits[places[:, 0], places[:, 1]].log_softmax(-1, dtype=torch.float64)
    right = log_p[torch.arange(len(places)), labels[places[:, 0], places[:, 1] + 1]]
    return (-(1 - epsilon) * right.sum() - epsilon * log_p.mean(1).sum()) / len(places)


def smooth_with_shifted_labels(logits, labels, epsilon):
    shifted = F.pad(labels, (0, 1), value=-100)[:, 1:].reshape(-1)
    kept = torch.nonzero(shifted + 100).squeeze(1)
    log_p = logits.reshape(len(shifted), -1).index_select(0, kept).log_softmax(1)
    target = torch.full_like(log_p, epsilon / log_p.shape[1]).detach()
    target[torch.arange(len(kept)), shifted[kept]] += 1 - epsilon
    return F.kl_div(log_p, target, reduction="batchmean") - torch.xlogy(target, target).sum() / len(
        kept
    )


# 12.3
def micro_by_gather(batches, weights):
    total = sum(weights[targets[targets != -100]].sum() for _, targets in batches)
    losses = []
    for logits, targets in batches:
        kept = targets != -100
        log_p = logits[kept].log_softmax(-1).gather(1, targets[kept][:, None])[:, 0]
        losses.append(-(weights[targets[kept]] * log_p).sum() / total)
    return losses


def micro_by_library(batches, weights):
    every = torch.cat([targets for _, targets in batches])
    divisor = weights[every[every >= 0]].sum().item()
    return [F.cross_entropy(z, t, weight=weights, reduction="sum") / divisor for z, t in batches]


def micro_by_own_means(batches, weights):
    """torch's mean of each micro-batch, undone."""
    heavy = [weights[t[t != -100]].sum() for _, t in batches]
    return [
        F.cross_entropy(z, t, weight=weights) * own / sum(heavy) if own > 0 else 0.0 * z.sum()
        for (z, t), own in zip(batches, heavy, strict=True)
    ]


def micro_by_loop(batches, weights):
    divisor = 0.0
    for _, targets in batches:
        for target in targets.tolist():
            divisor += weights[target].item() if target != -100 else 0.0
    losses = []
    for logits, targets in batches:
        loss = 0 * logits.sum()
        for row, target in zip(logits, targets.tolist(), strict=True):
            if target != -100:
                loss = loss + weights[target] / divisor * (row.logsumexp(0) - row[target])
        losses.append(loss)
    return losses


def micro_by_one_hot(batches, weights):
    size = len(weights)
    rows = [
        F.one_hot(t.masked_fill(t == -100, size), size + 1)[:, :size] * weights for _, t in batches
    ]  # (N, V)
    divisor = torch.cat(rows).sum()
    return [
        -(row * z.log_softmax(1)).sum() / divisor for row, (z, _) in zip(rows, batches, strict=True)
    ]


def micro_by_one_more_weight(batches, weights):
    longer = torch.cat([weights, weights.new_zeros(1)])
    own = [longer[torch.where(t < 0, len(weights), t)] for _, t in batches]
    costs = [F.cross_entropy(z, t, reduction="none") for z, t in batches]
    whole = torch.stack([w.sum() for w in own]).sum()
    return [w @ c / whole for w, c in zip(own, costs, strict=True)]


def micro_with_a_zero_of_its_own(batches, weights):
    kept = [(z[t != -100], t[t != -100]) for z, t in batches]
    total = float(sum(weights[t].double().sum() for _, t in kept))
    losses = []
    for logits, targets in kept:
        if weights[targets].any():
            log_p = torch.log_softmax(logits, -1)
            losses.append(F.nll_loss(log_p, targets, weight=weights, reduction="sum") / total)
        else:
            losses.append(torch.zeros((), requires_grad=True))
    return losses


# 12.4
def pull(loss, p):
    """The weight c of one token of probability p, among 50."""
    logits = torch.zeros(1, 50)
    logits[0, 17] = math.log(49 * p / (1 - p))
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, torch.tensor([17])), logits)
    return -gradient[0, 17].item() / (1 - p)


def has_weights(loss):
    logits = torch.zeros(50, 50, requires_grad=True)
    loss(logits, torch.arange(50)).backward()
    own = logits.grad.diagonal()
    return (own.max() / own.min() - 1).abs() > 0.1


def name_by_a_tree(loss):
    low, high = pull(loss, 0.1), pull(loss, 0.98)
    if low < 0:
        return "DFT, not detached"
    if high < 0:
        return "smoothed"
    if abs(low - 0.1) < 1e-3:
        return "DFT"
    if abs(high - 1) > 1e-2:
        return "focal"
    return "weighted" if has_weights(loss) else "cross-entropy"


def name_by_value_and_slope(loss):
    """Cost at a few p first; then the gradient, for a missing detach."""
    log_p, costs, slopes = [], [], []
    for score in (-2.0, 1.0, 4.0, 6.0):
        logits = F.one_hot(torch.tensor([3]), 50) * score
        logits = logits.requires_grad_()
        cost = loss(logits, torch.tensor([3]))
        cost.backward()
        log_p.append(logits.log_softmax(-1)[0, 3].item())
        costs.append(cost.item())
        slopes.append(logits.grad[0, 3].item())
    log_p, costs, slopes = map(np.array, (log_p, costs, slopes))
    p = np.exp(log_p)
    if np.allclose(costs, -p * log_p, rtol=1e-3):
        return "DFT" if np.allclose(slopes, -p * (1 - p), rtol=1e-3) else "DFT, not detached"
    if np.allclose(costs, -log_p, rtol=1e-3):
        logits = torch.zeros(50, 50)  # then one known token at a time, and 49 unknown ones
        for t in range(50):
            one = logits.clone()
            one[t, t] = 8.0
            tokens = torch.stack([loss(one[k : k + 1], torch.tensor([k])) for k in range(50)])
            if not torch.isclose(loss(one, torch.arange(50)), tokens.mean(), rtol=1e-4):
                return "weighted"
        return "cross-entropy"
    gamma = np.log(costs / -log_p) / np.log1p(-p)
    return "focal" if np.ptp(gamma) < 1e-2 else "smoothed"


def name_by_one_batch(loss):
    """All 50 targets in one batch of random scores; the gradient row by row."""
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(50, 50, generator=generator) + 6 * torch.eye(50)
    targets = torch.arange(50)
    logits.requires_grad_()
    loss(logits, targets).backward()
    q = logits.detach().softmax(-1)
    p = q.diagonal()
    wrong = ~torch.eye(50, dtype=torch.bool)
    ratios = (logits.grad / q)[wrong].reshape(50, 49)  # c, if all of the rest is target 0
    if (ratios.amax(1) - ratios.amin(1)).max() > 1e-3:
        return "smoothed"
    c = 50 * ratios.mean(1)
    for name, expected in {
        "cross-entropy": torch.ones(50),
        "DFT": p,
        "DFT, not detached": p * (1 + p.log()),
    }.items():
        if torch.allclose(c, expected, rtol=1e-2, atol=1e-4):
            return name
    alike = max((c / one - 1).abs().lt(1e-4).sum() for one in c)
    return "weighted" if alike >= 25 else "focal"  # 25 weigh 1


def name_with_functorch(loss):
    gradient = torch.func.grad(loss)
    target = torch.tensor([0])

    def c(score):
        logits = torch.cat([torch.tensor([[score]]), torch.zeros(1, 49)], 1)
        p = logits.softmax(-1)[0, 0]
        return (gradient(logits, target)[0, 0] / (p - 1)).item()

    if c(0.0) < 0:
        return "DFT, not detached"
    if c(9.0) < -1:
        return "smoothed"
    if c(0.0) < 0.1:
        return "DFT"
    if c(9.0) < 0.9:
        return "focal"
    diagonal = gradient(torch.zeros(50, 50), torch.arange(50)).diagonal()
    return "weighted" if diagonal.std() / diagonal.mean().abs() > 0.01 else "cross-entropy"


def name_by_moving_logits(loss):
    """Finite differences of the value see no detach, autograd does."""
    logits = torch.zeros(1, 50)
    logits[0, 0] = 1.5
    target, step = torch.tensor([0]), torch.zeros(1, 50)
    step[0, 0] = 1e-2
    moved = (loss(logits + step, target) - loss(logits - step, target)).item() / 2e-2
    asked = logits.clone().requires_grad_(True)
    told = torch.autograd.grad(loss(asked, target), asked)[0]
    if abs(moved - told[0, 0].item()) > 1e-2:
        return "DFT"
    if told[0, 0] > 0:
        return "DFT, not detached"
    sure = torch.full((1, 50), -10.0)
    sure[0, 0] = 0.0
    sure.requires_grad_(True)
    told = torch.autograd.grad(loss(sure, target), sure)[0][0, 0]
    if told > 0:
        return "smoothed"
    if told / (sure.softmax(-1)[0, 0] - 1) < 0.5:
        return "focal"
    for k in range(1, 50):  # two targets at a time, one of them known
        pair = torch.zeros(2, 50)
        pair[0, 0] = 12.0
        if abs(loss(pair, torch.tensor([0, k])).item() - math.log(50) / 2) > 0.01:
            return "weighted"
    return "cross-entropy"


def name_in_double(loss):
    def ask(p, target=0):
        logits = torch.full((1, 50), math.log((1 - p) / 49), dtype=torch.float64)
        logits[0, target] = math.log(p)
        logits.requires_grad_()
        loss(logits, torch.tensor([target])).sum().backward()
        return -logits.grad[0, target].item() / (1 - p)

    answers = tuple(round(ask(p), 3) for p in (0.2, 0.5, 0.99))
    if answers == (0.2, 0.5, 0.99):
        return "DFT"
    if answers == (1.0, 1.0, 1.0):
        batch = torch.zeros(50, 50, dtype=torch.float64, requires_grad=True)
        loss(batch, torch.arange(50)).backward()
        return "cross-entropy" if batch.grad.diagonal().std() < 1e-6 else "weighted"
    if answers[0] < 0:
        return "DFT, not detached"
    return "focal" if answers[2] >= 0 else "smoothed"


# 12.6
def ece_by_table(confidence, right):
    bins = (confidence * 10).long().clamp(max=9)
    error = 0.0
    for b in range(10):
        chosen = bins == b
        if chosen.any():
            distance = confidence[chosen].mean() - right[chosen].double().mean()
            error += chosen.sum().item() / len(bins) * abs(distance.item())
    return error


def ece_by_sums(confidence, right):
    bins = torch.floor(confidence * 10).clamp(0, 9).to(torch.int64)
    gaps = torch.zeros(10, dtype=torch.float64).index_add(0, bins, confidence - right.double())
    return gaps.abs().sum().item() / confidence.numel()


def ece_by_bincount(confidence, right):
    c, r = confidence.numpy(), right.numpy()
    bins = np.minimum((10 * c).astype(int), 9)
    gap = np.bincount(bins, weights=c, minlength=10) - np.bincount(bins, r, minlength=10)
    return np.abs(gap).sum() / len(c)  # np.float64 is a float


def ece_by_edges(confidence, right):
    edges = torch.arange(1, 10, dtype=torch.float64) / 10
    bins = torch.bucketize(confidence, edges, right=True)
    both = zip(bins.tolist(), confidence.tolist(), right.tolist(), strict=True)
    gaps = defaultdict(float)
    for b, c, r in both:
        gaps[b] += c - r
    return math.fsum(map(abs, gaps.values())) / len(right)


def ece_by_histogram(confidence, right):
    edges = np.linspace(0, 1, 11)
    weights = (confidence.numpy(), right.double().numpy())
    where = [np.histogram(confidence.numpy(), edges, weights=w)[0] for w in weights]
    return float(np.abs(np.subtract(*where)).sum() / len(confidence))


def ece_by_groups(confidence, right):
    def bin_of(guess):
        return min(int(guess[0] * 10), 9)

    guesses = sorted(zip(confidence.tolist(), right.tolist(), strict=True))
    error = 0.0
    for _, group in groupby(guesses, bin_of):
        sure, hits = zip(*group, strict=True)
        share = len(sure) / len(guesses)
        error += share * abs(sum(sure) / len(sure) - sum(hits) / len(hits))
    return error


def ece_by_one_hot(confidence, right):
    member = F.one_hot((confidence * 10).long().clamp_max(9), 10).double()
    count = member.sum(0)
    means = (member.T @ torch.stack([confidence, right.double()], 1)) / count.clamp(min=1)[:, None]
    return float((count / count.sum()) @ (means[:, 0] - means[:, 1]).abs())


RIGHT_ANSWERS = {
    "12.1": [
        weight_by_terms,
        weight_factored,
        weight_by_loop,
        weight_by_numpy,
        weight_by_logs,
        weight_by_branches,
        weight_in_place_on_a_copy,
    ],
    "12.2": [
        smooth_rows,
        smooth_by_where,
        smooth_by_loop,
        smooth_by_target_distribution,
        smooth_by_nll_loss,
        smooth_in_double,
        smooth_with_shifted_labels,
    ],
    "12.3": [
        micro_by_gather,
        micro_by_library,
        micro_by_own_means,
        micro_by_loop,
        micro_by_one_hot,
        micro_by_one_more_weight,
        micro_with_a_zero_of_its_own,
    ],
    "12.4": [
        name_by_a_tree,
        name_by_value_and_slope,
        name_by_one_batch,
        name_with_functorch,
        name_by_moving_logits,
        name_in_double,
    ],
    "12.5": [0.02, 0.025, 1 / 40, np.float64(0.02), np.float64(0.025)],
    "12.6": [
        ece_by_table,
        ece_by_sums,
        ece_by_bincount,
        ece_by_edges,
        ece_by_histogram,
        ece_by_groups,
        ece_by_one_hot,
    ],
}
