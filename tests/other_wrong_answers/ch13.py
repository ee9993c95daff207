"""Wrong answers to the exercises of chapter 13: plausible mistakes of learners."""

import numpy as np
import torch
import torch.nn.functional as F


# 13.1
def lost_without_none(base, after, final):
    return (after - final) / max(after - base, 1e-9)


def lost_nan(base, after, final):
    return (after - final) / (after - base) if after > base else float("nan")


def lost_zero(base, after, final):
    return (after - final) / (after - base) if after > base else 0.0


def lost_only_when_equal(base, after, final):
    return None if after == base else (after - final) / (after - base)


def lost_of_the_score(base, after, final):
    return (after - final) / after if after > base else None


def lost_of_the_room(base, after, final):
    return (after - final) / (1 - base) if after > base else None


def lost_cut_below(base, after, final):
    return max((after - final) / (after - base), 0.0) if after > base else None


def lost_cut_above(base, after, final):
    return min((after - final) / (after - base), 1.0) if after > base else None


def lost_in_percent(base, after, final):
    return 100 * (after - final) / (after - base) if after > base else None


def lost_rounded(base, after, final):
    return round((after - final) / (after - base), 1) if after > base else None


def lost_none_for_a_gain(base, after, final):
    return (after - final) / (after - base) if after > base and final <= after else None


def lost_none_from_zero(base, after, final):
    return (after - final) / (after - base) if base and after > base else None


def lost_as_text(base, after, final):
    return f"{(after - final) / (after - base):.0%}" if after > base else None


def lost_magnitude(base, after, final):
    return abs(after - final) / (after - base) if after > base else None


# 13.2
def _dense(parts, others):
    pairs = [(p, o) for p, o in zip(parts, others, strict=True) if p is not None or o is not None]
    flat = [(torch.zeros_like(o) if p is None else p).flatten() for p, o in pairs]
    return torch.cat(flat) if flat else torch.zeros(1)


def conflict_skips_pairs(old, new):
    pairs = [(a, b) for a, b in zip(old, new, strict=True) if a is not None and b is not None]
    if not pairs:
        return 0.0
    a, b = (torch.cat([p[i].flatten() for p in pairs]) for i in (0, 1))
    return F.cosine_similarity(a, b, dim=0).item()


def conflict_skips_each(old, new):
    a, b = (
        torch.cat([p.flatten() for p in g if p is not None] or [torch.zeros(1)]) for g in (old, new)
    )
    n = min(len(a), len(b))
    size = (a.norm() * b.norm()).item()
    return (a[:n] @ b[:n]).item() / size if size else 0.0


def conflict_nan(old, new):
    a, b = _dense(old, new).double(), _dense(new, old).double()
    return ((a @ b) / (a.norm() * b.norm())).item()


def conflict_dot(old, new):
    return (_dense(old, new) @ _dense(new, old)).item()


def conflict_mean_of_parts(old, new):
    parts = [
        0.0 if a is None or b is None else F.cosine_similarity(a.flatten(), b.flatten(), 0).item()
        for a, b in zip(old, new, strict=True)
    ]
    return sum(parts) / len(parts)


def conflict_last_axis(old, new):
    parts = [
        F.cosine_similarity(a, b, dim=-1).mean().item()
        for a, b in zip(old, new, strict=True)
        if a is not None and b is not None
    ]
    return sum(parts) / len(parts) if parts else 0.0


def conflict_one_length(old, new):
    a, b = _dense(old, new), _dense(new, old)
    return (a @ b / (a @ a)).item() if a.any() else 0.0


def conflict_angle(old, new):
    return F.cosine_similarity(_dense(old, new), _dense(new, old), dim=0).clamp(-1, 1).acos().item()


def conflict_is_positive(old, new):
    return bool(_dense(old, new) @ _dense(new, old) < 0)


def conflict_sum_of_norms(old, new):
    def length(parts):
        return sum(p.norm().item() for p in parts if p is not None)

    size = length(old) * length(new)
    return (_dense(old, new) @ _dense(new, old)).item() / size if size else 0.0


def conflict_centred(old, new):
    a, b = _dense(old, new), _dense(new, old)
    return F.cosine_similarity(a - a.mean(), b - b.mean(), dim=0).item()


def conflict_one_when_zero(old, new):
    a, b = _dense(old, new), _dense(new, old)
    return F.cosine_similarity(a, b, dim=0).item() if a.any() and b.any() else 1.0


def conflict_of_the_first(old, new):
    a, b = old[0], new[0]
    return (
        0.0 if a is None or b is None else F.cosine_similarity(a.flatten(), b.flatten(), 0).item()
    )


def conflict_none_is_ones(old, new):
    first = [
        torch.ones_like(b) if a is None and b is not None else a
        for a, b in zip(old, new, strict=True)
    ]
    second = [
        torch.ones_like(a) if b is None and a is not None else b
        for a, b in zip(old, new, strict=True)
    ]
    return F.cosine_similarity(_dense(first, second), _dense(second, first), dim=0).item()


def conflict_in_place(old, new):
    for i, (a, b) in enumerate(zip(old, new, strict=True)):
        if a is None and b is not None:
            old[i] = torch.zeros_like(b)
        if b is None and a is not None:
            new[i] = torch.zeros_like(a)
    return F.cosine_similarity(_dense(old, new), _dense(new, old), dim=0).item()


# 13.4
def _logs(before, tuned, labels):
    graded = labels[:, 1:] != -100
    return before[:, :-1][graded].log_softmax(-1), tuned[:, :-1][graded].log_softmax(-1)


def kl_reversed(before, tuned, labels):
    p, q = _logs(before, tuned, labels)
    return F.kl_div(p, q, log_target=True, reduction="batchmean").item()


def kl_without_shift(before, tuned, labels):
    graded = labels != -100
    p, q = before[graded].log_softmax(-1), tuned[graded].log_softmax(-1)
    return F.kl_div(q, p, log_target=True, reduction="batchmean").item()


def kl_shifted_back(before, tuned, labels):
    graded = labels[:, :-1] != -100
    p, q = before[:, 1:][graded].log_softmax(-1), tuned[:, 1:][graded].log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean().item()


def kl_mean_reduction(before, tuned, labels):
    p, q = _logs(before, tuned, labels)
    return F.kl_div(q, p, log_target=True, reduction="mean").item()


def kl_sum(before, tuned, labels):
    p, q = _logs(before, tuned, labels)
    return F.kl_div(q, p, log_target=True, reduction="sum").item()


def kl_over_all_places(before, tuned, labels):
    p, q = _logs(before, tuned, labels)
    return ((p.exp() * (p - q)).sum() / labels[:, 1:].numel()).item()


def kl_over_sequences(before, tuned, labels):
    p, q = _logs(before, tuned, labels)
    return ((p.exp() * (p - q)).sum() / len(labels)).item()


def kl_count_unshifted(before, tuned, labels):
    p, q = _logs(before, tuned, labels)
    return ((p.exp() * (p - q)).sum() / (labels != -100).sum()).item()


def kl_of_logits(before, tuned, labels):
    graded = labels[:, 1:] != -100
    p, q = before[:, :-1][graded], tuned[:, :-1][graded]
    return (p.softmax(-1) * (p - q)).sum(-1).mean().item()


def kl_in_bits(before, tuned, labels):
    p, q = _logs(before, tuned, labels)
    return (p.exp() * (p - q)).sum(-1).mean().item() / float(np.log(2))


def kl_unpadded_zero(before, tuned, labels):
    graded = labels[:, 1:] > 0  # token id 0 is left out
    p, q = before[:, :-1][graded].log_softmax(-1), tuned[:, :-1][graded].log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean().item()


def kl_at_labels(before, tuned, labels):
    p, q = _logs(before, tuned, labels)
    wanted = labels[:, 1:][labels[:, 1:] != -100][:, None]
    return (p - q).gather(1, wanted).mean().item()


def kl_cross_entropy(before, tuned, labels):
    p, q = _logs(before, tuned, labels)
    return -(p.exp() * q).sum(-1).mean().item()


def kl_absolute(before, tuned, labels):
    p, q = _logs(before, tuned, labels)
    return (p.exp() * (p - q).abs()).sum(-1).mean().item()


def kl_tensor_of_tokens(before, tuned, labels):
    p, q = _logs(before, tuned, labels)
    return (p.exp() * (p - q)).sum(-1)


def kl_wrong_axis(before, tuned, labels):
    graded = labels[:, 1:] != -100
    p, q = (z.log_softmax(1)[:, :-1][graded] for z in (before, tuned))
    return (p.exp() * (p - q)).sum(-1).mean().item()


def kl_mean_of_rows(before, tuned, labels):
    p, q = before[:, :-1].log_softmax(-1), tuned[:, :-1].log_softmax(-1)
    each, graded = (p.exp() * (p - q)).sum(-1), labels[:, 1:] != -100
    return ((each * graded).sum(1) / graded.sum(1).clamp(min=1)).mean().item()


# 13.5
def _pearson(x, y):
    return float(np.corrcoef(x, y)[0, 1])


def _places(values):
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") + 1.0


def _mean_ranks(values):
    v = np.asarray(values, dtype=float)
    return (v[:, None] > v).sum(1) + ((v[:, None] == v).sum(1) + 1) / 2


def spearman_of_values(x, y):
    return _pearson(x, y)


def spearman_by_argsort(x, y):
    return _pearson(_places(x), _places(y))


def spearman_by_one_argsort(x, y):
    return _pearson(np.argsort(x), np.argsort(y))


def spearman_ranks_of_x(x, y):
    return _pearson(_mean_ranks(x), y)


def spearman_by_index(x, y):
    return _pearson([sorted(x).index(v) for v in x], [sorted(y).index(v) for v in y])


def spearman_dense(x, y):
    return _pearson(*(np.unique(v, return_inverse=True)[1] for v in (x, y)))


def spearman_by_differences(x, y):
    d, n = _mean_ranks(x) - _mean_ranks(y), len(x)
    return float(1 - 6 * (d**2).sum() / (n * (n**2 - 1)))


def spearman_by_differences_of_places(x, y):
    d, n = _places(x) - _places(y), len(x)
    return float(1 - 6 * (d**2).sum() / (n * (n**2 - 1)))


def spearman_reversed(x, y):
    return -_pearson(_mean_ranks(x), _mean_ranks(y))


def spearman_squared(x, y):
    return _pearson(_mean_ranks(x), _mean_ranks(y)) ** 2


def spearman_half_the_divisor(x, y):
    a, b = _mean_ranks(x), _mean_ranks(y)
    return float(np.cov(a, b)[0, 1] / (a.std() * b.std()))


def spearman_without_mean(x, y):
    a, b = _mean_ranks(x), _mean_ranks(y)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def spearman_covariance(x, y):
    return float(np.cov(_mean_ranks(x), _mean_ranks(y))[0, 1])


def spearman_one_side_shared(x, y):
    return _pearson(_places(x), _mean_ranks(y))


def spearman_matrix(x, y):
    return np.corrcoef(_mean_ranks(x), _mean_ranks(y))


def spearman_sorting(x, y):
    x.sort()
    return _pearson(_mean_ranks(x), _mean_ranks(y))


def spearman_kendall(x, y):
    pairs = [(i, j) for i in range(len(x)) for j in range(i)]
    return float(np.mean([np.sign((x[i] - x[j]) * (y[i] - y[j])) for i, j in pairs]))


_REPAIR = {"old": 24, "new": 76, "rate": 1e-3, "epochs": 20}

OTHER_WRONG_ANSWERS = {
    "13.1": [
        lost_without_none,
        lost_nan,
        lost_zero,
        lost_only_when_equal,
        lost_of_the_score,
        lost_of_the_room,
        lost_cut_below,
        lost_cut_above,
        lost_in_percent,
        lost_rounded,
        lost_none_for_a_gain,
        lost_none_from_zero,
        lost_as_text,
        lost_magnitude,
    ],
    "13.2": [
        conflict_skips_pairs,
        conflict_skips_each,
        conflict_nan,
        conflict_dot,
        conflict_mean_of_parts,
        conflict_last_axis,
        conflict_one_length,
        conflict_angle,
        conflict_is_positive,
        conflict_sum_of_norms,
        conflict_centred,
        conflict_one_when_zero,
        conflict_of_the_first,
        conflict_none_is_ones,
        conflict_in_place,
    ],
    "13.3": [
        _REPAIR | {"old": 25},
        _REPAIR | {"old": 0},
        _REPAIR | {"epochs": 21},  # 2,100 lessons
        _REPAIR | {"epochs": 20.0},
        _REPAIR | {"rate": 0.0},
        _REPAIR | {"rate": 0.2},
        _REPAIR | {"new": 201, "epochs": 1},
        _REPAIR | {"old": 1, "new": 0, "epochs": 41},
        _REPAIR | {"rate": "1e-3"},
        _REPAIR | {"new": True},
        {"old": 24, "new": 76, "rate": 1e-3},
        _REPAIR | {"seed": 1},
        list(_REPAIR.values()),
        _REPAIR | {"new": -1},
        _REPAIR | {"rate": float("nan")},
        _REPAIR | {"epochs": 0},
        {"old": 1, "new": 0, "rate": 1e-6, "epochs": 1},
    ],
    "13.4": [
        kl_reversed,
        kl_without_shift,
        kl_shifted_back,
        kl_mean_reduction,
        kl_sum,
        kl_over_all_places,
        kl_over_sequences,
        kl_count_unshifted,
        kl_of_logits,
        kl_in_bits,
        kl_unpadded_zero,
        kl_at_labels,
        kl_cross_entropy,
        kl_absolute,
        kl_tensor_of_tokens,
        kl_wrong_axis,
        kl_mean_of_rows,
    ],
    "13.5": [
        spearman_of_values,
        spearman_by_argsort,
        spearman_by_one_argsort,
        spearman_ranks_of_x,
        spearman_by_index,
        spearman_dense,
        spearman_by_differences,
        spearman_by_differences_of_places,
        spearman_reversed,
        spearman_squared,
        spearman_half_the_divisor,
        spearman_without_mean,
        spearman_covariance,
        spearman_one_side_shared,
        spearman_matrix,
        spearman_sorting,
        spearman_kendall,
    ],
}
