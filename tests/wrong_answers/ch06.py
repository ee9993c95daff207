"""Wrong answers to the exercises of chapter 06, each with what its reader is told."""

import torch
import torch.nn.functional as F
from torch import nn


def _hits(logits, labels):
    return logits[:, :-1].argmax(-1) == labels[:, 1:], labels[:, 1:] != -100


def _shares(logits, labels):
    hit, graded = _hits(logits, labels)
    return (hit & graded).sum(dim=1) / graded.sum(dim=1)


class _Adapter(nn.Module):
    def __init__(self, features, width):
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)


class _NoResidual(_Adapter):
    def forward(self, x):
        return self.up(F.gelu(self.down(x)))


class _NoGelu(_Adapter):
    def forward(self, x):
        return x + self.up(self.down(x))


class _Relu(_Adapter):
    def forward(self, x):
        return x + self.up(F.relu(self.down(x)))


class _RandomUp(nn.Module):
    def __init__(self, features, width):
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)

    def forward(self, x):
        return x + self.up(F.gelu(self.down(x)))


class _AllZero(_RandomUp):
    def __init__(self, features, width):
        super().__init__(features, width)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class _NoBias(nn.Module):
    def __init__(self, features, width):
        super().__init__()
        self.down = nn.Linear(features, width, bias=False)
        self.up = nn.Linear(width, features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return x + self.up(F.gelu(self.down(x)))


class _Wide(_Adapter):
    def __init__(self, features, width):
        super().__init__(features, features)

    def forward(self, x):
        return x + self.up(F.gelu(self.down(x)))


def _softmax(scores):
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def _attention(*, causal=True, scaled=True, first=True, offset=True):
    def answer(q, k, v, prefix_keys, prefix_values):
        keys = torch.cat((prefix_keys, k) if first else (k, prefix_keys))
        values = torch.cat((prefix_values, v) if first else (v, prefix_values))
        scores = q @ keys.T * (q.shape[-1] ** -0.5 if scaled else 1.0)
        if causal:
            first_later = 1 + (len(prefix_keys) if offset else 0)
            later = torch.ones_like(scores).triu(first_later).bool()
            scores = scores.masked_fill(later, -torch.inf)
        return _softmax(scores) @ values

    return answer


def _two_softmaxes(q, k, v, prefix_keys, prefix_values):
    tokens = _attention()(q, k, v, prefix_keys[:0], prefix_values[:0])
    if len(prefix_keys) == 0:
        return tokens
    return tokens + _softmax(q @ prefix_keys.T * q.shape[-1] ** -0.5) @ prefix_values


def _in_front(prompt, embeddings):
    return torch.cat((prompt.expand(len(embeddings), -1, -1), embeddings), dim=1)


def _ignored(prompt, labels):
    return torch.full((len(labels), len(prompt)), -100)


def _join(*parts):
    return torch.cat(parts, dim=1)


def _right_labels(prompt, labels):
    return _join(_ignored(prompt, labels), labels)


def _labels(form):
    """The right embeddings, with other labels."""
    return lambda prompt, x, labels: (_in_front(prompt, x), form(prompt, labels))


def _behind(prompt, x, labels):
    return _join(x, prompt.expand(len(x), -1, -1)), _join(labels, _ignored(prompt, labels))


def _detached(prompt, x, labels):
    return _in_front(prompt.detach(), x), _right_labels(prompt, labels)


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


WRONG_ANSWERS = {
    "6.1": [
        (lambda z, y: _hits(z, y)[0].all(1), "-100 asks for nothing"),
        (lambda z, y: (_hits(z, y)[0] & _hits(z, y)[1]).any(1), "one right token is not enough"),
        (_shares, "the share of right tokens"),
        (lambda z, y: (_hits(z, y)[0] | ~_hits(z, y)[1]).all(1).float().mean(), "not their mean"),
        (lambda z, y: ((z.argmax(-1) == y) | (y == -100)).all(1), "row t of the logits predicts"),
        (lambda z, y: ~(_hits(z, y)[0] | ~_hits(z, y)[1]).all(1), "where an answer is wrong"),
    ],
    "6.2": [
        (_NoResidual, "the residual is missing"),
        (_NoGelu, "the nonlinearity is missing"),
        (_Relu, "this is ReLU"),
        (_RandomUp, "the output before training"),
        (_AllZero, "nothing can learn"),
        (_NoBias, "the biases are missing"),
        (_Wide, "as wide as the input"),
        (lambda *sizes: nn.Sequential(nn.Linear(*sizes)), "self.down and self.up"),
    ],
    "6.3": [
        (lambda q, k, v, pk, pv: _attention()(q, k, v, pk[:0], pv[:0]), "the prefix is not there"),
        (_attention(causal=False), "the causal mask is missing"),
        (_attention(scaled=False), "divided by the square root"),
        (_attention(offset=False), "counts the prefix as tokens"),
        (_two_softmaxes, "one softmax over prefix and tokens"),
        (_attention(first=False, causal=False), "the causal mask is missing"),
    ],
    "6.4": [
        (_labels(lambda prompt, labels: labels), "the labels are too short"),
        (_labels(lambda prompt, y: _join(0 * _ignored(prompt, y), y)), "0 is a token id"),
        (_labels(lambda prompt, y: _join(y, _ignored(prompt, y))), "the -100 stand behind"),
        (_labels(lambda *x: _right_labels(*x).float()), "wants token ids"),
        (_behind, "the prompt stands behind"),
        (_detached, "no gradient flows"),
        (lambda p, x, y: _in_front(p, x), "return two things"),
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
}
