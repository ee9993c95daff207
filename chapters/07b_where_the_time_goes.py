# %% [markdown]
# # 07b · Where the time goes
#
# **The question.** Chapter 07 showed that TRL's trainer and our loop make the same run. Why does
# TRL need a multiple of our loop's time on a CPU?
#
# **By the end you can**
# - *count* the positions that are padding, and make batches with little of it;
# - *compute* scores only where a token is graded, with the same loss;
# - *time* several ways of one run fairly, and say what each saving wins.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 04 and 07 | CPU, no network | about half a minute | 3, about 26 minutes | A5 |
#
# This chapter is an appendix: nothing later depends on it. All its times are ratios, measured in
# one process on the machine that runs it.

# %% tags=["setup"]
import random
from functools import partial

import datasets
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from sft_lab import atlas, plots
from sft_lab.batches import group_by_length, pad_batch
from sft_lab.course import time_runs
from sft_lab.course.checks import check

# %% tags=["setup"]
from sft_lab.course.time_runs import head_where_graded, padded_share, whole_head
from sft_lab.course.views.way import draw_way
from sft_lab.examples import IGNORE_INDEX
from sft_lab.labels import encode_conversations
from sft_lab.models import load

plots.style()
datasets.disable_progress_bars()
base, tokenizer = load("atlas-base")
pad, width, vocabulary = tokenizer.pad_token_id, base.config.hidden_size, base.config.vocab_size

# %% [markdown]
# ## 1 · Padding
#
# A batch is a rectangle: every row is padded to the longest. The model computes on padding as on
# any token, and the loss ignores what comes out. Our rows are the course's own: facts, sums, lists
# and JSON, a few tokens or a hundred.
#
# **Predict.** In batches of 16, in the order of the file, what share of the positions is padding:
# 5, 20 or 50 %?

# %% tags=["predict"]
conversations = atlas.training_conversations(seed=1)
examples = encode_conversations(conversations[:320], tokenizer)
lengths = [len(example.input_ids) for example in examples]
in_turn = [list(range(first, first + 16)) for first in range(0, 320, 16)]
similar = group_by_length(lengths, 16, seed=0)
shares = {
    "in turn": padded_share(in_turn, lengths),
    "similar lengths": padded_share(similar, lengths),
}
for name, share in shares.items():
    print(f"{name:16} {share:.0%} of the positions are padding")
assert shares["in turn"] > 0.2 > 0.1 > shares["similar lengths"]

# %% [markdown]
# **Read.** More than half is padding. Rows of similar length in a batch leave almost none. There is
# a price: other rows meet in a batch, so it is another run, as "random order" was in chapter 07.
# The batches themselves must still come in random order. From short to long, the model would learn
# one kind of task first and another last.

# %% [markdown] tags=["exercise"]
# ### Exercise 7b.1 · Batches that waste little · 10 min · ●●○
# Write the batching. `lengths` holds the number of tokens of each row, at least one row. Return
# batches, lists of indices into `lengths`, such that
#
# - every index stands in exactly one batch, and every batch has `batch_size` indices, but for one
#   that may have fewer (never 0);
# - of the positions at most 10 % are padding. The check asks this of at least 20 · `batch_size`
#   lengths between 12 and 140. A batch has (its rows) · (its longest) positions;
# - the batches come in an order drawn by `seed`: the same seed gives the same batches in the same
#   order, and other seeds give other orders. Batches of short rows do not all come first or last.
#
# `make_batches([5, 9, 6, 9], 2, seed)` gives `[[0, 2], [1, 3]]` or `[[1, 3], [0, 2]]`; the order
# within a batch is free.


# %% tags=["stub"]
def make_batches(lengths: list[int], batch_size: int, seed: int) -> list[list[int]]:
    """Batches of indices of rows of similar length, in an order drawn by `seed`."""
    raise NotImplementedError


# %% tags=["solution"]
def make_batches(lengths: list[int], batch_size: int, seed: int) -> list[list[int]]:
    """Batches of indices of rows of similar length, in an order drawn by `seed`."""
    rng = random.Random(seed)
    order = list(range(len(lengths)))
    rng.shuffle(order)  # rows of equal length meet others with another seed
    order.sort(key=lengths.__getitem__)
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    rng.shuffle(batches)
    return batches


# %% tags=["check"]
check("7b.1", make_batches)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Three steps: sort the indices by length, cut, shuffle the
# batches.</details>

# %% [markdown] tags=["explanation"]
# `sft_lab`'s `group_by_length` sorts only within windows of 32 batches. In a large data set other
# rows then meet in each epoch.
#
# Usual mistakes: the last batch dropped; sorted batches left in their order; the global random
# state used, which a second call finds changed.

# %% [markdown]
# ## 2 · The head
#
# The last layer, the **head**, turns each hidden state of D numbers into V scores, one for each
# token of the vocabulary. A product of N rows costs 2 · N · D · V operations (a multiplication and
# an addition each). PyTorch counts them for us.
#
# **Predict.** Which share of the forward pass's operations is the head's: 5, 25 or 50 %? And which
# share of the positions has a graded token?

# %% tags=["predict"]
batch = pad_batch([examples[i] for i in similar[0]], pad)
with torch.no_grad(), FlopCounterMode(display=False) as counter:
    base(**batch)
positions = batch["labels"].numel()
graded = int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
head_share = 2 * positions * width * vocabulary / counter.get_total_flops()
print(f"{head_share:.0%} of the forward pass is the head")
print(f"{graded} of {positions} positions have a graded token: {graded / positions:.0%}")
assert 0.15 < head_share < 0.6 and graded < 0.6 * positions

# %% [markdown]
# **Read.** The head takes a quarter, and a third of the positions are graded. The scores of all
# others are computed and thrown away. With a vocabulary of 151,936 and a small model, the head's
# share is larger still. So choose the graded positions first, and multiply then. The loss stays the
# same:

# %%
with torch.no_grad():
    torch.testing.assert_close(head_where_graded(base, batch), whole_head(base, batch))

# %% [markdown] tags=["exercise"]
# ### Exercise 7b.2 · The head where it is graded · 10 min · ●●○
# `hidden` (B, T, D) are the last hidden states, `weight` (V, D) is the head, `labels` (B, T) holds
# token ids, and −100 where nothing is graded. Row t of `hidden` predicts token t + 1, so the first
# label of a row and the last state have no partner. Return the mean negative log-likelihood of the
# graded tokens, in nats, as a tensor without dimensions through which gradients flow to `hidden`
# and `weight`. At least one token is graded. Token 0 is a token like any other. With N graded
# tokens, the products may cost at most 2 · N · D · V operations; the check counts them.
#
# With `hidden = [[[0.0], [ln 3], [5.0]]]`, `weight = [[0.0], [1.0]]` and
# `labels = [[-100, -100, 1]]`, state 1 predicts token 1: scores 0 and ln 3, probability 3/4, loss
# 0.288, from 2 · 1 · 1 · 2 = 4 operations.


# %% tags=["stub"]
def head_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean NLL of the graded tokens, from their scores alone."""
    raise NotImplementedError


# %% tags=["solution"]
def head_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean NLL of the graded tokens, from their scores alone."""
    targets = labels[:, 1:]
    graded = targets != IGNORE_INDEX
    states = hidden[:, :-1][graded]  # (N, D): chosen before the product
    return F.cross_entropy(states @ weight.T, targets[graded])


# %% tags=["check"]
check("7b.2", head_loss)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>A boolean mask of shape (B, T − 1) chooses rows of a tensor of
# shape (B, T − 1, D).</details>

# %% [markdown] tags=["explanation"]
# The saving is in memory too: the scores of a long row in a large vocabulary outweigh everything
# else (chapter 08).
#
# Usual mistakes: scores first, choice later; no shift; a mean over rows.

# %% [markdown]
# ## 3 · From TRL's defaults to our loop
#
# Now we go all the way from TRL to our loop, on the same 48 rows, 16 a batch. TRL's defaults
# compute in bfloat16 and recompute activations in the backward pass (*checkpointing*, chapter 08).
# Two savings of our loop are new here. *Freed memory kept*: after a step the C library gives large
# blocks back to the operating system, and asks for them again; we tell it not to. *Short rows
# written out*: for rows of a few dozen tokens the decoder's many small operations are gathered into
# fewer, with their gradients by hand (`sft_lab/kernels/short_rows.py`).

# %%
rows = examples[:48]
by_length = sorted(rows, key=lambda example: len(example.input_ids))
in_turn_48, similar_48 = (
    [pad_batch(part[first : first + 16], pad) for first in range(0, 48, 16)]
    for part in (rows, by_length)
)
turn, near = (sum(b["labels"].numel() for b in part) for part in (in_turn_48, similar_48))
print(f"{turn} positions in turn, {near} with similar lengths")
assert near < 0.8 * turn
trl = partial(time_runs.trl_step_times, base, tokenizer, rows, 16)
plain = partial(time_runs.plain_step_times, base)

# %%
ways = {
    "TRL, its defaults": trl,
    "bf16 off": partial(trl, bf16=False),
    "checkpointing off": partial(trl, bf16=False, activation_checkpointing=False),
    "plain loop": partial(plain, in_turn_48),
    "similar lengths": partial(plain, similar_48),
    "head where graded": partial(plain, similar_48, loss_of=head_where_graded),
}
last = {"loss_of": head_where_graded, "keep_memory": True}
ways["freed memory kept"] = partial(plain, similar_48, **last)
ways["short rows written out"] = partial(plain, similar_48, **last, written_out=True)

# %% [markdown]
# Each line keeps what stands above it. A fair race needs care. The ways run in turn, two rounds,
# and the best of each counts: other work on the machine can only add time. A first batch runs
# before the clock starts.
#
# **Predict.** Which of the seven changes wins most on your machine? And how many times as fast as
# the plain loop is the last line: 1.2, 2 or 4?

# %% tags=["predict"]
best = time_runs.race(ways, rounds=2)
seconds = {name: sum(phases.values()) for name, phases in best.items()}
for name, one in seconds.items():
    print(f"{name:24} {seconds['plain loop'] / one:5.2f} × the plain loop")
assert seconds["plain loop"] > 1.2 * seconds["short rows written out"]
assert seconds["TRL, its defaults"] > 1.3 * seconds["short rows written out"]

# %% tags=["predict"]
_ = draw_way(seconds)

# %% [markdown]
# **Read.** Each bar is the time before a change, divided by the time after it. Which bar is
# longest, and what the last line says, depends on the processor. Similar lengths take a quarter of
# the positions away, and fewer positions help anywhere. The trainer itself costs too: it also
# measures entropy and accuracy for its log. bfloat16 is emulated, many times slower, by a processor
# without instructions for it; one that has them may lose by switching it off. The head, the memory
# and the small operations change no loss beyond rounding: chapter 07's first rung uses all three.
#
# The order matters: a saving wins less once another has taken its work away. And each saving acts
# on a *part* of a step. The next cell prints these parts: forward, backward and update.

# %%
phases = best["plain loop"]
for name, one in phases.items():
    print(f"{name:9} {one / sum(phases.values()):.0%} of the plain loop's time")
assert phases["backward"] > phases["update"]

# %% [markdown] tags=["exercise"]
# ### Exercise 7b.3 · Faster in parts · 6 min · ●○○
# `shares` gives each part's share of the time; they add up to 1. `faster` says how many times as
# fast some parts become: 2 halves a part's time, 0.5 doubles it, `math.inf` means that its work is
# gone. Parts that it does not name stay as they are. Return how many times as fast the whole
# becomes, as a float. Some time is always left.
#
# `times_as_fast({"forward": 0.5, "backward": 0.4, "update": 0.1}, {"backward": 4})` gives
# 1 / (0.5 + 0.1 + 0.1) = 1.43.


# %% tags=["stub"]
def times_as_fast(shares: dict[str, float], faster: dict[str, float]) -> float:
    """How many times as fast the whole becomes."""
    raise NotImplementedError


# %% tags=["solution"]
def times_as_fast(shares: dict[str, float], faster: dict[str, float]) -> float:
    """How many times as fast the whole becomes."""
    left = [share / faster.get(part, 1) for part, share in shares.items()]
    return 1 / sum(left)


# %% tags=["check"]
check("7b.3", times_as_fast)

# %% [markdown] tags=["explanation"]
# This is Amdahl's law. A backward pass that costs nothing would make the example 1.67 times as
# fast, and no more.
#
# Usual mistakes: a mean of the factors; parts without a factor forgotten.

# %% [markdown]
# ## 4 · Many prompts at once
#
# Generation writes one token a pass. A pass over one row costs nearly as much time as a pass over
# several: the weights are read once for all of them.
#
# **Predict.** How many times as many tokens a second come from 64 prompts in a batch, against one
# at a time: 2, 5, 10 or more?

# %% tags=["predict"]
prompts = [conversation[:1] for conversation in conversations[:64]]
alone = time_runs.tokens_per_second(base, tokenizer, prompts[:3], 1)
for count in (8, 64):
    together = time_runs.tokens_per_second(base, tokenizer, prompts[:count], count)
    print(f"{count:2} prompts at once: {together / alone:4.1f} × the tokens of one at a time")
assert together > 1.5 * alone  # more on a free machine

# %% [markdown]
# **Read.** 64 prompts at once give more tokens a second; the cell says how many times as many on
# the machine that ran it. The gain ends where one pass keeps the whole processor busy.
# That is why `generate_responses` takes a list of prompts, and why a server gathers requests.
#
# ## What to remember
#
# - Padding is work for nothing: batches of similar length, in random order.
# - Choose the graded positions before the head, not after it.
# - Time ways in turn, in one process, after a warm-up; report ratios.
# - What stays slow decides how fast the whole becomes.
# - Generate in batches.
#
# `make bench` measures longer runs, against TRL too. Chapter 08 shows what is fast on a GPU.
#
# ## Sources
#
# - TRL 1.16, `SFTConfig` and `SFTTrainer`: the defaults that the first way uses.
# - PyTorch, `torch.utils.flop_counter`: the count of operations.
# - glibc, `mallopt`: M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
#
# <details><summary>中文要点</summary>
#
# 1. **填充 (padding)** 是白做的计算：把长度相近的样本放进同一批，批次之间仍要随机打乱。
# 2. **输出头**只在计分位置计算：先选位置，再做矩阵乘法，损失与梯度完全相同。
# 3. 公平计时：同一进程、轮流运行、先热身、取最快一次，只报告**比值**。
# 4. **阿姆达尔定律**：没有变快的部分决定总体能快多少。
# 5. 生成时多个提示一起做；bf16 在没有相应指令的 CPU 上会慢很多倍。
#
# </details>
