"""The forecast of our own engine against runs of it, each measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shapes import SHAPES, Shape

MEASURE = Path(__file__).resolve().with_name("measure.py")
SECONDS = 300


def score(say: Callable[[str], None], shapes: Sequence[Shape] = SHAPES) -> list[dict[str, Any]]:
    """One record a shape: forecast and measured bytes, in all and beside what the process held before."""
    made: list[dict[str, Any]] = []
    for shape in shapes:
        record = judged(alone(shape))
        made.append(record)
        say(
            f"{record['name']}: {record['forecast_bytes'] / 1e6:,.0f} MB forecast, {record['measured_bytes'] / 1e6:,.0f} measured"
        )
    return made


def alone(shape: Shape) -> dict[str, Any]:
    """What measure.py prints for a shape; one thread, so that a forecast of one machine holds on another."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, str(MEASURE), json.dumps(asdict(shape))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{shape.name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def judged(record: dict[str, Any]) -> dict[str, Any]:
    """A record with its errors: of the whole process, and of what the run added to it."""
    forecast, measured, before = record["forecast_bytes"], record["measured_bytes"], record["before_bytes"]
    moving = (forecast - record["parts"]["runtime"]) / max(1, measured - before) - 1
    return record | {"error": round(forecast / measured - 1, 4), "error_without_runtime": round(moving, 4)}
