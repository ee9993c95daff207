"""Wrong answers to the exercises of chapter 03, each with what its reader is told."""

from functools import partial

import torch
import torch.nn.functional as F

IGNORE = -100


def _one_list(prompt, answer):
    ids, steps = list(prompt), []
    for target in answer:
        steps.append((ids, target))
        ids.append(target)
    return steps


def _reads_its_target(prompt, answer):
    return [(prompt + answer[: t + 1], target) for t, target in enumerate(answer)]


def _grades_the_prompt(prompt, answer):
    tokens = prompt + answer
    return [(tokens[:t], target) for t, target in enumerate(tokens)]


def _eats_its_prompt(prompt, answer):
    steps = []
    for target in answer:
        steps.append((list(prompt), target))
        prompt.append(target)
    return steps


def _label(turns, graded, *, header=False, end=None):
    ids, labels = [], []
    for place, (_, opening, said) in enumerate(turns):
        ids += opening + said
        row = (opening if header else [IGNORE] * len(opening)) + said[:end]
        row += [IGNORE] * (len(opening + said) - len(row))
        labels += row if place in graded else [IGNORE] * len(row)
    return ids, labels


def _answers(turns, last_only):
    places = [place for place, (role, _, _) in enumerate(turns) if role == "assistant"]
    return places[-1:] if last_only else places


def _right(turns, last_only):
    return _label(turns, _answers(turns, last_only))


def _grades(policy, **changes):
    """Labels where `policy(turns, last_only)` says which turns are graded."""
    return lambda turns, last_only: _label(turns, policy(turns, last_only), **changes)


def _not_the_system(turns, last_only):
    return [place for place, turn in enumerate(turns) if turn[0] != "system"]


def _everything(turns, last_only):
    return range(len(turns))


def _only_if_it_is_the_last_turn(turns, last_only):
    last = len(turns) - 1
    return [place for place in _answers(turns, False) if not last_only or place == last]


def _first_alone(turns, last_only):
    return _answers(turns, False)[: 1 if last_only else None]


def _relabels(change):
    def answer(turns, last_only):
        ids, labels = _right(turns, last_only)
        return ids, change(labels)

    return answer


def _lengthens_a_header(turns, last_only):
    ids = turns[0][1]
    for _, header, said in turns:
        ids += header + said
    return ids, _right(turns, last_only)[1]


def _nll(logits, labels):
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")


def _mean_of_means(logits, labels):
    graded = (labels[:, 1:] != IGNORE).sum(dim=1)
    return (_nll(logits, labels).sum(dim=1) / graded).mean()


def _shifted_back(logits, labels):
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten())


def _pad(rows, pad, *, label=IGNORE, left=False):
    width = max(len(ids) for ids, _ in rows)
    made = []
    for ids, labels in rows:
        gap = width - len(ids)
        parts = [(ids, [pad] * gap), (labels, [label] * gap), ([1] * len(ids), [0] * gap)]
        made.append([filler + part if left else part + filler for part, filler in parts])
    return tuple(torch.tensor([row[i] for row in made]) for i in range(3))


def _ignore_by_id(rows, pad):
    ids, labels, mask = _pad(rows, pad)
    return ids, labels.masked_fill(ids == pad, IGNORE), mask


def _copy_ids(rows, pad):
    ids, _, mask = _pad(rows, pad)
    return ids, ids.masked_fill(ids == pad, IGNORE), mask


def _mask_by_id(rows, pad):
    ids, labels, _ = _pad(rows, pad)
    return ids, labels, (ids != pad).long()


def _invert_mask(rows, pad):
    ids, labels, mask = _pad(rows, pad)
    return ids, labels, 1 - mask


def _mask_of_ones(rows, pad):
    ids, labels, mask = _pad(rows, pad)
    return ids, labels, torch.ones_like(mask)


def _mask_graded(rows, pad):
    ids, labels, _ = _pad(rows, pad)
    return ids, labels, (labels != IGNORE).long()


def _lengthens_its_input(rows, pad):
    made = _pad(rows, pad)
    for ids, _ in rows:
        ids += [pad] * (made[0].shape[1] - len(ids))
    return made


def _pack(rows, *, first=IGNORE, start=0, restart=True, between=()):
    ids, labels, positions = [], [], []
    for row, graded in rows:
        ids += [*row, *between]
        labels += [graded[0] if first is None else first, *graded[1:], *(IGNORE for _ in between)]
        begin = start if restart else len(positions)
        positions += range(begin, begin + len(row) + len(between))
    return tuple(torch.tensor([values]) for values in (ids, labels, positions))


def _numbers_examples(rows):
    ids, labels, _ = _pack(rows)
    numbers = [number for number, (row, _) in enumerate(rows) for _ in row]
    return ids, labels, torch.tensor([numbers])


def _overwrites_first_labels(rows):
    for _, labels in rows:
        labels[0] = IGNORE
    return _pack(rows)


def _log_of_softmax(logits, labels):
    graded = labels[:, 1:] != IGNORE
    targets = labels[:, 1:][graded]
    return -logits[:, :-1][graded].softmax(-1).log()[range(len(targets)), targets].mean()


def _keep(choose):
    """Labels of the tokens whose place `choose(place, first, last)` names; first and last: of the
    answer."""

    def answer(ids, labels):
        graded = [place for place, label in enumerate(labels) if label != IGNORE]
        return [
            token if choose(place, graded[0], graded[-1]) else IGNORE
            for place, token in enumerate(ids)
        ]

    return answer


def _loses_its_labels(ids, labels):
    labels[-1] = ids[-1]
    return labels


WRONG_ANSWERS = {
    "3.1": [
        (_reads_its_target, "the target stands in its own input"),
        (lambda p, a: [(a[:t], y) for t, y in enumerate(a)], "the prompt is missing"),
        (lambda p, a: [(p, y) for y in a], "the prompt alone"),
        (_one_list, "if you append to one list"),
        (_eats_its_prompt, "changed `prompt` in place"),
        (lambda p, a: [(p + a[:t], a[t]) for t in range(1, len(a))], "the first step is missing"),
        (lambda p, a: [(p + a[:t], a[t]) for t in range(len(a) - 1)], "the last step is missing"),
        (_grades_the_prompt, "the prompt's own tokens are not graded"),
        (lambda p, a: a, "a list of pairs"),
    ],
    "3.2": [
        (_grades(_answers, header=True), "the header is graded"),
        (_grades(_answers, end=-1), "the stop token is not graded"),
        (_grades(_not_the_system), "the questions are graded too"),
        (_grades(_everything, header=True), "everything is graded"),
        (_grades(lambda turns, last: _answers(turns, False)), "grades the last answer alone"),
        (_grades(lambda turns, last: _answers(turns, True)), "last_only=False grades every answer"),
        (_grades(_only_if_it_is_the_last_turn), "need not be the last turn"),
        (_grades(_first_alone), "this is the first answer"),
        (_relabels(lambda labels: labels[1:] + [IGNORE]), "the labels are shifted"),
        (_relabels(lambda labels: [int(x != IGNORE) for x in labels]), "a mask of 0 and 1"),
        (_relabels(lambda labels: [max(x, 0) for x in labels]), "0 is a token"),
        (_relabels(lambda labels: labels[:-1]), "one label for each token"),
        (_lengthens_a_header, "changed `turns` in place"),
    ],
    "3.3": [
        (lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten()), "the shift is missing"),
        (_shifted_back, "the shift goes the wrong way"),
        (lambda z, y: _nll(z, y).sum(), "this is the sum"),
        (lambda z, y: _nll(z, y).mean(), "you divided by all positions"),
        (lambda z, y: _nll(z, y).sum() / y.numel(), "you divided by all positions"),
        (lambda z, y: _nll(z, y).sum() / len(y), "the number of rows"),
        (_mean_of_means, "the mean of each row's mean"),
        (lambda z, y: _nll(z, y)[y[:, 1:] > 0].mean(), "token id 0 is a real token"),
        (lambda z, y: -_nll(z, y)[y[:, 1:] != IGNORE].mean(), "the minus sign is missing"),
        (
            lambda z, y: _nll(z, y)[y[:, 1:] != IGNORE].mean().item(),
            "is a float, expected a tensor",
        ),
        (lambda z, y: _nll(z, y)[y[:, 1:] != IGNORE].mean().detach(), "no gradient flows"),
        (_log_of_softmax, "take log_softmax"),
    ],
    "3.4": [
        (lambda rows, pad: _pad(rows, pad, label=pad), "the padding is graded"),
        (partial(_pad, label=0), "graded as token 0"),
        (_ignore_by_id, "the stop tokens lost their labels"),
        (_copy_ids, "the prompts are graded"),
        (_mask_by_id, "the mask hides stop tokens"),
        (_invert_mask, "the mask is inverted"),
        (_mask_graded, "attention reads the prompt too"),
        (_mask_of_ones, "1 everywhere"),
        (partial(_pad, left=True), "padding stands on the left"),
        (lambda *x: tuple(F.pad(part, (0, 2)) for part in _pad(*x)), "input_ids has shape"),
        (_lengthens_its_input, "changed `rows` in place"),
    ],
    "3.5": [
        (partial(_pack, restart=False), "the positions run on"),
        (partial(_pack, start=1), "positions begin at 0"),
        (_numbers_examples, "the numbers of the examples"),
        (partial(_pack, first=None), "a first label is kept"),
        (partial(_pack, between=(7,)), "no separator"),
        (lambda rows: tuple(x[0] for x in _pack(rows)), "one row of a batch"),
        (_overwrites_first_labels, "changed `rows` in place"),
    ],
    "3.6": [
        (lambda ids, labels: labels, "are answered rightly"),
        (_keep(lambda place, first, last: True), "expected at most 0.1: grade less"),
        (_keep(lambda place, first, last: place == last), "expected at most 0.1: grade less"),
        (_keep(lambda place, first, last: first <= place < last), "are answered rightly"),
        (_keep(lambda place, first, last: False), "a row has no graded token"),
        (_keep(lambda place, first, last: place == 0), "a row has no graded token"),
        (lambda ids, labels: [1] * len(ids), "the token's own id or -100"),
        (lambda ids, labels: [*labels[1:], IGNORE], "the token's own id or -100"),
        (lambda ids, labels: labels[:-1], "one label for each token"),
        (_loses_its_labels, "changed `labels` in place"),
    ],
}
