"""Under "reinforce": answers that a model draws, their log-probabilities, and the loop that makes
answers of high reward likelier (chapters 17 and 17b)."""

import copy
import math
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.arguments import SettingError, check_seed, real_number, whole_number
from sft_lab.batches import pad_batch
from sft_lab.chat import check_lengths, continue_ids, decode_response, encode_prompts
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.loop.probes import check_scores
from sft_lab.loop.process import interrupt_between_steps, keep_freed_memory
from sft_lab.losses import graded_logits, graded_states
from sft_lab.policy import (
    AVERAGES,
    ValueHead,
    at_last_token,
    average_tokens,
    clipped_tokens,
    discounted_advantages,
    group_advantages,
    kl_estimates,
    kl_terms,
    policy_loss,
    value_loss,
    whiten,
)
from sft_lab.records import Conversation
from sft_lab.rendering import stop_token_id
from sft_lab.undisturbed import undisturbed

METHODS = ("reinforce", "grpo", "ppo")
Task = str | Conversation
Reward = Callable[[Task, str, bool], float]  # task, answer, whether the model ended it by itself


@dataclass(frozen=True)
class Rollout:
    """K answers to each of P prompts, N = P · K rows; the answers to a prompt stand together.

    input_ids, labels: (N, S), prompt and answer padded on the right, only the answer graded. mask,
    old_log_probs, entropies: (N, T), a column for each token of an answer, from its first on: True
    where there is one, its log-probability and the entropy of the distribution that it was drawn
    from, in nats. texts: without control tokens; stopped: whether the model wrote the stop token.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    old_log_probs: torch.Tensor
    entropies: torch.Tensor
    texts: list[str]
    stopped: list[bool]
    samples: int
    temperature: float

    @property
    def answer_ids(self) -> list[list[int]]:
        """The token ids of each answer, its stop token with it."""
        return [row[row != IGNORE_INDEX].tolist() for row in self.labels]

    @property
    def batch(self) -> dict[str, torch.Tensor]:
        """What `sft_lab.losses` reads."""
        return {"input_ids": self.input_ids, "labels": self.labels}

    def rows(self, indices: torch.Tensor) -> "Rollout":
        """The rows at `indices`, (n,), as a rollout of their own; no groups any more."""
        names = ("input_ids", "labels", "mask", "old_log_probs", "entropies")
        chosen = indices.tolist()
        return replace(
            self,
            **{name: getattr(self, name)[indices] for name in names},
            texts=[self.texts[index] for index in chosen],
            stopped=[self.stopped[index] for index in chosen],
            samples=1,
        )


def sample_groups(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Task],
    samples: int,
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 40,
    seed: int,
) -> Rollout:
    """Draw `samples` answers to each prompt from the whole distribution, no token left out, and
    note how likely each of their tokens was.

    prompts: questions, or conversations that end with a user turn. The same seed draws the same
    answers; mode, gradients and random generators of the model stay as they are. Errors as in
    `sft_lab.chat.generate_ids`.
    """
    encoded = encode_prompts(tokenizer, prompts)
    return _draw(model, tokenizer, encoded, samples, temperature, max_new_tokens, seed)


def answer_log_probs(model: PreTrainedModel, rollout: Rollout) -> torch.Tensor:
    """The log-probability of every token of the answers under `model`, with its gradient: (N, T), 0
    behind the end.

    Logits are divided by the rollout's temperature, so these are the probabilities that tokens are
    drawn with. The model's mode stays as it is: where it has dropout, put it to eval.
    """
    logits, targets = graded_logits(model, rollout.batch)
    return _place(_log_probs(logits, targets, rollout.temperature), rollout.mask)


def reinforce(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    reward: Reward,
    *,
    method: str = "grpo",
    steps: int = 40,
    prompts_per_step: int = 16,
    samples: int = 8,
    learning_rate: float = 3e-4,
    kl: float = 0.0,
    reference: PreTrainedModel | None = None,
    temperature: float = 1.0,
    max_new_tokens: int = 40,
    scale: str = "std",
    average: str = "token",
    clip: float = 0.2,
    minibatches: int = 1,
    epochs: int = 1,
    decay: float = 0.95,
    value_learning_rate: float = 1e-2,
    warmup_steps: int = 4,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    after_step: Callable[[dict[str, float]], bool | None] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Tune `model` in place so that its own answers earn more reward; one dict a step.

    tasks: questions or conversations; a last assistant turn is never shown to the model, it is
    there for `reward`, a function of (task, answer, stopped). A step draws `samples` answers to
    each of `prompts_per_step` tasks, and goes `epochs` times over them in `minibatches` updates;
    only behind the first update does a ratio leave 1 and clipping matter. Advantages by method:
    "reinforce" reward minus the mean of the batch; "grpo" `group_advantages`; "ppo" from a value
    head on the last hidden states (decay), whitened. The head has a learning rate of its own, and
    its gradient stays out of the model. `kl` times `kl_terms` is added to the loss; the reference
    is a copy of the model as it comes in, or `reference`. AdamW, linear warm-up over
    `warmup_steps`, then constant. Dropout is off.

    A row: reward, reward_spread (over the batch), no_spread (share of groups whose answers all
    earned the same), kl and entropy (nats per token, before the step's update), length (tokens),
    stopped (share), loss, grad_norm (before clipping), clipped (share of tokens), value_loss (ppo).
    `after_step` gets the row, may add to it, and ends the run by returning True. Ctrl-C ends it
    after a step. Raises ValueError for settings that teach nothing and a reward that is no finite
    number, FloatingPointError for a loss that is not; warns when no step had an advantage.
    """
    settings = {
        **{"method": method, "steps": steps, "prompts_per_step": prompts_per_step},
        **{"samples": samples, "learning_rate": learning_rate, "kl": kl, "scale": scale},
        **{"temperature": temperature, "max_new_tokens": max_new_tokens, "average": average},
        **{"clip": clip, "minibatches": minibatches, "epochs": epochs, "decay": decay},
        **{"value_learning_rate": value_learning_rate, "warmup_steps": warmup_steps},
        **{"weight_decay": weight_decay, "max_grad_norm": max_grad_norm, "seed": seed},
    }
    settings = _check_settings(settings, len(tasks))
    with undisturbed(model):
        run = _Run(model, tokenizer, tasks, reward, settings, reference)
        return _take_steps(run, after_step, progress)


class _Run:
    """A run in progress: policy, reference, value head, optimizer, and the order of the tasks."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        tasks: Sequence[Task],
        reward: Reward,
        settings: dict[str, Any],
        reference: PreTrainedModel | None,
    ) -> None:
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.tasks, self.reward = tasks, reward
        self.prompts = _encode_tasks(tokenizer, tasks)
        check_lengths(model, self.prompts, settings["max_new_tokens"])
        _check_trainable(model)
        keep_freed_memory()
        examples = [Example(ids, ids) for ids in self.prompts[: settings["prompts_per_step"]]]
        check_scores(model, examples, tokenizer.pad_token_id)
        self.parameters = [weight for weight in model.parameters() if weight.requires_grad]
        groups = [{"params": self.parameters, "peak": settings["learning_rate"]}]
        self.value_head = None
        if settings["method"] == "ppo":
            self.value_head = _make_value_head(model)
            head = list(self.value_head.parameters())
            groups.append({"params": head, "peak": settings["value_learning_rate"]})
        self.optimizer = torch.optim.AdamW(
            groups, lr=0.0, weight_decay=settings["weight_decay"], fused=True
        )
        self.optimizer.zero_grad()  # a backward() before this run must not count in its first step
        self.reference = copy.deepcopy(model) if reference is None else reference
        self.reference.eval()
        self.rng = random.Random(settings["seed"])
        self.waiting: list[int] = []  # tasks of this round that have not had their turn

    def step(self, number: int) -> tuple[dict[str, float], bool]:
        """Draw, grade, update; `number` counts from 1. Returns what was measured, and whether any
        answer had an advantage."""
        settings, chosen = self.settings, self._choose_tasks()
        rollout = _draw(
            self.model,
            self.tokenizer,
            [self.prompts[index] for index in chosen],
            settings["samples"],
            settings["temperature"],
            settings["max_new_tokens"],
            self.rng.getrandbits(63),
        )
        rewards = self._grade(chosen, rollout)
        with torch.no_grad():
            reference = answer_log_probs(self.reference, rollout)
            values = None
            if self.value_head is not None:
                values = self._score(rollout)[1]
        advantages, returns = self._find_advantages(rewards, rollout, values)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * min(1.0, number / (settings["warmup_steps"] + 1))
        known = {"reference": reference, "advantages": advantages}
        if values is not None:
            known |= {"old_values": values, "returns": returns}
        updates = [
            self._update(rollout.rows(part), {n: t[part] for n, t in known.items()}, number)
            for part in self._split(len(rewards))
        ]
        row = {"step": number, **_describe(rollout, rewards, reference)}
        for name in updates[0]:
            row[name] = sum(update[name] for update in updates) / len(updates)
        return row, bool((advantages != 0).any())

    def _choose_tasks(self) -> list[int]:
        """The next tasks of a round through all of them in random order."""
        count = self.settings["prompts_per_step"]
        while len(self.waiting) < count:
            later = list(range(len(self.tasks)))
            self.rng.shuffle(later)
            self.waiting += later
        chosen, self.waiting = self.waiting[:count], self.waiting[count:]
        return chosen

    def _grade(self, chosen: list[int], rollout: Rollout) -> torch.Tensor:
        """The rewards of all answers, (N,); ValueError for one that is no finite number."""
        rewards = []
        for place, (text, stopped) in enumerate(zip(rollout.texts, rollout.stopped, strict=True)):
            index = chosen[place // rollout.samples]
            given = self.reward(self.tasks[index], text, stopped)
            try:
                value = float(given)
            except (TypeError, ValueError):
                value = math.nan
            if not math.isfinite(value):
                raise ValueError(
                    f"the reward of tasks[{index}] for the answer {text[:60]!r} is {given!r:.60}: "
                    "it must be a finite number for every text, the empty one with it; give what "
                    "cannot be graded the lowest reward"
                )
            rewards.append(value)
        return torch.tensor(rewards, device=rollout.mask.device)

    def _find_advantages(
        self, rewards: torch.Tensor, rollout: Rollout, values: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The method itself: (N,) or (N, T) advantages; for PPO also the returns."""
        if values is not None:
            earned = at_last_token(rewards, rollout.mask)
            decay = self.settings["decay"]
            advantages, returns = discounted_advantages(earned, values, rollout.mask, decay=decay)
            return whiten(advantages, rollout.mask), returns
        if self.settings["method"] == "reinforce":
            gains = rewards - rewards[0]  # equal rewards must give exactly 0
            return gains - gains.mean(), None
        groups = rewards.view(-1, rollout.samples)
        return group_advantages(groups, scale=self.settings["scale"]).flatten(), None

    def _split(self, count: int) -> list[torch.Tensor]:
        """The rows of each update, (n,): all of them in a new order for every epoch."""
        parts = []
        for _ in range(self.settings["epochs"]):
            order = list(range(count))
            if self.settings["minibatches"] > 1:
                self.rng.shuffle(order)
            parts += torch.tensor(order).chunk(self.settings["minibatches"])
        return parts

    def _score(self, rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probabilities and, with a value head, values of every token, (N, T) each."""
        if self.value_head is None:
            return answer_log_probs(self.model, rollout), None
        states = graded_states(self.model, rollout.batch)
        logits = self.model.get_output_embeddings()(states)
        targets = rollout.labels[rollout.labels != IGNORE_INDEX]
        log_probs = _log_probs(logits, targets, rollout.temperature)
        # detached: what the head learns must not move the policy
        values = self.value_head(states.detach().float())
        return _place(log_probs, rollout.mask), _place(values, rollout.mask)

    def _update(
        self, rollout: Rollout, known: dict[str, torch.Tensor], step: int
    ) -> dict[str, float]:
        """One update from some rows; FloatingPointError, with the weights as they were, for a loss
        or a gradient that is not finite."""
        settings, mask = self.settings, rollout.mask
        log_probs, values = self._score(rollout)
        by = {"average": settings["average"]}
        if settings["average"] == "length":
            by["max_length"] = settings["max_new_tokens"]
        given = (log_probs, rollout.old_log_probs, known["advantages"], mask)
        loss = policy_loss(*given, clip=settings["clip"], **by)
        if settings["kl"]:
            apart = kl_terms(log_probs, rollout.old_log_probs, known["reference"])
            loss = loss + settings["kl"] * average_tokens(apart, mask, **by)
        measured = {"loss": loss.item()}
        if values is not None:
            error = value_loss(values, known["old_values"], known["returns"], mask)
            error.backward()
            measured["value_loss"] = error.item()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, settings["max_grad_norm"])
        measured["grad_norm"] = norm.item()
        outside = clipped_tokens(*given, clip=settings["clip"])
        measured["clipped"] = (outside.sum() / mask.sum()).item()
        if not all(map(math.isfinite, measured.values())):
            self.optimizer.zero_grad()
            raise FloatingPointError(
                f"step {step}: loss {measured['loss']}, gradient norm {measured['grad_norm']}; the "
                "weights are those of the update before. Lower learning_rate or the rewards"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return measured


def _take_steps(
    run: _Run, after_step: Callable[[dict[str, float]], bool | None] | None, progress: bool
) -> list[dict[str, float]]:
    """All steps of a run, one row each."""
    rows, any_advantage, total = [], False, run.settings["steps"]
    bar = tqdm(total=total, unit="step", desc="reinforce", disable=not progress, leave=False)
    with interrupt_between_steps() as interrupted, bar:
        for number in range(1, total + 1):
            row, advantage = run.step(number)
            rows.append(row)
            any_advantage = any_advantage or advantage
            bar.set_postfix(reward=f"{row['reward']:.3f}", refresh=False)
            bar.update()
            if after_step is not None and after_step(row):
                break
            if interrupted and number < total:
                raise KeyboardInterrupt(f"stopped after step {number} of {total}")
    if not any_advantage:
        warnings.warn(
            f"no answer of {len(rows)} steps was better or worse than the others it was measured "
            f"against (mean reward {rows[-1]['reward']:g}): the reward has taught nothing. Usual "
            "causes: tasks that the model never or always solves, or a reward that reads another "
            "form of answer than the model gives; look at sample_groups(…).texts",
            stacklevel=3,
        )
    return rows


def _draw(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: list[list[int]],
    samples: int,
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> Rollout:
    """What `sample_groups` returns, for prompts that are token ids."""
    samples, seed = whole_number("samples", samples), check_seed(seed)
    if not encoded:
        raise ValueError("prompts is empty: there is nothing to answer")
    prompts = [ids for ids in encoded for _ in range(samples)]
    with undisturbed(model):
        torch.manual_seed(seed)
        answers = continue_ids(
            model,
            tokenizer,
            prompts,
            max_new_tokens=max_new_tokens,
            do_sample=True,
            temperature=temperature,
            top_k=0,  # all tokens: what is left out has another probability than it was drawn with
        )
        stop = stop_token_id(tokenizer)
        examples = [
            Example(prompt + answer, [IGNORE_INDEX] * len(prompt) + answer)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        batch = pad_batch(examples, tokenizer.pad_token_id)
        longest = max(map(len, answers))
        mask = torch.tensor([[t < len(ids) for t in range(longest)] for ids in answers])
        input_ids, labels = batch["input_ids"].to(model.device), batch["labels"].to(model.device)
        mask = mask.to(model.device)
        with torch.no_grad():
            logits, targets = graded_logits(model, {"input_ids": input_ids, "labels": labels})
            every = (logits.float() / temperature).log_softmax(dim=-1)
            entropies = -(every.exp() * every).sum(dim=-1)
            log_probs = _log_probs(logits, targets, temperature)
    return Rollout(
        input_ids=input_ids,
        labels=labels,
        mask=mask,
        old_log_probs=_place(log_probs, mask),
        entropies=_place(entropies, mask),
        texts=[decode_response(ids, tokenizer) for ids in answers],
        stopped=[ids[-1] == stop for ids in answers],
        samples=samples,
        temperature=temperature,
    )


def _describe(rollout: Rollout, rewards: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
    """What a row says of a step's answers, before anything is learned from them."""
    mask, groups = rollout.mask, rewards.view(-1, rollout.samples)
    spread = groups.amax(dim=1) - groups.amin(dim=1)
    return {
        "reward": rewards.mean().item(),
        "reward_spread": rewards.std().item(),
        "no_spread": (spread == 0).float().mean().item(),
        "kl": average_tokens(kl_estimates(rollout.old_log_probs, reference), mask).item(),
        "entropy": average_tokens(rollout.entropies, mask).item(),
        "length": mask.sum(dim=1).float().mean().item(),
        "stopped": sum(rollout.stopped) / len(rollout.stopped),
    }


def _log_probs(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """(n, V) logits and the (n,) tokens drawn from them -> their log-probabilities, (n,)."""
    return -F.cross_entropy(logits.float() / temperature, targets, reduction="none")


def _place(flat: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A number for each token of all answers, one after the other -> (N, T), 0 behind each end."""
    return flat.new_zeros(mask.shape).masked_scatter(mask, flat)


def _encode_tasks(tokenizer: PreTrainedTokenizerBase, tasks: Sequence[Task]) -> list[list[int]]:
    """The ids of every task's prompt: a last assistant turn is the answer, and is left out."""
    prompts = [
        task[:-1] if not isinstance(task, str) and task[-1]["role"] == "assistant" else task
        for task in tasks
    ]
    return encode_prompts(tokenizer, prompts)


def _make_value_head(model: PreTrainedModel) -> ValueHead:
    """A value head as wide as the model's states; ValueError where scores need more than these."""
    head = model.get_output_embeddings()
    probe = {"input_ids": torch.zeros(1, 2, dtype=torch.long, device=model.device)}
    with torch.no_grad():
        states = graded_states(model, {**probe, "labels": probe["input_ids"]})
    if head is None or states is None:
        raise ValueError(
            f"{type(model).__name__} makes its scores of more than the last hidden states, which a "
            'value head reads: take method="grpo"'
        )
    return ValueHead(states.shape[-1]).to(states.device)


def _check_trainable(model: PreTrainedModel) -> None:
    """ValueError for a model with nothing to train, or in half precision."""
    trained = {weight.dtype for weight in model.parameters() if weight.requires_grad}
    if not trained:
        raise ValueError("no parameter of the model requires gradients: everything is frozen")
    if trained != {torch.float32}:
        raise ValueError(
            f"the trained weights are {', '.join(sorted(map(str, trained)))}: updates this small "
            "are rounded away there; load the model with dtype=torch.float32"
        )


def _check_settings(given: dict[str, Any], tasks: int) -> dict[str, Any]:
    """The settings as plain numbers; SettingError for one that teaches nothing."""
    method = given["method"]
    if method not in METHODS:
        raise SettingError(f"method is {method!r:.60}; it must be one of {', '.join(METHODS)}")
    checked = dict(given)
    counts = ("steps", "prompts_per_step", "samples", "max_new_tokens", "minibatches", "epochs")
    for name in counts:
        checked[name] = whole_number(name, given[name])
    checked["warmup_steps"] = whole_number("warmup_steps", given["warmup_steps"], least=0)
    for name in ("learning_rate", "value_learning_rate", "temperature"):
        checked[name] = real_number(name, given[name], above=0)
    for name in ("clip", "max_grad_norm"):
        checked[name] = real_number(name, given[name], above=0, infinite=True)
    for name in ("kl", "weight_decay"):
        checked[name] = real_number(name, given[name], least=0)
    checked["decay"] = real_number("decay", given["decay"], least=0, most=1)
    checked["seed"] = check_seed(given["seed"])
    for name, choices in (("scale", ("std", "none")), ("average", AVERAGES)):
        if given[name] not in choices:
            raise SettingError(
                f"{name} is {given[name]!r:.60}; it must be one of {', '.join(choices)}"
            )
    _check_sizes(checked, tasks)
    return checked


def _check_sizes(settings: dict[str, Any], tasks: int) -> None:
    """SettingError for numbers that do not fit each other."""
    method, samples = settings["method"], settings["samples"]
    prompts, rows = settings["prompts_per_step"], settings["prompts_per_step"] * samples
    if prompts > tasks:
        raise SettingError(
            f"prompts_per_step is {prompts} and there are {tasks} tasks: give more tasks, or fewer "
            "prompts a step (more samples make up for it)"
        )
    if method == "grpo" and samples < 2:
        raise SettingError(
            "samples is 1: GRPO measures an answer against the others to its prompt, so all "
            'advantages would be 0. Give 4 to 16, or method="reinforce"'
        )
    if rows < 2:
        raise SettingError(
            "one answer a step has nothing to be measured against: raise prompts_per_step or "
            "samples"
        )
    if settings["minibatches"] > rows:
        raise SettingError(
            f"minibatches is {settings['minibatches']} and a step has {rows} answers: at most one "
            "update for each"
        )
    if method == "reinforce" and settings["minibatches"] * settings["epochs"] > 1:
        raise SettingError(
            f"minibatches is {settings['minibatches']} and epochs is {settings['epochs']}: "
            "REINFORCE learns from answers of the weights as they are, so a step is one update. "
            'Give 1 and 1, or method="grpo", whose ratio and clipping are for that'
        )
