"""The database under the index of runs: how it is named, how long it is waited for, and what is said
where it refuses. A password is never said."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from psutil import disk_partitions
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, make_url

from loraloom.errors import RequestError, StoreError

STORAGE_VARIABLE = "LORALOOM_STORAGE"
BROKEN_FILE = ("file is not a database", "malformed", "file is encrypted")
LOCKED = ("database is locked", "database table is locked", "due to statement timeout")
PSYCOPG = "postgresql+psycopg"
SHOWN = ("host", "port")
"""What is shown of the part of a URL behind its question mark: all else may be a secret."""

NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "gluster", "afs", "9p", "sshfs")
"""What the names of file systems begin with that several machines share."""

PATIENCE: dict[str, Any] = {
    "connect_timeout": 5,  # seconds, for each address that the host has
    # Milliseconds until a server that is gone is given up; seconds until a silent one is asked.
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    # A pooler hands each transaction to another server process, which does not know prepared statements.
    "prepare_threshold": None,
    "application_name": "loraloom",
}
"""How psycopg connects, where the URL does not say it otherwise."""


def parsed(url: str) -> URL:
    """The URL, with psycopg for a PostgreSQL without a driver.

    Raises:
        RequestError: it cannot be understood. The message shows of it what cannot be a password.
    """
    # An @ of the password would be taken for its end, and the rest for a host, which messages show.
    if url.partition("?")[0].count("@") > 1:
        raise _bad_url(_scheme(url), "more than one @: in a user name or password it is written as %40")
    try:
        made = make_url(url)
    except exc.ArgumentError:
        raise _bad_url(_scheme(url), "this is no URL") from None
    except ValueError:
        raise _bad_url(_scheme(url), "its port is no number") from None
    named = made.drivername in ("postgres", "postgresql")
    return made.set(drivername=PSYCOPG) if named else made


def make_engine(url: URL, wait_seconds: float) -> sql.Engine:
    """An engine that notices dead connections before it uses them, and waits for nothing without end.

    Raises:
        RequestError: the driver of this database is not installed.
    """
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.drivername == PSYCOPG:
        options["connect_args"] = {key: value for key, value in PATIENCE.items() if key not in url.query}
    if is_sqlite(url):
        options = {"connect_args": {"timeout": wait_seconds}}
        if sqlite_file(url) is None:
            options["poolclass"] = sql.StaticPool
            options["connect_args"]["check_same_thread"] = False
    try:
        engine = sql.create_engine(url, **options)
    except (exc.ArgumentError, ImportError) as error:
        raise _bad_url(shown(url), str(error)) from error
    if is_sqlite(url):
        event.listen(engine, "connect", _roll_back if _is_shared(url) else _write_ahead)
    return engine


def is_sqlite(url: URL) -> bool:
    """Whether SQLite is what the URL names."""
    return url.get_backend_name() == "sqlite"


def sqlite_file(url: URL) -> Path | None:
    """The file that an SQLite database lies in; None for one in memory, and for others."""
    if not is_sqlite(url) or url.database in (None, "", ":memory:") or "mode=memory" in str(url):
        return None
    return Path(str(url.database))


def shown(url: URL) -> str:
    """The URL as a person may see it."""
    query = {key: value for key, value in url.query.items() if key in SHOWN}
    return url.set(query=query).render_as_string(hide_password=True)


def refusal(url: URL, error: exc.DBAPIError, wait_seconds: float) -> StoreError:
    """What a person is told of an error of the database's driver."""
    safe = f"set {STORAGE_VARIABLE} to another URL; run folders hold every run meanwhile"
    if says(error, LOCKED):
        return StoreError(
            "the database stayed locked",
            where=shown(url),
            got=f"waited {wait_seconds:g} s for another process",
            next=f"end the other process, or {safe}",
        )
    if says(error, BROKEN_FILE):
        return StoreError(
            "this file is not a database that can be read",
            where=shown(url),
            next="move it away: its rows are made again from the run folders",
        )
    return StoreError(
        "the database refused",
        where=shown(url),
        got=_without_secrets(str(error.orig).strip(), url),
        next=f"check that it is there and lets you in, or {safe}",
    )


def says(error: exc.DBAPIError, phrases: tuple[str, ...]) -> bool:
    """Whether the driver's message has one of the phrases."""
    text = str(error.orig).lower()
    return any(phrase in text for phrase in phrases)


def _write_ahead(connection: Any, _: object) -> None:
    """Let readers read while one writes. Where the file system cannot, or another
    process writes, the default mode stays."""
    with suppress(Exception):
        connection.execute("PRAGMA journal_mode=WAL").close()


def _roll_back(connection: Any, _: object) -> None:
    """Keep to the default mode, or go back to it: write-ahead needs memory that all who have the file
    open share, so that a second machine would spoil it. https://www.sqlite.org/wal.html"""
    with suppress(Exception):
        connection.execute("PRAGMA journal_mode=DELETE").close()


def _is_shared(url: URL) -> bool:
    """Whether the file lies where other machines may have it open too."""
    file = sqlite_file(url)
    if file is None:
        return False
    place = file.absolute()
    mounts = [part for part in disk_partitions(all=True) if place.is_relative_to(part.mountpoint)]
    kinds = {len(part.mountpoint): part.fstype.removeprefix("fuse.") for part in mounts}
    return bool(kinds) and kinds[max(kinds)].startswith(NETWORK)


def _scheme(url: str) -> str:
    """Of a text that is no URL, what stands before its first colon; all of a mere file name."""
    found = re.match(r"([\w+.-]+):", url)
    return url if "@" not in url and "://" not in url else f"{found[1]}:..." if found else "..."


def _without_secrets(text: str, url: URL) -> str:
    hidden = [url.password, *(value for key, value in url.query.items() if key not in SHOWN)]
    for secret in hidden:
        if isinstance(secret, str) and secret:
            text = text.replace(secret, "***")
    return text


def _bad_url(url: str, reason: str) -> RequestError:
    return RequestError(
        f"`{url}` cannot be used as a database",
        got=reason.splitlines()[0],
        need=(
            "a URL of SQLAlchemy whose driver is installed, such as sqlite:///runs/loraloom.db or"
            ' postgresql://USER@HOST/NAME (pip install "loraloom[postgres]")'
        ),
        next=f"correct {STORAGE_VARIABLE}, or unset it to use SQLite in the output folder",
    )
