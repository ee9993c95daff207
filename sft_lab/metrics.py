"""Station "judge": when is an answer right, and how sure may a model be? The one grader.

An answer is right when it equals the reference after `normalise`. Containing the reference is not
enough: a model that rambles for a hundred tokens contains many things.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np


def normalise(text: str) -> str:
    """What is compared: Unicode NFC, runs of white space as one space, and no punctuation at the
    end.

    Letters keep their case: "Au" is gold's symbol and "AU" is not.
    """
    return " ".join(unicodedata.normalize("NFC", text).split()).rstrip(" .!?…。！？")


def is_right(answer: str, reference: str) -> bool:
    """Whether an answer says what the reference says, up to white space and final punctuation.

    Raises ValueError for a reference of which nothing is left to compare: an empty answer would
    equal it.
    """
    wanted = normalise(reference)
    if not wanted:
        raise ValueError(
            f"the reference is {reference!r}: without words in it every empty answer would be "
            "right; is it the right column of the data?"
        )
    return normalise(answer) == wanted


def expected_calibration_error(
    confidence: Sequence[float], right: Sequence[bool], *, bins: int = 10
) -> float:
    """Mean distance between how sure a model is and how often it is right, as a fraction (ECE).

    confidence: the probability that the model gives its own best guess, from 0 to 1; right: whether
    that guess is right. Guesses are sorted into `bins` of equal width, a border belongs to the bin
    above it and 1.0 to the last one; a bin counts with its share of the guesses. Raises ValueError
    when the two differ in length, are empty, or a confidence is no probability. Source: Guo et al.
    2017, arXiv 1706.04599; derived in chapter 12.
    """
    sure, hit = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    if sure.ndim != 1 or sure.shape != hit.shape or not sure.size:
        raise ValueError(
            f"one confidence and one outcome for each guess is needed, got shapes {sure.shape} and "
            f"{hit.shape}"
        )
    if not ((sure >= 0) & (sure <= 1 + 1e-6)).all():  # a float32 softmax may end above 1
        raise ValueError(
            f"confidences reach from {sure.min()} to {sure.max()}: give probabilities, not logits "
            "or percentages"
        )
    inner = np.arange(1, bins) / bins
    chosen = np.digitize(sure, inner)  # a border belongs to the bin above it
    gaps = [abs((sure[chosen == b] - hit[chosen == b]).sum()) for b in range(bins)]
    return float(sum(gaps) / sure.size)
