"""Ground: what a training example is; every other module that speaks of token ids and labels begins
here."""

from dataclasses import dataclass

IGNORE_INDEX = -100  # what torch's cross_entropy skips


@dataclass(frozen=True)
class Example:
    """One training example: T token ids and T labels, unshifted (label t grades the prediction of
    token t)."""

    input_ids: list[int]
    labels: list[int]
