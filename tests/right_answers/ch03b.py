"""Right answers to the exercises of chapter 03b, in different styles; written from the statements
alone."""

import statistics
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F

from sft_lab.examples import IGNORE_INDEX


# 3b.1
def weight_by_formula(prompt_tokens, answer_tokens, share):
    # w P / (w P + A) = s, so w = s A / ((1 - s) P)
    return share * sum(answer_tokens) / ((1 - share) * sum(prompt_tokens))


def weight_by_odds(prompt_tokens, answer_tokens, share):
    odds = share / (1 - share)
    return odds * sum(answer_tokens) / sum(prompt_tokens)


def weight_by_numpy(prompt_tokens, answer_tokens, share):
    return float(np.sum(answer_tokens) / np.sum(prompt_tokens) * share / (1 - share))


def weight_by_fractions(prompt_tokens, answer_tokens, share):
    exact = Fraction(share)
    return float(exact * sum(answer_tokens) / ((1 - exact) * sum(prompt_tokens)))


def weight_by_bisection(prompt_tokens, answer_tokens, share):
    low, high = 0.0, 1.0
    total, answers = sum(prompt_tokens), sum(answer_tokens)
    while high * total / (high * total + answers) < share:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle * total / (middle * total + answers) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


# 3b.2
def weighted_by_loop(logits, input_ids, labels, weight):
    log_probs = logits.log_softmax(-1)
    total, weights = 0.0, 0.0
    for b in range(input_ids.shape[0]):
        for t in range(input_ids.shape[1] - 1):
            w = weight if labels[b, t + 1] == IGNORE_INDEX else 1.0
            total = total - w * log_probs[b, t, input_ids[b, t + 1]]
            weights += w
    return total / weights


def weighted_by_cross_entropy(logits, input_ids, labels, weight):
    nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), input_ids[:, 1:], reduction="none")
    weights = torch.where(labels[:, 1:] == -100, weight, 1.0).to(nll)
    return (weights * nll).sum() / weights.sum()


def weighted_by_gather(logits, input_ids, labels, weight):
    log_probs = logits[:, :-1].log_softmax(-1).gather(2, input_ids[:, 1:, None]).squeeze(2)
    graded = (labels[:, 1:] != IGNORE_INDEX).to(log_probs.dtype)
    weights = graded + weight * (1 - graded)
    return -(weights * log_probs).sum() / weights.sum()


def weighted_by_two_sums(logits, input_ids, labels, weight):
    nll = -logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:].unsqueeze(-1))[..., 0]
    prompt = labels[:, 1:] == -100
    above = weight * nll[prompt].sum() + nll[~prompt].sum()
    return above / (weight * prompt.sum() + (~prompt).sum())


def weighted_by_flat_rows(logits, input_ids, labels, weight):
    rows = logits[:, :-1].reshape(-1, logits.shape[-1])
    targets, marks = input_ids[:, 1:].reshape(-1), labels[:, 1:].reshape(-1)
    losses = F.nll_loss(F.log_softmax(rows, dim=-1), targets, reduction="none")
    weights = torch.ones_like(losses).masked_fill(marks.eq(-100), weight)
    return torch.dot(weights, losses) / weights.sum()


# 3b.3
def judge_by_loop(first, second):
    effects = [b - a for a, b in zip(first, second, strict=True)]
    floor = max(max(first) - min(first), max(second) - min(second))
    mean = sum(effects) / len(effects)
    if min(effects) > 0 and mean > 2 * floor:
        return "held"
    if max(effects) < 0 and mean < -2 * floor:
        return "did not hold"
    return "not shown"


def judge_by_numpy(first, second):
    effects = np.array(second, float) - np.array(first, float)
    floor = max(np.ptp(first), np.ptp(second))
    if (effects > 0).all() and effects.mean() > 2 * floor:
        return "held"
    return "did not hold" if (effects < 0).all() and effects.mean() < -2 * floor else "not shown"


def judge_by_torch(first, second):
    a, b = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    floor = torch.stack([a.max() - a.min(), b.max() - b.min()]).max()
    for sign, word in ((1, "held"), (-1, "did not hold")):
        effect = sign * (b - a)
        if bool((effect > 0).all()) and bool(effect.mean() > 2 * floor):
            return word
    return "not shown"


def judge_by_symmetry(first, second):
    def held(low, high):
        noise = max(sorted(arm)[-1] - sorted(arm)[0] for arm in (low, high))
        gains = [h - a for a, h in zip(low, high, strict=True)]
        return all(gain > 0 for gain in gains) and statistics.fmean(gains) > 2 * noise

    if held(first, second):
        return "held"
    if held(second, first):
        return "did not hold"
    return "not shown"


def judge_by_a_table(first, second):
    effects = [y - x for x, y in zip(first, second, strict=True)]
    noise = max(max(arm) - min(arm) for arm in (first, second))
    signs = {(effect > 0) - (effect < 0) for effect in effects}
    if len(signs) > 1 or abs(sum(effects) / len(effects)) <= 2 * noise:
        return "not shown"
    return {1: "held", -1: "did not hold", 0: "not shown"}[signs.pop()]


# 3b.4
def asking_by_slices(input_ids, opening, stop):
    begin, end = len(opening), input_ids.index(stop, len(opening)) + 1
    rest = [IGNORE_INDEX] * (len(input_ids) - end)
    return [IGNORE_INDEX] * begin + input_ids[begin:end] + rest


def asking_by_loop(input_ids, opening, stop):
    labels, asking = [], True
    for place, token_id in enumerate(input_ids):
        labels.append(token_id if asking and place >= len(opening) else -100)
        if place >= len(opening) and token_id == stop:
            asking = False
    return labels


def asking_by_writing(input_ids, opening, stop):
    labels = [-100] * len(input_ids)
    place = len(opening)
    while True:
        labels[place] = input_ids[place]
        if input_ids[place] == stop:
            return labels
        place += 1


def asking_by_tensor(input_ids, opening, stop):
    ids = torch.tensor(input_ids)
    places = torch.arange(len(ids))
    last = int((ids == stop).nonzero()[0])
    return torch.where((places >= len(opening)) & (places <= last), ids, -100).tolist()


def asking_by_count(input_ids, opening, stop):
    seen = np.cumsum(np.array(input_ids) == stop)
    return [
        token_id
        if place >= len(opening) and (seen[place] == 0 or (seen[place] == 1 and token_id == stop))
        else IGNORE_INDEX
        for place, token_id in enumerate(input_ids)
    ]


RIGHT_ANSWERS = {
    "3b.1": [
        weight_by_formula,
        weight_by_odds,
        weight_by_numpy,
        weight_by_fractions,
        weight_by_bisection,
    ],
    "3b.2": [
        weighted_by_loop,
        weighted_by_cross_entropy,
        weighted_by_gather,
        weighted_by_two_sums,
        weighted_by_flat_rows,
    ],
    "3b.3": [judge_by_loop, judge_by_numpy, judge_by_torch, judge_by_symmetry, judge_by_a_table],
    "3b.4": [
        asking_by_slices,
        asking_by_loop,
        asking_by_writing,
        asking_by_tensor,
        asking_by_count,
    ],
}
