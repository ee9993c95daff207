"""Checks of chapter 05, LoRA by hand."""

import contextlib
import copy
import functools
import io
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
    need_number,
    need_tensor,
    need_word,
    normal,
    same,
    same_in_all,
    unpack,
)
from sft_lab.course.lora_runs import (
    CAUSES,
    PATIENTS,
    Task,
    chances_at_end,
    country_task,
    measure,
    tune,
)
from sft_lab.lora import add_lora
from sft_lab.models import load

TOO_LARGE = "alpha is not divided by the rank"
NO_SCALE = "the scale alpha / rank is missing"
UPSIDE_DOWN = "the scale is upside down: alpha / rank"
SCALES_ALL = "alpha / rank scales the update alone, not the frozen layer"
NEARLY_EQUAL = 0.99  # the cosine above which two rows count as alike
ROOM = 1000  # numbers that 5.10 may train beside LoRA of rank 8
LEAST_STOPS, LEAST_SAYS = 0.8, 0.5


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


# 5.7


@checks("5.7")
def lora_linear(attempt: type) -> str:
    outputs, weights, biases, modules = [], [], [], []
    sizes = random.sample(range(6, 14), 4)  # no two alike: a swapped dimension cannot hide
    for rank, with_bias in ((random.choice((2, 4)), True), (3, False)):
        columns, rows = sizes.pop(), sizes.pop()
        layer = nn.Linear(columns, rows, bias=with_bias)
        made = _made_of(attempt, layer, rank, rank * random.uniform(2.2, 2.9))
        _is_prepared(made, layer, rank)
        alpha = made.check_alpha
        for x in (torch.randn(2, 3, columns), torch.randn(columns)):
            given = f"x of shape {tuple(x.shape)}, {'with' if with_bias else 'without'} a bias"
            start = need_tensor(made(x), "the output")
            hints = [
                (layer(x) * alpha / rank, SCALES_ALL),
                (torch.zeros_like(start), _LAYER_MISSING),
            ]
            same(start, layer(x), hints, what="the output with B = 0, which is the layer's,")
            _fill(made)
            outputs.append(Case(made(x).detach(), *_outputs(made, layer, x, alpha), given))
            made.B.data.zero_()
        _gets_gradients(made, layer)
        _fill(made)
        _merged(made, layer)
        _fill(made)
        merged = _merged(made, layer)  # of what A and B are by now
        weights.append(Case(merged.weight.detach(), *_merged_weight(made, layer, alpha)))
        biases.append((merged.bias, layer.bias))
        modules.append((made, layer))
    same_in_all(outputs, what="the output", rtol=1e-3, atol=1e-4)
    for made, layer in modules:
        _reaches_x(made, layer)
    same_in_all(weights, what="the merged weight", rtol=1e-3, atol=1e-4)
    for found, right in biases:
        if right is None and found is not None:
            raise Mistake("a layer without a bias is merged into one without: bias=False")
        if right is not None:
            same(found, right, what="the merged bias, which is the layer's,")
    _is_drawn_anew(attempt)
    for dtype in (torch.bfloat16, torch.float16):
        _is_rounded_once(attempt, dtype)
    return "begins as the layer, learns A and B alone, and merges with one rounding"


_LAYER_MISSING = "the frozen layer is missing: LoRA adds to it"


def _made_of(attempt: type, layer: nn.Linear, rank: int, alpha: float) -> nn.Module:
    """The reader's module around a layer, in the form the statement asks for."""
    made = attempt(layer, rank, alpha)
    if not isinstance(made, nn.Module):
        raise Mistake("write a class that derives from nn.Module")
    if getattr(made, "layer", None) is not layer:
        raise Mistake("keep the layer that is given, itself, as self.layer")
    for name, shape in (("A", (rank, layer.in_features)), ("B", (layer.out_features, rank))):
        factor = getattr(made, name, None)
        if not isinstance(factor, nn.Parameter):
            kind = type(factor).__name__
            raise Mistake(f"self.{name} is a {kind}, expected an nn.Parameter: else nothing trains")
        if tuple(factor.shape) != shape:
            raise Mistake(
                f"{name} has shape {tuple(factor.shape)}, expected {shape}: A is (rank, in) and B "
                "is (out, rank)"
            )
        if factor.dtype != torch.float32:
            raise Mistake(f"{name} is {factor.dtype}, expected float32, whatever the layer has")
    made.check_alpha = alpha
    return made


def _is_prepared(made: nn.Module, layer: nn.Linear, rank: int) -> None:
    """Raise Mistake unless A and B alone are trained, and B alone is zero."""
    if any(parameter.requires_grad for parameter in layer.parameters()):
        raise Mistake("the layer is not frozen: its weight or its bias still requires a gradient")
    trained = {id(parameter) for parameter in made.parameters() if parameter.requires_grad}
    if not {id(made.A), id(made.B)} <= trained:
        raise Mistake("A and B must require gradients: freeze the layer, not the whole module")
    if len(trained) > 2:
        raise Mistake("A and B alone are trained: another parameter requires a gradient too")
    if made.B.any():
        raise Mistake("B begins at zero, so that the first output is the layer's")
    if not made.A.any():
        raise Mistake("A begins at zero like B: then neither ever gets a gradient")


def _fill(made: nn.Module) -> None:
    with torch.no_grad():
        made.A.normal_()
        made.B.normal_()


def _update(made: nn.Module) -> torch.Tensor:
    return (made.B @ made.A).detach()


def _outputs(made: nn.Module, layer: nn.Linear, x: torch.Tensor, alpha: float) -> tuple:
    """The right output, and what usual mistakes give."""
    rank, plain = len(made.A), layer(x).detach()
    update, scale = x @ _update(made).T, alpha / len(made.A)
    bias = torch.zeros(()) if layer.bias is None else layer.bias.detach()
    return plain + scale * update, [
        (plain + alpha * update, TOO_LARGE),
        (plain + update, NO_SCALE),
        (plain + update / scale, UPSIDE_DOWN),
        (plain + alpha / layer.in_features * update, "you divided by the inputs, not by the rank"),
        (plain + alpha / layer.out_features * update, "you divided by the outputs, not the rank"),
        (plain + alpha / rank**0.5 * update, "this is rsLoRA's scale: here alpha / rank"),
        (scale * (plain + update), SCALES_ALL),
        (scale * update, _LAYER_MISSING),
        (plain, "the update is missing: only the layer's output comes back"),
        (plain + scale * (update + bias), "the bias is added twice"),
    ]


def _gets_gradients(made: nn.Module, layer: nn.Linear) -> None:
    """Raise Mistake unless a gradient of the output reaches A and B, and no other weight."""
    _fill(made)
    made.zero_grad(set_to_none=True)
    made(torch.randn(4, layer.in_features)).square().sum().backward()
    for name in ("A", "B"):
        gradient = getattr(made, name).grad
        if gradient is None or not gradient.any():
            raise Mistake(f"no gradient reaches {name}: stay in torch, without detach or no_grad")


def _reaches_x(made: nn.Module, layer: nn.Linear) -> None:
    """Raise Mistake unless the layers before this one get the formula's gradient."""
    x = torch.randn(4, layer.in_features, requires_grad=True)
    made(x).sum().backward()
    weight = layer.weight.detach() + made.check_alpha / len(made.A) * _update(made)
    right = weight.sum(dim=0).expand_as(x)
    if x.grad is None or not torch.allclose(x.grad, right, rtol=1e-3, atol=1e-3):
        raise Mistake(
            "the gradient of x is not the formula's: it passes both W and B A, else the layers "
            "before this one learn wrongly"
        )


def _merged(made: nn.Module, layer: nn.Linear) -> nn.Linear:
    """What merge() gives, a new layer; Mistake when it changes the old one, A or B."""
    before = [part.detach().clone() for part in (layer.weight, made.A, made.B)]
    merged = made.merge()
    if not isinstance(merged, nn.Linear):
        raise Mistake(f"merge() returns a {type(merged).__name__}, expected an nn.Linear")
    if not all(map(torch.equal, before, (layer.weight, made.A, made.B))):
        raise Mistake("merge() changed self.layer, A or B: build a new nn.Linear, leave the old")
    if merged is layer or merged.weight.data_ptr() == layer.weight.data_ptr():
        raise Mistake("merge() gives back the layer itself: build a new nn.Linear")
    return merged


def _merged_weight(made: nn.Module, layer: nn.Linear, alpha: float) -> tuple:
    """The right merged weight, and what usual mistakes give."""
    weight, update, scale = layer.weight.detach(), _update(made), alpha / len(made.A)
    return weight + scale * update, [
        (weight + alpha * update, TOO_LARGE),
        (weight + update, NO_SCALE),
        (weight + update / scale, UPSIDE_DOWN),
        (weight - scale * update, "the sign is reversed: the update is added"),
        (scale * update, "the frozen weight is missing: add it"),
        (scale * (weight + update), SCALES_ALL),
        (weight, "the update is missing from the merged weight"),
    ]


def _is_drawn_anew(attempt: type) -> None:
    """Raise Mistake unless A is drawn, and from the range that the statement names."""
    first, second = (_made_of(attempt, nn.Linear(64, 5), 8, 16).A.detach() for _ in range(2))
    if torch.equal(first, second):
        raise Mistake("two modules begin with the same A: draw it at random, without a fixed seed")
    limit, largest = 64**-0.5, first.abs().max().item()
    if not 0.7 * limit < largest <= 1.001 * limit:
        raise Mistake(
            f"with 64 inputs the largest number in A is {largest:.3f}, expected numbers between "
            f"±1/√64 = ±{limit:.3f}: nn.init.kaiming_uniform_(A, a=5**0.5)"
        )


def _is_rounded_once(attempt: type, dtype: torch.dtype) -> None:
    """Raise Mistake unless a half-precision layer is merged into one of its own type, with one
    rounding."""
    layer = nn.Linear(64, 48).to(dtype)
    made = _made_of(attempt, layer, 4, 8.0)
    with torch.no_grad():
        made.A.normal_()
        made.B.normal_(std=0.02)
    weight = _merged(made, layer).weight.detach()
    if weight.dtype != dtype:
        raise Mistake(f"a layer of {dtype} is merged into one of {weight.dtype}: keep its own type")
    exact = layer.weight.detach().double() + 8.0 / 4 * (made.B.double() @ made.A.double()).detach()
    spacing = torch.finfo(dtype).eps * 2.0 ** exact.abs().log2().floor().clamp(min=-14)
    # one rounding is off by half a spacing at most; 1e-6 for the float32 sum before it
    error = (weight - exact).abs()
    if (error > 0.5 * spacing + 1e-6).any():
        raise Mistake(
            f"in {dtype} a number is off by {(error / spacing).max():.2f} of its last digit, and "
            "one rounding gives at most 0.50: add in float32, and round once, at the end"
        )


# 5.8


class _Thin(nn.Module):
    """What 5.8 puts in the place of a layer; it keeps the layer frozen."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.frozen = layer.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(rank, layer.in_features))
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(x) + x @ self.A.T @ self.B.T


class _Block(nn.Module):
    """Layers to find, others whose names only look like theirs, and one of another kind."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm, self.up = nn.LayerNorm(width), nn.Linear(width, inner)
        self.my_up = nn.Linear(width, width, bias=False)
        self.upper = nn.Linear(width, width)
        self.mlp = nn.ModuleDict({"up": nn.Linear(inner, width), "down": nn.Linear(width, width)})
        self.mlp["gate"] = nn.Embedding(3, width)  # a target's name, and no nn.Linear
        self.gate = nn.ModuleDict({"inner": nn.Linear(width, width)})  # its parent's name


def _tower(width: int, inner: int) -> nn.Module:
    """A model with targets at its top, in blocks, and deeper."""
    tower = nn.Module()
    tower.embed = nn.Embedding(7, width)
    tower.blocks = nn.ModuleList(_Block(width, inner) for _ in range(2))
    tower.up, tower.head = nn.Linear(width, width), nn.Linear(width, 7, bias=False)
    return tower


@checks("5.8")
def inject(attempt: Callable) -> str:
    found, counts = [], []
    for targets in (["up", "gate"], ["down"], ["head", "up", "nowhere"], ["q", "k"]):
        width, inner, rank = random.randint(4, 6), random.randint(7, 9), random.choice((2, 3))
        model, made = _tower(width, inner), []

        def make(layer: nn.Linear, rank: int = rank, made: list = made) -> nn.Module:
            if not isinstance(layer, nn.Linear):
                raise Mistake(f"make got a {type(layer).__name__}: give it nn.Linear layers alone")
            made.append(_Thin(layer, rank))
            return made[-1]

        changed, count = unpack(attempt(model, make, targets), "the changed model", "the count")
        given = f"targets = {targets}"
        _is_a_copy(changed, model)
        places = sorted(name for name, m in changed.named_modules() if isinstance(m, _Thin))
        found.append(Case(places, *_places(model, targets), given))
        if places and len(made) != len(places):
            raise Mistake(f"make was called {len(made)} times for {len(places)} layers, {given}")
        _is_frozen(changed)
        with named(TypeError, "the count is a whole number: return an int"):
            count = operator.index(count)
        counts.append(Case(count, *_count(changed), given))
    same_in_all(found, what="the list of the places that are changed")
    same_in_all(counts, what="the count")
    return "every layer of these names, at any depth; all else frozen; the count is that of A and B"


def _is_a_copy(changed: object, model: nn.Module) -> None:
    if not isinstance(changed, nn.Module):
        raise Mistake(f"the first thing is a {type(changed).__name__}, expected the changed model")
    own = {parameter.data_ptr() for parameter in model.parameters()}
    if any(parameter.data_ptr() in own for parameter in changed.parameters()):
        raise Mistake("the changed model shares weights with `model`: begin with copy.deepcopy")


def _places(model: nn.Module, targets: list[str]) -> tuple[list[str], list]:
    """Where a layer is to be replaced, and which places usual mistakes replace."""
    linear = sorted(name for name, m in model.named_modules() if isinstance(m, nn.Linear))

    def own(name: str) -> str:
        return name.rpartition(".")[2]

    return [name for name in linear if own(name) in targets], [
        (
            [name for name in linear if name.endswith(tuple(targets))],
            'a name that only ends like a target, such as "my_up", is another layer',
        ),
        (
            [name for name in linear if any(target in name for target in targets)],
            'a name that only contains a target, such as "upper", is another layer',
        ),
        (
            [name for name in linear if set(name.split(".")) & set(targets)],
            "a layer inside a module with a target's name is another layer: its own name counts",
        ),
        (linear, "every nn.Linear was replaced: only those whose own name is in targets"),
        ([name for name in linear if name in targets], "layers deeper in the model are missing"),
        (
            [name for name in linear if "." in name and own(name) in targets],
            "the layers at the top of the model, without a dot in their name, are missing",
        ),
        (
            [name for name in linear if own(name) == targets[0]],
            "only the first target was looked for",
        ),
        ([], "no layer was replaced: the new module must be set in its parent"),
    ]


def _is_frozen(changed: nn.Module) -> None:
    thin = [module for module in changed.modules() if isinstance(module, _Thin)]
    new = {id(factor) for module in thin for factor in (module.A, module.B)}
    trained = {id(p) for p in changed.parameters() if p.requires_grad}
    if thin and not trained & new:
        raise Mistake("the new A and B are frozen too: freeze first, then put them in")
    if trained - new:
        name = next(n for n, p in changed.named_parameters() if id(p) in trained - new)
        raise Mistake(f"{name} still requires a gradient: freeze all old parameters")


def _count(changed: nn.Module) -> tuple[int, list]:
    trained = [p for p in changed.parameters() if p.requires_grad]
    total = sum(p.numel() for p in changed.parameters())
    count = sum(p.numel() for p in trained)
    return count, [
        (total, "all parameters were counted: only those that require a gradient"),
        (total - count, "the frozen parameters were counted: those that require a gradient"),
        (len(trained), "these are tensors: count the numbers in them, with numel()"),
        (len(trained) // 2, "these are layers: count the numbers in A and B"),
    ]


# 5.9

_REFUTED = {  # why a claim is wrong of a patient, without the right one
    ("mask", ""): "each of its rows grades <|im_end|>: look at their labels",
    ("config", ""): "its generation configuration names <|im_end|>",
    ("steps", "mask"): "more steps cannot teach what no row grades: look at the labels",
    ("steps", "config"): "it has learned to stop: look at P(stop) where an answer ends",
    ("steps", "head"): "no text is likely where its answers end: which tokens share that place?",
    ("head", ""): "the row of <|im_end|> in its head is unlike all others: look at the cosines",
}


@checks("5.9")
def name_causes(attempt: object) -> str:
    causes, alike = unpack(attempt, "the causes", "the number of rows alike")
    if not isinstance(causes, dict) or causes.keys() != PATIENTS.keys():
        raise Mistake(f"causes is a dict with the keys {', '.join(PATIENTS)}: one word each")
    for letter, claimed in causes.items():
        right = PATIENTS[letter]
        if need_word(claimed, *CAUSES) != right:
            why = _REFUTED.get((claimed, right)) or _REFUTED[claimed, ""]
            raise Mistake(f'{letter} is not "{claimed}": {why}')
    with named(TypeError, "alike is a whole number: how many rows of the head"):
        alike = operator.index(alike)
    base, tokenizer = _base()
    head = base.get_output_embeddings().weight.detach()
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    cosines = F.cosine_similarity(head, head[stop : stop + 1])
    count = int((cosines > NEARLY_EQUAL).sum())
    hints = [
        (count - 1, "the row of <|im_end|> itself counts too"),
        (1, "only one row is like itself: is this the head of the patient with this cause?"),
        (len(head), "these are all rows of the head: only those with a cosine above 0.99"),
        (head.shape[1], "this is the width of the head: count its rows"),
    ]
    same(alike, count, hints, what="alike")
    return f"four causes told apart; {count} rows of the head are alike"


@functools.cache
def _base() -> tuple:
    with contextlib.redirect_stdout(io.StringIO()):  # a check prints one line
        return load("atlas-base")


# 5.10


@functools.cache
def _task() -> Task:
    return country_task(_base()[1])


@checks("5.10")
def cure(attempt: Callable) -> str:
    loaded, tokenizer = _base()
    base = copy.deepcopy(loaded)  # an answer that spoils it does not spoil the next attempt
    allowed = _trained(add_lora(copy.deepcopy(base))) + ROOM
    model = attempt(base, tokenizer)
    if not isinstance(model, nn.Module):
        raise Mistake(f"cure returns a {type(model).__name__}, expected a model")
    count = _trained(model)
    if not 0 < count <= allowed:
        table = base.get_input_embeddings().weight
        whole = ": the whole embedding is among them" if count >= table.numel() else ""
        raise Mistake(f"{count:,} numbers are trained, at most {allowed:,} may be{whole}")
    _says_what_the_base_says(model)
    tune(model, tokenizer, _task().examples, seed=0)
    found = measure(model.eval(), tokenizer, _task())
    if found["stops"] < LEAST_STOPS:
        raise Mistake(
            f"after 25 steps {found['stops']:.0%} of the answers end by themselves, P(stop) is "
            f"{found['P(stop)']:.3f}{_most_likely_rival(model)}"
        )
    if found["says"] < LEAST_SAYS:
        raise Mistake(f"after 25 steps only {found['says']:.0%} of the answers are right")
    return f"{count:,} numbers trained; {found['stops']:.0%} stop, {found['says']:.0%} are right"


def _trained(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def _says_what_the_base_says(model: nn.Module) -> None:
    """Raise Mistake unless all scores but the stop token's are the base's before training."""
    base, tokenizer = _base()
    ids = torch.tensor([tokenizer("The capital of Kenya is Nairobi.")["input_ids"]])
    others = torch.arange(len(base.get_output_embeddings().weight))
    others = others[others != tokenizer.convert_tokens_to_ids("<|im_end|>")]
    new, old = (m(input_ids=ids).logits[..., others] for m in (model, base))
    if not torch.allclose(new, old, rtol=0, atol=1e-3):
        raise Mistake(
            "before training, other tokens than <|im_end|> have other scores than the base gives: "
            "change nothing but what belongs to this token"
        )


def _most_likely_rival(model: nn.Module) -> str:
    """Which other token is the likeliest where an answer ends, in words."""
    tokenizer = _base()[1]
    chances = chances_at_end(model, tokenizer, _task().held_out).mean(dim=0)
    chances[tokenizer.convert_tokens_to_ids("<|im_end|>")] = 0
    rival = tokenizer.convert_ids_to_tokens(int(chances.argmax()))
    return f"; likeliest other token there: {rival} with {chances.max():.3f}"
