"""The logits of one real step, how processors bend them, and the text that follows (chapter
14b)."""

import functools
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import Processor
from sft_lab.course.results import Results
from sft_lab.course.views.widgets import Answer, choose, frame, one_at_a_time, redraw_on
from sft_lab.decoding import (
    FrequencyPenalty,
    MinP,
    NoRepeatNgram,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
)
from sft_lab.plots import (
    ANSWER,
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PROMPT,
    PURPLE,
    VERMILLION,
    new_figure,
    show_token,
    title_figure,
)
from sft_lab.rendering import encode_text

SHOWN = 9  # candidates of a step
STEP = 5  # tokens a click
MOST = 100  # tokens of a text
TEMPERATURES = (0.3, 0.7, 1.0, 1.5, 2.0)
FILTERS: dict[str, list[Processor]] = {
    "none": [],
    "top-k 5": [TopK(5)],
    "top-p 0.9": [TopP(0.9)],
    "min-p 0.1": [MinP(0.1)],
}
PENALTIES = {
    "none": None,
    "repetition 1.3": functools.partial(RepetitionPenalty, 1.3),
    "frequency 1": functools.partial(FrequencyPenalty, 1.0),
    "3-gram block": functools.partial(NoRepeatNgram, 3),
}


@dataclass
class Text:
    """A text that grows: its tokens, and how many of them are the prompt's."""

    ids: list[int]
    prompt: int

    @classmethod
    def begin(cls, prompt: str, tokenizer: PreTrainedTokenizerBase) -> "Text":
        """The prompt alone."""
        ids = encode_text(prompt, tokenizer)
        return cls(ids, len(ids))


def make_processors(temperature: float, cut: str, penalty: str) -> list[Processor]:
    """Penalty, temperature and filter of these names, in transformers' order. KeyError for a name
    that is none."""
    first = [] if PENALTIES[penalty] is None else [PENALTIES[penalty]()]
    return [*first, Temperature(temperature), *FILTERS[cut]]


@torch.inference_mode()
def read_logits(model: PreTrainedModel, text: Text) -> torch.Tensor:
    """The logits (V,) of the token after the text."""
    return model(input_ids=torch.tensor([text.ids], device=model.device)).logits[0, -1].float()


def bend(logits: torch.Tensor, text: Text, processors: Sequence[Processor]) -> torch.Tensor:
    """The logits (V,) after every processor, in their order."""
    ids, scores = torch.tensor([text.ids], device=logits.device), logits[None]
    for processor in processors:
        if hasattr(processor, "begin"):
            processor.begin(torch.ones(1, text.prompt))
        scores = processor(ids, scores)
    return scores[0]


def grow(
    model: PreTrainedModel,
    text: Text,
    processors: Sequence[Processor],
    *,
    draw: bool,
    count: int = STEP,
    stops: Sequence[int] = (),
) -> Text:
    """The text with `count` more tokens, fewer where it ends: the likeliest after the processors,
    or drawn. The same tokens always draw alike, so that a setting can be tried again."""
    ids = list(text.ids)
    for _ in range(count):
        if len(ids) > text.prompt and ids[-1] in stops:
            break
        here = Text(ids, text.prompt)
        bent = bend(read_logits(model, here), here, processors).cpu()
        generator = torch.Generator().manual_seed(1000 * len(ids) + sum(ids))
        chosen = (
            torch.multinomial(bent.softmax(0), 1, generator=generator) if draw else bent.argmax()
        )
        ids = [*ids, int(chosen)]
    return Text(ids, text.prompt)


def describe_step(
    tokenizer: PreTrainedTokenizerBase,
    text: Text,
    before: torch.Tensor,
    after: torch.Tensor,
) -> str:
    """What `draw_step` shows, in words: how many tokens are left, and what the likeliest is before
    and after."""
    first, then = before.softmax(0), after.softmax(0)
    best, new = int(first.argmax()), int(then.argmax())
    left = int((after > -torch.inf).sum())
    allowed = f"{left} of {len(after):,} tokens" if left < len(after) else f"all {left:,} tokens"
    said = (
        f"After {len(text.ids)} tokens, {allowed} may follow. The likeliest by the model is "
        f"{_name(tokenizer, best)} with {first[best]:.1%}, now {then[best]:.1%}"
    )
    if new != best:
        said += f"; the likeliest is now {_name(tokenizer, new)} with {then[new]:.1%}"
    return said + "."


def draw_step(
    tokenizer: PreTrainedTokenizerBase,
    text: Text,
    before: torch.Tensor,
    bent: Mapping[str, torch.Tensor],
    title: str,
) -> Figure:
    """Probabilities of the likeliest tokens of a step: grey by the model, orange after each of the
    bent logits, a panel each. A cross: forbidden. Bold: said before."""
    figure = new_figure((12.0 if len(bent) > 1 else 8.5, 4.3))
    panels = np.atleast_1d(figure.subplots(1, len(bent), sharey=True))
    bent = {name: after.cpu() for name, after in bent.items()}
    first = before.cpu().softmax(0)
    shown = first.topk(min(SHOWN, len(first))).indices
    names = [_name(tokenizer, int(token_id)) for token_id in shown]
    places = np.arange(len(shown))
    for ax, (name, after) in zip(panels, bent.items(), strict=True):
        then = after.softmax(0)[shown].numpy()
        ax.barh(places - 0.2, first[shown].numpy(), height=0.4, color=PROMPT, label="the model")
        ax.barh(places + 0.2, then, height=0.4, color=ANSWER, label="after it")
        for place, token_id in enumerate(shown):
            if after[token_id] == -torch.inf:
                ax.text(0.01, place + 0.2, "×", va="center", color=VERMILLION, fontsize=15)
        ax.set_title(name, fontsize=12)
        ax.set(xlabel="probability", xlim=(0, 1))
        ax.set_xticks([0, 0.5, 1.0], ["0", "0.5", "1"])
        ax.grid(visible=False, axis="y")
    panels[0].set_yticks(places, names)
    panels[0].invert_yaxis()
    for label, token_id in zip(panels[0].get_yticklabels(), shown.tolist(), strict=True):
        if token_id in text.ids:
            label.set_fontweight("bold")
    panels[-1].legend(loc="lower right", fontsize=10.5)
    title_figure(figure, title)
    return figure


def explore_decoding(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> ipywidgets.VBox:
    """Buttons for temperature, filter, penalty and draw; a text that grows by five tokens a
    click."""
    names = [(prompt, prompt) for prompt in prompts]
    beginnings = choose("beginning", names)
    temperatures = choose("temperature", [(f"{one:g}", one) for one in TEMPERATURES])
    temperatures.value = 1.0
    filters = choose("filter", [(name, name) for name in FILTERS])
    penalties = choose("penalty", [(name, name) for name in PENALTIES])
    draws = choose("takes", [("the likeliest", False), ("a draw", True)])
    more = ipywidgets.Button(description=f"{STEP} more tokens")
    again = ipywidgets.Button(description="begin again")
    stops = {tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
    texts = {"now": Text.begin(prompts[0], tokenizer)}

    def settings() -> list[Processor]:
        return make_processors(temperatures.value, filters.value, penalties.value)

    def answer() -> Answer:
        text = texts["now"]
        before = read_logits(model, text)
        after = bend(before, text, settings())
        name = f"T {temperatures.value:g}, filter {filters.value}, penalty {penalties.value}"
        figure = draw_step(
            tokenizer, text, before, {name: after}, "The next step, before and after"
        )
        return Answer(
            describe_step(tokenizer, text, before, after),
            figure,
            below=_as_html(tokenizer, text),
        )

    view, redraw = frame(
        [beginnings, [temperatures, filters], [penalties, draws], [more, again]], answer
    )

    @one_at_a_time
    def go_on(_: object) -> None:
        text = texts["now"]
        if len(text.ids) - text.prompt < MOST:
            texts["now"] = grow(model, text, settings(), draw=draws.value, stops=[*stops])
        redraw()

    @one_at_a_time
    def start(_: object) -> None:
        texts["now"] = Text.begin(beginnings.value, tokenizer)
        redraw()

    more.on_click(go_on)
    again.on_click(start)
    beginnings.observe(start, names="value")
    redraw_on(redraw, temperatures, filters, penalties)
    return view


def draw_way() -> Figure:
    """A schematic: from the text so far to the next token, and where each kind of processor
    stands."""
    figure = new_figure((11.0, 3.8))
    ax = figure.subplots()
    ax.set(xlim=(0, 11), ylim=(0, 3.9))
    ax.axis("off")
    boxes = [
        (0.8, "tokens\nso far", PROMPT),
        (2.5, "model", PROMPT),
        (4.2, "logits", "white"),
        (6.0, "penalties", ANSWER),
        (7.7, "temper-\nature", ANSWER),
        (9.0, "filter", ANSWER),
        (10.4, "draw, or\nlikeliest", "white"),
    ]
    style = {"boxstyle": "round,pad=0.4", "edgecolor": INK}
    for x, name, colour in boxes:
        ax.text(x, 2.2, name, ha="center", va="center", bbox=style | {"facecolor": colour},
                fontsize=12)  # fmt: skip
    for (tail, *_), (head, *_) in zip(boxes, boxes[1:], strict=False):
        _arrow(ax, (tail + 0.5, 2.2), (head - 0.5, 2.2), INK)
    _arrow(ax, (10.4, 1.6), (0.8, 1.6), BLUE, bend=-0.12)
    _arrow(ax, (0.8, 2.8), (6.0, 2.8), VERMILLION, bend=-0.22)
    ax.text(5.6, 0.25, "the chosen token is one of them in the next step", ha="center", color=BLUE)
    ax.text(3.4, 3.75, "what was said: penalties alone look at it", ha="center", color=VERMILLION)
    ax.set_title("The model gives logits; everything orange is decoding", y=1.04)
    return figure


FAMILIES = {  # how a setting's name begins, and the colour of its point
    "greedy": INK, "beam": VERMILLION, "repetition": BLUE, "frequency": BLUE, "presence": BLUE,
    "2-gram": PURPLE, "3-gram": PURPLE, "4-gram": PURPLE, "contrastive": MUTED,
}  # fmt: skip


def draw_plane(results: Results, settings: Sequence[str], reference: str, **arm: str) -> Figure:
    """Repetition against perplexity of open text, a point a setting (mean over the seeds), bars
    from the lowest to the highest seed; a star for texts that people wrote."""
    figure = new_figure((11.0, 5.6))
    ax = figure.subplots()
    points: list[tuple[str, tuple[float, float]]] = []
    for setting in (*settings, reference):
        x = results.measured("rep-4", setting=setting, **arm)
        y = results.measured("perplexity", setting=setting, **arm)
        named = (colour for key, colour in FAMILIES.items() if setting.startswith(key))
        colour = GREEN if setting == reference else next(named, ORANGE)
        size, marker = (330, "*") if setting == reference else (60, "o")
        at = (float(np.mean(x)), float(np.mean(y)))
        ax.plot([min(x), max(x)], [at[1]] * 2, color=colour, alpha=0.35, linewidth=1.2)
        ax.plot([at[0]] * 2, [min(y), max(y)], color=colour, alpha=0.35, linewidth=1.2)
        ax.scatter(*at, s=size, marker=marker, color=colour, zorder=4, edgecolor=INK, linewidth=0.6)
        points.append((setting, at))
    ax.set(
        yscale="log", xlabel="repeated 4-grams (share)", ylabel="perplexity under the model (log)"
    )
    ax.set_yticks([1, 1.5, 2, 3, 5, 10, 20, 40], ["1", "1.5", "2", "3", "5", "10", "20", "40"])
    ax.minorticks_off()
    _name_points(ax, points)
    ax.set_title("Fewer repeats or likelier words: the star has both in measure")
    return figure


def _name_points(ax: Axes, points: Sequence[tuple[str, tuple[float, float]]]) -> None:
    """Names beside their points, each moved up or down until it covers no other."""
    taken: list[tuple[float, float, float]] = []  # left, right and height, in points
    for name, at in sorted(points, key=lambda point: point[1][1]):
        x, y = ax.transData.transform(at) * 72 / ax.figure.dpi
        for lift in (4, -13, 16, -25, 28, -37, 40):
            left, right, height = x + 8, x + 8 + 6 * len(name), y + lift
            if all(right < a or b < left or abs(height - h) > 11 for a, b, h in taken):
                break
        taken.append((left, right, height))
        ax.annotate(name, at, xytext=(8, lift), textcoords="offset points", fontsize=10)


COUNTED = {"prompt and answer": VERMILLION, "all but the stop token": BLUE, "answer alone": GREEN}


def draw_stops(recorded: Mapping[str, Results], measure: str, label: str, title: str) -> Figure:
    """A measure of greedy answers against the repetition penalty, a panel for each model: a line
    for what counts as said (mean over the seeds), a dot a seed."""
    figure = new_figure((11.0, 4.2))
    panels = np.atleast_1d(figure.subplots(1, len(recorded), sharey=True))
    for ax, (name, results) in zip(panels, recorded.items(), strict=True):
        without = results.measured(measure, use="stops", penalty=1.0)
        penalties = sorted({row["penalty"] for row in results.rows if row["use"] == "stops"})
        for counted, colour in COUNTED.items():
            arm = {"use": "stops", "counted": counted}
            seeds = [without] + [
                results.measured(measure, penalty=penalty, **arm) for penalty in penalties[1:]
            ]
            ax.plot(penalties, np.mean(seeds, axis=1), color=colour, label=counted, marker="o")
            for penalty, values in zip(penalties, seeds, strict=True):
                ax.scatter([penalty] * len(values), values, s=14, color=colour, alpha=0.5)
        ax.set(xlabel="repetition penalty", title=name)
    # the panels share their axis: its limit is set when all are drawn
    panels[0].set_ylim(0, 1.05 * panels[0].get_ylim()[1])
    panels[0].set_ylabel(label)
    panels[-1].legend(title="said is", loc="lower left", fontsize=10.5)
    title_figure(figure, title)
    return figure


def _arrow(
    ax: Axes, tail: tuple[float, float], head: tuple[float, float], colour: str, bend: float = 0
) -> None:
    arrow = FancyArrowPatch(
        tail, head, arrowstyle="-|>", mutation_scale=16, color=colour, linewidth=1.8,
        connectionstyle=f"arc3,rad={bend}",
    )  # fmt: skip
    ax.add_patch(arrow)


def _name(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    return show_token(tokenizer.decode([token_id]))


def _as_html(tokenizer: PreTrainedTokenizerBase, text: Text) -> str:
    """The prompt in grey, what was written after it in black."""
    parts = (tokenizer.decode(text.ids[: text.prompt]), tokenizer.decode(text.ids[text.prompt :]))
    prompt, written = (html.escape(part).replace("\n", "<br>") for part in parts)
    return (
        f'<p style="line-height: 1.5"><span style="color: {MUTED}">{prompt}</span>'
        f"<b>{written}</b></p>"
    )
