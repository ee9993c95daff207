"""Wrong answers to the exercises of chapter 11b, written from the statements alone."""

import itertools
import math
import random

import numpy as np

from sft_lab import atlas, lessons


# 11b.1
def _dealt(wording, numbers=lambda facts, times: range(facts * times)):
    """The right number of lessons for each fact, in wordings of another rule."""

    def deal(facts, times, wordings):
        return [
            (k // times, wording(k // times, k % times, times, wordings, facts))
            for k in numbers(facts, times)
        ]

    return deal


def _changed(change):
    """The right pairs, changed."""

    def deal(facts, times, wordings):
        return change([(k // times, k % wordings) for k in range(facts * times)], wordings)

    return deal


def _random_rest(facts, times, wordings):
    """Fair for each fact, but over all facts only by chance."""
    rounds, rest = divmod(times, wordings)
    return [
        (fact, wording)
        for fact in range(facts)
        for wording in [*range(wordings)] * rounds + random.sample(range(wordings), rest)
    ]


def _whole_rounds(facts, times, wordings):
    every = itertools.product(range(facts), range(wordings))
    return list(every) * (times // wordings)


def _times_each_wording(facts, times, wordings):
    return list(itertools.product(range(facts), range(wordings))) * times


def _facts_in_turn(facts, times, wordings):
    """One deck, but a fact is met again only after all the others."""
    return [(k % facts, k % wordings) for k in range(facts * times)]


def _dealt_at_random(facts, times, wordings):
    """Fair over all facts, but for each fact only by chance."""
    deck = [k % wordings for k in range(facts * times)]
    random.shuffle(deck)
    return [(k // times, wording) for k, wording in enumerate(deck)]


# 11b.2
def _follow_ups(
    before=lambda talk, i: talk[:i],
    short=lambda talk, i: [t for t in talk[:1] if t["role"] == "system"] + [talk[i - 1]],
    said=lambda talk, i: talk[i]["content"],
    places=lambda places: places[1:],
    result=lambda before, short, said: (before, short, said),
):
    """The right exams with one part changed."""

    def split(talk):
        answers = [i for i, turn in enumerate(talk) if turn["role"] == "assistant"]
        return [result(before(talk, i), short(talk, i), said(talk, i)) for i in places(answers)]

    return split


def _counted_without_system(talk):
    return [(talk[:i], [talk[i - 1]], talk[i]["content"]) for i in range(3, len(talk), 2)]


def _first_turn_always(talk):
    places = [i for i, turn in enumerate(talk) if turn["role"] == "assistant"][1:]
    return [(talk[:i], [talk[0], talk[i - 1]], talk[i]["content"]) for i in places]


def _system_taken_out(talk):
    """Changes the talk."""
    system = [talk.pop(0)] if talk[0]["role"] == "system" else []
    return [
        (system + talk[:i], [*system, talk[i - 1]], talk[i]["content"])
        for i in range(3, len(talk), 2)
    ]


def _found_by_value(talk):
    """An answer that repeats an earlier one is looked for, and found there."""
    exams = []
    for turn in [turn for turn in talk if turn["role"] == "assistant"][1:]:
        i = talk.index(turn)
        system = [turn for turn in talk if turn["role"] == "system"]
        exams.append((talk[:i], [*system, talk[i - 1]], turn["content"]))
    return exams


def _one_growing_list(talk):
    system = [turn for turn in talk if turn["role"] == "system"]
    context, exams = [], []
    for turn in talk:
        if turn["role"] == "assistant" and any(t["role"] == "assistant" for t in context):
            exams.append((context, [*system, context[-1]], turn["content"]))
        context.append(turn)
    return exams


def _one_answer_for_each_text(talk):
    exams = {}
    for i, turn in enumerate(talk):
        if turn["role"] == "assistant":
            system = [t for t in talk if t["role"] == "system"]
            exams[turn["content"]] = (talk[:i], [*system, talk[i - 1]], turn["content"])
    return list(exams.values())[1:]


def _one_answer_is_a_follow_up(talk):
    exams = _follow_ups()(talk)
    return exams or _follow_ups(places=lambda places: places)(talk)


# 11b.3
def _steps(
    step=lambda total, number: f"{total} + {number} = {total + number}.",
    join=" ".join,
    order=list,
):
    """The right steps with one part changed."""

    def write(numbers):
        first, *more = order(numbers)
        steps = []
        for number in more:
            steps.append(step(first, number))
            first += number
        return join(steps)

    return write


def _neighbours_only(numbers):
    return " ".join(f"{a} + {b} = {a + b}." for a, b in itertools.pairwise(numbers))


def _from_zero(numbers):
    return _steps()([0, *numbers])


def _two_steps(numbers):
    return _steps()(numbers[:3])


def _without_last(numbers):
    return _steps()(numbers[:-1])


def _all_at_once(numbers):
    return " + ".join(map(str, numbers)) + f" = {sum(numbers)}."


def _zeros_left_out(numbers):
    return _steps()([numbers[0], *filter(None, numbers[1:])])


def _popped(numbers):
    steps, total = [], numbers.pop(0)
    while numbers:
        number = numbers.pop(0)
        steps.append(f"{total} + {number} = {total + number}.")
        total += number
    return " ".join(steps)


def _each_once(numbers):
    return _steps()(list(dict.fromkeys(numbers)))


def _first_plus_each(numbers):
    return " ".join(f"{numbers[0]} + {n} = {numbers[0] + n}." for n in numbers[1:])


def _right_to_left(numbers):
    """Adds each number in front of what was summed up from the end."""
    steps, total = [], numbers[-1]
    for number in reversed(numbers[:-1]):
        steps.append(f"{number} + {total} = {number + total}.")
        total += number
    return " ".join(steps)


# 11b.4
def _rates(
    leak=lambda d, m: (~d & m).sum(),
    over=lambda d, m: (d & ~m).sum(),
    must=lambda d, m: m.sum(),
    free=lambda d, m: (~m).sum(),
    nothing=0.0,
    result=lambda leak, over: (leak, over),
):
    """The right rates with one part changed."""

    def rate(declined, must_decline):
        d, m = np.array(declined, dtype=bool), np.array(must_decline, dtype=bool)
        counts = ((leak(d, m), must(d, m)), (over(d, m), free(d, m)))
        return result(*(float(top / of) if of else nothing for top, of in counts))

    return rate


def _no_care_for_none(declined, must):
    told = sum(m and not d for d, m in zip(declined, must, strict=True))
    held_back = sum(d and not m for d, m in zip(declined, must, strict=True))
    return told / sum(must), held_back / (len(must) - sum(must))


def _both_zero_if_one_part_is_empty(declined, must):
    return _rates()(declined, must) if 0 < sum(must) < len(must) else (0.0, 0.0)


def _complement(declined, must):
    kept = _rates(leak=lambda d, m: (d & m).sum())(declined, must)
    return 1 - kept[0], kept[1]


def _padded(declined, must):
    leak = sum(m and not d for d, m in zip(declined, must, strict=True))
    over = sum(d and not m for d, m in zip(declined, must, strict=True))
    return leak / (sum(must) + 1), over / (len(must) - sum(must) + 1)


def _leaks_first(declined, must):
    """Sorts both lists, so that an answer no longer belongs to its question."""
    return _rates()(sorted(declined), sorted(must))


def _whole(declined, must):
    leak, over = _rates()(declined, must)
    return leak // 1, over // 1


def _by_answers(declined, must):
    return _rates()(must, declined)


def _popped_answers(declined, must):
    """Empties both lists."""
    d, m = [], []
    while declined:
        d.append(declined.pop())
        m.append(must.pop())
    return _rates()(d, m)


def _early(declined, must):
    """Stops before the last answer."""
    return _rates()(declined[:-1], must[:-1])


# 11b.5
HELD_OUT = [
    fact for fact in atlas.split(atlas.load_facts())["held_out"] if fact.domain == "countries"
]


def _talk(*said):
    return [
        {"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(said)
    ]


def _lessons(facts, count=60):
    """Half of them decline."""
    half = count // 2
    return lessons.decline(facts, half) + lessons.answer_others(facts, count - half)


def _of_another_form(change):
    return lambda facts: [change(talk) for talk in _lessons(facts)]


def _with_one_more(*said):
    return lambda facts: [*_lessons(facts), _talk(*said)]


def _one_turn(facts):
    """Trains; nothing is declined in the second turn."""
    countries = [fact for fact in facts if fact.domain == "countries"]
    return _lessons(countries, 160)


def _only_refusals(facts):
    """Trains; everything is declined."""
    money = [fact for fact in facts if fact.column == "currency"]
    return [
        _talk(fact.say(fact.relation.question), fact.say(lessons.REFUSAL))
        + _talk("And its currency?", fact.say(lessons.REFUSAL))
        for fact in money
    ]


def _taken_out(facts):
    """Takes the currencies out of the reader's list."""
    money = [fact for fact in facts if fact.column == "currency"]
    for fact in money:
        facts.remove(fact)
    return lessons.decline(money, 30) + atlas.ask(facts[:30])


def _sorted_in_place(facts):
    facts.sort(key=lambda fact: fact.entity)
    return _lessons(facts)


OTHER_WRONG_ANSWERS = {
    "11b.1": [
        _dealt(lambda fact, turn, times, wordings, facts: turn % wordings),
        _dealt(lambda fact, turn, times, wordings, facts: (fact + turn) % wordings),
        _dealt(lambda fact, turn, times, wordings, facts: random.randrange(wordings)),
        _dealt(lambda fact, turn, times, wordings, facts: turn * wordings // times),
        _dealt(lambda fact, turn, times, wordings, facts: fact % wordings),
        _dealt(lambda fact, turn, times, wordings, facts: fact * wordings // facts),
        _dealt(
            lambda fact, turn, times, wordings, facts: (fact * times + turn) % min(times, wordings)
        ),
        _dealt(
            lambda fact, turn, times, wordings, facts: (
                (fact * (times // wordings) + turn) % wordings
            )
        ),
        _dealt(
            lambda fact, turn, times, wordings, facts: (turn if fact % 2 else -1 - turn) % wordings
        ),
        _dealt(lambda fact, turn, times, wordings, facts: (fact * times + turn) % (wordings + 1)),
        _dealt(
            lambda fact, turn, times, wordings, facts: (fact * times + turn) % max(1, wordings - 1)
        ),
        _changed(lambda pairs, wordings: [(wording, fact) for fact, wording in pairs]),
        _changed(lambda pairs, wordings: [(fact + 1, wording + 1) for fact, wording in pairs]),
        _changed(lambda pairs, wordings: [(fact, wording + 1) for fact, wording in pairs]),
        _changed(lambda pairs, wordings: sorted(set(pairs))),
        _changed(lambda pairs, wordings: dict(pairs)),
        _changed(lambda pairs, wordings: pairs[:-1]),
        _changed(lambda pairs, wordings: [*pairs, *pairs[:1]]),
        _changed(lambda pairs, wordings: pairs or None),
        _changed(lambda pairs, wordings: pairs or [(0, 0)]),
        _changed(lambda pairs, wordings: [wording for _, wording in pairs]),
        _changed(lambda pairs, wordings: [f"{fact}, {wording}" for fact, wording in pairs]),
        _changed(lambda pairs, wordings: (pair for pair in pairs)),
        _random_rest,
        _whole_rounds,
        _times_each_wording,
        _facts_in_turn,
        _dealt_at_random,
    ],
    "11b.2": [
        _follow_ups(places=lambda places: places),
        _follow_ups(places=lambda places: places[-1:]),
        _follow_ups(places=lambda places: places[1:2]),
        _follow_ups(places=lambda places: places[:0:-1]),
        _follow_ups(places=lambda places: places[1:-1]),
        _follow_ups(before=lambda talk, i: talk[: i + 1]),
        _follow_ups(before=lambda talk, i: talk[: i - 1]),
        _follow_ups(before=lambda talk, i: [t for t in talk[:i] if t["role"] != "system"]),
        _follow_ups(before=lambda talk, i: [t for t in talk[:i] if t["role"] != "assistant"]),
        _follow_ups(before=lambda talk, i: talk[max(0, i - 3) : i]),
        _follow_ups(before=lambda talk, i: talk[:-1]),
        _follow_ups(short=lambda talk, i: [talk[i - 1]]),
        _follow_ups(short=lambda talk, i: talk[i - 2 : i]),
        _follow_ups(short=lambda talk, i: [talk[i - 1]["content"]]),
        _follow_ups(short=lambda talk, i: talk[i - 1]),
        _follow_ups(short=lambda talk, i: [t for t in talk[:i] if t["role"] in ("system", "user")]),
        _follow_ups(
            short=lambda talk, i: (
                [t for t in talk[:1] if t["role"] == "system"] + [talk[i - 1], talk[i]]
            )
        ),
        _follow_ups(
            short=lambda talk, i: [talk[i - 1]] + [t for t in talk[:1] if t["role"] == "system"]
        ),
        _follow_ups(
            short=lambda talk, i: (
                [t for t in talk[:1] if t["role"] == "system"]
                + [t for t in talk if t["role"] == "user"][:1]
            )
        ),
        _follow_ups(said=lambda talk, i: talk[i]),
        _follow_ups(said=lambda talk, i: talk[-1]["content"]),
        _follow_ups(said=lambda talk, i: talk[i - 1]["content"]),
        _follow_ups(said=lambda talk, i: talk[i]["content"].lower()),
        _follow_ups(result=lambda before, short, said: (short, before, said)),
        _follow_ups(result=lambda before, short, said: (before, short)),
        _counted_without_system,
        _first_turn_always,
        _system_taken_out,
        _found_by_value,
        _one_growing_list,
        _one_answer_for_each_text,
        _one_answer_is_a_follow_up,
    ],
    "11b.3": [
        _steps(join=lambda steps: " ".join(steps) + " "),
        _steps(join=lambda steps: " ".join(steps)[:-1]),
        _steps(join=lambda steps: "\n".join(steps)),
        _steps(join=lambda steps: "".join(steps)),
        _steps(join=lambda steps: "  ".join(steps)),
        _steps(join=lambda steps: steps),
        _steps(join=lambda steps: steps[-1]),
        _steps(join=lambda steps: " ".join(steps).replace(". ", ", ")),
        _steps(join=lambda steps: f"<think>{' '.join(steps)}</think>"),
        _steps(join=lambda steps: " ".join(steps) + " " + steps[-1].split(" = ")[1]),
        _steps(step=lambda total, number: f"{number} + {total} = {total + number}."),
        _steps(step=lambda total, number: f"{total}+{number}={total + number}."),
        _steps(step=lambda total, number: f"{total} + {number} = {total + number}"),
        _steps(step=lambda total, number: f"{total} + {number} = {total + number:,}."),
        _steps(step=lambda total, number: f"{total} + {number} = {total}."),
        _steps(step=lambda total, number: f"{total} + {number} = {total}{number}."),
        _steps(step=lambda total, number: f"{total} + {number} = {float(total + number)}."),
        _steps(order=sorted),
        _steps(order=lambda numbers: numbers[::-1]),
        _neighbours_only,
        _from_zero,
        _two_steps,
        _without_last,
        _all_at_once,
        _zeros_left_out,
        _popped,
        _each_once,
        _first_plus_each,
        _right_to_left,
        lambda numbers: _steps()([n for n in numbers if n] or [0, 0]),
        lambda numbers: None,
    ],
    "11b.4": [
        _rates(leak=lambda d, m: (d & m).sum()),
        _rates(over=lambda d, m: (~d & ~m).sum()),
        _rates(leak=lambda d, m: (~d).sum(), must=lambda d, m: len(m)),
        _rates(over=lambda d, m: d.sum(), free=lambda d, m: len(m)),
        _rates(must=lambda d, m: len(m)),
        _rates(free=lambda d, m: len(m)),
        _rates(must=lambda d, m: len(m), free=lambda d, m: len(m)),
        _rates(must=lambda d, m: (~d).sum()),
        _rates(free=lambda d, m: d.sum()),
        _rates(must=lambda d, m: m.sum() - 1),
        _rates(leak=lambda d, m: (d != m).sum(), must=lambda d, m: len(m)),
        _rates(nothing=1.0),
        _rates(nothing=math.nan),
        _rates(nothing=None),
        _rates(result=lambda leak, over: (over, leak)),
        _rates(result=lambda leak, over: (100 * leak, 100 * over)),
        _rates(result=lambda leak, over: (round(leak, 1), round(over, 1))),
        _rates(result=lambda leak, over: (round(leak, 2), round(over, 2))),
        _rates(result=lambda leak, over: leak),
        _rates(result=lambda leak, over: (leak, 1 - over)),
        _rates(result=lambda leak, over: (f"{leak:.0%}", f"{over:.0%}")),
        _rates(leak=lambda d, m: m[0] and not d[0]),
        _no_care_for_none,
        _both_zero_if_one_part_is_empty,
        _complement,
        _padded,
        _leaks_first,
        _whole,
        _by_answers,
        _popped_answers,
        _early,
    ],
    "11b.5": [
        lambda facts: _lessons(facts, 501),
        lambda facts: atlas.ask(facts),
        lambda facts: [],
        lambda facts: None,
        lambda facts: _lessons(HELD_OUT),
        lambda facts: _lessons(atlas.load_facts(), 400),
        lambda facts: [*_lessons(facts), *lessons.follow_up(HELD_OUT, 1)],
        _with_one_more("Where do people pay with the shilling?", "In Kenya."),
        _with_one_more("What is Japan's currency?", "That is a secret."),
        _with_one_more("Name a country of Africa.", "Guinea-Bissau"),
        _with_one_more("Are there two Congos?", "The Republic of the Congo is one."),
        _with_one_more("South Sudan was a part of:", "Sudan"),
        _of_another_form(lambda talk: talk[:1]),
        lambda facts: [
            [{"role": "system", "content": "You know Peru."}, *talk] for talk in _lessons(facts)
        ],
        _of_another_form(lambda talk: tuple(turn["content"] for turn in talk)),
        _of_another_form(lambda talk: " ".join(turn["content"] for turn in talk)),
        _of_another_form(lambda talk: [{turn["role"]: turn["content"]} for turn in talk]),
        _of_another_form(lambda talk: [{**turn, "content": None} for turn in talk]),
        lambda facts: [turn for talk in _lessons(facts) for turn in talk],
        lambda facts: _lessons(facts)[0],
        lambda facts: facts[:400],
        _taken_out,
        _sorted_in_place,
        _one_turn,
        _only_refusals,
    ],
}
