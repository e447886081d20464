"""`loraloom runs`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from loraloom.cli.request import All, Json, Verbose

OutputDir = Annotated[
    str, typer.Option("--output-dir", metavar="FOLDER", help="Where the run folders are.")
]


def runs(
    output_dir: OutputDir = "runs", everything: All = False, json: Json = False, verbose: Verbose = False
) -> list[dict[str, Any]]:
    """List the runs, newest first."""
    from loraloom.cli.summary import show_runs
    from loraloom.store.database import Database, default_url

    with Database(default_url(output_dir)) as database:
        database.refresh(output_dir)
        found = database.runs()
    show_runs(found, output_dir, everything=everything)
    return [asdict(run) for run in found]
