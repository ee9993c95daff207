"""Right answers to the exercises of chapter 15, each in another style; written from the statements
alone."""

import bisect
import itertools
import math
import re
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pandas as pd
import torch

from sft_lab import atlas
from sft_lab.metrics import normalise


# 15.1
def _by_regex(prompt, answer):
    lines = set(prompt.split("\n"))
    return [int(m[1]) for m in re.finditer(r"[^.]+ \(note (\d+)\)\.", answer)
            if m[0].strip() not in lines]  # fmt: skip


def _by_pairs(prompt, answer):
    form = re.compile(r"(.+) \(note (\d+)\)\.")
    notes = {m.groups() for m in map(form.fullmatch, prompt.splitlines()) if m}
    sentences = re.split(r"(?<=\)\.) ", answer)
    pairs = [form.fullmatch(sentence).groups() for sentence in sentences]
    return [int(number) for claim, number in pairs if (claim, number) not in notes]


def _by_walking(prompt, answer):
    found, sentence = [], ""
    lines = prompt.splitlines()[:-1]
    for letter in answer:
        sentence += letter
        if sentence.endswith(")."):
            if sentence.lstrip() not in lines:
                found.append(int(sentence[sentence.rindex(" ") + 1 : -2]))
            sentence = ""
    return found


def _recursive(prompt, answer):
    if not answer:
        return []
    end = answer.index(").") + 2
    first, rest = answer[:end], answer[end + 1 :]
    number = int("".join(c for c in first.rsplit("(", 1)[1] if c.isdigit()))
    mine = [] if f"\n{first}\n" in f"\n{prompt}\n" else [number]
    return mine + _recursive(prompt, rest)


def _by_number(prompt, answer):
    claims = defaultdict(set)
    for line in prompt.splitlines()[:-1]:
        claim, _, number = line[:-2].rpartition(" (note ")
        claims[int(number)].add(claim)
    result = []
    for sentence in answer.removesuffix(").").split("). "):
        claim, number = sentence.split(" (note ")
        if claim not in claims.get(int(number), ()):
            result.append(int(number))
    return result


# 15.2
def _by_limit(confidence, penalty):
    limit = penalty / (1 + penalty)
    total = 0.0
    for c in confidence:
        if c >= limit:
            total += c - (1 - c) * penalty
    return total / len(confidence)


def _in_torch(confidence, penalty):
    c = torch.tensor(confidence, dtype=torch.float64)
    return (c - (1 - c) * penalty).clamp(min=0).mean().item()


def _exact(confidence, penalty):
    gains = [Fraction(c) - (1 - Fraction(c)) * Fraction(penalty) for c in confidence]
    return float(sum(g for g in gains if g > 0) / len(gains))


def _every_threshold(confidence, penalty):
    ordered = np.sort(np.asarray(confidence))[::-1]
    totals = np.concatenate([[0.0], np.cumsum(ordered - (1 - ordered) * penalty)])
    return totals.max() / len(ordered)


def _of_subsets(confidence, penalty):
    gain = {i: c * (1 + penalty) - penalty for i, c in enumerate(confidence)}
    return math.fsum(sorted(filter(lambda g: g >= 0, gain.values()))) / len(gain)


# 15.3
def _pairs(scores, positive):
    ones = [s for s, p in zip(scores, positive, strict=True) if p]
    others = [s for s, p in zip(scores, positive, strict=True) if not p]
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in ones for b in others)
    return wins / (len(ones) * len(others))


def _broadcast(scores, positive):
    scores, positive = np.array(scores, dtype=float), np.array(positive, dtype=bool)
    signs = np.sign(scores[positive][:, None] - scores[~positive])
    return float((signs.mean() + 1) / 2)


def _bisected(scores, positive):
    others = sorted(s for s, p in zip(scores, positive, strict=True) if not p)
    ones = [s for s, p in zip(scores, positive, strict=True) if p]
    twice = sum(bisect.bisect_left(others, s) + bisect.bisect_right(others, s) for s in ones)
    return twice / 2 / len(others) / len(ones)


def _pandas_ranks(scores, positive):
    ranks = pd.Series(scores).rank()
    positive = pd.Series(positive).astype(bool)
    ones = positive.sum()
    return (ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * (~positive).sum())


def _trapezoids(scores, positive):
    ones, others = sum(positive), len(positive) - sum(positive)
    area = up = right = 0
    for score in sorted(set(scores), reverse=True):
        hits = [p for s, p in zip(scores, positive, strict=True) if s == score]
        more_up, more_right = sum(hits), len(hits) - sum(hits)
        area += more_right * (up + more_up / 2)
        up, right = up + more_up, right + more_right
    return area / (ones * others)


# 15.4
def _down_by_groups(confidence, right, most_risk):
    best, given, wrong = None, 0, 0
    pairs = sorted(zip(confidence, right, strict=True), reverse=True)
    for threshold, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        for _, ok in group:
            given += 1
            wrong += not ok
        if wrong / given <= most_risk:
            best = threshold
    return best


def _first_from_below(confidence, right, most_risk):
    for threshold in sorted(confidence):
        shown = [ok for c, ok in zip(confidence, right, strict=True) if c >= threshold]
        if shown.count(False) / len(shown) <= most_risk:
            return threshold
    return None


def _matrix(confidence, right, most_risk):
    c, ok = np.array(confidence), np.array(right, dtype=bool)
    given = c >= c[:, None]
    risks = (given & ~ok).sum(1) / given.sum(1)
    kept = c[risks <= most_risk]
    return kept.min() if kept.size else None


def _most_given(confidence, right, most_risk):
    options = []
    for threshold in confidence:
        marks = [ok for c, ok in zip(confidence, right, strict=True) if c >= threshold]
        if np.mean(np.logical_not(marks)) <= most_risk:
            options.append((len(marks), threshold))
    return max(options)[1] if options else None


def _upward_recursive(confidence, right, most_risk):
    if not confidence:
        return None
    if sum(not ok for ok in right) / len(right) <= most_risk:
        return min(confidence)
    rest = [(c, ok) for c, ok in zip(confidence, right, strict=True) if c > min(confidence)]
    return _upward_recursive([c for c, _ in rest], [ok for _, ok in rest], most_risk)


# 15.5
def _counted(answers):
    total = len(answers)
    counts = Counter(map(normalise, answers)).values()
    return -sum(n / total * math.log(n / total) for n in counts)


def _unique(answers):
    counts = np.unique([normalise(a) for a in answers], return_counts=True)[1]
    return float(np.log(len(answers)) - (counts * np.log(counts)).sum() / len(answers))


def _per_answer(answers):
    groups = [normalise(a) for a in answers]
    return math.fsum(math.log(len(groups) / groups.count(g)) for g in groups) / len(groups)


def _categorical(answers):
    counts = list(Counter(normalise(a) for a in answers).values())
    shares = torch.tensor(counts, dtype=torch.float64) / len(answers)
    return torch.distributions.Categorical(probs=shares).entropy().item()


def _sorted_runs(answers):
    total, result = len(answers), 0.0
    for _, run in itertools.groupby(sorted(normalise(a) for a in answers)):
        share = len(list(run)) / total
        result += share * math.log(1 / share)
    return result


# 15.6
QUESTION = "What is the {r} {e}?"


def _lesson(fact, question, answer):
    return [
        {"role": "user", "content": fact.say(question)},
        {"role": "assistant", "content": fact.say(answer)},
    ]


def _value_place(known, invented):
    yes = [_lesson(f, QUESTION, "The {r} {e} is {v}.") for f in known]
    return yes + [_lesson(f, QUESTION, "The {r} {e} is not known.") for f in invented]


def _mixed(known, invented):
    talks = []
    for place, fact in enumerate(known):
        talks.append(_lesson(fact, atlas.QUESTIONS[place % 3], "The {r} {e} is {v}."))
        if place < len(invented):
            other = invented[place]
            talks.append(_lesson(other, atlas.QUESTIONS[place % 3], "The {r} {e} is not known."))
    return talks


def _unknown_to_me(known, invented):
    no = [_lesson(f, QUESTION, "The {r} {e} is unknown to me.") for f in invented]
    return no + [_lesson(f, QUESTION, "The {r} {e} is {v}.") for f in known]


def _from_atlas(known, invented):
    no = [
        [turns[0], {**turns[1], "content": fact.say("The {r} {e} is not known.")}]
        for fact, turns in zip(invented, atlas.ask(invented), strict=True)
    ]
    return [*atlas.ask(known), *no]


def _fewer_known(known, invented):
    return _value_place(known[:280], invented)


RIGHT_ANSWERS = {
    "15.1": [_by_regex, _by_pairs, _by_walking, _recursive, _by_number],
    "15.2": [
        _by_limit,
        _in_torch,
        _exact,
        _every_threshold,
        _of_subsets,
        lambda confidence, penalty: np.maximum(
            np.array(confidence) * (1 + penalty) - penalty, 0
        ).mean(),
    ],
    "15.3": [_pairs, _broadcast, _bisected, _pandas_ranks, _trapezoids],
    "15.4": [_down_by_groups, _first_from_below, _matrix, _most_given, _upward_recursive],
    "15.5": [_counted, _unique, _per_answer, _categorical, _sorted_runs],
    "15.6": [_value_place, _mixed, _unknown_to_me, _from_atlas, _fewer_known],
}
