# %% [markdown]
# # 18c · The bug zoo
#
# **The question.** A run has ended and something is wrong. Which few measurements name the cause,
# and would the loss curve have told us?
#
# **By the end you can**
# - *read* a case file: log, curve, outputs and first batch of a run;
# - *name* a cause from probes, and *write* the probe that tells two look-alikes apart;
# - *choose* the cheapest set of probes, and *mend* a broken station.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 03, 05, 18 and 18b | CPU, no network | 40 seconds | 5, about an hour | L2 L3 L14 L22 L31 |

# %% tags=["setup"]
import tempfile
from pathlib import Path

import torch

from sft_lab import plots
from sft_lab.course.checks import check
from sft_lab.course.results import read_results
from sft_lab.course.views.clinic import (
    draw_chain,
    draw_clinic,
    draw_curves,
    draw_first_batch,
    draw_table,
    explore_clinic,
)
from sft_lab.course.views.widgets import show_widget
from sft_lab.course.zoo import Example, Pipeline, draw_talks, run_pipeline, write_turn

# %% tags=["setup"]
from sft_lab.course.zoo_bugs import BUGS, plant, show_lines
from sft_lab.course.zoo_doctor import PATIENTS, write_patient
from sft_lab.course.zoo_files import CLINIC, alarms, list_causes, say
from sft_lab.course.zoo_table import (
    BATTERY,
    CURVE,
    PROBES,
    bands,
    is_outside,
    lost_and_added,
    outputs_of,
    probe_run,
    seen_by,
    share_outside,
    share_seen,
)
from sft_lab.doctor import diagnose
from sft_lab.models import load
from sft_lab.significance import judge_claim

plots.style()
base, tokenizer = load("atlas-base")
zoo = read_results("18c_zoo", base)
stations = {bug.name: bug for bug in BUGS}

# %% [markdown]
# ## 1 · A run is a chain
#
# A small run goes through the stations below. It encodes questions and answers, trains LoRA for 32
# steps of 12 rows, is stopped and resumed halfway, saved, loaded, merged, and asked. Each station
# is one short function in `sft_lab/course/zoo.py`.

# %%
_ = draw_chain(BUGS)

# %% [markdown]
# We collected 29 bugs that people reported in public projects. Each is planted by exchanging one
# line of one station (two lines where one alone would not show). Here is the most famous of them.

# %%
bug = stations["stop = pad"]
print(f"{bug.thread}: {bug.cause}\n{show_lines(bug)}")

# %% [markdown]
# The padding token is set to the stop token. Then a later line, `labels[labels == pad] =
# IGNORE_INDEX`, hides the padding from the loss. **Predict.** The run trains without an error. What
# does its loss curve look like beside that of healthy runs? What do its answers look like?

# %% tags=["predict"]
ill = run_pipeline(plant(bug), base, tokenizer, seed=0)
_ = draw_curves(zoo, {"this run": [step["loss"] for step in ill.log]})
for question, answer in outputs_of(ill, 0)[:4]:
    print(f"{question} → {answer[:70]}")

# %% [markdown]
# **Read.** The curve falls, and it even lies *below* the healthy band: what is hard at the start, a
# stop token that the base never read, is no longer asked for. Each answer begins rightly and then
# runs on. The curve shows that something differs. It looks better, so few people would stop to ask.
#
# ## 2 · The case file
#
# An engineer has more than a curve. The first batch, with its labels, needs no training at all.

# %%
_ = draw_first_batch(ill.first_batch, tokenizer, title="No stop token is graded")
probes = probe_run(ill, seed=0)
allowed = bands(zoo)
for name in BATTERY:
    low, high = allowed[name]
    if is_outside(probes[name], allowed[name]):
        print(f"{name:16} {say(probes[name]):>6}   healthy: {say(low)} to {say(high)}")

# %%
healthy = probe_run(run_pipeline(Pipeline(), base, tokenizer, seed=0), seed=0)
assert not [name for name in BATTERY if is_outside(healthy[name], allowed[name])]
now = {name for name in BATTERY if is_outside(probes[name], allowed[name])}
assert set(alarms(zoo, "stop = pad")) <= now and "P(stop)" in now
print("a healthy run, made now: no alarm; the ill one: the recorded alarms")

# %% [markdown]
# **The rule.** Nine healthy runs differ in their seed alone. A probe's healthy values span from
# their lowest to their highest. We widen that span on both sides by its own width (at least by 0.02
# for a share, 0.001 for a difference that should be 0). Where only one direction is bad, the other
# is open: no accuracy is too high. A probe **sees** a bug when its value lies outside in all three
# seeds.
#
# ## 3 · The clinic
#
# Here are 26 case files without names: 24 bugs and two healthy runs whose curves look ill. Open a
# file, choose a cause, and read which probe contradicts you.

# %%
show_widget(explore_clinic(zoo, tokenizer), draw_clinic(zoo, "A"))

# %% [markdown]
# The same in print, for four of them: all probes outside of the healthy band.

# %%
for letter in "HITX":
    found = alarms(zoo, CLINIC[letter])
    print(letter, " · ".join(f"{name} {say(value)}" for name, value in found.items()) or "none")
print(", ".join(list_causes()))

# %% [markdown] tags=["exercise"]
# ### Exercise 18c.1 · Name four cases · 15 min · ●●○
# Name the causes of the cases H, I, T and X, from the alarms above and the files in the clinic.
# `named` is a dict from each of the four letters to a name of the list of causes, written as it
# stands there, such as `"no mask"`.

# %% tags=["stub"]
named = ...

# %% tags=["solution"]
named = {"H": "typed control", "I": "shifted twice", "T": "stop row frozen", "X": "tied merge"}

# %% tags=["check"]
check("18c.1", named)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Ask of each: is something wrong before the first step? In the
# trained model? Only in what became of it afterwards?</details>

# %% [markdown] tags=["explanation"]
# H: the ids hold control tokens that belong to no turn; a user typed them. I: the model is right
# about the token after next. T: the data are sound and all is learned but the stop token, whose row
# of the output head was left as it was. X: the model is sound until it is merged.
#
# Usual mistakes: T taken for an ungraded stop token, although every stop token is graded; X taken
# for a bad file, although the loaded adapter is the one that was saved.

# %% [markdown]
# ## 4 · Two bugs, one complaint
#
# Here are two bugs of the same name in the user's mouth: "it trains on my prompts". In one the mask
# is lost when rows are encoded. In the other the collator makes labels anew from the ids.
#
# **Predict.** Can the log, the outputs or the first batch tell the two apart?

# %% tags=["predict"]
pair = [zoo.select(case=name)[0] for name in ("no mask", "collator relabels")]
for what in ("log loss", "log eval", "outputs", "batch"):
    print(f"{what:9} {'the same' if pair[0][what] == pair[1][what] else 'differs'}")
print(
    "alarms:", *(list(alarms(zoo, name)) for name in ("no mask", "collator relabels")), sep="\n  "
)

# %% [markdown]
# **Read.** Nothing that the run leaves behind tells them apart: both train on the same numbers. The
# difference lies between two stations, so the probe must stand there and compare what goes in with
# what comes out.

# %% [markdown] tags=["exercise"]
# ### Exercise 18c.2 · Tell two cases apart · 10 min · ●●○
# Write the probe that compares a batch with its examples. `labels`, a tensor (B, T), is the batch:
# its row i belongs to `examples[i]`, padded on the right, and T is at least the length of every
# example. A place is graded where its label is not −100. Return `(lost, added)`, two ints, summed
# over all rows. `lost`: places graded in the example and not in the batch. `added`: places graded
# in the batch and not in the example; a place behind the example's end is not graded in it. The
# first place counts as any other. Token 0 is a token like any other.
#
# Two examples with labels `[-100, 5, 9]` and `[-100, 7]`, and `labels` `[[-100, 5, -100], [-100, 7,
# 2]]`, give `(1, 1)`.


# %% tags=["stub"]
def compare_labels(examples: list[Example], labels: torch.Tensor) -> tuple[int, int]:
    """Graded places that the batch lost, and that it added."""
    raise NotImplementedError


# %% tags=["solution"]
def compare_labels(examples: list[Example], labels: torch.Tensor) -> tuple[int, int]:
    """Graded places that the batch lost, and that it added."""
    lost = added = 0
    for example, row in zip(examples, labels.tolist(), strict=True):
        padded = example.labels + [-100] * (len(row) - len(example.labels))
        for wanted, found in zip(padded, row, strict=True):
            lost += wanted != -100 and found == -100
            added += wanted == -100 and found != -100
    return lost, added


# %% tags=["check"]
check("18c.2", compare_labels)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Fill the labels of each example up with −100 to the width of the
# batch. Then compare place by place.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: comparing totals, in which a lost and an added token cancel; leaving out the
# padding, which is what a careless collator grades.

# %%
for name in ("no mask", "collator relabels", "stop = pad", "mask early"):
    pipeline = plant(stations[name])
    rows = [pipeline.encode(talk, tokenizer, write_turn) for talk in draw_talks("train", 8, seed=0)]
    rows = [row for row in rows if row is not None]
    lost, added = lost_and_added(rows, pipeline.collate(rows, tokenizer)["labels"])
    print(f"{name:18} lost {lost:3}, added {added:3}")

# %% [markdown]
# **Read.** `mask early` gives (0, 0): its collator is innocent, and the encoding is to be searched.
# The collator of `collator relabels` adds; that of `stop = pad` loses one stop token a row. `no
# mask` loses the first token of each row, which is the padding token: no harm, but the count is
# honest.

# %% [markdown]
# ## 5 · Which probe sees which bug
#
# Every bug ran three times. **Claims**, stated before the runs: (1) the loss curves alone, of
# training and evaluation, see fewer than half of the bugs; (2) the battery sees at least 90 %; (3)
# the battery accuses no decoy. Measure: the share of the 29 bugs that at least one probe sees in a
# seed. For the curves we take eight numbers: the mean training loss of each quarter, and four
# evaluations.
#
# **Predict.** Which share do the curves see? How many bugs are seen before any GPU is paid?

# %% tags=["predict"]
_ = draw_table(zoo)

# %% tags=["predict"]
when = {time: [p.name for p in PROBES if p.when == time] for time in ("before", "step 0", "after")}
groups = {
    "loss curves": CURVE,
    "before\nthe run": when["before"],
    "and at\nstep 0": when["before"] + when["step 0"],
    "the whole\nbattery": BATTERY,
}
shares = {name: share_seen(zoo, group) for name, group in groups.items()}
for name, seeds in shares.items():
    print(f"{' '.join(name.split()):18} {', '.join(f'{share:.0%}' for share in seeds)}")

# %% tags=["predict", "folded"]
_ = plots.bars_with_spread(
    shares, percent=True, ylabel="bugs seen", title="Half of the bugs show before a step is taken"
)


# %% tags=["predict"]
def verdict(first: list[float], second: list[float], claim: str, what: str) -> str:
    """Print the verdict on the second arm being higher or lower; return its word."""
    found = judge_claim(first, second, claim=claim)
    print(f"{what}: {found.mean:+.2f}, noise floor {found.floor:.2f}: {found.word}")
    return found.word


curves, battery = shares["loss curves"], shares["the whole\nbattery"]
early = verdict([0.5] * 3, curves, "lower", "curves below a half")
late = verdict([0.9] * 3, battery, "higher", "battery above 90 %")
more = verdict(curves, battery, "higher", "battery over curves")
assert (early, late, more) == ("not shown", "held", "held")

# %% tags=["predict"]
DECOYS = ("decoy: jagged", "decoy: slow")
for name in DECOYS:
    print(
        f"{name:13} probes that accuse it in all seeds: {seen_by(zoo, name, BATTERY) or 'none'}; "
        f"the curves do in {share_outside(zoo, name, CURVE):.0%} of the seeds"
    )
unseen = [bug.name for bug in BUGS if not seen_by(zoo, bug.name, BATTERY)]
alone = [bug.name for bug in BUGS if len(seen_by(zoo, bug.name, BATTERY)) == 1]
print("not seen in every seed:", unseen)
print("seen by one probe alone:", alone)
for name in DECOYS:
    assert not seen_by(zoo, name, BATTERY) and share_outside(zoo, name, CURVE) == 1
assert len(alone) == 6
assert unseen == ["no mask in batch"] and min(shares["before\nthe run"]) > 0.5

# %% [markdown]
# **Read.** Claim 1 is *not shown*: the curves see about half of the bugs. And they name no cause,
# and accuse both healthy runs. Claim 2 *held*: 28 or 29 of 29. Claim 3 holds for the rule of all
# seeds; in one seed the slow run falls below the band of P(stop). Half of the bugs need no model at
# all: "graded text", the comparison of what is graded with the answers themselves, sees the most.
#
# `no mask in batch` is seen in some seeds only. This base pads with the token that begins its
# documents, so a pad too many does little harm. Six bugs are seen by one probe alone: leave it out,
# and they pass. We planted the bugs *and* chose the probes, so 97 % is no forecast for yours. The
# battery does not ask whether the facts in the data are true, or the exam leaked (chapter 11). Nor
# is a decoy healthy because we say so: our first second decoy, rows sorted by kind, ended worse than
# the band in some seeds, and a long warm-up took its place.

# %% [markdown] tags=["exercise"]
# ### Exercise 18c.3 · The cheapest battery · 12 min · ●●○
# `table` maps each probe to the set of bugs it sees (it may be empty); `cost` maps each probe to
# its seconds, a whole number of at least 1. Choose again and again the probe with the most bugs
# *that no chosen probe sees*, divided by its seconds. Of equals take the one that stands first in
# `table`. Stop when no probe sees a new bug. Return the names in the order in which they were
# chosen, a list; `[]` for an empty table.
#
# With `{"a": {"x", "y"}, "b": {"y", "z", "w"}, "c": {"x"}}` and 1, 3 and 1 seconds, the answer is
# `["a", "b"]`: 2/1 is the most at first, then b has 2 new bugs in 3 seconds and c has none.


# %% tags=["stub"]
def choose_probes(table: dict[str, set[str]], cost: dict[str, int]) -> list[str]:
    """Names of the chosen probes, in their order."""
    raise NotImplementedError


# %% tags=["solution"]
def choose_probes(table: dict[str, set[str]], cost: dict[str, int]) -> list[str]:
    """Names of the chosen probes, in their order."""
    chosen, seen = [], set()
    while True:
        worth = {name: len(bugs - seen) / cost[name] for name, bugs in table.items()}
        best = max(worth, key=worth.get, default=None)
        if best is None or not worth[best]:
            return chosen
        chosen.append(best)
        seen |= table[best]


# %% tags=["check"]
check("18c.3", choose_probes)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Keep a set of what is seen. Compute every quotient anew after each
# choice; <code>max</code> takes the first of equals.</details>

# %% [markdown] tags=["explanation"]
# This is greedy *set cover*. It need not find the smallest set, and it is never worse than a factor
# of about ln(number of bugs).
#
# Usual mistakes: sorting once; counting bugs that were seen before; leaving out the cost.

# %%
seen = {probe: {bug.name for bug in BUGS if probe in alarms(zoo, bug.name)} for probe in BATTERY}
cost = {probe.name: {"before": 1, "step 0": 3, "after": 10}[probe.when] for probe in PROBES}
chosen, left = [], set.union(*seen.values())
while left:
    best = max(seen, key=lambda probe: len(seen[probe] & left) / cost[probe])
    chosen.append(best)
    left -= seen[best]
    print(f"{len(chosen):2}  {best:16} {len(left):2} bugs left")
assert len(chosen) == 10 and chosen[0] == "graded text"

# %% [markdown]
# **Read.** With rough prices (1, 3 and 10 seconds) the order is: the data, the first step, then the
# model. Ten of the 19 probes cover all that the battery covers.

# %% [markdown]
# ## 6 · Mend, and break
#
# This `encode` has three faults: it breaks the label contract of chapter 03 twice, and cuts rows.


# %%
def faulty(talk: list[dict[str, str]], tokenizer) -> Example:
    """Ids and labels of a conversation; something is wrong with it."""
    ids, labels = [tokenizer.pad_token_id], [-100]
    for turn in talk:
        opening, inside, closing = write_turn(turn["role"], turn["content"], tokenizer)
        whole = opening + inside + closing
        ids += whole
        labels += whole if turn["role"] == "assistant" else [-100] * len(whole)
    return Example(ids[:72], labels[:72])


# %% [markdown] tags=["exercise"]
# ### Exercise 18c.4 · Mend a station · 10 min · ●●○
# Write `mended(talk, tokenizer)`, which returns an `Example` with the same ids as `faulty`, but
# (1) graded are the tokens of each answer and its stop token, and nothing else: not the opening of
# the turn, not the line break behind the stop token; an ungraded label is −100, a graded one the id
# of its own place; (2) for a row of more than 72 ids it returns `None`, and the run leaves the row
# out. `talk` is a list of turns as everywhere in this course. `write_turn` gives the three parts of
# a turn: `opening`, `inside`, and `closing`, which begins with the stop token. The check trains
# with your function, and asks.


# %% tags=["stub"]
def mended(talk: list[dict[str, str]], tokenizer) -> Example | None:
    """Ids and labels of a conversation that grade its answers; None for a row that is too long."""
    raise NotImplementedError


# %% tags=["solution"]
def mended(talk: list[dict[str, str]], tokenizer) -> Example | None:
    """Ids and labels of a conversation that grade its answers; None for a row that is too long."""
    ids, labels = [tokenizer.pad_token_id], [-100]
    for turn in talk:
        opening, inside, closing = write_turn(turn["role"], turn["content"], tokenizer)
        written = [*inside, closing[0]]
        ids += opening + inside + closing
        labels += [-100] * len(opening)
        labels += written if turn["role"] == "assistant" else [-100] * len(written)
        labels += [-100] * (len(closing) - 1)
    return Example(ids, labels) if len(ids) <= 72 else None


# %% tags=["check"]
check("18c.4", mended)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Add the labels of opening, written part and rest one after the
# other, each as long as its ids.</details>

# %% [markdown] tags=["explanation"]
# A cut answer teaches that an answer may break off anywhere. Leaving the row out teaches nothing
# wrong.
#
# Usual mistakes: cutting the labels and keeping the row; losing the stop token together with the
# line break; grading the opening of the answer.

# %% [markdown] tags=["exercise"]
# ### Exercise 18c.5 · A bug that no curve sees · 15 min · ●●●
# Now break a run without a trace in its curves. `my_bug` gets every encoded example, of training
# and of evaluation, and returns an `Example`: ids from 0 to 2,047; as many labels as ids; each
# label −100 or the id of its own place. The check trains 24 steps of 8 rows. Each quarter of the
# training loss, and each of the four evaluations, must stay within 0.15 nats or 15 % (the larger)
# of a healthy run's. At most 40 % of the answers may be right; a healthy run has about 70 %. An
# answer that does not end with the stop token `<|im_end|>` is not right. The model is asked with
# the healthy prompt. Ids: `<|im_start|>` 2044, `<|im_end|>` 2045, the line break 198.


# %% tags=["stub"]
def my_bug(example: Example) -> Example:
    """The example with a fault that the loss does not feel."""
    raise NotImplementedError


# %% tags=["solution"]
def my_bug(example: Example) -> Example:
    """The example with a fault that the loss does not feel."""
    labels = [2044 if label == 2045 else label for label in example.labels]
    pairs = zip(example.input_ids, example.labels, strict=True)
    return Example([2044 if label == 2045 else token for token, label in pairs], labels)


# %% tags=["check"]
check("18c.5", my_bug)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The evaluation is encoded with the same bug, so it agrees with
# whatever training teaches. Which token could stand at the end of an answer as well?</details>

# %% [markdown] tags=["explanation"]
# A wrong end token is learned as fast as the right one: both rows of the embedding are untrained.
# The evaluation has the same bug, and praises it. Only a probe that brings *its own* examples sees
# it.
#
# Usual mistakes: taking the end token's label away, which makes the first losses smaller; grading
# the prompt, which makes them larger.

# %% [markdown]
# ## 7 · The doctor, before a GPU is paid
#
# `sft-lab doctor --data my.jsonl --model NAME_OR_FOLDER [--adapter FOLDER]` asks what files can
# tell: data, template, tokenizer, model, adapter. A bug in somebody's collator is not in a file.
# Ten of the 29 bugs can be written as files: *typed control*, *answers cut*, *stop = pad*, *stop not
# named*, *two BOS*, *blank at seam*, *history rewritten*, *turn not closed*, *B not trained* and
# *keys do not meet*.
#
# **Predict.** How many of the ten get an alarm, and which do not, if any?

# %% tags=["predict"]
named_by_doctor = {}
for name in PATIENTS:
    with tempfile.TemporaryDirectory() as folder:
        found = diagnose(**write_patient(name, base, tokenizer, Path(folder))).findings
    codes = [finding.code for finding in found if finding.severity != "note"]
    named_by_doctor[name] = codes
    print(f"{name:18} {', '.join(codes) or 'no alarm'}")
assert not named_by_doctor.pop("healthy")
assert len(named_by_doctor) == 10 and all(named_by_doctor.values())

# %% [markdown]
# **Read.** All ten get an alarm in a tenth of a second, without a step of training. A healthy set
# gets none. (An adapter without the output head also gets `stop-row-untrained`: the bug `stop row
# frozen`.) *History rewritten* is a template that shortens earlier answers. Its prompt agrees with
# the row, so the doctor reads each answer of a conversation where it stands. The other bugs are
# lines of code. For them there is the battery.
#
# ## 8 · A real model
#
# Six of the bugs were planted once more on SmolLM2-135M, without a step of training (B random
# instead of zero). **Claim.** The probe that sees a bug in the zoo sees it there as well. Measure:
# its value outside of the band of six healthy runs, in each of three seeds.

# %%
real = read_results("18c_smollm2")
same = {
    "collator relabels": "batch : examples",
    "packing leaks": "batch sizes",
    "mean of means": "accumulation",
    "eval by batch": "batch sizes",
    "no mask in batch": "alone : batch",
    "tied merge": "merge",
}
found = {}
for case, probe in same.items():
    band, values = bands(real, [probe])[probe], real.measured(probe, case=case)
    found[case] = all(is_outside(value, band) for value in values)
    shown = ", ".join(map(say, values))
    print(f"{case:18} {probe:17} {shown:20} healthy to {say(band[1])}: {found[case]}")
assert all(found.values())

# %% [markdown]
# **Read.** The claim holds for all six, in each of three seeds. `no mask in batch`, which the zoo's
# padding hid, is plain here: half of the answers or more change in a batch. What is harmless in one
# model need not be so in the next.
#
# ## What to remember
#
# - The curve is one witness among many: it sees half of these bugs, names none, and accuses the
#   healthy.
# - Look at what is graded, as text, in the *batch*, before the first step. That alone finds most
#   mask bugs.
# - A probe compares two ways to one number: two batch sizes, before and after saving, alone and in
#   a batch. Its healthy answer is known beforehand; its band comes from healthy runs.
# - Two causes with the same alarms need a probe that stands *between* their stations.
# - What nobody plants, nobody counts: 97 % of our bugs is no promise about yours.
#
# ## Sources
#
# - The threads are named in the bugs, as repository#number: `for bug in BUGS: print(bug.name,
#   bug.thread)`. Among them happy-llm PR #216 and open-r1#492 (stop token as padding), verl#3562
#   (shifted mask), nanochat PR #582 (mask lost in a rewrite), transformers#39241 (evaluation by
#   batch), transformers#45127 (tied merge), peft#1142 (a fresh adapter on reload).
# - Chapter 18b, where each probe is built; `sft_lab/diagnostics.py`.
#
# <details><summary>中文要点</summary>
#
# 1. **流水线**：一次 SFT 是一串工序（模板、编码、整理成批、损失、更新、评估、恢复、加载合并、生成）。29 个真实缺陷，每个只改一行。
#
# 2. **损失曲线**只看得出约一半的缺陷，说不出原因，还会冤枉两个健康的运行（诱饵）。“少于一半”这一说法**未显示**。
#
# 3. **探针组**看得出 28 至 29 个（**成立**）。健康范围来自多次健康运行（A 对 A），再加宽一个自身宽度；三个种子都在范围外才算“看见”。
#
# 4. 一半缺陷在训练前就能发现：把**批次里**被计分的文字打印出来。两个症状相同的缺陷，要在两道工序**之间**设探针。
#
# 5. `sft-lab doctor` 只看文件：数据、模板、分词器、模型、适配器；十个能写成文件的缺陷它认出九个。代码里的缺陷要靠探针组。
#
# </details>
