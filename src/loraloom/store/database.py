"""An index of all runs, in SQL. It holds nothing that the run folders do not hold: lose
it, and it is built again.

One database may serve many machines. A run is known by its id and its folder, so that equal paths on two
machines are two rows, and a machine takes away only rows of its own.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sql
from sqlalchemy import exc
from sqlalchemy.engine import URL
from sqlalchemy.schema import CreateTable

from loraloom.errors import LoraloomError, RequestError, StoreError
from loraloom.store.connection import (
    BROKEN_FILE,
    STORAGE_VARIABLE,
    make_engine,
    parsed,
    refusal,
    says,
    sqlite_file,
)
from loraloom.store.disk import disk
from loraloom.store.folder import RunFolder, no_place
from loraloom.store.names import DATABASE_NAME, this_host
from loraloom.store.result import RunResult
from loraloom.store.summary import RunSummary, instant, is_there, place_of, stamp_of, summary_of

T = TypeVar("T")

# With a prefix: the database may hold tables of others. Older releases wrote loraloom_runs (whose key
# was the folder alone), loraloom_trials and loraloom_events: such tables are left as they are.
RUNS = sql.Table(
    "loraloom_index",
    sql.MetaData(),
    # Of id and folder. Texts of any length cannot be a key everywhere.
    sql.Column("key", sql.String(64), primary_key=True),
    sql.Column("id", sql.Text, nullable=False),
    sql.Column("host", sql.Text, nullable=False),
    sql.Column("folder", sql.Text, nullable=False),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("verb", sql.Text, nullable=False),
    sql.Column("status", sql.Text, nullable=False),
    sql.Column("model", sql.Text, nullable=False),
    sql.Column("task", sql.Text, nullable=False),
    sql.Column("started_at", sql.Text, nullable=False),
    sql.Column("seconds", sql.Float(53), nullable=False),
    sql.Column("metric", sql.Text, nullable=False),
    sql.Column("direction", sql.Text, nullable=False),
    sql.Column("best", sql.Text),
    sql.Column("best_value", sql.Float(53)),
    sql.Column("best_se", sql.Float(53)),
    sql.Column("baseline_value", sql.Float(53)),
    sql.Column("trials", sql.Integer, nullable=False),
    sql.Column("statuses", sql.JSON, nullable=False),
    sql.Column("stamp", sql.BigInteger, nullable=False),
)
COLUMNS = [column for column in RUNS.c if column.name != "key"]


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
        wait_seconds: how long to wait for another process that holds the database.
        makes_folder: whether a missing folder of an SQLite file is made whenever the file is opened.

    A missing `loraloom.db` is built from the run folders beside it. A broken one is moved aside, never
    deleted, and built again. One that stays locked ends in a StoreError: the run itself is safe in its
    folder.

    Raises:
        RequestError: the URL cannot be understood, or its driver is not installed.
    """

    def __init__(self, url: str, wait_seconds: float = 30.0, *, makes_folder: bool = True) -> None:
        self._url = parsed(url)
        self._wait_seconds, self._makes_folder = wait_seconds, makes_folder
        self._file = sqlite_file(self._url)
        self._engine = make_engine(self._url, wait_seconds)
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

    def make_folder(self) -> None:
        """Make the folder of an SQLite file, if it is missing.

        Raises:
            StoreError: the disk refused.
        """
        if self._file is not None:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(
                    f"the folder of the database cannot be made: `{self._file.parent}`",
                    got=error.strerror,
                    next=f"choose another place: --output-dir FOLDER, or {STORAGE_VARIABLE}=URL",
                ) from error

    def record(self, result: RunResult, folder: str | Path, stamp: int | None = None) -> RunSummary:
        """Write the row of one run, in place of the one it had.

        Args:
            stamp: when the folder changed last before `result` was read from it. Without it the folder
                has to hold what `result` says; with 0 the next listing reads it again in any case.
        """
        row = summary_of(result, folder, stamp_of(RunFolder(folder)) if stamp is None else stamp)

        def write(connection: sql.Connection) -> None:
            self._wait_for(connection, row.key)
            _forget(connection, [row.key])
            connection.execute(RUNS.insert(), {"key": row.key, **vars(row)})

        self._do(write)
        return row

    def runs(self) -> list[RunSummary]:
        """All runs, the latest first."""
        if self._file is not None and not self._file.parent.exists():
            return []
        query = sql.select(*COLUMNS)
        found = self._do(
            lambda connection: [RunSummary(**row) for row in connection.execute(query).mappings()]
        )
        return sorted(found, key=lambda run: (-instant(run.started_at), run.folder, run.id))

    def forget(self, runs: Collection[RunSummary]) -> None:
        """Take these rows away; a folder that is still there brings its row back when it is read."""
        if runs:
            self._do(lambda connection: _forget(connection, [run.key for run in runs]))

    def rebuild(self, output_dir: str | Path) -> int:
        """Make the rows of all runs in `output_dir` anew, from their folders alone;
        returns how many there are.

        Rows of this machine whose folders are gone from `output_dir` go too. A folder whose files
        cannot be read is left out.
        """
        return self._read_folders(Path(output_dir), known={})

    def refresh(self, output_dir: str | Path) -> int:
        """As `rebuild`, but only folders that changed since they were recorded are
        read: cheap enough for every listing.

        This also finds runs that were killed before they could record themselves.

        Raises:
            RequestError: `output_dir` is a file.
            StoreError: it cannot be read.
        """
        if Path(output_dir).is_file():
            raise no_place(Path(output_dir))
        return self._read_folders(
            Path(output_dir), known={(run.folder, run.stamp): run for run in self.runs()}
        )

    def _read_folders(self, root: Path, known: dict[tuple[str, int], RunSummary]) -> int:
        # Asked first: a run that records itself meanwhile is not taken for one whose folder is gone.
        before = self.runs()
        if not root.is_dir():  # it may come back: a share that is not mounted
            return 0
        with disk(root):
            paths = sorted(root.iterdir())
        found: list[RunSummary] = []
        unread: set[str] = set()
        for path in paths:
            folder = RunFolder(path)
            with suppress(RequestError):
                try:
                    if folder.is_run():
                        stamp = stamp_of(folder)
                        run = known.get((place_of(path), stamp))
                        found.append(run or self._read(folder, stamp))
                except OSError:  # a share that fails for a while says nothing about its runs
                    unread.add(place_of(path))
        self.forget(self._gone([run for run in before if run.folder not in unread], root, found))
        return len(found)

    def _read(self, folder: RunFolder, stamp: int) -> RunSummary:
        """Write the row of a run as its folder has it."""
        result = folder.result()
        if result.status in ("running", "interrupted"):
            # A run that is killed cannot say so; one that has just begun has not said anything yet.
            result.status = "running" if folder.is_locked() else "interrupted"
        return self.record(result, folder.path, 0 if result.status == "running" else stamp)

    def _gone(
        self, rows: Sequence[RunSummary], root: Path, found: Sequence[RunSummary]
    ) -> list[RunSummary]:
        """Rows whose folder is no more: it is not among those `found` in `root`, or it moved there.

        A row of another machine stays, whose folders are not seen from here, unless the database lies in
        `root` itself.
        """
        root, keys, ids = root.resolve(), {run.key for run in found}, {run.id for run in found}
        beside = self._file is not None and self._file.parent.resolve() == root
        return [
            run
            for run in rows
            if (beside or run.host == this_host())
            and run.key not in keys
            and (Path(run.folder).parent == root or (run.id in ids and not is_there(run)))
        ]

    def _wait_for(self, connection: sql.Connection, key: str) -> None:
        """Let one process at a time go on with `key`, until its transaction ends.

        Only PostgreSQL needs it: two that make the same table, or the same row, would collide there,
        although they look first.
        https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
        """
        if self._url.get_backend_name() == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {self._wait_seconds * 1000:.0f}")
            number = zlib.crc32(f"{RUNS.name} {key}".encode())
            connection.execute(sql.select(sql.func.pg_advisory_xact_lock(number)))

    def _do(self, action: Callable[[sql.Connection], T]) -> T:
        """Run `action` in one transaction.

        It is tried once more where the connection was lost (the server was started anew), and where a
        broken `loraloom.db` was replaced.
        """
        try:
            return self._attempt(action)
        except exc.DBAPIError as error:
            broken = self._file is not None and says(error, BROKEN_FILE)
            if broken and self._file is not None and self._file.name == DATABASE_NAME:
                self._move_aside(self._file)
            elif not error.connection_invalidated:
                raise self._refusal(error) from error
        try:
            return self._attempt(action)
        except exc.DBAPIError as error:
            raise self._refusal(error) from error

    def _attempt(self, action: Callable[[sql.Connection], T]) -> T:
        if not self._ready:
            self._prepare()
        with self._engine.begin() as connection:
            return action(connection)

    def _prepare(self) -> None:
        """Make the table; fill a `loraloom.db` that had none from the run folders beside it."""
        if self._makes_folder:
            self.make_folder()
        with self._engine.begin() as connection:
            self._wait_for(connection, "table")
            new = not sql.inspect(connection).has_table(RUNS.name)
            if new:
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

    def _refusal(self, error: exc.DBAPIError) -> LoraloomError:
        return refusal(self._url, error, self._wait_seconds)


def _forget(connection: sql.Connection, keys: Collection[str]) -> None:
    connection.execute(
        RUNS.delete().where(RUNS.c.key == sql.bindparam("gone")), [{"gone": key} for key in keys]
    )
