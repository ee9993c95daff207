"""Checks of chapter 06, adapters, prefixes, and what to choose."""

import math
import random

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Qwen3Config

from sft_lab.course.checks import Mistake, checks, same
from sft_lab.examples import IGNORE_INDEX
from sft_lab.shapes import key_width, linear_shapes, query_width


@checks("6.1")
def _exact_match(attempt):
    rows, length, size = random.randint(4, 6), random.randint(9, 12), random.randint(8, 12)
    # neighbours differ, so that an answer without the shift is never right
    labels = torch.randint(1, size, (rows, length)).cumsum(dim=1) % size
    logits = torch.randn(rows, length, size)
    for row in range(rows):
        labels[row, : random.randint(2, 4)] = IGNORE_INDEX
        labels[row, length - random.randint(0, 2) :] = IGNORE_INDEX  # padding, not in every row
    rewarded = labels[:, 1:].clamp(min=0)
    logits[:, :-1].scatter_(2, rewarded[..., None], 9.0)  # every prediction is right …
    wrong = set(random.sample(range(rows), 2))
    for row in wrong:  # … but one graded token in two of the rows
        place = random.choice((labels[row, 1:] != IGNORE_INDEX).nonzero().flatten().tolist())
        logits[row, place, rewarded[row, place]] = -9.0
    expected = torch.tensor([row not in wrong for row in range(rows)])
    graded = labels[:, 1:] != IGNORE_INDEX
    hit = logits[:, :-1].argmax(-1) == labels[:, 1:]
    found = torch.as_tensor(attempt(logits.clone(), labels.clone()))
    if (
        found.dtype.is_floating_point
        and found.dim() == 1
        and bool(((found > 0) & (found < 1)).any())
    ):
        raise Mistake(
            "this is the share of right tokens of each row: an answer is right when all of them are"
        )
    same(
        found,
        expected,
        hints={
            torch.zeros(
                rows, dtype=torch.bool
            ): "no row is right: a label of -100 asks for nothing, and row t of the "
            "logits predicts token t + 1",
            (hit & graded).any(
                1
            ): "one right token is not enough: all graded tokens of the row must be right",
            expected.float().mean(): "return one truth value for each row, not their mean",
            ~expected: "this is True where an answer is wrong",
        },
    )
    return "one wrong graded token spoils its row; prompt, padding and the last logits do not count"


@checks("6.2")
def _adapter(attempt):
    features, width = random.randint(7, 10), random.randint(2, 4)
    x = torch.randn(3, 5, features)
    adapter = attempt(features, width)
    if not isinstance(adapter, nn.Module):
        raise Mistake("write a class that derives from nn.Module")
    parts = dict(adapter.named_children())
    if not {"down", "up"} <= parts.keys():
        raise Mistake("call the two linear layers self.down and self.up")
    count, expected_count = (
        sum(p.numel() for p in adapter.parameters()),
        2 * features * width + features + width,
    )
    same(
        count,
        expected_count,
        what="the number of parameters",
        hints={
            2 * features * width: "the biases are missing: nn.Linear has one by default",
            2 * features * features
            + 2 * features: "the middle is as wide as the input: it should have `width` numbers",
        },
    )
    start = adapter(x)
    same(
        start,
        x,
        what="the output before training",
        hints={
            torch.zeros_like(x): "the residual is missing: add x to what comes out of `up`",
            torch.full_like(x, math.nan): "nan: look at the initial values",
        },
    )
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    down, up = adapter.down, adapter.up
    inner = F.linear(x, down.weight, down.bias)
    update = F.linear(F.gelu(inner), up.weight, up.bias)
    same(
        adapter(x),
        x + update,
        what="the output with random weights",
        hints={
            x
            + F.linear(
                inner, up.weight, up.bias
            ): "the nonlinearity is missing: without GELU, two linear layers are one",
            update: "the residual is missing: add x to what comes out of `up`",
            x
            + F.gelu(
                F.linear(inner, up.weight, up.bias)
            ): "GELU stands between the two layers, not after them",
            x + F.linear(F.relu(inner), up.weight, up.bias): "this is ReLU: the chapter uses GELU",
            F.gelu(x) + update: "the residual must be x itself",
        },
    )
    fresh = attempt(features, width)
    fresh(x).pow(2).sum().backward()
    if fresh.up.weight.grad is None or not fresh.up.weight.grad.any():
        raise Mistake(
            "with these initial values nothing can learn: `down` must start random, only `up` "
            "at zero"
        )
    return "x + up(gelu(down(x))); starts as x, and its first gradient is not zero"


@checks("6.3")
def _prefix_attention(attempt):
    length, positions, size = random.randint(4, 6), random.randint(2, 3), random.randint(5, 8)
    q, k, v = (torch.randn(length, size, dtype=torch.float64) for _ in range(3))
    keys, values = (torch.randn(positions, size, dtype=torch.float64) for _ in range(2))

    def attend(k, v, mask, scale=size**-0.5):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)

    seen = torch.ones(length, length, dtype=torch.bool).tril()
    front = torch.ones(length, positions, dtype=torch.bool)
    both, both_values = torch.cat((keys, k)), torch.cat((values, v))
    mask = torch.cat((front, seen), dim=1)
    expected = attend(both, both_values, mask)
    hints = {
        attend(k, v, seen): "the prefix is not there: its keys and values join those of the tokens",
        attend(
            both, both_values, None
        ): "the causal mask is missing: a token may not see later tokens",
        attend(
            both, both_values, mask, 1.0
        ): "scores are divided by the square root of the head's size",
        attend(
            both, both_values, torch.ones_like(mask).tril()
        ): "the mask counts the prefix as tokens: every token "
        "sees all of the prefix, and tokens up to itself",
        attend(
            torch.cat((k, keys)), torch.cat((v, values)), mask
        ): "the prefix stands in front, and the mask with it",
        attend(k, v, seen)
        + F.scaled_dot_product_attention(q, keys, values): "one softmax over prefix and tokens "
        "together, not one each",
    }
    same(attempt(q, k, v, keys, values), expected, hints=hints, what="the output of the head")
    same(
        attempt(q, k, v, keys[:0], values[:0]),
        attend(k, v, seen),
        what="the output with an empty prefix",
    )
    later = k.clone()
    later[-1] += 5.0
    same(
        attempt(q, later, v, keys, values)[:-1],
        expected[:-1],
        what="earlier tokens, after a change of the last,",
    )
    return "equals scaled_dot_product_attention; the whole prefix is visible, later tokens are not"


@checks("6.4")
def _with_prompt(attempt):
    rows, length, positions, width = (
        random.randint(2, 4),
        random.randint(4, 6),
        random.randint(2, 3),
        8,
    )
    embeddings = torch.randn(rows, length, width)
    labels = torch.randint(5, 40, (rows, length))
    labels[:, :2] = IGNORE_INDEX
    prompt = torch.randn(positions, width, requires_grad=True)
    answer = attempt(prompt, embeddings.clone(), labels.clone())
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise Mistake("return two things: the embeddings with the prompt in front, and the labels")
    longer, targets = (torch.as_tensor(part) for part in answer)
    expected = torch.cat((prompt.detach().expand(rows, -1, -1), embeddings), dim=1)
    same(
        longer,
        expected,
        what="the embeddings",
        hints={
            torch.cat(
                (embeddings, prompt.detach().expand(rows, -1, -1)), dim=1
            ): "the prompt stands behind: with a causal mask nothing that is graded could see it",
            embeddings: "the prompt is missing",
        },
    )
    right = torch.cat((torch.full((rows, positions), IGNORE_INDEX), labels), dim=1)
    same(
        targets,
        right,
        what="the labels",
        hints={
            labels: "the labels are too short: every position needs one, and the prompt's are -100",
            torch.cat(
                (torch.zeros(rows, positions, dtype=torch.long), labels), 1
            ): "0 is a token id and would be graded: the prompt's labels are -100",
            torch.cat(
                (labels, torch.full((rows, positions), IGNORE_INDEX)), 1
            ): "the -100 stand behind: labels and embeddings must stay side by side",
            torch.cat(
                (labels[:, :1].expand(-1, positions), labels), 1
            ): "fill with IGNORE_INDEX itself",
        },
    )
    if targets.dtype != torch.long:
        raise Mistake(f"the labels are {targets.dtype}: cross_entropy wants token ids, int64")
    if not longer.requires_grad:
        raise Mistake("no gradient reaches the prompt: do not detach it or copy its numbers")
    (gradient,) = torch.autograd.grad(longer.sum(), prompt)
    same(
        gradient,
        torch.full_like(prompt, float(rows)),
        what="the gradient of the prompt, which all rows share,",
    )
    return (
        "the prompt is in front of every row, is never graded, and collects the gradient of "
        "all rows"
    )


@checks("6.5")
def _count_trained(attempt):
    kv_heads = random.choice([2, 3])
    config = Qwen3Config(
        num_hidden_layers=random.randint(3, 5),
        hidden_size=random.choice([20, 28]),
        intermediate_size=random.choice([46, 52]),
        num_attention_heads=2 * kv_heads,
        num_key_value_heads=kv_heads,
        head_dim=random.choice([6, 10]),
        vocab_size=100,
    )
    size = random.randint(3, 7)
    layers, width, keys = config.num_hidden_layers, config.hidden_size, key_width(config)
    pairs = linear_shapes(config)
    right = {
        "LoRA": layers * size * sum(rows + columns for rows, columns in pairs),
        "adapter": layers * 2 * (2 * width * size + size + width),
        "prefix": layers * 2 * keys * size,
        "prompt": size * width,
        "BitFit": layers * sum(rows for rows, _ in pairs),
    }
    usual = {
        "LoRA": {
            layers
            * size
            * sum(
                rows * columns for rows, columns in pairs
            ): "LoRA: rank · (in + out), not in · out",
            right["LoRA"] // layers: "LoRA: this is one decoder layer; there are several",
        },
        "adapter": {
            layers
            * (
                2 * width * size + size + width
            ): "adapter: two in every layer, one behind each half",
            layers * 4 * width * size: "adapter: its two linear layers have biases",
            right["adapter"] // layers: "adapter: this is one decoder layer; there are several",
        },
        "prefix": {
            layers * keys * size: "prefix: a key and a value for each position",
            layers
            * 2
            * query_width(config)
            * size: "prefix: keys and values have num_key_value_heads heads",
            2 * keys * size: "prefix: every layer has its own",
            layers
            * 2
            * width
            * size: "prefix: keys are num_key_value_heads · head_dim wide, not D",
        },
        "prompt": {layers * size * width: "prompt: it stands once, before the first layer"},
        "BitFit": {
            layers
            * sum(columns for _, columns in pairs): "BitFit: a bias has one number for each output",
            right["BitFit"] // layers: "BitFit: this is one decoder layer; there are several",
        },
    }
    for method, expected in right.items():
        same(
            attempt(method, size, config),
            expected,
            hints=usual[method],
            what=f"{method}: the count",
        )
    return "equal for five methods at a random shape with grouped key-value heads"


@checks("6.6")
def _merge_into_linear(attempt):
    features, outputs = random.randint(4, 6), random.randint(7, 9)
    base, down, up = nn.Linear(features, outputs), nn.Linear(features, 2), nn.Linear(2, outputs)
    shift = torch.randn(outputs)

    def lora(x):
        return base(x) + up(down(x)) - up(down(torch.zeros_like(x)))

    def with_bias(x):
        return base(x) + shift

    def adapter(x):
        return base(x) + up(F.gelu(down(x)))

    x = torch.randn(20, features)
    with torch.no_grad():
        for name, part in (("a LoRA layer", lora), ("a layer with a learned bias", with_bias)):
            answer = attempt(part, features)
            if not isinstance(answer, (tuple, list)) or len(answer) != 2:
                raise Mistake("return two things: weight and bias")
            weight, bias = (torch.as_tensor(value) for value in answer)
            if weight.shape == (features, outputs):
                raise Mistake("the weight is transposed: PyTorch stores (out, in)")
            at_zero = part(torch.zeros(1, features))[0]
            same(bias, at_zero, what=f"the bias of {name}", atol=1e-5)
            same(
                F.linear(x, weight, bias),
                part(x),
                what=f"{name}, merged,",
                atol=1e-5,
                hints={
                    part(x)
                    + at_zero
                    * x.sum(dim=1, keepdim=True): "take the bias off before you read the weight"
                },
            )
        for name, part in (("an adapter with GELU", adapter), ("|x|", lambda x: base(x).abs())):
            try:
                attempt(part, features)
            except ValueError:
                continue
            raise Mistake(
                f"{name} was merged, and no weight and bias compute it: test on random inputs, "
                "then raise"
            )
    return "LoRA and biases merge into (weight, bias); what is not affine is refused"
