# %% [markdown]
# # 19 · Your own project
#
# **The question.** You have a file, a model and a wish. Which steps lead to a result that you and
# others may believe, also when it is "nothing was shown"?
#
# **By the end you can**
# - *plan* a project so that it can decide something, and seal the plan;
# - *run* it on your own file, from the doctor to the report, and *judge* it by its plan;
# - *say* what a null result means, and what to try next.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 04, 09 and 16c | CPU, no network | about 20 s | 6, about 65 minutes | A10 D1 D16 L22 L31 |

# %% tags=["setup"]
import json
import tempfile
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import numpy as np

from sft_lab import plots, project
from sft_lab.compare import compare
from sft_lab.course.checks import check

# %% tags=["setup"]
from sft_lab.course.evaluation_runs import as_outcomes
from sft_lab.course.project_runs import (
    FRAMES,
    QUESTIONS,
    as_rows,
    build_project,
    count_false_alarms,
    draw_effects,
    draw_workflow,
    measure,
    run_arm,
    write_help_file,
)
from sft_lab.course.results import read_results
from sft_lab.course.short_runs import tune_on
from sft_lab.doctor import diagnose
from sft_lab.kept_back import keep_groups, pair_alike

# %% tags=["setup"]
from sft_lab.models import load
from sft_lab.significance import judge_claim, mcnemar_p_value, questions_needed
from sft_lab.study_plan import Plan, find_gaps, judge_plan, seal_plan

plots.style()
base, tokenizer = load("atlas-base")
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## 1 · One round
#
# Every station of a project has had its chapter. Here they stand in a row.

# %%
_ = draw_workflow()

# %% [markdown]
# Texts about SFT say it in three lines: `state = init_state()`, then `state = step_update(state)`
# many times, then `metrics = evaluate(state)`. Or in one: `Result = CoreMethod(Input, Config,
# Constraints)`. Here the *input* is a file and the *config* the settings of a run. The
# *constraints* are what may not change after the first run. They are missing most often. We call
# them the **plan**.
#
# ## 2 · The plan, before anything else
#
# A help desk wants polite answers. Somebody fears that politeness costs right ones. We write down
# what will decide.

# %%
plan = Plan(
    question="Does 'Certainly!' before every answer cost right answers?",
    primary="holds",  # share of answers that hold the right statement, whatever stands around it
    claim="lower",
    changes=["frame"],
    control="the same rows with the answers as they are",
    seeds=[0, 1, 2, 3, 4],
    questions=180,
    smallest=0.08,
    disagree=0.15,
    stopping="after the fifth seed of both arms",
    scope="atlas-base, this file, 600 lessons, one epoch",
)
print(f"{questions_needed(plan.disagree, plan.smallest):.0f} questions needed; gaps: ", end="")
print(find_gaps(plan.as_dict()), "· seal", plan.seal())
assert find_gaps(plan.as_dict()) == [] and plan.questions == QUESTIONS

# %% [markdown]
# A *seal* is a hash of the plan. A report that shows it shows that the plan was not changed later.

# %% [markdown] tags=["exercise"]
# ### Exercise 19.1 · Seal the plan · 6 min · ●○○
# Return the seal of `plan`, a dict: the first 12 hexadecimal digits of the SHA-256 of its JSON
# text in UTF-8. The text is what `json.dumps` writes, with its usual blanks, but with sorted keys
# and with letters such as 我 left as they are (not as `\u6211`).
#
# For `{"seeds": [0, 1, 2], "claim": "higher"}` the text is
# `{"claim": "higher", "seeds": [0, 1, 2]}` and the seal `37c898a67a4f`.


# %% tags=["stub"]
def my_seal(plan: dict) -> str:
    """The seal of a plan."""
    raise NotImplementedError


# %% tags=["solution"]
def my_seal(plan: dict) -> str:
    """The seal of a plan."""
    from hashlib import sha256

    text = json.dumps(plan, sort_keys=True, ensure_ascii=False)
    return sha256(text.encode()).hexdigest()[:12]


# %% tags=["check"]
check("19.1", my_seal)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>hashlib.sha256(some_bytes).hexdigest()</code>;
# <code>json.dumps</code> has the arguments <code>sort_keys</code> and
# <code>ensure_ascii</code>.</details>

# %% [markdown] tags=["explanation"]
# A seal does not keep anybody from changing a plan. It shows that somebody did.
#
# Usual mistakes: Python's own `hash`, which differs from process to process; keys as they come.

# %% [markdown] tags=["exercise"]
# ### Exercise 19.2 · Find the gaps · 12 min · ●●○
# A plan with a gap decides nothing. `plan` is a dict with all names of the plan above, in their
# order. Return the names at fault, in this order; `[]` if there are none:
#
# | name | a gap, unless it is |
# |---|---|
# | `question`, `primary` | one text with more than white space (a list of measures is a gap) |
# | `claim` | `"higher"` or `"lower"` |
# | `changes` | a list with exactly one entry |
# | `control` | a text with more than white space |
# | `seeds` | a list of at least three numbers, no two equal |
# | `questions` | at least `questions_needed(plan["disagree"], plan["smallest"])` |
# | `stopping`, `scope` | a text with more than white space |
#
# `disagree` and `smallest` are always right, `changes` is always a list and `seeds` a list of
# numbers. With `seeds` `[0, 1, 1]` and `scope` `" "` the plan above gives `["seeds", "scope"]`.


# %% tags=["stub"]
def my_gaps(plan: dict) -> list[str]:
    """The names of a plan that are at fault."""
    raise NotImplementedError


# %% tags=["solution"]
def my_gaps(plan: dict) -> list[str]:
    """The names of a plan that are at fault."""
    seeds, needed = plan["seeds"], questions_needed(plan["disagree"], plan["smallest"])
    right = {
        name: isinstance(plan[name], str) and plan[name].strip() != ""
        for name in ("question", "primary", "control", "stopping", "scope")
    }
    right["claim"] = plan["claim"] in ("higher", "lower")
    right["changes"] = len(plan["changes"]) == 1
    right["seeds"] = len(seeds) >= 3 and len(set(seeds)) == len(seeds)
    right["questions"] = plan["questions"] >= needed
    return [name for name in plan if not right.get(name, True)]


# %% tags=["check"]
check("19.2", my_gaps)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>A dict from each name to whether it is right, then one list
# comprehension. <code>isinstance(x, str) and x.strip()</code> is false for blanks and for
# lists.</details>

# %% [markdown] tags=["explanation"]
# "Right answers, ROUGE and BLEU" as primary measure means: whichever rises.
#
# Usual mistakes: seeds that repeat; `bool(" ")`, which is true; one question too few.

# %% [markdown]
# **Predict.** Two models are equally good. A test at 5 % calls them different in 5 of 100 exams.
# How many, if we look after every 20 questions and stop at the first "different"? If we also try
# six measures?

# %% tags=["predict"]
WAYS = {
    "as planned": {},
    "ten looks": {"looks": 10},
    "six measures": {"measures": 6},
    "both": {"looks": 10, "measures": 6},
}
alarms = {name: [count_false_alarms(seed=s, **way) for s in range(3)] for name, way in WAYS.items()}
_ = plots.bars_with_spread(
    alarms, percent=True, ylabel='called "different"', title="Two equal models: false alarms"
)
means = {name: np.mean(shares) for name, shares in alarms.items()}
assert means["as planned"] < 0.07 and means["ten looks"] > 2 * means["as planned"]
assert means["six measures"] > 0.17 and means["both"] > 0.4

# %% [markdown]
# **Read.** Nobody lied. Looking often and choosing late are enough to find a difference in nearly
# every second exam. (The six measures are independent here; real ones are less so.) A plan names
# one measure, one number of questions and one end.
#
# ## 3 · The file: doctor, split, notebook

# %%
write_help_file(folder / "help.jsonl")  # questions about Atlas, one JSON object a line
print((folder / "help.jsonl").read_text("utf-8")[:180])
diagnosis = diagnose(folder / "help.jsonl", model="atlas-base")
for finding in diagnosis.findings:
    print(f"{finding.severity}: {finding.title}")
print(diagnosis.advice())
assert diagnosis.exit_code() == 0

# %% [markdown]
# The doctor (chapter 18) finds no error. Next, rows are kept back, before a model has answered
# anything. A row may give another away: it asks the same, or nearly the same, or comes from the
# same letter. Such rows must stand on one side.

# %% [markdown] tags=["exercise"]
# ### Exercise 19.3 · Keep groups apart · 14 min · ●●○
# Rows are numbered 0 to `count` − 1. `pairs` names rows that belong together, and belonging is
# passed on: (0, 3) and (3, 5) make one group of three. A row in no pair is a group by itself.
#
# Go through the rows in `order`, which holds each once. As long as *fewer* than `wanted` rows are
# kept back, keep the row's whole group, except a group of more than `wanted` rows: pass over it.
# Return the kept rows as a sorted list. `wanted` is at least 1.
#
# For 6, `[(0, 3), (3, 5), (1, 2)]`, `[5, 4, 2, 0, 1, 3]` and 2: the group of 5 has three rows, too
# many; 4 is kept; 2 brings 1 along. The answer is `[1, 2, 4]`.


# %% tags=["stub"]
def my_split(count: int, pairs: list[tuple], order: list[int], wanted: int) -> list[int]:
    """The rows to keep back, by whole groups."""
    raise NotImplementedError


# %% tags=["solution"]
def my_split(count: int, pairs: list[tuple], order: list[int], wanted: int) -> list[int]:
    """The rows to keep back, by whole groups."""
    group = {row: {row} for row in range(count)}
    for first, second in pairs:
        both = group[first] | group[second]
        for row in both:
            group[row] = both
    kept = set()
    for row in order:
        if len(kept) < wanted and len(group[row]) <= wanted:
            kept |= group[row]
    return sorted(kept)


# %% tags=["check"]
check("19.3", my_split)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Keep for every row the set of its group. A pair joins two sets:
# give the joined set to all rows in it.</details>

# %% [markdown] tags=["explanation"]
# What is passed over is learned.
#
# Usual mistakes: looking at direct partners alone; cutting a group to reach `wanted` exactly.

# %%
learn, validation, test = build_project(folder)  # split_apart, which keeps groups as above
texts = [talk[0]["content"] for talk in learn + validation + test]
side = ["learn"] * len(learn) + ["validation"] * len(validation) + ["test"] * len(test)
crossing = [(a, b) for a, b in pair_alike(learn + validation + test) if side[a] != side[b]]
print(len(learn), len(validation), len(test), "rows;", len(crossing), "pairs cross")
assert crossing == [] and len(set(texts)) == len(texts)
assert keep_groups(6, [(0, 3), (3, 5), (1, 2)], [5, 4, 2, 0, 1, 3], 2) == [1, 2, 4]

# %% [markdown]
# **Read.** *Validation* may be asked often, *test* once, at the end. No near-duplicate crosses.
#
# For your own file one command does this: `sft-lab new --data my.jsonl`, or `make new DATA=my.jsonl
# MODEL=atlas-base`. It writes a folder with a notebook that is ready to run, a plan to change, and
# the three parts.

# %%
with chdir(folder):
    project.main(["--data", "help.jsonl", "--questions", "180"])
    print(sorted(path.name for path in Path("my-project").iterdir()))
    print("our plan is", seal_plan(plan, "my-project"))

# %% [markdown]
# ## 4 · Base line, runs, verdict
#
# One run: 600 lessons, one epoch, then the questions. The polite arm learns "Certainly! The capital
# of Kenya is Nairobi." **Predict:** what does that cost by *exact match*, and what by "holds"?

# %% tags=["predict"]
before = measure(base, tokenizer, validation)
runs = {
    name: run_arm(base, tokenizer, learn, validation, seed=0, frame=FRAMES[name])
    for name in ("plain", "one word")
}
for name, row in {"base": before, **runs}.items():
    print(f"{name:9} exact match {row['equals']:4.0%}   holds {row['holds']:4.0%}")
assert runs["one word"]["equals"] < 0.05 < 0.75 < runs["one word"]["holds"]
assert before["holds"] < 0.1

# %% [markdown]
# **Read.** By exact match politeness costs everything: that measure decides before any model is
# trained. A measure must be able to come out either way.
#
# The plan asks for five seeds of both arms. They are recorded (`tools/experiments/19_project.py`).
# Who judges them? The plan.

# %% [markdown] tags=["exercise"]
# ### Exercise 19.4 · Judge by the plan · 12 min · ●●○
# `rows` are runs in the order in which they were made: dicts with `arm` (`"control"` or
# `"changed"`), `seed` and several measures. There may be runs that the plan does not ask for. The
# `plan` has `primary`, the name of a measure, `claim` and `seeds`. Return one word:
#
# - `"not finished"` if one of the plan's seeds has no run in one of the arms;
# - otherwise the word of `judge_claim(control, changed, claim=…)`, with the primary measure of the
#   plan's seeds alone. If an arm was run twice with one seed, the first run counts.
#
# With the seeds 0, 1, 2 in the plan, a run of seed 3 does not count.


# %% tags=["stub"]
def my_verdict(plan: dict, rows: list[dict]) -> str:
    """The verdict that the plan asks for."""
    raise NotImplementedError


# %% tags=["solution"]
def my_verdict(plan: dict, rows: list[dict]) -> str:
    """The verdict that the plan asks for."""
    first = {}
    for row in rows:
        first.setdefault((row["arm"], row["seed"]), row[plan["primary"]])
    wanted = [[(arm, seed) for seed in plan["seeds"]] for arm in ("control", "changed")]
    if any(key not in first for keys in wanted for key in keys):
        return "not finished"
    control, changed = ([first[key] for key in keys] for keys in wanted)
    return judge_claim(control, changed, claim=plan["claim"]).word


# %% tags=["check"]
check("19.4", my_verdict)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Put the rows into a dict by (arm, seed);
# <code>setdefault</code> keeps the first.</details>

# %% [markdown] tags=["explanation"]
# "One more seed, the fourth looked odd" is a second look, as in section 2.
#
# Usual mistakes: all seeds that are there; the repeat instead of the first run; another measure.

# %%
recorded = read_results("19_project", base)
for name, row in runs.items():
    band = recorded.measured("holds", frame=name)
    assert min(band) - 0.05 < row["holds"] < max(band) + 0.05
first = as_rows(recorded, {"control": "plain", "changed": "one word"})
found = judge_plan(plan, first)
print("effects in points:", [f"{100 * effect:+.1f}" for effect in found.effects])
print(f"mean {100 * found.mean:+.1f}, noise floor {100 * found.floor:.1f}: {found.word}")
assert found.word == "not shown"

# %% [markdown]
# **Read.** Two points fewer, in every seed, but the noise floor is four points: *not shown*. This
# null result does not say "politeness is free". Which effect could this project have seen?
# **Predict:** had every polite run lost some points more, from how many on would the word be
# *held*?

# %% tags=["predict"]
control, changed = (recorded.measured("holds", frame=name) for name in ("plain", "one word"))
for more in (0, 2, 4, 6, 8, 10):
    lower = [share - more / 100 for share in changed]
    again = judge_claim(control, lower, claim="lower")
    print(f"{more:2} points more: mean {100 * again.mean:+.1f}, {again.word}")
outcomes = [as_outcomes(recorded.measured("outcomes", frame=f)) for f in ("plain", "one word")]
gained, lost = (outcomes[1] & ~outcomes[0]).sum(), (outcomes[0] & ~outcomes[1]).sum()
print(f"all 900 answers in one pot: p = {mcnemar_p_value(int(gained), int(lost)):.3f}")
assert 0.06 < 2 * found.floor < 0.12

# %% [markdown]
# **Read.** From about seven points more on, nine in all. Below nine points this project is blind.
# That belongs into the report.
#
# The last line is a temptation. Five models answered the *same* 180 questions: these are not 900
# questions (chapter 16c), and the plan does not name this test. It may suggest the next plan.
#
# ## 5 · Iterate: one change, a new plan
#
# For a small effect we need more power, or a larger dose. We take the larger dose: a frame of 26
# words. Everything else stays. And a control against ourselves: as many words without politeness.
# **Predict** both verdicts.

# %% tags=["predict"]
rounds = {
    "one word": (plan, "plain", "one word"),
    "polite": (
        replace(plan, question="Does a polite frame cost right answers?"),
        "plain",
        "polite",
    ),
    "polite, against neutral": (
        replace(
            plan,
            question="Does politeness cost more than as many other words?",
            control="a neutral frame of as many words",
        ),
        "neutral",
        "polite",
    ),
}
effects = {}
for name, (own, one, other) in rounds.items():
    verdict = judge_plan(own, as_rows(recorded, {"control": one, "changed": other}))
    effects[name] = (verdict.effects, verdict.floor, verdict.word)
    print(f"{own.seal()}  {other} against {one}: {100 * verdict.mean:+.1f} points, {verdict.word}")

# %% tags=["predict", "folded"]
_ = draw_effects(effects, title="The frame costs; that politeness does is not shown")
assert [word for *_, word in effects.values()] == ["not shown", "held", "not shown"]

# %% [markdown]
# **Read.** The polite frame costs eleven points: *held*. But in every seed the neutral frame does
# worse still, and its seeds scatter. That *politeness* is what costs is *not shown*: it may be any
# many words.
#
# Does it carry over? Small-scale results can reverse: in one project a number that fell by 18 % at
# width 192 rose by 2.7 % at width 512 (see the sources). So the claims once more on a real model:
# 48 lessons about capitals, three seeds.

# %%
real = read_results("19_smollm2")
for frame in ("one word", "polite"):
    arms = [real.measured("holds", frame=name) for name in ("plain", frame)]
    large = judge_claim(*arms, claim="lower")
    print(f"SmolLM2-135M, {frame:8} {100 * large.mean:+.1f} points, {large.word}")
    assert large.word == "not shown"
assert large.mean > 0  # the polite frame, which cost eleven points before

# %% [markdown]
# **Read.** What *held* at a million parameters is *not shown* at 135 million, where the polite
# frame points the other way. The verdict is about this small model and this file, as the plan's
# scope says.
#
# The log of decisions:
#
# | plan | change | verdict | so |
# |---|---|---|---|
# | 1 | one polite word | *not shown*, blind below 9 points | a larger dose |
# | 2 | a polite frame, 26 words | *held*, −11 points | is it the politeness? |
# | 3 | against 27 neutral words | *not shown* | keep the frame short |
#
# The choice is made. Only now is the test part opened, once, for the claim that *held*.

# %%
on_test = [recorded.measured("test", frame=name) for name in ("plain", "polite")]
last = judge_claim(*on_test, claim="lower")
print(f"test: {100 * last.mean:+.1f} points, noise floor {100 * last.floor:.1f}: {last.word}")
assert last.word == "held"

# %% [markdown]
# ## 6 · The report, and how to mark one
#
# The notebook of `sft-lab new` writes `report.html`, with every answer of base and tuned model
# (chapter 09), and this page:

# %%
tuned = tune_on(base, tokenizer, learn, seed=0)
comparison = compare((base, tokenizer), (tuned, tokenizer), test, max_new_tokens=40)
text = project.write_report(
    plan, "atlas-base", before["holds"], first, diagnosis, comparison, folder
)
print(text)
assert plan.seal() in text and "**not shown**" in text

# %% [markdown]
# What makes a report good? This rubric is for you, and for whoever marks projects. Eight lines, 16
# points:
#
# | | 0 | 1 | 2 |
# |---|---|---|---|
# | plan | none, or changed later | written before, no seal | written before, and its seal |
# | kept back | asked rows were learned | kept back, no look for near-duplicates | kept back, near-duplicates looked for |
# | control | neither base line nor control | one of them | base line, and a control with one change |
# | seeds | not those of the plan | those, but the mean alone | those, each shown |
# | questions | fewer than the plan needs | enough, no interval | enough, and an interval |
# | primary | another measure decides | it decides together with others | it alone decides |
# | verdict | not the word of the rule | the word alone | the word and the noise floor |
# | scope | not said | model and data named | named, and what was not tried |

# %% [markdown] tags=["exercise"]
# ### Exercise 19.5 · Mark a report · 12 min · ●●○
# Read this report, and mark it by the rubric above, line by line:
#
# > **Shorter answers for our help desk.** The plan was written on the third of May, before the first
# > run, and not changed. It asks whether cutting every answer to its first sentence raises the share
# > of right answers (claim: higher), on seeds 0, 1 and 2. To see 8 points where two models differ on
# > 15 % of the questions takes 177 questions.
# >
# > Of 2,000 rows, 200 were drawn by chance before training, to be asked; none of these rows was
# > learned. The base model answers 1 % of them rightly. The control learns the same rows with whole
# > answers; nothing else differs.
# >
# > | right answers | seed 1 | seed 4 | seed 6 |
# > |---|---|---|---|
# > | control | 0.62 | 0.58 | 0.66 |
# > | first sentence | 0.68 | 0.65 | 0.67 |
# >
# > Words in common with the reference (ROUGE-L) rose, too. Right answers decide, as planned. The
# > claim held: shorter answers are 5 points better (noise floor 8 points).
# >
# > Model: atlas-base, one million parameters; data: our help desk. Larger models and longer training
# > were not tried.
#
# Give `marks`, a dict from the eight names in the first column to 0, 1 or 2. Where a report falls
# short of a cell it gets the cell before. For "verdict", work out the word of `judge_claim`.

# %% tags=["stub"]
marks = ...  # {"plan": …, "kept back": …, …}

# %% tags=["solution"]
marks = {
    "plan": 1,
    "kept back": 1,
    "control": 2,
    "seeds": 0,
    "questions": 1,
    "primary": 2,
    "verdict": 0,
    "scope": 2,
}

# %% tags=["check"]
check("19.5", marks)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Effects of 6, 7 and 1 points; the noise floor is the larger of the
# two arms' spreads. What does <em>held</em> need?</details>

# %% [markdown] tags=["explanation"]
# 9 of 16. The flaws: no seal; no look for near-duplicates; seeds that nobody planned; no interval;
# and "held", with a mean effect of 5 points and a floor of 8.
#
# Usual mistakes: believing "held"; a full mark for a plan without a seal.

# %% [markdown] tags=["exercise"]
# ### Exercise 19.6 · Your own small project · 18 min · ●●●
# Now you. Choose *one* change whose effect can be shown on the help desk's file, and say beforehand
# in which direction it goes. Give `my_project`, a dict with
#
# - `"plan"`: a dict with all names of section 2, without a gap. `primary` is `"holds"` or
#   `"equals"`; three seeds; at most 100 questions; `changes` holds the name of the setting that
#   differs, `["frame"]`, `["rate"]` or `["epochs"]`;
# - `"control"` and `"changed"`: the settings of both arms, each a dict with exactly `frame` (a text
#   of at most 80 letters with one `{}`), `rate` (a float above 0, at most 0.1) and `epochs` (1, 2 or 3).
#
# The check trains both arms on 200 lessons with your seeds (a few seconds), measures your primary,
# and judges by your plan: the word must be *held*. Try an arm before with `run_arm(base, tokenizer,
# learn, validation, seed=0, lessons=200, **settings)`.

# %% tags=["stub"]
my_project = ...

# %% tags=["solution"]
my_project = {
    "plan": {
        "question": "Is a learning rate of 1e-4 too low for 200 lessons?",
        "primary": "holds",
        "claim": "lower",
        "changes": ["rate"],
        "control": "the usual rate of 1e-3",
        "seeds": [0, 1, 2],
        "questions": 96,
        "smallest": 0.2,
        "disagree": 0.5,
        "stopping": "after the third seed of both arms",
        "scope": "atlas-base, 200 lessons of this file, one epoch",
    },
    "control": {"frame": "{}", "rate": 1e-3, "epochs": 1},
    "changed": {"frame": "{}", "rate": 1e-4, "epochs": 1},
}

# %% tags=["check"]
check("19.6", my_project)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The rule needs an effect of more than twice the noise floor. What
# changes answers that much? Ten times less, or ten times more.</details>

# %% [markdown] tags=["explanation"]
# Large effects are easy to show. Most changes that people argue about are not of this kind.
#
# Usual mistakes: a claim in the other direction; two settings changed; a small change, for which
# the seeds differ too much.

# %% [markdown]
# ## What to remember
#
# - Decide before the first run: one question, one measure, one change, a control, seeds, an end.
#   Seal it.
# - The measure must be fair to both arms. Keep rows back first, by groups.
# - *Not shown* is a result when it says which effect could have been seen.
# - Iterate by one change and a new plan; the test part is opened once, at the end.
# - A million parameters and one file decide about themselves. Say what was not tried.
#
# Chapter 19b deploys what you have tuned.
#
# ## Sources
#
# - Hypotheses in one line each, before the run: rlhf-book, `code/README.md`.
# - A table of a sweep, written before it is run: marin-community/marin, issue 4547.
# - Small scale that reversed: parameter-golf, pull request 1227.
# - E. Miller, *Adding Error Bars to Evals*, arXiv 2411.00640.
#
# <details><summary>中文要点</summary>
#
# 1. **计划**（plan）写在第一次训练之前：一个问题、一个主要指标（primary outcome）、一处改动、一个对照、若干种子、所需题数、何时停止、结论的适用范围。**封印**（seal）是计划的哈希值，报告里印出来，说明计划没有事后更改。
# 2. 反复看结果、换指标，会让两个同样好的模型“有差别”的误报从 5 % 升到近一半。
# 3. **数据划分**：在看到任何结果之前留出；同一问题、近似问题的行放在同一边。
# 4. **零结果**（not shown）也是结果：要写明多大的效应本可以看到。这里一个礼貌词的代价未显示；26 个词的礼貌框架降低 11 个百分点（held），但中性词框架更低：不能说是礼貌造成的。
# 5. **迭代**：一次只改一处，每次一份新计划，并写决策日志；测试集最后只打开一次。小模型的结论可能在大模型上反转。
#
# </details>
