"""Checks of chapter 01, from cross-entropy to negative log-likelihood."""

import math
import random
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_finite,
    need_number,
    need_tensor,
    normal,
    same,
    same_for_all,
    without,
    without_autograd,
)

MINUS = "the minus sign is missing: a log-probability is never positive, a loss is never negative"
BITS = "this is in bits: use the natural logarithm for nats"
LOG_OF_SOFTMAX = (
    "the softmax of a token hundreds of nats below the best is 0 in floating point, and its "
    "logarithm -inf: keep the logarithm exact, as log_softmax does"
)
DRAWS = 4


@checks("1.1")
def cross_entropy(attempt: Callable) -> str:
    mistakes = [
        (lambda p, q: torch.xlogy(p, q).sum(), MINUS),
        (lambda p, q: _cross_entropy(p, q) / math.log(2), BITS),
        (
            lambda p, q: _cross_entropy(q, p),
            "p and q are swapped: the truth p weighs, the guess q stands in the logarithm",
        ),
        (
            lambda p, q: _cross_entropy(p, q) / len(p),
            "you took the mean over tokens: p already holds the weights, so sum",
        ),
        (
            lambda p, q: _cross_entropy(p, q) - _cross_entropy(p, p),
            "this is the KL divergence: cross-entropy also contains p's entropy",
        ),
        (lambda p, q: -q.log().sum(), "the weights p are missing"),
    ]
    dense = [
        tuple(normal(size).softmax(dim=0) for _ in range(2))
        for size in random.sample(range(3, 10), DRAWS)
    ]
    same_for_all(attempt, dense, _cross_entropy, mistakes, form=need_tensor)

    zero_times_infinity = (
        "0 · ln 0 gave nan: a token that never occurs (p = 0) adds 0, whatever q says (torch.xlogy)"
    )
    edges = [_with_zeros(*dense[0]), _with_zeros(*dense[1])]
    mistakes = [(lambda p, q: -(p * q.log()).sum(), zero_times_infinity)]
    same_for_all(attempt, edges, _cross_entropy, mistakes, form=need_tensor)
    for p, q in edges:
        ruled_out = q.masked_fill(p == p.max(), 0.0)
        for truth in (p, (p == p.max()).to(p)):  # one token of several, or the only one
            found = need_tensor(attempt(truth, ruled_out / ruled_out.sum()))
            if not torch.equal(found.double(), torch.tensor(math.inf, dtype=torch.float64)):
                raise Mistake(
                    "q gives a token of the truth probability 0, so the loss is infinite; yours "
                    f"is {found.tolist()}, for p = {truth.tolist()}, q = {ruled_out.tolist()}"
                )
    return "equals the sum of -p ln q; 0 · ln 0 counts 0; a ruled-out truth costs infinity"


def _cross_entropy(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return -torch.xlogy(p, q).sum()


def _with_zeros(p: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same with two tokens more that never occur: q excludes one of them too."""
    zero = p.new_zeros(1)
    return torch.cat([zero, p, zero]), torch.cat([zero, 0.8 * q, zero + 0.2])


@checks("1.2")
def loss_gradient(attempt: Callable) -> str:
    one_hot = "the one-hot truth is missing: subtract 1 at the target of each row"
    mistakes = [
        (
            lambda x, y: -_gradient(x, y),
            "the sign is reversed: q - p is the gradient, p - q the step that descends",
        ),
        (
            lambda x, y: _gradient(x, y) * len(x),
            "this is the gradient of the sum: the loss is a mean, divide by N rows",
        ),
        (
            lambda x, y: _gradient(x, y) / x.shape[1],
            "divide by the number of rows N, not by N · V",
        ),
        (
            lambda x, y: (x - F.one_hot(y, x.shape[1])) / len(x),
            "logits are not probabilities: take the softmax first",
        ),
        (lambda x, y: x.softmax(dim=-1) / len(x), one_hot),
        (
            lambda x, y: (x.softmax(dim=0) - F.one_hot(y, x.shape[1])) / len(x),
            "softmax over the wrong dimension: each row is a distribution",
        ),
        (
            lambda x, y: -F.one_hot(y, x.shape[1]) / x.softmax(dim=-1) / len(x),
            "the gradient by the probabilities q: go on to the logits",
        ),
        (
            lambda x, y: (x.exp() / x.exp().sum(-1, True) - F.one_hot(y, x.shape[1])) / len(x),
            "exp overflows where logits are large: take softmax, which subtracts the maximum first",
        ),
    ]
    inputs = []
    for rows, size in ((2, 9), (random.choice([5, 6, 7]), 8), (1, 7)):
        targets = torch.randint(1, size - 1, (rows,))
        targets[: rows // 2] = 0  # some rows share a target; the last token is never one
        inputs.append((2 * normal(rows, size), targets[torch.randperm(rows)]))
    logits, targets = 2 * normal(3, 6), torch.tensor([2, 0, 2])
    logits[0, 2] -= 300.0
    logits[1] += 1000.0
    inputs.append((logits, targets))
    with without_autograd("write softmax minus one-hot, the form that needs no graph"):
        same_for_all(attempt, inputs, _gradient, mistakes, form=need_tensor, what="the gradient")

    (logits, targets), h = inputs[1], 1e-5
    i, j = random.randrange(len(logits)), random.randrange(logits.shape[1])
    nudge = torch.zeros_like(logits)
    nudge[i, j] = h
    up, down = (F.cross_entropy(logits + sign * nudge, targets) for sign in (1, -1))
    found = attempt(logits, targets)[i, j]
    same(found, (up - down) / (2 * h), what="the slope of the loss along one logit")
    return "equals finite differences of the loss; in every row it sums to 0"


def _gradient(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (logits.softmax(dim=-1) - F.one_hot(targets, logits.shape[-1])) / len(targets)


@checks("1.3")
def sequence_nll(attempt: Callable) -> str:
    one_too_few = (
        "a token is missing: row t already predicts targets[t] here, so nothing is shifted"
    )
    mistakes = [
        (lambda x, y: -_nll(x, y).sum(), MINUS),
        (lambda x, y: _nll(x, y).sum() / math.log(2), BITS),
        (
            lambda x, y: _nll(x, y).mean(),
            "this is the mean: -ln P(y | x) is the sum over its tokens",
        ),
        (
            lambda x, y: _nll(x, y).sum().neg().exp(),
            "this is the probability P(answer) itself: take -ln of it",
        ),
        (
            lambda x, y: -x[torch.arange(len(y)), y].sum(),
            "raw logits are not log-probabilities: log_softmax first",
        ),
        (
            lambda x, y: -x.log_softmax(dim=-1)[:, y].sum(),
            "log_probs[:, targets] picks T · T entries: step t grades only targets[t]",
        ),
        (
            lambda x, y: -x.log_softmax(dim=0)[torch.arange(len(y)), y].sum(),
            "log_softmax over the wrong dimension: take the last",
        ),
        (lambda x, y: _nll(x, y)[1:].sum(), one_too_few),
        (lambda x, y: _nll(x, y)[:-1].sum(), one_too_few),
    ]

    def total(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return _nll(logits, targets).sum()

    what = "the loss of the answer"
    inputs = [_random_answer(steps) for steps in random.sample(range(4, 9), DRAWS)]
    same_for_all(attempt, inputs, total, mistakes, form=need_tensor, what=what)
    underflow = (
        "no finite loss for 600 tokens: the product of their probabilities underflows to 0; add "
        "logarithms"
    )
    mistakes = [(lambda x, y: _nll(x, y).neg().exp().prod().log().neg(), underflow)]
    what = "the loss of an answer of 600 tokens"
    same_for_all(attempt, [_random_answer(600)], total, mistakes, form=need_tensor, what=what)
    what = "the loss of an answer of one token"
    same_for_all(attempt, [_random_answer(1)], total, form=need_tensor, what=what)
    mistakes = [(lambda x, y: -x.softmax(dim=-1)[range(len(y)), y].log().sum(), LOG_OF_SOFTMAX)]
    what = "the loss of an answer with logits far apart"
    same_for_all(attempt, [_far_answer()], total, mistakes, form=need_tensor, what=what)
    return "equals the summed F.cross_entropy, for 600 tokens, for one, and for logits far apart"


def _nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, targets, reduction="none")


def _random_answer(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets; token id 0 and another one stand in a longer answer twice."""
    size = random.randint(9, 12)
    targets = torch.randint(size, (steps,))
    if steps > 3:
        targets[:4] = torch.tensor([0, 5, 0, 5])
    return torch.randn(steps, size), targets[torch.randperm(steps)]


def _far_answer() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets, where one target is hundreds of nats below the best token, and all logits
    of another row are large."""
    logits, targets = _random_answer(5)
    logits[1, targets[1]] -= random.uniform(200.0, 400.0)
    logits[3] += 1000.0
    return logits, targets


@checks("1.4")
def dataset_loss(attempt: Callable) -> str:
    mean_of_means = (
        "this is the mean of means: a token in a short batch weighs more than one in a long "
        "batch; weigh each mean with its tokens"
    )
    mistakes = [
        (lambda means, counts: sum(means) / len(means), mean_of_means),
        (
            lambda means, counts: sum(means),
            "this is the sum of the means: weigh each, and divide by all tokens",
        ),
        (_total, "this is the sum of all losses: divide by the number of all tokens"),
        (
            lambda means, counts: _total(means, counts) / len(means),
            "you divided by the number of batches: divide by all tokens",
        ),
        (
            lambda means, counts: sum(m / n for m, n in zip(means, counts, strict=True)),
            "multiply a mean by its tokens to get back its sum",
        ),
    ]
    tokens = torch.rand(random.randint(40, 60), dtype=torch.float64) * 3
    tokens[:3] += 5.0  # few tokens with a high loss: whether means are weighed must matter
    tokens[-4:] = 0.0  # two equal batches, whose loss is exactly 0, have tokens all the same
    inputs = [_cut(tokens) for _ in range(DRAWS)]
    what = {"form": need_number, "rtol": 1e-6, "what": "the loss of the data set"}

    def expected(means: list[float], counts: list[int]) -> torch.Tensor:
        return tokens.mean()

    same_for_all(attempt, inputs, expected, mistakes, **what)
    zero_times_nan = (
        "a batch with 0 graded tokens has the mean nan, and 0 · nan is nan: leave such batches out"
    )
    with_empty = []
    for place, (means, counts) in zip((0, 2, len(inputs[2][0])), inputs, strict=False):
        means, counts = list(means), list(counts)
        means.insert(place, math.nan)
        counts.insert(place, 0)
        with_empty.append((means, counts))
    mistakes = [(lambda means, counts: math.nan, zero_times_nan)]
    same_for_all(attempt, with_empty, expected, mistakes, **what)
    return "the same for every way of cutting the tokens into batches, empty ones included"


def _total(means: list[float], counts: list[int]) -> float:
    return sum(mean * count for mean, count in zip(means, counts, strict=True))


def _cut(tokens: torch.Tensor) -> tuple[list[float], list[int]]:
    """The means and counts of uneven batches: the first token, the next two, more, and the last
    four in two batches of two."""
    cuts = sorted(random.sample(range(8, len(tokens) - 8), random.randint(2, 4)))
    batches = tokens.tensor_split([1, 3, *cuts, len(tokens) - 4, len(tokens) - 2])
    return [batch.mean().item() for batch in batches], [len(batch) for batch in batches]


@checks("1.5")
def log_softmax(attempt: Callable) -> str:
    names = ("log_softmax", "softmax", "logsumexp", "cross_entropy", "nll_loss", "logcumsumexp")
    names += ("logaddexp", "gumbel_softmax", "softmin", "_log_softmax", "_softmax")

    def guarded(logits: torch.Tensor) -> torch.Tensor:
        with without(*names, why="write it from max, exp, sum and log"):
            return need_tensor(attempt(logits), "the result")

    _compare_near(guarded)
    _compare_far(guarded)
    return "equals log_softmax, also at logits of ±1000 and for rows 500 apart"


def _compare_near(attempt: Callable) -> None:
    """Logits of ordinary size: rows, a single row and a batch."""
    taken_twice = (
        "the maximum was taken off twice: shift the logits once, then keep to the shifted ones"
    )
    added_back = (
        "the maximum came back too often: shift the logits once, then keep to the shifted ones"
    )
    mistakes = [
        (lambda x: x.softmax(dim=-1), "this is the softmax: its logarithm is missing"),
        (
            lambda x: -x.log_softmax(dim=-1),
            "the sign is reversed: a log-probability is never positive",
        ),
        (lambda x: x.log_softmax(dim=-1) / math.log(2), BITS),
        (
            lambda x: x.log_softmax(dim=0),
            "wrong dimension: the vocabulary is the last dimension",
        ),
        (
            lambda x: x - x.exp().sum().log(),
            "you summed over the whole tensor: each row is a distribution (dim=-1, keepdim)",
        ),
        (lambda x: x.log_softmax(dim=-1) - _top(x), taken_twice),
        (lambda x: x.log_softmax(dim=-1) + _top(x), added_back),
        (lambda x: x - _top(x), "the normaliser is missing: subtract ln Σ exp as well"),
    ]
    rows, size = random.randint(2, 4), random.randint(6, 9)
    what = {"what": "log_softmax", "atol": 1e-5}
    near = [(torch.randn(rows, size),), (3 * torch.randn(rows, size),)]
    same_for_all(attempt, near, _log_softmax, mistakes, **what)
    what["what"] = "log_softmax of a single row, shape (V,),"
    same_for_all(attempt, [(torch.randn(size),)], _log_softmax, **what)
    what["what"] = "log_softmax of a batch, shape (B, T, V),"
    same_for_all(attempt, [(torch.randn(2, rows + 1, size),)], _log_softmax, **what)


def _compare_far(attempt: Callable) -> None:
    """Logits far from 0, rows far from each other, tokens far below the best."""
    rows, size = random.randint(2, 4), random.randint(6, 9)
    logits = torch.randn(rows, size)
    far = {
        "logits near +1000": logits + 1000.0,
        "logits near -1000": logits - 1000.0,
        "rows far below the others": logits - torch.arange(rows)[:, None] * 500.0,
        "rows of a batch, shape (B, T, V), far below the others": (
            torch.randn(2, rows, size) - torch.arange(2 * rows).reshape(2, rows, 1) * 500.0
        ),
    }
    for where, x in far.items():
        own = "subtract each row's own maximum before exp"
        found = need_finite(attempt(x), f"{where} give inf or nan: {own}")
        same(found, _log_softmax(x), what=f"log_softmax of {where}", atol=1e-3)
    low = -random.uniform(150.0, 400.0)
    for rare in (
        torch.tensor([[0.0, low]]),
        torch.tensor([[low, 0.0, low - 100.0], [0.0, low, 1]]),
    ):
        found = attempt(rare)
        mistakes = [
            (rare.softmax(dim=-1).clamp(min=least).log(), LOG_OF_SOFTMAX) for least in (0, 1e-12)
        ]
        what = f"log_softmax of the logits {[[round(x, 1) for x in row] for row in rare.tolist()]}"
        same(found, _log_softmax(rare), mistakes, what=what)


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.double().log_softmax(dim=-1)


@checks("1.6")
def train_table(attempt: Callable) -> str:
    for followers in (1, 2, 3):
        text, size = _text_of(followers)
        began = time.perf_counter()
        table = need_tensor(attempt(list(text), size), "the table of logits")
        seconds = time.perf_counter() - began
        if tuple(table.shape) != (size, size):
            raise Mistake(
                f"the table has shape {tuple(table.shape)}; each of {size} tokens has a row with a "
                f"logit for each of them: ({size}, {size})"
            )
        need_finite(table, "a logit is infinite or nan: no token may be ruled out")
        _judge_table(table.detach().double(), text)
        if seconds > 10:  # the statement says 3: a slow machine is no mistake
            raise Mistake(f"it took {seconds:.0f} s: fewer steps at a higher rate reach the floor")
    return "as low as a model that sees one token can get: the entropy of what follows it"


def _text_of(followers: int) -> tuple[list[int], int]:
    """A text in which every token has as many followers as asked for; the last token stands at its
    end alone, and one token of the vocabulary never."""
    tokens = random.randint(4, 6)
    after = {i: random.sample(range(tokens), followers) for i in range(tokens)}
    if followers == 1:  # in a ring, so that every token occurs
        after = {i: [(i + 1) % tokens] for i in range(tokens)}
    text = [0]
    for _ in range(299):
        text.append(random.choice(after[text[-1]]))
    return [*text, tokens], tokens + 2


def _judge_table(table: torch.Tensor, text: list[int]) -> None:
    before, after = torch.tensor(text[:-1]), torch.tensor(text[1:])

    def loss_of(logits: torch.Tensor) -> float:
        return F.cross_entropy(logits[before], after).item()

    counts = torch.zeros_like(table).index_put_((before, after), torch.tensor(1.0).double(), True)
    floor = loss_of((counts + 1e-9).log())
    found = loss_of(table)
    if found <= floor + 0.02:
        return
    numbers = f"the loss is {found:.3f} nats, the lowest possible {floor:.3f}"
    if loss_of(table.T) <= floor + 0.02:
        raise Mistake(
            f"rows and columns are exchanged: row i is the guess after token i; {numbers}"
        )
    if (table >= 0).all() and loss_of((table + 1e-9).log()) <= floor + 0.02:
        raise Mistake(f"these are probabilities or counts, the table holds logits; {numbers}")
    if torch.allclose(table, table[:1].expand_as(table), atol=1e-6) and table.std() > 0:
        raise Mistake(f"all rows are equal: the guess must look at the token before; {numbers}")
    if table.std() < 1e-6:
        raise Mistake(f"every guess is still uniform: nothing was trained; {numbers}")
    raise Mistake(f"{numbers}: more steps, or a higher rate")


def _top(logits: torch.Tensor) -> torch.Tensor:
    return logits.max(dim=-1, keepdim=True).values
