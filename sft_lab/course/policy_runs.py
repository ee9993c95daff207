"""Chapter 17: questions whose answers come out long and short, right and wrong; what one step does
to them; and tiny runs with one fault each."""

import copy
import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.course.short_runs import tune_on
from sft_lab.policy import average_tokens, group_advantages, policy_loss
from sft_lab.records import Conversation
from sft_lab.rollouts import Rollout, answer_log_probs, sample_groups

# One fact in three lengths; {s} is the statement, {v} its value, {e} whom it is about.
FORMS = ("{v}.", "{s}", "You ask about {e}. {s}")
TAUGHT = 600  # facts of the tuning set; the other facts of its entities are the questions
STEP = 0.02  # length of the step, in the space of all weights, that `measure_push` takes
FAULTS = ("healthy", "cold start", "solved", "wrong old log-probs", "wrong sign", "no gradient")


def _known_facts() -> list[atlas.Fact]:
    facts = atlas.split(atlas.load_facts())["train"]
    random.Random(0).shuffle(facts)
    return facts


def tune_to_answer(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int = 0
) -> PreTrainedModel:
    """A copy of the base that answers questions in one of three lengths, each as often as the
    others (about 6 seconds)."""
    rng = random.Random(f"forms {seed}")
    facts = _known_facts()[:TAUGHT]
    talks = []
    for fact, (question, answer) in zip(facts, atlas.ask(facts, seed=seed), strict=True):
        form = rng.choice(FORMS)
        said = form.format(v=fact.value, s=answer["content"], e=fact.subject)
        talks.append([question, {"role": "assistant", "content": said}])
    return tune_on(base, tokenizer, talks, epochs=3, seed=seed)


def questions(count: int, *, seed: int = 0) -> list[Conversation]:
    """Questions about facts that `tune_to_answer` does not teach; the last turn is the value alone,
    for `grade`, and no model sees it."""
    facts = random.Random(f"questions {seed}").sample(_known_facts()[TAUGHT:], count)
    asked = atlas.ask(facts, seed=seed)
    return [
        [question, {"role": "assistant", "content": fact.value}]
        for fact, (question, _) in zip(facts, asked, strict=True)
    ]


def grade(task: Conversation, answer: str, stopped: bool) -> float:
    """The reward: 1.0 where the value stands in the answer and the model ended it, else 0.0."""
    return float(stopped and task[-1]["content"] in answer)


def grade_all(tasks: Sequence[Conversation], rollout: Rollout) -> torch.Tensor:
    """The rewards of a rollout, (P, K)."""
    given = [
        grade(tasks[row // rollout.samples], text, stopped)
        for row, (text, stopped) in enumerate(zip(rollout.texts, rollout.stopped, strict=True))
    ]
    return torch.tensor(given).view(-1, rollout.samples)


def measure_push(rollout: Rollout, rewards: torch.Tensor, *, average: str) -> dict[str, float]:
    """What averaging by "answer" or by "token" does to wrong answers, long and short.

    push: mean push on a token of the long ones, as a multiple of that on the short ones; and their
    mean numbers of tokens. Errors as in `sort_wrong`.
    """
    kinds, counts = sort_wrong(rollout, rewards), rollout.mask.sum(1)
    old, new = rollout.old_log_probs, rollout.old_log_probs.clone().requires_grad_()
    advantages = group_advantages(rewards).flatten()
    loss = policy_loss(new, old, advantages, rollout.mask, average=average)
    pushes = torch.autograd.grad(loss, new)[0].abs()
    sizes = [average_tokens(pushes[rows], rollout.mask[rows]).item() for rows in kinds.values()]
    tokens = {f"{name}_tokens": counts[rows].float().mean().item() for name, rows in kinds.items()}
    return {"push": sizes[0] / sizes[1], **tokens}


def measure_step(
    model: PreTrainedModel, rollout: Rollout, rewards: torch.Tensor, *, average: str
) -> dict[str, float]:
    """By how many nats the log-probability of a wrong answer, long or short, changes in one step of
    length STEP against the gradient; the model stays as it is."""
    moved = copy.deepcopy(model).eval()
    log_probs = answer_log_probs(moved, rollout)
    before, advantages = log_probs.detach(), group_advantages(rewards).flatten()
    policy_loss(log_probs, before, advantages, rollout.mask, average=average).backward()
    weights = [weight for weight in moved.parameters() if weight.grad is not None]
    length = torch.stack([weight.grad.norm() for weight in weights]).norm()
    with torch.no_grad():
        for weight in weights:
            weight -= STEP * weight.grad / length
        change = ((answer_log_probs(moved, rollout) - before) * rollout.mask).sum(1)
    kinds = sort_wrong(rollout, rewards)
    return {name: change[rows].mean().item() for name, rows in kinds.items()}


def sort_wrong(rollout: Rollout, rewards: torch.Tensor) -> dict[str, torch.Tensor]:
    """The wrong answers of groups with a spread, (N,) bool: "long", with more tokens than the
    median of them, and "short". ValueError where they do not have two lengths."""
    counts = rollout.mask.sum(1)
    wrong = (rewards.flatten() == 0) & (group_advantages(rewards).flatten() != 0)
    if len(counts[wrong].unique()) < 2:
        raise ValueError(
            f"{int(wrong.sum())} wrong answers beside right ones, of so many tokens: "
            f"{counts[wrong].unique().tolist()}. Two lengths are needed: ask more questions"
        )
    middle = counts[wrong].float().median()
    if middle == counts[wrong].max():  # half of them were cut at the limit
        middle = middle - 1
    return {"long": wrong & (counts > middle), "short": wrong & (counts <= middle)}


def run_push(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Conversation],
    *,
    seed: int,
    samples: int = 8,
    max_new_tokens: int = 40,
    temperature: float = 1.0,
    step: bool = True,
) -> dict[str, float]:
    """`measure_push` and, with `step`, `measure_step` on answers that the model draws, for both
    averages: the measures of each, as "token push", "answer push" …, and the mean reward."""
    prompts = [task[:-1] for task in tasks]
    drawn = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    rollout = sample_groups(model, tokenizer, prompts, samples, **drawn)
    rewards = grade_all(tasks, rollout)
    found = {"reward": rewards.mean().item()}
    for average in ("token", "answer"):
        measured = measure_push(rollout, rewards, average=average)
        if step:
            measured |= measure_step(model, rollout, rewards, average=average)
        found |= {f"{average} {name}": value for name, value in measured.items()}
    return found


def run_tiny(fault: str, *, seed: int, steps: int = 24) -> list[dict[str, float]]:
    """GRPO on a policy that is a table of logits, 6 questions with 8 answers each, of which one is
    right; with one of FAULTS. A row a step.

    reward: mean of the drawn answers. no_spread: share of groups whose answers all earned the same.
    ratio: largest distance of a ratio from 1, before the step's update. loss; grad_norm.
    """
    if fault not in FAULTS:
        raise ValueError(f"fault is {fault!r}: one of {', '.join(FAULTS)}")
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 8, generator=rng, dtype=torch.float64)
    right = torch.randint(8, (6,), generator=rng)
    rows = torch.arange(6)
    logits[rows, right] = {"cold start": -40.0, "solved": 40.0}.get(fault, 1.5)
    logits.requires_grad_()
    log = []
    for _ in range(steps):
        drawn = torch.multinomial(logits.detach().softmax(1), 16, True, generator=rng)
        rewards = (drawn == right[:, None]).double()
        log_probs = logits.log_softmax(1).gather(1, drawn)
        old = log_probs.detach()
        if fault == "wrong old log-probs":  # as if at another temperature
            old = (logits.detach() / 1.5).log_softmax(1).gather(1, drawn)
        advantages = group_advantages(rewards) * (-1 if fault == "wrong sign" else 1)
        ratio = (log_probs - old).exp()
        if fault == "no gradient":  # a .detach() too many
            ratio = (ratio - ratio + 1).detach().requires_grad_()
        clipped = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        loss = -clipped.mean()
        (slope,) = torch.autograd.grad(loss, logits, allow_unused=True)
        slope = torch.zeros_like(logits) if slope is None else slope
        spread = rewards.amax(1) > rewards.amin(1)
        log.append(
            {
                "reward": rewards.mean().item(),
                "no_spread": 1 - spread.double().mean().item(),
                "ratio": (log_probs - old).exp().sub(1).abs().max().item(),
                "loss": loss.item(),
                "grad_norm": slope.norm().item(),
            }
        )
        with torch.no_grad():
            logits -= 4.0 * slope
    return log


def pick_group(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Conversation],
    *,
    samples: int = 6,
    seed: int = 0,
) -> tuple[Conversation, Rollout, torch.Tensor]:
    """The question whose drawn answers differ most, some of them right: the task, a rollout of its
    answers alone, and their rewards (K,)."""
    prompts = [task[:-1] for task in tasks]
    rollout = sample_groups(model, tokenizer, prompts, samples, seed=seed)
    rewards = grade_all(tasks, rollout)

    def variety(group: int) -> tuple[bool, int, float]:
        texts = rollout.texts[group * samples : (group + 1) * samples]
        mixed = 1 < rewards[group].sum().item() < samples
        return mixed, len(set(texts)), -len(" ".join(texts))

    best = max(range(len(tasks)), key=variety)
    rows = torch.arange(best * samples, (best + 1) * samples)
    return tasks[best], replace(rollout.rows(rows), samples=samples), rewards[best]


def score_completions(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-probabilities of the completions in a batch that TRL's GRPOTrainer made, (N, T)."""
    answers = inputs["completion_ids"]
    ids = torch.cat([inputs["prompt_ids"], answers], dim=1)
    seen = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    logits = model(ids, attention_mask=seen).logits[:, -answers.shape[1] - 1 : -1]
    return logits.log_softmax(-1).gather(2, answers[..., None])[..., 0]
