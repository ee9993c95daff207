"""Station "read": the course's own instructions, in English and Chinese.

Their datasheet is data/instructions/README.md. Chapter 08 tunes real models on them.
"""

import json
from pathlib import Path

from sft_lab.records import Conversation, load_conversations

FOLDER = Path(__file__).resolve().parent.parent / "data" / "instructions"
LANGUAGES = ("english", "chinese")
SPLITS = {"train": "train", "held_out": "heldout"}  # our name of a part: the name in the files


def instruction_rows(language: str | None = None) -> list[dict[str, str]]:
    """The rows as they stand in the files, of one language or of both, English first.

    Keys: id, topic, split ("train" or "heldout"), instruction, input, output. Raises ValueError for
    another language.
    """
    if language not in (None, *LANGUAGES):
        raise ValueError(
            f"language is {language!r}; choose one of {', '.join(LANGUAGES)}, or None for both"
        )
    return [
        json.loads(line)
        for name in ([language] if language else LANGUAGES)
        for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def load_instructions(language: str | None = None, part: str = "train") -> list[Conversation]:
    """One part of the instructions as conversations: "train" to tune on, "held_out" to ask.

    language: "english", "chinese" or None for both. Raises ValueError for another part or language.
    """
    if part not in SPLITS:
        raise ValueError(f"part is {part!r}; choose one of {', '.join(SPLITS)}")
    rows = instruction_rows(language)
    files = [FOLDER / f"{name}.jsonl" for name in ([language] if language else LANGUAGES)]
    # from the files, not from the rows: an error then names the file and its row
    conversations = [conversation for file in files for conversation in load_conversations(file)]
    return [
        conversation
        for row, conversation in zip(rows, conversations, strict=True)
        if row["split"] == SPLITS[part]
    ]
