"""Chapter 18c: the clinic's case files, their causes, and what speaks against a diagnosis."""

import math
import random
import string
from dataclasses import dataclass

from sft_lab.course.results import Results, Row
from sft_lab.course.zoo_bugs import BUGS, DECOYS, Bug, Decoy
from sft_lab.course.zoo_table import BATTERY, bands, is_outside, seen_by

# shown elsewhere in the chapter
ELSEWHERE = ("stop = pad", "mask early", "dropout in eval", "0 / 0", "header graded")
CASES: dict[str, Bug | Decoy] = {case.name: case for case in (*BUGS, *DECOYS)}


def letter_cases() -> dict[str, str]:
    """The clinic: a letter for each of 26 cases, in an order that tells nothing."""
    names = [name for name in CASES if name not in ELSEWHERE]
    random.Random("clinic").shuffle(names)
    return dict(zip(string.ascii_uppercase, names, strict=True))


CLINIC = letter_cases()


@dataclass(frozen=True)
class CaseFile:
    """What an engineer gets. Rows of `batch`: ids, and for each "+" where it is graded."""

    letter: str
    losses: list[float]
    evals: list[float]
    rates: list[float]
    norms: list[float]
    outputs: list[list[str]]
    batch: list[tuple[list[int], str]]
    row: Row  # with the values of the probes

    def at(self, step: int) -> dict[str, float]:
        """The log's line of a step, counted from 1."""
        k = step - 1
        return {"step": step, "loss": self.losses[k], "lr": self.rates[k], "grad": self.norms[k]}


def open_file(results: Results, case: str, letter: str = "") -> CaseFile:
    """The recorded file of a case, of its first seed."""
    row = results.select(case=case)[0]
    losses, evals, rates, norms = (
        [float(text) for text in row[f"log {key}"].split()]
        for key in ("loss", "eval", "lr", "grad")
    )
    batch = [([int(token) for token in ids.split()], marks) for ids, marks in row["batch"]]
    return CaseFile(letter, losses, evals, rates, norms, row["outputs"], batch, row)


def alarms(results: Results, case: str) -> dict[str, float | None]:
    """The probes whose value lies outside of the healthy band in every seed, with their value in
    the first; None stands for "not a number"."""
    row = results.select(case=case)[0]
    return {name: row[name] for name in seen_by(results, case, BATTERY)}


def contradictions(results: Results, case: str, cause: str) -> list[str]:
    """The probes that speak against `cause` as the cause of `case`: they see one of the two in
    every seed, and do not see the other in any."""
    allowed = bands(results)

    def votes(name: str, probe: str) -> set[bool]:
        rows = results.select(case=name)
        return {is_outside(row[probe], allowed[probe]) for row in rows}

    return [
        probe
        for probe in BATTERY
        if {frozenset(votes(case, probe)), frozenset(votes(cause, probe))}
        == {frozenset({True}), frozenset({False})}
    ]


def judge_diagnosis(results: Results, case: str, cause: str) -> tuple[bool, str]:
    """Whether a diagnosis is right, and a sentence about it: what contradicts it, or that these
    probes cannot tell the two apart."""
    if case == cause:
        return True, f"Right. {CASES[case].cause.capitalize()}."
    against = contradictions(results, case, cause)
    if not against:
        return False, (
            "No probe contradicts you, and yet it is another cause: these probes see both alike. "
            "Look at the log and the outputs."
        )
    row, other = results.select(case=case)[0], results.select(case=cause)[0]
    probe = against[0]
    return False, (
        f'The probe "{probe}" contradicts you: here it is {say(row[probe])}, with your cause '
        f"{say(other[probe])}."
    )


def say(value: float | None) -> str:
    """A probe's value in words."""
    if value is None:
        return "not a number"
    if math.isinf(value):
        return "any"  # the open end of a band
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.2f}"


def list_causes() -> list[str]:
    """The names of all causes, in the order of the alphabet."""
    return sorted(CASES, key=str.lower)
