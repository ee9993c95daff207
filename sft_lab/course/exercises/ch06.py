"""Checks of chapter 06, adapters, prefixes, and what to choose."""

import math
import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from sft_lab.course.exercises.kit import (
    Hints,
    Mistake,
    checks,
    need_dtype,
    need_gradient,
    normal,
    random_labels,
    same,
    unpack,
)
from sft_lab.examples import IGNORE_INDEX


@checks("6.1")
def right_answers(attempt: Callable) -> str:
    rows, length, size = random.randint(4, 6), random.randint(12, 14), random.randint(8, 12)
    labels = random_labels(rows, length, size)
    targets, graded = labels[:, 1:], labels[:, 1:] != IGNORE_INDEX
    # every position is predicted rightly, but one graded token in two of the rows
    favourites = targets.clamp(min=0)
    wrong = torch.zeros(rows, dtype=torch.bool)
    for row in random.sample(range(rows), 2):
        place = random.choice(graded[row].nonzero().flatten().tolist())
        favourites[row, place] = (favourites[row, place] + 1) % size
        wrong[row] = True
    logits = torch.randn(rows, length, size)
    logits[:, :-1] += 99.0 * F.one_hot(favourites, size)

    found = torch.as_tensor(attempt(logits, labels))
    if found.is_floating_point() and found.dim() == 1 and ((found > 0) & (found < 1)).any():
        raise Mistake(
            "this is the share of right tokens of each row: an answer is right when all of them are"
        )
    not_shifted = (
        "no row is right: a label of -100 asks for nothing, and row t of the logits predicts "
        "token t + 1"
    )
    any_token = "one right token is not enough: all graded tokens of the row must be right"
    hit = (favourites == targets) & graded
    hints = [
        (torch.zeros(rows), not_shifted),
        (hit.any(dim=1), any_token),
        ((~wrong).float().mean(), "return one truth value for each row, not their mean"),
        (wrong, "this is True where an answer is wrong"),
    ]
    same(found, ~wrong, hints)
    return "one wrong graded token spoils its row; prompt, padding and the last logits do not count"


@checks("6.2")
def adapter(attempt: type) -> str:
    features, width = random.randint(7, 10), random.randint(2, 4)
    x, made = torch.randn(3, 5, features), attempt(features, width)
    if not isinstance(made, nn.Module):
        raise Mistake("write a class that derives from nn.Module")
    down, up = (getattr(made, name, None) for name in ("down", "up"))
    if not (isinstance(down, nn.Module) and isinstance(up, nn.Module)):
        raise Mistake("call the two linear layers self.down and self.up")
    wide = "the middle is as wide as the input: it should have `width` numbers"
    hints = [
        (2 * features * width, "the biases are missing: nn.Linear has one by default"),
        (2 * features * features + 2 * features, wide),
    ]
    count = sum(parameter.numel() for parameter in made.parameters())
    expected = 2 * features * width + features + width
    same(count, expected, hints, what="the number of parameters")
    residual = "the residual is missing: add x to what comes out of `up`"
    hints = [
        (torch.zeros_like(x), residual),
        (torch.full_like(x, math.nan), "nan: look at the initial values"),
    ]
    same(made(x), x, hints, what="the output before training")

    for parameter in made.parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        inner = down(x)
        update = up(F.gelu(inner))
        hints = [
            (x + up(inner), "the nonlinearity is missing: without GELU, two linears are one"),
            (x + F.gelu(up(inner)), "GELU stands between the two layers, not after them"),
            (x + up(F.relu(inner)), "this is ReLU: the chapter uses GELU"),
            (update, residual),
            (F.gelu(x) + update, "the residual must be x itself"),
        ]
    same(made(x), x + update, hints, what="the output with random weights")
    fresh = attempt(features, width)
    fresh(x).square().sum().backward()
    if fresh.up.weight.grad is None or not fresh.up.weight.grad.any():
        raise Mistake(
            "with these initial values nothing can learn: `down` must start random, only `up` "
            "at zero"
        )
    return "x + up(gelu(down(x))); starts as x, and its first gradient is not zero"


@checks("6.3")
def prefix_attention(attempt: Callable) -> str:
    length, positions, size = random.randint(4, 6), random.randint(2, 3), random.randint(5, 8)
    q, k, v = (normal(length, size) for _ in range(3))
    prefix_k, prefix_v = normal(positions, size), normal(positions, size)
    keys, values = torch.cat((prefix_k, k)), torch.cat((prefix_v, v))
    swapped = torch.cat((k, prefix_k)), torch.cat((v, prefix_v))
    attend = F.scaled_dot_product_attention
    causal = torch.ones(length, length).tril().bool()
    mask = F.pad(causal, (positions, 0), value=True)
    shifted = torch.ones_like(mask).tril()
    alone = attend(q, k, v, causal)
    unscaled = attend(q, keys, values, mask, scale=1.0)
    as_tokens = (
        "the mask counts the prefix as tokens: every token sees all of the prefix, and tokens up "
        "to itself"
    )
    two_softmaxes = "one softmax over prefix and tokens together, not one each"
    behind = "the prefix stands in front, and the mask with it"
    hints = [
        (alone, "the prefix is not there: its keys and values join those of the tokens"),
        (attend(q, keys, values), "the causal mask is missing: no token sees later tokens"),
        (unscaled, "scores are divided by the square root of the head's size"),
        (attend(q, keys, values, shifted), as_tokens),
        (attend(q, *swapped, mask), behind),
        (alone + attend(q, prefix_k, prefix_v), two_softmaxes),
    ]
    expected = attend(q, keys, values, mask)
    same(attempt(q, k, v, prefix_k, prefix_v), expected, hints, what="the output of the head")

    empty = attempt(q, k, v, prefix_k[:0], prefix_v[:0])
    same(empty, alone, what="the output with an empty prefix")
    later = torch.cat((k[:-1], k[-1:] + 5.0))
    earlier = attempt(q, later, v, prefix_k, prefix_v)[:-1]
    same(earlier, expected[:-1], what="earlier tokens, after a change of the last,")
    return "equals scaled_dot_product_attention; the whole prefix is visible, later tokens are not"


@checks("6.4")
def put_prompt_in_front(attempt: Callable) -> str:
    rows, length, positions, width = random.randint(2, 4), random.randint(4, 6), 3, 8
    embeddings, prompt = torch.randn(rows, length, width), torch.randn(positions, width)
    prompt.requires_grad_()
    labels = torch.randint(5, 40, (rows, length))
    labels[:, :2] = IGNORE_INDEX
    found = unpack(attempt(prompt, embeddings, labels), "the embeddings", "the labels")
    longer, targets = map(torch.as_tensor, found)
    prompts = prompt.detach().expand(rows, -1, -1)
    behind = "the prompt stands behind: with a causal mask nothing that is graded could see it"
    hints = [(torch.cat((embeddings, prompts), dim=1), behind), (embeddings, "no prompt is there")]
    same(longer, torch.cat((prompts, embeddings), dim=1), hints, what="the embeddings")

    ignored, zeros = torch.full((rows, positions), IGNORE_INDEX), torch.zeros(rows, positions)
    too_short = "the labels are too short: every position needs one, and the prompt's are -100"
    zeros_graded = "0 is a token id and would be graded: the prompt's labels are -100"
    labels_behind = "the -100 stand behind: labels and embeddings must stay side by side"
    hints = [
        (labels, too_short),
        (torch.cat((zeros.long(), labels), dim=1), zeros_graded),
        (torch.cat((labels, ignored), dim=1), labels_behind),
    ]
    same(targets, torch.cat((ignored, labels), dim=1), hints, what="the labels")
    need_dtype(targets, torch.long, "the labels", "cross_entropy wants token ids")
    (gradient,) = torch.autograd.grad(need_gradient(longer, "the embeddings").sum(), prompt)
    each_row = torch.full_like(prompt, rows)
    same(gradient, each_row, what="the gradient of the prompt, which all rows share,")
    return "the prompt is in front of every row, never graded, and learns from all rows"


@checks("6.5")
def count_trained(attempt: Callable) -> str:
    kv_heads, size = random.choice([2, 3]), random.randint(3, 7)
    config = Qwen3Config(
        num_hidden_layers=random.randint(3, 5),
        hidden_size=random.choice([20, 28]),
        intermediate_size=random.choice([46, 52]),
        num_attention_heads=2 * kv_heads,
        num_key_value_heads=kv_heads,
        head_dim=random.choice([6, 10]),
    )
    for method, (expected, hints) in _counts(config, size).items():
        hints = [(wrong, f"{method}: {mistake}") for wrong, mistake in hints]
        same(attempt(method, size, config), expected, hints, what=f"{method}: the count")
    return "equal for five methods at a random shape with grouped key-value heads"


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
    return {
        "LoRA": (layers * size * (inputs + outputs), lora),
        "adapter": (layers * 2 * one_adapter, adapter),
        "prefix": (layers * 2 * keys * size, prefix),
        "prompt": (size * width, prompt),
        "BitFit": (layers * outputs, biases),
    }


@checks("6.6")
def merge_into_linear(attempt: Callable) -> str:
    features, outputs = random.randint(4, 6), random.randint(7, 9)
    base, down, up = nn.Linear(features, outputs), nn.Linear(features, 2), nn.Linear(2, outputs)
    shift, x = torch.randn(outputs), torch.randn(20, features)
    affine = {
        "a LoRA layer": lambda x: base(x) + x @ (up.weight @ down.weight).T,
        "a layer with a learned bias": lambda x: base(x) + shift,
    }
    bent = {
        "an adapter with GELU": lambda x: base(x) + up(F.gelu(down(x))),
        "|x|": lambda x: base(x).abs(),
    }
    with torch.no_grad():
        for name, part in affine.items():
            found = unpack(attempt(part, features), "weight", "bias")
            weight, bias = map(torch.as_tensor, found)
            if weight.shape == (features, outputs):
                raise Mistake("the weight is transposed: PyTorch stores (out, in)")
            at_zero, expected = part(torch.zeros(1, features))[0], part(x)
            same(bias, at_zero, what=f"the bias of {name}", atol=1e-5)
            left_on = expected + at_zero * x.sum(dim=1, keepdim=True)
            hints = [(left_on, "take the bias off before you read the weight")]
            merged = F.linear(x, weight, bias)
            same(merged, expected, hints, what=f"{name}, merged,", atol=1e-5)
        for name, part in bent.items():
            try:
                attempt(part, features)
            except ValueError:
                continue
            raise Mistake(
                f"{name} was merged, and no weight and bias compute it: test on random inputs, "
                "then raise"
            )
    return "LoRA and biases merge into (weight, bias); what is not affine is refused"
