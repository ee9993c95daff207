"""Wrong answers to the exercises of chapter 04, each with the words that must name its mistake."""

import math
import random
from functools import partial

import torch
import torch.nn.functional as F

from sft_lab.batches import pad_batch
from sft_lab.course import plain_loop


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


def _scores(model, batch):
    return model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def _sums(model, batch, reduction="sum"):
    targets = batch["labels"][:, 1:]
    graded = targets != -100
    loss = F.cross_entropy(
        _scores(model, batch)[:, :-1][graded], targets[graded], reduction=reduction
    )
    return loss, int(graded.sum())


def _empty_is_left_out(model, batch):
    loss, graded = _sums(model, batch)
    return (loss, graded) if graded else (torch.tensor(0.0), 0)


def _unshifted(model, batch):
    logits = _scores(model, batch).transpose(1, 2)
    return F.cross_entropy(logits, batch["labels"], reduction="sum"), _sums(model, batch)[1]


def _all_graded(model, batch):
    return _sums(model, {**batch, "labels": batch["input_ids"]})[0], _sums(model, batch)[1]


def _counts_all_labels(model, batch):
    return _sums(model, batch)[0], int((batch["labels"] != -100).sum())


def _grades_padding(model, batch):
    batch["labels"].masked_fill_(batch["attention_mask"] == 0, 0)
    return _sums(model, batch)


def _step(
    divisor=lambda counts, n: sum(counts),
    zero=True,
    clip="once",
    rated=lambda groups: groups,
    all_at_once=False,
    value=lambda loss, counts: loss / sum(counts),
    update=True,
):
    def step(model, optimizer, batches, rate, run_batch):
        counts = [int((batch["labels"][:, 1:] != -100).sum()) for batch in batches]
        if zero:
            optimizer.zero_grad()
        total, waiting = 0.0, []
        for batch, n in zip(batches, counts, strict=True):
            loss, _ = run_batch(model, batch)
            total += loss.item()
            waiting.append(loss / divisor(counts, n))
            if not all_at_once:
                waiting.pop().backward()
            if clip == "each":
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if all_at_once:
            sum(waiting).backward()
        if clip == "once":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in rated(optimizer.param_groups):
            group["lr"] = rate
        if update:
            optimizer.step()
        return value(total, counts)

    return step


def _runs_twice(model, optimizer, batches, rate, run_batch):
    counted = []
    for batch in batches:
        loss, graded = run_batch(model, batch)
        (0 * loss).backward()
        counted.append(graded)
    return _step()(model, optimizer, batches, rate, run_batch)


def _schedule(step, total, warmup, peak):
    return peak * (step / warmup if step < warmup else _cosine(_done(step, warmup, total)))


def _sft(
    order=lambda rows, rng: rng.sample(rows, len(rows)),
    drawn=lambda seed, epoch: f"{seed} {epoch}",
    warm=lambda total: math.ceil(0.1 * total),
    decay=0.0,
    last=True,
    anew=False,
    modes=(True, True),
    first=0,
    judge_first=True,
    flat=False,
):
    def sft(model, examples, pad, step, evaluate, *, epochs, batch_size, accumulation, peak, seed):
        optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=decay)
        total = epochs * math.ceil(math.ceil(len(examples) / batch_size) / accumulation)
        warmup, losses, values = warm(total), [], []

        def judge():
            if modes[0]:
                model.eval()
            values.append(evaluate(model))
            if modes[1]:
                model.train()

        if judge_first:
            judge()
        model.train(modes[1])
        for epoch in range(epochs):
            if anew:
                optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=decay)
            rows = order(examples, random.Random(drawn(seed, epoch)))
            cut = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
            batches = [pad_batch(few, pad) for few in cut if last or len(few) == batch_size]
            for i in range(0, len(batches), accumulation):
                now = peak if flat else _schedule(len(losses) + first, total, warmup, peak)
                losses.append(step(model, optimizer, batches[i : i + accumulation], now))
            judge()
        return losses, values

    return sft


def _shuffle_in_place(rows, rng):
    rng.shuffle(rows)
    return rows


def _rungs(**settings):
    """The three functions of the course, with other settings."""
    sound = {"epochs": 2, "batch_size": 16, "accumulation": 1, "peak": 1e-3}
    return plain_loop.run_batch, plain_loop.step, plain_loop.sft, sound | settings


def _not_written(*given, **settings):
    raise NotImplementedError


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
    "4.7": [
        (partial(_sums, reduction="mean"), "nan where no token is graded"),
        (
            lambda model, batch: (
                _sums(model, batch)[0] / max(1, _sums(model, batch)[1]),
                _sums(model, batch)[1],
            ),
            "this is the mean",
        ),
        (_unshifted, "no shift"),
        (_all_graded, "prompts and padding are graded"),
        (_counts_all_labels, "the first label of a row is counted"),
        (
            lambda model, batch: (_sums(model, batch)[0], batch["labels"][:, 1:].numel()),
            "all positions are counted",
        ),
        (
            lambda model, batch: (_sums(model, batch)[0].detach(), _sums(model, batch)[1]),
            "no gradient flows",
        ),
        (lambda model, batch: _sums(model, batch)[0], "return two things"),
        (_empty_is_left_out, "no gradient flows"),
        (_grades_padding, "changed `batch` in place"),
    ],
    "4.8": [
        (_step(lambda counts, n: max(1, n) * len(counts)), "the mean of means"),
        (_step(lambda counts, n: max(1, n)), "by its own tokens"),
        (_step(lambda counts, n: n), "divided by its own tokens"),
        (_step(lambda counts, n: 1), "nothing is divided"),
        (_step(lambda counts, n: len(counts)), "the number of batches"),
        (_step(zero=False), "the gradient that was there before"),
        (_step(clip="each"), "clipped after every batch"),
        (_step(clip="not"), "is not clipped"),
        (_step(rated=lambda groups: []), "the rate is not set"),
        (_step(rated=lambda groups: groups[:1]), "the first group alone"),
        (_step(all_at_once=True), "lie in memory at once"),
        (_step(update=False), "call optimizer.step()"),
        (_step(value=lambda loss, counts: loss), "you return the sum"),
        (_step(value=lambda loss, counts: None), "returns None"),
        (_runs_twice, "once for each"),
    ],
    "4.9": [
        (_sft(order=lambda rows, rng: rows), "nothing is shuffled"),
        (_sft(order=_shuffle_in_place), "changed `examples` in place"),
        (_sft(drawn=lambda seed, epoch: seed), "every epoch has the same order"),
        (_sft(drawn=lambda seed, epoch: None), "one seed have different orders"),
        (_sft(drawn=lambda seed, epoch: epoch), "another seed gives the same order"),
        (_sft(order=lambda rows, rng: rng.choices(rows, k=len(rows))), "takes an example twice"),
        (_sft(last=False), "steps, expected"),
        (_sft(decay=0.01), "weight decay is on"),
        (_sft(anew=True), "a new optimizer"),
        (_sft(modes=(False, True)), "in training mode in an evaluation"),
        (_sft(modes=(True, False)), "in eval mode in a step"),
        (_sft(judge_first=False), "one before the first step"),
        (_sft(flat=True), "the rate stays at the peak"),
        (_sft(warm=lambda total: 0), "there is no warm-up"),
        (_sft(warm=lambda total: int(0.1 * total)), "is rounded up"),
        (_sft(first=1), "count from 0"),
    ],
    "4.10": [
        (_rungs(peak=1e-5), "the rate is too low"),
        (_rungs(peak=0.1), "the rate is too high"),
        (_rungs(epochs=3), "at most 960"),
        (_rungs(batch_size=4), "at most 120"),
        (_rungs(peak=5), "lies between 0 and 1"),
        ((*_rungs()[:3], {"epochs": 1}), "a dict with the keys"),
        ((*_rungs()[:2], _not_written, _rungs()[3]), "sft (4.9) is not attempted yet"),
        ((_not_written, *_rungs()[1:]), "run_batch (4.7) is not attempted yet"),
    ],
}
