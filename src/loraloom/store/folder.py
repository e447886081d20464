"""The run folder: names, paths, and the files in it. A run folder alone is enough to
tell what happened in its run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import yaml

from loraloom.errors import RequestError, StoreError
from loraloom.records import Advice, Event, Trial
from loraloom.store.disk import disk, require_space, write_atomically
from loraloom.store.event_lines import event_of_line
from loraloom.store.lines import Lines
from loraloom.store.lock import Lock
from loraloom.store.names import check_name, free_name, invented_name
from loraloom.store.replay import replay
from loraloom.store.result import RunResult
from loraloom.store.to_json import plain, to_json

SIGNALS = "signals.json"

__all__ = ["RunFolder", "require_space", "write_atomically"]


class RunFolder:
    """One run on disk. Paths are plain attributes; writing raises StoreError where the disk refuses."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.log = Lines(self.events_path)
        self._trials: dict[str, tuple[Trial, str]] = {}
        self._lock = Lock(self.checkpoints / "lock")

    @classmethod
    def create(cls, output_dir: str | Path, name: str | None = None) -> RunFolder:
        """Make `output_dir/name`, or a folder with a free, readable name of its own ("amber-loom-07").

        Raises:
            RequestError: the name is taken, or cannot be the name of a folder.
            StoreError: the disk refuses.
        """
        root = Path(output_dir)
        if name is not None:
            check_name(name)
        with disk(root):
            try:
                root.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise no_place(root) from None
            while True:
                path = root / (name or invented_name())
                try:
                    path.mkdir()
                    return cls(path)
                except FileExistsError:
                    if name is not None and nothing_in(path):
                        return cls(path)
                    if name is not None:
                        raise _taken(root, name) from None

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The run folder at `path`.

        Raises:
            RequestError: nothing is there, or it is not a run folder.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise RequestError(
                f"there is no run folder `{path}`",
                got=_runs_beside(folder.path),
                need="the folder of one run, OUTPUT_DIR/NAME",
                next="loraloom runs",
            )
        if not folder.is_run():
            raise RequestError(
                f"`{path}` is not a run folder",
                got=_runs_beside(folder.path / "any"),
                need="a folder with a config.yaml, events.jsonl or run.json",
                next="loraloom runs",
            )
        return folder

    def is_run(self) -> bool:
        """Whether a run left its files here."""
        return any(path.is_file() for path in (self.result_path, self.config_path, self.events_path))

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def resolved_path(self) -> Path:
        return self.path / "resolved.yaml"

    @property
    def result_path(self) -> Path:
        return self.path / "run.json"

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def control_path(self) -> Path:
        """Commands to the run (`store.control`)."""
        return self.path / "control.jsonl"

    @property
    def obeyed_path(self) -> Path:
        """What became of those commands, and when; no resume cuts it (`pipeline.obey`)."""
        return self.path / "control.applied.jsonl"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        return self.path / "best"

    def trial_folder(self, trial_id: str) -> Path:
        """`trials/ID`; its adapter goes to `trials/ID/adapter`. Nothing is made yet."""
        check_name(trial_id)
        return self.path / "trials" / trial_id

    def lock(self) -> None:
        """Keep other processes from working on this run, until `unlock` or the end of this one.

        Raises:
            RequestError: another process works on it.
            StoreError: the disk refuses.
        """
        with disk(self.checkpoints):
            taken = self._lock.take()
        if not taken:
            raise RequestError(
                f"run `{self.name}` is being worked on by another process",
                where=str(self.path),
                got=f"process {self._lock.holder() or 'unknown'} holds it",
                next="wait until that one has ended, or end it",
            )

    def unlock(self) -> None:
        """Let go of the run."""
        self._lock.release()

    def is_locked(self) -> bool:
        """Whether a process works on this run, this one or another."""
        return self._lock.is_taken()

    def _require_own(self) -> None:
        """Write nothing into a run that another process works on by now."""
        if self._lock.is_lost():
            raise StoreError(
                "another process has taken this run over, and this one ends",
                where=str(self.path),
                got=f"it is held by process {self._lock.holder() or 'unknown'}",
                next="leave the run to that process: nothing was written over",
            )

    def drop_checkpoints(self) -> None:
        """Remove what only `--resume` needs: the run has ended as it should.

        All goes at one stroke, and from the disk after that: a crash in between leaves
        nothing that looks like a checkpoint.
        """
        gone = self.path / ".checkpoints.gone"
        shutil.rmtree(gone, ignore_errors=True)
        with suppress(OSError):
            self.checkpoints.rename(gone)
        for folder in (gone, self.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)

    def write_config(self, asked: Mapping[str, Any]) -> None:
        """Keep what was asked."""
        write_atomically(self.config_path, _to_yaml(asked))

    def config(self) -> dict[str, Any]:
        """What was asked; empty when it was not kept."""
        return _read_yaml(self.config_path)

    def revision(self) -> str | None:
        """The revision of the base that was asked for."""
        asked = self.config().get("model")
        found = cast(dict[str, Any], asked).get("revision") if isinstance(asked, dict) else None
        return found if isinstance(found, str) else None

    def write_resolved(self, settings: Mapping[str, Advice]) -> None:
        """Keep every value that is used, by dotted key, with its reason and its source."""
        write_atomically(
            self.resolved_path,
            _to_yaml({key: _advice_to_plain(advice) for key, advice in settings.items()}),
        )

    def resolved(self) -> dict[str, Advice]:
        """What `write_resolved` kept; empty when nothing was kept."""
        return {key: _advice_from_plain(entry) for key, entry in _read_yaml(self.resolved_path).items()}

    def append(self, event: Event) -> None:
        """Add one line to events.jsonl. It is with the operating system when this returns.

        Raises:
            StoreError: the disk refuses, or another process has taken the run over.
        """
        self._require_own()
        self.log.append(to_json(event))

    def events(self) -> Iterator[Event]:
        """All events in the order of the file. A line that a crash left torn is passed over."""
        for line in self.log:
            event = event_of_line(line)
            if event is not None:
                yield event

    def write_result(self, result: RunResult) -> None:
        """Replace run.json in one step: a reader sees the old file or the new one, never half of one.

        Trials are many and most of them have ended: the text of each is made once, as
        long as it stays the same.
        """
        self._require_own()
        known = self._trials
        self._trials = dict[str, tuple[Trial, str]]()
        for trial in result.trials:
            old = known.get(trial.id)
            text = old[1] if old and old[0] is trial else _indented(to_json(trial, indent=2).decode())
            self._trials[trial.id] = trial, text
        whole = to_json(
            replace(result, trials=[]).to_plain() | result.best_to_plain(), indent=2
        ).decode()
        trials = ",\n".join(text for _, text in self._trials.values())
        if trials:
            # Line ends within strings are escaped, so that this is the result's own key
            # and nothing else.
            whole = whole.replace('\n  "trials": []', f'\n  "trials": [\n{trials}\n  ]', 1)
        write_atomically(self.result_path, whole.encode("utf-8", "backslashreplace") + b"\n")

    def write_signals(self, trial: str, signals: Mapping[str, Any]) -> None:
        """Keep what diagnosis looked at beside a trial's adapter."""
        path = self.trial_folder(trial) / SIGNALS
        with disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_json(signals) + b"\n")

    def signals(self, trial: str) -> dict[str, Any]:
        """What `write_signals` kept of a trial, or an older run its events; empty where
        nothing was measured."""
        path = self.trial_folder(trial) / SIGNALS
        if path.is_file():
            with suppress(ValueError):
                found = json.loads(path.read_bytes())
                return cast(dict[str, Any], found) if isinstance(found, dict) else {}
        told = [
            event.data for event in self.events() if event.kind == "signals" and event.trial == trial
        ]
        return dict(told[-1]) if told else {}

    def result(self) -> RunResult:
        """What run.json says, or, where a run was killed before it wrote one, what its events say.

        Raises:
            RequestError: run.json cannot be read as a result, or the folder holds neither file.
        """
        where = str(self.result_path)
        if self.result_path.exists():
            try:
                data = json.loads(self.result_path.read_bytes())
            except (ValueError, OSError) as error:
                raise RequestError(
                    "this is not JSON",
                    where=where,
                    got=str(error),
                    next="move the file away: the run is then read from its events.jsonl",
                ) from error
            return RunResult.from_plain(data, where)
        if self.events_path.exists():
            return replay(self.name, self.events())
        raise RequestError(
            f"run `{self.name}` has no result yet",
            where=where,
            need="a run.json or an events.jsonl",
            next="start the run again: it had not begun to train",
        )


def _indented(text: str) -> str:
    """Text of several lines as it stands two levels inside a JSON document."""
    return "\n".join(f"    {line}" for line in text.split("\n"))


def nothing_in(folder: Path) -> bool:
    """Whether no run was begun here: the folder is empty, or holds only what a process
    left that was killed at once."""
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != ".part"}
    return folder.is_dir() and left <= {"checkpoints", "checkpoints/lock"}


def no_place(root: Path) -> RequestError:
    """Runs were looked for, or are to be kept, in a file."""
    return RequestError(
        f"`{root}` is a file, so no run can be kept in it", next="give another folder: --output-dir runs"
    )


def _taken(root: Path, name: str) -> RequestError:
    return RequestError(
        f"run `{name}` already exists in `{root}`",
        need="a name that is free",
        next=f"--name {free_name(root, name)}",
    )


def _runs_beside(path: Path) -> str | None:
    try:
        names = sorted(
            item.name for item in path.parent.iterdir() if item.is_dir() and RunFolder(item).is_run()
        )
    except OSError:
        return None
    return (
        f"runs in `{path.parent}`: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
        if names
        else None
    )


def _advice_to_plain(advice: Advice) -> dict[str, Any]:
    entry = {
        "value": advice.value,
        "reason": advice.reason,
        "source": advice.source,
        "range": advice.range,
        "grade": advice.grade,
    }
    return {key: value for key, value in entry.items() if key == "value" or value is not None}


def _advice_from_plain(entry: Mapping[str, Any]) -> Advice:
    limits = entry.get("range")
    return Advice(
        value=entry.get("value"),
        reason=str(entry.get("reason", "")),
        source=str(entry.get("source", "")),
        range=None if limits is None else tuple(limits),
        grade=entry.get("grade"),
    )


def _to_yaml(data: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(plain(data), sort_keys=False, allow_unicode=True, width=110).encode()


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        data = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise RequestError(
            "this is not YAML",
            where=str(path),
            got=str(error),
            next="restore the file, or start a new run",
        ) from error
    return cast(dict[str, Any], data) if isinstance(data, dict) else {}
