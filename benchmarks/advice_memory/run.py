"""Forecasts against what was measured: memory of PEFT on a T4, published peaks, memory
and time of our own engine.

    python benchmarks/advice_memory/run.py  # everything; writes result.json beside this file
    python benchmarks/advice_memory/run.py --only peft   # what needs no run of our own: seconds
    python benchmarks/advice_memory/run.py --only time   # wants a machine that does nothing else

The T4's peaks are read from ../shared/evidence, or from the folder that LORALOOM_SHARED names; without
it that part is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measured_peft
import own
import published
from measured_peft import summary

from loraloom.facts.device import environment
from loraloom.plan.peft_memory import WORKSPACE_BYTES

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LORALOOM_SHARED", HERE.parents[2] / "shared"))
EVIDENCE = SHARED / "evidence" / "t4_peft_qlora_peaks.json"
TARGETS = {
    "peft": (0.02, 0.06),
    "published": (0.08, None),
    "own": (0.03, 0.10),
    "probed": (None, 0.015),
    "after": (None, 0.10),
    "time": (None, 0.15),
}
"""Largest median and worst error that are wanted."""


def left_out(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By model: the errors on its rows when the one fitted constant is fitted on all
    other models' rows."""
    found: dict[str, dict[str, float]] = {}
    for model in sorted({record["model"] for record in records}):
        others = [record for record in records if record["model"] != model]
        missing = sorted(record["measured_mib"] - record["forecast_mib"] for record in others)[
            len(others) // 2
        ]
        own_rows = [record for record in records if record["model"] == model]
        errors = [(record["forecast_mib"] + missing) / record["measured_mib"] - 1 for record in own_rows]
        found[model] = summary([{"error": error} for error in errors]) | {
            "constant_mib": round(WORKSPACE_BYTES / 2**20 + missing, 1)
        }
    return found


def of_peft() -> dict[str, Any]:
    """The two parts that need no run of ours."""
    made: dict[str, Any] = {}
    if EVIDENCE.exists():
        rows = measured_peft.score(EVIDENCE)
        made["peft"] = {"summary": summary(rows), "left_out": left_out(rows), "rows": rows}
    else:
        print(f"no {EVIDENCE}: the T4's peaks are left out", file=sys.stderr)
    rows = published.score()
    return made | {"published": {"summary": summary(rows), "rows": rows}}


def of_own() -> dict[str, Any]:
    rows = own.score(say)
    summaries = {"summary": summary(rows), "without_runtime": summary(rows, "error_without_runtime")}
    return {"own": {**summaries, "rows": rows}, "probed": {"summary": summary(rows, "probed_error")}}


def of_after() -> dict[str, Any]:
    rows = own.score_after(say)
    return {"after": {"summary": summary(rows), "rows": rows}}


def of_time() -> dict[str, Any]:
    rows = own.score_time(say)
    return {
        "time": {
            "summary": summary(rows),
            "before_probe": summary(rows, "error_before_probe"),
            "rows": rows,
        }
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "peft": of_peft,
    "own": of_own,
    "after": of_after,
    "time": of_time,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS)
    asked, path, about = parser.parse_args().only, HERE / "result.json", environment()
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    result |= {
        "benchmark": "advice_memory",
        "schema_version": 1,
        "command": "python benchmarks/advice_memory/run.py",
        "machine": {"device": about["device"]["name"], "cores": about["cores"], "threads": 1},
        "environment": about["packages"],
    }
    for part in [asked] if asked else PARTS:
        result |= PARTS[part]()
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for part, (middle, worst) in TARGETS.items():
        if part in result:
            reached = result[part]["summary"]
            wanted = ", ".join(
                f"{name} {size:.1%}" for name, size in (("median", middle), ("worst", worst)) if size
            )
            errors = f"median {reached['median']:.1%}, worst {reached['worst']:.1%}"
            print(f"{part}: {reached['rows']} rows, {errors} (wanted {wanted})")
    return 0


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
