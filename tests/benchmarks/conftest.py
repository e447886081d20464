"""The benchmark's files are scripts beside one another, not a package: tests find them
as a run from their folder does."""

from __future__ import annotations

import sys
from pathlib import Path

PACKED = Path(__file__).resolve().parents[2] / "benchmarks" / "packed"
sys.path.insert(0, str(PACKED))
