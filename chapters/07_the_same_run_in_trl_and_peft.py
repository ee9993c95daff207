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
# | chapters 03 to 05 | CPU, no network | about 40 s | 5, about 44 minutes | C8 L4 L5 L31 |

# %% tags=["setup"]
import copy
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import warnings
from pathlib import Path

import datasets
import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    PrinterCallback,
    Trainer,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
)
from trl import SFTConfig, SFTTrainer

# %% tags=["setup"]
from sft_lab import atlas, plots
from sft_lab.batches import group_by_length, pad_batch
from sft_lab.chat import generate_responses, render
from sft_lab.course import renamed, same_run
from sft_lab.course.checks import check
from sft_lab.course.results import read_results
from sft_lab.course.same_run import StopAfter
from sft_lab.course.short_runs import share_right
from sft_lab.course.views.ladder import (
    TOLERANCE,
    differences,
    draw_differences,
    draw_ladder,
    explore_ladder,
)
from sft_lab.course.views.widgets import show_widget

# %% tags=["setup"]
from sft_lab.labels import IGNORE_INDEX, encode_conversation, encode_conversations
from sft_lab.lora import LoRALinear, add_lora
from sft_lab.models import load
from sft_lab.train import evaluate, train

plots.style()
datasets.disable_progress_bars()
# TRL and PEFT use this old name inside
warnings.filterwarnings("ignore", message=".*gradient_checkpointing")
base, tokenizer = load("atlas-base")
pad = tokenizer.pad_token_id
gc.freeze()  # Trainer collects garbage before each run: not what the imports made
scratch = tempfile.TemporaryDirectory()
folder = scratch.name

# %% [markdown]
# ## 1 · The plain call
#
# TRL is Hugging Face's library for training chat models. The text this chapter follows (see
# Sources) sets six fields of its `SFTConfig` and hands them to `SFTTrainer`. We make the same call,
# on 160 short conversations.

# %%
found = same_run.short_rows_of(0, 160, tokenizer)
rows = Dataset.from_list([{"messages": conversation} for conversation in found])
print(rows[0])

# %% [markdown]
# The first six fields are the text's. Its `gradient_checkpointing` is now called
# `activation_checkpointing`. The other four suit this page: a folder, a CPU, numbers in float32,
# and no progress bar.

# %%
model = copy.deepcopy(base)
config = SFTConfig(
    learning_rate=8e-5,  # the highest rate of the schedule
    num_train_epochs=1,  # each row is read once
    per_device_train_batch_size=1,  # rows in one forward pass
    gradient_accumulation_steps=8,  # passes that make one update: 8 rows a step
    activation_checkpointing=False,  # keep what the backward pass needs: memory for time
    logging_steps=2,  # one line of the log every two steps
    output_dir=folder,
    use_cpu=True,
    bf16=False,
    disable_tqdm=True,
)
trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
trainer.remove_callback(PrinterCallback)  # the next cell prints the log
_ = trainer.train()

# %%
log = [entry for entry in trainer.state.log_history if "loss" in entry]
print("loss:", " ".join(f"{entry['loss']:.2f}" for entry in log))
assert log[-1]["loss"] < log[0]["loss"] - 0.3

# %% [markdown]
# The loss falls. **Predict.** What does the tuned model say about the capital of Kenya: the right
# sentence, a wrong city, or no sentence at all?

# %% tags=["predict"]
question = ["What is the capital of Kenya?"]
print("base: ", generate_responses(base, tokenizer, question, max_new_tokens=20))
print("tuned:", generate_responses(model, tokenizer, question, max_new_tokens=20))
exam = atlas.exam("held_out", 40)
plain_right = share_right(model, tokenizer, exam)
print(f"right on held-out questions: {plain_right:.0%}")
assert plain_right < 0.2

# %% [markdown]
# **Read.** The loss fell, and hardly an answer is right. Nothing warned us. So we ask the trainer
# what it grades.
#
# **Predict.** Which text of the first row is graded: the answer, the answer with its stop token, or
# everything?

# %% tags=["predict"]
labels = trainer.train_dataset[0]["labels"]
print(repr(tokenizer.decode([label for label in labels if label != IGNORE_INDEX])))
assert IGNORE_INDEX not in labels

# %% [markdown]
# **Read.** Everything, the question too. For rows of messages TRL grades the answers alone only
# when asked to. And a rate of 8e-5 is meant for the text's model of 600 million weights. We take
# ten times as much for our million, set these two fields and call again.
#
# **Predict.** What share of the 40 held-out questions is right then: 0, 40 or 80 %?

# %%
config.assistant_only_loss = True
config.learning_rate = 8e-4
model = copy.deepcopy(base)  # from the start again
trainer = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
trainer.remove_callback(PrinterCallback)
_ = trainer.train()

# %% tags=["predict"]
right = share_right(model, tokenizer, exam)
print(generate_responses(model, tokenizer, question, max_new_tokens=20), f"{right:.0%} right")
assert right > plain_right + 0.3

# %% [markdown]
# **Read.** After twenty steps it answers many of them. The rest of the chapter takes the call
# apart. First every field is set to what our loop does; then we change one field at a time.
#
# ## 2 · Rung by rung: our loop, Trainer, SFTTrainer, PEFT
#
# Each rung of this ladder hands more of the work to a library, and must give the same losses. The
# reference is the loop of chapter 04 in its plainest form: 8 rows a step, AdamW, warm-up over two
# steps, cosine, clipping at 1, and the model's own loss. The order of the rows must be the same
# everywhere. We take the one that `sft_lab.train` makes with seed 0.

# %%
STEPS, BATCH, RATE = 20, 8, 8e-5
lengths = [len(example.input_ids) for example in encode_conversations(found, tokenizer)]
batches = group_by_length(lengths, BATCH, seed=0)
conversations = [found[index] for indices in batches for index in indices]
messages = [{"messages": conversation} for conversation in conversations]
examples = encode_conversations(conversations, tokenizer)


# %%
def our_loop(steps: int) -> tuple[list[float], torch.nn.Module]:
    """The losses of the first steps, and the model after them."""
    model = copy.deepcopy(base).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, 2, STEPS)
    losses = []
    for step in range(steps):
        batch = pad_batch(examples[step * BATCH :][:BATCH], pad)
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, model


# %%
reference, _ = our_loop(STEPS)
print(f"from {reference[0]:.2f} to {reference[-1]:.2f} nats per graded token")
assert reference[-1] < reference[0] - 0.5  # nothing learned would make equality cheap


def same_as(losses: list[float], others: list[float]) -> bool:
    """Whether two runs show the same losses in all steps, to TOLERANCE."""
    assert len(losses) == len(others) == STEPS
    return differences(losses, others).max() < TOLERANCE


# %% [markdown]
# **Predict.** `sft_lab.train` computes in another order, and the scores only where a token is
# graded. How far do its 20 losses lie from these: 0, about 1e-6, or about 1e-3 nats? (Near 3,
# neighbouring float32 numbers are 2.4e-7 apart.)


# %%
def train_ours(model: torch.nn.Module, rate: float) -> list[float]:
    """The losses of sft_lab.train, which groups the rows by length itself."""
    own = encode_conversations(found, tokenizer)
    history = train(model, tokenizer, own, batch_size=BATCH, learning_rate=rate, progress=False)
    return history.losses


# %% tags=["predict"]
rungs = {"sft_lab.train": train_ours(copy.deepcopy(base), RATE)}
close = same_as(reference, rungs["sft_lab.train"])
print(f"{STEPS} losses, each less than {TOLERANCE:g} apart: {close}")
assert close

# %% [markdown]
# **Read.** A few roundings apart, after twenty updates that build on each other. From here on 1e-5
# nats is the limit for "the same run". Anything above it has a cause that we can find.
#
# ### Trainer
#
# `transformers.Trainer` runs the loop and takes our token ids. The next cell sets 13 fields.
#
# **Predict.** How many of them must be set to change what is learned: 2, 5 or 10?

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
assert same_run.SAME == SAME


# %%
def losses_of(trainer: Trainer) -> list[float]:
    """Train, and return the loss of every step."""
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


# %% tags=["predict"]
trainer = Trainer(
    model=copy.deepcopy(base),
    args=TrainingArguments(output_dir=folder, **SAME),
    train_dataset=examples,
    data_collator=lambda rows: pad_batch(rows, pad),
)
rungs["Trainer"] = losses_of(trainer)
print("the same run:", same_as(reference, rungs["Trainer"]))
assert same_as(reference, rungs["Trainer"])

# %% [markdown]
# **Read.** Five: epochs, rate, schedule, warm-up and order. Eight rows a batch are the default. The
# other lines undo defaults of TRL, keep the run on the CPU, or concern logs.
#
# ### SFTTrainer
#
# `SFTTrainer` takes conversations and renders, tokenises and masks them itself. The next cell is
# the plain call again, as a function, because we make it twenty times.


# %%
def sft(rows: list[dict], *, steps: int = 10, template=None, lora=None, **changed) -> SFTTrainer:
    """SFTTrainer on a copy of the base, with SAME and what is changed; ends after `steps`."""
    own = copy.deepcopy(tokenizer)
    own.chat_template = template or own.chat_template
    return SFTTrainer(
        model=copy.deepcopy(base),
        args=SFTConfig(output_dir=folder, **(SAME | changed)),
        train_dataset=Dataset.from_list(rows),
        processing_class=own,
        peft_config=lora,
        callbacks=[StopAfter(steps)],  # the schedule stays that of the whole run
    )


# %% [markdown]
# **Predict.** Of the 160 rows, how many have the same ids *and* the same labels as ours?

# %% tags=["predict"]
trainer = sft(messages, assistant_only_loss=True, steps=STEPS)
theirs = [(row["input_ids"], row["labels"]) for row in trainer.train_dataset]
ours = [(example.input_ids, example.labels) for example in examples]
equal = [one == other for one, other in zip(theirs, ours, strict=True)]
rungs["SFTTrainer"] = losses_of(trainer)
print(f"{sum(equal)} of {len(equal)} rows; the same run:", same_as(reference, rungs["SFTTrainer"]))
assert all(equal) and same_as(reference, rungs["SFTTrainer"])

# %% [markdown]
# **Read.** The same labels, token by token, and the same losses. The chain from text to update is
# checked against code that nobody here wrote.
#
# ### … and PEFT
#
# `peft_config` puts LoRA into the model. Chapter 05 wrote LoRA by hand. Both start from a random A.
# The same seed does not give the same A, because the two draw in another order. So we copy ours.

# %%
_ = torch.manual_seed(0)
hand = add_lora(copy.deepcopy(base), rank=8, alpha=16)
lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
trainer = sft(messages, lora=lora, assistant_only_loss=True, learning_rate=2e-3, steps=STEPS)


# %%
def copy_start(hand: torch.nn.Module, peft_model: torch.nn.Module) -> None:
    """Give PEFT's layers the A of ours; B is zero in both."""
    for name, layer in hand.named_modules():
        if isinstance(layer, LoRALinear):
            twin = peft_model.get_submodule(f"base_model.model.{name}")
            twin.lora_A["default"].weight.data.copy_(layer.lora_A.weight)


copy_start(hand, trainer.model)

# %%
by_hand = train_ours(hand, 2e-3)
by_peft = losses_of(trainer)
print(f"LoRA by hand: from {by_hand[0]:.2f} to {by_hand[-1]:.2f} nats")
assert by_hand[-1] < by_hand[0] - 0.5 and same_as(by_hand, by_peft)

# %%
ladder = {name: differences(reference, losses).max() for name, losses in rungs.items()}
ladder["SFTTrainer with PEFT\n(against LoRA by hand)"] = differences(by_hand, by_peft).max()
_ = draw_differences(ladder, f"Each rung repeats its reference: {STEPS} losses, rounding apart")
assert max(ladder.values()) < TOLERANCE

# %% [markdown] tags=["exercise"]
# ### Exercise 7.5 · Is it the same run? · 7 min · ●●○
# Two logs, one verdict. Both begin with the first step; compare the steps that both have. Return
# "same" when no difference, in nats, is above the limit. Return "start" when the very first loss is
# off (data, labels, template or number format). Return "drift" otherwise (something that acts
# through the updates).


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
# ## 3 · One switch at a time
#
# Every field that the text does not set keeps its default. The table reads the defaults from the
# installed classes; `here` is our `SAME`.
#
# **Predict.** In how many of the fields that both have do TRL and transformers differ, and in
# which?

# %%
FIELDS = [
    *("learning_rate", "num_train_epochs", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "activation_checkpointing", "logging_steps"),  # the text's six
    *("bf16", "lr_scheduler_type", "warmup_steps", "train_sampling_strategy"),
    *("optim", "weight_decay", "max_grad_norm"),
    *("max_length", "assistant_only_loss", "completion_only_loss", "packing"),
]


def shown(owner: object, name: str) -> str:
    """The value of a field as you would type it."""
    value = getattr(owner, name, "no such field")
    return str(getattr(value, "value", value))  # an enumeration by its text


# %% tags=["predict"]
of_hf = TrainingArguments(output_dir=folder, use_cpu=True)
of_trl = SFTConfig(output_dir=folder, use_cpu=True)
print(f"{'field':29}{'transformers':>18}{'TRL':>18}{'here':>12}")
for name in FIELDS:
    here = str(SAME.get(name, "·"))
    print(f"{name:29}{shown(of_hf, name):>18}{shown(of_trl, name):>18}{here:>12}")
shared = [name for name in FIELDS if hasattr(of_hf, name)]
unlike = {name for name in shared if shown(of_hf, name) != shown(of_trl, name)}
assert unlike == {"learning_rate", "logging_steps", "bf16", "activation_checkpointing"}

# %% [markdown]
# **Read.** Four: rate, logging, bf16 and checkpointing. The first two depend on the task. bf16 and
# checkpointing save memory on a GPU (chapter 08); most CPUs emulate bf16, slowly.

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
# Now we move one switch of the agreeing run, and nothing else. First the same rows in four forms:
# token ids with labels, which TRL leaves as they are; messages; prompt and completion, as messages
# and as text.

# %%
token_rows = [{"input_ids": one.input_ids, "labels": one.labels} for one in examples]
pairs = [{"prompt": talk[:-1], "completion": talk[-1:]} for talk in conversations]
texts = [
    {
        "prompt": render(talk[:-1], tokenizer, add_generation_prompt=True),
        "completion": talk[-1]["content"],
    }
    for talk in conversations
]
templates = Path(trl.__file__).parent / "chat_templates"
qwen3 = (templates / "qwen3.jinja").read_text(encoding="utf-8")

# %%
SWITCHES = {
    "8 × 1 accumulated": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    "checkpointing": {"activation_checkpointing": True},
    "padding-free": {"padding_free": True, "max_length": None},
    "bf16": {"bf16": True},
    "linear schedule": {"lr_scheduler_type": "linear"},
    "no warm-up": {"warmup_steps": 0},
    "random order": {"train_sampling_strategy": "random"},
    "packing": {"packing": True, "max_length": 288, "per_device_train_batch_size": 1},
}

# %% [markdown]
# Four more runs change the rows: prompt and completion, as text and as messages; messages in
# Qwen3's template; messages with everything graded. Padding-free rows and packing put several
# examples into one row; packing also chooses which.
#
# **Predict.** Four of these twelve runs change nothing. Which?

# %% tags=["predict"]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TRL warns of padding-free rows without FlashAttention
    trainers = {
        name: sft(token_rows, steps=2 if name == "bf16" else 10, **changed)
        for name, changed in SWITCHES.items()
    }
    trainers["prompt–completion, text"] = sft(texts)
    trainers["prompt–completion, messages"] = sft(pairs)
    trainers["Qwen3's template"] = sft(messages, template=qwen3, assistant_only_loss=True)
    trainers["everything graded"] = sft(messages)
    runs = {name: losses_of(trainer) for name, trainer in trainers.items()}
largest = {name: differences(reference, losses).max() for name, losses in runs.items()}

# %% [markdown]
# Two losses can be compared only where both grade the same tokens in the same step. In five runs
# other rows meet in a step, or other tokens are graded. Their bars are grey: the size says nothing.

# %% tags=["predict", "folded"]
elsewhere = ["random order", "packing", *list(runs)[-3:]]
_ = draw_differences(largest, "Four switches change nothing, the other eight do", grey=elsewhere)
nothing = ["8 × 1 accumulated", "checkpointing", "padding-free", "prompt–completion, text"]
for name, value in largest.items():
    assert (value < TOLERANCE) == (name in nothing), (name, value)
    assert name in nothing or value > 20 * TOLERANCE, (name, value)

# %% [markdown]
# **Read**, from harmless to harmful.
#
# - **Nothing changes** with 8 × 1 rows: `Trainer` divides by the graded tokens of all eight passes
#   (chapter 04). Checkpointing computes parts of the forward pass twice. Padding-free rows keep
#   examples apart by `position_ids`.
# - **bf16** differs in the *first* loss, before any update: its numbers have 8 significant bits.
# - **Schedule and warm-up** change the rate, so every loss after it.
# - **Order** and **packing** change which rows meet.
# - **Template and mask** change *what is taught*. Such a curve falls like any other. Only a loss
#   that you computed yourself, or the graded text, shows the error.
#
# To compare *models* we need one measure: the loss on the same rows, with the same labels.
# **Predict.** Which runs have learned least about our answers after ten steps?

# %% tags=["predict"]
others = encode_conversations(same_run.short_rows_of(1, 40, tokenizer), tokenizer)
models = {name: trainers[name].model for name in runs if name != "bf16"}
models |= {"reference": our_loop(10)[1], "the base, before": base}
on_others = {name: evaluate(model, tokenizer, others)["loss"] for name, model in models.items()}
for name, value in sorted(on_others.items(), key=lambda item: item[1]):
    print(f"{name:28} {value:.2f} nats per graded token of 40 other rows")
for name in ("reference", "linear schedule", "random order"):
    for other in ("Qwen3's template", "everything graded"):
        assert on_others[other] > on_others[name] + 0.1

# %% [markdown]
# **Read.** Schedule and order leave the model near the reference. With Qwen3's template a part of
# each step teaches a think block (section 4); with everything graded it teaches the questions.
#
# **Predict.** Warm-up takes two steps. In which step do the losses of the linear schedule part from
# the reference's? Then choose this run below.

# %%
switches = rungs | runs
shown_first = "sft_lab.train"
picture = draw_ladder(shown_first, reference, switches[shown_first])
show_widget(explore_ladder(reference, switches), picture)

# %% tags=["folded"]
# asserted: the numbers that the text relies on
far = differences(reference, runs["linear schedule"]) > TOLERANCE
assert not far[:4].any() and far[4:].all()

# %% [markdown]
# **Read.** In the fifth. The rate climbs in steps 1 and 2 and has its peak in step 3. From step 4
# on the rates differ, and a loss shows only the updates before it.
#
# ### Five runs that went wrong
#
# Five colleagues meant to repeat our run, `SAME` and `assistant_only_loss=True`, on 80 rows of
# messages, ten steps. Here is what their first four steps left, ours first.

# %%
rows_80 = same_run.short_rows_of(5, same_run.FAULTY_ROWS, tokenizer)
ours_80 = same_run.trl_run(base, tokenizer, rows_80, {}, same_run.SHOWN_STEPS)
print(same_run.describe("ours", ours_80))
for name in "ABCDE":
    print(same_run.describe(name, same_run.faulty_run(name, base, tokenizer, rows_80)))
by_loop = same_run.plain_losses(base, tokenizer, rows_80, same_run.SHOWN_STEPS)
assert differences(by_loop, ours_80.losses).max() < TOLERANCE

# %% [markdown] tags=["exercise"]
# ### Exercise 7.6 · One keyword is wrong · 12 min · ●●●
# Each of the five runs has exactly one wrong keyword of `SFTConfig`. Find it from the evidence.
# `mended` is a dict with the keys "A" to "E". Each value is a dict with one entry: the keyword that
# you blame, and a value that makes the run ours. `{"A": {"weight_decay": 0.0}, …}` blames A's
# weight decay. The check lays your keyword over theirs, trains four steps on 80 rows that it draws,
# and compares the losses with our loop's. All must agree to 1e-5 nats.

# %% tags=["stub"]
mended = ...

# %% tags=["solution"]
mended = {
    "A": {"lr_scheduler_type": "cosine"},
    "B": {"assistant_only_loss": True},
    "C": {"train_sampling_strategy": "sequential"},
    "D": {"bf16": False},
    "E": {"max_length": None},
}

# %% tags=["check"]
check("7.6", mended)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Go through the evidence in the order of the run: rows and graded
# tokens, graded text, first loss, rates. A first loss that is off by some thousandths is another
# matter than one that is off by tenths.</details>

# %% [markdown] tags=["explanation"]
# A: the rates. B: the text. C: text, count and rates are ours, and the first loss is not: other
# rows meet. D: off by thousandths from the start. E: fewer rows, and a text that breaks off.
#
# Usual mistakes: a keyword that had our value already; `max_length` raised, and still too short.

# %% [markdown]
# ## 4 · Which tokens are graded
#
# Old tutorials mask the prompt with `DataCollatorForCompletionOnlyLM`. TRL removed it in version
# 0.20. It searched every row for the tokens of a **response template**, here the text that opens an
# answer, and masked all before:


# %%
def old_collator_labels(input_ids: list[int], response_ids: list[int]) -> list[int]:
    """Labels of one row, as DataCollatorForCompletionOnlyLM(response_template) made them."""
    size = len(response_ids)
    places = [i for i in range(len(input_ids)) if input_ids[i : i + size] == response_ids]
    if not places:  # all masked, and one warning
        return [IGNORE_INDEX] * len(input_ids)
    first = places[-1] + size
    return [IGNORE_INDEX] * first + input_ids[first:]


# %% [markdown]
# Its successor is a data format: rows of `prompt` and `completion`, for which
# `completion_only_loss` is on. **Predict.** Do both give the labels of `encode_conversation`?

# %% tags=["predict"]
marker = tokenizer("<|im_start|>assistant\n").input_ids
old = [old_collator_labels(example.input_ids, marker) for example in examples]
new = [row["labels"] for row in trainers["prompt–completion, messages"].train_dataset]
ids, labels = examples[0].input_ids, examples[0].labels
apart = [place for place in range(len(ids)) if old[0][place] != labels[place]]
print("old and new agree:", old == new)
print("labelled unlike ours:", [tokenizer.decode([ids[place]]) for place in apart])
assert old == new and apart == [len(ids) - 1] and tokenizer.decode([ids[-1]]) == "\n"

# %% [markdown]
# **Read.** The two agree, and grade one token more than we do: the line break that the template
# writes *after* the stop token. The model never has to write it, for generation ends before.
#
# **Predict.** What does the old collator grade in these four rows?


# %%
def count_graded(text: str, response_template: str, limit: int = 1000) -> int:
    """How many tokens of the text the old collator grades."""
    ids = tokenizer(text).input_ids[:limit]
    labels = old_collator_labels(ids, tokenizer(response_template).input_ids)
    return sum(label != IGNORE_INDEX for label in labels)


# %%
alpaca = "What is the capital of Japan?\n### Response:\nThe capital of Japan is Tokyo."
two_rounds = [*conversations[0], *conversations[1]]
chat = render(two_rounds, tokenizer)
of_both = sum(x != IGNORE_INDEX for x in encode_conversation(two_rounds, tokenizer).labels)

# %% tags=["predict"]
counts = {
    "Alpaca, marker '### Response:\\n'": count_graded(alpaca, "### Response:\n"),
    "Alpaca, marker '\\n### Response:\\n'": count_graded(alpaca, "\n### Response:\n"),
    f"two rounds, {of_both} in the answers": count_graded(chat, "<|im_start|>assistant\n"),
    "cut after 12 tokens": count_graded(chat, "<|im_start|>assistant\n", limit=12),
}
for name, count in counts.items():
    print(f"{count:3} tokens graded: {name}")
plain, with_break, rounds, cut = counts.values()
assert plain > 0 and with_break == cut == 0 and 0 < rounds < of_both

# %% [markdown]
# **Read.** The second marker begins with a line break. Alone that is a token. In the text the
# tokenizer joins it with the `?` before it; the search finds nothing, and the row teaches nothing.
# Of two rounds only the last is graded. A cut row is all masked. A format that says where the
# answer begins cannot fail this way.
#
# ### Four formats
#
# **Predict.** One conversation in the four formats of TRL: which have a stop token in the loss?

# %%
text = [{"text": render(conversations[0], tokenizer)}]
formats = {
    "messages, assistant_only_loss": sft(messages[:1], assistant_only_loss=True),
    "prompt + completion, as text": sft(texts[:1]),
    "prompt + completion, as messages": sft(pairs[:1]),
    "text": sft(text),
}
one_row = {name: trainer.train_dataset[0] for name, trainer in formats.items()}

# %% tags=["predict"]
figure = plots.new_figure((10, 8.6))
for ax, (name, row) in zip(figure.subplots(4), one_row.items(), strict=True):
    count = sum(label != IGNORE_INDEX for label in row["labels"])
    tokens = [tokenizer.decode([token_id]) for token_id in row["input_ids"]]
    plots.token_strip(tokens, row["labels"], title=f"{name}: {count} graded", ax=ax)

# %% tags=["folded"]
# asserted: the numbers that the text relies on
of_messages, of_texts, _, of_text = one_row.values()
assert of_texts["labels"] == of_messages["labels"][:-1]
end = [tokenizer.eos_token_id]
assert of_text["labels"] == of_text["input_ids"] == of_messages["input_ids"] + end

# %% [markdown]
# **Read.** All four. For plain text TRL appends the eos token. To a bare answer that is right: it
# is the stop token we want. A rendered text already ends with `<|im_end|>` and a line break, so it
# gets a *second* stop token, and everything is graded. Use messages where a template exists.

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
# ### Templates without generation tags
#
# `assistant_only_loss` needs `{% generation %}` tags in the template (chapter 02). Many have none.
# We try ours without them, and Qwen3's, which has none.
#
# **Predict.** What does TRL do with each: fail, warn, or something else?

# %% tags=["predict"]
tag = re.compile(r"\{%-? *(end)?generation *-?%\}")
tagless = tag.sub("", tokenizer.chat_template)
made = {}
for name, template in {"ours without tags": tagless, "Qwen3's": qwen3}.items():
    try:
        made[name] = sft(messages[:1], template=template, assistant_only_loss=True)
        print(f"{name}: a trainer")
    except ValueError as error:
        print(f"{name}: {textwrap.shorten(str(error), 100)}")
assert list(made) == ["Qwen3's"] and not tag.search(qwen3)

# %% tags=["predict"]
for name, trainer in made.items():
    print(f"{name}: the trainer has the template that we gave:", trainer.chat_template == qwen3)
    graded = [label for label in trainer.train_dataset[0]["labels"] if label != IGNORE_INDEX]
    print("graded:", repr(tokenizer.decode(graded)))
assert trainer.chat_template == (templates / "qwen3_training.jinja").read_text("utf-8")
assert tokenizer.decode(graded).startswith("<think>\n\n</think>\n\n")

# %% [markdown]
# **Read.** A template that TRL knows is replaced by its *training variant*, without a word; any
# other is refused. Qwen3's variant puts an empty think block before each answer, and grades it. Is
# this what you will ask at inference? With `enable_thinking=False` the prompt already holds the
# block; without, the model writes it (chapter 02). Render both and compare before you train.
#
# ## 5 · Old names, and `trl sft`
#
# Tutorials age. The cell prints old calls and their successors, and asserts which of them the
# installed versions accept.


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
# `processing_class`. In brackets stands the release that brought the new call. One change is not
# listed: `apply_chat_template` now returns a dictionary. Ask `["input_ids"]` of it.

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
# ### A run as a file
#
# A folder with a model, a folder with rows, and one file of settings need no Python code.

# %%
work = Path(folder) / "cli"
(work / "rows").mkdir(parents=True)
base.save_pretrained(work / "base")
tokenizer.save_pretrained(work / "base")
lines = "".join(json.dumps(row) + "\n" for row in messages)
_ = (work / "rows" / "train.jsonl").write_text(lines, encoding="utf-8")

# %%
settings = {
    "model_name_or_path": "base",
    "dtype": "float32",
    "dataset_name": "rows",
    "assistant_only_loss": True,
    "output_dir": "tuned",
    **(SAME | {"save_strategy": "epoch"}),
}
settings["learning_rate"] = "8.0e-5"  # YAML reads 8e-5 as text
yaml = "".join(f"{name}: {value}\n" for name, value in settings.items())
yaml = yaml.replace("True", "true").replace("False", "false")
_ = (work / "sft.yaml").write_text(yaml, encoding="utf-8")
print(yaml)

# %% [markdown]
# **Predict.** In a terminal the command is `trl sft --config sft.yaml`. Are its losses ours?

# %% tags=["predict"]
command = [sys.executable, "-m", "trl.cli.main", "sft", "--config", "sft.yaml"]
offline = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
cache = {"HF_DATASETS_CACHE": str(work / "cache")}
environment = os.environ | offline | cache
done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
assert done.returncode == 0, done.stderr[-2000:]

# %% tags=["predict"]
state_file = work / "tuned" / f"checkpoint-{STEPS}" / "trainer_state.json"
state = json.loads(state_file.read_text(encoding="utf-8"))
from_file = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
print("trl sft, the same run:", same_as(reference, from_file))
print("written:", [path.name for path in (work / "tuned").glob("*.safetensors")])
assert same_as(reference, from_file)

# %% [markdown]
# **Read.** They are, within rounding. The command starts `accelerate launch`: with several GPUs,
# and without `use_cpu`, the same file trains on all of them. `use_peft: true`, `lora_r` and
# `lora_alpha` add LoRA.
#
# | you want | take |
# |---|---|
# | to understand, to change the loss, to train a small model on a CPU | the loop of chapter 04 or `sft_lab.train` |
# | your own model or collator, but checkpoints, several GPUs and logs for free | `transformers.Trainer` |
# | SFT of a chat model, LoRA, packing, long runs | `SFTTrainer` with `peft_config` |
# | a run as a file that others can repeat | `trl sft` with YAML; LLaMA-Factory (chapter 10) |
#
# Chapter 07b measures where the time goes.
#
# ## 6 · On a real model
#
# SmolLM2-135M is a chat model with thirty layers. Three steps of four rows, three seeds, were
# recorded by the command that the cell prints.
#
# **Predict.** How far is TRL from our loop here: 1e-7, 1e-5 or 1e-3 nats? And its template has no
# generation tags: does TRL swap it or refuse it?

# %% tags=["predict"]
real = read_results("07_smollm2")
print(real.made, "·", real.machine, "·", real.command)
first = real.select(arm="our loop")
gaps, more = {}, {}
for arm in ("TRL, token ids", "TRL, token ids, bf16", "TRL, prompt and completion"):
    pairs_of = list(zip(first, real.select(arm=arm), strict=True))
    gaps[arm] = [differences(one["losses"], other["losses"]).max() for one, other in pairs_of]
    more[arm] = {other["graded"] - one["graded"] for one, other in pairs_of}
    print(f"{arm:27} at most {max(gaps[arm]):.0e} nats apart, tokens more graded: {more[arm]}")

# %% tags=["predict"]
row = real.select(arm="TRL, messages")[0]
print(textwrap.shorten(str(row), 160))
assert max(gaps["TRL, token ids"]) < 1e-4 and min(gaps["TRL, token ids, bf16"]) > 1e-3
assert more["TRL, prompt and completion"] == {12} and row["refused"]

# %% [markdown]
# **Read.** With the same labels it is the same run, to about 1e-5 nats: thirty layers round more
# often than our four. bf16 is a thousand times as far. Messages are refused, because TRL does not
# know this template. Prompt and completion work, and grade the line break of each of the 12 rows.
#
# ## What to remember
#
# - Our loop, `Trainer`, `SFTTrainer`, PEFT and `trl sft` make one run, within rounding, once the
#   settings are equal.
# - TRL's defaults to look at: bf16 and checkpointing on, 2e-5, and for messages every token graded.
# - The completion-only collator became a data format. Prefer messages with tags, or prompt and
#   completion.
# - Without tags, `assistant_only_loss` swaps the template or refuses it: print the graded text.
# - Print one row of labels, and compare the first loss with one that you computed yourself.
#
# ## Sources
#
# - The text this chapter follows: notes on DeepLearning.AI, *Post-training of LLMs*.
# - Hugging Face documentation: *SFT Trainer*, *Dataset formats*, *Command line interfaces* (TRL
#   1.16); *Trainer* (transformers 5.23); *LoRA* (PEFT 0.21).
# - huggingface/trl, issues 3827 and 3910 (the removed collator, `max_length`);
#   huggingface/transformers, MIGRATION_GUIDE_V5.md.
#
# <details><summary>中文要点</summary>
#
# 1. **原样调用**：照教程的六个字段调用 `SFTTrainer`，损失下降，模型却不会回答：`messages` 数据默认对
#    **全部 token** 计损失，学习率也不适合小模型。
# 2. **同一次训练的阶梯**：手写循环、`sft_lab.train`、`Trainer`、`SFTTrainer`、PEFT、`trl sft`，
#    标签逐 token 相同，20 步损失相差不超过 1e-5（浮点舍入）。
# 3. TRL 的默认值要逐项核对：bf16 与激活检查点默认开启，学习率 2e-5，线性衰减、无预热。
# 4. `DataCollatorForCompletionOnlyLM` 已删除：改用 prompt + completion 数据格式。
# 5. 模板没有 `{% generation %}` 标签时，TRL 会**悄悄替换**成训练模板，或直接报错；先打印被计分的文本，
#    再用自己算出的损失核对第一步。
#
# </details>
