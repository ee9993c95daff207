# %% [markdown]
# # 14 · Why it says it again
#
# **The question.** A model that nobody taught to repeat itself goes round in circles. Which of the
# causes that people name can we switch on and off, and which do not show?
#
# **By the end you can**
# - *measure* repetition at the levels of token, phrase, sentence and paragraph, and find a loop;
# - *show* how a repeated sentence makes its next repeat likelier, and which attention heads copy;
# - *tell* a model that repeats from one that never learned to stop, and *treat* one at a known
#   price.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 03, 04 and 09 | CPU, no network | about a minute | 6, about 55 minutes | D7 |

# %% tags=["setup"]
import torch
from torch.testing import assert_close

from sft_lab import plots
from sft_lab.course.checks import check

# %% tags=["setup"]
from sft_lab.course.repeat_runs import (
    BEGINNING,
    WAYS,
    Rows,
    ask_to_tell,
    draw_sentences,
    induction_scores,
    mark_repeats,
    measure_rows,
    open_texts,
    read_attention,
    read_patients,
    read_repeats,
    read_signs,
    run_heads,
    run_open,
    tune_to_tell,
    twice_the_same,
    unlikelihood_loss,
    write_on,
)

# %% tags=["setup"]
from sft_lab.course.results import read_results
from sft_lab.course.views.repeats import (
    draw_induction,
    draw_repeats,
    draw_text,
    explore_repeats,
    read_copies,
)
from sft_lab.course.views.widgets import show_widget
from sft_lab.metrics import longest_run, repeated_share, repeated_units, split_sentences
from sft_lab.models import load
from sft_lab.significance import judge_claim

plots.style()
base, tokenizer = load("atlas-base")
SEEDS = (0, 1, 2)


def verdict(first: list[float], second: list[float], claim: str, what: str) -> str:
    """Print the verdict on the second arm being higher or lower; return its word."""
    found = judge_claim(first, second, claim=claim)
    print(f"{what}: {found.mean:+.2f}, noise floor {found.floor:.2f}: {found.word}")
    return found.word


# %% [markdown]
# ## 1 · Four levels of the same fault
#
# We give the base model the first 12 tokens of a plain text and let it write 120 more. It may not
# stop before. First it always takes the likeliest token (*greedy* decoding).

# %%
texts = open_texts(tokenizer, 24, seed=0)
beginnings = [text[:BEGINNING] for text in texts]
greedy = write_on(base, tokenizer, beginnings)
worst = max(greedy, key=lambda row: repeated_share(row, 4))
pieces = [tokenizer.decode([token_id]) for token_id in worst]
_ = draw_text(pieces[:72], title="Orange: part of four tokens that stood before")
assert repeated_share(worst, 4) > 0.6

# %% [markdown]
# How bad is that on average? We count **rep-n**: the share of runs of n neighbouring tokens
# (*n-grams*) that stood earlier in the same text. One formula gives it: 1 − different / all.
#
# **Predict.** Of the 4-grams in 120 tokens, which share stood before: in the true texts, in greedy
# ones, and in texts *sampled* at temperature 1?

# %% tags=["predict"]
sampled = write_on(base, tokenizer, beginnings, seed=0, **WAYS["T 1"])
written = {"the text itself": [t[BEGINNING:] for t in texts], "greedy": greedy, "T 1": sampled}
levels = {name: measure_rows(rows, tokenizer) for name, rows in written.items()}
for name, found in levels.items():
    print(f"{name:15}", "  ".join(f"{key} {value:.2f}" for key, value in found.items()))
assert levels["greedy"]["rep4"] > 0.4 > 4 * levels["the text itself"]["rep4"]
assert levels["T 1"]["rep4"] < 0.2

# %% tags=["predict"]
row = greedy[0]
ngrams = [tuple(row[i : i + 4]) for i in range(len(row) - 3)]  # range(len(row) - 4) loses the last
assert repeated_share(row, 4) == 1 - len(set(ngrams)) / len(ngrams)
sentences = split_sentences(tokenizer.decode(row))
assert repeated_units(sentences) == 1 - len(set(sentences)) / len(sentences)
assert longest_run([5, 5, 5, 7]) == 3
print(f"{len(ngrams)} runs of four, {len(set(ngrams))} different; {len(sentences)} sentences")

# %% [markdown]
# **Read.** Single tokens repeat in every text (`rep1`): "the" and "of" are needed again. No token
# is said many times in a row (`run`). The fault sits at the levels of phrase (`rep4`) and sentence
# (`sentences`). Longer units repeat when the loop is longer: for paragraphs one counts blocks
# between empty lines, `repeated_units(split_paragraphs(text))`, and these texts have none. `loops`
# is the share of texts that end in a circle. The next exercise finds it.

# %% [markdown] tags=["exercise"]
# ### Exercise 14.1 · Find the loop · 10 min · ●●○
# A text *ends in a loop of period p* when its last `times` · p tokens are one piece of p tokens,
# said `times` times. Return `None` when there is no such p. Otherwise return `(start, period)`:
# `period` is the smallest such p. `start` is the smallest place from which every token equals the
# one `period` places later, as far as there is one. `times` is at least 2; `ids` may be empty.
#
# With `times=3`, `[7, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1]` gives `(1, 3)`: the last nine tokens are
# 2 3 1 three times, and the circle begins at place 1.


# %% tags=["stub"]
def find_the_loop(ids: list[int], times: int) -> tuple[int, int] | None:
    """(start, period) of the loop at the end of a text, or None."""
    raise NotImplementedError


# %% tags=["solution"]
def find_the_loop(ids: list[int], times: int) -> tuple[int, int] | None:
    """(start, period) of the loop at the end of a text, or None."""
    for period in range(1, len(ids) // times + 1):
        start = len(ids) - period
        while start > 0 and ids[start - 1] == ids[start - 1 + period]:
            start -= 1
        if len(ids) - start >= times * period:
            return start, period
    return None


# %% tags=["check"]
check("14.1", find_the_loop)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Try the periods from 1 on. For each, walk back from the end while
# <code>ids[i] == ids[i + period]</code>. How long must the walk be?</details>

# %% [markdown] tags=["explanation"]
# A text that ends in a loop under greedy decoding may go on in it for ever, if the model sees
# nothing but the loop.
#
# Usual mistakes: the largest period instead of the smallest; a start that counts whole pieces only;
# a loop in the middle, which the text has left again.

# %% [markdown]
# ## 2 · Decoding: who keeps taking the likeliest token
#
# The same base, 48 beginnings, five seeds, ten ways of decoding. *Beam search* keeps the four
# likeliest texts at every step. T is the temperature: low ones sharpen the distribution. *k* and
# *p* cut it to the k likeliest tokens, or to the likeliest that hold the share p.
#
# **Claim.** Greedy decoding repeats more than sampling at T 1. Measure: rep-4.

# %%
ways = read_results("14_open_text", base)
names = ["the text itself", *WAYS]
rep4 = {name: ways.measured("rep4", way=name) for name in names}
ax = plots.bars_with_spread(
    rep4,
    percent=True,
    ylabel="repeated 4-grams\nin 120 tokens",
    title="The surer the choice, the more it repeats",
)
_ = ax.set_xticks(range(len(names)), ["the text\nitself", *WAYS], fontsize=9)

# %%
again = run_open(base, tokenizer, way="T 1", seed=0)
assert abs(again["rep4"] - rep4["T 1"][0]) < 0.06  # draws part where a rounding differs
assert verdict(rep4["T 1"], rep4["greedy"], "higher", "greedy over T 1") == "held"
assert verdict(rep4["T 1"], rep4["T 0.3"], "higher", "T 0.3 over T 1") == "held"
assert verdict(rep4["k 40"], rep4["k 2"], "higher", "k 2 over k 40") == "held"
assert verdict(rep4["p 0.9"], rep4["p 0.3"], "higher", "p 0.3 over p 0.9") == "held"
beam = verdict(rep4["greedy"], rep4["beam 4"], "higher", "beam 4 over greedy")
assert beam != "held"

# %% [markdown]
# **Read.** Greedy, beam search, a low temperature, a small k and a small p repeat: all of them
# leave the model little choice. Beam search does not repeat more than greedy here. What each
# setting does, and what it costs, is chapter 14b. Here we ask why the likeliest token is so often
# one that was said before.
#
# One more question to these texts. **Predict:** we let the base itself judge all of them by its
# loss, as *perplexity* does. Which text does it like best?

# %% tags=["predict"]
nll = {name: ways.measured("nll", way=name) for name in names}
for name in ("the text itself", "T 1", "T 0.3", "beam 4", "greedy"):
    mean = sum(nll[name]) / len(nll[name])
    print(f"{name:15} {mean:.2f} nats per token, perplexity {2.718**mean:.2f}")

# %% tags=["predict", "folded"]
both = nll["the text itself"], nll["greedy"]
assert verdict(*both, "lower", "greedy text below the true one") == "held"

# %% [markdown]
# **Read.** The loops win: the measure that training lowers does not see the fault. The base finds
# its own circles far likelier than true text. GPT-2 did the same (Holtzman et al.): greedy text had
# perplexity 1.50, human text 12.38. So a model can be chosen by perplexity and repeat. Two causes
# that people name have a part in it, the objective and the metric: nothing in them asks for variety.
#
# ## 3 · Saying it makes it likelier
#
# Xu et al. (DITTO) let a model read one sentence again and again. They report
# **self-reinforcement**: the probability of the sentence grows with every copy. We repeat it with
# four kinds of sentences: true ones, invented ones, true ones with their words shuffled, and ten
# random tokens.

# %% [markdown] tags=["exercise"]
# ### Exercise 14.2 · The probability of each copy · 8 min · ●●○
# `ids`, (T,), are some tokens and then a sentence of `length` tokens, said again and again to the
# end: it begins at place `start` ≥ 1, and T − `start` is a multiple of `length`. `logits`, (T, V),
# are the scores of a model that read `ids`. For each copy return the mean log-probability of its
# tokens, in nats: a tensor with one number a copy.


# %% tags=["stub"]
def copy_log_probs(
    logits: torch.Tensor, ids: torch.Tensor, start: int, length: int
) -> torch.Tensor:
    """Mean log-probability of a token in each copy, (copies,)."""
    raise NotImplementedError


# %% tags=["solution"]
def copy_log_probs(
    logits: torch.Tensor, ids: torch.Tensor, start: int, length: int
) -> torch.Tensor:
    """Mean log-probability of a token in each copy, (copies,)."""
    log_probs = logits[start - 1 : -1].log_softmax(-1)  # row t predicts token t + 1
    return log_probs.gather(1, ids[start:, None])[:, 0].view(-1, length).mean(1)


# %% tags=["check"]
check("14.2", copy_log_probs)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Which row of the logits predicts the token in place
# <code>start</code>? Give the copies rows of their own with <code>view(-1, length)</code>.</details>

# %% [markdown] tags=["explanation"]
# The sum of a copy is the logarithm of the probability of the whole sentence. Divided by its length
# it can be compared between sentences.
#
# Usual mistakes: reading row t for token t; leaving out the first copy, which has its own beginning
# to stand on; the mean of probabilities where that of logarithms was asked for.

# %% [markdown]
# **Predict.** From copy 1 to copy 2 the probability jumps. Does it go on to grow, for a true
# sentence and for an invented one?

# %% tags=["predict"]
KINDS = ("true", "invented", "shuffled", "random")
START = [tokenizer.pad_token_id]  # <|endoftext|> begins a document


def grow(model: torch.nn.Module, kind: str, seed: int, copies: int = 10) -> list[float]:
    """Mean probability of a token in each copy, over 20 sentences."""
    sentences = draw_sentences(kind, 20, tokenizer, seed=seed)
    found = [read_repeats(model, ids, copies, START).exp().mean(1) for ids in sentences]
    return torch.stack(found).mean(0).tolist()


growth = {kind: [grow(base, kind, seed) for seed in SEEDS] for kind in KINDS}

# %% tags=["predict", "folded"]
ax = plots.curve(
    range(1, 11),
    growth,
    xlabel="copy",
    ylabel="probability of a token\n(mean of 20 sentences)",
    title="The base: one jump, then little",
)
_ = ax.set_ylim(0, 1)

# %% tags=["predict"]
tuned = tune_to_tell(base, tokenizer, seed=0)  # learns to tell five facts about an entity
after = {kind: [grow(tuned, kind, seed) for seed in SEEDS] for kind in KINDS}
words = {}
for model, found in {"base": growth, "tuned": after}.items():
    for kind, seeds in found.items():
        first, second, last = ([curve[k] for curve in seeds] for k in (0, 1, 9))
        words[model, kind, "jump"] = verdict(first, second, "higher", f"{model}, {kind}, 2 over 1")
        words[model, kind, "on"] = verdict(second, last, "higher", f"{model}, {kind}, 10 over 2")
assert all(words["base", kind, "jump"] == "held" for kind in KINDS)
assert words["tuned", "true", "jump"] == words["tuned", "invented", "jump"] == "held"
assert words["base", "true", "on"] != "held"

# %% [markdown]
# **Read.** The jump from copy 1 to copy 2 *held* for all four kinds, on the base and on the tuned
# model. What DITTO reports beyond it shows here for random tokens alone: for a true or a shuffled
# sentence nothing grows after copy 2, and for an invented one the seeds scatter too much. These
# models have read texts that say a sentence *twice*, seldom more often. So the base has learned one
# repeat. The next cell shows where a copy can still break off.

# %%
tenth = [
    read_repeats(base, ids, 10, START)[9].exp()
    for ids in draw_sentences("invented", 20, tokenizer, seed=0)
]
seam = torch.stack([p[0] for p in tenth]).mean()
inside = torch.stack([p[1:].mean() for p in tenth]).mean()
print(f"copy 10: the first token {seam:.2f}, the other tokens {inside:.2f}")
assert seam < 0.45 < 0.6 < inside

# %% [markdown]
# **Read.** Inside a sentence the copy is likely, token after token. At the seam, behind the full
# stop, it is much less so: there a sampler leaves the circle. A greedy decoder does not, as long as
# the repeat ranks first.
#
# Now the same on a real model.

# %%
real = read_results("14_smollm2")
curves = {
    f"{name}, {kind}": [
        [row[f"p{copy}"] for copy in range(1, 11)] for row in real.select(part="copies", kind=kind)
    ]
    for name, kind in (("SmolLM2-135M", "sentence"), ("SmolLM2-135M", "random"))
}
ax = plots.curve(
    range(1, 11),
    curves,
    colours=[plots.VERMILLION, plots.PURPLE],
    xlabel="copy",
    ylabel="probability of a token\n(mean of 20 sentences)",
    title="A real model: every copy of a sentence helps the next",
)
_ = ax.set_ylim(0, 1)
copies = {k: real.measured(f"p{k}", part="copies", kind="sentence") for k in (1, 2, 10)}
assert verdict(copies[1], copies[2], "higher", "sentence, copy 2 over 1") == "held"
assert verdict(copies[2], copies[10], "higher", "sentence, copy 10 over 2") == "held"
open_real = {way: real.measured("rep4", part="open text", kind=way) for way in ("T 1", "greedy")}
assert verdict(open_real["T 1"], open_real["greedy"], "higher", "rep-4, greedy over T 1") == "held"

# %% [markdown]
# **Read.** All three *held*: in a larger model every copy of a sentence makes the next likelier, up
# to 0.9, and greedy decoding repeats. (Random tokens fall back after the fifth copy.) Here the
# small model misleads: it shows the jump and misses the spiral.
#
# Try it: choose a text and say it more often. The picture on the right shows where the attention
# goes, which is the next question.

# %%
SAID = {
    "true": " The capital of Kenya is Nairobi.",
    "invented": " The capital of Bonuva is Rimo.",
    "nonsense": " Mifo colour glass the Bonu seven.",
    "a list": "\n- 12",
}
still = draw_repeats(read_copies(base, tokenizer, SAID["invented"], 6))
show_widget(explore_repeats(base, tokenizer, SAID, copies=6), still)

# %% [markdown]
# ## 4 · The heads that copy
#
# Olsson et al. found heads that do one thing: they look for the same token earlier in the text,
# take the token that *followed* it, and raise its score. They are called **induction heads**.

# %%
_ = draw_induction()

# %% [markdown] tags=["exercise"]
# ### Exercise 14.3 · The induction score · 8 min · ●●○
# A model has read a row of `length` random tokens and then the same row again. `attention`,
# (H, 2 · length, 2 · length), are the weights of H heads: row t holds what the token in place t
# takes from each place. Return for each head, (H,), the mean over all `length` tokens of the second
# copy: how much each takes from the token that *followed* the same token in the first copy. For the
# last token that is the first token of the second copy. `length` is at least 2.


# %% tags=["stub"]
def induction_score(attention: torch.Tensor, length: int) -> torch.Tensor:
    """Mean attention to the token behind the earlier copy, for each head, (H,)."""
    raise NotImplementedError


# %% tags=["solution"]
def induction_score(attention: torch.Tensor, length: int) -> torch.Tensor:
    """Mean attention to the token behind the earlier copy, for each head, (H,)."""
    places = torch.arange(length, 2 * length)
    return attention[:, places, places - length + 1].mean(-1)


# %% tags=["check"]
check("14.3", induction_score)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>The token in place t of the second copy stood in place t − length
# before. One place behind it stands the token that followed.</details>

# %% [markdown] tags=["explanation"]
# Random tokens matter: in a real text a head could look at the right place because of what the
# words mean.
#
# Usual mistakes: the attention to the same token itself (a *previous-token* or duplicate head);
# rows and columns swapped; the mean over both copies.

# %% [markdown]
# **Predict.** The base has 4 layers with 4 heads. By chance a head would give about 2 % of its
# attention to one place. How many heads give more than 10 %?

# %% tags=["predict"]
scores = torch.stack([induction_scores(base, seed=seed) for seed in SEEDS])  # (seeds, 4, 4)
table = scores.mean(0)
for layer, row in enumerate(table.tolist()):
    print(f"layer {layer}:", "  ".join(f"{score:5.1%}" for score in row))
copying = (scores.amin(0) > 0.1).nonzero().tolist()
print("heads above 10 % with every seed, (layer, head):", copying)
assert copying == [[2, 2], [2, 3]] and table.flatten().sort().values[-3] < 0.05

# %%
rows = twice_the_same(40, 8, 2000, seed=0)
weights = read_attention(base, rows)  # (layers, B, heads, T, T)
places = torch.arange(40, 80)
by_hand = weights[..., places, places - 39].mean(dim=(1, 3))
assert_close(by_hand, induction_scores(base, seed=0))

# %% [markdown]
# **Read.** Two heads of sixteen stand out, with every seed. That says where they look, not what
# they cause. So we switch them off: their part of the layer's output becomes zero. As a control we
# switch off two other heads, drawn by chance.
#
# **Claims.** Without the two heads (a) a repeated sentence is less likely in its fourth copy, and
# (b) greedy text repeats less.

# %%
off = read_results("14_heads", base)
arms = ("none", "induction", "by chance")
for measure, name in (
    ("fourth", "log-probability of a token, copy 4"),
    ("first", "log-probability of a token, copy 1"),
    ("rep4", "rep-4 of greedy text"),
    ("loops", "greedy texts that end in a loop"),
    ("nll", "loss on plain text"),
):
    means = [torch.tensor(off.measured(measure, arm=arm)).mean() for arm in arms]
    print(f"{name:35}", "  ".join(f"{a} {m:.2f}" for a, m in zip(arms, means, strict=True)))
control, without = (
    {m: off.measured(m, arm=arm) for m in ("fourth", "rep4")} for arm in arms[:0:-1]
)
a = verdict(control["fourth"], without["fourth"], "lower", "(a) copy 4, against the control")
b = verdict(control["rep4"], without["rep4"], "lower", "(b) rep-4, against the control")
assert a == "held" and b == "not shown"
again = run_heads(base, tokenizer, off=[[2, 2], [2, 3]], seed=0)
assert abs(again["fourth"] - off.measured("fourth", arm="induction")[0]) < 0.1

# %% [markdown]
# **Read.** (a) *held*: without the two heads the fourth copy is far less likely, and the first is
# not. They copy. (b) is *not shown*: greedy text repeats as much as before. This base circles among
# facts that it knows by heart, and needs no copy in view for that. On the real model we silence 20
# of 270 heads, chosen by the same score.

# %%
heads = {arm: real.select(part="heads off", kind=arm) for arm in arms}
for arm, seeds in heads.items():
    shown = [sum(row[m] for row in seeds) / len(seeds) for m in ("p2", "p10", "rep4", "score")]
    print(f"{arm:10} copy 2 {shown[0]:.2f}  copy 10 {shown[1]:.2f}  rep-4 {shown[2]:.2f}")
for key, name in (("p10", "(a) copy 10"), ("rep4", "(b) rep-4")):
    control, without = ([row[key] for row in heads[arm]] for arm in arms[:0:-1])
    assert verdict(control, without, "lower", f"real model, {name}, against the control") == "held"

# %% [markdown]
# **Read.** Both *held*. Without its induction heads the tenth copy falls from 0.91 to about 0.4,
# and greedy text repeats less. Twenty other heads off do the opposite: a damaged model repeats
# more. So on a real model the echo of its own words is a cause, and on a small one it is not the
# main one.
#
# Two more habits of attention are blamed: it clings to the words of the prompt, and it thins out
# over a long text. **Predict:** at token 130, how many places does a head look at, and do loops
# differ from true text? And does a model that sees only the last 8 tokens repeat itself more?


# %% tags=["predict"]
def looked_at(rows: Rows, place: int) -> tuple[float, float]:
    """Mean over heads: to how many places attention is spread at `place` (e to the entropy), and
    its share on the beginning."""
    weights = read_attention(base, rows)[..., place, : place + 1]  # (layers, B, heads, places)
    entropy = -(weights * weights.clamp(min=1e-12).log()).sum(-1)
    return entropy.exp().mean().item(), weights[..., :BEGINNING].sum(-1).mean().item()


circles = [text + row for text, row in zip(beginnings, greedy, strict=True)]
for name, rows in {"the text itself": texts, "greedy": circles}.items():
    for place in (30, 80, 130):
        many, on_beginning = looked_at(rows, place)
        print(f"{name:15} token {place:3}: {many:4.1f} places, {on_beginning:.0%} on the beginning")
assert looked_at(texts, 130)[0] > 1.2 * looked_at(texts, 30)[0]
assert looked_at(texts, 130)[1] < looked_at(texts, 30)[1]

# %% tags=["predict"]
window = read_results("14_window", base)
sizes = (8, 16, 32, 64, 132)
seen = {
    f"{name}": torch.tensor(
        [window.measured("rep4", window=size, temperature=t) for size in sizes]
    ).T.numpy()
    for name, t in (("greedy", 0.0), ("T 1", 1.0))
}
loops = {size: window.measured("loops", window=size, temperature=0.0) for size in sizes}
word = verdict(loops[132], loops[8], "higher", "greedy loops, 8 tokens over all")
assert word == "not shown"

# %% tags=["predict", "folded"]
ax = plots.curve(
    range(5),
    seen,
    xlabel="tokens that the model sees",
    ylabel="repeated 4-grams\nin 120 tokens",
    title="How much the model sees changes little here",
)
_ = ax.set_xticks(range(5), sizes)
_ = ax.set_ylim(0, 1)

# %% [markdown]
# **Read.** Attention does thin out, and the beginning loses its share. But it does so in true texts
# as well as in circles: as causes of repetition, clinging to the prompt and thinning out are *not
# shown*. "It forgets what it said" is *not shown* either. A model that sees 8 tokens ends in a loop
# more often with every seed, yet the seeds scatter too much, and at T 1 it repeats no more than
# with its whole memory.
#
# ## 5 · What training puts in
#
# Now the data. We tune the base on one task, 48 steps: "Tell me about Kenya." wants five sentences,
# one for each fact, in random order. Then we ask about entities that the tuning set left out. The
# measure is the share of answers in which a sentence stands twice. In some arms a share of the
# training answers says one sentence three times and leaves out two others.
#
# **Predict.** At which share of such answers in training do half of the greedy answers repeat?

# %% tags=["predict"]
told = read_results("14_tell", base)
SHARES = (0, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
said = {
    name: torch.tensor([told.measured(key, arm=f"repeats {share:g}") for share in SHARES]).T.numpy()
    for name, key in (("greedy", "greedy_again"), ("T 1", "sampled_again"))
}

# %% tags=["predict", "folded"]
ax = plots.curve(
    range(len(SHARES)),
    said,
    xlabel="training answers that repeat a sentence",
    ylabel="answers with a sentence twice",
    title="What the data repeat, the model repeats, greedy more than sampled",
)
_ = ax.set_xticks(range(len(SHARES)), [f"{share:.0%}" for share in SHARES])
_ = ax.set_ylim(0, 1.02)

# %% tags=["predict"]
usual = {"arm": "repeats 0"}
clean = told.measured("greedy_again", **usual)
for arm in ("repeats 0.2", "repeats 0.5", "repeats 1", "one wording", "24 answers", "6 answers"):
    words[arm] = verdict(clean, told.measured("greedy_again", arm=arm), "higher", arm)
words["plan"] = verdict(clean, told.measured("greedy_again", arm="plan"), "lower", "plan")
for part in ("unknown", "strange"):
    words[part] = verdict(clean, told.measured(f"{part}_again", **usual), "higher", part)
assert words["repeats 0.5"] == words["repeats 1"] == "held"
assert all(words[arm] == "not shown" for arm in ("repeats 0.2", "one wording", "24 answers"))
assert all(words[arm] == "not shown" for arm in ("6 answers", "plan", "unknown", "strange"))

# %% [markdown]
# **Read.** When half of the training answers repeat, nine of ten greedy answers do: *held*. Greedy
# decoding makes more of it than the data hold; sampling makes less. Up to a fifth nothing is shown.
# *Not shown* too: one wording for every fact, or 24 or 6 answers seen again and again. Their means
# point the other way. Domain shift: about entities that the base never read, and subjects outside
# of Atlas, it repeats more with every seed, but the seeds scatter too much for the word. The same
# holds for a remedy: a plan in front, a line that names the five relations.

# %%
for arm in ("repeats 0", "one wording", "24 answers", "6 answers", "repeats 1"):
    row = [
        torch.tensor(told.measured(key, arm=arm)).mean().item()
        for key in ("top", "tail", "close", "strange_close", "greedy_again")
    ]
    print(
        f"{arm:12} top token {row[0]:.2f}, beyond ten {row[1]:.1%}, cosine of states "
        f"{row[2]:.3f} (strange {row[3]:.3f}), says again {row[4]:.0%}"
    )

# %% [markdown]
# **Read.** One wording makes the model surer and cuts the tail by half, and it does not repeat
# more. So neither over-confidence nor a suppressed tail is enough by itself; where a *decoder*
# sharpens the distribution, section 2 showed the effect. Different questions do lead to nearly one
# hidden state here, in every arm, whether it repeats or not: semantic collapse is *not shown* as a
# cause.
#
# ## 6 · "It does not stop" is another disease
#
# A model without a stop token runs on, and what runs on repeats in the end. People then turn up a
# repetition penalty, which cannot help. Four signs tell the cases apart. `ends`: the share of
# greedy texts that end by themselves. `p_end`: the probability of the end token behind a *right*
# text. `greedy_again` and `sampled_again`: the share of texts in which a sentence stands twice, cut
# to the length of the right text, for greedy decoding and at T 1.

# %%
healthy = read_signs(tuned, tokenizer, *ask_to_tell(48, tokenizer, seed=1))
patients = read_patients()
for name, signs in {"healthy": healthy, **patients}.items():
    print(f"{name:8}", "  ".join(f"{sign} {value:.2g}" for sign, value in signs.items()))
assert patients["C"]["p_end"] < 1e-3 < 0.2 < min(patients[p]["p_end"] for p in "AB")
assert healthy["sampled_again"] < 0.35 < patients["A"]["sampled_again"]

# %% [markdown] tags=["exercise"]
# ### Exercise 14.4 · Name the disease · 10 min · ●●○
# Write a doctor. `signs` has the four keys above. Return one of four words:
#
# - `"no stop token"`: where the right text ends, the end token is out of reach;
# - `"learned to repeat"`: it can end, and repeats however it is decoded;
# - `"decoding"`: it can end, and repeats under greedy decoding alone;
# - `"healthy"`: it can end, and repeats in neither way.
#
# No sign is near its border: `p_end` is below 0.001 or at least 0.2, and a share that counts as
# "repeats" is at least 0.35, one that does not at most 0.2. A loop can keep a text from ending,
# whatever the model learned. A model without a stop token may repeat or not; a model that repeats
# when sampled does so when greedy, too. The check also asks about A, B and C.


# %% tags=["stub"]
def diagnose(signs: dict[str, float]) -> str:
    """The disease behind the four signs."""
    raise NotImplementedError


# %% tags=["solution"]
def diagnose(signs: dict[str, float]) -> str:
    """The disease behind the four signs."""
    if signs["p_end"] < 0.01:
        return "no stop token"
    if signs["sampled_again"] > 0.3:
        return "learned to repeat"
    return "decoding" if signs["greedy_again"] > 0.3 else "healthy"


# %% tags=["check"]
check("14.4", diagnose)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Ask three questions, one after the other. Which one does a loop not
# disturb?</details>

# %% [markdown] tags=["explanation"]
# A learned from answers that all repeat. B is the base, greedy on open text: its cure is another
# decoding. C never had its stop token graded: its cure is the label mask of chapter 03.
#
# In published reports of "endless repetition" the cause was often of C's kind: padding set equal to
# the end token, so that the mask hid both; packed rows; truncated answers.
#
# Usual mistakes: judging by `ends`, which a loop spoils; judging by greedy texts alone.

# %% [markdown]
# ## 7 · A remedy in training, and its price
#
# **Unlikelihood training** (Welleck et al.) adds a loss that *lowers* some probabilities:
# $-\ln(1 - p)$ for each token $c$ that shall not come. At the *token* level these are the tokens
# that stood earlier in the text, without the right one:
#
# $$L = \text{NLL} + \alpha\,\frac{1}{N}\sum_t \sum_{c \in C_t} -\ln\bigl(1 - p_t(c)\bigr), \qquad
# C_t = \{x_1, \dots, x_{t-1}\} \setminus \{x_t\}.$$

# %% [markdown] tags=["exercise"]
# ### Exercise 14.5 · Unlikelihood · 14 min · ●●●
# Return the second term without its $\alpha$: a scalar tensor, in nats. `logits`: (B, T, V);
# `labels`: (B, T), −100 where a token is not graded. Row t of the logits predicts token t + 1. The
# graded tokens are those of `labels[:, 1:]` that are not −100; N is their number, over all rows.
# The candidates of a graded token are the *different* labels other than −100 at earlier places of
# the same row, except the token itself. Token 0 is a token like any other. No $p$ is 1.


# %% tags=["stub"]
def unlikelihood(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the graded tokens of the sum of -ln(1 - p) over their candidates."""
    raise NotImplementedError


# %% tags=["solution"]
def unlikelihood(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the graded tokens of the sum of -ln(1 - p) over their candidates."""
    cost = -torch.log1p(-logits.softmax(-1))
    total, graded = logits.new_zeros(()), 0
    for row, line in enumerate(labels.tolist()):
        seen: set[int] = set()
        for t, target in enumerate(line):
            if target == -100:
                continue
            if t > 0:
                graded += 1
                total = total + cost[row, t - 1, sorted(seen - {target})].sum()
            seen.add(target)
    return total / graded


# %% tags=["check"]
check("14.5", unlikelihood)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Two loops will do: over the rows, and over the places of a row with
# the set of tokens seen so far. <code>log1p(-p)</code> is ln(1 − p).</details>

# %% [markdown] tags=["explanation"]
# The published code has two traps that this form avoids. There, rows are laid end to end, so that
# tokens of one text are candidates in the next, and the padding token becomes a candidate. Its
# search for repeated n-grams, at the sequence level, loops over `range(len(x) - n)` and never sees
# the last one.
#
# Usual mistakes: punishing the right token when it is a repeat; −100 turned into token 0 by
# `clamp`; a token that stood twice counted twice.

# %%
_ = torch.manual_seed(0)
logits, labels = torch.randn(2, 9, 30), torch.randint(0, 30, (2, 9))
labels[:, :3] = -100
rest = [torch.log1p(-logits[0, t - 1].softmax(-1)) for t in range(9)]
row = labels[0].tolist()
first = -sum(rest[t][list({*row[3:t]} - {row[t]})].sum() for t in range(3, 9)) / 6
assert_close(unlikelihood_loss(logits[:1], labels[:1]), first)
marked = mark_repeats([1, 2, 3, 9, 1, 2, 3], 3)
print("in a 3-gram that stood before:", marked)
assert marked == [False] * 4 + [True] * 3  # the last n-gram is seen

# %% [markdown]
# At the *sequence* level the model writes, greedily, after a few tokens, and every token of a
# repeated 4-gram in its own text is made less likely. We train the base 30 steps on plain text:
# with likelihood alone, with the token level, and with the sequence level at three strengths.
#
# **Predict.** Plain text hardly repeats. What does training on it do to greedy repetition, with
# likelihood alone: more or less?

# %% tags=["predict"]
runs = read_results("14_unlikelihood", base)
order = [("before", 0.0), ("none", 0.0), ("token", 1.0)]
order += [("sequence", strength) for strength in (0.1, 0.3, 1.0)]
label = {"before": "the base", "none": "likelihood alone"}
for level, strength in order:
    row = [
        torch.tensor(runs.measured(key, level=level, strength=strength)).mean().item()
        for key in ("rep4", "loops", "nll", "facts")
    ]
    name = label.get(level, f"{level} level, α {strength:g}")
    print(
        f"{name:22} rep-4 {row[0]:.2f}, loops {row[1]:.0%}, loss {row[2]:.2f}, facts {row[3]:.0%}"
    )

# %% tags=["predict", "folded"]
arms = (("before", 0.0), ("none", 0.0), ("sequence", 1.0))
before, alone, strong = ({"level": level, "strength": strength} for level, strength in arms)
for first, second, measure, claim, what in (
    (before, alone, "rep4", "higher", "likelihood over the base, rep-4"),
    (alone, strong, "rep4", "lower", "sequence α 1 over likelihood, rep-4"),
    (alone, strong, "nll", "higher", "sequence α 1 over likelihood, loss"),
):
    both = (runs.measured(measure, **arm) for arm in (first, second))
    assert verdict(*both, claim, what) == "held"

# %% tags=["predict", "folded"]
ax = plots.new_figure((7.5, 4.2)).subplots()
for (level, strength), colour in zip(order, plots.CYCLE, strict=True):
    setting = {"level": level, "strength": strength}
    name = label.get(level, f"{level} level, α {strength:g}")
    x, y = runs.measured("nll", **setting), runs.measured("rep4", **setting)
    ax.scatter(x, y, color=colour, s=60, label=name, edgecolor=plots.INK)
ax.set(xlabel="loss on plain text (nats per token)", ylabel="repeated 4-grams, greedy")
ax.set(ylim=(0, 1), title="Less repetition is paid for with loss")
_ = ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

# %% [markdown]
# **Read.** Likelihood alone lowers the loss and *raises* greedy repetition: *held*. So the
# objective is a cause here, although its texts hardly repeat. At α 1 the sequence level cuts
# repetition by more than half: *held*. It costs a third of a nat and seven facts of a hundred:
# *held* too. Weaker ones, and the token level, are *not shown*: in Atlas most earlier tokens
# ("the", "of") are needed again. Cheaper cures come first: remove repeats from the data, or decode
# otherwise (chapter 14b).

# %% [markdown] tags=["exercise"]
# ### Exercise 14.6 · Make a sampler loop · 12 min · ●●○
# Sampling at T 1 repeated little. Break it: find a `beginning`, a text of at most 60 tokens, after
# which the *base* repeats at least 25 % of its 4-grams over 80 tokens at T 1, on average over 48
# texts. An ordinary beginning gives about 5 %. Try your texts with the cell above the check, or
# with `write_on` and `measure_rows`.

# %% tags=["stub"]
beginning = ...

# %% tags=["solution"]
beginning = "\n".join(["The capital of Kenya is Nairobi."] * 5)

# %% tags=["check"]
check("14.6", beginning)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Copies on one line do little. In the text that the base read, some
# documents are lines of one form.</details>

# %% [markdown] tags=["explanation"]
# The form decides. On one line, a document of Atlas goes on to another fact. Below each other,
# lines of a document share their form, and the next line is expected to be like the last. One kind
# of document says lines again, and the sampler follows. So a few pasted lines in a prompt can start
# a loop that no temperature of 1 prevents.
#
# Usual mistakes: copies on one line; lists of names, whose lines differ in the data.

# %% [markdown]
# ## What to remember
#
# | group of causes | switched | what came out |
# |---|---|---|
# | data | half of the answers repeat | *held* |
# | | one wording; few answers; outside the domain | *not shown* |
# | decoding | greedy, low T, small k, small p | *held* |
# | confidence | surer, less tail, states alike | *not shown* |
# | attention | heads that copy, off | base *not shown*, real model *held* |
# | | prompt words; thinning out | *not shown* |
# | memory, plan | 8 tokens in view; a plan in front | *not shown* |
# | objective, metric | likelihood alone; loss of a circle | *held* |
#
# - With dozens of verdicts a few are luck. A model of a million parameters with 3 to 5 seeds
#   shows large effects alone.
# - Perplexity does not see repetition: it likes circles best.
# - A sentence that was said is likelier to be said again; in a real model each copy adds to it,
#   by heads that copy.
# - Ask first whether the end token is within reach. Then sample what is greedy. Only then look at
#   the data, or train.
#
# ## Sources
#
# - A. Holtzman et al., *The Curious Case of Neural Text Degeneration*, 2019, arXiv:1904.09751.
# - S. Welleck et al., *Neural Text Generation with Unlikelihood Training*, 2019, arXiv:1908.04319.
# - J. Xu et al., *Learning to Break the Loop: Analyzing and Mitigating Repetitions for Neural Text
#   Generation* (DITTO), 2022, arXiv:2206.02369.
# - C. Olsson et al., *In-context Learning and Induction Heads*, 2022, arXiv:2209.11895.
#
# <details><summary>中文要点</summary>
#
# 1. **复读**分字、短语、句、段四级；rep-n = 重复 n-gram 的比例，最后一个 n-gram 也要算。困惑度看不出复读：循环文本的损失最低。
#
# 2. **解码**：贪婪、束搜索、低温、小 k、小 p 都会复读；T 1 采样几乎不会。束搜索并不比贪婪更严重。
#
# 3. **自我强化**：说过一次的句子更容易再说。小模型只有一次跳跃；SmolLM2-135M 每多一遍概率都更高，到 0.9。**归纳头**（induction
# head）负责抄写：关掉它们，真实模型的复读减少，小模型则未显示。
#
# 4. **数据**：一半训练回答重复时，贪婪回答九成复读；措辞单一、样本少、领域偏移、过度自信、注意力稀释、无规划在这里都未显示。**似然目标**本身会加重复读。
#
# 5. **“停不下来”是另一种病**：先看正确答案末尾停止符的概率。**非似然训练**（unlikelihood）有效，但要付出损失和事实的代价。
#
# </details>
