"""Checks of chapter 16c, an evaluation in six steps."""

import contextlib
import io
import math
import random
from collections.abc import Callable
from functools import cache

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.course.evaluation_runs import GROUPS, run_plan
from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_number,
    need_whole,
    need_word,
    same_for_all,
    shorten,
)
from sft_lab.models import load

EVALUATORS = ("right", "mean of means", "mean of perplexities", "padding scored")
Texts = list[list[float]]


def _evaluate(name: str, nats: Texts, pad_nats: float, size: int) -> float:
    """The perplexity that an evaluator prints, from texts in batches of `size`."""
    batches = [nats[i : i + size] for i in range(0, len(nats), size)]
    means = [sum(map(sum, batch)) / sum(map(len, batch)) for batch in batches]
    if name == "mean of means":
        return math.exp(sum(means) / len(means))
    if name == "mean of perplexities":
        return sum(map(math.exp, means)) / len(means)
    total, count = sum(map(sum, nats)), sum(map(len, nats))
    if name == "padding scored":
        padding = sum(max(map(len, b)) * len(b) - sum(map(len, b)) for b in batches)
        total, count = total + padding * pad_nats, count + padding
    return math.exp(total / count)


def _draw_texts() -> Texts:
    """Texts of very different lengths, the short ones costly: no two evaluators agree."""
    lengths = random.sample(range(2, 14), 7)
    return [[round(random.uniform(0.5, 3) + 6 / n, 3) for _ in range(n)] for n in lengths]


def _draw_close(name: str) -> tuple[Texts, float, dict[int, float]]:
    """Texts whose tokens cost almost the same: the evaluators differ, and only a little."""
    while True:
        pad_nats = round(random.uniform(0.6, 1.2), 3)
        lengths = random.sample(range(2, 14), 7)
        levels = [pad_nats + random.uniform(-0.2, 0.2) for _ in lengths]
        nats = [
            [round(level + random.uniform(-0.05, 0.05), 3) for _ in range(n)]
            for level, n in zip(levels, lengths, strict=True)
        ]
        shown = {other: _evaluate(other, nats, pad_nats, 2) for other in EVALUATORS}
        own = shown.pop(name)
        if all(1e-4 < abs(other - own) < 0.1 for other in shown.values()):
            return nats, pad_nats, {2: own}


def _diagnose(nats: Texts, pad_nats: float, reported: dict[int, float]) -> str:
    [name] = [
        name
        for name in EVALUATORS
        if all(
            math.isclose(_evaluate(name, nats, pad_nats, size), shown, rel_tol=1e-6)
            for size, shown in reported.items()
        )
    ]
    return name


@checks("16c.1")
def diagnose(attempt: Callable) -> str:
    inputs = []
    # one size alone: whether numbers change says nothing; 3 leaves a smaller batch at the end
    for sizes in ((1, 3, 7), (2, 4), (3,)):
        for name in EVALUATORS:
            while True:
                nats, pad_nats = _draw_texts(), round(random.uniform(0.2, 12), 2)
                shown = {
                    other: [_evaluate(other, nats, pad_nats, size) for size in sizes]
                    for other in EVALUATORS
                }
                others = [shown[other] for other in EVALUATORS if other != name]
                if all(abs(a[-1] / shown[name][-1] - 1) > 0.01 for a in others):
                    break
                if len(sizes) > 1 and all(
                    max(abs(x / y - 1) for x, y in zip(a, shown[name], strict=True)) > 0.01
                    for a in others
                ):
                    break
            inputs.append((nats, pad_nats, dict(zip(sizes, shown[name], strict=True))))
    inputs += map(_draw_close, EVALUATORS)
    random.shuffle(inputs)

    def by_change(nats: Texts, pad_nats: float, reported: dict[int, float]) -> str:
        values = list(reported.values())
        if max(values) / min(values) - 1 < 1e-6:
            return "right"
        return _diagnose(nats, pad_nats, reported)

    def one_word(word: str) -> tuple[Callable, str]:
        return (lambda *given: word), f'you say "{word}" whatever was reported'

    mistakes = [
        (
            by_change,
            "numbers that do not change are not yet right: compute what each evaluator would print "
            "at the sizes that are there",
        ),
        *map(one_word, EVALUATORS),
    ]
    same_for_all(
        attempt,
        inputs,
        _diagnose,
        mistakes,
        form=lambda found: need_word(found, *EVALUATORS),
        what="the evaluator",
    )
    return "each of the four is told apart, also from a single number"


Spans = list[tuple[int, int]]


def _bits(
    text: str,
    spans: Spans,
    nats: list[float],
    first: int,
    *,
    scored: Callable = lambda start, end, first: start >= first,
    length: Callable = lambda text: len(text.encode()),
    unit: float = math.log(2),
    of: Callable = lambda text, chosen, first: text[chosen[0][0] :],
) -> float:
    chosen = [(span, n) for span, n in zip(spans, nats, strict=True) if scored(*span, first)]
    part = of(text, [span for span, _ in chosen], first)
    return sum(n for _, n in chosen) / unit / length(part)


@checks("16c.2")
def bits_on_a_mask(attempt: Callable) -> str:
    pieces = ["我", "爱你", "tea ", "é", "naïve", " and", "书。", "x", " 12", "水水"]
    inputs = []
    for straddle in (True, False, True, False):
        words = random.sample(pieces, 6) + ["我爱", " ab ", "你们"]
        ends = [len("".join(words[: i + 1])) for i in range(len(words))]
        spans = [(end - len(word), end) for word, end in zip(words, ends, strict=True)]
        first = spans[6][0] + 1 if straddle else spans[random.randint(2, 6)][0]
        nats = [round(random.uniform(0.1, 6), 3) for _ in spans]
        inputs.append(("".join(words), spans, nats, first))
    text, spans, nats, _ = inputs[0]
    inputs.append((text, spans, nats, 0))

    def wrong(**other: object) -> Callable:
        return lambda *given: _bits(*given, **other)

    mistakes = [
        (wrong(length=len), "divided by characters: 我 is one character and three bytes"),
        (wrong(unit=1.0), "this is in nats: a bit is ln 2 of them"),
        (wrong(unit=1 / math.log(2)), "multiplied by ln 2: a nat is 1 / ln 2 bits"),
        (
            wrong(of=lambda text, chosen, first: text),
            "divided by the bytes of the whole text: only those of scored tokens count",
        ),
        (
            wrong(of=lambda text, chosen, first: text[first:]),
            "the second half of a token that is not scored counts among the bytes",
        ),
        (
            wrong(scored=lambda start, end, first: end > first),
            "a token that begins before `first` is scored",
        ),
        (wrong(scored=lambda start, end, first: True), "tokens before `first` are scored"),
        (
            lambda t, s, n, f: sum(n) / math.log(2) / len(t[f:].encode()),
            "the nats of all tokens, by the bytes of some",
        ),
        (
            lambda t, s, n, f: (
                sum(x for (a, _), x in zip(s, n, strict=True) if a >= f)
                / math.log(2)
                / sum(a >= f for a, _ in s)
            ),
            "these are bits per token",
        ),
        (
            lambda t, s, n, f: (
                sum(x / len(t[a:b].encode()) for (a, b), x in zip(s, n, strict=True) if a >= f)
                / math.log(2)
                / sum(a >= f for a, _ in s)
            ),
            "a mean of the tokens' own ratios: add up first, divide once",
        ),
    ]
    same_for_all(attempt, inputs, _bits, mistakes, form=need_number, what="bits per byte")
    return "the same bytes for every tokenizer: whole tokens behind the mark, in bits, in UTF-8"


def _first_least(costs: list[float]) -> int:
    return costs.index(min(costs))


def _pick(nats: list[float], sizes: list[int], alone: list[float], rule: str) -> int:
    if rule == "sum":
        return _first_least(nats)
    if rule == "byte":
        return _first_least([n / size for n, size in zip(nats, sizes, strict=True)])
    return _first_least([n - a for n, a in zip(nats, alone, strict=True)])


def _whole_place(found: object) -> int:
    return need_whole(found, "the place", low=0)


def _pick_mistakes() -> list[tuple[Callable, str]]:
    def instead(rule: str, other: Callable) -> Callable:
        def answer(nats: list[float], sizes: list[int], alone: list[float], asked: str) -> int:
            if asked == rule:
                return other(nats, sizes, alone)
            return _pick(nats, sizes, alone, asked)

        return answer

    def last_least(costs: list[float]) -> int:
        return len(costs) - 1 - costs[::-1].index(min(costs))

    def all_last(nats: list[float], sizes: list[int], alone: list[float], rule: str) -> int:
        costs = {
            "sum": nats,
            "byte": [n / s for n, s in zip(nats, sizes, strict=True)],
            "prior": [n - a for n, a in zip(nats, alone, strict=True)],
        }
        return last_least(costs[rule])

    return [
        (lambda n, s, a, rule: _pick(n, s, a, "sum"), "all rules compare the sums alone"),
        (
            instead(
                "prior",
                lambda n, s, a: _first_least([x / y for x, y in zip(n, a, strict=True)]),
            ),
            '"prior" divides: what the context adds is a difference of logarithms',
        ),
        (
            instead("prior", lambda n, s, a: _first_least(a)),
            '"prior" takes the choice that is likeliest without the context',
        ),
        (
            instead(
                "prior",
                lambda n, s, a: _first_least([y - x for x, y in zip(n, a, strict=True)]),
            ),
            '"prior" has the sign reversed: the context must make the choice cheaper',
        ),
        (
            instead(
                "byte",
                lambda n, s, a: _first_least([x * y for x, y in zip(n, s, strict=True)]),
            ),
            '"byte" multiplies by the length: divide',
        ),
        (
            lambda n, s, a, rule: _pick([-x for x in n], s, [-x for x in a], rule),
            "the dearest choice wins: nats are costs, the least is the likeliest",
        ),
        (all_last, "of equal choices the last one is taken: take the first"),
    ]


@checks("16c.3")
def pick(attempt: Callable) -> str:
    inputs = []
    for rule in ("sum", "byte", "prior"):
        for low, high in ((-2, 9), (-9, -1)) * 2:  # in the second, the context makes all dearer
            while True:  # an item on which this rule parts from the others and from its mistakes
                sizes = random.sample(range(2, 30), 5)
                nats = [round(random.uniform(1, 20), 2) for _ in sizes]
                alone = [round(max(0.5, n + random.uniform(low, high)), 2) for n in nats]
                wrong = [
                    _pick(nats, sizes, alone, r) for r in ("sum", "byte", "prior") if r != rule
                ]
                pairs = list(zip(nats, sizes, alone, strict=True))
                forms = ([-n for n in nats], alone, [n * s for n, s, _ in pairs])
                forms += ([n / a for n, _, a in pairs], [a - n for n, _, a in pairs])
                forms += ([-s for s in sizes], [(n - a) / s for n, s, a in pairs])
                if high < 0:
                    forms += ([0.0],)  # none is made likelier: not the first for that reason
                if _pick(nats, sizes, alone, rule) not in (*wrong, *map(_first_least, forms)):
                    break
            inputs.append((nats, sizes, alone, rule))
        # equal choices: the first of them, though it is the longer one
        inputs.append(([9.0, 2.0, 8.0, 2.0], [3, 4, 3, 4], [9.0, 6.0, 8.0, 6.0], rule))
        nats = [9.0, 4.0 if rule == "byte" else 2.0, 8.0, 2.0]
        inputs.append((nats, [3, 8, 3, 4], [9.0, 6.0, 8.0, 6.0], rule))
        inputs.append(([2.0] * 6, [4] * 6, [5.0] * 6, rule))

    same_for_all(attempt, inputs, _pick, _pick_mistakes(), form=_whole_place, what="the place")
    return "three rules, three winners; of equal choices the first"


def _needed(disagree: float, difference: float, z: float = 1.96 + 0.84) -> float:
    return z**2 * (disagree - difference**2) / difference**2


def _plan(disagree: float, difference: float, per_entity: int, correlation: float) -> int:
    effect = 1 + (per_entity - 1) * correlation
    return math.ceil(_needed(disagree, difference) * effect / per_entity)


def _plan_mistakes() -> list[tuple[Callable, str]]:
    def wrong(form: Callable) -> Callable:
        return lambda d, x, m, rho: form(d, x, m, rho, 1 + (m - 1) * rho)

    return [
        (
            wrong(lambda d, x, m, rho, e: math.ceil(_needed(d, x) / m)),
            "the correlation is left out: questions about one entity bring less than as many "
            "entities",
        ),
        (
            wrong(lambda d, x, m, rho, e: math.ceil(_needed(d, x) * e)),
            "this is the number of questions: return the number of entities",
        ),
        (
            wrong(lambda d, x, m, rho, e: math.ceil(_needed(d, x) * (1 + m * rho) / m)),
            "1 + m·ρ: a question has m - 1 others beside it",
        ),
        (
            wrong(lambda d, x, m, rho, e: math.ceil(_needed(d, x) / e / m)),
            "divided by 1 + (m - 1)ρ: correlation makes more entities necessary",
        ),
        (
            wrong(lambda d, x, m, rho, e: math.floor(_needed(d, x) * e / m)),
            "rounded down: one entity too few",
        ),
        (
            wrong(lambda d, x, m, rho, e: round(_needed(d, x) * e / m)),
            "rounded to the nearest: the power must be reached, so round up",
        ),
        (
            wrong(lambda d, x, m, rho, e: math.ceil(_needed(d, x, 1.96) * e / m)),
            "without the 0.84: half of such exams would miss the difference",
        ),
        (
            wrong(lambda d, x, m, rho, e: math.ceil(math.ceil(_needed(d, x)) * e / m)),
            "rounded up twice: round once, at the end",
        ),
        (
            wrong(lambda d, x, m, rho, e: math.ceil(2.8 * (d - x**2) / x**2 * e / m)),
            "1.96 + 0.84 is not squared",
        ),
        (
            wrong(lambda d, x, m, rho, e: math.ceil(2.8**2 * (d - x**2) / x * e / m)),
            "the difference is not squared",
        ),
        (
            wrong(lambda d, x, m, rho, e: _needed(d, x) * e / m),
            "this is no whole number: round up",
        ),
    ]


@checks("16c.4")
def plan(attempt: Callable) -> str:
    inputs = []
    for per_entity, correlation in ((1, 0.5), (4, 0.0), (5, 0.3), (8, 0.6), (10, 0.9), (3, 0.45)):
        while True:
            disagree = round(random.uniform(0.08, 0.4), 3)
            difference = round(random.uniform(0.02, min(0.06, disagree / 2)), 3)
            exact = _needed(disagree, difference) * (1 + (per_entity - 1) * correlation)
            # far from a whole number: no rounding error may decide
            if 0.05 < exact / per_entity % 1 < 0.45:
                break
        inputs.append((disagree, difference, per_entity, correlation))
    for per_entity, correlation in ((8, 0.6), (10, 0.9), (6, 0.8)):
        while True:  # who rounds up before the end as well takes one too many
            disagree = round(random.uniform(0.08, 0.4), 3)
            difference = round(random.uniform(0.02, min(0.06, disagree / 2)), 3)
            effect = (1 + (per_entity - 1) * correlation) / per_entity
            early = math.ceil(_needed(disagree, difference)) * effect
            least = _plan(disagree, difference, per_entity, correlation)
            if least - _needed(disagree, difference) * effect > 0.03 < early - least:
                break
        inputs.append((disagree, difference, per_entity, correlation))

    same_for_all(
        attempt,
        inputs,
        _plan,
        _plan_mistakes(),
        form=lambda found: need_number(found, "the number of entities"),
        what="the number of entities",
        rtol=1e-9,
        atol=1e-9,
    )
    return "enough entities, and not one too many"


Runs = list[list[int]]


def _share(run: list[int]) -> float:
    return sum(run) / len(run)


def _best(runs: Runs) -> int:
    shares = [_share(run) for run in runs]
    return shares.index(max(shares))


def _crossed(outcomes: Runs) -> float:
    even, odd = [run[0::2] for run in outcomes], [run[1::2] for run in outcomes]
    return (_share(odd[_best(even)]) + _share(even[_best(odd)])) / 2


def _draw_outcomes(runs: int, questions: int) -> Runs:
    return [
        [int(random.random() < random.uniform(0.3, 0.9)) for _ in range(questions)]
        for _ in range(runs)
    ]


def _tied_runs() -> list[tuple[Runs]]:
    """Runs that are equally good in a half: the first counts."""
    tied: list[Runs] = [
        [[1, 1, 0, 0], [0, 1, 1, 1]],
        [[1, 0, 0, 1], [0, 1, 1, 1], [1, 1, 0, 1]],
        [[1, 0]],
    ]
    # five equals in one half, then in the other: who draws among them is rarely right
    even, odd = [(1, 0), (0, 1), (1, 0), (0, 1), (1, 0)], [(0, 0), (1, 0), (0, 1), (1, 1), (1, 0)]
    for one, two in ((even, odd), (odd, even)):
        tied.append([[a, b, c, d] for (a, c), (b, d) in zip(one, two, strict=True)])
    return [(runs,) for runs in tied]


@checks("16c.5")
def honest_score(attempt: Callable) -> str:
    def last_best(runs: Runs) -> int:
        shares = [_share(run) for run in runs]
        return len(shares) - 1 - shares[::-1].index(max(shares))

    def last_of_equals(outcomes: Runs) -> float:
        even, odd = [run[0::2] for run in outcomes], [run[1::2] for run in outcomes]
        return (_share(odd[last_best(even)]) + _share(even[last_best(odd)])) / 2

    def own_half(outcomes: Runs) -> float:
        halves = [[run[k::2] for run in outcomes] for k in (0, 1)]
        return sum(max(map(_share, half)) for half in halves) / 2

    def front_and_back(outcomes: Runs) -> float:
        middle = len(outcomes[0]) // 2
        one, two = [run[:middle] for run in outcomes], [run[middle:] for run in outcomes]
        return (_share(two[_best(one)]) + _share(one[_best(two)])) / 2

    def weighed(outcomes: Runs) -> float:
        even, odd = [run[0::2] for run in outcomes], [run[1::2] for run in outcomes]
        right = sum(odd[_best(even)]) + sum(even[_best(odd)])
        return right / len(outcomes[0])

    def one_way(outcomes: Runs) -> float:
        return _share([run[1::2] for run in outcomes][_best([run[0::2] for run in outcomes])])

    def other_way(outcomes: Runs) -> float:
        return _share([run[0::2] for run in outcomes][_best([run[1::2] for run in outcomes])])

    mistakes = [
        (
            lambda o: max(map(_share, o)),
            "the best score of all: it was chosen by the questions that it is reported on",
        ),
        (own_half, "each half is reported on the questions that chose the run"),
        (one_way, "one direction only: the odd places choose as well, and the even ones report"),
        (other_way, "one direction only: the even places choose as well, and the odd ones report"),
        (front_and_back, "front and back half: take the even and the odd places"),
        (last_of_equals, "of equally good runs the last one is taken: take the first"),
        (weighed, "pooled over questions: return the mean of the two shares"),
        (lambda o: sum(map(_share, o)) / len(o), "this is the mean of all runs: none is chosen"),
    ]
    inputs: list[tuple[Runs]] = []
    while len(inputs) < 6:  # draws in which every mistake gives another number
        questions = random.choice((9, 11)) if len(inputs) % 2 else random.choice((8, 10))
        outcomes = _draw_outcomes(random.randint(4, 6), questions)
        values = [mistake(outcomes) for mistake, _ in mistakes]
        parts = [v for (m, _), v in zip(mistakes, values, strict=True) if m is not last_of_equals]
        if questions % 2 == 0:
            parts.remove(weighed(outcomes))
        if all(abs(value - _crossed(outcomes)) > 1e-6 for value in parts):
            inputs.append((outcomes,))
    inputs += _tied_runs()
    same_for_all(attempt, inputs, _crossed, mistakes, form=need_number, what="the score")
    return "every question reports on a run that it did not choose"


MOST, LEAST = 700, 0.5
WANTED = ("facts", "list", "json")


@cache
def _load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with contextlib.redirect_stdout(io.StringIO()):
        return load("atlas-base")


@cache
def _reached(counts: tuple[tuple[str, int], ...]) -> dict[str, float]:
    return run_plan(*_load(), dict(counts), seed=0, groups=WANTED)


@checks("16c.6")
def spend(attempt: object) -> str:
    if not isinstance(attempt, dict):
        raise Mistake(f"expected a dict of group and number of lessons, got {shorten(attempt)}")
    unknown = [name for name in attempt if name not in GROUPS]
    if unknown:
        raise Mistake(f"no group {shorten(unknown[0])}: there are {', '.join(GROUPS)}")
    counts = {name: need_whole(n, f"{name}", low=0, high=MOST) for name, n in attempt.items()}
    total = sum(counts.values())
    if not 1 <= total <= MOST:
        raise Mistake(f"{total} lessons: at least 1, and at most {MOST} together")
    right = _reached(tuple(counts.items()))
    shares = ", ".join(f"{name} {right[name]:.0%}" for name in WANTED)
    short = [name for name in WANTED if right[name] < LEAST]
    if short:
        raise Mistake(f"{shares}: {' and '.join(short)} below {LEAST:.0%}; give them more lessons")
    return f"{total} lessons, {shares} on the validation part"
