"""Station "judge": what is decided before a model is trained, sealed, and what it then decides.

A plan names the one measure that counts, the one thing that changes, what it is compared with, the
seeds and the number of questions. Its seal is a hash: a report that shows it shows that the plan
was not changed after the results were seen. Derived in chapter 19.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sft_lab.files import write_json
from sft_lab.significance import FEWEST_SEEDS, Verdict, judge_claim, questions_needed

PLAN_FILE, RUNS_FILE = "plan.json", "runs.json"
ARMS = ("control", "changed")
SEAL_DIGITS = 12


class PlanError(ValueError):
    """A plan that could not decide anything, or that is not the one the results were made under."""


@dataclass(frozen=True)
class Plan:
    """What is fixed before the first run."""

    question: str  # what we want to know, in one sentence
    primary: str  # the one measure that decides
    claim: str  # "higher" or "lower": the changed arm's measure against the control's
    changes: Sequence[str]  # what differs between the arms: exactly one thing
    control: str  # what it is compared with
    seeds: Sequence[int]  # of both arms, in pairs
    questions: int  # asked of each model
    smallest: float  # the smallest difference worth finding, a fraction
    disagree: float  # the share of questions on which two such models are expected to differ
    stopping: str  # when no further run is made
    scope: str  # of which model and data a result may speak

    def as_dict(self) -> dict[str, Any]:
        """The plan ready for JSON."""
        return {
            name: list(value) if isinstance(value, list | tuple) else value
            for name, value in asdict(self).items()
        }

    def seal(self) -> str:
        """The first digits of the SHA-256 of the plan: another plan has another seal."""
        return seal(self.as_dict())


def seal(plan: Mapping[str, Any]) -> str:
    """12 hexadecimal digits of the SHA-256 of a plan's JSON text, its keys sorted, in UTF-8."""
    text = json.dumps(plan, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:SEAL_DIGITS]


def find_gaps(plan: Mapping[str, Any]) -> list[str]:
    """The names of what is missing or cannot decide, in the order of `Plan`'s fields; [] for a plan
    that can be sealed."""
    texts = ("question", "primary", "control", "stopping", "scope")
    right = {name: _is_text(plan.get(name)) for name in texts}
    right["claim"] = plan.get("claim") in ("higher", "lower")
    changes = plan.get("changes")
    right["changes"] = _is_list(changes) and len(changes) == 1 and _is_text(changes[0])
    seeds = plan.get("seeds")
    right["seeds"] = (
        _is_list(seeds) and all(map(_is_whole, seeds)) and len(set(seeds)) >= FEWEST_SEEDS
    )
    right["seeds"] = right["seeds"] and len(set(seeds)) == len(seeds)
    smallest, disagree, questions = (plan.get(k) for k in ("smallest", "disagree", "questions"))
    right["disagree"] = _is_number(disagree) and 0 < disagree <= 1
    most = disagree if right["disagree"] else 1
    right["smallest"] = _is_number(smallest) and 0 < smallest < most
    right["questions"] = _is_whole(questions) and questions > 0
    if right["questions"] and right["smallest"] and right["disagree"]:
        right["questions"] = questions >= math.ceil(questions_needed(disagree, smallest))
    return [field.name for field in fields(Plan) if not right[field.name]]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def seal_plan(plan: Plan, folder: Path | str = ".") -> str:
    """Write the plan into `folder`, as plan.json, and return its seal.

    PlanError, and nothing is written, for a plan with gaps, and for one that differs from the plan
    under which runs.json was measured: after the first result a changed plan is a new project.
    """
    if gaps := find_gaps(plan.as_dict()):
        raise PlanError(
            f"the plan decides nothing yet: look at {', '.join(gaps)}. sft_lab.study_plan says "
            "what each must be"
        )
    folder = Path(folder)
    path = folder / PLAN_FILE
    if (folder / RUNS_FILE).exists() and path.exists():
        before = json.loads(path.read_text("utf-8"))
        now = plan.as_dict()
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            raise PlanError(
                f"{', '.join(changed)}: changed after {folder / RUNS_FILE} was measured under the "
                f"plan {seal(before)}. Put it back, or begin a new project for the new plan"
            )
    write_json(path, plan.as_dict())
    return plan.seal()


def judge_plan(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> Verdict:
    """The verdict that the plan asks for: its measure, its claim, its seeds, and no others.

    rows: {"arm": "control" or "changed", "seed": …, the plan's primary measure: a number}, in the
    order in which they were measured. Of two rows of one arm and seed the first counts. PlanError
    naming what the plan asks for and no row has.
    """
    first: dict[tuple[str, int], Mapping[str, Any]] = {}
    for row in rows:
        first.setdefault((row["arm"], row["seed"]), row)
    missing = [f"{arm} {seed}" for seed in plan.seeds for arm in ARMS if (arm, seed) not in first]
    if missing:
        raise PlanError(f"not finished: no row of {', '.join(missing)}. The plan asks for all")
    arms = [[first[arm, seed][plan.primary] for seed in plan.seeds] for arm in ARMS]
    return judge_claim(*arms, claim=plan.claim)
