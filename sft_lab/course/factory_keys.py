"""LLaMA-Factory's settings: the YAML files of a run, a few words on every key, and what became of
the keys of an older walk-through.

`training_keys` chooses, `write_yaml` writes. The files in configs/llamafactory/ are made by these
two: `python -m sft_lab.course.factory_keys` writes them again. LLaMA-Factory itself is not
imported, for it needs an environment of its own (chapter 10); tests/test_llamafactory_configs.py
holds every key, every value and both columns of `WALK_THROUGH` against the installed version.
"""

from pathlib import Path
from typing import NamedTuple

Value = str | int | float | bool
Keys = dict[str, Value]

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "llamafactory"
METHODS = ("lora", "full", "freeze", "qlora")
RANK = 64  # of the walk-through; alpha is twice the rank
TRAINED_LAYERS = 2  # of "freeze"
# name: where the weights are, the chat template, and the short name in paths
MODELS = {
    "Qwen3-0.6B": ("Qwen/Qwen3-0.6B-Base", "qwen3", "qwen3_0.6b"),
    "Qwen2.5-7B": ("Qwen/Qwen2.5-7B", "qwen", "qwen2.5_7b"),
}
DEEPSPEED = "configs/llamafactory/ds_z2.json"
# section: its keys, in the order in which a file shows them, with what each does
SECTIONS = {
    "model": {
        "model_name_or_path": "a folder, or a name on the hub",
        "trust_remote_code": "true would run Python code that lies beside the weights",
        "quantization_bit": "frozen weights in 4 bits; needs CUDA and bitsandbytes",
        "quantization_method": "bitsandbytes, at loading",
        "quantization_type": "4-bit normal floats",
        "double_quantization": "the scales of the blocks in 8 bits",
        "disable_gradient_checkpointing": "false: activations are computed again in backward",
        "adapter_name_or_path": "the output_dir of the training",
    },
    "method": {
        "stage": "supervised fine-tuning; others: pt, rm, ppo, dpo, kto",
        "do_train": "train, and not only evaluate",
        "finetuning_type": "lora, full, freeze or oft",
        "lora_target": "all linear layers except the head",
        "lora_rank": "columns of B, rows of A",
        "lora_alpha": "the update is scaled by alpha / rank",
        "lora_dropout": "of the inputs of A, in training",
        "freeze_trainable_layers": "the last two layers; -2 would be the first two",
        "freeze_trainable_modules": "all of a layer, or names such as mlp",
        "deepspeed": "ZeRO-2; start with FORCE_TORCHRUN=1",
    },
    "data": {
        "dataset": "names in dataset_info.json, separated by commas",
        "dataset_dir": "the folder with dataset_info.json",
        "template": "must be the model's own",
        "enable_thinking": "false: the empty thought belongs to the prompt",
        "cutoff_len": "tokens; a longer row loses its end, and maybe its stop token",
        "train_on_prompt": "true grades the question too",
        "mask_history": "true grades the last answer of a conversation only",
        "packing": "true joins rows; neat_packing keeps them from seeing each other",
        "val_size": "share of the rows that is held out",
        "eval_dataset": "names of other rows for evaluation, instead of val_size",
        "preprocessing_num_workers": "processes that turn text into tokens",
    },
    "training": {
        "per_device_train_batch_size": "rows at a time on each card",
        "gradient_accumulation_steps": "so many times, then one step",
        "num_train_epochs": "times through the data",
        "learning_rate": "the highest, after warm-up",
        "lr_scheduler_type": "falls to 0 along a cosine",
        "warmup_steps": "below 1 a share of all steps; was warmup_ratio",
        "bf16": "cards from compute capability 8.0; on a T4 use fp16: true",
        "seed": "of the order of rows and of A",
        "use_cpu": "the card, if there is one, is left alone",
    },
    "logs": {
        "output_dir": "adapter or model, logs and checkpoints",
        "overwrite_output_dir": "false: a second run goes on from the last checkpoint there",
        "logging_steps": "steps between two lines of the log",
        "save_steps": "steps between two checkpoints",
        "eval_strategy": "loss on the held-out rows; the default is no",
        "eval_steps": "steps between two evaluations",
        "per_device_eval_batch_size": "rows at a time in an evaluation",
        "compute_accuracy": "eval_accuracy: the mean of the rows' token accuracies",
        "report_to": "none, tensorboard, wandb, and others",
        "plot_loss": "writes training_loss.png beside the weights",
    },
    "export": {
        "export_dir": "the merged model",
        "export_size": "GB a file at most",
        "export_device": "cpu, or auto for the card",
        "export_legacy_format": "true would write pickled .bin files",
    },
}
COMMENTS = {key: words for keys in SECTIONS.values() for key, words in keys.items()}
LORA: Keys = {
    "lora_target": "all",
    "lora_rank": RANK,
    "lora_alpha": 2 * RANK,
    "lora_dropout": 0.05,
}
METHOD_KEYS: dict[str, Keys] = {
    "lora": LORA,
    "full": {},
    "freeze": {"freeze_trainable_layers": TRAINED_LAYERS, "freeze_trainable_modules": "all"},
    "qlora": LORA
    | {
        "quantization_bit": 4,
        "quantization_method": "bnb",
        "quantization_type": "nf4",
        "double_quantization": True,
    },
}
ALWAYS: Keys = {
    "trust_remote_code": False,
    "stage": "sft",
    "do_train": True,
    "dataset": "my_custom_sft",
    "dataset_dir": "configs/llamafactory/data",
    "train_on_prompt": False,
    "mask_history": False,
    "packing": False,
    "val_size": 0.1,
    "preprocessing_num_workers": 4,
    "num_train_epochs": 3.0,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "bf16": True,
    "seed": 42,
    "overwrite_output_dir": False,
    "logging_steps": 10,
    "save_steps": 500,
    "eval_strategy": "steps",
    "eval_steps": 500,
    "report_to": "tensorboard",
    "plot_loss": True,
}


def training_keys(
    model: str,
    method: str,
    *,
    cutoff_len: int = 2048,
    batch_size: int = 2,
    accumulation: int = 8,
    checkpointing: bool = True,
    zero: bool = False,
) -> Keys:
    """The keys of one training run, in no particular order (`write_yaml` puts them in theirs).

    model: of MODELS; method: of METHODS; zero: DeepSpeed ZeRO-2 over several cards.
    Raises ValueError for another model or method, and for sizes below 1.
    """
    path, template, short = find_model(model)
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; choose one of {', '.join(METHODS)}")
    for name, size in (
        ("cutoff_len", cutoff_len),
        ("batch_size", batch_size),
        ("accumulation", accumulation),
    ):
        if size < 1:
            raise ValueError(f"{name} is {size}; it must be at least 1")
    keys: Keys = ALWAYS | {
        "model_name_or_path": path,
        "template": template,
        "finetuning_type": "lora" if method == "qlora" else method,
        "disable_gradient_checkpointing": not checkpointing,
        "cutoff_len": cutoff_len,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": batch_size,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": 1e-4 if method in ("lora", "qlora") else 1e-5,
        "output_dir": f"saves/{short}/{'zero2' if zero else method}",
    }
    if template == "qwen3":
        keys["enable_thinking"] = False
    if zero:
        keys["deepspeed"] = DEEPSPEED
    return keys | METHOD_KEYS[method]


def export_keys(model: str) -> Keys:
    """The keys that merge a LoRA adapter into its base; `llamafactory-cli chat` takes them too."""
    path, template, short = find_model(model)
    return {
        "model_name_or_path": path,
        "trust_remote_code": False,
        "adapter_name_or_path": f"saves/{short}/lora",
        "finetuning_type": "lora",
        "template": template,
        "export_dir": f"models/{short}_merged",
        "export_size": 4,
        "export_device": "cpu",
        "export_legacy_format": False,
    }


def find_model(model: str) -> tuple[str, str, str]:
    """Weights, template and short name of one of MODELS; ValueError for another."""
    if model not in MODELS:
        raise ValueError(f"no model named {model!r} here; known: {', '.join(MODELS)}")
    return MODELS[model]


def write_yaml(keys: Keys, *, comments: bool = True) -> str:
    """Keys as the text of a YAML file, in the order of SECTIONS, a few words beside each.

    Raises ValueError for a key that SECTIONS does not explain.
    """
    if unknown := keys.keys() - COMMENTS.keys():
        raise ValueError(f"no words for {', '.join(sorted(unknown))}: add them to SECTIONS")
    blocks = []
    for section, explained in SECTIONS.items():
        present = [key for key in explained if key in keys]
        if not present:
            continue
        lines = [f"{key}: {_write_value(keys[key])}" for key in present]
        if comments:
            column = max(map(len, lines)) + 2
            lines = [
                f"{line:{column}}# {COMMENTS[key]}"
                for key, line in zip(present, lines, strict=True)
            ]
        blocks.append("\n".join([f"### {section}", *lines]))
    return "\n\n".join(blocks) + "\n"


def _write_value(value: Value) -> str:
    """A small number as 1.0e-5: YAML reads Python's 1e-05, which has no dot, as text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and 0 < value < 1e-3:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    return str(value)


def command(keys: Keys, file: str) -> str:
    """What to type for a file with these keys."""
    if "export_dir" in keys:
        return f"llamafactory-cli export {file}"
    start = "FORCE_TORCHRUN=1 " if "deepspeed" in keys else ""
    return f"{start}llamafactory-cli train {file}"


class OldKey(NamedTuple):
    """One line of an older walk-through, and what the installed LLaMA-Factory makes of it.

    fate: "kept" (it means what it meant), "default" (kept, and the value is the default: the line
    may go), "warns" (accepted with a warning that it will go), "useless" (accepted, and another
    key decides), "missing" (the file is not in the installed package), "refused" (unknown key).
    new: the line to write now; "" where none is needed.
    """

    old: str
    fate: str
    new: str
    why: str


# The lines of the walk-through that this course retraces, then lines that other pages still show.
WALK_THROUGH = (
    OldKey("model_name_or_path: Qwen/Qwen2.5-7B", "kept", "", "needs the hub; or a folder"),
    OldKey(
        "trust_remote_code: true",
        "kept",
        "trust_remote_code: false",
        "Qwen needs no code of its own; true runs whatever Python the repository holds",
    ),
    OldKey("stage: sft", "default", "", "the default"),
    OldKey("do_train: true", "kept", "", "without it nothing is trained"),
    OldKey("finetuning_type: lora", "default", "", "the default"),
    OldKey("lora_target: all", "default", "", "the default: all linear layers but the head"),
    OldKey("lora_rank: 64", "kept", "", "the default is 8"),
    OldKey("lora_alpha: 128", "kept", "", "left out, it is twice the rank: the same"),
    OldKey("lora_dropout: 0.05", "kept", "", "the default is 0"),
    OldKey("dataset: my_custom_sft", "kept", "", "looked up in dataset_dir, by default ./data"),
    OldKey("template: qwen", "kept", "", "for Qwen2.5; a Qwen3 model wants qwen3"),
    OldKey("cutoff_len: 2048", "default", "", "the default"),
    OldKey("preprocessing_num_workers: 16", "kept", "", "no more than there are cores"),
    OldKey("per_device_train_batch_size: 2", "kept", "", "the default is 8"),
    OldKey("gradient_accumulation_steps: 8", "kept", "", "the default is 1"),
    OldKey("num_train_epochs: 3.0", "default", "", "the default"),
    OldKey("learning_rate: 1.0e-4", "kept", "", "the default is 5e-5"),
    OldKey("lr_scheduler_type: cosine", "kept", "", "the default is linear"),
    OldKey(
        "warmup_ratio: 0.1", "warns", "warmup_steps: 0.1", "below 1, warmup_steps is a share now"
    ),
    OldKey("bf16: true", "kept", "", "refused where neither card nor processor can"),
    OldKey(
        "gradient_checkpointing: true",
        "useless",
        "disable_gradient_checkpointing: false",
        "LLaMA-Factory checkpoints by default, and gradient_checkpointing: false does not stop it",
    ),
    OldKey("logging_steps: 10", "kept", "", "the default is 500"),
    OldKey("save_steps: 500", "default", "", "the default"),
    OldKey("output_dir: saves/qwen2.5-7b/lora/my_sft", "kept", "", "holds the adapter alone"),
    OldKey("report_to: tensorboard", "kept", "", "the default is none"),
    OldKey("adapter_name_or_path: saves/qwen2.5-7b/lora/my_sft", "kept", "", "for the merge"),
    OldKey("export_dir: models/qwen2.5-7b-sft-merged", "kept", "", "for the merge"),
    OldKey("export_size: 4", "kept", "", "GB a file; the default is 5"),
    OldKey("export_legacy_format: false", "default", "", "the default; true would write pickles"),
    OldKey(
        "deepspeed: examples/deepspeed/ds_z2_config.json",
        "missing",
        f"deepspeed: {DEEPSPEED}",
        "the file is in the repository, not in the package that pip installs",
    ),
    OldKey("logging_dir: logs", "warns", "", "set TENSORBOARD_LOGGING_DIR instead"),
    OldKey(
        "overwrite_output_dir: true",
        "kept",
        "",
        "called deprecated; but without it a second run goes on from the last checkpoint",
    ),
    OldKey("evaluation_strategy: steps", "refused", "eval_strategy: steps", "renamed"),
    OldKey(
        "group_by_length: true",
        "refused",
        "train_sampling_strategy: group_by_length",
        "renamed",
    ),
    OldKey("no_cuda: true", "refused", "use_cpu: true", "renamed"),
    OldKey("num_layer_trainable: 2", "refused", "freeze_trainable_layers: 2", "renamed"),
    OldKey("name_module_trainable: all", "refused", "freeze_trainable_modules: all", "renamed"),
    OldKey("max_source_length: 1024", "refused", "cutoff_len: 1024", "one length for both"),
)


def all_files() -> dict[str, tuple[Keys, str]]:
    """Name of every file of configs/llamafactory/, its keys and its text."""
    files = {}
    for model, (_, _, short) in MODELS.items():
        runs = {method: training_keys(model, method) for method in METHODS}
        runs["zero2"] = training_keys(model, "full", zero=True)
        runs["export"] = export_keys(model)
        for run, keys in runs.items():
            name = f"{short}_{run}.yaml"
            typed = command(keys, f"configs/llamafactory/{name}")
            files[name] = (keys, f"# {typed}\n\n{write_yaml(keys)}")
    return files


if __name__ == "__main__":
    for name, (_, text) in all_files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
