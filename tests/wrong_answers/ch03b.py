"""Wrong answers to the exercises of chapter 03b, each with what its reader is told."""

import torch
import torch.nn.functional as F

IGNORE = -100


def _weight(prompts, answers, share):
    return share * sum(answers) / ((1 - share) * sum(prompts))


def _mean_of_rows(prompts, answers, share):
    pairs = zip(prompts, answers, strict=True)
    return sum(_weight([p], [a], share) for p, a in pairs) / len(prompts)


def _nll(logits, targets):
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), targets[:, 1:], reduction="none")


def _weights(labels, weight):
    return torch.where(labels[:, 1:] == IGNORE, float(weight), 1.0).double()


def _loss(logits, ids, labels, weight):
    weights = _weights(labels, weight)
    return (_nll(logits, ids) * weights).sum() / weights.sum()


def _by_tokens(logits, ids, labels, weight):
    return (_nll(logits, ids) * _weights(labels, weight)).mean()


def _by_graded(logits, ids, labels, weight):
    total = (_nll(logits, ids) * _weights(labels, weight)).sum()
    return total / (labels[:, 1:] != IGNORE).sum()


def _labels_as_targets(logits, ids, labels, weight):
    return _loss(logits, labels.clamp(min=0), labels, weight)


def _two_means(logits, ids, labels, weight):
    nll, graded = _nll(logits, ids), labels[:, 1:] != IGNORE
    return nll[graded].mean() + weight * nll[~graded].mean()


def _weights_not_shifted(logits, ids, labels, weight):
    weights = torch.where(labels[:, :-1] == IGNORE, float(weight), 1.0).double()
    return (_nll(logits, ids) * weights).sum() / weights.sum()


def _one_by_one(logits, ids, labels, weight):
    rows = [
        _loss(z[None], x[None], y[None], weight)
        for z, x, y in zip(logits, ids, labels, strict=True)
    ]
    return torch.stack(rows).mean()


def _spread(values):
    return max(values) - min(values)


def _word(first, second, floor, factor=2):
    effects = [b - a for a, b in zip(first, second, strict=True)]
    mean = sum(effects) / len(effects)
    if min(effects) > 0 and mean > factor * floor:
        return "held"
    return "did not hold" if max(effects) < 0 and mean < -factor * floor else "not shown"


def _floor(first, second):
    return max(_spread(first), _spread(second))


def _too_small_did_not_hold(first, second):
    return "held" if _word(first, second, _floor(first, second)) == "held" else "did not hold"


def _never_refutes(first, second):
    return "held" if _word(first, second, _floor(first, second)) == "held" else "not shown"


def _spread_of_effects(first, second):
    return _word(first, second, _spread([b - a for a, b in zip(first, second, strict=True)]))


def _question(ids, opening, stop, *, end=0):
    begin, last = len(opening), ids.index(stop) + 1 + end
    return [IGNORE] * begin + ids[begin:last] + [IGNORE] * (len(ids) - last)


def _only(ids, places):
    return [token if place in places else IGNORE for place, token in enumerate(ids)]


def _as_the_assistant(ids, opening, stop):
    behind = ids.index(stop) + 1
    return [IGNORE] * behind + ids[behind:]


def _opening_too(ids, opening, stop):
    opening += [stop]
    return _question(ids, opening[:-1], stop)


WRONG_ANSWERS = {
    "3b.1": [
        (_mean_of_rows, "sum the tokens of all rows first"),
        (lambda p, a, s: _weight(a, p, s), "prompts and answers are exchanged"),
        (lambda p, a, s: s * sum(a) / sum(p), "the prompts' own weight belongs to it"),
        (lambda p, a, s: _weight(p, a, 1 - s), "this gives the share to the answers"),
        (lambda p, a, s: s, "the share is not the weight"),
        (
            lambda p, a, s: s * sum(p) / (s * sum(p) + sum(a)),
            "asked for is the weight that gives a share",
        ),
        (lambda p, a, s: torch.tensor(_weight(p, a, s)), "is a Tensor, expected a float"),
    ],
    "3b.2": [
        (_by_tokens, "divided by the number of tokens"),
        (_by_graded, "divided by the number of graded tokens"),
        (lambda z, x, y, w: _loss(z, x, y, 0.0), "the prompt has no weight"),
        (lambda z, x, y, w: _loss(z, x, y, 1.0), "every token has weight 1"),
        (_labels_as_targets, "in input_ids"),
        (_weights_not_shifted, "targets are shifted, weights are not"),
        (_two_means, "make one sum"),
        (_one_by_one, "the mean of each row's mean"),
        (lambda *given: _loss(*given).detach(), "no gradient flows"),
    ],
    "3b.3": [
        (lambda a, b: _word(a, b, _spread(a)), "the noisier of the two arms"),
        (lambda a, b: _word(a, b, _spread(b)), "the noisier of the two arms"),
        (lambda a, b: _word(a, b, min(_spread(a), _spread(b))), "take the noisier"),
        (_spread_of_effects, "not that of the effects"),
        (lambda a, b: _word(a, b, 0), "the floor is missing"),
        (lambda a, b: _word(a, b, _floor(a, b), 1), "above twice the floor"),
        (lambda a, b: _word(b, a, _floor(a, b)), "the other way round"),
        (_never_refutes, "the claim did not hold"),
        (_too_small_did_not_hold, "it may hold or not"),
        (lambda a, b: _word(a, b, _floor(a, b) - 1e-6), "exactly two floors"),
        (lambda a, b: True, "return one of"),
    ],
    "3b.4": [
        (lambda ids, opening, stop: _question(ids, opening, stop, end=-1), "that ends by itself"),
        (lambda ids, opening, stop: _only(ids, [ids.index(stop)]), "that ends by itself"),
        (lambda ids, opening, stop: _only(ids, range(len(opening))), "that ends by itself"),
        (lambda ids, opening, stop: list(ids), "grade nothing of the answer"),
        (_as_the_assistant, "grade nothing of the answer"),
        (lambda ids, opening, stop: [IGNORE] * len(ids), "there is nothing to learn"),
        (
            lambda ids, opening, stop: [*_question(ids, opening, stop)[1:], IGNORE],
            "the token's own id or -100",
        ),
        (_opening_too, "changed `opening` in place"),
    ],
}
