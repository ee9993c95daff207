# %% [markdown]
# # 16b · When the scores disagree
#
# **The question.** Chapter 16 computed the scores by hand. When a program knows which output is
# truer, which score puts it first, and how can each score be fooled?
#
# **By the end you can**
# - *measure* how often a score puts the truer of two outputs first;
# - *fool* a score, and say what it does not look at;
# - *design* a score for one task, with tokens that fit its language.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 09 and 16 | CPU, no network | about 30 seconds | 5, about an hour | D13 D14 D15 L15 |

# %% tags=["setup"]
from collections.abc import Callable

from torch.testing import assert_close

from sft_lab import plots
from sft_lab.compare import compare
from sft_lab.course.checks import check
from sft_lab.course.results import read_results

# %% tags=["setup"]
from sft_lab.course.score_runs import (
    ATTACKS,
    KINDS,
    REFERENCES,
    SCORES,
    as_conversation,
    attack_summaries,
    draw_changes,
    draw_pair,
    find_truth,
    held_out_tasks,
    pair_up,
    plant_answers,
    plant_summaries,
    plant_translations,
    read_judged,
    run_scores,
    share_ordered,
    tune_models,
)

# %% tags=["setup"]
from sft_lab.models import load
from sft_lab.overlap import bleu, rouge_l, rouge_n, split_words
from sft_lab.significance import judge_claim

plots.style()
base, tokenizer = load("atlas-base")
SEEDS = range(5)
recorded = read_results("16b_outputs", base)


def verdict(first: list[float], second: list[float], claim: str, what: str) -> str:
    """Print the verdict on the second arm being higher or lower; return its word."""
    found = judge_claim(first, second, claim=claim)
    print(f"{what}: {found.mean:+.2f}, noise floor {found.floor:.2f}: {found.word}")
    return found.word


# %% [markdown]
# ## 1 · Outputs whose truth is known
#
# A score compares words with a reference. Truth is about facts. Here both outputs answer the same
# question. Blue words stand in the reference, orange ones do not.

# %%
reference = "Yamoussoukro is the capital of Ivory Coast."
right, wrong = "For Ivory Coast, the capital is Yamoussoukro.", "Sr is the capital of Ivory Coast."
_ = draw_pair(reference, {"right": right, "wrong": wrong}, title="The wrong one shares more words")

# %% [markdown]
# We make three tasks from the facts of Atlas. *Answers*: a fact in one of five wordings.
# *Summaries*: from five notes, tell in other words the three about one name. *Translations*: an
# English sentence in Chinese, where the time may stand before or behind the person.

# %%
for kind in KINDS:
    task = held_out_tasks(kind, 0)[0]
    print(f"{kind}\n  {task.question!r}\n  -> {task.reference}")

# %% [markdown]
# A program knows every right wording. So it can judge any output: its **truth** is the F1 of the
# sentences that it says and the facts that it shall say. A sentence that is wrong, beside the
# matter or said again counts as said in vain.

# %%
task = held_out_tasks("summaries", 0)[0]
first, second, third = (ways[0] for ways in task.wanted)
for output in (f"{third} {first} {second}", f"{first} {second}", f"{first} Gold is blue.", "Gold."):
    said = [part for part in output.split(". ") if part]
    good = sum(any(way.rstrip(".") in output for way in ways) for ways in task.wanted)
    truth = 2 * good / (len(said) + len(task.wanted))
    assert_close(find_truth(task, output), truth)
    print(f"{good} of 3 facts in {len(said)} sentences: truth {truth:.2f}")

# %% [markdown]
# Three models write: the base, one tuned on 30 % of the tasks ("half-tuned"), one tuned on all. We
# run one of fifteen recorded runs again: 800 questions for the tuned model, 200 other questions as
# the exam, four sampled answers each at temperature 0.7.

# %%
again = run_scores(base, tokenizer, kind="answers", seed=0)
(row,) = recorded.select(kind="answers", seed=0)
for name in ("base truth", "half-tuned truth", "tuned truth", "tuned BLEU", "BLEU", "token F1"):
    print(f"{name:16} {again[name]:.2f}, recorded {row[name]:.2f}")
    assert abs(again[name] - row[name]) < 0.06  # draws part where a rounding differs

# %% [markdown]
# ## 2 · Between models, and between answers
#
# **Predict.** Which of the twelve scores put the three models in the right order?

# %% tags=["predict"]
MODELS = ("base", "half-tuned", "tuned")
ordered = {}
for name in ("truth", *SCORES, "corpus BLEU"):
    means = [
        [sum(recorded.measured(f"{m} {name}", kind=k)) / len(SEEDS) for m in MODELS] for k in KINDS
    ]
    ordered[name] = sum(low < middle < high for low, middle, high in means)
    print(f"{name:12} ordered in {ordered[name]} of 3 tasks;", *(f"{m:.2f}" for m in means[1]))
for name in ordered:
    assert ordered[name] == 3 or name in ("exact match", "distinct-1", "no repeats")

# %% [markdown]
# **Read.** On the right are the means for summaries. Every score of overlap orders the models
# rightly in all three tasks. So does BLEU of all outputs together (*corpus BLEU*). Exact match is 0
# for a summary, whichever model wrote it. The last two scores look for repetition alone: the base
# is the worst model and repeats least.
#
# A developer compares models. A reader has one answer. So we ask more: of two outputs of the *same*
# model for the *same* task, is the truer one ahead?

# %% [markdown] tags=["exercise"]
# ### Exercise 16b.1 · Who is ahead? · 8 min · ●●○
# `groups` has a list for each task, with a tuple (score, truth) for each output. Two outputs of one
# task are a *pair* when their truths differ. A pair counts 1 when the truer output has the higher
# score, ½ when the scores are equal, otherwise 0. Return the mean over all pairs, a float; every
# pair counts the same. There is at least one pair; a task may have no pair and no output.
#
# `[[(0.9, 0.0), (0.4, 1.0), (0.4, 0.0)], [(0.2, 1.0), (0.1, 1.0)]]` has two pairs, which count 0
# and ½: 0.25.


# %% tags=["stub"]
def who_is_ahead(groups: list[list[tuple[float, float]]]) -> float:
    """The share of pairs whose truer output has the higher score."""
    raise NotImplementedError


# %% tags=["solution"]
def who_is_ahead(groups: list[list[tuple[float, float]]]) -> float:
    """The share of pairs whose truer output has the higher score."""
    gaps = [
        better - worse
        for group in groups
        for better, high in group
        for worse, low in group
        if high > low
    ]
    return sum((gap > 0) + (gap == 0) / 2 for gap in gaps) / len(gaps)


# %% tags=["check"]
check("16b.1", who_is_ahead)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Go through all ordered pairs of a task, and keep those whose first
# output is truer.</details>

# %% [markdown] tags=["explanation"]
# A coin gives 0.5, a perfect score 1. With truths 0 and 1 and one task this is the AUROC of
# chapter 15.
#
# Usual mistakes: outputs of two tasks compared, so that an easy task counts; a mean of the tasks'
# means; a tie counted as right.

# %% [markdown]
# **Claim.** BLEU orders pairs by truth worse than token F1, the bag of words of question answering.
# Measure: the share of pairs in the right order, mean of the three tasks. Five seeds, 290 to 410
# pairs for each task and seed, all from the tuned model.
#
# **Predict.** Will the claim hold? BLEU and ROUGE-L see the order of words, token F1 and ROUGE-1 do
# not. Does that help or harm?

# %% tags=["predict"]
shares = {n: {k: recorded.measured(n, kind=k) for k in KINDS} for n in SCORES}
pooled = {n: [sum(one) / 3 for one in zip(*shares[n].values(), strict=True)] for n in SCORES}
order = sorted(SCORES, key=lambda name: -sum(pooled[name]))
table = {n: [sum(shares[n][k]) / len(SEEDS) for k in KINDS] for n in order}
ax = plots.new_figure((6, 4.6)).subplots()
_ = plots.share_table(table, KINDS, title="Pairs with the truer output ahead", ax=ax)
assert {"token F1", "ROUGE-1"} == set(order[:2])

# %% tags=["predict"]
words = {n: verdict(pooled["token F1"], pooled[n], "lower", f"{n} below token F1") for n in SCORES}
for name in ("BLEU", "ROUGE-L", "ROUGE-W", "ROUGE-2", "exact match"):
    assert words[name] == "held"
assert {words[name] for name in ("ROUGE-1", "ROUGE-S", "METEOR", "chrF")} == {"not shown"}

# %% [markdown]
# **Read.** The claim *held*: BLEU 0.81, token F1 0.94. It held for ROUGE-L, ROUGE-W, ROUGE-2 and
# exact match, too. A right fact in another wording has its words in another order, and these scores
# punish the order more than a wrong name. ROUGE-L is said to forgive other sentence forms better
# than ROUGE-N; against ROUGE-1 it does not here. "Held" stands for texts of one to three sentences
# with five wordings.
#
# Once more on a real model: SmolLM2-135M answers "What is the capital of …?" for 32 countries, four
# times each at temperature 1. An answer is true when it names the right capital and no other.

# %%
real = read_results("16b_smollm2")
for name in ("token F1", "ROUGE-1", "ROUGE-L", "BLEU", "exact match"):
    print(f"{name:12}", "  ".join(f"{share:.2f}" for share in real.measured(name)))
print(f"truth {real.measured('truth')}, pairs {real.measured('pairs')}")
found = verdict(real.measured("token F1"), real.measured("BLEU"), "lower", "BLEU below token F1")
assert found == "not shown"

# %% [markdown]
# **Read.** *Not shown* on the real model: BLEU is level in one seed and lower in two, and with 28
# to 46 pairs the seeds scatter as much as the difference. It knows few of these capitals (13 to
# 27 %), and its wrong answers ramble, which every score of overlap punishes.
#
# ## 3 · The worst mistakes
#
# An average hides what went wrong. We search all recorded pairs for the one that a score turns
# round most.
#
# **Predict.** Take the pair in which ROUGE-L prefers the wrong output by the widest margin. What is
# wrong in that output: the value, the form or the length?

# %% tags=["predict"]
answers = [group for seed in SEEDS for group in read_judged("answers", seed)]
for name in ("ROUGE-L", "BLEU", "token F1", "METEOR", "chrF"):
    worst = min(pair_up(answers), key=lambda two: two[0].scores[name] - two[1].scores[name])
    print(f"{name}, reference {worst[0].task.reference!r}")
    for one in worst:
        print(f"   truth {one.truth:.0f}, score {one.scores[name]:.2f}: {one.output}")
    assert worst[0].scores[name] < worst[1].scores[name]

# %% [markdown]
# **Read.** The value. The wrong answers keep the reference's words and change the value. The right
# ones keep the value and change the words. For a score of overlap a name is one word among seven.
#
# We isolate this. A program takes 200 facts for each of five seeds and makes two answers: the right
# one in another wording, and the reference with another value.
#
# **Claim.** ROUGE-L puts the wrong value first more often than a coin would (share of pairs in the
# right order below ½).

# %%
planted = [plant_answers(seed=seed) for seed in SEEDS]
for name in ("ROUGE-L", "BLEU", "METEOR", "chrF", "token F1"):
    found = [share_ordered(groups, lambda one, n=name: one.scores[n]) for groups in planted]
    words["planted", name] = verdict([0.5] * 5, found, "lower", f"{name} below a coin")
assert words["planted", "ROUGE-L"] == words["planted", "BLEU"] == "held"
assert words["planted", "token F1"] == "not shown"

# %% [markdown]
# **Read.** *Held*, and by far: ROUGE-L is right in one of eight pairs, BLEU in one of ten. Token F1
# is a coin. The usual remedy is more references.
#
# **Predict.** We score with 1, 2, 3 and all 5 wordings as references. How many must it be until
# ROUGE-L passes the token F1 of one reference?


# %% tags=["predict"]
def with_references(name: str) -> list[list[float]]:
    """For each seed the share of pairs of answers, by the number of references."""
    keys = [name, *(f"{name} {count}" for count in REFERENCES[1:])]
    return [[row[key] for key in keys] for row in recorded.select(kind="answers")]


more = {name: with_references(name) for name in ("token F1", "ROUGE-L", "BLEU")}
one, three = ([row[k] for row in more["ROUGE-L"]] for k in (0, 2))
words["references"] = verdict(one, three, "higher", "ROUGE-L, three references over one")

# %% tags=["predict", "folded"]
ax = plots.curve(
    REFERENCES,
    more,
    xlabel="references for an answer",
    ylabel="pairs with the truer one ahead",
    title="More references mend what one cannot",
)
_ = ax.set_xticks(REFERENCES)
assert words["references"] == "not shown" and all(a < b for a, b in zip(one, three, strict=True))
assert all(row[-1] > 0.97 for row in more["ROUGE-L"])
assert sum(three) < sum(row[0] for row in more["token F1"])

# %% [markdown]
# **Read.** All five; three are not enough. With three, ROUGE-L gains in every seed, but not more
# than twice what the seeds alone do: *not shown*. With all five a right answer equals one of its
# references, so the last point is no surprise. Outside of a small world nobody has all wordings.

# %% [markdown] tags=["exercise"]
# ### Exercise 16b.2 · Name the score · 10 min · ●●○
# `score(output, reference)` takes two English texts and returns a number from 0 to 1. It is one of
# these, on words in lower case without punctuation, and you may ask it anything:
#
# `"exact match"`, `"ROUGE-1 precision"`, `"ROUGE-1 recall"`, `"ROUGE-1 F1"`, `"ROUGE-L F1"`,
# `"BLEU"` (of one sentence, up to 4-grams).
#
# Return its name. For example, `score("a", "a b c d")` is 1 for ROUGE-1 precision and 0.25 for its
# recall.


# %% tags=["stub"]
def name_the_score(score: Callable[[str, str], float]) -> str:
    """The name of the score behind the function."""
    raise NotImplementedError


# %% tags=["solution"]
def name_the_score(score: Callable[[str, str], float]) -> str:
    """The name of the score behind the function."""
    if score("cat", "cat dog owl fox") == 1:
        return "ROUGE-1 precision"
    if score("cat dog owl fox", "cat") == 1:
        return "ROUGE-1 recall"
    if score("owl dog cat", "cat dog owl") == 1:
        return "ROUGE-1 F1"
    gaps = score("cat one dog two owl three", "cat dog owl")
    if gaps == 0:
        return "exact match"
    return "ROUGE-L F1" if gaps > 0.5 else "BLEU"


# %% tags=["check"]
check("16b.2", name_the_score)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>One right word; all words and more; the same words in another
# order; the right words with strange ones between.</details>

# %% [markdown] tags=["explanation"]
# Four questions are enough, since each score is blind in its own way: precision to what is missing,
# recall to what is too much, a bag of words to order, ROUGE-L to gaps.
#
# Usual mistakes: precision and recall exchanged; a question that two scores answer alike.

# %% [markdown]
# ## 4 · Written for the score
#
# What a score does not see can be used against it. A program puts six other texts in the place of
# each summary of the tuned model: the word "the"; that word 30 times; the summary's first sentence;
# the summary twice; the whole passage; the summary's words, shuffled.
#
# **Predict.** Which of the six raises ROUGE-1 recall (R), which precision (P), and which the truth?

# %% tags=["predict"]
honest = [attack_summaries("honest", seed) for seed in SEEDS]
made = {name: [attack_summaries(name, seed) for seed in SEEDS] for name in ATTACKS}
columns = [score for score in honest[0] if score != "exact match"]
before, *after = (
    {score: [row[score] for row in rows] for score in columns} for rows in (honest, *made.values())
)
changes = {
    name: [(sum(new[score]) - sum(before[score])) / len(SEEDS) for score in columns]
    for name, new in zip(ATTACKS, after, strict=True)
}
_ = draw_changes(changes, columns, title="Orange: the rewriting raises the score")

# %% tags=["predict"]
raised = {}
for name, new in zip(ATTACKS, after, strict=True):
    found = {score: judge_claim(before[score], new[score], claim="higher") for score in columns}
    raised[name] = {score for score in columns if found[score].word == "held"}
    print(f"{name:20} raises (held): {', '.join(sorted(raised[name])) or 'nothing'}")
assert "ROUGE-1 P" in raised["one common word"] and not raised["that word 30 times"]
assert raised["copy the passage"] == {"truth", "METEOR", "chrF", "ROUGE-1 R"}
assert changes["copy the passage"][columns.index("BLEU")] < 0

# %% [markdown]
# **Read.** *Short*: one common word has precision near 1 and never repeats itself. So precision
# needs a brevity penalty or recall beside it. *Long*: the whole passage raises recall, and METEOR
# and chrF, which weigh recall more. Here the truth rises as well: the notes state all three facts
# and two others. BLEU falls although the copy is the better summary. *Repeating* a word of the
# reference gains nothing, because matches are clipped. *Shuffled* words state nothing: token F1 and
# ROUGE-1 do not notice.

# %% [markdown] tags=["exercise"]
# ### Exercise 16b.3 · Win without a right fact · 12 min · ●●○
# Token F1 ordered best, and no rewriting above raises it. Beat it. `passage` holds five notes,
# `subject` is the name that the summary shall be about, as in "the notes tell about `subject`".
# Return a text that states no right fact: none of the three facts may stand in it, in any of the
# five wordings (case and punctuation do not count). Over 40 tasks its mean token F1 must be above
# that of the tuned model's summaries, which is about 0.7. An empty text scores 0.
#
# `passage`, `subject` look like `"Notes: For Dano, the capital is Lima. Netu: the …"`, `"Dano"`. An
# animal has its article, `"the Tiru"`, which begins with a capital letter where a note does.


# %% tags=["stub"]
def attack(passage: str, subject: str) -> str:
    """A text without a right fact that token F1 likes."""
    raise NotImplementedError


# %% tags=["solution"]
def attack(passage: str, subject: str) -> str:
    """A text without a right fact that token F1 likes."""
    notes = passage.removeprefix("Notes: ").split(". ")
    words = " ".join(note for note in notes if subject in note).split()
    return " ".join(reversed(words))


# %% tags=["check"]
check("16b.3", attack)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Which notes hold the words that the reference must have? Token F1
# does not read from left to right.</details>

# %% [markdown] tags=["explanation"]
# The words of the right notes in reverse have 0.8 and more, and say nothing. So the score that
# agreed best with truth on honest outputs is easy to fool. Agreement was measured on what a model
# writes when nobody rewards the score. In chapter 17b a model is rewarded by a score with a hole.
#
# Usual mistakes: the notes as they are, which state the facts; frames without names, which are too
# few of the words.

# %% [markdown]
# ## 5 · Chinese has no spaces
#
# `rouge-score` keeps Latin letters and digits and drops the rest. `sacrebleu` cuts at spaces unless
# told otherwise.
#
# **Predict.** What does each give for a perfect Chinese sentence?

# %% tags=["predict"]
import sacrebleu
from rouge_score import rouge_scorer

perfect, close = "我今天喜欢山。", "今天我喜欢山。"
scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"])
print("rouge-score:", {k: v.fmeasure for k, v in scorer.score(perfect, perfect).items()})
for tokens in ("13a", "zh", "char"):
    found = [sacrebleu.sentence_bleu(t, [perfect], tokenize=tokens).score for t in (perfect, close)]
    print(f"sacrebleu {tokens:4}: itself {found[0]:.0f}, moved time {found[1]:.1f}")
assert scorer.score(perfect, perfect)["rougeL"].fmeasure == 0

# %%
ours, wanted = (split_words(text, language="zh") for text in (close, perfect))
by_sacrebleu = sacrebleu.sentence_bleu(close[:-1], [perfect[:-1]], tokenize="zh").score
assert_close(bleu([ours], [[wanted]], effective_order=True), by_sacrebleu)
print(split_words(perfect), ours, f"ROUGE-L {rouge_l(ours, [wanted]).f1:.2f}")

# %% [markdown]
# **Read.** With the default tokens a perfect sentence has ROUGE 0, and one with the time moved has
# no word in common with its twin. With characters as tokens all scores work; the table of section 2
# was made so. But characters are not words, and a bag of them does not know who loves whom.

# %%
chinese = plant_translations(count=25, seed=0)
for one in chinese[0][:4]:
    print(f"truth {one.truth:.2f}, ROUGE-1 {one.scores['ROUGE-1']:.2f}: {one.output}")


def by_characters(one) -> float:
    """ROUGE-1 F1 with a token for each Chinese character."""
    ours, wanted = (split_words(t, language="zh") for t in (one.output, one.task.reference))
    return rouge_n(ours, [wanted], 1).f1


share = share_ordered(chinese, by_characters)
print(f"characters order {share:.0%} of the planted pairs")
assert share < 0.85

# %% [markdown] tags=["exercise"]
# ### Exercise 16b.4 · Tokens for Chinese · 14 min · ●●●
# Write `cut`: from a Chinese sentence to a list of tokens. A token is any string that you like,
# also one that is not in the text. ROUGE-1 F1 of the tokens of output and reference must order at
# least 95 % of the pairs of planted sentences as those above, and of the model's. The truth is the
# F1 of four things: when, who (before the verb), what is done, whom or what (behind it). The words
# are 昨天 今天 明天, 我 你 他 她, 爱 喜欢 看 想, 书 中国 水 花 山 海. The model's sentences may hold
# other characters.
#
# Try it with `share_ordered(chinese, lambda one: rouge_n(cut(one.output),
# [cut(one.task.reference)], 1).f1)`. Characters reach about 72 %.


# %% tags=["stub"]
def cut(text: str) -> list[str]:
    """The tokens of a Chinese sentence."""
    raise NotImplementedError


# %% tags=["solution"]
def cut(text: str) -> list[str]:
    """The tokens of a Chinese sentence."""
    import re

    tokens, side = [], "before"
    for word in re.findall("昨天|今天|明天|喜欢|中国|[^。]", text):
        if word in ("爱", "喜欢", "看", "想"):
            side = "behind"
            tokens.append(word)
        else:
            tokens.append(word if word.endswith("天") else f"{word} {side}")
    return tokens


# %% tags=["check"]
check("16b.4", cut)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Print the pairs that characters turn round. 我 as who and 我 as
# whom must be different tokens; 喜欢 is one.</details>

# %% [markdown] tags=["explanation"]
# Words in place of characters mend little (75 %). The place before or behind the verb mends the
# rest. The choice of tokens is part of the score, so a number without it means nothing.
#
# Usual mistakes: pairs of characters, which forbid to move the time; the position in the sentence
# as a mark, which does the same.

# %% [markdown]
# ## 6 · A score for the task
#
# The plain calls for English stand below. `compare` reports scores beside right and wrong. It asks
# both models the same questions, greedily.

# %%
from nltk.translate.meteor_score import meteor_score


class NoSynonyms:
    """In place of WordNet, which nltk would have to download."""

    def synsets(self, word: str) -> list:
        return []


outputs, references = [right, wrong], [reference, reference]
print(sacrebleu.corpus_bleu(outputs, [references]))
print(scorer.score(reference, right)["rougeL"])
both = [reference.lower().rstrip(".").split()], right.lower().replace(",", "").rstrip(".").split()
print(f"METEOR {meteor_score(*both, wordnet=NoSynonyms()):.3f}")

# %%
tuned = tune_models(base, tokenizer, "answers", seed=0)["tuned"]
questions = [as_conversation(task) for task in held_out_tasks("answers", 0)[:40]]
comparison = compare(
    (base, tokenizer), (tuned, tokenizer), questions, measures=("rouge_l", "bleu", "answer_f1")
)
print(comparison.table())
said = [row.tuned.text for row in comparison.rows]
tasks = held_out_tasks("answers", 0)[:40]
true = sum(find_truth(task, text) == 1 for task, text in zip(tasks, said, strict=True))
print(f"true answers: {true} of {len(questions)}")
assert true >= 28

# %% [markdown]
# **Read.** "Right answers" counts the reference's own wording alone: 20 %. The program that knows
# all wordings finds 34 of 40 true, 85 %. ROUGE-L and F1 lie between. They say how near the words
# are, not how many answers are right.
#
# No general score knows what matters in a summary: which facts it states. For one task a few lines
# can know it. Here are the outputs on which such a score is tried: nine ways to rewrite three right
# facts, six of them untrue.

# %%
tasks = held_out_tasks("summaries", 0)[:15]
summaries = plant_summaries(tasks, seed=0)
for one in summaries[0][2:5]:
    print(f"truth {one.truth:.2f}, ROUGE-L {one.scores['ROUGE-L']:.2f}: {one.output}")
for name in ("ROUGE-L", "token F1", "BLEU"):
    print(f"{name}: {share_ordered(summaries, lambda one, n=name: one.scores[n]):.0%} in order")

# %% [markdown] tags=["exercise"]
# ### Exercise 16b.5 · A score that reads facts · 14 min · ●●●
# Design `fact_score(output, reference)`: two texts, a number, higher for a truer output. It must
# order at least 98 % of the pairs of planted summaries (as above), and 95 % of the tuned model's.
# The truth is that of section 1; the reference states the three facts, each in one of the wordings:
#
# "The capital of Dano is Lima." · "Lima is the capital of Dano." · "For Dano, the capital is Lima."
# · "Dano: the capital is Lima." · "We know that the capital of Dano is Lima."
#
# No name holds a full stop. Try it with `share_ordered(summaries, lambda one:
# fact_score(one.output, one.task.reference))` and with `read_judged("summaries", 0)`.


# %% tags=["stub"]
def fact_score(output: str, reference: str) -> float:
    """How well the facts of the output agree with those of the reference."""
    raise NotImplementedError


# %% tags=["solution"]
def fact_score(output: str, reference: str) -> float:
    """How well the facts of the output agree with those of the reference."""
    frame = {"the", "of", "is", "for", "we", "know", "that"}

    def read_facts(text: str) -> list[frozenset[str]]:
        sentences = [split_words(part) for part in text.split(".")]
        return [frozenset(words) - frame for words in sentences if words]

    said, wanted = read_facts(output), set(read_facts(reference))
    return 2 * len(wanted & set(said)) / (len(said) + len(wanted))


# %% tags=["check"]
check("16b.5", fact_score)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Cut both texts into sentences. What is left of a sentence when the
# words of the five frames are gone? Compare what is left as a whole.</details>

# %% [markdown] tags=["explanation"]
# A sentence is right or it is not: name, relation and value belong together. That alone mends what
# a bag of all words mixes up. The score is narrow: it knows five frames of one small world.
# Elsewhere this part is done by a parser, a second model, or a person (chapter 16d).
#
# Usual mistakes: values counted without their sentence, so that two exchanged ones pass; facts said
# twice or added for nothing not counted against the output.

# %% [markdown]
# ## What to remember
#
# - Between models of different quality every score of overlap agrees. Between two answers of one
#   model it need not: BLEU had 81 % of the pairs in order, token F1 94 %.
# - A right fact in other words loses against a wrong value in the reference's words: ROUGE-L put
#   the right one first in one of eight planted pairs.
# - Each score is blind somewhere: precision to what is missing, recall to what is too much, a bag
#   of words to order. What is rewarded will be found.
# - State the tokens, the references and the library with the number. Plain ROUGE is 0 in Chinese.
# - Where the task allows it, check the facts and not the words.
#
# ## Sources
#
# - K. Papineni et al., *BLEU*, ACL 2002; M. Post, *A Call for Clarity in Reporting BLEU Scores*
#   (sacrebleu), 2018.
# - C.-Y. Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, 2004.
# - S. Banerjee, A. Lavie, *METEOR*, 2005; M. Popović, *chrF*, 2015.
# - M. Grusky, *Rogue Scores*, ACL 2023: 2,834 papers audited, many with wrong ROUGE packages.
#
# <details><summary>中文要点</summary>
#
# 1. **真值**（truth）：任务由事实生成，程序知道所有正确说法，所以能判断每个输出说对了几条事实。
#
# 2. 比较**不同模型**时，各重叠指标意见一致；比较**同一模型的两个回答**时则不然：BLEU 排对 81 %，词袋 F1 排对 94 %
# （*held*）；真实模型上*未显示*。
#
# 3. **换说法的正确答案**常输给**照抄参考措辞的错误答案**：ROUGE-L 在八对中只排对一对，BLEU 十对中一对。多个参考答案有帮助，但很少能写全。
#
# 4. **攻击**：精确率怕“太短”，召回率（METEOR、chrF）怕“太长”，词袋怕“打乱”；重复参考词因截断（clipping）而无效。
#
# 5. **中文**没有空格：rouge-score 恒为 0，sacrebleu 需 `tokenize="zh"`；字不是词，也分不清谁爱谁。报告分数时要写明分词、参考和工具。
#
# </details>
