"""An index of all runs, in SQL. It holds nothing that the run folders do not hold: lose
it, and it is built again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sql
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.schema import CreateTable

from loraloom.errors import LoraloomError, RequestError, StoreError
from loraloom.store.folder import RunFolder, no_place
from loraloom.store.names import DATABASE_NAME
from loraloom.store.result import RunResult
from loraloom.store.to_json import plain

STORAGE_VARIABLE = "LORALOOM_STORAGE"
BROKEN_FILE = ("file is not a database", "malformed", "file is encrypted")
LOCKED = ("database is locked", "database table is locked")

T = TypeVar("T")

FOLDER = sql.String(700)
"""As long as MySQL lets a key be. Folders are absolute paths: names repeat between output folders."""

# With a prefix: the database may hold tables of others. Older releases wrote loraloom_trials and
# loraloom_events too, and kept Optuna's study here: such tables are left as they are.
RUNS = sql.Table(
    "loraloom_runs",
    sql.MetaData(),
    sql.Column("folder", FOLDER, primary_key=True),
    sql.Column("name", sql.String(200), nullable=False),
    sql.Column("verb", sql.String(40), nullable=False),
    sql.Column("status", sql.String(40), nullable=False),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("task", sql.String(40), nullable=False),
    sql.Column("started_at", sql.String(40), nullable=False),
    sql.Column("seconds", sql.Float, nullable=False),
    sql.Column("metric", sql.String(200), nullable=False),
    sql.Column("direction", sql.String(20), nullable=False),
    sql.Column("best", sql.String(200)),
    sql.Column("best_value", sql.Float),
    sql.Column("best_se", sql.Float),
    sql.Column("baseline_value", sql.Float),
    sql.Column("trials", sql.Integer, nullable=False),
    sql.Column("statuses", sql.JSON, nullable=False),
    sql.Column("stamp", sql.BigInteger, nullable=False),
)


@dataclass(frozen=True)
class RunSummary:
    """One run in a list of runs. The fields are the columns of its table."""

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
    best_value: float | None
    best_se: float | None
    baseline_value: float | None
    trials: int
    statuses: dict[str, int]
    """How many trials ended in which status."""
    stamp: int
    """When its folder last changed, as it was recorded: nanoseconds since 1970."""


def default_url(output_dir: str | Path) -> str:
    """LORALOOM_STORAGE, or the SQLite file `output_dir/loraloom.db`."""
    named = os.environ.get(STORAGE_VARIABLE, "").strip()
    return (
        named
        or URL.create(
            "sqlite", database=str(Path(output_dir).absolute() / DATABASE_NAME)
        ).render_as_string()
    )


class Database:
    """A list of runs.

    Args:
        url: any URL of SQLAlchemy; `sqlite://` lives in memory.
        wait_seconds: how long to wait for another process that holds an SQLite file.

    A missing `loraloom.db` is built from the run folders beside it. A broken one is moved aside, never
    deleted, and built again. One that stays locked ends in a StoreError: the run itself is safe in its
    folder.

    Raises:
        RequestError: the URL cannot be understood, or its driver is not installed.
    """

    def __init__(self, url: str, wait_seconds: float = 30.0) -> None:
        self._url = _parsed(url)
        self._wait_seconds = wait_seconds
        self._file = _sqlite_file(self._url)
        self._engine = _engine(self._url, wait_seconds)
        self._ready = False

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back. The object stays usable, except that a database in
        memory is then empty."""
        self._engine.dispose()
        self._ready = False

    def record(self, result: RunResult, folder: str | Path) -> None:
        """Write the row of one run, in place of the one it had."""
        row = _run_row(result, folder)

        def write(connection: sql.Connection) -> None:
            _forget(connection, row["folder"])
            connection.execute(RUNS.insert(), row)

        self._do(write)

    def runs(self) -> list[RunSummary]:
        """All runs, the latest first."""
        if self._file is not None and not self._file.parent.exists():
            return []
        query = sql.select(RUNS).order_by(RUNS.c.started_at.desc(), RUNS.c.folder)
        return self._do(
            lambda connection: [RunSummary(**row) for row in connection.execute(query).mappings()]
        )

    def rebuild(self, output_dir: str | Path) -> int:
        """Make the rows of all runs in `output_dir` anew, from their folders alone;
        returns how many there are.

        Rows of folders that are gone from `output_dir` go too. A folder whose files
        cannot be read is left out.
        """
        return self._read_folders(Path(output_dir), known={})

    def refresh(self, output_dir: str | Path) -> int:
        """As `rebuild`, but only folders that changed since they were recorded are
        read: cheap enough for every listing.

        This also finds runs that were killed before they could record themselves.

        Raises:
            RequestError: `output_dir` is a file.
        """
        if Path(output_dir).is_file():
            raise no_place(Path(output_dir))
        return self._read_folders(Path(output_dir), known={run.folder: run.stamp for run in self.runs()})

    def _read_folders(self, root: Path, known: Mapping[str, int]) -> int:
        seen: set[str] = set()
        for path in sorted(root.iterdir()) if root.is_dir() else ():
            folder = RunFolder(path)
            if not folder.is_run():
                continue
            with suppress(RequestError):
                if known.get(_key(path)) != _stamp(folder):
                    self.record(folder.result(), path)
                seen.add(_key(path))
        for run in self.runs():
            if Path(run.folder).parent == root.resolve() and run.folder not in seen:
                self._do(lambda connection, gone=run.folder: _forget(connection, gone))
        return len(seen)

    def _do(self, action: Callable[[sql.Connection], T]) -> T:
        """Run `action` in one transaction; a broken `loraloom.db` is replaced and the
        action tried once more."""
        try:
            return self._attempt(action)
        except exc.DatabaseError as error:
            if not _says(error, BROKEN_FILE) or self._file is None or self._file.name != DATABASE_NAME:
                raise self._refusal(error) from error
        self._move_aside(self._file)
        try:
            return self._attempt(action)
        except exc.DatabaseError as error:
            raise self._refusal(error) from error

    def _attempt(self, action: Callable[[sql.Connection], T]) -> T:
        if not self._ready:
            self._prepare()
        with self._engine.begin() as connection:
            return action(connection)

    def _prepare(self) -> None:
        """Make the table; fill a `loraloom.db` that had none from the run folders beside it."""
        if self._file is not None:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"the folder of the database cannot be made: `{self._file.parent}`",
                    got=error.strerror,
                    next=f"choose another place: --output-dir FOLDER, or {STORAGE_VARIABLE}=URL",
                ) from error
        with self._engine.begin() as connection:
            new = not sql.inspect(connection).has_table(RUNS.name)
            # Not RUNS.create: it looks first and makes then, and two processes that
            # start together would collide.
            connection.execute(CreateTable(RUNS, if_not_exists=True))
        self._ready = True
        if new and self._file is not None and self._file.name == DATABASE_NAME:
            self.rebuild(self._file.parent)

    def _move_aside(self, file: Path) -> None:
        self.close()
        number = 1
        while (aside := file.with_name(f"{file.name}.broken-{number}")).exists():
            number += 1
        file.rename(aside)
        # The journal of the broken file must not be played into the new one.
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                file.with_name(file.name + suffix).rename(aside.with_name(aside.name + suffix))

    def _refusal(self, error: exc.DatabaseError) -> LoraloomError:
        shown = self._url.render_as_string(hide_password=True)
        if _says(error, LOCKED):
            return StoreError(
                "the database stayed locked",
                where=shown,
                got=f"waited {self._wait_seconds:g} s for another process",
                next=(
                    f"end the other process, or set {STORAGE_VARIABLE} to another URL; run folders hold"
                    " every run meanwhile"
                ),
            )
        if _says(error, BROKEN_FILE):
            return StoreError(
                "this file is not a database that can be read",
                where=shown,
                next="move it away: its rows are made again from the run folders",
            )
        return StoreError(
            "the database refused",
            where=shown,
            got=str(error.orig).strip(),
            next=(
                f"check the place, or set {STORAGE_VARIABLE} to another URL; run folders hold every run"
                " meanwhile"
            ),
        )


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except exc.ArgumentError as error:
        raise _bad_url(url, str(error)) from error


def _engine(url: URL, wait_seconds: float) -> sql.Engine:
    options: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": wait_seconds}
        if _sqlite_file(url) is None:
            options["poolclass"] = sql.StaticPool
            options["connect_args"]["check_same_thread"] = False
    try:
        engine = sql.create_engine(url, **options)
    except (exc.ArgumentError, ImportError) as error:
        raise _bad_url(url.render_as_string(hide_password=True), str(error)) from error
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _write_ahead)
    return engine


def _write_ahead(connection: Any, _: object) -> None:
    """Let readers read while one writes. Where the file system cannot, or another
    process writes, the default mode stays."""
    with suppress(Exception):
        connection.execute("PRAGMA journal_mode=WAL").close()


def _bad_url(url: str, reason: str) -> RequestError:
    return RequestError(
        f"`{url}` cannot be used as a database",
        got=reason.splitlines()[0],
        need=(
            "a URL of SQLAlchemy whose driver is installed, such as sqlite:///runs/loraloom.db or"
            " postgresql+psycopg://HOST/NAME"
        ),
        next=f"correct {STORAGE_VARIABLE}, or unset it to use SQLite in the output folder",
    )


def _sqlite_file(url: URL) -> Path | None:
    if (
        url.get_backend_name() != "sqlite"
        or url.database in (None, "", ":memory:")
        or "mode=memory" in str(url)
    ):
        return None
    return Path(str(url.database))


def _stamp(folder: RunFolder) -> int:
    files = (folder.result_path, folder.events_path, folder.config_path)
    return max((path.stat().st_mtime_ns for path in files if path.exists()), default=0)


def _key(folder: str | Path) -> str:
    return str(Path(folder).resolve())


def _run_row(result: RunResult, folder: str | Path) -> dict[str, Any]:
    best = result.trial(result.best)
    return {
        "folder": _key(folder),
        "name": result.name,
        "verb": result.verb,
        "status": result.status,
        "model": result.model,
        "task": result.task,
        "started_at": result.started_at,
        "seconds": plain(result.seconds) or 0.0,
        "metric": result.metric,
        "direction": result.direction,
        "best": result.best,
        "best_value": plain(result.value(best)) if best else None,
        "best_se": plain(best.metrics.get(f"{result.metric}_se")) if best else None,
        "baseline_value": plain(result.baseline.get(result.metric)),
        "trials": len(result.trials),
        "statuses": dict(Counter(trial.status for trial in result.trials)),
        "stamp": _stamp(RunFolder(folder)),
    }


def _forget(connection: sql.Connection, folder: str) -> None:
    connection.execute(RUNS.delete().where(RUNS.c.folder == folder))


def _says(error: exc.DatabaseError, phrases: tuple[str, ...]) -> bool:
    text = str(error.orig).lower()
    return any(phrase in text for phrase in phrases)
