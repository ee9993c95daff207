"""Wrong answers to the exercises of chapter 19, each with what its reader is told."""

import hashlib
import json
import math

from sft_lab.significance import judge_claim, questions_needed


def _hashed(form, part=slice(12), method="sha256"):
    return lambda plan: hashlib.new(method, form(plan).encode()).hexdigest()[part]


def _json(**other):
    return lambda plan: json.dumps(plan, **{"sort_keys": True, "ensure_ascii": False, **other})


def _gaps(**other):
    """Gaps by rules of which some are wrong."""

    def answer(plan):
        needed = questions_needed(plan["disagree"], plan["smallest"])
        rules = {
            name: lambda value: isinstance(value, str) and bool(value.strip())
            for name in ("question", "primary", "control", "stopping", "scope")
        }
        rules["claim"] = lambda value: value in ("higher", "lower")
        rules["changes"] = lambda value: len(value) == 1
        rules["seeds"] = lambda value: len(value) >= 3 and len(set(value)) == len(value)
        rules["questions"] = lambda value: value >= needed
        rules |= other
        if "enough" in other:
            rules["questions"] = lambda value: other["enough"](value, needed)
        return [name for name in plan if name in rules and not rules[name](plan[name])]

    return answer


def _split(passes=99, fits=lambda size, kept, wanted: size <= wanted, cut=False, by_order=True):
    def answer(count, pairs, order, wanted):
        group = {row: {row} for row in range(count)}
        for _ in range(passes):
            old = {row: set(rows) for row, rows in group.items()}
            for a, b in pairs:
                group[a] |= old[b]
                group[b] |= old[a]
        kept = set()
        for row in order if by_order else range(count):
            if len(kept) < wanted and row not in kept and fits(len(group[row]), len(kept), wanted):
                kept |= group[row]
        return sorted(kept)[:wanted] if cut else sorted(kept)

    return answer


def _judge(seeds=lambda plan, both: plan["seeds"], last=False, claim=None, primary=None):
    def answer(plan, rows):
        found = {}
        for row in rows if last else rows[::-1]:
            found[row["arm"], row["seed"]] = row[primary or plan["primary"]]
        both = {seed for arm, seed in found if arm == "control"}
        both &= {seed for arm, seed in found if arm == "changed"}
        chosen = seeds(plan, both)
        if not set(chosen) <= both:
            return "not finished"
        arms = [[found[arm, seed] for seed in chosen] for arm in ("control", "changed")]
        return judge_claim(*arms, claim=claim or plan["claim"]).word

    return answer


MARKS = {
    "plan": 1,
    "kept back": 1,
    "control": 2,
    "seeds": 0,
    "questions": 1,
    "primary": 2,
    "verdict": 0,
    "scope": 2,
}
PLAN = {
    "question": "Is a rate of 1e-4 too low?",
    "primary": "holds",
    "claim": "lower",
    "changes": ["rate"],
    "control": "the usual rate",
    "seeds": [0, 1, 2],
    "questions": 96,
    "smallest": 0.2,
    "disagree": 0.5,
    "stopping": "after the third seed",
    "scope": "atlas-base, 200 lessons",
}
USUAL = {"frame": "{}", "rate": 1e-3, "epochs": 1}


def _project(changed, **plan):
    return {"plan": PLAN | plan, "control": USUAL, "changed": USUAL | changed}


WRONG_ANSWERS = {
    "19.1": [
        (_hashed(_json(sort_keys=False)), "sort the keys"),
        (_hashed(_json(ensure_ascii=True)), "ensure_ascii=False"),
        (_hashed(_json(), slice(None)), "this is the whole hash"),
        (_hashed(_json(), method="md5"), "this is MD5"),
        (_hashed(str), "Python's way to write a dict"),
        (_hashed(_json(separators=(",", ":"))), "without the blanks"),
        (_hashed(_json(indent=1)), "with line breaks"),
        (lambda plan: f"{hash(str(plan)):x}"[:12], "expected '"),
        (lambda plan: hash(str(plan)), "expected a text"),
    ],
    "19.2": [
        (_gaps(control=bool, question=bool, stopping=bool, scope=bool), "expected ["),
        (_gaps(primary=lambda value: bool(value and value[0].strip())), "must be one text"),
        (_gaps(seeds=lambda value: len(value) >= 3), "a seed that is there twice"),
        (_gaps(seeds=lambda value: len(set(value)) >= 3), "not only three of them"),
        (_gaps(changes=bool), "two changes at once"),
        (_gaps(claim=lambda value: value.lower() in ("higher", "lower")), '"Higher" is not'),
        (_gaps(enough=lambda value, needed: value > math.ceil(needed)), "exactly as many"),
        (_gaps(enough=lambda value, needed: True), "too few questions"),
        (lambda plan: sorted(_gaps()(plan)), "in the order of the list"),
        (lambda plan: not _gaps()(plan), "expected a list of names"),
    ],
    "19.3": [
        (_split(passes=1), "only direct partners"),
        (_split(passes=0), "single rows are drawn"),
        (_split(fits=lambda size, kept, wanted: True), "is passed over"),
        (_split(fits=lambda size, kept, wanted: kept + size <= wanted), "goes beyond"),
        (_split(cut=True), "a group is cut"),
        (_split(by_order=False), "go by `order`"),
        (lambda *given: _split()(*given)[::-1], "not sorted"),
        (lambda *given: set(_split()(*given)), "expected a list of whole numbers"),
    ],
    "19.4": [
        (_judge(seeds=lambda plan, both: sorted(both)), "those were added later"),
        (_judge(last=True), "the first counts, not the repeat"),
        (_judge(claim="higher"), 'the claim is always "higher"'),
        (_judge(primary="right"), "`right` decides"),
        (
            _judge(seeds=lambda plan, both: [s for s in plan["seeds"] if s in both]),
            "is passed over",
        ),
        (lambda plan, rows: True, "return one of"),
    ],
    "19.5": [
        (dict.fromkeys(MARKS, 2), "plan: was it written before"),
        ({**MARKS, "verdict": 2}, "verdict: compute it"),
        ({**MARKS, "seeds": 2}, "seeds: which seeds"),
        ({**MARKS, "kept back": 2}, "kept back: were they drawn"),
        ({**MARKS, "scope": 3}, "a mark is 0, 1 or 2"),
        ({**MARKS, "style": 1}, "the rubric has no line"),
        ({"plan": 1}, "no mark for kept back"),
        ([1, 1, 2, 0, 1, 2, 0, 2], "expected a dict"),
    ],
    "19.6": [
        (_project({"rate": 1e-4}, claim="higher"), "did not hold"),
        (_project({"rate": 9e-4}), "not shown"),
        (_project({"rate": 1e-4, "epochs": 2}), "the arms differ in rate, epochs"),
        (_project({"epochs": 2}), "the arms differ in epochs"),
        (_project({"rate": 1e-4}, seeds=[0, 1]), "the plan has gaps: seeds"),
        (_project({"rate": 1e-4}, questions=80), "the plan has gaps: questions"),
        (_project({"rate": 1e-4}, questions=180), "at most 100 questions"),
        (_project({"rate": 1e-4}, primary="bleu"), 'measure "holds" or "equals"'),
        (_project({"rate": "1e-4"}), "expected float"),
        (_project({"rate": 1e-4, "frame": "Certainly!"}), "the frame has one {}"),
        ({"plan": PLAN}, "expected a dict of plan"),
    ],
}
