"""Right answers to the exercises of chapter 06, each in another style; written from the statements
alone."""

import torch
import torch.nn.functional as F
from torch import nn

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
}
