"""Wrong answers to the exercises of chapter 18b, written from the statements alone."""

import itertools
import math
import statistics

import numpy as np
import torch

from sft_lab import diagnostics


# 18b.1
def _runs(labels, graded=lambda label: label != -100):
    runs, start = [], None
    for t, label in enumerate([*labels, -100]):
        if t < len(labels) and graded(label):
            start = t if start is None else start
        elif start is not None:
            runs.append((start, t))
            start = None
    return runs


def _open_end_lost(labels):
    """A run that reaches the end of the row is never closed."""
    runs, start = [], None
    for t, label in enumerate(labels):
        if label != -100 and start is None:
            start = t
        elif label == -100 and start is not None:
            runs.append((start, t))
            start = None
    return runs


def _open_start_lost(labels):
    """A run begins behind a -100 alone."""
    return [(a, b) for a, b in _runs(labels) if a > 0]


def _first_to_last(labels):
    graded = [t for t, label in enumerate(labels) if label != -100]
    return [(graded[0], graded[-1] + 1)] if graded else []


def _new_run_at_each_value(labels):
    runs, at = [], 0
    for value, group in itertools.groupby(labels):
        length = len(list(group))
        if value != -100:
            runs.append((at, at + length))
        at += length
    return runs


def _found_by_value(labels):
    """labels.index finds the first token of that value."""
    runs = []
    for a, b in _runs(labels):
        start = labels.index(labels[a])
        runs.append((start, start + b - a))
    return runs


def _end_short_at_the_row_end(labels):
    return [(a, min(b, len(labels) - 1)) for a, b in _runs(labels)]


def _appended_in_place(labels):
    labels.append(-100)
    return _open_end_lost(labels)


# 18b.2
def _answers(turns):
    return [k for k, turn in enumerate(turns) if turn["role"] == "assistant"]


def _listed(conversations, is_bad):
    return [i for i, turns in enumerate(conversations) if is_bad(turns)]


def _differs(turns, k, render):
    return not render(turns, False).startswith(render(turns[:k], True))


def _last_answer(conversations, render):
    return _listed(
        conversations,
        lambda turns: any(_differs(turns, k, render) for k in _answers(turns)[-1:]),
    )


def _first_answer(conversations, render):
    return _listed(
        conversations,
        lambda turns: any(_differs(turns, k, render) for k in _answers(turns)[:1]),
    )


def _not_asking(conversations, render):
    return _listed(
        conversations,
        lambda turns: any(
            not render(turns, False).startswith(render(turns[:k], False)) for k in _answers(turns)
        ),
    )


def _whole_asking(conversations, render):
    return _listed(
        conversations,
        lambda turns: any(
            not render(turns, True).startswith(render(turns[:k], True)) for k in _answers(turns)
        ),
    )


def _for_each_answer(conversations, render):
    return [
        i
        for i, turns in enumerate(conversations)
        for k in _answers(turns)
        if _differs(turns, k, render)
    ]


def _up_to_the_answer(conversations, render):
    """The conversation is cut behind the answer."""
    return _listed(
        conversations,
        lambda turns: any(
            not render(turns[: k + 1], False).startswith(render(turns[:k], True))
            for k in _answers(turns)
        ),
    )


def _contained(conversations, render):
    return _listed(
        conversations,
        lambda turns: any(
            render(turns[:k], True) not in render(turns, False) for k in _answers(turns)
        ),
    )


def _every_question(conversations, render):
    """A prompt for each question, also for the last, which has no answer."""
    return _listed(
        conversations,
        lambda turns: any(
            _differs(turns, k + 1, render) for k, turn in enumerate(turns) if turn["role"] == "user"
        ),
    )


def _every_answer(conversations, render):
    return _listed(
        conversations,
        lambda turns: all(_differs(turns, k, render) for k in _answers(turns)),
    )


def _every_answer_and_one(conversations, render):
    return _listed(
        conversations,
        lambda turns: (
            bool(_answers(turns)) and all(_differs(turns, k, render) for k in _answers(turns))
        ),
    )


def _right(conversations, render):
    return _listed(
        conversations,
        lambda turns: any(_differs(turns, k, render) for k in _answers(turns)),
    )


def _odd_turns(conversations, render):
    """Takes every second turn for an answer."""
    return _listed(
        conversations,
        lambda turns: any(_differs(turns, k, render) for k in range(1, len(turns), 2)),
    )


def _stripped(conversations, render):
    return _listed(
        conversations,
        lambda turns: any(
            not render(turns, False).startswith(render(turns[:k], True).strip())
            for k in _answers(turns)
        ),
    )


def _last_turn(conversations, render):
    """The last turn is taken for the answer."""
    return _listed(conversations, lambda turns: _differs(turns, len(turns) - 1, render))


def _with_the_answer(conversations, render):
    return _listed(
        conversations,
        lambda turns: any(_differs(turns, k + 1, render) for k in _answers(turns)),
    )


def _question_alone(conversations, render):
    """The prompt is the turn before the answer, without those before it."""
    return _listed(
        conversations,
        lambda turns: any(
            not render(turns, False).startswith(render(turns[k - 1 : k], True))
            for k in _answers(turns)
        ),
    )


def _popped(conversations, render):
    found = []
    for i, turns in enumerate(conversations):
        whole, bad = render(turns, False), False
        while turns:
            if turns.pop()["role"] == "assistant":
                bad = bad or not whole.startswith(render(turns, True))
        found += [i] * bad
    return found


# 18b.3
def _flat(gradient):
    return torch.cat([part.detach().flatten() for part in gradient])


def _both(gradient_of, rows):
    return _flat(gradient_of([[row] for row in rows])), _flat(gradient_of([rows]))


def _by_the_parts(gradient_of, rows):
    parts, whole = _both(gradient_of, rows)
    return ((parts - whole).norm() / parts.norm()).item()


def _absolute(gradient_of, rows):
    parts, whole = _both(gradient_of, rows)
    return (parts - whole).norm().item()


def _squared(gradient_of, rows):
    parts, whole = _both(gradient_of, rows)
    return ((parts - whole).square().sum() / whole.square().sum()).item()


def _norm_of_one(gradient_of, rows):
    parts, whole = _both(gradient_of, rows)
    return ((parts - whole).abs().sum() / whole.abs().sum()).item()


def _largest(gradient_of, rows):
    parts, whole = _both(gradient_of, rows)
    return ((parts - whole).abs().max() / whole.abs().max()).item()


def _of_the_norms(gradient_of, rows):
    parts, whole = _both(gradient_of, rows)
    return (abs(parts.norm() - whole.norm()) / whole.norm()).item()


def _angle(gradient_of, rows):
    parts, whole = _both(gradient_of, rows)
    return 1 - torch.cosine_similarity(parts, whole, dim=0).item()


def _not_kept(gradient_of, rows):
    """The second call has written into the tensors of the first."""
    whole = gradient_of([rows])
    parts = gradient_of([[row] for row in rows])
    return ((_flat(parts) - _flat(whole)).norm() / _flat(whole).norm()).item()


def _not_kept_by_a_list(gradient_of, rows):
    parts = [part.detach() for part in gradient_of([[row] for row in rows])]
    whole = [part.detach() for part in gradient_of([rows])]
    return ((_flat(parts) - _flat(whole)).norm() / _flat(whole).norm()).item()


def _mean_of_parameters(gradient_of, rows):
    parts = [part.clone() for part in gradient_of([[row] for row in rows])]
    whole = gradient_of([rows])
    pairs = zip(parts, whole, strict=True)
    return statistics.mean(((p - w).norm() / (w.norm() + 1e-12)).item() for p, w in pairs)


def _norms_added(gradient_of, rows):
    parts = [part.clone() for part in gradient_of([[row] for row in rows])]
    whole = gradient_of([rows])
    above = sum((p - w).norm().item() for p, w in zip(parts, whole, strict=True))
    return above / sum(w.norm().item() for w in whole)


def _one_parameter(gradient_of, rows, place=0):
    parts = gradient_of([[row] for row in rows])[place].clone()
    whole = gradient_of([rows])[place]
    return ((parts - whole).norm() / (whole.norm() + 1e-12)).item()


def _steps_added(gradient_of, rows):
    """A step for each row, and their sum."""
    parts = sum(_flat(gradient_of([[row]])).clone() for row in rows)
    whole = _flat(gradient_of([rows]))
    return ((parts - whole).norm() / whole.norm()).item()


def _mean_of_steps(gradient_of, rows):
    parts = sum(_flat(gradient_of([[row]])).clone() for row in rows) / len(rows)
    whole = _flat(gradient_of([rows]))
    return ((parts - whole).norm() / whole.norm()).item()


def _in_pairs(gradient_of, rows):
    parts = _flat(gradient_of([rows[i : i + 2] for i in range(0, len(rows), 2)])).clone()
    whole = _flat(gradient_of([rows]))
    return ((parts - whole).norm() / whole.norm()).item()


def _mean_squares(gradient_of, rows):
    """The root of the mean square, and no divisor."""
    parts, whole = _both(gradient_of, rows)
    return math.sqrt((parts - whole).square().mean().item())


# 18b.4
def _hits(best, labels, ahead=1):
    """For each row the places in the row and the hits."""
    rows = []
    for guesses, row in zip(best.tolist(), labels.tolist(), strict=True):
        at = [t for t, label in enumerate(row) if label != -100]
        rows.append((at, [float(guesses[t - ahead] == row[t]) for t in at]))
    return rows


def _shares(lists):
    width = max(map(len, lists))
    columns = ([hits[k] for hits in lists if len(hits) > k] for k in range(width))
    return [sum(column) / len(column) for column in columns]


def _mean(values):
    return sum(values) / len(values)


def _by_place(rows):
    return [*_shares([hits[:-1] for _, hits in rows]), _mean([hits[-1] for _, hits in rows])]


def _stops_left_in(best, labels):
    rows = _hits(best, labels)
    return [*_shares([hits for _, hits in rows]), _mean([hits[-1] for _, hits in rows])]


def _no_stops(best, labels):
    return _shares([hits[:-1] for _, hits in _hits(best, labels)])


def _stops_first(best, labels):
    *places, stop = _by_place(_hits(best, labels))
    return [stop, *places]


def _over_all_rows(best, labels):
    rows = _hits(best, labels)
    lists = [hits[:-1] for _, hits in rows]
    width = max(map(len, lists))
    places = [sum(hits[k] for hits in lists if len(hits) > k) / len(rows) for k in range(width)]
    return [*places, _mean([hits[-1] for _, hits in rows])]


def _counted(best, labels):
    lists = [hits[:-1] for _, hits in _hits(best, labels)]
    places = [sum(hits[k] for hits in lists if len(hits) > k) for k in range(max(map(len, lists)))]
    return [*places, sum(hits[-1] for _, hits in _hits(best, labels))]


def _by_column(best, labels):
    """Positions of the row, not of the answer."""
    places, stops = {}, []
    for at, hits in _hits(best, labels):
        stops.append(hits[-1])
        for t, hit in zip(at[:-1], hits[:-1], strict=True):
            places.setdefault(t, []).append(hit)
    return [*(_mean(places[t]) for t in sorted(places)), _mean(stops)]


def _from_the_end(best, labels):
    lists = [hits[-2::-1] for _, hits in _hits(best, labels)]
    return [*_shares(lists)[::-1], _mean([hits[-1] for _, hits in _hits(best, labels)])]


def _last_column_is_the_stop(best, labels):
    """Rows whose answer ends earlier keep their stop token among the others."""
    lists, stops = [], []
    for at, hits in _hits(best, labels):
        ends = at[-1] == labels.shape[1] - 1
        stops += hits[-1:] if ends else []
        lists.append(hits[:-1] if ends else hits)
    return [*_shares(lists), _mean(stops) if stops else 0.0]


def _short_answers_dropped(best, labels):
    """Answers of nothing but a stop token are left out."""
    rows = [(at, hits) for at, hits in _hits(best, labels) if len(hits) > 1]
    return _by_place(rows)


def _of_the_longest_alone(best, labels):
    """The mean over rows stops where the shortest answer ends."""
    lists = [hits[:-1] for _, hits in _hits(best, labels)]
    width = min(map(len, lists))
    places = [_mean([hits[k] for hits in lists]) for k in range(width)]
    return [*places, _mean([hits[-1] for _, hits in _hits(best, labels)])]


def _positive_labels(best, labels):
    return _by_place(_hits(best, torch.where(labels > 0, labels, -100)))


def _weighted_stop(best, labels):
    """The last entry is the share over all graded tokens."""
    rows = _hits(best, labels)
    everything = [hit for _, hits in rows for hit in hits]
    return [*_by_place(rows)[:-1], _mean(everything)]


def _prefix_right(best, labels):
    """Counts a token only when all before it are right."""
    rows = []
    for at, hits in _hits(best, labels):
        rows.append((at, [*itertools.accumulate(hits[:-1], min), hits[-1]]))
    return _by_place(rows)


def _masked_in_place(best, labels):
    result = _by_place(_hits(best, labels))
    labels[:, 0] = 0
    return result


def _without_the_last_column(best, labels):
    """Cuts the labels at the end, as if they were the guesses."""
    labels = labels.clone()
    labels[:, -1] = -100
    return _by_place([row for row in _hits(best, labels) if row[0]])


# 18b.5
def _apart(healthy, broken, n):
    return min(healthy[n]) > max(broken[n])


def _from_which_on(healthy, broken, apart):
    found = None
    for n in sorted(healthy, reverse=True):
        if not apart(healthy[n], broken[n]):
            break
        found = n
    return found


def _first_apart(healthy, broken):
    return min((n for n in healthy if _apart(healthy, broken, n)), default=None)


def _in_the_order_given(healthy, broken):
    numbers = list(healthy)
    for i, n in enumerate(numbers):
        if all(_apart(healthy, broken, m) for m in numbers[i:]):
            return n
    return None


def _in_the_order_of_text(healthy, broken):
    numbers = sorted(healthy, key=str)
    for i, n in enumerate(numbers):
        if all(_apart(healthy, broken, m) for m in numbers[i:]):
            return n
    return None


def _values_zipped(healthy, broken):
    """Takes both dicts to have one order."""
    apart = {
        n: min(good) > max(bad)
        for (n, good), bad in zip(healthy.items(), broken.values(), strict=True)
    }
    failed = [n for n in apart if not apart[n]]
    return min((n for n in apart if n > max(failed, default=-1)), default=None)


def _at_every_number(healthy, broken):
    return min(healthy) if all(_apart(healthy, broken, n) for n in healthy) else None


def _largest_apart(healthy, broken):
    return max((n for n in healthy if _apart(healthy, broken, n)), default=None)


def _fewest(healthy, broken):
    return _from_which_on(healthy, broken, lambda good, bad: min(good) > max(bad))


def _last_failure(healthy, broken):
    """The largest number at which they are not told apart."""
    return max((n for n in healthy if not _apart(healthy, broken, n)), default=None)


def _larger_ones_alone(healthy, broken):
    for n in sorted(healthy):
        if all(_apart(healthy, broken, m) for m in healthy if m > n):
            return n
    return None


def _this_and_the_next(healthy, broken):
    numbers = sorted(healthy)
    for i, n in enumerate(numbers):
        if all(_apart(healthy, broken, m) for m in numbers[i : i + 2]):
            return n
    return None


def _place(healthy, broken):
    found = _fewest(healthy, broken)
    return None if found is None else sorted(healthy).index(found)


# 18b.6
def _facts(model, base, tokenizer, examples):
    one, two = diagnostics.shifted_accuracy(model, examples).values()
    return {
        "same": diagnostics.logit_difference(model, base) < 1e-4,
        "ahead": two > one,
        "stop": diagnostics.stop_probability(model, tokenizer, examples) > 0.5,
        "first": diagnostics.accuracy_by_position(model, examples)[0] > 0.5,
    }


def _name(same, ahead, stop, first):
    if same:
        return "unchanged"
    if ahead:
        return "two ahead"
    if not stop:
        return "no stop"
    return "healthy" if first else "late start"


def _with(**wrong):
    """The right answer with one of its facts replaced."""

    def name_fault(model, base, tokenizer, examples):
        return _name(**(_facts(model, base, tokenizer, examples) | wrong))

    return name_fault


def _words_swapped(model, base, tokenizer, examples):
    word = _name(**_facts(model, base, tokenizer, examples))
    return {"no stop": "late start", "late start": "no stop"}.get(word, word)


def _stop_asked_first(model, base, tokenizer, examples):
    facts = _facts(model, base, tokenizer, examples)
    return "no stop" if not facts["stop"] else _name(**facts)


def _first_token_asked_first(model, base, tokenizer, examples):
    facts = _facts(model, base, tokenizer, examples)
    return "late start" if not facts["first"] else _name(**facts)


def _second_token(model, base, tokenizer, examples):
    """Position 1 is taken for the first."""
    first = diagnostics.accuracy_by_position(model, examples)[1] > 0.5
    return _name(**(_facts(model, base, tokenizer, examples) | {"first": first}))


def _last_token(model, base, tokenizer, examples):
    first = diagnostics.accuracy_by_position(model, examples)[-1] > 0.5
    return _name(**(_facts(model, base, tokenizer, examples) | {"first": first}))


def _ahead_turned_round(model, base, tokenizer, examples):
    facts = _facts(model, base, tokenizer, examples)
    return _name(**(facts | {"ahead": not facts["ahead"]}))


def _compared_with_itself(model, base, tokenizer, examples):
    same = diagnostics.logit_difference(model, model) == 0
    return _name(**(_facts(model, base, tokenizer, examples) | {"same": same}))


def _base_probed(model, base, tokenizer, examples):
    return _name(**(_facts(base, base, tokenizer, examples) | {"same": False}))


def _in_other_words(model, base, tokenizer, examples):
    word = _name(**_facts(model, base, tokenizer, examples))
    return {"two ahead": "shifted twice"}.get(word, word)


def _as_a_list(model, base, tokenizer, examples):
    return [_name(**_facts(model, base, tokenizer, examples))]


WRONG_1 = [
    lambda labels: [(a, b - 1) for a, b in _runs(labels)],
    lambda labels: [(a, b - a) for a, b in _runs(labels)],
    lambda labels: _runs(labels, lambda label: label > 0),
    lambda labels: _runs(labels, lambda label: label != 0),
    lambda labels: _runs(labels, lambda label: label not in (-100, 0)),
    lambda labels: _runs(labels)[:1],
    lambda labels: _runs(labels)[-1:],
    lambda labels: _runs(labels)[::-1],
    lambda labels: _runs(labels) or [(0, 0)],
    lambda labels: [(a + 1, b + 1) for a, b in _runs(labels)],
    lambda labels: [(a, b) for a, b in _runs(labels) if b - a > 1],
    lambda labels: _runs(labels, lambda label: label == -100),
    lambda labels: len(_runs(labels)),
    lambda labels: [labels[a:b] for a, b in _runs(labels)],
    _open_end_lost,
    _open_start_lost,
    _first_to_last,
    _new_run_at_each_value,
    _found_by_value,
    _end_short_at_the_row_end,
    _appended_in_place,
]

OTHER_WRONG_ANSWERS = {
    "18b.1": WRONG_1,
    "18b.2": [
        _last_answer,
        _first_answer,
        _not_asking,
        _whole_asking,
        _for_each_answer,
        _up_to_the_answer,
        _contained,
        _every_question,
        _every_answer,
        _every_answer_and_one,
        _odd_turns,
        _stripped,
        _last_turn,
        _with_the_answer,
        _question_alone,
        _popped,
        lambda conversations, render: [i + 1 for i in _right(conversations, render)],
        lambda conversations, render: _right(conversations, render)[:1],
        lambda conversations, render: _right(conversations, render)[::-1],
        lambda conversations, render: [
            i for i in range(len(conversations)) if i not in _right(conversations, render)
        ],
        lambda conversations, render: [
            i in _right(conversations, render) for i in range(len(conversations))
        ],
        lambda conversations, render: len(_right(conversations, render)),
    ],
    "18b.3": [
        _by_the_parts,
        _absolute,
        _squared,
        _norm_of_one,
        _largest,
        _of_the_norms,
        _angle,
        _not_kept,
        _not_kept_by_a_list,
        _mean_of_parameters,
        _norms_added,
        _one_parameter,
        lambda gradient_of, rows: _one_parameter(gradient_of, rows, -1),
        _steps_added,
        _mean_of_steps,
        _in_pairs,
        _mean_squares,
    ],
    "18b.4": [
        lambda best, labels: _by_place(_hits(best, labels, ahead=0)),
        lambda best, labels: _by_place(_hits(best, labels, ahead=2)),
        lambda best, labels: _by_place(_hits(best, labels))[:2],
        _stops_left_in,
        _no_stops,
        _stops_first,
        _over_all_rows,
        _counted,
        _by_column,
        _from_the_end,
        _last_column_is_the_stop,
        _short_answers_dropped,
        _of_the_longest_alone,
        _positive_labels,
        _weighted_stop,
        _prefix_right,
        _masked_in_place,
        _without_the_last_column,
    ],
    "18b.5": [
        _first_apart,
        _in_the_order_given,
        _in_the_order_of_text,
        _values_zipped,
        _at_every_number,
        _largest_apart,
        _last_failure,
        _larger_ones_alone,
        _this_and_the_next,
        _place,
        lambda healthy, broken: _fewest(healthy, broken) or max(healthy),
        lambda healthy, broken: _fewest(healthy, broken) or 0,
        lambda healthy, broken: _fewest(healthy, broken) or math.inf,
        lambda healthy, broken: _fewest(broken, healthy),
        lambda healthy, broken: _from_which_on(
            healthy, broken, lambda good, bad: min(good) >= max(bad)
        ),
        lambda healthy, broken: _from_which_on(
            healthy, broken, lambda good, bad: np.mean(good) > np.mean(bad)
        ),
        lambda healthy, broken: _from_which_on(
            healthy,
            broken,
            lambda good, bad: all(a > b for a, b in zip(good, bad, strict=False)),
        ),
        lambda healthy, broken: _from_which_on(
            healthy, broken, lambda good, bad: max(good) > max(bad) and min(good) > min(bad)
        ),
        lambda healthy, broken: _from_which_on(
            healthy, broken, lambda good, bad: max(good) > max(bad)
        ),
        lambda healthy, broken: _from_which_on(
            healthy, broken, lambda good, bad: np.median(good) > max(bad)
        ),
    ],
    "18b.6": [
        _with(same=False),
        _with(ahead=False),
        _with(stop=True),
        _with(first=True),
        _words_swapped,
        _stop_asked_first,
        _first_token_asked_first,
        _second_token,
        _last_token,
        _ahead_turned_round,
        _compared_with_itself,
        _base_probed,
        _in_other_words,
        _as_a_list,
        lambda model, base, tokenizer, examples: "healthy",
    ],
}
