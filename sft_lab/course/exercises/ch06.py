"""Checks of chapter 06, adapters, prefixes, and what to choose."""

import operator
import random
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from sft_lab.course.exercises.kit import (
    Case,
    Hints,
    Mistake,
    checks,
    named,
    need_dtype,
    need_gradient,
    need_tensor,
    normal,
    same,
    same_for_all,
    same_in_all,
    unpack,
    without,
)
from sft_lab.examples import IGNORE_INDEX


@checks("6.1")
def right_answers(attempt: Callable) -> str:
    def judged(logits, labels, graded=lambda targets: targets != IGNORE_INDEX):
        targets = labels[:, 1:]
        return logits[:, :-1].argmax(dim=-1) == targets, graded(targets)

    def right(logits, labels):
        hit, graded = judged(logits, labels)
        return (hit | ~graded).all(dim=1)

    def share(logits, labels):
        hit, graded = judged(logits, labels)
        return (hit & graded).sum(dim=1) / graded.sum(dim=1)

    def any_hit(logits, labels):
        hit, graded = judged(logits, labels)
        return (hit & graded).any(dim=1)

    def not_shifted(logits, labels):
        return ((logits.argmax(dim=-1) == labels) | (labels == IGNORE_INDEX)).all(dim=1)

    def without_zero(logits, labels):
        hit, graded = judged(logits, labels, lambda targets: targets > 0)
        return (hit | ~graded).all(dim=1)

    def likely(logits, labels):
        targets = labels[:, 1:, None]
        chance = logits[:, :-1].softmax(dim=-1).gather(-1, targets.clamp(min=0))
        return ((chance > 0.5) | (targets == IGNORE_INDEX)).all(dim=1)[:, 0]

    mistakes = [
        (likely, "greedy decoding takes the best token, however small its probability"),
        (lambda *given: judged(*given)[0].all(dim=1), "a label of -100 asks for nothing"),
        (not_shifted, "row t of the logits predicts token t + 1"),
        (any_hit, "one right token is not enough: all graded tokens of the row must be right"),
        (
            share,
            "this is the share of right tokens of each row: an answer is right when all of them "
            "are",
        ),
        (
            lambda *given: right(*given).float().mean(),
            "return one truth value for each row, not their mean",
        ),
        (lambda *given: ~right(*given), "this is True where an answer is wrong"),
        (without_zero, "token id 0 is a token like any other"),
    ]
    inputs = [_graded_rows() for _ in range(3)]

    def form(found):
        if not torch.is_tensor(found):
            raise Mistake(f"your answer is a {type(found).__name__}, expected a tensor")
        return found

    same_for_all(attempt, inputs, right, mistakes, form=form)
    need_dtype(attempt(*inputs[0]), torch.bool, "your answer", "one truth value for each row")
    return "one wrong graded token spoils its row; prompt, padding and the last logits do not count"


def _graded_rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (all negative) and labels of nine rows: wrong in the first token that can be graded,
    in the last, in the middle, where the token is 0, in two that changed places, and in the only
    one; and three right ones, one with nothing but token 0 as its answer, one graded from its first
    token on, and one that is sure.

    Elsewhere the best token has a probability of about a third, and the second best nearly as much:
    the label where the best is wrong. Where nothing is graded the best token is any but 0."""
    length, size = random.randint(12, 14), random.randint(16, 20)
    labels = torch.randint(1, size, (9, length))
    starts = [0, length - 4, 3, 5, 0, 6, length - 3, 4, 5]
    ends = [length - 1, length, length - 2, length, length, length - 1, length - 2, length, 6]
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        labels[row, :start] = labels[row, end:] = IGNORE_INDEX
    labels[3, 7] = labels[4, 6] = labels[6, length - 3] = 0
    labels[7, 6], labels[7, 8] = random.sample(range(1, size), 2)
    while (labels[:, 1:] != IGNORE_INDEX).sum() % 9 == 0:  # no reshaping into equal rows
        labels[5, (labels[5] != IGNORE_INDEX).nonzero()[0]] = IGNORE_INDEX
    targets = labels[:, 1:]
    best = torch.where(targets == IGNORE_INDEX, torch.randint_like(targets, 1, size), targets)
    second = (best + torch.randint_like(best, 1, size)) % size
    wrong = torch.tensor([0, 1, 2, 3, 8]), torch.tensor([1, length - 1, 6, 7, 5]) - 1
    best[wrong], second[wrong] = second[wrong], targets[wrong]
    best[8, 4] = 0
    for place, other in ((6, 8), (8, 6)):
        best[7, place - 1], second[7, place - 1] = targets[7, other - 1], targets[7, place - 1]
    logits = 0.2 * torch.rand(9, length, size) - 60.0
    logits[:, :-1] += 2.7 * F.one_hot(best, size) + 2.4 * F.one_hot(second, size)
    logits[5, :-1] += 20.0 * F.one_hot(best[5], size)
    logits[4, -1, (labels[4, 0] + 1) % size] += 2.7  # the last row of logits says something else
    order = torch.randperm(9)
    return logits[order], labels[order]


@checks("6.2")
def adapter(attempt: type) -> str:
    counts, starts, outputs = [], [], []
    for width in random.sample((2, 3, 4), 2):
        features = random.randint(7, 10)
        made, given = attempt(features, width), f"features = {features}, width = {width}"
        if not isinstance(made, nn.Module):
            raise Mistake("write a class that derives from nn.Module")
        if not all(isinstance(getattr(made, name, None), nn.Linear) for name in ("down", "up")):
            raise Mistake("call the two linear layers self.down and self.up")
        hints = [
            (2 * features * width, "the biases are missing: nn.Linear has one by default"),
            (
                2 * features * features + 2 * features,
                "the middle is as wide as the input: it should have `width` numbers",
            ),
        ]
        trained = sum(part.numel() for part in made.parameters() if part.requires_grad)
        counts.append(Case(trained, 2 * features * width + features + width, hints, given))
        x = torch.randn(3, 5, features)
        hints = [(torch.zeros_like(x), "the residual is missing: add x to what comes out of `up`")]
        starts.append(Case(_run(made, x), x, hints, given))
    same_in_all(counts, what="the number of trained parameters")
    same_in_all(starts, what="the output before training", rtol=0.0)
    for width in (2, 4):
        outputs += _random_outputs(attempt(9, width))
    same_in_all(outputs[::2], what="the output with random weights")
    same_in_all(outputs[1::2], what="the gradient of x", atol=1e-5)
    fresh = attempt(9, 3)
    fresh(torch.randn(6, 9)).square().sum().backward()
    gradients = [layer.weight.grad for layer in (fresh.down, fresh.up)]
    if not any(gradient is not None and gradient.any() for gradient in gradients):
        raise Mistake(
            "with these initial values nothing can learn: no gradient reaches a matrix; one of the "
            "two must start random"
        )
    return "x + up(gelu(down(x))); starts as x, and its first gradient is not zero"


def _run(made: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The output; Mistake when x is changed in place."""
    given = x.detach().clone()
    found = need_tensor(made(given), "the output")
    if not torch.equal(given, x):
        raise Mistake("your adapter changed `x` in place: write x + …, not x += …")
    return found


def _random_outputs(made: nn.Module) -> Iterator[Case]:
    """Output and gradient of x when all weights are random."""
    down, up = made.down, made.up
    if down.weight.shape != up.weight.T.shape or down.in_features != 9:
        raise Mistake("`down` leads from `features` to `width` numbers, and `up` back")
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 5, 9, requires_grad=True)
    _run(made, x.detach())
    inner = down(x)
    update = up(F.gelu(inner))
    hints = [
        (x + up(inner), "the nonlinearity is missing: without GELU, two linears are one"),
        (x + F.gelu(up(inner)), "GELU stands between the two layers, not after them"),
        (x + up(F.relu(inner)), "this is ReLU: the chapter uses GELU"),
        (update, "the residual is missing: add x to what comes out of `up`"),
        (F.gelu(x) + update, "the residual must be x itself"),
    ]
    found = need_gradient(made(x), "the adapter")
    yield Case(found, x + update, hints)
    yield Case(
        *(torch.autograd.grad(y.sum(), x, materialize_grads=True)[0] for y in (found, x + update))
    )


@checks("6.3")
def prefix_attention(attempt: Callable) -> str:
    inputs = []
    for length, positions in ((5, 2), (4, 3), (1, 2), (6, 0)):
        size = random.randint(9, 12)
        tokens = [normal(length, size) for _ in range(3)]
        inputs.append((*tokens, normal(positions, size), normal(positions, size)))
    attend = F.scaled_dot_product_attention

    def head(visible: Callable, scale: float | None = None) -> Callable:
        def output(q, k, v, prefix_k, prefix_v):
            keys, values = torch.cat((prefix_k, k)), torch.cat((prefix_v, v))
            return attend(q, keys, values, visible(len(q), len(prefix_k)), scale=scale)

        return output

    def shown(length, positions):
        return torch.ones(length, positions + length).tril(positions).bool()

    def as_tokens(length, positions):
        return torch.ones(length, positions + length).tril().bool()

    def alone(q, k, v, prefix_k, prefix_v):
        return head(shown)(q, k, v, prefix_k[:0], prefix_v[:0])

    def behind(q, k, v, prefix_k, prefix_v):
        keys, values = torch.cat((k, prefix_k)), torch.cat((v, prefix_v))
        return attend(q, keys, values, shown(len(q), len(prefix_k)))

    def two_softmaxes(q, k, v, prefix_k, prefix_v):
        found = alone(q, k, v, prefix_k, prefix_v)
        return found + attend(q, prefix_k, prefix_v) if len(prefix_k) else found

    mistakes = [
        (alone, "the prefix is not there: its keys and values join those of the tokens"),
        (
            head(lambda length, positions: None),
            "the causal mask is missing: no token sees later tokens",
        ),
        (
            head(shown, scale=1.0),
            "scores are divided by the square root of the head's size",
        ),
        (
            head(as_tokens),
            "the mask counts the prefix as tokens: every token sees all of the prefix, and tokens "
            "up to itself",
        ),
        (behind, "the prefix stands in front, and the mask with it"),
        (two_softmaxes, "one softmax over prefix and tokens together, not one each"),
    ]

    def by_hand(*given):
        with without(*SOFTMAXES, why="write it with exp and sum"):
            return attempt(*given)

    what = "the output of the head"
    same_for_all(by_hand, inputs, head(shown), mistakes, form=need_tensor, what=what)
    return "equals scaled_dot_product_attention; the whole prefix is visible, later tokens are not"


SOFTMAXES = ("softmax", "_softmax", "softmin", "log_softmax", "_log_softmax")
SOFTMAXES += ("scaled_dot_product_attention", "multi_head_attention_forward")


@checks("6.4")
def put_prompt_in_front(attempt: Callable) -> str:
    longer, targets = [], []
    for rows, positions in ((3, 2), (1, 4), (4, 3)):
        length, width = random.randint(5, 7), random.randint(7, 9)
        prompt = torch.randn(positions, width, requires_grad=True)
        embeddings = torch.randn(rows, length, width)
        labels = torch.randint(5, 40, (rows, length))
        labels[0, :2], labels[-1, 1], labels[-1, -1] = IGNORE_INDEX, 0, IGNORE_INDEX
        labels[-1, 0] = 7  # graded from the first token on
        found = unpack(attempt(prompt, embeddings, labels), "the embeddings", "the labels")
        need_tensor(found[0], "the first of the two, the embeddings,")
        need_gradient(found[0], "the embeddings")
        (gradient,) = torch.autograd.grad(found[0].sum(), prompt, materialize_grads=True)
        prompts = prompt.detach().expand(rows, -1, -1)
        given = f"{rows} rows of {length} tokens and a prompt of {positions}"
        hints = [
            (
                torch.cat((embeddings, prompts), dim=1),
                "the prompt stands behind: with a causal mask nothing that is graded could see it",
            ),
            (embeddings, "no prompt is there"),
        ]
        expected = torch.cat((prompts, embeddings), dim=1)
        longer.append(Case(found[0], expected, hints, given))
        targets.append(_label_case(found[1], labels, positions, given))
    same_in_all(longer, what="the tensor of embeddings")
    same(gradient, torch.full_like(prompt, rows), what="the gradient of the prompt, from all rows,")
    same_in_all(targets, what="the tensor of labels")
    need_dtype(found[1], torch.long, "the labels", "cross_entropy wants token ids")
    return "the prompt is in front of every row, never graded, and learns from all rows"


def _label_case(found: object, labels: torch.Tensor, positions: int, given: str) -> Case:
    ignored = labels.new_full((len(labels), positions), IGNORE_INDEX)
    hints = [
        (labels, "the labels are too short: every position needs one, and the prompt's are -100"),
        (
            torch.cat((0 * ignored, labels), dim=1),
            "0 is a token id and would be graded: the prompt's labels are -100",
        ),
        (
            torch.cat((labels, ignored), dim=1),
            "the -100 stand behind: labels and embeddings must stay side by side",
        ),
    ]
    if not torch.is_tensor(found):
        raise Mistake(f"the labels are a {type(found).__name__}, expected a tensor")
    return Case(found, torch.cat((ignored, labels), dim=1), hints, given)


@checks("6.5")
def count_trained(attempt: Callable) -> str:
    cases: dict[str, list[Case]] = {}
    for layers, kv_heads, width in random.sample([(3, 2, 28), (4, 3, 44), (5, 2, 36)], 2):
        size = random.randint(3, 7)
        config = Qwen3Config(
            num_hidden_layers=layers,
            hidden_size=width,
            intermediate_size=random.choice([46, 52]),
            num_attention_heads=2 * kv_heads,
            num_key_value_heads=kv_heads,
            head_dim=random.choice([6, 10]),
        )
        for method, (expected, hints) in _counts(config, size).items():
            with named(TypeError, f"{method}: the count is a whole number: return an int"):
                found = operator.index(attempt(method, size, config))
            given = f"size = {size}, {layers} layers of width {width}"
            cases.setdefault(method, []).append(Case(found, expected, hints, given))
    for method, of_method in cases.items():
        same_in_all(of_method, what=f"{method}: the count")
    return "equal for five methods at random shapes with grouped key-value heads"


def _counts(config: Qwen3Config, size: int) -> dict[str, tuple[int, Hints]]:
    """What each method trains, and what usual mistakes count."""
    with torch.device("meta"):  # a real decoder layer, without its weights
        layer = Qwen3DecoderLayer(config, layer_idx=0)
    linears = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    inputs = sum(linear.in_features for linear in linears)
    outputs = sum(linear.out_features for linear in linears)
    weights = sum(linear.weight.numel() for linear in linears)
    layers, width = config.num_hidden_layers, config.hidden_size
    keys, queries = layer.self_attn.k_proj.out_features, layer.self_attn.q_proj.out_features
    one_adapter = 2 * width * size + size + width
    one_layer = "this is one decoder layer; there are several"
    heads = "keys and values have num_key_value_heads heads, not num_attention_heads"
    lora = [
        (layers * size * weights, "rank · (in + out), not in · out"),
        (size * (inputs + outputs), one_layer),
    ]
    adapter = [
        (layers * one_adapter, "two in every layer, one behind each half"),
        (layers * 4 * width * size, "its two linear layers have biases"),
        (2 * one_adapter, one_layer),
    ]
    prefix = [
        (layers * keys * size, "a key and a value for each position"),
        (layers * 2 * queries * size, heads),
        (layers * 2 * width * size, "keys are num_key_value_heads · head_dim wide, not D"),
        (2 * keys * size, "every layer has its own"),
    ]
    prompt = [(layers * size * width, "it stands once, before the first layer")]
    biases = [
        (layers * inputs, "a bias has one number for each output"),
        (outputs, one_layer),
    ]
    counts = {
        "LoRA": (layers * size * (inputs + outputs), lora),
        "adapter": (layers * 2 * one_adapter, adapter),
        "prefix": (layers * 2 * keys * size, prefix),
        "prompt": (size * width, prompt),
        "BitFit": (layers * outputs, biases),
    }
    return {
        method: (count, [(wrong, f"{method}: {mistake}") for wrong, mistake in hints])
        for method, (count, hints) in counts.items()
    }


@checks("6.6")
def merge_into_linear(attempt: Callable) -> str:
    features = random.randint(4, 6)
    for outputs in (features, features + 3):  # a square weight hides a transpose from its shape
        affine, bent = _parts(features, outputs)
        biases, merged = [], []
        for name, part in affine.items():
            weight, bias = unpack(attempt(part, features), "weight", "bias")
            need_tensor(bias, "the bias")
            shape = tuple(need_tensor(weight, "the weight").shape)
            if shape != (outputs, features):
                raise Mistake(f"the weight has shape {shape}, expected (out, in), PyTorch's order")
            x = torch.randn(20, features)
            at_zero, expected = part(torch.zeros(1, features))[0], part(x)
            right = (part(torch.eye(features)) - at_zero).T
            left_on = expected + at_zero * x.sum(dim=1, keepdim=True)
            hints = [(left_on, "take the bias off before you read the weight")]
            if outputs == features:
                turned = F.linear(x, right.T, at_zero)
                hints.append((turned, "the weight is transposed: PyTorch stores (out, in)"))
            biases.append(Case(bias, at_zero, [], name))
            merged.append(Case(F.linear(x, weight, at_zero), expected, hints, name))
        same_in_all(biases, what="the bias", atol=1e-4)
        same_in_all(merged, what="the merged layer's output", atol=1e-4)
        for name, part in bent.items():
            try:
                found = attempt(part, features)
            except ValueError:
                continue
            if isinstance(found, Exception):
                raise Mistake("this returns the error: raise it")
            unpack(found, "weight", "bias")
            raise Mistake(
                f"{name} was merged, and no weight and bias compute it: test on random inputs, "
                "then raise ValueError"
            )
    return "LoRA and biases merge into (weight, bias); what is not affine is refused"


def _parts(features: int, outputs: int) -> tuple[dict[str, Callable], dict[str, Callable]]:
    """Layers that one weight and one bias can replace, and layers that none can: some of these are
    linear on positive inputs, on multiples of an input, on −x, or on one input at a time, and some
    differ from the linear layer by little."""
    weight, bias = torch.randn(outputs, features), torch.randn(outputs)
    down, up = torch.randn(2, features), torch.randn(outputs, 2)
    small, shift = 0.03 * torch.randn(outputs, features), torch.randn(outputs)

    def base(x):
        return F.linear(x, weight, bias)

    affine = {
        "a LoRA layer": lambda x: base(x) + x @ (up @ down).T,
        "a layer with a learned bias": lambda x: base(x) + shift,
        "a layer without a bias": lambda x: x @ weight.T,
    }
    bent = {
        "an adapter with GELU": lambda x: base(x) + F.gelu(x @ down.T) @ up.T,
        "|Wx + b|": lambda x: base(x).abs(),
        "W|x| + b": lambda x: base(x.abs()),
        "ReLU(Wx)": lambda x: (x @ weight.T).relu(),
        "Wx + b + U tanh(Dx)": lambda x: base(x) + (x @ down.T).tanh() @ up.T,
        "Wx + b + x₀ x₁": lambda x: base(x) + x[:, :1] * x[:, 1:2],
        "0.03 |Wx|": lambda x: (x @ small.T).abs(),
        "Wx · (1 + 0.4 tanh x₀x₁)": lambda x: (
            (x @ weight.T) * (1 + 0.4 * (x[:, :1] * x[:, 1:2]).tanh())
        ),
    }
    return affine, bent
