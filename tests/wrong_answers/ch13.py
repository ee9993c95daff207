"""Wrong answers to the exercises of chapter 13, each with what its reader is told."""

import torch
import torch.nn.functional as F


def _learned(form):
    return lambda base, after, final: form(base, after, final) if after > base else None


def _vector(parts, others):
    return torch.cat(
        [
            (torch.zeros_like(o) if o is not None else torch.zeros(0)).flatten()
            if p is None
            else p.flatten()
            for p, o in zip(parts, others, strict=True)
        ]
    )


def _cosine_of(form):
    def answer(old, new):
        a, b = _vector(old, new), _vector(new, old)
        return float(form(a, b)) if a.norm() * b.norm() > 0 else 0.0

    return answer


def _both_present(old, new):
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a is not None and b is not None]
    if not pairs:
        return 0.0
    a, b = (torch.cat([pair[i].flatten() for pair in pairs]) for i in (0, 1))
    return float(a @ b / (a.norm() * b.norm())) if a.norm() * b.norm() > 0 else 0.0


def _mean_of_parts(old, new):
    parts = [
        float(F.cosine_similarity(a.flatten(), b.flatten(), dim=0))
        for a, b in zip(old, new, strict=True)
        if a is not None and b is not None
    ]
    return sum(parts) / len(parts) if parts else 0.0


def _kl(form, shift=True):
    def answer(before, tuned, labels):
        if shift:
            before, tuned, labels = before[:, :-1], tuned[:, :-1], labels[:, 1:]
        on = labels != -100
        return float(form(before[on].log_softmax(-1), tuned[on].log_softmax(-1)))

    return answer


def _everywhere(before, tuned, labels):
    p, q = before.log_softmax(-1), tuned.log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def _forward(p, q):
    return (p.exp() * (p - q)).sum(-1)


def _pearson(x, y):
    x, y = (torch.tensor(v, dtype=torch.float64) for v in (x, y))
    return float(torch.corrcoef(torch.stack([x, y]))[0, 1])


def _argsort_ranks(values):
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks = [0.0] * len(values)
    for rank, i in enumerate(order):
        ranks[i] = float(rank)
    return ranks


def _low_ranks(values):
    return [float(sum(v < value for v in values)) for value in values]


def _dense_ranks(values):
    return [float(len({v for v in values if v < value})) for value in values]


def _mean_ranks(values):
    return [
        sum(v < value for v in values) + (1 + sum(v == value for v in values)) / 2
        for value in values
    ]


def _by_squares(x, y):
    a, b, n = _mean_ranks(x), _mean_ranks(y), len(x)
    return 1 - 6 * sum((i - j) ** 2 for i, j in zip(a, b, strict=True)) / (n**3 - n)


GOOD = {"old": 24, "new": 72, "rate": 5e-4, "epochs": 10}

WRONG_ANSWERS = {
    "13.1": [
        (_learned(lambda b, a, f: (a - f) / a), "divided by all that was right"),
        (_learned(lambda b, a, f: a - f), "a difference of two shares"),
        (_learned(lambda b, a, f: (f - b) / (a - b)), "this is the share that is left"),
        (_learned(lambda b, a, f: (f - a) / (a - b)), "the sign is reversed"),
        (_learned(lambda b, a, f: max(0.0, (a - f) / (a - b))), "do not cut it off at 0"),
        (_learned(lambda b, a, f: min(1.0, (a - f) / (a - b))), "do not cut it off at 1"),
        (lambda b, a, f: (a - f) / (a - b) if a > b else 0.0, "return None, not 0"),
        (lambda b, a, f: (a - f) / (a - b) if a != b else None, "made the model worse"),
    ],
    "13.2": [
        (_both_present, "left out together with its partner"),
        (_mean_of_parts, "a mean of the cosines"),
        (_cosine_of(lambda a, b: a @ b), "this is the dot product"),
        (_cosine_of(lambda a, b: -(a @ b) / a.norm() / b.norm()), "the sign is reversed"),
        (_cosine_of(lambda a, b: (a @ b).abs() / a.norm() / b.norm()), "the sign is lost"),
        (_cosine_of(lambda a, b: a @ b / (a @ a) / (b @ b)), "the squares of the lengths"),
        (lambda old, new: torch.tensor(0.5), "expected a float"),
    ],
    "13.4": [
        (_kl(lambda p, q: _forward(q, p).mean()), "this is KL(tuned || before)"),
        (_kl(lambda p, q: _forward(p, q).mean(), shift=False), "not shifted"),
        (_everywhere, "positions that are not graded count"),
        (_kl(lambda p, q: _forward(p, q).sum()), "this is the sum"),
        (_kl(lambda p, q: (p.exp() * (p - q)).mean()), "a mean over the vocabulary"),
        (
            _kl(lambda p, q: F.kl_div(p, q, log_target=True, reduction="batchmean")),
            "this is KL(tuned || before)",
        ),
        (_kl(lambda p, q: (p.exp() * -q).sum(-1).mean()), "this is the cross-entropy"),
    ],
    "13.5": [
        (_pearson, "the correlation of the values"),
        (
            lambda x, y: _pearson(_argsort_ranks(x), _argsort_ranks(y)),
            "equal values get different ranks",
        ),
        (lambda x, y: _pearson(_low_ranks(x), _low_ranks(y)), "the lowest of their ranks"),
        (lambda x, y: _pearson(_dense_ranks(x), _dense_ranks(y)), "use up one rank only"),
        (_by_squares, "holds without equal values only"),
        (lambda x, y: _pearson(_mean_ranks(x), _mean_ranks(y)) ** 2, "the sign is lost"),
        (lambda x, y: -_pearson(_mean_ranks(x), _mean_ranks(y)), "the sign is reversed"),
    ],
    "13.3": [
        ({**GOOD, "new": 0}, "now task B is overwritten"),
        ({**GOOD, "rate": 5e-5, "epochs": 2}, "task A is not back"),
        ({**GOOD, "rate": 1e-2}, "both tasks are broken"),
        ({**GOOD, "old": 400}, "at most 24"),
        ({**GOOD, "old": 0}, "at least 1 lesson"),
        ({**GOOD, "new": 200}, "at most 2,000"),
        ({"old": 24}, "expected a dict"),
        ({**GOOD, "rate": "5e-4"}, "expected float"),
    ],
}
