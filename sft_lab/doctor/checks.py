"""Station "doctor": the checks that look at one row after the other, and the tokenizer they need.

Both processes of an examination make theirs here, from a setup that JSON can hold.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sft_lab.doctor.texts import TextCheck
from sft_lab.findings import RowCheck

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# what is enough of a folder to read a tokenizer, where the weights are elsewhere
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


class ExaminationError(ValueError):
    """What could not be examined at all: no such file, no such model. One line."""


def find_model(name: str) -> dict[str, Any]:
    """Where a model's files are, and what its config says of positions and vocabulary: what
    `load_tokenizer` and `make_checks` need. ExaminationError for no such model."""
    from transformers import AutoConfig

    from sft_lab.models import ModelError, find_source

    folder = Path(name).expanduser()
    try:
        source, gguf_file = find_source(name)
    except ModelError as error:
        if not any((folder / file).is_file() for file in TOKENIZER_FILES):
            raise ExaminationError(str(error)) from error
        source, gguf_file = str(folder), None
    found = {"source": source, "gguf_file": gguf_file, "positions": None, "vocabulary": None}
    options = {"gguf_file": gguf_file} if gguf_file else {}
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **options)
    except Exception:  # a tokenizer alone has no config; what else is wrong the model's check says
        return found
    config = config.get_text_config()
    found["positions"] = getattr(config, "max_position_embeddings", None)
    found["vocabulary"] = getattr(config, "vocab_size", None)
    return found


def load_tokenizer(found: dict[str, Any]) -> "PreTrainedTokenizerBase":
    """The tokenizer as it was saved: nothing is set or mended. ExaminationError, with the cause."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # rows come one by one
    options = {"gguf_file": found["gguf_file"]} if found["gguf_file"] else {}
    try:
        return AutoTokenizer.from_pretrained(found["source"], trust_remote_code=False, **options)
    except Exception as error:  # the libraries raise whatever a damaged file leads to
        text = " ".join(str(error).split())
        raise ExaminationError(
            f"{found['source']}: the tokenizer cannot be loaded ({type(error).__name__}: "
            f"{text:.200}). Give a folder that tokenizer.save_pretrained wrote, or load the model "
            "once with a network"
        ) from error


def make_checks(
    setup: dict[str, Any], tokenizer: "PreTrainedTokenizerBase | None"
) -> list[RowCheck]:
    """One of each kind, with nothing looked at yet. setup: of `find_model`, and max_tokens."""
    if tokenizer is None:
        return [TextCheck()]
    from sft_lab.control import find_controls
    from sft_lab.doctor.tokens import TokenCheck

    try:
        controls = find_controls(tokenizer)
    except ValueError:  # no fast tokenizer, or no template: its own check says so
        letters, allowed = tuple(tokenizer.all_special_tokens), ()
    else:
        letters, allowed = controls.letters, controls.answers
    limits = {"positions": setup["positions"], "vocabulary": setup["vocabulary"]}
    return [TextCheck(letters, allowed), TokenCheck(tokenizer, setup["max_tokens"], **limits)]
