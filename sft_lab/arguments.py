"""Station "ground": numbers that a caller gives, checked before anything is done with them.

A number of the wrong kind is seldom an error by itself: 1.5 epochs, a rate that is not a number or
True for a count run to the end and give something else than was meant. Whatever passes comes back
as a plain int or float, which JSON can hold; numpy's numbers are welcome.
"""

import argparse
import math
import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

LARGEST_SEED = 2**64 - 1  # torch's; the generators of Python and numpy take any whole number from 0


class SettingError(ValueError):
    """A setting that would make no run, or another than it says; one line: name, value, advice."""


def whole_number(
    name: str, value: Any, *, least: int = 1, most: int | None = None, advice: str = ""
) -> int:
    """`value` as an int, if it is an integer from `least` to `most` (None: without end).

    advice: what to do, put at the end of the error. Raises SettingError, also for 3.0, "3", True.
    """
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        limits = f"at least {least}" + (f", at most {most}" if most is not None else "")
        raise SettingError(_explain(name, value, f"an integer, {limits}", advice))
    return number


def real_number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    infinite: bool = False,
    advice: str = "",
) -> float:
    """`value` as a float, if it is a number from `least` (or above `above`) to `most` (or below
    `below`).

    infinite: whether it may be infinite. advice: what to do, put at the end of the error. Raises
    SettingError, also for nan, "3" and True.
    """
    plain = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    number = float(value) if plain else math.nan
    in_range = least <= number <= most and (number > above or above == -math.inf)
    in_range = in_range and (number < below or below == math.inf)
    if not in_range or (math.isinf(number) and not infinite):
        limits = [f"above {above:g}"] if above > -math.inf else []
        limits += [f"at least {least:g}"] if least > -math.inf else []
        limits += [f"at most {most:g}"] if most < math.inf else []
        limits += [f"below {below:g}"] if below < math.inf else []
        kind = "a number" if infinite else "a finite number"
        raise SettingError(_explain(name, value, ", ".join([kind, *limits]), advice))
    return number


def check_seed(seed: Any) -> int:
    """A seed as an int; SettingError for one that some generator would refuse, or take for its
    opposite (Python's gives -3 the same order as 3)."""
    return whole_number("seed", seed, least=0, most=LARGEST_SEED)


def option(check: Callable[..., float], **limits: Any) -> Callable[[str], float]:
    """The `type` of a command's option: its text as a number that `check` (one of the two above)
    lets pass; argparse names the option and ends the command otherwise."""

    def read(text: str) -> float:
        try:
            number = int(text) if check is whole_number else float(text)
        except ValueError:
            number = text  # no number at all: the check says so
        try:
            return check("it", number, **limits)
        except SettingError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _explain(name: str, value: Any, wanted: str, advice: str) -> str:
    return f"{name} is {value!r:.60}; it must be {wanted}" + (f". {advice}" if advice else "")
