"""Chapter 10: what one setting of LLaMA-Factory changes, over three seeds.

    python tools/experiments/10_llamafactory.py     (needs `make llamafactory`; ten minutes)

Every run is `llamafactory-cli train` on the same 480 Alpaca rows of atlas, two epochs of 30 steps,
with one setting moved. Afterwards 100 questions about held-out entities are asked through the
base's own chat template, greedily, as a server would ask them.

    loss      the last training loss that LLaMA-Factory logs, nats per graded token
    graded    its labels: the share of the rows' tokens that are graded
    says      share of answers that begin with the right sentence, whatever follows
    right     share of right answers: the right sentence, and then the stop token
    stops     share of answers that end with the stop token within 40 tokens
"""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sft_lab import atlas
from sft_lab.chat import generate_ids
from sft_lab.course import factory
from sft_lab.course.results import Results, sweep
from sft_lab.lora import load_adapter
from sft_lab.metrics import is_right
from sft_lab.models import load

SEEDS = (0, 1, 2)
SHARED: dict[str, Any] = {
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "lora_target": "all",
    "lora_rank": 8,
    "lora_alpha": 16,
    "dataset_dir": "data",
    "dataset": "atlas_sft",
    "template": "qwen3_nothink",
    "cutoff_len": 256,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "num_train_epochs": 2.0,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.1,
    "bf16": False,
    "use_cpu": True,
    "logging_steps": 5,
    "save_strategy": "no",
    "report_to": "none",
}
ARMS: dict[str, dict[str, Any]] = {
    "LoRA": {"model_name_or_path": "base"},
    "LoRA, own row": {"model_name_or_path": "base_own_row"},
    "LoRA and embed_tokens": {
        "model_name_or_path": "base",
        "additional_target": "embed_tokens",
    },
    "full": {"model_name_or_path": "base", "finetuning_type": "full", "learning_rate": 1e-3},
    "freeze, 2 layers": {
        "model_name_or_path": "base",
        "finetuning_type": "freeze",
        "freeze_trainable_layers": 2,
        "learning_rate": 1e-3,
    },
    "rate 1e-4": {"model_name_or_path": "base_own_row", "learning_rate": 1e-4},
    "rank 64, alpha 128, rate 1e-4": {
        "model_name_or_path": "base_own_row",
        "learning_rate": 1e-4,
        "lora_rank": 64,
        "lora_alpha": 128,
    },
    "train_on_prompt": {"model_name_or_path": "base_own_row", "train_on_prompt": True},
    "template qwen3": {"model_name_or_path": "base_own_row", "template": "qwen3"},
    "template qwen": {"model_name_or_path": "base_own_row", "template": "qwen"},
    "template alpaca": {"model_name_or_path": "base_own_row", "template": "alpaca"},
    "template empty": {"model_name_or_path": "base_own_row", "template": "empty"},
    "cutoff_len 24": {"model_name_or_path": "base_own_row", "cutoff_len": 24},
    "accumulation 4 x 4 as 16 x 1": {
        "model_name_or_path": "base_own_row",
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1,
    },
}


def short_conversations(count: int) -> list[list[dict[str, str]]]:
    """The first conversations of the tuning set whose texts have less than 140 characters."""
    short = (
        turns
        for turns in atlas.training_conversations(seed=0)
        if sum(len(turn["content"]) for turn in turns) < 140
    )
    return [turns for turns, _ in zip(short, range(count), strict=False)]


def write_inputs(folder: Path) -> None:
    """The two base models, the Alpaca rows and dataset_info.json."""
    base, tokenizer = load("atlas-base")
    for name in ("base", "base_own_row"):
        if name == "base_own_row":
            give_own_row(base, tokenizer)
        base.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = [
        {"instruction": question["content"], "input": "", "output": reply["content"]}
        for question, reply in short_conversations(480)
    ]
    (folder / "data").mkdir()
    (folder / "data" / "atlas_sft.json").write_text(json.dumps(rows), encoding="utf-8")
    info = {
        "atlas_sft": {
            "file_name": "atlas_sft.json",
            "columns": {"prompt": "instruction", "query": "input", "response": "output"},
        }
    }
    (folder / "data" / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")


def give_own_row(model: torch.nn.Module, tokenizer: Any) -> None:
    """A random direction of usual length for the stop token's row, in place (chapter 05)."""
    table = model.get_input_embeddings().weight
    direction = torch.randn(table.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        length = table.norm(dim=1).median()
        table[tokenizer.eos_token_id] = direction / direction.norm() * length


@cache
def inputs() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory()
    write_inputs(Path(folder.name))
    return folder


@cache
def train_arm(arm: str) -> dict[str, Any]:
    """Train all seeds of an arm in one process, and read its labels."""
    folder = Path(inputs().name)
    name = f"arm_{list(ARMS).index(arm)}"
    settings = {**SHARED, **ARMS[arm]}
    questions = {
        str(seed): {"command": "train", **settings, "seed": seed, "output_dir": f"{name}_{seed}"}
        for seed in SEEDS
    }
    questions["rows"] = {"command": "rows", **settings, "output_dir": f"{name}_rows"}
    return factory.ask_worker(questions, folder, record=name)


def measure(point: dict[str, Any]) -> dict[str, Any]:
    """Loss, share of graded tokens, and 100 answers of one trained model."""
    answers = train_arm(point["arm"])
    if "error" in answers[str(point["seed"])]:
        raise RuntimeError(answers[str(point["seed"])]["error"])
    folder = Path(inputs().name)
    output = folder / f"arm_{list(ARMS).index(point['arm'])}_{point['seed']}"
    losses = [row["loss"] for row in factory.read_log(output) if "loss" in row]
    labels = [label for row in answers["rows"]["rows"] for label in row["labels"]]
    return {
        "loss": losses[-1],
        "graded": sum(label != -100 for label in labels) / len(labels),
        **ask(load_trained(folder / ARMS[point["arm"]]["model_name_or_path"], output)),
    }


def load_trained(base: Path, output: Path) -> torch.nn.Module:
    """The tuned model in an output folder, which holds a whole model or an adapter."""
    if not (output / "adapter_config.json").exists():
        return load(str(output))[0]
    model = load(str(base))[0]
    settings = json.loads((output / "adapter_config.json").read_text("utf-8"))
    if settings["modules_to_save"]:  # more than our load_adapter takes
        from peft import PeftModel

        return PeftModel.from_pretrained(model, str(output)).merge_and_unload()
    return load_adapter(model, output)


def ask(model: torch.nn.Module) -> dict[str, float]:
    """100 held-out questions through the base's own template."""
    tokenizer = load("atlas-base")[1]
    exam = atlas.exam("held_out", 100)
    prompts = [turns[:1] for turns in exam]
    written = generate_ids(model, tokenizer, prompts, max_new_tokens=40)
    stop = tokenizer.eos_token_id
    stopped = [stop in ids for ids in written]
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
    golds = [turns[1]["content"] for turns in exam]
    right = [is_right(text, gold) for text, gold in zip(texts, golds, strict=True)]
    says = [text.strip().startswith(gold) for text, gold in zip(texts, golds, strict=True)]
    return {
        "says": sum(says) / len(exam),
        "right": sum(a and b for a, b in zip(right, stopped, strict=True)) / len(exam),
        "stops": sum(stopped) / len(exam),
    }


def main() -> Results:
    torch.set_num_threads(1)
    points = [{"arm": arm, "seed": seed} for arm in ARMS for seed in SEEDS]
    return sweep("10_llamafactory", points, measure, model=load("atlas-base")[0])


if __name__ == "__main__":
    main()
