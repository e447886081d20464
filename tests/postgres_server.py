"""A PostgreSQL server of the tests' own: in its own folder, behind a socket there, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from sqlalchemy.engine import URL, create_engine

ANSWERS_AT_ONCE = {
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "autovacuum": "off",
}


def binaries() -> Path | None:
    """Where the server's programs are; Debian keeps them off the path."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def account() -> str | None:
    """Who runs the server: it refuses to run as root. None for whoever runs the tests."""
    if os.getuid() != 0:
        return None
    import pwd  # not on every system, and needed on those with a root alone

    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


class Server:
    """One server. Its superuser is `loraloom`, without a password."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not below pytest's folders: a socket's name has at most 107 characters, and only their owner
        # may enter them.
        self.folder = Path(tempfile.mkdtemp(prefix="loraloom-pg-"))
        self._databases = 0
        self._user = account()
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "--username=loraloom", "--auth=trust", "--no-sync", "--no-locale", "-EUTF8")
        self.start()

    def start(self) -> None:
        options = " ".join(f"-c {key}={value!r}" for key, value in ANSWERS_AT_ONCE.items())
        log = self.folder / "log"
        self._run("pg_ctl", "start", "-w", "-l", str(log), "-o", f"-k {self.folder} {options}")

    def stop(self) -> None:
        """As a crash would: connections are cut."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def restart(self) -> None:
        self.stop()
        self.start()

    def url(self, driver: str = "postgresql", **query: str) -> str:
        asked = {"host": str(self.folder), **query}
        return URL.create(driver, "loraloom", database="postgres", query=asked).render_as_string(False)

    def new_database(self) -> str:
        """The URL of an empty one (a schema: made in no time)."""
        self._databases += 1
        name = f"runs_{self._databases}"
        self.say(f"CREATE SCHEMA {name}")
        return self.url(options=f"-csearch_path={name}")

    def say(self, statement: str) -> None:
        """Run one statement on a connection of its own."""
        engine = create_engine(self.url("postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        # To a file: a server that was started keeps what it inherits open, and a pipe would never end.
        said = self.folder / "said"
        with said.open("w") as file:
            done = subprocess.run(
                [self._programs / program, *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={"PGDATA": str(self.folder / "data"), "PATH": os.environ["PATH"], "LC_ALL": "C"},
                user=self._user,
                extra_groups=None if self._user is None else [],
                check=False,
                timeout=60,
            )
        assert done.returncode == 0, f"{program}: {said.read_text()}"
