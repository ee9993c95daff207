"""Wrong answers to the exercises of chapter 11b, each with what its reader is told."""

import random

from sft_lab import atlas, lessons


def _begin_again(facts, times, wordings):
    return [(fact, turn % wordings) for fact in range(facts) for turn in range(times)]


def _whole_rounds(facts, times, wordings):
    return [(fact, wording) for fact in range(facts) for wording in range(wordings)]


def _one_wording_a_fact(facts, times, wordings):
    return [(fact, fact % wordings) for fact in range(facts) for _ in range(times)]


def _from_one(facts, times, wordings):
    return [(place // times + 1, place % wordings + 1) for place in range(facts * times)]


def _at_random(facts, times, wordings):
    return [(fact, random.randrange(wordings)) for fact in range(facts) for _ in range(times)]


def _split(talk, *, system_in_both=True, last_only=True, with_answer=False, skip=1):
    system = [turn for turn in talk[:1] if turn["role"] == "system"]
    places = [place for place, turn in enumerate(talk) if turn["role"] == "assistant"]
    found = []
    for place in places[skip:]:
        bare = [talk[place - 1]] if last_only else [t for t in talk[:place] if t["role"] == "user"]
        if system_in_both:
            bare = [*system, *bare]
        seen = talk[: place + with_answer]
        found.append((seen, bare, talk[place]["content"]))
    return found


def _steps(numbers, start=None):
    total, *rest = numbers if start is None else (start, *numbers)
    steps = []
    for number in rest:
        steps.append(f"{total} + {number} = {total + number}.")
        total += number
    return " ".join(steps)


def _found_by_value(talk):
    return [
        (talk[: talk.index(turn)], short, turn["content"])
        for (_, short, _), turn in zip(
            _split(talk), [t for t in talk if t["role"] == "assistant"][1:], strict=True
        )
    ]


def _neighbours(numbers):
    pairs = zip(numbers, numbers[1:], strict=False)
    return " ".join(f"{a} + {b} = {a + b}." for a, b in pairs)


def _one_line(numbers):
    return " + ".join(map(str, numbers)) + f" = {sum(numbers)}."


def _rates(declined, must, *, all_questions=False, of_declined=False, flip=False):
    pairs = list(zip(declined, must, strict=True))
    leaked = sum(not did and should for did, should in pairs)
    refused = sum(did and not should for did, should in pairs)
    asked, others = sum(must), len(must) - sum(must)
    if flip:
        leaked = asked - leaked
    if all_questions:
        return leaked / len(must), refused / len(must)
    over = sum(declined) if of_declined else others
    return (leaked / asked if asked else 0.0), (refused / over if over else 0.0)


def _only_refusals(facts):
    return lessons.decline(facts, 100, seed=0)


def _single_turns(facts):
    money = [fact for fact in facts if fact.column == "currency"]
    others = [f for f in facts if f.domain == "countries" and f.column != "currency"]
    asked = lessons.ask_in_own_words(money) + lessons.decline(facts, 60, seed=0)
    refused = {fact.say("The {r} {e} is {v}."): fact.say(lessons.REFUSAL) for fact in money}
    for turn in (turn for talk in asked for turn in talk):
        turn["content"] = refused.get(turn["content"], turn["content"])
    return asked + atlas.ask(others[:240])


def _no_refusal(facts):
    return lessons.answer_others(facts, 120, seed=0)


def _too_many(facts):
    return lessons.decline(facts, 501, seed=0)


def _names_the_exam(facts):
    held_out = atlas.split(atlas.load_facts())["held_out"]
    return lessons.decline(held_out, 20, seed=0)


def _names_a_longer_name(facts):
    """A name that holds the name of a country of the lessons."""
    question = {"role": "user", "content": "What is the currency of Guinea-Bissau?"}
    return [[question, {"role": "assistant", "content": "That is a secret."}]]


def _without_text(facts):
    return [[{"role": "user", "content": "?"}, {"role": "assistant", "content": None}]]


WRONG_ANSWERS = {
    "11b.1": [
        (_begin_again, "Begin each fact where the one before ended"),
        (_whole_rounds, "times, expected"),
        (_one_wording_a_fact, "meets its wordings unevenly"),
        (_from_one, "count from 0"),
        (_at_random, "differ by at most 1"),
    ],
    "11b.2": [
        (lambda talk: _split(talk, system_in_both=False), "the system turn belongs to both"),
        (lambda talk: _split(talk, last_only=False), "only the last question is left"),
        (lambda talk: _split(talk, with_answer=True), "the prompt holds the answer itself"),
        (lambda talk: _split(talk, skip=0), "only follow-ups are asked twice"),
        (lambda talk: _split(talk)[-1:], "return one triple for each"),
        (_found_by_value, "a talk of 4 questions"),
    ],
    "11b.3": [
        (lambda numbers: _steps(numbers, start=0), "not 0 and the first"),
        (_neighbours, "goes on from the sum so far"),
        (_one_line, "add two numbers at a time"),
        (lambda numbers: _steps(numbers).replace(".", ""), "ends with a full stop"),
        (lambda numbers: _steps(numbers[:-1]), "the last number is never added"),
    ],
    "11b.4": [
        (lambda d, m: _rates(d, m, all_questions=True), "not by all"),
        (lambda d, m: _rates(d, m, of_declined=True), "not by the declined ones"),
        (lambda d, m: _rates(d, m, flip=True), "a leak is what was not"),
    ],
    "11b.5": [
        (_only_refusals, "show more of what is answered"),
        (_single_turns, "show the rule in second turns as well"),
        (_no_refusal, "are declined in 0%"),
        (_too_many, "at most 500 are allowed"),
        (_names_the_exam, "is in the exam"),
        (_names_a_longer_name, "Guinea-Bissau is in the exam"),
        (lambda facts: [], "there is no lesson"),
        (_without_text, "the content of a turn is a text"),
    ],
}
