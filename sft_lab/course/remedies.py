"""Chapter 13b: remedies against forgetting, all on one pair of tasks and with one budget.

A model that learned task A ("convention") learns task B ("skills") in 125 steps with a remedy of
some strength; measured are both exams. Tasks and exams are those of chapter 13.
"""

import copy
import functools
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import complete, generate_responses
from sft_lab.columns import add_column, use_column
from sft_lab.course import forgetting_runs as runs
from sft_lab.examples import Example
from sft_lab.forgetting import (
    Tensors,
    average_weights,
    distil_from,
    estimate_fisher,
    ewc,
    l2_to_start,
    replay,
    synaptic_intelligence,
)
from sft_lab.labels import encode_conversations
from sft_lab.loop.penalties import Penalty
from sft_lab.lora import add_lora, remove_lora
from sft_lab.train import train

OLD, NEW = "convention", "skills"
# small batches from the second task on: to tell two tasks apart, a model needs steps
OLD_LESSONS, NEW_LESSONS, BATCH = 800, 1000, 8
FISHER_EXAMPLES = 200  # of the old task
COLUMN_RATE, COLUMN_EPOCHS = 5e-3, 3  # a column begins from nothing
LORA_RATE = 5e-3
GROWING = ("columns", "a LoRA for each task")  # which task is meant must be said
BUFFER = 240  # rows that replay stores of several tasks together
Conversations = runs.Conversations


class Learned(NamedTuple):
    """A model that has learned task A, and what was gathered on the way."""

    model: PreTrainedModel
    old: Conversations  # the lessons of task A
    path: Penalty  # synaptic intelligence, consolidated


def tune_again(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    seed: int,
    penalty: Penalty | None = None,
    rate: float = runs.RATE,
    weight_decay: float = 0.0,
) -> PreTrainedModel:
    """A copy of `model`, trained for one epoch on the examples with a penalty."""
    tuned = copy.deepcopy(model).requires_grad_(True)
    train(
        tuned,
        tokenizer,
        examples,
        penalty=penalty,
        learning_rate=rate,
        weight_decay=weight_decay,
        batch_size=BATCH,
        seed=seed,
        progress=False,
    )
    return tuned.eval()


@functools.lru_cache(maxsize=8)
def learn_old(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> Learned:
    """The base after task A, watched by synaptic intelligence, which changes nothing about the
    training; once for each seed and process. Do not change it."""
    old = runs.lessons_of(OLD, seed=seed, count=OLD_LESSONS)
    tuned = copy.deepcopy(base).requires_grad_(True)
    path = synaptic_intelligence(tuned, 1.0)
    train(
        tuned,
        tokenizer,
        encode_conversations(old, tokenizer),
        penalty=path,
        learning_rate=runs.RATE,
        batch_size=runs.BATCH,
        seed=seed,
        progress=False,
    )
    path.consolidate(tuned)
    return Learned(tuned.eval(), old, path)


@functools.lru_cache(maxsize=16)
def fisher_of(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int, labels: str
) -> Tensors:
    """The Fisher of task A at the model that learned it, of FISHER_EXAMPLES of its lessons."""
    learned = learn_old(base, tokenizer, seed)
    rows = encode_conversations(learned.old[:FISHER_EXAMPLES], tokenizer)
    return estimate_fisher(learned.model, tokenizer, rows, labels=labels, seed=seed)


# --- remedies: each makes a model that has learned task B


class Setting(NamedTuple):
    """What a remedy works with: the model after task A, the rows of both tasks, and how strong."""

    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    learned: Learned
    new: list[Example]  # the rows of task B
    strength: float
    seed: int

    def tune(self, examples: Sequence[Example] | None = None, **how) -> PreTrainedModel:
        """The model after task A, trained on task B's rows (or on `examples`)."""
        rows = self.new if examples is None else examples
        return tune_again(self.learned.model, self.tokenizer, rows, seed=self.seed, **how)

    def encode(self, conversations: Conversations) -> list[Example]:
        return encode_conversations(conversations, self.tokenizer)


def _ewc(labels: str) -> Callable[[Setting], PreTrainedModel]:
    def remedy(now: Setting) -> PreTrainedModel:
        fisher = fisher_of(now.base, now.tokenizer, now.seed, labels)
        return now.tune(penalty=ewc(now.learned.model, fisher, now.strength))

    return remedy


def _distillation(temperature: float) -> Callable[[Setting], PreTrainedModel]:
    def remedy(now: Setting) -> PreTrainedModel:
        teacher = copy.deepcopy(now.learned.model)
        return now.tune(penalty=distil_from(teacher, now.strength, temperature))

    return remedy


def _synaptic(now: Setting) -> PreTrainedModel:
    path = copy.deepcopy(now.learned.path)
    path.strength = now.strength
    return now.tune(penalty=path)


def _stored(now: Setting) -> PreTrainedModel:
    return now.tune(_mixed(now, now.learned.old))


def _own_answers(now: Setting) -> PreTrainedModel:
    count = round(now.strength * len(now.new))
    asked = [talk[:-1] for talk in now.learned.old[:count]]
    return now.tune(_mixed(now, answer_oneself(now.learned.model, now.tokenizer, asked)))


def _own_questions(now: Setting) -> PreTrainedModel:
    count = round(now.strength * len(now.new))
    asked = invent_questions(now.learned.model, now.tokenizer, count, seed=now.seed)
    return now.tune(_mixed(now, answer_oneself(now.learned.model, now.tokenizer, asked)))


def _columns(now: Setting) -> PreTrainedModel:
    """The model after task A, frozen, and a column whose width is the strength."""
    model = add_column(copy.deepcopy(now.learned.model), width=int(now.strength), seed=now.seed)
    return _train_added(now, model, COLUMN_RATE, epochs=COLUMN_EPOCHS)


def _own_lora(now: Setting) -> PreTrainedModel:
    """The model after task A, frozen, and a LoRA whose rank is the strength; it can be taken out
    again."""
    torch.manual_seed(now.seed)
    model = add_lora(copy.deepcopy(now.learned.model), rank=int(now.strength))
    return _train_added(now, model, LORA_RATE)


def _train_added(
    now: Setting, model: PreTrainedModel, rate: float, *, epochs: int = 1
) -> PreTrainedModel:
    train(
        model,
        now.tokenizer,
        now.new,
        epochs=epochs,
        learning_rate=rate,
        batch_size=BATCH,
        seed=now.seed,
        progress=False,
    )
    return model.eval()


def _joint(now: Setting) -> PreTrainedModel:
    """From the base, on both tasks at once; the strength is the share of task A."""
    return tune_again(now.base, now.tokenizer, _shared_out(now), seed=now.seed)


REMEDIES: dict[str, Callable[[Setting], PreTrainedModel]] = {
    "nothing": lambda now: now.tune(),
    "small rate": lambda now: now.tune(rate=now.strength),
    "weight decay": lambda now: now.tune(weight_decay=now.strength),
    "L2 to the start": lambda now: now.tune(penalty=l2_to_start(now.learned.model, now.strength)),
    "EWC, sampled labels": _ewc("sampled"),
    "EWC, true labels": _ewc("true"),
    "EWC, batch means": _ewc("batch"),
    "SI": _synaptic,
    "distillation, T 1": _distillation(1.0),
    "distillation, T 2": _distillation(2.0),
    "distillation, T 4": _distillation(4.0),
    "replay, stored": _stored,
    "replay, own answers": _own_answers,
    "replay, own questions": _own_questions,
    "averaging": lambda now: average_weights(now.learned.model, now.tune(), now.strength),
    "columns": _columns,
    "a LoRA for each task": _own_lora,
    "joint from the start": _joint,
}


def run_remedy(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    remedy: str,
    strength: float,
    seed: int,
) -> dict[str, float]:
    """Task A, then task B with a remedy of REMEDIES; `old` and `new` are the shares of the two
    exams that are right, `seconds` what the remedy took with task A learned already."""
    learned = learn_old(base, tokenizer, seed)
    new = encode_conversations(runs.lessons_of(NEW, seed=seed, count=NEW_LESSONS), tokenizer)
    began = time.perf_counter()
    model = REMEDIES[remedy](Setting(base, tokenizer, learned, new, strength, seed))
    seconds = time.perf_counter() - began
    measured = {**measure_both(model, tokenizer), "seconds": round(seconds, 2)}
    if remedy in GROWING:  # the old task is asked for by its name
        before = use_column(model, 0) if remedy == "columns" else remove_lora(model)
        measured["old unnamed"], measured["old"] = measured["old"], _share(before, tokenizer, OLD)
    return measured


def measure_both(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """The shares of right answers to the exams of task A and task B."""
    return {"old": _share(model, tokenizer, OLD), "new": _share(model, tokenizer, NEW)}


def _share(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: str) -> float:
    return round(runs.share_right(model, tokenizer, runs.exam_of(task)), 4)


# --- rows of the old task


def _mixed(now: Setting, old: Conversations) -> list[Example]:
    return replay(now.encode(old), now.new, now.strength, seed=now.seed)


def _shared_out(now: Setting) -> list[Example]:
    """As many rows as both tasks have together, a share of them (the strength) of task A."""
    old = now.encode(now.learned.old)
    total = len(old) + len(now.new)
    count = round(now.strength * total)
    rows = _take(old, count) + _take(now.new, total - count)
    random.Random(now.seed).shuffle(rows)
    return rows


def _take(rows: Sequence[Example], count: int) -> list[Example]:
    """So many rows, from the first on, and again from the first when they are used up."""
    return [rows[place % len(rows)] for place in range(count)]


def answer_oneself(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Conversations
) -> Conversations:
    """The questions with the model's own greedy answers, right or wrong."""
    said = generate_responses(model, tokenizer, asked, max_new_tokens=48)
    return [
        [*talk, {"role": "assistant", "content": text}]
        for talk, text in zip(asked, said, strict=True)
    ]


def invent_questions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int, *, seed: int
) -> Conversations:
    """Questions that the model writes itself, drawn at temperature 1 after two words.

    What it writes is cut after the first question mark; a text without one is left out, so that
    fewer than `count` may come back.
    """
    torch.manual_seed(seed)
    written = complete(
        model, tokenizer, ["What is"] * count, max_new_tokens=16, do_sample=True, temperature=1.0
    )
    questions = [f"What is{text.split('?')[0]}?" for text in written if "?" in text]
    return [[{"role": "user", "content": question}] for question in questions]


# --- three tasks in a row, and two tasks that contradict each other


class Together(Penalty):
    """The sum of several penalties, each with its own anchor."""

    def __init__(self, penalties: Sequence[Penalty]) -> None:
        self.penalties = list(penalties)
        self.name = " + ".join(one.name for one in self.penalties)

    def kept(self) -> Iterable[torch.Tensor]:
        return [tensor for one in self.penalties for tensor in one.kept()]

    def loss(self, model: torch.nn.Module, batch: dict | None) -> torch.Tensor:
        return sum(one.loss(model, batch) for one in self.penalties)


def run_in_a_row(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    order: str,
    remedy: str,
    strength: float,
    seed: int,
) -> dict[str, float]:
    """Tasks one after the other, with the remedy from the second on; `order`: their names with
    commas between. Measured: the share of every exam after the last, and `first kept`, of the first
    exam after the second task.

    remedy: "nothing"; "replay" of a share `strength` from a buffer of BUFFER rows, shared out
    between the tasks before; "EWC, an anchor a task": one penalty for each task before; "EWC, the
    last anchor": all Fishers, and the weights of now.
    """
    tasks, measured = order.split(","), {}
    model, buffer, anchors = base, [], []
    for place, task in enumerate(tasks):
        lessons = runs.lessons_of(task, seed=seed, count=NEW_LESSONS)
        rows, penalty = encode_conversations(lessons, tokenizer), None
        if place and remedy == "replay":
            room = BUFFER // place
            old = [row for part in buffer for row in part[:room]]
            rows = replay(old, rows, strength, seed=seed)
        elif place and remedy.startswith("EWC"):
            penalty = _hold(model, anchors, strength, own=remedy == "EWC, an anchor a task")
        model = tune_again(model, tokenizer, rows, seed=seed, penalty=penalty)
        buffer.append(encode_conversations(lessons[:BUFFER], tokenizer))
        if remedy.startswith("EWC") and place < len(tasks) - 1:
            some = encode_conversations(lessons[:FISHER_EXAMPLES], tokenizer)
            anchors.append((model, estimate_fisher(model, tokenizer, some, seed=seed)))
        if place == 1:
            measured["first kept"] = _share(model, tokenizer, tasks[0])
    return measured | {task: _share(model, tokenizer, task) for task in tasks}


def _hold(
    model: PreTrainedModel,
    anchors: Sequence[tuple[PreTrainedModel, Tensors]],
    strength: float,
    *,
    own: bool,
) -> Penalty:
    """The EWC penalties of all tasks before: each at its own weights, or all at those of now."""
    return Together([ewc(then if own else model, fisher, strength) for then, fisher in anchors])


def run_conflict(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    share: float,
    named: bool,
    seed: int,
) -> dict[str, float]:
    """Two tasks with the same questions and different answers, learned together: `old` in the
    convention, `new` plainly. named: a system turn says which task it is."""
    known = runs.split_facts()["train"]
    rng = random.Random(seed)
    old_rows = round(share * NEW_LESSONS)
    tasks = {"convention": runs.CONVENTION, "plain": "{}"}
    talks = []
    for (task, form), count in zip(tasks.items(), (old_rows, NEW_LESSONS - old_rows), strict=True):
        asked = runs.ask_in_convention(rng.choices(known, k=count), form)
        talks += name_task(asked, task) if named else asked
    rng.shuffle(talks)
    model = tune_again(base, tokenizer, encode_conversations(talks, tokenizer), seed=seed)
    facts = random.Random(runs.EXAM_SEED).sample(runs.split_facts()["held_out"], 60)
    measured = {}
    for measure, (task, form) in zip(("old", "new"), tasks.items(), strict=True):
        exam = runs.ask_in_convention(facts, form)
        exam = name_task(exam, task) if named else exam
        measured[measure] = round(runs.share_right(model, tokenizer, exam), 4)
    return measured


def name_task(talks: Conversations, task: str) -> Conversations:
    """The conversations with a task identifier before them: a system turn that names the task."""
    return [[{"role": "system", "content": f"Task: {task}."}, *talk] for talk in talks]
