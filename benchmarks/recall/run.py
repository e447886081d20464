"""Ten sessions of twenty invented things: what is remembered, by ours and by others, and at what cost.

    python benchmarks/recall/run.py                      # 40 minutes of two cores; writes sessions.json
    python benchmarks/recall/run.py --only ours joint    # some methods; the parts of others stay
    python benchmarks/recall/run.py --quick              # two sessions of five, to see that it runs
    python benchmarks/recall/run.py --show               # the tables of the committed result

Each method and seed is a process of its own that leaves a part in --work; a run that was ended goes on
with those that are missing. README.md says what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LORALOOM_SHARED") or HERE.parents[2] / "shared")
RESULT = HERE / "sessions.json"
SEEDS = (0, 1, 2)
SESSIONS, ITEMS = 10, 20
SHORT = 3
"""Sessions of an ablation, on the first seed."""
SEARCHED = 2
"""Sessions that a baseline's rate is looked for on."""
RATES = (1e-3, 2e-3, 4e-3)
STRENGTHS = (0.01, 0.1, 1.0)
"""Of elastic weight consolidation, at the best rate of naive learning; looked for on `FEW` items of a
session."""
FEW = 5
COMPARED = ("no memory", "retrieval", "naive", "replay", "merged", "elastic", "joint", "ours")
AT_ITS_RATE = ("naive", "merged", "elastic", "replay")
"""Baselines that train as naive learning does, or nearly, and at the rate that is best for it. Joint
retraining has the recipe of ours, its rate too."""


@dataclass(frozen=True)
class Spec:
    """One run.

    Attributes:
        rate: None for the preset's.
        strength: of elastic weight consolidation alone.
        steps: of joint retraining alone.
    """

    method: str
    seed: int
    sessions: int
    items: int
    rate: float | None = None
    strength: float | None = None
    steps: int | None = None

    @property
    def name(self) -> str:
        """Of its part."""
        rate = "" if self.rate is None else f" at {self.rate:g}"
        strength = "" if self.strength is None else f" pulled {self.strength:g}"
        steps = "" if self.steps is None else f" for {self.steps}"
        return f"{self.method}, seed {self.seed}, {self.sessions} x {self.items}{rate}{strength}{steps}"


def method_of(spec: Spec) -> Callable[[Any], Any]:
    """What a spec runs."""
    import methods
    import others

    plain: dict[str, Callable[[Any], Any]] = {
        "no memory": methods.no_memory,
        "retrieval": others.retrieval,
        "naive": methods.sequential(methods.NAIVE),
        "replay": methods.sequential(methods.BARE),
        "merged": methods.merged,
        "elastic": others.elastic(spec.strength or 0.0),
        "joint": methods.joint(spec.steps or 0),
        "controls": others.controls,
    }
    ablations = {name: methods.with_sleep(recipe) for name, recipe in methods.ABLATIONS.items()}
    return {**plain, **ablations}[spec.method]


def part_of(spec: Spec, shared: Path) -> dict[str, Any]:
    """Run a spec: what it made, scored."""
    from methods import Job
    from scoring import Scorer, quiet

    from loraloom.pipeline.recall.update import Update
    from loraloom.pipeline.recall.writing import write
    from loraloom.recall.workload import workload

    whole = workload(spec.seed, sessions=SESSIONS, items=spec.items)
    made = whole.until(spec.sessions)
    model = str(shared / "models" / "tinychat-5M")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write(place / "scorer", model, [], made.sessions[0], quiet)
        job = Job(made, model, place, Scorer(place / "scorer", made, shared), spec.rate)
        start = time.process_time()
        outcome = method_of(spec)(job)
        seconds = time.process_time() - start - job.asking
        stages = {name: job.scorer.scored(given) for name, given in outcome.stages.items()}
        updates = [given for given in outcome.stages.values() if isinstance(given, Update)]
        agrees = not updates or job.scorer.put.agrees(updates[-1])
    assert agrees, "writing freely gives other answers than the one pass"
    return {
        **asdict(spec),
        "digest": made.digest,
        "commit": _commit(),
        "core_seconds": seconds,
        "tokens": sum(record["tokens"] for record in outcome.records),
        "steps": sum(record.get("steps", 0) for record in outcome.records),
        "adapter_bytes": updates[-1].bytes if updates else 0,
        "by_session": job.by_session,
        "stages": stages,
        **outcome.more,
    }


def _commit() -> str:
    asked = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


class Runner:
    """Runs specs as processes, and keeps their parts.

    Args:
        jobs: processes at a time.
    """

    def __init__(self, work: Path, jobs: int) -> None:
        self.work, self.jobs = work, jobs
        work.mkdir(parents=True, exist_ok=True)

    def parts(self, specs: Sequence[Spec]) -> list[dict[str, Any]]:
        """The parts of these, in their order; those that are there are not run again."""
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(self._part, specs))

    def _part(self, spec: Spec) -> dict[str, Any]:
        path = self.work / f"{spec.name}.json"
        if not path.is_file():
            start = time.monotonic()
            command = [sys.executable, __file__, "--one", json.dumps(asdict(spec)), "--out", str(path)]
            subprocess.run(command, check=True)
            print(f"{spec.name}: {time.monotonic() - start:.0f} s", flush=True)
        return json.loads(path.read_bytes())


def searched(runner: Runner, items: int, sessions: int, only: Sequence[str]) -> dict[str, Any]:
    """The rate of each baseline, and the pull of the elastic one, that recall most on few sessions."""
    found: dict[str, Any] = {}
    if set(only) & set(AT_ITS_RATE):
        tried = runner.parts([Spec("naive", 0, sessions, items, rate) for rate in RATES])
        found["naive"] = {f"{part['rate']:g}": _recalled(part) for part in tried}
    if "elastic" in only:
        rate, few = best(found["naive"]), min(FEW, items)
        pulls = [Spec("elastic", 0, sessions, few, rate, strength) for strength in STRENGTHS]
        tried = runner.parts(pulls)
        found["elastic"] = {f"{part['strength']:g}": _recalled(part) for part in tried}
    return found


def _recalled(part: dict[str, Any]) -> float:
    return max(stage["verbatim"] + stage["near"] for stage in part["stages"].values()) / 2


def best(tried: dict[str, float]) -> float:
    """What recalled most."""
    return float(max(tried, key=lambda value: tried[value]))


def compared(runner: Runner, args: argparse.Namespace) -> dict[str, Any]:
    """Every method that was asked for, seed by seed, and the ablations."""
    from methods import ABLATIONS

    sessions, items, seeds = args.sessions, args.items, args.seeds
    short = min(SHORT, sessions)
    search = searched(runner, items, min(SEARCHED, sessions), args.only)
    specs: list[Spec] = []
    for name in COMPARED:
        if name not in args.only or name == "joint":
            continue
        rate = best(search["naive"]) if name in AT_ITS_RATE else None
        strength = best(search["elastic"]) if name == "elastic" else None
        own = seeds[:1] if name == "elastic" else seeds
        specs += [Spec(name, seed, sessions, items, rate, strength) for seed in own]
    parts = runner.parts(specs)
    if "joint" in args.only:
        # As many steps as ours took, which is run first where it was not.
        ours = runner.parts([Spec("ours", seed, sessions, items) for seed in seeds])
        steps = [(part["seed"], part["steps"]) for part in ours]
        parts += runner.parts(
            [Spec("joint", seed, sessions, items, steps=count) for seed, count in steps]
        )
    names = ABLATIONS if "ablations" in args.only else []
    ablations = runner.parts([Spec(name, seeds[0], short, items) for name in names])
    controls = runner.parts([Spec("controls", seeds[0], 1, items)] if "controls" in args.only else [])
    return {"search": search, "parts": parts, "ablations": ablations, "controls": controls}


def merge(new: dict[str, Any], path: Path) -> dict[str, Any]:
    """What was run now in place of the same of before; the rest stays."""
    from loraloom.facts.device import environment

    before = json.loads(path.read_bytes()) if path.is_file() else {}
    whole: dict[str, Any] = {
        "model": "tinychat-5M",
        "date": datetime.now(UTC).date().isoformat(),
        "environment": environment(),
        "search": {**before.get("search", {}), **new["search"]},
    }
    for kind in ("parts", "ablations", "controls"):
        known = {(one["method"], one["seed"]): one for one in before.get(kind, [])}
        known |= {(one["method"], one["seed"]): one for one in new[kind]}
        whole[kind] = list(known.values())
    return whole


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Ten sessions, by every method.")
    all_of_it = [*COMPARED, "ablations", "controls"]
    parser.add_argument("--only", nargs="+", choices=all_of_it, default=all_of_it)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "loraloom-recall")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        part = part_of(Spec(**json.loads(args.one)), args.shared)
        args.out.write_text(json.dumps(part))
        return
    if not args.show:
        if args.quick:
            args.sessions, args.items, args.seeds = 2, 5, [0]
            args.work, args.out = args.work / "quick", args.work / "quick.json"
        os.environ["LORALOOM_SHARED"] = str(args.shared)
        made = merge(compared(Runner(args.work, args.jobs), args), args.out)
        args.out.write_text(json.dumps(made, indent=1) + "\n")
    from tables import tables

    print(tables(json.loads(args.out.read_bytes())))


if __name__ == "__main__":
    main()
