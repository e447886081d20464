"""`loraloom compare`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from loraloom.cli.request import All, Json, Verbose
from loraloom.cli.runs import OutputDir

Places = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="Runs (folder or name), or RUN:TRIAL.", show_default=False),
]


def compare(
    places: Places,
    output_dir: OutputDir = "runs",
    everything: All = False,
    json: Json = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Compare the settings of a run, or several runs."""
    from loraloom.cli.comparison import show_comparison
    from loraloom.cli.screen import plain_console
    from loraloom.pipeline.compare import compare as run_compare

    found = run_compare(places, output_dir)
    show_comparison(found, plain_console(), everything=everything)
    return found.to_json()
