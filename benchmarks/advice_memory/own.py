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

from shapes import AFTER, SHAPES, TIMED, Shape

Say = Callable[[str], None]

MEASURE = Path(__file__).resolve().with_name("measure.py")
SECONDS = 900


def score(say: Say, shapes: Sequence[Shape] = SHAPES) -> list[dict[str, Any]]:
    """One record a shape: bytes measured, forecast, and forecast after a probe, in all
    and beside what was there before."""
    made: list[dict[str, Any]] = []
    for shape in shapes:
        record = judged(alone("trained", shape)) | alone("probed", shape)
        record["probed_error"] = round(record["probed_bytes"] / record["measured_bytes"] - 1, 4)
        made.append(record)
        say(f"{_told(record)}, {record['probed_bytes'] / 1e6:,.0f} after a probe")
    return made


def score_after(say: Say, shapes: Sequence[Shape] = AFTER) -> list[dict[str, Any]]:
    """The same of writing answers and of merging, which no probe measures."""
    made: list[dict[str, Any]] = []
    for mode, what in (("answered", "generation"), ("exported", "export")):
        for shape in shapes:
            made.append({"of": what} | judged(alone(mode, shape)))
            say(f"{what} of {_told(made[-1])}")
    return made


def score_time(say: Say, shapes: Sequence[Shape] = TIMED) -> list[dict[str, Any]]:
    """One record a shape: seconds forecast before and after ten steps, and measured."""
    made: list[dict[str, Any]] = []
    for shape in shapes:
        record = alone("timed", shape)
        record["error"] = round(record["forecast_seconds"] / record["measured_seconds"] - 1, 4)
        record["error_before_probe"] = round(
            record["before_probe_seconds"] / record["measured_seconds"] - 1, 4
        )
        made.append(record)
        say(
            f"{shape.name}: {record['forecast_seconds']:.1f} s from ten steps,"
            f" {record['measured_seconds']:.1f} measured"
        )
    return made


def alone(mode: str, shape: Shape) -> dict[str, Any]:
    """What measure.py prints for a shape; one thread, so that a forecast of one machine
    holds on another."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, str(MEASURE), mode, json.dumps(asdict(shape))]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{shape.name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _told(record: dict[str, Any]) -> str:
    return (
        f"{record['name']}: {record['forecast_bytes'] / 1e6:,.0f} MB forecast,"
        f" {record['measured_bytes'] / 1e6:,.0f} measured"
    )


def judged(record: dict[str, Any]) -> dict[str, Any]:
    """A record with its errors: of the whole process, and of what the run added to it."""
    forecast, measured, before = (
        record["forecast_bytes"],
        record["measured_bytes"],
        record["before_bytes"],
    )
    moving = (forecast - record["parts"]["runtime"]) / max(1, measured - before) - 1
    return record | {
        "error": round(forecast / measured - 1, 4),
        "error_without_runtime": round(moving, 4),
    }
