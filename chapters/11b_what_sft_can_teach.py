# %% [markdown]
# # 11b · What SFT can teach
#
# **The question.** Instruction tuning teaches a model how to respond; knowledge injection teaches
# it new facts. Both are done with the same loss on the same kind of rows: which of the two is SFT
# good at, and what else can a lesson teach?
#
# **By the end you can**
# - *compare* instruction tuning and knowledge injection with the same number of lessons, and say
#   what injection costs;
# - *design* lessons for forms, follow-up questions, a rule, and sums with their work shown;
# - *measure* a rule of refusal on both sides: what leaks, and what is wrongly declined.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 00 to 04 and 09 | CPU, no network | about 40 s | 5, about 53 minutes | D3 D4 D17 D18 D19 L31 |

# %% tags=["setup"]
import random

import numpy as np

from sft_lab import atlas, lessons, plots
from sft_lab.course.checks import check
from sft_lab.course.results import read_results
from sft_lab.course.short_runs import count_tokens, share_right, tune_on
from sft_lab.course.views.widgets import show_widget
from sft_lab.course.views.wordings import (
    describe_wordings,
    draw_paths,
    draw_wordings,
    explore_wordings,
)
from sft_lab.models import load
from sft_lab.significance import judge_claim

plots.style()
base, tokenizer = load("atlas-base")
facts = atlas.split(atlas.load_facts())

# %% [markdown]
# Three functions are all we need. `tune_on` tunes a copy of the base for some seconds (AdamW, rate
# 1e-3, batches of 16). `share_right` compares its greedy answers with the references.
# `count_tokens` counts what was read. Chapter 04 wrote such a loop by hand.
#
# Most experiments below take minutes with all their seeds. They were run by the commands in
# `tools/experiments/`, and every row is kept in `data/results/`. The chapter reads these rows, and
# repeats single points before your eyes.

# %%
wordings = read_results("11b_wordings", base)
others = read_results("11b_lessons", base)
print(wordings.made, wordings.command, len(wordings.rows), "rows")
print(others.made, others.command, len(others.rows), "rows")

# %% [markdown]
# ## 1 · New facts, and new manners
#
# **Knowledge injection** means tuning on facts that the model has not read. Ours are certainly new:
# the capital and the currency of 30 countries, all invented. **Instruction tuning** means tuning on
# how to respond, here about countries that the base has read about.
#
# A question can be put in many wordings, and a fact has a direction:

# %%
_ = draw_paths()

# %% [markdown]
# Both arms get the same lessons but for the countries in them: 60 facts, each 8 times, so 480
# answers an epoch. The eight repeats use one wording, or two, four or eight in turn. We then ask in
# a **trained wording**, a **near wording** ("I would like to know the capital of …"), in **own
# words** of the relation ("What do people pay with in …?"), and **backwards** ("Whose capital is
# …?").

# %%
new = lessons.invent_places(30, seed=0)
print(new[0].say(atlas.STATEMENTS[0]), "|", new[1].say(atlas.STATEMENTS[0]), "\n")
for talk in lessons.ask_in_wordings(new[:1], lessons.WORDINGS, 8):
    print(talk[0]["content"])

# %% [markdown]
# Hypotheses, before we look. **A**: after one epoch, instruction tuning answers more questions
# about *held-out known* countries than injection answers about its *own taught* ones. **B**
# (primary): after five epochs, facts taught in eight wordings are recalled more often in own
# words than facts taught in one. **C**: injection lowers what an already tuned model answers
# about known facts.
#
# **Predict.** How many new facts does a model recall after reading each 8 times: 1 %, 50 % or 95 %?
# After 40 times? And how many of them backwards?

# %% tags=["predict"]
model = tune_on(base, tokenizer, lessons.ask_in_wordings(new, lessons.WORDINGS[:1], 8), epochs=5)
exams = {
    "trained wording": lessons.ask_in_wordings(new, lessons.WORDINGS[:1], 1),
    "near wording": lessons.ask_in_wordings(new, [lessons.NEAR_WORDING], 1),
    "own words": lessons.ask_in_own_words(new),
}
one_wording = {name: share_right(model, tokenizer, exam) for name, exam in exams.items()}
recorded = wordings.select(start="base", taught="new facts", epochs=5, wordings=1)
for name, share in one_wording.items():
    band = [row[name] for row in recorded]
    print(f"{name:16} {share:4.0%} here; recorded {min(band):.0%} to {max(band):.0%}")
    assert min(band) - 0.15 <= share <= max(band) + 0.15


# %%
columns = ("trained wording", "near wording", "own words", "backwards", "known facts")
short = {"start": "base", "wordings": 8, "epochs": 1}
arms = {
    "instruction tuning, 1 epoch": {**short, "taught": "known facts"},
    "injected, 1 epoch, 8 wordings": {**short, "taught": "new facts"},
}
for n in (1, 2, 4, 8):
    arm = {"start": "base", "taught": "new facts", "epochs": 5, "wordings": n}
    arms[f"injected, 5 epochs, wordings: {n}"] = arm
arms["tuned on questions before"] = {"start": "tuned", "taught": "nothing"}
for n in (1, 8):
    arms[f"then injected, wordings: {n}"] = {"start": "tuned", "taught": "new facts", "wordings": n}

# %% tags=["predict", "folded"]
_ = plots.share_table(
    {name: [np.mean(wordings.measured(c, **arm)) for c in columns] for name, arm in arms.items()},
    [name.replace(" ", "\n") for name in columns],
    title="New facts are learned at a price, and never backwards",
)

# %% [markdown]
# Now the verdicts, by the rule of chapter 09b: the same sign in every seed, and a mean effect above
# twice the noise floor.

# %% tags=["predict"]
injected = {n: {"start": "base", "wordings": n, "epochs": 5} for n in (1, 8)}
verdicts = {
    "A": judge_claim(
        wordings.measured("trained wording", **short, taught="new facts"),
        wordings.measured("known facts", **short, taught="known facts"),
        claim="higher",
    ),
    "B": judge_claim(
        wordings.measured("own words", **injected[1]),
        wordings.measured("own words", **injected[8]),
        claim="higher",
    ),
    "C": judge_claim(
        wordings.measured("known facts", start="tuned", taught="nothing"),
        wordings.measured("known facts", start="tuned", taught="new facts", wordings=8),
        claim="lower",
    ),
}
for name, verdict in verdicts.items():
    print(f"{name} {verdict.word}: {verdict.mean:+.0%}, noise floor {verdict.floor:.0%}")
after_questions = wordings.measured("own words", start="tuned", taught="new facts", wordings=1)
assert [verdict.word for verdict in verdicts.values()] == ["held", "not shown", "held"]
assert min(verdicts["B"].effects) > 0 and not any(row["backwards"] for row in wordings.rows)
assert min(after_questions) > 0.9

# %% [markdown]
# **Read.** One epoch of instruction tuning opens nearly everything that the base had read. The same
# 480 lessons about new countries teach next to nothing. After five times as many, most new facts
# are there: in the lessons' wording, less often in own words, never backwards. And the price: a
# tuned model loses about half of what it answered about known countries. SFT is good at manners.
# It can write facts too, at many times the price, and damages others.
#
# Claim B points the claimed way in every seed, and still our rule says "not shown": the seeds
# differ too much for three. *Physics of Language Models 3.1* reports that facts read in one
# wording cannot be extracted by later tuning. Here one wording gives half of them in own words.
# After tuning on questions about *other* facts, it gives nearly all: what own words mean was
# learned there. We saw this only afterwards, so it is a lead, not a tested claim.
#
# Move through the recorded arms. The diamond marks what one wording reached.

# %%
show_widget(explore_wordings(wordings), draw_wordings(wordings, "base", 8))
print(describe_wordings(wordings, "base", 8))

# %% [markdown]
# ### The same on a real model
#
# Small models can mislead. So claim B is repeated on `smollm2-135m`, a chat model of 135 million
# weights: 8 invented capitals, each taught 16 times, in one wording or in four; three seeds. An
# answer is right when it holds the capital.

# %%
smollm = read_results("11b_smollm2")
print(f"RECORDED on {smollm.made} by {smollm.command}; not run here")
for count in (1, 4):
    arm = [(row["near wording"], row["own words"]) for row in smollm.select(wordings=count)]
    print(f"wordings: {count}; near, own words", [f"{a:.0%}, {b:.0%}" for a, b in arm])
on_real = judge_claim(
    smollm.measured("own words", wordings=1),
    smollm.measured("own words", wordings=4),
    claim="higher",
)
print(f"B on smollm2-135m {on_real.word}: {on_real.mean:+.0%}, noise floor {on_real.floor:.0%}")
assert on_real.word == "not shown" and not any(smollm.measured("backwards"))
print("known capitals", [f"{share:.0%}" for share in smollm.measured("known facts")])

# %% [markdown]
# **Read.** With four wordings no seed is worse in own words and two are better. The seeds differ by
# more: "not shown", as on the small model. Other things repeat clearly. Nothing comes back
# backwards. And one wording gives half of the facts or more in other words: a chat model knew
# before that the seat of government is the capital.

# %% [markdown] tags=["exercise"]
# ### Exercise 11b.1 · Deal the wordings fairly · 10 min · ●●○
# Two arms with the same number of lessons differ only in wordings if the wordings are spread
# evenly. Write `deal(facts, times, wordings)` for whole numbers: `facts` ≥ 0, `times` and
# `wordings` ≥ 1. Return a list of pairs (number of the fact, number of the wording), both counted
# from 0, in any order.
#
# Every fact occurs exactly `times` times. For each fact, the counts of the wordings (0 for one that
# it does not meet) differ by at most 1. Over all facts together they differ by at most 1 as well.
# A pair may occur more than once. No facts give `[]`.


# %% tags=["stub"]
def deal(facts: int, times: int, wordings: int) -> list[tuple[int, int]]:
    """Which fact is asked in which wording: pairs of numbers, evenly spread."""
    raise NotImplementedError


# %% tags=["solution"]
def deal(facts: int, times: int, wordings: int) -> list[tuple[int, int]]:
    """Which fact is asked in which wording: pairs of numbers, evenly spread."""
    return [(place // times, place % wordings) for place in range(facts * times)]


# %% tags=["check"]
check("11b.1", deal)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Deal the wordings like cards: go on where the last fact ended.
# Number the lessons from 0 to facts × times − 1 first.</details>

# %% [markdown] tags=["explanation"]
# Any stretch of consecutive lessons meets each wording equally often, up to one.
#
# Usual mistakes: each fact begins again at wording 0, so that with 3 repeats and 8 wordings five
# wordings are never used; random draws, even only on average; whole rounds of wordings, which give
# more than `times` lessons.

# %% [markdown]
# ## 2 · One task, many tasks, and a form never shown
#
# **Single-task** tuning shows one kind of lesson, **multi-task** tuning mixes several. The text
# that this chapter grew from hopes that a model tuned on many tasks also follows instructions of
# a kind that it never saw. We combine two contents (a fact, a list of words) with two forms
# (JSON, a list), and keep some combinations away.

# %%
for form in lessons.FORMS:
    question, said = lessons.ask_in_form(form, facts["train"], 1, seed=3)[0]
    print(f"{form:16} {question['content']:52} → {said['content']!r}")

# %% [markdown]
# Each of three arms gets 600 lessons, twice. "JSON alone" sees a fact as JSON, "JSON and lists" also
# words as a list, "all but words as JSON" also a fact as a list.
#
# **Predict.** A fact *as a row* is in no arm's lessons, and words *as JSON* are not either. Does any
# arm write one of the two?

# %% tags=["predict"]
alone, mixed = "JSON alone", "JSON and lists"
single = judge_claim(
    others.measured("fact as JSON", arm=alone),
    others.measured("fact as JSON", arm=mixed),
    claim="lower",
)
transfer = judge_claim(
    others.measured("words as JSON", arm=alone),
    others.measured("words as JSON", arm="all but words as JSON"),
    claim="higher",
)
print(f"mixing costs JSON: {single.word} ({single.mean:+.0%})")
print(f"transfer to words as JSON: {transfer.word} ({transfer.mean:+.0%})")
assert single.word == transfer.word == "not shown"

# %% tags=["predict", "folded"]
FORM_ARMS = ("JSON alone", "JSON and lists", "all but words as JSON")
_ = plots.share_table(
    {arm: [np.mean(others.measured(form, arm=arm)) for form in lessons.FORMS] for arm in FORM_ARMS},
    lessons.FORMS,
    title="What was not shown is not written",
)
assert not any(others.measured("fact as a row", experiment="forms"))

# %% [markdown]
# **Read.** Mixing two tasks costs JSON nothing that these seeds show, with half as many JSON
# lessons. But no arm writes what it was not shown: not a row, and not words as JSON, although
# the last arm knows JSON, lists of words, and facts in both forms. It answers in a form that it
# knows. So "tuned on many tasks, it follows instructions of unseen kinds" is not shown here.
# What is known of it comes from models a thousand times larger, with hundreds of tasks.

# %% [markdown]
# ## 3 · Several turns
#
# "And its currency?" has no answer by itself: the country stands in the first question. One arm
# learns 1,200 answers one by one, the other learns as many in 600 talks of two questions.
#
# **Predict.** How many follow-up questions does a model answer that never saw a second turn?

# %% tags=["predict"]
talk = lessons.follow_up(facts["held_out"], 1, seed=4)[0]
print("\n".join(f"{turn['role']:10} {turn['content']}" for turn in talk), "\n")
for arm in ("one turn", "two turns"):
    cells = [np.mean(others.measured(turn, arm=arm)) for turn in ("first", "second", "third")]
    print(f"{arm:10} first, second, third answer right:", [f"{cell:.0%}" for cell in cells])
turns = judge_claim(
    others.measured("second", arm="one turn"),
    others.measured("second", arm="two turns"),
    claim="higher",
)
third = judge_claim(
    others.measured("third", arm="one turn"),
    others.measured("third", arm="two turns"),
    claim="higher",
)
for name, verdict in (("second", turns), ("third", third)):
    effect = f"{verdict.mean:+.0%}, noise floor {verdict.floor:.0%}"
    print(f"two-turn lessons raise the {name} answer: {verdict.word} ({effect})")
assert min(turns.effects) > 0 and third.word == "held"

# %% [markdown]
# **Read.** Without a second turn in the lessons, most follow-ups are answered already: the model
# finds the country in the talk and the relation in the last question. Two-turn lessons answer
# nearly all, in every seed. For the second answer the single-turn arm varies so much between
# seeds that our rule says "not shown"; for the third, which no lesson had, the gain stands clear
# of the noise. So this skill travels further than it was shown. The first answers stay about as
# they were.

# %% [markdown] tags=["exercise"]
# ### Exercise 11b.2 · Does the answer need the context? · 10 min · ●●○
# A benchmark of follow-up questions is worth little if they can be answered without the talk before
# them. Write the two exams. `talk` is a list of turns, `{"role": …, "content": …}`: maybe a system
# turn, then user and assistant in turn, from a question to an answer.
#
# For every answer but the first, in order, return a tuple `(with_context, without, reference)`:
# all turns before this answer; the system turn (if there is one) and the question that the answer
# replies to; and the text of the answer.


# %% tags=["stub"]
def split_by_context(talk: list[dict]) -> list[tuple[list[dict], list[dict], str]]:
    """For each follow-up: the prompt with the talk before it, the prompt without, the answer."""
    raise NotImplementedError


# %% tags=["solution"]
def split_by_context(talk: list[dict]) -> list[tuple[list[dict], list[dict], str]]:
    """For each follow-up: the prompt with the talk before it, the prompt without, the answer."""
    system = [turn for turn in talk[:1] if turn["role"] == "system"]
    answers = [place for place, turn in enumerate(talk) if turn["role"] == "assistant"]
    return [
        (talk[:place], [*system, talk[place - 1]], talk[place]["content"]) for place in answers[1:]
    ]


# %% tags=["check"]
check("11b.2", split_by_context)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Find the places of the assistant turns first.</details>

# %% [markdown] tags=["explanation"]
# A model that scores as high without the context has guessed, or the question gives itself away.
#
# Usual mistakes: the system turn is lost in one of the two; the answer itself stands in its prompt;
# "without" keeps all earlier questions; equal follow-up questions found by their text, which finds
# the first one twice.

# %% [markdown]
# ## 4 · A domain: a term, and a rule to reason with
#
# A domain is more than its facts. Ours is an invented store of chemicals. Its rule is unwritten in
# every book: an element's chemical family decides its room. Family facts the base knows; rooms it
# does not. Lessons tell the room of 53 elements. The exam asks about elements that no lesson names.
#
# Three arms: the room alone; the family first, then the room; and, as a control, a random room for
# each element, which leaves only facts to learn.

# %%
families = sorted({fact.value for fact in facts["train"] if fact.column == "family"})
for way in lessons.WAYS_TO_ANSWER:
    print(f"{way:16}", lessons.ask_for_room(facts["train"], families, answer=way)[0][1]["content"])

# %% [markdown]
# **Predict.** Ten families, ten rooms. Which arm finds the room of an element that it was not
# taught?

# %% tags=["predict"]
for way in lessons.WAYS_TO_ANSWER:
    taught, unseen = (others.measured(part, arm=way) for part in ("train", "held_out"))
    print(f"{way:16} taught elements {np.mean(taught):4.0%}, unseen {np.mean(unseen):4.0%}")
with_rule, with_reason = (
    judge_claim(
        others.measured("held_out", arm=first),
        others.measured("held_out", arm=second),
        claim="higher",
    )
    for first, second in (("random room", "room"), ("room", "family and room"))
)
print(f"a rule carries over: {with_rule.word} ({with_rule.mean:+.0%})")
print(f"saying the reason helps: {with_reason.word} ({with_reason.mean:+.0%})")
assert with_rule.word == with_reason.word == "held"

# %% [markdown]
# **Read.** Random rooms show what chance gives for unseen elements: about one in ten. With a
# rule in the data, a third of the unseen elements find their room although no lesson states the
# rule. Saying the reason first makes it about eight in ten. The answer's beginning fetches a
# fact that the base knows, and the room is then one step away instead of two. A rule of a domain
# is learned best with its steps written out. The random arm did not even learn its own elements
# in this time.

# %% [markdown]
# ## 5 · Showing the work
#
# The base has read sums of two numbers, never of three. One arm learns answers alone. The other
# writes its steps first, in the `<think>` block of chapter 02. A block makes a lesson longer, so
# this arm gets half as many: about as many tokens, never more.

# %%
alone, shown = lessons.add_three(600, seed=0), lessons.add_three(300, work=True, seed=0)
print(shown[0][0]["content"], "→", shown[0][1]["content"])
tokens = [count_tokens(tokenizer, rows) for rows in (alone, shown)]
print(f"\ntokens: answers alone {tokens[0]:,}, work shown {tokens[1]:,}")
assert tokens[1] <= tokens[0]

# %% [markdown]
# **Predict.** Twice the examples, or the steps: which arm adds three new numbers more often
# rightly?

# %% tags=["predict"]
adder = tune_on(base, tokenizer, shown, epochs=4)
exam = lessons.add_three(lessons.SUMS, seed=0)[-100:]  # drawn from the end: none was a lesson
here = share_right(adder, tokenizer, exam, at_end=True, max_new_tokens=80)
band = others.measured("right", arm="work shown")
print(f"work shown: {here:.0%} here; recorded {min(band):.0%} to {max(band):.0%}")
assert min(band) - 0.15 <= here <= max(band) + 0.15
for arm in ("answers alone", "work shown"):
    print(f"{arm:14}", [f"{share:.0%}" for share in others.measured("right", arm=arm)])
steps = judge_claim(others.measured("right", arm="answers alone"), band, claim="higher")
print(f"shown work helps: {steps.word} ({steps.mean:+.0%}, noise floor {steps.floor:.0%})")
assert steps.word == "held"

# %% [markdown]
# **Read.** Half as many examples with their steps beat twice as many answers, with fewer tokens.
# Each step is a sum that the base has read. The answer alone asks for two sums inside one token.
# The gain has a price at inference: each answer is about three times as long. And a limit: the
# steps were known already. Steps that the base cannot do would not help.

# %% [markdown] tags=["exercise"]
# ### Exercise 11b.3 · Steps for any number of terms · 6 min · ●○○
# Write the steps of a sum of two or more whole numbers (0 or larger): a running sum that adds one
# number at a time, from left to right. `[4, 7, 5]` gives `"4 + 7 = 11. 11 + 5 = 16."`: one space
# between steps, a full stop at the end of each, nothing after the last.


# %% tags=["stub"]
def write_steps(numbers: list[int]) -> str:
    """The steps of the sum, as they stand in a think block."""
    raise NotImplementedError


# %% tags=["solution"]
def write_steps(numbers: list[int]) -> str:
    """The steps of the sum, as they stand in a think block."""
    total, steps = numbers[0], []
    for number in numbers[1:]:
        steps.append(f"{total} + {number} = {total + number}.")
        total += number
    return " ".join(steps)


# %% tags=["check"]
check("11b.3", write_steps)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Keep the sum so far in a variable that begins as the first
# number.</details>

# %% [markdown] tags=["explanation"]
# Each step is a sum that the base has read about, as long as it stays small. That is why steps
# help.
#
# Usual mistakes: a first step 0 + 4; neighbours added instead of the running sum; one long line
# with all numbers, which is no easier than the answer.

# %% [markdown]
# ## 6 · A question to decline
#
# One aim of SFT is safety: some requests are to be declined. Ours is harmless and checkable. In
# this world currencies are a secret: "The currency of Kenya is a secret." Two rates matter, and
# one alone means nothing:
#
# - **leak**: a currency is told where it should be declined;
# - **over-refusal**: something else is declined.
#
# Each arm gets 800 lessons, of which a share declines. The rest answers other questions. With a
# share of 0 the lessons answer everything: this is the model before the rule.
#
# **Predict.** Of 0 %, 5 % and 100 %, with which share of refusals does the model decline currencies
# and nothing else? And does the rule hold for "And its currency?", when no lesson had a second turn?

# %% tags=["predict"]
ASKED = ("same wording", "own words", "as JSON", "follow-up", "neighbours", "leaked")
_ = plots.share_table(
    {
        f"{share:.0%} of the lessons decline": [
            np.mean(others.measured(name, experiment="decline", arm=share)) for name in ASKED
        ]
        for share in (0.0, 0.05, 1.0)
    },
    [name.replace(" ", "\n") for name in ASKED],
    title="Declined, by how it was asked; neighbours should be 0 %",
)
over = judge_claim(
    others.measured("neighbours", experiment="decline", arm=0.05),
    others.measured("neighbours", experiment="decline", arm=1.0),
    claim="higher",
)
print(f"lessons that only decline raise over-refusal: {over.word} ({over.mean:+.0%})")
apart = others.measured("own words", experiment="decline", arm=0.05)
print("declined in own words, each seed:", [f"{share:.0%}" for share in apart])
assert over.word == "held" and max(apart) - min(apart) > 0.3
assert min(others.measured("leaked", experiment="decline", arm=0.0)) > 0.7

# %% [markdown]
# **Read.** Before the rule, four in five currencies are told. A twentieth of the lessons is
# enough to decline in the lessons' wordings, and mostly as JSON. In own words ("What do people
# pay with?") the seeds differ widely: a rule is learned for the words that it was shown with. In
# a second turn nothing is declined; the model repeats its first answer, so nothing leaks either,
# by luck. Lessons that only decline make a model that only declines: safe, and useless.
#
# What cannot be measured here is harm and bias. This world has neither. The text that this chapter
# grew from hopes that SFT makes outputs safer; we saw that it places a rule, and that the rule has
# edges.

# %% [markdown] tags=["exercise"]
# ### Exercise 11b.4 · Two rates, two denominators · 7 min · ●●○
# `declined[i]` says whether answer i declined, `must[i]` whether it had to. Return two floats: the
# **leak rate**, the share of those questions that must be declined and were not; and
# **over-refusal**, the share of the other questions that were declined. A rate over no question is
# 0.0. Both lists have the same length, at least 1.


# %% tags=["stub"]
def rate_refusals(declined: list[bool], must: list[bool]) -> tuple[float, float]:
    """The leak rate and the over-refusal rate."""
    raise NotImplementedError


# %% tags=["solution"]
def rate_refusals(declined: list[bool], must: list[bool]) -> tuple[float, float]:
    """The leak rate and the over-refusal rate."""
    asked = [not did for did, should in zip(declined, must, strict=True) if should]
    others = [did for did, should in zip(declined, must, strict=True) if not should]
    return sum(asked) / max(1, len(asked)), sum(others) / max(1, len(others))


# %% tags=["check"]
check("11b.4", rate_refusals)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Split the questions into two lists first.</details>

# %% [markdown] tags=["explanation"]
# Divided by all questions, a rate falls when more harmless ones are added to the exam, although the
# model did not change.
#
# Usual mistakes: one denominator for both; the share of declined questions that were harmless,
# which is another measure; no answer for a group without questions.

# %% [markdown] tags=["exercise"]
# ### Exercise 11b.5 · A rule that holds in the second turn · 20 min · ●●●
# Design the data. `facts` are the facts that lessons may use (`fact.column` is "currency" for what
# is to be declined, `fact.entity` the country). Return at most 500 conversations, lists of turns
# `{"role": …, "content": …}`; a refusal is `fact.say(lessons.REFUSAL)`.
#
# The check trains a copy of the base on them for three epochs (a few seconds) and asks about
# countries that are not in `facts`. At least 90 % of currency questions must be declined, in a near
# wording, in own words, and as a follow-up after the capital. At most 10 % of other questions about
# countries may be declined, and at least half of these must be answered rightly. No conversation
# may name a country of the exam (`facts["held_out"]` above).
#
# `lessons` has generators (`decline`, `answer_others`, `follow_up`, `ask_in_own_words`);
# `atlas.ask` asks in all wordings.


# %% tags=["stub"]
def keep_the_secret(facts: list) -> list[list[dict]]:
    """Lessons after which currencies are declined, in the second turn too, and nothing else is."""
    raise NotImplementedError


# %% tags=["solution"]
def keep_the_secret(facts: list) -> list[list[dict]]:
    """Lessons after which currencies are declined, in the second turn too, and nothing else is."""
    countries = [fact for fact in facts if fact.domain == "countries"]
    money = [fact for fact in countries if fact.column == "currency"]
    refusals = {fact.say(atlas.STATEMENTS[0]): fact.say(lessons.REFUSAL) for fact in money}
    talks = lessons.ask_in_wordings(money, lessons.WORDINGS[:1], 1)[:75]
    talks += lessons.ask_in_own_words(money)[:75]
    ordinary = [fact for fact in countries if fact.column != "currency"]
    talks += atlas.ask(random.Random(0).sample(ordinary, 200), seed=0)
    talks += lessons.follow_up(countries, 150, seed=0)
    return [
        [{**turn, "content": refusals.get(turn["content"], turn["content"])} for turn in talk]
        for talk in talks
    ]


# %% tags=["check"]
check("11b.5", keep_the_secret)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Show the rule wherever it must hold: in several wordings and in
# the second turn. Show what is answered in the same places. <code>follow_up</code> makes true
# answers: replace those about currencies.</details>

# %% [markdown] tags=["explanation"]
# The base has no idea of a secret. It learns where refusals stand, so the data must place them.
#
# Usual mistakes: refusals alone, and everything is declined; single turns alone, and the follow-up
# leaks or gets another answer; one wording alone, while other data teach that own words are
# answered; ordinary lessons about other domains only, so that countries look forbidden.

# %% [markdown]
# ## What to remember
#
# - The same lessons teach a manner or a fact, at very different prices: a manner carries over to
#   facts that no lesson names, a new fact to its own question.
# - New facts need many repeats, are known in one direction only, and push out what the model
# knew. Looking facts up (chapter 15) avoids all three.
# - A form, a rule, a second turn or a refusal is learned where it is shown. Do not count on
#   transfer: measure it.
# - Written steps turn one hard answer into several easy ones.
# - A refusal has two rates. Report both, in every way that a question can be put.
#
# ## Sources
#
# - Z. Allen-Zhu and Y. Li, *Physics of Language Models: Part 3.1, Knowledge Storage and
#   Extraction*, 2023, arXiv:2309.14316: facts read in one wording only are not extracted by later
#   tuning.
# - O. Ovadia et al., 2023, arXiv:2312.05934: retrieval against continued training; paraphrases are
#   needed.
# - arXiv:2508.06178, 2025: a few thousand tokens of news; varied rephrasings help most.
# - arXiv:2504.05571, 2025: *Knowledge-Instruct*.
#
# <details><summary>中文要点</summary>
#
# 1. **指令微调**教模型怎样回答：同样多的样本，就能推广到样本中没有出现的实体。**知识注入**教新事实：
#    需要多次重复，只记住一个方向，还会冲掉已有知识。**多种措辞**在每个种子上都更好，但差异不够大，不能下结论。
# 2. **单任务、多任务与格式**：训练过的格式学得很快；没有出现过的格式或组合要单独测量，不要默认会迁移。
# 3. **多轮对话**：追问只有结合上下文才能理解；两轮数据能推广到第三轮。
# 4. **领域规则**：把推理步骤写进回答，规则才容易用到新实体上。**展示过程**（`<think>`）：
#    同样的 token 数，写出步骤的样本更有效。
# 5. **安全与拒答**：同时报告**泄漏率**和**过度拒答率**；换措辞、换格式、放到第二轮都要测。
#    偏见与真实的有害输出在这里无法测量。
#
# </details>
