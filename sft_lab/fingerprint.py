"""Station "spare": the fingerprint of weights, to tell whether an adapter meets the base it was
trained on.

An adapter is a difference, and on other weights of the same shapes it computes something else
without a word. A fingerprint takes a few values of every row of every matrix (less than a second
for 600 million weights, a few KB of text). The same base in another number format has the same one:
values are compared after rounding to the coarser of the two formats. A quantised copy (GGUF) lies
between: all its matrices differ a little, so it can be told from another base, and not from the
same base after a little more training. So it is with bfloat16 beside float16 where the weights were
made in float32: each rounds in its own way.
"""

import base64
import json
import struct
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch

# From fine to coarse; each with the integers that show its bits.
FORMATS = {
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}
RECORD = struct.Struct("<BB3I4f")  # of one tensor, 30 bytes
BLOCK = 32  # numbers that share a scale in a quantised file, or a multiple of so many


@dataclass(frozen=True)
class _Record:
    """One tensor. dtype: its place in FORMATS. quantised: its values lie on a grid. checksums: of
    its sample, rounded to each of FORMATS. values: four of the sample."""

    dtype: int
    quantised: bool
    checksums: tuple[int, ...]
    values: tuple[float, ...]

    def pack(self) -> str:
        packed = RECORD.pack(self.dtype, self.quantised, *self.checksums, *self.values)
        return base64.b64encode(packed).decode()

    @classmethod
    def unpack(cls, text: str) -> "_Record":
        dtype, quantised, *rest = RECORD.unpack(base64.b64decode(text, validate=True))
        if dtype >= len(FORMATS):
            raise ValueError(f"there is no number format {dtype}")
        return cls(dtype, bool(quantised), tuple(rest[:3]), tuple(rest[3:]))


def fingerprint(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """The fingerprint, as text, of tensors by name."""
    return json.dumps({name: record.pack() for name, record in _measure(tensors).items()})


def check_damage(saved: str) -> None:
    """Raise ValueError, "fingerprint is damaged" and how, for what `fingerprint` cannot have
    written."""
    _read(saved)


def check_fingerprint(saved: str, tensors: Iterable[tuple[str, torch.Tensor]], what: str) -> None:
    """Refuse tensors that are not those of the `saved` fingerprint.

    what: begins the message, "runs/adapter was trained on atlas-base". Warns where one of
    the two is a quantised copy of the other. Raises ValueError, naming the first tensor that
    differs.
    """
    try:
        there = _read(saved)
    except ValueError as error:
        raise ValueError(f"{what}, whose {error}: copy or save it again") from error
    here = _measure(tensors)
    names = [*here, *(name for name in there if name not in here)]
    both = {name: (there[name], here[name]) for name in names if name in here and name in there}
    same = {name for name, pair in both.items() if _same(*pair)}
    differ = [name for name in names if name not in same]
    if not differ:
        return
    # Where one quantised tensor is the same to the bit, both come from that one quantised file:
    # then the others have been changed since.
    one_file = any(both[name][0].quantised and both[name][1].quantised for name in same)
    copied = all(name in both and _quantised(*both[name]) for name in differ)
    if copied and not one_file and _distance([both[name] for name in differ]) < 0.5:
        warnings.warn(
            f"{what}, and one of the two is a quantised copy: answers may differ a little, and a "
            "base that was tuned a little further would not be noticed",
            stacklevel=3,
        )
        return
    raise ValueError(
        f"{what}, and these are other weights ({len(differ)} of {len(names)} tensors differ, first "
        f"{differ[0]}). A base that was tuned further, or that an adapter was merged into, is "
        "another base: load the weights of that run"
    )


def _read(saved: str) -> dict[str, _Record]:
    try:
        return {name: _Record.unpack(text) for name, text in json.loads(saved).items()}
    except (ValueError, AttributeError, TypeError, struct.error) as error:
        raise ValueError(f"fingerprint is damaged ({error})") from error


@torch.no_grad()
def _measure(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, _Record]:
    """The record of every tensor; a matrix that repeats an earlier one (a tied head that some
    files hold twice) counts once."""
    records, matrices = {}, set()
    for name, tensor in tensors:
        if not tensor.numel():
            continue
        record = _measure_tensor(tensor.detach())
        if tensor.dim() > 1 and record.checksums in matrices:
            continue
        matrices |= {record.checksums} if tensor.dim() > 1 else set()
        records[name] = record
    return records


def _measure_tensor(tensor: torch.Tensor) -> _Record:
    # One step less than a row is long: the sample meets every row, and every column in turn.
    stride = max(1, tensor.shape[-1] - 1) if tensor.dim() > 1 else 1
    sample = tensor.flatten()[::stride].to("cpu", torch.float32) + 0.0  # -0 becomes 0
    checksums = tuple(
        zlib.crc32(sample.to(kind).view(bits).numpy().tobytes()) for kind, bits in FORMATS.items()
    )
    shape = zlib.crc32(repr(tuple(tensor.shape)).encode())
    four = sample[torch.linspace(0, len(sample) - 1, 4).long()].tolist()
    kinds = list(FORMATS)
    dtype = kinds.index(tensor.dtype) if tensor.dtype in kinds else 0
    return _Record(
        dtype,
        _is_quantised(tensor),
        tuple(checksum ^ shape for checksum in checksums),
        tuple(four),
    )


def _is_quantised(tensor: torch.Tensor) -> bool:
    """Whether the values lie on a grid, as those of a GGUF file do: a block then holds the same
    value several times.

    Of 32 weights rounded to 8 bits with a common scale about 3 repeat another, with fewer bits
    more; of 32 bfloat16 weights, each with its own exponent, one in two blocks.
    """
    if tensor.dim() < 2 or tensor.shape[-1] % BLOCK:
        return False
    blocks = tensor.reshape(-1, BLOCK)
    blocks = blocks[:: max(1, len(blocks) // 128)].to("cpu", torch.float32).sort(dim=1).values
    repeats = (blocks[:, 1:] == blocks[:, :-1]) & (blocks[:, 1:] != 0)
    return repeats.sum().item() > 1.5 * len(blocks)


def _same(one: _Record, other: _Record) -> bool:
    """Whether two tensors are one, each rounded to its format."""
    coarser = max(one.dtype, other.dtype)
    if {one.dtype, other.dtype} == {1, 2}:
        # bfloat16 and float16: if the weights were made in bfloat16, float16 holds them exactly;
        # if they were made in float32, each rounds in its own way
        near = all(
            abs(a - b) <= 2**-7 * abs(a) + 1e-7
            for a, b in zip(one.values, other.values, strict=True)
        )
        return one.checksums[1] == other.checksums[1] or near
    return one.checksums[coarser] == other.checksums[coarser]


def _quantised(one: _Record, other: _Record) -> bool:
    return one.quantised or other.quantised


def _distance(pairs: list[tuple[_Record, _Record]]) -> float:
    """Root of the mean squared difference of the values, relative to theirs."""
    values = [pair for one, other in pairs for pair in zip(one.values, other.values, strict=True)]
    difference = sum((a - b) ** 2 for a, b in values)
    return (difference / max(sum(a * a for a, _ in values), 1e-30)) ** 0.5
