"""Wrong answers to the exercises of chapter 19, written from the statements alone."""

import hashlib
import json
import math
import unicodedata
from collections import defaultdict

import numpy as np

from sft_lab.significance import judge_claim, questions_needed
from sft_lab.study_plan import Plan


# 19.1
def _text(plan, **other):
    return json.dumps(plan, **({"sort_keys": True, "ensure_ascii": False} | other))


def _sealed(text):
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def _unsorted(plan):
    return _sealed(_text(plan, sort_keys=False))


def _escaped(plan):
    return _sealed(_text(plan, ensure_ascii=True))


def _unescaped_again(plan):
    """Also \\" and \\n are taken back."""
    text = _text(plan, ensure_ascii=True).encode("ascii").decode("unicode_escape")
    return _sealed(text.encode("utf-16", "surrogatepass").decode("utf-16"))


def _compact(plan):
    return _sealed(_text(plan, separators=(",", ":")))


def _indented(plan):
    return _sealed(_text(plan, indent=2))


def _with_a_line_end(plan):
    return _sealed(_text(plan) + "\n")


def _python_text(plan):
    return _sealed(str(dict(sorted(plan.items()))))


def _quotes_replaced(plan):
    return _sealed(str(dict(sorted(plan.items()))).replace("'", '"'))


def _twelve_bytes(plan):
    return hashlib.sha256(_text(plan).encode()).digest()[:12].hex()


def _raw_bytes(plan):
    return hashlib.sha256(_text(plan).encode()).digest()[:12]


def _last_digits(plan):
    return hashlib.sha256(_text(plan).encode()).hexdigest()[-12:]


def _whole_digest(plan):
    return hashlib.sha256(_text(plan).encode()).hexdigest()


def _ten_digits(plan):
    return _sealed(_text(plan))[:10]


def _capital_digits(plan):
    return _sealed(_text(plan)).upper()


def _sha1(plan):
    return hashlib.sha1(_text(plan).encode()).hexdigest()[:12]


def _sha512(plan):
    return hashlib.sha512(_text(plan).encode()).hexdigest()[:12]


def _md5(plan):
    return hashlib.md5(_text(plan).encode()).hexdigest()[:12]


def _utf16(plan):
    return hashlib.sha256(_text(plan).encode("utf-16")).hexdigest()[:12]


def _latin(plan):
    return hashlib.sha256(_text(plan).encode("latin-1", "replace")).hexdigest()[:12]


def _letters_lost(plan):
    return hashlib.sha256(_text(plan).encode("ascii", "ignore")).hexdigest()[:12]


def _a_number(plan):
    return int(_sealed(_text(plan)), 16)


def _no_zeros_in_front(plan):
    return hex(int(_sealed(_text(plan)), 16))


def _pairs_sealed(plan):
    return _sealed(_text(sorted(plan.items())))


def _values_sealed(plan):
    return _sealed(_text([plan[name] for name in sorted(plan)]))


def _lists_sorted_too(plan):
    return _sealed(
        _text({k: sorted(v, reverse=True) if isinstance(v, list) else v for k, v in plan.items()})
    )


def _sorted_backwards(plan):
    return _sealed(_text({k: plan[k] for k in sorted(plan, reverse=True)}, sort_keys=False))


def _small_letters(plan):
    return _sealed(_text(plan).lower())


def _letters_taken_apart(plan):
    return _sealed(unicodedata.normalize("NFD", _text(plan)))


def _without_blanks(plan):
    return _sealed(_text(plan).replace(" ", ""))


def _keeps_the_seal(plan):
    seal = _sealed(_text(plan))
    plan["seal"] = seal
    return seal


# 19.2
def _is_text(value):
    return isinstance(value, str) and value.strip() != ""


def _is_number(value):
    return isinstance(value, int | float)


TEXTS = ("question", "primary", "control", "stopping", "scope")
RULES = {
    "question": _is_text,
    "primary": _is_text,
    "claim": lambda claim: claim in ("higher", "lower"),
    "changes": lambda names: isinstance(names, list) and len(names) == 1,
    "control": _is_text,
    "seeds": lambda seeds: (
        isinstance(seeds, list)
        and len(seeds) >= 3
        and all(map(_is_number, seeds))
        and len(set(seeds)) == len(seeds)
    ),
    "questions": lambda _: True,
    "stopping": _is_text,
    "scope": _is_text,
}


def _needed(plan):
    return questions_needed(plan["disagree"], plan["smallest"])


def _gaps(enough=lambda plan: _is_number(plan["questions"]) and plan["questions"] >= _needed(plan)):
    """A rule for the number of questions; of the others, `**rules` replaces some."""

    def with_rules(**rules):
        own = RULES | rules

        def gaps(plan):
            return [
                name
                for name in own
                if not (enough(plan) if name == "questions" else own[name](plan[name]))
            ]

        return gaps

    return with_rules


def _texts(rule, names=TEXTS):
    return _gaps()(**dict.fromkeys(names, rule))


_not_empty = _texts(lambda value: isinstance(value, str) and value != "")
_blanks_only = _texts(lambda value: isinstance(value, str) and value.strip(" ") != "")
_any_type = _texts(lambda value: bool(str(value).strip()))
_truthy = _texts(bool)
_empty_primary = _texts(lambda value: isinstance(value, str), ["primary"])
_list_of_measures = _texts(lambda v: isinstance(v, list) or _is_text(v), ["primary"])
_one_measure_in_a_list = _texts(
    lambda v: _is_text(v[0] if v and type(v) is list else v), ["primary"]
)
_one_word = _texts(lambda value: _is_text(value) and len(value.split()) == 1, ["primary"])
_list_of_questions = _texts(lambda v: isinstance(v, list) or _is_text(v), ["question"])
_question_mark = _texts(lambda value: _is_text(value) and value.endswith("?"), ["question"])
_no_question = _texts(lambda value: True, ["question"])
_no_control = _texts(lambda value: True, ["control"])
_no_stopping = _texts(lambda value: True, ["stopping"])
_no_scope = _texts(lambda value: True, ["scope"])

_any_claim = _gaps()(claim=_is_text)
_claim_in_any_case = _gaps()(
    claim=lambda v: isinstance(v, str) and v.lower() in ("higher", "lower")
)
_claim_trimmed = _gaps()(claim=lambda v: isinstance(v, str) and v.strip() in ("higher", "lower"))
_part_of_a_claim = _gaps()(claim=lambda v: isinstance(v, str) and v in "higher lower")
_claim_may_differ = _gaps()(claim=lambda v: v in ("higher", "lower", "different"))
_higher_only = _gaps()(claim=lambda v: v == "higher")
_lower_only = _gaps()(claim=lambda v: v == "lower")

_any_changes = _gaps()(changes=lambda v: isinstance(v, list) and len(v) >= 1)
_no_change = _gaps()(changes=lambda v: isinstance(v, list) and len(v) <= 1)
_different_changes = _gaps()(changes=lambda v: isinstance(v, list) and len(set(v)) == 1)


def _seeds(least=3, number=_is_number, equal=False, kind=list):
    return _gaps()(
        seeds=lambda seeds: (
            isinstance(seeds, kind)
            and len(seeds) >= least
            and all(map(number, seeds))
            and (equal or len(set(seeds)) == len(seeds))
        )
    )


_two_seeds = _seeds(least=2)
_four_seeds = _seeds(least=4)
_equal_seeds = _seeds(equal=True)
_three_different = _gaps()(
    seeds=lambda v: isinstance(v, list) and all(map(_is_number, v)) and len(set(v)) >= 3
)
_neighbours_differ = _gaps()(
    seeds=lambda v: (
        isinstance(v, list)
        and len(v) >= 3
        and all(map(_is_number, v))
        and all(a != b for a, b in zip(v, v[1:], strict=False))
    )
)
_exactly_three = _gaps()(seeds=lambda v: RULES["seeds"](v) and len(v) == 3)

_questions_above = _gaps(lambda plan: plan["questions"] > _needed(plan) + 1)()
_rounded_down = _gaps(lambda plan: plan["questions"] >= math.floor(_needed(plan)))()
_always_177 = _gaps(lambda plan: plan["questions"] >= 177)()
_any_questions = _gaps(lambda plan: plan["questions"] > 0)()
_too_many_questions = _gaps(lambda plan: plan["questions"] <= _needed(plan))()
_swapped_shares = _gaps(
    lambda plan: plan["questions"] >= questions_needed(plan["smallest"], plan["disagree"])
)()
_same_as_needed = _gaps(lambda plan: plan["questions"] == math.ceil(_needed(plan)))()
_for_two_arms = _gaps(lambda plan: plan["questions"] >= 2 * _needed(plan))()
_over_all_seeds = _gaps(lambda plan: plan["questions"] * 3 >= _needed(plan))()

_all_right = _gaps()()


def _alphabetical(plan):
    return sorted(_all_right(plan))


def _backwards(plan):
    return _all_right(plan)[::-1]


def _first_gap(plan):
    return _all_right(plan)[:1]


def _how_many(plan):
    return len(_all_right(plan))


def _none_if_none(plan):
    return _all_right(plan) or None


def _in_one_text(plan):
    return ", ".join(_all_right(plan))


def _names_without_gap(plan):
    gaps = _all_right(plan)
    return [name for name in RULES if name not in gaps]


def _sorts_seeds(plan):
    gaps = _all_right(plan)
    if "seeds" not in gaps:
        plan["seeds"].sort(reverse=True)
    return gaps


def _trims_the_plan(plan):
    for name in TEXTS:
        if isinstance(plan[name], str):
            plan[name] = plan[name].strip()
    return _all_right(plan)


def _takes_out(plan):
    gaps = _all_right(plan)
    del plan["disagree"]
    return gaps


# 19.3
def _groups(count, pairs):
    """The set of each row's group."""
    group = {row: {row} for row in range(count)}
    for a, b in pairs:
        both = group[a] | group[b]
        for row in both:
            group[row] = both
    return group


def _alone(count, pairs):
    return {row: {row} for row in range(count)}


def _partners(count, pairs):
    """Only the rows that a pair names beside a row: not passed on."""
    near = _alone(count, pairs)
    for a, b in pairs:
        near[a].add(b)
        near[b].add(a)
    return near


def _forward(count, pairs):
    near = _alone(count, pairs)
    for a, b in pairs:
        near[a].add(b)
    changed = True
    while changed:
        changed = False
        for row in near:
            more = set().union(*(near[other] for other in near[row]))
            changed |= more != near[row]
            near[row] = more
    return near


def _two_steps(count, pairs):
    near = _partners(count, pairs)
    return {row: set().union(*(near[other] for other in near[row])) for row in near}


def _one_pass(count, pairs):
    """Labels handed on once, in the order of the pairs."""
    label = list(range(count))
    for a, b in pairs:
        label[b] = label[a]
    return {row: {other for other in range(count) if label[other] == label[row]} for row in label}


def _roots_forgotten(count, pairs):
    parent = list(range(count))

    def root(row):
        seen = set()
        while parent[row] != row and row not in seen:
            seen.add(row)
            row = parent[row]
        return row

    for a, b in pairs:
        parent[b] = a
    roots = [root(row) for row in range(count)]
    return {row: {other for other in range(count) if roots[other] == roots[row]} for row in roots}


def _first_fitting_set(count, pairs):
    """A pair joins the first set that it touches; two sets are never merged."""
    sets = []
    for a, b in pairs:
        for own in sets:
            if a in own or b in own:
                own |= {a, b}
                break
        else:
            sets.append({a, b})
    return {row: next((own for own in sets if row in own), {row}) for row in range(count)}


def _by_these_groups(groups):
    def split(count, pairs, order, wanted):
        group = groups(count, pairs)
        kept = set()
        for row in order:
            own = group.get(row, {row})
            if len(kept) < wanted and len(own) <= wanted:
                kept |= own
        return sorted(kept)

    return split


def _by_this_rule(take, done=lambda kept, wanted: len(kept) >= wanted):
    def split(count, pairs, order, wanted):
        group = _groups(count, pairs)
        kept = set()
        for row in order:
            if done(kept, wanted):
                break
            if take(group[row], kept, wanted):
                kept |= group[row]
        return sorted(kept)

    return split


def _fits(own, kept, wanted):
    return len(own) <= wanted


_of_any_size = _by_this_rule(lambda own, kept, wanted: True)
_smaller_only = _by_this_rule(lambda own, kept, wanted: len(own) < wanted)
_one_more_allowed = _by_this_rule(lambda own, kept, wanted: len(own) <= wanted + 1)
_never_more = _by_this_rule(lambda own, kept, wanted: len(own | kept) <= wanted)
_half_at_most = _by_this_rule(lambda own, kept, wanted: len(own) <= max(1, wanted // 2))
_singles_only = _by_this_rule(lambda own, kept, wanted: len(own) == 1)
_one_more_kept = _by_this_rule(_fits, lambda kept, wanted: len(kept) > wanted)
_one_less_kept = _by_this_rule(_fits, lambda kept, wanted: len(kept) >= wanted - 1)
_never_done = _by_this_rule(_fits, lambda kept, wanted: False)
_size_of_the_first = _by_this_rule(lambda own, kept, wanted: len(own) <= wanted or not kept)


def _stops_at_a_large_group(count, pairs, order, wanted):
    group, kept = _groups(count, pairs), set()
    for row in order:
        if len(kept) >= wanted or len(group[row]) > wanted:
            break
        kept |= group[row]
    return sorted(kept)


def _groups_counted(count, pairs, order, wanted):
    group, kept, taken = _groups(count, pairs), set(), 0
    for row in order:
        if taken < wanted and row not in kept and len(group[row]) <= wanted:
            kept |= group[row]
            taken += 1
    return sorted(kept)


def _rows_counted_twice(count, pairs, order, wanted):
    group, kept, taken = _groups(count, pairs), set(), 0
    for row in order:
        if taken < wanted and len(group[row]) <= wanted:
            kept |= group[row]
            taken += len(group[row])
    return sorted(kept)


def _large_ones_counted(count, pairs, order, wanted):
    group, kept, seen = _groups(count, pairs), set(), set()
    for row in order:
        if len(seen) < wanted:
            seen |= group[row]
            if len(group[row]) <= wanted:
                kept |= group[row]
    return sorted(kept)


def _rows_of_order_only(count, pairs, order, wanted):
    group = _groups(count, pairs)
    return sorted([row for row in order if len(group[row]) <= wanted][:wanted])


def _cut(count, pairs, order, wanted):
    return _split(count, pairs, order, wanted)[:wanted]


def _split(count, pairs, order, wanted):
    return _by_these_groups(_groups)(count, pairs, order, wanted)


def _as_kept(count, pairs, order, wanted):
    group, kept = _groups(count, pairs), []
    for row in order:
        if len(kept) < wanted and row not in kept and len(group[row]) <= wanted:
            kept += [row, *sorted(group[row] - {row})]
    return kept


def _a_set(count, pairs, order, wanted):
    return set(_split(count, pairs, order, wanted))


def _doubled(count, pairs, order, wanted):
    group, kept = _groups(count, pairs), []
    for row in order:
        if len(set(kept)) < wanted and len(group[row]) <= wanted:
            kept += group[row]
    return sorted(kept)


def _the_others(count, pairs, order, wanted):
    return sorted(set(range(count)) - set(_split(count, pairs, order, wanted)))


def _order_ignored(count, pairs, order, wanted):
    return _split(count, pairs, list(range(count)), wanted)


def _order_sorted(count, pairs, order, wanted):
    order.sort()
    return _split(count, pairs, order, wanted)


def _from_the_end(count, pairs, order, wanted):
    return _split(count, pairs, order[::-1], wanted)


def _order_emptied(count, pairs, order, wanted):
    kept = _split(count, pairs, order, wanted)
    order.clear()
    return kept


def _pairs_turned(count, pairs, order, wanted):
    kept = _split(count, pairs, order, wanted)
    for place, (a, b) in enumerate(pairs):
        pairs[place] = (b, a)
    pairs.append((0, 0))
    return kept


def _largest_first(count, pairs, order, wanted):
    group = _groups(count, pairs)
    return _split(count, pairs, sorted(order, key=lambda row: -len(group[row])), wanted)


def _paired_rows_only(count, pairs, order, wanted):
    group, kept = (
        defaultdict(set, {r: g for r, g in _groups(count, pairs).items() if len(g) > 1}),
        set(),
    )
    for row in order:
        if len(kept) < wanted and len(group[row]) <= wanted:
            kept |= group[row]
    return sorted(kept)


# 19.4
def _measured(plan, rows, arm):
    first = {}
    for row in rows:
        if row["arm"] == arm:
            first.setdefault(row["seed"], row[plan["primary"]])
    return first


def _judged(plan, control, changed, claim=None):
    if not all(seed in arm for arm in (control, changed) for seed in plan["seeds"]):
        return "not finished"
    arms = [[arm[seed] for seed in plan["seeds"]] for arm in (control, changed)]
    return judge_claim(*arms, claim=claim or plan["claim"]).word


def _both(plan, rows):
    return _measured(plan, rows, "control"), _measured(plan, rows, "changed")


def _last_run(plan, rows):
    return _judged(plan, *_both(plan, rows[::-1]))


def _reduced(choose):
    def verdict(plan, rows):
        arms = {"control": defaultdict(list), "changed": defaultdict(list)}
        for row in rows:
            arms[row["arm"]][row["seed"]].append(row[plan["primary"]])
        return _judged(plan, *({s: choose(v) for s, v in arm.items()} for arm in arms.values()))

    return verdict


_best_run, _worst_run, _mean_run = _reduced(max), _reduced(min), _reduced(np.mean)


def _all_seeds(plan, rows):
    control, changed = _both(plan, rows)
    own = dict(plan, seeds=sorted(control.keys() & changed.keys()))
    word = _judged(plan, control, changed)
    return word if word == "not finished" else _judged(own, control, changed)


def _enough_of_any_seed(plan, rows):
    control, changed = _both(plan, rows)
    seeds = sorted(control.keys() & changed.keys())
    if len(seeds) < len(plan["seeds"]):
        return "not finished"
    return _judged(dict(plan, seeds=seeds), control, changed)


def _seeds_that_ran(plan, rows):
    """A missing seed is left out."""
    control, changed = _both(plan, rows)
    seeds = [seed for seed in plan["seeds"] if seed in control and seed in changed]
    if len(seeds) < 3:
        return "not finished"
    return _judged(dict(plan, seeds=seeds), control, changed)


def _seeds_that_ran_shown(plan, rows):
    control, changed = _both(plan, rows)
    seeds = [seed for seed in plan["seeds"] if seed in control and seed in changed]
    if len(seeds) < 3:
        return "not shown"
    return _judged(dict(plan, seeds=seeds), control, changed)


def _first_three_seeds(plan, rows):
    return _judged(dict(plan, seeds=plan["seeds"][:3]), *_both(plan, rows))


def _seeds_from_nought(plan, rows):
    return _judged(dict(plan, seeds=list(range(len(plan["seeds"])))), *_both(plan, rows))


def _numbers_of_runs(plan, rows):
    arms = [[r[plan["primary"]] for r in rows if r["arm"] == arm] for arm in ("control", "changed")]
    seeds = len(plan["seeds"])
    if min(map(len, arms)) < seeds:
        return "not finished"
    return judge_claim(*(arm[:seeds] for arm in arms), claim=plan["claim"]).word


def _not_finished_in_both(plan, rows):
    control, changed = _both(plan, rows)
    seeds = [seed for seed in plan["seeds"] if seed in control or seed in changed]
    if len(seeds) < len(plan["seeds"]):
        return "not finished"
    seeds = [seed for seed in seeds if seed in control and seed in changed]
    if len(seeds) < 3:
        return "not shown"
    return _judged(dict(plan, seeds=seeds), control, changed)


def _changed_arm_decides(plan, rows):
    control, changed = _both(plan, rows)
    return _judged(plan, {seed: control.get(seed, 0.0) for seed in plan["seeds"]}, changed)


def _control_arm_decides(plan, rows):
    control, changed = _both(plan, rows)
    return _judged(plan, control, {seed: changed.get(seed, 0.0) for seed in plan["seeds"]})


def _arms_swapped(plan, rows):
    return _judged(plan, *_both(plan, rows)[::-1])


def _always_higher(plan, rows):
    return _judged(plan, *_both(plan, rows), claim="higher")


def _always_lower(plan, rows):
    return _judged(plan, *_both(plan, rows), claim="lower")


def _direction_chosen_late(plan, rows):
    control, changed = _both(plan, rows)
    up = sum(changed.values()) / max(1, len(changed)) > sum(control.values()) / max(1, len(control))
    return _judged(plan, control, changed, claim="higher" if up else "lower")


def _other_measure(plan, rows):
    others = [name for name in rows[0] if name not in ("arm", "seed", plan["primary"])]
    return _judged(plan, *_both(dict(plan, primary=others[0]), rows))


def _first_measure(plan, rows):
    first = next(name for name in rows[0] if name not in ("arm", "seed"))
    return _judged(plan, *_both(dict(plan, primary=first), rows))


def _last_measure(plan, rows):
    return _judged(plan, *_both(dict(plan, primary=list(rows[0])[-1]), rows))


def _any_measure_holds(plan, rows):
    words = [
        _judged(plan, *_both(dict(plan, primary=name), rows))
        for name in rows[0]
        if name not in ("arm", "seed")
    ]
    own = _judged(plan, *_both(plan, rows))
    return "held" if "held" in words else own


def _whole_verdict(plan, rows):
    control, changed = _both(plan, rows)
    if _judged(plan, control, changed) == "not finished":
        return "not finished"
    arms = [[arm[seed] for seed in plan["seeds"]] for arm in (control, changed)]
    return judge_claim(*arms, claim=plan["claim"])


def _true_or_false(plan, rows):
    return _judged(plan, *_both(plan, rows)) == "held"


def _none_when_unfinished(plan, rows):
    word = _judged(plan, *_both(plan, rows))
    return None if word == "not finished" else word


def _not_shown_when_unfinished(plan, rows):
    word = _judged(plan, *_both(plan, rows))
    return "not shown" if word == "not finished" else word


def _raises_when_unfinished(plan, rows):
    control, changed = _both(plan, rows)
    arms = [[arm[seed] for seed in plan["seeds"]] for arm in (control, changed)]
    return judge_claim(*arms, claim=plan["claim"]).word


def _own_rule(floors, signs=True):
    def verdict(plan, rows):
        control, changed = _both(plan, rows)
        if _judged(plan, control, changed) == "not finished":
            return "not finished"
        arms = np.array([[arm[seed] for seed in plan["seeds"]] for arm in (control, changed)])
        effects = arms[1] - arms[0]
        if abs(effects.mean()) <= floors * np.ptp(arms, axis=1).max():
            return "not shown"
        return "held" if (effects.mean() > 0) == (plan["claim"] == "higher") else "did not hold"

    return verdict


_one_floor, _no_floor = _own_rule(1.0), _own_rule(0.0)


def _sorts_rows(plan, rows):
    word = _judged(plan, *_both(plan, rows))
    rows.sort(key=lambda row: (row["seed"], row["arm"]), reverse=True)
    rows.reverse()
    rows.append(rows.pop(0))
    return word


def _drops_rows(plan, rows):
    word = _judged(plan, *_both(plan, rows))
    for row in rows:
        row.pop("arm")
    return word


def _takes_seeds(plan, rows):
    word = _judged(plan, *_both(plan, rows))
    while plan["seeds"]:
        plan["seeds"].pop()
    return word


# 19.5
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

# 19.6
PLAN = {
    "question": "Do three epochs instead of one give more right answers?",
    "primary": "holds",
    "claim": "higher",
    "changes": ["epochs"],
    "control": "one epoch over the same rows",
    "seeds": [0, 1, 2],
    "questions": 100,
    "smallest": 0.2,
    "disagree": 0.3,
    "stopping": "after the third seed of both arms",
    "scope": "atlas-base, the help desk's file, 200 lessons",
}
USUAL = {"frame": "{}", "rate": 1e-3, "epochs": 1}


def _project(control=None, changed=None, **plan):
    """A project of one epoch against three, with these changes."""
    return {
        "plan": PLAN | plan,
        "control": USUAL | (control or {}),
        "changed": USUAL | (changed if changed is not None else {"epochs": 3}),
    }


def _without(whole, *names):
    return {name: value for name, value in whole.items() if name not in names}


_FRAME = {"changes": ["frame"], "claim": "lower", "primary": "equals"}
_RATE = {"changes": ["rate"], "claim": "lower"}

OTHER_WRONG_ANSWERS = {
    "19.1": [
        _unsorted,
        _escaped,
        _unescaped_again,
        _compact,
        _indented,
        _with_a_line_end,
        _python_text,
        _quotes_replaced,
        _twelve_bytes,
        _raw_bytes,
        _last_digits,
        _whole_digest,
        _ten_digits,
        _capital_digits,
        _sha1,
        _sha512,
        _md5,
        _utf16,
        _latin,
        _letters_lost,
        _a_number,
        _no_zeros_in_front,
        _pairs_sealed,
        _values_sealed,
        _lists_sorted_too,
        _sorted_backwards,
        _small_letters,
        _letters_taken_apart,
        _without_blanks,
        _keeps_the_seal,
    ],
    "19.2": [
        _not_empty,
        _blanks_only,
        _any_type,
        _truthy,
        _empty_primary,
        _list_of_measures,
        _one_measure_in_a_list,
        _one_word,
        _list_of_questions,
        _question_mark,
        _no_question,
        _no_control,
        _no_stopping,
        _no_scope,
        _any_claim,
        _claim_in_any_case,
        _claim_trimmed,
        _part_of_a_claim,
        _claim_may_differ,
        _higher_only,
        _lower_only,
        _any_changes,
        _no_change,
        _different_changes,
        _two_seeds,
        _four_seeds,
        _equal_seeds,
        _three_different,
        _neighbours_differ,
        _exactly_three,
        _questions_above,
        _rounded_down,
        _always_177,
        _any_questions,
        _too_many_questions,
        _swapped_shares,
        _same_as_needed,
        _for_two_arms,
        _over_all_seeds,
        _alphabetical,
        _backwards,
        _first_gap,
        _how_many,
        _none_if_none,
        _in_one_text,
        _names_without_gap,
        _sorts_seeds,
        _trims_the_plan,
        _takes_out,
    ],
    "19.3": [
        *map(
            _by_these_groups,
            [
                _alone,
                _partners,
                _forward,
                _two_steps,
                _one_pass,
                _roots_forgotten,
                _first_fitting_set,
            ],
        ),
        _of_any_size,
        _smaller_only,
        _one_more_allowed,
        _never_more,
        _half_at_most,
        _singles_only,
        _one_more_kept,
        _one_less_kept,
        _never_done,
        _size_of_the_first,
        _stops_at_a_large_group,
        _groups_counted,
        _rows_counted_twice,
        _large_ones_counted,
        _rows_of_order_only,
        _cut,
        _as_kept,
        _a_set,
        _doubled,
        _the_others,
        _order_ignored,
        _order_sorted,
        _from_the_end,
        _order_emptied,
        _pairs_turned,
        _largest_first,
        _paired_rows_only,
    ],
    "19.4": [
        _last_run,
        _best_run,
        _worst_run,
        _mean_run,
        _all_seeds,
        _enough_of_any_seed,
        _seeds_that_ran,
        _seeds_that_ran_shown,
        _first_three_seeds,
        _seeds_from_nought,
        _numbers_of_runs,
        _not_finished_in_both,
        _changed_arm_decides,
        _control_arm_decides,
        _arms_swapped,
        _always_higher,
        _always_lower,
        _direction_chosen_late,
        _other_measure,
        _first_measure,
        _last_measure,
        _any_measure_holds,
        _whole_verdict,
        _true_or_false,
        _none_when_unfinished,
        _not_shown_when_unfinished,
        _raises_when_unfinished,
        _one_floor,
        _no_floor,
        _sorts_rows,
        _drops_rows,
        _takes_seeds,
    ],
    "19.5": [
        MARKS | {"plan": 2},
        MARKS | {"plan": 0},
        MARKS | {"kept back": 2},
        MARKS | {"kept back": 0},
        MARKS | {"control": 1},
        MARKS | {"control": 0},
        MARKS | {"seeds": 1},
        MARKS | {"seeds": 2},
        MARKS | {"questions": 0},
        MARKS | {"questions": 2},
        MARKS | {"primary": 1},
        MARKS | {"primary": 0},
        MARKS | {"verdict": 1},
        MARKS | {"verdict": 2},
        MARKS | {"scope": 1},
        MARKS | {"scope": 0},
        dict.fromkeys(MARKS, 1),
        dict.fromkeys(MARKS, 2),
        {name: 2 - mark for name, mark in MARKS.items()},
        {name: mark / 2 for name, mark in MARKS.items()},
        {name: str(mark) for name, mark in MARKS.items()},
        {name: [mark] for name, mark in MARKS.items()},
        {name.title(): mark for name, mark in MARKS.items()},
        {name.replace(" ", "_"): mark for name, mark in MARKS.items()},
        _without(MARKS, "verdict"),
        MARKS | {"total": 9},
        list(MARKS.values()),
        list(MARKS.items()),
        str(MARKS),
        9,
        {},
    ],
    "19.6": [
        # the plan
        _project(seeds=[0, 1]),
        _project(seeds=[0, 1, 2, 3]),
        _project(seeds=[0, 1, 1]),
        _project(seeds=3),
        _project(questions=101),
        _project(questions=180),
        _project(questions=50, smallest=0.08, disagree=0.15),
        _project(primary="outcomes"),
        _project(primary=["holds"]),
        _project(primary="exact match"),
        _project(claim="held"),
        _project(changes=["epochs", "rate"]),
        _project(changes=[]),
        _project(changes="epochs"),
        _project(changes=["seed"]),
        _project(stopping=" "),
        _project(scope=""),
        _project(question=""),
        _project(control={}) | {"plan": _without(PLAN, "control")},
        _project() | {"plan": _without(PLAN, "smallest")},
        _project() | {"plan": Plan(**PLAN)},
        _project() | {"plan": Plan(**PLAN).seal()},
        # the arms
        _project(changes=["rate"]),
        _project(changes=["frame"]),
        _project(changed={}),
        _project(changed={"epochs": 3, "rate": 2e-3}),
        _project(changed={"epochs": 3, "frame": "Certainly! {}"}),
        _project(changed={"epochs": 4}),
        _project(changed={"epochs": 0}),
        _project(changed={"epochs": 2.5}),
        _project(changed={"epochs": "3"}),
        _project(changed={"epochs": 3, "lessons": 600}),
        _project() | {"control": _without(USUAL, "rate")},
        _project() | {"changed": {"epochs": 3}},
        _project() | {"control": None},
        _project(changed={"rate": 0.0}, **_RATE),
        _project(changed={"rate": -1e-3}, **_RATE),
        _project(changed={"rate": 0.2}, **_RATE),
        _project(changed={"rate": 1}, **_RATE),
        _project(changed={"rate": float("nan")}, **_RATE),
        _project(changed={"rate": "1e-5"}, **_RATE),
        _project(changed={"frame": "Certainly!"}, **_FRAME),
        _project(changed={"frame": "{} and again {}"}, **_FRAME),
        _project(changed={"frame": "Certainly! {0}"}, **_FRAME),
        _project(changed={"frame": "Certainly! {answer}"}, **_FRAME),
        _project(changed={"frame": "Certainly! {} }"}, **_FRAME),
        _project(changed={"frame": "{}" + "!" * 79}, **_FRAME),
        _project(changed={"frame": None}, **_FRAME),
        # the effect
        _project(claim="lower"),
        _project(changed={"frame": "{}."}, changes=["frame"], claim="lower"),
        # the whole
        _without(_project(), "plan"),
        _without(_project(), "control"),
        _without(_project(), "changed"),
        [PLAN, USUAL, USUAL | {"epochs": 3}],
        {},
    ],
}
