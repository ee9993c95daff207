"""Checks of chapter 05, LoRA by hand."""

import random

import torch
import torch.nn.functional as F

from sft_lab.course.checks import Mistake, checks, same


def _layer() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Weight (out, in), bias, A, B and alpha of a random layer: out, in and rank all differ, alpha
    / rank is not 1."""
    rank = random.randint(2, 4)
    columns, rows = random.sample(range(6, 12), 2)
    weight, bias = (
        torch.randn(rows, columns, dtype=torch.float64),
        torch.randn(rows, dtype=torch.float64),
    )
    lora_a, lora_b = (
        torch.randn(rank, columns, dtype=torch.float64),
        torch.randn(rows, rank, dtype=torch.float64),
    )
    return weight, bias, lora_a, lora_b, rank * random.uniform(1.3, 2.5)


def _unchanged(given: list[torch.Tensor], kept: list[torch.Tensor]) -> None:
    if not all(torch.equal(now, before) for now, before in zip(given, kept, strict=True)):
        raise Mistake(
            "your function changed one of its arguments in place: the base must stay as it is "
            "for others"
        )


@checks("5.1")
def _best_approximation(attempt):
    columns, rows = random.sample(range(6, 12), 2)
    left, values, right = torch.linalg.svd(
        torch.randn(rows, columns, dtype=torch.float64), full_matrices=False
    )
    falling = 4.0 * 0.5 ** torch.arange(
        len(values), dtype=torch.float64
    )  # so no two mistakes give one number
    values, rank = falling * (1 + 0.3 * torch.rand(len(values), dtype=torch.float64)), 2
    update = (left * values) @ right
    left, values, right = torch.linalg.svd(
        update, full_matrices=False
    )  # the signs that the reader will get
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    answer = attempt(update.clone(), rank)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise Mistake("return two things: the nearest matrix and its error")
    near, error = answer
    hints = {
        left[:, :rank]
        @ right[:rank]: "the singular values are missing: scale each column of U with its own",
        (left[:, -rank:] * values[-rank:])
        @ right[-rank:]: "you kept the smallest singular values: the first are the largest",
        update - best: "this is the part that is dropped: return what is kept",
        update: "nothing was dropped: keep only the first `rank` terms",
    }
    hints[(left[:, :rank] * values[:rank]) @ right[:, :rank].T] = (
        "the third factor is transposed already: its rows are the vectors v"
    )
    same(near, best, hints=hints, what="the nearest matrix")
    tail = values[rank:]
    same(
        error,
        (update - best).norm(),
        what="the error",
        hints={
            (tail**2).sum(): "this is the squared error: take the root",
            tail.sum(): "singular values do not add, their squares do: root of the sum of squares",
            tail[0]: "this is the error in the spectral norm: the Frobenius norm needs all "
            "dropped values",
            values[
                :rank
            ].norm(): "this is the length of what is kept: take the singular values after the "
            "first `rank`",
            tail.norm() / values.norm(): "this is the relative error: leave out the division",
        },
    )
    for _ in range(20):  # no other matrix of this rank is nearer
        other = torch.randn(rows, rank, dtype=torch.float64)
        other = other @ torch.linalg.lstsq(other, update).solution
        assert (update - other).norm() >= torch.as_tensor(error) - 1e-9
    return (
        "no matrix of this rank is nearer; the error is the length of the dropped singular values"
    )


@checks("5.2")
def _lora_forward(attempt):
    weight, bias, lora_a, lora_b, alpha = _layer()
    x, rank = torch.randn(2, 3, weight.shape[1], dtype=torch.float64), len(lora_a)
    update = x @ lora_a.T @ lora_b.T
    plain = F.linear(x, weight, bias)
    expected = plain + alpha / rank * update
    kept = [tensor.clone() for tensor in (x, weight, bias, lora_a, lora_b)]
    same(
        attempt(x, weight, bias, lora_a, lora_b, alpha),
        expected,
        what="the output",
        hints={
            plain + alpha * update: "alpha is not divided by the rank",
            plain + update: "the scale alpha / rank is missing",
            plain + rank / alpha * update: "the scale is upside down: alpha / rank",
            plain
            + alpha
            / lora_a.shape[1]
            * update: "you divided by the inputs of A: the rank is the other dimension",
            plain
            + alpha
            / lora_b.shape[0]
            * update: "you divided by the outputs of B: the rank is the other one",
            plain
            + alpha
            / rank**0.5
            * update: "this is rsLoRA's scale: here alpha / rank, without the root",
            alpha / rank * plain
            + alpha / rank * update: "alpha / rank scales the update alone, not the frozen layer",
            alpha / rank * update: "the frozen layer is missing: LoRA adds to it",
            plain: "the update is missing",
            expected + bias: "the bias is added twice",
            expected - bias: "the bias is missing",
        },
    )
    _unchanged([x, weight, bias, lora_a, lora_b], kept)
    same(
        attempt(x, weight, None, lora_a, lora_b, alpha),
        expected - bias,
        what="the output without a bias",
    )
    same(
        attempt(x[0, 0], weight, bias, lora_a, lora_b, alpha),
        expected[0, 0],
        what="the output for one vector",
    )
    zero = torch.zeros_like(lora_b)
    same(
        attempt(x, weight, bias, lora_a, zero, alpha),
        plain,
        what="the output with B = 0 (the base layer)",
    )
    return (
        "the frozen layer plus (alpha / rank) B A x, for any leading dimensions; B = 0 "
        "gives the base layer"
    )


@checks("5.3")
def _widen(attempt):
    weight, _, lora_a, lora_b, alpha = _layer()
    rank, new = len(lora_a), len(lora_a) + random.randint(3, 5)
    kept = [lora_a.clone(), lora_b.clone()]
    answer = attempt(lora_a, lora_b, alpha, new)
    if not isinstance(answer, (tuple, list)) or len(answer) != 3:
        raise Mistake("return three things: A, B and alpha")
    wide_a, wide_b, wide_alpha = answer
    for name, factor, shape in (
        ("A", wide_a, (new, weight.shape[1])),
        ("B", wide_b, (weight.shape[0], new)),
    ):
        if tuple(factor.shape) != shape:
            raise Mistake(
                f"{name} has shape {tuple(factor.shape)}, expected {shape}: the rank is the "
                "dimension that grows, rows of A and columns of B"
            )
    same(
        wide_b @ wide_a,
        lora_b @ lora_a,
        what="the product B A",
        hints={lora_b @ lora_a * new / rank: "the scale belongs into alpha, not into A or B"},
    )
    same(
        wide_alpha,
        alpha * new / rank,
        what="alpha",
        hints={
            alpha: f"alpha stayed the same, so alpha / rank fell from alpha / {rank} to alpha / "
            f"{new}",
            alpha
            * rank
            / new: "upside down: alpha grows with the rank, so that alpha / rank stays",
            alpha
            / rank: "this is the scale: return alpha, which the layer divides by the new rank",
            alpha
            * (new / rank) ** 0.5: "this keeps alpha / √rank: here the layer divides by the rank",
        },
    )
    x = torch.randn(5, weight.shape[1], dtype=torch.float64)
    same(
        wide_alpha / new * (x @ wide_a.T @ wide_b.T),
        alpha / rank * (x @ lora_a.T @ lora_b.T),
        what="the update",
    )
    _unchanged([lora_a, lora_b], kept)
    return "zeros leave B A alone, and alpha grows with the rank: the same output at any rank"


@checks("5.4")
def _lora_budget(attempt):
    rank = random.choice(
        (2, 5)
    )  # these, and layers of these sizes: no two mistakes give one number
    shapes = [
        (random.randint(20, 24), random.randint(6, 8)),
        (random.randint(40, 49), random.randint(25, 29)),
        (random.randint(60, 69), random.randint(30, 34)),
    ]
    answer = attempt(list(shapes), rank)
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise Mistake("return two numbers: trained parameters and bytes")
    count, size = answer
    layers = torch.nn.ModuleList()  # the reference: real tensors
    for rows, columns in shapes:
        layers.extend(
            [torch.nn.Linear(columns, rank, bias=False), torch.nn.Linear(rank, rows, bias=False)]
        )
    expected = sum(parameter.numel() for parameter in layers.parameters())
    both = sum(rows * columns for rows, columns in shapes)
    same(
        count,
        expected,
        what="the number of trained parameters",
        hints={
            both
            * rank: "rank · out · in counts full matrices: A has rank · in numbers, B has out · "
            "rank",
            both: "this counts the frozen weights",
            both + expected: "the frozen weights are not trained: count A and B alone",
            expected // rank: "the rank is missing: (in + out) numbers for each of its directions",
            rank * sum(columns for _, columns in shapes): "B is missing",
            rank * sum(rows for rows, _ in shapes): "A is missing",
            rank * sum(shapes[0]): "this is the first layer alone: add up all of them",
        },
    )
    optimizer = torch.optim.AdamW(layers.parameters(), lr=1e-3)
    sum(parameter.sum() for parameter in layers.parameters()).backward()
    optimizer.step()
    held = sum(parameter.grad.nbytes for parameter in layers.parameters())
    held += sum(
        v.nbytes for state in optimizer.state.values() for v in state.values() if v.numel() > 1
    )
    same(
        size,
        held,
        what="the bytes",
        hints={
            8 * expected: "the gradient is missing: 4 bytes beside AdamW's 8",
            4 * expected: "this is one tensor: gradient, mean and mean of squares make three",
            3 * expected: "these are numbers, not bytes: a float32 has four",
            16
            * expected: "the weights themselves were counted too: gradients and AdamW's state only",
            12 * both: "frozen weights have no gradient and no state: count A and B alone",
        },
    )
    return "equal to the tensors of a real AdamW step: rank · (in + out) parameters, 12 bytes each"


@checks("5.5")
def _merge_weight(attempt):
    weight, bias, lora_a, lora_b, alpha = _layer()
    weight, lora_a, lora_b = weight.float(), lora_a.float(), lora_b.float()
    rank, update = len(lora_a), lora_b @ lora_a
    expected = weight + alpha / rank * update
    kept = [tensor.clone() for tensor in (weight, lora_a, lora_b)]
    merged = attempt(weight, lora_a, lora_b, alpha)
    _unchanged([weight, lora_a, lora_b], kept)
    same(
        merged,
        expected,
        what="the merged weight",
        hints={
            weight + alpha * update: "alpha is not divided by the rank",
            weight + update: "the scale alpha / rank is missing",
            weight - alpha / rank * update: "the sign is reversed: the update is added",
            alpha / rank * update: "the frozen weight is missing: add it",
            alpha / rank * (weight + update): "alpha / rank scales the update alone",
            weight + rank / alpha * update: "the scale is upside down: alpha / rank",
        },
    )
    x = torch.randn(4, weight.shape[1])
    unmerged = x @ weight.T + alpha / rank * (x @ lora_a.T @ lora_b.T)
    same(x @ merged.T, unmerged, what="the output of the merged layer", rtol=1e-4, atol=1e-4)
    size = 64  # in half precision, one rounding: no entry is off by more
    half = torch.randn(size, size).bfloat16()
    lora_a, lora_b = torch.randn(4, size), 0.02 * torch.randn(size, 4)
    found = attempt(half, lora_a, lora_b, 8.0)
    if found.dtype != torch.bfloat16:
        raise Mistake(
            f"the merged weight of a bfloat16 layer has {found.dtype}: give back weight's own dtype"
        )
    once = (half.float() + 2.0 * (lora_b @ lora_a)).bfloat16()
    if not torch.equal(found, once):
        raise Mistake(
            "in bfloat16 the sum was rounded more than once: add in float32, and convert at the end"
        )
    return "merged equals unmerged, the base weight stays, and half precision is rounded once"


@checks("5.6")
def _dora_forward(attempt):
    weight, bias, lora_a, lora_b, alpha = _layer()
    x, rank = torch.randn(2, 3, weight.shape[1], dtype=torch.float64), len(lora_a)
    magnitude = torch.rand(len(weight), dtype=torch.float64) + 0.5
    turned = weight + alpha / rank * (lora_b @ lora_a)
    lengths = turned.norm(dim=1, keepdim=True)
    expected = F.linear(x, magnitude[:, None] * turned / lengths, bias)
    no_bias = expected - bias
    kept = [tensor.clone() for tensor in (x, weight, bias, lora_a, lora_b, magnitude)]
    same(
        attempt(x, weight, bias, lora_a, lora_b, alpha, magnitude),
        expected,
        what="the output",
        hints={
            F.linear(x, turned, bias): "this is LoRA: the magnitude and the norm are missing",
            F.linear(
                x, magnitude[:, None] * turned, bias
            ): "the rows are not normalised: divide by their lengths",
            F.linear(x, turned / lengths, bias): "the magnitude is missing",
            F.linear(
                x, magnitude[:, None] * turned / turned.norm(dim=0), bias
            ): "you normalised columns: in PyTorch's (out, in) each row makes one output, dim=1",
            F.linear(
                x, magnitude[:, None] * turned / turned.norm(), bias
            ): "you divided by the norm of the whole matrix: each row has its own length",
            F.linear(
                x, magnitude[:, None] * turned / weight.norm(dim=1, keepdim=True), bias
            ): "you divided by the lengths of W: the direction is that of W plus the update",
            F.linear(
                x, magnitude[:, None] * turned / lengths**2, bias
            ): "this is the squared length: take the root",
            magnitude
            * F.linear(x, turned / lengths, bias): "the magnitude multiplied the bias as well",
            no_bias: "the bias is missing",
            F.linear(
                x, magnitude[:, None] * weight / weight.norm(dim=1, keepdim=True), bias
            ): "the update is missing",
        },
    )
    _unchanged([x, weight, bias, lora_a, lora_b, magnitude], kept)
    start = attempt(x, weight, bias, lora_a, torch.zeros_like(lora_b), alpha, weight.norm(dim=1))
    same(
        start,
        F.linear(x, weight, bias),
        what="the output with B = 0 and the magnitudes of W (the base layer)",
    )
    scaled = attempt(x, 3 * weight, bias, lora_a, 3 * lora_b, alpha, magnitude)
    same(
        scaled,
        expected,
        what="the output with W and B three times as long (the lengths must not matter)",
    )
    same(
        attempt(x, weight, None, lora_a, lora_b, alpha, magnitude),
        no_bias,
        what="the output without a bias",
    )
    return (
        "length times direction, row by row; it begins as the base layer, and only the "
        "magnitude sets the length"
    )
