"""Wrong answers to the exercises of chapter 13b, each with what its reader is told."""

import itertools

import torch

from sft_lab.examples import IGNORE_INDEX


def _probabilities(weights, inputs):
    return (inputs @ weights.T).softmax(dim=-1)


def _likeliest(weights, inputs):
    p = _probabilities(weights, inputs)
    gradients = p - torch.nn.functional.one_hot(p.argmax(-1), p.shape[1])
    return gradients.square().T @ inputs.square() / len(inputs)


def _summed(weights, inputs):
    p = _probabilities(weights, inputs)
    return (p * (1 - p)).T @ inputs.square()


def _expected_gradient(weights, inputs):
    return torch.zeros_like(weights)


def _one_label_missing(weights, inputs):
    return _probabilities(weights, inputs).square().T @ inputs.square() / len(inputs)


def _mean_first(weights, inputs):
    p = _probabilities(weights, inputs)
    return (p * (1 - p)).mean(0)[:, None] * inputs.mean(0).square()


def _all_labels_alike(weights, inputs):
    p = _probabilities(weights, inputs)
    count = p.shape[1]
    squares = (p - 1).square() / count + p.square() * (count - 1) / count
    return squares.T @ inputs.square() / len(inputs)


def _settle(new_best, curvature, anchors, fishers, strength):
    pull = curvature + strength * fishers.sum(0)
    towards = curvature * new_best + strength * (fishers * anchors).sum(0)
    return torch.where(pull > 0, towards / pull.clamp(min=1e-300), anchors[-1])


def _last_anchor(new_best, curvature, anchors, fishers, strength):
    return _settle(new_best, curvature, anchors[-1:].expand_as(anchors), fishers, strength)


def _last_penalty(new_best, curvature, anchors, fishers, strength):
    return _settle(new_best, curvature, anchors[-1:], fishers[-1:], strength)


def _no_strength(new_best, curvature, anchors, fishers, strength):
    return _settle(new_best, curvature, anchors, fishers, 1.0)


def _half(new_best, curvature, anchors, fishers, strength):
    return _settle(new_best, curvature, anchors, fishers, strength / 2)


def _zero_by_zero(new_best, curvature, anchors, fishers, strength):
    pull = curvature + strength * fishers.sum(0)
    return (curvature * new_best + strength * (fishers * anchors).sum(0)) / pull


def _averaged(new_best, curvature, anchors, fishers, strength):
    return _settle(new_best, curvature, anchors, fishers / len(fishers), strength)


def _one_step(penalty, gradients, anchor, strength):
    """Looks one step away, where a distance and its square are the same."""
    once = penalty(anchor + 1)
    expected = strength / 2 * (gradients**2).mean(0).sum()
    if once == 0:
        return "moving anchor"
    return "right" if torch.isclose(once, expected) else "squared mean"


def _at_the_anchor(penalty, gradients, anchor, strength):
    return "moving anchor" if penalty(anchor) == 0 else "right"


def _ratio_alone(penalty, gradients, anchor, strength):
    once, twice = penalty(anchor + 1), penalty(anchor + 2)
    if once == 0:
        return "moving anchor"
    return "right" if torch.isclose(twice, 4 * once) else "no square"


def _in_words(penalty, gradients, anchor, strength):
    return "the anchor moves"


def _mixed(student, teacher, labels, alpha, temperature, *, factor=None, flip=1, mean_of_all=False):
    graded = labels != IGNORE_INDEX
    wanted = torch.nn.functional.one_hot(labels.clamp(min=0), student.shape[1])
    hard = student.softmax(-1) - wanted
    soft = (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    factor = temperature if factor is None else factor(temperature)
    both = alpha * hard + (1 - alpha) * factor * flip * soft
    return both * graded[:, None] / (len(labels) if mean_of_all else graded.sum())


def _by_autograd(student, teacher, labels, alpha, temperature):
    z = student.clone().requires_grad_()
    graded = labels != IGNORE_INDEX
    hard = torch.nn.functional.cross_entropy(z[graded], labels[graded])
    log_q, p = (z / temperature).log_softmax(-1), (teacher / temperature).softmax(-1)
    soft = (p * (p.log() - log_q)).sum(-1)[graded].mean()
    (alpha * hard + (1 - alpha) * temperature**2 * soft).backward()
    return z.grad


def _keep_first(stream, size, rng):
    kept = list(itertools.islice(stream, size))
    for _ in stream:
        pass
    return kept


def _keep_last(stream, size, rng):
    kept = []
    for row in stream:
        kept = [*kept, row][-size:]
    return kept


def _keep_all_first(stream, size, rng):
    rows = list(stream)
    return rng.sample(rows, min(size, len(rows)))


def _reservoir(stream, size, rng, chance):
    kept = []
    for seen, row in enumerate(stream):
        if len(kept) < size:
            kept.append(row)
        elif chance(rng, seen, size):
            kept[rng.randrange(size)] = row
    return kept


def _coin(stream, size, rng):
    return _reservoir(stream, size, rng, lambda rng, seen, size: rng.random() < 0.5)


def _off_by_one(stream, size, rng):
    return _reservoir(stream, size, rng, lambda rng, seen, size: rng.randrange(seen) < size)


def _with_copies(stream, size, rng):
    kept = [next(stream, None)]
    return [row for row in kept * size if row is not None]


def _new_rows_alone(old, new):
    return new


def _forty_once(old, new):
    return [*new, *old[:40]]


def _too_many_stored(old, new):
    return [*new, *old[:80]]


def _old_rows_alone(old, new):
    return old[:40] * 5


def _too_long(old, new):
    return [*new, *old[:40] * 20]


def _made_up(old, new):
    return [[{"role": "user", "content": "What?"}, {"role": "assistant", "content": "Aye."}]]


WRONG_ANSWERS = {
    "13b.1": [
        (_likeliest, "weigh every label by its probability"),
        (_all_labels_alike, "all labels weigh the same here"),
        (_summed, "take the mean"),
        (_expected_gradient, "square each gradient before you take the mean"),
        (_one_label_missing, "one label is missing"),
        (_mean_first, "square the gradient of each input"),
    ],
    "13b.2": [
        (_last_anchor, "not to the last one"),
        (_last_penalty, "only the last penalty is there"),
        (_no_strength, "the strength is missing"),
        (_half, "do not halve one of them"),
        (_zero_by_zero, "0/0 gives nan"),
        (_averaged, "added, not averaged"),
    ],
    "13b.3": [
        (_one_step, "this code is 'no square'"),
        (_at_the_anchor, "you say 'moving anchor', and this code is"),
        (_ratio_alone, "you say 'right', and this code is 'squared mean'"),
        (_in_words, "return one of"),
    ],
    "13b.4": [
        (lambda *given: _mixed(*given, factor=lambda t: 1 / t), "T² is missing"),
        (lambda *given: _mixed(*given, factor=lambda t: t * t), "T² · 1/T is T"),
        (lambda *given: _mixed(*given, flip=-1), "student minus teacher"),
        (lambda *given: _mixed(*given, mean_of_all=True), "by the graded rows, not by all"),
        (_by_autograd, "autograd is not to be used here"),
    ],
    "13b.5": [
        (_keep_first, "row 0 (counted from 0) is kept in 100%"),
        (_keep_last, "row 0 (counted from 0) is kept in 0%"),
        (_keep_all_first, "rows were held at once"),
        (_coin, "the row that comes as number n must enter"),
        (_off_by_one, "the row that comes as number n must enter"),
        (_with_copies, "different ones"),
    ],
    "13b.6": [
        (_new_rows_alone, "show the old rows more often"),
        (_forty_once, "show the old rows more often"),
        (_old_rows_alone, "the new task needs more"),
        (_too_many_stored, "the buffer has room for 40"),
        (_too_long, "conversations: at most"),
        (_made_up, "is not among the given ones"),
        (lambda old, new: [], "there is no conversation"),
    ],
}
