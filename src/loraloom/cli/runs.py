"""`loraloom runs`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loraloom.cli.request import All, Json, Verbose

if TYPE_CHECKING:
    from loraloom.store.database import Database

OutputDir = Annotated[
    str, typer.Option("--output-dir", metavar="FOLDER", help="Where the run folders are.")
]
Forget = Annotated[
    str | None,
    typer.Option(
        metavar="HOST",
        help="Take the runs of a machine that is gone out of the list; their folders stay.",
    ),
]


def runs(
    output_dir: OutputDir = "runs",
    forget: Forget = None,
    everything: All = False,
    json: Json = False,
    verbose: Verbose = False,
) -> list[dict[str, Any]]:
    """List the runs, newest first."""
    from loraloom.cli.summary import show_runs
    from loraloom.store.database import Database, default_url
    from loraloom.store.summary import reachable

    with Database(default_url(output_dir)) as database:
        database.refresh(output_dir)
        if forget is not None:
            _forget(database, forget)
        found = database.runs()
    show_runs(found, output_dir, everything=everything)
    near = reachable(found)
    return [asdict(run) | {"reachable": run.key in near} for run in found]


def _forget(database: Database, host: str) -> None:
    """Take away the rows of a machine, but for those whose folders are here: they would come back."""
    from loraloom.cli.screen import plain_console, say
    from loraloom.errors import RequestError
    from loraloom.store.summary import reachable

    found = database.runs()
    hosts = sorted({run.host for run in found})
    if host not in hosts:
        raise RequestError(
            f"no run of `{host}` is listed",
            need=f"one of {', '.join(hosts)}" if hosts else None,
            next="loraloom runs shows which machine each run is of",
        )
    near = reachable(found)
    gone = [run for run in found if run.host == host and run.key not in near]
    database.forget(gone)
    kept = sum(run.host == host for run in found) - len(gone)
    stay = f"; {kept} stay, whose folders are within reach" if kept else ""
    say(plain_console(), f"forgotten: {len(gone)} of {host}{stay}")
