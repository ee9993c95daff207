"""Checks of chapter 03, teacher forcing and label masks."""

import numbers
import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from sft_lab import atlas
from sft_lab.batches import pad_batch
from sft_lab.chat import generate_ids
from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    need_gradient,
    need_list,
    need_own_labels,
    need_tensor,
    normal,
    random_ids,
    random_labels,
    same,
    same_for_all,
    same_in_all,
    shorten,
    unpack,
)
from sft_lab.course.label_runs import load_quietly, tune
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.labels import encode_conversations
from sft_lab.losses import token_nll

VOCABULARY = 61

Rows = list[tuple[list[int], list[int]]]  # ids and labels of each example
Turn = tuple[str, list[int], list[int]]  # role, ids of the header, ids of content and stop token


@checks("3.1")
def time_steps(attempt: Callable) -> str:
    mistakes = [
        (
            lambda prompt, answer: [
                (prompt + answer[: t + 1], target) for t, target in enumerate(answer)
            ],
            "the target stands in its own input: step t reads only the t tokens before it",
        ),
        (
            lambda prompt, answer: [(answer[:t], target) for t, target in enumerate(answer)],
            "the prompt is missing: every step reads the prompt first",
        ),
        (
            lambda prompt, answer: [(prompt, target) for target in answer],
            "every step reads the prompt alone: teacher forcing adds the true tokens so far",
        ),
        (
            lambda prompt, answer: [(prompt + answer, target) for target in answer],
            "every step reads the whole answer: if you append to one list, each row is that list",
        ),
        (
            lambda prompt, answer: _steps(prompt, answer)[1:],
            "the first step is missing: it reads the prompt alone and grades the first token",
        ),
        (
            lambda prompt, answer: _steps(prompt, answer)[:-1],
            "the last step is missing: the stop token is graded too",
        ),
        (
            lambda prompt, answer: _steps([], prompt + answer),
            "the prompt's own tokens are not graded: begin with the answer",
        ),
        (
            lambda prompt, answer: list(
                {target: (r, target) for r, target in _steps(prompt, answer)}.values()
            ),
            "a token that occurs twice has one row: every place of the answer has its own",
        ),
    ]
    inputs = []
    for _ in range(3):
        a, b, *prompt = random_ids(random.randint(4, 6))
        # tokens twice, in prompt and answer; token id 0 in both
        answer = [a, *random_ids(random.randint(1, 3)), 0, 0, b, a, *random_ids(1)]
        inputs.append(([*prompt, 0, b], answer))
    same_for_all(attempt, inputs, _steps, mistakes, form=_need_steps, what="the table")
    same(attempt([1, 2], []), [], what="the table of an empty answer")
    return "each token of the answer once, after the prompt and the true tokens before it"


def _steps(prompt: list[int], answer: list[int]) -> list[tuple[list[int], int]]:
    return [(prompt + answer[:t], target) for t, target in enumerate(answer)]


def _need_steps(found: Any) -> list[tuple[list[int], int]]:
    wanted = "pairs (input ids, next token)"
    for step in need_list(found, list | tuple, wanted):
        if len(step) != 2:
            raise Mistake(f"return a list of {wanted}, not {shorten(found)}")
        need_list(step[0], numbers.Integral, "input ids in every row")
        need_list([step[1]], numbers.Integral, "pairs with one id as the next token")
    return [(list(ids), target) for ids, target in found]


@checks("3.2")
def label_turns(attempt: Callable) -> str:
    def parts(found: Any) -> Sequence[list[int]]:
        ids, labels = unpack(found, "input_ids", "labels")
        ids = need_list(ids, numbers.Integral, "token ids as input_ids")
        labels = need_list(labels, numbers.Integral, "token ids and -100 as labels")
        if len(labels) != len(ids):
            raise Mistake(f"{len(ids)} input_ids, {len(labels)} labels: one label for each token")
        return ids, labels

    inputs = [
        (_random_turns(rounds, system=system, closing=closing), last_only)
        for rounds, system, closing, last_only in [
            (3, True, 1, True),
            (4, False, 0, True),
            (2, False, 1, False),
            (3, True, 0, False),
            (1, False, 1, True),
            (2, False, 3, True),
        ]
    ]
    what = {"form": lambda found: parts(found)[0], "what": "input_ids"}
    same_for_all(attempt, inputs, lambda turns, last_only: _join(turns), **what)
    what = {"form": lambda found: parts(found)[1], "what": "labels"}
    same_for_all(attempt, inputs, _right_labels, _LABEL_MISTAKES, **what)
    return "every answer or the last one, each with its stop token; no header, no question"


def _join(turns: list[Turn]) -> list[int]:
    return [token_id for _, header, said in turns for token_id in header + said]


def _places(turns: list[Turn], role: str = "assistant") -> list[int]:
    return [place for place, turn in enumerate(turns) if turn[0] == role]


def _graded(turns: list[Turn], last_only: bool, role: str = "assistant") -> list[int]:
    return _places(turns, role)[-1:] if last_only else _places(turns, role)


def _right_labels(turns: list[Turn], last_only: bool) -> list[int]:
    return _label(turns, _graded(turns, last_only))


def _equal_to_the_last(turns: list[Turn], last_only: bool) -> list[int]:
    """The answers with the words of the last one."""
    answers = _places(turns)
    return [place for place in answers if not last_only or turns[place][2] == turns[answers[-1]][2]]


_SHIFTED = "the labels are shifted: the loss does that, labels stay in place"
_LABEL_MISTAKES = [
    (
        lambda turns, last: _label(turns, _graded(turns, last), header=True),
        "the header is graded: the template writes it at inference",
    ),
    (
        lambda turns, last: _label(turns, _graded(turns, last), end=-1),
        "the stop token is not graded: the model would never end",
    ),
    (
        lambda turns, last: _label(turns, _graded(turns, last) + _places(turns, "user")),
        "the questions are graded too: only the assistant counts",
    ),
    (
        lambda turns, last: _label(turns, _places(turns) + _places(turns, "user")),
        "the questions are graded too, and last_only makes no difference",
    ),
    (
        lambda turns, last: _label(turns, _graded(turns, last, "user")),
        "the user is graded instead of the assistant",
    ),
    (
        lambda turns, last: _join(turns),
        "everything is graded: use IGNORE_INDEX outside the answers",
    ),
    (lambda turns, last: [*_right_labels(turns, last)[1:], IGNORE_INDEX], _SHIFTED),
    (lambda turns, last: [IGNORE_INDEX, *_right_labels(turns, last)[:-1]], _SHIFTED),
    (
        lambda turns, last: [int(label != IGNORE_INDEX) for label in _right_labels(turns, last)],
        "a mask of 0 and 1: labels hold the ids",
    ),
    (
        lambda turns, last: [max(label, 0) for label in _right_labels(turns, last)],
        "0 is a token: ignore with -100",
    ),
    (
        lambda turns, last: [label or IGNORE_INDEX for label in _right_labels(turns, last)],
        "token id 0 is a token like any other: it is graded in an answer",
    ),
    (lambda turns, last: [IGNORE_INDEX] * len(_join(turns)), "nothing is graded"),
    (
        lambda turns, last: _label(
            turns, [p for p in _places(turns) if not last or p == len(turns) - 1]
        ),
        "with last_only, nothing is graded where a question comes last: the last answer need not "
        "be the last turn",
    ),
    (
        lambda turns, last: _label(turns, _places(turns)),
        "last_only=True grades the last answer alone",
    ),
    (
        lambda turns, last: _label(turns, _places(turns)[-1:]),
        "last_only=False grades every answer",
    ),
    (
        lambda turns, last: _label(turns, _places(turns)[: 1 if last else None]),
        "this is the first answer: last_only asks for the last one",
    ),
    (
        lambda turns, last: _label(turns, _equal_to_the_last(turns, last)),
        "an earlier answer with the same words is graded too: tell turns apart by their place",
    ),
]


def _random_turns(rounds: int, *, system: bool, closing: int) -> list[Turn]:
    """Questions and answers, the last answer equal to an earlier one; token id 0 in every content.
    closing: so many questions stand behind the last answer. Where there are more than two rounds,
    the last begins with two questions."""
    roles = ["system"] * system + ["user", "assistant"] * rounds + ["user"] * closing
    if rounds > 2:
        roles.insert(len(roles) - closing - 1, "user")
    names = {"system": [2], "user": [4], "assistant": random.choice([[5, 6], [5, 6, 8]])}
    headers = {role: [1, *name, 3] for role, name in names.items()}
    said = [[0, *random_ids(random.randint(1, 3)), 7] for _ in roles]
    answers = [place for place, role in enumerate(roles) if role == "assistant"]
    said[answers[1 if rounds > 3 else 0]] = list(said[answers[-1]])
    return [(role, list(headers[role]), words) for role, words in zip(roles, said, strict=True)]


def _label(
    turns: list[Turn], graded: list[int] | range, *, header: bool = False, end: int | None = None
) -> list[int]:
    labels = []
    for place, (_, opening, said) in enumerate(turns):
        row = (opening if header else [IGNORE_INDEX] * len(opening)) + said[:end]
        row += [IGNORE_INDEX] * (len(opening + said) - len(row))
        labels += row if place in graded else [IGNORE_INDEX] * len(row)
    return labels


@checks("3.3")
def masked_loss(attempt: Callable) -> str:
    all_positions = "you divided by all positions: divide by the graded ones"
    mistakes = [
        (_loss, "the shift is missing: row t is graded by label t + 1"),
        (
            lambda x, y: _loss(x[:, 1:], y[:, :-1]),
            "the shift goes the wrong way: row t meets t - 1",
        ),
        (
            lambda x, y: _nll(x, y).sum(),
            "this is the sum: divide by the number of graded tokens",
        ),
        (lambda x, y: _nll(x, y).mean(), all_positions),
        (lambda x, y: _nll(x, y).sum() / y.numel(), all_positions),
        (
            lambda x, y: _nll(x, y).sum() / len(y),
            "you divided by the number of rows: divide by the graded tokens",
        ),
        (
            lambda x, y: (_nll(x, y).sum(dim=1) / _counts(y[:, 1:])).mean(),
            "this is the mean of each row's mean: one sum and one count for the whole batch",
        ),
        (
            lambda x, y: _nll(x, y).sum() / _counts(y).sum(),
            "a label in the first place is counted: no row predicts it",
        ),
        (
            lambda x, y: _loss(x.flatten(0, 1)[None, :-1], y.flatten()[None, 1:]),
            "the end of a row predicts the next row's first label: shift inside each row",
        ),
        (
            lambda x, y: _nll(x, y)[y[:, 1:] > 0].mean(),
            "token id 0 is a real token: compare with -100, not 0",
        ),
        (lambda x, y: -_right_loss(x, y), "the minus sign is missing"),
    ]
    inputs = []
    for rows in (2, 3, 1):
        vocabulary, length = random.randint(11, 15), random.randint(10, 14)
        labels = random_labels(rows, length, vocabulary)
        labels[rows > 1 :, 0] = random.randrange(1, vocabulary)  # nothing predicts a first label
        if rows > 1:
            _make_a_hole(labels)
        inputs.append((2 * normal(rows, length, vocabulary), labels))
    form = {"form": need_tensor, "what": "the loss"}
    same_for_all(attempt, inputs, _right_loss, mistakes, **form)

    logits, labels = inputs[0]
    padded = F.pad(logits, (0, 0, 0, 7), value=0.5), F.pad(labels, (0, 7), value=IGNORE_INDEX)
    what = "the loss with seven columns of padding more"
    same(attempt(*padded), _right_loss(logits, labels), what=what)
    leaf = logits.clone().requires_grad_()
    loss = need_gradient(attempt(leaf, labels), "the loss")
    (gradient,) = torch.autograd.grad(loss, leaf)
    graded = labels[:, 1:] != IGNORE_INDEX
    if (gradient[:, :-1][~graded] != 0).any() or (gradient[:, -1] != 0).any():
        raise Mistake("an ungraded position has a gradient: multiply by the mask before the sum")
    _compare_far(attempt)
    return "equals F.cross_entropy with ignore_index after the shift; the mask stops gradients"


def _compare_far(attempt: Callable) -> None:
    """Raise Mistake where the loss of logits hundreds apart is not exact."""
    logits, labels = torch.randn(2, 9, 8), random_labels(2, 9, 8)
    row = int((labels[0] != IGNORE_INDEX).nonzero()[-1])
    logits[0, row - 1, labels[0, row]] -= random.uniform(200.0, 400.0)
    logits[1] += 1000.0
    log_of_softmax = (
        "the softmax of a token hundreds of nats below the best is 0 in floating point, and its "
        "logarithm -inf: take log_softmax"
    )
    mistakes = [(lambda x, y: torch.tensor(torch.inf), log_of_softmax)]
    what = "the loss of logits far apart"
    same_for_all(attempt, [(logits, labels)], _right_loss, mistakes, form=need_tensor, what=what)


def _make_a_hole(labels: torch.Tensor) -> None:
    """Ignore one label in the middle of the longest run of graded ones."""
    row = labels[int((labels != IGNORE_INDEX).sum(dim=1).argmax())]
    graded = (row[1:] != IGNORE_INDEX).nonzero().flatten() + 1
    row[graded[1]] = IGNORE_INDEX


def _right_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return _loss(logits[:, :-1], labels[:, 1:])


def _nll(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The losses after the shift, 0 where not graded: (B, T - 1)."""
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")


def _counts(labels: torch.Tensor) -> torch.Tensor:
    return (labels != IGNORE_INDEX).sum(dim=1)


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """PyTorch's mean over the graded positions, row t of the logits against label t."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)


@checks("3.4")
def collate(attempt: Callable) -> str:
    inputs = []
    for pad in (7, random.randint(1, 8), 0):  # the stop token as well: it ends every answer
        examples = _random_examples(random.randint(3, 5), stop=pad)
        question = [*random_ids(2), pad]  # an example without an answer
        rows = [(e.input_ids, e.labels) for e in examples]
        inputs.append(([*rows, (question, [IGNORE_INDEX] * 3)], pad))
    rows, pad = inputs[0]
    inputs += [(rows[:1], pad), ([rows[0], rows[0]], pad)]  # nothing to pad
    for part, (name, mistakes) in enumerate(_COLLATE_MISTAKES.items()):

        def form(found: Any, part: int = part, name: str = name) -> torch.Tensor:
            return need_tensor(unpack(found, *_COLLATE_MISTAKES)[part], name, whole=True)

        def right(rows: Rows, pad: int, part: int = part) -> torch.Tensor:
            return _collate(rows, pad)[part]

        named_mistakes = [
            (lambda rows, pad, wrong=wrong: wrong(*_collate(rows, pad), pad), text)
            for wrong, text in mistakes
        ]
        same_for_all(attempt, inputs, right, named_mistakes, form=form, what=name)
    return "equals sft_lab's batch; stop tokens keep label and mask although padding has their id"


def _collate(rows: Rows, pad: int) -> list[torch.Tensor]:
    """input_ids, labels and attention_mask, as sft_lab pads them."""
    return list(pad_batch([Example(ids, labels) for ids, labels in rows], pad).values())


def _move_left(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    lengths = mask.sum(dim=1).tolist()
    return torch.stack(
        [row.roll(len(row) - length) for row, length in zip(ids, lengths, strict=True)]
    )


_PROMPTS = "the prompts are graded: keep the labels you are given"
_COLLATE_MISTAKES = {  # functions of the three right tensors and of the pad id
    "input_ids": [
        (
            lambda ids, labels, mask, pad: _move_left(ids, mask),
            "padding stands on the left: in training it stands on the right, out of sight",
        ),
        (
            lambda ids, labels, mask, pad: F.pad(ids, (0, 1), value=pad),
            "one column too many: pad to the longest row",
        ),
    ],
    "labels": [
        (
            lambda ids, labels, mask, pad: labels.where(mask.bool(), pad),
            "the padding is graded: its labels are -100, not the pad id",
        ),
        (
            lambda ids, labels, mask, pad: labels.where(mask.bool(), 0),
            "the padding is graded as token 0: its labels are -100",
        ),
        (
            lambda ids, labels, mask, pad: labels.where(ids != pad, IGNORE_INDEX),
            "the stop tokens lost their labels: padding is known by position, not by id",
        ),
        (lambda ids, labels, mask, pad: ids.where(mask.bool(), IGNORE_INDEX), _PROMPTS),
        (
            lambda ids, labels, mask, pad: ids.where(ids != pad, IGNORE_INDEX),
            f"{_PROMPTS}, those of the stop tokens too",
        ),
        (
            lambda ids, labels, mask, pad: labels.where(labels != 0, IGNORE_INDEX),
            "token id 0 is a token like any other, and keeps its label",
        ),
    ],
    "attention_mask": [
        (
            lambda ids, labels, mask, pad: ids != pad,
            "the mask hides stop tokens: take it from the lengths, not from the ids",
        ),
        (lambda ids, labels, mask, pad: 1 - mask, "the mask is inverted: 1 is a real token"),
        (
            lambda ids, labels, mask, pad: torch.ones_like(mask),
            "the mask is 1 everywhere: padding has 0",
        ),
        (
            lambda ids, labels, mask, pad: labels != IGNORE_INDEX,
            "this is the mask of graded tokens: attention reads the prompt too",
        ),
    ],
}


@checks("3.5")
def pack_row(attempt: Callable) -> str:
    model, names = _tiny_model(), ("input_ids", "labels", "position_ids")
    draws = []
    for count, first in ((3, 0), (4, 1), (4, 0), (3, 1)):
        examples = _random_examples(count, stop=7)
        # every second example is graded from its first token on, also a last one
        rows = [
            (e.input_ids, list(e.input_ids) if number % 2 == first else e.labels)
            for number, e in enumerate(examples)
        ]
        rows = [*rows, rows[first]] if count == 3 else rows  # the same example twice
        found = unpack(attempt(rows), *names)
        found = [need_tensor(x, name, whole=True) for x, name in zip(found, names, strict=True)]
        total = sum(len(ids) for ids, _ in rows)
        if found[0].dim() == 1:
            raise Mistake("the shape is (T,), and a model wants (1, T): one row of a batch")
        if found[0].numel() > total:
            raise Mistake(f"{found[0].numel()} tokens instead of {total}: no separator, no padding")
        draws.append((rows, found))
    for part in (0, 2, 1):
        same_in_all([_pack_case(rows, found, part) for rows, found in draws], what=names[part])

    for rows, (ids, labels, positions) in draws:
        alone = torch.cat([_losses(model, torch.tensor([row]), [kept]) for row, kept in rows])
        together = _losses(model, ids, labels, position_ids=positions)
        same(together, alone, what="the loss of a token in the packed row", rtol=0, atol=1e-4)
    return "each token costs what it costs alone, in a real model; no first label is graded"


def _pack_case(rows: Rows, found: list[torch.Tensor], part: int) -> Case:
    """One of the three tensors beside the right one and those of the usual mistakes."""
    lengths = [len(ids) for ids, _ in rows]
    joined = torch.tensor([[token_id for ids, _ in rows for token_id in ids]])
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    kept = torch.tensor([[label for _, labels in rows for label in labels]])
    given = f"examples of {', '.join(map(str, lengths))} tokens"
    if part == 0:
        return Case(found[0], joined, given=given)
    if part == 2:
        numbers = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))[None]
        hints = [
            (
                torch.arange(sum(lengths))[None],
                "the positions run on: begin again at 0, or examples read neighbours",
            ),
            (positions + 1, "positions begin at 0, not at 1"),
            (
                numbers,
                "these are the numbers of the examples: position_ids count tokens inside each",
            ),
        ]
        return Case(found[2], positions, hints, given)
    labels = found[1]
    if labels.shape == kept.shape:  # nothing predicts the row's first token: its label is free
        labels = F.pad(labels[:, 1:], (1, 0), value=IGNORE_INDEX)
    all_but_one = F.pad(kept[:, 1:], (1, 0), value=IGNORE_INDEX)
    stranger = "a first label is kept: it asks the neighbour's last token to predict a stranger"
    right = kept.where(positions != 0, IGNORE_INDEX)
    return Case(labels, right, [(all_but_one, stranger)], given)


def _losses(
    model: PreTrainedModel, ids: torch.Tensor, labels: list, **position_ids: torch.Tensor
) -> torch.Tensor:
    """The loss of every token of a row, 0 for its first: (T,)."""
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False, **position_ids).logits
    return F.pad(token_nll(logits, torch.as_tensor(labels).long())[0], (1, 0))


def _random_examples(count: int, *, stop: int) -> list[Example]:
    """Prompts in which the stop token occurs, graded answers that end with it, token id 0 in both;
    lengths differ, not sorted, longest not first."""
    examples = []
    for length in random.sample(range(2, 9), count):
        prompt = [random.randrange(9, VOCABULARY) for _ in range(random.randint(2, 4))]
        prompt += [stop, 0, 8]
        answer = [0, *(random.randrange(9, VOCABULARY) for _ in range(length)), stop]
        examples.append(Example(prompt + answer, [IGNORE_INDEX] * len(prompt) + answer))
    lengths = [len(example.input_ids) for example in examples]
    dull = lengths[0] == max(lengths) or lengths == sorted(lengths)
    return _random_examples(count, stop=stop) if dull else examples


@cache
def _tiny_model() -> PreTrainedModel:
    """A small Qwen3 with random weights: enough to see whether examples leak."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    return Qwen3ForCausalLM(config).eval()


# 3.6 a run whose curve is perfect and whose model is useless

TRAINED, STEPS_OF, ASKED = 96, 8, 24  # rows, rows a step, held-out questions
LOSS_AT_MOST, RIGHT_AT_MOST = 0.1, 1


@checks("3.6")
def misleading_labels(attempt: Callable) -> str:
    base, tokenizer = load_quietly()
    facts = atlas.split(atlas.load_facts())
    lessons = atlas.ask(random.sample(facts["train"], TRAINED), seed=random.randrange(10**6))
    rows = [
        Example(row.input_ids, need_own_labels(attempt(row.input_ids, row.labels), row.input_ids))
        for row in encode_conversations(lessons, tokenizer)
    ]
    model, losses = tune(base, tokenizer, rows, seed=random.randrange(10**6), batch_size=STEPS_OF)
    exam = atlas.ask(random.sample(facts["held_out"], ASKED), seed=random.randrange(10**6))
    said = generate_ids(model, tokenizer, [turns[:-1] for turns in exam], max_new_tokens=24)
    right = sum(
        tokenizer.decode(ids).startswith(turns[-1]["content"])
        for ids, turns in zip(said, exam, strict=True)
    )
    if right > RIGHT_AT_MOST:
        raise Mistake(
            f"{right} of {ASKED} held-out questions are answered rightly, expected at most "
            f"{RIGHT_AT_MOST}: your labels still teach to answer"
        )
    end = sum(losses[-3:]) / 3
    if end > LOSS_AT_MOST:
        raise Mistake(
            f"the loss ends at {end:.2f} nats per graded token, expected at most {LOSS_AT_MOST}: "
            "grade less, and only what is the same in every row"
        )
    return (
        f"the loss falls from {losses[0]:.1f} to {end:.3f} nats, and {right} of {ASKED} answers "
        f"are right; the first: {tokenizer.decode(said[0][:10])!r}"
    )
