"""Checks of chapter 07b, where the time goes."""

import math
import numbers
import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    need_gradient,
    need_list,
    need_number,
    need_tensor,
    normal,
    random_labels,
    same,
    same_for_all,
    same_in_all,
)
from sft_lab.examples import IGNORE_INDEX

MOST_PADDING = 0.1  # share of positions, where a full sort leaves up to 0.07


@checks("7b.1")
def make_batches(attempt: Callable) -> str:
    for lengths, size in _small_sets():
        _whole_batches(attempt(lengths, size, random.randint(0, 99)), len(lengths), size)
    worst = 0.0
    for _ in range(3):
        size = random.choice([8, 16])
        lengths = _random_lengths(random.randint(20, 30) * size + random.randint(1, size - 1))
        seeds = [0, *random.sample(range(1, 1000), 3)]  # 0 is a seed like any other
        found = [attempt(lengths, size, seed) for seed in seeds]
        for batches in found:
            _whole_batches(batches, len(lengths), size)
        longest = [[max(lengths[index] for index in rows) for rows in one] for one in found]
        positions = [
            sum(len(rows) * most for rows, most in zip(one, tops, strict=True))
            for one, tops in zip(found, longest, strict=True)
        ]
        worst = max(worst, 1 - sum(lengths) / max(positions))
        if worst > MOST_PADDING:
            raise Mistake(
                f"{worst:.0%} of the positions are padding, at most {MOST_PADDING:.0%} is asked: "
                "put rows of similar length into a batch (sort before you cut)"
            )
        if any(tops in (sorted(tops), sorted(tops, reverse=True)) for tops in longest):
            raise Mistake("the batches go from short to long, or back: shuffle them after the cut")
        if any(attempt(lengths, size, seeds[k]) != found[k] for k in (0, 1)):
            raise Mistake("the same seed gave two orders: draw with random.Random(seed)")
        if all(one == found[0] for one in found[1:]):
            raise Mistake("every seed gives the same order: draw it with random.Random(seed)")
    return f"every row once, full batches in a drawn order, at most {worst:.1%} padding"


def _small_sets() -> list[tuple[list[int], int]]:
    """Sets where counting goes wrong: one row, a last batch of one row, no last batch, equal rows,
    fewer rows than a batch holds."""
    return [
        ([7], 4),
        (_random_lengths(9), 4),
        (_random_lengths(12), 4),
        ([20] * 10, 3),
        (_random_lengths(3), 8),
        (_random_lengths(5), 1),
    ]


def _random_lengths(count: int) -> list[int]:
    """Lengths as a mixed data set has them: many short rows, a fifth of them long."""
    return [
        random.randint(12, 60) if random.random() < 0.8 else random.randint(60, 140)
        for _ in range(count)
    ]


def _whole_batches(batches: Sequence, rows: int, size: int) -> None:
    """Raise Mistake unless these are batches of all rows, as few and as full as can be."""
    found = need_list(batches, list | tuple, "batches, each a list of row indices")
    indices = [
        index for batch in found for index in need_list(batch, numbers.Integral, "row indices")
    ]
    given = f"{rows} rows in batches of {size}"
    if any(len(batch) > size for batch in found):
        raise Mistake(f"a batch of {max(map(len, found))} rows, for {given}")
    if any(len(batch) == 0 for batch in found):
        raise Mistake(f"an empty batch, for {given}")
    if len(indices) < rows and len(indices) == len(set(indices)):
        raise Mistake(f"{rows - len(indices)} rows are in no batch, for {given}: keep the last one")
    if sorted(indices) != list(range(rows)):
        raise Mistake(f"every index from 0 to {rows - 1} stands in one batch, once; for {given}")
    if sum(len(batch) < size for batch in found) > 1:
        raise Mistake(f"batches of {[*map(len, found)]} rows, for {given}: all but one are full")


@checks("7b.2")
def head_loss(attempt: Callable) -> str:
    saved, cases, counted = [], [], []
    for rows, length, vocabulary, width in ((3, 12, 31, 5), (3, 9, 17, 8), (1, 8, 50, 3)):
        labels = random_labels(rows, length, vocabulary)
        for row in labels:
            row[0] = random.randrange(1, vocabulary)  # the first label has no prediction
        hidden = normal(rows, length, width).requires_grad_()
        weight = normal(vocabulary, width).requires_grad_()
        with FlopCounterMode(display=False) as counter:
            found = attempt(hidden, weight, labels)
        need_gradient(need_tensor(found, "the loss"), "the loss")
        same(list(found.shape), [], what="the shape of the loss")
        graded = int((labels[:, 1:] != IGNORE_INDEX).sum())
        counted.append((counter.get_total_flops(), 2 * graded * width * vocabulary))
        saved.append((found, hidden, weight, labels))
        hints = [(wrong(hidden, weight, labels), name) for wrong, name in _wrong_heads()]
        given = f"hidden of shape {tuple(hidden.shape)} and {graded} graded tokens"
        cases.append(Case(found, _all_scores(hidden, weight, labels), hints, given))
    same_in_all(cases, what="the loss")
    for operations, needed in counted:
        if operations > needed:
            raise Mistake(
                f"the right loss, from {operations:,} multiplications and additions where "
                f"{needed:,} are enough: choose the graded rows of hidden before the product"
            )
    for found, hidden, weight, labels in saved:
        right = torch.autograd.grad(_all_scores(hidden, weight, labels), (hidden, weight))
        given = torch.autograd.grad(found, (hidden, weight), allow_unused=True)
        for name, one, other in zip(("hidden", "weight"), given, right, strict=True):
            same(need_tensor(one, f"the gradient of {name}"), other, what=f"the gradient of {name}")
    share = sum(needed for _, needed in counted) / sum(
        2 * hidden.shape[0] * hidden.shape[1] * weight.numel() for _, hidden, weight, _ in saved
    )
    return f"the same loss and gradients, from {share:.0%} of the head's operations"


def _all_scores(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, **options
) -> torch.Tensor:
    """The loss from scores at every position, by PyTorch."""
    scores = (hidden @ weight.T)[:, :-1].flatten(0, 1)
    return F.cross_entropy(scores, labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX, **options)


def _wrong_heads() -> list[tuple[Callable, str]]:
    def unshifted(hidden, weight, labels):
        scores = (hidden @ weight.T).flatten(0, 1)
        return F.cross_entropy(scores, labels.flatten(), ignore_index=IGNORE_INDEX)

    def shifted_back(hidden, weight, labels):
        scores = (hidden @ weight.T)[:, 1:].flatten(0, 1)
        return F.cross_entropy(scores, labels[:, :-1].flatten(), ignore_index=IGNORE_INDEX)

    def of_rows(hidden, weight, labels):
        rows = zip(hidden, labels, strict=True)
        return torch.stack([_all_scores(h[None], weight, row[None]) for h, row in rows]).mean()

    def without_zero(hidden, weight, labels):
        return _all_scores(hidden, weight, labels.masked_fill(labels == 0, IGNORE_INDEX))

    def over_positions(hidden, weight, labels):
        return _all_scores(hidden, weight, labels, reduction="sum") / labels[:, 1:].numel()

    def with_first(hidden, weight, labels):
        count = (labels != IGNORE_INDEX).sum()
        return _all_scores(hidden, weight, labels, reduction="sum") / count

    def of_one_row(hidden, weight, labels):
        return _all_scores(hidden.flatten(0, 1)[None], weight, labels.flatten()[None])

    def summed(hidden, weight, labels):
        return _all_scores(hidden, weight, labels, reduction="sum")

    return [
        (unshifted, "row t of hidden predicts token t + 1: shift by one"),
        (shifted_back, "shifted the wrong way: row t of hidden predicts token t + 1"),
        (of_rows, "this is a mean of the rows' means: every graded token weighs the same"),
        (without_zero, "token 0 is a token like any other: ask for != -100, not for > 0"),
        (over_positions, "divide by the graded tokens, not by all positions"),
        (with_first, "the first label of a row has no prediction: it does not count"),
        (of_one_row, "a row's last state predicts nothing of the next row: shift, then flatten"),
        (summed, "this is the sum: divide by the number of graded tokens"),
    ]


@checks("7b.3")
def times_as_fast(attempt: Callable) -> str:
    def right(shares, faster):
        return 1 / sum(share / faster.get(part, 1) for part, share in shares.items())

    def mean_factor(shares, faster):
        return sum(share * faster.get(part, 1) for part, share in shares.items())

    def only_named(shares, faster):
        left = sum(share / faster[part] for part, share in shares.items() if part in faster)
        return 1 / left if left else math.inf

    def product(shares, faster):
        return math.prod(faster.values())

    def inverse(shares, faster):
        return 1 / right(shares, faster)

    def plain_mean(shares, faster):
        return sum(faster.get(part, 1) for part in shares) / len(shares)

    mistakes = [
        (mean_factor, "a mean of the factors, weighed by time: add up the times that are left"),
        (only_named, "a part that is not named keeps its time"),
        (product, "the factors multiply only where each speeds up the whole"),
        (inverse, "this is the time that is left: ask how many times faster, 1 / time"),
        (plain_mean, "a mean of the factors says nothing about their shares of the time"),
    ]
    draws = [_random_race() for _ in range(5)]
    draws.append(({"head": 0.5, "rest": 0.5}, {"head": math.inf}))  # the work is gone: twice
    draws.append(({"forward": 0.4, "backward": 0.6}, {}))
    draws.append(({"forward": 0.3, "backward": 0.7}, {"forward": 0.5}))  # slower
    same_for_all(attempt, draws, right, mistakes, form=need_number, what="times as fast")
    return "the parts that stay slow decide, for five draws, a part that is gone and a slower one"


def _random_race() -> tuple[dict[str, float], dict[str, float]]:
    """Shares of four parts, and the factors of two or three of them."""
    parts = ["forward", "backward", "update", "data"]
    cuts = sorted(random.uniform(0.05, 0.95) for _ in parts[1:])
    ends = [0.0, *cuts, 1.0]
    shares = {part: ends[place + 1] - ends[place] for place, part in enumerate(parts)}
    chosen = random.sample(parts, random.choice([2, 3]))
    return shares, {part: round(random.uniform(1.5, 9), 2) for part in chosen}
