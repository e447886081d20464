"""`loraloom ship`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from loraloom.cli.adapter import TARGETS_HELP
from loraloom.cli.request import Json, Verbose
from loraloom.cli.runs import OutputDir
from loraloom.errors import RunError

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Folder or name of the run.", show_default=False)
]
To = Annotated[
    str, typer.Option("--to", metavar="TARGET,TARGET", help=f"With commas between: {TARGETS_HELP}")
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="BASE", help="The base: a folder, or a hub name that is here."),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="RUN/ship where it is left out.")
]


def ship(
    run: Run,
    to: To,
    out: Out = None,
    model: Model = None,
    output_dir: OutputDir = "runs",
    json: Json = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Bring a run's best to servers and files, each proved."""
    from loraloom.cli.adapter_screen import show_shipped
    from loraloom.pipeline.export import ship as run_ship

    targets = [target.strip() for target in to.split(",") if target.strip()]
    shipped = run_ship(run, targets, model, out, output_dir)
    show_shipped(shipped)
    if shipped.failed:
        error = RunError(
            f"{len(shipped.failed)} of {len(targets)} artefacts failed: {', '.join(shipped.failed)}",
            next="what each needs stands above",
        )
        error.document = {"error": {"what": error.what}, **shipped.to_json()}
        raise error
    return shipped.to_json()
