"""Chapter 12: short runs on atlas that differ in their loss, and what is measured of them.

Questions about countries, about 27 steps of 16 answers an epoch: a second on one thread. The
chapter and `tools/experiments/12_*.py` share these functions, so that a recorded row can be run
again.
"""

import copy
import dataclasses
import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.batches import pad_batch
from sft_lab.chat import generate_ids, stop_token_id
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.facts import Fact
from sft_lab.labels import encode_conversations
from sft_lab.losses import graded_logits
from sft_lab.metrics import expected_calibration_error
from sft_lab.token_losses import TokenLoss, dft, focal, smoothed, weighted
from sft_lab.train import train

QUESTION = "What is the {r} {e}?"
RATE, BATCH = 1.5e-3, 16
VALUE_WEIGHT = 5.0  # of tokens that stand in values, under the weighted loss
ASKED = 200  # held-out questions
Split = dict[str, list[Fact]]


def country_facts() -> Split:
    """The facts about countries, in the parts of `atlas.split`; held_out in an order of its own, so
    that its first questions are a sample."""
    parts = atlas.split(atlas.load_facts())
    facts = {name: [f for f in part if f.domain == "countries"] for name, part in parts.items()}
    random.Random(0).shuffle(facts["held_out"])
    return facts


def encode_facts(facts: Sequence[Fact], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """One question with its answer for each fact."""
    return encode_conversations(atlas.ask(facts, template=QUESTION), tokenizer)


def spoil(facts: Sequence[Fact], share: float, *, seed: int) -> tuple[list[Fact], list[bool]]:
    """The facts, a share of them with another country's value of the same kind; and which."""
    rng = random.Random(seed)
    values: dict[str, list[str]] = {}
    for fact in facts:
        values.setdefault(fact.column, []).append(fact.value)
    spoilt, wrong = [], []
    for fact in facts:
        wrong.append(rng.random() < share)
        other = rng.choice([value for value in values[fact.column] if value != fact.value])
        spoilt.append(dataclasses.replace(fact, value=other) if wrong[-1] else fact)
    return spoilt, wrong


def value_places(fact: Fact, example: Example, tokenizer: PreTrainedTokenizerBase) -> range:
    """Where the tokens of the value stand, without the full stop behind them."""
    stop = max(t for t, label in enumerate(example.labels) if label == stop_token_id(tokenizer))
    count = len(tokenizer(atlas.cloze(fact)[1]).input_ids) - 1
    return range(stop - 1 - count, stop - 1)


def floored_dft(floor: float) -> TokenLoss:
    """DFT whose weight is never below `floor`: max(p, floor) times the NLL."""

    def weight(log_probs: torch.Tensor) -> torch.Tensor:
        return log_probs.detach().exp().clamp(min=floor)

    settings = {"name": "floored dft", "floor": floor}
    return TokenLoss(settings, lambda log_probs: -log_probs * weight(log_probs), weight)


def weigh_values(
    facts: Sequence[Fact], tokenizer: PreTrainedTokenizerBase, vocabulary: int
) -> torch.Tensor:
    """A weight for each entry of the vocabulary: VALUE_WEIGHT where a value holds it, else 1."""
    weights = torch.ones(vocabulary)
    for fact in facts:
        weights[tokenizer(atlas.cloze(fact)[1]).input_ids[:-1]] = VALUE_WEIGHT
    return weights


def losses_by_name(weights: torch.Tensor) -> dict[str, TokenLoss | None]:
    """The losses of the chapter, with their usual numbers; None is plain cross-entropy."""
    return {
        "cross-entropy": None,
        "weighted": weighted(weights),
        "focal": focal(2.0),
        "smoothed": smoothed(0.1),
        "DFT": dft(),
        "DFT, floor 0.1": floored_dft(0.1),
    }


def tune(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Example],
    loss: TokenLoss | None,
    *,
    seed: int,
    epochs: int = 1,
    rate: float = RATE,
) -> PreTrainedModel:
    """A copy of `base`, all of it trained on the rows with this loss."""
    model = copy.deepcopy(base)
    train(
        model,
        tokenizer,
        rows,
        loss=loss,
        epochs=epochs,
        batch_size=BATCH,
        learning_rate=rate,
        seed=seed,
        progress=False,
    )
    return model.eval()


class Values(NamedTuple):
    """What a model makes of the values of some facts, with the true tokens before them as input."""

    confidence: torch.Tensor  # (F,) highest probability at the first token of the value
    first_right: torch.Tensor  # (F,) whether that token is the right one
    whole_right: torch.Tensor  # (F,) whether every token of the value ranks first
    nll: torch.Tensor  # (K,) nats of every token of all values
    token_ids: torch.Tensor  # (K,)


@torch.no_grad()
def read_values(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: Sequence[Fact]
) -> Values:
    """Ask the model for the values of the facts, by teacher forcing."""
    examples = encode_facts(facts, tokenizer)
    batch = pad_batch(examples, tokenizer.pad_token_id)
    log_probs = model(batch["input_ids"]).logits.log_softmax(-1)
    confidence, first, whole, nll, ids = [], [], [], [], []
    for row, (fact, example) in enumerate(zip(facts, examples, strict=True)):
        places = value_places(fact, example, tokenizer)
        # row t of the logits predicts token t + 1
        scores = log_probs[row, places.start - 1 : places.stop - 1]
        targets = batch["labels"][row, places.start : places.stop]
        right = scores.argmax(-1) == targets
        confidence.append(scores[0].max().exp())
        first.append(right[0])
        whole.append(right.all())
        nll.append(-scores.gather(1, targets[:, None])[:, 0])
        ids.append(targets)
    columns = map(torch.stack, (confidence, first, whole))
    return Values(*columns, torch.cat(nll), torch.cat(ids))


def count_graded(rows: Sequence[Example]) -> Counter[int]:
    """How often each token is graded in the rows."""
    return Counter(label for row in rows for label in row.labels if label != IGNORE_INDEX)


def ungrade_first(rows: Sequence[Example]) -> list[Example]:
    """The rows without a grade for the first token of each answer."""
    changed = []
    for row in rows:
        labels = list(row.labels)
        labels[next(t for t, label in enumerate(labels) if label != IGNORE_INDEX)] = IGNORE_INDEX
        changed.append(dataclasses.replace(row, labels=labels))
    return changed


@torch.no_grad()
def read_ends(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: Sequence[Fact]
) -> dict[str, float]:
    """How a model begins and ends the answers: `says` and `stops`, shares of generated answers that
    begin with the right statement and that end by themselves; `log_first` and `log_stop`, the mean
    log10 of the probability of the first token and of the stop token (teacher forcing)."""
    asked = atlas.ask(facts, template=QUESTION)
    stop = stop_token_id(tokenizer)
    generated = generate_ids(model, tokenizer, [turns[:-1] for turns in asked], max_new_tokens=24)
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in generated]
    says = [text.startswith(turns[-1]["content"]) for text, turns in zip(texts, asked, strict=True)]
    rows = encode_conversations(asked, tokenizer)
    logits, targets = graded_logits(model, pad_batch(rows, tokenizer.pad_token_id))
    log_probs = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0] / math.log(10)
    ends = targets == stop
    firsts = torch.cat([torch.tensor([True]), ends[:-1]])  # behind the end of the answer before
    return {
        "says": sum(says) / len(says),
        "stops": sum(row[-1] == stop for row in generated) / len(generated),
        "log_first": log_probs[firsts].mean().item(),
        "log_stop": log_probs[ends].mean().item(),
    }


def measure_values(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Split,
    counts: Counter[int],
) -> dict[str, float]:
    """Values of held-out facts, and of facts that the base never read: what is right, at which
    loss, and how sure the model is of it."""
    held_out = read_values(model, tokenizer, facts["held_out"][:ASKED])
    unknown = read_values(model, tokenizer, facts["unknown"])
    graded = torch.tensor([counts[token_id] for token_id in held_out.token_ids.tolist()])
    some = len(unknown.confidence)  # as many known as unknown
    return {
        "right": held_out.whole_right.float().mean().item(),
        "nll": held_out.nll.mean().item(),
        "rare_nll": held_out.nll[graded <= 1].mean().item(),
        "common_nll": held_out.nll[graded > 20].mean().item(),
        "confidence": held_out.confidence.mean().item(),
        "first_right": held_out.first_right.float().mean().item(),
        "ece": expected_calibration_error(held_out.confidence, held_out.first_right),
        "unknown_confidence": unknown.confidence.mean().item(),
        "unknown_first_right": unknown.first_right.float().mean().item(),
        "unknown_right": unknown.whole_right.float().mean().item(),
        "unknown_ece": expected_calibration_error(unknown.confidence, unknown.first_right),
        "ece_mixed": expected_calibration_error(
            torch.cat([held_out.confidence[:some], unknown.confidence]),
            torch.cat([held_out.first_right[:some], unknown.first_right]),
        ),
    }


def run_values(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Split,
    *,
    loss: str,
    data: str,
    seed: int,
    epochs: int = 4,
    rate: float = RATE,
) -> dict[str, float]:
    """Tune with a loss of `losses_by_name` and measure values.

    data: "clean"; "noisy": 30 % of the training facts have a wrong value; "unknown": the facts
    about countries that the base never read are trained too. `fitted` is the share of trained
    answers that the model gives back with their value: of true ones, and of wrong or unknown ones
    (`fitted_odd`).
    """
    trained, odd = spoil(facts["train"], 0.3 if data == "noisy" else 0.0, seed=seed)
    if data == "unknown":
        trained, odd = trained + facts["unknown"], odd + [True] * len(facts["unknown"])
    rows = encode_facts(trained, tokenizer)
    weights = weigh_values(trained, tokenizer, base.config.vocab_size)
    model = tune(
        base,
        tokenizer,
        rows,
        losses_by_name(weights)[loss],
        seed=seed,
        epochs=epochs,
        rate=rate,
    )
    measured = measure_values(model, tokenizer, facts, count_graded(rows))
    again = read_values(model, tokenizer, trained)
    is_odd = torch.tensor(odd)
    measured["fitted"] = again.whole_right[~is_odd].float().mean().item()
    if is_odd.any():
        measured["fitted_odd"] = again.whole_right[is_odd].float().mean().item()
    return measured


def run_ends(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Split,
    *,
    floor: float,
    seed: int,
    epochs: int = 1,
    rate: float = RATE,
    first_graded: bool = True,
    questions: int = 60,
) -> dict[str, float]:
    """Tune with cross-entropy (floor 1), DFT (floor 0) or DFT with a floor between, and measure how
    the model begins and ends its answers."""
    rows = encode_facts(facts["train"], tokenizer)
    if not first_graded:
        rows = ungrade_first(rows)
    loss = None if floor == 1 else floored_dft(floor) if floor else dft()
    model = tune(base, tokenizer, rows, loss, seed=seed, epochs=epochs, rate=rate)
    return read_ends(model, tokenizer, facts["held_out"][:questions])
