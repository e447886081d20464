"""A command to a run, from the body of a request to a line of control.jsonl."""

from __future__ import annotations

import json
from typing import Any

from loraloom.errors import LoraloomError, RequestError, StoreError
from loraloom.store.folder import RunFolder

ENDED = ("completed", "pruned", "diverged", "failed")


def ask(folder: RunFolder, body: bytes, states: dict[str, str]) -> dict[str, Any]:
    """Append the command that a page sent, and say which it was.

    Args:
        states: what is known of each candidate by its name.

    Raises:
        RequestError: it is no command, or not one that this run could obey.
        IdleRunError: nobody works on the run.
        StoreError: the disk refuses.
    """
    from loraloom.store import control  # pydantic comes with it: 8 MiB

    try:
        command = control.command_of_plain(json.loads(body))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise RequestError(
            "this is no command", need="an object with uuid, verb, trial, changes and text"
        ) from None
    control.check(command)
    _check_candidate(command.verb, command.trial, states)
    try:
        control.require_alive(folder)
    except RequestError as error:
        raise IdleRunError(error.what, next=error.next) from None
    control.append(folder, command)
    return {"uuid": command.uuid, "state": "asked"}


class IdleRunError(RequestError):
    """Nobody is there to obey."""


def status_of(error: LoraloomError) -> int:
    """The status that an error of a command is answered with."""
    if isinstance(error, IdleRunError):
        return 409
    return 507 if isinstance(error, StoreError) else 422


def _check_candidate(verb: str, trial: str | None, states: dict[str, str]) -> None:
    if trial is None:
        return
    if trial not in states:
        raise RequestError(f"this run has no candidate `{trial}`", next="reload the page")
    if verb == "prune" and states[trial] in ENDED:
        raise RequestError(f"`{trial}` has ended already: it is {states[trial]}")
