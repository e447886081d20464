"""The list of all runs, from their folders: read again where they changed, and never written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.errors import LoraloomError
from loraloom.report.words import duration, metric_words, with_error
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult


@dataclass(frozen=True)
class _Known:
    stamp: object
    row: dict[str, Any] | None


class Runs:
    """All runs in a folder.

    The index in SQL has the same rows, but a page that only looks must not write one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, _Known] = {}

    def rows(self) -> list[dict[str, Any]]:
        """One row a run, the latest first."""
        found: dict[str, _Known] = {}
        for path in self.root.iterdir() if self.root.is_dir() else ():
            if path.is_symlink() or not path.is_dir():
                continue
            folder = RunFolder(path)
            stamp = _stamp(folder)
            known = self._known.get(path.name)
            if known is None or known.stamp != stamp:
                known = _Known(stamp, _row(folder))
            found[path.name] = known
        self._known = found
        rows = [_now(self.root / name, known.row) for name, known in found.items() if known.row]
        return sorted(rows, key=lambda row: (row["started"], row["name"]), reverse=True)


def _row(folder: RunFolder) -> dict[str, Any] | None:
    """What a list says of a run; None where it is none, or nothing was written yet."""
    if not folder.is_run():
        return None
    try:
        result = folder.result()
    except LoraloomError:
        return None
    return {
        "name": folder.name,
        "verb": result.verb or "tune",
        "status": result.status,
        "model": result.model.rpartition("/")[2] or result.model,
        "started": result.started_at,
        "metric": metric_words(result.metric),
        "base": with_error(result.baseline.get(result.metric, float("nan"))),
        "best": result.best or "",
        "value": _best(result),
        "candidates": len(result.searched()),
        "took": duration(result.seconds),
    }


def _best(result: RunResult) -> str:
    best = result.trial(result.best)
    if best is None:
        return with_error(float("nan"))
    return with_error(result.value(best), best.metrics.get(f"{result.metric}_se", float("nan")))


def _now(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    """The row with what no file says: whether anybody still works on the run."""
    if row["status"] == "completed":
        return row
    alive = RunFolder(path).is_locked()
    status = "interrupted" if row["status"] == "running" else row["status"]
    return {**row, "status": "running" if alive else status}


def _stamp(folder: RunFolder) -> object:
    """Of run.json; of events.jsonl where a run was killed before it wrote one."""
    for path in (folder.result_path, folder.events_path):
        if path.exists():
            known = path.stat()
            return path.name, known.st_mtime_ns, known.st_size
    return None
