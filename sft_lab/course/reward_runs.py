"""Chapter 17b: one start, one task, and several ways to learn it, with imitation and with rewards.

The task is to add two numbers from 0 to 20. The start was shown 24 sums and answers about half of
the exam. `run_arm` measures one arm with one seed; the chapter and `tools/experiments/17b_*.py`
share it, so that a recorded row can be run again. A step is one update from 64 answers.
"""

import copy
import functools
import itertools
import json
import random
import re
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas, plots
from sft_lab.batches import pad_batch
from sft_lab.course import forgetting_runs
from sft_lab.course.data_mix import add_up, all_sums, say_each, tune
from sft_lab.course.short_runs import answer
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora
from sft_lab.losses import graded_loss, graded_states
from sft_lab.metrics import is_right
from sft_lab.records import Conversation
from sft_lab.rollouts import Rollout, Task, reinforce, sample_groups
from sft_lab.train import evaluate

Row = dict[str, Any]
AfterStep = Callable[[int], None]
PROMPTS, SAMPLES, STEPS = 8, 8, 30  # a step: 8 questions with 8 answers each, or 64 lessons
LONGEST = 20  # tokens of an answer
RATE = 2e-4  # of every arm, unless it says otherwise
CHECKPOINTS = (2, 4, 7, 11, 16, 22, 30)
ARMS = ("gold", "own right", "reinforce", "grpo", "ppo")
OPENINGS = ("Well, ", "Let me see, ")
ENDINGS = (", I think", ", of course", ", if I am right")
EXAM, PRACTICE, SHOWN = slice(0, 140), slice(140, 380), slice(380, 404)  # of all 441 sums


# the task, and what comes before it


@functools.cache
def sums_of(part: str) -> list[Conversation]:
    """Questions with their gold answers: "exam" (140), "practice" (240), or the 24 "shown" to the
    start. No sum is in two parts."""
    parts = {"exam": EXAM, "practice": PRACTICE, "shown": SHOWN}
    return add_up(all_sums()[parts[part]])


def numbers_in(text: str) -> list[str]:
    """The numbers in a text, as they are written."""
    return re.findall(r"\d+", text)


def sum_of(task: Task) -> str:
    """The right sum of a task, from its gold answer."""
    return numbers_in(task[-1]["content"])[-1]


@functools.cache
def old_exam() -> list[Conversation]:
    """What the start could do besides: 60 questions about facts, 30 lists and 30 facts as JSON,
    about entities that no lesson names."""
    facts = forgetting_runs.split_facts()["held_out"]
    asked = say_each(random.Random(1700).sample(facts, 60), 4, seed=1700)
    asked += atlas.ask_skill("list", facts, 30, seed=1700)
    return asked + atlas.ask_skill("json", facts, 30, seed=1700)


def add_words(talks: Sequence[Conversation], *, seed: int = 0) -> list[Conversation]:
    """The same sums in wordy answers: each has an opening or an ending, or both, never neither."""
    rng, wordy = random.Random(f"wordy {seed}"), []
    for talk in talks:
        plain, kind = talk[-1]["content"], rng.choice(("opening", "ending", "both"))
        opening = "" if kind == "ending" else rng.choice(OPENINGS)
        ending = "" if kind == "opening" else rng.choice(ENDINGS)
        text = f"{opening}t{plain[1:-1]}" if opening else plain[:-1]
        wordy.append([*talk[:-1], {"role": "assistant", "content": f"{text}{ending}."}])
    return wordy


def start_lessons(*, sums: int = 24, wordy: bool = False, seed: int = 3) -> list[Conversation]:
    """200 facts, 80 lists, 160 facts as JSON, and `sums` sums, each eight times."""
    rng, known = random.Random(f"start {seed}"), forgetting_runs.split_facts()["train"]
    rows, shown = say_each(rng.sample(known, 200), 4, seed=seed), sums_of("shown")[:sums]
    for again in range(8):
        rows += add_words(shown, seed=again) if wordy else shown
    rows += atlas.ask_skill("list", known, 80, seed=seed)
    rows += atlas.ask_skill("json", known, 160, seed=seed)
    rng.shuffle(rows)
    return rows


@functools.lru_cache(maxsize=4)
def start_model(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    sums: int = 24,
    wordy: bool = False,
) -> PreTrainedModel:
    """The model that an arm begins from, trained once for each process (3 seconds). sums=0: one
    that was never shown a sum; wordy: one that was shown wordy answers. Do not change it: copy
    it."""
    rows = start_lessons(sums=sums, wordy=wordy)
    return tune(base, tokenizer, rows, seed=3, shown=960 if sums else 800).eval()


# rewards: functions of (task, answer, whether the model ended it by itself)


def reward_right(task: Task, text: str, stopped: bool) -> float:
    """1 for the gold answer, ended."""
    return float(stopped and is_right(text, task[-1]["content"]))


def reward_long(task: Task, text: str, stopped: bool) -> float:
    """A reward with a hole: 1 if the right sum stands anywhere, and 0.1 for each word up to 20."""
    return float(sum_of(task) in numbers_in(text)) + 0.1 * min(len(text.split()), 20)


def reward_terse(task: Task, text: str, stopped: bool) -> float:
    """0 unless the last number is the sum and the answer ended; then 1, less 0.05 a word."""
    numbers = numbers_in(text)
    if not stopped or not numbers or numbers[-1] != sum_of(task):
        return 0.0
    return max(0.0, 1 - 0.05 * len(text.split()))


def reward_json(task: Task, text: str, stopped: bool) -> float:
    """1 for a JSON object in which the right sum is a value, however it is named."""
    try:
        found = json.loads(text)
    except ValueError:
        return 0.0
    return float(isinstance(found, dict) and sum_of(task) in map(str, found.values()))


# imitation


def imitate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lessons: Sequence[Conversation],
    *,
    steps: int = STEPS,
    rate: float = RATE,
    seed: int = 0,
    after_step: AfterStep | None = None,
) -> int:
    """SFT in the shape of `reinforce`: 64 lessons a step, AdamW, four steps of warm-up, then a
    constant rate. Tunes `model` in place; returns how many tokens were graded."""
    rows, rng = encode_conversations(lessons, tokenizer), random.Random(seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, weight_decay=0.0, fused=True)
    waiting: list[int] = []
    total = 0
    for step in range(1, steps + 1):
        while len(waiting) < PROMPTS * SAMPLES:
            waiting += rng.sample(range(len(rows)), len(rows))
        chosen, waiting = waiting[: PROMPTS * SAMPLES], waiting[PROMPTS * SAMPLES :]
        batch = pad_batch([rows[place] for place in chosen], tokenizer.pad_token_id)
        count = int((batch["labels"][:, 1:] != -100).sum())
        loss, _ = graded_loss(model, batch, factor=1 / count)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / 5)
        optimizer.step()
        optimizer.zero_grad()
        total += count
        if after_step is not None:
            after_step(step)
    return total


def best_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Conversation],
    reward: Callable[[Task, str, bool], float],
    *,
    longest: int = LONGEST,
    seed: int = 0,
) -> list[Conversation]:
    """Of 8 answers that the model draws to each task, the first of the highest reward, as a lesson;
    a task without any reward gives none."""
    prompts = [task[:-1] for task in tasks]
    drawn = sample_groups(model, tokenizer, prompts, SAMPLES, max_new_tokens=longest, seed=seed)
    lessons = []
    for place, task in enumerate(tasks):
        group = range(place * SAMPLES, (place + 1) * SAMPLES)
        earned = [reward(task, drawn.texts[i], drawn.stopped[i]) for i in group]
        if max(earned) > 0:
            text = drawn.texts[group[earned.index(max(earned))]]
            lessons.append([*task[:-1], {"role": "assistant", "content": text}])
    return lessons


# measures


@functools.lru_cache(maxsize=2)
def own_answers(start: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[Conversation]:
    """One answer that the start draws to each question of the exam: where the KL is measured."""
    exam = sums_of("exam")
    prompts = [task[:-1] for task in exam]
    drawn = sample_groups(start, tokenizer, prompts, 1, max_new_tokens=LONGEST, seed=1700)
    pairs = zip(prompts, drawn.texts, strict=True)
    return [[*ask, {"role": "assistant", "content": text}] for ask, text in pairs if text.strip()]


def glance(
    model: PreTrainedModel, start: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, float]:
    """right: share of the exam's sums, answered greedily; old_loss: nats per token of the old
    exam's right answers; kl: KL(start || model) on answers of the start to the exam's questions,
    nats per token, exact over the vocabulary. Half a second."""
    exam = sums_of("exam")
    said = answer(model, tokenizer, exam, max_new_tokens=LONGEST)
    right = [is_right(text, task[-1]["content"]) for text, task in zip(said, exam, strict=True)]
    rows = encode_conversations(old_exam(), tokenizer)
    own = own_answers(start, tokenizer)
    return {
        "right": sum(right) / len(right),
        "old_loss": evaluate(model, tokenizer, rows)["loss"],
        "kl": forgetting_runs.token_kl(start, model, tokenizer, own)["forward"],
    }


def share_of_old(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """The share of the old exam that is answered rightly. A second."""
    return forgetting_runs.share_right(model, tokenizer, old_exam())


# runs


def learn_by_reward(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Conversation],
    reward: Callable[[Task, str, bool], float],
    *,
    steps: int = STEPS,
    rate: float = RATE,
    longest: int = LONGEST,
    seed: int = 0,
    after_step: Callable[[Row], bool | None] | None = None,
    **settings: Any,
) -> list[Row]:
    """`reinforce` with this chapter's sizes: 8 questions with 8 answers each a step."""
    return reinforce(
        model,
        tokenizer,
        tasks,
        reward,
        steps=steps,
        prompts_per_step=PROMPTS,
        samples=SAMPLES,
        learning_rate=rate,
        max_new_tokens=longest,
        seed=seed,
        after_step=after_step,
        progress=False,
        **settings,
    )


def run_arm(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    arm: str,
    seed: int,
    rate: float = RATE,
    steps: int = STEPS,
    rank: int = 0,
    pull: float = 0.0,
    path: bool = True,
) -> Row:
    """One arm of ARMS from the start, and what came out: `glance`, `drawn` and `graded` (answers
    drawn, tokens graded), `seconds` (of the processor, without measuring), `lessons` (of
    imitation), `reward` and `no_spread` (of each step of the others), and with `path` also `old`
    (`share_of_old`) and a `glance` at each of CHECKPOINTS.

    rank: LoRA of this rank on all linear layers, instead of all weights. pull: strength of the KL
    to the start, with rewards.
    """
    start = start_model(base, tokenizer)
    model = copy.deepcopy(start).requires_grad_(True)
    if rank:
        add_lora(model, rank=rank, alpha=2 * rank)
    row: Row = {}
    if path:
        row["path"] = [{"step": 0, **glance(start, start, tokenizer)}]
    began, looking = time.process_time(), 0.0

    def look(step: int) -> None:
        nonlocal looking
        if path and step in CHECKPOINTS:
            before = time.process_time()
            row["path"].append({"step": step, **glance(model, start, tokenizer)})
            looking += time.process_time() - before

    how = {"steps": steps, "rate": rate, "seed": seed}
    if arm in ("gold", "own right"):
        row |= _imitate_arm(arm, start, model, tokenizer, after_step=look, **how)
    else:
        row |= _reward_arm(arm, model, tokenizer, kl=pull, after_step=look, **how)
    row["seconds"] = time.process_time() - began - looking
    row |= glance(model, start, tokenizer)
    if path:
        row["old"] = share_of_old(model, tokenizer)
    return rounded(row)


def _imitate_arm(
    arm: str,
    start: PreTrainedModel,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    **how: Any,
) -> Row:
    """Imitate the gold answers, or the right ones among the start's own; see `run_arm`."""
    lessons, drawn = sums_of("practice"), 0
    if arm == "own right":
        drawn = SAMPLES * len(lessons)
        lessons = best_of(start, tokenizer, lessons, reward_right, seed=seed)
    graded = imitate(model, tokenizer, lessons, seed=seed, **how)
    return {"drawn": drawn, "lessons": len(lessons), "graded": graded}


def _reward_arm(
    arm: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    after_step: AfterStep,
    **how: Any,
) -> Row:
    """Learn the practice sums by reward, with the method `arm`; see `run_arm`."""
    rows = learn_by_reward(
        model,
        tokenizer,
        sums_of("practice"),
        reward_right,
        method=arm,
        after_step=lambda row: after_step(row["step"]),
        **how,
    )
    return {
        "drawn": PROMPTS * SAMPLES * len(rows),
        "graded": round(sum(PROMPTS * SAMPLES * one["length"] for one in rows)),
        "reward": [one["reward"] for one in rows],
        "no_spread": [one["no_spread"] for one in rows],
    }


def rounded(value: Any) -> Any:
    """The same with four decimals, for a recorded row."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def run_beyond(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, task: str, arm: str, seed: int
) -> Row:
    """A task whose best answer no lesson shows, greedily answered after an arm.

    task: "terse", the start was shown wordy sums, and a shorter right answer earns more; "json", a
    sum is asked for as JSON, of which the start was shown facts alone. arm: "start", "gold" (wordy
    lessons), "best of 8" (one round) or "grpo". Returns `earned` (mean reward), `words` (mean), for
    json also `form` (share of JSON objects); `right`: share whose last number is the sum.
    """
    start = start_model(base, tokenizer, wordy=task == "terse")
    model = copy.deepcopy(start).requires_grad_(True)
    reward, longest = (reward_terse, 30) if task == "terse" else (reward_json, 40)
    practice, exam = sums_of("practice"), sums_of("exam")
    if task == "json":
        practice, exam = ask_for_json(practice), ask_for_json(exam)
    if arm == "gold":
        imitate(model, tokenizer, add_words(practice, seed=seed), seed=seed)
    elif arm == "best of 8":
        lessons = best_of(start, tokenizer, practice, reward, longest=longest, seed=seed)
        imitate(model, tokenizer, lessons, seed=seed)
    elif arm == "grpo":
        learn_by_reward(model, tokenizer, practice, reward, longest=longest, seed=seed)
    said = answer(model, tokenizer, exam, max_new_tokens=longest)
    pairs = list(zip(exam, said, strict=True))
    return rounded(
        {
            "earned": sum(reward(task, text, True) for task, text in pairs) / len(said),
            "words": sum(len(text.split()) for text in said) / len(said),
            "form": sum(text.startswith("{") and text.endswith("}") for text in said) / len(said),
            "right": sum(numbers_in(text)[-1:] == [sum_of(task)] for task, text in pairs)
            / len(said),
            "said": said[:3],
        }
    )


def ask_for_json(talks: Sequence[Conversation]) -> list[Conversation]:
    """The same sums, asked for as JSON; the gold answers stay as they are, for their numbers."""
    asked = []
    for talk in talks:
        a, b = numbers_in(talk[0]["content"])
        question = f"Give the sum of {a} and {b} as JSON."
        asked.append([{"role": "user", "content": question}, *talk[1:]])
    return asked


def run_cold(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    lessons: int,
    seed: int,
    steps: int = 15,
) -> Row:
    """GRPO from a start that was never shown a sum, after `lessons` sums of SFT (6 steps), or none.

    Returns `before` and `right`: shares of the exam before GRPO and after; `reward` of each step.
    """
    start = start_model(base, tokenizer, sums=0)
    model = copy.deepcopy(start).requires_grad_(True)
    if lessons:
        imitate(model, tokenizer, sums_of("shown")[:lessons], steps=6, rate=1e-3, seed=seed)
    before = glance(model, start, tokenizer)["right"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing was learned is what is measured here
        rows = learn_by_reward(
            model, tokenizer, sums_of("practice"), reward_right, steps=steps, seed=seed
        )
    after = glance(model, start, tokenizer)["right"]
    return rounded({"before": before, "right": after, "reward": [row["reward"] for row in rows]})


def learn_and_watch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    reward: Callable[[Task, str, bool], float],
    **settings: Any,
) -> list[Row]:
    """`learn_by_reward` on the practice sums; every row has `right` too: the share of the step's
    answers that are the gold answers, whatever they earned."""
    seen: list[float] = []

    def graded(task: Task, text: str, stopped: bool) -> float:
        seen.append(reward_right(task, text, stopped))
        return reward(task, text, stopped)

    def note(row: Row) -> None:
        row["right"] = sum(seen) / len(seen)
        seen.clear()

    tasks = sums_of("practice")
    return learn_by_reward(model, tokenizer, tasks, graded, after_step=note, **settings)


def run_hole(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    kl: float,
    seed: int,
    steps: int = 45,
) -> Row:
    """GRPO on `reward_long`, with a pull to the start of strength `kl`: what every step earned, was
    right, ended by itself; `said`, three answers of the last model."""
    start = start_model(base, tokenizer)
    model = copy.deepcopy(start).requires_grad_(True)
    how = {"steps": steps, "longest": 24, "kl": kl, "seed": seed}
    rows = learn_and_watch(model, tokenizer, reward_long, **how)
    said = answer(model, tokenizer, sums_of("exam")[:3], max_new_tokens=24)
    kept = ("reward", "right", "stopped", "length", "no_spread")
    return rounded({name: [row[name] for row in rows] for name in kept} | {"said": said})


# preferences


def answer_states(model: PreTrainedModel, rollout: Rollout) -> torch.Tensor:
    """(N, D): the mean of the last hidden states over the tokens of each answer."""
    with torch.no_grad():
        states = graded_states(model, rollout.batch)
    parts = states.split(rollout.mask.sum(dim=1).tolist())
    return torch.stack([part.mean(dim=0) for part in parts])


def draw_pairs(
    start: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    part: str,
    *,
    seed: int,
    slips: float = 0.0,
    count: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of answers that the start drew to one question, one right and one wrong: the states of
    the chosen and of the rejected ones, (N, D) each.

    The rater chooses the right one; with probability `slips` the other. count: of the questions of
    the part, so many; all if None.
    """
    tasks, rng = sums_of(part)[:count], random.Random(f"rater {seed}")
    prompts = [task[:-1] for task in tasks]
    drawn = sample_groups(start, tokenizer, prompts, SAMPLES, max_new_tokens=LONGEST, seed=seed)
    states, pairs = answer_states(start, drawn), []
    for place, task in enumerate(tasks):
        group = range(place * SAMPLES, (place + 1) * SAMPLES)
        marks = {i: reward_right(task, drawn.texts[i], drawn.stopped[i]) for i in group}
        good, bad = ([i for i in group if marks[i] == mark] for mark in (1, 0))
        for pair in zip(good, bad, strict=False):
            pairs.append(pair if rng.random() >= slips else pair[::-1])
    chosen, rejected = torch.tensor(pairs).T
    return states[chosen], states[rejected]


def fit_scores(chosen: torch.Tensor, rejected: torch.Tensor, *, steps: int = 300) -> torch.Tensor:
    """(D,) weights whose score orders the pairs: the Bradley-Terry loss, with weight decay."""
    weights = torch.zeros(chosen.shape[1], requires_grad=True)
    optimizer = torch.optim.AdamW([weights], lr=0.02, weight_decay=1.0)
    for _ in range(steps):
        loss = -F.logsigmoid((chosen - rejected) @ weights).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weights.detach()


def learned_reward(
    start: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, weights: torch.Tensor
) -> Callable[[Task, str, bool], float]:
    """A reward that scores an answer by the start's states of it."""

    def score(task: Task, text: str, stopped: bool) -> float:
        talk = [*task[:-1], {"role": "assistant", "content": text}]
        batch = pad_batch(encode_conversations([talk], tokenizer), tokenizer.pad_token_id)
        with torch.no_grad():
            return (graded_states(start, batch).mean(dim=0) @ weights).item()

    return score


def run_preference(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int, steps: int = 40
) -> Row:
    """A reward learned from pairs of which the rater judges one in ten wrongly, then GRPO with it.

    Returns `pairs`; `ordered`, the share of pairs about exam questions that it orders rightly;
    `reward` (learned) and `right` (true) of each step; and a `glance` at the end as `after`.
    """
    start = start_model(base, tokenizer)
    chosen, rejected = draw_pairs(start, tokenizer, "practice", seed=seed, slips=0.1)
    weights = fit_scores(chosen, rejected)
    better, worse = draw_pairs(start, tokenizer, "exam", seed=1000 + seed)
    model = copy.deepcopy(start).requires_grad_(True)
    score = learned_reward(start, tokenizer, weights)
    rows = learn_and_watch(model, tokenizer, score, steps=steps, seed=seed)
    return rounded(
        {
            "pairs": len(chosen),
            "ordered": ((better - worse) @ weights > 0).float().mean().item(),
            "reward": [row["reward"] for row in rows],
            "right": [row["right"] for row in rows],
            "after": glance(model, start, tokenizer)["right"],
        }
    )


# reading what runs left


def forgotten_at(accuracy: list[float], old_loss: list[float], level: float) -> float | None:
    """The loss that the old tasks gained where the accuracy first reaches `level`, on the lines
    between checkpoints; 0.0 if the start is there, None if the run never is."""
    if accuracy[0] >= level:
        return 0.0
    steps = zip(itertools.pairwise(accuracy), itertools.pairwise(old_loss), strict=True)
    for (before, after), (low, high) in steps:
        if after >= level:
            way = (level - before) / (after - before)
            return low + way * (high - low) - old_loss[0]
    return None


def diagnose(rows: list[dict[str, float]]) -> str:
    """Cold start, broken, hacked, finished or learning: the first that fits a run's log."""

    def mean(some: list[dict[str, float]], name: str) -> float:
        return sum(row[name] for row in some) / len(some)

    first, last = rows[:5], rows[-5:]
    highest = max(row["reward"] for row in rows)
    if highest == 0:
        return "cold start"
    if mean(last, "reward") < highest / 2:
        return "broken"
    rise = mean(last, "reward") - mean(first, "reward")
    if rise >= 0.1 and mean(last, "right") - mean(first, "right") <= -0.1:
        return "hacked"
    return "finished" if mean(last, "no_spread") >= 0.9 else "learning"


def working_range(rows: list[dict[str, float]], share: float = 0.9) -> tuple[float, float]:
    """The lowest and the highest rate around the best one that score `share` of it or more."""
    by_rate: dict[float, list[float]] = {}
    for row in sorted(rows, key=lambda row: row["rate"]):
        by_rate.setdefault(row["rate"], []).append(row["right"])
    rates = list(by_rate)
    scores = [sum(found) / len(found) for found in by_rate.values()]
    low = high = scores.index(max(scores))
    least = share * max(scores)
    while low > 0 and scores[low - 1] >= least:
        low -= 1
    while high + 1 < len(rates) and scores[high + 1] >= least:
        high += 1
    return rates[low], rates[high]


# a picture


def draw_ways() -> Figure:
    """A schematic: who writes the answers, who marks them, and what becomes of the marks."""
    figure = plots.new_figure((11.5, 3.9))
    ax = figure.subplots()
    ax.set(xlim=(0, 12), ylim=(0, 4.6))
    ax.axis("off")
    heads = ("who answers?", "who marks it?", "what is learned from it")
    rows = (
        ("SFT on gold answers", "a person", "nobody", "every answer, alike"),
        ("SFT on own right answers", "the model, once", "right or wrong", "the right ones, alike"),
        ("REINFORCE, GRPO, PPO", "the model, every step", "a reward", "up and down, by reward"),
    )
    for x, head in zip((4.6, 7.4, 10.3), heads, strict=True):
        ax.text(x, 4.2, head, ha="center", va="center", color=plots.BLUE, fontweight="bold")
    for y, (name, *cells) in zip((3.3, 2.2, 1.1), rows, strict=True):
        ax.text(0, y, name, va="center", fontweight="bold")
        for x, text in zip((4.6, 7.4, 10.3), cells, strict=True):
            own = text.startswith(("the model", "up"))
            box = {
                "boxstyle": "round,pad=0.45",
                "facecolor": plots.ANSWER if own else "white",
                "edgecolor": plots.INK,
            }
            ax.text(x, y, text, ha="center", va="center", bbox=box, fontsize=12)
    arrow = FancyArrowPatch(
        (10.3, 0.75), (4.6, 0.75), connectionstyle="arc3,rad=-0.13", arrowstyle="-|>",
        mutation_scale=18, color=plots.VERMILLION, linewidth=2,
    )  # fmt: skip
    ax.add_patch(arrow)
    ax.text(7.4, 0.05, "the changed model writes the next answers", ha="center", va="center",
            color=plots.VERMILLION)  # fmt: skip
    ax.set_title("Imitation is told what to say; a reward only how good it was")
    return figure
