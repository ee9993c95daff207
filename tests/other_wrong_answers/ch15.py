"""Wrong answers to the exercises of chapter 15, as a learner may write them; written from the
statements alone."""

import bisect
import math
import re
from collections import Counter

import numpy as np

from sft_lab.metrics import normalise


# 15.1
def _split(answer):
    return [part.strip() + ")." for part in answer.split(").") if part.strip()]


def _number(sentence):
    return int(sentence.rpartition("note ")[2][:-2])


def sources_anywhere_in_the_prompt(prompt, answer):
    return [_number(s) for s in _split(answer) if s not in prompt]


def sources_by_number(prompt, answer):
    return [_number(s) for s in _split(answer) if f"(note {_number(s)})" not in prompt]


def sources_by_claim(prompt, answer):
    return [_number(s) for s in _split(answer) if s.rpartition(" (")[0] not in prompt]


def sources_supported(prompt, answer):
    return [_number(s) for s in _split(answer) if s in prompt.splitlines()]


def sources_once(prompt, answer):
    lines = prompt.splitlines()
    return list(dict.fromkeys(_number(s) for s in _split(answer) if s not in lines))


def sources_sorted(prompt, answer):
    lines = prompt.splitlines()
    return sorted(_number(s) for s in _split(answer) if s not in lines)


def sources_as_texts(prompt, answer):
    lines = prompt.splitlines()
    return [str(_number(s)) for s in _split(answer) if s not in lines]


def sources_of_one_digit(prompt, answer):
    lines = prompt.splitlines()
    return [int(s[-3]) for s in _split(answer) if s not in lines]


def sources_by_place(prompt, answer):
    lines = prompt.splitlines()[:-1]
    return [
        _number(s)
        for s in _split(answer)
        if _number(s) > len(lines) or not lines[_number(s) - 1].startswith(s.split(" (")[0])
    ]


def sources_by_beginning(prompt, answer):
    lines = prompt.splitlines()
    return [_number(s) for s in _split(answer) if not any(line.endswith(s) for line in lines)]


def sources_places(prompt, answer):
    lines = prompt.splitlines()
    return [i for i, s in enumerate(_split(answer), 1) if s not in lines]


def sources_with_the_blank(prompt, answer):
    lines = prompt.splitlines()
    return [int(re.search(r"\d+", s)[0]) for s in re.findall(r"[^.]+\.", answer)
            if s not in lines]  # fmt: skip


def sources_set(prompt, answer):
    lines = prompt.splitlines()
    return {_number(s) for s in _split(answer) if s not in lines}


def sources_first(prompt, answer):
    return sources_with_lines(prompt, answer)[:1]


def sources_with_lines(prompt, answer):
    lines = prompt.splitlines()[1:]
    return [_number(s) for s in _split(answer) if s not in lines]


def sources_or_none(prompt, answer):
    lines = prompt.splitlines()
    return [_number(s) for s in _split(answer) if s not in lines] or None


# 15.2
def score_answer_all(confidence, penalty):
    return sum(c - (1 - c) * penalty for c in confidence) / len(confidence)


def score_half(confidence, penalty):
    return sum(c - (1 - c) * penalty for c in confidence if c > 0.5) / len(confidence)


def score_of_answered(confidence, penalty):
    gains = [c - (1 - c) * penalty for c in confidence if c * (1 + penalty) > penalty]
    return sum(gains) / len(gains) if gains else 0.0


def score_sum(confidence, penalty):
    return sum(max(0.0, c - (1 - c) * penalty) for c in confidence)


def score_exam(confidence, penalty):
    return max(0.0, score_answer_all(confidence, penalty))


def score_without_wrong(confidence, penalty):
    return sum(c for c in confidence if c * (1 + penalty) > penalty) / len(confidence)


def score_positive_penalty(confidence, penalty):
    return sum(max(0.0, c + (1 - c) * penalty) for c in confidence) / len(confidence)


def score_whole_penalty(confidence, penalty):
    return sum(max(0.0, c - penalty) for c in confidence) / len(confidence)


def score_other_limit(confidence, penalty):
    gains = [c - (1 - c) * penalty for c in confidence if c > 1 / (1 + penalty)]
    return sum(gains) / len(confidence)


def score_best_one(confidence, penalty):
    return max(0.0, *(c - (1 - c) * penalty for c in confidence))


def score_list(confidence, penalty):
    return [max(0.0, c - (1 - c) * penalty) for c in confidence]


def score_of_mean(confidence, penalty):
    c = sum(confidence) / len(confidence)
    return max(0.0, c - (1 - c) * penalty)


def score_rounded(confidence, penalty):
    return round(sum(max(0.0, c - (1 - c) * penalty) for c in confidence) / len(confidence), 2)


def score_sure(confidence, penalty):
    return sum(c > penalty / (1 + penalty) for c in confidence) / len(confidence)


def score_guesses_blank(confidence, penalty):
    return sum(max(-penalty, c - (1 - c) * penalty) for c in confidence) / len(confidence)


def score_threshold_is_penalty(confidence, penalty):
    return sum(c - (1 - c) * penalty for c in confidence if c > penalty) / len(confidence)


# 15.3
def _kinds(scores, positive):
    ones = [s for s, p in zip(scores, positive, strict=True) if p]
    return ones, [s for s, p in zip(scores, positive, strict=True) if not p]


def auroc_strict(scores, positive):
    ones, others = _kinds(scores, positive)
    return sum(a > b for a in ones for b in others) / (len(ones) * len(others))


def auroc_ties_as_one(scores, positive):
    ones, others = _kinds(scores, positive)
    return sum(a >= b for a in ones for b in others) / (len(ones) * len(others))


def auroc_turned(scores, positive):
    ones, others = _kinds(scores, positive)
    wins = sum((a < b) + 0.5 * (a == b) for a in ones for b in others)
    return wins / (len(ones) * len(others))


def auroc_over_all(scores, positive):
    ones, others = _kinds(scores, positive)
    wins = sum((a > b) + 0.5 * (a == b) for a in ones for b in others)
    return wins / (len(scores) * (len(scores) - 1) / 2)


def auroc_count(scores, positive):
    ones, others = _kinds(scores, positive)
    return sum((a > b) + 0.5 * (a == b) for a in ones for b in others)


def auroc_by_order(scores, positive):
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    ranks[order] = np.arange(1, len(scores) + 1)
    ones = sum(positive)
    return (ranks[np.array(positive)].sum() - ones * (ones + 1) / 2) / (ones * (len(scores) - ones))


def auroc_of_dense_ranks(scores, positive):
    distinct = sorted(set(scores))
    ones = sum(positive)
    total = sum(distinct.index(s) + 1 for s, p in zip(scores, positive, strict=True) if p)
    return (total - ones * (ones + 1) / 2) / (ones * (len(scores) - ones))


def auroc_accuracy(scores, positive):
    return sum((s > 0.5) == p for s, p in zip(scores, positive, strict=True)) / len(scores)


def auroc_lowest_rank(scores, positive):
    ordered = sorted(scores)
    ones = sum(positive)
    ranks = sum(bisect.bisect_left(ordered, s) + 1 for s, p in zip(scores, positive, strict=True)
                if p)  # fmt: skip
    return (ranks - ones * (ones + 1) / 2) / (ones * (len(scores) - ones))


def auroc_of_means(scores, positive):
    ones, others = _kinds(scores, positive)
    return float(np.mean(ones) > np.mean(others))


def auroc_zip(scores, positive):
    ones, others = _kinds(scores, positive)
    pairs = list(zip(ones, others, strict=False))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def auroc_at_least_half(scores, positive):
    ones, others = _kinds(scores, positive)
    wins = sum((a > b) + 0.5 * (a == b) for a in ones for b in others)
    area = wins / (len(ones) * len(others))
    return max(area, 1 - area)


def auroc_gini(scores, positive):
    ones, others = _kinds(scores, positive)
    wins = sum((a > b) - (a < b) for a in ones for b in others)
    return wins / (len(ones) * len(others))


def auroc_ranks_from_zero(scores, positive):
    ranks = [sum(t < s for t in scores) + sum(t == s for t in scores) / 2 - 0.5 for s in scores]
    ones = sum(positive)
    total = sum(r for r, p in zip(ranks, positive, strict=True) if p)
    return (total - ones * (ones + 1) / 2) / (ones * (len(scores) - ones))


def auroc_without_ties(scores, positive):
    ones, others = _kinds(scores, positive)
    pairs = [a > b for a in ones for b in others if a != b]
    return sum(pairs) / len(pairs) if pairs else 0.5


def auroc_and_sorts(scores, positive):
    value = auroc_strict(scores, positive) / 2 + auroc_ties_as_one(scores, positive) / 2
    scores.sort()
    return value


# 15.4
def _risk_at(confidence, right, threshold):
    shown = [ok for c, ok in zip(confidence, right, strict=True) if c >= threshold]
    return sum(not ok for ok in shown) / len(shown)


def threshold_stops_early(confidence, right, most_risk):
    best = None
    for threshold in sorted(set(confidence), reverse=True):
        if _risk_at(confidence, right, threshold) > most_risk:
            break
        best = threshold
    return best


def threshold_splits_ties(confidence, right, most_risk):
    best, wrong = None, 0
    pairs = sorted(zip(confidence, right, strict=True), reverse=True)
    for given, (c, ok) in enumerate(pairs, 1):
        wrong += not ok
        if wrong / given <= most_risk:
            best = c
    return best


def threshold_of_all(confidence, right, most_risk):
    kept = [
        t
        for t in confidence
        if sum(c >= t and not ok for c, ok in zip(confidence, right, strict=True)) / len(confidence)
        <= most_risk
    ]
    return min(kept, default=None)


def threshold_strictly_less(confidence, right, most_risk):
    kept = [t for t in confidence if _risk_at(confidence, right, t) < most_risk]
    return min(kept, default=None)


def threshold_highest(confidence, right, most_risk):
    kept = [t for t in confidence if _risk_at(confidence, right, t) <= most_risk]
    return max(kept, default=None)


def threshold_least_risk(confidence, right, most_risk):
    kept = [t for t in confidence if _risk_at(confidence, right, t) <= most_risk]
    return min(kept, key=lambda t: (_risk_at(confidence, right, t), t), default=None)


def threshold_above(confidence, right, most_risk):
    kept = []
    for t in confidence:
        shown = [ok for c, ok in zip(confidence, right, strict=True) if c > t]
        if not shown or sum(not ok for ok in shown) / len(shown) <= most_risk:
            kept.append(t)
    return min(kept, default=None)


def threshold_right_share(confidence, right, most_risk):
    kept = [t for t in confidence if 1 - _risk_at(confidence, right, t) <= most_risk]
    return min(kept, default=None)


def threshold_one_when_none(confidence, right, most_risk):
    kept = [t for t in confidence if _risk_at(confidence, right, t) <= most_risk]
    return min(kept, default=1.0)


def threshold_zero_when_none(confidence, right, most_risk):
    kept = [t for t in confidence if _risk_at(confidence, right, t) <= most_risk]
    return min(kept, default=0.0)


def threshold_grid(confidence, right, most_risk):
    for t in np.linspace(0, max(confidence), 1001):
        if _risk_at(confidence, right, t) <= most_risk:
            return float(t)
    return None


def threshold_count(confidence, right, most_risk):
    kept = [t for t in confidence if _risk_at(confidence, right, t) <= most_risk]
    return sum(c >= min(kept) for c in confidence) if kept else None


def threshold_place(confidence, right, most_risk):
    kept = [t for t in confidence if _risk_at(confidence, right, t) <= most_risk]
    return confidence.index(min(kept)) if kept else None


def threshold_given_order(confidence, right, most_risk):
    for t in confidence:
        if _risk_at(confidence, right, t) <= most_risk:
            return t
    return None


def threshold_one_minus_risk(confidence, right, most_risk):
    return min((c for c in confidence if c >= 1 - most_risk), default=None)


def threshold_without_the_lowest(confidence, right, most_risk):
    kept = [t for t in confidence if _risk_at(confidence, right, t) <= most_risk]
    return min((t for t in kept if t > min(confidence)), default=None)


def threshold_and_sorts(confidence, right, most_risk):
    value = min(
        (t for t in confidence if _risk_at(confidence, right, t) <= most_risk), default=None
    )
    confidence.sort()
    return value


# 15.5
def _entropy(groups, log=math.log):
    total = len(groups)
    return -sum(n / total * log(n / total) for n in Counter(groups).values())


def entropy_raw(answers):
    return _entropy(answers)


def entropy_bits(answers):
    return _entropy([normalise(a) for a in answers], math.log2)


def entropy_of_groups(answers):
    return math.log(len({normalise(a) for a in answers}))


def entropy_negative(answers):
    return -_entropy([normalise(a) for a in answers])


def entropy_lower(answers):
    return _entropy([normalise(a).lower() for a in answers])


def entropy_stripped(answers):
    return _entropy([a.strip() for a in answers])


def entropy_without_empty(answers):
    return _entropy([normalise(a) for a in answers if normalise(a)] or [""])


def entropy_relative(answers):
    groups = [normalise(a) for a in answers]
    return _entropy(groups) / math.log(len(groups)) if len(groups) > 1 else 0.0


def entropy_perplexity(answers):
    return math.exp(_entropy([normalise(a) for a in answers]))


def entropy_share_of_first(answers):
    groups = [normalise(a) for a in answers]
    return 1 - max(Counter(groups).values()) / len(groups)


def entropy_gini(answers):
    groups = [normalise(a) for a in answers]
    return 1 - sum((n / len(groups)) ** 2 for n in Counter(groups).values())


def entropy_sum_of_answers(answers):
    groups = [normalise(a) for a in answers]
    return -sum(math.log(groups.count(g) / len(groups)) for g in groups)


def entropy_each_answer(answers):
    groups = [normalise(a) for a in answers]
    return -sum(
        groups.count(g) / len(groups) * math.log(groups.count(g) / len(groups)) for g in groups
    )


def entropy_neighbours(answers):
    groups = [normalise(a) for a in answers]
    runs = [1]
    for before, now in zip(groups, groups[1:], strict=False):
        if before == now:
            runs[-1] += 1
        else:
            runs.append(1)
    return -sum(n / len(groups) * math.log(n / len(groups)) for n in runs)


def entropy_over_groups(answers):
    groups = [normalise(a) for a in answers]
    return _entropy(groups) / len(set(groups))


def entropy_first_word(answers):
    return _entropy([normalise(a).partition(" ")[0] for a in answers])


def entropy_without_points(answers):
    return _entropy([a.strip().rstrip(".") for a in answers])


def entropy_and_normalises(answers):
    answers[:] = [normalise(a) for a in answers]
    return _entropy(answers)


# 15.6: each is refused before a model is trained, but for the first two
QUESTION = "What is the {r} {e}?"
PLAIN = "The {r} {e} is {v}."
NOT_KNOWN = "The {r} {e} is not known."


def _lesson(fact, answer, question=QUESTION):
    return [
        {"role": "user", "content": fact.say(question)},
        {"role": "assistant", "content": fact.say(answer)},
    ]


def lessons_declining_everything(known, invented):
    return [_lesson(f, NOT_KNOWN) for f in known + invented]


def lessons_inventing(known, invented):
    return [_lesson(f, PLAIN) for f in known + invented]


def lessons_too_many(known, invented):
    return [_lesson(f, PLAIN) for f in known] + [_lesson(f, NOT_KNOWN) for f in invented] * 2


def lessons_none(known, invented):
    return []


def lessons_as_pairs(known, invented):
    return [(f.say(QUESTION), f.say(PLAIN)) for f in known] + [
        (f.say(QUESTION), f.say(NOT_KNOWN)) for f in invented
    ]


def lessons_as_texts(known, invented):
    return [f.say(PLAIN) for f in known] + [f.say(NOT_KNOWN) for f in invented]


def lessons_flat(known, invented):
    return [turn for f in known for turn in _lesson(f, PLAIN)][:400]


def lessons_questions_alone(known, invented):
    return [_lesson(f, PLAIN)[:1] for f in known + invented]


def lessons_in_one(known, invented):
    return sum((_lesson(f, PLAIN) for f in known), [])


def lessons_with_facts(known, invented):
    return [[{"role": "user", "content": f}, {"role": "assistant", "content": f.value}]
            for f in known + invented]  # fmt: skip


def lessons_with_wrong_keys(known, invented):
    return [
        [{"from": "user", "value": f.say(QUESTION)}, {"from": "assistant", "value": f.say(PLAIN)}]
        for f in known + invented
    ]


def lessons_with_the_word_none(known, invented):
    return None


def lessons_as_alpaca(known, invented):
    return [{"instruction": f.say(QUESTION), "output": f.say(PLAIN)} for f in known + invented]


def lessons_as_a_dict(known, invented):
    return {f.entity: _lesson(f, PLAIN) for f in known + invented}


WRONG_15_1 = [value for name, value in list(globals().items()) if name.startswith("sources_")]
WRONG_15_2 = [value for name, value in list(globals().items()) if name.startswith("score_")]
WRONG_15_3 = [value for name, value in list(globals().items()) if name.startswith("auroc_")]
WRONG_15_4 = [value for name, value in list(globals().items()) if name.startswith("threshold_")]
WRONG_15_5 = [value for name, value in list(globals().items()) if name.startswith("entropy_")]
WRONG_15_6 = [value for name, value in list(globals().items()) if name.startswith("lessons_")]

OTHER_WRONG_ANSWERS = {
    "15.1": WRONG_15_1,
    "15.2": WRONG_15_2,
    "15.3": WRONG_15_3,
    "15.4": WRONG_15_4,
    "15.5": WRONG_15_5,
    "15.6": WRONG_15_6,
}
