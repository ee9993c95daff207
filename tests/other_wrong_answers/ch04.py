"""Wrong answers to the exercises of chapter 04, written from the statements alone."""

import math
import statistics

import torch
import torch.nn.functional as F


def adamw(
    *,
    betas=(0.9, 0.999),
    slope=lambda g, w, decay: g,
    square=lambda g: g * g,
    hats=lambda t: (1 - 0.9**t, 1 - 0.999**t),
    divide=lambda m, v: m / (v.sqrt() + 1e-8),
    decay=lambda w, new, lr, rate: new - lr * rate * w,
    give=lambda w, m, v, m_hat, v_hat: (w, m, v),
):
    """Right with the defaults; every keyword is a mistake."""

    def step(w, g, m, v, t, lr, weight_decay):
        g = slope(g, w, weight_decay)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * square(g)
        m_hat, v_hat = m / hats(t)[0], v / hats(t)[1]
        new = decay(w, w - lr * divide(m_hat, v_hat), lr, weight_decay)
        return give(new, m, v, m_hat, v_hat)

    return step


def adamw_in_place(w, g, m, v, t, lr, weight_decay):
    m.mul_(0.9).add_(g, alpha=0.1)
    v.mul_(0.999).addcmul_(g, g, value=0.001)
    w.mul_(1 - lr * weight_decay)
    w.addcdiv_(m / (1 - 0.9**t), (v / (1 - 0.999**t)).sqrt() + 1e-8, value=-lr)
    return w, m, v


def adamw_eps_before_the_correction(w, g, m, v, t, lr, weight_decay):
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    rate = lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return w * (1 - lr * weight_decay) - rate * m / (v.sqrt() + 1e-8), m, v


def adamw_of_the_old_means(w, g, m, v, t, lr, weight_decay):
    update = m / (1 - 0.9**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    new = w - lr * (update + weight_decay * w)
    return new, 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g


def rate(
    step, total, warmup, peak, *, rise=lambda s, w: s / w, way=lambda s, w, n: (s - w) / (n - w),
    fall=lambda x: (1 + math.cos(math.pi * x)) / 2,
):  # fmt: skip
    """Right with the defaults; every keyword is a mistake."""
    return peak * (rise(step, warmup) if step < warmup else fall(way(step, warmup, total)))


def rates(**mistakes):
    return lambda step, total, warmup, peak: rate(step, total, warmup, peak, **mistakes)


def rate_divides_by_warmup(step, total, warmup, peak):
    rise = step / warmup
    return peak * (rise if rise < 1 else rate(step, total, warmup, 1.0))


def rate_times_both(step, total, warmup, peak):
    rise = min(1.0, step / max(1, warmup))
    return peak * rise * (1 + math.cos(math.pi * step / total)) / 2


def norm_of(gradients):
    return math.sqrt(sum(float((g**2).sum()) for g in gradients))


def clip(gradients, norm, max_norm):
    """Right for the norm of all numbers."""
    return [g * (max_norm / norm) if norm > max_norm else g.clone() for g in gradients]


def clip_each(gradients, max_norm):
    return [g * min(1.0, max_norm / max(1e-30, g.norm().item())) for g in gradients]


def clip_in_place(gradients, max_norm):
    norm = norm_of(gradients)
    if norm > max_norm:
        for g in gradients:
            g.mul_(max_norm / norm)
    return gradients


def clip_by_library_in_place(gradients, max_norm):
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, g in zip(parameters, gradients, strict=True):
        parameter.grad = g
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return gradients


def clip_only_the_large(gradients, max_norm):
    norm = norm_of(gradients)
    return [g * (max_norm / norm) if g.norm() > max_norm else g for g in gradients]


def clip_replaces_the_list(gradients, max_norm):
    norm = norm_of(gradients)
    for i, g in enumerate(gradients):
        gradients[i] = g * min(1.0, max_norm / norm)
    return gradients


def micro_divisors(divide):
    """Each sum by its own divisor: divide(own count, all counts)."""

    def micro_losses(token_losses):
        counts = [len(losses) for losses in token_losses]
        return [p.sum() / divide(n, counts) for p, n in zip(token_losses, counts, strict=True)]

    return micro_losses


def micro_right(token_losses):
    return micro_divisors(lambda n, counts: sum(counts))(token_losses)


def micro_leaves_the_empty_out(token_losses):
    return micro_right([losses for losses in token_losses if len(losses)])


def micro_empties_without_a_graph(token_losses):
    """A number that backward cannot be called on."""
    total = sum(map(len, token_losses))
    return [p.sum() / total if len(p) else torch.tensor(0.0) for p in token_losses]


def micro_weighted_means(token_losses):
    total = sum(map(len, token_losses))
    return [losses.mean() * (len(losses) / total) for losses in token_losses]


def micro_in_place(token_losses):
    total = sum(map(len, token_losses))
    for i, losses in enumerate(token_losses):
        token_losses[i] = losses.sum() / total
    return token_losses


def micro_distinct(token_losses):
    """Counts equal losses once."""
    total = len(torch.cat(token_losses).unique())
    return [losses.sum() / total for losses in token_losses]


def graded(logits, labels, start=1, end=-1):
    """The rows and targets of all graded places; right with the defaults."""
    logits, labels = logits[:, :end] if end else logits, labels[:, start:]
    return logits[labels != -100], labels[labels != -100]


def measured(logits, labels):
    rows, targets = graded(logits, labels)
    loss = F.cross_entropy(rows, targets).item()
    return loss, (rows.argmax(-1) == targets).double().mean().item(), math.exp(loss)


def measures(change):
    """The three right numbers, changed."""
    return lambda logits, labels: change(*measured(logits, labels))


def with_loss(measure):
    def measure_logits(logits, labels):
        loss = float(measure(logits, labels))
        return loss, measured(logits, labels)[1], math.exp(loss)

    return measure_logits


def with_accuracy(measure):
    def measure_logits(logits, labels):
        loss, _, perplexity = measured(logits, labels)
        return loss, float(measure(logits, labels)), perplexity

    return measure_logits


def with_perplexity(measure):
    return lambda x, y: (*measured(x, y)[:2], float(measure(x, y)))


def losses_of(logits, labels):
    rows, targets = graded(logits, labels)
    return F.cross_entropy(rows, targets, reduction="none")


def row_losses(logits, labels):
    pairs = zip(logits, labels, strict=True)
    return torch.stack([losses_of(x[None], y[None]).mean() for x, y in pairs])


def unshifted(logits, labels):
    rows, targets = graded(logits, labels, start=0, end=None)
    loss = F.cross_entropy(rows, targets).item()
    return loss, (rows.argmax(-1) == targets).double().mean().item(), math.exp(loss)


def measures_in_place(logits, labels):
    result = measured(logits, labels)
    labels[labels == -100] = 0
    return result


def measures_without_zero(logits, labels):
    return measured(logits, labels.masked_fill(labels == 0, -100))


def stop(
    losses,
    patience,
    *,
    better=lambda loss, best: loss < best,
    reset=True,
    enough=lambda waited, patience: waited == patience,
    versus_previous=False,
    first=math.inf,
):
    """Right with the defaults; every keyword is a mistake."""
    lowest, best, waited, epoch = first, 0, 0, 0
    for epoch, loss in enumerate(losses):
        if better(loss, lowest):
            lowest, best, waited = loss, epoch, 0 if reset else waited
        else:
            waited += 1
            if versus_previous:
                lowest = loss
            if enough(waited, patience):
                break
    return best, epoch


def stops(**mistakes):
    return lambda losses, patience: stop(losses, patience, **mistakes)


def stopped(change):
    """The right indices, changed."""
    return lambda losses, patience: change(*stop(losses, patience), losses)


def stop_at_the_overall_best(losses, patience):
    return losses.index(min(losses)), stop(losses, patience)[1]


def stop_counts_rises_in_a_row(losses, patience):
    """Compares with the epoch before."""
    waited = 0
    for epoch in range(1, len(losses)):
        waited = waited + 1 if losses[epoch] >= losses[epoch - 1] else 0
        if waited == patience:
            return losses.index(min(losses[: epoch + 1])), epoch
    return losses.index(min(losses)), len(losses) - 1


def stop_in_place(losses, patience):
    best, last = stop(losses, patience)
    del losses[last + 1 :]
    return best, last


def last_of_equals(losses, patience):
    _, last = stop(losses, patience)
    seen = losses[: last + 1]
    return max(i for i, loss in enumerate(seen) if loss == min(seen)), last


def clip_with_a_slack(gradients, max_norm):
    return (
        clip(gradients, norm_of(gradients), max_norm)
        if (norm_of(gradients) > max_norm + 0.05)
        else [g.clone() for g in gradients]
    )


def micro_counts_no_zeros(token_losses):
    """A token whose loss is exactly 0 is a token too."""
    total = sum(int((losses > 0).sum()) for losses in token_losses)
    return [losses.sum() / total for losses in token_losses]


def micro_none_for_the_empty(token_losses):
    total = sum(map(len, token_losses))
    return [losses.sum() / total if len(losses) else None for losses in token_losses]


OTHER_WRONG_ANSWERS = {
    "4.1": [
        adamw(slope=lambda g, w, decay: g + decay * w, decay=lambda w, new, lr, rate: new),
        adamw(decay=lambda w, new, lr, rate: new),
        adamw(decay=lambda w, new, lr, rate: new - rate * w),
        adamw(decay=lambda w, new, lr, rate: new + lr * rate * w),
        adamw(decay=lambda w, new, lr, rate: new * (1 - lr * rate)),
        adamw(decay=lambda w, new, lr, rate: new - lr * rate * new),
        adamw(decay=lambda w, new, lr, rate: new - lr * rate * w.sign()),
        adamw(decay=lambda w, new, lr, rate: new - lr * 0.01 * w),
        adamw(hats=lambda t: (1, 1)),
        adamw(hats=lambda t: (1 - 0.9**t, 1)),
        adamw(hats=lambda t: (1, 1 - 0.999**t)),
        adamw(hats=lambda t: (1 - 0.9 ** (t + 1), 1 - 0.999 ** (t + 1))),
        adamw(hats=lambda t: (1 - 0.9 ** max(1, t - 1), 1 - 0.999 ** max(1, t - 1))),
        adamw(hats=lambda t: (1 - 0.9, 1 - 0.999)),
        adamw(hats=lambda t: (1 - 0.9**t, 1 - 0.9**t)),
        adamw(hats=lambda t: (1 - 0.999**t, 1 - 0.9**t)),
        adamw(betas=(0.999, 0.9)),
        adamw(betas=(0.9, 0.95)),
        adamw(betas=(0.9, 0.99)),
        adamw(divide=lambda m, v: m / (v + 1e-8).sqrt()),
        adamw(divide=lambda m, v: m / (v + 1e-16).sqrt()),
        adamw(divide=lambda m, v: m / v.sqrt()),
        adamw(divide=lambda m, v: m / (v + 1e-8)),
        adamw(divide=lambda m, v: m / (v.sqrt() + 1e-6)),
        adamw(divide=lambda m, v: m / v.sqrt().clamp(min=1e-8)),
        adamw(divide=lambda m, v: m / (v.sqrt() + 1e-12)),
        adamw(square=lambda g: g),
        adamw(square=lambda g: g.abs()),
        adamw(square=lambda g: (g * g).mean()),
        adamw(give=lambda w, m, v, m_hat, v_hat: (w, m_hat, v_hat)),
        adamw(give=lambda w, m, v, m_hat, v_hat: (w, v, m)),
        adamw(give=lambda w, m, v, m_hat, v_hat: w),
        adamw(give=lambda w, m, v, m_hat, v_hat: (w, m)),
        adamw(give=lambda w, m, v, m_hat, v_hat: (w.tolist(), m, v)),
        adamw(slope=lambda g, w, decay: -g),
        adamw(slope=lambda g, w, decay: g / g.norm()),
        adamw_in_place,
        adamw_eps_before_the_correction,
        adamw_of_the_old_means,
    ],
    "4.2": [
        rates(rise=lambda s, w: (s + 1) / w),
        rates(rise=lambda s, w: (s + 1) / (w + 1)),
        rates(rise=lambda s, w: 1.0),
        rates(rise=lambda s, w: s / (w - 1) if w > 1 else 0.0),
        rates(rise=lambda s, w: math.sin(math.pi / 2 * s / w)),
        rates(rise=lambda s, w: (s / w) ** 2),
        rates(rise=lambda s, w: (1 - math.cos(math.pi * s / w)) / 2),
        rates(way=lambda s, w, n: s / n),
        rates(way=lambda s, w, n: (s - w) / n),
        rates(way=lambda s, w, n: (s - w) / max(1, n - w - 1)),
        rates(way=lambda s, w, n: (s - w + 1) / (n - w)),
        rates(way=lambda s, w, n: (s - w) / (n - w + 1)),
        rates(fall=lambda x: 1 - x),
        rates(fall=lambda x: math.cos(math.pi * x)),
        rates(fall=lambda x: math.cos(math.pi / 2 * x)),
        rates(fall=lambda x: (1 + math.cos(x)) / 2),
        rates(fall=lambda x: (1 - math.cos(math.pi * x)) / 2),
        rates(fall=lambda x: 1.0),
        rates(fall=lambda x: 0.1 + 0.9 * (1 + math.cos(math.pi * x)) / 2),
        rates(fall=lambda x: (1 + math.cos(math.pi * x)) / 2 if x < 0.9 else 0.0),
        lambda s, n, w, peak: rate(s, n, w, 1.0),
        lambda s, n, w, peak: rate(s, n, w, 5e-4),
        lambda s, n, w, peak: rate(s, n, max(1, w), peak),
        lambda s, n, w, peak: torch.tensor(rate(s, n, w, peak)),
        lambda s, n, w, peak: rate(s, n, w, peak) if s != w else peak * 0.99,
        lambda s, n, w, peak: min(s / max(w, 1), (1 + math.cos(math.pi * s / n)) / 2) * peak,
        lambda s, n, w, peak: rate(s, n, n // 10, peak),
        lambda s, n, w, peak: round(rate(s, n, w, peak), 6),
        lambda s, n, w, peak: rate(s + 1, n, w, peak),
        rate_divides_by_warmup,
        rate_times_both,
    ],
    "4.3": [
        clip_each,
        clip_in_place,
        clip_by_library_in_place,
        clip_only_the_large,
        clip_replaces_the_list,
        lambda gs, limit: [g * (limit / norm_of(gs)) for g in gs],
        lambda gs, limit: [g.clamp(-limit, limit) for g in gs],
        lambda gs, limit: [g.clamp(max=limit) for g in gs],
        lambda gs, limit: clip(gs, norm_of(gs) ** 2, limit),
        lambda gs, limit: clip(gs, sum(g.norm().item() for g in gs), limit),
        lambda gs, limit: clip(gs, max(g.norm().item() for g in gs), limit),
        lambda gs, limit: clip(gs, max(g.abs().max().item() for g in gs), limit),
        lambda gs, limit: clip(gs, sum(g.abs().sum().item() for g in gs), limit),
        lambda gs, limit: clip(gs, statistics.mean(g.norm().item() for g in gs), limit),
        lambda gs, limit: clip(gs, norm_of(gs) / math.sqrt(len(gs)), limit),
        lambda gs, limit: clip(gs, gs[0].norm().item(), limit),
        lambda gs, limit: clip(gs, norm_of(gs), 1.0),
        lambda gs, limit: clip(gs, norm_of(gs), limit**2),
        lambda gs, limit: clip(gs, norm_of(gs[:-1]), limit),
        lambda gs, limit: clip(gs, norm_of(gs), limit)[:2],
        lambda gs, limit: [g.flatten() for g in clip(gs, norm_of(gs), limit)],
        lambda gs, limit: [g.tolist() for g in clip(gs, norm_of(gs), limit)],
        lambda gs, limit: torch.cat([g.flatten() for g in clip(gs, norm_of(gs), limit)]),
        lambda gs, limit: (clip(gs, norm_of(gs), limit), norm_of(gs)),
        lambda gs, limit: [g.abs() for g in clip(gs, norm_of(gs), limit)],
        lambda gs, limit: [g / (1 + norm_of(gs)) * limit for g in gs],
        lambda gs, limit: gs if norm_of(gs) <= limit else [torch.zeros_like(g) for g in gs],
        lambda gs, limit: gs,
        lambda gs, limit: [g / norm_of(gs) if norm_of(gs) > limit else g for g in gs],
        lambda gs, limit: [g.half() for g in clip(gs, norm_of(gs), limit)],
        clip_with_a_slack,
        lambda gs, limit: clip(gs, norm_of(gs) + 1e-2, limit),
        lambda gs, limit: clip(gs, max(1.0, norm_of(gs)), limit),
    ],
    "4.4": [
        micro_divisors(lambda n, counts: n),
        micro_divisors(lambda n, counts: max(n, 1)),
        micro_divisors(lambda n, counts: max(n, 1) * len(counts)),
        micro_divisors(lambda n, counts: max(n, 1) * sum(c > 0 for c in counts)),
        micro_divisors(lambda n, counts: len(counts)),
        micro_divisors(lambda n, counts: sum(c > 0 for c in counts)),
        micro_divisors(lambda n, counts: 1),
        micro_divisors(lambda n, counts: max(counts)),
        micro_divisors(lambda n, counts: max(counts) * len(counts)),
        micro_divisors(lambda n, counts: counts[0] * len(counts)),
        micro_divisors(lambda n, counts: sum(max(1, c) for c in counts)),
        micro_divisors(lambda n, counts: sum(counts) ** 2),
        micro_leaves_the_empty_out,
        micro_empties_without_a_graph,
        micro_weighted_means,
        micro_in_place,
        micro_distinct,
        lambda parts: [x.item() for x in micro_right(parts)],
        lambda parts: [x.detach() for x in micro_right(parts)],
        lambda parts: [torch.tensor(x.item(), requires_grad=True) for x in micro_right(parts)],
        lambda parts: sum(micro_right(parts)),
        lambda parts: [sum(micro_right(parts))],
        lambda parts: [x / sum(map(len, parts)) for x in parts],
        lambda parts: [x[None] for x in micro_right(parts)],
        lambda parts: micro_right(parts)[::-1],
        lambda parts: [-x for x in micro_right(parts)],
        lambda parts: [x.sum() / sum(len(p) for p in parts[: i + 1]) for i, x in enumerate(parts)],
        micro_counts_no_zeros,
        micro_none_for_the_empty,
    ],
    "4.5": [
        unshifted,
        measures_in_place,
        measures_without_zero,
        with_loss(lambda x, y: losses_of(x, y).sum()),
        with_loss(lambda x, y: row_losses(x, y).mean()),
        with_loss(lambda x, y: F.cross_entropy(*graded(x, y, start=0, end=None))),
        with_loss(lambda x, y: losses_of(x, y).sum() / (y != -100).sum()),
        with_loss(lambda x, y: losses_of(x, y).sum() / y[:, 1:].numel()),
        with_loss(lambda x, y: losses_of(x, y).mean() / math.log(2)),
        with_loss(lambda x, y: losses_of(x, y).median()),
        with_accuracy(lambda x, y: (x[:, :-1].argmax(-1) == y[:, 1:]).double().mean()),
        with_accuracy(lambda x, y: (x[:, :-1].argmax(-1) == y[:, 1:]).sum() / (y != -100).sum()),
        with_accuracy(lambda x, y: (x.argmax(-1) == y)[y != -100].double().mean()),
        with_accuracy(
            lambda x, y: (x[:, :-1].argmin(-1) == y[:, 1:])[y[:, 1:] != -100].double().mean()
        ),
        with_accuracy(lambda x, y: (losses_of(x, y) < math.log(2)).double().mean()),
        with_accuracy(lambda x, y: (-losses_of(x, y)).exp().mean()),
        with_accuracy(
            lambda x, y: statistics.mean(
                measured(a[None], b[None])[1] for a, b in zip(x, y, strict=True)
            )
        ),
        with_accuracy(
            lambda x, y: (
                ((x[:, :-1].argmax(-1) == y[:, 1:]) & (y[:, 1:] > 0)).sum()
                / (y[:, 1:] != -100).sum()
            )
        ),
        with_perplexity(lambda x, y: losses_of(x, y).exp().mean()),
        with_perplexity(lambda x, y: row_losses(x, y).exp().mean()),
        with_perplexity(lambda x, y: 2 ** losses_of(x, y).mean()),
        with_perplexity(lambda x, y: (-losses_of(x, y).mean()).exp()),
        with_perplexity(lambda x, y: losses_of(x, y).sum().exp()),
        with_perplexity(lambda x, y: losses_of(x, y).mean()),
        measures(lambda loss, accuracy, perplexity: (loss, 100 * accuracy, perplexity)),
        measures(lambda loss, accuracy, perplexity: (loss, 1 - accuracy, perplexity)),
        measures(lambda loss, accuracy, perplexity: (accuracy, loss, perplexity)),
        measures(lambda loss, accuracy, perplexity: (loss, perplexity, accuracy)),
        measures(lambda loss, accuracy, perplexity: (loss, accuracy)),
        measures(lambda loss, accuracy, perplexity: (-loss, accuracy, perplexity)),
        measures(lambda loss, accuracy, perplexity: torch.tensor([loss, accuracy, perplexity])),
        measures(lambda *three: tuple(map(torch.tensor, three))),
        measures(lambda *three: [round(x, 2) for x in three]),
        measures(lambda *three: {"loss": three[0], "accuracy": three[1], "perplexity": three[2]}),
        with_loss(lambda x, y: losses_of(x, y).clamp(max=-math.log(1e-9)).mean()),
        with_loss(lambda x, y: -(losses_of(x, y).neg().exp() + 1e-12).log().mean()),
        with_loss(lambda x, y: -losses_of(x, y).neg().exp().log().mean()),
        with_loss(lambda x, y: losses_of(x.clamp(-50, 50), y).mean()),
        with_loss(lambda x, y: losses_of(x.exp().clamp(max=3e38).log(), y).mean()),
    ],
    "4.6": [
        stop_at_the_overall_best,
        stop_counts_rises_in_a_row,
        stop_in_place,
        last_of_equals,
        stops(better=lambda loss, best: loss <= best),
        stops(better=lambda loss, best: loss > best, first=-math.inf),
        stops(better=lambda loss, best: loss < best - 0.05),
        stops(better=lambda loss, best: round(loss, 1) < round(best, 1), first=1e9),
        stops(reset=False),
        stops(enough=lambda waited, patience: waited > patience),
        stops(enough=lambda waited, patience: waited >= patience - 1),
        stops(enough=lambda waited, patience: waited == 2),
        stops(enough=lambda waited, patience: False),
        stops(enough=lambda waited, patience: True),
        stops(versus_previous=True),
        stops(first=1.0),
        stops(first=10.0),
        stopped(lambda best, last, losses: (last, best)),
        stopped(lambda best, last, losses: (best + 1, last + 1)),
        stopped(lambda best, last, losses: (best, last + 1)),
        stopped(lambda best, last, losses: (best, last - 1)),
        stopped(lambda best, last, losses: (losses[best], losses[last])),
        stopped(lambda best, last, losses: (losses[best], last)),
        stopped(lambda best, last, losses: best),
        stopped(lambda best, last, losses: (float(best), float(last))),
        stopped(lambda best, last, losses: (best, len(losses) - 1)),
        stopped(lambda best, last, losses: (best, best)),
        lambda losses, patience: (losses.index(min(losses)), len(losses) - 1),
        lambda losses, patience: (
            losses.index(min(losses)),
            min(losses.index(min(losses)) + patience, len(losses) - 1),
        ),
        lambda losses, patience: stop(losses, patience + 1),
        lambda losses, patience: stop(losses[1:], patience),
        lambda losses, patience: stop(sorted(losses), patience),
        stops(better=lambda loss, best: loss < best - 1e-3),
        stops(better=lambda loss, best: loss < best - 1e-4),
        stops(better=lambda loss, best: round(loss, 4) < round(best, 4), first=1e9),
    ],
}
