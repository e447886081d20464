"""What every step is given: where it runs, how large, and a way to tell of its parts."""

from __future__ import annotations

import gc
import importlib
import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from isolate import tidy

LEAST_SECONDS = 3.0
"""With less than this left, no further part is begun."""
PART_SECONDS = 75.0
"""Of one part, at most."""
BROKEN = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS", "illegal memory access")
"""Words of errors after which a process cannot use the device any more."""


class NotMeasuredError(Exception):
    """A part that cannot be measured here, with the reason."""


class Failed(Exception):  # noqa: N818 the name of a status
    """A part whose outcome is wrong. `values` are kept beside it."""

    def __init__(self, why: str, values: Mapping[str, Any]) -> None:
        super().__init__(why)
        self.values = dict(values)


class Ear(Protocol):
    """Where parts are told of: `isolate.Told`, or a test's own."""

    done: tuple[str, ...]

    @property
    def left(self) -> float: ...
    def begins(self, part: str, limit: float) -> None: ...
    def found(self, part: str, record: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Bench:
    """`small`: tiny shapes and few repetitions, whose numbers mean nothing."""

    ear: Ear
    device: Literal["cuda", "cpu"]
    small: bool = False

    @property
    def on_cuda(self) -> bool:
        return self.device == "cuda"

    def part(
        self, name: str, run: Callable[[], Mapping[str, Any]], *, limit: float = PART_SECONDS
    ) -> dict[str, Any] | None:
        """Run a part and tell what it found, or why it found nothing; gives what it
        found, None where it did not.

        Raises:
            RuntimeError: the device is broken for this process.
        """
        if name in self.ear.done:
            return None
        if self.ear.left < LEAST_SECONDS:
            self.ear.found(name, {"status": "not run: deadline"})
            return None
        self.ear.begins(name, limit)
        started, record = time.monotonic(), {}
        try:
            found = dict(run())
            record = {"status": "done", **found}
            return found
        except NotMeasuredError as reason:
            record = {"status": f"not measured: {reason}"}
        except Failed as fault:
            record = {"status": "failed", "why": str(fault).splitlines(), **fault.values}
        except Exception as fault:
            if any(word in str(fault) for word in BROKEN):
                raise
            record = {"status": "failed", "why": tidy(traceback.format_exc().splitlines()[-8:])}
        finally:
            if record:
                self.ear.found(name, plain(record | {"seconds": round(time.monotonic() - started, 2)}))
            tidy_up()
        return None

    def only_on_cuda(self) -> None:
        """Raises:
        NotMeasuredError: this is no CUDA device.
        """
        if not self.on_cuda:
            raise NotMeasuredError("no CUDA device")


def run_step(ear: Ear, name: str, device: Literal["cuda", "cpu"], small: bool) -> None:
    """What a step's process does."""
    import torch

    if device == "cuda":
        torch.cuda.init()
        torch.set_float32_matmul_precision("highest")  # some containers turn TF32 on
    else:
        torch.set_num_threads(1)
    importlib.import_module(f"steps.{name}").measure(Bench(ear, device, small))


def tidy_up() -> None:
    """Give back what a part held."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def plain(value: Any) -> Any:
    """What JSON can write: numbers that are not finite become words, floats keep six digits."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return str(value)
