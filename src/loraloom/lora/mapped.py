"""A base that stays in its files: weights are read where they are needed, page by page, and the system
takes the pages back when memory is short.

safetensors maps its files by itself, for writing, which the system counts as memory that may come to be
used; here they are mapped for reading alone, so that a base may be larger than the memory. It holds for
weights that are stored in the type in which they are computed, and for a CPU: anything else is a copy.

Should a file go away while it is mapped (a disk that is pulled out), the system ends the process: no
Python code runs then. Checkpoints are written whole or not at all, so that `--resume` goes on from the
last one.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.errors import ModelError

COPIED = 0.1
"""Share of the weights that may be copies: new heads, and tensors that transformers puts together."""


@contextmanager
def mapped_files() -> Generator[list[torch.UntypedStorage]]:
    """Within, files of weights are mapped for reading alone. Gives the maps that were made."""
    made: list[torch.UntypedStorage] = []

    def from_file(filename: str, **_: Any) -> torch.UntypedStorage:
        with Path(filename).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nothing can be written: nothing is
            found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            made.append(torch.frombuffer(found, dtype=torch.uint8).untyped_storage())
        return made[-1]

    storage: Any = torch.UntypedStorage  # where safetensors asks for it by name, each time
    theirs = storage.from_file
    storage.from_file = from_file
    try:
        yield made
    finally:
        storage.from_file = theirs


def mapped_bytes(model: nn.Module, maps: Sequence[torch.UntypedStorage]) -> int:
    """Bytes of the parameters that lie in these maps."""
    return sum(parameter.nbytes for parameter in model.parameters() if _lies_in(parameter, maps))


def refuse_copies(model: nn.Module, maps: Sequence[torch.UntypedStorage], name_or_path: str) -> None:
    """Refuse a base whose weights are in memory after all.

    Raises:
        ModelError: more than a few of them were copied when they were read.
    """
    total = sum(parameter.nbytes for parameter in model.parameters())
    copied = [p for p in model.parameters() if not _lies_in(p, maps)]
    if sum(parameter.nbytes for parameter in copied) > COPIED * total:
        largest = max(copied, key=lambda parameter: parameter.nbytes)
        raise ModelError(
            "the weights cannot stay in their files: reading them made a copy",
            where=name_or_path,
            got=f"{len(copied):,} tensors in memory, as {str(largest.dtype).removeprefix('torch.')}",
            need="safetensors files whose weights are stored in the type of model.dtype",
            next="model.dtype: the type of the files, or model.streaming: false",
        )


def _lies_in(tensor: Tensor, maps: Sequence[torch.UntypedStorage]) -> bool:
    place = tensor.data_ptr()
    return any(one.data_ptr() <= place < one.data_ptr() + one.nbytes() for one in maps)
