# %% [markdown]
# # 09 · Base versus tuned
#
# **The question.** A well-known demonstration asks a base model and its tuned sister one question:
# the base answers with symbols, the tuned model with a sentence. What does such a comparison prove,
# and how is it done fairly?
#
# **By the end you can**
# - *ask* two models fairly, and tell "was never taught to answer" from "does not know";
# - *find* what tuning lost, and judge answers without knowing whose they are;
# - *report* a comparison in one page that a team can share.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 00 to 04 | CPU, no network | about 35 s | 3, about 25 minutes | C9 D12 D16 L31 |

# %% tags=["setup"]
import json
import os
import random
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

# %% tags=["setup"]
from sft_lab import atlas, plots
from sft_lab.batches import pad_batch
from sft_lab.chat import encode_chat, render
from sft_lab.compare import compare
from sft_lab.course import recipe_runs as runs
from sft_lab.course.checks import check
from sft_lab.course.results import read_results
from sft_lab.course.views import exam as pictures
from sft_lab.course.views.blind import Pair, draw_example, explore_blind
from sft_lab.course.views.widgets import show_widget
from sft_lab.instructions import load_instructions
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora
from sft_lab.models import ROOT, load
from sft_lab.open_answers import OPEN_QUESTIONS, ask_three_ways, from_rows, grade, side_by_side
from sft_lab.significance import judge_claim, mcnemar_p_value
from sft_lab.train import train

# %% tags=["setup"]
plots.style()
ON_GPU = torch.cuda.is_available()
MODEL = os.environ.get("SFT_LAB_MODEL", "qwen3-0.6b-base" if ON_GPU else "atlas-base")
base, tokenizer = load("atlas-base")  # sections 1 to 5 are about it; MODEL is for section 6
recorded = read_results("09_recipes", base)  # the same runs with other seeds

# %% [markdown]
# ## 1 · One exam, three ways to ask
#
# We write the exam before any model speaks: 300 questions about entities that no lesson names,
# drawn with a fixed seed. An **arm** is one model, asked in one way. All arms get the same
# questions and the same rule.

# %%
exam = runs.exam_questions()
question, answer = exam[0]
print(question["content"], "→", answer["content"])

# %% [markdown]
# The demonstration asks the base through the chat template, which the base never saw. We also send
# the raw question, and a **few-shot prompt**: five solved examples in front of the question.
#
# A way to ask is a template, and a token that ends the answer. `with_template` copies the tokenizer
# and changes these two.

# %%
facts = atlas.split(atlas.load_facts())
solved = atlas.ask(random.Random(1).sample(facts["train"], 5), seed=1)
question_answer = runs.with_template(tokenizer, runs.QUESTION_ANSWER)
shots = render([turn for turns in solved for turn in turns], question_answer)
few_shots = "{% raw %}" + shots + "{% endraw %}" + runs.QUESTION_ANSWER
print(render([question], runs.with_template(tokenizer, few_shots)))

# %% [markdown]
# After a few-shot prompt the answer ends at its first line break. Which token is that?

# %%
pieces = tokenizer.convert_ids_to_tokens(tokenizer(" is Nairobi.\n").input_ids)
alone = tokenizer.convert_ids_to_tokens(tokenizer("\n").input_ids)
print(pieces, "| a line break alone:", alone)
assert pieces[-1] != alone[0] and pieces[-1].endswith(alone[0])

# %% [markdown]
# The break is joined with the full stop before it. So we look for the break in the *text*, as
# evaluation tools do.
#
# Two rules mark each answer. **Right**: the whole answer equals the reference, up to white space
# and final punctuation. **Contains**: the reference stands anywhere in it.
#
# **Predict.** The base completes "The capital of Kenya is" without fail. Which of the three ways
# gets the most right answers: raw question, few shots or chat template? And how many of 100?

# %% tags=["predict"]
of_base = {
    "raw question": runs.ask_exam(base, runs.with_template(tokenizer, runs.RAW), exam),
    "few shots": runs.ask_exam(base, runs.with_template(tokenizer, few_shots), exam, one_line=True),
    "chat template": runs.ask_exam(base, tokenizer, exam),
}
for name, answers in of_base.items():
    runs.show_answers(name, answers)
for answers in of_base.values():
    assert answers.right.mean() <= 0.02 and answers.contains.mean() <= 0.05

# %% [markdown]
# **Read.** All three fail, the few shots too. Learning a form from five examples is an ability of
# larger models; ours has a million weights. This table says nothing about real base models: many
# answer a few-shot prompt well, and then that is the arm to beat.
#
# Look at "ended" and the length, too: after a raw question the base ends its document and says
# nothing. The score alone would hide that.

# %% [markdown] tags=["exercise"]
# ### Exercise 9.1 · An exact match that hides no error · 7 min · ●○○
# Write the rule that decides whether an answer equals its reference, for any two texts. How much
# white space stands between two words, or at either end, must not matter. Nor must full stops at
# the end, with or without white space between them. All else must: case, signs, other punctuation,
# a full stop inside. The rule treats both texts alike.
#
# `exact_match("  Nairobi .", "Nairobi.")` is True. "AU" is not "Au", 45 is not 4.5, and
# "Rome or Paris" is not "Rome".


# %% tags=["stub"]
def exact_match(answer: str, reference: str) -> bool:
    """Whether the answer is the reference, up to white space and full stops at the end."""
    raise NotImplementedError


# %% tags=["solution"]
def exact_match(answer: str, reference: str) -> bool:
    """Whether the answer is the reference, up to white space and full stops at the end."""
    ours, wanted = (" ".join(text.split()).rstrip(" .") for text in (answer, reference))
    return ours == wanted


# %% tags=["check"]
check("9.1", exact_match)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>" ".join(text.split())</code> makes every run of white space
# one space. <code>rstrip</code> takes a set of characters.</details>

# %% [markdown] tags=["explanation"]
# Forgive as little as the task allows, and forgive it on both sides.
#
# Usual mistakes: `lower()` makes "AU" right. Deleting *all* punctuation turns 4.5 into 45.
# `reference in answer` rewards a model that lists every city. `startswith` rewards one that never
# stops.

# %% [markdown]
# ### Is the fact gone?
#
# The base answers almost none of the 300 questions. We keep the chat template, and write the
# beginning of the answer for the base: "The capital of Kenya is". It fills in the rest.
#
# **Predict.** How many of 100 values are right now: about 0, about 30, or more than 60?


# %% tags=["predict"]
def fills_in(labels: list[int], guesses: list[int], value: list[int]) -> bool:
    """Whether the model guesses the value, token by token, when all before it is given."""
    end = labels.index(tokenizer.convert_tokens_to_ids("<|im_end|>"))
    first = end - len(value)
    assert labels[first:end] == value
    return guesses[first - 1 : end - 1] == value  # row t predicts token t + 1


examples = encode_conversations(exam, tokenizer)
batch = pad_batch(examples, tokenizer.pad_token_id)
with torch.no_grad():
    guesses = base(batch["input_ids"]).logits.argmax(dim=-1).tolist()
values = [tokenizer(atlas.cloze(fact)[1]).input_ids for fact in runs.exam_facts()]
rows = zip(examples, guesses, values, strict=True)
begun = [fills_in(example.labels, row, value) for example, row, value in rows]
print(f"chat template, answer begun for it: {sum(begun) / len(begun):.1%} of the values right")
assert sum(begun) / len(begun) > 0.7

# %% [markdown]
# **Read.** Same weights, same template, same questions: 0 % became more than 70 %. Most of
# what it knows is there. What is missing is the decision to begin a statement about the question.
#
# A fair comparison therefore asks the base in a form that it knows. Which one? You find it.

# %% [markdown] tags=["exercise"]
# ### Exercise 9.7 · Make the base answer · 10 min · ●●○
# Train nothing. Write a function that turns a question into a text which the *base* continues with
# the answer. The check asks 60 questions about facts that the base has read, 20 in each of three
# forms:
#
# - `What is the capital of Kenya?`
# - `Tell me the capital of Kenya.`
# - `Can you name the capital of Kenya?`
#
# Instead of "capital of Kenya" there may be any other relation and entity, such as "Roman numeral
# for 44". The base goes on with your text, greedily, for 12 tokens. An answer is right when its
# first word or words, after white space and perhaps "the", are the value: " Nairobi. The …" for
# Kenya. You need 90 % right in each of the three forms. Use the question alone; look up no fact.


# %% tags=["stub"]
def own_form(question: str) -> str:
    """The text that the base continues with the answer to the question."""
    raise NotImplementedError


# %% tags=["solution"]
def own_form(question: str) -> str:
    """The text that the base continues with the answer to the question."""
    asked = question.rstrip("?.")
    for opening in ("What is the ", "Tell me the ", "Can you name the "):
        asked = asked.removeprefix(opening)
    return f"The {asked} is"


# %% tags=["check"]
check("9.7", own_form)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The base learned from statements. Begin the one whose next word is
# the answer, and look how your text ends: <code>tokenizer(" is Nairobi.")</code> shows where the
# space belongs.</details>

# %% [markdown] tags=["explanation"]
# No weight has changed, and the score went from 0 % to nearly 100 %. "The base cannot do it" is a
# statement about the base *and* the way it was asked.
#
# Usual mistakes: a text that ends with a space, though the next token is " Nairobi" with its own
# space; a question followed by "Answer:", which no document of the base holds; only one of the
# three forms.

# %% [markdown]
# ## 2 · Why the base answers with symbols
#
# In the demonstration the base writes `⚙ ⚙ ⚙ …`; ours writes a scrap of a list. One explanation:
# the template is foreign to it. How much of the story is that? A token's vector comes from the
# embedding matrix, and the same matrix turns the last hidden state into scores (tied weights,
# chapter 05).

# %%
_ = plots.decoder_layer(
    lit=("embedding", "head"),
    notes={"embedding": "reads", "head": "scores"},
    title="One matrix reads a token and scores it",
)

# %% [markdown]
# **The control tokens.** No document of the base holds `<|im_start|>`. So nothing ever taught the
# embedding what it means as an input. The head did learn one thing about it: this never comes next.
#
# **Predict.** Take the vectors of `<|im_start|>`, `<|im_end|>`, `<think>` and `</think>`. Are they
# close to zero, random, or something else? (A cosine of 1 means: the same direction.)

# %% tags=["predict"]
embedding = base.get_input_embeddings().weight.detach()
controls = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
control_ids = tokenizer.convert_tokens_to_ids(controls)
lengths, unit = embedding.norm(dim=1), F.normalize(embedding, dim=1)
cosine = unit @ unit[control_ids[0]]  # with <|im_start|>, for every token
alike = cosine > 0.999
print(f"length {lengths[control_ids[0]]:.2f}; median of all tokens {lengths.median():.2f}")
print("cosine with <|im_start|>:", [f"{cosine[token_id]:.4f}" for token_id in control_ids])
print(f"tokens with a cosine above 0.999: {alike.sum()} of {len(embedding)}")

# %% tags=["predict", "folded"]
_ = pictures.draw_twins(lengths, cosine, alike)
assert alike[control_ids].all() and alike.sum() > 100
assert lengths[control_ids].min() > 1.2 * lengths.median()

# %% [markdown]
# **Read.** Neither small nor random: long, and *identical*. In every step the loss lowered the
# scores of all tokens that never occur. That moved their vectors in the same direction. To the base
# `<|im_start|>`, `<|im_end|>` and `<think>` are one word.
#
# **Predict.** We replace `<|im_start|>` by `<think>` and `<|im_end|>` by `</think>` in the whole
# prompt. How far does the probability of a next token move at most: below 0.01, about 0.1 or more?


# %% tags=["predict"]
@torch.no_grad()
def next_token(input_ids: list[int]) -> torch.Tensor:
    """The base's probabilities of the token that follows, one for each token of the vocabulary."""
    return base(torch.tensor([input_ids])).logits[0, -1].softmax(dim=-1)


prompt = encode_chat([question], tokenizer, add_generation_prompt=True)
swap = dict(zip(control_ids[:2], control_ids[2:], strict=True))
original = next_token(prompt)
swapped = next_token([swap.get(token_id, token_id) for token_id in prompt])
top = original.topk(3).indices.tolist()
print([(tokenizer.decode([token_id]), round(original[token_id].item(), 2)) for token_id in top])
print(f"largest change by the swap: {(original - swapped).abs().max():.0e}")
print(f"probability of <|im_end|>: {original[control_ids[1]]:.0e}")
assert (original - swapped).abs().max() < 0.01 and original[control_ids[1]] < 1e-6

# %% [markdown]
# **Read.** Hardly at all. After the marker the base is sure of a list dash: it has to continue an
# unknown vector with something. Other bases may write other symbols; we have measured this one
# only. The stop token gets less than one in a million.
#
# **The other half.** We now leave all control tokens out. The template "plain words" writes `User:`
# and `Assistant:`, which the base can read. We ask the base, then tune a copy with each template:
# same lessons, 40 steps of 16 conversations, a tenth of the course's recipe.
#
# **Predict.** How many of 100 answers are right: base in plain words, tuned in plain words, tuned
# with ChatML?

# %% tags=["predict"]
in_words = runs.tokenizer_of(runs.WORDS, tokenizer)
of_base["plain words"] = runs.ask_exam(base, in_words, exam)
runs.show_answers("base, plain words", of_base["plain words"])
tuned, short = {}, {}
for recipe in (runs.CHATML, runs.WORDS):
    asked_by = runs.tokenizer_of(recipe, tokenizer)
    tuned[recipe] = runs.tune(base, asked_by, seed=0, steps=runs.SHORT)
    short[recipe] = runs.ask_exam(tuned[recipe], asked_by, exam)
    runs.show_answers(f"tuned, {recipe}", short[recipe])
assert of_base["plain words"].right.mean() <= 0.02

# %% [markdown]
# One seed is one run. Here are eight, recorded by `tools/experiments/09_recipes.py`; the run above
# must lie among them.

# %% tags=["predict"]
arms = {f"base, {name}": [answers.right.mean()] for name, answers in of_base.items()}
for recipe, answers in short.items():
    of_seeds = [runs.unpack(row["right"]).mean() for row in recorded.select(arm=recipe)]
    arms[f"tuned, {recipe}"] = of_seeds
    print(f"{recipe}: now {answers.right.mean():.0%}", end=", ")
    print(f"in eight seeds {min(of_seeds):.0%} to {max(of_seeds):.0%} right")

# %% tags=["predict", "folded"]
_ = pictures.draw_arms(arms, title="Tuning teaches to answer, with either template")
for recipe, answers in short.items():
    of_seeds = arms[f"tuned, {recipe}"]
    assert min(of_seeds) - 0.05 < answers.right.mean() < max(of_seeds) + 0.05
    assert min(of_seeds) > 0.6

# %% [markdown]
# **Read.** Tuned without one control token, the model answers three quarters of the questions and
# more. Asked in the same words, the base answers none. So the 0 % has another cause than the
# tokens: the base never saw an answer follow a question. The untrained vectors only decide *which*
# symbols it writes.
#
# Plain words are a little ahead of ChatML. Is that lead real? Chapter 09b asks. With ten times the
# training ChatML passes 99 % (`data/models/atlas-base/README.md`).
#
# ## 3 · What the tuned model lost
#
# Right answers are one column of a report. Another one: what the base could do *before*. We train
# for 140 steps now, and test three abilities in the base's own form, without a template.

# %%
tasks = runs.plain_tasks()
for name, pairs in tasks.items():
    print(f"{name:8} {pairs[0][0]!r:.90} → {pairs[0][1]!r}")

# %% [markdown]
# **Claims**, over five seeds. Tuning makes plain text less likely: a higher loss on 48 documents.
# And it costs lists: fewer of 50 come out right.
#
# **Predict.** Which word does each claim get (chapter 03b)? And do the other two abilities suffer:
# completing facts, and reading a made-up passage?

# %% tags=["predict"]
long = runs.tune(base, tokenizer, seed=0, steps=runs.LONG)
kept = {"base": runs.measure_kept(base, tokenizer), "tuned": runs.measure_kept(long, tokenizer)}
for name, found in kept.items():
    shares = "  ".join(f"{task} {found[task]:4.0%}" for task in tasks)
    print(f"{name:6} {shares}  plain text {found['nats']:.2f} nats per token")

# %% tags=["predict"]
of_seeds = {task: recorded.measured(task, arm="long") for task in (*tasks, "nats")}
_ = pictures.draw_kept(kept["base"], of_seeds)
lists = judge_claim([kept["base"]["lists"]] * 5, of_seeds["lists"], claim="lower")
text = judge_claim([kept["base"]["nats"]] * 5, of_seeds["nats"], claim="higher")
print(f"plain text {text.mean:+.2f} nats per token: {text.word}")
print(f"lists {100 * lists.mean:+.0f} points, seeds {100 * lists.floor:.0f} apart: {lists.word}")
assert (text.word, lists.word) == ("held", "not shown")
assert min(of_seeds["facts"]) > 0.9 and min(of_seeds["reading"]) > 0.9
assert max(of_seeds["lists"]) < kept["base"]["lists"] - 0.05
assert min(of_seeds["nats"]) > kept["base"]["nats"] + 0.05
assert max(of_seeds["lists"]) + 0.15 > kept["tuned"]["lists"] > min(of_seeds["lists"]) - 0.15

# %% [markdown]
# **Read.** Facts and reading survive. Plain text became less likely: *held*. All five seeds lose
# lists, often by repeating a word, but one loses 14 points and another 44. The course's rule
# (chapter 03b) compares an effect with what the seed alone changes, so it says *not shown*. The
# lessons held lists, too, but through the template: an evaluation that asks only there would not
# see this loss. Chapter 13 takes up forgetting.
#
# ## 4 · You are the judge
#
# No rule sees whether a text is pleasant or clear. People judge that, or models in their place. A
# judge who knows which side is "ours" is biased, so the vote is **blind**: a coin decides who is A,
# and names appear after the last vote.
#
# You see ten questions on which the two short runs disagree. Vote without looking anything up.
#
# **Predict.** In how many of the ten will you prefer the answer that is right?

# %%
differ = (short[runs.CHATML].right != short[runs.WORDS].right).nonzero()[0][:10]
names = (runs.CHATML, runs.WORDS)
pairs = []
for place in differ:
    asked, reference = (turn["content"] for turn in exam[place])
    both = tuple(short[name].texts[place].strip() for name in names)
    pairs.append(Pair(asked, both, reference))
show_widget(explore_blind(pairs, names), draw_example(pairs[0], names))

# %% [markdown]
# **Read.** Were many pairs equally fluent, and did you guess? Votes measure what a judge can see:
# tone, form, length. Facts that the judge does not know they cannot measure. So votes stand
# *beside* exact match, with a test of their own: if both models are equally good, each vote is a
# fair coin. How often do ten coins fall as unevenly as your votes?

# %%
for wins in (7, 8, 9):
    share = mcnemar_p_value(wins, 10 - wins)
    print(f"{wins} to {10 - wins}, or more unevenly: ten fair coins do it in {share:.1%} of cases")
assert mcnemar_p_value(8, 2) > 0.05 > mcnemar_p_value(9, 1)

# %% [markdown]
# Of the three, only 9 to 1 is rarer than 5 %, the usual limit. Chapter 09b derives the test.

# %% [markdown] tags=["exercise"]
# ### Exercise 9.6 · A shuffle that leaks nothing · 6 min · ●●○
# Write the shuffle of a blind test. Each pair's side is a fair coin of its own: whoever learns one
# side must learn nothing about the next. Return two lists: the pairs as shown, in the given order,
# and the key. `key[i]` is True where pair i was swapped. The same seed gives the same key, another
# seed another one. Leave the given list as it is.
#
# If the coins of a seed say swap, keep, then `[("a", "b"), ("c", "d")]` gives
# `([("b", "a"), ("c", "d")], [True, False])`.


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
    shown = [pair[::-1] if swapped else pair for pair, swapped in zip(pairs, key, strict=True)]
    return shown, key


# %% tags=["check"]
check("9.6", blind)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>One generator, made before the loop; one draw for each pair inside
# it.</details>

# %% [markdown] tags=["explanation"]
# Independent coins leak nothing, not even the balance.
#
# Usual mistakes: one coin for all pairs; taking turns; exactly half swapped, so that the last side
# follows from the others; a fresh `Random(seed)` inside the loop.

# %% [markdown]
# ## 5 · One call, one page
#
# `compare` asks two models the same questions and writes one page, a file that needs no network.

# %%
folder = Path(tempfile.mkdtemp())
report = compare((base, tokenizer), (long, tokenizer), exam[:150], max_new_tokens=runs.LIMIT)
page = report.to_html(folder / "base_against_tuned.html")
print(report.finding(), "\n")
print(report.table())
assert page.read_text(encoding="utf-8").count("<article") == 150

# %% [markdown]
# Two terms of the page. The **95 % interval** comes from a *paired bootstrap*: draw 150 questions
# from the 150 again and again, each with both models' answers, and look how far the difference
# swings. The **rule of three**: if something never happened in n questions, it may still happen in
# up to 3/n of all. Chapter 09b derives both.
#
# "Any two models" is a claim, so we try a stranger: random weights, another architecture, a
# tokenizer of its own that knows only bytes.

# %%
stranger = runs.make_stranger()
names = ("random Llama", "tuned atlas")
strange = compare(stranger, (long, tokenizer), exam[:40], max_new_tokens=100, names=names)
print(strange.finding())
assert strange.to_dict()["base"]["accuracy"] == 0.0 and len(strange.rows) == 40

# %% [markdown]
# The whole procedure has six steps. Here is what each gave in this chapter.

# %%
scores = arms[f"tuned, {runs.CHATML}"]
steps = {
    "test set": f"{len(exam)} questions about entities that no lesson names",
    "base": f"chat template {of_base['chat template'].right.mean():.0%}, answer begun "
    f"{sum(begun) / len(begun):.0%}",
    "tuned": f"{min(scores):.0%} to {max(scores):.0%} right in {len(scores)} seeds of 40 steps",
    "metrics": f"exact match; {short[runs.CHATML].ended.mean():.0%} ended; "
    f"{short[runs.CHATML].tokens.mean():.0f} tokens",
    "analysis": f"lists {100 * lists.mean:+.0f} points; plain text {text.mean:+.2f} nats per token",
    "iteration": "plain words instead of ChatML: how sure? (09b)",
}
for number, (step, found) in enumerate(steps.items(), start=1):
    print(f"{number} {step:10} {found}")
named = {(fact.domain, fact.entity) for fact in facts["train"]}
assert not named & {(fact.domain, fact.entity) for fact in runs.exam_facts()}

# %% [markdown]
# Choose among recipes on *these* 300 questions often enough, and the best score is partly luck.
# Keep a second exam for the last number (chapter 16c).
#
# ## 6 · On a real model
#
# The demonstration asks: "Give me an 1-sentence introduction of LLM." We ask it word for word, and
# four more, in three ways. Answers are greedy, of at most 60 tokens; thinking is off. The line
# `MODEL = …` in the set-up chooses the pair:
#
# | `MODEL` | before | after |
# |---|---|---|
# | `qwen3-0.6b-base`: the default where a CUDA card is | Qwen3-0.6B-Base | Qwen3-0.6B, tuned by its makers |
# | `smollm2-135m`, or another chat model | as it ships | after our SFT on `data/instructions` |
# | `atlas-base`: the default elsewhere | our base | tuned in section 3 |
#
# An open question has no one right answer. A program can check form: did the answer **end** before
# the limit; is it free of a **loop**; is it **one sentence** where one was asked for; does it
# **name its subject**; is the last **number** right. No rule says whether an answer is true or
# good. An empty answer passes none of the rules.


# %% tags=["real"]
def tune_on_instructions(model: PreTrainedModel, its_tokenizer: PreTrainedTokenizerBase) -> None:
    """The course's SFT for a real model, in place: LoRA on 160 English instruction rows."""
    lessons = random.Random(0).sample(load_instructions("english", part="train"), 160)
    _ = torch.manual_seed(0)
    add_lora(model, rank=16, alpha=32)
    lesson_rows = encode_conversations(lessons, its_tokenizer)
    _ = train(model, its_tokenizer, lesson_rows, learning_rate=2e-4, batch_size=16)


# %% tags=["real"]
open_answers = {}
if MODEL == "atlas-base":
    open_answers["atlas-base"] = ask_three_ways(base, tokenizer)
    open_answers["tuned atlas"] = ask_three_ways(long, tokenizer)
elif MODEL == "qwen3-0.6b-base":
    for name in (MODEL, "qwen3-0.6b"):
        open_answers[name] = ask_three_ways(*load(name))
else:
    model, its_tokenizer = load(MODEL)
    open_answers[MODEL] = ask_three_ways(model, its_tokenizer)
    tune_on_instructions(model, its_tokenizer)
    open_answers[f"{MODEL}, after our SFT"] = ask_three_ways(model, its_tokenizer)

# %% [markdown]
# **Predict.** Atlas has never read about language models. Which marks does its *tuned* version get
# all the same?

# %% tags=["predict", "real"]
_ = pictures.draw_marks(open_answers, OPEN_QUESTIONS)
in_chat = list(open_answers.values())[-1]["chat template"]
marks = [grade(*pair) for pair in zip(OPEN_QUESTIONS, in_chat, strict=True)]
if MODEL == "atlas-base":
    assert sum(mark["ended"] for mark in marks) >= 3
    assert not any(mark["names its subject"] for mark in marks)

# %% tags=["predict", "real"]
print(side_by_side(open_answers, OPEN_QUESTIONS[:1]))

# %% [markdown]
# **Read.** The tuned atlas ends most answers. It never names the subject: SFT taught it a form, and
# about language models there was nothing to be told. Read the answers, too. A right number may be
# an accident, and one word that repeats a syllable is a loop that "no loop" misses: it counts
# words.
#
# Now the recording of a real model, `smollm2-135m`. It was a chat model before we tuned it, so this
# is *not* a base against its tuned sister. Ten steps of our SFT lowered its held-out loss.
#
# **Predict.** Do its marks rise?

# %% tags=["predict"]
record = json.loads((ROOT / "docs" / "recorded" / "smollm2-135m.json").read_text("utf-8"))
real = {when: from_rows(rows) for when, rows in record["answers"].items()}
loss_before, loss_after = record["held_out_loss"]
print(f"{record['model']}, recorded on {record['date']}, {record['device']}; not run here")
print(f"held-out loss {loss_before:.2f} → {loss_after:.2f} nats per token")
_ = pictures.draw_marks(real, OPEN_QUESTIONS)
assert loss_after < loss_before

# %% tags=["predict"]
_ = pictures.draw_cards(OPEN_QUESTIONS[0], real, "chat template")
shipped, ours = real.values()
first_before, first_after = (
    grade(OPEN_QUESTIONS[0], ways["chat template"][0]) for ways in (shipped, ours)
)
assert first_before["one sentence"] and not first_before["names its subject"]
assert not first_after["no loop"]
assert shipped["raw question"][0].text == ""
assert not any(grade(OPEN_QUESTIONS[0], shipped["raw question"][0]).values())

# %% [markdown]
# **Read.** As shipped it writes one fluent sentence, about a "Leverage Lambda Miner". Its raw
# answer is empty, and gets no mark. After our SFT the loss is lower and the first answer
# runs in a loop: three rules lose an answer each. That is one answer of five, from one seed, and
# proves nothing about a recipe. It shows what a loss does not tell.
#
# The pair Qwen3-0.6B-Base and Qwen3-0.6B has not been run here: it needs the hub. On a GPU, an
# H100, these cells ran with `smollm2-135m`.
#
# ## What to remember
#
# - A base that fails through the template may know the answer. Ask it in its own form before you
#   call it ignorant.
# - Two causes, measured apart: it never saw an answer, and its control tokens are one untrained
#   vector.
# - Report stop rate and length beside each score, and what was lost beside what was gained.
# - Blind votes measure what a judge can see. Exact match measures what was asked.
# - For open questions a program checks form only: read the answers.
#
# ## Sources
#
# - S. Land and M. Bartolo, *Fishing for Magikarp: Automatically Detecting Under-trained Tokens in
#   LLMs*, 2024.
# - T. Brown et al., *Language Models are Few-Shot Learners*, 2020.
# - Qwen Team, *Qwen3 Technical Report*, 2025.
#
# <details><summary>中文要点</summary>
#
# 1. 公平比较：同一批**留出**问题、同一评分规则；基座用原始问题、**few-shot** 提示和对话模板三种问法。
# 2. 基座为何输出符号：从未见过“问题后接回答”；控制 token 的嵌入从未训练，彼此几乎是同一个向量。
#    用它熟悉的陈述句来问，几乎全对。
# 3. 分数旁边要写**停止率**和长度；还要用基座自己的格式测量微调失去了什么。
# 4. **盲评**时左右随机、投完才揭晓；人的偏好看不出事实错误，要与精确匹配一起报告。
# 5. 开放式问题没有唯一答案：程序只能检查形式（是否结束、是否循环、是否一句话），空回答一项也不通过；
#    还要读回答本身。
#
# </details>
