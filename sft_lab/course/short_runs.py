"""Runs of a few seconds: a copy of the base learns some conversations, and is asked.

Chapter 11b, its recorded sweeps and the checks of its exercises train in this one way.
"""

import copy
import random
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import generate_responses
from sft_lab.labels import encode_conversations
from sft_lab.metrics import is_right, normalise
from sft_lab.records import Conversation
from sft_lab.train import train

LEARNING_RATE, BATCH_SIZE = 1e-3, 16


def tune_on(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Conversation],
    *,
    epochs: int = 1,
    seed: int = 0,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = BATCH_SIZE,
) -> PreTrainedModel:
    """A copy of `base`, tuned on the conversations in an order drawn by `seed`."""
    rows = list(conversations)
    random.Random(seed).shuffle(rows)
    model = copy.deepcopy(base)
    _ = train(
        model,
        tokenizer,
        encode_conversations(rows, tokenizer),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        progress=False,
    )
    return model


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    exam: Sequence[Conversation],
    *,
    max_new_tokens: int = 60,
) -> list[str]:
    """Greedy answers to the last question of each conversation; earlier answers are the right
    ones."""
    prompts = [talk[:-1] for talk in exam]
    return generate_responses(model, tokenizer, prompts, max_new_tokens=max_new_tokens)


def share_right(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    exam: Sequence[Conversation],
    *,
    at_end: bool = False,
    max_new_tokens: int = 60,
) -> float:
    """The share of last answers that equal the reference; with `at_end`, that end with it, so that
    work shown before the answer does not count against it."""
    given = answer(model, tokenizer, exam, max_new_tokens=max_new_tokens)
    wanted = [talk[-1]["content"] for talk in exam]
    right = [
        normalise(said).endswith(normalise(reference)) if at_end else is_right(said, reference)
        for said, reference in zip(given, wanted, strict=True)
    ]
    return sum(right) / len(right)


def count_tokens(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation]) -> int:
    """How many tokens the conversations are, with the chat template's own."""
    return sum(len(example.input_ids) for example in encode_conversations(conversations, tokenizer))
