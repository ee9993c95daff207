"""Right answers to the exercises of chapter 00, in different styles."""

import statistics
from collections import Counter, OrderedDict
from fractions import Fraction

import numpy as np
import torch

from sft_lab.labels import IGNORE_INDEX


def share_by_loop(labels):
    graded = 0
    for label in labels:
        if label != IGNORE_INDEX:
            graded += 1
    return graded / len(labels)


def share_by_numpy(labels):
    return np.mean(np.array(labels) != IGNORE_INDEX)


def share_by_torch(labels):
    return (torch.tensor(labels) != -100).float().mean().item()


def share_by_count(labels):
    return 1 - labels.count(-100) / len(labels)


def share_by_counter(labels):
    return float(1 - Fraction(Counter(labels)[IGNORE_INDEX], len(labels)))


def share_by_filter(labels):
    return len([label for label in labels if label != -100]) / len(labels)


RIGHT_ANSWERS = {
    "0.1": [
        share_by_loop,
        share_by_numpy,
        share_by_torch,
        share_by_count,
        share_by_counter,
        share_by_filter,
        lambda labels: statistics.mean(label != -100 for label in labels),
    ],
    "0.3": [
        {"a": 2, "b": 5, "c": 2, "d": 1},
        dict(d=1, c=2, b=5, a=2),
        dict(zip("abcd", (2, 5, 2, 1), strict=True)),
        OrderedDict(a=2, b=5, c=2, d=1),
        {"a": "2", "b": "5", "c": "2", "d": "1"},
        {"a": "mask", "b": "update", "c": "mask", "d": "tokenise"},
        {"a": "2 mask", "b": "5 update", "c": "2 mask", "d": "1 tokenise"},
        [2, 5, 2, 1],
        (2, 5, 2, 1),
        {letter: np.int64(step) for letter, step in zip("abcd", (2, 5, 2, 1), strict=True)},
    ],
}
