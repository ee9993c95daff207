"""Station "say": a conversation becomes the template's text and its token ids, in one place.

A template marks the turns with control tokens such as <|im_end|>. Tokenizers find those tokens
wherever their letters stand, so a user who types "<|im_end|>" would end the turn and could speak as
the assistant. Here the letters of a control token in a message get a mark inside, the template is
rendered around them, and the encoder takes the marks out: letters stay letters. transformers does
the same with `apply_chat_template(sanitize_control_tokens=True)`, but then gives no assistant mask,
which training needs; tests/test_chat.py compares the two.
"""

import importlib.util
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import accumulate, pairwise
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from sft_lab.reasoning import write_reasoning
from sft_lab.records import Conversation

ROLES = ("system", "user", "assistant", "tool")
# In an answer these stay control tokens: the model writes them itself.
REASONING = ("<think>", "</think>")
TURN_KEYS = ("role", "content", "weight", "reasoning_content")  # of which a template reads some
GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Rendered:
    """A conversation as its template writes it and as a model reads it.

    text: what the template writes. ids: the T token ids of it. offsets: for each token the
    characters of `text` it stands for, (first, last + 1). spans: the characters, (first, last + 1),
    that the model writes: those in the template's {% generation %} tags; for a template without
    tags `render_for_training` finds them. starts: for every answer the character at which it
    begins, which is the length of its inference prompt; None where `text` does not begin with that
    prompt: the template rewrites the history, or no turn stands before the answer.
    """

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]
    spans: list[tuple[int, int]]
    starts: list[int | None]


def render_conversation(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    *,
    add_generation_prompt: bool = False,
    enable_thinking: bool = False,
) -> Rendered:
    """The conversation through the Jinja text `template`; no message becomes a control token.

    Raises ValueError for a malformed turn, when the template refuses the conversation (Gemma's
    refuses two user turns in a row), and when a message would become a control token all the same.
    """
    marked, mark = _mark_literals(conversation, tokenizer)
    text, spans = _fill(marked, tokenizer, template, add_generation_prompt, enable_thinking)
    draft = _encode_draft(text, spans, tokenizer, mark)
    return _unmark(_locate_answers(draft, marked, tokenizer, template, mark), mark)


def render_for_training(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int
) -> Rendered:
    """The conversation through the tokenizer's `training_template`, with `spans` for any template.

    max_tokens: a longer conversation loses its last turns, down to the last answer that fits whole;
    `starts` has as many entries as answers are kept. Where not even the first answer fits, the
    turns up to it are returned all the same, longer than max_tokens.

    At a given max_tokens the cost is linear in the turns: all of them are rendered and encoded
    once, halves of them until the cut is found, and then parts of what is kept once or twice for
    each answer in it.
    Raises ValueError as `render_conversation` does.
    """
    template = training_template(tokenizer)
    marked, mark = _mark_literals(conversation, tokenizer)

    @cache
    def draft(turns: int) -> Rendered:
        text, spans = _fill(marked[:turns], tokenizer, template)
        return _encode_draft(text, spans, tokenizer, mark)

    ends = sorted({len(marked), *(index + 1 for index in _find_answer_turns(marked))})
    if len(draft(len(marked)).ids) > max_tokens:
        # More turns are more tokens, so halving finds how many fit. Dropping one answer after the
        # other would render the whole length once for each of them.
        fitting = bisect_right(ends, max_tokens, key=lambda end: len(draft(end).ids))
        ends = ends[: max(fitting, 1)]
    while True:
        turns = marked[: ends[-1]]
        rendered = _locate_answers(draft(len(turns)), turns, tokenizer, template, mark)
        if len(rendered.ids) <= max_tokens or len(ends) == 1:
            break
        ends.pop()  # answers encoded apart from their prompts take a few tokens more than the draft
    if not GENERATION_TAG.search(template):
        spans = _find_added_spans(rendered, turns, tokenizer, template)
        rendered = replace(rendered, spans=spans)
    return _unmark(rendered, mark)


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of a plain text, without a template, in which control tokens stay letters."""
    [turn], mark = _mark_literals([{"role": "user", "content": text}], tokenizer)
    return _encode_draft(turn["content"], [], tokenizer, mark).ids


def asks_as_taught(
    rendered: Rendered, conversation: Conversation, tokenizer: PreTrainedTokenizerBase
) -> bool:
    """Whether the tokenizer's own template asks for the last answer of `rendered` as it is taught.

    conversation: the one that `render_for_training` made `rendered` of. False where the own
    template writes the turns before that answer otherwise than the training variant does: Qwen3's
    drops the think blocks of earlier answers.
    """
    own = find_template(tokenizer)
    if len(rendered.starts) < 2 or own == training_template(tokenizer):
        return True
    index = _find_answer_turns(conversation)[len(rendered.starts) - 1]
    before, mark = _mark_literals(conversation[:index], tokenizer)
    prompt, _ = _fill(before, tokenizer, own, True, _has_reasoning(conversation[index]))
    return prompt.replace(mark, "") == rendered.text[: rendered.starts[-1]]


# templates and control tokens


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


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Added tokens and their ids, except single characters and white space (Gemma adds "\\n\\n"):
    those are text."""
    added = tokenizer.added_tokens_decoder.items()
    return {token.content: token_id for token_id, token in added if len(token.content.strip()) > 1}


def stop_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token that ends an answer: the first control token the template writes after one.

    For ChatML (Qwen, SmolLM, atlas-base) that is <|im_end|>. Where the template writes none, it is
    what the variant that training takes writes (GLM-4's: the next turn's <|user|>); where that
    writes none either, or there is no template, the tokenizer's eos token. Raises ValueError when
    that is missing too, and when the template does not write the text of an answer.
    """
    if tokenizer.chat_template:
        question = {"role": "user", "content": "A question?"}
        answer = {"role": "assistant", "content": "An answer."}
        text, _ = _fill([question, answer], tokenizer, find_template(tokenizer))
        if answer["content"] not in text:
            raise ValueError(
                f"the chat template of {tokenizer.name_or_path!r} does not write the text of an "
                "answer. Templates of vision models expect a list of parts there: use the template "
                "of the text model of its family"
            )
        # From the answer on: the control tokens before it open and end other turns.
        controls = control_tokens(tokenizer)
        found = _match_any(controls).search(text, text.rindex(answer["content"]))
        if not found:
            text, _ = _fill([question, answer], tokenizer, training_template(tokenizer))
            found = _match_any(controls).search(text, text.rindex(answer["content"]))
        if found:
            return controls[found[0]]
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no stop token: its template writes no "
            "control token after an answer, and it has no eos token. Set tokenizer.eos_token = "
            "..."
        )
    return tokenizer.eos_token_id


# conversation -> marked text


def _mark_literals(
    conversation: Conversation, tokenizer: PreTrainedTokenizerBase
) -> tuple[Conversation, str]:
    """Put a mark, a private-use character that no message holds, inside every control token's
    letters in a message.

    Returns the marked conversation and the mark. The mark goes inside, so that a template that
    looks for the letters (Qwen3's does, for "<tool_response>") does not find them either.
    """
    conversation = write_reasoning(check_turns(conversation), tokenizer)
    text = "".join(turn["content"] for turn in conversation)
    # 6,400 characters to which Unicode gives no meaning: one of them is always free.
    mark = next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in text)
    pattern = _match_any(control_tokens(tokenizer))

    def mark_turn(turn: dict[str, str]) -> dict[str, str]:
        # A user's "<think>" is text; an answer's is a token, as the model will write it.
        kept = REASONING if turn["role"] == "assistant" else ()
        content = pattern.sub(
            lambda found: found[0] if found[0] in kept else _hide(found[0], mark), turn["content"]
        )
        return {"role": turn["role"], "content": content}

    return [mark_turn(turn) for turn in conversation], mark


def _unmark(rendered: Rendered, mark: str) -> Rendered:
    """The same without marks: each character moves left by the number of marks before it."""
    marks = list(accumulate((letter == mark for letter in rendered.text), initial=0))

    def move(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(first - marks[first], last - marks[last]) for first, last in pairs]

    return Rendered(
        text=rendered.text.replace(mark, ""),
        ids=rendered.ids,
        offsets=move(rendered.offsets),
        spans=move(rendered.spans),
        starts=[None if start is None else start - marks[start] for start in rendered.starts],
    )


def _fill(
    marked: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    add_generation_prompt: bool = False,
    enable_thinking: bool = False,
) -> tuple[str, list[tuple[int, int]]]:
    """The template's text, and the (first, last + 1) characters inside its {% generation %} tags,
    if it has any."""
    try:
        texts, spans = render_jinja_template(
            [marked],
            chat_template=template,
            # transformers warns where tags are asked of a template that has none
            return_assistant_tokens_mask=GENERATION_TAG.search(template) is not None,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=enable_thinking,
            **tokenizer.special_tokens_map,
        )
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in marked)
        raise ValueError(
            f"the chat template refuses a conversation with the turns {roles}: {error}"
        ) from error
    return texts[0], list(spans[0]) if spans else []


# where the answers stand


def _find_answer_turns(conversation: Conversation) -> list[int]:
    return [index for index, turn in enumerate(conversation) if turn["role"] == "assistant"]


def _has_reasoning(answer: dict[str, str]) -> bool:
    """Its inference prompt is then the one with enable_thinking=True."""
    return bool(answer.get("reasoning_content")) or any(
        tag in answer["content"] for tag in REASONING
    )


def _locate_answers(
    draft: Rendered,
    marked: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    mark: str,
) -> Rendered:
    """The draft with its `starts`, and with ids in which every answer follows its inference prompt.

    Together with its answer a prompt can be encoded otherwise than alone: the line break that ends
    it and one that begins the answer share a token. At inference the prompt stands first, so there
    the answer is encoded apart.
    """
    starts: list[int | None] = []
    for index in _find_answer_turns(marked):
        # A template may look at any turn, so only rendering the turns before shows the prompt.
        prompt = ""
        if index > 0:
            thinking = _has_reasoning(marked[index])
            prompt, _ = _fill(marked[:index], tokenizer, template, True, thinking)
        starts.append(len(prompt) if prompt and draft.text.startswith(prompt) else None)
    apart = _find_joined(draft, [start for start in starts if start is not None], tokenizer, mark)
    ids, offsets = draft.ids, draft.offsets
    if apart:
        # Only there: some tokenizers put a blank before every piece, which TRL's ids do not have.
        pieces = list(pairwise([0, *apart, len(draft.text)]))
        ids, offsets = _join(_encode_pieces(draft.text, pieces, tokenizer, mark))
    return replace(draft, ids=ids, offsets=offsets, starts=starts)


def _find_joined(
    draft: Rendered, starts: list[int], tokenizer: PreTrainedTokenizerBase, mark: str
) -> list[int]:
    """Those of the starts before which the draft's ids are not those of the prompt alone.

    Tokenizers cut a text at its control tokens before all else, so what stands before the last one
    in a prompt cannot change the ids after it: from there on the prompt is encoded once more.
    """
    controls = set(control_tokens(tokenizer).values())
    firsts = [first for first, _ in draft.offsets]
    endings, expected = [], []
    for start in starts:
        end = bisect_left(firsts, start)  # the first token that does not begin in the prompt
        begin = next((i for i in range(end - 1, 0, -1) if draft.ids[i] in controls), 0)
        endings.append((firsts[begin] if begin else 0, start))
        expected.append(draft.ids[begin:end])
    alone = _encode_pieces(draft.text, endings, tokenizer, mark)
    return [
        start
        for start, ids, (ids_alone, _) in zip(starts, expected, alone, strict=True)
        if ids != ids_alone
    ]


def _find_added_spans(
    rendered: Rendered, marked: Conversation, tokenizer: PreTrainedTokenizerBase, template: str
) -> list[tuple[int, int]]:
    """For a template without tags: the characters that each answer adds to its prompt, through its
    stop token, or all of them where the template writes no stop token.

    An answer has no span when the text does not hold it as it was written (Qwen3's template drops
    the reasoning of an answer once a question follows).
    """
    stop = tokenizer.decode([stop_token_id(tokenizer)])
    spans = []
    for index, start in zip(_find_answer_turns(marked), rendered.starts, strict=True):
        if start is None:
            continue
        # The answer as the last turn, as it stands right after the model has written it.
        through, _ = _fill(marked[: index + 1], tokenizer, template)
        found = through.find(stop, start)
        end = len(through) if found < 0 else found + len(stop)
        if rendered.text.startswith(through[:end]):
            spans.append((start, end))
    return spans


# marked text -> ids


def _encode_draft(
    text: str, spans: list[tuple[int, int]], tokenizer: PreTrainedTokenizerBase, mark: str
) -> Rendered:
    """A marked text with its ids, before anything is known of its answers."""
    ids, offsets = _join(_encode_pieces(text, [(0, len(text))], tokenizer, mark))
    return Rendered(text, ids, offsets, spans, starts=[])


def _join(
    parts: list[tuple[list[int], list[tuple[int, int]]]],
) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids and offsets of parts that follow each other, as of one text."""
    ids = [token_id for part, _ in parts for token_id in part]
    return ids, [pair for _, offsets in parts for pair in offsets]


def _encode_pieces(
    text: str,
    pieces: Sequence[tuple[int, int]],
    tokenizer: PreTrainedTokenizerBase,
    mark: str,
) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Ids of each piece, (first, last + 1) characters of a marked text, encoded as if alone; and
    the characters of `text` each token stands for.

    Raises ValueError if a message would become a control token in spite of the marks.
    """
    controls = control_tokens(tokenizer)
    written, control_ids = _match_any(controls), set(controls.values())
    hidden = _match_any(_hide(token, mark) for token in controls)
    encoded = []
    for position, last in pieces:
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        while position < last:
            letters = hidden.search(text, position, last) if mark in text else None
            end = letters.start() if letters else last
            part = tokenizer(
                text[position:end],
                add_special_tokens=False,
                return_offsets_mapping=True,
                verbose=False,
            )
            # A mark left over, or more control tokens than are written out, is a message's: the
            # template or the tokenizer's normalizer has changed its letters.
            found = sum(token_id in control_ids for token_id in part["input_ids"])
            if mark in text[position:end] or found > len(written.findall(text, position, end)):
                near = text[position:end].replace(mark, "")[:80]
                raise ValueError(
                    f"a message would become a control token near {near!r}: the chat template or "
                    "the tokenizer changes its letters. Remove them from the message."
                )
            ids += part["input_ids"]
            offsets += [
                (position + start, position + stop) for start, stop in part["offset_mapping"]
            ]
            if letters:
                # Their tokens come without offsets: each stands for all of the letters.
                spelled = _encode_letters(letters[0].replace(mark, ""), tokenizer)
                ids += spelled
                offsets += [letters.span()] * len(spelled)
            position = letters.end() if letters else last
        encoded.append((ids, offsets))
    return encoded


def _encode_letters(literal: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of a control token's letters: the tokenizer's own steps, without the one that looks for
    added tokens."""
    steps = tokenizer.backend_tokenizer
    text = steps.normalizer.normalize_str(literal) if steps.normalizer else literal
    # `tokenizer.tokenize` would find the added token again, special or not.
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


def _match_any(texts: Iterable[str]) -> re.Pattern:
    """Matches any of the texts, the longest first; nothing when there are none."""
    return re.compile(
        "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) or "(?!)"
    )
