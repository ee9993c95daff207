"""The page that `Comparison.to_html` writes: one file, no network, no script (a policy in the page
forbids both).

Filters are radio buttons and CSS, so nothing that a model says can run. Verdicts are marks and
words, not colour alone.
"""

import difflib
import html
import re
import string
from importlib import resources
from typing import Any

from sft_lab.formats import format_percent

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
WORDS = re.compile(
    r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|\s+|[^\w\s]"
)  # a Chinese character counts as a word


def render_report(result: dict[str, Any], finding: str, footnote: str) -> str:
    """The page for `Comparison.to_dict()`: the finding as heading, the figure, filters, every
    answer side by side."""
    template = string.Template(
        resources.files("sft_lab").joinpath("report.html").read_text(encoding="utf-8")
    )
    counts = {"all": result["questions"]} | result["changes"]
    radios = buttons = ""
    for key, name in FILTERS.items():
        state = " checked" if key == "all" else "" if counts[key] else " disabled"
        radios += f'<input type="radio" name="show" id="show-{key}"{state}>'
        buttons += (
            f'<label for="show-{key}" class="{key}{state}">{name} <b>{counts[key]}</b></label>'
        )
    return template.substitute(
        finding=html.escape(finding),
        names=html.escape(" against ".join(result["names"])),
        tiles=_tiles(result),
        figure=draw_figure(result),
        radios=radios,
        buttons=buttons,
        cards="\n".join(
            _card(number, row, result["names"])
            for number, row in enumerate(result["answers"], start=1)
        ),
        footnote=html.escape(footnote),
    )


def draw_figure(result: dict[str, Any]) -> str:
    """Inline SVG: base (ring) and tuned (disc) on one scale from 0 to 100 %: overall with
    intervals, and by group. Words use the comparison's own names for the two; classes and keys stay
    base and tuned."""
    names = {
        side: html.escape(name)
        for side, name in zip(("base", "tuned"), result["names"], strict=True)
    }
    lines = [
        (
            "right answers",
            result["questions"],
            result["base"]["accuracy"],
            result["tuned"]["accuracy"],
        )
    ]
    lines += [
        (group, part["questions"], part["base"], part["tuned"])
        for group, part in result["groups"].items()
    ]
    lines += [
        ("stopped by itself", None, result["base"]["stop_rate"], result["tuned"]["stop_rate"])
    ]
    left, right, top, step = 230, 920, 46, 38
    after = left + 50 + 9 * len(result["names"][0])  # where the key goes on
    ending = after + 35 + 9 * len(result["names"][1])
    bottom = top + step * len(lines) - 8

    def at(fraction: float) -> float:
        return round(left + fraction * (right - left), 1)

    parts = [
        f'<svg viewBox="0 0 980 {bottom + 34}" role="img" aria-label="{names["base"]} and '
        f'{names["tuned"]} from 0 to 100 percent">',
        f'<circle class="base" cx="{left + 6}" cy="14" r="6"/><text x="{left + 20}" '
        f'y="19">{names["base"]}</text>',
        f'<circle class="tuned" cx="{after}" cy="14" r="6"/><text x="{after + 14}" '
        f'y="19">{names["tuned"]}</text>',
        f'<text class="muted" x="{ending}" y="19">bars: 95 % interval</text>',
    ]
    for tick in (0, 25, 50, 75, 100):
        x = at(tick / 100)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top - 12}" y2="{bottom}"/>')
        parts.append(
            f'<text class="muted" text-anchor="middle" x="{x}" y="{bottom + 22}">{tick} %</text>'
        )
    for place, (name, questions, base, tuned) in enumerate(lines):
        y, strong = (
            top + 8 + step * place,
            ' class="strong"' if place in (0, len(lines) - 1) else "",
        )
        count = f' <tspan class="muted">{questions}</tspan>' if questions is not None else ""
        parts.append(
            f'<text{strong} text-anchor="end" x="{left - 22}" '
            f'y="{y + 5}">{html.escape(name)}{count}</text>'
        )
        parts.append(f'<line class="link" x1="{at(base)}" x2="{at(tuned)}" y1="{y}" y2="{y}"/>')
        if place == 0:
            for side in ("base", "tuned"):
                low, high = map(at, result[side]["accuracy_interval"])
                parts.append(
                    f'<line class="interval {side}" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
                )
        for side, value in (("base", base), ("tuned", tuned)):
            tip = f"<title>{names[side]} {format_percent(value)}</title>"
            parts.append(f'<circle class="{side}" cx="{at(value)}" cy="{y}" r="7">{tip}</circle>')
    return "\n".join([*parts, "</svg>"])


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
    sides = zip(("base", "tuned"), names, strict=True)
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
    text = (
        html.escape(reply["text"]) if reply["right"] else mark_differences(reply["text"], reference)
    )
    body = f"<blockquote>{text}</blockquote>"
    if not reply["text"].strip():
        body = '<blockquote class="empty">(nothing)</blockquote>'
    tokens = f"{reply['tokens']} token{'s' * (reply['tokens'] != 1)}"
    end = (
        f"stopped by itself after {tokens}"
        if reply["stopped"]
        else f"wrote no stop token: ended at {tokens}"
    )
    return (
        f'<section class="{side}"><h3>{html.escape(name)} {verdict}</h3>{body}<p '
        f'class="end">{end}</p></section>'
    )
