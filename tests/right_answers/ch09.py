"""Right answers to the exercises of chapter 09, each in another style; written from the statements
alone."""

import random
import re

import numpy as np
import torch


# 9.1
def _word_by_word(answer, reference):
    sides = []
    for text in (answer, reference):
        words = text.split()
        while words and not words[-1].rstrip("."):
            words.pop()
        if words:
            words[-1] = words[-1].rstrip(".")
        sides.append(words)
    return sides[0] == sides[1]


def _one_character_at_a_time(answer, reference):
    def bare(text):
        text = " ".join(text.split())
        while text and text[-1] in ". ":
            text = text[:-1]
        return text

    return bare(answer) == bare(reference)


def _by_pattern(answer, reference):
    def bare(text):
        return re.sub(r"[\s.]+$", "", re.sub(r"\s+", " ", text).strip())

    return bare(answer) == bare(reference)


# 9.6
def _loop_of_coins(pairs, seed):
    rng, shown, key = random.Random(seed), [], []
    for first, second in pairs:
        swap = rng.random() < 0.5
        shown.append((second, first) if swap else (first, second))
        key.append(swap)
    return shown, key


def _numpy_coins(pairs, seed):
    key = np.random.default_rng(seed).integers(2, size=len(pairs)).astype(bool).tolist()
    return [pair[::-1] if swap else pair for pair, swap in zip(pairs, key, strict=False)], key


def _torch_coins(pairs, seed):
    coins = torch.rand(len(pairs), generator=torch.Generator().manual_seed(seed)) < 0.5
    key = coins.tolist()
    return [(b, a) if key[i] else (a, b) for i, (a, b) in enumerate(pairs)], key


def _bits(pairs, seed):
    rng = random.Random(seed)
    key = [bool(rng.getrandbits(1)) for _ in pairs]
    return [tuple(reversed(p)) if k else tuple(p) for p, k in zip(pairs, key, strict=False)], key


def _choices(pairs, seed):
    generator = random.Random(seed)
    shown = list(pairs)
    key = generator.choices([True, False], k=len(pairs))
    for i, swapped in enumerate(key):
        if swapped:
            a, b = shown[i]
            shown[i] = (b, a)
    return shown, key


RIGHT_ANSWERS = {
    "9.1": [
        lambda answer, reference: (
            " ".join(answer.split()).rstrip(" .") == " ".join(reference.split()).rstrip(" .")
        ),
        lambda answer, reference: (
            len({" ".join(text.rstrip(". \n\t\r").split()) for text in (answer, reference)}) == 1
        ),
        _word_by_word,
        _one_character_at_a_time,
        _by_pattern,
    ],
    "9.6": [_loop_of_coins, _numpy_coins, _torch_coins, _bits, _choices],
}
