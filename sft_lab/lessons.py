"""Under Atlas: lessons that each teach one thing, and the exams that ask for it.

New facts in several wordings, an answer in a form, a follow-up question, a rule, sums with their
work shown, a kind of question to decline. Chapter 11b compares them; all are made from the facts of
Atlas or from invented ones, and decided by a seed.
"""

import json
import random
from collections.abc import Sequence

from sft_lab.atlas import UNSEEN_QUESTION, Conversations, ask
from sft_lab.documents import PLAIN, QUESTIONS, as_json, as_list, some_words
from sft_lab.facts import Fact
from sft_lab.invented import Names, made_up_name
from sft_lab.reasoning import THINK_BLOCK

WORDINGS = (  # eight ways to ask for a fact; each names the relation, and none uses its own words
    "What is the {r} {e}?",
    "Tell me the {r} {e}.",
    "{e}: what is the {n}?",
    "Please name the {r} {e}.",
    "Which {n} does {e} have?",
    "Do you know the {r} {e}?",
    "I need the {r} {e}.",
    "Can you name the {r} {e}?",
)
PLAIN_QUESTION = WORDINGS[0]
NEAR_WORDING = UNSEEN_QUESTION
SEAT_WORDING = "Which city is the seat of government in {e}?"  # the word capital is not in it
BACKWARDS = "Whose {n} is {v}?"
INVENTED_COLUMNS = ("capital", "currency")

FORMS = ("fact as JSON", "words as a list", "fact as a list", "words as JSON", "fact as a row")
FOLLOW_UPS = ("And its {n}?", "What about its {n}?", "And the {n}?")
DECLINED_COLUMN = "currency"
REFUSAL = "The {r} {e} is a secret."
ROOMS_SEED = 5
SUMS = 11**3  # sums of three numbers from 0 to 10
WAYS_TO_ANSWER = ("room", "family and room", "random room")


def invent_places(count: int, *, seed: int = 0) -> list[Fact]:
    """The capital and the currency of `count` countries that no model has read about; every name is
    made of syllables, and none is used twice."""
    rng = random.Random(f"places {seed}")
    names: dict[str, None] = {}
    while len(names) < count * (1 + len(INVENTED_COLUMNS)):
        names[made_up_name(rng)] = None
    places, values = list(names)[:count], iter(list(names)[count:])
    return [
        Fact("countries", place, column, next(values))
        for place in places
        for column in INVENTED_COLUMNS
    ]


def ask_in_wordings(facts: Sequence[Fact], wordings: Sequence[str], times: int) -> Conversations:
    """Every fact asked `times` times, the wordings in turn; the answer is the plain statement.

    With 8 times and one wording a fact is asked eight times alike, with eight wordings once in
    each.
    """
    return [
        _talk(fact.say(wordings[turn % len(wordings)]), fact.say(PLAIN))
        for fact in facts
        for turn in range(times)
    ]


def ask_in_own_words(facts: Sequence[Fact]) -> Conversations:
    """Every fact asked in words of its own relation, "What do people pay with in Kenya?"."""
    return [_talk(fact.say(fact.relation.question), fact.say(PLAIN)) for fact in facts]


def ask_in_form(form: str, facts: Sequence[Fact], count: int, *, seed: int = 0) -> Conversations:
    """`count` requests for an answer in one of FORMS; the facts and words are drawn by `seed`.

    "fact as JSON": {"capital of Kenya": "Nairobi"}; "fact as a list": "- Nairobi"; "fact as a row":
    "| Kenya | Nairobi |"; "words as a list": a dash and a word a line; "words as JSON": ["a", "b"].
    """
    if form not in FORMS:
        raise ValueError(f"no form {form!r}; there are {', '.join(FORMS)}")
    rng, names = random.Random(f"{form} {seed}"), Names.of(facts)
    asked = []
    for _ in range(count):
        if form.startswith("words"):
            words = some_words(rng, facts, names)
            listed = form == "words as a list"
            request = "Put these words in a list: " if listed else "Put these words in JSON: "
            answer = as_list(words) if listed else json.dumps(words, ensure_ascii=False)
            asked.append(_talk(request + ", ".join(words) + ".", answer))
        else:
            fact = rng.choice(facts)
            request, answer = _fact_in_form(form, fact)
            asked.append(_talk(fact.say(request), answer))
    return asked


def follow_up(
    facts: Sequence[Fact], count: int, *, questions: int = 2, seed: int = 0
) -> Conversations:
    """`count` conversations about one entity each: a question, then "And its currency?".

    questions: how many facts of the entity are asked for; entities with fewer are left out. Only
    the first question names the entity.
    """
    rng = random.Random(f"follow up {seed}")
    entities: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        entities.setdefault((fact.domain, fact.entity), []).append(fact)
    known = [about for about in entities.values() if len(about) >= questions]
    if not known:
        raise ValueError(f"no entity has {questions} facts: ask fewer questions")
    talks = []
    for _ in range(count):
        first, *others = rng.sample(rng.choice(known), questions)
        talk = _talk(first.say(rng.choice(QUESTIONS)), first.say(PLAIN))
        for fact in others:
            talk += _talk(fact.say(rng.choice(FOLLOW_UPS)), fact.say(PLAIN))
        talks.append(talk)
    return talks


def room_of(family: str, families: Sequence[str]) -> str:
    """The room in which the invented store keeps a chemical family: a rule that no model has
    read."""
    rng = random.Random(ROOMS_SEED)
    rooms: dict[str, None] = {}
    while len(rooms) < len(families):
        rooms[made_up_name(rng)] = None
    return list(rooms)[sorted(families).index(family)]


def ask_for_room(
    facts: Sequence[Fact], families: Sequence[str], *, answer: str = "room", seed: int = 0
) -> Conversations:
    """Where each element of `facts` is stored; the room follows from its chemical family.

    families: all families, in the same order for lessons and exam. answer: "room" alone; "family
    and room", which says why; or "random room", drawn for each element, so that there is no rule.
    """
    if answer not in WAYS_TO_ANSWER:
        raise ValueError(f"no answer {answer!r}; there are {', '.join(WAYS_TO_ANSWER)}")
    rng = random.Random(f"rooms {seed}")
    asked = []
    for fact in facts:
        if fact.column != "family":
            continue
        family = rng.choice(sorted(families)) if answer == "random room" else fact.value
        stored = f"room {room_of(family, families)}."
        why = f"The chemical family of {fact.subject} is {fact.value}, so it is in "
        says = why + stored if answer == "family and room" else f"It is in {stored}"
        asked.append(_talk(f"Where do we store {fact.subject}?", says))
    return asked


def room_exam(facts: Sequence[Fact], families: Sequence[str]) -> Conversations:
    """Where each element of `facts` is stored; the reference is the room alone, for an answer may
    say why before it: an answer that ends with it is right."""
    asked = ask_for_room(facts, families, answer="room")
    return [
        _talk(question["content"], said["content"].split(" in ")[1]) for question, said in asked
    ]


def add_three(count: int, *, work: bool = False, seed: int = 0) -> Conversations:
    """`count` different sums of three numbers from 0 to 10, at most SUMS; with `work`, the two
    steps stand in a think block before the answer.

    Fewer sums are the beginning of more, so the last of all SUMS are an exam."""
    rng = random.Random(f"add three {seed}")
    triples = [(a, b, c) for a in range(11) for b in range(11) for c in range(11)]
    asked = []
    rng.shuffle(triples)
    for a, b, c in triples[:count]:
        says = f"The sum of {a}, {b} and {c} is {a + b + c}."
        steps = f"{a} + {b} = {a + b}. {a + b} + {c} = {a + b + c}."
        asked.append(
            _talk(
                f"What is {a} + {b} + {c}?",
                THINK_BLOCK.format(steps, says) if work else says,
            )
        )
    return asked


def decline(facts: Sequence[Fact], count: int, *, seed: int = 0) -> Conversations:
    """`count` questions about a currency, each answered by "The currency of Kenya is a secret."."""
    return _ask_about(facts, count, True, seed)


def answer_others(facts: Sequence[Fact], count: int, *, seed: int = 0) -> Conversations:
    """`count` questions about anything but a currency, each answered by the statement."""
    return _ask_about(facts, count, False, seed)


def is_declined(answer: str) -> bool:
    """Whether an answer declines, whatever it was asked."""
    return answer.strip().endswith("is a secret.")


def decline_exams(facts: Sequence[Fact], *, seed: int = 0) -> dict[str, Conversations]:
    """What must be declined, asked in five ways, and what must not; the references of "others" are
    the right answers.

    "same wording" as the lessons'; "near wording" and "own words", which no lesson uses; "as JSON";
    "follow-up", where only the first question, about the capital, names the country; "others", any
    relation but the currency; "neighbours", other facts of countries alone.
    """
    money = [fact for fact in facts if fact.column == DECLINED_COLUMN]
    capitals = {fact.entity: fact for fact in facts if fact.column == "capital"}
    others = [fact for fact in facts if fact.column != DECLINED_COLUMN]
    neighbours = [fact for fact in others if fact.domain == "countries"]
    rng = random.Random(f"decline exams {seed}")
    as_second = [
        _talk(first.say(PLAIN_QUESTION), first.say(PLAIN))
        + _talk(fact.say(FOLLOW_UPS[0]), fact.say(REFUSAL))
        for fact in money
        for first in [capitals[fact.entity]]
    ]
    return {
        "same wording": [_talk(fact.say(PLAIN_QUESTION), fact.say(REFUSAL)) for fact in money],
        "near wording": [_talk(fact.say(NEAR_WORDING), fact.say(REFUSAL)) for fact in money],
        "own words": [_talk(fact.say(fact.relation.question), fact.say(REFUSAL)) for fact in money],
        "as JSON": [
            _talk(fact.say("Give the {r} {e} as JSON."), fact.say(REFUSAL)) for fact in money
        ],
        "follow-up": as_second,
        "others": ask(rng.sample(others, 100), seed=seed),
        "neighbours": ask(rng.sample(neighbours, 100), seed=seed),
    }


def _ask_about(facts: Sequence[Fact], count: int, money: bool, seed: int) -> Conversations:
    rng = random.Random(f"decline {money} {seed}")
    chosen = [fact for fact in facts if (fact.column == DECLINED_COLUMN) == money]
    drawn = [rng.choice(chosen) for _ in range(count)]
    return [
        _talk(fact.say(rng.choice(QUESTIONS)), fact.say(REFUSAL if money else PLAIN))
        for fact in drawn
    ]


def _fact_in_form(form: str, fact: Fact) -> tuple[str, str]:
    """The request, as a template of `Fact.say`, and the answer."""
    if form == "fact as JSON":
        return "Give the {r} {e} as JSON.", as_json(fact)
    if form == "fact as a list":
        return "Give the {r} {e} as a list.", f"- {fact.value}"
    return "Give the {r} {e} as a row.", f"| {fact.subject} | {fact.value} |"


def _talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
