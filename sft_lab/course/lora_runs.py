"""Chapter 05: questions about countries, runs of 25 steps with LoRA or without it, and four models
that never stop.

The chapter, the checks of its exercises and `tools/experiments/05_*.py` train in this one way.
"""

import copy
import dataclasses
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.batches import pad_batch
from sft_lab.chat import encode_prompts, generate_ids, stop_token_id
from sft_lab.course.loss_runs import country_facts
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.facts import Fact
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora
from sft_lab.records import Conversation
from sft_lab.train import evaluate, train

QUESTION = "What is the {r} {e}?"
IN_STYLE = "For {e}, the {n} is {v}."  # another form of answer, for a second adapter
LORA_RATE, FULL_RATE, BATCH, STEPS = 5e-3, 1.5e-3, 8, 25
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


def in_style(facts: Sequence[Fact]) -> list[Conversation]:
    """The same questions, answered in another form."""
    return [
        [
            {"role": "user", "content": fact.say(QUESTION)},
            {"role": "assistant", "content": fact.say(IN_STYLE)},
        ]
        for fact in facts
    ]


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
        tune(model, tokenizer, rows, seed=0, rate=2e-4 if cause == "steps" else LORA_RATE)
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
