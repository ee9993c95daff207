"""Right answers to the exercises of chapter 04, in different styles."""

import math
import random

import numpy as np
import torch
import torch.nn.functional as F

from sft_lab.batches import pad_batch
from sft_lab.course import plain_loop


def adamw_by_the_book(w, g, m, v, t, lr, weight_decay):
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g**2
    m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
    return w - lr * m_hat / (v_hat.sqrt() + 1e-8) - lr * weight_decay * w, m, v


def adamw_decay_first(w, g, m, v, t, lr, weight_decay):
    m, v = m.lerp(g, 1 - 0.9), v * 0.999 + (1 - 0.999) * g * g
    w = w * (1 - lr * weight_decay)
    denominator = v.sqrt() / math.sqrt(1 - 0.999**t) + 1e-8
    return torch.addcdiv(w, m, denominator, value=-lr / (1 - 0.9**t)), m, v


def adamw_on_copies(w, g, m, v, t, lr, weight_decay):
    w, m, v = w.clone(), m.clone(), v.clone()
    m.mul_(0.9).add_(g, alpha=0.1)
    v.mul_(0.999).addcmul_(g, g, value=0.001)
    update = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8) + weight_decay * w
    w -= lr * update
    return [w, m, v]


def adamw_by_numpy(w, g, m, v, t, lr, weight_decay):
    w, g, m, v = (x.numpy() for x in (w, g, m, v))
    m, v = 0.9 * m + (1 - 0.9) * g, 0.999 * v + (1 - 0.999) * np.square(g)
    step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return tuple(torch.from_numpy(x) for x in (w - lr * (step + weight_decay * w), m, v))


def adamw_number_by_number(w, g, m, v, t, lr, weight_decay):
    rows = []
    for a, b, c, d in zip(*(x.flatten().tolist() for x in (w, g, m, v)), strict=True):
        c, d = 0.9 * c + 0.1 * b, 0.999 * d + 0.001 * b * b
        step = c / (1 - 0.9**t) / (math.sqrt(d / (1 - 0.999**t)) + 1e-8)
        rows.append((a - lr * weight_decay * a - lr * step, c, d))
    columns = zip(*rows, strict=True)
    return tuple(torch.tensor(x, dtype=w.dtype).reshape(w.shape) for x in columns)


def rate_by_branches(step, total, warmup, peak):
    if step < warmup:
        return peak * step / warmup
    done = (step - warmup) / (total - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def rate_by_square(step, total, warmup, peak):
    """(1 + cos 2x) / 2 is cos² x."""
    if warmup and step < warmup:
        return peak * (step / warmup)
    return peak * math.cos(math.pi / 2 * (step - warmup) / max(1, total - warmup)) ** 2


def rate_by_library(step, total, warmup, peak):
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=peak)
    return peak * get_cosine_schedule_with_warmup(optimizer, warmup, total).lr_lambdas[0](step)


def rate_by_numpy(step, total, warmup, peak):
    up = np.arange(warmup) / max(warmup, 1)
    down = (1 + np.cos(np.pi * np.arange(total - warmup) / (total - warmup))) / 2
    return (peak * np.concatenate([up, down]))[step]


def rate_by_torch(step, total, warmup, peak):
    if step < warmup:
        return step * peak / warmup
    way = torch.tensor((step - warmup) / (total - warmup), dtype=torch.float64)
    return float(peak * (torch.cos(torch.pi * way) + 1) / 2)


def clip_by_loop(gradients, max_norm):
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    if norm <= max_norm:
        return [g.clone() for g in gradients]
    return [g * (max_norm / norm) for g in gradients]


def clip_by_cat(gradients, max_norm):
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    return [g * torch.clamp(max_norm / norm, max=1.0) for g in gradients]


def clip_by_norm_of_norms(gradients, max_norm):
    norm = torch.stack([torch.linalg.vector_norm(g) for g in gradients]).norm()
    return [g / max(1.0, (norm / max_norm).item()) for g in gradients]


def clip_by_library(gradients, max_norm):
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, g in zip(parameters, gradients, strict=True):
        parameter.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return [parameter.grad for parameter in parameters]


def clip_by_numpy(gradients, max_norm):
    norm = np.sqrt(sum(np.square(g.numpy()).sum() for g in gradients))
    return [g.clone() if norm <= max_norm else g * float(max_norm / norm) for g in gradients]


def clip_or_give_back(gradients, max_norm):
    norm = sum(g.pow(2).sum() for g in gradients).sqrt()
    return gradients if norm <= max_norm else [max_norm * g / norm for g in gradients]


# 4.7
def batch_by_loop(model, batch):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    total, count = logits.sum() * 0, 0
    for row, labels in zip(logits.log_softmax(-1), batch["labels"].tolist(), strict=True):
        for t, label in enumerate(labels[1:]):
            if label != -100:
                total, count = total - row[t, label], count + 1
    return total, count


def batch_by_cross_entropy(model, batch):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    total = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="sum"
    )
    return total, int((labels != -100).sum())


def batch_by_gather(model, batch):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"][:, 1:]
    graded = labels.ne(-100)
    chosen = logits[:, :-1].log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    return -(chosen * graded).sum(), graded.sum().item()


def batch_by_places(model, batch):
    out = model(batch["input_ids"], attention_mask=batch["attention_mask"])
    rows, places = (batch["labels"][:, 1:] != -100).nonzero(as_tuple=True)
    log_probs = torch.log_softmax(out.logits[rows, places], dim=-1)
    targets = batch["labels"][rows, places + 1]
    return -log_probs[torch.arange(len(targets)), targets].sum(), len(targets)


def batch_by_logsumexp(model, batch):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    keep = labels != -100
    kept, targets = logits[keep], labels[keep]
    return (
        kept.logsumexp(-1) - kept.gather(1, targets[:, None]).squeeze(1)
    ).sum(), keep.sum().item()


# 4.8
def step_counts_first(model, optimizer, batches, rate, run_batch):
    graded = [int((batch["labels"][:, 1:] != -100).sum()) for batch in batches]
    optimizer.zero_grad()
    total = 0.0
    for batch in batches:
        loss, _ = run_batch(model, batch)
        if loss.requires_grad:
            (loss / sum(graded)).backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return total / sum(graded)


def step_divides_afterwards(model, optimizer, batches, rate, run_batch):
    optimizer.zero_grad(set_to_none=True)
    total, count = 0.0, 0
    for batch in batches:
        loss, number = run_batch(model, batch)
        if number:
            loss.backward()
        total, count = total + loss.item(), count + number
    for weight in model.parameters():
        if weight.grad is not None:
            weight.grad /= count
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return total / count


def step_clips_by_hand(model, optimizer, batches, rate, run_batch):
    for weight in model.parameters():
        weight.grad = None
    sums, counts = [], []
    for batch in batches:
        loss, number = run_batch(model, batch)
        if loss.requires_grad:
            loss.backward()
        sums.append(float(loss.detach()))
        counts.append(number)
    grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
    for grad in grads:
        grad.div_(sum(counts))
    norm = torch.stack([grad.norm() for grad in grads]).norm()
    if norm > 1:
        for grad in grads:
            grad.div_(norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return sum(sums) / sum(counts)


def step_sets_the_rate_first(model, optimizer, batches, rate, run_batch):
    for group in optimizer.param_groups:
        group.update(lr=rate)
    model.zero_grad()
    summed = torch.zeros(())
    tokens = 0
    for batch in batches:
        loss, number = run_batch(model, batch)
        if number > 0:
            loss.backward()
            summed = summed + loss.detach()
            tokens = tokens + number
    with torch.no_grad():
        for weight in model.parameters():
            if weight.grad is not None:
                weight.grad.copy_(weight.grad / tokens)
    torch.nn.utils.clip_grad_norm_(list(model.parameters()), max_norm=1.0)
    optimizer.step()
    return (summed / tokens).item()


def step_keeps_its_own_sums(model, optimizer, batches, rate, run_batch):
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    kept = [torch.zeros_like(weight) for weight in weights]
    total, count = 0.0, 0
    for batch in batches:
        for weight in weights:
            weight.grad = None
        loss, number = run_batch(model, batch)
        if number:
            loss.backward()
            for grad, weight in zip(kept, weights, strict=True):
                if weight.grad is not None:
                    grad += weight.grad
        total, count = total + loss.item(), count + number
    for grad, weight in zip(kept, weights, strict=True):
        weight.grad = grad / count
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return total / count


# 4.9
def cosine_rate(at, total, peak):
    warmup = math.ceil(total / 10)
    if at < warmup:
        return peak * at / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (at - warmup) / (total - warmup)))


def sft_plain(
    model, examples, pad_token_id, step, evaluate, *, epochs, batch_size, accumulation, peak, seed
):
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    batches = math.ceil(len(examples) / batch_size)
    total = epochs * math.ceil(batches / accumulation)
    rng = random.Random(seed)
    model.eval()
    losses, scores = [], [evaluate(model)]
    for _ in range(epochs):
        order = rng.sample(range(len(examples)), len(examples))
        rows = [examples[i] for i in order]
        made = [
            pad_batch(rows[at : at + batch_size], pad_token_id)
            for at in range(0, len(rows), batch_size)
        ]
        for at in range(0, len(made), accumulation):
            model.train()
            rate = cosine_rate(len(losses), total, peak)
            losses.append(step(model, optimizer, made[at : at + accumulation], rate))
        model.eval()
        scores.append(evaluate(model))
    return losses, scores


def sft_by_torch(
    model, examples, pad_token_id, step, evaluate, *, epochs, batch_size, accumulation, peak, seed
):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(params=list(model.parameters()), lr=peak, weight_decay=0.0)
    per_epoch = math.ceil(math.ceil(len(examples) / batch_size) / accumulation)
    rates = [cosine_rate(at, epochs * per_epoch, peak) for at in range(epochs * per_epoch)]

    def measure():
        model.eval()
        score = evaluate(model)
        model.train()
        return score

    losses, scores = [], []
    scores.append(measure())
    for epoch in range(epochs):
        order = torch.randperm(len(examples), generator=generator).split(batch_size)
        for number in range(per_epoch):
            some = order[number * accumulation : (number + 1) * accumulation]
            batches = [
                pad_batch([examples[i] for i in part.tolist()], pad_token_id) for part in some
            ]
            losses.append(step(model, optimizer, batches, rates[epoch * per_epoch + number]))
        scores.append(measure())
    return losses, scores


def sft_by_length(
    model, examples, pad_token_id, step, evaluate, *, epochs, batch_size, accumulation, peak, seed
):
    """Rows of like length meet; the order of the batches is drawn."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    steps = math.ceil(math.ceil(len(examples) / batch_size) / accumulation)
    losses = []
    evaluations = [evaluate(model.eval())]
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(examples)).tolist()
        chunk = batch_size * accumulation
        model.train()
        for at in range(0, len(order), chunk):
            some = sorted(order[at : at + chunk], key=lambda i: len(examples[i].input_ids))
            batches = []
            while some:
                taken, some = some[:batch_size], some[batch_size:]
                batches.append(pad_batch([examples[i] for i in taken], pad_token_id))
            rate = cosine_rate(len(losses), epochs * steps, peak)
            losses.append(step(model, optimizer, batches, rate))
        evaluations.append(evaluate(model.eval()))
    return losses, evaluations


def sft_as_a_generator(
    model, examples, pad_token_id, step, evaluate, *, epochs, batch_size, accumulation, peak, seed
):
    def steps_of(epoch):
        rows = list(examples)
        random.Random(1000 * seed + epoch).shuffle(rows)
        batch, step_batches = [], []
        for row in rows:
            batch.append(row)
            if len(batch) == batch_size:
                step_batches.append(pad_batch(batch, pad_token_id))
                batch = []
            if len(step_batches) == accumulation:
                yield step_batches
                step_batches = []
        if batch:
            step_batches.append(pad_batch(batch, pad_token_id))
        if step_batches:
            yield step_batches

    total = sum(1 for epoch in range(epochs) for _ in steps_of(epoch))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0)
    losses, found = [], []
    model.eval()
    found.append(float(evaluate(model)))
    for epoch in range(epochs):
        for batches in steps_of(epoch):
            model.train()
            losses.append(step(model, optimizer, batches, cosine_rate(len(losses), total, peak)))
            model.eval()
        found.append(float(evaluate(model)))
    return losses, found


def sft_with_numpy(
    model, examples, pad_token_id, step, evaluate, *, epochs, batch_size, accumulation, peak, seed
):
    rng = np.random.RandomState(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    count = math.ceil(len(examples) / batch_size)
    total = math.ceil(count / accumulation) * epochs
    scores, losses, done = [evaluate(model.eval())], [], 0
    for _ in range(epochs):
        parts = [
            [examples[i] for i in part]
            for part in np.split(
                rng.permutation(len(examples)), range(batch_size, len(examples), batch_size)
            )
        ]
        model.train()
        while parts:
            now, parts = parts[:accumulation], parts[accumulation:]
            batches = [pad_batch(part, pad_token_id) for part in now]
            losses += [step(model, optimizer, batches, cosine_rate(done, total, peak))]
            done += 1
        scores += [evaluate(model.eval())]
    return losses, scores


# 4.10
def three_of(**settings):
    return plain_loop.run_batch, plain_loop.step, plain_loop.sft, settings


RIGHT_ANSWERS = {
    "4.1": [
        adamw_by_the_book,
        adamw_decay_first,
        adamw_on_copies,
        adamw_by_numpy,
        adamw_number_by_number,
    ],
    "4.2": [rate_by_branches, rate_by_square, rate_by_library, rate_by_numpy, rate_by_torch],
    "4.3": [
        clip_by_loop,
        clip_by_cat,
        clip_by_norm_of_norms,
        clip_by_library,
        clip_by_numpy,
        clip_or_give_back,
    ],
    "4.7": [
        batch_by_loop,
        batch_by_cross_entropy,
        batch_by_gather,
        batch_by_places,
        batch_by_logsumexp,
    ],
    "4.8": [
        step_counts_first,
        step_divides_afterwards,
        step_clips_by_hand,
        step_sets_the_rate_first,
        step_keeps_its_own_sums,
    ],
    "4.9": [sft_plain, sft_by_torch, sft_by_length, sft_as_a_generator, sft_with_numpy],
    "4.10": [
        three_of(epochs=2, batch_size=16, accumulation=1, peak=1e-3),
        three_of(epochs=2, batch_size=16, accumulation=1, peak=8e-4),
        three_of(epochs=2, batch_size=8, accumulation=1, peak=6e-4),
        three_of(epochs=2, batch_size=10, accumulation=1, peak=8e-4),
        three_of(epochs=2, batch_size=8, accumulation=2, peak=9e-4),
    ],
}
