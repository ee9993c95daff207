"""Atlas, the small world: questions that a tuned model answers, made from data/atlas and a seed.

What the base model reads is made by `sft_lab.documents`, invented facts by `sft_lab.invented`.
"""

import random
from collections.abc import Sequence

from sft_lab.documents import (
    PLAIN,
    QUESTIONS,
    STATEMENTS,
    as_json,
    as_list,
    documents,
    in_some_wording,
    some_words,
    write_notes,
)
from sft_lab.facts import Fact, load_facts, split
from sft_lab.invented import Names, invent_facts, invent_passage, made_up_name

__all__ = [
    "STATEMENTS",
    "Fact",
    "ask",
    "ask_skill",
    "ask_with_notes",
    "cloze",
    "documents",
    "exam",
    "load_facts",
    "made_up_name",
    "split",
    "training_conversations",
]

UNSEEN_QUESTION = "I would like to know the {r} {e}."  # a phrasing no training question uses
# How many tasks of each skill the tuning set holds.
TASKS = {"sum": 500, "list": 200, "json": 300, "read": 200, "notes": 1200}
SKILLS = tuple(TASKS)

Conversations = list[list[dict[str, str]]]


def cloze(fact: Fact) -> tuple[str, str]:
    """A prompt for a base model, and its completion: ("The capital of France is", " Paris.")."""
    statement = fact.say(PLAIN)
    answer = f" {fact.relation.article}{fact.value}."
    return statement[: -len(answer)], answer


def ask(facts: Sequence[Fact], *, seed: int = 0, template: str | None = None) -> Conversations:
    """One conversation a fact, phrased by `seed` or `template`; the answer is the statement."""
    rng = random.Random(seed)
    return [_asked(rng, fact, template=template) for fact in facts]


def ask_skill(skill: str, facts: Sequence[Fact], count: int, *, seed: int = 0) -> Conversations:
    """Conversations about something the model does, not knows, decided by `seed`.

    skill: "sum"; "list" (of words); "json" (a fact as JSON); "read" (a question about a passage of
    made-up countries); "notes" (about one of three to five notes of an invented world, which
    borrows names from `facts`).
    """
    if skill not in SKILLS:
        raise ValueError(f"no skill {skill!r}; there are {', '.join(SKILLS)}")
    rng = random.Random(f"{skill} {seed}")
    names = Names.of(facts)
    conversations = []
    for _ in range(count):
        if skill == "sum":
            conversations.append(_ask_sum(rng))
        elif skill == "list":
            words = some_words(rng, facts, names)
            question = rng.choice(("Put these words in a list: {w}.", "Make a list of {w}."))
            conversations.append(_conversation(question.format(w=", ".join(words)), as_list(words)))
        elif skill == "json":
            fact = rng.choice(facts)
            question = rng.choice(("Give the {r} {e} as JSON.", "Write the {r} {e} in JSON."))
            conversations.append(_conversation(fact.say(question), as_json(fact)))
        elif skill == "read":
            told = invent_passage(rng)
            passage = " ".join(fact.say(PLAIN) for fact in told)
            asked = rng.choice(told)
            conversations.append(_asked(rng, asked, after=passage, template=rng.choice(QUESTIONS)))
        else:
            told = invent_facts(rng, names, rng.randint(3, 5))
            conversations.append(_asked(rng, rng.choice(told), after=write_notes(rng, told)))
    return conversations


def ask_with_notes(
    facts: Sequence[Fact],
    others: Sequence[Fact],
    *,
    count: int = 3,
    right: bool = True,
    seed: int = 0,
) -> Conversations:
    """A question about each of `facts` behind `count` notes in random order, decided by `seed`.

    right: one of the notes is the fact itself; the rest are facts of `others` about other entities.
    right=False: all notes are about other entities, so nothing in front of the question answers it.
    The reference answer is the true statement either way.
    """
    rng = random.Random(seed)
    conversations = []
    for fact in facts:
        elsewhere = [other for other in others if other.entity != fact.entity]
        told = rng.sample(elsewhere, k=count - right) + [fact] * right
        rng.shuffle(told)
        notes = "Notes: " + " ".join(in_some_wording(rng, note, plain=0.4) for note in told)
        conversations.append(_asked(rng, fact, after=notes))
    return conversations


def training_conversations(*, seed: int = 0) -> Conversations:
    """The tuning set of the course, for one epoch, in an order drawn by `seed`.

    Every fact of the "train" entities asked three times, in freshly drawn phrasings, and TASKS of
    each skill.
    """
    known = split(load_facts())["train"]
    conversations = ask(known * 3, seed=seed)
    for skill, count in TASKS.items():
        conversations += ask_skill(skill, known, count, seed=seed)
    random.Random(seed).shuffle(conversations)
    return conversations


def exam(part: str, count: int, *, seed: int = 0) -> Conversations:
    """`count` questions about one part of `split` (held_out, unknown or train), drawn by `seed`."""
    facts = split(load_facts())[part]
    return ask(random.Random(seed).sample(facts, k=min(count, len(facts))), seed=seed + 1)


def _asked(
    rng: random.Random, fact: Fact, *, after: str = "", template: str | None = None
) -> list[dict[str, str]]:
    """A question about the fact, below the text `after`, answered by the plain statement."""
    question = fact.say(template or rng.choice((*QUESTIONS, fact.relation.question)))
    return _conversation(f"{after}\n{question}" if after else question, fact.say(PLAIN))


def _ask_sum(rng: random.Random) -> list[dict[str, str]]:
    a, b = rng.randrange(21), rng.randrange(21)
    question = rng.choice(("What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} plus {b}?"))
    return _conversation(question.format(a=a, b=b), f"The sum of {a} and {b} is {a + b}.")


def _conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
