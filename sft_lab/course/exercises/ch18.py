"""Checks of chapter 18, is my run healthy?"""

import contextlib
import io
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import torch

from sft_lab.course.curve_runs import highest_rate_run
from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    need_list,
    need_number,
    need_word,
    same,
    same_for_all,
    same_in_all,
    unpack,
)
from sft_lab.course.results import read_results
from sft_lab.examples import IGNORE_INDEX
from sft_lab.models import load

Labels = list[list[int]]


# 18.1


def _draw_labels(rows: int, vocabulary: int) -> Labels:
    """Rows of different lengths; a few tokens are common, token id 0 among them."""
    drawn = []
    for _ in range(rows):
        prompt = [IGNORE_INDEX] * random.randint(1, 4)
        answer = random.choices(
            range(vocabulary), [vocabulary / (1 + i) for i in range(vocabulary)]
        )
        answer += random.choices(range(4), k=random.randint(2, 9))
        drawn.append([*prompt, *answer, *[IGNORE_INDEX] * random.randint(0, 2)])
    return drawn


def _graded(rows: Labels) -> list[int]:
    return [label for row in rows for label in row if label != IGNORE_INDEX]


def _count_loss(
    train: Sequence[int], test: Sequence[int], vocabulary: int, *, add: float = 1.0
) -> float:
    counts = Counter(train)
    total = len(train) + add * vocabulary
    return sum(-math.log((counts[token] + add) / total) for token in test) / len(test)


def _right_count(train: Labels, test: Labels, vocabulary: int) -> float:
    return _count_loss(_graded(train), _graded(test), vocabulary)


def _flat(rows: Labels) -> list[int]:
    return [label for row in rows for label in row]


def _mean_of_rows(train: Labels, test: Labels, vocabulary: int) -> float:
    losses = [_right_count(train, [row], vocabulary) for row in test if _graded([row])]
    return sum(losses) / len(losses)


def _unnormalised(train: Labels, test: Labels, vocabulary: int) -> float:
    counts, seen = Counter(_graded(train)), _graded(train)
    return sum(-math.log((counts[t] + 1) / len(seen)) for t in _graded(test)) / len(_graded(test))


COUNT_MISTAKES = [
    (
        lambda train, test, v: _count_loss(_flat(train), _flat(test), v),
        "-100 was counted as a token: it marks what is not graded",
    ),
    (
        lambda train, test, v: _count_loss(_flat(train), _graded(test), v),
        "-100 was counted among the training tokens",
    ),
    (
        lambda train, test, v: _count_loss(_graded(train), _graded(train), v),
        "this is the loss on the training labels: ask for the tokens of `test`",
    ),
    (
        lambda train, test, v: _count_loss(_graded(test), _graded(test), v),
        "counted in `test` itself: a predictor may count in `train` alone",
    ),
    (
        lambda train, test, v: _count_loss(_graded(train), _graded(test), len({*_graded(train)})),
        "the denominator adds 1 for every token seen: add 1 for every token of the vocabulary",
    ),
    (
        lambda train, test, v: _count_loss(_graded(train), _graded(test), v, add=1e-9),
        "a token that never stood in `train` needs its 1 as well",
    ),
    (_unnormalised, "1 was added to the counts and not to their sum: no probabilities any more"),
    (_mean_of_rows, "a mean of the rows' means: every graded token weighs the same"),
    (
        lambda train, test, v: _right_count(train, test, v) / math.log(2),
        "this is in bits: use the natural logarithm",
    ),
    (
        lambda train, test, v: _right_count(train, test, v) * len(_graded(test)),
        "this is the sum: divide by the graded tokens of `test`",
    ),
    (lambda train, test, v: -_right_count(train, test, v), "the minus sign is missing"),
    (
        lambda train, test, v: _right_count([row[1:] for row in train], [r[1:] for r in test], v),
        "labels were shifted: the first label of a row is never graded, so there is nothing to cut",
    ),
]


@checks("18.1")
def counting_loss(attempt: Callable) -> str:
    inputs = []
    for rows, vocabulary in ((6, 12), (9, 30), (4, 8)):
        inputs.append((_draw_labels(rows, vocabulary), _draw_labels(5, vocabulary), vocabulary))
    train, test, vocabulary = inputs[0]
    unseen = [[IGNORE_INDEX, vocabulary - 1, vocabulary - 1, 0]]
    short = [[IGNORE_INDEX, 0], [IGNORE_INDEX, *[vocabulary - 1] * 7]]
    inputs += [(_draw_labels(5, vocabulary - 1), unseen, vocabulary), (train, short, vocabulary)]
    empty = [([[IGNORE_INDEX] * 4], test, vocabulary), ([], test, vocabulary)]
    for some in (inputs, empty):  # a mistake that divides by 0 in the second is named by the first
        same_for_all(
            attempt,
            some,
            _right_count,
            COUNT_MISTAKES,
            form=need_number,
            what="the loss",
            atol=1e-5,
        )
    return "counts the graded tokens of `train`, asks for those of `test`; nothing seen gives ln V"


# 18.2

WORDS = ("nan", "zero", "diverged", "flat", "saw-tooth", "staircase", "healthy")
Rules = dict[str, Callable[[list[float], int], bool]]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def largest_jump(losses: Sequence[float], width: int = 3) -> float:
    """The most by which the mean of `width` steps is above that of the `width` before."""
    places = range(width, len(losses) - width + 1)
    return max(_mean(losses[t : t + width]) - _mean(losses[t - width : t]) for t in places)


def border_falls(losses: Sequence[float], epoch: int, width: int = 3) -> float:
    """The sum of what the mean of `width` steps falls by at the borders between epochs."""
    borders = range(epoch, len(losses) - width + 1, epoch)
    return sum(_mean(losses[b - width : b]) - _mean(losses[b : b + width]) for b in borders)


def _rules() -> Rules:
    """The words in their order, without "healthy"."""
    return {
        "nan": lambda x, epoch: not all(map(math.isfinite, x)),
        "zero": lambda x, epoch: all(loss == 0 for loss in x),
        "diverged": lambda x, epoch: _mean(x[-5:]) > x[0],
        "flat": lambda x, epoch: _mean(x[-5:]) > 0.8 * x[0],
        "saw-tooth": lambda x, epoch: largest_jump(x) > (x[0] - _mean(x[-5:])) / 2,
        "staircase": lambda x, epoch: border_falls(x, epoch) > (x[0] - _mean(x[-5:])) / 2,
    }


def judge(losses: list[float], epoch: int, rules: Rules | None = None) -> str:
    """The first word whose rule holds, or "healthy"."""
    for word, rule in (rules or _rules()).items():
        if rule(losses, epoch):
            return word
    return "healthy"


def _changed(**rules: Callable | None) -> Callable:
    """`judge` with other rules; None leaves one out. "saw-tooth" is written saw."""
    names = {"saw": "saw-tooth"}
    changed = _rules() | {names.get(name, name): rule for name, rule in rules.items()}
    kept = {word: rule for word, rule in changed.items() if rule is not None}
    return lambda losses, epoch: judge(losses, epoch, kept)


def _ordered(*first: str) -> Callable:
    rules = {word: _rules()[word] for word in first} | _rules()
    return lambda losses, epoch: judge(losses, epoch, rules)


CURVE_MISTAKES = [
    (
        _changed(nan=lambda x, epoch: not math.isfinite(x[-1])),
        "one loss that is no number is enough for nan, wherever it stands",
    ),
    (
        _changed(nan=lambda x, epoch: any(map(math.isnan, x))),
        "an infinite loss is no number either: math.isfinite",
    ),
    (
        _changed(nan=None),
        "NaN answers every comparison with False: ask for it first, with math.isfinite",
    ),
    (
        _changed(zero=lambda x, epoch: 0.0 in x),
        "one loss of 0.0 can happen in a healthy run: zero is a curve of nothing else",
    ),
    (_changed(zero=None), "a loss of exactly 0.0 at every step is no healthy run"),
    (
        _changed(diverged=lambda x, epoch: max(x) > x[0]),
        "a loss above the first one is no divergence yet: look at the last five",
    ),
    (
        _changed(diverged=lambda x, epoch: x[-1] > x[0]),
        "the last step alone is one batch: take the mean of the last five",
    ),
    (
        _changed(flat=lambda x, epoch: x[-1] > 0.8 * x[0]),
        "the last step alone is one batch: take the mean of the last five",
    ),
    (
        _changed(flat=lambda x, epoch: x[0] - _mean(x[-5:]) < 0.2),
        "flat is relative: above 80 % of the first loss, whatever that is",
    ),
    (_ordered("flat"), "ask for diverged before flat: a diverged run is above 80 % as well"),
    (
        _changed(saw=lambda x, epoch: largest_jump(x, 1) > (x[0] - _mean(x[-5:])) / 2),
        "one high step is noise: compare the mean of three steps with that of the three before",
    ),
    (
        _changed(saw=lambda x, epoch: border_falls(x, epoch) < -(x[0] - _mean(x[-5:])) / 2),
        "a saw-tooth jumps where the topic changes: look at every step, not at the epochs' borders",
    ),
    (
        _changed(staircase=lambda x, epoch: border_falls(x, epoch, 1) > (x[0] - _mean(x[-5:])) / 2),
        "at a border compare the mean of three steps with that of the three before, not two steps",
    ),
    (
        _changed(
            staircase=lambda x, epoch: (
                max(_mean(x[t - 3 : t]) - _mean(x[t : t + 3]) for t in range(3, len(x) - 2))
                > (x[0] - _mean(x[-5:])) / 2
            )
        ),
        "every run falls fast at first: a staircase falls at the borders of epochs",
    ),
    (
        _changed(staircase=lambda x, epoch: len(x) > epoch),
        "several epochs are no staircase by themselves: how much falls at their borders?",
    ),
    (_changed(staircase=None), "a staircase falls at the borders of epochs, and little between"),
    (_ordered("staircase"), "keep the order of the rules"),
    (lambda losses, epoch: "healthy", "not every curve is healthy"),
]


def _noisy(levels: Sequence[float], noise: float = 0.02) -> list[float]:
    return [level * (1 + random.uniform(-noise, noise)) for level in levels]


def _fall(steps: int, first: float, last: float, over: float) -> list[float]:
    """An exponential way down; `over` steps take 63 % of it."""
    return [last + (first - last) * math.exp(-step / over) for step in range(steps)]


def _draw_healthy() -> list[tuple[list[float], int]]:
    first = random.uniform(2, 8)
    plain = _noisy(_fall(40, first, 0.1 * first, random.uniform(5, 8)))
    again = _noisy(_fall(48, first, 0.2 * first, random.uniform(5, 8)))
    spike = _noisy(_fall(40, first, 0.1 * first, 6))
    spike[25] += 0.8 * first  # one odd batch
    early = _noisy(_fall(40, first, 0.1 * first, 6))
    early[1] = 1.3 * first
    last = _noisy(_fall(40, first, 0.1 * first, 6))
    last[-1] = 1.05 * first
    touches = [*_noisy(_fall(39, first, 0.02 * first, 4)), 0.0]
    # two steps at a border differ, six do not
    border = _noisy(_fall(48, first, 0.2 * first, 5))
    border[23], border[24] = 0.75 * first, 0.1 * first
    warm = [first, first, 0.95 * first, *_noisy(_fall(37, 0.45 * first, 0.1 * first, 2))]
    small = [loss * 0.02 for loss in plain]
    curves = [(plain, 40), (again, 12), (spike, 40), (early, 40), (last, 40), (touches, 40)]
    return [*curves, (border, 24), (small, 40), (warm, 20)]


def _draw_ill() -> list[tuple[list[float], int]]:
    first = random.uniform(2, 8)
    healthy = _fall(40, first, 0.1 * first, 6)
    hole, broken, overflow = _noisy(healthy), _noisy(healthy), _noisy(healthy)
    hole[17] = math.nan
    broken[20:] = [math.nan] * 20
    overflow[30] = math.inf
    away = [*_fall(12, first, 0.5 * first, 4), *[1.5 * first] * 28]
    apart = [first, *[2.5 * first] * 10, *[1.35 * first] * 29]
    dips = [*_noisy(away)[:-1], 0.9 * first]
    still = _noisy([first * (1 - 0.07 * step / 40) for step in range(40)], 0.01)
    pulled = [*_noisy([0.95 * first] * 39, 0.01), 0.5 * first]
    topics = [part for top in (1.0, 0.9, 1.1, 0.8) for part in _fall(11, top * first, 0.2, 2.5)]
    stairs = [
        level * first * (1 - 0.03 * step / 12)
        for level in (1.0, 0.6, 0.35, 0.2)
        for step in range(12)
    ]
    large = [70 * loss for loss in still]
    below = [-loss if math.isinf(loss) else loss for loss in overflow]
    from_zero = [0.0, *_noisy(healthy)]
    curves = [
        (hole, 40),
        (broken, 40),
        (overflow, 40),
        (below, 40),
        (from_zero, 41),
        ([0.0] * 40, 40),
        ([0.0] * 12, 6),
    ]
    curves += [(_noisy(away), 40), (_noisy(apart), 40), (dips, 40)]
    curves += [(still, 40), (pulled, 40), (large, 20), ([0.01 * loss for loss in still], 40)]
    curves += [(_noisy(topics), 44), (_noisy(topics), 22), (_noisy(stairs), 12)]
    return [*curves, (_noisy(stairs[:24]), 12)]


def _draw_steps() -> list[tuple[list[float], int]]:
    """Curves of level parts, each of which tells one detail of a rule."""

    def parts(*levels: tuple[int, float]) -> list[float]:
        return _noisy([first * level for count, level in levels for _ in range(count)], 0.01)

    first = random.uniform(2, 8)
    tiny = [0.04 / first * loss for loss in _noisy(_fall(40, first, 0.1 * first, 6))]
    return [
        (tiny, 40),  # healthy, if next to 0
        ([*parts((5, 1), (5, 0.6), (5, 0.3)), *[0.0] * 10], 25),  # healthy, ends at 0.0
        (parts((20, 1), (5, 0.7)), 25),  # healthy: the last ten are flat
        (parts((1, 1), (2, 0.1), (1, 3), (21, 0.1)), 25),  # a saw-tooth at t = 3 alone
        (parts((1, 1), (21, 0.1), (3, 0.5)), 25),  # and at the last t alone
        (parts((12, 1), (3, 0.2)), 12),  # a staircase at the last border
        (parts((12, 1), (2, 0.2)), 12),  # healthy: the border is too near the end
        # a staircase by 0.6 of the fall; a step beside the borders it would be 0.4
        (parts((6, 1.25), (6, 1.05), (6, 0.75), (6, 0.65), (6, 0.35), (6, 0.25)), 12),
        (parts((12, 1), (16, 0.1), (3, 0.8), (17, 0.1)), 12),  # a saw-tooth and a staircase
        # healthy: one of the borders rises
        (parts(*((6, x) for x in (1.2, 1, 0.6, 0.5, 0.8, 0.6, 0.3, 0.2))), 12),
    ]


RECORDED = {
    "healthy": "healthy",
    "rate too high": "diverged",
    "not shuffled": "saw-tooth",
    "one batch lost": "nan",
    "nothing graded": "zero",
    "stop not graded": "healthy",
    "other template": "healthy",
}


@cache
def _recorded() -> list[tuple[str, list[float]]]:
    """(cause, losses) of the recorded runs of chapter 18 whose word is clear."""
    rows = read_results("18_causes").rows
    return [
        (row["cause"], [math.nan if loss is None else loss for loss in row["losses"]])
        for row in rows
        if row["cause"] in RECORDED
    ]


@checks("18.2")
def name_the_curve(attempt: Callable) -> str:
    drawn = _draw_healthy() + _draw_ill() + _draw_steps()
    random.shuffle(drawn)
    cases = []
    for losses, epoch in drawn:
        found = need_word(attempt(list(losses), epoch), *WORDS)
        hints = [(mistake(losses, epoch), name) for mistake, name in CURVE_MISTAKES]
        shown = f"{len(losses)} losses, epoch {epoch}: " + " ".join(f"{x:.2f}" for x in losses)
        cases.append(Case(found, judge(losses, epoch), hints, shown))
    same_in_all(cases, what="the word")
    recorded = _recorded()
    for cause, losses in recorded:
        found = attempt(list(losses), len(losses))
        same(found, RECORDED[cause], what=f"the word for a recorded run ({cause})")
    return f"{len(drawn)} drawn curves and {len(recorded)} recorded ones"


# 18.3


def _smooth(losses: Sequence[float], graded: Sequence[int], beta: float) -> list[float]:
    total = weight = 0.0
    smoothed = []
    for loss, tokens in zip(losses, graded, strict=True):
        total = beta * total + (tokens * loss if tokens else 0.0)
        weight = beta * weight + tokens
        smoothed.append(total / weight)
    return smoothed


def _from(start: Callable[[float], float], *, weighted: bool) -> Callable:
    """The running mean that begins at a number and is not corrected."""

    def answer(losses: Sequence[float], graded: Sequence[int], beta: float) -> list[float]:
        value, smoothed, mean = start(losses[0]), [], sum(graded) / len(graded)
        for loss, tokens in zip(losses, graded, strict=True):
            share = tokens / mean if weighted else 1.0
            if tokens:
                value = beta * value + (1 - beta) * share * loss
            smoothed.append(value)
        return smoothed

    return answer


def _fading(losses: Sequence[float], graded: Sequence[int], beta: float) -> list[float]:
    """From 0, not corrected, with a loss of 0 for a step without tokens."""
    value, smoothed = 0.0, []
    for loss, tokens in zip(losses, graded, strict=True):
        value = beta * value + (1 - beta) * (loss if tokens else 0.0)
        smoothed.append(value)
    return smoothed


def _corrected(losses: Sequence[float], graded: Sequence[int], beta: float) -> list[float]:
    value, smoothed = 0.0, []
    for step, (loss, tokens) in enumerate(zip(losses, graded, strict=True), start=1):
        value = beta * value + (1 - beta) * (loss if tokens else 0.0)
        smoothed.append(value / (1 - beta**step))
    return smoothed


def _left_out(losses: Sequence[float], graded: Sequence[int], beta: float) -> list[float]:
    """A step without tokens does not count as a step."""
    total = weight = 0.0
    smoothed = []
    for loss, tokens in zip(losses, graded, strict=True):
        if tokens:
            total, weight = beta * total + tokens * loss, beta * weight + tokens
        smoothed.append(total / weight)
    return smoothed


def _all_so_far(losses: Sequence[float], graded: Sequence[int], beta: float) -> list[float]:
    return _smooth(losses, graded, 1.0)


def _at_the_end(losses: Sequence[float], graded: Sequence[int], beta: float) -> list[float]:
    """From both sides: it knows the future."""
    known = [loss if tokens else 0.0 for loss, tokens in zip(losses, graded, strict=True)]
    places = range(len(known))
    weights = [[beta ** abs(t - s) * graded[s] for s in places] for t in places]
    return [sum(w * x for w, x in zip(row, known, strict=True)) / sum(row) for row in weights]


SMOOTH_MISTAKES = [
    (_from(lambda first: 0.0, weighted=False), "it begins at 0 and needs many steps to recover"),
    (_fading, "it begins at 0 and needs many steps to recover"),
    (_from(lambda first: 0.0, weighted=True), "it begins at 0 and needs many steps to recover"),
    (
        _from(lambda first: first, weighted=False),
        "the first loss weighs as much as all steps before it would: divide by the weights instead",
    ),
    (_corrected, "every step weighs the same: weigh it by its graded tokens"),
    (
        lambda x, n, beta: _smooth(x, [min(1, tokens) for tokens in n], beta),
        "every step weighs the same: weigh it by its graded tokens",
    ),
    (
        lambda x, n, beta: _smooth(x, n, 1 - beta),
        "beta and 1 - beta are exchanged: beta is what is left of a step one step later",
    ),
    (
        _left_out,
        "a step without graded tokens is still a step: what stood before it shrinks by beta",
    ),
    (_all_so_far, "this is the mean of all steps so far: older steps shrink by beta"),
    (_at_the_end, "later steps are in it: at step t only those up to t are known"),
    (
        lambda x, n, beta: [
            math.nan if any(tokens == 0 for tokens in n[: t + 1]) else value
            for t, value in enumerate(_smooth(x, n, beta))
        ],
        "NaN times 0 is NaN: leave the loss of a step without graded tokens out",
    ),
]


@checks("18.3")
def smooth_honestly(attempt: Callable) -> str:
    inputs = []
    for beta in (0.5, 0.8, 0.95):
        losses = _noisy(_fall(12, random.uniform(2, 6), 0.5, 3), 0.2)
        graded = [random.choice((20, 100, 300)) for _ in losses]
        graded[:2] = random.sample((20, 100, 300), 2)
        inputs.append((losses, graded, beta))
    losses, graded, beta = (list(part) if isinstance(part, list) else part for part in inputs[1])
    for place in (3, 4, 8):
        losses[place], graded[place] = math.nan, 0
    inputs += [(losses, graded, beta), ([2.5], [7], 0.9)]

    def form(found: object) -> list[float]:
        return [need_number(value, "a smoothed loss") for value in _as_list(found)]

    same_for_all(attempt, inputs, _smooth, SMOOTH_MISTAKES, form=form, what="the curve", atol=1e-5)
    return "no bias at the start, tokens weigh the same, and steps without any add nothing"


def _as_list(found: object) -> list:
    if isinstance(found, torch.Tensor) or not isinstance(found, list | tuple):
        raise Mistake("return a list of floats, one a step")
    return list(found)


# 18.4

BORDER, TIMES, RATE_SEEDS = 0.6, 3, (0, 1)


@cache
def _ends_at(rate: float, seed: int) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        base, tokenizer = load("atlas-base")
    return highest_rate_run(base, tokenizer, rate=rate, seed=seed)


@checks("18.4")
def highest_rate(attempt: object) -> str:
    rate = need_number(attempt, "the rate")
    if not 0 < rate < 1:
        raise Mistake(f"the rate is {rate:g}: a learning rate is above 0 and below 1")
    for seed in RATE_SEEDS:
        end = _ends_at(rate, seed)
        if not end < BORDER:
            way = (
                "too high: the run broke"
                if _falls_below(rate / TIMES, seed, end)
                else "too low: 20 steps do not get there"
            )
            raise Mistake(f"rate {rate:g}, seed {seed}: the loss ends at {end:.2f}; {way}")
    ends = [_ends_at(TIMES * rate, seed) for seed in RATE_SEEDS]
    if any(end < BORDER for end in ends):
        raise Mistake(
            f"rate {rate:g} trains, but {TIMES * rate:g} trains as well (the loss ends at "
            f"{min(ends):.2f}): there is room above"
        )
    return (
        f"{rate:g} ends at {max(_ends_at(rate, seed) for seed in RATE_SEEDS):.2f}, "
        f"{TIMES * rate:g} at {min(ends):.2f}"
    )


def _falls_below(rate: float, seed: int, end: float) -> bool:
    return _ends_at(rate, seed) < end


# 18.5


def _draw_pool(share: float) -> tuple[list[dict[str, str]], float]:
    """Rows of four topics of very different size; a fact is told one to five times. The share of
    the facts is rounded down in the first topic and up in the second, and never a half."""
    rows, up = [], {0.1: (17, 27), 0.2: (13, 18)}[share]
    sizes = [random.choice((21, 31, 42)), random.choice(up), 7, random.choice((2, 3))]
    for topic, size in zip(("capital", "sum", "list", "json"), sizes, strict=True):
        for number in range(size):
            for wording in range(random.randint(1, 5)):
                name = f"{topic} {number}"
                rows.append({"fact": name, "topic": topic, "text": f"{name}, wording {wording}"})
    random.shuffle(rows)
    return rows, share


def _facts(rows: list[dict[str, str]], places: Sequence[int]) -> dict[str, set[str]]:
    by_topic: dict[str, set[str]] = {row["topic"]: set() for row in rows}
    for place in places:
        by_topic[rows[place]["topic"]].add(rows[place]["fact"])
    return by_topic


def _judge_split(
    rows: list[dict[str, str]], share: float, train: list[int], held: list[int]
) -> None:
    for name, places in (("train", train), ("eval", held)):
        if any(not 0 <= place < len(rows) for place in places):
            raise Mistake(f"{name} names a row that does not exist: places count from 0")
    if len(set(train) | set(held)) < len(train) + len(held):
        raise Mistake("a row stands twice: each row is in one of the two lists, once")
    all_facts, known, asked = (_facts(rows, p) for p in (range(len(rows)), train, held))
    both = {fact for topic in known for fact in known[topic] & asked[topic]}
    if both:
        raise Mistake(
            f"{len(both)} facts stand on both sides, {sorted(both)[0]!r} for example: another "
            "wording of a trained row is remembered, so the eval loss cannot see over-fitting"
        )
    if len(train) + len(held) < len(rows):
        missing = len(rows) - len(train) - len(held)
        raise Mistake(f"{missing} rows are in neither list: every row is used")
    for topic, facts in all_facts.items():
        wanted = max(1, round(share * len(facts)))
        count = len(asked[topic])
        if count == 0:
            raise Mistake(f"no row of {topic!r} is evaluated: each topic gives at least one fact")
        if count != wanted:
            raise Mistake(
                f"{count} of the {len(facts)} facts of {topic!r} are evaluated, expected {wanted}: "
                "count facts, topic by topic, not rows"
            )


@checks("18.5")
def design_eval(attempt: Callable) -> str:
    chosen, pools = [], [_draw_pool(share) for share in (0.1, 0.2, 0.2)]
    for rows, share in pools:
        for seed in (0, 1, 2, 3):
            found = unpack(attempt(rows, share, seed), "train", "eval")
            train, held = (need_list(part, int, "whole numbers") for part in found)
            _judge_split(rows, share, train, held)
            again = unpack(attempt(rows, share, seed), "train", "eval")
            if sorted(again[1]) != sorted(held):
                raise Mistake("the same seed chose other rows: draw with random.Random(seed)")
            chosen.append(tuple(sorted(held)))
        if len(set(chosen[-4:])) == 1:
            raise Mistake("every seed chooses the same rows: the choice is to be drawn by the seed")
        if len(set(chosen[-4:])) < 4:
            raise Mistake("two of the seeds 0, 1, 2 and 3 choose the same rows, in four topics")
    return "no fact on both sides, every topic in its share, drawn by the seed"
