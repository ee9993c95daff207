"""Station "judge": a small battery of general abilities over the world of atlas, in GLUE's manner.

Four tasks: acceptability of a sentence, same meaning, entailment from a passage, commonsense. An
item is a context and some ways to go on. A model's answer is the way that it finds likeliest, so a
base model, which answers no question, can take the battery too. Derived in chapter 16c.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.arguments import whole_number
from sft_lab.documents import PLAIN, STATEMENTS
from sft_lab.facts import Fact, load_facts, split
from sft_lab.invented import invent_passage, made_up_name
from sft_lab.perplexity import Score, score_texts

BATCH_SIZE = 64
RULES = ("sum", "token", "byte")
# what follows from its class for an animal that nobody ever heard of
COVERINGS = {"mammal": "fur", "bird": "feathers", "fish": "scales", "insect": "exoskeleton"}


@dataclass(frozen=True)
class Item:
    """A question of the battery: a context and the ways to go on, of which one is right."""

    task: str
    context: str  # read, never scored; may be empty
    choices: tuple[str, ...]
    right: int  # the place of the right choice
    cluster: str  # items of one cluster are about the same thing, and hang together


def acceptability(rng: random.Random) -> Item:
    """A statement, or the same with two neighbouring words exchanged (in CoLA's manner)."""
    fact = rng.choice(split(load_facts())["held_out"])
    sentence = fact.say(rng.choice(STATEMENTS))
    return _shuffled(rng, "acceptability", "", sentence, [swap_words(rng, sentence)], fact.entity)


def same_meaning(rng: random.Random) -> Item:
    """A statement about the real world or a made-up one, often false; which of two others says the
    same? The wrong one exchanges entity and value, or is true (in the manner of paraphrase tests).
    """
    one, other = rng.sample(STATEMENTS, 2)
    if rng.random() < 0.5:
        told = invent_passage(rng)[0]
        wrong = Fact(told.domain, told.value, told.column, told.entity)
    else:
        wrong = rng.choice([f for f in split(load_facts())["held_out"] if f.domain == "countries"])
        told = Fact(wrong.domain, wrong.entity, wrong.column, made_up_name(rng))
    choices = [" " + fact.say(other) for fact in (told, wrong)]
    return _shuffled(rng, "same meaning", told.say(one), choices[0], choices[1:], told.entity)


def entailment(rng: random.Random) -> Item:
    """A passage about made-up countries; which of two statements follows from it? The wrong one
    takes its value from another sentence of the passage."""
    told, true, false = _passage(rng)
    choices = ["\n" + fact.say(PLAIN) for fact in (true, false)]
    return _shuffled(rng, "entailment", told, choices[0], choices[1:], true.entity)


def yes_or_no(rng: random.Random) -> Item:
    """The same, asked as a question: does one statement follow, yes or no? No part of TASKS: it
    shows what the form of an item does."""
    told, true, false = _passage(rng)
    right = rng.randrange(2)
    question = f"{told}\nDoes it follow? {(true, false)[right].say(PLAIN)}"
    return Item("yes or no", question, (" Yes.", " No."), right, true.entity)


def commonsense(rng: random.Random) -> Item:
    """What covers an animal of a made-up name, whose class is told? One of four."""
    kind, name = rng.choice(list(COVERINGS)), made_up_name(rng).lower()
    told = [Fact("animals", name, "class", kind), Fact("animals", name, "covering", "")]
    context = " ".join(fact.say(PLAIN) for fact in told).removesuffix(" .")
    wrong = [f" {value}." for other, value in COVERINGS.items() if other != kind]
    return _shuffled(rng, "commonsense", context, f" {COVERINGS[kind]}.", wrong, kind)


TASKS: dict[str, Callable[[random.Random], Item]] = {
    "acceptability": acceptability,
    "same meaning": same_meaning,
    "entailment": entailment,
    "commonsense": commonsense,
}


def build_battery(count: int = 150, *, seed: int = 0) -> dict[str, list[Item]]:
    """`count` different items of each task, decided by `seed`."""
    return {task: draw_items(make, count, seed=seed) for task, make in TASKS.items()}


def draw_items(make: Callable[[random.Random], Item], count: int, *, seed: int = 0) -> list[Item]:
    """`count` items, no two with the same context and choices, decided by `seed`."""
    rng, items = random.Random(f"{make.__name__} {seed}"), {}
    while len(items) < whole_number("count", count):
        item = make(rng)
        items.setdefault((item.context, frozenset(item.choices)), item)
    return list(items.values())


def score_choices(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    *,
    batch_size: int = BATCH_SIZE,
) -> list[list[Score]]:
    """A Score for each choice of each item, behind the item's context."""
    pairs = [(item.context, choice) for item in items for choice in item.choices]
    contexts, texts = zip(*pairs, strict=True)
    scores = iter(score_texts(model, tokenizer, texts, contexts=contexts, batch_size=batch_size))
    return [[next(scores) for _ in item.choices] for item in items]


def choose(scores: Sequence[Score], rule: str = "sum") -> int:
    """The place of the likeliest choice; of equal ones the first.

    rule: "sum" compares the probabilities of whole choices, "token" and "byte" their means by
    length, which long choices need when their length says nothing about whether they are right.
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}: one of {', '.join(RULES)}")
    size = {"sum": lambda s: 1, "token": lambda s: s.tokens, "byte": lambda s: s.bytes}[rule]
    costs = [score.nats / size(score) for score in scores]
    return costs.index(min(costs))


def outcomes(
    items: Sequence[Item], scores: Sequence[Sequence[Score]], rule: str = "sum"
) -> np.ndarray:
    """Whether the chosen one is right, for each item, (n,) bool."""
    pairs = zip(items, scores, strict=True)
    return np.array([choose(found, rule) == item.right for item, found in pairs])


def confidence(scores: Sequence[Sequence[Score]]) -> np.ndarray:
    """The probability of the likeliest choice among the choices of its item, (n,)."""
    return np.array([1 / np.exp(min(c) - np.array(c)).sum() for c in map(_costs, scores)])


def swap_words(rng: random.Random, sentence: str) -> str:
    """The sentence with two neighbouring, different words exchanged."""
    words = sentence.split()
    places = [i for i in range(len(words) - 1) if words[i] != words[i + 1]]
    if not places:
        raise ValueError(f"no two neighbouring words of {sentence!r} differ")
    i = rng.choice(places)
    words[i : i + 2] = words[i + 1], words[i]
    return " ".join(words)


def _costs(scores: Sequence[Score]) -> list[float]:
    return [score.nats for score in scores]


def _passage(rng: random.Random) -> tuple[str, Fact, Fact]:
    """A passage, a fact of it, and the same fact with the value of another."""
    told = invent_passage(rng)
    true, other = rng.sample(told, 2)
    false = Fact(true.domain, true.entity, true.column, other.value)
    return " ".join(fact.say(PLAIN) for fact in told), true, false


def _shuffled(
    rng: random.Random, task: str, context: str, right: str, wrong: list[str], cluster: str
) -> Item:
    choices = rng.sample([right, *wrong], 1 + len(wrong))
    return Item(task, context, tuple(choices), choices.index(right), cluster)
