"""`loraloom plan`."""

from __future__ import annotations

from typing import Any

from loraloom.cli.request import Request, asks


@asks()
def plan(request: Request) -> dict[str, Any]:
    """Show every setting with its reason.

    Memory and time are forecast too. Nothing is trained.
    """
    from loraloom.cli.summary import show_plan
    from loraloom.pipeline.plan import plan as run_plan

    return show_plan(run_plan(request.config))
