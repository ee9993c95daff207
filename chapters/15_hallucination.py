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
    judge_so_far,
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

plots.style()
base, tokenizer = load("atlas-base")
SWEEPS = ("15_causes", "15_share", "15_unfamiliar", "15_decoding")

# %% [markdown]
# ## 1 · Four types and four causes
#
# A **hallucination** is an answer that reads well and is made up. The text that this chapter grew
# from names four types. What is made up differs, and so does the judge that can find it.

# %%
_ = draw_types()

# %% [markdown]
# To count all four we need a model that does all four things. It learns 680 lessons in one run: 120
# facts, 200 sums, 60 facts as JSON, and 300 answers that repeat a note and name it as their source.
# All lessons are true.
#
# Then come **hard** questions. They ask for unknown entities; for sums of larger numbers; for XML,
# a form that no lesson shows; and for a source where no note holds the answer.
#
# **Predict.** A careful student would leave all four blank. What does the model do?

# %% tags=["predict"]
student = tune_on(base, tokenizer, types_lessons(seed=0), epochs=4, seed=0)
for kind, exam in type_exams(hard=True, count=12).items():
    answers = answers_to(student, tokenizer, exam, max_new_tokens=40)
    for (question, reference), answer in zip(exam, answers, strict=True):
        if is_hallucinated(kind, question["content"], answer, reference["content"]):
            print(f"{kind:12} {question['content']}\n{'':12} → {answer}\n")
            break

# %%
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
# **Read.** It answers everything, in the form it was taught. Each false answer is a *small step
# away* from a true one: a value of the right kind, a number of the right size, a form that fits
# another request. The answer with the source may even be true, and only its source is made up.
# Nothing in the form gives any of them away.
#
# The judge of the last type is worth writing yourself.

# %% [markdown] tags=["exercise"]
# ### Exercise 15.1 · Does the source say so? · 10 min · ●●○
# A prompt has any number of notes (maybe none), one a line, each of the form `CLAIM (note N).`; its
# last line is the question. An answer is one or more sentences of the same form, with one space
# between them. A claim of the answer holds no full stop and no brackets; N is a whole number from
# 1.
#
# A sentence is **supported** when a line of the prompt is exactly this sentence: the same claim
# with the same number. Return the numbers N of all sentences that are not supported, in the order
# of the answer, one number for each such sentence (a list of ints; `[]` if there is none).


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
# Usual mistakes: looking for the number alone, which lets a real note stand for a false claim;
# looking for the claim alone, which lets any number pass; looking in the whole prompt instead of
# its lines, where "Nobody says that …" supports what it denies.
#
# The judge of a real system is harder, because a source says things in other words. Chapter 15b
# builds one.

# %% [markdown]
# ### The causes, switched one by one
#
# The same text names four **causes**. Three can be switched here, each alone: the *data* (half of
# the lessons wrong, in the way of their type), the *sampling* (a temperature T), and the *question*
# (the hard ones). The fourth, the *objective*, is section 2.
#
# Recorded by `tools/experiments/15_causes.py`. **Hypothesis:** each cause raises
# each type; measure: the share of hallucinated answers. **Predict** which cause spares which type.

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

# %%
for title in ("50 % wrong", "T 1", "T 1.5", "hard"):
    wrong, ending = COLUMNS[title]
    for kind in TYPES:
        before = causes.measured(f"{kind} at 0.0", wrong=0.0)
        verdict = judge_so_far(
            before, causes.measured(f"{kind} {ending}", wrong=wrong), claim="higher"
        )
        print(
            f"{title:10} {kind:12} {verdict.mean:+6.1%}  floor {verdict.floor:5.1%}  {verdict.word}"
        )
for kind, share in counted["as taught"].items():  # run above, recorded on another machine
    band = causes.measured(f"{kind} at 0.0", wrong=0.0)
    assert min(band) - 0.12 <= share <= max(band) + 0.12, kind

# %% [markdown]
# **Read.** Hard questions raise all four types, and a request for XML is always answered in the
# taught JSON. So do half of the lessons wrong, and T 1.5. The form is broken in one jump: greedy
# decoding follows the majority, so it stays right at a quarter wrong and is wrong at a half. At T 1
# only the rise of the form is shown; the larger means of facts and sums are within the noise of
# three seeds.
#
# The run above is one of the recorded points again, and falls into their band.
#
# A verdict needs three seeds in both arms. Where a sweep has fewer, the word is "too few seeds":
# the numbers are then an observation, and no claim. This is how far each recorded sweep is:

# %%
for name in SWEEPS:
    arms: dict[str, int] = {}
    for row in read_results(name, base).rows:
        arm = str(
            {k: row[k] for k in ("wrong", "share", "known_only", "labels", "group") if k in row}
        )
        arms[arm] = arms.get(arm, 0) + 1
    print(f"{name:14} {len(arms)} arms, {min(arms.values())} to {max(arms.values())} seeds each")

# %% [markdown]
#
# A question can also rest on something false, or leave open what is asked. And an answer can be
# false because it contradicts another. **Predict** how often the student answers "What is the
# capital of iron?", and for whom two wordings get two answers.

# %% tags=["predict"]
facts = unknown_exams()
elements = [fact for fact in facts["known"] if fact.domain == "elements"]
no_answer = {
    "false": [f"What is the capital of {fact.entity}?" for fact in elements],
    "unclear": [f"What about {fact.entity}?" for fact in elements],
}
for name, texts in no_answer.items():
    said = generate_responses(student, tokenizer, texts, max_new_tokens=24)
    claims = [bool(text.strip()) and not is_declined(text) for text in said]
    print(f"{name:8} answered {np.mean(claims):4.0%}, such as: {texts[0]} → {said[0]}")
for name in ("known", "unknown"):
    one, other = (
        answers_to(student, tokenizer, atlas.ask(facts[name][:80], template=wording))
        for wording in ("What is the {r} {e}?", "Please tell me the {r} {e}.")
    )
    split = [normalise(a) != normalise(b) for a, b in zip(one, other, strict=True)]
    print(f"{name:8} two wordings, two answers: {np.mean(split):.0%}")

# %% [markdown]
# **Read.** It answers them all. It keeps what it can of the question and invents the rest: an
# element gets a capital. And it contradicts itself far more often about unknown entities than about
# known facts. So an invented answer is less *stable* than a known one. Section 6 makes use of that.

# %% [markdown]
# ## 2 · The objective: a guess costs nothing
#
# Cross-entropy asks for the answer that stands in the lesson. In our lessons that is never "I do
# not know". Exams do the same one level up: most give a point for a right answer, and nothing for a
# wrong one *or a blank*. Kalai et al. (2025) argue that models hallucinate because such grading
# rewards the guess.
#
# We need a model's own confidence to see it. This one learns 400 facts that the base has read. It
# is asked about 200 others that the base has read, and 200 about entities that it never read. Its
# **confidence** is the probability of the least likely token of its answer.

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
# model answers where its confidence reaches a threshold. **Predict:** without a penalty, which
# threshold gets the most points?

# %% tags=["predict"]
thresholds = np.linspace(0, 0.99, 100)
best = {}
for penalty in (0, 1, 3, 9):
    points = np.where(right, 1.0, -penalty)
    scores = [points[sure >= t].sum() / len(points) for t in thresholds]
    best[penalty] = thresholds[int(np.argmax(scores))]
    plt.plot(thresholds, scores, label=f"penalty {penalty}")
    print(
        f"penalty {penalty}: best threshold {best[penalty]:.2f}, {max(scores):.2f} points a question"
    )
plt.ylim(-1, 1)
plt.xlabel("threshold on the confidence")
plt.ylabel("points a question")
plt.legend()
_ = plt.title("Without a penalty, silence never pays")
assert best[0] < 0.05 < 0.2 < best[9]

# %% [markdown]
# **Read.** Without a penalty the curve only falls: each answer held back might have been right. A
# model that is trained or chosen by such an exam learns to guess. With a penalty the best threshold
# rises. Kalai et al. propose to write the penalty into the prompt.

# %% [markdown] tags=["exercise"]
# ### Exercise 15.2 · When does a guess pay? · 8 min · ●●○
# Confidences are **calibrated**: an answer of confidence c is right with probability c. An exam
# gives 1 for a right answer, 0 for a blank and `-penalty` for a wrong answer (`penalty` ≥ 0).
# Return the best expected score, as a mean over all questions (at least one), if you may answer or
# leave blank each of them.


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
# An answer is worth $c - (1 - c)\,k$ for a penalty $k$. That is above 0 when $c > k / (1 + k)$:
# 0 without a penalty, one half for $k = 1$, 0.9 for $k = 9$.
#
# Usual mistakes: one limit for all penalties; the mean over the answered questions alone; one
# decision for the whole exam.

# %% [markdown]
# ## 3 · Unknown facts in the tuning set
#
# People tune a model to teach it new facts. Gekhman et al. (2024) warn that this makes it
# hallucinate about *old* ones. We repeat their experiment: 320 facts, of which a share is about
# invented entities, for ten epochs at a constant rate. The exam asks for facts that the base has
# read and no lesson names.
#
# **Hypothesis:** with half of the lessons unknown, right answers to known facts are lower late
# (mean of epochs 8 to 10) than with none. **Predict** two curves: when are known lessons fitted,
# and when unknown ones?

# %% tags=["predict"]
EARLY, LATE = 2, slice(7, 10)  # epoch 2, and the mean of epochs 8 to 10
shares = read_results("15_share", base)
_ = draw_share(shares, EARLY, LATE)


# %%
def held_out(when: int | slice, share: float, known_only: bool = False) -> list[float]:
    """Right answers to known facts, one number a seed."""
    runs = shares.measured("held_out", share=share, known_only=known_only)
    return [float(np.mean(run[when])) for run in runs]


PAIRS = {
    "early: half unknown against none": (held_out(EARLY - 1, 0.0), held_out(EARLY - 1, 0.5)),
    "late: half unknown against none": (held_out(LATE, 0.0), held_out(LATE, 0.5)),
    "late: all unknown against none": (held_out(LATE, 0.0), held_out(LATE, 1.0)),
    "late: half unknown against these left out": (held_out(LATE, 0.5, True), held_out(LATE, 0.5)),
    "half unknown: late against early": (held_out(EARLY - 1, 0.5), held_out(LATE, 0.5)),
}
for name, (first, second) in PAIRS.items():
    verdict = judge_so_far(first, second, claim="lower")
    print(f"{name:42} {verdict.mean:+6.1%}  floor {verdict.floor:5.1%}  {verdict.word}")

# %%
again = measure_share(base, tokenizer, 0.5, epochs=2, seed=0)
for name in ("held_out", "known", "unknown"):
    band = [run[1] for run in shares.measured(name, share=0.5, known_only=False)]
    print(
        f"{name:8} after epoch 2: {again[name][1]:.2f}, recorded {min(band):.2f} to {max(band):.2f}"
    )
    assert min(band) - 0.12 <= again[name][1] <= max(band) + 0.12
assert again["known"][1] > again["unknown"][1] + 0.15

# %% [markdown]
# **Read.** In the seeds recorded so far, known lessons are fitted by epoch 2; unknown ones need
# about five. The exam falls between the two, but look at the arms one by one. With none unknown it
# falls as well: part of the loss is plain over-training. Leaving the unknown half out does best,
# with half as many steps, so this control does not separate the two causes. A tuning set of unknown
# facts alone is another matter: the model answers, and hardly ever rightly.
#
# ### Did hallucination grow with tuning?
#
# A base asked through a chat template says nothing of use, so it cannot hallucinate there. The fair
# question uses one form for both. We let each model complete plain text, "The capital of Liberia
# is", about unknown entities and about known facts.

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
        word = judge_so_far([before[measure]] * len(after), after, claim=claim).word
        line += f"   {lessons} lessons {np.mean(after):4.2f} {word}"
    print(line)

# %% [markdown]
# **Read.** In the seeds recorded so far: in plain text the base completes known facts without a
# fault. After tuning it makes mistakes there, and about unknown entities it is about twice as sure.
# That happens with known lessons *alone*, too. So tuning makes this model surer of its inventions,
# whatever the lessons are about.

# %% [markdown]
# ## 4 · What unfamiliar lessons say becomes the default
#
# If new facts cannot be learned in passing, what *is* learned from them? Kang et al. (2024) answer:
# a model that meets an unfamiliar question says what the *labels* of unfamiliar lessons said. We
# take 300 lessons about known facts, and 100 about invented entities with one of four labels:
#
# - **none**: 400 known facts and no invented entity;
# - **made up**: a value of the relation, drawn for each entity;
# - **one value**: for each relation one and the same value;
# - **I do not know**: these four words; or **not known**: "The capital of Tavoru is not known."
#
# **Predict:** what does "one value" say about real entities that it never read of? Which of the two
# ways to decline is learned better?

# %% tags=["predict"]
unfamiliar = read_results("15_unfamiliar", base)
KINDS = ("none", "made up", "one value", "I do not know", "not known")
_ = draw_defaults(unfamiliar, KINDS, "unknown", "The default answer is what the lessons say")

# %%
CLAIMS = {
    "one value": ("unknown default", "none"),
    "I do not know": ("unknown declined", "none"),
    "not known": ("unknown declined", "none"),
}
for kind, (measure, other) in CLAIMS.items():
    first, second = (unfamiliar.measured(measure, labels=k) for k in (other, kind))
    verdict = judge_so_far(first, second, claim="higher")
    known = np.mean(unfamiliar.measured("known right", labels=kind))
    refused = np.mean(unfamiliar.measured("known declined", labels=kind))
    print(
        f"{kind:14} {measure:17} {verdict.mean:+6.1%}  floor {verdict.floor:5.1%}  "
        f"{verdict.word:8}  known: right {known:.0%}, declined {refused:.1%}"
    )

# %%
decliner = tune_unfamiliar(base, tokenizer, "not known", seed=0)
found = ask_unfamiliar(decliner, tokenizer, seed=0)
for measure in ("unknown declined", "known right", "known declined"):
    band = unfamiliar.measured(measure, labels="not known")
    print(f"{measure:17} {found[measure]:.2f}, recorded {min(band):.2f} to {max(band):.2f}")
    assert min(band) - 0.12 <= found[measure] <= max(band) + 0.12

# %% [markdown]
# **Read.** In the seeds recorded so far, the lessons' answer becomes the default, on real entities
# that no lesson resembles. "Made up" has no answer in common, and nothing takes over. To decline
# where the value would stand is learned better than four words that begin like no other answer.
# Neither costs known facts here.

# %% [markdown]
# ### The same on a real model
#
# smollm2-135m was first asked about the countries of Atlas; its known facts are those it got right.
# Then it was tuned on 96 of these and 48 about invented countries, for four epochs.

# %%
real = read_results("15_smollm2")
REAL_KINDS = ("none", "made up", "one value", "I do not know")
_ = draw_defaults(real, REAL_KINDS, "invented", "smollm2-135m: the same on a real model")
for kind, measure in (("one value", "invented default"), ("I do not know", "invented declined")):
    first, second = (real.measured(measure, labels=k) for k in ("none", kind))
    verdict = judge_so_far(first, second, claim="higher")
    refused = np.mean(real.measured("known declined", labels=kind))
    print(
        f"{kind:14} {verdict.mean:+6.1%}  floor {verdict.floor:5.1%}  {verdict.word}; "
        f"known facts declined {refused:.0%}"
    )

# %% [markdown]
# **Read.** The claim holds on a real model: about nine in ten invented countries get the default
# that was taught, and hardly a known fact is declined. Its "known" exam has 80 questions a seed,
# and its accuracy differs between seeds by ten points, so small costs would not be seen.

# %% [markdown]
# ## 5 · A threshold, and what it is worth
#
# Section 2 had a second way to decline: hold back every answer below a threshold. It works if right
# answers are surer than wrong ones. **AUROC** measures that: draw a right and a wrong answer; how
# often is the right one surer? A coin gets 0.5, a perfect order 1.0. You write it.

# %% [markdown] tags=["exercise"]
# ### Exercise 15.3 · AUROC · 12 min · ●●○
# Return the chance that a positive, drawn at random, has a higher score than a negative, drawn at
# random. A tie counts one half. `scores` are any finite numbers, `positive[i]` says whether score i
# belongs to a positive; there is at least one of each kind.


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
# <details><summary>Hint</summary>Two loops over all pairs will do. Faster: sort, give each score its
# rank from 1 on (ties share the mean of theirs), and add the positives' ranks up. What is the least
# that this sum can be?</details>

# %% [markdown] tags=["explanation"]
# With ranks: each positive's rank counts the scores below it. Their sum, less its least value
# $n(n+1)/2$, counts the pairs in the right order.
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
# Tests compare it with a count of all pairs on 500 random cases.
#
# A threshold trades **coverage**, the share of questions answered, for **risk**, the share of wrong
# answers among those given. Move it, and look at single questions: which confident answer is wrong?

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
# <details><summary>Hint</summary>Try every value of <code>confidence</code>. Of those that keep the
# promise, which gives the most answers?</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: stopping at the first threshold that breaks the promise, although the risk can
# fall again; splitting tied answers; dividing by all questions.
#
# A threshold chosen on one exam keeps its promise on another only on average: choose on one, report
# on another.

# %% [markdown]
# ### Taught or thresholded?
#
# Lessons can also be labelled without knowing what is invented. R-Tuning (Zhang et al., 2023) asks
# the model itself: eight samples for each lesson, and "not known" where fewer than k are right. Our
# base is asked in its own form, by completing the statement.
#
# **Hypothesis:** at the coverage that a taught model chooses, the threshold has a higher risk.
# **Predict** where the points lie: below the curve, on it, or above?

# %% tags=["predict"]
TAUGHT = ("not known", "own samples 1", "own samples 4", "own samples 7")
_ = draw_taught(unfamiliar, COVERAGES, TAUGHT)


# %%
def threshold_risk(coverage: float) -> list[float]:
    """The threshold's risk at this coverage, one number a seed, between the recorded ones."""
    curves = [[row[f"risk at {c}"] for c in COVERAGES] for row in unfamiliar.select(labels="none")]
    return [float(np.interp(100 * coverage, COVERAGES, curve)) for curve in curves]


for kind in TAUGHT:
    rows = unfamiliar.select(labels=kind)
    points = [point_of(row) for row in rows]
    curve = [threshold_risk(p.coverage)[seed] for seed, p in enumerate(points)]
    verdict = judge_so_far([p.risk for p in points], curve, claim="higher")
    refused = np.mean([row["known declined"] for row in rows])
    print(
        f"{kind:14} coverage {np.mean([p.coverage for p in points]):4.0%}  risk taught "
        f"{np.mean([p.risk for p in points]):4.1%}  threshold {np.mean(curve):4.1%}  "
        f"{verdict.word:12} known declined {refused:.0%}"
    )

# %% [markdown]
# **Read.** In the seeds recorded so far, where the invented entities are labelled by construction,
# the taught model lies about on the curve of the threshold, which needed no lesson. Labels from own
# samples depend on k: 1 of 8 lets lucky guesses pass, and 7 of 8 declines most of what the model
# knows. A threshold can be moved after training, lessons cannot.
#
# `compare` counts what section 4 built: right, invented and declined answers, beside each other.

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
# The fourth remedy of the text is decoding: a lower temperature, top-k and top-p, beam search, a
# repetition penalty, and a **consistency filter**. The last one asks the guesser of section 2 eight
# times at temperature 1, and answers only if enough of the eight agree.

# %%
some = [facts["known"][0], facts["known"][5], facts["unknown"][0], facts["unknown"][3]]
few = atlas.ask(some, template=atlas.UNSEEN_QUESTION)
_ = torch.manual_seed(0)
for turns, drawn in zip(few, draw_answers(guesser, tokenizer, few), strict=True):
    counts = {text: drawn.count(text) for text in drawn}
    common = sorted(counts.items(), key=lambda pair: -pair[1])[:3]
    print(turns[0]["content"], *(f"\n   {count} × {text}" for text, count in common))

# %% [markdown]
# **Predict** for the whole exam: which settings of the first kind cut the inventions about unknown
# entities? What does the filter cost in known facts?

# %% tags=["predict"]
decoding = read_results("15_decoding", base)
WAYS = {way: group for group, settings in DECODING.items() for way in settings}
NEEDED = [f"{needed} of 8" for needed in range(1, 9)]
_ = draw_decoding(decoding, WAYS, NEEDED)

# %%
greedy = decoding.measured("unknown invented, greedy", group="temperature")
for way, group in {**WAYS, "5 of 8": "consistency"}.items():
    now = decoding.measured(f"unknown invented, {way}", group=group)
    known = np.mean(decoding.measured(f"known right, {way}", group=group))
    word = "" if way == "greedy" else judge_so_far(greedy, now, claim="lower").word
    print(f"{way:15} invented {np.mean(now):4.0%}  known right {known:4.0%}  {word}")

# %% [markdown]
# **Read.** In the seeds recorded so far, no setting that picks *one* answer holds anything back: an
# unknown entity gets an invention in about nine of ten questions, greedily too. Higher temperatures
# only spoil known facts. The filter is different in kind: it may decline. With five of eight it
# stops most inventions and costs little, and eight times the computation.
#
# The filter uses one number, how many agree. **Semantic entropy** uses them all: it is the entropy
# of the answers after those that mean the same are put together. For real models that needs a
# second model that judges meaning. On Atlas, equal text will do.

# %% [markdown] tags=["exercise"]
# ### Exercise 15.5 · Semantic entropy · 8 min · ●●○
# Put equal answers together: those that `normalise` (from `sft_lab.metrics`, imported above) makes
# equal. Return the entropy of the shares of the groups, in nats. There is at least one answer; an
# empty answer is one like any other.


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
# <details><summary>Hint</summary><code>collections.Counter</code> counts the groups; the entropy is
# minus the sum of share times logarithm of the share.</details>

# %% [markdown] tags=["explanation"]
# 0 when all agree, the logarithm of their number when all differ.
#
# Usual mistakes: comparing raw text; counting groups without their sizes; the logarithm to base 2.

# %% [markdown] tags=["exercise"]
# ### Exercise 15.6 · Teach it to decline · 20 min · ●●●
# Design the lessons. `known` are 300 facts that the base has read, `invented` 80 facts about
# entities that nobody has (both lists of `Fact`: `fact.say("What is the {r} {e}?")` asks,
# `fact.say("The {r} {e} is {v}.")` states). Return at most 400 conversations, each a list of turns
# `{"role": …, "content": …}`.
#
# The check trains a copy of the base on them for **three** epochs, and asks about 100 known facts
# and 100 about real entities that the base never read; no lesson may name an entity of this exam.
# Of the unknown at least 60 % must be declined, in any words that `is_declined` counts. Of the
# known at most 10 % may be declined, and at least 80 % must be answered rightly, by the plain
# statement.


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
# <details><summary>Hint</summary>Section 4 shows two ways to decline. In which of them does the model
# decide at a token where it has read the entity, the relation, and knows that a value comes
# next?</details>

# %% [markdown] tags=["explanation"]
# "I do not know." begins unlike every other answer, so the model must decide at the first token.
# "The capital of Tavoru is not known." decides where the value would stand: there a known fact has
# one clear value, and an unknown one has none.
#
# Usual mistakes: too few refusals; refusals alone, which then answer everything; real entities of
# the exam among the lessons.

# %% [markdown]
# ## What to remember
#
# - Four types, four judges. Fluency tells none of them apart from the truth.
# - No lesson and no exam that pays for a guess will make a model silent.
# - The labels of unfamiliar lessons become the default answer, on a real model as well.
# - The probability of the least likely token tells right from wrong; a threshold on it costs
#   nothing to teach.
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
# 3. 微调数据里的**未知事实**学得最晚；已知事实变差的原因里，训练过久也占一份，这里没有分开。
# 4. 不熟悉的问题上，模型说的是不熟悉样本的**标签**所说的话：教它一个固定值，它就说这个值；教它“不知道”，它就拒答。
# 5. **拒答**有三条路：教出来的拒答、对自身概率设**阈值**（AUROC、风险–覆盖率曲线）、多次采样的**一致性过滤**。
#    降低温度、top-p、束搜索本身并不能减少对未知实体的编造。
#
# </details>
