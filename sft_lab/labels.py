"""Station "grade": a conversation becomes an Example, token ids and the labels that say which of
them are graded.

The contract, true of every example that `encode_conversation` gives:
1. the prompt is ignored: every graded run begins where the inference prompt ends (or inside that
   prompt's opening, where the template's own tags put it: TRL's Qwen3 template grades the empty
   think block);
2. each answer's stop token is graded, once, at the end of its run; without it the model never
   learns to stop;
3. padding is never graded, and at least one token is;
4. the tokens before an answer are exactly the inference prompt: what is taught is what will be
   asked. `rendering` encodes an answer apart from its prompt wherever that makes a difference.

`check_labels` checks what ids and labels alone can show, whoever made them.
"""

import sys
import warnings
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from sft_lab.control import Controls, find_controls, find_neutral_texts
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.records import Conversation
from sft_lab.rendering import (
    Rendered,
    asks_as_taught,
    explain_lost_turn,
    explain_missing_stop,
    explain_tags,
    render_conversation,
    render_for_training,
    stop_token_id,
)
from sft_lab.row_files import list_problems
from sft_lab.templates import find_template, has_tags, training_template

POLICIES = ("assistant", "last", "all")


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

    graded: "assistant" grades every answer with its stop token, but those whose turn has
    "weight": 0; "last" only the last one; "all" every token, as in pretraining (the whole sequence,
    the prompt too: rule 1 does not apply).
    max_tokens: a longer conversation loses its last turns, down to the last answer that fits whole.
    An answer is never cut in two: half of one would be graded without its stop token. What is cut
    away is not judged.
    Which tokens an answer is, the template says: its {% generation %} tags; or those of the
    training variant that TRL bundles for it, as TRL's assistant_only_loss does (the same labels:
    tests/test_labels.py); or, for any other template, all that the answer adds to its inference
    prompt, up to the stop token.
    Raises LabelError when the contract cannot be kept, with the likely cause and what to do.
    """
    return encode_and_render(conversation, tokenizer, graded=graded, max_tokens=max_tokens)[0]


def encode_and_render(
    conversation: Conversation,
    tokenizer: PreTrainedTokenizerBase,
    *,
    graded: str = "assistant",
    max_tokens: int = 1024,
) -> tuple[Example, Rendered]:
    """`encode_conversation`, and the text that it encoded, with the places of its answers."""
    if graded not in POLICIES:
        raise ValueError(f"graded={graded!r}: choose one of {', '.join(POLICIES)}")
    turns = find_graded_turns(conversation, graded)
    problem = explain_tags(tokenizer, with_system=conversation[0].get("role") == "system")
    if problem:
        raise LabelError(problem)
    rendered = render_for_training(conversation, tokenizer, max_tokens=max_tokens)
    if len(rendered.ids) > max_tokens:
        raise LabelError(
            f"{len(rendered.ids)} tokens up to the end of the first answer, "
            f"max_tokens={max_tokens}: no answer fits whole. Raise max_tokens, or shorten "
            f"{conversation[0]['content'][:40]!r}"
        )
    if problem := explain_lost_turn(rendered, conversation, tokenizer):
        raise LabelError(problem)
    if graded == "all":
        example = Example(rendered.ids, list(rendered.ids))
    else:
        example = _grade(rendered, turns, tokenizer, graded)
        if not asks_as_taught(rendered, conversation, tokenizer):
            warnings.warn(
                "the tokenizer's chat template renders earlier answers otherwise than the "
                "training variant TRL bundles for it (Qwen3's drops their think blocks): later "
                "answers are taught one way and asked another. To ask as taught: "
                "tokenizer.chat_template = training_template(tokenizer), from sft_lab.labels",
                stacklevel=3,
            )
    check_labels(example, tokenizer)
    return example, rendered


def encode_conversations(
    conversations: Iterable[Conversation],
    tokenizer: PreTrainedTokenizerBase,
    *,
    graded: str = "assistant",
    max_tokens: int = 1024,
    source: str = "conversations",
) -> list[Example]:
    """`encode_conversation` for every row. Raises one LabelError that names all bad rows: "source,
    row 17: ...". A conversation that `load_conversations` has read is named by the row of its file,
    wherever it stands here."""
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
            problems.append(f"{getattr(conversation, 'place', f'{source}, row {row}')}: {error}")
    if problems:
        lines = [f"{source}: {len(problems)} rows cannot be graded"] if len(problems) > 1 else []
        raise LabelError("\n".join([*lines, list_problems(problems)]), problems)
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
    for position, (token_id, label) in enumerate(zip(ids, labels, strict=True)):
        if label not in (IGNORE_INDEX, token_id):
            raise LabelError(
                f"labels[{position}] is {label}, neither {IGNORE_INDEX} nor input_ids[{position}], "
                f"{token_id}: likely shifted by one (the loss shifts, labels do not)"
            )
    if all(label == IGNORE_INDEX for label in labels[1:]):
        raise LabelError(
            f"no token is graded ({len(ids)} tokens; the first is never predicted): likely "
            "truncation cut the answer away"
        )
    stop, pad = stop_token_id(tokenizer), tokenizer.pad_token_id
    # Where both are one token, a graded pad cannot be told from a graded stop token here; the run
    # in which it stands is then refused for its two stop tokens.
    if pad != stop and pad is not None and pad in labels:
        raise LabelError(
            f"labels[{labels.index(pad)}] grades the pad token {tokenizer.pad_token}: the model "
            "would learn to write padding. Likely labels are a copy of padded input_ids"
        )
    if list(labels) != list(ids):
        template = training_template(tokenizer)
        openings = _encode_openings(tokenizer, template, find_controls(tokenizer, template))
        for first, last in _find_runs(labels):
            _check_run(ids, first, last, stop, openings, tokenizer)
    elif stop not in ids:
        raise LabelError(
            "every token is graded, none is the stop token "
            f"{tokenizer.convert_ids_to_tokens(stop)}: the model never learns to stop"
        )


def _check_run(
    ids: list[int],
    first: int,
    last: int,
    stop: int,
    openings: list[list[int]],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Rules 1 and 2 for the graded tokens `first` to `last` - 1, which follow an ungraded one."""
    run, text = ids[first:last], repr(tokenizer.decode(ids[first:last])[-60:])
    name = tokenizer.convert_ids_to_tokens(stop)
    cause = ""
    if tokenizer.pad_token_id == stop:
        cause = (
            f". Likely cause: the pad token is the stop token {name}; what masks one masks "
            "both. Set another"
        )
    if stop not in run:
        raise LabelError(
            f"tokens {first} to {last - 1} are graded without a stop token {name} ({text}): "
            f"the model never learns to stop. {explain_missing_stop(run, tokenizer)}{cause}"
        )
    after = run.index(stop) + 1
    if stop in run[after:]:
        raise LabelError(
            f"tokens {first} to {last - 1} grade the stop token {name} twice ({text}): "
            f"likely padding or a later prompt is graded{cause}"
        )
    # White space may follow: some templates close the turn with a line break inside their tags.
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


def find_graded_turns(conversation: Conversation, graded: str = "assistant") -> dict[int, bool]:
    """The number of each answer's turn, from 1, and whether it is graded.

    Raises LabelError when none is, for a weight that is neither 0 nor 1 or is not an answer's, and
    for graded="all" with an answer that is not to be graded.
    """
    weights = {}
    for number, turn in enumerate(conversation, start=1):
        weight, answers = turn.get("weight"), turn.get("role") == "assistant"
        if weight not in (None, 0, 1) or weight and not answers:
            raise LabelError(
                f"turn {number}, {turn.get('role')}, has weight {weight!r}: an answer has 0 or 1"
            )
        if answers:
            weights[number] = weight != 0
    if not weights:
        raise LabelError(
            "the conversation has no answer (no assistant turn): there is nothing to grade"
        )
    if not any(weights.values()):
        raise LabelError("no answer is graded: each has weight 0. Drop the row")
    if graded == "all" and not all(weights.values()):
        raise LabelError(
            'graded="all" grades every token, but an answer has weight 0. Choose "assistant"'
        )
    return weights


def _grade(
    rendered: Rendered, turns: dict[int, bool], tokenizer: PreTrainedTokenizerBase, graded: str
) -> Example:
    """Labels that grade what the model writes in the answers that are to be graded, or in the last
    answer of all, graded="last".

    turns: the number of each answer's turn, from 1, and whether it is graded. Raises LabelError for
    an answer that does not follow its inference prompt, or of which the model would write nothing.
    """
    kept = list(zip(turns, turns.values(), rendered.starts, strict=False))  # less what is cut away
    if graded == "last":
        kept = [(turn, wanted and turn == kept[-1][0], start) for turn, wanted, start in kept]
    first_wanted = next((index for index, (_, wanted, _) in enumerate(kept) if wanted), None)
    if first_wanted is None:
        raise LabelError(
            "no answer is graded: those that max_tokens and graded leave have weight 0. Raise "
            "max_tokens, or drop the row"
        )
    # From the first graded answer on: a template may rewrite what is only read before it.
    answers = kept[first_wanted:]
    for turn, _, start in answers:
        if turn == 1:
            raise LabelError(
                "the first turn is an answer to nothing: restore the question or drop that turn"
            )
        if start is None:
            raise LabelError(rendered.differences.get(turn) or _explain_rewritten(turn))
    starts = [start for _, _, start in answers]
    # 1 for each character that is graded, 0 for the others, and one more for the end of the text.
    written = bytearray(len(rendered.text) + 1)
    for first, last in rendered.spans:
        # the answer that a span belongs to began before the span's end; a span may begin before it
        index = bisect_right(starts, last) - 1
        if index >= 0 and answers[index][1]:
            written[first:last] = b"\1" * (last - first)
    for turn, wanted, start in answers:
        if wanted and not written[start]:
            raise LabelError(_explain_unwritten(turn, training_template(tokenizer)))
    labels = [
        # A token with no character of its own, which a normalizer can make, counts where it stands.
        token_id if any(written[first : max(last, first + 1)]) else IGNORE_INDEX
        for token_id, (first, last) in zip(rendered.ids, rendered.offsets, strict=True)
    ]
    _check_known(rendered, labels, tokenizer)
    return Example(rendered.ids, labels)


def _check_known(rendered: Rendered, labels: list[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises LabelError for an answer that the model would learn to write with its unknown
    token."""
    for token, token_id in find_controls(tokenizer).unknown.items():
        if token_id in labels:
            first, last = rendered.offsets[labels.index(token_id)]
            raise LabelError(
                f"an answer holds {rendered.text[first:last]!r}, for which this tokenizer has no "
                f"token: the model would learn to write {token!r}. Remove it from the answer"
            )


def _explain_unwritten(turn: int, template: str) -> str:
    if not has_tags(template):
        return _explain_rewritten(turn)
    return (
        f"turn {turn}, an answer, lies outside the template's {{% generation %}} tags: it would "
        "not be graded. Put them around what the model writes, its stop token included"
    )


def _explain_rewritten(turn: int) -> str:
    return (
        f"the template renders turn {turn}, or what stands before it, otherwise once more turns "
        "follow, so it cannot be trained as it is asked (Qwen3's drops earlier reasoning). Grade "
        'the last answer only, graded="last", or use a template with {% generation %} tags that '
        "keeps the history as it was"
    )


def _find_runs(labels: list[int]) -> list[tuple[int, int]]:
    """(first, last + 1) of each unbroken run of graded tokens."""
    graded = [False, *(label != IGNORE_INDEX for label in labels), False]
    edges = [t for t in range(len(labels) + 1) if graded[t] != graded[t + 1]]
    return list(zip(edges[::2], edges[1::2], strict=True))


@lru_cache(maxsize=16)
def _encode_openings(
    tokenizer: PreTrainedTokenizerBase, template: str, controls: Controls
) -> list[list[int]]:
    """The ungraded ids between a question and its answer, with and without reasoning:
    "<|im_start|>assistant\\n". template, controls: those that the tokenizer is trained
    with (one in which they are exchanged has other openings)."""
    question, answer = find_neutral_texts(tokenizer, template)
    turns = [{"role": "user", "content": question}]
    asked = render_conversation(turns, tokenizer, template).ids
    openings, refusal = [], None
    for content in (f"<think>\n{answer}\n</think>\n\n{answer}", answer):
        answered = [*turns, {"role": "assistant", "content": content}]
        try:
            rendered = render_for_training(answered, tokenizer, max_tokens=sys.maxsize)
            example = _grade(rendered, {2: True}, tokenizer, "last")
        except ValueError as error:
            refusal = error
            continue  # a template without a place for reasoning, or for an answer without one
        # Templates may end a question otherwise once an answer follows, so we compare.
        ids = example.input_ids
        shared = next(t for t in range(len(ids)) if asked[t : t + 1] != ids[t : t + 1])
        openings.append(ids[shared : _find_runs(example.labels)[0][0]])
    if not openings:
        raise refusal
    return openings
