"""Chapter 19b: a tuned model on its way to a server, and what other engines make of its files."""

import contextlib
import copy
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple
from unittest import mock

import torch
from openai import OpenAI
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.files import write_json
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora
from sft_lab.models import load
from sft_lab.stopping import name_stop_token
from sft_lab.train import train

LESSONS, RATE, RANK = 1200, 3e-3, 8
MOST = 100  # tokens of an answer
# What Ollama reads, in the form that LLaMA-Factory writes: {{ … }} is its own language, $… is ours.
MODELFILE = """FROM $weights

TEMPLATE \"\"\"{{ if .System }}$before_system{{ .System }}$after_system{{ end }}\
{{ range .Messages }}{{ if eq .Role "user" }}$before_user{{ .Content }}$after_user$opening\
{{ else if eq .Role "assistant" }}{{ .Content }}$after_assistant{{ end }}{{ end }}\"\"\"

PARAMETER stop "$stop"
PARAMETER num_ctx $positions
"""


class Reply(NamedTuple):
    """What a server said: text, finish reason, tokens of the prompt and of the answer."""

    text: str
    reason: str
    asked: int
    written: int


def tune_adapter(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> PreTrainedModel:
    """A copy of the base with LoRA that has learned to answer; not merged yet. The embeddings,
    which are the head too, are tuned beside it: the base never read the stop token."""
    rows = atlas.training_conversations()
    random.Random(seed).shuffle(rows)
    torch.manual_seed(seed)  # the matrices begin at random
    model = add_lora(copy.deepcopy(base), rank=RANK, alpha=RANK)
    model.get_input_embeddings().weight.requires_grad_(True)
    examples = encode_conversations(rows[:LESSONS], tokenizer)
    _ = train(model, tokenizer, examples, learning_rate=RATE, seed=seed, progress=False)
    return model.eval()


def save_folder(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path | str
) -> Path:
    """Everything that a server wants, in one folder, the stop token named in all of its files."""
    name_stop_token(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def load_quietly(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load`, for a small GGUF file: without its line, which names a folder of this run, and
    without the bar of unpacking."""
    bar = "transformers.modeling_gguf_pytorch_utils.tqdm"
    with mock.patch(bar, lambda rows, **_: rows), contextlib.redirect_stdout(io.StringIO()):
        return load(folder)


def name_ends(folder: Path, ids: Sequence[int]) -> Path:
    """Write other ends into a folder's generation_config.json; none takes the entry away."""
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text("utf-8"))
    settings.pop("eos_token_id", None)
    write_json(path, settings | ({"eos_token_id": list(ids)} if ids else {}))
    return folder


def ask_server(
    client: OpenAI, model: Path | str, questions: Sequence[str], *, max_tokens: int = MOST
) -> list[Reply]:
    """Greedy answers of a server, one question after the other."""
    replies = []
    for question in questions:
        answer = client.chat.completions.create(
            model=str(model),
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=max_tokens,
        )
        choice, usage = answer.choices[0], answer.usage
        text = choice.message.content or ""
        replies.append(
            Reply(text, choice.finish_reason, usage.prompt_tokens, usage.completion_tokens)
        )
    return replies


def score(replies: Sequence[Reply], evaluated: Sequence[str]) -> dict[str, float]:
    """The share of answers equal to the evaluated ones, the share that stopped by itself, and the
    mean number of tokens written."""
    equal = [
        reply.text.strip() == text.strip() for reply, text in zip(replies, evaluated, strict=True)
    ]
    return {
        "equal": sum(equal) / len(equal),
        "stopped": sum(reply.reason == "stop" for reply in replies) / len(replies),
        "tokens": sum(reply.written for reply in replies) / len(replies),
    }


def write_modelfile(turns: Mapping[str, str], weights: str, positions: int) -> str:
    """An Ollama Modelfile. turns: what stands around each turn, as in exercise 19b.4."""
    return Template(MODELFILE).substitute(turns, weights=weights, positions=positions)
