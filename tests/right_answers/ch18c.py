"""Right answers to the exercises of chapter 18c, each in another style; written from the
statements alone."""

import itertools
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from sft_lab.course.zoo import Example, write_turn

# 18c.1
_LETTERS = "HITX"
_CAUSES = ("typed control", "shifted twice", "stop row frozen", "tied merge")
_by_cause = {
    "tied merge": "X",
    "stop row frozen": "T",
    "shifted twice": "I",
    "typed control": "H",
}


# 18c.2
def _place_by_place(examples, labels):
    lost = added = 0
    for row, example in enumerate(examples):
        for place in range(labels.shape[1]):
            inside = place < len(example.labels)
            there = inside and example.labels[place] != -100
            here = labels[row, place].item() != -100
            lost += there and not here
            added += here and not there
    return lost, added


def _padded_tensor(examples, labels):
    want = torch.full_like(labels, -100)
    for row, example in enumerate(examples):
        want[row, : len(example.labels)] = torch.tensor(example.labels, dtype=labels.dtype)
    there, here = want != -100, labels != -100
    return int((there & ~here).sum()), int((here & ~there).sum())


def _sets_of_places(examples, labels):
    there = {
        (i, t)
        for i, example in enumerate(examples)
        for t, x in enumerate(example.labels)
        if x + 100
    }
    here = set(map(tuple, (labels != -100).nonzero().tolist()))
    return len(there - here), len(here - there)


def _zip_longest(examples, labels):
    lost, added = 0, 0
    for example, row in zip(examples, labels.tolist(), strict=True):
        for a, b in itertools.zip_longest(example.labels, row, fillvalue=-100):
            if a != -100 and b == -100:
                lost += 1
            elif a == -100 and b != -100:
                added += 1
    return lost, added


def _numpy_signs(examples, labels):
    got = labels.cpu().numpy() != -100
    want = np.zeros(got.shape, dtype=bool)
    for i, example in enumerate(examples):
        want[i, : len(example.labels)] = np.array(example.labels) != -100
    difference = got.astype(int) - want.astype(int)
    return int((difference < 0).sum()), int((difference > 0).sum())


def _pad_sequence(examples, labels):
    rows = [torch.tensor(example.labels) for example in examples]
    want = pad_sequence(rows, batch_first=True, padding_value=-100)
    more = torch.full((len(rows), labels.shape[1] - want.shape[1]), -100)
    want = torch.cat([want, more], dim=1).ne(-100)
    got = labels.ne(-100)
    both = (want & got).sum().item()
    return want.sum().item() - both, got.sum().item() - both


# 18c.3
def _by_gain(table, cost):
    chosen, seen = [], set()
    while True:
        best, most = None, 0
        for probe, bugs in table.items():
            gain = Fraction(len(bugs - seen), cost[probe])
            if gain > most:
                best, most = probe, gain
        if best is None:
            return chosen
        chosen.append(best)
        seen = seen | table[best]


def _max_with_key(table, cost):
    left = set().union(*table.values())
    order = []
    while left:
        best = max(table, key=lambda probe: len(table[probe] & left) / cost[probe])
        order.append(best)
        left = left - table[best]
    return order


def _recursive(table, cost):
    rest = {probe: bugs for probe, bugs in table.items() if bugs}
    if not rest:
        return []
    first = min(rest, key=lambda probe: Fraction(-len(rest[probe]), cost[probe]))
    return [first, *_recursive({p: bugs - rest[first] for p, bugs in rest.items()}, cost)]


def _stable_sort(table, cost):
    left = OrderedDict((probe, set(bugs)) for probe, bugs in table.items())
    chosen = []
    while any(left.values()):
        names = sorted(left, key=lambda probe: len(left[probe]) / cost[probe], reverse=True)
        chosen.append(names[0])
        found = left.pop(names[0])
        for bugs in left.values():
            bugs -= found
    return chosen


def _numpy_matrix(table, cost):
    probes = list(table)
    bugs = sorted(set().union(*table.values()))
    sees = np.array([[bug in table[p] for bug in bugs] for p in probes], dtype=bool)
    sees = sees.reshape(len(probes), len(bugs))
    seconds = np.array([cost[p] for p in probes], dtype=float)
    open_bugs = np.ones(len(bugs), dtype=bool)
    chosen = []
    while open_bugs.any():
        i = int(np.argmax((sees & open_bugs).sum(1) / seconds))
        chosen.append(probes[i])
        open_bugs &= ~sees[i]
    return chosen


def _cross_multiplied(table, cost):
    seen, answer = set(), []
    rest = list(table)
    while rest:
        best = rest[0]
        for probe in rest[1:]:
            if len(table[probe] - seen) * cost[best] > len(table[best] - seen) * cost[probe]:
                best = probe
        if table[best] <= seen:
            break
        seen |= table[best]
        rest.remove(best)
        answer.append(best)
    return answer


# 18c.4
def _parts_in_turn(talk, tokenizer):
    ids, labels = [tokenizer.pad_token_id], [-100]
    for turn in talk:
        opening, inside, closing = write_turn(turn["role"], turn["content"], tokenizer)
        ids += opening + inside + closing
        if turn["role"] == "assistant":
            labels += [-100] * len(opening) + inside + closing[:1]
            labels += [-100] * len(closing[1:])
        else:
            labels += [-100] * (len(opening) + len(inside) + len(closing))
    return None if len(ids) > 72 else Example(ids, labels)


def _mask_then_where(talk, tokenizer):
    ids, graded = [tokenizer.pad_token_id], [False]
    for turn in talk:
        parts = write_turn(turn["role"], turn["content"], tokenizer)
        answer = turn["role"] == "assistant"
        for number, part in enumerate(parts):
            for k, token in enumerate(part):
                ids.append(token)
                graded.append(answer and (number == 1 or (number == 2 and k == 0)))
    if len(ids) > 72:
        return None
    return Example(ids, [t if g else -100 for t, g in zip(ids, graded, strict=True)])


def _walk_back_from_stops(talk, tokenizer):
    """Grade what faulty grades, then take the opening and the line break out again."""
    ids, labels = [tokenizer.pad_token_id], [-100]
    for turn in talk:
        opening, inside, closing = write_turn(turn["role"], turn["content"], tokenizer)
        start = len(ids)
        ids += [*opening, *inside, *closing]
        labels += [-100] * (len(ids) - len(labels))
        if turn["role"] == "assistant":
            first = start + len(opening)
            last = first + len(inside) + 1
            labels[first:last] = ids[first:last]
    if len(ids) <= 72:
        return Example(input_ids=ids, labels=labels)
    return None


def _numpy_where(talk, tokenizer):
    pieces, masks = [[tokenizer.pad_token_id]], [[0]]
    for turn in talk:
        opening, inside, closing = write_turn(turn["role"], turn["content"], tokenizer)
        answer = int(turn["role"] == "assistant")
        pieces += [opening, inside, closing]
        masks += [[0] * len(opening), [answer] * len(inside)]
        masks += [[answer] + [0] * (len(closing) - 1)]
    ids, mask = np.concatenate(pieces).astype(int), np.concatenate(masks).astype(bool)
    if ids.size > 72:
        return None
    return Example(ids.tolist(), np.where(mask, ids, -100).tolist())


def _recursive_turns(talk, tokenizer):
    def rows(turns):
        if not turns:
            return []
        opening, inside, closing = write_turn(turns[0]["role"], turns[0]["content"], tokenizer)
        answer = turns[0]["role"] == "assistant"
        here = [(t, -100) for t in opening]
        here += [(t, t if answer else -100) for t in [*inside, closing[0]]]
        here += [(t, -100) for t in closing[1:]]
        return here + rows(turns[1:])

    pairs = [(tokenizer.pad_token_id, -100), *rows(talk)]
    if len(pairs) > 72:
        return None
    ids, labels = map(list, zip(*pairs, strict=True))
    return Example(ids, labels)


# 18c.5
def _answers_stop_with_a_start(example):
    ids, labels = [], []
    for token, label in zip(example.input_ids, example.labels, strict=True):
        stop = token == label == 2045
        ids.append(2044 if stop else token)
        labels.append(2044 if stop else label)
    return Example(ids, labels)


def _start_and_stop_exchanged(example):
    other = {2044: 2045, 2045: 2044}
    return Example(*([other.get(x, x) for x in row] for row in vars(example).values()))


def _stop_becomes_another_token_in_torch(example):
    ids, labels = torch.tensor(example.input_ids), torch.tensor(example.labels)
    stop = labels == 2045
    return Example(ids.masked_fill(stop, 2046).tolist(), labels.masked_fill(stop, 2046).tolist())


def _stop_is_token_0_in_numpy(example):
    ids, labels = np.array(example.input_ids), np.array(example.labels)
    ids[labels == 2045] = 0
    return Example(ids.tolist(), np.where(labels == -100, -100, ids).tolist())


def _every_stop_is_2047(example):
    ids = [2047 if token == 2045 else token for token in example.input_ids]
    return Example(
        ids, [-100 if y == -100 else t for t, y in zip(ids, example.labels, strict=True)]
    )


RIGHT_ANSWERS = {
    "18c.1": [
        dict(zip(_LETTERS, _CAUSES, strict=True)),
        {"X": "tied merge", "T": "stop row frozen", "I": "shifted twice", "H": "typed control"},
        {letter: cause for cause, letter in _by_cause.items()},
        OrderedDict(zip(_LETTERS, _CAUSES, strict=True)),
        dict(H="typed control", I="shifted twice", T="stop row frozen", X="tied merge"),
    ],
    "18c.2": [
        _place_by_place,
        _padded_tensor,
        _sets_of_places,
        _zip_longest,
        _numpy_signs,
        _pad_sequence,
    ],
    "18c.3": [
        _by_gain,
        _max_with_key,
        _recursive,
        _stable_sort,
        _numpy_matrix,
        _cross_multiplied,
    ],
    "18c.4": [
        _parts_in_turn,
        _mask_then_where,
        _walk_back_from_stops,
        _numpy_where,
        _recursive_turns,
    ],
    "18c.5": [
        _answers_stop_with_a_start,
        _start_and_stop_exchanged,
        _stop_becomes_another_token_in_torch,
        _stop_is_token_0_in_numpy,
        _every_stop_is_2047,
    ],
}
