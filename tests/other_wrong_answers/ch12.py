"""Wrong answers to the exercises of chapter 12, written from the statements alone."""

import math
import random

import torch
import torch.nn.functional as F


# 12.1
def _true_weight(p, gamma):
    return (1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * p.log()


def weight_is_the_factor(p, gamma):
    return (1 - p) ** gamma


def weight_with_the_other_sign(p, gamma):
    return (1 - p) ** gamma + gamma * p * (1 - p) ** (gamma - 1) * p.log()


def weight_by_p(p, gamma):
    """The derivative by p."""
    return (1 - p) ** gamma / p - gamma * (1 - p) ** (gamma - 1) * p.log()


def weight_without_p(p, gamma):
    return (1 - p) ** gamma - gamma * (1 - p) ** (gamma - 1) * p.log()


def weight_with_gamma_again(p, gamma):
    """The exponent is not lowered."""
    return (1 - p) ** gamma - gamma * p * (1 - p) ** gamma * p.log()


def weight_without_gamma(p, gamma):
    return (1 - p) ** gamma - p * (1 - p) ** (gamma - 1) * p.log()


def weight_with_its_sign(p, gamma):
    """The derivative, and not minus the derivative."""
    return -_true_weight(p, gamma)


def weight_of_the_mirror(p, gamma):
    return p**gamma - gamma * p**gamma * p.log()


def weight_by_two_bits(p, gamma):
    return (1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * p.log2()


def weight_with_the_other_log(p, gamma):
    return (1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * torch.log1p(-p)


def weight_summed(p, gamma):
    return _true_weight(p, gamma).sum()


def weight_flat(p, gamma):
    return _true_weight(p, gamma).flatten()


def weight_of_gamma_two(p, gamma):
    return _true_weight(p, 2.0)


def weight_of_a_whole_gamma(p, gamma):
    return _true_weight(p, int(gamma))


def weight_of_a_gamma_above_one(p, gamma):
    return (1 - p) ** gamma - gamma * p * (1 - p) ** max(gamma - 1, 0) * p.log()


def weight_at_most_one(p, gamma):
    return _true_weight(p, gamma).clamp(max=1.0)


def weight_normalised(p, gamma):
    weight = _true_weight(p, gamma)
    return weight / weight.mean()


def weight_in_place(p, gamma):
    log_p, odds = p.log(), p / (1 - p)
    return p.neg_().add_(1).pow(gamma) * (1 - gamma * odds * log_p)


def weight_of_the_cost(p, gamma):
    """The cost divided by the surprise, with a slope by hand that is by 1 - p."""
    return (1 - p) ** gamma + gamma * (1 - p) * p ** (gamma - 1)


# 12.2
def _smooth(log_p, targets, epsilon):
    right = log_p.gather(-1, targets[..., None])[..., 0]
    return -(1 - epsilon) * right - epsilon * log_p.mean(-1)


def _graded(logits, labels):
    graded = labels[:, 1:] != -100
    return logits[:, :-1][graded].log_softmax(-1), labels[:, 1:][graded]


def smooth_without_shift(logits, labels, epsilon):
    graded = labels != -100
    return _smooth(logits[graded].log_softmax(-1), labels[graded], epsilon).mean()


def smooth_with_the_other_shift(logits, labels, epsilon):
    graded = labels[:, :-1] != -100
    return _smooth(logits[:, 1:][graded].log_softmax(-1), labels[:, :-1][graded], epsilon).mean()


def smooth_half_masked(logits, labels, epsilon):
    """The second term over all positions, divided by the number of graded ones."""
    log_p, targets = logits[:, :-1].log_softmax(-1), labels[:, 1:]
    mask = targets != -100
    right = log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0] * mask
    return -((1 - epsilon) * right.sum() + epsilon * log_p.mean(-1).sum()) / mask.sum()


def smooth_with_two_means(logits, labels, epsilon):
    """The second term is a mean over all positions."""
    log_p, targets = logits[:, :-1].log_softmax(-1), labels[:, 1:]
    nll = F.nll_loss(log_p.flatten(0, 1), targets.flatten())
    return (1 - epsilon) * nll - epsilon * log_p.mean()


def smooth_over_all_positions(logits, labels, epsilon):
    log_p, targets = logits[:, :-1].log_softmax(-1), labels[:, 1:]
    cost = _smooth(log_p, targets.clamp(min=0), epsilon)
    return torch.where(targets != -100, cost, 0.0).mean()


def smooth_with_a_sum(logits, labels, epsilon):
    log_p, targets = _graded(logits, labels)
    right = log_p.gather(-1, targets[:, None])[:, 0]
    return -((1 - epsilon) * right + epsilon * log_p.sum(-1)).mean()


def smooth_by_rows(logits, labels, epsilon):
    """A mean of the rows' means."""
    means = [
        _smooth(*_graded(logits[i : i + 1], labels[i : i + 1]), epsilon).mean()
        for i in range(len(logits))
        if (labels[i, 1:] != -100).any()
    ]
    return torch.stack(means).mean()


def smooth_over_the_wrong(logits, labels, epsilon):
    size = logits.shape[-1]
    return _smooth(*_graded(logits, labels), epsilon * size / (size - 1)).mean()


def smooth_the_other_way(logits, labels, epsilon):
    return _smooth(*_graded(logits, labels), 1 - epsilon).mean()


def smooth_summed(logits, labels, epsilon):
    return _smooth(*_graded(logits, labels), epsilon).sum()


def smooth_detached(logits, labels, epsilon):
    return _smooth(*_graded(logits, labels), epsilon).mean().detach()


def smooth_half_detached(logits, labels, epsilon):
    log_p, targets = _graded(logits, labels)
    right = log_p.gather(-1, targets[:, None])[:, 0]
    return -((1 - epsilon) * right + epsilon * log_p.detach().mean(-1)).mean()


def smooth_on_top(logits, labels, epsilon):
    """The first term keeps its full weight."""
    log_p, targets = _graded(logits, labels)
    right = log_p.gather(-1, targets[:, None])[:, 0]
    return -(right + epsilon * log_p.mean(-1)).mean()


def smooth_in_place(logits, labels, epsilon):
    mask = labels[:, 1:] != -100
    labels[labels == -100] = 0
    cost = _smooth(logits[:, :-1].log_softmax(-1), labels[:, 1:], epsilon)
    return cost[mask].mean()


def smooth_without_token_zero(logits, labels, epsilon):
    """0 stands for −100, so the token 0 is not graded either."""
    targets = labels[:, 1:].clamp(min=0)
    cost = _smooth(logits[:, :-1].log_softmax(-1), targets, epsilon)
    return cost[targets > 0].mean()


def smooth_the_probabilities(logits, labels, epsilon):
    """The log of the mean, which is always 1/V, and not the mean of the logs."""
    log_p, targets = _graded(logits, labels)
    right = log_p.gather(-1, targets[:, None])[:, 0]
    return -((1 - epsilon) * right + epsilon * log_p.exp().mean(-1).log()).mean()


def smooth_by_cross_entropy(logits, labels, epsilon):
    """Is not to be used."""
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=epsilon
    )


def smooth_a_tenth(logits, labels, epsilon):
    return _smooth(*_graded(logits, labels), 0.1).mean()


def smooth_with_the_mask_unshifted(logits, labels, epsilon):
    mask = labels[:, :-1] != -100
    cost = _smooth(logits[:, :-1].log_softmax(-1), labels[:, 1:].clamp(min=0), epsilon)
    return cost[mask].mean()


def smooth_from_first_to_last(logits, labels, epsilon):
    """All between the first and the last graded token of a row."""
    costs = []
    for row, targets in zip(logits[:, :-1], labels[:, 1:], strict=True):
        places = (targets != -100).nonzero()[:, 0]
        if len(places):
            span = slice(int(places[0]), int(places[-1]) + 1)
            costs.append(_smooth(row[span].log_softmax(-1), targets[span].clamp(min=0), epsilon))
    return torch.cat(costs).mean()


def smooth_zeroed_logits(logits, labels, epsilon):
    """Zeroes what is not graded before the softmax, where it costs log V."""
    mask = (labels[:, 1:] != -100)[..., None]
    log_p = torch.where(mask, logits[:, :-1], 0.0).log_softmax(-1)
    return _smooth(log_p, labels[:, 1:].clamp(min=0), epsilon).sum() / mask.sum()


def smooth_by_all_labels(logits, labels, epsilon):
    """Divides by the label at place 0, too, which nothing predicts."""
    return _smooth(*_graded(logits, labels), epsilon).sum() / (labels != -100).sum()


def smooth_along_time(logits, labels, epsilon):
    mask = labels[:, 1:] != -100
    log_p = logits[:, :-1].log_softmax(1)
    return _smooth(log_p[mask], labels[:, 1:][mask], epsilon).mean()


# 12.3
def _step_weight(batches, weights):
    return sum(weights[t[t != -100]].sum() for _, t in batches)


def micro_own_means(batches, weights):
    return [F.cross_entropy(z, t, weight=weights) for z, t in batches]


def micro_mean_of_means(batches, weights):
    return [F.cross_entropy(z, t, weight=weights) / len(batches) for z, t in batches]


def micro_mean_of_means_guarded(batches, weights):
    losses = [F.cross_entropy(z, t, weight=weights) for z, t in batches]
    some = sum(bool(loss.isfinite()) for loss in losses)
    return [
        loss / some if loss.isfinite() else z.sum() * 0
        for loss, (z, _) in zip(losses, batches, strict=True)
    ]


def micro_by_number(batches, weights):
    graded = sum((t != -100).sum() for _, t in batches)
    return [F.cross_entropy(z, t, weight=weights, reduction="sum") / graded for z, t in batches]


def micro_by_rows(batches, weights):
    rows = sum(len(t) for _, t in batches)
    return [F.cross_entropy(z, t, weight=weights, reduction="sum") / rows for z, t in batches]


def micro_with_the_weight_of_minus_100(batches, weights):
    total = sum(weights[t].sum() for _, t in batches)
    return [F.cross_entropy(z, t, weight=weights, reduction="sum") / total for z, t in batches]


def micro_with_the_first_weight(batches, weights):
    """−100 becomes 0, and its weight is counted."""
    total = sum(weights[t.clamp(min=0)].sum() for _, t in batches)
    return [F.cross_entropy(z, t, weight=weights, reduction="sum") / total for z, t in batches]


def micro_by_the_vocabulary(batches, weights):
    return [
        F.cross_entropy(z, t, weight=weights, reduction="sum") / weights.sum() for z, t in batches
    ]


def micro_undivided(batches, weights):
    return [F.cross_entropy(z, t, weight=weights, reduction="sum") for z, t in batches]


def micro_without_the_empty(batches, weights):
    total = _step_weight(batches, weights)
    return [
        F.cross_entropy(z, t, weight=weights, reduction="sum") / total
        for z, t in batches
        if (t != -100).any()
    ]


def micro_with_a_constant_zero(batches, weights):
    """Nothing can call backward() on the zero."""
    total = _step_weight(batches, weights)
    return [
        F.cross_entropy(z, t, weight=weights, reduction="sum") / total
        if (t != -100).any()
        else torch.tensor(0.0)
        for z, t in batches
    ]


def micro_by_share_of_tokens(batches, weights):
    graded = [int((t != -100).sum()) for _, t in batches]
    return [
        F.cross_entropy(z, t, weight=weights) * n / sum(graded) if n else 0 * z.sum()
        for (z, t), n in zip(batches, graded, strict=True)
    ]


def micro_numbers(batches, weights):
    total = _step_weight(batches, weights)
    return [
        (F.cross_entropy(z, t, weight=weights, reduction="sum") / total).item() for z, t in batches
    ]


def micro_detached(batches, weights):
    total = _step_weight(batches, weights)
    return [
        (F.cross_entropy(z, t, weight=weights, reduction="sum") / total).detach()
        for z, t in batches
    ]


def micro_targets_in_place(batches, weights):
    total = _step_weight(batches, weights)
    losses = []
    for z, t in batches:
        mask = t != -100
        t[~mask] = 0
        losses.append((F.cross_entropy(z, t, reduction="none") * weights[t] * mask).sum() / total)
    return losses


def micro_weights_in_place(batches, weights):
    weights /= _step_weight(batches, weights)
    return [F.cross_entropy(z, t, weight=weights, reduction="sum") for z, t in batches]


def micro_equal_shares(batches, weights):
    whole = F.cross_entropy(
        torch.cat([z for z, _ in batches]), torch.cat([t for _, t in batches]), weight=weights
    )
    return [whole / len(batches)] * len(batches)


def micro_unweighted(batches, weights):
    graded = sum((t != -100).sum() for _, t in batches)
    return [F.cross_entropy(z, t, reduction="sum") / graded for z, t in batches]


def micro_unweighted_costs(batches, weights):
    total = _step_weight(batches, weights)
    return [F.cross_entropy(z, t, reduction="sum") / total for z, t in batches]


def micro_all_in_one(batches, weights):
    total = _step_weight(batches, weights)
    return sum(F.cross_entropy(z, t, weight=weights, reduction="sum") / total for z, t in batches)


def micro_so_far(batches, weights):
    """The divisor grows from one micro-batch to the next."""
    losses, total = [], 0.0
    for z, t in batches:
        total = total + weights[t[t != -100]].sum()
        loss = F.cross_entropy(z, t, weight=weights, reduction="sum")
        losses.append(loss / total if total > 0 else 0 * loss)
    return losses


def micro_of_one_graph(batches, weights):
    """The second backward() finds the graph of the softmax gone."""
    logits, targets = torch.cat([z for z, _ in batches]), torch.cat([t for _, t in batches])
    cost = F.cross_entropy(logits, targets, weight=weights, reduction="none")
    cost = cost / _step_weight(batches, weights)
    return [part.sum() for part in cost.split([len(t) for _, t in batches])]


def micro_weights_of_one_batch(batches, weights):
    total = weights[batches[0][1].clamp(min=0)].sum()
    return [F.cross_entropy(z, t, weight=weights, reduction="sum") / total for z, t in batches]


def micro_nan_when_light(batches, weights):
    """Guards a micro-batch without a graded token, and not one whose tokens weigh 0."""
    own = [weights[t[t != -100]].sum() for _, t in batches]
    return [
        F.cross_entropy(z, t, weight=weights) * w / sum(own) if (t != -100).any() else z.sum() * 0.0
        for (z, t), w in zip(batches, own, strict=True)
    ]


# 12.4
def _pull(loss, p):
    logits = torch.zeros(1, 50)
    logits[0, 17] = math.log(49 * p / (1 - p))
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, torch.tensor([17])), logits)
    return -gradient[0, 17].item() / (1 - p)


def _differ(loss, targets):
    """Whether these targets have different weights."""
    logits = torch.zeros(len(targets), 50, requires_grad=True)
    loss(logits, torch.tensor(targets)).backward()
    own = logits.grad.gather(1, torch.tensor(targets)[:, None])
    return bool((own.max() / own.min() - 1).abs() > 0.05)


def _name(loss, targets=range(50), **names):
    low, high = _pull(loss, 0.1), _pull(loss, 0.98)
    if low < 0:
        name = "DFT, not detached"
    elif high < 0:
        name = "smoothed"
    elif abs(low - 0.1) < 1e-3:
        name = "DFT"
    elif high < 0.99:
        name = "focal"
    else:
        name = "weighted" if _differ(loss, list(targets)) else "cross-entropy"
    return names.get(name, name)


def name_always_the_usual(loss):
    return "cross-entropy"


def name_by_chance(loss):
    names = ("cross-entropy", "focal", "smoothed", "DFT", "weighted", "DFT, not detached")
    return random.Random().choice(names)


def name_in_capitals(loss):
    return _name(loss).capitalize()


def name_with_a_number(loss):
    return _name(loss), _pull(loss, 0.5)


def name_smoothed_otherwise(loss):
    return _name(loss, smoothed="label smoothing")


def name_dft_in_small_letters(loss):
    return _name(loss, DFT="dft")


def name_without_the_detach(loss):
    name = _name(loss)
    return "DFT" if name.startswith("DFT") else name


def name_with_the_detach_swapped(loss):
    return _name(loss, **{"DFT": "DFT, not detached", "DFT, not detached": "DFT"})


def name_by_one_token(loss):
    """A weight divides itself away."""
    return _name(loss, [17])


def name_by_two_targets(loss):
    return _name(loss, [0, 1])


def name_by_the_first_half(loss):
    return _name(loss, range(25))


def name_by_the_ends(loss):
    """The first ten targets and the last ten."""
    return _name(loss, [*range(10), *range(40, 50)])


def name_by_one_target_often(loss):
    return _name(loss, [3] * 50)


def name_by_one_p(loss):
    """c at p = 0.5, and what is nearest."""
    c = _pull(loss, 0.5)
    if abs(c - 1) < 1e-3:
        return "weighted" if _differ(loss, list(range(50))) else "cross-entropy"
    expected = {
        "focal": 0.25 * (1 + 2 * math.log(2)),  # gamma 2
        "smoothed": 1 - 0.1 * 0.98 / 0.5,
        "DFT": 0.5,
        "DFT, not detached": 0.5 * (1 - math.log(2)),
    }
    return min(expected, key=lambda name: abs(expected[name] - c))


def name_by_values(loss):
    """Values do not see the missing detach."""
    costs = {}
    for p in (0.1, 0.9):
        logits = torch.zeros(1, 50)
        logits[0, 17] = math.log(49 * p / (1 - p))
        costs[p] = loss(logits, torch.tensor([17])).item() / -math.log(p)
    if abs(costs[0.1] - 1) < 1e-3:
        return "weighted" if _differ(loss, list(range(50))) else "cross-entropy"
    if abs(costs[0.1] - 0.1) < 1e-3:
        return "DFT"
    return "smoothed" if costs[0.9] > 1 else "focal"


def name_with_a_rough_eye(loss):
    """What is within a tenth of cross-entropy at p = 0.1 and 0.5 is cross-entropy."""
    if abs(_pull(loss, 0.1) - 1) < 0.1 and abs(_pull(loss, 0.5) - 1) < 0.1:
        return "weighted" if _differ(loss, list(range(50))) else "cross-entropy"
    return _name(loss)


def name_for_gamma_two(loss):
    name = _name(loss)
    if name == "focal" and abs(_pull(loss, 0.5) - 0.25 * (1 + 2 * math.log(2))) > 1e-2:
        return "cross-entropy"
    return name


def name_for_a_tenth(loss):
    name = _name(loss)
    if name == "smoothed" and abs(_pull(loss, 0.5) - (1 - 0.1 * 0.98 / 0.5)) > 1e-2:
        return "focal"
    return name


def name_focal_by_less(loss):
    """Anything with less pull at p = 0.9 than at 0.1 is focal."""
    if 0 < _pull(loss, 0.9) < _pull(loss, 0.1) - 1e-3:
        return "focal"
    return _name(loss)


def name_focal_by_more(loss):
    """Focal is above 1 at small p: by a tenth?"""
    name = _name(loss)
    return name if name != "focal" or _pull(loss, 0.01) > 1.1 else "DFT"


def name_smoothed_by_rows(loss):
    """Smoothing is where the gradient of a row does not add up to 0. It always does."""
    logits = torch.randn(4, 50, requires_grad=True)
    loss(logits, torch.arange(4)).backward()
    name = _name(loss)
    return name if name != "smoothed" or logits.grad.sum(-1).abs().max() > 1e-3 else "focal"


def name_never_weighted(loss):
    return _name(loss, weighted="cross-entropy")


def name_or_none(loss):
    name = _name(loss)
    return None if name == "cross-entropy" else name


# 12.6
def _ece(confidence, right, bins, of_bin=lambda n, N, sure, hits: n / N * abs(sure - hits)):
    error = 0.0
    for b in bins.unique():
        chosen = bins == b
        sure, hits = confidence[chosen].mean().item(), right[chosen].double().mean().item()
        error += of_bin(int(chosen.sum()), len(bins), sure, hits)
    return error


def _bins(confidence, count=10):
    return (confidence * count).long().clamp(max=count - 1)


def ece_of_equal_bins(confidence, right):
    bins = _bins(confidence)
    some = len(bins.unique())
    return _ece(confidence, right, bins, lambda n, N, sure, hits: abs(sure - hits) / some)


def ece_of_ten_equal_bins(confidence, right):
    bins = _bins(confidence)
    return _ece(confidence, right, bins, lambda n, N, sure, hits: abs(sure - hits) / 10)


def ece_with_a_sign(confidence, right):
    return _ece(confidence, right, _bins(confidence), lambda n, N, s, h: n / N * (s - h))


def ece_with_a_sign_dropped(confidence, right):
    return abs(ece_with_a_sign(confidence, right))


def ece_squared(confidence, right):
    return _ece(confidence, right, _bins(confidence), lambda n, N, s, h: n / N * (s - h) ** 2)


def ece_root(confidence, right):
    return math.sqrt(ece_squared(confidence, right))


def ece_only_too_sure(confidence, right):
    return _ece(confidence, right, _bins(confidence), lambda n, N, s, h: n / N * max(s - h, 0.0))


def ece_of_counts(confidence, right):
    """Not divided by N."""
    return _ece(confidence, right, _bins(confidence), lambda n, N, s, h: n * abs(s - h))


def ece_percent(confidence, right):
    return 100 * _ece(confidence, right, _bins(confidence))


def ece_border_below(confidence, right):
    return _ece(confidence, right, ((confidence * 10).ceil() - 1).clamp(min=0))


def ece_eleven_bins(confidence, right):
    return _ece(confidence, right, (confidence * 10).long())


def ece_without_one(confidence, right):
    """1.0 is in no bin."""
    error = 0.0
    for b in range(10):
        chosen = (confidence * 10).long() == b
        if chosen.any():
            gap = confidence[chosen].sum() - right[chosen].sum()
            error += abs(gap.item()) / len(confidence)
    return error


def ece_without_zero(confidence, right):
    """Bins that are open below: 0.0 is in no bin."""
    error = 0.0
    for b in range(10):
        chosen = (confidence > b / 10) & (confidence <= (b + 1) / 10)
        if chosen.any():
            gap = confidence[chosen].sum() - right[chosen].sum()
            error += abs(gap.item()) / len(confidence)
    return error


def ece_rounded(confidence, right):
    return _ece(confidence, right, (confidence * 10).round())


def ece_by_floor_division(confidence, right):
    """0.5 // 0.1 is 4."""
    bins = torch.tensor([min(int(c // 0.1), 9) for c in confidence.tolist()])
    return _ece(confidence, right, bins)


def ece_of_equal_numbers(confidence, right):
    bins = torch.empty(len(right), dtype=torch.long)
    bins[confidence.argsort()] = torch.arange(len(right)) * 10 // len(right)
    return _ece(confidence, right, bins)


def ece_largest(confidence, right):
    bins = _bins(confidence)
    return max(
        _ece(confidence[bins == b], right[bins == b], bins[bins == b]) for b in bins.unique()
    )


def ece_without_bins(confidence, right):
    return (confidence - right.double()).abs().mean().item()


def ece_in_one_bin(confidence, right):
    return abs(confidence.mean() - right.double().mean()).item()


def ece_in_fifteen(confidence, right):
    return _ece(confidence, right, _bins(confidence, 15))


def ece_in_five(confidence, right):
    return _ece(confidence, right, _bins(confidence, 5))


def ece_by_middles(confidence, right):
    bins = _bins(confidence)
    return _ece((bins + 0.5) / 10, right, bins)


def ece_with_nan(confidence, right):
    bins = _bins(confidence)
    error = 0.0
    for b in range(10):
        chosen = bins == b
        gap = confidence[chosen].mean() - right[chosen].double().mean()
        error += chosen.double().mean().item() * abs(gap.item())
    return error


def ece_as_tensor(confidence, right):
    return torch.tensor(_ece(confidence, right, _bins(confidence)), dtype=torch.float64)


def ece_in_place(confidence, right):
    bins = confidence.mul_(10).long().clamp(max=9)
    return _ece(confidence / 10, right, bins)


def ece_of_the_range(confidence, right):
    """Ten bins from the lowest confidence to the highest."""
    low, high = confidence.min(), confidence.max()
    return _ece(confidence, right, _bins((confidence - low) / (high - low).clamp(min=1e-9)))


OTHER_WRONG_ANSWERS = {
    "12.1": [
        weight_is_the_factor,
        weight_with_the_other_sign,
        weight_by_p,
        weight_without_p,
        weight_with_gamma_again,
        weight_without_gamma,
        weight_with_its_sign,
        weight_of_the_mirror,
        weight_by_two_bits,
        weight_with_the_other_log,
        weight_summed,
        weight_flat,
        weight_of_gamma_two,
        weight_of_a_whole_gamma,
        weight_of_a_gamma_above_one,
        weight_at_most_one,
        weight_normalised,
        weight_in_place,
        weight_of_the_cost,
    ],
    "12.2": [
        smooth_without_shift,
        smooth_with_the_other_shift,
        smooth_half_masked,
        smooth_with_two_means,
        smooth_over_all_positions,
        smooth_with_a_sum,
        smooth_by_rows,
        smooth_over_the_wrong,
        smooth_the_other_way,
        smooth_summed,
        smooth_detached,
        smooth_half_detached,
        smooth_on_top,
        smooth_in_place,
        smooth_without_token_zero,
        smooth_the_probabilities,
        smooth_by_cross_entropy,
        smooth_a_tenth,
        smooth_with_the_mask_unshifted,
        smooth_from_first_to_last,
        smooth_zeroed_logits,
        smooth_by_all_labels,
        smooth_along_time,
    ],
    "12.3": [
        micro_own_means,
        micro_mean_of_means,
        micro_mean_of_means_guarded,
        micro_by_number,
        micro_by_rows,
        micro_with_the_weight_of_minus_100,
        micro_with_the_first_weight,
        micro_by_the_vocabulary,
        micro_undivided,
        micro_without_the_empty,
        micro_with_a_constant_zero,
        micro_by_share_of_tokens,
        micro_numbers,
        micro_detached,
        micro_targets_in_place,
        micro_weights_in_place,
        micro_equal_shares,
        micro_unweighted,
        micro_unweighted_costs,
        micro_all_in_one,
        micro_so_far,
        micro_of_one_graph,
        micro_weights_of_one_batch,
        micro_nan_when_light,
    ],
    "12.4": [
        name_always_the_usual,
        name_by_chance,
        name_in_capitals,
        name_with_a_number,
        name_smoothed_otherwise,
        name_dft_in_small_letters,
        name_without_the_detach,
        name_with_the_detach_swapped,
        name_by_one_token,
        name_by_two_targets,
        name_by_the_first_half,
        name_by_the_ends,
        name_by_one_target_often,
        name_by_one_p,
        name_by_values,
        name_with_a_rough_eye,
        name_for_gamma_two,
        name_for_a_tenth,
        name_focal_by_less,
        name_focal_by_more,
        name_smoothed_by_rows,
        name_never_weighted,
        name_or_none,
    ],
    "12.5": [
        0.1,
        0.0,
        -0.02,
        math.nan,
        math.inf,
        "0.02",
        [0.02],
        (0.005, 0.02),
        0.001,
        0.005,
        0.05,
        2,  # percent
        True,
    ],
    "12.6": [
        ece_of_equal_bins,
        ece_of_ten_equal_bins,
        ece_with_a_sign,
        ece_with_a_sign_dropped,
        ece_squared,
        ece_root,
        ece_only_too_sure,
        ece_of_counts,
        ece_percent,
        ece_border_below,
        ece_eleven_bins,
        ece_without_one,
        ece_without_zero,
        ece_rounded,
        ece_by_floor_division,
        ece_of_equal_numbers,
        ece_largest,
        ece_without_bins,
        ece_in_one_bin,
        ece_in_fifteen,
        ece_in_five,
        ece_by_middles,
        ece_with_nan,
        ece_as_tensor,
        ece_in_place,
        ece_of_the_range,
    ],
}
