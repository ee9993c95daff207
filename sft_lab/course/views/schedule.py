"""A learning-rate schedule and the run that it makes (chapter 04): sliders for peak, warm-up and
steps.

A view must answer at once, so what it trains is small: the output head of a model alone, on hidden
states that the frozen rest of the model computed once. It is a real run all the same, with the
course's schedule, AdamW and clipping, repeated at every move of a slider. Deep models break at
smaller learning rates than a head does.
"""

import base64
import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import ipywidgets
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.batches import pad_batch
from sft_lab.course.views.figures import one_at_a_time
from sft_lab.course.views.widgets import paragraph, to_png
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.plots import BLUE, INK, MUTED, PROMPT, VERMILLION, new_figure
from sft_lab.train import learning_rate_at

MOST_STEPS, LEAST_NATS, MOST_NATS = (
    150,
    0.25,
    50.0,
)  # ends of the axes, fixed: two settings can be compared by eye
SMOOTH = 9  # steps


@torch.no_grad()
def make_head_task(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> "HeadTask":
    """What the view trains on: the hidden state before every graded token of `examples`, and the
    head as it is.

    Raises ValueError when no token is graded: usually truncation cut the answers away.
    """
    batch = pad_batch(examples, tokenizer.pad_token_id)
    device = next(model.parameters()).device
    hidden = model.get_decoder()(
        batch["input_ids"].to(device), use_cache=False
    ).last_hidden_state  # (B, T, D)
    targets = batch["labels"][:, 1:]
    graded = targets != IGNORE_INDEX
    if not graded.any():
        raise ValueError(
            f"{len(examples)} examples and no graded token: check them with "
            "sft_lab.labels.check_labels"
        )
    head = model.get_output_embeddings().weight.detach().float().cpu().clone()
    return HeadTask(hidden[:, :-1][graded.to(device)].float().cpu().clone(), targets[graded], head)


def train_head(
    task: "HeadTask",
    *,
    peak: float,
    warmup_ratio: float,
    steps: int,
    tokens_a_step: int = 64,
    seed: int = 0,
) -> "HeadRun":
    """Train a copy of the head for `steps` steps of `tokens_a_step` graded tokens, drawn by `seed`.

    peak: highest learning rate. warmup_ratio: share of the steps in which the rate rises, 0 to 1.
    """
    if steps < 1 or not 0.0 <= warmup_ratio <= 1.0:
        raise ValueError(
            f"steps is {steps} and warmup_ratio {warmup_ratio}: at least one step, and a ratio "
            "in [0, 1]"
        )
    head = task.head.clone().requires_grad_()
    optimizer = torch.optim.AdamW([head], lr=peak, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    warmup_steps = math.ceil(warmup_ratio * steps)
    rates = [
        learning_rate_at(step, steps, peak=peak, warmup_steps=warmup_steps) for step in range(steps)
    ]
    losses = []
    for rate in rates:
        chosen = torch.randint(len(task.targets), (tokens_a_step,), generator=generator)
        loss = F.cross_entropy(task.hidden[chosen] @ head.T, task.targets[chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_([head], 1.0)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return HeadRun(rates, losses, head_loss(task, task.head), head_loss(task, head.detach()))


def head_loss(task: "HeadTask", head: torch.Tensor) -> float:
    """Mean loss of all tokens of the task under this head, in nats per graded token. head: (V,
    D)."""
    return F.cross_entropy(task.hidden @ head.T, task.targets).item()


def describe_schedule(run: "HeadRun") -> str:
    """What `draw_schedule` shows, in words: the schedule, and what became of the loss."""
    steps, top = len(run.rates), int(np.argmax(run.rates))
    rise = (
        f"rises to {run.rates[top]:.2g} in {top} steps and"
        if top
        else f"starts at {run.rates[0]:.2g} and"
    )
    return (
        f"The learning rate {rise} has fallen to {run.rates[-1]:.1g} in the last of {steps} "
        f"steps. Over all tokens the loss goes from {run.before:.2f} to {run.after:.2f} nats per "
        f"graded token; its highest step is {max(run.losses):.1f}. {judge(run)}."
    )


def judge(run: "HeadRun") -> str:
    """The run in a few words, by the loss over all tokens before and after it."""
    kept = run.after / run.before
    if kept > 1.0:
        return "It diverged: the loss ends higher than it began"
    if kept > 0.75:
        return "It barely learned: the learning rate is too low, or the steps are too few"
    if max(run.losses) > 1.75 * run.before:
        return "It learned, after a loss spike on the way"
    return "It learned"


def draw_schedule(run: "HeadRun", previous: "HeadRun | None" = None) -> Figure:
    """Left the learning rate of every step, right the loss of every step and its running mean;
    `previous` in grey."""
    figure = new_figure((11.0, 3.9))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for shown, colour, name in ((previous, PROMPT, "the setting before"), (run, BLUE, "this run")):
        if shown is None:
            continue
        x = np.arange(1, len(shown.rates) + 1)
        left.plot(x, shown.rates, color=colour, linestyle="-" if shown is run else "--")
        if shown is run:
            right.plot(x, shown.losses, color=colour, alpha=0.25, linewidth=1.2)
        right.plot(
            x,
            smooth(shown.losses),
            color=colour,
            linestyle="-" if shown is run else "--",
            label=name,
        )
    right.axhline(run.before, color=VERMILLION, linestyle=":", linewidth=1.6)
    right.annotate(
        f"before training {run.before:.2f}",
        (MOST_STEPS, run.before),
        (-2, 5),
        ha="right",
        textcoords="offset points",
        color=VERMILLION,
        fontsize=11,
    )
    above = " (part lies above the axis)" if max(run.losses) > MOST_NATS else ""
    left.set(xlim=(0, MOST_STEPS), xlabel="step", ylabel="learning rate")
    left.set_ylim(0, 1.1 * max(run.rates) if max(run.rates) > 0 else 1)
    left.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    right.set(
        xlim=(0, MOST_STEPS), yscale="log", ylim=(LEAST_NATS, MOST_NATS), xlabel=f"step{above}"
    )
    right.set_yticks([0.5, 1, 2, 4, 8, 16, 32], ["0.5", "1", "2", "4", "8", "16", "32"])
    right.set_yticks([], minor=True)
    right.set_ylabel("nats per graded token")
    right.scatter(
        [len(run.losses)],
        [min(run.after, MOST_NATS)],
        s=70,
        color=BLUE,
        edgecolor=INK,
        zorder=3,
        clip_on=False,
    )
    right.annotate(
        f"{run.after:.2f} after",
        (len(run.losses), min(run.after, MOST_NATS)),
        (6, 10),
        textcoords="offset points",
        fontweight="bold",
        ha="left" if len(run.losses) < 120 else "right",
    )
    if previous is not None:
        right.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=11, labelcolor=MUTED
        )
    verdict, _, _ = judge(run).partition(":")
    finding = (
        f"{verdict}: {run.before:.2f} → {run.after:.2f} nats per token in {len(run.losses)} steps"
    )
    figure.suptitle(finding, x=0.01, ha="left", fontweight="bold", fontsize=15)
    return figure


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Centred running mean over SMOOTH steps; at the ends over those that there are."""
    weights = np.ones(min(SMOOTH, len(losses)))
    return np.convolve(losses, weights, "same") / np.convolve(np.ones(len(losses)), weights, "same")


def explore_schedule(
    task: "HeadTask", *, peak: float = 1e-2, warmup_ratio: float = 0.1, steps: int = 100
) -> ipywidgets.VBox:
    """Sliders for peak learning rate, warm-up and steps; each move trains anew and draws
    `draw_schedule`.

    The run before the last move stays in grey. Returns the box of controls, picture and words.
    """
    wide, layout = {"description_width": "9em"}, ipywidgets.Layout(width="36em")
    rate = ipywidgets.FloatLogSlider(
        value=peak,
        base=10,
        min=-5,
        max=0,
        step=0.25,
        readout_format=".1e",
        description="learning rate",
        continuous_update=False,
        style=wide,
        layout=layout,
    )
    warmup = ipywidgets.FloatSlider(
        value=warmup_ratio,
        min=0.0,
        max=0.5,
        step=0.05,
        readout_format=".0%",
        description="warm-up",
        continuous_update=False,
        style=wide,
        layout=layout,
    )
    count = ipywidgets.IntSlider(
        value=steps,
        min=20,
        max=MOST_STEPS,
        step=10,
        description="steps",
        continuous_update=False,
        style=wide,
        layout=layout,
    )
    picture, words = ipywidgets.HTML(), ipywidgets.HTML()
    runs: list[HeadRun] = []

    @one_at_a_time
    def redraw(_: object = None) -> None:
        runs.append(train_head(task, peak=rate.value, warmup_ratio=warmup.value, steps=count.value))
        del runs[:-2]
        sentence = describe_schedule(runs[-1])
        figure = draw_schedule(runs[-1], runs[-2] if len(runs) > 1 else None)
        source = f"data:image/png;base64,{base64.b64encode(to_png(figure)).decode()}"
        picture.value = (
            f'<img alt="{html.escape(sentence)}" src="{source}" style="max-width: 100%">'
        )
        words.value = paragraph(sentence)

    for slider in (rate, warmup, count):
        slider.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([rate, warmup, count, picture, words])


class HeadTask(NamedTuple):
    """hidden: (N, D), the state before each graded token; targets: (N,) token ids; head: (V, D),
    the base's."""

    hidden: torch.Tensor
    targets: torch.Tensor
    head: torch.Tensor


class HeadRun(NamedTuple):
    """Learning rate and loss (nats per graded token) of each step; the loss over all tokens before
    and after."""

    rates: list[float]
    losses: list[float]
    before: float
    after: float
