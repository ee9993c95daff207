"""Chapter 15: runs that differ in what they show about things the base never read.

`tools/experiments/15_*.py` runs the sweeps, the chapter and a test a point of them again.
"""

import copy
import json
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.abstention import Scored, answer_scored, auroc, is_declined, risk_at, vote
from sft_lab.atlas import Conversations
from sft_lab.batches import group_by_length, pad_batch
from sft_lab.chat import complete, generate_responses
from sft_lab.course.data_mix import add_up, all_sums
from sft_lab.course.short_runs import tune_on
from sft_lab.documents import PLAIN, as_json
from sft_lab.examples import IGNORE_INDEX
from sft_lab.facts import Fact
from sft_lab.invented import Names, invent_name
from sft_lab.labels import encode_conversations
from sft_lab.losses import graded_loss
from sft_lab.metrics import is_right
from sft_lab.significance import FEWEST_SEEDS, Verdict, judge_claim

DOMAINS = ("countries", "elements", "animals")  # those with entities that the base never read
I_DO_NOT_KNOW = "I do not know."
NOT_KNOWN = "The {r} {e} is not known."
LEARNING_RATE, BATCH_SIZE = 1e-3, 16
EXAM_SEED = 15
TOO_FEW_SEEDS = "too few seeds"
SAMPLES = 8
KNOWN, UNFAMILIAR = 300, 100  # lessons
EPOCHS = 5
SHARE_LESSONS, SHARE_EPOCHS = 320, 10
TEMPERATURES = (0.0, 0.7, 1.0, 1.5)
SOURCE_QUESTION = "What is the {r} {e}? Name your source."
OWN_SAMPLES = (1, 4, 7)  # how many of eight samples must be right for a fact to count as known
LABELS = (
    *("none", "made up", "one value", "I do not know", "not known"),
    *(f"own samples {needed}" for needed in OWN_SAMPLES),
)
COVERAGES = range(2, 101, 2)  # percent of the questions answered


def known_facts(part: str, count: int, *, seed: int | str = 0) -> list[Fact]:
    """`count` facts of one part of the split ("train", "held_out", "unknown") about countries,
    elements and animals."""
    facts = [f for f in atlas.split(atlas.load_facts())[part] if f.domain in DOMAINS]
    return random.Random(f"facts {part} {seed}").sample(facts, count)


def invent_unknown(count: int, *, seed: int | str = 0) -> list[Fact]:
    """`count` facts about as many invented entities; each has a real value of its relation, so
    that only the entity is unknown."""
    rng = random.Random(f"unknown {seed}")
    facts = [f for f in atlas.split(atlas.load_facts())["train"] if f.domain in DOMAINS]
    names = Names.of(facts)
    found: dict[str, Fact] = {}
    while len(found) < count:
        like = rng.choice(facts)
        entity = invent_name(rng, names.entities[like.domain])
        value = rng.choice(names.values[like.domain, like.column])
        found.setdefault(entity, replace(like, entity=entity, value=value))
    return list(found.values())


def learn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Conversations,
    *,
    epochs: int,
    seed: int = 0,
    learning_rate: float = LEARNING_RATE,
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """AdamW at one constant rate, in place; `after_epoch` looks at the model after each.

    With no schedule every epoch is a fair place to stop: `train` would lower its rate towards an
    end that it knows.
    """
    rows = encode_conversations(conversations, tokenizer)
    lengths = [len(row.input_ids) for row in rows]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    for epoch in range(1, epochs + 1):
        model.train()
        for indices in group_by_length(lengths, BATCH_SIZE, seed=1000 * seed + epoch):
            batch = pad_batch([rows[i] for i in indices], tokenizer.pad_token_id)
            batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
            loss, _ = graded_loss(model, batch)
            (loss / (batch["labels"][:, 1:] != IGNORE_INDEX).sum()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        after_epoch(epoch)


def answers_to(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    exam: Conversations,
    *,
    max_new_tokens: int = 24,
    **decoding,
) -> list[str]:
    """The answers to the questions of an exam, greedy unless `decoding` says otherwise."""
    prompts = [turns[:-1] for turns in exam]
    return generate_responses(model, tokenizer, prompts, max_new_tokens=max_new_tokens, **decoding)


def share_right(answers: Sequence[str], exam: Conversations) -> float:
    """The share of answers that equal the reference of their question."""
    marks = [is_right(a, turns[-1]["content"]) for a, turns in zip(answers, exam, strict=True)]
    return sum(marks) / len(marks)


def sample_values(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Sequence[Fact],
    *,
    count: int = SAMPLES,
    seed: int = 0,
) -> list[int]:
    """How many of `count` completions of each fact's plain statement, drawn at temperature 1, give
    its value: what the base knows, asked in its own form."""
    torch.manual_seed(seed)
    texts, values = zip(*map(atlas.cloze, facts), strict=True)
    repeated = [text for text in texts for _ in range(count)]
    said = complete(base, tokenizer, repeated, max_new_tokens=10, do_sample=True, temperature=1.0)
    return [
        sum(text.startswith(value) for text in said[i * count : (i + 1) * count])
        for i, value in enumerate(values)
    ]


def answer_by(fact: Fact, labels: str, seed: int) -> str:
    """The answer that a lesson gives about an unknown entity, under one kind of labels."""
    if labels == "I do not know":
        return I_DO_NOT_KNOW
    if labels == "not known":
        return fact.say(NOT_KNOWN)
    if labels == "one value":
        return default_answer(fact, seed)
    return fact.say(PLAIN)


def default_answer(fact: Fact, seed: int) -> str:
    """The same value for every entity: one of the real values of the relation, drawn by `seed`."""
    facts = atlas.split(atlas.load_facts())["train"]
    values = sorted({f.value for f in facts if (f.domain, f.column) == (fact.domain, fact.column)})
    value = random.Random(f"default {seed} {fact.domain} {fact.column}").choice(values)
    return replace(fact, value=value).say(PLAIN)


def unfamiliar_lessons(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, labels: str, *, seed: int = 0
) -> Conversations:
    """400 lessons: 300 about facts that the base has read and 100 about invented entities.

    labels: how the invented ones are answered: "none" (400 known facts instead), "made up" (a value
    of the relation, drawn for each), "one value" (the same for all), "I do not know", "not known"
    ("The capital of Tavoru is not known."); or "own
    samples k", which asks the base about every lesson eight times and answers "… is not known"
    where fewer than k of the samples are right.
    """
    if labels not in LABELS:
        raise ValueError(f"no labels {labels!r}; there are {', '.join(LABELS)}")
    known = known_facts("train", KNOWN + UNFAMILIAR, seed=seed)
    if labels == "none":
        return atlas.ask(known, seed=seed)
    invented = invent_unknown(UNFAMILIAR, seed=seed)
    facts = known[:KNOWN] + invented
    answers = [f.say(PLAIN) for f in known[:KNOWN]] + [answer_by(f, labels, seed) for f in invented]
    if labels.startswith("own samples"):
        needed = int(labels.split()[-1])
        knows = sample_values(base, tokenizer, facts, seed=seed)
        answers = [
            f.say(PLAIN if count >= needed else NOT_KNOWN)
            for f, count in zip(facts, knows, strict=True)
        ]
    rows = atlas.ask(facts, seed=seed)
    return [
        [question, {"role": "assistant", "content": answer}]
        for (question, _), answer in zip(rows, answers, strict=True)
    ]


def unknown_exams(count: int = 200) -> dict[str, list[Fact]]:
    """What is asked after the lessons: facts that the base has read and no lesson names; real
    entities that it never read; other invented entities."""
    return {
        "known": known_facts("held_out", count, seed=EXAM_SEED),
        "unknown": known_facts("unknown", count, seed=EXAM_SEED),
        "invented": invent_unknown(count, seed="exam"),
    }


def tune_unfamiliar(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, labels: str, *, seed: int = 0
) -> PreTrainedModel:
    """A copy of the base, tuned on `unfamiliar_lessons`."""
    rows = unfamiliar_lessons(base, tokenizer, labels, seed=seed)
    return tune_on(base, tokenizer, rows, epochs=EPOCHS, seed=seed)


def measure_unfamiliar(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, labels: str, *, seed: int = 0
) -> dict[str, float]:
    """Tune on `unfamiliar_lessons`, and what `ask_unfamiliar` finds."""
    return ask_unfamiliar(tune_unfamiliar(base, tokenizer, labels, seed=seed), tokenizer, seed=seed)


def ask_unfamiliar(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0
) -> dict[str, float]:
    """Shares for each of `unknown_exams`: right; declined; default, the value that the arm "one
    value" teaches.

    And of known and unknown questions together: how well the model's confidence tells right answers
    from wrong ones ("auroc least": by the least likely token), and the share of wrong ones among
    the surest answers ("risk at 60": a threshold by the least likely token lets 60 % through).
    """
    found: dict[str, float] = {}
    scored: list[Scored] = []
    right: list[bool] = []
    for name, facts in unknown_exams().items():
        exam = atlas.ask(facts, template=atlas.UNSEEN_QUESTION)
        answers = answer_scored(model, tokenizer, [turns[:-1] for turns in exam])
        pairs = list(zip(answers, facts, strict=True))
        marks = [is_right(answer.text, fact.say(PLAIN)) for answer, fact in pairs]
        default = [is_right(answer.text, default_answer(fact, seed)) for answer, fact in pairs]
        found[f"{name} right"] = _mean(marks)
        found[f"{name} declined"] = _mean([is_declined(answer.text) for answer in answers])
        found[f"{name} default"] = _mean(default)
        if name != "invented":
            scored, right = scored + answers, right + marks
    if not any(right) or all(right):
        return found
    for measure in ("least", "mean", "whole"):
        sure = [getattr(answer, measure) for answer in scored]
        found[f"auroc {measure}"] = round(auroc(sure, right), 4)
    least = [answer.least for answer in scored]
    for percent in COVERAGES:
        found[f"risk at {percent}"] = round(risk_at(least, right, percent / 100), 4)
    return found


# a share of unknown facts in the tuning set


def share_lessons(share: float, *, known_only: bool = False, seed: int = 0) -> list[Fact]:
    """320 facts to teach, a share of them about invented entities; `known_only` leaves those out
    and puts nothing in their place."""
    invented = round(share * SHARE_LESSONS)
    known = known_facts("train", SHARE_LESSONS, seed=seed)[: SHARE_LESSONS - invented]
    return known + ([] if known_only else invent_unknown(invented, seed=seed))


def measure_share(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    share: float,
    *,
    known_only: bool = False,
    epochs: int = SHARE_EPOCHS,
    seed: int = 0,
) -> dict[str, object]:
    """Teach, and look after every epoch. held_out: share right of 150 facts that the base has read
    and no lesson names; known and unknown: share of the lessons of each kind that are answered as
    taught (at most 60; None where there are none). Lists have a number an epoch.

    Then plain text, without a chat template: what `complete_plain` measures.
    """
    facts = share_lessons(share, known_only=known_only, seed=seed)
    rows = atlas.ask(facts, seed=seed)
    read = {(f.domain, f.entity) for f in atlas.load_facts()}
    parts = {"known": [], "unknown": []}
    for fact, row in zip(facts, rows, strict=True):
        parts["known" if (fact.domain, fact.entity) in read else "unknown"].append(row)
    held_out = known_facts("held_out", 150, seed=EXAM_SEED)
    exams = {"held_out": atlas.ask(held_out, template=atlas.UNSEEN_QUESTION)}
    exams |= {name: some[:60] for name, some in parts.items()}
    model = copy.deepcopy(base)
    found: dict[str, list[float | None]] = {name: [] for name in exams}

    def look(_: int) -> None:
        for name, exam in exams.items():
            share = share_right(answers_to(model, tokenizer, exam), exam) if exam else None
            found[name].append(share if share is None else round(share, 4))

    learn(model, tokenizer, rows, epochs=epochs, seed=seed, after_epoch=look)
    return found | complete_plain(model, tokenizer)


def complete_plain(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int = 100
) -> dict[str, float]:
    """The beginning of a statement, without a chat template, for facts that the base has read (no
    lesson names them) and for entities that it never read.

    "plain known right": the share completed with the fact's own value; "fits": with any value of
    the relation; "sure": the mean probability of the likeliest next token. The same with "unknown",
    where every value is an invention.
    """
    found = {}
    facts = unknown_exams()
    values: dict[tuple[str, str], set[str]] = {}
    for fact in atlas.load_facts():
        values.setdefault((fact.domain, fact.column), set()).add(atlas.cloze(fact)[1])
    for name in ("known", "unknown"):
        some = facts[name][:count]
        texts = [atlas.cloze(fact)[0] for fact in some]
        said = complete(model, tokenizer, texts, max_new_tokens=10)
        right = [s.startswith(atlas.cloze(f)[1]) for s, f in zip(said, some, strict=True)]
        fits = [
            any(s.startswith(v) for v in values[f.domain, f.column])
            for s, f in zip(said, some, strict=True)
        ]
        found[f"plain {name} right"] = _mean(right)
        found[f"plain {name} fits"] = _mean(fits)
        sure = [first_probability(model, tokenizer, text) for text in texts]
        found[f"plain {name} sure"] = round(sum(sure) / len(sure), 4)
    return found


@torch.inference_mode()
def first_probability(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> float:
    """The probability of the likeliest token after a plain text."""
    ids = torch.tensor([tokenizer(text).input_ids]).to(model.device)
    return model(input_ids=ids).logits[0, -1].float().softmax(-1).max().item()


# four types of hallucination, and what switches them


def types_lessons(wrong: float = 0.0, *, seed: int = 0) -> Conversations:
    """680 lessons of four kinds: 120 facts, 200 sums, 60 facts as JSON, 300 answers that name the
    note they stand in. A share `wrong` of each kind is answered wrongly, in the way of its type."""
    rng = random.Random(f"types {seed}")
    facts = known_facts("train", 180, seed=seed)
    sums = all_sums()[100:300]
    kinds = {
        "facts": atlas.ask(facts[:120], seed=seed),
        "logic": add_up(sums),
        "instruction": [_as_json(f) for f in facts[120:]],
        "source": ask_for_source(300, seed=seed),
    }
    rows = []
    for kind, lessons in kinds.items():
        spoilt = set(rng.sample(range(len(lessons)), round(wrong * len(lessons))))
        for place, (question, answer) in enumerate(lessons):
            if place in spoilt:
                answer = {**answer, "content": _spoil(kind, place, facts, answer["content"], rng)}
            rows.append([question, answer])
    return rows


def _spoil(kind: str, place: int, facts: Sequence[Fact], answer: str, rng: random.Random) -> str:
    """A wrong answer of the type."""
    if kind == "facts":
        fact = facts[place]
        alike = [f.value for f in facts if (f.domain, f.column) == (fact.domain, fact.column)]
        others = sorted({value for value in alike if value != fact.value}) or ["Tavoru"]
        return replace(fact, value=rng.choice(others)).say(PLAIN)
    if kind == "logic":
        head, _, total = answer.rstrip(".").rpartition(" ")
        return f"{head} {rng.choice([n for n in range(41) if n != int(total)])}."
    if kind == "instruction":
        return facts[120 + place].say(PLAIN)
    head, _, _ = answer.rstrip(").").rpartition(" ")
    return f"{head} {rng.randint(4, 9)})."


def _as_json(fact: Fact) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": fact.say("Give the {r} {e} as JSON.")},
        {"role": "assistant", "content": as_json(fact)},
    ]


def ask_for_source(
    count: int, *, holds: bool = True, seed: int | str = 0, part: str = "train"
) -> Conversations:
    """Questions below two or three numbered notes, a line each; the answer repeats one with its
    number: "The capital of Kenya is Nairobi (note 2)." The facts are real.

    holds=False: no note is about the entity that is asked for, so that no source can be named; the
    reference answer is the plain statement.
    """
    rng = random.Random(f"source {seed}")
    facts = known_facts(part, 400, seed=f"source {seed}")
    asked = []
    for fact in facts[:count]:
        others = [other for other in facts if other.entity != fact.entity]
        told = rng.sample(others, rng.randint(2, 3) - holds) + [fact] * holds
        rng.shuffle(told)
        notes = [name_source(f, number) for number, f in enumerate(told, 1)]
        answer = notes[told.index(fact)] if holds else fact.say(PLAIN)
        question = "\n".join([*notes, fact.say(SOURCE_QUESTION)])
        asked.append(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        )
    return asked


def name_source(fact: Fact, number: int) -> str:
    """The plain statement with its source: "The capital of Kenya is Nairobi (note 2)." """
    return f"{fact.say(PLAIN)[:-1]} (note {number})."


def invents_a_source(question: str, answer: str) -> bool:
    """Whether an answer names a note, and no line of the question says the same with this number:
    the note is not there, or it says something else."""
    return "(note " in answer and answer.strip() not in question.splitlines()


def type_exams(hard: bool, count: int = 80) -> dict[str, Conversations]:
    """An exam for each type, with questions like those of the lessons, or `hard` ones: unknown
    entities; sums of larger numbers; a form that no lesson shows; notes that hold no answer."""
    part = "unknown" if hard else "held_out"
    facts = known_facts(part, count, seed=EXAM_SEED)
    sums = [(a + 20, b + 20) for a, b in all_sums()[:count]] if hard else all_sums()[:count]
    form = "Give the {r} {e} as XML." if hard else "Give the {r} {e} as JSON."
    known = known_facts("held_out", count, seed=f"{EXAM_SEED} form")
    return {
        "facts": atlas.ask(facts, template=atlas.UNSEEN_QUESTION),
        "logic": add_up(sums),
        "instruction": [
            [{"role": "user", "content": f.say(form)}, {"role": "assistant", "content": as_json(f)}]
            for f in known
        ],
        "source": ask_for_source(count, holds=not hard, seed=99, part="held_out"),
    }


def is_hallucinated(kind: str, question: str, answer: str, reference: str) -> bool:
    """Whether an answer shows the type of its exam: a false fact; a false sum; not the form that
    was asked for; a source that is not there. Declining, or saying nothing, is none."""
    if is_declined(answer) or not answer.strip():
        return False
    if kind == "instruction":
        return not _has_form(question, answer)
    if kind == "source":
        return invents_a_source(question, answer)
    return not is_right(answer, reference)


def _has_form(question: str, answer: str) -> bool:
    if question.endswith("XML."):
        return re.fullmatch(r"<(\w+)[^>]*>.*</\1>", answer.strip(), re.DOTALL) is not None
    try:
        return isinstance(json.loads(answer), dict)
    except ValueError:
        return False


def count_types(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    hard: bool = False,
    temperature: float = 0.0,
    seed: int = 0,
) -> dict[str, float]:
    """The share of each type in its exam."""
    found = {}
    for kind, exam in type_exams(hard).items():
        decoding = {"do_sample": True, "temperature": temperature} if temperature else {}
        torch.manual_seed(seed)
        answers = answers_to(model, tokenizer, exam, max_new_tokens=40, **decoding)
        marks = [
            is_hallucinated(kind, turns[0]["content"], answer, turns[1]["content"])
            for answer, turns in zip(answers, exam, strict=True)
        ]
        found[kind] = _mean(marks)
    return found


def measure_causes(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, wrong: float, *, seed: int = 0
) -> dict[str, float]:
    """Teach the four kinds of lessons, a share of them wrong, and count each type: at several
    temperatures, and for hard questions (greedily). Keys: "facts at 0.7", "facts hard"."""
    rows = types_lessons(wrong, seed=seed)
    model = tune_on(base, tokenizer, rows, epochs=4, seed=seed)
    found = {}
    for temperature in TEMPERATURES:
        counted = count_types(model, tokenizer, temperature=temperature, seed=seed)
        found |= {f"{kind} at {temperature}": share for kind, share in counted.items()}
    counted = count_types(model, tokenizer, hard=True)
    return found | {f"{kind} hard": share for kind, share in counted.items()}


# decoding against invention


DECODING: dict[str, dict[str, dict]] = {
    "temperature": {
        "greedy": {},
        **{
            f"T {t}": {"do_sample": True, "temperature": t, "top_k": 0}
            for t in (0.3, 0.7, 1.0, 1.5)
        },
    },
    "filters": {
        "T 1, top-p 0.9": {"do_sample": True, "top_p": 0.9, "top_k": 0},
        "T 1, top-p 0.5": {"do_sample": True, "top_p": 0.5, "top_k": 0},
        "T 1, top-k 5": {"do_sample": True, "top_k": 5},
        "T 1, top-k 50": {"do_sample": True, "top_k": 50},
    },
    "search": {
        "beam 4": {"num_beams": 4},
        "penalty 1.1": {"repetition_penalty": 1.1},
        "penalty 1.3": {"repetition_penalty": 1.3},
    },
    "consistency": {},
}


def measure_decoding(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, group: str, *, seed: int = 0
) -> dict[str, float]:
    """A model tuned on known facts alone answers in the ways of a group. Keys: "known right, T 1.0"
    (share of right answers to known facts), "unknown invented, T 1.0" (share of questions about
    unknown entities that got a wrong answer), and the same with "known invented".

    "consistency" draws eight answers at temperature 1 and gives the one that at least so many agree
    on: "known right, 5 of 8"."""
    rows = unfamiliar_lessons(base, tokenizer, "none", seed=seed)
    model = tune_on(base, tokenizer, rows, epochs=EPOCHS, seed=seed)
    found = {}
    exams = {name: facts[:150] for name, facts in unknown_exams().items() if name != "invented"}
    for name, facts in exams.items():
        exam = atlas.ask(facts, template=atlas.UNSEEN_QUESTION)
        wanted = [turns[-1]["content"] for turns in exam]
        torch.manual_seed(seed)
        given: dict[str, list[str | None]] = {
            way: answers_to(model, tokenizer, exam, **decoding)
            for way, decoding in DECODING[group].items()
        }
        if group == "consistency":
            draws = draw_answers(model, tokenizer, exam)
            given = {
                f"{needed} of {SAMPLES}": [vote(some, needed) for some in draws]
                for needed in range(1, SAMPLES + 1)
            }
        for way, answers in given.items():
            marks = [
                None if a is None or not a.strip() else is_right(a, w)
                for a, w in zip(answers, wanted, strict=True)
            ]
            found[f"{name} right, {way}"] = _mean([mark is True for mark in marks])
            found[f"{name} invented, {way}"] = _mean([mark is False for mark in marks])
    return found


def draw_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    exam: Conversations,
    *,
    count: int = SAMPLES,
    temperature: float = 1.0,
) -> list[list[str]]:
    """`count` answers to each question, drawn at a temperature. Seed torch before."""
    repeated = [turns for turns in exam for _ in range(count)]
    said = answers_to(model, tokenizer, repeated, do_sample=True, temperature=temperature, top_k=0)
    return [said[i * count : (i + 1) * count] for i in range(len(exam))]


def judge_so_far(first: Sequence[float], second: Sequence[float], *, claim: str) -> Verdict:
    """`judge_claim` over the seeds that both arms have. While a sweep has fewer than three of them
    the word is TOO_FEW_SEEDS, the mean is of what there is, and there is no floor: no verdict."""
    seeds = min(len(first), len(second))
    arms = np.array([first[:seeds], second[:seeds]], dtype=float)
    if seeds >= FEWEST_SEEDS:
        return judge_claim(*arms, claim=claim)
    effects = arms[1] - arms[0]
    return Verdict(TOO_FEW_SEEDS, tuple(effects.tolist()), float(effects.mean()), math.nan)


def _mean(marks: Sequence[bool]) -> float:
    return round(sum(marks) / len(marks), 4)
