"""`loraloom report`."""

from __future__ import annotations

import webbrowser
from typing import Annotated, Any

import typer

from loraloom.cli.request import Json, Verbose
from loraloom.cli.runs import OutputDir

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Folder or name of the run.", show_default=False)
]
Open = Annotated[bool, typer.Option("--open", help="Show the page in a browser.")]


def report(
    run: Run,
    output_dir: OutputDir = "runs",
    open: Open = False,
    json: Json = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Redraw a run's page from its folder."""
    from loraloom.report.page import write_report
    from loraloom.store.find import find_run

    path = write_report(find_run(run, output_dir)).resolve()
    typer.echo(path)
    if open:
        webbrowser.open(path.as_uri())
    return {"report": str(path), "bytes": path.stat().st_size}
