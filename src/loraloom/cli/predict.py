"""`loraloom predict`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from loraloom.cli.request import Request, asks
from loraloom.report.words import duration

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
GoesOn = Annotated[
    bool,
    typer.Option("--resume", help="Go on with what an earlier call left in FILE.partial; else begin."),
]
LINE_SECONDS = 10.0
"""Between two lines about how far it is, where there is no terminal."""


@asks("model", "data", "task", "seed")
def predict(
    request: Request,
    adapter: Adapter = None,
    out: Out = None,
    probabilities: Probabilities = False,
    max_new_tokens: MaxNewTokens = 128,
    goes_on: GoesOn = False,
    dry_run: DryRun = False,
) -> dict[str, Any]:
    """Label, answer or score new rows, and keep them as a file.

    Each row comes back with all its columns and `predicted`: the label of a classifier, or what a
    language model answers; or with `score`, that of a reward model. Labels or answers that the rows
    already have are kept in their columns; only a reward model reads answers. What is predicted is kept
    in FILE.partial as it comes; FILE is there when all of it is. JSONL and Parquet are never in memory
    as a whole.
    """
    from loraloom.data.writers import json_line
    from loraloom.pipeline.predict import predict as run_predict

    rows: list[dict[str, Any]] = []

    def take(lot: list[dict[str, Any]]) -> None:
        if request.json:
            rows.extend(lot)
        else:
            sys.stdout.writelines(f"{json_line(row)}\n" for row in lot)

    with counted(request.quiet) as tick:
        found = run_predict(
            request.config,
            adapter,
            probabilities=probabilities,
            max_new_tokens=max_new_tokens,
            dry_run=dry_run,
            out=out,
            resume=goes_on,
            take=take,
            tick=tick,
        )
    for note in found.notes:
        typer.echo(f"warning: {note}", err=True)
    document = found.to_json()
    if dry_run:
        typer.echo(
            f"{found.rows:,} rows would be given to {found.adapter or found.model} for {found.task}"
        )
        return document
    if out is not None:
        typer.echo(f"{found.rows:,} rows in {out}")
        return {**document, "out": str(out)}
    return {**document, "rows": rows}


@contextmanager
def counted(quiet: bool) -> Generator[Callable[[int, int], None]]:
    """Show how many rows are done, how fast, and how long the rest will take: in one line of a terminal,
    else in a line now and then."""
    terminal = sys.stderr.isatty()
    told = time.monotonic()
    first: tuple[int, float] | None = None

    def tick(done: int, rows: int) -> None:
        nonlocal told, first
        now = time.monotonic()
        if first is None:  # what was done before, and loading, say nothing of the speed
            first = done, now
            return
        if quiet or not (terminal or now - told > LINE_SECONDS):
            return
        told = now
        speed = (done - first[0]) / max(now - first[1], 1e-9)
        line = f"{done:,} of {rows:,} rows  {speed:,.3g} rows/s  {duration((rows - done) / speed)} left"
        print(f"\r\033[K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    try:
        yield tick
    finally:
        if terminal and not quiet:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
