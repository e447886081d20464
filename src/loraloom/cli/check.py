"""`loraloom check`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from loraloom.cli.request import All, Request, asks

Quick = Annotated[
    bool,
    typer.Option("--quick", help="Leave out what needs the weights: memory is forecast, not measured."),
]


@asks()
def check(request: Request, quick: Quick = False, everything: All = False) -> dict[str, Any]:
    """Look for what would go wrong before it does.

    One batch, the longest, goes through the real model forwards and backwards. Nothing
    is trained or written.
    """
    from loraloom.cli.preflight import show_checks
    from loraloom.pipeline.check import check as run_check
    from loraloom.pipeline.check import refuse_failed

    checked = run_check(request.config, quick=quick)
    show_checks(checked, everything=everything)
    refuse_failed(checked)
    return checked.to_json()
