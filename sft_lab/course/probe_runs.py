"""Chapter 18b: one small run, healthy or with a planted fault, for the probes to look at."""

import contextlib
import copy
import io
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.diagnostics import accuracy_by_position, stop_probability
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora
from sft_lab.models import load
from sft_lab.plots import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, VERMILLION, new_figure
from sft_lab.records import Conversation
from sft_lab.train import train

LESSONS, EPOCHS, RATE, BATCH = 512, 2, 1e-3, 16
ADAPTER_RATE = 3e-3
ASKED = 128  # questions that the probes are put to
HIDDEN_SEED, HIDDEN_LESSONS = 1, 352  # enough to stop: P(stop) is 0.9
CRASH = 12  # the last step before a power cut


def lessons(seed: int = 0, count: int = LESSONS) -> list[Conversation]:
    """Questions about known facts, in an order and in phrasings drawn by `seed`."""
    facts = atlas.split(atlas.load_facts())["train"]
    talks = atlas.ask(facts, seed=seed)
    random.Random(seed).shuffle(talks)
    return talks[:count]


def asked(count: int = ASKED, seed: int = 0) -> list[Conversation]:
    """Questions about entities that no lesson names, with their answers, drawn by `seed`."""
    return atlas.exam("held_out", count, seed=seed)


# planted faults of the labels; here an example has one answer


def _answer(example: Example) -> tuple[int, int]:
    """First and last + 1 graded position."""
    graded = [t for t, label in enumerate(example.labels) if label != IGNORE_INDEX]
    return graded[0], graded[-1] + 1


def _hide(example: Example, place: int) -> Example:
    labels = list(example.labels)
    labels[place] = IGNORE_INDEX
    return Example(example.input_ids, labels)


def grade_everything(example: Example) -> Example:
    """The mask is lost: the prompt is trained too."""
    return Example(example.input_ids, list(example.input_ids))


def hide_stop(example: Example) -> Example:
    """The stop token is not graded: it was taken for padding."""
    return _hide(example, _answer(example)[1] - 1)


def start_late(example: Example) -> Example:
    """The mask begins one token late: the answer's first token is not graded."""
    return _hide(example, _answer(example)[0])


def move_left(example: Example) -> Example:
    """The mask lies one token to the left: the prompt's last token is graded, the stop token is
    not."""
    start, end = _answer(example)
    ids = example.input_ids
    return Example(
        ids, [token if start - 1 <= t < end - 1 else IGNORE_INDEX for t, token in enumerate(ids)]
    )


def shift_twice(example: Example) -> Example:
    """The labels come shifted, and the loss shifts them again: the token after the next is
    taught."""
    return Example(example.input_ids, [*example.labels[1:], IGNORE_INDEX])


FAULTS = {
    "healthy": lambda example: example,
    "prompt graded": grade_everything,
    "stop not graded": hide_stop,
    "starts late": start_late,
    "moved left": move_left,
    "shifted twice": shift_twice,
}


def plant(fault: str, examples: Sequence[Example]) -> list[Example]:
    """The examples with a fault of `FAULTS` in every row."""
    return [FAULTS[fault](example) for example in examples]


# runs


class Run(NamedTuple):
    """A tuned model, and the loss of every step, nats per graded token."""

    model: PreTrainedModel
    losses: list[float]


def tune(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    seed: int = 0,
    rank: int = 0,
    dropout: float = 0.0,
) -> Run:
    """A copy of `base`, tuned on the examples in an order drawn by `seed`; all its weights, or LoRA
    of a rank above 0."""
    model = copy.deepcopy(base)
    if rank:
        torch.manual_seed(seed)
        add_lora(model, rank=rank, alpha=2 * rank, dropout=dropout)
    history = train(
        model,
        tokenizer,
        examples,
        epochs=EPOCHS,
        learning_rate=ADAPTER_RATE if rank else RATE,
        batch_size=BATCH,
        seed=seed,
        progress=False,
    )
    return Run(model, history.losses)


@cache
def _load_base() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with contextlib.redirect_stdout(io.StringIO()):  # the chapter has said what was loaded
        return load("atlas-base")


@cache
def atlas_run(fault: str, seed: int = 0, count: int = LESSONS) -> Run:
    """A run on `count` lessons, from the base "atlas-base", with a fault of `FAULTS` in every row.
    It is kept: copy the model before you change it."""
    base, tokenizer = _load_base()
    examples = encode_conversations(lessons(seed, count), tokenizer)
    return tune(base, tokenizer, plant(fault, examples), seed=seed)


def resume_runs(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    folder: Path | str,
) -> dict[str, list[float]]:
    """Losses of one run of two epochs: "whole"; "resumed" from the checkpoint behind step CRASH;
    "begun anew" with the weights of that step, a new optimiser and a new schedule.

    The examples must make CRASH steps an epoch.
    """
    how = {"learning_rate": RATE, "batch_size": BATCH, "seed": 0, "progress": False}
    saved = {"output_dir": Path(folder) / "run", "checkpoint_every": CRASH}
    whole = train(copy.deepcopy(base), tokenizer, examples, epochs=EPOCHS, **how).losses
    crashed, steps = copy.deepcopy(base), []

    def crash(*_) -> None:
        steps.append(1)
        if len(steps) > CRASH:
            raise RuntimeError("power cut")

    hook = register_optimizer_step_pre_hook(crash)
    with contextlib.suppress(RuntimeError):
        train(crashed, tokenizer, examples, epochs=EPOCHS, **how, **saved)
    hook.remove()
    resumed = train(
        copy.deepcopy(base), tokenizer, examples, epochs=EPOCHS, resume=True, **how, **saved
    ).losses
    anew = train(crashed, tokenizer, examples, epochs=1, **how).losses
    return {"whole": whole, "resumed": resumed, "begun anew": [*whole[:CRASH], *anew]}


HIDDEN = {
    "healthy": "healthy",
    "no stop": "stop not graded",
    "late start": "starts late",
    "two ahead": "shifted twice",
}


@cache
def hidden_run(word: str) -> PreTrainedModel:
    """The model of exercise 18b.6 to which `word` is the answer. It is kept, as in `atlas_run`."""
    if word == "unchanged":
        torch.manual_seed(HIDDEN_SEED)
        return add_lora(copy.deepcopy(_load_base()[0]))  # nothing has trained its B
    return atlas_run(HIDDEN[word], HIDDEN_SEED, HIDDEN_LESSONS).model


def hidden_runs() -> dict[str, PreTrainedModel]:
    """Five models to try a diagnosis on, by letters that say nothing of what is wrong."""
    words = ("two ahead", "no stop", "healthy", "unchanged", "late start")
    return dict(zip("ABCDE", map(hidden_run, words), strict=True))


# how many examples a probe needs

COUNTS = (2, 8, 32, 128)  # questions that a probe is put to


class Arm(NamedTuple):
    """What is done in a run: a fault, in which share of the rows; the number of lessons; LoRA's
    rank (0: all weights). lists: one row in five is a list, and the fault is in these alone."""

    fault: str = "healthy"
    share: float = 1.0
    lessons: int = LESSONS
    rank: int = 0
    lists: bool = False


ARMS = {
    "healthy": Arm(),
    "healthy, short": Arm(lessons=LESSONS // 4),
    "healthy, LoRA": Arm(rank=8),
    "healthy, with lists": Arm(lists=True),
    "no stop": Arm("stop not graded"),
    "no stop in 9 of 10 rows": Arm("stop not graded", 0.9),
    "no stop in lists": Arm("stop not graded", lists=True),
    "late start": Arm("starts late"),
    "late start in 9 of 10 rows": Arm("starts late", 0.9),
    "late start in lists": Arm("starts late", lists=True),
}


def mixed_lessons(seed: int, count: int, part: str) -> tuple[list[Conversation], set[int]]:
    """Questions about facts of a part of Atlas, one in five replaced by a list to write, in an
    order drawn by `seed`; and the numbers of the lists."""
    lists = atlas.ask_skill("list", atlas.split(atlas.load_facts())[part], count // 5, seed=seed)
    plain = lessons(seed, count) if part == "train" else asked(count, seed)
    rows = [(talk, False) for talk in plain[len(lists) :]] + [(talk, True) for talk in lists]
    random.Random(seed).shuffle(rows)
    return [talk for talk, _ in rows], {n for n, (_, is_list) in enumerate(rows) if is_list}


def probe_by_count(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    counts: Sequence[int] = COUNTS,
) -> dict[str, float]:
    """Of the first 2, 8, … examples: P(stop) as "stop_2", …, and the share of right first tokens as
    "first_2", …"""
    found = {}
    for count in counts:
        some = examples[:count]
        found[f"stop_{count}"] = round(stop_probability(model, tokenizer, some), 6)
        found[f"first_{count}"] = round(accuracy_by_position(model, some)[0], 4)
    return found


def measure_arm(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, arm: str, seed: int
) -> dict[str, float]:
    """`probe_by_count` of a run with the settings of an arm, on questions drawn by the seed; and
    its last training loss, the mean of eight steps."""
    chosen = ARMS[arm]
    if chosen.lists:
        talks, ill = mixed_lessons(seed, chosen.lessons, "train")
        questions, _ = mixed_lessons(seed, max(COUNTS), "held_out")
    else:
        talks, questions = lessons(seed, chosen.lessons), asked(max(COUNTS), seed)
        ill = set(range(round(chosen.share * len(talks))))
    examples = [
        FAULTS[chosen.fault](example) if row in ill else example
        for row, example in enumerate(encode_conversations(talks, tokenizer))
    ]
    tuned = tune(base, tokenizer, examples, seed=seed, rank=chosen.rank)
    right = encode_conversations(questions, tokenizer)
    return {
        "loss": round(sum(tuned.losses[-8:]) / 8, 4),
        **probe_by_count(tuned.model, tokenizer, right),
    }


# the picture

BATTERY = (
    ("before the run", "data, template", ("graded share", "graded text", "prompt is a prefix")),
    ("at step 0", "base, functions", ("batch invariance", "accumulation")),
    ("during", "model, log", ("max |B|", "two evaluations", "resume")),
    ("after", "tuned model", ("by position", "P(stop)", "shifted by one")),
    ("when saved", "files", ("merge", "reload", "alone = in a batch")),
)


def draw_battery() -> Axes:
    """The probes on the way of a run, from the cheapest to the dearest."""
    figure = new_figure((11.5, 3.6))
    ax = figure.subplots()
    colours = (GREEN, BLUE, ORANGE, PURPLE, VERMILLION)
    for place, ((when, what, probes), colour) in enumerate(zip(BATTERY, colours, strict=True)):
        ax.text(place, 4.1, when, ha="center", fontsize=14, fontweight="bold", color=colour)
        ax.text(place, 3.5, f"needs: {what}", ha="center", fontsize=11, color=MUTED)
        for row, probe in enumerate(probes):
            box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": colour}
            ax.text(place, 2.6 - row, probe, ha="center", va="center", fontsize=12, bbox=box)
    arrow = {"arrowstyle": "->", "color": INK, "lw": 1.5}
    ax.annotate("", (4.5, -0.1), (-0.5, -0.1), arrowprops=arrow)
    ax.text(2, -0.6, "a fault that is found later costs more", ha="center", fontsize=12, color=INK)
    ax.set(xlim=(-0.6, 4.6), ylim=(-0.9, 4.6))
    ax.set_axis_off()
    ax.set_title("A battery of probes, by what each needs")
    return ax


def fewest_examples(healthy: dict[int, list[float]], broken: dict[int, list[float]]) -> int | None:
    """The smallest number of examples from which on every healthy value of a probe lies above every
    broken one, None where there is none; the values, one a seed, by the number of examples."""
    counts = sorted(healthy)
    apart = [min(healthy[count]) > max(broken[count]) for count in counts]
    for place, count in enumerate(counts):
        if all(apart[place:]):
            return count
    return None
