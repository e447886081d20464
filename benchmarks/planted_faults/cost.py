"""What diagnosis costs: its CPU time beside that of the whole training loop. Other work
on the machine does not count."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from statistics import median
from types import TracebackType
from typing import Any
from unittest.mock import patch

from cases import labelled_intents
from files import Files, Values

from loraloom.config.decode import load_config
from loraloom.pipeline import train as alone
from loraloom.pipeline.drive import Driver
from loraloom.pipeline.examine import Examiner
from loraloom.pipeline.train import train
from loraloom.train.signals import Gauge

PAIRS = 4


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
            (Gauge, "stepped", "diagnosis"),
            (Gauge, "scored", "diagnosis"),
            (Examiner, "examine", "diagnosis"),
            (alone, "exit_of", "diagnosis"),
            (Driver, "run", "loop"),
        ):
            self._stack.enter_context(patch.object(owner, name, self._timed(getattr(owner, name), part)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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


def measure(files: Files, tell: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """The same training with diagnosis and without it, in turn, `PAIRS` times; CPU
    seconds of the loop."""
    found: dict[str, dict[str, Any]] = {}
    for name, values in _tasks(files).items():
        seconds: dict[str, list[float]] = {"with": [], "without": []}
        shares: list[float] = []
        for pair in range(PAIRS):
            for kind in ("with", "without") if pair % 2 else ("without", "with"):
                asked = {**values, "diagnose.signals": kind == "with", "name": f"{name}-{kind}-{pair}"}
                meter = CostMeter()
                with meter:
                    train(
                        load_config(None, {**asked, "output_dir": str(files.work / "cost")}),
                        lambda event: None,
                    )
                seconds[kind].append(round(meter.spent["loop"], 3))
                if kind == "with" and meter.share is not None:
                    shares.append(round(meter.share, 5))
        found[name] = {
            "loop_seconds": seconds,
            "metered_share": median(shares),
            "added_share": added_share(seconds),
        }
        tell(
            f"cost, {name}: {found[name]['metered_share']:.2%} metered, {found[name]['added_share']:.2%}"
            " added"
        )
    return found


def added_share(seconds: Mapping[str, list[float]]) -> float:
    """Median over pairs of what the loop with diagnosis takes above the one without."""
    return round(
        median(one / other - 1 for one, other in zip(seconds["with"], seconds["without"], strict=True)),
        5,
    )


def _tasks(files: Files) -> dict[str, Values]:
    """Runs of 60 steps: an encoder on sentences, a small decoder on windows of 256 tokens."""
    steady = {"training.max_steps": 60, "training.early_stopping_patience": 100, "data.validation": 0.1}
    stories = files.write("cost-stories", files.rows("tinystories/stories_lower.jsonl", 200))
    return {
        "encoder": {
            "model.name_or_path": files.encoder,
            "data.train": labelled_intents(files, "train", 600),
            "training.per_device_train_batch_size": 8,
            **steady,
        },
        "decoder": {
            "model.name_or_path": files.model("stories260K"),
            "data.train": stories,
            "data.max_length": 256,
            "training.per_device_train_batch_size": 4,
            **steady,
        },
    }
