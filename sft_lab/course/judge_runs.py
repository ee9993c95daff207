"""Chapter 16d: pairs of answers that differ in one thing, the audit of a judge, and its repairs."""

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from sft_lab.course.repeat_runs import entities
from sft_lab.documents import PLAIN
from sft_lab.facts import Fact
from sft_lab.judges import (
    BIASES,
    OWN_STYLE,
    QUESTION,
    Judge,
    make_judge,
)

PROBES = BIASES  # a probe for each bias
FEWEST_FACTS = 2
STRICT = 2.5  # standard errors: two-sided 5 % for four preferences together (Bonferroni)
FILLING = (10, 60)  # words of filling in an everyday answer
STEADY = 0.1  # the share of changed verdicts that an honest judge may show
# the jury of exercise 16d.4: a name, and bias, strength and noise, which the reader does not see
JURORS = {
    "Ada": ("position", 0.68, 0.25),
    "Ben": ("position", 0.7, 0.25),
    "Cho": ("position", 0.72, 0.25),
    "Dee": ("length", 6.0, 0.3),
    "Eli": ("self-preference", 2.8, 0.3),
    "Fay": ("repetition", 6.0, 0.3),
    "Gus": ("noise", 2.5, 0.3),
}
BODY = (
    "Many people know it by name.",
    "There is much more to say.",
    "Books about it are easily found.",
    "Children hear of it at school.",
    "Some of this may sound familiar.",
    "It is often asked about, too.",
    "Such questions are asked quite often.",
    "A longer text could add details.",
    "Every reader will have an opinion.",
    "One could go on for pages.",
    "Here is the rest in short.",
    "This is worth a closer look.",
)
ENDS = {
    3: "That is all.",
    4: "This is well known.",
    5: "So much for the basics.",
    6: "That covers the most important points.",
    7: "Thank you for your interest in it.",
    8: "I hope that this answer helps you today.",
}


class ProbePair(NamedTuple):
    """A question and two answers; only the second has what the probe looks for."""

    question: str
    plain: str
    treated: str


class Finding(NamedTuple):
    """The mean of a probe over its pairs, and its interval."""

    mean: float
    low: float
    high: float


def fill(words: int, seed: int) -> str:
    """Sentences that say nothing about anything, exactly so many words, no sentence twice."""
    longest = 6 * len(BODY) + max(ENDS)
    if not min(ENDS) <= words <= longest:
        raise ValueError(f"{words} words of filling: there are {min(ENDS)} to {longest}")
    body = random.Random(seed).sample(BODY, k=(words - min(ENDS)) // 6)
    return " ".join([*body, ENDS[words - 6 * len(body)]])


def count_words(text: str) -> int:
    """Words, parted by white space."""
    return len(text.split())


@cache
def _known() -> list[list[Fact]]:
    return [*entities("train"), *entities("held_out")]


def draw_pairs(probe: str, count: int, *, seed: int, controlled: bool = True) -> list[ProbePair]:
    """Pairs of answers about `count` entities that differ in what one of PROBES looks for.

    "position": two different answers of equal merit. "length": the treated one is filled up to
    twice the words. "repetition": everything is said twice, beside filling of the same length.
    "self-preference": the judge's own wording, equal facts and length. "noise": one fact more.
    controlled=False: repetition beside an answer of half the length; the own answer states one
    fact more, as that of a better model does.
    """
    if probe not in PROBES:
        raise ValueError(f"no probe {probe!r}; there are {', '.join(PROBES)}")
    rng = random.Random(f"{probe} {seed}")
    pairs = []
    for facts in rng.sample(_known(), k=count):
        told = rng.sample(facts, k=rng.randint(FEWEST_FACTS, 4))
        question = QUESTION.format(e=facts[0].subject)
        plain = _say(told)
        padded = f"{plain} {fill(max(3, count_words(plain)), rng.randrange(10**6))}"
        more = [*told, next(fact for fact in facts if fact not in told)]
        if probe == "position":
            other = rng.sample(facts, k=len(told))
            pair = plain, _say(other if set(other) != set(told) else told[::-1])
        elif probe == "length":
            pair = plain, padded
        elif probe == "repetition":
            pair = padded if controlled else plain, f"{plain} {plain}"
        elif probe == "self-preference":
            pair = plain, _say(told if controlled else more, OWN_STYLE)
        else:
            pair = plain, _say(more)
        pairs.append(ProbePair(question, *pair))
    return pairs


def _say(facts: Sequence[Fact], template: str = PLAIN) -> str:
    return " ".join(fact.say(template) for fact in facts)


def lean_to_first(judge: Judge, pair: ProbePair, seed: int = 0) -> float:
    """How far the judge leans to the place "first", from -1 to 1, over both orders."""
    question, a, b = pair
    return sum(_sign(judge(question, *order, seed)) for order in ((a, b), (b, a))) / 2


def lean_to_treated(judge: Judge, pair: ProbePair, seed: int = 0) -> float:
    """How far the judge leans to the treated answer, from -1 to 1, over both orders."""
    question, plain, treated = pair
    there = _sign(judge(question, treated, plain, seed))
    return (there - _sign(judge(question, plain, treated, seed))) / 2


def changes_its_mind(judge: Judge, pair: ProbePair, seed: int = 0) -> float:
    """1.0 if the same call, asked again with another seed, gets another verdict; else 0.0."""
    question, plain, treated = pair
    asked = [judge(question, treated, plain, 2 * seed + again) for again in (0, 1)]
    return float(asked[0] != asked[1])


def _sign(verdict: str) -> int:
    return {"first": 1, "second": -1, "tie": 0}[verdict]


MEASURES = {
    "position": lean_to_first,
    "length": lean_to_treated,
    "repetition": lean_to_treated,
    "self-preference": lean_to_treated,
    "noise": changes_its_mind,
}


def audit(
    judge: Judge, *, count: int, seed: int, controlled: bool = True, errors: float = STRICT
) -> dict[str, Finding]:
    """Every probe on `count` pairs of its own: mean, and interval of so many standard errors."""
    found = {}
    for probe, measure in MEASURES.items():
        pairs = draw_pairs(probe, count, seed=seed, controlled=controlled)
        found[probe] = interval([measure(judge, pair, seed) for pair in pairs], errors)
    return found


def interval(values: Sequence[float], errors: float) -> Finding:
    """Mean, and the mean plus and minus so many standard errors."""
    mean = float(np.mean(values))
    wide = errors * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Finding(mean, mean - wide, mean + wide)


def name_bias(found: Mapping[str, Finding]) -> str:
    """The bias that an audit shows, or "honest".

    A preference is shown when its interval leaves out 0; the largest is named. Noise is named when
    no preference is shown and more verdicts change than an honest judge's may: a lean makes close
    calls unsteady, too.
    """
    leans = {p: f.mean for p, f in found.items() if p != "noise" and not f.low <= 0 <= f.high}
    if leans:
        return max(leans, key=lambda probe: abs(leans[probe]))
    return "noise" if found["noise"].low > STEADY else "honest"


def draw_judge(seed: int, strengths: Sequence[float]) -> tuple[Judge, str, float]:
    """A judge of unknown kind, its bias (or "honest") and strength, drawn by `seed`."""
    rng = random.Random(f"judge {seed}")
    bias, strength = rng.choice((*BIASES, "honest")), rng.choice(strengths)
    if bias == "position" and rng.random() < 0.5:
        strength = -strength
    if bias == "honest":
        strength = 0.0
    return make_judge(bias, strength), bias, strength


def everyday_pairs(count: int, *, seed: int) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Questions with two answers of different merit, and the right verdicts.

    Each of the things that tempt a judge (filling, saying it twice, the judge's own wording) is on
    a side, or on none, by chance, and so is the better answer.
    """
    rng = random.Random(f"everyday {seed}")
    calls, truth = [], []
    while len(calls) < count:
        facts = rng.choice(_known())
        sides, counts = [], rng.sample(range(FEWEST_FACTS, 6), k=2)
        for told in counts:
            said = _say(rng.sample(facts, k=told), rng.choice((PLAIN, OWN_STYLE)))
            fault = rng.random()
            if fault < 0.25:
                said = f"{said} {said}"
            elif fault < 0.65:
                said = f"{said} {fill(rng.randint(*FILLING), rng.randrange(10**6))}"
            sides.append(said)
        question = QUESTION.format(e=facts[0].subject)
        calls.append((question, *sides))
        truth.append("first" if counts[0] > counts[1] else "second")
    return calls, truth


def jury_votes(count: int, *, seed: int) -> tuple[dict[str, list[str]], list[str]]:
    """What each of JURORS says about `count` everyday pairs, and the right verdicts."""
    calls, truth = everyday_pairs(count, seed=seed)
    votes = {}
    for place, (name, (bias, strength, noise)) in enumerate(JURORS.items()):
        judge = make_judge(bias, strength, noise=noise)
        votes[name] = [judge(*call, seed * len(JURORS) + place) for call in calls]
    return votes, truth


def share_same(first: Sequence[str], second: Sequence[str]) -> float:
    """Share of the items that get the same word from both."""
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)
