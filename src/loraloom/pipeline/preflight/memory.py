"""Does the longest batch fit, with its optimiser and a pass that scores?"""

from __future__ import annotations

import math
from dataclasses import replace

from loraloom.config.units import parse_bytes
from loraloom.pipeline.preflight.rehearsal import Rehearsal
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject
from loraloom.plan.memory import forecast_memory
from loraloom.plan.numbers import bytes_text
from loraloom.plan.shape import decided_shape

NAME = "memory"
FULL = 0.92
"""Share of the memory that may be used: fragments and neighbours want the rest."""


def inspect(subject: Subject) -> CheckResult:
    """Fails above 92% of what is free, measured on the real model; where it was not
    run, on the forecast's upper end."""
    rehearsal = subject.rehearsal
    if rehearsal is None or rehearsal.absent:
        return _forecast(subject)
    allowed = _allowed(subject, rehearsal)
    size = f"{rehearsal.rows} x {rehearsal.length:,} tokens"
    if rehearsal.ran_out or rehearsal.peak_bytes > FULL * allowed:
        needs = "more than there is" if rehearsal.ran_out else bytes_text(rehearsal.peak_bytes)
        forecast = subject.plan.forecast["memory"]
        factor = max(1.0, rehearsal.peak_bytes / forecast.value)
        return _too_much(subject, f"a batch of {size} needs {needs}", allowed, factor)
    number = f"{bytes_text(rehearsal.peak_bytes)} of {bytes_text(allowed)}"
    return CheckResult(
        NAME,
        "ok",
        f"the longest batch fits: {size} forwards, backwards, a step and scoring, measured",
        number=number,
    )


def _forecast(subject: Subject) -> CheckResult:
    shape = decided_shape(subject.plan.settings)
    allowed = subject.case.memory_budget
    need = forecast_memory(subject.case, shape)
    size = f"{shape.micro_batch} x {shape.length:,} tokens"
    if need.high > allowed:
        return _too_much(subject, f"a batch of {size} needs up to {bytes_text(need.high)}", allowed, 1.0)
    number = (
        f"{bytes_text(need.value)} ({bytes_text(need.low)} to {bytes_text(need.high)}) of"
        f" {bytes_text(allowed)}"
    )
    return CheckResult(NAME, "ok", f"the longest batch fits: {size}, by forecast", number=number)


def _too_much(subject: Subject, needs: str, allowed: float, factor: float) -> CheckResult:
    """Name what takes most, and the largest batch that fits.

    Args:
        factor: what was measured over what was forecast.
    """
    shape = decided_shape(subject.plan.settings)
    fits = largest_that_fits(subject, allowed, factor)
    parts = forecast_memory(subject.case, shape).parts
    most = ", ".join(
        f"{name} {bytes_text(size)}"
        for name, size in sorted(parts.items(), key=lambda part: -part[1])[:3]
    )
    taken = subject.case.held_by_others
    what = f"{needs}, {bytes_text(allowed)} may be used{f' ({taken})' if taken else ''}"
    if fits is None:
        low = forecast_memory(subject.case, replace(shape, micro_batch=1, length=8))
        return CheckResult(
            NAME,
            "fail",
            what,
            number="no batch fits, not one row of 8 tokens",
            cause=f"it goes to {most}",
            command=f"--memory {math.ceil(low.high * factor / 2**20)}MiB at least, or a smaller model",
        )
    rows, length = fits
    if length == shape.length:
        windows = subject.plan.settings.accumulation * -(-shape.micro_batch // rows)
        command = f"--batch-size {rows} --set training.gradient_accumulation_steps={windows}"
    else:
        command = f"--batch-size {rows} --set data.max_length={length}"
    return CheckResult(
        NAME,
        "fail",
        what,
        number=f"the largest that fits is {rows} x {length:,} tokens",
        cause=f"it goes to {most}",
        command=command,
    )


def largest_that_fits(subject: Subject, allowed: float, factor: float) -> tuple[int, int] | None:
    """(rows, tokens a row) by halving first the rows, then their length; None where not
    even 1 x 8 fits."""
    shape = decided_shape(subject.plan.settings)
    rows = shape.micro_batch
    length = shape.length
    while length >= 8:
        tried = forecast_memory(subject.case, replace(shape, micro_batch=rows, length=length))
        if tried.high * factor <= allowed and (rows, length) != (shape.micro_batch, shape.length):
            return rows, length
        rows, length = (rows // 2, length) if rows > 1 else (1, length // 2)
    return None


def _allowed(subject: Subject, rehearsal: Rehearsal) -> int:
    """Bytes that this process may hold: the limit, or what was free and what it held already."""
    asked = subject.config.limits.memory
    return (
        subject.facts.device.free_bytes + rehearsal.held_bytes if asked == "auto" else parse_bytes(asked)
    )
