"""`loraloom adapter`: what is done with an adapter after it was trained."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from loraloom.cli.request import Json, Verbose

adapter = typer.Typer(
    name="adapter",
    help="Look at a trained adapter, merge it, prove what was written.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

Place = Annotated[str, typer.Argument(metavar="ADAPTER", help="A PEFT folder, or a run: its best.")]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="BASE", help="The base: a folder, or a hub name that is here."),
]


@adapter.command()
def inspect(
    place: Place, model: Model = None, json: Json = False, verbose: Verbose = False
) -> dict[str, Any]:
    """Show layers, ranks and scales of an adapter; with --model, its size beside the base's weights."""
    from loraloom.cli.adapter_screen import show_inspection
    from loraloom.pipeline.adapters import inspect as run_inspect

    found, over = run_inspect(place, model)
    show_inspection(found, over)
    return {**found.to_json(), "trained_over": asdict(over)}
