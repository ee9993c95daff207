"""Station "read": what becomes of each key of a row, in one list.

A row says more than its texts: that an answer is not to be learned, that a picture belongs to the
question, that this answer is the worse one of two. A key is read, or refused with the reason, or
known to be about the row (its source, its number); any other that says something is named.
"""

from collections.abc import Mapping
from typing import Any

from sft_lab.row_files import BadRow, show

# Of a turn, or of a whole row: 0 or false says that it is not to be learned. OpenAI's fine-tuning
# files say weight, Axolotl train or training, ms-swift loss, LLaMA-Factory loss_weight.
WEIGHTS = ("weight", "loss_weight", "sample_weight", "loss", "train", "training", "trainable")
MASKS = ("mask", "masked")  # the other way round: true is not to be learned (torchtune)
# the thoughts before an answer: Qwen's and DeepSeek's name, gpt-oss's and LFM's, vLLM's
REASONING = ("reasoning_content", "thinking", "reasoning")
# As a column of its own "reasoning" is often a word such as "on", and none of an answer's thoughts.
ROW_REASONING = ("reasoning_content", "thinking")
REASONING_TAGS = ("<think>", "</think>")
LABELS = ("label", "kto_tag")  # KTO: whether the answer is a good one

TOOLS = (
    "tools are not taught here",
    "Drop the row, or write the call as the text of an answer if you want it learned as text.",
)
MEDIA = ("only text is read here", "Drop the row: its answer is about what the model cannot see.")
PREFERENCES = ("chosen", "rejected", "preferred_output", "non_preferred_output")
PREFERENCE = (
    "this is preference data, an answer with a better or worse one; SFT learns one answer",
    "Choose it, for example columns={'completion': 'chosen'}, or {'messages': 'chosen'} for turns.",
)
REFUSED = {
    **dict.fromkeys(("tools", "tool_calls", "tool_choice", "tool_call_id"), TOOLS),
    **dict.fromkeys(("functions", "function_call", "function_calls"), TOOLS),
    **dict.fromkeys(("image", "images", "image_url", "pixel_values"), MEDIA),
    **dict.fromkeys(("video", "videos", "audio", "audios"), MEDIA),
    **dict.fromkeys(PREFERENCES, PREFERENCE),
    "train_detail": (
        "parts of an answer cannot be left out of the loss",
        "Give the whole turn weight 0 or 1.",
    ),
}
# About the row and no part of what is said in it: read by nobody, and named by nobody.
ABOUT = {
    *("id", "_id", "uid", "uuid", "idx", "index", "hash", "version", "split", "subset", "config"),
    *("source", "data_source", "dataset", "dataset_name", "origin", "url", "link", "license"),
    *("task_type", "task_name", "type", "category", "categories", "subcategory", "topic", "topics"),
    *("domain", "tag", "tags", "lang", "language", "locale", "country"),
    *("model", "model_name", "generator", "author", "annotator", "created_at", "updated_at"),
    *("timestamp", "date", "difficulty", "level", "score", "rating", "quality", "metadata", "meta"),
}
# a preference is refused, or the reader has chosen the answer and hears what becomes of the others
KNOWN = {*WEIGHTS, *MASKS, *REFUSED, *ABOUT} - {*PREFERENCES}


def plain(value: Any) -> Any:
    """The value with lists for arrays and Python's numbers for numpy's: what pandas reads from a
    Parquet file holds both."""
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def is_absent(value: Any) -> bool:
    """Whether a value only fills a gap, as CSV (""), Arrow (None) and pandas (nan) fill it."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list | tuple | Mapping):
        return not value
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in ("NAType", "NaTType")  # pandas


def says_nothing(value: Any) -> bool:
    """Whether the value of a key that is no text of a conversation is a gap, or an empty list as a
    CSV cell writes it."""
    return is_absent(value) or value in ("[]", "{}", "null")


def carries_text(value: Any) -> bool:
    """Whether a value says more than a number, a yes or a no."""
    if isinstance(value, Mapping):
        return any(carries_text(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(carries_text(item) for item in value)
    return not (says_nothing(value) or isinstance(value, bool | int | float))


def check_row_keys(others: Mapping, chosen: bool) -> None:
    """Raises BadRow for a row that is not to be learned, or says what cannot be honoured.

    others: what the row has beside its texts. chosen: the reader has named the answer, so that the
    worse one of two is no longer in question.
    """
    refuse_keys({k: v for k, v in others.items() if not chosen or k not in PREFERENCES}, "the row")
    if read_weight(others, "the row") is False:
        raise BadRow("the row says that it is not to be learned (its weight is 0)", "Drop it.")


def read_turn_keys(others: Mapping, name: str, answers: bool, learned: bool) -> dict[str, Any]:
    """What a turn of a conversation has beside role and content: "weight": 0 for an answer that is
    not to be learned, and "reasoning_content".

    others: what else the row says of the turn. answers: it is an answer. learned: False where no
    answer of the list is to be learned.
    """
    weight, thoughts = read_weight(others, name), read_reasoning(others, name)
    if weight and not (answers and learned):
        raise BadRow(
            f"{name} is to be learned, but only {'completions' if answers else 'answers'} are",
            "Leave the weight out.",
        )
    if thoughts and not answers:
        raise BadRow(f"{name} has thoughts, and is no answer", "Put them into the answer.")
    extra: dict[str, Any] = {"reasoning_content": thoughts} if thoughts else {}
    return extra | ({"weight": 0} if answers and not (learned and weight is not False) else {})


def refuse_keys(holder: Mapping, name: str) -> None:
    """Raises BadRow for a key of a row or a turn that says what cannot be honoured.

    name: what an error calls the holder.
    """
    for key, value in holder.items():
        lower = str(key).casefold()
        if says_nothing(value):
            continue
        if lower in REFUSED:
            reason, advice = REFUSED[lower]
            raise BadRow(f"{name} has {key!r}, {show(value)}: {reason}", advice)
        if lower in LABELS and _read_truth(value) is False:
            raise BadRow(
                f"{name} has {key!r} {value!r}: KTO's mark of an answer that is not wanted",
                "Drop the row: SFT would teach the answer. If it means something else, rename it.",
            )


def read_weight(holder: Mapping, name: str) -> bool | None:
    """Whether a row or a turn is to be learned, None where it does not say.

    Raises BadRow for a weight that is neither 0 nor 1, and for two that disagree.
    """
    said = {}
    for key, value in holder.items():
        lower = str(key).casefold()
        if lower not in (*WEIGHTS, *MASKS) or is_absent(value):
            continue
        truth = _read_truth(value)
        if truth is None:
            raise BadRow(
                f"{name} has {key!r} {show(value)}",
                "Only 0 (not learned) and 1 (learned) are known; leave it out if it is neither.",
            )
        said[key] = truth != (lower in MASKS)
    if len(set(said.values())) > 1:
        raise BadRow(f"{name} says of {list(said)} two different things", "Keep one of them.")
    return next(iter(said.values()), None)


def read_reasoning(holder: Mapping, name: str, keys: tuple[str, ...] = REASONING) -> str:
    """The thoughts that stand beside an answer under one of `keys`, "" for none. Raises BadRow for
    several, or for what is no text."""
    found = {
        key: value
        for key, value in holder.items()
        if str(key).casefold() in keys and not is_absent(value)
    }
    for key, value in found.items():
        if not isinstance(value, str):
            raise BadRow(f"{key!r} of {name} is {show(value)}, not a text", "Write it as text.")
        if any(tag in value for tag in REASONING_TAGS):
            raise BadRow(
                f"{key!r} of {name} holds {' or '.join(REASONING_TAGS)}", "Take the tags out."
            )
    if len(set(found.values())) > 1:
        raise BadRow(f"{name} has several thoughts: {list(found)}", "Keep one of them.")
    return next(iter(found.values()), "")


def is_read(key: Any, value: Any, reasoning: tuple[str, ...] = REASONING) -> bool:
    """Whether the functions above read this key, refuse it, or know it to be about the row."""
    name = str(key).casefold()
    if name in LABELS:
        return _read_truth(value) is not None  # another value is not KTO's
    return name in KNOWN or name in reasoning or name.endswith("_id")


def _read_truth(value: Any) -> bool | None:
    """The yes or no of a number or of a CSV cell; None for anything else."""
    if isinstance(value, str):
        words = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
        return words.get(value.strip().casefold())
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None
