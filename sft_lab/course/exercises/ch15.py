"""Chapter 15: invented answers, and when to say nothing. Fresh notes, scores and samples at every
check."""

import contextlib
import io
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

from sft_lab import atlas
from sft_lab.abstention import is_declined
from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    named,
    need_list,
    need_number,
    same_for_all,
    shorten,
)
from sft_lab.course.short_runs import tune_on
from sft_lab.course.unknown_runs import (
    DOMAINS,
    answers_to,
    invent_unknown,
    known_facts,
    unknown_exams,
)
from sft_lab.documents import PLAIN
from sft_lab.invented import made_up_name
from sft_lab.metrics import is_right, normalise
from sft_lab.models import load

MOST_LESSONS, LESSON_EPOCHS, ASKED = 400, 3, 100
DECLINED_AT_LEAST, OVER_REFUSED_AT_MOST, RIGHT_AT_LEAST = 0.6, 0.1, 0.8
Talk = list[dict[str, str]]


@checks("15.1")
def unsupported(attempt: Callable) -> str:
    one, two, three, four = (f"{made_up_name(random)} is {made_up_name(random)}" for _ in range(4))
    draws = [
        ("What is red?", f"{one} (note 3)."),  # no note at all
        (_front(one, two), f"{one} (note 2). {two} (note 2)."),  # a number that says another thing
        (_front(one, two, three), f"{three} (note 3). {one} (note 1)."),
        (_front(f"Nobody says that {one}"), f"{one} (note 1)."),  # the end of another note
        (f"{one} (note 12).\nWhat is red?", f"{one} (note 1). {one} (note 2). {one} (note 12)."),
        (f"{_front(one)[:-1]}, {two} (note 4)?", f"{two} (note 4). {one} (note 1)."),
        (_front(one), f"{two} (note 7). {three} (note 2). {two} (note 7)."),  # twice, not sorted
    ]
    for _ in range(4):
        some = [f"{made_up_name(random)} is {made_up_name(random)}" for _ in range(4)]
        said = [(claim, random.randint(1, 5)) for claim in [*some, one, some[0]]]
        said += [(some[0], 1), (some[1], 3), (some[2], random.randint(10, 29))]
        random.shuffle(said)
        draws.append((_front(*some), " ".join(f"{claim} (note {n})." for claim, n in said)))
    same_for_all(
        attempt,
        draws,
        _unsupported,
        [
            (
                lambda p, a: [n for _, n in _said(a) if f"(note {n})." not in p],
                "the note must also say the same: its number alone supports nothing",
            ),
            (
                lambda p, a: [n for claim, n in _said(a) if claim not in p],
                "the claim must stand in the note that is named, not in any",
            ),
            (
                lambda p, a: [n for claim, n in _said(a) if f"{claim} (note {n})." not in p],
                "compare with whole lines: a note may end with the words of the claim",
            ),
            (
                lambda p, a: list(dict.fromkeys(_unsupported(p, a))),
                "one number for each unsupported sentence, however often it comes",
            ),
            (lambda p, a: sorted(_unsupported(p, a)), "in the order of the answer, not sorted"),
            (lambda p, a: _unsupported(p, a)[:1], "return all of them, not the first alone"),
            (
                lambda p, a: [n for claim, n in _said(a) if n not in _unsupported(p, a)],
                "these are the sources that do support their claims",
            ),
        ],
        form=lambda found: need_list(found, int, "whole numbers"),
        what="the list",
    )
    return "every source that is not there, or that says something else"


def _front(*claims: str) -> str:
    notes = [f"{claim} (note {number})." for number, claim in enumerate(claims, 1)]
    return "\n".join([*notes, f"What is {made_up_name(random)}?"])


def _said(answer: str) -> list[tuple[str, int]]:
    found = re.findall(r"([^.()]+) \(note (\d+)\)\.", answer)
    return [(claim.strip(), int(number)) for claim, number in found]


def _unsupported(prompt: str, answer: str) -> list[int]:
    lines = prompt.splitlines()
    return [n for claim, n in _said(answer) if f"{claim} (note {n})." not in lines]


@checks("15.2")
def best_score(attempt: Callable) -> str:
    draws = [
        ([0.9, 0.2, 0.6], 1.0),
        ([0.7, 0.4], 0.0),
        ([0.5, 0.1, 0.3], 3.0),
        ([0.75], 3.0),
        ([0.0, 1.0, 0.45], 0.5),
    ]
    for _ in range(4):
        some = [random.uniform(0.02, 0.98) for _ in range(random.randint(4, 9))]
        draws.append(([0.97, 0.03, *some], random.choice((0.25, 2.0, 4.0, 9.0))))
    same_for_all(
        attempt,
        draws,
        _best,
        [
            (
                lambda c, k: _score(c, k, answer=lambda p: True),
                "this answers every question: declining is worth 0, more than a bad guess",
            ),
            (
                lambda c, k: _score(c, k, answer=lambda p: p > 0.5),
                "one half is the right limit for a penalty of 1 alone",
            ),
            (
                lambda c, k: _score(c, k, answer=lambda p: p > 1 / (1 + k)),
                "the limit is on the wrong side: a higher penalty asks for more confidence",
            ),
            (
                lambda c, k: _best(c, k) * len(c) / max(1, sum(p > k / (1 + k) for p in c)),
                "the mean is over all questions: a declined one counts, with 0",
            ),
            (lambda c, k: _best(c, k) * len(c), "this is the sum: divide by the questions"),
            (
                lambda c, k: sum(p for p in c if p > k / (1 + k)) / len(c),
                "answers that are given can be wrong, and then cost the penalty",
            ),
            (
                lambda c, k: max(0.0, _score(c, k, answer=lambda p: True)),
                "decide question by question, not for the whole exam",
            ),
        ],
        form=lambda found: need_number(found, "the score"),
        what="the score",
    )
    return "answer where c − (1 − c)·penalty is above 0, decline elsewhere"


def _score(confidence: Sequence[float], penalty: float, *, answer: Callable) -> float:
    gains = [c - (1 - c) * penalty if answer(c) else 0.0 for c in confidence]
    return math.fsum(gains) / len(gains)


def _best(confidence: Sequence[float], penalty: float) -> float:
    return _score(confidence, penalty, answer=lambda c: c - (1 - c) * penalty > 0)


@checks("15.3")
def auroc(attempt: Callable) -> str:
    draws = [
        ([0.9, 0.4, 0.4, 0.1], [True, True, False, False]),  # a tie between the kinds
        ([0.3] * 5, [True, False, True, False, False]),  # nothing but ties
        ([0.1, 0.2, 0.8], [True, False, False]),
        ([-1.5, -7.0, -0.2, -3.0], [False, False, True, True]),  # log-probabilities
        ([2.0, 1.0, 1.0, 1.0, 0.5], [True, True, True, False, False]),
    ]
    for _ in range(4):
        scores = [random.choice((0.1, 0.4, 0.5, 0.7, 0.9)) for _ in range(11)]
        draws.append(([*scores, 0.4, 0.4], [*(i % 3 == 0 for i in range(11)), True, False]))
    same_for_all(
        attempt,
        draws,
        _auroc,
        [
            (lambda s, p: _auroc(s, p, tie=0.0), "a tie counts one half, not nothing"),
            (lambda s, p: _auroc(s, p, tie=1.0), "a tie counts one half, not one"),
            (lambda s, p: 1 - _auroc(s, p), "the order is turned round: a positive should be high"),
            (
                lambda s, p: _auroc(s, p) * sum(p) * (len(p) - sum(p)) / len(p) ** 2,
                "divide by the pairs of a positive and a negative, not by all pairs",
            ),
            (
                lambda s, p: _auroc(s, p) * sum(p) * (len(p) - sum(p)),
                "this counts the pairs: divide by their number",
            ),
            (_by_order, "tied scores share one rank, their mean: the order of the list is no rank"),
            (
                lambda s, p: sum((a > 0.5) == b for a, b in zip(s, p, strict=True)) / len(s),
                "this is the accuracy at one threshold: AUROC knows none",
            ),
        ],
        form=lambda found: need_number(found, "AUROC"),
        what="AUROC",
    )
    return "the chance that a positive stands above a negative, ties one half"


def _auroc(scores: Sequence[float], positive: Sequence[bool], tie: float = 0.5) -> float:
    pairs = [
        (a > b) + tie * (a == b)
        for a, is_one in zip(scores, positive, strict=True)
        if is_one
        for b, is_other in zip(scores, positive, strict=True)
        if not is_other
    ]
    return sum(pairs) / len(pairs)


def _by_order(scores: Sequence[float], positive: Sequence[bool]) -> float:
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    count = sum(positive)
    ranks = sum(place for place, i in enumerate(order, 1) if positive[i])
    return (ranks - count * (count + 1) / 2) / (count * (len(scores) - count))


@checks("15.4", may_return_none=True)
def choose_threshold(attempt: Callable) -> str:
    # (wrong, right, right, …) where the risk falls again; ties that straddle; none; all
    draws = [
        ([0.9, 0.8, 0.7, 0.6, 0.1], [False, True, True, True, False], 0.3),
        ([0.9, 0.5, 0.5, 0.2], [True, True, False, False], 0.25),
        ([0.9, 0.8], [False, False], 0.4),
        ([0.4, 0.2, 0.3], [True, True, True], 0.0),
        ([0.2, 0.9, 0.6, 0.4], [True, True, True, False], 0.25),
        ([0.9, 0.7, 0.7, 0.7, 0.3], [True, False, True, True, False], 0.2),
    ]
    for _ in range(4):
        sure = [round(random.uniform(0.3, 0.9), 1) for _ in range(9)]
        marks = [random.random() < c for c in sure]
        sure, marks = [0.95, *sure, 0.2, 0.2, 0.2], [False, *marks, True, True, True]
        draws.append((sure, marks, random.choice((0.22, 0.31, 0.5))))
    same_for_all(
        attempt,
        draws,
        _threshold,
        [
            (_stop_early, "the risk may fall again further down: look at every threshold"),
            (_split_ties, "answers of equal confidence are given together"),
            (
                lambda c, r, m: _threshold(c, r, m, of_all=True),
                "risk is the share of wrong ones among the answers given, not among all",
            ),
            (
                lambda c, r, m: _threshold(c, r, m, strict=True),
                "a risk of exactly most_risk is allowed",
            ),
            (_smallest_risk, "this is the smallest risk: the largest coverage is wanted"),
            (
                lambda c, r, m: _threshold(c, r, m, highest=True),
                "this gives the fewest answers: take the lowest threshold that keeps the risk",
            ),
        ],
        form=_number_or_none,
        what="the threshold",
    )
    return "the most answers for the risk allowed, ties together; None where there is none"


def _number_or_none(found: object) -> float | None:
    return None if found is None else need_number(found, "the threshold")


def _risks(confidence: Sequence[float], right: Sequence[bool], of_all: bool) -> dict[float, float]:
    """The risk of each threshold, from the strictest down."""
    risks = {}
    for threshold in sorted(set(confidence), reverse=True):
        given = [not ok for c, ok in zip(confidence, right, strict=True) if c >= threshold]
        risks[threshold] = sum(given) / (len(confidence) if of_all else len(given))
    return risks


def _threshold(
    confidence: Sequence[float],
    right: Sequence[bool],
    most: float,
    *,
    of_all: bool = False,
    strict: bool = False,
    highest: bool = False,
) -> float | None:
    risks = _risks(confidence, right, of_all)
    kept = [t for t, risk in risks.items() if (risk < most if strict else risk <= most)]
    return (max if highest else min)(kept, default=None)


def _stop_early(confidence: Sequence[float], right: Sequence[bool], most: float) -> float | None:
    last = None
    for threshold, risk in _risks(confidence, right, False).items():
        if risk > most:
            break
        last = threshold
    return last


def _split_ties(confidence: Sequence[float], right: Sequence[bool], most: float) -> float | None:
    order = sorted(range(len(confidence)), key=lambda i: -confidence[i])
    best, wrong = None, 0
    for count, place in enumerate(order, 1):
        wrong += not right[place]
        if wrong / count <= most:
            best = confidence[place]
    return best


def _smallest_risk(confidence: Sequence[float], right: Sequence[bool], most: float) -> float | None:
    risks = _risks(confidence, right, False)
    best = min(risks, key=lambda t: (risks[t], t))
    return best if risks[best] <= most else None


@checks("15.5")
def semantic_entropy(attempt: Callable) -> str:
    one, two, three = (made_up_name(random) for _ in range(3))
    draws = [
        (["It is Paris.", "It is  Paris", "It is Paris .", "It is Lyon."],),
        ([f"{one}."] * 8,),
        ([one, two, three, f"{one}x"],),
        (["AU.", "Au."],),  # letter case tells them apart
        (["", "", f"{one}."],),  # an empty answer is one of them
        ([one],),
        ([one, two, one + ".", two + " .", one, three],),
    ]
    for _ in range(3):
        some = [f"It is {random.choice((one, two, three))}{'.' * random.randint(0, 1)}"]
        draws.append((some * 3 + [f"It is {one}.", f"It is {two}", f"It is {two}."],))
    same_for_all(
        attempt,
        draws,
        _entropy,
        [
            (lambda a: _entropy(a) / math.log(2), "in nats: the natural logarithm"),
            (
                lambda a: _entropy([repr(x) for x in a]),
                "answers that differ in white space or final punctuation alone agree: `normalise`",
            ),
            (
                lambda a: _entropy([x.casefold() for x in a]),
                "letter case matters: Au is gold, AU is nothing",
            ),
            (lambda a: -_entropy(a), "the minus sign is missing: an entropy is never negative"),
            (
                lambda a: math.log(len({normalise(x) for x in a})),
                "weigh each group by its share: this is the entropy if all were equal",
            ),
            (
                lambda a: float(len({normalise(x) for x in a})),
                "this counts the different answers",
            ),
            (
                lambda a: 1 - max(Counter(map(normalise, a)).values()) / len(a),
                "this is the share that disagrees with the most frequent answer",
            ),
            (
                lambda a: _entropy(a) / math.log(len(a)),
                "do not divide by the logarithm of the number of answers",
            ),
        ],
        form=lambda found: need_number(found, "the entropy"),
        what="the entropy",
    )
    return "the entropy over groups of equal answers, in nats"


def _entropy(answers: Sequence[str]) -> float:
    shares = [n / len(answers) for n in Counter(map(normalise, answers)).values()]
    return -math.fsum(p * math.log(p) for p in shares)


@checks("15.6")
def teach_to_decline(attempt: Callable) -> str:
    known, invented = known_facts("train", 300, seed="exercise"), invent_unknown(80, seed="lessons")
    talks = need_list(attempt(list(known), list(invented)), list, "conversations")
    text = _as_text(talks)
    if len(text) > MOST_LESSONS:
        raise Mistake(f"{len(text)} conversations: at most {MOST_LESSONS} are allowed")
    if told := _name_of_the_exam(text):
        raise Mistake(f"{told} is in the exam: make lessons from the facts that you are given")
    shares = _measure(text)
    if shares["over-refused"] > OVER_REFUSED_AT_MOST:
        raise Mistake(
            f"{shares['over-refused']:.0%} of the known facts are declined, expected at most "
            f"{OVER_REFUSED_AT_MOST:.0%}: show more of what is answered"
        )
    if shares["right"] < RIGHT_AT_LEAST:
        raise Mistake(
            f"only {shares['right']:.0%} of the known facts are answered rightly, expected at "
            f"least {RIGHT_AT_LEAST:.0%}"
        )
    if shares["declined"] < DECLINED_AT_LEAST:
        raise Mistake(
            f"only {shares['declined']:.0%} of the questions about unknown entities are declined, "
            f"expected at least {DECLINED_AT_LEAST:.0%}: let the answer decide later, where the "
            "value would stand"
        )
    return (
        f"unknown: {shares['declined']:.0%} declined; known: {shares['right']:.0%} right, "
        f"{shares['over-refused']:.0%} declined"
    )


def _as_text(talks: list[Talk]) -> tuple[tuple[tuple[str, str], ...], ...]:
    """The conversations as nested tuples, which can be remembered."""
    with named((TypeError, KeyError, AttributeError), "a turn is {'role': …, 'content': …}"):
        text = tuple(tuple((turn["role"], turn["content"]) for turn in talk) for talk in talks)
    if not text:
        raise Mistake("there is no lesson")
    for said in (said for talk in text for _, said in talk):
        if not isinstance(said, str):
            raise Mistake(f"the content of a turn is a text, not {shorten(said)}")
    return text


def _name_of_the_exam(text: tuple) -> str | None:
    """An entity of the exam that a lesson asks about, if there is one."""
    exams = unknown_exams(ASKED)
    exam = {fact.subject for name in ("known", "unknown") for fact in exams[name]}
    facts = [f for f in atlas.load_facts() if f.domain in DOMAINS]
    # the longest first: "Democratic Republic of the Congo" and "Guinea-Bissau" hold other names
    names = sorted({fact.subject for fact in facts}, key=len, reverse=True)
    asked = "\n".join(turns[0][1] for turns in text if turns)
    found = re.finditer(rf"\b(?:{'|'.join(map(re.escape, names))})\b", asked)
    return next((name[0] for name in found if name[0] in exam), None)


@cache
def _measure(text: tuple) -> dict[str, float]:
    """What a copy of the base answers after these lessons; the same lessons give the same."""
    talks = [[{"role": role, "content": content} for role, content in talk] for talk in text]
    with contextlib.redirect_stdout(io.StringIO()):  # one line says what was shown, no more
        base, tokenizer = load("atlas-base")
    model = tune_on(base, tokenizer, talks, epochs=LESSON_EPOCHS, seed=0)
    exams = unknown_exams(ASKED)
    said = {
        name: answers_to(model, tokenizer, atlas.ask(facts, template=atlas.UNSEEN_QUESTION))
        for name, facts in exams.items()
        if name != "invented"
    }
    right = [is_right(a, f.say(PLAIN)) for a, f in zip(said["known"], exams["known"], strict=True)]
    shares = {name: sum(map(is_declined, some)) / len(some) for name, some in said.items()}
    return {
        "right": math.fsum(right) / len(right),
        "over-refused": shares["known"],
        "declined": shares["unknown"],
    }
