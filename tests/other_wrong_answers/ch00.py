"""Wrong answers to the exercises of chapter 00, written from the statements alone."""


import torch

IGNORE_INDEX = -100


def share_empties_the_list(labels):
    size = len(labels)
    while IGNORE_INDEX in labels:
        labels.remove(IGNORE_INDEX)
    return len(labels) / size


def share_sorts_in_place(labels):
    labels.sort()
    return sum(label != IGNORE_INDEX for label in labels) / len(labels)


def share_stops_at_the_last_graded(labels):
    while labels[-1] == IGNORE_INDEX:
        labels = labels[:-1]
    return sum(label != IGNORE_INDEX for label in labels) / len(labels)


def share_after_the_first_graded(labels):
    """Takes everything after the prompt for graded."""
    first = next(i for i, label in enumerate(labels) if label != IGNORE_INDEX)
    return (len(labels) - first) / len(labels)


OTHER_WRONG_ANSWERS = {
    "0.1": [
        lambda labels: sum(label != 0 for label in labels) / len(labels),
        lambda labels: sum(label > 0 for label in labels) / len(labels),
        lambda labels: sum(label == IGNORE_INDEX for label in labels) / len(labels),
        lambda labels: 100 * sum(label != IGNORE_INDEX for label in labels) / len(labels),
        lambda labels: sum(label != IGNORE_INDEX for label in labels),
        lambda labels: sum(label != IGNORE_INDEX for label in labels) // len(labels),
        lambda labels: len(set(labels) - {IGNORE_INDEX}) / len(labels),
        lambda labels: round(sum(label != IGNORE_INDEX for label in labels) / len(labels), 2),
        lambda labels: sum(label != -1 for label in labels) / len(labels),
        lambda labels: sum(label != IGNORE_INDEX for label in labels[1:]) / (len(labels) - 1),
        lambda labels: sum(label != IGNORE_INDEX for label in labels) / (len(labels) - 1),
        lambda labels: (torch.tensor(labels) != IGNORE_INDEX).float().mean(),
        lambda labels: f"{sum(label != IGNORE_INDEX for label in labels) / len(labels)}",
        lambda labels: labels.count(labels[-1]) / len(labels),
        lambda labels: sum(bool(label) and label != IGNORE_INDEX for label in labels) / len(labels),
        lambda labels: (len(labels) - labels.count(-100)) / max(1, labels.count(-100)),
        share_empties_the_list,
        share_sorts_in_place,
        share_stops_at_the_last_graded,
        share_after_the_first_graded,
        lambda labels: 0.5,
        lambda labels: (sum(label != IGNORE_INDEX for label in labels) - 1) / len(labels),
    ],
    "0.3": [
        {"a": 1, "b": 5, "c": 2, "d": 1},
        {"a": 4, "b": 5, "c": 2, "d": 1},
        {"a": 2, "b": 4, "c": 2, "d": 1},
        {"a": 2, "b": 3, "c": 2, "d": 1},
        {"a": 2, "b": 5, "c": 4, "d": 1},
        {"a": 2, "b": 5, "c": 1, "d": 1},
        {"a": 2, "b": 5, "c": 2, "d": 3},
        {"a": 2, "b": 5, "c": 2, "d": 5},
        {"a": 2, "b": 5, "c": 2},
        {"a": 1, "b": 4, "c": 1, "d": 0},
        {"a": [2], "b": [5], "c": [2], "d": [1]},
        {2: "a", 5: "b", 1: "d"},
        {"a": 2, "b": 5, "c": 2, "d": 1, "e": 3},
        {"a": 3, "b": 3, "c": 3, "d": 3},
        {"a": True, "b": 5, "c": 2, "d": 1},
        {"a", "b", "c", "d"},
        [1, 5, 2, 2],
        2,
        {},
        {"a": "stop", "b": 5, "c": 2, "d": 1},
        {"a": "1", "b": "5", "c": "2", "d": "1"},
        {"a": "update", "b": "mask", "c": "mask", "d": "tokenise"},
    ],
}
