"""What a user asks of a run while it goes: commands in control.jsonl, which anybody may append and only
the run's own driver obeys.

The file is only ever appended to, and no resume cuts it. What became of a command is told by an event of
kind `command` in events.jsonl: its data hold `uuid`, `verb`, `state` ("applied" or "refused") and
`reason`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from loraloom.config.decode import load_config
from loraloom.config.keys import asked_value, nearest
from loraloom.config.space import searchable
from loraloom.errors import ConfigError, RequestError
from loraloom.store.disk import disk, sync_folder
from loraloom.store.folder import RunFolder
from loraloom.store.lock import exclusively
from loraloom.store.names import check_name
from loraloom.store.to_json import to_json

VERBS = ("prune", "stop", "clone", "extend", "note")
WARM = "warm"
"""Key of a clone's changes: whether it begins with its parent's best weights."""
TRIALS = "trials"
"""Key of the changes of `extend`: how many candidates more."""
MOST_TRIALS = 1_000
LONGEST_LINE = 4_096
"""Bytes of one command as JSON."""
LONGEST_TEXT = 1_000
_UUID = re.compile(r"[0-9A-Za-z-]{8,64}")


@dataclass(frozen=True)
class Command:
    """One thing that a user asks of a run.

    Attributes:
        uuid: its own name. A command that is written twice counts once.
        verb: one of `VERBS`.
        trial: the candidate that is pruned or cloned; None for the other verbs.
        changes: of a clone, settings by dotted key and `warm`; of `extend`, `trials`.
        text: of a note.
    """

    uuid: str
    verb: str
    trial: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    text: str | None = None


@dataclass(frozen=True)
class Asked:
    """What control.jsonl holds.

    Attributes:
        commands: in the order of the file, each uuid once.
        unreadable: numbers of the whole lines, from 1, that are no commands.
    """

    commands: tuple[Command, ...] = ()
    unreadable: tuple[int, ...] = ()


def new_uuid() -> str:
    """A name that no other command has."""
    return str(uuid.uuid4())


def append(folder: RunFolder, command: Command) -> None:
    """Add a command for the run's driver to obey. It is on the disk when this returns.

    Raises:
        RequestError: as in `check`.
        StoreError: the disk refuses; nothing is left of the command then.
    """
    check(command)
    path = folder.control_path
    line = to_json(asdict(command)) + b"\n"
    with disk(path):
        is_new = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            with exclusively(handle):
                _append(handle, line)
        finally:
            os.close(handle)
        if is_new:
            sync_folder(path.parent)


def _append(handle: int, line: bytes) -> None:
    """Write a line whole, or leave the file as it was."""
    size = os.fstat(handle).st_size
    torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
    rest = b"\n" + line if torn else line
    try:
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, size)
        raise


def commands(folder: RunFolder) -> list[Command]:
    """All that was asked, in the order of the file, each uuid once; foreign lines are passed over."""
    return list(read(folder).commands)


def read(folder: RunFolder) -> Asked:
    """All that was asked. A last line without its end is left until it is whole."""
    try:
        content = folder.control_path.read_bytes()
    except FileNotFoundError:
        return Asked()
    found: dict[str, Command] = {}
    unreadable: list[int] = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        command = _command(line)
        if command is not None:
            found.setdefault(command.uuid, command)
        elif line.strip():
            unreadable.append(number)
    return Asked(tuple(found.values()), tuple(unreadable))


def _command(line: bytes) -> Command | None:
    """The command of a line; None where it is none."""
    if len(line) > LONGEST_LINE:
        return None
    try:
        data = cast("dict[str, Any]", json.loads(line))
        return command_of_plain(data)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def command_of_plain(data: Mapping[str, Any]) -> Command:
    """The command whose `asdict` this is, after JSON.

    Raises:
        ValueError: it has no uuid or no verb, or a part of another type.
    """
    changes: Any = data.get("changes") or {}
    parts: list[Any] = [data["uuid"], data["verb"], data.get("trial"), data.get("text")]
    if not all(part is None or isinstance(part, str) for part in parts):
        raise ValueError("a command is made of texts")
    name, verb, trial, text = parts
    if not isinstance(changes, dict) or not _UUID.fullmatch(name or "") or not verb:
        raise ValueError("a command has a uuid, a verb, and changes by name")
    return Command(name, verb, trial, cast("dict[str, Any]", changes), text)


def check(command: Command) -> None:
    """Refuse what no run could obey.

    Raises:
        RequestError: an unknown verb, a bad name of a trial, a change that is none, a text that is
            missing or too long.
    """
    if command.verb not in VERBS:
        raise RequestError(
            f"there is no command `{command.verb}`", need=f"one of {', '.join(VERBS)}", next="try stop"
        )
    if not _UUID.fullmatch(command.uuid):
        raise RequestError(
            f"`{command.uuid}` is no uuid of a command",
            next="take a new one, such as uuid.uuid4() gives",
        )
    _check_trial(command)
    _check_text(command)
    if command.verb == "clone":
        changed_settings(command)
    elif command.verb == "extend":
        _check_count(command)
    elif command.changes:
        raise RequestError(f"`{command.verb}` changes nothing", next="leave the changes out")
    if len(to_json(asdict(command))) > LONGEST_LINE:
        raise RequestError(f"a command has at most {LONGEST_LINE} bytes", next="ask for less at once")


def _check_trial(command: Command) -> None:
    needed = command.verb in ("prune", "clone")
    if needed and not command.trial:
        raise RequestError(
            f"`{command.verb}` needs a trial", next=f"name one, such as {command.verb} t003"
        )
    if command.trial is not None:
        if not needed:
            raise RequestError(f"`{command.verb}` is for the whole run", next="leave the trial out")
        check_name(command.trial)


def _check_text(command: Command) -> None:
    text = (command.text or "").strip()
    if command.verb == "note" and not text:
        raise RequestError("a note needs a text", next="say what is worth remembering")
    if command.verb != "note" and text:
        raise RequestError(f"`{command.verb}` takes no text", next="write it in a note")
    if not all(sign.isprintable() or sign.isspace() for sign in text):
        raise RequestError("a note has signs that cannot be shown", next="leave them out")
    if len(text) > LONGEST_TEXT:
        raise RequestError(f"a note has at most {LONGEST_TEXT} characters", next="write two")


def _check_count(command: Command) -> None:
    count = command.changes.get(TRIALS)
    if set(command.changes) != {TRIALS} or type(count) is not int or not 1 <= count <= MOST_TRIALS:
        raise RequestError(
            "`extend` takes the number of candidates that are to come on top",
            got=", ".join(f"{key} {value!r}" for key, value in command.changes.items()) or "none",
            need=f"{TRIALS}: a whole number from 1 to {MOST_TRIALS:,}",
            next=f"for example {TRIALS}: 4",
        )


def is_warm(command: Command) -> bool:
    """Whether a clone begins with its parent's best weights.

    Raises:
        RequestError: it says so by another value than true or false.
    """
    warm = command.changes.get(WARM, False)
    if not isinstance(warm, bool):
        raise RequestError(f"`{WARM}` is {warm!r} but must be true or false", next=f"{WARM}: true")
    return warm


def changed_settings(command: Command) -> dict[str, Any]:
    """Settings of a clone that are not its parent's, by dotted key, each in the type of its key.

    Raises:
        RequestError: a key that candidates of one run cannot differ in, a value that cannot be, or no
            change at all.
    """
    warm = is_warm(command)
    asked = {key: value for key, value in command.changes.items() if key != WARM}
    for key, value in asked.items():
        if key not in searchable():
            guess = nearest(key, among=searchable())
            raise RequestError(
                f"a clone cannot change `{key}`",
                need=f"one of {', '.join(searchable())}",
                next=f"did you mean `{guess}`?" if guess else "begin a new run for that",
            )
        if value == "auto" or value is None:
            raise RequestError(
                f"a clone needs a value of `{key}`, not {value}", next="leave it out: its parent's stays"
            )
    if not asked and not warm:
        raise RequestError(
            "a clone without changes would be its parent again",
            next="change a setting, or let it begin with its parent's weights (warm)",
        )
    try:
        config = load_config(flags=asked)
    except ConfigError as error:
        raise RequestError(
            error.what, got=error.got, need=error.need, next=error.next or "choose another value"
        ) from None
    return {key: asked_value(config, key) for key in asked}


def is_alive(folder: RunFolder) -> bool:
    """Whether a process works on a run, so that a command would be obeyed."""
    return folder.is_locked()


def require_alive(folder: RunFolder) -> None:
    """Refuse where nobody is there to obey.

    Raises:
        RequestError: no process works on the run; it names the command that lets it go on.
    """
    if is_alive(folder):
        return
    verb, status = "tune", ""
    with suppress(RequestError):
        result = folder.result()
        verb, status = result.verb or verb, result.status
    if status == "completed":
        raise RequestError(
            f"run `{folder.name}` is finished", next=f"look at it: loraloom report {_quoted(folder)}"
        )
    raise RequestError(
        f"no process works on run `{folder.name}`: nobody would obey",
        next=f"let it go on first: loraloom {verb} --resume {_quoted(folder)}",
    )


def _quoted(folder: RunFolder) -> str:
    return shlex.quote(str(folder.path))
