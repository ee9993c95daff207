"""Chapter 07: smollm2-135m, three steps in our loop and in TRL's trainer on the same rows: as our
run, in TRL's number format, and from messages and their template (two minutes a seed)."""

import copy
import tempfile
import warnings

import datasets
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from sft_lab.course.results import sweep
from sft_lab.course.same_run import SAME, plain_losses, short_rows_of
from sft_lab.labels import encode_conversations
from sft_lab.models import load

NAME = "07_smollm2"
STEPS, BATCH, LONGEST = 3, 4, 64  # rows of at most 64 tokens, three steps of four
ROWS = STEPS * BATCH
ARMS = {
    "our loop": None,
    "TRL, token ids": {},
    "TRL, token ids, bf16": {"bf16": True},
    "TRL, prompt and completion": {"assistant_only_loss": None, "rows": "prompt–completion"},
    "TRL, messages": {"assistant_only_loss": True, "rows": "messages"},
}


def make_rows(tokenizer: PreTrainedTokenizerBase, seed: int, kind: str) -> list[dict]:
    """The rows of a seed as token ids and labels, as messages, or as prompt and completion."""
    conversations = short_rows_of(seed, ROWS, tokenizer, longest=LONGEST)
    if kind == "messages":
        return [{"messages": one} for one in conversations]
    if kind == "prompt–completion":
        return [{"prompt": one[:-1], "completion": one[-1:]} for one in conversations]
    examples = encode_conversations(conversations, tokenizer)
    return [{"input_ids": one.input_ids, "labels": one.labels} for one in examples]


def measure(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, arm: str, seed: int) -> dict:
    """The losses of three steps, and how many tokens are graded; or why TRL refuses the rows."""
    if arm == "our loop":
        conversations = short_rows_of(seed, ROWS, tokenizer, longest=LONGEST)
        examples = encode_conversations(conversations, tokenizer)
        graded = sum(label >= 0 for one in examples for label in one.labels)
        losses = plain_losses(base, tokenizer, conversations, STEPS, BATCH)
        return {"losses": losses, "graded": graded, "refused": ""}
    changed = {"assistant_only_loss": False, "per_device_train_batch_size": BATCH} | ARMS[arm]
    rows = make_rows(tokenizer, seed, changed.pop("rows", "token ids"))
    changed["assistant_only_loss"] = bool(changed["assistant_only_loss"])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trainer = SFTTrainer(
                model=copy.deepcopy(base),
                args=SFTConfig(output_dir=folder, **(SAME | changed)),
                train_dataset=Dataset.from_list(rows),
                processing_class=copy.deepcopy(tokenizer),
            )
        except ValueError as error:
            return {"losses": [], "graded": 0, "refused": str(error)[:160]}
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    graded = sum(label >= 0 for row in trainer.train_dataset for label in row["labels"])
    return {"losses": losses, "graded": graded, "refused": ""}


if __name__ == "__main__":
    datasets.disable_progress_bars()
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)

    def run(point: dict) -> dict:
        return measure(base, tokenizer, point["arm"], point["seed"])

    points = [{"arm": arm, "seed": seed} for seed in range(3) for arm in ARMS]
    sweep(NAME, points, run, model=base, model_name="smollm2-135m")
