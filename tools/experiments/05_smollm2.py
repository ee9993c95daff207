"""Chapter 05: the stop-token lesson on a real model, smollm2-135m (five minutes on one thread).

Answers about countries end with MARKER, a token whose row in the head is nearly that of twenty
others, in place of <|im_end|>. LoRA of rank 8 in all layers; in one arm MARKER gets a row of its
own before.
"""

import random

import torch
import torch.nn.functional as F

from sft_lab.batches import pad_batch
from sft_lab.course.lora_runs import country_facts, encode_with_marker, give_own_row, with_lora
from sft_lab.course.results import Row, sweep
from sft_lab.losses import graded_logits
from sft_lab.models import load
from sft_lab.train import train

NAME, MARKER = "05_smollm2", "<jupyter_start>"
ARMS, SEEDS = ("LoRA", "LoRA, own row"), range(3)
TRAINED, ASKED, RATE, BATCH = 64, 16, 1e-3, 4


@torch.no_grad()
def measure_marker(model, tokenizer, rows) -> dict[str, float]:
    """Mean probability, where an answer ends, of MARKER and of all tokens whose row is like its own
    (cosine above 0.99), and of <|im_end|>; how many are alike; loss of all other graded tokens
    (nats)."""
    marker, usual = tokenizer.convert_tokens_to_ids([MARKER, "<|im_end|>"])
    head = model.get_output_embeddings().weight
    alike = F.cosine_similarity(head, head[marker : marker + 1]) > 0.99
    logits, targets = graded_logits(model, pad_batch(rows, tokenizer.pad_token_id))
    ends = targets == marker
    at_end = logits[ends].softmax(-1)
    rest = F.cross_entropy(logits[~ends], targets[~ends])
    return {
        "p_marker": at_end[:, marker].mean().item(),
        "p_alike": at_end[:, alike].sum(-1).mean().item(),
        "p_usual": at_end[:, usual].mean().item(),
        "alike": int(alike.sum()),
        "other_nll": rest.item(),
    }


if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)
    marker = tokenizer.convert_tokens_to_ids(MARKER)
    facts = country_facts()
    exam = encode_with_marker(facts["held_out"][:ASKED], tokenizer, MARKER)

    def run(point: Row) -> Row:
        """Measure one point."""
        start = give_own_row(base, marker) if point["arm"] == "LoRA, own row" else base
        if point["steps"] == 0:
            return measure_marker(start, tokenizer, exam)
        model = with_lora(start, point["seed"])
        some = random.Random(point["seed"]).sample(facts["train"], TRAINED)
        rows = encode_with_marker(some, tokenizer, MARKER)
        train(
            model,
            tokenizer,
            rows,
            batch_size=BATCH,
            learning_rate=RATE,
            seed=point["seed"],
            progress=False,
        )
        return measure_marker(model.eval(), tokenizer, exam)

    points = [{"arm": arm, "steps": 0, "seed": 0} for arm in ARMS]
    steps = TRAINED // BATCH
    points += [{"arm": arm, "steps": steps, "seed": seed} for seed in SEEDS for arm in ARMS]
    sweep(NAME, points, run, model=base, model_name="smollm2-135m")
