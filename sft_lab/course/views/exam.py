"""Chapter 09: pictures of an exam: who answers when asked how, what is kept, and what a real model
wrote before and after."""

import textwrap
from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from sft_lab.open_answers import RULES, OpenAnswer, OpenQuestion, grade
from sft_lab.plots import ANSWER, BASE, INK, MUTED, TUNED, new_figure

Ways = Mapping[str, Sequence[OpenAnswer]]  # way of asking → the answers to all questions


def draw_twins(lengths: torch.Tensor, cosine: torch.Tensor, twins: torch.Tensor) -> Figure:
    """Every token of the vocabulary by the length of its vector and its cosine with <|im_start|>;
    twins: the tokens that have the same vector."""
    figure = new_figure((9.0, 4.2))
    ax = figure.subplots()
    ax.scatter(lengths[~twins], cosine[~twins], s=14, color=MUTED, alpha=0.45)
    ax.scatter(lengths[twins], cosine[twins], s=110, color=ANSWER, edgecolor=INK, zorder=3)
    ax.annotate(
        f"{int(twins.sum())} tokens that were never read, on one spot:\n"
        "<|im_start|>, <|im_end|>, <think>, </think> …",
        (float(lengths[twins][0]), 1.0),
        (-14, -8),
        textcoords="offset points",
        va="top",
        ha="right",
        fontsize=12.5,
    )
    ax.annotate("all other tokens", (float(lengths[~twins].median()), -0.5), color=MUTED)
    ax.set(xlabel="length of the vector", ylabel="cosine with <|im_start|>", ylim=(-0.62, 1.1))
    ax.set_title("To the base, all control tokens are one word")
    return figure


def draw_arms(arms: Mapping[str, Sequence[float]], *, title: str) -> Figure:
    """The share of right answers of each arm, lowest first; a dot for each seed."""
    figure = new_figure((9.0, 0.62 * len(arms) + 1.4))
    ax = figure.subplots()
    ordered = sorted(arms.items(), key=lambda arm: sum(arm[1]) / len(arm[1]))
    for row, (name, shares) in enumerate(ordered):
        mean = sum(shares) / len(shares)
        colour = BASE if name.startswith("base") else TUNED
        ax.barh(row, mean, color=colour, height=0.6, alpha=0.55)
        ax.scatter(shares, [row] * len(shares), color=colour, edgecolor="white", s=48, zorder=3)
        ax.annotate(
            f"{100 * mean:.0f} %",
            (max(shares), row),
            (10, 0),
            textcoords="offset points",
            va="center",
        )
    ax.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    ax.set(xlim=(0, 1), xlabel="right answers of 300; a dot for each seed")
    ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    ax.grid(visible=True, axis="x")
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    ax.set_title(title)
    return figure


def draw_kept(base: Mapping[str, float], tuned: Mapping[str, Sequence[float]]) -> Figure:
    """What the base can do in its own form, and what is left of it in each tuned seed; on the right
    the loss on plain text. The keys are those of `recipe_runs.measure_kept`."""
    figure = new_figure((10.0, 3.8))
    left, right = figure.subplots(1, 2, width_ratios=(2.6, 1))
    tasks = [name for name in base if name != "nats"]
    for ax, names in ((left, tasks), (right, ["nats"])):
        for row, name in enumerate(names):
            mean = sum(tuned[name]) / len(tuned[name])
            ax.annotate(
                "",
                (mean, row),
                (base[name], row),
                arrowprops={"arrowstyle": "->", "color": MUTED, "linewidth": 2},
            )
            ax.scatter(tuned[name], [row] * len(tuned[name]), color=TUNED, s=70, zorder=3)
            ax.scatter([base[name]], [row], color=BASE, s=130, marker="D", zorder=4)
        ax.set_yticks(range(len(names)), names if ax is left else ["plain text"])
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
        ax.grid(visible=True, axis="x")
    left.set(xlim=(0, 1.04), xlabel="share done rightly, without a template")
    left.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    right.set(xlabel="loss, nats per token", xlim=(1.0, 1.1 * max(tuned["nats"])))
    left.scatter([], [], color=BASE, s=130, marker="D", label="base")
    left.scatter([], [], color=TUNED, s=70, label="tuned, a dot for each seed")
    left.legend(loc="lower left")
    left.set_title("Tuning costs the lists; facts and reading stay")
    return figure


def draw_marks(models: Mapping[str, Ways], questions: Sequence[OpenQuestion]) -> Figure:
    """A table: for each model and way of asking, how many answers pass each rule."""
    rows = [(name, way, given) for name, ways in models.items() for way, given in ways.items()]
    figure = new_figure((10.0, 0.5 * len(rows) + 1.5))
    ax = figure.subplots()
    for row, (name, _, given) in enumerate(rows):
        marks = [grade(*pair) for pair in zip(questions, given, strict=True)]
        colour = BASE if name == rows[0][0] else TUNED
        for column, rule in enumerate(RULES):
            applies = [mark[rule] for mark in marks if mark[rule] is not None]
            share = sum(applies) / max(1, len(applies))
            ax.barh(row, 0.82 * share, left=column, height=0.7, color=colour, alpha=0.3)
            ax.barh(row, 0.82, left=column, height=0.7, fill=False, edgecolor=MUTED)
            label = f"{sum(applies)} of {len(applies)}" if applies else "none"
            ax.text(column + 0.41, row, label, ha="center", va="center", fontsize=12.5)
    ax.set_yticks(range(len(rows)), [f"{name}, {way}" for name, way, _ in rows])
    places = [column + 0.41 for column in range(len(RULES))]
    ax.set_xticks(places, [rule.replace("its subject", "its\nsubject") for rule in RULES])
    ax.xaxis.tick_top()
    ax.set(ylim=(len(rows) - 0.4, -0.6), xlim=(-0.05, len(RULES)))
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.set_title("Marks for form: how many answers pass")
    return figure


def draw_cards(question: OpenQuestion, models: Mapping[str, Ways], way: str) -> Figure:
    """The first answer of each model as a card, with its marks; the question stands above."""
    answers = {name: ways[way][0] for name, ways in models.items()}
    texts = {
        name: textwrap.wrap(answer.text or "(nothing)", 44) for name, answer in answers.items()
    }
    lines = min(9, max(map(len, texts.values())))
    figure = new_figure((10.0, 0.26 * lines + 1.7))
    ax = figure.subplots()
    width = 1 / len(answers)
    for place, (name, answer) in enumerate(answers.items()):
        left = place * width
        ax.add_patch(
            FancyBboxPatch(
                (left + 0.005, 0.0),
                width - 0.02,
                1.0,
                boxstyle="round,pad=0,rounding_size=0.02",
                facecolor="#F6F7F9",
                edgecolor=BASE if place == 0 else TUNED,
                linewidth=1.6,
            )
        )
        shown = texts[name][:lines]
        if len(texts[name]) > lines:
            shown[-1] += " …"
        at = {"va": "top", "parse_math": False}
        ax.text(left + 0.02, 0.95, name, fontweight="bold", **at)
        ax.text(left + 0.02, 0.8, "\n".join(shown), fontsize=12, linespacing=1.3, **at)
        marks = grade(question, answer)
        words = [
            f"{'✓' if mark else '✗'} {rule}" for rule, mark in marks.items() if mark is not None
        ]
        ax.text(left + 0.02, 0.04, "   ".join(words), fontsize=11, color=MUTED, parse_math=False)
    ax.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    ax.axis("off")
    ax.set_title(question.text, parse_math=False)
    return figure
