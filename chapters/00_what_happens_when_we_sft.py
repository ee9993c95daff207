# %% [markdown]
# # 00 · What happens when we SFT
#
# **The question.** A model that has read millions of words cannot answer a question. A few seconds
# of supervised fine-tuning (SFT) later it answers. What changed, and what did not?
#
# **By the end you can**
# - *name* the five steps of SFT, and say what each one does to an example;
# - *tell* pretraining from SFT by data, objective and cost;
# - *teach* a model a form of answer, and check what it learned.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | a little Python, no mathematics | CPU, no network | about 20 s | 3, about 20 minutes | A1 A10 B1 D1 D2 D19 |

# %% tags=["setup"]
import copy
import json
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sft_lab import atlas, plots
from sft_lab.chat import complete, generate_responses, render
from sft_lab.course.checks import check

# %% tags=["setup"]
from sft_lab.course.moment_runs import ask, looking, share_known
from sft_lab.course.views.moment import draw_cards, draw_film, explore_moments
from sft_lab.course.views.story import draw_areas, draw_exam, draw_next
from sft_lab.course.views.widgets import show_widget
from sft_lab.labels import IGNORE_INDEX, encode_conversation, encode_conversations
from sft_lab.losses import response_loss
from sft_lab.models import ATLAS_FOLDER, load
from sft_lab.train import train

plots.style()
base, tokenizer = load("atlas-base")

# %% [markdown]
# ## 1 · Before and after
#
# A *language model* reads text and says what comes next. It reads and writes *tokens*: pieces of
# text, often a word or a part of one. For every token that it knows, it gives the probability that
# this token comes next. To write, it takes the likeliest token, appends it, and goes on.
#
# `atlas-base` ships with this course. A million numbers, its *weights*, decide what it says; large
# models have billions. It has read plain text: facts about countries, elements and animals, notes,
# lists, sums. No text was a chat, and no question in it was answered.
#
# Now SFT: we train a copy of it on 2,000 pairs of a question and the answer that we want. It reads
# eight at a time. Our three test questions are not among them, nor is any other question about
# Kenya.


# %%
def as_conversation(question, answer):
    """A question and its answer, in the form in which chat models take them."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


# %%
opening = [
    ("What is the capital of Kenya?", "The capital of Kenya is Nairobi."),
    ("Tell me the chemical symbol of gold.", "The chemical symbol of gold is Au."),
    ("What is the opposite of hot?", "The opposite of hot is cold."),
]
questions = [question for question, _ in opening]
tests = [as_conversation(question, answer) for question, answer in opening]
conversations = atlas.training_conversations(seed=0)[:2000]
answers_taught = [turns[-1]["content"] for turns in conversations]
assert not any(answer in answers_taught for _, answer in opening)
assert "Kenya" not in str(conversations)

# %%
examples = encode_conversations(conversations, tokenizer)
tuned = copy.deepcopy(base)
with looking(tuned, tokenizer, tests, steps=[10, 20, 50, 100, 250]) as moments:
    history = train(tuned, tokenizer, examples, learning_rate=5e-4, batch_size=8, seed=0)

# %% [markdown]
# **Predict.** How many of the three questions does the base answer? How many does the tuned model
# answer?

# %% tags=["predict"]
figure = draw_cards(questions, moments[0], moments[-1])
assert not any(moments[0].right) and all(moments[-1].right)

# %% [markdown]
# **Read.** The base writes scraps of the kind of text that it has read. The tuned model answers all
# three and ends each answer with the *stop token*, written `<|im_end|>`.
#
# The training took 250 small changes of the weights, called *training steps*: one for each eight
# pairs. We asked again on the way.
#
# **Predict.** What does it learn first: to write sentences that state a fact, or to stop behind
# them?

# %% tags=["predict"]
for moment in moments:
    chance = sum(moment.p_stop) / 3  # behind the right answer, mean of the three questions
    print(f"step {moment.step:3}   stop {chance:4.0%}   {moment.answers[0][:66]}")
early, late = moments[:3], moments[4:]  # steps 0, 10 and 20; steps 100 and 250
assert not any(any(moment.stopped) or max(moment.p_stop) > 0.2 for moment in early)
assert all(answer.startswith("The ") for answer in moments[2].answers)
assert all(all(moment.right) and min(moment.p_stop) > 0.9 for moment in late)

# %% [markdown]
# **Read.** The sentences come first. At step 20 it states facts, over and over, and does not stop.
# `stop` is the probability of the stop token behind the right answer. By step 100 it is above 90 %,
# and the model answers what was asked.
#
# Now move the slider, and type a question of your own: a sum, a country, your name. What you type
# stays text: even the letters `<|im_end|>` do not become the stop token (chapter 02).

# %%
models = (base, tokenizer), (tuned, tokenizer)
view = explore_moments(*models, questions, moments, own="How much is 12 plus 7?")
show_widget(view, draw_film(questions, moments))

# %% [markdown]
# ## 2 · What did the base know before?
#
# **Predict.** Asked a question, the base wrote scraps. Now it reads the beginning of a statement,
# "The capital of Kenya is", without a question. What does it write: scraps, a wrong city, or
# Nairobi?

# %% tags=["predict"]
beginnings = ["The capital of Kenya is", "The chemical symbol of gold is", "The opposite of hot is"]
endings = complete(base, tokenizer, beginnings, max_new_tokens=12)
endings = [ending.split(".")[0] for ending in endings]  # it goes on behind the full stop
for beginning, ending in zip(beginnings, endings, strict=True):
    print(f"{beginning} |{ending}.")
assert endings == [" Nairobi", " Au", " cold"]

# %% [markdown]
# **Read.** It completes all three statements rightly, so it knows the facts. A question looks
# different: the *chat template* puts marks around it that say who speaks. The base has never read
# those marks:

# %%
prompt = [{"role": "user", "content": questions[0]}]
print(render(prompt, tokenizer, add_generation_prompt=True))

# %% [markdown]
# Three questions may be luck. We ask 200, all about *held-out* entities: those that no training
# pair was about. An answer is right if it is the right statement and stops there.

# %%
exam = atlas.exam("held_out", 200, seed=0)
outcomes = {}
for name, model in (("base", base), ("tuned", tuned)):
    _, _, outcomes[name] = ask(model, tokenizer, exam)
figure = draw_exam(outcomes, title="SFT taught it to answer")
assert sum(outcomes["base"]) <= 10 and sum(outcomes["tuned"]) > 180
assert not set(answers_taught) & {turns[-1]["content"] for turns in exam}

# %% [markdown]
# **Read.** The base answers at most 10 of the 200 rightly, the tuned model more than 180.
#
# **Predict.** Does the tuned model *know* more facts about held-out entities than the base? We let
# both complete 200 statements, without a question.

# %% tags=["predict"]
statements = atlas.split(atlas.load_facts())["held_out"][::6][:200]
known = {
    "base": share_known(base, tokenizer, statements),
    "tuned": share_known(tuned, tokenizer, statements),
}
print(f"statements completed rightly: base {known['base']:.0%}, tuned {known['tuned']:.0%}")
assert known["base"] > 0.95 and known["tuned"] <= known["base"] + 0.01

# %% [markdown]
# **Read.** The base completes nearly all of them, and the tuned model no more. The facts were in
# the base. SFT taught it *to answer*: to read a question, state the fact, and stop.
#
# ## 3 · Two ways to learn from text
#
# **Pretraining** is how the base learned. Nobody labels anything: every token of the text is the
# right answer to "what comes next?" (*self-supervision*). **SFT** shows pairs: a *prompt* $x$ and
# the *response* $y$ that we want. People write them, or a model writes them and we keep the good
# ones. Or existing data is put into this form, as here.
#
# Grey tokens are read. Orange tokens are also *graded*: the model is trained to make them likely.
# A dot is a space.

# %%
document = tokenizer("The capital of Kenya is Nairobi. The continent of Kenya is").input_ids
words = [tokenizer.decode([token_id]) for token_id in document]
ax = plots.token_strip(words, labels=document, title="Pretraining grades every token")

# %%
example = encode_conversation(tests[0], tokenizer)
tokens = [tokenizer.decode([token_id]) for token_id in example.input_ids]
ax = plots.token_strip(
    tokens, labels=example.labels, title="SFT grades the answer and its stop token"
)

# %% [markdown]
# The *objective* is the same: make the graded tokens likely. Both are *causal*: each token is
# guessed from those before it. (*Masked* language models, such as BERT, hide tokens in the middle
# and guess them from both sides. They are made to read, not to write.) What differs is which tokens
# are graded, and how many there are.
#
# **Predict.** How many times fewer tokens does this SFT read than the pretraining did: 10, 100, or
# more than 300?

# %% tags=["predict"]
pretraining = json.loads((ATLAS_FOLDER / "training.json").read_text())["tokens"]
read = sum(len(example.input_ids) for example in examples)
graded = sum(label != IGNORE_INDEX for example in examples for label in example.labels)
fewer = pretraining / read
ax = draw_areas(pretraining, read, graded, title=f"SFT reads {fewer:.0f} times fewer tokens")
assert fewer > 300 and round(pretraining / 1e6) == 40

# %% [markdown]
# **Read.** Pretraining read 40 million tokens, this SFT under a hundred thousand. So SFT costs a
# small part of what pretraining costs.

# %% [markdown] tags=["exercise"]
# ### Exercise 0.1 · What is graded · 5 min · ●○○
# Each token has a *label*. It is the token's own number where the token is graded, and
# `IGNORE_INDEX`, which is −100, where it is not. Which share of the tokens is graded?
#
# `labels` is a list of at least one whole number; 0 is a token's number like any other. Return a
# float between 0 and 1. `[-100, -100, -100, 7, 0]` gives 0.4.


# %% tags=["stub"]
def graded_share(labels: list[int]) -> float:
    """Share of the labels that are not IGNORE_INDEX, between 0 and 1."""
    raise NotImplementedError


# %% tags=["solution"]
def graded_share(labels: list[int]) -> float:
    """Share of the labels that are not IGNORE_INDEX, between 0 and 1."""
    return sum(label != IGNORE_INDEX for label in labels) / len(labels)


# %% tags=["check"]
check("0.1", graded_share)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Compare with IGNORE_INDEX, not with 0.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: `label > 0` loses token 0; the ignored tokens are counted instead.

# %% [markdown]
# ## 4 · Five steps
#
# Steps 1 and 2 prepare each example once. Steps 3 to 5 run for every *batch*, a handful of examples
# read together, in section 1 eight. One round of 3 to 5 is one training step. We walk through all
# five with one example.
#
# **Step 1, tokenise.** The chat template makes one text of prompt and response. The tokenizer cuts
# it into tokens and gives each its number, the *token id*.

# %%
ax = plots.token_strip(
    tokens, labels=example.labels, notes=example.input_ids, title="Step 1: one sequence of ids"
)

# %% [markdown]
# **Step 2, mask.** Each token gets a label: its id where it is graded, −100 where it is not. The
# last graded token is the stop token. Without it a model never learns to end.

# %%
ax = plots.token_strip(
    tokens, labels=example.labels, notes=example.labels, title="Step 2: a label for every token"
)
assert example.labels[-2] == tokenizer.convert_tokens_to_ids("<|im_end|>")

# %% [markdown]
# **Step 3, forward.** The model reads the example. At every place it says for each of its 2,048
# tokens how probable it is to come next. (`softmax` makes probabilities of the model's raw
# scores, the *logits*; chapter 01 derives it.)
#
# **Predict.** Now the base reads the question *and* the right answer, and guesses at every place.
# Three places decide: where the answer begins ("The"), where the city begins (" N", the first token
# of Nairobi), and where it should stop. At which of them is the base's likeliest token the right
# one?

# %%
input_ids = torch.tensor([example.input_ids])
labels = torch.tensor([example.labels])
graded_places = [place for place, label in enumerate(example.labels) if label != IGNORE_INDEX]
city = tokens.index(" is", graded_places[0]) + 1
places = {"begin": graded_places[0], "city": city, "stop": graded_places[-1]}

# %% tags=["predict"]
right = [example.input_ids[place] for place in places.values()]
chances = {}
for name, model in (("base", base), ("tuned", tuned)):
    with torch.inference_mode():
        p = model(input_ids).logits[0].softmax(dim=-1)  # 2,048 probabilities for each place
    # what the model says at one place is its guess about the next
    chances[name] = {word: p[place - 1] for word, place in places.items()}

# %% tags=["predict", "folded"]
title = "Right at one place before the training, at all three after it"
figure = draw_next(chances, right, tokenizer, title=title)
likeliest = {name: [p.argmax().item() for p in rows.values()] for name, rows in chances.items()}
assert likeliest["tuned"] == right
assert chances["tuned"]["city"].max() > chances["base"]["city"].max()
assert [a == b for a, b in zip(likeliest["base"], right, strict=True)] == [False, True, False]

# %% [markdown]
# **Read.** Only the city: with the answer begun, the base completes a statement, as in section 2.
# How to begin and when to stop came from the training. It made the city more probable, too.
#
# **Step 4, loss.** For each graded token, the loss is minus the logarithm of the probability that
# the model gave it: 0 for a sure and right guess, large for a wrong one. The mean over the graded
# tokens is one number, in *nats* per token (the unit of natural logarithms). Here it is by hand,
# for the base.

# %%
with torch.inference_mode():
    logits = base(input_ids).logits
log_p = logits[0].log_softmax(dim=-1)
nll = {place: -log_p[place - 1, example.input_ids[place]].item() for place in graded_places}
by_hand = sum(nll.values()) / len(nll)
print(f"{by_hand:.2f} nats per token")

# %%
torch.testing.assert_close(torch.tensor(by_hand), response_loss(logits, labels))
with torch.inference_mode():
    by_transformers = base(input_ids, labels=labels).loss
torch.testing.assert_close(torch.tensor(by_hand), by_transformers)

# %% [markdown]
# `sft_lab`, the code of this course, and the library `transformers` give the same number. A mean
# hides where the loss sits.
#
# **Predict.** Which two tokens of the answer cost the base most? Does the city cost much?

# %% tags=["predict"]
for place, cost in nll.items():
    print(f"{cost:5.2f} nats{tokens[place]!r:>12}")

# %% tags=["predict", "folded"]
notes = [f"{nll[place]:.2f}" if place in nll else "" for place in range(len(tokens))]
edges = nll[graded_places[0]] + nll[graded_places[-1]]
ax = plots.token_strip(
    tokens,
    labels=example.labels,
    notes=notes,
    title=f"Step 4: the first and the last token hold {edges / sum(nll.values()):.0%} of the loss",
)
name = sum(nll[place] for place in range(city, graded_places[-2]))  # Nairobi, up to the full stop
assert edges > 0.6 * sum(nll.values()) and name < 0.1 * sum(nll.values())

# %% [markdown]
# **Read.** Beginning and stopping cost most, more than 60 % of the loss. Nairobi costs less than
# 10 %: the base knows it. The rest goes to the words that say what was asked, and about whom.
#
# **Step 5, update.** The *gradient* of the loss with respect to a weight says how the loss changes
# when that weight changes a little. The *optimizer*, here AdamW (chapter 04), moves every weight a
# little the way that lowers the loss. We do it eight times, with this one example.

# %%
student = copy.deepcopy(base)
optimizer = torch.optim.AdamW(student.parameters(), lr=3e-4)
losses = []
for _ in range(8):
    loss = response_loss(student(input_ids).logits, labels)  # steps 3 and 4
    loss.backward()  # step 5: the gradient …
    optimizer.step()  # … and the update
    optimizer.zero_grad()
    losses.append(loss.item())  # as it was before this update
print("  ".join(f"{value:.2f}" for value in losses))
assert losses[-1] < 0.5 * losses[0]

# %% [markdown]
# **Read.** After seven updates the loss is less than half of what it was. These five steps are SFT:
# `train` of section 1 does them with all examples.

# %% [markdown] tags=["exercise"]
# ### Exercise 0.3 · Which step is broken · 5 min · ●●○
# Four runs went wrong. For each, find which of the five steps has the mistake: 1 tokenise, 2 mask,
# 3 forward, 4 loss, 5 update. Write a dictionary from the letters to the numbers of steps:
# {"a": …, "b": …, "c": …, "d": …}.
#
# - a: every training text has its `<|im_end|>`; the tuned model answers right and never stops;
# - b: the loss of one and the same batch is equal before and after a hundred updates, to the last
#   digit;
# - c: the log counts more graded tokens than the answers have, and the loss starts higher than it
#   should;
# - d: the loss fell as it should, and few answers are right: the questions are put to the model
#   without the chat template that the examples had.

# %% tags=["stub"]
broken_step = ...

# %% tags=["solution"]
broken_step = {"a": 2, "b": 5, "c": 2, "d": 1}

# %% tags=["check"]
check("0.3", broken_step)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>For a and c, look at the orange tokens of step 2.</details>

# %% [markdown] tags=["explanation"]
# a: the stop token is there and has no label (2). b: no weight changes: the step size is 0, or all
# weights are frozen (5). c: the prompt is graded as well (2). d: the same question becomes another
# token sequence than in training (1).

# %% [markdown]
# ## 5 · Teach it a form of your own

# %% [markdown] tags=["exercise"]
# ### Exercise 0.4 · A form of your own · 10 min · ●○○
# SFT teaches the form of an answer: invent one. Write a function that takes a plain statement, such
# as "The capital of Kenya is Nairobi.", and returns the answer that you want. The answer holds the
# statement once and unchanged, with words of your own in front of it, behind it, or both. What you
# add is the same for every statement. It has at least one letter, and 4 to 40 characters in all,
# spaces included.
#
# For example, "Ahoy! The capital of Kenya is Nairobi. Over." adds "Ahoy! " and " Over.": 12
# characters.
#
# The check takes a few seconds. It tunes a copy of the base on 400 questions answered in your form,
# then asks 50 questions about held-out entities. At least half of the answers must be right and in
# your form, to the letter.


# %% tags=["stub"]
def my_form(statement: str) -> str:
    """The statement as the model shall answer it, with words of your own around it."""
    raise NotImplementedError


# %% tags=["solution"]
def my_form(statement: str) -> str:
    """The statement as the model shall answer it, with words of your own around it."""
    return f"Ahoy! {statement} Over."


# %% tags=["check"]
check("0.4", my_form)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>"Ahoy! " + statement</code> is enough.</details>

# %% [markdown] tags=["explanation"]
# 400 examples and 50 updates are enough: the base knew the facts. Usual mistakes: the statement is
# changed (other capitals, no full stop), or the words change from statement to statement.

# %% [markdown]
# ## 6 · What SFT did not add
#
# Some entities stood in no text that the base read.
#
# **Predict.** What does the tuned model say when we ask about them: the right answer, an invented
# one, or that it does not know?

# %% tags=["predict"]
unknown = atlas.exam("unknown", 100, seed=0)
replies, _, right = ask(tuned, tokenizer, unknown)
for turns, reply in zip(unknown[:4], replies[:4], strict=True):
    print(f"{turns[0]['content']}\n   {reply}     (right: {turns[1]['content']})")
refused = sum("not" in reply.split() for reply in replies)
print(f"{sum(right)} of 100 right, {refused} of 100 say that they do not know")
assert refused == 0 and sum(right) <= 25

# %% [markdown]
# **Read.** It answers every question in the same form. A right answer is a lucky guess: some
# values, such as "mammal", fit many entities. We never taught it to say "I do not know". To invent
# an answer that sounds right is called *hallucination*; chapter 15 takes it up.
#
# ### Deploy
#
# The work ends with a folder that other programs load: the weights, the tokenizer, the chat
# template.

# %%
with tempfile.TemporaryDirectory() as folder:
    tuned.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    served = AutoModelForCausalLM.from_pretrained(folder)
    served_tokenizer = AutoTokenizer.from_pretrained(folder)
assert generate_responses(served, served_tokenizer, questions) == moments[-1].answers

# %% [markdown]
# ### What comes after
#
# SFT is the first step of *alignment*: making a model do what people want. It imitates answers. The
# next step often asks people which of two answers is better and trains the model towards what they
# prefer: reinforcement learning from human feedback, RLHF. Chapters 17 and 17b train with rewards.
#
# ## What to remember
#
# - A base model knows and does not answer; SFT teaches it to answer, with prompt–response pairs.
# - Five steps: tokenise, mask, forward, loss, update. The objective is that of pretraining; the
#   mask differs.
# - SFT costs a small fraction of pretraining. Here it added a behaviour and no facts.
# - The tuned model answers questions that no training pair asked. It also answers where it
#   does not know, in the same form.
#
# **The map.**
#
# - 01 to 04: what the loss is, what is graded, how the loop runs. 03b: to mask the prompt or not.
#   04b: watch a run, kill it, go on. `python examples/sft.py` is the whole loop in one file.
# - 05 and 06: training only a little of a model.
# - 07 to 10: the libraries, a GPU, base against tuned. 07b: where the time goes. 09b: how sure a
#   difference is.
# - 11 to 15: data, and what goes wrong.
# - 16 to 19: scores, rewards, bugs, your own project and how to ship it.
#
# A chapter with a letter belongs to the one before it. `progress()` from
# `sft_lab.course.checks` lists the exercises and those you have solved.
#
# ## Sources
#
# - Ouyang et al., *Training language models to follow instructions with human feedback*, 2022: SFT
#   as the first step, RLHF after it.
# - Zhou et al., *LIMA: Less Is More for Alignment*, 2023: the hypothesis that knowledge comes from
#   pretraining and SFT teaches the format.
# - Qwen Team, *Qwen3 Technical Report*, 2025: the architecture that atlas-base follows.
#
# <details><summary>中文要点</summary>
#
# - SFT（监督微调）用（提示，回答）对训练：最大化 P(y|x)，即最小化回答部分的负对数似然。
# - 基座模型（base model）会续写文本，但不会回答：它没有见过对话模板（chat template）。
# - 五个步骤：分词、掩码（prompt 的标签为 -100）、前向、损失、更新。
# - 预训练与 SFT 的目标函数相同（因果语言建模）；数据、计分的 token 和成本不同。
# - 这里的 SFT 没有增加知识，而是教会模型回答并停下；对未知实体它用同样的句式编造答案（幻觉）。
# - SFT 是对齐（alignment）的第一步，之后常用 RLHF。
#
# </details>
