"""Station "world": the tensors that a GGUF file lists, without reading their numbers.

The package `gguf` reads the whole vocabulary into arrays for that, a minute for Qwen3's. Source:
github.com/ggml-org/ggml, docs/gguf.md.
"""

import math
import struct
from pathlib import Path
from typing import BinaryIO

# bytes of a value of each type, by the format's numbers; 8 is a text and 9 a list
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
TEXT, LIST = 8, 9


def read_sizes(path: Path | str) -> dict[str, int]:
    """How many numbers each tensor of a GGUF file has, by name, in the order of the file.

    Raises ValueError for a file that is not GGUF of version 2 or 3, or ends too early.
    """
    sizes = {}
    try:
        with Path(path).open("rb") as file:
            magic, version, tensors, entries = _unpack(file, "<4sIQQ")
            if magic != b"GGUF" or version not in (2, 3):
                raise ValueError(f"{path} is not a GGUF file of version 2 or 3")
            for _ in range(entries):
                _skip_text(file)
                _skip_value(file, *_unpack(file, "<I"))
            for _ in range(tensors):
                name = file.read(*_unpack(file, "<Q")).decode()
                (dimensions,) = _unpack(file, "<I")
                shape = _unpack(file, f"<{dimensions}Q")
                _unpack(file, "<IQ")  # number format and place
                sizes[name] = math.prod(shape)
    except (struct.error, KeyError, UnicodeDecodeError, OSError, OverflowError) as error:
        raise ValueError(f"{path} is damaged or incomplete: {error}") from error
    return sizes


def _unpack(file: BinaryIO, layout: str) -> tuple:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _skip_text(file: BinaryIO) -> None:
    file.seek(*_unpack(file, "<Q"), 1)


def _skip_value(file: BinaryIO, kind: int) -> None:
    if kind == TEXT:
        _skip_text(file)
    elif kind == LIST:
        kind, count = _unpack(file, "<IQ")
        if kind in WIDTHS:
            file.seek(WIDTHS[kind] * count, 1)
        else:
            for _ in range(count):
                _skip_value(file, kind)
    else:
        file.seek(WIDTHS[kind], 1)
