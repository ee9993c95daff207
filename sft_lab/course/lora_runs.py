"""Chapter 05: questions about countries, runs of 25 steps with LoRA or without it, and four models
that never stop.

The chapter, the checks of its exercises and `tools/experiments/05_*.py` train in this one way.
"""

import copy
import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
)

from sft_lab import atlas
from sft_lab.batches import pad_batch
from sft_lab.chat import encode_prompts, generate_ids, stop_token_id
from sft_lab.course.loss_runs import country_facts
from sft_lab.course.results import Results
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.facts import Fact
from sft_lab.labels import encode_conversations
from sft_lab.lora import LoRALinear, add_lora
from sft_lab.low_rank import truncate
from sft_lab.records import Conversation
from sft_lab.significance import judge_claim
from sft_lab.train import evaluate, train

QUESTION = "What is the {r} {e}?"
IN_STYLE = "For {e}, the {n} is {v}."  # another form of answer, for a second adapter
LORA_RATE, FULL_RATE, BATCH, STEPS = 5e-3, 1.5e-3, 8, 25
LOW_RATE = 1.2e-3  # of LoRA: answers rightly after 25 steps, and has not learned to stop
ASKED = 40  # held-out questions
MAX_NEW = 16
CAUSES = ("mask", "config", "steps", "head")  # why a model may never stop
PATIENTS = {"A": "steps", "B": "head", "C": "config", "D": "mask"}  # letters of `make_patients`


class Task(NamedTuple):
    """examples: what the runs read. exam: questions about other countries, with their answers.
    held_out: the exam, encoded."""

    examples: list[Example]
    exam: list[Conversation]
    held_out: list[Example]


def country_task(tokenizer: PreTrainedTokenizerBase, asked: int = ASKED) -> Task:
    """Questions about one half of the countries, and an exam of `asked` about the other half."""
    facts = country_facts()
    exam = atlas.ask(facts["held_out"][:asked], template=QUESTION)
    examples = encode_conversations(atlas.ask(facts["train"], template=QUESTION), tokenizer)
    return Task(examples, exam, encode_conversations(exam, tokenizer))


def encode_in_style(tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """The questions of the runs, answered in another form."""
    talks = [
        [
            {"role": "user", "content": fact.say(QUESTION)},
            {"role": "assistant", "content": fact.say(IN_STYLE)},
        ]
        for fact in country_facts()["train"]
    ]
    return encode_conversations(talks, tokenizer)


def encode_with_marker(
    facts: Sequence[Fact], tokenizer: PreTrainedTokenizerBase, marker: str
) -> list[Example]:
    """Questions and answers, each ended by the token `marker` in place of the stop token. The
    system turn is empty: short rows."""
    silent = {"role": "system", "content": ""}
    asked = [[silent, *turns] for turns in atlas.ask(facts, template=QUESTION)]
    stop, new = stop_token_id(tokenizer), tokenizer.convert_tokens_to_ids(marker)
    swapped = []
    for row in encode_conversations(asked, tokenizer):
        ends = [label == stop for label in row.labels]
        ids, labels = (
            [new if end else token_id for end, token_id in zip(ends, column, strict=True)]
            for column in (row.input_ids, row.labels)
        )
        swapped.append(dataclasses.replace(row, input_ids=ids, labels=labels))
    return swapped


def tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    seed: int,
    rate: float = LORA_RATE,
    epochs: int = 1,
) -> list[float]:
    """25 steps of 8 examples an epoch, in place, on whatever requires gradients; the loss of every
    step."""
    some = random.Random(seed).sample(list(examples), BATCH * STEPS)
    return train(
        model,
        tokenizer,
        some,
        epochs=epochs,
        learning_rate=rate,
        batch_size=BATCH,
        seed=seed,
        progress=False,
    ).losses


def with_lora(start: PreTrainedModel, seed: int, **settings) -> PreTrainedModel:
    """A copy of `start` with fresh LoRA, its A drawn by `seed`."""
    torch.manual_seed(seed)
    return add_lora(copy.deepcopy(start), **settings)


def give_own_row(base: PreTrainedModel, token_id: int) -> PreTrainedModel:
    """A copy of `base` whose embedding of one token is a random direction of usual length."""
    model = copy.deepcopy(base)
    table = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(table.shape[1], generator=generator)
    with torch.no_grad():
        usual = table.norm(dim=1).median()
        table[token_id] = direction / direction.norm() * usual
    return model


@torch.no_grad()
def chances_at_end(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]
) -> torch.Tensor:
    """Probabilities of the token after each complete answer, (answers, V), with the true answer as
    input."""
    stop = stop_token_id(tokenizer)
    batch = pad_batch(rows, tokenizer.pad_token_id)
    logits = model(batch["input_ids"]).logits
    at_stop = batch["labels"][:, 1:] == stop
    return logits[:, :-1][at_stop].softmax(dim=-1)


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task
) -> dict[str, float]:
    """Held-out loss (nats per graded token); shares of answers that say the right thing and that
    end by themselves; mean probability of the stop token where an answer ends."""
    stop = stop_token_id(tokenizer)
    written = generate_ids(
        model, tokenizer, [turns[:-1] for turns in task.exam], max_new_tokens=MAX_NEW
    )
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in written]
    answers = [turns[-1]["content"] for turns in task.exam]
    right = [text.startswith(answer) for text, answer in zip(texts, answers, strict=True)]
    return {
        "loss": evaluate(model, tokenizer, task.held_out)["loss"],
        "says": sum(right) / len(right),
        "stops": sum(row[-1] == stop for row in written) / len(written),
        "P(stop)": chances_at_end(model, tokenizer, task.held_out)[:, stop].mean().item(),
    }


def summarise(found: Sequence[dict[str, float]]) -> str:
    """Each measure with its value in every run, in one line."""
    return " · ".join(
        f"{name} " + " ".join(f"{one[name]:.2f}" for one in found) for name in found[0]
    )


# a model's matrices


@torch.no_grad()
def logits_of(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]
) -> torch.Tensor:
    """The scores of every token after every token of the rows, (B, T, V)."""
    return model(input_ids=pad_batch(rows, tokenizer.pad_token_id)["input_ids"]).logits


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Every linear layer but the output head."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head"
    }


def layer_updates(tuned: PreTrainedModel, base: PreTrainedModel) -> dict[str, torch.Tensor]:
    """What tuning added to the weight of every linear layer, (out, in) each."""
    old = linear_layers(base)
    return {
        name: (layer.weight - old[name].weight).detach()
        for name, layer in linear_layers(tuned).items()
    }


@torch.no_grad()
def cut_to_rank(tuned: PreTrainedModel, base: PreTrainedModel, rank: int) -> PreTrainedModel:
    """A copy of `tuned` in which the update of every linear layer is cut to this rank."""
    cut, old = copy.deepcopy(tuned), linear_layers(base)
    for name, layer in linear_layers(cut).items():
        update = layer.weight - old[name].weight
        layer.weight.copy_(old[name].weight + truncate(update, min(rank, *update.shape)))
    return cut


def backward(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]
) -> None:
    """One forward and backward pass on the rows, from empty gradients."""
    model.zero_grad(set_to_none=True)
    batch = pad_batch(rows, tokenizer.pad_token_id)
    model(input_ids=batch["input_ids"], labels=batch["labels"]).loss.backward()


def operations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]
) -> int:
    """Operations of the matrix products of one forward and backward pass, counted by PyTorch."""
    with FlopCounterMode(display=False) as counter:
        backward(model, tokenizer, rows)
    return counter.get_total_flops()


def factor_gradients(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]
) -> dict[str, float]:
    """Lengths of the gradients of A and of B in one LoRA layer, after one backward pass."""
    backward(model, tokenizer, rows)
    layer = next(module for module in model.modules() if isinstance(module, LoRALinear))
    factors = {"A": layer.lora_A, "B": layer.lora_B}
    return {name: part.weight.grad.norm().item() for name, part in factors.items()}


@torch.no_grad()
def round_weights(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its linear layers' weights rounded to bfloat16, kept in float32, in place; A
    and B stay as they are."""
    for name, layer in linear_layers(model).items():
        if "lora_" not in name:
            layer.weight.copy_(layer.weight.to(torch.bfloat16))
    return model


def qwen_shape() -> PreTrainedModel:
    """A model of Qwen3-0.6B's shape without memory: it has sizes alone."""
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


# PEFT beside ours


@torch.no_grad()
def copy_factors(ours: PreTrainedModel, theirs: nn.Module) -> None:
    """Write A and B of our model into PEFT's."""
    for name, layer in ours.named_modules():
        if isinstance(layer, LoRALinear):
            other = theirs.base_model.model.get_submodule(name)
            other.lora_A["default"].weight.copy_(layer.lora_A.weight)
            other.lora_B["default"].weight.copy_(layer.lora_B.weight)


@torch.no_grad()
def difference_from_peft(
    base: PreTrainedModel,
    theirs: nn.Module,
    new_weight: Callable[..., torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Example],
) -> tuple[float, float]:
    """How far a plain model whose weights are new_weight(W, A, B, magnitude) is from PEFT's, and
    how far PEFT's is from the base, relative to the length of its logits. B and DoRA's magnitude
    are drawn first, so that none is zero. new_weight gets None for a magnitude that is not there.
    """
    torch.manual_seed(1)
    plain = copy.deepcopy(base)
    for name, layer in linear_layers(plain).items():
        other = theirs.base_model.model.get_submodule(name)
        factors = [getattr(other, part)["default"].weight for part in ("lora_A", "lora_B")]
        factors[1].normal_(std=0.02)
        magnitude = None
        if len(other.lora_magnitude_vector):
            magnitude = other.lora_magnitude_vector["default"].weight
            magnitude.mul_(torch.rand_like(magnitude) + 0.5)
        layer.weight.copy_(new_weight(layer.weight, *factors, magnitude))
    mine, wanted, before = (logits_of(m, tokenizer, rows) for m in (plain, theirs, base))
    length = wanted.norm()
    return ((mine - wanted).norm() / length).item(), ((wanted - before).norm() / length).item()


# the recorded sweep

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ARMS = {  # of tools/experiments/05_rates.py; None: full tuning
    "full": None,
    "all layers, rank 8": {"rank": 8},
    "all layers, rank 3": {"rank": 3},
    "all layers, rank 64": {"rank": 64},
    "attention, rank 8": {"rank": 8, "targets": ATTENTION},
}
HALVES = (
    "choose",
    "report",
)  # a rate is chosen on one half of the questions, reported on the other


def rate_points(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every point of the sweep: a rate of each arm, steps of one epoch or four, a seed."""
    lower = [1e-4, 2e-4, 5e-4]  # LoRA's range begins and ends higher
    shared = [1e-3, 2e-3, 5e-3, 1e-2, 2e-2]
    rates = {arm: lower + shared if arm == "full" else [*shared, 5e-2] for arm in ARMS}
    long = ("full", "all layers, rank 8")
    return [
        {"arm": arm, "epochs": epochs, "rate": rate, "seed": seed}
        for epochs in (1, 4)
        for arm in (ARMS if epochs == 1 else long)
        for rate in rates[arm]
        for seed in (seeds if epochs == 1 else seeds[:3])
    ]


def run_point(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    point: dict[str, Any],
) -> dict[str, float]:
    """Train one point of the sweep: held-out loss of each half of 200 questions (nats per graded
    token), and the trained numbers. The stop token has a row of its own in every arm."""
    task = country_task(tokenizer, 200)
    fresh = give_own_row(base, stop_token_id(tokenizer))
    settings = ARMS[point["arm"]]
    model = fresh if settings is None else with_lora(fresh, point["seed"], **settings)
    tune(
        model,
        tokenizer,
        task.examples,
        seed=point["seed"],
        rate=point["rate"],
        epochs=point["epochs"],
    )
    halves = zip(HALVES, (task.held_out[:100], task.held_out[100:]), strict=True)
    measured = {name: evaluate(model, tokenizer, half)["loss"] for name, half in halves}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {**measured, "trained": trained}


def best_rate(results: Results, arm: str, epochs: int) -> float:
    """The rate of an arm whose mean loss on the questions for choosing is the lowest."""
    rates = {row["rate"] for row in results.select(arm=arm, epochs=epochs)}

    def mean(rate: float) -> float:
        losses = results.measured("choose", arm=arm, epochs=epochs, rate=rate)
        return sum(losses) / len(losses)

    return min(rates, key=mean)


class AtBest(NamedTuple):
    """An arm's best rate, and its loss there on the questions for reporting, a number a seed."""

    rate: float
    losses: list[float]


def at_best_rate(results: Results, arm: str, *, epochs: int = 1) -> AtBest:
    """The arm at its best rate; prints it."""
    rate = best_rate(results, arm, epochs)
    found = results.measured("report", arm=arm, epochs=epochs, rate=rate)
    losses = " ".join(f"{loss:.3f}" for loss in found)
    print(f"{arm:20} {STEPS * epochs:3} steps, best rate {rate:g}: {losses}")
    return AtBest(rate, found)


def say_verdict(said: str, first: Sequence[float], second: Sequence[float], way: str) -> str:
    """The word of `judge_claim`, printed with the effect and the noise floor."""
    verdict = judge_claim(first, second, claim=way)
    print(f"{said}: {verdict.word} ({verdict.mean:+.3f}, noise floor {verdict.floor:.3f})")
    return verdict.word


# four models that never stop


class Patient(NamedTuple):
    """A tuned model that never stops, and the rows it was tuned on."""

    model: PreTrainedModel
    rows: list[Example]


def make_patients(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task
) -> dict[str, Patient]:
    """Four models with LoRA of rank 8 that never stop, each for a cause of its own (`PATIENTS`)."""
    stop = stop_token_id(tokenizer)
    fresh = give_own_row(base, stop)
    patients = {}
    for letter, cause in PATIENTS.items():
        model = with_lora(base if cause == "head" else fresh, seed=0)
        rows = ungrade(task.examples, stop) if cause == "mask" else task.examples
        tune(model, tokenizer, rows, seed=0, rate=LOW_RATE if cause == "steps" else LORA_RATE)
        model.generation_config.eos_token_id = (
            tokenizer.convert_tokens_to_ids("<|endoftext|>") if cause == "config" else stop
        )
        patients[letter] = Patient(model.eval(), rows)
    return patients


def ungrade(rows: Sequence[Example], token_id: int) -> list[Example]:
    """The rows with one token graded nowhere."""
    return [
        dataclasses.replace(
            row, labels=[IGNORE_INDEX if label == token_id else label for label in row.labels]
        )
        for row in rows
    ]


@torch.no_grad()
def write_on(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, turns: Conversation
) -> list[int]:
    """The token ids that `model.generate` answers with, stopped where the model's own generation
    configuration says, else after 16."""
    (prompt,) = encode_prompts(tokenizer, [turns])
    written = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=MAX_NEW,
        pad_token_id=tokenizer.pad_token_id,
    )
    return written[0, len(prompt) :].tolist()
