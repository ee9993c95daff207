"""Station "say": thoughts that stand beside an answer, as a chat template writes them.

Data sets keep the thoughts apart ("reasoning_content") or in the text, between think tags. Qwen3's
template, and those of its kin, make one text of both; most others write the answer alone, and the
thoughts would be lost without a word.
"""

from functools import lru_cache

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from sft_lab.records import Conversation
from sft_lab.row_files import show

THINK_BLOCK = "<think>\n{}\n</think>\n\n{}"  # thoughts, answer
# what a template looks for: Qwen's and DeepSeek's name, LFM's and gpt-oss's, vLLM's
NAMES = ("reasoning_content", "thinking", "reasoning")


def write_reasoning(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> Conversation:
    """The conversation with each answer's "reasoning_content" in its content, as a think block.

    Raises ValueError where the tokenizer's chat template has no place for it, or another one.
    """
    if not any(turn.get("reasoning_content") for turn in conversation):
        return conversation
    for number, turn in enumerate(conversation, start=1):
        thoughts = turn.get("reasoning_content")
        if thoughts and turn["role"] != "assistant":
            raise ValueError(
                f"turn {number}, {turn['role']}, has reasoning_content, and is no answer: put it "
                "into the answer's turn"
            )
        if thoughts and not isinstance(thoughts, str):
            raise ValueError(f"reasoning_content of turn {number} is {show(thoughts)}, not a text")
    if not _has_think_block(tokenizer, tokenizer.get_chat_template()):
        raise ValueError(
            "an answer has reasoning_content, but the chat template of "
            f"{tokenizer.name_or_path!r} makes no <think> block of it. Drop it, or put it into the "
            "content, as plain text, if it is to be learned so"
        )
    written = []
    for turn in conversation:
        thoughts, content = turn.get("reasoning_content"), turn["content"]
        if thoughts:
            content = THINK_BLOCK.format(thoughts.strip("\n"), content.lstrip("\n"))
        written.append({"role": turn["role"], "content": content})
    return written


@lru_cache(maxsize=16)
def _has_think_block(tokenizer: PreTrainedTokenizerBase, template: str) -> bool:
    """Whether the template, given an answer's thoughts apart, writes the same text as with the
    think block in the content."""
    thoughts, apart = "A thought.", {"role": "assistant", "content": "An answer."}
    inside = apart | {"content": THINK_BLOCK.format(thoughts, apart["content"])}
    answers = [inside, *(apart | {name: thoughts} for name in NAMES)]
    try:
        (expected, *others), _ = render_jinja_template(
            [[{"role": "user", "content": "A question?"}, answer] for answer in answers],
            chat_template=template,
            **tokenizer.special_tokens_map,
        )
    except TemplateError:  # it takes no text, or misses a token: rendering says so
        return False
    return thoughts in expected and expected in others
