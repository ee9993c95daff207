# %% [markdown]
# # 18b · A battery of probes
#
# **The question.** A run can be broken without an error, and with a loss that looks good. Which
# cheap questions tell it from a healthy one, and in which order do we ask them?
#
# **By the end you can**
# - *ask* a data set, a step, a model and a saved file the questions whose answers are known;
# - *say* what each sees, and what it cannot see;
# - *name* the fault of a run of which you have nothing but the model.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 03, 04, 05 and 09 | CPU, no network | about 40 s | 6, about 60 minutes | L2 L3 L4 L7 L8 L11 L23 |

# %% tags=["setup"]
import copy
import warnings
from tempfile import TemporaryDirectory

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from torch.testing import assert_close

# %% tags=["setup"]
from sft_lab import diagnostics, plots
from sft_lab.batches import pad_batch
from sft_lab.chat import generate_responses, render
from sft_lab.course import probe_runs
from sft_lab.course.checks import check
from sft_lab.course.probe_runs import asked, atlas_run, hidden_runs, lessons, plant, tune
from sft_lab.course.results import read_results
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora, load_adapter, merge_lora, save_adapter
from sft_lab.losses import response_loss
from sft_lab.models import load
from sft_lab.significance import judge_claim
from sft_lab.train import evaluate

# %% tags=["setup"]
plots.style()
warnings.filterwarnings("ignore", message=".*gradient_checkpointing")  # an old name, inside PEFT
transformers.logging.set_verbosity_error()  # the wrong padding below is named there
base, tokenizer = load("atlas-base")
taught = encode_conversations(lessons(), tokenizer)  # what a healthy run gets
unseen = encode_conversations(asked(), tokenizer)  # about entities that no lesson names
recorded = read_results("18b_samples", base)
real = read_results("18b_smollm2")

# %% [markdown]
# ## 1 · What the loss says
#
# Four runs learn the same 512 lessons. Three have a fault in their labels: the **stop token is not
# graded**, for it was taken for padding; the mask **starts late**, by one token; the labels are
# **shifted twice**, once too often.
#
# **Predict:** for which of them would the training loss make you look twice?

# %% tags=["predict"]
NAMES = ("healthy", "stop not graded", "starts late", "shifted twice")
runs = {name: atlas_run(name) for name in NAMES}
last = {name: np.mean(run.losses[-8:]) for name, run in runs.items()}
for name, loss in last.items():
    print(f"{name:16} {loss:.3f} nats per token at the end")
assert max(last[name] for name in NAMES[:3]) < 0.1 < 0.5 < last["shifted twice"]

# %% [markdown]
# **Read.** One of three. The two others learn perfectly what they are given, and end as low as the
# healthy run. Nobody knows beforehand which loss is right.
#
# A **probe** is a question whose healthy answer is known before it is asked: "the stop token is
# graded", "the batch size changes nothing". Each has a tolerance, a fault that it sees, and one to
# which it is blind. We go by cost.

# %%
_ = probe_runs.draw_battery()

# %% [markdown]
# ## 2 · Before the run: no model
#
# The cheapest probe reads what is graded. Ids and labels are enough.

# %% [markdown] tags=["exercise"]
# ### Exercise 18b.1 · What is graded · 6 min · ●○○
# Write the runs of graded labels of one row: pairs (first, last + 1), from left to right. A label
# of −100 is not graded; every other one is. Without a graded label, return [].
#
# Example: `[-100, 7, 9, -100, 0]` gives `[(1, 3), (4, 5)]`.


# %% tags=["stub"]
def graded_runs(labels: list[int]) -> list[tuple[int, int]]:
    """Return (first, last + 1) of every run of graded labels."""
    raise NotImplementedError


# %% tags=["solution"]
def graded_runs(labels: list[int]) -> list[tuple[int, int]]:
    """Return (first, last + 1) of every run of graded labels."""
    runs = []
    for t, label in enumerate(labels):
        if label == IGNORE_INDEX:
            continue
        if runs and runs[-1][1] == t:
            runs[-1] = (runs[-1][0], t + 1)
        else:
            runs.append((t, t + 1))
    return runs


# %% tags=["check"]
check("18b.1", graded_runs)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>What closes a run that reaches the end of the
# row?</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: a run at the end of a row is never closed; token id 0, which is false in Python,
# is taken for "not graded".

# %% [markdown]
# Two probes follow: the **share** of graded tokens, about a third here, and the graded **text**,
# which is the answer and its stop token. Four of these five data sets are broken.
#
# **Predict:** which fault does the share not see?

# %% tags=["predict"]
for fault in ("healthy", "prompt graded", "stop not graded", "moved left", "starts late"):
    rows = plant(fault, taught)
    texts = diagnostics.graded_text(rows[0], tokenizer)
    print(f"{fault:16} {diagnostics.graded_share(rows):6.1%}  {texts}")
share = diagnostics.graded_share(taught)
assert 0.2 < share < 0.5 and diagnostics.graded_share(plant("prompt graded", taught)) == 1
assert diagnostics.graded_share(plant("moved left", taught)) == share

# %% [markdown]
# **Read.** The share sees a lost mask (100 %), and answers that were all cut away (0 %). A mask that
# slid by one token keeps its share; only the text shows it. Both are blind to a wrong *answer*,
# which is graded as neatly as a right one.
#
# The library's own mask agrees (`assistant_only_loss` of TRL uses it):


# %%
def graded_by_library(talk) -> list[int]:
    """Labels from the template's {% generation %} tags, as transformers finds them."""
    found = tokenizer.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(found["input_ids"], found["assistant_masks"], strict=True)
    return [token if graded else IGNORE_INDEX for token, graded in pairs]


for talk, example in zip(lessons(), taught, strict=True):
    assert graded_by_library(talk) == example.labels
print(f"{len(taught)} rows: equal labels")

# %% [markdown]
# The third probe needs text alone. A model is *taught* on the rendered conversation and *asked* with
# a rendered prompt. If the conversation does not begin with that prompt, it is asked otherwise than
# it was taught.

# %% [markdown] tags=["exercise"]
# ### Exercise 18b.2 · Asked as taught · 10 min · ●●○
# You get conversations, lists of turns `{"role": …, "content": …}`, and `render(turns, asking)`,
# which returns the text of the turns; with `asking=True` the opening of an answer follows. Return
# the numbers of the conversations, from 0 and in order, in which for *some* answer (a turn of the
# role "assistant") the text of the **whole** conversation does not begin with the answer's prompt:
# the turns before it, rendered with `asking=True`. List each once. A conversation never begins with
# an answer. It may end with a question; one without answers is not listed.
#
# Example: if `render` writes `Q:hi\nA:` when asking, and `Q:hi\nA: yo\n` for the conversation, all
# is well. If it writes `Q:hi\nA:[think]` when asking, the conversation is listed.


# %% tags=["stub"]
def changed_prompts(conversations: list[list[dict]], render) -> list[int]:
    """Return the numbers of the conversations that are asked otherwise than they are taught."""
    raise NotImplementedError


# %% tags=["solution"]
def changed_prompts(conversations: list[list[dict]], render) -> list[int]:
    """Return the numbers of the conversations that are asked otherwise than they are taught."""
    found = []
    for number, turns in enumerate(conversations):
        whole = render(turns, False)
        answers = [k for k, turn in enumerate(turns) if turn["role"] == "assistant"]
        if not all(whole.startswith(render(turns[:k], True)) for k in answers):
            found.append(number)
    return found


# %% tags=["check"]
check("18b.2", changed_prompts)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>For the answer at place k: <code>render(turns[:k],
# True)</code>.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: a comparison with the conversation *up to* the answer, although templates of
# thinking models rewrite an answer once another turn follows; the last answer alone; a prompt
# without the opening of an answer.

# %%
two_turns = [asked(1, seed=1)[0] + asked(1, seed=2)[0] for _ in range(3)]
thinking = copy.deepcopy(tokenizer)
opening = "<|im_start|>assistant\\n"
thinking.chat_template = tokenizer.chat_template.replace(opening, opening + "<think></think>\\n")
cut = copy.deepcopy(tokenizer)
cut.chat_template = tokenizer.chat_template.replace(opening, "<|im_start|>assistant")
for name, reader in {"healthy": tokenizer, "think block": thinking, "cut": cut}.items():
    print(f"{name:12} {diagnostics.prefix_mismatches(two_turns, reader)}")
assert diagnostics.prefix_mismatches(two_turns, thinking) == [0, 1, 2]
assert not diagnostics.prefix_mismatches(two_turns, cut)

# %% [markdown]
# **Read.** A think block that is asked for and never taught is seen in every row. A prompt without
# its last line break is not: the conversation does begin with it.
#
# ## 3 · At step 0: the functions that the run uses
#
# For these probes any model will do. Each asks whether two ways to one number agree. Not to the
# last bit: sums in another order round otherwise. We allow 1e-5 nats; a real fault is a thousand
# times larger.
#
# **Batch invariance.** An evaluation must not depend on its batch size. **Predict** which of two
# faults shows.


# %%
def of_tokens(rows, size: int) -> float:
    """Right: the mean over all graded tokens."""
    return evaluate(base, tokenizer, rows, batch_size=size)["loss"]


def of_batches(rows, size: int) -> float:
    """Wrong: the mean of the batches' means."""
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    return np.mean([of_tokens(batch, size) for batch in batches])


def of_prompts(rows, size: int) -> float:
    """Wrong: the prompts are scored, too."""
    return of_tokens(plant("prompt graded", rows), size)


# %% tags=["predict"]
some = unseen[:24]
moved = {
    of.__name__: diagnostics.batch_difference(of, some)
    for of in (of_tokens, of_batches, of_prompts)
}
for name, difference in moved.items():
    print(f"{name:10} moves by {difference:.5f} nats between batch sizes 1, 4 and 16")
assert moved["of_tokens"] < 1e-5 < 1e-3 < moved["of_batches"] and moved["of_prompts"] < 1e-5

# %% [markdown]
# **Read.** A mean of means moves. Scored prompts give the same wrong number at every size:
# *invariance* shows that a number is well defined, never that it is right. The library agrees when
# it is told how many tokens all batches hold:

# %%
count = sum(label != IGNORE_INDEX for row in some for label in row.labels)
batches = [pad_batch(some[i : i + 4], tokenizer.pad_token_id) for i in range(0, len(some), 4)]
with torch.no_grad():
    by_library = sum(base(**batch, num_items_in_batch=count).loss.item() for batch in batches)
assert_close(by_library, of_tokens(some, 4), rtol=0, atol=1e-5)

# %% [markdown] tags=["exercise"]
# ### Exercise 18b.3 · Is one by one the same as at once? · 8 min · ●●○
# Probe somebody else's step. `gradient_of(batches)` takes a list of batches, each a list of rows,
# and returns the gradient of one step over them: a list with a tensor for each parameter. Return
# the float ‖one by one − at once‖ / ‖at once‖, where "at once" is one batch of all rows, and "one
# by one" makes every row a batch of its own. The norm goes over all numbers of all parameters
# together; ‖at once‖ is not 0. As with a model's `.grad`, the next call writes into the tensors
# that the last one returned.
#
# Example: gradients of (3, 4) at once and (3, 3) one by one give 1 / 5 = 0.2.


# %% tags=["stub"]
def accumulation_difference(gradient_of, rows: list) -> float:
    """Return the relative difference of the accumulated gradient."""
    raise NotImplementedError


# %% tags=["solution"]
def accumulation_difference(gradient_of, rows: list) -> float:
    """Return the relative difference of the accumulated gradient."""
    at_once = torch.cat([part.flatten() for part in gradient_of([rows])])  # cat makes a copy
    one_by_one = torch.cat([part.flatten() for part in gradient_of([[row] for row in rows])])
    return ((one_by_one - at_once).norm() / at_once.norm()).item()


# %% tags=["check"]
check("18b.3", accumulation_difference)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Join all parts of a gradient into one long vector before the
# second call.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: no copy, so that a gradient is compared with itself; an absolute difference, for
# which no tolerance fits every model. Rows of equal length hide a mean of means.


# %%
def step_of(divide):
    """A step over batches of examples. divide(graded in the batch, in all, batches): what the
    summed loss of a batch is divided by."""

    def gradient_of(batches):
        model = copy.deepcopy(base)
        rows = [pad_batch(batch, tokenizer.pad_token_id) for batch in batches]
        graded = [(row["labels"][:, 1:] != IGNORE_INDEX).sum() for row in rows]
        for row, own in zip(rows, graded, strict=True):
            summed = response_loss(model(row["input_ids"]).logits, row["labels"]) * own
            (summed / divide(own, sum(graded), len(rows))).backward()
        return [weight.grad for weight in model.parameters()]

    return gradient_of


# %%
found = {
    name: diagnostics.accumulation_difference(step_of(divide), unseen[:8])
    for name, divide in {
        "by all graded tokens": lambda own, total, batches: total,
        "mean of means": lambda own, total, batches: own * batches,
        "by twice as many": lambda own, total, batches: 2 * total,
    }.items()
}
for name, difference in found.items():
    print(f"{name:22} {difference:.1e}")
assert found["by all graded tokens"] < 1e-4 < 1e-2 < found["mean of means"]
assert found["by twice as many"] < 1e-4

# %% [markdown]
# **Read.** Again the mean of means is seen, and a constant factor is not.
#
# ## 4 · During the run: the adapter, the evaluation, the resume
#
# We train a small LoRA adapter, with dropout 0.3.

# %%
adapted = tune(base, tokenizer, taught[:128], rank=8, dropout=0.3).model
fresh = get_peft_model(copy.deepcopy(base), LoraConfig(task_type="CAUSAL_LM", r=8))
print(f"max|B|: trained {diagnostics.largest_b(adapted):.3f}, fresh {diagnostics.largest_b(fresh)}")
assert diagnostics.largest_b(adapted) > 1e-3 and diagnostics.largest_b(fresh) == 0

# %% [markdown]
# **max|B|** is exactly 0 before the first step, and not after it. At 0 the adapter does nothing: the
# optimiser holds other weights, or a reload made a new adapter instead of reading the old one.
# Blind: B grows on wrong labels, too.
#
# **Two evaluations agree**, to the bit, for not even the order has changed. **Predict:** do they
# agree under `torch.no_grad()` without `model.eval()`? At step 0, and after some training?


# %%
def without_eval(model) -> float:
    """Wrong: under no_grad, and in training mode."""
    batch = pad_batch(some, tokenizer.pad_token_id)
    model.train()
    with torch.no_grad():
        loss = response_loss(model(batch["input_ids"]).logits, batch["labels"]).item()
    model.eval()
    return loss


# %% tags=["predict"]
torch.manual_seed(0)
untrained = add_lora(copy.deepcopy(base), dropout=0.3)
twice = {
    "healthy": diagnostics.eval_difference(lambda: evaluate(adapted, tokenizer, some)["loss"]),
    "no eval(), adapter trained": diagnostics.eval_difference(lambda: without_eval(adapted)),
    "no eval(), at step 0": diagnostics.eval_difference(lambda: without_eval(untrained)),
}
for name, difference in twice.items():
    print(f"{name:28} {difference:.5f} nats")
assert twice["healthy"] == twice["no eval(), at step 0"] == 0
assert twice["no eval(), adapter trained"] > 1e-6

# %% [markdown]
# **Read.** After training they differ: `no_grad` stops gradients, and dropout goes on. The same fault
# is invisible at step 0, where the update behind the dropout is still zero. Ask again after some
# steps.
#
# **Equality after resume.** We compare a run in one piece with one that crashed and was resumed.
# The fault: weights were restored, optimiser and schedule began anew.

# %%
with TemporaryDirectory() as folder:
    pieces = probe_runs.resume_runs(base, tokenizer, taught[:192], folder)
jumps = {}
print("               largest difference   jump behind the resume")
for name in ("resumed", "begun anew"):
    difference = diagnostics.resume_difference(pieces["whole"], pieces[name])
    jumps[name] = diagnostics.resume_jump(pieces[name], probe_runs.CRASH)
    print(f"{name:12} {difference:15.1e} nats {jumps[name]:+15.2f} nats")
assert max(jumps.values()) < 0.1
assert diagnostics.resume_difference(pieces["whole"], pieces["resumed"]) < 1e-4
assert diagnostics.resume_difference(pieces["whole"], pieces["begun anew"]) > 0.01

# %% [markdown]
# **Read.** The comparison with the whole run sees it. The jump, which is all that one run's log can
# show, does not: both runs go on falling. So resume once on purpose, on a few rows.
#
# ## 5 · After the run: what was learned
#
# Now we show the model answers with *right* labels, whatever it was trained on. How often does the
# right token rank first, by its position in the answer?

# %% [markdown] tags=["exercise"]
# ### Exercise 18b.4 · Accuracy by position · 12 min · ●●○
# `best[b, t]` is the token that ranks first when row b was read up to position t: a guess of token
# t + 1. `labels`, unshifted, (B, T) as well: each row has one run of at least one graded token,
# which begins at position 1 or later; all else is −100. Its last token is the stop token. Return a
# list of floats: the share of right guesses of the answers' first token, of their second, and so
# on, each over the answers that have such a token, **without** stop tokens. The last entry is the
# share of right guesses of the stop tokens.
#
# Example: labels `[[-100, 5, 6, 9], [-100, 5, 9, -100]]`, best `[[5, 0, 9, 0], [4, 9, 0, 0]]`. First
# token: one of two. Second: 0 of one. Stop: both. The answer is `[0.5, 0.0, 1.0]`.


# %% tags=["stub"]
def accuracy_by_position(best: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Return the share of right guesses at answer position 0, 1, …, and of the stop tokens."""
    raise NotImplementedError


# %% tags=["solution"]
def accuracy_by_position(best: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """Return the share of right guesses at answer position 0, 1, …, and of the stop tokens."""
    places, stops = [], []
    for guesses, row in zip(best[:, :-1], labels[:, 1:], strict=True):
        graded = row != IGNORE_INDEX
        *right, stop = (guesses[graded] == row[graded]).tolist()
        stops.append(stop)
        places += [[] for _ in range(len(right) - len(places))]
        for place, hit in zip(places, right, strict=False):
            place.append(hit)
    return [sum(hits) / len(hits) for hits in [*places, stops]]


# %% tags=["check"]
check("18b.4", accuracy_by_position)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Shift first: <code>best[:, :-1]</code> against <code>labels[:,
# 1:]</code>. Then a list of hits for each position.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: no shift; stop tokens among the positions, where answers end at different places;
# a division by all rows, so that late positions look bad.

# %% [markdown]
# **Predict** the picture: where do the three broken runs of section 1 part from the healthy one?

# %% tags=["predict"]
accuracy = {name: diagnostics.accuracy_by_position(runs[name].model, unseen) for name in NAMES}
accuracy["the base"] = diagnostics.accuracy_by_position(base, unseen)
shown = {name: [[*values[:8], values[-1]]] for name, values in accuracy.items()}

# %% tags=["predict", "folded"]
ax = plots.curve(
    range(9),
    shown,
    xlabel="position in the answer",
    ylabel="token accuracy",
    title="The fault stands at its position",
)
_ = ax.set_xticks(range(9), [*range(8), "stop"])
assert accuracy["healthy"][0] > 0.9 > 0.2 > accuracy["starts late"][0]
assert accuracy["healthy"][-1] > 0.9 > 0.2 > accuracy["stop not graded"][-1]

# %% [markdown]
# **Read.** A late mask leaves the first token where the base has it. Without a graded stop token,
# the last point stays there. Compare with the base, always: a probe says what *changed*.
#
# The same scores give two more probes. **P(stop)** is the mean probability of the stop token where
# the answer ends. The **shifted accuracy** compares with the next token, and with the one after it.

# %%
print("                 P(stop)  next token  the one after")
for name, model in {"base": base, **{name: runs[name].model for name in NAMES}}.items():
    stop = diagnostics.stop_probability(model, tokenizer, unseen)
    one, two = diagnostics.shifted_accuracy(model, unseen).values()
    print(f"{name:16} {stop:7.3f} {one:11.0%} {two:14.0%}")
assert two > 0.4 > one  # of the last, which was shifted twice

# %% [markdown]
# **Read.** Healthy is near 1, high, and near 0. P(stop) is blind to a late start, and both are to a
# wrong fact that is said fluently.
#
# ### How many examples?
#
# How few answers are enough for a probe? Ten kinds of run, five seeds each, are recorded by
# `tools/experiments/18b_samples.py`.
#
# > **Claim.** On **8** answers, P(stop) of a run without graded stop tokens is lower than that of a
# > healthy run. Primary measure: P(stop), five seeds. Beside it: a fault in the lists alone, which
# > are a fifth of the rows.

# %% [markdown] tags=["exercise"]
# ### Exercise 18b.5 · How few are enough · 8 min · ●●○
# `healthy` and `broken` give, for some numbers of examples, a probe's values, one a seed. Healthy
# ones are higher. A number **tells them apart** if every healthy value is above every broken one;
# equal is not above. Return the smallest number from which on they are told apart: at it and at
# every larger number given. If there is none, return None. Both dicts have the same keys, at least
# one, in any order.
#
# Example: `{8: [0.9, 0.8], 2: [0.9, 0.4]}` and `{2: [0.5, 0.1], 8: [0.2, 0.3]}` give 8.


# %% tags=["stub"]
def fewest(healthy: dict[int, list[float]], broken: dict[int, list[float]]) -> int | None:
    """Return the smallest number of examples from which on a probe tells the runs apart."""
    raise NotImplementedError


# %% tags=["solution"]
def fewest(healthy: dict[int, list[float]], broken: dict[int, list[float]]) -> int | None:
    """Return the smallest number of examples from which on a probe tells the runs apart."""
    enough = None
    for count in sorted(healthy, reverse=True):
        if min(healthy[count]) <= max(broken[count]):
            break
        enough = count
    return enough


# %% tags=["check"]
check("18b.5", fewest)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Go from the largest number down.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: the smallest number at which they happen to part; a comparison of means, or seed
# by seed, although your next run has no partner.

# %% [markdown]
# **Predict** the number for a fault in every row, and for one in the lists alone.


# %%
def values(measure: str, arm: str) -> dict[int, list[float]]:
    """A probe of an arm, by the number of examples: a value for each seed."""
    return {n: recorded.measured(f"{measure}_{n}", arm=arm) for n in probe_runs.COUNTS}


PAIRS = (
    ("stop", "no stop", "healthy"),
    ("first", "late start", "healthy"),
    ("stop", "no stop in lists", "healthy, with lists"),
    ("first", "late start in lists", "healthy, with lists"),
    ("stop", "no stop in 9 of 10 rows", "healthy"),
    ("first", "late start in 9 of 10 rows", "healthy"),
)

# %% tags=["predict"]
print("probe  broken run                   at 8: healthy  broken  verdict       enough")
words, enough = {}, {}
for measure, broken, healthy in PAIRS:
    good, bad = values(measure, healthy), values(measure, broken)
    words[broken] = judge_claim(good[8], bad[8], claim="lower").word
    enough[broken] = probe_runs.fewest_examples(good, bad)
    means = f"{np.mean(good[8]):13.2f} {np.mean(bad[8]):7.2f}"
    print(f"{measure:6} {broken:28} {means}  {words[broken]:13} {enough[broken]}")
assert words["no stop"] == words["late start"] == "held" and words["no stop in lists"] != "held"
assert enough["no stop"] == enough["late start"] == 2 and enough["no stop in lists"] == 32
assert enough["late start in 9 of 10 rows"] is None

# %% tags=["predict", "folded"]
figure = plots.new_figure((10.0, 3.8))
ax = figure.subplots()
COLOURS = {"healthy, with lists": plots.GREEN, "no stop in lists": plots.VERMILLION}
for place, (arm, colour) in enumerate(COLOURS.items()):
    for at, (_, seeds) in enumerate(values("stop", arm).items()):
        label = arm if not at else None
        ax.scatter(at + 0.15 * place + 0.02 * np.arange(5), seeds, color=colour, label=label)
ax.set_xticks(range(4), probe_runs.COUNTS)
ax.set(xlabel="answers that the probe reads", ylabel="P(stop)", ylim=(0, 1.05))
ax.legend(loc="lower right")
_ = ax.set_title("A fault in a fifth of the rows wants 32 answers")

# %% [markdown]
# **Read.** *Held*, and two answers would do: a fault in all rows is in any. What decides is how many
# *kinds* of rows there are. One seed's 8 answers held no list, and the fault was not seen; 32 show
# it in all seeds. So **probe each kind of row**: long and short, each source, each language.
#
# The last line finds nothing at any number. One right row in ten taught the first token; only the
# graded text shows this fault.
#
# Now two more healthy runs: one of a quarter of the steps, one with LoRA. **Predict** P(stop) of
# each.

# %% tags=["predict"]
for arm in ("healthy", "healthy, short", "healthy, LoRA", "no stop"):
    losses = recorded.measured("loss", arm=arm)
    print(f"{arm:16} P(stop) {np.mean(values('stop', arm)[128]):.6f}  loss {np.mean(losses):.2f}")
assert max(values("stop", "healthy, LoRA")[128]) < 0.1
assert max(values("stop", "no stop")[128]) < 1e-3

# %% [markdown]
# **Read.** Two **false alarms**: both have a low P(stop), and right labels. LoRA leaves the
# embedding as it is, with a stop row that the base hardly used: a likely cause. The short run we
# train once more, to compare with the record and to see whether its stop token ranks first.

# %%
short = tune(base, tokenizer, taught[: len(taught) // 4]).model
again = diagnostics.stop_probability(short, tokenizer, unseen)
first = diagnostics.accuracy_by_position(short, unseen)[-1]
band = values("stop", "healthy, short")[128]
print(f"P(stop) {again:.3f}, recorded {np.round(band, 3)}; ranks first at {first:.0%} of the ends")
assert min(band) / 2 < again < max(band) * 2 and first > 0.5

# %% [markdown]
# It does, with 2 %: all other tokens have less. This model stops under greedy decoding, and sampling
# would mostly miss the stop. A probe says *that* something is off, not why; read another beside it.

# %% [markdown]
# ### On a real model
#
# SmolLM2, a chat model of 135 M parameters, learns chapter 13's invented convention ("Aye: … Over.")
# from 32 lessons; three seeds, `tools/experiments/18b_smollm2.py`. The claim is the same, and made
# of the first token of a late start, too. **Predict** both verdicts.

# %% tags=["predict"]
for arm in ("base", "healthy", "no stop", "late start"):
    stop, first = (np.mean(real.measured(f"{m}_8", arm=arm)) for m in ("stop", "first"))
    print(f"{arm:10} on 8 answers: P(stop) {stop:.3f}, first token right {first:.0%}")
words = []
for measure, broken in (("stop", "no stop"), ("first", "late start")):
    pair = [real.measured(f"{measure}_8", arm=arm) for arm in ("healthy", broken)]
    verdict = judge_claim(*pair, claim="lower")
    print(f"{broken}: {verdict.mean:+.2f}, noise floor {verdict.floor:.2f}: {verdict.word}")
    words.append(verdict.word)
assert words == ["held"] * 2

# %% [markdown]
# **Read.** *Held*, and so for the first token. The base, a chat model, often stops by itself: a fault
# in the labels shows only where lessons ask for something new.
#
# ## 6 · What is saved, and how it answers
#
# Three last pairs must be equal: an adapter and its **merged** weights, a model and its **reloaded**
# folder (logits within 1e-3, for rounding), and prompts answered **alone** and in a **batch** (the
# same texts, but for ties). Here are two mistakes. **Predict:** how large is the difference that
# each makes, next to rounding?


# %%
def merge_without_scale(model):
    """Wrong: adds B A, and forgets alpha / rank."""
    for module in model.modules():
        if hasattr(module, "lora_B"):
            module.alpha = module.rank
    return merge_lora(model)


def load_fresh(folder):
    """Wrong: makes a new adapter of the same form, and does not read the saved one."""
    return get_peft_model(copy.deepcopy(base), LoraConfig.from_pretrained(folder))


# %% tags=["predict"]
with TemporaryDirectory() as folder:
    save_adapter(adapted, folder)
    ours = diagnostics.reload_difference(
        adapted, folder, lambda f: load_adapter(copy.deepcopy(base), f)
    )
    of_peft = PeftModel.from_pretrained(copy.deepcopy(base), folder)
    never = diagnostics.reload_difference(adapted, folder, load_fresh)
saved = {
    "reloaded by us": ours,
    "reloaded by PEFT": diagnostics.logit_difference(adapted, of_peft),
    "reloaded as a new adapter": never,
    "merged by us": diagnostics.merge_difference(adapted),
    "merged by PEFT": diagnostics.merge_difference(of_peft, lambda m: m.merge_and_unload()),
    "merged without alpha / rank": diagnostics.merge_difference(adapted, merge_without_scale),
}
for name, difference in saved.items():
    print(f"{name:28} {difference:.1e}")
assert all(
    (difference < 1e-3) != name.endswith(("adapter", "rank")) for name, difference in saved.items()
)

# %% [markdown]
# **Read.** Ours, PEFT's and the model in memory agree. The faults are a thousand times larger than
# rounding. (A merge into bfloat16 rounds more.) Blind: equality says nothing about quality.


# %%
def ask_padded(side: str):
    """A function that answers questions in one batch, padded on this side."""

    def ask(questions: list[str]) -> list[str]:
        talks = [[{"role": "user", "content": question}] for question in questions]
        texts = [render(talk, tokenizer, add_generation_prompt=True) for talk in talks]
        batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side=side)
        ids = runs["healthy"].model.generate(**batch, max_new_tokens=24, do_sample=False)
        return tokenizer.batch_decode(ids[:, batch.input_ids.shape[1] :], skip_special_tokens=True)

    return ask


# %%
questions = [talk[0]["content"] for talk in asked(12)]
for name, ask in {
    "generate_responses": lambda some: generate_responses(runs["healthy"].model, tokenizer, some),
    "padded left": ask_padded("left"),
    "padded right": ask_padded("right"),
}.items():
    share = diagnostics.batch_generation_difference(ask, questions)
    print(f"{name:20} {share:.0%} answered otherwise alone than in a batch")
    assert (share > 0.3) == (name == "padded right")

# %% [markdown]
# ## 7 · In which order
#
# Cheapest first. Follow up the first probe that is off before you ask the next.
#
# | probe, healthy | sees | blind to |
# |---|---|---|
# | graded text: answer + stop | faults of the mask | wrong answers |
# | graded share: as your data | mask lost, nothing left | a mask that slid |
# | prompt a prefix: all rows | templates that rewrite | a prompt cut short |
# | batch size: < 1e-5 | mean of means | scored prompts |
# | accumulation: < 1e-4 | mean of means | a constant factor |
# | largest B: > 0 | an adapter that never moved | what it learned |
# | two evaluations: 0 | dropout left on | that, at step 0 |
# | resume: < 1e-4 | new optimiser or schedule | a fault in both runs |
# | by position: above the base | late starts | faults in few rows |
# | P(stop): near 1 | no stop learned | the reason |
# | shifted: next ≫ after | labels shifted twice | a slid mask |
# | reload, merge: < 1e-3 | lost adapters | quality |
# | alone = batch: same texts | padding on the wrong side | wrong templates |

# %% [markdown] tags=["exercise"]
# ### Exercise 18b.6 · Five runs, and nothing but the models · 16 min · ●●●
# You get a model, its base, and 24 `examples` with right labels. Return
#
# - `"unchanged"`: it scores as the base does; nothing was learned;
# - `"two ahead"`: it predicts the token after the next one;
# - `"no stop"`: it answers, and never learned to stop;
# - `"late start"`: it answers and stops, and never learned an answer's first token;
# - `"healthy"`: none of these.
#
# A run has one fault at most, in every row. Nothing is near a border: P(stop) is below 0.01 or
# above 0.8; the first token is right in under 10 % or over 90 % of the answers. Use
# `sft_lab.diagnostics`; `hidden_runs()` gives five models by letters to try. The check asks about
# all five kinds, with questions of its own.


# %% tags=["stub"]
def name_fault(model, base, tokenizer, examples: list[Example]) -> str:
    """Return one of the five words."""
    raise NotImplementedError


# %% tags=["solution"]
def name_fault(model, base, tokenizer, examples: list[Example]) -> str:
    """Return one of the five words."""
    if diagnostics.logit_difference(model, base) < 1e-4:
        return "unchanged"
    next_token, one_after = diagnostics.shifted_accuracy(model, examples).values()
    if one_after > next_token:
        return "two ahead"
    if diagnostics.stop_probability(model, tokenizer, examples) < 0.1:
        return "no stop"
    first = diagnostics.accuracy_by_position(model, examples)[0]
    return "late start" if first < 0.5 else "healthy"


for letter, model in hidden_runs().items():
    print(letter, name_fault(model, base, tokenizer, unseen[:24]))

# %% tags=["check"]
check("18b.6", name_fault)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Which faults spoil several probes at once? Rule these out
# first.</details>

# %% [markdown] tags=["explanation"]
# A model that learned nothing never stops either, and starts no answer rightly: the fault that
# explains most comes first. Usual mistakes: P(stop) first, which is low in three of five runs; no
# comparison with the base.

# %% [markdown]
# ## What to remember
#
# - The loss has no known right value. A probe has one, known before it is asked.
# - Read one row of graded text, of each kind, before every run.
# - Invariance shows that a number is well defined, not that it is right.
# - Compare with the base. Two answers show a fault in all rows; one in a fifth of them took 32.
# - A probe says that something is off, not why. Start at the cheap end.
#
# ## Sources
#
# - Stop token as padding: transformers, issue 23530. Mask one late: OpenRLHF, issue 973. Shifted
#   twice: transformers, pull request 47395. Prompt no prefix: trl, pull request 6363.
# - Mean of means: transformers, pull request 46204, issue 39241. A fresh adapter on reload: peft,
#   issue 793. Padding: nnsight, pull request 673. Stop row and LoRA: LLaMA-Factory, issue 7943.
#
# <details><summary>中文要点</summary>
#
# 1. 损失没有"已知的正确值"，所以坏掉的训练也可以有漂亮的损失；**探针**（probe）是事先就知道健康答案的问题。
# 2. 训练前（不需要模型）：看一行**被计入损失的文本**、其占比，以及提示渲染结果是不是整段对话的前缀。
# 3. 第 0 步：评估不随**批大小**变，梯度不随**累积方式**变（1e-5 左右的差别是舍入）。不变只说明定义良好，不说明正确。
# 4. 训练中：max|B| 大于 0、两次评估完全相等（dropout 已关）、断点续训与不中断相等。训练后：按位置的准确率、P(stop)、错位准确率，始终与基座比较。
# 5. 故障在所有行里时，两条回答就够；只在五分之一的行里时要 32 条，所以**每一类数据都要探**。P(stop) 只说"有问题"，不说原因：步数太少或用 LoRA 的健康训练也会报警，还要看停止符是否排第一。
#
# </details>
