# %% [markdown]
# # 11 · Data: what you show is what you get
#
# **The question.** A tuned model repeats what its tuning set shows: the knowledge, the form, and
# the mistakes. How many rows does it need, what does a wrong row cost, and what happens when a
# model writes the rows?
#
# **By the end you can**
# - *choose* size, cleanliness and variety of a data set from measured curves;
# - *audit* a data set: find its copies, and the exam questions that leaked into it;
# - *make* rows with a teacher or with the model itself, and compare with the right control.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 04 and 09 | CPU, no network | about 45 s | 5, about 45 minutes | C4 D19 L26 |

# %% tags=["setup"]
import random

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch.testing import assert_close

# %% tags=["setup"]
from sft_lab import atlas, plots
from sft_lab.course.checks import check
from sft_lab.course.data_mix import (
    Mix,
    answers_to,
    exams,
    measure_mix,
    mix_data,
    share_right,
    spoil,
    tune,
)
from sft_lab.course.data_runs import (
    THRESHOLD,
    as_texts,
    chosen_rows,
    measure_leak,
    measure_student,
    plant_leaks,
    prompts_of,
    sample_answers,
    start_of_rounds,
    train_teacher,
)

# %% tags=["setup"]
from sft_lab.course.results import read_results
from sft_lab.course.views.mix import draw_mix, draw_sources, explore_mix
from sft_lab.course.views.widgets import show_widget
from sft_lab.distill import distillation_loss
from sft_lab.duplicates import jaccard, near_duplicates, shingles, words
from sft_lab.instructions import instruction_rows
from sft_lab.models import load
from sft_lab.significance import judge_claim

plots.style()
base, tokenizer = load("atlas-base")
facts = atlas.split(atlas.load_facts())

# %% [markdown]
# ## 1 · How many, how clean, how varied
#
# Rows come from people, from a stronger model or from a table. A filter throws some away. What is
# left tunes a model, and an exam measures it.

# %%
_ = draw_sources()

# %% [markdown]
# We turn one knob at a time. Every run shows the model 480 examples and differs in nothing but the
# data: with 24 different rows, each is shown 20 times. The exam asks 200 questions about entities
# that no row names, in a wording that no row has.
#
# The runs are recorded (`tools/experiments/11_data_mix.py`); we repeat one below.
#
# **Predict.** The base knows the facts and has never answered a question. How many different rows
# does it need for 80 % right answers: 20, 200 or 2,000?

# %%
mixes = read_results("11_data_mix", base)
sizes = (3, 6, 12, 24, 48, 96, 192, 384)
by_size = np.array([mixes.measured("facts", **vars(Mix(distinct=size))) for size in sizes])

# %% tags=["predict", "folded"]
ax = plots.curve(
    np.log2(sizes),
    {"five seeds": by_size.T},
    xlabel="different rows (each step doubles them)",
    ylabel="right answers (share)",
    title="Some 24 rows are enough to begin to answer",
)
_ = ax.set_xticks(np.log2(sizes), sizes)
assert by_size[sizes.index(24)].mean() > 0.75 and np.ptp(by_size[-1]) < 0.08

# %% tags=["predict"]
again = measure_mix(base, tokenizer, Mix(distinct=24), seed=0)["facts"]
low, high = by_size[sizes.index(24)].min(), by_size[sizes.index(24)].max()
print(f"run here {again:.1%}; recorded {low:.1%} to {high:.1%} over five seeds")
assert low - 0.05 <= again <= high + 0.05

# %% [markdown]
# **Read.** Two dozen rows give more than three quarters. They teach a form: answer the question,
# then stop. The knowledge was there. Later rows add mostly certainty: the seeds come to agree. LIMA
# reports the like of a large model, with 1,000 examples. Chapter 11b asks whether *knowledge* can
# be taught so cheaply.
#
# Labels can be wrong in two ways. **Scattered**: the labeller slips, each time in another way. **By
# rule**: the labeller misunderstood one kind of question, and answers all of that kind alike.

# %%
some = [fact for fact in facts["train"] if fact.column in ("continent", "capital")][:8]
for name, claimed in (
    ("right", some),
    ("scattered", spoil(some, 0.5, "scattered", seed=1)),
    ("rule", spoil(some, 0.5, "rule", seed=1)),
):
    print(f"{name:10}", *[fact.value for fact in claimed], sep=" | ")

# %% [markdown]
# The claim of this chapter, stated before the runs: *on the kinds of question that a rule touches,
# a quarter of wrong labels by rule leaves fewer right answers than a quarter of scattered ones.*
# Primary measure: the share of right answers on these kinds.
#
# **Predict.** Does it hold? And which is worse for all other kinds of question?

# %% tags=["predict"]
shares = (0.1, 0.25, 0.5, 0.75)
quarter = {kind: vars(Mix(wrong=0.25, kind=kind)) for kind in ("scattered", "rule")}
verdict = judge_claim(
    mixes.measured("spoilt kinds", **quarter["scattered"]),
    mixes.measured("spoilt kinds", **quarter["rule"]),
    claim="lower",
)
print(f"{verdict.mean:+.0%} right, noise floor {verdict.floor:.0%}: {verdict.word}")
for share in shares:
    scores = [np.mean(mixes.measured("facts", **vars(Mix(wrong=share, kind=k)))) for k in quarter]
    print(f"{share:.0%} wrong, all questions: scattered {scores[0]:.0%}, rule {scores[1]:.0%}")
assert verdict.word == "held"

# %% tags=["predict", "folded"]
figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
for ax, part in zip(axes, ("spoilt kinds", "other kinds"), strict=True):
    lines = {
        kind: np.array(
            [mixes.measured(part, **vars(Mix(wrong=share, kind=kind))) for share in shares]
        ).T
        for kind in ("scattered", "rule")
    }
    _ = plots.curve(
        shares, lines, xlabel="share of wrong labels", ylabel="", title=f"the {part}", ax=ax
    )
    ax.set(ylim=(0, 1.02), xticks=shares)
axes[0].set_ylabel("right answers (share)")
_ = plots.title_figure(figure, "By rule, one kind is lost; scattered, a part of every kind")

# %% [markdown]
# **Read.** A rule is learned: it is applied to entities that no row names, and other kinds are left
# alone. Scattered errors cost almost nothing at 10 %. But they do not average out. From a quarter
# on they hurt *every* kind: the model learns that any value will do. So an error rate says little;
# ask how the errors came about.
#
# On a real model? We tune `smollm2-135m` (135 million parameters) on 48 questions about countries,
# a quarter of them wrong; by rule, every continent is "Oceania". Recorded, three seeds.

# %%
smollm = read_results("11_smollm")
for arm in ("clean", "scattered", "rule"):
    on_kind, on_others = (smollm.measured(name, arm=arm) for name in ("spoilt kind", "other kinds"))
    print(f"{arm:10} continents {np.mean(on_kind):.0%}, other kinds {np.mean(on_others):.0%}")
for arm in ("scattered", "clean"):
    both = (smollm.measured("spoilt kind", arm=one) for one in (arm, "rule"))
    on_smollm = judge_claim(*both, claim="lower")
    print(
        f"rule below {arm:9} on continents, by seed "
        f"{', '.join(f'{effect:+.0%}' for effect in on_smollm.effects)}: {on_smollm.word}"
    )

# %% [markdown]
# **Read.** The rule was learned: against clean rows it holds, and only the countries of Oceania are
# right. Against scattered errors the sign is the same in every seed, and yet it is *not shown*:
# twelve slips in 48 rows cost between nothing and half of the continents. (Of the other kinds this
# model knows too little to tell.)
#
# Last, variety: 384 rows, with 1 to 8 wordings of the question. The second exam asks in words that
# each relation has for itself ("How do chemists write iron?").
#
# **Predict.** Which exam gains from more wordings?

# %% tags=["predict"]
counts = (1, 2, 4, 8)
varied = {
    exam: [mixes.measured(exam, **vars(Mix(wordings=count))) for count in counts]
    for exam in ("facts", "reworded")
}
for exam, runs in varied.items():
    shown = "  ".join(f"{n}: {np.mean(r):.0%}" for n, r in zip(counts, runs, strict=True))
    judged = judge_claim(runs[0], runs[2], claim="higher")
    print(f"{exam:9} {shown}   four wordings above one: {judged.word}")

# %% [markdown]
# **Read.** Neither: not shown. The relation's own words stay hard, however many *other* wordings a
# data set has. Yet variety is not useless: in the view, set the wordings to 1 and the tasks to two.
#
# Now mix a data set. Every setting was measured, in three runs or more. "Knobs one by one" is a
# prediction: it adds up the effects of the single knobs, as log-odds. Set your guess first. Then
# find a setting where adding up is far off.

# %%
show_widget(explore_mix(mixes), draw_mix(mixes, Mix(), 50))

# %% [markdown]
# The slider "copies" needs no runs of its own: 96 rows, 75 % of them copies, are 24 different rows,
# shown as often. We check that with one run.

# %%
copied = [row for row in mix_data(Mix(distinct=24), seed=0) for _ in range(4)]
exam = exams()["facts"]
score = share_right(answers_to(tune(base, tokenizer, copied), tokenizer, exam), exam)
print(f"{len(copied)} rows, 24 different: {score:.1%}")
assert low - 0.05 <= score <= high + 0.05
for wordings in (4, 1):
    both = mixes.measured("facts", **vars(Mix(wordings=wordings, tasks=2)))
    print(f"facts and sums, {wordings} wording(s): facts right {both}")
assert min(both) < 0.2 < 0.8 < max(both)

# %% [markdown]
# **Read.** A copy adds no information. And knobs do not add up: with one wording *and* two tasks,
# the model may take a new wording for the other task. In one seed of three hardly a fact is right.

# %% [markdown] tags=["exercise"]
# ### Exercise 11.1 · The cheapest data set that passes · 8 min · ●●○
# Rows have a price, and dirtier rows are cheaper. Choose a design from recorded runs. `rows` are
# dicts with the keys `distinct`, `wrong`, `seed` and `facts` (the score). A design is a pair
# (`distinct`, `wrong`); it passes when **every** seed of it scores at least `bar`. It costs
# `distinct` times `prices[wrong]`. Return the cheapest design that passes; of two with equal cost
# the one with fewer rows; `None` when none passes.


# %% tags=["stub"]
def cheapest(rows: list[dict], prices: dict[float, float], bar: float) -> tuple[int, float] | None:
    """The cheapest (distinct, wrong) whose worst seed scores at least `bar`, or None."""
    raise NotImplementedError


# %% tags=["solution"]
def cheapest(rows: list[dict], prices: dict[float, float], bar: float) -> tuple[int, float] | None:
    """The cheapest (distinct, wrong) whose worst seed scores at least `bar`, or None."""
    scores = {}
    for row in rows:
        scores.setdefault((row["distinct"], row["wrong"]), []).append(row["facts"])
    passing = [design for design, some in scores.items() if min(some) >= bar]
    return min(passing, key=lambda d: (d[0] * prices[d[1]], d[0]), default=None)


# %% tags=["check"]
check("11.1", cheapest)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>A dictionary from design to scores; then <code>min</code> with a
# pair as key, and <code>default=None</code>.</details>

# %% [markdown] tags=["explanation"]
# Try it on the rows of `mixes` with scattered errors, 4 wordings and 1 task, at prices of your own.
#
# Usual mistakes: the mean of the seeds, which hides the run that fails; the fewest rows instead of
# the lowest cost; `>` where a score equal to the bar passes.

# %% [markdown]
# ## 2 · Copies, and exams that leak
#
# Near-duplicates are found by counting shared pieces. A **shingle** is a run of n words in a text.
# The **Jaccard similarity** of two texts is the share of all their shingles that both have:
# $|A \cap B| \,/\, |A \cup B|$. It is 1 for equal texts and 0 where nothing is shared.


# %%
def shingles_by_hand(text: str, n: int = 3) -> set[tuple[str, ...]]:
    """All runs of n words in the text, without case and punctuation."""
    found = words(text)
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


one, other = "What is the capital of Kenya?", "Tell me the capital of Kenya!"
a, b = shingles_by_hand(one), shingles_by_hand(other)
print(sorted(" ".join(shingle) for shingle in a & b), f"shared, {len(a | b)} in all")
assert a == shingles(one)
assert_close(len(a & b) / len(a | b), jaccard(shingles(one), shingles(other)))

# %% [markdown]
# `near_duplicates` keeps an index from each shingle to its rows, and so looks only at pairs that
# share one. It finds the same pairs as comparing all with all (`tests/test_duplicates.py`).
#
# **Predict.** `data/instructions` was written for this course. Are there near-duplicates in it, and
# do any join the training part with the held-out part?

# %% tags=["predict"]
rows = instruction_rows()
questions = [f"{row['instruction']}\n{row['input']}" for row in rows]
pairs = near_duplicates(questions, threshold=0.2)
across = [p for p in pairs if rows[p.first]["split"] != rows[p.second]["split"]]
print(f"{len(pairs)} pairs of questions at 0.2 or more, {len(across)} of them across the split")
for pair in (*pairs[:1], *across[:2]):
    for place in (pair.first, pair.second):
        print(f"{pair.similarity:.2f} {rows[place]['split']:8} {questions[place][:66]!r}")
assert pairs[0].similarity > 0.7 and max(pair.similarity for pair in across) < 0.35

# %% [markdown]
# **Read.** The closest pairs are questions about one passage, and stand on one side of the split,
# as they should. Across it only phrases are shared. (**MinHash** estimates the same similarity from
# short signatures. It pays for billions of texts; our index needs half a second for 6,000.)
#
# Now an exam leaks. We make two exams of 80 questions about entities that no pretraining text
# names. The questions of the first go into the tuning set, verbatim or reworded.
#
# **Predict.** What does the leak do to the score in the first exam, and in the second? ("Mended" is
# the reworded set without the rows that our detector found.)

# %% tags=["predict"]
leaks = read_results("11_contamination", base)
for arm in ("clean", "verbatim", "reworded", "mended"):
    scores = [leaks.measured(name, arm=arm) for name in ("leaked", "second")]
    first, second = (f"{np.mean(s):.0%} ({min(s):.0%} to {max(s):.0%})" for s in scores)
    print(f"{arm:9} {leaks.select(arm=arm)[0]['rows']} rows   first exam {first}   second {second}")
for exam in ("leaked", "second"):
    both = [leaks.measured(exam, arm=arm) for arm in ("clean", "reworded")]
    print(f"{exam}: higher with the leak? {judge_claim(*both, claim='higher').word}")

# %% tags=["predict"]
here = measure_leak(base, tokenizer, "reworded", seed=0)
band = leaks.measured("leaked", arm="reworded")
print(f"run here: first exam {here['leaked']:.0%}, second {here['second']:.0%}")
assert min(band) - 0.08 <= here["leaked"] <= max(band) + 0.08

# %% [markdown]
# **Read.** The first exam now measures memory; the second tells that little else was learned.
# The mended set is the clean one again, row by row, and so is its score.
#
# The detector compared question *and* answer. In the next set, many rows use the exam's wording.

# %%
exam, leaky, leaked = plant_leaks(0)
for name, text_of in (
    ("question alone", lambda some: [row[0]["content"] for row in some]),
    ("question and answer", as_texts),
):
    pairs = near_duplicates(text_of(exam), text_of(leaky), threshold=THRESHOLD)
    named = {pair.first for pair in pairs}
    print(
        f"{name:20} {len(named & leaked)} of {len(leaked)} leaks named, "
        f"{len(named - leaked)} others"
    )

# %% [markdown]
# **Read.** The questions alone accuse the whole exam. With the answer, only what asks for the same
# fact stays alike. A translation, though, shares no shingle at all. Yang et al. (2023) show that
# such rows pass these filters and raise scores. A second exam, written later, is the better
# witness.

# %% [markdown] tags=["exercise"]
# ### Exercise 11.2 · A quotation inside a long row · 6 min · ●●○
# A long row that quotes an exam question has a low Jaccard similarity with it: the union is large.
# Measure **containment**: the share of the question's shingles that stand in a row. Return the
# largest share that any *single* row has, as a float; 0.0 when there are no rows, or when the
# question has no shingles. Use `shingles(text, n)`.


# %% tags=["stub"]
def leaked_share(question: str, rows: list[str], n: int) -> float:
    """The largest share of the question's shingles of n words that one of the rows holds."""
    raise NotImplementedError


# %% tags=["solution"]
def leaked_share(question: str, rows: list[str], n: int) -> float:
    """The largest share of the question's shingles of n words that one of the rows holds."""
    asked = shingles(question, n)
    if not asked:
        return 0.0
    return max((len(asked & shingles(row, n)) / len(asked) for row in rows), default=0.0)


# %% tags=["check"]
check("11.2", leaked_share)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Of two sets, <code>a &amp; b</code> is what both have.
# <code>max(…, default=0.0)</code> takes care of no rows.</details>

# %% [markdown] tags=["explanation"]
# Jaccard asks whether two texts are alike, containment whether one holds the other.
#
# Usual mistakes: dividing by the union, or by the row's shingles; throwing all rows into one set.

# %% [markdown] tags=["exercise"]
# ### Exercise 11.3 · The audit · 12 min · ●●●
# Write an audit that finds leaked exam questions; its outcome is checked. `exam` and `rows` are
# lists of conversations, each a question and its answer. Return a list of the places in `exam`
# (ints from 0, each once, in any order) whose fact is asked for in `rows`, with the same question
# or another. Other rows use the exam's wording for other facts. The check makes six fresh sets with
# 12 leaks each: find at least 85 % of all leaks, and at least 85 % of what you name must be leaks.
#
# `plant_leaks(seed)` makes sets to practise on: `exam, rows, leaked`.


# %% tags=["stub"]
def audit(exam: list, rows: list) -> list[int]:
    """The places of the exam questions that leaked into the rows."""
    raise NotImplementedError


# %% tags=["solution"]
def audit(exam: list, rows: list) -> list[int]:
    """The places of the exam questions that leaked into the rows."""
    pairs = near_duplicates(as_texts(exam), as_texts(rows), threshold=0.4, n=3)
    return sorted({pair.first for pair in pairs})


# %% tags=["check"]
check("11.3", audit)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>as_texts</code> joins question and answer. Try n and the
# threshold on practice sets: count what you miss, and what you accuse wrongly.</details>

# %% [markdown] tags=["explanation"]
# Single words (n = 1) accuse nearly every question: all share "the", "of" and "is". A high
# threshold finds verbatim leaks alone. Equal answers would do here; they fail where answers are
# short ("No").

# %% [markdown]
# ### Where rows come from, and what must be written down
#
# | source | costs | brings |
# |---|---|---|
# | people | minutes a row, and a second reader | new knowledge, slips, misunderstandings |
# | a stronger model, filtered | computing, its licence | any number of rows, its errors too |
# | a table, converted | a template, its licence | clean facts, few wordings |
#
# Converting is a few lines. The source and its licence travel with every row.

# %%
template = "Which city is the capital of {e}?"
table = [fact for fact in facts["train"] if (fact.domain, fact.column) == ("countries", "capital")]
converted = [
    {
        "messages": atlas.ask([fact], template=template)[0],
        "source": "data/atlas/countries.csv",
        "licence": "Apache-2.0",
    }
    for fact in table
]
print(len(converted), "rows;", converted[0])

# %% [markdown]
# A **datasheet** says what no row can say (ours: `data/instructions/README.md`). What are the rows,
# how many, and why? Who wrote them, or which model? What was checked? How was the split made, and
# does a pair cross it? Which *kinds* of error were found? What is missing, and what is the licence?

# %% [markdown]
# ## 3 · A teacher
#
# In **distillation** a strong model, the teacher, answers, and a student is tuned on the answers.
# Or the student learns the teacher's whole distribution at every graded position. A temperature T
# softens both, so that small probabilities count more:
#
# $$L = T^2 \sum_v p_v \ln\frac{p_v}{q_v}, \qquad p = \mathrm{softmax}(z^\text{teacher}/T),\quad
# q = \mathrm{softmax}(z^\text{student}/T).$$

# %% [markdown] tags=["exercise"]
# ### Exercise 11.4 · The distillation loss · 8 min · ●●○
# Write L for logits of shape (N, V): summed over the vocabulary, the mean over the N rows, a scalar
# tensor. No gradient may reach the teacher. The logits are finite, but a probability of the teacher
# may round to 0: then its term is 0, not nan.


# %% tags=["stub"]
def kd_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float
) -> torch.Tensor:
    """T² · KL(teacher ‖ student) at temperature T, the mean over the rows of the logits (N, V)."""
    raise NotImplementedError


# %% tags=["solution"]
def kd_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float
) -> torch.Tensor:
    """T² · KL(teacher ‖ student) at temperature T, the mean over the rows of the logits (N, V)."""
    log_q = (student_logits / temperature).log_softmax(dim=-1)
    log_p = (teacher_logits.detach() / temperature).log_softmax(dim=-1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()


# %% tags=["check"]
check("11.4", kd_loss)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Take <code>log_softmax</code> of both and <code>exp</code> of the
# teacher's: then log 0 never stands alone.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: T² forgotten; `F.kl_div` with `reduction="mean"`, which divides by the vocabulary
# too; the distributions swapped; the cross-entropy, whose value is another; a teacher that learns.

# %% [markdown]
# Its gradient with respect to the student's logits is $T\,(q - p)/N$. We nudge each logit to check.

# %%
_ = torch.manual_seed(0)
student_z, teacher_z = torch.randn(2, 1, 5, dtype=torch.float64)
temperature, nudges = 2.0, 1e-6 * torch.eye(5, dtype=torch.float64)
p = (teacher_z / temperature).softmax(-1)


def loss_at(logits: torch.Tensor) -> torch.Tensor:
    """The formula once more, with torch's own divergence."""
    log_q = (logits / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(log_q, p, reduction="batchmean")


slopes = [(loss_at(student_z + nudge) - loss_at(student_z - nudge)) / 2e-6 for nudge in nudges]
q = (student_z / temperature).softmax(-1)
assert_close(torch.stack(slopes), temperature * (q - p)[0], rtol=1e-6, atol=1e-8)
ours = distillation_loss(student_z, teacher_z, temperature=temperature)
assert_close(ours, loss_at(student_z).float())
print("gradient", [round(slope.item(), 4) for slope in slopes])

# %% [markdown]
# As T grows, q − p shrinks as 1/T: with T² in front, the gradient keeps its size.
#
# The good teacher was tuned on 768 clean rows. For two others half of the labels were wrong, by
# rule or scattered. Every student sees 480 examples, made from 96 questions that its source
# answered.
#
# **Predict.** Which students repeat their teacher's errors *word for word*, on questions they were
# never shown: those of the rule, or those of the scattered errors? Can a student beat its teacher?
# The second cell judges six claims. Any of them may fail.

# %% tags=["predict"]
students = read_results("11_distillation", base)
sources = (("gold", 1.0), ("words", 1.0), ("probabilities", 1.0), ("probabilities", 2.0))


def of_students(measure: str, teacher: str, source: str, temperature: float = 1.0) -> list[float]:
    """One measure of the students that were made from 96 questions, a number a seed."""
    made = {"teacher": teacher, "source": source, "temperature": temperature, "prompts": 96}
    return students.measured(measure, **made)


for teacher, some in (("good", sources), ("rule", sources[1:3]), ("scattered", sources[1:3])):
    right = np.mean(of_students("teacher right", teacher, "words"))
    print(f"the {teacher} teacher: {right:.0%} right")
    for source in some:
        of = {m: np.mean(of_students(m, teacher, *source)) for m in ("right", "copied", "own loss")}
        print(
            f"   {source[0]:13} T {source[1]:.0f}   right {of['right']:4.0%}   teacher's errors "
            f"copied {of['copied']:4.0%}   loss on its own kind of labels {of['own loss']:.2f}"
        )


# %% tags=["predict"]
gold, good_soft = ("good", "gold"), ("good", "probabilities", 2.0)
rule, scattered, soft = ("rule", "words"), ("scattered", "words"), ("scattered", "probabilities")
for name, measure, first, second, claim in (
    ("probabilities at T 2 above gold: right answers", "right", gold, good_soft, "higher"),
    ("probabilities at T 2 above gold: loss on gold", "gold loss", gold, good_soft, "higher"),
    ("rule above scattered: errors copied", "copied", scattered, rule, "higher"),
    ("rule below scattered: loss on its own labels", "own loss", scattered, rule, "lower"),
    ("rule below scattered: right answers", "right", scattered, rule, "lower"),
    ("scattered, probabilities below words: right", "right", scattered, soft, "lower"),
):
    judged = judge_claim(of_students(measure, *first), of_students(measure, *second), claim=claim)
    print(f"{name:47} {judged.mean:+.2f}, noise floor {judged.floor:.2f}: {judged.word}")
gain = np.subtract(of_students("right", *scattered), of_students("teacher right", *scattered))
print("right answers, a student of scattered words minus its teacher:", gain.round(2).tolist())
assert gain.min() > 0.05

# %% tags=["predict"]
teacher = train_teacher(base, tokenizer, "rule", seed=0)
here = measure_student(base, tokenizer, teacher, source="words", prompts=96, seed=0)
band = of_students("copied", *rule)
print(f"run here: {here['right']:.0%} right, {here['copied']:.0%} of the teacher's errors copied")
assert min(band) - 0.1 <= here["copied"] <= max(band) + 0.1

# %% [markdown]
# **Read.** From a *good* teacher, words, probabilities and gold do equally well: not shown that one
# is better. (The few errors are the base's own: the gold student makes them too.)
#
# A teacher's *rule* is copied: four errors of five, word for word. *Scattered* errors are not: that
# student beats its teacher in every seed, for it answers what it knew. Learned from probabilities,
# it came out lower in every seed: they carry the teacher's doubt.
#
# When does a lower loss mean worse answers? When the validation labels come from the same source.
# The rule's student has the lower loss on its labels, and in every seed fewer right answers. And
# temperature 2 doubles the loss on gold without losing answers. Choose by answers, not by loss.

# %% [markdown]
# ## 4 · The best of K
#
# Where a program can check answers, a model can write its own rows: it samples K answers to a
# prompt, and we keep a right one. This is **rejection sampling**, or best of K. It can act only
# where there is a choice. So we look first at the **decidable fraction**: the share of prompts for
# which some of the K samples are right and some are not.
#
# **Predict.** The starting model learned 96 facts and 64 sums. For which share of 200 sums are some
# of 8 samples right, and for which share of 200 facts?

# %% tags=["predict"]
start = start_of_rounds(base, tokenizer, seed=0)
decidable = {}
for skill in ("facts", "sums"):
    answers, right = sample_answers(start, tokenizer, prompts_of(skill), seed=0)
    count = [sum(some) for some in right]
    decidable[skill] = np.mean([0 < n < 8 for n in count])
    print(
        f"{skill:5} none right {sum(n == 0 for n in count) / len(count):4.0%}, decidable "
        f"{decidable[skill]:4.0%}, all right {sum(n == 8 for n in count) / len(count):4.0%}"
    )
assert decidable["facts"] > decidable["sums"] > 0.5

# %% [markdown]
# **Read.** Most prompts of both kinds are decidable, and more facts than sums.
#
# For each decidable prompt the *top* arm takes a right sample. Its **matched control** takes any
# sample of the *same* prompts. Rows and training are as many. What separates the two arms is the
# selection, not the extra data.

# %%
prompts = prompts_of("sums")  # `answers` and `right` are still those of the sums
top, luck = (chosen_rows(prompts, answers, right, arm, seed=0) for arm in ("top", "random"))
print(len(top), "rows in each arm")
for one, other in list(zip(top, luck, strict=True))[:3]:
    print(f"{one[0]['content']:18} top: {one[1]['content']:32} control: {other[1]['content']}")

# %% [markdown]
# Three such rounds, each from the model that the last one made. The claim: *top gets more sums
# right than its matched control*, after one round and after three.
#
# **Predict.** Does it? And what becomes of the facts, which no round trains?

# %% tags=["predict"]
played = read_results("11_best_of_k", base)


def after(rounds: int, exam: str, skill: str, arm: str) -> list[float]:
    """The score after so many rounds, a number a seed."""
    return [scores[rounds] for scores in played.measured(exam, skill=skill, arm=arm)]


for skill, rounds in (("sums", 1), ("sums", 3), ("facts", 1)):
    before, top, control = (
        np.mean(after(when, skill, skill, arm))
        for when, arm in ((0, "top"), (rounds, "top"), (rounds, "random"))
    )
    judged = judge_claim(
        *(after(rounds, skill, skill, arm) for arm in ("random", "top")), claim="higher"
    )
    print(
        f"{skill:5} round {rounds}: before {before:.0%}, top {top:.0%}, control {control:.0%}; top "
        f"above control by seed {', '.join(f'{e:+.0%}' for e in judged.effects)}: {judged.word}"
    )

# %% tags=["predict"]
for skill, other, rounds in (("sums", "facts", 3), ("facts", "sums", 1)):
    before, kept = after(0, other, skill, "top"), after(rounds, other, skill, "top")
    judged = judge_claim(before, kept, claim="lower")
    print(
        f"trained on {skill}, {other} lost? {np.mean(before):.0%} before, then "
        f"{', '.join(f'{score:.0%}' for score in kept)} by seed: {judged.word}"
    )

# %% tags=["predict", "folded"]
recorded = [some[0] for some in played.measured("decidable", skill="sums", arm="top")]
assert abs(decidable["sums"] - np.mean(recorded)) < 0.12  # run above, and recorded
figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
arms = ("top", "random")
for ax, exam in zip(axes, ("sums", "facts"), strict=True):
    runs = {arm: np.array(played.measured(exam, skill="sums", arm=arm)) for arm in arms}
    _ = plots.curve(range(4), runs, xlabel="round", ylabel="", title=f"exam: {exam}", ax=ax)
    ax.set(ylim=(0, 1.02), xticks=range(4))
axes[0].set_ylabel("right answers (share)")
_ = plots.title_figure(figure, "Right samples help in the first round; random ones never do")

# %% [markdown]
# **Read.** After one round the claim holds: same prompts, as many rows, and the control does not
# gain. After three it is *not shown*: top is ahead in every seed, but the control's seeds drift
# apart. The rows above tell what is selected: many samples have the sum right and run on. A right
# answer must also *stop*.
#
# On facts the gain is small, and not shown: greedy answers were mostly right already. The published
# control (see the sources) ends in a tie as well.
#
# What was not trained may stay or go. Rounds of sums leave the facts alone; one round of facts
# wipes out the sums.

# %% [markdown] tags=["exercise"]
# ### Exercise 11.5 · Top, and its matched control · 9 min · ●●○
# `rewards[i][k]` is the reward of sample k of prompt i; all prompts have equally many samples.
# Leave out prompts whose rewards are all equal. For each of the others, in order, choose the sample
# with the highest reward (the first of equal ones), and for the control any of *all* its samples,
# equally likely, drawn anew for each prompt from `random.Random(seed)`. Return two lists of pairs
# (i, k), counted from 0: the tops, and the control.


# %% tags=["stub"]
def top_and_control(
    rewards: list[list[float]], seed: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The best sample of each decidable prompt, and a random one of the same prompts."""
    raise NotImplementedError


# %% tags=["solution"]
def top_and_control(
    rewards: list[list[float]], seed: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The best sample of each decidable prompt, and a random one of the same prompts."""
    rng = random.Random(seed)
    mixed = [i for i, some in enumerate(rewards) if min(some) < max(some)]
    tops = [(i, rewards[i].index(max(rewards[i]))) for i in mixed]
    return tops, [(i, rng.randrange(len(rewards[i]))) for i in mixed]


# %% tags=["check"]
check("11.5", top_and_control)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>list.index</code> finds the first of equal values. Make the
# generator once, before the loop.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: a control that leaves out the top, and so is worse than chance; one draw for all
# prompts; other prompts, so that two things differ; prompts with nothing to choose.

# %% [markdown]
# ## What to remember
#
# - Where the knowledge is there, a few dozen rows teach the form. Copies add nothing.
# - Errors by rule are learned and passed on; scattered ones, from a quarter on, hurt everywhere.
# - Compare exam and tuning set, question *and* answer; keep a second exam.
# - A loss on labels of one source measures agreement with that source, not truth.
# - Best of K: the decidable fraction first, then a matched random control.
#
# ## Sources
#
# - C. Zhou et al., *LIMA: Less Is More for Alignment*, 2023, arXiv:2305.11206.
# - A. Broder et al., *Syntactic Clustering of the Web*, WWW 1997: shingles and MinHash.
# - S. Yang et al., *Rethinking Benchmark and Contamination for Language Models with Rephrased
#   Samples*, 2023, arXiv:2311.04850.
# - G. Hinton, O. Vinyals and J. Dean, *Distilling the Knowledge in a Neural Network*, 2015,
#   arXiv:1503.02531.
# - Z. Yuan et al., *Scaling Relationship on Learning Mathematical Reasoning with Large Language
#   Models*, 2023, arXiv:2308.01825: rejection sampling for sums in words.
# - N. Lambert, `natolambert/rlhf-book`, `code/rejection_sampling`: the matched random control and
#   the decidable fraction. Its own run (pull request 350) ends in a tie.
#
# <details><summary>中文要点</summary>
#
# 1. 基座已有知识时，几十条数据就能教会回答的**形式**；重复的数据不增加信息。
# 2. 错误标签分两种：**零散**的错误和**有规律**的错误。有规律的会被学会并传给没见过的问题；
#    零散的少量几乎无害，超过四分之一就会损害所有问题。只看错误率不够。
# 3. **近似重复**：n 个词的片段（shingle）与 **Jaccard 相似度**。查**考题泄漏**时要把问题和答案一起比较；
#    换一套新考题是最可靠的证据。数据要附**数据说明书**：来源、许可、检查、划分、已知错误。
# 4. **蒸馏**：$T^2\cdot$KL；梯度为 $T(q-p)$。学生会照抄教师有规律的错误；
#    用同一来源的标签算损失，只说明与该来源一致，不说明正确。
# 5. **Best of K（拒绝采样）**：先看**可判定比例**（有对有错的提示所占比例），再与**同提示的随机对照**比较。
#
# </details>
