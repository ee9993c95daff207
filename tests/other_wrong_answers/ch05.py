"""Wrong answers to the exercises of chapter 05, written from the statements alone."""

import copy

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn

from sft_lab.course.lora_runs import give_own_row
from sft_lab.lora import add_lora, merge_lora


# 5.1
def _truncated(update, rank, error):
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank], error(S, rank)


def _cut(update, rank):
    """The matrix alone."""
    return _truncated(update, rank, lambda S, rank: S)[0]


def _left_only(update, rank):
    U, S, _ = torch.linalg.svd(update, full_matrices=False)
    best = torch.zeros_like(update)
    best[:, :rank] = U[:, :rank] * S[:rank]
    return best, S[rank:].norm()


def _first_columns(update, rank):
    best = update.clone()
    best[:, rank:] = 0
    return best, torch.linalg.svdvals(update)[rank:].norm()


def _longest_rows(update, rank):
    best = torch.zeros_like(update)
    longest = update.norm(dim=1).topk(rank).indices
    best[longest] = update[longest]
    return best, torch.linalg.svdvals(update)[rank:].norm()


def _in_place(update, rank):
    best, error = _truncated(update, rank, lambda S, rank: S[rank:].norm())
    return update.copy_(best), error


def _smallest_values(update, rank):
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    return (U[:, -rank:] * S[-rank:]) @ Vh[-rank:], S[:-rank].norm()


def _measured(update, rank):
    """The statement asks for the error from the singular values alone."""
    best = _cut(update, rank)
    return best, ((update - best) ** 2).sum().sqrt()


# 5.3
def _pad(A, B, rank):
    more = rank - len(A)
    return F.pad(A, (0, 0, 0, more)), F.pad(B, (0, more))


def _random_rows_of_A(A, B, alpha, rank):
    """B's zeros silence them, but the statement asks for zeros in both."""
    more = torch.randn(rank - len(A), A.shape[1], dtype=A.dtype)
    return torch.cat((A, more)), _pad(A, B, rank)[1], alpha * rank / len(A)


def _random_columns_of_B(A, B, alpha, rank):
    more = torch.randn(len(B), rank - len(A), dtype=B.dtype)
    return _pad(A, B, rank)[0], torch.cat((B, more), dim=1), alpha * rank / len(A)


def _at_unlike_ends(A, B, alpha, rank):
    more = rank - len(A)
    return F.pad(A, (0, 0, more, 0)), F.pad(B, (0, more)), alpha * rank / len(A)


def _repeated(A, B, alpha, rank):
    places = [i % len(A) for i in range(rank)]
    return A[places], B[:, places], alpha


def _scaled_A(A, B, alpha, rank):
    """Computes the same, but the statement asks for the alpha that does it."""
    wide_A, wide_B = _pad(A, B, rank)
    return wide_A * rank / len(A), wide_B, alpha


def _scaled_in_place(A, B, alpha, rank):
    r = len(A)
    B.mul_(rank / r)
    return *_pad(A, B, rank), alpha


def _split_in_two(A, B, alpha, rank):
    return *_pad(A / 2, B * 2, rank), alpha * rank / len(A)


# 5.7
class _Plain(nn.Module):
    """Right; the mistakes below change one thing."""

    def __init__(self, layer, rank, alpha):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.scale = alpha / rank
        self.A = nn.Parameter(torch.empty(rank, layer.in_features))
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)

    def forward(self, x):
        return self.layer(x) + self.scale * (x @ self.A.T @ self.B.T)

    def update(self):
        return self.scale * (self.B @ self.A)

    @torch.no_grad()
    def merge(self):
        old = self.layer
        new = nn.Linear(
            old.in_features, old.out_features, bias=old.bias is not None, dtype=old.weight.dtype
        )
        new.weight.copy_(old.weight.float() + self.update())
        if old.bias is not None:
            new.bias.copy_(old.bias)
        return new


class _NoScale(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.scale = 1.0


class _AlphaAlone(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.scale = alpha


class _RootOfRank(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.scale = alpha / rank**0.5


class _WholeDivision(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.scale = alpha // rank


class _AlwaysTwo(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.scale = 2.0


class _UpsideDown(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.scale = rank / alpha


class _BothRandom(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        nn.init.kaiming_uniform_(self.B, a=5**0.5)


class _NearlyZeroB(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        nn.init.normal_(self.B, std=1e-4)


class _BothZero(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        nn.init.zeros_(self.A)


class _ZerosSwapped(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        nn.init.zeros_(self.A)
        nn.init.kaiming_uniform_(self.B, a=5**0.5)


class _NormalA(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        nn.init.normal_(self.A)


class _WiderA(_Plain):
    """kaiming_uniform_ without its a."""

    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        nn.init.kaiming_uniform_(self.A)


class _RootForgotten(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        nn.init.kaiming_uniform_(self.A, a=5)


class _NotFrozen(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        layer.requires_grad_(True)


class _BiasNotFrozen(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        if layer.bias is not None:
            layer.bias.requires_grad_(True)


class _TrainedScale(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.scale = nn.Parameter(torch.tensor(alpha / rank))


class _CopiedLayer(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(copy.deepcopy(layer), rank, alpha)


class _FactorsOfTheLayersType(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        self.A.data = self.A.data.to(layer.weight.dtype)
        self.B.data = self.B.data.to(layer.weight.dtype)

    def update(self):
        return super().update().float()


class _FactorsTransposed(nn.Module):
    merge = _Plain.merge

    def __init__(self, layer, rank, alpha):
        super().__init__()
        self.layer, self.scale = layer.requires_grad_(False), alpha / rank
        self.A = nn.Parameter(torch.empty(layer.in_features, rank))
        self.B = nn.Parameter(torch.zeros(rank, layer.out_features))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)

    def forward(self, x):
        return self.layer(x) + self.scale * (x @ self.A @ self.B)

    def update(self):
        return self.scale * (self.A @ self.B).T


class _FactorsAreLayers(nn.Module):
    merge = _Plain.merge

    def __init__(self, layer, rank, alpha):
        super().__init__()
        self.layer, self.scale = layer.requires_grad_(False), alpha / rank
        self.A = nn.Linear(layer.in_features, rank, bias=False)
        self.B = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.B.weight)

    def forward(self, x):
        return self.layer(x) + self.scale * self.B(self.A(x))

    def update(self):
        return self.scale * self.B.weight @ self.A.weight


class _FactorsAreBuffers(_Plain):
    def __init__(self, layer, rank, alpha):
        super().__init__(layer, rank, alpha)
        first, second = self.A.data, self.B.data
        del self.A, self.B
        self.register_buffer("A", first)
        self.register_buffer("B", second)


class _UpdateAlone(_Plain):
    def forward(self, x):
        return self.scale * (x @ self.A.T @ self.B.T)


class _WithoutBias(_Plain):
    def forward(self, x):
        return x @ self.layer.weight.T + self.scale * (x @ self.A.T @ self.B.T)


class _NeedsBias(_Plain):
    def forward(self, x):
        return x @ self.layer.weight.T + self.layer.bias + x @ self.update().T


class _BiasScaledToo(_Plain):
    def forward(self, x):
        y = self.layer(x) + self.scale * (x @ self.A.T @ self.B.T)
        return y if self.layer.bias is None else y + self.scale * self.layer.bias


class _OnlyMatrices(_Plain):
    """x of one or of three dimensions fails."""

    def forward(self, x):
        return self.layer(x) + self.scale * torch.mm(self.B, torch.mm(self.A, x.t())).t()


class _Flattened(_Plain):
    """The leading dimensions do not come back."""

    def forward(self, x):
        return super().forward(x.reshape(-1, x.shape[-1]))


class _NoGradient(_Plain):
    def forward(self, x):
        return self.layer(x) + self.scale * (x @ self.A.data.T @ self.B.data.T)


class _NoGradientOfA(_Plain):
    def forward(self, x):
        return self.layer(x) + self.scale * (x @ self.A.detach().T @ self.B.T)


class _InputDetached(_Plain):
    """The layers before this one would not learn."""

    def forward(self, x):
        return super().forward(x.detach())


class _LayerWithoutGradient(_Plain):
    """Frozen so hard that no gradient passes W to x."""

    def forward(self, x):
        with torch.no_grad():
            y = self.layer(x)
        return y + self.scale * (x @ self.A.T @ self.B.T)


class _MergedInPlace(_Plain):
    @torch.no_grad()
    def merge(self):
        self.layer.weight.copy_(self.layer.weight.float() + self.update())
        return self.layer


class _MergedInPlaceAndCopied(_Plain):
    @torch.no_grad()
    def merge(self):
        self.layer.weight.copy_(self.layer.weight.float() + self.update())
        return copy.deepcopy(self.layer)


class _FactorsEmptied(_Plain):
    @torch.no_grad()
    def merge(self):
        new = super().merge()
        self.B.zero_()
        return new


class _ScaledBInPlace(_Plain):
    @torch.no_grad()
    def merge(self):
        self.B.mul_(self.scale)
        new = super().merge()
        new.weight.copy_(self.layer.weight.float() + self.B @ self.A)
        return new


class _MergedWithoutBias(_Plain):
    @torch.no_grad()
    def merge(self):
        new = nn.Linear(
            self.layer.in_features,
            self.layer.out_features,
            bias=False,
            dtype=self.layer.weight.dtype,
        )
        new.weight.copy_(self.layer.weight.float() + self.update())
        return new


class _MergedAlwaysWithBias(_Plain):
    """A layer without a bias gets a random one."""

    @torch.no_grad()
    def merge(self):
        new = nn.Linear(
            self.layer.in_features, self.layer.out_features, dtype=self.layer.weight.dtype
        )
        new.weight.copy_(self.layer.weight.float() + self.update())
        if self.layer.bias is not None:
            new.bias.copy_(self.layer.bias)
        return new


class _MergedWithNewBias(_Plain):
    """A new layer's random bias stays."""

    @torch.no_grad()
    def merge(self):
        new = nn.Linear(
            self.layer.in_features,
            self.layer.out_features,
            bias=self.layer.bias is not None,
            dtype=self.layer.weight.dtype,
        )
        new.weight.copy_(self.layer.weight.float() + self.update())
        return new


class _MergedWithoutScale(_Plain):
    def update(self):
        return self.B @ self.A


class _MergedInFloat32(_Plain):
    @torch.no_grad()
    def merge(self):
        new = nn.Linear(
            self.layer.in_features, self.layer.out_features, bias=self.layer.bias is not None
        )
        new.weight.copy_(self.layer.weight.float() + self.update())
        if self.layer.bias is not None:
            new.bias.copy_(self.layer.bias)
        return new


class _RoundedUpdate(_Plain):
    """The update is rounded before it is added, and the sum again."""

    @torch.no_grad()
    def merge(self):
        new = super().merge()
        new.weight.copy_(self.layer.weight + self.update().to(self.layer.weight.dtype))
        return new


class _RoundedFactors(_Plain):
    @torch.no_grad()
    def merge(self):
        new, kind = super().merge(), self.layer.weight.dtype
        update = self.scale * (self.B.to(kind) @ self.A.to(kind)).float()
        new.weight.copy_(self.layer.weight.float() + update)
        return new


class _AlwaysThroughBfloat16(_Plain):
    """The right type in the end, after another one."""

    @torch.no_grad()
    def merge(self):
        new = super().merge()
        new.weight.copy_((self.layer.weight.float() + self.update()).bfloat16())
        return new


class _MergedMatrix(_Plain):
    def merge(self):
        return (self.layer.weight.float() + self.update()).to(self.layer.weight.dtype)


class _MergedIsItself(_Plain):
    def merge(self):
        return self


class _MergedOnce(_Plain):
    """Keeps the first merged layer, whatever is learned later."""

    kept = ()

    def merge(self):
        self.kept = self.kept or (super().merge(),)
        return self.kept[0]


# 5.8
def _change(
    model, make, targets, fits=None, copied=copy.deepcopy, kind=nn.Linear, frozen=True, count=None
):
    changed = copied(model)
    if frozen:
        changed.requires_grad_(False)
    for name, module in list(changed.named_modules()):
        parent, _, own = name.rpartition(".")
        hit = fits(name, own) if fits else own in targets
        if name and isinstance(module, kind) and hit:
            setattr(changed.get_submodule(parent), own, make(module))
    trained = [p for p in changed.parameters() if p.requires_grad]
    return changed, count(changed, trained) if count else sum(p.numel() for p in trained)


def _any_ending(model, make, targets):
    return _change(model, make, targets, lambda name, own: name.endswith(tuple(targets)))


def _anywhere(model, make, targets):
    return _change(model, make, targets, lambda name, own: any(t in name for t in targets))


def _any_part(model, make, targets):
    """`up.proj` is taken for `up`."""
    return _change(
        model, make, targets, lambda name, own: any(t in name.split(".") for t in targets)
    )


def _any_beginning(model, make, targets):
    return _change(model, make, targets, lambda name, own: own.startswith(tuple(targets)))


def _full_names(model, make, targets):
    return _change(model, make, targets, lambda name, own: name in targets)


def _only_below_something(model, make, targets):
    """`.up` is not found where `up` is the whole name."""
    return _change(
        model, make, targets, lambda name, own: any(name.endswith("." + t) for t in targets)
    )


def _every_linear(model, make, targets):
    return _change(model, make, targets, lambda name, own: True)


def _any_module(model, make, targets):
    return _change(model, make, targets, kind=nn.Module)


def _embeddings_too(model, make, targets):
    return _change(model, make, targets, kind=(nn.Linear, nn.Embedding))


def _first_target(model, make, targets):
    return _change(model, make, targets, lambda name, own: own == targets[0])


def _not_copied(model, make, targets):
    return _change(model, make, targets, copied=lambda model: model)


def _shallow(model, make, targets):
    return _change(model, make, targets, copied=copy.copy)


def _not_frozen(model, make, targets):
    return _change(model, make, targets, frozen=False)


def _counts_all(model, make, targets):
    return _change(model, make, targets, count=lambda c, _: sum(p.numel() for p in c.parameters()))


def _counts_tensors(model, make, targets):
    return _change(model, make, targets, count=lambda _, trained: len(trained))


def _counts_rows(model, make, targets):
    return _change(model, make, targets, count=lambda _, trained: sum(len(p) for p in trained))


def _counts_in_float(model, make, targets):
    return _change(model, make, targets, count=lambda _, t: float(sum(p.numel() for p in t)))


def _counts_a_share(model, make, targets):
    return _change(
        model,
        make,
        targets,
        count=lambda c, t: sum(p.numel() for p in t) / sum(p.numel() for p in c.parameters()),
    )


def _counts_rank_8(model, make, targets):
    linear = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[-1] in targets
    ]
    changed, _ = _change(model, make, targets)
    return changed, sum(8 * (layer.in_features + layer.out_features) for layer in linear)


def _counts_one_of_each_shape(model, make, targets):
    return _change(
        model, make, targets, count=lambda _, t: sum({p.shape: p.numel() for p in t}.values())
    )


def _frozen_last(model, make, targets):
    changed, count = _change(model, make, targets)
    return changed.requires_grad_(False), count


def _frozen_weights_only(model, make, targets):
    """Biases go on learning."""
    changed = copy.deepcopy(model)
    for name, parameter in changed.named_parameters():
        if name.endswith("weight"):
            parameter.requires_grad = False
    return _change(changed, make, targets, copied=lambda model: model, frozen=False)


def _frozen_targets_only(model, make, targets):
    return _change(model, lambda layer: make(layer.requires_grad_(False)), targets, frozen=False)


def _first_level(model, make, targets):
    changed = copy.deepcopy(model).requires_grad_(False)
    for own, child in changed.named_children():
        if isinstance(child, nn.Linear) and own in targets:
            setattr(changed, own, make(child))
    return changed, sum(p.numel() for p in changed.parameters() if p.requires_grad)


def _two_levels(model, make, targets):
    return _change(model, make, targets, lambda name, own: own in targets and name.count(".") < 2)


def _put_at_the_top(model, make, targets):
    """setattr on the model itself, not on the parent."""
    changed = copy.deepcopy(model).requires_grad_(False)
    for name, module in list(changed.named_modules()):
        own = name.split(".")[-1]
        if isinstance(module, nn.Linear) and own in targets:
            setattr(changed, own, make(module))
    return changed, sum(p.numel() for p in changed.parameters() if p.requires_grad)


def _made_twice(model, make, targets):
    made = 0

    def counted(layer):
        nonlocal made
        made += sum(p.numel() for p in make(layer).parameters() if p.requires_grad)
        return make(layer)

    return _change(model, counted, targets)[0], made


def _layers_of_the_original(model, make, targets):
    """make gets the layers of `model`, which the copy then shares."""
    changed = copy.deepcopy(model).requires_grad_(False)
    for name, module in list(model.named_modules()):
        parent, _, own = name.rpartition(".")
        if name and isinstance(module, nn.Linear) and own in targets:
            setattr(changed.get_submodule(parent), own, make(module))
    return changed, sum(p.numel() for p in changed.parameters() if p.requires_grad)


def _one_for_all(model, make, targets):
    """One made module for all layers of the same shape."""
    made = {}

    def make_once(layer):
        shape = layer.weight.shape
        if shape not in made:
            made[shape] = make(layer)
        return made[shape]

    return _change(model, make_once, targets)


def _first_hit(model, make, targets):
    missing = list(targets)

    def fits(name, own):
        if own not in missing:
            return False
        missing.remove(own)
        return True

    return _change(model, make, targets, fits)


def _must_occur(model, make, targets):
    names = {name.split(".")[-1] for name, _ in model.named_modules()}
    if not set(targets) <= names:
        raise ValueError("no such layer")
    return _change(model, make, targets)


def _frozen_original(model, make, targets):
    model.requires_grad_(False)
    return _change(model, make, targets, frozen=False)


def _without_bias(model, make, targets):
    """Layers with a bias are left out."""
    biased = {name for name, m in model.named_modules() if getattr(m, "bias", None) is not None}
    return _change(model, make, targets, lambda name, own: own in targets and name not in biased)


# 5.9
_TRUE = {"A": "steps", "B": "head", "C": "config", "D": "mask"}


# 5.10
def _stop(tokenizer):
    return tokenizer.convert_tokens_to_ids("<|im_end|>")


def _lora_alone(base, tokenizer):
    return add_lora(copy.deepcopy(base))


def _row_without_lora(base, tokenizer):
    return give_own_row(base, _stop(tokenizer)).requires_grad_(False)


def _everything(base, tokenizer):
    return copy.deepcopy(base)


def _row_and_everything(base, tokenizer):
    return give_own_row(base, _stop(tokenizer))


def _whole_table(base, tokenizer):
    model = add_lora(copy.deepcopy(base))
    model.get_input_embeddings().weight.requires_grad_(True)
    return model


def _too_high_a_rank(base, tokenizer):
    return add_lora(give_own_row(base, _stop(tokenizer)), rank=9)


def _row_in_the_base(base, tokenizer):
    table = base.get_input_embeddings().weight
    with torch.no_grad():
        table[_stop(tokenizer)] = torch.randn(table.shape[1]) * 0.1
    return add_lora(copy.deepcopy(base))


def _lora_in_the_base(base, tokenizer):
    with torch.no_grad():
        row = give_own_row(base, _stop(tokenizer)).get_input_embeddings().weight
        base.get_input_embeddings().weight.copy_(row)
    return add_lora(base)


def _another_tokens_row(base, tokenizer):
    return add_lora(give_own_row(base, tokenizer.convert_tokens_to_ids("<|endoftext|>")))


def _all_rows_anew(base, tokenizer):
    model = copy.deepcopy(base)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        alike = F.cosine_similarity(table, table[_stop(tokenizer)][None]) > 0.99
        table[alike] = torch.randn(int(alike.sum()), table.shape[1]) * table.norm(dim=1).mean() / 11
    return add_lora(model)


def _other_rows_zero(base, tokenizer):
    model = copy.deepcopy(base)
    table, stop = model.get_input_embeddings().weight, _stop(tokenizer)
    with torch.no_grad():
        alike = F.cosine_similarity(table, table[stop][None]) > 0.99
        alike[stop] = False
        table[alike] = 0
    return add_lora(model)


def _a_little_noise(base, tokenizer):
    model = copy.deepcopy(base)
    with torch.no_grad():
        row = model.get_input_embeddings().weight[_stop(tokenizer)]
        row += 1e-4 * torch.randn_like(row)
    return add_lora(model)


def _row_of_a_neighbour(base, tokenizer):
    model = copy.deepcopy(base)
    table, stop = model.get_input_embeddings().weight, _stop(tokenizer)
    with torch.no_grad():
        near = F.cosine_similarity(table, table[stop][None])
        table[stop] = table[near.topk(2).indices[1]]
    return add_lora(model)


def _other_end(base, tokenizer):
    """The generation configuration alone."""
    model = add_lora(copy.deepcopy(base))
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    return model


def _class_of_peft(base, tokenizer):
    """modules_to_save trains a copy of the table."""
    config = LoraConfig(
        target_modules="all-linear", modules_to_save=["embed_tokens"], task_type="CAUSAL_LM"
    )
    return get_peft_model(copy.deepcopy(base), config).base_model.model


def _random_start(base, tokenizer):
    """B does not begin at zero."""
    model = add_lora(give_own_row(base, _stop(tokenizer)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    return model


def _merged_again(base, tokenizer):
    """Nothing is left to train."""
    return merge_lora(add_lora(give_own_row(base, _stop(tokenizer)))).requires_grad_(False)


def _with_the_task(base, tokenizer):
    return add_lora(give_own_row(base, _stop(tokenizer))), tokenizer


def _nothing(base, tokenizer):
    add_lora(give_own_row(base, _stop(tokenizer)))


OTHER_WRONG_ANSWERS = {
    "5.1": [
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[rank:].sum()),
        lambda update, rank: _truncated(update, rank, lambda S, rank: (S[rank:] ** 2).sum()),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[rank:][:1].sum()),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[:rank].norm()),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[rank + 1 :].norm()),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[rank:].norm() / S.norm()),
        lambda update, rank: _truncated(
            update, rank, lambda S, rank: S[rank:].norm() / update.numel() ** 0.5
        ),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S.norm() - S[:rank].norm()),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[rank:]),
        lambda update, rank: _truncated(update, rank + 1, lambda S, rank: S[rank - 1 :].norm()),
        lambda update, rank: _truncated(update, max(rank - 1, 1), lambda S, rank: S[rank:].norm()),
        lambda update, rank: _truncated(update, 2, lambda S, rank: S[rank:].norm()),
        lambda update, rank: (
            torch.linalg.svd(update)[0][:, :rank] @ torch.linalg.svd(update)[2][:rank],
            torch.linalg.svdvals(update)[rank:].norm(),
        ),
        lambda update, rank: (_cut(update, rank).T, torch.linalg.svdvals(update)[rank:].norm()),
        lambda update, rank: (
            _cut(update, rank).tolist(),
            torch.linalg.svdvals(update)[rank:].norm(),
        ),
        lambda update, rank: _truncated(update, rank, lambda S, rank: S[rank:].norm())[::-1],
        lambda update, rank: _cut(update, rank),
        _left_only,
        _first_columns,
        _longest_rows,
        _in_place,
        _smallest_values,
        _measured,
    ],
    "5.3": [
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha * len(A) / rank),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha * (rank // len(A))),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), int(alpha * rank / len(A))),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha * (rank / len(A)) ** 0.5),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha * 2),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha + rank - len(A)),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), 2 * rank),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha / len(A)),
        lambda A, B, alpha, rank: (*_pad(A, B, rank)[::-1], alpha * rank / len(A)),
        lambda A, B, alpha, rank: (*_pad(A, B, rank + len(A)), alpha * rank / len(A)),
        lambda A, B, alpha, rank: (A, B, alpha),
        lambda A, B, alpha, rank: (
            F.pad(A, (0, rank - len(A))),
            F.pad(B, (0, 0, 0, rank - len(A))),
            alpha * rank / len(A),
        ),
        lambda A, B, alpha, rank: (
            F.pad(A, (0, 0, 0, rank - len(A)), value=1.0),
            F.pad(B, (0, rank - len(A)), value=1.0),
            alpha * rank / len(A),
        ),
        _random_rows_of_A,
        _random_columns_of_B,
        _at_unlike_ends,
        _repeated,
        _scaled_A,
        _scaled_in_place,
        _split_in_two,
        lambda A, B, alpha, rank: (*_pad(A, B, rank), alpha * rank / len(B)),
        lambda A, B, alpha, rank: (*_pad(A, B, rank), round(alpha * rank / len(A))),
    ],
    "5.7": [
        _NoScale,
        _AlphaAlone,
        _RootOfRank,
        _WholeDivision,
        _AlwaysTwo,
        _UpsideDown,
        _BothRandom,
        _NearlyZeroB,
        _BothZero,
        _ZerosSwapped,
        _NormalA,
        _WiderA,
        _RootForgotten,
        _NotFrozen,
        _BiasNotFrozen,
        _TrainedScale,
        _CopiedLayer,
        _FactorsOfTheLayersType,
        _FactorsTransposed,
        _FactorsAreLayers,
        _FactorsAreBuffers,
        _UpdateAlone,
        _WithoutBias,
        _NeedsBias,
        _BiasScaledToo,
        _OnlyMatrices,
        _Flattened,
        _NoGradient,
        _NoGradientOfA,
        _InputDetached,
        _LayerWithoutGradient,
        _MergedInPlace,
        _MergedInPlaceAndCopied,
        _FactorsEmptied,
        _ScaledBInPlace,
        _MergedWithoutBias,
        _MergedAlwaysWithBias,
        _MergedWithNewBias,
        _MergedWithoutScale,
        _MergedInFloat32,
        _RoundedUpdate,
        _RoundedFactors,
        _AlwaysThroughBfloat16,
        _MergedMatrix,
        _MergedIsItself,
        _MergedOnce,
    ],
    "5.8": [
        _any_ending,
        _anywhere,
        _any_part,
        _any_beginning,
        _full_names,
        _only_below_something,
        _every_linear,
        _any_module,
        _embeddings_too,
        _first_target,
        _not_copied,
        _shallow,
        _not_frozen,
        _counts_all,
        _counts_tensors,
        _counts_rows,
        _counts_in_float,
        _counts_a_share,
        _counts_rank_8,
        _counts_one_of_each_shape,
        _frozen_last,
        _frozen_weights_only,
        _frozen_targets_only,
        _first_level,
        _two_levels,
        _put_at_the_top,
        _made_twice,
        _layers_of_the_original,
        _one_for_all,
        _first_hit,
        _must_occur,
        _frozen_original,
        _without_bias,
        lambda model, make, targets: _change(model, make, targets)[0],
        lambda model, make, targets: _change(model, make, targets)[::-1],
        lambda model, make, targets: (copy.deepcopy(model).requires_grad_(False), 0),
    ],
    "5.9": [
        (_TRUE, 147),
        (_TRUE, 149),
        (_TRUE, 1),
        (_TRUE, 2048),
        (_TRUE, 148.0),
        (_TRUE, "148"),
        (_TRUE | {"A": "mask", "D": "steps"}, 148),
        (_TRUE | {"A": "head", "B": "steps"}, 148),
        (_TRUE | {"C": "mask", "D": "config"}, 148),
        (_TRUE | {"B": "config", "C": "head"}, 148),
        (_TRUE | {"A": "config", "C": "steps"}, 148),
        (_TRUE | {"B": "mask", "D": "head"}, 148),
        (_TRUE | {"A": "head"}, 148),
        ({letter: word for letter, word in _TRUE.items() if letter != "D"}, 148),
        ({word: letter for letter, word in _TRUE.items()}, 148),
        ({letter.lower(): word for letter, word in _TRUE.items()}, 148),
        ({letter: word.upper() for letter, word in _TRUE.items()}, 148),
        (list(_TRUE.values()), 148),
        (148, _TRUE),
        _TRUE,
        (_TRUE, [148]),
    ],
    "5.10": [
        _lora_alone,
        _row_without_lora,
        _everything,
        _row_and_everything,
        _whole_table,
        _too_high_a_rank,
        _row_in_the_base,
        _lora_in_the_base,
        _another_tokens_row,
        _all_rows_anew,
        _other_rows_zero,
        _a_little_noise,
        _row_of_a_neighbour,
        _other_end,
        _class_of_peft,
        _random_start,
        _merged_again,
        _with_the_task,
        _nothing,
    ],
}
