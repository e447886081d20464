"""The index on a real PostgreSQL server: several at once, a server that goes away, and names of it that
hold a password."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql

from loraloom.errors import RequestError, StoreError
from loraloom.store import connection
from loraloom.store.database import Database
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult
from postgres_server import Server

PASSWORD = "pass-word-of-the-index"


@pytest.fixture
def one_run(tmp_path: Path) -> tuple[RunResult, Path]:
    result = RunResult("one", "tune", "completed", "tiny", "causal_lm", "2025-01-01T00:00:00+00:00")
    folder = RunFolder.create(tmp_path / "runs", "one")
    folder.write_result(result)
    return result, folder.path


def engine_of(database: Database) -> sql.Engine:
    return database._engine  # pyright: ignore[reportPrivateUsage]


def while_uncommitted(database: Database, first: Callable[[], Any], second: Callable[[], Any]) -> None:
    """Do `first`, and `second` elsewhere before its commit. Both have to succeed."""
    errors: list[BaseException] = []

    def or_error() -> None:
        try:
            second()
        except BaseException as error:
            errors.append(error)

    other = threading.Thread(target=or_error)

    def pause(_: object) -> None:
        if not other.ident:
            other.start()
            other.join(0.4)  # it waits for the commit

    sql.event.listen(engine_of(database), "commit", pause)
    first()
    other.join()
    assert errors == []


def test_two_first_starts_make_one_table(postgres: Server) -> None:
    url = postgres.new_database()
    with Database(url) as one, Database(url) as two:
        while_uncommitted(one, one.runs, two.runs)


def test_two_writers_of_one_run_wait_for_each_other(
    postgres: Server, one_run: tuple[RunResult, Path]
) -> None:
    url = postgres.new_database()
    with Database(url) as one, Database(url) as two:
        assert one.runs() == two.runs() == []
        while_uncommitted(one, lambda: one.record(*one_run), lambda: two.record(*one_run))
        assert [run.name for run in one.runs()] == ["one"]


def test_a_writer_that_never_ends_is_not_waited_for_without_end(
    postgres: Server, one_run: tuple[RunResult, Path]
) -> None:
    url = postgres.new_database()
    with Database(url) as one, Database(url, wait_seconds=0.2) as two:
        one.record(*one_run)
        assert len(two.runs()) == 1

        def second() -> None:
            with pytest.raises(StoreError, match="the database stayed locked"):
                two.record(*one_run)

        while_uncommitted(one, lambda: one.record(*one_run), second)


def test_the_first_call_after_a_restart_succeeds(
    postgres: Server, one_run: tuple[RunResult, Path]
) -> None:
    with Database(postgres.new_database()) as database:
        assert database.runs() == []
        postgres.restart()
        database.record(*one_run)
        assert len(database.runs()) == 1


def test_a_connection_that_breaks_between_two_statements_costs_nothing(
    postgres: Server, one_run: tuple[RunResult, Path]
) -> None:
    with Database(postgres.new_database()) as database:
        database.record(*one_run)
        broken: list[str] = []

        def break_it(_: object, __: object, statement: str, *more: object) -> None:
            if statement.startswith("INSERT") and not broken:
                broken.append(statement)
                postgres.say(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'loraloom'"
                )

        sql.event.listen(engine_of(database), "before_cursor_execute", break_it)
        database.record(*one_run)
        assert broken and len(database.runs()) == 1


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_server_that_never_answers_is_given_up(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg", reason="needs psycopg: pip install loraloom[postgres]")
    monkeypatch.setitem(connection.PATIENCE, "connect_timeout", 2)
    url = f"postgresql://me:{PASSWORD}@127.0.0.1:{silent_port}/runs"
    with Database(url) as database, pytest.raises(StoreError, match="the database refused") as caught:
        database.runs()
    assert f"me:***@127.0.0.1:{silent_port}/runs" in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@127.0.0.1:1/runs",
        f"postgresql://127.0.0.1:1/runs?user=me&password={PASSWORD}",
        f"postgresql://127.0.0.1:1/runs?sslmode={PASSWORD}",
        f"postgresql://127.0.0.1:1/runs?{PASSWORD}=x",
        f"postgresql://me:with@{PASSWORD}@127.0.0.1:1/runs",
        f"postgresql://me:{PASSWORD}@127.0.0.1:port/runs",
        f"postgresql:/me:{PASSWORD}@127.0.0.1/runs",
        f"{PASSWORD}@127.0.0.1/runs",
        f"me:{PASSWORD}@127.0.0.1/runs",
        f"nosuch://me:{PASSWORD}@127.0.0.1/runs?password={PASSWORD}",
    ],
)
def test_a_password_is_in_no_message(url: str) -> None:
    pytest.importorskip("psycopg", reason="needs psycopg: pip install loraloom[postgres]")
    with pytest.raises((RequestError, StoreError)) as caught:
        Database(url).runs()
    assert PASSWORD not in str(caught.value) and "LORALOOM_STORAGE" in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_each_way_to_write_the_scheme_is_taken(postgres: Server, scheme: str) -> None:
    with Database(postgres.new_database().replace("postgresql:", f"{scheme}:")) as database:
        assert database.runs() == []
