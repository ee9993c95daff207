"""Wrong answers to the exercises of chapter 09, written from the statements alone."""

import difflib
import random
import re
import unicodedata

import numpy as np


# 9.1
def _after(change, same=lambda a, b: a == b):
    return lambda answer, reference: same(change(answer), change(reference))


def _bare(text):
    return " ".join(text.split()).rstrip(" .")


def _as_number(answer, reference):
    try:
        return float(_bare(answer)) == float(_bare(reference))
    except ValueError:
        return _bare(answer) == _bare(reference)


# 9.6
def _blind(make_key, show=lambda pair, swap: pair[::-1] if swap else pair):
    """The right answer with other coins, or shown in another way."""

    def answer(pairs, seed):
        key = make_key(len(pairs), seed, pairs)
        return [show(pair, swap) for pair, swap in zip(pairs, key, strict=False)], list(key)

    return answer


def _coins(n, seed, pairs=None):
    rng = random.Random(seed)
    return [rng.random() < 0.5 for _ in range(n)]


def _half_of_them(n, seed, pairs):
    chosen = set(random.Random(seed).sample(range(n), n // 2))
    return [i in chosen for i in range(n)]


def _in_turn(n, seed, pairs):
    first = random.Random(seed).random() < 0.5
    return [bool((i + first) % 2) for i in range(n)]


def _opposite_neighbours(n, seed, pairs):
    coins = _coins(n, seed)
    return [not coins[i - 1] if i % 2 else coins[i] for i in range(n)]


def _sticky(n, seed, pairs):
    rng = random.Random(seed)
    key = [rng.random() < 0.5]
    while len(key) < n:
        key.append(key[-1] if rng.random() < 0.9 else not key[-1])
    return key


def _by_pair(n, seed, pairs):
    rng, coins = random.Random(seed), {}
    return [coins.setdefault(pair, rng.random() < 0.5) for pair in pairs]


def _swapped_in_place(pairs, seed):
    key = _coins(len(pairs), seed)
    for i, swap in enumerate(key):
        if swap:
            pairs[i] = pairs[i][::-1]
    return pairs, key


def _also_in_place(pairs, seed):
    key = _coins(len(pairs), seed)
    shown = [pair[::-1] if swap else pair for pair, swap in zip(pairs, key, strict=False)]
    pairs[:] = shown
    return list(shown), key


def _shuffled(pairs, seed):
    rng, key = random.Random(seed), _coins(len(pairs), seed)
    shown = [pair[::-1] if swap else pair for pair, swap in zip(pairs, key, strict=False)]
    places = rng.sample(range(len(pairs)), len(pairs))
    return [shown[i] for i in places], [key[i] for i in places]


def _shuffled_input(pairs, seed):
    rng = random.Random(seed)
    rng.shuffle(pairs)
    return _blind(_coins)(pairs, seed)


OTHER_WRONG_ANSWERS = {
    "9.1": [
        lambda answer, reference: answer == reference,
        lambda answer, reference: _bare(answer) == reference,
        lambda answer, reference: answer == _bare(reference),
        lambda answer, reference: _bare(answer).startswith(_bare(reference)),
        lambda answer, reference: _bare(reference).startswith(_bare(answer)),
        lambda answer, reference: _bare(reference) in _bare(answer),
        lambda answer, reference: _bare(reference) in _bare(answer).split("."),
        lambda answer, reference: re.match(re.escape(_bare(reference)), _bare(answer)),
        lambda answer, reference: set(_bare(answer).split()) == set(_bare(reference).split()),
        lambda answer, reference: sorted(_bare(answer).split()) == sorted(_bare(reference).split()),
        lambda answer, reference: (
            difflib.SequenceMatcher(None, _bare(answer), _bare(reference)).ratio() > 0.9
        ),
        lambda answer, reference: _bare(answer).split(".")[0] == _bare(reference).split(".")[0],
        lambda answer, reference: _bare(answer)[: len(_bare(reference))] == _bare(reference),
        _after(lambda text: _bare(text).lower()),
        _after(lambda text: _bare(text).casefold()),
        _after(lambda text: _bare(text).capitalize()),
        _after(lambda text: _bare(text)[:1].lower() + _bare(text)[1:]),
        _after(lambda text: text.strip()),
        _after(lambda text: text.strip().rstrip(".")),
        _after(lambda text: text.strip(" .\n\t")),
        _after(lambda text: " ".join(text.split())),
        _after(lambda text: " ".join(text.split()).removesuffix(".")),
        _after(lambda text: " ".join(text.rstrip(".").split())),
        _after(lambda text: re.sub(" +", " ", text).strip(" ").rstrip(" .")),
        _after(lambda text: text.replace("  ", " ").strip().rstrip(" .")),
        _after(lambda text: "".join(text.split()).rstrip(".")),
        _after(lambda text: " ".join(text.split()).strip(" .")),
        _after(lambda text: " ".join(text.split()).rstrip(" .!?")),
        _after(lambda text: " ".join(text.split()).rstrip(" .,;:")),
        _after(lambda text: " ".join(text.replace(".", "").split())),
        _after(lambda text: " ".join(text.replace(".", " ").split())),
        _after(lambda text: " ".join(re.sub(r"[^\w\s]", "", text).split())),
        _after(lambda text: " ".join(re.sub(r"[^\w\s.]", "", text).split()).rstrip(" .")),
        _after(lambda text: " ".join(word.rstrip(".") for word in text.split()).rstrip()),
        _after(lambda text: re.sub(r"\b(the|a|an) ", "", _bare(text))),
        _after(lambda text: unicodedata.normalize("NFKC", _bare(text))),
        _after(lambda text: _bare(text).encode("ascii", "ignore")),
        _after(lambda text: _bare(text).split()[-1:]),
        _after(lambda text: _bare(text).split()[:1]),
        _after(lambda text: _bare(text.splitlines()[0] if text.strip() else "")),
        _after(lambda text: len(_bare(text))),
        _as_number,
    ],
    "9.6": [
        _blind(lambda n, seed, pairs: [random.Random(seed).random() < 0.5 for _ in pairs]),
        _blind(lambda n, seed, pairs: [i % 2 == 1 for i in range(n)]),
        _blind(lambda n, seed, pairs: [True] * n),
        _blind(lambda n, seed, pairs: [False] * n),
        _blind(lambda n, seed, pairs: _coins(n, 0)),
        _blind(lambda n, seed, pairs: [random.SystemRandom().random() < 0.5 for _ in pairs]),
        _blind(lambda n, seed, pairs: [False, *_coins(n - 1, seed)]),
        _blind(lambda n, seed, pairs: [x < 0.25 for x in np.random.default_rng(seed).random(n)]),
        _blind(lambda n, seed, pairs: [x < 0.8 for x in np.random.default_rng(seed).random(n)]),
        _blind(lambda n, seed, pairs: [len(a) > len(b) for a, b in pairs]),
        _blind(lambda n, seed, pairs: [a > b for a, b in pairs]),
        _blind(lambda n, seed, pairs: [int(coin) for coin in _coins(n, seed)]),
        _blind(lambda n, seed, pairs: [float(coin) for coin in _coins(n, seed)]),
        _blind(lambda n, seed, pairs: ["swapped" if coin else "" for coin in _coins(n, seed)]),
        _blind(_half_of_them),
        _blind(_in_turn),
        _blind(_opposite_neighbours),
        _blind(_sticky),
        _blind(_by_pair),
        _blind(_coins, lambda pair, swap: pair if swap else pair[::-1]),
        _blind(_coins, lambda pair, swap: pair),
        _blind(_coins, lambda pair, swap: pair[::-1]),
        _blind(_coins, lambda pair, swap: list(pair[::-1] if swap else pair)),
        _blind(_coins, lambda pair, swap: " | ".join(pair[::-1] if swap else pair)),
        _blind(_coins, lambda pair, swap: (pair[1], pair[1]) if swap else pair),
        lambda pairs, seed: (_blind(_coins)(pairs, seed)[0][::-1], _coins(len(pairs), seed)),
        lambda pairs, seed: (_blind(_coins)(pairs, seed)[0], _coins(len(pairs), seed)[::-1]),
        lambda pairs, seed: (_blind(_coins)(pairs, seed)[0], _coins(len(pairs), seed + 1)),
        lambda pairs, seed: _blind(_coins)(pairs, seed)[0],
        lambda pairs, seed: _blind(_coins)(pairs, seed)[::-1],
        lambda pairs, seed: (iter(_blind(_coins)(pairs, seed)[0]), _coins(len(pairs), seed)),
        _swapped_in_place,
        _also_in_place,
        _shuffled,
        _shuffled_input,
    ],
}
