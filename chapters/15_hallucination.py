# %% [markdown]
# # 15 · What it does not know, it says all the same
#
# **The question.** A tuned model answers questions about things it never read of, fluently and
# falsely. Why does it, can we see it coming, and what makes it say "I do not know" instead?
#
# **By the end you can**
# - *tell apart* four types of hallucination and count each of them by a program;
# - *diagnose* which of four causes is at work, and what unknown facts in a tuning set do;
# - *design* a model that declines: by its lessons, by a threshold, or by asking it several times.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 00 to 04 and 09 | CPU, no network | about 50 s | 6, about 70 minutes | D9 D10 L16 |

# %% tags=["setup"]
import random

import matplotlib.pyplot as plt
import numpy as np
import torch

# %% tags=["setup"]
from sft_lab import abstention, atlas, plots
from sft_lab.abstention import answer_scored, is_declined
from sft_lab.chat import generate_responses
from sft_lab.compare import compare
from sft_lab.course.checks import check
from sft_lab.course.results import read_results
from sft_lab.course.short_runs import tune_on
from sft_lab.course.unknown_runs import (
    COVERAGES,
    DECODING,
    NOT_KNOWN,
    answers_to,
    ask_unfamiliar,
    count_types,
    draw_answers,
    is_hallucinated,
    measure_share,
    tune_unfamiliar,
    type_exams,
    types_lessons,
    unknown_exams,
)

# %% tags=["setup"]
from sft_lab.course.views.threshold import (
    TYPES,
    Asked,
    draw_causes,
    draw_decoding,
    draw_defaults,
    draw_share,
    draw_taught,
    draw_threshold,
    draw_types,
    explore_threshold,
    point_of,
)
from sft_lab.course.views.widgets import show_widget
from sft_lab.metrics import is_right, normalise
from sft_lab.models import load
from sft_lab.significance import judge_claim

plots.style()
base, tokenizer = load("atlas-base")

# %% [markdown]
# ## 1 · Four types and four causes
#
# A **hallucination** is an answer that reads well and is made up. There are four types. What is
# made up differs, and so does the judge that can find it.

# %%
_ = draw_types()

# %% [markdown]
# To count all four, one model learns 680 true lessons: 120 facts, 200 sums, 60 facts as JSON, and
# 300 answers that repeat a note and name it as their source.
#
# Then come **hard** questions: unknown entities; sums of larger numbers; XML, which no lesson
# shows; and a source where no note holds the answer.
#
# **Predict.** A careful student would leave all four blank. Which share of its answers does the model
# make up, for each type?

# %% tags=["predict"]
student = tune_on(base, tokenizer, types_lessons(seed=0), epochs=4, seed=0)
for kind, exam in type_exams(hard=True, count=12).items():
    answers = answers_to(student, tokenizer, exam, max_new_tokens=40)
    for (question, reference), answer in zip(exam, answers, strict=True):
        if is_hallucinated(kind, question["content"], answer, reference["content"]):
            print(f"{kind:12} {question['content']}\n{'':12} → {answer}\n")
            break

# %% tags=["predict"]
counted = {
    "as taught": count_types(student, tokenizer),
    "T 1": count_types(student, tokenizer, temperature=1.0),
    "hard": count_types(student, tokenizer, hard=True),
}
for name, shares in counted.items():
    print(f"{name:10}" + "".join(f"  {kind} {share:4.0%}" for kind, share in shares.items()))
for kind in TYPES:
    assert counted["as taught"][kind] < 0.3 and counted["hard"][kind] > counted["as taught"][kind]

# %% [markdown]
# **Read.** It answers, in the form it was taught, and of each type it makes up more where questions
# are hard. Each false answer is a *small step* away from a true one: a value of the right kind, a
# number of the right size, a form that fits another request, a true claim with a made-up source.
# Its form does not give it away.

# %% [markdown] tags=["exercise"]
# ### Exercise 15.1 · Does the source say so? · 10 min · ●●○
# A prompt has any number of notes (maybe none), one a line, each of the form `CLAIM (note N).`; its
# last line is the question. An answer is one or more sentences of the same form, with one space
# between them. Its claims hold no full stop and no brackets; N is a whole number from 1.
#
# A sentence is **supported** when a line of the prompt is exactly this sentence: the same claim
# with the same number. Return the numbers N of the sentences that are not supported, in the order
# of the answer, one for each (a list of ints).


# %% tags=["stub"]
def unsupported(prompt: str, answer: str) -> list[int]:
    """The numbers of the sources that are not there, or that say something else."""
    raise NotImplementedError


# %% tags=["solution"]
def unsupported(prompt: str, answer: str) -> list[int]:
    """The numbers of the sources that are not there, or that say something else."""
    sentences = [part.strip() + ")." for part in answer.split(").") if part.strip()]
    lines = prompt.splitlines()
    return [int(one.rpartition("note ")[2][:-2]) for one in sentences if one not in lines]


# %% tags=["check"]
check("15.1", unsupported)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Cut the answer into sentences after each ")." and look each of
# them up among <code>prompt.splitlines()</code>.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: looking for the number alone, or for the claim alone; looking in the whole prompt
# instead of its lines, where "Nobody says that …" supports what it denies.
#
# A real source says things in other words. Chapter 15b builds a judge for that.

# %% [markdown]
# ### The causes, switched one by one
#
# There are four **causes**, too. Three can be switched here, each alone: the *data* (half of the
# lessons wrong, in the way of their type), the *sampling* (a temperature T), and the *question*
# (the hard ones). The fourth, the *objective*, is section 2.
#
# Recorded by `tools/experiments/15_causes.py`, three seeds an arm, like every sweep below.
# **Hypothesis:** each cause raises each type; measure: the share of hallucinated answers.
# **Predict** which cause spares which type.

# %% tags=["predict"]
causes = read_results("15_causes", base)
COLUMNS = {
    "as taught": (0.0, "at 0.0"),
    "25 % wrong": (0.25, "at 0.0"),
    "50 % wrong": (0.5, "at 0.0"),
    "T 1": (0.0, "at 1.0"),
    "T 1.5": (0.0, "at 1.5"),
    "hard": (0.0, "hard"),
}
_ = draw_causes(causes, COLUMNS)

# %% tags=["predict"]
words = {}
for title in ("50 % wrong", "T 1", "T 1.5", "hard"):
    wrong, ending = COLUMNS[title]
    for kind in TYPES:
        before = causes.measured(f"{kind} at 0.0", wrong=0.0)
        after = causes.measured(f"{kind} {ending}", wrong=wrong)
        verdict = judge_claim(before, after, claim="higher")
        words[title, kind] = verdict.word
        print(
            f"{title:10} {kind:12} {verdict.mean:+6.1%}  floor {verdict.floor:5.1%}  {verdict.word}"
        )
for kind, share in counted["as taught"].items():  # run above, recorded on another machine
    band = causes.measured(f"{kind} at 0.0", wrong=0.0)
    assert min(band) - 0.12 <= share <= max(band) + 0.12, kind
spared = {pair for pair, word in words.items() if word != "held"}
assert spared == {("T 1", kind) for kind in ("facts", "logic", "source")}
assert max(causes.measured("instruction at 0.0", wrong=0.25)) < 0.05

# %% [markdown]
# **Read.** Hard questions, half of the lessons wrong, and T 1.5 raise all four types (held). The
# form breaks in one jump, because greedy decoding follows the majority: a quarter wrong leaves it
# right, a half does not. At T 1 only the rise of the form held; the others are within the noise.
# The run above falls into the recorded band.
#
# A question can also rest on something false, or leave open what is asked; and two answers can
# contradict each other. **Predict** how often the student answers "What is the capital of iron?",
# and for which entities two wordings get two answers.

# %% tags=["predict"]
facts = unknown_exams()
elements = [fact for fact in facts["known"] if fact.domain == "elements"]
no_answer = {
    "false": [f"What is the capital of {fact.entity}?" for fact in elements],
    "unclear": [f"What about {fact.entity}?" for fact in elements],
}
answered = {}
for name, texts in no_answer.items():
    said = generate_responses(student, tokenizer, texts, max_new_tokens=24)
    claims = [bool(text.strip()) and not is_declined(text) for text in said]
    answered[name] = np.mean(claims)
    print(f"{name:8} answered {answered[name]:4.0%}, such as: {texts[0]} → {said[0]}")
assert min(answered.values()) > 0.8

# %% tags=["predict"]
shares_split = {}
for name in ("known", "unknown"):
    one, other = (
        answers_to(student, tokenizer, atlas.ask(facts[name][:80], template=wording))
        for wording in ("What is the {r} {e}?", "Please tell me the {r} {e}.")
    )
    split = [normalise(a) != normalise(b) for a, b in zip(one, other, strict=True)]
    shares_split[name] = np.mean(split)
    print(f"{name:8} two wordings, two answers: {shares_split[name]:.0%}")
assert shares_split["unknown"] > shares_split["known"] + 0.1

# %% [markdown]
# **Read.** It answers them all: even an element gets a capital. And it contradicts itself far more
# often about unknown entities than about known facts. An invented answer is less *stable* than a
# known one; section 6 makes use of that.

# %% [markdown]
# ## 2 · The objective: a guess costs nothing
#
# Cross-entropy asks for the answer of the lesson, which is never "I do not know" here. Exams do the
# same: most give a point for a right answer, and nothing for a wrong one *or a blank*. Kalai et al.
# (2025) argue that models hallucinate because such grading rewards the guess.
#
# To see it, a model learns 400 facts that the base has read. It is asked about 200 others of these,
# and 200 about entities that the base never read. Its **confidence** is the probability of the
# least likely token of an answer.

# %%
guesser = tune_unfamiliar(base, tokenizer, "none", seed=0)
mixed = facts["known"] + facts["unknown"]
questions = atlas.ask(mixed, template=atlas.UNSEEN_QUESTION)
given = answer_scored(guesser, tokenizer, [turns[:-1] for turns in questions])
right = np.array(
    [is_right(a.text, t[-1]["content"]) for a, t in zip(given, questions, strict=True)]
)
sure = np.array([answer.least for answer in given])
for place in (0, 1, 200, 203):
    print(f"{sure[place]:.2f}  {given[place].text}  {'right' if right[place] else 'invented'}")
print(f"right: known {right[:200].mean():.0%}, unknown {right[200:].mean():.0%}")
print(f"declined: {sum(is_declined(answer.text) for answer in given)} of {len(given)}")
assert right[:200].mean() > 0.9 and right[200:].mean() < 0.3
assert not any(is_declined(answer.text) for answer in given)

# %% [markdown]
# Now we grade it: 1 for a right answer, 0 for a blank, minus a **penalty** for a wrong answer. The
# model answers where its confidence reaches a threshold. **Predict:** which threshold gets the most
# points, for a penalty of 0, and for one of 9?

# %% tags=["predict"]
thresholds = np.linspace(0, 0.99, 100)
scores, best = {}, {}
for penalty in (0, 1, 3, 9):
    points = np.where(right, 1.0, -penalty)
    scores[penalty] = [points[sure >= t].sum() / len(points) for t in thresholds]
    best[penalty], most = thresholds[int(np.argmax(scores[penalty]))], max(scores[penalty])
    print(f"penalty {penalty}: threshold {best[penalty]:.2f}, {most:.2f} points a question")

# %% tags=["predict", "folded"]
for penalty, line in scores.items():
    plt.plot(thresholds, line, label=f"penalty {penalty}")
plt.ylim(-1, 1)
plt.xlabel("threshold on the confidence")
plt.ylabel("points a question")
plt.legend()
_ = plt.title("Without a penalty, silence never pays")
assert best[0] < 0.05 < 0.2 < best[9]

# %% [markdown]
# **Read.** Without a penalty, a threshold near 0 is best: each answer held back might have been
# right. So a model chosen by such an exam learns to guess. With a penalty the best threshold rises,
# above 0.2 for 9. Kalai et al. would write the penalty into the prompt.

# %% [markdown] tags=["exercise"]
# ### Exercise 15.2 · When does a guess pay? · 8 min · ●●○
# Confidences are **calibrated**: an answer of confidence c is right with probability c. An exam
# gives 1 for a right answer, 0 for a blank and `-penalty` for a wrong one (`penalty` ≥ 0). You may
# answer each question or leave it blank. Return the best expected score, as a mean over all
# questions (at least one).


# %% tags=["stub"]
def best_score(confidence: list[float], penalty: float) -> float:
    """The mean expected score of the best choice for each question."""
    raise NotImplementedError


# %% tags=["solution"]
def best_score(confidence: list[float], penalty: float) -> float:
    """The mean expected score of the best choice for each question."""
    return sum(max(0.0, c - (1 - c) * penalty) for c in confidence) / len(confidence)


# %% tags=["check"]
check("15.2", best_score)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>What is an answer of confidence c worth on average? Compare that
# with 0.</details>

# %% [markdown] tags=["explanation"]
# An answer is worth $c - (1 - c)\,k$ for a penalty $k$. That is above 0 when $c > k / (1 + k)$: 0,
# one half and 0.9 for $k$ = 0, 1 and 9.
#
# Usual mistakes: one limit for all penalties; the mean over answered questions alone; one decision
# for the whole exam.

# %% [markdown]
# ## 3 · Unknown facts in the tuning set
#
# Gekhman et al. (2024) warn that a model tuned on new facts hallucinates about *old* ones. We
# repeat their experiment: 320 facts, a share of them about invented entities, for ten epochs at a
# constant rate. The exam asks for facts that the base has read and no lesson names.
#
# **Hypothesis:** with half of the lessons unknown, right answers to known facts are lower late
# (mean of epochs 8 to 10) than with none. **Predict** two curves: when are known lessons fitted,
# and when unknown ones?

# %% tags=["predict"]
EARLY, LATE = 2, slice(7, 10)  # epoch 2, and the mean of epochs 8 to 10
shares = read_results("15_share", base)
_ = draw_share(shares, EARLY, LATE)


# %% tags=["predict"]
def held_out(when: int | slice, share: float, known_only: bool = False) -> list[float]:
    """Right answers to known facts, one number a seed."""
    runs = shares.measured("held_out", share=share, known_only=known_only)
    return [float(np.mean(run[when])) for run in runs]


PAIRS = {
    "early: half unknown against none": (held_out(EARLY - 1, 0.0), held_out(EARLY - 1, 0.5)),
    "late: half unknown against none": (held_out(LATE, 0.0), held_out(LATE, 0.5)),
    "late: three quarters against none": (held_out(LATE, 0.0), held_out(LATE, 0.75)),
    "late: all unknown against none": (held_out(LATE, 0.0), held_out(LATE, 1.0)),
    "late: half unknown against these left out": (held_out(LATE, 0.5, True), held_out(LATE, 0.5)),
    "none unknown: late against early": (held_out(EARLY - 1, 0.0), held_out(LATE, 0.0)),
    "half unknown: late against early": (held_out(EARLY - 1, 0.5), held_out(LATE, 0.5)),
}
words = {}
for name, (first, second) in PAIRS.items():
    verdict = judge_claim(first, second, claim="lower")
    words[name] = verdict.word
    print(f"{name:42} {verdict.mean:+6.1%}  floor {verdict.floor:5.1%}  {verdict.word}")
assert [name for name, word in words.items() if word == "held"] == [
    "late: three quarters against none",
    "late: all unknown against none",
    "none unknown: late against early",
]

# %% tags=["predict"]
again = measure_share(base, tokenizer, 0.5, epochs=2, seed=0)
for name in ("held_out", "known", "unknown"):
    band = [run[1] for run in shares.measured(name, share=0.5, known_only=False)]
    print(
        f"{name:8} after epoch 2: {again[name][1]:.2f}, recorded {min(band):.2f} to {max(band):.2f}"
    )
    assert min(band) - 0.12 <= again[name][1] <= max(band) + 0.12
assert again["known"][1] > again["unknown"][1] + 0.15

# %% [markdown]
# **Read.** Known lessons are fitted by epoch 2, unknown ones by about 5. But the hypothesis is *not
# shown*: with half unknown the late loss is larger in the mean, within the noise. Long tuning alone
# costs known facts: with none unknown the exam falls, too (held). Nor is it shown that leaving the
# unknown half out helps; that halves the steps as well. At three quarters and more, which the
# hypothesis did not name, the loss is above the noise. After unknown facts alone the model answers
# mostly wrongly.
#
# ### Did hallucination grow with tuning?
#
# A base says nothing of use through a chat template. So we ask both in plain text: "The capital of
# Liberia is".

# %%
before = shares.select(share="before")[0]
CHANGES = {
    "known: completed rightly": ("plain known right", "lower"),
    "unknown: a value of the right kind": ("plain unknown fits", "higher"),
    "unknown: P of the likeliest token": ("plain unknown sure", "higher"),
}
for name, (measure, claim) in CHANGES.items():
    line = f"{name:34} base {before[measure]:4.2f}"
    for lessons, share in (("known", 0.0), ("half unknown", 0.5)):
        after = shares.measured(measure, share=share, known_only=False)
        word = judge_claim([before[measure]] * len(after), after, claim=claim).word
        line += f"   {lessons} lessons {np.mean(after):4.2f} {word}"
        assert word == ("not shown" if claim == "lower" else "held")
    print(line)

# %% [markdown]
# **Read.** About unknown entities the tuned models say a value of the right kind more often than
# the base, and are about twice as sure of it. That held with known lessons *alone*, too. So tuning
# makes this model surer of its inventions, whatever the lessons are about. It also gets known facts
# wrong, where the base made no mistake, but the seeds differ too much for a verdict.

# %% [markdown]
# ## 4 · What unfamiliar lessons say becomes the default
#
# What *is* learned from lessons about the unknown? Kang et al. (2024) answer: a model that meets an
# unfamiliar question says what the *labels* of unfamiliar lessons said. We take 300 lessons about
# known facts, and 100 about invented entities with one kind of label:
#
# - **none**: 400 known facts and no invented entity;
# - **made up**: a value of the relation, drawn for each entity;
# - **one value**: for each relation one and the same value;
# - **I do not know**: these four words; or **not known**: "The capital of Tavoru is not known."
#
# **Predict:** what does "one value" say about real entities that it never read of? Which of the two
# ways to decline is learned better?

# %%
unfamiliar = read_results("15_unfamiliar", base)
KINDS = ("none", "made up", "one value", "I do not know", "not known")

# %% tags=["predict", "folded"]
_ = draw_defaults(unfamiliar, KINDS, "unknown", "What the lessons say becomes the default")

# %% tags=["predict"]
CLAIMS = {
    "one value": ("unknown default", "none"),
    "I do not know": ("unknown declined", "none"),
    "not known": ("unknown declined", "none"),
}
words, costs = {}, []
for kind, (measure, other) in CLAIMS.items():
    first, second = (unfamiliar.measured(measure, labels=k) for k in (other, kind))
    verdict = judge_claim(first, second, claim="higher")
    words[kind] = verdict.word
    known = np.mean(unfamiliar.measured("known right", labels=kind))
    refused = np.mean(unfamiliar.measured("known declined", labels=kind))
    print(
        f"{kind:14} {measure:17} {verdict.mean:+6.1%}  floor {verdict.floor:5.1%}  "
        f"{verdict.word:9}  known: right {known:.0%}, declined {refused:.1%}"
    )
    costs.append((known, refused))
print("I do not know, by seed:", unfamiliar.measured("unknown declined", labels="I do not know"))
assert words == {"one value": "held", "I do not know": "not shown", "not known": "held"}
assert all(known > 0.9 and refused < 0.03 for known, refused in costs)

# %% tags=["predict"]
decliner = tune_unfamiliar(base, tokenizer, "not known", seed=0)
found = ask_unfamiliar(decliner, tokenizer, seed=0)
for measure in ("unknown declined", "known right", "known declined"):
    band = unfamiliar.measured(measure, labels="not known")
    print(f"{measure:17} {found[measure]:.2f}, recorded {min(band):.2f} to {max(band):.2f}")
    assert min(band) - 0.12 <= found[measure] <= max(band) + 0.12

# %% [markdown]
# **Read.** "One value" and "not known" become the default (held), on real entities that no lesson
# resembles. "Made up" has no answer in common, and nothing takes over. "I do not know" is *not
# shown*: one seed declines most of the unknown, one a quarter, one none. Declining where the value
# would stand works in every seed. None costs more than a few known facts.

# %% [markdown]
# ### The same on a real model
#
# The known facts of smollm2-135m are those about countries that it got right before. It was tuned
# on 96 of these and 48 about invented countries, for four epochs.

# %%
real = read_results("15_smollm2")
REAL_KINDS = ("none", "made up", "one value", "I do not know")
_ = draw_defaults(real, REAL_KINDS, "invented", "smollm2-135m: the same on a real model")
for kind, measure in (("one value", "invented default"), ("I do not know", "invented declined")):
    first, second = (real.measured(measure, labels=k) for k in ("none", kind))
    verdict = judge_claim(first, second, claim="higher")
    refused = np.mean(real.measured("known declined", labels=kind))
    assert verdict.word == "held" and np.mean(second) > 0.85 and refused < 0.05
    print(
        f"{kind:14} {verdict.mean:+6.1%}  floor {verdict.floor:5.1%}  {verdict.word}; "
        f"known facts declined {refused:.0%}"
    )

# %% [markdown]
# **Read.** Held on a real model, for "I do not know" as well: nine in ten invented countries get
# what was taught, and hardly a known fact is declined. With 80 known questions a seed, small costs
# would not be seen.

# %% [markdown]
# ## 5 · A threshold, and what it is worth
#
# The threshold of section 2 declines, too. It works if right answers are surer than wrong ones.
# **AUROC** measures that: draw a right and a wrong answer; how often is the right one surer? A coin
# gets 0.5, a perfect order 1.0.

# %% [markdown] tags=["exercise"]
# ### Exercise 15.3 · AUROC · 12 min · ●●○
# Return the chance that a random positive has a higher score than a random negative. A tie counts
# one half. `scores` are finite, `positive[i]` says whether score i belongs to a positive; there is
# at least one of each kind.


# %% tags=["stub"]
def auroc(scores: list[float], positive: list[bool]) -> float:
    """The chance that a positive stands above a negative."""
    raise NotImplementedError


# %% tags=["solution"]
def auroc(scores: list[float], positive: list[bool]) -> float:
    """The chance that a positive stands above a negative."""
    ranks = {
        s: sum(t < s for t in scores) + (1 + sum(t == s for t in scores)) / 2 for s in {*scores}
    }
    ones = sum(map(bool, positive))
    total = sum(ranks[s] for s, is_one in zip(scores, positive, strict=True) if is_one)
    return (total - ones * (ones + 1) / 2) / (ones * (len(scores) - ones))


# %% tags=["check"]
check("15.3", auroc)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Two loops over all pairs will do. Faster: add up the ranks of the
# positives (ties share the mean of theirs). What is the least that this sum can be?</details>

# %% [markdown] tags=["explanation"]
# A positive's rank counts the scores below it. The sum of ranks, less its least value $n(n+1)/2$,
# counts the pairs in the right order.
#
# Usual mistakes: ties as 0 or 1; ranks from the order of the list, which ties leave to chance;
# dividing by all pairs; taking the accuracy at one threshold.

# %%
for name in ("least", "mean", "whole"):
    scores = [getattr(answer, name) for answer in given]
    print(f"AUROC, {name:5} probability: {abstention.auroc(scores, right):.3f}")
brute = np.mean([(a > b) + 0.5 * (a == b) for a in sure[right] for b in sure[~right]])
np.testing.assert_allclose(abstention.auroc(sure, right), brute)
assert abstention.auroc(sure, right) > 0.85

# %% [markdown]
# A threshold trades **coverage**, the share of questions answered, for **risk**, the share of wrong
# answers among those given. Move it: which sure answer is wrong?

# %%
asked = [
    Asked(turns[0]["content"], answer.text, float(c), bool(ok))
    for turns, answer, c, ok in zip(questions, given, sure, right, strict=True)
]
random.Random(1).shuffle(asked)
show_widget(explore_threshold(asked, 0.5), draw_threshold(asked, 0, 0.5))

# %% [markdown] tags=["exercise"]
# ### Exercise 15.4 · A promise about risk · 12 min · ●●●
# Answers with confidence ≥ threshold are given. Choose the threshold among the values in
# `confidence`: the share of wrong answers among those given must be at most `most_risk`, and as
# many answers as possible must be given. Return None when no value keeps the promise. There is at
# least one answer; confidences may be tied.


# %% tags=["stub"]
def choose_threshold(confidence: list[float], right: list[bool], most_risk: float) -> float | None:
    """The threshold that gives the most answers at no more than this risk."""
    raise NotImplementedError


# %% tags=["solution"]
def choose_threshold(confidence: list[float], right: list[bool], most_risk: float) -> float | None:
    """The threshold that gives the most answers at no more than this risk."""
    kept = []
    for threshold in {*confidence}:
        shown = [ok for c, ok in zip(confidence, right, strict=True) if c >= threshold]
        if sum(not ok for ok in shown) / len(shown) <= most_risk:
            kept.append(threshold)
    return min(kept, default=None)


# %% tags=["check"]
check("15.4", choose_threshold)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Of the values that keep the promise, which gives the most
# answers?</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: stopping at the first threshold that breaks the promise; splitting tied answers;
# dividing by all questions.
#
# On another exam the promise holds only on average: report on one that you did not choose on.

# %% [markdown]
# ### Taught or thresholded?
#
# R-Tuning (Zhang et al., 2023) labels lessons by asking the model itself: eight samples for each,
# and "not known" where fewer than k are right. Our base is asked to complete the statement.
#
# **Hypothesis:** at the coverage of a taught model, the threshold has a higher risk. **Predict**
# where the points lie: below the curve, on it, or above?

# %% tags=["predict"]
TAUGHT = ("not known", "own samples 1", "own samples 4", "own samples 7")
_ = draw_taught(unfamiliar, COVERAGES, TAUGHT)


# %% tags=["predict"]
def threshold_risk(coverage: float) -> list[float]:
    """The threshold's risk at this coverage, one number a seed, between the recorded ones."""
    curves = [[row[f"risk at {c}"] for c in COVERAGES] for row in unfamiliar.select(labels="none")]
    return [float(np.interp(100 * coverage, COVERAGES, curve)) for curve in curves]


words, refused = {}, {}
for kind in TAUGHT:
    rows = unfamiliar.select(labels=kind)
    points = [point_of(row) for row in rows]
    curve = [threshold_risk(p.coverage)[seed] for seed, p in enumerate(points)]
    verdict = judge_claim([p.risk for p in points], curve, claim="higher")
    words[kind] = verdict.word
    refused[kind] = np.mean([row["known declined"] for row in rows])
    print(
        f"{kind:14} coverage {np.mean([p.coverage for p in points]):4.0%}  risk taught "
        f"{np.mean([p.risk for p in points]):4.1%}  threshold {np.mean(curve):4.1%}  "
        f"{verdict.word:12} known declined {refused[kind]:.0%}"
    )
assert set(words.values()) == {"not shown"}
assert [kind for kind in TAUGHT if refused[kind] > 0.5] == ["own samples 7"]

# %% [markdown]
# **Read.** Not shown for any labels. "Not known" lies about on the curve of the threshold, which
# needs no lesson and can be moved after training. Own samples depend on k: with 1 of 8, lucky
# guesses pass; with 7 of 8, the model declines most of what it knows.
#
# `compare` counts right, invented and declined answers side by side.

# %%
exam = [
    {"question": turns[0]["content"], "answer": turns[1]["content"], "group": group}
    for group in ("known", "unknown")
    for turns in atlas.ask(facts[group][:60], template=atlas.UNSEEN_QUESTION)
]
report = compare((guesser, tokenizer), (decliner, tokenizer), exam, names=("guesser", "decliner"))
print(report.table())
counts = report.to_dict()
assert counts["base"]["declined"] == 0 < counts["tuned"]["declined"]
assert counts["tuned"]["invented"] < counts["base"]["invented"]

# %% [markdown]
# ## 6 · Decoding, and asking several times
#
# Remedies at decoding are a lower temperature, top-k and top-p, beam search, a repetition penalty,
# and a **consistency filter**. The last asks the guesser of section 2 eight times at temperature 1,
# and answers only if enough of the eight agree.

# %%
some = [facts["known"][0], facts["known"][5], facts["unknown"][0], facts["unknown"][3]]
few = atlas.ask(some, template=atlas.UNSEEN_QUESTION)
_ = torch.manual_seed(0)
for turns, drawn in zip(few, draw_answers(guesser, tokenizer, few), strict=True):
    counts = {text: drawn.count(text) for text in drawn}
    common = sorted(counts.items(), key=lambda pair: -pair[1])[:3]
    print(turns[0]["content"], *(f"\n   {count} × {text}" for text, count in common))

# %% [markdown]
# **Predict:** which other settings cut the inventions about unknown entities? What does the filter
# cost in known facts?

# %% tags=["predict"]
decoding = read_results("15_decoding", base)
WAYS = {way: group for group, settings in DECODING.items() for way in settings}
NEEDED = [f"{needed} of 8" for needed in range(1, 9)]
_ = draw_decoding(decoding, WAYS, NEEDED)

# %% tags=["predict"]
words = {}
greedy = decoding.measured("unknown invented, greedy", group="temperature")
for way, group in {**WAYS, "5 of 8": "consistency"}.items():
    now = decoding.measured(f"unknown invented, {way}", group=group)
    known = np.mean(decoding.measured(f"known right, {way}", group=group))
    words[way] = "" if way == "greedy" else judge_claim(greedy, now, claim="lower").word
    print(f"{way:15} invented {np.mean(now):4.0%}  known right {known:4.0%}  {words[way]}")
assert [way for way, word in words.items() if word == "held"] == ["5 of 8"]
assert [way for way, word in words.items() if word == "did not hold"] == ["T 1.5"]

# %% [markdown]
# **Read.** No setting that picks *one* answer is shown to invent less than greedy decoding, which
# invents for nearly nine of ten unknown entities. T 1.5 invents more, and spoils half of the known
# facts. The filter is different in kind: it may decline. With five of eight, inventions fall to
# about a tenth (held), for a few points of known facts and eight times the computation.
#
# **Semantic entropy** uses more than how many agree: it is the entropy of the answers after those
# that mean the same are put together. That needs a second model as judge; on Atlas, equal text will
# do.

# %% [markdown] tags=["exercise"]
# ### Exercise 15.5 · Semantic entropy · 8 min · ●●○
# Put equal answers together: those that `normalise` (from `sft_lab.metrics`, imported above) makes
# equal. Return the entropy of the shares of the groups, in nats. There is at least one answer; an
# empty one counts like any other.


# %% tags=["stub"]
def semantic_entropy(answers: list[str]) -> float:
    """The entropy over groups of equal answers, in nats."""
    raise NotImplementedError


# %% tags=["solution"]
def semantic_entropy(answers: list[str]) -> float:
    """The entropy over groups of equal answers, in nats."""
    groups = [normalise(answer) for answer in answers]
    shares = np.array([groups.count(group) for group in {*groups}]) / len(groups)
    return float(-(shares * np.log(shares)).sum())


# %% tags=["check"]
check("15.5", semantic_entropy)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>collections.Counter</code> counts the groups; sum up −share
# × log(share).</details>

# %% [markdown] tags=["explanation"]
# It is 0 when all agree, the logarithm of their number when all differ.
#
# Usual mistakes: comparing raw text; counting groups without their sizes; the logarithm to base 2.

# %% [markdown] tags=["exercise"]
# ### Exercise 15.6 · Teach it to decline · 20 min · ●●●
# `known` are 300 facts that the base has read, `invented` 80 facts about entities that nobody has
# (lists of `Fact`: `fact.say("What is the {r} {e}?")` asks, `fact.say("The {r} {e} is {v}.")`
# states). Return at most 400 conversations, each a list of turns `{"role": …, "content": …}`.
#
# The check trains a copy of the base on them for **three** epochs, and asks about 100 known facts
# and 100 about real entities that the base never read; no lesson may name an entity of this exam.
# Of the unknown at least 60 % must be declined, in words that `is_declined` counts; of the known at
# most 10 % may be declined, and at least 80 % answered rightly, by the plain statement.


# %% tags=["stub"]
def teach_to_decline(known: list, invented: list) -> list[list[dict]]:
    """Lessons after which unknown entities are declined, and known facts are not."""
    raise NotImplementedError


# %% tags=["solution"]
def teach_to_decline(known: list, invented: list) -> list[list[dict]]:
    """Lessons after which unknown entities are declined, and known facts are not."""
    talks = atlas.ask(known) + atlas.ask(invented)
    for fact, talk in zip(invented, talks[len(known) :], strict=True):
        talk[1] = {"role": "assistant", "content": fact.say(NOT_KNOWN)}
    return talks


# %% tags=["check"]
check("15.6", teach_to_decline)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Section 4 shows two ways to decline. In which does the model
# decide after the entity and the relation, where a value comes next?</details>

# %% [markdown] tags=["explanation"]
# "I do not know." must be chosen at the first token. "The capital of Tavoru is not known." decides
# where the value would stand: there a known fact has one clear value, an unknown one none.
#
# Usual mistakes: too few refusals; refusals alone; entities of the exam among the lessons.

# %% [markdown]
# ## What to remember
#
# - Four types, four judges. Fluency tells none of them apart from the truth.
# - No lesson and no exam that pays for a guess will make a model silent.
# - An answer that all unfamiliar lessons share can become the default, on a real model as well.
# - The probability of the least likely token tells right from wrong; a threshold on it needs no
#   lesson.
# - A setting that picks one answer cannot decline. Asking several times can.
#
# ## Sources
#
# - A. Kalai et al., *Why Language Models Hallucinate*, 2025, arXiv:2509.04664.
# - Z. Gekhman et al., *Does Fine-Tuning LLMs on New Knowledge Encourage Hallucinations?*, 2024,
#   arXiv:2405.05904.
# - K. Kang et al., *Unfamiliar Finetuning Examples Control How Language Models Hallucinate*, 2024,
#   arXiv:2403.05612.
# - H. Zhang et al., *R-Tuning: Instructing Large Language Models to Say 'I Don't Know'*, 2023,
#   arXiv:2311.09677.
#
# <details><summary>中文要点</summary>
#
# 1. **幻觉**有四种：事实性、逻辑性、指令性、引用型。每一种要用不同的标准去核对：事实表、算术、题目要求、眼前的资料。
# 2. 四个原因可以逐一开关：**数据**（错误标签）、**训练目标**（猜对有分，猜错不扣分）、**采样**（温度）、**提问**（问到没读过的东西）。
# 3. 微调数据里的**未知事实**学得最晚；训练过久本身就会让已知事实变差；
#    未知事实占一半时是否更差，没有得到证实；占四分之三以上时更差。
# 4. 不熟悉的问题上，模型说的是不熟悉样本的**标签**所说的话：教它一个固定值，它就说这个值；
#    教它在值的位置上说“未知”，它就拒答；开头就说 “I do not know” 的，在小模型上因种子而异。
# 5. **拒答**有三条路：教出来的拒答、对自身概率设**阈值**（AUROC、风险–覆盖率曲线）、多次采样的**一致性过滤**。
#    降低温度、top-p、束搜索本身并不能减少对未知实体的编造。
#
# </details>
