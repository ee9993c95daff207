"""Right answers to the exercises of chapter 06, each in another style; written from the statements
alone."""

import copy
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache

from sft_lab.adapters import Prefix, add_adapters
from sft_lab.labels import IGNORE_INDEX
from sft_lab.shapes import linear_shapes


# 6.1
def _by_loops(logits, labels):
    right = []
    for scores, row in zip(logits, labels, strict=True):
        verdict = True
        for t in range(len(row) - 1):
            if row[t + 1] != IGNORE_INDEX and scores[t].argmax() != row[t + 1]:
                verdict = False
        right.append(verdict)
    return torch.tensor(right)


def _by_counting(logits, labels):
    guesses, wanted = logits.argmax(dim=-1)[:, :-1], labels[:, 1:]
    return (guesses == wanted).sum(dim=1) == (wanted != IGNORE_INDEX).sum(dim=1)


def _by_the_highest_score(logits, labels):
    scores, wanted = logits[:, :-1], labels[:, 1:]
    own = scores.gather(2, wanted.clamp(min=0).unsqueeze(2)).squeeze(2)
    return torch.where(wanted == IGNORE_INDEX, True, own >= scores.max(dim=2).values).all(dim=1)


def _by_wrong_places(logits, labels):
    ok = torch.ones(len(labels), dtype=torch.bool)
    for row, t in (labels[:, 1:] != -100).nonzero().tolist():
        if int(logits[row, t].argmax()) != int(labels[row, t + 1]):
            ok[row] = False
    return ok


# 6.5
def _if_by_if(method, size, config):
    shapes, layers, features = linear_shapes(config), config.num_hidden_layers, config.hidden_size
    if method == "LoRA":
        return layers * sum(size * out + size * width for out, width in shapes)
    if method == "adapter":
        return layers * 2 * (features * size + size + size * features + features)
    if method == "prefix":
        return layers * 2 * size * config.num_key_value_heads * config.head_dim
    if method == "prompt":
        return size * features
    return layers * sum(out for out, _ in shapes)


def _match(method, size, config):
    shapes, features = linear_shapes(config), config.hidden_size
    match method:
        case "prompt":
            return size * features
        case "LoRA":
            one = size * sum(map(sum, shapes))
        case "adapter":
            one = 4 * features * size + 2 * size + 2 * features
        case "prefix":
            one = 2 * size * shapes[1][0]
        case "BitFit":
            one = sum(shape[0] for shape in shapes)
    return one * config.num_hidden_layers


def _from_modules(method, size, config):
    features = config.hidden_size
    if method == "prompt":
        return torch.empty(size, features).numel()
    with torch.device("meta"):
        if method == "prefix":
            parts = [torch.empty(2, config.num_key_value_heads, size, config.head_dim)]
        elif method == "adapter":
            parts = [
                p
                for _ in "12"
                for m in (nn.Linear(features, size), nn.Linear(size, features))
                for p in m.parameters()
            ]
        elif method == "LoRA":
            parts = [torch.empty(size, n) for shape in linear_shapes(config) for n in shape]
        else:
            parts = [torch.empty(out) for out, _ in linear_shapes(config)]
    return sum(config.num_hidden_layers * part.numel() for part in parts)


def _layer_by_layer(method, size, config):
    total = size * config.hidden_size if method == "prompt" else 0
    for _ in range(config.num_hidden_layers):
        for out, width in linear_shapes(config):
            if method == "LoRA":
                total += size * (out + width)
            if method == "BitFit":
                total += out
        if method == "adapter":
            for _ in range(2):
                total += size * (config.hidden_size + 1) + config.hidden_size * (size + 1)
        if method == "prefix":
            total += size * (linear_shapes(config)[1][0] + linear_shapes(config)[2][0])
    return total


def _table(method, size, config):
    shapes, layers, features = linear_shapes(config), config.num_hidden_layers, config.hidden_size
    return {
        "LoRA": layers * size * sum(a + b for a, b in shapes),
        "adapter": 2 * layers * (2 * features * size + size + features),
        "prefix": 2 * layers * size * config.head_dim * config.num_key_value_heads,
        "prompt": features * size,
        "BitFit": layers * sum(next(zip(*shapes, strict=True))),
    }[method]


# 6.6
def _probed(part, features):
    bias = part(torch.zeros(1, features))[0]
    weight = (part(torch.eye(features)) - bias).T
    x = torch.randn(256, features)
    if not torch.allclose(part(x), x @ weight.T + bias, rtol=1e-3, atol=1e-4):
        raise ValueError("not linear")
    return weight, bias


def _one_input_at_a_time(part, features):
    with torch.no_grad():
        bias = part(torch.zeros(1, features)).squeeze(0)
        columns = []
        for i in range(features):
            x = torch.zeros(1, features)
            x[0, i] = 1
            columns.append(part(x).squeeze(0) - bias)
        weight = torch.stack(columns, dim=1)
        for scale in (0.1, 1, 10):
            x = scale * torch.randn(64, features, generator=torch.Generator().manual_seed(1))
            gap = (part(x) - F.linear(x, weight, bias)).abs().max()
            if gap > 1e-3 * max(1, scale):
                raise ValueError(f"off by {gap}")
    return weight, bias


def _least_squares(part, features):
    x = torch.randn(8 * features + 50, features)
    ones = torch.ones(len(x), 1)
    y = part(x).detach()
    solution = torch.linalg.lstsq(torch.cat((x, ones), 1).double(), y.double()).solution.float()
    if (torch.cat((x, ones), 1) @ solution - y).abs().max() > 1e-3:
        raise ValueError
    return solution[:-1].T, solution[-1]


def _additive_first(part, features):
    zero = part(torch.zeros(1, features))
    x, y = 2 * torch.randn(100, features), torch.randn(100, features)
    together = part(x - 3 * y) - zero
    apart = (part(x) - zero) - 3 * (part(y) - zero)
    if not torch.allclose(together, apart, rtol=1e-3, atol=1e-3):
        raise ValueError("x - 3 y does not give f(x) - 3 f(y)")
    return (part(torch.eye(features)) - zero).T.contiguous(), zero[0]


def _with_the_jacobian(part, features):
    x = torch.randn(128, features)
    weight = torch.func.jacrev(lambda row: part(row[None])[0])(torch.zeros(features))
    bias = part(torch.zeros(1, features))[0]
    try:
        torch.testing.assert_close(part(x), x @ weight.T + bias, rtol=1e-3, atol=1e-3)
    except AssertionError as error:
        raise ValueError("no linear layer") from error
    return weight, bias


# 6.7
class _Plain(nn.Module):
    def __init__(self, features, width):
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, h):
        return h + self.up(F.gelu(self.down(h)))


class _Narrow(nn.Module):
    """Its own small start, by hand, and the sum in place of a branch that is its own."""

    def __init__(self, features, width):
        super().__init__()
        self.up = nn.Linear(width, features)
        self.down = nn.Linear(features, width)
        with torch.no_grad():
            self.down.weight.normal_(std=0.02)
            self.down.bias.zero_()
            for parameter in self.up.parameters():
                parameter.zero_()

    def forward(self, h):
        return torch.add(self.up(F.gelu(self.down(h))), h)


class _Behind(nn.Module):
    """A layer and the adapter behind it."""

    def __init__(self, linear, adapter):
        super().__init__()
        self.linear, self.adapter = linear, adapter

    def forward(self, h):
        return self.adapter(self.linear(h))


class _Wider(nn.Linear):
    """The old linear layer itself, that calls an adapter at its end."""

    def forward(self, h):
        return self.adapter(super().forward(h))


def _in_sequence(model, width):
    new, features = copy.deepcopy(model), model.config.hidden_size
    new.requires_grad_(False)
    for layer in new.model.layers:
        layer.self_attn.o_proj = nn.Sequential(layer.self_attn.o_proj, _Plain(features, width))
        layer.mlp.down_proj = nn.Sequential(layer.mlp.down_proj, _Plain(features, width))
    return new


def _wrapped(model, width):
    new = copy.deepcopy(model)
    for parameter in new.parameters():
        parameter.requires_grad = False
    for layer in new.model.layers:
        for part, name in ((layer.self_attn, "o_proj"), (layer.mlp, "down_proj")):
            setattr(
                part, name, _Behind(getattr(part, name), _Narrow(model.config.hidden_size, width))
            )
    return new


def _with_hooks(model, width):
    new = copy.deepcopy(model).requires_grad_(False)
    for layer in new.model.layers:
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            linear.adapter = _Plain(model.config.hidden_size, width)
            linear.register_forward_hook(lambda module, _, output: module.adapter(output))
    return new


def _in_one_list(model, width):
    new = copy.deepcopy(model)
    new.requires_grad_(False)
    new.adapters = nn.ModuleList()
    for layer in new.model.layers:
        for place in (layer.self_attn.o_proj, layer.mlp.down_proj):
            adapter = _Narrow(new.config.hidden_size, width)
            new.adapters.append(adapter)
            place.register_forward_hook(lambda _, __, output, adapter=adapter: adapter(output))
    return new


def _by_name(model, width):
    new = copy.deepcopy(model)
    new.requires_grad_(False)
    for name, module in list(new.named_modules()):
        if name.endswith(("o_proj", "down_proj")):
            parent, _, last = name.rpartition(".")
            pair = nn.Sequential(module, _Plain(new.config.hidden_size, width))
            setattr(new.get_submodule(parent), last, pair)
    return new


def _another_class(model, width):
    new = copy.deepcopy(model)
    old = list(new.parameters())
    for layer in new.model.layers:
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            linear.__class__ = _Wider
            linear.adapter = _Plain(linear.out_features, width).to(linear.weight.dtype)
    for parameter in old:
        parameter.requires_grad_(False)
    return new


def _in_the_layer(model, width):
    """The adapters are children of the decoder layer; the forward passes are wrapped."""
    new = copy.deepcopy(model).requires_grad_(False)
    for layer in new.model.layers:
        layer.after_attention = _Plain(model.config.hidden_size, width)
        layer.after_mlp = _Plain(model.config.hidden_size, width)
        layer.self_attn.register_forward_hook(
            lambda _, __, output, adapter=layer.after_attention: (adapter(output[0]), *output[1:])
        )
        layer.mlp.register_forward_hook(
            lambda _, __, output, adapter=layer.after_mlp: adapter(output)
        )
    return new


def _from_the_library(model, width):
    return add_adapters(copy.deepcopy(model), width=width)


# 6.8
def _layer_by_layer_into_the_cache(model, keys_values, input_ids):
    cache, rows = DynamicCache(config=model.config), len(input_ids)
    for layer, (keys, values) in enumerate(keys_values):
        cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
    return model(input_ids=input_ids, past_key_values=cache).logits


def _repeated(model, keys_values, input_ids):
    cache = DynamicCache(config=model.config)
    for layer in range(model.config.num_hidden_layers):
        both = keys_values[layer].unsqueeze(1).repeat(1, input_ids.shape[0], 1, 1, 1)
        cache.update(both[0], both[1], layer)
    return model(input_ids=input_ids, past_key_values=cache, use_cache=True)["logits"]


def _row_by_row(model, keys_values, input_ids):
    rows = []
    for row in input_ids:
        cache = DynamicCache(config=model.config)
        for layer in range(len(keys_values)):
            cache.update(keys_values[layer, :1], keys_values[layer, 1:], layer)
        rows.append(model(input_ids=row[None], past_key_values=cache).logits[0])
    return torch.stack(rows)


def _with_mask_and_positions(model, keys_values, input_ids):
    rows, length = input_ids.shape
    positions = keys_values.shape[3]
    cache = DynamicCache(config=model.config)
    for layer in range(keys_values.shape[0]):
        keys = torch.stack([keys_values[layer, 0]] * rows)
        values = torch.stack([keys_values[layer, 1]] * rows)
        cache.update(keys, values, layer)
    return model(
        input_ids=input_ids,
        attention_mask=torch.ones(rows, positions + length, dtype=torch.long),
        position_ids=torch.arange(positions, positions + length).expand(rows, -1),
        past_key_values=cache,
    ).logits


def _token_by_token(model, keys_values, input_ids):
    cache = DynamicCache(config=model.config)
    for layer, both in enumerate(keys_values):
        keys, values = both[:, None].expand(-1, len(input_ids), -1, -1, -1)
        cache.update(keys, values, layer)
    columns = []
    for t in range(input_ids.shape[1]):
        out = model(input_ids=input_ids[:, t : t + 1], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        columns.append(out.logits)
    return torch.cat(columns, dim=1)


def _decoder_and_head(model, keys_values, input_ids):
    cache = DynamicCache(config=model.config)
    shape = (len(input_ids), *keys_values.shape[2:])
    for layer, (keys, values) in enumerate(zip(*keys_values.unbind(1), strict=True)):
        cache.update(keys.broadcast_to(shape), values.broadcast_to(shape), layer)
    return model.lm_head(model.model(input_ids, past_key_values=cache).last_hidden_state)


def _from_pairs(model, keys_values, input_ids):
    n = len(input_ids)
    pairs = [
        (layer[0].expand(n, -1, -1, -1), layer[1].expand(n, -1, -1, -1)) for layer in keys_values
    ]
    cache = DynamicCache(pairs, config=model.config)
    return model(input_ids=input_ids, past_key_values=cache).logits


def _embedded(model, keys_values, input_ids):
    cache = DynamicCache(config=model.config)
    every = torch.zeros(len(input_ids), dtype=torch.long)  # row 0 of a batch of one, B times
    for i in range(model.config.num_hidden_layers):
        cache.update(keys_values[i, :1][every], keys_values[i, 1:][every], i)
    embeddings = model.get_input_embeddings()(input_ids)
    return model(inputs_embeds=embeddings, past_key_values=cache).logits


def _prefix_of_the_library(model, keys_values, input_ids):
    prefix = Prefix(torch.zeros_like(keys_values))
    del prefix.keys_values
    prefix.keys_values = keys_values  # no copy: the gradient must reach it
    handle = model.model.register_forward_pre_hook(prefix.before, with_kwargs=True)
    try:
        return model(input_ids=input_ids).logits
    finally:
        handle.remove()


RIGHT_ANSWERS = {
    "6.1": [
        lambda logits, labels: (
            (logits[:, :-1].argmax(dim=-1) == labels[:, 1:]) | (labels[:, 1:] == IGNORE_INDEX)
        ).all(dim=1),
        _by_loops,
        _by_counting,
        _by_the_highest_score,
        _by_wrong_places,
        lambda logits, labels: (
            ~((logits.topk(1).indices[:, :-1, 0] != labels[:, 1:]) & (labels[:, 1:] >= 0)).any(
                dim=1
            )
        ),
    ],
    "6.5": [_if_by_if, _match, _from_modules, _layer_by_layer, _table],
    "6.6": [_probed, _one_input_at_a_time, _least_squares, _additive_first, _with_the_jacobian],
    "6.7": [
        _in_sequence,
        _wrapped,
        _with_hooks,
        _in_one_list,
        _by_name,
        _another_class,
        _in_the_layer,
        _from_the_library,
    ],
    "6.8": [
        _layer_by_layer_into_the_cache,
        _repeated,
        _row_by_row,
        _with_mask_and_positions,
        _token_by_token,
        _decoder_and_head,
        _from_pairs,
        _embedded,
        _prefix_of_the_library,
    ],
    "6.9": [
        {"phone": ("LoRA", 1, 5e-3), "server": ("adapter", 2, 3e-2)},
        dict(server=("adapter", 1, 4e-2), phone=("LoRA", 1, 0.006)),
        OrderedDict([("phone", ("LoRA", 1, 4e-3)), ("server", ("adapter", 2, 4e-2))]),
        {"phone": ("LoRA", 1, 1 / 200), "server": ("BitFit", 512, 4e-2)},
        {"phone": ("LoRA", 1, 5e-3), "server": ("BitFit", 0, 4e-2)},
    ],
}
