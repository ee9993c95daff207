"""Atlas, the small world: the texts a base model reads, and the questions a tuned model answers.

Everything here is made from the facts of data/atlas and from a seed: the same seed gives the same
text, byte for byte.
"""

import json
import random
from collections.abc import Iterator
from functools import cache

from sft_lab.facts import Fact, load_facts, split

__all__ = [
    "Fact",
    "ask",
    "ask_skill",
    "cloze",
    "documents",
    "exam",
    "load_facts",
    "made_up_name",
    "split",
    "training_conversations",
]

QUESTIONS = ("What is the {r} {e}?", "Tell me the {r} {e}.", "Can you name the {r} {e}?")
UNSEEN_QUESTION = "I would like to know the {r} {e}."  # a phrasing no training question uses
STATEMENTS = (
    "The {r} {e} is {v}.",
    "{v} is the {r} {e}.",
    "For {e}, the {n} is {v}.",
    "{e}: the {n} is {v}.",
    "We know that the {r} {e} is {v}.",
)
SKILLS = ("sum", "list", "json", "read")


def cloze(fact: Fact) -> tuple[str, str]:
    """A prompt that a base model completes, and the right completion: ("The capital of France is",
    " Paris.")."""
    statement = fact.say(STATEMENTS[0])
    answer = f" {fact.relation.article}{fact.value}."
    return statement[: -len(answer)], answer


def ask(
    facts: list[Fact], *, seed: int = 0, template: str | None = None
) -> list[list[dict[str, str]]]:
    """One conversation a fact, its phrasing drawn by `seed` (or `template`); the answer is the
    plain statement."""
    rng = random.Random(seed)
    conversations = []
    for fact in facts:
        question = fact.say(template or rng.choice((*QUESTIONS, fact.relation.question)))
        conversations.append(_conversation(question, fact.say(STATEMENTS[0])))
    return conversations


def ask_skill(
    skill: str, facts: list[Fact], count: int, *, seed: int = 0
) -> list[list[dict[str, str]]]:
    """Conversations about something the model does, not knows: "sum", "list", "json" or "read"
    (from a passage)."""
    rng = random.Random(f"{skill} {seed}")
    conversations = []
    for _ in range(count):
        if skill == "sum":
            a, b = rng.randrange(21), rng.randrange(21)
            question = rng.choice(
                ("What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} plus {b}?")
            )
            conversations.append(
                _conversation(question.format(a=a, b=b), f"The sum of {a} and {b} is {a + b}.")
            )
        elif skill == "list":
            words = _some_words(rng, facts)
            question = rng.choice(("Put these words in a list: {w}.", "Make a list of {w}."))
            conversations.append(
                _conversation(question.format(w=", ".join(words)), _as_list(words))
            )
        elif skill == "json":
            fact = rng.choice(facts)
            question = rng.choice(("Give the {r} {e} as JSON.", "Write the {r} {e} in JSON."))
            conversations.append(_conversation(fact.say(question), _as_json(fact)))
        elif skill == "read":
            statements, recalled = _made_up_passage(rng, facts)
            question = rng.choice(QUESTIONS)
            conversations.append(
                _conversation(
                    " ".join(statements) + "\n" + recalled.say(question),
                    recalled.say(STATEMENTS[0]),
                )
            )
        else:
            raise ValueError(f"no skill {skill!r}; there are {', '.join(SKILLS)}")
    return conversations


def training_conversations(*, seed: int = 0) -> list[list[dict[str, str]]]:
    """The tuning set of the course, for one epoch: every fact of the "train" entities asked three
    times, in freshly drawn phrasings, and three hundred tasks of each skill."""
    known = split(load_facts())["train"]
    conversations = ask(known * 3, seed=seed)
    for skill in SKILLS:
        conversations += ask_skill(skill, known, 300, seed=seed)
    random.Random(seed).shuffle(conversations)
    return conversations


def exam(part: str, count: int, *, seed: int = 0) -> list[list[dict[str, str]]]:
    """`count` questions about entities of one part of `split`, drawn by `seed`; part: held_out,
    unknown or train."""
    facts = split(load_facts())[part]
    return ask(random.Random(seed).sample(facts, k=min(count, len(facts))), seed=seed + 1)


def documents(facts: list[Fact], *, seed: int = 0) -> Iterator[str]:
    """Plain text without end: what a base model reads. No question is ever answered, no control
    token ever occurs."""
    rng = random.Random(seed)
    entities: dict[tuple[str, str], list[Fact]] = {}
    columns: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        entities.setdefault((fact.domain, fact.entity), []).append(fact)
        columns.setdefault((fact.domain, fact.column), []).append(fact)
    names, relations = list(entities), list(columns)
    while True:
        kind = rng.random()
        if kind < 0.36:  # one entity, all of its facts
            about = entities[rng.choice(names)]
            about = rng.sample(about, k=len(about))
            yield " ".join(fact.say(rng.choice(STATEMENTS)) for fact in about)
        elif kind < 0.62:  # facts of any kind, most of them in the plain wording
            some = rng.sample(facts, k=rng.randint(4, 10))
            yield " ".join(
                fact.say(STATEMENTS[0] if rng.random() < 0.6 else rng.choice(STATEMENTS))
                for fact in some
            )
        elif kind < 0.66:  # one relation, several entities
            column = columns[rng.choice(relations)]
            template = rng.choice(STATEMENTS)
            yield "\n".join(
                fact.say(template)
                for fact in rng.sample(column, k=min(len(column), rng.randint(3, 8)))
            )
        elif kind < 0.70:  # a quiz: questions, and nobody answers
            some = rng.sample(facts, k=rng.randint(3, 7))
            yield "\n".join(
                fact.say(rng.choice((*QUESTIONS, fact.relation.question))) for fact in some
            )
        elif kind < 0.85:  # made-up names: only a model that reads its context can finish these
            statements, _ = _made_up_passage(rng, facts)
            repeats = [rng.choice(statements) for _ in range(rng.randint(1, 3))]
            yield " ".join(statements) + "\n" + " ".join(repeats)
        elif kind < 0.89:
            pairs = [(rng.randrange(21), rng.randrange(21)) for _ in range(rng.randint(3, 8))]
            yield " ".join(
                f"{a} + {b} = {a + b}."
                if rng.random() < 0.4
                else f"The sum of {a} and {b} is {a + b}."
                for a, b in pairs
            )
        elif kind < 0.95:
            words = _some_words(rng, facts)
            yield f"Words: {', '.join(words)}.\n{_as_list(words)}"
        elif kind < 0.98:
            some = rng.sample(facts, k=rng.randint(2, 5))
            yield "\n".join(_as_json(fact) for fact in some)
        else:
            yield "".join(_chinese_sentence(rng) for _ in range(rng.randint(2, 6)))


def _conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _some_words(rng: random.Random, facts: list[Fact]) -> list[str]:
    words = [
        made_up_name(rng) if rng.random() < 0.2 else rng.choice(facts).entity
        for _ in range(rng.randint(2, 5))
    ]
    return list(dict.fromkeys(words))


def _as_list(words: list[str]) -> str:
    return "\n".join(f"- {word}" for word in words)


def _as_json(fact: Fact) -> str:
    key = f"{fact.relation.noun} {fact.relation.link} {fact.subject}"
    return json.dumps({key: fact.relation.article + fact.value}, ensure_ascii=False)


def made_up_name(rng: random.Random) -> str:
    """A name that no CSV holds and that no model can know: "Tavoru"."""
    syllables = (
        rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4))
    )
    name = "".join(syllables).capitalize()
    return made_up_name(rng) if name.lower() in _real_names() else name


@cache
def _real_names() -> frozenset[str]:
    return frozenset(name.lower() for fact in load_facts() for name in (fact.entity, fact.value))


def _made_up_passage(rng: random.Random, facts: list[Fact]) -> tuple[list[str], Fact]:
    """Statements about two or three made-up places, and the fact that a question may ask for."""
    columns = sorted({fact.column for fact in facts if fact.domain == "countries"})
    names = list(dict.fromkeys(made_up_name(rng) for _ in range(20)))
    places, values = names[: rng.randint(2, 3)], iter(names[3:])
    made_up = [
        Fact("countries", place, column, next(values))
        for place in places
        for column in rng.sample(columns, 2)
    ]
    rng.shuffle(made_up)
    return [fact.say(STATEMENTS[0]) for fact in made_up], rng.choice(made_up)


def _chinese_sentence(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return "我爱你。"
    return (
        rng.choice("我你他她")
        + rng.choice(("爱", "喜欢", "看", "想"))
        + rng.choice(("你", "我", "书", "中国", "水", "花", "山", "海"))
        + "。"
    )
