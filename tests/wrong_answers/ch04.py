"""Wrong answers to the exercises of chapter 04, each with the words that must name its mistake."""

import math
from functools import partial

import torch
import torch.nn.functional as F


def _adamw(hats=True, l2=False, shrink=True, root=True, sign=1.0, keep_hats=False, plain=False):
    def step(w, g, m, v, t, lr, weight_decay):
        g = g + weight_decay * w if l2 else g
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        m_hat, v_hat = (m / (1 - 0.9**t), v / (1 - 0.999**t)) if hats else (m, v)
        move = g if plain else m_hat / ((v_hat.sqrt() if root else v_hat) + 1e-8)
        w = w - lr * weight_decay * w * (shrink and not l2) - sign * lr * move
        return (w, m_hat, v_hat) if keep_hats else (w, m, v)

    return step


def _adamw_in_place(w, g, m, v, t, lr, weight_decay):
    m.mul_(0.9).add_(0.1 * g)
    v.mul_(0.999).add_(0.001 * g**2)
    move = m / (1 - 0.9**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    return w - lr * weight_decay * w - lr * move, m, v


def _decay_without_rate(w, g, m, v, t, lr, weight_decay):
    new, m, v = _adamw(shrink=False)(w, g, m, v, t, lr, weight_decay)
    return new - weight_decay * w, m, v


def _cosine(done):
    return 0.5 * (1 + math.cos(math.pi * done))


def _done(step, start, total):
    return (step - start) / (total - start)


def _falls(fall):
    """A warm-up, and after it `fall(step, start, total)` of the peak."""

    def rate_at(step, total, warmup, peak):
        return peak * (step / warmup if step < warmup else fall(step, warmup, total))

    return rate_at


def _without_the_peak(step, total, warmup, peak):
    return step / warmup if step < warmup else _cosine(_done(step, warmup, total))


def _counts_from_1(step, total, warmup, peak):
    return peak * ((step + 1) / warmup if step < warmup else _cosine(_done(step, warmup, total)))


def _divides_by_no_warmup(step, total, warmup, peak):
    return peak * (step / warmup if step <= warmup else _cosine(_done(step, warmup, total)))


def _norm(gradients):
    return torch.cat([g.flatten() for g in gradients]).norm()


def _divides_by_no_norm(gradients, max_norm):
    norm = _norm(gradients)
    return [g / norm * norm.clamp(max=max_norm) for g in gradients]


def _clip_in_place(gradients, max_norm):
    norm = _norm(gradients)
    if norm > max_norm:
        for g in gradients:
            g.mul_(max_norm / norm)
    return gradients


def _shares(parts):
    return [part.sum() / sum(map(len, parts)) for part in parts]


def _weighs_means(parts):
    return [part.mean() * len(part) / sum(map(len, parts)) for part in parts]


def _shifted(logits, labels):
    graded = labels[:, 1:] != -100
    return logits[:, :-1][graded], labels[:, 1:][graded]


def _three(logits, targets, perplexity=None):
    loss = F.cross_entropy(logits, targets)
    accuracy = (logits.argmax(dim=-1) == targets).float().mean()
    return loss.item(), accuracy.item(), math.exp(loss) if perplexity is None else perplexity


def _all_positions(logits, labels):
    loss, _, perplexity = _three(*_shifted(logits, labels))
    return loss, (logits[:, :-1].argmax(dim=-1) == labels[:, 1:]).float().mean().item(), perplexity


def _mean_of_exp(logits, labels):
    kept = _shifted(logits, labels)
    return _three(*kept, perplexity=F.cross_entropy(*kept, reduction="none").exp().mean().item())


def _power_of_2(logits, labels):
    kept = _shifted(logits, labels)
    return _three(*kept, perplexity=2 ** F.cross_entropy(*kept).item())


def _stops(losses, patience, late=0):
    best = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best]:
            best = epoch
        if epoch - best == patience + late:
            return best, epoch
    return best, len(losses) - 1


def _looks_ahead(losses, patience):
    return losses.index(min(losses)), _stops(losses, patience)[1]


def _counts_rises(losses, patience):
    rises = 0
    for epoch in range(1, len(losses)):
        rises = rises + 1 if losses[epoch] > losses[epoch - 1] else 0
        if rises == patience:
            return losses.index(min(losses[: epoch + 1])), epoch
    return losses.index(min(losses)), len(losses) - 1


def _equal_is_new(losses, patience):
    best = 0
    for epoch, loss in enumerate(losses):
        if loss <= losses[best]:
            best = epoch
        if epoch - best == patience:
            return best, epoch
    return best, len(losses) - 1


def _none_for_the_empty(parts):
    return [share if len(p) else None for share, p in zip(_shares(parts), parts, strict=True)]


def _log_of_softmax(logits, labels):
    rows, targets = _shifted(logits, labels)
    loss = -rows.softmax(-1).log()[range(len(targets)), targets].mean().item()
    return loss, (rows.argmax(-1) == targets).double().mean().item(), math.exp(loss)


WRONG_ANSWERS = {
    "4.1": [
        (_adamw(hats=False), "the hats are missing"),
        (_adamw(l2=True), "weight decay went into the slope"),
        (_adamw(shrink=False), "weight decay is missing"),
        (_adamw(root=False), "the square root of v is missing"),
        (_adamw(sign=-1.0), "the sign is reversed"),
        (_adamw(keep_hats=True), "m is returned with its hat"),
        (_adamw(plain=True), "plain gradient descent"),
        (_adamw_in_place, "changed `m` in place"),
        (_decay_without_rate, "weight decay without the learning rate"),
        (lambda *x: _adamw()(*x)[0], "return three things, the new w"),
    ],
    "4.2": [
        (_without_the_peak, "multiply it by the peak"),
        (_counts_from_1, "step 0 has rate 0"),
        (_falls(lambda step, start, total: _cosine(step / total)), "the cosine runs over all"),
        (_falls(lambda *x: math.cos(math.pi * _done(*x))), "half of 1 + cos"),
        (_falls(lambda *x: math.cos(math.pi / 2 * _done(*x))), "a quarter of a"),
        (_falls(lambda *x: 1 - _done(*x)), "this falls in a line"),
        (_falls(lambda *x: 1.0), "stays at the peak"),
        (_divides_by_no_warmup, "you divide by zero"),
    ],
    "4.3": [
        (lambda gs, limit: [g * min(1.0, limit / g.norm()) for g in gs], "by its own norm"),
        (lambda gs, limit: [g.clamp(-limit, limit) for g in gs], "turns the direction"),
        (lambda gs, limit: [g / _norm(gs) for g in gs], "the limit is max_norm"),
        (lambda gs, limit: [g * limit / sum(g.norm() for g in gs) for g in gs], "norms do not add"),
        (lambda gs, limit: [g * limit / _norm(gs) ** 2 for g in gs], "the square root is missing"),
        (lambda gs, limit: [g * limit / _norm(gs) for g in gs], "was scaled up"),
        (lambda gs, limit: gs, "nothing was clipped"),
        (_divides_by_no_norm, "nan where every slope is 0"),
        (_clip_in_place, "changed `gradients` in place"),
    ],
    "4.4": [
        (lambda parts: [part.sum() for part in parts], "nothing is divided"),
        (lambda parts: [part.mean() / len(parts) for part in parts], "this is the mean of means"),
        (lambda parts: [part.mean() for part in parts], "divided by its own tokens"),
        (lambda parts: [part.sum() / len(parts) for part in parts], "the number of micro-batches"),
        (lambda parts: [part / len(parts) for part in _shares(parts)], "once too often"),
        (lambda parts: [part.detach() for part in _shares(parts)], "no gradient flows"),
        (lambda parts: torch.cat(parts).mean(), "a list of 4 numbers"),
        (_weighs_means, "gave nan"),
        (_none_for_the_empty, "one of your numbers is None"),
    ],
    "4.5": [
        (lambda logits, labels: _three(logits[labels != -100], labels[labels != -100]), "no shift"),
        (_all_positions, "divided by all positions"),
        (_mean_of_exp, "the exponential comes last"),
        (_power_of_2, "the loss is in nats"),
        (lambda logits, labels: _three(*_shifted(logits, labels))[:2], "return three things, loss"),
        (_log_of_softmax, "take log_softmax"),
    ],
    "4.6": [
        (_looks_ahead, "epochs seen by then"),
        (lambda *x: (_stops(*x)[1],) * 2, "not the last one's"),
        (lambda *x: (_stops(*x)[0],) * 2, "is the last epoch run"),
        (partial(_stops, late=1), "one epoch too late"),
        (lambda *x: tuple(epoch + 1 for epoch in _stops(*x)), "epochs count from 0"),
        (_equal_is_new, "an equal loss is no new lowest"),
        (_counts_rises, "you compare with the epoch before"),
        (lambda *x: _stops(*x)[0], "return two things, the best epoch"),
    ],
}
