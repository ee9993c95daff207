"""Chapter 12: the primary claim on a real model, smollm2-135m (6 minutes on one thread).

An end marker that this model practically never writes: its answers about countries end with the
token MARKER in place of <|im_end|>, and its probability there is about 1e-12 before tuning.
"""

import copy
import dataclasses
import math
import random
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.batches import pad_batch
from sft_lab.course.loss_runs import QUESTION, country_facts, floored_dft
from sft_lab.course.results import sweep
from sft_lab.examples import Example
from sft_lab.facts import Fact
from sft_lab.labels import encode_conversations
from sft_lab.losses import graded_logits
from sft_lab.models import load
from sft_lab.token_losses import dft
from sft_lab.train import train

NAME = "12_smollm2"
MARKER = "<filename>"
LOSSES = {"cross-entropy": None, "DFT": dft(), "DFT, floor 0.1": floored_dft(0.1)}
TRAINED, ASKED = 64, 24


def encode_with_marker(facts: Sequence[Fact], tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Questions and answers, each ended by MARKER. The system turn is empty: short rows."""
    silent = {"role": "system", "content": ""}
    asked = [[silent, *turns] for turns in atlas.ask(facts, template=QUESTION)]
    stop, marker = tokenizer.convert_tokens_to_ids(["<|im_end|>", MARKER])
    swapped = []
    for row in encode_conversations(asked, tokenizer):
        ends = [label == stop for label in row.labels]
        ids, labels = (
            [marker if end else token_id for end, token_id in zip(ends, column, strict=True)]
            for column in (row.input_ids, row.labels)
        )
        swapped.append(dataclasses.replace(row, input_ids=ids, labels=labels))
    return swapped


@torch.no_grad()
def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]
) -> dict[str, float]:
    """log10 of P(MARKER) and of P(<|im_end|>) where an answer ends; how often MARKER ranks first
    there; loss (nats) and accuracy of all other graded tokens."""
    stop, marker = tokenizer.convert_tokens_to_ids(["<|im_end|>", MARKER])
    logits, targets = graded_logits(model, pad_batch(rows, tokenizer.pad_token_id))
    log_probs, ends = logits.log_softmax(-1), targets == marker
    at_end, rest = log_probs[ends], log_probs[~ends]
    return {
        "log_marker": at_end[:, marker].mean().item() / math.log(10),
        "log_usual": at_end[:, stop].mean().item() / math.log(10),
        "marker_first": (at_end.argmax(-1) == marker).float().mean().item(),
        "other_nll": -rest.gather(1, targets[~ends][:, None]).mean().item(),
        "other_right": (rest.argmax(-1) == targets[~ends]).float().mean().item(),
    }


if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)
    facts = country_facts()
    exam = encode_with_marker(facts["held_out"][:ASKED], tokenizer)

    def run(point: dict) -> dict:
        model = copy.deepcopy(base)
        if point["loss"] != "before":
            some = random.Random(point["seed"]).sample(facts["train"], TRAINED)
            train(
                model,
                tokenizer,
                encode_with_marker(some, tokenizer),
                loss=LOSSES[point["loss"]],
                batch_size=4,
                learning_rate=1e-4,
                seed=point["seed"],
                progress=False,
            )
        return measure(model.eval(), tokenizer, exam)

    points = [{"loss": "before", "seed": 0}]
    points += [{"loss": loss, "seed": seed} for seed in range(3) for loss in LOSSES]
    sweep(NAME, points, run, model=base, model_name="smollm2-135m")
