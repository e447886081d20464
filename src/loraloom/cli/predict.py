"""`loraloom predict`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from loraloom.cli.request import Request, asks

Adapter = Annotated[
    str | None,
    typer.Option("--adapter", metavar="RUN|FOLDER", help="Adapter that answers; none: the base."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", help="New file: .jsonl, .csv or .parquet. Else JSONL to stdout."
    ),
]
Probabilities = Annotated[
    bool, typer.Option("--probabilities", help="Of classes: add how probable each is.")
]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, metavar="N", help="Longest answer.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read everything, predict nothing.")]


@asks("model", "data", "task", "seed")
def predict(
    request: Request,
    adapter: Adapter = None,
    out: Out = None,
    probabilities: Probabilities = False,
    max_new_tokens: MaxNewTokens = 128,
    dry_run: DryRun = False,
) -> dict[str, Any]:
    """Label or answer new rows, and keep them as a file.

    Each row comes back with all its columns and `predicted`: the label of a classifier, or what a
    language model answers. Labels or answers that the rows already have are kept in their columns and
    otherwise ignored.
    """
    from loraloom.data.writers import check_target, json_line, write_rows
    from loraloom.pipeline.predict import predict as run_predict

    if out is not None:
        check_target(out)
    with counted(request.quiet) as tick:
        found = run_predict(
            request.config,
            adapter,
            probabilities=probabilities,
            max_new_tokens=max_new_tokens,
            dry_run=dry_run,
            tick=tick,
        )
    for note in found.notes:
        typer.echo(f"warning: {note}", err=True)
    document = found.to_json()
    if dry_run:
        typer.echo(
            f"{len(found.rows):,} rows would be given to {found.adapter or found.model} for {found.task}"
        )
        return {**document, "rows": len(found.rows)}
    if out is not None:
        write_rows(out, found.rows)
        typer.echo(f"{len(found.rows):,} rows in {out}")
        return {**document, "rows": len(found.rows), "out": str(out)}
    if not request.json:
        sys.stdout.writelines(f"{json_line(row)}\n" for row in found.rows)
    return document


@contextmanager
def counted(quiet: bool) -> Generator[Callable[[int, int], None]]:
    """Show how many rows are done, in one line of a terminal; show nothing where there is none."""
    shows = not quiet and sys.stderr.isatty()

    def tick(done: int, rows: int) -> None:
        if shows:
            print(f"\r{done:,} of {rows:,} rows", end="", file=sys.stderr, flush=True)

    try:
        yield tick
    finally:
        if shows:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
