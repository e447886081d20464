"""`loraloom plan`."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from loraloom.cli.request import All, NoHistory, Request, asks

Explain = Annotated[
    str | None,
    typer.Option(
        "--explain",
        metavar="KEY",
        help="One setting at length, such as r; without --model, what holds for any.",
    ),
]

Probe = Annotated[
    bool,
    typer.Option(
        "--probe",
        help=(
            "Run the longest batch and a few steps, and forecast from what they take; needs the weights."
        ),
    ),
]


@asks()
def plan(
    request: Request,
    explain: Explain = None,
    probe: Probe = False,
    no_history: NoHistory = False,
    everything: All = False,
) -> dict[str, Any]:
    """Show every setting with its reason.

    Memory and time are forecast too, and what a tune may change is listed. Nothing is trained.
    """
    if explain is not None:
        from loraloom.cli.explained import show_explanation
        from loraloom.pipeline.plan import explain as run_explain

        return show_explanation(run_explain(request.config, explain))
    from loraloom.cli.planned import show_plan

    if probe:
        from loraloom.pipeline.probe import probe as run_probe

        return show_plan(run_probe(request.config), everything=everything)
    with without_collector():
        from loraloom.pipeline.plan import plan as run_plan

        return show_plan(run_plan(request.config), everything=everything)


@contextmanager
def without_collector() -> Generator[None]:
    """Turn off Python's search for reference cycles: nearly all objects that imports and a plan make
    live to the end, and searching them again and again only takes time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
