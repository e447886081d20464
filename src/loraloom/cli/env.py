"""`loraloom env`."""

from __future__ import annotations

from typing import Any

from loraloom.cli.request import Json, Verbose


def env(json: Json = False, verbose: Verbose = False) -> dict[str, Any]:
    """Show versions, devices and what works here."""
    from loraloom.cli.summary import show_facts
    from loraloom.facts.device import environment
    from loraloom.pipeline.device_errors import device_errors

    with device_errors():
        found = environment()
    show_facts(found)
    return found
