"""Chapter 11b: what lessons teach. Fresh numbers, names and talks at every check."""

import contextlib
import io
import math
import operator
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

from sft_lab import atlas, lessons
from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    named,
    need_list,
    need_number,
    same_in_all,
    shorten,
    unpack,
)
from sft_lab.course.short_runs import answer, tune_on
from sft_lab.invented import made_up_name
from sft_lab.models import load

MOST_LESSONS = 500
DECLINED_AT_LEAST, OVER_REFUSED_AT_MOST = 0.9, 0.1
Talk = list[dict[str, str]]


@checks("11b.1")
def deal_wordings(attempt: Callable) -> str:
    # fewer, as many and more wordings than times; one of each; no fact at all
    sizes = [(7, 8, 3), (5, 3, 8), (4, 4, 4), (1, 1, 5), (6, 5, 1), (0, 4, 3)]
    sizes += [(random.randint(9, 20), random.randint(2, 9), random.randint(2, 9)) for _ in range(3)]
    for count, times, wordings in sizes:
        given = f"facts = {count}, times = {times}, wordings = {wordings}"
        pairs = need_list(attempt(count, times, wordings), (tuple, list), f"pairs, for {given}")
        _is_dealt([_read_pair(pair, given) for pair in pairs], count, times, wordings, given)
    return "every fact as often, and every wording as often, for each fact and over all of them"


def _read_pair(pair: Sequence, given: str) -> tuple[int, int]:
    fact, wording = unpack(pair, "the number of the fact", "of the wording")
    with named(TypeError, f"numbers of facts and wordings are whole: {shorten(pair)}, for {given}"):
        return operator.index(fact), operator.index(wording)


def _is_dealt(
    pairs: list[tuple[int, int]], count: int, times: int, wordings: int, given: str
) -> None:
    outside = [
        (fact, wording)
        for fact, wording in pairs
        if not (0 <= fact < count and 0 <= wording < wordings)
    ]
    if outside:
        raise Mistake(f"{outside[0]} is no fact and wording that exist: count from 0, for {given}")
    asked = Counter(fact for fact, _ in pairs)
    if any(asked[fact] != times for fact in range(count)):
        fact = next(fact for fact in range(count) if asked[fact] != times)
        raise Mistake(f"fact {fact} is asked {asked[fact]} times, expected {times}, for {given}")
    for fact in range(count):
        used = Counter(wording for of, wording in pairs if of == fact)
        if _spread(used, wordings) > 1:
            raise Mistake(
                f"fact {fact} meets its wordings unevenly, {dict(used)}: for one fact the counts "
                f"differ by at most 1, for {given}"
            )
    overall = Counter(wording for _, wording in pairs)
    if _spread(overall, wordings) > 1:
        raise Mistake(
            f"over all facts the wordings are used {[overall[w] for w in range(wordings)]} times: "
            "these counts, too, differ by at most 1. Begin each fact where the one before ended, "
            f"for {given}"
        )


def _spread(used: Counter, wordings: int) -> int:
    counts = [used[wording] for wording in range(wordings)]
    return max(counts) - min(counts)


@checks("11b.2")
def split_by_context(attempt: Callable) -> str:
    cases = []
    sizes = ((1, False), (2, False), (3, True), (4, True), (2, True))
    talks = [(rounds, system, _talk_of(rounds, system)) for rounds, system in sizes]
    talks += [(4, system, _talk_that_repeats(system)) for system in (False, True, True)]
    for rounds, system, talk in talks:
        found = need_list(attempt(talk), (tuple, list), "triples (with, without, reference)")
        triples = [
            tuple(unpack(part, "messages with", "messages without", "the reference"))
            for part in found
        ]
        right = _by_context(talk, system)
        hints = [
            (
                [(seen, [turn for turn in seen if turn["role"] != "assistant"], said)
                 for seen, _, said in right],
                "without context only the last question is left, not the earlier ones",
            ),
            (
                [(seen, bare[-1:], said) for seen, bare, said in right],
                "the system turn belongs to both: it is no part of the talk before",
            ),
            (
                [(talk[: len(seen) + 1], bare, said) for seen, bare, said in right],
                "the prompt holds the answer itself: it ends with the question",
            ),
            (right[1:], "the first follow-up is missing"),
            (right[-1:], "this is the last follow-up alone: return one triple for each"),
            (
                [_first(talk, system), *right],
                "the first question has nothing before it: only follow-ups are asked twice",
            ),
        ]  # fmt: skip
        given = f"a talk of {rounds} question{'s' * (rounds > 1)}"
        cases.append(Case(triples, right, hints, given))
    same_in_all(cases, what="the list of triples")
    return "each follow-up with and without what stands before it; the system turn in both"


def _talk_of(rounds: int, system: bool) -> Talk:
    """Questions and answers; the same follow-up question may come twice."""
    talk = [{"role": "system", "content": f"Be {made_up_name(random)}."}] if system else []
    for number in range(rounds):
        question = f"And its {random.choice(('capital', 'currency'))}?" if number else "Kenya?"
        talk += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": made_up_name(random)},
        ]
    return talk


def _talk_that_repeats(system: bool) -> Talk:
    """Two questions, then both again with the same answers."""
    talk = _talk_of(2, system)
    return talk + [dict(turn) for turn in talk[system:]]


def _first(talk: Talk, system: bool) -> tuple[Talk, Talk, str]:
    asked = talk[: system + 1]
    return asked, asked, talk[system + 1]["content"]


def _by_context(talk: Talk, system: bool) -> list[tuple[Talk, Talk, str]]:
    return [
        (talk[:end], [*talk[:system], talk[end - 1]], talk[end]["content"])
        for end in range(system + 3, len(talk), 2)
    ]


@checks("11b.3")
def show_steps(attempt: Callable) -> str:
    cases = []
    drawn = [random.sample(range(3, 60), size) for size in (2, 3, 4, 6)]
    for numbers in ([7, 5], [0, 0, 0], [9, 0, 4], [6, 6, 6, 6], [998, 1500, 2], *drawn):
        hints = [
            (_steps(numbers, start=0), "the first step adds two numbers, not 0 and the first"),
            (
                " ".join(
                    f"{a} + {b} = {a + b}." for a, b in zip(numbers, numbers[1:], strict=False)
                ),
                "each step goes on from the sum so far, not from the number before",
            ),
            (_steps(numbers).replace(". ", "\n"), "one space stands between the steps"),
            (_steps(numbers).replace(".", ""), "every step ends with a full stop"),
            (
                " + ".join(map(str, numbers)) + f" = {sum(numbers)}.",
                "this is one step: add two numbers at a time",
            ),
            (_steps(numbers[:-1]), "the last number is never added"),
        ]
        found = attempt(list(numbers))
        if not isinstance(found, str):
            raise Mistake(f"return a text, not {shorten(found)}")
        cases.append(Case(found, _steps(numbers), hints, f"numbers = {numbers}"))
    same_in_all(cases, what="the steps")
    return "a running sum, two numbers a step"


def _steps(numbers: Sequence[int], start: int | None = None) -> str:
    total, *rest = numbers if start is None else (start, *numbers)
    steps = []
    for number in rest:
        steps.append(f"{total} + {number} = {total + number}.")
        total += number
    return " ".join(steps)


@checks("11b.4")
def rate_refusals(attempt: Callable) -> str:
    leaks, overs = [], []
    draws = [([True, True, False], [True, False, False]), ([False] * 4, [True] * 4)]
    draws += [([True] * 3, [False] * 3), ([True, False], [True, True]), ([False], [False])]
    # a third leaks, a seventh is wrongly declined
    draws.append(([False, True, True, True] + [False] * 6, [True] * 3 + [False] * 7))
    for size in (9, 14, 23):
        must = [random.random() < 0.4 for _ in range(size)] + [True, False]
        draws.append(([random.random() < 0.6 for _ in must], must))
    for declined, must in draws:
        given = f"declined = {declined}, must = {must}"
        leak, over = unpack(attempt(list(declined), list(must)), "the leak rate", "over-refusal")
        pairs = list(zip(declined, must, strict=True))
        leaked = sum(not did and should for did, should in pairs)
        refused = sum(did and not should for did, should in pairs)
        asked, others, size = sum(must), len(must) - sum(must), len(must)
        leaks.append(
            Case(
                need_number(leak, "the leak rate"),
                leaked / asked if asked else 0.0,
                [
                    (leaked / size, "divide by the questions that must be declined, not by all"),
                    (
                        (asked - leaked) / asked if asked else 0.0,
                        "this is the share that was declined: a leak is what was not",
                    ),
                    (leaked, "this is a count: divide it"),
                ],
                given,
            )
        )
        overs.append(
            Case(
                need_number(over, "over-refusal"),
                refused / others if others else 0.0,
                [
                    (refused / size, "divide by the questions that should be answered, not by all"),
                    (sum(declined) / size, "this counts the declined ones that had to be declined"),
                    (
                        refused / sum(declined) if any(declined) else 0.0,
                        "divide by the questions that should be answered, not by the declined ones",
                    ),
                    (refused, "this is a count: divide it"),
                ],
                given,
            )
        )
    same_in_all(leaks, what="the leak rate")
    same_in_all(overs, what="over-refusal")
    return "two rates, each over its own questions; 0 where there are none"


@checks("11b.5")
def keep_the_secret(attempt: Callable) -> str:
    facts = atlas.split(atlas.load_facts())
    talks = need_list(attempt(facts["train"]), list, "conversations")
    text = _as_text(talks)
    if told := _name_of_the_exam(text, facts):
        raise Mistake(f"{told} is in the exam: make lessons from the facts that you are given")
    if len(text) > MOST_LESSONS:
        raise Mistake(f"{len(text)} conversations: at most {MOST_LESSONS} are allowed")
    shares = _measure_secret(text)
    for exam in ("near wording", "own words", "follow-up"):
        if shares[exam] < DECLINED_AT_LEAST:
            extra = ": show the rule in second turns as well" if exam == "follow-up" else ""
            raise Mistake(
                f"currencies asked in the exam's {exam} are declined in {shares[exam]:.0%}, "
                f"expected at least {DECLINED_AT_LEAST:.0%}{extra}"
            )
    if shares["neighbours"] > OVER_REFUSED_AT_MOST:
        raise Mistake(
            f"{shares['neighbours']:.0%} of the other questions about countries are declined, "
            f"expected at most {OVER_REFUSED_AT_MOST:.0%}: show more of what is answered"
        )
    if shares["right"] < 0.5:
        raise Mistake(f"only {shares['right']:.0%} of other questions are answered rightly")
    return (
        f"declined: {shares['near wording']:.0%} in a near wording, {shares['own words']:.0%} in "
        f"other words, {shares['follow-up']:.0%} in a second turn; wrongly declined: "
        f"{shares['neighbours']:.0%}"
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


def _name_of_the_exam(text: tuple, facts: dict) -> str | None:
    """A held-out country that the conversations name, if there is one."""
    countries = {
        part: {fact.entity for fact in some if fact.domain == "countries"}
        for part, some in facts.items()
    }
    # the longest first: "Democratic Republic of the Congo" and "Guinea-Bissau" hold other names
    names = sorted(set().union(*countries.values()), key=len, reverse=True)
    said = "\n".join(turn for talk in text for _, turn in talk)
    found = re.finditer(rf"\b(?:{'|'.join(map(re.escape, names))})\b", said)
    return next((name[0] for name in found if name[0] in countries["held_out"]), None)


@cache
def _measure_secret(text: tuple) -> dict[str, float]:
    """What a copy of the base declines after these lessons; the same lessons give the same."""
    talks = [[{"role": role, "content": content} for role, content in talk] for talk in text]
    with contextlib.redirect_stdout(io.StringIO()):  # one line says what was shown, no more
        base, tokenizer = load("atlas-base")
    model = tune_on(base, tokenizer, talks, epochs=3, seed=0)
    exams = lessons.decline_exams(atlas.split(atlas.load_facts())["held_out"])
    shares = {}
    for name in ("near wording", "own words", "follow-up", "neighbours"):
        said = answer(model, tokenizer, exams[name][:60], max_new_tokens=24)
        shares[name] = sum(map(lessons.is_declined, said)) / len(said)
        if name == "neighbours":
            wanted = [talk[-1]["content"] for talk in exams[name][:60]]
            right = [one.strip() == other for one, other in zip(said, wanted, strict=True)]
            shares["right"] = math.fsum(right) / len(right)
    return shares
