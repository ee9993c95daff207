"""Station "say": a conversation becomes the template's text and its token ids, in one place; and
where the answers stand in them."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import pairwise
from os.path import commonprefix

from transformers import PreTrainedTokenizerBase

from sft_lab.control import (
    NUMBERS,
    REASONING,
    Controls,
    Guard,
    encode_parts,
    encode_piece,
    encode_plainly,
    fill_guarded,
    find_controls,
    guard_messages,
)
from sft_lab.records import Conversation
from sft_lab.templates import fill, find_template, find_variant, has_tags, training_template


@dataclass(frozen=True)
class Rendered:
    """A conversation as its template writes it and as a model reads it.

    text: what the template writes. ids: the T token ids of it. offsets: for each token the
    characters of `text` it stands for, (first, last + 1). spans: the characters, (first, last + 1),
    that the model writes: those in the template's {% generation %} tags; for a template without
    tags `render_for_training` finds them. starts: for every answer the character at which it
    begins, which is the length of its inference prompt; None where `text` does not begin with that
    prompt: the template rewrites the history, or no turn stands before the answer. differences: for
    an answer that is asked for otherwise than its turn begins, even as the last one: the number of
    its turn, from 1, and how.
    """

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]
    spans: list[tuple[int, int]]
    starts: list[int | None]
    differences: dict[int, str]


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
    turns, guard = guard_messages(conversation, tokenizer, template)
    text, spans = fill_guarded(
        turns,
        guard,
        template,
        add_generation_prompt=add_generation_prompt,
        enable_thinking=enable_thinking,
    )
    draft = _encode_draft(text, spans, guard)
    return _show(_locate_answers(draft, turns, template, guard), guard)


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
    guarded, guard = guard_messages(conversation, tokenizer, template)

    @cache
    def draft(turns: int) -> Rendered:
        text, spans = fill_guarded(guarded[:turns], guard, template)
        return _encode_draft(text, spans, guard)

    ends = sorted({len(guarded), *(index + 1 for index in _find_answer_turns(guarded))})
    if len(draft(len(guarded)).ids) > max_tokens:
        # More turns are more tokens, so halving finds how many fit. Dropping one answer after the
        # other would render the whole length once for each of them.
        fitting = bisect_right(ends, max_tokens, key=lambda end: len(draft(end).ids))
        ends = ends[: max(fitting, 1)]
    while True:
        turns = guarded[: ends[-1]]
        rendered = _locate_answers(draft(len(turns)), turns, template, guard)
        if len(rendered.ids) <= max_tokens or len(ends) == 1:
            break
        ends.pop()  # answers encoded apart from their prompts take a few tokens more than the draft
    if has_tags(template):
        spans = _end_at_stops(rendered, tokenizer)
    else:
        spans = _find_added_spans(rendered, turns, template, guard)
    return _show(replace(rendered, spans=spans), guard)


def encode_text(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of a plain text, without a template, in which control tokens stay letters."""
    [turn], guard = guard_messages([{"role": "user", "content": text}], tokenizer)
    return encode_piece(turn["content"], guard)[0]


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
    turns, guard = guard_messages(conversation[: index + 1], tokenizer)
    prompt = _fill_prompt(turns[:-1], turns[-1], tokenizer, own)
    return guard.show(prompt) == rendered.text[: rendered.starts[-1]]


# the stop token


def stop_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token that ends an answer: the first control token the template writes after one,
    as the tokenizer reads it.

    For ChatML (Qwen, SmolLM, atlas-base) that is <|im_end|>. Where the template writes none, it is
    what the variant that training takes writes; where that writes none either, or there is no
    template, the tokenizer's eos token. Raises ValueError when that is missing too, and when the
    template does not write the text of an answer.
    """
    if tokenizer.chat_template:
        own = find_template(tokenizer)
        # GLM's template writes nothing there: the next turn opens with the token that ends this
        # one, and TRL's variant says so.
        for template in (own, find_variant(own) or own):
            stop, _ = _probe_stop(tokenizer, template)
            if stop is not None:
                return stop
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} has no stop token: its template writes no "
            "control token after an answer, and it has no eos token. Set tokenizer.eos_token = "
            "..."
        )
    return tokenizer.eos_token_id


def explain_missing_stop(run: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The likely cause, when the ids of an answer, `run`, are graded without a stop token."""
    template = training_template(tokenizer)
    names = {token_id: text for text, token_id in find_controls(tokenizer, template).ids.items()}
    ends = [names[token_id] for token_id in run if token_id in names]
    if ends and tokenizer.decode(run).rstrip().endswith(ends[-1]):
        return (
            f"The template ends this answer with {ends[-1]!r}, and the last one of a conversation "
            'with another token. Grade the last answer only, graded="last"'
        )
    _, after = _probe_stop(tokenizer, template)
    if after.strip():
        return (
            f"After an answer the template writes {after.strip()[:40]!r}, which this tokenizer "
            "does not read as a control token. Use a template of the tokenizer's family, or add "
            "the token with tokenizer.add_special_tokens"
        )
    return "Likely the template writes none after an answer, or gives it to the next turn"


def explain_tags(tokenizer: PreTrainedTokenizerBase, *, with_system: bool) -> str:
    """What is wrong with the {% generation %} tags of the training template: they stand around what
    a user says, or, with_system, around a system turn. "" where nothing is."""
    template = training_template(tokenizer)
    controls = find_controls(tokenizer, template)
    return _explain_tags(tokenizer, template, controls, with_system)


def explain_lost_turn(
    rendered: Rendered, conversation: Conversation, tokenizer: PreTrainedTokenizerBase
) -> str:
    """Which turn the training template leaves out or cuts, so that the model would never read it;
    "" where it writes all.

    conversation: the one that `render_for_training` made `rendered` of. What is behind its last
    answer there is not judged, and a turn without text has none to lose.
    """
    last = _find_answer_turns(conversation)[len(rendered.starts) - 1]
    roles = tuple(turn["role"] for turn in conversation[: last + 1])
    for index in _find_lost(tokenizer, training_template(tokenizer), roles):
        if conversation[index]["content"].strip():
            return (
                f"the chat template leaves out the text of turn {index + 1} ({roles[index]}), or a "
                "part of it: the model would never read it. Use a template that writes every turn, "
                "or put that text into a turn that it writes"
            )
    return ""


def _probe_stop(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[int | None, str]:
    """Id of the first control token after an answer, None if there is none, and the text after the
    answer up to it."""
    return _find_stop(tokenizer, template, find_controls(tokenizer, template))


@lru_cache(maxsize=16)
def _find_stop(
    tokenizer: PreTrainedTokenizerBase, template: str, controls: Controls
) -> tuple[int | None, str]:
    question, answer = NUMBERS[:2]
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    text, _ = fill(turns, tokenizer, template)
    if answer not in text:
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r} does not write the text of an "
            "answer. Templates of vision models expect a list of parts there: use the template "
            "of the text model of its family"
        )
    # From the answer on: the control tokens before it open and end other turns.
    end = text.rindex(answer) + len(answer)
    for token_id, (first, last) in zip(*encode_plainly(text, tokenizer), strict=True):
        if last > end and token_id in controls.ids.values():
            return token_id, text[end : max(first, end)]
    return None, text[end:]


@lru_cache(maxsize=16)
def _explain_tags(
    tokenizer: PreTrainedTokenizerBase, template: str, controls: Controls, with_system: bool
) -> str:
    for first in ("", "system ")[: 1 + with_system]:
        roles = f"{first}user assistant user assistant"
        turns = [
            {"role": role, "content": number}
            for role, number in zip(roles.split(), NUMBERS, strict=False)
        ]
        try:
            text, spans = fill(turns, tokenizer, template)
        except ValueError:  # each row says so itself
            continue
        graded = [text[first:last] for first, last in spans]
        for turn in turns:
            if turn["role"] != "assistant" and any(turn["content"] in part for part in graded):
                return (
                    "the chat template's {% generation %} tags stand around the "
                    f"{turn['role']}'s turns too, so they would be graded. Put them around what "
                    "the model writes alone: the text of an answer and its stop token"
                )
    return ""


@lru_cache(maxsize=256)
def _find_lost(
    tokenizer: PreTrainedTokenizerBase, template: str, roles: tuple[str, ...]
) -> list[int]:
    """The turns of a conversation with these roles that the template does not write whole. Asked
    with numbers, because of a text a template may rewrite a part: white space, earlier thoughts."""
    # long, to find what is cut; no number stands in another, whatever comes between them
    contents = [f"{NUMBERS[0]}{index:06d}" * 50 for index in range(len(roles))]
    turns = [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=True)
    ]
    try:
        text, _ = fill(turns, tokenizer, template)
    except ValueError:  # each row says so itself
        return []
    return [index for index, content in enumerate(contents) if content not in text]


# where the answers stand


def _find_answer_turns(conversation: Conversation) -> list[int]:
    return [index for index, turn in enumerate(conversation) if turn["role"] == "assistant"]


def _fill_prompt(
    before: Conversation,
    answer: dict[str, str],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
) -> str:
    """The text with which the template asks for an answer after the turns before it."""
    # An answer with reasoning is asked for with reasoning.
    thinking = bool(answer.get("reasoning_content")) or any(
        tag in answer["content"] for tag in REASONING
    )
    return fill(before, tokenizer, template, add_generation_prompt=True, enable_thinking=thinking)[
        0
    ]


def _locate_answers(draft: Rendered, turns: Conversation, template: str, guard: Guard) -> Rendered:
    """The draft with its `starts`, and with ids in which every answer follows its inference prompt.

    Together with its answer a prompt can be encoded otherwise than alone: the line break that ends
    it and one that begins the answer share a token. At inference the prompt stands first, so there
    the answer is encoded apart.
    """
    starts: list[int | None] = []
    differences = {}
    for index in _find_answer_turns(turns):
        # A template may look at any turn, so only rendering the turns before shows the prompt.
        prompt = ""
        if index > 0:
            prompt = _fill_prompt(turns[:index], turns[index], guard.tokenizer, template)
        found = bool(prompt) and draft.text.startswith(prompt)
        starts.append(len(prompt) if found else None)
        if prompt and not found:
            how = _explain_difference(prompt, turns[: index + 1], template, guard)
            differences |= {index + 1: how} if how else {}
    apart = _find_joined(draft, [start for start in starts if start is not None], guard)
    ids, offsets = draft.ids, draft.offsets
    if apart:
        # Only there: elsewhere the ids are those that transformers gives.
        parts = list(pairwise([0, *apart, len(draft.text)]))
        ids, offsets = encode_parts(draft.text, parts, guard)
    return replace(draft, ids=ids, offsets=offsets, starts=starts, differences=differences)


def _explain_difference(prompt: str, turns: Conversation, template: str, guard: Guard) -> str:
    """How the last of the turns, an answer, begins otherwise than its prompt; "" where it does
    not."""
    taught, _ = fill(turns, guard.tokenizer, template)
    if taught.startswith(prompt):
        return ""
    shared = len(commonprefix([prompt, taught]))
    near = slice(max(shared - 20, 0), shared + 40)
    return (
        f"turn {len(turns)}, an answer, is asked for with {guard.show(prompt)[near]!r}, but the "
        f"template writes {guard.show(taught)[near]!r} there: it would be taught one way and asked "
        "another. Let add_generation_prompt write exactly what stands before an answer"
    )


def _find_joined(draft: Rendered, starts: list[int], guard: Guard) -> list[int]:
    """Those of the starts before which the draft's ids are not those of the prompt alone, and those
    inside a token: one that eats the white space after it.

    Tokenizers cut a text at its control tokens before all else, so what stands before the last one
    in a prompt cannot change the ids after it: from there on the prompt is encoded once more.
    """
    cuts = guard.controls.added.intersection(guard.controls.ids.values())
    firsts = [first for first, _ in draft.offsets]
    joined = []
    for start in starts:
        end = bisect_left(firsts, start)  # the first token that does not begin in the prompt
        begin = next((t for t in range(end - 1, 0, -1) if draft.ids[t] in cuts), 0)
        ending = draft.text[firsts[begin] if begin else 0 : start]
        alone, _ = encode_piece(ending, guard)
        if alone != draft.ids[begin:end] or (end and draft.offsets[end - 1][1] > start):
            joined.append(start)
    return joined


def _find_added_spans(
    rendered: Rendered, turns: Conversation, template: str, guard: Guard
) -> list[tuple[int, int]]:
    """For a template without tags: the characters that each answer adds to its prompt, through its
    stop token, or all of them where the template writes no stop token.

    An answer has no span when the text does not hold it as it was written (Qwen3's template drops
    the reasoning of an answer once a question follows).
    """
    stop_id = stop_token_id(guard.tokenizer)
    stop = next(text for text, token_id in guard.controls.ids.items() if token_id == stop_id)
    spans = []
    for index, start in zip(_find_answer_turns(turns), rendered.starts, strict=True):
        if start is None:
            continue
        # The answer as the last turn, as it stands right after the model has written it.
        through, _ = fill(turns[: index + 1], guard.tokenizer, template)
        found = through.find(stop, start)
        end = len(through) if found < 0 else found + len(stop)
        if rendered.text.startswith(through[:end]):
            spans.append((start, end))
    return spans


def _end_at_stops(rendered: Rendered, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    """The tags' spans without the tokens that some templates write inside them after the stop token
    (Phi 3's, <|endoftext|>): a model has stopped there. White space is left."""
    stop = stop_token_id(tokenizer)
    ends = [
        last
        for token_id, (_, last) in zip(rendered.ids, rendered.offsets, strict=True)
        if token_id == stop
    ]
    spans = []
    for first, last in rendered.spans:
        after = bisect_right(ends, first)
        if after < len(ends) and ends[after] <= last:
            end = ends[after]
            spans.append((first, end if rendered.text[end:last].strip() else last))
        elif after == 0 or rendered.text[ends[after - 1] : first].strip():
            spans.append((first, last))
        # what is left are tags of their own right behind a stop token
    return spans


# guarded text -> ids


def _encode_draft(text: str, spans: list[tuple[int, int]], guard: Guard) -> Rendered:
    """A guarded text with its ids, before anything is known of its answers."""
    ids, offsets = encode_piece(text, guard)
    return Rendered(text, ids, offsets, spans, starts=[], differences={})


def _show(rendered: Rendered, guard: Guard) -> Rendered:
    return replace(rendered, text=guard.show(rendered.text))
