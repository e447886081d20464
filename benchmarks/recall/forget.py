"""What forgetting does to the forgotten item and to the others, by suppression and by training anew.

    python benchmarks/recall/forget.py                     # 10 minutes of one core
    python benchmarks/recall/forget.py --sessions 1        # smaller
    python benchmarks/recall/forget.py --show              # the table of the committed result

Invented items of `recall.workload` are written and learnt session by session, and settled. Each target
is then forgotten in a copy of that memory, as `loraloom recall forget` does it, and the first of them
once more with `--rebuild`. What is measured is the proof that the command writes into the journal: the
share of the target's wordings, trained and never trained, that are answered with its answer; of all
others the question as it was written, their wordings that are never trained, and the five nearest items.
A target is kept in forget.json when it is done, and is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from loraloom.errors import RunError
from loraloom.pipeline.recall.forgetting import forget
from loraloom.pipeline.recall.learning import learn
from loraloom.pipeline.recall.sleeping import sleep
from loraloom.pipeline.recall.writing import write
from loraloom.recall.memory import opened
from loraloom.recall.workload import workload

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LORALOOM_SHARED") or HERE.parents[2] / "shared")
RESULT = HERE / "forget.json"
SESSIONS, ITEMS, TARGETS, SEED = 2, 20, 5, 0


def quiet(sentence: str) -> None:
    """Nobody watches."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(SHARED / "models" / "tinychat-5M"))
    parser.add_argument("--sessions", type=int, default=SESSIONS, help="of twenty items")
    parser.add_argument("--targets", type=int, default=TARGETS)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--show", action="store_true", help="the table of what is there; runs nothing")
    parser.add_argument("--work", type=Path, help="where the memory lies; by default for this run only")
    asked = parser.parse_args()
    if not asked.show:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            run(asked, asked.work or Path(folder))
    print(table(json.loads(asked.out.read_text())))


def run(asked: argparse.Namespace, work: Path) -> None:
    made = workload(SEED, sessions=asked.sessions, items=ITEMS)
    found: dict[str, Any] = {
        "workload": made.digest,
        "model": Path(asked.model).name,
        "items": len(made.items),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "targets": {},
    }
    if asked.out.is_file() and (old := json.loads(asked.out.read_text()))["workload"] == made.digest:
        found["targets"] = old["targets"]
    memory = work / "memory"
    if not (memory / "memory.json").is_file():
        for session in made.sessions:
            write(memory, asked.model, [], session, quiet)
            learn(memory, quiet, seeds=1)
        sleep(memory, quiet)
    with opened(memory) as one:
        names = [entry.id for entry in one.state.known]
        found["learnt"], found["slept"] = (told["after"] for told in one.state.told[-2:])
    targets = names[:: len(names) // asked.targets][: asked.targets]
    for name, rebuild in [*((name, False) for name in targets), (targets[0], True)]:
        called = f"{name}, rebuilt" if rebuild else name
        if called not in found["targets"]:
            found["targets"][called] = forgotten(memory, work / "copy", name, rebuild)
            asked.out.write_text(json.dumps(found, indent=1) + "\n")


def forgotten(memory: Path, copy: Path, name: str, rebuild: bool) -> dict[str, Any]:
    """The proof of one forgetting in a copy of the memory; its fault too, where it was rolled back."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(memory, copy)
    began = time.process_time()
    with suppress(RunError):  # of one that is rolled back the journal has the reason
        forget(copy, name, quiet, rebuild=rebuild)
    with opened(copy) as one:
        record = one.state.told[-1]
    kept = {key: record.get(key) for key in ("committed", "reason", "proof")}
    return {**kept, "core_seconds": round(time.process_time() - began, 1)}


def table(found: dict[str, Any]) -> str:
    """A line for each target, for people."""
    lines = [
        "| forgotten | its wordings answered | by the base | others, as written | other wordings"
        " | nearest five | perplexity | core-s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found["targets"].items():
        proof = one["proof"]
        before, after = proof["others_before"], proof["others_after"]
        cells = [
            name if one["committed"] else f"{name} (rolled back: {one['reason']})",
            f"{proof['target_before']:.2f} to {proof['target_after']:.2f}",
            f"{proof['chance']:.2f}",
            f"{before['verbatim']:.3f} to {after['verbatim']:.3f}",
            f"{before['held_out']:.3f} to {after['held_out']:.3f}",
            f"{proof['neighbours_before']:.2f} to {proof['neighbours_after']:.2f}",
            f"{before['perplexity']:.2f} to {after['perplexity']:.2f}",
            f"{one['core_seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
