"""Right answers to the exercises of chapter 13b, each in another style."""

import copy
import itertools
import random

import numpy as np
import torch
import torch.nn.functional as F


# 13b.1
def fisher_by_variance(weights, inputs):
    p = (inputs @ weights.T).softmax(-1)
    return (p * (1 - p)).T @ inputs.square() / len(inputs)


def fisher_by_loops(weights, inputs):
    total = torch.zeros_like(weights)
    for x in inputs:
        p = torch.softmax(weights @ x, 0)
        for label in range(len(weights)):
            error = p.clone()
            error[label] -= 1
            total += p[label] * torch.outer(error, x) ** 2
    return total / len(inputs)


def fisher_by_autograd(weights, inputs):
    total = torch.zeros_like(weights)
    for x in inputs:
        for label in range(len(weights)):
            w = weights.detach().clone().requires_grad_()
            with torch.enable_grad():
                loss = -(w @ x).log_softmax(0)[label]
                (gradient,) = torch.autograd.grad(loss, w)
            total += (-loss.detach()).exp() * gradient**2
    return total / len(inputs)


def fisher_in_numpy(weights, inputs):
    w, x = weights.numpy(), inputs.numpy()
    z = x @ w.T
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    errors = p[:, None, :] - np.eye(len(w))[None]  # input, label, score
    return torch.from_numpy(np.einsum("nl,nlv,nd->vd", p, errors**2, x**2) / len(x))


def fisher_by_einsum(weights, inputs):
    p = torch.einsum("vd,nd->nv", weights, inputs).softmax(1)
    squares = (torch.eye(len(weights), dtype=p.dtype) - p[:, None]).square()
    return torch.einsum("nl,nlv,nd->nvd", p, squares, inputs**2).mean(0)


def fisher_by_hessian(weights, inputs):
    """The Fisher of a softmax of linear scores is the curvature of the loss, whatever the label."""

    def loss(w):
        return (inputs @ w.view_as(weights).T).log_softmax(-1)[:, 0].mean().neg()

    return torch.autograd.functional.hessian(loss, weights.flatten()).diag().view_as(weights)


# 13b.2
def settle_by_quotient(new_best, curvature, anchors, fishers, strength):
    pull = curvature + strength * fishers.sum(0)
    wanted = curvature * new_best + strength * (fishers * anchors).sum(0)
    return torch.where(pull > 0, wanted / pull, anchors[-1])


def settle_by_loops(new_best, curvature, anchors, fishers, strength):
    found = []
    for i in range(len(new_best)):
        weights = [curvature[i].item()] + [strength * f[i].item() for f in fishers]
        places = [new_best[i].item()] + [a[i].item() for a in anchors]
        if sum(weights) == 0:
            found.append(places[-1])
        else:
            products = (w * x for w, x in zip(weights, places, strict=True))
            found.append(sum(products) / sum(weights))
    return torch.tensor(found, dtype=new_best.dtype)


def settle_from_the_last(new_best, curvature, anchors, fishers, strength):
    """One Newton step from the last anchor."""
    start = anchors[-1]
    slope = curvature * (start - new_best) + strength * (fishers * (start - anchors)).sum(0)
    bend = curvature + strength * fishers.sum(0)
    bend = bend.masked_fill(bend == 0, 1)  # the slope is 0 there
    return start - slope / bend


def settle_in_numpy(new_best, curvature, anchors, fishers, strength):
    h = np.vstack([curvature.numpy()[None], strength * fishers.numpy()])
    x = np.vstack([new_best.numpy()[None], anchors.numpy()])
    result = anchors[-1].numpy().copy()
    np.divide((h * x).sum(0), h.sum(0), out=result, where=h.sum(0) != 0)
    return torch.from_numpy(result)


def settle_task_by_task(new_best, curvature, anchors, fishers, strength):
    """The sum of two bowls is a bowl: add them one by one."""
    best, held = anchors[-1].clone(), torch.zeros_like(curvature)
    bowls = [(new_best, curvature)]
    bowls += [(a, strength * f) for a, f in zip(anchors, fishers, strict=True)]
    for place, weight in bowls:
        held = held + weight
        share = torch.where(held == 0, torch.zeros_like(held), weight / held)
        best = best + share * (place - best)
    return best


def settle_by_pinv(new_best, curvature, anchors, fishers, strength):
    h = torch.cat([curvature[None], strength * fishers])
    x = torch.cat([new_best[None], anchors])
    total = h.sum(0)
    best = torch.linalg.pinv(torch.diag(total)) @ (h * x).sum(0)
    best[total == 0] = anchors[-1][total == 0]
    return best


# 13b.3
def _penalties(gradients, anchor, strength, theta):
    true, squared = gradients.square().mean(0), gradients.mean(0).square()
    moved = theta - anchor
    return {
        "right": strength / 2 * (true * moved**2).sum(),
        "moving anchor": torch.zeros((), dtype=anchor.dtype),
        "squared mean": strength / 2 * (squared * moved**2).sum(),
        "no square": strength / 2 * (true * moved.abs()).sum(),
    }


def bug_by_a_far_step(penalty, gradients, anchor, strength):
    theta = anchor + 3
    said = penalty(theta).item()
    wanted = _penalties(gradients, anchor, strength, theta)
    return min(wanted, key=lambda name: abs(wanted[name].item() - said))


def bug_by_growth(penalty, gradients, anchor, strength):
    near, far = penalty(anchor + 1).item(), penalty(anchor + 2).item()
    if far == 0:
        return "moving anchor"
    if far < 3 * near:
        return "no square"
    wanted = strength / 2 * gradients.square().mean(0).sum().item()
    return "right" if abs(near - wanted) <= 1e-4 * wanted else "squared mean"


def bug_by_one_weight(penalty, gradients, anchor, strength):
    fisher = torch.stack(
        [penalty(anchor + e) * 2 / strength for e in torch.eye(len(anchor), dtype=anchor.dtype)]
    )
    if not fisher.any():
        return "moving anchor"
    if torch.allclose(fisher, gradients.mean(0) ** 2, rtol=1e-3):
        return "squared mean"
    twice = penalty(anchor + 2 * torch.eye(len(anchor), dtype=anchor.dtype)[0])
    return "no square" if twice < 3 * strength / 2 * fisher[0] else "right"


def bug_by_many_places(penalty, gradients, anchor, strength):
    rng = torch.Generator().manual_seed(0)
    errors = dict.fromkeys(("right", "moving anchor", "squared mean", "no square"), 0.0)
    for _ in range(20):
        theta = anchor + 4 * torch.randn(len(anchor), generator=rng, dtype=anchor.dtype)
        said = penalty(theta)
        for name, value in _penalties(gradients, anchor, strength, theta).items():
            errors[name] += ((value - said) ** 2).item()
    return min(errors, key=errors.get)


def bug_by_autograd(penalty, gradients, anchor, strength):
    def gradient(step):
        theta = (anchor.detach() + step).clone().requires_grad_()
        with torch.enable_grad():
            value = penalty(theta)
            if not value.requires_grad:
                return torch.zeros_like(anchor)
            (found,) = torch.autograd.grad(value, theta, allow_unused=True)
        return torch.zeros_like(anchor) if found is None else found

    one, two = gradient(1.0), gradient(2.0)
    if not one.any():
        return "moving anchor"
    if torch.allclose(one, two):
        return "no square"
    fisher = gradients.square().mean(0)
    return "right" if torch.allclose(one, strength * fisher, rtol=1e-3) else "squared mean"


# 13b.4
def mix_by_formula(student, teacher, labels, alpha, temperature):
    graded = labels != -100
    own = student.softmax(-1)
    own[graded.nonzero()[:, 0], labels[graded]] -= 1
    taught = (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    mixed = alpha * own + (1 - alpha) * temperature * taught
    return mixed * graded[:, None] / graded.sum()


def mix_by_rows(student, teacher, labels, alpha, temperature):
    rows, graded = [], sum(label != -100 for label in labels.tolist())
    for z, y, label in zip(student, teacher, labels.tolist(), strict=True):
        if label == -100:
            rows.append(torch.zeros_like(z))
            continue
        target = torch.zeros_like(z)
        target[label] = 1
        q, p = torch.softmax(z / temperature, 0), torch.softmax(y / temperature, 0)
        rows.append(
            (alpha * (z.softmax(0) - target) + (1 - alpha) * temperature * (q - p)) / graded
        )
    return torch.stack(rows)


def mix_on_graded_rows(student, teacher, labels, alpha, temperature):
    graded = labels.ne(-100)
    z, y = student[graded], teacher[graded]
    target = F.one_hot(labels[graded], student.shape[1])
    part = alpha * (z.softmax(1) - target) + (1 - alpha) * temperature**2 * (
        ((z / temperature).softmax(1) - (y / temperature).softmax(1)) / temperature
    )
    result = torch.zeros_like(student)
    result[graded] = part / len(part)
    return result


def mix_in_numpy(student, teacher, labels, alpha, temperature):
    def softmax(z):
        e = np.exp(z - z.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    z, y, labels = student.numpy(), teacher.numpy(), labels.numpy()
    graded = labels != -100
    target = np.eye(z.shape[1])[np.where(graded, labels, 0)]
    mixed = alpha * (softmax(z) - target)
    mixed += (1 - alpha) * temperature * (softmax(z / temperature) - softmax(y / temperature))
    return torch.from_numpy(np.where(graded[:, None], mixed, 0.0) / graded.sum())


def mix_by_scatter(student, teacher, labels, alpha, temperature):
    """What is wanted, both parts in one tensor, subtracted from what is said."""
    graded = (labels != -100).to(student.dtype)
    said = alpha * student.softmax(-1)
    said = said + (1 - alpha) * temperature * (student / temperature).softmax(-1)
    wanted = (1 - alpha) * temperature * (teacher / temperature).softmax(-1)
    ones = torch.full((len(labels), 1), alpha, dtype=student.dtype)
    wanted = wanted.scatter_add(1, labels.clamp(min=0)[:, None], ones)
    return (said - wanted) * (graded / graded.sum()).unsqueeze(1)


# 13b.5
def keep_by_reservoir(stream, size, rng):
    kept = []
    for number, row in enumerate(stream, 1):
        if len(kept) < size:
            kept.append(row)
        elif rng.random() < size / number:
            kept[rng.randrange(size)] = row
    return kept


def keep_by_one_draw(stream, size, rng):
    kept = []
    for seen, row in enumerate(stream):
        place = rng.randint(0, seen)
        if seen < size:
            kept.append(row)
        elif place < size:
            kept[place] = row
    return kept


def keep_by_keys(stream, size, rng):
    """Every row draws a number; the smallest numbers stay."""
    keys, kept = [], []
    for row in stream:
        key = rng.random()
        if len(kept) < size:
            keys.append(key)
            kept.append(row)
            continue
        worst = max(range(size), key=keys.__getitem__)
        if key < keys[worst]:
            keys[worst], kept[worst] = key, row
    return kept


def keep_by_next(stream, size, rng):
    stream = iter(stream)
    kept = list(itertools.islice(stream, size))
    seen = len(kept)
    while True:
        try:
            row = next(stream)
        except StopIteration:
            rng.shuffle(kept)
            return kept
        seen += 1
        if rng.uniform(0, seen) < size:
            kept.pop(rng.randrange(size))
            kept.append(row)


def keep_in_a_dict(stream, size, rng):
    kept = {}
    for number, row in enumerate(stream):
        place = number if number < size else rng.choice(range(number + 1))
        if place < size:
            kept[place] = row
    return list(kept.values())


# 13b.6
def remember_evenly(old, new):
    return old[::20] * 10 + new[:900]


def remember_by_copies(old, new):
    talks = []
    for _ in range(10):
        talks.extend(copy.deepcopy(old[::20]))
    talks.extend(new[:900])
    return talks


def remember_by_index(old, new):
    old_part = [old[i] for i in range(0, 800, 20) for _ in range(1)]
    return [*itertools.chain.from_iterable(itertools.repeat(old_part, 10)), *new[: 1300 - 400]]


def remember_by_cycle(old, new):
    rows = itertools.islice(itertools.cycle(old[0:800:20]), 400)
    return list(rows) + list(itertools.islice(new, 900))


def remember_a_seeded_sample(old, new):
    rng = random.Random(0)
    return rng.sample(old, 40) * 7 + rng.sample(new, 1000)


RIGHT_ANSWERS = {
    "13b.1": [
        fisher_by_variance,
        fisher_by_loops,
        fisher_by_autograd,
        fisher_in_numpy,
        fisher_by_einsum,
        fisher_by_hessian,
    ],
    "13b.2": [
        settle_by_quotient,
        settle_by_loops,
        settle_from_the_last,
        settle_in_numpy,
        settle_task_by_task,
        settle_by_pinv,
    ],
    "13b.3": [
        bug_by_a_far_step,
        bug_by_growth,
        bug_by_one_weight,
        bug_by_many_places,
        bug_by_autograd,
    ],
    "13b.4": [
        mix_by_formula,
        mix_by_rows,
        mix_on_graded_rows,
        mix_in_numpy,
        mix_by_scatter,
    ],
    "13b.5": [
        keep_by_reservoir,
        keep_by_one_draw,
        keep_by_keys,
        keep_by_next,
        keep_in_a_dict,
    ],
    "13b.6": [  # few trainings: the check remembers what it trained
        remember_evenly,
        remember_by_copies,
        remember_by_index,
        remember_by_cycle,
        remember_a_seeded_sample,
    ],
}
