"""Right answers to the exercises of chapter 17b, each in another style; written from the
statements alone."""

import bisect
import re
import statistics
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import groupby, takewhile

import numpy as np
import torch
import torch.nn.functional as F


# 17b.1
def _by_index(accuracy, old_loss, level):
    for i in range(len(accuracy)):
        if accuracy[i] >= level:
            if i == 0:
                return 0.0
            rise = accuracy[i] - accuracy[i - 1]
            part = (level - accuracy[i - 1]) / rise
            return (1 - part) * old_loss[i - 1] + part * old_loss[i] - old_loss[0]
    return None


def _numpy_argmax(accuracy, old_loss, level):
    accuracy, old_loss = np.array(accuracy), np.array(old_loss)
    reached = accuracy >= level
    if not reached.any():
        return None
    i = int(reached.argmax())
    if i == 0:
        return 0.0
    return float(np.interp(level, accuracy[i - 1 : i + 1], old_loss[i - 1 : i + 1]) - old_loss[0])


def _recursive(accuracy, old_loss, level):
    def walk(acc, loss):
        if acc[0] >= level:
            return loss[0]
        if len(acc) == 1:
            return None
        if acc[1] < level:
            return walk(acc[1:], loss[1:])
        return loss[0] + (loss[1] - loss[0]) / (acc[1] - acc[0]) * (level - acc[0])

    there = walk(list(accuracy), list(old_loss))
    return None if there is None else there - old_loss[0]


def _running_best(accuracy, old_loss, level):
    best = list(np.maximum.accumulate(accuracy))
    i = bisect.bisect_left(best, level)
    if i == len(best):
        return None
    if i == 0:
        return 0.0
    a, b = accuracy[i - 1], accuracy[i]
    there = (old_loss[i - 1] * (b - level) + old_loss[i] * (level - a)) / (b - a)
    return there - old_loss[0]


def _in_fractions(accuracy, old_loss, level):
    level = Fraction(level)
    points = [(Fraction(a), Fraction(b)) for a, b in zip(accuracy, old_loss, strict=True)]
    first = next((i for i, (a, _) in enumerate(points) if a >= level), None)
    if first is None:
        return None
    if first == 0:
        return 0.0
    (a, low), (b, high) = points[first - 1], points[first]
    return float(low + (level - a) / (b - a) * (high - low) - points[0][1])


def _torch_lerp(accuracy, old_loss, level):
    acc = torch.tensor(accuracy, dtype=torch.float64)
    loss = torch.tensor(old_loss, dtype=torch.float64)
    where = (acc >= level).nonzero().flatten()
    if len(where) == 0:
        return None
    i = where[0].item()
    if i == 0:
        return 0
    weight = (level - acc[i - 1]) / (acc[i] - acc[i - 1])
    return (torch.lerp(loss[i - 1], loss[i], weight) - loss[0]).item()


# 17b.2
def _findall(question, text, stopped):
    a, b = map(int, re.findall("[0-9]+", question))
    numbers = [int(n) for n in re.findall("[0-9]+", text)]
    if not stopped or not numbers or numbers[-1] != a + b:
        return 0.0
    if not re.search(r"[0-9][ .]*$", text):
        return 0.0
    named = [a, b]
    for number in numbers[:-1]:
        if number not in named:
            return 0.0
        named.remove(number)
    return 1.0


def _counters(question, text, stopped):
    asked = Counter(re.findall("[0-9]+", question))
    total = str(sum(int(n) * times for n, times in asked.items()))
    *before, last = re.findall("[0-9]+", text) or [""]
    bare = text.rstrip(" .")
    return float(stopped and last == total and bare.endswith(last) and Counter(before) <= asked)


def _character_by_character(question, text, stopped):
    def numbers(string):
        found, run = [], ""
        for character in string + " ":
            if character in "0123456789":
                run += character
            elif run:
                found.append(run)
                run = ""
        return found

    if not stopped:
        return 0.0
    asked, said = numbers(question), numbers(text)
    if not said or int(said[-1]) != int(asked[0]) + int(asked[1]):
        return 0.0
    if text[text.rindex(said[-1]) + len(said[-1]) :].strip(". ") != "":
        return 0.0
    return 1.0 if all(said[:-1].count(n) <= asked.count(n) for n in said[:-1]) else 0.0


def _one_pattern(question, text, stopped):
    match = re.fullmatch(r"(.*?)([0-9]+)[ .]*", text, flags=re.DOTALL)
    if not stopped or match is None:
        return 0.0
    left, right = re.findall("[0-9]+", question)
    if int(match[2]) != int(left) + int(right):
        return 0.0
    before = sorted(re.findall("[0-9]+", match[1]))
    allowed = ([], [left], [right], sorted([left, right]))
    return 1.0 if before in allowed else 0.0


def _split(question, text, stopped):
    words = [word for word in re.split("[^0-9]+", text) if word]
    asked = [word for word in re.split("[^0-9]+", question) if word]
    trimmed = text
    while trimmed and trimmed[-1] in " .":
        trimmed = trimmed[:-1]
    checks = [
        stopped,
        bool(trimmed) and trimmed[-1] in "0123456789",
        bool(words) and int(words[-1]) == sum(map(int, asked)),
        max((words[:-1].count(w) - asked.count(w) for w in words[:-1]), default=0) <= 0,
    ]
    return np.float64(1.0) if all(checks) else np.float64(0.0)


def _groups(question, text, stopped):
    def read(string):
        runs = groupby(string, key=lambda c: "0" <= c <= "9")
        return ["".join(run) for digits, run in runs if digits]

    asked, said = read(question), read(text)
    if not (stopped and said):
        return 0.0
    tail = list(takewhile(lambda c: not "0" <= c <= "9", reversed(text)))
    if set(tail) - {" ", "."}:
        return 0.0
    if int(said.pop()) != int(asked[0]) + int(asked[1]):
        return 0.0
    return 0.0 if Counter(said) - Counter(asked) else 1.0


# 17b.3
def _one_if_each(rows):
    def mean(key, part):
        return sum(row[key] for row in part) / len(part)

    first, last = rows[:5], rows[-5:]
    if all(row["reward"] == 0 for row in rows):
        return "cold start"
    if mean("reward", last) < max(row["reward"] for row in rows) / 2:
        return "broken"
    risen = mean("reward", last) - mean("reward", first) >= 0.1
    if risen and mean("right", first) - mean("right", last) >= 0.1:
        return "hacked"
    return "finished" if mean("no_spread", last) >= 0.9 else "learning"


def _in_numpy(rows):
    table = np.array([[row["reward"], row["right"], row["no_spread"]] for row in rows])
    first, last = table[:5].mean(0), table[-5:].mean(0)
    if not table[:, 0].any():
        return "cold start"
    if last[0] < 0.5 * table[:, 0].max():
        return "broken"
    if last[0] >= first[0] + 0.1 and last[1] <= first[1] - 0.1:
        return "hacked"
    if last[2] >= 0.9:
        return "finished"
    return "learning"


def _list_of_rules(rows):
    first = {key: statistics.fmean(row[key] for row in rows[:5]) for key in rows[0]}
    last = {key: statistics.fmean(row[key] for row in rows[-5:]) for key in rows[0]}
    highest = max(row["reward"] for row in rows)
    rules = {
        "cold start": highest == 0,
        "broken": last["reward"] < highest / 2,
        "hacked": last["reward"] - first["reward"] >= 0.1 and first["right"] - last["right"] >= 0.1,
        "finished": last["no_spread"] >= 0.9,
        "learning": True,
    }
    return next(word for word, fits in rules.items() if fits)


def _in_torch(rows):
    reward, right, same = (
        torch.tensor([row[key] for row in rows], dtype=torch.float64)
        for key in ("reward", "right", "no_spread")
    )
    words = ["cold start", "broken", "hacked", "finished", "learning"]
    fits = torch.stack(
        [
            (reward == 0).all(),
            2 * reward[-5:].mean() < reward.max(),
            (reward[-5:].mean() - reward[:5].mean() >= 0.1)
            & (right[:5].mean() - right[-5:].mean() >= 0.1),
            same[-5:].mean() >= 0.9,
            torch.tensor(True),
        ]
    )
    return words[int(fits.int().argmax())]


def _backwards(rows):
    """The last rule that fits is overwritten by an earlier one."""
    total = defaultdict(float)
    for row in rows[:5]:
        for key, value in row.items():
            total["first", key] += value / 5
    for row in list(reversed(rows))[:5]:
        for key, value in row.items():
            total["last", key] += value / 5
    word = "learning"
    if total["last", "no_spread"] >= 0.9:
        word = "finished"
    if (
        total["last", "reward"] - total["first", "reward"] >= 0.1
        and total["last", "right"] - total["first", "right"] <= -0.1
    ):
        word = "hacked"
    if any(total["last", "reward"] < row["reward"] / 2 for row in rows):
        word = "broken"
    if not any(row["reward"] for row in rows):
        word = "cold start"
    return word


# 17b.4
def _walk_both_ways(rows, share=0.9):
    scores = defaultdict(list)
    for row in rows:
        scores[row["rate"]].append(row["right"])
    rates = sorted(scores)
    means = [sum(scores[rate]) / len(scores[rate]) for rate in rates]
    best = means.index(max(means))
    low = high = best
    while low > 0 and means[low - 1] >= share * means[best]:
        low -= 1
    while high < len(rates) - 1 and means[high + 1] >= share * means[best]:
        high += 1
    return rates[low], rates[high]


def _sums_will_do(rows, share=0.9):
    """Every rate has the same seeds, so sums are in the same order as means."""
    total = {rate: 0.0 for rate in sorted({row["rate"] for row in rows})}
    for row in sorted(rows, key=lambda row: (row["rate"], row["seed"])):
        total[row["rate"]] += row["right"]
    best = max(total, key=total.get)
    below = [rate for rate in total if rate <= best]
    above = [rate for rate in total if rate >= best]
    works = lambda rate: total[rate] >= share * total[best]  # noqa: E731
    return list(takewhile(works, below[::-1]))[-1], list(takewhile(works, above))[-1]


def _numpy_table(rows, share=0.9):
    rates = np.unique([row["rate"] for row in rows])
    means = np.array([np.mean([r["right"] for r in rows if r["rate"] == rate]) for rate in rates])
    best = int(means.argmax())
    fails = np.flatnonzero(means < share * means[best])
    low = fails[fails < best].max(initial=-1) + 1
    high = fails[fails > best].min(initial=len(rates)) - 1
    return float(rates[low]), float(rates[high])


def _runs_of_workers(rows, share=0.9):
    ordered = sorted(rows, key=lambda row: row["rate"])
    scores = {
        rate: statistics.fmean(row["right"] for row in group)
        for rate, group in groupby(ordered, key=lambda row: row["rate"])
    }
    best = min(scores, key=lambda rate: (-scores[rate], rate))
    for works, run in groupby(scores, key=lambda rate: scores[rate] >= share * scores[best]):
        run = list(run)
        if works and best in run:
            return run[0], run[-1]
    raise AssertionError


def _recursive_steps(rows, share=0.9):
    rates = sorted({row["rate"] for row in rows})

    def score(i):
        mine = [row["right"] for row in rows if row["rate"] == rates[i]]
        return statistics.mean(mine)

    top = max(range(len(rates)), key=lambda i: (score(i), -i))

    def go(i, step):
        there = i + step
        if 0 <= there < len(rates) and score(there) >= score(top) * share:
            return go(there, step)
        return rates[i]

    return go(top, -1), go(top, 1)


# 17b.5
def _logsigmoid(chosen, rejected):
    return -F.logsigmoid(chosen - rejected).mean()


def _softplus(chosen, rejected):
    return F.softplus(rejected - chosen).mean()


def _cross_entropy(chosen, rejected):
    scores = torch.stack([chosen, rejected], dim=1)
    return F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))


def _binary(chosen, rejected):
    gap = chosen - rejected
    return F.binary_cross_entropy_with_logits(gap, torch.ones_like(gap))


def _logaddexp(chosen, rejected):
    return (torch.logaddexp(chosen, rejected) - chosen).sum() / chosen.numel()


def _loop(chosen, rejected):
    total = 0
    for better, worse in zip(chosen, rejected, strict=True):
        gap = worse - better
        total = total + (gap + torch.log1p(torch.exp(-gap)) if gap > 0 else torch.log1p(gap.exp()))
    return total / len(chosen)


def _by_hand(chosen, rejected):
    gap = chosen - rejected
    return (torch.relu(-gap) + torch.log1p(torch.exp(-gap.abs()))).mean()


RIGHT_ANSWERS = {
    "17b.1": [
        _by_index,
        _numpy_argmax,
        _recursive,
        _running_best,
        _in_fractions,
        _torch_lerp,
    ],
    "17b.2": [_findall, _counters, _character_by_character, _one_pattern, _split, _groups],
    "17b.3": [_one_if_each, _in_numpy, _list_of_rules, _in_torch, _backwards],
    "17b.4": [
        _walk_both_ways,
        _sums_will_do,
        _numpy_table,
        _runs_of_workers,
        _recursive_steps,
    ],
    "17b.5": [
        _logsigmoid,
        _softplus,
        _cross_entropy,
        _binary,
        _logaddexp,
        _loop,
        _by_hand,
    ],
}
