"""Under "keep": progressive columns, a new narrow decoder beside a frozen model for each new task
(Rusu et al. 2016, arXiv:1606.04671; chapter 13b).

A column has as many layers as the model, each narrower. Before a layer it is given, through a gate,
what the frozen model and the columns before it have computed at that depth (the lateral
connections); nothing flows back. At the end it is widened and, through a second gate, added to the
model's last states. The output head is linear, so the scores are the old ones plus the gated scores
of the column. The widening starts at 0 and the gates at 1: a new column says nothing, and what it
learns first is to speak. (With the gate at 0 and the widening random it learns too, far slower.)

Which column speaks is the caller's to say, as a task identifier: `use_column(model, 0)` is the old
model exactly, with its old answers.
"""

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from sft_lab.arguments import SettingError, whole_number


class Column(nn.Module):
    """One column: `before` are the widths of what it looks at, the model first, then each column
    that was there before; its attention keeps its keys and values in the model's own cache, from
    layer `first` on."""

    def __init__(self, decoder: nn.Module, width: int, before: list[int], first: int) -> None:
        super().__init__()
        config = _narrow(decoder.config, width)
        kind, norm = type(decoder.layers[0]), type(decoder.norm)
        count = len(decoder.layers)
        self.width, self.first = width, first
        self.enter = nn.Linear(before[0], width, bias=False)
        self.lateral = nn.ModuleList(
            nn.ModuleList(nn.Linear(wide, width, bias=False) for wide in before)
            for _ in range(count)
        )
        self.lateral_gates = nn.Parameter(torch.ones(count, len(before)))
        self.layers = nn.ModuleList(kind(config, place) for place in range(count))
        for place, layer in enumerate(self.layers):
            layer.self_attn.layer_idx = first + place
        self.norm = norm(width, eps=config.rms_norm_eps)
        self.widen = nn.Linear(width, before[0], bias=False)
        nn.init.zeros_(self.widen.weight)
        self.gate = nn.Parameter(torch.ones(()))

    def take_layer(
        self, place: int, own: torch.Tensor, others: list[torch.Tensor], inputs: dict[str, Any]
    ) -> torch.Tensor:
        """The column's states behind layer `place`: (B, T, width), from those before it and what
        the others have behind the same layer."""
        for gate, lateral, states in zip(
            self.lateral_gates[place], self.lateral[place], others, strict=True
        ):
            own = own + gate * lateral(states)
        return self.layers[place](own, **inputs)

    def leave(self, own: torch.Tensor) -> torch.Tensor:
        """What is added to the model's last states: (B, T, D)."""
        return self.gate * self.widen(self.norm(own))


class Columns(nn.Module):
    """All columns of a model, and which of them speaks: `active`, counted from 1; 0 is none."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = nn.ModuleList()
        self.active = 0
        self._states: list[torch.Tensor] = []  # of columns 1 to `active`, within one pass

    def enter(self, layer: nn.Module, args: tuple, inputs: dict[str, Any]) -> None:
        """Forward pre-hook of the model's first layer: the columns read the same embeddings."""
        hidden = args[0] if args else inputs["hidden_states"]
        self._states = [column.enter(hidden) for column in self.columns[: self.active]]

    def go_on(self, layer: nn.Module, args: tuple, inputs: dict[str, Any], output: Any) -> None:
        """Forward hook of each layer of the model: the columns' layers of the same depth, with the
        same mask, positions and cache."""
        if not self.active:
            return
        inputs = {name: value for name, value in inputs.items() if name != "hidden_states"}
        place, cache = layer.self_attn.layer_idx, inputs.get("past_key_values")
        if cache is not None:
            last = self.columns[self.active - 1]
            cache.layers += [
                DynamicLayer() for _ in range(last.first + len(last.layers) - len(cache.layers))
            ]
        seen = [output[0] if isinstance(output, tuple) else output]
        for number, column in enumerate(self.columns[: self.active]):
            self._states[number] = column.take_layer(place, self._states[number], seen, inputs)
            seen.append(self._states[number])

    def leave(self, decoder: nn.Module, args: tuple, inputs: dict[str, Any], output: Any) -> Any:
        """Forward hook of the decoder: the active column's states join the model's last ones."""
        if self.active:
            added = self.columns[self.active - 1].leave(self._states[-1])
            output.last_hidden_state = output.last_hidden_state + added
        self._states = []
        return output


def add_column(model: PreTrainedModel, *, width: int = 32, seed: int = 0) -> PreTrainedModel:
    """Freeze all of `model`, put a new column beside it and make that the active one; returns the
    model, changed in place.

    width: of the column's states, a multiple of the model's head_dim. The first call is for the
    second task, the next for the third: that column looks at the model and at the second task's. It
    begins as exactly the old model, because its widening is 0. Qwen3, Llama and decoders built like
    them. SettingError for a width that does not fit, and for another architecture.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    layers = getattr(decoder, "layers", None)
    if not layers or not hasattr(layers[0], "self_attn") or not hasattr(decoder, "norm"):
        raise SettingError(
            f"a {type(model).__name__} is not built as Qwen3 and Llama are, out of layers with "
            "self_attn and a last norm, so no column fits beside it"
        )
    width = whole_number("width", width)
    size = layers[0].self_attn.head_dim
    if width % size:
        raise SettingError(
            f"width is {width}; it must be a multiple of the model's head_dim, {size}: rotary "
            "positions are shared, so a column has heads of the same size"
        )
    model.requires_grad_(False)
    if not hasattr(model, "columns"):
        model.columns = Columns()
        layers[0].register_forward_pre_hook(model.columns.enter, with_kwargs=True)
        for layer in layers:
            layer.register_forward_hook(model.columns.go_on, with_kwargs=True)
        decoder.register_forward_hook(model.columns.leave, with_kwargs=True)
    others = model.columns.columns
    before = [decoder.config.hidden_size, *(column.width for column in others)]
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        column = Column(decoder, width, before, len(layers) * (1 + len(others)))
    others.append(column.to(model.device, layers[0].self_attn.q_proj.weight.dtype))
    return use_column(model, len(others))


def use_column(model: PreTrainedModel, number: int) -> PreTrainedModel:
    """Let column `number` speak, counted from 1, and only its weights train; 0 is the model without
    columns, exactly, of which nothing trains. SettingError for a column that is not there."""
    columns = getattr(model, "columns", None)
    if not isinstance(columns, Columns):
        raise SettingError("the model has no columns: add_column(model) puts one beside it")
    number = whole_number("number", number, least=0, most=len(columns.columns))
    columns.active = number
    for place, column in enumerate(columns.columns, start=1):
        column.requires_grad_(place == number)
    return model


def _narrow(config: Any, width: int) -> Any:
    """The model's configuration with layers of `width`: as many heads as fit, all else in
    proportion."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    narrow = copy.deepcopy(config)
    narrow.hidden_size = width
    narrow.num_attention_heads = narrow.num_key_value_heads = width // size
    narrow.head_dim = size
    narrow.intermediate_size = max(1, config.intermediate_size * width // config.hidden_size)
    return narrow
