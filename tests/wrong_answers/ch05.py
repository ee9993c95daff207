"""Wrong answers to the exercises of chapter 05, each with what its reader is told."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from sft_lab.lora import add_lora


def _svd(update):
    return torch.linalg.svd(update, full_matrices=False)


def _near(update, rank):
    left, values, right = _svd(update)
    return (left[:, :rank] * values[:rank]) @ right[:rank], values


def _without_values(update, rank):
    left, values, right = _svd(update)
    return left[:, :rank] @ right[:rank], values[rank:].norm()


def _columns_of_v(update, rank):
    left, values, right = _svd(update)
    return (left[:, :rank] * values[:rank]) @ right[:, :rank].T, values[rank:].norm()


def _smallest(update, rank):
    left, values, right = _svd(update)
    return (left[:, -rank:] * values[-rank:]) @ right[-rank:], values[:-rank].norm()


def _what_is_dropped(update, rank):
    near, values = _near(update, rank)
    return update - near, values[rank:].norm()


def _error(form):
    def answer(update, rank):
        near, values = _near(update, rank)
        return near, form(values, rank)

    return answer


def _padded(a, b, rank):
    more = rank - len(a)
    return F.pad(a, (0, 0, 0, more)), F.pad(b, (0, more))


def _wide(new_alpha):
    """Padded factors, and an alpha from the old one, the old rank and the new."""
    return lambda a, b, alpha, rank: (*_padded(a, b, rank), new_alpha(alpha, len(a), rank))


def _wider_inputs(a, b, alpha, rank):
    return F.pad(a, (0, rank - len(a))), b, alpha


def _scales_a_factor(a, b, alpha, rank):
    wide_a, wide_b = _padded(a, b, rank)
    return rank / len(a) * wide_a, wide_b, alpha


class _Lora(nn.Module):
    """A right answer to 5.7; the wrong ones below change one thing each."""

    def __init__(self, layer, rank, alpha):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.scale, self.alpha = alpha / rank, alpha
        self.A = nn.Parameter(torch.empty(rank, layer.in_features))
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)

    def forward(self, x):
        return self.layer(x) + self.scale * (x @ self.A.T @ self.B.T)

    @torch.no_grad()
    def merge(self):
        merged = copy.deepcopy(self.layer)
        merged.weight.copy_(self.layer.weight.float() + self.scale * (self.B @ self.A))
        return merged


class _DetachedInput(_Lora):
    def forward(self, x):
        return super().forward(x.detach())


class _NotDivided(_Lora):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.scale = alpha


class _NoScale(_Lora):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.scale = 1.0


class _ScalesAll(_Lora):
    def forward(self, x):
        return self.scale * (self.layer(x) + x @ self.A.T @ self.B.T)


class _NoLayer(_Lora):
    def forward(self, x):
        return self.scale * (x @ self.A.T @ self.B.T)


class _NotFrozen(_Lora):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        layer.requires_grad_(True)


class _FrozenLast(_Lora):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.requires_grad_(False)


class _PlainTensors(nn.Module):
    def __init__(self, layer, rank, alpha):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.A = torch.randn(rank, layer.in_features)
        self.B = torch.zeros(layer.out_features, rank)


class _Swapped(_Lora):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.A, self.B = nn.Parameter(self.A.data.T), nn.Parameter(self.B.data.T)


class _BothRandom(_Lora):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        nn.init.normal_(self.B)


class _BothZero(_Lora):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        nn.init.zeros_(self.A)


class _Wide(_Lora):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        nn.init.normal_(self.A)


class _MergesInPlace(_Lora):
    @torch.no_grad()
    def merge(self):
        self.layer.weight += (self.scale * (self.B @ self.A)).to(self.layer.weight.dtype)
        return self.layer


class _LosesBias(_Lora):
    @torch.no_grad()
    def merge(self):
        rows, columns = self.layer.weight.shape
        merged = nn.Linear(columns, rows, bias=False, dtype=self.layer.weight.dtype)
        merged.weight.copy_(self.layer.weight.float() + self.scale * (self.B @ self.A))
        return merged


class _RoundsTwice(_Lora):
    @torch.no_grad()
    def merge(self):
        merged = copy.deepcopy(self.layer)
        merged.weight += (self.scale * (self.B @ self.A)).to(merged.weight.dtype)
        return merged


class _InFloat32(_Lora):
    @torch.no_grad()
    def merge(self):
        return super().merge().float()


class _ForgetsToMerge(_Lora):
    @torch.no_grad()
    def merge(self):
        return copy.deepcopy(self.layer)


def _named(wanted, order="first", copied=True, counted=None):
    """An answer to 5.8: which (name, targets) to replace, when to freeze, what to count."""

    def answer(model, make, targets):
        changed = copy.deepcopy(model) if copied else model
        if order == "first":
            changed.requires_grad_(False)
        for name, module in list(changed.named_modules()):
            if isinstance(module, nn.Linear) and wanted(name, targets):
                changed.set_submodule(name, make(module))
        if order == "last":
            changed.requires_grad_(False)
        numbers = [p.numel() for p in changed.parameters() if p.requires_grad]
        return changed, counted(changed, numbers) if counted else sum(numbers)

    return answer


def _own(name, targets):
    return name.rpartition(".")[2] in targets


def _assigns_to_a_variable(model, make, targets):
    changed = copy.deepcopy(model).requires_grad_(False)
    for name, module in changed.named_modules():
        if isinstance(module, nn.Linear) and _own(name, targets):
            module = make(module)
    return changed, 0


def _any_kind(model, make, targets):
    changed = copy.deepcopy(model).requires_grad_(False)
    for name, module in list(changed.named_modules()):
        if _own(name, targets):
            changed.set_submodule(name, make(module))
    return changed, 0


CAUSES = {"A": "steps", "B": "head", "C": "config", "D": "mask"}


def _row(value):
    """An answer to 5.10: the stop token's row from the table and the token's id, then LoRA."""

    def answer(base, tokenizer):
        model = copy.deepcopy(base)
        table = model.get_input_embeddings().weight
        stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
        with torch.no_grad():
            table[stop] = value(table, stop, tokenizer)
        return add_lora(model)

    return answer


def _trains_the_table(base, tokenizer):
    model = add_lora(copy.deepcopy(base))
    model.get_input_embeddings().weight.requires_grad_(True)
    return model


def _nothing_but_lora(base, tokenizer):
    return add_lora(copy.deepcopy(base))


def _all_rows_random(base, tokenizer):
    model = copy.deepcopy(base)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.05)
    return add_lora(model)


def _in_place(base, tokenizer):
    with torch.no_grad():
        base.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("<|im_end|>")] = 0.1
    return add_lora(copy.deepcopy(base))


WRONG_ANSWERS = {
    "5.1": [
        (_without_values, "the singular values are missing"),
        (_columns_of_v, "the third factor is transposed already"),
        (_smallest, "you kept the smallest singular values"),
        (_what_is_dropped, "this is the part that is dropped"),
        (_error(lambda values, k: (values[k:] ** 2).sum()), "this is the squared error"),
        (_error(lambda values, k: values[k:].sum()), "singular values do not add"),
        (_error(lambda values, k: values[k]), "the spectral norm"),
        (_error(lambda values, k: values[:k].norm()), "the length of what is kept"),
        (_error(lambda values, k: values[k:].norm() / values.norm()), "this is the relative error"),
        (lambda u, k: _near(u, k)[0], "return two things"),
    ],
    "5.3": [
        (_wide(lambda alpha, old, new: alpha), "alpha stayed the same"),
        (_wide(lambda alpha, old, new: alpha * old / new), "upside down"),
        (_wide(lambda alpha, old, new: alpha / old), "this is the scale"),
        (_wide(lambda alpha, old, new: alpha * (new / old) ** 0.5), "this keeps alpha / √rank"),
        (_wider_inputs, "the rank is the dimension that grows"),
        (_scales_a_factor, "the scale belongs into alpha"),
        (lambda a, b, alpha, rank: _padded(a, b, rank), "return three things"),
    ],
    "5.7": [
        (_NotDivided, "alpha is not divided by the rank"),
        (_DetachedInput, "the gradient of x is not the formula's"),
        (_NoScale, "the scale alpha / rank is missing"),
        (_ScalesAll, "scales the update alone"),
        (_NoLayer, "the frozen layer is missing"),
        (_NotFrozen, "the layer is not frozen"),
        (_FrozenLast, "A and B must require gradients"),
        (_PlainTensors, "expected an nn.Parameter"),
        (_Swapped, "A is (rank, in) and B is (out, rank)"),
        (_BothRandom, "B begins at zero"),
        (_BothZero, "A begins at zero like B"),
        (_Wide, "expected numbers between"),
        (_MergesInPlace, "merge() changed self.layer"),
        (_LosesBias, "the merged bias"),
        (_RoundsTwice, "one rounding gives at most"),
        (_InFloat32, "keep its own type"),
        (_ForgetsToMerge, "the update is missing from the merged weight"),
    ],
    "5.8": [
        (_named(lambda name, t: name.endswith(tuple(t))), "only ends like a target"),
        (_named(lambda name, t: any(part in name for part in t)), "only contains a target"),
        (_named(lambda name, t: set(name.split(".")) & set(t)), "its own name counts"),
        (_named(lambda name, t: name in t), "layers deeper in the model are missing"),
        (_named(lambda name, t: "." in name and _own(name, t)), "at the top of the model"),
        (_named(lambda name, t: True), "every nn.Linear was replaced"),
        (_named(_own, order="last"), "freeze first, then put them in"),
        (_named(_own, order="never"), "freeze all old parameters"),
        (_named(_own, copied=False), "changed `model` in place"),
        (_named(_own, counted=lambda m, n: len(n)), "these are tensors"),
        (
            _named(_own, counted=lambda m, n: sum(p.numel() for p in m.parameters())),
            "all parameters were counted",
        ),
        (_assigns_to_a_variable, "no layer was replaced"),
        (_any_kind, "give it nn.Linear layers alone"),
        (lambda model, make, targets: _named(_own)(model, make, targets)[0], "return two things"),
    ],
    "5.9": [
        ((CAUSES | {"A": "mask"}, 148), 'A is not "mask": each of its rows grades'),
        ((CAUSES | {"B": "steps"}, 148), "which tokens share that place"),
        ((CAUSES | {"B": "config"}, 148), "its generation configuration names"),
        ((CAUSES | {"C": "head"}, 148), "is unlike all others"),
        ((CAUSES | {"C": "steps"}, 148), "it has learned to stop"),
        ((CAUSES | {"D": "steps"}, 148), "more steps cannot teach"),
        ((CAUSES, 147), "itself counts too"),
        ((CAUSES, 1), "is this the head of the patient"),
        ((CAUSES, 2048), "all rows of the head"),
        ((CAUSES, 12), "alike is 12, expected"),
        ((CAUSES | {"A": "speed"}, 148), "return one of"),
        ((list(CAUSES.values()), 148), "causes is a dict"),
    ],
    "5.10": [
        (_nothing_but_lora, "likeliest other token there"),
        (_trains_the_table, "the whole embedding is among them"),
        (_row(lambda table, stop, t: 0 * table[stop]), "of the answers end by themselves"),
        (
            _row(lambda table, stop, t: table[t.convert_tokens_to_ids("ĠThe")]),
            "of the answers end by themselves",
        ),
        (_all_rows_random, "other tokens than <|im_end|> have other scores"),
        (_in_place, "changed `base` in place"),
        (lambda base, tokenizer: copy.deepcopy(base), "numbers are trained, at most 78,824"),
        (lambda base, tokenizer: add_lora(copy.deepcopy(base), rank=16), "at most 78,824"),
        (lambda base, tokenizer: "LoRA", "expected a model"),
    ],
}
