"""Wrong answers to the exercises of chapter 04, written from the statements alone."""

import math
import random
import statistics

import torch
import torch.nn.functional as F

from sft_lab.batches import pad_batch
from sft_lab.course import plain_loop


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


def clip_with_a_slack(gradients, max_norm):
    return (
        clip(gradients, norm_of(gradients), max_norm)
        if (norm_of(gradients) > max_norm + 0.05)
        else [g.clone() for g in gradients]
    )


# 4.7
def _batch(rows="next", divisor=False, count="graded", detach=False, base=1.0):
    def run_batch(model, batch):
        given = {"attention_mask": batch["attention_mask"]}
        logits = model(batch["input_ids"], **given).logits
        labels = batch["labels"]
        if rows == "next":
            logits, labels = logits[:, :-1], labels[:, 1:]
        elif rows == "two":
            logits, labels = logits[:, :-2], labels[:, 2:]
        keep = labels != -100
        if rows == "all":
            logits = model(batch["input_ids"], **given).logits[:, :-1]
            labels = batch["input_ids"][:, 1:]
            keep = batch["attention_mask"][:, 1:] == 1
        total = F.cross_entropy(logits[keep], labels[keep], reduction="sum") / base
        number = {
            "graded": int(keep.sum()),
            "float": float(keep.sum()),
            "tensor": keep.sum(),
            "tokens": int(batch["attention_mask"].sum()),
            "rows": len(labels),
            "first": int((batch["labels"] != -100).sum()),
        }[count]
        total = total / max(number, 1) if divisor else total
        return (total.detach() if detach else total), number

    return run_batch


def _batch_of_hf(model, batch):
    out = model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"])
    number = int((batch["labels"][:, 1:] != -100).sum())
    return out.loss * number, number


def _batch_of_means(model, batch):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten()), int((labels != -100).sum())


# 4.8
def _step(
    cleared=True,
    weight="tokens",
    clip="once",
    limit=1.0,
    rated=True,
    first=False,
    loss="mean",
    late=False,
):
    def step(model, optimizer, batches, rate, run_batch):
        if cleared:
            optimizer.zero_grad()
        total = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
        sums, counts, kept = 0.0, 0, []
        for batch in batches:
            summed, number = run_batch(model, batch)
            by = {
                "tokens": total,
                "batches": max(number, 1) * len(batches),
                "none": 1,
                "own": max(number, 1),
            }
            part = summed / by[weight]
            kept.append(part)
            if not late and part.requires_grad:
                part.backward()
            sums, counts = sums + summed.item(), counts + number
            if clip == "each":
                torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        if late:
            sum(kept).backward()
        if clip == "once":
            torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        if clip == "value":
            torch.nn.utils.clip_grad_value_(model.parameters(), limit)
        if clip == "weight":
            for one in model.parameters():
                torch.nn.utils.clip_grad_norm_([one], limit)
        for number, group in enumerate(optimizer.param_groups):
            if rated and (not first or number == 0):
                group["lr"] = rate
        optimizer.step()
        return {
            "mean": sums / counts,
            "sum": sums,
            "batch": sums / len(batches),
            "tensor": torch.tensor(sums / counts),
        }[loss]

    return step


def _step_twice(model, optimizer, batches, rate, run_batch):
    found = [_step()(model, optimizer, [batch], rate, run_batch) for batch in batches]
    return sum(found) / len(found)


def _step_first_batch(model, optimizer, batches, rate, run_batch):
    return _step()(model, optimizer, batches[:1], rate, run_batch)


def _step_reads_twice(model, optimizer, batches, rate, run_batch):
    total = sum(run_batch(model, batch)[1] for batch in batches)
    optimizer.zero_grad()
    sums = 0.0
    for batch in batches:
        loss, number = run_batch(model, batch)
        if number:
            (loss / total).backward()
        sums += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return sums / total


def _step_rate_after(model, optimizer, batches, rate, run_batch):
    loss = _step(rated=False)(model, optimizer, batches, rate, run_batch)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return loss


# 4.9
def _rate(at, total, peak, warmup=None):
    warmup = math.ceil(total / 10) if warmup is None else warmup
    if at < warmup:
        return peak * at / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (at - warmup) / (total - warmup)))


def _ordered(examples, rng, shuffled, seed):
    rows = list(examples)
    if shuffled in ("epoch", "unseeded"):
        rng.shuffle(rows)
    if shuffled == "same":
        random.Random(seed).shuffle(rows)
    if shuffled == "drawn":
        rows = rng.choices(examples, k=len(examples))
    return rows


def _given(losses, scores, result):
    return {
        "both": (losses, scores),
        "losses": losses,
        "swapped": (scores, losses),
        "means": (sum(losses) / len(losses), scores),
    }[result]


def _sft(
    shuffled="epoch",
    rest=True,
    rate=_rate,
    evals=("before", "after"),
    modes=True,
    fresh=False,
    decay=0.0,
    short=False,
    total_of="steps",
    result="both",
    optimizer_of=torch.optim.AdamW,
):
    def sft(model, examples, pad, step, evaluate, *, batch_size, accumulation, **run):
        epochs, seed = run["epochs"], run["seed"]
        optimizer = optimizer_of(model.parameters(), weight_decay=decay)
        count = math.ceil(len(examples) / batch_size)
        total = math.ceil(count / accumulation) * epochs
        total = {"steps": total, "batches": count * epochs, "epoch": total // epochs}[total_of]
        rng, losses, scores = random.Random(seed if shuffled != "unseeded" else None), [], []

        def measure(when):
            if when in evals:
                scores.append(evaluate(model.eval() if modes else model))

        measure("before")
        for _ in range(epochs):
            rows = _ordered(examples, rng, shuffled, seed)
            if fresh:
                optimizer = optimizer_of(model.parameters(), weight_decay=decay)
            starts = range(0, len(rows) - (batch_size - 1 if short else 0), batch_size)
            batches = [pad_batch(rows[at : at + batch_size], pad) for at in starts]
            for at in range(0, len(batches), accumulation):
                some = batches[at : at + accumulation]
                if not rest and len(some) < accumulation:
                    continue
                model.train(modes or model.training)
                now = min(len(losses), total) if total_of != "epoch" else len(losses) % total
                losses.append(step(model, optimizer, some, rate(now, total, run["peak"])))
                measure("step")
            measure("after")
        return _given(losses, scores, result)

    return sft


# 4.10
def _three(run_batch=plain_loop.run_batch, step=plain_loop.step, sft=plain_loop.sft, **settings):
    usual = {"epochs": 2, "batch_size": 8, "accumulation": 1, "peak": 2e-3}
    return run_batch, step, sft, usual | settings


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
    "4.7": [
        _batch(rows="same"),
        _batch(rows="two"),
        _batch(rows="all"),
        _batch(divisor=True),
        _batch(count="float"),
        _batch(count="tensor"),
        _batch(count="tokens"),
        _batch(count="rows"),
        _batch(count="first"),
        _batch(detach=True),
        _batch(base=math.log(2)),
        _batch_of_hf,
        _batch_of_means,
        lambda model, batch: _batch()(model, batch)[0],
        lambda model, batch: _batch()(model, batch)[::-1],
    ],
    "4.8": [
        _step(cleared=False),
        _step(weight="batches"),
        _step(weight="none"),
        _step(weight="own"),
        _step(clip="each"),
        _step(clip="none"),
        _step(clip="value"),
        _step(clip="weight"),
        _step(limit=0.5),
        _step(rated=False),
        _step(first=True),
        _step(loss="sum"),
        _step(loss="batch"),
        _step(loss="tensor"),
        _step(late=True),
        _step_twice,
        _step_first_batch,
        _step_reads_twice,
        _step_rate_after,
    ],
    "4.9": [
        _sft(shuffled="never"),
        _sft(shuffled="same"),
        _sft(shuffled="drawn"),
        _sft(shuffled="unseeded"),
        _sft(rest=False),
        _sft(short=True),
        _sft(rate=lambda at, total, peak: _rate(at + 1, total, peak)),
        _sft(rate=lambda at, total, peak: _rate(at, total, peak, total // 10)),
        _sft(rate=lambda at, total, peak: _rate(at, total, peak, 0)),
        _sft(rate=lambda at, total, peak: peak),
        _sft(evals=("before",)),
        _sft(evals=("after",)),
        _sft(evals=("before", "step")),
        _sft(modes=False),
        _sft(fresh=True),
        _sft(decay=0.01),
        _sft(total_of="batches"),
        _sft(total_of="epoch"),
        _sft(result="losses"),
        _sft(result="swapped"),
        _sft(result="means"),
        _sft(optimizer_of=torch.optim.Adam),
    ],
    "4.10": [
        _three(peak=1e-5),
        _three(peak=0.5),
        _three(epochs=3),
        _three(epochs=0),
        _three(batch_size=480),
        _three(batch_size=4),
        _three(peak=2),
        _three(batch_size=8.0),
        _three(accumulation=60),
        _three(epochs=1, peak=1e-4),
        (*_three()[:3], {"epochs": 2, "batch_size": 8, "peak": 2e-3}),
        _three()[3],
    ],
}
