"""Chapter 03b: runs that differ in their mask, and runs that differ in what the prompt weighs, for
four kinds of prompt and answer.

A run with a weight trains until its loss on held-out answers falls no longer, and keeps the weights
of the lowest. The chapter and `tools/experiments/03b_*.py` share these functions, so that a
recorded row can be run again.
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.batches import pad_batch
from sft_lab.chat import generate_ids
from sft_lab.course.label_runs import make_exam, practice, tune
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.facts import Fact
from sft_lab.labels import encode_conversations
from sft_lab.losses import graded_logits
from sft_lab.records import Conversation
from sft_lab.rendering import encode_text, stop_token_id
from sft_lab.train import evaluate

POLICIES = ("last", "assistant", "prompt too", "all")
KINDS = ("notes to read", "notes in front", "question alone", "long answer")
WEIGHTS = (0.0, 0.1, 1.0)  # of a token of the prompt; a token of the answer weighs 1
RATE, BATCH, WARMUP, CLIP = 1e-3, 16, 8, 1.0
EVERY, PATIENCE, MOST = 8, 4, 160  # steps between evaluations, evaluations without a new best
TRAINED, WATCHED, ASKED = 96, 48, 144  # conversations: trained, to know when to stop, for the exam
NOTES = 8
DOMAINS = ("countries", "elements", "animals")  # five facts about each of their entities

Conversations = list[Conversation]


def label_turns(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, policy: str
) -> Example:
    """A ChatML conversation turn by turn, graded by one of POLICIES: the last answer; every answer;
    what user and assistant say; every token. An answer is graded with its stop token."""
    start, stop = tokenizer.convert_tokens_to_ids("<|im_start|>"), stop_token_id(tokenizer)
    last = len(conversation) - 1
    input_ids, graded = [], []
    for number, turn in enumerate(conversation):
        header = [start, *encode_text(turn["role"] + "\n", tokenizer)]
        said, line_break = encode_text(turn["content"], tokenizer), encode_text("\n", tokenizer)
        is_answer = turn["role"] == "assistant" and (policy != "last" or number == last)
        is_question = turn["role"] == "user" and policy == "prompt too"
        input_ids += [*header, *said, stop, *line_break]
        graded += [False] * len(header) + [is_answer or is_question] * len(said)
        graded += [is_answer] + [False] * len(line_break)
    labels = [
        token_id if policy == "all" or on else IGNORE_INDEX
        for token_id, on in zip(input_ids, graded, strict=True)
    ]
    return Example(input_ids, labels)


def only_questions(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> Example:
    """The words of the user alone are graded."""
    both = label_turns(conversation, tokenizer, "prompt too")
    answers = label_turns(conversation, tokenizer, "assistant")
    labels = [
        label if other == IGNORE_INDEX else IGNORE_INDEX
        for label, other in zip(both.labels, answers.labels, strict=True)
    ]
    return Example(both.input_ids, labels)


def run_policy(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, policy: str, seed: int
) -> dict[str, Any]:
    """Tune for one epoch of 16 steps with the labels of one policy; measure held-out questions.

    answers, questions: loss on the true answers and on the users' words, nats per token; right and
    stops: shares of the model's own answers; trained: the mean loss of the last eight steps.
    """
    rows = [label_turns(turns, tokenizer, policy) for turns in practice(64, seed)]
    model, losses = tune(base, tokenizer, rows, seed=seed)
    exam = make_exam(tokenizer)
    right, stops = share_right(model, tokenizer, exam.talks)
    asked = [only_questions(turns, tokenizer) for turns in exam.talks]
    return {
        "trained": sum(losses[-8:]) / 8,
        "answers": evaluate(model, tokenizer, exam.answers)["loss"],
        "questions": evaluate(model, tokenizer, asked)["loss"],
        "right": right,
        "stops": stops,
    }


@dataclass
class Run:
    """What a run did: the loss on the answers that are watched, nats per token, by its step."""

    steps: list[int]
    watched: list[float]
    best_step: int


def conversations_of(kind: str, part: str, count: int, seed: int) -> Conversations:
    """`count` conversations of one kind about the entities of one part of `atlas.split`.

    "question alone"; "notes in front": the same questions behind eight notes about other entities;
    "notes to read": one of the eight notes is the answer; "long answer": "Tell me about …",
    answered by every fact about the entity. No fact, or entity, is asked for twice.
    """
    parts = atlas.split(atlas.load_facts())
    facts = [fact for fact in parts[part] if fact.domain in DOMAINS]
    rng = random.Random(f"{part} {seed}")  # the same facts for every kind but the last
    if kind == "long answer":
        groups = [list(group) for _, group in groupby(facts, key=lambda fact: fact.entity)]
        return [tell_about(group) for group in rng.sample(groups, count)]
    asked = rng.sample(facts, count)
    if kind == "question alone":
        return atlas.ask(asked, seed=seed)
    if kind in ("notes in front", "notes to read"):
        right = kind == "notes to read"
        return atlas.ask_with_notes(asked, facts, count=NOTES, right=right, seed=seed)
    raise ValueError(f"no kind {kind!r}; there are {', '.join(KINDS)}")


def tell_about(facts: Sequence[Fact]) -> Conversation:
    """A short question about an entity, answered by all of its facts, a statement each."""
    said = " ".join(fact.say("The {r} {e} is {v}.") for fact in facts)
    question = facts[0].say("Tell me about {e}.")
    return [{"role": "user", "content": question}, {"role": "assistant", "content": said}]


def count_tokens(rows: Sequence[Example]) -> tuple[float, float]:
    """Mean tokens of prompt and of answer; the prompt is all that is not graded."""
    graded = [sum(label != IGNORE_INDEX for label in row.labels) for row in rows]
    whole = [len(row.input_ids) for row in rows]
    return (sum(whole) - sum(graded)) / len(rows), sum(graded) / len(rows)


def prompt_weighted_nll(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], weight: float
) -> torch.Tensor:
    """Weighted mean NLL in nats: tokens of the answers weigh 1, all others but padding `weight`.

    batch: input_ids, labels (IGNORE_INDEX outside the answers) and attention_mask, (B, T).
    """
    labels = batch["labels"]
    if weight:
        labels = batch["input_ids"].where(batch["attention_mask"].bool(), IGNORE_INDEX)
    logits, targets = graded_logits(model, {**batch, "labels": labels})
    # the weights of the same positions, in the same order
    counted = labels[:, 1:] != IGNORE_INDEX
    is_answer = (batch["labels"][:, 1:] != IGNORE_INDEX)[counted]
    weights = torch.where(is_answer, 1.0, weight)
    nll = F.cross_entropy(logits.float(), targets, reduction="none")
    return (nll * weights).sum() / weights.sum()


def tune_until_it_stops_falling(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Example],
    watched: Sequence[Example],
    *,
    weight: float,
    seed: int,
    rate: float = RATE,
    batch_size: int = BATCH,
    every: int = EVERY,
    patience: int = PATIENCE,
    most: int = MOST,
) -> tuple[PreTrainedModel, Run]:
    """A copy of `base` as it was at its lowest loss on `watched`, and what was watched.

    Stops after `patience` evaluations without a new lowest, or after `most` steps. Constant rate
    behind a short warm-up, so that nothing but the data says when it is done.
    """
    model, rng = copy.deepcopy(base), random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)
    run, best, lowest, order = Run([], [], 0), {}, float("inf"), []
    for step in range(1, most + 1):
        if len(order) < batch_size:
            order += rng.sample(range(len(rows)), len(rows))
        batch = pad_batch([rows[order.pop(0)] for _ in range(batch_size)], tokenizer.pad_token_id)
        optimizer.param_groups[0]["lr"] = rate * min(1.0, step / WARMUP)
        optimizer.zero_grad()
        prompt_weighted_nll(model, batch, weight).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        if step % every:
            continue
        run.steps.append(step)
        run.watched.append(evaluate(model, tokenizer, watched)["loss"])
        if run.watched[-1] < lowest:
            lowest, run.best_step = run.watched[-1], step
            best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        elif step - run.best_step >= patience * every:
            break
    model.load_state_dict(best)
    return model.eval(), run


def share_right(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, exam: Conversations
) -> tuple[float, float]:
    """Share of the statements of all right answers that stand in the model's own, and share of its
    answers that end by themselves."""
    longest = 8 + max(len(tokenizer(turns[-1]["content"]).input_ids) for turns in exam)
    prompts = [turns[:-1] for turns in exam]
    said = generate_ids(model, tokenizer, prompts, max_new_tokens=longest)
    right = wanted = 0
    for ids, turns in zip(said, exam, strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        statements = turns[-1]["content"].split(". ")  # the last one keeps its full stop
        right += sum(statement.rstrip(".") + "." in text for statement in statements)
        wanted += len(statements)
    stop = stop_token_id(tokenizer)
    return right / wanted, sum(ids[-1] == stop for ids in said) / len(said)


def run_point(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    kind: str,
    weight: float,
    seed: int,
    rate: float = RATE,
) -> dict[str, Any]:
    """Tune with one kind of prompt and one weight of its tokens, and measure held-out answers.

    right: share of the statements (primary); nll: loss on the answers of the exam; watched and
    steps: the loss that decided when to stop. The exam is the same for all seeds.
    """
    rows = encode_conversations(conversations_of(kind, "train", TRAINED, seed), tokenizer)
    held_out = "unknown" if kind == "notes to read" else "held_out"
    both = conversations_of(kind, held_out, WATCHED + ASKED, 0)
    watched, exam = encode_conversations(both[:WATCHED], tokenizer), both[WATCHED:]
    model, run = tune_until_it_stops_falling(
        base, tokenizer, rows, watched, weight=weight, seed=seed, rate=rate
    )
    right, stops = share_right(model, tokenizer, exam)
    prompt, answer = count_tokens(rows)
    return {
        "right": right,
        "nll": evaluate(model, tokenizer, encode_conversations(exam, tokenizer))["loss"],
        "stops": stops,
        "best_step": run.best_step,
        "steps": run.steps,
        "watched": [round(loss, 4) for loss in run.watched],
        "prompt_tokens": round(prompt, 1),
        "answer_tokens": round(answer, 1),
    }
