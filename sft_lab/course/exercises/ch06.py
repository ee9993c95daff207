"""Checks of chapter 06, adapters, prefixes, and what to choose."""

import contextlib
import io
import operator
import random
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from sft_lab.adapters import METHODS, SIZE_NAMES
from sft_lab.costs import method_cost
from sft_lab.course.exercises.kit import (
    Case,
    Hints,
    Mistake,
    checks,
    named,
    need_dtype,
    need_gradient,
    need_number,
    need_tensor,
    need_whole,
    same_for_all,
    same_in_all,
    unpack,
)
from sft_lab.course.part_runs import Task, build, give_stop_a_row, load_task, share_right, tune
from sft_lab.examples import IGNORE_INDEX
from sft_lab.models import load


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


# 6.7


@checks("6.7")
def insert_adapters(attempt: Callable) -> str:
    counts, starts, outputs, slopes = [], [], [], []
    for layers, width in ((2, 3), (3, 2)):
        base, input_ids = _tiny_model(layers), torch.randint(1, 40, (3, 6))
        features = base.config.hidden_size
        given = f"{layers} layers, D = {features}, width = {width}"
        made = attempt(base, width)
        if not isinstance(made, Qwen3ForCausalLM):
            raise Mistake(f"return the model, not a {type(made).__name__}")
        parts = _find_adapters(made, features, width, given)
        one = 2 * features * width + features + width
        own = sum(parameter.numel() for parameter in base.parameters())
        head = base.get_output_embeddings().weight.numel()
        norms = sum(p.numel() for name, p in base.named_parameters() if "norm" in name)
        hints = [
            (2 * layers * one + own, "nothing is frozen: only the adapters are to be trained"),
            (2 * layers * one + head, "embedding table and head are not frozen"),
            (2 * layers * one + norms, "the norms are not frozen"),
            (layers * one, "one adapter a layer: there are two places in each"),
            (one, "one adapter for the whole model: every place has one of its own"),
            (7 * layers * one, "an adapter behind every linear layer: there are two places"),
            (0, "nothing is left to train: freeze first, then add the adapters"),
        ]
        trained = sum(p.numel() for p in made.parameters() if p.requires_grad)
        counts.append(Case(trained, 2 * layers * one, hints, given))
        with torch.no_grad():
            before = base(input_ids=input_ids).logits
        after = made(input_ids=input_ids).logits
        starts.append(Case(after, before, [], given))
        _need_adapter_gradients(parts, after, given)
        weights = _random_adapter(features, width)
        for part in parts:
            part.load_state_dict({**part.state_dict(), **weights})
        found = made(input_ids=input_ids).logits
        expected = _with_adapters(base, input_ids, weights)
        slopes += _slopes_of_adapters(parts, weights, found, expected, given)
        with torch.no_grad():
            hints = [
                (_with_adapters(base, input_ids, weights, **other), mistake)
                for other, mistake in ADAPTER_MISTAKES
            ]
        outputs.append(Case(found.detach(), expected.detach(), hints, given))
    same_in_all(counts, what="the number of trained parameters")
    same_in_all(starts, what="a logit before training", rtol=1e-3, atol=1e-4)
    same_in_all(outputs, what="a logit with random adapters", rtol=1e-3, atol=1e-4)
    same_in_all(slopes, what="the gradient of the random adapters", rtol=1e-3, atol=1e-4)
    return (
        "two adapters a layer, nothing else trained, step 0 unchanged, and outputs as they must be"
    )


ADAPTER_MISTAKES = (
    ({"form": lambda h, inner, up: h + up(inner)}, "the nonlinearity is missing: gelu"),
    ({"form": lambda h, inner, up: h + up(F.relu(inner))}, "this is ReLU: the adapter has gelu"),
    ({"form": lambda h, inner, up: h + F.gelu(up(inner))}, "gelu stands between down and up"),
    ({"form": lambda h, inner, up: up(F.gelu(inner))}, "the residual is missing: h + up(…)"),
    ({"form": lambda h, inner, up: h}, "the adapters are there, and nothing passes through them"),
    ({"places": ("o_proj",)}, "nothing passes through the adapters behind down_proj"),
    ({"places": ("down_proj",)}, "nothing passes through the adapters behind o_proj"),
    ({"stream": True}, "h is what the matrix gives, before it is added to the stream"),
    ({"in_front": True}, "the adapter stands behind the matrix, not in front of it"),
)


def _tiny_model(layers: int) -> Qwen3ForCausalLM:
    """A Qwen3 model of random weights in eval mode; o_proj and down_proj are square, so that an
    adapter fits in front of them as well."""
    config = Qwen3Config(
        vocab_size=40,
        num_hidden_layers=layers,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    return Qwen3ForCausalLM(config).eval()


def _find_adapters(model: nn.Module, features: int, width: int, given: str) -> list[nn.Module]:
    """The modules with two linear layers `down` and `up`, each of the right form."""
    parts = [
        module
        for module in model.modules()
        if all(isinstance(getattr(module, name, None), nn.Linear) for name in ("down", "up"))
    ]
    if not parts:
        raise Mistake(
            "no module of the model has linear layers self.down and self.up: is the adapter "
            "a module of the model?"
        )
    for part in parts:
        for name, shape in (("down", (width, features)), ("up", (features, width))):
            layer = getattr(part, name)
            if tuple(layer.weight.shape) != shape:
                turned = tuple(layer.weight.shape)
                raise Mistake(f"the weight of `{name}` has shape {turned}, not {shape}; {given}")
            if layer.bias is None:
                raise Mistake(f"`{name}` has no bias: nn.Linear has one by default")
    return parts


def _need_adapter_gradients(parts: Sequence[nn.Module], logits: torch.Tensor, given: str) -> None:
    """Mistake unless the first gradient moves a matrix of every adapter."""
    if logits.requires_grad:
        (logits * torch.randn_like(logits)).sum().backward()
    for part in parts:
        gradients = [layer.weight.grad for layer in (part.down, part.up)]
        if not any(gradient is not None and gradient.any() for gradient in gradients):
            raise Mistake(
                "no gradient reaches a matrix of an adapter: are both of its matrices 0, is it "
                f"frozen, or is it called at all? ({given})"
            )


def _slopes_of_adapters(
    parts: Sequence[nn.Module],
    weights: dict[str, torch.Tensor],
    found: torch.Tensor,
    expected: torch.Tensor,
    given: str,
) -> list[Case]:
    """The gradients of one and the same mixture of logits, summed over the adapters, whose weights
    are equal; none where something is frozen, which the count says."""
    owned = [dict(part.named_parameters()) for part in parts]
    if not all(own[name].requires_grad for own in owned for name in weights):
        return []
    mixture = torch.randn_like(expected)
    slopes = torch.autograd.grad((expected * mixture).sum(), list(weights.values()))
    cases = []
    for name, slope in zip(weights, slopes, strict=True):
        own = torch.autograd.grad(
            (found * mixture).sum(),
            [own[name] for own in owned],
            retain_graph=True,
            materialize_grads=True,
        )
        cases.append(Case(sum(own) / slope.norm(), slope / slope.norm(), [], f"{name}, {given}"))
    return cases


def _random_adapter(features: int, width: int) -> dict[str, torch.Tensor]:
    drawn = {
        "down.weight": torch.randn(width, features),
        "down.bias": torch.randn(width),
        "up.weight": 0.5 * torch.randn(features, width),
        "up.bias": 0.5 * torch.randn(features),
    }
    return {name: numbers.requires_grad_() for name, numbers in drawn.items()}


def _with_adapters(
    base: Qwen3ForCausalLM,
    input_ids: torch.Tensor,
    weights: dict[str, torch.Tensor],
    *,
    form: Callable = lambda h, inner, up: h + up(F.gelu(inner)),
    places: Sequence[str] = ("o_proj", "down_proj"),
    stream: bool = False,
    in_front: bool = False,
) -> torch.Tensor:
    """Logits of the model with one and the same adapter at all places, put there by hooks."""

    def adapt(h: torch.Tensor) -> torch.Tensor:
        inner = F.linear(h, weights["down.weight"], weights["down.bias"])
        return form(h, inner, lambda x: F.linear(x, weights["up.weight"], weights["up.bias"]))

    handles = []
    for layer in base.model.layers:
        matrices = {"o_proj": layer.self_attn.o_proj, "down_proj": layer.mlp.down_proj}
        if stream:  # what follows the sum: the second norm's input, and the layer's output
            before_norm = layer.post_attention_layernorm.register_forward_pre_hook(
                lambda module, inputs: (adapt(inputs[0]),)
            )
            behind = layer.register_forward_hook(
                lambda module, inputs, output: (
                    (adapt(output[0]), *output[1:]) if isinstance(output, tuple) else adapt(output)
                )
            )
            handles += [before_norm, behind]
            continue
        for place in places:
            if in_front:
                hook = matrices[place].register_forward_pre_hook(
                    lambda module, inputs: (adapt(inputs[0]),)
                )
            else:
                hook = matrices[place].register_forward_hook(
                    lambda module, inputs, output: adapt(output)
                )
            handles.append(hook)
    try:
        return base(input_ids=input_ids).logits
    finally:
        for handle in handles:
            handle.remove()


# 6.8


@checks("6.8")
def logits_behind(attempt: Callable) -> str:
    shown, drawn, trained = [], [], []
    for layers, rows, positions in ((2, 3, 2), (3, 2, 5), (2, 1, 1)):
        model = _tiny_model(layers)
        input_ids = torch.randint(1, 40, (rows, random.randint(4, 6)))
        front = torch.randint(1, 40, (1, positions))
        given = f"{layers} layers, {rows} rows, a prefix of {positions}"
        with torch.no_grad():
            cache = model(front, use_cache=True).past_key_values
            both = torch.cat((front.expand(rows, -1), input_ids), dim=1)
            expected = model(both).logits[:, positions:]
        of_tokens = torch.stack([torch.cat((one.keys, one.values)) for one in cache.layers])
        shown.append(_prefix_case(attempt, model, of_tokens, input_ids, expected, given))
        numbers = torch.randn_like(of_tokens)
        expected = _behind(model, numbers, input_ids).detach()
        drawn.append(_prefix_case(attempt, model, numbers, input_ids, expected, given))
        trained.append((model, numbers, input_ids))
    same_in_all(shown, what="a logit behind the keys and values of tokens", rtol=1e-3, atol=1e-4)
    same_in_all(drawn, what="a logit behind a random prefix", rtol=1e-3, atol=1e-4)
    slopes = (_slopes_of_prefix(attempt, *given) for given in trained)
    same_in_all(slopes, what="the gradient with respect to keys_values", rtol=1e-3, atol=1e-4)
    return "behind the keys and values of tokens as behind the tokens; the prefix gets a gradient"


def _slopes_of_prefix(
    attempt: Callable,
    model: Qwen3ForCausalLM,
    numbers: torch.Tensor,
    input_ids: torch.Tensor,
) -> Case:
    """The gradient of one and the same mixture of logits, both scaled by the length of the right
    one."""
    numbers.requires_grad_(True)
    found = need_gradient(attempt(model, numbers, input_ids), "the prefix")
    expected = _behind(model, numbers, input_ids)
    weights = torch.randn_like(expected)
    slope, right = (
        torch.autograd.grad((logits * weights).sum(), numbers, allow_unused=True)[0]
        for logits in (found, expected)
    )
    if slope is None:
        raise Mistake("no gradient reaches keys_values: use its numbers, not a copy of them")
    return Case(slope / right.norm(), right / right.norm())


def _behind(
    model: Qwen3ForCausalLM, keys_values: torch.Tensor, input_ids: torch.Tensor, **other: Any
) -> torch.Tensor:
    cache = DynamicCache(config=model.config)
    for layer, (keys, values) in enumerate(keys_values):
        rows = [numbers.expand(len(input_ids), -1, -1, -1) for numbers in (keys, values)]
        cache.update(*rows, layer)
    return model(input_ids=input_ids, past_key_values=cache, **other).logits


def _prefix_case(
    attempt: Callable,
    model: Qwen3ForCausalLM,
    keys_values: torch.Tensor,
    input_ids: torch.Tensor,
    expected: torch.Tensor,
    given: str,
) -> Case:
    found = need_tensor(attempt(model, keys_values, input_ids), "the answer")
    first, last = keys_values.clone(), keys_values.clone()
    first[1:], last[:-1] = first[:1], last[-1:]
    with torch.no_grad():
        from_zero = torch.arange(input_ids.shape[1])[None]
        hints = [
            (model(input_ids).logits, "no prefix is there: the model read the rows alone"),
            (
                _behind(model, keys_values.flip(1), input_ids),
                "keys and values changed places: keys_values[layer, 0] are the keys",
            ),
            (
                _behind(model, keys_values, input_ids, position_ids=from_zero),
                "the tokens stand behind the prefix: their positions begin at P, not at 0",
            ),
            (_behind(model, first, input_ids), "every layer has keys and values of its own"),
            (_behind(model, last, input_ids), "every layer has keys and values of its own"),
        ]
    return Case(found, expected, hints, given)


# 6.9

PHONE_BYTES, SERVER_BYTES, ASKED_SHARE, DESIGN_SEED = 40_000, 24_000, 0.85, 7


@checks("6.9")
def plans(attempt: object) -> str:
    if not isinstance(attempt, dict) or set(attempt) != {"phone", "server"}:
        raise Mistake('plans is a dict with the keys "phone" and "server"')
    found = {place: _read_plan(place, plan) for place, plan in attempt.items()}
    _need_phone(*found["phone"][:2])
    _need_server(*found["server"][:2])
    shares = {place: _share_of(*plan) for place, plan in found.items()}
    for place, share in shares.items():
        method, size, rate = found[place]
        if share < ASKED_SHARE:
            raise Mistake(
                f"{place}: {method} of size {size} at rate {rate:g} answers {share:.0%} of the "
                f"held-out questions, asked are {ASKED_SHARE:.0%}: try rates three times higher "
                "and lower, and another method if none gets there"
            )
    return ", ".join(f"{place}: {share:.0%} right" for place, share in shares.items())


def _read_plan(place: str, plan: object) -> tuple[str, int, float]:
    """Method, size and rate of a plan, in their right types."""
    method, size, rate = unpack(plan, "method", "size", "learning rate")
    if method not in METHODS:
        raise Mistake(f"{place}: there is no method {method!r}; there are {', '.join(METHODS)}")
    rate = need_number(rate, f"{place}: the learning rate")
    if not 0 < rate < 10:
        raise Mistake(f"{place}: the learning rate is {rate:g}: above 0, and below 10")
    if method in SIZE_NAMES:
        size = need_whole(size, f"{place}: the size", low=1, high=512)
    return method, size if method in SIZE_NAMES else 1, rate


def _need_phone(method: str, size: int) -> None:
    """Mistake unless the part can be merged into the base and its file is small."""
    if method not in ("full", "LoRA"):
        raise Mistake(f"phone: no weight of a plain Qwen3 can hold what {method} adds")
    _need_bytes("phone", method, size, PHONE_BYTES)


def _need_server(method: str, size: int) -> None:
    """Mistake unless the part stays apart, is small, and takes no cache."""
    if method == "full":
        raise Mistake("server: full tuning has no part that is kept apart from the weights")
    if method_cost(method, size, _task_and_base()[1].config).cache_bytes:
        raise Mistake(f"server: every request pays cache for a {method}")
    _need_bytes("server", method, size, SERVER_BYTES)


def _need_bytes(place: str, method: str, size: int, most: int) -> None:
    needed = method_cost(method, size, _task_and_base()[1].config).file_bytes
    if needed > most:
        raise Mistake(
            f"{place}: {method} of size {size} takes {needed:,} bytes, the brief allows {most:,}"
        )


@cache
def _task_and_base() -> tuple[Task, PreTrainedModel]:
    with contextlib.redirect_stdout(io.StringIO()):  # the line that says where the model is
        base, tokenizer = load("atlas-base")
    give_stop_a_row(base, tokenizer)
    return load_task(tokenizer), base


@lru_cache(maxsize=32)
def _share_of(method: str, size: int, rate: float) -> float:
    """Share of right answers to held-out questions after the run of the brief."""
    task, base = _task_and_base()
    model = build(base, method, task, seed=DESIGN_SEED, size=size)
    try:
        tune(model, task, seed=DESIGN_SEED, learning_rate=rate)
    except FloatingPointError:
        return 0.0
    return share_right(model, task.held_out, task)
