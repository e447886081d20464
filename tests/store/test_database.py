"""A database that is missing, broken, locked or wrongly named never costs a run."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from loraloom.errors import RequestError, StoreError
from loraloom.records import Event, Trial
from loraloom.store import connection
from loraloom.store.database import Database, default_url
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult


def run(output_dir: Path, name: str) -> tuple[RunResult, RunFolder]:
    folder = RunFolder.create(output_dir, name)
    trials = [Trial("t000", "completed", {}, {"validation_loss": 1.5})]
    result = RunResult(
        name,
        "tune",
        "completed",
        "tiny",
        "causal_lm",
        "2025-01-01T00:00:00+00:00",
        best="t000",
        trials=trials,
    )
    folder.write_result(result)
    return result, folder


def names(database: Database) -> list[str]:
    return sorted(summary.name for summary in database.runs())


@contextmanager
def locked(file: Path) -> Iterator[sqlite3.Connection]:
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield other
    finally:
        other.close()


@pytest.fixture(autouse=True)
def no_storage_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORALOOM_STORAGE", raising=False)


def test_the_default_lies_in_the_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "odd name%20?", "first")
    with Database(default_url(tmp_path / "odd name%20?")) as database:
        assert names(database) == ["first"]
    assert (tmp_path / "odd name%20?" / "loraloom.db").is_file()
    monkeypatch.setenv("LORALOOM_STORAGE", "sqlite://")
    assert default_url(tmp_path) == "sqlite://"


def test_listing_makes_no_folder(tmp_path: Path) -> None:
    with Database(default_url(tmp_path / "runs")) as database:
        assert database.runs() == []
    assert list(tmp_path.iterdir()) == []


def test_a_missing_database_is_built_from_the_folders_beside_it(tmp_path: Path) -> None:
    with Database(default_url(tmp_path)) as database:
        for name in ("first", "second"):
            database.record(*(lambda made: (made[0], made[1].path))(run(tmp_path, name)))
    for file in tmp_path.glob("loraloom.db*"):
        file.unlink()
    with Database(default_url(tmp_path)) as database:
        assert names(database) == ["first", "second"]


def test_tables_of_others_do_not_hide_the_folders(tmp_path: Path) -> None:
    run(tmp_path, "first")
    sqlite3.connect(tmp_path / "loraloom.db").execute(
        "CREATE TABLE studies (id INTEGER)"
    ).connection.close()
    with Database(default_url(tmp_path)) as database:
        assert names(database) == ["first"]


def test_a_database_of_an_older_release_goes_on(tmp_path: Path) -> None:
    """Its tables are left as they are, and its runs are listed from their folders."""
    _, folder = run(tmp_path, "first")
    said = json.loads(folder.result_path.read_text())
    del said["id"], said["host"]
    folder.result_path.write_text(json.dumps(said))
    old = sqlite3.connect(tmp_path / "loraloom.db")
    for table in ("loraloom_runs", "loraloom_trials", "loraloom_events"):
        old.execute(f"CREATE TABLE {table} (folder VARCHAR(700) PRIMARY KEY)")
        old.execute(f"INSERT INTO {table} VALUES (?)", (str(folder.path),))
    old.commit()
    with Database(default_url(tmp_path)) as database:
        assert names(database) == ["first"]
        run(tmp_path, "second")
        for _ in range(2):
            assert database.refresh(tmp_path) == 2
            assert names(database) == ["first", "second"]
    for table in ("loraloom_runs", "loraloom_trials", "loraloom_events"):
        assert old.execute(f"SELECT folder FROM {table}").fetchall() == [(str(folder.path),)]
    old.close()


def test_a_run_that_was_killed_is_found(tmp_path: Path) -> None:
    with Database(default_url(tmp_path)) as database:
        assert database.refresh(tmp_path) == 0
        RunFolder.create(tmp_path, "killed").append(Event("run_started", data={"verb": "tune"}))
        assert database.refresh(tmp_path) == 1
        assert [(summary.name, summary.status) for summary in database.runs()] == [
            ("killed", "interrupted")
        ]


@pytest.mark.parametrize(
    "broken", [b"this was never a database " * 400, b"SQLite format 3\x00" + b"\xff" * 8000]
)
def test_a_broken_database_is_moved_aside_and_built_again(tmp_path: Path, broken: bytes) -> None:
    run(tmp_path, "first")
    (tmp_path / "loraloom.db").write_bytes(broken)
    with Database(default_url(tmp_path)) as database:
        assert names(database) == ["first"]
    assert (tmp_path / "loraloom.db.broken-1").read_bytes() == broken


def test_a_database_that_breaks_later_is_built_again_too(tmp_path: Path) -> None:
    result, folder = run(tmp_path, "first")
    with Database(default_url(tmp_path)) as database:
        database.record(result, folder.path)
    content = bytearray((tmp_path / "loraloom.db").read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    (tmp_path / "loraloom.db").write_bytes(content)
    with Database(default_url(tmp_path)) as database:
        assert names(database) == ["first"]


def test_a_file_of_the_user_is_never_moved(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes " * 200)
    with (
        Database(f"sqlite:///{notes}") as database,
        pytest.raises(StoreError, match="not a database that can be read") as caught,
    ):
        database.runs()
    assert str(notes) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    result, folder = run(tmp_path, "first")
    with Database(default_url(tmp_path), wait_seconds=20) as database:
        database.runs()
        with locked(tmp_path / "loraloom.db") as other:
            release = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
            release.start()
            database.record(result, folder.path)
            release.join()
        assert names(database) == ["first"]


def test_one_that_stays_locked_says_so_and_the_run_is_safe(tmp_path: Path) -> None:
    result, folder = run(tmp_path, "first")
    with Database(default_url(tmp_path), wait_seconds=0.1) as database:
        database.runs()
        with (
            locked(tmp_path / "loraloom.db"),
            pytest.raises(StoreError, match="the database stayed locked") as caught,
        ):
            database.record(result, folder.path)
        assert "waited 0.1 s" in str(caught.value)
        assert "run folders hold every run" in str(caught.value)
        assert caught.value.exit_code == 1
        assert RunFolder.open(folder.path).result() == result
        assert database.rebuild(tmp_path) == 1


def test_readers_read_while_another_writes(tmp_path: Path) -> None:
    result, folder = run(tmp_path, "first")
    with Database(default_url(tmp_path), wait_seconds=0.1) as database:
        database.record(result, folder.path)
        writer = sqlite3.connect(tmp_path / "loraloom.db", isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        assert names(database) == ["first"]
        writer.close()


@pytest.mark.parametrize(
    ("kind", "mode"), [("ext4", "wal"), ("nfs4", "delete"), ("fuse.sshfs", "delete")]
)
def test_a_file_that_several_machines_may_have_open_needs_no_memory_that_they_share(
    kind: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, "first")
    with Database(default_url(tmp_path)) as database:
        assert names(database) == ["first"]
    mounts = [SimpleNamespace(mountpoint="/", fstype="ext4")]
    mounts.append(SimpleNamespace(mountpoint=str(tmp_path), fstype=kind))
    monkeypatch.setattr(connection, "disk_partitions", lambda **_: mounts)
    with Database(default_url(tmp_path)) as database:
        assert names(database) == ["first"]
    file = sqlite3.connect(tmp_path / "loraloom.db")
    assert file.execute("PRAGMA journal_mode").fetchone() == (mode,)
    file.close()


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    runs = [run(tmp_path, f"run-{number}") for number in range(12)]

    def write(some: list[tuple[RunResult, RunFolder]]) -> None:
        with Database(default_url(tmp_path)) as database:
            for result, folder in some:
                database.record(result, folder.path)

    writers = [threading.Thread(target=write, args=(runs[start::3],)) for start in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with Database(default_url(tmp_path)) as database:
        assert len(names(database)) == 12


@pytest.mark.parametrize(
    "url", ["runs/loraloom.db", "nosuch://host/db", "", "postgresql+nosuchdriver://host/db"]
)
def test_a_url_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match="cannot be used as a database") as caught:
        Database(url)
    assert "LORALOOM_STORAGE" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_password_is_not_shown() -> None:
    with pytest.raises(RequestError) as caught:
        Database("nosuch://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    result, folder = run(tmp_path / "other", "first")
    with (
        Database(f"sqlite:///{tmp_path / 'runs' / 'loraloom.db'}") as database,
        pytest.raises(StoreError, match="cannot be made"),
    ):
        database.record(result, folder.path)
