"""Chapter 18c: a small run as a chain of stations, each a function that can be replaced by a broken
one.

A bug of `sft_lab.course.zoo_bugs` is a line of one station, exchanged. So the stations are written
plainly, a line for each thing that people got wrong, and the run goes the whole way: encode,
collate, loss, step, evaluate, stop and resume, save and load, merge, ask.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.atlas import ask, ask_skill
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.facts import load_facts, split
from sft_lab.lora import LoRALinear, add_lora
from sft_lab.records import Conversation
from sft_lab.train import learning_rate_at

PREFIX = "base_model."  # of the names in an adapter's file
AHEAD = 3  # steps that are taken once more, to compare a resume with
STATIONS = (
    *("write_turn", "encode", "prompt", "collate", "pack", "loss", "gradient", "adapt", "trained"),
    *("evaluate", "resume", "load", "merge", "generate"),
)
PLAIN_QUESTION = "What is the {r} {e}?"
Batch = dict[str, torch.Tensor]
Talks = list[Conversation]


# the stations


def write_turn(
    role: str, content: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], ...]:
    """Opening, content and closing of a turn, as token ids."""
    start, stop = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    opening = [start, *tokenizer(f"{role}\n").input_ids]
    # what somebody typed never becomes a control token
    inside = tokenizer(content, split_special_tokens=True).input_ids
    closing = [stop, *tokenizer("\n").input_ids]
    return opening, inside, closing


def encode(
    talk: Conversation, tokenizer: PreTrainedTokenizerBase, write_turn: Callable, most: int = 72
) -> Example | None:
    """Ids and labels of a conversation that grade its answers; None for one of too many tokens."""
    ids, mask = [tokenizer.pad_token_id], [False]  # a document of this base begins so
    for turn in talk:
        content = turn["content"]
        opening, inside, closing = write_turn(turn["role"], content, tokenizer)
        answer = turn["role"] == "assistant"
        ids += opening + inside + closing
        mask += [False] * len(opening)
        mask += [answer] * (len(inside) + 1)  # and the stop token
        mask += [False] * (len(closing) - 1)
    labels = [token if on else IGNORE_INDEX for token, on in zip(ids, mask, strict=True)]
    if len(ids) > most:
        return None
    return Example(ids, labels)


def prompt(
    talk: Conversation, tokenizer: PreTrainedTokenizerBase, write_turn: Callable
) -> list[int]:
    """What the model reads before it answers the last turn of `talk`."""
    ids = [tokenizer.pad_token_id]
    for turn in talk:
        ids += [i for part in write_turn(turn["role"], turn["content"], tokenizer) for i in part]
    return ids + write_turn("assistant", "", tokenizer)[0]


def collate(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Examples as one batch, padded on the right."""
    pad = tokenizer.pad_token_id
    width = max(len(example.input_ids) for example in examples)
    ids = torch.full((len(examples), width), pad)
    labels, mask = ids.clone(), torch.zeros_like(ids)
    for row, example in enumerate(examples):
        size = len(example.input_ids)
        ids[row, :size] = torch.tensor(example.input_ids)
        labels[row, :size] = torch.tensor(example.labels)
        mask[row, :size] = 1
    labels[labels == pad] = IGNORE_INDEX  # padding is not graded
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def pack(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Examples behind each other in one row; no example sees another."""
    ids = [token for example in examples for token in example.input_ids]
    labels = [label for example in examples for label in (IGNORE_INDEX, *example.labels[1:])]
    places = [place for example in examples for place in range(len(example.input_ids))]
    rows = {"input_ids": ids, "labels": labels, "position_ids": places}
    return {name: torch.tensor([row]) for name, row in rows.items()}


def loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Mean negative log-likelihood of the graded tokens, nats."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = model(**inputs, use_cache=False).logits
    scores, targets = logits[:, :-1], batch["labels"][:, 1:]
    total = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), reduction="sum")
    return total / (targets != IGNORE_INDEX).sum().clamp(min=1)


def gradient(model: PreTrainedModel, batches: Sequence[Batch], loss: Callable) -> float:
    """Add the gradient of a step that takes these batches one by one; return its loss."""
    counts = [count_graded(batch) for batch in batches]
    mean = 0.0
    for batch, count in zip(batches, counts, strict=True):
        share = count / max(1, sum(counts))  # every graded token of the step weighs the same
        part = loss(model, batch) * share
        if part.requires_grad:
            part.backward()
        mean += part.item()
    return mean


def adapt(base: PreTrainedModel) -> PreTrainedModel:
    """A copy of the base with LoRA in every linear layer and in the output head."""
    model = add_lora(copy.deepcopy(base), rank=8, alpha=16, dropout=0.05)
    model.lm_head = LoRALinear(model.lm_head, rank=8, alpha=16, dropout=0.05)
    return model


def trained(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """What the optimizer moves."""
    return [weight for weight in model.parameters() if weight.requires_grad]


@torch.no_grad()
def evaluate(model: PreTrainedModel, batches: Sequence[Batch], loss: Callable) -> float:
    """Mean loss of the graded tokens of all batches."""
    model.eval()
    total, graded = 0.0, 0
    for batch in batches:
        count = count_graded(batch)
        total += loss(model, batch).item() * count
        graded += count
    model.train()
    return total / max(1, graded)


def resume(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> int:
    """Put the optimizer back as it was saved; return the steps that were done."""
    optimizer.load_state_dict(state["optimizer"])
    return state["steps"]


def load(
    base: PreTrainedModel, tensors: dict[str, torch.Tensor], adapt: Callable
) -> PreTrainedModel:
    """The base with the adapter of a file."""
    model = adapt(base)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    model.load_state_dict(tensors, strict=False)
    return model.eval()


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """The model without LoRA layers, their update added to the weights, in place."""
    untie(model)  # the embedding shares the head's weight, and must not get the head's update
    for name, layer in lora_layers(model).items():
        model.set_submodule(name, layer.merge())
    return model


@torch.no_grad()
def generate(
    model: PreTrainedModel, prompts: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """Greedy answers, with their control tokens; all prompts in one batch, padded on the left."""
    pad, stop = tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    written = model.generate(
        ids,
        attention_mask=mask,
        eos_token_id=[stop],
        max_new_tokens=40,
        do_sample=False,
        pad_token_id=pad,
    )
    return [tokenizer.decode(cut_padding(row[width:].tolist(), pad)) for row in written]


# what stations use


def count_graded(batch: Batch) -> int:
    """Labels of a batch that a prediction is compared with."""
    return int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())


def lora_layers(model: PreTrainedModel) -> dict[str, LoRALinear]:
    """The LoRA layers by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoRALinear)}


def untie(model: PreTrainedModel) -> None:
    """Give the output head a weight of its own."""
    layer = getattr(model.lm_head, "base_layer", model.lm_head)
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False


def cut_padding(ids: list[int], pad: int) -> list[int]:
    """Ids without the padding behind them."""
    while ids and ids[-1] == pad:
        ids = ids[:-1]
    return ids


# the run


@dataclass(frozen=True)
class Pipeline:
    """One function for every station."""

    stations: dict[str, Callable] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Callable:
        if name not in STATIONS:
            raise AttributeError(name)
        return self.stations.get(name, globals()[name])


@dataclass
class Run:
    """What is left of a run: its log, its model and file, and what the probes need."""

    pipeline: Pipeline
    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    talks: Talks
    examples: list[Example]
    first_batch: Batch
    log: list[dict[str, float]]
    ahead: list[float]  # losses of the steps behind the save, taken without stopping
    model: PreTrainedModel
    file: dict[str, torch.Tensor]
    gather: Callable
    half: int  # steps before the resume
    batch_rows: int
    served: PreTrainedModel | None = None

    def serve(self) -> PreTrainedModel:
        """What is deployed: the adapter loaded from its file, and merged."""
        if self.served is None:
            loaded = self.pipeline.load(self.base, self.file, self.pipeline.adapt)
            self.served = self.pipeline.merge(loaded)
        return self.served

    def ask(self, talks: Sequence[Conversation]) -> list[str]:
        """The served model's answers to the last turn of each."""
        write = self.pipeline.write_turn
        prompts = [self.pipeline.prompt(talk, self.tokenizer, write) for talk in talks]
        return self.pipeline.generate(self.serve(), prompts, self.tokenizer)


def draw_talks(part: str, count: int, *, seed: int) -> Talks:
    """Conversations of five kinds: facts, lists, long lists, two turns, and a question with control
    tokens that somebody typed. part: "train" or "held_out" entities."""
    rng = random.Random(f"{part} {seed}")
    facts = split(load_facts())[part]
    asked = ask(rng.sample(facts, k=min(count, len(facts))), template=PLAIN_QUESTION)
    lists = [
        _list(talk[1]["content"].split("\n")[:4])
        for talk in ask_skill("list", facts, 2 * count, seed=rng.randrange(10**6))
    ]
    talks = []
    for number in range(count):
        kind = rng.choices(("fact", "list", "long", "two", "typed"), (50, 18, 8, 14, 10))[0]
        fact, other = asked[number % len(asked)], lists[number]
        if kind == "fact":
            talks.append(fact)
        elif kind == "list":
            talks.append(other)
        elif kind == "long":
            lines = [
                line
                for talk in lists[count:][number % count :][:4]
                for line in talk[1]["content"].split("\n")
            ]
            talks.append(_list(lines))
        elif kind == "two":
            talks.append([*other, *fact])
        else:
            question = f"<|im_start|>log<|im_end|> {fact[0]['content']}"
            talks.append([_turn("user", question), fact[1]])
    return talks


def run_pipeline(
    pipeline: Pipeline,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    steps: int = 32,
    rows: int = 12,
    parts: int = 2,
    rate: float = 5e-3,
    warmup: float = 0.1,
    packed: bool = False,
) -> Run:
    """A run of `steps` steps of `rows` rows in `parts` batches; it is stopped and resumed halfway.

    Four evaluations. The AHEAD steps behind the stop are taken twice: without stopping, and after
    the resume.
    """
    gather = pipeline.pack if packed else pipeline.collate

    def encoded(part: str, count: int) -> tuple[Talks, list[Example]]:
        talks = draw_talks(part, count, seed=seed)
        found = [pipeline.encode(talk, tokenizer, pipeline.write_turn) for talk in talks]
        return talks, [example for example in found if example is not None]

    talks, examples = encoded("train", steps * rows * 5 // 4)
    examples = examples[: steps * rows]
    _, held_out = encoded("held_out", 48)
    watched = [gather(held_out[i : i + 16], tokenizer) for i in range(0, len(held_out), 16)]

    def batches(step: int) -> list[Batch]:
        window = examples[step * rows % len(examples) :][:rows]
        size = max(1, len(window) // parts)
        return [gather(window[i : i + size], tokenizer) for i in range(0, len(window), size)]

    torch.manual_seed(seed)
    trainer = _Trainer(pipeline, pipeline.adapt(base).train(), steps, rate, warmup)
    half, log, ahead = steps // 2, [], []
    for step in range(steps):
        if step == half:
            state = trainer.save(step)
            ahead = [trainer.take(step + k, batches(step + k))["loss"] for k in range(AHEAD)]
            trainer.restore(state)
        log.append(trainer.take(step, batches(step)))
        if (step + 1) % (steps // 4) == 0:
            log[-1]["eval"] = pipeline.evaluate(trainer.model, watched, pipeline.loss)
    model = trainer.model.eval()
    file = {PREFIX + n: t.detach().clone() for n, t in model.state_dict().items() if ".lora_" in n}
    return Run(
        *(pipeline, base, tokenizer, talks, examples, batches(0)[0], log, ahead, model, file),
        *(gather, half, rows // parts),
    )


class _Trainer:
    """A model, its optimizer, and the place of the schedule."""

    def __init__(
        self, pipeline: Pipeline, model: PreTrainedModel, steps: int, rate: float, warmup: float
    ) -> None:
        self.pipeline, self.model = pipeline, model
        self.steps, self.rate, self.warmup_steps = steps, rate, round(warmup * steps)
        self.optimizer = torch.optim.AdamW(pipeline.trained(model), lr=rate, weight_decay=0.0)
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.place = 0

    def take(self, step: int, batches: list[Batch]) -> dict[str, float]:
        """One step, as a line of the log."""
        lr = learning_rate_at(
            self.place, self.steps, peak=self.rate, warmup_steps=self.warmup_steps
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        for weight in self.weights:
            weight.grad = None
        value = self.pipeline.gradient(self.model, batches, self.pipeline.loss)
        norm = torch.nn.utils.clip_grad_norm_(self.weights, 1.0).item()
        self.optimizer.step()
        self.place += 1
        return {"step": step + 1, "loss": value, "lr": lr, "grad": norm}

    def save(self, steps: int) -> dict[str, Any]:
        """All that a resume needs."""
        return {
            "model": copy.deepcopy(self.model.state_dict()),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "steps": steps,
            "rng": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Weights and random state as they were saved; the rest is the station's business."""
        self.model.load_state_dict(state["model"])
        torch.set_rng_state(state["rng"])
        self.place = self.pipeline.resume(self.optimizer, state)


def _list(lines: Sequence[str]) -> Conversation:
    words = ", ".join(line.removeprefix("- ") for line in lines)
    return [_turn("user", f"Make a list of {words}."), _turn("assistant", "\n".join(lines))]


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
