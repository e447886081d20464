"""What every input must lead to: an answer, or a refusal that a person can act on.
Never a crash, never a wait without end."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from hypothesis import HealthCheck, settings

from loraloom.errors import LoraloomError

PATIENCE_SECONDS = 30
"""Far above what any of these inputs takes, even on a busy machine: whoever is still at
it then will not end."""
LONGEST_MESSAGE = 5000
"""Characters that a person may be asked to read."""


class Hangs(BaseException):
    """The input was still being read when the patience ended. No `except Exception` on
    the way may swallow it."""


@contextmanager
def watched(seconds: float | None = None) -> Generator[None]:
    """Interrupt what is inside after `seconds`, also when it waits for a file or matches a pattern."""

    def ring(_: int, frame: FrameType | None) -> None:
        raise Hangs("".join(traceback.format_stack(frame, limit=8)))

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds or PATIENCE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def judge(read: Callable[[], object], *named: str) -> LoraloomError | None:
    """Run `read`; its refusal if it refused, None if it answered.

    The refusal must be the user's to mend (exit 2), short, printable, with a way on, and must hold all
    of `named` (the file that is at fault). Whatever else is raised goes through, and fails the test.
    """
    error = _refusal(read)
    if error is None:
        return None
    text = str(error)
    assert error.exit_code == 2, text
    assert error.need or error.next or "must be" in error.what or "try " in error.what, (
        f"no way on: {text}"
    )
    assert len(text) <= LONGEST_MESSAGE, f"{len(text)} characters: {text[:500]}"
    assert all(letter.isprintable() or letter == "\n" for letter in text), f"not printable: {text!r}"
    for name in named:
        assert name in text, f"`{name}` is not named in: {text}"
    return error


def _refusal(read: Callable[[], object]) -> LoraloomError | None:
    try:
        with watched():
            read()
    except LoraloomError as error:
        return error
    return None


def few(inputs: int) -> settings:
    """A quick look, with the same inputs everywhere."""
    return settings(max_examples=inputs, suppress_health_check=list(HealthCheck))


def many(inputs: int) -> settings:
    """One part of a long look, with other inputs every time; `--hypothesis-seed=N` brings one back.

    The look is cut into parts because pytest ends a test that takes more than five minutes.
    """
    return settings(
        max_examples=inputs, derandomize=False, database=None, suppress_health_check=list(HealthCheck)
    )
