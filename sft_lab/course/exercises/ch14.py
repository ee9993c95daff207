"""Checks of chapter 14, repetition."""

import contextlib
import io
import random
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch

from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    need_tensor,
    normal,
    random_ids,
    random_labels,
    same_for_all,
    same_in_all,
)
from sft_lab.course.repeat_runs import (
    DISEASES,
    PATIENTS,
    WAYS,
    find_loop,
    measure_rows,
    read_patients,
    unlikelihood_loss,
    write_on,
)
from sft_lab.examples import IGNORE_INDEX
from sft_lab.models import load

Loop = tuple[int, int] | None


def _loops() -> list[tuple[list[int], int]]:
    """Texts that end in a loop or do not, and how often a loop is said at least."""
    one, two, three, *head = random_ids(9)
    piece = [one, 0, two]
    pair = [three, 0]
    cases = [
        (head + piece * 3, 3),  # whole pieces
        (head + piece * 4 + piece[:2], 3),  # the end is part of a piece
        ([two, *piece * 3], 3),  # begins inside a piece
        (head + [0] * 4, 3),  # period 1, which is a period 2 as well
        (head + pair * 6, 3),  # period 2, which is a period 4 as well
        (piece * 3, 3),  # nothing but the loop
        (head + piece * 2, 3),  # once too few
        (head + piece * 2, 2),
        (piece * 4 + head, 3),  # a loop that ends before the text does
        (head, 2),
        ([], 2),
        ([0], 2),
        (head + piece * random.randint(4, 6), 4),
    ]
    # a longer piece whose parts repeat inside: its first half is no period of the whole
    cases.append((head + [*pair, *pair, one] * 3, 3))
    cases.append((head + [one, 0, two, 0] * 2, 2))  # its last token stands in it twice
    cases.append((head + [one, 0, 0, one], 2))  # the same tokens twice, in another order
    cases.append((head + [one, 0, two, 0, two, one], 2))
    return cases


def _periods(ids: Sequence[int], times: int) -> list[int]:
    ends = []
    for period in range(1, len(ids) // times + 1):
        last = list(ids[len(ids) - times * period :])
        if last == last[:period] * times:
            ends.append(period)
    return ends


def _no_way_back(ids: Sequence[int], times: int) -> Loop:
    found = find_loop(ids, times)
    return found and (len(ids) - times * found[1], found[1])


def _whole_pieces(ids: Sequence[int], times: int) -> Loop:
    found = find_loop(ids, times)
    if found is None:
        return None
    return len(ids) - (len(ids) - found[0]) // found[1] * found[1], found[1]


def _largest(ids: Sequence[int], times: int) -> Loop:
    periods = _periods(ids, times)
    if not periods:
        return None
    start = len(ids) - max(periods)
    while start and ids[start - 1] == ids[start - 1 + max(periods)]:
        start -= 1
    return start, max(periods)


def _anywhere(ids: Sequence[int], times: int) -> Loop:
    for end in range(len(ids), 0, -1):
        found = find_loop(ids[:end], times)
        if found:
            return found
    return None


@checks("14.1", may_return_none=True)
def loop(attempt: Callable) -> str:
    mistakes = [
        (_no_way_back, "start is where the last `times` pieces begin: go back as far as it holds"),
        (_whole_pieces, "start counts whole pieces only: part of a piece may stand before them"),
        (_largest, "this is the largest period: return the smallest"),
        (lambda ids, times: find_loop(ids, times - 1), "one piece too few is taken for a loop"),
        (lambda ids, times: find_loop(ids, times + 1), "one piece too many is asked for"),
        (_anywhere, "this loop ends before the text does: a loop reaches to the last token"),
        (lambda ids, times: (find_loop(ids, times) or ())[::-1] or None, "start comes first"),
        (lambda ids, times: find_loop(ids, times) or (len(ids), 0), "without a loop: None"),
        (lambda ids, times: find_loop(ids, times) or (), "without a loop: None"),
    ]

    def form(found: Loop) -> Loop:
        if found is None:
            return None
        if not isinstance(found, list | tuple) or len(found) != 2:
            raise Mistake(f"your answer is {found!r}: give (start, period), or None")
        return tuple(found)

    given = [(ids, times) for ids, times in _loops()]
    same_for_all(attempt, given, find_loop, mistakes, form=form)
    return "17 texts: whole and broken pieces, periods inside periods, no loop, no token"


def _copies_by_hand(
    logits: torch.Tensor, ids: torch.Tensor, start: int, length: int, *, shift: int = 1
) -> torch.Tensor:
    """log-probabilities, (copies, length); shift 0 is the mistake of reading row t for token t."""
    log_p = logits.log_softmax(-1)
    found = [log_p[t - shift, ids[t]] for t in range(start, len(ids))]
    return torch.stack(found).view(-1, length)


@checks("14.2")
def copies(attempt: Callable) -> str:
    inputs = []
    for start, length, times in ((1, 3, 4), (4, 2, 5), (2, 5, 2), (3, 4, 1), (1, 1, 6)):
        vocabulary = 11
        sentence = torch.tensor([0, *random.sample(range(1, vocabulary), length - 1)])
        before = torch.randint(0, vocabulary, (start,))
        ids = torch.cat([before, *[sentence] * times])
        inputs.append((normal(len(ids), vocabulary) * 2, ids, start, length))

    def right(logits, ids, start, length):
        return _copies_by_hand(logits, ids, start, length).mean(1)

    def unshifted(logits, ids, start, length):
        return _copies_by_hand(logits, ids, start, length, shift=0).mean(1)

    def of_probabilities(logits, ids, start, length):
        return _copies_by_hand(logits, ids, start, length).exp().mean(1)

    mistakes = [
        (unshifted, "not shifted: row t of the logits predicts token t + 1"),
        (lambda *given: -right(*given), "the sign is reversed: log-probabilities are negative"),
        (of_probabilities, "this is the mean probability: take the mean of its logarithm"),
        (
            lambda *given: of_probabilities(*given).log(),
            "this is the logarithm of the mean: take the mean of the logarithms",
        ),
        (
            lambda *given: _copies_by_hand(*given).sum(1),
            "this is the sum of a copy: divide by its tokens",
        ),
        (
            lambda *given: _copies_by_hand(*given).mean(0),
            "this is a mean for each token of the sentence: one for each copy is asked for",
        ),
        (lambda *given: right(*given)[1:], "the first copy is missing"),
        (
            lambda logits, ids, start, length: _raw_scores(logits, ids, start, length),
            "these are scores (logits): a softmax makes probabilities of them",
        ),
    ]
    same_for_all(attempt, inputs, right, mistakes, form=need_tensor, what="the mean of a copy")
    return "five texts: one copy to six, of one token to five, behind beginnings of any length"


def _raw_scores(logits: torch.Tensor, ids: torch.Tensor, start: int, length: int) -> torch.Tensor:
    found = [logits[t - 1, ids[t]] for t in range(start, len(ids))]
    return torch.stack(found).view(-1, length).mean(1)


def _looked_at(attention: torch.Tensor, length: int, back: int, first: int = 0) -> torch.Tensor:
    """Mean attention from the tokens of the second copy, from its place `first` on, to the place
    `back` before each."""
    places = range(length + first, 2 * length)
    return torch.stack([attention[:, t, t - back] for t in places]).mean(0)


@checks("14.3")
def induction(attempt: Callable) -> str:
    inputs = []
    for heads, length in ((1, 2), (3, 4), (4, 7), (2, 3)):
        scores = normal(heads, 2 * length, 2 * length) * 2
        hidden = torch.ones(2 * length, 2 * length).triu(1).bool()
        inputs.append((scores.masked_fill(hidden, -torch.inf).softmax(-1), length))

    def right(attention, length):
        return _looked_at(attention, length, length - 1)

    mistakes = [
        (
            lambda attention, length: _looked_at(attention, length, length),
            "this is the attention to the same token in the first copy: take the one behind it",
        ),
        (
            lambda attention, length: _looked_at(attention, length, length + 1),
            "this is the attention to the token before: take the one behind the same token",
        ),
        (
            lambda attention, length: right(attention.mT, length),
            "rows and columns are swapped: row t is what token t takes from each place",
        ),
        (
            lambda attention, length: attention.diagonal(1 - length, 1, 2).mean(-1),
            "the last token of the first copy is counted, too: it has no copy before it",
        ),
        (
            lambda attention, length: torch.stack(
                [attention[:, t, t - length + 1] for t in range(length, 2 * length - 1)]
            ).mean(0),
            "the last token of the second copy is missing",
        ),
        (
            lambda attention, length: _looked_at(attention, length, length - 1, 1),
            "the first token of the second copy is missing",
        ),
        (
            lambda attention, length: right(attention, length) * length,
            "this is the sum: divide by the tokens of the second copy",
        ),
        (
            lambda attention, length: right(attention, length) / 2,
            "divided by all tokens: only those of the second copy count",
        ),
        (
            lambda attention, length: right(attention, length).mean(),
            "this is the mean of all heads: one score for each head is asked for",
        ),
    ]
    same_for_all(attempt, inputs, right, mistakes, form=need_tensor, what="the score")
    return "four tables of attention: one head to four, rows of two tokens to seven"


def _negatives(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    keep_target: bool = False,
    ignored: int | None = None,
    counted: bool = False,
    later: bool = False,
    across: bool = False,
    shift: int = 1,
) -> tuple[torch.Tensor, int, int]:
    """Sum of the costs, graded tokens and candidates; with the switches, of usual mistakes."""
    log_rest = torch.log1p(-logits.softmax(-1))
    total, graded, candidates = logits.new_zeros(()), 0, 0
    seen: list[int] = []
    for row, line in enumerate(labels.tolist()):
        seen = seen if across else []
        if later:
            seen = [token for token in line if token != IGNORE_INDEX]
        for t, target in enumerate(line):
            if target != IGNORE_INDEX and t >= 1:
                graded += 1
                negative = seen if counted else sorted(set(seen))
                negative = [c for c in negative if keep_target or c != target]
                candidates += len(negative)
                total = total - log_rest[row, t - shift, negative].sum()
            if target != IGNORE_INDEX and not later:
                seen.append(target)
            elif target == IGNORE_INDEX and ignored is not None:
                seen.append(ignored)
    return total, graded, candidates


def _batches_with_candidates() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Logits and labels in which earlier tokens come again."""
    vocabulary, inputs = 9, []
    for rows, length in ((1, 9), (3, 11), (2, 10), (2, 12)):
        labels = random_labels(rows, length, vocabulary)
        for row in labels:  # a token stands twice, and once behind itself
            first = int((row != IGNORE_INDEX).nonzero()[0])
            row[first + 1] = row[first]
        inputs.append((normal(rows, length, vocabulary), labels))
    one = torch.full((1, 8), IGNORE_INDEX)
    one[0, 2:6] = torch.tensor([4, 0, 4, 0])  # each token is the other's candidate
    inputs.append((normal(1, 8, vocabulary), one))
    for rows in (1, 2, 3):  # a label in place 0: not graded, and a candidate
        labels = torch.randint(0, vocabulary - 1, (rows, 7))
        labels[:, 0] = vocabulary - 1
        inputs.append((normal(rows, 7, vocabulary), labels))
    return inputs


@checks("14.5")
def unlikely(attempt: Callable) -> str:
    inputs = _batches_with_candidates()

    def mean(logits, labels, **switches):
        total, graded, _ = _negatives(logits, labels, **switches)
        return total / graded

    def by_candidates(logits, labels):
        total, _, candidates = _negatives(logits, labels)
        return total / candidates

    def likelihood(logits, labels):
        return _sum_candidates(logits.log_softmax(-1), labels) / _graded(labels)

    mistakes = [
        (
            partial(mean, keep_target=True),
            "the target itself is among its candidates: it is what the model shall say",
        ),
        (
            partial(mean, ignored=0),
            "-100 has become token 0, and token 0 a candidate that nobody said",
        ),
        (
            partial(mean, counted=True),
            "a token that stood twice counts twice: each candidate counts once",
        ),
        (partial(mean, later=True), "tokens that come later are candidates: only earlier ones are"),
        (partial(mean, across=True), "the tokens of one row are candidates in the next one"),
        (partial(mean, shift=0), "not shifted: row t of the logits predicts token t + 1"),
        (by_candidates, "divided by the candidates: divide by the graded tokens"),
        (lambda z, y: _negatives(z, y)[0], "this is the sum: divide by the graded tokens"),
        (lambda z, y: -mean(z, y), "the sign is reversed: -ln(1 - p) is positive"),
        (lambda z, y: mean(z, y) * _graded(y) / y[:, 1:].numel(), "divided by all positions"),
        (likelihood, "this is ln p of the candidates: the loss is -ln(1 - p)"),
    ]
    cases = []
    for logits, labels in inputs:
        found = need_tensor(attempt(logits, labels))
        if found.dim():
            raise Mistake(f"your answer has shape {tuple(found.shape)}: one number is asked for")
        hints = []
        for mistake, name in mistakes:
            with contextlib.suppress(Exception):
                hints.append((mistake(logits, labels), name))
        cases.append(Case(found, unlikelihood_loss(logits, labels), hints))
    same_in_all(cases, what="the loss", rtol=1e-3, atol=1e-5)
    return "eight batches: twins in a row, token id 0, padding, a label in place 0"


def _graded(labels: torch.Tensor) -> int:
    return int((labels[:, 1:] != IGNORE_INDEX).sum())


def _sum_candidates(log_p: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of ln p over the candidates of every graded token."""
    total = log_p.new_zeros(())
    for row, line in enumerate(labels.tolist()):
        seen: set[int] = set()
        for t, target in enumerate(line):
            if target != IGNORE_INDEX:
                total = total + log_p[row, t - 1, sorted(seen - {target})].sum()
                seen.add(target)
    return total


def _draw_signs(disease: str) -> dict[str, float]:
    """Signs as the statement promises them, away from every border."""
    low, high = partial(random.uniform, 0.0, 0.2), partial(random.uniform, 0.35, 1.0)
    signs = {"ends": random.uniform(0.9, 1.0), "p_end": random.uniform(0.2, 0.95)}
    signs |= {"greedy_again": low(), "sampled_again": low()}
    if disease == "no stop token":
        signs |= {"ends": random.uniform(0, 0.1), "p_end": 10 ** random.uniform(-8, -4)}
        greedy, sampled = random.choice([(low, low), (high, low), (high, high)])
        signs |= {"greedy_again": greedy(), "sampled_again": sampled()}
    elif disease == "learned to repeat":
        signs |= {"greedy_again": high(), "sampled_again": high()}
        signs["ends"] = random.uniform(0.0, 1.0)
    elif disease == "decoding":
        signs |= {"greedy_again": high()}
        signs["ends"] = random.uniform(0.0, 1.0)
    return signs


def _draw_patients() -> list[tuple[str, dict[str, float]]]:
    """A disease and its signs, those near the statement's borders among them."""
    drawn = [(disease, _draw_signs(disease)) for disease in DISEASES for _ in range(6)]
    # a loop keeps a healthy stop token from coming: the texts do not end either
    looping = {"ends": 0.02, "p_end": 0.5, "greedy_again": 0.9}
    drawn += [
        ("decoding", {**looping, "sampled_again": random.uniform(0.02, 0.15)}),
        ("learned to repeat", {**looping, "sampled_again": random.uniform(0.5, 0.9)}),
        ("no stop token", {**looping, "ends": 0.0, "p_end": 1e-6, "sampled_again": 0.1}),
        ("no stop token", {**looping, "p_end": 1e-5, "sampled_again": random.uniform(0.5, 0.8)}),
    ]
    for ends in (0.1, 0.5, 0.9):  # as near to the borders as the statement allows
        near = {"ends": ends, "p_end": 0.21}
        drawn += [
            ("decoding", {**near, "greedy_again": 0.36, "sampled_again": 0.19}),
            ("learned to repeat", {**near, "greedy_again": 0.37, "sampled_again": 0.36}),
            ("healthy", {**near, "greedy_again": 0.19, "sampled_again": 0.18}),
            (
                "no stop token",
                {**near, "p_end": 0.0009, "greedy_again": 0.37, "sampled_again": 0.36},
            ),
        ]
    return drawn


@checks("14.4")
def diagnosis(attempt: Callable) -> str:
    drawn = _draw_patients()
    random.shuffle(drawn)

    def by_ends(signs):
        return "no stop token" if signs["ends"] < 0.5 else _judge({**signs, "p_end": 1.0})

    def by_ends_first(signs):
        return "no stop token" if signs["ends"] < 0.5 else _judge(signs)

    def greedy_alone(signs):
        right = _judge(signs)
        return "learned to repeat" if right == "decoding" else right

    def repeats_first(signs):
        repeats = _judge({**signs, "p_end": 1.0})
        return repeats if repeats != "healthy" else _judge(signs)

    def never_healthy(signs):
        right = _judge(signs)
        return "decoding" if right == "healthy" else right

    mistakes = [
        (
            by_ends,
            "a text that never ends need not lack its stop token: a loop never comes to its end; "
            "look at p_end",
        ),
        (
            by_ends_first,
            "a text that never ends need not lack its stop token: a loop never comes to its end; "
            "look at p_end",
        ),
        (
            greedy_alone,
            "greedy texts repeat in both: a model that learned it repeats when sampled, too",
        ),
        (repeats_first, "look at p_end first: such a model has nothing left to say and goes on"),
        (never_healthy, "a model that repeats in neither way and ends is healthy"),
    ]
    cases = []
    for right, signs in drawn:
        found = attempt(dict(signs))
        if found not in DISEASES:
            raise Mistake(f"your answer is {found!r}: one of {', '.join(DISEASES)}")
        shown = ", ".join(f"{name} {value:.2g}" for name, value in signs.items())
        hints = [(mistake(signs), name) for mistake, name in mistakes]
        cases.append(Case(found, right, hints, shown))
    same_in_all(cases, what="the disease")
    with contextlib.redirect_stdout(io.StringIO()):
        patients = read_patients()
    for name, signs in patients.items():
        if (found := attempt(dict(signs))) != PATIENTS[name]:
            raise Mistake(f"patient {name} has not got the disease {found!r}: {signs}")
    return (
        f"{len(drawn)} drawn patients; and A "
        + ", B ".join([PATIENTS["A"], PATIENTS["B"]])
        + (f", C {PATIENTS['C']}")
    )


def _judge(signs: dict[str, float]) -> str:
    if signs["p_end"] < 0.01:
        return "no stop token"
    if signs["sampled_again"] > 0.27:
        return "learned to repeat"
    return "decoding" if signs["greedy_again"] > 0.27 else "healthy"


@cache
def _base() -> tuple:
    with contextlib.redirect_stdout(io.StringIO()):
        return load("atlas-base")


@checks("14.6")
def beginning(attempt: str) -> str:
    if not isinstance(attempt, str) or not attempt.strip():
        raise Mistake(f"your answer is {attempt!r}: give the beginning of a text, a str")
    model, tokenizer = _base()
    ids = tokenizer(attempt).input_ids
    if len(ids) > 60:
        raise Mistake(f"your beginning has {len(ids)} tokens: at most 60 are allowed")
    share = _sampled_share(attempt, random.randrange(5))
    if share < 0.25:
        raise Mistake(
            f"48 sampled texts repeat {share:.0%} of their 4-grams, at least 25% are asked for: "
            "which form do texts have in which the base has read a sentence again?"
        )
    return f"48 sampled texts repeat {share:.0%} of their 4-grams"


@cache
def _sampled_share(text: str, seed: int) -> float:
    model, tokenizer = _base()
    ids = tokenizer(text).input_ids
    rows = write_on(model, tokenizer, [ids] * 48, tokens=80, seed=seed, **WAYS["T 1"])
    return measure_rows(rows, tokenizer)["rep4"]
