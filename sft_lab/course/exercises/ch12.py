"""Checks of chapter 12, loss functions."""

import contextlib
import io
import random
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
import torch.nn.functional as F

from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    need_gradient,
    need_number,
    need_tensor,
    normal,
    random_labels,
    same,
    same_for_all,
    same_in_all,
    without,
)
from sft_lab.examples import IGNORE_INDEX

Tensors = list[torch.Tensor]


@checks("12.1")
def focal_weight(attempt: Callable) -> str:
    # both branches of the curve: above 1 where p is small, near 0 where it is large
    p = torch.tensor([0.01, 0.1, 0.37, 0.5, 0.8, 0.97], dtype=torch.float64)
    p = p * torch.empty(6, dtype=torch.float64).uniform_(0.9, 1.02)
    inputs = [
        (p, random.uniform(1.4, 1.8)),
        (p.view(2, 3), random.uniform(2.2, 3.0)),
        (p[:4], 1.0),
        (p, random.uniform(0.3, 0.7)),
        (p, 0.0),
    ]

    def right(p: torch.Tensor, gamma: float) -> torch.Tensor:
        log_p = p.log().requires_grad_()
        cost = -((1 - log_p.exp()) ** gamma) * log_p
        return -torch.autograd.grad(cost.sum(), log_p)[0]

    def power(p, gamma):
        return (1 - p) ** gamma

    def second(p, gamma):
        return gamma * p * (1 - p) ** (gamma - 1) * p.log()

    mistakes = [
        (power, "the factor depends on p too: the product rule gives a second term"),
        (
            lambda p, gamma: power(p, gamma) + second(p, gamma),
            "the sign of the second term is reversed: log p is negative, so it adds to the first",
        ),
        (
            lambda p, gamma: power(p, gamma) - second(p, gamma) / p,
            "the second term lacks a factor p: the derivative of p by log p is p",
        ),
        (
            lambda p, gamma: right(p, gamma) / p,
            "this is the derivative by p: the weight is the derivative by log p, p times as large",
        ),
        (
            lambda p, gamma: -right(p, gamma),
            "the sign is reversed: c is minus the derivative by log p, 1 for cross-entropy",
        ),
        (
            lambda p, gamma: right(p, gamma) * (1 - p),
            "this is the pull, c (1 - p): return the weight c",
        ),
        (
            lambda p, gamma: -power(p, gamma) * p.log(),
            "this is the loss itself: return its slope",
        ),
        (
            lambda p, gamma: power(p, gamma) - p * power(p, gamma - 1) * p.log(),
            "the power's own factor gamma is missing in the second term",
        ),
        (lambda p, gamma: p, "this is the weight of DFT"),
    ]
    same_for_all(attempt, inputs, right, mistakes, form=need_tensor, what="the weight")
    return (
        "equal to autograd for five values of gamma; above 1 where p is small, and never negative"
    )


def _smoothed(
    logits: torch.Tensor, labels: torch.Tensor, epsilon: float, *, shift: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """NLL and mean NLL of the vocabulary at every position, (B, T'), and which are graded."""
    length = labels.shape[1]
    targets, log_p = labels[:, shift:], logits[:, : length - shift].log_softmax(-1)
    nll = -log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return nll, -log_p.mean(-1), targets != IGNORE_INDEX


def _averaged(term: Callable) -> Callable:
    """A smoothed loss from what it makes of NLL, mean NLL, mask, epsilon and vocabulary size."""

    def loss(logits: torch.Tensor, labels: torch.Tensor, epsilon: float) -> torch.Tensor:
        return term(*_smoothed(logits, labels, epsilon), epsilon, logits.shape[-1])

    return loss


def _unshifted(logits: torch.Tensor, labels: torch.Tensor, epsilon: float) -> torch.Tensor:
    nll, flat, on = _smoothed(logits, labels, epsilon, shift=0)
    return ((1 - epsilon) * nll + epsilon * flat)[on].mean()


def _smoothing_mistakes() -> list[tuple[Callable, str]]:
    return [
        (
            _averaged(
                lambda nll, flat, on, e, v: (((1 - e) * nll * on + e * flat).sum()) / on.sum()
            ),
            "the mean over the vocabulary is taken at positions that are not graded, too",
        ),
        (
            _averaged(lambda nll, flat, on, e, v: (1 - e) * nll[on].mean() + e * flat.mean()),
            "the mean over the vocabulary is taken at positions that are not graded, too",
        ),
        (
            _averaged(lambda nll, flat, on, e, v: ((1 - e) * nll + e * flat).mean()),
            "positions labelled -100 are graded, as if their label were 0",
        ),
        (
            _averaged(lambda nll, flat, on, e, v: (((1 - e) * nll + e * flat) * on).mean()),
            "divided by all positions: only graded tokens count",
        ),
        (_unshifted, "not shifted: row t of the logits predicts token t + 1"),
        (
            _averaged(
                lambda nll, flat, on, e, v: ((1 - e - e / (v - 1)) * nll + e * v / (v - 1) * flat)[
                    on
                ].mean()
            ),
            "epsilon is spread over the V - 1 wrong tokens, as in fairseq: here over all V",
        ),
        (
            _averaged(lambda nll, flat, on, e, v: ((1 - e) * nll + e * v * flat)[on].mean()),
            "the second term is a sum over the vocabulary: take the mean",
        ),
        (
            _averaged(lambda nll, flat, on, e, v: (nll + e * flat)[on].mean()),
            "the first term lacks its factor 1 - epsilon",
        ),
        (
            _averaged(lambda nll, flat, on, e, v: (e * nll + (1 - e) * flat)[on].mean()),
            "epsilon and 1 - epsilon are exchanged",
        ),
        (
            _averaged(lambda nll, flat, on, e, v: ((1 - e) * nll + e * flat)[on].sum()),
            "this is the sum: divide by the number of graded tokens",
        ),
        (
            _averaged(
                lambda nll, flat, on, e, v: torch.stack(
                    [((1 - e) * n + e * f)[o].mean() for n, f, o in zip(nll, flat, on, strict=True)]
                ).mean()
            ),
            "this is a mean of the rows' means: rows have different numbers of graded tokens",
        ),
        (_averaged(lambda nll, flat, on, e, v: nll[on].mean()), "this is plain cross-entropy"),
    ]


def _labels(rows: int, length: int, vocabulary: int) -> torch.Tensor:
    """Random labels with a hole among the graded tokens of every row, and a graded token at place
    0, which no row of the logits predicts."""
    labels = random_labels(rows, length, vocabulary)
    labels[:, :2] = torch.randint(1, vocabulary, (rows, 2))
    return labels


@checks("12.2")
def smoothed_loss(attempt: Callable) -> str:
    inputs = []
    for rows, epsilon in ((2, random.uniform(0.1, 0.2)), (3, random.uniform(0.3, 0.5)), (1, 0.0)):
        length, vocabulary = random.randint(9, 12), random.randint(7, 14)
        labels = _labels(rows, length, vocabulary)
        logits = 2 * normal(rows, length, vocabulary)
        inputs.append((logits.requires_grad_(), labels, epsilon))
    loud = 2 * normal(2, 10, 8)
    labels = _labels(2, 10, 8)
    ungraded = torch.ones(2, 10, dtype=torch.bool)
    ungraded[:, :-1] = labels[:, 1:] == IGNORE_INDEX
    loud[..., 3] += 1e4 * ungraded  # padding may hold anything
    inputs.append((loud.requires_grad_(), labels, 0.1))

    right = _averaged(lambda nll, flat, on, e, v: ((1 - e) * nll + e * flat)[on].mean())
    form = partial(need_gradient, what="the loss")
    with without("cross_entropy", "cross_entropy_loss", why="write it with log_softmax"):
        same_for_all(attempt, inputs, right, _smoothing_mistakes(), form=form, what="the loss")
        _same_gradient(attempt, right, inputs)
    return "equal to torch's label_smoothing in value and gradient, whatever stands beside -100"


def _same_gradient(attempt: Callable, right: Callable, inputs: list[tuple]) -> None:
    for logits, labels, epsilon in inputs:
        gradients = [
            torch.autograd.grad(loss(logits, labels, epsilon), logits)[0]
            for loss in (attempt, right)
        ]
        same(*gradients, what="the gradient by the logits")


def _random_step(vocabulary: int) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """Four micro-batches of different sizes and weights: token 0 is graded, one holds nothing that
    is graded, and one nothing that weighs anything."""
    weights = torch.rand(vocabulary, dtype=torch.float64) + 0.2
    weights[torch.randperm(vocabulary - 1)[:3] + 1] = 0.0
    weights[-100 % vocabulary] = 7.0  # what weights[-100] finds
    light = int((weights == 0).nonzero()[0])
    batches = []
    for size, scale in ((3, 1), (9, 4), (5, 2)):
        targets = torch.randint(1, vocabulary, (size,))
        targets[0] = 0
        targets[1 : 1 + size // 3] = IGNORE_INDEX
        batches.append((scale * normal(size, vocabulary), targets))
    batches.append((normal(2, vocabulary), torch.full((2,), IGNORE_INDEX)))
    batches.append((normal(2, vocabulary), torch.full((2,), light)))
    random.shuffle(batches)
    return batches, weights


@checks("12.3")
def micro_losses(attempt: Callable) -> str:
    cases = []
    for vocabulary in (120, 140, 160):  # above 100, where weights[-100] is no error
        batches, weights = _random_step(vocabulary)
        for logits, _ in batches:
            logits.requires_grad_()
        found = attempt(batches, weights)
        if not isinstance(found, list | tuple) or len(found) != len(batches):
            raise Mistake("return a list with one loss for each micro-batch")
        for part in found:
            need_tensor(part, "the loss of a micro-batch")
            if part.numel() != 1:
                raise Mistake(
                    f"the loss of a micro-batch has shape {tuple(part.shape)}: return a scalar"
                )
        losses = torch.stack([part.reshape(()) for part in found])
        if losses.isnan().any():
            raise Mistake(
                "a micro-batch in which nothing is graded, or nothing weighs anything, gives nan: "
                "its loss is 0, and the divisor is that of the whole step"
            )
        need_gradient(losses, "the losses")
        cases.append((batches, weights, losses, found))
    expected, hints = zip(*(_losses_of_step(b, w) for b, w, *_ in cases), strict=True)
    same_in_all(
        [
            Case(losses.sum(), right.sum(), [(wrong.sum(), name) for wrong, name in wrongs])
            for (_, _, losses, _), right, wrongs in zip(cases, expected, hints, strict=True)
        ],
        what="the sum of the losses",
    )
    for (_, _, losses, _), right in zip(cases, expected, strict=True):
        same(losses, right, what="the losses of the micro-batches")
    for batches, weights, _, found in cases:
        _call_backward(found)
        inputs = [logits for logits, _ in batches]
        joined = F.cross_entropy(
            torch.cat(inputs), torch.cat([t for _, t in batches]), weight=weights
        )
        for logits, wanted in zip(inputs, torch.autograd.grad(joined, inputs), strict=True):
            given = torch.zeros_like(wanted) if logits.grad is None else logits.grad
            same(given, wanted, what="the gradient")
    return "five micro-batches have the loss and the gradient of one batch; empty ones count 0"


def _call_backward(losses: Sequence[torch.Tensor]) -> None:
    """As a training step does: on one loss after the other."""
    for loss in losses:
        if not loss.requires_grad:
            raise Mistake(
                "backward() fails on the loss of a micro-batch that contributes 0: make the 0 from "
                "its logits"
            )
        try:
            loss.backward()
        except RuntimeError:
            raise Mistake(
                "the losses share a graph, which the first backward() frees: compute each from the "
                "logits of its own micro-batch"
            ) from None


def _losses_of_step(
    batches: list[tuple[torch.Tensor, torch.Tensor]], weights: torch.Tensor
) -> tuple[torch.Tensor, list[tuple[torch.Tensor, str]]]:
    """The losses of the micro-batches, and what usual mistakes make of them."""
    sums = torch.stack(
        [F.cross_entropy(z, t, weight=weights, reduction="sum") for z, t in batches]
    ).detach()
    own = torch.stack([weights[t[t != IGNORE_INDEX]].sum() for _, t in batches])
    counts = torch.tensor([int((t != IGNORE_INDEX).sum()) for _, t in batches])
    careless = torch.stack([weights[t].sum() for _, t in batches])
    means = (sums / own).nan_to_num(0.0)
    unweighted = torch.stack([F.cross_entropy(z, t, reduction="sum") for z, t in batches]).detach()
    return sums / own.sum(), [
        (
            means / len(batches),
            "this is a mean of the micro-batches' means: divide each sum by the "
            "weights of the whole step",
        ),
        (
            means,
            "each loss is divided by the weights of its own micro-batch: the divisor is that "
            "of the whole step",
        ),
        (
            sums / counts.sum(),
            "divided by the number of graded tokens: torch divides by the sum of their weights",
        ),
        (
            sums / careless.sum(),
            "the divisor counts targets of -100: weights[-100] is a weight "
            "from the end of the list",
        ),
        (
            sums / sum(len(t) for _, t in batches),
            "divided by all positions, also those that are not graded",
        ),
        (unweighted / own.sum(), "the costs of the tokens are not weighted, only the divisor is"),
        (unweighted / counts.sum(), "the weights are not used"),
        (sums, "these are sums: divide by the weights of the whole step"),
        (
            sums / weights.sum(),
            "divided by the weights of the whole vocabulary: take those of the graded tokens",
        ),
    ]


# the losses of 12.4, of scores (N, 50) and targets (N,)


def _mean(cost: Callable[[torch.Tensor], torch.Tensor]) -> Callable:
    """A loss from the cost of tokens, as a function of log p."""

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        log_p = logits.log_softmax(-1)
        return cost(log_p.gather(1, targets[:, None])[:, 0]).mean()

    return loss


def _unknown_losses() -> list[tuple[str, str, Callable]]:
    """The losses to be named: name, what is known of it, and the function."""

    def weighted(heavy: slice | torch.Tensor) -> Callable:
        weights = torch.ones(50)
        weights[heavy] = torch.empty(25).uniform_(2, 5)
        return lambda z, t: F.cross_entropy(z, t, weight=weights.to(z.dtype))

    def smoothing(epsilon: float) -> Callable:
        return lambda z, t: F.cross_entropy(z, t, label_smoothing=epsilon)

    def focal(gamma: float) -> Callable:
        return _mean(lambda q: -((-q.expm1()).clamp(min=1e-30) ** gamma) * q)

    some = [("cross-entropy", "", F.cross_entropy)]
    for gamma in (0.5, random.uniform(0.8, 1.2), random.uniform(1.5, 3.0), 4.0):
        some.append(("focal", f"γ {gamma:.2f}", focal(gamma)))
    for epsilon in (0.05, random.uniform(0.1, 0.3), 0.4):
        some.append(("smoothed", f"ε {epsilon:.2f}", smoothing(epsilon)))
    some.append(("DFT", "", _mean(lambda q: -q.detach().exp() * q)))
    some.append(("DFT, not detached", "", _mean(lambda q: -q.exp() * q)))
    # the light ones anywhere, or all of one half, or at both ends
    for heavy in (torch.randperm(50)[:25], slice(25), slice(25, None), slice(12, 37)):
        some.append(("weighted", "", weighted(heavy)))
    random.shuffle(some)
    return some


@checks("12.4")
def name_loss(attempt: Callable) -> str:
    some = _unknown_losses()
    names = sorted({name for name, _, _ in some})
    wrong = []
    for name, number, loss in some:
        said = attempt(loss)
        if said not in names:
            raise Mistake(f"{said!r} is none of the six names: {', '.join(names)}")
        if said != name:
            wrong.append((name, said, number))
    if not wrong:
        return f"{len(some)} losses, each named after its gradient"
    pairs = {(name, said) for name, said, _ in wrong}
    if len({said for _, said in pairs}) == 1 and len(wrong) == len(some) - sum(
        name == wrong[0][1] for name, _, _ in some
    ):
        raise Mistake(f"everything is called {wrong[0][1]!r}: ask the loss for its gradient")
    name, said, number = min(wrong)
    raise Mistake(_confusion(name, said, number))


def _confusion(name: str, said: str, number: str) -> str:
    """Why one loss was taken for another."""
    both = {name, said}
    begin = f"{name}{', ' + number if number else ''}, is called {said!r}"
    if both == {"DFT", "DFT, not detached"}:
        return f"{begin}: both have the same values; look at the gradient where p is below 1/e"
    if both == {"cross-entropy", "weighted"}:
        return (
            f"{begin}: with one token the weight is divided away; ask with many different targets "
            "at once"
        )
    if both == {"cross-entropy", "smoothed"}:
        return f"{begin}: look at a token that is nearly certain; smoothing pulls it down"
    if both == {"cross-entropy", "focal"}:
        return f"{begin}: look at a token that is nearly certain; focal loss hardly pulls it"
    return f"{begin}: ask at a small p and at one near 1"


@cache
def _stops_at(floor: float) -> float:
    """The share of held-out answers that stop after a run with this floor; a second or two."""
    # a run needs models and chat: not for a notebook that only checks a formula
    from sft_lab.course.loss_runs import country_facts, run_ends
    from sft_lab.models import load

    with contextlib.redirect_stdout(io.StringIO()):  # a check prints one line
        base, tokenizer = load("atlas-base")
    return run_ends(base, tokenizer, country_facts(), floor=floor, seed=7)["stops"]


@checks("12.5")
def floor(attempt: float) -> str:
    found = need_number(attempt, "the floor")
    if not 0 < found <= 1:
        raise Mistake(f"the floor is {found:g}: it is a weight above 0 and at most 1")
    at = _stops_at(found)
    if at < 0.9:
        raise Mistake(
            f"at a floor of {found:g} only {at:.0%} of the answers stop with the check's seed: "
            "the stop token needs more weight"
        )
    below = _stops_at(found / 4)
    if below > 0.1:
        raise Mistake(
            f"a quarter of {found:g} still teaches the stop token, {below:.0%} of answers stop: "
            "the edge is lower"
        )
    return f"{at:.0%} of the answers stop at {found:g}, {below:.0%} at a quarter of it"


def _per_bin(
    confidence: torch.Tensor, right: torch.Tensor, *, low: bool = False, last: int = 9
) -> tuple[Tensors, Tensors]:
    """Confidences and outcomes of each bin that holds any; low: a border belongs below; last: the
    number of the last bin."""
    scaled = confidence * 10
    bins = (scaled.ceil() - 1).clamp(min=0) if low else scaled.floor().clamp(max=last)
    chosen = [(bins == b) for b in range(last + 1)]
    full = [inside for inside in chosen if inside.any()]
    return (
        [confidence[inside] for inside in full],
        [right[inside].double() for inside in full],
    )


def _binned(form: Callable, **how: int) -> Callable:
    """A calibration error from what it makes of the bins' gaps and shares."""

    def error(confidence, right):
        sure, hits = _per_bin(confidence, right, **how)
        gaps = torch.stack([s.mean() - h.mean() for s, h in zip(sure, hits, strict=True)])
        share = torch.tensor([len(s) / len(confidence) for s in sure], dtype=torch.float64)
        return form(gaps, share).item()

    return error


def _without_one(confidence: torch.Tensor, right: torch.Tensor) -> float:
    sure, hits = _per_bin(confidence[confidence < 1], right[confidence < 1])
    gaps = [(s.sum() - h.sum()).abs() for s, h in zip(sure, hits, strict=True)]
    return float(sum(gaps)) / len(confidence)


def _calibration_mistakes() -> list[tuple[Callable, str]]:
    return [
        (
            _binned(lambda gaps, share: gaps.abs().mean()),
            "every bin counts the same: weigh each with its share of the guesses",
        ),
        (
            _binned(lambda gaps, share: gaps.abs().sum() / 10),
            "every bin counts the same: weigh each with its share of the guesses",
        ),
        (
            _binned(lambda gaps, share: (gaps * share).sum()),
            "distances have no sign: too sure in one bin does not make up for another",
        ),
        (
            _binned(lambda gaps, share: (gaps * share).sum().abs()),
            "distances have no sign: too sure in one bin does not make up for another",
        ),
        (
            _binned(lambda gaps, share: gaps.abs().max()),
            "this is the largest distance, not the mean",
        ),
        (
            _binned(lambda gaps, share: (gaps.square() * share).sum()),
            "these are squares: take the distances themselves",
        ),
        (
            _binned(lambda gaps, share: (gaps.abs() * share).sum(), low=True),
            "a guess on a border belongs to the bin above it",
        ),
        (
            _binned(lambda gaps, share: (gaps.abs() * share).sum(), last=10),
            "a confidence of 1.0 makes an eleventh bin: it belongs to the last of ten",
        ),
        (_without_one, "a confidence of 1.0 falls out: it belongs to the last bin"),
        (
            lambda confidence, right: (confidence - right.double()).abs().mean().item(),
            "this is a distance of every single guess: take means of bins first",
        ),
        (
            lambda confidence, right: (confidence.mean() - right.double().mean()).abs().item(),
            "this is one bin for all guesses: sort them into ten",
        ),
        (
            lambda confidence, right: (
                100 * _binned(lambda gaps, share: (gaps.abs() * share).sum())(confidence, right)
            ),
            "return a fraction, not percent",
        ),
    ]


@checks("12.6")
def calibration_error(attempt: Callable) -> str:
    inputs = [_random_guesses(count) for count in random.sample(range(40, 90), 3)]
    one = torch.tensor([1.0], dtype=torch.float64), torch.tensor([True])
    inputs.append(one)
    # bins go from 0 to 1 all the same; in each the lower half is right, and narrower bins part them
    narrow = 0.31 + 0.4 * torch.rand(40, dtype=torch.float64)
    inputs.append((narrow, (narrow * 20).long() % 2 == 0))

    right = _binned(lambda gaps, share: (gaps.abs() * share).sum())
    same_for_all(
        attempt, inputs, right, _calibration_mistakes(), form=need_number, what="the error"
    )
    return "the mean distance from the diagonal, each bin with its share of the guesses"


def _random_guesses(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Confidences and outcomes: too sure above one half and not sure enough below it, a bin left
    empty, guesses at 0, on a border (0.5, exact in binary) and at 1.0. The others in the fifth bin
    and in the last are right and those in the sixth wrong, so that a guess in the wrong bin tells.
    """
    sure = torch.rand(count, dtype=torch.float64)
    sure = torch.where((sure >= 0.2) & (sure < 0.3), sure + 0.45, sure)  # the third bin is empty
    sure[:3] = torch.tensor([0.45, 0.55, 0.91])
    right = torch.rand(count, dtype=torch.float64) < torch.where(sure > 0.5, 0.4, 0.7)
    bins = (sure * 10).long()
    right = (right | (bins == 4) | (bins == 9)) & (bins != 5)
    edge = torch.tensor([0.0, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0], dtype=torch.float64)
    hits = torch.tensor([True, True, True, True, False, False, True])
    order = torch.randperm(count + len(edge))
    return torch.cat([sure, edge])[order], torch.cat([right, hits])[order]
