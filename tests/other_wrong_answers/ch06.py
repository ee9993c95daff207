"""Wrong answers to the exercises of chapter 06, written from the statements alone."""

import copy
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache

from sft_lab.shapes import linear_shapes


# 6.1
def _judged(logits, labels, graded=lambda wanted: wanted != -100):
    """For each place whether it is right or not graded."""
    return (logits[:, :-1].argmax(-1) == labels[:, 1:]) | ~graded(labels[:, 1:])


def _first_graded_only(logits, labels):
    guesses, wanted = logits[:, :-1].argmax(-1), labels[:, 1:]
    first = (wanted != -100).int().argmax(dim=1, keepdim=True)
    return (guesses.gather(1, first) == wanted.gather(1, first))[:, 0]


def _last_graded_only(logits, labels):
    guesses, wanted = logits[:, :-1].argmax(-1), labels[:, 1:]
    place = torch.arange(wanted.shape[1])
    last = torch.where(wanted != -100, place, -1).argmax(dim=1, keepdim=True)
    return (guesses.gather(1, last) == wanted.gather(1, last))[:, 0]


def _rolled(logits, labels):
    wanted = labels.roll(-1, dims=1)
    return ((logits.argmax(-1) == wanted) | (wanted == -100)).all(dim=1)


def _labels_overwritten(logits, labels):
    guesses = logits[:, :-1].argmax(-1)
    wanted = labels[:, 1:]
    wanted[wanted == -100] = guesses[wanted == -100]
    return (guesses == wanted).all(dim=1)


def _equal_numbers_of_graded(logits, labels):
    graded = labels[:, 1:] != -100
    ok = logits[:, :-1].argmax(-1)[graded] == labels[:, 1:][graded]
    return ok.reshape(len(labels), -1).all(dim=1)


def _most(logits, labels):
    graded = labels[:, 1:] != -100
    right = (_judged(logits, labels) & graded).sum(1)
    return right >= 0.6 * graded.sum(1)


def _chances(logits, labels):
    """The probability of each token, 1 where it is not graded."""
    wanted = labels[:, 1:]
    chances = logits[:, :-1].softmax(-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
    return torch.where(wanted == -100, 1.0, chances)


def _same_tokens_in_any_order(logits, labels):
    rows = []
    for guesses, wanted in zip(logits[:, :-1].argmax(-1), labels[:, 1:], strict=True):
        graded = wanted != -100
        rows.append(guesses[graded].sort().values.equal(wanted[graded].sort().values))
    return torch.tensor(rows)


def _among_the_best_two(logits, labels):
    wanted = labels[:, 1:]
    found = (logits[:, :-1].topk(2).indices == wanted[..., None]).any(-1)
    return (found | (wanted == -100)).all(1)


# 6.5
def _count(**parts):
    """The right counts, some by a wrong rule of (size, config, shapes, layers, features)."""
    rules = {
        "LoRA": lambda size, config, shapes, layers, features: (
            layers * size * sum(map(sum, shapes))
        ),
        "adapter": lambda size, config, shapes, layers, features: (
            2 * layers * (2 * features * size + size + features)
        ),
        "prefix": lambda size, config, shapes, layers, features: 2 * layers * size * shapes[1][0],
        "prompt": lambda size, config, shapes, layers, features: size * features,
        "BitFit": lambda size, config, shapes, layers, features: (
            layers * sum(out for out, _ in shapes)
        ),
    } | parts

    def answer(method, size, config):
        shapes = linear_shapes(config)
        return rules[method](size, config, shapes, config.num_hidden_layers, config.hidden_size)

    return answer


# 6.6
def _probe(part, features):
    bias = part(torch.zeros(1, features))[0]
    return (part(torch.eye(features)) - bias).T, bias


def _tested_on(make, rtol=1e-3, atol=1e-4, error=ValueError):
    def answer(part, features):
        weight, bias = _probe(part, features)
        x = make(features)
        if not torch.allclose(part(x), x @ weight.T + bias, rtol=rtol, atol=atol):
            raise error("cannot be merged")
        return weight, bias

    return answer


def _none_when_not(part, features):
    try:
        return _tested_on(lambda n: torch.randn(64, n))(part, features)
    except ValueError:
        return None


def _doubling_only(part, features):
    weight, bias = _probe(part, features)
    x = torch.randn(64, features)
    if not torch.allclose(part(2 * x) - bias, 2 * (part(x) - bias), rtol=1e-3, atol=1e-4):
        raise ValueError
    return weight, bias


def _turning_only(part, features):
    weight, bias = _probe(part, features)
    x = torch.randn(64, features)
    if not torch.allclose(part(-x) - bias, -(part(x) - bias), rtol=1e-3, atol=1e-4):
        raise ValueError
    return weight, bias


def _transposed(part, features):
    weight, bias = _tested_on(lambda n: torch.randn(64, n))(part, features)
    return weight.T, bias


def _bias_forgotten(part, features):
    weight = part(torch.eye(features)).T
    bias = part(torch.zeros(1, features))[0]
    _tested_on(lambda n: torch.randn(64, n))(part, features)
    return weight, bias


def _zero_bias(part, features):
    weight, bias = _tested_on(lambda n: torch.randn(64, n))(part, features)
    return weight, torch.zeros_like(bias)


def _bias_as_a_row(part, features):
    weight, bias = _tested_on(lambda n: torch.randn(64, n))(part, features)
    return weight, bias[None]


def _in_lists(part, features):
    weight, bias = _tested_on(lambda n: torch.randn(64, n))(part, features)
    return weight.tolist(), bias.tolist()


def _always_refuses(part, features):
    raise ValueError("an adapter cannot be merged")


def _residual_added(part, features):
    weight, bias = _tested_on(lambda n: torch.randn(64, n))(part, features)
    return weight + torch.eye(*weight.shape), bias


def _returned_in_turn(part, features):
    return _tested_on(lambda n: torch.randn(64, n))(part, features)[::-1]


def _returns_the_error(part, features):
    try:
        return _tested_on(lambda n: torch.randn(64, n))(part, features)
    except ValueError as error:
        return error


# 6.7
class _Bottleneck(nn.Module):
    """A right adapter; what a subclass or an option changes is the mistake."""

    def __init__(
        self, features, width, *, up_bias=True, down_bias=True, zero=("up",), zero_bias=True
    ):
        super().__init__()
        self.down = nn.Linear(features, width, bias=down_bias)
        self.up = nn.Linear(width, features, bias=up_bias)
        for name in zero:
            nn.init.zeros_(getattr(self, name).weight)
            if zero_bias and getattr(self, name).bias is not None:
                nn.init.zeros_(getattr(self, name).bias)

    def forward(self, h):
        return h + self.up(F.gelu(self.down(h)))


class _WithoutResidual(_Bottleneck):
    def forward(self, h):
        return self.up(F.gelu(self.down(h)))


class _ReLU(_Bottleneck):
    def forward(self, h):
        return h + self.up(F.relu(self.down(h)))


class _SiLU(_Bottleneck):
    def forward(self, h):
        return h + self.up(F.silu(self.down(h)))


class _Tanh(_Bottleneck):
    def forward(self, h):
        return h + self.up(torch.tanh(self.down(h)))


class _NoGelu(_Bottleneck):
    def forward(self, h):
        return h + self.up(self.down(h))


class _GeluLast(_Bottleneck):
    def forward(self, h):
        return h + F.gelu(self.up(self.down(h)))


class _GeluTwice(_Bottleneck):
    def forward(self, h):
        return h + F.gelu(self.up(F.gelu(self.down(h))))


class _GeluFirst(_Bottleneck):
    def forward(self, h):
        return h + self.up(self.down(F.gelu(h)))


class _TwiceTheStream(_Bottleneck):
    def forward(self, h):
        return 2 * h + self.up(F.gelu(self.down(h)))


class _Minus(_Bottleneck):
    def forward(self, h):
        return h - self.up(F.gelu(self.down(h)))


class _Halved(_Bottleneck):
    def forward(self, h):
        return h + self.up(F.gelu(self.down(h))) / 2


class _Detached(_Bottleneck):
    def forward(self, h):
        return h + self.up(F.gelu(self.down(h.detach())))


class _LastTokenOnly(_Bottleneck):
    def forward(self, h):
        out = h.clone()
        out[..., -1, :] = h[..., -1, :] + self.up(F.gelu(self.down(h[..., -1, :])))
        return out


class _OtherNames(nn.Module):
    def __init__(self, features, width):
        super().__init__()
        self.squeeze, self.widen = nn.Linear(features, width), nn.Linear(width, features)
        nn.init.zeros_(self.widen.weight)
        nn.init.zeros_(self.widen.bias)

    def forward(self, h):
        return h + self.widen(F.gelu(self.squeeze(h)))


class _FunctionAfter(nn.Module):
    """Two layers in a plain list: no parameters of the model."""

    def __init__(self, features, width):
        super().__init__()
        self.both = [nn.Linear(features, width), nn.Linear(width, features)]
        nn.init.zeros_(self.both[1].weight)
        nn.init.zeros_(self.both[1].bias)

    def forward(self, h):
        return h + self.both[1](F.gelu(self.both[0](h)))


_PLACES = (("self_attn", "o_proj"), ("mlp", "down_proj"))


def _insert(
    make=_Bottleneck,
    places=_PLACES,
    before=False,
    freeze=True,
    deep=True,
    layers=slice(None),
    shared=None,
    width_of=lambda width: width,
):
    def insert_adapters(model, width):
        new = copy.deepcopy(model) if deep else model
        if freeze:
            new.requires_grad_(False)
        features, width = model.config.hidden_size, width_of(width)
        kept = {}
        for number, layer in enumerate(list(new.model.layers)[layers]):
            for part, name in places:
                linear = getattr(getattr(layer, part), name)
                size = linear.in_features if before else features
                key = {"all": 0, "layer": number, "place": name}.get(shared, (number, name))
                if key not in kept:
                    kept[key] = make(size, width)
                both = (kept[key], linear) if before else (linear, kept[key])
                setattr(getattr(layer, part), name, nn.Sequential(*both))
        return new

    return insert_adapters


def _then(change, make=_Bottleneck):
    def insert_adapters(model, width):
        new = _insert(make)(model, width)
        out = change(new)
        return new if out is None else out

    return insert_adapters


def _frozen_last(model):
    model.requires_grad_(False)


def _norms_too(model):
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.requires_grad_(True)


def _head_too(model):
    model.lm_head.weight.requires_grad_(True)


def _weights_only(model):
    for module in model.modules():
        if isinstance(module, _Bottleneck):
            module.down.bias.requires_grad_(False)
            module.up.bias.requires_grad_(False)


def _up_only(model):
    for module in model.modules():
        if isinstance(module, _Bottleneck):
            module.down.requires_grad_(False)


def _old_frozen_too(model, width):
    model.requires_grad_(False)
    return _insert()(model, width)


def _adapters_shared_with_the_model(model, width):
    """A shallow copy: the layers are those of the model."""
    new = copy.copy(model)
    new.requires_grad_(False)
    return _insert(deep=False)(new, width)


def _after_the_layer(model, width):
    """Behind the residual sum, at the end of the layer."""
    new = copy.deepcopy(model).requires_grad_(False)
    for layer in new.model.layers:
        layer.first = _Bottleneck(model.config.hidden_size, width)
        layer.second = _Bottleneck(model.config.hidden_size, width)

        def after(module, _, output):
            h = output[0] if isinstance(output, tuple) else output
            return module.second(module.first(h))

        layer.register_forward_hook(after)
    return new


def _beside(model, width):
    """In parallel: the adapter reads what the part reads."""
    new = copy.deepcopy(model).requires_grad_(False)
    for layer in new.model.layers:
        layer.mlp.adapter = _Bottleneck(model.config.hidden_size, width)
        layer.mlp.register_forward_hook(
            lambda module, args, output: output + module.adapter(args[0]) - args[0]
        )
        layer.self_attn.o_proj = nn.Sequential(
            layer.self_attn.o_proj, _Bottleneck(model.config.hidden_size, width)
        )
    return new


def _hook_that_returns_nothing(model, width):
    new = copy.deepcopy(model).requires_grad_(False)
    for layer in new.model.layers:
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            linear.adapter = _Bottleneck(model.config.hidden_size, width)
            linear.register_forward_hook(lambda module, _, output: None)
    return new


def _last_adapter_everywhere(model, width):
    """A closure over the loop's variable: every hook calls the adapter made last."""
    new = copy.deepcopy(model).requires_grad_(False)
    for layer in new.model.layers:
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            adapter = linear.adapter = _Bottleneck(model.config.hidden_size, width)
            linear.register_forward_hook(lambda _, __, output: adapter(output))  # noqa: B023
    return new


def _swapped(model, width):
    """The adapter registered at one place runs behind the other one too, its own never."""
    new = _insert()(model, width)
    for layer in new.model.layers:
        layer.mlp.down_proj[1] = layer.self_attn.o_proj[1]
    return new


def _in_a_plain_list(model, width):
    new = copy.deepcopy(model).requires_grad_(False)
    for layer in new.model.layers:
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            adapter = _Bottleneck(model.config.hidden_size, width)
            linear.register_forward_hook(lambda _, __, output, adapter=adapter: adapter(output))
    return new


# 6.8
def _behind(
    both=lambda keys, values: (keys, values),
    numbers=lambda keys_values: keys_values,
    order=lambda layers: list(range(layers)),
    after=lambda logits, positions: logits,
    **more,
):
    """Right but for what an option changes."""

    def logits_behind(model, keys_values, input_ids):
        cache, rows = DynamicCache(config=model.config), len(input_ids)
        given = numbers(keys_values)
        for layer, source in enumerate(order(len(given))):
            keys, values = both(*given[source])
            cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        extra = {
            name: make(rows, given.shape[3], input_ids.shape[1]) for name, make in more.items()
        }
        logits = model(input_ids=input_ids, past_key_values=cache, **extra).logits
        return after(logits, given.shape[3])

    return logits_behind


def _no_prefix(model, keys_values, input_ids):
    return model(input_ids=input_ids).logits


def _gradient_without_effect(model, keys_values, input_ids):
    return model(input_ids=input_ids).logits + 0 * keys_values.sum()


def _without_gradient(model, keys_values, input_ids):
    with torch.no_grad():
        return _behind()(model, keys_values, input_ids)


def _one_cache_for_all_rows(model, keys_values, input_ids):
    """Rows one after the other, all into one cache: a row reads those before it."""
    cache, rows = DynamicCache(config=model.config), []
    for layer, (keys, values) in enumerate(keys_values):
        cache.update(keys[None], values[None], layer)
    for row in input_ids:
        rows.append(model(input_ids=row[None], past_key_values=cache).logits)
    return torch.cat(rows)


def _first_layer_in_every_layer(model, keys_values, input_ids):
    return _behind(numbers=lambda given: given[:1].expand_as(given))(model, keys_values, input_ids)


def _last_layer_forgotten(model, keys_values, input_ids):
    return _behind(numbers=lambda given: torch.cat((given[:-1], torch.zeros_like(given[-1:]))))(
        model, keys_values, input_ids
    )


def _model_frozen(model, keys_values, input_ids):
    model.requires_grad_(False)
    return _behind()(model, keys_values, input_ids)


def _model_in_training(model, keys_values, input_ids):
    model.train(not model.training)
    return _behind()(model, keys_values, input_ids)


def _leaves_a_hook(model, keys_values, input_ids):
    def before(decoder, args, inputs):
        if inputs.get("past_key_values") is None:
            cache = DynamicCache(config=model.config)
            for layer, (keys, values) in enumerate(keys_values):
                rows = len(inputs["input_ids"])
                cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
            inputs["past_key_values"] = cache
        return args, inputs

    model.model.register_forward_pre_hook(before, with_kwargs=True)
    return model(input_ids=input_ids).logits


def _first_row_for_all(model, keys_values, input_ids):
    return _behind()(model, keys_values, input_ids[:1]).expand(len(input_ids), -1, -1)


def _keys_scaled_by_the_spread(model, keys_values, input_ids):
    size = keys_values.shape[-1]
    return _behind(both=lambda keys, values: (keys / size**0.5, values))(
        model, keys_values, input_ids
    )


def _keys_rotated_again(model, keys_values, input_ids):
    positions = torch.arange(keys_values.shape[3])[None]
    cos, sin = model.model.rotary_emb(keys_values, positions)

    def rotate(keys):
        first, second = keys.chunk(2, dim=-1)
        return keys * cos + torch.cat((-second, first), dim=-1) * sin

    return _behind(both=lambda keys, values: (rotate(keys), values))(model, keys_values, input_ids)


def _keys_normed_again(model, keys_values, input_ids):
    layers = model.model.layers
    normed = torch.stack(
        [
            torch.stack((layer.self_attn.k_norm(keys), values))
            for layer, (keys, values) in zip(layers, keys_values, strict=True)
        ]
    )
    return _behind()(model, normed, input_ids)


def _write_over(model, keys_values, input_ids):
    logits = _behind()(model, keys_values, input_ids)
    with torch.no_grad():
        keys_values.mul_(0.5)
    return logits


# 6.9
_PHONE, _SERVER = ("LoRA", 1, 5e-3), ("adapter", 2, 3e-2)


OTHER_WRONG_ANSWERS = {
    "6.1": [
        lambda logits, labels: ((logits.argmax(-1) == labels) | (labels == -100)).all(1),
        lambda logits, labels: (
            (logits[:, 1:].argmax(-1) == labels[:, :-1]) | (labels[:, :-1] == -100)
        ).all(1),
        lambda logits, labels: (logits[:, :-1].argmax(-1) == labels[:, 1:]).all(1),
        lambda logits, labels: _judged(logits, labels).any(1),
        lambda logits, labels: (logits[:, :-1].argmax(-1) == labels[:, 1:]).any(1),
        lambda logits, labels: _judged(logits, labels),
        lambda logits, labels: _judged(logits, labels).all(1).float(),
        lambda logits, labels: _judged(logits, labels).all(1).long(),
        lambda logits, labels: _judged(logits, labels).all(1).tolist(),
        lambda logits, labels: _judged(logits, labels).all(),
        lambda logits, labels: _judged(logits, labels).all(0),
        lambda logits, labels: ~_judged(logits, labels).all(1),
        lambda logits, labels: _judged(logits, labels).float().mean(1),
        lambda logits, labels: _judged(logits, labels, lambda wanted: wanted > 0).all(1),
        lambda logits, labels: _judged(logits.abs(), labels).all(1),
        lambda logits, labels: _judged(-logits, labels).all(1),
        lambda logits, labels: _judged(logits[:, :-1], labels[:, :-1]).all(1),
        lambda logits, labels: _judged(logits[:, 1:], labels[:, 1:]).all(1),
        _first_graded_only,
        _last_graded_only,
        _rolled,
        _labels_overwritten,
        _equal_numbers_of_graded,
        _most,
        lambda logits, labels: (logits[:, :-1].argmax(-1) == labels[:, 1:].clamp(min=0)).all(1),
        lambda logits, labels: ((_chances(logits, labels) > 0.5) | (labels[:, 1:] < 0)).all(1),
        lambda logits, labels: _chances(logits, labels).prod(1) > 0.5,
        lambda logits, labels: _chances(logits, labels).log().mean(1) > -0.1,
        _same_tokens_in_any_order,
        _among_the_best_two,
        lambda logits, labels: (_judged(logits, labels) | (logits[:, :-1].argmax(-1) == 0)).all(1),
    ],
    "6.5": [
        _count(LoRA=lambda size, config, shapes, layers, features: size * sum(map(sum, shapes))),
        _count(LoRA=lambda size, config, shapes, layers, features: layers * sum(map(sum, shapes))),
        _count(
            LoRA=lambda size, config, shapes, layers, features: (
                layers * size * sum(o * i for o, i in shapes)
            )
        ),
        _count(
            LoRA=lambda size, config, shapes, layers, features: (
                layers * size * sum(map(sum, set(shapes)))
            )
        ),
        _count(
            LoRA=lambda size, config, shapes, layers, features: (
                layers * size * sum(map(sum, shapes[:4]))
            )
        ),
        _count(
            LoRA=lambda size, config, shapes, layers, features: (
                layers * size * sum(i for _, i in shapes)
            )
        ),
        _count(
            adapter=lambda size, config, shapes, layers, features: (
                layers * (2 * features * size + size + features)
            )
        ),
        _count(
            adapter=lambda size, config, shapes, layers, features: 2 * layers * 2 * features * size
        ),
        _count(
            adapter=lambda size, config, shapes, layers, features: (
                2 * layers * (2 * features * size + size)
            )
        ),
        _count(
            adapter=lambda size, config, shapes, layers, features: (
                2 * layers * (2 * features * size + features)
            )
        ),
        _count(
            adapter=lambda size, config, shapes, layers, features: (
                2 * (2 * features * size + size + features)
            )
        ),
        _count(
            prefix=lambda size, config, shapes, layers, features: (
                2 * layers * size * config.num_attention_heads * config.head_dim
            )
        ),
        _count(prefix=lambda size, config, shapes, layers, features: layers * size * shapes[1][0]),
        _count(prefix=lambda size, config, shapes, layers, features: 2 * size * shapes[1][0]),
        _count(prefix=lambda size, config, shapes, layers, features: 2 * layers * size * features),
        _count(
            prefix=lambda size, config, shapes, layers, features: (
                2
                * layers
                * size
                * config.num_key_value_heads
                * (features // config.num_attention_heads)
            )
        ),
        _count(prompt=lambda size, config, shapes, layers, features: layers * size * features),
        _count(prompt=lambda size, config, shapes, layers, features: size * config.vocab_size),
        _count(prompt=lambda size, config, shapes, layers, features: features),
        _count(prompt=lambda size, config, shapes, layers, features: size * features / 1),
        _count(
            BitFit=lambda size, config, shapes, layers, features: layers * sum(i for _, i in shapes)
        ),
        _count(BitFit=lambda size, config, shapes, layers, features: sum(o for o, _ in shapes)),
        _count(
            BitFit=lambda size, config, shapes, layers, features: (
                size * layers * sum(o for o, _ in shapes)
            )
        ),
        _count(BitFit=lambda size, config, shapes, layers, features: 0),
        _count(
            BitFit=lambda size, config, shapes, layers, features: layers * len(shapes) * features
        ),
    ],
    "6.6": [
        _probe,
        _tested_on(torch.eye),
        _tested_on(lambda n: torch.zeros(1, n)),
        _tested_on(lambda n: torch.ones(1, n)),
        _tested_on(lambda n: torch.rand(64, n)),
        _tested_on(lambda n: 3 * torch.eye(n)),
        _tested_on(lambda n: torch.randn(64, n), atol=1.0),
        _tested_on(lambda n: torch.randn(64, n), rtol=1.0),
        _tested_on(lambda n: 1e-3 * torch.randn(64, n)),
        _tested_on(lambda n: torch.randn(64, n), error=RuntimeError),
        _tested_on(lambda n: torch.randn(64, n), error=AssertionError),
        _none_when_not,
        _doubling_only,
        _turning_only,
        _transposed,
        _bias_forgotten,
        _zero_bias,
        _bias_as_a_row,
        _in_lists,
        _always_refuses,
        _residual_added,
        _returned_in_turn,
        _returns_the_error,
    ],
    "6.7": [
        _insert(_WithoutResidual),
        _insert(_ReLU),
        _insert(_SiLU),
        _insert(_Tanh),
        _insert(_NoGelu),
        _insert(_GeluLast),
        _insert(_GeluTwice),
        _insert(_GeluFirst),
        _insert(_TwiceTheStream),
        _insert(_Minus),
        _insert(_Halved),
        _insert(_Detached),
        _insert(_LastTokenOnly),
        _insert(_OtherNames),
        _insert(_FunctionAfter),
        _insert(partial(_Bottleneck, up_bias=False)),
        _insert(partial(_Bottleneck, down_bias=False)),
        _insert(partial(_Bottleneck, up_bias=False, down_bias=False)),
        _insert(partial(_Bottleneck, zero=())),
        _insert(partial(_Bottleneck, zero=("down",))),
        _insert(partial(_Bottleneck, zero=("down", "up"))),
        _insert(partial(_Bottleneck, zero_bias=False)),
        _insert(places=_PLACES[:1]),
        _insert(places=_PLACES[1:]),
        _insert(places=(("self_attn", "o_proj"), ("mlp", "up_proj")), before=True),
        _insert(places=(("self_attn", "q_proj"), ("mlp", "gate_proj")), before=True),
        _insert(before=True),
        _insert(freeze=False),
        _insert(deep=False),
        _insert(layers=slice(1)),
        _insert(layers=slice(1, None)),
        _insert(layers=slice(-1)),
        _insert(shared="all"),
        _insert(shared="layer"),
        _insert(shared="place"),
        _insert(width_of=lambda width: 16),
        _insert(width_of=lambda width: width + 1),
        _insert(width_of=lambda width: 2 * width),
        _then(_frozen_last),
        _then(_norms_too),
        _then(_head_too),
        _then(_weights_only),
        _then(_up_only),
        _then(lambda model: model.requires_grad_(True)),
        _then(lambda model: model.state_dict()),
        _then(lambda model: model.model),
        _old_frozen_too,
        _adapters_shared_with_the_model,
        _after_the_layer,
        _beside,
        _hook_that_returns_nothing,
        _last_adapter_everywhere,
        _swapped,
        _in_a_plain_list,
        lambda model, width: copy.deepcopy(model).requires_grad_(False),
        lambda model, width: None,
    ],
    "6.8": [
        _no_prefix,
        _gradient_without_effect,
        _without_gradient,
        _one_cache_for_all_rows,
        _first_layer_in_every_layer,
        _last_layer_forgotten,
        _model_frozen,
        _model_in_training,
        _leaves_a_hook,
        _first_row_for_all,
        _keys_scaled_by_the_spread,
        _keys_rotated_again,
        _keys_normed_again,
        _write_over,
        _behind(both=lambda keys, values: (values, keys)),
        _behind(both=lambda keys, values: (keys, keys)),
        _behind(both=lambda keys, values: (values, values)),
        _behind(both=lambda keys, values: (keys, torch.zeros_like(values))),
        _behind(both=lambda keys, values: (torch.zeros_like(keys), values)),
        _behind(both=lambda keys, values: (keys.detach(), values)),
        _behind(both=lambda keys, values: (keys, values.detach())),
        _behind(both=lambda keys, values: (keys.flip(0), values)),
        _behind(both=lambda keys, values: (keys.flip(0), values.flip(0))),
        _behind(both=lambda keys, values: (keys.flip(1), values)),
        _behind(both=lambda keys, values: (keys[:, 1:], values[:, 1:])),
        _behind(both=lambda keys, values: (keys[:, -1:], values[:, -1:])),
        _behind(both=lambda keys, values: (keys[:, :1], values[:, :1])),
        _behind(both=lambda keys, values: (keys.repeat(1, 2, 1), values.repeat(1, 2, 1))),
        _behind(
            both=lambda keys, values: (
                keys.transpose(0, 1).reshape(keys.shape),
                values.transpose(0, 1).reshape(values.shape),
            )
        ),
        _behind(numbers=lambda given: given.detach()),
        _behind(numbers=lambda given: given.clone().detach().requires_grad_()),
        _behind(numbers=lambda given: given.transpose(0, 1).reshape(given.shape)),
        _behind(order=lambda layers: list(range(layers))[::-1]),
        _behind(after=lambda logits, positions: logits[:, positions:]),
        _behind(after=lambda logits, positions: logits[:, -1:]),
        _behind(after=lambda logits, positions: logits[:, -1]),
        _behind(after=lambda logits, positions: logits[:, :-1]),
        _behind(after=lambda logits, positions: logits.softmax(-1)),
        _behind(after=lambda logits, positions: logits.log_softmax(-1)),
        _behind(after=lambda logits, positions: logits.argmax(-1)),
        _behind(after=lambda logits, positions: logits.detach()),
        _behind(after=lambda logits, positions: logits.mean(0)),
        _behind(after=lambda logits, positions: logits.flatten(0, 1)),
        _behind(after=lambda logits, positions: logits.roll(1, 0)),
        _behind(position_ids=lambda rows, front, T: torch.arange(T).expand(rows, -1)),
        _behind(
            position_ids=lambda rows, front, T: torch.arange(front + 1, front + T + 1).expand(
                rows, -1
            )
        ),
        _behind(
            position_ids=lambda rows, front, T: torch.arange(front - 1, front + T - 1).expand(
                rows, -1
            )
        ),
        _behind(position_ids=lambda rows, front, T: torch.full((rows, T), front)),
        _behind(
            attention_mask=lambda rows, front, T: torch.cat(
                (torch.zeros(rows, front), torch.ones(rows, T)), 1
            ).long()
        ),
        _behind(
            attention_mask=lambda rows, front, T: torch.cat(
                (torch.zeros(rows, 1), torch.ones(rows, front + T - 1)), 1
            ).long()
        ),
    ],
    "6.9": [
        *(
            {"phone": phone, "server": _SERVER}
            for phone in (
                ("LoRA", 2, 5e-3),  # 77,824 bytes
                ("LoRA", 8, 1e-2),
                ("LoRA", 1, 5e-2),  # answers nothing
                ("full", 1, 1e-3),
                ("adapter", 2, 3e-2),  # small, but no plain Qwen3
                ("BitFit", 1, 4e-2),
                ("prefix", 8, 0.2),
                ("prompt", 31, 0.1),
                ("lora", 1, 5e-3),
                ("LoRA", "1", 5e-3),
                ("LoRA", 1.5, 5e-3),
                ("LoRA", 0, 5e-3),
                ("LoRA", -1, 5e-3),
                ("LoRA", 1, "5e-3"),
                ("LoRA", 1, 0.0),
                ("LoRA", 1, -5e-3),
                ("LoRA", 1, 10.0),
                ("LoRA", 1, float("nan")),
                ("LoRA", 5e-3, 1),
                ("LoRA", 1),
                (1, "LoRA", 5e-3),
                "LoRA",
                None,
            )
        ),
        *(
            {"phone": _PHONE, "server": server}
            for server in (
                ("adapter", 3, 3e-2),  # 28,768 bytes
                ("adapter", 16, 1e-2),
                ("adapter", 2, 1e-5),
                ("adapter", 2, 5.0),
                ("LoRA", 1, 5e-3),  # 38,912 bytes
                ("full", 1, 1e-3),
                ("prefix", 8, 0.2),  # small, but a cache for each request
                ("prefix", 1, 0.2),
                ("prompt", 31, 0.1),
                ("bitfit", 1, 4e-2),
                ("adapter", 0, 3e-2),
                ("adapter", 2, 0),
                ("adapter", 2, None),
                ("adapter", 2.5, 3e-2),
                ("adapter", 2, 3e-2, 7),
            )
        ),
        {"phone": _SERVER, "server": _PHONE},
        {"phone": _PHONE},
        {"server": _SERVER},
        {"Phone": _PHONE, "Server": _SERVER},
        {},
        [_PHONE, _SERVER],
        (_PHONE, _SERVER),
        lambda: {"phone": _PHONE, "server": _SERVER},
    ],
}
