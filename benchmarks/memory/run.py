"""Packs over a base in few bits: speed, memory, forecasts, loss, and a billion numbers under 4 GiB.

    python benchmarks/memory/run.py                 # about half an hour on two cores; writes result.json
    python benchmarks/memory/run.py --only gap      # one of its parts anew; the others stay
    python benchmarks/memory/run.py --quick         # every part in seconds; writes only where --out says
    python benchmarks/memory/run.py --table         # the tables of README.md; measures nothing
    python benchmarks/memory/run.py --shared S      # where models and data are, if not in ../shared

README.md says what is measured and how to read the result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent / "packed"):
    sys.path.insert(0, str(folder))

from machine import describe, versions  # noqa: E402
from packs import FULL, QUICK, Packs, alone  # noqa: E402
from promises import table  # noqa: E402

SHARED = Path(os.environ.get("LORALOOM_SHARED", HERE.parents[2] / "shared"))
PARTS = ("held", "probed", "timed", "float32", "gap", "billion")


class Run:
    """Measures parts; `work` is where bases lie."""

    def __init__(self, work: Path, shared: Path, *, quick: bool) -> None:
        self.work, self.shared, self.quick = work, shared, quick
        self._packs: Packs | None = None

    @property
    def packs(self) -> Packs:
        if self._packs is None:
            self._packs = Packs(QUICK if self.quick else FULL, self.work / "packs", say)
        return self._packs

    def part(self, name: str) -> Any:
        made: dict[str, Callable[[], Any]] = {
            "held": lambda: self.packs.held(),
            "probed": lambda: self.packs.probed(),
            "timed": lambda: self.packs.timed(),
            "float32": self.float32,
            "gap": self.gap,
            "billion": self.billion,
        }
        return made[name]()

    def float32(self) -> dict[str, Any]:
        """The memory of a float32 pack beside PEFT + Trainer's, as benchmarks/packed measures it."""
        found = {key: self._alone("float32_memory", key) for key in ("ours", "theirs")}
        return {
            "packed": found["ours"]["adapters"],
            "tokens": found["ours"]["tokens"],
            **{key: one["peak_bytes"] for key, one in found.items()},
        }

    def gap(self) -> dict[str, Any] | None:
        """What few bits cost in loss; None where the shared model is not there."""
        if not self.shared.is_dir():
            say(f"gap: left out, for there is no {self.shared}\n  next: --shared FOLDER")
            return None
        return self._alone("loss_gap", str(self.shared))

    def billion(self) -> dict[str, Any]:
        place = self.work / "billion"
        place.mkdir()
        return self._alone("one_billion", str(place))

    def _alone(self, script: str, word: str) -> dict[str, Any]:
        return alone(script, [word, *(["--quick"] if self.quick else [])], 1, inside=self.quick)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, help="make these parts of the result anew")
    parser.add_argument("--quick", action="store_true", help="tiny models, every part, no meaning")
    parser.add_argument("--table", action="store_true", help="print the tables of a written result")
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path, help="where the result is (to be) written")
    asked = parser.parse_args(arguments)
    out: Path | None = asked.out or (None if asked.quick else HERE / "result.json")
    before = json.loads(out.read_text()) if out and out.is_file() else None
    if asked.table:
        if before is None:
            say(f"no result at {out}\n  next: run without --table first")
            return 2
        print(table(before))
        return 0
    result: dict[str, Any] = dict(before) if before and asked.only else {}
    result |= {
        "benchmark": "memory",
        "schema_version": 1,
        "command": "python benchmarks/memory/run.py" + (" --quick" if asked.quick else ""),
        "machine": describe("cpu"),
        "versions": versions(),
    }
    dates: dict[str, Any] = result.setdefault("dates", {})
    with TemporaryDirectory(prefix="memory-") as work:
        run = Run(Path(work), asked.shared, quick=asked.quick)
        for name in asked.only or PARTS:
            began = time.perf_counter()
            found = run.part(name)
            if found is not None:
                result[name] = found
                dates[name] = datetime.now(UTC).isoformat(timespec="seconds")
            say(f"{name}: {time.perf_counter() - began:.0f} s")
            if out is not None:
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
