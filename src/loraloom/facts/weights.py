"""What lies on disk: the weight files of a model folder, read by their headers only.

A safetensors file starts with eight bytes (the header's length, little endian) and a JSON header that
names every tensor with its type, shape and byte range. So names, types and a truncated download show
without loading anything.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Of one number, by its type."""
SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SAMPLES = 64
SAMPLE_BYTES = 2**16
"""Of each weight file: its size and this many pieces, evenly from end to end. Training moves nearly
every number of a model, so that another version is told from this one; a file of up to 4 MiB is read
whole."""


@dataclass(frozen=True)
class Tensor:
    """One tensor as a header tells it."""

    dtype: str
    bytes: int
    numbers: int


@dataclass(frozen=True)
class Weights:
    """The weight files of one folder. `problem` says why they cannot be used; it is
    None when they can."""

    files: tuple[str, ...] = ()
    bytes: int = 0
    names: frozenset[str] | None = None
    """Names of the stored tensors; None where the file format does not tell them cheaply."""
    dtype: str | None = None
    """Type of most stored numbers."""
    coded_bytes: int = 0
    """What layers in few bits take, with their scales; 0 where that is not known."""
    plain_numbers: int = 0
    """Numbers of all other tensors."""
    problem: str | None = None


def find_weights(folder: Path) -> Weights:
    """Read what `folder` holds. Never raises for a fault in the files: it is told in `problem`."""
    try:
        files = _files(folder)
    except (OSError, RecursionError, ValueError, LookupError, TypeError, AttributeError) as fault:
        return Weights(problem=f"the index of the weight files cannot be read: {fault}")
    if not files:
        return Weights(problem="no model.safetensors and no pytorch_model.bin")
    absent = [name for name in files if not (folder / name).is_file()]
    if absent:
        return Weights(
            files=files,
            problem=f"{len(absent)} of {len(files)} weight files are missing: {', '.join(absent[:3])}",
        )
    size = sum((folder / name).stat().st_size for name in files)
    if not files[0].endswith(".safetensors"):
        return Weights(files=files, bytes=size)
    tensors: dict[str, Tensor] = {}
    for name in files:
        try:
            tensors |= {key: _tensor(entry) for key, entry in _header(folder / name).items()}
        except (
            OSError,
            RecursionError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            struct.error,
        ) as fault:
            return Weights(files=files, bytes=size, problem=f"{name} cannot be read: {fault}")
    counts = Counter[str]()
    for tensor in tensors.values():
        counts[tensor.dtype] += tensor.bytes
    dtype = counts.most_common(1)[0][0] if counts else None
    coded = _coded(tensors)
    return Weights(
        files=files,
        bytes=size,
        names=frozenset(tensors),
        dtype=dtype,
        coded_bytes=sum(tensors[name].bytes for name in coded),
        plain_numbers=sum(one.numbers for name, one in tensors.items() if name not in coded),
    )


def _tensor(entry: dict[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    stored = str(entry["dtype"])
    return Tensor(DTYPES.get(stored, stored), end - begin, math.prod(entry["shape"]))


def _coded(tensors: Mapping[str, Tensor]) -> set[str]:
    """Tensors of layers in few bits: whole numbers, and what lies beside them in the same layer. A bias
    is read as the rest of the model is."""
    layers = {_layer(name) for name, one in tensors.items() if one.dtype not in BYTES}
    return {name for name in tensors if _layer(name) in layers and not name.endswith(".bias")}


def _layer(tensor: str) -> str:
    """bitsandbytes keeps the scales of `q_proj.weight` under `q_proj.weight.absmax`."""
    return tensor.rpartition(".")[0].removesuffix(".weight")


def weights_fingerprint(folder: Path) -> str:
    """Of config.json and, by samples, of every weight file."""
    digest = hashlib.blake2b((folder / "config.json").read_bytes(), digest_size=12)
    for name in find_weights(folder).files:
        path = folder / name
        size = path.stat().st_size
        digest.update(f"{name} {size}".encode())
        with path.open("rb") as file:
            for number in range(SAMPLES):
                file.seek(max(0, size - SAMPLE_BYTES) * number // (SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _files(folder: Path) -> tuple[str, ...]:
    for single, index in zip(SINGLE_FILES, INDEX_FILES, strict=True):
        if (folder / single).is_file():
            return (single,)
        if (folder / index).is_file():
            shards = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
            strange = [name for name in shards if not isinstance(name, str) or Path(name).name != name]
            if strange:
                raise ValueError(f"{strange[0]!r} is not the name of a file beside it")
            return tuple(sorted(set(shards)))
    return ()


def _header(path: Path) -> dict[str, dict[str, Any]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise ValueError("it is empty or cut off")
        length = int(struct.unpack("<Q", start)[0])
        if 8 + length > size:
            raise ValueError(
                f"it is cut off: its header alone needs {8 + length:,} bytes, the file has {size:,}"
            )
        header = cast("dict[str, dict[str, Any]]", json.loads(file.read(length)))
    header.pop("__metadata__", None)
    needed = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size < needed:
        raise ValueError(f"it is cut off: {size:,} of {needed:,} bytes are there")
    return header
