"""What the prompt weighs (chapter 03b): lengths, policies, and the recorded runs of each weight."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from sft_lab.course.mask_runs import KINDS, POLICIES, WEIGHTS
from sft_lab.course.results import Results
from sft_lab.plots import (
    ANSWER,
    BLUE,
    INK,
    ORANGE,
    PROMPT,
    PURPLE,
    SKY,
    VERMILLION,
    bars_with_spread,
    new_figure,
    title_figure,
)
from sft_lab.significance import judge_claim

NAMES = {0.0: "masked, w = 0", 0.1: "w = 0.1", 1.0: "graded, w = 1"}
COLOURS = {0.0: BLUE, 0.1: PURPLE, 1.0: VERMILLION}


def draw_lengths(lengths: Mapping[str, Mapping[str, float]]) -> Figure:
    """Mean tokens of prompt and answer of each kind, with the share of the prompt."""
    figure = new_figure((9.5, 3.6))
    ax = figure.subplots()
    for place, row in enumerate(reversed(lengths.values())):
        prompt, answer = row["prompt_tokens"], row["answer_tokens"]
        ax.barh(place, prompt, color=PROMPT, label="prompt" if place == 0 else None)
        ax.barh(place, answer, left=prompt, color=ANSWER, label="answer" if place == 0 else None)
        share = f"{prompt:.0f} to {answer:.0f} tokens: {prompt / (prompt + answer):.0%} prompt"
        ax.text(prompt + answer + 2, place, share, va="center", color=INK)
    ax.set_yticks(range(len(lengths)), list(reversed(lengths)))
    ax.set(xlabel="tokens of a conversation (mean)", xlim=(0, 190))
    ax.grid(visible=False, axis="y")
    ax.legend(loc="lower right")
    title_figure(figure, "With w = 1 the loss is mostly about the longer part")
    return figure


def draw_policy_results(results: Results) -> Figure:
    """Loss on held-out answers, on the users' questions, and right answers, for each policy."""
    figure = new_figure((13, 4.4))
    panels = {
        "answers": ("loss on held-out answers", "nats per token"),
        "questions": ("loss on users' questions", "nats per token"),
        "right": ("held-out answers right", "share of 96 questions"),
    }
    axes = figure.subplots(1, len(panels))
    for ax, (measure, (title, unit)) in zip(axes, panels.items(), strict=True):
        values = {
            policy.replace(" ", "\n"): results.measured(measure, policy=policy)
            for policy in POLICIES
        }
        share = measure == "right"
        colours = [SKY, ORANGE, PURPLE, PROMPT]
        bars_with_spread(values, title="", ylabel=unit, colours=colours, percent=share, ax=ax)
        ax.set_title(title, fontsize=13, fontweight="normal")
    title_figure(figure, "A model that is graded on questions learns to predict questions")
    return figure


def draw_watched(results: Results) -> Figure:
    """The held-out loss of every run, until it has not fallen for a while; a dot at its lowest."""
    figure = new_figure((13, 4.2))
    axes = figure.subplots(1, len(KINDS), sharex=True, sharey=True)
    for ax, kind in zip(axes, KINDS, strict=True):
        for weight in WEIGHTS:
            for number, row in enumerate(results.select(kind=kind, weight=weight)):
                label = NAMES[weight] if number == 0 else None
                colour = COLOURS[weight]
                ax.plot(row["steps"], row["watched"], color=colour, lw=1.4, alpha=0.8, label=label)
                lowest = row["watched"][row["steps"].index(row["best_step"])]
                ax.plot(row["best_step"], lowest, "o", color=colour, ms=5)
        ax.set(xlabel="step", yscale="log", ylim=(0.006, 2.5))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set_title(kind, fontsize=13, fontweight="normal")
    axes[0].set_ylabel("loss on 48 held-out answers\n(nats per token)")
    axes[-1].legend(loc="upper right")
    title_figure(figure, "Every run goes on until its held-out loss has ceased to fall")
    return figure


def draw_right(results: Results) -> Figure:
    """Both measures of the exam for each kind and weight: a dot a seed, a stroke at the mean."""
    figure = new_figure((13, 5.2))
    panels = {"right": "share of right statements", "nll": "loss on the answers (nats per token)"}
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (measure, unit) in zip(axes, panels.items(), strict=True):
        for place, kind in enumerate(KINDS):
            for row, weight in enumerate(WEIGHTS):
                values = results.measured(measure, kind=kind, weight=weight)
                y, mean = place + 0.24 * (row - 1), sum(values) / len(values)
                label = NAMES[weight] if place == 0 else None
                ax.plot(values, [y] * len(values), "o", color=COLOURS[weight], ms=7, label=label)
                ax.plot([mean, mean], [y - 0.1, y + 0.1], color=INK, lw=2.5)
        ax.set(xlabel=unit, ylim=(len(KINDS) - 0.5, -0.5))
        ax.grid(axis="x")
    axes[0].set_yticks(range(len(KINDS)), KINDS)
    axes[0].set_xlim(0, 1.02)
    axes[0].xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes[1].set_xscale("log")  # losses are compared as ratios: they span a factor of seventy
    axes[1].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[1].legend(loc="upper left")
    title_figure(figure, "No kind shows a gain from grading the prompt")
    return figure


def print_verdicts(results: Results, weight: float) -> dict[tuple[str, str], str]:
    """The printed verdict on "higher with this weight than with 0", for each kind and measure."""
    words = {}
    print(f"w = {weight:g} minus w = 0, seed by seed; right: a share, nll: nats per token")
    for measure in ("right", "nll"):
        for kind in KINDS:
            arms = [results.measured(measure, kind=kind, weight=w) for w in (0.0, weight)]
            verdict = judge_claim(*arms, claim="higher")
            words[measure, kind] = verdict.word
            effects = " ".join(f"{effect:+.2f}" for effect in verdict.effects)
            print(
                f"{measure:5} {kind:14} {effects}  mean {verdict.mean:+.3f}, "
                f"floor {verdict.floor:.3f}: {verdict.word}"
            )
    return words
