"""Station "spare": LoRA by hand, and adapter files that PEFT reads and writes (derived in chapter
05).

A layer keeps its weights and learns an update of low rank beside them: y = W x + b + (alpha / rank)
B A x. B starts at zero, so the model of step 0 is the base model. Source: Hu et al. 2021, "LoRA:
Low-Rank Adaptation of Large Language Models", arXiv:2106.09685. Names, initial values and files are
those of the PEFT library.
"""

import json
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from sft_lab.arguments import real_number, whole_number
from sft_lab.files import as_folder, whole_files
from sft_lab.fingerprint import check_fingerprint, fingerprint
from sft_lab.stopping import end_ids, name_end_ids

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
GENERATION_FILE = "generation_config.json"
FINGERPRINT = "base_fingerprint"  # a key of the metadata that a safetensors file may hold
# the weights of a whole model, and the files of an adapter, as their libraries name them
WHOLE_MODEL = re.compile(r"(model|pytorch_model).*\.(safetensors|bin)(\.index\.json)?|.+\.gguf")
ADAPTER = re.compile(r"adapter_config\.json|adapter_model\.(safetensors|bin)")
# of every tensor in PEFT's file: there the base model is an attribute of two wrappers
PREFIX = "base_model.model."
# Options of PEFT's that leave plain LoRA what it is (which layers have an update, load_adapter
# reads off the tensors).
PLAIN_OPTIONS = {
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
}


class LoRALinear(nn.Module):
    """A frozen linear layer and its update: (..., in) -> (..., out), with A (rank, in) and B (out,
    rank) to learn."""

    def __init__(self, base_layer: nn.Linear, *, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        weight = base_layer.weight
        # beside half-precision weights A and B stay float32: steps smaller than their rounding
        # would be lost
        dtype = torch.promote_types(weight.dtype, torch.float32)
        kind = {"bias": False, "device": weight.device, "dtype": dtype}
        self.base_layer = base_layer.requires_grad_(False)
        self.lora_A = nn.Linear(base_layer.in_features, rank, **kind)
        self.lora_B = nn.Linear(rank, base_layer.out_features, **kind)
        self.lora_dropout = nn.Dropout(dropout)
        self.rank, self.alpha = rank, alpha
        # One of the two must not be zero, or neither would ever get a gradient. PEFT's choice: A
        # as torch draws the weights of a linear layer.
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)
        # a new module trains, so dropout would act inside a model in eval mode
        self.train(base_layer.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base_layer(x)
        update = self.lora_B(self.lora_A(self.lora_dropout(x.to(self.lora_A.weight.dtype))))
        return (y + update * (self.alpha / self.rank)).to(y.dtype)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """The linear layer with W + (alpha / rank) B A for its weight; changes it in place."""
        weight = self.base_layer.weight
        update = self.lora_B.weight @ self.lora_A.weight * (self.alpha / self.rank)
        # added in float32 and rounded once, at the end
        weight.copy_(weight.to(update.dtype) + update)
        return self.base_layer


def add_lora(
    model: PreTrainedModel,
    *,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: str | Iterable[str] = "all-linear",
) -> PreTrainedModel:
    """Freeze `model` and put a LoRALinear in the place of linear layers, in place; returns the
    model.

    Then A and B alone require gradients: rank * (in + out) numbers a layer. alpha / rank scales the
    update; dropout is the share of a layer's inputs that its update does not see in a training
    step. targets: "all-linear" (every nn.Linear except the output head) or ends of module names,
    such as ["q_proj", "v_proj"]. Save an adapter with save_adapter; before model.save_pretrained,
    merge_lora. Raises ValueError, with the model untouched, for a rank below 1, an alpha or dropout
    out of range, a target that matches nothing or the head, and a model with LoRA in it.
    """
    return _insert(model, _find_linears(model, targets), rank, alpha, dropout)


def merge_lora(model: PreTrainedModel) -> PreTrainedModel:
    """Add every update to its weight, in place: plain nn.Linear layers again, the same outputs, and
    no extra work.

    In float32 the logits move by rounding (1e-5); in half precision the sum is rounded to the
    weights' format. All stays frozen: model.requires_grad_(True) before training on. The model
    loses the name of its base, which it no longer is. Raises ValueError for a model without LoRA.
    """
    for name, layer in _lora_layers(model).items():
        model.set_submodule(name, layer.merge())
    model.name_or_path = ""
    return model


def remove_lora(model: PreTrainedModel) -> PreTrainedModel:
    """Take LoRA out, in place, without merging: the base model again, bit for bit, and frozen.

    To switch adapters on one base: load_adapter(remove_lora(model), folder). Raises ValueError
    without LoRA.
    """
    for name, layer in _lora_layers(model).items():
        model.set_submodule(name, layer.base_layer)
    return model


def save_adapter(model: PreTrainedModel, folder: Path | str) -> None:
    """Write A and B as adapter_model.safetensors and adapter_config.json, for load_adapter and for
    PEFT's PeftModel; and where the model stops, as generation_config.json. (PEFT reads its base's;
    there, model.generate(…, generation_config=GenerationConfig.from_pretrained(folder)).)

    With the weights goes the fingerprint of the base, which load_adapter compares. All files are
    written under other names, and the configuration, without which a folder is no adapter, takes
    its name last: a kill leaves a whole adapter or none. Other files in the folder stay. Raises
    ValueError for a model without LoRA, for one that trains more than LoRA, which these files
    cannot hold, and for a folder that holds a whole model; OutputError where files of these names
    are somebody else's.
    """
    _lora_layers(model)
    folder = as_folder("folder", folder)
    check_kind(folder, adapter=True)
    with whole_files(folder, last=(CONFIG_FILE,), keep=True) as new:
        write_adapter(model, new)


def write_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Write the files of `save_adapter` into a folder that is there, and empty."""
    layers = _lora_layers(model)
    if rest := trained_beside_lora(model):
        raise ValueError(
            f"an adapter cannot hold {rest[0]} (one of {len(rest)} that require gradients beside "
            "LoRA's): freeze them, or use merge_lora(model).save_pretrained(folder)"
        )
    (rank, alpha, dropout), *others = {
        (layer.rank, layer.alpha, layer.lora_dropout.p) for layer in layers.values()
    }
    if others:
        raise ValueError(
            f"the layers differ in (rank, alpha, dropout): {(rank, alpha, dropout)} and {others[0]}"
        )
    # The ends of the names, as people write them ("q_proj"), where they mean just these layers;
    # the full names where an end would also match a layer without an update.
    ends = {name.rpartition(".")[2] for name in layers}
    matched = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in ends}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.name_or_path or None,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "bias": "none",
        "init_lora_weights": True,
        "target_modules": sorted(ends if matched == layers.keys() else layers),
        "inference_mode": True,
    }
    tensors = {
        f"{PREFIX}{name}.{part}.weight": getattr(layer, part).weight.detach().contiguous()
        for name, layer in layers.items()
        for part in ("lora_A", "lora_B")
    }
    # in the header of the weights' file, so that it cannot stand beside other weights
    metadata = {"format": "pt", FINGERPRINT: fingerprint(_base_parameters(model))}
    save_file(tensors, folder / WEIGHTS_FILE, metadata=metadata)
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write_generation(model, folder)


def write_peft_adapter(model: nn.Module, folder: Path) -> None:
    """Write the adapters of PEFT's model as PEFT does, into an empty folder, and what PEFT leaves
    out: the fingerprint of the base and where the model stops. PEFT's README.md is not kept."""
    # False: "auto" may ask the hub whether the base has other embeddings
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    metadata = {"format": "pt", FINGERPRINT: fingerprint(_base_parameters(model))}
    for path in folder.rglob(WEIGHTS_FILE):  # adapters with a name have a folder of that name
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # off the file
        save_file(tensors, path, metadata)
    _write_generation(model, folder)


def adapts(model: nn.Module) -> bool:
    """Whether a run on `model` makes an adapter: it has LoRA layers, or is a model of PEFT."""
    return is_of_peft(model) or any(isinstance(module, LoRALinear) for module in model.modules())


def is_of_peft(model: nn.Module) -> bool:
    """Whether PEFT's get_peft_model made it; by the name of its class, so that PEFT need not be
    imported."""
    return any(kind.__name__ == "PeftModel" for kind in type(model).__mro__)


def load_adapter(model: PreTrainedModel, folder: Path | str) -> PreTrainedModel:
    """Put the adapter that save_adapter or PEFT wrote on its base model, in place; returns the
    model.

    As after add_lora, A and B alone require gradients. What the adapter says of where it stops goes
    into the model's configurations. Warns when the base is a quantised copy of the adapter's, and,
    for an adapter without a fingerprint (PEFT's), when its base has another name. Raises
    FileNotFoundError where a file is missing, and ValueError, with the model untouched, for damaged
    files, another kind of adapter, options that would compute something else (DoRA, rsLoRA,
    modules_to_save, …), another base, a whole model in the same folder, and a model with LoRA in
    it.
    """
    folder = as_folder("folder", folder)
    config = _read_config(folder)
    check_kind(folder, adapter=True)
    tensors, base = _read_tensors(folder)
    ends = _read_ends(folder)
    layers = _find_layers_of(tensors, model, folder, config)
    named, here = config.get("base_model_name_or_path"), model.name_or_path
    if base:
        trained_on = f"{folder} was trained on {named or 'a base without a name'}"
        check_fingerprint(base, _base_parameters(model), trained_on)
    elif named and here and Path(named).name != Path(here).name:
        warnings.warn(
            f"{folder} was trained on {named}, this model is {here}: are the weights the same?",
            stacklevel=2,
        )
    _insert(model, layers, config["r"], config["lora_alpha"], config["lora_dropout"])
    weights = {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}
    # not strict: the base's weights are not among them; names and shapes were checked above
    model.load_state_dict(weights, strict=False)
    if ends:
        name_end_ids(model, [*ends, *end_ids(model)])
    return model


def check_kind(folder: Path | str, *, adapter: bool) -> None:
    """Refuse a folder that holds the other kind of result: a whole model where an `adapter` is to
    be written or read, an adapter where a whole model is.

    transformers and PEFT put an adapter on the model that lies beside it, whichever of the two is
    the newer. Raises ValueError.
    """
    kinds = [(ADAPTER, "an adapter"), (WHOLE_MODEL, "a whole model")]
    (_, wanted), (other, found) = kinds if adapter else reversed(kinds)
    files = sorted(path.name for path in Path(folder).glob("*") if other.fullmatch(path.name))
    if files:
        raise ValueError(
            f"{folder} holds {found} ({files[0]}), and {wanted} beside it would be loaded together "
            "with it: take another folder, or move one of the two away"
        )


def trained_beside_lora(model: nn.Module) -> list[str]:
    """Names of the parameters that require gradients and that no adapter's file would hold."""
    if is_of_peft(model):
        return _trained_beside_peft(model)
    layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
    # by identity: a parameter that two modules share has two names
    own = {id(parameter) for layer in layers for parameter in layer.parameters()}
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in own
    ]


def _trained_beside_peft(model: nn.Module) -> list[str]:
    from peft import get_peft_model_state_dict  # whoever made the model has imported it

    if model.active_peft_config.is_prompt_learning:
        return []  # refused for another reason
    # by address: in the file the names are shorter
    held = {
        tensor.data_ptr()
        for adapter in model.peft_config
        for tensor in get_peft_model_state_dict(
            model, adapter_name=adapter, save_embedding_layers=False
        ).values()
    }
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.data_ptr() not in held
    ]


def _base_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a model without its LoRA, ours or PEFT's, by the names they have without
    it."""
    prefix = PREFIX if is_of_peft(model) else ""
    for name, parameter in model.named_parameters():
        if ".lora_" not in name:
            yield name.removeprefix(prefix).replace(".base_layer.", "."), parameter


def _write_generation(model: nn.Module, folder: Path) -> None:
    # use_diff: what differs from the defaults of the library
    text = model.generation_config.to_json_string(use_diff=True)
    (folder / GENERATION_FILE).write_text(text, encoding="utf-8")


def _read_ends(folder: Path) -> list[int]:
    """The token ids at which the model with this adapter stops; [] where its files do not say."""
    path = folder / GENERATION_FILE
    if not path.is_file():
        return []
    try:
        ends = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): copy or save it again") from error
    ends = [ends] if isinstance(ends, int) else ends or []
    if not all(isinstance(token_id, int) for token_id in ends):
        raise ValueError(f"{path}: eos_token_id is {ends!r}; it must be token ids")
    return ends


def _read_tensors(folder: Path) -> tuple[dict[str, torch.Tensor], str | None]:
    """A and B by PEFT's names, and the fingerprint of their base; None where there is none."""
    path = folder / WEIGHTS_FILE
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            base = (file.metadata() or {}).get(FINGERPRINT)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): copy or save it again") from error
    odd = [key for key in tensors if not key.endswith((".lora_A.weight", ".lora_B.weight"))]
    if odd or not tensors:
        raise ValueError(
            f"{path} holds {odd[0] if odd else 'nothing'}, and not only LoRA's A and B"
        )
    return tensors, base


def _find_layers_of(
    tensors: dict[str, torch.Tensor], model: PreTrainedModel, folder: Path, config: dict[str, Any]
) -> dict[str, nn.Linear]:
    """The model's layers that the tensors are updates of; ValueError where one does not fit."""
    rank, named = config["r"], config.get("base_model_name_or_path") or "another base"
    names = {key.removeprefix(PREFIX).rpartition(".lora_")[0] for key in tensors}
    if missing := names - {name for name, _ in model.named_modules()}:
        raise ValueError(
            f"{folder} has an update for {min(missing)} and this model has no such layer: it was "
            f"trained on {named}, this is {model.name_or_path or type(model).__name__}"
        )
    # "a" would also find "b.a"; then b.a has no tensor, which is refused
    layers = _find_linears(model, names)
    for name, layer in layers.items():
        shapes = {"lora_A": (rank, layer.in_features), "lora_B": (layer.out_features, rank)}
        for part, shape in shapes.items():
            key = f"{PREFIX}{name}.{part}.weight"
            found = tuple(tensors[key].shape) if key in tensors else None
            if found != shape:
                raise ValueError(
                    f"{folder / WEIGHTS_FILE}: {key} has shape {found}, this model and r = {rank} "
                    f"need {shape}: it was trained on {named}, or its two files are not of one run"
                )
    return layers


def _read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json, after checking that LoRALinear computes what it asks for."""
    path = folder / CONFIG_FILE
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} has no {name}: not an adapter, or one of several (PEFT gives each a "
                "subfolder), or an old one in adapter_model.bin: that is a pickle, which runs "
                "code when opened, and is not read"
            )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): copy or save it again") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ValueError(f"{path}: peft_type is not 'LORA': {str(config)[:200]}")
    for name in ("r", "lora_alpha", "lora_dropout"):
        if type(config.get(name)) not in (int, float):
            raise ValueError(f"{path}: {name} is {config.get(name)!r}; it must be a number")
    # other initial values change more: PiSSA, for one, changes the base weights
    plain = {"bias": ("none",), "init_lora_weights": (True, "gaussian", "orthogonal")}
    on = {name: value for name, value in config.items() if value and name not in PLAIN_OPTIONS}
    if refused := [
        f"{name} = {value!r}" for name, value in on.items() if value not in plain.get(name, ())
    ]:
        raise ValueError(
            f"{path}: plain LoRA does not compute {', '.join(refused)}; load it with PEFT"
        )
    return config


def _find_linears(model: PreTrainedModel, targets: str | Iterable[str]) -> dict[str, nn.Linear]:
    """The linear layers that `targets` means, by full name, in the model's order; ValueError if it
    is not clear."""
    modules, head = dict(model.named_modules()), model.get_output_embeddings()
    if tuned := [name for name, module in modules.items() if hasattr(module, "lora_A")]:
        raise ValueError(f"LoRA is already there, at {tuned[0]}: merge_lora or remove_lora first")
    # exactly nn.Linear: a quantised layer is a subclass, whose packed weight cannot take a merge
    linears = {
        name: module
        for name, module in modules.items()
        if type(module) is nn.Linear and module is not head
    }
    known = (
        "linear layers here end in: "
        f"{', '.join(dict.fromkeys(name.rpartition('.')[2] for name in linears))}"
    )
    if targets == "all-linear":
        targets = linears
    elif isinstance(targets, str):
        raise ValueError(
            f"targets is {targets!r}; give 'all-linear' or a list, [{targets!r}]; {known}"
        )
    targets, chosen = list(targets), set()
    for target in targets:
        matched = [name for name in modules if f".{name}".endswith(f".{target}")]
        odd = [modules[name] for name in matched if name not in linears]
        if odd or not matched:
            found = type(odd[0]).__name__ if odd else "nowhere in this model"
            found = (
                "the output head, and where it is tied a merge changes the embeddings"
                if head in odd
                else found
            )
            raise ValueError(f"target {target!r} is {found}; {known}")
        chosen.update(matched)
    if not chosen:
        there = sorted({type(module).__name__ for module in modules.values()})
        raise ValueError(
            f"no nn.Linear in targets {targets!r}; this model is built of {', '.join(there)}"
        )
    return {name: module for name, module in linears.items() if name in chosen}


def _insert(
    model: PreTrainedModel, layers: dict[str, nn.Linear], rank: int, alpha: float, dropout: float
) -> PreTrainedModel:
    rank = whole_number("rank", rank)
    alpha = real_number("alpha", alpha, above=0, advice="alpha / rank scales what LoRA learns")
    alpha = int(alpha) if alpha.is_integer() else alpha  # as PEFT writes it
    dropout = real_number("dropout", dropout, least=0, below=1, advice="0 drops nothing")
    model.requires_grad_(False)
    for name, layer in layers.items():
        model.set_submodule(name, LoRALinear(layer, rank=rank, alpha=alpha, dropout=dropout))
    return model


def _lora_layers(model: PreTrainedModel) -> dict[str, LoRALinear]:
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)
    }
    if not layers:
        raise ValueError("this model has no LoRA layer: add_lora or load_adapter first")
    return layers
