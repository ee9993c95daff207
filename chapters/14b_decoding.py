# %% [markdown]
# # 14b · Bending the logits
#
# **The question.** A model gives a score to every token; something else decides which token is
# written. Which of these decisions cures repetition, and what does each cost in right answers?
#
# **By the end you can**
# - *write* the common logits processors yourself, and check them against transformers;
# - *explain* why a repetition penalty depends on an arbitrary constant, and why it delays the end
#   of an answer;
# - *choose* a setting for answers and another for open text, from measurements.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapters 01, 05 and 14 | CPU, no network | about 45 s | 6, about 57 minutes | D8 B9 |

# %% tags=["setup"]
import numpy as np
import torch
import transformers as hf

from sft_lab import atlas, plots
from sft_lab.chat import generate_responses
from sft_lab.course import decoding_runs as runs
from sft_lab.course.checks import check
from sft_lab.course.results import read_results
from sft_lab.course.views import decoding as view
from sft_lab.course.views.widgets import show_widget
from sft_lab.decoding import (
    FrequencyPenalty,
    MinP,
    NoRepeatNgram,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    beam_search,
)
from sft_lab.metrics import repeated_share
from sft_lab.models import load
from sft_lab.significance import judge_claim

# %% tags=["setup"]
plots.style()
base, tokenizer = load("atlas-base")
facts = atlas.split(atlas.load_facts())

# %% [markdown]
# ## 1 · From logits to a token
#
# **Decoding** is everything between the model's scores and the text. A **logits processor** takes
# the tokens so far and the logits of the next one, and returns new logits. Only then comes the
# softmax. A forbidden token gets the logit −∞, so its probability is 0.

# %%
_ = view.draw_way()

# %% [markdown]
# We look at one real step: the base has read "The capital of Kenya is Nairobi." and goes on.

# %%
text = view.Text.begin("The capital of Kenya is Nairobi.", tokenizer)
logits = view.read_logits(base, text)
for token_id in logits.topk(6).indices:
    chance = logits.softmax(0)[token_id]
    print(f"{tokenizer.decode([token_id])!r:16} logit {logits[token_id]:5.2f}   p = {chance:.3f}")

# %% [markdown]
# The simplest three processors take one line each. **Temperature** divides all logits. **Top-k**
# keeps the k likeliest tokens. **Min-p** keeps tokens at least so many times as likely as the
# likeliest one. A fourth, **top-p**, keeps the likeliest tokens until their sum reaches p.
#
# **Predict.** How many of the 2,048 tokens are left after top-k 5, after min-p 0.1, and after
# top-p 0.9? Could one of the three forbid the likeliest token?


# %%
def heat(logits, temperature):
    """Logits at another temperature."""
    return logits / temperature


def keep_top_k(logits, k):
    """All but the k likeliest tokens forbidden."""
    return logits.masked_fill(logits < logits.topk(k).values[-1], -torch.inf)


def keep_min_p(logits, min_p):
    """Tokens less than min_p times as likely as the likeliest one forbidden."""
    p = logits.softmax(0)
    return logits.masked_fill(p < min_p * p.max(), -torch.inf)


# %% [markdown]
# `sft_lab.decoding` has the same for batches. All of it must agree with transformers:

# %%
ids, scores = torch.tensor([text.ids]), logits[None]
torch.testing.assert_close(heat(logits, 0.7), Temperature(0.7)(ids, scores)[0])
torch.testing.assert_close(keep_top_k(logits, 5), TopK(5)(ids, scores)[0])
torch.testing.assert_close(keep_min_p(logits, 0.1), MinP(0.1)(ids, scores)[0])
for ours, theirs in {
    Temperature(0.7): hf.TemperatureLogitsWarper(0.7),
    TopK(5): hf.TopKLogitsWarper(5),
    TopP(0.9): hf.TopPLogitsWarper(0.9),
    MinP(0.1): hf.MinPLogitsWarper(0.1),
}.items():
    torch.testing.assert_close(ours(ids, scores), theirs(ids, scores))

# %% tags=["predict"]
bent = {
    name: view.bend(logits, text, [processor])
    for name, processor in {
        "T 2": Temperature(2.0),
        "top-k 5": TopK(5),
        "min-p 0.1": MinP(0.1),
        "top-p 0.9": TopP(0.9),
    }.items()
}
for name, after in bent.items():
    print(f"{name:10} {int(after.isfinite().sum()):5,} tokens left")
_ = view.draw_step(tokenizer, text, logits, bent, "One step under four processors")
assert [int(bent[name].isfinite().sum()) for name in ("T 2", "top-k 5")] == [2048, 5]
assert bent["min-p 0.1"].isfinite().sum() < bent["top-p 0.9"].isfinite().sum()

# %% [markdown]
# **Read.** Temperature forbids nothing: a flat tail of thousands of tokens gains together, which
# matters more than each of them. Filters cut that tail and leave the logits of the rest as they
# are. None of the three can forbid the likeliest token. The tests repeat the comparison with
# transformers on 600 random cases for each processor, and find no difference.

# %% [markdown] tags=["exercise"]
# ### Exercise 14b.1 · The token that crosses p · 10 min · ●●○
# Write top-p. `logits` is a tensor (V,) of floats; some may be −∞ already, the others differ from
# each other; 0 < p < 1. Keep the likeliest tokens, the likeliest first, until the sum of their
# probabilities (softmax of all logits) reaches p or more. The token with which it does so is kept.
#
# Return a new tensor (V,): kept tokens with their logit unchanged, all others −∞. No sum in the
# check lies so close to p that rounding decides.


# %% tags=["stub"]
def keep_top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """The likeliest tokens whose probabilities reach p; all others forbidden."""
    raise NotImplementedError


# %% tags=["solution"]
def keep_top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """The likeliest tokens whose probabilities reach p; all others forbidden."""
    probabilities, order = logits.softmax(0).sort(descending=True)
    before = probabilities.cumsum(0) - probabilities  # the sum of the likelier ones
    return logits.index_fill(0, order[before >= p], -torch.inf)


# %% tags=["check"]
check("14b.1", keep_top_p)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Sort the probabilities and add them up. A token stays when the sum
# of those before it is still below p. `sort` returns the places as well.</details>

# %% [markdown] tags=["explanation"]
# Whether a token stays depends on what stands before it, not on the sum with it.
#
# Usual mistakes: the crossing token is dropped, and p = 0.2 leaves nothing where the likeliest has
# 0.5; the mask stays in sorted order; each probability is compared with p.

# %% [markdown]
# ### Does the order matter?
#
# **Predict.** Temperature 2 before a filter, or after it: for which of top-k and top-p do other
# tokens stay?

# %% tags=["predict"]
kept = {}
for cut in (TopK(5), TopP(0.9), MinP(0.1)):
    first = view.bend(logits, text, [Temperature(2.0), cut]).isfinite().sum()
    last = view.bend(logits, text, [cut, Temperature(2.0)]).isfinite().sum()
    kept[type(cut).__name__] = (int(first), int(last))
    print(f"{cut}: {first:5,} tokens after T 2, {last:5,} before it")
assert kept["TopK"][0] == kept["TopK"][1] and kept["TopP"][0] > 2 * kept["TopP"][1]

# %% [markdown]
# **Read.** Temperature keeps the order of tokens, and top-k looks at the order alone. Top-p and
# min-p look at probabilities. transformers applies penalties first, then temperature, then
# filters; other programs differ. "T 2, top-p 0.9" is therefore no complete description.
#
# One more trap: with `do_sample=True`, transformers also cuts to the 50 likeliest tokens unless
# told `top_k=0`. All draws below are told so.

# %% [markdown]
# ## 2 · Penalties: three numbers
#
# A penalty lowers tokens that were said. The text this course grew from proposes to multiply their
# logits by a factor such as 0.9. The usual rule (Keskar, 2019) divides positive logits by a
# penalty and multiplies negative ones. Both are tried on token 0 of a tiny vocabulary.
#
# Adding a constant to all logits changes no probability. So the three rows below are the *same*
# distribution: p₀ = 0.568.
#
# **Predict.** In which of the three rows does "multiply by 0.9" make the repeat *more* likely?


# %%
def multiply(logits, token_id, factor):
    """The rule of the text: a smaller logit, if it is positive."""
    return logits.index_copy(0, torch.tensor([token_id]), logits[[token_id]] * factor)


def punish(logits, token_id, penalty):
    """Keskar's rule: divide what is positive, multiply what is negative."""
    return multiply(logits, token_id, 1 / penalty if logits[token_id] > 0 else penalty)


# %% tags=["predict"]
tiny = torch.tensor([3.0, 2.5, 1.0, -1.0])
table = {}
for shift in (0.0, -4.0, 4.0):
    shifted = tiny + shift
    rules = {
        "as it is": shifted,
        "times 0.9": multiply(shifted, 0, 0.9),
        "penalty 1.2": punish(shifted, 0, 1.2),
        "minus 0.5": shifted - torch.tensor([0.5, 0.0, 0.0, 0.0]),
    }
    table[shift] = {name: rule.softmax(0)[0].item() for name, rule in rules.items()}
    print(f"logits {shift:+.0f}: ", {name: f"{p:.3f}" for name, p in table[shift].items()})
by_shift = [[table[shift][rule] for shift in table] for rule in ("penalty 1.2", "minus 0.5")]
assert table[-4.0]["times 0.9"] > table[-4.0]["as it is"] > table[-4.0]["penalty 1.2"]
assert np.ptp(by_shift[0]) > 0.2 and np.ptp(by_shift[1]) < 1e-5

# %% [markdown]
# **Read.** Multiplying a negative logit by 0.9 *raises* it: a reward for repeats. This bug once
# stood in transformers (issue 2302). Dividing or multiplying by the sign repairs the direction, not
# the strength: one penalty, 1.2, gives 0.44, 0.52 or 0.29, depending on a constant that means
# nothing. So a penalty that suits one model says little about another. **Subtracting** does not
# depend on it. The frequency penalty subtracts for every time a token was said, the presence
# penalty once.
#
# Beam search in transformers hands log-probabilities to its processors. They are all negative: the
# same `repetition_penalty` acts differently there.

# %%
theirs = hf.RepetitionPenaltyLogitsProcessor(1.3)
torch.testing.assert_close(RepetitionPenalty(1.3)(ids, scores), theirs(ids, scores.clone()))
after = punish(logits, text.ids[0], 1.3)[text.ids[0]]
torch.testing.assert_close(after, RepetitionPenalty(1.3)(ids, scores)[0, text.ids[0]])

# %% [markdown] tags=["exercise"]
# ### Exercise 14b.2 · Subtract · 7 min · ●○○
# `logits` is a tensor (V,) of floats, `written` the list of token ids written so far (0 ≤ id < V;
# it may be empty, and an id may stand there often). For every token id that stands in `written` n
# times, n ≥ 1, subtract `frequency` · n + `presence` from its logit. Both numbers may be negative.
# Return a new tensor (V,); the given one stays as it is.


# %% tags=["stub"]
def subtract_penalties(
    logits: torch.Tensor, written: list[int], frequency: float, presence: float
) -> torch.Tensor:
    """Logits less a penalty for each time, and one for being there at all."""
    raise NotImplementedError


# %% tags=["solution"]
def subtract_penalties(
    logits: torch.Tensor, written: list[int], frequency: float, presence: float
) -> torch.Tensor:
    """Logits less a penalty for each time, and one for being there at all."""
    bent = logits.clone()
    for token_id in set(written):
        bent[token_id] -= frequency * written.count(token_id) + presence
    return bent


# %% tags=["check"]
check("14b.2", subtract_penalties)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Go through the different ids, `set(written)`, and count
# each.</details>

# %% [markdown] tags=["explanation"]
# A word that the text needs often, such as "the", pays the frequency penalty again and again; the
# presence penalty is paid once. `FrequencyPenalty` and `PresencePenalty` leave the prompt out.
#
# Usual mistakes: one subtraction for each token in both; token id 0 skipped by `if token_id`; a
# change to the given tensor.

# %% [markdown] tags=["exercise"]
# ### Exercise 14b.3 · Which processor was it? · 12 min · ●●○
# An answer went wrong, and all that is left of a step are its logits `before` and `after` (V,) and
# the set of ids that were `said`. Exactly one processor worked. Return its name:
#
# - `"temperature"`: all finite logits divided by one number, not 1;
# - `"filter"`: some tokens newly forbidden (−∞), the rest unchanged;
# - `"repetition"`: said tokens divided (positive) or multiplied (negative) by one number above 1;
# - `"presence"`: one positive number subtracted from each said token.
#
# At least three finite tokens were said, with different logits of both signs; at least one finite
# token was not said, and no finite logit is 0. A logit may be −∞ before.


# %% tags=["stub"]
def name_processor(before: torch.Tensor, after: torch.Tensor, said: set[int]) -> str:
    """ "temperature", "filter", "repetition" or "presence"."""
    raise NotImplementedError


# %% tags=["solution"]
def name_processor(before: torch.Tensor, after: torch.Tensor, said: set[int]) -> str:
    """ "temperature", "filter", "repetition" or "presence"."""
    finite = before.isfinite()
    if not after[finite].isfinite().all():
        return "filter"
    change = (after - before)[finite]
    is_said = torch.tensor([i in said for i in range(len(before))])[finite]
    if change[~is_said].abs().max() > 1e-6:
        return "temperature"
    lowered = change[is_said]
    return "presence" if lowered.max() - lowered.min() < 1e-6 else "repetition"


# %% tags=["check"]
check("14b.3", name_processor)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>What did each of them leave as it was? Ask for new −∞ first, then
# whether a token changed that was never said. Compare only finite logits: −∞ − (−∞) is not a
# number.</details>

# %% [markdown] tags=["explanation"]
# A difference that is the same for all said tokens is a subtraction; a penalty by division moves
# large logits further.
#
# Usual mistakes: differences of −∞, which are nan; comparing ratios across signs.

# %% [markdown]
# ## 3 · The penalty counts the prompt
#
# In transformers, "said" includes the prompt. In a chat, the prompt ends the user's turn with
# `<|im_end|>`: the very token that should end the answer. So the penalty falls on the stop token
# before a word is written.
#
# Hypothesis (primary): under a repetition penalty of 1.5, answers that count the prompt end by
# themselves **less often** than answers under the same penalty that leaves it out. Measured on
# `smollm2-135m`, a real chat model (8 questions for each of three seeds, at most 60 tokens), and
# on the tuned atlas (40 lists of words to write).
#
# **Predict.** Which share of smollm2's answers still ends within 60 tokens?

# %% tags=["predict"]
smollm = read_results("14b_smollm2")
print(f"RECORDED on {smollm.made} by {smollm.command}; not run here")
settings = read_results("14b_settings", base)
recorded = {"smollm2-135m": smollm, "tuned atlas, lists": settings}
for name, results in recorded.items():
    for counted in runs.COUNTED:
        arm = {"use": "stops", "penalty": 1.5, "counted": counted}
        tokens = np.mean(results.measured("tokens", **arm))
        print(f"{name:20} penalty 1.5, {counted:24} {tokens:4.0f} tokens an answer")

# %% tags=["predict", "folded"]
_ = view.draw_stops(
    recorded, "stops", "answers that end (share)", "With the prompt counted, answers go on"
)


# %% tags=["predict"]
def compare_stops(results, penalty):
    """The verdict on the hypothesis at one penalty."""
    arm = {"use": "stops", "penalty": penalty}
    return judge_claim(
        results.measured("stops", **arm, counted="answer alone"),
        results.measured("stops", **arm, counted="prompt and answer"),
        claim="lower",
    )


ends = {}
for name, results in recorded.items():
    for penalty in (1.2, 1.5):
        verdict = ends[name, penalty] = compare_stops(results, penalty)
        print(f"{name:20} penalty {penalty}: {verdict.word} ({verdict.mean:+.0%}, ", end="")
        print(f"noise floor {verdict.floor:.0%})")
for setting in ("repetition 1.5", "repetition 1.5, answer alone"):
    share = np.mean(settings.measured("right list", use="answers", setting=setting))
    print(f"tuned atlas, {setting}: {share:.0%} of the lists right")
assert max(ends["smollm2-135m", 1.5].effects) < 0 and ends["smollm2-135m", 1.2].word == "held"
assert ends["smollm2-135m", 1.5].word == "not shown"
assert not any(smollm.measured("stops", use="stops", penalty=1.5, counted="prompt and answer"))

# %% [markdown]
# **Read.** On smollm2 no answer ends any more at 1.5 with the prompt counted. Every seed agrees,
# but the other arm varies so much between them that our rule says "not shown". At 1.2, a usual
# setting, the effect stands clear: "held". The blue line shows the reason: with the stop token
# alone spared, answers end as before. Nothing else of the prompt matters for the end.
#
# The tuned atlas is surer of its stop token, so it ends most lists even at 1.5. What the prompt
# costs there is copying: the words to be listed stand in it.

# %%
tuned = runs.tune(base, tokenizer, facts, seed=0)
questions = [talk[:-1] for talk in runs.make_exam(facts)["list"]]
for counted in ("prompt and answer", "answer alone"):
    here = runs.measure_stops(tuned, tokenizer, questions, 1.5, counted)["stops"]
    band = settings.measured("stops", use="stops", penalty=1.5, counted=counted)
    print(f"{counted:18} {here:.0%} here; recorded {min(band):.0%} to {max(band):.0%}")
    assert min(band) - 0.15 <= here <= max(band) + 0.15

# %% [markdown]
# In transformers, `RepetitionPenaltyLogitsProcessor(1.2, prompt_ignore_length=n)` leaves the first
# n tokens out; the argument `repetition_penalty=` of `generate` cannot. Ours is told by
# `generate_responses` where each prompt ends, and never counts padding:

# %%
said = {
    prompt: generate_responses(
        tuned, tokenizer, questions, processors=[RepetitionPenalty(1.5, prompt=prompt)]
    )
    for prompt in (True, False)
}
place = next(i for i in range(len(questions)) if said[True][i] != said[False][i])
print(questions[place][0]["content"])
for prompt in (True, False):
    print(f"\nprompt counted: {prompt}\n{said[prompt][place]}")

# %% [markdown]
# ## 4 · Blocking n-grams
#
# The strictest remedy forbids every run of n tokens that stood there before. It cures repetition by
# force: no n-gram can occur twice. But some right answers must repeat: a name of the question, the
# marks of a list or of JSON.
#
# Hypothesis: a 3-gram block lowers the share of right answers by more than half.
#
# **Predict.** "The capital of Kenya is Nairobi." answers "What is the capital of Kenya?". Which
# token of this answer is the first that a 3-gram block forbids?

# %% tags=["predict"]
blocked = NoRepeatNgram(3)
print(generate_responses(tuned, tokenizer, ["What is the capital of Kenya?"], processors=[blocked]))
kinds = ("right", "right facts", "right list", "right json", "right sum")
blocks = ("greedy", "4-gram block", "3-gram block", "2-gram block", "3-gram block, answer alone")
_ = plots.share_table(
    {
        name: [np.mean(settings.measured(k, use="answers", setting=name)) for k in kinds]
        for name in blocks
    },
    ["all", "facts", "lists", "JSON", "sums"],
    title="Right answers under a block of n-grams",
)
loss = judge_claim(
    settings.measured("right", use="answers", setting="greedy"),
    settings.measured("right", use="answers", setting="3-gram block"),
    claim="lower",
)
print(f"a 3-gram block costs right answers: {loss.word} ({loss.mean:+.0%})")
longer = judge_claim(
    settings.measured("right", use="answers", setting="2-gram block"),
    settings.measured("right", use="answers", setting="4-gram block"),
    claim="higher",
)
print(f"longer n-grams cost less: {longer.word} ({longer.mean:+.0%})")
assert loss.word == longer.word == "held" and loss.mean < -0.5

# %% [markdown]
# **Read.** The answer may begin "The capital of", for no three tokens in a row stand there yet.
# Then " Kenya" is forbidden, because "capital of Kenya" stands in the question: the model names
# another country. Right answers fall from 83 % to 14 %: a name cannot be said after it was asked
# about. Leave the prompt out, and nearly all return.
#
# The text this course grew from says that a small n controls weakly and a large n restricts too
# much. It is the other way round: a block of 2 forbids far more than a block of 4.

# %% [markdown] tags=["exercise"]
# ### Exercise 14b.4 · Can the right answer be written at all? · 10 min · ●●○
# `prompt` and `answer` are lists of token ids (each may be empty), n ≥ 1. The answer is written
# token by token behind the prompt. A block of n forbids a token if the n tokens that end with it
# stood together, in the same order, before: in the prompt, in the answer, or across the seam.
# The two runs may overlap.
#
# Return the place in `answer` (from 0) of the first forbidden token, or None if the whole answer
# may be written.


# %% tags=["stub"]
def first_forbidden(prompt: list[int], answer: list[int], n: int) -> int | None:
    """Where a block of n-grams stops this answer; None if nowhere."""
    raise NotImplementedError


# %% tags=["solution"]
def first_forbidden(prompt: list[int], answer: list[int], n: int) -> int | None:
    """Where a block of n-grams stops this answer; None if nowhere."""
    whole, seen = prompt + answer, set()
    for end in range(n, len(whole) + 1):
        gram = tuple(whole[end - n : end])
        if gram in seen and end > len(prompt):
            return end - 1 - len(prompt)
        seen.add(gram)
    return None


# %% tags=["check"]
check("14b.4", first_forbidden)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Walk over prompt + answer once and remember the n-grams that you
# passed. A repeat inside the prompt forbids nothing.</details>

# %% [markdown] tags=["explanation"]
# With it, an exam can be checked before a block is switched on: how many of its right answers could
# not be written?
#
# Usual mistakes: only n-grams of the prompt, or only of the answer; places counted from the
# beginning of the prompt; a repeat inside the prompt reported.

# %% [markdown]
# Try all of them on a growing text. Bold tokens were said before; a cross marks a forbidden one.

# %%
prompts = ["The raccoon:", "Kenya", "Venus", "The capital of Kenya is Nairobi."]
start = view.Text.begin(prompts[0], tokenizer)
first = view.read_logits(base, start)
still = view.draw_step(tokenizer, start, first, {"nothing": first}, "The next step")
show_widget(view.explore_decoding(base, tokenizer, prompts), still)

# %% [markdown]
# ## 5 · Beams: the likeliest text
#
# Greedy decoding takes the likeliest *token*; that need not lead to the likeliest *text*. **Beam
# search** keeps the best few beginnings side by side. Finished texts are compared by the sum of
# their log-probabilities, divided by their number of tokens to the power of `length_penalty`.
#
# **Predict.** A sum of log-probabilities falls with every token. Which texts win with
# `length_penalty=0`, and does a *larger* value favour longer or shorter ones?

# %% tags=["predict"]
prompt = tokenizer("Venus").input_ids
how = {"stop_ids": [tokenizer.eos_token_id, tokenizer.pad_token_id], "max_new_tokens": 40}
texts = {}
for beams, penalty in ((1, 1.0), (4, 0.0), (4, 1.0), (4, 2.0)):
    found = beam_search(base, prompt, beams=beams, length_penalty=penalty, **how)
    texts[beams, penalty] = found.ids
    total = found.score * len(found.ids) ** penalty
    print(f"beams {beams}, length penalty {penalty}: {len(found.ids)} tokens, sum {total:.2f}")
    print("   ", tokenizer.decode(found.ids))
repeats = {key: repeated_share(ids, 4) for key, ids in texts.items()}
assert len(texts[4, 0.0]) < 20 < len(texts[4, 1.0])
assert repeats[4, 0.0] < 0.1 < min(repeats[4, 1.0], repeats[1, 1.0])

# %% [markdown]
# **Read.** The plain sum prefers short texts: four beams end after one sentence. On large models
# more than half of the very best texts are empty (Stahlberg and Byrne). So the default divides by
# the length. That turns the preference round: a repeated sentence costs nearly nothing for each of
# its tokens, and the *mean* improves with every repeat. Beams then write what greedy decoding
# writes, and they do so because they search well. A larger "penalty" rewards length.
#
# Our loop finds what transformers finds, here and on 300 random small models in the tests:

# %%
theirs = base.generate(
    torch.tensor([prompt]),
    num_beams=4,
    max_new_tokens=40,
    do_sample=False,
    eos_token_id=how["stop_ids"],
    pad_token_id=tokenizer.pad_token_id,
)
assert theirs[0, len(prompt) :].tolist() == texts[4, 1.0]

# %% [markdown]
# <details><summary>For the curious: typical and contrastive search</summary>
#
# **Typical** decoding keeps tokens whose surprise is close to the mean surprise of the step; the
# likeliest token may be dropped. **Contrastive search** takes, among the k likeliest candidates,
# the one with the best (1 − α) · probability − α · echo, where the echo is the largest cosine
# between its hidden state and that of any earlier token. It needs the model again for every
# candidate. transformers 5 moved it out of the library; `sft_lab.decoding.contrastive_search` is a
# loop of 15 lines that a test compares with this definition. Both stand in the figure below.
# </details>

# %% [markdown] tags=["exercise"]
# ### Exercise 14b.5 · Where the longer text wins · 8 min · ●●○
# Two finished texts have the sums of log-probabilities `short_sum` and `long_sum` (both negative,
# `long_sum` ≤ `short_sum`) and `short` < `long` tokens. Each scores sum / tokens ** length_penalty.
# Return, as a float, the length penalty at which both scores are equal. Above it the longer text
# wins.


# %% tags=["stub"]
def find_crossing(short_sum: float, short: int, long_sum: float, long: int) -> float:
    """The length penalty at which a short and a long text score the same."""
    raise NotImplementedError


# %% tags=["solution"]
def find_crossing(short_sum: float, short: int, long_sum: float, long: int) -> float:
    """The length penalty at which a short and a long text score the same."""
    return float(np.log(long_sum / short_sum) / np.log(long / short))


# %% tags=["check"]
check("14b.5", find_crossing)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Write the two scores as equal, bring the sums to one side and the
# lengths to the other, and take logarithms.</details>

# %% [markdown] tags=["explanation"]
# A positive "penalty" is a reward for length here, because the sums are negative: the name
# misleads.
#
# Usual mistakes: logarithms of the sums themselves, which are negative; the two logarithms
# exchanged.

# %% [markdown]
# ## 6 · Quality against diversity
#
# Each setting now meets two uses. **Open text**: the base goes on with 24 beginnings of documents.
# We measure rep-4 (chapter 14), distinct-2, and the perplexity of what it wrote under itself. The
# documents themselves are the reference. **Answers**: a tuned copy answers 160 questions.
#
# Hypotheses. Open text: drawing at T 1 repeats less than greedy (A), four beams repeat more than
# greedy (B). Answers: T 0.7 with top-p 0.9 gives fewer right answers than greedy (C), T 1 too (D).
#
# **Predict.** Where does greedy text stand, in repeats and in perplexity, beside the documents?
# And which setting comes closest to them?

# %% tags=["predict"]
shown = ("greedy", "beam 4", "T 0.5", "T 0.7, top-p 0.9", "T 1", "T 1.5", "top-k 5", "top-p 0.9")
shown += ("min-p 0.1", "repetition 1.2", "repetition 1.2, answer alone", "frequency 1")
shown += ("3-gram block", "contrastive")
_ = view.draw_plane(settings, shown, runs.REFERENCE, use="open")


# %% tags=["predict"]
def compare(results, use, measure, name, claim):
    """The mean of a setting, its verdict against greedy, and the mean difference."""
    values = results.measured(measure, use=use, setting=name)
    greedy = results.measured(measure, use=use, setting="greedy")
    verdict = judge_claim(greedy, values, claim=claim)
    return f"{np.mean(values):5.2f} {verdict.word:12} ({verdict.mean:+.2f})", verdict.word


words = {}
print(f"{'against greedy':30} open text: repeats less       answers: fewer right")
for name in shown[1:-1]:
    less, words[name, "less"] = compare(settings, "open", "rep-4", name, "lower")
    fewer, words[name, "fewer"] = compare(settings, "answers", "right", name, "lower")
    print(f"{name:30} {less:28} {fewer}")
_, words["beam 4", "more"] = compare(settings, "open", "rep-4", "beam 4", "higher")
print("\nB, four beams repeat more:", words["beam 4", "more"])
assert words["T 1", "less"] == words["beam 4", "more"] == "not shown"
assert words["T 0.7, top-p 0.9", "fewer"] == "not shown" and words["T 1", "fewer"] == "held"

# %% tags=["predict"]
print("smollm2-135m, open text: repeated 4-grams, and do they fall against greedy?")
for name in ("beam 4", "T 0.7", "T 1", "top-p 0.9", "repetition 1.2", "frequency 1"):
    if name in {row.get("setting") for row in smollm.rows}:
        print(f"{name:30}", compare(smollm, "open", "rep-4", name, "lower")[0])

# %% [markdown]
# **Read.** Greedy text and beams stand at the right: likely and repetitive. T 1.5 stands at the
# top: no repeats, and no sense. Top-p 0.9 comes close to the star.
#
# T 1 repeats less than greedy text in every seed, and still A is "not shown". Each seed has its own
# beginnings, and greedy text repeats 21 to 45 % of its 4-grams, depending on them; on smollm2 28 to
# 72 %. The rule asks for more than such differences; more beginnings would be needed. B is not
# shown: beams are likelier than greedy text and repeat about as much. For answers D held: T 1 loses
# 20 points. C is not shown: T 0.7 with top-p 0.9 loses 3.
#
# A filter alone cures nothing. Drawing does: smaller k and p bring repeats back, and buy likelier
# words. Frequency 1 lowers repeats and loses one point of right answers, not shown either.

# %% [markdown]
# ### The merged model, drawn
#
# The usual end of a LoRA run: merge, load, and sample with T 0.7 and top-p 0.9. What does drawing
# change against greedy? We ask every question eight times. **Agreement** is the share of the
# samples that give the most frequent answer.

# %%
merged = runs.tune_and_merge(base, tokenizer, facts, seed=0)
for name in ("greedy", "T 0.7, top-p 0.9"):
    here = runs.measure_answers(merged, base, tokenizer, facts, name, 0, samples=8)
    print(f"{name:18} right {here['right facts']:.0%}, agreement {here['agreement']:.0%}")
    band = settings.measured("right facts", use="merged", setting=name)
    assert min(band) - 0.12 <= here["right facts"] <= max(band) + 0.12

# %% [markdown]
# **Read.** Drawing loses a few right answers, and about one sample in eight differs from the most
# frequent one. For short answers that are right or wrong, greedy decoding is the better choice.

# %% [markdown]
# ### What the text promised, and what held
#
# | remedy | promised | measured here |
# |---|---|---|
# | repetition penalty | simple, effective; strong ones make stiff text | repeats 34 → 4 % at 1.2; right answers 83 → 76 %, with the prompt left out 81 %; "times 0.9" is wrong |
# | n-gram block | stops mechanical repeats; hits rightful ones | both held; a small n restricts *more* |
# | temperature | high: varied, perhaps incoherent; low: repeats | T 1.5 has perplexity 48; T 0.5 repeats 16 %, T 1 6 % |
# | top-k, top-p | fewer repeats; too small: repeats | fewer than greedy; more than T 1 alone |
# | beam search | a cause: conservative | likelier text; as many repeats as greedy |

# %% [markdown] tags=["exercise"]
# ### Exercise 14b.6 · One setting for both uses · 10 min · ●●●
# Design a setting that serves open text and answers. Return a pair: a list of processors (of
# `sft_lab.decoding`, or functions of `(input_ids, scores)`, applied in their order), and True to
# draw or False to take the likeliest token.
#
# The check lets the base go on with 48 beginnings (at most 120 tokens each) and asks a tuned model
# 60 facts and 40 lists. Needed: at most 20 % repeated 4-grams (mean of the texts) and a perplexity
# of at most 4 under the base in open text, and at least 89 % right answers. Greedy decoding has
# 93 % right answers and about 30 % repeats.


# %% tags=["stub"]
def choose_setting() -> tuple[list, bool]:
    """Processors, and whether to draw."""
    raise NotImplementedError


# %% tags=["solution"]
def choose_setting() -> tuple[list, bool]:
    """Processors, and whether to draw."""
    return [FrequencyPenalty(1.0)], False


# %% tags=["check"]
check("14b.6", choose_setting)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Answers are short and copy words of the question: what looks only at
# the text written so far hardly touches them. Open text is long.</details>

# %% [markdown] tags=["explanation"]
# A gentle penalty that leaves the prompt out acts where repetition happens, late in a long text.
#
# Usual mistakes: the same penalty with the prompt counted, which forbids copying; a block of
# n-grams, which forbids right answers; a temperature, which acts on both uses alike.

# %% [markdown]
# ## What to remember
#
# - A processor bends logits. Temperature flattens all, filters cut the tail, penalties look back.
#   The order counts for top-p and min-p.
# - The repetition penalty depends on a constant that means nothing. Frequency and presence
#   penalties subtract, and do not.
# - By default the repetition penalty and the n-gram block count the prompt: copying becomes wrong,
#   and in a chat the stop token is punished before the answer begins.
# - The likeliest text is short, or it repeats. Searching better does not help.
# - Choose for the use: greedy for short answers; for open text a draw without the tail, or a gentle
#   penalty on what was written. Measure both uses.
#
# ## Sources
#
# - A. Holtzman et al., *The Curious Case of Neural Text Degeneration*, 2019, arXiv:1904.09751.
# - N. S. Keskar et al., *CTRL*, 2019, arXiv:1909.05858: the repetition penalty.
# - Min-p: arXiv:2407.01082; the critique, no gain at equal tuning: arXiv:2506.13681.
# - Contrastive search without training for it: arXiv:2210.14140.
# - F. Stahlberg and B. Byrne: the best text of a translation model is often empty.
# - transformers, issue 2302 (the sign of the penalty), issue 26902 (the prompt counts), issue 26624
#   and pull request 20901 (length and beams).
#
# <details><summary>中文要点</summary>
#
# 1. **解码**：模型只给出 logits；**温度**压平分布，**top-k / top-p / min-p** 截掉长尾，**惩罚**看已写出的
#    token。温度与 top-p 的先后顺序会改变结果，与 top-k 则不会。
# 2. **“乘以 0.9”**会抬高负的 logit，反而鼓励重复。常用的**重复惩罚**（正数除、负数乘）又取决于一个没有意义的
#    常数；**频率惩罚、存在惩罚**用减法，没有这个问题。
# 3. 重复惩罚默认**把提示词也算进去**：提示词里有 `<|im_end|>`，回答就更难结束，复制问题中的词也受罚。
# 4. **n-gram 阻止**会禁止合理的重复：答案里的名称、列表和 JSON 的符号。
# 5. **束搜索**找到的是更“可能”的文本：要么很短，要么重复。长度惩罚为正时奖励更长的文本。
# 6. **怎样选**：简短回答用贪心；开放文本用截掉长尾的采样，或只对已写出部分的轻微惩罚；两种用途都要测量。
#
# </details>
