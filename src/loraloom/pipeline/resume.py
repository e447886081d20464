"""Take up a run where it stopped: find its folder, hold it, see that the request is the
same, read its checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loraloom.config import names
from loraloom.config.asked import Config
from loraloom.config.decode import load_config, to_plain
from loraloom.config.keys import keys
from loraloom.errors import RequestError
from loraloom.facts.device import best_kind
from loraloom.search.history import PastSearch
from loraloom.store.folder import RunFolder
from loraloom.store.lines import Lines, Mark
from loraloom.store.names import free_name
from loraloom.store.replay import replay
from loraloom.store.result import RunResult
from loraloom.train.checkpoint import Checkpoint, drop_unnamed, load

MAY_CHANGE = (names.TIME, names.BUDGET, names.DEVICES, names.EXECUTE, "report_to")
"""What a request may say anew when its run goes on: it decides nothing about a candidate."""
PLACE = ("name", "output_dir")
"""What leads to the folder of a run that is named, however its path is written."""
JOURNAL = "search.jsonl"


@dataclass(frozen=True)
class Reopened:
    """A run that goes on.

    Attributes:
        folder: its folder, held.
        config: what it was asked, with what may change as it is asked now.
        checkpoint: where it goes on; None where it had none yet and begins anew.
    """

    folder: RunFolder
    config: Config
    checkpoint: Checkpoint | None

    @property
    def free_bytes(self) -> int | None:
        """The free memory that the run was planned for: now there may be more or less, and the plan has
        to stay. None on a device of another kind, whose memory is its own."""
        if self.checkpoint is None:
            return None
        before = self.checkpoint.run["result"].get("environment", {}).get("device", {}).get("kind")
        return self.checkpoint.run["free_bytes"] if before in (None, best_kind()) else None

    @property
    def trials(self) -> int | None:
        """How many candidates the run was planned to try: the forecast that decided it
        may differ now."""
        return None if self.checkpoint is None else self.checkpoint.run.get("trials")

    @property
    def past(self) -> tuple[PastSearch, ...] | None:
        """The earlier searches that the run was begun with: others may have ended since."""
        return (
            None
            if self.checkpoint is None
            else tuple(map(PastSearch.from_plain, self.checkpoint.run.get("past", ())))
        )

    def take_up(self) -> None:
        """Forget what happened after the checkpoint, which will happen again, and what
        was only half written."""
        for partial in self.folder.path.rglob(".*.part"):
            partial.unlink(missing_ok=True)
        drop_unnamed(self.folder.checkpoints)
        for lines, mark in _marks(self.folder, {} if self.checkpoint is None else self.checkpoint.run):
            lines.cut(mark)


@contextmanager
def reopened(config: Config, verb: str, resume: str | Path | None) -> Generator[Reopened | None]:
    """The run at `resume`, or the unfinished one of the request's own name; None where
    a new one is asked for.

    The folder is held as long as the context lasts.

    Raises:
        RequestError: there is no such run, it is finished, another process works on it,
            or it was begun with another request.
        RunError: none of its checkpoints can be read.
    """
    folder = _folder(config, resume)
    if folder is None:
        yield None
        return
    kept = _request(folder)
    _refuse_finished(folder, verb)
    _refuse_differences(folder, kept, config, MAY_CHANGE if resume else (*MAY_CHANGE, *PLACE))
    folder.lock()
    try:
        # Only who holds it can be sure: the other process may have finished it in between.
        _refuse_finished(folder, verb)
        checkpoint = load(folder.checkpoints, lambda run: _contradiction(folder, run))
        now = replace(config, name=kept.name, output_dir=kept.output_dir)
        if now != kept:
            folder.write_config(to_plain(now))
        yield Reopened(folder, replace(now, output_dir=str(folder.path.parent)), checkpoint)
    finally:
        folder.unlock()


def journal_of(folder: RunFolder) -> Lines:
    """What the searcher of a run was asked and told."""
    return Lines(folder.checkpoints / JOURNAL)


def _folder(config: Config, resume: str | Path | None) -> RunFolder | None:
    if resume is not None:
        return RunFolder.open(resume)
    named = None if config.name is None else RunFolder(Path(config.output_dir) / config.name)
    return named if named is not None and named.is_run() else None


def _request(folder: RunFolder) -> Config:
    """What the run was asked."""
    if not folder.config_path.is_file():
        raise RequestError(
            f"run `{folder.name}` cannot go on: what it was asked is not known",
            where=str(folder.config_path),
            need="the config.yaml that the run wrote",
            next="put the file back, or begin a new run",
        )
    return load_config(folder.config_path)


def _refuse_finished(folder: RunFolder, verb: str) -> None:
    """A finished run is left alone, and so is one of another command. What cannot be
    read speaks against nothing."""
    result = _result(folder)
    if result.verb not in ("", verb):
        raise RequestError(
            f"run `{folder.name}` already exists in `{folder.path.parent}` and was begun by `loraloom"
            f" {result.verb}`",
            next=f"loraloom {result.verb} --resume {folder.path}, or a new run: --name {_free(folder)}",
        )
    if result.status == "completed" and not any(folder.checkpoints.glob("checkpoint-*.json")):
        # A process that was killed as its very last act has left some of them.
        folder.drop_checkpoints()
        raise RequestError(
            f"run `{folder.name}` already exists in `{folder.path.parent}` and is finished",
            need="a run that was interrupted, or a name that is free",
            next=f"--name {_free(folder)}",
        )


def _result(folder: RunFolder) -> RunResult:
    with suppress(RequestError):
        return folder.result()
    return replay(folder.name, folder.events())


def differing(kept: Config, now: Config, may_change: Collection[str]) -> list[str]:
    """Dotted names of the keys in which two requests differ, but for those that may change."""
    before = _flat(kept)
    asked = _flat(now)
    return [key for key in before if before[key] != asked[key] and key not in may_change]


def _refuse_differences(
    folder: RunFolder, kept: Config, now: Config, may_change: Collection[str]
) -> None:
    changed = differing(kept, now, may_change)
    if changed:
        before = _flat(kept)
        asked = _flat(now)
        raise RequestError(
            f"run `{folder.name}` already exists in `{folder.path.parent}` and was begun with another"
            " request",
            got=", ".join(f"{key} {_shown(asked[key])}" for key in changed),
            need=", ".join(f"{key} {_shown(before[key])}" for key in changed),
            next=(
                "ask the same to go on with it (loraloom runs lists what there is), or begin a new run:"
                f" --name {_free(folder)}"
            ),
        )


def _flat(config: Config) -> dict[str, Any]:
    """Every key's value by its dotted name."""
    plain = to_plain(config)
    flat: dict[str, Any] = {}
    for key in keys():
        value: Any = plain
        for part in key.split("."):
            value = value[part]
        flat[key] = value
    return flat


def _shown(value: Any) -> str:
    return (
        ", ".join(map(str, value))
        if isinstance(value, list)
        else "null"
        if value is None
        else str(value)
    )  # pyright: ignore[reportUnknownVariableType]


def _free(folder: RunFolder) -> str:
    return free_name(folder.path.parent, folder.name)


def _contradiction(folder: RunFolder, run: Mapping[str, Any]) -> str | None:
    """A checkpoint is worth nothing without what was written beside it."""
    for lines, mark in _marks(folder, run):
        if not lines.holds(mark):
            return f"{lines.path.name} is no longer what it was"
    return None


def _marks(folder: RunFolder, run: Mapping[str, Any]) -> list[tuple[Lines, Mark]]:
    nothing = {"size": 0, "crc32": 0}
    return [
        (folder.log, Mark(**run.get("events", nothing))),
        (journal_of(folder), Mark(**run.get("search", nothing))),
    ]
