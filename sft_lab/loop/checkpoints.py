"""Station "learn": what a run leaves, in safetensors and JSON: checkpoints that a kill cannot
break, and its result."""

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.lora import LoRALinear, save_adapter


def save_checkpoint(
    folder: Path | str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write weights, optimizer tensors and `state` (JSON) as one folder: whole or not at all.

    Safetensors and JSON only, no pickle. The folder is written beside its final name and then
    renamed, so a kill at any moment leaves either the old checkpoint or the new one;
    find_checkpoint() tells them apart.
    """
    folder = Path(folder)
    new, old = _beside(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    trained = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    weights = {name: parameter.detach().contiguous() for name, parameter in trained.items()}
    save_file(weights, new / "weights.safetensors")
    moments = {
        f"{name}|{key}": value.detach().contiguous()
        for name, parameter in trained.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    save_file(moments, new / "optimizer.safetensors")
    (new / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def find_checkpoint(folder: Path | str) -> bool:
    """Whether there is a checkpoint. A kill between the two renames left it as `folder`.old: that
    is renamed back."""
    folder = Path(folder)
    _, old = _beside(folder)
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    return (folder / "state.json").exists()


def remove_checkpoint(folder: Path | str) -> None:
    """Delete a checkpoint and what a kill may have left beside it; state.json first, or half of one
    looks whole."""
    folder = Path(folder)
    for place in (*_beside(folder), folder):
        (place / "state.json").unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)


def load_checkpoint(
    folder: Path | str, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a checkpoint's weights and optimizer tensors in place; returns its `state`.

    Raises FileNotFoundError when there is none, ValueError when its tensors are not those of
    `model`.
    """
    folder = Path(folder)
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    trained = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    weights = load_file(folder / "weights.safetensors")
    saved, here = (
        {name: list(t.shape) for name, t in tensors.items()} for tensors in (weights, trained)
    )
    if saved != here:
        name = min(name for name in saved.keys() | here.keys() if saved.get(name) != here.get(name))
        raise ValueError(
            f"{folder} is of another model, or other parameters are frozen: {name} has shape "
            f"{saved.get(name)} there, {here.get(name)} here (None: not trained). Resume with "
            "the model of that run"
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(weights[name])
    for key, value in load_file(folder / "optimizer.safetensors").items():
        name, _, field = key.rpartition("|")
        device = (
            "cpu"
            if field == "step" and not optimizer.defaults.get("fused")
            else trained[name].device
        )
        optimizer.state[trained[name]][field] = value.to(device)
    return state


def check_result(model: torch.nn.Module) -> None:
    """Refuse, before a run, a model whose result save_result could not save so that it can be
    loaded again."""
    layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
    own = {id(parameter) for layer in layers for parameter in layer.parameters()}
    rest = [
        name
        for name, value in model.named_parameters()
        if value.requires_grad and id(value) not in own
    ]
    if layers and rest:
        raise ValueError(
            f"an adapter's files cannot hold {rest[0]} (one of {len(rest)} that train beside "
            "LoRA): freeze them, or train without output_dir and then save "
            "merge_lora(model).save_pretrained(folder)"
        )
    if isinstance(model, PreTrainedModel) and not layers:
        with torch.device("meta"):  # the architecture alone, without memory for its weights
            plain = type(model)(copy.deepcopy(model.config)).state_dict().keys()
        if added := [name for name in model.state_dict() if name not in plain]:
            raise ValueError(
                f"{added[0]} is not part of a {type(model).__name__}, so nothing could load what "
                "this run saves: train without output_dir, and keep the trained part by hand"
            )


def save_result(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path | str
) -> None:
    """Save what a run has made: the adapter of a model with LoRA layers (chapter 05), else the
    model; the tokenizer."""
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        save_adapter(model, folder)
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")


def rng_state() -> list[str]:
    """The state of torch's random generators (CPU, then each CUDA device) as hexadecimal text."""
    states = [
        torch.get_rng_state(),
        *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []),
    ]
    return [state.numpy().tobytes().hex() for state in states]


def set_rng_state(saved: list[str]) -> None:
    """Put back what rng_state() returned."""
    states = [torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8) for state in saved]
    torch.set_rng_state(states[0])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states[1:])
