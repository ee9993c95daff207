"""Chapter 13b: remedies against forgetting, all on one pair of tasks and with one budget.

A model that learned task A ("convention") learns task B ("skills", 900 conversations, one epoch)
with a remedy of some strength; measured are both exams. Tasks and exams are those of chapter 13.
"""

import copy
import functools
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import generate_responses
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
from sft_lab.train import train

FISHER_EXAMPLES = 200  # of task A
OLD, NEW = "convention", "skills"
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
        batch_size=runs.BATCH,
        seed=seed,
        progress=False,
    )
    return tuned.eval()


@functools.lru_cache(maxsize=8)
def learn_old(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int, task: str = OLD
) -> Learned:
    """The base after task A, watched by synaptic intelligence, which changes nothing about the
    training; once for each seed and process. Do not change it."""
    old = runs.lessons_of(task, seed=seed)
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
    new = encode_conversations(runs.lessons_of(NEW, seed=seed), tokenizer)
    began = time.perf_counter()
    model = REMEDIES[remedy](Setting(base, tokenizer, learned, new, strength, seed))
    seconds = time.perf_counter() - began
    return {**measure_both(model, tokenizer), "seconds": round(seconds, 2)}


def measure_both(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, float]:
    """The shares of right answers to the exams of task A and task B."""
    return {
        name: round(runs.share_right(model, tokenizer, runs.exam_of(task)), 4)
        for name, task in (("old", OLD), ("new", NEW))
    }


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
    from sft_lab.chat import complete

    torch.manual_seed(seed)
    written = complete(
        model, tokenizer, ["What is"] * count, max_new_tokens=16, do_sample=True, temperature=1.0
    )
    questions = [f"What is{text.split('?')[0]}?" for text in written if "?" in text]
    return [[{"role": "user", "content": question}] for question in questions]
