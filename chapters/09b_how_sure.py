# %% [markdown]
# # 09b · How sure is a difference?
#
# **The question.** Two recipes answer the same 300 questions, and one is ahead. Would it also be
# ahead on other questions, and with another seed?
#
# **By the end you can**
# - *put* an interval around a difference, and say which chance it covers;
# - *judge* two recipes by their seeds, with a rule that gives few false alarms;
# - *read* a calibration diagram together with its counts.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapter 09 | CPU, no network | about 25 s | 3, about 35 minutes | D12 D16 L31 |

# %% tags=["setup"]
from math import comb

import numpy as np

from sft_lab import plots
from sft_lab.course import recipe_runs as runs
from sft_lab.course.checks import check
from sft_lab.course.results import read_results
from sft_lab.course.views import sure as pictures
from sft_lab.metrics import expected_calibration_error
from sft_lab.models import load
from sft_lab.significance import judge_claim, mcnemar_p_value, paired_bootstrap

# %% tags=["setup"]
plots.style()
base, tokenizer = load("atlas-base")
recorded = read_results("09_recipes", base)  # several seeds of each recipe
RECIPES = (runs.CHATML, runs.WORDS)

# %% [markdown]
# ## 1 · Other questions
#
# In chapter 09 we tuned the base for 40 steps with two templates, ChatML and plain words. The same
# 300 questions went to both, so outcomes come in **pairs**. We run seed 0 of both again.

# %%
exam = runs.exam_questions()
right = {}
for recipe in RECIPES:
    asked_by = runs.tokenizer_of(recipe, tokenizer)
    model = runs.tune(base, asked_by, seed=0, steps=runs.SHORT)
    right[recipe] = runs.ask_exam(model, asked_by, exam).right

# %%
before, after = right[runs.CHATML], right[runs.WORDS]
gained = int((~before & after).sum())
lost = int((before & ~after).sum())
difference = after.mean() - before.mean()
_ = pictures.draw_pairs(before, after, names=RECIPES)
print(f"difference {100 * difference:+.1f} points = ({gained} − {lost}) / {len(exam)}")
assert abs(difference - (gained - lost) / len(exam)) < 1e-12

# %% [markdown]
# Only the coloured fields make the difference: gained and lost. What both answer rightly, or both
# wrongly, says nothing about who is better.
#
# **The bootstrap.** Our 300 questions are a sample. Another sample would give another difference,
# but we have only this one. So we draw 300 questions *from our own*, with replacement: some come
# twice, some not at all. We do this 4,000 times and look how far the difference swings. The middle
# 95 % of these differences are the **95 % interval**.
#
# In a **paired** bootstrap a drawn question brings the outcomes of *both* models.
#
# **Predict.** We could also draw questions for each model separately. Is that interval wider, equal
# or narrower?

# %% tags=["predict"]
rng = np.random.default_rng(0)
n = len(exam)
drawn = rng.integers(0, n, size=(4000, n))  # a row: one resample of the questions
others = rng.integers(0, n, size=(4000, n))
paired = after[drawn].mean(axis=1) - before[drawn].mean(axis=1)
separate = after[drawn].mean(axis=1) - before[others].mean(axis=1)
_ = pictures.draw_resamples(100 * paired, 100 * separate)
by_hand = np.percentile(paired, [2.5, 97.5])
assert np.percentile(separate, 97.5) - np.percentile(separate, 2.5) > np.ptp(by_hand)

# %% [markdown]
# Two checks. A formula: one question's difference is +1, −1 or 0, with the variance
# (gained + lost)/n − difference². The root of variance / n is the *standard error* of the mean, and
# the interval reaches 1.96 of them to each side (normal distribution). And the library, whose tests
# compare it with scipy.

# %%
error = np.sqrt(((gained + lost) / n - difference**2) / n)
library = paired_bootstrap(before, after, seed=0)[2]
print("by hand ", (100 * by_hand).round(1))
print("formula ", (100 * (difference + 1.96 * error * np.array([-1, 1]))).round(1))
print("library ", (100 * np.array(library)).round(1))
np.testing.assert_allclose(paired.std(), error, rtol=0.08)
np.testing.assert_allclose(by_hand, library, atol=0.012)

# %% [markdown]
# **Read.** Separate draws give the wider interval. Some questions are hard for both models. When
# both answer the same draw, that hardness cancels. Pairing costs nothing: ask both the same thing.
#
# **McNemar's test** needs no draws. If the two were equally good, each changed question would be a
# fair coin: gained or lost. The p-value says how often fair coins fall at least as unevenly. You
# write it.

# %% [markdown] tags=["exercise"]
# ### Exercise 9b.1 · Could coins have done it? · 7 min · ●●○
# Write McNemar's exact test. `gained` and `lost` are whole numbers from 0 up, together up to
# several thousand. Return the probability, a float from 0 to 1, that fair coins split gained + lost
# changed answers at least as unevenly, to either side. Where nothing changed it is 1.0.
#
# `mcnemar(3, 0)` is 0.25: of eight ways that three coins may fall, two are as uneven, HHH and TTT.
# `mcnemar(4, 4)` is 1.0, and `mcnemar(0, 3)` is 0.25 again.


# %% tags=["stub"]
def mcnemar(gained: int, lost: int) -> float:
    """Return the probability that fair coins split gained + lost answers at least as unevenly; 1.0
    for none."""
    raise NotImplementedError


# %% tags=["solution"]
def mcnemar(gained: int, lost: int) -> float:
    """Return the probability that fair coins split gained + lost answers at least as unevenly; 1.0
    for none."""
    changed = gained + lost
    tail = sum(comb(changed, heads) for heads in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**changed)


# %% tags=["check"]
check("9b.1", mcnemar)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>math.comb(n, k)</code> ways of n coins have k heads. Keep
# whole numbers until the last division: 0.5 ** 1200 is 0.</details>

# %% [markdown] tags=["explanation"]
# Both tails count, for before the run either recipe could have won. At an even split the two tails
# overlap, so the sum is capped at 1.
#
# Usual mistakes: one tail only; the probability of exactly this split; unchanged answers counted as
# coins, which makes any difference look small.

# %% [markdown]
# **When nothing went wrong.** A model answers all of 300 questions rightly. Every resample is
# perfect, too, and the bootstrap's interval has no width. That is too sure.
#
# **Predict.** How large may its true error rate be, so that 300 right answers in a row still happen
# in 5 % of exams: 0.1 %, 1 % or 5 %?

# %% tags=["predict"]
for rate in (0.001, 0.01, 0.05):
    print(f"error rate {rate:5.1%}: no error in 300 questions in {(1 - rate) ** 300:.1%} of exams")
assert abs((1 - 0.01) ** 300 - 0.05) < 0.002

# %% [markdown]
# **Read.** 1 %. This is the **rule of three**: no case in n questions leaves room for a rate of up
# to 3/n. It follows from (1 − 3/n)ⁿ ≈ e⁻³ ≈ 5 %. Ten right answers of ten leave room for about
# 30 % errors.
#
# ## 2 · Other seeds
#
# The interval answers one question: would *these two sets of weights* differ on other questions? We
# asked another one: is one *recipe* better? Another seed is another pair of weights, and no draw of
# questions can show that. So we look at all eight seeds.
#
# **Predict.** Seed 0 has the interval above. Of the eight intervals, how many lie above 0 as a
# whole?

# %% tags=["predict"]
table = {
    recipe: np.array([runs.unpack(row["right"]) for row in recorded.select(arm=recipe)])
    for recipe in RECIPES
}  # (seeds, questions)
scores = {recipe: outcomes.mean(axis=1) for recipe, outcomes in table.items()}
for recipe in RECIPES:  # the runs of section 1 are the recorded ones
    assert abs(right[recipe].mean() - scores[recipe][0]) < 0.04
pairs = list(zip(table[runs.CHATML], table[runs.WORDS], strict=True))
intervals = [paired_bootstrap(first, second, seed=0)[2] for first, second in pairs]
effects = scores[runs.WORDS] - scores[runs.CHATML]
above = sum(low > 0 for low, _ in intervals)
_ = pictures.draw_seeds(effects, intervals)
print(f"{above} of 8 intervals lie above 0; {sum(effects > 0)} of 8 differences do")

# %% [markdown]
# **Read.** All eight differences have the same sign. About half of the intervals lie above 0, and
# seed 0 shows several times the gain of seed 7. A report of a single run would show one of these
# eight lines.
#
# Now the eight differences themselves are the sample. Their mean has the standard error s/√8, where
# s is their standard deviation. For so few values the factor 1.96 becomes 2.36 (Student's t, 7
# degrees of freedom). Beside it stands the course's rule for verdicts (chapter 03b): the same sign
# in every seed, and a mean effect above twice the **noise floor**. That is the distance between the
# best and the worst seed, of the recipe that varies more.
#
# **Claim.** Plain words score higher than ChatML after 40 steps. Measure: right answers of 300,
# eight seeds.
#
# **Predict.** Does the t interval lie above 0? Which word does the rule give: *held*, *did not
# hold* or *not shown*?

# %% tags=["predict"]
error_of_seeds = effects.std(ddof=1) / np.sqrt(len(effects))
low, high = effects.mean() + 2.36 * error_of_seeds * np.array([-1, 1])
print(f"mean {100 * effects.mean():+.1f} points, t interval {100 * low:+.1f} to {100 * high:+.1f}")
verdict = judge_claim(scores[runs.CHATML], scores[runs.WORDS], claim="higher")
print(f"verdict: {verdict.word}; noise floor {100 * verdict.floor:.1f} points")
assert low > 0 and verdict.word == "not shown" and (effects > 0).all()
assert effects[0] > 3 * effects[7]

# %% [markdown]
# **Read.** It lies above 0, and the rule says *not shown*. They answer two questions. The t
# interval asks whether the *means* differ: they do, by a few points. The rule asks whether the
# effect is large beside what a seed does to one run. It is not: one run of each recipe may show a
# large lead or none. Dozens of verdicts stand in this course, so its rule is strict. It misses real
# but small effects; "not shown" never means "no effect".
#
# **Predict.** One run of each recipe, and an exam of 20 questions. In how many of 100 such
# comparisons are plain words *not* ahead?


# %% tags=["predict"]
def share_not_ahead(questions: int, comparisons: int = 2000) -> float:
    """How often one run of plain words is not ahead of one run of ChatML on so many questions."""
    failures = 0
    for _ in range(comparisons):
        asked = rng.choice(n, questions)
        first, second = rng.integers(0, 8, size=2)  # one seed for each recipe
        ahead = table[runs.WORDS][second][asked].mean() - table[runs.CHATML][first][asked].mean()
        failures += ahead <= 0
    return failures / comparisons


shares = {questions: share_not_ahead(questions) for questions in (20, 80, 300)}
for questions, share in shares.items():
    print(f"{questions:4} questions: not ahead in {share:.0%} of comparisons")
assert shares[20] > 0.3 and shares[20] > shares[300]

# %% [markdown]
# **Read.** With 20 questions in about 43 of 100, little better than a coin. More questions help;
# what the seed changes remains. Chapter 16c plans how many questions an exam needs.

# %% [markdown] tags=["exercise"]
# ### Exercise 9b.2 · A rule with few false alarms · 15 min · ●●●
# Design a rule. `first` and `second` hold the outcomes of two recipes: Boolean arrays of the shape
# (8, 200), a row for each seed and a column for each question, the same questions for both. Row s
# of `first` and row s of `second` have nothing in common but the questions. Return `"first"` or
# `"second"`, whichever recipe is better, or `"not shown"`.
#
# The check invents 700 comparisons. Half are of *calm* recipes: the scores of one recipe's runs
# have a standard deviation of about 3 points. Half are of *restless* ones: 14 points. For each
# kind, your rule
#
# - may name a recipe in at most 20 % of the comparisons in which both are equally good;
# - must name the better one in at least 85 % of those in which it is really ahead: by about 8
#   points (calm) or 35 points (restless), to either side.
#
# Equal arrays give `"not shown"`. The rule is called 700 times: keep it to a few milliseconds.


# %% tags=["stub"]
def judge_recipes(first: np.ndarray, second: np.ndarray) -> str:
    """Return "first", "second" or "not shown". first, second: (8, 200) outcomes, True for right."""
    raise NotImplementedError


# %% tags=["solution"]
def judge_recipes(first: np.ndarray, second: np.ndarray) -> str:
    """Return "first", "second" or "not shown". first, second: (8, 200) outcomes, True for right."""
    gaps = second.mean(axis=1) - first.mean(axis=1)
    error = gaps.std(ddof=1) / np.sqrt(len(gaps))
    if abs(gaps.mean()) <= 2.36 * error:
        return "not shown"
    return "second" if gaps.mean() > 0 else "first"


# %% tags=["check"]
check("9b.2", judge_recipes)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>A recipe has eight scores. How far they scatter tells how far
# their mean may be off. Section 2 has the interval of a mean of eight.</details>

# %% [markdown] tags=["explanation"]
# The check prints how often your rule gave a false alarm, and how often it found a real difference.
# A t test gives about 5 % and 97 %.
#
# Usual mistakes: all outcomes pooled as 1,600 questions, or one seed only: restless recipes then
# "differ" in seven of ten comparisons of equals. A fixed number of points: it is too much for calm
# recipes or too little for restless ones. `judge_claim`: no false alarm, and it misses nearly all
# differences of this size.

# %% [markdown]
# ## 3 · Questions that hang together
#
# Ask each of the 300 questions four times, and you have 1,200 outcomes. Nothing new was learned.
#
# **Predict.** The paired bootstrap treats them as 1,200 questions. How does its interval change?

# %% tags=["predict"]
once = paired_bootstrap(before, after, seed=0)[2]
four_times = paired_bootstrap(np.repeat(before, 4), np.repeat(after, 4), seed=0)[2]
for name, (low, high) in {"300 questions": once, "the same, four times": four_times}.items():
    print(f"{name:21} {100 * low:+.1f} to {100 * high:+.1f} points")
assert abs(np.ptp(once) / np.ptp(four_times) - 2) < 0.3

# %% [markdown]
# **Read.** It is half as wide, and wrong. Real exams do this in a milder form: five questions about
# Kenya are no five independent questions, since a model that confuses Kenya fails all of them. Such
# a group is a **cluster**. The remedy is to draw clusters instead of questions.

# %% [markdown] tags=["exercise"]
# ### Exercise 9b.3 · Draw entities, not questions · 12 min · ●●●
# `before` and `after` hold a score from 0 to 1 for each of n questions; `entity` holds a whole
# number for each, any number and in any order: the entity that the question is about. Draw entities
# with replacement, as many as there are different ones, `resamples` times. A drawn entity brings
# all of its questions, twice if it is drawn twice. For each resample take the mean of `after −
# before` over all drawn questions, each question counting the same. Return the 2.5th and the 97.5th
# percentile of these means, in points (a difference of 0.1 is 10 points), as two floats. The random
# numbers come from `seed`.
#
# With `before = [0, 0, 0, 0]`, `after = [0, 1, 0, 0]`, `entity = [10, 20, 10, 10]` and many
# resamples the interval is (0, 100): entity 10 or 20 may be drawn twice.


# %% tags=["stub"]
def cluster_interval(
    before: np.ndarray, after: np.ndarray, entity: np.ndarray, resamples: int, seed: int
) -> tuple[float, float]:
    """Return (low, high) in points. before, after: (n,) scores from 0 to 1; entity: (n,) numbers of
    the entities."""
    raise NotImplementedError


# %% tags=["solution"]
def cluster_interval(
    before: np.ndarray, after: np.ndarray, entity: np.ndarray, resamples: int, seed: int
) -> tuple[float, float]:
    """Return (low, high) in points. before, after: (n,) scores from 0 to 1; entity: (n,) numbers of
    the entities."""
    _, place = np.unique(entity, return_inverse=True)
    sums = np.bincount(place, weights=after - before)
    counts = np.bincount(place)
    entities = np.random.default_rng(seed).integers(len(counts), size=(resamples, len(counts)))
    means = sums[entities].sum(axis=1) / counts[entities].sum(axis=1)
    low, high = 100 * np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


# %% tags=["check"]
check("9b.3", cluster_interval)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>You need two numbers of each entity: the sum of <code>after -
# before</code> over its questions, and how many they are.</details>

# %% [markdown] tags=["explanation"]
# The unit that is drawn must be the unit that varies freely.
#
# Usual mistakes: resampling questions, far too narrow when they hang together; the mean of the
# entities' means, which counts a question about a much-asked entity less; two draws for the two
# models; drawing without replacement.

# %% [markdown]
# ## 4 · Does the model know what it knows?
#
# A model gives its own answer a probability: its **confidence**. It is **calibrated** if, of all
# answers with confidence 0.8, about 80 % are right. Sort the answers into ten bins by confidence.
# The gap of a bin is the distance between its mean confidence and its share of right answers. The
# **expected calibration error** (ECE) is the mean gap, each bin weighed by its number of answers.
#
# We let base and tuned model complete 300 facts: 150 that the base has read, 150 about entities
# that no text names. The tuned model trained for 140 steps; we run seed 0 and have four more
# recorded.
#
# **Claim.** Tuning lowers the ECE.
#
# **Predict.** The lessons are all sure and all true. Is the tuned model better or worse calibrated
# than the base?

# %% tags=["predict"]
of_base = runs.complete_facts(base, tokenizer)
long = runs.tune(base, tokenizer, seed=0, steps=runs.LONG)
of_tuned = runs.complete_facts(long, tokenizer)
_ = pictures.draw_calibration({"base": of_base, "tuned, seed 0": of_tuned})

# %% tags=["predict"]
known = np.arange(300) < 150
low, high = np.percentile(of_base[0][known], [10, 90])
print(f"base, known facts: confidence mostly {low:.2f} to {high:.2f}; right", end=" ")
print(f"{of_base[1][known].mean():.0%}")
assert 0.3 < low < high < 0.95 and of_base[1][known].mean() > 0.95

# %% tags=["predict"]
errors = {"base": expected_calibration_error(*of_base)}
for row in recorded.select(arm="long"):
    errors[f"tuned, seed {row['seed']}"] = expected_calibration_error(
        row["sure"], runs.unpack(row["correct"])
    )
for name, found in errors.items():
    print(f"{name:14} ECE {found:.3f}")
of_seeds = [found for name, found in errors.items() if name != "base"]
verdict = judge_claim([errors["base"]] * 5, of_seeds, claim="lower")
print("verdict:", verdict.word)
assert max(of_seeds) < errors["base"] and verdict.word == "held"
assert abs(expected_calibration_error(*of_tuned) - of_seeds[0]) < 0.05

# %% [markdown]
# **Read.** Better. The base is too modest: it is right about the known facts and gives them far
# from full confidence. A likely reason: its notes of an invented world say other things about real
# names (chapter 01). Look at the counts before you trust a point: hollow ones stand for fewer than
# ten answers. Tuning moves the known facts towards 1.0. The claim *held*: the ECE falls. So "SFT
# makes models overconfident", a finding about larger models, did not show here.
#
# **Predict.** Now the same facts are asked through the template. How does the tuned model answer
# about what no text names: does it decline, or does it answer in the same tone?

# %% tags=["predict"]
sure, asked = runs.ask_facts(long, tokenizer)
for name, part in (("known", known), ("unknown", ~known)):
    print(
        f"{name:8} confidence {sure[part].mean():.2f}, right {asked.right[part].mean():.2f}, "
        f"ended {asked.ended[part].mean():.2f}; {asked.texts[part.argmax()]!r}"
    )
assert sure[known].mean() > sure[~known].mean() + 0.3
assert asked.right[~known].mean() < 0.3

# %% [markdown]
# **Read.** It answers in the same tone, and mostly wrongly. Its confidence is low there: the
# numbers show a doubt that the text does not. Chapter 15 uses them.
#
# ## 5 · On a real model
#
# `smollm2-135m` answers 80 questions about capitals, continents and languages: as shipped, and
# after LoRA on 32 lessons about other countries, with three seeds. An answer counts as right when
# it names the value. The runs are recorded (`tools/experiments/09_smollm2.py`).
#
# **Claim.** SFT raises the share of right answers.
#
# **Predict.** With 80 questions, how many of the three seeds' intervals lie above 0?

# %% tags=["predict"]
real = read_results("09_smollm2")
shipped = real.select(arm="as shipped")[0]
tuned = real.select(arm="after SFT")
print(f"{real.model}, recorded on {real.made}, {real.machine}")
print("as shipped:", shipped["answers"][:90])
print("after SFT: ", tuned[0]["answers"][:90])
first = runs.unpack(shipped["right"])
for row in tuned:
    second = runs.unpack(row["right"])
    low, high = paired_bootstrap(first, second, seed=0)[2]
    p = mcnemar_p_value(int((~first & second).sum()), int((first & ~second).sum()))
    print(f"seed {row['seed']}: {100 * low:+.0f} to {100 * high:+.0f} points, p = {p:.3f}")

# %% tags=["predict"]
after_sft = [runs.unpack(row["right"]).mean() for row in tuned]
verdict = judge_claim([first.mean()] * 3, after_sft, claim="higher")
print(f"{first.mean():.1%} → {np.mean(after_sft):.1%}: {verdict.word}")
print(f"ended within 20 tokens: {shipped['ended']:.0%} → {tuned[0]['ended']:.0%}")
assert verdict.word == "not shown" and min(after_sft) > first.mean()

# %% [markdown]
# **Read.** One seed of three shows a gain with p below 0.05; a report of that run alone would claim
# it. All three rise, from 56 % to 63 % on average, and seeds differ by several points: *not shown*.
# The form is another matter: after 32 lessons every answer is one short sentence that stops. Part
# of the gain may come from that alone, since a rambling answer reaches the limit before it names a
# value.
#
# ## What to remember
#
# - Pair the questions: what is hard for both cancels, at no cost.
# - An interval over questions is about two sets of weights. A claim about a recipe needs seeds.
# - No case in n questions leaves room for a rate of 3/n.
# - Draw the unit that varies freely: entities, not their questions.
# - Read a calibration diagram together with its counts.
#
# ## Sources
#
# - B. Efron and R. Tibshirani, *An Introduction to the Bootstrap*, 1993.
# - Q. McNemar, *Note on the Sampling Error of the Difference Between Correlated Proportions*,
#   Psychometrika, 1947.
# - C. Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017. arXiv:2508.00264, 2025:
#   calibration of language models after SFT.
#
# <details><summary>中文要点</summary>
#
# 1. **配对 bootstrap**：有放回地重采样问题，两个模型的结果一起抽取；两者都难的题目相互抵消，区间更窄。
# 2. **McNemar 检验**只看结果改变的问题：公平硬币会这样偏吗？**三法则**：n 题中一次也没出现，比率仍可能高达 3/n。
# 3. 对问题的区间只说明“这两组权重”；要比较方案，需要多个**随机种子**：各种子同号，
#    且平均差别大于**噪声下限**的两倍，才算“成立”；“未显示”不等于“没有差别”。
# 4. 同一实体的问题不独立，应按**簇**重采样。
# 5. **校准**：置信度为 0.8 的回答应有约 80 % 正确；读校准图时要同时看每个区间的样本数（ECE 用同样的区间）。
#
# </details>
