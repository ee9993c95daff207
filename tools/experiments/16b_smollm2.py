"""Chapter 16b: the primary claim on a real model, smollm2-135m: which score puts its right answers
first (three minutes on one thread)."""

import random

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.atlas import load_facts
from sft_lab.chat import generate_responses
from sft_lab.course.results import sweep
from sft_lab.course.score_runs import (
    SCORES,
    Judged,
    Task,
    mean_of,
    pair_up,
    say_all_ways,
    score_output,
    share_ordered,
)
from sft_lab.models import load
from sft_lab.overlap import split_words

NAME = "16b_smollm2"
COUNTRIES, SAMPLES, TOKENS = 32, 4, 20


def names(output: str, name: str) -> bool:
    """Whether a name stands in the output, word by word."""
    said, wanted = split_words(output), split_words(name)
    places = range(len(said) - len(wanted) + 1)
    return any(said[place : place + len(wanted)] == wanted for place in places)


def ask_capitals(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int
) -> dict[str, float | list[str]]:
    """Ask for capitals several times each. An answer is true when it names the right capital and no
    other; its reference is the fact in one of the five wordings of Atlas."""
    rng = random.Random(seed)
    facts = [fact for fact in load_facts() if fact.column == "capital"]
    capitals = {fact.value for fact in facts}
    asked = rng.sample(facts, k=COUNTRIES)
    prompts = [f"What is the capital of {fact.subject}?" for fact in asked for _ in range(SAMPLES)]
    torch.manual_seed(seed)
    said = generate_responses(
        model,
        tokenizer,
        prompts,
        max_new_tokens=TOKENS,
        do_sample=True,
        temperature=1.0,
        top_k=0,
    )
    groups = []
    for place, fact in enumerate(asked):
        ways, group = say_all_ways(fact), []
        reference = rng.choice(ways)
        task = Task("answers", prompts[place * SAMPLES], reference, (ways,))
        for output in said[place * SAMPLES : (place + 1) * SAMPLES]:
            others = [c for c in capitals if names(output, c) and not names(fact.value, c)]
            truth = float(names(output, fact.value) and not others)
            group.append(Judged(task, output, truth, score_output(output, [reference])))
        groups.append(group)
    found = {name: share_ordered(groups, lambda one, n=name: one.scores[n]) for name in SCORES}
    return found | {
        "truth": mean_of(groups, lambda judged: judged.truth),
        "pairs": sum(1 for _ in pair_up(groups)),
        "first": [f"{one.task.reference} | {one.output}" for one in groups[0]],
    }


if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)
    sweep(
        NAME,
        [{"seed": seed} for seed in range(3)],
        lambda point: ask_capitals(base, tokenizer, **point),
        model=base,
        model_name="smollm2-135m",
    )
