"""Chapter 16c: the primary claim on a real model, smollm2-135m, which only reads: what an
evaluator's bug makes of its perplexity, and the acceptability of English sentences (a minute and a
half)."""

import json
import random

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import battery
from sft_lab.course.evaluation_runs import measure_evaluators, plain_texts, read_batches
from sft_lab.course.results import ROOT, sweep
from sft_lab.metrics import split_sentences
from sft_lab.models import load
from sft_lab.perplexity import add_up, score_texts

NAME = "16c_smollm2"
TEXTS, ITEMS, SIZES = 16, 40, (1, 4, 16)


def english_answers() -> list[str]:
    """The answers of the course's own English instructions: text that nobody trained on here."""
    lines = (ROOT / "data" / "instructions" / "english.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["output"] for line in lines]


def score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: str, seed: int
) -> dict[str, float]:
    """Summed nats, tokens and bytes of one kind of text."""
    rng = random.Random(seed)
    texts = rng.sample(english_answers(), TEXTS) if kind == "English" else plain_texts(seed=seed)
    total = add_up(score_texts(model, tokenizer, texts[:TEXTS], batch_size=4))
    return {"nats": total.nats, "tokens": total.tokens, "bytes": total.bytes}


def accept(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> dict[str, float]:
    """Share of English sentences that are likelier than the same with two words exchanged."""
    rng = random.Random(seed)
    answers = rng.sample(english_answers(), len(english_answers()))
    sentences = [one for text in answers for one in split_sentences(text)[:1]]
    usable = [one for one in sentences if 6 <= len(one.split()) <= 16][:ITEMS]
    items = [
        battery.Item("acceptability", "", (one, battery.swap_words(rng, one)), 0, one)
        for one in usable
    ]
    scores = battery.score_choices(model, tokenizer, items, batch_size=8)
    return {"right": float(battery.outcomes(items, scores).mean()), "items": len(items)}


if __name__ == "__main__":
    real, tokenizer = load("smollm2-135m", dtype=torch.float32)
    atlas_base, atlas_tokenizer = load("atlas-base")

    def run(point: dict) -> dict:
        part, seed = point["part"], point["seed"]
        if part == "evaluators":
            texts = random.Random(seed).sample(english_answers(), TEXTS)
            return measure_evaluators(read_batches(real, tokenizer, texts, point["size"]))
        if part == "acceptability":
            return accept(real, tokenizer, seed)
        if point["model"] == "atlas-base":
            return score(atlas_base, atlas_tokenizer, point["kind"], seed)
        return score(real, tokenizer, point["kind"], seed)

    points = [
        point
        for seed in range(3)
        for point in (
            *({"part": "evaluators", "size": size, "seed": seed} for size in SIZES),
            {"part": "acceptability", "seed": seed},
            *(
                {"part": "texts", "model": model, "kind": kind, "seed": seed}
                for model in ("smollm2-135m", "atlas-base")
                for kind in ("English", "atlas")
            ),
        )
    ]
    sweep(NAME, points, run, model=real, model_name="smollm2-135m")
