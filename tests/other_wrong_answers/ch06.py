"""Wrong answers to the exercises of chapter 06, written from the statements alone."""

import torch

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
}
