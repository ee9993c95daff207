"""Station "doctor": what an examination found: a table, a dictionary, a page, an exit code."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from sft_lab.records import Conversation

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
FIRST_PLACES = 10


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
        raise NotImplementedError

    def to_html(self, path: Path | str) -> None:
        raise NotImplementedError


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first; of one severity, what concerns no row (all of them) first, then by number."""
    return sorted(
        findings,
        key=lambda found: (SEVERITIES.index(found.severity), found.count > 0, -found.count),
    )
