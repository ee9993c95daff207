"""A project notebook for your own file: `sft-lab new --data my.jsonl`.

It looks at the file, keeps questions back before anything has seen them, and writes a folder with
a notebook that is ready to run: plan, doctor, base line, training over seeds, verdict, report.
Nothing is written when a row is bad, and no folder is overwritten.
"""

import argparse
import json
import math
import os
import random
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sft_lab.compare import Comparison
    from sft_lab.findings import Diagnosis
    from sft_lab.records import Conversation
    from sft_lab.study_plan import Plan

from sft_lab.arguments import LARGEST_SEED, option, whole_number
from sft_lab.files import OutputError, as_folder, whole_folder, write_json, write_text
from sft_lab.formats import format_number_of

TEMPLATE = Path(__file__).with_name("project.py.txt")
PARTS = ("learn", "validation", "test")
FEWEST_ROWS, FEWEST_QUESTIONS, MOST_QUESTIONS = 40, 10, 500
SHORT = 12  # words of an answer that can be right or wrong as a whole
DISAGREE = 0.5  # the share of questions on which two models differ: the worst case
SEED = 0
RIGHT, COMMON = "right answers", "chrF"
CELL_ID = "cell-{:02d}"


class ProjectError(ValueError):
    """A file that no project can be made of; what is wrong, and what to do."""


def main(arguments: list[str] | None = None) -> None:
    """The command; exits with a message where no project can be made."""
    parser = argparse.ArgumentParser(
        prog="sft-lab new",
        description=__doc__.split("\n\n")[0],
        epilog="Then open project.ipynb in the new folder, and run it from top to bottom.",
    )
    parser.add_argument(
        "--data", required=True, help="JSON, JSONL or CSV: Alpaca rows, pairs or messages"
    )
    parser.add_argument(
        "--model",
        default="atlas-base",
        help="atlas-base (default), smollm2-135m, qwen3-0.6b-base, owner/name of the hub, a folder",
    )
    parser.add_argument("--out", default="my-project", help="the new folder (default: my-project)")
    parser.add_argument(
        "--questions",
        type=option(whole_number, least=FEWEST_QUESTIONS),
        help="to keep back for validation, and as many for the test (default: a tenth of the rows)",
    )
    parser.add_argument(
        "--seed",
        type=option(whole_number, least=0, most=LARGEST_SEED),
        default=SEED,
        help="decides which rows are kept back (default: 0)",
    )
    given = parser.parse_args(arguments)

    # Imports take seconds: --help and a wrong option answer before them.
    from sft_lab.models import ModelError

    try:
        folder = make_project(
            given.data, given.out, model=given.model, questions=given.questions, seed=given.seed
        )
    # what is wrong with rows is a ValueError
    except (ValueError, ModelError, OSError) as error:
        sys.exit(f"{error}")
    counts = ", ".join(f"{part} {_count_lines(folder / f'{part}.jsonl')}" for part in PARTS)
    print(f"{folder}: project.ipynb, plan.json and the rows: {counts}")
    print(f"Open {folder / 'project.ipynb'}, change the plan, and run it from top to bottom.")


def make_project(
    data: Path | str,
    out: Path | str = "my-project",
    *,
    model: str = "atlas-base",
    questions: int | None = None,
    seed: int = SEED,
) -> Path:
    """Write the folder of a project; returns it.

    questions: rows to keep back for validation, and as many for the test; a tenth of all by
    default. Raises RecordError naming every bad row, ProjectError for too few rows or rows that
    cannot be kept apart, ModelError for a misspelled model, and OutputError for a folder that is
    there; nothing is written then.
    """
    from sft_lab.kept_back import split_apart
    from sft_lab.models import find_source
    from sft_lab.records import load_conversations
    from sft_lab.study_plan import seal_plan

    folder = as_folder("--out", out)
    if os.path.lexists(folder):
        raise OutputError(f"{folder} is there, and a project overwrites nothing", "give --out")
    find_source(model)
    conversations = load_conversations(data)
    count = len(conversations)
    if count < FEWEST_ROWS:
        raise ProjectError(
            f"{data}: {format_number_of(count, 'row')}; a project needs {FEWEST_ROWS} at least, to "
            f"learn some and to ask {FEWEST_QUESTIONS} twice. sft-lab demo --data takes fewer"
        )
    wanted = questions or min(MOST_QUESTIONS, max(FEWEST_QUESTIONS, count // 10))
    parts = dict(zip(PARTS, split_apart(conversations, wanted, seed=seed), strict=True))
    _check_parts(parts, wanted, count, data)
    plan = default_plan(parts, Path(data).name)
    texts = describe(conversations, parts, plan, str(data))
    # the notebook runs in another folder than this
    texts["MODEL"] = _literal(os.path.abspath(model) if os.path.isdir(model) else model)
    with whole_folder(folder) as new:
        for name, rows in parts.items():
            lines = [json.dumps({"messages": list(row)}, ensure_ascii=False) for row in rows]
            (new / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        write_json(new / "project.ipynb", build_notebook(TEMPLATE.read_text("utf-8"), texts))
        seal_plan(plan, new)
    return folder


def _check_parts(
    parts: Mapping[str, Sequence[Any]], wanted: int, count: int, data: Path | str
) -> None:
    """ProjectError where rows that belong together leave too few for one of the parts."""
    fewest = min(wanted, FEWEST_QUESTIONS)
    if min(map(len, (parts["validation"], parts["test"]))) < fewest or len(parts["learn"]) < fewest:
        sizes = ", ".join(f"{name} {len(rows)}" for name, rows in parts.items())
        raise ProjectError(
            f"{data}: {count} rows make {sizes}; each part needs {fewest}. Rows with the same or "
            "nearly the same question stay together: give rows that differ, or fewer --questions"
        )


def default_plan(parts: Mapping[str, Sequence["Conversation"]], name: str) -> "Plan":
    """A plan that can decide something with so many questions; the reader changes it."""
    from sft_lab.significance import smallest_difference
    from sft_lab.study_plan import Plan

    questions = len(parts["validation"])
    answers = sorted(_count_words(rows[-1]["content"]) for rows in parts["validation"])
    return Plan(
        question=f"Do the answers in {name} teach anything beyond their form?",
        primary=RIGHT if answers[questions // 2] <= SHORT else COMMON,
        claim="higher",
        changes=["every question has its own answer"],
        control="the same rows, answers exchanged among the questions",
        seeds=[0, 1, 2],
        questions=questions,
        smallest=math.ceil(100 * smallest_difference(DISAGREE, questions)) / 100,
        disagree=DISAGREE,
        stopping="after the last seed of both arms",
        scope="this model, this file, these settings",
    )


def describe(
    conversations: Sequence["Conversation"],
    parts: Mapping[str, Sequence["Conversation"]],
    plan: "Plan",
    data: str,
) -> dict[str, str]:
    """What the template's names in braces stand for."""
    several = sum(sum(turn["role"] == "user" for turn in talk) > 1 for talk in conversations)
    shape = f", {several} of them with several questions" if several else ""
    # of a path, only what cannot end the markdown it stands in
    shown = "".join(char if char.isprintable() and char != "`" else "?" for char in data)
    texts = {"TITLE": f"My project: {Path(shown).name}", "DATA": shown, "SHAPE": shape}
    texts["ROWS"] = str(len(conversations))
    texts |= {name.upper(): str(len(rows)) for name, rows in parts.items()}
    return texts | {f"PLAN_{name}": _literal(value) for name, value in plan.as_dict().items()}


def _literal(value: Any) -> str:
    """A value as it stands in Python's code."""
    return json.dumps(value, ensure_ascii=False)


def _count_words(text: str) -> int:
    from sft_lab.duplicates import words

    return len(words(text))


def _count_lines(path: Path) -> int:
    return path.read_text("utf-8").count("\n")


def build_notebook(template: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """A notebook (format 4.5) from a template in percent format, with {{NAME}} replaced."""
    cells = []
    for part in template.split("# %%")[1:]:
        first, _, body = part.partition("\n")
        kind = "markdown" if "[markdown]" in first else "code"
        source = body.strip("\n")
        if kind == "markdown":
            source = re.sub(r"^# ?", "", source, flags=re.MULTILINE)
        # in one pass: what a text brings is not replaced again
        source = re.sub(r"\{\{(\w+)\}\}", lambda found: texts[found[1]], source)
        cell = {"cell_type": kind, "id": CELL_ID.format(len(cells)), "metadata": {}}
        cell["source"] = source.splitlines(keepends=True)
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


# what the notebook calls


def shuffle_answers(conversations: Sequence["Conversation"], seed: int) -> list["Conversation"]:
    """The same conversations, the last answer of each exchanged for that of another row: the same
    texts and the same form, and nothing to learn about a question."""
    order = list(range(len(conversations)))
    random.Random(seed).shuffle(order)
    # each row takes the answer of the next in a random ring: no row keeps its own
    given = {row: order[place - 1] for place, row in enumerate(order)}
    return [[*talk[:-1], conversations[given[row]][-1]] for row, talk in enumerate(conversations)]


def score_said(primary: str, said: Sequence[str], references: Sequence[str]) -> float:
    """The measure of this name, of greedy answers, as a fraction.

    "right answers": the share that equals the reference, up to white space and final punctuation.
    "chrF": runs of letters in common with the references, of all answers together; any script.
    """
    from sft_lab.measures import MEASURES
    from sft_lab.metrics import is_right

    pairs = list(zip(said, references, strict=True))
    if primary == RIGHT:
        return sum(is_right(*pair) for pair in pairs) / len(pairs)
    if primary == COMMON:
        chrf = MEASURES["chrf"]
        return chrf.total(sum(chrf.count(*pair, "en") for pair in pairs))
    raise ProjectError(f"primary is {primary!r}; this notebook measures {RIGHT!r} and {COMMON!r}")


def read_runs(plan: "Plan", folder: Path | str = ".") -> list[dict[str, Any]]:
    """The rows of runs.json; PlanError for rows that were measured under another plan."""
    from sft_lab.study_plan import RUNS_FILE, PlanError

    path = Path(folder) / RUNS_FILE
    rows = json.loads(path.read_text("utf-8")) if path.exists() else []
    if others := {row["seal"] for row in rows} - {plan.seal()}:
        raise PlanError(
            f"{path} was measured under the plan {min(others)}, and this plan is {plan.seal()}: "
            "put the plan back, or begin a new project"
        )
    return rows


def record_run(plan: "Plan", row: Mapping[str, Any], folder: Path | str = ".") -> None:
    """Add a row to runs.json, under the plan's seal."""
    from sft_lab.study_plan import RUNS_FILE

    write_json(Path(folder) / RUNS_FILE, [*read_runs(plan, folder), {**row, "seal": plan.seal()}])


def write_report(
    plan: "Plan",
    model: str,
    base_line: float,
    rows: Sequence[Mapping[str, Any]],
    diagnosis: "Diagnosis",
    comparison: "Comparison",
    folder: Path | str = ".",
) -> str:
    """Write report.md: the sealed plan, every run, the verdict, the test; returns its text."""
    from sft_lab.study_plan import judge_plan

    verdict = judge_plan(plan, rows)
    lines = [f"# {plan.question}", "", f"Plan, sealed before the first run: `{plan.seal()}`", ""]
    lines += ["| plan | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in plan.as_dict().items()]
    lines += ["", f"Model: {model}. Doctor: {diagnosis.advice()}", ""]
    lines += [f"| arm | seed | {plan.primary} |", "|---|---|---|", f"| base | | {base_line:.1%} |"]
    lines += [f"| {row['arm']} | {row['seed']} | {row[plan.primary]:.1%} |" for row in rows]
    lines += [
        "",
        f"**{verdict.word}**: mean effect {100 * verdict.mean:+.1f} points, noise floor "
        f"{100 * verdict.floor:.1f}. A mean effect of {200 * verdict.floor:.1f} points or less "
        "could not have been shown.",
        "",
        f"Test part, asked once: {comparison.finding()}",
        "",
        f"Scope: {_cell(plan.scope)}. Other models, data and settings were not tried, and may give "
        "another result.",
    ]
    text = "\n".join(lines) + "\n"
    write_text(Path(folder) / "report.md", text)
    return text


def _cell(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    main()
