"""The course's run is the libraries' run: labels, losses, and every call that the course makes of
them (chapter 07)."""

import ast
import copy
import importlib
import warnings
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tolerances import LOSS
from torch.testing import assert_close
from transformers import (
    PrinterCallback,
    Trainer,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
)
from trl import SFTConfig, SFTTrainer

from sft_lab import atlas
from sft_lab.batches import group_by_length, pad_batch
from sft_lab.chat import render
from sft_lab.course import renamed
from sft_lab.examples import IGNORE_INDEX
from sft_lab.labels import encode_conversation, encode_conversations
from sft_lab.lora import LoRALinear, add_lora
from sft_lab.models import ATLAS_FOLDER
from sft_lab.train import train

ROOT = Path(__file__).resolve().parents[1]
STEPS, BATCH, RATE = 20, 8, 8e-5
SAME = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": BATCH,
    "learning_rate": RATE,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "train_sampling_strategy": "sequential",
    "bf16": False,
    "activation_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
}
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing"
)  # the old name, which TRL and PEFT still use


@pytest.fixture(scope="module")
def rows(tokenizer):
    """Conversations and examples in the order of sft_lab.train's batches."""
    found = [
        c
        for c in atlas.training_conversations(seed=3)
        if len(encode_conversation(c, tokenizer).input_ids) <= 36
    ]
    found = found[: STEPS * BATCH]
    examples = encode_conversations(found, tokenizer)
    batches = group_by_length([len(example.input_ids) for example in examples], BATCH, seed=0)
    order = [index for indices in batches for index in indices]
    return [found[i] for i in order], [examples[i] for i in order], examples


@pytest.fixture(scope="module")
def reference(model, tokenizer, rows):
    """The losses of a loop written out here, on the model's own loss."""
    ours = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(ours.parameters(), lr=RATE, weight_decay=0.0)
    schedule, losses = get_cosine_schedule_with_warmup(optimizer, 2, STEPS), []
    for first in range(0, STEPS * BATCH, BATCH):
        loss = ours(**pad_batch(rows[1][first : first + BATCH], tokenizer.pad_token_id)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(ours.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5, "nothing was learned, so equal losses would show little"
    return losses


def run(trainer):
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def sft_trainer(model, tokenizer, folder, data, *, peft_config=None, **switches):
    return SFTTrainer(
        model=copy.deepcopy(model),
        args=SFTConfig(output_dir=str(folder), **{**SAME, **switches}),
        train_dataset=Dataset.from_list(data),
        processing_class=copy.deepcopy(tokenizer),
        peft_config=peft_config,
    )


# --- the ladder
# -------------------------------------------------------------------------------------------------


@pytest.mark.numeric
def test_sft_lab_train_is_the_loop(model, tokenizer, rows, reference):
    history = train(
        copy.deepcopy(model),
        tokenizer,
        rows[2],
        batch_size=BATCH,
        learning_rate=RATE,
        progress=False,
    )
    assert_close(history.losses, reference, **LOSS)


@pytest.mark.numeric
def test_transformers_trainer_is_the_loop(model, tokenizer, rows, reference, tmp_path):
    trainer = Trainer(
        model=copy.deepcopy(model),
        args=TrainingArguments(output_dir=str(tmp_path), **SAME),
        train_dataset=rows[1],
        data_collator=lambda batch: pad_batch(batch, tokenizer.pad_token_id),
    )
    assert_close(run(trainer), reference, **LOSS)


SWITCHES = {
    "messages": {"assistant_only_loss": True},
    "8 x 1 accumulated": {
        "assistant_only_loss": True,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": BATCH,
    },
    "padding-free": {"assistant_only_loss": True, "padding_free": True, "max_length": None},
}


@pytest.mark.numeric
@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_trl_from_messages_is_the_loop(model, tokenizer, rows, reference, switches, tmp_path):
    trainer = sft_trainer(
        model, tokenizer, tmp_path, [{"messages": c} for c in rows[0]], **switches
    )
    prepared = [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]
    assert prepared == [(example.input_ids, example.labels) for example in rows[1]]
    assert_close(run(trainer), reference, **LOSS)


def test_trl_from_prompt_and_completion_as_text_is_the_loop(
    model, tokenizer, rows, reference, tmp_path
):
    """TRL appends the eos token, which is the stop token; the line break after it, never graded, is
    not there."""
    data = [
        {
            "prompt": render(c[:-1], tokenizer, add_generation_prompt=True),
            "completion": c[-1]["content"],
        }
        for c in rows[0]
    ]
    trainer = sft_trainer(model, tokenizer, tmp_path, data)
    for row, example in zip(trainer.train_dataset, rows[1], strict=True):
        assert (row["input_ids"], row["labels"]) == (example.input_ids[:-1], example.labels[:-1])
    assert_close(run(trainer), reference, **LOSS)


@pytest.mark.numeric
def test_trl_with_a_peft_config_is_the_loop_with_lora_by_hand(model, tokenizer, rows, tmp_path):
    torch.manual_seed(0)
    hand = add_lora(copy.deepcopy(model), rank=8, alpha=16)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = sft_trainer(
        model,
        tokenizer,
        tmp_path,
        [{"messages": c} for c in rows[0]],
        peft_config=lora,
        assistant_only_loss=True,
        learning_rate=2e-3,
    )
    with torch.no_grad():
        for name, layer in hand.named_modules():
            if isinstance(layer, LoRALinear):
                twin = trainer.model.get_submodule(f"base_model.model.{name}")
                twin.lora_A["default"].weight.copy_(layer.lora_A.weight)
    history = train(hand, tokenizer, rows[2], batch_size=BATCH, learning_rate=2e-3, progress=False)
    assert history.losses[-1] < history.losses[0] - 0.5
    assert_close(run(trainer), history.losses, **LOSS)


# --- labels
# -------------------------------------------------------------------------------------------------


def test_prompt_and_completion_grade_our_last_answer_and_the_line_break_after_it(
    model, tokenizer, conversations, tmp_path
):
    """And DataCollatorForCompletionOnlyLM, which searched for the marker, made the same labels as
    its successor."""
    kept = [
        c for row, c in enumerate(conversations) if row % 5
    ]  # in every fifth, answers begin with a line break
    data = [{"prompt": c[:-1], "completion": c[-1:]} for c in kept]
    prepared = sft_trainer(model, tokenizer, tmp_path, data, max_length=None).train_dataset
    marker = tokenizer("<|im_start|>assistant\n").input_ids
    assert len(kept) == 240
    for conversation, row in zip(kept, prepared, strict=True):
        ids, labels = row["input_ids"], row["labels"]
        ours = encode_conversation(conversation, tokenizer, graded="last", max_tokens=10_000)
        assert ids == ours.input_ids
        assert labels[:-1] == ours.labels[:-1]
        assert (labels[-1], ours.labels[-1], tokenizer.decode(ids[-1:])) == (
            ids[-1],
            IGNORE_INDEX,
            "\n",
        )
        start = max(i for i in range(len(ids)) if ids[i : i + len(marker)] == marker) + len(marker)
        assert labels == [IGNORE_INDEX] * start + ids[start:]


# --- old names and new
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", renamed.RENAMED, ids=lambda row: row.old[:60])
def test_the_old_call_is_refused_and_the_new_one_accepted(row):
    assert renamed.refusal(row.new) is None
    assert (renamed.refusal(row.old) is not None) == (row.fate == "refused")
    scope = {name: importlib.import_module(name) for name in renamed.LIBRARIES} | {
        "folder": str(ATLAS_FOLDER)
    }
    if row.fate == "fails":
        with pytest.raises(TypeError, match="unexpected keyword"):
            eval(row.old, scope)
    if row.fate == "warns":
        with pytest.warns(FutureWarning, match="deprecated and will be removed"):
            eval(row.old, scope)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            eval(row.new, scope)


def test_every_library_has_a_row_and_no_old_call_is_there_twice():
    assert {row.old.split(".")[0] for row in renamed.RENAMED} == {"trl", "transformers", "peft"}
    assert len({row.old for row in renamed.RENAMED}) == len(renamed.RENAMED)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("trl.SFTConfig(max_seq_length=512)", "unexpected keyword argument 'max_seq_length'"),
        ("trl.DataCollatorForCompletionOnlyLM('x')", "trl has no DataCollatorForCompletionOnlyLM"),
        ("trl.SFTTrainer()", "missing a required argument: 'model'"),
        ("trl.SFTTrainer(model, args=trl.SFTConfig(bf17=True))", "bf17"),
        ("peft.LoraConfig(**settings, rank=8)", "rank"),
    ],
)
def test_a_refusal_names_what_is_wrong(call, reason):
    assert reason in renamed.refusal(call)


@pytest.mark.parametrize(
    "call", ["trl.SFTConfig(**settings)", "print(1)", "trl.SFTTrainer(*given)", "model(x).loss()"]
)
def test_what_cannot_be_decided_is_not_refused(call):
    assert renamed.refusal(call) is None


def test_an_expression_without_a_call_is_an_error():
    with pytest.raises(ValueError, match="calls nothing"):
        renamed.refusal("trl.SFTConfig")


# --- the calls of the course
# ----------------------------------------------------------------------------------------


def library_calls(path: Path) -> list[tuple[ast.Call, dict]]:
    """Calls of what a file imports from the libraries, each with the names that it imported."""
    tree, names = ast.parse(path.read_text(encoding="utf-8")), {}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").split(".")[0] in renamed.LIBRARIES
        ):
            module = importlib.import_module(node.module)
            names |= {part.asname or part.name: getattr(module, part.name) for part in node.names}
        elif isinstance(node, ast.Import):
            names |= {
                part.asname or part.name: importlib.import_module(part.name)
                for part in node.names
                if part.name in renamed.LIBRARIES
            }

    def begins(node: ast.expr) -> str:
        while isinstance(node, ast.Attribute):
            node = node.value
        return node.id if isinstance(node, ast.Name) else ""

    return [
        (node, names)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and begins(node.func) in names
    ]


COURSE = {
    str(path.relative_to(ROOT)): path
    for folder in ("chapters", "sft_lab", "tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


@pytest.mark.parametrize("path", COURSE.values(), ids=COURSE)
def test_every_call_of_the_course_fits_the_pinned_versions(path):
    for node, names in library_calls(path):
        reason = renamed.refusal_of(node, names)
        assert reason is None, f"{path.name}:{node.lineno}: {reason}"


def test_the_calls_are_found_or_the_test_above_shows_nothing():
    assert sum(len(library_calls(path)) for path in COURSE.values()) > 40
    found = {
        ast.unparse(node.func)
        for node, _ in library_calls(COURSE["chapters/07_the_same_run_in_trl_and_peft.py"])
    }
    assert {
        "SFTTrainer",
        "SFTConfig",
        "Trainer",
        "TrainingArguments",
        "LoraConfig",
        "Dataset.from_list",
    } <= found
