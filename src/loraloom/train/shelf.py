"""Candidates that wait out of the pack: each whole in one file, so that waiting costs no memory.

A file is written when its candidate leaves the pack and is never changed; a checkpoint names those that
wait, with their checksums, and brings to the disk what is new.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import safe_open
from torch import Tensor

from loraloom.store.disk import disk
from loraloom.train.tensor_file import write_tensors

PREFIX = "waiting-"


@dataclass
class Shelf:
    """Files of waiting candidates, by trial.

    Args:
        folder: where they lie; None for one that goes with this object.
        generations: by trial, what tells its files from those of another worker that
            had it before; 0 for none.
        writer: tells them from those of a worker of an earlier driver, which may have counted as far.
    """

    folder: Path | None = None
    files: dict[str, str] = field(default_factory=dict[str, str])
    generations: dict[str, int] = field(default_factory=dict[str, int])
    writer: str = field(default_factory=lambda: token_hex(4))
    _checksums: dict[str, str] = field(default_factory=dict[str, str])
    _own: TemporaryDirectory[str] | None = None

    def __contains__(self, trial: object) -> bool:
        return trial in self.files

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self.files))

    def __len__(self) -> int:
        return len(self.files)

    def put(self, trial: str, plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Keep a candidate as `train.resume.seat_state` gives it.

        Raises:
            StoreError: the disk refused.
        """
        name = f"{PREFIX}{trial}-{plain['step']}"
        if generation := self.generations.get(trial):
            name += f"-{plain['micro']}-{generation}-{self.writer}"
        path = self._place() / f"{name}.safetensors"
        # It is on the disk once somebody asks for its checksum.
        write_tensors(
            path, tensors, f"what is kept of {trial}", {"seat": json.dumps(plain)}, settle=False
        )
        self.files[trial] = path.name
        self._checksums.pop(path.name, None)

    def drop(self, trial: str) -> None:
        """A candidate waits no longer. Its file stays for the checkpoints that name it."""
        del self.files[trial]

    def read(self, trial: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """A candidate as it was put; it waits on."""
        return self.read_file(self.files[trial])

    def read_file(self, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What was put into a file, by whichever worker."""
        path = self._place() / name
        with disk(path), safe_open(path, "pt") as kept:
            plain: dict[str, Any] = json.loads(kept.metadata()["seat"])
            return plain, {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118

    def look(self, trial: str) -> dict[str, Any]:
        """The plain values of a candidate that waits, and goes on to."""
        path = self._place() / self.files[trial]
        with disk(path), safe_open(path, "pt") as kept:
            return json.loads(kept.metadata()["seat"])

    @property
    def run_folder(self) -> Path:
        """The folder of the run that this one is a part of."""
        return self._place().parent

    def state_dict(self) -> dict[str, dict[str, str]]:
        """File and checksum by trial."""
        return {
            trial: {"file": name, "sha256": self.checksum(trial)} for trial, name in self.files.items()
        }

    def checksum(self, trial: str) -> str:
        """Of a candidate's file, which is on the disk when this returns; worked out once."""
        name = self.files[trial]
        if name not in self._checksums:
            self._checksums[name] = settled(self._place() / name)
        return self._checksums[name]

    def load_state_dict(self, state: Mapping[str, Mapping[str, str]]) -> None:
        """Those who wait are those of a `state_dict`."""
        self.files = {trial: kept["file"] for trial, kept in state.items()}
        self._checksums = {kept["file"]: kept["sha256"] for kept in state.values()}

    def _place(self) -> Path:
        if self.folder is not None:
            return self.folder
        self._own = self._own or TemporaryDirectory(prefix="loraloom-")
        return Path(self._own.name)


def settled(path: Path) -> str:
    """The checksum of a file, once it is on the disk."""
    with disk(path), path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
