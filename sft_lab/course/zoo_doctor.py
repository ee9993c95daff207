"""Chapter 18c: those bugs of the zoo that lie in files, written as files, for the doctor."""

import copy
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from sft_lab.course.zoo import Talks, draw_talks
from sft_lab.files import write_text
from sft_lab.lora import WEIGHTS_FILE, add_lora, save_adapter

MARK = "<|im_start|>"
# in the template: what stands there, and what the bug makes of it
TEMPLATES = {
    "two BOS": ("{%- for message", "<|endoftext|><|endoftext|>{%- for message"),
    "blank at seam": ("assistant\\n' }}", "assistant\\n ' }}"),
    "history rewritten": (
        "message.content + '<|im_end|>' }}\n        {%- endgen",
        "(message.content if loop.last else message.content.split('\\n')[0]) + '<|im_end|>' }}\n"
        "        {%- endgen",
    ),
    "turn not closed": ("+ '<|im_end|>'", "+ ''"),
}
PATIENTS = (
    *("healthy", "typed control", "answers cut", "stop = pad", "stop not named"),
    *(*TEMPLATES, "B not trained", "keys do not meet"),
)


def write_patient(
    name: str, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> dict[str, Any]:
    """Write what the doctor reads in a case; returns the arguments of `diagnose`. The model and the
    tokenizer are copied, not changed."""
    base, tokenizer = copy.deepcopy(base), copy.deepcopy(tokenizer)
    talks = draw_talks("train", 80, seed=0)
    if name != "typed control":
        talks = [talk for talk in talks if MARK not in talk[0]["content"]]
    data = _write_rows(talks, folder / "data.jsonl")
    model = folder / "model"
    if name == "stop = pad":
        tokenizer.pad_token = "<|im_end|>"
    if name in TEMPLATES:
        old, new = TEMPLATES[name]
        if old not in tokenizer.chat_template:
            raise ValueError(f"the template of atlas-base holds no {old!r}")
        tokenizer.chat_template = tokenizer.chat_template.replace(old, new)
    if name == "two BOS":
        tokenizer.bos_token = "<|endoftext|>"
    if name == "stop not named":
        base.generation_config.eos_token_id = tokenizer.pad_token_id
    logging.disable_progress_bar()  # of saving weights
    base.save_pretrained(model)
    tokenizer.save_pretrained(model)
    given = {"data": data, "model": model, "max_tokens": 72 if name == "answers cut" else 1024}
    if name in ("B not trained", "keys do not meet"):
        given["adapter"] = _write_adapter(name, base, folder / "adapter")
    return given


def _write_rows(talks: Talks, path: Path) -> Path:
    lines = [json.dumps({"messages": talk}, ensure_ascii=False) for talk in talks]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(lines) + "\n")
    return path


def _write_adapter(name: str, base: PreTrainedModel, folder: Path) -> Path:
    """An adapter whose B is zero, or whose names do not meet those of the base."""
    model = add_lora(base, rank=4)
    if name == "keys do not meet":
        for key, weight in model.named_parameters():
            if ".lora_B." in key:
                nn.init.normal_(weight, std=0.02)
    save_adapter(model, folder)
    if name == "keys do not meet":
        path = folder / WEIGHTS_FILE
        tensors = load_file(path)
        save_file({f"module.{key}": tensor.clone() for key, tensor in tensors.items()}, path)
    return folder
