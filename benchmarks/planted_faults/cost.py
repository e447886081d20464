"""What diagnosis costs: its CPU time beside that of the whole training loop. Other work on the machine does not count."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any
from unittest.mock import patch

from loraloom.pipeline.diagnosing import Diagnosis
from loraloom.pipeline.drive import Driver
from loraloom.train.signals import Gauge


class CostMeter:
    """While entered, times every call of diagnosis and the loop round them.

    Attributes:
        share: diagnosis / loop; None where no loop ran.
    """

    def __init__(self) -> None:
        self.spent = {"diagnosis": 0.0, "loop": 0.0}
        self._stack = ExitStack()

    def __enter__(self) -> CostMeter:
        for owner, name, part in (
            (Gauge, "stepped", "diagnosis"), (Gauge, "scored", "diagnosis"), (Diagnosis, "examine", "diagnosis"),
            (Driver, "run", "loop"),
        ):  # fmt: skip
            self._stack.enter_context(patch.object(owner, name, self._timed(getattr(owner, name), part)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    @property
    def share(self) -> float | None:
        return self.spent["diagnosis"] / self.spent["loop"] if self.spent["loop"] else None

    def _timed(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.spent[part] += time.process_time() - started

        return timed
