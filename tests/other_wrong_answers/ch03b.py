"""Wrong answers to the exercises of chapter 03b, as a learner may write them; written from the
statements alone."""

import statistics

import torch
import torch.nn.functional as F


# 3b.1
def _share_of_each_row(prompts, answers, share):
    each = [share * a / ((1 - share) * p) for p, a in zip(prompts, answers, strict=True)]
    return sum(each) / len(each)


def _capped(prompts, answers, share):
    return min(1.0, share * sum(answers) / ((1 - share) * sum(prompts)))


# 3b.2
def _weighted(shift=True, targets="ids", outside="weight", divisor="weights", mean="batch"):
    def loss(logits, input_ids, labels, weight):
        rows = logits[:, :-1] if shift else logits[:, 1:]
        wanted = input_ids[:, 1:] if targets == "ids" else labels[:, 1:].clamp(min=0)
        nll = -rows.log_softmax(-1).gather(-1, wanted.unsqueeze(-1))[..., 0]
        prompt = labels[:, 1:] == -100
        weights = {
            "weight": torch.where(prompt, weight, 1.0),
            "answer": torch.where(prompt, 1.0, weight),
            "both": torch.where(prompt, weight, 1 - weight),
            "square": torch.where(prompt, weight**2, 1.0),
            "none": torch.where(prompt, 0.0, 1.0),
            "all": torch.ones_like(nll),
        }[outside].to(nll)
        by = {
            "weights": weights.sum(),
            "tokens": torch.tensor(float(nll.numel())),
            "graded": (~prompt).sum(),
            "length": torch.tensor(float(input_ids.numel())),
            "one": torch.tensor(1.0),
        }[divisor]
        if mean == "rows":
            return ((weights * nll).sum(1) / weights.sum(1)).mean()
        if mean == "parts":
            return nll[~prompt].mean() + weight * nll[prompt].mean()
        return (weights * nll).sum() / by

    return loss


def _without_gradient(logits, input_ids, labels, weight):
    return _weighted()(logits, input_ids, labels, weight).detach()


def _labels_from_the_wrong_place(logits, input_ids, labels, weight):
    nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), input_ids[:, 1:], reduction="none")
    weights = torch.where(labels[:, :-1] == -100, weight, 1.0).to(nll)
    return (weights * nll).sum() / weights.sum()


# 3b.3
def _judged(
    floor=lambda a, b: max(max(a) - min(a), max(b) - min(b)),
    middle=statistics.fmean,
    factor=2.0,
    strict=True,
    sides=("held", "did not hold"),
):
    def judge(first, second):
        effects = [b - a for a, b in zip(first, second, strict=True)]
        noise = factor * floor(first, second)
        mean = middle(effects)
        up = mean > noise if strict else mean >= noise
        down = mean < -noise if strict else mean <= -noise
        if up and min(effects) > 0:
            return sides[0]
        if down and max(effects) < 0:
            return sides[1]
        return "not shown"

    return judge


# 3b.4
def _asking(end=1, first=True):
    def labels(input_ids, opening, stop):
        places = [place for place, token_id in enumerate(input_ids) if token_id == stop]
        last = (places[0] if first else places[-1]) + end
        start = len(opening)
        return [
            token_id if start <= place < last else -100 for place, token_id in enumerate(input_ids)
        ]

    return labels


def _asking_in_place(input_ids, opening, stop):
    for place in range(len(input_ids)):
        if not len(opening) <= place <= input_ids.index(stop, len(opening)):
            input_ids[place] = -100
    return input_ids


OTHER_WRONG_ANSWERS = {
    "3b.1": [
        lambda p, a, s: s * sum(a) / sum(p),
        lambda p, a, s: s * sum(p) / ((1 - s) * sum(a)),
        lambda p, a, s: (1 - s) * sum(a) / (s * sum(p)),
        lambda p, a, s: sum(a) / ((1 - s) * sum(p)),
        lambda p, a, s: s / (1 - s),
        lambda p, a, s: s,
        lambda p, a, s: s * sum(a) / (sum(p) + sum(a)),
        lambda p, a, s: s * (sum(a) + sum(p)) / sum(p),
        lambda p, a, s: round(s * sum(a) / ((1 - s) * sum(p)), 1),
        lambda p, a, s: s * a[0] / ((1 - s) * p[0]),
        lambda p, a, s: torch.tensor(s * sum(a) / ((1 - s) * sum(p))),
        _share_of_each_row,
        _capped,
    ],
    "3b.2": [
        _weighted(shift=False),
        _weighted(targets="labels"),
        _weighted(outside="answer"),
        _weighted(outside="both"),
        _weighted(outside="square"),
        _weighted(outside="none"),
        _weighted(outside="all"),
        _weighted(divisor="tokens"),
        _weighted(divisor="graded"),
        _weighted(divisor="length"),
        _weighted(divisor="one"),
        _weighted(mean="rows"),
        _weighted(mean="parts"),
        _without_gradient,
        _labels_from_the_wrong_place,
        lambda z, i, y, w: _weighted()(z, i, y, w).item(),
        lambda z, i, y, w: -_weighted()(z, i, y, w),
    ],
    "3b.3": [
        _judged(factor=1.0),
        _judged(strict=False),
        _judged(sides=("did not hold", "held")),
        _judged(sides=("held", "not shown")),
        _judged(floor=lambda a, b: max(a) - min(a)),
        _judged(floor=lambda a, b: max(b) - min(b)),
        _judged(floor=lambda a, b: min(max(a) - min(a), max(b) - min(b))),
        _judged(floor=lambda a, b: max(statistics.stdev(a), statistics.stdev(b))),
        _judged(floor=lambda a, b: max(a + b) - min(a + b)),
        _judged(floor=lambda a, b: (max(a) - min(a) + max(b) - min(b)) / 2),
        _judged(middle=statistics.median),
        _judged(middle=min),
        _judged(middle=max),
        _judged(middle=sum),
        lambda a, b: _judged()(a, b).upper(),
        lambda a, b: _judged()(a, b) == "held",
    ],
    "3b.4": [
        _asking(end=0),
        _asking(end=2),
        _asking(first=False),
        _asking_in_place,
        lambda i, o, s: list(i),
        lambda i, o, s: [-100] * len(o) + [i[len(o)]] + [-100] * (len(i) - len(o) - 1),
        lambda i, o, s: [-100] * len(i),
        lambda i, o, s: [-100] * len(o) + i[len(o) :],
        lambda i, o, s: _asking()(i, o, s)[: i.index(s) + 1],
        lambda i, o, s: [token_id if token_id == s else -100 for token_id in i],
        lambda i, o, s: _asking()(i, o, s)[1:] + [-100],
    ],
}
