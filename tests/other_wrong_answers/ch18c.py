"""Wrong answers to the exercises of chapter 18c, written from the statements alone."""

import itertools

import torch

from sft_lab.course.zoo import Example, write_turn

# 18c.1
_NAMED = {"H": "typed control", "I": "shifted twice", "T": "stop row frozen", "X": "tied merge"}


# 18c.2
def _want(examples, labels):
    want = torch.full_like(labels, -100)
    for row, example in enumerate(examples):
        want[row, : len(example.labels)] = torch.tensor(example.labels, dtype=labels.dtype)
    return want


def _compare(there, here):
    return int((there & ~here).sum()), int((here & ~there).sum())


def _added_and_lost(examples, labels):
    return _compare(labels != -100, _want(examples, labels) != -100)


def _ends_with_the_example(examples, labels):
    lost = added = 0
    for example, row in zip(examples, labels.tolist(), strict=True):
        for a, b in zip(example.labels, row, strict=False):
            lost += a != -100 and b == -100
            added += a == -100 and b != -100
    return lost, added


def _without_the_first_place(examples, labels):
    return _compare(_want(examples, labels)[:, 1:] != -100, labels[:, 1:] != -100)


def _positive_is_graded(examples, labels):
    return _compare(_want(examples, labels) > 0, labels > 0)


def _batch_positive(examples, labels):
    return _compare(_want(examples, labels) != -100, labels > 0)


def _ids_are_compared(examples, labels):
    """A place whose label differs is lost and added."""
    want = _want(examples, labels)
    there, here, other = want != -100, labels != -100, want != labels
    return int((there & other).sum()), int((here & other).sum())


def _difference_of_counts(examples, labels):
    there, here = int((_want(examples, labels) != -100).sum()), int((labels != -100).sum())
    return max(there - here, 0), max(here - there, 0)


def _difference_of_counts_by_row(examples, labels):
    more = (_want(examples, labels) != -100).sum(1) - (labels != -100).sum(1)
    return int(more.clamp(min=0).sum()), int((-more).clamp(min=0).sum())


def _first_row_only(examples, labels):
    return _compare(_want(examples, labels)[:1] != -100, labels[:1] != -100)


def _rows_not_places(examples, labels):
    there, here = _want(examples, labels) != -100, labels != -100
    return int((there & ~here).any(1).sum()), int((here & ~there).any(1).sum())


def _padded_on_the_left(examples, labels):
    want = torch.full_like(labels, -100)
    for row, example in enumerate(examples):
        want[row, labels.shape[1] - len(example.labels) :] = torch.tensor(example.labels)
    return _compare(want != -100, labels != -100)


def _ids_behind_the_end(examples, labels):
    """A place behind the end counts as graded in the example."""
    want = torch.zeros_like(labels)
    for row, example in enumerate(examples):
        want[row, : len(example.labels)] = torch.tensor(example.labels)
    return _compare(want != -100, labels != -100)


def _shifted(examples, labels):
    return _compare(_want(examples, labels)[:, :-1] != -100, labels[:, 1:] != -100)


def _sets_of_columns(examples, labels):
    """Places without their row."""
    there = {t for example in examples for t, x in enumerate(example.labels) if x != -100}
    here = {t for row in labels.tolist() for t, x in enumerate(row) if x != -100}
    return len(there - here), len(here - there)


def _kept_and_added(examples, labels):
    there, here = _want(examples, labels) != -100, labels != -100
    return int((there & here).sum()), int((here & ~there).sum())


def _row_by_row(examples, labels):
    there, here = _want(examples, labels) != -100, labels != -100
    return (there & ~here).sum(1).tolist(), (here & ~there).sum(1).tolist()


def _one_number(examples, labels):
    return sum(_compare(_want(examples, labels) != -100, labels != -100))


# 18c.3
def _greedy(table, cost, key, enough=0):
    """Greedy by a key of (name, new bugs); the first of equals."""
    seen, chosen = set(), []
    while True:
        rest = [probe for probe in table if len(table[probe] - seen) > enough]
        if not rest:
            return chosen
        best = max(rest, key=lambda probe: key(probe, len(table[probe] - seen)))
        chosen.append(best)
        seen = seen | table[best]


def _cost_ignored(table, cost):
    return _greedy(table, cost, lambda probe, new: new)


def _cheapest_first(table, cost):
    return _greedy(table, cost, lambda probe, new: -cost[probe])


def _times_cost(table, cost):
    return _greedy(table, cost, lambda probe, new: new * cost[probe])


def _floor_division(table, cost):
    return _greedy(table, cost, lambda probe, new: new // cost[probe])


def _minus_cost(table, cost):
    return _greedy(table, cost, lambda probe, new: new - cost[probe])


def _most_bugs_of_equals(table, cost):
    return _greedy(table, cost, lambda probe, new: (new / cost[probe], new))


def _cheapest_of_equals(table, cost):
    return _greedy(table, cost, lambda probe, new: (new / cost[probe], -cost[probe]))


def _last_of_equals(table, cost):
    reverse = dict(reversed(table.items()))
    return _greedy(reverse, cost, lambda probe, new: new / cost[probe])


def _alphabet_of_equals(table, cost):
    return _greedy(dict(sorted(table.items())), cost, lambda probe, new: new / cost[probe])


def _all_bugs_counted(table, cost):
    """What a probe sees at all, not what is new."""
    return _greedy(table, cost, lambda probe, new: len(table[probe]) / cost[probe])


def _order_of_the_table(table, cost):
    chosen = _greedy(table, cost, lambda probe, new: new / cost[probe])
    return [probe for probe in table if probe in chosen]


def _alphabetical(table, cost):
    return sorted(_greedy(table, cost, lambda probe, new: new / cost[probe]))


def _order_of_cost(table, cost):
    """Cost breaks ties by its own order."""
    return _greedy({p: table[p] for p in cost}, cost, lambda probe, new: new / cost[probe])


def _every_probe(table, cost):
    chosen = _greedy(table, cost, lambda probe, new: new / cost[probe])
    return chosen + [probe for probe in table if probe not in chosen]


def _set_of_names(table, cost):
    return set(_greedy(table, cost, lambda probe, new: new / cost[probe]))


def _one_pass(table, cost):
    """Sorted once; the ratio is not counted anew."""
    seen, chosen = set(), []
    for probe in sorted(table, key=lambda p: -len(table[p]) / cost[p]):
        if table[probe] - seen:
            chosen.append(probe)
            seen = seen | table[probe]
    return chosen


def _new_to_the_last(table, cost):
    """New is what the probe chosen last does not see."""
    last, rest, chosen = set(), list(table), []
    while any(table[probe] - last for probe in rest):
        best = max(rest, key=lambda probe: len(table[probe] - last) / cost[probe])
        chosen.append(best)
        rest.remove(best)
        last = table[best]
    return chosen


def _one_new_bug_is_too_few(table, cost):
    return _greedy(table, cost, lambda probe, new: new / cost[probe], enough=1)


def _cheapest_cover(table, cost):
    """The cheapest set of probes that sees all."""
    everything = set().union(*table.values())
    covers = [
        names
        for size in range(len(table) + 1)
        for names in itertools.combinations(table, size)
        if set().union(*(table[name] for name in names)) == everything
    ]
    return list(min(covers, key=lambda names: sum(cost[name] for name in names)))


def _empty_table_raises(table, cost):
    if max(map(len, table.values())) == 0:
        return []
    return _greedy(table, cost, lambda probe, new: new / cost[probe])


def _table_is_used_up(table, cost):
    chosen = []
    while any(table.values()):
        best = max(table, key=lambda probe: len(table[probe]) / cost[probe])
        chosen.append(best)
        found = set(table[best])
        for bugs in table.values():
            bugs -= found
    return chosen


# 18c.4
def _rows(talk, tokenizer, grade, most=72):
    """Ids, and the labels that `grade(turn number, role, opening, inside, closing)` marks."""
    ids, labels = [tokenizer.pad_token_id], [-100]
    for number, turn in enumerate(talk):
        parts = write_turn(turn["role"], turn["content"], tokenizer)
        whole = [token for part in parts for token in part]
        marks = grade(number, turn["role"], *map(len, parts))
        ids += whole
        labels += [t if mark else -100 for t, mark in zip(whole, marks, strict=True)]
    return None if len(ids) > most else Example(ids, labels)


def _answer(number, role, opening, inside, closing):
    here = role == "assistant"
    return [False] * opening + [here] * (inside + 1) + [False] * (closing - 1)


def _the_whole_turn(talk, tokenizer):
    return _rows(talk, tokenizer, lambda n, role, *sizes: [role == "assistant"] * sum(sizes))


def _with_the_opening(talk, tokenizer):
    def grade(number, role, opening, inside, closing):
        here = role == "assistant"
        return [here] * (opening + inside + 1) + [False] * (closing - 1)

    return _rows(talk, tokenizer, grade)


def _with_the_line_break(talk, tokenizer):
    def grade(number, role, opening, inside, closing):
        return [False] * opening + [role == "assistant"] * (inside + closing)

    return _rows(talk, tokenizer, grade)


def _without_the_stop(talk, tokenizer):
    def grade(number, role, opening, inside, closing):
        return [False] * opening + [role == "assistant"] * inside + [False] * closing

    return _rows(talk, tokenizer, grade)


def _every_turn(talk, tokenizer):
    return _rows(talk, tokenizer, lambda number, role, *sizes: _answer(0, "assistant", *sizes))


def _stops_of_every_turn(talk, tokenizer):
    def grade(number, role, opening, inside, closing):
        marks = _answer(number, role, opening, inside, closing)
        marks[opening + inside] = True
        return marks

    return _rows(talk, tokenizer, grade)


def _first_answer_only(talk, tokenizer):
    def grade(number, role, *sizes):
        return _answer(number, role if number == 1 else "user", *sizes)

    return _rows(talk, tokenizer, grade)


def _last_answer_only(talk, tokenizer):
    def grade(number, role, *sizes):
        return _answer(number, role if number == len(talk) - 1 else "user", *sizes)

    return _rows(talk, tokenizer, grade)


def _every_second_turn(talk, tokenizer):
    """A system turn moves the answers."""

    def grade(number, role, *sizes):
        return _answer(number, "assistant" if number % 2 else "user", *sizes)

    return _rows(talk, tokenizer, grade)


def _first_token_late(talk, tokenizer):
    def grade(number, role, opening, inside, closing):
        marks = _answer(number, role, opening, inside, closing)
        marks[opening] = False
        return marks

    return _rows(talk, tokenizer, grade)


def _still_cut(talk, tokenizer):
    row = _rows(talk, tokenizer, _answer, most=10**6)
    return Example(row.input_ids[:72], row.labels[:72])


def _cut_is_not_checked(talk, tokenizer):
    return _rows(talk, tokenizer, _answer, most=10**6)


def _72_is_too_many(talk, tokenizer):
    return _rows(talk, tokenizer, _answer, most=71)


def _73_is_allowed(talk, tokenizer):
    return _rows(talk, tokenizer, _answer, most=73)


def _empty_row_for_long(talk, tokenizer):
    return _rows(talk, tokenizer, _answer) or Example([], [])


def _long_row_ungraded(talk, tokenizer):
    row = _still_cut(talk, tokenizer)
    return _rows(talk, tokenizer, _answer) or Example(row.input_ids, [-100] * 72)


def _without_the_first_token(talk, tokenizer):
    row = _rows(talk, tokenizer, _answer)
    return row and Example(row.input_ids[1:], row.labels[1:])


def _shifted_labels(talk, tokenizer):
    row = _rows(talk, tokenizer, _answer)
    return row and Example(row.input_ids, [*row.labels[1:], -100])


def _ungraded_is_0(talk, tokenizer):
    row = _rows(talk, tokenizer, _answer)
    return row and Example(row.input_ids, [0 if x == -100 else x for x in row.labels])


def _typed_control_tokens(talk, tokenizer):
    """Encoded as one text: what somebody typed becomes a control token."""
    ids, labels = [tokenizer.pad_token_id], [-100]
    for turn in talk:
        head = tokenizer(f"<|im_start|>{turn['role']}\n").input_ids
        answer = tokenizer(f"{turn['content']}<|im_end|>").input_ids
        tail = tokenizer("\n").input_ids
        ids += head + answer + tail
        here = turn["role"] == "assistant"
        labels += [-100] * len(head) + (answer if here else [-100] * len(answer))
        labels += [-100] * len(tail)
    return None if len(ids) > 72 else Example(ids, labels)


def _a_pair(talk, tokenizer):
    row = _rows(talk, tokenizer, _answer)
    return row and (row.input_ids, row.labels)


# 18c.5
def _mapped(example, change):
    pairs = zip(example.input_ids, example.labels, strict=True)
    ids, labels = zip(*(change(token, label) for token, label in pairs), strict=True)
    return Example(list(ids), list(labels))


def _nothing(example):
    return Example(list(example.input_ids), list(example.labels))


def _stop_not_graded(example):
    return _mapped(example, lambda token, label: (token, -100 if label == 2045 else label))


def _stop_is_the_padding(example):
    """The base reads 2043 often: the curve shows it."""
    return _mapped(example, lambda t, y: (2043, 2043) if y == 2045 else (t, y))


def _line_break_before_the_stop(example):
    ids, labels = list(example.input_ids), list(example.labels)
    for place, label in enumerate(example.labels[:-1]):
        if label == 2045:
            ids[place : place + 2], labels[place : place + 2] = [198, 2045], [198, -100]
    return Example(ids, labels)


def _another_start_in_prompts(example):
    """The model does not care."""
    return _mapped(example, lambda t, y: (2046 if t == 2044 else t, y))


def _label_without_its_id(example):
    return _mapped(example, lambda t, y: (t, 2044 if y == 2045 else y))


def _id_without_its_label(example):
    return _mapped(example, lambda t, y: (2044 if y == 2045 else t, y))


def _id_outside(example):
    return _mapped(example, lambda t, y: (2048, 2048) if y == 2045 else (t, y))


def _one_label_short(example):
    row = _mapped(example, lambda t, y: (2044, 2044) if y == 2045 else (t, y))
    return Example(row.input_ids, row.labels[:-1])


def _two_lists(example):
    row = _mapped(example, lambda t, y: (2044, 2044) if y == 2045 else (t, y))
    return row.input_ids, row.labels


def _nothing_returned(example):
    _mapped(example, lambda t, y: (2044, 2044) if y == 2045 else (t, y))


def _ungraded_is_minus_1(example):
    return _mapped(example, lambda t, y: (2044, 2044) if y == 2045 else (t, max(y, -1)))


def _nothing_graded(example):
    return _mapped(example, lambda t, y: (t, -100))


OTHER_WRONG_ANSWERS = {
    "18c.1": [
        _NAMED | {"H": "typed control token"},
        _NAMED | {"H": "header graded"},
        _NAMED | {"H": "wrong turn"},
        _NAMED | {"I": "mask early"},
        _NAMED | {"I": "nothing graded"},
        _NAMED | {"T": "stop = pad"},
        _NAMED | {"T": "turn not closed"},
        _NAMED | {"T": "stop not named"},
        _NAMED | {"X": "keys do not meet"},
        _NAMED | {"X": "fresh adapter"},
        _NAMED | {"T": "tied merge", "X": "stop row frozen"},
        {"H": "typed control", "I": "shifted twice", "T": "stop row frozen"},
        ["typed control", "shifted twice", "stop row frozen", "tied merge"],
        {cause: letter for letter, cause in _NAMED.items()},
        {letter: "decoy: slow" for letter in "HITX"},
    ],
    "18c.2": [
        _added_and_lost,
        _ends_with_the_example,
        _without_the_first_place,
        _positive_is_graded,
        _batch_positive,
        _ids_are_compared,
        _difference_of_counts,
        _difference_of_counts_by_row,
        _first_row_only,
        _rows_not_places,
        _padded_on_the_left,
        _ids_behind_the_end,
        _shifted,
        _sets_of_columns,
        _kept_and_added,
        _row_by_row,
        _one_number,
    ],
    "18c.3": [
        _cost_ignored,
        _cheapest_first,
        _times_cost,
        _floor_division,
        _minus_cost,
        _most_bugs_of_equals,
        _cheapest_of_equals,
        _last_of_equals,
        _alphabet_of_equals,
        _all_bugs_counted,
        _order_of_the_table,
        _alphabetical,
        _order_of_cost,
        _every_probe,
        _set_of_names,
        _one_pass,
        _new_to_the_last,
        _one_new_bug_is_too_few,
        _cheapest_cover,
        _empty_table_raises,
        _table_is_used_up,
    ],
    "18c.4": [
        _the_whole_turn,
        _with_the_opening,
        _with_the_line_break,
        _without_the_stop,
        _every_turn,
        _stops_of_every_turn,
        _first_answer_only,
        _last_answer_only,
        _every_second_turn,
        _first_token_late,
        _still_cut,
        _cut_is_not_checked,
        _72_is_too_many,
        _73_is_allowed,
        _empty_row_for_long,
        _long_row_ungraded,
        _without_the_first_token,
        _shifted_labels,
        _ungraded_is_0,
        _typed_control_tokens,
        _a_pair,
    ],
    "18c.5": [
        _nothing,
        _stop_not_graded,
        _stop_is_the_padding,
        _line_break_before_the_stop,
        _another_start_in_prompts,
        _label_without_its_id,
        _id_without_its_label,
        _id_outside,
        _one_label_short,
        _two_lists,
        _nothing_returned,
        _ungraded_is_minus_1,
        _nothing_graded,
    ],
}
