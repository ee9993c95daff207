"""Checks of chapter 05, LoRA by hand."""

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from sft_lab.course.exercises.kit import Mistake, checks, need_dtype, normal, same, unpack

TOO_LARGE = "alpha is not divided by the rank"
NO_SCALE = "the scale alpha / rank is missing"
UPSIDE_DOWN = "the scale is upside down: alpha / rank"
SCALES_ALL = "alpha / rank scales the update alone, not the frozen layer"


def random_layer() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Weight (out, in), bias, A, B and alpha of a random layer: out, in and rank all differ, alpha
    / rank is not 1."""
    rank = random.randint(2, 4)
    columns, rows = random.sample(range(6, 12), 2)
    alpha = rank * random.uniform(1.3, 2.5)
    return normal(rows, columns), normal(rows), normal(rank, columns), normal(rows, rank), alpha


@checks("5.1")
def best_approximation(attempt: Callable) -> str:
    columns, rows = random.sample(range(6, 12), 2)
    update, rank = normal(rows, columns), 2
    left, values, right = torch.linalg.svd(update, full_matrices=False)
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    near, error = unpack(attempt(update, rank), "the nearest matrix", "its error")
    smallest = (left[:, -rank:] * values[-rank:]) @ right[-rank:]
    columns_of_v = (left[:, :rank] * values[:rank]) @ right[:, :rank].T
    no_values = "the singular values are missing: scale each column of U with its own"
    transposed = "the third factor is transposed already: its rows are the vectors v"
    hints = [
        (left[:, :rank] @ right[:rank], no_values),
        (smallest, "you kept the smallest singular values: the first are the largest"),
        (columns_of_v, transposed),
        (update - best, "this is the part that is dropped: return what is kept"),
        (update, "nothing was dropped: keep only the first `rank` terms"),
    ]
    same(near, best, hints, what="the nearest matrix")

    kept, tail = values[:rank], values[rank:]
    spectral = "this is the error in the spectral norm: the Frobenius norm needs all dropped values"
    squares = "singular values do not add, their squares do: root of the sum of squares"
    length = "this is the length of what is kept: take the singular values after the first `rank`"
    hints = [
        (tail.square().sum(), "this is the squared error: take the root"),
        (tail.sum(), squares),
        (tail[0], spectral),
        (kept.norm(), length),
        (tail.norm() / values.norm(), "this is the relative error: leave out the division"),
    ]
    same(error, (update - best).norm(), hints, what="the error")
    for _ in range(20):  # the best matrices of random column spaces are not nearer
        basis = normal(rows, rank)
        other = basis @ torch.linalg.lstsq(basis, update).solution
        assert (update - other).norm() > best.sub(update).norm() - 1e-9
    return "no matrix of this rank is nearer; the error is the length of the dropped values"


@checks("5.2")
def lora_forward(attempt: Callable) -> str:
    weight, bias, lora_a, lora_b, alpha = random_layer()
    x, rank = normal(2, 3, weight.shape[1]), len(lora_a)
    plain, update = F.linear(x, weight, bias), x @ lora_a.T @ lora_b.T
    expected = plain + alpha / rank * update
    of_rslora = plain + alpha / rank**0.5 * update
    by_inputs = plain + alpha / lora_a.shape[1] * update
    by_outputs = plain + alpha / len(lora_b) * update
    hints = [
        (plain + alpha * update, TOO_LARGE),
        (plain + update, NO_SCALE),
        (plain + rank / alpha * update, UPSIDE_DOWN),
        (by_inputs, "you divided by the inputs of A: the rank is the other dimension"),
        (by_outputs, "you divided by the outputs of B: the rank is the other dimension"),
        (of_rslora, "this is rsLoRA's scale: here alpha / rank, without the root"),
        (alpha / rank * (plain + update), SCALES_ALL),
        (alpha / rank * update, "the frozen layer is missing: LoRA adds to it"),
        (plain, "the update is missing"),
        (expected + bias, "the bias is added twice"),
        (expected - bias, "the bias is missing"),
    ]
    same(attempt(x, weight, bias, lora_a, lora_b, alpha), expected, hints, what="the output")

    no_bias = attempt(x, weight, None, lora_a, lora_b, alpha)
    same(no_bias, expected - bias, what="the output without a bias")
    vector = attempt(x[0, 0], weight, bias, lora_a, lora_b, alpha)
    same(vector, expected[0, 0], what="the output for one vector")
    start = attempt(x, weight, bias, lora_a, torch.zeros_like(lora_b), alpha)
    same(start, plain, what="the output with B = 0 (the base layer)")
    return "the frozen layer plus (alpha / rank) B A x, for any leading dimensions"


@checks("5.3")
def widen(attempt: Callable) -> str:
    weight, _, lora_a, lora_b, alpha = random_layer()
    rank, new = len(lora_a), len(lora_a) + random.randint(3, 5)
    wide_a, wide_b, wide_alpha = unpack(attempt(lora_a, lora_b, alpha, new), "A", "B", "alpha")
    shapes = {"A": (wide_a, (new, weight.shape[1])), "B": (wide_b, (len(weight), new))}
    for name, (factor, shape) in shapes.items():
        if tuple(factor.shape) != shape:
            raise Mistake(
                f"{name} has shape {tuple(factor.shape)}, expected {shape}: the rank is the "
                "dimension that grows, rows of A and columns of B"
            )
    scaled = [(lora_b @ lora_a * new / rank, "the scale belongs into alpha, not into A or B")]
    same(wide_b @ wide_a, lora_b @ lora_a, scaled, what="the product B A")

    stayed = f"alpha stayed the same, so alpha / rank fell from alpha / {rank} to alpha / {new}"
    upside_down = "upside down: alpha grows with the rank, so that alpha / rank stays"
    root = "this keeps alpha / √rank: here the layer divides by the rank"
    hints = [
        (alpha, stayed),
        (alpha * rank / new, upside_down),
        (alpha / rank, "this is the scale: return alpha, which the layer divides by the new rank"),
        (alpha * (new / rank) ** 0.5, root),
    ]
    same(wide_alpha, alpha * new / rank, hints, what="alpha")
    x = normal(5, weight.shape[1])
    found = wide_alpha / new * (x @ wide_a.T @ wide_b.T)
    same(found, alpha / rank * (x @ lora_a.T @ lora_b.T), what="the update")
    return "zeros leave B A alone, and alpha grows with the rank: the same output at any rank"


@checks("5.4")
def lora_budget(attempt: Callable) -> str:
    rank = random.choice((2, 5))
    sizes = ((20, 24, 6, 8), (40, 49, 25, 29), (60, 69, 30, 34))  # the least and the largest
    shapes = [(random.randint(*size[:2]), random.randint(*size[2:])) for size in sizes]
    found = attempt(shapes, rank)
    count, size = unpack(found, "the number of trained parameters", "the number of bytes")
    factors = nn.ModuleList()  # the reference: real tensors
    for rows, columns in shapes:
        factors.append(nn.Linear(columns, rank, bias=False))
        factors.append(nn.Linear(rank, rows, bias=False))
    trained = sum(parameter.numel() for parameter in factors.parameters())
    frozen = sum(rows * columns for rows, columns in shapes)
    full = "rank · out · in counts full matrices: A has rank · in numbers, B has out · rank"
    hints = [
        (rank * frozen, full),
        (frozen, "this counts the frozen weights"),
        (frozen + trained, "the frozen weights are not trained: count A and B alone"),
        (trained // rank, "the rank is missing: (in + out) numbers for each of its directions"),
        (rank * sum(columns for _, columns in shapes), "B is missing"),
        (rank * sum(rows for rows, _ in shapes), "A is missing"),
        (rank * sum(shapes[0]), "this is the first layer alone: add up all of them"),
    ]
    same(count, trained, hints, what="the number of trained parameters")

    weights = "the weights themselves were counted too: gradients and AdamW's state only"
    hints = [
        (8 * trained, "the gradient is missing: 4 bytes beside AdamW's 8"),
        (4 * trained, "this is one tensor: gradient, mean and mean of squares make three"),
        (3 * trained, "these are numbers, not bytes: a float32 has four"),
        (16 * trained, weights),
        (12 * frozen, "frozen weights have no gradient and no state: count A and B alone"),
    ]
    same(size, _bytes_of_a_step(factors), hints, what="the bytes")
    return "equal to the tensors of a real AdamW step: rank · (in + out) numbers, 12 bytes each"


def _bytes_of_a_step(module: nn.Module) -> int:
    """What gradients and AdamW's averages take after a step."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    sum(parameter.sum() for parameter in module.parameters()).backward()
    optimizer.step()
    averages = ("exp_avg", "exp_avg_sq")
    return sum(
        parameter.grad.nbytes + sum(optimizer.state[parameter][name].nbytes for name in averages)
        for parameter in module.parameters()
    )


@checks("5.5")
def merge_weight(attempt: Callable) -> str:
    weight, _, lora_a, lora_b, alpha = random_layer()
    weight, lora_a, lora_b = weight.float(), lora_a.float(), lora_b.float()
    scale, update = alpha / len(lora_a), lora_b @ lora_a
    hints = [
        (weight + alpha * update, TOO_LARGE),
        (weight + update, NO_SCALE),
        (weight + update / scale, UPSIDE_DOWN),
        (weight - scale * update, "the sign is reversed: the update is added"),
        (scale * update, "the frozen weight is missing: add it"),
        (scale * (weight + update), SCALES_ALL),
    ]
    merged = attempt(weight, lora_a, lora_b, alpha)
    same(merged, weight + scale * update, hints, what="the merged weight")
    x = torch.randn(4, weight.shape[1])
    unmerged = x @ weight.T + scale * (x @ lora_a.T @ lora_b.T)
    same(x @ merged.T, unmerged, what="the output of the merged layer", atol=1e-4)

    half = torch.randn(64, 64).bfloat16()
    lora_a, lora_b = torch.randn(4, 64), 0.02 * torch.randn(64, 4)
    found = attempt(half, lora_a, lora_b, 8.0)
    own = "give back weight's own dtype"
    need_dtype(found, torch.bfloat16, "the merged weight of a bfloat16 layer", own)
    exact = half.double() + 8.0 / 4 * (lora_b.double() @ lora_a.double())
    spacing = 2.0 ** (exact.abs().log2().floor() - 7)  # bfloat16 keeps 7 bits behind the first
    # one rounding is off by half a spacing at most; 1e-6 for the float32 sum before it
    if ((found - exact).abs() > 0.5 * spacing + 1e-6).any():
        raise Mistake(
            "in bfloat16 the sum was rounded more than once: add in float32, and convert at the end"
        )
    return "merged equals unmerged, the base weight stays, and half precision is rounded once"


@checks("5.6")
def dora_forward(attempt: Callable) -> str:
    weight, bias, lora_a, lora_b, alpha = random_layer()
    x, magnitude = normal(2, 3, weight.shape[1]), torch.rand(len(weight)).double() + 0.5
    turned = weight + alpha / len(lora_a) * (lora_b @ lora_a)
    lengths, old = turned.norm(dim=1, keepdim=True), weight.norm(dim=1, keepdim=True)
    long = magnitude[:, None] * turned

    def output(new: torch.Tensor) -> torch.Tensor:
        return F.linear(x, new, bias)

    expected = output(long / lengths)
    columns = "you normalised columns: in PyTorch's (out, in) each row makes one output, dim=1"
    whole = "you divided by the norm of the whole matrix: each row has its own length"
    of_w = "you divided by the lengths of W: the direction is that of W plus the update"
    times_bias = magnitude * output(turned / lengths)
    hints = [
        (output(turned), "this is LoRA: the magnitude and the norm are missing"),
        (output(long), "the rows are not normalised: divide by their lengths"),
        (output(turned / lengths), "the magnitude is missing"),
        (output(long / turned.norm(dim=0)), columns),
        (output(long / turned.norm()), whole),
        (output(long / old), of_w),
        (output(long / lengths**2), "this is the squared length: take the root"),
        (output(magnitude[:, None] * weight / old), "the update is missing"),
        (times_bias, "the magnitude multiplied the bias as well"),
        (expected - bias, "the bias is missing"),
    ]
    found = attempt(x, weight, bias, lora_a, lora_b, alpha, magnitude)
    same(found, expected, hints, what="the output")

    start = attempt(x, weight, bias, lora_a, torch.zeros_like(lora_b), alpha, weight.norm(dim=1))
    same(start, output(weight), what="the output with B = 0 and W's own lengths (the base layer)")
    scaled = attempt(x, 3 * weight, bias, lora_a, 3 * lora_b, alpha, magnitude)
    same(scaled, expected, what="the output with W and B three times as long, the same as before,")
    no_bias = attempt(x, weight, None, lora_a, lora_b, alpha, magnitude)
    same(no_bias, expected - bias, what="the output without a bias")
    return "length times direction, row by row; only the magnitude sets the length"
