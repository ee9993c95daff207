"""Chapter 14: the primary claim on a real model, smollm2-135m: the probability of a sentence that
is said again and again, and what greedy decoding repeats (two minutes on a GPU)."""

import random

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.course.repeat_runs import (
    WAYS,
    Rows,
    heads_off,
    induction_scores,
    measure_rows,
    read_repeats,
    write_on,
)
from sft_lab.course.results import sweep
from sft_lab.models import load

NAME = "14_smollm2"
COPIES, SENTENCES, TEXTS, TOKENS, HEADS = 10, 20, 24, 200, 20
WHO = ("My neighbour", "The old captain", "A young doctor", "Our teacher", "The tall gardener")
DID = ("found", "painted", "sold", "repaired", "forgot", "borrowed", "described", "carried")
WHAT = ("a wooden boat", "the blue lamp", "three letters", "an empty bottle", "the broken clock")
WHERE = ("near the harbour", "behind the school", "after lunch", "in the snow", "on Tuesday")
OPENINGS = (
    *("The history of bread begins", "Last summer we decided to", "In a small village by the sea"),
    *("The best way to learn a language is", "When the lights went out,", "My grandmother used to"),
    *(
        "The city council announced that",
        "Scientists have long wondered why",
        "It was raining when",
    ),
    *("To repair an old bicycle you need", "The first time I saw the desert", "Music is more than"),
    *(
        "Once upon a time there was a fox",
        "The company was founded in",
        "A good teacher knows that",
    ),
    *("Before you plant a tree,", "The train to the north was late", "Our galaxy contains"),
    *("She opened the letter and", "The museum has a collection of", "Most people believe that"),
    *("In the year 1850 the river", "He had never cooked before, but", "The bridge was built to"),
)


def invent_sentences(kind: str, count: int, tokenizer: PreTrainedTokenizerBase, seed: int) -> Rows:
    """Sentences that nobody wrote before; "random": ten tokens of the vocabulary by chance."""
    rng = random.Random(f"{kind} {seed}")
    if kind == "random":
        return [rng.sample(range(1000, 40_000), 10) for _ in range(count)]
    parts = [" ".join(map(rng.choice, (WHO, DID, WHAT, WHERE))) for _ in range(count)]
    return [tokenizer(f" {text}.").input_ids for text in parts]


def read_copies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: str, seed: int
) -> dict[str, float]:
    """Mean probability of a token (p1, p2, …) and mean log-probability (log1, …) in each copy."""
    start = [tokenizer.convert_tokens_to_ids("<|endoftext|>")]
    sentences = invent_sentences(kind, SENTENCES, tokenizer, seed)
    found = [read_repeats(model, sentence, COPIES, start) for sentence in sentences]
    p = torch.stack([one.exp().mean(1) for one in found]).mean(0).tolist()
    log_p = torch.stack([one.mean(1) for one in found]).mean(0).tolist()
    return {f"p{k}": x for k, x in enumerate(p, 1)} | {f"log{k}": x for k, x in enumerate(log_p, 1)}


def write(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, way: str, seed: int
) -> dict[str, float]:
    """Open text behind openings; each seed takes half of them."""
    some = random.Random(seed).sample(OPENINGS, TEXTS // 2)
    rows = [tokenizer(text).input_ids for text in some]
    written = write_on(model, tokenizer, rows, tokens=TOKENS, seed=seed, **WAYS[way])
    return measure_rows(written, tokenizer)


def silence(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, arm: str, seed: int
) -> dict[str, float]:
    """The copies of sentences and greedy open text without HEADS heads: those of the highest
    induction score, as many others by chance, or none."""
    scores = induction_scores(model, seed=seed)
    width = scores.shape[1]
    order = [divmod(i, width) for i in scores.flatten().argsort(descending=True).tolist()]
    by_chance = random.Random(seed).sample(order[HEADS:], HEADS)
    off = {"none": [], "induction": order[:HEADS], "by chance": by_chance}[arm]
    with heads_off(model, off):
        measured = read_copies(model, tokenizer, "sentence", seed)
        measured |= write(model, tokenizer, "greedy", seed)
    score = sum(scores[head].item() for head in off) / max(1, len(off))
    return measured | {"score": score}


if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)

    def run(point: dict) -> dict:
        if point["part"] == "copies":
            return read_copies(base, tokenizer, point["kind"], point["seed"])
        measure = write if point["part"] == "open text" else silence
        return measure(base, tokenizer, point["kind"], point["seed"])

    parts = [("copies", "sentence"), ("copies", "random")]
    parts += [("open text", way) for way in ("greedy", "beam 4", "T 0.7", "T 1")]
    parts += [("heads off", arm) for arm in ("none", "induction", "by chance")]
    points = [{"part": a, "kind": b, "seed": seed} for seed in range(3) for a, b in parts]
    sweep(NAME, points, run, model=base, model_name="smollm2-135m")
