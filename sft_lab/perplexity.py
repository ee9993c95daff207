"""Station "judge": how likely a model finds a text: perplexity, bits per byte, token accuracy.

A text is scored token by token behind its context. Sums are added up over all texts and divided
once, at the end, so that no number depends on how texts were put into batches. Derived in chapter
16c.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.arguments import whole_number
from sft_lab.batches import pad_batch
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.loop.limits import check_rows
from sft_lab.losses import graded_logits
from sft_lab.rendering import encode_text
from sft_lab.undisturbed import undisturbed

BATCH_SIZE = 16


class Score(NamedTuple):
    """What a model made of a text: sums, which may be added up over texts."""

    nats: float  # summed negative log-likelihood of the scored tokens
    tokens: int  # how many were scored
    right: int  # how many of them ranked first
    bytes: int  # length of the scored text in UTF-8


def score_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    contexts: Sequence[str | Sequence[int]] | None = None,
    batch_size: int = BATCH_SIZE,
) -> list[Score]:
    """One Score a text, in order. Every token of a text is scored; of its context none is.

    contexts: what the model reads before each text, as plain text or as token ids (a rendered chat
    prompt). It is encoded on its own, so the same bytes are scored whatever the tokenizer. Without
    contexts, or where one is empty, a text stands behind the token that begins a document, so that
    its first token is scored too. A row longer than the model reads raises ValueError.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts is a single text, {texts[:60]!r}: put it into a list, [text]")
    contexts = [""] * len(texts) if contexts is None else contexts
    if len(contexts) != len(texts):
        raise ValueError(f"{len(contexts)} contexts for {len(texts)} texts: one each is needed")
    start = start_token_id(tokenizer)
    rows = []
    for place, (context, text) in enumerate(zip(contexts, texts, strict=True)):
        before = encode_text(context, tokenizer) if isinstance(context, str) else list(context)
        scored = encode_text(text, tokenizer)
        if not scored:
            raise ValueError(f"texts[{place}] is {text!r}: it has no token to score")
        before = before or [start]
        rows.append(Example(before + scored, [IGNORE_INDEX] * len(before) + scored))
    scores = score_examples(model, tokenizer, rows, batch_size=batch_size)
    return [s._replace(bytes=len(t.encode())) for s, t in zip(scores, texts, strict=True)]


@torch.inference_mode()
def score_examples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    batch_size: int = BATCH_SIZE,
) -> list[Score]:
    """One Score an example, in order, of its graded tokens: for SFT rows, the response tokens.
    `bytes` is 0: what labels grade need not be a text. The first label is never predicted."""
    batch_size = whole_number("batch_size", batch_size)
    check_rows(model, tokenizer.pad_token_id, examples=examples)
    device = next(model.parameters()).device
    found: list[Score | None] = [None] * len(examples)
    # rows of similar length share a batch: less padding to compute, which no score sees
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].input_ids))
    with undisturbed(model):
        for first in range(0, len(order), batch_size):
            places = order[first : first + batch_size]
            batch = pad_batch([examples[i] for i in places], tokenizer.pad_token_id)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            graded = batch["labels"][:, 1:] != IGNORE_INDEX
            counts = graded.sum(1).tolist()
            logits, targets = graded_logits(model, batch)
            nats = F.cross_entropy(logits.float(), targets, reduction="none").double().cpu()
            right = (logits.argmax(-1) == targets).cpu()
            parts = zip(places, counts, nats.split(counts), right.split(counts), strict=True)
            for place, count, lost, hits in parts:
                found[place] = Score(float(lost.sum()), count, int(hits.sum()), 0)
    return found


def add_up(scores: Sequence[Score]) -> Score:
    """The scores of several texts as one: the only mean that a batch size cannot change."""
    if not scores:
        raise ValueError("no score to add up: nothing was scored")
    return Score(*(sum(part) for part in zip(*scores, strict=True)))


def perplexity(scores: Sequence[Score]) -> float:
    """exp of the mean nats of a scored token. Only the same tokens can be compared by it."""
    total = add_up(scores)
    if not total.tokens:
        raise ValueError("no token was scored: there is no mean of nothing")
    mean = total.nats / total.tokens
    return math.exp(mean) if mean < 700 else math.inf  # a float ends at exp(709)


def bits_per_byte(scores: Sequence[Score]) -> float:
    """Bits that a scored byte costs: comparable between tokenizers, on the same text."""
    total = add_up(scores)
    if not total.bytes:
        raise ValueError("the scores know no bytes: make them with score_texts")
    return total.nats / math.log(2) / total.bytes


def token_accuracy(scores: Sequence[Score]) -> float:
    """Share of scored tokens that the model ranked first, as a fraction."""
    total = add_up(scores)
    if not total.tokens:
        raise ValueError("no token was scored: there is no share of nothing")
    return total.right / total.tokens


def start_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token behind which a document begins: <|endoftext|> where there is one, else the
    tokenizer's own first token, else its last. ValueError when it names none."""
    named = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    for found in (named, tokenizer.bos_token_id, tokenizer.eos_token_id):
        if found is not None and found != tokenizer.unk_token_id:
            return found
    raise ValueError("the tokenizer names no token that begins or ends a text: give contexts")
