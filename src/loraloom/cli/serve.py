"""`loraloom serve`."""

from __future__ import annotations

from typing import Annotated

import typer

Folder = Annotated[
    str, typer.Argument(metavar="OUTPUT_DIR", help="Where the run folders are.", show_default=True)
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Where to listen; 0 takes any.")]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Only show; refuse every command to a run.")]


def serve(output_dir: Folder = "runs", port: Port = 7077, read_only: ReadOnly = False) -> None:
    """Show runs as they go, and steer them, in a browser."""
    from loraloom.web.server import become_server, listening

    with listening(output_dir, port) as door:
        typer.echo(door.address)
        become_server(door, read_only=read_only)
