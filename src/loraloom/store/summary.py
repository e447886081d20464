"""One run in a list of runs: what a row of the index says, made of a run's result."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from loraloom.store.folder import RunFolder
from loraloom.store.names import this_host
from loraloom.store.result import RunResult
from loraloom.store.to_json import plain


@dataclass(frozen=True)
class RunSummary:
    """One run in a list of runs. The fields are the columns of its table."""

    id: str
    host: str
    """The machine that drives it, or did last."""
    folder: str
    name: str
    verb: str
    status: str
    model: str
    task: str
    started_at: str
    seconds: float
    metric: str
    direction: str
    best: str | None
    """The best candidate; while the run lasts, the best of those that have ended."""
    best_value: float | None
    best_se: float | None
    baseline_value: float | None
    trials: int
    statuses: dict[str, int]
    """How many trials ended in which status."""
    stamp: int
    """When its folder had last changed as it was read: nanoseconds since 1970; 0 while the run lasts."""

    @property
    def key(self) -> str:
        """What tells its row from all others."""
        return sha256(f"{self.id}\n{self.folder}".encode()).hexdigest()


def reachable(runs: Sequence[RunSummary]) -> set[str]:
    """The keys of those runs whose folders are there, seen from this machine.

    A path that a run of this machine has is no folder of another machine's run.
    """
    here = this_host()
    own = {run.folder for run in runs if run.host == here}
    return {run.key for run in runs if (run.host == here or run.folder not in own) and is_there(run)}


def is_there(run: RunSummary) -> bool:
    """Whether a run is in its folder, seen from this machine."""
    try:
        return RunFolder(run.folder).is_run()
    except OSError:
        return False


def stamp_of(folder: RunFolder) -> int:
    """When the files changed last that a result is read from: nanoseconds since 1970."""
    found = 0
    for path in (folder.result_path, folder.events_path, folder.config_path):
        with suppress(FileNotFoundError):
            found = max(found, path.stat().st_mtime_ns)
    return found


def place_of(folder: str | Path) -> str:
    """A folder as the index names it."""
    return _text(Path(folder).resolve())


def _text(value: object) -> str:
    """Text that every database takes: without NUL, and without halves of characters."""
    return str(value).encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _number(value: object) -> float | None:
    number = plain(value)
    return float(number) if isinstance(number, int | float) else None


def instant(started_at: str) -> float:
    """Seconds since 1970: machines in two time zones write the same moment differently."""
    try:
        return datetime.datetime.fromisoformat(started_at).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def summary_of(result: RunResult, folder: str | Path, stamp: int) -> RunSummary:
    """The row of a run; `stamp` as `stamp_of` gives it."""
    ranked = [] if result.status == "completed" else result.ranked()
    leader = next((trial for trial in ranked if trial.status == "completed"), None)
    best = result.trial(result.best) or leader
    return RunSummary(
        id=_text(result.id or _older_id(result)),
        host=_text(result.host or this_host()),
        folder=place_of(folder),
        name=_text(result.name),
        verb=_text(result.verb),
        status=_text(result.status),
        model=_text(result.model),
        task=_text(result.task),
        started_at=_text(result.started_at),
        seconds=_number(result.seconds) or 0.0,
        metric=_text(result.metric),
        direction=_text(result.direction),
        best=_text(best.id) if best else None,
        best_value=_number(result.value(best)) if best else None,
        best_se=_number(best.metrics.get(f"{result.metric}_se")) if best else None,
        baseline_value=_number(result.baseline.get(result.metric)),
        trials=len(result.trials),
        statuses=dict(Counter(_text(trial.status) for trial in result.trials)),
        stamp=stamp,
    )


def _older_id(result: RunResult) -> str:
    """Of a run that was begun before runs had ids: the same on whichever machine it is worked out."""
    return sha256(
        "\n".join(map(_text, (result.name, result.model, result.started_at))).encode()
    ).hexdigest()[:32]
