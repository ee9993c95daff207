"""Third station: a conversation becomes an Example, token ids and the labels that say which of them
are graded.

The contract, checked for every example:
1. the prompt is ignored: every graded run begins where the inference prompt ends (or inside that
   prompt's opening, where the template's own tags put it: TRL's Qwen3 template grades the empty
   think block);
2. each answer's stop token is graded, once, at the end of its run; without it the model never
   learns to stop;
3. padding is never graded, and at least one token is;
4. the tokens before an answer are exactly the inference prompt: what is taught is what will be
asked. `encode_conversation` checks all four; `check_labels` checks what ids and labels alone can
show, whoever made them.
"""

import warnings
from collections.abc import Iterable
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from sft_lab.chat import encode_chat, stop_token_id
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.records import Conversation
from sft_lab.rendering import (
    GENERATION_TAG,
    encode_marked,
    find_answers,
    find_template,
    has_reasoning,
    mark_literals,
    render_marked,
    training_template,
)

POLICIES = ("assistant", "last", "all")
PRINTED_PROBLEMS = 20


class LabelError(ValueError):
    """Labels that would teach something else than the answers. `.problems` holds every bad row, one
    string each."""

    def __init__(self, message: str, problems: list[str] | None = None):
        super().__init__(message)
        self.problems = problems or [message]


def encode_conversation(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    *,
    graded: str = "assistant",
    max_tokens: int = 1024,
) -> Example:
    """Token ids of a conversation, and labels that grade its answers.

    graded: "assistant" grades every answer with its stop token; "last" only the last one; "all"
    every token, as in pretraining (the whole sequence, the prompt too: rule 1 does not apply).
    max_tokens: a longer conversation loses its last turns, down to the last answer that fits whole.
    An answer is never cut in two: half of one would be graded without its stop token.
    Which tokens an answer is, the template says: its {% generation %} tags; or those of the
    training variant that TRL bundles for it, as TRL's assistant_only_loss does (the same labels:
    tests/test_labels.py); or, for any other template, all that the answer adds to its inference
    prompt, up to the stop token.
    Raises LabelError when the contract cannot be kept, with the likely cause and what to do.
    """
    if graded not in POLICIES:
        raise ValueError(f"graded={graded!r}: choose one of {', '.join(POLICIES)}")
    answers = [place for place, turn in enumerate(conversation) if turn.get("role") == "assistant"]
    if not answers:
        raise LabelError(
            "the conversation has no answer (no assistant turn): there is nothing to grade"
        )
    for turns in [len(conversation), *(place + 1 for place in reversed(answers))]:
        example = _grade(conversation[:turns], tokenizer, graded)
        if len(example.input_ids) <= max_tokens:
            check_labels(example, tokenizer)
            return example
    raise LabelError(
        f"{len(example.input_ids)} tokens up to the end of the first answer, "
        f"max_tokens={max_tokens}: no answer fits whole. Raise max_tokens, or shorten "
        f"{conversation[0]['content'][:40]!r}"
    )


def encode_conversations(
    conversations: Iterable[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    *,
    graded: str = "assistant",
    max_tokens: int = 1024,
    source: str = "conversations",
) -> list[Example]:
    """`encode_conversation` for every row. Raises one LabelError that names all bad rows: "source,
    row 17: ..."."""
    if graded not in POLICIES:
        raise ValueError(f"graded={graded!r}: choose one of {', '.join(POLICIES)}")
    find_template(tokenizer)  # a missing template is no row's fault
    examples, problems = [], []
    for row, conversation in enumerate(conversations, start=1):
        try:
            examples.append(
                encode_conversation(conversation, tokenizer, graded=graded, max_tokens=max_tokens)
            )
        except ValueError as error:
            problems.append(f"{source}, row {row}: {error}")
    if problems:
        lines = [f"{source}: {len(problems)} rows cannot be graded"] if len(problems) > 1 else []
        lines += problems[:PRINTED_PROBLEMS]
        if len(problems) > PRINTED_PROBLEMS:
            lines.append(
                f"... and {len(problems) - PRINTED_PROBLEMS} more; the error's .problems has all"
            )
        raise LabelError("\n".join(lines), problems)
    return examples


def check_labels(example: Example, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises LabelError, naming the broken rule of the contract, from ids and labels alone.

    An example with every single token graded is taken for graded="all": only its stop tokens and
    padding are checked.
    """
    ids, labels = example.input_ids, example.labels
    if len(ids) != len(labels):
        raise LabelError(
            f"{len(ids)} input_ids but {len(labels)} labels: one label a token, unshifted"
        )
    for place, (index, label) in enumerate(zip(ids, labels, strict=True)):
        if label not in (IGNORE_INDEX, index):
            raise LabelError(
                f"labels[{place}] is {label}, neither {IGNORE_INDEX} nor input_ids[{place}], "
                f"{index}: likely shifted by one (the loss shifts, labels do not)"
            )
    if all(label == IGNORE_INDEX for label in labels[1:]):
        raise LabelError(
            f"no token is graded ({len(ids)} tokens; the first is never predicted): likely "
            "truncation cut the answer away"
        )
    stop, pad = stop_token_id(tokenizer), tokenizer.pad_token_id
    name = tokenizer.convert_ids_to_tokens(stop)
    cause = ""
    if pad == stop:
        cause = (
            f". Likely cause: the pad token is the stop token {name}; what masks one masks "
            "both. Set another"
        )
    elif pad is not None and pad in labels:
        raise LabelError(
            f"labels[{labels.index(pad)}] grades the pad token {tokenizer.pad_token}: the model "
            "would learn to write padding. Likely labels are a copy of padded input_ids"
        )
    if list(labels) == list(ids):
        if stop not in ids:
            raise LabelError(
                f"every token is graded, none is the stop token {name}: the model never learns "
                "to stop"
            )
        return
    openings = _openings(tokenizer, training_template(tokenizer))
    for first, last in _runs(labels):
        run, text = ids[first:last], repr(tokenizer.decode(ids[first:last])[-60:])
        if stop not in run:
            raise LabelError(
                f"tokens {first} to {last - 1} are graded without a stop token {name} ({text}): "
                "the model never learns to stop. Likely the template gives it to the next "
                f"turn{cause}"
            )
        after = run.index(stop) + 1
        if stop in run[after:]:
            raise LabelError(
                f"tokens {first} to {last - 1} grade the stop token {name} twice ({text}): "
                f"likely padding or a later prompt is graded{cause}"
            )
        if tokenizer.decode(run[after:]).strip():
            raise LabelError(
                f"tokens {first + after} to {last - 1} are graded after the stop token {name} "
                f"({text}): the answer ends there"
            )
        if not any(ids[max(first - len(opening), 0) : first] == opening for opening in openings):
            before = tokenizer.decode(ids[max(first - 8, 0) : first])
            raise LabelError(
                f"the graded run at token {first} ({text}) follows {before!r}, but an answer "
                f"follows {tokenizer.decode(openings[-1])!r}. Likely part of the prompt is "
                "graded, or the beginning of the answer is not"
            )


def _grade(conversation: Conversation, tokenizer: PreTrainedTokenizerBase, graded: str) -> Example:
    """Encode and grade all turns; checks what needs the conversation: every answer follows its
    inference prompt."""
    template = training_template(tokenizer)
    marked, mark = mark_literals(conversation, tokenizer)
    text, spans = render_marked(marked, tokenizer, template)
    starts = find_answers(marked, text, tokenizer, template)
    ids, offsets = encode_marked(text, tokenizer, mark, starts)
    answers = [place for place, turn in enumerate(conversation) if turn["role"] == "assistant"]
    tagged = GENERATION_TAG.search(template) is not None
    if graded == "all":
        return Example(ids, list(ids))
    added = []
    for number in range(len(answers)) if graded == "assistant" else [len(answers) - 1]:
        through = answers[number] + 1
        if through == 1:
            raise LabelError(
                "the first turn is an answer to nothing: restore the question or drop that turn"
            )
        if starts[number] is None:
            raise LabelError(_rewritten(through))
        prompt, _ = encode_marked(text[: starts[number]], tokenizer, mark, starts[:number])
        _check_prompt(conversation[:through], prompt, ids, tokenizer, template)
        if not tagged:
            added.append(_added_text(marked[:through], text, starts[number], tokenizer, template))
        elif not any(first <= starts[number] <= last for first, last in spans):
            raise LabelError(
                f"turn {through}, an answer, lies outside the template's {{% generation %}} "
                "tags: it would not be graded. Put them around what the model writes, its stop "
                "token included"
            )
    if tagged:
        added = [span for span in spans if graded == "assistant" or span[1] >= starts[-1]]
    labels = [IGNORE_INDEX] * len(ids)
    for first, last in added:
        for place, (start, end) in enumerate(offsets):
            if start < last and (end > first or start >= first):
                labels[place] = ids[place]
    return Example(ids, labels)


def _check_prompt(
    conversation: Conversation,
    prompt: list[int],
    ids: list[int],
    tokenizer: PreTrainedTokenizerBase,
    template: str,
) -> None:
    """Rule 4 for the answer that ends `conversation`: `ids` begin with its inference prompt, token
    by token."""
    if ids[: len(prompt)] != prompt:
        place = next(
            place for place, index in enumerate(prompt) if ids[place : place + 1] != [index]
        )
        ours, theirs = (tokenizer.decode(row[place : place + 5]) for row in (ids, prompt))
        raise LabelError(
            f"turn {len(conversation)}: training and inference differ from token {place} on, "
            f"{ours!r} against {theirs!r}: the template or the tokenizer joins the answer to its "
            "prompt"
        )
    *before, answer = conversation
    if template != find_template(tokenizer) and any(turn["role"] == "assistant" for turn in before):
        thinking = has_reasoning(answer)
        if (
            encode_chat(before, tokenizer, add_generation_prompt=True, enable_thinking=thinking)
            != prompt
        ):
            warnings.warn(
                "the tokenizer's chat template renders earlier answers otherwise than the "
                "training variant TRL bundles for it (Qwen3's drops their think blocks): later "
                "answers are taught one way and asked another. To ask as taught: "
                "tokenizer.chat_template = training_template(tokenizer), from sft_lab.labels",
                stacklevel=2,
            )


def _added_text(
    marked: Conversation, text: str, start: int, tokenizer: PreTrainedTokenizerBase, template: str
) -> tuple[int, int]:
    """The characters of `text` that the last answer of `marked` adds to its prompt, through its
    stop token."""
    rendered, _ = render_marked(marked, tokenizer, template)
    stop = tokenizer.decode([stop_token_id(tokenizer)])
    end = rendered.find(stop, start) + len(stop)
    if end < start + len(stop):
        raise LabelError(
            f"the template writes no stop token {stop} after turn {len(marked)}, an answer: the "
            "model would never learn to stop. Likely the template counts it to the next turn: "
            "move it"
        )
    if not text.startswith(rendered[:end]):
        raise LabelError(_rewritten(len(marked)))
    return start, end


def _rewritten(turn: int) -> str:
    return (
        f"the template renders turn {turn}, or what stands before it, otherwise once more turns "
        "follow, so it cannot be trained as it is asked (Qwen3's drops earlier reasoning). Grade "
        'the last answer only, graded="last", or use a template with {% generation %} tags that '
        "keeps the history as it was"
    )


def _runs(labels: list[int]) -> list[tuple[int, int]]:
    """(first, last + 1) of each unbroken run of graded tokens."""
    graded = [False, *(label != IGNORE_INDEX for label in labels), False]
    edges = [place for place in range(len(labels) + 1) if graded[place] != graded[place + 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))


@lru_cache(maxsize=16)
def _openings(tokenizer: PreTrainedTokenizerBase, template: str) -> list[list[int]]:
    """The ungraded ids between a question and its answer, with and without reasoning:
    "<|im_start|>assistant\\n"."""
    question = {"role": "user", "content": "Why?"}
    end = encode_chat([question], tokenizer, template=template)
    openings = []
    for answer in ("<think>\nSo.\n</think>\n\nSo.", "So."):
        example = _grade([question, {"role": "assistant", "content": answer}], tokenizer, "last")
        shared = next(
            place
            for place, index in enumerate(example.input_ids)
            if end[place : place + 1] != [index]
        )
        openings.append(example.input_ids[shared : _runs(example.labels)[0][0]])
    return openings
