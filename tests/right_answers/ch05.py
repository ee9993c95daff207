"""Right answers to the exercises of chapter 05, each in another style; written from the statements
alone."""

import collections
import copy
import functools
import math
import re

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn

from sft_lab.course.lora_runs import give_own_row
from sft_lab.lora import add_lora


# 5.1
def _outer_products(update, rank):
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    best = torch.zeros_like(update)
    for i in range(rank):
        best = best + S[i] * torch.outer(U[:, i], Vh[i])
    return best, sum((s**2 for s in S[rank:]), torch.tensor(0.0)).sqrt()


def _zeroed(update, rank):
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    kept = S.clone()
    kept[rank:] = 0
    return U @ torch.diag(kept) @ Vh, torch.linalg.vector_norm(S[rank:])


def _in_numpy(update, rank):
    U, S, Vh = np.linalg.svd(update.numpy().astype(np.float64), full_matrices=False)
    best = (U[:, :rank] * S[:rank]) @ Vh[:rank]
    error = np.sqrt((S[rank:] ** 2).sum())
    return torch.from_numpy(best).to(update.dtype), torch.tensor(error, dtype=update.dtype)


def _projected(update, rank):
    U, S, _ = torch.linalg.svd(update)
    return U[:, :rank] @ (U[:, :rank].T @ update), S[rank:].norm()


def _of_the_transpose(update, rank):
    left, values, right = torch.svd(update.T)
    best = (right[:, :rank] * values[:rank]) @ left[:, :rank].T
    return best, values[rank:].square().sum().sqrt()


# 5.3
def _by_slices(A, B, alpha, rank):
    r = A.shape[0]
    wide_A, wide_B = torch.zeros(rank, A.shape[1]), torch.zeros(B.shape[0], rank)
    wide_A[:r], wide_B[:, :r] = A, B
    return wide_A, wide_B, alpha / r * rank


def _zeros_in_front(A, B, alpha, rank):
    more = rank - len(A)
    wide = (
        torch.cat((A.new_zeros(more, A.shape[1]), A)),
        torch.cat((B.new_zeros(len(B), more), B), 1),
    )
    return *wide, rank * (alpha / len(A))


def _row_by_row(A, B, alpha, rank):
    r = len(A)
    rows = [A[i] if i < r else torch.zeros_like(A[0]) for i in range(rank)]
    columns = [B[:, i] if i < r else torch.zeros_like(B[:, 0]) for i in range(rank)]
    return torch.stack(rows), torch.stack(columns, dim=1), alpha * rank / r


# 5.7
class _Formula(nn.Module):
    def __init__(self, layer, rank, alpha):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.scale = alpha / rank
        self.A = nn.Parameter(torch.empty(rank, layer.in_features))
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)

    def forward(self, x):
        return self.layer(x) + self.scale * F.linear(F.linear(x, self.A), self.B)

    @torch.no_grad()
    def merge(self):
        merged = copy.deepcopy(self.layer)
        weight = self.layer.weight.float() + self.scale * self.B @ self.A
        merged.weight.copy_(weight)
        return merged


class _SumOfProducts(nn.Module):
    """The weight first, then one product; einsum throughout."""

    def __init__(self, layer, rank, alpha):
        super().__init__()
        self.layer, self.rank, self.alpha = layer, rank, alpha
        for parameter in self.layer.parameters():
            parameter.requires_grad = False
        out_features, in_features = layer.weight.shape
        self.A = nn.Parameter(torch.zeros(rank, in_features, dtype=torch.float32))
        self.B = nn.Parameter(torch.zeros(out_features, rank, dtype=torch.float32))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)

    def weight(self):
        update = torch.einsum("or,ri->oi", self.B, self.A)
        return self.layer.weight.to(torch.float32) + update * self.alpha / self.rank

    def forward(self, x):
        y = torch.einsum("...i,oi->...o", x, self.weight())
        return y if self.layer.bias is None else y + self.layer.bias

    def merge(self):
        old = self.layer
        bias = old.bias is not None
        new = nn.Linear(old.in_features, old.out_features, bias=bias, dtype=old.weight.dtype)
        new.weight.data = self.weight().detach().to(old.weight.dtype)
        if bias:
            new.bias.data = old.bias.detach().clone()
        return new


class _RankByRank(nn.Module):
    """One outer product after the other."""

    def __init__(self, layer, rank, alpha):
        super().__init__()
        self.layer = layer
        self.layer.weight.requires_grad_(False)
        if layer.bias is not None:
            self.layer.bias.requires_grad_(False)
        self.alpha = alpha
        self.A = nn.Parameter(torch.empty(rank, layer.weight.shape[1]))
        self.B = nn.Parameter(torch.zeros(layer.weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)

    def forward(self, x):
        y = self.layer(x)
        for row, column in zip(self.A, self.B.T, strict=True):
            y = y + self.alpha / len(self.A) * (x @ row)[..., None] * column
        return y

    def merge(self):
        weight = self.layer.weight.detach().float().clone()
        for i in range(len(self.A)):
            weight += self.alpha / len(self.A) * torch.outer(self.B[:, i], self.A[i]).detach()
        merged = nn.Linear(weight.shape[1], weight.shape[0], bias=self.layer.bias is not None)
        state = {"weight": weight}
        if self.layer.bias is not None:
            state["bias"] = self.layer.bias.float()
        merged.load_state_dict(state)
        return merged.to(self.layer.weight.dtype)


class _InNumpy(nn.Module):
    """Flattens the leading dimensions; merges in numpy."""

    def __init__(self, layer, rank, alpha):
        super().__init__()
        self.register_module("layer", layer)
        layer.requires_grad_(False)
        self.register_buffer("factor", torch.tensor(alpha / rank), persistent=False)
        first = torch.empty(rank, layer.in_features)
        nn.init.kaiming_uniform_(first, a=math.sqrt(5))
        self.register_parameter("A", nn.Parameter(first))
        self.register_parameter("B", nn.Parameter(torch.zeros(layer.out_features, rank)))

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        y = rows @ self.layer.weight.T + self.factor * (rows @ self.A.T @ self.B.T)
        if self.layer.bias is not None:
            y = y + self.layer.bias
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def merge(self):
        weight, down, up = (t.detach().float().numpy() for t in (self.layer.weight, self.A, self.B))
        weight = weight + np.float32(self.factor.item()) * (up @ down)
        merged = nn.utils.skip_init(
            nn.Linear, weight.shape[1], weight.shape[0], bias=self.layer.bias is not None
        ).to(self.layer.weight.dtype)
        with torch.no_grad():
            merged.weight.copy_(torch.from_numpy(weight))
            if self.layer.bias is not None:
                merged.bias.copy_(self.layer.bias)
        return merged


class _ScaledFactor(_Formula):
    """alpha goes to B, 1 / r to the sum; the merged layer is frozen and shares nothing."""

    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.alpha = alpha

    def forward(self, x):
        inner = torch.matmul(x, self.A.transpose(0, 1))
        update = torch.matmul(inner, (self.alpha * self.B).transpose(0, 1)) / self.A.shape[0]
        return torch.add(F.linear(x, self.layer.weight, self.layer.bias), update)

    def merge(self):
        merged = nn.Linear(self.layer.in_features, self.layer.out_features, bias=False)
        update = (self.alpha * self.B.data) @ self.A.data / self.A.shape[0]
        weight = torch.add(update, self.layer.weight.data.float())
        merged.weight = nn.Parameter(weight.type_as(self.layer.weight), requires_grad=False)
        if self.layer.bias is not None:
            merged.bias = nn.Parameter(self.layer.bias.data.clone(), requires_grad=False)
        return merged


# 5.8
def _by_parents(model, make, targets):
    changed = copy.deepcopy(model).requires_grad_(False)
    for name, module in list(changed.named_modules()):
        parent, _, own = name.rpartition(".")
        if isinstance(module, nn.Linear) and own in targets:
            setattr(changed.get_submodule(parent), own, make(module))
    return changed, sum(p.numel() for p in changed.parameters() if p.requires_grad)


def _by_recursion(model, make, targets):
    def visit(parent):
        for own, child in parent.named_children():
            if isinstance(child, nn.Linear) and own in targets:
                setattr(parent, own, make(child))
            else:
                visit(child)

    changed = copy.deepcopy(model)
    for parameter in changed.parameters():
        parameter.requires_grad = False
    visit(changed)
    trained = 0
    for parameter in changed.parameters():
        if parameter.requires_grad:
            trained += parameter.numel()
    return changed, trained


def _by_a_stack(model, make, targets):
    changed = copy.deepcopy(model)
    for parameter in changed.parameters():
        parameter.requires_grad_(False)
    waiting, trained = [changed], 0
    while waiting:
        parent = waiting.pop()
        for own in list(parent._modules):
            child = parent._modules[own]
            if isinstance(child, nn.Linear) and own in set(targets):
                parent._modules[own] = made = make(child)
                trained += sum(p.numel() for p in made.parameters() if p.requires_grad)
            elif child is not None:
                waiting.append(child)
    return changed, trained


def _from_the_last_backwards(model, make, targets):
    changed = copy.deepcopy(model)
    changed.requires_grad_(False)
    pattern = re.compile(r"(?:.*\.)?(?:" + "|".join(map(re.escape, targets)) + ")")
    found = [
        name
        for name, module in changed.named_modules()
        if isinstance(module, nn.Linear) and targets and pattern.fullmatch(name)
    ]
    for name in reversed(found):
        changed.set_submodule(name, make(changed.get_submodule(name)))
    return changed, int(np.sum([p.numel() for p in changed.parameters() if p.requires_grad]))


def _target_by_target(model, make, targets):
    changed = copy.deepcopy(model)
    changed.requires_grad_(False)
    for target in dict.fromkeys(targets):
        for parent in list(changed.modules()):
            child = dict(parent.named_children()).get(target)
            if isinstance(child, nn.Linear):
                parent.add_module(target, make(child))
    shapes = [tuple(p.shape) for p in changed.parameters() if p.requires_grad]
    return changed, sum(math.prod(shape) for shape in shapes)


def _by_the_path(model, make, targets):
    changed = copy.deepcopy(model)
    changed.requires_grad_(False)
    linear = {name for name, module in changed.named_modules() if isinstance(module, nn.Linear)}
    for name in sorted(linear):
        *path, own = name.split(".")
        if any(own == target for target in targets):
            parent = functools.reduce(getattr, path, changed)
            setattr(parent, own, make(getattr(parent, own)))
    return changed, len(
        torch.cat([torch.zeros(0)] + [p.flatten() for p in changed.parameters() if p.requires_grad])
    )


# 5.9, found with the instruments of the statement
_CAUSES = {"A": "steps", "B": "head", "C": "config", "D": "mask"}
_BY_WORD = {"mask": "D", "config": "C", "steps": "A", "head": "B"}


# 5.10
def _row_and_lora(base, tokenizer):
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return add_lora(give_own_row(base, stop), rank=8)


def _row_by_hand(base, tokenizer):
    model = copy.deepcopy(base)
    table = model.get_input_embeddings().weight
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        away = torch.randn(table.shape[1], generator=torch.Generator().manual_seed(3))
        old = table[stop]
        away -= (away @ old) / (old @ old) * old  # at right angles to the old row
        table[stop] = away / away.norm() * table.norm(dim=1).mean()
    return add_lora(model)


def _own_module(base, tokenizer):
    """LoRALinear and the loop of exercise 5.8 instead of add_lora."""
    torch.manual_seed(1)
    fresh = give_own_row(base, tokenizer.convert_tokens_to_ids("<|im_end|>"))
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return _by_parents(fresh, lambda layer: _Formula(layer, 8, 16), names)[0]


def _lower_rank(base, tokenizer):
    torch.manual_seed(0)
    fresh = give_own_row(base, tokenizer.convert_tokens_to_ids("<|im_end|>"))
    return add_lora(fresh, rank=4, alpha=8)


def _trained_row_of_peft(base, tokenizer):
    torch.manual_seed(0)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    config = LoraConfig(
        r=8,
        lora_alpha=16,
        target_modules="all-linear",
        trainable_token_indices=[stop],
        task_type="CAUSAL_LM",
    )
    return get_peft_model(copy.deepcopy(base), config).base_model.model


class _OneRow(nn.Module):
    """The head, and a trained row beside that of one token."""

    def __init__(self, head, token_id):
        super().__init__()
        self.head, self.token_id = head, token_id
        self.row = nn.Parameter(torch.zeros(head.weight.shape[1]))

    @property
    def weight(self):
        return self.head.weight

    def forward(self, hidden):
        scores = self.head(hidden)
        more = F.one_hot(torch.tensor(self.token_id), scores.shape[-1])
        return scores + (hidden @ self.row)[..., None] * more


def _trained_row_by_hand(base, tokenizer):
    model = add_lora(copy.deepcopy(base))
    model.lm_head = _OneRow(model.lm_head, tokenizer.convert_tokens_to_ids("<|im_end|>"))
    return model


def _longer_row(base, tokenizer):
    """The old direction, longer by a hundredth: then training can tell it from the others."""
    model = copy.deepcopy(base)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[tokenizer.convert_tokens_to_ids("<|im_end|>")] *= 1.01
    return add_lora(model)


RIGHT_ANSWERS = {
    "5.1": [_outer_products, _zeroed, _in_numpy, _projected, _of_the_transpose],
    "5.3": [
        lambda A, B, alpha, rank: (
            F.pad(A, (0, 0, 0, rank - len(A))),
            F.pad(B, (0, rank - len(A))),
            alpha * rank / len(A),
        ),
        lambda A, B, alpha, rank: (
            torch.vstack((A, torch.zeros(rank - len(A), A.shape[1]))),
            torch.hstack((B, torch.zeros(len(B), rank - len(A)))),
            alpha / (len(A) / rank),
        ),
        _by_slices,
        _zeros_in_front,
        _row_by_row,
    ],
    "5.7": [_Formula, _SumOfProducts, _RankByRank, _InNumpy, _ScaledFactor],
    "5.8": [
        _by_parents,
        _by_recursion,
        _by_a_stack,
        _from_the_last_backwards,
        _target_by_target,
        _by_the_path,
    ],
    "5.9": [
        (_CAUSES, 148),
        (dict(zip("ABCD", ("steps", "head", "config", "mask"), strict=True)), 148),
        ({letter: word for word, letter in _BY_WORD.items()}, 147 + 1),
        (dict(sorted(_CAUSES.items(), reverse=True)), 148),
        (collections.OrderedDict(_CAUSES), sum([True] * 148)),
    ],
    "5.10": [
        _row_and_lora,
        _row_by_hand,
        _own_module,
        _lower_rank,
        _trained_row_of_peft,
        _trained_row_by_hand,
        _longer_row,
    ],
}
