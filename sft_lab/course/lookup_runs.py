"""Chapter 15b: answering from passages, checking answers, and prompts that a model was taught to
heed or not.

One tuning set in several variants (`lessons_for`), and what is measured of a tuned model. The
chapter and `tools/experiments/15b_*.py` share these functions, so that a recorded row can be run
again.
"""

import dataclasses
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas, lessons
from sft_lab.abstention import auroc
from sft_lab.atlas import Conversations
from sft_lab.batches import pad_batch
from sft_lab.chat import encode_prompts, generate_responses
from sft_lab.course.results import Results
from sft_lab.documents import PLAIN, QUESTIONS, in_some_wording, write_notes
from sft_lab.facts import Fact
from sft_lab.invented import Names, invent_facts
from sft_lab.labels import encode_conversations
from sft_lab.losses import graded_logits
from sft_lab.metrics import expected_calibration_error, is_right, normalise
from sft_lab.retrieval import (
    NOT_FOUND,
    Passage,
    PassageStore,
    Ranking,
    retrieve,
    supports,
    write_prompt,
)
from sft_lab.significance import Verdict, judge_claim

FACT_ROWS, NOTE_ROWS = 900, 1500
ASKED = 150  # questions of an exam
PROMPTS = {  # system turns; what a model makes of them depends on its tuning set
    "instruction": "Answer from the notes only. If they do not say it, say that it is not known.",
    "role": "You are a careful expert.",
    "source": "Name the note that says so.",
    "steps": "Write down each step.",
    "form": "Write each word once, and no other.",
}
SOURCE, NO_SOURCE = " Source: ", "none."
DECLINED = "The {r} {e} is not known."  # stands where the value would: what a model can learn
SHOWN_RIGHT = {"notes": 1.0, "distractors": 0.6, "declining": 0.6}  # of NOTE_ROWS
READ_ARMS = ("no notes", *SHOWN_RIGHT, "declining at the start")
Talk = list[dict[str, str]]


# the store and its questions


@cache
def facts_by_part() -> dict[str, list[Fact]]:
    """The parts of `atlas.split`, each in an order of its own: its first facts are a sample."""
    parts = atlas.split(atlas.load_facts())
    for name, part in parts.items():
        random.Random(f"15b {name}").shuffle(part)
    return parts


def name_passage(fact: Fact) -> str:
    return f"{fact.entity}/{fact.column}"


def write_passages(facts: Sequence[Fact], *, seed: int = 0) -> list[Passage]:
    """One passage a fact, in a wording drawn by `seed`; its id is "Peru/capital"."""
    rng = random.Random(f"passages {seed}")
    return [Passage(name_passage(f), in_some_wording(rng, f, plain=0.4)) for f in facts]


def unknown_store(*, seed: int = 0) -> PassageStore:
    """A passage for every fact that the base never read."""
    return PassageStore.of(write_passages(facts_by_part()["unknown"], seed=seed))


def other_value(fact: Fact, rng: random.Random) -> Fact:
    """The same question with another answer of the same kind: a false fact."""
    values = _values()[fact.domain, fact.column]
    value = rng.choice([value for value in values if value != fact.value])
    return dataclasses.replace(fact, value=value)


@cache
def _values() -> dict[tuple[str, str], tuple[str, ...]]:
    facts = atlas.load_facts()
    kinds = {(fact.domain, fact.column) for fact in facts}
    return {
        kind: tuple(dict.fromkeys(f.value for f in facts if (f.domain, f.column) == kind))
        for kind in kinds
    }


# tuning sets of the reading experiment


def read_lessons(arm: str, *, seed: int = 0) -> Conversations:
    """FACT_ROWS questions about facts and NOTE_ROWS with notes in front, in an order drawn by
    `seed`; the arms differ in the notes alone.

    "no notes": the same number of questions, none with notes. "notes": the right note is always
    there. "distractors": in 40 % it is not, and the answer is given from memory. "declining": in
    these 40 % the answer is DECLINED, or NOT_FOUND in "declining at the start".
    """
    if arm not in READ_ARMS:
        raise ValueError(f"no arm {arm!r}; there are {', '.join(READ_ARMS)}")
    rng, train = random.Random(f"read {arm} {seed}"), facts_by_part()["train"]
    rows = atlas.ask(rng.choices(train, k=FACT_ROWS), seed=seed)
    if arm == "no notes":
        rows += atlas.ask(rng.choices(train, k=NOTE_ROWS), seed=seed + 1)
    else:
        right = round(SHOWN_RIGHT[arm.removesuffix(" at the start")] * NOTE_ROWS)
        answer = {"distractors": PLAIN, "declining": DECLINED}.get(arm, NOT_FOUND)
        rows += note_rows(rng, train, right)
        rows += note_rows(rng, train, NOTE_ROWS - right, missing=answer)
    rng.shuffle(rows)
    return rows


def note_rows(
    rng: random.Random, facts: Sequence[Fact], count: int, *, missing: str = ""
) -> Conversations:
    """Questions behind one to four notes, half about an invented world, half about real entities.

    missing: "" where the right note is among them; of real entities it is false in half of the
    rows, so that only a reader is right. Else the answer to give where it is not: PLAIN (from
    memory; then all rows are about real entities), DECLINED or NOT_FOUND. The other notes are near
    misses, so that nothing but reading tells the two kinds of rows apart.
    """
    rows, names = [], Names.of(facts)
    for place in range(count):
        others = rng.randint(1, 4) - (not missing)
        if place % 2 and missing != PLAIN:
            fact, *told = invent_facts(rng, names, 1 + others)
        else:
            fact = rng.choice(facts)
            told = near_misses(rng, fact, facts, others)
            fact = other_value(fact, rng) if not missing and rng.random() < 0.5 else fact
        told = told if missing else [fact, *told]
        rng.shuffle(told)
        question = f"{write_notes(rng, told)}\n{ask_in_any_words(rng, fact)}"
        rows.append(talk(question, fact.say(missing or PLAIN)))
    return rows


def near_misses(rng: random.Random, fact: Fact, facts: Sequence[Fact], count: int) -> list[Fact]:
    """`count` different other facts: of the same entity, of the same relation, or of any kind."""
    others = [f for f in facts if f.entity != fact.entity]
    same_entity = [f for f in facts if f.entity == fact.entity and f.column != fact.column]
    same_relation = [f for f in others if (f.domain, f.column) == (fact.domain, fact.column)]
    drawn: dict[Fact, None] = {}
    while len(drawn) < count:
        drawn[rng.choice(rng.choice((same_entity, same_relation, others)) or others)] = None
    return list(drawn)


def ask_in_any_words(rng: random.Random, fact: Fact) -> str:
    return fact.say(rng.choice((*QUESTIONS, fact.relation.question)))


def talk(question: str, answer: str, *, system: str | None = None) -> Talk:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


# what is measured of reading


def say_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    system: str | None = None,
    **how,
) -> list[str]:
    """Answers to questions, greedy unless `how` says otherwise."""
    how = {"max_new_tokens": 50} | how
    return generate_responses(model, tokenizer, list(prompts), system=system, **how)


def is_declined(answer: str) -> bool:
    """Whether an answer begins with NOT_FOUND or says DECLINED, of whatever."""
    said = normalise(answer.partition(SOURCE)[0])
    return said.startswith(normalise(NOT_FOUND)) or said.endswith(" is not known")


def share(marks: Sequence[bool]) -> float:
    return round(sum(marks) / len(marks), 4)


Told = Callable[[random.Random, Fact, Sequence[Fact]], list[Fact]]
CONTROLS: dict[str, Told] = {  # what stands in front of a question about `fact`
    "closed book": lambda rng, fact, store: [],
    "right note alone": lambda rng, fact, store: [fact],
    "right note first": lambda rng, fact, store: [fact, *elsewhere(rng, fact, store, 2)],
    "right note second": lambda rng, fact, store: _at(1, fact, elsewhere(rng, fact, store, 2)),
    "right note last": lambda rng, fact, store: [*elsewhere(rng, fact, store, 2), fact],
    "other notes": lambda rng, fact, store: elsewhere(rng, fact, store, 3),
    "same relation": lambda rng, fact, store: rng.sample(
        [f for f in store if f.column == fact.column and f.value != fact.value], 1
    ),
    "same entity": lambda rng, fact, store: rng.sample(
        [f for f in store if f.entity == fact.entity and f.column != fact.column], 1
    ),
    "false note": lambda rng, fact, store: [other_value(fact, rng)],
}


def elsewhere(rng: random.Random, fact: Fact, store: Sequence[Fact], count: int) -> list[Fact]:
    """Facts about other entities whose value is another one: none answers the question."""
    return rng.sample(
        [f for f in store if f.entity != fact.entity and f.value != fact.value], count
    )


def _at(place: int, fact: Fact, others: list[Fact]) -> list[Fact]:
    return [*others[:place], fact, *others[place:]]


def measure_control(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    control: str,
    part: str = "unknown",
    *,
    system: str | None = None,
    asked: int = ASKED,
    seed: int = 0,
) -> dict[str, float]:
    """Shares of answers that are right, declined, and that name a value of the notes.

    part: "unknown" or "held_out", the part of `facts_by_part` that is asked about and that other
    notes are drawn from.
    """
    rng, facts = random.Random(f"control {control} {seed}"), facts_by_part()[part]
    some = facts[:asked]
    told = [CONTROLS[control](rng, fact, facts) for fact in some]
    questions = [ask_in_any_words(rng, fact) for fact in some]
    notes = [[in_some_wording(rng, note, plain=0.4) for note in notes] for notes in told]
    prompts = [write_prompt(*pair) for pair in zip(notes, questions, strict=True)]
    said = say_all(model, tokenizer, prompts, system=system)
    value_of = [
        any(normalise(text) == normalise(dataclasses.replace(fact, value=note.value).say(PLAIN))
            for note in notes)
        for text, fact, notes in zip(said, some, told, strict=True)
    ]  # fmt: skip
    return {
        "right": share([is_right(t, f.say(PLAIN)) for t, f in zip(said, some, strict=True)]),
        "declined": share([*map(is_declined, said)]),
        "from the notes": share(value_of),
    }


def measure_end_to_end(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    count: int,
    wording: str | None = None,
    asked: int = ASKED,
    seed: int = 0,
) -> dict[str, float]:
    """Questions about the unknown part, answered from the `count` best passages.

    wording: a template, or None for the relation's own words. hit: the right passage was found.
    """
    store, facts = unknown_store(seed=seed), facts_by_part()["unknown"][:asked]
    questions = [fact.say(wording or fact.relation.question) for fact in facts]
    found = [retrieve(store, question, count=count) for question in questions]
    hit = [
        any(h.passage.id == name_passage(fact) for h in hits)
        for fact, hits in zip(facts, found, strict=True)
    ]
    prompts = [
        write_prompt([h.passage.text for h in hits], question)
        for hits, question in zip(found, questions, strict=True)
    ]
    said = say_all(model, tokenizer, prompts)
    right = [is_right(text, fact.say(PLAIN)) for text, fact in zip(said, facts, strict=True)]
    after_hit = [ok for ok, found_it in zip(right, hit, strict=True) if found_it]
    after_miss = [ok for ok, found_it in zip(right, hit, strict=True) if not found_it]
    return {
        "hit": share(hit),
        "right": share(right),
        "right after a hit": share(after_hit or [False]),
        "right after a miss": share(after_miss or [False]),
        "declined": share([*map(is_declined, said)]),
    }


def measure_reading(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0
) -> dict[str, float]:
    """Every control for unknown facts, three for known ones, and end to end; as one flat row."""
    found = {}
    for control in CONTROLS:
        if control != "false note":
            found[f"{control}"] = measure_control(model, tokenizer, control, seed=seed)
    for control in (
        "closed book",
        "right note alone",
        "same relation",
        "other notes",
        "false note",
    ):
        one = measure_control(model, tokenizer, control, "held_out", seed=seed)
        found[f"known, {control}"] = one
    for count in (1, 3):
        end = measure_end_to_end(model, tokenizer, count=count, seed=seed)
        found[f"found {count}, own words"] = end
        wording = lessons.NEAR_WORDING
        end = measure_end_to_end(model, tokenizer, count=count, wording=wording, seed=seed)
        found[f"found {count}, near wording"] = end
    return {f"{name}: {what}": x for name, row in found.items() for what, x in row.items()}


# four types of invention, and what may help against each


TYPES = ("facts", "logic", "instruction", "source")
EXAMS = (*TYPES, "known")  # the last: what a remedy costs on facts that the model knows
TYPE_PROMPT = {"facts": "role", "logic": "steps", "instruction": "form", "source": "source"}
TYPE_PROMPT["known"] = TYPE_PROMPT["facts"]
ROWS = {"facts": 600, "notes": 900, "source": 240, "sums": 800, "list": 200}
REMEDY_EPOCHS, TYPE_ASKED = 2, 80
SAMPLES, AGREED = 8, 5  # of the consistency filter: answers drawn, and how many must be equal
FOUND_AT_LEAST = 0.2  # the score below which no passage is put in front of a question
DECODING = {
    "T 1": {"do_sample": True, "temperature": 1.0},
    "T 0.7": {"do_sample": True, "temperature": 0.7},
    "T 0.2": {"do_sample": True, "temperature": 0.2},
    "top-p 0.9": {"do_sample": True, "top_p": 0.9},
    "top-k 10": {"do_sample": True, "top_k": 10},
    "beam 4": {"num_beams": 4},
    "repetition penalty 1.2": {"repetition_penalty": 1.2},
}
REMEDY_ARMS = ("plain", "heeding", "abstaining")


def remedy_lessons(arm: str, *, seed: int = 0) -> Conversations:
    """As many rows of each of ROWS in every arm.

    "plain": facts, notes, a note named as the source (PROMPTS["source"], always rightly), sums of
    three numbers, words as a list. "heeding": a part of each has a system turn of PROMPTS and does
    what it says: declines without the right note, declines made-up names, names no source where
    there is none, writes the steps. "abstaining": a fifth of the questions about
    facts is about made-up names, and is declined.
    """
    if arm not in REMEDY_ARMS:
        raise ValueError(f"no arm {arm!r}; there are {', '.join(REMEDY_ARMS)}")
    rng, train = random.Random(f"remedy {arm} {seed}"), facts_by_part()["train"]
    heeds = arm == "heeding"
    rows = _fact_lessons(rng, train, arm)
    taught = ROWS["notes"] // 3 if heeds else 0
    rows += note_rows(rng, train, ROWS["notes"] - taught)
    if heeds:
        told = note_rows(rng, train, taught // 2)
        told += note_rows(rng, train, taught - taught // 2, missing=DECLINED)
        rows += [under("instruction", row) for row in told]
    rows += _source_lessons(rng, train, ROWS["source"], honest=heeds)
    rows += _sum_lessons(ROWS["sums"], seed, with_steps=heeds)
    lists = atlas.ask_skill("list", train, ROWS["list"], seed=seed)
    rows += [under("form", row) if heeds and i % 2 else row for i, row in enumerate(lists)]
    rng.shuffle(rows)
    return rows


def under(prompt: str, row: Talk) -> Talk:
    """The row with that system turn."""
    return [{"role": "system", "content": PROMPTS[prompt]}, *row]


def _fact_lessons(rng: random.Random, train: Sequence[Fact], arm: str) -> Conversations:
    """Questions about facts; a fifth of them is declined, where an arm declines: under the role in
    "heeding", which answers another fifth under it."""
    rows = [
        talk(ask_in_any_words(rng, f), f.say(PLAIN)) for f in rng.choices(train, k=ROWS["facts"])
    ]
    fifth, names = ROWS["facts"] // 5, Names.of(train)
    if arm == "plain":
        return rows
    made_up = [invent_facts(rng, names, 1)[0] for _ in range(3 * fifth)]
    known = {fact.entity for fact in atlas.load_facts()}
    made_up = [fact for fact in made_up if fact.entity not in known][:fifth]
    declined = [talk(ask_in_any_words(rng, fact), fact.say(DECLINED)) for fact in made_up]
    if arm == "heeding":
        declined = [under("role", row) for row in declined]
        rows[-fifth:] = [under("role", row) for row in rows[-fifth:]]
    return (
        rows[: ROWS["facts"] - len(declined)] + declined
        if arm == "abstaining"
        else (rows[len(declined) :] + declined)
    )


def _source_lessons(
    rng: random.Random, train: Sequence[Fact], count: int, *, honest: bool
) -> Conversations:
    """Answers that name the note they are from; where `honest`, a third has no right note and a
    half of these no note at all, and "none." is named."""
    rows, names = [], Names.of(train)
    for place in range(count):
        fact, *told = invent_facts(rng, names, rng.randint(2, 4))
        missing = honest and place % 3 == 0
        told = told if missing else [fact, *told]
        rng.shuffle(told)
        notes = [in_some_wording(rng, note, plain=0.4) for note in told]
        answer = fact.say(DECLINED) + SOURCE + NO_SOURCE
        if not missing:
            answer = fact.say(PLAIN) + SOURCE + notes[told.index(fact)]
        shown = [] if missing and place % 2 else notes
        rows.append(talk(write_prompt(shown, ask_in_any_words(rng, fact)), answer))
    return [under("source", row) for row in rows]


def _sum_lessons(count: int, seed: int, *, with_steps: bool) -> Conversations:
    alone = lessons.add_three(count, seed=seed)
    if not with_steps:
        return alone
    return alone[: count // 2] + [
        talk(row[0]["content"], write_steps(row), system=PROMPTS["steps"])
        for row in alone[count // 2 :]
    ]


def write_steps(row: Talk) -> str:
    """The answer to a sum of three numbers, with its steps before it."""
    a, b, c = map(int, re.findall(r"\d+", row[0]["content"]))
    return f"{a} + {b} = {a + b}. {a + b} + {c} = {a + b + c}. {row[1]['content']}"


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question of an exam, and what is right."""

    question: str
    reference: str


def type_exam(kind: str, *, asked: int = TYPE_ASKED, seed: int = 0) -> list[Asked]:
    """ "facts" and "source": about the unknown part. "logic": sums of three that no lesson of that
    seed has. "instruction": words to put in a list. "known": facts that the base has read, and that
    no lesson names."""
    if kind not in EXAMS:
        raise ValueError(f"no exam {kind!r}; there are {', '.join(EXAMS)}")
    rng, parts = random.Random(f"exam {kind}"), facts_by_part()
    if kind == "logic":
        rows = lessons.add_three(lessons.SUMS, seed=seed)[-asked:]
    elif kind == "instruction":
        rows = atlas.ask_skill("list", parts["held_out"], asked, seed=1)
    else:
        some = parts["held_out" if kind == "known" else "unknown"][:asked]
        rows = [talk(ask_in_any_words(rng, fact), fact.say(PLAIN)) for fact in some]
    return [Asked(row[0]["content"], row[1]["content"]) for row in rows]


def judge(kind: str, asked: Asked, said: str, shown: Sequence[str]) -> str:
    """ "right", "declined" or "wrong"; for "source" the note that is named decides: it must be one
    of those shown and bear out the answer. A sum may have its steps before it."""
    if is_declined(said):
        return "declined"
    if kind == "source":
        answer, _, source = said.partition(SOURCE)
        if normalise(source) == normalise(NO_SOURCE):
            return "declined"
        real = normalise(source) in map(normalise, shown) and supports(source, answer)
        return "right" if real else "wrong"
    if kind == "logic":
        return "right" if normalise(said).endswith(normalise(asked.reference)) else "wrong"
    return "right" if is_right(said, asked.reference) else "wrong"


def measure_type(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    kind: str,
    remedy: str,
    *,
    seed: int = 0,
    asked: int = TYPE_ASKED,
) -> dict[str, float]:
    """Shares of right, declined and wrong answers to the exam of a type under a remedy.

    remedy: "none", "retrieval", "checking", "prompt" (TYPE_PROMPT), "consistency of 8" or a name
    of DECODING. Questions of type "source" always have their prompt, for without it no model names
    a source.
    """
    exam, store = type_exam(kind, asked=asked, seed=seed), unknown_store(seed=seed)
    shown = [
        [h.passage.text for h in retrieve(store, one.question) if h.score >= FOUND_AT_LEAST]
        if remedy == "retrieval"
        else []
        for one in exam
    ]
    prompts = [write_prompt(some, one.question) for some, one in zip(shown, exam, strict=True)]
    prompted = remedy == "prompt" or kind == "source"
    how = {"system": PROMPTS[TYPE_PROMPT[kind]] if prompted else None}
    how |= {"max_new_tokens": 70 if kind == "source" else 50}
    torch.manual_seed(seed)
    if remedy == "consistency of 8":
        said = agree(model, tokenizer, prompts, **how)
    else:
        said = say_all(model, tokenizer, prompts, **how, **DECODING.get(remedy, {}))
    if remedy == "checking":
        check = checker(kind, seed=seed)
        said = [
            text if check(one, text) else NOT_FOUND for one, text in zip(exam, said, strict=True)
        ]
    verdicts = Counter(
        judge(kind, one, text, some) for one, text, some in zip(exam, said, shown, strict=True)
    )
    return {word: round(verdicts[word] / len(exam), 4) for word in ("right", "declined", "wrong")}


def agree(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], **how
) -> list[str]:
    """The most frequent of SAMPLES answers at temperature 1, or NOT_FOUND where fewer than AGREED
    are equal."""
    repeated = [prompt for prompt in prompts for _ in range(SAMPLES)]
    flat = say_all(model, tokenizer, repeated, do_sample=True, temperature=1.0, **how)
    return [vote(flat[i : i + SAMPLES]) for i in range(0, len(flat), SAMPLES)]


def vote(answers: Sequence[str], *, agreed: int = AGREED) -> str:
    """The answer that most give, NOT_FOUND where fewer than `agreed` give it; compared as
    `normalise` leaves them."""
    most, times = Counter(map(normalise, answers)).most_common(1)[0]
    if times < agreed:
        return NOT_FOUND
    return next(answer for answer in answers if normalise(answer) == most)


# checks of an answer


COVERED, TABLE_WRONG = 0.9, 0.05  # of the table: rows that it has, and rows that are false
Table = dict[tuple[str, str], str]  # (entity, column) -> value


def make_table(*, seed: int = 0) -> Table:
    """A table of facts as tables are: a tenth is missing, a twentieth is false."""
    rng, table = random.Random(f"table {seed}"), {}
    for fact in facts_by_part()["unknown"] + facts_by_part()["held_out"]:
        if rng.random() < COVERED:
            told = other_value(fact, rng) if rng.random() < TABLE_WRONG else fact
            table[fact.entity, fact.column] = told.value
    return table


def parse_statement(text: str) -> tuple[str, str, str] | None:
    """Entity, column and value of a plain statement; None for a text of another form."""
    match = re.match(r"The (.+?) (?:of|for) (.+) is (?:the )?(.+?)\.?$", normalise(text))
    if not match:
        return None
    noun, entity, value = match.groups()
    column = _columns().get(noun)
    return (entity.removeprefix("the "), column, value) if column else None


@cache
def _columns() -> dict[str, str]:
    return {fact.relation.noun: fact.column for fact in atlas.load_facts()}


def passes_table(table: Table, answer: str) -> bool:
    """False when the table says otherwise, or when the answer is no statement; True when it agrees
    or holds no such row."""
    parsed = parse_statement(answer)
    if parsed is None:
        return False
    entity, column, value = parsed
    return table.get((entity, column), value).removeprefix("the ") == value


def checker(kind: str, *, seed: int = 0) -> Callable[[Asked, str], bool]:
    """The check of a type: may this answer pass? It knows a table, arithmetic, the question and the
    store, never the reference."""
    if kind in ("facts", "known"):
        table = make_table(seed=seed)
        return lambda asked, said: passes_table(table, said)
    if kind == "logic":
        return lambda asked, said: is_sound_sum(asked.question, said)
    if kind == "instruction":
        return lambda asked, said: lists_what_is_asked(asked.question, said)
    texts = [normalise(passage.text) for passage in unknown_store(seed=seed).passages]

    def names_a_passage(asked: Asked, said: str) -> bool:
        answer, _, source = said.partition(SOURCE)
        return normalise(source) in texts and supports(source, answer)

    return names_a_passage


def is_sound_sum(question: str, said: str) -> bool:
    """Whether the last number of the answer is the sum of the numbers of the question."""
    numbers = [*map(int, re.findall(r"\d+", said))]
    return bool(numbers) and numbers[-1] == sum(map(int, re.findall(r"\d+", question)))


def lists_what_is_asked(question: str, said: str) -> bool:
    """Whether a list has the words of the question, "Make a list of a, b.", one a line."""
    words = re.split(r"list: |list of ", question)[1].removesuffix(".").split(", ")
    return normalise(said) == normalise(atlas.as_list(words))


def measure_checks(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0
) -> dict[str, float]:
    """Precision and recall of two checks of the answers to the type "facts": of those flagged, how
    many are wrong; of the wrong ones, how many are flagged.

    "table": `make_table`. "second passage": the best passage of a store in other wordings, made
    from a table with the same gaps and errors, supports the answer.
    """
    exam, table = type_exam("facts", seed=seed), make_table(seed=seed)
    said = say_all(model, tokenizer, [one.question for one in exam])
    wrong = [not is_right(text, one.reference) for text, one in zip(said, exam, strict=True)]
    told = [
        dataclasses.replace(fact, value=table[fact.entity, fact.column])
        for fact in facts_by_part()["unknown"]
        if (fact.entity, fact.column) in table
    ]
    store = PassageStore.of(write_passages(told, seed=seed + 100))
    best = [retrieve(store, one.question, count=1)[0].passage.text for one in exam]
    flagged = {
        "table": [not passes_table(table, text) for text in said],
        "second passage": [not supports(*pair) for pair in zip(best, said, strict=True)],
    }
    found = {}
    for name, flags in flagged.items():
        both = sum(flag and bad for flag, bad in zip(flags, wrong, strict=True))
        found[f"{name}: precision"] = round(both / max(1, sum(flags)), 4)
        found[f"{name}: recall"] = round(both / max(1, sum(wrong)), 4)
    return found


def measure_remedies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, arm: str, *, seed: int = 0
) -> dict[str, float]:
    """All types under the remedies that an arm is for, and what it costs on known facts."""
    remedies = ["none", "prompt"]
    if arm == "plain":
        remedies += ["retrieval", "checking", *DECODING, "consistency of 8"]
    found = {
        f"{kind}, {remedy}": measure_type(model, tokenizer, kind, remedy, seed=seed)
        for kind in EXAMS
        for remedy in remedies
    }
    tools = (model, tokenizer)
    for name in (None, "role", "instruction"):
        system = PROMPTS[name] if name else None
        known = measure_control(*tools, "closed book", "held_out", system=system, seed=seed)
        found[f"known, {name or 'no prompt'}"] = known
        for control in ("right note second", "same relation", "closed book"):
            one = measure_control(*tools, control, system=system, seed=seed)
            found[f"{control}, {name or 'no prompt'}"] = one
    row = {f"{name}: {what}": x for name, part in found.items() for what, x in part.items()}
    return row | (measure_checks(*tools, seed=seed) if arm == "plain" else {})


# a model that judges statements


JUDGE_ROWS, JUDGE_EPOCHS = 1600, 4
TRUE, FALSE = "true", "false"
JUDGE_QUESTION = "True or false? "


def judge_lessons(*, with_notes: bool, seed: int = 0) -> Conversations:
    """JUDGE_ROWS statements, half of them true, each answered "true" or "false".

    Without notes they are about facts of the "train" part, false ones with another value of the
    same kind. `with_notes`: behind one to three notes of an invented world, the judged fact or its
    falsified twin among them, so that only the notes can tell.
    """
    rng, train = random.Random(f"judge {with_notes} {seed}"), facts_by_part()["train"]
    rows, names = [], Names.of(train)
    for place in range(JUDGE_ROWS):
        fact, *told = (
            invent_facts(rng, names, rng.randint(1, 3)) if with_notes else [rng.choice(train)]
        )
        claim = fact if place % 2 else other_value(fact, rng)
        told = [fact, *told] if with_notes else []
        rng.shuffle(told)
        notes = [in_some_wording(rng, note, plain=0.4) for note in told]
        rows.append(talk(judge_prompt(claim.say(PLAIN), notes), TRUE if place % 2 else FALSE))
    rng.shuffle(rows)
    return rows


def judge_prompt(statement: str, notes: Sequence[str] = ()) -> str:
    return write_prompt(notes, JUDGE_QUESTION + statement)


@torch.inference_mode()
def chance_of_true(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> list[float]:
    """P("true") against P("false"), by the first token of each, where the answer begins."""
    first = [tokenizer(word).input_ids[0] for word in (TRUE, FALSE)]
    encoded = encode_prompts(tokenizer, list(prompts))
    chances = []
    for ids in encoded:
        logits = model(torch.tensor([ids], device=model.device)).logits[0, -1, first]
        chances.append(logits.float().softmax(-1)[0].item())
    return chances


@torch.inference_mode()
def chance_of_answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Conversations
) -> list[float]:
    """The probability of the least likely token of each last answer: how sure a model is of it."""
    least = []
    for row in encode_conversations(rows, tokenizer):
        logits, targets = graded_logits(model, pad_batch([row], tokenizer.pad_token_id))
        least.append(logits.log_softmax(-1).gather(1, targets[:, None]).min().exp().item())
    return least


def platt(scores: Sequence[float], right: Sequence[bool]) -> tuple[float, float]:
    """Slope and offset of a logistic curve through log-odds, fitted by Newton's method: what
    calibrates P("true")."""
    x, y = np.column_stack([_log_odds(scores), np.ones(len(scores))]), np.array(right, float)
    w = np.zeros(2)
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ w))
        slope = x.T @ (y - p) - 1e-3 * w
        curve = (x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(2)
        w = w + np.linalg.solve(curve, slope)
    return float(w[0]), float(w[1])


def calibrated(scores: Sequence[float], curve: tuple[float, float]) -> list[float]:
    return (1 / (1 + np.exp(-(curve[0] * _log_odds(scores) + curve[1])))).tolist()


def _log_odds(scores: Sequence[float]) -> np.ndarray:
    p = np.clip(np.asarray(scores, dtype=float), 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def measure_judges(
    judges: dict[str, PreTrainedModel],
    answerer: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int = 0,
    asked: int = ASKED,
) -> dict[str, float]:
    """AUROC and calibration error of each judge, on statements and on the answerer's own answers.

    judges: "alone" and "with note". Statements: each of `asked` facts truly and falsely. "own
    probability": the answerer's least likely token, of the same texts. ECE: before and after a
    curve fitted on the odd ones and measured on the even ones.
    """
    texts = {}
    for part in ("held_out", "unknown"):
        rng, facts = random.Random(f"judged {part} {seed}"), facts_by_part()[part][:asked]
        said = say_all(answerer, tokenizer, [ask_in_any_words(rng, f) for f in facts])
        claims = [(f, f.say(PLAIN), True) for f in facts]
        texts[f"{part}, statements"] = claims + [
            (f, other_value(f, rng).say(PLAIN), False) for f in facts
        ]
        texts[f"{part}, own answers"] = [
            (f, text or "?", is_right(text, f.say(PLAIN)))
            for f, text in zip(facts, said, strict=True)
        ]
    own = texts.pop("held_out, own answers")  # nearly all are right: judged with the others
    texts["both, own answers"] = own + texts["unknown, own answers"]
    found: dict[str, float] = {}
    for name, some in texts.items():
        right = [ok for _, _, ok in some]
        rng = random.Random(f"evidence {name} {seed}")
        notes = [[in_some_wording(rng, fact)] for fact, _, _ in some]
        asks = [talk(fact.say(QUESTIONS[0]), text) for fact, text, _ in some]
        scores = {"own probability": chance_of_answer(answerer, tokenizer, asks)}
        for kind, model in judges.items():
            told = notes if kind == "with note" else [[]] * len(some)
            prompts = [judge_prompt(text, n) for (_, text, _), n in zip(some, told, strict=True)]
            scores[f"judge {kind}"] = chance_of_true(model, tokenizer, prompts)
        for kind, values in scores.items():
            found[f"{name}, {kind}: AUROC"] = round(auroc(values, right), 4)
            if kind != "own probability" and name.endswith("statements"):
                found |= _calibration(f"{name}, {kind}", values, right)
    return found


def _calibration(at: str, values: Sequence[float], right: Sequence[bool]) -> dict[str, float]:
    curve = platt(values[1::2], right[1::2])
    pairs = {"ECE": values[::2], "ECE calibrated": calibrated(values[::2], curve)}
    return {
        f"{at}: {name}": round(
            expected_calibration_error(
                [max(p, 1 - p) for p in chances],
                [(p > 0.5) == ok for p, ok in zip(chances, right[::2], strict=True)],
            ),
            4,
        )
        for name, chances in pairs.items()
    }


# the table of remedies and types


REMEDIES = {  # name: the arm whose model is asked, and the remedy of `measure_type`
    "none": ("plain", "none"),
    "retrieval": ("plain", "retrieval"),
    "checking": ("plain", "checking"),
    "refusals taught": ("abstaining", "none"),
    "prompt, not taught": ("plain", "prompt"),
    "prompt, taught": ("heeding", "prompt"),
    **{name: ("plain", name) for name in (*DECODING, "consistency of 8")},
}


def remedy_measures(results: Results, kind: str, remedy: str, what: str) -> list[float]:
    """ "right", "declined" or "wrong" in one exam under one of REMEDIES, a share for each seed."""
    arm, name = REMEDIES[remedy]
    return results.measured(f"{kind}, {name}: {what}", arm=arm)


def judge_remedy(results: Results, kind: str, remedy: str) -> Verdict:
    """Whether a remedy makes fewer wrong answers than none; for "known", fewer right ones."""
    what = "right" if kind == "known" else "wrong"
    first, second = (remedy_measures(results, kind, name, what) for name in ("none", remedy))
    return judge_claim(first, second, claim="lower")


# what the chapter reads out of the recorded rows


PROMPT_EFFECTS = {  # what a prompt should change: a measure without it, and with it
    "instruction, no note answers: declined": (
        "same relation, no prompt: declined",
        "same relation, instruction: declined",
    ),
    "instruction, a note answers: right": (
        "right note second, no prompt: right",
        "right note second, instruction: right",
    ),
    "role, unknown entity: declined": ("facts, none: declined", "facts, prompt: declined"),
    "role, known entity: right": ("known, none: right", "known, prompt: right"),
    "steps, sum of three: right": ("logic, none: right", "logic, prompt: right"),
    "form, words as a list: right": ("instruction, none: right", "instruction, prompt: right"),
}


def hit_times_reading(results: Results, count: int, wording: str) -> dict[str, float]:
    """Means over the seeds of the "notes" reader: how often `count` passages hold the right one,
    the product of hit and reading (plus the misses), the measured share of right answers, and that
    after a hit.

    Reading is measured with the right note alone for one passage, else second of three; a miss is
    a note about the same entity.
    """

    def mean(measure: str) -> float:
        return float(np.mean(results.measured(measure, arm="notes")))

    at = f"found {count}, {wording}"
    hit = mean(f"{at}: hit")
    read = mean(f"right note {'alone' if count == 1 else 'second'}: right")
    product = hit * read + (1 - hit) * mean("same entity: right")
    return {
        "hit": hit,
        "product": product,
        "measured": mean(f"{at}: right"),
        "right after a hit": mean(f"{at}: right after a hit"),
    }


def best_scores(store: PassageStore, ranking: Ranking, part: str) -> list[float]:
    """The score of the best passage for a question about each of ASKED facts, in any words."""
    rng, facts = random.Random(f"scores {part}"), facts_by_part()[part][:ASKED]
    questions = [ask_in_any_words(rng, fact) for fact in facts]
    return [retrieve(store, text, count=1, ranking=ranking)[0].score for text in questions]
