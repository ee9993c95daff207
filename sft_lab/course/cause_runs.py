"""Chapter 13: task B is learned after task A in one of ARMS, each with one thing changed.

`run_arm` measures one arm with one seed in about five seconds; `tools/experiments/13_*.py` and the
chapter share it.
"""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import encode_prompts
from sft_lab.course import forgetting_runs as runs
from sft_lab.forgetting import average_weights
from sft_lab.lora import add_lora, merge_lora

PLAIN, SAME, CONTRARY = "{}", runs.CONVENTION, "Nay: {} Out."
Prepare = Callable[[PreTrainedModel], object]


@dataclass(frozen=True)
class Arm:
    """How task B is learned; the defaults are the plain run of the chapter.

    replay: old lessons mixed in, as a share of the new ones. answers: what stands around B's
    answers. rank: LoRA of this rank, all linear layers. frozen: so many lower layers, and the
    embedding, stay. average: how far from the weights before to those after, 1 is after. hold:
    strength of a pull back to the weights before. touched: which tenths of each matrix B may
    change: "all", or the share `part` that A changed "most", "least", or drawn at "random".
    """

    rate: float = runs.RATE
    rows: int = 600
    epochs: int = runs.EPOCHS
    replay: float = 0.0
    answers: str = PLAIN
    rank: int = 0
    frozen: int = 0
    average: float = 1.0
    hold: float = 0.0
    touched: str = "all"
    part: float = 0.5


def wrap(talks: runs.Conversations, convention: str) -> runs.Conversations:
    """The conversations with their answers inside a convention, "{}" where the answer goes."""
    return [
        [
            *talk[:-1],
            {"role": "assistant", "content": convention.replace("{}", talk[-1]["content"])},
        ]
        for talk in talks
    ]


def lessons_of_b(arm: Arm, seed: int) -> runs.Conversations:
    """What an arm trains on: new lessons, and the old ones it may see again."""
    new = wrap(runs.lessons_of("skills", seed=seed, count=arm.rows), arm.answers)
    old = runs.lessons_of("convention", seed=seed)[: round(arm.replay * arm.rows)]
    mixed = new + old
    random.Random(seed).shuffle(mixed)
    return mixed


def freeze_below(model: PreTrainedModel, layers: int) -> None:
    """The embedding and so many lower layers get no gradient."""
    model.get_input_embeddings().requires_grad_(False)
    for layer in model.model.layers[:layers]:
        layer.requires_grad_(False)


def hold_back(model: PreTrainedModel, strength: float) -> None:
    """Add strength times (weights now - weights at the start) to every gradient."""
    for weight in model.parameters():
        start = weight.detach().clone()
        weight.register_hook(
            lambda grad, weight=weight, start=start: grad + strength * (weight.detach() - start)
        )


def choose_weights(
    base: PreTrainedModel, after_a: PreTrainedModel, which: str, part: float, seed: int
) -> dict[str, torch.Tensor]:
    """A mask for each parameter: the share `part` that A changed "most" or "least", or "random"."""
    generator = torch.Generator().manual_seed(seed)
    start, masks = dict(base.named_parameters()), {}
    for name, weight in after_a.named_parameters():
        change = (weight - start[name]).abs().detach()
        if which == "random":
            change = torch.rand(change.shape, generator=generator)
        order = change.flatten().argsort(descending=which == "most")
        mask = torch.zeros(change.numel())
        mask[order[: round(part * change.numel())]] = 1
        masks[name] = mask.view_as(change)
    return masks


def touch_only(model: PreTrainedModel, masks: dict[str, torch.Tensor]) -> None:
    """Multiply every gradient with its mask: a weight without a gradient stays where it is."""
    for name, weight in model.named_parameters():
        weight.register_hook(lambda grad, mask=masks[name]: grad * mask)


def learn_b(
    base: PreTrainedModel,
    after_a: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    arm: Arm,
    seed: int,
) -> PreTrainedModel:
    """The model after task A, after task B too, learned in the way of an arm."""

    def prepare(model: PreTrainedModel) -> None:
        if arm.rank:
            torch.manual_seed(seed)  # LoRA's A is drawn
            add_lora(model, rank=arm.rank, alpha=2 * arm.rank)
        if arm.frozen:
            freeze_below(model, arm.frozen)
        if arm.hold:
            hold_back(model, arm.hold)
        if arm.touched != "all":
            touch_only(model, choose_weights(base, after_a, arm.touched, arm.part, seed))

    model = runs.learn(
        after_a,
        tokenizer,
        lessons_of_b(arm, seed),
        seed=seed,
        rate=arm.rate,
        epochs=arm.epochs,
        prepare=prepare,
    )
    model = merge_lora(model) if arm.rank else model
    return average_weights(after_a, model, arm.average) if arm.average < 1 else model


@torch.no_grad()
def question_states(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: runs.Conversations
) -> list[torch.Tensor]:
    """Hidden states (questions, D) where the answer begins, one for each layer."""
    rows = encode_prompts(tokenizer, [talk[:-1] for talk in asked])
    states = [
        model(torch.tensor([row]), output_hidden_states=True, use_cache=False).hidden_states
        for row in rows
    ]
    return [
        torch.stack([state[depth][0, -1] for state in states]) for depth in range(len(states[0]))
    ]


def _arms() -> dict[str, Arm]:
    """The arms of the recorded sweep, by name."""
    arms = {"plain": Arm()}
    arms |= {f"{16 * steps} lessons once": Arm(rows=16 * steps, epochs=1) for steps in STEPS}
    for rate, epochs in ((1e-4, 2), (1e-4, 8), (3e-4, 2), (3e-4, 4), (3e-3, 2)):
        arms[f"rate {rate:.0e}, {epochs} epochs"] = Arm(rate=rate, epochs=epochs)
    arms |= {f"replay {share:.0%}": Arm(replay=share) for share in (0.01, 0.05, 0.1, 0.2)}
    arms |= {"same convention": Arm(answers=SAME), "contrary convention": Arm(answers=CONTRARY)}
    for rank, rate in ((2, 3e-3), (8, 1e-3), (8, 3e-3), (32, 3e-3)):
        arms[f"LoRA {rank}, rate {rate:.0e}"] = Arm(rank=rank, rate=rate)
    arms |= {f"frozen {layers}": Arm(frozen=layers) for layers in (1, 2, 3)}
    arms |= {f"average {share:.1f}": Arm(average=share) for share in (0.3, 0.4, 0.5, 0.7)}
    arms |= {f"hold {strength:g}": Arm(hold=strength) for strength in (0.01, 0.1, 0.3, 1.0)}
    arms |= {f"touched {which}": Arm(touched=which, part=0.3) for which in TOUCHED}
    arms |= {"100 lessons": Arm(rows=100, epochs=12), "300 lessons": Arm(rows=300, epochs=4)}
    return arms


STEPS = (2, 4, 8, 16, 32)
TOUCHED = ("most", "least", "random")
ARMS = _arms()
AGAIN = (0, 1, 2, 4, 8, 16, 32)  # rows of task A that a model sees again
STARTS = ("A, then B", "B alone")


def run_arm(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, arm: str, seed: int
) -> dict[str, float]:
    """Task A, then B in the way of `ARMS[arm]`; `forgetting_runs.measure` of what came out."""
    after_a = runs.after_task_a(base, tokenizer, seed)
    model = learn_b(base, after_a, tokenizer, ARMS[arm], seed)
    return runs.measure(model, tokenizer, before=after_a)


def run_again(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, start: str, rows: int, seed: int
) -> dict[str, float]:
    """Task A measured after `rows` of its lessons are shown again, 20 steps of up to 16 of them, to
    a model that once knew it ("A, then B") or never did ("B alone")."""
    begin = after_both if start == "A, then B" else after_b_alone
    model = begin(base, tokenizer, seed)
    if rows:
        lessons = runs.lessons_of("convention", seed=seed)[:rows]
        steps = -(-rows // runs.BATCH)
        model = runs.learn(model, tokenizer, lessons, seed=seed, rate=5e-4, epochs=20 // steps)
    return runs.measure_old(model, tokenizer)


@functools.lru_cache(maxsize=4)
def after_b_alone(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int = 0
) -> PreTrainedModel:
    """The base after task B, without A. Do not change it."""
    return runs.learn(base, tokenizer, runs.lessons_of("skills", seed=seed), seed=seed)


@functools.lru_cache(maxsize=4)
def after_both(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int = 0
) -> PreTrainedModel:
    """The base after task A and then task B, plainly. Do not change it."""
    after_a = runs.after_task_a(base, tokenizer, seed)
    return learn_b(base, after_a, tokenizer, Arm(), seed)


def run_repair(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    old: int,
    new: int,
    rate: float = 5e-4,
    epochs: int = 10,
    seed: int = 0,
) -> dict[str, float]:
    """After tasks A and B, train on `old` lessons of A and `new` ones of B, mixed; return `old` and
    `new`, the shares of the two exams that are right."""
    lessons = runs.lessons_of("convention", seed=seed)[:old]
    lessons += runs.lessons_of("skills", seed=seed)[:new]
    random.Random(seed).shuffle(lessons)
    model = runs.learn(
        after_both(base, tokenizer, seed), tokenizer, lessons, seed=seed, rate=rate, epochs=epochs
    )
    right = runs.share_right(model, tokenizer, runs.exam_of("skills"))
    return {"old": runs.measure_old(model, tokenizer)["old"], "new": right}
