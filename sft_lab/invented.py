"""Under Atlas: made-up names, and facts of an invented world that only its reader can know.

A base model that has learned to copy names it never saw can later read a passage about an entity
it never read about. So the pretraining text holds passages and notes about names made here, of
syllables ("Tavoru") or of two real names spliced ("Frand"), and never an unknown entity's name.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sft_lab.facts import RELATIONS, Fact, load_facts

# Shares of a note's entities and values; the others are real, even if what is said is false.
MADE_UP_ENTITIES = 0.7
MADE_UP_VALUES = 0.5
VALUES_OF_ANY_RELATION = 0.15  # "The capital of Tavoru is hydrogen.": nothing but the note can tell
TRIES = 20
LONGEST = 24  # characters of a spliced name


@dataclass(frozen=True)
class Names:
    """Real names that an invented world borrows: entities by domain, values by relation."""

    entities: dict[str, list[str]]
    values: dict[tuple[str, str], list[str]]

    @classmethod
    def of(cls, facts: Sequence[Fact]) -> "Names":
        entities: dict[
            str, dict[str, None]
        ] = {}  # a dict keeps the order of the facts, a set would not
        values: dict[tuple[str, str], dict[str, None]] = {}
        for fact in facts:
            entities.setdefault(fact.domain, {})[fact.entity] = None
            values.setdefault((fact.domain, fact.column), {})[fact.value] = None
        return cls(
            {domain: list(names) for domain, names in entities.items()},
            {relation: list(names) for relation, names in values.items()},
        )


def made_up_name(rng: random.Random) -> str:
    """A name of two to four syllables that no CSV holds and that no model can know: "Tavoru"."""
    count = rng.randint(2, 4)
    syllables = (rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(count))
    name = "".join(syllables).capitalize()
    return made_up_name(rng) if name.lower() in _real_names() else name


def spliced_name(rng: random.Random, names: Sequence[str]) -> str:
    """The beginning of one real name and the end of another: "Frand"; numbers become other numbers.

    No word of it is a real name, known or unknown. After TRIES draws it is a name of syllables.
    """
    for _ in range(TRIES):
        first, second = rng.choice(names), rng.choice(names)
        if first.isdigit() and second.isdigit():
            name = str(rng.randrange(10, 1000))
        else:
            head = first[: rng.randint(1, max(1, len(first) - 1))]
            tail = second[rng.randint(min(1, len(second) - 1), len(second) - 1) :]
            name = " ".join((head + tail).split())
        if 2 <= len(name) <= LONGEST and not _holds_a_real_name(name):
            return name
    return made_up_name(rng)


def invent_name(rng: random.Random, names: Sequence[str]) -> str:
    """A third of syllables, the others spliced from `names`; one in ten has two words."""
    name = made_up_name(rng) if rng.random() < 1 / 3 else spliced_name(rng, names)
    if rng.random() < 0.1 and " " not in name and not name.isdigit():
        longer = f"{name} {spliced_name(rng, names)}"
        return name if _holds_a_real_name(longer) else longer
    return name


def invent_facts(rng: random.Random, names: Names, count: int) -> list[Fact]:
    """`count` facts of an invented world, no two about the same thing.

    A fact often shares its relation or its entity with the one before: only a reader of both words
    tells them apart.
    """
    facts: list[Fact] = []
    taken: set[tuple[str, str, str]] = set()
    while len(facts) < count:
        domain, column = rng.choice(list(RELATIONS))
        entity, link = None, rng.random()
        if facts and link < 0.4:
            domain, column = facts[-1].domain, facts[-1].column
        elif facts and link < 0.6:
            domain, entity = facts[-1].domain, facts[-1].entity
            column = rng.choice([other for name, other in RELATIONS if name == domain])
        if (domain, column) not in names.values:  # a part of the facts may lack a whole domain
            continue
        if entity is None and rng.random() < MADE_UP_ENTITIES:
            entity = invent_name(rng, names.entities[domain])
        entity = entity or rng.choice(names.entities[domain])
        if (domain, entity, column) in taken:
            continue
        taken.add((domain, entity, column))
        facts.append(Fact(domain, entity, column, _invent_value(rng, names, (domain, column))))
    return facts


def invent_passage(rng: random.Random) -> list[Fact]:
    """Two facts each about two or three made-up countries; the values are made-up names as well."""
    columns = sorted(column for domain, column in RELATIONS if domain == "countries")
    names = list(dict.fromkeys(made_up_name(rng) for _ in range(20)))
    places, values = names[: rng.randint(2, 3)], iter(names[3:])
    facts = [
        Fact("countries", place, column, next(values))
        for place in places
        for column in rng.sample(columns, 2)
    ]
    rng.shuffle(facts)
    return facts


def _invent_value(rng: random.Random, names: Names, relation: tuple[str, str]) -> str:
    kind = rng.random()
    if kind < MADE_UP_VALUES:
        return invent_name(rng, names.values[relation])
    if kind < MADE_UP_VALUES + VALUES_OF_ANY_RELATION:
        relation = rng.choice(list(names.values))
    return rng.choice(names.values[relation])


def _holds_a_real_name(name: str) -> bool:
    words = re.split(r"[\s'-]+", name.lower())
    spans = [
        " ".join(words[first:last])
        for first in range(len(words))
        for last in range(first + 1, len(words) + 1)
    ]
    return not _real_names().isdisjoint(spans)


@cache
def _real_names() -> frozenset[str]:
    return frozenset(name.lower() for fact in load_facts() for name in (fact.entity, fact.value))
