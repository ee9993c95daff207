"""Chapter 06: six ways of tuning on one task, and what each learns and disturbs.

Questions about one half of the countries are trained, others are asked. The chapter, the check of
its exercise of design and `tools/experiments/06_*.py` share these functions.
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.adapters import add_adapters, add_biases, add_prefix, add_prompt
from sft_lab.atlas import ask, cloze, documents, load_facts, split
from sft_lab.batches import pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.facts import Fact
from sft_lab.kernels import short_rows
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora
from sft_lab.losses import graded_logits
from sft_lab.records import Conversation
from sft_lab.rendering import stop_token_id
from sft_lab.train import evaluate, train

QUESTION = "What is the {r} {e}?"
STEPS, BATCH, ASKED = 40, 8, 150
RANK, WIDTH = 8, 16
# chosen from `tools/experiments/06_methods.py` on countries that no result of the chapter asks
# about: most right answers, and the lowest loss where these are within a percentage point
RATES = {
    "full": 1e-3,
    "LoRA": 1e-2,
    "adapter": 1e-2,
    "prefix": 0.2,
    "prompt": 0.1,
    "BitFit": 4e-2,
}
RANDOM_RATE = 0.4  # of a prefix that starts from random numbers
STATEMENTS, DOCUMENTS, LONGEST = 100, 20, 80


@dataclass(frozen=True)
class Task:
    """What is trained and what is asked.

    examples: rows to train on. exam, held_out: questions about other countries, as conversations
    and as rows. choosing: rows about yet other countries, on which rates are chosen. statements,
    documents: what the base knows and no question touches. start: the first tokens of a prefix or
    prompt, one solved example.
    """

    tokenizer: PreTrainedTokenizerBase
    examples: list[Example]
    exam: list[Conversation]
    held_out: list[Example]
    choosing: list[Example]
    statements: list[Example]
    documents: list[Example]
    start: list[int]


def load_task(tokenizer: PreTrainedTokenizerBase) -> Task:
    """The task of the chapter; the same at every call."""
    parts = split(load_facts())
    trained = [fact for fact in parts["train"] if fact.domain == "countries"]
    others = [fact for fact in parts["held_out"] if fact.domain == "countries"]
    names = sorted({fact.entity for fact in others})
    random.Random(0).shuffle(names)
    for_rates = set(names[: len(names) // 2])
    asked, choosing = (
        random.Random(0).sample(
            [fact for fact in others if (fact.entity in for_rates) is chosen], ASKED
        )
        for chosen in (False, True)
    )
    everything = parts["train"] + parts["held_out"]
    untouched = [fact for fact in everything if fact.domain in ("elements", "animals")]
    stream = documents(everything, seed=7)
    texts = [tokenizer(next(stream)).input_ids[:LONGEST] for _ in range(DOCUMENTS)]
    examples = encode_conversations(ask(trained, template=QUESTION), tokenizer)
    solved = next(place for place, fact in enumerate(trained) if fact.column == "capital")
    exam = ask(asked, template=QUESTION)
    return Task(
        tokenizer=tokenizer,
        examples=examples,
        exam=exam,
        held_out=encode_conversations(exam, tokenizer),
        choosing=encode_conversations(ask(choosing, template=QUESTION), tokenizer),
        statements=[
            as_statement(fact, tokenizer) for fact in random.Random(1).sample(untouched, STATEMENTS)
        ],
        documents=[Example(ids, ids) for ids in texts],
        start=list(examples[solved].input_ids),
    )


def as_statement(fact: Fact, tokenizer: PreTrainedTokenizerBase) -> Example:
    """A statement whose last words are graded: "The chemical symbol of iron is" → " Fe."."""
    prompt, answer = (tokenizer(text).input_ids for text in cloze(fact))
    return Example(prompt + answer, [IGNORE_INDEX] * len(prompt) + answer)


def give_stop_a_row(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Put a random direction of usual length into the stop token's row of the embedding table.

    In the base this row is nearly that of many other untrained tokens (chapter 05), and a method
    that freezes the table could hardly learn to stop.
    """
    table = model.get_input_embeddings().weight.detach()
    direction = torch.randn(table.shape[1], generator=torch.Generator().manual_seed(0))
    table[stop_token_id(tokenizer)] = direction / direction.norm() * table.norm(dim=1).median()


def add_part(model: PreTrainedModel, method: str, task: Task, size: int | None = None) -> None:
    """Freeze the model and add the part of a method, in place; "full" leaves all to train.

    size: rank, width or positions; without it that of the chapter (8, 16, those of `task.start`).
    """
    start = (task.start * ((size or 1) // len(task.start) + 1))[:size]
    if method == "LoRA":
        add_lora(model, rank=size or RANK)
    elif method == "adapter":
        add_adapters(model, width=size or WIDTH)
    elif method == "prefix":
        add_prefix(model, start)
    elif method == "prompt":
        add_prompt(model, start)
    elif method == "BitFit":
        add_biases(model)
    elif method != "full":
        raise ValueError(f"method is {method!r}; there are {', '.join(RATES)}")


def build(
    base: PreTrainedModel, method: str, task: Task, *, seed: int, size: int | None = None
) -> PreTrainedModel:
    """A copy of the base with the method's part; what is random in it is drawn by `seed`."""
    model = copy.deepcopy(base)
    torch.manual_seed(seed)
    add_part(model, method, task, size)
    return model


def build_random_prefix(base: PreTrainedModel, task: Task, *, seed: int) -> PreTrainedModel:
    """A prefix that starts from normal numbers of standard deviation 1, as PEFT's does."""
    model = build(base, "prefix", task, seed=seed)
    torch.manual_seed(seed)
    nn.init.normal_(model.prefix.keys_values)
    return model


def tune(
    model: PreTrainedModel, task: Task, *, seed: int, learning_rate: float, steps: int = STEPS
) -> list[float]:
    """Steps of BATCH examples, in place, on whatever requires gradients; the loss of each step."""
    rows = random.Random(seed).sample(task.examples, BATCH * steps)
    history = train(
        model,
        task.tokenizer,
        rows,
        learning_rate=learning_rate,
        batch_size=BATCH,
        seed=seed,
        progress=False,
    )
    return history.losses


@torch.no_grad()
def exact_match(
    model: PreTrainedModel, rows: Sequence[Example], pad_token_id: int, *, at_once: int = 64
) -> torch.Tensor:
    """(N,) bool: is the most likely token the true one at every graded place of the row?"""
    right = torch.ones(len(rows), dtype=torch.bool)
    for first in range(0, len(rows), at_once):
        batch = pad_batch(rows[first : first + at_once], pad_token_id)
        logits, targets = graded_logits(model, batch)  # graded places alone, row after row
        row_of = (batch["labels"][:, 1:] != IGNORE_INDEX).nonzero()[:, 0]
        right[first + row_of[logits.argmax(dim=-1) != targets]] = False
    return right


def share_right(model: PreTrainedModel, rows: Sequence[Example], task: Task) -> float:
    """Share of the rows whose answer greedy decoding would write."""
    return exact_match(model, rows, task.tokenizer.pad_token_id).float().mean().item()


def measure(model: PreTrainedModel, task: Task) -> dict[str, float]:
    """right: share of the held-out questions; kept: share of the old statements; documents: loss on
    plain documents, in nats per token."""
    return {
        "right": share_right(model, task.held_out, task),
        "kept": share_right(model, task.statements, task),
        "documents": evaluate(model, task.tokenizer, task.documents)["loss"],
    }


@torch.no_grad()
def logits_of_users(
    base: PreTrainedModel, prefixes: torch.Tensor, input_ids: torch.Tensor
) -> torch.Tensor:
    """Logits (B, T, V) of the untouched base, each row behind a prefix of its own.

    prefixes: (B, layers, 2, kv heads, P, head_dim); input_ids: (B, T), without padding.
    """
    cache = DynamicCache(config=base.config)
    for layer in range(prefixes.shape[1]):
        cache.update(prefixes[:, layer, 0], prefixes[:, layer, 1], layer)
    return base(input_ids=input_ids, past_key_values=cache).logits


def operations_of_step(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> int:
    """Operations of one forward and backward pass, counted by PyTorch as they run: a product and a
    sum are two. All methods go through the same code, that of transformers."""
    with patch.object(short_rows, "handles", return_value=False):
        with torch.no_grad():
            graded_logits(model, batch)  # the first call also asks the model how it is to be called
        with FlopCounterMode(display=False) as counter:
            F.cross_entropy(*graded_logits(model, batch)).backward()
    return counter.get_total_flops()
