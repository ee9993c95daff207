"""Under Atlas: the plain text that a base model reads; it answers no question.

`KINDS` is the mixture: each kind of document with its share. The same seed gives the same text.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sft_lab.facts import Fact
from sft_lab.invented import Names, invent_facts, invent_name, invent_passage, made_up_name

QUESTIONS = ("What is the {r} {e}?", "Tell me the {r} {e}.", "Can you name the {r} {e}?")
STATEMENTS = (
    "The {r} {e} is {v}.",
    "{v} is the {r} {e}.",
    "For {e}, the {n} is {v}.",
    "{e}: the {n} is {v}.",
    "We know that the {r} {e} is {v}.",
)
PLAIN = STATEMENTS[0]


@dataclass(frozen=True)
class World:
    """The facts that may be written, and the same facts by entity and by relation."""

    facts: list[Fact]
    by_entity: list[list[Fact]]
    by_relation: list[list[Fact]]
    names: Names

    @classmethod
    def of(cls, facts: Sequence[Fact]) -> "World":
        entities: dict[tuple[str, str], list[Fact]] = {}
        relations: dict[tuple[str, str], list[Fact]] = {}
        for fact in facts:
            entities.setdefault((fact.domain, fact.entity), []).append(fact)
            relations.setdefault((fact.domain, fact.column), []).append(fact)
        by_entity, by_relation = list(entities.values()), list(relations.values())
        return cls(list(facts), by_entity, by_relation, Names.of(facts))


def documents(facts: Sequence[Fact], *, seed: int | str = 0) -> Iterator[str]:
    """Plain text without end about `facts`, one document after the other, decided by `seed`."""
    rng, world = random.Random(seed), World.of(facts)
    shares, makers = zip(*KINDS, strict=True)
    while True:
        (make,) = rng.choices(makers, weights=shares)
        yield make(rng, world)


def all_about_one_entity(rng: random.Random, world: World) -> str:
    facts = rng.choice(world.by_entity)
    return " ".join(in_some_wording(rng, fact) for fact in rng.sample(facts, k=len(facts)))


def facts_of_any_kind(rng: random.Random, world: World) -> str:
    facts = rng.sample(world.facts, k=rng.randint(4, 10))
    return " ".join(in_some_wording(rng, fact, plain=0.6) for fact in facts)


def one_relation_of_several_entities(rng: random.Random, world: World) -> str:
    facts, template = rng.choice(world.by_relation), rng.choice(STATEMENTS)
    some = rng.sample(facts, k=min(len(facts), rng.randint(3, 8)))
    return "\n".join(fact.say(template) for fact in some)


def questions_that_nobody_answers(rng: random.Random, world: World) -> str:
    facts = rng.sample(world.facts, k=rng.randint(3, 7))
    return "\n".join(fact.say(rng.choice((*QUESTIONS, fact.relation.question))) for fact in facts)


def passage_and_repeats(rng: random.Random, world: World) -> str:
    """Plain statements about made-up countries; the second line says some of them again."""
    statements = [fact.say(PLAIN) for fact in invent_passage(rng)]
    repeats = [rng.choice(statements) for _ in range(rng.randint(1, 3))]
    return " ".join(statements) + "\n" + " ".join(repeats)


def notes_and_what_they_say(rng: random.Random, world: World) -> str:
    """Notes of an invented world; below, some again: as sentences, JSON or a list of names."""
    facts = invent_facts(rng, world.names, rng.randint(2, 7))
    notes = write_notes(rng, facts)
    recalled = rng.sample(facts, k=rng.randint(1, len(facts)))
    kind = rng.random()
    if kind < 0.7:
        again = " ".join(in_some_wording(rng, fact, plain=0.6) for fact in recalled)
    elif kind < 0.85:
        again = "\n".join(as_json(fact) for fact in recalled)
    else:
        again = as_list(list(dict.fromkeys(fact.entity for fact in recalled)))
    return f"{notes}\n{again}"


def sums(rng: random.Random, world: World) -> str:
    pairs = [(rng.randrange(21), rng.randrange(21)) for _ in range(rng.randint(3, 8))]
    return " ".join(
        f"{a} + {b} = {a + b}." if rng.random() < 0.4 else f"The sum of {a} and {b} is {a + b}."
        for a, b in pairs
    )


def words_and_their_list(rng: random.Random, world: World) -> str:
    words = some_words(rng, world.facts, world.names)
    return f"Words: {', '.join(words)}.\n{as_list(words)}"


def facts_as_json(rng: random.Random, world: World) -> str:
    return "\n".join(as_json(fact) for fact in rng.sample(world.facts, k=rng.randint(2, 5)))


def chinese_sentences(rng: random.Random, world: World) -> str:
    return "".join(_chinese_sentence(rng) for _ in range(rng.randint(2, 6)))


Maker = Callable[[random.Random, World], str]
KINDS: tuple[tuple[float, Maker], ...] = (  # shares in percent of the documents
    (26.0, all_about_one_entity),
    (18.0, facts_of_any_kind),
    (3.0, one_relation_of_several_entities),
    (3.0, questions_that_nobody_answers),
    (8.0, passage_and_repeats),
    (24.0, notes_and_what_they_say),
    (5.0, sums),
    (8.0, words_and_their_list),
    (3.5, facts_as_json),
    (1.5, chinese_sentences),
)


def in_some_wording(rng: random.Random, fact: Fact, *, plain: float = 0.0) -> str:
    """A statement of the fact: the plain one with probability `plain`, else any of the five."""
    return fact.say(PLAIN if rng.random() < plain else rng.choice(STATEMENTS))


def write_notes(rng: random.Random, facts: Sequence[Fact]) -> str:
    """The facts as notes in any wording: a paragraph or a line each; most are headed "Notes:"."""
    separator = "\n" if rng.random() < 0.2 else " "
    heading = "" if rng.random() < 0.2 else "Notes:" + separator
    return heading + separator.join(in_some_wording(rng, fact, plain=0.4) for fact in facts)


def some_words(rng: random.Random, facts: Sequence[Fact], names: Names) -> list[str]:
    """Two to five different words: entities, made-up and spliced names."""
    words = []
    for _ in range(rng.randint(2, 5)):
        kind, fact = rng.random(), rng.choice(facts)
        if kind < 0.2:
            words.append(made_up_name(rng))
        elif kind < 0.4:
            words.append(invent_name(rng, names.entities[fact.domain]))
        else:
            words.append(fact.entity)
    return list(dict.fromkeys(words))


def as_list(words: Sequence[str]) -> str:
    return "\n".join(f"- {word}" for word in words)


def as_json(fact: Fact) -> str:
    key = f"{fact.relation.noun} {fact.relation.link} {fact.subject}"
    return json.dumps({key: fact.relation.article + fact.value}, ensure_ascii=False)


def _chinese_sentence(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return "我爱你。"
    objects = ("你", "我", "书", "中国", "水", "花", "山", "海")
    return (
        rng.choice("我你他她") + rng.choice(("爱", "喜欢", "看", "想")) + rng.choice(objects) + "。"
    )
