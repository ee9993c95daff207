"""Checks of chapter 11, data: what you show is what you get."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F

from sft_lab.course.data_runs import plant_leaks
from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    need_list,
    need_number,
    need_tensor,
    normal,
    same,
    same_for_all,
    same_in_all,
    unpack,
)
from sft_lab.duplicates import jaccard, shingles

SYLLABLES = ("ba", "do", "ku", "ri", "ne", "su", "mo", "ta", "li", "ve")
ENOUGH = 0.85  # of leaks found, and of findings that are leaks


def made_up_words(count: int) -> list[str]:
    """Different words; no shingle of one text stands in another by chance."""
    found = {"".join(random.choices(SYLLABLES, k=3)) for _ in range(4 * count)}
    return random.sample(sorted(found), count)


@checks("11.2")
def leaked_share(attempt: Callable) -> str:
    some = made_up_words(40)
    question, other = some[:9], some[10:]
    asked = " ".join(question).capitalize() + "?"
    quoted = " ".join([*other[:12], *question, *other[12:20]])
    begins, ends = " ".join([*question[:5], *other[:4]]), " ".join([*other[4:8], *question[4:]])
    inside = " ".join(question[:6])
    unrelated = " ".join(other)
    again = " ".join([*question[:3], *question[:5]])  # shingles of it stand there twice
    inputs = [
        *((asked, [begins, ends], n) for n in (2, 3, 4)),  # two halves are not the whole
        (asked, [unrelated, quoted, inside], 3),  # 1.0, though the texts are of other lengths
        (asked, [inside, quoted, unrelated], 2),
        (asked, [inside, unrelated], 4),
        (again, [" ".join(question[:3]), unrelated], 2),
        (asked, [unrelated], 3),
        (asked, [], 2),
        ("?!", [asked, "?!"], 2),  # no words, no shingles
        (question[0], [quoted], 3),  # shorter than a shingle: one shingle, all of it
        (question[0], [quoted, f"{question[0]}!"], 3),
    ]

    def best(measure: Callable, choose: Callable = max) -> Callable:
        def answer(question: str, rows: list[str], n: int) -> float:
            asked = shingles(question, n)
            found = [measure(asked, shingles(row, n)) for row in rows]
            return float(choose(found)) if found and asked else 0.0

        return answer

    def union(question: str, rows: list[str], n: int) -> float:
        asked = shingles(question, n)
        everywhere = frozenset().union(*(shingles(row, n) for row in rows))
        return len(asked & everywhere) / len(asked) if asked else 0.0

    def share(asked: frozenset, row: frozenset) -> float:
        return len(asked & row) / len(asked) if asked else 0.0

    def of_the_row(asked: frozenset, row: frozenset) -> float:
        return len(asked & row) / len(row) if row else 0.0

    mistakes = [
        (best(jaccard), "this is Jaccard: divide by the shingles of the question alone"),
        (union, "the shingles of all rows are thrown together: one row must hold them"),
        (best(of_the_row), "divide by the shingles of the question, not by those of the row"),
        (best(share, lambda found: sum(found) / len(found)), "the largest, not the mean"),
        (best(share, lambda found: found[0]), "this is the first row alone: take the largest"),
        (best(share, lambda found: found[-1]), "this is the last row alone: take the largest"),
        (best(lambda a, b: len(a & b)), "this is a count: divide by the question's shingles"),
    ]
    same_for_all(attempt, inputs, best(share), mistakes, form=need_number, what="the share")
    return "a question quoted inside a longer row counts in full, and halves in two rows do not"


@checks("11.3")
def audit(attempt: Callable) -> str:
    hits = flagged = planted = 0
    verbatim = reworded = 0
    for _ in range(6):
        exam, rows, leaked = plant_leaks(random.random())
        found = need_list(attempt(exam, rows), int, "places in the exam, such as [0, 7]")
        if len(set(found)) < len(found):
            raise Mistake("a place stands there twice: name each leaked question once")
        if any(not 0 <= place < len(exam) for place in found):
            raise Mistake(
                f"{max(found, key=abs)} is no place in an exam of {len(exam)} questions: return "
                "places in the exam, not in the tuning set"
            )
        asked = {row[0]["content"] for row in rows}
        word_for_word = {place for place in leaked if exam[place][0]["content"] in asked}
        hits, flagged = hits + len(leaked & set(found)), flagged + len(found)
        planted += len(leaked)
        verbatim += len(word_for_word & set(found))
        reworded += len(leaked - word_for_word)
    missed = planted - hits
    if hits < ENOUGH * planted:
        only = hits == verbatim and verbatim
        why = (
            "all that you found stand there word for word; a reworded question keeps its answer, "
            "so compare question and answer"
            if only
            else "lower the threshold, or compare more of the text: question and answer"
        )
        raise Mistake(f"{missed} of {planted} leaked questions were not found: {why}")
    if hits < ENOUGH * flagged:
        raise Mistake(
            f"{flagged - hits} of {flagged} findings never leaked: they share a wording with a row "
            "and ask about something else. Longer shingles, a higher threshold, or the answers "
            "tell them apart"
        )
    return f"{hits} of {planted} leaks found, {flagged - hits} false alarms, on six fresh sets"


@checks("11.4")
def kd_loss(attempt: Callable) -> str:
    losses = []
    for temperature, rows in ((random.uniform(1.5, 2.2), 3), (random.uniform(3, 5), 5), (1.0, 2)):
        student, teacher = normal(rows, 7).mul(3), normal(rows, 7).mul(3)
        teacher[0, 0] = 6000.0  # sure at every temperature: 0 · log 0 must be 0
        student.requires_grad_()
        teacher.requires_grad_()
        found = need_tensor(attempt(student, teacher, temperature), "the loss")
        right, hints = _kd_of(student.detach(), teacher.detach(), temperature)
        given = f"{rows} rows of 7 logits, temperature {temperature:.2f}"
        losses.append(Case(found.detach(), right, hints, given))
        _check_gradients(found, student, teacher)
    same_in_all(losses, what="the loss")
    return "T² · KL, exact where the teacher is certain; no gradient reaches the teacher"


def _kd_of(student: torch.Tensor, teacher: torch.Tensor, t: float) -> tuple[torch.Tensor, list]:
    """The distillation loss, from torch's own kl_div, and what usual mistakes give."""
    log_q, log_p = (student / t).log_softmax(-1), (teacher / t).log_softmax(-1)

    def kl(log_q: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)

    cross = -(log_p.exp() * log_q).sum(-1).mean()
    return t**2 * kl(log_q, log_p), [
        (
            kl(log_q, log_p),
            "T² is missing: without it the gradient shrinks as the temperature grows",
        ),
        (t * kl(log_q, log_p), "the factor is T², not T"),
        (t**2 * kl(log_p, log_q), "the other way round: the teacher's probabilities weigh the sum"),
        (
            t**2 * kl(log_q, log_p) / student.shape[1],
            "a mean over all numbers: sum over the vocabulary first",
        ),
        (t**2 * kl(log_q, log_p) * len(student), "this is the sum over the rows: take their mean"),
        (
            t**2 * kl(student.log_softmax(-1), log_p),
            "the student's logits are to be divided by the temperature too",
        ),
        (
            t**2 * kl(log_q, teacher.log_softmax(-1)),
            "the teacher's logits are to be divided by the temperature too",
        ),
        (t**2 * cross, "this is the cross-entropy: the teacher's own entropy is to be taken off"),
    ]


def _check_gradients(loss: torch.Tensor, student: torch.Tensor, teacher: torch.Tensor) -> None:
    if not loss.requires_grad:
        raise Mistake("no gradient flows to the student: stay in torch, without .item()")
    if loss.ndim:
        raise Mistake(f"the loss has shape {tuple(loss.shape)}: return one number, the mean")
    of_student, of_teacher = torch.autograd.grad(loss, (student, teacher), allow_unused=True)
    if of_student is None:
        raise Mistake("the gradient does not reach the student: its logits were detached")
    if of_student.isnan().any() or loss.isnan():
        raise Mistake("nan: where the teacher's probability is 0, log 0 is -inf; use log_softmax")
    if of_teacher is not None and of_teacher.any():
        raise Mistake("the gradient reaches the teacher: detach its logits")


@checks("11.5")
def top_and_control(attempt: Callable) -> str:
    count, prompts = random.choice((4, 5)), 300
    rewards = []
    for _ in range(prompts):
        top = random.choice((-1.0, 0.0, 0.5, 1.0))
        if random.random() < 0.2:
            rewards.append([top] * count)  # nothing to choose
        else:
            marks = [top - random.choice((0.5, 1.0, 2.5)) for _ in range(count)]
            for place in random.sample(range(count), random.choice((1, 3, 3))):
                marks[place] = top  # of equal ones the first
            rewards.append(marks)
    decidable = [place for place, some in enumerate(rewards) if len(set(some)) > 1]
    state = random.getstate()
    tops, control = _selected(attempt, rewards, 0)
    firsts = [(place, rewards[place].index(max(rewards[place]))) for place in decidable]
    hints = [
        (
            [(p, some.index(max(some))) for p, some in enumerate(rewards)],
            "prompts whose rewards are all equal have nothing to choose: leave them out",
        ),
        (
            [(p, _last_highest(rewards[p])) for p in decidable],
            "of equal rewards take the first sample",
        ),
        (
            [(p, rewards[p].index(min(rewards[p]))) for p in decidable],
            "this is the lowest reward",
        ),
    ]
    same(tops, firsts, hints, what="the top samples")
    if [place for place, _ in control] != decidable:
        raise Mistake(
            "the control has other prompts than the top: a matched control takes the same prompts "
            "in the same order, so that only the choice differs"
        )
    _check_uniform(control, tops, rewards)
    if random.getstate() != state:
        raise Mistake("the control comes from the global generator: make a random.Random(seed)")
    if _selected(attempt, rewards, 0)[1] != control:
        raise Mistake("the same seed gives another control: draw from random.Random(seed)")
    if _selected(attempt, rewards, 1)[1] == control:
        raise Mistake("another seed gives the same control: the draw does not depend on the seed")
    return "ties go to the first; the control is a fair draw from all samples of the same prompts"


def _last_highest(rewards: list[float]) -> int:
    return max(range(len(rewards)), key=lambda i: (rewards[i], i))


def _selected(attempt: Callable, rewards: list, seed: int) -> list[list[tuple[int, int]]]:
    parts = unpack(attempt(rewards, seed), "the top samples", "the control")
    found = []
    for part in parts:
        pairs = need_list(part, (tuple, list), "pairs (prompt, sample)")
        if any(len(pair) != 2 for pair in pairs):
            raise Mistake("each item is a pair (prompt, sample), both counted from 0")
        found.append([tuple(map(int, pair)) for pair in pairs])
    return found


def _check_uniform(control: list, tops: list, rewards: list[list[float]]) -> None:
    """Every place is drawn about equally often, the top as often as any; more than five standard
    deviations from that is no chance."""
    total, count = len(control), len(rewards[0])
    if any(not 0 <= sample < count for _, sample in control):
        raise Mistake(f"a prompt has samples 0 to {count - 1}; the control names another")
    even = [1 / count] * total
    highest = [rewards[i].count(max(rewards[i])) / count for i, _ in control]
    at_top = sum(one == other for one, other in zip(control, tops, strict=True))
    places = [sum(sample == place for _, sample in control) for place in range(count)]
    if at_top == 0 and all(places):
        raise Mistake("the control never takes the top: it draws from all samples, that one too")
    for drawn, shares, what in [
        (at_top, even, "the top"),
        *((n, even, f"sample {i}") for i, n in enumerate(places)),
        (sum(rewards[i][k] == max(rewards[i]) for i, k in control), highest, "a highest reward"),
        (sum(one[1] == other[1] for one, other in pairwise(control)), even, "the place of before"),
    ]:
        if abs(drawn - sum(shares)) > 5 * sum(p * (1 - p) for p in shares) ** 0.5:
            raise Mistake(
                f"the control takes {what} {drawn} times of {total}; a fair draw from {count} "
                f"samples, anew for each prompt, takes it about {sum(shares):.0f} times"
            )


Rows = list[dict[str, float]]


def _rows_of(designs: dict[tuple[int, float], Sequence[float]]) -> Rows:
    """A row for each score, seed after seed."""
    runs = [(seed, d, score) for d, some in designs.items() for seed, score in enumerate(some)]
    return [
        {"distinct": distinct, "wrong": wrong, "seed": seed, "facts": score}
        for seed, (distinct, wrong), score in sorted(runs, key=lambda run: run[0])
    ]


def _recorded_designs() -> list[tuple[Rows, dict[float, float], float]]:
    """Recorded rows, prices and a bar, for each case that decides."""
    prices = {0.5: 1.0, 0.0: 10.0, 0.25: 4.0}
    # design: (rows, wrong share): the scores of three seeds
    fixed = {
        (24, 0.0): (0.72, 0.95, 0.96),  # 240: the mean reaches the bar, the worst seed does not
        (96, 0.25): (0.80, 0.85, 0.90),  # 384: right for 0.8; exactly at the bar
        (384, 0.5): (0.79, 0.99, 0.99),  # 384
        (60, 0.0): (0.95, 0.95, 0.97),  # 600: the best, not the cheapest
        (300, 0.25): (0.85, 0.86, 0.86),  # 1200
        (12, 0.25): (0.1, 0.2, 0.3),  # 48
    }
    shift = random.choice((0.0, 0.01, -0.02))
    moved = {d: [round(s + shift, 4) for s in scores] for d, scores in fixed.items()}
    inputs = []
    for bar in (0.8, 0.9, 0.999):
        rows = _rows_of(moved)
        inputs.append((random.sample(rows, len(rows)), prices, round(bar + shift, 4)))
    one_fails = {
        (24, 0.5): (0.7, 0.9, 0.9),  # 24
        (48, 0.5): (0.9, 0.7, 0.9),  # 48
        (24, 0.25): (0.9, 0.9, 0.7),  # 96
        (12, 0.0): (0.9, 0.7, 0.9),  # 120
        (24, 0.0): (0.9, 0.9, 0.9),  # 240: right, whatever else has 24 rows, or clean ones
    }
    inputs.append((_rows_of(one_fails), prices, 0.8))
    tied = [((40, 0.0), (0.9, 0.9)), ((100, 0.25), (0.9, 0.9))]  # 400 each: the fewer rows
    inputs += [(_rows_of(dict(some)), prices, 0.9) for some in (tied, tied[::-1])]
    return inputs


@checks("11.1", may_return_none=True)
def cheapest(attempt: Callable) -> str:
    inputs = _recorded_designs()

    def right(
        rows: Rows, prices: dict, bar: float, judge: Callable = min, cost: Callable | None = None
    ) -> list | None:
        scores: dict[tuple, list[float]] = {}
        for row in rows:
            scores.setdefault((row["distinct"], row["wrong"]), []).append(row["facts"])
        good = [design for design, some in scores.items() if judge(some) >= bar]
        price = cost or (lambda design: design[0] * prices[design[1]])
        best = min(good, key=lambda design: (price(design), design[0]), default=None)
        return None if best is None else list(best)

    def mean(some: list[float]) -> float:
        return sum(some) / len(some)

    mistakes = [
        (lambda *a: right(*a, judge=mean), "the mean hides a bad seed: the worst must reach it"),
        (lambda *a: right(*a, judge=max), "this looks at the best seed: the worst must reach it"),
        (
            lambda *a: right(*a, cost=lambda d: d[0]),
            "this has the fewest rows: count what they cost",
        ),
        (lambda r, p, b: right(r, p, b, cost=lambda d: p[d[1]]), "the price is for each row"),
        (lambda *a: right(*a, cost=lambda d: -d[0]), "this has the most rows, not the lowest cost"),
        (
            lambda r, p, b: right(r, p, b, judge=lambda some: min(some) - 1e-9),
            "a score equal to the bar reaches it",
        ),
    ]

    def form(found: object) -> list | None:
        return None if found is None else list(unpack(found, "the rows", "the wrong share"))

    same_for_all(attempt, inputs, right, mistakes, form=form, what="the design")
    return "the worst seed decides, the cost is rows times price, and None where nothing will do"
