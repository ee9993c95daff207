"""Wrong answers to the exercises of chapter 06, written from the statements alone."""

import torch
import torch.nn.functional as F
from torch import nn

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


# 6.2
class Plain(nn.Module):
    """A right adapter; the classes below change one thing each."""

    def __init__(self, features, width):
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x):
        return x + self.up(F.gelu(self.down(x)))


class BothZero(Plain):
    def __init__(self, features, width):
        super().__init__(features, width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)


class RandomStart(Plain):
    def __init__(self, features, width):
        super().__init__(features, width)
        self.up.reset_parameters()


class RandomBias(Plain):
    def __init__(self, features, width):
        super().__init__(features, width)
        nn.init.normal_(self.up.bias)


class ZeroDownRandomBias(Plain):
    def __init__(self, features, width):
        super().__init__(features, width)
        self.up.reset_parameters()
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)


class AlmostZero(Plain):
    def __init__(self, features, width):
        super().__init__(features, width)
        nn.init.normal_(self.up.weight, std=1e-3)


class DownWithoutBias(Plain):
    def __init__(self, features, width):
        super().__init__(features, width)
        self.down = nn.Linear(features, width, bias=False)


class UpWithoutBias(Plain):
    def __init__(self, features, width):
        super().__init__(features, width)
        self.up = nn.Linear(width, features, bias=False)
        nn.init.zeros_(self.up.weight)


class NamesSwapped(Plain):
    def __init__(self, features, width):
        super().__init__(features, width)
        self.down, self.up = self.up, self.down

    def forward(self, x):
        return x + self.down(F.gelu(self.up(x)))


class Square(Plain):
    def __init__(self, features, width):
        super().__init__(features, features)


class FixedWidth(Plain):
    def __init__(self, features, width):
        super().__init__(features, 16)


class Frozen(Plain):
    def __init__(self, features, width):
        super().__init__(features, width)
        self.requires_grad_(False)


class HalfFrozen(Plain):
    def __init__(self, features, width):
        super().__init__(features, width)
        self.down.requires_grad_(False)


class NoResidual(Plain):
    def forward(self, x):
        return self.up(F.gelu(self.down(x)))


class Relu(Plain):
    def forward(self, x):
        return x + self.up(F.relu(self.down(x)))


class Silu(Plain):
    def forward(self, x):
        return x + self.up(F.silu(self.down(x)))


class Linear(Plain):
    def forward(self, x):
        return x + self.up(self.down(x))


class GeluLast(Plain):
    def forward(self, x):
        return x + F.gelu(self.up(self.down(x)))


class GeluFirst(Plain):
    def forward(self, x):
        return x + self.up(self.down(F.gelu(x)))


class GeluOfAll(Plain):
    def forward(self, x):
        return F.gelu(x + self.up(self.down(x)))


class ResidualTwice(Plain):
    def forward(self, x):
        return x + (x + self.up(F.gelu(self.down(x))))


class OnlyX(Plain):
    def forward(self, x):
        return x


class InPlace(Plain):
    def forward(self, x):
        x += self.up(F.gelu(self.down(x)))
        return x


class Detached(Plain):
    def forward(self, x):
        return x + self.up(F.gelu(self.down(x))).detach()


class InputDetached(Plain):
    def forward(self, x):
        return x.detach() + self.up(F.gelu(self.down(x.detach())))


class Flattened(Plain):
    def forward(self, x):
        x = x.reshape(-1, x.shape[-1])
        return x + self.up(F.gelu(self.down(x)))


class Muted(Plain):
    def forward(self, x):
        return x + 0 * self.up(F.gelu(self.down(x)))


# 6.3
def _weights(scores, hidden):
    scores = scores.masked_fill(hidden, -torch.inf)
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    return weights / weights.sum(1, keepdim=True)


def _prefixed(q, k, v, prefix_k, prefix_v, shift=1, scale=None):
    P, tokens = len(prefix_k), len(q)
    scores = q @ torch.cat((prefix_k, k)).T
    scores = scores / q.shape[1] ** 0.5 if scale is None else scores * scale
    hidden = torch.ones(tokens, P + tokens, dtype=torch.bool).triu(shift + P)
    return _weights(scores, hidden) @ torch.cat((prefix_v, v))


def _library(softmax):
    def answer(q, k, v, prefix_k, prefix_v):
        P, tokens = len(prefix_k), len(q)
        scores = q @ torch.cat((prefix_k, k)).T / q.shape[1] ** 0.5
        scores = scores.masked_fill(
            torch.ones(tokens, P + tokens, dtype=torch.bool).triu(1 + P), -torch.inf
        )
        return softmax(scores) @ torch.cat((prefix_v, v))

    return answer


def _sdpa(q, k, v, prefix_k, prefix_v):
    mask = torch.ones(len(q), len(q) + len(k) + len(prefix_k) - len(q), dtype=torch.bool)
    mask = mask.tril(len(prefix_k))
    return F.scaled_dot_product_attention(
        q, torch.cat((prefix_k, k)), torch.cat((prefix_v, v)), attn_mask=mask
    )


def _zero_instead_of_minus_infinity(q, k, v, prefix_k, prefix_v):
    P, tokens = len(prefix_k), len(q)
    scores = (q @ torch.cat((prefix_k, k)).T / q.shape[1] ** 0.5).tril(P)
    return _weights(scores, torch.zeros(tokens, P + tokens, dtype=torch.bool)) @ torch.cat(
        (prefix_v, v)
    )


def _masked_too_late(q, k, v, prefix_k, prefix_v):
    P = len(prefix_k)
    scores = q @ torch.cat((prefix_k, k)).T / q.shape[1] ** 0.5
    weights = (_weights(scores, scores > torch.inf)).tril(P)
    return weights @ torch.cat((prefix_v, v))


def _over_columns(q, k, v, prefix_k, prefix_v):
    P, _T = len(prefix_k), len(q)
    scores = q @ torch.cat((prefix_k, k)).T / q.shape[1] ** 0.5
    weights = scores.exp().tril(P)
    return weights / weights.sum(0, keepdim=True) @ torch.cat((prefix_v, v))


def _two_softmaxes(q, k, v, prefix_k, prefix_v):
    none = torch.zeros(len(q), len(prefix_k), dtype=torch.bool)
    root = q.shape[1] ** 0.5
    later = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
    return _weights(q @ k.T / root, later) @ v + _weights(q @ prefix_k.T / root, none) @ prefix_v


def _no_prefix(q, k, v, prefix_k, prefix_v):
    return _prefixed(q, k, v, prefix_k[:0], prefix_v[:0])


def _prefix_behind(q, k, v, prefix_k, prefix_v):
    hidden = torch.ones(len(q), len(q) + len(prefix_k), dtype=torch.bool).triu(1)
    scores = q @ torch.cat((k, prefix_k)).T / q.shape[1] ** 0.5
    return _weights(scores, hidden) @ torch.cat((v, prefix_v))


def _q_in_place(q, k, v, prefix_k, prefix_v):
    q /= q.shape[1] ** 0.5
    return _prefixed(q, k, v, prefix_k, prefix_v, scale=1)


def _values_crossed(q, k, v, prefix_k, prefix_v):
    P, tokens = len(prefix_k), len(q)
    scores = q @ torch.cat((prefix_k, k)).T / q.shape[1] ** 0.5
    hidden = torch.ones(tokens, P + tokens, dtype=torch.bool).triu(1 + P)
    return _weights(scores, hidden) @ torch.cat((v, prefix_v))


def _only_tokens_scaled(q, k, v, prefix_k, prefix_v):
    root = q.shape[1] ** 0.5
    return _prefixed(q, k / root, v, prefix_k, prefix_v, scale=1)


# 6.4
def _prompted(prompt, embeddings, labels, first):
    front = prompt.expand(len(embeddings), -1, -1)
    return torch.cat((front, embeddings), dim=1), torch.cat((first, labels), dim=1)


def _ungraded(prompt, labels):
    return torch.full((len(labels), len(prompt)), -100)


def _behind(prompt, embeddings, labels):
    front = prompt.expand(len(embeddings), -1, -1)
    return torch.cat((embeddings, front), 1), torch.cat((labels, _ungraded(prompt, labels)), 1)


def _labels_behind(prompt, embeddings, labels):
    front = prompt.expand(len(embeddings), -1, -1)
    return torch.cat((front, embeddings), 1), torch.cat((labels, _ungraded(prompt, labels)), 1)


def _over_the_first_tokens(prompt, embeddings, labels):
    P, tokens = len(prompt), embeddings.shape[1]
    longer, wanted = _prompted(prompt, embeddings, labels, _ungraded(prompt, labels))
    return longer[:, :tokens], wanted[:, :tokens] if P else wanted


def _only_the_first_row(prompt, embeddings, labels):
    front = torch.zeros(len(embeddings), *prompt.shape)
    front[0] = prompt
    return torch.cat((front, embeddings), 1), F.pad(labels, (len(prompt), 0), value=-100)


def _labels_blanked(prompt, embeddings, labels):
    wanted = F.pad(labels, (len(prompt), 0), value=-100)
    labels[:, 0] = -100
    return _prompted(prompt, embeddings, labels, _ungraded(prompt, labels))[0], wanted


def _shifted(prompt, embeddings, labels):
    longer, wanted = _prompted(prompt, embeddings, labels, _ungraded(prompt, labels))
    return longer, wanted.roll(-1, dims=1)


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
    "6.2": [
        BothZero,
        RandomStart,
        RandomBias,
        ZeroDownRandomBias,
        AlmostZero,
        DownWithoutBias,
        UpWithoutBias,
        NamesSwapped,
        Square,
        FixedWidth,
        Frozen,
        HalfFrozen,
        NoResidual,
        Relu,
        Silu,
        Linear,
        GeluLast,
        GeluFirst,
        GeluOfAll,
        ResidualTwice,
        OnlyX,
        InPlace,
        Detached,
        InputDetached,
        Flattened,
        Muted,
    ],
    "6.3": [
        lambda *given: _prefixed(*given, shift=0),
        lambda *given: _prefixed(*given, shift=2),
        lambda *given: _prefixed(*given, shift=100),
        lambda *given: _prefixed(*given, shift=1 - len(given[3])),
        lambda *given: _prefixed(*given, scale=1),
        lambda *given: _prefixed(*given, scale=1 / given[0].shape[1]),
        lambda *given: _prefixed(*given, scale=(len(given[0]) + len(given[3])) ** -0.5),
        lambda *given: _prefixed(*given, scale=given[0].shape[1] ** 0.5),
        lambda *given: _prefixed(*given).tolist(),
        _library(lambda scores: scores.softmax(dim=-1)),
        _library(lambda scores: torch.softmax(scores, dim=1)),
        _library(lambda scores: F.softmax(scores, dim=-1)),
        _library(nn.Softmax(dim=1)),
        _library(lambda scores: scores.log_softmax(dim=1).exp()),
        _library(lambda scores: torch.special.softmax(scores, 1)),
        _sdpa,
        _zero_instead_of_minus_infinity,
        _masked_too_late,
        _over_columns,
        _two_softmaxes,
        _no_prefix,
        _prefix_behind,
        _q_in_place,
        _values_crossed,
        _only_tokens_scaled,
    ],
    "6.4": [
        lambda prompt, embeddings, labels: _prompted(
            prompt, embeddings, labels, 0 * _ungraded(prompt, labels)
        ),
        lambda prompt, embeddings, labels: _prompted(
            prompt, embeddings, labels, _ungraded(prompt, labels) // 100
        ),
        lambda prompt, embeddings, labels: _prompted(
            prompt, embeddings, labels, -100 * torch.ones(len(labels), len(prompt))
        ),
        lambda prompt, embeddings, labels: (
            _prompted(prompt, embeddings, labels, _ungraded(prompt, labels))[0],
            labels,
        ),
        lambda prompt, embeddings, labels: (
            _prompted(prompt, embeddings, labels, labels)[0],
            _ungraded(torch.zeros(len(prompt) + labels.shape[1]), labels),
        ),
        lambda prompt, embeddings, labels: _prompted(
            prompt.detach(), embeddings, labels, _ungraded(prompt, labels)
        ),
        lambda prompt, embeddings, labels: _prompted(
            torch.tensor(prompt.tolist()), embeddings, labels, _ungraded(prompt, labels)
        ),
        lambda prompt, embeddings, labels: _prompted(
            prompt.flip(0), embeddings, labels, _ungraded(prompt, labels)
        ),
        lambda prompt, embeddings, labels: _prompted(
            prompt.mean(0, keepdim=True), embeddings, labels, _ungraded(prompt[:1], labels)
        ),
        lambda prompt, embeddings, labels: _prompted(
            prompt, embeddings, labels, labels[:, :1].expand(-1, len(prompt))
        ),
        lambda prompt, embeddings, labels: _prompted(
            prompt, embeddings, labels, _ungraded(prompt[1:], labels)
        ),
        lambda prompt, embeddings, labels: tuple(
            part.tolist()
            for part in _prompted(prompt, embeddings, labels, _ungraded(prompt, labels))
        ),
        lambda prompt, embeddings, labels: _prompted(
            prompt, embeddings, labels, _ungraded(prompt, labels)
        )[::-1],
        _behind,
        _labels_behind,
        _over_the_first_tokens,
        _only_the_first_row,
        _labels_blanked,
        _shifted,
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
}
