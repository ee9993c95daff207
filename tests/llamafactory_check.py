"""Run in LLaMA-Factory's environment by test_llamafactory_configs.py: does the installed version
know these keys, and would it accept these values?

Standard input: JSON with "files", the keys of each file by name; "lines", single settings; "data",
a folder with dataset_info.json, and "names" to look up there. The file named on the command line
gets JSON with what is wrong with each file ([] when nothing is), the fate of each line, the columns
of the data sets, whether checkpointing is on, and what `chat` says against each file. Standard
output is LLaMA-Factory's own.

The parser of a YAML file checks names and hardly any value: it takes `stage: foo`. The parser of
the command line has the types and choices of the same argument classes, so values go through it.
Neither class is made on that way, hence no card and no launcher is asked for. At last the files go
through LLaMA-Factory's own get_train_args or get_infer_args, on the CPU.
"""

import contextlib
import dataclasses
import io
import json
import sys
import tempfile
import types
import typing
from pathlib import Path

from llamafactory.data.parser import get_dataset_list
from llamafactory.data.template import TEMPLATES
from llamafactory.hparams import parser as factory
from llamafactory.model import load_model, load_tokenizer
from llamafactory.webui.common import DEFAULT_CACHE_DIR, create_ds_config
from transformers import HfArgumentParser
from transformers.utils import logging

CLASSES = {"train": factory._TRAIN_ARGS, "infer": factory._INFER_ARGS}
PARSERS = {kind: HfArgumentParser(classes) for kind, classes in CLASSES.items()}
# what depends on the machine, and what replaces it here; DeepSpeed wants a launcher
ON_THIS_MACHINE = {"use_cpu": True, "bf16": False}
MODEL = {"model_name_or_path": "somewhere"}
# values that the argument classes leave open, and that LLaMA-Factory looks up later
OPEN = {
    "template": set(TEMPLATES),
    "quantization_bit": {2, 3, 4, 5, 6, 8},
    "report_to": {"none", "tensorboard", "wandb", "mlflow", "neptune", "swanlab", "trackio", "all"},
}


def fields_of(kind: str) -> dict[str, dataclasses.Field]:
    """Every field that a file of this kind may set, by its name."""
    return {
        field.name: field
        for argument_class in CLASSES[kind]
        for field in dataclasses.fields(argument_class)
        if field.init
    }


def wrong_values(keys: dict, kind: str) -> list[str]:
    """One line for each key that is no field, and for each value that the field does not take."""
    found, fields = [], fields_of(kind)
    for key, value in keys.items():
        if key not in fields:
            found.append(f"{key}: no such argument")
            continue
        if key in OPEN and value not in OPEN[key]:
            found.append(f"{key}: {value!r} is unknown")
        # the command line turns text into numbers; a file does not
        if isinstance(value, str) and not takes_text(key, kind):
            found.append(f"{key}: {value!r} is text")
        message = io.StringIO()
        arguments = [f"--{key}={json.dumps(value) if isinstance(value, bool) else value}"]
        needed = [] if key in MODEL else [f"--{name}={text}" for name, text in MODEL.items()]
        with contextlib.redirect_stderr(message), contextlib.suppress(SystemExit):
            PARSERS[kind].parse_known_args(arguments + needed)
        if message.getvalue():
            found.append(message.getvalue().strip().rpartition("error: ")[2])
    return found


def takes_text(key: str, kind: str) -> bool:
    """Whether the annotation of a field leaves room for text."""
    for argument_class in CLASSES[kind]:
        annotation = typing.get_type_hints(argument_class).get(key)
        if annotation is not None:
            parts = [annotation]
            if typing.get_origin(annotation) in (typing.Union, types.UnionType):
                parts = list(typing.get_args(annotation))
            return any(
                typing.get_origin(part) in (typing.Literal, list)
                or (isinstance(part, type) and issubclass(part, str))
                for part in parts
            )
    return True


def refusal(keys: dict, kind: str) -> list[str]:
    """What LLaMA-Factory itself says against a whole file on this machine."""
    keys = {key: value for key, value in keys.items() if key != "deepspeed"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            if kind == "train":
                factory.get_train_args(keys | ON_THIS_MACHINE | {"output_dir": folder})
            else:
                factory.get_infer_args(keys)
        except (ValueError, ImportError, AssertionError, TypeError) as error:
            return [f"{type(error).__name__}: {error}"]
    return []


def wrong_engine(path: str) -> list[str]:
    """What an engine file has that LLaMA-Factory's own ZeRO-2 file has not, or otherwise."""
    if not Path(path).is_file():
        return [f"deepspeed: no file {path}"]
    ours = json.loads(Path(path).read_text(encoding="utf-8"))
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        create_ds_config()
        theirs = json.loads(Path(DEFAULT_CACHE_DIR, "ds_z2_config.json").read_text())
    assert Path.cwd() == before
    found = [f"deepspeed: {key} is not in LLaMA-Factory's own" for key in ours.keys() - theirs]
    for key in ours.keys() & theirs.keys():
        mine, its = ours[key], theirs[key]
        if isinstance(mine, dict):
            differs = {name for name, value in mine.items() if its.get(name, its) != value}
            found += [f"deepspeed: {key}.{name} differs" for name in sorted(differs)]
        elif mine != its:
            found.append(f"deepspeed: {key} differs")
    return found


def check_file(keys: dict) -> list[str]:
    kind = "train" if "stage" in keys else "infer"
    engine = wrong_engine(keys["deepspeed"]) if "deepspeed" in keys else []
    return wrong_values(keys, kind) or engine or refusal(keys, kind)


def line_fate(key: str, value: object) -> dict:
    """Is the key a field, is the value its default, and what is said when it is set?"""
    kind = "train" if key in fields_of("train") else "infer"
    field = fields_of(kind).get(key)
    if field is None:
        return {"known": False}
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    said = io.StringIO()
    handler = logging.logging.StreamHandler(said)
    logging.get_logger().addHandler(handler)
    keys = MODEL | {key: value}
    try:
        with tempfile.TemporaryDirectory() as folder:
            if kind == "train":
                given = {"output_dir": folder, "use_cpu": True} | keys
                if key != "deepspeed":  # its own package is not in this environment
                    factory._parse_train_args(given)
    finally:
        logging.get_logger().removeHandler(handler)
    return {
        "known": True,
        "wrong": wrong_values({key: value}, kind),
        "default": getattr(default, "value", default),
        "help": field.metadata.get("help", ""),
        "warns": "deprecated" in said.getvalue(),
    }


def is_checkpointing(keys: dict, model: str) -> bool:
    """Does a model that LLaMA-Factory loads to train it compute its layers again?"""
    with tempfile.TemporaryDirectory() as folder:
        given = {"model_name_or_path": model, "output_dir": folder, "dataset": "none"} | keys
        model_args, _, _, finetuning_args, _ = factory.get_train_args(given | ON_THIS_MACHINE)
        tokenizer = load_tokenizer(model_args)["tokenizer"]
        return load_model(tokenizer, model_args, finetuning_args, True).is_gradient_checkpointing


def main() -> None:
    request = json.load(sys.stdin)
    answer = {
        "files": {name: check_file(keys) for name, keys in request["files"].items()},
        "chat": {
            name: refusal(keys, "infer")
            for name, keys in request["files"].items()
            if name.endswith(".yaml")
        },
        "checkpointing": {
            json.dumps(keys): is_checkpointing(keys, request["model"])
            for keys in (
                {},
                {"gradient_checkpointing": False},
                {"disable_gradient_checkpointing": True},
            )
        },
        "lines": [line_fate(key, value) for key, value in request["lines"]],
        "data": {
            name: dataclasses.asdict(get_dataset_list([name], request["data"])[0])
            for name in request["names"]
        },
    }
    Path(sys.argv[1]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
