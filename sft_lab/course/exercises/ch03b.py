"""Checks of chapter 03b, to mask the prompt or not."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_gradient,
    need_number,
    need_own_labels,
    need_tensor,
    need_word,
    normal,
    same_for_all,
)
from sft_lab.course.label_runs import load_quietly, tune
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.labels import encode_conversations
from sft_lab.rendering import encode_text, stop_token_id
from sft_lab.significance import FLOORS, VERDICTS, judge_claim

# 3b.1 the weight of a token of the prompt


@checks("3b.1")
def weight_for_share(attempt: Callable) -> str:
    draws = [([100, 20], [10, 10], 0.5), ([40], [10], 0.01), ([5, 5], [60, 20], 0.9)]
    for _ in range(4):
        rows = random.randint(2, 6)
        prompts = [random.randint(5, 200) for _ in range(rows)]
        answers = [random.randint(3, 90) for _ in range(rows)]
        draws.append((prompts, answers, random.uniform(0.05, 0.95)))
    mistakes = [
        (
            lambda p, a, s: sum(_weight([x], [y], s) for x, y in zip(p, a, strict=True)) / len(p),
            "this is the mean of one weight a row: sum the tokens of all rows first",
        ),
        (
            lambda p, a, s: _weight(a, p, s),
            "prompts and answers are exchanged: it is the prompt's token that weighs w",
        ),
        (
            lambda p, a, s: s * sum(a) / sum(p),
            "the whole is more than the answers: the prompts' own weight belongs to it",
        ),
        (
            lambda p, a, s: s * sum(p) / (s * sum(p) + sum(a)),
            "this is the share that a weight gives; asked for is the weight that gives a share",
        ),
        (lambda p, a, s: _weight(p, a, 1 - s), "this gives the share to the answers"),
        (lambda p, a, s: 1 / _weight(p, a, s), "upside down: this is an answer's weight"),
        (lambda p, a, s: s, "the share is not the weight: prompts and answers differ in length"),
    ]
    same_for_all(attempt, draws, _weight, mistakes, form=need_number, what="the weight")
    return "the weight with which all prompts together have the share that is asked for"


def _weight(prompts: Sequence[int], answers: Sequence[int], share: float) -> float:
    return share / (1 - share) * sum(answers) / sum(prompts)


# 3b.2 the loss with a weight on the prompt


@checks("3b.2")
def prompt_weighted_loss(attempt: Callable) -> str:
    mistakes = [
        (
            lambda z, x, y, w: _mean(z, x, _weights(y, w), by=lambda a: a.numel()),
            "you divided by the number of tokens: divide by the sum of the weights",
        ),
        (
            lambda z, x, y, w: _mean(
                z, x, _weights(y, w), by=lambda _: (y[:, 1:] != IGNORE_INDEX).sum()
            ),
            "you divided by the number of graded tokens: divide by the sum of the weights",
        ),
        (
            lambda z, x, y, w: _mean(z, x, (y[:, 1:] != IGNORE_INDEX).double()),
            "the prompt has no weight: its tokens count `weight` times",
        ),
        (
            lambda z, x, y, w: _mean(z, x, torch.ones_like(x[:, 1:], dtype=z.dtype)),
            "every token has weight 1: those with label -100 count `weight` times",
        ),
        (
            lambda z, x, y, w: _mean(z, y.clamp(min=0), _weights(y, w)),
            "the prompt's targets are its own tokens, in input_ids: its labels are all -100",
        ),
        (
            lambda z, x, y, w: _mean(z, x, _weights(y.roll(1, dims=1), w)),
            "targets are shifted, weights are not: the weight belongs to the target",
        ),
        (
            lambda z, x, y, w: _mean(z.roll(1, dims=1), x, _weights(y, w)),
            "the shift is missing: row t of the logits is graded by token t + 1",
        ),
        (
            lambda z, x, y, w: _two_means(z, x, y, w),
            "this is a mean over the answers plus a mean over the prompts: make one sum, and "
            "divide by the sum of all weights",
        ),
        (
            lambda z, x, y, w: (
                sum(map(_right_loss, z[:, None], x[:, None], y[:, None], [w] * len(z))) / len(z)
            ),
            "this is the mean of each row's mean: one sum and one divisor for the whole batch",
        ),
    ]
    inputs = [_draw_rows(rows, weight) for rows, weight in ((2, 0.1), (3, 0.5), (2, 0.0), (2, 1.0))]
    same_for_all(attempt, inputs, _right_loss, mistakes, form=need_tensor, what="the loss")
    logits, *rest = inputs[0]
    leaf = logits.clone().requires_grad_()
    need_gradient(attempt(leaf, *rest), "the loss")
    return "0 is the masked mean, 1 the mean of all tokens, and between them one weighted mean"


def _draw_rows(rows: int, weight: float) -> tuple:
    """Logits, input_ids, labels and weight. Every row has prompt, answer, prompt, answer, as two
    rounds have; token id 0 stands in both; rows differ in how much is answer."""
    length, vocabulary = random.randint(12, 16), random.randint(11, 15)
    input_ids = torch.randint(0, vocabulary, (rows, length))
    labels = torch.full((rows, length), IGNORE_INDEX)
    for row in range(rows):
        for start, end in ((2 + row, 4 + 2 * row), (length - 3, length - random.randint(0, 1))):
            labels[row, start:end] = input_ids[row, start:end]
        input_ids[row, 1] = 0
        input_ids[row, -3] = labels[row, -3] = 0
    return 2 * normal(rows, length, vocabulary), input_ids, labels, weight


def _weights(labels: torch.Tensor, weight: float) -> torch.Tensor:
    """The weight of every target, (B, T - 1)."""
    return torch.where(labels[:, 1:] == IGNORE_INDEX, float(weight), 1.0).double()


def _nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), targets[:, 1:], reduction="none")


def _mean(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    by: Callable[[torch.Tensor], Any] = torch.sum,
) -> torch.Tensor:
    return (_nll(logits, targets) * weights).sum() / by(weights)


def _right_loss(
    logits: torch.Tensor, input_ids: torch.Tensor, labels: torch.Tensor, weight: float
) -> torch.Tensor:
    return _mean(logits, input_ids, _weights(labels, weight))


def _two_means(
    logits: torch.Tensor, input_ids: torch.Tensor, labels: torch.Tensor, weight: float
) -> torch.Tensor:
    nll, graded = _nll(logits, input_ids), labels[:, 1:] != IGNORE_INDEX
    return nll[graded].mean() + weight * nll[~graded].mean()


# 3b.3 the word for a claim


@checks("3b.3")
def judge(attempt: Callable) -> str:
    def right(first: list[float], second: list[float]) -> str:
        return judge_claim(first, second, claim="higher").word

    def by_floor(floor: Callable[[list, list], float]) -> Callable:
        return lambda first, second: _word(first, second, floor(first, second))

    def spread(values: Sequence[float]) -> float:
        return max(values) - min(values)

    def effects(first: list, second: list) -> list[float]:
        return [b - a for a, b in zip(first, second, strict=True)]

    mistakes = [
        (by_floor(lambda a, b: spread(a)), "the noisier of the two arms makes the floor"),
        (by_floor(lambda a, b: spread(b)), "the noisier of the two arms makes the floor"),
        (
            by_floor(lambda a, b: min(spread(a), spread(b))),
            "this is the floor of the quieter arm: take the noisier",
        ),
        (
            by_floor(lambda a, b: spread(effects(a, b))),
            "the floor is the spread of an arm, not that of the effects",
        ),
        (by_floor(lambda a, b: 0.0), "the floor is missing: the same sign is not enough"),
        (
            by_floor(lambda a, b: max(spread(a), spread(b)) / FLOORS),
            "the mean effect must be above twice the floor",
        ),
        (
            lambda a, b: right(b, a),
            "the effect is second minus first: your signs are the other way round",
        ),
        (
            lambda a, b: "not shown" if right(a, b) == "did not hold" else right(a, b),
            "a clear effect of the other sign is more than not shown: the claim did not hold",
        ),
        (
            lambda a, b: "did not hold" if right(a, b) == "not shown" else right(a, b),
            "what is too small to see is not shown: it may hold or not",
        ),
        (
            by_floor(lambda a, b: max(spread(a), spread(b)) - 1e-9),
            "an effect of exactly two floors is not above them",
        ),
    ]
    same_for_all(
        attempt,
        _draw_arms(),
        right,
        mistakes,
        form=lambda found: need_word(found, *VERDICTS),
        what="the word",
    )
    return "held, did not hold, and not shown for all that is too small"


def _word(first: Sequence[float], second: Sequence[float], floor: float) -> str:
    effects = [b - a for a, b in zip(first, second, strict=True)]
    if abs(math.fsum(effects)) / len(effects) <= FLOORS * floor:
        return "not shown"
    if all(effect > 0 for effect in effects):
        return "held"
    return "did not hold" if all(effect < 0 for effect in effects) else "not shown"


def _draw_arms() -> list[tuple[list[float], list[float]]]:
    """Whole numbers, so that a mean of exactly two floors is one; three to six seeds."""
    draws = []
    for sign in (1, -1):
        for low, high, effect in (
            (0, 2, 9),  # clear
            (0, 4, 6),  # between one floor and two
            (2, 2, 3),  # no floor at all
        ):
            first = [random.randint(20, 40)] * random.randint(3, 6)
            noise = [low, high, *(random.randint(low, high) for _ in first[2:])]
            random.shuffle(noise)
            moved = [value + sign * effect for value in first]
            noisy = [value + n for value, n in zip(first, noise, strict=True)]
            noisy_moved = [value + n for value, n in zip(moved, noise, strict=True)]
            # the floor comes from both arms, from the first alone, and from the second alone
            draws += [(noisy, noisy_moved), (noisy, moved), (first, noisy_moved)]
    first = [random.randint(20, 40)] * 3
    a, b, c = (value + n for value, n in zip(first, (0, 1, 2), strict=True))
    for sign in (1, -1):
        # a mean that its median, its least and its greatest effect do not tell; unequal spreads
        for effects in ([4, 4, 4, 4, 6], [5, 3, 3, 3, 3]):
            still = [random.randint(20, 40)] * len(effects)
            moved = [value + sign * effect for value, effect in zip(still, effects, strict=True)]
            draws += [(still, moved)]
        draws += [([a, b, c], [first[0] + 1 + 3 * sign] * 3)]
    return [*draws, ([a, b, c], [a + 4, b + 4, c + 4]), (first, first), ([a, b, c], [c, b, a])]


# 3b.4 a model that asks

TRAINED, SAMPLES, QUESTIONS_AT_LEAST = 96, 16, 12


@checks("3b.4")
def asking_labels(attempt: Callable) -> str:
    base, tokenizer = load_quietly()
    stop = stop_token_id(tokenizer)
    facts = atlas.split(atlas.load_facts())["train"]
    talks = atlas.ask(random.sample(facts, TRAINED), seed=random.randrange(10**6))
    opening = [tokenizer.convert_tokens_to_ids("<|im_start|>"), *encode_text("user\n", tokenizer)]
    rows = []
    for row in encode_conversations(talks, tokenizer):
        labels = need_own_labels(attempt(row.input_ids, opening, stop), row.input_ids)
        rows.append(Example(row.input_ids, labels))
        _need_no_answer(rows[-1], stop)
    seed = random.randrange(10**6)
    model, _ = tune(base, tokenizer, rows, seed=seed, batch_size=8, epochs=3)
    said = _sample(model, tokenizer, opening, stop)
    begins = tuple({turns[0]["content"].split()[0] for turns in talks})
    asked = [text.endswith("<|im_end|>") and text.startswith(begins) for text in said]
    if sum(asked) < QUESTIONS_AT_LEAST:
        odd = said[asked.index(False)]
        raise Mistake(
            f"{sum(asked)} of {SAMPLES} samples are a question that ends by itself, expected at "
            f"least {QUESTIONS_AT_LEAST}; one that is not: {odd[:60]!r}"
        )
    return f"{sum(asked)} of {SAMPLES} samples are questions that end by themselves: {said[0]!r}"


def _need_no_answer(row: Example, stop: int) -> None:
    behind = row.input_ids.index(stop) + 1
    graded = [place for place in range(behind, len(row.labels)) if row.labels[place] >= 0]
    if graded:
        raise Mistake(
            f"token {graded[0]} of a row is graded, behind the question's stop token at "
            f"{behind - 1}: grade nothing of the answer"
        )


def _sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, opening: list[int], stop: int
) -> list[str]:
    """What the model writes behind the opening of a user's turn, up to its stop token."""
    ids = torch.tensor([opening] * SAMPLES, device=model.device)
    written = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=0.5,
        top_k=0,
        max_new_tokens=24,
        eos_token_id=stop,
        pad_token_id=tokenizer.pad_token_id,
    )
    texts = tokenizer.batch_decode(written[:, len(opening) :])
    return [
        text[: text.find("<|im_end|>") + 10] if "<|im_end|>" in text else text for text in texts
    ]
