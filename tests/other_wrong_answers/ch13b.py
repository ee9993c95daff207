"""Wrong answers to the exercises of chapter 13b: plausible mistakes of learners."""

import random

import torch
import torch.nn.functional as F


# 13b.1
def _said(weights, inputs):
    return (inputs @ weights.T).softmax(-1)


def fisher_summed(weights, inputs):
    p = _said(weights, inputs)
    return (p * (1 - p)).T @ inputs**2


def fisher_of_labels_equally(weights, inputs):
    p = _said(weights, inputs)
    squares = (torch.eye(len(weights), dtype=p.dtype) - p[:, None]).square()
    return torch.einsum("nlv,nd->vd", squares, inputs**2) / (len(inputs) * len(weights))


def fisher_of_the_likeliest(weights, inputs):
    p = _said(weights, inputs)
    errors = p - F.one_hot(p.argmax(-1), p.shape[1])
    return (errors**2).T @ inputs**2 / len(inputs)


def fisher_drawn(weights, inputs):
    p = _said(weights, inputs)
    errors = p - F.one_hot(torch.multinomial(p, 1)[:, 0], p.shape[1])
    return (errors**2).T @ inputs**2 / len(inputs)


def fisher_often_drawn(weights, inputs):
    return torch.stack([fisher_drawn(weights, inputs) for _ in range(20)]).mean(0)


def fisher_of_the_mean_gradient(weights, inputs):
    p = _said(weights, inputs)
    errors = torch.eye(len(weights), dtype=p.dtype) - p[:, None]
    return torch.einsum("nl,nlv,nd->vd", p, errors, inputs).div(len(inputs)).square()


def fisher_of_the_mean_input(weights, inputs):
    p = _said(weights, inputs)
    return (p * (1 - p)).mean(0)[:, None] * inputs.square().mean(0)


def fisher_without_square_of_x(weights, inputs):
    p = _said(weights, inputs)
    return (p * (1 - p)).T @ inputs / len(inputs)


def fisher_of_p(weights, inputs):
    return _said(weights, inputs).T @ inputs**2 / len(inputs)


def fisher_of_p_squared(weights, inputs):
    return _said(weights, inputs).square().T @ inputs**2 / len(inputs)


def fisher_of_variance_squared(weights, inputs):
    p = _said(weights, inputs)
    return (p * (1 - p)).square().T @ inputs**2 / len(inputs)


def fisher_transposed(weights, inputs):
    p = _said(weights, inputs)
    return (inputs**2).T @ (p * (1 - p)) / len(inputs)


def fisher_over_labels_too(weights, inputs):
    p = _said(weights, inputs)
    return (p * (1 - p)).T @ inputs**2 / (len(inputs) * len(weights))


def fisher_unbiased(weights, inputs):
    p = _said(weights, inputs)
    return (p * (1 - p)).T @ inputs**2 / max(len(inputs) - 1, 1)


def fisher_over_the_wrong_axis(weights, inputs):
    p = (inputs @ weights.T).softmax(0)
    return (p * (1 - p)).T @ inputs**2 / len(inputs)


def fisher_of_the_first(weights, inputs):
    p = _said(weights, inputs)[:1]
    return (p * (1 - p)).T @ inputs[:1] ** 2


def fisher_rooted(weights, inputs):
    p = _said(weights, inputs)
    return ((p * (1 - p)).T @ inputs**2 / len(inputs)).sqrt()


# 13b.2
def _settle(h, b, anchors, fishers, strength):
    bend = h + strength * fishers.sum(0)
    return torch.where(
        bend > 0, (h * b + strength * (fishers * anchors).sum(0)) / bend, anchors[-1]
    )


def settle_nan(new_best, curvature, anchors, fishers, strength):
    bend = curvature + strength * fishers.sum(0)
    return (curvature * new_best + strength * (fishers * anchors).sum(0)) / bend


def settle_zero(new_best, curvature, anchors, fishers, strength):
    return settle_nan(new_best, curvature, anchors, fishers, strength).nan_to_num(0.0)


def settle_eps(new_best, curvature, anchors, fishers, strength):
    bend = curvature + strength * fishers.sum(0)
    return (curvature * new_best + strength * (fishers * anchors).sum(0)) / (bend + 1e-8)


def settle_at_the_new_best(new_best, curvature, anchors, fishers, strength):
    found = settle_nan(new_best, curvature, anchors, fishers, strength)
    return torch.where(found.isnan(), new_best, found)


def settle_at_the_first_anchor(new_best, curvature, anchors, fishers, strength):
    found = settle_nan(new_best, curvature, anchors, fishers, strength)
    return torch.where(found.isnan(), anchors[0], found)


def settle_at_the_mean_anchor(new_best, curvature, anchors, fishers, strength):
    found = settle_nan(new_best, curvature, anchors, fishers, strength)
    return torch.where(found.isnan(), anchors.mean(0), found)


def settle_last_only(new_best, curvature, anchors, fishers, strength):
    return _settle(curvature, new_best, anchors[-1:], fishers[-1:], strength)


def settle_first_only(new_best, curvature, anchors, fishers, strength):
    found = _settle(curvature, new_best, anchors[:1], fishers[:1], strength)
    held = curvature + strength * fishers.sum(0)
    return torch.where(held > 0, found, anchors[-1])


def settle_around_the_last(new_best, curvature, anchors, fishers, strength):
    """Fishers summed, but one anchor, as online EWC does."""
    return _settle(curvature, new_best, anchors[-1:], fishers.sum(0, keepdim=True), strength)


def settle_mean_of_tasks(new_best, curvature, anchors, fishers, strength):
    return _settle(curvature, new_best, anchors, fishers, strength / len(anchors))


def settle_half(new_best, curvature, anchors, fishers, strength):
    return _settle(curvature, new_best, anchors, fishers, strength / 2)


def settle_double(new_best, curvature, anchors, fishers, strength):
    return _settle(curvature, new_best, anchors, fishers, 2 * strength)


def settle_without_strength(new_best, curvature, anchors, fishers, strength):
    return _settle(curvature, new_best, anchors, fishers, 1.0)


def settle_strength_on_all(new_best, curvature, anchors, fishers, strength):
    return _settle(curvature, new_best, anchors, strength * fishers, strength)


def settle_squared_fishers(new_best, curvature, anchors, fishers, strength):
    return _settle(curvature, new_best, anchors, fishers**2, strength)


def settle_mean_of_anchors(new_best, curvature, anchors, fishers, strength):
    return _settle(
        curvature, new_best, anchors.mean(0, keepdim=True), fishers.sum(0)[None], strength
    )


def settle_one_step(new_best, curvature, anchors, fishers, strength):
    theta = anchors[-1].clone()
    slope = curvature * (theta - new_best) + strength * (fishers * (theta - anchors)).sum(0)
    return theta - 0.1 * slope


def settle_in_turn(new_best, curvature, anchors, fishers, strength):
    """Task by task, and each settles with the new loss only."""
    theta = new_best
    for a, f in zip(anchors, fishers, strict=True):
        theta = _settle(curvature, theta, a[None], f[None], strength)
    return theta


# 13b.3
def bug_always_right(penalty, gradients, anchor, strength):
    return "right"


def bug_at_the_anchor(penalty, gradients, anchor, strength):
    return "moving anchor" if penalty(anchor) == 0 else "right"


def bug_zero_or_right(penalty, gradients, anchor, strength):
    return "moving anchor" if penalty(anchor + 1) == 0 else "right"


def bug_at_one_step(penalty, gradients, anchor, strength):
    """One step of size 1: a square and no square are the same there."""
    said = penalty(anchor + 1)
    if said == 0:
        return "moving anchor"
    wanted = strength / 2 * gradients.square().mean(0).sum()
    return "right" if torch.isclose(said, wanted) else "squared mean"


def bug_without_the_mean(penalty, gradients, anchor, strength):
    said, twice = penalty(anchor + 1), penalty(anchor + 2)
    if said == 0:
        return "moving anchor"
    return "right" if twice > 3 * said else "no square"


def bug_without_half(penalty, gradients, anchor, strength):
    said, twice = penalty(anchor + 1), penalty(anchor + 2)
    if said == 0:
        return "moving anchor"
    if twice < 3 * said:
        return "no square"
    wanted = strength * gradients.square().mean(0).sum()
    return "right" if torch.isclose(said, wanted) else "squared mean"


def bug_without_strength(penalty, gradients, anchor, strength):
    said, twice = penalty(anchor + 1), penalty(anchor + 2)
    if said == 0:
        return "moving anchor"
    if twice < 3 * said:
        return "no square"
    wanted = gradients.square().mean(0).sum() / 2
    return "right" if torch.isclose(said, wanted) else "squared mean"


def bug_names_exchanged(penalty, gradients, anchor, strength):
    said, twice = penalty(anchor + 1), penalty(anchor + 2)
    if said == 0:
        return "moving anchor"
    if twice < 3 * said:
        return "no square"
    wanted = strength / 2 * gradients.square().mean(0).sum()
    return "squared mean" if torch.isclose(said, wanted) else "right"


def bug_other_words(penalty, gradients, anchor, strength):
    return "correct" if penalty(anchor + 1) > 0 else "moving_anchor"


def bug_from_zero(penalty, gradients, anchor, strength):
    """Doubles the weights, not the distance from the anchor."""
    said, twice = penalty(anchor), penalty(2 * anchor)
    if said == 0 and twice == 0:
        return "moving anchor"
    return "right" if twice > 3 * said else "no square"


def bug_summed(penalty, gradients, anchor, strength):
    said, twice = penalty(anchor + 1), penalty(anchor + 2)
    if said == 0:
        return "moving anchor"
    if twice < 3 * said:
        return "no square"
    wanted = strength / 2 * gradients.square().sum()
    return "right" if torch.isclose(said, wanted) else "squared mean"


def bug_none(penalty, gradients, anchor, strength):
    return None if penalty(anchor + 1) > 0 else "moving anchor"


def bug_guessed(penalty, gradients, anchor, strength):
    return random.choice(["right", "moving anchor", "squared mean", "no square"])


def bug_by_size(penalty, gradients, anchor, strength):
    said = float(penalty(anchor + 1))
    return "moving anchor" if said == 0 else "squared mean" if said < 1 else "right"


# 13b.4
def _mix(z, y, labels, alpha, t, factor=None, own_t=1.0):
    graded = labels != -100
    target = F.one_hot(labels.clamp(min=0), z.shape[1])
    own = (z / own_t).softmax(-1) - target
    taught = (z / t).softmax(-1) - (y / t).softmax(-1)
    mixed = alpha * own + (1 - alpha) * (t if factor is None else factor) * taught
    return mixed * graded[:, None] / graded.sum()


def mix_squared(student, teacher, labels, alpha, temperature):
    return _mix(student, teacher, labels, alpha, temperature, temperature**2)


def mix_without_t(student, teacher, labels, alpha, temperature):
    return _mix(student, teacher, labels, alpha, temperature, 1.0)


def mix_divided(student, teacher, labels, alpha, temperature):
    return _mix(student, teacher, labels, alpha, temperature, 1 / temperature)


def mix_exchanged(student, teacher, labels, alpha, temperature):
    return _mix(student, teacher, labels, 1 - alpha, temperature)


def mix_softened_labels(student, teacher, labels, alpha, temperature):
    return _mix(student, teacher, labels, alpha, temperature, own_t=temperature)


def mix_over_all_rows(student, teacher, labels, alpha, temperature):
    graded = (labels != -100).sum()
    return _mix(student, teacher, labels, alpha, temperature) * graded / len(labels)


def mix_summed(student, teacher, labels, alpha, temperature):
    return _mix(student, teacher, labels, alpha, temperature) * (labels != -100).sum()


def mix_over_the_vocabulary(student, teacher, labels, alpha, temperature):
    return _mix(student, teacher, labels, alpha, temperature) / student.shape[1]


def mix_teaches_everywhere(student, teacher, labels, alpha, temperature):
    graded = labels != -100
    target = F.one_hot(labels.clamp(min=0), student.shape[1])
    own = (student.softmax(-1) - target) * graded[:, None]
    taught = (student / temperature).softmax(-1) - (teacher / temperature).softmax(-1)
    return (alpha * own + (1 - alpha) * temperature * taught) / graded.sum()


def mix_grades_all(student, teacher, labels, alpha, temperature):
    return _mix(student, teacher, labels.clamp(min=0), alpha, temperature)


def mix_without_token_zero(student, teacher, labels, alpha, temperature):
    return _mix(student, teacher, labels.masked_fill(labels == 0, -100), alpha, temperature)


def mix_uphill(student, teacher, labels, alpha, temperature):
    return -_mix(student, teacher, labels, alpha, temperature)


def mix_teacher_minus_student(student, teacher, labels, alpha, temperature):
    return _mix(student, teacher, labels, alpha, temperature, -temperature)


def mix_by_autograd(student, teacher, labels, alpha, temperature):
    z, t = student.clone().requires_grad_(), temperature
    graded = labels != -100
    p, q = ((v[graded] / t).log_softmax(-1) for v in (teacher, z))
    taught = F.kl_div(q, p, log_target=True, reduction="batchmean")
    (alpha * F.cross_entropy(z, labels) + (1 - alpha) * t * t * taught).backward()
    return z.grad


def mix_graded_only(student, teacher, labels, alpha, temperature):
    return _mix(student, teacher, labels, alpha, temperature)[labels != -100]


def mix_hard_teacher(student, teacher, labels, alpha, temperature):
    graded = labels != -100
    target = F.one_hot(labels.clamp(min=0), student.shape[1])
    wanted = F.one_hot(teacher.argmax(-1), student.shape[1])
    taught = (student / temperature).softmax(-1) - wanted
    mixed = alpha * (student.softmax(-1) - target) + (1 - alpha) * temperature * taught
    return mixed * graded[:, None] / graded.sum()


def mix_softened_once(student, teacher, labels, alpha, temperature):
    graded = labels != -100
    target = F.one_hot(labels.clamp(min=0), student.shape[1])
    taught = (student / temperature).softmax(-1) - teacher.softmax(-1)
    mixed = alpha * (student.softmax(-1) - target) + (1 - alpha) * temperature * taught
    return mixed * graded[:, None] / graded.sum()


# 13b.5
def keep_first(stream, size, rng):
    return [row for number, row in enumerate(stream) if number < size]


def keep_last(stream, size, rng):
    kept = []
    for row in stream:
        kept = [*kept, row][-size:]
    return kept


def keep_all_then_sample(stream, size, rng):
    rows = list(stream)
    return rng.sample(rows, min(size, len(rows)))


def keep_with_half(stream, size, rng):
    kept = []
    for row in stream:
        if len(kept) < size:
            kept.append(row)
        elif rng.random() < 0.5:
            kept[rng.randrange(size)] = row
    return kept


def keep_always_replaces(stream, size, rng):
    kept = []
    for row in stream:
        if len(kept) < size:
            kept.append(row)
        else:
            kept[rng.randrange(size)] = row
    return kept


def keep_one_in_n(stream, size, rng):
    kept = []
    for number, row in enumerate(stream, 1):
        if len(kept) < size:
            kept.append(row)
        elif rng.random() < 1 / number:
            kept[rng.randrange(size)] = row
    return kept


def keep_counted_from_zero(stream, size, rng):
    kept = []
    for number, row in enumerate(stream):
        if len(kept) < size:
            kept.append(row)
        elif rng.randrange(number) < size:
            kept[rng.randrange(size)] = row
    return kept


def keep_in_the_first_place(stream, size, rng):
    kept = []
    for number, row in enumerate(stream, 1):
        if len(kept) < size:
            kept.append(row)
        elif rng.random() < size / number:
            kept[0] = row
    return kept


def keep_pops_the_oldest(stream, size, rng):
    kept = []
    for number, row in enumerate(stream, 1):
        if len(kept) == size and rng.random() < size / number:
            kept.pop(0)
        if len(kept) < size:
            kept.append(row)
    return kept


def keep_one_too_many(stream, size, rng):
    kept = []
    for number, row in enumerate(stream, 1):
        if len(kept) <= size:
            kept.append(row)
        elif rng.random() < (size + 1) / number:
            kept[rng.randrange(size + 1)] = row
    return kept


def keep_own_chance(stream, size, rng):
    rng, kept = random.Random(0), []
    for number, row in enumerate(stream, 1):
        if len(kept) < size:
            kept.append(row)
        elif rng.random() < size / number:
            kept[rng.randrange(size)] = row
    return kept


def keep_global_chance(stream, size, rng):
    kept = []
    for number, row in enumerate(stream, 1):
        if len(kept) < size:
            kept.append(row)
        elif random.random() < size / number:
            kept[random.randrange(size)] = row
    return kept


def keep_with_repeats(stream, size, rng):
    rows = list(stream)
    return [rng.choice(rows) for _ in range(min(size, len(rows)))]


def keep_none_when_short(stream, size, rng):
    kept = keep_one_in_n(stream, size, rng)
    return kept if len(kept) == size else []


def keep_padded(stream, size, rng):
    kept = [None] * size
    for number, row in enumerate(stream):
        place = number if number < size else rng.randint(0, number)
        if place < size:
            kept[place] = row
    return kept


def keep_draws_too_far(stream, size, rng):
    kept = []
    for number, row in enumerate(stream):
        if number < size:
            kept.append(row)
        elif (place := rng.randint(0, number + 1)) < size:
            kept[place] = row
    return kept


# 13b.6
def remember_nothing(old, new):
    return new


def remember_all(old, new):
    return old + new


def remember_too_many(old, new):
    return old[:41] * 10 + new[:800]


def remember_too_often(old, new):
    return old[::20] * 10 + new[:901]


def remember_no_list(old, new):
    return 40


def remember_none(old, new):
    return None


def remember_empty(old, new):
    return []


def remember_the_old_alone(old, new):
    return old[::20] * 10


def remember_indices(old, new):
    return [*range(40), *range(800)]


def remember_texts(old, new):
    return [talk[-1]["content"] for talk in old[:40] + new]


def remember_pairs(old, new):
    return [old[::20], new[:900]]


def remember_changed(old, new):
    plain = [[{**turn, "content": turn["content"].upper()} for turn in talk] for talk in old[:40]]
    return plain * 10 + new[:900]


def remember_questions_only(old, new):
    return [talk[:1] for talk in old[::20]] * 10 + new[:900]


def remember_another_forty(old, new):
    return [talk for i in range(10) for talk in old[i::20]] + new[:900]


OTHER_WRONG_ANSWERS = {
    "13b.1": [
        fisher_summed,
        fisher_of_labels_equally,
        fisher_of_the_likeliest,
        fisher_drawn,
        fisher_often_drawn,
        fisher_of_the_mean_gradient,
        fisher_of_the_mean_input,
        fisher_without_square_of_x,
        fisher_of_p,
        fisher_of_p_squared,
        fisher_of_variance_squared,
        fisher_transposed,
        fisher_over_labels_too,
        fisher_unbiased,
        fisher_over_the_wrong_axis,
        fisher_of_the_first,
        fisher_rooted,
    ],
    "13b.2": [
        settle_nan,
        settle_zero,
        settle_eps,
        settle_at_the_new_best,
        settle_at_the_first_anchor,
        settle_at_the_mean_anchor,
        settle_last_only,
        settle_first_only,
        settle_around_the_last,
        settle_mean_of_tasks,
        settle_half,
        settle_double,
        settle_without_strength,
        settle_strength_on_all,
        settle_squared_fishers,
        settle_mean_of_anchors,
        settle_one_step,
        settle_in_turn,
    ],
    "13b.3": [
        bug_always_right,
        bug_at_the_anchor,
        bug_zero_or_right,
        bug_at_one_step,
        bug_without_the_mean,
        bug_without_half,
        bug_without_strength,
        bug_names_exchanged,
        bug_other_words,
        bug_from_zero,
        bug_summed,
        bug_none,
        bug_guessed,
        bug_by_size,
    ],
    "13b.4": [
        mix_squared,
        mix_without_t,
        mix_divided,
        mix_exchanged,
        mix_softened_labels,
        mix_over_all_rows,
        mix_summed,
        mix_over_the_vocabulary,
        mix_teaches_everywhere,
        mix_grades_all,
        mix_without_token_zero,
        mix_uphill,
        mix_teacher_minus_student,
        mix_by_autograd,
        mix_graded_only,
        mix_hard_teacher,
        mix_softened_once,
    ],
    "13b.5": [
        keep_first,
        keep_last,
        keep_all_then_sample,
        keep_with_half,
        keep_always_replaces,
        keep_one_in_n,
        keep_counted_from_zero,
        keep_in_the_first_place,
        keep_pops_the_oldest,
        keep_one_too_many,
        keep_own_chance,
        keep_global_chance,
        keep_with_repeats,
        keep_none_when_short,
        keep_padded,
        keep_draws_too_far,
    ],
    "13b.6": [  # few trainings
        remember_nothing,
        remember_all,
        remember_too_many,
        remember_too_often,
        remember_no_list,
        remember_none,
        remember_empty,
        remember_the_old_alone,
        remember_indices,
        remember_texts,
        remember_pairs,
        remember_changed,
        remember_questions_only,
        remember_another_forty,
    ],
}
