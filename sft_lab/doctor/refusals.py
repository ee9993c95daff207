"""Station "doctor": why a conversation cannot be taught, as the code of a finding.

`encode_conversation` says it in words. Here the same steps are taken one after the other, to learn
which of them refused.
"""

import sys

from transformers import PreTrainedTokenizerBase

from sft_lab.control import REASONING, find_controls
from sft_lab.labels import find_graded_turns
from sft_lab.reasoning import write_reasoning
from sft_lab.records import Conversation
from sft_lab.rendering import (
    Rendered,
    explain_lost_turn,
    explain_tags,
    render_for_training,
    stop_token_id,
)
from sft_lab.templates import check_turns, fill, has_tags, training_template


def name_refusal(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> str:
    """The code for a conversation that `encode_conversation` refuses, whatever its length.

    "labels-wrong" where none of the causes known here is to be found.
    """
    try:
        wanted = find_graded_turns(conversation)
    except ValueError:
        return "nothing-graded"
    try:
        check_turns(conversation)
        for turn in conversation:
            turn["content"].encode()
    except UnicodeEncodeError:
        return "half-letter"
    except ValueError:
        return "malformed-turn"
    if explain_tags(tokenizer, with_system=conversation[0]["role"] == "system"):
        return "tags-misplaced"
    try:
        rendered = render_for_training(conversation, tokenizer, max_tokens=sys.maxsize)
    except ValueError:
        return _name_refused_text(conversation, tokenizer)
    if explain_lost_turn(rendered, conversation, tokenizer):
        return (
            "template-cuts" if _holds_all(rendered, conversation, tokenizer) else "template-drops"
        )
    return _name_refused_answer(rendered, wanted, conversation, tokenizer)


def _name_refused_text(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> str:
    """Where no text or no ids could be made of the conversation."""
    try:
        plain = _plain(conversation, tokenizer)
    except ValueError:
        return "thoughts-refused"
    template = training_template(tokenizer)
    try:
        # to the end, and as every answer is asked for
        fill(plain, tokenizer, template)
        for index, turn in enumerate(plain):
            if turn["role"] == "assistant" and index:
                fill(plain[:index], tokenizer, template, add_generation_prompt=True)
    except ValueError:
        return "template-refuses"
    return "control-token"  # a message that no ids can be made of but those of a control token


def _holds_all(
    rendered: Rendered, conversation: Conversation, tokenizer: PreTrainedTokenizerBase
) -> bool:
    """Whether a template that cuts long turns has written all of these."""
    turns = _plain(conversation, tokenizer)
    return all(turn["content"].strip() in rendered.text for turn in turns)


def _name_refused_answer(
    rendered: Rendered,
    wanted: dict[int, bool],
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
) -> str:
    """Where the text is there, and its answers cannot be graded. wanted: by number of the turn."""
    answers = list(zip(wanted, wanted.values(), rendered.starts, strict=True))
    first = next(index for index, (_, graded, _) in enumerate(answers) if graded)
    for turn, _, start in answers[first:]:
        if turn == 1:
            return "no-question"
        if start is None:
            return _name_rewritten(turn, rendered, conversation)
    for turn, graded, start in answers[first:]:
        if graded and not any(begin <= start < end for begin, end in rendered.spans):
            template = training_template(tokenizer)
            before = _plain(conversation[: turn - 1], tokenizer)
            begin = min((begin for begin, _ in rendered.spans if begin > start), default=start)
            if rendered.text[start:begin].strip() and lacks_opening(before, tokenizer, template):
                return "no-generation-prompt"
            code = "tags-misplaced" if has_tags(template) else "prompt-not-prefix"
            return _name_rewritten(turn, rendered, conversation, code)
    taught = [
        token_id
        for token_id, (begin, _) in zip(rendered.ids, rendered.offsets, strict=True)
        if any(first <= begin < last for first, last in rendered.spans)
    ]
    if set(taught) & {*find_controls(tokenizer).unknown.values()}:
        return "unknown-answer"
    stops = taught.count(stop_token_id(tokenizer))
    return "stop-missing" if stops < sum(wanted.values()) else "labels-wrong"


def _name_rewritten(
    turn: int, rendered: Rendered, conversation: Conversation, code: str = "prompt-not-prefix"
) -> str:
    """A template that writes a turn otherwise once more turns follow drops thoughts there, if the
    conversation has any."""
    if rendered.differences.get(turn):
        return "prompt-not-prefix"
    thoughts = any(
        turn.get("reasoning_content") or REASONING[1] in turn["content"]
        for turn in conversation
        if turn["role"] == "assistant"
    )
    return "thoughts-rewritten" if thoughts else code


def lacks_opening(before: Conversation, tokenizer: PreTrainedTokenizerBase, template: str) -> bool:
    """Whether add_generation_prompt changes nothing after these turns."""
    asked, ended = (
        fill(before, tokenizer, template, add_generation_prompt=opened)[0]
        for opened in (True, False)
    )
    return asked == ended


def find_opening(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, template: str
) -> str:
    """What the template writes between a prompt and the text of the first answer that is asked for;
    "" where nothing stands there, or the two begin differently."""
    turns = _plain(conversation, tokenizer)
    end = next((k for k, turn in enumerate(turns) if k and turn["role"] == "assistant"), 0)
    prompt, _ = fill(turns[:end], tokenizer, template, add_generation_prompt=True)
    taught, _ = fill(turns[: end + 1], tokenizer, template)
    if not taught.startswith(prompt):
        return ""
    return taught[len(prompt) :].partition(turns[end]["content"])[0].strip()


def _plain(conversation: Conversation, tokenizer: PreTrainedTokenizerBase) -> Conversation:
    """Turns of a role and a content alone, with thoughts in their place."""
    return [
        {"role": turn["role"], "content": turn["content"]}
        for turn in write_reasoning(conversation, tokenizer)
    ]
