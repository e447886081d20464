"""The GPU path measured in one command, ten minutes at most; what it writes is what to send.

    python benchmarks/gpu/run.py  # all steps on the CUDA device; writes result.json beside this file
    python benchmarks/gpu/run.py --minutes 5     # what fits; the last steps are left out
    python benchmarks/gpu/run.py --only speed    # a step again; the others stay as the result has them
    python benchmarks/gpu/run.py --small
        # every step in seconds on the CPU; writes only where --out says
    python benchmarks/gpu/run.py --table  # the table of README.md; measures nothing

This process never touches the device. Each step has a process and a limit of its own; the result is
written anew after every part of it. Ends with 0 when nothing failed and all steps had their time, else
with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
for folder in (HERE, ROOT / "src"):  # it runs from a checkout where nothing is installed, too
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from isolate import Ending, Isolation, Work  # noqa: E402
from targets import table  # noqa: E402

MINUTES = 9.0
PRELOAD = ("numpy", "torch", "transformers.models.llama.modeling_llama", "loraloom.train.pack")
NO_DEVICE = "not measured: no CUDA device"
LEAST_SECONDS = 5.0
"""With less than this left before the deadline, no further step is begun."""


@dataclass(frozen=True)
class Step:
    """A file of steps/, and the most seconds that it may take."""

    name: str
    limit: float


STEPS = (
    Step("device", 60),
    Step("contract", 110),
    Step("speed", 130),
    Step("where_time_goes", 60),
    Step("switches", 100),
    Step("sizes", 120),
    Step("out_of_memory", 40),
    Step("nf4", 110),
    Step("door", 150),
)
"""In the order of their worth: at the deadline the last are left out."""


class Run:
    """Runs steps one after another and keeps the result on disk.

    Args:
        steps: which, in their order.
        ends_at: by `time.monotonic`.
        result: what is written; steps that it has and that are not run stay.
        spare: write nothing before something was measured: what is there was measured elsewhere.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        ends_at: float,
        result: dict[str, Any],
        out: Path | None,
        *,
        small: bool,
        spare: bool = False,
    ) -> None:
        self.steps, self.ends_at, self.result, self.out, self.small = steps, ends_at, result, out, small
        self.spare = spare
        self.device = "cpu" if small else "cuda"
        self.isolation = Isolation(PRELOAD, self._heard)
        self._name, self._started = "", 0.0

    def run(self) -> bool:
        """Whether all went well."""
        for step in self.steps:
            self.result["steps"][step.name] = {"status": "not run"}
        self.write()
        for step in self.steps:
            left = self.ends_at - time.monotonic()
            if self.device == "none":
                self._keep(step.name, {"status": NO_DEVICE})
            elif left < LEAST_SECONDS:
                self._keep(step.name, {"status": "not run: deadline"})
            else:
                self._one(step, min(step.limit, left))
        return all(
            self.result["steps"][step.name]["status"] in ("done", NO_DEVICE) for step in self.steps
        )

    def _one(self, step: Step, limit: float) -> None:
        self._name, self._started = step.name, time.monotonic()
        say(f"{step.name} ...")
        work = Work("steps.bench", "run_step", (step.name, self.device, self.small))
        ending = self.isolation.run(work, limit)
        if not ending.parts and any(lack in line for line in ending.why for lack in NO_CUDA):
            self.device, ending = "none", Ending(NO_DEVICE)
        self._heard(ending)
        self.result["seconds"] = round(self.result["seconds"] + time.monotonic() - self._started, 1)
        say(f"{step.name}: {ending.status}, {time.monotonic() - self._started:.0f} s")

    def _heard(self, ending: Ending) -> None:
        record: dict[str, Any] = {
            "status": ending.status,
            "date": now(),
            "seconds": round(time.monotonic() - self._started, 1),
        }
        if ending.why:
            record["why"] = ending.why
        self.spare = self.spare and not ending.parts
        self._keep(self._name, record | ({"parts": ending.parts} if ending.parts else {}))

    def _keep(self, name: str, record: dict[str, Any]) -> None:
        self.result["steps"][name] = record
        self.write()

    def write(self) -> None:
        """Put the result in its place at once: a reader never sees half of it."""
        if self.out is not None and not self.spare:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.out.with_suffix(".new")
            fresh.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
            fresh.replace(self.out)


NO_CUDA = (
    "Torch not compiled with CUDA enabled",
    "Found no NVIDIA driver",
    "No CUDA GPUs are available",
    "no CUDA-capable device",
)
"""How torch says that there is nothing to measure on."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def measured(result: dict[str, Any] | None) -> bool:
    """Whether any part of a result was measured."""
    return result is not None and any(step.get("parts") for step in result["steps"].values())


def prepare_environment() -> None:
    """What every process of a step inherits."""
    paths = [str(ROOT / "src"), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    # Whether there is a device is asked of NVML: asking CUDA itself would spoil the
    # processes that are forked afterwards.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    # One device: Trainer would share out its batch over all that it sees.
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    # Processes of steps leave without cleaning up, and Python's own bookkeeper would say so at the end.
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def main(arguments: Sequence[str], steps: Sequence[Step] = STEPS) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="until the deadline (default: %(default)g)"
    )
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        metavar="STEP,STEP",
        help=", ".join(s.name for s in steps),
    )
    parser.add_argument(
        "--small", action="store_true", help="tiny shapes on the CPU: every step, no meaning"
    )
    parser.add_argument(
        "--table", action="store_true", help="print the table of a written result and measure nothing"
    )
    parser.add_argument("--out", type=Path, help="where the result is (to be) written")
    asked = parser.parse_args(arguments)
    ends_at, out = (
        time.monotonic() + 60 * asked.minutes,
        asked.out or (None if asked.small else HERE / "result.json"),
    )
    unknown = set(asked.only or ()) - {step.name for step in steps}
    if unknown:
        parser.error(
            f"no step {', '.join(sorted(unknown))}; there are {', '.join(step.name for step in steps)}"
        )

    before = read(out) if out else None
    if asked.table:
        if before is None:
            say(f"no result at {out}\n  next: run without --table first")
            return 2
        print(table(before))
        return 0
    prepare_environment()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the step's process is ended too
    words = [
        *(["--small"] if asked.small else []),
        *([f"--only {','.join(asked.only)}"] if asked.only else []),
    ]
    result: dict[str, Any] = {
        "benchmark": "gpu",
        "schema_version": 1,
        "command": " ".join(["python benchmarks/gpu/run.py", *words]),
        "date": now(),
        "seconds": 0.0,
        "steps": before["steps"] if before and asked.only else {},
    }
    chosen = [step for step in steps if not asked.only or step.name in asked.only]
    run = Run(chosen, ends_at, result, out, small=asked.small, spare=measured(before))
    well = run.run()
    if not asked.small:
        print(table(result))
    say(f"written: {out}" if out and not run.spare else "nothing was written")
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
