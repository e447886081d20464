"""Preference runs: is the plan's rate good, are planted faults found, and what do eight candidates cost?

    python benchmarks/preferences/run.py                 # all of it; writes result.json
    python benchmarks/preferences/run.py --part faults   # that part alone
    python benchmarks/preferences/run.py --part faults --only beta    # cases of that word
    python benchmarks/preferences/run.py --shared D      # where models/ and data/ are

Models and data are in ../shared where nothing else is said. The part `trl` needs TRL 1.16. README.md
says how to read the result.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import beside_trl
import planted
import sweep
import torch

from loraloom.facts.device import environment

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"
RESULT = HERE / "result.json"
PARTS = ("sweep", "one-pass", "faults", "second", "third", "fourth", "trl")


def measured(part: str, shared: Path, work: Path, only: str) -> Any:
    match part:
        case "sweep":
            return sweep.run_all(shared, work)
        case "one-pass":
            return sweep.run_one_pass(shared, work)
        case "faults":
            return planted.run_all(shared, work, planted.FIRST, only)
        case "second":
            return planted.run_all(shared, work, planted.SECOND, only)
        case "third":
            return planted.run_all(shared, work, planted.drawn(0), only)
        case "fourth":
            return planted.run_all(shared, work, planted.drawn(1), only)
        case _:
            return beside_trl.run_all(shared, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--only", default="", help="cases of planted faults; writes nothing")
    parser.add_argument("--shared", type=Path, default=SHARED)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    known: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    for part in asked.part or PARTS:
        started = time.process_time()
        with tempfile.TemporaryDirectory() as work:
            found = measured(part, asked.shared.resolve(), Path(work), asked.only)
        known[part] = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpu_seconds": round(time.process_time() - started, 1),
            "environment": environment("float32"),
            "found": found,
        }
        if not asked.only:
            RESULT.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
