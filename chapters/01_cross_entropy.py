# %% [markdown]
# # 01 · From cross-entropy to negative log-likelihood
#
# **The question.** SFT makes one number small: the negative log-likelihood of the answers. Where
# does this number come from, and what does its size say about a model?
#
# **By the end you can**
# - *derive* the SFT loss from cross-entropy, step by step;
# - *compute* it by hand and get the digits that PyTorch and the model report;
# - *interpret* a loss of 0, of ln V and of infinity, and say which mean a loss is.
#
# | needs | device | runs in | exercises | covers |
# |---|---|---|---|---|
# | chapter 00, logarithms, a little PyTorch | CPU, no network | about 10 s | 6, about 50 minutes | A2 A4 B2 C3 |

# %% tags=["setup"]
import math

import torch
import torch.nn.functional as F
from torch.testing import assert_close

from sft_lab import atlas, plots
from sft_lab.course.checks import check
from sft_lab.course.views.step import (
    draw_fits,
    draw_guesses,
    draw_halvings,
    draw_step,
    explore_step,
)
from sft_lab.course.views.widgets import show_widget
from sft_lab.labels import IGNORE_INDEX
from sft_lab.losses import response_loss, token_nll
from sft_lab.models import load

plots.style()
model, tokenizer = load("atlas-base")
V = model.config.vocab_size

# %% [markdown]
# ## 1 · A guess is a distribution
#
# A language model answers "The capital of Japan is …" with one probability for *every* token of its
# vocabulary of V tokens. Our atlas-base read this fact hundreds of times. **Predict.** How large is
# its largest probability: about 0.1, about 0.7, or above 0.99?


# %%
@torch.no_grad()
def guess_next(text: str) -> torch.Tensor:
    """The model's distribution over the token that follows `text`: (V,) probabilities."""
    input_ids = tokenizer(text, return_tensors="pt").input_ids
    return model(input_ids).logits[0, -1].softmax(dim=-1)


# %% tags=["predict"]
japan = guess_next("The capital of Japan is")
finland = guess_next("The capital of Finland is")
print(f"{len(japan):,} probabilities from {japan.min():.0e} to {japan.max():.3f}")
print(f"their sum is {japan.sum():.4f}")
assert_close(japan.sum(), torch.tensor(1.0))

# %% [markdown]
# The network computes V raw scores, the **logits**, and softmax turns them into probabilities that
# add up to 1. Here are the largest five for two countries.

# %%
tokyo, helsinki = (tokenizer(city).input_ids[0] for city in (" Tokyo", " Helsinki"))
guesses = {
    "The capital of Japan is": (japan, tokyo),
    "The capital of Finland is": (finland, helsinki),
}

# %% tags=["predict", "folded"]
_ = draw_guesses(
    guesses, tokenizer, title="The model knows Japan's capital and is torn about Finland's"
)
# %% tags=["predict"]
print(f"first token of Tokyo: {japan[tokyo]:.2g}; first token of Helsinki: {finland[helsinki]:.2g}")
never_read = {fact.entity for fact in atlas.split(atlas.load_facts())["unknown"]}
assert "Finland" in never_read and "Japan" not in never_read
assert japan.argmax() == tokyo
assert 2 * finland.max() < japan[tokyo] and 20 * finland[helsinki] < japan[tokyo]

# %% [markdown]
# **Read.** `·T` is the first token of `·Tokyo`; `·` stands for a space (chapter 02). atlas-base
# knows Japan's capital and still keeps some doubt. A part of its text is notes of an invented
# world, where Japan may have another capital. Finland stands in none of its documents: the model
# spreads its guess over many tokens, and the true one gets little.
#
# Training needs one number that says how wrong such a guess is. The top token alone is too
# coarse: it does not tell a hesitant right guess from a firm one.

# %% [markdown]
# ## 2 · Two distributions, one number
#
# Call the guess $q$. The truth is a distribution too. Call it $p$: the token that really follows
# has probability 1, and every other token 0. Such a $p$ is **one-hot**. Their **cross-entropy** is
#
# $$H(p, q) = -\sum_i p_i \ln q_i .$$
#
# **Predict.** Take a world of four tokens. The guess is ½, ¼, ⅛, ⅛, and the truth is the second
# token. What is $H(p, q)$, if ln 2 is 0.693?

# %% tags=["predict"]
tokens = ["Paris", "Rome", "Lima", "Oslo"]
p = torch.tensor([0.0, 1.0, 0.0, 0.0])
q = torch.tensor([0.5, 0.25, 0.125, 0.125])
print("token  p      q   −ln q")
for token, p_i, q_i in zip(tokens, p.tolist(), q.tolist(), strict=True):
    print(f"{token:5}  {p_i:.0f}  {q_i:.3f}   {-math.log(q_i):.3f}")
by_hand = -(p * q.log()).sum()
print(f"cross-entropy: {by_hand:.3f} nats = {by_hand / math.log(2):.3f} bits")
assert_close(by_hand, torch.tensor(2 * math.log(2)))

# %% [markdown]
# Three calls of PyTorch give the same number. `F.cross_entropy` takes logits and applies softmax
# itself. We hand it `q.log()`: softmax of the logarithms gives back $q$.

# %%
assert_close(by_hand, F.cross_entropy(q.log(), p))  # the truth as a distribution
assert_close(by_hand, F.cross_entropy(q.log(), torch.tensor(1)))  # the truth as a token id
# nll_loss takes log-probabilities and applies no softmax
assert_close(by_hand, F.nll_loss(q.log(), torch.tensor(1)))

# %% [markdown]
# **Read.** A one-hot truth leaves a single term of the sum:
#
# $$H(p, q) = -\ln q_y, \qquad y \text{ the true token.}$$
#
# This is the **step loss**: the *negative log-likelihood* (NLL) of one token. The natural logarithm
# counts in **nats**, log₂ in bits; 1 bit is 0.693 nats.
#
# What if several tokens may follow, each some of the time? Then cross-entropy splits into two
# parts: **entropy**, the doubt that the data itself contains, and **KL divergence**, the error of
# the guess.

# %%
several = torch.tensor([0.5, 0.3, 0.2, 0.0])
for name, truth in {"one-hot": p, "several": several}.items():
    entropy = -torch.xlogy(truth, truth).sum()  # xlogy counts 0 · ln 0 as 0
    kl = torch.xlogy(truth, truth / q).sum()
    total = entropy + kl
    assert_close(total, F.cross_entropy(q.log(), truth))
    print(f"{name}: entropy {abs(entropy):.2f} + KL {kl:.2f} = cross-entropy {total:.2f} nats")

# %% [markdown]
# **Read.** Training moves only $q$, so it can remove only the KL part. At one place of one text the
# truth is one-hot and its entropy is 0. Over a data set one beginning may go on in several ways.
# That entropy no model can remove (section 4).

# %% [markdown] tags=["exercise"]
# ### Exercise 1.1 · Cross-entropy of any two distributions · 6 min · ●○○
# Write $H(p, q)$ for any $p$ and $q$. Two edges matter in practice: a token that never occurs
# ($p_i = 0$) adds nothing even where $q_i = 0$, and a truth that $q$ rules out costs infinity.


# %% tags=["stub"]
def cross_entropy(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return H(p, q) in nats. p, q: (V,) probabilities."""
    raise NotImplementedError


# %% tags=["solution"]
def cross_entropy(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return H(p, q) in nats. p, q: (V,) probabilities."""
    return -torch.xlogy(p, q).sum()


# %% tags=["check"]
check("1.1", cross_entropy)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>In floating point, 0 times −inf is nan, "not a number".
# <code>torch.xlogy(p, q)</code> is p ln q with 0 where p is 0; or sum only over the tokens with
# p &gt; 0.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: `p * q.log()` gives nan at 0 · (−∞). Adding 1e-9 inside the logarithm hides that
# nan. It also hides the infinity, which is the right answer for a truth that the guess excludes.
# Swapping $p$ and $q$ asks another question: cross-entropy is not symmetric.

# %% [markdown]
# ## 3 · The curve −ln p, and three landmarks
#
# In this section $p$ is one number: the probability $q_y$ of the true token.
#
# **Predict.** For one model $p$ falls from 0.50 to 0.25, for another from 0.02 to 0.01. Which fall
# costs more?

# %% tags=["predict"]
falls = [(0.5, 0.25), (0.02, 0.01)]
for before, after in falls:
    print(f"{before:.2f} → {after:.2f}: {math.log(before) - math.log(after):.3f} nats more")
for before, after in falls:
    assert_close(math.log(before) - math.log(after), math.log(2))

# %%
quarter = torch.tensor(0.25, requires_grad=True)
(slope,) = torch.autograd.grad(-quarter.log(), quarter)
print(f"slope at p = 0.25: {slope:.0f} = −1/p")
assert slope == -4.0

# %% tags=["predict", "folded"]
_ = draw_halvings(title="Each halving of p costs 0.69 nats, however small p is already")
# %% [markdown]
# **Read.** Both falls cost ln 2 = 0.693 nats: half the probability costs the same everywhere. The
# slope with respect to $p$ is $-1/p$, so it is steep where the model gave the truth little.
#
# Now move it yourself. Run the cell, choose the slider and press ← four times: the probability
# halves. Watch the push on every logit, too (section 4 explains it).

# %%
show_widget(explore_step(tokens, q.tolist(), target=1), draw_step(tokens, q.tolist(), target=1))

# %% [markdown]
# Three landmarks help to read any loss. One of them: a model with random weights, which knows
# nothing, reads the text below. **Predict** its mean loss in nats per token. It has 2,048 = 2¹¹
# tokens to choose from, and ln 2 is 0.693.

# %%
capitals = {fact.entity: fact for fact in atlas.load_facts() if fact.column == "capital"}
countries = ["Japan", "Peru", "Egypt", "Italy", "Canada", "Kenya"]
text = " ".join(capitals[name].say("The {r} {e} is {v}.") for name in countries)
input_ids = tokenizer(text, return_tensors="pt").input_ids
print(text)

# %% tags=["predict"]
torch.manual_seed(0)
untrained = type(model)(model.config)  # the same architecture, random weights
with torch.no_grad():  # every token is its own label here: all are graded
    loss_untrained = response_loss(untrained(input_ids).logits, input_ids).item()
    loss_trained = response_loss(model(input_ids).logits, input_ids).item()
print(f"ln V = ln {V:,} = {math.log(V):.2f} nats per token")
print(f"untrained {loss_untrained:.2f}, trained {loss_trained:.2f} nats per token")
assert abs(loss_untrained - math.log(V)) < 0.3
assert loss_trained < 0.5 * loss_untrained

# %%
certain = torch.tensor([[0.0, -math.inf, -math.inf]])
print("loss of the true token:", F.cross_entropy(certain, torch.tensor([0])).abs().item(), "nats")
print("loss of a token ruled out:", F.cross_entropy(certain, torch.tensor([1])).item(), "nats")
assert F.cross_entropy(certain, torch.tensor([1])) == math.inf

# %% [markdown]
# **Read.**
#
# - **0** means that every true token got probability 1. On real text only a model that has
#   memorised it comes near.
# - **ln V** means "no idea": a uniform guess gives every token 1/V. Random weights are nearly
#   there. If ordinary text costs about ln V, check that the pretrained weights were loaded. A loss
#   above ln V is worse than no idea; chapter 00's stop token cost the base that much.
# - **∞** means that the model ruled out what happened. One such token makes the mean infinite.
#
# Between them, a loss of $\ell$ nats means: the model is as unsure as somebody who must choose
# among $e^\ell$ equally likely tokens. The trained model stays a little unsure: nobody can know
# which country the next sentence is about.

# %% [markdown]
# ## 4 · Why minus, why log
#
# Many scores fall as the true token's $q_y$ grows; $1 - q_y$ is one. Why the logarithm?
#
# **Predict.** In ten documents, Paris follows five times, Rome three, Lima two, Oslo never. We fit
# four logits twice: with the score $-\ln q_y$ and with the score $1 - q_y$. At which guess does
# each end?

# %%
frequency = torch.tensor([5.0, 3.0, 2.0, 0.0]) / 10


def fit(score) -> torch.Tensor:
    """Gradient descent on the mean score of the ten documents; returns the fitted distribution."""
    logits = torch.zeros(4, requires_grad=True)
    for _ in range(1500):
        loss = (frequency * score(logits.softmax(dim=0))).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        logits.data -= 5.0 * gradient
    return logits.softmax(dim=0).detach()


# %% tags=["predict"]
by_log = fit(lambda q: -q.log())
by_line = fit(lambda q: 1 - q)
print("frequency  ", frequency)
print("by −ln q_y ", by_log.round(decimals=2))
print("by 1 − q_y ", by_line.round(decimals=2))

# %% tags=["predict"]
floor = -torch.xlogy(frequency, frequency).sum()
lowest = F.cross_entropy(by_log.log(), frequency)
print(f"lowest loss {lowest:.3f} nats; entropy of the frequencies {floor:.3f} nats")
assert_close(by_log, frequency, atol=2e-3, rtol=0)
assert_close(by_line, torch.tensor([1.0, 0.0, 0.0, 0.0]), atol=2e-2, rtol=0)
assert_close(lowest, floor, atol=1e-3, rtol=0)

# %% tags=["predict", "folded"]
fits = {
    "frequency in the data": frequency,
    "fitted with −ln q": by_log,
    "fitted with 1 − q": by_line,
}
_ = draw_fits(tokens, fits, title="The logarithm finds the frequencies, the line bets on Paris")
# %% [markdown]
# **Read.** This is **maximum likelihood** (MLE). The ten documents have the likelihood
# $q_\text{Paris}^5\, q_\text{Rome}^3\, q_\text{Lima}^2$. Its logarithm is a sum, and the minus
# turns "make it large" into "make it small". Divided by ten it *is* the cross-entropy with the
# frequencies.
#
# A score whose best answer is the honest distribution is called *proper*. The logarithm is proper,
# $1 - q_y$ is not. The lowest loss is the entropy of the data, here 1.03 nats and not 0.
#
# The other reason is the gradient with respect to the logits. The picture of section 3 shows minus
# the gradient, the push: −0.5 on Paris, +0.75 on Rome, −0.125 on Lima and Oslo. **Predict:** which
# formula in $q$ and $p$ gives the gradient?

# %% tags=["predict"]
logits = q.log().requires_grad_()  # softmax gives q back
F.cross_entropy(logits, torch.tensor(1)).backward()
print("q       ", q, "\ngradient", logits.grad)
assert_close(logits.grad, q - p)  # p: one-hot at Rome

# %% [markdown]
# **Read.** It is $q - p$: **guess minus truth**. For $q = \text{softmax}(z)$ the step loss is
# $-z_y + \ln \sum_j e^{z_j}$, and its derivative with respect to $z_i$ is $q_i - p_i$. The true
# token is pulled up by $1 - q_y$, every other token is pushed down by its own probability. Now a
# confident, wrong model:

# %%
wrong = torch.tensor([7.0, 0.0, 0.0, 0.0], requires_grad=True)  # sure of Paris; the truth is Rome
pull_of_log = -torch.autograd.grad(-wrong.softmax(0)[1].log(), wrong)[0][1]
pull_of_line = -torch.autograd.grad(1 - wrong.softmax(0)[1], wrong)[0][1]
print(f"pull on the logit of Rome: {pull_of_log:.4f} with −ln q, {pull_of_line:.4f} with 1 − q")
assert pull_of_log > 0.99 and pull_of_line < 0.01

# %% [markdown]
# **Read.** Where the model is most wrong, the logarithm pulls hardest, and the score $1 - q_y$
# hardly pulls at all.

# %% [markdown] tags=["exercise"]
# ### Exercise 1.2 · The gradient without autograd · 8 min · ●●○
# Write the gradient of the **mean** step loss over N predictions with respect to their logits, as a
# formula. Autograd, PyTorch's automatic gradients, is off here. Logits may be large and far apart.


# %% tags=["stub"]
def loss_gradient(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the mean loss by the logits, (N, V). logits: (N, V); targets: (N,)
    token ids."""
    raise NotImplementedError


# %% tags=["solution"]
def loss_gradient(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the mean loss by the logits, (N, V). logits: (N, V); targets: (N,)
    token ids."""
    gradient = logits.softmax(dim=-1)
    gradient[torch.arange(len(targets)), targets] -= 1
    return gradient / len(targets)


# %% tags=["check"]
check("1.2", loss_gradient)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Each row is softmax minus one-hot. What does "mean over N rows" do
# to the gradient of one row?</details>

# %% [markdown] tags=["explanation"]
# Each row sums to $\sum q - \sum p = 0$: softmax ignores a constant added to all logits, so the
# loss has no slope in that direction.
#
# Usual mistakes: forgetting the 1/N (the gradient of the sum, N times as long); `logits - one_hot`
# (no softmax); $p - q$, which is the descent direction.

# %% [markdown] tags=["exercise"]
# ### Exercise 1.6 · Train a model down to its floor · 12 min · ●●○
# The smallest language model is a table of logits. Row $i$ holds its guess after token $i$; it sees
# nothing but that one token. Train one on `text`, a list of at least 100 token ids from 0 to V − 1:
# the mean step loss of all neighbours `text[t]` → `text[t + 1]` must fall to within **0.02 nats**
# of the lowest value that any table reaches. Return the table.
#
# Every logit must be finite, so no token is ruled out. You have 3 seconds. In the text 0, 1, 0, 2,
# 0, 1, 0, 2, … the floor is 0.35 nats: after 0 come 1 and 2 equally often (0.69 nats), after 1 and
# after 2 always 0.


# %% tags=["stub"]
def train_table(text: list[int], V: int) -> torch.Tensor:
    """Return the trained table of logits, (V, V): row i is the guess after token i."""
    raise NotImplementedError


# %% tags=["solution"]
def train_table(text: list[int], V: int) -> torch.Tensor:
    """Return the trained table of logits, (V, V): row i is the guess after token i."""
    before, after = torch.tensor(text[:-1]), torch.tensor(text[1:])
    table = torch.zeros(V, V, requires_grad=True)
    for _ in range(2000):
        loss = F.cross_entropy(table[before], after)
        (gradient,) = torch.autograd.grad(loss, table)
        table.data -= 4.0 * gradient  # a row moves in proportion to how often it occurs
    return table.detach()


# %% tags=["check"]
check("1.6", train_table)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary><code>table[text[:-1]]</code> gives one row of logits a neighbour,
# and <code>F.cross_entropy</code> their mean loss. Print the loss as it falls. A learning
# rate of 4 is not too high for a table; at 20 the loss jumps about.</details>

# %% [markdown] tags=["explanation"]
# The floor is an entropy again, now of what follows each token. Counting gives it at once: the
# logarithm of the counts, with a little added so that it is finite, is a right answer too.
#
# Usual mistakes: too few steps; rows and columns exchanged; probabilities returned for logits.

# %% [markdown]
# ## 5 · From one step to an answer to a data set
#
# An answer $y = (y_1, \dots, y_T)$ to a prompt $x$ has one step loss for each token. Write
# $P_\theta$ for the guess of a model with weights $\theta$, and $y_{\lt t}$ for the true tokens
# before step $t$. Adding losses multiplies probabilities:
#
# $$-\sum_{t=1}^{T} \ln P_\theta(y_t \mid x, y_{\lt t})
# = -\ln \prod_{t=1}^{T} P_\theta(y_t \mid x, y_{\lt t})
# = -\ln P_\theta(y \mid x).$$
#
# The last step is the chain rule of probability. We check it the slow way: for every token, the
# model reads the prompt and the true tokens before it, nothing else. The answer `·Helsinki.` has
# the tokens `·H`, `el`, `s`, `ink`, `i`, `.`. **Predict:** which one surprises the model least?

# %%
prompt, answer = atlas.cloze(capitals["Finland"])  # "The capital of Finland is", " Helsinki."
prompt_ids, answer_ids = tokenizer(prompt).input_ids, tokenizer(answer).input_ids
probabilities = []
for t, target in enumerate(answer_ids):
    prefix = torch.tensor([prompt_ids + answer_ids[:t]])
    with torch.no_grad():
        guess = model(prefix).logits[0, -1].softmax(dim=-1)
    probabilities.append(guess[target].item())

# %% tags=["predict"]
for token_id, probability in zip(answer_ids, probabilities, strict=True):
    print(f"{tokenizer.decode([token_id])!r:8} {probability:.1e}")
product = math.prod(probabilities)
print(f"P(answer) = {product:.1e}, so −ln P(answer) = {-math.log(product):.3f} nats")
assert probabilities[-1] == max(probabilities)

# %% [markdown]
# One forward pass gives all of these predictions at once. As in chapter 00, a token of the prompt
# has the label −100 (`IGNORE_INDEX`) and a token of the answer its own id.


# %%
def encode(prompt: str, answer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids and labels, each (1, T): the prompt is ignored, the answer graded."""
    prompt_ids, answer_ids = tokenizer(prompt).input_ids, tokenizer(answer).input_ids
    labels = [IGNORE_INDEX] * len(prompt_ids) + answer_ids
    return torch.tensor([prompt_ids + answer_ids]), torch.tensor([labels])


# %%
input_ids, labels = encode(prompt, answer)
with torch.no_grad():
    output = model(input_ids, labels=labels)
nll = token_nll(output.logits, labels)  # (1, T - 1): one a prediction, 0 where nothing is graded
print(f"sum {nll.sum():.3f} nats; the model's own loss {output.loss:.3f} nats per token")

# %%
# the sum of the step losses is −ln P(answer); what the model reports is their mean
assert_close(nll.sum().item(), -math.log(product), atol=1e-3, rtol=1e-4)
assert_close(output.loss.item(), nll.sum().item() / len(answer_ids), atol=1e-4, rtol=1e-5)
assert_close(response_loss(output.logits, labels), output.loss)  # and so does sft_lab
print(f"{output.loss:.2f} nats per token; no idea would cost ln V = {math.log(V):.2f}")
assert output.loss > 0.4 * math.log(V)  # a text about Japan cost far less in section 3


# %%
def draw_losses(country: str) -> float:
    """Draw prompt and answer with the loss under each graded token; returns the answer's."""
    input_ids, labels = encode(*atlas.cloze(capitals[country]))
    with torch.no_grad():
        nll = token_nll(model(input_ids).logits, labels)[0]
    notes = [""] + [f"{loss:.2f}" if loss > 0 else "" for loss in nll.tolist()]
    texts = [tokenizer.decode([token_id]) for token_id in input_ids[0].tolist()]
    title = f"{country}: the answer costs {nll.sum():.2f} nats"
    plots.token_strip(texts, labels[0].tolist(), notes=notes, title=title)
    return nll.sum().item()


# %% tags=["predict"]
loss_japan, loss_finland = draw_losses("Japan"), draw_losses("Finland")
assert 10 * loss_japan < loss_finland

# %% [markdown]
# **Read.** The full stop surprised it least. The numbers under the tokens are nats. The slow
# product and the single pass give the same sum, and the model's own loss is the mean. The fact that
# the model never read costs more than ten times the one that it knows.
#
# Why add logarithms and not multiply? **Predict:** an answer has 200 tokens of
# probability ½ each. What is its probability in float32, whose smallest positive number is 2⁻¹⁴⁹?

# %% tags=["predict"]
half = torch.full((200,), 0.5)
print(f"exact product: {0.5**200:.0e}; smallest positive float32: {2.0**-149:.1e}")
print("product in float32:", half.prod().item())
print("−ln of the product:", -half.prod().log().item())
print(f"sum of −ln: {-half.log().sum():.2f} nats = 200 · ln 2")
assert half.prod() == 0.0 and torch.tensor(2.0**-149) > 0.0 and torch.tensor(2.0**-150) == 0.0
assert_close(-half.log().sum(), torch.tensor(200 * math.log(2)))

# %% [markdown]
# **Read.** The product lies below the smallest positive float32, so it becomes 0 and its loss
# infinite. The sum of logarithms stays an ordinary number.

# %% [markdown] tags=["exercise"]
# ### Exercise 1.3 · The loss of a whole answer · 8 min · ●●○
# Return $-\ln P(y \mid x)$ from logits. Row t of the logits is the guess about `targets[t]`. It
# must also work for 600 tokens, and for logits that are hundreds apart.


# %% tags=["stub"]
def sequence_nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of one answer, in nats. logits: (T, V); targets: (T,) token ids."""
    raise NotImplementedError


# %% tags=["solution"]
def sequence_nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the loss of one answer, in nats. logits: (T, V); targets: (T,) token ids."""
    log_probs = logits.log_softmax(dim=-1)
    return -log_probs[torch.arange(len(targets)), targets].sum()


# %% tags=["check"]
check("1.3", sequence_nll)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>You need one entry a row: row t, column targets[t]. Index with two
# lists, or use
# <code>gather</code>.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: `log_probs[:, targets]` makes a T × T table. `softmax`, then `prod`, then `log` is
# right on paper and infinite on a long answer. The mean answers another question.

# %% [markdown]
# ### From answers to a data set: which mean?
#
# The blog posts behind this course write the loss in three ways:
#
# $$\mathbb{E}_{(x,y) \sim D}\Big[-\sum_t \ln P_\theta(y_t \mid x, y_{\lt t})\Big], \qquad
# -\sum_t \ln P_\theta(y_t \mid x, y_{\lt t}), \qquad
# -\sum_{i=1}^{N} \ln P_\theta(y^{(i)} \mid x^{(i)}).$$
#
# ($\mathbb{E}$ over $D$ is the mean over the data set.) The first averages whole answers. The
# second is one answer. The third adds up all $N$ answers. Code divides that sum by the number of
# *tokens*. Other code takes each answer's mean, then the mean of these means. **Predict:** which
# of these losses of a data set pushes the weights in another direction than the others?

# %%
pairs = [atlas.cloze(capitals[name]) for name in ("Peru", "Niger", "Vietnam", "Luxembourg")]
losses = []
for pair in pairs:
    input_ids, labels = encode(*pair)
    per_token = token_nll(model(input_ids).logits, labels)[labels[:, 1:] != IGNORE_INDEX]
    losses.append(per_token)
    sizes = f"{len(per_token):2} tokens  sum {per_token.sum():6.3f} nats"
    print(f"{pair[1]:<22} {sizes}  mean {per_token.mean():.3f} nats per token")

# %%
everything = torch.cat(losses)
mean_token = everything.mean()
mean_answer = torch.stack([loss.sum() for loss in losses]).mean()
mean_of_means = torch.stack([loss.mean() for loss in losses]).mean()

# %%
print(f"sum over the data set       {everything.sum():7.3f} nats")
print(f"mean over answers           {mean_answer:7.3f} nats per answer")
print(f"mean over tokens            {mean_token:7.3f} nats per token")
print(f"mean of the answers' means  {mean_of_means:7.3f} nats per token")

# %% [markdown]
# A gradient has a direction and a length. We compare both with those of the mean over tokens.
# `direction` is the cosine of their angle: 1 means "the same".


# %%
def gradient_of(loss: torch.Tensor) -> torch.Tensor:
    """The gradient with respect to all weights, as one long vector."""
    parts = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts]).double()


# %% tags=["predict"]
token_gradient = gradient_of(mean_token)
candidates = {
    "sum": everything.sum(),
    "mean over answers": mean_answer,
    "mean of means": mean_of_means,
}
directions = {}
for name, loss in candidates.items():
    gradient = gradient_of(loss)
    direction = directions[name] = F.cosine_similarity(gradient, token_gradient, dim=0)
    length = gradient.norm() / token_gradient.norm()
    print(f"{name:17}  direction {direction:.3f}  length × {length:.2f}")
assert directions["mean of means"] < 0.99
assert directions["sum"] > 0.9999 and directions["mean over answers"] > 0.9999
assert_close(mean_token * len(everything) / len(losses), mean_answer)
assert abs(mean_of_means - mean_token) > 0.02 * mean_token

# %% [markdown]
# **Read.** Only the mean of means. The other three differ by a factor: one direction, another
# length. So the formulas with a sum and the code with a mean seek the same weights. Their *numbers*
# are not comparable. **Predict** how much further the first update goes with the sum than with the
# mean: for plain gradient descent (SGD), and for AdamW, which this course trains with.


# %%
def first_update(optimizer_class, gradient: torch.Tensor) -> torch.Tensor:
    """What the first update adds to the weights (here all 0)."""
    weights = torch.zeros_like(gradient, requires_grad=True)
    weights.grad = gradient.clone()
    optimizer_class([weights], lr=1e-3).step()
    return weights.detach()


# %% tags=["predict"]
factor = len(everything)  # the sum is this many times the mean over tokens
further = {}
for optimizer_class in (torch.optim.SGD, torch.optim.AdamW):
    by_sum = first_update(optimizer_class, factor * token_gradient)
    by_mean = first_update(optimizer_class, token_gradient)
    name = optimizer_class.__name__
    further[name] = (by_sum.norm() / by_mean.norm()).item()
    print(f"{name:5}  loss × {factor}: update × {further[name]:.2f}")
assert_close(further["SGD"], float(factor), rtol=0.2, atol=0.0)
assert_close(further["AdamW"], 1.0, rtol=0.2, atol=0.0)  # AdamW's epsilon leaves a little

# %% [markdown]
# **Read.** SGD's update is rate times gradient, so a factor on the loss acts as a factor on the
# learning rate. AdamW divides each gradient by its own recent size, and a steady factor cancels
# (chapter 04): the same rate serves the sum and the mean. A limit on the gradient's norm (clipping,
# also chapter 04) does see the factor.
#
# In the mean of means, a token of a short answer weighs more than one of a long answer. It appears
# by accident, when the means of batches are averaged (chapter 04).

# %% [markdown] tags=["exercise"]
# ### Exercise 1.4 · One loss from many batches · 8 min · ●●○
# A log holds the mean loss of each batch and its number of graded tokens. Return the loss of the
# data set in nats per token. The result must not depend on how the tokens were cut into batches. A
# batch without graded tokens has the mean nan.


# %% tags=["stub"]
def dataset_loss(batch_means: list[float], batch_tokens: list[int]) -> float:
    """Return the mean loss over all tokens, in nats per token."""
    raise NotImplementedError


# %% tags=["solution"]
def dataset_loss(batch_means: list[float], batch_tokens: list[int]) -> float:
    """Return the mean loss over all tokens, in nats per token."""
    total = sum(
        mean * tokens for mean, tokens in zip(batch_means, batch_tokens, strict=True) if tokens > 0
    )
    return total / sum(batch_tokens)


# %% tags=["check"]
check("1.4", dataset_loss)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>A mean times its count is a sum again. And 0 · nan is
# nan.</details>

# %% [markdown] tags=["explanation"]
# Usual mistakes: the mean of the means, right only when all batches have equally many graded
# tokens; dividing by the number of batches; multiplying nan by 0. This bug stayed for years in
# libraries that add up the gradients of several batches (chapter 04).

# %% [markdown]
# ## 6 · What a computer does to exponentials
#
# The textbook softmax is $e^{z_i} / \sum_j e^{z_j}$. **Predict:** the logits are 1000, 999 and 0.
# What do you get in float32, where the largest number is 3.4 · 10³⁸?

# %% tags=["predict"]
logits = torch.tensor([1000.0, 999.0, 0.0])
textbook = (logits.exp() / logits.exp().sum()).log()
print(f"largest float32: {torch.finfo(torch.float32).max:.1e}")
print("exponentials      ", logits.exp())
print("log of the softmax", textbook)
assert textbook.isnan().any()

# %%
shifted = logits - logits.max()  # 0, −1, −1000
stable = shifted - shifted.exp().sum().log()
through_softmax = logits.softmax(dim=0).log()
print(f"loss of the third token: {-stable[2]:.2f} nats; by log(softmax): {-through_softmax[2]:.0f}")
assert_close(stable, logits.log_softmax(dim=0))
assert through_softmax[2] == -math.inf

# %% [markdown]
# **Read.** $e^{1000}$ overflows to infinity, and infinity over infinity is nan. Softmax does not
# change when we subtract one number from all logits. Subtracting the **maximum** makes the largest
# exponent 0, so nothing overflows.
#
# A stable softmax followed by a logarithm is still not enough: $e^{-1000}$ underflows to 0, and ln
# 0 is −∞. The single formula $z - \ln \sum_j e^{z_j}$, with the shifted $z$, keeps the true 1000.31
# nats. So pass **logits** to the loss.

# %% [markdown] tags=["exercise"]
# ### Exercise 1.5 · A log-softmax that never breaks · 10 min · ●●○
# Write `log_softmax` from `max`, `exp`, `sum` and `log` alone, without PyTorch's own `softmax`,
# `log_softmax` or `logsumexp`. Rows may differ by hundreds.


# %% tags=["stub"]
def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities, in nats, over the last dimension. logits: (..., V)."""
    raise NotImplementedError


# %% tags=["solution"]
def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities, in nats, over the last dimension. logits: (..., V)."""
    shifted = logits - logits.max(dim=-1, keepdim=True).values
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()


# %% tags=["check"]
check("1.5", log_softmax)

# %% [markdown] tags=["hint"]
# <details><summary>Hint</summary>Take each row's own maximum, with <code>keepdim=True</code>. After
# the shift, forget the old logits.</details>

# %% [markdown] tags=["explanation"]
# After the shift the sum lies between 1 and V: its logarithm neither overflows nor meets 0.
#
# Usual mistakes: one maximum for the whole tensor, so that a row 500 below it underflows to ln 0.
# `log(softmax)`, which turns every token below e⁻¹⁰³ into −∞. A clamp, which replaces the true loss
# by an invented one whose gradient is 0.


# %% [markdown]
# ## What to remember
#
# - A one-hot truth turns cross-entropy into $-\ln q_y$, the step loss. Its gradient with respect to
#   the logits is guess minus truth.
# - Step losses add up to $-\ln P(\text{answer} \mid \text{prompt})$. Minimising their sum is
#   maximum likelihood.
# - A loss of 0 is sure and right, ln V no idea, ∞ a truth ruled out. The lowest one is the entropy
#   of the data.
# - Say the unit: nats per token. A constant factor on the loss
#   scales SGD's updates and not AdamW's.
# - Give logits to the loss. Never multiply probabilities, never take the log of a softmax.
#
# ## Sources
#
# - C. E. Shannon, *A Mathematical Theory of Communication*, Bell System Technical Journal, 1948:
#   entropy.
# - T. Gneiting and A. E. Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation*,
#   JASA, 2007.
# - P. Blanchard, D. J. Higham, N. J. Higham, *Accurately Computing the Log-Sum-Exp and Softmax
#   Functions*, IMA Journal of Numerical Analysis, 2021.
# - PyTorch documentation: `torch.nn.functional.cross_entropy`, `torch.logsumexp`, `torch.xlogy`.
#
# <details><summary>中文要点</summary>
#
# 1. 模型在每一步给出整个词表上的概率分布 q。真实分布 p 是 one-hot，
#    **交叉熵** −Σ p ln q 只剩一项 −ln q_y，即单步损失。
# 2. 把整个回答各步的损失相加，等于概率连乘的负对数 −ln P(回答|提示)，即**负对数似然（NLL）**；
#    最小化它就是**最大似然估计（MLE）**。
# 3. 读懂损失：0 = 确定且正确，ln V = 毫无头绪（均匀猜测），∞ = 真实 token 被判为不可能。
#    下限是数据本身的**熵**，不一定是 0。
# 4. 对 logits 的梯度是 q − p（预测减真实）。为什么取对数：连乘变求和，最优解是真实频率，
#    错得越自信拉力越大。
# 5. 公式写求和，代码按 token 取均值：方向相同，尺度不同（SGD 的步长随之变化，AdamW 的不变）；
#    “均值的均值”则是另一个目标。
#    数值稳定：把 logits 交给损失函数，用 **log-softmax**，不要对 softmax 的结果取对数。
#
# </details>
