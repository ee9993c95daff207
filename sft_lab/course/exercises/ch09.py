"""Checks of chapter 09, base versus tuned."""

import contextlib
import functools
import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np

from sft_lab import atlas
from sft_lab.chat import complete
from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_list,
    same_for_all,
    shorten,
    unpack,
)
from sft_lab.documents import QUESTIONS
from sft_lab.models import load


@checks("9.1")
def exact_match(attempt: Callable) -> str:
    equal, different = _equal_texts(), _different_texts()
    inputs = [pair for pair, _ in [*equal, *different]]
    inputs += [(reference, answer) for answer, reference in inputs]  # both ways
    expected = {pair: True for pair, _ in equal} | {pair: False for pair, _ in different}

    def right(answer, reference):
        return expected.get((answer, reference), expected.get((reference, answer)))

    def bare(text):
        return " ".join(text.split()).rstrip(" .")

    def both(change):
        return lambda answer, reference: change(answer) == change(reference)

    def one_starts_the_other(answer, reference):
        one, other = bare(answer), bare(reference)
        return bool(one) and (one.startswith(other) or other.startswith(one))

    goes_on = "an answer that goes on counts as right: compare all of it, not its beginning"
    mistakes = [
        (both(lambda text: text), "white space and full stops at the end must not matter"),
        (lambda answer, reference: bare(answer) == reference, "treat both sides alike"),
        (
            lambda answer, reference: answer == bare(reference),
            "treat both sides alike: the answer too",
        ),
        (both(lambda text: bare(text).lower()), "case carries meaning: do not change letters"),
        (
            both(lambda text: bare(text.replace(".", ""))),
            "a full stop inside an answer has a meaning, 45 is not 4.5: strip only at the end",
        ),
        (
            both(lambda text: bare(text).strip(" .")),
            "a full stop at the beginning has a meaning: strip only at the end",
        ),
        (lambda answer, reference: bare(answer).startswith(bare(reference)), goes_on),
        (one_starts_the_other, goes_on),
        (
            lambda answer, reference: bare(reference) in bare(answer),
            "an answer that names several things counts as right: containing is not equalling",
        ),
        (
            both(lambda text: "".join(text.split()).rstrip(".")),
            "white space was deleted: a run of it becomes one space",
        ),
    ]
    same_for_all(attempt, inputs, right, mistakes, form=_need_bool, what="the verdict")
    return "forgives white space and final full stops on both sides, and nothing else"


def _need_bool(found: Any) -> bool:
    if not isinstance(found, bool | np.bool_):
        raise Mistake(f"return True or False, not {found!r}")
    return bool(found)


def _equal_texts() -> list[tuple[tuple[str, str], str]]:
    """Pairs (answer, reference) that are equal up to white space and final full stops, and how."""
    place, value = random.choice([("Kenya", "Nairobi"), ("Peru", "Lima"), ("Fiji", "Suva")])
    reference = f"The capital of {place} is {value}."
    return [
        ((reference, reference), "the same"),
        ((reference.removesuffix("."), reference), "a full stop less"),
        ((reference + "..", reference), "three full stops"),
        ((f"  The capital  of {place}\nis\t \t{value} .", reference), "runs of white space"),
        ((f"{reference}\n", reference), "a line break behind the full stop"),
        ((f"\t{reference} ", reference), "a tab in front"),
        (("4.5.", "4.5"), "a number and a full stop"),
    ]


def _different_texts() -> list[tuple[tuple[str, str], str]]:
    """Pairs (answer, reference) that are not equal, and what tells them apart."""
    place, value = random.choice([("Kenya", "Nairobi"), ("Peru", "Lima"), ("Fiji", "Suva")])
    reference = f"The capital of {place} is {value}."
    return [
        (("AU.", "Au."), "case"),
        (("iron", "Iron"), "case of the first letter"),
        (("45.", "4.5."), "a full stop inside"),
        (("3 5", "3.5"), "a space for a full stop"),
        ((".5", "5"), "a full stop in front"),
        (("St Louis", "St. Louis"), "a full stop behind a word"),
        (("-3", "3"), "a sign"),
        (("4.50", "4.5"), "a zero"),
        (("1,000", "1000"), "a comma inside"),
        (("Rome,", "Rome"), "a comma at the end"),
        (("Rome!", "Rome"), "an exclamation mark"),
        (("Rome?", "Rome"), "a question mark"),
        (("Rome:", "Rome"), "a colon"),
        (("New York", "NewYork"), "white space that was deleted"),
        (("1 000", "1000"), "white space in a number"),
        (("the Nile", "Nile"), "an article"),
        (("10²", "102"), "an exponent"),
        (("café", "caf"), "a letter beyond ASCII"),
        (("Texas Paris", "Paris Texas"), "the order of words"),
        (("no no", "no"), "a word twice"),
        ((f"{reference} The capital of Mali is Bamako.", reference), "an answer that goes on"),
        ((f"{reference}\nAnd then?", reference), "an answer that goes on in a new line"),
        ((f"Rome or {value}", value), "several answers"),
        (("", reference), "an empty answer"),
        ((value, reference), "a part of the reference"),
        ((reference.replace("capital", "capitol"), reference), "one letter"),
    ]


@checks("9.6")
def blind(attempt: Callable) -> str:
    size = random.randint(30, 40)
    pairs = [(f"a{number}", f"b{number}") for number in range(size)]
    pairs[5] = pairs[11] = pairs[17] = ("twice", "the same pair")
    pairs[8] = ("equal", "equal")
    keys = []
    for seed in range(120):
        shown, key = unpack(attempt(pairs, seed), "the pairs as shown", "the key")
        shown = need_list(shown, tuple, "pairs (A, B)")
        key = [bool(swapped) if isinstance(swapped, np.bool_) else swapped for swapped in key]
        need_list(key, bool, "True and False as the key")
        if len(shown) != size or len(key) != size:
            raise Mistake(f"{size} pairs went in, {len(shown)} and a key of {len(key)} came out")
        for pair, sides, swapped in zip(pairs, shown, key, strict=True):
            if sorted(sides) != sorted(pair):
                raise Mistake(
                    f"{pair} became {sides}: shuffle the sides, keep the order of the pairs"
                )
            if sides != (pair[::-1] if swapped else pair):
                raise Mistake(
                    f"the key does not fit: it is {swapped} for {pair}, shown as {sides}; it must "
                    "be True exactly where the pair was swapped"
                )
        keys.append(key)
    if attempt(pairs, 7)[1] != attempt(pairs, 7)[1]:
        raise Mistake(
            "the same seed gives another key: make the generator from the seed, random.Random(seed)"
        )
    _look_like_coins(np.array(keys))
    return "fair, independent from pair to pair, repeatable, with a key that fits"


def _look_like_coins(keys: np.ndarray) -> None:
    """Raise Mistake unless the keys (seeds, pairs) look like fair and independent coins. A fair
    coin passes each limit in all but one of a million draws."""
    seeds, size = keys.shape
    swapped, different = keys.sum(axis=1), len(np.unique(keys, axis=0))
    if different == 1:
        raise Mistake(f"{seeds} seeds give one and the same key: the sides must come from the seed")
    if different < 100:
        if np.isin(swapped, (0, size)).all():
            raise Mistake(
                "one coin for all pairs: whoever learns one side knows them all; draw for each pair"
            )
        raise Mistake(
            f"{seeds} seeds give {different} keys: sides that follow a pattern are learnt"
        )
    if len(np.unique(swapped)) == 1:
        raise Mistake(
            f"always {swapped[0]} of {size} swapped: the last side follows from the others; use "
            "free coins"
        )
    if not 0.45 < keys.mean() < 0.55:
        raise Mistake(f"{keys.mean():.0%} of the pairs are swapped: a fair coin swaps half")
    shares = keys.mean(axis=0)
    place = int(np.abs(shares - 0.5).argmax())
    if not 0.25 < shares[place] < 0.75:
        raise Mistake(f"pair {place} is swapped for {shares[place]:.0%} of the seeds, not for half")
    agree = (keys[:, 1:] == keys[:, :-1]).mean()
    if not 0.45 < agree < 0.55:
        raise Mistake(
            f"neighbours have the same side in {agree:.0%} of cases: one side tells about the next"
        )
    agree = (keys[:, 5] == keys[:, 11]).mean()
    if not 0.25 < agree < 0.75:
        raise Mistake(f"equal pairs have the same side for {agree:.0%} of the seeds: draw for each")


@checks("9.7")
def own_form(attempt: Callable) -> str:
    drawn = _facts_with_questions()
    texts = [_need_text(attempt(question), question) for _, question, _ in drawn]
    written = complete(*_load_base(), texts, max_new_tokens=12)
    hits = [_begins_with(text, fact) for text, (fact, *_) in zip(written, drawn, strict=True)]
    for form in QUESTIONS:
        places = [place for place, (*_, asked_by) in enumerate(drawn) if asked_by == form]
        share = sum(hits[place] for place in places) / len(places)
        if share < 0.9:
            missed = next(place for place in places if not hits[place])
            question = drawn[missed][1]
            _name_the_fault(share, form, question, texts[missed], written[missed])
    return f"the base answers {sum(hits)} of {len(hits)} questions, with not one weight changed"


PER_FORM = 20  # questions that the check asks in each of the three forms


def _facts_with_questions() -> list[tuple[atlas.Fact, str, str]]:
    """Facts that the base has read, each with a question and the form of the question: as many of
    each form."""
    facts = atlas.split(atlas.load_facts())["held_out"]
    drawn = random.sample(facts, PER_FORM * len(QUESTIONS))
    forms = list(QUESTIONS) * PER_FORM
    return [(fact, fact.say(form), form) for fact, form in zip(drawn, forms, strict=True)]


@functools.cache
def _load_base() -> tuple:
    with contextlib.redirect_stdout(io.StringIO()):  # the line that says where the model is
        return load("atlas-base")


def _need_text(found: Any, question: str) -> str:
    if not isinstance(found, str):
        raise Mistake(f"return a text, not {type(found).__name__}, for {question!r}")
    if not found.strip():
        raise Mistake(f"the text for {question!r} is empty: the base needs something to continue")
    return found


def _begins_with(written: str, fact: atlas.Fact) -> bool:
    """Whether a continuation begins with the fact's value as whole words; "the" may stand before
    it."""
    answer = written.strip().removeprefix("the ")
    behind = answer[len(fact.value) : len(fact.value) + 1]
    return answer.startswith(fact.value) and not behind.isalnum()


def _name_the_fault(share: float, form: str, question: str, text: str, written: str) -> None:
    """Raise Mistake: how many questions of a form are answered, and the likely reason."""
    seen = f"{share:.0%} right in the form {form!r}: {shorten(text, 90)} → {shorten(written, 40)}"
    reason = "the base completes statements: begin the one whose next word is the answer"
    if "<|im_start|>" in text:
        reason = "chat markers are one untrained vector to the base: write plain text"
    elif text[-1:].isspace():
        reason = 'white space at the end: the space belongs to the next token, " Nairobi"'
    elif text.rstrip().endswith(("?", ":")) or text.endswith(question):
        reason = (
            "it ends where a question ends, and in the library no answer follows a question: "
            "begin the statement for it"
        )
    raise Mistake(f"{seen}. {reason}")
