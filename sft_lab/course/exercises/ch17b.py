"""Checks of chapter 17b, several ways to learn one task."""

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F

from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_finite,
    need_gradient,
    need_number,
    need_tensor,
    need_word,
    normal,
    same,
    same_for_all,
    shorten,
)

Path = list[float]
Rows = list[dict[str, float]]


def _number_or_none(found: object) -> object:
    return found if found is None else need_number(found)


def _forgotten_at(
    accuracy: Path,
    old_loss: Path,
    level: float,
    *,
    reach: Callable = lambda a, b, level: b >= level,
    along: bool = True,
    minus: bool = True,
    beyond: str = "none",
) -> float | None:
    """The right answer; each setting is a usual mistake."""
    start = old_loss[0] if minus else 0.0
    if accuracy[0] >= level:
        return old_loss[0] - start
    pairs = zip(itertools.pairwise(accuracy), itertools.pairwise(old_loss), strict=True)
    for (a, b), (loss, later) in pairs:
        if reach(a, b, level):
            way = (level - a) / (b - a) if along else 1.0
            return loss + way * (later - loss) - start
    return None if beyond == "none" else old_loss[-1] - start


def _last_crossing(accuracy: Path, old_loss: Path, level: float) -> float | None:
    found = None
    if accuracy[0] >= level:
        found = 0.0
    pairs = zip(itertools.pairwise(accuracy), itertools.pairwise(old_loss), strict=True)
    for (a, b), (loss, later) in pairs:
        if a < level <= b:
            found = loss + (level - a) / (b - a) * (later - loss) - old_loss[0]
    return found


def _at_best(accuracy: Path, old_loss: Path, level: float) -> float | None:
    best = max(range(len(accuracy)), key=accuracy.__getitem__)
    return old_loss[best] - old_loss[0] if accuracy[best] >= level else None


def _nearest(accuracy: Path, old_loss: Path, level: float) -> float | None:
    if max(accuracy) < level:
        return None
    place = min(range(len(accuracy)), key=lambda i: abs(accuracy[i] - level))
    return old_loss[place] - old_loss[0]


def _before(accuracy: Path, old_loss: Path, level: float) -> float | None:
    place = next((i for i, a in enumerate(accuracy) if a >= level), None)
    return None if place is None else old_loss[max(0, place - 1)] - old_loss[0]


@checks("17b.1", may_return_none=True)
def forgotten_at(attempt: Callable) -> str:
    def near(*means: float) -> Path:
        return [round(mean + random.uniform(-0.02, 0.02), 3) for mean in means]

    inputs = []
    for _ in range(3):  # the accuracy falls back below the level and rises again
        inputs.append((near(0.4, 0.6, 0.8, 0.65, 0.9), near(0.1, 0.13, 0.2, 0.3, 0.5), 0.7))
    inputs += [
        (near(0.3, 0.5, 0.55), near(0.1, 0.2, 0.4), 0.7),  # never
        (near(0.3, 0.45, 0.6, 0.62), near(0.3, 0.25, 0.2, 0.21), 0.53),  # the old tasks improve
        (near(0.8, 0.7, 0.9), near(0.1, 0.2, 0.4), 0.7),  # at once
        ([0.25, 0.5, 0.75, 0.875], near(0.1, 0.15, 0.3, 0.4), 0.75),  # exactly, at a checkpoint
        ([0.5, 0.25, 0.75], near(0.2, 0.3, 0.4), 0.5),  # exactly, at the start
        ([0.25, 0.75, 0.5], near(0.1, 0.3, 0.25), 0.75),  # exactly, and it ends below the level
        (near(0.4, 0.6, 0.8, 0.65), near(0.1, 0.13, 0.2, 0.3), 0.7),  # ends below the level
        ([0.25, 0.5], near(0.1, 0.4), 0.375),
    ]
    mistakes = [
        (
            lambda *given: _forgotten_at(*given, along=False),
            "this is the loss at the first checkpoint that has the level: go along the straight "
            "line from the one before to where the level is reached",
        ),
        (_before, "this is the loss at the checkpoint before the level is reached"),
        (_nearest, "this is the checkpoint nearest to the level: take a straight line"),
        (
            lambda *given: _forgotten_at(*given, minus=False),
            "this is the loss of the old tasks: subtract the start's",
        ),
        (_last_crossing, "the level is reached for the first time earlier: the first time counts"),
        (_at_best, "this is the checkpoint with the best accuracy, not the level"),
        (
            lambda *given: _forgotten_at(*given, beyond="last"),
            "a run that never reaches the level has no value there: return None",
        ),
        (
            lambda *given: _forgotten_at(*given) if given[0][-1] >= given[2] else None,
            "a run that falls back in the end had reached the level all the same",
        ),
        (
            lambda *given: _forgotten_at(*given) or None,
            "a start that has reached the level has forgotten nothing: return 0.0, not None",
        ),
        (
            lambda *given: _forgotten_at(*given, reach=lambda a, b, level: b > level),
            "an accuracy equal to the level has reached it",
        ),
        (
            lambda accuracy, old_loss, level: (
                -value if (value := _forgotten_at(accuracy, old_loss, level)) else value
            ),
            "the sign is reversed: a higher loss is more forgotten",
        ),
    ]
    same_for_all(attempt, inputs, _forgotten_at, mistakes, form=_number_or_none, what="the loss")
    return "read at the first time that the level is reached, between checkpoints, above the start"


def _grade(question: str, text: str, stopped: bool) -> float:
    asked = re.findall(r"\d+", question)
    said = re.findall(r"\d+", text)
    if not stopped or not said or int(said[-1]) != sum(map(int, asked)):
        return 0.0
    if re.split(r"\d+", text)[-1].strip(" ."):
        return 0.0
    return float(not Counter(said[:-1]) - Counter(asked))


def _graded_cases() -> list[tuple[str, tuple[str, str, bool], float]]:
    """(what it is, input, right reward), with numbers drawn anew."""
    cases = []
    pairs = [random.sample(range(2, 10), 2) for _ in range(2)]
    pairs += [[0, random.randint(3, 9)], [random.randint(11, 20)] * 2]
    for a, b in pairs:
        c = a + b
        wrong = c + random.choice((1, 2))
        other = random.choice([n for n in range(30, 40) if n not in (c, wrong)])
        told = f"The sum of {a} and {b} is"
        texts = [
            ("a right answer", f"{told} {c}.", True, 1.0),
            ("a right answer in two characters or three", f"{c}.", True, 1.0),
            ("a right answer without a full stop", f"{b} plus {a} makes {c}", True, 1.0),
            ("a right answer with a blank behind it", f"It is {c}. ", True, 1.0),
            ("a right answer with blanks and full stops behind it", f"{c} . ..", True, 1.0),
            ("a right answer without blanks", f"{a}+{b}={c}", True, 1.0),
            ("a wrong answer", f"{told} {wrong}.", True, 0.0),
            ("an answer without a number", "The sum is the sum.", True, 0.0),
            ("the empty answer", "", True, 0.0),
            ("an answer that ran on until it was cut off", f"{told} {c}.", False, 0.0),
            ("a list of guesses", f"{c} {wrong} {other}", True, 0.0),
            ("a list of guesses that ends rightly", f"{other} {wrong} {c}", True, 0.0),
            ("the sum, said twice", f"{told} {c}. {c}.", True, 0.0),
            ("the sum inside a larger number", f"{told} 4{c}.", True, 0.0),
            ("the sum before a wrong one", f"{told} {c}, or {wrong}.", True, 0.0),
            ("the sum, and chatter behind it", f"{told} {c}. This is the main", True, 0.0),
            ("the sum, and another sign behind it", f"{told} {c}{random.choice('!?,')}", True, 0.0),
            ("an addend named too often", f"{a} and {b} and {a} and {a} make {c}.", True, 0.0),
            ("a number from nowhere", f"{told}, as {other} people say, {c}.", True, 0.0),
        ]
        question = f"What is {a} + {b}?"
        cases += [(kind, (question, text, ended), want) for kind, text, ended, want in texts]
    random.shuffle(cases)
    return cases


@checks("17b.2")
def grade(attempt: Callable) -> str:
    honest, cheated = [], []
    for kind, given, wanted in _graded_cases():
        found = need_number(attempt(*given), "the reward")
        if found not in (0.0, 1.0):
            raise Mistake(f"the reward of {given[1]!r} is {found:g}: give 1.0 or 0.0")
        if found != wanted:
            (honest if wanted else cheated).append((kind, given))
    for wrong, earns in ((honest, 0), (cheated, 1)):
        if wrong:
            kind, (question, text, stopped) = wrong[0]
            kinds = ", ".join(dict.fromkeys(kind for kind, _ in wrong))
            ended = "" if stopped else ", which did not end by itself,"
            raise Mistake(f"{question} {text!r}{ended} earns {earns}. Paid wrongly: {kinds}")
    return "right answers in any words are paid; thirteen kinds of wrong and cheating ones are not"


def _mean(rows: Rows, name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


ORDER = ("cold start", "broken", "hacked", "finished")


def _signs(rows: Rows, width: int = 5) -> dict[str, bool]:
    first, last = rows[:width], rows[-width:]
    rise, fall = (_mean(last, name) - _mean(first, name) for name in ("reward", "right"))
    return {
        "cold start": all(row["reward"] == 0 for row in rows),
        "broken": _mean(last, "reward") < max(row["reward"] for row in rows) / 2,
        "hacked": rise >= 0.1 and fall <= -0.1,
        "finished": _mean(last, "no_spread") >= 0.9,
    }


def _diagnose(rows: Rows, order: tuple[str, ...] = ORDER, width: int = 5, **others: bool) -> str:
    signs = {**_signs(rows, width), **others}
    return next((word for word in order if signs[word]), "learning")


def _log(
    steps: int,
    reward: tuple[float, float],
    right: tuple[float, float],
    no_spread: tuple[float, float],
) -> Rows:
    """Straight lines from first to last, and a middle that dips or rises beside them."""

    def line(ends: tuple[float, float], i: int) -> float:
        value = ends[0] + (ends[1] - ends[0]) * min(1.0, max(0.0, (i - 4) / (steps - 9)))
        return round(value * random.uniform(0.98, 1.0), 3)

    names = {"reward": reward, "right": right, "no_spread": no_spread}
    rows = [
        {"step": i + 1, **{name: line(ends, i) for name, ends in names.items()}}
        for i in range(steps)
    ]
    return rows


def _mislead(rows: Rows, first: dict[str, float], last: dict[str, float]) -> Rows:
    """The first and the last row alone say something else than the five that they belong to."""
    rows[0] |= first
    rows[-1] |= last
    return rows


def _logs() -> list[tuple[Rows]]:
    n = random.randint(14, 20)
    none = _log(n, (0.0, 0.0), (0.0, 0.0), (1.0, 1.0))
    late = _log(n, (0.0, 0.0), (0.02, 0.02), (1.0, 0.95))
    late[n // 2] |= {"reward": 0.125}  # one success: not cold; the last five are below its half
    broken = _log(n, (0.3, 0.05), (0.4, 0.1), (0.2, 0.5))
    broken[n // 2] |= {"reward": 0.7}
    quiet = _log(n, (0.4, 0.05), (0.5, 0.1), (0.2, 1.0))  # broken, and every group says the same
    hacked = _log(n, (0.4, 0.9), (0.6, 0.2), (0.1, 0.5))
    settled = _log(n, (0.4, 0.9), (0.6, 0.2), (0.1, 1.0))  # hacked, and finished with it
    finished = _log(n, (0.5, 0.9), (0.4, 0.8), (0.3, 1.0))
    for row in finished[5:-5]:
        row["no_spread"] = 0.1  # half of the rows are not five rows
    finished[-3]["no_spread"] = 0.7  # the mean counts, not each row
    easy = _log(n, (0.97, 0.97), (0.9, 0.9), (1.0, 1.0))
    learning = _log(n, (0.2, 0.6), (0.3, 0.6), (0.2, 0.4))
    costly = _log(n, (0.3, 0.35), (0.6, 0.4), (0.1, 0.2))  # worse, and the reward has not risen
    slow = _log(n, (0.2, 0.5), (0.50, 0.46), (0.2, 0.3))
    peaked = _log(n, (0.1, 0.3), (0.6, 0.3), (0.2, 0.4))  # broken, and hacked with it
    peaked[n // 2] |= {"reward": 0.9}  # one row: no mean of five is that high
    fooled = _log(n, (0.1, 0.5), (0.0, 0.0), (0.2, 0.4))  # nothing was ever right
    faint = _log(n, (0.01, 0.03), (0.01, 0.03), (0.8, 0.7))  # little is not nothing
    misled = _log(n, (0.3, 0.6), (0.3, 0.5), (0.2, 0.5))
    misled = _mislead(
        misled, {"right": 0.95, "reward": 0.1}, {"right": 0.0, "no_spread": 1.0, "reward": 0.55}
    )
    spiked = _log(n, (0.4, 0.9), (0.7, 0.3), (0.1, 0.4))
    spiked = _mislead(spiked, {"reward": 0.95, "right": 0.3}, {"reward": 0.2, "right": 0.9})
    logs = [none, late, broken, quiet, hacked, settled, finished, easy, learning, costly, slow]
    return [(rows,) for rows in (*logs, peaked, fooled, faint, misled, spiked)]


@checks("17b.3")
def diagnose(attempt: Callable) -> str:
    words = (*ORDER, "learning")
    end = {"width": 1}
    mistakes = [
        (
            lambda rows: _diagnose(rows, **end),
            "one row is noise: compare the means of the first five and of the last five rows",
        ),
        (
            lambda rows: _diagnose(rows, ("finished", "cold start", "broken", "hacked")),
            "groups without spread have four causes: look for the other three first",
        ),
        (
            lambda rows: _diagnose(rows, ("cold start", "hacked", "finished", "broken")),
            "a broken run is told before a finished one: every group says the same wrong thing",
        ),
        (
            lambda rows: _diagnose(rows, ("cold start", "hacked", "broken", "finished")),
            "a broken run is told before a hacked one",
        ),
        (
            lambda rows: _diagnose(rows, ("cold start", "broken", "finished", "hacked")),
            "a hacked run is told before a finished one: the policy may be done with cheating",
        ),
        (
            lambda rows: _diagnose(
                rows, hacked=_mean(rows[-5:], "right") - _mean(rows[:5], "right") <= -0.1
            ),
            "hacked means that the reward rises while `right` falls: both",
        ),
        (
            lambda rows: _diagnose(
                rows,
                hacked=_mean(rows[-5:], "reward") - _mean(rows[:5], "reward") >= 0.1
                and _mean(rows[-5:], "right") < _mean(rows[:5], "right"),
            ),
            "a fall of `right` by less than 0.1 is no fall here",
        ),
        (
            lambda rows: _diagnose(
                rows, broken=_mean(rows[-5:], "reward") < _mean(rows[:5], "reward") / 2
            ),
            "broken is measured against the highest reward of any row, not against the start",
        ),
        (
            lambda rows: _diagnose(rows, **{"cold start": _mean(rows[-5:], "reward") == 0}),
            "a cold start never earned anything: look at all rows",
        ),
        (lambda rows: _diagnose(rows, ORDER[:3]), "a finished run is not seen"),
        (lambda rows: "learning", "every run gets the same word"),
    ]
    same_for_all(
        attempt,
        _logs(),
        _diagnose,
        mistakes,
        form=lambda found: need_word(found, *words),
        what="the diagnosis",
    )
    return "sixteen logs told apart, two of them with a first and a last row that mislead"


def _range_of(
    rows: Rows,
    share: float,
    *,
    of: Callable = lambda values: sum(values) / len(values),
    gaps: bool = False,
    bar: Callable | None = None,
    strict: bool = False,
) -> tuple[float, float]:
    """The right answer; each setting is a usual mistake."""
    rates = sorted({row["rate"] for row in rows})
    means = {rate: of([row["right"] for row in rows if row["rate"] == rate]) for rate in rates}
    best = max(rates, key=means.__getitem__)  # the lowest of several: max takes the first
    least = share * means[best] if bar is None else bar(rows, means, share)
    works = {rate: means[rate] > least if strict else means[rate] >= least for rate in rates}
    if gaps:
        some = [rate for rate in rates if works[rate]]
        return some[0], some[-1]
    low = high = rates.index(best)
    while low > 0 and works[rates[low - 1]]:
        low -= 1
    while high + 1 < len(rates) and works[rates[high + 1]]:
        high += 1
    return rates[low], rates[high]


def _sweep_of(means: list[float], spread: float = 0.03, **one: float) -> Rows:
    """Rows of a sweep over rates, three seeds each, in random order; the mean is exact. One rate,
    the second, may have another spread: its first seed is so much above its mean."""
    rates = [round(10 ** (-5 + 0.5 * i), 7) for i in range(len(means))]
    rows = []
    for place, (rate, mean) in enumerate(zip(rates, means, strict=True)):
        wide = one.get("second", spread) if place == 1 else spread
        for seed, off in enumerate((wide, -wide / 2, -wide / 2)):
            rows.append({"rate": rate, "seed": seed, "right": round(mean + off, 4)})
    random.shuffle(rows)
    return rows


def _pair_of_rates(found: object) -> list[float]:
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Mistake(f"return two rates, (lowest, highest), not {shorten(found)}")
    return [need_number(value, "a rate") for value in found]


def _sweeps() -> list[tuple]:
    def near(*means: float) -> list[float]:
        return [round(mean + random.uniform(-0.01, 0.01), 3) for mean in means]

    # eighths: the two means are equal in whatever order they are summed
    twice = _sweep_of([0.25, 0.75, 0.375, 0.75, 0.25], spread=0.125)
    twice.sort(key=lambda row: -row["rate"])
    lucky = _sweep_of(near(0.2, 0.6, 0.8, 0.6), spread=0.02, second=0.3)
    lucky.sort(key=lambda row: -row["seed"])
    unlucky = _sweep_of(near(0.2, 0.77, 0.8, 0.6), spread=0.02, second=-0.3)
    unlucky.sort(key=lambda row: row["seed"])
    sweeps = [
        (_sweep_of(near(0.3, 0.6, 0.78, 0.8, 0.3)), 0.9),
        (_sweep_of(near(0.3, 0.75, 0.5, 0.8, 0.76, 0.1)), 0.9),  # a gap below the best
        (_sweep_of(near(0.76, 0.77, 0.8, 0.4, 0.77)), 0.9),  # a gap above it
        (_sweep_of(near(0.1, 0.2, 0.9, 0.2, 0.1)), 0.9),  # one alone
        (_sweep_of(near(0.5, 0.6, 0.7, 0.8)), 0.6),  # up to both ends
        (twice, 0.9),  # two best: the lowest counts, though the highest stands first
        (_sweep_of(near(0.5, 0.77, 0.8, 0.3)),),  # the share that the stub names
        (_sweep_of(near(0.05, 0.15, 0.4, 0.25, 0.1)), 0.5),  # a low best: no 0.5 to take off
        (_sweep_of(near(0.76, 0.77, 0.76, 0.4, 0.8, 0.3)), 0.9),  # more rates work elsewhere
        (_sweep_of(near(0.45, 0.56, 0.67, 0.8)), 0.8),  # each works beside its neighbour
        (_sweep_of([0.2, 0.5, 1.0, 0.5, 0.2], spread=0.0), 0.5),  # exactly the share
        (_sweep_of(near(0.2, 0.75, 0.8, 0.62, 0.1), spread=0.12), 0.9),  # lucky runs
        (lucky, 0.9),  # one lucky run of a poor rate, the last of its rows
        (unlucky, 0.9),  # one unlucky run, the first of its rows
    ]
    random.shuffle(sweeps)
    return sweeps


@checks("17b.4")
def working_range(attempt: Callable) -> str:
    inputs = _sweeps()

    def mistake(**how: object) -> Callable:
        return lambda rows, share=0.9: list(_range_of(rows, share, **how))

    def rates_of(rows: Rows) -> list[float]:
        return sorted({row["rate"] for row in rows})

    mistakes = [
        (mistake(gaps=True), "there is a rate between that does not work: stop at the first gap"),
        (mistake(of=max), "this judges a rate by its best run: take the mean over the seeds"),
        (mistake(of=min), "this judges a rate by its worst run: take the mean over the seeds"),
        (
            mistake(bar=lambda rows, means, share: share * max(row["right"] for row in rows)),
            "the bar is a share of the best mean, not of the best run",
        ),
        (
            mistake(bar=lambda rows, means, share: max(means.values()) - (1 - share)),
            "the bar is share times the best mean: you subtracted",
        ),
        (mistake(bar=lambda rows, means, share: share), "the bar is share times the best mean"),
        (mistake(strict=True), "a mean equal to the bar works"),
        (
            lambda rows, share=0.9: [rates_of(rows)[0], rates_of(rows)[-1]],
            "these are the lowest and the highest rate tried",
        ),
        (lambda rows, share=0.9: _range_of(rows, share)[::-1], "return (lowest, highest)"),
    ]
    same_for_all(
        attempt,
        inputs,
        lambda rows, share=0.9: list(_range_of(rows, share)),
        mistakes,
        form=_pair_of_rates,
        what="the range",
        atol=1e-12,
    )
    return "a range around the best mean without a gap, whatever the order of the rows"


@checks("17b.5")
def preference_loss(attempt: Callable) -> str:
    def right(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return F.softplus(rejected - chosen).mean()

    mistakes = [
        (lambda c, r: F.softplus(c - r).mean(), "the sign is reversed: the chosen one scores more"),
        (lambda c, r: F.softplus(r - c).sum(), "this is the sum: take the mean over the pairs"),
        (lambda c, r: (r - c).sigmoid().mean(), "the logarithm is missing"),
        (lambda c, r: -(c - r).sigmoid().mean(), "the logarithm is missing"),
        (lambda c, r: F.logsigmoid(c - r).mean(), "the minus sign is missing"),
        (lambda c, r: (r - c).clamp(min=0).mean(), "this is a hinge: take -log of the sigmoid"),
        (lambda c, r: (1 - (c - r)).clamp(min=0).mean(), "this is a hinge with a margin"),
        (lambda c, r: F.softplus(r.mean() - c.mean()), "take the mean over the pairs last"),
        (lambda c, r: F.softplus(-c).mean(), "the score of the rejected answer does not count"),
        (
            lambda c, r: F.softplus(-c).mean() + F.softplus(r).mean(),
            "only the difference of the two scores may count",
        ),
        (lambda c, r: F.softplus(r - c).mean() / math.log(2), "take the natural logarithm"),
    ]
    inputs = [(2 * normal(n), 2 * normal(n)) for n in (1, 4, 7)]
    shifted = 2 * normal(5)
    inputs += [(shifted, shifted + normal(5) + 3), (shifted, shifted.clone())]
    same_for_all(attempt, inputs, right, mistakes, form=need_tensor, what="the loss")

    for gap in (1000.0, -1000.0):
        chosen, rejected = gap + normal(3), normal(3)
        loss = need_finite(
            attempt(chosen, rejected),
            "the loss is not finite for scores that lie 1,000 apart: log(sigmoid(x)) rounds to "
            "log(0); F.logsigmoid does not",
        )
        same(loss, right(chosen, rejected), what="the loss of scores that lie 1,000 apart")
    chosen, rejected = normal(4).requires_grad_(), normal(4)
    loss = need_gradient(attempt(chosen, rejected), "the scores of the chosen answers")
    (gradient,) = torch.autograd.grad(loss, chosen)
    if not bool((gradient < 0).all()):
        raise Mistake("a step down the loss must raise the scores of the chosen answers")
    rejected.requires_grad_()
    loss = need_gradient(attempt(chosen.detach(), rejected), "the scores of the rejected answers")
    (downwards,) = torch.autograd.grad(loss, rejected)
    same(downwards, -gradient, what="the gradient of the rejected answers' scores")
    return "minus the mean log-probability that the chosen one wins; finite, with its gradient"
