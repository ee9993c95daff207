"""Station "say": the chat template of a tokenizer, and the text that it writes."""

import importlib.util
import re
from functools import lru_cache
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from sft_lab.records import Conversation

ROLES = ("system", "user", "assistant", "tool")
TURN_KEYS = ("role", "content", "weight", "reasoning_content")  # of which a template reads some
GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")
COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)


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
    if has_tags(own):
        return own
    if not _bundled_templates():
        raise ImportError(
            "this chat template has no {% generation %} tags, and TRL, which bundles tagged "
            "variants, is not installed: pip install trl"
        )
    return find_variant(own) or own


def find_variant(template: str) -> str | None:
    """The variant with tags that TRL bundles for a template; None where it has none, or is not
    installed."""
    return _bundled_templates().get(template)


def has_tags(template: str) -> bool:
    """Whether {% generation %} tags in the template say what the model writes."""
    return GENERATION_TAG.search(COMMENT.sub("", template)) is not None


@lru_cache(maxsize=1)
def _bundled_templates() -> dict[str, str]:
    """TRL's chat templates and their training variants, read from its folder: importing TRL takes
    five seconds."""
    found = importlib.util.find_spec("trl")
    if found is None:
        return {}
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
    """The conversation itself. Raises ValueError for an unknown role, a content that is not a text,
    or a key that would be lost."""
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
        if lost := sorted(map(str, turn.keys() - {*TURN_KEYS})):
            raise ValueError(
                f"turn {number} has {', '.join(lost)}, which would be lost: read raw data with "
                "sft_lab.records.load_conversations"
            )
    return conversation


def fill(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    *,
    add_generation_prompt: bool = False,
    enable_thinking: bool = False,
) -> tuple[str, list[tuple[int, int]]]:
    """The template's text, and the (first, last + 1) characters inside its {% generation %} tags,
    if it has any.

    Raises ValueError when the template refuses the conversation.
    """
    try:
        texts, spans = render_jinja_template(
            [conversation],
            chat_template=template,
            # transformers warns where tags are asked of a template that has none
            return_assistant_tokens_mask=has_tags(template),
            add_generation_prompt=add_generation_prompt,
            enable_thinking=enable_thinking,
            **tokenizer.special_tokens_map,
        )
    except (TemplateError, TypeError) as error:
        roles = ", ".join(turn["role"] for turn in conversation)
        hint = (
            ". Templates of vision models expect a list of parts for a content: use the template "
            "of the text model of its family"
        )
        raise ValueError(
            f"the chat template refuses a conversation with the turns {roles}: {error}"
            f"{hint if 'str object' in str(error) else ''}"
        ) from error
    return texts[0], list(spans[0]) if spans else []
