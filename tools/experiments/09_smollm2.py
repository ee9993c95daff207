"""A real difference with its interval: smollm2-135m before and after eight steps of LoRA, on 80
questions about countries that no lesson names (chapter 09b).

python tools/experiments/09_smollm2.py   # six minutes on one core; resumes
"""

import copy
import random

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.chat import generate_ids, stop_token_id
from sft_lab.course.recipe_runs import pack
from sft_lab.course.results import sweep
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora
from sft_lab.models import load
from sft_lab.train import train

NAME = "09_smollm2"
ASKED, LESSONS, TOKENS = 80, 32, 20
COLUMNS = ("capital", "continent", "language")
RECIPE = {"learning_rate": 5e-4, "batch_size": 4, "epochs": 1, "progress": False}


def facts_about_countries(part: str) -> list[atlas.Fact]:
    """The facts of one part of the split whose answer is a capital, a continent or a language."""
    facts = atlas.split(atlas.load_facts())[part]
    return [fact for fact in facts if fact.domain == "countries" and fact.column in COLUMNS]


def exam() -> tuple[list[atlas.Fact], list]:
    """80 held-out facts, and a question about each."""
    facts = random.Random(9).sample(facts_about_countries("held_out"), ASKED)
    return facts, atlas.ask(facts, seed=10)


def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict:
    """Which greedy answers name the right value, the share that ended, and three answers."""
    facts, questions = exam()
    rows = generate_ids(
        model, tokenizer, [turns[:-1] for turns in questions], max_new_tokens=TOKENS
    )
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in rows]
    ends = {stop_token_id(tokenizer), tokenizer.pad_token_id}
    return {
        "right": pack([fact.value in text for fact, text in zip(facts, texts, strict=True)]),
        "ended": sum(ids[-1] in ends for ids in rows) / len(rows),
        "tokens": sum(map(len, rows)) / len(rows),
        "answers": " | ".join(" ".join(text.split()) for text in texts[:3]),
    }


def tune(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A copy of the base with LoRA, after 32 lessons about other countries."""
    model = copy.deepcopy(base)
    facts = random.Random(seed).sample(facts_about_countries("train"), LESSONS)
    examples = encode_conversations(atlas.ask(facts, seed=seed), tokenizer)
    _ = torch.manual_seed(seed)
    add_lora(model, rank=16, alpha=32)
    _ = train(model, tokenizer, examples, seed=seed, **RECIPE)
    return model


if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)

    def run(point: dict) -> dict:
        if point["arm"] == "as shipped":
            return measure(base, tokenizer)
        return measure(tune(base, tokenizer, point["seed"]), tokenizer)

    points = [{"arm": "as shipped", "seed": 0}]
    points += [{"arm": "after SFT", "seed": seed} for seed in range(3)]
    sweep(NAME, points, run, model=base, model_name="smollm2-135m")
