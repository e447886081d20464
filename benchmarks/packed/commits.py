"""What commits of this repository are worth to one another: the engine of each, side by side in one run.

    python benchmarks/packed/commits.py 2891fee HEAD    # writes commits.json beside this file
    python benchmarks/packed/commits.py --show

Each commit is taken out into a folder of its own and measured by today's arms (`arms.py`), every arm in
a process of its own, commits in turn and every second round in the opposite order. Ratios are formed
inside a round.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import describe, versions

HERE = Path(__file__).resolve().parent
RESULT = HERE / "commits.json"
ARMS = [
    (k, tokens, dropout) for tokens in (32, 128) for k, dropout in ((1, 0.0), (8, 0.0), (32, 0.0))
] + [(8, 32, 0.1)]
"""Candidates, tokens of a row, dropout."""
ROUNDS = 3
ONE_ARM = """
import json, sys
from arms import Arm, Pace, measure
from rounds import read_profile
adapters, tokens, dropout = json.loads(sys.argv[1])
profile = read_profile("cpu")
arm = Arm("loraloom", "bfloat16", adapters, tokens, dropout)
sample = measure(arm, profile.model, Pace(**profile.pace), "cpu")
print(json.dumps([sample.tokens_per_second, sample.peak_bytes]))
"""


def take_out(commit: str, folder: Path) -> str:
    """The sources of a commit, into `folder`; gives its short name."""
    words = ["git", "archive", commit, "src"]
    packed = subprocess.run(words, cwd=HERE.parents[1], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    named = subprocess.run(
        ["git", "rev-parse", "--short", commit], cwd=HERE, capture_output=True, text=True, check=True
    )
    return named.stdout.strip()


def measure(sources: Path, arm: tuple[int, int, float]) -> tuple[float, int]:
    """(tokens/s, peak bytes) of one arm by the engine in `sources`."""
    environment = os.environ | {"PYTHONPATH": str(sources / "src")}
    words = [sys.executable, "-c", ONE_ARM, json.dumps(arm)]
    done = subprocess.run(words, cwd=HERE, env=environment, capture_output=True, text=True, check=True)
    speed, peak = json.loads(done.stdout.splitlines()[-1])
    return speed, peak


def run(commits: Sequence[str], rounds: int) -> dict[str, Any]:
    samples: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        folders = {
            take_out(commit, Path(place) / str(n)): Path(place) / str(n)
            for n, commit in enumerate(commits)
        }
        for number in range(rounds):
            order = list(folders) if number % 2 == 0 else list(folders)[::-1]
            for arm in ARMS:
                for commit in order:
                    speed, peak = measure(folders[commit], arm)
                    samples.append(
                        {
                            "round": number,
                            "commit": commit,
                            "arm": arm,
                            "tokens_per_second": speed,
                            "peak_bytes": peak,
                        }
                    )
                    print(
                        f"round {number + 1}, {commit}, {words_of(arm)}: {speed:,.0f} tokens/s",
                        file=sys.stderr,
                    )
    return {
        "command": " ".join(["python benchmarks/packed/commits.py", *commits]),
        "commits": list(folders),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe("cpu"),
        "versions": versions(),
        "samples": samples,
    }


def words_of(arm: Sequence[float]) -> str:
    return f"K={arm[0]:g}, {arm[1]:g} tokens" + (f", dropout {arm[2]:g}" if arm[2] else "")


def table(result: dict[str, Any]) -> str:
    """Speed and peak memory of the last commit as a multiple of the first one's: median
    over rounds, lowest, highest."""
    first, last = result["commits"][0], result["commits"][-1]
    lines = [f"{'':<28}{f'speed of {last} over {first}':>34}{'peak memory':>14}"]
    for arm in ARMS:
        own = [each for each in result["samples"] if tuple(each["arm"]) == arm]
        by = {commit: {s["round"]: s for s in own if s["commit"] == commit} for commit in (first, last)}
        speeds = [
            by[last][n]["tokens_per_second"] / by[first][n]["tokens_per_second"] for n in by[first]
        ]
        peaks = [by[last][n]["peak_bytes"] / by[first][n]["peak_bytes"] for n in by[first]]
        spread = f"{statistics.median(speeds):.3f} ({min(speeds):.3f}-{max(speeds):.3f})"
        lines.append(f"{words_of(arm):<28}{spread:>34}{statistics.median(peaks):>14.3f}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "commits", nargs="*", default=["HEAD~1", "HEAD"], help="what git knows a commit by"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--show", action="store_true", help="the table of the last result; measures nothing"
    )
    asked = parser.parse_args(arguments)
    if not asked.show:
        RESULT.write_text(
            json.dumps(run(asked.commits, asked.rounds), indent=1) + "\n", encoding="utf-8"
        )
    print(table(json.loads(RESULT.read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
