"""The page that `Comparison.to_html` writes: one file, no network, no script (a policy in the page
forbids both).

Filters are radio buttons and CSS, so nothing that a model says can run. Verdicts are marks and
words, not colour alone.
"""

import difflib
import html
import re
from collections.abc import Sequence
from typing import Any

from sft_lab.formats import format_percent
from sft_lab.pages import fill_page

FILTERS = {
    "all": "All",
    "improved": "Improved",
    "lost": "Lost",
    "both_wrong": "Both wrong",
    "both_right": "Both right",
}
VERDICTS = {
    "improved": "{0} wrong, {1} right",
    "lost": "{0} right, {1} wrong",
    "both_wrong": "both wrong",
    "both_right": "both right",
}
# a Chinese character counts as a word
WORDS = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|\s+|[^\w\s]")
SIDES = ("base", "tuned")
# Of the figure, in its own units: ends of the scale, the first row, and from row to row.
LEFT, RIGHT, TOP, STEP = 230, 920, 46, 38


def render_report(result: dict[str, Any], finding: str, footnote: str) -> str:
    """The page for `Comparison.to_dict()`: the finding as heading, the figure, filters, every
    answer side by side."""
    counts = {"all": result["questions"]} | result["changes"]
    radios = buttons = ""
    for key, name in FILTERS.items():
        state = " checked" if key == "all" else "" if counts[key] else " disabled"
        radios += f'<input type="radio" name="show" id="show-{key}"{state}>'
        buttons += (
            f'<label for="show-{key}" class="{key}{state}">{name} <b>{counts[key]}</b></label>'
        )
    values = {
        "finding": html.escape(finding),
        "names": html.escape(" against ".join(result["names"])),
        "tiles": _tiles(result),
        "figure": draw_figure(result),
        "radios": radios,
        "buttons": buttons,
        "cards": "\n".join(
            _card(number, row, result["names"])
            for number, row in enumerate(result["answers"], start=1)
        ),
        "footnote": html.escape(footnote),
    }
    return fill_page("report.html", values)


def draw_figure(result: dict[str, Any]) -> str:
    """Inline SVG: base (ring) and tuned (disc) on one scale from 0 to 100 %: overall with
    intervals, and by group. Words use the comparison's own names for the two; classes and keys stay
    base and tuned."""
    names = dict(zip(SIDES, map(html.escape, result["names"]), strict=True))
    base, tuned = (result[side] for side in SIDES)
    measured = list(result.get("measures", {}).values())
    rows = [
        ("right answers", result["questions"], base["accuracy"], tuned["accuracy"]),
        *(
            (group, part["questions"], part["base"], part["tuned"])
            for group, part in result["groups"].items()
        ),
        *((name, None, base[name], tuned[name]) for name in _abstained(result)),
        *((found["label"], None, found["base"], found["tuned"]) for found in measured),
        ("stopped by itself", None, base["stop_rate"], tuned["stop_rate"]),
    ]
    bottom = TOP + STEP * len(rows) - 8
    parts = [
        f'<svg viewBox="0 0 980 {bottom + 34}" role="img" aria-label="{names["base"]} and '
        f'{names["tuned"]} from 0 to 100 percent">',
        *_draw_key(names, *map(len, result["names"])),
        *_draw_scale(bottom),
    ]
    intervals = {0: {side: result[side]["accuracy_interval"] for side in SIDES}}
    for index, found in enumerate(measured, start=len(rows) - 1 - len(measured)):
        intervals[index] = found["intervals"]
    for index, row in enumerate(rows):
        y, first, last = TOP + 8 + STEP * index, index == 0, index == len(rows) - 1
        parts += _draw_row(y, *row, names, strong=first or last)
        if index in intervals:
            parts += [_draw_interval(y, side, intervals[index][side]) for side in SIDES]
    return "\n".join([*parts, "</svg>"])


def _abstained(result: dict[str, Any]) -> tuple[str, ...]:
    """The shares that are shown where a model declined at least once."""
    declined = any(result[side]["declined"] for side in SIDES)
    return ("invented", "declined") if declined else ()


def _x(fraction: float) -> float:
    """Where a fraction stands on the scale of the figure."""
    return round(LEFT + fraction * (RIGHT - LEFT), 1)


def _draw_key(names: dict[str, str], base_length: int, tuned_length: int) -> list[str]:
    """Both marks with their names, and what the bars are; lengths in characters before escapes."""
    tuned = LEFT + 50 + 9 * base_length
    interval = tuned + 35 + 9 * tuned_length
    return [
        f'<circle class="base" cx="{LEFT + 6}" cy="14" r="6"/>',
        f'<text x="{LEFT + 20}" y="19">{names["base"]}</text>',
        f'<circle class="tuned" cx="{tuned}" cy="14" r="6"/>',
        f'<text x="{tuned + 14}" y="19">{names["tuned"]}</text>',
        f'<text class="muted" x="{interval}" y="19">bars: 95 % interval</text>',
    ]


def _draw_scale(bottom: int) -> list[str]:
    """Five lines from 0 to 100 %, each with its number below."""
    parts = []
    for percent in (0, 25, 50, 75, 100):
        x = _x(percent / 100)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP - 12}" y2="{bottom}"/>')
        parts.append(
            f'<text class="muted" text-anchor="middle" x="{x}" y="{bottom + 22}">{percent} %</text>'
        )
    return parts


def _draw_row(
    y: int,
    name: str,
    questions: int | None,
    base: float,
    tuned: float,
    names: dict[str, str],
    *,
    strong: bool,
) -> list[str]:
    """A name with its number of questions, and both rates joined by a line."""
    count = f' <tspan class="muted">{questions}</tspan>' if questions is not None else ""
    weight = ' class="strong"' if strong else ""
    parts = [
        f'<text{weight} text-anchor="end" x="{LEFT - 22}" y="{y + 5}">{html.escape(name)}{count}'
        "</text>",
        f'<line class="link" x1="{_x(base)}" x2="{_x(tuned)}" y1="{y}" y2="{y}"/>',
    ]
    for side, rate in (("base", base), ("tuned", tuned)):
        tip = f"<title>{names[side]} {format_percent(rate)}</title>"
        parts.append(f'<circle class="{side}" cx="{_x(rate)}" cy="{y}" r="7">{tip}</circle>')
    return parts


def _draw_interval(y: int, side: str, interval: Sequence[float]) -> str:
    low, high = map(_x, interval)
    return f'<line class="interval {side}" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'


def mark_differences(text: str, reference: str) -> str:
    """HTML of an answer, the words that the reference does not have marked; plain if the two have
    little in common."""
    words, wanted = WORDS.findall(text), WORDS.findall(reference)
    matcher = difflib.SequenceMatcher(None, wanted, words, autojunk=False)
    if matcher.ratio() < 0.6:
        return html.escape(text)
    pieces = []
    for kind, _, _, start, end in matcher.get_opcodes():
        piece = html.escape("".join(words[start:end]))
        pieces.append(
            f"<mark>{piece}</mark>" if kind in ("replace", "insert") and piece.strip() else piece
        )
    return "".join(pieces)


def _tiles(result: dict[str, Any]) -> str:
    base, tuned = result["base"], result["tuned"]
    tiles = (
        ("right answers", format_percent(base["accuracy"]), format_percent(tuned["accuracy"])),
        *(
            (name, format_percent(base[name]), format_percent(tuned[name]))
            for name in _abstained(result)
        ),
        *(
            (found["label"], *(f"{100 * found[side]:.1f}" for side in SIDES))
            for found in result.get("measures", {}).values()
        ),
        (
            "stopped by itself",
            format_percent(base["stop_rate"]),
            format_percent(tuned["stop_rate"]),
        ),
        ("tokens an answer", f"{base['mean_tokens']:.0f}", f"{tuned['mean_tokens']:.0f}"),
    )
    return "".join(
        f'<div><dt>{name}</dt><dd><span class="before">{before}</span> <i>→</i> {after}</dd></div>'
        for name, before, after in tiles
    )


def _card(number: int, row: dict[str, Any], names: list[str]) -> str:
    group = f'<span class="group">{html.escape(row["group"])}</span>' if row["group"] else ""
    sides = zip(SIDES, names, strict=True)
    replies = "".join(_reply(side, name, row[side], row["reference"]) for side, name in sides)
    verdict = html.escape(VERDICTS[row["change"]].format(*names))
    return f"""<article class="{row["change"]}">
<header><span class="number">{number}</span><h2>{html.escape(row["question"])}</h2>{group}
<span class="verdict">{verdict}</span></header>
<p class="reference"><span>reference</span>{html.escape(row["reference"])}</p>
<div class="replies">{replies}</div>
</article>"""


def _reply(side: str, name: str, reply: dict[str, Any], reference: str) -> str:
    verdict = '<b class="right">✓ right</b>' if reply["right"] else '<b class="wrong">✗ wrong</b>'
    if reply["declined"]:
        verdict = '<b class="declined">– declined</b>'
    body = f"<blockquote>{mark_differences(reply['text'], reference)}</blockquote>"
    if reply["right"]:  # it may still differ in its final punctuation
        body = f"<blockquote>{html.escape(reply['text'])}</blockquote>"
    elif not reply["text"].strip():
        body = '<blockquote class="empty">(nothing)</blockquote>'
    how = "stopped by itself after" if reply["stopped"] else "wrote no stop token: ended at"
    end = f"{how} {reply['tokens']} token{'s' * (reply['tokens'] != 1)}"
    return (
        f'<section class="{side}"><h3>{html.escape(name)} {verdict}</h3>{body}'
        f'<p class="end">{end}</p></section>'
    )
