# %% [markdown]
# # 08 · Qwen on a GPU: predict memory before renting
#
# **The question.** A card costs money by the hour, and "CUDA out of memory" comes after you paid.
# How many bytes does a training step take, which part of them can you avoid, and how fast could the
# step be?
#
# **By the end you can**
# - *predict* the peak memory of a step, part by part, to a few per cent, without a GPU;
# - *choose* number format, method, batch and card, and say what each choice costs;
# - *run* the same cells on a CPU, on a free T4 and on an H100, and read their curves.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 04 and 05 | CPU, or any CUDA card | about 30 s on a CPU | 5, about 40 minutes | B5 B8 B10 B11 L12 L13 |
#
# **What is measured here.** Memory is metered on your machine, operation by operation. Speeds and
# peaks of a card come from a record: an H100 on which `make gpu` ran (`docs/h100.json`).
# No T4 and no other card was measured. Where a number comes from arithmetic, the text says so.

# %% tags=["setup"]
import copy
import json
import math
import os
import random
import textwrap

import matplotlib.pyplot as plt
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, Qwen3Config

# %% tags=["setup"]
from sft_lab import atlas, plots
from sft_lab.cards import GIB
from sft_lab.chat import generate_responses
from sft_lab.course.checks import check
from sft_lab.course.views.fit import draw_fit, explore_fit
from sft_lab.course.views.widgets import show_widget
from sft_lab.instructions import load_instructions
from sft_lab.labels import encode_conversations
from sft_lab.loop.update import mixed_precision
from sft_lab.lora import add_lora
from sft_lab.memory import PARTS, count_layer, predict_memory, predict_moments
from sft_lab.memory_meter import measure_memory
from sft_lab.models import ATLAS_FOLDER, ROOT, choose_device, load
from sft_lab.shapes import SHAPES, count_parameters, named_config
from sft_lab.train import evaluate, train

plots.style()
CUDA = torch.cuda.is_available()
MODEL = os.environ.get("SFT_LAB_MODEL", "qwen3-0.6b-base" if CUDA else "atlas-base")
model, tokenizer = load(MODEL)  # smollm2-135m: a real model for a patient CPU
IS_ATLAS, ON_GPU = MODEL == "atlas-base", model.device.type != "cpu"
qwen = named_config("Qwen3-0.6B")


def total_gib(parts: dict[str, int]) -> float:
    """Bytes by part, as one number of GiB (2³⁰ bytes)."""
    return sum(parts.values()) / GIB


# %% [markdown]
# ## 1 · The card decides the number format
#
# A card has a *compute capability*, a version number of its circuits. **Predict:** a T4 has 7.5 and
# an L4 has 8.9. On which of them does bfloat16 run in hardware?

# %%
cards = {"T4": (7, 5), "L4": (8, 9), "A100": (8, 0), "H100": (9, 0)}
chosen = {name: choose_device(capability) for name, capability in cards.items()}
for name, (device, dtype) in chosen.items():
    print(f"{name:5} {cards[name]} → {device.type}, {str(dtype)[6:]}")
assert {name: dtype for name, (_, dtype) in chosen.items()} == {
    "T4": torch.float16,
    "L4": torch.bfloat16,
    "A100": torch.bfloat16,
    "H100": torch.bfloat16,
}
assert choose_device(None) == (torch.device("cpu"), torch.float32)
if CUDA:
    card = torch.cuda.get_device_properties(0)
    print(
        f"here: {card.name}, {card.total_memory / GIB:.1f} GiB, capability "
        f"{card.major}.{card.minor}"
    )
else:
    print("here: no CUDA card, so", str(choose_device(None)[1])[6:], "on", model.device.type)

# %% [markdown]
# **Read.** bfloat16 came with capability 8.0. PyTorch accepts it on a T4 too and emulates it,
# slowly. So a T4 gets float16. The two formats spend their 16 bits differently.

# %%
tiny = torch.tensor([1e-3, 1e-5, 1e-7, 1e-8])  # four gradients of a real size
for dtype in (torch.float16, torch.bfloat16):
    info = torch.finfo(dtype)
    kept = tiny.to(dtype).float().tolist()
    print(
        f"{str(dtype)[6:]:9} largest {info.max:.0e}, step near 1 {info.eps:.4f}:",
        [f"{x:.1e}" for x in kept],
    )
assert (tiny.half() == 0).tolist() == [False, False, False, True] and (tiny.bfloat16() != 0).all()

scale = 2.0**16
back = (tiny * scale).half().float() / scale
print("float16, loss × 65,536, gradients ÷ 65,536:", [f"{x:.1e}" for x in back.tolist()])
assert_close(back, tiny, rtol=1e-3, atol=0)
assert (
    (torch.tensor(2.0) * scale).half().isinf()
)  # what is large overflows instead: that step is left out

# %% [markdown]
# **Read.** float16 ends at 6 · 10⁻⁸: the last gradient becomes 0. **Loss scaling** multiplies the
# loss, and with it every gradient, by a large number before the backward pass. Afterwards the
# gradients are divided in float32. If one overflows, the step is left out and the scale halved.
# bfloat16 has float32's range and needs none of this.
#
# The division explains the most asked question about float16. **Predict:** what happens if the
# *weights* are float16?

# %%
half_weights = torch.nn.Linear(2, 1).half()
scaler = torch.amp.GradScaler("cpu")
optimizer = torch.optim.AdamW(half_weights.parameters())
scaler.scale(half_weights(torch.ones(1, 2).half()).float().sum()).backward()
try:
    scaler.unscale_(optimizer)
    raise AssertionError("expected to fail")
except ValueError as error:
    print("ValueError:", error)

with mixed_precision(half_weights) as (autocast, scaler):  # what sft_lab.train does
    print("while training:", half_weights.weight.dtype, "| scaler on:", scaler.is_enabled())
    assert half_weights.weight.dtype == torch.float32
assert half_weights.weight.dtype == torch.float16

# %% [markdown]
# **Read.** Gradients have the format of their weights. Dividing float16 gradients would bring the
# zeros back, so PyTorch refuses. The remedy is not to switch off the scaler: hold the *trained*
# weights in float32, and let autocast compute in float16. Our `train` does this on a T4; with LoRA
# only A and B are trained, so it costs next to nothing.

# %% [markdown] tags=["exercise"]
# ### Exercise 8.1 · Unscale · 9 min · ●●○
# Write what the scaler does after a backward pass of loss × scale. The gradients arrive in float16.


# %% tags=["stub"]
def unscale(gradients: list[torch.Tensor], scale: float) -> tuple[list[torch.Tensor] | None, float]:
    """Return (true gradients in float32, scale), or (None, scale / 2) if any entry is inf or
    nan."""
    raise NotImplementedError


# %% tags=["solution"]
def unscale(gradients: list[torch.Tensor], scale: float) -> tuple[list[torch.Tensor] | None, float]:
    """Return (true gradients in float32, scale), or (None, scale / 2) if any entry is inf or
    nan."""
    if not all(gradient.isfinite().all() for gradient in gradients):
        return None, scale / 2
    return [gradient.float() / scale for gradient in gradients], scale


# %% tags=["check"]
check("8.1", unscale)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>isfinite</code> is false for inf, −inf and nan. First
# convert, then divide.</details>

# %% [markdown] tags=["explanation"]
# Converting first matters: the quotient may be too small for float16, although dividend and divisor
# are not.
#
# Usual mistakes: dividing in float16; looking for inf only (inf − inf is nan); looking at the first
# tensor only; keeping the scale after an overflow, so that every later step is left out as well.

# %% [markdown]
# ## 2 · Memory, part by part
#
# A step holds five kinds of bytes: **weights**, **gradients**, the **optimizer**'s two averages,
# **activations** that the backward pass needs, and **logits**, a score for every token of the
# vocabulary at every position.
#
# **Predict.** Full tuning of Qwen3-0.6B, one row of 2,048 tokens, bf16 products. Which part is
# largest?
#
# We begin with what does not depend on the data. AdamW trains in float32: weight, gradient and two
# averages, 4 bytes each, 16 in all. Chapter 05 counted the 12 beside the weight, chapter 06 the 8
# of the averages. Here the weight counts too. A frozen weight stands in bf16: 2 bytes.

# %%
counts = count_parameters(qwen, rank=16)
base = counts["linear"] + counts["embedding"] + counts["other"]
with torch.device("meta"):  # shapes only: no memory, no download
    skeleton = AutoModelForCausalLM.from_config(qwen)
assert base == skeleton.num_parameters() == 596_049_920
print({name: f"{count:,}" for name, count in counts.items()})
print(f"full: 16 bytes × {base / 1e6:.0f} M = {16 * base / GIB:.2f} GiB")
print(
    f"LoRA: 2 bytes × {base / 1e6:.0f} M + 16 bytes × {counts['lora'] / 1e6:.1f} M"
    f" = {(2 * base + 16 * counts['lora']) / GIB:.2f} GiB"
)

# %% [markdown] tags=["exercise"]
# ### Exercise 8.2 · Bytes that the data cannot change · 5 min · ●○○
# Weights, gradients and averages together, as our loop holds them: frozen weights in bf16, trained
# ones in float32.


# %% tags=["stub"]
def static_bytes(frozen: int, trained: int) -> int:
    """Return the bytes of weights, gradients and AdamW's averages for so many frozen and trained
    numbers."""
    raise NotImplementedError


# %% tags=["solution"]
def static_bytes(frozen: int, trained: int) -> int:
    """Return the bytes of weights, gradients and AdamW's averages for so many frozen and trained
    numbers."""
    return 2 * frozen + (4 + 4 + 8) * trained


# %% tags=["check"]
check("8.2", static_bytes)

# %% [markdown] tags=["explanation"]
# A frozen weight is read, and nothing more: 2 bytes in bf16. A trained one needs its float32 value,
# its gradient and two averages: 16 bytes, 12 of them beside the weight.
#
# Usual mistakes: counting one average; counting gradients for frozen weights; leaving the trained
# numbers in bf16, where updates smaller than 1/256 of a weight vanish.

# %% [markdown]
# ### Activations, counted by hand
#
# Autograd keeps what a gradient formula will ask for. Write D for the width, Q and K for the widths
# of all queries and all keys, I for the MLP, N for the tokens. Under bf16 a token leaves in one
# layer of **full** tuning:
#
# | operation | what its gradient needs | bytes a token |
# |---|---|---|
# | two RMSNorms | their input and the normalised input, float32; one scale | 2 (8 D + 4) |
# | inputs of q k v, gate up | one bf16 cast for each of the five | 5 · 2 D |
# | norms of q and k | input in float32, normalised in bf16; a scale a head | 6 (Q + K) + 4 · heads |
# | rotation and scores (sdpa) | rotated q and k, v, the result, one number a head | 2 (2 Q + 2 K) + 4 · heads |
# | MLP | gate, silu(gate), up, and their product | 4 · 2 I |
#
# **Predict.** For Qwen3-0.6B, D = 1,024, Q = 2,048, K = 1,024, I = 3,072. How many kilobytes does
# one token leave in one layer? The cell adds the rows, and asks `sft_lab`.

# %%
D, Q, K, inner, heads, kv_heads = 1024, 2048, 1024, 3072, 16, 8
by_hand = {
    "norms": 2 * (8 * D + 4),
    "inputs": 5 * 2 * D,
    "norms of q and k": 6 * (Q + K) + 4 * (heads + kv_heads),
    "attention": 2 * (2 * Q + 2 * K) + 4 * heads,
    "MLP": 4 * 2 * inner,
}
kept = count_layer(qwen, tokens=1, length=1, method="full", rank=16, half=True)
casts = kept.pop("trained weights in half")  # bf16 copies of the weights: not for each token
assert sum(by_hand.values()) == sum(kept.values())
assert sum(by_hand[name] for name in ("norms", "inputs", "norms of q and k")) > 0.5 * sum(
    by_hand.values()
)
print({name: f"{size:,} B" for name, size in by_hand.items()})
print(
    f"{sum(kept.values()) / 1e3:.1f} kB a token and layer; × 28 layers × 2,048 tokens = "
    f"{28 * 2048 * sum(kept.values()) / GIB:.2f} GiB, and {28 * casts / GIB:.2f} GiB of bf16 "
    "weights"
)

# %% [markdown]
# **Read.** More than half are norms and casts, which no diagram of a transformer shows. "Eager"
# attention would add the T × T scores themselves. **Sdpa** never builds them: it keeps one number a
# row and computes them again.
#
# **Logits** follow from one product, N · V. A plain loop, `model(labels=…)`, holds bf16 logits,
# float32 log-softmax, and two float32 gradients at once: 14 bytes a score. For 2,048 tokens and V =
# 151,936 that is 4.06 GiB.
#
# `predict_moments` adds these parts at each moment that can be the peak of a step.

# %%
moments = predict_moments(qwen, method="full", batch_size=1, length=2048)
for name, parts in sorted(moments.items(), key=lambda item: -sum(item[1].values())):
    print(f"{total_gib(parts):6.2f} GiB  {name}")
peak = predict_memory(qwen, method="full", batch_size=1, length=2048)
print("at the peak:", {part: f"{peak[part] / GIB:.2f} GiB" for part in PARTS})
assert max(PARTS, key=peak.__getitem__) == "activations" and abs(peak["logits"] / GIB - 4.06) < 0.01

# %% [markdown]
# **Read.** The peak comes when the backward pass begins: all activations and logits are there, and
# no gradient of a weight is, so gradients read 0.00 GiB. They grow while activations are freed.
#
# ### … and measured
#
# Now we check the formula. `measure_memory` runs the step and adds up every tensor from the
# operation that makes it until it is freed. With **fake tensors**, which have a shape and
# no content, PyTorch goes through the same operations and allocates nothing. So we measure a step
# that needs 16 GiB on any laptop.

# %%
small = Qwen3Config.from_pretrained(ATLAS_FOLDER)
pairs = {
    "atlas-base, full, float32, really run": (
        small,
        {"method": "full", "batch_size": 8, "length": 64, "half": False, "fake": False},
    ),
    "Qwen3-0.6B, full": (qwen, {"method": "full", "length": 2048}),
    "Qwen3-0.6B, LoRA, graded in chunks": (
        qwen,
        {"method": "lora", "batch_size": 2, "length": 2048, "head": "graded", "graded": 0.5},
    ),
}
for name, (config, settings) in pairs.items():
    measured = measure_memory(config, **settings)
    predicted = predict_memory(
        config, **{key: value for key, value in settings.items() if key != "fake"}
    )
    gap = sum(predicted.values()) / sum(measured.values()) - 1
    print(
        f"{name}: predicted {sum(predicted.values()) / 1e6:,.1f} MB, measured "
        f"{sum(measured.values()) / 1e6:,.1f} MB"
    )
    for part in PARTS:
        print(f"    {part:12}{predicted[part] / 1e6:10,.1f}{measured[part] / 1e6:10,.1f}")
    assert abs(gap) < 0.02

# %% [markdown]
# **Read.** The gaps are far below two per cent. Tests repeat this on random small models with every
# method, and compare the meter with PyTorch's own allocator: the same bytes.
#
# ### … and on a card
#
# A meter that we wrote ourselves proves little. So eight steps ran on an H100, with random weights,
# which cost what trained ones cost. PyTorch's own counter, `torch.cuda.max_memory_allocated`, gave
# the peak. **Predict:** how far is arithmetic from the card? 20 %, 5 %, 1 %?

# %%
h100 = json.loads((ROOT / "docs" / "h100.json").read_text("utf-8"))
print(f"RECORDED on {h100['date']}: {h100['card']['name']}, torch {h100['versions']['torch']}")
steps = []
for step in h100["memory"]:
    name = f"{step['shape']}, {step['method']}" + (", chk" if step.get("checkpointing") else "")
    name += f", {step['batch_size']} × {step['length']:,}, {step['head']}"
    steps.append((name, step["predicted_gib"], step["peak_gib"], step))
for name, predicted, metered, _ in steps:
    print(
        f"{name:45} predicted {predicted:5.2f}, card {metered:5.2f} GiB {metered / predicted - 1:+6.1%}"
    )
gaps = {
    head: [metered / predicted - 1 for _, predicted, metered, step in steps if step["head"] == head]
    for head in ("graded", "all")
}
assert max(abs(gap) for gap in gaps["graded"]) < 0.02 and all(gap < 0 for gap in gaps["all"])

# %% [markdown]
# **Read.** The last word says which positions are scored (chk: with checkpointing). Where they are
# the *graded* ones, the card is within two per cent of the arithmetic. Where they are *all*, the
# card needs *less*, up to 7 %. That is a trace.
# **Predict:** divide the missing bytes by the number of scores. What comes out?

# %%
for name, predicted, metered, step in steps:
    if step["head"] == "all":
        scores = step["batch_size"] * step["length"] * named_config(step["shape"]).vocab_size
        print(f"{name:45} {(predicted - metered) * GIB / scores:4.2f} bytes a score too many")

with_output_dropped = [
    (
        name,
        predicted
        - 2 * step["batch_size"] * step["length"] * named_config(step["shape"]).vocab_size / GIB
        if step["head"] == "all"
        else predicted,
        metered,
    )
    for name, predicted, metered, step in steps
]
figure, ax = plt.subplots(figsize=(8.5, 4.2))
rows = range(len(steps), 0, -1)
ax.scatter(
    [predicted for _, predicted, _ in with_output_dropped],
    rows,
    s=150,
    facecolors="none",
    edgecolors=plots.BLUE,
    linewidths=2,
    label="predicted",
)
ax.scatter(
    [metered for *_, metered in with_output_dropped],
    rows,
    s=30,
    color=plots.ANSWER,
    label="H100",
)
ax.set_yticks(rows, [name for name, *_ in with_output_dropped])
ax.set(xlim=(0, None), xlabel="GiB at the peak (all scored: two bytes a score taken off)")
ax.legend(loc="upper left")
_ = ax.set_title("Arithmetic and an H100: within two per cent", fontsize=15, loc="right")
worst = max(abs(metered / predicted - 1) for _, predicted, metered in with_output_dropped)
print(f"largest gap, two bytes a score taken off: {worst:.1%}")
assert worst < 0.02

# %% [markdown]
# **Read.** Almost two bytes: one bfloat16 number, less a tenth of a GiB that the card holds and we do
# not count (in the smallest step that is half of the gap). The loops of this course keep the model's output, with
# its scores, until the step is over, and so does the prediction. The step on the card was written
# `loss = model(…).loss`: nobody holds the output, and PyTorch frees the scores before the backward
# pass. One name in a program was worth 2.3 GiB.
#
# What no tensor holds is still missing: the CUDA context and libraries (0.5 to 1 GB, visible in
# `nvidia-smi` only), and fragmentation, free gaps that no tensor fits. We allow 1 GiB for them;
# that is a custom, not a measurement.
#
# One recorded step broke the prediction: LoRA with products in **float32**. Who ate the memory?

# %%
switched = h100["switches"]["float32 products, 4 rows"]
settings = {"method": "lora", "batch_size": 4, "length": 2048, "half": False, "head": "graded"}
guesses = {
    attention: total_gib(predict_memory(qwen, attention=attention, **settings))
    for attention in ("sdpa", "eager")
}
print(f"RECORDED: {switched['peak_gib']:.1f} GiB on the H100")
print("predicted:", {attention: f"{size:.1f} GiB" for attention, size in guesses.items()})
assert guesses["sdpa"] < 0.5 * switched["peak_gib"]
assert abs(switched["peak_gib"] / guesses["eager"] - 1) < 0.02

# %% [markdown]
# **Read.** We asked for sdpa and got the memory of eager: PyTorch built the T × T scores, without a
# word. The fast attention kernels of a card want bfloat16 or float16. The wrong number format can
# cost more than twice the memory; 8 such rows did not fit 80 GB.
#
# ### Four models, three methods
#
# QLoRA holds the frozen layers in 4 bits: half a byte, and scales of scales, 0.516 bytes a weight.

# %%
columns = [
    (1, 512, False, "all"),
    (8, 1024, False, "all"),
    (8, 1024, True, "all"),
    (8, 1024, True, "graded"),
]
names = ["1 × 512", "8 × 1,024", "… checkpointing", "… and graded half, in chunks"]
print(f"{'GiB':24}" + "".join(f"{name:>{max(12, len(name) + 3)}}" for name in names))
table = {}
for shape in SHAPES:
    for method in ("full", "lora", "qlora"):
        table[shape, method] = [
            total_gib(
                predict_memory(
                    named_config(shape),
                    method=method,
                    batch_size=rows,
                    length=length,
                    checkpointing=checkpointing,
                    head=head,
                    graded=0.5,
                )
            )
            for rows, length, checkpointing, head in columns
        ]
        print(
            f"{shape + ', ' + method:24}"
            + "".join(
                f"{size:{max(12, len(name) + 3)}.1f}"
                for size, name in zip(table[shape, method], names, strict=True)
            )
        )
assert table["Qwen3-0.6B", "lora"][1] > 30 > 6 > table["Qwen3-0.6B", "lora"][3]
assert table["Qwen2.5-7B", "full"][3] > 80 > 21 > table["Qwen2.5-7B", "lora"][3]

# %% [markdown]
# **Read.** Compare down and across. LoRA removes gradients and averages, but at 8 × 1,024 tokens
# the 0.6B model still takes 33 GiB: activations and logits, which LoRA leaves. **Checkpointing**
# keeps the input of each layer and computes the layer again in the backward pass. **Scoring the
# graded positions alone, in chunks,** removes the logits.
#
# ### The text's claim
#
# The text this course grew from says: "Qwen2.5-7B, LoRA rank 64, bf16, checkpointing ≈ 16 to 20
# GB", beside a configuration with batch size 2 and `cutoff_len` 2048. **Predict:** is it right?

# %%
seven = named_config("Qwen2.5-7B")
lengths = [256, 512, 1024, 2048, 4096, 8192]
curves = {}
for name, head in (("all positions scored", "all"), ("half of them graded, in chunks", "graded")):
    curves[name] = [
        sum(
            predict_memory(
                seven, method="lora", rank=64, length=n, checkpointing=True, head=head, graded=0.5
            ).values()
        )
        / 1e9
        for n in lengths
    ]
figure, ax = plt.subplots(figsize=(8.5, 4.2))
ax.axhspan(16, 20, color=plots.PROMPT, alpha=0.5, linewidth=0)
ax.text(8192, 16.5, "the claim: 16 to 20 GB", color=plots.MUTED, ha="right")
for (name, values), colour, marker in zip(
    curves.items(), (plots.VERMILLION, plots.BLUE), "os", strict=True
):
    ax.plot(lengths, values, marker=marker, color=colour, label=name)
ax.set(
    xscale="log",
    xticks=lengths,
    ylim=(14, 48),
    xlabel="tokens in a batch (rows × length)",
    ylabel="GB (10⁹ bytes)",
)
ax.set_xticks(lengths, [f"{n:,}" for n in lengths])
ax.minorticks_off()
ax.legend(loc="upper left")
_ = ax.set_title("The claim holds up to about 1,000 tokens in a batch")

# %%
plain, chunked = (dict(zip(lengths, values, strict=True)) for values in curves.values())
weights = (
    predict_memory(seven, method="lora", rank=64, length=256, checkpointing=True)["weights"] / 1e9
)
print(f"the weights alone: {weights:.1f} GB")
print(
    f"batch 2 × 2,048, as configured: {plain[4096]:.1f} GB with all scores, {chunked[4096]:.1f} "
    "GB in chunks"
)
on_h100 = [step["peak_gib"] * GIB / 1e9 for step in h100["memory"][1:3]]
print(f"the same two steps on the H100: {on_h100[0]:.1f} and {on_h100[1]:.1f} GB (RECORDED)")
assert abs(weights - 15.9) < 0.06
assert 16 < plain[1024] < 20 < plain[2048] < plain[4096] and plain[4096] > 24
assert chunked[2048] < 20 < chunked[4096] < 22

# %% [markdown]
# **Read.** Half right. The weights alone are 15.9 GB. With short rows the claim holds. With the
# rows that the configuration allows, 2 × 2,048 tokens, a plain loop needs about 27 GB of tensors,
# more than a 4090 has. Scoring in chunks brings it to about 21 GB. The card agrees (its plain step
# dropped the output, 2 bytes a score). A memory claim without batch and length says little.

# %% [markdown] tags=["exercise"]
# ### Exercise 8.3 · How many rows fit · 8 min · ●○○
# You measured the peak with one row and with two. Memory is a fixed part plus a part for each row.
# How many rows fit a card, if `reserve` stays free?


# %% tags=["stub"]
def rows_that_fit(peak_1: float, peak_2: float, card: float, reserve: float) -> int:
    """Return the largest number of rows; all arguments in GiB; peak_1 and peak_2 with one and with
    two rows."""
    raise NotImplementedError


# %% tags=["solution"]
def rows_that_fit(peak_1: float, peak_2: float, card: float, reserve: float) -> int:
    """Return the largest number of rows; all arguments in GiB; peak_1 and peak_2 with one and with
    two rows."""
    a_row = peak_2 - peak_1
    fixed = peak_1 - a_row
    return max(0, math.floor((card - reserve - fixed) / a_row))


# %% tags=["check"]
check("8.3", rows_that_fit)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Two points give a line. Its slope is the memory of a
# row.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: `card // peak_1`, which counts the weights anew for each row; rounding up; a
# negative count for a model that does not fit at all. The peak is a maximum of several lines, so
# check the answer with a step of that size.

# %% [markdown]
# ## 3 · Will it fit my card?
#
# Choose a model, a card and a method; move the rows and their length. The bars show all three
# methods, the marked one is yours. The sentence below names the first change that would make it
# fit. **Predict** first: Qwen3-0.6B with LoRA on a free T4, 8 rows of 1,024 tokens.

# %%
show_widget(explore_fit(), draw_fit("Qwen3-0.6B", "T4", "lora", 8, 1024, False, "all"))

# %% [markdown]
# **Read.** It does not fit, although the weights take less than a tenth of the card. Changes are
# tried in the order of what they cost: graded positions only (nothing), fewer rows with
# accumulation (the same gradient, chapter 04), checkpointing (a forward pass more), LoRA, QLoRA,
# shorter rows.

# %% [markdown] tags=["exercise"]
# ### Exercise 8.4 · Where to put checkpoints · 10 min · ●●●
# Checkpointing need not cut at every layer. Cut every k layers: keep the input of each group, and
# compute one group at a time again. Kept are ⌈L / k⌉ inputs and, for a moment, k whole layers.
# Which k is best?


# %% tags=["stub"]
def best_interval(layers: int, kept: float, handed: float) -> int:
    """Return the k with the least memory. kept: bytes of a whole layer; handed: bytes of a layer's
    input."""
    raise NotImplementedError


# %% tags=["solution"]
def best_interval(layers: int, kept: float, handed: float) -> int:
    """Return the k with the least memory. kept: bytes of a whole layer; handed: bytes of a layer's
    input."""
    return min(range(1, layers + 1), key=lambda k: math.ceil(layers / k) * handed + k * kept)


# %% tags=["check"]
check("8.4", best_interval)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>There are only L candidates.</details>

# %% [markdown] tags=["explanation"]
# Without the rounding the best k is √(L · handed / kept). A transformer layer keeps about twenty
# times what it hands on, so k is 1 for all but very deep models: the libraries' default.
#
# Usual mistake: √L, the textbook answer, which holds where a layer keeps as much as it hands on.

# %% [markdown]
# ## 4 · Train it
#
# The cells below are the same everywhere; the line `MODEL = …` at the top chooses the model. In
# Colab on a T4, "Run all" tunes Qwen3-0.6B here. A real model takes the instruction rows of this
# course, English and Chinese on a GPU, 160 English ones on a CPU. The embedded model takes its
# questions about the atlas: that is what it can learn. To tune on your own rows or a hub data set,
# give `load_conversations` a file or a `datasets.Dataset`. LoRA of rank 16 is the default; on a
# large card, leave `add_lora` out and lower the learning rate to 1e-5.


# %% tags=["real"]
if IS_ATLAS:
    conversations = random.Random(0).sample(atlas.training_conversations(seed=0), 960)
    questions = atlas.exam("held_out", 128)
else:
    language = None if ON_GPU else "english"  # None: both; small models have read little Chinese
    conversations = load_instructions(language, part="train")
    questions = load_instructions(language, part="held_out")
    if not ON_GPU:  # a part of them, for a patient CPU
        conversations, questions = random.Random(0).sample(conversations, 160), questions[:32]
examples = encode_conversations(conversations, tokenizer)
held_out = encode_conversations(questions, tokenizer)
mean_length = sum(len(example.input_ids) for example in examples) / len(examples)
print(
    f"{len(examples)} examples to train on, {len(held_out)} held out, {mean_length:.0f} tokens each "
    "on average"
)

# %% tags=["real"]
asked = [turns[:-1] for turns in questions[:3]]
before = generate_responses(model, tokenizer, asked, max_new_tokens=40)
loss_before = evaluate(model, tokenizer, held_out, batch_size=16)["loss"]
tuned = copy.deepcopy(model) if IS_ATLAS else model  # section 4 needs the small base again
_ = torch.manual_seed(0)
add_lora(tuned, rank=16, alpha=32)
if IS_ATLAS:  # its stop token was never trained, and LoRA alone cannot learn to stop (chapter 05)
    tuned.get_input_embeddings().requires_grad_(True)
if model.device.type == "cuda":
    torch.cuda.reset_peak_memory_stats()
packing = (
    {"pack_to": 1024, "batch_size": 2, "epochs": 3} if ON_GPU else {"batch_size": 16, "epochs": 1}
)
history = train(
    tuned,
    tokenizer,
    examples,
    eval_examples=held_out,
    evaluate_every=15,
    learning_rate=3e-3 if IS_ATLAS else 2e-4,
    **packing,
)
loss_after = history.evaluations[-1]["loss"]
print(
    f"held-out loss: {loss_before:.2f} → {loss_after:.2f} nats a graded token, "
    f"{len(history.steps)} steps"
)
assert loss_after < loss_before - (1.5 if IS_ATLAS else 0.05)

# %% tags=["real"]
plan = {
    "method": "lora",
    "rank": 16,
    "batch_size": 2,
    "length": 1024,
    "head": "graded",
    "graded": 0.7,
}
planned = total_gib(predict_memory(qwen, **plan))
print(
    f"Qwen3-0.6B with this section's rows on a GPU: {planned:.1f} GiB predicted, so a T4's 14.7 "
    "GiB are enough"
)
assert planned + 1 < 14.7
if model.device.type == "cuda" and model.config.model_type in ("qwen2", "qwen3", "llama"):
    used = torch.cuda.max_memory_allocated() / GIB
    print(
        f"peak on this card: {used:.2f} GiB, predicted "
        f"{total_gib(predict_memory(model.config, **plan)):.2f} GiB"
    )
else:
    print("peak on a card: unmeasured, there is none here")
after = generate_responses(tuned, tokenizer, asked, max_new_tokens=40)
for turns, first, second in zip(questions, before, after, strict=False):
    print(
        f"\n{textwrap.shorten(turns[0]['content'], 100)}\n   base : {textwrap.shorten(first, 90)}"
        f"\n   tuned: {textwrap.shorten(second, 90)}"
    )

# %% [markdown]
# **Read.** The embedded base writes scraps, as in chapter 00. Tuned, it answers these questions in
# the wanted form, one sentence each. On the H100 these cells tuned smollm2-135m (recorded, under
# `chapter_08`): held-out loss 2.98 → 2.50 in 81 steps, peak 2.68 GiB where 2.53 were predicted.
# Packed rows need a mask of length × length, which is not counted.
#
# ### The gap between two curves
#
# "If `eval/loss` pulls away from `train/loss`, you over-fit", says the text. **Predict:** we train
# twice for 40 steps of 8, once on 320 different examples and once on 32 of them, ten times over.
# Which run has the lower *training* loss, and which the lower held-out loss?

# %%
small_model, small_tokenizer = (model, tokenizer) if IS_ATLAS else load("atlas-base")
rows = encode_conversations(atlas.training_conversations(seed=0)[:320], small_tokenizer)
unseen = encode_conversations(atlas.exam("held_out", 64), small_tokenizer)
runs: dict[str, list] = {"320 examples, once": [], "32 examples, 10 times": []}
for seed in range(3):
    order = random.Random(seed).sample(rows, len(rows))
    for name, some, epochs in (
        ("320 examples, once", order, 1),
        ("32 examples, 10 times", order[:32], 10),
    ):
        fresh = copy.deepcopy(small_model)
        _ = torch.manual_seed(seed)
        add_lora(fresh, rank=16, alpha=32).get_input_embeddings().requires_grad_(True)
        runs[name].append(
            train(
                fresh,
                small_tokenizer,
                some,
                eval_examples=unseen,
                epochs=epochs,
                batch_size=8,
                learning_rate=3e-3,
                seed=seed,
                evaluate_every=8,
                progress=False,
            )
        )

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4.0), sharey=True)
gaps = {}
for ax, (name, histories) in zip(axes, runs.items(), strict=True):
    for label, colour, marker, points in (
        (
            "training loss",
            plots.PROMPT,
            "",
            [[(s["step"], s["loss"]) for s in h.steps] for h in histories],
        ),
        (
            "held-out loss",
            plots.ANSWER,
            "o",
            [[(e["step"], e["loss"]) for e in h.evaluations] for h in histories],
        ),
    ):
        for number, line in enumerate(points):
            ax.plot(
                *zip(*line, strict=True),
                color=colour,
                marker=marker,
                linewidth=1.6,
                label=label if number == 0 else None,
            )
    gaps[name] = [h.evaluations[-1]["loss"] - sum(h.losses[-10:]) / 10 for h in histories]
    ax.set(xlabel="optimizer step", ylim=(0, None))
    gap = f"{sum(gaps[name]) / 3:+.2f}".replace("-", "−")
    ax.set_title(f"{name}: gap {gap} nats", fontsize=13, fontweight="normal")
axes[0].set_ylabel("nats per graded token")
axes[0].legend(loc="upper right")
_ = figure.suptitle(
    "Few examples, often repeated: the curves part",
    x=0.01,
    ha="left",
    fontweight="bold",
    fontsize=15,
)

# %%
many, few = gaps.values()
print("held-out minus training loss, three seeds:")
print({name: [round(one, 2) for one in gap] for name, gap in gaps.items()})
held = {name: [h.evaluations[-1]["loss"] for h in histories] for name, histories in runs.items()}
assert min(few) > max(many) + 0.1
assert min(held["32 examples, 10 times"]) > max(held["320 examples, once"])
seen_loss = {
    name: [sum(h.losses[-10:]) / 10 for h in histories] for name, histories in runs.items()
}
print(
    "training loss of the last ten steps:",
    {name: [round(one, 2) for one in x] for name, x in seen_loss.items()},
)
assert max(seen_loss["32 examples, 10 times"]) < min(seen_loss["320 examples, once"])
assert max(max(x) for x in seen_loss.values()) < 1.0

# %% [markdown]
# **Read.** The repeated run shows the *lower* training loss and the *higher* held-out loss. Its
# curves part. A training loss below 1.0, the text's other rule, holds for both runs and says
# nothing about new questions.

# %% [markdown]
# ## 5 · Speed, predicted
#
# A card is limited by operations (FLOP) or by bytes moved. Count the operations of a token first. A
# product with a matrix of P weights takes 2 P forward, 2 P for the gradient of its input, and 2 P
# for the gradient of the weights, unless they are frozen. Causal attention looks at half of the row
# on average.
#
# **Predict.** LoRA trains 1.7 % of the weights. Is a step 60 times cheaper than full tuning, 3
# times, or 1.4 times?


# %%
def operations_a_token(
    weights: int, trained_lora: int, layers: int, width: int, length: int, *, full: bool
) -> float:
    """Operations of a training step for one token of a row; width: of all queries; weights: in
    matrix products."""
    scores = (
        2 * length * width * layers
    )  # q kᵀ and the mean of the values, 2 operations each, over length / 2 tokens
    return 3 * scores + (6 * weights if full else 4 * weights + 6 * trained_lora)


matrices = counts["linear"] + counts["embedding"]  # the tied embedding is also the head
full_cost = operations_a_token(matrices, 0, 28, 2048, 2048, full=True)
lora_cost = operations_a_token(matrices, counts["lora"], 28, 2048, 2048, full=False)
print(
    f"Qwen3-0.6B, rows of 2,048: full {full_cost / 1e9:.2f}, LoRA {lora_cost / 1e9:.2f} GFLOP a "
    "token"
)
print(
    f"at 989 TFLOP/s, the H100's data sheet, at most {989e12 / full_cost / 1e3:.0f} k and"
    f" {989e12 / lora_cost / 1e3:.0f} k tokens/s"
)
assert round(full_cost / 1e9, 2) == 4.28 and round(lora_cost / 1e9, 2) == 3.15

# %% [markdown]
# An upper bound is not a speed. **Predict:** which share of the peak does a real step reach on an
# H100: 80 %, 50 %, 20 %? And which is faster there, our loop or TRL?

# %%
card = h100["card"]
print(f"RECORDED: {card['name']}, 8 rows of {h100['length']:,} tokens, bfloat16")
print(
    f"one product of two 8,192 × 8,192 matrices: {card['ceiling'] / card['peak']:.0%} of the peak"
)
shares = {}
for method, cost in (("lora", lora_cost), ("full", full_cost)):
    for run in ("sft_lab", "TRL", "sft_lab, torch.compile"):
        found = h100["methods"][method][run]
        speed = found["tokens_per_second"]
        shares[method, run] = speed * cost / card["peak"]
        print(
            f"{method}, {run:23} {speed:7,.0f} tokens/s, {shares[method, run]:3.0%} of the peak, "
            f"{found['peak_gib']:4.1f} GiB"
        )
assert max(shares.values()) < 0.26 and 0.79 < card["ceiling"] / card["peak"] < 0.81
for runs in h100["methods"].values():  # compiled against not: speed, memory
    as_it_is, compiled = runs["sft_lab"], runs["sft_lab, torch.compile"]
    assert 1.5 < compiled["tokens_per_second"] / as_it_is["tokens_per_second"] < 1.7
    assert 0.7 < compiled["peak_gib"] / as_it_is["peak_gib"] < 0.8
lora_run, full_run = (h100["methods"][method]["sft_lab"] for method in ("lora", "full"))
assert 0.9 < lora_run["tokens_per_second"] / full_run["tokens_per_second"] < 1.1

# %%
T = 256  # PyTorch counts for itself; on the meta device nothing is computed
qwen_eager = copy.deepcopy(qwen)
qwen_eager._attn_implementation = "eager"
with torch.device("meta"):
    skeleton = AutoModelForCausalLM.from_config(qwen_eager)
    ids = torch.zeros(1, T, dtype=torch.long)
with FlopCounterMode(display=False) as counter:
    skeleton(input_ids=ids, labels=ids).loss.backward()
square = 3 * 2 * T * 2048 * 28  # eager attention computes the whole square, twice the causal half
ours = operations_a_token(matrices, 0, 28, 2048, T, full=True) + square
print(
    f"PyTorch's counter {counter.get_total_flops() / T / 1e9:.4f}, by hand {ours / 1e9:.4f} "
    "GFLOP a token"
)
assert abs(counter.get_total_flops() / T / ours - 1) < 1e-3

# %% [markdown]
# **Read.** By count, 1.4 times. On the card LoRA was not faster at all. It is for memory.
#
# No run gets beyond about a quarter of the peak, although a large bare product reaches 80 %. The
# likely reason: a step of a small model is mostly *not* matrix products. Norms, casts and
# activations move bytes, one kernel each, and `torch.compile` joins such kernels. With it the step
# is about 1.6 times as fast and takes about a quarter less memory. Each is one run of six steps.
# Our loop and TRL's are equally fast here; chapter 07b's advantage is one of short rows on a CPU.

# %% [markdown] tags=["exercise"]
# ### Exercise 8.5 · Operations of a token · 8 min · ●●○
# Write the count again, for full tuning and for LoRA alike: `trained_lora` is 0 when nothing is
# frozen.


# %% tags=["stub"]
def training_operations(
    weights: int, trained_lora: int, layers: int, width: int, length: int
) -> float:
    """Return operations a token; weights: in matrix products; trained_lora: numbers in A and B, 0
    for full tuning."""
    raise NotImplementedError


# %% tags=["solution"]
def training_operations(
    weights: int, trained_lora: int, layers: int, width: int, length: int
) -> float:
    """Return operations a token; weights: in matrix products; trained_lora: numbers in A and B, 0
    for full tuning."""
    scores = 4 * (length / 2) * width * layers
    products = 4 * weights + 6 * trained_lora if trained_lora else 6 * weights
    return products + 3 * scores


# %% tags=["check"]
check("8.5", training_operations)

# %% [markdown] tags=["explanation"]
# Attention has no weights, but two products, and each operand needs a gradient: three times its
# forward pass, also beside LoRA.
#
# Usual mistakes: 6 a weight for frozen ones; no attention at all; the whole square instead of its
# causal half.

# %% [markdown]
# ### Each switch, from arithmetic
#
# | switch | what changes | predicted |
# |---|---|---|
# | bf16 products | tensor cores; H100: 989 against 67 TFLOP/s | up to 15 times in the products |
# | sdpa instead of eager | T × T scores neither stored nor moved | see the cell |
# | graded positions alone | the head's share of the products | see the cell |
# | packing | padding is not computed | 1 / share of real tokens |
# | checkpointing | one forward pass more | time × 1.33 full, × 1.45 LoRA |
# | `torch.compile` | fewer trips to memory between products | see the cell |
# | fused AdamW | 7 trips of 4 bytes a trained weight, in one kernel | full tuning only |

# %%
forward = 2 * matrices + 2 * 2048 * 2048 * 28
head_share = 2 * counts["embedding"] / forward
scores = count_layer(qwen, 2048, 2048, method="lora", rank=16, half=True, attention="eager")[
    "attention"
]
lengths = [len(example.input_ids) for example in examples]
shuffled = random.Random(0).sample(lengths, len(lengths))
padded = sum(
    max(shuffled[i : i + 16]) * len(shuffled[i : i + 16]) for i in range(0, len(shuffled), 16)
)
layer = (
    sum(count_layer(qwen, 1, 1, method="lora", rank=16, half=True).values())
    - 4 * counts["lora"] / 28 / 2
)
traffic, compute = (
    3 * 28 * layer / 3.35e12,
    lora_cost / 989e12,
)  # written, read, its gradient; the H100's data sheet
print(f"eager scores: {28 * scores / GIB:.1f} GiB a row of 2,048 tokens, kept and moved")
print(
    f"head: {head_share:.0%} of the forward operations; half of the positions graded saves half "
    "of that"
)
print(
    f"padding: {sum(lengths) / padded:.0%} of the positions are real in random batches of 16 of "
    "our examples"
)
print(
    f"checkpointing: full × {(full_cost + forward) / full_cost:.2f}, LoRA × "
    f"{(lora_cost + forward) / lora_cost:.2f}"
)
print(
    f"elementwise traffic {traffic * 1e6:.1f} µs a token, products {compute * 1e6:.1f} µs: why "
    "compile can matter"
)
print(f"fused AdamW: {7 * 4 * base / 3.35e12 * 1e3:.0f} ms a step for full tuning at 3.35 TB/s")
assert 0.15 < head_share < 0.3 and (lora_cost + forward) / lora_cost < 1.5

# %% [markdown]
# **Read.** Products and memory traffic are of the same order. A card that reaches its data sheet in
# products would wait more than half as long again for norms, casts and activations, unless a
# compiler joins them. Both figures are estimates.
#
# `make gpu` measures all of it in under nine minutes: each switch alone, beside TRL on the same
# batches.

# %%
report = ROOT / "reports" / "gpu.json"
if report.is_file():
    measured = json.loads(report.read_text(encoding="utf-8"))
    print(measured["card"]["name"])
    for name, run in measured["switches"].items():
        speed = (
            f"{run['tokens_per_second']:,.0f} tokens/s"
            if "tokens_per_second" in run
            else run["failed"]
        )
        print(f"    {name:28}{speed}")
else:
    print(
        "speed on a GPU: unmeasured, reports/gpu.json is not there; run `make gpu` on a machine "
        "with a card"
    )

# %% [markdown]
# ## 6 · More than one GPU
#
# One command turns one process into many; script and settings stay:
# `accelerate launch --config_file configs/fsdp.yaml tools/distributed_sft.py --model qwen3-0.6b-base`,
# or `configs/zero2.yaml`. The engines are PyTorch's FSDP and DeepSpeed's ZeRO-2; TRL drives both.
#
# **Predict.** Full tuning needs 16 bytes a weight. What does each of N cards hold?

# %%
print("bytes a weight on each card      N = 1     N = 2     N = 8   N = 100")
for name, each in {
    "copies (DDP)": lambda n: 16.0,
    "ZeRO-2": lambda n: (
        2 + 14 / n
    ),  # all bf16 weights; gradient 2, float32 weight 4 and averages 8 are divided
    "FSDP": lambda n: 16 / n,
}.items():
    print(f"{name:28}" + "".join(f"{each(n):10.2f}" for n in (1, 2, 8, 100)))
speed, link = 0.4 * 989e12, 50e9  # assumed: 40 % of an H100's peak; 400 Gbit/s for each card
print(f"FSDP's transfer hides behind compute from {speed / link:,.0f} tokens a card and step")
assert round(speed / link, -2) == 7900

# %% [markdown]
# **Read.** No engine divides activations and logits: those follow the rows *on this card*. ZeRO-2
# keeps all weights on every card; with LoRA only FSDP saves much.
#
# - **Same losses.** The divisor is the number of graded tokens of *all* processes. A test runs two
#   CPU processes and finds the losses of one, to 1e-4 nats. A mean of means is off by a tenth of a
#   nat.
# - **Links.** FSDP sends 6 bytes a weight and step, compute takes 6 operations a weight and
#   *token*. The size of the model cancels: slow links ask for more tokens a step, not for a smaller
#   model.
# - **A hundred cards.** 400 rows at 4 a card are a single step, which teaches nothing. Such a set
#   belongs on one card; a hundred cards serve it as a hundred runs with other settings. With a
#   million rows: tokenise beforehand, pack rows so that none waits for the longest, save every few
#   hours (one failure in 50,000 GPU-hours is the published rate), and raise Adam's learning rate
#   with the square root of the batch, up to the critical batch.
#
# The whole arithmetic, key by key and for a hundred cards, stands in `configs/README.md`. Speed on
# several cards, NCCL and half precision there: unmeasured by us.
#
# ## What to remember
#
# - Below capability 8.0 use float16 with loss scaling, and float32 for what is trained.
# - 16 bytes a trained weight, 12 of them beside the weight; 2 a frozen one in bf16. Then
#   activations, which grow with the tokens, and logits, with tokens × V.
# - Predict before you rent; name batch and length with every memory claim.
# - Order of remedies: graded scores, fewer rows with accumulation, checkpointing, LoRA, QLoRA.
# - LoRA is for memory: 3.15 against 4.28 GFLOP a token.
#
# ## Sources
#
# - P. Micikevicius et al., *Mixed Precision Training*, 2018: loss scaling, float32 master weights.
# - T. Chen et al., *Training Deep Nets with Sublinear Memory Cost*, 2016: checkpointing.
# - T. Dettmers et al., *QLoRA*, 2023. T. Dao, *FlashAttention-2*, 2023.
# - S. Rajbhandari et al., *ZeRO*, 2020. Y. Zhao et al., *PyTorch FSDP*, 2023.
# - P. Goyal et al., 2017, S. McCandlish et al., 2018, and S. Malladi et al., 2022: batch size and
#   learning rate. Llama Team, *The Llama 3 Herd of Models*, 2024, section 3.3.4: failures.
# - NVIDIA's data sheets of the H100 (dense bf16, HBM3 bandwidth); `config.json` of each model.
#
# <details><summary>中文要点</summary>
#
# 1. **先算显存，再租卡**：权重、梯度、优化器状态、**激活值**、**logits** 五部分；
#    被训练的参数每个 16 字节（其中 12 字节在权重之外），冻结的在 bf16 下每个 2 字节。
# 2. 激活值随 token 数增长，logits 随 token 数 × 词表增长；公式与逐算子测量（fake tensor）
#    相差不到百分之几。
# 3. 算力低于 8.0（如 T4）用 **float16 + loss scaling**，被训练的权重保持 float32，
#    否则报错 “Attempting to unscale FP16 gradients”。
# 4. 不够时的顺序：只算被评分位置的 logits → 减小 batch 并做梯度累积 → **梯度检查点** → LoRA →
#    QLoRA。 “7B + LoRA 64 ≈ 16～20 GB” 只在一个 batch 约一千个 token 以内成立。
# 5. LoRA 省显存而不太省计算（每 token 3.15 对 4.28 GFLOP）。本章尚无任何 GPU 实测数据。
#
# </details>
