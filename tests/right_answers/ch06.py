"""Right answers to the exercises of chapter 06, each in another style; written from the statements
alone."""

import math

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


# 6.2
class ZeroUp(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(features, width)
        self.up = nn.Linear(width, features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(F.gelu(self.down(x)))


class ZeroDown(nn.Module):
    """gelu(0) is 0, so a random `up` without its bias adds nothing either."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        for parameter in (self.down.weight, self.down.bias, self.up.bias):
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(F.gelu(self.down(x))) + x


class ModuleGelu(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(in_features=features, out_features=width, bias=True)
        self.activation = nn.GELU()
        self.up = nn.Linear(in_features=width, out_features=features, bias=True)
        with torch.no_grad():
            for parameter in self.up.parameters():
                parameter.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.add(x, self.up(self.activation(self.down(x))))


class HandGelu(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        self.up.weight = nn.Parameter(torch.zeros(features, width))
        self.up.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = x @ self.down.weight.T + self.down.bias
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        return x + inner @ self.up.weight.T + self.up.bias


class SmallDown(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)
        self.up.weight.data.zero_()
        self.up.bias.data.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = x
        x = self.down(x)
        x = F.gelu(x)
        return residual + self.up(x)


# 6.3
def _masked_softmax(q, k, v, prefix_k, prefix_v):
    P, tokens = len(prefix_k), len(q)
    scores = q @ torch.cat((prefix_k, k)).T / q.shape[1] ** 0.5
    hidden = torch.ones(tokens, P + tokens, dtype=torch.bool).triu(1 + P)
    scores = scores.masked_fill(hidden, -torch.inf)
    weights = torch.exp(scores - scores.max(dim=1, keepdim=True).values)
    return weights / weights.sum(dim=1, keepdim=True) @ torch.cat((prefix_v, v))


def _token_by_token(q, k, v, prefix_k, prefix_v):
    rows = []
    for t in range(len(q)):
        keys = torch.cat((prefix_k, k[: t + 1]))
        values = torch.cat((prefix_v, v[: t + 1]))
        weights = (keys @ q[t] / math.sqrt(q.shape[1])).exp()
        rows.append((weights[:, None] * values).sum(dim=0) / weights.sum())
    return torch.stack(rows)


def _through_logsumexp(q, k, v, prefix_k, prefix_v):
    tokens = len(q)
    scores = torch.einsum("ts,ps->tp", q, torch.cat((prefix_k, k))) * q.shape[1] ** -0.5
    causal = torch.ones(tokens, tokens).tril().log()
    scores = scores + torch.cat((torch.zeros(tokens, len(prefix_k)), causal), dim=1)
    weights = (scores - scores.logsumexp(dim=1, keepdim=True)).exp()
    return torch.einsum("tp,ps->ts", weights, torch.cat((prefix_v, v)))


def _two_sums(q, k, v, prefix_k, prefix_v):
    size = q.shape[1]
    tokens = (q @ k.T / size**0.5).exp().tril()
    prefix = (q @ prefix_k.T / size**0.5).exp()
    total = tokens.sum(1) + prefix.sum(1)
    return (tokens @ v + prefix @ prefix_v) / total[:, None]


def _tokens_first(q, k, v, prefix_k, prefix_v):
    scores = torch.cat((q @ k.T, q @ prefix_k.T), dim=1) / torch.tensor(float(q.shape[1])).sqrt()
    seen = torch.cat((torch.ones(len(q), len(q)).tril(), torch.ones(len(q), len(prefix_k))), 1)
    weights = (scores - scores.max()).exp() * seen
    return (weights / weights.sum(-1, keepdim=True)) @ torch.cat((v, prefix_v))


# 6.4
def _by_stacking(prompt, embeddings, labels):
    rows = torch.stack([torch.cat([prompt, row]) for row in embeddings])
    first = torch.full((len(labels), len(prompt)), -100, dtype=labels.dtype)
    return rows, torch.cat([first, labels], dim=1)


def _into_new_tensors(prompt, embeddings, labels):
    (batch, tokens, features), P = embeddings.shape, prompt.shape[0]
    longer = embeddings.new_empty(batch, P + tokens, features)
    longer[:, :P] = prompt
    longer[:, P:] = embeddings
    wanted = labels.new_full((batch, P + tokens), IGNORE_INDEX)
    wanted[:, P:] = labels
    return longer, wanted


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
    "6.2": [ZeroUp, ZeroDown, ModuleGelu, HandGelu, SmallDown],
    "6.3": [_masked_softmax, _token_by_token, _through_logsumexp, _two_sums, _tokens_first],
    "6.4": [
        lambda prompt, embeddings, labels: (
            torch.cat((prompt.expand(len(embeddings), -1, -1), embeddings), dim=1),
            F.pad(labels, (len(prompt), 0), value=IGNORE_INDEX),
        ),
        lambda prompt, embeddings, labels: (
            torch.cat((prompt[None].repeat(len(embeddings), 1, 1), embeddings), dim=1),
            torch.hstack((torch.full((len(labels), len(prompt)), -100), labels)),
        ),
        lambda prompt, embeddings, labels: (
            F.pad(embeddings, (0, 0, len(prompt), 0)) + F.pad(prompt, (0, 0, 0, labels.shape[1])),
            torch.cat((labels.new_full((len(labels), len(prompt)), -100), labels), 1),
        ),
        _by_stacking,
        _into_new_tensors,
    ],
    "6.5": [_if_by_if, _match, _from_modules, _layer_by_layer, _table],
    "6.6": [_probed, _one_input_at_a_time, _least_squares, _additive_first, _with_the_jacobian],
}
