"""One run as its pages show it, kept up to date from its folder and shared by all tabs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from loraloom.errors import LoraloomError
from loraloom.records import Event, Trial
from loraloom.report.commands import resume_command
from loraloom.report.findings import findings
from loraloom.report.headline import headline
from loraloom.report.live import (
    MOST_FINDINGS,
    base_text,
    live_columns,
    live_figures,
    live_row,
    points,
    so_far,
)
from loraloom.report.plots import CurveReader
from loraloom.report.table import Column
from loraloom.report.words import count, duration, gib, held_in, metric_words
from loraloom.store.event_lines import events_of_lines
from loraloom.store.folder import RunFolder
from loraloom.store.replay import Replay
from loraloom.store.result import RunResult
from loraloom.store.samples import FILE_NAME, read_samples
from loraloom.web.encode import encoded
from loraloom.web.joined import joined, sharing
from loraloom.web.tail import Place, holds, whole_lines
from loraloom.web.workers import Workers

LOOK_AGAIN_SECONDS = 1.0
"""Between two looks at whether a process works on the run."""
MOST_COMMANDS = 50
MOST_NOTES = 100
REMEMBERED_BYTES = 256
"""Before the place that was read to: when they change, the file was cut and has grown again."""


class View:
    """What is known of a run.

    What pages show is held in pieces: the heading, each row, the findings. A piece that changes gets the
    next version, so that a page which has seen version N asks for what is newer. Events are read once,
    however many pages look.

    Attributes:
        generation: how often events.jsonl was found to be cut and to have grown anew.
        place: how far it was read.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.generation = 0
        self.version = 0
        self.pieces: dict[str, tuple[int, Any]] = {}
        self._lock = threading.Lock()
        self._stamps: dict[str, tuple[int, int, int] | None] = {}
        self._told: RunResult | None = None
        self._alive = False
        self._looked = 0.0
        self._known: dict[str, Trial] = {}
        self._begin()

    def _begin(self) -> None:
        """Forget what events said."""
        self.place = Place()
        self._before = b""
        self._replay = Replay(self.folder.name)
        self._curves = CurveReader({})
        self._workers = Workers()
        self._forecast: Event | None = None
        self._packed: Event | None = None
        self._notes: list[str] = []
        self._verdicts: dict[str, Event] = {}
        self._columns: list[Column] = []
        self._trials: dict[str, Trial] = {}
        self._batch: tuple[Place, tuple[list[Any], Place]] | None = None
        self._result = self._replay.result()

    # -- reading
    # ----------------------------------------------------------------------------------------------

    def looks_new(self) -> bool:
        """Whether anything has changed since the last reading: a few questions to the file system."""
        if time.monotonic() - self._looked > LOOK_AGAIN_SECONDS:
            return True
        return any(_stamp(path) != self._stamps.get(path.name) for path in self._files())

    def _files(self) -> tuple[Path, ...]:
        folder = self.folder
        samples = folder.path / FILE_NAME
        return folder.events_path, folder.result_path, folder.control_path, samples

    def refresh(self) -> None:
        """Read what is new."""
        with self._lock:
            stamps = {path.name: _stamp(path) for path in self._files()}
            changed = {name for name, stamp in stamps.items() if stamp != self._stamps.get(name)}
            self._stamps = stamps
            everything = self.folder.result_path.name in changed and self._read_result()
            if time.monotonic() - self._looked > LOOK_AGAIN_SECONDS:
                before, self._alive = self._alive, self.folder.is_locked()
                self._looked = time.monotonic()
                everything = everything or before != self._alive
            if self._is_another_file():
                self.generation += 1
                self._begin()
                everything = True
            self._show(self._read_events(), everything=everything, changed=changed)

    def _read_result(self) -> bool:
        try:
            self._told = self.folder.result() if self.folder.result_path.exists() else None
        except LoraloomError:
            # a file that another release wrote, or a person: events still tell the rest
            self._told = None
        return True

    def _is_another_file(self) -> bool:
        """Whether what was read no longer stands before the place that was read to."""
        start = self.place.offset - len(self._before)
        return bool(self._before) and self.read(start, len(self._before)) != self._before

    def _read_events(self) -> set[str]:
        """Take every event that is new; the candidates that they are about."""
        touched: set[str] = set()
        while True:
            lines, place = whole_lines(self.read, self.place)
            if not lines:
                return touched
            for event in events_of_lines(lines):
                self._take(event)
                if event.trial is not None:
                    touched.add(event.trial)
            self.place = place
            self._before = self.read(max(0, place.offset - REMEMBERED_BYTES), REMEMBERED_BYTES)
            self._before = self._before[: min(REMEMBERED_BYTES, place.offset)]

    def _take(self, event: Event) -> None:
        self._replay.take(event)
        self._curves.take(event)
        self._workers.take(event)
        if event.kind == "forecast":
            self._forecast = event
        elif event.kind == "plan":
            self._packed = event
        elif event.kind == "note" and event.data.get("text"):
            self._notes = [*self._notes[1 - MOST_NOTES :], str(event.data["text"])]
        elif event.kind == "command":
            self._verdicts[str(event.data.get("uuid"))] = event

    def read(self, offset: int, most: int) -> bytes:
        """Bytes of events.jsonl; none where it is not there yet."""
        try:
            with self.folder.events_path.open("rb") as file:
                file.seek(offset)
                return file.read(most)
        except OSError:
            return b""

    # -- showing
    # ----------------------------------------------------------------------------------------------

    def snapshot(self, **more: Any) -> bytes:
        """All that a page needs to begin, and the place that it stands for, as JSON."""
        with self._lock:
            known = {
                "place": str(self.place),
                "version": self.version,
                "pieces": {name: value for name, (_, value) in self.pieces.items()},
                "best_steps": self._curves.curves.best_steps,
                **more,
            }
            figures = live_figures(self._result, self._curves.curves)
            told = [_object(encoded(one.about), "curves", one.points()) for one in figures]
        return encoded(known)[:-1] + b',"figures":[' + b",".join(told) + b"]}"

    def states(self) -> dict[str, str]:
        """The status of each candidate."""
        return {key: trial.status for key, trial in self._trials.items()}

    def trial(self, key: str) -> dict[str, Any] | None:
        """All that is known of a candidate; None where there is none of that name."""
        trial = self._trials.get(key)
        return None if trial is None else asdict(trial)

    def newer(self, version: int) -> dict[str, Any]:
        """Pieces that changed after `version`."""
        return {name: value for name, (since, value) in self.pieces.items() if since > version}

    def holds(self, place: Place) -> bool:
        """Whether a page that has read to `place` may go on from there."""
        return holds(self.read, place)

    def points_after(self, place: Place) -> tuple[list[Any], Place]:
        """Points of the events behind `place`, a batch of them, and the place behind those."""
        if self._batch is None or self._batch[0] != place:
            lines, after = whole_lines(self.read, place)
            metric = self._result.metric
            told = (point for event in events_of_lines(lines) for point in points(event, metric))
            found = [list(vars(point).values()) for point in told]
            if not lines:
                return [], place
            self._batch = place, (found, after)
        return self._batch[1]

    def _joined(self, touched: Iterable[str] | None) -> RunResult:
        """What run.json says, with what events have told since.

        Args:
            touched: candidates that may have changed; None for all.
        """
        seen, told = self._replay.result(), self._told
        if touched is None:
            if told:
                told.trials = [sharing(trial, self._replay.trial(trial.id)) for trial in told.trials]
            known = {trial.id: trial for trial in told.trials} if told else {}
            self._known = known
            self._trials = {trial.id: self._now(trial) for trial in seen.trials}
            self._trials |= {key: trial for key, trial in known.items() if key not in self._trials}
        else:
            for key in touched:
                trial = self._replay.trial(key)
                if trial is not None:
                    self._trials[key] = self._now(trial)
        trials = list(self._trials.values())
        if told is None:
            best = None if self._alive else seen.best
            return replace(seen, status=self._status(seen), best=best, trials=trials)
        return replace(
            told,
            status=self._status(told),
            seconds=max(told.seconds, seen.seconds),
            baseline={**seen.baseline, **told.baseline},
            trials=trials,
        )

    def _now(self, seen: Trial) -> Trial:
        """A candidate as it is; without a driver nobody trains, whatever the last event says."""
        trial = joined(self._known.get(seen.id), seen)
        return trial if self._alive or trial.status != "running" else replace(trial, status="waiting")

    def _status(self, result: RunResult) -> Any:
        if self._alive and result.status != "completed":
            return "running"
        return "interrupted" if result.status == "running" else result.status

    def _show(self, touched: set[str], *, everything: bool, changed: set[str]) -> None:
        result = self._result = self._joined(None if everything else touched)
        shown = live_columns(result)
        if [column.key for column in shown] != [column.key for column in self._columns]:
            self._columns, everything = shown, True
        for key in self._trials if everything else self._trials.keys() & touched:
            self._put(f"row:{key}", lambda key=key: live_row(result, self._trials[key], shown))
        if everything:
            rows = [name[4:] for name in self.pieces if name.startswith("row:")]
            for key in rows:
                if key not in self._trials:
                    self._put(f"row:{key}", lambda: None)
        self._put("columns", lambda: [_heading(column) for column in shown])
        self._put("head", lambda: self._head(result))
        self._put("findings", lambda: _findings(result))
        # run.json is written less often than events, but an old one may have more than is kept of these
        self._put("notes", lambda: max(self._notes, result.notes, key=len))
        self._put("forecast", lambda: so_far(result, self._forecast))
        self._put("devices", lambda: self._devices(result))
        if self._workers.places:
            self._put("workers", self._shown_workers)
        if self._verdicts or self.folder.control_path.exists():
            self._put("commands", self._commands)
        if FILE_NAME in changed:
            self._put("samples", lambda: [asdict(one) for one in read_samples(self.folder)])

    def _put(self, name: str, make: Callable[[], Any]) -> None:
        value = make()
        if name not in self.pieces or self.pieces[name][1] != value:
            self.version += 1
            self.pieces[name] = self.version, value

    def _head(self, result: RunResult) -> dict[str, Any]:
        told = headline(result)
        states = [trial.status for trial in result.trials]
        held = held_in(result.base_quantization)
        return {
            "title": told.title,
            "support": list(told.support),
            "facts": [asdict(fact) for fact in told.facts],
            "name": result.name,
            "verb": result.verb or "tune",
            "model": f"{result.model} {held}" if held else result.model,
            "started": result.started_at,
            "took": duration(result.seconds),
            "status": result.status,
            "reason": result.reason or "",
            "alive": self._alive,
            "metric": result.metric,
            "metric_words": metric_words(result.metric),
            "direction": result.direction,
            "base": base_text(result),
            "best": result.best,
            "default": result.default,
            "counts": {status: states.count(status) for status in dict.fromkeys(states)},
            "resume": None if self._alive else resume_command(self.folder, result),
            "report": self.folder.report_path.exists(),
        }

    def _devices(self, result: RunResult) -> list[list[str]]:
        """What the run has to work with, as names and values."""
        environment = result.environment
        device = environment.get("device") or {}
        known = [
            ("device", f"{device.get('name', '')} ({device.get('kind', '')})" if device else ""),
            ("memory", gib(device.get("total_bytes") or 0) if device else ""),
            ("cores", str(environment.get("cores") or "")),
        ]
        if self._packed is not None:
            data = self._packed.data
            known.append(("candidates at once", str(data.get("slots", ""))))
            if data.get("tokens_per_second"):
                known.append(("speed", f"{count(round(data['tokens_per_second']))} tokens/s"))
        return [[name, value] for name, value in known if value]

    def _shown_workers(self) -> list[dict[str, Any]]:
        """A row for each worker that is there."""
        stamp = _stamp(self.folder.events_path)
        if not self._alive or stamp is None:
            return []
        return self._workers.shown(self._replay.result().seconds, stamp[2] / 1e9)

    def _commands(self) -> list[dict[str, Any]]:
        """What was asked of the run, the latest first, and what became of it."""
        from loraloom.store.control import commands  # pydantic comes with it: 8 MiB

        found: list[dict[str, Any]] = []
        for asked in commands(self.folder)[-MOST_COMMANDS:]:
            verdict = self._verdicts.get(asked.uuid)
            data = verdict.data if verdict else {}
            found.append(
                {
                    **asdict(asked),
                    "state": data.get("state", "asked"),
                    "reason": data.get("reason") or "",
                    "step": verdict.step if verdict else None,
                    "made": data.get("made"),
                }
            )
        return found[::-1]


def _object(begun: bytes, key: str, parts: Iterable[tuple[str, Any]]) -> bytes:
    """A JSON object with one more key, whose own parts are made and forgotten one by one."""
    inner = b",".join(encoded(name) + b":" + encoded(part) for name, part in parts)
    return begun[:-1] + b"," + encoded(key) + b":{" + inner + b"}}"


def _heading(column: Column) -> dict[str, Any]:
    return {
        "key": column.key,
        "heading": column.heading,
        "numeric": column.numeric,
        "importance": column.importance,
    }


def _findings(result: RunResult) -> dict[str, Any]:
    found = findings(result)
    shown = [{"trial": trial, **asdict(finding)} for trial, finding in found[:MOST_FINDINGS]]
    return {"shown": shown, "more": len(found) - len(shown)}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; the time of its last change, in nanoseconds, comes last."""
    try:
        known = path.stat()
    except OSError:
        return None
    return known.st_ino, known.st_size, known.st_mtime_ns
