# %% [markdown]
# # 09 · Base versus tuned
#
# **The question.** A famous demonstration asks a base model and its tuned sister one question: the
# base answers with symbols, the tuned model with a sentence. What does such a comparison prove, and
# how is it done fairly?
#
# **By the end you can**
# - *ask* two models fairly, and separate "was never taught to answer" from "never saw these
#   tokens";
# - *derive* the interval of a difference, and say which part of it one training run hides;
# - *report* what tuning gained, what it lost, and how sure both are, in one page that a team can
#   share.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 00 to 04 | CPU, no network | about 70 s | 6, about 45 minutes | C9 D12 D16 L31 |

# %% tags=["setup"]
import copy
import json
import os
import random
import tempfile
from itertools import islice
from math import comb
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

# %% tags=["setup"]
from sft_lab import atlas, plots
from sft_lab.batches import pad_batch
from sft_lab.chat import complete, encode_chat, generate_ids, render, stop_token_id
from sft_lab.compare import compare
from sft_lab.course.checks import check
from sft_lab.course.views.blind import Pair, draw_example, explore_blind
from sft_lab.course.views.widgets import show_widget
from sft_lab.instructions import load_instructions
from sft_lab.labels import IGNORE_INDEX, Example, encode_conversations
from sft_lab.lora import add_lora
from sft_lab.losses import token_nll
from sft_lab.metrics import is_right, normalise
from sft_lab.models import ROOT, load
from sft_lab.open_answers import (
    OPEN_QUESTIONS,
    RULES,
    ask_three_ways,
    from_rows,
    grade,
    side_by_side,
)
from sft_lab.significance import judge_claim, mcnemar_p_value, paired_bootstrap
from sft_lab.train import train

plots.style()
ON_GPU = torch.cuda.is_available()
MODEL = os.environ.get("SFT_LAB_MODEL", "qwen3-0.6b-base" if ON_GPU else "atlas-base")
base, tokenizer = load("atlas-base")  # sections 1 to 6 are about it; MODEL is for section 7
facts = atlas.split(atlas.load_facts())
SEEDS = (0, 1, 2)

# %% [markdown]
# ## 1 · Four ways to ask
#
# The exam first, before any model has spoken: 300 questions about entities that no training
# question names, drawn once, with a fixed seed. Every **arm** of the comparison gets the same
# questions and the same rule. Three arms are the base, asked in three ways; the fourth, the tuned
# model, joins in section 2.

# %%
exam = atlas.exam("held_out", 300, seed=9)
prompts, references = [turns[:-1] for turns in exam], [turns[-1]["content"] for turns in exam]
print(prompts[0][0]["content"], "→", references[0])

# %% [markdown]
# How is a base asked fairly? The demonstration uses the chat template, which the base never saw. We
# add the raw question, and a **few-shot** prompt: five solved examples before the question.
#
# All of these are one thing: a template, and what ends the answer. So one code path serves every
# arm. The raw answer ends with the document, the few-shot answer at its first line break.


# %%
def with_template(template: str, stop: str = "<|endoftext|>") -> PreTrainedTokenizerBase:
    """A copy of the tokenizer that asks through another template; the token `stop` ends answers."""
    other = copy.deepcopy(tokenizer)
    other.chat_template, other.eos_token = template, stop
    return other


TURNS = (
    "{% for m in messages %}{% if m.role == 'user' %}Question: {{ m.content }}\nAnswer:"
    "{% else %} {{ m.content }}\n{% endif %}{% endfor %}"
)
solved = atlas.ask(random.Random(1).sample(facts["train"], 5), seed=1)
shots = render([turn for turns in solved for turn in turns], with_template(TURNS))
arms = {
    "raw question": with_template("{% for m in messages %}{{ m.content }}{% endfor %}"),
    "five-shot prompt": with_template("{% raw %}" + shots + "{% endraw %}" + TURNS),
    "chat template": tokenizer,
}
print(render(prompts[0], arms["five-shot prompt"]))

# %% [markdown]
# A line break looks like a token that could end the few-shot answer. We look how the tokenizer cuts
# the end of a solved example.

# %%
pieces = tokenizer.convert_ids_to_tokens(tokenizer(" is Nairobi.\n").input_ids)
alone = tokenizer.convert_ids_to_tokens(tokenizer("\n").input_ids)
print(pieces, "| a line break alone:", alone)
assert pieces[-1] != alone[0] and pieces[-1].endswith(alone[0])

# %% [markdown]
# **Read.** The break is joined with the full stop before it. A lone line break never occurs in the
# prompt, so the model would never write one to stop. We look for the break in the *text* instead,
# as evaluation tools do.

# %% [markdown]
# Two rules, so that no verdict hangs on one. **Right**: the whole answer equals the reference, up
# to white space and final punctuation (`is_right`). **Contains**: the reference stands anywhere in
# it, however the model rambles on.
#
# **Predict.** The base completes "The capital of Kenya is" without fail. Which arm gets the most
# right answers from it?

# %%
LIMIT = 30  # new tokens


def cut_at_line_break(ids: list[int]) -> list[int]:
    """The tokens up to the first one that holds a line break, that one included."""
    breaks = (end for end, token_id in enumerate(ids, 1) if "\n" in tokenizer.decode([token_id]))
    return ids[: next(breaks, len(ids))]


def ask_all(
    model: PreTrainedModel,
    asked_by: PreTrainedTokenizerBase,
    conversations: list,
    *,
    one_line: bool = False,
) -> dict[str, np.ndarray]:
    """Greedy answers: ids, texts, and for each question right, contains, ended, tokens."""
    asked = [turns[:-1] for turns in conversations]
    rows = generate_ids(model, asked_by, asked, max_new_tokens=LIMIT)
    ends = {stop_token_id(asked_by), asked_by.pad_token_id}
    ended = [ids[-1] in ends for ids in rows]
    if one_line:
        rows = [cut_at_line_break(ids) for ids in rows]
        ended = ["\n" in tokenizer.decode(ids[-1:]) or ids[-1] in ends for ids in rows]
    texts = [asked_by.decode(ids, skip_special_tokens=True) for ids in rows]
    wanted = [turns[-1]["content"] for turns in conversations]
    return {
        "ids": rows,
        "texts": texts,
        "right": np.array(
            [is_right(answer, right) for answer, right in zip(texts, wanted, strict=True)]
        ),
        "contains": np.array([normalise(b) in a for a, b in zip(texts, wanted, strict=True)]),
        "ended": np.array(ended),
        "tokens": np.array([len(ids) for ids in rows]),
    }


def show_line(name: str, result: dict[str, np.ndarray]) -> None:
    """Score, and beside it the stop rate and the length."""
    shares = "  ".join(f"{key} {result[key].mean():6.1%}" for key in ("right", "contains", "ended"))
    print(f"{name:22} {shares}  {result['tokens'].mean():4.1f} tokens  {result['texts'][0]!r:.36}")


# %%
of_base = {
    name: ask_all(base, asked_by, exam, one_line=name == "five-shot prompt")
    for name, asked_by in arms.items()
}
for name, result in of_base.items():
    show_line(name, result)
assert all(
    result["right"].mean() <= 0.02 and result["contains"].mean() <= 0.05
    for result in of_base.values()
)

# %% [markdown]
# **Read.** All three fail, the few-shot prompt too. Learning a format from five examples is an
# ability of larger models; ours has a million parameters. So this table is *not* evidence about
# real base models: for those, the few-shot arm is the one to beat (section 7).
#
# Look at the length as well. After a raw question the base ends its document: in its library nobody
# ever answers. A score without stop rate and length would hide that it said nothing.
#
# Is the fact gone, then? We write the answer's beginning for it, *inside* the chat template, and
# let it fill in the value. **Predict** its score.

# %%
drawn = random.Random(9).sample(
    facts["held_out"], k=300
)  # the facts behind the exam: the same draw
examples = encode_conversations(exam, tokenizer)
with torch.no_grad():
    batch = pad_batch(examples, tokenizer.pad_token_id)
    guesses = base(batch["input_ids"]).logits.argmax(dim=-1)
begun = []
for row, (fact, example) in enumerate(zip(drawn, examples, strict=True)):
    value = tokenizer(atlas.cloze(fact)[1]).input_ids  # " Nairobi."
    end = max(t for t, label in enumerate(example.labels) if label == stop_token_id(tokenizer))
    assert example.input_ids[end - len(value) : end] == value
    begun.append(
        guesses[row, end - len(value) - 1 : end - 1].tolist() == value
    )  # row t predicts token t + 1
print(f"base, chat template, answer begun for it: {np.mean(begun):.1%} of the values are right")
assert np.mean(begun) > 0.7

# %% [markdown]
# **Read.** Same weights, same template, same question: 0 % against more than 70 %. Most of the
# knowledge is there, and the template does not block it. Missing is the decision to begin a
# statement about the question.

# %% [markdown] tags=["exercise"]
# ### Exercise 9.1 · An exact match that hides no error · 7 min · ●○○
# Write the rule that decides whether an answer equals its reference. How much white space stands
# between two words or at either end must not matter, nor must full stops at the end. All else must:
# "Au" is gold and "AU" is nothing, 4.5 is not 45, and an answer that goes on is wrong.


# %% tags=["stub"]
def exact_match(answer: str, reference: str) -> bool:
    """Whether the answer is the reference, up to white space and full stops at the end."""
    raise NotImplementedError


# %% tags=["solution"]
def exact_match(answer: str, reference: str) -> bool:
    """Whether the answer is the reference, up to white space and full stops at the end."""
    return " ".join(answer.split()).rstrip(" .") == " ".join(reference.split()).rstrip(" .")


# %% tags=["check"]
check("9.1", exact_match)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>" ".join(text.split())</code> makes every run of white space
# one space.
# <code>rstrip</code> takes a set of characters.</details>

# %% [markdown] tags=["explanation"]
# Forgive as little as the task allows, and forgive it on both sides.
#
# Usual mistakes: `lower()`, popular from question answering, makes "AU" right. Deleting *all*
# punctuation turns 4.5 into 45. `reference in answer` rewards a model that lists every city.
# `startswith` rewards one that never stops.

# %% [markdown]
# ## 2 · Why the base answers with symbols
#
# In the demonstration the base writes `⚙ ⚙ ⚙ …`; ours writes a scrap of a list. The text that this
# chapter grew from says: the template is foreign to it. That is half of the story, and we can
# measure both halves.
#
# **Half one: the control tokens.** No document holds `<|im_start|>`, so no input ever taught its
# embedding anything. But the output head shares the matrix (tied weights), and the head does learn
# one thing about such a token: *never*.
#
# **Predict.** Are these four vectors small, random, or something else?

# %%
E = base.get_input_embeddings().weight.detach()
controls = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
ids = tokenizer.convert_tokens_to_ids(controls)
unit = F.normalize(E, dim=1)
cosine = unit @ unit[ids[0]]
twins = cosine > 0.999
print(
    "norms ",
    [f"{E[i].norm():.3f}" for i in ids],
    f"median of all tokens {E.norm(dim=1).median():.3f}",
)
print(
    "cosines",
    [f"{cosine[i]:.4f}" for i in ids],
    f"median of all others {cosine[~twins].median():.2f}",
)
print(
    f"tokens with that same vector: {twins.sum()} of {len(E)}, for example",
    tokenizer.convert_ids_to_tokens(twins.nonzero().flatten()[:9].tolist()),
)
assert (
    twins[ids].all()
    and twins.sum() > 100
    and E[ids].norm(dim=1).min() > 1.2 * E.norm(dim=1).median()
)
library = atlas.documents(facts["train"] + facts["held_out"], seed=1)
read = {i for text in islice(library, 1500) for i in tokenizer(text).input_ids}
seen_twins = read & set(twins.nonzero().flatten().tolist())
print(
    f"1,500 documents hold {len(read):,} kinds of tokens, {len(seen_twins)} of these "
    f"{twins.sum()} among them"
)
assert not seen_twins

# %%
figure, ax = plt.subplots(figsize=(8.5, 4.0))
ax.scatter(
    E.norm(dim=1)[~twins],
    cosine[~twins],
    s=14,
    color=plots.MUTED,
    alpha=0.45,
    label="all other tokens",
)
ax.scatter(
    E.norm(dim=1)[twins],
    cosine[twins],
    s=60,
    color=plots.ANSWER,
    edgecolor=plots.INK,
    zorder=3,
    label=f"{twins.sum()} tokens that it never read",
)
ax.annotate(
    "<|im_start|>, <|im_end|>, <think>, </think>\n"
    f"and {twins.sum() - len(ids)} others, on one spot",
    (E[ids[0]].norm().item(), 1.0),
    (1.05, 1.1),
    va="center",
    arrowprops={"arrowstyle": "->", "color": plots.MUTED},
)
ax.set(xlabel="length of the embedding", ylabel="cosine with <|im_start|>", ylim=(-0.6, 1.25))
ax.legend(loc="lower right", ncols=2)
_ = ax.set_title("To the base, all control tokens are one and the same word")

# %% [markdown]
# **Read.** Neither small nor random: long, and *identical*. Every training step pushed all
# never-read tokens away from whatever came next, in the same direction. To this model
# `<|im_start|>`, `<|im_end|>` and `<think>` are one word.
#
# If so, we may swap them and nothing changes. That is a prediction we can check.

# %%
prompt = encode_chat(
    [{"role": "user", "content": "What is the capital of Kenya?"}],
    tokenizer,
    add_generation_prompt=True,
)
swap = dict(
    zip(ids[:2], ids[2:], strict=True)
)  # <|im_start|> becomes <think>, <|im_end|> becomes </think>


@torch.no_grad()
def next_token(model: PreTrainedModel, input_ids: list[int]) -> torch.Tensor:
    """The model's distribution over the token that follows: (V,) probabilities."""
    return model(torch.tensor([input_ids])).logits[0, -1].softmax(dim=-1)


for text in ("What is the capital of Kenya?\n", "User: What is the capital of Kenya?\nAssistant:"):
    top = next_token(base, tokenizer(text).input_ids).topk(3)
    print(
        f"{text!r:60}",
        [(tokenizer.decode([i]), round(p.item(), 2)) for p, i in zip(*top, strict=True)],
    )
original, swapped = next_token(base, prompt), next_token(base, [swap.get(i, i) for i in prompt])
print(
    "chat template:",
    [(tokenizer.decode([i]), round(original[i].item(), 2)) for i in original.topk(3).indices],
)
print(f"largest change by swapping all markers: {(original - swapped).abs().max():.0e}")
print(f"P(<|im_end|>) = {original[ids[1]]:.0e}")
assert (original - swapped).abs().max() < 0.01 and original[ids[1]] < 1e-6

# %% [markdown]
# **Read.** Swapping changes nothing. After the marker the base is *sure* of a list dash: an unknown
# vector lands wherever it lands, and greedy decoding then follows it. Real bases may show other
# symbols for the same reason; we have not measured one. The stop token has no chance at all.
#
# **Half two: it never saw an answer.** Write "User:" and "Assistant:" in plain, well-trained words,
# and the base goes on with " the". After the five shots, too, it began like that, and then stated
# something that nobody had asked for. So the untrained tokens choose *which* symbols appear. They
# are not why there is no answer.
#
# Do the untrained tokens cost anything, then? We tune the base twice, with ChatML and with the
# plain words. Recipe, data and questions are the same: 40 steps of 16 conversations, three seeds.
# That is a tenth of the course's recipe, so that errors are left to study. **Predict** who is
# ahead.

# %%
PLAIN = (
    "{% for m in messages %}{% if m.role == 'user' %}User: {{ m.content }}\n"
    "{% else %}Assistant:{% generation %} {{ m.content }}<|endoftext|>{% endgeneration %}{% "
    "endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
asking = {"ChatML": tokenizer, "plain words": with_template(PLAIN, "<|endoftext|>")}
plain = ask_all(base, asking["plain words"], exam)
show_line("base, plain words", plain)
assert plain["right"].mean() <= 0.02
tuned, answers = {}, {}
for seed in SEEDS:
    lessons = random.Random(seed).sample(atlas.training_conversations(seed=seed), 40 * 16)
    for name, asked_by in asking.items():
        model = copy.deepcopy(base)
        _ = train(
            model,
            asked_by,
            encode_conversations(lessons, asked_by),
            learning_rate=5e-4,
            batch_size=16,
            seed=seed,
            progress=False,
        )
        tuned[name, seed], answers[name, seed] = model, ask_all(model, asked_by, exam)
        show_line(f"{name}, seed {seed}", answers[name, seed])
right = {
    name: np.array([answers[name, seed]["right"] for seed in SEEDS]) for name in asking
}  # (seeds, questions)
assert all(right[name].mean() > 0.55 for name in asking)
assert min(answers[key]["ended"].mean() for key in answers) > 0.95

# %%
shares = {name: [result["right"].mean()] for name, result in of_base.items()}
shares = {f"base:\n{name}": values for name, values in shares.items()}
shares |= {f"tuned:\n{name}": right[name].mean(axis=1).tolist() for name in asking}
figure, ax = plt.subplots(figsize=(9.5, 4.2))
colours = [plots.BASE] * 3 + [plots.TUNED] * 2
_ = plots.bars_with_spread(
    shares,
    percent=True,
    colours=colours,
    ylabel="right answers of 300",
    ax=ax,
    title="Tuning teaches to answer, with either template",
)

# %% [markdown]
# **Read.** Tuned in plain words, without one control token, the model answers most questions. Asked
# in the same plain words, the base answers none. So the cause of the 0 % is that the base never saw
# an answer follow a question. With equal training, familiar markers score
# higher than ChatML on average. The untrained tokens may cost time; ten times the training brings
# ChatML above 95 % (chapter 00).
#
# One caution: the templates differ in length and stop token too, so "familiar markers" names the
# bundle, not one vector. And is the lead real?

# %% [markdown] tags=["exercise"]
# ### Exercise 9.2 · How each answer ended · 5 min · ●○○
# A score needs the stop rate beside it. Sort each answer by its generated ids: "stopped" by the
# stop token, "document" when another token of `other_ends` ended it, "cut" when it ran into the
# limit.


# %% tags=["stub"]
def how_it_ended(ids: list[int], stop: int, other_ends: set[int], max_new_tokens: int) -> str:
    """Return "stopped", "document" or "cut". ids: the generated tokens, one or more, the end token
    included."""
    raise NotImplementedError


# %% tags=["solution"]
def how_it_ended(ids: list[int], stop: int, other_ends: set[int], max_new_tokens: int) -> str:
    """Return "stopped", "document" or "cut". ids: the generated tokens, one or more, the end token
    included."""
    if ids[-1] == stop:
        return "stopped"
    return "document" if ids[-1] in other_ends else "cut"


# %% tags=["check"]
check("9.2", how_it_ended)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>An answer may stop by itself in exactly the last token that it was
# allowed.</details>

# %% [markdown] tags=["explanation"]
# The last token says it; the length does not. An answer of `max_new_tokens` tokens may end with its
# stop token, and is then complete.
#
# Usual mistakes: "as long as the limit, so it was cut"; counting `<|endoftext|>` as the stop token,
# which hides that the model never learned the one that your server waits for.

# %% [markdown]
# ## 3 · How sure is a difference?
#
# We compare two recipes on the same questions, so outcomes come in **pairs**. Take seed 0. Only
# questions where the two differ carry information.

# %%
before, after = right["ChatML"][0], right["plain words"][0]
n = len(before)
gained, lost = int((~before & after).sum()), int((before & ~after).sum())
print(f"both right {(before & after).sum()}, both wrong {(~before & ~after).sum()}")
print(f"gained {gained}: only plain words right; lost {lost}: only ChatML right")
difference = after.mean() - before.mean()
print(f"difference {100 * difference:+.1f} points = ({gained} − {lost}) / {n}")
assert abs(difference - (gained - lost) / n) < 1e-12

# %% [markdown]
# **The bootstrap.** Our questions are a sample; another sample would give another difference. We
# cannot draw one, so we draw *from our own questions, with replacement*, many times, and look how
# far the difference scatters. Each drawn question brings **both** its outcomes. What makes a
# question hard for both then cancels.
#
# **Predict.** If we resample the two models *separately*, will the interval be wider, equal or
# narrower?

# %%
rng = np.random.default_rng(0)
drawn_questions = rng.integers(0, n, size=(4000, n))  # each row: one resample of the questions
other_questions = rng.integers(0, n, size=(4000, n))
differences = after[drawn_questions].mean(axis=1) - before[drawn_questions].mean(axis=1)
unpaired = after[drawn_questions].mean(axis=1) - before[other_questions].mean(axis=1)
by_hand = np.percentile(differences, [2.5, 97.5])
print("paired  ", (100 * by_hand).round(1), "points")
print("unpaired", (100 * np.percentile(unpaired, [2.5, 97.5])).round(1), "points")

# %% [markdown]
# A check by pure thought: a difference of means has the variance of one question's difference, over
# n. One question's difference is +1, −1 or 0, so its variance is (gained + lost)/n − difference².
# The library function agrees too; it draws the four counts instead of a table of indices, and its
# tests compare it with scipy's.

# %%
paired_error = np.sqrt(((gained + lost) / n - difference**2) / n)
unpaired_error = np.sqrt((before.var() + after.var()) / n)
analytic = difference + 1.96 * paired_error * np.array([-1, 1])
library = paired_bootstrap(before, after, seed=0)[2]
print(
    "normal approximation",
    (100 * analytic).round(1),
    " sft_lab",
    (100 * np.array(library)).round(1),
)
np.testing.assert_allclose(by_hand, analytic, atol=0.012)
np.testing.assert_allclose(by_hand, library, atol=0.012)
np.testing.assert_allclose(differences.std(), paired_error, rtol=0.08)
np.testing.assert_allclose(unpaired.std(), unpaired_error, rtol=0.08)
correlations = [
    np.corrcoef(a, b)[0, 1] for a, b in zip(right["ChatML"], right["plain words"], strict=True)
]
print(
    f"unpaired is {unpaired_error / paired_error:.2f} times as wide; correlations",
    np.round(correlations, 2),
)
assert min(correlations) > 0 and unpaired_error > paired_error

# %% [markdown]
# **Read.** The unpaired interval is wider, as the positive correlation says: hard questions are
# hard for both. Pairing is free. It costs one line of code and asking both models the same thing.
#
# A second look needs no interval. If the recipes were equal, each *changed* question would be a
# fair coin: gained or lost. How often do coins lean as far? This is **McNemar's exact test**, a
# sign test.

# %%
for seed in SEEDS:
    a, b = right["ChatML"][seed], right["plain words"][seed]
    wins, losses = int((~a & b).sum()), int((a & ~b).sum())
    low, high = paired_bootstrap(a, b, seed=0)[2]
    print(
        f"seed {seed}: {100 * (b.mean() - a.mean()):+5.1f} points, interval {100 * low:+5.1f} to "
        f"{100 * high:+5.1f}, {wins} gained, {losses} lost, p = {mcnemar_p_value(wins, losses):.4f}"
    )

# %% [markdown]
# ### One seed is not enough
#
# Each interval above answers: *would these two sets of weights differ on other questions?* We asked
# something else: *is one recipe better?* Another seed is another pair of weights, and no resampling
# of questions can show that.
#
# So we resample twice: seeds first, then questions (a **hierarchical** bootstrap). The two recipes'
# runs with one seed share only their data order, so we draw the seeds of each recipe separately.


# %%
def resample_all(first: np.ndarray, second: np.ndarray, resamples: int = 4000) -> np.ndarray:
    """Differences second − first under resampled seeds and questions. first, second: (seeds,
    questions) outcomes."""
    seeds, questions = first.shape
    found = np.empty(resamples)
    for r in range(resamples):
        drawn = rng.integers(0, questions, questions)
        i, j = rng.integers(0, seeds, (2, seeds))
        found[r] = second[j][:, drawn].mean() - first[i][:, drawn].mean()
    return found


by_seed = right["plain words"].mean(axis=1) - right["ChatML"].mean(axis=1)
pooled = resample_all(right["ChatML"], right["plain words"])
low, high = np.percentile(pooled, [2.5, 97.5])
by_t = by_seed.mean() + 4.303 * by_seed.std(ddof=1) / np.sqrt(3) * np.array(
    [-1, 1]
)  # Student's t, 2 degrees
print(
    f"seeds {(100 * by_seed).round(1)}, mean {100 * by_seed.mean():+.1f} points, spread "
    f"{100 * np.ptp(by_seed):.1f}"
)
print(
    f"seeds and questions resampled {100 * low:+.1f} to {100 * high:+.1f}; t over three seeds",
    (100 * by_t).round(1),
)
verdict = judge_claim(*(right[name].mean(axis=1) for name in asking), claim="higher")
print(
    f"claim: plain words score higher. Verdict: {verdict.word} (mean effect "
    f"{100 * verdict.mean:+.1f} points; one arm's seeds alone differ by {100 * verdict.floor:.1f})"
)
assert by_seed.mean() > 0.005 and low < by_seed.mean() < high and np.ptp(by_seed) > 0.003
assert verdict.word != "did not hold"

# %%
wrong_shares = []
for count in (20, 40, 80, 160):
    wrong_sign = 0
    for _ in range(2000):
        some = rng.choice(n, count)  # an exam of questions like these: with replacement
        i, j = rng.integers(0, 3, 2)
        wrong_sign += right["plain words"][j][some].mean() <= right["ChatML"][i][some].mean()
    wrong_shares.append(wrong_sign / 2000)
    print(
        f"{count:4} questions, one seed each: plain words do not come out ahead in "
        f"{wrong_shares[-1]:.0%} of cases"
    )
assert wrong_shares[0] > wrong_shares[-1]

# %% [markdown]
# **Read.** Twenty questions and one seed, the size of many informal comparisons, often miss the
# recipe that leads on average: it loses, or it ties. One seed's gain may be more than twice
# another's. A report of a single run could claim a clear gain, or none.
#
# The course's rule for a verdict needs the same sign in every seed, and a mean effect above twice
# what seeds do to one recipe alone. The word it gives here stands above.
#
# Stay modest with three seeds: three values can only be resampled in ten ways, so the hierarchical
# interval is too narrow. The t interval says so in its own way: with two degrees of freedom, 1.96
# becomes 4.3.

# %% [markdown] tags=["exercise"]
# ### Exercise 9.3 · Questions that hang together · 12 min · ●●●
# Five questions about Kenya are not five independent questions: a model that confuses Kenya fails
# all of them. Return the 95 % percentile interval of `after − before`, in points (0 to 100), from
# resampled *entities*. A drawn entity brings all of its questions, and every question counts the
# same.


# %% tags=["stub"]
def cluster_interval(
    before: np.ndarray, after: np.ndarray, entity: np.ndarray, resamples: int, seed: int
) -> tuple[float, float]:
    """Return (low, high) in points. before, after: (n,) scores from 0 to 1; entity: (n,) numbers of
    the entities."""
    raise NotImplementedError


# %% tags=["solution"]
def cluster_interval(
    before: np.ndarray, after: np.ndarray, entity: np.ndarray, resamples: int, seed: int
) -> tuple[float, float]:
    """Return (low, high) in points. before, after: (n,) scores from 0 to 1; entity: (n,) numbers of
    the entities."""
    _, place = np.unique(entity, return_inverse=True)
    sums, counts = np.bincount(place, weights=after - before), np.bincount(place)
    drawn = np.random.default_rng(seed).integers(0, len(counts), size=(resamples, len(counts)))
    differences = 100 * sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


# %% tags=["check"]
check("9.3", cluster_interval)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>You need two numbers of each entity: the sum of <code>after -
# before</code> over its questions, and how many they are. Draw entities with replacement, as many
# as there are.</details>

# %% [markdown] tags=["explanation"]
# The unit that is drawn must be the unit that varies freely. Asking the same question four times
# brings no news, and here it does not narrow the interval.
#
# Usual mistakes: resampling questions, far too narrow when they hang together; the mean of the
# entities' means, which counts a question about a much-asked entity less; two draws for the two
# models; drawing without replacement.

# %% [markdown] tags=["exercise"]
# ### Exercise 9.4 · Could coins have done it? · 7 min · ●●○
# Write McNemar's exact test: the two-sided p-value of `gained` against `lost` changed answers under
# fair coins. It must work for thousands of answers.


# %% tags=["stub"]
def mcnemar(gained: int, lost: int) -> float:
    """Return the probability that fair coins split gained + lost answers at least as unevenly; 1.0
    for none."""
    raise NotImplementedError


# %% tags=["solution"]
def mcnemar(gained: int, lost: int) -> float:
    """Return the probability that fair coins split gained + lost answers at least as unevenly; 1.0
    for none."""
    changed = gained + lost
    tail = sum(comb(changed, k) for k in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**changed)


# %% tags=["check"]
check("9.4", mcnemar)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>math.comb(n, k)</code> sequences of n coins have k heads.
# Keep whole numbers until the last division: 0.5 ** 1200 is 0.</details>

# %% [markdown] tags=["explanation"]
# Both tails count, for before the run either recipe could have won. At an even split the two tails
# overlap, so the sum is capped at 1.
#
# Usual mistakes: one tail only; the probability of exactly this split; counting unchanged answers
# as coins, which makes any difference look small.

# %% [markdown]
# ## 4 · What the tuned model lost
#
# Right answers are one column. A fair report has more: abilities that nobody tuned, plain text, and
# how far the model's own confidence can be trusted. We ask both in the base's *own* form, so that
# the template plays no part.
#
# The runs of section 2 were short on purpose. What they lack is not lost, only not yet learned. So
# each ChatML model first trains on, for 100 steps.

# %%
longer = {}
for seed in SEEDS:
    lessons = random.Random(100 + seed).sample(atlas.training_conversations(seed=seed), 100 * 16)
    longer[seed] = copy.deepcopy(tuned["ChatML", seed])
    _ = train(
        longer[seed],
        tokenizer,
        encode_conversations(lessons, tokenizer),
        learning_rate=5e-4,
        batch_size=16,
        seed=seed,
        progress=False,
    )
    show_line(f"trained on, seed {seed}", ask_all(longer[seed], tokenizer, exam))

# %% [markdown]
# **Predict.** Which ability suffers: completing facts, reading a made-up passage, or copying words
# into a list?

# %%
entities = sorted({fact.entity for fact in facts["held_out"]})
rng_tasks = random.Random(5)


def read_task() -> tuple[str, str]:
    """Two statements about made-up places, the first of them begun again: only a reader can finish
    it."""
    told = [
        atlas.Fact(
            "countries", *(atlas.made_up_name(rng_tasks), "capital", atlas.made_up_name(rng_tasks))
        )
        for _ in range(2)
    ]
    begun, ending = atlas.cloze(told[0])
    return " ".join(fact.say("The {r} {e} is {v}.") for fact in told) + "\n" + begun, ending


def list_task() -> tuple[str, str]:
    """Words, then the same words as a list: a form of document that the base read often."""
    words = rng_tasks.sample(entities, 3)
    return f"Words: {', '.join(words)}.\n", "\n".join(f"- {word}" for word in words)


tasks = {
    "facts": [atlas.cloze(fact) for fact in rng_tasks.sample(facts["held_out"], 150)],
    "reading": [read_task() for _ in range(50)],
    "lists": [list_task() for _ in range(50)],
}
for name, pairs in tasks.items():
    print(f"{name:8} {pairs[0][0]!r:.90} → {pairs[0][1]!r}")

# %%
library = atlas.documents(facts["train"] + facts["held_out"], seed=99)
plain_text = [
    Example(ids, list(ids))
    for ids in (tokenizer(text).input_ids[:200] for text in islice(library, 48))
]


# %%
@torch.no_grad()
def measure(model: PreTrainedModel) -> dict[str, float]:
    """Shares of tasks whose completion begins right, and the loss on plain documents in nats per
    token."""
    found = {}
    for name, pairs in tasks.items():
        begun, endings = zip(*pairs, strict=True)
        written = complete(model, tokenizer, begun, max_new_tokens=24)
        found[name] = sum(a.startswith(b) for a, b in zip(written, endings, strict=True)) / len(
            pairs
        )
    batch = pad_batch(plain_text, tokenizer.pad_token_id)
    losses = token_nll(model(batch["input_ids"]).logits, batch["labels"])
    found["nats per token"] = (losses.sum() / (batch["labels"][:, 1:] != IGNORE_INDEX).sum()).item()
    return found


kept = {"base": measure(base)} | {f"tuned, seed {seed}": measure(longer[seed]) for seed in SEEDS}
for name, found in kept.items():
    print(
        f"{name:14}",
        "  ".join(
            f"{key} {x:.2f}" if "nats" in key else f"{key} {x:6.1%}" for key, x in found.items()
        ),
    )
print(
    "a list by the tuned model:",
    repr(complete(longer[0], tokenizer, [tasks["lists"][0][0]])[0]),
)
after_tuning = [kept[f"tuned, seed {seed}"] for seed in SEEDS]
assert min(found["facts"] for found in after_tuning) > 0.9 and kept["base"]["lists"] > 0.8
assert min(found["reading"] for found in after_tuning) > 0.8
assert max(found["lists"] for found in after_tuning) < kept["base"]["lists"] - 0.05
assert (
    min(found["nats per token"] for found in after_tuning) > kept["base"]["nats per token"] + 0.05
)

# %% [markdown]
# **Read.** Facts and reading survive, nearly whole. Plain text becomes less likely in every seed.
# And one ability suffers in every seed: in the form in which the base learned lists, the tuned
# model often repeats a word. The score counts only how a completion begins, so a word repeated
# after the last one is forgiven: the loss is understated. The tuning showed lists too, but through
# the template: an evaluation that asks only there would not notice. Chapter 13 takes up forgetting.
#
# ### Does it know what it knows?
#
# A model gives its own answer a probability: its **confidence**. It is **calibrated** if, of all
# answers with confidence 0.8, about 80 % are right. Sort answers into ten bins by confidence: the
# mean gap, weighed by the answers in each bin, is the **expected calibration error** (ECE).
#
# Half of the facts below are known, half are about entities that no text ever named. **Predict.**
# Tuned on answers that are all sure and all true, does the model become more or less honest about
# its doubt?

# %%
asked = rng_tasks.sample(facts["held_out"], 150) + rng_tasks.sample(facts["unknown"], 150)
is_known = np.arange(300) < 150


@torch.no_grad()
def confidence(model: PreTrainedModel, pairs: list[tuple[list[int], list[int]]]) -> np.ndarray:
    """Probability of each answer given its prompt, the product over its tokens. pairs: (prompt,
    answer) ids."""
    rows = [
        Example(prompt + answer, [IGNORE_INDEX] * len(prompt) + answer) for prompt, answer in pairs
    ]
    batch = pad_batch(rows, tokenizer.pad_token_id)
    return (
        token_nll(model(batch["input_ids"]).logits, batch["labels"]).sum(dim=1).neg().exp().numpy()
    )


def complete_facts(model: PreTrainedModel) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and correctness of the model's own completions, such as " Nairobi."."""
    begun, endings = zip(*[atlas.cloze(fact) for fact in asked], strict=True)
    written = [
        text.split(".")[0] + "." for text in complete(model, tokenizer, begun, max_new_tokens=14)
    ]
    pairs = [
        (tokenizer(a).input_ids, tokenizer(b).input_ids)
        for a, b in zip(begun, written, strict=True)
    ]
    return confidence(model, pairs), np.array(
        [a == b for a, b in zip(written, endings, strict=True)]
    )


def calibration_error(sure: np.ndarray, correct: np.ndarray) -> float:
    """ECE over ten bins of equal width."""
    bins = np.minimum((sure * 10).astype(int), 9)
    gaps = [
        (bins == k).mean() * abs(sure[bins == k].mean() - correct[bins == k].mean())
        for k in set(bins.tolist())
    ]
    return float(sum(gaps))


# %%
checked = {"base": complete_facts(base)} | {
    f"tuned, seed {s}": complete_facts(longer[s]) for s in SEEDS
}
errors = {name: calibration_error(*pair) for name, pair in checked.items()}
for name, (sure, correct) in checked.items():
    parts = [
        f"{part}: sure {sure[some].mean():.2f}, right {correct[some].mean():.2f}"
        for part, some in (("known", is_known), ("unknown", ~is_known))
    ]
    print(f"{name:14} ECE {errors[name]:.3f}   {parts[0]}   {parts[1]}")
error_tuned = np.mean([errors[f"tuned, seed {seed}"] for seed in SEEDS])
sure, correct = checked["base"]
assert sure[is_known].mean() < correct[is_known].mean() - 0.15  # the base doubts what it knows
assert error_tuned < errors["base"]
for sure, _ in checked.values():
    assert sure[is_known].mean() > sure[~is_known].mean() + 0.3
    assert sure[~is_known].mean() < 0.3

# %%
figure, ax = plt.subplots(figsize=(6.4, 5.0))
ax.plot([0, 1], [0, 1], color=plots.MUTED, linestyle=":", linewidth=1.4)
edges = np.linspace(0, 1, 6)
for name, (sure, correct) in checked.items():
    bins = np.minimum((sure * 5).astype(int), 4)
    points = [
        (sure[bins == k].mean(), correct[bins == k].mean())
        for k in range(5)
        if (bins == k).sum() > 4
    ]
    is_base = name == "base"
    ax.plot(
        *zip(*points, strict=True),
        marker="o" if is_base else "s",
        markerfacecolor="white" if is_base else None,
        color=plots.BASE if is_base else plots.TUNED,
        label=name if is_base or name.endswith("0") else None,
    )
ax.annotate("calibrated", (0.5, 0.41), rotation=38, color=plots.MUTED, fontsize=12)
handles, _ = ax.get_legend_handles_labels()
ax.legend(handles, ["base", "tuned, three seeds"], loc="lower right")
ax.set(
    xlim=(0, 1),
    ylim=(0, 1.02),
    xlabel="confidence in its own completion",
    ylabel="share that is right",
)
_ = ax.set_title("Above the line: right more often than sure;\ntuning comes closer to it")

# %%
unknown_exam = atlas.ask(asked[150:], seed=3)
for seed in SEEDS:
    model = longer[seed]
    shares = []
    for some, result in (
        (exam, ask_all(model, tokenizer, exam)),
        (unknown_exam, ask_all(model, tokenizer, unknown_exam)),
    ):
        pairs = [
            (encode_chat(turns[:-1], tokenizer, add_generation_prompt=True), ids)
            for turns, ids in zip(some, result["ids"], strict=True)
        ]
        shares.append(
            (confidence(model, pairs).mean(), result["right"].mean(), result["ended"].mean())
        )
    print(
        f"seed {seed}, asked:",
        "   ".join(
            f"{part}: sure {sure:.2f}, right {score:.2f}, ended {ended:.2f}"
            for part, (sure, score, ended) in zip(("known", "unknown"), shares, strict=True)
        ),
    )
    assert shares[0][0] > shares[1][0] + 0.15 and shares[1][1] < 0.3 and shares[1][2] > 0.9
print(
    unknown_exam[0][0]["content"],
    "→",
    result["texts"][0],
    f"(right: {unknown_exam[0][1]['content']})",
)

# %% [markdown]
# **Read.** The base is not sure enough: it completes nearly every known fact rightly and gives it
# far less than certainty. A likely cause is its text, whose notes say false things about real
# names. Tuning moves the known facts towards certainty, and the mean calibration error falls. So
# "SFT makes a model overconfident", a finding about larger models, did *not* show here.
#
# Asked through the template, the tuned model answers the unknown in the same tone as the known, and
# mostly wrongly. Its confidence is low there: the numbers show a doubt that the text does not.
# Chapter 15 uses them.

# %% [markdown] tags=["exercise"]
# ### Exercise 9.5 · A calibration error with full bins · 8 min · ●●○
# Bins of equal width may hold 200 answers or 2, and the gap of 2 is noise. Write the error with
# bins of equal *filling*: sort by confidence, from the least sure to the surest, and cut into `bins`
# runs whose sizes differ by at most one, the larger ones first.


# %% tags=["stub"]
def full_bin_error(confidences: list[float], correct: list[bool], bins: int) -> float:
    """Return Σ over runs of (share of answers in the run) · |mean confidence − share correct|.
    There are at least as many answers as bins."""
    raise NotImplementedError


# %% tags=["solution"]
def full_bin_error(confidences: list[float], correct: list[bool], bins: int) -> float:
    """Return Σ over runs of (share of answers in the run) · |mean confidence − share correct|.
    There are at least as many answers as bins."""
    order = np.argsort(confidences)
    gaps = (np.array(confidences) - np.array(correct))[order]
    return float(sum(abs(run.sum()) for run in np.array_split(gaps, bins)) / len(gaps))


# %% tags=["check"]
check("9.5", full_bin_error)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The share of a run times its gap is |Σ confidence − Σ correct| of
# that run, over n.
# <code>np.array_split</code> cuts as wanted.</details>

# %% [markdown] tags=["explanation"]
# Inside a run the signed gaps may cancel; between runs they may not.
#
# Usual mistakes: forgetting to sort, or sorting the confidences without their outcomes; the mean of
# |confidence − correct| per answer, which a perfectly calibrated coin fails; the runs' gaps without
# weights.

# %% [markdown]
# ## 5 · You are the judge
#
# Text quality is judged by people, or by models in their place. A judge who knows which side is
# "ours" is biased, so the vote is **blind**: sides are shuffled for each pair, names appear after
# the last vote.
#
# These are questions on which the two recipes disagree. Vote without looking anything up.
# **Predict:** how often will you prefer the answer that is right?

# %%
differ = [i for i in range(n) if before[i] != after[i]][:10]
names = ("ChatML", "plain words")
pairs = [
    Pair(
        prompts[i][0]["content"],
        tuple(answers[name, 0]["texts"][i].strip() for name in names),
        references[i],
    )
    for i in differ
]
show_widget(explore_blind(pairs, names), draw_example(pairs[0], names))

# %% [markdown]
# **Read.** Were many pairs equally fluent, and did you guess? Preference measures what a human can
# see: tone, form, length. It does not measure facts that the judge does not know. Report it
# *beside* exact match, with its own sign test: ten votes must split 9 to 1 before p falls below
# 0.05.

# %%
for wins in (7, 8, 9):
    print(f"{wins} to {10 - wins}: p = {mcnemar_p_value(wins, 10 - wins):.3f}")
assert mcnemar_p_value(8, 2) > 0.05 > mcnemar_p_value(9, 1)

# %% [markdown] tags=["exercise"]
# ### Exercise 9.6 · A shuffle that leaks nothing · 6 min · ●●○
# Write the shuffle of a blind test. Each pair's side is a coin of its own: whoever learns one side
# must learn nothing about the next. `key[i]` says whether pair i was swapped. Leave the given list
# as it is.


# %% tags=["stub"]
def blind(pairs: list[tuple[str, str]], seed: int) -> tuple[list[tuple[str, str]], list[bool]]:
    """Return the pairs as shown, (A, B), in the given order, and the key: True where a pair was
    swapped."""
    raise NotImplementedError


# %% tags=["solution"]
def blind(pairs: list[tuple[str, str]], seed: int) -> tuple[list[tuple[str, str]], list[bool]]:
    """Return the pairs as shown, (A, B), in the given order, and the key: True where a pair was
    swapped."""
    coin = random.Random(seed)
    key = [coin.random() < 0.5 for _ in pairs]
    return [(b, a) if swapped else (a, b) for (a, b), swapped in zip(pairs, key, strict=True)], key


# %% tags=["check"]
check("9.6", blind)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>One generator, made before the loop; one draw for each pair inside
# it.</details>

# %% [markdown] tags=["explanation"]
# Independent coins leak nothing, not even the balance.
#
# Usual mistakes: one coin for all pairs; taking turns, which a judge learns after two pairs;
# exactly half swapped, so that the last side follows from the others; a seed from the text's
# length, or a fresh `Random(seed)` inside the loop.

# %% [markdown]
# ## 6 · Any two models, one call, one page
#
# `compare` does the numbers of sections 1 and 3: right answers, paired interval, stop rate and
# length, every answer side by side. The page needs no network and no script, so a team can share it
# as a file.

# %%
folder = Path(tempfile.mkdtemp())
report = compare(
    (base, tokenizer), (tuned["ChatML", 0], tokenizer), exam[:150], max_new_tokens=LIMIT
)
page = report.to_html(folder / "base_against_tuned.html")
print(report.finding(), "\n")
print(report.table())
print(
    "\n"
    f"{page.name} holds every one of the {page.read_text(encoding='utf-8').count('<article')} "
    "questions"
)
assert (
    abs(report.to_dict()["tuned"]["accuracy"] - before[:150].mean()) < 1e-9
)  # the same rule as section 1

# %% [markdown]
# "Stopped by itself" counts the stop token alone. The base never writes it, so it reads 0 % here;
# in section 1 an answer that ended its document counted as ended too (exercise 9.2).
#
# "Any two" is a claim, so we try: two recipes with different templates, and then a model of another
# family, with random weights and a tokenizer of its own that knows only bytes.

# %%
recipes = compare(
    *((tuned[name, 0], asking[name]) for name in names),
    exam[:150],
    max_new_tokens=LIMIT,
    names=names,
)
print(recipes.table(), "\n")
assert (
    abs(recipes.to_dict()["difference"]["accuracy"] - (after[:150].mean() - before[:150].mean()))
    < 1e-9
)

alphabet = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
backend.pre_tokenizer, backend.decoder = (
    pre_tokenizers.ByteLevel(add_prefix_space=False),
    decoders.ByteLevel(),
)
bytes_only = PreTrainedTokenizerFast(tokenizer_object=backend)
bytes_only.add_special_tokens({"eos_token": "</s>", "pad_token": "<pad>"})
bytes_only.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
_ = torch.manual_seed(0)
stranger = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(bytes_only),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
    )
)
strange = compare(
    (stranger, bytes_only),
    (tuned["ChatML", 0], tokenizer),
    exam[:40],
    max_new_tokens=100,  # to the stranger a byte is a token, and references are longer than LIMIT
    names=("random Llama", "tuned atlas"),
)
print(strange.finding())
assert strange.to_dict()["base"]["accuracy"] == 0.0 and len(strange.rows) == 40

# %% [markdown]
# ## 7 · The demonstration itself
#
# Its question is "Give me an 1-sentence introduction of LLM." We ask it word for word, with four of
# its kind, in three ways: the raw question, a few shots, the chat template. Every answer is greedy
# and has at most 60 new tokens; thinking is off. Few-shot answers also end at their first line
# break. So compare two models asked in one way, not two ways with each other. The line `MODEL = …`
# at the top of this chapter chooses the pair:
#
# | `MODEL` | before | after |
# |---|---|---|
# | `qwen3-0.6b-base`: the default where a CUDA card is | Qwen3-0.6B-Base | Qwen3-0.6B, tuned by its makers |
# | `smollm2-135m`, or another chat model | as it ships | after our SFT on `data/instructions` |
# | `atlas-base`: the default elsewhere | our base | tuned in sections 2 and 4 |
#
# An open question has no one right answer, so exact match is of no use. A program can check little,
# and we check only that: did the answer **end** before the limit; is it free of a **loop**; is it
# **one sentence** where one was asked for; does it **name its subject**; is the last **number**
# right. Where no rule about content is honest, the answer reads "content: ungraded". The rules
# about the text were tried on some twenty answers labelled by hand (`tests/test_open_answers.py`).
#
# No rule judges whether an answer is true or good. An empty answer has ended, and has no loop. A
# false sentence may name its subject, and its last number may be the wanted one by accident.
#
# **Predict.** Atlas has never read about language models. Which marks does its *tuned* version get
# all the same?


# %% tags=["real"]
def tune_on_instructions(model: PreTrainedModel, its_tokenizer: PreTrainedTokenizerBase) -> None:
    """The course's SFT for a real model, in place: LoRA on 160 English instruction rows."""
    lessons = random.Random(0).sample(load_instructions("english", part="train"), 160)
    _ = torch.manual_seed(0)
    add_lora(model, rank=16, alpha=32)
    examples = encode_conversations(lessons, its_tokenizer)
    _ = train(model, its_tokenizer, examples, learning_rate=2e-4, batch_size=16)


open_answers = {}
if MODEL == "atlas-base":
    open_answers["atlas-base"] = ask_three_ways(base, tokenizer)
    open_answers["tuned atlas"] = ask_three_ways(longer[0], tokenizer)
elif MODEL == "qwen3-0.6b-base":
    for name in (MODEL, "qwen3-0.6b"):
        open_answers[name] = ask_three_ways(*load(name))
else:
    model, its_tokenizer = load(MODEL)
    open_answers[MODEL] = ask_three_ways(model, its_tokenizer)
    tune_on_instructions(model, its_tokenizer)
    open_answers[f"{MODEL}, after our SFT"] = ask_three_ways(model, its_tokenizer)
print(side_by_side(open_answers, OPEN_QUESTIONS[:2]))

# %% [markdown]
# Two of the five questions are shown above. The table counts the marks of all five.


# %% tags=["real"]
def count_marks(answers: dict) -> dict[str, str]:
    """For each way of asking: rule by rule, how many of the answers it applies to pass."""
    counted = {}
    for way, given in answers.items():
        marks = [grade(*pair) for pair in zip(OPEN_QUESTIONS, given, strict=True)]
        counts = []
        for rule in RULES:
            applies = [mark[rule] for mark in marks if mark[rule] is not None]
            counts.append(f"{rule} {sum(applies)}/{len(applies)}")
        counted[way] = "  ".join(counts)
    return counted


for name, answers_of in open_answers.items():
    for way, counts in count_marks(answers_of).items():
        print(f"{name:12} {way:14} {counts}")
if MODEL == "atlas-base":
    of_tuned = open_answers["tuned atlas"]["chat template"]
    marks = [grade(*pair) for pair in zip(OPEN_QUESTIONS, of_tuned, strict=True)]
    assert all(mark["ended"] for mark in marks)
    assert any(mark["one sentence"] for mark in marks)
    assert not any(mark["names its subject"] for mark in marks)

# %%
record = json.loads((ROOT / "docs" / "recorded" / "smollm2-135m.json").read_text("utf-8"))
recorded = {
    f"{record['model']} {when}": from_rows(rows) for when, rows in record["answers"].items()
}
print(f"RECORDED on {record['date']}, {record['device']}, {record['minutes']} minutes")
print(f"by `{record['command']}`; not run here")
print(side_by_side(recorded, OPEN_QUESTIONS[:2]))
for name, answers_of in recorded.items():
    for way, counts in count_marks(answers_of).items():
        print(f"{name:28} {way:14} {counts}")
loss_before, loss_after = record["held_out_loss"]
print(f"held-out loss {loss_before:.2f} → {loss_after:.2f} nats a token")
as_shipped, after_sft = (
    grade(OPEN_QUESTIONS[0], ways["chat template"][0]) for ways in recorded.values()
)
assert as_shipped["one sentence"] and not as_shipped["names its subject"]
assert loss_after < loss_before and not after_sft["no loop"]
shipped, ours = recorded.values()
assert shipped["raw question"][0].text == ""  # and still "ended" and "no loop"
few, through = (grade(OPEN_QUESTIONS[1], shipped[way][1]) for way in ("few shots", "chat template"))
assert few["right number"] and not through["right number"]
passed = [
    [
        sum(bool(grade(*pair)[rule]) for pair in zip(OPEN_QUESTIONS, given, strict=True))
        for rule in RULES
    ]
    for given in (shipped["chat template"], ours["chat template"])
]
assert [late - early for early, late in zip(*passed, strict=True)] == [-1, -1, -1, 0, 0]

# %% [markdown]
# **Read.** First atlas, the pair of a CPU, through the chat template. The tuned atlas ends every
# answer, but most of the base's scraps end too: that mark tells little. The form tells more: in
# this run only the tuned model gets "one sentence". It never names its subject. SFT taught it a
# form, and nothing about language models was there to be told. A right number beside a false
# sentence, such as "The sum of 1 and 1 is 1.", is an accident of the rule.
#
# The recorded model was a chat model before we tuned it, so this is *not* a base against its tuned
# sister. As shipped it answers the first question, through the template, in one fluent sentence:
# about a "Leverage Lambda Miner", not about an LLM. Its raw answer is empty, and still gets two
# marks. The way of asking matters as well: 1 + 1 − 1 is 2 through the template, 1 after few shots.
#
# Ten steps of our SFT lower its held-out loss. The marks through the template do not rise: three
# rules lose one answer each, for the first answer now runs in a loop. That is one answer of five,
# from one seed and one short run. It proves nothing about a recipe. It is an example of what a loss
# does not tell: a lower loss beside a worse answer.
#
# The real pair, Qwen3-0.6B-Base and Qwen3-0.6B, has not been run here: we had no hub. The cells above
# ran smollm2-135m on an H100; Colab and its T4 are untested. Before you run the pair, predict
# three things: how the few-shot base scores, whether it stops, and whether it names the subject.
#
# ## 8 · The procedure, as a checklist that ran
#
# The text that this chapter grew from names six steps: build a test set, measure the base, measure
# the tuned model, choose metrics, analyse, iterate. Here they are with what each produced in *this*
# run.

# %%
lost_lists = kept["base"]["lists"] - np.mean([found["lists"] for found in after_tuning])
scores = right["ChatML"].mean(axis=1)
checklist = {
    "test set": f"{len(exam)} questions, seed 9, entities that no lesson asks about",
    "base line": f"best arm {max(r['right'].mean() for r in of_base.values()):.0%}; answer begun "
    f"{np.mean(begun):.0%}",
    "tuned": f"{scores.min():.0%} to {scores.max():.0%} right over {len(SEEDS)} seeds",
    "metrics": f"exact match; ended {answers['ChatML', 0]['ended'].mean():.0%}; "
    f"{answers['ChatML', 0]['tokens'].mean():.1f} tokens; ECE {error_tuned:.2f}",
    "analysis": f"lists in the old form −{100 * lost_lists:.0f} points; unknown entities answered, "
    "not refused",
    "iteration": f"familiar markers {100 * by_seed.mean():+.0f} points ({100 * low:+.0f} to "
    f"{100 * high:+.0f})",
}
lessons_about = {(fact.domain, fact.entity) for fact in facts["train"]}
assert not lessons_about & {(fact.domain, fact.entity) for fact in drawn}
for number, (step, value) in enumerate(checklist.items(), start=1):
    print(f"[x] {number} {step:10} {value}")

# %% [markdown]
# Read the lines with care. "Tuned" and "metrics" are of the short runs of section 2; the
# calibration error and the lists are of the longer runs of section 4. The interval of the last line
# is the one that section 3 called too narrow: its verdict stands there.
#
# "Iteration" is a warning too. Choose between recipes on *these* 300 questions often enough, and
# the best score is partly luck. Keep a second exam for the last number (chapter 16).
#
# ## What to remember
#
# - A base that fails through the template may still know most of it. Ask it in its own form before
#   you call it ignorant.
# - Two causes, measured apart: it never saw an answer, and its control tokens are one untrained
#   vector.
# - Pair the questions; report stop rate and length beside each score; add seeds, for one run cannot
#   show which recipe is better.
# - Tuning loses things that the template never asks about. Measure the old forms, and calibration.
# - Blind votes measure what a judge can see. Exact match measures what was asked. For open
#   questions count only what a program can check, and read the answers.
#
# ## Sources
#
# - S. Land and M. Bartolo, *Fishing for Magikarp: Automatically Detecting Under-trained Tokens in
#   LLMs*, 2024.
# - T. Brown et al., *Language Models are Few-Shot Learners*, 2020.
# - B. Efron and R. Tibshirani, *An Introduction to the Bootstrap*, 1993.
# - Q. McNemar, *Note on the Sampling Error of the Difference Between Correlated Proportions*,
#   Psychometrika, 1947.
# - C. Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017. arXiv:2508.00264, 2025:
#   calibration of language models after SFT.
# - Qwen Team, *Qwen3 Technical Report*, 2025.
#
# <details><summary>中文要点</summary>
#
# 1. 公平比较：同一批**留出**问题、同一评分规则；基座用原始问题、**few-shot**
#    提示和对话模板三种问法。
# 2. 基座为何输出符号：从未见过“问题后接回答”；控制 token 的嵌入从未训练，彼此几乎是同一个向量。
#    替它写好回答的开头，大部分知识就能说出来。
# 3. **配对 bootstrap**：重采样问题，两个模型的结果一起抽取；McNemar 检验只看结果改变的问题。
#    只跑一个**随机种子**不能说明哪个方案更好。
# 4. 分数旁边要写**停止率**和长度；还要测量微调失去了什么：旧格式下的能力、纯文本损失、
#    **校准误差（ECE）**。开放式问题没有唯一答案：程序只能检查形式（是否结束、是否循环、是否一句话），
#    空回答也可能通过；只在同一种问法内比较，并且要读回答本身。
# 5. **盲评**时左右随机、投完才揭晓；人的偏好看不出事实错误，要与精确匹配一起报告。
#
# </details>
