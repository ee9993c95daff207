"""Checks of chapter 19, a project of one's own."""

import contextlib
import hashlib
import io
import json
import math
import random
import tempfile
from collections.abc import Callable
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.course.exercises.kit import Mistake, checks, need_word, same_for_all, shorten
from sft_lab.course.project_runs import MARKED, build_project, run_arm
from sft_lab.kept_back import keep_groups
from sft_lab.models import load
from sft_lab.records import Conversation
from sft_lab.significance import VERDICTS, judge_claim, questions_needed
from sft_lab.study_plan import find_gaps, seal

Plan = dict[str, Any]
Rows = list[dict[str, Any]]
CLAIMS = ("higher", "lower")


def _need_text(found: object) -> str:
    if not isinstance(found, str):
        raise Mistake(f"expected a text, got {shorten(found)}")
    return found


def _draw_plan() -> Plan:
    """A plan without a gap, with exactly as many questions as it needs."""
    smallest = round(random.uniform(0.04, 0.1), 3)
    disagree = round(random.uniform(smallest + 0.05, 0.4), 3)
    return {
        "question": random.choice(("Does politeness cost accuracy?", "礼貌会降低准确率吗？")),
        "primary": random.choice(("holds", "equals")),
        "claim": random.choice(CLAIMS),
        "changes": [random.choice(("one word 一", "a rate of 1e-4"))],
        "control": "the same rows as they are",
        "seeds": random.sample(range(50), random.choice((3, 4, 5))),
        "questions": math.ceil(questions_needed(disagree, smallest)),
        "smallest": smallest,
        "disagree": disagree,
        "stopping": "after the last seed",
        "scope": "atlas-base, 300 lessons",
    }


def _shuffled(plan: Plan) -> Plan:
    """The same plan, its names in another order than the alphabet's."""
    names = sorted(plan, reverse=True)
    return {name: plan[name] for name in names}


def _seal_mistakes() -> list[tuple[Callable, str]]:
    def text(plan: Plan, **other: Any) -> str:
        return json.dumps(plan, **{"sort_keys": True, "ensure_ascii": False, **other})

    def wrong(form: Callable, method: str = "sha256", part: slice = slice(12)) -> Callable:
        return lambda plan: hashlib.new(method, form(plan).encode()).hexdigest()[part]

    return [
        (
            wrong(lambda plan: text(plan, sort_keys=False)),
            "the order of the names changes the seal: sort the keys",
        ),
        (
            wrong(lambda plan: text(plan, ensure_ascii=True)),
            r"letters such as 一 stand as \u4e00 in your text: ensure_ascii=False",
        ),
        (
            wrong(text, part=slice(None)),
            "this is the whole hash: its first 12 digits are asked for",
        ),
        (wrong(text, part=slice(-12, None)), "these are the last digits: the first 12"),
        (wrong(text, "md5"), "this is MD5: SHA-256 is asked for"),
        (wrong(text, "sha1"), "this is SHA-1: SHA-256 is asked for"),
        (wrong(str), "this is Python's way to write a dict, not JSON"),
        (wrong(lambda plan: str(sorted(plan.items()))), "this is Python's way to write a list"),
        (
            wrong(lambda plan: text(plan, separators=(",", ":"))),
            "without the blanks that json.dumps writes behind commas and colons",
        ),
        (wrong(lambda plan: text(plan, indent=1)), "with line breaks: json.dumps as it is"),
        (
            wrong(lambda plan: text(list(plan))),
            "the names alone are hashed: a changed value must change the seal",
        ),
    ]


@checks("19.1")
def seal_it(attempt: Callable) -> str:
    whole = _draw_plan()
    later = whole | {"primary": "bleu 二"}
    less = {name: whole[name] for name in random.sample(sorted(whole), 4)} | {"change": "一"}
    # letters that other ways to write them change, and seeds in rising order
    marked = {"control": 'the "old" rows,\nas they\'re: É', "seeds": [1, 2, 3]}
    plans = (whole, later, less, whole | {"control": "一"}, whole | marked)
    inputs = [(_shuffled(plan),) for plan in plans]
    same_for_all(attempt, inputs, seal, _seal_mistakes(), form=_need_text, what="the seal")
    ordered = {name: whole[name] for name in sorted(whole)}
    if attempt(ordered) != attempt(_shuffled(whole)):
        raise Mistake("the same plan, its names in another order, has another seal")
    return "one plan, one seal; whatever is changed, the seal is another"


def _need_names(found: object) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise Mistake(f"expected a list of names, got {shorten(found)}")
    return found


TEXTS = ("question", "primary", "control", "stopping", "scope")


def _gaps(plan: Plan, **other: Callable[[Any], bool]) -> list[str]:
    """The gaps, with the rules of some names exchanged."""
    enough = questions_needed(plan["disagree"], plan["smallest"])
    rules: dict[str, Callable[[Any], bool]] = {
        name: lambda value: isinstance(value, str) and bool(value.strip()) for name in TEXTS
    }
    rules |= {
        "claim": lambda value: value in CLAIMS,
        "changes": lambda value: len(value) == 1,
        "seeds": lambda value: len(value) >= 3 and len(set(value)) == len(value),
        "questions": lambda value: value >= enough,
    }
    rules |= other
    order = ("question", "primary", "claim", "changes", "control", "seeds", "questions")
    return [name for name in (*order, "stopping", "scope") if not rules[name](plan[name])]


def _gap_mistakes() -> list[tuple[Callable, str]]:
    def wrong(**other: Callable[[Any], bool]) -> Callable:
        return lambda plan: _gaps(plan, **other)

    def of_questions(form: Callable[[int, float], bool]) -> Callable:
        def answer(plan: Plan) -> list[str]:
            needed = questions_needed(plan["disagree"], plan["smallest"])
            return _gaps(plan, questions=lambda value: form(value, needed))

        return answer

    return [
        (wrong(**dict.fromkeys(TEXTS, bool)), "a text of blanks says nothing: strip it"),
        (
            wrong(primary=lambda value: bool(value[0].strip()) if value else False),
            "primary must be one text: a list of measures leaves the choice for later",
        ),
        (
            wrong(**dict.fromkeys(TEXTS, lambda value: bool(str(value).strip()))),
            "primary must be one text: a list of measures leaves the choice for later",
        ),
        (wrong(seeds=lambda value: len(value) >= 3), "a seed that is there twice is no new run"),
        (
            wrong(seeds=lambda value: len(set(value)) >= 3),
            "seeds must all be different, not only three of them",
        ),
        (
            wrong(seeds=lambda value: len(value) > 3 and len(set(value)) == len(value)),
            "three seeds are enough",
        ),
        (
            wrong(seeds=lambda value: len(set(value)) == len(value)),
            "fewer than three seeds agree by luck",
        ),
        (wrong(changes=bool), "two changes at once: nobody could say which of them did it"),
        (wrong(changes=lambda value: len(value) <= 1), "no change at all is a gap too"),
        (wrong(claim=bool), 'the claim must be "higher" or "lower"'),
        (
            wrong(claim=lambda value: value.lower() in CLAIMS),
            '"Higher" is not "higher": the program that judges compares texts',
        ),
        (
            of_questions(lambda value, needed: value > math.ceil(needed)),
            "exactly as many questions as needed are enough",
        ),
        (
            of_questions(lambda value, needed: value >= int(needed)),
            "rounded down: one question too few is accepted",
        ),
        (
            of_questions(lambda value, needed: value > 0),
            "too few questions are accepted: compare with questions_needed",
        ),
        (lambda plan: sorted(_gaps(plan)), "the names stand in the order of the list above"),
    ]


@checks("19.2")
def gaps(attempt: Callable) -> str:
    faults: list[Plan] = [{name: text} for name in TEXTS for text in ("", " \n")]
    faults += [{name: [name]} for name in TEXTS]
    faults += [{"primary": ["holds", "equals"]}, {"primary": "exact match"}]
    faults += [{"claim": word} for word in ("better", "different", "Higher", " lower", "")]
    faults += [{"changes": names} for names in ([], ["one word", "two epochs"], ["rate", "rate"])]
    faults += [{"disagree": 0.15, "smallest": 0.1, "questions": 110}]
    faults += [{"disagree": 0.3, "smallest": 0.05, "questions": 500}]
    faults += [{"seeds": seeds} for seeds in ([0, 1], [], [4, 4, 5], [0, 1, 2, 0], [7, 8, 9])]
    faults += [{}, {"scope": " ", "claim": "better", "seeds": [1, 2], "primary": ""}]
    inputs = [(_draw_plan() | fault,) for fault in faults]
    for more in (-1, 1):
        plan = _draw_plan()
        inputs.append((plan | {"questions": plan["questions"] + more},))
    random.shuffle(inputs)
    same_for_all(attempt, inputs, _gaps, _gap_mistakes(), form=_need_names, what="the gaps")
    return "every gap is named, and a plan that can decide has none"


Pairs = list[tuple[int, int]]


def _groups(count: int, pairs: Pairs, *, rounds: int | None = None) -> list[set[int]]:
    """The group of each row; `rounds`: how often what belongs together is passed on."""
    groups = [{row} for row in range(count)]
    for _ in range(count if rounds is None else rounds):
        before = [set(group) for group in groups]
        for first, second in pairs:
            groups[first] |= before[second]
            groups[second] |= before[first]
    return groups


def _keep(
    count: int,
    pairs: Pairs,
    order: list[int],
    wanted: int,
    *,
    rounds: int | None = None,
    fits: Callable[[int, int, int], bool] = lambda size, kept, wanted: size <= wanted,
    enough: Callable[[int, int], bool] = lambda kept, wanted: kept >= wanted,
) -> list[int]:
    groups, kept = _groups(count, pairs, rounds=rounds), set()
    for row in order:
        if enough(len(kept), wanted):
            break
        if row not in kept and fits(len(groups[row]), len(kept), wanted):
            kept |= groups[row]
    return sorted(kept)


def _keep_mistakes() -> list[tuple[Callable, str]]:
    def wrong(**other: Any) -> Callable:
        return lambda *given: _keep(*given, **other)

    return [
        (
            wrong(rounds=1),
            "only direct partners stay together: belonging is passed on, from a pair to the next",
        ),
        (wrong(rounds=0), "single rows are drawn: their groups must come along"),
        (
            wrong(fits=lambda size, kept, wanted: True),
            "a group of more than `wanted` rows is passed over",
        ),
        (
            wrong(fits=lambda size, kept, wanted: size < wanted),
            "a group of exactly `wanted` rows is kept",
        ),
        (
            wrong(fits=lambda size, kept, wanted: kept + size <= wanted),
            "a group that goes beyond `wanted` is left out: a whole group is kept as long as fewer "
            "than `wanted` rows are",
        ),
        (
            wrong(enough=lambda kept, wanted: kept > wanted),
            "one group too many: with `wanted` rows you are done",
        ),
        (
            lambda count, pairs, order, wanted: _keep(count, pairs, list(range(count)), wanted),
            "the rows are taken from 0 on: go by `order`",
        ),
        (
            lambda *given: _keep(*given)[: given[3]],
            "a group is cut: whole groups, even if there are more rows than `wanted`",
        ),
        (
            lambda count, pairs, order, wanted: sorted(
                set(range(count)) - {*_keep(count, pairs, order, wanted)}
            ),
            "these are the rows to learn: return those kept back",
        ),
    ]


def _need_places(found: object) -> list[int]:
    whole = isinstance(found, list) and all(isinstance(place, Integral) for place in found)
    if not whole or any(isinstance(place, bool) for place in found):
        raise Mistake(f"expected a list of whole numbers, got {shorten(found)}")
    if found != sorted(found):
        raise Mistake("the list is not sorted")
    return found


def _draw_groups() -> tuple[int, Pairs, list[int], int]:
    """A chain whose ends meet late, a pair, a group too large, and rows alone, on shuffled rows."""
    count, wanted = random.randint(24, 30), 5
    rows = random.sample(range(count), count)
    chain, pair, large = rows[:4], rows[4:6], rows[6:13]
    pairs = [(chain[0], chain[1]), (chain[2], chain[3]), (pair[1], pair[0])]
    pairs += [(large[i], large[i + 1]) for i in range(6)]
    random.shuffle(pairs)
    pairs.append((chain[3], chain[0]))
    rest = random.sample(rows[13:], len(rows) - 13)
    # the large one first, then the chain from its end, then a pair that goes beyond
    order = [large[3], chain[1], pair[0], *rest, *large[:3], *chain[2:], chain[0], pair[1]]
    return count, pairs, [*order, *large[4:]], wanted


@checks("19.3")
def keep_apart(attempt: Callable) -> str:
    inputs = [_draw_groups() for _ in range(4)]
    for wanted in (3, 6):
        count = random.randint(14, 20)
        order = random.sample(range(count), count)
        # no pair at all; two groups of exactly as many rows as are wanted
        inputs.append((count, [], order, wanted))
        first, second = order[:wanted], order[wanted : 2 * wanted]
        pairs = [(group[0], row) for group in (first, second) for row in group[1:]]
        inputs.append((count, pairs, order, wanted))
        # the next row of a group that is kept already adds nothing
        inputs.append((count, pairs, order, wanted + 1))
    inputs.append((6, [(0, 3), (3, 5), (1, 2)], [5, 4, 2, 0, 1, 3], 2))
    for given in inputs:
        assert _keep(*given) == keep_groups(*given)
    same_for_all(attempt, inputs, _keep, _keep_mistakes(), form=_need_places, what="the rows")
    return "no group stands on both sides, and enough rows are kept back"


def _decide(
    plan: Plan,
    rows: Rows,
    *,
    seeds: Callable[[Plan, Rows], list[int]] = lambda plan, rows: plan["seeds"],
    primary: Callable[[Plan], str] = lambda plan: plan["primary"],
    claim: Callable[[Plan], str] = lambda plan: plan["claim"],
    last: bool = False,
    skip: bool = False,
) -> str:
    found: dict[tuple[str, int], dict] = {}
    for row in rows[::-1] if not last else rows:  # the last one written stays
        found[row["arm"], row["seed"]] = row
    chosen = list(seeds(plan, rows))
    if skip:
        chosen = [s for s in chosen if ("control", s) in found and ("changed", s) in found]
    if any((arm, seed) not in found for arm in ("control", "changed") for seed in chosen):
        return "not finished"
    arms = [[found[arm, s][primary(plan)] for s in chosen] for arm in ("control", "changed")]
    return judge_claim(*arms, claim=claim(plan)).word


def _every_seed(plan: Plan, rows: Rows) -> list[int]:
    both = [{r["seed"] for r in rows if r["arm"] == arm} for arm in ("control", "changed")]
    return sorted(both[0] & both[1])


def _planned_or_none(plan: Plan, rows: Rows) -> list[int]:
    return plan["seeds"][:3]


def _decide_mistakes() -> list[tuple[Callable, str]]:
    def wrong(**other: Any) -> Callable:
        return lambda plan, rows: _decide(plan, rows, **other)

    return [
        (
            wrong(seeds=_every_seed),
            "runs of seeds that the plan does not name count: those were added later",
        ),
        (wrong(last=True), "of two runs of one arm and seed the first counts, not the repeat"),
        (
            wrong(primary=lambda plan: "loss" if plan["primary"] == "right" else "right"),
            "another measure than the plan's decides",
        ),
        (wrong(primary=lambda plan: "right"), "`right` decides whatever the plan's primary is"),
        (wrong(claim=lambda plan: "higher"), 'the claim is always "higher": the plan says which'),
        (
            wrong(claim=lambda plan: "lower" if plan["claim"] == "higher" else "higher"),
            "the claim is reversed, or the arms are: control first, changed second",
        ),
        (
            wrong(skip=True),
            "a planned run that is missing is passed over: then the project is not finished",
        ),
        (wrong(seeds=_planned_or_none), "the first three seeds alone count: the plan has more"),
        (
            lambda plan, rows: {"did not hold": "not shown"}.get(w := _decide(plan, rows), w),
            '"did not hold" and "not shown" are two verdicts: judge_claim tells them apart',
        ),
    ]


def _draw_runs(
    plan: Plan, effect: float, *, later: float, repeat: float, other: float, gone: str = ""
) -> Rows:
    """Runs of a plan: the planned seeds differ by `effect`, those added later by `later`, a repeat
    by `repeat`, and the other measure by `other`. gone: the arm in which a seed has no run."""

    def row(arm: str, seed: int, size: float) -> dict:
        base = {"right": round(random.uniform(0.5, 0.51), 4)}
        base["loss"] = round(random.uniform(0.5, 0.51), 4)
        second = "loss" if plan["primary"] == "right" else "right"
        if arm == "changed":
            base[plan["primary"]] += size
            base[second] += other
        return {"arm": arm, "seed": seed} | base

    planned = [row(arm, s, effect) for s in plan["seeds"] for arm in ("control", "changed")]
    for arm in ("control", "changed"):  # the noise floor is 0.01
        own = [run for run in planned if run["arm"] == arm]
        size = effect if arm == "changed" else 0.0
        own[0][plan["primary"]], own[1][plan["primary"]] = 0.5 + size, 0.51 + size
    if gone:
        planned.pop({"control": -2, "changed": -1}[gone])
    random.shuffle(planned)
    extra = [row(arm, 90 + s, later) for s in range(9) for arm in ("control", "changed")]
    again = [row(arm, s, repeat) for s in plan["seeds"][:-1] for arm in ("control", "changed")]
    return [*extra[:8], *planned, *again, *extra[8:]]


@checks("19.4")
def decide(attempt: Callable) -> str:
    inputs = []
    for primary in ("right", "loss"):
        for claim in CLAIMS:
            way = 1 if claim == "higher" else -1
            for sign in (way, 0, -way):
                seeds = random.sample(range(20), random.choice((4, 5)))
                plan = {"primary": primary, "claim": claim, "seeds": seeds}
                effect = 0.2 * sign if sign else 0.014 * way  # above one noise floor, below two
                against = -effect if sign else 0.2 * way
                others = {"later": against, "repeat": against, "other": against}
                inputs.append((plan, _draw_runs(plan, effect, **others)))
            plan = {"primary": primary, "claim": claim, "seeds": random.sample(range(20), 4)}
            missing = "control" if claim == "higher" else "changed"
            gone = _draw_runs(plan, 0.2 * way, later=0, repeat=0, other=0, gone=missing)
            repeats = gone[-10 - 6 : -10]
            inputs.append((plan, [row for row in gone if row not in repeats]))
    same_for_all(
        attempt,
        inputs,
        _decide,
        _decide_mistakes(),
        form=lambda found: need_word(found, *VERDICTS, "not finished"),
        what="the word",
    )
    return "the plan's measure, the plan's seeds, the first run of each"


MARKS = {
    "plan": (1, "was it written before, and is a seal shown?"),
    "kept back": (1, "were they drawn before training, and did anybody look for near-duplicates?"),
    "control": (2, "is there a base line, and does the control differ in one thing?"),
    "seeds": (0, "which seeds does the plan name, and which does the table show?"),
    "questions": (1, "how many does the plan need, how many were asked, and is an interval given?"),
    "primary": (2, "which measure decides, and which was planned?"),
    "verdict": (0, "compute it: three effects, their mean, the noise floor, and twice the floor"),
    "scope": (2, "are model and data named, and what was not tried?"),
}


@checks("19.5")
def marks(attempt: object) -> str:
    if not isinstance(attempt, dict):
        raise Mistake(f"expected a dict of line and mark, got {shorten(attempt)}")
    if unknown := [name for name in attempt if name not in MARKED]:
        raise Mistake(f"the rubric has no line {shorten(unknown[0])}; it has {', '.join(MARKED)}")
    if missing := [name for name in MARKED if name not in attempt]:
        raise Mistake(f"no mark for {', '.join(missing)}")
    for name, mark in attempt.items():
        if not isinstance(mark, Integral) or isinstance(mark, bool) or mark not in (0, 1, 2):
            raise Mistake(f"{name}: a mark is 0, 1 or 2, not {shorten(mark)}")
    wrong = [name for name in MARKED if attempt[name] != MARKS[name][0]]
    if wrong:
        more = f" ({len(wrong)} of 8 marks differ)" if len(wrong) > 1 else ""
        raise Mistake(f"{wrong[0]}: {MARKS[wrong[0]][1]}{more}")
    return "9 of 16: no seal, no look for leaks, seeds that nobody planned, the wrong word"


SETTINGS = {"frame": str, "rate": float, "epochs": int}
LESSONS, SEEDS, MOST_QUESTIONS = 200, 3, 100


@cache
def _material() -> tuple[
    PreTrainedModel, PreTrainedTokenizerBase, list[Conversation], list[Conversation]
]:
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        learn, validation, _ = build_project(Path(folder))
        return *load("atlas-base"), learn, validation


@cache
def _measure(settings: tuple[tuple[str, Any], ...], seed: int, questions: int) -> dict[str, float]:
    base, tokenizer, learn, validation = _material()
    asked = validation[:questions]
    return run_arm(base, tokenizer, learn, asked, seed=seed, lessons=LESSONS, **dict(settings))


def _check_settings(name: str, given: object) -> dict[str, Any]:
    if not isinstance(given, dict) or set(given) != set(SETTINGS):
        raise Mistake(f"{name} must be a dict of {', '.join(SETTINGS)}, not {shorten(given)}")
    for key, kind in SETTINGS.items():
        if not isinstance(given[key], kind) or isinstance(given[key], bool):
            raise Mistake(f"{name}: {key} is {shorten(given[key])}, expected {kind.__name__}")
    if (
        given["frame"].count("{}") != 1
        or given["frame"].count("{") != 1
        or given["frame"].count("}") != 1
        or len(given["frame"]) > 80
    ):
        raise Mistake(f"{name}: the frame has one {{}} and at most 80 letters")
    if not 0 < given["rate"] <= 0.1 or not 1 <= given["epochs"] <= 3:
        raise Mistake(f"{name}: a rate above 0 and at most 0.1, and 1 to 3 epochs")
    return given


@checks("19.6")
def project(attempt: object) -> str:
    parts = ("plan", "control", "changed")
    if not isinstance(attempt, dict) or set(attempt) != set(parts):
        raise Mistake(f"expected a dict of {', '.join(parts)}, got {shorten(attempt)}")
    plan = attempt["plan"]
    if not isinstance(plan, dict):
        raise Mistake(f"the plan is {shorten(plan)}, expected a dict: the fields of exercise 19.2")
    if missing := find_gaps(plan):
        raise Mistake(f"the plan has gaps: {', '.join(missing)}")
    if plan["primary"] not in ("holds", "equals"):
        raise Mistake(f'primary is {shorten(plan["primary"])}: measure "holds" or "equals"')
    if len(plan["seeds"]) != SEEDS or plan["questions"] > MOST_QUESTIONS:
        raise Mistake(
            f"{SEEDS} seeds, and at most {MOST_QUESTIONS} questions: a larger `smallest` needs less"
        )
    arms = {name: _check_settings(name, attempt[name]) for name in ("control", "changed")}
    differ = [key for key in SETTINGS if arms["control"][key] != arms["changed"][key]]
    if differ != plan["changes"]:
        raise Mistake(
            f"the arms differ in {', '.join(differ) or 'nothing'}, the plan changes "
            f"{plan['changes']}: one thing, named as the setting is"
        )
    shares = {
        name: [
            _measure(tuple(sorted(arm.items())), seed, plan["questions"])[plan["primary"]]
            for seed in plan["seeds"]
        ]
        for name, arm in arms.items()
    }
    found = judge_claim(shares["control"], shares["changed"], claim=plan["claim"])
    said = f"effect {found.mean:+.2f}, noise floor {found.floor:.2f}: {found.word}"
    if found.word != "held":
        raise Mistake(f"{said}. A null is a result; here, find a change whose effect can be shown")
    return f"plan {seal(plan)}, {said}"
