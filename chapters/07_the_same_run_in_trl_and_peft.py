# %% [markdown]
# # 07 · The same run in TRL and PEFT
#
# **The question.** You can write SFT by hand. Most people call TRL and PEFT. Do these libraries
# train the same thing, and if not, which default made the difference?
#
# **By the end you can**
# - *show* that two training runs are the same, from the labels to the last loss;
# - *choose* every field of an `SFTConfig` because you measured what it changes;
# - *translate* an old tutorial into calls that today's versions accept.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 03 to 05 | CPU, no network | about a minute | 5, about 40 minutes | C8 L4 L5 |

# %% tags=["setup"]
import copy
import ctypes
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from pathlib import Path
from unittest import mock

import datasets
import matplotlib.pyplot as plt
import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
)
from trl import SFTConfig, SFTTrainer

# %% tags=["setup"]
from sft_lab import atlas, plots
from sft_lab.batches import group_by_length, pad_batch
from sft_lab.chat import encode_chat, generate_ids, render
from sft_lab.course import renamed
from sft_lab.course.checks import check
from sft_lab.course.views.ladder import TOLERANCE, differences, draw_ladder, explore_ladder
from sft_lab.course.views.widgets import show_widget
from sft_lab.kernels import short_rows
from sft_lab.labels import IGNORE_INDEX, encode_conversation, encode_conversations
from sft_lab.loop.process import keep_freed_memory
from sft_lab.lora import LoRALinear, add_lora
from sft_lab.losses import graded_loss
from sft_lab.models import load
from sft_lab.train import evaluate, train

plots.style()
datasets.disable_progress_bars()
warnings.filterwarnings(
    "ignore", message=".*gradient_checkpointing"
)  # TRL and PEFT still use this old name inside
base, tokenizer = load("atlas-base")
pad = tokenizer.pad_token_id
scratch = tempfile.TemporaryDirectory()

# %% [markdown]
# ## 1 · The run that all others must equal
#
# Take 160 short conversations, in 20 batches of 8. The reference is the loop that chapter 04 took
# apart, written with the model's own loss. Its learning rate, 8e-5, is the one of the text this
# chapter follows.

# %%
STEPS, BATCH, RATE = 20, 8, 8e-5
conversations = [
    c for c in atlas.training_conversations(seed=0)[:400] if len(encode_chat(c, tokenizer)) <= 40
]
assert len(conversations) >= STEPS * BATCH + 40  # and forty to ask about in section 3
examples = encode_conversations(conversations[: STEPS * BATCH], tokenizer)
lengths = [len(example.input_ids) for example in examples]
batches = group_by_length(lengths, BATCH, seed=0)  # what sft_lab.train does with seed 0
order = [index for indices in batches for index in indices]

# %%
model = copy.deepcopy(base).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
schedule = get_cosine_schedule_with_warmup(optimizer, 2, STEPS)
reference = []
for indices in batches:
    loss = model(**pad_batch([examples[i] for i in indices], pad)).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    reference.append(loss.item())
    if len(reference) == 10:
        after_ten_steps = copy.deepcopy(model)  # section 3 compares others with it

# %% [markdown]
# **Predict.** `sft_lab.train` computes RMSNorm and attention in another order, and the output head
# only where a token is graded. How far do its 20 losses lie from these? A float32 near 3 has steps
# of 2.4e-7.

# %%
history = train(
    copy.deepcopy(base), tokenizer, examples, batch_size=BATCH, learning_rate=RATE, progress=False
)
rungs = {"sft_lab.train": history.losses}
print(f"the reference falls from {reference[0]:.2f} to {reference[-1]:.2f} nats per graded token")
assert reference[-1] < reference[0] - 0.5  # nothing learned would make equality cheap


def same_run(losses: list[float], others: list[float]) -> bool:
    """Whether two runs show the same losses: all of them, to TOLERANCE."""
    assert len(losses) == len(others) == STEPS
    return differences(losses, others).max() < TOLERANCE


print(f"{STEPS} losses, each less than {TOLERANCE:g} apart: {same_run(reference, history.losses)}")
assert same_run(reference, history.losses)

# %% [markdown]
# **Read.** A few roundings apart, after twenty updates that built on each other. From here on 1e-5
# nats is the limit for "the same run". Anything above it has a cause that you can find.
#
# ## 2 · Rung by rung: Trainer, SFTTrainer, PEFT
#
# We climb a ladder: each rung hands more of the work to a library, and must still show the
# reference's losses. `transformers.Trainer` runs the loop, `SFTTrainer` adds the data preparation,
# `peft_config` adds LoRA. **Predict:** how many settings must be named so that `Trainer` repeats
# our run?

# %%
SAME = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 8,
    "learning_rate": 8e-5,
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


def run(trainer: Trainer) -> list[float]:
    """Train; the loss of every step."""
    trainer.remove_callback(PrinterCallback)  # it would print every log
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


# %%
rungs["Trainer"] = run(
    Trainer(
        model=copy.deepcopy(base),
        args=TrainingArguments(output_dir=scratch.name, **SAME),
        train_dataset=[examples[i] for i in order],
        data_collator=lambda rows: pad_batch(rows, pad),
    )
)
print("Trainer, the same run:", same_run(reference, rungs["Trainer"]))
assert same_run(reference, rungs["Trainer"])

# %% [markdown]
# **Read.** Five: epochs, learning rate, schedule, warm-up and order. Eight rows a batch are the
# default. The other lines of `SAME` undo defaults of TRL, keep the run on the CPU, or concern
# logging and saving.
#
# ### SFTTrainer, from conversations
#
# `Trainer` took our token ids. `SFTTrainer` takes the conversations themselves: it renders,
# tokenises and masks. `assistant_only_loss=True` asks for labels from the template's generation
# tags (chapter 02).


# %%
class StopAfter(TrainerCallback):
    """Ends a run early; the schedule stays that of the whole run."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        control.should_training_stop |= state.global_step >= self.step


def sft_trainer(
    rows: list[dict], *, template=None, peft_config=None, stop_after=10, **switches
) -> SFTTrainer:
    """TRL's trainer on a fresh copy of the base model, with the settings of SAME except those
    given."""
    own = copy.deepcopy(tokenizer)
    own.chat_template = template or own.chat_template
    return SFTTrainer(
        model=copy.deepcopy(base),
        args=SFTConfig(output_dir=scratch.name, **{**SAME, **switches}),
        train_dataset=Dataset.from_list(rows),
        processing_class=own,
        peft_config=peft_config,
        callbacks=[StopAfter(stop_after)],
    )


# %%
messages = [{"messages": conversations[i]} for i in order]
trainer = sft_trainer(messages, assistant_only_loss=True, stop_after=STEPS)
pairs = [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]
ours = [(examples[i].input_ids, examples[i].labels) for i in order]
print(
    f"{sum(a == b for a, b in zip(pairs, ours, strict=True))} of {len(ours)} rows: the same ids "
    "and labels"
)
assert pairs == ours
rungs["SFTTrainer"] = run(trainer)
print("SFTTrainer, the same run:", same_run(reference, rungs["SFTTrainer"]))
assert same_run(reference, rungs["SFTTrainer"])

# %% [markdown]
# **Read.** Token by token the same labels, step by step the same losses. The chain from text to
# update is now checked against code that nobody here wrote.
#
# ### … and PEFT
#
# `peft_config` puts LoRA into the model. Chapter 05 wrote LoRA by hand. Both start with a random A,
# so we copy ours: equal seeds do not give equal numbers, because the two draw in another order.

# %%
_ = torch.manual_seed(0)
hand = add_lora(copy.deepcopy(base), rank=8, alpha=16)
lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
trainer = sft_trainer(
    messages, peft_config=lora, assistant_only_loss=True, learning_rate=2e-3, stop_after=STEPS
)
with torch.no_grad():
    for name, layer in hand.named_modules():
        if isinstance(layer, LoRALinear):
            twin = trainer.model.get_submodule(f"base_model.model.{name}")
            twin.lora_A["default"].weight.copy_(layer.lora_A.weight)
by_hand = train(
    hand, tokenizer, examples, batch_size=BATCH, learning_rate=2e-3, progress=False
).losses
by_peft = run(trainer)
print(
    f"LoRA falls from {by_hand[0]:.2f} to {by_hand[-1]:.2f}; PEFT, the same run: "
    f"{same_run(by_hand, by_peft)}"
)
assert by_hand[-1] < by_hand[0] - 0.5 and same_run(by_hand, by_peft)

# %%
ladder = {name: differences(reference, losses).max() for name, losses in rungs.items()}
ladder["SFTTrainer + peft_config\n(against LoRA by hand)"] = differences(by_hand, by_peft).max()
assert max(ladder.values()) < TOLERANCE
figure, ax = plt.subplots(figsize=(8.5, 3.2))
ax.axvspan(1e-8, TOLERANCE, color=plots.PROMPT, alpha=0.4, linewidth=0)
ax.scatter(
    [max(value, 1.2e-8) for value in ladder.values()],
    range(len(ladder)),
    s=110,
    color=plots.BLUE,
    zorder=3,
)
ax.set_yticks(range(len(ladder)), list(ladder))
ax.set(xscale="log", xlim=(1e-8, 1e-3), ylim=(len(ladder) - 0.5, -1.1))
ax.set_xlabel("largest difference to the reference, nats per graded token")
ax.text(1.3e-8, -0.65, "rounding", va="center", color=plots.MUTED)
ax.grid(axis="y", visible=False)
_ = figure.suptitle(
    f"Each rung repeats its reference: {STEPS} losses within {TOLERANCE:g} nats",
    x=0.01,
    ha="left",
    fontweight="bold",
)

# %% [markdown]
# ## 3 · An SFTConfig, field by field
#
# The text this chapter grew from sets six fields: `learning_rate=8e-5`, `num_train_epochs=1`,
# `per_device_train_batch_size=1`, `gradient_accumulation_steps=8`, `gradient_checkpointing=False`,
# `logging_steps=2`. Every other field keeps its default. **Predict:** which defaults would make
# another run of ours?
#
# The table reads the defaults from the installed classes, after they have been resolved.

# %%
named_by_the_text = {
    "learning_rate": 8e-5,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8,
    "activation_checkpointing": False,
    "logging_steps": 2,
}
fields = [
    *named_by_the_text,
    "bf16",
    "lr_scheduler_type",
    "warmup_steps",
    "train_sampling_strategy",
    "optim",
    "weight_decay",
    "max_grad_norm",
    "max_length",
    "assistant_only_loss",
    "completion_only_loss",
    "packing",
]
plain, theirs = (
    kind(output_dir=scratch.name, use_cpu=True) for kind in (TrainingArguments, SFTConfig)
)


def shown(value: object) -> str:
    """A value as you would type it; an enumeration by its text."""
    return str(getattr(value, "value", value))


print(f"{'field':29}{'text':>8}{'transformers':>19}{'TRL':>19}{'here':>12}")
for name in fields:
    given = shown(named_by_the_text[name]) if name in named_by_the_text else "·"
    there = shown(getattr(plain, name)) if hasattr(plain, name) else "no such field"
    print(
        f"{name:29}{given:>8}{there:>19}{shown(getattr(theirs, name)):>19}"
        f"{shown(SAME.get(name, '·')):>12}"
    )
unlike = {
    name
    for name in fields
    if hasattr(plain, name) and getattr(plain, name) != getattr(theirs, name)
}
assert unlike == {"learning_rate", "logging_steps", "bf16", "activation_checkpointing"}

# %% [markdown]
# **Read.** TRL differs from transformers in four fields of this list: learning rate,
# `logging_steps`, and the pair bf16 and checkpointing. Both save memory on a GPU (chapter 08); most
# CPUs emulate bf16, slowly. `gradient_checkpointing`, the text's name, is now
# `activation_checkpointing`.
#
# ### One switch at a time
#
# Now move one switch of our agreeing run, and nothing else. Ten steps are enough to see it, fewer
# where a step is slow.

# %%
tokens = [{"input_ids": examples[i].input_ids, "labels": examples[i].labels} for i in order]
as_messages = [
    {"prompt": conversations[i][:-1], "completion": conversations[i][-1:]} for i in order
]
as_text = [
    {
        "prompt": render(conversations[i][:-1], tokenizer, add_generation_prompt=True),
        "completion": conversations[i][-1]["content"],
    }
    for i in order
]
folder = Path(trl.__file__).parent / "chat_templates"
qwen3 = (folder / "qwen3.jinja").read_text(encoding="utf-8")
graded_further = sft_trainer(as_messages)

# %%
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    trainers = {
        "8 × 1 accumulated": sft_trainer(
            tokens, per_device_train_batch_size=1, gradient_accumulation_steps=8, stop_after=4
        ),
        "checkpointing": sft_trainer(tokens, activation_checkpointing=True, stop_after=6),
        "padding-free": sft_trainer(tokens, padding_free=True, max_length=None, stop_after=6),
        "prompt–completion, text": sft_trainer(as_text, stop_after=6),
        "bf16": sft_trainer(tokens, bf16=True, stop_after=2),
        "linear schedule": sft_trainer(tokens, lr_scheduler_type="linear"),
        "no warm-up": sft_trainer(tokens, warmup_steps=0),
        "random order": sft_trainer(tokens, train_sampling_strategy="random"),
        "packing": sft_trainer(tokens, packing=True, max_length=288, per_device_train_batch_size=1),
        "prompt–completion, messages": graded_further,
        "Qwen3's template": sft_trainer(messages, template=qwen3, assistant_only_loss=True),
        "everything graded": sft_trainer(messages, assistant_only_loss=False),
    }
    runs = {name: run(trainer) for name, trainer in trainers.items()}

# %% [markdown]
# A loss of ours and a loss of theirs compare number by number only where both grade the same tokens
# in the same step. The last five runs do not: other rows meet, or other tokens of them are graded.
# There a difference says "another run", and its size says nothing.

# %%
other_tokens = list(runs)[-5:]  # a step grades other tokens than the reference's
largest = {name: differences(reference, losses).max() for name, losses in runs.items()}
figure, ax = plt.subplots(figsize=(9.0, 5.0))
ax.axvspan(1e-8, TOLERANCE, color=plots.PROMPT, alpha=0.4, linewidth=0)
for row, (name, value) in enumerate(largest.items()):
    if name in other_tokens:
        ax.text(1.3e-8, row, "another run: its steps grade other tokens", va="center", fontsize=11)
        continue
    same = value <= TOLERANCE
    ax.plot([1e-8, max(value, 1.2e-8)], [row, row], color=plots.GRID, linewidth=6, zorder=1)
    ax.scatter(
        [max(value, 1.2e-8)], [row], s=90, color=plots.BLUE if same else plots.VERMILLION, zorder=3
    )
    words = "the same run" if same else f"{value:.1g}"
    ax.annotate(
        words,
        (max(value, 1.2e-8), row),
        (10, 0),
        textcoords="offset points",
        va="center",
        fontsize=11,
    )
ax.set_yticks(range(len(largest)), list(largest))
ax.set(xscale="log", xlim=(1e-8, 3), ylim=(len(largest) - 0.5, -1.2))
ax.set_xlabel("largest difference to the reference, nats per graded token")
ax.grid(axis="y", visible=False)
ax.text(1.3e-8, -0.75, "rounding", va="center", color=plots.MUTED)
_ = figure.suptitle(
    "Four switches change nothing, eight make another run", x=0.01, ha="left", fontweight="bold"
)

# %%
nothing = ["8 × 1 accumulated", "checkpointing", "padding-free", "prompt–completion, text"]
for name, value in largest.items():
    assert (value < TOLERANCE) == (name in nothing), (name, value)
    assert name in nothing or value > 20 * TOLERANCE, (name, value)
graded = sum(x != IGNORE_INDEX for _, labels in ours for x in labels)
more = (
    sum(x != IGNORE_INDEX for row in graded_further.train_dataset for x in row["labels"]) - graded
)
print(f"prompt–completion, messages: {more} tokens more are graded in {len(ours)} rows")
assert more == len(ours)

# %% [markdown]
# **Read**, from harmless to harmful.
#
# - **Nothing changes** with the text's own 8 × 1 batches: `Trainer` divides by the graded tokens of
#   the whole window (chapter 04). Checkpointing computes parts of the forward pass twice, with the
#   same result. Padding-free rows put the batch end to end and keep examples apart by
#   `position_ids`.
# - **bf16** differs in the *first* loss, before any update: its numbers have 8 significant bits.
#   Here the difference is small; it is the one switch that chapter 08 turns on.
# - **Schedule and warm-up** change the rate, so every loss after it.
# - **Order** changes which rows meet. So does **packing**: its rows hold other examples, and
#   another number of them.
# - **The template and the mask** change *what is taught*. Such a loss curve falls like any other.
#   Only a loss that you computed yourself, or the graded text, shows the error.
#
# To compare *models* we need one measure for all: the loss on the same rows, with the same labels.
# **Predict** which runs have learned least about our answers after ten steps.

# %%
others = encode_conversations(conversations[STEPS * BATCH :][:40], tokenizer)
models = {"reference": after_ten_steps}
models |= {name: trainers[name].model for name, losses in runs.items() if len(losses) == 10}
on_others = {name: evaluate(model, tokenizer, others)["loss"] for name, model in models.items()}
print("nats per graded token on 40 other rows, our labels, after ten steps:")
for name, value in on_others.items():
    print(f"{name:28} {value:.2f}")
print(f"{'the base, before':28} {evaluate(base, tokenizer, others)['loss']:.2f}")
other_lessons = [on_others["Qwen3's template"], on_others["everything graded"]]
same_lesson = [on_others[name] for name in ("linear schedule", "no warm-up", "random order")]
assert min(other_lessons) > max(*same_lesson, on_others["reference"]) + 0.1

# %% [markdown]
# **Read.** Schedule, warm-up and order leave the model near the reference. With Qwen3's template a
# part of each step teaches a think block, with everything graded it teaches the questions. So ten
# steps teach less about our answers.
#
# Look at one run at a time, rungs first. **Predict** at which step the linear schedule parts from
# the cosine, then choose it. (Of the last five runs read the verdict, not the size.)

# %%
switches = {**rungs, **runs}
first = next(iter(switches))
show_widget(explore_ladder(reference, switches), draw_ladder(first, reference, switches[first]))

# %% [markdown] tags=["exercise"]
# ### Exercise 7.1 · The config that agrees with our loop · 8 min · ●●○
# Return the `SFTConfig` for rows of messages that repeats `sft_lab.train`. Rows come in the right
# order already. It must train in float32.


# %% tags=["stub"]
def config_like_ours(
    folder: str, learning_rate: float, batch_size: int, accumulation_steps: int, warmup_ratio: float
) -> SFTConfig:
    """Return the SFTConfig of the run train(..., accumulation_steps=...) on rows of messages."""
    raise NotImplementedError


# %% tags=["solution"]
def config_like_ours(
    folder: str, learning_rate: float, batch_size: int, accumulation_steps: int, warmup_ratio: float
) -> SFTConfig:
    """Return the SFTConfig of the run train(..., accumulation_steps=...) on rows of messages."""
    return SFTConfig(
        output_dir=folder,
        learning_rate=learning_rate,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation_steps,
        num_train_epochs=1,
        lr_scheduler_type="cosine",
        warmup_steps=warmup_ratio,
        train_sampling_strategy="sequential",
        bf16=False,
        activation_checkpointing=False,
        assistant_only_loss=True,
    )


# %% tags=["check"]
check("7.1", config_like_ours)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Compare the columns "TRL" and "here" of the table. Three epochs
# are transformers' default. What does TRL grade when rows are messages and you say
# nothing?</details>

# %% [markdown] tags=["explanation"]
# Each field is a row of the table. The two that people forget are `assistant_only_loss=True`,
# without which questions are graded too, and `num_train_epochs`, whose default is 3.
#
# Usual mistakes: `warmup_ratio=` (gone: `warmup_steps` takes a share below 1); `bf16` left on; the
# effective batch counted twice.

# %% [markdown]
# ## 4 · What became of the completion-only collator
#
# Old tutorials mask the prompt with `DataCollatorForCompletionOnlyLM`. TRL removed it in version
# 0.20. It searched every row for the tokens of a **response template** and ignored everything up to
# there:


# %%
def old_collator_labels(input_ids: list[int], response_ids: list[int]) -> list[int]:
    """Labels of one row, as DataCollatorForCompletionOnlyLM(response_template) made them."""
    size = len(response_ids)
    found = [i for i in range(len(input_ids)) if input_ids[i : i + size] == response_ids]
    first = found[-1] + size if found else len(input_ids)  # not found: all masked, and one warning
    return [IGNORE_INDEX] * first + input_ids[first:]


marker = tokenizer("<|im_start|>assistant\n").input_ids
old = [old_collator_labels(ids, marker) for ids, _ in ours]
new = [row["labels"] for row in graded_further.train_dataset]
assert old == new  # prompt–completion rows of messages
ids, labels = ours[0]
apart = [i for i in range(len(ids)) if old[0][i] != labels[i]]
print(
    "the same as prompt–completion; beside ours, also graded:",
    [tokenizer.decode([ids[i]]) for i in apart],
)
assert apart == [len(ids) - 1] and tokenizer.decode([ids[-1]]) == "\n"

# %% [markdown]
# **Read.** Its successor is a data format: rows of `prompt` and `completion`, for which
# `completion_only_loss` is on by default. Both give the same labels, token by token. And both grade
# one token more than we do: the line break that the template writes *after* the stop token. The
# model never has to write it, for generation ends before.
#
# **Predict** what the old collator does with three ordinary rows: an Alpaca text, two rounds, and a
# cut answer.


# %%
def count_graded(text: str, response_template: str, limit: int = 1000) -> int:
    """How many tokens of the text the old collator grades."""
    row = tokenizer(text).input_ids[:limit]
    return sum(
        x != IGNORE_INDEX for x in old_collator_labels(row, tokenizer(response_template).input_ids)
    )


alpaca = "What is the capital of Japan?\n### Response:\nThe capital of Japan is Tokyo."
two_rounds = [*conversations[0], *conversations[1]]
text = render(two_rounds, tokenizer)
every = sum(x != IGNORE_INDEX for x in encode_conversation(two_rounds, tokenizer).labels)
found = {
    "Alpaca text, marker '### Response:\\n'": count_graded(alpaca, "### Response:\n"),
    "Alpaca text, marker '\\n### Response:\\n'": count_graded(alpaca, "\n### Response:\n"),
    f"two rounds with {every} tokens in the answers": count_graded(text, "<|im_start|>assistant\n"),
    "one round, cut after 12 tokens": count_graded(text, "<|im_start|>assistant\n", limit=12),
}
for name, count in found.items():
    print(f"{count:3} tokens graded: {name}")
assert (
    list(found.values())[1::2] == [0, 0]
    and list(found.values())[0] > 0
    and 0 < list(found.values())[2] < every
)

# %% [markdown]
# **Read.** The second marker begins with a line break. Alone it is a token; in the text it melts
# into `?↵`, so the search finds nothing and the row teaches nothing. Of two rounds only the last is
# graded. A cut row is all masked. Each case gave a warning at most. A format that says where the
# answer begins cannot fail this way.
#
# ### Four formats, four sets of labels

# %%
one = conversations[order[0]]
formats = {
    "messages, assistant_only_loss": sft_trainer([{"messages": one}], assistant_only_loss=True),
    "prompt + completion, as text": sft_trainer(as_text[:1]),
    "prompt + completion, as messages": sft_trainer(as_messages[:1]),
    "text": sft_trainer([{"text": render(one, tokenizer)}]),
}
figure, axes = plt.subplots(len(formats), 1, figsize=(10, 8.6))
for ax, (name, made) in zip(axes, formats.items(), strict=True):
    row = made.train_dataset[0]
    count = sum(x != IGNORE_INDEX for x in row["labels"])
    strip = [tokenizer.decode([i]) for i in row["input_ids"]]
    plots.token_strip(strip, row["labels"], title=f"{name}: {count} graded", ax=ax)
    ax.set_title(f"{name}: {count} graded", fontsize=13)
rows = [made.train_dataset[0] for made in formats.values()]
assert (
    rows[1]["input_ids"] == rows[0]["input_ids"][:-1]
    and rows[1]["labels"] == rows[0]["labels"][:-1]
)
assert rows[3]["labels"] == rows[3]["input_ids"] == [*rows[0]["input_ids"], tokenizer.eos_token_id]

# %% [markdown]
# **Read.** For plain text TRL appends the eos token. To a bare answer that is right: it is the stop
# token we want. A rendered text already ends with `<|im_end|>` and a line break, so it gets a
# *second* stop token, and everything is graded. Use messages where a template exists.

# %% [markdown] tags=["exercise"]
# ### Exercise 7.2 · From messages to prompt and completion · 6 min · ●○○
# A conversation with several answers holds several rows of the prompt–completion format: one an
# answer, with all turns before it as the prompt.


# %% tags=["stub"]
def to_prompt_completion(messages: list[dict]) -> list[dict]:
    """Return one row {"prompt": turns, "completion": [answer]} for each assistant turn, in
    order."""
    raise NotImplementedError


# %% tags=["solution"]
def to_prompt_completion(messages: list[dict]) -> list[dict]:
    """Return one row {"prompt": turns, "completion": [answer]} for each assistant turn, in
    order."""
    places = [place for place, turn in enumerate(messages) if turn["role"] == "assistant"]
    return [{"prompt": messages[:place], "completion": [messages[place]]} for place in places]


# %% tags=["check"]
check("7.2", to_prompt_completion)

# %% [markdown] tags=["explanation"]
# Back is `row["prompt"] + row["completion"]`. The longest of these is the conversation itself, if
# it ends with an answer. Earlier answers are read again in later rows: the format costs more tokens
# than one row of messages.
#
# Usual mistakes: a completion that is a dict instead of a list of turns; a prompt without the
# system turn or the earlier rounds; only the last answer.

# %% [markdown] tags=["exercise"]
# ### Exercise 7.3 · From masks to labels · 7 min · ●●○
# TRL builds labels from masks. A token is graded where **every** mask that is given says 1. Rows
# are then cut to `max_length`, and a row without a graded token is dropped: return `None` for it.


# %% tags=["stub"]
def build_labels(
    input_ids: list[int], masks: list[list[int]], max_length: int | None
) -> tuple[list[int], list[int]] | None:
    """Return (input_ids, labels), each at most max_length long (None: whole), or None when nothing
    is graded."""
    raise NotImplementedError


# %% tags=["solution"]
def build_labels(
    input_ids: list[int], masks: list[list[int]], max_length: int | None
) -> tuple[list[int], list[int]] | None:
    """Return (input_ids, labels), each at most max_length long (None: whole), or None when nothing
    is graded."""
    labels = [
        token if all(mask[place] for mask in masks) else IGNORE_INDEX
        for place, token in enumerate(input_ids)
    ][:max_length]
    if all(label == IGNORE_INDEX for label in labels):
        return None
    return input_ids[:max_length], labels


# %% tags=["check"]
check("7.3", build_labels)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Without any mask, every token is graded. A slice up to
# <code>None</code> takes all.
# </details>

# %% [markdown] tags=["explanation"]
# A dropped row is silent in TRL: a data set whose answers all lie beyond `max_length` shrinks, and
# the run goes on. `encode_conversations` reports such rows by number instead.
#
# Usual mistakes: one mask is enough (`any`); the check before the cut; ids cut and labels not.

# %% [markdown]
# ## 5 · When the template has no generation tags
#
# `assistant_only_loss` needs `{% generation %}` tags in the template. Many templates have none.
# **Predict** what TRL does: fail, warn, or something else?

# %%
tag = re.compile(r"\{%-? *(end)?generation *-?%\}")
tagless = tag.sub("", tokenizer.chat_template)
assert tag.search(tokenizer.chat_template) and not tag.search(tagless)
try:
    sft_trainer(messages[:1], template=tagless, assistant_only_loss=True)
except ValueError as error:
    print("unknown template →", textwrap.shorten(str(error), 150))
    refused = True
swapped = sft_trainer(messages[:1], template=qwen3, assistant_only_loss=True)
training = (folder / "qwen3_training.jinja").read_text(encoding="utf-8")
print(
    "Qwen3's template → another one, silently:",
    tag.search(qwen3) is None and swapped.chat_template == training,
)
row = swapped.train_dataset[0]
graded_text = tokenizer.decode([x for x in row["labels"] if x != IGNORE_INDEX])
print("graded:", repr(graded_text))
assert refused and swapped.chat_template == training and not tag.search(qwen3)
assert graded_text.startswith("<think>\n\n</think>\n\n")

# %% [markdown]
# **Read.** A template that TRL knows by heart is replaced by its *training variant*; any other is
# refused. For Qwen3 the variant puts an empty think block before each answer, and grades it. Is
# this what you will ask at inference? With `enable_thinking=False` the prompt already holds the
# block; without, the model writes it (chapter 02). Render both and compare before you train.
# `encode_conversation` gives TRL's labels where tags exist, and needs none elsewhere.
#
# ## 6 · Old names, new names
#
# Tutorials age. This table is data (`sft_lab.course.renamed`): a test holds both columns against
# the installed versions, and every call of this course too.


# %%
def short(call: str) -> str:
    """A call without the names of libraries."""
    return re.sub(r"\b(trl|transformers|peft)\.", "", call)


for row in renamed.RENAMED:
    fate = ", the old one still warns" if row.fate == "warns" else ""
    print(f"{short(row.old)}\n    → {short(row.new)}   [{row.since}{fate}]")
    assert renamed.refusal(row.new) is None
    assert (renamed.refusal(row.old) is not None) == (row.fate == "refused")

# %% [markdown]
# **Read.** Settings moved from the trainer into the config, and "tokenizer" became
# `processing_class`. The column on the right names the release that brought the new call. One
# change is invisible here: `apply_chat_template` now returns a dictionary. Ask `["input_ids"]` of
# it.

# %% [markdown] tags=["exercise"]
# ### Exercise 7.4 · Translate an old call · 10 min · ●●○
# `old` holds the keywords of an old tutorial, of its `TrainingArguments` and its `SFTTrainer`
# together. Return the keywords for `SFTConfig` and those for `SFTTrainer`. Names that may occur:
# those of the table, and any that `SFTConfig` still takes. `SFTTrainer` keeps `model`,
# `train_dataset`, `eval_dataset` and `peft_config`, and gets the tokenizer. What asks for a
# default, as `group_by_length=False` does, may be left out, or be said in the new words.


# %% tags=["stub"]
def modernise(old: dict) -> tuple[dict, dict]:
    """Return (keywords of SFTConfig, keywords of SFTTrainer)."""
    raise NotImplementedError


# %% tags=["solution"]
def modernise(old: dict) -> tuple[dict, dict]:
    """Return (keywords of SFTConfig, keywords of SFTTrainer)."""
    new_names = {
        "max_seq_length": "max_length",
        "evaluation_strategy": "eval_strategy",
        "warmup_ratio": "warmup_steps",
        "no_cuda": "use_cpu",
        "gradient_checkpointing": "activation_checkpointing",
        "tokenizer": "processing_class",
    }
    config, trainer = {}, {}
    for name, value in old.items():
        name = new_names.get(name, name)
        if name in ("model", "train_dataset", "eval_dataset", "peft_config", "processing_class"):
            trainer[name] = value
        elif name == "group_by_length":
            config["train_sampling_strategy"] = "group_by_length" if value else "random"
        elif name not in ("overwrite_output_dir", "logging_dir"):
            config[name] = value
    return config, trainer


# %% tags=["check"]
check("7.4", modernise)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Most names are a dictionary from old to new. Two settings are gone
# without a successor among the keywords, and one changes its value too.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: `tokenizer` renamed but put into the config; `group_by_length=True` passed on as
# `True`; settings without a successor kept; the old name kept beside the new one.

# %% [markdown]
# ## 7 · `trl sft` and a YAML file
#
# The same run without Python code: a folder with a model, a folder with rows, one file of settings.
# **Predict** whether its losses equal ours.

# %%
work = Path(scratch.name) / "cli"
(work / "rows").mkdir(parents=True)
base.save_pretrained(work / "base")
tokenizer.save_pretrained(work / "base")
lines = [json.dumps(row) + "\n" for row in messages]
_ = (work / "rows" / "train.jsonl").write_text("".join(lines), encoding="utf-8")
settings = {
    "model_name_or_path": "base",
    "dtype": "float32",
    "dataset_name": "rows",
    "assistant_only_loss": True,
    "output_dir": "tuned",
    **SAME,
    "save_strategy": "epoch",
}
settings["learning_rate"] = "8.0e-5"  # YAML reads 8e-5 as text
plainly = {
    name: str(value).lower() if isinstance(value, bool) else value
    for name, value in settings.items()
}
yaml = "".join(f"{name}: {value}\n" for name, value in plainly.items())
_ = (work / "sft.yaml").write_text(yaml, encoding="utf-8")
print(yaml)

# %%
quiet = {
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_DATASETS_CACHE": str(work / "cache"),
}
command = [
    sys.executable,
    "-m",
    "trl.cli.main",
    "sft",
    "--config",
    "sft.yaml",
]  # in a terminal: trl sft --config …
done = subprocess.run(
    command, cwd=work, env={**os.environ, **quiet}, capture_output=True, text=True
)
assert done.returncode == 0, done.stderr[-2000:]
print("\n".join(line for line in done.stdout.splitlines() if line.startswith(("✅", "💾"))))
state = json.loads(
    (work / "tuned" / f"checkpoint-{STEPS}" / "trainer_state.json").read_text(encoding="utf-8")
)
from_cli = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
print("trl sft, the same run:", same_run(reference, from_cli))
assert same_run(reference, from_cli)
print("written:", ", ".join(sorted(path.name for path in (work / "tuned").glob("*.safetensors"))))

# %% [markdown]
# **Read.** The fifth rung, and the same run. The command starts `accelerate launch`: on a machine
# with several GPUs the same file, without `use_cpu`, trains on all of them. `use_peft: true`,
# `lora_r` and `lora_alpha` add LoRA.
#
# ## 8 · Where the time goes on a CPU
#
# The same work, unequal speed. **Predict** which of these saves most for this small model: batches
# of similar length; the output head only where a token is graded; freed memory kept; the decoder's
# small operations written out again.

# %%
mixed = encode_conversations(
    atlas.training_conversations(seed=1)[:48], tokenizer
)  # all kinds of tasks
in_turn = [list(range(first, first + 16)) for first in range(0, 48, 16)]
similar = sorted(range(48), key=lambda i: len(mixed[i].input_ids))
similar = [similar[first : first + 16] for first in range(0, 48, 16)]
in_turn, similar = (
    [pad_batch([mixed[i] for i in rows], pad) for rows in part] for part in (in_turn, similar)
)
tokens_in_all = sum(len(example.input_ids) for example in mixed)
answers = sum(label != IGNORE_INDEX for example in mixed for label in example.labels)
padded = [sum(batch["input_ids"].numel() for batch in part) for part in (in_turn, similar)]
print(f"{tokens_in_all} tokens, {answers / tokens_in_all:.0%} of them graded")
print(f"positions with padding: {padded[0]} in turn, {padded[1]} in batches of similar length")
assert answers < tokens_in_all / 2 and padded[1] < 0.8 * padded[0]


def give_memory_back() -> None:
    """glibc's thresholds where its own adjusting ends, 32 and 64 MiB; nothing elsewhere."""
    if platform.libc_ver()[0] == "glibc":
        for parameter, mebibytes in ((-3, 32), (-1, 64)):
            ctypes.CDLL("libc.so.6").mallopt(parameter, mebibytes << 20)


def head_where_graded(model, batch) -> torch.Tensor:
    """Loss from the scores of graded positions alone."""
    graded = int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
    return graded_loss(model, batch, factor=1 / graded)[0]


# %%
def phases(loss_of, batches, keep: bool, written_out: bool) -> list[float]:
    """Seconds of forward pass, backward pass and update, over all batches."""
    keep_freed_memory() if keep else give_memory_back()
    model, seconds = copy.deepcopy(base).train(), [0.0, 0.0, 0.0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    off = mock.patch.object(
        short_rows, "handles", wraps=short_rows.handles if written_out else lambda *_: False
    )
    with off:
        for place, batch in enumerate([batches[0], *batches]):  # the first one warms up
            marks = [time.perf_counter()]
            loss = loss_of(model, batch)
            marks.append(time.perf_counter())
            loss.backward()
            marks.append(time.perf_counter())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            marks.append(time.perf_counter())
            seconds = [
                s + (b - a) * (place > 0)
                for s, a, b in zip(seconds, marks, marks[1:], strict=False)
            ]
    return seconds


def whole_head(model, batch) -> torch.Tensor:
    """The loss that the transformers model computes itself."""
    return model(**batch).loss


# %%
steps_won = {
    "plain loop, labels=": (whole_head, in_turn, False, False),
    "+ batches of similar length": (whole_head, similar, False, False),
    "+ head only where graded": (head_where_graded, similar, False, False),
    "+ freed memory kept": (head_where_graded, similar, True, False),
    "+ short rows written out": (head_where_graded, similar, True, True),
}
measured = {name: [] for name in steps_won}
for _ in range(3):  # in turn, so that other work on the machine slows all of them
    for name, settings in steps_won.items():
        measured[name].append(phases(*settings))
best = {name: min(tries, key=sum) for name, tries in measured.items()}
whole = sum(best["plain loop, labels="])
for name, seconds in best.items():
    print(f"{name:29} {whole / sum(seconds):4.1f} × the plain loop")
# measured above 2 on a free machine; other work beside it narrows every ratio
assert whole / sum(best["+ short rows written out"]) > 1.2

# %%
figure, ax = plt.subplots(figsize=(9.0, 3.8))
for row, (_name, seconds) in enumerate(best.items()):
    left = 0.0
    parts = zip(
        seconds,
        (plots.BLUE, plots.ORANGE, plots.GREEN),
        ("forward", "backward", "update"),
        strict=True,
    )
    for value, colour, part in parts:
        ax.barh(
            row,
            100 * value / whole,
            left=left,
            color=colour,
            label=part if row == 0 else None,
            height=0.62,
        )
        left += 100 * value / whole
    ax.annotate(
        f"{whole / sum(seconds):.1f} ×",
        (left, row),
        (6, 0),
        textcoords="offset points",
        va="center",
        fontweight="bold",
    )
ax.set_yticks(range(len(best)), list(best))
ax.set(
    xlim=(0, 115),
    ylim=(len(best) - 0.5, -0.5),
    xlabel="time of the same 48 examples, plain loop = 100",
)
ax.grid(axis="y", visible=False)
ax.grid(axis="x")
ax.legend(loc="lower right", ncols=1)
_ = figure.suptitle(
    f"Four savings together: {whole / sum(seconds):.1f} times as fast as the plain loop",
    x=0.01,
    ha="left",
    fontweight="bold",
)

# %% [markdown]
# **Read.** Padding is work for nothing, so similar lengths come first. They change which rows meet
# in a batch, so this is another run, as with "random order" above; our reference has such batches
# too. The other three change no loss beyond rounding: the first rung of this chapter uses them all.
# The head is the widest layer, and most positions are prompt. Freed memory that is kept need not be
# asked of the kernel again at the next step. What remains is many small operations. Written out for
# short rows, with their gradients by hand, they become fewer (`sft_lab/kernels/short_rows.py`).
# `make bench` measures longer runs, against TRL too.
#
# ### Many prompts at once
#
# Generation writes one token a pass, and a pass over one row costs nearly as much time as a pass
# over several. **Predict** the factor for 64 and for 128 prompts in a batch.

# %%
prompts = [conversation[:1] for conversation in conversations[:128]]


def tokens_per_second(groups: list[list]) -> float:
    """Generation speed over these batches: 24 new tokens for every prompt, stop or not; the better
    of two."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        for group in groups:
            made = generate_ids(base, tokenizer, group, max_new_tokens=24, min_new_tokens=24)
            assert {len(row) for row in made} == {24}
        seconds.append(time.perf_counter() - started)
    return 24 * sum(map(len, groups)) / min(seconds)


alone = tokens_per_second([[prompt] for prompt in prompts[:3]])
with mock.patch("sft_lab.chat.BATCH_SIZE", 128):  # as shipped, 64 a batch
    together = {count: tokens_per_second([prompts[:count]]) / alone for count in (64, 128)}
for count, factor in together.items():
    print(f"{count:4} prompts at once: {factor:3.0f} × the tokens per second of one at a time")
assert together[128] > 5

# %% [markdown]
# **Read.** The work of a pass is shared by its rows, until the products fill the processor. That is
# why `generate_responses` takes a list of prompts.
#
# ## When to use which
#
# | you want | take |
# |---|---|
# | to understand, to change the loss, to train a small model on a CPU | the loop of chapter 04 or `sft_lab.train` |
# | your own model or collator, but checkpoints, several GPUs and logging for free | `transformers.Trainer` |
# | SFT of a chat model, LoRA, packing, long runs | `SFTTrainer` with `peft_config` |
# | a run as a file that others can repeat | `trl sft` with YAML; LLaMA-Factory (chapter 10) |
#
# Whatever you take: print one row of labels, and compare the first loss with a loss you computed
# yourself.

# %% [markdown] tags=["exercise"]
# ### Exercise 7.5 · Is it the same run? · 7 min · ●●○
# Two logs, one verdict. Both begin with the first step; compare the steps that both have. Return
# "same" when no difference, in nats, is above the limit, "start" when the very first loss is off
# (data, labels, template or number format), and "drift" otherwise (something that acts through the
# updates).


# %% tags=["stub"]
def verdict(reference: list[float], losses: list[float], limit: float = 1e-5) -> str:
    """Return "same", "start" or "drift". A loss that is not a number counts as different."""
    raise NotImplementedError


# %% tags=["solution"]
def verdict(reference: list[float], losses: list[float], limit: float = 1e-5) -> str:
    """Return "same", "start" or "drift". A loss that is not a number counts as different."""
    close = [abs(one - other) <= limit for one, other in zip(reference, losses, strict=False)]
    if not close[0]:
        return "start"
    return "same" if all(close) else "drift"


# %% tags=["check"]
check("7.5", verdict)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>A comparison with nan is always False. Ask whether a pair is
# close, not whether it is apart.</details>

# %% [markdown] tags=["explanation"]
# The first loss is computed before any update, so it can only differ through what goes in: labels,
# template, order, bf16. A later difference comes through the updates: learning rate, schedule,
# clipping, weight decay.
#
# Usual mistakes: only the last loss compared; `abs(a - b) > limit`, which is False for nan; signed
# differences.

# %% [markdown]
# ## What to remember
#
# - Hand loop, `sft_lab.train`, `Trainer`, `SFTTrainer`, PEFT and `trl sft`: one run, within
#   rounding, once the settings are equal.
# - TRL's defaults to look at: bf16 and checkpointing on, 2e-5, and for messages every token graded.
# - The completion-only collator became a data format. Prefer messages with tags, or prompt and
#   completion.
# - Without tags, `assistant_only_loss` swaps the template or refuses it: print the graded text.
# - Losses compare number by number only where they grade the same tokens; compare models on the
#   same rows.
# - Save time by less padding, no scores for ungraded positions, fewer small operations, and many
#   prompts in one batch.
#
# ## Sources
#
# - The text this chapter follows: notes on DeepLearning.AI, *Post-training of LLMs* (its SFTConfig
#   and SFTTrainer).
# - Hugging Face documentation: *SFT Trainer*, *Dataset formats*, *Command line interfaces* (TRL
#   1.16); *Trainer* (transformers 5.23); *LoRA* (PEFT 0.21).
# - huggingface/trl, issues 3827 and 3910 (the removed collator, `max_length`);
#   huggingface/transformers, MIGRATION_GUIDE_V5.md.
#
# <details><summary>中文要点</summary>
#
# 1. **同一次训练的阶梯**：手写循环、`sft_lab.train`、`Trainer`、TRL `SFTTrainer`、加 PEFT、
#    `trl sft` 命令，标签逐 token 相同，20 步损失相差不超过 1e-5（浮点舍入）。
# 2. TRL 的默认值要逐项核对：bf16 与梯度检查点默认开启，学习率 2e-5，线性衰减、无预热；
#    `messages` 数据默认对**全部 token** 计损失，需要 `assistant_only_loss=True`。
# 3. `DataCollatorForCompletionOnlyLM` 已删除：改用 prompt + completion 数据格式。
#    旧做法靠搜索“回答标记”，换行合并、多轮对话、截断都会让标签悄悄消失。
# 4. 模板没有 `{% generation %}` 标签时，TRL 会**悄悄替换**成训练模板（Qwen3 会多出空的 think 块），
#    或直接报错；先打印被计分的文本。
# 5. CPU 提速：长度相近的批次（改变批次的组成，是另一次训练）、只在计分位置算输出头、
#    保留已释放内存、短序列手写算子（后三项只差舍入）；生成时多个提示一起做，约快十倍或更多。
#    只有计分的 token 相同，逐步损失才能比较。
#
# </details>
