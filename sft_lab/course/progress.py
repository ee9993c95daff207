"""The exercises of the course, and how far a reader has come.

`sft_lab.course.checks` is the door for readers: its `check` records here what was solved, and
`progress` shows the table below. Nothing here needs torch.

The reader's progress is one JSON file, {"1.2": "solved" or "attempted"}: the file that
SFT_LAB_PROGRESS names, else `~/.sft_lab/progress.json`. It is replaced as a whole or not at all,
and a file that cannot be read is left alone.
"""

import html
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from sft_lab.files import write_json
from sft_lab.loop.process import lock_folder

CHAPTERS = Path(__file__).resolve().parents[2] / "chapters"
SOLVED, ATTEMPTED, NOT_ATTEMPTED = "solved", "attempted", "not attempted"
MARKS = {SOLVED: "✓", ATTEMPTED: "✗", NOT_ATTEMPTED: "·"}
# the numbers of exercises that are gone; no other takes one: what a reader solved stays true
RETIRED = frozenset(
    [
        "0.2",
        "2.5",
        "4.4",
        "4.5",
        "4.6",
        "5.2",
        "5.4",
        "5.5",
        "5.6",
        "6.2",
        "6.3",
        "6.4",
        "7.2",
        "8.2",
        "8.4",
        "8.5",
        "9.2",
        "9.3",
        "9.4",
        "9.5",
    ]
)
HEADING = re.compile(
    r"### Exercise (?P<id>\d+[a-z]?\.\d+) · (?P<title>[^·]+) · (?P<minutes>\d+) min"
    r" · (?P<difficulty>●○○|●●○|●●●)"
)


def sort_key(exercise_id: str) -> tuple[str, int]:
    """`"1.10"` → `("01", 10)`, so that 1.10 comes after 1.9, and 11b.1 after 11.9: the first is the
    chapter as its files name it. ValueError when the id is not CHAPTER.NUMBER."""
    found = re.fullmatch(r"(\d+)([a-z]?)\.(\d+)", exercise_id)
    if found is None:
        raise ValueError(f"exercise id {exercise_id!r}: expected CHAPTER.NUMBER, for example '1.2'")
    number, part, place = found.groups()
    return f"{int(number):02d}{part}", int(place)


def parse_heading(line: str) -> "Exercise":
    """Read `### Exercise 1.2 · title · 5 min · ●○○`; ValueError with that pattern when the line is
    anything else."""
    found = HEADING.fullmatch(line.strip())
    if found is None:
        raise ValueError(
            f"heading {line!r}: expected '### Exercise 1.2 · title · 5 min · ●○○' (or ●●○, ●●●)"
        )
    return Exercise(found["id"], found["title"].strip(), int(found["minutes"]), found["difficulty"])


def list_exercises(folder: Path = CHAPTERS) -> list["Exercise"]:
    """Every exercise of the chapters in `folder`, as they stand there; [] where there is no such
    folder."""
    lines = [
        line
        for path in sorted(folder.glob("[0-9][0-9]*_*.py"))
        for line in path.read_text("utf-8").splitlines()
    ]
    return [
        parse_heading(line.removeprefix("# "))
        for line in lines
        if line.startswith("# ### Exercise ")
    ]


def progress_file() -> Path:
    """Where the reader's progress is kept (see the top of this module)."""
    return Path(os.environ.get("SFT_LAB_PROGRESS") or "~/.sft_lab/progress.json").expanduser()


def read_progress(path: Path) -> dict[str, str]:
    """The state of each exercise that was tried; {} when there is no file yet. `ProgressError` when
    it is broken."""
    try:
        states = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ProgressError(
            f"{path} cannot be read ({error}); it was left as it is: repair or rename it"
        ) from error
    if not isinstance(states, dict) or any(
        state not in (SOLVED, ATTEMPTED) for state in states.values()
    ):
        raise ProgressError(
            f'{path} is not of the form {{"1.2": "solved"}}; it was left as it is: repair or '
            "rename it"
        )
    return states


def record(exercise_id: str, state: str) -> None:
    """Note that an exercise was attempted or solved. Solved stays solved. `ProgressError` when it
    cannot be written."""
    path = progress_file()
    if read_progress(path).get(exercise_id) in (state, SOLVED):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # two notebooks at once: what one writes between our reading and our writing would be lost
        with lock_folder(path.parent, wait_seconds=10):
            states = read_progress(path)
            if states.get(exercise_id) != SOLVED:
                states[exercise_id] = state
            write_json(path, dict(sorted(states.items(), key=lambda item: sort_key(item[0]))))
    except OSError as error:
        raise ProgressError(
            f"{path} cannot be written ({error}): set SFT_LAB_PROGRESS to a file that can"
        ) from error


def progress() -> "Progress":
    """The reader's progress over the exercises of all chapters: a table in Jupyter, text in a
    terminal."""
    try:
        states, problem = read_progress(progress_file()), ""
    except ProgressError as error:
        states, problem = {}, f"Progress is not shown: {error}"
    return Progress(
        [(exercise, states.get(exercise.id, NOT_ATTEMPTED)) for exercise in list_exercises()],
        problem,
    )


class ProgressError(ValueError):
    """The file of the reader's progress is broken or cannot be written; it has not been touched."""


@dataclass(frozen=True)
class Exercise:
    """What a heading says: number, title, minutes, and difficulty as one to three filled dots."""

    id: str
    title: str
    minutes: int
    difficulty: str


@dataclass(frozen=True)
class Progress:
    """Each exercise with its state, and what is wrong with the file of progress, if anything is."""

    rows: list[tuple[Exercise, str]]
    problem: str = ""

    def summary(self) -> str:
        """`3 of 12 exercises solved, 25 minutes of exercises left`."""
        left = sum(exercise.minutes for exercise, state in self.rows if state != SOLVED)
        solved = sum(state == SOLVED for _, state in self.rows)
        return f"{solved} of {len(self.rows)} exercises solved, {left} minutes of exercises left"

    def __repr__(self) -> str:
        lines = [
            f"{MARKS[s]} {e.id:<5} {s:<14} {e.difficulty} {e.minutes:>3} min  {e.title}"
            for e, s in self.rows
        ]
        return "\n".join([*lines, self.problem or self.summary()])

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th scope="col">{name}</th>'
            for name in ("exercise", "title", "time", "difficulty", "state")
        )
        body = "".join(
            f'<tr><th scope="row">{e.id}</th><td>{html.escape(e.title)}</td>'
            f"<td>{e.minutes} min</td>"
            f'<td aria-label="{e.difficulty.count("●")} of 3">{e.difficulty}</td>'
            f"<td>{MARKS[state]} {state}</td></tr>"
            for e, state in self.rows
        )
        caption = html.escape(self.problem or self.summary())
        return (
            f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>"
        )
