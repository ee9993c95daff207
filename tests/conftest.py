"""Fixtures shared by all tests: the model that ships with the repository, loaded once, on one
thread."""

import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from sft_lab.records import Conversation

ATLAS_BASE = Path(__file__).resolve().parent.parent / "data" / "models" / "atlas-base"

# chapters 08 and 09 would take a model of the hub where a GPU is
os.environ.setdefault("SFT_LAB_MODEL", "atlas-base")
torch.set_num_threads(1)  # parallel test workers with two threads each run nine times slower


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """Tests share it: one that changes its template or its tokens works on a copy
    (copy.deepcopy)."""
    return AutoTokenizer.from_pretrained(ATLAS_BASE)


@pytest.fixture(scope="session")
def joining_tokenizer(tokenizer) -> PreTrainedTokenizerBase:
    """The tokenizer with a token for two line breaks and one for two blanks, as those of large
    models have: such a token can join the end of a prompt and the beginning of an answer."""
    steps = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = steps["model"]["vocab"]
    for letter in ("\u010a", "\u0120"):  # how byte-level BPE writes a line break and a blank
        vocabulary[letter * 2] = len(vocabulary)
        steps["model"]["merges"].append([letter, letter])
    for number, token in enumerate(steps["added_tokens"]):  # they follow the vocabulary
        token["id"] = len(vocabulary) + number
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(steps)),
        chat_template=tokenizer.chat_template,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
    )


@pytest.fixture(scope="session")
def model() -> PreTrainedModel:
    """Tests share it: one that trains works on a copy (copy.deepcopy)."""
    return AutoModelForCausalLM.from_pretrained(ATLAS_BASE, dtype=torch.float32)


@pytest.fixture(scope="session")
def conversations() -> list[Conversation]:
    """300 random conversations: one to four rounds, with and without system turn, awkward texts, no
    control tokens.

    In 60 of them some answer begins with a line break (see test_labels.py for why they stand
    apart).
    """
    rng = random.Random(0)
    return [
        random_conversation(rng, answers_begin_with_line_break=row % 5 == 0) for row in range(300)
    ]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 4 MB with nothing on it; the test is skipped where none can be mounted."""
    place = tmp_path / "small disk"
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=4000k", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


PIECES = (
    *(
        "The capital of Chile is Santiago.",
        "what",
        "is",
        "42",
        "3.14",
        "don't",
        "naïve café",
        "cafe\u0301",
        "...",
    ),
    *("我爱你", "首都是北京。", "こんにちは", "Привет", "שלום", "😀", "👩‍👩‍👧", "🇫🇷", "\u00a0"),
    *(
        "\n",
        "\n\n",
        "  ",
        "\t",
        "\r\n",
        "  indented",
        "```py\nx = 1\n```",
        "<b>bold</b>",
        "{% if x %}",
        "{{ y }}",
    ),
    *("\u2028", "\ue000", "\x00", "a|b", "im_end", "<|", "|>", "\\n", "%"),
)


def random_conversation(rng: random.Random, *, answers_begin_with_line_break: bool) -> Conversation:
    def text(most: int) -> str:
        words = rng.choices(PIECES, k=rng.randint(0, most))
        first, last = rng.choice(["", "", "\n", " ", "  "]), rng.choice(["", "", "\n", " "])
        return first + rng.choice([" ", ""]).join(words) + last

    turns = [{"role": "system", "content": text(6)}] if rng.random() < 0.3 else []
    for _ in range(rng.randint(1, 4)):
        reasoning = "<think>\n" + text(4).strip() + "\n</think>\n\n" if rng.random() < 0.2 else ""
        answer = re.sub(
            r"^\s*[\r\n]", "", reasoning + text(12)
        )  # greedy: through the last line break it begins with
        if answers_begin_with_line_break:
            answer = rng.choice(["\n", "\n\n", " \n"]) + answer
        turns += [{"role": "user", "content": text(12)}, {"role": "assistant", "content": answer}]
    return turns
