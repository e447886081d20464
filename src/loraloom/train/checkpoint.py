"""Checkpoints of a run: tensors in safetensors, all else in JSON, and nothing that
could run code when it is read.

A checkpoint may be taken between any two ticks, also in the middle of an accumulation window. Its JSON
file names the tensor file, holds the checksum of both, and is put in place last: whoever reads sees a
whole checkpoint or none. The last two are kept, so that one that a disk has spoilt costs only the time
since the one before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from safetensors import SafetensorError
from safetensors.torch import load_file

from loraloom.errors import RunError
from loraloom.store.disk import disk, write_atomically
from loraloom.train.shelf import PREFIX
from loraloom.train.tensor_file import write_tensors

VERSION = 1
KEPT = 2
MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""By version: what makes the document of that version one of the next."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read back.

    Attributes:
        trainer: for `PackTrainer.load_state_dict`.
        run: what the caller of `save` kept beside it.
        path: its JSON file.
        passed_over: later checkpoints that could not be used, each with the reason.
    """

    trainer: dict[str, Any]
    run: dict[str, Any]
    path: Path
    passed_over: tuple[str, ...] = ()


class Trainer(Protocol):
    """What has a state to save: a `PackTrainer`, or a `KeptApart`."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values, and under "tensors" tensors by name."""
        ...


@dataclass(frozen=True)
class KeptApart:
    """The state of candidates that are all kept by themselves, whoever trains them: it
    is as if all of them waited.

    Attributes:
        rows: fingerprint of the training rows.
        token_budget: padded tokens of one pass.
        waiting: file and checksum by trial.
    """

    rows: int
    token_budget: int
    waiting: Mapping[str, Mapping[str, str]]

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "token_budget": self.token_budget,
            "seats": [],
            "tensors": {},
            "waiting": dict(self.waiting),
        }


def save(
    folder: Path,
    trainer: Trainer,
    run: Mapping[str, Any] | None = None,
    *,
    dropped: Iterable[str] | None = None,
) -> Path:
    """Write the trainer's state, and with it `run` (plain values), into `folder` (made if needed).

    Args:
        dropped: files of candidates that neither this checkpoint names nor the one before, to be
            removed; None for all of that kind. Where several workers keep candidates, a file that no
            checkpoint names yet may be a new one.

    Returns:
        The checkpoint's JSON file.

    Raises:
        StoreError: the disk refused; the checkpoints that were there are still whole.
    """
    state = trainer.state_dict()
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max(map(_number, folder.glob("checkpoint-*")), default=0)
        path = folder / f"checkpoint-{number:06}.json"
        file = path.with_suffix(".safetensors")
        write_tensors(file, state.pop("tensors"), "the checkpoint")
        body = {
            "version": VERSION,
            "tensors": _file_digest(file),
            "trainer": state,
            "run": dict(run or {}),
        }
        write_atomically(path, json.dumps({"sha256": _digest(body), **body}).encode())
        for old in folder.glob("checkpoint-*"):
            if _number(old) <= number - KEPT:
                old.unlink()
        if dropped is None:
            drop_unnamed(folder)
        for name in dropped or ():
            (folder / name).unlink(missing_ok=True)
    return path


def drop_unnamed(folder: Path) -> None:
    """Remove the files of candidates that no checkpoint in `folder` names, or names any more."""
    files = {file.name for file in folder.glob(f"{PREFIX}*")}
    for path in folder.glob("checkpoint-*.json") if files else ():
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            files -= {
                kept["file"] for kept in json.loads(path.read_bytes())["trainer"]["waiting"].values()
            }
    for name in files:
        (folder / name).unlink(missing_ok=True)


def load(
    folder: Path, check: Callable[[Mapping[str, Any]], str | None] = lambda run: None
) -> Checkpoint | None:
    """The latest checkpoint that is whole; None where there is none at all.

    Args:
        check: what speaks against the `run` part of one, or None.

    Raises:
        RunError: there are checkpoints, and none of them is whole, or the latest is of
            a version that is not known here.
    """
    faults: list[str] = []
    for path in sorted(folder.glob("checkpoint-*.json"), key=_number, reverse=True):
        try:
            body = _read(path)
            tensors = load_file(path.with_suffix(".safetensors"))
            fault = check(body["run"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            fault = str(error) or type(error).__name__
        else:
            if fault is None:
                return Checkpoint(
                    {**body["trainer"], "tensors": tensors}, body["run"], path, tuple(faults)
                )
        faults.append(f"{path.name}: {fault}")
    if not faults:
        return None
    raise RunError(
        f"no checkpoint can be read from {folder}",
        got="; ".join(faults),
        need="a checkpoint as it was written",
        next=f"restore the files, or remove {folder}: the run then begins anew",
    )


def _read(path: Path) -> dict[str, Any]:
    """The document of a whole checkpoint, as the present version has it."""
    body = cast("dict[str, Any]", json.loads(path.read_bytes()))
    if body.pop("sha256") != _digest(body):
        raise ValueError("its checksum differs")
    if body["tensors"] != _file_digest(path.with_suffix(".safetensors")):
        raise ValueError(f"the checksum of {path.stem}.safetensors differs")
    for kept in body["trainer"].get("waiting", {}).values():
        if kept["sha256"] != _file_digest(path.with_name(kept["file"])):
            raise ValueError(f"the checksum of {kept['file']} differs")
    while body["version"] != VERSION:
        if body["version"] not in MIGRATIONS:
            raise RunError(
                f"the checkpoint {path} has version {body['version']}",
                need=str(VERSION),
                next="resume with the release that wrote it",
            )
        body = MIGRATIONS[body["version"]](body)
    return body


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _number(path: Path) -> int:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0
