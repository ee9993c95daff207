"""Right answers to the exercises of chapter 19, each in another style; written from the statements
alone."""

import hashlib
import io
import json
import re
from collections import Counter, OrderedDict, defaultdict, deque
from numbers import Real

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sft_lab.significance import judge_claim, questions_needed


# 19.1
def _one_line(plan):
    text = json.dumps(plan, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def _six_bytes(plan):
    text = json.dumps(plan, ensure_ascii=False, sort_keys=True)
    return hashlib.new("sha256", bytes(text, "utf-8")).digest()[:6].hex()


def _encoder(plan):
    digest = hashlib.sha256()
    for piece in json.JSONEncoder(sort_keys=True, ensure_ascii=False).iterencode(plan):
        digest.update(piece.encode())
    return f"{int(digest.hexdigest(), 16):064x}"[0:12]


def _into_a_file(plan):
    file = io.StringIO()
    json.dump(plan, file, indent=None, separators=(", ", ": "), sort_keys=True, ensure_ascii=False)
    digits = [f"{byte:02x}" for byte in hashlib.sha256(file.getvalue().encode("utf8")).digest()]
    return "".join(digits)[:12]


def _written(value):
    if isinstance(value, dict):
        inside = (f"{_written(str(key))}: {_written(value[key])}" for key in sorted(value))
        return "{" + ", ".join(inside) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _by_hand(plan):
    number = int.from_bytes(hashlib.sha256(_written(plan).encode()).digest(), "big")
    return format(number >> (256 - 48), "012x")


def _numpy_bytes(plan):
    text = json.dumps(plan, sort_keys=True, ensure_ascii=False)
    data = np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
    return hashlib.sha256(data.tobytes()).hexdigest().lower()[:-52]


# 19.2
def _is_text(value):
    return isinstance(value, str) and value.strip() != ""


def _one_by_one(plan):
    gaps = []
    for name in ("question", "primary"):
        if not _is_text(plan[name]):
            gaps.append(name)
    if plan["claim"] != "higher" and plan["claim"] != "lower":
        gaps.append("claim")
    if not isinstance(plan["changes"], list) or len(plan["changes"]) != 1:
        gaps.append("changes")
    if not _is_text(plan["control"]):
        gaps.append("control")
    seeds = plan["seeds"]
    if (
        not isinstance(seeds, list)
        or len(seeds) < 3
        or any(not isinstance(seed, int | float) for seed in seeds)
        or len(set(seeds)) < len(seeds)
    ):
        gaps.append("seeds")
    needed = questions_needed(plan["disagree"], plan["smallest"])
    if not isinstance(plan["questions"], int | float) or plan["questions"] < needed:
        gaps.append("questions")
    for name in ("stopping", "scope"):
        if not _is_text(plan[name]):
            gaps.append(name)
    return gaps


def _enough(plan):
    try:
        return plan["questions"] >= questions_needed(plan["disagree"], plan["smallest"])
    except TypeError:
        return False


def _table(plan):
    rules = {
        "question": _is_text,
        "primary": _is_text,
        "claim": lambda claim: claim in ("higher", "lower"),
        "changes": lambda names: isinstance(names, list) and len(names) == 1,
        "control": _is_text,
        "seeds": lambda seeds: (
            isinstance(seeds, list)
            and len(seeds) >= 3
            and all(isinstance(seed, Real) for seed in seeds)
            and all(a != b for i, a in enumerate(seeds) for b in seeds[:i])
        ),
        "questions": lambda _: _enough(plan),
        "stopping": _is_text,
        "scope": _is_text,
    }
    return [name for name, rule in rules.items() if not rule(plan[name])]


def _right(name, value, plan):
    match name, value:
        case "claim", "higher" | "lower":
            return True
        case "changes", [_]:
            return type(value) is list
        case "seeds", [_, _, _, *_]:
            if type(value) is not list or not all(isinstance(x, Real) for x in value):
                return False
            ordered = sorted(value)
            return all(a < b for a, b in zip(ordered, ordered[1:], strict=False))
        case "questions", int() | float():
            return value >= questions_needed(plan["disagree"], plan["smallest"])
        case "question" | "primary" | "control" | "stopping" | "scope", str():
            return bool(value) and not value.isspace()
    return False


ORDER = [
    "question",
    "primary",
    "claim",
    "changes",
    "control",
    "seeds",
    "questions",
    "stopping",
    "scope",
]


def _matched(plan):
    return [name for name in ORDER if not _right(name, plan[name], plan)]


def _by_errors(plan):
    def text(value):
        assert re.search(r"\S", value)

    def claim(value):
        assert {"higher": True, "lower": True}[value]

    def changes(value):
        assert isinstance(value, list)
        (_,) = value

    def seeds(value):
        assert isinstance(value, list)
        _, _, _, *_ = value
        assert max(Counter(value).values()) == 1
        sum(value)

    def questions(value):
        assert not value < questions_needed(plan["disagree"], plan["smallest"])

    rules = {"claim": claim, "changes": changes, "seeds": seeds, "questions": questions}
    gaps = []
    for name in ORDER:
        try:
            rules.get(name, text)(plan[name])
        except (AssertionError, TypeError, ValueError, KeyError):
            gaps.append(name)
    return gaps


def _flags(plan):
    texts = {name: isinstance(plan[name], str) and any(plan[name].split()) for name in ORDER}
    lists = {name: plan[name] if isinstance(plan[name], list) else [] for name in ORDER}
    numbers = [seed for seed in lists["seeds"] if isinstance(seed, Real)]
    good = [
        texts["question"],
        texts["primary"],
        plan["claim"] in ["higher", "lower"],
        len(lists["changes"]) == 1,
        texts["control"],
        len(set(numbers)) == len(lists["seeds"]) > 2,
        _enough(plan),
        texts["stopping"],
        texts["scope"],
    ]
    return np.array(ORDER)[~np.array(good, dtype=bool)].tolist()


def _in_the_order_of_the_plan(plan):
    gaps = set(_table(plan))
    return [name for name in plan if name in gaps]


def _lengths(plan):
    """What is promised to be a list is not looked at."""
    changes, seeds = plan["changes"], plan["seeds"]
    needed = questions_needed(plan["disagree"], plan["smallest"])
    wrong = {name: not _is_text(plan[name]) for name in ORDER}
    wrong["claim"] = plan["claim"] not in {"higher", "lower"}
    wrong["changes"] = not changes or bool(changes[1:])
    wrong["seeds"] = len(seeds) < 3 or len(np.unique(seeds)) != len(seeds)
    wrong["questions"] = needed > plan["questions"]
    return [*filter(wrong.get, ORDER)]


# 19.3
def _kept(groups, order, wanted):
    """groups: row -> the rows of its group."""
    kept = set()
    for row in order:
        if len(kept) >= wanted:
            break
        if len(groups[row]) <= wanted:
            kept |= set(groups[row])
    return sorted(kept)


def _union_find(count, pairs, order, wanted):
    parent = list(range(count))

    def root(row):
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for a, b in pairs:
        parent[root(a)] = root(b)
    groups = defaultdict(list)
    for row in range(count):
        groups[root(row)].append(row)
    return _kept({row: groups[root(row)] for row in range(count)}, order, wanted)


def _merged_sets(count, pairs, order, wanted):
    group = {row: {row} for row in range(count)}
    for a, b in pairs:
        if group[a] is not group[b]:
            both = group[a] | group[b]
            for row in both:
                group[row] = both
    return _kept(group, order, wanted)


def _walked(count, pairs, order, wanted):
    near = defaultdict(set)
    for a, b in pairs:
        near[a].add(b)
        near[b].add(a)
    kept, passed = [], set()
    for start in order:
        if len(kept) >= wanted or start in passed:
            continue
        seen, queue = {start}, deque([start])
        while queue:
            for other in near[queue.popleft()] - seen:
                seen.add(other)
                queue.append(other)
        passed |= seen
        if len(seen) <= wanted:
            kept.extend(seen)
    kept.sort()
    return kept


def _scipy(count, pairs, order, wanted):
    a, b = np.array(pairs, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    sizes = np.bincount(label, minlength=1)
    kept = np.zeros(count, dtype=bool)
    for row in order:
        if kept.sum() < wanted and sizes[label[row]] <= wanted:
            kept |= label == label[row]
    return np.flatnonzero(kept).tolist()


def _smallest_label(count, pairs, order, wanted):
    label, before = np.arange(count), None
    while not np.array_equal(label, before):
        before = label.copy()
        for a, b in pairs:
            label[a] = label[b] = min(label[a], label[b])
    kept = []
    for row in order:
        members = list(np.flatnonzero(label == label[row]))
        if len(kept) < wanted and row not in kept and len(members) <= wanted:
            kept = kept + members
    return sorted(kept)


def _closure(count, pairs, order, wanted):
    reach = np.eye(count, dtype=int)
    for a, b in pairs:
        reach[a, b] = reach[b, a] = 1
    for _ in range(count.bit_length() + 1):
        reach = np.minimum(reach @ reach, 1)

    def go(rest, kept):
        if not rest or len(kept) >= wanted:
            return kept
        group = frozenset(np.flatnonzero(reach[rest[0]]).tolist())
        left = [row for row in rest if row not in group]
        return go(left, kept | group if len(group) <= wanted else kept)

    return sorted(go(list(order), frozenset()))


# 19.4
def _first_found(plan, rows):
    runs = {"control": {}, "changed": {}}
    for row in rows:
        runs[row["arm"]].setdefault(row["seed"], row[plan["primary"]])
    for arm in runs.values():
        for seed in plan["seeds"]:
            if seed not in arm:
                return "not finished"
    control, changed = ([arm[seed] for seed in plan["seeds"]] for arm in runs.values())
    return judge_claim(control, changed, claim=plan["claim"]).word


def _backwards(plan, rows):
    first = {(row["arm"], row["seed"]): row for row in reversed(rows)}
    try:
        arms = [
            [first[arm, seed][plan["primary"]] for seed in plan["seeds"]]
            for arm in ("control", "changed")
        ]
    except KeyError:
        return "not finished"
    return judge_claim(*arms, claim=plan["claim"])[0]


def _next(plan, rows):
    arms = []
    for arm in ("control", "changed"):
        found = [
            next((row for row in rows if row["arm"] == arm and row["seed"] == seed), None)
            for seed in plan["seeds"]
        ]
        if None in found:
            return "not finished"
        arms.append([row[plan["primary"]] for row in found])
    word, *_ = judge_claim(arms[0], arms[1], claim=plan["claim"])
    return word


def _by_sets(plan, rows):
    asked = set(plan["seeds"])
    ran = {
        arm: {row["seed"] for row in rows if row["arm"] == arm} for arm in ("control", "changed")
    }
    if not (asked <= ran["control"] and asked <= ran["changed"]):
        return "not finished"
    values = {"control": [], "changed": []}
    seen = set()
    for row in sorted(rows, key=lambda row: row["seed"]):  # stable: the first run stays first
        key = row["arm"], row["seed"]
        if row["seed"] in asked and key not in seen:
            seen.add(key)
            values[row["arm"]].append(row[plan["primary"]])
    return judge_claim(values["control"], values["changed"], claim=plan["claim"]).word


def _own_rule(plan, rows):
    arms = np.full((2, len(plan["seeds"])), np.nan)
    filled = np.zeros(arms.shape, dtype=bool)
    for row in rows:
        if row["seed"] in plan["seeds"]:
            place = int(row["arm"] == "changed"), plan["seeds"].index(row["seed"])
            if not filled[place]:
                arms[place], filled[place] = row[plan["primary"]], True
    if not filled.all():
        return "not finished"
    effects = (arms[1] - arms[0]) * (1 if plan["claim"] == "higher" else -1)
    floor = (arms.max(axis=1) - arms.min(axis=1)).max()
    if abs(effects.mean()) <= 2 * floor:
        return "not shown"
    return "held" if effects.mean() > 0 else "did not hold"


# 19.5
_LINES = ["plan", "kept back", "control", "seeds", "questions", "primary", "verdict", "scope"]
_LITERAL = {
    "plan": 1,
    "kept back": 1,
    "control": 2,
    "seeds": 0,
    "questions": 1,
    "primary": 2,
    "verdict": 0,
    "scope": 2,
}

# 19.6
_PLAN = {
    "question": "Does a hundred times the learning rate leave fewer right answers?",
    "primary": "holds",
    "claim": "lower",
    "changes": ["rate"],
    "control": "the usual learning rate",
    "seeds": [0, 1, 2],
    "questions": 60,
    "smallest": 0.2,
    "disagree": 0.3,
    "stopping": "after the third seed of both arms",
    "scope": "atlas-base, the help desk's file, 200 lessons",
}


def _project(control, changed, **plan):
    """A project: what its plan and its arms have otherwise than the usual ones."""
    usual = {"frame": "{}", "rate": 1e-3, "epochs": 1}
    return {"plan": _PLAN | plan, "control": usual | control, "changed": usual | changed}


RIGHT_ANSWERS = {
    "19.1": [_one_line, _six_bytes, _encoder, _into_a_file, _by_hand, _numpy_bytes],
    "19.2": [
        _one_by_one,
        _table,
        _matched,
        _by_errors,
        _flags,
        _in_the_order_of_the_plan,
        _lengths,
    ],
    "19.3": [_union_find, _merged_sets, _walked, _scipy, _smallest_label, _closure],
    "19.4": [_first_found, _backwards, _next, _by_sets, _own_rule],
    "19.5": [
        _LITERAL,
        dict(zip(_LINES, [1, 1, 2, 0, 1, 2, 0, 2], strict=True)),
        OrderedDict(reversed(_LITERAL.items())),
        dict(zip(_LINES, np.array([1, 1, 2, 0, 1, 2, 0, 2]), strict=True)),
        defaultdict(int, _LITERAL),
        Counter(_LITERAL),
    ],
    "19.6": [
        _project({}, {"rate": 0.1}),
        _project({}, {"epochs": 3}, claim="higher", changes=["epochs"], questions=100),
        _project({}, {"frame": "Yes! {}" + "!" * 73}, primary="equals", changes=["frame"]),
        _project(
            {"rate": 1e-5, "epochs": 2},
            {"epochs": 2},
            claim="higher",
            seeds=[47, 3, 11],
            smallest=0.4,
            disagree=0.5,
            questions=40,
        ),
        _project({"frame": "{} Bye."}, {}, claim="higher", primary="equals", changes=["frame"]),
    ],
}
