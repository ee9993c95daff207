"""Under the chat station: conversation -> marked messages -> rendered text -> ids, without forged
control tokens.

A template marks the turns with control tokens such as <|im_end|>. Tokenizers find those tokens
wherever their letters stand, so a user who types "<|im_end|>" would end the turn and could speak as
the assistant. Here the letters of a control token in a message get a mark inside, the template is
rendered around them, and the encoder takes the marks out: letters stay letters. transformers does
the same with `apply_chat_template(sanitize_control_tokens=True)`, but then gives no assistant mask,
which training needs; tests/test_chat.py compares the two.
"""

import importlib.util
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from sft_lab.records import Conversation

ROLES = ("system", "user", "assistant", "tool")
REASONING = (
    "<think>",
    "</think>",
)  # in an answer these stay control tokens: the model writes them itself
GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")


def find_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The Jinja text of the tokenizer's chat template. Raises ValueError when it has none."""
    if not tokenizer.chat_template:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no chat template, as base models "
            "often do not. Copy one from the chat model of its family: tokenizer.chat_template "
            "= other.chat_template"
        )
    return tokenizer.get_chat_template()


def training_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template that says what is graded: the tokenizer's own, or the variant with tags that TRL
    bundles for it."""
    own = find_template(tokenizer)
    return own if GENERATION_TAG.search(own) else _bundled_templates().get(own, own)


@lru_cache(maxsize=1)
def _bundled_templates() -> dict[str, str]:
    """TRL's chat templates and their training variants, read from its folder: importing TRL takes
    five seconds."""
    found = importlib.util.find_spec("trl")
    if found is None:
        raise ImportError(
            "this chat template has no {% generation %} tags, and TRL, which bundles tagged "
            "variants, is not installed: pip install trl"
        )
    folder = Path(found.submodule_search_locations[0]) / "chat_templates"
    pairs = [
        (path, path.with_name(f"{path.stem}_training.jinja"))
        for path in sorted(folder.glob("*.jinja"))
    ]
    return {
        own.read_text("utf-8"): tagged.read_text("utf-8")
        for own, tagged in pairs
        if tagged.exists()
    }


def check_turns(conversation: Conversation) -> Conversation:
    """The conversation itself. Raises ValueError for an unknown role or a content that is not a
    text."""
    if not conversation:
        raise ValueError("the conversation is empty: it needs at least one turn")
    for number, turn in enumerate(conversation, start=1):
        if (
            not isinstance(turn, dict)
            or turn.get("role") not in ROLES
            or not isinstance(turn.get("content"), str)
        ):
            raise ValueError(
                f"turn {number} is {str(turn)[:80]}: expected {{'role': one of {', '.join(ROLES)}, "
                f"'content': text}}. Read raw data with sft_lab.records.load_conversations."
            )
    return conversation


def has_reasoning(turn: dict[str, str]) -> bool:
    """Whether an answer holds reasoning, so that its inference prompt is the one with
    enable_thinking=True."""
    return any(tag in turn["content"] for tag in REASONING)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Added tokens and their ids, except single characters and white space (Gemma adds "\\n\\n"):
    those are text."""
    added = tokenizer.added_tokens_decoder.items()
    return {token.content: index for index, token in added if len(token.content.strip()) > 1}


def find_control_token(
    text: str, tokenizer: PreTrainedTokenizerBase, start: int = 0
) -> re.Match | None:
    """The first control token in `text` from `start` on, if any."""
    return _either(control_tokens(tokenizer)).search(text, start)


def mark_literals(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase
) -> tuple[Conversation, str]:
    """Put a mark, a private-use character that no message holds, inside every control token's
    letters in a message.

    Returns the marked conversation and the mark. The mark goes inside, so that a template that
    looks for the letters (Qwen3's does, for "<tool_response>") does not find them either.
    """
    text = "".join(turn["content"] for turn in check_turns(conversation))
    mark = next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in text)
    pattern = _either(control_tokens(tokenizer))

    def mark_turn(turn: dict[str, str]) -> dict[str, str]:
        kept = REASONING if turn["role"] == "assistant" else ()
        content = pattern.sub(
            lambda at: at[0] if at[0] in kept else _hide(at[0], mark), turn["content"]
        )
        return {"role": turn["role"], "content": content}

    return [mark_turn(turn) for turn in conversation], mark


def render_marked(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    add_generation_prompt: bool = False,
    enable_thinking: bool = False,
) -> tuple[str, list[tuple[int, int]]]:
    """The rendered text, and the (start, end) characters inside the template's {% generation %}
    tags, if it has any.

    Raises ValueError when the template refuses the conversation (Gemma's refuses two user turns in
    a row).
    """
    try:
        texts, spans = render_jinja_template(
            [conversation],
            chat_template=template,
            return_assistant_tokens_mask=GENERATION_TAG.search(template) is not None,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=enable_thinking,
            **tokenizer.special_tokens_map,
        )
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in conversation)
        raise ValueError(
            f"the chat template refuses a conversation with the turns {roles}: {error}"
        ) from error
    return texts[0], spans[0] if spans else []


def find_answers(
    conversation: Conversation, text: str, tokenizer: PreTrainedTokenizerBase, template: str
) -> list[int | None]:
    """For every answer, the character of the rendered `text` at which it begins: the length of its
    inference prompt.

    None where `text` does not begin with that prompt: the template rewrote the history, or no turn
    stands before.
    """
    starts: list[int | None] = []
    for place, turn in enumerate(conversation):
        if turn["role"] == "assistant":
            prompt = None
            if place > 0:
                prompt, _ = render_marked(
                    conversation[:place], tokenizer, template, True, has_reasoning(turn)
                )
            starts.append(len(prompt) if prompt and text.startswith(prompt) else None)
    return starts


def encode_marked(
    text: str, tokenizer: PreTrainedTokenizerBase, mark: str, starts: Sequence[int | None] = ()
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids of a marked text, and the (start, end) characters of each token in it.

    starts: where answers begin (`find_answers`). An answer that would share a token with its
    prompt, such as the line break that ends the prompt and one that begins the answer, is encoded
    apart: at inference the prompt stands first. Raises ValueError if a message would become a
    control token all the same.
    """
    ids, offsets = _encode_pieces(text, tokenizer, mark, [0, len(text)])
    shared = {
        start
        for start in starts
        if start is not None
        for first, last in offsets
        if first < start < last
    }
    if shared:
        ids, offsets = _encode_pieces(text, tokenizer, mark, [0, *sorted(shared), len(text)])
    return ids, offsets


def _encode_pieces(
    text: str, tokenizer: PreTrainedTokenizerBase, mark: str, edges: list[int]
) -> tuple[list[int], list[tuple[int, int]]]:
    known = control_tokens(tokenizer)
    written, hidden, controls = (
        _either(known),
        _either(_hide(token, mark) for token in known),
        set(known.values()),
    )
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    for place, last in zip(edges, edges[1:], strict=False):
        while place < last:
            letters = hidden.search(text, place, last) if mark in text else None
            end = letters.start() if letters else last
            part = tokenizer(
                text[place:end],
                add_special_tokens=False,
                return_offsets_mapping=True,
                verbose=False,
            )
            found = sum(index in controls for index in part["input_ids"])
            if mark in text[place:end] or found > len(written.findall(text, place, end)):
                near = text[place:end].replace(mark, "")[:80]
                raise ValueError(
                    f"a message would become a control token near {near!r}: the chat template or "
                    "the tokenizer changes its letters. Remove them from the message."
                )
            ids += part["input_ids"]
            offsets += [(place + first, place + stop) for first, stop in part["offset_mapping"]]
            if letters:
                spelled = _encode_letters(letters[0].replace(mark, ""), tokenizer)
                ids += spelled
                offsets += [letters.span()] * len(spelled)
            place = letters.end() if letters else last
    return ids, offsets


def _encode_letters(literal: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of a control token's letters: the tokenizer's own steps, without the one that looks for
    added tokens."""
    steps = tokenizer.backend_tokenizer
    text = steps.normalizer.normalize_str(literal) if steps.normalizer else literal
    words = (
        [word for word, _ in steps.pre_tokenizer.pre_tokenize_str(text)]
        if steps.pre_tokenizer
        else [text]
    )
    ids = [token.id for word in words for token in steps.model.tokenize(word)]
    if control_tokens(tokenizer)[literal] in ids:
        raise ValueError(
            f"this tokenizer makes the letters {literal!r} a control token: remove them from the "
            "message"
        )
    return ids


def _hide(token: str, mark: str) -> str:
    return token[0] + mark + token[1:]


def _either(texts: Iterable[str]) -> re.Pattern:
    """Matches any of the texts, the longest first; nothing when there are none."""
    return re.compile(
        "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) or "(?!)"
    )
