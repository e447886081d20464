"""`loraloom adapter`: what is done with an adapter after it was trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from loraloom.cli.request import Json, Verbose
from loraloom.errors import RequestError

adapter = typer.Typer(
    name="adapter",
    help="Look at a trained adapter, merge it, prove what was written.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

Place = Annotated[str, typer.Argument(metavar="ADAPTER", help="A PEFT folder, or a run: its best.")]
Artefact = Annotated[
    str, typer.Argument(metavar="ADAPTER|ARTEFACT", help="An adapter, or a folder that merge wrote.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="BASE", help="The base: a folder, or a hub name that is here."),
]

Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="New folder that is written.")]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="float32, bfloat16 or float16, rounded once; the base's where left out.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the operations, write nothing.")]
MERGED = ("float32", "bfloat16", "float16")


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


@adapter.command()
def merge(
    place: Place,
    out: Out,
    model: Model = None,
    dtype: Dtype = None,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Merge an adapter into a copy of its base, and prove that it computes what was trained."""
    from loraloom.cli.adapter_screen import show_merged
    from loraloom.pipeline.adapters import merge as run_merge

    if dtype is not None and dtype not in MERGED:
        raise RequestError(f"--dtype is {dtype}", need=", ".join(MERGED), next="--dtype bfloat16")
    merged = run_merge(place, model, out, dtype, dry_run=dry_run)
    show_merged(merged)
    return merged.to_json()


@adapter.command()
def verify(
    place: Artefact, model: Model = None, json: Json = False, verbose: Verbose = False
) -> dict[str, Any]:
    """Prove a merged folder once more, or that an adapter merges to what was trained."""
    from loraloom.cli.adapter_screen import show_proof
    from loraloom.pipeline.adapters import verify as run_verify

    proof = run_verify(place, model)
    show_proof(proof)
    return asdict(proof)
