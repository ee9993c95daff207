"""Checks of chapter 03, teacher forcing and label masks."""

import random
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from sft_lab.batches import pad_batch
from sft_lab.course.exercises.kit import (
    Hints,
    Mistake,
    checks,
    named,
    need_gradient,
    normal,
    random_ids,
    random_labels,
    same,
    shorten,
    unpack,
)
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.losses import token_nll

VOCABULARY = 61

Turn = tuple[str, list[int], list[int]]  # role, ids of the header, ids of content and stop token


@checks("3.1")
def time_steps(attempt: Callable) -> str:
    tokens = random_ids(random.randint(9, 14))
    cut = random.randint(3, 5)
    prompt, answer = tokens[:cut], tokens[cut:]
    expected = [(prompt + answer[:t], target) for t, target in enumerate(answer)]
    found = attempt(prompt, answer)
    wanted = f"return a list of pairs (input ids, next token), not {shorten(found)}"
    with named(TypeError, wanted), named(ValueError, wanted):
        found = [(list(ids), int(target)) for ids, target in found]

    peeks = [(prompt + answer[: t + 1], target) for t, target in enumerate(answer)]
    no_prompt = [(answer[:t], target) for t, target in enumerate(answer)]
    of_prompt = [(prompt[:t], target) for t, target in enumerate(prompt)]
    prompt_alone = "every step reads the prompt alone: teacher forcing adds the true tokens so far"
    one_list = "every step reads the whole answer: if you append to one list, each row is that list"
    no_first = "the first step is missing: it reads the prompt alone and grades the first token"
    hints = [
        (peeks, "the target stands in its own input: step t reads only the t tokens before it"),
        (no_prompt, "the prompt is missing: every step reads the prompt first"),
        ([(prompt, target) for target in answer], prompt_alone),
        ([(prompt + answer, target) for target in answer], one_list),
        (expected[1:], no_first),
        (expected[:-1], "the last step is missing: the stop token is graded too"),
        (of_prompt + expected, "the prompt's own tokens are not graded: begin with the answer"),
    ]
    same(found, expected, hints, what="the table")
    same(attempt(prompt, []), [], what="the table of an empty answer")
    return "each token of the answer once, after the prompt and the true tokens before it"


@checks("3.2")
def label_turns(attempt: Callable) -> str:
    for closing, last_only in ((True, False), (True, True), (False, False), (False, True)):
        turns = _random_turns(random.randint(2, 3), closing)
        ids = [token_id for _, header, said in turns for token_id in header + said]
        found_ids, labels = unpack(attempt(turns, last_only), "input_ids", "labels")
        same(found_ids, ids, what="input_ids")
        if len(labels) != len(ids):
            raise Mistake(f"{len(ids)} input_ids, {len(labels)} labels: one label for each token")
        roles = [role for role, _, _ in turns]
        answers = [place for place, role in enumerate(roles) if role == "assistant"]
        graded = answers[-1:] if last_only else answers
        hints = _label_hints(turns, graded, answers, last_only)
        same(list(labels), _label(turns, graded), hints, what="labels")
    return "every answer or the last one, each with its stop token; no header, no question"


def _label_hints(
    turns: list[Turn], graded: list[int], answers: list[int], last_only: bool
) -> Hints:
    expected = _label(turns, graded)
    everything = _label(turns, range(len(turns)), header=True)
    users = [place for place, (role, _, _) in enumerate(turns) if role == "user"]
    header = "the header is graded: the template writes it at inference"
    shifted = "the labels are shifted: the loss does that, labels stay in place"
    policy = "last_only=False grades every answer"
    nothing = "nothing is graded"
    if last_only:
        policy = "last_only=True grades the last answer alone"
        nothing += ": the last answer need not be the last turn"
    return [
        (_label(turns, graded, header=True), header),
        (_label(turns, graded, end=-1), "the stop token is not graded: the model would never end"),
        (_label(turns, graded + users), "the questions are graded too: only the assistant counts"),
        (_label(turns, users), "the user is graded instead of the assistant"),
        (everything, "everything is graded: use IGNORE_INDEX outside the answers"),
        (expected[1:] + [IGNORE_INDEX], shifted),
        ([IGNORE_INDEX, *expected[:-1]], shifted),
        ([int(x != IGNORE_INDEX) for x in expected], "a mask of 0 and 1: labels hold the ids"),
        ([max(label, 0) for label in expected], "0 is a token: ignore with -100"),
        ([IGNORE_INDEX] * len(expected), nothing),
        (_label(turns, answers if last_only else answers[-1:]), policy),
        (_label(turns, answers[:1]), "this is the first answer: last_only asks for the last one"),
    ]


def _random_turns(rounds: int, closing: bool) -> list[Turn]:
    """At least two answers; closing: a question stands behind the last one."""
    roles = ["system"] * random.randint(0, 1) + ["user", "assistant"] * rounds + ["user"] * closing
    headers = {"system": [1, 2, 3], "user": [1, 4, 3], "assistant": [1, 5, 3]}
    return [(role, headers[role], [*random_ids(random.randint(2, 4)), 7]) for role in roles]


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
    vocabulary, length = random.randint(11, 15), random.randint(10, 14)
    logits, labels = 2 * normal(2, length, vocabulary), random_labels(2, length, vocabulary)
    nll = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")
    graded = labels[:, 1:] != IGNORE_INDEX
    expected = _loss(logits[:, :-1], labels[:, 1:])
    each_row = nll.sum(dim=1) / graded.sum(dim=1)
    all_positions = "you divided by all positions: divide by the graded ones"
    mean_of_means = "this is the mean of each row's mean: one sum and one count for the whole batch"
    hints = [
        (_loss(logits, labels), "the shift is missing: row t is graded by label t + 1"),
        (_loss(logits[:, 1:], labels[:, :-1]), "the shift goes the wrong way: row t meets t - 1"),
        (nll.sum(), "this is the sum: divide by the number of graded tokens"),
        (nll.mean(), all_positions),
        (nll.sum() / labels.numel(), all_positions),
        (nll.sum() / 2, "you divided by the number of rows: divide by the graded tokens"),
        (each_row.mean(), mean_of_means),
        (nll[labels[:, 1:] > 0].mean(), "token id 0 is a real token: compare with -100, not 0"),
        (-expected, "the minus sign is missing"),
    ]
    same(attempt(logits, labels), expected, hints, what="the loss")

    padded = F.pad(logits, (0, 0, 0, 7), value=0.5), F.pad(labels, (0, 7), value=IGNORE_INDEX)
    same(attempt(*padded), expected, what="the loss with seven columns of padding more")
    leaf = logits.clone().requires_grad_()
    loss = need_gradient(attempt(leaf, labels), "the loss")
    (gradient,) = torch.autograd.grad(loss, leaf)
    if (gradient[:, :-1][~graded] != 0).any() or (gradient[:, -1] != 0).any():
        raise Mistake("an ungraded position has a gradient: multiply by the mask before the sum")
    return "equals F.cross_entropy with ignore_index after the shift; the mask stops gradients"


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """PyTorch's mean over the graded positions, row t of the logits against label t."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)


@checks("3.4")
def collate(attempt: Callable) -> str:
    pad = 7  # the stop token as well: it ends every answer
    examples = _random_examples(random.randint(3, 5), stop=pad)
    expected = pad_batch(examples, pad)
    found = attempt([(e.input_ids, e.labels) for e in examples], pad)
    found = map(torch.as_tensor, unpack(found, *expected))
    for (name, right), value in zip(expected.items(), found, strict=True):
        if value.shape != right.shape:
            raise Mistake(
                f"{name} has shape {tuple(value.shape)}, expected {tuple(right.shape)}: pad to "
                "the longest row"
            )
        same(value, right, _padding_hints(expected, pad)[name], what=name)
    return "equals sft_lab's batch; stop tokens keep label and mask although padding has their id"


def _padding_hints(expected: dict[str, torch.Tensor], pad: int) -> dict[str, Hints]:
    ids, labels, real = (expected[name] for name in ("input_ids", "labels", "attention_mask"))
    real, by_id = real.bool(), ids != pad
    lengths = real.sum(dim=1)
    on_the_left = torch.stack(
        [row.roll(len(row) - int(length)) for row, length in zip(ids, lengths, strict=True)]
    )
    left = "padding stands on the left: in training it stands on the right, out of sight"
    no_stops = "the stop tokens lost their labels: padding is known by position, not by id"
    prompts = "the prompts are graded: keep the labels you are given"
    graded_alone = "this is the mask of graded tokens: attention reads the prompt too"
    return {
        "input_ids": [(on_the_left, left)],
        "labels": [
            (labels.where(real, pad), "the padding is graded: its labels are -100, not the pad id"),
            (labels.where(real, 0), "the padding is graded as token 0: its labels are -100"),
            (labels.where(by_id, IGNORE_INDEX), no_stops),
            (ids.where(real, IGNORE_INDEX), prompts),
            (ids.where(by_id, IGNORE_INDEX), f"{prompts}, those of the stop tokens too"),
        ],
        "attention_mask": [
            (by_id, "the mask hides stop tokens: take it from the lengths, not from the ids"),
            (~real, "the mask is inverted: 1 is a real token"),
            (torch.ones_like(real), "the mask is 1 everywhere: padding has 0"),
            (labels != IGNORE_INDEX, graded_alone),
        ],
    }


@checks("3.5")
def pack_row(attempt: Callable) -> str:
    model = _tiny_model()
    for _ in range(3):
        examples = _random_examples(random.randint(3, 4), stop=7)
        # every second example is graded from its first token on
        rows = [
            (e.input_ids, list(e.input_ids) if number % 2 else e.labels)
            for number, e in enumerate(examples)
        ]
        found = unpack(attempt(rows), "input_ids", "labels", "position_ids")
        ids, labels, positions = map(torch.as_tensor, found)
        joined = [token_id for row, _ in rows for token_id in row]
        if ids.dim() == 1:
            raise Mistake("the shape is (T,), and a model wants (1, T): one row of a batch")
        if ids.numel() > len(joined):
            raise Mistake(
                f"{ids.numel()} tokens instead of {len(joined)}: no separator, no padding"
            )
        same(ids, [joined], what="input_ids")
        _compare_positions(positions, [len(row) for row, _ in rows])
        kept = torch.tensor([[label for _, row in rows for label in row]])
        stranger = "a first label is kept: it asks the neighbour's last token to predict a stranger"
        all_but_one = F.pad(kept[:, 1:], (1, 0), value=IGNORE_INDEX)
        right = kept.where(positions != 0, IGNORE_INDEX)
        same(labels, right, [(kept, stranger), (all_but_one, stranger)], what="labels")

        alone = torch.cat([_losses(model, torch.tensor([ids]), [labels]) for ids, labels in rows])
        together = _losses(model, ids, labels, position_ids=positions)
        same(together, alone, what="the loss of a token in the packed row", rtol=0, atol=1e-4)
    return "each token costs what it costs alone, in a real model; no first label is graded"


def _compare_positions(positions: torch.Tensor, lengths: list[int]) -> None:
    expected = torch.cat([torch.arange(length) for length in lengths])[None]
    numbers = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))[None]
    run_on = torch.arange(sum(lengths))[None]
    hints = [
        (run_on, "the positions run on: begin again at 0, or examples read neighbours"),
        (expected + 1, "positions begin at 0, not at 1"),
        (numbers, "these are the numbers of the examples: position_ids count tokens inside each"),
    ]
    same(positions, expected, hints, what="position_ids")


def _losses(
    model: PreTrainedModel, ids: torch.Tensor, labels: list, **position_ids: torch.Tensor
) -> torch.Tensor:
    """The loss of every token of a row, 0 for its first: (T,)."""
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False, **position_ids).logits
    return F.pad(token_nll(logits, torch.as_tensor(labels))[0], (1, 0))


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
