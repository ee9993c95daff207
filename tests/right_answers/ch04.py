"""Right answers to the exercises of chapter 04, in different styles."""

import math

import numpy as np
import torch


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
}
