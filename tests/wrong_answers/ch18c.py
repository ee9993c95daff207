"""Wrong answers to the exercises of chapter 18c, each with what its reader is told."""

import torch

from sft_lab.course.zoo import encode, write_turn
from sft_lab.examples import Example

GOOD_NAMES = {
    "H": "typed control",
    "I": "shifted twice",
    "T": "stop row frozen",
    "X": "tied merge",
}


def _totals(examples, labels):
    before = sum(label != -100 for example in examples for label in example.labels)
    after = int((labels != -100).sum())
    return max(0, before - after), max(0, after - before)


def _pairs(examples, labels):
    """(label in the example, label in the batch, place) up to the end of each example."""
    for example, row in zip(examples, labels.tolist(), strict=True):
        yield from zip(example.labels, row, range(len(row)), strict=False)


def _inside(examples, labels):
    pairs = [(a != -100, b != -100) for a, b, _ in _pairs(examples, labels)]
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def _padded(examples, labels):
    for example, row in zip(examples, labels.tolist(), strict=True):
        filled = [*example.labels, *[-100] * (len(row) - len(example.labels))]
        yield from zip(filled, row, range(len(row)), strict=True)


def _lost_added(pairs):
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def _all_places(examples, labels):
    return _lost_added([(a != -100, b != -100) for a, b, _ in _padded(examples, labels)])


def _swapped(examples, labels):
    return _all_places(examples, labels)[::-1]


def _without_first(examples, labels):
    return _lost_added([(a != -100, b != -100) for a, b, t in _padded(examples, labels) if t])


def _positive(examples, labels):
    return _lost_added([(a > 0, b > 0) for a, b, _ in _padded(examples, labels)])


def _share(examples, labels):
    lost, added = _all_places(examples, labels)
    return lost / labels.numel() + 0.01, added / labels.numel() + 0.01


def _greedy(gain, last=False, stop=True):
    def answer(table, cost):
        chosen, seen = [], set()
        while len(chosen) < len(table):
            rest = [name for name in table if name not in chosen]
            if last:
                rest.reverse()
            best = max(rest, key=lambda name: gain(table[name], seen, cost[name]))
            if stop and not table[best] - seen:
                new = [name for name in rest if table[name] - seen]
                if not new:
                    break
                best = max(new, key=lambda name: gain(table[name], seen, cost[name]))
            chosen.append(best)
            seen |= table[best]
        return chosen

    return answer


def _once(table, cost):
    chosen, seen = [], set()
    for name in sorted(table, key=lambda name: -len(table[name]) / cost[name]):
        if table[name] - seen:
            chosen.append(name)
            seen |= table[name]
    return chosen


def _labelled(change):
    """The healthy encoding, with labels changed by `change`."""

    def answer(talk, tokenizer):
        example = encode(talk, tokenizer, write_turn)
        if example is None:
            return None
        return Example(example.input_ids, change(example.input_ids, list(example.labels)))

    return answer


def _without_stop(ids, labels):
    return [-100 if label == 2045 else label for label in labels]


def _with_opening(ids, labels):
    starts = [t for t in range(1, len(ids)) if labels[t] != -100 and labels[t - 1] == -100]
    return [ids[t] if t + 1 in starts else label for t, label in enumerate(labels)]


def _late(ids, labels):
    return [
        -100 if labels[t] != -100 and labels[t - 1] == -100 else labels[t] for t in range(len(ids))
    ]


def _cut(talk, tokenizer):
    whole = encode(talk, tokenizer, write_turn, 10**6)
    return Example(whole.input_ids[:72], whole.labels[:72])


def _broken(change):
    def answer(example):
        ids, labels = change(list(example.input_ids), list(example.labels))
        return Example(ids, labels)

    return answer


WRONG_ANSWERS = {
    "18c.1": [
        ({**GOOD_NAMES, "X": "no mask in batch"}, "contradicts you"),
        ({**GOOD_NAMES, "I": "no mask"}, "I is not 'no mask'"),
        ({**GOOD_NAMES, "T": "stop = pad"}, "T is not 'stop = pad'"),
        ({**GOOD_NAMES, "H": "decoy: slow"}, "contradicts you"),
        ({**GOOD_NAMES, "H": "a virus"}, "no name of the list"),
        ({"H": "typed control"}, "expected a dict"),
    ],
    "18c.2": [
        (_totals, "lost and added cancel"),
        (_inside, "padding behind an example"),
        (_swapped, "the two are exchanged"),
        (_without_first, "the first place is left out"),
        (_positive, "token 0 is taken for nothing"),
        (_share, "a whole number"),
        (lambda examples, labels: sum(_all_places(examples, labels)), "return two things"),
    ],
    "18c.3": [
        (_greedy(lambda bugs, seen, price: len(bugs - seen)), "the cost is left out"),
        (_greedy(lambda bugs, seen, price: len(bugs) / price), "seen before count again"),
        (_once, "seen before count again"),
        (_greedy(lambda bugs, seen, price: len(bugs - seen) / price, last=True), "stands first"),
        (_greedy(lambda bugs, seen, price: -price), "the cheapest is chosen"),
        (
            _greedy(lambda bugs, seen, price: len(bugs - seen) / price, stop=False),
            "no probe sees anything new",
        ),
        (lambda table, cost: list(table), "the order"),
    ],
    "18c.4": [
        (_labelled(_without_stop), "the stop token of an answer is not graded"),
        (_labelled(_with_opening), "what is no answer is graded"),
        (_labelled(_late), "a part of an answer is not graded"),
        (_labelled(lambda ids, labels: list(ids)), "what is no answer is graded"),
        (_labelled(lambda ids, labels: [*labels[1:], -100]), "neither -100 nor the id"),
        (_cut, "is to be left out"),
        (
            lambda talk, tokenizer: encode(talk, tokenizer, write_turn).input_ids,
            "return an Example",
        ),
    ],
    "18c.5": [
        (_broken(lambda ids, labels: (ids, labels)), "nothing is broken"),
        (_broken(lambda ids, labels: (ids, list(ids))), "the curve sees it"),
        (_broken(lambda ids, labels: (ids, _without_stop(ids, labels))), "the curve sees it"),
        (_broken(lambda ids, labels: (ids, [-100] * len(ids))), "the curve sees it"),
        (_broken(lambda ids, labels: (ids, labels[1:])), " ids and "),
        (lambda example: torch.tensor(example.input_ids), "return an Example"),
    ],
}
