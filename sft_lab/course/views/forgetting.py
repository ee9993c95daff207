"""Remedies against forgetting on the plane of old and new task (chapter 13b)."""

from collections.abc import Sequence

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from sft_lab.course.remedies import COLUMN_EPOCHS, NEW_LESSONS, OLD_LESSONS
from sft_lab.course.results import Results
from sft_lab.course.views.widgets import Answer, choose, frame, redraw_on
from sft_lab.forgetting import cost_of
from sft_lab.plots import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PROMPT,
    PURPLE,
    SKY,
    VERMILLION,
    new_figure,
)

NEW_AT_LEAST = 0.85  # fixed before the sweep: below it, the new task counts as not learned
# remedy: what its strength is
UNITS = {
    "replay, stored": "old rows for a new one",
    "replay, own answers": "old rows for a new one",
    "replay, own questions": "old rows for a new one",
    "joint from the start": "share of old rows",
    "EWC, sampled labels": "λ",
    "EWC, true labels": "λ",
    "EWC, batch means": "λ",
    "SI": "λ",
    "L2 to the start": "λ",
    "weight decay": "decay",
    "distillation, T 1": "λ",
    "distillation, T 2": "λ",
    "distillation, T 4": "λ",
    "averaging": "share of the new weights",
    "small rate": "rate",
    "columns": "width",
    "a LoRA for each task": "rank",
}
# numbers kept for each weight of the model, from one task to the next
KEPT = {"L2": 1, "EWC": 2, "SI": 3, "distillation": 1, "averaging": 1}
COLOURS = {
    "EWC": BLUE,
    "SI": SKY,
    "L2": PURPLE,
    "distillation": ORANGE,
    "replay": GREEN,
    "columns": VERMILLION,
    "a LoRA": VERMILLION,
}


# remedies that one plane shows together
GROUPS = {
    "weights": ("L2 to the start", "EWC, sampled labels", "SI", "averaging"),
    "answers": ("distillation, T 2", "columns", "a LoRA for each task", "small rate"),
    "rows": ("replay, stored", "replay, own answers", "replay, own questions",
             "joint from the start"),
}  # fmt: skip


def strengths_of(results: Results, remedy: str) -> list[float]:
    """The recorded strengths of a remedy, from weak to strong numbers."""
    return sorted({row["strength"] for row in results.select(remedy=remedy)})


def mean_point(results: Results, remedy: str, strength: float) -> tuple[float, float]:
    """Mean shares of right answers over the seeds: the old exam, and the new one."""
    arm = {"remedy": remedy, "strength": strength}
    return tuple(float(np.mean(results.measured(name, **arm))) for name in ("old", "new"))


def best_point(results: Results, remedy: str) -> tuple[float, float, float] | None:
    """Strength, old and new share of the strength that keeps most of the old task, of those whose
    mean on the new exam is NEW_AT_LEAST or more; None when there is none."""
    found = [
        (strength, *mean_point(results, remedy, strength))
        for strength in strengths_of(results, remedy)
    ]
    learned = [point for point in found if point[2] >= NEW_AT_LEAST]
    return max(learned, key=lambda point: point[1]) if learned else None


def balanced_point(results: Results, remedy: str) -> tuple[float, float]:
    """The strength at which the smaller of both shares is largest, in the mean over the seeds, and
    that mean."""
    balances = {}
    for strength in strengths_of(results, remedy):
        rows = results.select(remedy=remedy, strength=strength)
        balances[strength] = float(np.mean([min(row["old"], row["new"]) for row in rows]))
    best = max(balances, key=balances.__getitem__)
    return best, balances[best]


def working_strengths(results: Results, remedy: str, least: float) -> list[float]:
    """The strengths whose means keep `least` of the old exam and learn the new task."""
    points = {at: mean_point(results, remedy, at) for at in strengths_of(results, remedy)}
    return [at for at, (old, new) in points.items() if old >= least and new >= NEW_AT_LEAST]


def work_of(remedy: str, strength: float) -> float:
    """The work of a remedy in units of plain training on the new task: rows times passes, a forward
    pass being a third of a step. What is done once before (a Fisher, own answers) is left out."""
    if remedy.startswith("replay"):
        return 1 + strength
    if remedy.startswith("distillation"):
        return 1 + cost_of("distil_from").forward / 3
    if remedy == "joint from the start":
        return (OLD_LESSONS + NEW_LESSONS) / NEW_LESSONS
    return float(COLUMN_EPOCHS) if remedy == "columns" else 1.0


def write_row(results: Results, remedy: str) -> str:
    """A line of the chapter's table: the best point that learns the new task, the strengths that
    keep half of the old one there, the balance, the work and what is stored."""
    best = best_point(results, remedy)
    at, balance = balanced_point(results, remedy)
    work = work_of(remedy, best[0] if best else at)
    points = f"{best[1]:5.0%}{best[2]:5.0%}" if best else f"{'-':>5}{'-':>5}"
    works = ", ".join(f"{at:g}" for at in working_strengths(results, remedy, 0.5)) or "none"
    stored = describe_storage(remedy)
    return f"{remedy:22}{points}  {works:19}{balance:7.0%}{work:6.1f}  {stored}"


def describe_remedy(results: Results, remedy: str, strength: float) -> str:
    """What `draw_remedy` shows, in words: one strength, its two scores, and what it costs."""
    old, new = mean_point(results, remedy, strength)
    learned = "learned" if new >= NEW_AT_LEAST else f"not learned (below {NEW_AT_LEAST:.0%})"
    unit = f"{UNITS[remedy]} {strength:g}"
    return (
        f"{remedy}, {unit}: old task {old:.0%}, new task {new:.0%}, so the new task is {learned}. "
        f"It keeps {describe_storage(remedy)} and takes {work_of(remedy, strength):.1f} "
        "times the work of plain training."
    )


def describe_storage(remedy: str) -> str:
    """What a remedy keeps from one task to the next, beside the model."""
    kind = remedy.split(",")[0].split(" ")[0]
    if remedy in ("replay, stored", "replay, own answers"):
        return "old rows" if remedy == "replay, stored" else "old questions"
    if remedy == "replay, own questions":
        return "nothing but the model"
    if remedy in ("columns", "a LoRA for each task"):
        return "new weights a task"
    if remedy == "joint from the start":
        return "all old rows"
    count = KEPT.get(kind, 0)
    return "nothing" if not count else f"{count} number{'s' * (count > 1)} a weight"


def draw_remedy(results: Results, remedy: str, strength: float) -> Figure:
    """The plane with one remedy's curve on it: a dot a seed, a line through the means, a ring
    around the chosen strength; grey: all other remedies."""
    figure = new_figure((7.6, 5.6))
    ax = figure.subplots()
    draw_ground(ax, results)
    for other in UNITS:
        means = np.array([mean_point(results, other, at) for at in strengths_of(results, other)])
        ax.plot(means[:, 1], means[:, 0], ".", color=PROMPT, ms=7, zorder=2)
    colour = colour_of(remedy)
    points = np.array([mean_point(results, remedy, at) for at in strengths_of(results, remedy)])
    ax.plot(points[:, 1], points[:, 0], "-o", color=colour, lw=2.2, ms=8, zorder=4)
    for at in strengths_of(results, remedy):
        rows = results.select(remedy=remedy, strength=at)
        ax.plot([r["new"] for r in rows], [r["old"] for r in rows], "x", color=colour, zorder=3)
    old, new = mean_point(results, remedy, strength)
    ax.scatter([new], [old], s=260, facecolors="none", edgecolors=INK, linewidths=2.2, zorder=5)
    ax.set_title(
        f"{remedy}, {UNITS[remedy]} {strength:g}\nold {old:.0%}, new {new:.0%}", fontsize=13
    )
    return figure


def colour_of(remedy: str) -> str:
    """The same colour for a family of remedies everywhere."""
    return next((c for name, c in COLOURS.items() if remedy.startswith(name)), MUTED)


def draw_ground(ax: Axes, results: Results) -> None:
    """Axes of the plane, the level that the new task must reach, and the model without remedy."""
    old, new = mean_point(results, "nothing", 0.0)
    ax.axvspan(NEW_AT_LEAST, 1.04, color=GREEN, alpha=0.10, lw=0)
    ax.plot([new], [old], "s", color=INK, ms=9, zorder=4)
    ax.annotate(
        "no remedy",
        (new, old),
        (0, 26),
        textcoords="offset points",
        ha="right",
        arrowprops={"arrowstyle": "-", "color": INK},
    )
    ax.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    ax.set_xlabel("new task: share of right answers")
    ax.set_ylabel("old task: share of right answers")
    ticks = ([0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    ax.set_xticks(*ticks)
    ax.set_yticks(*ticks)
    ax.grid(visible=True)


def draw_planes(results: Results, groups: dict[str, Sequence[str]]) -> Figure:
    """One plane for each group of remedies, side by side: a line joins the mean points of one
    remedy, from weak to strong; a cross is a seed."""
    figure = new_figure((6.0 * len(groups), 5.4))
    marks = ("o", "^", "D", "v", "P")
    lines = ("-", "--", ":", "-.", "-")
    for ax, (title, remedies) in zip(
        np.atleast_1d(figure.subplots(1, len(groups))), groups.items(), strict=True
    ):
        draw_ground(ax, results)
        for remedy, mark, line in zip(remedies, marks, lines, strict=False):
            ats = strengths_of(results, remedy)
            means = np.array([mean_point(results, remedy, at) for at in ats])
            colour = colour_of(remedy)
            ax.plot(means[:, 1], means[:, 0], line, marker=mark, color=colour, lw=2, ms=8,
                    label=remedy, zorder=4)  # fmt: skip
            for at in ats:
                rows = results.select(remedy=remedy, strength=at)
                ax.plot([r["new"] for r in rows], [r["old"] for r in rows], "x", color=colour,
                        ms=5, alpha=0.6, zorder=3)  # fmt: skip
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
        ax.set_title(title)
    return figure


def explore_remedies(results: Results) -> ipywidgets.VBox:
    """Buttons for the remedy, a slider for its strength."""
    remedies = choose("remedy", [(name, name) for name in UNITS])
    strengths = ipywidgets.SelectionSlider(
        options=_options(results, remedies.value),
        description="strength",
        continuous_update=False,
        layout={"width": "60%"},
    )

    def refill(_: object = None) -> None:
        strengths.options = _options(results, remedies.value)

    def answer() -> Answer:
        shown = (results, remedies.value, _nearest(results, remedies.value, strengths.value))
        return Answer(describe_remedy(*shown), draw_remedy(*shown))

    view, redraw = frame([remedies, strengths], answer)
    remedies.observe(refill, names="value")
    redraw_on(redraw, remedies, strengths)
    return view


def _options(results: Results, remedy: str) -> list[tuple[str, float]]:
    return [(f"{strength:g}", strength) for strength in strengths_of(results, remedy)]


def _nearest(results: Results, remedy: str, strength: float) -> float:
    """The slider keeps the strength of the remedy before for a moment."""
    ats = strengths_of(results, remedy)
    return strength if strength in ats else ats[0]


def draw_schematic() -> Figure:
    """Where each remedy takes hold: the rows, the loss, the weights, or new weights."""
    figure = new_figure((10.4, 3.4))
    ax = figure.subplots()
    ax.set(xlim=(0, 10.4), ylim=(0, 3.4))
    ax.axis("off")
    places = {1.2: "rows", 3.8: "loss", 6.4: "weights", 9.0: "beside the\nmodel"}
    remedies = {
        1.2: "replay, stored or\nown; joint training",
        3.8: "distillation:\nanswer as before",
        6.4: "L2, EWC, SI:\nstay near the start",
        9.0: "columns:\nnew weights only",
    }
    for x, name in places.items():
        _box(ax, (x, 2.5), name, PROMPT)
        _box(ax, (x, 0.8), remedies[x], "white")
        _arrow(ax, (x, 1.25), (x, 2.1), GREEN)
    for x, y in ((1.2, 3.8), (3.8, 6.4)):
        _arrow(ax, (x + 0.75, 2.5), (y - 0.85, 2.5), INK)
    ax.set_title("A remedy takes hold at one of four places")
    return figure


def draw_bowls(
    paths: dict[str, torch.Tensor],
    old_best: torch.Tensor,
    new_best: torch.Tensor,
    old_curvature: torch.Tensor,
    new_curvature: torch.Tensor,
) -> Figure:
    """Two bowls over two weights as level lines, and where each penalty settles as it grows; beside
    it the same points on the plane of the two losses."""
    figure = new_figure((11.6, 4.8))
    left, right = figure.subplots(1, 2)
    across = np.linspace(-1.0, 3.0, 120)
    first, second = np.meshgrid(across, across)
    grid = torch.tensor(np.stack([first, second], axis=-1), dtype=torch.float32)

    def loss(at: torch.Tensor, best: torch.Tensor, curvature: torch.Tensor) -> np.ndarray:
        return (0.5 * (curvature * (at - best) ** 2).sum(-1)).numpy()

    levels = [0.1, 0.5, 1.5, 4.0]
    left.contour(first, second, loss(grid, old_best, old_curvature), levels, colors=BLUE)
    left.contour(first, second, loss(grid, new_best, new_curvature), levels, colors=ORANGE,
                 linestyles="--")  # fmt: skip
    for name, path in paths.items():
        colour, mark = colour_of(name), "o" if name == "EWC" else "^"
        left.plot(path[:, 0], path[:, 1], mark, color=colour, ms=6, label=name)
        right.plot(loss(path, new_best, new_curvature), loss(path, old_best, old_curvature),
                   f"-{mark}", color=colour, ms=6, label=name)  # fmt: skip
    left.annotate("old best", old_best.tolist(), (-6, -16), textcoords="offset points", ha="right")
    left.annotate("new best", new_best.tolist(), (6, 8), textcoords="offset points")
    left.set(xlabel="first weight", ylabel="second weight")
    left.set_title("Old bowl (blue), new bowl (orange)")
    right.set(xlabel="new loss", ylabel="old loss")
    right.set_title("EWC pays less for the same")
    right.legend()
    return figure


def draw_fishers(
    gradients: torch.Tensor, fishers: dict[str, torch.Tensor], curvature: torch.Tensor
) -> Figure:
    """The gradient of each example as an arrow, and the Fisher of both weights in three ways; the
    dashed lines are the curvature."""
    figure = new_figure((11.6, 4.2))
    left, right = figure.subplots(1, 2)
    for across, up in gradients.tolist():
        left.annotate("", (across, up), (0, 0), arrowprops={"arrowstyle": "-|>", "color": BLUE,
                                                            "lw": 2.2})  # fmt: skip
    left.plot(*gradients.mean(0).tolist(), "D", color=VERMILLION, ms=9, label="their mean")
    reach = 1.3 * gradients.abs().max().item()
    left.set(xlim=(-reach, reach), ylim=(-reach, reach))
    left.set(xlabel="first weight", ylabel="second weight")
    left.set_title("One gradient a question, true labels")
    left.legend(loc="upper right")
    places = np.arange(2)
    for number, (name, values) in enumerate(fishers.items()):
        at = places + (number - 1) * 0.26
        colour = (GREEN, BLUE, VERMILLION)[number]
        right.bar(at, values.tolist(), 0.24, color=colour, edgecolor=INK, label=name)
    for place, value in zip(places, curvature.tolist(), strict=True):
        right.plot([place - 0.42, place + 0.42], [value, value], "--", color=INK, lw=2)
    right.set_xticks(places, ["first weight", "second weight"])
    right.set_ylabel("Fisher; dashed: the curvature")
    right.set_title("Sampled labels give the curvature")
    right.legend()
    return figure


def _box(ax: Axes, at: tuple[float, float], text: str, colour: str) -> None:
    style = {"boxstyle": "round,pad=0.4", "facecolor": colour, "edgecolor": INK}
    ax.text(*at, text, ha="center", va="center", bbox=style, fontsize=12)


def _arrow(ax: Axes, tail: tuple[float, float], head: tuple[float, float], colour: str) -> None:
    ax.add_patch(
        FancyArrowPatch(tail, head, arrowstyle="-|>", mutation_scale=16, color=colour, linewidth=2)
    )
