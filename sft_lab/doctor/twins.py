"""Station "doctor": near-duplicates among a hundred thousand texts, in seconds.

`sft_lab.duplicates` compares every pair that shares a run of three words, in Python sets. Here the
same runs are whole numbers in arrays: three word numbers of 21 bits in one of 63, so two runs are
equal when their numbers are (of more than 2 million different words, numbers are hashed). Which
pairs are looked at is settled as in a set similarity join: two texts with a similarity of at least
t share one of the rarest (1 - t) of their runs (Chaudhuri et al. 2006's prefix filter). The
similarity of each pair is then counted exactly. Of a run that more than 17 texts share, each text
is paired with the next 16 alone: so what is found is a twin, but with thousands of texts from one
template some twin may be missed.
"""

from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sft_lab.duplicates import SHINGLE_WORDS, words

BITS = 21
NEIGHBOURS = 16
MOST_PAIRS = 400_000  # of a data set; counted exactly in about ten seconds
MIXER = np.uint64(0x9E3779B97F4A7C15)
LEAST_RUNS = 4  # a shorter text has too little to be nearly the same


class Runs(NamedTuple):
    """The runs of three words of many texts. sizes: how many different ones each text has; text,
    run: the two columns of all (text, run) pairs, sorted; counts: in how many texts each run
    stands."""

    sizes: np.ndarray
    text: np.ndarray
    run: np.ndarray
    counts: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """Where each text's pairs begin; one more at the end."""
        return np.concatenate([[0], np.cumsum(self.sizes)])


def find_runs(texts: Iterable[str]) -> Runs:
    """The runs of all texts. A text of fewer than three words has none."""
    vocabulary: dict[str, int] = {}
    ids, lengths = array("i"), array("i")
    for text in texts:
        found = words(text)
        ids.extend([vocabulary.setdefault(word, len(vocabulary)) for word in found])
        lengths.append(len(found))
    total = len(lengths)
    word = np.array(ids, dtype=np.uint64)
    text = np.repeat(np.arange(total, dtype=np.int32), np.array(lengths, dtype=np.int64))
    last = SHINGLE_WORDS - 1
    whole = text[:-last] == text[last:]
    hashed = len(vocabulary) >= 1 << BITS
    code = np.zeros(len(whole), dtype=np.uint64)
    for k in range(SHINGLE_WORDS):
        if hashed:  # a multiplication that overflows mixes well enough
            code = (code ^ word[k : k + len(code)]) * MIXER
        else:
            code = code << np.uint64(BITS) | word[k : k + len(code)]
    del word
    code = code[whole]
    text = text[:-last][whole]
    different, run = np.unique(code, return_inverse=True)
    del code
    both = np.unique(text.astype(np.int64) * max(1, len(different)) + run)
    text, run = np.divmod(both, max(1, len(different)))
    text, run = text.astype(np.int32), run.astype(np.int32)
    counts = np.bincount(run, minlength=len(different))
    return Runs(np.bincount(text, minlength=total), text, run, counts)


def find_twins(runs: Runs, threshold: float) -> dict[int, int]:
    """For each text that has a near-duplicate, one of those: its place."""
    text, run = _rarest(runs, threshold)
    order = np.lexsort((text, run))
    text, run = text[order], run[order]
    twins: dict[int, int] = {}
    has_twin = np.zeros(len(runs.sizes), dtype=bool)
    looked_at = 0
    for step in range(1, NEIGHBOURS + 1):
        together = run[:-step] == run[step:]
        first, second = text[:-step][together], text[step:][together]
        small, large = np.minimum(*(s := runs.sizes[[first, second]])), np.maximum(*s)
        # once both have a twin there is nothing left to learn from a pair
        wanted = (small >= threshold * large) & ~(has_twin[first] & has_twin[second])
        pairs = np.unique(first[wanted].astype(np.int64) * len(runs.sizes) + second[wanted])
        pairs = pairs[: max(0, MOST_PAIRS - looked_at)]
        looked_at += len(pairs)
        first, second = np.divmod(pairs, len(runs.sizes))
        near = similarities(runs, first, second) >= threshold
        for one, other in zip(first[near].tolist(), second[near].tolist(), strict=True):
            twins.setdefault(one, other)
            twins.setdefault(other, one)
        has_twin[first[near]] = has_twin[second[near]] = True
    return twins


def _rarest(runs: Runs, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The (text, run) pairs in which texts of that similarity must meet."""
    counts = runs.counts[runs.run]
    # stable: of equally rare runs all texts must prefer the same
    key = runs.text.astype(np.int64) * (counts.max(initial=0) + 1) + counts
    order = np.argsort(key, kind="stable")
    text, run = runs.text[order], runs.run[order]
    rank = np.arange(len(text)) - runs.starts[text]
    kept = runs.sizes - np.ceil(threshold * runs.sizes - 1e-9).astype(np.int64) + 1
    wanted = (rank < kept[text]) & (runs.counts[run] > 1) & (runs.sizes[text] >= LEAST_RUNS)
    return text[wanted], run[wanted]


def similarities(
    runs: Runs, first: np.ndarray, second: np.ndarray, chunk: int = 20_000
) -> np.ndarray:
    """The Jaccard similarity of each pair of texts: shared runs over all runs of both."""
    total, starts, found = len(runs.counts), runs.starts, []
    keys = runs.text.astype(np.int64) * total + runs.run
    for at in range(0, len(first), chunk):
        one, other = first[at : at + chunk], second[at : at + chunk]
        sizes = runs.sizes[one]
        pair = np.repeat(np.arange(len(one)), sizes)
        within = np.arange(len(pair)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        wanted = other[pair] * total + runs.run[starts[one][pair] + within]
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        shared = np.bincount(pair, keys[place] == wanted, minlength=len(one))
        found.append(shared / np.maximum(1, sizes + runs.sizes[other] - shared))
    return np.concatenate(found) if found else np.zeros(0)
