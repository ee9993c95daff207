"""What a token weighs under each loss, against the probability that it has (chapter 12)."""

import math
from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sft_lab.course.loss_runs import floored_dft
from sft_lab.course.views.widgets import Answer, choose, frame, one_at_a_time, redraw_on
from sft_lab.plots import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    VERMILLION,
    new_figure,
    show_token,
    title_figure,
)
from sft_lab.token_losses import TokenLoss, dft, focal, smoothed, weighted

VOCABULARY = 2048  # entries, as atlas has them
PROBABILITIES = (1e-8, 1e-6, 1e-4, 0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
PROBABILITIES += (0.9, 0.95, 0.99, 0.999)
# what each loss is called, its number, where that begins, and the numbers to choose from: equally
# many for each, because a slider in the browser keeps the length that it began with
CHOICES = {
    "cross-entropy": ("", 0.0, (0.0,)),  # has no number, and its slider is switched off
    "weighted": ("w", 3.0, (0.1, 0.5, 1.0, 2.0, 3.0, 10.0)),
    "focal": ("γ", 2.0, (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)),
    "smoothed": ("ε", 0.1, (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)),
    "DFT": ("floor", 0.0, (0.0, 0.001, 0.01, 0.03, 0.1, 1.0)),
}
COLOURS = {
    "cross-entropy": MUTED,
    "weighted": GREEN,
    "focal": BLUE,
    "smoothed": PURPLE,
    "DFT": VERMILLION,
}
Tokens = Sequence[tuple[str, float]]  # the tokens of an answer, each with its probability


def name_loss(kind: str, number: float) -> str:
    """How a loss is called: "focal, γ 2"."""
    letter = CHOICES[kind][0]
    return f"{kind}, {letter} {number:g}" if letter else kind


def make_loss(kind: str, number: float) -> TokenLoss | None:
    """A loss of CHOICES with its number; None is plain cross-entropy. The weighted one gives the
    weight to entry 0 of the vocabulary, and 1 to all others."""
    if kind not in CHOICES:
        raise ValueError(f"no loss {kind!r}; there are {', '.join(CHOICES)}")
    if kind == "weighted":
        return weighted([number] + [1.0] * (VOCABULARY - 1))
    if kind == "DFT":
        return floored_dft(number) if number else dft()
    made = {"cross-entropy": lambda _: None, "focal": focal, "smoothed": smoothed}
    return made[kind](number)


def cost_of(loss: TokenLoss | None, p: float) -> float:
    """What a token of this probability costs, in nats; the rest of the probability is spread evenly
    over the vocabulary."""
    rest = math.log((1 - p) / (VOCABULARY - 1))
    logits = torch.tensor([[math.log(p)] + [rest] * (VOCABULARY - 1)], dtype=torch.float64)
    return (loss or smoothed(0.0)).per_token(logits, torch.tensor([0])).item()


def pull_of(loss: TokenLoss | None, probabilities: Sequence[float]) -> np.ndarray:
    """How hard the gradient pulls a token's own score up, for each of the probabilities.

    The pull is minus the derivative of the loss by the token's logit, c (t - p): slope c, target t.
    """
    p = torch.as_tensor(probabilities, dtype=torch.float64)
    if loss is None:
        return (1 - p).numpy()
    slopes = loss.weigh(p.log(), torch.zeros(len(p), dtype=torch.long))[1]
    target = 1 - loss.epsilon + loss.epsilon / VOCABULARY
    return ((1.0 if slopes is None else slopes) * (target - p)).numpy()


def describe_weight(kind: str, number: float, p: float, answers: Mapping[str, Tokens]) -> str:
    """What `draw_weight` shows, in words: cost, pull and weight at p, and where each answer is
    pulled hardest."""
    loss = make_loss(kind, number)
    cost, plain = cost_of(loss, p), cost_of(None, p)
    (pull,), (usual,) = pull_of(loss, [p]), pull_of(None, [p])
    said = (
        f"{name_loss(kind, number)}: a token at p = {p:g} costs {cost:.3g} nats, {plain:.3g} under "
        f"cross-entropy. Its score is pulled by {pull:+.2g}, {usual:+.2g} under cross-entropy: "
        f"weight {pull / usual:.2g}."
    )
    for name, tokens in answers.items():
        pulls = pull_of(loss, [q for _, q in tokens])
        most = int(np.abs(pulls).argmax())
        said += f" In the {name}, {show_token(tokens[most][0])!r} is pulled hardest, by "
        said += f"{pulls[most]:+.2g}."
    return said


def draw_weight(kind: str, number: float, p: float, answers: Mapping[str, Tokens]) -> Figure:
    """The pull of one loss against p, beside that of cross-entropy, with a mark at p; and the pull
    on every token of the answers, {name: [(token, probability), …]}."""
    figure = new_figure((12.0, 4.6))
    axes = figure.subplots(1, 1 + len(answers), width_ratios=[1.25] + [1] * len(answers))
    left, *others = np.atleast_1d(axes)
    loss, grid = make_loss(kind, number), np.geomspace(1e-8, 0.999, 160)
    left.plot(grid, pull_of(None, grid), color=MUTED, linestyle="--", label="cross-entropy")
    colour = COLOURS[kind] if kind != "cross-entropy" else INK
    left.plot(grid, pull_of(loss, grid), color=colour, label=name_loss(kind, number))
    here = pull_of(loss, [p])
    left.scatter([p], here, s=90, color=ORANGE, edgecolor=INK, zorder=4, label=f"p = {p:g}")
    left.set(xscale="log", xlabel="probability of the token", ylabel="pull on its score")
    left.legend(loc="best", fontsize=10.5)
    everywhere = [*here, *(q for t in answers.values() for q in pull_of(loss, [x for _, x in t]))]
    limit = 1.1 * max(1.0, *map(abs, everywhere))
    for ax, (name, tokens) in zip(others, answers.items(), strict=True):
        _draw_answer(ax, name, tokens, loss, colour, limit)
    title_figure(figure, f"{name_loss(kind, number)}: how hard each token is pulled")
    return figure


def explore_weight(answers: Mapping[str, Tokens], kind: str = "focal") -> ipywidgets.VBox:
    """Buttons for the loss, sliders for its number and for p; draws `draw_weight` below them.

    answers: tokens with their probabilities, by name; they stand beside each other.
    """
    if not answers:
        raise ValueError("no answer to show: give {name: [(token, probability), …]}")
    kinds = choose("loss", [(name, name) for name in CHOICES])
    kinds.value = kind
    wide = {
        "continuous_update": False,
        "style": {"description_width": "initial"},
        "layout": ipywidgets.Layout(width="26em"),
    }
    numbers = ipywidgets.SelectionSlider(
        options=_options("focal"), value=CHOICES["focal"][1], description="number", **wide
    )
    shown_p = [(f"{p:g}", p) for p in PROBABILITIES]
    chosen = ipywidgets.SelectionSlider(options=shown_p, value=0.01, description="p", **wide)

    def take_numbers() -> None:
        numbers.disabled = not CHOICES[kinds.value][0]
        if not numbers.disabled:
            numbers.options = _options(kinds.value)
            numbers.value = CHOICES[kinds.value][1]

    take_numbers()

    def answer() -> Answer:
        number = 0.0 if numbers.disabled else numbers.value
        shown = (kinds.value, number, chosen.value, answers)
        return Answer(describe_weight(*shown), draw_weight(*shown))

    view, redraw = frame([kinds, [numbers, chosen]], answer)

    @one_at_a_time
    def change_loss(_: object) -> None:
        # new options move the value, which would draw a picture that nobody sees
        numbers.unobserve(redraw, names="value")
        take_numbers()
        numbers.observe(redraw, names="value")
        redraw()

    kinds.observe(change_loss, names="value")
    redraw_on(redraw, numbers, chosen)
    return view


def draw_weights(losses: Mapping[str, tuple[str, float]]) -> Figure:
    """The weight of a token against its probability, its pull divided by that of cross-entropy, for
    losses given as {title of the line: (kind, number)}."""
    ax = (figure := new_figure((9.0, 4.8))).subplots()
    grid = np.linspace(0.001, 0.98, 120)
    usual = pull_of(None, grid)
    for title, (kind, number) in losses.items():
        weight = pull_of(make_loss(kind, number), grid) / usual
        ax.plot(grid, weight, color=COLOURS[kind], label=title)
    ax.axhline(0, color=MUTED, linewidth=1)
    ax.set(xlabel="probability p of the token", ylabel="weight\n(1 for cross-entropy)")
    ax.set(xlim=(0, 1), ylim=(-1.0, None))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ax.set_title("Focal loss looks at what is unknown, DFT at what is known")
    return figure


def draw_answers(answers: Mapping[str, Tokens], losses: Mapping[str, tuple[str, float]]) -> Figure:
    """Answers as rows of tokens with their probabilities, and below each token how hard each loss
    pulls it: darker is harder. losses: {name of the row: (kind, number)}."""
    figure = new_figure((11.0, (1.5 + 0.45 * len(losses)) * len(answers)))
    axes = np.atleast_1d(figure.subplots(len(answers), 1))
    for ax, (name, tokens) in zip(axes, answers.items(), strict=True):
        p = [q for _, q in tokens]
        table = np.array([pull_of(make_loss(*loss), p) for loss in losses.values()])
        ax.imshow(table, cmap="Oranges", vmin=0, vmax=2.0, aspect="auto")
        for (row, column), pull in np.ndenumerate(table):
            ax.annotate(f"{pull + 0.0:.2f}", (column, row), ha="center", va="center", fontsize=11)
        ax.set_yticks(range(len(losses)), losses)
        ax.set_xticks(range(len(p)), [f"{show_token(token)}\n{_short(q)}" for token, q in tokens])
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.grid(visible=False)
        title = f"{name}: its tokens, their probabilities, and the pull on each"
        ax.set_title(title, fontsize=12.5, fontweight="normal")
    title_figure(figure, f"Two answers, weighed by {len(losses)} losses")
    return figure


def draw_calibration(tables: Mapping[str, Sequence[tuple[int, float, float]]]) -> Figure:
    """Share of right guesses against mean confidence, bin by bin, for models by name: {name:
    [(guesses, confidence, share right), …]}; a larger dot holds more guesses."""
    ax = (figure := new_figure((6.4, 4.6))).subplots()
    ax.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1.4, label="as sure as right")
    for name, table in tables.items():
        counts, sure, right = zip(*table, strict=True)
        ax.plot(sure, right, color=COLOURS[name], label=name)
        ax.scatter(sure, right, s=[6 * count for count in counts], color=COLOURS[name], zorder=3)
    ax.set(xlabel="mean confidence of a bin", ylabel="share of right guesses")
    ax.set(xlim=(-0.03, 1.08), ylim=(-0.05, 1.08))
    ax.set_title("Above the diagonal: too modest")
    ax.legend(loc="upper left")
    return figure


def _options(kind: str) -> list[tuple[str, float]]:
    letter, _, numbers = CHOICES[kind]
    return [(f"{letter} {number:g}", number) for number in numbers]


def _draw_answer(
    ax: Axes, name: str, tokens: Tokens, loss: TokenLoss | None, colour: str, limit: float
) -> None:
    """A bar for each token, from top to bottom; hollow: cross-entropy."""
    p = [q for _, q in tokens]
    rows = range(len(tokens))
    ax.barh(rows, pull_of(loss, p), color=colour, height=0.6)
    ax.barh(rows, pull_of(None, p), fill=False, edgecolor=INK, height=0.8, linewidth=0.9)
    ax.set_yticks(rows, [f"{show_token(token)}  {_short(q)}" for token, q in tokens])
    ax.invert_yaxis()
    ax.set(xlim=(min(-0.15, -limit * 0.15), limit), xlabel="pull (hollow: cross-entropy)")
    ax.set_title(name, fontsize=12.5, fontweight="normal", pad=6)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False)


def _short(number: float) -> str:
    """Two digits; powers of ten below a hundredth: 0.98, 1e-08."""
    return f"{number:.2f}" if abs(number) >= 0.005 else f"{number:.0e}"
