"""Station "judge": judges of two answers with a bias planted in them, and agreement beyond chance.

A judge is a function (question, first answer, second answer, seed) -> "first", "second" or "tie".
Those made here know the truth about Atlas: an answer's merit is the number of right facts it states
minus the wrong ones. A bias adds something to the merit that a judge should not see. So it is known
what an audit must find. Derived in chapter 16d.
"""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np

from sft_lab.documents import STATEMENTS
from sft_lab.facts import Fact, load_facts
from sft_lab.metrics import split_sentences

Judge = Callable[[str, str, str, int], str]

VERDICTS = ("first", "second", "tie")
BIASES = ("position", "length", "repetition", "self-preference", "noise")
QUESTION = "Tell me about {e}."
OWN_STYLE = STATEMENTS[2]  # "For Kenya, the capital is …": the judge's own wording
TIE = 0.5  # a lead in merit below half a fact is a tie
NOISE = 0.3  # standard deviation of every judge's lead, in facts


@lru_cache(maxsize=2**15)
def merit(question: str, answer: str) -> int:
    """Right facts that the answer states, each counted once, minus the wrong ones.

    Wrong is a sentence that gives one of the entity's relations another value. Any other sentence
    counts nothing. Raises ValueError for a question that is not `QUESTION` about an entity of
    Atlas.
    """
    statements, any_value = _statements(question)
    right, wrong = set(), set()
    for sentence in split_sentences(answer):
        if sentence in statements:
            right.add(statements[sentence])
        elif any_value.fullmatch(sentence):
            wrong.add(sentence)
    return len(right) - len(wrong)


def make_judge(bias: str, strength: float = 0.0, *, noise: float = NOISE) -> Judge:
    """A judge with one bias of BIASES, or "honest".

    strength: in right facts, for an answer that has the whole of what the bias likes: it stands
    first (negative: second), is twice as long, says everything twice, or has the judge's own
    wording throughout. For "noise" it is added to the standard deviation of the lead. The same
    seed gives the same verdict on the same call; another seed draws the noise anew.
    """
    if bias not in (*BIASES, "honest"):
        raise ValueError(f"no bias {bias!r}; there are honest, {', '.join(BIASES)}")
    spread = noise + strength if bias == "noise" else noise

    def judge(question: str, first: str, second: str, seed: int = 0) -> str:
        lead = merit(question, first) - merit(question, second)
        lead += strength * _pull(bias, first, second)
        chance = random.Random(f"{seed}|{question}|{first}|{second}")
        lead += chance.gauss(0, spread)
        return "tie" if abs(lead) < TIE else "first" if lead > 0 else "second"

    return judge


def _pull(bias: str, first: str, second: str) -> float:
    """What a bias sees in the first answer more than in the second."""
    if bias == "position":
        return 1.0
    if bias == "length":
        return math.log2(max(1, len(first.split())) / max(1, len(second.split())))
    if bias == "repetition":
        return _said_again(first) - _said_again(second)
    if bias == "self-preference":
        return _in_own_style(first) - _in_own_style(second)
    return 0.0


@cache
def _said_again(answer: str) -> float:
    """Sentences that stood before, for each different one: 1.0 where everything is said twice."""
    sentences = split_sentences(answer)
    different = len(set(sentences))
    return (len(sentences) - different) / different if different else 0.0


@cache
def _in_own_style(answer: str) -> float:
    """Share of sentences that begin as OWN_STYLE does."""
    sentences = split_sentences(answer)
    own = sum(re.match(r"For [^,]+, the ", sentence) is not None for sentence in sentences)
    return own / len(sentences) if sentences else 0.0


@cache
def _by_question() -> dict[str, tuple[Fact, ...]]:
    found: dict[str, tuple[Fact, ...]] = {}
    for fact in load_facts():
        question = QUESTION.format(e=fact.subject)
        found[question] = (*found.get(question, ()), fact)
    return found


@cache
def _statements(question: str) -> tuple[dict[str, Fact], re.Pattern]:
    """The right statements, in every wording, and a pattern of the same with any value."""
    facts = _by_question().get(question)
    if facts is None:
        raise ValueError(
            f"question {question!r}: expected {QUESTION.format(e='…')!r} with an entity of Atlas, "
            "as `sft_lab.facts` writes it"
        )
    right, patterns = {}, []
    for fact in facts:
        blank = replace(fact, value="@")
        value = re.escape(re.escape(f"{fact.relation.article}@"))
        for template in STATEMENTS:
            right[fact.say(template)] = fact
            # where the value begins the sentence, its article is capital
            patterns.append(re.sub(f"(?i:{value})", ".+", re.escape(blank.say(template))))
    return right, re.compile("|".join(patterns))


def both_orders(judge: Judge) -> Judge:
    """The same judge, asked in both orders: an answer wins if it wins in both, else it is a tie."""

    def careful(question: str, first: str, second: str, seed: int = 0) -> str:
        one, other = judge(question, first, second, seed), judge(question, second, first, seed)
        return one if one == swap(other) else "tie"

    return careful


def swap_test(judge: Judge, pairs: Sequence[tuple[str, str, str]]) -> tuple[float, float]:
    """Ask about every pair (question, a, b) in both orders: (consistent, lean).

    consistent: the share of pairs with one outcome in both orders; lean: the mean over all calls of
    +1 for the first place, -1 for the second and 0 for a tie. Raises ValueError without a pair.
    """
    if not pairs:
        raise ValueError("no pairs: a swap test needs at least one")
    points = {"first": 1, "second": -1, "tie": 0}
    calls = [(judge(q, a, b, 0), judge(q, b, a, 0)) for q, a, b in pairs]
    lean = sum(points[verdict] for both in calls for verdict in both) / (2 * len(calls))
    return sum(one == swap(other) for one, other in calls) / len(calls), lean


def share_at_equal_length(wins: Sequence[float], extra: Sequence[float]) -> float:
    """B's share of the wins where both answers are equally long, read from the line that fits best.

    wins: 1, 0.5 or 0 for B, a pair; extra: words that B's answer has more.
    """
    return float(np.polyfit(extra, wins, 1)[1])


def swap(verdict: str) -> str:
    """The verdict as it reads when the two answers change places."""
    return {"first": "second", "second": "first", "tie": "tie"}[verdict]


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Agreement of two raters beyond chance, from -1 to 1; 0 is what chance gives (Cohen's kappa).

    (observed - expected) / (1 - expected): expected is the agreement of two raters who use each
    word as often as these do, and draw independently. None where both always use one and the same
    word: chance alone explains all of it. Raises ValueError for no items or different numbers of
    them. Source: Cohen 1960, A coefficient of agreement for nominal scales.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"{len(first)} and {len(second)} ratings: each rater needs one for every item"
        )
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    expected = (
        sum(
            sum(a == word for a in first) * sum(b == word for b in second)
            for word in {*first, *second}
        )
        / n**2
    )
    return None if expected == 1 else (observed - expected) / (1 - expected)


def majority(votes: Sequence[str]) -> str:
    """The verdict of more than half of the votes; "tie" where there is none."""
    if not votes:
        raise ValueError("no votes: a jury needs at least one judge")
    return next((verdict for verdict in VERDICTS if 2 * votes.count(verdict) > len(votes)), "tie")
