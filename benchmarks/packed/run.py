"""Packed training against PEFT + transformers.Trainer, side by side in one run.

    python benchmarks/packed/run.py  # the CPU benchmark; writes result.json beside this file
    python benchmarks/packed/run.py --device cuda    # the GPU benchmark; writes result-cuda.json
    python benchmarks/packed/run.py --quick  # every path in seconds; writes only where --out says
    python benchmarks/packed/run.py --show           # the tables of the last result; measures nothing

Every arm is measured in a process of its own, in rounds: one sample of each arm, then all over again in
the opposite order. README.md says how to read the result.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from arms import Arm, Sample
from machine import describe, versions
from rounds import Bench, Profile, read_profile
from verdict import Claim, Measured, claims, summaries, table_of_arms, table_of_claims

HERE = Path(__file__).resolve().parent


def result_of(bench: Bench, command: str, seconds: float) -> dict[str, Any]:
    """Everything that is known of a run, ready for JSON."""
    profile = bench.profile
    return {
        "benchmark": "packed",
        "schema_version": 1,
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "device": bench.device,
        "machine": describe(bench.device),
        "versions": versions(),
        "config": asdict(profile),
        "targets": [
            _claim(claim) for claim in claims(bench.measured, profile.targets, profile.headline)
        ],
        "arms": [asdict(row) for row in summaries(bench.measured)],
        "samples": [_measured(each) for each in bench.measured],
    }


def _claim(claim: Claim) -> dict[str, Any]:
    return asdict(claim) | {"reached": claim.reached, "met": claim.met}


def _measured(each: Measured) -> dict[str, Any]:
    """A sample with what follows from it."""
    return {
        "round": each.round,
        "matmul_rate": each.matmul_rate,
        "sample": asdict(each.sample),
        "tokens_per_second": each.sample.tokens_per_second,
        "matmul_fraction": each.matmul_fraction,
    }


def read_measured(result: dict[str, Any]) -> list[Measured]:
    """The samples of a written result."""
    found: list[Measured] = []
    for each in result["samples"]:
        sample = each["sample"] | {
            "arm": Arm(**each["sample"]["arm"]),
            "step_seconds": tuple(each["sample"]["step_seconds"]),
        }
        found.append(Measured(each["round"], each["matmul_rate"], Sample(**sample)))
    return found


def tables(measured: Sequence[Measured], profile: Profile) -> str:
    promises = claims(measured, profile.targets, profile.headline)
    return f"{table_of_arms(summaries(measured))}\n\n{table_of_claims(promises)}"


def show(path: Path) -> int:
    """Print the tables of a written result, judged by the targets of today's configuration."""
    if not path.is_file():
        print(f"no result at {path}\n  next: run without --show first", file=sys.stderr)
        return 2
    result = json.loads(path.read_text())
    name = "quick" if "--quick" in result["command"] else result["device"]
    print(
        f"{result['command']}, {result['date']}, {result['machine']['processor']},"
        f" {result['machine']['cores']} cores\n"
    )
    print(tables(read_measured(result), read_profile(name)))
    return 0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Packed training against PEFT + transformers.Trainer.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="tiny model, every path, no meaning")
    parser.add_argument(
        "--show", action="store_true", help="print the tables of a written result and measure nothing"
    )
    parser.add_argument("--out", type=Path, help="where the result is (to be) written")
    asked = parser.parse_args(arguments)

    usual = HERE / ("result.json" if asked.device == "cpu" else f"result-{asked.device}.json")
    if asked.show:
        return show(asked.out or usual)
    started = time.perf_counter()
    bench = Bench(
        read_profile("quick" if asked.quick else asked.device),
        asked.device,
        lambda text: print(text, file=sys.stderr),
    )
    bench.run()
    print(tables(bench.measured, bench.profile))

    out: Path | None = asked.out or (None if asked.quick else usual)
    if out is not None:
        options = [
            *(["--device", asked.device] if asked.device != "cpu" else []),
            *(["--quick"] if asked.quick else []),
        ]
        result = result_of(
            bench, " ".join(["python benchmarks/packed/run.py", *options]), time.perf_counter() - started
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwritten: {out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
