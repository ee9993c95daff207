"""Checks of chapter 03, teacher forcing and label masks."""

import copy
import random
from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from sft_lab.batches import pad_batch
from sft_lab.course.checks import Mistake, checks, same
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.losses import token_nll

VOCABULARY = 61


def _keep_input(attempt: Callable, *given: object) -> object:
    """What the attempt returns; Mistake when it changes what it was given."""
    before = copy.deepcopy(given)
    found = attempt(*given)
    if given != before:
        raise Mistake(
            "your function changed its input (append, += or an assignment to an item): make new "
            "lists"
        )
    return found


def _unpack(found: object, names: str) -> list[torch.Tensor]:
    """Tensors of a tuple with one part for each name."""
    if not isinstance(found, tuple | list) or len(found) != len(names.split(", ")):
        raise Mistake(f"{len(names.split(', '))} things are wanted: return {names}")
    return [torch.as_tensor(value) for value in found]


def _compare(
    found: object, expected: object, mistakes: Sequence[tuple[object, str]], what: str
) -> None:
    """`same`, with the exact values that mistakes give, of which some may happen to be right."""
    for wrong, mistake in mistakes:
        if _equal(found, wrong) and not _equal(found, expected):
            raise Mistake(mistake)
    same(found, expected, what=what)


def _equal(one: object, other: object) -> bool:
    return torch.equal(one, other.long()) if torch.is_tensor(other) else one == other


@checks("3.1")
def _time_steps(attempt):
    tokens = random.sample(range(1, 900), random.randint(9, 14))
    cut = random.randint(3, 5)
    prompt, answer = tokens[:cut], tokens[cut:]
    expected = [(prompt + answer[:t], target) for t, target in enumerate(answer)]
    found = _keep_input(attempt, prompt, answer)
    try:
        found = [(list(ids), int(target)) for ids, target in found]
    except (TypeError, ValueError):
        raise Mistake(
            f"a list of pairs (input ids, next token) is wanted, not {str(found)[:60]}"
        ) from None
    _compare(
        found,
        expected,
        (
            (
                [(prompt + answer[: t + 1], target) for t, target in enumerate(answer)],
                "the target stands in its own input: step t reads only the t tokens before it",
            ),
            (
                [(answer[:t], target) for t, target in enumerate(answer)],
                "the prompt is missing: every step reads the prompt first",
            ),
            (
                [(prompt, target) for target in answer],
                "every step reads the prompt alone: teacher forcing adds the true tokens so far",
            ),
            (
                [(prompt + answer, target) for target in answer],
                "every step reads the whole answer: if you append to one list, all rows are "
                "that list",
            ),
            (
                expected[1:],
                "the first step is missing: it reads the prompt alone and grades the first token",
            ),
            (expected[:-1], "the last step is missing: the stop token is graded too"),
            (
                [(prompt[:t], target) for t, target in enumerate(prompt)] + expected,
                "the prompt's own tokens are not graded: begin with the first token of the answer",
            ),
        ),
        "the table",
    )
    same(attempt(prompt, []), [], what="the table of an empty answer")
    return "each token of the answer once, after the prompt and the true tokens before it"


@checks("3.2")
def _label_turns(attempt):
    for closing, last_only in ((True, False), (True, True), (False, False), (False, True)):
        turns = _random_turns(random.randint(2, 3), closing)
        places = {
            role: [i for i, turn in enumerate(turns) if turn[0] == role]
            for role in ("user", "assistant")
        }
        answers = places["assistant"]
        graded = answers[-1:] if last_only else answers
        expected, ids = _labels(turns, graded), _labels(turns, list(range(len(turns))), header=True)
        found = _keep_input(attempt, turns, last_only)
        _unpack(found, "input_ids, labels")
        labels = list(found[1])
        same(list(found[0]), ids, what="input_ids")
        if len(labels) != len(ids):
            raise Mistake(
                f"{len(ids)} input_ids but {len(labels)} labels: one label for each token"
            )
        nothing = ": the last answer need not be the last turn" if last_only and closing else ""
        policy = (
            "last_only=True grades the last answer alone"
            if last_only
            else "last_only=False grades every answer"
        )
        _compare(
            labels,
            expected,
            (
                (
                    _labels(turns, graded, header=True),
                    "the header is graded: the template writes it at inference",
                ),
                (
                    _labels(turns, graded, end=-1),
                    "the stop token is not graded: the model would never learn to end",
                ),
                (
                    _labels(turns, graded + places["user"]),
                    "the questions are graded too: only the assistant's turns count",
                ),
                (_labels(turns, places["user"]), "the user is graded instead of the assistant"),
                (ids, "everything is graded: use IGNORE_INDEX outside the answers"),
                (
                    expected[1:] + [IGNORE_INDEX],
                    "the labels are shifted: the loss does that, labels stay in place",
                ),
                (
                    [IGNORE_INDEX, *expected[:-1]],
                    "the labels are shifted: the loss does that, labels stay in place",
                ),
                (
                    [int(label != IGNORE_INDEX) for label in expected],
                    "this is a mask of 0 and 1: labels hold the ids",
                ),
                ([max(label, 0) for label in expected], "0 is a token: ignore with -100"),
                ([IGNORE_INDEX] * len(ids), "nothing is graded" + nothing),
                (_labels(turns, answers if last_only else answers[-1:]), policy),
                (
                    _labels(turns, answers[:1]),
                    "this is the first answer: last_only asks for the last one",
                ),
            ),
            "labels",
        )
    return "every answer or the last one, each with its stop token; no header, no question"


def _random_turns(rounds: int, closing: bool) -> list[tuple[str, list[int], list[int]]]:
    """At least two answers; closing: a question stands behind the last one."""
    roles = ["system"] * random.randint(0, 1) + ["user", "assistant"] * rounds + ["user"] * closing
    headers = {"system": [1, 2, 3], "user": [1, 4, 3], "assistant": [1, 5, 3]}
    return [
        (role, headers[role], [*random.sample(range(9, 900), random.randint(2, 4)), 7])
        for role in roles
    ]


def _labels(
    turns: list, graded: list[int], *, header: bool = False, end: int | None = None
) -> list[int]:
    labels = []
    for place, (_, opening, said) in enumerate(turns):
        row = (opening if header else [IGNORE_INDEX] * len(opening)) + said[:end]
        row += [IGNORE_INDEX] * (len(opening + said) - len(row))
        labels += row if place in graded else [IGNORE_INDEX] * len(row)
    return labels


@checks("3.3")
def _masked_loss(attempt):
    vocabulary, longest = random.randint(11, 15), random.randint(9, 12)
    logits = 2 * torch.randn(2, longest, vocabulary, dtype=torch.float64)
    labels = torch.full((2, longest), IGNORE_INDEX)
    labels[0, 2:] = torch.randint(1, vocabulary, (longest - 2,))
    labels[1, 4:6] = torch.randint(
        1, vocabulary, (2,)
    )  # rows of different lengths: means of means differ
    labels[0, 3] = labels[1, 5] = 0  # token id 0 is a token
    given = logits.clone()
    expected = _reference_loss(logits, labels)
    ce = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    graded = labels[:, 1:] != IGNORE_INDEX
    found = torch.as_tensor(attempt(logits, labels))
    if not torch.equal(logits, given):
        raise Mistake("your function changed the logits in place: work on a copy")
    hints = {
        F.cross_entropy(
            logits.flatten(0, 1), labels.flatten()
        ): "the shift is missing: row t is graded by label t + 1",
        F.cross_entropy(
            logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten()
        ): "the shift goes the wrong way: row t meets label t - 1",
        ce.sum(): "this is the sum: divide by the number of graded tokens",
        ce.sum() / graded.numel(): "you divided by all positions: divide by the graded ones",
        ce.sum() / labels.numel(): "you divided by all positions: divide by the graded ones",
        ce.sum() / 2: "you divided by the number of rows: divide by the graded tokens",
        (
            ce.sum(dim=1) / graded.sum(dim=1)
        ).mean(): "this is the mean of each row's mean: one sum and one count for the whole batch",
        ce[labels[:, 1:] > 0].mean(): "token id 0 is a real token: compare with -100, not with 0",
        -expected: "the minus sign is missing",
    }
    same(
        found,
        expected,
        what="the loss",
        hints={value.item(): text for value, text in hints.items()},
    )
    more = F.pad(logits, (0, 0, 0, 7), value=0.5), F.pad(labels, (0, 7), value=IGNORE_INDEX)
    same(attempt(*more), expected, what="the loss with seven columns of padding more")
    leaf = logits.clone().requires_grad_()
    loss = attempt(leaf, labels)
    if not (torch.is_tensor(loss) and loss.requires_grad):
        raise Mistake("the loss has no gradient: stay with tensors, without .item() or detach()")
    (gradient,) = torch.autograd.grad(loss, leaf)
    if (gradient[:, :-1][~graded] != 0).any() or (gradient[:, -1] != 0).any():
        raise Mistake("an ungraded position has a gradient: multiply by the mask before the sum")
    return (
        "equals F.cross_entropy with ignore_index after the shift; padding changes nothing; "
        "the mask stops gradients"
    )


def _reference_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX
    )


@checks("3.4")
def _collate(attempt):
    pad = 7  # the stop token as well: it ends every answer
    rows = [(e.input_ids, e.labels) for e in _random_examples(random.randint(3, 5), stop=pad)]
    expected = pad_batch([Example(*row) for row in rows], pad)
    ids, labels, mask = _unpack(
        _keep_input(attempt, rows, pad), "input_ids, labels, attention_mask"
    )
    for name, value in (("input_ids", ids), ("labels", labels), ("attention_mask", mask)):
        if value.shape != expected[name].shape:
            raise Mistake(
                f"{name} has shape {tuple(value.shape)}, expected {tuple(expected[name].shape)}: "
                "pad to the longest row"
            )
    real = expected["attention_mask"].bool()
    if torch.equal(mask.bool().sum(dim=1), real.sum(dim=1)) and not mask[:, 0].bool().all():
        raise Mistake(
            "padding stands on the left: in training it stands on the right, where no graded "
            "token sees it"
        )
    same(ids, expected["input_ids"], what="input_ids")
    by_id = expected["input_ids"] != pad
    _compare(
        labels,
        expected["labels"],
        (
            (
                torch.where(real, expected["labels"], pad),
                "the padding is graded: its labels are -100, not the pad id",
            ),
            (
                torch.where(real, expected["labels"], 0),
                "the padding is graded as token 0: its labels are -100",
            ),
            (
                torch.where(by_id, expected["labels"], IGNORE_INDEX),
                "the stop tokens lost their labels: padding is known by position, not by id",
            ),
            (
                torch.where(real, expected["input_ids"], IGNORE_INDEX),
                "the prompts are graded: keep the labels you are given",
            ),
            (
                torch.where(by_id, expected["input_ids"], IGNORE_INDEX),
                "the prompts are graded, and the stop tokens are "
                "not: keep the labels you are given",
            ),
        ),
        "labels",
    )
    _compare(
        mask.long(),
        expected["attention_mask"],
        (
            (by_id, "the mask hides stop tokens: take it from the lengths, not from the ids"),
            (~real, "the mask is inverted: 1 is a real token"),
            (torch.ones_like(real), "the mask is 1 everywhere: padding has 0"),
            (
                expected["labels"] != IGNORE_INDEX,
                "this is the mask of graded tokens: attention reads the prompt too",
            ),
        ),
        "attention_mask",
    )
    return "equals sft_lab's batch; stop tokens keep label and mask although padding has their id"


@checks("3.5")
def _pack_row(attempt):
    model = _tiny_model()
    for _ in range(3):
        rows = [(e.input_ids, e.labels) for e in _random_examples(random.randint(3, 4), stop=7)]
        rows = [
            (ids, list(ids)) if number % 2 else (ids, labels)
            for number, (ids, labels) in enumerate(rows)
        ]
        ids, labels, positions = _unpack(
            _keep_input(attempt, rows), "input_ids, labels, position_ids"
        )
        joined = [index for row, _ in rows for index in row]
        if ids.dim() == 1:
            raise Mistake("the shape is (T,), and a model wants (1, T): one row of a batch")
        if ids.numel() > len(joined):
            raise Mistake(
                f"{ids.numel()} tokens, but the examples have {len(joined)}: add no separator "
                "and no padding"
            )
        same(ids, [joined], what="input_ids")
        _check_positions(positions, [len(row) for row, _ in rows])
        kept = torch.tensor([[label for _, row in rows for label in row]])
        right = torch.where(positions == 0, IGNORE_INDEX, kept)
        stranger = "a first label is kept: it asks the neighbour's last token to predict a stranger"
        but_one = F.pad(kept[:, 1:], (1, 0), value=IGNORE_INDEX)
        _compare(labels, right, ((kept, stranger), (but_one, stranger)), "labels")
        alone = torch.cat([_alone(model, *row) for row in rows])
        with torch.no_grad():
            together = token_nll(
                model(input_ids=ids, position_ids=positions, use_cache=False).logits, labels
            )[0]
        same(together, alone[1:], what="the loss of a token in the packed row", rtol=0, atol=1e-4)
    return "each token costs what it costs alone, in a real model; no first label is graded"


def _check_positions(positions: torch.Tensor, lengths: list[int]) -> None:
    expected = torch.tensor([[place for length in lengths for place in range(length)]])
    _compare(
        positions,
        expected,
        (
            (
                torch.arange(expected.numel())[None],
                "the positions run on: begin again at 0, or examples read neighbours",
            ),
            (expected + 1, "positions begin at 0, not at 1"),
            (
                torch.tensor(
                    [[number for number, length in enumerate(lengths) for _ in range(length)]]
                ),
                "these are the numbers of the examples: position_ids count tokens inside each",
            ),
        ),
        "position_ids",
    )


def _alone(model: PreTrainedModel, ids: list[int], labels: list[int]) -> torch.Tensor:
    """The loss of every token of an example, 0 for its first: (T,)."""
    with torch.no_grad():
        nll = token_nll(
            model(input_ids=torch.tensor([ids]), use_cache=False).logits, torch.tensor([labels])
        )[0]
    return F.pad(nll, (1, 0))


def _random_examples(count: int, *, stop: int) -> list[Example]:
    """Prompts in which the stop token occurs, graded answers that end with it; lengths differ,
    longest not first."""
    examples = []
    for length in random.sample(range(2, 9), count):
        prompt = [random.randrange(9, VOCABULARY) for _ in range(random.randint(2, 4))] + [stop, 8]
        answer = [random.randrange(9, VOCABULARY) for _ in range(length)] + [stop]
        examples.append(Example(prompt + answer, [IGNORE_INDEX] * len(prompt) + answer))
    lengths = [len(example.input_ids) for example in examples]
    short = len(set(lengths)) < 2 or lengths[0] == max(lengths)
    return _random_examples(count, stop=stop) if short else examples


@cache
def _tiny_model() -> PreTrainedModel:
    """A small Qwen3 with random weights: enough to see whether examples leak."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    sizes |= {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "max_position_embeddings": 256,
    }
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, initializer_range=0.3)).eval()
    torch.set_rng_state(state)
    return model
