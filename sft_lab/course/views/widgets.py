"""Interactive views. Each is a thin shell around a plain function that draws one picture, which
tests can look at.

Controls are sliders, buttons, switches and text boxes, which the keyboard reaches: Tab goes to
them, Space presses, arrows slide. There are no drop-down menus, for on those JupyterLab takes
arrows and letters as its own commands. Every picture is also said in words.
"""

import base64
import html
import io
import math
from collections.abc import Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

from sft_lab.course.views.figures import one_at_a_time
from sft_lab.plots import ANSWER, BLUE, INK, MUTED, PROMPT, VERMILLION, new_figure

LEAST = 2.0**-12  # the smallest probability of the slider


def set_probability(q: Sequence[float], target: int, probability: float) -> np.ndarray:
    """The distribution q with `probability` at `target`; the other tokens share the rest in their
    old proportions.

    q: V probabilities. Raises ValueError when q is not a distribution, or gives the others nothing
    to share.
    """
    q = np.asarray(q, dtype=float)
    if (q < 0).any() or not math.isclose(q.sum(), 1.0, abs_tol=1e-6):
        raise ValueError(
            f"q = {q.tolist()} is not a distribution: its sum is {q.sum():.6g}, and none may be "
            "negative"
        )
    rest = q.copy()
    rest[target] = 0.0
    if rest.sum() == 0.0:
        raise ValueError(
            f"q gives everything to token {target}: the others have no proportions to keep"
        )
    moved = rest / rest.sum() * (1.0 - probability)
    moved[target] = probability
    return moved


def describe_step(tokens: Sequence[str], q: Sequence[float], target: int) -> str:
    """What `draw_step` shows, in one or two sentences: probability, loss, and what a step of
    training does."""
    p = float(q[target])
    nats = -math.log(p)
    return (
        f"The true token, {tokens[target]}, has probability {p:.3g}. The loss is {abs(nats):.2f} "
        f"nats ({abs(nats) / math.log(2):.2f} bits). A step pushes the logit of {tokens[target]} "
        f"up by {1 - p:.2f} and every other logit down by its own probability, times the "
        "learning rate."
    )


def draw_step(tokens: Sequence[str], q: Sequence[float], target: int) -> Figure:
    """One step of prediction: its place on the curve -ln p, the distribution, and the push on every
    logit.

    tokens: V names; q: V probabilities, those of `target` in (0, 1]. The push is minus the gradient
    of the loss with respect to the logits, one-hot - q (derived in chapter 01). The target is
    named, not only coloured.
    """
    q = np.asarray(q, dtype=float)
    if len(q) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens but {len(q)} probabilities")
    if not 0.0 < q[target] <= 1.0:
        raise ValueError(
            f"the true token has probability {q[target]:.6g}; the loss is finite only in (0, 1]"
        )
    p, rows = float(q[target]), np.arange(len(tokens))
    loss = abs(-math.log(p))
    push = np.eye(len(tokens))[target] - q
    colours = [ANSWER if row == target else PROMPT for row in rows]
    names = [f"{token}\n(true)" if row == target else token for row, token in enumerate(tokens)]
    figure = new_figure((11.0, 3.9))
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))

    grid = np.geomspace(LEAST, 1.0, 300)
    left.plot(grid, -np.log(grid), color=BLUE)
    left.plot([p, p, 0.0], [0.0, loss, loss], color=MUTED, linestyle=":", linewidth=1.4, zorder=1)
    left.scatter([p], [loss], s=90, color=ANSWER, edgecolor=INK, zorder=3, clip_on=False)
    left.annotate(
        f"{loss:.2f} nats",
        (p, loss),
        (10, 9) if p < 0.7 else (-8, 16),
        textcoords="offset points",
        fontweight="bold",
        ha="left" if p < 0.7 else "right",
    )
    left.set(xlim=(0, 1), ylim=(0, -math.log(LEAST) * 1.14), ylabel="loss −ln p (nats)")
    left.set_xlabel("probability p of the true token")

    middle.barh(
        rows,
        q,
        color=colours,
        edgecolor=INK,
        linewidth=[1.4 if row == target else 0.0 for row in rows],
    )
    for row, value in enumerate(q):
        middle.annotate(
            f"{value:.3f}", (value, row), (5, 0), textcoords="offset points", va="center"
        )
    middle.set_yticks(rows, names)
    middle.set(xlim=(0, 1.25), xticks=[0, 0.5, 1], xlabel="probability q")

    for row, value in enumerate(push):
        colour = BLUE if value > 0 else VERMILLION
        right.annotate(
            "",
            (value, row),
            (0, row),
            arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 2.4},
        )
        right.annotate(
            f"{value:+.3f}".replace("-", "−"),
            (0, row),
            (-8 if value > 0 else 8, 0),
            textcoords="offset points",
            va="center",
            ha="right" if value > 0 else "left",
        )
    right.axvline(0.0, color=MUTED, linewidth=1.0)
    right.set_yticks(rows, [""] * len(rows))
    right.set(
        xlim=(-1.1, 1.1), ylim=middle.get_ylim(), xticks=[-1, 0, 1], xlabel="push on the logit"
    )
    for ax in (middle, right):
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    finding = (
        f"{tokens[target]} at p = {p:.3g} costs {loss:.2f} nats and is pulled up by "
        f"{push[target]:.3f}"
    )
    figure.suptitle(finding, x=0.01, ha="left", fontweight="bold", fontsize=15)
    return figure


def explore_step(tokens: Sequence[str], q: Sequence[float], target: int = 0) -> ipywidgets.VBox:
    """Buttons for which token is true and a slider for its probability; draws `draw_step` below
    them.

    Four steps of the slider (arrow keys) halve or double the probability. Returns the box of
    controls and picture.
    """
    wide = {"description_width": "initial"}
    menu = choose("true token", [(token, i) for i, token in enumerate(tokens)])
    menu.value = target
    slider = ipywidgets.FloatLogSlider(
        value=float(q[target]),
        base=2,
        min=math.log2(LEAST),
        max=0.0,
        step=0.25,
        readout_format=".3g",
        description="its probability",
        style=wide,
        layout=ipywidgets.Layout(width="32em"),
    )
    picture, words = ipywidgets.HTML(), ipywidgets.HTML()

    @one_at_a_time
    def redraw(_: object = None) -> None:
        moved = set_probability(q, menu.value, min(slider.value, 1.0))
        sentence = describe_step(tokens, moved, menu.value)
        figure = draw_step(tokens, moved, menu.value)
        source = f"data:image/png;base64,{base64.b64encode(to_png(figure)).decode()}"
        picture.value = (
            f'<img alt="{html.escape(sentence)}" src="{source}" style="max-width: 100%">'
        )
        words.value = paragraph(sentence)

    @one_at_a_time
    def change_target(change: dict) -> None:
        slider.value = float(q[change["new"]])
        redraw()

    menu.observe(change_target, names="value")
    slider.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox(
        [ipywidgets.HBox([menu, slider], layout={"flex_flow": "row wrap"}), picture, words]
    )


def choose(
    description: str, options: Sequence[tuple[str, object]], *, description_width: str = "initial"
) -> ipywidgets.ToggleButtons:
    """A row of buttons of which one is down; options are pairs of name and value, the first is
    chosen."""
    style = {"description_width": description_width, "button_width": "auto"}
    beside = ipywidgets.Layout(
        display="flex", width="auto", margin="2px 2em 2px 2px"
    )  # by default the name is above
    return ipywidgets.ToggleButtons(
        options=options, description=description, style=style, layout=beside
    )


def paragraph(sentence: str) -> str:
    """The sentence as HTML, at the line spacing of the chapter's own text."""
    return f'<p style="line-height: 1.5">{html.escape(sentence)}</p>'


def show_widget(widget: ipywidgets.Widget, figure: Figure) -> None:
    """Show the widget where a kernel runs, and `figure` where none does (GitHub, PDF, a notebook
    opened cold)."""
    _fill_tooltips(widget)
    still = base64.b64encode(to_png(figure)).decode()
    display({**widget._repr_mimebundle_(), "image/png": still}, raw=True)


def _fill_tooltips(widget: ipywidgets.Widget) -> None:
    """Under the mouse a control shows its name; without a tooltip of its own it would show the word
    "null"."""
    if getattr(widget, "tooltip", "") is None:
        widget.tooltip = getattr(widget, "description", "")
    for child in getattr(widget, "children", ()):
        _fill_tooltips(child)


def to_png(figure: Figure) -> bytes:
    """The figure as PNG; it is closed, so that a notebook does not show it twice."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return file.getvalue()
