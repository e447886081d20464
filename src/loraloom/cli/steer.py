"""`loraloom steer`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loraloom.cli.report import Run
from loraloom.cli.request import Json, Verbose
from loraloom.cli.runs import OutputDir
from loraloom.errors import RequestError

if TYPE_CHECKING:
    from loraloom.store.control import Command
    from loraloom.store.folder import RunFolder

LOOK_SECONDS = 0.1

Verb = Annotated[
    str,
    typer.Argument(metavar="COMMAND", help="prune, clone, extend, note or stop.", show_default=False),
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TRIAL|N|TEXT]", help="The trial to prune or clone, how many more, or the note."
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="What a clone has otherwise. Repeatable."),
]
Warm = Annotated[bool, typer.Option("--warm", help="A clone begins with its parent's best weights.")]
Wait = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", help="How long to wait for what comes of it.")
]


def steer(
    run: Run,
    command: Verb,
    words: Words = None,
    output_dir: OutputDir = "runs",
    changes: Changes = None,
    warm: Warm = False,
    wait: Wait = 10.0,
    json: Json = False,
    verbose: Verbose = False,
) -> dict[str, Any]:
    """Prune, clone, extend, note or stop, in a run that goes."""
    from loraloom.store.control import append, check, require_alive
    from loraloom.store.find import find_run

    folder = find_run(run, output_dir)
    asked = _command(command, words or (), _changes(changes or (), warm=warm))
    check(asked)
    require_alive(folder)
    begin = folder.events_path.stat().st_size if folder.events_path.exists() else 0
    append(folder, asked)
    told = _answer(folder, asked.uuid, begin, wait)
    if told.get("state") == "refused":
        raise RequestError(f"refused: {told.get('reason')}", next=f"loraloom report {folder.path}")
    made = f": {told['made']}" if told.get("made") else ""
    typer.echo(f"done{made}" if told else f"asked; no answer within {wait:g} s: it comes after a tick")
    return {"uuid": asked.uuid, "state": told.get("state", "asked"), "made": told.get("made")}


def _command(verb: str, words: Sequence[str], changes: dict[str, Any]) -> Command:
    """What is asked, as words of a command line say it."""
    from loraloom.store.control import TRIALS, Command, new_uuid

    text = " ".join(words)
    match verb:
        case "note":
            return Command(new_uuid(), verb, None, changes, text or None)
        case "extend":
            count = int(text) if text.isascii() and text.isdigit() else text
            return Command(new_uuid(), verb, None, {**changes, TRIALS: count})
        case _:
            return Command(new_uuid(), verb, text or None, changes)


def _changes(sets: Sequence[str], *, warm: bool) -> dict[str, Any]:
    from loraloom.store.control import WARM

    found: dict[str, Any] = {WARM: True} if warm else {}
    for one in sets:
        key, equals, value = one.partition("=")
        if not equals:
            raise RequestError(
                f"--set takes KEY=VALUE, not {one!r}", next="for example --set adapter.r=8"
            )
        found[key.strip()] = value.strip()
    return found


def _answer(folder: RunFolder, uuid: str, begin: int, seconds: float) -> Mapping[str, Any]:
    """What the run says of a command, once it does; empty where it does not in time.

    Args:
        begin: bytes of events.jsonl before it was asked.
    """
    from loraloom.store.event_lines import event_of_line

    until = time.monotonic() + seconds
    while True:
        with folder.events_path.open("rb") as file:
            file.seek(begin)
            for event in map(event_of_line, file):
                if event and event.kind == "command" and event.data.get("uuid") == uuid:
                    return event.data
        if time.monotonic() > until:
            return {}
        time.sleep(LOOK_SECONDS)
