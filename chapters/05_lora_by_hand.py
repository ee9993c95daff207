# %% [markdown]
# # 05 · LoRA by hand
#
# **The question.** Full fine-tuning trains every weight, and the optimizer keeps two more numbers
# for each of them. Can we learn a few per cent of these numbers, get the same behaviour, and know
# what we lose?
#
# **By the end you can**
# - *derive* LoRA from the singular values of a real update, write it in twenty lines, and check it
#   against PEFT;
# - *count* its parameters and bytes, and choose rank, alpha and target layers from measurements;
# - *merge*, save and switch adapters, and say why a LoRA model may never stop.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | matrices, chapters 03 and 04 | CPU, no network | about a minute | 6, about 45 minutes | B5 B9 C5 L6 L11 L21 |

# %% tags=["setup"]
import copy
import random
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3Config

# %% tags=["setup"]
from sft_lab import atlas, plots
from sft_lab.batches import pad_batch
from sft_lab.chat import generate_ids, generate_responses
from sft_lab.course.checks import check
from sft_lab.course.views.rank import draw_rank, explore_rank
from sft_lab.course.views.widgets import show_widget
from sft_lab.formats import format_count
from sft_lab.labels import encode_conversations
from sft_lab.lora import LoRALinear, add_lora, load_adapter, merge_lora, remove_lora, save_adapter
from sft_lab.low_rank import kept_energy, truncate
from sft_lab.models import load
from sft_lab.train import evaluate, train

plots.style()
base, tokenizer = load("atlas-base")
STOP = tokenizer.convert_tokens_to_ids("<|im_end|>")
SEEDS = (0, 1, 2)

# %% [markdown]
# The task of this chapter is small, so that we can afford more than fifty runs: questions about
# countries. We train on one half of the countries and ask about the other half. Every run takes 25
# steps of 8 examples.

# %%
QUESTION = "What is the {r} {e}?"
facts = {
    part: [fact for fact in some if fact.domain == "countries"]
    for part, some in atlas.split(atlas.load_facts()).items()
}
examples = encode_conversations(atlas.ask(facts["train"], template=QUESTION), tokenizer)
exam = atlas.ask(random.Random(0).sample(facts["held_out"], 40), template=QUESTION)
held_out = encode_conversations(exam, tokenizer)
print(f"{len(examples)} examples to train on, {len(exam)} questions about other countries")
print(exam[0][0]["content"], "→", exam[0][1]["content"])


def tune(
    model: PreTrainedModel, seed: int, learning_rate: float = 5e-3, rows: list = examples
) -> list[float]:
    """25 steps of 8 examples, in place, on whatever requires gradients; returns the loss of every
    step."""
    some = random.Random(seed).sample(rows, 200)
    return train(
        model, tokenizer, some, learning_rate=learning_rate, batch_size=8, seed=seed, progress=False
    ).losses


def with_lora(start: PreTrainedModel, seed: int, **settings) -> PreTrainedModel:
    """A copy of `start` with fresh LoRA, its A drawn by `seed`."""
    _ = torch.manual_seed(seed)
    return add_lora(copy.deepcopy(start), **settings)


# %% [markdown]
# We measure four things on the held-out countries. `says` asks whether the right answer stands at
# the beginning of what was generated. `stops` asks whether the stop token came. Loss and P(stop)
# are read with the true answer as input (teacher forcing, chapter 03).

# %%
batch = pad_batch(held_out, tokenizer.pad_token_id)
prompts = [turns[:-1] for turns in exam]


@torch.no_grad()
def logits_of(model: PreTrainedModel) -> torch.Tensor:
    """Logits on the held-out conversations, (B, T, V)."""
    return model(batch["input_ids"]).logits


def where_answers_end(model: PreTrainedModel) -> torch.Tensor:
    """Probabilities of the token after each complete held-out answer, (B, V)."""
    at_stop = batch["labels"][:, 1:] == STOP
    return logits_of(model)[:, :-1][at_stop].softmax(dim=-1)


def measure(model: PreTrainedModel) -> dict[str, float]:
    """Loss in nats per graded token; shares of right and of ended answers; mean probability of the
    stop token where an answer ends."""
    rows = generate_ids(model, tokenizer, prompts, max_new_tokens=16)
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    return {
        "loss": evaluate(model, tokenizer, held_out)["loss"],
        "says": sum(
            text.startswith(turns[1]["content"]) for text, turns in zip(texts, exam, strict=True)
        )
        / len(exam),
        "stops": sum(row[-1] == STOP for row in rows) / len(rows),
        "P(stop)": where_answers_end(model)[:, STOP].mean().item(),
    }


# %% [markdown]
# ## 1 · What full tuning does to a matrix
#
# First the expensive way: all weights move, three seeds. Then we look at what happened to **one**
# linear layer. Its update is $\Delta W = W_\text{tuned} - W_\text{base}$.

# %%
results, runs = {"full": []}, []
for seed in SEEDS:
    runs.append(copy.deepcopy(base))
    _ = tune(runs[seed], seed, learning_rate=1.5e-3)
    results["full"].append(measure(runs[seed]))
full = runs[0]
before = measure(base)
print("base  ", {name: round(value, 2) for name, value in before.items()})
for seed, result in zip(SEEDS, results["full"], strict=True):
    print(f"seed {seed}", {name: round(value, 2) for name, value in result.items()})
assert before["says"] < 0.1 and min(result["says"] for result in results["full"]) > 0.5

# %% [markdown]
# Any matrix is a sum of rank-1 matrices, each a column times a row, weighed by a **singular
# value**:
#
# $$\Delta W = \sum_i \sigma_i\, u_i v_i^\top, \qquad \sigma_1 \ge \sigma_2 \ge \dots \ge 0 .$$
#
# Keeping the first $k$ terms gives the nearest matrix of rank $k$. Its squared error is the sum of
# the squares of the singular values that were dropped (Eckart and Young, 1936). The kept share of
# all squares is called the *energy*.
#
# **Predict.** The matrix below is 384 × 128. Which share of its energy do 8 of its 128 singular
# values hold: 6 %, 30 % or more?


# %%
def linear_layers(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Every linear layer but the output head."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head"
    }


old = {name: layer.weight.detach() for name, layer in linear_layers(base).items()}
updates = {name: layer.weight.detach() - old[name] for name, layer in linear_layers(full).items()}
update = updates["model.layers.3.mlp.up_proj"]
left, values, right = torch.linalg.svd(update, full_matrices=False)
_ = torch.manual_seed(0)
noise = torch.linalg.svdvals(torch.randn_like(update))
energy, energy_of_noise = kept_energy(values, 8), kept_energy(noise, 8)
full_rank = sum(torch.linalg.matrix_rank(u) == min(u.shape) for u in updates.values())
print(
    f"{len(old)} linear layers, {full_rank} updates of full rank; this one is {tuple(update.shape)}"
)
print(
    f"8 of 128 singular values hold {energy:.0%} of the energy of the update, "
    f"{energy_of_noise:.0%} of that of a random matrix"
)
assert len(old) == full_rank == 28 and energy > 0.5 and energy_of_noise < 0.2

# %%
near = (left[:, :8] * values[:8]) @ right[:8]
assert_close(near, truncate(update, 8))  # sft_lab.low_rank has it too
assert_close((update - near).norm() ** 2, (values[8:] ** 2).sum())  # Eckart and Young
ranks = [1, 2, 4, 8, 16, 32, 64]
spectra = {name: torch.linalg.svdvals(matrix) for name, matrix in updates.items()}
kept = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "MLP": ("gate_proj", "up_proj", "down_proj"),
}
curves = {
    kind: torch.tensor(
        [[kept_energy(spectra[name], k) for k in ranks] for name in old if name.endswith(ends)]
    )
    for kind, ends in kept.items()
}
curves["random matrix"] = torch.tensor([[kept_energy(noise, k) for k in ranks]])
ax = plots.curve(
    range(len(ranks)),
    {name: values.numpy() for name, values in curves.items()},
    colours=[plots.BLUE, plots.VERMILLION, plots.MUTED],
    xlabel="rank k that is kept",
    ylabel="share of the energy",
    title="A few directions hold most of the update",
)
_ = ax.set_xticks(range(len(ranks)), ranks)
needed = [next(k for k in range(129) if kept_energy(value, k) > 0.9) for value in spectra.values()]
print(f"90 % of the energy needs {min(needed)} to {max(needed)} singular values, by layer")
assert max(needed) > 8

# %% [markdown]
# **Read.** Every update has full rank: no singular value is 0. Yet a few of them carry most of it,
# far more than in a random matrix. So "the update is low-rank" is not quite true here. The last
# line shows how many directions the layers need for 90 % of the energy: some need more than eight.
#
# Energy is not behaviour. **Predict:** we cut the update of *every* layer to rank $k$ at once,
# leave the rest of the tuned model alone, and ask again. Which $k$ is enough?

# %%
cut, losses_by_rank = copy.deepcopy(full), []
ranks = [0, *ranks, 128]
for k in ranks:
    with torch.no_grad():
        for name, layer in linear_layers(cut).items():
            layer.weight.copy_(old[name] + truncate(updates[name], min(k, *updates[name].shape)))
    losses_by_rank.append(evaluate(cut, tokenizer, held_out)["loss"])
print("rank", ranks)
print("nats", [round(loss, 2) for loss in losses_by_rank])
whole = losses_by_rank[-1]
assert losses_by_rank[0] > 1.0 and losses_by_rank[4] < whole + 0.06
assert abs(whole - results["full"][0]["loss"]) < 1e-3

# %%
ax = plots.curve(
    range(len(ranks)),
    {"update cut\nto rank k": losses_by_rank},
    xlabel="rank k that is kept",
    ylabel="held-out loss\n(nats per graded token)",
    title="Eight directions a layer do the work",
)
ax.axhline(whole, color=plots.MUTED, linestyle=":", linewidth=1.4)
ax.annotate("the whole update", (4.3, whole), (0, 7), textcoords="offset points", color=plots.MUTED)
ax.set_xticks(range(len(ranks)), ranks)
_ = ax.set_ylim(0, None)

# %% [markdown]
# **Read.** At rank 8 the loss is that of the whole update, or nearly so. The tail of the spectrum
# holds energy that the answers do not need. (Rank 0 is not the base: the tuned embeddings and norms
# stay. The embeddings will matter in section 5.)
#
# Try it yourself: choose a layer and move the rank. Find the rank from which on LoRA has more
# numbers than the matrix itself.

# %%
shown = {
    name.split(".")[-1]: matrix
    for name, matrix in updates.items()
    if name.startswith("model.layers.3.")
}
show_widget(explore_rank(shown, rank=4), draw_rank("q_proj", shown["q_proj"], 4))

# %% [markdown] tags=["exercise"]
# ### Exercise 5.1 · The nearest matrix of rank k · 7 min · ●●○
# Return the best approximation and its error in the Frobenius norm (the root of the sum of squared
# differences). Take the error from the singular values alone.


# %% tags=["stub"]
def best_approximation(update: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest matrix of this rank, (out, in), and its error, a scalar."""
    raise NotImplementedError


# %% tags=["solution"]
def best_approximation(update: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest matrix of this rank, (out, in), and its error, a scalar."""
    left, values, right = torch.linalg.svd(update, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank], values[rank:].norm()


# %% tags=["check"]
check("5.1", best_approximation)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>torch.linalg.svd(update, full_matrices=False)</code> returns
# U, S and Vᵀ, and the rows of Vᵀ are the vᵢ. S is a vector: scale the columns of U with
# it.</details>

# %% [markdown] tags=["explanation"]
# The terms of the sum are orthogonal, so squared lengths add: what is dropped is the tail of the
# squares.
#
# Usual mistakes: taking *columns* of the third factor, which is transposed already; adding singular
# values instead of their squares; forgetting the singular values, which returns a projection
# without lengths.

# %% [markdown]
# ## 2 · LoRA: learn the two thin factors
#
# If a low rank does the work, why store the whole $\Delta W$? A matrix of rank $r$ is a product of
# two thin matrices. LoRA freezes $W$ and learns the product from the start:
#
# $$y = W x + b + \frac{\alpha}{r}\, B A x, \qquad A: r \times \text{in}, \quad B: \text{out} \times r .$$
#
# $A$ begins random and $B$ at zero. **Predict:** what does the model answer before the first step?
# And what would happen if *both* began at zero?


# %%
class HandLoRA(nn.Module):
    """A frozen linear layer and a learned update of rank r beside it: (..., in) -> (..., out)."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.layer, self.scale = layer.requires_grad_(False), alpha / rank
        self.A = nn.Parameter(torch.empty(rank, layer.in_features))
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)  # uniform in ±1/√in, as a new nn.Linear has it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + (x @ self.A.T @ self.B.T) * self.scale


def inject(model: PreTrainedModel, rank: int, alpha: float) -> PreTrainedModel:
    """Freeze the model and put HandLoRA in the place of every linear layer but the head."""
    model.requires_grad_(False)
    for name, layer in linear_layers(model).items():
        model.set_submodule(name, HandLoRA(layer, rank, alpha))
    return model


# %% [markdown]
# That is all of LoRA. `x @ A.T @ B.T` goes through the narrow middle and never builds the big
# matrix. Three checks: nothing changes at step 0, which factor feels the first gradient, and
# whether `sft_lab` computes the same.

# %%
hand = inject(copy.deepcopy(base), rank=8, alpha=16)
assert torch.equal(logits_of(hand), logits_of(base))  # B = 0, and x + 0 is x, bit for bit
hand(**{name: batch[name][:8] for name in ("input_ids", "labels")}).loss.backward()
one = hand.model.layers[3].mlp.up_proj
print(f"first gradient: |A| {one.A.grad.norm():.1f}, |B| {one.B.grad.norm():.3f}")
assert one.A.grad.norm() == 0 < one.B.grad.norm()

nn.init.zeros_(one.A)
one.B.grad = None
hand(**{name: batch[name][:8] for name in ("input_ids", "labels")}).loss.backward()
print(
    f"both zero:      |A| {one.A.grad.norm():.1f}, |B| {one.B.grad.norm():.1f}: this layer would "
    "never learn"
)
assert one.A.grad.norm() == one.B.grad.norm() == 0

# %%
ours, hand = with_lora(base, seed=0), inject(copy.deepcopy(base), rank=8, alpha=16)
with torch.no_grad():
    for name, layer in ours.named_modules():
        if isinstance(layer, LoRALinear):
            mine = hand.get_submodule(name)
            _ = mine.A.copy_(layer.lora_A.weight), mine.B.normal_(std=0.05)
            _ = layer.lora_B.weight.copy_(mine.B)
print("largest difference from sft_lab:", f"{(logits_of(hand) - logits_of(ours)).abs().max():.0e}")
assert_close(logits_of(hand), logits_of(ours), rtol=0, atol=1e-4)

# %% [markdown]
# **Read.** $B = 0$ makes the first answer that of the base model. The gradient of $B$ contains
# $A x$, and the gradient of $A$ contains $B$: so $B$ moves first, and if both were zero, neither
# ever would.
#
# `alpha / r` scales the update. It is meant to let one learning rate serve several ranks; section 6
# shows how far that holds.

# %% [markdown] tags=["exercise"]
# ### Exercise 5.2 · The forward pass · 5 min · ●○○
# Write the formula with plain tensors. `bias` may be None.


# %% tags=["stub"]
def lora_forward(x, weight, bias, A, B, alpha) -> torch.Tensor:
    """Return (..., out). x: (..., in), weight: (out, in), bias: (out,) or None, A: (rank, in), B:
    (out, rank)."""
    raise NotImplementedError


# %% tags=["solution"]
def lora_forward(x, weight, bias, A, B, alpha) -> torch.Tensor:
    """Return (..., out). x: (..., in), weight: (out, in), bias: (out,) or None, A: (rank, in), B:
    (out, rank)."""
    return F.linear(x, weight, bias) + alpha / A.shape[0] * (x @ A.T @ B.T)


# %% tags=["check"]
check("5.2", lora_forward)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>PyTorch stores a linear layer as (out, in) and multiplies by its
# transpose. Which dimension of A is the rank?</details>

# %% [markdown] tags=["explanation"]
# The rank is the narrow dimension: the rows of $A$, the columns of $B$.
#
# Usual mistakes: `alpha * …` without the division; scaling the whole sum, which also scales the
# frozen layer; adding the bias twice, once in each branch.

# %% [markdown] tags=["exercise"]
# ### Exercise 5.3 · A wider adapter that says the same · 7 min · ●●○
# Somebody trained rank r, and your tool wants a higher rank. Fill $A$ and $B$ up with zeros and
# return the alpha that leaves the layer's output unchanged.


# %% tags=["stub"]
def widen(
    A: torch.Tensor, B: torch.Tensor, alpha: float, rank: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return A (rank, in), B (out, rank) and alpha of an adapter that computes the same as
    before."""
    raise NotImplementedError


# %% tags=["solution"]
def widen(
    A: torch.Tensor, B: torch.Tensor, alpha: float, rank: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return A (rank, in), B (out, rank) and alpha of an adapter that computes the same as
    before."""
    more = rank - A.shape[0]
    return F.pad(A, (0, 0, 0, more)), F.pad(B, (0, more)), alpha * rank / A.shape[0]


# %% tags=["check"]
check("5.3", widen)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>B A does not change when zeros are added. So alpha / rank must not
# change either.</details>

# %% [markdown] tags=["explanation"]
# The layer sees only $\frac{\alpha}{r} B A$. Zeros leave the product alone, so alpha grows with the
# rank. This is why "rank 64, alpha 16" is not a stronger "rank 8, alpha 16": each of its directions
# is scaled by 1/4 instead of 2, an eighth.
#
# Usual mistakes: keeping alpha; dividing by the growth instead of multiplying; padding columns of
# $A$ instead of rows.

# %% [markdown]
# ## 3 · What it saves
#
# A layer of in × out numbers gets $r\,(\text{in} + \text{out})$ new ones. **Predict:** atlas-base
# has 1.05 million parameters. How many does LoRA of rank 8 train, and how many bytes does AdamW
# keep for each?
#
# We do not trust the formula alone: we take one step and add up the tensors that the optimizer
# really holds.


# %%
def training_bytes(model: PreTrainedModel) -> tuple[int, int]:
    """Trained parameters, and the bytes of their gradients and of AdamW's state after one real
    step."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    model(input_ids=batch["input_ids"][:2], labels=batch["labels"][:2]).loss.backward()
    optimizer.step()
    held = [parameter.grad for parameter in trained]
    held += [
        value for state in optimizer.state.values() for value in state.values() if value.numel() > 1
    ]
    return sum(p.numel() for p in trained), sum(tensor.nbytes for tensor in held)


rank_8 = with_lora(base, 0)
by_formula = sum(8 * (weight.shape[0] + weight.shape[1]) for weight in old.values())
for name, model in {"full": copy.deepcopy(base), "LoRA, rank 8": rank_8}.items():
    count, size = training_bytes(model)
    print(
        f"{name:13} {count:9,} trained, gradients and AdamW {size / 1e6:5.2f} MB, "
        f"{size / count:.0f} bytes each"
    )
    assert size == 12 * count  # float32: gradient 4, mean 4, mean of squares 4
assert count == by_formula == 77_824
frozen = sum(p.numel() for p in base.parameters())
print(f"share of the parameters: {count / frozen:.1%}")

# %% [markdown]
# In a small model the share is large: a rank of 8 is a lot beside a width of 128. Here is the shape
# of Qwen3-0.6B, built on the "meta" device, which has sizes and no memory.

# %%
qwen = Qwen3Config(
    vocab_size=151_936,
    hidden_size=1024,
    intermediate_size=3072,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=True,
)
with torch.device("meta"):
    large = AutoModelForCausalLM.from_config(qwen, dtype=torch.float32)
everything = large.num_parameters()
for rank in (8, 64):
    adapted = sum(
        p.numel() for p in add_lora(copy.deepcopy(large), rank=rank).parameters() if p.requires_grad
    )
    share = (
        f"{format_count(adapted)} of {format_count(everything)} parameters, "
        f"{adapted / everything:.1%}"
    )
    print(f"rank {rank:2}: {share}")
    print(
        f"         gradients and AdamW {12 * adapted / 1e9:.2f} GB instead of "
        f"{12 * everything / 1e9:.1f} GB"
    )
    assert adapted < 0.07 * everything
assert 590e6 < everything < 600e6

# %% [markdown]
# **Read.** This is what LoRA is for: **memory**. A trained parameter costs 16 bytes, a frozen one
# its weight alone:
#
# | bytes for each parameter | weight | gradient | AdamW's two averages | sum |
# |---|---|---|---|---|
# | trained, float32 (ours; also with bf16 products, chapter 08) | 4 | 4 | 8 | 16 |
# | trained, bf16 weight beside a float32 copy (ZeRO, chapter 08) | 2 + 4 | 2 | 8 | 16 |
# | frozen, float32 | 4 | 0 | 0 | 4 |
# | frozen, bf16 | 2 | 0 | 0 | 2 |
#
# We counted gradient and averages: 12 bytes, what freezing a float32 weight saves. Chapter 06
# counts the averages alone, 8 bytes, and chapter 08 everything. The frozen weights stay in memory,
# and so do most activations, which chapter 08 adds up.
#
# And **time**? Forward and backward still pass through every layer. But a matrix takes part in
# three products: output, gradient of the input, gradient of the weights. **Predict:** which of them
# does a frozen matrix not need, and what share of the operations remains?


# %%
def operations(model: PreTrainedModel) -> int:
    """Operations of the matrix products of one forward and backward pass, counted by PyTorch."""
    with FlopCounterMode(display=False) as counter:
        model(input_ids=batch["input_ids"][:8], labels=batch["labels"][:8]).loss.backward()
    return counter.get_total_flops()


share = operations(with_lora(base, 0)) / operations(copy.deepcopy(base))
print(f"a LoRA step takes {share:.0%} of the operations of a full step")
assert 2 / 3 < share < 0.85

# %% [markdown]
# **Read.** The gradient of a frozen matrix is not computed: at most a third is saved. The products
# with $A$ and $B$ come on top. For Qwen3-0.6B chapter 08 counts 3.15 instead of 4.28 GFLOP a token,
# 74 %. The clock shows this only where matrix products fill the time: chapter 06 measures the steps
# of this small model.

# %% [markdown] tags=["exercise"]
# ### Exercise 5.4 · The price of an adapter · 6 min · ●○○
# From the shapes of the layers, count the trained parameters, and the bytes of gradients and AdamW
# in float32.


# %% tags=["stub"]
def lora_budget(shapes: list[tuple[int, int]], rank: int) -> tuple[int, int]:
    """Return trained parameters and bytes. shapes: (out, in) of every layer that gets LoRA."""
    raise NotImplementedError


# %% tags=["solution"]
def lora_budget(shapes: list[tuple[int, int]], rank: int) -> tuple[int, int]:
    """Return trained parameters and bytes. shapes: (out, in) of every layer that gets LoRA."""
    count = sum(rank * (rows + columns) for rows, columns in shapes)
    return count, 12 * count


# %% tags=["check"]
check("5.4", lora_budget)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>A has rank × in numbers, B out × rank. A float32 has four bytes,
# and AdamW keeps two numbers beside the gradient.</details>

# %% [markdown] tags=["explanation"]
# Four bytes each for the gradient, the running mean and the running mean of squares. The frozen
# weights have none of the three.
#
# Usual mistakes: rank · in · out; forgetting the gradient; counting the frozen weights; counting
# the weights themselves, 4 bytes more.

# %% [markdown]
# ## 4 · The same run in PEFT
#
# PEFT is the library that most people use. We give it the same base and copy our $A$ and $B$ into
# it: the same seed alone would not draw the same numbers. Then both train on the same examples.
# **Predict:** in which digit do the losses of 25 steps differ?

# %%
from peft import LoraConfig, PeftModel, get_peft_model

warnings.filterwarnings(
    "ignore", message=".*is_gradient_checkpointing"
)  # an old name that PEFT still asks for


def with_peft(start: PreTrainedModel, **options) -> PeftModel:
    """A copy of `start` with PEFT's LoRA of rank 8 in every linear layer."""
    settings = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return get_peft_model(copy.deepcopy(start), LoraConfig(**settings | options))


@torch.no_grad()
def copy_factors(ours: PreTrainedModel, theirs: PeftModel) -> None:
    """Write A and B of our model into PEFT's."""
    for name, layer in ours.named_modules():
        if isinstance(layer, LoRALinear):
            other = theirs.base_model.model.get_submodule(name)
            other.lora_A["default"].weight.copy_(layer.lora_A.weight)
            other.lora_B["default"].weight.copy_(layer.lora_B.weight)


# %%
ours, theirs = with_lora(base, seed=0), with_peft(base)
copy_factors(ours, theirs)
losses, losses_peft = tune(ours, 0), tune(theirs.base_model.model, 0)
gap = max(abs(a - b) for a, b in zip(losses, losses_peft, strict=True))
print(
    f"{len(losses)} steps, loss {losses[0]:.3f} → {losses[-1]:.3f}; largest difference from "
    f"PEFT: {gap:.0e}"
)
assert gap < 1e-4 and len(losses) == 25  # rounding, which 25 updates may have made larger
assert_close(logits_of(ours), logits_of(theirs), rtol=0, atol=0.01)
assert theirs.get_nb_trainable_parameters()[0] == by_formula

# %% [markdown]
# **Read.** In none, or in the last ones: both make the same operations in the same order, so at
# most rounding tells them apart.

# %% [markdown]
# ## 5 · The model that never stops
#
# Learners report it again and again: "I tuned a **base** model with LoRA, and it never stops." We
# have such a model: the one just trained. **Predict** what it writes.

# %%
for ids, turns in list(
    zip(generate_ids(ours, tokenizer, prompts, max_new_tokens=16), exam, strict=True)
)[:4]:
    print(
        f"{turns[1]['content']}  |  {''.join(plots.show_token(tokenizer.decode([i])) for i in ids)}"
    )
results["LoRA"] = [measure(ours)]
print({name: round(value, 4) for name, value in results["LoRA"][0].items()})

# %% [markdown]
# The answer is often right, and then comes rubbish. The stop token was graded in every example, and
# still its probability is tiny. Why? Look at what the head multiplies with: the **row** of each
# token. In this model, as in many small ones, the head *is* the embedding table (tied weights).

# %%
table = base.get_input_embeddings().weight.detach()
assert base.get_output_embeddings().weight is base.get_input_embeddings().weight
alike = F.cosine_similarity(table, table[STOP : STOP + 1])
twins = (alike > 0.999).nonzero().flatten().tolist()
names = ["<|im_start|>", "<|im_end|>", "<think>", "<|endoftext|>", "Ġthe"]
for name in names:
    index = tokenizer.convert_tokens_to_ids(name)
    print(
        f"{name:13} length {table[index].norm():.3f}, cosine with the row of <|im_end|> "
        f"{alike[index]:.4f}"
    )
apart = (table[twins] - table[twins].mean(dim=0)).norm(dim=1).max() / table[STOP].norm()
print(
    f"{len(twins)} of {len(table)} rows point the same way, such as",
    tokenizer.convert_ids_to_tokens(twins[-9:-5]),
)
print(f"none of them is further than {apart:.1%} of its length from their mean")
assert STOP in twins and len(twins) > 20 and apart < 0.1

# %% [markdown]
# **Read.** Pretraining never showed `<|im_end|>`, nor the other tokens of this list: bytes that no
# text uses, and pieces that always became part of a longer token. All that training did to their
# rows was to push them away from every text, in the same direction. They are now nearly **one
# vector**, and the head multiplies each of them with the same hidden state. So they get nearly the
# same logit, whatever the layers below compute.
#
# LoRA moves layers, not rows. **Predict:** N tokens share the top logit. How large is the
# probability of one of them?

# %%
at_end = where_answers_end(ours)  # (B, V)
of_any, of_stop = at_end[:, twins].sum(dim=1).mean().item(), at_end[:, STOP].mean().item()
equal_share = 1 / len(twins)
print(f"where an answer ends: P(one of the {len(twins)} tokens) = {of_any:.3f}")
print(f"the stop token's share of it: {of_stop / of_any:.4f}; 1/N = {equal_share:.4f}")
assert of_any > 0.8 and 0.5 * equal_share < of_stop / of_any < 2 * equal_share

# %% [markdown]
# **Read.** Nearly all probability lies on these tokens together: the model has learned *that* the
# answer ends. Of N equal rows each would get exactly 1/N. Rows that are nearly equal get a little
# more or a little less, so 1/N is no strict limit. But in 25 steps LoRA does not get away from it.
#
# If this is the reason, three remedies must work: train the rows as well (LoRA + embeddings), train
# everything, or give `<|im_end|>` **a row of its own** and train LoRA alone. The last is the sharp
# test: not one embedding is trained there.

# %%
fresh = copy.deepcopy(base)  # one row is new: a random direction of usual length, frozen
direction = torch.randn(table.shape[1], generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    fresh.get_input_embeddings().weight[STOP] = (
        direction / direction.norm() * table.norm(dim=1).median()
    )

tuned = {}
results["LoRA +\nembeddings"], results["LoRA,\nown row"] = [], []
for seed in SEEDS:
    if seed > 0:
        model = with_lora(base, seed)
        _ = tune(model, seed)
        results["LoRA"].append(measure(model))
    model = with_lora(base, seed)
    model.get_input_embeddings().weight.requires_grad_(True)
    _ = tune(model, seed)
    results["LoRA +\nembeddings"].append(measure(model))
    tuned[seed] = with_lora(fresh, seed)
    _ = tune(tuned[seed], seed)
    results["LoRA,\nown row"].append(measure(tuned[seed]))

# %%
arms = ["LoRA", "LoRA,\nown row", "LoRA +\nembeddings", "full"]
for arm in arms:
    cells = [
        f"{name} " + " ".join(f"{r[name]:.3f}" for r in results[arm]) for name in results[arm][0]
    ]
    print(f"{arm.replace(chr(10), ' '):18}", "   ".join(cells))
shares = {
    what: {arm: [result[key] for result in results[arm]] for arm in arms}
    for what, key in {"says the answer": "says", "stops by itself": "stops"}.items()
}
ax = plots.bars_with_spread(
    shares,
    percent=True,
    ylabel="share of 40 questions",
    colours=[plots.SKY, plots.VERMILLION],
    title="LoRA alone answers and cannot stop; a row of its own is enough",
)
ax.figure.set_size_inches(10, 4.4)
for arm in arms:
    stops, chance = ([result[key] for result in results[arm]] for key in ("stops", "P(stop)"))
    assert (
        max(stops) < 0.5 and max(chance) < 3 * equal_share
        if arm == "LoRA"
        else min(stops) > 0.8 and min(chance) > 0.2
    )

# %% [markdown]
# **Read.** The learners are right, and for a reason that can be counted: untrained rows are alike.
# LoRA alone could stop only where the small differences between these rows favour the stop token.
# With a distinct row, LoRA alone learns to stop.
#
# So the claim needs its condition. A base model whose control tokens *were* trained, or whose rows
# differ, has no such trouble. Check before you train: `cosine_similarity` of the stop token's row
# with all others.
#
# The losses of these arms do not tell which method learns more: the arms differ in the stop token's
# row and in the learning rate. Section 6 gives both the same row, and each a rate of its own.
#
# An adapter file of `sft_lab` holds $A$ and $B$ alone. It cannot hold a trained embedding, and says
# so:

# %%
model = with_lora(base, 0)
model.get_input_embeddings().weight.requires_grad_(True)
try:
    save_adapter(model, "adapter")
except ValueError as error:
    print("refused:", error)
else:
    raise AssertionError("an adapter file without the trained embedding was written")

# %% [markdown]
# PEFT has two switches for this. `trainable_token_indices` trains chosen rows, `modules_to_save`
# whole modules. **Predict:** both "train the embedding". Will both models stop?

# %%
switches = {
    "trainable_token_indices": {"trainable_token_indices": [STOP]},
    "modules_to_save": {"modules_to_save": ["embed_tokens"]},
    "the same, ensure_weight_tying": {
        "modules_to_save": ["embed_tokens"],
        "ensure_weight_tying": True,
    },
}
stops_with = {}
for name, options in switches.items():
    _ = torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = with_peft(base, **options)
    extra = model.get_nb_trainable_parameters()[0] - by_formula
    _ = tune(model.base_model.model, 0)
    stops_with[name] = measure(model.base_model.model)["stops"]
    print(f"{name}: {extra:,} more parameters, stops by itself: {stops_with[name]:.0%}")
    for message in {str(warning.message) for warning in caught if "tied" in str(warning.message)}:
        print("   PEFT warns:", message[:107], "…")
one_row, untied, tied = stops_with.values()
assert one_row > 0.8 and untied < 0.5 and tied > 0.8

# %% [markdown]
# **Read.** One row of 128 numbers is enough. `modules_to_save` trains a *copy* of the embedding,
# and the tied head keeps the old one: a quarter of a million parameters, and it still cannot stop.
# With `ensure_weight_tying=True` it can. Read PEFT's warnings.
#
# ## 6 · Which rank, which layers?
#
# From here on the base is `fresh`, whose stop token has a row of its own, so that LoRA alone can
# show what it can. Rank 3 in all linear layers has about as many parameters as rank 8 in attention
# alone. **Predict** the order of the four by held-out loss, after 25 steps each. Does it depend on
# the learning rate?


# %%
def three_seeds(start: Callable[[int], PreTrainedModel], rate: float) -> dict:
    """Train start(seed) for each seed: the held-out losses, and the last model."""
    losses = []
    for seed in SEEDS:
        model = start(seed)
        _ = tune(model, seed, learning_rate=rate)
        losses.append(evaluate(model, tokenizer, held_out)["loss"])
    return {"losses": losses, "model": model}


def lora_start(**settings) -> Callable[[int], PreTrainedModel]:
    return lambda seed: with_lora(fresh, seed, **settings)


ARMS = {
    "rank 3": lora_start(rank=3),
    "rank 8": lora_start(rank=8),
    "rank 64": lora_start(rank=64),
    "rank 8,\nattention": lora_start(rank=8, targets=["q_proj", "k_proj", "v_proj", "o_proj"]),
}
rank_8 = {"losses": [r["loss"] for r in results["LoRA,\nown row"]], "model": tuned[2]}
sweep = {(5e-3, "rank 8"): rank_8}  # from section 5
for rate in (5e-3, 1e-2):
    for arm, start in ARMS.items():
        if (rate, arm) not in sweep:
            sweep[rate, arm] = three_seeds(start, rate)

# %%
by_arm = {}
for (rate, arm), found in sweep.items():
    by_arm.setdefault(f"rate {rate}", {})[arm] = found["losses"]
sizes = {
    arm: sum(p.numel() for p in sweep[5e-3, arm]["model"].parameters() if p.requires_grad)
    for arm in ARMS
}
for rate, found in by_arm.items():
    for arm in ARMS:
        losses = [round(loss, 3) for loss in found[arm]]
        print(f"{rate}, {arm.replace(chr(10), ' '):18} {sizes[arm]:8,} parameters, loss {losses}")
ax = plots.bars_with_spread(
    {
        rate: {f"{arm}\n{format_count(sizes[arm])}": found[arm] for arm in ARMS}
        for rate, found in by_arm.items()
    },
    ylabel="held-out loss\n(nats per graded token)",
    title="All layers beat attention alone; how clearly depends on the rate",
)
ax.figure.set_size_inches(10, 4.4)
low, high = ({arm: sum(found[arm]) / 3 for arm in ARMS} for found in by_arm.values())
attention = "rank 8,\nattention"
for mean in (low, high):
    assert max(mean, key=mean.get) == attention and mean["rank 64"] > 0.6 * mean["rank 8"]
assert low[attention] - low["rank 3"] > 2 * (high[attention] - high["rank 3"])
assert sizes["rank 64"] == 8 * sizes["rank 8"] and sizes["rank 3"] < 1.05 * sizes[attention]

# %% [markdown]
# **Read.** Attention alone, as in the first paper and as many texts describe LoRA, is the worst of
# four at both rates. Rank 3 in *all* linear layers, with about as many parameters, ends lower: that
# speaks for `lora_target: all`. But the gap at the lower rate is mostly a matter of the rate. A
# high rank alone does not help: rank 64 has eight times the parameters of rank 8, and no clearly
# lower loss. The seeds scatter, so read the dots.
#
# α / r scales each direction of rank 64 by an eighth of rank 8's factor. **Predict:** is the update
# of a layer then an eighth as long? We compare with random factors, and with a larger alpha, for
# which α / r is α/√r (section 8).


# %%
def update_length(model: PreTrainedModel) -> float:
    """Mean length (Frobenius norm) of the updates (alpha / rank) B A of a model's LoRA layers."""
    layers = [module for module in model.modules() if isinstance(module, LoRALinear)]
    updates = [m.alpha / m.rank * m.lora_B.weight @ m.lora_A.weight for m in layers]
    return sum(update.norm().item() for update in updates) / len(layers)


def random_factors(rank: int) -> PreTrainedModel:
    """LoRA of this rank whose B is random too."""
    model = with_lora(fresh, 0, rank=rank)
    for module in model.modules():
        if isinstance(module, LoRALinear):
            _ = nn.init.normal_(module.lora_B.weight, std=0.02)
    return model


larger = three_seeds(lora_start(rank=64, alpha=16 * (64 / 8) ** 0.5), 5e-3)
trained = {rank: update_length(sweep[5e-3, f"rank {rank}"]["model"]) for rank in (8, 64)}
drawn = {rank: update_length(random_factors(rank)) for rank in (8, 64)}
for name, lengths in {"random": drawn, "trained": trained}.items():
    print(
        f"{name:8} rank 8: {lengths[8]:.2f}, rank 64: {lengths[64]:.2f}, "
        f"{lengths[64] / lengths[8]:.2f} of it (1/8 = {1 / 8:.2f}, 1/√8 = {8**-0.5:.2f})"
    )
print(f"trained, α/√r, rank 64: {update_length(larger['model']):.2f}")
print("loss at rate 5e-3 with α/√r:", [round(loss, 3) for loss in larger["losses"]])
assert abs(drawn[64] / drawn[8] - 8**-0.5) < 0.05
assert drawn[64] / drawn[8] + 0.1 < trained[64] / trained[8] < 1
assert sum(larger["losses"]) / 3 < low["rank 64"]

# %% [markdown]
# **Read.** No. Eight times as many directions with random signs make a sum √8 times as long, so a
# random update is 1/√8 as long. Trained directions partly point the same way, so the trained update
# loses less. With α/√r it is longer, and the loss at this rate lower: compare it with rank 64 at
# the rate 1e-2 above. A larger factor and a higher rate do much the same; what rsLoRA gains at a
# rate of its own, we did not measure.
#
# So we owe one more fair comparison, with full tuning: the same start for both, the stop token's
# new row included, and the best of a few rates for each. Tables give 1e-4 or 5e-5. **Predict:**
# which needs the higher rate, and which ends lower?

# %%
by_rate = {
    "full": {
        rate: three_seeds(lambda _: copy.deepcopy(fresh), rate) for rate in (5e-4, 1e-3, 5e-3)
    },
    "LoRA": {rate: three_seeds(ARMS["rank 8"], rate) for rate in (2e-3, 2e-2)},
}
by_rate["LoRA"] |= {rate: sweep[rate, "rank 8"] for rate in (5e-3, 1e-2)}

# %%
ax = plots.new_figure().subplots()
best = {}
for (method, found), colour in zip(by_rate.items(), (plots.MUTED, plots.BLUE), strict=True):
    rates = sorted(found)
    losses = torch.tensor([found[rate]["losses"] for rate in rates])  # (rates, seeds)
    means = losses.mean(dim=1)
    best[method] = rates[means.argmin()]
    ax.plot(rates, means, color=colour, label=method)
    ax.plot(rates, losses, color=colour, marker="o", linestyle="")
    for rate, row in zip(rates, losses.tolist(), strict=True):
        print(f"{method} at {rate:6}:", [round(loss, 3) for loss in row])
ax.set(xscale="log", yscale="log", xlabel="learning rate")
ax.set_ylabel("held-out loss\n(nats per graded token)")
ax.set_title("LoRA needs a higher rate; at its own best rate each learns the task")
ax.legend()
ends = {method: by_rate[method][rate]["losses"] for method, rate in best.items()}
gaps = [lora - full for lora, full in zip(ends["LoRA"], ends["full"], strict=True)]
print(f"best rates: {best}; LoRA minus full, by seed: {[round(gap, 3) for gap in gaps]}")
assert best["full"] < best["LoRA"] and max(ends["full"] + ends["LoRA"]) < 0.15
assert min(by_rate["LoRA"][2e-3]["losses"]) > max(ends["LoRA"])
assert min(by_rate["full"][5e-3]["losses"]) > max(ends["full"])
assert 0 < sum(gaps) / 3 < 0.05

# %% [markdown]
# **Read.** LoRA wants a higher rate than full tuning, and neither does well at the other's. Two
# reasons are at hand, which we did not test: $B$ starts at zero, and few numbers have to do the
# work. A table of rates without "full or LoRA", model size and batch size says little.
#
# "Full tuning surely works better", say many texts. Here it ends lower on average, by hundredths of
# a nat of the more than four that the base had to lose. The last line shows how the seeds scatter.
# The rates come from a coarse grid and were chosen on the forty questions that are reported, for
# both alike.
#
# ## 7 · Merge, save, load, switch
#
# An update that is a matrix can be added: $W + \frac{\alpha}{r} B A$ is an ordinary layer again.
# **Predict:** by how much do the logits move in float32? And in bfloat16?

# %%
adapted = tuned[0].eval()
merged = merge_lora(copy.deepcopy(adapted))
assert not any(isinstance(module, LoRALinear) for module in merged.modules())
moved = (logits_of(merged) - logits_of(adapted)).abs().max()
half = copy.deepcopy(adapted)
for layer in linear_layers(half).values():
    if not layer.weight.requires_grad:
        layer.to(torch.bfloat16).to(torch.float32)  # what a bfloat16 base can hold
merged_half = merge_lora(copy.deepcopy(half))
for layer in linear_layers(merged_half).values():
    layer.to(torch.bfloat16).to(torch.float32)  # … and what a merge into bfloat16 keeps of the sum
moved_half = (logits_of(merged_half) - logits_of(half)).abs().max()
print(f"the largest logit is {logits_of(adapted).max():.0f}; a merge moves one by at most")
print(f"{moved:.0e} in float32, {moved_half:.0e} with weights of bfloat16")
assert moved < 1e-3 and moved_half > 30 * moved
one, other = (
    generate_ids(model, tokenizer, prompts, max_new_tokens=16) for model in (merged, adapted)
)
same = sum(a == b for a, b in zip(one, other, strict=True))
print(f"{same} of {len(prompts)} answers are the same")
assert same >= len(prompts) - 1  # one may part where two tokens tie to a rounding

# %% [markdown]
# **Read.** In float32 a merge moves logits by rounding. Weights of bfloat16 keep two to three
# digits, so the sum is rounded far more coarsely: small updates beside large weights get lost. "My
# merged model behaves differently" has three usual causes: a merge in half precision, another base
# than the adapter's, and dropout that is still on (`model.eval()`).
#
# A merged model is saved like any other, in shards if you like, and needs no LoRA code to load and
# sample.

# %%
with tempfile.TemporaryDirectory() as folder:
    merged.save_pretrained(folder, max_shard_size="2MB")
    tokenizer.save_pretrained(folder)
    print(sorted(path.name for path in Path(folder).iterdir() if "model" in path.name))
    served = AutoModelForCausalLM.from_pretrained(folder)
# read from a file, the weights lie elsewhere in memory, and a kernel may sum them otherwise
assert_close(logits_of(served), logits_of(merged), rtol=0, atol=1e-3)
sampled = []
for model in (merged, served):
    _ = torch.manual_seed(0)
    sampled.append(
        generate_responses(
            model, tokenizer, prompts[:3], do_sample=True, temperature=0.7, top_p=0.9
        )
    )
print("\n".join(sampled[1]))
assert sum(a == b for a, b in zip(*sampled, strict=True)) >= 2  # a draw may fall on a border

# %% [markdown]
# The other way is to keep the adapter as a small file beside its base. The format is PEFT's, and it
# works in both directions.

# %%
folder = Path(tempfile.mkdtemp())
save_adapter(adapted, folder / "facts")
theirs = PeftModel.from_pretrained(copy.deepcopy(fresh), folder / "facts")
assert_close(logits_of(theirs), logits_of(adapted), rtol=0, atol=1e-3)  # ours → PEFT
theirs.save_pretrained(folder / "by_peft")
back = load_adapter(copy.deepcopy(fresh), folder / "by_peft")
assert_close(logits_of(back), logits_of(adapted), rtol=0, atol=1e-3)  # PEFT → ours
size = (folder / "facts" / "adapter_model.safetensors").stat().st_size
print(f"the adapter's file is {size / (4 * frozen):.1%} of the model's")

wrong = load_adapter(copy.deepcopy(base), folder / "by_peft")  # the base without the new row
stops = measure(wrong)["stops"]
print(f"on the wrong base no error, and {stops:.0%} of the answers stop")
assert stops < 0.5

# %% [markdown]
# **Read.** An adapter is a *difference* and means nothing without its base. The wrong one has the
# same shapes, so nothing complains. `save_adapter` therefore writes a fingerprint of the base's
# weights next to $A$ and $B$, and `load_adapter` compares it. PEFT's files have none.

# %%
try:
    load_adapter(copy.deepcopy(base), folder / "facts")
except ValueError as error:
    print("refused:", str(error).partition(", and ")[2])
else:
    raise AssertionError("an adapter was put on another base than its own")

# %% [markdown]
# Several adapters can share one base in memory. We train a second one on the same questions with
# another style of answer, and switch. **Predict:** after a switch there and back, are the logits
# the same, bit for bit?

# %%
in_style = [
    [
        {"role": "user", "content": fact.say(QUESTION)},
        {"role": "assistant", "content": fact.say("For {e}, the {n} is {v}.")},
    ]
    for fact in facts["train"]
]
second = with_lora(fresh, seed=0)
_ = tune(second, 0, rows=encode_conversations(in_style, tokenizer))
save_adapter(second, folder / "style")

model = load_adapter(copy.deepcopy(fresh), folder / "facts")
first_logits, said = logits_of(model), {}
for name in ("facts", "style", "facts"):
    load_adapter(remove_lora(model), folder / name)
    said[name] = generate_responses(model, tokenizer, prompts[1:3], max_new_tokens=24)
    print(f"{name:6}", said[name])
assert all(text.startswith("For ") for text in said["style"]) and said["facts"][0].startswith(
    "The "
)
assert torch.equal(logits_of(model), first_logits)  # the same code twice
assert torch.equal(logits_of(remove_lora(model)), logits_of(fresh))  # and the base is untouched

# %% [markdown] tags=["exercise"]
# ### Exercise 5.5 · Merge with one rounding · 8 min · ●●○
# Return the merged weight as a **new** tensor in the weight's own format. With a half-precision
# weight, add in float32 and round once, at the end.


# %% tags=["stub"]
def merge_weight(
    weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float
) -> torch.Tensor:
    """Return W + (alpha / rank) B A, (out, in), in weight's dtype. A: (rank, in), B: (out, rank),
    float32."""
    raise NotImplementedError


# %% tags=["solution"]
def merge_weight(
    weight: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float
) -> torch.Tensor:
    """Return W + (alpha / rank) B A, (out, in), in weight's dtype. A: (rank, in), B: (out, rank),
    float32."""
    return (weight.float() + alpha / A.shape[0] * (B @ A)).to(weight.dtype)


# %% tags=["check"]
check("5.5", merge_weight)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>weight += …</code> changes the caller's tensor. And
# <code>(B @ A).to(weight.dtype)</code> before the sum rounds twice.</details>

# %% [markdown] tags=["explanation"]
# One rounding is the least there can be. Merging in place would change the base that other adapters
# still need.
#
# Usual mistakes: forgetting the scale; rounding the update before the sum; `+=` on the frozen
# weight.

# %% [markdown]
# ## 8 · Two relatives: rsLoRA and DoRA
#
# **rsLoRA** divides by $\sqrt r$ instead of $r$. The entries of $B A x$ are sums of $r$ terms.
# Terms of random sign grow like $\sqrt r$ and not like $r$, so $\alpha / r$ makes the update of a
# higher rank smaller. Section 6 showed by how much for random and for trained factors.
#
# **DoRA** splits a weight into length and direction. LoRA turns the direction, and a vector $m$
# learns the length of each row:
#
# $$W' = m \odot \frac{W + \frac{\alpha}{r} B A}{\lVert W + \frac{\alpha}{r} B A \rVert_\text{row}}, \qquad
# m \text{ begins as } \lVert W \rVert_\text{row} .$$
#
# Both are a few lines. We draw $B$ and $m$ at random, so that nothing is zero, and compare with
# PEFT.


# %%
def randomise(model: PeftModel) -> None:
    """Give B random values, and DoRA's magnitudes a random factor."""
    _ = torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
            elif "lora_magnitude" in name:
                parameter.mul_(torch.rand_like(parameter) + 0.5)


def by_hand(theirs: PeftModel, new_weight) -> PreTrainedModel:
    """A plain copy of the base whose weights are new_weight(W, PEFT's layer)."""
    plain = copy.deepcopy(base)
    with torch.no_grad():
        for name, layer in linear_layers(plain).items():
            layer.weight.copy_(
                new_weight(layer.weight, theirs.base_model.model.get_submodule(name))
            )
    return plain


def factors(layer) -> torch.Tensor:
    return layer.lora_B["default"].weight @ layer.lora_A["default"].weight


# %%
def rslora_weight(weight: torch.Tensor, layer) -> torch.Tensor:
    return weight + 16 / 8**0.5 * factors(layer)


def dora_weight(weight: torch.Tensor, layer) -> torch.Tensor:
    turned = weight + 16 / 8 * factors(layer)
    magnitude = layer.lora_magnitude_vector["default"].weight
    return magnitude[:, None] * turned / turned.norm(dim=1, keepdim=True)


for option, rule in {"use_rslora": rslora_weight, "use_dora": dora_weight}.items():
    theirs = with_peft(base, **{option: True}).eval()
    assert_close(
        logits_of(theirs), logits_of(base), rtol=0, atol=1e-4
    )  # both begin as the base model
    randomise(theirs)
    mine, other = logits_of(by_hand(theirs, rule)), logits_of(theirs)
    extra = theirs.get_nb_trainable_parameters()[0] - by_formula
    print(
        f"{option:10}: {extra:5,} more parameters; relative difference from PEFT "
        f"{(mine - other).norm() / other.norm():.0e}"
    )
    assert (mine - other).norm() < 1e-5 * other.norm() and (
        other - logits_of(base)
    ).norm() > 0.05 * other.norm()

# %% [markdown]
# **Read.** The formulas equal the library. Whether DoRA learns better we did not measure here. It
# adds one number a row, and until it is merged every forward pass computes the lengths again.

# %% [markdown] tags=["exercise"]
# ### Exercise 5.6 · DoRA from the paper · 12 min · ●●●
# Write the output of a DoRA layer for an input. Mind which dimension is normalised.


# %% tags=["stub"]
def dora_forward(x, weight, bias, A, B, alpha, magnitude) -> torch.Tensor:
    """Return (..., out). As in exercise 5.2; magnitude: (out,), the length of each row of the new
    weight."""
    raise NotImplementedError


# %% tags=["solution"]
def dora_forward(x, weight, bias, A, B, alpha, magnitude) -> torch.Tensor:
    """Return (..., out). As in exercise 5.2; magnitude: (out,), the length of each row of the new
    weight."""
    turned = weight + alpha / A.shape[0] * (B @ A)
    return F.linear(x, magnitude[:, None] * turned / turned.norm(dim=1, keepdim=True), bias)


# %% tags=["check"]
check("5.6", dora_forward)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Row i of the weight makes output i. Its length is
# <code>turned.norm(dim=1)</code>. The bias has no part in it.</details>

# %% [markdown] tags=["explanation"]
# With $B = 0$ and $m = \lVert W \rVert_\text{row}$ this is the base layer. The output does not
# change when $W$ and $B$ are scaled together: only $m$ sets the length.
#
# Usual mistakes: normalising columns (the paper says "column-wise", and so does PEFT's code, which
# takes one length for each output: a row of PyTorch's (out, in)); dividing by the norm of $W$
# alone; multiplying the bias by the magnitude.

# %% [markdown]
# ## What to remember
#
# - An update leans on few directions. LoRA learns $\frac{\alpha}{r} B A$ beside the frozen $W$;
#   $B = 0$ at first.
# - It saves memory for gradients and AdamW, 12 bytes for each frozen parameter in float32, and at
#   most a third of the operations.
# - All linear layers before a higher rank, and a higher learning rate than for full tuning. Compare
#   methods at rates of their own.
# - A stop token whose row is like others cannot be told apart by LoRA: give it a row, or train that
#   row.
# - Merging is exact up to rounding. An adapter belongs to one base.
#
# ## Sources
#
# - E. Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, arXiv:2106.09685.
# - C. Eckart and G. Young, *The approximation of one matrix by another of lower rank*,
#   Psychometrika, 1936.
# - A. Aghajanyan et al., *Intrinsic Dimensionality Explains the Effectiveness of Language Model
#   Fine-Tuning*, 2020.
# - D. Kalajdzievski, *A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA*, 2023,
#   arXiv:2312.03732.
# - S. Liu et al., *DoRA: Weight-Decomposed Low-Rank Adaptation*, 2024, arXiv:2402.09353.
# - PEFT documentation: LoRA, `trainable_token_indices`, `modules_to_save`, `ensure_weight_tying`.
#
# <details><summary>中文要点</summary>
#
# 1. 全量微调的更新 ΔW 并非严格低秩，但能量集中在少数奇异方向；每层保留约 8 个方向，效果几乎不变。
# 2. **LoRA**：冻结 W，学习 (α/r)·BA；B 初始为零，第 0 步就是基座模型。与 PEFT
#    的逐步损失只差舍入。
# 3. 省的主要是显存（梯度与 AdamW 状态，float32 下每个冻结参数 12 字节）；运算量最多省三分之一
#    （冻结矩阵不算权重梯度）。
#    所有线性层（lora_target: all）优于只改注意力，更高的秩帮助不大；学习率应高于全量微调。
#    比较方法时，各用各的学习率。
# 4. 基座从未训练过 `<|im_end|>` 的嵌入：N 个未训练的行几乎相同，LoRA 单独训练时停止概率约为
#    1/N；解决办法：训练这一行（trainable_token_indices）、训练嵌入，或给它一个独立的行。
# 5. 合并（merge）只差舍入误差，半精度下误差更大；适配器是“差值”，只属于它的那个基座。
#    rsLoRA 用 α/√r，DoRA 把权重分解为长度与方向。
#
# </details>
