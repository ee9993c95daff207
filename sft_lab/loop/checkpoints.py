"""Under "learn": what a run leaves, in safetensors and JSON: checkpoints that a kill cannot break,
and its result."""

import contextlib
import copy
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.files import recover_folder, whole_folder
from sft_lab.fingerprint import check_damage, check_fingerprint, fingerprint
from sft_lab.lora import (
    LoRALinear,
    adapts,
    check_kind,
    is_of_peft,
    trained_beside_lora,
    write_adapter,
    write_peft_adapter,
)

WEIGHTS_FILE, OPTIMIZER_FILE = "weights.safetensors", "optimizer.safetensors"
STATE_FILE = "state.json"
# entries of a configuration that change nothing of what a training step computes
NOT_COMPUTED = {
    *("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "use_cache"),
}
# and of PEFT's configuration of an adapter
NOT_OF_PEFT = {"base_model_name_or_path", "inference_mode", "peft_version", "revision"}

# what `state` holds beside the numbers of the run's history
STATE_KINDS = {
    **{"run": dict, "model": dict, "frozen": str, "rng": list, "scaler": dict},
    **{"steps": list, "evaluations": list},
}
# of each step and each evaluation; what else they hold are numbers too
STEP_NUMBERS = ("step", "loss", "accuracy", "learning_rate", "grad_norm", "graded")
EVALUATION_NUMBERS = ("step", "loss", "accuracy", "perplexity", "graded")
COUNTS = ("step", "graded", "tokens")

# what reading a damaged file of a checkpoint, or using what it holds, may raise
DAMAGES = (
    OSError,
    SafetensorError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    OverflowError,
)


def save_checkpoint(
    folder: Path | str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write weights, optimizer tensors and `state` (JSON) as one folder: whole or not at all.

    Only what trains is written: the rest the run that goes on has from the base model, and of that
    the fingerprint is written. Safetensors and JSON only, no pickle.
    """
    trained = _trained(model)
    weights = {name: parameter.detach().contiguous() for name, parameter in trained.items()}
    # AdamW keeps, for each parameter: its step count and the two running averages
    averages = {
        f"{name}|{field}": value.detach().contiguous()
        for name, parameter in trained.items()
        for field, value in optimizer.state.get(parameter, {}).items()
    }
    state = state | {"model": _describe(model), "frozen": fingerprint(_frozen(model))}
    with whole_folder(folder) as new:
        save_file(weights, new / WEIGHTS_FILE)
        save_file(averages, new / OPTIMIZER_FILE)
        (new / STATE_FILE).write_text(json.dumps(state, indent=1), encoding="utf-8")


def name_run(settings: dict[str, Any], model: torch.nn.Module) -> str:
    """Letters that tell a run from one with other settings, examples or another kind of model;
    they are the same when it goes on."""
    text = json.dumps([settings, _describe(model)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def find_checkpoint(folder: Path | str) -> bool:
    """Whether there is a checkpoint; mends what a kill inside save_checkpoint may have left."""
    recover_folder(folder)
    names = (WEIGHTS_FILE, OPTIMIZER_FILE, STATE_FILE)  # one of them missing: read_state says so
    return any((Path(folder) / name).exists() for name in names)


def read_state(folder: Path | str) -> dict[str, Any]:
    """The `state` of a checkpoint, without its tensors. ValueError where it is not whole."""
    path = Path(folder) / STATE_FILE
    with told_if_damaged(path):
        state = json.loads(path.read_text(encoding="utf-8"))
        _check_state(state)
    return state


def _check_state(state: Any) -> None:
    """ValueError, with the key and its value, for JSON that no run has written as its `state`."""
    if not isinstance(state, dict):
        raise ValueError(f"it is {state!r:.60}, not the state of a run")
    if lacking := {*STATE_KINDS, "seconds", "tokens"} - state.keys():
        raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
    for name, kind in STATE_KINDS.items():
        if not isinstance(state[name], kind):
            raise ValueError(f"{name} is {state[name]!r:.60}, not a {kind.__name__}")
    check_damage(state["frozen"])
    if not state["rng"] or not all(isinstance(text, str) for text in state["rng"]):
        raise ValueError(f"rng is {state['rng']!r:.60}, not a list of texts")
    _check_numbers("the scaler", state["scaler"])
    _check_numbers("the run", {name: state[name] for name in ("seconds", "tokens")})
    if not 0 <= state["seconds"] < math.inf:
        raise ValueError(f"seconds of the run is {state['seconds']}")
    for place, entry in enumerate(state["steps"], start=1):
        _check_numbers(f"step {place}", entry, STEP_NUMBERS)
        if entry["step"] != place:
            raise ValueError(f"step {place} is called {entry['step']}")
    for place, entry in enumerate(state["evaluations"], start=1):
        _check_numbers(f"evaluation {place}", entry, EVALUATION_NUMBERS)
        if not 0 < entry["step"] <= len(state["steps"]):
            raise ValueError(f"evaluation {place} is of step {entry['step']}, which is not there")


def _check_numbers(what: str, entry: Any, names: tuple[str, ...] = ()) -> None:
    """ValueError for anything but a dict of numbers that has these names."""
    if not isinstance(entry, dict):
        raise ValueError(f"{what} is {entry!r:.60}, not numbers by name")
    if lacking := set(names) - entry.keys():
        raise ValueError(f"{what} lacks {', '.join(sorted(lacking))}")
    for name, value in entry.items():
        # a truth value is an int to Python; an infinite number, and none (NaN), are floats
        if type(value) not in (int, float):
            raise ValueError(f"{name} of {what} is {value!r:.60}, not a number")
        if name in COUNTS and (type(value) is float or value < 0):
            raise ValueError(f"{name} of {what} is {value!r:.60}, not a count")
        float(value)  # OverflowError for a whole number that is none of a run's


@contextlib.contextmanager
def told_if_damaged(path: Path) -> Iterator[None]:
    """Turn whatever reading a damaged file of a checkpoint raises into a ValueError of one line."""
    try:
        yield
    except DAMAGES as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        missing = isinstance(error, FileNotFoundError)
        how = (
            "missing, likely deleted or left out of a copy"
            if missing
            else f"damaged ({text:.150}), likely changed by hand or copied in part"
        )
        raise ValueError(
            f"{path} is {how}, so no run can go on from this checkpoint: put the file back from a "
            "copy, or train with resume=False to start afresh"
        ) from error


def load_checkpoint(
    folder: Path | str, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Put a checkpoint's weights and optimizer tensors in place; its `state` is for read_state.

    Raises ValueError, with the model untouched, for a missing or damaged file, when the tensors are
    not those of `model`, and when the rest of the model is not what it was: the frozen weights, the
    dropout.
    """
    folder = Path(folder)
    trained = _trained(model)
    with told_if_damaged(folder / WEIGHTS_FILE):
        weights = load_file(folder / WEIGHTS_FILE)
    saved, here = (
        {name: list(tensor.shape) for name, tensor in tensors.items()}
        for tensors in (weights, trained)
    )
    if saved != here:
        name = min(name for name in saved.keys() | here.keys() if saved.get(name) != here.get(name))
        raise ValueError(
            f"{folder} is of another model, or other parameters are frozen: {name} has shape "
            f"{saved.get(name)} there, {here.get(name)} here (None: not trained). Resume with "
            "the model of that run"
        )
    with told_if_damaged(folder / OPTIMIZER_FILE):
        averages = load_file(folder / OPTIMIZER_FILE)
        # a parameter has its averages from its first gradient on
        if strange := {name.rpartition("|")[0] for name in averages} - trained.keys():
            raise ValueError(f"it has averages of {min(strange)!r}, which does not train")
    _check_rest(folder, model)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(weights[name])
    for key, value in averages.items():
        name, _, field = key.rpartition("|")
        # the step count of an AdamW that is not fused stays on the CPU, beside a model on a GPU
        on_cpu = field == "step" and not optimizer.defaults.get("fused")
        device = torch.device("cpu") if on_cpu else trained[name].device
        optimizer.state[trained[name]][field] = value.to(device)


def check_result(model: torch.nn.Module, folder: Path | str) -> None:
    """Refuse, before a run, a model whose result save_result could not save so that it can be
    loaded again, and a folder that holds a result of another kind."""
    adapter = adapts(model)
    check_kind(folder, adapter=adapter)
    rest = trained_beside_lora(model) if adapter else []
    if rest:
        merged = "model.merge_and_unload()" if is_of_peft(model) else "merge_lora(model)"
        raise ValueError(
            f"an adapter's files cannot hold {rest[0]} (one of {len(rest)} that train beside "
            "LoRA): freeze them, or train without output_dir and then save "
            f"{merged}.save_pretrained(folder)"
        )
    # a model without an output head has none, and loop.probes refuses it
    generates = getattr(model, "generation_config", None) is not None
    if isinstance(model, PreTrainedModel) and generates and not adapter:
        try:
            model.generation_config.validate(strict=True)
        except ValueError as error:  # as some models of the hub ship, and save_pretrained refuses
            reason = " ".join(str(error).split())
            raise ValueError(
                f"this model could not be saved after the run: {reason:.250} … Change "
                "model.generation_config (do_sample = True lets it sample), then train"
            ) from error
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
    """Save what a run has made, into an empty folder: the adapter of a model with LoRA layers
    (chapter 05) or of PEFT, else the model; the tokenizer."""
    if is_of_peft(model):
        write_peft_adapter(model, Path(folder))
    elif adapts(model):
        write_adapter(model, Path(folder))
    else:
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def name_result(model: PreTrainedModel, folder: Path | str | None) -> None:
    """A whole model that was trained is another base than the one it was loaded from: from now on
    it is called after the folder its run saved it in, or nothing."""
    if not adapts(model):
        model.name_or_path = str(folder or "")


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


def _trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """What a run trains, by name."""
    return {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }


def _check_rest(folder: Path, model: torch.nn.Module) -> None:
    """Refuse a model that differs from the checkpoint's in what a checkpoint does not hold."""
    state = read_state(folder)
    there, here = state.get("model", {}), _describe(model)
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if names:
        name = names[0]
        raise ValueError(
            f"{folder} belongs to a run with other {', '.join(names[:3])} of the model: {name} "
            f"is {there.get(name)} there, {here.get(name)} here. Resume with the model of that run"
        )
    check_fingerprint(state["frozen"], _frozen(model), f"{folder} belongs to a run on one base")


def _describe(model: torch.nn.Module) -> dict[str, Any]:
    """What a run that goes on must find as it was, beside weights: JSON values by name.

    The entries of the model's configuration (its dropout among them), what LoRA's layers have for
    rank, alpha and dropout, and the configurations of PEFT's adapters.
    """
    described = {}
    if is_of_peft(model):
        described["active adapters"] = list(model.active_adapters)
        for adapter, settings in model.peft_config.items():
            text = json.dumps(settings.to_dict(), default=_as_text)
            described |= {
                f"{adapter}.{name}": value
                for name, value in json.loads(text).items()
                if name not in NOT_OF_PEFT
            }
        model = model.get_base_model()
    if isinstance(model, PreTrainedModel):
        config = json.loads(json.dumps(model.config.to_dict(), default=str))
        described |= {name: value for name, value in config.items() if name not in NOT_COMPUTED}
    layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
    for name in ("rank", "alpha"):
        described[name] = sorted({getattr(layer, name) for layer in layers})
    described["dropout"] = sorted({layer.lora_dropout.p for layer in layers})
    return described


def _as_text(value: Any) -> str | list[str]:
    # the names of targets are a set, which has no order
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)


def _frozen(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    """What a run does not train, by name."""
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
    ]
