"""Chapter 08: its training run on a real model, smollm2-135m, with LoRA on 64 short English rows of
data/instructions; three seeds of rows, two minutes each on one thread.

Claim: one pass teaches the voice of these rows, so that answers to other questions are shorter.
Primary measure: mean tokens of 12 answers to held-out questions, at most 60 each.
"""

import copy
import random

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import decode_response, generate_ids, stop_token_id
from sft_lab.course.results import sweep
from sft_lab.examples import Example
from sft_lab.instructions import load_instructions
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora
from sft_lab.models import load
from sft_lab.records import Conversation
from sft_lab.train import evaluate, train

NAME = "08_smollm2"
ROWS, ASKED, SCORED, LONGEST, NEW_TOKENS = 64, 12, 24, 90, 60
RECIPE = {"learning_rate": 1e-3, "batch_size": 8, "epochs": 1}


def short_rows(part: str, tokenizer: PreTrainedTokenizerBase) -> list[Conversation]:
    """The English rows of a part that have at most LONGEST tokens."""
    rows = load_instructions("english", part)
    examples = encode_conversations(rows, tokenizer)
    pairs = zip(rows, examples, strict=True)
    return [row for row, example in pairs if len(example.input_ids) <= LONGEST]


def ask(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[Conversation]
) -> dict:
    """Questions and answers, their mean length in tokens, and the share that ended by itself."""
    rows = generate_ids(model, tokenizer, questions, max_new_tokens=NEW_TOKENS)
    stop = stop_token_id(tokenizer)
    return {
        "questions": [question[-1]["content"] for question in questions],
        "answers": [decode_response(ids, tokenizer).strip() for ids in rows],
        "tokens": round(sum(len(ids) for ids in rows) / len(rows), 3),
        "ended": round(sum(ids[-1] == stop for ids in rows) / len(rows), 4),
    }


def measure(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: list[Example], seed: int
) -> dict:
    """What a run on 64 rows, drawn with the seed, makes of the model."""
    rows = random.Random(seed).sample(short_rows("train", tokenizer), ROWS)
    model = copy.deepcopy(base)
    torch.manual_seed(seed)
    add_lora(model, rank=16, alpha=32)
    examples = encode_conversations(rows, tokenizer)
    history = train(model, tokenizer, examples, seed=seed, **RECIPE)
    return {
        "losses": [round(loss, 4) for loss in history.losses],
        **measure_model(model, tokenizer, held_out),
    }


def measure_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: list[Example]
) -> dict:
    """Held-out loss in nats a graded token, and the answers to the first questions."""
    questions = [row[:-1] for row in short_rows("held_out", tokenizer)[:ASKED]]
    loss = evaluate(model, tokenizer, held_out, batch_size=8)["loss"]
    return {"loss": round(loss, 4), **ask(model, tokenizer, questions)}


if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)
    held_out = encode_conversations(short_rows("held_out", tokenizer)[:SCORED], tokenizer)

    def run(point: dict) -> dict:
        if point["arm"] == "base":
            return measure_model(base, tokenizer, held_out)
        return measure(base, tokenizer, held_out, point["seed"])

    points = [{"arm": "base", "seed": 0}] + [{"arm": "tuned", "seed": seed} for seed in range(3)]
    sweep(NAME, points, run, model=base, model_name="smollm2-135m")
