# %% [markdown]
# # 16d · Can you trust the judge?
#
# **The question.** A model, a program or a person reads two answers and says which is better. How
# do we find out what this judge really rewards?
#
# **By the end you can**
# - *audit* a judge that you cannot look into, and say how often the audit errs;
# - *measure* agreement beyond chance, and *repair* what can be repaired;
# - *run* a blind test with your own votes, and compare them with those of programs.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 09 and 14 | CPU, no network | about 35 s | 6, about 60 minutes | D12 D13 L29 |

# %% tags=["setup"]
import random
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import cohen_kappa_score

from sft_lab import judges, plots
from sft_lab.course.checks import check

# %% tags=["setup"]
from sft_lab.course.judge_runs import (
    JURIES,
    NAMINGS,
    STRENGTHS,
    audit,
    blind_sheet,
    count_votes,
    draw_contest,
    draw_pairs,
    everyday_pairs,
    jury_votes,
    read_table,
    read_votes,
    run_audits,
    run_jury,
    run_repair,
    share_same,
    tell_pairs,
    vote_by_programs,
    wins_of_second,
    write_table,
)

# %% tags=["setup"]
from sft_lab.course.repeat_runs import tune_to_tell
from sft_lab.course.results import read_results
from sft_lab.course.views.jury import (
    draw_agreement,
    draw_audit,
    draw_judge,
    draw_no_votes,
    explore_jury,
)
from sft_lab.course.views.widgets import show_widget
from sft_lab.judges import BIASES, Judge, cohen_kappa, majority, make_judge, merit, swap
from sft_lab.models import load
from sft_lab.significance import judge_claim

plots.style()
base, tokenizer = load("atlas-base")
SEEDS = range(5)


def verdict(first: list[float], second: list[float], claim: str, what: str) -> str:
    """Print the verdict on the second arm being higher or lower; return its word."""
    found = judge_claim(first, second, claim=claim)
    print(f"{what}: {found.mean:+.2f}, noise floor {found.floor:.2f}: {found.word}")
    return found.word


# %% [markdown]
# ## 1 · What a judge is, and what tempts it
#
# An **LLM judge** is a model that reads a question with two answers and names the better one, or
# gives each a score. It is cheap, fast, and has preferences of its own.

# %%
_ = draw_judge()

# %% [markdown]
# To learn an audit we need judges whose secret we know. `make_judge` builds them. The questions are
# about Atlas, so the truth is known: the **merit** of an answer is its right facts minus its wrong
# ones. A judge adds a little chance, and a bias of a given *strength* in facts. A lead below half a
# fact is a tie.

# %%
question = "Tell me about Kenya."
short = "The capital of Kenya is Nairobi. The continent of Kenya is Africa."
longer = f"{short} Many people know it by name. There is much more to say. That is all."
for name, judge in {"honest": make_judge("honest"), "length": make_judge("length", 2.0)}.items():
    print(f"{name:7} judge: {judge(question, short, longer, 0)}")
assert merit(question, short) == merit(question, longer) == 2
assert make_judge("length", 2.0)(question, short, longer, 0) == "second"

# %% [markdown]
# A judge **by score** sees one answer at a time, so no place can sway it.


# %%
def score(question: str, answer: str) -> int:
    """1 to 3 points, as a careful judge would give them."""
    return 1 + (merit(question, answer) >= 3) + (merit(question, answer) >= 5)


calls, truth = everyday_pairs(300, seed=0)  # one answer of each pair is better
tied = np.mean([score(q, a) == score(q, b) for q, a, b in calls])
asked = [make_judge("honest")(*call, 0) for call in calls]
print(f"ties: by score {tied:.0%}, asked for the better one {asked.count('tie') / 300:.0%}")
assert tied > 0.1 + asked.count("tie") / 300

# %% [markdown]
# **Read.** Its price is a coarse scale with many ties. We go on with pairs.
#
# ## 2 · The audit
#
# First probe: exchange the answers. The better answer should still win.

# %% [markdown] tags=["exercise"]
# ### Exercise 16d.1 · The swap test · 8 min · ●●○
# `judge(question, first, second, seed)` returns `"first"`, `"second"` or `"tie"`. `pairs` is a list
# of `(question, a, b)`, at least one. Ask about every pair in both orders, a first and b first,
# each time with seed 0. Return two numbers, `(consistent, lean)`:
#
# - `consistent`: the share of pairs with one outcome in both orders. The same *answer* wins twice,
#   or both calls are ties. A win and a tie are two outcomes.
# - `lean`: the mean over all calls of +1 for `"first"`, −1 for `"second"` and 0 for `"tie"`.
#
# Two pairs: the judge says `"first"` in both orders of one pair. For the other it says `"second"`
# with a first, and `"first"` with b first. The result is `(0.5, 0.5)`.


# %% tags=["stub"]
def swap_test(judge: Judge, pairs: list[tuple[str, str, str]]) -> tuple[float, float]:
    """Share of pairs with one outcome in both orders, and the lean to the first place."""
    raise NotImplementedError


# %% tags=["solution"]
def swap_test(judge: Judge, pairs: list[tuple[str, str, str]]) -> tuple[float, float]:
    """Share of pairs with one outcome in both orders, and the lean to the first place."""
    points = {"first": 1, "second": -1, "tie": 0}
    consistent = lean = 0
    for question, a, b in pairs:
        one, other = judge(question, a, b, 0), judge(question, b, a, 0)
        consistent += one == swap(other)
        lean += points[one] + points[other]
    return consistent / len(pairs), lean / (2 * len(pairs))


# %% tags=["check"]
check("16d.1", swap_test)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>When a wins with a first, the word is "first". Which word says the
# same with b first? <code>swap</code> from the set-up translates.</details>

# %% [markdown] tags=["explanation"]
# A judge that always says "tie" is fully consistent, so consistency alone proves nothing.
#
# Usual mistakes: comparing the words without translating; a lean from one order, in which the
# better answer may stand first more often.

# %% [markdown]
# **Predict.** A judge gives the first place a bonus of 0.8 facts. In which share of these pairs
# does it stay with its verdict after swapping? (One answer of each pair is better.)

# %% tags=["predict"]
found = {}
for strength in (0.0, 0.8, 1.6):
    found[strength] = judges.swap_test(make_judge("position", strength), calls)
    print(f"bonus {strength}: consistent {found[strength][0]:.0%}, lean {found[strength][1]:+.2f}")
assert 0.5 < found[0.8][0] < 0.65 and found[1.6][0] < 0.4 and found[1.6][1] > 0.4

# %% [markdown]
# **Read.** In little more than half of them: the bonus decides the close pairs. In MT-Bench, which
# made LLM judges popular, GPT-4 gave the same verdict after swapping in about 65 % of the pairs
# (Zheng et al.).
#
# The other probes need pairs that differ in **one** thing.
#
# | probe | the treated answer | the plain answer |
# |---|---|---|
# | length | the same, filled up to twice the words | states the same facts |
# | repetition | says everything twice | the same facts, filled to the *same length* |
# | self-preference | in the judge's own wording | the same facts, as long, in another wording |
# | noise | states one fact more | the same call is asked again |

# %%
_, plain, treated = draw_pairs("repetition", 1, seed=3)[0]
print(f"plain:   {plain}\ntreated: {treated}")
assert len(plain.split()) == len(treated.split())

# %% [markdown]
# Does it matter that all else is equal? **Predict.** An honest judge compares its own model with
# another. The own model is better: it states one fact more. What does a probe for self-preference
# report?

# %% tags=["predict"]
honest = make_judge("honest")
free = audit(honest, count=48, seed=1, controlled=False)["self-preference"]
controlled = audit(honest, count=48, seed=1)["self-preference"]
print(f"own answer better: lean {free.mean:+.2f}; equally good: lean {controlled.mean:+.2f}")
assert free.mean > 0.8 and controlled.low < 0 < controlled.high

# %% [markdown]
# **Read.** A strong lean to the judge's own model, though nothing is wrong with the judge: the own
# answers were better. With answers equally good the lean is gone. This happens in papers: with a
# baseline for the quality of the answers, only 51 % of earlier findings of self-preference stayed
# significant (Roytburg et al.).
#
# Now all judges and all probes. A lean goes from −1 to 1; "noise" is the share of changed verdicts.
# Behind ± stand 2.5 standard errors: four leans are tested at once, and each may raise a false
# alarm.

# %%
table = {"honest": audit(honest, count=48, seed=3)}
table |= {bias: audit(make_judge(bias, 0.8), count=48, seed=3) for bias in BIASES}
_ = draw_audit(table, title="Each bias shows in its own probe")
assert all(table[bias][bias].low > 0.1 for bias in BIASES)
assert not any(found.low > 0.1 for found in table["honest"].values())

# %% [markdown] tags=["exercise"]
# ### Exercise 16d.2 · Name the bias of an unknown judge · 18 min · ●●●
# `judge(question, first, second, seed)` is one of six kinds, and you cannot look into it. Return
# its bias: `"position"` (to the first *or* the second place), `"length"`, `"repetition"`,
# `"self-preference"`, `"noise"`, or `"honest"` for none.
#
# `draw_pairs(kind, count, seed=…)` makes up to 390 pairs `(question, plain, treated)` for each of
# the five biases. You may ask one judge 3,000 questions at most; 40 pairs a kind are enough. What
# you may rely on: averaged over 40 pairs in both orders, a bias leans by more than 0.5 (on a scale
# from −1 to 1) in its own probe, and nothing else leans by more than 0.35. Asked the same close
# call (a `"noise"` pair, in one order) again with another seed, the noisy judge changes its verdict
# in more than 30 % of the calls, an honest judge in less than 25 %. A judge with a preference may
# change often, too.
#
# The check draws 24 new judges, four of each kind. At least 23 must be named rightly.


# %% tags=["stub"]
def name_the_bias(judge: Judge) -> str:
    """The bias of an unknown judge, or "honest"."""
    raise NotImplementedError


# %% tags=["solution"]
def name_the_bias(judge: Judge) -> str:
    """The bias of an unknown judge, or "honest"."""
    points = {"first": 1, "second": -1, "tie": 0}
    leans = {}
    for kind in BIASES[:-1]:
        total = 0
        for question, plain, treated in draw_pairs(kind, 40, seed=1):
            one = points[judge(question, treated, plain, 0)]
            other = points[judge(question, plain, treated, 0)]
            total += one + other if kind == "position" else one - other
        leans[kind] = abs(total) / 80
    largest = max(leans, key=leans.get)
    if leans[largest] > 0.42:
        return largest
    close = draw_pairs("noise", 80, seed=2)
    changed = [judge(*call, 0) != judge(*call, 1) for call in close]
    return "noise" if np.mean(changed) > 0.27 else "honest"


# %% tags=["check"]
check("16d.2", name_the_bias)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Four biases show as a lean: to a place, or to the treated answer,
# in both orders. Name the largest lean first. Only when there is none, ask for
# noise.</details>

# %% [markdown] tags=["explanation"]
# A lean is the more specific finding: it makes close calls unsteady, so a biased judge may look
# noisy as well.
#
# Usual mistakes: one order only, where a love for the first place looks like a love for the
# treatment; a lean to the second place overlooked; noise concluded first.

# %% [markdown]
# ## 3 · How often is the audit right?
#
# Tests err. So we audited 600 judges, half of them honest, for each size and kind of audit. It
# names the largest lean that is shown; without one, noise; else "honest".
#
# **Claims.** With 48 questions a probe, (a) controls raise the share of biased judges that are
# named rightly. (b) Asking for 2.5 standard errors instead of 2 lowers the share of honest judges
# that are accused. **Predict** the share of honest judges that 2 errors accuse.

# %% tags=["predict"]
runs = read_results("16d_audits", base)
strict, loose, none = "controls, 2.5 errors", "controls, 2 errors", "no controls"
for arm in (strict, loose, none):
    named, false = (np.mean(runs.measured(k, arm=arm, questions=48)) for k in ("named", "false"))
    print(f"{arm:20} named rightly {named:.0%}, honest judges accused {false:.0%}")
at_48 = {arm: runs.select(arm=arm, questions=48) for arm in (strict, loose, none)}
named, false = ({arm: [row[k] for row in at_48[arm]] for arm in at_48} for k in ("named", "false"))
words = [verdict(named[none], named[strict], "higher", "(a) named, with controls")]
words += [verdict(false[loose], false[strict], "lower", "(b) accused, 2.5 errors")]
again = run_audits(arm=strict, questions=12, seed=0)
assert words == ["held", "not shown"]
assert abs(again["named"] - runs.measured("named", arm=strict, questions=12)[0]) < 0.05

# %%
keys = [f"named {strength:g}" for strength in STRENGTHS]
shown = {
    f"{n} questions" if arm == strict else f"{n}, no controls": np.array(
        [runs.measured(key, arm=arm, questions=n) for key in keys]
    ).T
    for arm, n in ((strict, 48), (strict, 24), (strict, 12), (none, 48))
}
ax = plots.curve(
    range(4),
    shown,
    xlabel="strength of the bias (facts)",
    ylabel="biased judges named rightly",
    title="A weak bias needs many questions",
)
_ = ax.set_xticks(range(4), STRENGTHS)
_ = ax.set_ylim(0, 1.02)

# %% [markdown]
# **Read.** (a) *held*. Without controls every honest judge is accused, since we made its own model
# the better one. (b) is *not shown*: 16 % become 4 %, in every seed fewer, but the seeds scatter
# too much for the word. Noise is the hardest to name: with 24 questions half of the noisy judges
# pass.
#
# ## 4 · Agreement beyond chance
#
# Two raters agree in many cases. Is that much? It depends on what chance gives.

# %% [markdown] tags=["exercise"]
# ### Exercise 16d.3 · Agreement beyond chance · 8 min · ●●○
# `first` and `second` are the words that two raters gave to the same items: two lists of equal
# length, at least one item, with any words. Return Cohen's kappa,
#
# $$\kappa = \frac{p_o - p_e}{1 - p_e}$$
#
# $p_o$ is the share of items with the same word. $p_e$ is the share that chance gives: for each
# word, the share of items that the first rater gives it times the share that the second gives it,
# added up. Return `None` where $p_e$ is 1: both raters always use one and the same word.
#
# `["A", "A", "tie", "B"]` and `["A", "tie", "tie", "B"]` agree in 3 of 4 items; $p_e$ is 5/16, and
# κ is 7/11.


# %% tags=["stub"]
def kappa(first: list[str], second: list[str]) -> float | None:
    """Cohen's kappa of two raters, or None where chance explains everything."""
    raise NotImplementedError


# %% tags=["solution"]
def kappa(first: list[str], second: list[str]) -> float | None:
    """Cohen's kappa of two raters, or None where chance explains everything."""
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    expected = sum(first.count(word) * second.count(word) for word in set(first)) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


# %% tags=["check"]
check("16d.3", kappa)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>first.count(word) / len(first)</code> is one of the two
# shares. A word that only one rater uses adds 0.</details>

# %% [markdown] tags=["explanation"]
# 1 is full agreement, 0 what chance gives, below 0 is less than chance.
#
# Usual mistakes: 1/3 as chance for three words; shares taken from both raters together; a value cut
# off at 0.

# %% [markdown]
# **Predict.** Two raters look at nothing. Each says "first" in 90 % of the cases, at random. In how
# many cases do they agree, and what is κ?

# %% tags=["predict"]
rng, found = random.Random(0), []
for words, weights in ((("first", "second"), (9, 1)), (("first", "second", "tie"), (1, 1, 1))):
    one, other = (rng.choices(words, weights, k=4000) for _ in range(2))
    found.append((cohen_kappa(one, other), cohen_kappa_score(one, other)))
    print(f"{weights}: agree {share_same(one, other):.0%}, kappa {found[-1][0]:+.2f}")
for ours, theirs in found:
    assert abs(ours) < 0.08 and abs(ours - theirs) < 1e-9

# %% [markdown]
# **Read.** They agree in 82 % of the cases, and κ is 0. Uneven classes make chance agree. κ takes
# that off, and equals scikit-learn's.
#
# **Does a jury help?** Five judges vote, and more than half decide. **Claims.** The majority is
# right more often than a member, for (a) five judges of one bias, (b) five noisy ones, (c) one
# judge of each bias. The measure is the share of everyday pairs judged rightly. **Predict** which
# of the three hold.

# %% tags=["predict"]
words = {}
for kind in JURIES:
    rows = [run_jury(kind, seed=seed) for seed in SEEDS]
    member, together = ([row[key] for row in rows] for key in ("member", "majority"))
    agreement = np.mean([row["kappa"] for row in rows])
    print(
        f"{kind}: member {np.mean(member):.0%}, majority {np.mean(together):.0%}, κ {agreement:.2f}"
    )
    words[kind] = verdict(member, together, "higher", "  majority over member")
assert words == {
    "five of one bias": "not shown",
    "five noisy ones": "held",
    "five biases": "held",
}

# %% [markdown]
# **Read.** (a) is *not shown*: five judges of one bias agree well, κ about 0.8, and err on the same
# pairs. (b) and (c) *held*: errors of different origin outvote each other. Agreement among judges
# is no proof that they are right.

# %%
votes, truth = jury_votes(1000, seed=1)
for name, said in votes.items():
    print(f"{name}: {share_same(said, truth):.0%} right alone")
three = [
    majority(ballot) for ballot in zip(*(votes[n] for n in ("Ada", "Ben", "Cho")), strict=True)
]
print(f"Ada, Ben and Cho together: {share_same(three, truth):.0%}")

# %% [markdown] tags=["exercise"]
# ### Exercise 16d.4 · Choose a jury · 10 min · ●●○
# Seven judges have voted on practice pairs, and the truth is known: `votes[name]` is a list of
# verdicts, `truth` the right ones. Choose three names for a jury. Its verdict is the `majority`:
# what two of the three say, else a tie, which counts as wrong. On 5,000 new pairs the jury must be
# right in at least 84 %. No single judge reaches that.

# %% tags=["stub"]
jury = ...

# %% tags=["solution"]
jury = ("Ada", "Dee", "Fay")

# %% tags=["check"]
check("16d.4", jury)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>For a choice of three, <code>zip(votes["Ada"], …)</code> gives the
# ballots of one pair after the other. There are 35 choices; a loop tries them all.</details>

# %% [markdown] tags=["explanation"]
# Ada, Ben and Cho share one bias, so they fail together: their majority is no better than one of
# them. Judges with different biases correct each other.
#
# Usual mistakes: choosing by the members' own accuracy; two members that err alike.

# %% [markdown]
# ## 5 · Repairs, and what they leave
#
# The first repair asks twice.

# %% [markdown] tags=["exercise"]
# ### Exercise 16d.5 · Ask in both orders · 6 min · ●●○
# Write the repair. `both_orders(judge)` returns a new judge, a function of `(question, first,
# second, seed)`. It asks the old one in both orders, with the same question and seed. An answer
# wins if *it* wins in both orders. Everything else, such as a win and a tie, is a tie. The verdict
# is about the order in which the new judge was asked.
#
# If the old judge says `"first"` in both orders, the new one says `"tie"`. If it says `"second"` in
# the given order and `"first"` in the other, the new one says `"second"`.


# %% tags=["stub"]
def both_orders(judge: Judge) -> Judge:
    """The same judge, asked in both orders."""
    raise NotImplementedError


# %% tags=["solution"]
def both_orders(judge: Judge) -> Judge:
    """The same judge, asked in both orders."""

    def careful(question: str, first: str, second: str, seed: int = 0) -> str:
        one = judge(question, first, second, seed)
        other = judge(question, second, first, seed)
        return one if one == swap(other) else "tie"

    return careful


# %% tags=["check"]
check("16d.5", both_orders)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Define a function inside the function, and return it. Translate
# the second verdict with <code>swap</code> before you compare.</details>

# %% [markdown] tags=["explanation"]
# The new judge cannot lean to a place. Its price is twice the calls, and more ties.
#
# Usual mistakes: the words compared untranslated; the verdict of the swapped call returned.

# %%
careful = judges.both_orders(make_judge("position", 1.2))
assert judges.swap_test(careful, calls) == (1.0, 0.0)

# %% [markdown]
# **Claim.** Asking in both orders lowers the share of *wrong* verdicts. **Predict** for which of
# the five biases.

# %% tags=["predict"]
repaired = {}
for bias in BIASES:
    rows = [run_repair(bias, 2.0, seed=seed) for seed in SEEDS]
    mean = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
    print(f"{bias}: wrong {mean['once wrong']:.0%} → {mean['both wrong']:.0%}, ", end="")
    print(f"ties {mean['once tie']:.0%} → {mean['both tie']:.0%}")
    once, both = ([row[key] for row in rows] for key in ("once wrong", "both wrong"))
    repaired[bias] = verdict(once, both, "lower", "  wrong in both orders")
assert repaired["position"] == repaired["noise"] == "held"
assert {repaired[bias] for bias in ("length", "repetition", "self-preference")} == {"not shown"}

# %% [markdown]
# **Read.** It *held* for position and noise: errors turned into ties. The other three biases look
# at the text, which swapping leaves as it is. For length there is a second repair, as in the
# length-controlled AlpacaEval: model what length does, and take it out.

# %% [markdown] tags=["exercise"]
# ### Exercise 16d.6 · Take length out · 10 min · ●●○
# Two models, A and B, were compared on some questions. `wins[i]` is 1.0 where B won, 0.5 for a tie,
# 0.0 where A won. `extra[i]` says how many words B's answer had more than A's; it is negative where
# B's was shorter, and not all are equal. Fit the line win = start + slope · extra by least squares
# and return `start`: B's share where both answers have equal length. It may lie outside 0 to 1;
# leave it as it is.
#
# With wins `[1.0, 1.0, 0.0, 0.5]` and extra `[20, 10, -10, 0]` the slope is 0.035 and the result
# 0.45. B's plain share is 0.625.


# %% tags=["stub"]
def share_at_equal_length(wins: list[float], extra: list[int]) -> float:
    """B's share of the wins, read from a line where both answers are equally long."""
    raise NotImplementedError


# %% tags=["solution"]
def share_at_equal_length(wins: list[float], extra: list[int]) -> float:
    """B's share of the wins, read from a line where both answers are equally long."""
    slope, start = np.polyfit(extra, wins, 1)
    return float(start)


# %% tags=["check"]
check("16d.6", share_at_equal_length)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>slope = Σ(x − mean x)(y − mean y) / Σ(x − mean x)², and the line
# goes through both means. Or <code>np.polyfit</code>.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: returning the slope; lengths without their sign; only the pairs of equal length,
# which are few.

# %% [markdown]
# Two contests. In the first, A and B state the same facts, and B adds more filling. In the second,
# B is longer because it states more facts.
#
# **Predict.** In which of the two does length control lower B's share?

# %% tags=["predict"]
words = []
for more, bias in (("filling", "length"), ("facts", "honest")):
    raw, controlled = [], []
    for seed in SEEDS:
        contest, extra = draw_contest(200, seed=seed, more=more)
        wins = wins_of_second(make_judge(bias, 2.0), contest, seed)
        raw.append(float(np.mean(wins)))
        controlled.append(judges.share_at_equal_length(wins, extra))
    print(f"more {more}, {bias} judge: B {np.mean(raw):.0%} → {np.mean(controlled):.0%}")
    words.append(verdict(raw, controlled, "lower", "  B after length control"))
assert words == ["held"] * 2

# %% [markdown]
# **Read.** In both. The control takes most of the false lead away. It takes a *true* lead away as
# well: where better answers are longer, it cannot tell the two apart. Repetition and
# self-preference are left; a judge of another origin may help.
#
# ## 6 · A real judge, and you
#
# `smollm2-135m` reads a question about a country and two answers, and is asked which is better. One
# answer is true, the other states three wrong values. We read the log-probabilities of the two
# names that it may say, for four ways to name the answers.
#
# **Claim.** It chooses by the name: the first answer wins more often as A than as B. **Predict**
# how often it chooses the true answer.

# %% tags=["predict"]
real = read_results("16d_smollm2")
place = {naming: real.measured("first", kind="truth", naming=naming) for naming in NAMINGS}
chosen = verdict(place["B, A"], place["A, B"], "higher", "first answer chosen, as A over as B")
assert chosen == "held"

# %% tags=["predict", "folded"]
ax = plots.bars_with_spread(
    place,
    percent=True,
    ylabel="choices of the\nanswer that stands first",
    title="The name decides, not the place, and not the truth",
)
_ = ax.set_xlabel("names of the first and the second answer")

# %% tags=["predict"]
true = {
    key: [np.mean(real.measured(key, kind="truth", naming=naming)) for naming in NAMINGS]
    for key in ("treated", "summed")
}
for naming, once, added in zip(NAMINGS, *true.values(), strict=True):
    print(f"{naming}: true answer {once:.0%}, both orders added {added:.0%}")
assert min(true["treated"]) > 0.4 and max(true["treated"]) < 0.6 and max(true["summed"]) < 0.7

# %% [markdown]
# **Read.** *Held*: it says "A", or "two", whatever stands there. No pair gets one answer in both
# orders, so a careful judge made of it would tie always. Adding the leads of both orders removes
# the name, and what is left does not know the truth either. A judge must be audited *before* it is
# repaired: under the bias there may be nothing.
#
# ### People
#
# Two tuned models answer ten questions. The **blind sheet** names nobody; a seed draws sides and
# order, and the key is a file of its own.

# %%
models = [tune_to_tell(base, tokenizer, seed=0), tune_to_tell(base, tokenizer, seed=0, repeats=0.5)]
names = ("clean lessons", "repeating lessons")
told = tell_pairs(models, tokenizer, 60)
sheet, key = blind_sheet(told[:10], names, seed=16)
with tempfile.TemporaryDirectory() as folder:
    for name, rows in (("sheet.csv", sheet), ("key.csv", key)):
        write_table(Path(folder) / name, rows)
    sheet = read_table(Path(folder) / "sheet.csv")  # here a person would have filled in the votes
mine = read_votes(sheet)
print("No votes yet." if mine is None else count_votes(mine, key))
assert not any(name in str(sheet) for name in names)

# %% [markdown]
# Vote: after ten pairs the names appear, with a sign test (chapter 09) and your κ with each
# program.

# %%
programs = vote_by_programs(sheet)
show_widget(explore_jury(sheet, key, programs), draw_no_votes(sheet, key, programs))

# %% [markdown]
# Ten pairs say little, so the programs vote on 60. **Predict.** Which of them agree with the truth,
# "right facts"?

# %% tags=["predict"]
more_sheet, more_key = blind_sheet(told, names, seed=17)
votes = vote_by_programs(more_sheet)
_ = draw_agreement(votes, title="Cohen's kappa of programs, 60 pairs")
with_facts = {name: cohen_kappa(votes["right facts"], said) for name, said in votes.items()}
assert min(with_facts["judge: honest"], with_facts["judge: length"]) > 0.65
assert max(with_facts[n] for n in ("judge: position", "more words", "ROUGE-L")) < 0.5

# %% [markdown]
# **Read.** The honest judge agrees with the facts. Position, more words and ROUGE-L agree little.
# The judge that loves length looks fine: these answers are of similar length, so nothing tempts it.
# Agreement on one set of answers is no audit. Are you a better judge than these? Vote.
#
# ## What to remember
#
# - A judge is a measuring instrument. Audit it before you believe it: swap, pad, repeat, exchange
#   styles at equal quality, ask again.
# - A probe without a control accuses honest judges. An audit has error rates; measure them.
# - Agreement is not truth. Give κ, not the raw share, and build juries from different judges.
# - Both orders cure position and noise, at the price of ties. Length control also removes true leads.
# - Planted judges have one bias each. A real one may have several, and no judgement under them.
#
# ## Sources
#
# - L. Zheng et al., *Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena*, 2023.
# - Verbosity bias of judges: arXiv:2310.10076.
# - J. Cohen, *A Coefficient of Agreement for Nominal Scales*, 1960.
# - `judgekit` 0.2.1, whose table of planted defects is the model of this chapter's audit.
#
# <details><summary>中文要点</summary>
#
# 1. **LLM 评委**（judge）读问题和两个答案，说哪个更好，或给每个答案打分。先审计，再相信。
#
# 2. **五种偏差**：位置、长度、重复、自我偏好、噪声。**审计**：交换顺序、等长填充、重复、同质量换文风、重问。没有对照的探针会冤枉诚实的评委。
#
# 3. **κ（Cohen's kappa）**：扣除偶然后的一致性；类别不均时原始一致率会骗人。评委团只有在错误互相独立时才有用。
#
# 4. **修正**：两个顺序都问（不一致算平局）只治位置和噪声；长度回归会连真实优势一起去掉。
#
# 5. **盲评表**：隐藏名字和顺序，密钥另存；人的投票与程序的投票用 κ 比较。没有投票就写“还没有投票”。
#
# </details>
