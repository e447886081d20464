"""Loads a benchmark's script as a module."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(benchmark: str, name: str = "run", called: str | None = None) -> Any:
    """`benchmarks/BENCHMARK/NAME.py`. Every benchmark has a run.py, so it is loaded
    under a name of its own, or `called`."""
    called = called or f"{benchmark}_{name}"
    spec = importlib.util.spec_from_file_location(called, BENCHMARKS / benchmark / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module
    spec.loader.exec_module(module)
    return module
