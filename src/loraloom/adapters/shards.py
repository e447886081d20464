"""Weights of a model folder by their place in its safetensors files, read and written tensor by tensor.

A safetensors file is eight bytes (the length of the header, little endian), a JSON header that gives
each tensor its type, shape and range of bytes, and the bytes. What is not changed is copied as bytes: no
tensor is ever held but the one that is written.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from loraloom.errors import ModelError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
CHUNK = 2**24
"""Bytes that are copied at once."""
_LARGEST_HEADER = 10**8
"""Bytes, as the format itself allows."""


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies.

    Attributes:
        code: its type in safetensors' words.
        begin: of its first byte, counted from the beginning of the file.
    """

    name: str
    path: Path
    code: str
    shape: tuple[int, ...]
    begin: int
    bytes: int

    @property
    def dtype(self) -> torch.dtype:
        """Raises ModelError for a type that torch tensors are not read in here."""
        if self.code not in DTYPES:
            raise ModelError(
                f"`{self.name}` is stored as {self.code}",
                where=str(self.path),
                need=f"one of {', '.join(DTYPES)}",
                next="--model ORIGINAL, the full weights that this base was made from",
            )
        return DTYPES[self.code]

    def read(self) -> Tensor:
        """Its numbers, in memory of their own."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            content = bytearray(file.read(self.bytes))
        if not content:
            return torch.empty(self.shape, dtype=self.dtype)
        return torch.frombuffer(content, dtype=self.dtype).reshape(self.shape)

    def rows(self, part: slice) -> Stored:
        """Some of its rows, from `start` to before `stop`, as a tensor of their own."""
        start, stop, _ = part.indices(self.shape[0])
        row_bytes = self.bytes // max(self.shape[0], 1)
        begin = self.begin + start * row_bytes
        size = (stop - start) * row_bytes
        return replace(self, shape=(stop - start, *self.shape[1:]), begin=begin, bytes=size)

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, piece by piece."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            left = self.bytes
            while left:
                piece = file.read(min(CHUNK, left))
                left -= len(piece)
                yield piece


def read_headers(folder: Path) -> dict[str, list[Stored]]:
    """Tensors of every weight file of a model folder, in the order of their bytes, by the file's name.

    Raises:
        ModelError: there are no safetensors, or one is missing, cut off or broken.
    """
    try:
        names = _files(folder)
        return {name: _tensors(folder / name) for name in names}
    except ModelError:
        raise
    # a header is input: a broken one raises whatever its parser raises
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            "the weight files of the base cannot be read",
            where=str(folder),
            got=str(error),
            next="copy the files of the base again",
        ) from error


def _files(folder: Path) -> list[str]:
    if (folder / WHOLE).is_file():
        return [WHOLE]
    if (folder / INDEX).is_file():
        named = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        if any(Path(name).name != name for name in named):
            raise ValueError(f"{INDEX} names a file outside the folder")
        return sorted(set(named))
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    raise ModelError(
        "the base has no safetensors",
        where=str(folder),
        got=f"{pickles[0]}, a pickle" if pickles else None,
        need=f"{WHOLE}, or {INDEX} and its parts",
        next="save it again with transformers: model.save_pretrained(FOLDER)" if pickles else None,
    )


def _tensors(path: Path) -> list[Stored]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int(struct.unpack("<Q", start)[0]) if len(start) == 8 else size
        if 8 + length > min(size, _LARGEST_HEADER):
            raise ValueError(f"{path.name} is cut off, or no safetensors file: {size:,} bytes are there")
        header = cast(dict[str, Any], json.loads(file.read(length)))
    header.pop("__metadata__", None)
    found: list[Stored] = []
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end or 8 + length + end > size:
            raise ValueError(
                f"{path.name} is cut off: {8 + length + end:,} bytes needed, {size:,} there"
            )
        shape, code = tuple(int(n) for n in entry["shape"]), str(entry["dtype"])
        if code in DTYPES and end - begin != torch.Size(shape).numel() * DTYPES[code].itemsize:
            raise ValueError(f"the header of {path.name} gives `{name}` {end - begin:,} bytes")
        found.append(Stored(name, path, code, shape, 8 + length + begin, end - begin))
    return sorted(found, key=lambda one: one.begin)


@dataclass(frozen=True)
class Entry:
    """A tensor of a file that is to be written."""

    name: str
    code: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * DTYPES[self.code].itemsize


def write_file(path: Path, entries: Sequence[Entry], contents: Mapping[str, Iterator[bytes]]) -> None:
    """Write a safetensors file of these tensors in this order, and bring it to the disk.

    Args:
        contents: the bytes of each tensor, asked for when its turn comes.

    Raises:
        OSError: the disk refuses.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.code,
            "shape": list(entry.shape),
            "data_offsets": [place, place + entry.bytes],
        }
        place += entry.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the numbers to begin at a multiple of eight
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for entry in entries:
            for piece in contents[entry.name]:
                file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def bytes_of(tensor: Tensor) -> bytes:
    """The bytes of a tensor as safetensors keeps them."""
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
