"""Tensors on the disk: a file of them is there whole, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from loraloom.errors import StoreError
from loraloom.store.disk import disk, put_in_place


def write_tensors(
    file: Path,
    tensors: Mapping[str, Tensor],
    what: str,
    metadata: dict[str, str] | None = None,
    *,
    settle: bool = True,
) -> None:
    """Write tensors beside `file`, whose folder is made if needed, and put them in its place.

    Args:
        what: they are, in the words of the error.
        settle: bring them to the disk before they get the file's name.

    Raises:
        StoreError: the disk refused; what was there before is untouched.
    """
    partial = file.with_name(f".{file.name}.part")
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with disk(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(whole, partial, metadata)
            if settle:
                put_in_place(partial, file)
            else:
                partial.replace(file)
        except SafetensorError as fault:
            raise StoreError(
                f"{what} could not be written",
                where=str(file),
                got=str(fault),
                next="make room, and go on with --resume",
            ) from fault
        finally:
            partial.unlink(missing_ok=True)
