"""Old names of the libraries and what they are called now, as data; and a check that a call still
fits its function.

Tutorials keep calling TRL, transformers and PEFT as they were. `RENAMED` is the table of chapter
07. `refusal` says why the installed library would refuse a call, without running it: the name is
gone, or the signature has no such argument. tests/test_parity.py holds both columns of the table,
and every call of the course itself, against the pinned versions.
"""

import ast
import importlib
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

LIBRARIES = ("transformers", "trl", "peft", "datasets")


def refusal(call: str) -> str | None:
    """Why the installed libraries would refuse `call`, in one line; None when they accept it.
    Nothing is run.

    call: a Python expression whose calls begin with a module, such as
    'trl.SFTConfig(max_seq_length=512)'; names in the arguments stand for anything. Arguments that a
    function hands on (**kwargs) are not looked into.
    Raises ValueError for an expression in which nothing is called.
    """
    calls = [node for node in ast.walk(ast.parse(call, mode="eval")) if isinstance(node, ast.Call)]
    if not calls:
        raise ValueError(f"{call!r} calls nothing")
    return next((reason for node in calls if (reason := refusal_of(node, {}))), None)


def refusal_of(node: ast.Call, names: Mapping[str, Any]) -> str | None:
    """`refusal` of one call of a parsed file; `names` are those that the file imported.

    None also for a call of something local. Where a list or dict is spread, f(*row, a=1), only `a`
    is looked at.
    """
    try:
        function = resolve(node.func, names)
    except AttributeError as error:
        return str(error)
    if function is None:
        return None
    if any(isinstance(value, ast.Starred) for value in node.args) or any(
        key.arg is None for key in node.keywords
    ):
        bind = inspect.Signature.bind_partial
        positional, keywords = [], [key.arg for key in node.keywords if key.arg is not None]
    else:
        bind, positional, keywords = (
            inspect.Signature.bind,
            node.args,
            [key.arg for key in node.keywords],
        )
    try:
        # following the wrappers of a class method, inspect drops one argument too many
        signature = inspect.signature(function, follow_wrapped=not inspect.ismethod(function))
        bind(signature, *positional, **dict.fromkeys(keywords))
    except TypeError as error:
        return f"{getattr(function, '__name__', function)}: {error}"
    except ValueError:  # built in, without a signature
        return None
    return None


def resolve(expression: ast.expr, names: Mapping[str, Any]) -> Any:
    """The object that a dotted name such as trl.SFTConfig means; None when it is not a name of a
    module or of `names`.

    Raises AttributeError where the module no longer has it.
    """
    if isinstance(expression, ast.Name):
        if expression.id in names:
            return names[expression.id]
        try:
            return (
                importlib.import_module(expression.id)
                if expression.id in (*LIBRARIES, "torch", "os")
                else None
            )
        except ImportError:
            return None
    if isinstance(expression, ast.Attribute):
        owner = resolve(expression.value, names)
        if owner is None:
            return None
        if not hasattr(owner, expression.attr):
            raise AttributeError(f"{getattr(owner, '__name__', owner)} has no {expression.attr}")
        return getattr(owner, expression.attr)
    return None


class Renamed(NamedTuple):
    """One row: how a tutorial calls it, how the pinned version does, and the release that brought
    the new call.

    fate of the old call: "refused" (see `refusal`), "fails" (only when it runs: its arguments are
    handed on), or "warns" (a FutureWarning; still accepted).
    """

    old: str
    new: str
    since: str
    fate: str = "refused"


RENAMED = (
    Renamed(
        'trl.DataCollatorForCompletionOnlyLM("<|im_start|>assistant\\n", tokenizer=tokenizer)',
        "trl.SFTConfig(completion_only_loss=True)",
        "trl 0.20",
    ),
    Renamed(
        "trl.SFTTrainer(model, tokenizer=tokenizer)",
        "trl.SFTTrainer(model, processing_class=tokenizer)",
        "trl 0.12",
    ),
    Renamed(
        "trl.SFTTrainer(model, max_seq_length=512)", "trl.SFTConfig(max_length=512)", "trl 0.16"
    ),
    Renamed(
        'trl.SFTTrainer(model, dataset_text_field="text")',
        'trl.SFTConfig(dataset_text_field="text")',
        "trl 0.9",
    ),
    Renamed("trl.SFTTrainer(model, packing=True)", "trl.SFTConfig(packing=True)", "trl 0.9"),
    Renamed("trl.SFTConfig(max_seq_length=512)", "trl.SFTConfig(max_length=512)", "trl 0.16"),
    Renamed(
        "trl.setup_chat_format(model, tokenizer)",
        "trl.clone_chat_template(model, tokenizer, source)",
        "trl 0.26",
    ),
    Renamed(
        "transformers.Trainer(model, tokenizer=tokenizer)",
        "transformers.Trainer(model, processing_class=tokenizer)",
        "transformers 4.46",
    ),
    Renamed(
        'transformers.TrainingArguments(evaluation_strategy="steps")',
        'transformers.TrainingArguments(eval_strategy="steps")',
        "transformers 4.41",
    ),
    Renamed(
        "transformers.TrainingArguments(warmup_ratio=0.1)",
        "transformers.TrainingArguments(warmup_steps=0.1)",
        "transformers 5",
    ),
    Renamed(
        "transformers.TrainingArguments(group_by_length=True)",
        'transformers.TrainingArguments(train_sampling_strategy="group_by_length")',
        "transformers 5",
    ),
    Renamed(
        'transformers.TrainingArguments(logging_dir="logs")',
        'os.environ.setdefault("TENSORBOARD_LOGGING_DIR", "logs")',
        "transformers 5",
    ),
    Renamed(
        "transformers.TrainingArguments(no_cuda=True)",
        "transformers.TrainingArguments(use_cpu=True)",
        "transformers 4.32",
    ),
    Renamed(
        "transformers.TrainingArguments(overwrite_output_dir=True)",
        "transformers.TrainingArguments()",
        "transformers 5",
    ),
    Renamed(
        "transformers.TrainingArguments(gradient_checkpointing=False)",
        "transformers.TrainingArguments(activation_checkpointing=False)",
        "transformers 5",
        "warns",
    ),
    Renamed("transformers.AdamW(weights)", "torch.optim.AdamW(weights)", "torch 1.2"),
    Renamed(
        "transformers.AutoModelWithLMHead.from_pretrained(folder)",
        "transformers.AutoModelForCausalLM.from_pretrained(folder)",
        "transformers 3",
    ),
    Renamed(
        "transformers.AutoModelForCausalLM.from_pretrained(folder, load_in_4bit=True)",
        "transformers.AutoModelForCausalLM.from_pretrained("
        "folder, quantization_config=transformers.BitsAndBytesConfig(load_in_4bit=True))",
        "transformers 4.30",
        "fails",
    ),
    Renamed(
        "peft.prepare_model_for_int8_training(model)",
        "peft.prepare_model_for_kbit_training(model)",
        "peft 0.4",
    ),
)
