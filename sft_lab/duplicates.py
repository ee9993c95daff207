"""Station "read": near-duplicates in a data set, and exam questions that stand in a tuning set.

Two texts are compared by their shingles, the runs of n words that stand in them (derived in chapter
11). Every pair that shares one is found through an index, so the result is exact: what MinHash
estimates for billions of texts is counted here.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sft_lab.arguments import real_number, whole_number

# a Chinese character is a word: their texts have no spaces
WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
SHINGLE_WORDS = 3


class Pair(NamedTuple):
    """Two near-duplicates: their places, and the Jaccard similarity of their shingles."""

    first: int
    second: int
    similarity: float


def words(text: str) -> list[str]:
    """The words of a text, without case and punctuation; a Chinese character is a word."""
    return WORD.findall(unicodedata.normalize("NFC", text).casefold())


def shingles(text: str, n: int = SHINGLE_WORDS) -> frozenset[tuple[str, ...]]:
    """All runs of n words. A text of fewer words is one run, all of it; one without words has
    none."""
    n = whole_number("n", n)
    found = words(text)
    if not found:
        return frozenset()
    return frozenset(tuple(found[i : i + n]) for i in range(max(1, len(found) - n + 1)))


def jaccard(first: frozenset, second: frozenset) -> float:
    """The share of all shingles of two texts that both have; 0.0 when neither has any."""
    together = len(first | second)
    return len(first & second) / together if together else 0.0


def near_duplicates(
    texts: Sequence[str],
    others: Sequence[str] | None = None,
    *,
    threshold: float = 0.5,
    n: int = SHINGLE_WORDS,
) -> list[Pair]:
    """Every pair whose similarity is at least `threshold`, the most similar first.

    Pairs within `texts`, each once with first < second; with `others`, pairs of a text and one of
    the others. threshold: above 0, for pairs that share nothing are not looked at. The same pairs
    as from `jaccard` on all of them, in time that grows with what is shared.
    """
    threshold = real_number("threshold", threshold, above=0, most=1)
    left = [shingles(text, n) for text in texts]
    right = left if others is None else [shingles(text, n) for text in others]
    index: dict[tuple[str, ...], list[int]] = {}
    for place, found in enumerate(right):
        for shingle in found:
            index.setdefault(shingle, []).append(place)
    holders = {shingle: np.array(places) for shingle, places in index.items()}
    sizes = np.array([len(found) for found in right])
    pairs = []
    for first, found in enumerate(left):
        candidates = [holders[shingle] for shingle in found if shingle in holders]
        if not candidates:
            continue
        shared = np.bincount(np.concatenate(candidates), minlength=len(right))
        similarity = shared / np.maximum(1, len(found) + sizes - shared)
        for second in np.flatnonzero((similarity >= threshold) & (shared > 0)).tolist():
            if others is not None or first < second:
                pairs.append(Pair(first, second, float(similarity[second])))
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))
