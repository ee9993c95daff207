# %% [markdown]
# # 00 · What happens when we SFT
#
# **The question.** A base model has read millions of sentences and cannot answer a question. After
# supervised fine-tuning (SFT) on a few thousand examples it answers. What changed, and what did
# not?
#
# **By the end you can**
# - *name* the five steps of SFT, and say what each one does to an example;
# - *tell* pretraining from SFT by data, objective and cost;
# - *check* what a tuned model learned, and what it did not.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | a little Python | CPU, no network | about 60 s | 3, about 15 minutes | A1 B1 D1 D2 |

# %% tags=["setup"]
import copy
import json

import matplotlib.pyplot as plt
import torch

from sft_lab import atlas, plots
from sft_lab.chat import complete, generate_responses, render
from sft_lab.compare import compare
from sft_lab.course.checks import check
from sft_lab.labels import IGNORE_INDEX, encode_conversation, encode_conversations
from sft_lab.losses import response_loss
from sft_lab.models import ATLAS_FOLDER, load
from sft_lab.train import train

plots.style()
base, tokenizer = load("atlas-base")

# %% [markdown]
# ## 1 · A model that knows and cannot answer
#
# `atlas-base` ships with this course. It has Qwen3's architecture and a million parameters. We
# trained it from nothing on plain text: facts about countries, elements, animals, planets, words
# and numbers; notes of an invented world; lists, small sums, JSON and a little Chinese. Some of its
# documents are questions, none holds an answer to one, and none is a chat.
#
# **Predict.** What will it write after "The capital of Kenya is"? And what when we *ask*?

# %%
beginnings = ["The capital of Kenya is", "The chemical symbol of gold is", "The opposite of hot is"]
endings = complete(base, tokenizer, beginnings, max_new_tokens=12)
endings = [ending.split(".")[0] for ending in endings]  # it goes on behind the full stop
for beginning, ending in zip(beginnings, endings, strict=True):
    print(f"{beginning} |{ending}.")
assert endings == [" Nairobi", " Au", " cold"]

# %%
questions = [
    "What is the capital of Kenya?",
    "Tell me the chemical symbol of gold.",
    "What is the opposite of hot?",
]
for question, answer in zip(
    questions, generate_responses(base, tokenizer, questions, max_new_tokens=40), strict=True
):
    print(f"{question} | {answer}")

# %% [markdown]
# **Read.** It completes statements and does not answer questions. A question arrives in a *chat
# template*, with marks that say who speaks. The base never read those marks. What it writes behind
# them is a scrap of its own kind of text. Here is what it reads:

# %%
print(render([{"role": "user", "content": questions[0]}], tokenizer, add_generation_prompt=True))

# %% [markdown]
# Are these three unlucky questions? We ask 200, all about facts that it read hundreds of times. An
# answer counts as right if it begins with the statement, even where it goes on afterwards.

# %%
facts = atlas.split(atlas.load_facts())
exam = atlas.exam("held_out", 200, seed=0)
answers = generate_responses(base, tokenizer, [turns[:-1] for turns in exam], max_new_tokens=40)
right_base = sum(
    answer.startswith(turns[-1]["content"]) for answer, turns in zip(answers, exam, strict=True)
)
print(f"{right_base} of {len(exam)} answers are right")
assert right_base / len(exam) <= 0.10

# %% [markdown]
# ## 2 · Two ways to learn from text
#
# **Pretraining** needs nobody to label anything. The text is its own label: every token is the
# right answer to the question "what comes next?" (*self-supervision*). **SFT** shows pairs: a
# prompt $x$ and the response $y$ that we want.
#
# Here are the first tokens of a document, made as the base's text was made, and below them one
# pair. Grey tokens are read, orange tokens are also graded.

# %%
texts = atlas.documents(facts["held_out"], seed=0)
document = tokenizer(
    next(text for text in texts if text.startswith("The capital of Kenya"))
).input_ids[:24]
words = [tokenizer.decode([i]) for i in document]
ax = plots.token_strip(words, labels=document, title="Pretraining grades every token")

# %%
pair = [
    {"role": "user", "content": "What is the capital of Kenya?"},
    {"role": "assistant", "content": "The capital of Kenya is Nairobi."},
]
example = encode_conversation(pair, tokenizer)
tokens = [tokenizer.decode([i]) for i in example.input_ids]
ax = plots.token_strip(
    tokens, labels=example.labels, title="SFT grades the answer and its stop token"
)

# %% [markdown]
# The *objective* is the same in both: make the graded tokens likely, that is, minimise their
# negative log-likelihood. What differs is which tokens are graded, and how many there are.
#
# The tuning set asks for every fact of **one half** of the entities three times, in varying words.
# It adds small tasks: sums, lists, JSON, and questions about a passage or about notes that stand
# above the question.

# %%
conversations = atlas.training_conversations(seed=0)
examples = encode_conversations(conversations, tokenizer)
asked = len(conversations) - sum(atlas.TASKS.values())
print(f"{len(conversations):,} conversations: {asked:,} ask for a fact, the others: {atlas.TASKS}")
pretraining_tokens = json.loads((ATLAS_FOLDER / "training.json").read_text())["tokens"]
sft_tokens = sum(len(e.input_ids) for e in examples)
graded_tokens = sum(label != IGNORE_INDEX for e in examples for label in e.labels)
print(f"pretraining: {pretraining_tokens:,} tokens; graded are all but the first of each row")
times_fewer = pretraining_tokens / sft_tokens
print(
    f"SFT:         {sft_tokens:,} tokens, {graded_tokens:,} of them graded; {times_fewer:.0f} "
    "times fewer"
)
assert asked == 3 * len(facts["train"]) and pretraining_tokens > 30 * sft_tokens

# %%
figure, ax = plt.subplots(figsize=(8, 2.4))
amounts = [graded_tokens, sft_tokens, pretraining_tokens]
ax.barh(
    ["SFT, graded", "SFT", "pretraining"], amounts, color=[plots.ANSWER, plots.PROMPT, plots.ANSWER]
)
for row, amount in enumerate(amounts):
    ax.annotate(f"{amount:,}", (amount, row), (6, 0), textcoords="offset points", va="center")
ax.grid(visible=False)
ax.set(
    xticks=[],
    xlim=(0, 1.2 * pretraining_tokens),
    xlabel="tokens that went through the model",
    title=f"SFT reads {times_fewer:.0f} times fewer tokens than pretraining",
)
plt.show()

# %% [markdown]
# ## 3 · Five steps
#
# SFT takes its examples through five steps. Steps 1 and 2 prepare each example once. Steps 3 to 5
# run for every batch of examples, hundreds of times. We walk through all five once, slowly, on one
# example.
#
# **Step 1, tokenise.** The chat template turns prompt and response into one text, and the tokenizer
# turns the text into one sequence of token ids.

# %%
ax = plots.token_strip(
    tokens, labels=example.labels, notes=example.input_ids, title="Step 1: one sequence of ids"
)

# %% [markdown]
# **Step 2, mask.** Each token gets a label. The prompt gets -100, which means "do not grade". The
# answer keeps its ids. The last graded token is `<|im_end|>`, the stop token. Without it a model
# never learns to end.

# %%
ax = plots.token_strip(
    tokens,
    labels=example.labels,
    notes=example.labels,
    title="Step 2: -100 where nothing is graded",
)
assert example.labels[-2] == tokenizer.convert_tokens_to_ids("<|im_end|>")

# %% [markdown]
# **Step 3, forward.** The model gives a probability to every token of its vocabulary, at every
# position. We look at the position whose right answer is the first token of " Nairobi".
#
# **Predict.** Asked, the base wrote a scrap. Will it find Nairobi when it reads the answer up to
# "is"?

# %%
input_ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
with torch.inference_mode():
    logits = base(input_ids).logits  # (B, T, V) = (1, T, 2048)
place = tokens.index(" is", len(tokens) // 2) + 1  # where the answer names the city
probabilities = logits[0, place - 1].softmax(dim=-1)  # row t predicts token t + 1
top = probabilities.topk(6)
assert top.indices[0] == input_ids[0, place]
figure, ax = plt.subplots(figsize=(8, 3.2))
names = [plots.show_token(tokenizer.decode([i])) for i in top.indices]
ax.bar(
    names,
    top.values,
    color=[plots.ANSWER if i == input_ids[0, place] else plots.PROMPT for i in top.indices],
)
ax.set(
    ylabel="probability",
    title=f"Step 3: the right token, {plots.show_token(tokens[place])!r}, in orange",
)
plt.show()

# %% [markdown]
# **Read.** It finds it. With the answer begun, it completes a statement, as in section 1.
#
# **Step 4, loss.** For each graded token, the loss is minus the logarithm of the probability that
# the model gave it. The mean over graded tokens is one number, in nats per token. Chapter 01
# derives it; here it is by hand. For comparison, the last line grades the prompt as well.

# %%
log_probs = logits[0].log_softmax(dim=-1)
graded = [t for t in range(1, len(tokens)) if example.labels[t] != IGNORE_INDEX]
by_hand = -torch.stack([log_probs[t - 1, example.input_ids[t]] for t in graded]).mean()
torch.testing.assert_close(by_hand, response_loss(logits, labels))
torch.testing.assert_close(by_hand, base(input_ids, labels=labels).loss.detach())
print(f"{by_hand:.2f} nats per token, by hand, by sft_lab and by transformers")
with_prompt = response_loss(logits, input_ids)
print(f"{with_prompt:.2f} nats per token, if the prompt were graded too")
assert with_prompt > 1.2 * by_hand

# %% [markdown]
# The prompt costs more than the answer: the base never read the marks of the template. The model
# will be given prompts and need not write them, so they stay ungraded.
#
# A mean hides where the loss sits. **Predict:** which tokens of the answer are expensive for a
# model that knows the fact?

# %%
nll = {t: -log_probs[t - 1, example.input_ids[t]].item() for t in graded}
notes = [f"{nll[t]:.2f}" if t in nll else "" for t in range(len(tokens))]
edges = nll[graded[0]] + nll[graded[-1]]
ax = plots.token_strip(
    tokens,
    labels=example.labels,
    notes=notes,
    title=f"Step 4: the first and the last token hold {edges / sum(nll.values()):.0%} of the loss",
)
city = sum(nll[t] for t in range(place, graded[-2]))  # up to the full stop
print(f"of {sum(nll.values()):.1f} nats, the name Nairobi costs {city:.1f}")
assert edges > 0.6 * sum(nll.values()) and city < 0.1 * sum(nll.values())

# %% [markdown]
# **Read.** The fact itself, Nairobi, costs next to nothing. Expensive are two decisions: to begin a
# statement, and to stop. What is left goes to the words that say what was asked, and about whom.
# These are what SFT has to teach.
#
# **Step 5, update.** The gradient says how each weight changes the loss. Small steps against it
# lower the loss.

# %%
student = copy.deepcopy(base)
optimizer = torch.optim.AdamW(student.parameters(), lr=3e-4)
losses = []
for _ in range(8):
    loss = response_loss(student(input_ids).logits, labels)  # steps 3 and 4
    loss.backward()  # step 5: gradient …
    optimizer.step()  # … and update
    optimizer.zero_grad()
    losses.append(loss.item())  # as it was before this update
print("  ".join(f"{value:.2f}" for value in losses))
assert losses[-1] < 0.5 * losses[0]

# %% [markdown]
# **Read.** Each number is the loss before an update. After seven updates it is less than half.
# These five steps are SFT; the rest of the course asks what can go wrong in each of them.
#
# ## 4 · The real thing
#
# Now all examples of the tuning set. None of them asks about an entity of the other half, and none
# of the answers that the exam wants stands among the answers taught.
#
# **Predict.** How well will the tuned model answer about the half that it was never asked about?

# %%
tuned = copy.deepcopy(base)
history = train(tuned, tokenizer, examples, epochs=1, learning_rate=5e-4, batch_size=16, seed=0)
mean = torch.tensor(history.losses).unfold(0, 20, 20).mean(dim=1)  # every point: 20 steps
fallen = 1 - (mean[:5].min() - mean.min()) / (mean[0] - mean.min())
ax = plots.curve(
    range(20, 20 * len(mean) + 1, 20),
    {"training loss": mean},
    xlabel="optimiser step",
    ylabel="nats per graded token",
    title=f"{fallen:.0%} of the fall happens in the first 100 steps",
)
plt.show()

# %%
result = compare((base, tokenizer), (tuned, tokenizer), exam, max_new_tokens=40)
print(result.table())
taught = {turns[-1]["content"] for turns in conversations}
assert not taught & {turns[-1]["content"] for turns in exam}
numbers = result.to_dict()
assert numbers["tuned"]["accuracy"] > 0.9 and numbers["tuned"]["stop_rate"] > 0.95

# %%
groups = {
    name: {
        "right answers": [numbers[name]["accuracy"]],
        "stops by itself": [numbers[name]["stop_rate"]],
    }
    for name in ("base", "tuned")
}
ax = plots.bars_with_spread(
    groups,
    percent=True,
    ylabel="share of 200 questions",
    title="Asked about entities that the tuning never asked about",
)
plt.show()

# %% [markdown]
# **Read.** It answers questions about entities that no training question was about. It cannot have
# learned those facts from SFT: they were not there.
#
# ## 5 · What SFT added, and what it did not
#
# **Predict.** How many of the other half's facts did the *base* know? Does the tuned model know
# more of them, or fewer? We test knowledge without any question, by letting both complete
# statements, as in section 1.


# %%
def share_known(model, facts):
    """Share of facts whose statement the model completes correctly."""
    prompts, endings = zip(*[atlas.cloze(fact) for fact in facts], strict=True)
    written = complete(model, tokenizer, prompts, max_new_tokens=16)
    return sum(
        text.startswith(ending) for text, ending in zip(written, endings, strict=True)
    ) / len(facts)


known = {
    name: share_known(model, facts["held_out"][::6])
    for name, model in (("base", base), ("tuned", tuned))
}
print(f"statements completed correctly: base {known['base']:.0%}, tuned {known['tuned']:.0%}")
assert known["base"] > 0.95 and known["tuned"] <= known["base"] + 0.01

# %% [markdown]
# **Read.** The facts were in the base before, and after SFT the model knows no more of them. SFT
# taught it *to answer*: read a question, state the fact, stop.
#
# So what happens with an entity that nobody ever wrote about? Some entities were kept out of the
# pretraining text.

# %%
unknown_exam = atlas.exam("unknown", 100, seed=0)
replies = generate_responses(
    tuned, tokenizer, [turns[:-1] for turns in unknown_exam], max_new_tokens=40
)
for turns, reply in list(zip(unknown_exam, replies, strict=True))[:4]:
    print(f"{turns[0]['content']}\n   {reply}     (right: {turns[1]['content']})")
right = sum(
    reply == turns[1]["content"] for turns, reply in zip(unknown_exam, replies, strict=True)
)
refused = sum("not" in reply.split() for reply in replies)
print(f"{right} of 100 right, {refused} of 100 say that they do not know")
assert refused == 0 and right <= 25

# %% [markdown]
# **Read.** It answers every question in the same form. The last line counts how few answers are
# right; all others are invented. A right one is a lucky guess: some values, such as a continent,
# fit many entities. Even the name of such an entity can come out misspelled. We taught it that a
# question is followed by an answer; nobody taught it to say "I do not know". Chapter 15 takes up
# this *hallucination*, chapter 13 what tuning makes a model forget.
#
# ## 6 · Deploy
#
# The workflow ends with a folder that other tools load: weights as safetensors, the tokenizer, the
# chat template.

# %%
import tempfile

from transformers import AutoModelForCausalLM, AutoTokenizer

with tempfile.TemporaryDirectory() as folder:
    tuned.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    served, served_tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
answer = generate_responses(served, served_tokenizer, questions[:1], max_new_tokens=30)
print(answer[0])
assert answer == generate_responses(tuned, tokenizer, questions[:1], max_new_tokens=30)

# %% [markdown] tags=["exercise"]
# ### Exercise 0.1 · What is graded · 5 min · ●○○
# Many misunderstandings about SFT are misunderstandings about the mask. Count it: which share of an
# example's tokens is graded?


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
# <details><summary>Hint</summary>Token id 0 is a token like any other: compare with IGNORE_INDEX,
# not with 0.</details>

# %% [markdown] tags=["explanation"]
# A label is graded when it differs from IGNORE_INDEX. Two usual mistakes: testing `label > 0`,
# which loses token id 0, and counting the share of ignored tokens instead.

# %% [markdown] tags=["exercise"]
# ### Exercise 0.2 · Did it stop · 5 min · ●○○
# An answer that is right and never ends is of no use. Given the token ids that a model generated,
# did it stop by itself?


# %% tags=["stub"]
def stop_rate(generated: list[list[int]], stop_token_id: int) -> float:
    """Share of the responses (lists of token ids) that end with the stop token."""
    raise NotImplementedError


# %% tags=["solution"]
def stop_rate(generated: list[list[int]], stop_token_id: int) -> float:
    """Share of the responses (lists of token ids) that end with the stop token."""
    return sum(ids[-1:] == [stop_token_id] for ids in generated) / len(generated)


# %% tags=["check"]
check("0.2", stop_rate)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>A response may be empty: <code>ids[-1]</code> would raise an
# error.</details>

# %% [markdown] tags=["explanation"]
# Only the last token counts. Slicing with `ids[-1:]` handles the empty response. Looking for the
# stop token anywhere (`stop_token_id in ids`) calls a model good that stops and then goes on.

# %% [markdown] tags=["exercise"]
# ### Exercise 0.3 · Which step is broken · 5 min · ●●○
# Four runs went wrong. For each, find the step of section 3 in which the mistake sits (1 tokenise,
# 2 mask, 3 forward, 4 loss, 5 update). Write a dictionary from the letters to the numbers of steps:
# {"a": …, "b": …, "c": …, "d": …}.
#
# - a: every training text has its `<|im_end|>`; the tuned model answers right and never stops;
# - b: the loss of one and the same batch is equal before and after a hundred updates, to the last
#   digit;
# - c: the log counts more graded tokens than the answers have, and the loss starts clearly higher
#   than that of section 3;
# - d: the loss fell as it should, but the questions are put to the model without the chat template
#   that the examples had, and far fewer answers are right.

# %% tags=["stub"]
broken_step = ...

# %% tags=["solution"]
broken_step = {"a": 2, "b": 5, "c": 2, "d": 1}

# %% tags=["check"]
check("0.3", broken_step)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>For a and c, look at the orange tokens of step 2.</details>

# %% [markdown] tags=["explanation"]
# a: the stop token is there and has no label, so the mask is wrong (2). b: no weight changes:
# learning rate 0, or everything is frozen (5). c: the prompt is graded as well (2). The base never
# read the template's marks, so prompt tokens cost more than answer tokens, as step 4 shows. d: the
# same question became another token sequence than in training (1). Chapter 18 has a zoo of such
# bugs.

# %% [markdown]
# ## What to remember
#
# - A base model knows and does not answer; SFT teaches it to answer, with prompt–response pairs.
# - Five steps: tokenise, mask, forward, loss, update. The objective is that of pretraining; the
#   mask differs.
# - SFT costs a small fraction of pretraining. Here it added a behaviour and no facts.
# - It answers about what it never was asked before, and it answers about what it does not know.
#
# ## The map
#
# | | you ask | chapters |
# |---|---|---|
# | I | what is the loss, and what is graded? | 01 cross-entropy · 02 chat templates · 03 masks · 04 the loop |
# | II | how do I train only a little of the model? | 05 LoRA · 06 adapters and prefixes |
# | III | how is it done in production? | 07 TRL and PEFT · 08 Qwen on a GPU · 09 base versus tuned · 10 LLaMA-Factory |
# | IV | what goes wrong, and what helps? | 11 data · 12 losses · 13 forgetting · 14 repetition · 15 hallucination |
# | V | how do I know, and what comes next? | 16 evaluation · 17 SFT and RL · 18 bug zoo · 19 capstone |
#
# README's table says which chapters are ready. To see all exercises and which ones you have solved,
# run `from sft_lab.course.checks import progress` and `progress()` in a cell of your own.
#
# ## Sources
#
# - Ouyang et al., *Training language models to follow instructions with human feedback*, 2022: SFT
#   as the first step.
# - Zhou et al., *LIMA: Less Is More for Alignment*, 2023: the hypothesis that knowledge comes from
#   pretraining and SFT teaches the format.
# - Qwen Team, *Qwen3 Technical Report*, 2025: the architecture that atlas-base follows.
#
# <details><summary>中文要点</summary>
#
# - SFT（监督微调）用（提示，回答）对训练：最大化 P(y|x)，即最小化回答部分的负对数似然。
# - 基座模型（base model）会续写文本，但不会回答：它没有见过对话模板（chat template）。
# - 五个步骤：分词、掩码（prompt 的标签为 -100）、前向、损失、更新。
# - 预训练与 SFT 的目标函数相同；数据、计分的 token 和成本不同。
# - 这里的 SFT 没有增加知识，而是教会模型回答并停下；对未知实体它用同样的句式编造答案（幻觉）。
#
# </details>
