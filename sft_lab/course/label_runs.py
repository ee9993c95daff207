"""Chapter 03: short runs on Atlas that differ in their labels, and what is read from them.

Chapter 03b and its recorded sweep train in the same way, so that a recorded row can be run again.
"""

import contextlib
import copy
import io
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.batches import pad_batch
from sft_lab.chat import generate_ids, stop_token_id
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.labels import encode_conversations
from sft_lab.losses import response_loss
from sft_lab.models import load
from sft_lab.records import Conversation
from sft_lab.train import train

RATE, BATCH = 2e-3, 4
OWN_RATE, OWN_BATCH = 1e-3, 8  # where a run grades what the model itself wrote


def load_quietly() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base and its tokenizer, without the line that says so: a check prints one line."""
    with contextlib.redirect_stdout(io.StringIO()):
        return load("atlas-base")


def practice(count: int, seed: int, *, questions: int = 2) -> list[Conversation]:
    """Conversations with several questions each, about entities of the training half."""
    facts = atlas.split(atlas.load_facts())["train"]
    rng = random.Random(seed)
    talks = []
    for _ in range(count):
        rounds = atlas.ask(rng.sample(facts, questions), seed=rng.randrange(10**6))
        talks.append([turn for asked in rounds for turn in asked])
    return talks


def tune(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    seed: int,
    epochs: int = 1,
    batch_size: int = BATCH,
) -> tuple[PreTrainedModel, list[float]]:
    """A copy of the base after some epochs on the examples, and the loss of each step."""
    model = copy.deepcopy(base)
    history = train(
        model,
        tokenizer,
        examples,
        epochs=epochs,
        learning_rate=RATE,
        batch_size=batch_size,
        seed=seed,
        progress=False,
    )
    return model, history.losses


class Exam(NamedTuple):
    """Questions about entities of the held-out half, one fact each."""

    talks: list[Conversation]
    answers: list[Example]  # the true answers, graded with their stop token
    values: list[list[int]]  # how each ends: value, full stop and stop token

    def ask(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int = 96
    ) -> list[list[int]]:
        """The model's own answers to the first questions, token ids."""
        prompts = [turns[:-1] for turns in self.talks[:count]]
        return generate_ids(model, tokenizer, prompts, max_new_tokens=24)


def make_exam(tokenizer: PreTrainedTokenizerBase, count: int = 96) -> Exam:
    """`count` held-out questions, the same ones at every call."""
    facts = atlas.split(atlas.load_facts())["held_out"]
    asked = random.Random(5).sample(facts, count)
    talks = atlas.ask(asked, seed=6)
    stop = stop_token_id(tokenizer)
    values = [[*tokenizer(atlas.cloze(fact)[1]).input_ids, stop] for fact in asked]
    return Exam(talks, encode_conversations(talks, tokenizer), values)


@torch.no_grad()
def guess_forced(model: PreTrainedModel, example: Example) -> tuple[list[int], list[int]]:
    """The true tokens of an answer, and the best guess for each, given the true ones before it."""
    ids = torch.tensor([example.input_ids], device=model.device)
    guesses = model(ids).logits[0].argmax(dim=-1).tolist()
    places = [place for place, label in enumerate(example.labels) if label != IGNORE_INDEX]
    return [example.labels[place] for place in places], [guesses[place - 1] for place in places]


class Mistaken(NamedTuple):
    """An answer in which the model guessed wrong before the value: three rows of token ids."""

    true: list[int]
    forced: list[int]  # the best guess behind each true prefix
    free: list[int]  # what the model writes on its own
    value: list[int]

    def is_right(self, ids: Sequence[int]) -> bool:
        """Whether ids end with the value. Their number does not matter: an answer that is a token
        longer loses nothing by that."""
        return list(ids[-len(self.value) :]) == self.value


def find_mistaken(
    model: PreTrainedModel, exam: Exam, own_answers: Sequence[list[int]]
) -> list[Mistaken]:
    """The answers of an exam with a wrong forced guess before their value."""
    found = []
    for value, example, free in zip(exam.values, exam.answers, own_answers, strict=True):
        true, forced = guess_forced(model, example)
        if forced[: -len(value)] != true[: -len(value)]:
            found.append(Mistaken(true, forced, free, value))
    return found


def replace_answers(
    batch: dict[str, torch.Tensor],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Conversation],
) -> torch.Tensor:
    """input_ids of the batch with what the model writes, greedily, in place of graded tokens."""
    ids, graded = batch["input_ids"].clone(), batch["labels"] != IGNORE_INDEX
    longest = int(graded.sum(dim=1).max())
    limits = {"min_new_tokens": longest, "max_new_tokens": longest}  # no early end: nothing is left
    for row, own in enumerate(generate_ids(model, tokenizer, prompts, **limits)):
        places = graded[row].nonzero().flatten()
        ids[row, places] = torch.tensor(own[: len(places)], device=ids.device)
    return ids


def learn(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    talks: Sequence[Conversation],
    *,
    own_output: bool,
) -> PreTrainedModel:
    """A copy of the base after one epoch on true prefixes or on its own output, graded against the
    true answers position by position. No token of them stands in the input in the second case."""
    model, examples = copy.deepcopy(base), encode_conversations(talks, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=OWN_RATE)
    for first in range(0, len(examples), OWN_BATCH):
        batch = pad_batch(examples[first : first + OWN_BATCH], tokenizer.pad_token_id)
        batch = {name: rows.to(model.device) for name, rows in batch.items()}
        input_ids = batch["input_ids"]
        if own_output:
            prompts = [turns[:1] for turns in talks[first : first + OWN_BATCH]]
            input_ids = replace_answers(batch, model, tokenizer, prompts)
        response_loss(model(input_ids).logits, batch["labels"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def find_reach(
    model: PreTrainedModel, input_ids: torch.Tensor, **extra: torch.Tensor
) -> torch.Tensor:
    """(T, T) of booleans: does the guess after token t depend on token s? Asked of the gradient
    with respect to the embeddings. input_ids: (1, T); extra: what the model gets besides."""
    embedded = model.get_input_embeddings()(input_ids).detach().requires_grad_()
    guesses = model(inputs_embeds=embedded, use_cache=False, **extra).logits[0].logsumexp(dim=-1)
    rows = [
        torch.autograd.grad(guess, embedded, retain_graph=True)[0][0].norm(dim=-1)
        for guess in guesses
    ]
    return (torch.stack(rows) > 0).cpu()
