"""`loraloom env`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loraloom.cli.request import Json, Verbose


def env(json: Json = False, verbose: Verbose = False) -> dict[str, Any]:
    """Show versions, devices and what works here."""
    from loraloom.cli.summary import show_facts
    from loraloom.facts.device import environment
    from loraloom.pipeline.device_errors import device_errors

    with device_errors():
        found = environment()
    show_facts({**found, "gpu": gpu_lines(found["gpu"])})
    return found


def gpu_lines(gpu: Mapping[str, Any] | None) -> Mapping[str, str] | str:
    """What a GPU is used with, one part a line."""
    if gpu is None:
        return "none"
    parts = {name: part for name, part in gpu.items() if isinstance(part, Mapping)}
    told = {
        name: "yes" if part["used"] else f"no, because {part['reason']}" for name, part in parts.items()
    }
    return {**{name: str(value) for name, value in gpu.items() if name not in parts}, **told}
