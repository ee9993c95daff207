"""Right answers to the exercises of chapter 18b, each in another style; written from the statements
alone."""

import itertools
import math
import os
from collections import defaultdict

import numpy as np
import torch

from sft_lab import diagnostics
from sft_lab.rendering import stop_token_id
from sft_lab.train import evaluate


# 18b.1
def _by_edges(labels):
    graded = [label != -100 for label in labels]
    before, behind = [False, *graded], [*graded, False]
    starts = [t for t, (a, b) in enumerate(zip(before, behind, strict=True)) if b and not a]
    ends = [t for t, (a, b) in enumerate(zip(before, behind, strict=True)) if a and not b]
    return list(zip(starts, ends, strict=True))


def _grouped(labels):
    runs, at = [], 0
    for graded, group in itertools.groupby(labels, key=lambda label: label != -100):
        length = len(list(group))
        if graded:
            runs.append((at, at + length))
        at += length
    return runs


def _numpy_edges(labels):
    graded = np.concatenate(([0], np.array(labels, dtype=np.int64) != -100, [0]))
    edges = np.flatnonzero(np.diff(graded))
    return [tuple(pair) for pair in edges.reshape(-1, 2).tolist()]


def _one_state(labels):
    runs, start = [], None
    for t in range(len(labels)):
        if labels[t] != -100:
            if start is None:
                start = t
        elif start is not None:
            runs.append((start, t))
            start = None
    if start is not None:
        runs.append((start, len(labels)))
    return runs


def _while_loops(labels):
    runs, t = [], 0
    while t < len(labels):
        end = t
        while end < len(labels) and labels[end] != -100:
            end += 1
        if end > t:
            runs.append((t, end))
        t = end + 1
    return runs


def _grown(labels):
    runs = []
    for t, label in enumerate(labels):
        if label == -100:
            continue
        if runs and runs[-1][1] == t:
            runs[-1] = (runs[-1][0], t + 1)
        else:
            runs.append((t, t + 1))
    return runs


# 18b.2
def _answers(turns):
    return [k for k, turn in enumerate(turns) if turn["role"] == "assistant"]


def _changed_any(conversations, render):
    return [
        i
        for i, turns in enumerate(conversations)
        if any(
            not render(turns, asking=False).startswith(render(turns[:k], asking=True))
            for k in _answers(turns)
        )
    ]


def _changed_loops(conversations, render):
    found = []
    for number in range(len(conversations)):
        turns = conversations[number]
        whole = render(turns, False)
        for k in range(len(turns)):
            if turns[k]["role"] == "assistant":
                prompt = render(turns[:k], True)
                if whole[: len(prompt)] != prompt:
                    found.append(number)
                    break
    return found


def _changed_by_common_prefix(conversations, render):
    bad = set()
    for number, turns in enumerate(conversations):
        for k in _answers(turns):
            prompt = render(turns[:k], asking=True)
            if os.path.commonprefix([prompt, render(turns, asking=False)]) != prompt:
                bad.add(number)
    return sorted(bad)


def _changed_with_history(conversations, render):
    bad = {}
    for number, turns in enumerate(conversations):
        history = []
        for turn in turns:
            if turn["role"] == "assistant" and not render(turns, False).startswith(
                render(list(history), True)
            ):
                bad[number] = True
            history.append(turn)
    return list(bad)


def _changed_unless_all(conversations, render):
    """`all` in the place of `any`, and `+=`."""
    found = []
    for number, turns in enumerate(conversations):
        prompts = [render(turns[:k], asking=True) for k in _answers(turns)]
        if prompts and not all(map(render(turns, asking=False).startswith, prompts)):
            found += [number]
    return found


# 18b.3
def _difference_flat(gradient_of, rows):
    whole = torch.cat([g.flatten() for g in gradient_of([rows])])
    parts = torch.cat([g.flatten() for g in gradient_of([[row] for row in rows])])
    return ((parts - whole).norm() / whole.norm()).item()


def _difference_of_clones(gradient_of, rows):
    whole = [g.clone() for g in gradient_of([list(rows)])]
    parts = [g.clone() for g in gradient_of([[row] for row in rows])]
    above = sum(((p - w) ** 2).sum().item() for p, w in zip(parts, whole, strict=True))
    below = sum((w**2).sum().item() for w in whole)
    return math.sqrt(above / below)


def _difference_in_numpy(gradient_of, rows):
    parts = [np.array(g.detach().tolist()) for g in gradient_of([[row] for row in rows])]
    whole = [np.array(g.detach().tolist()) for g in gradient_of([rows])]
    parts, whole = (np.concatenate([g.ravel() for g in some]) for some in (parts, whole))
    return float(np.linalg.norm(parts - whole) / np.linalg.norm(whole))


def _difference_of_norms_of_norms(gradient_of, rows):
    whole = [g.detach().double().clone() for g in gradient_of([rows])]
    parts = gradient_of([[row] for row in rows])
    above = torch.stack([(p - w).norm() for p, w in zip(parts, whole, strict=True)]).norm()
    return float(above / torch.stack([w.norm() for w in whole]).norm())


def _difference_of_numbers(gradient_of, rows):
    whole, parts = [], []
    for kept, batches in ((parts, [[row] for row in rows]), (whole, [rows[:]])):
        for gradient in gradient_of(batches):
            kept.extend(gradient.reshape(-1).tolist())
    return math.dist(parts, whole) / math.hypot(*whole)


# 18b.4
def _accuracy_lists(best, labels):
    places, stops = [], []
    for guesses, row in zip(best.tolist(), labels.tolist(), strict=True):
        graded = [t for t, label in enumerate(row) if label != -100]
        hits = [guesses[t - 1] == row[t] for t in graded]
        stops.append(hits.pop())
        for k, hit in enumerate(hits):
            if k == len(places):
                places.append([])
            places[k].append(hit)
    return [sum(hits) / len(hits) for hits in [*places, stops]]


def _accuracy_by_cumsum(best, labels):
    labels, best = labels[:, 1:], best[:, :-1]
    graded = labels != -100
    right = (best == labels) & graded
    place = graded.cumsum(1) - 1
    length = graded.sum(1, keepdim=True)
    stop = graded & (place == length - 1)
    shares = []
    for k in range(int(length.max()) - 1):
        here = graded & (place == k) & ~stop
        shares.append((right & here).sum().item() / here.sum().item())
    return [*shares, right[stop].float().mean().item()]


def _accuracy_with_bincount(best, labels):
    wanted, guessed = labels.numpy()[:, 1:], best.numpy()[:, :-1]
    row, t = np.nonzero(wanted != -100)
    first = np.r_[True, row[1:] != row[:-1]]
    last = np.r_[row[1:] != row[:-1], True]
    place = np.arange(len(row)) - np.maximum.accumulate(np.where(first, np.arange(len(row)), 0))
    hit = (wanted == guessed)[row, t]
    shares = np.bincount(place[~last], hit[~last]) / np.bincount(place[~last])
    return [*shares.tolist(), float(hit[last].mean())]


def _accuracy_in_dicts(best, labels):
    seen, right = defaultdict(int), defaultdict(int)
    for b in range(labels.shape[0]):
        k = 0
        for t in range(1, labels.shape[1]):
            if labels[b, t] == -100:
                continue
            final = t == labels.shape[1] - 1 or labels[b, t + 1] == -100
            key = "stop" if final else k
            seen[key] += 1
            right[key] += int(best[b, t - 1] == labels[b, t])
            k += 1
    order = [*sorted(key for key in seen if key != "stop"), "stop"]
    return [right[key] / seen[key] for key in order]


def _accuracy_padded(best, labels):
    """The hits as a matrix, an answer a row, padded by not-a-number."""
    rows, stops = [], []
    for b in range(len(labels)):
        at = (labels[b] != -100).nonzero().flatten()
        hits = (best[b, at - 1] == labels[b, at]).double()
        rows.append(hits[:-1])
        stops.append(hits[-1])
    matrix = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=float("nan"))
    return [*matrix.nanmean(0).tolist(), torch.stack(stops).mean().item()]


# 18b.5
def _apart(healthy, broken, n):
    return min(healthy[n]) > max(broken[n])


def _fewest_from_above(healthy, broken):
    found = None
    for n in sorted(healthy, reverse=True):
        if not _apart(healthy, broken, n):
            break
        found = n
    return found


def _fewest_by_all(healthy, broken):
    for n in sorted(healthy):
        if all(_apart(healthy, broken, m) for m in broken if m >= n):
            return n
    return None


def _fewest_takewhile(healthy, broken):
    numbers = sorted(healthy)[::-1]
    good = list(itertools.takewhile(lambda n: _apart(healthy, broken, n), numbers))
    return good[-1] if good else None


def _fewest_behind_the_last_failure(healthy, broken):
    bad = [n for n in healthy if any(good <= other for good in healthy[n] for other in broken[n])]
    behind = [n for n in healthy if not bad or n > max(bad)]
    return min(behind, default=None)


def _fewest_in_numpy(healthy, broken):
    numbers = np.sort(list(healthy))
    apart = np.array([np.min(healthy[n]) > np.max(broken[n]) for n in numbers.tolist()])
    kept = np.logical_and.accumulate(apart[::-1])[::-1]
    return int(numbers[kept.argmax()]) if kept.any() else None


def _fewest_by_recursion(healthy, broken):
    if not healthy:
        return None
    most = max(healthy)
    if not _apart(healthy, broken, most):
        return None
    rest = _fewest_by_recursion({n: v for n, v in healthy.items() if n < most}, broken)
    return most if rest is None else rest


# 18b.6
def _named_by_probes(model, base, tokenizer, examples):
    if diagnostics.logit_difference(model, base) < 1e-3:
        return "unchanged"
    shifted = diagnostics.shifted_accuracy(model, examples)
    if shifted[2] > shifted[1]:
        return "two ahead"
    if diagnostics.stop_probability(model, tokenizer, examples) < 0.1:
        return "no stop"
    if diagnostics.accuracy_by_position(model, examples)[0] < 0.5:
        return "late start"
    return "healthy"


def _named_by_comparison(model, base, tokenizer, examples):
    """All with the base: what the model does no better."""
    accuracy, before = (diagnostics.accuracy_by_position(m, examples) for m in (model, base))
    shifted, then = (diagnostics.shifted_accuracy(m, examples) for m in (model, base))
    if accuracy == before and shifted == then:
        return "unchanged"
    if shifted[2] - then[2] > 0.3:
        return "two ahead"
    stop = diagnostics.stop_probability(model, tokenizer, examples)
    if stop > 0.5:
        return "healthy" if accuracy[0] > 0.5 else "late start"
    return "no stop"


def _named_by_scores(model, base, tokenizer, examples):
    """By hand, from the logits of the rows."""
    stop = stop_token_id(tokenizer)
    moved, ahead, next_, stops, firsts = 0.0, [], [], [], []
    with torch.no_grad():
        for example in examples:
            ids = torch.tensor([example.input_ids])
            mine, old = model(ids).logits[0], base(ids).logits[0]
            moved = max(moved, (mine - old).abs().max().item())
            at = [t for t, label in enumerate(example.labels) if label != -100]
            best = mine.argmax(-1).tolist()
            next_ += [best[t - 1] == example.labels[t] for t in at]
            ahead += [best[t - 2] == example.labels[t] for t in at]
            stops.append(mine[at[-1] - 1].softmax(-1)[stop].item())
            firsts.append(best[at[0] - 1] == example.labels[at[0]])
    if moved < 1e-4:
        return "unchanged"
    if sum(ahead) > sum(next_):
        return "two ahead"
    if np.mean(stops) < 0.3:
        return "no stop"
    return "late start" if np.mean(firsts) < 0.3 else "healthy"


def _named_from_a_table(model, base, tokenizer, examples):
    """Healthy first; the others by what is off."""
    accuracy = diagnostics.accuracy_by_position(model, examples)
    stops = diagnostics.stop_probability(model, tokenizer, examples) > 0.5
    starts = accuracy[0] > 0.5
    if starts and stops:
        return "healthy"
    losses = [evaluate(m, tokenizer, examples)["loss"] for m in (model, base)]
    if abs(losses[0] - losses[1]) < 1e-4:
        return "unchanged"
    one, two = diagnostics.shifted_accuracy(model, examples).values()
    if two > one:
        return "two ahead"
    return "late start" if stops else "no stop"


def _named_with_match(model, base, tokenizer, examples):
    one, two = diagnostics.shifted_accuracy(model, examples).values()
    first, *_, last = diagnostics.accuracy_by_position(model, examples)
    same = diagnostics.logit_difference(base, model) == 0
    match same, two > one, last > 0.5, first > 0.5:
        case True, _, _, _:
            return "unchanged"
        case _, True, _, _:
            return "two ahead"
        case _, _, False, _:
            return "no stop"
        case _, _, _, False:
            return "late start"
    return "healthy"


RIGHT_ANSWERS = {
    "18b.1": [
        _one_state,
        _by_edges,
        _grouped,
        _numpy_edges,
        _while_loops,
        _grown,
        lambda labels: [
            (a, b)
            for a in range(len(labels))
            for b in range(a + 1, len(labels) + 1)
            if -100 not in labels[a:b]
            and (a == 0 or labels[a - 1] == -100)
            and (b == len(labels) or labels[b] == -100)
        ],
    ],
    "18b.2": [
        _changed_loops,
        _changed_any,
        _changed_by_common_prefix,
        _changed_with_history,
        _changed_unless_all,
    ],
    "18b.3": [
        _difference_flat,
        _difference_of_clones,
        _difference_in_numpy,
        _difference_of_norms_of_norms,
        _difference_of_numbers,
    ],
    "18b.4": [
        _accuracy_lists,
        _accuracy_by_cumsum,
        _accuracy_with_bincount,
        _accuracy_in_dicts,
        _accuracy_padded,
    ],
    "18b.5": [
        _fewest_from_above,
        _fewest_by_all,
        _fewest_takewhile,
        _fewest_behind_the_last_failure,
        _fewest_in_numpy,
        _fewest_by_recursion,
    ],
    "18b.6": [
        _named_by_probes,
        _named_by_comparison,
        _named_by_scores,
        _named_from_a_table,
        _named_with_match,
    ],
}
