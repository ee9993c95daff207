# %% [markdown]
# # 06 · Adapters, prefixes, and what to choose
#
# **The question.** LoRA is one way to train few numbers beside a frozen model. Which others are
# there, and what do they cost, learn and forget, so that you can choose?
#
# **By the end you can**
# - *write* a bottleneck adapter, prefix tuning and prompt tuning by hand, and get the numbers that
#   PEFT gets;
# - *measure* six ways of tuning on one task: parameters, optimizer bytes, time, right answers,
#   forgotten facts;
# - *choose* one, and say what it costs later: merging, storage, cache, many users.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | attention, chapters 03 to 05 | CPU, no network | about a minute | 6, about 45 minutes | C5 |

# %% tags=["setup"]
import copy
import random
import tempfile
import time
import warnings
from unittest.mock import patch

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

# %% tags=["setup"]
from sft_lab import atlas, plots
from sft_lab.adapters import Adapter, add_adapters, add_biases, add_prefix, add_prompt
from sft_lab.batches import pad_batch
from sft_lab.chat import generate_ids
from sft_lab.costs import method_cost
from sft_lab.course.checks import check
from sft_lab.course.views.choice import draw_choice, explore_choice
from sft_lab.course.views.widgets import show_widget
from sft_lab.formats import format_count
from sft_lab.kernels import short_rows
from sft_lab.labels import IGNORE_INDEX, Example, encode_conversations
from sft_lab.lora import add_lora
from sft_lab.losses import graded_logits
from sft_lab.models import load
from sft_lab.shapes import linear_shapes
from sft_lab.train import evaluate, train

plots.style()
base, tokenizer = load("atlas-base")
STOP = tokenizer.convert_tokens_to_ids("<|im_end|>")
SEEDS = (0, 1, 2)

# %% [markdown]
# ## 1 · One task and a fast ruler
#
# We train on questions about one half of the countries and ask about others, as in chapter 05. Its
# lesson first: the stop token's row in the embedding table is nearly that of many other untrained
# tokens. A method that freezes the table could hardly learn to stop. So we give it a row of its
# own, for all methods alike.

# %%
table = base.get_input_embeddings().weight.detach()
direction = torch.randn(table.shape[1], generator=torch.Generator().manual_seed(0))
table[STOP] = direction / direction.norm() * table.norm(dim=1).median()

QUESTION = "What is the {r} {e}?"
parts = atlas.split(atlas.load_facts())
train_facts, other_facts = (
    [fact for fact in parts[name] if fact.domain == "countries"] for name in ("train", "held_out")
)
names = sorted({fact.entity for fact in other_facts})
random.Random(0).shuffle(names)
for_rates = set(
    names[: len(names) // 2]
)  # countries on which the learning rates were chosen; not used below
test_facts = random.Random(0).sample(
    [fact for fact in other_facts if fact.entity not in for_rates], 150
)
test = atlas.ask(test_facts, template=QUESTION)
examples = encode_conversations(atlas.ask(train_facts, template=QUESTION), tokenizer)
held_out = encode_conversations(test, tokenizer)
print(f"{len(examples)} examples to train on, {len(held_out)} questions about other countries")


def tune(model: PreTrainedModel, seed: int, learning_rate: float, steps: int = 40) -> list[float]:
    """Steps of 8 examples, in place, on whatever requires gradients; returns the loss of every
    step."""
    some = random.Random(seed).sample(examples, 8 * steps)
    return train(
        model, tokenizer, some, learning_rate=learning_rate, batch_size=8, seed=seed, progress=False
    ).losses


# %% [markdown]
# Generating answers is slow: one forward pass for each new token. Eighteen models wait to be
# examined, so we look for a shortcut. Teacher forcing (chapter 03) gives the *true* prefix and
# shows all guesses in **one** pass.
#
# **Predict.** When are all guesses of an answer right under teacher forcing, and the generated
# answer is still wrong?


# %%
@torch.no_grad()
def exact_match(model: PreTrainedModel, rows: list[Example]) -> torch.Tensor:
    """(N,) bool: is the most likely token the true one at every graded place of the row?"""
    right = []
    for first in range(0, len(rows), 64):
        batch = pad_batch(rows[first : first + 64], tokenizer.pad_token_id)
        logits, targets = graded_logits(model, batch)  # graded places alone, row after row
        row_of = (batch["labels"][:, 1:] != IGNORE_INDEX).nonzero()[
            :, 0
        ]  # which row each graded place is in
        ok = torch.ones(len(batch["labels"]), dtype=torch.bool)
        ok[row_of[logits.argmax(dim=-1) != targets]] = False
        right.append(ok)
    return torch.cat(right)


halfway = copy.deepcopy(base)
_ = tune(halfway, seed=0, learning_rate=1e-3, steps=15)
written = generate_ids(halfway, tokenizer, [turns[:-1] for turns in test[:64]], max_new_tokens=24)
true = [
    [token for token in example.labels if token != IGNORE_INDEX] for example in held_out[:64]
]  # with the stop
generated = torch.tensor([row == answer for row, answer in zip(written, true, strict=True)])
forced = exact_match(halfway, held_out[:64])
print(f"right when generated: {generated.sum()}, under teacher forcing: {forced.sum()} of 64")
assert 0 < forced.sum() < 64
assert (generated != forced).sum() <= 1  # one may part where two tokens tie to a rounding

# %% [markdown]
# **Read.** Never. If the first guess is right, the generated text begins as the true one, so the
# second guess sees the same prefix, and so on to the stop token. If some guess is wrong, generation
# leaves the true answer at the first such place. So for greedy decoding *all graded guesses right*
# ⇔ *the generated answer is the true one*, row by row. The equivalence needs greedy decoding and
# one true answer.
#
# What about forgetting? The base completes statements: "The chemical symbol of iron is" → " Fe." We
# take facts that no question of ours touches, elements and animals, and plain documents.


# %%
def as_cloze(fact: atlas.Fact) -> Example:
    """A statement whose last words are graded."""
    prompt, answer = (tokenizer(text).input_ids for text in atlas.cloze(fact))
    return Example(prompt + answer, [IGNORE_INDEX] * len(prompt) + answer)


known = [
    fact for fact in parts["train"] + parts["held_out"] if fact.domain in ("elements", "animals")
]
statements = [as_cloze(fact) for fact in random.Random(1).sample(known, 100)]
stream = atlas.documents(parts["train"] + parts["held_out"], seed=7)
documents = [
    Example(ids, ids) for ids in (tokenizer(next(stream)).input_ids[:80] for _ in range(20))
]


def measure(model: PreTrainedModel) -> dict[str, float]:
    """Shares of right answers and of kept facts, and the loss on documents in nats per token."""
    return {
        "right": exact_match(model, held_out).float().mean().item(),
        "kept": exact_match(model, statements).float().mean().item(),
        "documents": evaluate(model, tokenizer, documents)["loss"],
    }


before = measure(base)
print({name: round(value, 2) for name, value in before.items()})
assert before["right"] == 0 and before["kept"] > 0.97

# %% [markdown] tags=["exercise"]
# ### Exercise 6.1 · Exact match in one pass · 7 min · ●●○
# From full logits and labels, say for each row whether greedy decoding would write the graded
# answer. Every row has one.


# %% tags=["stub"]
def right_answers(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (B,) bool. logits: (B, T, V); labels: (B, T), -100 where nothing is graded; row t
    predicts token t + 1."""
    raise NotImplementedError


# %% tags=["solution"]
def right_answers(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (B,) bool. logits: (B, T, V); labels: (B, T), -100 where nothing is graded; row t
    predicts token t + 1."""
    targets = labels[:, 1:]
    hit = logits[:, :-1].argmax(dim=-1) == targets
    return (hit | (targets == IGNORE_INDEX)).all(dim=1)


# %% tags=["check"]
check("6.1", right_answers)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Shift as the loss does. A place that is not graded must not be
# able to spoil its row.</details>

# %% [markdown] tags=["explanation"]
# "Right or not graded, everywhere" is the condition of the chapter as one line.
#
# Usual mistakes: the share of right tokens, which can be 95 % where every answer is wrong;
# comparing without the shift; letting padding count.

# %% [markdown]
# ## 2 · The bottleneck adapter
#
# Houlsby and others put two small modules into every layer, one behind the attention and one behind
# the MLP. Each squeezes the numbers of a token, here 128, through a narrow middle, here 16:
#
# $$\text{adapter}(x) = x + W_\text{up}\, \text{gelu}(W_\text{down} x + b_\text{down}) + b_\text{up} .$$
#
# **Predict.** With which initial values is the model of step 0 the base model, and can still learn?


# %%
class HandAdapter(nn.Module):
    """x + up(gelu(down(x))): (..., features) -> (..., features)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(F.gelu(self.down(x)))


_ = torch.manual_seed(0)
x, mine, ours = torch.randn(5, 128), HandAdapter(128, 16), Adapter(128, 16)
assert torch.equal(mine(x), x)  # the zero start: x + 0 is x, bit for bit
for parameter in mine.parameters():
    _ = nn.init.normal_(parameter, std=0.3)
_ = ours.load_state_dict(mine.state_dict())
inner = x @ mine.down.weight.T + mine.down.bias
gelu = (
    inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
)  # x times the probability that a normal number is below x
assert_close(mine(x), x + gelu @ mine.up.weight.T + mine.up.bias)
assert_close(mine(x), ours(x))
print("formula, hand-written class and sft_lab agree")

# %% [markdown]
# PEFT has no bottleneck adapter, so there is no twin to compare with: the formula is the reference.
# `add_adapters` puts one behind every `o_proj` and `down_proj`. Now the start.

# %%
batch = pad_batch(examples[:12], tokenizer.pad_token_id)


def loss_of(model: PreTrainedModel, rows: dict = batch) -> torch.Tensor:
    """Mean loss over the graded tokens of a batch."""
    return F.cross_entropy(*graded_logits(model, rows))


def first_gradients(model: PreTrainedModel) -> tuple[float, float]:
    """Lengths of the gradients of `down` and `up` in the last adapter."""
    loss_of(model).backward()
    adapter = model.model.layers[-1].mlp.down_proj[1]
    return adapter.down.weight.grad.norm().item(), adapter.up.weight.grad.norm().item()


adapted = add_adapters(copy.deepcopy(base), width=16)
# a layer that is no nn.Linear is called in another way, which may sum in another order
assert_close(graded_logits(adapted, batch)[0], graded_logits(base, batch)[0], rtol=1e-4, atol=1e-4)
down, up = first_gradients(adapted)
both_zero = add_adapters(copy.deepcopy(base), width=16)
for module in both_zero.modules():
    if isinstance(module, Adapter):
        _ = nn.init.zeros_(module.down.weight), nn.init.zeros_(module.down.bias)
down_0, up_0 = first_gradients(both_zero)
print(
    f"first gradient: down {down:.2f}, up {up:.2f}; with both zero: down {down_0:.2f}, up "
    f"{up_0:.2f}"
)
assert down == 0 < up and down_0 == up_0 == 0

# %%
spoiled = []
for seed in SEEDS:
    _ = torch.manual_seed(seed)
    random_start = add_adapters(copy.deepcopy(base), width=16)
    for module in random_start.modules():
        if isinstance(module, Adapter):
            module.up.reset_parameters()  # what nn.Linear draws by default
    spoiled.append(measure(random_start))
print("zero start, documents:", round(measure(adapted)["documents"], 2), "nats per token")
print("random `up`, documents:", [round(result["documents"], 2) for result in spoiled])
print("random `up`, facts kept:", [f"{result['kept']:.0%}" for result in spoiled])
assert all(
    result["documents"] > before["documents"] + 0.5 and result["kept"] < 0.7 for result in spoiled
)

# %% [markdown]
# **Read.** It is LoRA's trick again: one factor zero, the other random. A random `up` shifts every
# layer's output and costs the model much of what it knew *before* the first step. With both factors
# zero, no matrix ever moves; only the bias of `up` would learn.

# %% [markdown] tags=["exercise"]
# ### Exercise 6.2 · An adapter · 6 min · ●○○
# Write the module: linear layers `self.down` and `self.up` with biases, `F.gelu`, residual, and a
# start that changes nothing.


# %% tags=["stub"]
class MyAdapter(nn.Module):
    """x plus what a bottleneck of `width` numbers adds, at first nothing. x: (..., features)."""

    def __init__(self, features: int, width: int) -> None:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


# %% tags=["solution"]
class MyAdapter(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(F.gelu(self.down(x)))


# %% tags=["check"]
check("6.2", MyAdapter)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Which of the two layers may be zero, so that a gradient still
# reaches one of them?</details>

# %% [markdown] tags=["explanation"]
# `up` = 0 makes the sum x. Its gradient contains gelu(down(x)), which is not zero.
#
# Usual mistakes: no residual, so the layer's output vanishes; zero in both layers; leaving GELU
# out, after which two linear layers are one, and the adapter is a low-rank update like LoRA's.

# %% [markdown]
# ## 3 · Prefix tuning: keys and values without tokens
#
# A token influences later ones in one way only: through its keys and values in each layer. So why
# need a token at all? **Prefix tuning** (Li and Liang) learns keys and values for P positions in
# front, in every layer, and no weight.
#
# One head, by hand. **Predict:** a token puts 30 % of its attention on the prefix. What happens to
# its attention to the real tokens: gone, kept, or scaled?

# %%
_ = torch.manual_seed(0)
T, P, size = 5, 3, 8
q, k, v = (torch.randn(T, size) for _ in range(3))
prefix_k, prefix_v = torch.randn(P, size), torch.randn(P, size)
causal = torch.ones(T, T, dtype=torch.bool).tril()

scores = q @ torch.cat((prefix_k, k)).T / size**0.5  # (T, P + T)
visible = torch.cat(
    (torch.ones(T, P, dtype=torch.bool), causal), dim=1
)  # the whole prefix, and no later token
weights = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1)
output = weights @ torch.cat((prefix_v, v))

both = torch.cat((prefix_k, k)), torch.cat((prefix_v, v))
assert_close(output, F.scaled_dot_product_attention(q, *both, attn_mask=visible))
without = F.scaled_dot_product_attention(q, k, v, attn_mask=causal)
share = weights[:, :P].sum(dim=1, keepdim=True)  # of each token's attention, on the prefix
from_prefix = F.scaled_dot_product_attention(q, prefix_k, prefix_v)
assert_close(output, (1 - share) * without + share * from_prefix)
print(
    "share of attention on the prefix, by token:",
    [f"{value:.0%}" for value in share[:, 0].tolist()],
)

# %% [markdown]
# **Read.** The last assertion is the nature of a prefix. The head's new output is its **old output,
# made smaller, plus a mixture of prefix values**. Among the real tokens, attention keeps its
# proportions. So within one head a prefix cannot make a token look elsewhere. It can only add
# something, and make the rest smaller (He and others, 2022).
#
# In the whole model the extra keys and values enter like a cache from earlier steps. Where do they
# start? `add_prefix` takes those of real tokens: here one solved example. **Predict:** what does
# the model compute at step 0?

# %%
START = next(
    example for example, fact in zip(examples, train_facts, strict=True) if fact.column == "capital"
).input_ids
print(repr(tokenizer.decode(START)), len(START), "tokens")


@torch.no_grad()
def with_tokens_in_front(rows: dict) -> torch.Tensor:
    """Logits of the base at the graded places, with START standing in front of every row."""
    front = torch.tensor(START).expand(len(rows["labels"]), -1)
    logits = base(torch.cat((front, rows["input_ids"]), dim=1)).logits[:, len(START) : -1]
    return logits[rows["labels"][:, 1:] != IGNORE_INDEX]


for name, add in {"prefix": add_prefix, "prompt": add_prompt}.items():
    model = add(copy.deepcopy(base), START)
    assert_close(graded_logits(model, batch)[0], with_tokens_in_front(batch), rtol=1e-3, atol=1e-3)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(
        f"{name}: {trained:,} numbers to train; at step 0 the same logits as with the example in "
        "front"
    )

# %% [markdown]
# A frozen model with a worked example in its context: training then changes the keys and values of
# that example. Section 4 explains `prompt`. Is this prefix tuning as PEFT does it? We copy our
# numbers into PEFT's table and compare loss **and** gradient.

# %%
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model


def peft_twin(config: type, numbers: torch.Tensor):
    """A copy of the base in PEFT, its table of (positions, numbers a position) filled with ours."""
    with warnings.catch_warnings(action="ignore"):  # PEFT uses a name that transformers has renamed
        twin = get_peft_model(
            copy.deepcopy(base), config(task_type="CAUSAL_LM", num_virtual_tokens=len(numbers))
        )
    twin.prompt_encoder["default"].embedding.weight.data.copy_(numbers)
    return twin.train()


def as_table(keys_values: torch.Tensor) -> torch.Tensor:
    """(layers, 2, heads, P, size) -> (P, …): a row holds, layer by layer, the keys of all heads,
    then the values."""
    return keys_values.permute(3, 0, 1, 2, 4).flatten(1)


# %%
ours = add_prefix(copy.deepcopy(base), START)
theirs = peft_twin(PrefixTuningConfig, as_table(ours.prefix.keys_values).detach())
loss, loss_peft = loss_of(ours), theirs(**batch).loss
loss.backward()
loss_peft.backward()
gradient = as_table(ours.prefix.keys_values.grad)
gradient_peft = theirs.prompt_encoder["default"].embedding.weight.grad
print(
    f"loss {loss:.4f} and {loss_peft:.4f}; |gradient| {gradient.norm():.4f}, "
    f"{gradient_peft.norm():.4f}"
)
assert_close(loss, loss_peft, rtol=1e-4, atol=1e-5)
assert (gradient - gradient_peft).norm() < 1e-3 * gradient.norm()

# %% [markdown]
# **Read.** The same function and the same gradient. PEFT begins with random numbers of standard
# deviation 1, though, and the paper advises real tokens. We train both, three seeds, 40 steps, each
# at the best of a few rates. **Predict** which ends at the lower held-out loss.

# %%
PREFIX_RATE, RANDOM_RATE = 0.2, 0.4
real, drawn, kept_models = [], [], {}
for seed in SEEDS:
    kept_models[seed] = add_prefix(copy.deepcopy(base), START)
    _ = tune(kept_models[seed], seed, PREFIX_RATE)
    real.append(evaluate(kept_models[seed], tokenizer, held_out)["loss"])
    model = add_prefix(copy.deepcopy(base), START)
    _ = torch.manual_seed(seed)
    _ = nn.init.normal_(model.prefix.keys_values)
    _ = tune(model, seed, RANDOM_RATE)
    drawn.append(evaluate(model, tokenizer, held_out)["loss"])
for name, losses in {"one solved example": real, "random, as PEFT begins": drawn}.items():
    print(f"{name:22} held-out loss", [round(loss, 2) for loss in losses], "nats per graded token")
assert max(real + drawn) < 1 and sum(real) < sum(drawn)

# %%
model = kept_models[0]
frozen = base.state_dict()
assert all(torch.equal(model.state_dict()[name], value) for name, value in frozen.items())
print(
    "every weight of the base is unchanged, bit for bit: take the prefix away, and nothing is "
    "forgotten"
)
print("with the prefix:", {name: round(value, 2) for name, value in measure(model).items()})

# %% [markdown]
# **Read.** Real tokens end lower on average, as the paper advises; see above how far the seeds
# scatter. What they give for certain is a known step 0.
#
# "Forgetting" has two meanings. Without the prefix the model *is* the base, so nothing is lost.
# With it, statements and documents are read behind trained keys and values, and suffer; section 5
# counts.

# %% [markdown] tags=["exercise"]
# ### Exercise 6.3 · A head with a prefix · 9 min · ●●○
# Return the output of one causal head whose prefix is visible to every token. Write the softmax
# from exp and sum.


# %% tags=["stub"]
def prefix_attention(q, k, v, prefix_k, prefix_v) -> torch.Tensor:
    """Return (T, size). q, k, v: (T, size); prefix_k, prefix_v: (P, size); scores are divided by
    √size."""
    raise NotImplementedError


# %% tags=["solution"]
def prefix_attention(q, k, v, prefix_k, prefix_v) -> torch.Tensor:
    """Return (T, size). q, k, v: (T, size); prefix_k, prefix_v: (P, size); scores are divided by
    √size."""
    scores = q @ torch.cat((prefix_k, k)).T / q.shape[-1] ** 0.5
    later = torch.ones_like(scores, dtype=torch.bool).triu(1 + len(prefix_k))
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp().masked_fill(later, 0.0)
    return weights / weights.sum(dim=-1, keepdim=True) @ torch.cat((prefix_v, v))


# %% tags=["check"]
check("6.3", prefix_attention)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The mask has T rows and P + T columns. Its diagonal is shifted by
# P: <code>triu(1 + P)</code>.</details>

# %% [markdown] tags=["explanation"]
# Token t sees the P prefix positions and tokens 0 to t, so the first hidden column is P + t + 1.
#
# Usual mistakes: an unshifted mask, which hides part of the prefix from the first tokens; two
# softmaxes that are added, so that the weights sum to 2; no scale.

# %% [markdown]
# ## 4 · Prompt tuning and BitFit: smaller still
#
# **Prompt tuning** (Lester and others) learns only P *embeddings* in front of the first layer. All
# later keys and values follow from them. It is a few lines: concatenate, and grade nothing there.

# %%
prompt = base.get_input_embeddings()(torch.tensor(START)).detach().clone().requires_grad_()
embeddings = base.get_input_embeddings()(batch["input_ids"])  # (B, T, D)
longer = torch.cat((prompt.expand(len(embeddings), -1, -1), embeddings), dim=1)
ungraded = torch.full((len(embeddings), len(prompt)), IGNORE_INDEX)
by_hand = base(inputs_embeds=longer, labels=torch.cat((ungraded, batch["labels"]), dim=1)).loss
(gradient,) = torch.autograd.grad(by_hand, prompt)

ours, theirs = (
    add_prompt(copy.deepcopy(base), START),
    peft_twin(PromptTuningConfig, prompt.detach()),
)
loss, loss_peft = loss_of(ours), theirs(**batch).loss
(gradient_ours,) = torch.autograd.grad(loss, ours.prompt.embeddings)
(gradient_peft,) = torch.autograd.grad(loss_peft, theirs.prompt_encoder["default"].embedding.weight)
print(
    f"loss by hand {by_hand:.4f}, sft_lab {loss:.4f}, PEFT {loss_peft:.4f}; {prompt.numel():,} "
    "numbers"
)
for other, its_gradient in ((loss, gradient_ours), (loss_peft, gradient_peft)):
    assert_close(by_hand, other, rtol=1e-4, atol=1e-5)
    assert (gradient - its_gradient).norm() < 1e-3 * gradient.norm()

# %% [markdown]
# **BitFit** (Ben Zaken and others) trains the biases and nothing else. **Predict:** how many biases
# does a Qwen3 model have?

# %%
biases = [name for name, _ in base.named_parameters() if name.endswith("bias")]
with_bias = add_biases(copy.deepcopy(base))
added = sum(p.numel() for p in with_bias.parameters() if p.requires_grad)
gains = sum(p.numel() for name, p in base.named_parameters() if "norm" in name)
print(
    f"{len(biases)} biases in the base; add_biases makes {added:,} zeros to train; norm gains "
    f"would be {gains:,}"
)
assert not biases and added == 5_120
with torch.no_grad():  # stand-in for a training run
    for parameter in with_bias.parameters():
        if parameter.requires_grad:
            _ = parameter.normal_(std=0.1)
logging.set_verbosity_error()  # the report of the loader goes to the log; we read it as a value
with tempfile.TemporaryDirectory() as folder:
    with_bias.save_pretrained(folder)
    reloaded, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
same_as = {"tuned model": with_bias, "base": base}
for name, other in same_as.items():
    print(
        f"saved and loaded again, it equals the {name}:",
        torch.allclose(loss_of(reloaded), loss_of(other), rtol=1e-4),  # weights elsewhere in memory
    )
print(f"the loader's report: {len(report['unexpected_keys'])} unexpected keys, and no error")
assert_close(loss_of(reloaded), loss_of(base), rtol=1e-4, atol=1e-4)
assert not torch.allclose(loss_of(reloaded), loss_of(with_bias), rtol=1e-4)
assert len(report["unexpected_keys"]) == 28

# %% [markdown]
# **Read.** None: like most recent decoders, Qwen3 is built without biases, so BitFit has to add
# zero ones. That has a price. Biases fold into an architecture that *has* them at no cost. Here the
# class of the saved model has no place for them, the loader drops them with a note in its log, and
# you get **the base back, silently**. Norm gains exist and would be saved; they are the other tiny
# choice.

# %% [markdown] tags=["exercise"]
# ### Exercise 6.4 · The batch of prompt tuning · 6 min · ●●○
# Put a trainable prompt in front of embedded rows, and make the labels fit.


# %% tags=["stub"]
def put_prompt_in_front(
    prompt: torch.Tensor, embeddings: torch.Tensor, labels: torch.Tensor
) -> tuple:
    """Return embeddings (B, P + T, D) and labels (B, P + T). prompt: (P, D); embeddings: (B, T, D);
    labels: (B, T)."""
    raise NotImplementedError


# %% tags=["solution"]
def put_prompt_in_front(
    prompt: torch.Tensor, embeddings: torch.Tensor, labels: torch.Tensor
) -> tuple:
    """Return embeddings (B, P + T, D) and labels (B, P + T). prompt: (P, D); embeddings: (B, T, D);
    labels: (B, T)."""
    rows = len(embeddings)
    ignored = labels.new_full((rows, len(prompt)), IGNORE_INDEX)
    return torch.cat((prompt.expand(rows, -1, -1), embeddings), dim=1), torch.cat(
        (ignored, labels), dim=1
    )


# %% tags=["check"]
check("6.4", put_prompt_in_front)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>expand</code> repeats without copying, and gradients of all
# rows add up in the one prompt. A position without a true token has the label −100.</details>

# %% [markdown] tags=["explanation"]
# Embeddings and labels must stay side by side, or every label grades a neighbour.
#
# Usual mistakes: labels of the old length; 0 as a filler, which is a token id; `detach` or `.data`,
# after which nothing learns and no error appears.

# %% [markdown]
# ## 5 · Six ways, one table
#
# Each method trains 40 steps of 8 examples, three seeds, at **a learning rate of its own**. A fair
# comparison needs that: the rates below differ 400-fold. We chose them beforehand on the other half
# of the held-out countries: a wide pass with one seed, then the best two or three rates with three
# seeds, none of which returns below. Most right answers won, and lower loss among near equals.
# Sizes are usual ones, not tuned: rank 8, width 16, as many positions as START has tokens.
#
# **Predict** the order of the six by right answers, and by kept facts.

# %%
ADD = {
    "full": lambda model: model,
    "LoRA": lambda model: add_lora(model, rank=8),
    "adapter": lambda model: add_adapters(model, width=16),
    "prefix": lambda model: add_prefix(model, START),
    "prompt": lambda model: add_prompt(model, START),
    "BitFit": add_biases,
}
RATES = {
    "full": 5e-4,
    "LoRA": 5e-3,
    "adapter": 2e-2,
    "prefix": PREFIX_RATE,
    "prompt": 0.2,
    "BitFit": 4e-2,
}


def build(method: str, seed: int) -> PreTrainedModel:
    """A copy of the base with the method's part, whatever is random in it drawn by `seed`."""
    _ = torch.manual_seed(seed)
    return ADD[method](copy.deepcopy(base))


results, tuned = {method: [] for method in ADD}, {}
for method in ADD:
    for seed in SEEDS:
        model = (
            kept_models[seed] if method == "prefix" else build(method, seed)
        )  # section 3 trained the prefixes
        if method != "prefix":
            _ = tune(model, seed, RATES[method])
        results[method].append(measure(model))
        tuned[method, seed] = model

# %% [markdown]
# Cost comes from real objects: parameters that require gradients, the averages that AdamW really
# holds after a step (8 bytes a trained parameter; with its gradient 12, chapter 05), and the
# operations of one training step, counted by PyTorch as it runs.


# %%
def price(method: str) -> dict[str, int]:
    """Trained parameters, bytes of AdamW's state, and operations of one training step."""
    model = build(method, 0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    with (
        patch.object(short_rows, "handles", return_value=False),
        FlopCounterMode(display=False) as counter,
    ):
        loss_of(model).backward()  # every method through the same code of transformers
    optimizer.step()
    state = [
        value for entry in optimizer.state.values() for value in entry.values() if value.dim() > 0
    ]
    return {
        "parameters": sum(p.numel() for p in trained),
        "bytes": sum(value.nbytes for value in state),
        "operations": counter.get_total_flops(),
    }


prices = {method: price(method) for method in ADD}
assert all(found["bytes"] == 8 * found["parameters"] for found in prices.values())
sizes = {
    "LoRA": 8,
    "adapter": 16,
    "prefix": len(START),
    "prompt": len(START),
    "BitFit": 1,
    "full": 1,
}
assert all(
    method_cost(method, size, base.config).trained == prices[method]["parameters"]
    for method, size in sizes.items()
)
of_full = {
    name: found["operations"] / prices["full"]["operations"] for name, found in prices.items()
}
assert all(0.6 < of_full[method] < 0.78 for method in ("LoRA", "adapter", "prefix", "BitFit"))

# %%
print("method   trained  AdamW bytes  operations  right answers   facts kept      documents (nats)")
for method, found in prices.items():
    cells = [
        " ".join(f"{100 * result[key]:4.0f}" for result in results[method]) + " %"
        for key in ("right", "kept")
    ]
    nats = " ".join(f"{result['documents']:.2f}" for result in results[method])
    counts = f"{found['parameters']:9,}  {found['bytes']:11,}  {of_full[method]:8.0%}"
    print(f"{method:8}{counts}  {cells[0]:>15} {cells[1]:>15}  {nats}")
print(f"base{before['right']:53.0%}{before['kept']:16.0%}  {before['documents']:.2f}")

# %%
groups = {method: f"{method}\n{format_count(prices[method]['parameters'])}" for method in ADD}
right, kept, nats = (
    {method: [result[key] for result in results[method]] for method in ADD}
    for key in ("right", "kept", "documents")
)
figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), sharey=True)
colours = [
    plots.MUTED,
    *[plots.BLUE] * 2,
    *[plots.VERMILLION] * 2,
    plots.BLUE,
]  # grey: full; blue: changes what a layer computes; red: adds keys and values, or embeddings
for ax, title, shares in zip(
    axes,
    ["right answers, other countries", "old facts kept, part active"],
    [right, kept],
    strict=True,
):
    plots.bars_with_spread(
        {groups[method]: values for method, values in shares.items()},
        percent=True,
        ax=ax,
        ylabel="share" if shares is right else "",
        colours=colours,
        title="",
    )
    ax.set_title(title, fontsize=13, fontweight="normal")
    ax.set_ylim(0, 1.14)
finding = "In 40 steps, changed layers learn the task; added keys or embeddings do not keep up"
_ = figure.suptitle(finding, x=0.01, ha="left", fontweight="bold", fontsize=15)
mean = {method: sum(values) / len(values) for method, values in right.items()}
assert min(mean["full"], mean["LoRA"], mean["adapter"]) > 0.8 and max(right["prompt"]) < 0.2
assert mean["BitFit"] > mean["prefix"]
assert min(kept["full"] + kept["LoRA"]) > 0.9
assert max(kept["prefix"]) < min(share for name in ADD if name != "prefix" for share in kept[name])
learned = ("LoRA", "adapter", "prefix", "BitFit")  # beside full: those with right answers
assert max(nats["full"]) < min(value for method in learned for value in nats[method])
assert max(nats["LoRA"]) < min(value for method in learned[1:] for value in nats[method])

# %% [markdown]
# **Read.** Full tuning, LoRA and the adapter learn the task. BitFit follows on average, and the
# prefix after it. Look at the dots: some depend much on the seed. The prompt learns hardly a whole
# answer in 40 steps.
#
# The last columns hold a surprise. Full tuning moved a million numbers, and of the five that
# learned something it disturbed plain documents **least**, and LoRA next. The small parts trained at
# ten times its rate and more, chosen for right answers alone. A lower rate may spare more and learn
# less; we did not measure it. The prefix spoils the most old facts while it is active, and the
# prompt spoils some without learning the task.
#
# Operations fall to between two thirds and three quarters where weights are frozen: the gradient of
# a frozen matrix is not computed, and the part's own products come on top. The prompt saves as
# much, and pays for as many more tokens as START has, in rows that are short themselves.
#
# **Time.** Of three matrix products of a frozen layer, two remain. **Predict:** does a step then
# take two thirds of the time? We let all six do the same step in turn, and keep the least of each.


# %%
def seconds_a_step(models: dict[str, PreTrainedModel], rounds: int = 8) -> dict[str, float]:
    """Seconds of processor time of one training step on the same batch, the least of some rounds in
    turn."""
    fastest = dict.fromkeys(models, float("inf"))
    optimizers = {
        name: torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
        for name, model in models.items()
    }
    for _ in range(rounds):
        for name, model in models.items():
            started = time.process_time()  # a busy machine stretches the clock on the wall
            loss_of(model).backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            fastest[name] = min(fastest[name], time.process_time() - started)
    return fastest


models = {method: build(method, 0) for method in ADD}
with patch.object(
    short_rows, "handles", return_value=False
):  # the same code for all, that of transformers
    seconds = seconds_a_step(models)
for method, value in seconds.items():
    quarters = round(4 * value / seconds["full"]) / 4
    print(
        f"{method:8} about {quarters:.2f} of full tuning's time; sft_lab's fast path takes it:",
        short_rows.handles(models[method], batch),
    )
    assert 0.1 < value / seconds["full"] < 5  # loose: other programs may be running

# %% [markdown]
# **Read.** Compare with the column of operations: a saving there is not the same saving of time. At
# this size much of a step is small operations, not matrix products (chapter 07), and each part adds
# some of its own. `train` has a faster path for short rows, which prefix and prompt cannot take,
# since they hook into the decoder. So in this notebook they were slower than this comparison says.

# %% [markdown] tags=["exercise"]
# ### Exercise 6.5 · Count before you train · 8 min · ●●○
# From the config of a model, count what each method trains. `linear_shapes(config)` gives (out, in)
# of the linear layers of **one** decoder layer.


# %% tags=["stub"]
def count_trained(method: str, size: int, config: PreTrainedConfig) -> int:
    """Return the trained parameters. method: LoRA, adapter, prefix, prompt or BitFit; size: rank,
    width or positions.

    config: num_hidden_layers, hidden_size (D), num_attention_heads, num_key_value_heads, head_dim,
    … An adapter has biases and stands twice in each layer.
    """
    raise NotImplementedError


# %% tags=["solution"]
def count_trained(method: str, size: int, config: PreTrainedConfig) -> int:
    """Return the trained parameters. method: LoRA, adapter, prefix, prompt or BitFit; size: rank,
    width or positions.

    config: num_hidden_layers, hidden_size (D), num_attention_heads, num_key_value_heads, head_dim,
    … An adapter has biases and stands twice in each layer.
    """
    pairs, width = linear_shapes(config), config.hidden_size
    if method == "prompt":
        return size * width
    a_layer = {
        "LoRA": sum(size * (rows + columns) for rows, columns in pairs),
        "adapter": 2 * (2 * width * size + size + width),
        "prefix": 2 * config.num_key_value_heads * config.head_dim * size,
        "BitFit": sum(rows for rows, _ in pairs),
    }
    return config.num_hidden_layers * a_layer[method]


# %% tags=["check"]
check("6.5", count_trained)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Keys and values have <code>num_key_value_heads</code> heads,
# which may be fewer than <code>num_attention_heads</code>. Only one method is not repeated in every layer.</details>

# %% [markdown] tags=["explanation"]
# Grouped key-value heads make a prefix cheap, in parameters and in cache.
#
# Usual mistakes: `num_attention_heads` where `num_key_value_heads` is meant; a key without its value; rank · in · out; one
# adapter a layer.

# %% [markdown]
# ## 6 · What it costs later
#
# Training ends, serving begins. Three questions decide more than the table: can the part be
# **merged** into the weights, what does every request pay, and can many users with different parts
# share **one batch**?
#
# Generation keeps the keys and values of earlier tokens in a *cache*, and a prefix is nothing but
# the beginning of a cache. **Predict:** two users, two prefixes, one batch through the untouched
# base. Does each get the logits of their own tuned model?

# %%
prefixes = torch.stack(
    [tuned["prefix", seed].prefix.keys_values.detach() for seed in (0, 1)]
)  # one a row
cache = DynamicCache(config=base.config)
for layer in range(prefixes.shape[1]):
    _ = cache.update(prefixes[:, layer, 0], prefixes[:, layer, 1], layer)
question = torch.tensor(held_out[0].input_ids).expand(2, -1)
with torch.no_grad():
    together = base(input_ids=question, past_key_values=cache).logits
    alone = torch.cat([tuned["prefix", seed](input_ids=question[:1]).logits for seed in (0, 1)])
print("largest difference of a logit:", f"{(together - alone).abs().max():.0e}")
print("difference between the two users:", f"{(together[0] - together[1]).abs().max():.0f}")
assert_close(together, alone, rtol=1e-3, atol=1e-3)
assert (together[0] - together[1]).abs().max() > 0.1
extra = method_cost("prefix", len(START), base.config).cache_bytes
assert 2 * extra == prefixes[0].nbytes  # the cost counts bfloat16, this prefix is float32
print(f"cache for each request: {extra:,} bytes in bfloat16")

# %% [markdown]
# **Read.** Yes. The base's weights are the same for both; only the beginning of the cache differs
# from row to row. Each request pays for it in cache memory.
#
# Rows of a batch can have a LoRA of their own as well, if the server multiplies row by row. What
# cannot be mixed is what was merged: there is one weight for all.

# %%
_ = torch.manual_seed(0)
weight, x = torch.randn(20, 12), torch.randn(2, 5, 12)  # two users, five tokens each
A, B = torch.randn(2, 4, 12), torch.randn(2, 20, 4)  # each with a LoRA of rank 4
mixed = x @ weight.T + torch.bmm(torch.bmm(x, A.mT), B.mT)
merged = torch.stack([x[user] @ (weight + B[user] @ A[user]).T for user in (0, 1)])
assert_close(mixed, merged, rtol=1e-4, atol=1e-4)
print("two LoRAs in one batch equal two merged models")

# %% [markdown]
# | | merged into the weights | each request pays | users mixed in one batch |
# |---|---|---|---|
# | full | it is the weights | nothing | no: one model each |
# | LoRA | yes, exact up to rounding (chapter 05) | nothing once merged | unmerged, with a kernel for it |
# | adapter | no: GELU stands between | two products more, twice a layer | with a kernel for it |
# | prefix | no: it has no weights | cache for P positions in each layer | yes: it *is* the cache |
# | prompt | no | P more tokens to read, and their cache | yes: it is input |
# | BitFit | where the architecture has biases | hardly anything | with a row of biases each |
#
# How much is that for a real model? Move the controls: model, method, size. At which rank does LoRA
# of Qwen3-8B train about as much as an adapter of width 64? What does a prefix of 256 positions
# cost each request?

# %%
show_widget(explore_choice("Qwen3-0.6B", "LoRA", 16), draw_choice("Qwen3-0.6B", "LoRA", 16))

# %% [markdown] tags=["exercise"]
# ### Exercise 6.6 · Can it be merged? · 9 min · ●●●
# Somebody hands you a tuned layer as a function. If one weight and one bias compute the same for
# every input, return them. If not, raise `ValueError`. You may call the function as often as you
# like.


# %% tags=["stub"]
def merge_into_linear(part, features: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (out, in) and bias (out,) with part(x) = x Wᵀ + b; part: (N, in) -> (N, out).
    Or ValueError."""
    raise NotImplementedError


# %% tags=["solution"]
def merge_into_linear(part, features: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight (out, in) and bias (out,) with part(x) = x Wᵀ + b; part: (N, in) -> (N, out).
    Or ValueError."""
    bias = part(torch.zeros(1, features))[0]
    weight = (part(torch.eye(features)) - bias).T
    x = torch.randn(100, features)
    if not torch.allclose(part(x), F.linear(x, weight, bias), rtol=1e-3, atol=1e-4):
        raise ValueError("this part is not affine: no weight and bias compute it")
    return weight, bias


# %% tags=["check"]
check("6.6", merge_into_linear)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>x = 0 shows the bias. The rows of the identity matrix show the
# weight, one input at a time. Then test your result on inputs it has not seen.</details>

# %% [markdown] tags=["explanation"]
# An affine function is known from D + 1 inputs. Any other function also gives *some* weight this
# way, so the test on random inputs decides. LoRA and biases pass, GELU does not.
#
# Usual mistakes: forgetting to take the bias off; a transposed weight; trusting the probe without a
# test.

# %% [markdown]
# ## 7 · What to choose when
#
# | you have | choose | what we saw |
# |---|---|---|
# | one task, and memory for 16 bytes a parameter (chapter 05) | full | learns the task; kept the old facts, disturbed documents little |
# | little memory, or several tasks on one base | LoRA | near full with 7 % of the numbers; disturbed less than other parts; merges, or switches |
# | an architecture with biases, kilobytes for a task | BitFit | on average more right than prefix and prompt |
# | a server that already has adapters | adapter | learned like LoRA, disturbed more; cannot be merged |
# | weights you may not touch, many users in one batch | prefix | it is a cache; learned less, kept the fewest old facts |
# | a very large model that nearly does the task | prompt | smallest; here it did not learn the task in 40 steps |
#
# Three sentences of our seed texts need a condition:
#
# - *"Full tuning surely works better."* In these runs it was right in every seed. LoRA and the
#   adapter came close, with a thirteenth of its optimizer bytes or less.
# - *"Prefix tuning puts a trainable prefix in front of the **input**."* That describes prompt
#   tuning. A prefix stands in every layer, and learned more here.
# - *"So everybody uses LoRA."* The table suggests why: it is the only part that merges into every
#   linear layer, and of the parts that learned the task it disturbed documents least.
#
# One belief of many readers did not hold: few trained parameters do not mean little forgetting.
# While they are active, LoRA, adapter, BitFit and prefix disturbed documents more than full tuning
# did. What they offer instead: take them away, and the base is back.
#
# What we did not measure: long training and large models. Lester and others report that prompt
# tuning comes close to full tuning with billions of parameters; ours has one million, and 40 steps.

# %% [markdown]
# ## What to remember
#
# - An answer is right under greedy decoding exactly when every graded guess is right under teacher
#   forcing.
# - Adapter: x + up(gelu(down(x))), with `up` zero at first. GELU keeps it from being merged.
# - Prefix: keys and values in every layer; old output scaled down, plus prefix values. Prompt:
#   embeddings, once.
# - Real tokens make step 0 of a prefix a known model; here they also ended lower on average.
# - Give every method its own learning rate before you compare.
# - Without the part nothing is forgotten; with it, a small part can disturb more than full tuning.
#
# ## Sources
#
# - N. Houlsby et al., *Parameter-Efficient Transfer Learning for NLP*, 2019, arXiv:1902.00751:
#   adapters.
# - X. L. Li and P. Liang, *Prefix-Tuning: Optimizing Continuous Prompts for Generation*, 2021,
#   arXiv:2101.00190.
# - B. Lester et al., *The Power of Scale for Parameter-Efficient Prompt Tuning*, 2021,
#   arXiv:2104.08691.
# - E. Ben Zaken et al., *BitFit*, 2022, arXiv:2106.10199.
# - J. He et al., *Towards a Unified View of Parameter-Efficient Transfer Learning*, 2022,
#   arXiv:2110.04366.
# - PEFT documentation: prefix tuning, prompt tuning.
#
# <details><summary>中文要点</summary>
#
# 1. **快速评分**：贪心解码的答案完全正确，当且仅当教师强制下每个被计分位置的 argmax 都正确；
#    一次前向即可。
# 2. **Adapter（瓶颈适配器）**：x + up(gelu(down(x)))，up 从零开始，第 0 步等于基座；有非线性，
#    无法合并进权重。
# 3. **Prefix Tuning**：在每一层学习额外的键和值，不改任何权重；与 PEFT 的损失和梯度一致。
#    从真实 token 初始化时第 0 步可知，本章中平均损失也更低。
#    **Prompt Tuning** 只在输入前学习嵌入；种子文本所说的“输入前加虚拟前缀”其实是它。
# 4. **BitFit** 只训练偏置；Qwen3 没有偏置，需要新增，保存后用原架构加载会被悄悄丢弃。
# 5. 比较时每种方法都要有自己的学习率。参数少不等于遗忘少：拿掉部件，基座原样恢复；
#    部件启用时小部件的干扰可能更大。
#
# </details>
