"""Checks of chapter 05, LoRA by hand."""

import operator
import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    named,
    need_dtype,
    need_number,
    need_tensor,
    normal,
    same,
    same_for_all,
    same_in_all,
    unpack,
)

TOO_LARGE = "alpha is not divided by the rank"
NO_SCALE = "the scale alpha / rank is missing"
UPSIDE_DOWN = "the scale is upside down: alpha / rank"
SCALES_ALL = "alpha / rank scales the update alone, not the frozen layer"


Layer = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]


def random_layers(count: int) -> list[Layer]:
    """Weight (out, in), bias, A, B and alpha of at most three random layers: no size occurs twice,
    so that no fixed number divides all of them rightly; alpha / rank is no whole number, and not
    near one."""
    layers = []
    sizes = random.sample(range(6, 6 + 2 * count + 2), 2 * count)
    for rank in random.sample(range(2, 5), count):
        columns, rows = sizes.pop(), sizes.pop()
        alpha = rank * random.uniform(2.2, 2.9)
        frozen = normal(rows, columns), normal(rows)
        layers.append((*frozen, normal(rank, columns), normal(rows, rank), alpha))
    return layers


@checks("5.1")
def best_approximation(attempt: Callable) -> str:
    least = random.randint(6, 8)
    shapes = [(least, least + 3, 2), (least + 2, least, 3), (least, least + 1, least)]
    nearest, errors = [], []
    for rows, columns, rank in shapes:  # the last one is whole: nothing is dropped
        update = normal(rows, columns)
        near, error = unpack(attempt(update, rank), "the nearest matrix", "its error")
        given = f"a matrix of {rows} × {columns} and rank {rank}"
        right, hints = _nearest(update, rank)
        nearest.append(Case(need_tensor(near, "the nearest matrix"), right, hints, given))
        errors.append(Case(error, *_error_of(update, rank), given))
    same_in_all(nearest, what="the nearest matrix")
    same_in_all(errors, what="the error", rtol=1e-6, atol=0.0)
    return "no matrix of this rank is nearer; the error is the length of the dropped values"


def _nearest(update: torch.Tensor, rank: int) -> tuple[torch.Tensor, list]:
    """The nearest matrix of this rank, and what usual mistakes give."""
    left, values, right = torch.linalg.svd(update, full_matrices=False)
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    hints = [
        (
            left[:, :rank] @ right[:rank],
            "the singular values are missing: scale each column of U with its own",
        ),
        (
            (left[:, -rank:] * values[-rank:]) @ right[-rank:],
            "you kept the smallest singular values: the first are the largest",
        ),
        (
            (left[:, :rank] * values[:rank]) @ right[:, :rank].T,
            "the third factor is transposed already: its rows are the vectors v",
        ),
        (update - best, "this is the part that is dropped: return what is kept"),
        (update, "nothing was dropped: keep only the first `rank` terms"),
    ]
    return best, hints


def _error_of(update: torch.Tensor, rank: int) -> tuple[torch.Tensor, list]:
    """The length of the dropped singular values, exactly 0 where none is, and usual mistakes."""
    left, values, right = torch.linalg.svd(update, full_matrices=False)
    tail = values[rank:]
    measured = (update - (left[:, :rank] * values[:rank]) @ right[:rank]).norm()
    return tail.norm(), [
        (tail.square().sum(), "this is the squared error: take the root"),
        (tail.sum(), "singular values do not add, their squares do: root of the sum of squares"),
        (
            tail[:1].sum(),
            "this is the error in the spectral norm: the Frobenius norm needs all dropped values",
        ),
        (
            values[:rank].norm(),
            "this is the length of what is kept: take the singular values after the first `rank`",
        ),
        (
            tail.norm() / values.norm(),
            "this is the relative error: leave out the division",
        ),
        (measured, "take the error from the singular values: without any dropped it is exactly 0"),
    ]


@checks("5.2")
def lora_forward(attempt: Callable) -> str:
    inputs = []
    for weight, bias, lora_a, lora_b, alpha in random_layers(2):
        x = normal(2, 3, weight.shape[1])
        inputs += [
            (x, weight, bias, lora_a, lora_b, alpha),
            (x, weight, None, lora_a, lora_b, alpha),
            (x[0, 0], weight, bias, lora_a, lora_b, alpha),
            (x, weight, bias, lora_a, torch.zeros_like(lora_b), alpha),  # the base layer
        ]

    def scale(alpha, rank, columns, rows):
        return alpha / rank

    def one(*sizes):
        return 1.0

    def output(update=scale, frozen=one, biases=one) -> Callable:
        def forward(x, weight, bias, A, B, alpha):
            sizes = (alpha, len(A), A.shape[1], len(B))
            bias = 0.0 if bias is None else bias
            base = frozen(*sizes) * (x @ weight.T) + biases(*sizes) * bias
            return base + update(*sizes) * (x @ A.T @ B.T)

        return forward

    def none(*sizes):
        return 0.0

    mistakes = [
        (output(lambda alpha, rank, columns, rows: alpha), TOO_LARGE),
        (output(one), NO_SCALE),
        (output(lambda alpha, rank, columns, rows: rank / alpha), UPSIDE_DOWN),
        (
            output(lambda alpha, rank, columns, rows: alpha / columns),
            "you divided by the inputs of A: the rank is the other dimension",
        ),
        (
            output(lambda alpha, rank, columns, rows: alpha / rows),
            "you divided by the outputs of B: the rank is the other dimension",
        ),
        (
            output(lambda alpha, rank, columns, rows: alpha / rank**0.5),
            "this is rsLoRA's scale: here alpha / rank, without the root",
        ),
        (output(frozen=scale, biases=scale), SCALES_ALL),
        (output(frozen=none, biases=none), "the frozen layer is missing: LoRA adds to it"),
        (output(none), "the update is missing"),
        (output(biases=lambda *sizes: 2.0), "the bias is added twice"),
        (output(biases=none), "the bias is missing"),
    ]
    same_for_all(attempt, inputs, output(), mistakes, form=need_tensor, what="the output")
    return "the frozen layer plus (alpha / rank) B A x, for any leading dimensions"


@checks("5.3")
def widen(attempt: Callable) -> str:
    alphas = []
    for growth in random.sample((3, 5, 7), 2):  # never a whole multiple of rank 2 or 4
        rank = random.choice((2, 4))
        lora_a, lora_b = torch.randn(rank, 16), torch.randn(13, rank)  # wider than any rank here
        alpha, new = random.choice((1.3, 2.9, 3.1)), rank + growth
        found = unpack(attempt(lora_a, lora_b, alpha, new), "A", "B", "alpha")
        _is_filled_up(found[0], lora_a, "A", (new, 16))
        _is_filled_up(found[1], lora_b, "B", (13, new))
        found_a, found_b = (factor.double() for factor in found[:2])
        product = lora_b.double() @ lora_a.double()
        same(found_b @ found_a, product, what="the product B A")
        hints = [
            (alpha, "alpha stayed the same, so alpha / rank fell as the rank grew"),
            (alpha * rank / new, "upside down: alpha grows with the rank, alpha / rank stays"),
            (
                alpha / rank,
                "this is the scale: return alpha, which the layer divides by the new rank",
            ),
            (
                alpha * (new / rank) ** 0.5,
                "this keeps alpha / √rank: here the layer divides by the rank",
            ),
        ]
        given = f"rank {rank}, alpha {alpha}, new rank {new}"
        alphas.append(Case(need_number(found[2], "alpha"), alpha * new / rank, hints, given))
    same_in_all(alphas, what="alpha")
    return "zeros leave B A alone, and alpha grows with the rank: the same output at any rank"


def _is_filled_up(wide: object, factor: torch.Tensor, name: str, shape: tuple[int, int]) -> None:
    """Raise Mistake unless `wide` is the factor with rows (of A) or columns (of B) of zeros."""
    need_tensor(wide, name)
    if tuple(wide.shape) != shape:
        raise Mistake(
            f"{name} has shape {tuple(wide.shape)}, expected {shape}: the rank is the dimension "
            "that grows, rows of A and columns of B"
        )
    along = 1 if name == "A" else 0
    kept = wide.index_select(1 - along, wide.detach().any(dim=along).nonzero().flatten())
    grown = shape[1 - along] / factor.shape[1 - along]
    hints = [(grown * factor, "the scale belongs into alpha, not into A or B")]
    same(kept, factor, hints, what=f"{name} without its zeros")


@checks("5.4")
def lora_budget(attempt: Callable) -> str:
    sizes = ((20, 24, 6, 8), (40, 49, 25, 29), (60, 69, 30, 34))  # the least and the largest
    counts, bytes_of = [], []
    for rank in (random.choice((2, 3, 5, 7)), 11):  # 11: above the smaller side of some layers
        shapes = [(random.randint(*size[:2]), random.randint(*size[2:])) for size in sizes]
        shapes.append(random.choice(shapes))  # layers may have equal shapes
        found = unpack(attempt(shapes, rank), "the number of trained parameters", "of bytes")
        whole = "both numbers are whole: return ints"
        with named(TypeError, whole):
            count, size = map(operator.index, found)
        given = f"shapes = {shapes}, rank = {rank}"
        counts.append(Case(count, *_trained_numbers(shapes, rank), given))
        bytes_of.append(Case(size, *_trained_bytes(shapes, rank), given))
    same_in_all(counts, what="the number of trained parameters")
    same_in_all(bytes_of, what="the number of bytes")
    return "equal to the tensors of a real AdamW step: rank · (in + out) numbers, 12 bytes each"


def _trained_numbers(shapes: list[tuple[int, int]], rank: int) -> tuple[int, list]:
    trained = rank * sum(map(sum, shapes))
    frozen = sum(rows * columns for rows, columns in shapes)
    return trained, [
        (
            rank * frozen,
            "rank · out · in counts full matrices: A has rank · in numbers, B has out · rank",
        ),
        (frozen, "this counts the frozen weights"),
        (frozen + trained, "the frozen weights are not trained: count A and B alone"),
        (
            trained // rank,
            "the rank is missing: (in + out) numbers for each of its directions",
        ),
        (rank * sum(columns for _, columns in shapes), "B is missing"),
        (rank * sum(rows for rows, _ in shapes), "A is missing"),
        (rank * sum(shapes[0]), "this is the first layer alone: add up all of them"),
        (rank * sum(map(sum, set(shapes))), "layers of equal shape were counted once"),
    ]


def _trained_bytes(shapes: list[tuple[int, int]], rank: int) -> tuple[int, list]:
    factors = nn.ModuleList()  # the reference: real tensors
    for rows, columns in shapes:
        factors.append(nn.Linear(columns, rank, bias=False))
        factors.append(nn.Linear(rank, rows, bias=False))
    trained = sum(parameter.numel() for parameter in factors.parameters())
    frozen = sum(rows * columns for rows, columns in shapes)
    return _bytes_of_a_step(factors), [
        (8 * trained, "the gradient is missing: 4 bytes beside AdamW's 8"),
        (4 * trained, "this is one tensor: gradient, mean and mean of squares make three"),
        (3 * trained, "these are numbers, not bytes: a float32 has four"),
        (
            16 * trained,
            "the weights themselves were counted too: gradients and AdamW's state only",
        ),
        (
            12 * frozen,
            "frozen weights have no gradient and no state: count A and B alone",
        ),
    ]


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
    cases = []
    for weight, _, lora_a, lora_b, alpha in random_layers(2):
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
        merged = need_tensor(attempt(weight, lora_a, lora_b, alpha), "the merged weight")
        cases.append(Case(merged, weight + scale * update, hints))
    same_in_all(cases, what="the merged weight", atol=1e-5)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        start = torch.randn(6, 5).to(dtype)
        found = attempt(start, torch.randn(2, 5), torch.zeros(6, 2), 4.0)
        own = "give back weight's own dtype"
        need_dtype(found, dtype, f"the merged weight of a layer in {dtype}", own)
        same(found, start, what="the merged weight at B = 0")
        if found.data_ptr() == start.data_ptr():
            raise Mistake("at B = 0 this is the caller's own tensor: return a new one, always")
    for dtype in (torch.bfloat16, torch.float16):
        _is_rounded_once(attempt, dtype)
    return "merged equals unmerged, the base weight stays, and half precision is rounded once"


def _is_rounded_once(attempt: Callable, dtype: torch.dtype) -> None:
    half = torch.randn(64, 64).to(dtype)
    lora_a, lora_b = torch.randn(4, 64), 0.02 * torch.randn(64, 4)
    found = attempt(half, lora_a, lora_b, 8.0)
    exact = half.double() + 8.0 / 4 * (lora_b.double() @ lora_a.double())
    spacing = torch.finfo(dtype).eps * 2.0 ** exact.abs().log2().floor().clamp(min=-14)
    # one rounding is off by half a spacing at most; 1e-6 for the float32 sum before it
    error = (found - exact).abs()
    if (error > 0.5 * spacing + 1e-6).any():
        raise Mistake(
            f"in {dtype} a number is off by {(error / spacing).max():.2f} of its last digit, and "
            "one rounding gives at most 0.50: add in float32, and round once, at the end"
        )


@checks("5.6")
def dora_forward(attempt: Callable) -> str:
    inputs = []
    for weight, bias, lora_a, lora_b, alpha in random_layers(2):
        x, magnitude = normal(2, 3, weight.shape[1]), torch.rand(len(weight)).double() + 0.5
        rest, no_update = (alpha, magnitude), torch.zeros_like(lora_b)
        inputs += [
            (x, weight, bias, lora_a, lora_b, *rest),
            (x, weight, None, lora_a, lora_b, *rest),
            (x[0, 0], 3 * weight, bias, lora_a, 3 * lora_b, *rest),  # both longer: the same output
            (x, weight, bias, lora_a, no_update, alpha, weight.norm(dim=1)),  # the base layer
        ]

    def output(new_weight: Callable, biases: float = 1.0) -> Callable:
        def forward(x, weight, bias, A, B, alpha, magnitude):
            turned = weight + alpha / len(A) * (B @ A)
            bias = 0.0 if bias is None else bias
            return x @ new_weight(turned, weight, magnitude[:, None]).T + biases * bias

        return forward

    def times_bias(x, weight, bias, A, B, alpha, magnitude):
        turned = weight + alpha / len(A) * (B @ A)
        return magnitude * F.linear(x, turned / _lengths(turned), bias)

    def right(turned, weight, magnitude):
        return magnitude * turned / _lengths(turned)

    mistakes = [
        (output(lambda turned, w, m: turned), "this is LoRA: magnitude and norm are missing"),
        (
            output(lambda turned, w, m: m * turned),
            "the rows are not normalised: divide by their lengths",
        ),
        (output(lambda turned, w, m: turned / _lengths(turned)), "the magnitude is missing"),
        (
            output(lambda turned, w, m: m * turned / turned.norm(dim=0)),
            "you normalised columns: in PyTorch's (out, in) each row makes one output, dim=1",
        ),
        (
            output(lambda turned, w, m: m * turned / turned.norm()),
            "you divided by the norm of the whole matrix: each row has its own length",
        ),
        (
            output(lambda turned, w, m: m * turned / _lengths(w)),
            "you divided by the lengths of W: the direction is that of W plus the update",
        ),
        (
            output(lambda turned, w, m: m * turned / _lengths(turned) ** 2),
            "this is the squared length: take the root",
        ),
        (output(lambda turned, w, m: m * w / _lengths(w)), "the update is missing"),
        (times_bias, "the magnitude multiplied the bias as well"),
        (output(right, biases=0.0), "the bias is missing"),
    ]
    same_for_all(attempt, inputs, output(right), mistakes, form=need_tensor, what="the output")
    return "length times direction, row by row; only the magnitude sets the length"


def _lengths(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.norm(dim=1, keepdim=True)
