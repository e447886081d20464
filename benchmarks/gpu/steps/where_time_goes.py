"""Where a tick's time goes: each wait of the host for the device by its line, kernels
by their time, launches, and gaps."""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, supported_activities

import loraloom
from steps.bench import Bench
from steps.packs import DTYPE
from steps.training import build, engine, make_rows, pack_of, peft_step, synchronise

PACKAGE = Path(loraloom.__file__).parent
WARM, TICKS = 6, 3
"""Of each that are not looked at, and that are."""
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHING = ("LaunchKernel", "GraphLaunch", "Memcpy", "Memset")
SYNCHRONISING = "Synchronize"
SAID = "called a synchronizing"
"""What torch warns of, beside other warnings."""


def measure(bench: Bench) -> None:
    shape, tokens, most = ("small", 8, 2) if bench.small else ("1B", 256, 16)
    model = build(shape, DTYPE, bench.device)

    def ticking(packed: int) -> Callable[[], object]:
        trainer = engine(model, make_rows(tokens, model.config.vocab_size))
        pack_of(model, trainer, packed)
        return trainer.tick

    bench.part(f"waits, K={most}", lambda: waits(bench, ticking(most)))
    for packed in (most, 1):
        bench.part(f"profile, K={packed}", lambda packed=packed: profiled(bench, ticking(packed)))
    bench.part("profile, PEFT loop", lambda: profiled(bench, peft_step(model, tokens)))


def waits(bench: Bench, tick: Callable[[], object]) -> dict[str, Any]:
    """Waits a tick, by the innermost line of loraloom that led to them, and where that led to."""
    bench.only_on_cuda()
    for _ in range(WARM):
        tick()
    synchronise(bench)
    with waiting_lines() as lines:
        for _ in range(TICKS):
            tick()
    return {
        "waits_per_tick": lines.total() / TICKS,
        "by_line": {line: count / TICKS for line, count in lines.most_common()},
    }


@contextmanager
def waiting_lines() -> Generator[Counter[str]]:
    """Counts what torch calls a synchronising operation. Backward passes tell of theirs
    when they end."""
    lines: Counter[str] = Counter()

    def note(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
        if SAID in str(message):
            lines[line_of(filename, lineno)] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lines
        finally:
            torch.cuda.set_sync_debug_mode("default")


def line_of(filename: str, lineno: int) -> str:
    """The innermost line of loraloom on the stack; where another library was asked from
    there, its line as well."""
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE):
            own = f"{file.relative_to(PACKAGE)}:{frame.f_lineno}"
            there = (
                ""
                if Path(filename).is_relative_to(PACKAGE)
                else f" in {'/'.join(Path(filename).parts[-3:])}:{lineno}"
            )
            return own + there
        frame = frame.f_back
    return f"{'/'.join(Path(filename).parts[-3:])}:{lineno}"


def profiled(bench: Bench, tick: Callable[[], object]) -> dict[str, Any]:
    """Kernels, launches and gaps a tick."""
    for _ in range(WARM):
        tick()
    synchronise(bench)
    # Not the host's operations on CUDA: to note each of them slows the host, and would show as gaps.
    seen = bench.on_cuda and ProfilerActivity.CUDA in supported_activities()
    activities = [ProfilerActivity.CUDA if seen else ProfilerActivity.CPU]
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        with profile(activities=activities) as looked:
            for _ in range(TICKS):
                tick()
            synchronise(bench)
        looked.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    return summary(
        [event for event in events if event.get("ph") == "X"], ON_DEVICE if seen else ("cpu_op",)
    )


def summary(events: Sequence[dict[str, Any]], categories: Sequence[str]) -> dict[str, Any]:
    """Of the events of a trace (`ts` and `dur` in microseconds), those of these
    categories being the device's own work."""
    own = [event for event in events if event.get("cat") in categories]
    asked = [
        str(event["name"]) for event in events if event.get("cat") in ("cuda_runtime", "cuda_driver")
    ]
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in own:
        spent[str(event["name"])] += event["dur"]
        calls[str(event["name"])] += 1
    top = [
        {"name": name[:120], "ms": microseconds / 1e3 / TICKS, "calls": calls[name] / TICKS}
        for name, microseconds in spent.most_common(20)
    ]
    return {
        "launches_per_tick": sum(any(word in name for word in LAUNCHING) for name in asked) / TICKS,
        "synchronisations_per_tick": sum(SYNCHRONISING in name for name in asked) / TICKS,
        "device_operations_per_tick": len(own) / TICKS,
        "top": top,
        **gaps_between([(event["ts"], event["ts"] + event["dur"]) for event in own]),
    }


def gaps_between(spans: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """How much of the time from the first span to the last something ran, and the
    spaces where nothing did.

    Args:
        spans: beginnings and ends in microseconds, in any order; they may overlap.
    """
    if not spans:
        return {"busy_share": None}
    ordered = sorted(spans)
    busy, (began, end), gaps = 0.0, ordered[0], list[float]()
    for start, stop in ordered[1:]:
        if start > end:
            gaps.append(start - end)
            busy += end - began
            began = start
        end = max(end, stop)
    busy += end - began
    whole = end - ordered[0][0]
    return {
        "busy_share": busy / whole if whole else 1.0,
        "busy_ms": busy / 1e3 / TICKS,
        "tick_ms": whole / 1e3 / TICKS,
        "gaps_per_tick": len(gaps) / TICKS,
        "largest_gaps_us": sorted(gaps, reverse=True)[:5],
        "gaps_ms": {
            "under 10 us": sum(gap for gap in gaps if gap < 10) / 1e3 / TICKS,
            "10 to 100 us": sum(gap for gap in gaps if 10 <= gap < 100) / 1e3 / TICKS,
            "over 100 us": sum(gap for gap in gaps if gap >= 100) / 1e3 / TICKS,
        },
    }
