"""Wrong answers to the exercises of chapter 06, each with what its reader is told."""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache


def _hits(logits, labels):
    return logits[:, :-1].argmax(-1) == labels[:, 1:], labels[:, 1:] != -100


def _shares(logits, labels):
    hit, graded = _hits(logits, labels)
    return (hit & graded).sum(dim=1) / graded.sum(dim=1)


class _Adapter(nn.Module):
    """The right one, but for what a name of ADAPTERS changes."""

    def __init__(self, features, width, form, bias=True, zero="up"):
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        if not bias:
            self.down.bias = None
        for name, parameter in self.named_parameters():
            if name.startswith("up") and zero in ("up", "all") or zero == "all":
                nn.init.zeros_(parameter)
        self.form = form

    def forward(self, h):
        return self.form(h, self.down(h), self.up)


def _right_form(h, inner, up):
    return h + up(F.gelu(inner))


def _insert(*, form=_right_form, places=("o_proj", "down_proj"), frozen=True, **of_part):
    """A copy with adapters, wrong in what is given."""

    def answer(model, width):
        made = copy.deepcopy(model)
        made.requires_grad_(not frozen)
        features = model.config.hidden_size
        for layer in made.model.layers:
            for block, name in ((layer.self_attn, "o_proj"), (layer.mlp, "down_proj")):
                if name in places:
                    part = _Adapter(features, width, form, **of_part)
                    setattr(block, name, nn.Sequential(getattr(block, name), part))
        return made

    return answer


def _one_for_all(model, width):
    made, part = copy.deepcopy(model), _Adapter(model.config.hidden_size, width, _right_form)
    made.requires_grad_(False)
    for layer in made.model.layers:
        layer.self_attn.o_proj = nn.Sequential(layer.self_attn.o_proj, part)
        layer.mlp.down_proj = nn.Sequential(layer.mlp.down_proj, part)
    return made


def _frozen_last(model, width):
    return _insert()(model, width).requires_grad_(False)


def _not_called(model, width):
    made = copy.deepcopy(model).requires_grad_(False)
    made.parts = nn.ModuleList(
        _Adapter(model.config.hidden_size, width, _right_form)
        for _ in range(2 * model.config.num_hidden_layers)
    )
    return made


def _in_front(model, width):
    made = copy.deepcopy(model).requires_grad_(False)
    for layer in made.model.layers:
        for block, name in ((layer.self_attn, "o_proj"), (layer.mlp, "down_proj")):
            part = _Adapter(model.config.hidden_size, width, _right_form)
            setattr(block, name, nn.Sequential(part, getattr(block, name)))
    return made


def _in_place(model, width):
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def _prefixed(change=lambda keys_values: keys_values, *, positions=False):
    """Logits behind another prefix than the given one, or at other positions."""

    def answer(model, keys_values, input_ids):
        cache = DynamicCache(config=model.config)
        for layer, (keys, values) in enumerate(change(keys_values)):
            rows = [part.expand(len(input_ids), -1, -1, -1) for part in (keys, values)]
            cache.update(*rows, layer)
        other = {}
        if positions:
            other["position_ids"] = torch.arange(input_ids.shape[1])[None]
        return model(input_ids=input_ids, past_key_values=cache, **other).logits

    return answer


def _as_numbers(model, keys_values, input_ids):
    return _prefixed()(model, keys_values, input_ids).detach()


def _count(**other):
    """Counts as they should be, but for one method: `other[method]` of right count, config, size
    and the (out, in) of a layer's seven linear layers."""

    def answer(method, size, config):
        layers, width = config.num_hidden_layers, config.hidden_size
        middle = config.intermediate_size
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        pairs = [(queries, width), (keys, width), (keys, width), (width, queries)]
        pairs += [(middle, width), (middle, width), (width, middle)]
        right = {
            "LoRA": layers * size * sum(map(sum, pairs)),
            "adapter": layers * 2 * (2 * width * size + size + width),
            "prefix": layers * 2 * keys * size,
            "prompt": size * width,
            "BitFit": layers * sum(rows for rows, _ in pairs),
        }[method]
        return other[method](right, config, size, pairs) if method in other else right

    return answer


def _full_matrices(right, config, size, pairs):
    return config.num_hidden_layers * size * sum(rows * columns for rows, columns in pairs)


def _one_layer(right, config, size, pairs):
    return right // config.num_hidden_layers


def _half(right, config, size, pairs):
    return right // 2


def _every_head(right, config, size, pairs):
    return right * config.num_attention_heads // config.num_key_value_heads


def _without_biases(right, config, size, pairs):
    return config.num_hidden_layers * 4 * config.hidden_size * size


def _every_layer(right, config, size, pairs):
    return right * config.num_hidden_layers


def _inputs(right, config, size, pairs):
    return config.num_hidden_layers * sum(columns for _, columns in pairs)


def _merge(*, bias=True, check=True, transposed=False, shifted=True):
    def answer(part, features):
        eye = torch.eye(features)
        at_zero = part(torch.zeros_like(eye))[0]
        weight = (part(eye) - (at_zero if shifted else 0.0)).T
        x = torch.randn(9, features)
        if check and not torch.allclose(part(x), x @ weight.T + at_zero, atol=1e-5):
            raise ValueError("not affine")
        return weight.T if transposed else weight, at_zero if bias else torch.zeros_like(at_zero)

    return answer


PHONE, SERVER = ("LoRA", 1, 5e-3), ("adapter", 2, 4e-2)

WRONG_ANSWERS = {
    "6.1": [
        (lambda z, y: _hits(z, y)[0].all(1), "-100 asks for nothing"),
        (lambda z, y: (_hits(z, y)[0] & _hits(z, y)[1]).any(1), "one right token is not enough"),
        (_shares, "the share of right tokens"),
        (lambda z, y: (_hits(z, y)[0] | ~_hits(z, y)[1]).all(1).float().mean(), "not their mean"),
        (lambda z, y: ((z.argmax(-1) == y) | (y == -100)).all(1), "row t of the logits predicts"),
        (lambda z, y: ~(_hits(z, y)[0] | ~_hits(z, y)[1]).all(1), "where an answer is wrong"),
    ],
    "6.5": [
        (_count(LoRA=_full_matrices), "rank · (in + out)"),
        (_count(LoRA=_one_layer), "one decoder layer"),
        (_count(adapter=_half), "two in every layer"),
        (_count(adapter=_without_biases), "have biases"),
        (_count(prefix=_every_head), "num_key_value_heads heads"),
        (_count(prefix=_half), "a key and a value"),
        (_count(prefix=_one_layer), "every layer has its own"),
        (_count(prompt=_every_layer), "it stands once"),
        (_count(BitFit=_inputs), "one number for each output"),
        (_count(LoRA=lambda right, *x: right + 1), "LoRA: the count is"),
    ],
    "6.6": [
        (_merge(check=False), "an adapter with GELU was merged"),
        (_merge(bias=False, check=False), "the bias is 0 at index"),
        (_merge(transposed=True), "the weight is transposed"),
        (_merge(shifted=False, check=False), "take the bias off"),
        (lambda part, features: _merge()(part, features)[0], "return two things"),
    ],
    "6.7": [
        (_insert(frozen=False), "nothing is frozen"),
        (_insert(places=("down_proj",)), "two places in each"),
        (_one_for_all, "every place has one of its own"),
        (_frozen_last, "no gradient reaches a matrix"),
        (_insert(zero="all"), "no gradient reaches a matrix"),
        (_insert(zero="nothing"), "a logit before training"),
        (_insert(form=lambda h, inner, up: h + up(inner)), "the nonlinearity is missing"),
        (_insert(form=lambda h, inner, up: h + up(F.relu(inner))), "this is ReLU"),
        (_insert(form=lambda h, inner, up: up(F.gelu(inner))), "a logit before training"),
        (_insert(bias=False), "`down` has no bias"),
        (_not_called, "no gradient reaches a matrix"),
        (_in_front, "behind the matrix, not in front"),
        (_in_place, "changed `model` in place"),
        (lambda model, width: _Adapter(16, width, _right_form), "not a _Adapter"),
    ],
    "6.8": [
        (lambda model, keys_values, ids: model(ids).logits, "no prefix is there"),
        (_prefixed(lambda x: x.flip(1)), "keys and values changed places"),
        (_prefixed(positions=True), "their positions begin at P"),
        (_prefixed(lambda x: x[:1].expand_as(x)), "keys and values of its own"),
        (_prefixed(lambda x: x.detach()), "no gradient reaches keys_values"),
        (_as_numbers, "no gradient flows through"),
    ],
    "6.9": [
        ({"phone": PHONE}, "a dict with the keys"),
        ({"phone": ("adapter", 2, 4e-2), "server": SERVER}, "no weight of a plain Qwen3"),
        ({"phone": ("LoRA", 8, 5e-3), "server": SERVER}, "the brief allows 40,000"),
        ({"phone": PHONE, "server": ("LoRA", 1, 1e-2)}, "the brief allows 24,000"),
        ({"phone": PHONE, "server": ("prefix", 8, 0.2)}, "every request pays cache"),
        ({"phone": PHONE, "server": ("adapter", 2, 1e-3)}, "of the held-out questions, asked are"),
        ({"phone": ("LoRA", 1, 1e-4), "server": SERVER}, "phone: LoRA of size 1 at rate 0.0001"),
        ({"phone": PHONE, "server": ("IA3", 2, 1e-2)}, "there is no method"),
        ({"phone": ("LoRA", 1), "server": SERVER}, "return three things"),
    ],
}
