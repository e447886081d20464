"""One tree of errors. Every message says what is wrong, what was got, what is needed,
and what to do next.

The exit code tells who has to act: 2 for a request that is wrong (nothing was started), 1 for a run that
failed (its state is kept). The command line prints `str(error)` and nothing else: no traceback for a
mistake.
"""

from __future__ import annotations

from typing import Any

LONGEST_PART = 800
"""Characters of one part of a message; a value of megabytes may stand in it."""


class LoraloomError(Exception):
    """Root of everything that loraloom raises on purpose.

    Args:
        what: the fault in one sentence, with the offending name or value in it.
        got: what was found (left out when `what` already says it).
        need: what would have been right.
        next: one command or change that leads on.
        where: file, line or key, when there is one.
    """

    exit_code = 1
    document: dict[str, Any] | None = None
    """What `--json` prints in place of the message, for a verb whose answer is worth
    reading although it says no."""

    def __init__(
        self,
        what: str,
        *,
        got: str | None = None,
        need: str | None = None,
        next: str | None = None,
        where: str | None = None,
    ) -> None:
        self.what = _readable(what)
        self.got, self.need, self.next, self.where = (
            part and _readable(part) for part in (got, need, next, where)
        )
        super().__init__(self.render())

    def __reduce__(self) -> tuple[Any, ...]:
        # An error of a worker arrives as the error that it is: its words are no arguments of its class.
        return _restored, (type(self), self.args, vars(self))

    def render(self) -> str:
        """The message as a person reads it: one line a part."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        parts = [("got", self.got), ("need", self.need), ("next", self.next)]
        return "\n".join([head, *(f"  {name}: {text}" for name, text in parts if text)])


def _restored(kind: type[LoraloomError], args: tuple[Any, ...], words: dict[str, Any]) -> LoraloomError:
    """What was pickled."""
    error = kind.__new__(kind, *args)
    vars(error).update(words)
    return error


def first_line(error: BaseException) -> str:
    """What an error says, on one line; its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _readable(text: str) -> str:
    """`text` cut to what a person reads, each sign that a terminal would obey, or not
    show, as its escape."""
    if len(text) > LONGEST_PART:
        text = f"{text[:LONGEST_PART]}... ({len(text):,} characters)"
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)


class RequestError(LoraloomError, ValueError):
    """The request is wrong: nothing was started."""

    exit_code = 2


class ConfigError(RequestError):
    """A key, value or flag that cannot be."""


class DataError(RequestError):
    """Data that cannot be read, recognised or used."""


class TemplateError(DataError):
    """A chat template that cannot render the data."""


class ModelError(RequestError):
    """A model, adapter folder or target that cannot be used."""


class MemoryBudgetError(RequestError):
    """Nothing fits into the memory that was allowed."""


class RunError(LoraloomError, RuntimeError):
    """The run started and failed; its state is kept."""


class InterruptedRunError(RunError):
    """The run was stopped by Ctrl-C; it can go on."""

    exit_code = 130


class DeviceError(RunError):
    """A device failed, or its memory ran out where nothing could be made smaller."""


class StoreError(RunError):
    """Disk or database refused."""


class VerificationError(RunError):
    """A saved adapter is not the one that was trained."""
