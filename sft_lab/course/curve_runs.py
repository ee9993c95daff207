"""Chapter 18: short runs that differ in one planted cause, and the curves that they leave.

`plain_run` is a loop as people write it, without the guards of `sft_lab.train`: what those refuse
(a loss of exactly 0, NaN) can be seen here. `run_cause` plants one of CAUSES. The chapter, its
checks and `tools/experiments/18_*.py` share these functions.
"""

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.atlas import ask, ask_skill, load_facts, split
from sft_lab.batches import pad_batch
from sft_lab.course.results import Results
from sft_lab.course.short_runs import share_right
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.labels import encode_conversations
from sft_lab.loop.process import keep_freed_memory
from sft_lab.losses import graded_logits
from sft_lab.records import Conversation
from sft_lab.rendering import encode_text, stop_token_id
from sft_lab.train import learning_rate_at

STEPS, BATCH, RATE, WARMUP, EVERY = 40, 16, 1e-3, 4, 10
TOPICS = {"fact": 256, "sum": 128, "list": 128, "json": 128}  # rows of a run, STEPS * BATCH
EXAM = {"fact": 24, "sum": 12, "list": 12, "json": 12}
LOST, AGAIN = 20, 20  # the step whose batch is lost; the step from which a run goes on
POLICY = "You are a helpful assistant. Answer in one short sentence. Do not make anything up."
MOST_NORM = 1000.0  # a gradient that is no number counts as one of this length


@dataclass(frozen=True)
class Cause:
    """What is planted in a run; the defaults are the healthy run.

    rate: the peak. warmup: its steps. shuffled: or sorted by topic. rows: how many different ones;
    fewer than STEPS * BATCH are read again. shifted: each question has the answer of the row before
    it. graded: "answers"; "all" tokens; "no stop" token; "none"; or "lost", as "answers", but one
    batch has lost them all. policy: the same system turn in front of every row. template: "chat",
    or "plain" text, in which nobody asks the model. parts: mean over so many parts of a batch, then
    over these. resumed: from AGAIN on, optimizer, rates and order of the rows begin anew.
    """

    rate: float = RATE
    warmup: int = WARMUP
    shuffled: bool = True
    rows: int = STEPS * BATCH
    shifted: bool = False
    graded: str = "answers"
    policy: bool = False
    template: str = "chat"
    parts: int = 1
    resumed: bool = False


CAUSES = {
    "healthy": Cause(),
    "rate too high": Cause(rate=1e-1),
    "rate too low": Cause(rate=1e-5),
    "no warm-up": Cause(warmup=0),
    "not shuffled": Cause(shuffled=False),
    "few rows again": Cause(rows=32),
    "answers of other rows": Cause(shifted=True),
    "prompt graded": Cause(graded="all"),
    "stop not graded": Cause(graded="no stop"),
    "nothing graded": Cause(graded="none"),
    "one batch lost": Cause(graded="lost"),
    "other template": Cause(template="plain"),
    "mean of means": Cause(parts=4),
    "resumed badly": Cause(resumed=True),
}
MIXED = {  # does a graded prompt make the loss lower? with answers of sense, and of none
    "policy": Cause(policy=True),
    "policy, all graded": Cause(policy=True, graded="all"),
    "policy, other answers": Cause(policy=True, shifted=True),
    "policy, other answers, all graded": Cause(policy=True, shifted=True, graded="all"),
}


class Curves(NamedTuple):
    """What a run leaves: of each step the loss before it (nats per graded token), the graded tokens
    and the norm of the gradient before clipping; and (steps done, loss) of each evaluation."""

    losses: list[float]
    graded: list[int]
    norms: list[float]
    evals: list[tuple[int, float]]


Loss = Callable[[PreTrainedModel, dict[str, torch.Tensor]], torch.Tensor]


# rows


def draw_rows(counts: Mapping[str, int], part: str, seed: int) -> list[Conversation]:
    """Questions of each topic, in the order of the topics, about one part of Atlas."""
    facts, rows = split(load_facts())[part], []
    for topic, count in counts.items():
        if topic == "fact":
            rows += ask(random.Random(seed).sample(facts, count), seed=seed)
        else:
            rows += ask_skill(topic, facts, count, seed=seed)
    return rows


def exam_rows() -> list[Conversation]:
    """What every run is evaluated on and asked: 60 questions about entities that none of them
    trained on, or sums and words drawn anew."""
    return draw_rows(EXAM, "held_out", 12345)


def unknown_rows(seed: int) -> tuple[list[Conversation], list[Conversation]]:
    """Questions about entities that the base never read: 112 to learn, the other 93 to watch."""
    facts = split(load_facts())["unknown"]
    random.Random(seed).shuffle(facts)
    return ask(facts[:112], seed=seed), ask(facts[112:], seed=seed)


def rows_of(cause: Cause, seed: int) -> list[Conversation]:
    """The different rows that a run reads, before they are encoded."""
    rows = draw_rows(TOPICS, "train", seed)
    if cause.shuffled:
        random.Random(seed).shuffle(rows)
    rows = rows[: cause.rows]
    if cause.shifted:
        before = [rows[-1], *rows[:-1]]
        rows = [[*row[:-1], other[-1]] for row, other in zip(rows, before, strict=True)]
    return rows


def encode(
    rows: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase, cause: Cause
) -> list[Example]:
    """The rows as examples, with the mask and the template of a cause."""
    if cause.template == "plain":
        return [_encode_plainly(row, tokenizer) for row in rows]
    if cause.policy:
        rows = [[{"role": "system", "content": POLICY}, *row] for row in rows]
    examples = encode_conversations(rows, tokenizer)
    if cause.graded == "all":
        return [replace(one, labels=list(one.input_ids)) for one in examples]
    if cause.graded == "none":
        return [_ungraded(one) for one in examples]
    if cause.graded == "no stop":
        return [without_stop(one) for one in examples]
    return examples


def _encode_plainly(row: Conversation, tokenizer: PreTrainedTokenizerBase) -> Example:
    question, answer = row[-2]["content"], row[-1]["content"]
    prompt = encode_text(f"Question: {question}\nAnswer:", tokenizer)
    said = [*encode_text(f" {answer}", tokenizer), stop_token_id(tokenizer)]
    return Example(prompt + said, [IGNORE_INDEX] * len(prompt) + said)


def _ungraded(example: Example) -> Example:
    return replace(example, labels=[IGNORE_INDEX] * len(example.labels))


def without_stop(example: Example) -> Example:
    """The example with its stop token not graded."""
    labels = list(example.labels)
    labels[last_graded(labels)] = IGNORE_INDEX
    return replace(example, labels=labels)


def last_graded(labels: Sequence[int]) -> int:
    """Place of the last graded token: the stop token."""
    return max(i for i, label in enumerate(labels) if label != IGNORE_INDEX)


def batches_of(examples: Sequence[Example], cause: Cause, seed: int) -> list[list[Example]]:
    """STEPS batches of BATCH examples, drawn anew for every pass over them."""
    rng, batches = random.Random(seed), []
    while len(batches) < STEPS:
        order = list(examples)
        if cause.shuffled:
            rng.shuffle(order)
        batches += [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    if cause.graded == "lost":
        batches[LOST] = [_ungraded(one) for one in batches[LOST]]
    if cause.resumed:
        batches[AGAIN:] = batches[: STEPS - AGAIN]
    return batches[:STEPS]


def rates_of(cause: Cause, steps: int = STEPS) -> list[float]:
    """Learning rate of each step: warm-up, then cosine."""
    rates = [
        learning_rate_at(step, steps, peak=cause.rate, warmup_steps=cause.warmup)
        for step in range(steps)
    ]
    return rates[:AGAIN] + rates[: steps - AGAIN] if cause.resumed else rates


# the loop


def graded_mean(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean NLL of the graded tokens. `max(1, …)`, as some write it, hides that there are none."""
    logits, targets = graded_logits(model, batch)
    return F.cross_entropy(logits, targets, reduction="sum") / max(1, len(targets))


def masked_mean(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The same with a mask over all tokens, as others write it: 0/0 where nothing is graded."""
    targets, mask = batch["input_ids"][:, 1:], batch["labels"][:, 1:] != IGNORE_INDEX
    logits = model(batch["input_ids"]).logits[:, :-1]
    nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (nll * mask.flatten()).sum() / mask.sum()


def plain_run(
    model: PreTrainedModel,
    pad: int,
    batches: Sequence[Sequence[Example]],
    rates: Sequence[float],
    *,
    parts: int = 1,
    loss_of: Loss = graded_mean,
    forget_at: int | None = None,
    evaluate: Callable[[PreTrainedModel], float] | None = None,
    every: int = EVERY,
) -> Curves:
    """Train `model` in place, a step a batch: AdamW, gradient clipped at 1, nothing refused.

    parts: the loss is the mean of the means of so many parts. forget_at: the step at which the
    optimizer's state is lost. evaluate: called before step 0, every `every` steps and at the end.
    """
    keep_freed_memory()
    curves, weights = Curves([], [], [], []), [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(weights, weight_decay=0.0, fused=True)
    model.train()
    for step, (batch, rate) in enumerate(zip(batches, rates, strict=True)):
        if evaluate and step % every == 0:
            curves.evals.append((step, evaluate(model)))
        if step == forget_at:
            optimizer = torch.optim.AdamW(weights, weight_decay=0.0, fused=True)
        size, total = -(-len(batch) // parts), 0.0
        for start in range(0, len(batch), size):
            loss = loss_of(model, pad_batch(batch[start : start + size], pad)) / parts
            loss.backward()
            total += loss.item()
        curves.norms.append(torch.nn.utils.clip_grad_norm_(weights, 1.0).item())
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        curves.losses.append(total)
        curves.graded.append(sum(label != IGNORE_INDEX for one in batch for label in one.labels))
    if evaluate:
        curves.evals.append((len(batches), evaluate(model)))
    return curves


@torch.no_grad()
def mean_loss(model: PreTrainedModel, examples: Sequence[Example], pad: int) -> float:
    """Loss over all graded tokens of the examples, in nats per token; 0.0 where there are none."""
    total, graded = 0.0, 0
    for start in range(0, len(examples), 64):
        logits, targets = graded_logits(model, pad_batch(examples[start : start + 64], pad))
        total += F.cross_entropy(logits, targets, reduction="sum").item()
        graded += len(targets)
    return total / max(1, graded)


def train_with(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cause: Cause,
    seed: int,
    *,
    evaluate: bool = False,
) -> tuple[PreTrainedModel, Curves]:
    """A copy of the base after a run with one cause planted, and its curves. Evaluated, if at all,
    on `exam_rows`, encoded as the run encodes its own rows: a bug in the encoding is in both."""
    model, pad = copy.deepcopy(base), tokenizer.pad_token_id
    examples = encode(rows_of(cause, seed), tokenizer, cause)
    exam = encode(exam_rows(), tokenizer, cause)
    curves = plain_run(
        model,
        pad,
        batches_of(examples, cause, seed),
        rates_of(cause),
        parts=cause.parts,
        loss_of=masked_mean if cause.graded == "lost" else graded_mean,
        forget_at=AGAIN if cause.resumed else None,
        evaluate=(lambda trained: mean_loss(trained, exam, pad)) if evaluate else None,
    )
    return model, curves


def run_cause(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, cause: str, seed: int
) -> dict[str, Any]:
    """The curves of a run with `CAUSES[cause]` (None where a number is none), and what a reader of
    the curves does not see: `stop`, the loss of the stop token, and `right`, the share of right
    answers, both in the chat template."""
    planted = {**CAUSES, **MIXED}[cause]
    model, curves = train_with(base, tokenizer, planted, seed, evaluate=True)
    exam = exam_rows()
    ends = [only_stop(one) for one in encode(exam, tokenizer, Cause())]
    broken = any(not weight.isfinite().all() for weight in model.parameters())
    return {
        "losses": _rounded(curves.losses),
        "norms": _rounded(curves.norms),
        "evals": _rounded([loss for _, loss in curves.evals]),
        "stop": None if broken else round(mean_loss(model, ends, tokenizer.pad_token_id), 4),
        "right": 0.0 if broken else share_right(model, tokenizer, exam),
    }


def highest_rate_run(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, rate: float, seed: int
) -> float:
    """Mean loss of the last five of 20 steps at a peak rate (two of warm-up, then cosine)."""
    cause, model, steps = Cause(rate=rate, warmup=2), copy.deepcopy(base), 20
    examples = encode(rows_of(cause, seed)[: steps * BATCH], tokenizer, cause)
    batches = batches_of(examples, cause, seed)[:steps]
    losses = plain_run(model, tokenizer.pad_token_id, batches, rates_of(cause, steps)).losses
    return sum(losses[-5:]) / 5


def only_stop(example: Example) -> Example:
    """The example with nothing but its stop token graded."""
    place = last_graded(example.labels)
    labels = [label if i == place else IGNORE_INDEX for i, label in enumerate(example.labels)]
    return replace(example, labels=labels)


def _rounded(numbers: Sequence[float]) -> list[float | None]:
    return [round(number, 4) if math.isfinite(number) else None for number in numbers]


# curves


def loss_of_counting(
    train: Sequence[Sequence[int]], test: Sequence[Sequence[int]], vocabulary: int
) -> float:
    """Mean of -ln p over the graded tokens of `test`, in nats, where p is a token's share of those
    of `train`, with one more of each so that none is impossible."""
    graded = [
        torch.tensor([label for row in rows for label in row if label != IGNORE_INDEX]).long()
        for rows in (train, test)
    ]
    counts = torch.bincount(graded[0], minlength=vocabulary).double() + 1
    return -(counts / counts.sum()).log()[graded[1]].mean().item()


def smooth(losses: Sequence[float], graded: Sequence[int], beta: float = 0.9) -> list[float]:
    """Running mean of the loss over all tokens so far, a step's weight shrinking by `beta` with
    every later step. Divided by the weights themselves, it has no bias towards 0 at the start."""
    total = weight = 0.0
    smoothed = []
    for loss, tokens in zip(losses, graded, strict=True):
        total = beta * total + (tokens * loss if tokens else 0.0)  # without tokens it may be NaN
        weight = beta * weight + tokens
        smoothed.append(total / weight)
    return smoothed


def read_curve(row: Mapping[str, Any], name: str, *, uniform: float) -> list[float]:
    """A recorded curve for a comparison: "losses" smoothed, "evals", or the logarithm of "norms".
    A loss that is no number counts as `uniform`, that of a blind guess."""
    values = [math.nan if value is None else value for value in row[name]]
    if name == "norms":
        known = [MOST_NORM if math.isnan(value) else max(value, 1e-3) for value in values]
        return [math.log(value) for value in known]
    known = [uniform if math.isnan(value) else value for value in values]
    return smooth(known, [1] * len(known), beta=0.8) if name == "losses" else known


def distances(results: Results, cause: str, name: str, *, uniform: float) -> list[float]:
    """How far a cause's curve lies from the healthy ones, for each seed: mean absolute difference
    over the steps from the mean of the healthy runs of all *other* seeds. For "healthy" itself this
    is what two healthy runs differ by, A against A."""

    def curves(of: str) -> torch.Tensor:
        rows = results.select(cause=of)
        return torch.tensor([read_curve(row, name, uniform=uniform) for row in rows])

    healthy, planted = curves("healthy"), curves(cause)
    count = len(healthy)
    others = (healthy.sum(0) - healthy) / (count - 1)
    return (planted - others).abs().mean(1).tolist()
