"""Forecasts of memory against what was measured: PEFT on a T4, published peaks, and our own engine.

    python benchmarks/advice_memory/run.py               # everything; writes result.json beside this file
    python benchmarks/advice_memory/run.py --only peft   # what needs no run of our own: seconds

The T4's peaks are read from ../shared/evidence, or from the folder that LORALOOM_SHARED names; without it that part is
left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
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
TARGETS = {"peft": (0.02, 0.06), "published": (0.08, None), "own": (0.03, 0.10)}
"""Largest median and worst error that are promised."""


def left_out(records: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By model: the errors on its rows when the one fitted constant is fitted on all other models' rows."""
    found: dict[str, dict[str, float]] = {}
    for model in sorted({record["model"] for record in records}):
        others = [record for record in records if record["model"] != model]
        missing = sorted(record["measured_mib"] - record["forecast_mib"] for record in others)[len(others) // 2]
        own_rows = [record for record in records if record["model"] == model]
        errors = [(record["forecast_mib"] + missing) / record["measured_mib"] - 1 for record in own_rows]
        found[model] = summary([{"error": error} for error in errors]) | {
            "constant_mib": round(WORKSPACE_BYTES / 2**20 + missing, 1)
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("peft", "own"))
    chosen = parser.parse_args().only
    path = HERE / "result.json"
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    result |= {"benchmark": "advice_memory", "schema_version": 1, "environment": environment()["packages"]}
    if chosen != "own":
        if EVIDENCE.exists():
            rows = measured_peft.score(EVIDENCE)
            result["peft"] = {"summary": summary(rows), "left_out": left_out(rows), "rows": rows}
        else:
            print(f"no {EVIDENCE}: the T4's peaks are left out", file=sys.stderr)
        rows = published.score()
        result["published"] = {"summary": summary(rows), "rows": rows}
    if chosen != "peft":
        rows = own.score(lambda line: print(line, file=sys.stderr))
        result["own"] = {"summary": summary(rows), "without_runtime": summary(rows, "error_without_runtime"), "rows": rows}
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for part, (middle, worst) in TARGETS.items():
        if part in result:
            reached = result[part]["summary"]
            promised = f"median {middle:.0%}" + (f", worst {worst:.0%}" if worst else "")
            errors = f"median {reached['median']:.1%}, worst {reached['worst']:.1%}"
            print(f"{part}: {reached['rows']} rows, {errors} (promised {promised})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
