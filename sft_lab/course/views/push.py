"""One group of answers: reward, advantage, the push on every token, and what one step makes
likelier (chapter 17)."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.plots import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PROMPT,
    VERMILLION,
    new_figure,
    show_token,
    title_figure,
)
from sft_lab.policy import average_tokens, group_advantages, kl_estimates, policy_loss
from sft_lab.rollouts import Rollout, answer_log_probs

RATE = 0.05  # of the plain gradient step that the view takes
MOST_TOKENS = 40  # what average "length" divides by
NAMES = {"token": "over all tokens", "answer": "over each answer", "length": "by the limit"}
MARKS = ("as graded", "the longest", "the shortest", "all", "none")


@dataclass(frozen=True)
class Push:
    """What one step makes of the K answers of a group.

    tokens: of each answer. rewards, advantages: (K,). pushes: minus the gradient of the loss with
    respect to the log-probability of each token, a list of (tokens,) tensors. before, after: the
    probability of each answer, (K,).
    """

    tokens: list[list[str]]
    rewards: torch.Tensor
    advantages: torch.Tensor
    pushes: list[torch.Tensor]
    before: torch.Tensor
    after: torch.Tensor

    def chance_of_right(self) -> tuple[float, float]:
        """The probability of all different answers with the highest reward together, before and
        after; 0 where none was better than another."""
        best, known = self.rewards.max(), set()
        totals = [0.0, 0.0]
        for row, tokens in enumerate(self.tokens):
            if self.rewards[row] < best or best == self.rewards.min() or tuple(tokens) in known:
                continue
            known.add(tuple(tokens))
            totals[0] += self.before[row].item()
            totals[1] += self.after[row].item()
        return totals[0], totals[1]


def mark(rollout: Rollout, graded: torch.Tensor, which: str) -> torch.Tensor:
    """Rewards, (K,): those that were `graded`, or 1 for the answers that `which` names."""
    counts = rollout.mask.sum(1)
    marks = {
        "as graded": graded,
        "the longest": counts == counts.max(),
        "the shortest": counts == counts.min(),
        "all": torch.ones_like(graded),
        "none": torch.zeros_like(graded),
    }
    if which not in marks:
        raise ValueError(f"which is {which!r}: one of {', '.join(MARKS)}")
    return marks[which].float()


def read_push(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rollout: Rollout,
    rewards: torch.Tensor,
    *,
    average: str = "token",
    scale: str = "std",
    kl: float = 0.0,
) -> Push:
    """One plain gradient step, at rate RATE, on one group of answers; the model stays as it is.

    rollout: K answers to one question. rewards: (K,). kl: strength of the k3 estimate of
    KL(model ‖ reference). Raises ValueError unless there is one reward for each answer.
    """
    if rewards.shape != (len(rollout.texts),):
        raise ValueError(
            f"rewards have the shape {tuple(rewards.shape)} and there are {len(rollout.texts)} "
            "answers: give one reward for each answer"
        )
    moved = copy.deepcopy(model).eval()
    advantages = group_advantages(rewards[None], scale=scale)[0]
    by = {"average": average} | ({"max_length": MOST_TOKENS} if average == "length" else {})
    log_probs = answer_log_probs(moved, rollout)
    before = log_probs.detach()
    loss = policy_loss(log_probs, before, advantages, rollout.mask, **by)
    if kl:
        with torch.no_grad():
            kept = answer_log_probs(reference, rollout)
        loss = loss + kl * average_tokens(kl_estimates(log_probs, kept, "k3"), rollout.mask, **by)
    weights = [weight for weight in moved.parameters() if weight.requires_grad]
    slope, *slopes = torch.autograd.grad(loss, [log_probs, *weights], allow_unused=True)
    with torch.no_grad():
        for weight, direction in zip(weights, slopes, strict=True):
            if direction is not None:
                weight -= RATE * direction
        after = answer_log_probs(moved, rollout)
    return Push(
        [[tokenizer.decode([token_id]) for token_id in ids] for ids in rollout.answer_ids],
        rewards,
        advantages,
        [-row[here] for row, here in zip(slope, rollout.mask, strict=True)],
        before.sum(1).exp(),
        after.sum(1).exp(),
    )


def describe_push(push: Push) -> str:
    """What `draw_push` shows, in words."""
    right = int((push.rewards == push.rewards.max()).sum())
    if push.rewards.max() == push.rewards.min():
        said = (
            f"All {len(push.tokens)} answers earn {push.rewards[0]:.0f}: every advantage is 0, and "
            "the group teaches nothing"
        )
    else:
        said = f"{right} of {len(push.tokens)} answers are right"
    sizes = [row.abs().max().item() for row in push.pushes]
    if max(sizes) < 1e-9:
        return f"{said}. No token is pushed."
    row = int(np.argmax(sizes))
    place = int(push.pushes[row].abs().argmax())
    before, after = push.chance_of_right()
    value, name = push.pushes[row][place], show_token(push.tokens[row][place])
    where = f"is on “{name}” of answer {row + 1}"
    if push.pushes[row].min() == push.pushes[row].max():
        where = f"is on every token of answer {row + 1}"
    told = f"{said}. The strongest push, {value:+.3f}, {where}"
    if before == 0:
        return f"{told}."
    return f"{told}. One step takes the right ones from {before:.1%} to {after:.1%}."


def draw_push(push: Push) -> Figure:
    """A row for each answer: its tokens, coloured by their push, and beside them how its
    log-probability changes in one step."""
    count = len(push.tokens)
    figure = new_figure((12.0, 1.5 + 0.55 * count))
    text, bars = figure.subplots(1, 2, width_ratios=(3.4, 1.0))
    largest = max(max(row.abs().max().item() for row in push.pushes), 1e-9)
    _draw_tokens(text, push, largest)
    change = (push.after / push.before).log().numpy()
    rows = np.arange(count)[::-1]
    bars.barh(rows, change, color=[BLUE if x > 0 else VERMILLION for x in change], height=0.6)
    bars.axvline(0, color=MUTED, linewidth=1)
    for row, old, new in zip(rows, push.before.tolist(), push.after.tolist(), strict=True):
        bars.annotate(
            f"{old:.1%} → {new:.1%}",
            (1.02, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=10,
        )
    bars.set(yticks=[], xlabel="change of ln p (nats)", ylim=text.get_ylim())
    widest = max(np.abs(change).max(), 1e-3) * 1.15
    bars.set_xlim(-widest, widest)
    bars.locator_params(axis="x", nbins=3)
    before, after = push.chance_of_right()
    finding = "No answer is better than another: nothing is pushed"
    if before:
        finding = f"One step: the right answers go from {before:.1%} to {after:.1%}"
    elif any(row.abs().max() > 1e-9 for row in push.pushes):
        finding = "No answer is better than another: only the KL pushes"
    title_figure(figure, finding)
    return figure


def explore_push(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rollout: Rollout,
    graded: torch.Tensor,
) -> ipywidgets.VBox:
    """Controls for the average, the division by the spread, the KL and which answers are right;
    draws `draw_push` below them. graded: the rewards of the group, (K,)."""
    average = choose("average", [(name, kind) for kind, name in NAMES.items()])
    scale = choose("divide by the spread", [("yes", "std"), ("no", "none")])
    which = choose("right", [(name, name) for name in MARKS])
    kl = ipywidgets.FloatSlider(
        value=0.0,
        min=0.0,
        max=2.0,
        step=0.25,
        description="KL strength",
        continuous_update=False,
        readout_format=".2f",
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width="28em"),
    )

    def answer() -> Answer:
        push = read_push(
            model,
            reference,
            tokenizer,
            rollout,
            mark(rollout, graded, which.value),
            average=average.value,
            scale=scale.value,
            kl=kl.value,
        )
        return Answer(describe_push(push), draw_push(push))

    view, redraw = frame([[average, scale], [which, kl]], answer)
    redraw_on(redraw, average, scale, which, kl)
    return view


def draw_sources() -> Axes:
    """Where the text and the weight of a gradient come from, in imitation and with a reward."""
    ax = new_figure((10.0, 2.9)).subplots()
    rows = {
        1.0: ("imitation", "data\nwrite y", "weight 1", PROMPT),
        0.0: ("reward", "the model\nwrites y", "reward\nof y", ORANGE),
    }
    for y, (name, writer, weight, colour) in rows.items():
        ax.text(-0.15, y, name, ha="right", va="center", fontweight="bold")
        for x, label, face in ((0.0, writer, colour), (2.1, weight, colour)):
            ax.add_patch(_rounded(x, y - 0.3, 1.4, face))
            ax.text(x + 0.7, y, label, ha="center", va="center", fontsize=12)
        _arrow(ax, (1.4, y), (2.1, y))
        _arrow(ax, (3.5, y), (4.3, 0.5))
    ax.add_patch(_rounded(4.3, 0.2, 2.5, "white"))
    ax.text(5.55, 0.5, "weight · ∇ log π(y)", ha="center", va="center", fontsize=13)
    _arrow(ax, (6.8, 0.5), (7.4, 0.5))
    ax.text(7.45, 0.5, "π, a little\nchanged", va="center", fontsize=12)
    ax.set(xlim=(-1.4, 8.6), ylim=(-0.5, 1.45))
    ax.axis("off")
    return ax


def draw_clip(clip: float = 0.2) -> Figure:
    """The clipped gain of one token against its ratio, for an advantage of 1 and of -1."""
    figure = new_figure((9.5, 3.4))
    for ax, sign in zip(figure.subplots(1, 2), (1.0, -1.0), strict=True):
        ratio = np.linspace(0.4, 1.6, 121)
        near = np.clip(ratio, 1 - clip, 1 + clip)
        flat = near < ratio if sign > 0 else near > ratio
        gain = np.minimum(sign * ratio, sign * near)
        ax.plot(ratio, sign * ratio, color=MUTED, linewidth=1.2, linestyle="--")
        for part, colour, label in (
            (~flat, BLUE, "pushes"),
            (flat, VERMILLION, "cut: no gradient"),
        ):
            ax.plot(ratio[part], gain[part], color=colour, linewidth=3, label=label)
        ax.axvline(1, color=MUTED, linewidth=1)
        ax.set(xlabel="ratio π / π of the draw", title=f"advantage {sign:+.0f}", ylabel="gain")
        ax.legend(fontsize=10, loc="upper left" if sign > 0 else "lower left")
    return figure


def draw_averages(
    pushes: Mapping[str, torch.Tensor], mask: torch.Tensor, names: Sequence[str]
) -> Figure:
    """The push on every token of a few answers, (N, T), a panel for each way to average."""
    figure = new_figure((11.0, 0.9 + 0.55 * len(names)))
    panels = figure.subplots(1, len(pushes), sharey=True)
    largest = max(push.abs().max().item() for push in pushes.values())
    for ax, (title, push) in zip(panels, pushes.items(), strict=True):
        for row, (values, here) in enumerate(zip(push, mask, strict=True)):
            y = len(names) - 1 - row
            for t in range(int(here.sum())):
                colour = _colours()(Normalize(-largest, largest)(values[t].item()))
                ax.add_patch(Rectangle((t, y - 0.34), 0.9, 0.68, facecolor=colour, edgecolor=INK))
            ax.text(int(here.sum()) + 0.3, y, f"{values[0]:+.3f}", va="center", fontsize=11)
        ax.set(xlim=(-0.3, mask.shape[1] + 5), ylim=(-0.6, len(names) - 0.4), xticks=[])
        ax.set_title(title, fontsize=12)
        ax.set_yticks(range(len(names)), list(names)[::-1])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    return figure


def _draw_tokens(ax: Axes, push: Push, largest: float) -> None:
    """The tokens of each answer as boxes; blue is pushed up, orange down."""
    count, end = len(push.tokens), 0.0
    shade = Normalize(-largest, largest)
    for row, tokens in enumerate(push.tokens):
        x, y = 0.0, count - 1 - row
        for token, value in zip(tokens, push.pushes[row].tolist(), strict=True):
            shown = "end" if token.startswith("<|") else show_token(token)
            width = 1.2 + sum(2 if ord(letter) > 0x2E7F else 1 for letter in shown)
            colour = _colours()(shade(value))
            ax.add_patch(Rectangle((x, y - 0.32), width, 0.64, facecolor=colour, edgecolor="white"))
            ax.text(x + width / 2, y, shown, ha="center", va="center", fontsize=8)
            x += width
        end = max(end, x)
    labels = [
        f"{row + 1}   r {reward:.0f}   A {advantage:+.2f}"
        for row, (reward, advantage) in enumerate(
            zip(push.rewards.tolist(), push.advantages.tolist(), strict=True)
        )
    ]
    ax.set_yticks(range(count), labels[::-1], fontsize=11)
    for label, reward in zip(ax.get_yticklabels(), push.rewards.tolist()[::-1], strict=True):
        label.set_color(GREEN if reward > 0 else INK)
    ax.set(xlim=(0, end), ylim=(-0.6, count - 0.4), xticks=[])
    ax.set_xlabel(f"push on a token: orange {-largest:+.3f} … blue {largest:+.3f}", fontsize=11)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)


def _colours() -> Colormap:
    return LinearSegmentedColormap.from_list("push", ["#E5874B", "#F7F7F7", "#5AA0D0"])


def _rounded(x: float, y: float, width: float, colour: str) -> FancyBboxPatch:
    return FancyBboxPatch(
        (x, y), width, 0.6, boxstyle="round,pad=0.02", facecolor=colour, edgecolor=INK
    )


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.6})
