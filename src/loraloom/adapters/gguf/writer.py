"""GGUF files, written tensor by tensor: no more of the weights is held than what is written at once.

A file is a head (magic, version, counts), the metadata as typed pairs, where each tensor lies, and the
numbers, each tensor at a multiple of 32 bytes (github.com/ggml-org/ggml/blob/master/docs/gguf.md). A
shape is written with its last dimension first.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

ALIGNMENT = 32
"""Bytes."""
_AT_ONCE = 2**20
"""Numbers that are encoded at once, which takes some times their memory."""
_VERSION = 3
_Q8_BLOCK = 32


@dataclass(frozen=True)
class Encoding:
    """How numbers are kept.

    Attributes:
        code: `enum ggml_type`.
        file_type: `enum llama_ftype` of a file that is mostly so.
        block: numbers that are kept together, in `bytes` bytes.
    """

    name: str
    code: int
    file_type: int
    block: int
    bytes: int
    encode: Callable[[Tensor], bytes]


def _as(dtype: torch.dtype) -> Callable[[Tensor], bytes]:
    return lambda values: values.to(dtype).contiguous().view(torch.uint8).numpy().tobytes()


def _q8_0(values: Tensor) -> bytes:
    """Blocks of 32 numbers: a float16 scale d, and round(x / d) as int8, halves away from zero.

    Bit for bit what ggml's `quantize_row_q8_0_ref` writes.
    """
    blocks = values.reshape(-1, _Q8_BLOCK)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    scaled = blocks * inverse
    rounded = scaled.abs().add_(0.5).floor_().copysign_(scaled).to(torch.int8)
    head = scale.to(torch.float16).view(torch.int8)
    return torch.cat([head, rounded], 1).numpy().tobytes()


F32 = Encoding("F32", 0, 0, 1, 4, _as(torch.float32))
F16 = Encoding("F16", 1, 1, 1, 2, _as(torch.float16))
BF16 = Encoding("BF16", 30, 32, 1, 2, _as(torch.bfloat16))
Q8_0 = Encoding("Q8_0", 8, 7, _Q8_BLOCK, 2 + _Q8_BLOCK, _q8_0)


@dataclass(frozen=True)
class Entry:
    """A tensor that is to be written.

    Attributes:
        shape: as torch has it.
        pieces: its numbers in float32, some rows at a time; asked for when its turn comes.
    """

    name: str
    shape: tuple[int, ...]
    encoding: Encoding
    pieces: Callable[[], Iterator[Tensor]]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) // self.encoding.block * self.encoding.bytes


@dataclass(frozen=True)
class Unsigned:
    """A number that GGUF keeps as uint32; a plain int is kept as int32."""

    number: int


Value = str | bool | int | float | Unsigned | Sequence[str] | Sequence[int] | Sequence[float]


def write(path: Path, metadata: Mapping[str, Value], tensors: Sequence[Entry]) -> None:
    """Write a file and bring it to the disk.

    Raises:
        OSError: the disk refuses.
    """
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", _VERSION, len(tensors), len(metadata)))
        for key, value in metadata.items():
            file.write(_string(key) + _value(value))
        place = 0
        for one in tensors:
            sizes = struct.pack(f"<I{len(one.shape)}Q", len(one.shape), *reversed(one.shape))
            file.write(_string(one.name) + sizes + struct.pack("<IQ", one.encoding.code, place))
            place += -(-one.bytes // ALIGNMENT) * ALIGNMENT
        _pad(file)
        for one in tensors:
            for piece in one.pieces():
                for rows in piece.split(max(1, _AT_ONCE // math.prod(one.shape[1:]))):
                    file.write(one.encoding.encode(rows))
            _pad(file)
        file.flush()
        os.fsync(file.fileno())


def size_of(tensors: Sequence[Entry]) -> int:
    """Bytes of the numbers of a file."""
    return sum(-(-one.bytes // ALIGNMENT) * ALIGNMENT for one in tensors)


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % ALIGNMENT))


def _string(text: str) -> bytes:
    content = text.encode("utf-8")
    return struct.pack("<Q", len(content)) + content


def _value(value: Value) -> bytes:
    """The number of its type (`enum gguf_type`) and the value itself."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, Unsigned):
        return struct.pack("<II", 4, value.number)
    if isinstance(value, int):
        return struct.pack("<Ii", 5, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return struct.pack("<I", 9) + _array(value)


def _array(values: Sequence[str] | Sequence[int] | Sequence[float]) -> bytes:
    """The type of its members, their count, and they themselves."""
    first = values[0] if values else 0
    if isinstance(first, str):
        return struct.pack("<IQ", 8, len(values)) + b"".join(map(_string, map(str, values)))
    code, letter = (6, "f") if isinstance(first, float) else (5, "i")
    return struct.pack(f"<IQ{len(values)}{letter}", code, len(values), *values)
