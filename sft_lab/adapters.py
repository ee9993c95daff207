"""Station "spare": bottleneck adapters, prefix, prompt and biases: small trainable parts beside a
frozen model.

Derived in chapter 06. Sources: adapters, Houlsby et al. 2019, arXiv:1902.00751; prefix tuning, Li
and Liang 2021, arXiv:2101.00190; prompt tuning, Lester et al. 2021, arXiv:2104.08691; BitFit, Ben
Zaken et al. 2022, arXiv:2106.10199. Each `add_` function changes the model in place: what was there
is frozen, what it adds requires gradients. `count_trained` says how much that is from a config
alone, before any model is loaded.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache, PreTrainedConfig, PreTrainedModel

from sft_lab.shapes import count_parameters, key_width, linear_shapes

METHODS = ("full", "LoRA", "adapter", "prefix", "prompt", "BitFit")
# What decides how much a method trains. Full tuning and BitFit have nothing to choose.
SIZE_NAMES = {"LoRA": "rank", "adapter": "width", "prefix": "positions", "prompt": "positions"}


class Adapter(nn.Module):
    """x + up(gelu(down(x))): (..., D) -> (..., D) through `width` numbers. `up` starts at zero, so
    it starts as x."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(nn.functional.gelu(self.down(x)))


class Prefix(nn.Module):
    """Keys and values of P positions that no token stands at, for every layer: (layers, 2, kv
    heads, P, head_dim)."""

    def __init__(self, keys_values: torch.Tensor) -> None:
        super().__init__()
        self.keys_values = nn.Parameter(keys_values)

    def before(
        self, decoder: nn.Module, _: tuple, inputs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        """Forward pre-hook of the decoder: the cache begins with the prefix, and every token stands
        P later."""
        length, rows = self.keys_values.shape[-2], _rows(inputs)
        inputs = _make_room(inputs, length, rows)
        if inputs["past_key_values"] is None:
            inputs["past_key_values"] = DynamicCache(config=decoder.config)
        if inputs["past_key_values"].get_seq_length() == 0:
            for layer, (keys, values) in enumerate(self.keys_values):
                inputs["past_key_values"].update(
                    keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer
                )
        return (), inputs


class Prompt(nn.Module):
    """Embeddings of P tokens that no vocabulary holds, put in front of every row: (P, D)."""

    def __init__(self, embeddings: torch.Tensor) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(embeddings)
        self.in_front = False

    def before(
        self, decoder: nn.Module, _: tuple, inputs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        """Forward pre-hook of the decoder: the prompt enters with the first tokens, later steps
        find it cached."""
        length, rows = len(self.embeddings), _rows(inputs)
        inputs = _make_room(inputs, length, rows)
        self.in_front = (
            inputs["past_key_values"] is None or inputs["past_key_values"].get_seq_length() == 0
        )
        if self.in_front:
            tokens, embeds = inputs.pop("input_ids", None), inputs.pop("inputs_embeds", None)
            embeds = decoder.embed_tokens(tokens) if embeds is None else embeds
            inputs["inputs_embeds"] = torch.cat(
                (self.embeddings.expand(rows, -1, -1), embeds), dim=1
            )
            if inputs.get("position_ids") is not None:
                in_front = torch.arange(length, device=embeds.device).expand(rows, -1)
                inputs["position_ids"] = torch.cat(
                    (in_front, inputs["position_ids"].expand(rows, -1)), dim=1
                )
        return (), inputs

    def after(self, decoder: nn.Module, _: tuple, inputs: dict[str, Any], output: Any) -> Any:
        """Forward hook of the decoder: the prompt's own positions predict nothing that anyone asked
        for."""
        if self.in_front:
            output.last_hidden_state = output.last_hidden_state[:, len(self.embeddings) :]
        return output


def add_adapters(model: PreTrainedModel, *, width: int = 16) -> PreTrainedModel:
    """An Adapter behind the attention and the MLP of every layer, before each is added to the
    residual stream."""
    if width < 1:
        raise ValueError(f"width is {width}; an adapter needs at least 1 number in its middle")
    _freeze_plain(model)
    for layer in model.get_decoder().layers:
        for part, name in ((layer.self_attn, "o_proj"), (layer.mlp, "down_proj")):
            linear = getattr(part, name)
            adapter = Adapter(linear.out_features, width).to(
                linear.weight.device, linear.weight.dtype
            )
            setattr(part, name, nn.Sequential(linear, adapter))
    return model


def add_prefix(model: PreTrainedModel, token_ids: Sequence[int]) -> PreTrainedModel:
    """A trainable prefix that starts as the keys and values of `token_ids`: at step 0 they might as
    well stand there.

    Starting from keys and values of real tokens is the paper's advice; chapter 06 compares it with
    random ones.
    """
    start = _start(model, token_ids)
    _freeze_plain(model)
    with torch.no_grad():
        cache = model.get_decoder()(start[None], use_cache=True).past_key_values
    keys_values = torch.stack([torch.cat((layer.keys, layer.values)) for layer in cache.layers])
    model.prefix = Prefix(keys_values)
    model.get_decoder().register_forward_pre_hook(model.prefix.before, with_kwargs=True)
    return model


def add_prompt(model: PreTrainedModel, token_ids: Sequence[int]) -> PreTrainedModel:
    """A trainable prompt that starts as the embeddings of `token_ids`: at step 0 they might as well
    stand there."""
    start = _start(model, token_ids)
    _freeze_plain(model)
    model.prompt = Prompt(model.get_input_embeddings()(start).detach().clone())
    model.get_decoder().register_forward_pre_hook(model.prompt.before, with_kwargs=True)
    model.get_decoder().register_forward_hook(model.prompt.after, with_kwargs=True)
    return model


def add_biases(model: PreTrainedModel) -> PreTrainedModel:
    """BitFit: a trainable bias for every linear layer but the head; zero where the model was built
    without one."""
    _freeze_plain(model)
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not model.get_output_embeddings():
            if module.bias is None:
                module.bias = nn.Parameter(module.weight.new_zeros(module.out_features))
            module.bias.requires_grad_(True)
    return model


def count_trained(method: str, size: int, config: PreTrainedConfig) -> int:
    """Parameters that a method of METHODS trains on a model with this config.

    size: what SIZE_NAMES says, ignored for full tuning and BitFit. Raises ValueError for another
    method, a size below 1, or an architecture that is counted otherwise.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; there are {', '.join(METHODS)}")
    if size < 1:
        raise ValueError(f"size is {size}; rank, width and positions are at least 1")
    if method == "full":
        return sum(count_parameters(config).values())
    width, shapes = config.hidden_size, linear_shapes(config)
    if method == "prompt":  # once, before the first layer
        return size * width
    a_layer = {
        "LoRA": sum(size * (rows + columns) for rows, columns in shapes),
        "adapter": 2 * (2 * width * size + size + width),  # two of them, with biases
        "prefix": 2 * key_width(config) * size,  # a key and a value for each position
        "BitFit": sum(rows for rows, _ in shapes),
    }
    return config.num_hidden_layers * a_layer[method]


def _freeze_plain(model: PreTrainedModel) -> None:
    """Freeze all; ValueError for a model that carries such a part already (two at once are not
    taught here)."""
    known = (Adapter, Prefix, Prompt)
    if found := [name for name, module in model.named_modules() if isinstance(module, known)]:
        raise ValueError(f"the model has {found[0]} already: load it afresh")
    model.requires_grad_(False)


def _start(model: PreTrainedModel, token_ids: Sequence[int]) -> torch.Tensor:
    if not len(token_ids):
        raise ValueError(
            "token_ids is empty: give the tokens whose keys, values or embeddings are the start"
        )
    return torch.tensor(list(token_ids), device=model.device)


def _rows(inputs: dict[str, Any]) -> int:
    return len(
        inputs["input_ids"] if inputs.get("input_ids") is not None else inputs["inputs_embeds"]
    )


def _make_room(inputs: dict[str, Any], length: int, rows: int) -> dict[str, Any]:
    """The decoder's inputs with `length` visible positions before the first token."""
    mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
    if positions is not None and mask is None and (positions.diff(dim=-1) < 0).any():
        raise ValueError(
            "packed rows: a prefix would stand before the first example alone. Pad these "
            "examples instead"
        )
    if isinstance(inputs.get("past_key_values"), Cache | None):
        inputs = {"past_key_values": None, **inputs}
    if mask is not None:
        inputs["attention_mask"] = torch.cat((mask.new_ones(rows, length), mask), dim=1)
    if positions is not None:
        inputs["position_ids"] = positions + length
    return inputs
