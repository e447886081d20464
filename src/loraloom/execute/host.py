"""A worker that lives elsewhere than those who give it orders: how it is asked to come, and what it is
made from. By what way orders and reports travel is not known here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.errors import RunError

if TYPE_CHECKING:  # slow to import, and only the factory needs it
    from loraloom.train.worker import Worker


@dataclass(frozen=True)
class Invitation:
    """What a worker is made from, in plain values: it can be sent anywhere, and be read by a loraloom of
    another version, which then refuses it.

    Attributes:
        version: of the loraloom that sends it.
        factory: the function that makes the worker, as "module:name"; it takes the worker's name and
            `request`.
        request: plain values.
        cwd: the folder in which relative paths are meant.
    """

    version: str
    factory: str
    request: Mapping[str, Any]
    cwd: str


def invite(factory: str, request: Mapping[str, Any]) -> Invitation:
    """An invitation to workers of this version."""
    return Invitation(metadata.version("loraloom"), factory, request, str(Path.cwd()))


def join(name: str, invitation: Invitation) -> Worker:
    """Make a worker here. It is to be the only one in its process.

    Raises:
        RunError: loraloom has another version here.
        LoraloomError: what the run needs is not here, or differs.
    """
    here = metadata.version("loraloom")
    if here != invitation.version:
        raise RunError(
            f"worker {name} cannot join: it has another version of loraloom",
            got=here,
            need=invitation.version,
            next=f"install loraloom {invitation.version} where this worker is",
        )
    if Path(invitation.cwd).is_dir():
        os.chdir(invitation.cwd)
    module, _, function = invitation.factory.partition(":")
    return getattr(import_module(module), function)(name, invitation.request)
