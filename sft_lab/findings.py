"""Station "doctor": what an examination found: a table, a dictionary, a page, an exit code.

The page is one file, without network and without script (a policy in it forbids both): what a data
set says is shown and never runs.
"""

import html
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from sft_lab.files import write_text
from sft_lab.formats import format_number_of, format_percent
from sft_lab.pages import fill_page
from sft_lab.records import Conversation

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
FIRST_PLACES = 10
WIDTH = 100  # columns of the table on a screen
ONE_A_ROW = ("answers", "rows encoded")
NO_FINDING = "Nothing was found. This says that the data can be learned, not that they are good."


@dataclass(frozen=True)
class Finding:
    """One thing that was found. title: a sentence with the number in it. places: the first ten,
    "data.jsonl, row 17"; count: how many rows in all. A finding about no row has [] and 0."""

    code: str
    severity: Severity
    title: str
    places: list[str]
    count: int
    why: str
    remedy: str


@dataclass
class Tally:
    """How often each kind of thing was seen, the first places of each, and the first sample.

    key: a code, or whatever is counted apart. Of a key the first places are kept in the order in
    which they come. sample: what was seen there, for a reader.
    """

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, place: str, sample: str = "") -> None:
        self.counts[key] += 1
        kept = self.places.setdefault(key, [])
        if len(kept) < FIRST_PLACES:
            kept.append(place)
        if sample:
            self.samples.setdefault(key, sample)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; `Tally.of` reads it again."""
        return {"counts": dict(self.counts), "places": self.places, "samples": self.samples}

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Tally":
        return cls(Counter(state["counts"]), dict(state["places"]), dict(state["samples"]))

    def absorb(self, other: "Tally", order: dict[str, int]) -> None:
        """Add what another process counted. order: the rank of each place."""
        self.counts.update(other.counts)
        for key, places in other.places.items():
            both = [*self.places.get(key, []), *places]
            both.sort(key=lambda place: order.get(place, 0))
            if key in other.samples and both[0] == places[0]:
                self.samples[key] = other.samples[key]
            self.places[key] = both[:FIRST_PLACES]


class RowCheck(Protocol):
    """What looks at one conversation after the other, and says at the end what it found.

    Rows are shared between processes, each with a check of its own: `state` is what it gathered,
    as JSON can hold it, and `absorb` adds the state of another check to this one. order: the rank
    of each place in the data.
    """

    def look(self, place: str, conversation: Conversation) -> None: ...

    def findings(self) -> list[Finding]: ...

    def measured(self) -> dict[str, Any]: ...

    def state(self) -> dict[str, Any]: ...

    def absorb(self, state: dict[str, Any], order: dict[str, int]) -> None: ...


@dataclass
class Diagnosis:
    """All that an examination found and measured."""

    findings: list[Finding]
    measured: dict[str, Any]
    settings: dict[str, Any]
    seconds: float

    def __post_init__(self) -> None:
        self.findings = sort_findings(self.findings)

    def count(self, severity: Severity) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def exit_code(self, strict: bool = False) -> int:
        """0 where there is no error, 1 where there is one; strict: or a warning."""
        return int(bool(self.count("error") or strict and self.count("warning")))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON can hold them."""
        return asdict(self)

    def table(self) -> str:
        """What was examined, what was measured, each finding in a few lines, and one line that
        says what to do."""
        lines = [*_wrap(self.settings_line(), ""), "", *self.measured_lines()]
        lines += [""] * bool(lines[-1])
        for finding in self.findings:
            lines += [*_tell(finding), ""]
        return "\n".join([*lines, self.advice()])

    def advice(self) -> str:
        """How much was found and what to do next, in one line."""
        counts = {severity: self.count(severity) for severity in SEVERITIES}
        told = ", ".join(format_number_of(n, severity) for severity, n in counts.items() if n)
        return f"{told}. {self.next_step()}" if told else NO_FINDING

    def next_step(self) -> str:
        if self.count("error"):
            return "Mend the errors before you train, and run the doctor again."
        if self.count("warning"):
            return "No error: look at the rows of the warnings, then train."
        return "No error and no warning: train."

    def settings_line(self) -> str:
        """What was examined, and under which settings."""
        given = [f"{name} {value}" for name, value in self.settings.items() if value is not None]
        return f"Examined in {self.seconds:.1f} s: {', '.join(given)}"

    def measured_lines(self) -> list[str]:
        """What was measured on the screen: a name and its value on each line, the values below each
        other."""
        told = format_measured(self.measured)
        width = max((len(name) for name, _ in told), default=0)
        return [line for name, value in told for line in _wrap(value, f"  {name:{width}}  ")]

    def to_html(self, path: Path | str) -> None:
        """Write the page."""
        write_text(path, render_page(self))


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; of one severity, what concerns no row (all of them) first, then by number."""
    return sorted(
        findings,
        key=lambda found: (SEVERITIES.index(found.severity), found.count > 0, -found.count),
    )


def list_places(places: list[str], count: int) -> str:
    """ "data.jsonl, rows 3, 17 and 4 more": places of one file with its name once."""
    files: dict[str, list[str]] = {}
    for place in places:
        name, _, number = place.rpartition(", row ")
        files.setdefault(name or place, []).extend([number] if name else [])
    told = []
    for name, numbers in files.items():
        rows = "row" if len(numbers) == 1 else "rows"
        told.append(f"{name}, {rows} {', '.join(numbers)}" if numbers else name)
    more = f" and {count - len(places):,} more" if count > len(places) else ""
    return "; ".join(told) + more


def format_measured(measured: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values, as text. Left out is what says nothing: a count of none, and a count of
    answers, or of rows that could be encoded, that is the number of rows once more."""
    rows = measured.get("rows")
    return [
        (name, _format_value(name, value))
        for name, value in measured.items()
        if (value or name == "rows") and not (name in ONE_A_ROW and value == rows)
    ]


def _format_value(name: str, value: Any) -> str:
    if isinstance(value, dict):  # percentiles: "50 % up to 12, longest 40"
        return ", ".join(
            f"{key} {'up to ' * key.endswith('%')}{_format_value(key, inner)}"
            for key, inner in value.items()
        )
    if isinstance(value, float):
        return format_percent(value) if "share" in name else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _tell(finding: Finding) -> list[str]:
    """A finding on the screen."""
    lines = _wrap(finding.title, f"{finding.severity.upper():9}")
    if finding.places:
        lines += _wrap(list_places(finding.places, finding.count), "  where  ")
    lines += _wrap(finding.why, "  why    ")
    return lines + _wrap(finding.remedy, "  do     ")


def _wrap(text: str, head: str) -> list[str]:
    text = " ".join(text.split())
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


def render_page(diagnosis: Diagnosis) -> str:
    """The page: what to do as heading, numbers of findings, each finding, what was measured."""
    tiles = "".join(
        f'<div class="{severity if n else "none"}"><dt>{severity}{"s" * (n != 1)}</dt>'
        f"<dd>{n:,}</dd></div>"
        for severity in SEVERITIES
        for n in [diagnosis.count(severity)]
    )
    if "rows" in diagnosis.measured:
        tiles += f"<div><dt>rows read</dt><dd>{diagnosis.measured['rows']:,}</dd></div>"
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in format_measured(diagnosis.measured)
    )
    values = {
        "data": html.escape(str(diagnosis.settings.get("data", "data"))),
        # the tiles below it have the numbers
        "finding": html.escape(diagnosis.next_step() if diagnosis.findings else NO_FINDING),
        "tiles": tiles,
        "cards": "\n".join(map(_card, diagnosis.findings)) or "<p>No finding.</p>",
        "measured": rows,
        "settings": html.escape(diagnosis.settings_line()),
    }
    return fill_page("findings.html", values)


def _card(finding: Finding) -> str:
    where = ""
    if finding.places:
        places = html.escape(list_places(finding.places, finding.count))
        where = f'<p class="where"><b>Where</b> <span>{places}</span></p>'
    return f"""<article class="{finding.severity}">
<header><span class="severity">{finding.severity}</span><h2>{html.escape(finding.title)}</h2>
<code>{html.escape(finding.code)}</code></header>
{where}
<p><b>Why</b> <span>{html.escape(finding.why)}</span></p>
<p><b>What to do</b> <span>{html.escape(finding.remedy)}</span></p>
</article>"""
