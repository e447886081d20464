"""What the workers of the Ray tests are made of: they report who they are, and fail when told to."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loraloom.errors import DataError, RunError
from loraloom.records import Event
from loraloom.train.orders import End, Order, Report, Train


class Pretender:
    """Does nothing, and says in which process."""

    def __init__(self, name: str) -> None:
        self._name = name

    def obey(self, orders: Sequence[Order]) -> Report:
        if any(isinstance(order, Train) for order in orders):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(isinstance(order, End) for order in orders):
            raise RunError("planted", next="mend it")
        return Report(self._name, [Event("note", data={"pid": os.getpid(), "cwd": str(Path.cwd())})])


def pretender(name: str, request: Mapping[str, Any]) -> Pretender:
    """Made as the request wants it: not at all, with the death of its process, or well."""
    if request.get("other_rows"):
        raise DataError(f"worker {name} cannot join: it reads other rows", next="copy them")
    if request.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    return Pretender(name)
