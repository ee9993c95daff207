# %% [markdown]
# # 05 · LoRA by hand
#
# **The question.** Full fine-tuning moves every weight, and the optimizer keeps two more numbers
# for each of them. Can we learn a few per cent of these numbers, get the same behaviour, and know
# what we lose?
#
# **By the end you can**
# - *write* LoRA as a module, put it into a model, and check it against PEFT;
# - *find* why an adapter never stops, and cure it;
# - *choose* layers, rank and learning rate from measured runs.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | matrices, chapters 03 and 04 | CPU, no network | about a minute | 6, about 65 minutes | B5 B9 C5 L6 L11 L21 |

# %% tags=["setup"]
import copy
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

# %% tags=["setup"]
from sft_lab import plots
from sft_lab.chat import generate_ids, generate_responses
from sft_lab.course.checks import check

# %% tags=["setup"]
from sft_lab.course.lora_runs import (
    at_best_rate,
    backward,
    chances_at_end,
    copy_factors,
    country_task,
    cut_to_rank,
    difference_from_peft,
    encode_in_style,
    factor_gradients,
    give_own_row,
    layer_updates,
    logits_of,
    make_patients,
    measure,
    operations,
    qwen_shape,
    round_weights,
    run_point,
    say_verdict,
    summarise,
    tune,
    with_lora,
    write_on,
)

# %% tags=["setup"]
from sft_lab.course.results import read_results
from sft_lab.course.views.lora import draw_cut, draw_energy, draw_rates, enough_rank
from sft_lab.course.views.rank import draw_rank, explore_rank
from sft_lab.course.views.widgets import show_widget
from sft_lab.lora import add_lora, load_adapter, merge_lora, remove_lora, save_adapter
from sft_lab.low_rank import kept_energy
from sft_lab.models import load
from sft_lab.train import evaluate

plots.style()
base, tokenizer = load("atlas-base")
task = country_task(tokenizer)
STOP = tokenizer.convert_tokens_to_ids("<|im_end|>")
SEEDS = (0, 1, 2)

# %% [markdown]
# The task is small: 25 steps of 8 questions about one half of the countries. On 40 questions about
# the other half we measure `says` (the answer begins rightly) and `stops` (the stop token came).
# With the true answer as input (chapter 03) we measure the loss and P(stop), the probability of the
# stop token where an answer ends.

# %%
print(f"{len(task.examples)} examples to train on")
print(task.exam[0][0]["content"], "→", task.exam[0][1]["content"])
before = measure(base, tokenizer, task)
print("base:", summarise([before]))

# %% [markdown]
# ## 1 · What full tuning does to a matrix
#
# First we train all weights, with three seeds.

# %%
full = [copy.deepcopy(base) for _ in SEEDS]
for seed, model in zip(SEEDS, full, strict=True):
    _ = tune(model, tokenizer, task.examples, seed=seed, rate=1.5e-3)
results = {"full": [measure(model, tokenizer, task) for model in full]}
print("full:", summarise(results["full"]))
assert before["says"] < 0.1 and min(one["says"] for one in results["full"]) > 0.5

# %% [markdown]
# Now **one** linear layer. Its update is $\Delta W=W_\text{tuned}-W_\text{base}$. Any matrix is
# a sum of rank-1 matrices, each a column times a row, weighed by a **singular value** σ:
#
# $$\Delta W=\sum_i\sigma_i\,u_iv_i^\top,\qquad\sigma_1\ge\sigma_2\ge\dots\ge0.$$
#
# The **rank** is the number of σ that are not 0. Keeping the first $k$ terms gives the nearest
# matrix of rank $k$ (Eckart and Young, 1936). The kept share of all σ² is called the *energy*.
#
# **Predict.** The matrix below is 384 × 128. Which share of its energy do 8 of its 128 singular
# values hold: 6 %, 30 % or more?


# %%
def values_for(values: torch.Tensor, share: float) -> int:
    """How many of these singular values, largest first, hold more than this share of the energy."""
    return next(k for k in range(len(values) + 1) if kept_energy(values, k) > share)


# %% tags=["predict"]
updates = layer_updates(full[0], base)
spectra = {name: torch.linalg.svdvals(update) for name, update in updates.items()}
chosen = spectra["model.layers.3.mlp.up_proj"]
_ = torch.manual_seed(0)
noise = torch.linalg.svdvals(torch.randn(384, 128))  # as large, and drawn at random
print(f"8 of 128 hold {kept_energy(chosen, 8):.0%}, in a random matrix {kept_energy(noise, 8):.0%}")
needed = [values_for(values, 0.9) for values in spectra.values()]
print(f"{len(spectra)} layers: 90 % of the energy needs {min(needed)} to {max(needed)} values")
assert kept_energy(chosen, 8) > 0.5 and kept_energy(noise, 8) < 0.2 and max(needed) > 8

# %% tags=["predict"]
RANKS = [1, 2, 4, 8, 16, 32, 64]
kept = {"MLP": [], "attention": [], "random matrix": [[kept_energy(noise, k) for k in RANKS]]}
for name, values in spectra.items():
    kind = "MLP" if ".mlp." in name else "attention"
    kept[kind].append([kept_energy(values, k) for k in RANKS])
_ = draw_energy(kept, RANKS)

# %% [markdown]
# **Read.** More than half: a few values carry most of this update, far more than in a random
# matrix.
#
# **Predict.** We cut the update of *every* layer to rank $k$ at once and leave the rest of the
# tuned model alone. From which $k$ on is the loss that of the whole update, to 0.05 nats: 2, 8 or
# 32?


# %%
def cut_loss(model: PreTrainedModel, rank: int) -> float:
    """Held-out loss of `model` when every layer's update is cut to this rank."""
    return evaluate(cut_to_rank(model, base, rank), tokenizer, task.held_out)["loss"]


# %% tags=["predict"]
tried = [0, *RANKS, 128]
losses = [[cut_loss(model, k) for k in tried] for model in full]
_ = draw_cut(losses, tried, within=0.05)
assert enough_rank(losses, tried, within=0.05) <= 16
assert min(row[0] for row in losses) > 3 * max(row[-1] for row in losses)

# %% [markdown]
# **Read.** At most 16 of 128 terms are enough. At rank 0 the tuned embeddings and norms stay, so it
# is not the base.
#
# The first $k$ terms are $k$ columns and $k$ rows. From which $k$ on do these have more numbers
# than the matrix? Move the rank.

# %%
shown = {name.split(".")[-1]: update for name, update in updates.items() if ".layers.3." in name}
show_widget(explore_rank(shown, rank=4), draw_rank("q_proj", shown["q_proj"], 4))

# %% [markdown] tags=["exercise"]
# ### Exercise 5.1 · The nearest matrix of rank k · 7 min · ●●○
# Return the nearest matrix of this rank. Return also its error in the Frobenius norm (the root of
# the sum of squared differences), from the singular values alone. `rank` is at least 1 and at most
# the smaller side of `update`.


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
# U, S and Vᵀ: the rows of the third are the vᵢ. S is a vector.</details>

# %% [markdown] tags=["explanation"]
# The terms of the sum are orthogonal, so squared lengths add: what is dropped is the tail of the
# squares.
#
# Usual mistakes: taking *columns* of the third factor, which is transposed already; adding singular
# values instead of their squares.

# %% [markdown]
# ## 2 · LoRA: learn the two thin factors
#
# A matrix of rank $r$ is a product of two thin matrices. LoRA freezes $W$ and learns the product
# from the start:
#
# $$y=Wx+b+\frac{\alpha}{r}\,BAx,\qquad A:r\times\text{in},\quad B:\text{out}\times r.$$

# %%
matrices = ("q", "k", "v", "o", "gate", "up", "down")
_ = plots.decoder_layer(lora=matrices, title="LoRA: two thin factors beside each frozen matrix")

# %% [markdown]
# α is a number that we choose. $A$ begins random and $B$ at zero. `with_lora` puts the course's
# LoRA into a copy of the base.
#
# **Predict.** What does the model answer before the first step? Which factors get a gradient, if
# $B$ is zero, and if *both* are?

# %% tags=["predict"]
model = with_lora(base, seed=0)
scores = [logits_of(m, tokenizer, task.held_out) for m in (base, model)]
print(f"logits, with and without LoRA: at most {(scores[1] - scores[0]).abs().max():.2g} apart")
print("B = 0:     ", factor_gradients(model, tokenizer, task.examples[:8]))
both = copy.deepcopy(model)
for name, parameter in both.named_parameters():
    if "lora_A" in name:
        _ = nn.init.zeros_(parameter)
print("both zero: ", factor_gradients(both, tokenizer, task.examples[:8]))
assert torch.equal(*scores)
assert set(factor_gradients(both, tokenizer, task.examples[:8]).values()) == {0.0}
assert factor_gradients(model, tokenizer, task.examples[:8])["B"] > 0

# %% [markdown]
# **Read.** $B=0$ makes the first answer that of the base, bit for bit. The gradient of $B$ contains
# $Ax$, and that of $A$ contains $B$. So $B$ moves first; if both were zero, neither ever would.

# %% [markdown] tags=["exercise"]
# ### Exercise 5.7 · LoRALinear · 15 min · ●●○
# - `LoRALinear(layer, rank, alpha)` keeps the given `nn.Linear`, with or without a bias, as
#   `self.layer` and freezes its parameters. `self.A` (rank, in) and `self.B` (out, rank) are
#   `nn.Parameter`s, always float32. A is drawn by `nn.init.kaiming_uniform_(self.A, a=5**0.5)`,
#   between ±1/√in; B is zero. Nothing else is trained.
# - `forward(x)` returns the formula's y (…, out) for x (…, in), any leading dimensions, all
#   float32. Gradients reach x, A and B.
# - `merge()` returns a **new** `nn.Linear` with the weight $W+\frac{\alpha}{r}BA$ and the
#   layer's bias, if it has one. The layer, A and B stay as they are. The new weight has the layer's
#   type, which may be bfloat16 or float16: add in float32 and round once, at the end.
#
# With W = [[1, 0]], no bias, rank 1, alpha 2, A = [[0, 3]], B = [[1]] and x = [1, 1], y is
# [1 + 2·3·1] = [7]. The merged weight is [[1, 6]].


# %% tags=["stub"]
class LoRALinear(nn.Module):
    """A frozen linear layer and a learned update of rank r beside it: (..., in) -> (..., out)."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output plus (alpha / rank) B A x."""
        raise NotImplementedError

    def merge(self) -> nn.Linear:
        """A new linear layer that computes the same alone."""
        raise NotImplementedError


# %% tags=["solution"]
class LoRALinear(nn.Module):
    """A frozen linear layer and a learned update of rank r beside it: (..., in) -> (..., out)."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.scale = alpha / rank
        self.A = nn.Parameter(torch.empty(rank, layer.in_features))
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=5**0.5)  # as a new nn.Linear draws its weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output plus (alpha / rank) B A x."""
        # through the narrow middle: the product B A, as large as W, is never built
        return self.layer(x) + self.scale * (x @ self.A.T @ self.B.T)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """A new linear layer that computes the same alone."""
        merged = copy.deepcopy(self.layer)
        # copy_ rounds the float32 sum to the layer's own type
        merged.weight.copy_(self.layer.weight.float() + self.scale * (self.B @ self.A))
        return merged


# %% tags=["check"]
check("5.7", LoRALinear)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>x @ A.T</code> is (…, rank). In <code>merge</code>,
# <code>copy.deepcopy(self.layer)</code> brings bias and type along.</details>

# %% [markdown] tags=["explanation"]
# The rank is the narrow dimension: the rows of $A$, the columns of $B$. Merging in place would
# change the base that other adapters still need.
#
# Usual mistakes: `alpha * …` without the division; scaling the whole sum, which scales the frozen
# layer too; a plain tensor instead of an `nn.Parameter`, which no optimizer finds; rounding the
# update before the sum.

# %% [markdown] tags=["exercise"]
# ### Exercise 5.8 · Put it into a model · 10 min · ●●○
# Return two things: a changed **copy** of `model`, and its number of trained numbers, an int.
#
# - All parameters of the copy are frozen first. `model` itself stays as it is.
# - Then `make(layer)` stands in the place of every `nn.Linear`, at any depth, whose own name, the
#   last part of its dotted name, is one of `targets`. `"up"` means `up`, `blocks.0.up` and
#   `blocks.0.mlp.up`. It does not mean `blocks.0.my_up` or `blocks.0.upper`, nor an embedding
#   called `up`. A target may occur nowhere.
# - `make` takes a layer and returns a module whose new parameters require gradients, as
#   `lambda layer: LoRALinear(layer, 8, 16)` does. Call it once for each layer.
#
# A model of `up`, an `nn.Linear(4, 3)`, and `down`, an `nn.Linear(3, 2)`, with `targets = ["up"]`
# and rank 2 trains 2·(4 + 3) = 14 numbers.


# %% tags=["stub"]
def inject(model: nn.Module, make: Callable, targets: list[str]) -> tuple[nn.Module, int]:
    """Return a frozen copy of `model` with make(layer) in the place of the targets, and the number
    of its trained numbers."""
    raise NotImplementedError


# %% tags=["solution"]
def inject(model: nn.Module, make: Callable, targets: list[str]) -> tuple[nn.Module, int]:
    """Return a frozen copy of `model` with make(layer) in the place of the targets, and the number
    of its trained numbers."""
    changed = copy.deepcopy(model).requires_grad_(False)
    for name, module in list(changed.named_modules()):
        own_name = name.rpartition(".")[2]
        if isinstance(module, nn.Linear) and own_name in targets:
            changed.set_submodule(name, make(module))
    trained = [p.numel() for p in changed.parameters() if p.requires_grad]
    return changed, sum(trained)


# %% tags=["check"]
check("5.8", inject)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>list(model.named_modules())</code> gives dotted names and
# modules; <code>model.set_submodule(name, new)</code> replaces one.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: freezing last, which freezes $A$ and $B$ too; `endswith`, which takes `my_up`;
# assigning to the loop's variable, which changes nothing in the model.

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

# %% [markdown] tags=["explanation"]
# This is why "rank 64, alpha 16" is not a stronger "rank 8, alpha 16": each of its directions is
# scaled by 1/4 instead of 2.
#
# Usual mistakes: keeping alpha; dividing by the growth instead of multiplying; padding columns of
# $A$ instead of rows.

# %% [markdown]
# ### The same run in PEFT
#
# `sft_lab.lora` is your module, which can also be saved. PEFT is the usual library. We copy our $A$
# and $B$ into its model, and both train on the same examples.
#
# **Predict.** In which digit do the losses of 25 steps differ?


# %%
def with_peft(**options) -> PeftModel:
    """A copy of the base with PEFT's LoRA of rank 8 in every linear layer."""
    settings = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    return get_peft_model(copy.deepcopy(base), LoraConfig(**settings | options))


# %% tags=["predict"]
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # an old name in PEFT
ours, theirs = with_lora(base, seed=0), with_peft()
copy_factors(ours, theirs)
losses = tune(ours, tokenizer, task.examples, seed=0)
losses_peft = tune(theirs.base_model.model, tokenizer, task.examples, seed=0)
gap = max(abs(a - b) for a, b in zip(losses, losses_peft, strict=True))
print(f"{len(losses)} steps, loss {losses[0]:.3f} → {losses[-1]:.3f}; largest difference {gap:.0e}")
trained = sum(p.numel() for p in ours.parameters() if p.requires_grad)
assert gap < 1e-4 and len(losses) == 25  # rounding, which 25 updates may have made larger
assert theirs.get_nb_trainable_parameters()[0] == trained

# %% [markdown]
# **Read.** In none, or in the last ones: the operations are the same.
#
# ## 3 · What it saves
#
# **Predict.** Which share of atlas-base's 1.05 million parameters does LoRA of rank 8 train: 1, 7
# or 20 %? How many bytes do its gradient and AdamW's two averages take for each?


# %%
def training_bytes(model: PreTrainedModel) -> tuple[int, int]:
    """Trained numbers, and the bytes of their gradients and of AdamW's averages after a step."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    backward(model, tokenizer, task.examples[:2])
    optimizer.step()
    held = [parameter.grad for parameter in trained]
    for state in optimizer.state.values():
        held += [state["exp_avg"], state["exp_avg_sq"]]
    return sum(p.numel() for p in trained), sum(tensor.nbytes for tensor in held)


# %% tags=["predict"]
costs = {}
for name, model in {"full": copy.deepcopy(base), "LoRA": with_lora(base, 0)}.items():
    count, size = costs[name] = training_bytes(model)
    print(f"{name:5}{count:10,} trained: {size / 1e6:5.2f} MB, {size / count:.0f} bytes each")
print(f"share of the parameters: {count / base.num_parameters():.1%}")
large = qwen_shape()
everything = large.num_parameters()
few = sum(p.numel() for p in add_lora(large, rank=8).parameters() if p.requires_grad)
print(f"Qwen3-0.6B's shape: {few / 1e6:.1f} of {everything / 1e6:.0f} M, {few / everything:.1%}")
assert all(size == 12 * number for number, size in costs.values())  # 3 float32 for each
assert count == 77_824 and few < 0.02 * everything

# %% [markdown]
# **Read.** 7 %, and 12 bytes. A layer of in × out numbers gets r (in + out) new ones: much beside a
# width of 128, little beside 1,024. LoRA saves **memory**: in float32 a trained parameter costs 16
# bytes with its weight, a frozen one 4. Most activations, the values kept for the backward pass,
# stay (chapter 08).
#
# And **time**? A matrix takes part in three products of a step: its output, the gradient with
# respect to its input, and that with respect to its weights. **Predict.** Which of them does a
# frozen matrix not need, and what share of the operations remains?


# %% tags=["predict"]
rows, full_copy = task.examples[:8], copy.deepcopy(base)
share = operations(with_lora(base, 0), tokenizer, rows) / operations(full_copy, tokenizer, rows)
print(f"a LoRA step takes {share:.0%} of the operations of a full step")
assert 2 / 3 < share < 0.85

# %% [markdown]
# **Read.** The last one: at most a third is saved. The products with $A$ and $B$ come on top.
#
# ## 4 · The model that never stops
#
# Learners report: "I tuned a **base** model with LoRA, and it never stops." We have such a model:
# `ours`, of section 2. **Predict.** What does it write after an answer?

# %% tags=["predict"]
for turns in task.exam[:3]:
    (ids,) = generate_ids(ours, tokenizer, [turns[:-1]], max_new_tokens=16)
    print("".join(plots.show_token(tokenizer.decode([token_id])) for token_id in ids))
results["LoRA"] = [measure(ours, tokenizer, task)]
print(summarise(results["LoRA"]))

# %% [markdown]
# **Read.** The answer is often right, and then comes rubbish. Such a report has four usual causes:
#
# | word | claim |
# |---|---|
# | `"mask"` | no row grades the stop token |
# | `"config"` | it writes the stop token, but its generation configuration names another |
# | `"steps"` | too few steps or too low a rate: it does not know yet that an answer ends |
# | `"head"` | it knows that, and its head cannot tell the stop token from others |
#
# The **head** is the last matrix, with a **row** for each token; a token's logit is its row times
# the last hidden state. In atlas-base, as in many small models, the head *is* the embedding table
# (**tied** weights).
#
# Here are four patients: LoRA runs with different causes.

# %%
patients = make_patients(base, tokenizer, task)
for letter, patient in patients.items():
    for turns in task.exam[:2]:
        ids = write_on(patient.model, tokenizer, turns[:-1])
        print(letter, "".join(plots.show_token(tokenizer.decode([i])) for i in ids))

# %% [markdown] tags=["exercise"]
# ### Exercise 5.9 · Why does it not stop? · 15 min · ●●●
# `causes` is a dict from the letters A, B, C and D to the words of the table; each word is used
# once. `alike`, an int, is counted in the head of the patient whose cause is `"head"`: the rows
# whose cosine with the row of `<|im_end|>` is above 0.99, that row included.
#
# Your instruments: `patients["A"].rows[0].labels`; `patients["A"].model`, its
# `.generation_config.eos_token_id` and its head `.get_output_embeddings().weight` (V, D);
# `chances_at_end(model, tokenizer, task.held_out)`, the probabilities (40, V) of the token after
# each right answer; `F.cosine_similarity`; `tokenizer.convert_ids_to_tokens`.

# %% tags=["stub"]
causes = ...  # {"A": "…", "B": "…", "C": "…", "D": "…"}
alike = ...

# %% tags=["solution"]
patients = make_patients(base, tokenizer, task)
for letter, patient in patients.items():
    graded = sum(STOP in row.labels for row in patient.rows) / len(patient.rows)
    ends_at = patient.model.generation_config.eos_token_id
    chance = chances_at_end(patient.model, tokenizer, task.held_out)[:, STOP].mean()
    head = patient.model.get_output_embeddings().weight.detach()
    cosines = F.cosine_similarity(head, head[STOP : STOP + 1])
    count = int((cosines > 0.99).sum())
    print(f"{letter}: graded in {graded:.0%}, ends at {ends_at == STOP}, P {chance:.3f}, {count}")
causes = {"A": "steps", "B": "head", "C": "config", "D": "mask"}
alike = 148

# %% tags=["check"]
check("5.9", (causes, alike))

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Labels and configuration settle two patients. For the others, look
# at the ten likeliest tokens where an answer ends.</details>

# %% [markdown] tags=["explanation"]
# P(stop) alone is small in three of the four. What tells A and D apart is in the rows, not in the
# model: both go on with the next sentence.
#
# Usual mistakes: taking every small P(stop) for too few steps.

# %% [markdown]
# Do the exercise first: the text now gives it away. `ours` has the cause `"head"`.

# %%
head = base.get_output_embeddings().weight.detach()
assert base.get_input_embeddings().weight is base.get_output_embeddings().weight
cosines = F.cosine_similarity(head, head[STOP : STOP + 1])
alike = (cosines > 0.99).nonzero().flatten().tolist()
print(len(alike), "rows point the same way, such as", tokenizer.convert_ids_to_tokens(alike[-9:-5]))
for name in ("<|im_start|>", "<think>", "<|endoftext|>", "Ġthe"):
    print(f"{name:14} {cosines[tokenizer.convert_tokens_to_ids(name)]:.4f}")
assert STOP in alike and len(alike) > 100

# %% [markdown]
# Pretraining never showed `<|im_end|>`, nor the other tokens of this list: bytes that no text uses,
# and pieces of longer tokens. Each step made all of them less likely, and so moved all their rows
# in one direction. They are now nearly **one vector**.
#
# **Predict.** N tokens share nearly the same logit, the highest. How probable is one of them?

# %% tags=["predict"]
at_end = chances_at_end(ours, tokenizer, task.held_out)  # (answers, V)
of_any, of_stop = at_end[:, alike].sum(dim=1).mean().item(), at_end[:, STOP].mean().item()
print(f"where an answer ends: P(one of the N = {len(alike)} tokens) = {of_any:.3f}")
print(f"the stop token's share of it: {of_stop / of_any:.4f}, one in {of_any / of_stop:.0f}")
assert of_any > 0.8 and 0.5 < len(alike) * of_stop / of_any < 2

# %% [markdown]
# **Read.** The model knows *that* the answer ends: nearly all probability lies on these tokens
# together. LoRA moves layers, not rows, so each of N equal rows gets about 1/N.

# %% [markdown] tags=["exercise"]
# ### Exercise 5.10 · Cure it · 12 min · ●●●
# Return a model that LoRA can teach to stop, made from a **copy** of `base`. The check trains it:
# `tune(model, tokenizer, task.examples, seed=0)`. Then, of 40 held-out questions, at least 80 %
# must end by themselves and 50 % be answered rightly.
#
# At most 78,824 numbers may require a gradient: LoRA of rank 8 in all linear layers
# (`add_lora(model)`, 77,824) and 1,000 more. A parameter counts as a whole. Before training, in a
# text without `<|im_end|>`, the scores of all other tokens must be the base's. `base` stays as it
# is.


# %% tags=["stub"]
def cure(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return a copy of `base`, ready for training, that will learn to stop."""
    raise NotImplementedError


# %% tags=["solution"]
def cure(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return a copy of `base`, ready for training, that will learn to stop."""
    model = copy.deepcopy(base)
    table = model.get_input_embeddings().weight  # tied: it is the head as well
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    direction = F.normalize(torch.randn(table.shape[1]), dim=0)
    with torch.no_grad():
        table[stop] = direction * table.norm(dim=1).median()
    return add_lora(model)


# %% tags=["check"]
check("5.10", cure)

# %% [markdown] tags=["explanation"]
# A distinct row is enough, whatever its direction.
#
# Usual mistakes: training the whole embedding, 262,144 numbers; copying the row of another token,
# which makes a new pair alike.

# %% [markdown]
# If equal rows are the reason, three remedies should work: train the embeddings too, train
# everything, or give `<|im_end|>` **a row of its own**, a random direction, and train LoRA alone.
#
# **Predict.** Which of the four arms, with plain LoRA, stop?

# %% tags=["predict"]
fresh = give_own_row(base, STOP)
tuned = [with_lora(fresh, seed) for seed in SEEDS]
with_table = [with_lora(base, seed) for seed in SEEDS]
alone = [with_lora(base, seed) for seed in SEEDS]
for model in with_table:
    _ = model.get_input_embeddings().weight.requires_grad_(True)
arms = {"LoRA": alone, "LoRA,\nown row": tuned, "LoRA +\nembeddings": with_table}
for arm, models in arms.items():
    for seed, model in zip(SEEDS, models, strict=True):
        _ = tune(model, tokenizer, task.examples, seed=seed)
    results[arm] = [measure(model, tokenizer, task) for model in models]

# %% tags=["predict"]
order = ["LoRA", "LoRA,\nown row", "LoRA +\nembeddings", "full"]
for arm in order:
    print(f"{arm.replace(chr(10), ' '):18}", summarise(results[arm]))
shares = {
    "says the answer": {arm: [one["says"] for one in results[arm]] for arm in order},
    "stops by itself": {arm: [one["stops"] for one in results[arm]] for arm in order},
}

# %% tags=["predict", "folded"]
ax = plots.bars_with_spread(
    shares,
    percent=True,
    ylabel="share of 40 questions",
    colours=[plots.SKY, plots.VERMILLION],
    title="LoRA alone answers and cannot stop; a row of its own is enough",
)
ax.figure.set_size_inches(10, 4.4)
assert max(one["stops"] for one in results["LoRA"]) < 0.5
assert min(one["stops"] for arm in order[1:] for one in results[arm]) > 0.8

# %% [markdown]
# **Read.** All but plain LoRA: a distinct row is enough. Check before you train: the cosine of the
# stop token's row with all others.
#
# PEFT has two switches. `trainable_token_indices` trains chosen rows, `modules_to_save` whole
# modules. A third run adds `ensure_weight_tying`. **Predict.** Which of the three will stop?

# %%
switches = {
    "trainable_token_indices": {"trainable_token_indices": [STOP]},
    "modules_to_save": {"modules_to_save": ["embed_tokens"]},
    "with ensure_weight_tying": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
}

# %% tags=["predict"]
stops_with = []
for name, options in switches.items():
    _ = torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = with_peft(**options)
    extra = model.get_nb_trainable_parameters()[0] - 77_824
    _ = tune(model.base_model.model, tokenizer, task.examples, seed=0)
    stops_with.append(measure(model.base_model.model, tokenizer, task)["stops"])
    print(f"{name:25} {extra:8,} more numbers, {stops_with[-1]:4.0%} stop")
    for text in {str(one.message) for one in caught if "tied" in str(one.message)}:
        print("   PEFT warns:", text[:90], "…")
assert stops_with[0] > 0.8 and stops_with[1] < 0.5 and stops_with[2] > 0.8

# %% [markdown]
# **Read.** The first and the third. One row of 128 numbers is enough. `modules_to_save` trains a
# *copy* of the embedding, and the tied head keeps the old one.
#
# ## 5 · Which layers, which rate, which rank?
#
# *LoRA Without Regret* (Schulman et al., 2025) makes two claims. LoRA belongs in **all** layers,
# not in attention alone. Its best learning rate is about **ten times** that of full tuning, fifteen
# times in very short runs. We test both with `fresh`, the base with that row of its own, and five
# seeds (three for 100 steps). Rates are chosen on 100 held-out questions; the primary measure is
# the loss on 100 others. Rank 3 in all layers has as many parameters as rank 8 in attention.
#
# **Predict.** By which factor do the best rates differ here: 1, 3, 10 or 30?

# %% tags=["predict"]
recorded = read_results("05_rates", base)
_ = draw_rates(recorded)

# %% tags=["predict"]
attention = at_best_rate(recorded, "attention, rank 8")
all_layers = at_best_rate(recorded, "all layers, rank 3")
lora, whole = at_best_rate(recorded, "all layers, rank 8"), at_best_rate(recorded, "full")
wide = at_best_rate(recorded, "all layers, rank 64")
_ = say_verdict("all layers end lower", attention.losses, all_layers.losses, "lower")
_ = say_verdict("rank 64 ends lower", lora.losses, wide.losses, "lower")
_ = say_verdict("LoRA ends higher than full tuning", whole.losses, lora.losses, "higher")
assert all(a < b for a, b in zip(all_layers.losses, attention.losses, strict=True))

# %% tags=["predict"]
whole_long = at_best_rate(recorded, "full", epochs=4)
lora_long = at_best_rate(recorded, "all layers, rank 8", epochs=4)
_ = say_verdict("LoRA ends higher", whole_long.losses, lora_long.losses, "higher")
factors = [lora.rate / whole.rate, lora_long.rate / whole_long.rate]
print("best rate of LoRA / of full tuning:", [round(factor, 1) for factor in factors])

# %% [markdown]
# The first claim at one rate for both, and two points of the sweep again:

# %%
for rate in (5e-3, 1e-2):
    arms = ("attention, rank 8", "all layers, rank 3")
    found = [recorded.measured("report", arm=arm, epochs=1, rate=rate) for arm in arms]
    _ = say_verdict(f"all layers end lower at {rate:g}", *found, "lower")

# %%
for arm, rate in {"full": whole.rate, "all layers, rank 8": lora.rate}.items():
    point = {"arm": arm, "epochs": 1, "rate": rate}
    again = run_point(base, tokenizer, point | {"seed": 0})["report"]
    band = recorded.measured("report", **point)
    print(f"{arm}: {again:.3f}, recorded {min(band):.3f} to {max(band):.3f}")
    assert min(band) - 0.03 < again < max(band) + 0.03

# %% [markdown]
# **Read.** The factor is ten at both lengths, to one step of our grid. Attention alone ends higher
# in every seed. At the best rates the gap is below twice the noise floor (chapter 03b): *not
# shown*; at 5e-3 it *held*. Rank 64 has eight times the numbers and ends no lower. LoRA ends 0.025
# nats above full tuning: *not shown*. A million parameters say little about large runs.

# %% [markdown]
# ## 6 · Merge, save, load, switch
#
# **Predict.** $W+\frac{\alpha}{r}BA$ is an ordinary layer again. By which power of ten do the
# logits move in a merge in float32? And with weights of bfloat16?

# %% tags=["predict"]
adapted = tuned[0].eval()
merged = merge_lora(copy.deepcopy(adapted))
half = round_weights(copy.deepcopy(adapted))  # what a bfloat16 base can hold …
merged_half = round_weights(merge_lora(copy.deepcopy(half)))  # … and what it keeps of the sum
scores = [logits_of(m, tokenizer, task.held_out) for m in (adapted, merged, half, merged_half)]
moved, moved_half = ((scores[i + 1] - scores[i]).abs().max().item() for i in (0, 2))
print(f"largest logit {scores[0].max():.0f}; a merge moves one by at most {moved:.0e} in float32")
print(f"and by {moved_half:.0e} with weights of bfloat16")
assert moved < 1e-3 and moved_half > 30 * moved

# %% [markdown]
# **Read.** In float32 a merge moves logits by rounding. Weights of bfloat16 keep two to three
# digits: small updates beside large weights get lost. "My merged model behaves differently" has
# three usual causes: a merge in half precision, another base, and dropout that is still on.
#
# A merged model is saved like any other, here in several files (*shards*), and needs no LoRA code.

# %%
with tempfile.TemporaryDirectory() as folder:
    merged.save_pretrained(folder, max_shard_size="2MB")
    tokenizer.save_pretrained(folder)
    print(sorted(path.name for path in Path(folder).glob("model*")))
    served = AutoModelForCausalLM.from_pretrained(folder)
again = logits_of(served, tokenizer, task.held_out)
assert_close(again, scores[1], rtol=0, atol=1e-3)
_ = torch.manual_seed(0)
settings = {"do_sample": True, "temperature": 0.7, "top_p": 0.9}
prompts = [turns[:-1] for turns in task.exam[:3]]
print(generate_responses(served, tokenizer, prompts, **settings))

# %% [markdown]
# The other way is a small file beside the base, in PEFT's format.
#
# **Predict.** We put the adapter on a base of the same shape without the new row. Does loading
# fail, from PEFT's file and from ours?

# %% tags=["predict"]
folder = Path(tempfile.mkdtemp())
save_adapter(adapted, folder / "facts")
theirs = PeftModel.from_pretrained(copy.deepcopy(fresh), folder / "facts")  # ours → PEFT
theirs.save_pretrained(folder / "by_peft")
back = load_adapter(copy.deepcopy(fresh), folder / "by_peft")  # PEFT → ours
for model in (theirs, back):
    assert_close(logits_of(model, tokenizer, task.held_out), scores[0], rtol=0, atol=1e-3)
for name in ("by_peft", "facts"):
    try:
        misplaced = load_adapter(copy.deepcopy(base), folder / name)
        print(f"{name} on another base:", summarise([measure(misplaced, tokenizer, task)]))
    except ValueError as error:
        print(f"{name} on another base:", str(error).partition(", and ")[2])

# %% [markdown]
# **Read.** Not with PEFT's file: the shapes fit, and the model no longer stops. `save_adapter` also
# writes a fingerprint of the base, a number made from its weights, and `load_adapter` compares it.
#
# Several adapters can share one base in memory. **Predict.** After a switch to another and back,
# are the logits bit for bit the same?

# %%
rows = encode_in_style(tokenizer)
second = with_lora(fresh, seed=0)
_ = tune(second, tokenizer, rows, seed=0)
save_adapter(second, folder / "style")

# %% tags=["predict"]
model = load_adapter(copy.deepcopy(fresh), folder / "facts")
first = logits_of(model, tokenizer, task.held_out)
for name in ("facts", "style", "facts"):
    model = load_adapter(remove_lora(model), folder / name)
    print(f"{name:6}", generate_responses(model, tokenizer, prompts[1:3], max_new_tokens=24))
last = logits_of(model, tokenizer, task.held_out)
print("the same logits after both switches:", torch.equal(last, first))
bare = logits_of(remove_lora(model), tokenizer, task.held_out)
assert torch.equal(last, first)
assert torch.equal(bare, logits_of(fresh, tokenizer, task.held_out))  # the base is untouched

# %% [markdown]
# **Read.** Yes: the base is never written to.
#
# <details><summary>Two relatives: rsLoRA and DoRA</summary>
#
# **rsLoRA** divides α by √r instead of r. **DoRA** lets LoRA turn the direction of a weight; a
# vector, the magnitude, learns the length of each row. We did not measure whether they learn
# better.
# </details>


# %%
def rslora_weight(weight, A, B, magnitude) -> torch.Tensor:
    return weight + 16 / 8**0.5 * (B @ A)


def dora_weight(weight, A, B, magnitude) -> torch.Tensor:
    turned = weight + 16 / 8 * (B @ A)
    return magnitude[:, None] * turned / turned.norm(dim=1, keepdim=True)


for option, rule in {"use_rslora": rslora_weight, "use_dora": dora_weight}.items():
    theirs = with_peft(**{option: True}).eval()
    off, moved = difference_from_peft(base, theirs, rule, tokenizer, task.held_out)
    print(f"{option:11} relative difference from PEFT {off:.0e}")
    assert off < 1e-5 and moved > 0.05

# %% [markdown]
# ## 7 · On a real model
#
# In `smollm2-135m`, a chat model, `<|im_end|>` was trained. We let answers end with another token,
# whose row is like 28 others: LoRA of rank 8, 16 steps of 4 questions, three seeds. In one arm the
# token has a row of its own. The primary measure is its probability where an answer ends.
#
# **Predict.** Where does each arm end: near 0, 1/2 or 1?

# %% tags=["predict"]
real = read_results("05_smollm2")
print(f"{real.model}, {real.made}, {real.machine}")
p = {arm: real.measured("p_marker", arm=arm, steps=16) for arm in ("LoRA", "LoRA, own row")}
for arm, values in p.items():
    row = real.select(arm=arm, steps=16)[0]
    print(f"{arm:14} P(token)", [round(value, 3) for value in values], f"of {row['alike']} alike")
word = say_verdict("higher with a row of its own", *p.values(), "higher")
assert word == "held" and max(p["LoRA"]) < 0.1 < 0.9 < min(p["LoRA, own row"])

# %% [markdown]
# **Read.** Near 0 and near 1: the claim *held* in a model a hundred times as large.

# %% [markdown]
# ## What to remember
#
# - An update leans on few directions. LoRA learns $\frac{\alpha}{r}BA$ beside the frozen $W$.
# - It saves 12 bytes for each frozen float32 parameter, and at most a third of the operations.
# - Choose all layers before a higher rank, and a higher rate than for full tuning.
# - LoRA cannot tell equal rows of the head apart: give the stop token a row, or train it.
# - Merging is exact up to rounding; an adapter belongs to one base.
#
# ## Sources
#
# - E. Hu et al., *LoRA*, 2021, arXiv:2106.09685.
# - J. Schulman and Thinking Machines Lab, *LoRA Without Regret*, 2025,
#   thinkingmachines.ai/blog/lora.
# - rsLoRA: D. Kalajdzievski, 2023, arXiv:2312.03732. DoRA: S. Liu et al., 2024, arXiv:2402.09353.
# - PEFT documentation: LoRA, `trainable_token_indices`, `ensure_weight_tying`.
#
# <details><summary>中文要点</summary>
#
# 1. 全量微调的更新 ΔW 并非严格低秩，但能量集中在少数奇异方向；每层保留少数几个方向，效果几乎不变。
# 2. **LoRA**：冻结 W，学习 (α/r)·BA；B 初始为零，第 0 步就是基座模型。与 PEFT 的逐步损失只差舍入。
# 3. 省的主要是显存（float32 下每个冻结参数省 12 字节）；运算量最多省三分之一。
# 4. 基座从未训练过 `<|im_end|>` 的嵌入：N 个未训练的行几乎相同，LoRA 单独训练时停止概率约为 1/N；
#    解决办法：训练这一行（trainable_token_indices）、训练嵌入，或给它一个独立的行。
# 5. 只改注意力在每个种子上损失都更高，但差距在最佳学习率下未超过噪声；LoRA 的最佳学习率约为全量微调的十倍。
# 6. 合并（merge）只差舍入误差，半精度下误差更大；适配器是“差值”，只属于它的那个基座。
#
# </details>
