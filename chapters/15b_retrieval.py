# %% [markdown]
# # 15b · Look it up, check it
#
# **The question.** Chapter 15 saw a model invent what it never read. Does it answer rightly when
# the right passage lies open in front of it, and can an invented answer be caught?
#
# **By the end you can**
# - *build* a search over passages, and measure finding and reading separately;
# - *test* with controls whether a model reads its passages, and what it does without the right one;
# - *choose* a remedy for a type of invention: passages, checks, prompts, refusals, decoding.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 00 to 04, 11b and 15 | CPU, no network | about 40 s | 6, about 70 minutes | D10 |

# %% tags=["setup"]
import math
from collections import Counter

import numpy as np

# %% tags=["setup"]
from sft_lab import atlas, lessons, plots
from sft_lab.abstention import auroc
from sft_lab.course import lookup_runs as runs
from sft_lab.course.checks import check
from sft_lab.course.results import read_results
from sft_lab.course.short_runs import tune_on
from sft_lab.course.views.lookup import (
    describe_lookup,
    draw_lookup,
    draw_open_book,
    explore_lookup,
    look_up,
)

# %% tags=["setup"]
from sft_lab.course.views.widgets import show_widget
from sft_lab.models import load
from sft_lab.retrieval import (
    FUNCTION_WORDS,
    PassageStore,
    answer_from,
    bm25,
    mean_reciprocal_rank,
    recall_at,
    retrieve,
    split_words,
    tf_idf,
)
from sft_lab.significance import judge_claim

plots.style()
base, tokenizer = load("atlas-base")
facts = runs.facts_by_part()
own_words = None  # the wording of a relation's own question, "What do people pay with in Peru?"

# %% [markdown]
# **Retrieval-augmented generation** (RAG) answers in an open book: passages are found for the
# question and put in front of it. Each step can fail, so each gets its own measure.

# %%
_ = draw_open_book()

# %% [markdown]
# Our store has one passage for each of 205 facts about 41 entities that the base never read. Each
# passage is a statement in one of five wordings, and has an id that an answer can cite.

# %%
passages = runs.write_passages(facts["unknown"])
store = PassageStore.of(passages)
for passage in passages[:4]:
    print(f"{passage.id:24} {passage.text}")

# %% [markdown]
# ## 1 · Finding
#
# A word that stands in every passage tells nothing. A rare word tells much. The **idf** (inverse
# document frequency) of a word that $n$ of $N$ passages hold is $\ln\frac{1 + N}{1 + n} + 1$.

# %%
texts = [split_words(passage.text) for passage in passages]


def rarity(word: str) -> float:
    """How much a word tells: the fewer passages hold it, the more."""
    holders = sum(word in text for text in texts)
    return math.log((1 + len(texts)) / (1 + holders)) + 1


for word in ("the", "capital", split_words(passages[0].text)[-1], "zebra"):
    print(f"{word:12} {rarity(word):.2f}")

# %% [markdown]
# **TF-IDF** weighs each word of a text by how often it stands there (tf) times its idf. The score
# of a passage is the cosine between its weights and those of the question. A word of the question
# that no passage holds matches nothing and lowers all scores.


# %%
def weigh(words: list[str]) -> dict[str, float]:
    """The weight of each word: how often it stands here, times how much it tells."""
    return {word: count * rarity(word) for word, count in Counter(words).items()}


def cosine(first: dict[str, float], second: dict[str, float]) -> float:
    """1 for the same direction, 0 without a common word."""
    product = sum(weight * second.get(word, 0.0) for word, weight in first.items())
    return product / math.hypot(*first.values()) / math.hypot(*second.values())


question = facts["unknown"][0].say(lessons.NEAR_WORDING)
by_hand = [cosine(weigh(split_words(question)), weigh(text)) for text in texts]
np.testing.assert_allclose(by_hand, tf_idf(store, question))
for hit in retrieve(store, question, count=3):
    print(f"{hit.score:.2f}  {hit.passage.text}")

# %% [markdown]
# **BM25**, the other classic, counts repeats less and less and corrects for long passages.
# `sft_lab.retrieval.bm25` calls the package `rank-bm25`; you write it below.
#
# Two measures of finding. **Recall at k**: the share of questions whose right passage is among the
# first k. **MRR**, the mean reciprocal rank: the mean of 1 / rank.
#
# **Predict.** We ask "I would like to know the currency of …" and "What do people pay with in …?".
# How often is the right passage the first, in each wording?


# %% tags=["predict"]
def rank_right(ranking, wording: str | None) -> list[int]:
    """The rank of the right passage for a question about each unknown fact."""
    ranks = []
    for fact in facts["unknown"]:
        asked = fact.say(wording or fact.relation.question)
        hits = retrieve(store, asked, count=len(passages), ranking=ranking)
        ranks.append(1 + [hit.passage.id for hit in hits].index(runs.name_passage(fact)))
    return ranks


found = {}
for name, wording in (("near wording", lessons.NEAR_WORDING), ("own words", own_words)):
    for ranking in (tf_idf, bm25):
        ranks = found[name, ranking.__name__] = rank_right(ranking, wording)
        recalls = "  ".join(f"@{k} {recall_at(ranks, k):4.0%}" for k in (1, 3, 5))
        print(f"{name:12} {ranking.__name__:7} {recalls}  MRR {mean_reciprocal_rank(ranks):.2f}")
assert recall_at(found["near wording", "tf_idf"], 1) > 0.95
assert recall_at(found["own words", "tf_idf"], 1) < 0.7

# %% [markdown]
# **Read.** Where question and passage share the relation's name, both rankings are nearly perfect.
# In own words only the entity's name matches: its five passages compete, and counting words cannot
# know that "pay" means "currency". More passages raise recall, and give the reader more to confuse.

# %% [markdown] tags=["exercise"]
# ### Exercise 15b.1 · BM25 · 15 min · ●●○
# `passages` is a list of lists of words (none empty), `question` a list of words. Return a list of
# floats, the score of each passage: the sum, over the words $w$ of the question, of
#
# $$\mathrm{idf}(w) \cdot \frac{tf \cdot (k_1 + 1)}{tf + k_1 \, (1 - b + b \cdot \ell / \bar\ell)}$$
#
# where $tf$ counts $w$ in the passage, $\ell$ is the passage's length in words and $\bar\ell$ the
# mean length; $k_1 = 1.5$, $b = 0.75$. With $n$ of $N$ passages holding $w$, idf is
# $\ln\frac{N - n + 0.5}{n + 0.5}$. Where that is negative (not zero), a quarter of the mean idf
# takes its place. The mean is over all different words of the store, before any is replaced. A word
# that stands twice in the question counts twice; one that no passage holds adds 0.


# %% tags=["stub"]
def score_bm25(passages: list[list[str]], question: list[str]) -> list[float]:
    """The BM25 score of each passage."""
    raise NotImplementedError


# %% tags=["solution"]
def score_bm25(passages: list[list[str]], question: list[str]) -> list[float]:
    """The BM25 score of each passage."""
    size, length = len(passages), sum(map(len, passages)) / len(passages)
    holders = Counter(word for passage in passages for word in set(passage))
    idf = {word: math.log((size - n + 0.5) / (n + 0.5)) for word, n in holders.items()}
    mean = sum(idf.values()) / len(idf)
    idf = {word: 0.25 * mean if value < 0 else value for word, value in idf.items()}
    scores = []
    for passage in passages:
        room = 1.5 * (0.25 + 0.75 * len(passage) / length)
        counts = [(idf.get(word, 0.0), passage.count(word)) for word in question]
        scores.append(float(sum(weight * tf * 2.5 / (tf + room) for weight, tf in counts)))
    return scores


# %% tags=["check"]
check("15b.1", score_bm25)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Make a dictionary of idfs first, then replace the negative ones,
# then score. <code>Counter</code> over <code>set(passage)</code> counts passages.</details>

# %% [markdown] tags=["explanation"]
# The quarter of the mean is a choice of `rank-bm25`, its epsilon. Others add 1 inside the
# logarithm. Scores of two programs do not compare.
#
# Usual mistakes: idf from how often a word stands in all passages; the floor taken as 0; a word of
# the question counted once.

# %% [markdown] tags=["exercise"]
# ### Exercise 15b.2 · Ranks without luck · 8 min · ●●○
# `scores[i]` holds a score for each passage, `right[i]` the place of the right passage of question
# i, counted from 0. Return two floats: recall at `k` and the mean reciprocal rank. A higher score
# is better, and ranks begin at 1. Every other passage with an **equal** score counts as ahead of
# the right one: luck in the order is no merit. There is at least one question.


# %% tags=["stub"]
def rank_fairly(scores: list[list[float]], right: list[int], k: int) -> tuple[float, float]:
    """Recall at k and the mean reciprocal rank; equal scores count as ahead."""
    raise NotImplementedError


# %% tags=["solution"]
def rank_fairly(scores: list[list[float]], right: list[int], k: int) -> tuple[float, float]:
    """Recall at k and the mean reciprocal rank; equal scores count as ahead."""
    ranks = [
        sum(score >= row[place] for score in row) for row, place in zip(scores, right, strict=True)
    ]
    return sum(rank <= k for rank in ranks) / len(ranks), sum(1 / r for r in ranks) / len(ranks)


# %% tags=["check"]
check("15b.2", rank_fairly)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The right passage equals itself: how many scores are at least as
# high as its own?</details>

# %% [markdown] tags=["explanation"]
# With sorted places, a search that gives every passage the score 0 "finds" whatever stands first.
#
# Usual mistakes: ties in favour of the right passage; ranks from 0; 1 / mean rank, which is another
# measure; only ranks up to k in the mean.

# %% [markdown]
# ## 2 · Reading
#
# Now we put the right passage there ourselves. The **reader** is tuned on 900 questions about facts
# and 1,500 questions behind one to four notes. Half of the notes are about an invented world, and
# some are false, so that only a reader is right.

# %%
reader = tune_on(base, tokenizer, runs.read_lessons("notes", seed=0), seed=0)
talk = runs.read_lessons("notes", seed=0)[0]
print(*(turn["content"] for turn in talk), sep="\n→ ")

# %% [markdown]
# A right answer alone proves no reading. So there are **controls**: no passage; the right one
# alone, or at each place of three; passages about other entities; one about the same relation of
# another entity; one about another relation of the same entity.
#
# Hypothesis **A** (primary): with the right passage, more questions about unknown entities are
# answered rightly than closed book, and than with other passages. **B**: its place matters.
#
# **Predict.** Closed book, the model guesses one in ten. How many with the right passage? And what
# does it say with a wrong one?

# %% tags=["predict"]
recorded = read_results("15b_reading", base)
print(f"recorded {recorded.made} by {recorded.command}: {len(recorded.rows)} rows\n")
print(f"{'in front of the question':24} {'right':>6} {'value of a note':>16}   recorded right")
for control in runs.CONTROLS:
    if control == "false note":
        continue
    here = runs.measure_control(reader, tokenizer, control)
    band = recorded.measured(f"{control}: right", arm="notes")
    print(
        f"{control:24} {here['right']:6.0%} {here['from the notes']:16.0%}   "
        f"{min(band):.0%} to {max(band):.0%}"
    )
    assert min(band) - 0.12 <= here["right"] <= max(band) + 0.12


# %% tags=["predict"]
def effect(first: str, second: str, claim: str, arms=("notes", "notes")) -> str:
    """The verdict on two measures of the recorded readers, in one line."""
    verdict = judge_claim(
        recorded.measured(first, arm=arms[0]), recorded.measured(second, arm=arms[1]), claim=claim
    )
    return f"{verdict.word}: {verdict.mean:+.0%}, noise floor {verdict.floor:.0%}"


right_note = "right note second: right"
verdicts = {
    "A, against closed book": effect("closed book: right", right_note, "higher"),
    "A, against other passages": effect("other notes: right", right_note, "higher"),
    "B, last place against first": effect(
        "right note first: right", "right note last: right", "lower"
    ),
}
for name, verdict in verdicts.items():
    print(f"{name:28} {verdict}")
assert [text.partition(":")[0] for text in verdicts.values()] == ["held", "held", "not shown"]

# %% [markdown]
# **Read.** The open book works: about one in ten closed book, about eight in ten with the right
# passage. The controls say that it is reading. Other passages make it *worse* than no passage: the
# model now takes a value from what lies there, even from another entity.
#
# ### Whom does it believe?
#
# We show a false note about a known entity, or notes about something else. A second reader,
# "distractors", was tuned as **RAFT** proposes: in 40 % of its rows with notes none answers, and the
# answer is the fact from memory.
#
# **Predict.** Does each reader say what it knows, or what it reads in the false note? And what is
# left of its knowledge beside passages about something else?

# %% tags=["predict"]
for arm in ("notes", "distractors"):
    print(f"reader tuned on: {arm}")
    for control in ("closed book", "right note alone", "false note", "other notes"):
        right, copied = (
            np.mean(recorded.measured(f"known, {control}: {what}", arm=arm))
            for what in ("right", "from the notes")
        )
        print(f"  {control:18} memory is right {right:4.0%}, says the note's value {copied:4.0%}")
kept = effect(
    "known, other notes: right", "known, other notes: right", "higher", ("notes", "distractors")
)
print("known facts right beside other notes, distractors over notes:", kept)
assert kept.startswith("held")

# %% [markdown]
# **Read.** Tuned on notes that always answer, the model believes a false passage against its own
# memory, and irrelevant passages cost it nearly all that it knows. The second reader keeps most
# knowledge beside irrelevant passages, and trusts a false note less.

# %% [markdown] tags=["exercise"]
# ### Exercise 15b.3 · A control that controls · 10 min · ●●○
# `entities[i]` is what question i **and** passage i are about. Several may be about one entity.
# Return a list of whole numbers: question i gets passage `result[i]`. Every passage is used exactly
# once, and no question gets a passage about its own entity. No entity has more than half of the
# places. An empty list gives `[]`.


# %% tags=["stub"]
def swap_passages(entities: list[str]) -> list[int]:
    """For each question the place of a passage about another entity; each passage once."""
    raise NotImplementedError


# %% tags=["solution"]
def swap_passages(entities: list[str]) -> list[int]:
    """For each question the place of a passage about another entity; each passage once."""
    order = sorted(range(len(entities)), key=lambda place: entities[place])
    largest = max(Counter(entities).values(), default=0)
    result = [0] * len(entities)
    for number, place in enumerate(order):
        result[place] = order[(number + largest) % len(order)]
    return result


# %% tags=["check"]
check("15b.3", swap_passages)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Put places of one entity side by side. How far must you then move
# along to leave even the largest group?</details>

# %% [markdown] tags=["explanation"]
# A plain shuffle leaves some right passages in place, and the control then looks too good.
#
# Usual mistakes: moving along by one; shuffling until it fits without checking; choosing any other
# passage, so that one is used twice and the control has other passages than the test.

# %% [markdown]
# ## 3 · Finding and reading together
#
# If the two steps were independent, the share of right answers would be hits × (right with the
# right passage) + misses × (right without it).
#
# **Predict.** We measured reading beside passages about *other* entities. In own words, the three
# found are mostly about the *same* entity. Is the product too high or too low?

# %% tags=["predict"]
gaps = []
for wording in ("near wording", "own words"):
    for count in (1, 3):
        parts = runs.hit_times_reading(recorded, count, wording)
        cells = "  ".join(f"{name} {share:4.0%}" for name, share in parts.items())
        print(f"{wording:12} {count} passage{'s' * (count > 1):1}  {cells}")
        gaps.append(parts["product"] - parts["measured"])
assert min(gaps) > 0

# %% [markdown]
# **Read.** The product is too high, most of all in own words: the steps are not independent. What
# is found beside the right passage are near misses, harder to tell apart than what we had put
# there. So measure each step under the conditions that the other creates.
#
# `answer_from` does all of it. It names its **source**, the best passage that holds every word of
# the answer (up to words such as "the"), and declines where no passage scores `least`.

# %%
asked = [facts["unknown"][n].say(lessons.PLAIN_QUESTION) for n in (0, 1, 2)]
asked += [facts["held_out"][n].say(lessons.PLAIN_QUESTION) for n in (0, 1)]
answers = answer_from(reader, tokenizer, asked, store, least=0.4)
for text, answer in zip(asked, answers, strict=True):
    print(f"{text:44} {answer.score:.2f}  {answer.text}  [{answer.source}]")

# %% [markdown]
# The last two entities are not in the store. Can the score tell? **AUROC** is how often a question
# that the store can answer scores higher than one that it cannot (0.5: chance, 1.0: always).

# %%
for ranking in (tf_idf, bm25):
    inside, outside = (runs.best_scores(store, ranking, part) for part in ("unknown", "held_out"))
    held = [True] * len(inside) + [False] * len(outside)
    print(f"{ranking.__name__:7} AUROC {auroc(inside + outside, held):.2f}")

# %% [markdown]
# Here is the whole path for one question. Hide the passages, move the thresholds, ask your own.

# %%
shown = [facts["unknown"][n].say(lessons.PLAIN_QUESTION) for n in (0, 2)]
shown += [facts["unknown"][1].say(facts["unknown"][1].relation.question)]
first = look_up(reader, tokenizer, store, shown[0], with_passages=True)
show_widget(explore_lookup(reader, tokenizer, store, shown), draw_lookup(first, 0.2, 0.0))
print(describe_lookup(first, 0.2, 0.0))

# %% [markdown]
# ### Saying that the passages do not say it
#
# A reader should decline where no passage answers. Two readers were tuned to: in 40 % of their rows
# no note answers. One then says "I do not know.". The other begins like any answer and declines at
# the place of the value: "The capital of Peru is not known."
#
# **Predict.** The rows are the same but for these words. Which reader declines, and does it still
# read?

# %% tags=["predict"]
READERS = ("notes", "distractors", "declining at the start", "declining")
columns = (
    "right note second: right",
    "right note second: declined",
    "same relation: declined",
    "same entity: declined",
    "other notes: declined",
    "known, other notes: right",
)
start, value = "declining at the start", "declining"
declines = effect(columns[2], columns[2], "higher", (start, value))
print("declined, refusal at the value over refusal at the start:", declines)
cost = effect(columns[0], columns[0], "lower", ("notes", value))
print("right answers lost by the refusal at the value:", cost)
assert declines.startswith("held")

# %% tags=["predict", "folded"]
_ = plots.share_table(
    {arm: [np.mean(recorded.measured(name, arm=arm)) for name in columns] for arm in READERS},
    [name.replace(": ", ":\n").replace("known, ", "known,\n") for name in columns],
    title="Where the refusal stands decides whether it is learned",
)

# %% [markdown]
# **Read.** The refusal at the start is not learned. At the place of the value it is: most answers
# without a passage are declined. A likely reason: the first word is due before a value was looked
# for; at the value, the search has just failed. Beside the right passage it declines about one in
# six, yet the loss of right answers is "not shown" by our rule. And beside irrelevant passages,
# nothing known is told any more.

# %% [markdown] tags=["exercise"]
# ### Exercise 15b.4 · Whose fault is it? · 8 min · ●○○
# For each question you know the id of the right passage (`wanted[i]`), the ids that the model read
# (`found[i]`, possibly none) and whether its answer was right (`right[i]`). Return a dict that
# counts questions under four keys: `"read"` (found, right), `"lucky"` (right, but the passage was
# not among those read), `"not found"` (wrong, passage not among them) and `"not read"` (wrong
# although it was). All four keys are always there.


# %% tags=["stub"]
def find_faults(wanted: list[str], found: list[list[str]], right: list[bool]) -> dict[str, int]:
    """How many questions were read, lucky, not found and not read."""
    raise NotImplementedError


# %% tags=["solution"]
def find_faults(wanted: list[str], found: list[list[str]], right: list[bool]) -> dict[str, int]:
    """How many questions were read, lucky, not found and not read."""
    counts = {"read": 0, "lucky": 0, "not found": 0, "not read": 0}
    for passage, ids, is_right in zip(wanted, found, right, strict=True):
        after_hit = "read" if is_right else "not read"
        after_miss = "lucky" if is_right else "not found"
        counts[after_hit if passage in ids else after_miss] += 1
    return counts


# %% tags=["check"]
check("15b.4", find_faults)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Two yes-or-no questions make four cases.</details>

# %% [markdown] tags=["explanation"]
# "Not found" asks for a better search, "not read" for a better reader or fewer passages.
#
# Usual mistakes: only the first passage counts; luck counted as reading; keys that are missing when
# their count is 0.

# %% [markdown] tags=["exercise"]
# ### Exercise 15b.5 · Passages that are found · 20 min · ●●●
# In own words, half of the passages are not found first. Write better passages. For each fact
# return a pair: the id `f"{fact.entity}/{fact.column}"` and a text of 1 to 30 words (separated by
# blanks). Return them as a list, one pair for each fact, in any order.
#
# The check builds a store, asks 160 questions in four wordings, puts the best passage (TF-IDF) in
# front, and asks a reader that it tunes for some seconds. At least 95 % must be found first, and at
# least 70 % answered rightly. `fact.say(template)` fills in a template, as in
# `atlas.STATEMENTS`; `fact.relation.question` is the question in own words.


# %% tags=["stub"]
def write_findable(facts: list) -> list[tuple[str, str]]:
    """For each fact an id and a passage that is found in any wording, and can be read."""
    raise NotImplementedError


# %% tags=["solution"]
def write_findable(facts: list) -> list[tuple[str, str]]:
    """For each fact an id and a passage that is found in any wording, and can be read."""
    return [
        (
            f"{fact.entity}/{fact.column}",
            f"{fact.say(fact.relation.question)} {fact.say(atlas.STATEMENTS[0])}",
        )
        for fact in facts
    ]


# %% tags=["check"]
check("15b.5", write_findable)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Which words does the question have that the passage lacks? A
# passage may hold more than the fact.</details>

# %% [markdown] tags=["explanation"]
# A passage that holds the question it answers is found by its words. Real systems let a model write
# such questions, or compare meanings by embeddings.
#
# Usual mistakes: only the question, so that nothing is left to read; several wordings of the
# statement, which repeat the same words; one page for all facts of an entity.

# %% [markdown]
# ## 4 · Checking
#
# An answer can be checked after it is written. First against a **table** of facts, made as tables
# are: a tenth of the rows is missing, a twentieth is false. Second against **another passage**, in
# other words, with the same gaps. A check has a *precision* (of the flagged answers, how many are
# wrong) and a *recall* (of the wrong ones, how many are flagged).
#
# **Predict.** Which check catches more of the closed-book inventions?

# %% tags=["predict"]
remedies = read_results("15b_remedies", base)
for name in ("table", "second passage"):
    for what in ("precision", "recall"):
        values = remedies.measured(f"{name}: {what}", arm="plain")
        print(f"{name:15} {what:10}", [f"{value:.0%}" for value in values])

# %% [markdown]
# **Read.** The second passage. It must bear an answer out, so a gap flags the answer; the table
# passes what it lacks, and every misspelt entity.
#
# Third, a **verifier**: a copy of the base, tuned to answer "true" or "false" to a statement. Its
# P(true) is a score. One verifier sees the statement alone, another sees it behind notes. Beside
# them stands the cheapest score, the answering model's own probability of the statement's least
# likely token.
#
# **Predict.** Which of the three can tell true statements from false ones about entities that no
# model has read?

# %% tags=["predict"]
verifier = read_results("15b_verifier", base)
scores = ("own probability", "judge alone", "judge with note")
for part in ("held_out, statements", "unknown, statements", "both, own answers"):
    print(part)
    for score in scores:
        values = verifier.measured(f"{part}, {score}: AUROC")
        print(f"  {score:16} AUROC {np.mean(values):.2f}  ({min(values):.2f} to {max(values):.2f})")
evidence = judge_claim(
    *(verifier.measured(f"unknown, statements, {score}: AUROC") for score in scores[1:]),
    claim="higher",
)
print(f"\nevidence helps the verifier on unknown entities: {evidence.word} ({evidence.mean:+.2f})")
for when in ("ECE", "ECE calibrated"):
    values = verifier.measured(f"unknown, statements, judge with note: {when}")
    print(f"{when:15} of the verifier with a note: {np.mean(values):.2f}")
assert evidence.word == "held"

# %% [markdown]
# **Read.** The own probability knows true from false statements where the model has read about
# them, and nothing elsewhere. It is best on the model's own answers, whose inventions it wrote
# unsurely. The verifier alone is poor everywhere: it has one bit a row to learn from. With a note it
# works for entities that nobody has read about, for comparing needs no memory. No score without
# evidence can do that.

# %% [markdown] tags=["exercise"]
# ### Exercise 15b.6 · A source must exist and say so · 8 min · ●●○
# `answer` may end with the id of its source in square brackets, "The capital of Peru is Lima.
# [Peru/capital]"; then `]` is its last character, and an id holds no brackets. `passages` maps ids
# to texts. Return
#
# - `"no source"` when the answer does not end with `]`;
# - `"invented"` when no passage has exactly that id;
# - `"supported"` when every word of the answer before the citation, but for FUNCTION_WORDS, is a
#   word of that passage, by `split_words` (imported above);
# - `"not supported"` otherwise.
#
# Brackets elsewhere are text. There is always a word that is not in FUNCTION_WORDS.


# %% tags=["stub"]
def judge_citation(answer: str, passages: dict[str, str]) -> str:
    """ "no source", "invented", "supported" or "not supported"."""
    raise NotImplementedError


# %% tags=["solution"]
def judge_citation(answer: str, passages: dict[str, str]) -> str:
    """ "no source", "invented", "supported" or "not supported"."""
    if not answer.endswith("]"):
        return "no source"
    text, _, source = answer[:-1].rpartition("[")
    if source not in passages:
        return "invented"
    said = set(split_words(text)) - FUNCTION_WORDS
    return "supported" if said <= set(split_words(passages[source])) else "not supported"


# %% tags=["check"]
check("15b.6", judge_citation)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>str.rpartition("[")</code> splits at the last bracket.
# Sets compare with <code>&lt;=</code>.</details>

# %% [markdown] tags=["explanation"]
# An invented source looks like any other until somebody opens it.
#
# Usual mistakes: letters instead of words, where Niger stands in Nigeria; some word instead of
# every word; any passage instead of the cited one; being content that the id exists.

# %% [markdown]
# ## 5 · Prompts
#
# The text that this course grew from lists four prompts against invention: an instruction, a role,
# an output with its source, step by step. Atlas has never read one. We compare a model whose tuning
# set has no such rows ("plain") with one that was shown what each prompt means ("heeding"). Both
# had as many rows of each kind; "plain" named its sources too, and always had one.

# %%
for name, text in runs.PROMPTS.items():
    print(f"{name:12} {text}")

# %% [markdown]
# **Predict.** What does each prompt do to the model that was never taught to heed it?

# %% tags=["predict"]
print(f"{'':40} {'plain':>14} {'heeding':>14}")
for name, pair in runs.PROMPT_EFFECTS.items():
    cells = [
        " → ".join(f"{np.mean(remedies.measured(key, arm=arm)):.0%}" for key in pair)
        for arm in ("plain", "heeding")
    ]
    print(f"{name:40} {cells[0]:>14} {cells[1]:>14}")

# %% [markdown]
# **Read.** To the plain model no prompt means anything. Taught, the instruction declines most
# answers that no note bears out and the steps mend the sums. The role changes little, for this
# model declines unknown entities without it too: the rule was learned for the entities, more than
# for the prompt. A prompt works as far as the model was taught to heed it; large chat models were
# taught by thousands of such rows.
#
# ## 6 · Which remedy helps which type?
#
# Four exams, one a type. **Facts**: unknown entities. **Logic**: sums of three numbers.
# **Instruction**: words to put in a list; one left out, added or misspelt is wrong. **Source**:
# "Name the note that says so." where no note is; wrong is a note that nobody wrote. A remedy may
# also cost right answers about known facts: the last column.
#
# **Predict.** Which remedy helps all four types?


# %% tags=["predict"]
def mean_share(kind: str, remedy: str, what: str) -> float:
    return np.mean(runs.remedy_measures(remedies, kind, remedy, what))


_ = plots.share_table(
    {
        name: [
            *(mean_share(kind, name, "wrong") for kind in runs.TYPES),
            mean_share("known", name, "right"),
        ]
        for name in runs.REMEDIES
    },
    [*(f"{kind}:\nwrong" for kind in runs.TYPES), "known facts:\nright"],
    title="Wrong answers by type and remedy, and what it costs",
)

# %% tags=["predict"]
print(f"{'fewer wrong answers':24}" + "".join(f"{kind:>13}" for kind in runs.TYPES), "  known lost")
for name in list(runs.REMEDIES)[1:]:
    words = [runs.judge_remedy(remedies, kind, name).word for kind in runs.EXAMS]
    print(f"{name:24}" + "".join(f"{word:>13}" for word in words))
helped = [
    name for name in runs.DECODING if runs.judge_remedy(remedies, "facts", name).word == "held"
]
assert not helped and runs.judge_remedy(remedies, "facts", "retrieval").word == "held"
assert runs.judge_remedy(remedies, "logic", "prompt, taught").word == "held"
assert runs.judge_remedy(remedies, "known", "retrieval").word == "held"

# %% [markdown]
# **Read.** Only two remedies turn wrong answers into right ones: retrieval for facts and sources,
# and taught steps for sums. Checks, taught refusals and the consistency filter (say it only when 5
# of 8 samples agree) turn them into "not known". The filter also gives up right answers. Retrieval
# by word counts puts passages in front of known facts too, and costs a third of these.
#
# Of the decoding settings none beats greedy on any type. T 0.2 is greedy for practical purposes;
# higher T, top-k and top-p invent more. A repetition penalty spoils lists, whose words must be
# repeated from the question. A prompt that was not taught does nothing, and naming a source by
# itself makes the model invent one each time. Such decisions were learned by a million weights
# from some hundred rows: the order of the remedies may differ in a large model.
#
# ### The same on a real model
#
# `smollm2-135m` reads invented facts as it is, and after 96 lessons under the instruction; three
# seeds, each with other facts. An answer is right when it holds the value.

# %%
smollm = read_results("15b_smollm2")
print(f"RECORDED on {smollm.made} by {smollm.command}; not run here\n")
for state in ("as it is", "taught"):
    for prompt in ("no instruction", "instruction"):
        cells = [
            f"{np.mean(smollm.measured(f'{shown}, {prompt}: {what}', model=state)):4.0%}"
            for shown, what in (
                ("nothing", "right"),
                ("right", "right"),
                ("right of three", "right"),
                ("three others", "another name"),
                ("three others", "declined"),
            )
        ]
        print(f"{state:9} {prompt:15} " + "  ".join(cells))
print("columns: right without a passage, with the right one, with it among three;")
print("with three others: says another's value, declines")

# %%
on_real = judge_claim(
    smollm.measured("three others, no instruction: right", model="as it is"),
    smollm.measured("right of three, no instruction: right", model="as it is"),
    claim="higher",
)
print(f"A on smollm2-135m {on_real.word}: {on_real.mean:+.0%}, noise floor {on_real.floor:.0%}")
assert on_real.word == "held" and not any(
    smollm.measured("nothing, no instruction: right", model="as it is")
)

# %% [markdown]
# **Read.** A is repeated: nothing closed book, about five in six with the right passage, three in
# five with it among three. Beside other passages, half of the answers name somebody else's value.
# The instruction by itself hardly changes that. 96 lessons do: nearly all such questions are
# declined, and reading improves. It then declines without the instruction too, as Atlas did.
#
# ## What to remember
#
# - Measure finding and reading separately, and always with controls: no passage, other passages, a
#   passage about the wrong thing.
# - A reader believes its passages, the false ones too. Show rows without the right passage in
#   tuning, or irrelevant passages will cost it what it knows.
# - A refusal is learned where the decision falls: at the place of the value.
# - A prompt works as far as the model was taught to heed it.
# - A check with evidence catches what a model without evidence cannot know to be wrong.
#
# ## Sources
#
# - T. Zhang et al., *RAFT: Adapting Language Model to Domain Specific RAG*, 2024,
#   arXiv:2403.10131: rows with the right passage among distractors, and rows with distractors only.
# - K. Kang et al., 2024, arXiv:2403.05612: the labels of unfamiliar examples become the default
#   answer.
# - arXiv:2508.06178, 2025: retrieval degraded control questions more than parametric updates.
# - `rank-bm25` 0.2.2, `BM25Okapi`: the idf floor of exercise 15b.1.
# - Chapter 15 has the types, causes and thresholds.
#
# <details><summary>中文要点</summary>
#
# 1. **检索增强生成（RAG）**分三步：检索、阅读、核对；每一步都会以自己的方式失败，要分别测量。
#    检索用 **TF-IDF** 与 **BM25**，指标是**召回率@k** 与 **MRR**。
# 2. **对照**：没有段落、正确段落、别的段落、同一关系的错误段落。只有对照才能说明模型真的在读。
# 3. **记忆与段落冲突**：只见过"总有答案"的样本，模型会相信错误的段落；混入没有答案的样本（**RAFT**）
#    能保住已有知识。
# 4. **拒答的位置**：把"不知道"放在答案的值的位置，小模型才学得会；放在句首学不会。
# 5. **事实校验**：对照表格、对照另一段落、**校验模型**；没有证据的校验模型无法判断没读过的实体。
# 6. **提示词**：没有教过的模型不会理会提示词；教过之后，指令、角色、来源、逐步推理各有用处。
#
# </details>
