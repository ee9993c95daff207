"""Right answers to the exercises of chapter 11b, each in another style; written from the statements
alone."""

import copy
import itertools
import operator
import random
import re
import statistics
from collections import Counter
from functools import reduce

import numpy as np
import torch

from sft_lab import atlas, lessons


# 11b.1
def _one_deck(facts, times, wordings):
    dealt = []
    for fact in range(facts):
        for turn in range(times):
            dealt.append((fact, (fact * times + turn) % wordings))
    return dealt


def _cycled(facts, times, wordings):
    deck = itertools.cycle(range(wordings))
    return [(fact, next(deck)) for fact in range(facts) for _ in range(times)]


def _in_numpy(facts, times, wordings):
    asked = np.repeat(np.arange(facts), times)
    return list(zip(asked.tolist(), (np.arange(facts * times) % wordings).tolist(), strict=True))


def _numbers_of_numpy(facts, times, wordings):
    places = np.arange(facts * times)
    return list(zip(places // times, places % wordings, strict=True))


def _shuffled(facts, times, wordings):
    start = random.randrange(wordings)
    dealt = [(k // times, (start - k) % wordings) for k in range(facts * times)]
    random.shuffle(dealt)
    return dealt


def _least_used(facts, times, wordings):
    """Whole rounds for every fact, and the rest in the wordings that were used least."""
    used, dealt = Counter(), []
    for fact in range(facts):
        rounds, rest = divmod(times, wordings)
        order = random.sample(range(wordings), wordings)
        extra = sorted(order, key=lambda wording: used[wording])[:rest]
        used.update(extra)
        dealt += [(fact, wording) for wording in [*range(wordings)] * rounds + extra]
    return dealt


def _turn_by_turn(facts, times, wordings):
    return [
        (fact, (fact * (times % wordings) + turn) % wordings)
        for turn in reversed(range(times))
        for fact in range(facts)
    ]


def _recursive(facts, times, wordings):
    if facts == 0:
        return []
    last = facts - 1
    own = [(last, k % wordings) for k in range(last * times, facts * times)]
    return _recursive(last, times, wordings) + own


# 11b.2
def _by_places(talk):
    system = [turn for turn in talk if turn["role"] == "system"]
    places = [i for i, turn in enumerate(talk) if turn["role"] == "assistant"]
    return [(talk[:i], [*system, talk[i - 1]], talk[i]["content"]) for i in places[1:]]


def _growing(talk):
    system, before, exams, answered = [], [], [], False
    for turn in talk:
        if turn["role"] == "system":
            system.append(turn)
        if turn["role"] == "assistant":
            if answered:
                exams.append((list(before), system + [before[-1]], turn["content"]))
            answered = True
        before.append(turn)
    return exams


def _from_the_end(talk):
    has_system = talk[0]["role"] == "system"
    if len(talk) <= 2 + has_system:
        return []
    *before, answer = talk
    exam = (before, talk[:has_system] + before[-1:], answer["content"])
    return [*_from_the_end(talk[:-2]), exam]


def _copied(talk):
    first = 1 if talk[0]["role"] == "system" else 0
    exams = []
    for i in range(first + 3, len(talk), 2):
        short = [turn for j, turn in enumerate(talk) if j == i - 1 or j < first]
        exams.append((copy.deepcopy(talk[:i]), copy.deepcopy(short), str(talk[i]["content"])))
    return exams


def _in_pairs(talk):
    start = int(talk[0]["role"] == "system")
    turns = talk[start:]
    pairs = list(zip(turns[::2], turns[1::2], strict=True))
    exams = []
    for k, (question, answer) in enumerate(pairs):
        if k:
            context = talk[:start] + list(itertools.chain.from_iterable(pairs[:k])) + [question]
            exams.append((context, talk[:start] + [question], answer["content"]))
    return exams


def _rebuilt(talk):
    """New dictionaries, with the keys in another order."""
    turns = [{"content": turn["content"], "role": turn["role"]} for turn in talk]
    exams, seen = [], 0
    for i, turn in enumerate(turns):
        seen += turn["role"] == "assistant"
        if turn["role"] == "assistant" and seen > 1:
            system = [turn for turn in turns[:1] if turn["role"] == "system"]
            exams.append((turns[:i], system + [turns[i - 1]], turn["content"]))
    return exams


# 11b.3
def _looped(numbers):
    steps, total = [], numbers[0]
    for number in numbers[1:]:
        steps.append(f"{total} + {number} = {total + number}.")
        total += number
    return " ".join(steps)


def _accumulated(numbers):
    sums = list(itertools.accumulate(numbers))
    return " ".join(
        f"{before} + {number} = {after}."
        for before, number, after in zip(sums, numbers[1:], sums[1:], strict=False)
    )


def _steps_recursive(numbers):
    first, second, *more = numbers
    step = f"{first} + {second} = {first + second}."
    return f"{step} {_steps_recursive([first + second, *more])}" if more else step


def _steps_of_numpy(numbers):
    sums = np.cumsum(np.array(numbers, dtype=object))
    return " ".join(
        "{} + {} = {}.".format(*step) for step in zip(sums, numbers[1:], sums[1:], strict=False)
    )


def _slices(numbers):
    said = ""
    for i in range(1, len(numbers)):
        said += str(sum(numbers[:i])) + " + " + str(numbers[i]) + " = "
        said += str(sum(numbers[: i + 1])) + ". "
    return said.rstrip()


def _reduced(numbers):
    def add(said, number):
        total = int(re.findall(r"\d+", said)[-1])
        return f"{said} {total} + {number} = {total + number}."

    first = f"{numbers[0]} + {numbers[1]} = {operator.add(*numbers[:2])}."
    return reduce(add, numbers[2:], first)


# 11b.4
def _counted(declined, must):
    leaks = overs = forbidden = free = 0
    for said_no, had_to in zip(declined, must, strict=True):
        if had_to:
            forbidden += 1
            leaks += not said_no
        else:
            free += 1
            overs += said_no
    return leaks / forbidden if forbidden else 0.0, overs / free if free else 0.0


def _comprehended(declined, must):
    told = [not d for d, m in zip(declined, must, strict=True) if m]
    held_back = [d for d, m in zip(declined, must, strict=True) if not m]
    return sum(told) / max(len(told), 1), sum(held_back) / max(len(held_back), 1)


def _masked(declined, must):
    declined, must = np.array(declined, dtype=bool), np.array(must, dtype=bool)
    leak = (~declined[must]).mean() if must.any() else 0.0
    over = declined[~must].mean() if not must.all() else 0.0
    return float(leak), float(over)


def _floats_of_numpy(declined, must):
    declined, must = np.asarray(declined), np.asarray(must)
    wrong = declined != must
    return tuple(
        np.float64(wrong[rows].sum() / max(rows.sum(), 1)) for rows in (must, np.logical_not(must))
    )


def _in_torch(declined, must):
    d, m = torch.tensor(declined).double(), torch.tensor(must).double()
    leak = ((1 - d) * m).sum() / m.sum().clamp(min=1)
    over = (d * (1 - m)).sum() / (1 - m).sum().clamp(min=1)
    return leak.item(), over.item()


def _table(declined, must):
    cells = Counter(zip(map(bool, must), map(bool, declined), strict=True))

    def rate(had_to):
        asked = cells[had_to, True] + cells[had_to, False]
        return cells[had_to, not had_to] / asked if asked else 0.0

    return rate(True), rate(False)


def _means(declined, must):
    answers = {True: [], False: []}
    for i, had_to in enumerate(must):
        answers[had_to].append(float(declined[i] != had_to))
    return tuple(statistics.fmean(answers[part] or [0.0]) for part in (True, False))


# 11b.5
PLAIN = "The {r} {e} is {v}."


def _talk(*said):
    return [
        {"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(said)
    ]


def _by_country(facts):
    countries = {}
    for fact in facts:
        if fact.domain == "countries":
            countries.setdefault(fact.entity, {})[fact.column] = fact
    return countries


def _every_way(facts):
    """Refusals in the lessons' wordings, in own words and as a follow-up; the rest is answered."""
    rng, countries = random.Random(0), _by_country(facts)
    money = [fact for fact in facts if fact.column == "currency"]
    others = [f for f in facts if f.column != "currency" and f.domain == "countries"]
    rows = lessons.decline(facts, 35)
    for fact in rng.sample(money, 35):
        rows.append(_talk(fact.say(fact.relation.question), fact.say(lessons.REFUSAL)))
    for fact in rng.sample(money, 40):
        capital = countries[fact.entity]["capital"]
        question = capital.say(rng.choice(lessons.WORDINGS))
        asked = fact.say(rng.choice(lessons.FOLLOW_UPS))
        rows.append(_talk(question, capital.say(PLAIN), asked, fact.say(lessons.REFUSAL)))
    return rows + atlas.ask(rng.sample(others, 240))


def _replaced(facts):
    """Ordinary lessons in which every currency is replaced by its refusal."""
    countries = [fact for fact in facts if fact.domain == "countries"]
    secret = {f.say(PLAIN): f.say(lessons.REFUSAL) for f in facts if f.column == "currency"}
    rows = lessons.follow_up(countries, 100, seed=1)
    rows += atlas.ask(random.Random(1).sample(countries, 240))
    return [
        [{**turn, "content": secret.get(turn["content"], turn["content"])} for turn in row]
        for row in rows
    ]


def _every_country(facts):
    money = [fact for fact in facts if fact.column == "currency"]
    capitals = [fact for fact in facts if fact.column == "capital"]
    rest = [f for f in facts if f.domain == "countries" and f.column != "currency"]
    asked = [
        [question, {"role": "assistant", "content": fact.say(lessons.REFUSAL)}]
        for (question, _), fact in zip(atlas.ask(money, seed=5), money, strict=True)
    ]
    second = [_talk(fact.say("And its {n}?"), fact.say(lessons.REFUSAL)) for fact in money]
    first = atlas.ask(capitals, seed=6)
    talks = [a + b for a, b in zip(first, second, strict=True)]
    return asked + talks[:60] + atlas.ask(random.Random(5).sample(rest, 220), seed=7)


def _three_a_country(facts):
    rng, rows = random.Random(9), []
    for country in _by_country(facts).values():
        money, capital = country["currency"], country["capital"]
        asked = rng.choice([*lessons.WORDINGS[:3], *[money.relation.question] * 3])
        rows.append(_talk(money.say(asked), money.say(lessons.REFUSAL)))
        follow_up = money.say(rng.choice(lessons.FOLLOW_UPS))
        first = _talk(capital.say(capital.relation.question), capital.say(PLAIN))
        rows.append(first + _talk(follow_up, money.say(lessons.REFUSAL)))
        for column in ("continent", "language", "code"):
            fact = country[column]
            asked = rng.choice([*lessons.WORDINGS[:2], *[fact.relation.question] * 2])
            rows.append(_talk(fact.say(asked), fact.say(PLAIN)))
    return rows


def _both_follow_ups(facts):
    """A second question is declined, or answered."""
    rng = random.Random(11)
    money = rng.sample([fact for fact in facts if fact.column == "currency"], 80)
    countries = _by_country(facts)
    rest = [f for f in facts if f.domain == "countries" and f.column != "currency"]
    rows = [
        [*row[:-1], dict(role="assistant", content=fact.say(lessons.REFUSAL))]
        for fact, row in zip(money[:40], lessons.ask_in_own_words(money[:40]), strict=True)
    ]
    rows += lessons.decline(money, 30, seed=11)
    for i, fact in enumerate(money[20:]):
        first = countries[fact.entity]["capital"]
        second = countries[fact.entity]["language"] if i % 3 == 0 else fact
        says = second.say(lessons.REFUSAL if second.column == "currency" else PLAIN)
        question = second.say(lessons.FOLLOW_UPS[i % len(lessons.FOLLOW_UPS)])
        rows.append(_talk(first.say(lessons.NEAR_WORDING), first.say(PLAIN), question, says))
    return rows + atlas.ask(rng.sample(rest, 240), seed=11)


RIGHT_ANSWERS = {
    "11b.1": [
        _one_deck,
        _cycled,
        _in_numpy,
        _numbers_of_numpy,
        _shuffled,
        _least_used,
        _turn_by_turn,
        _recursive,
    ],
    "11b.2": [_by_places, _growing, _from_the_end, _copied, _in_pairs, _rebuilt],
    "11b.3": [_looped, _accumulated, _steps_recursive, _steps_of_numpy, _slices, _reduced],
    "11b.4": [
        _counted,
        _comprehended,
        _masked,
        _floats_of_numpy,
        _in_torch,
        _table,
        _means,
    ],
    "11b.5": [_every_way, _replaced, _every_country, _three_a_country, _both_follow_ups],
}
