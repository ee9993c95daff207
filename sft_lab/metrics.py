"""Station "judge": when is an answer right? The one grader of the course.

An answer is right when it equals the reference after `normalise`. Containing the reference is not
enough: a model that rambles for a hundred tokens contains many things.
"""

import unicodedata


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
