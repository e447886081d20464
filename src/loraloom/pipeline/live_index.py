"""The row of a run in the index of runs, brought up to date while the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from threading import Condition, Thread

from loraloom.errors import LoraloomError, StoreError, first_line
from loraloom.store.database import Database
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult

WAIT_SECONDS = 10.0
"""How long one write may wait for another process."""
FINISH_SECONDS = 15.0
"""How long the end of a run waits for its row."""
REST_SECONDS = 1.0
"""Between two writes; candidates of a wide search end more often."""
AGAIN_SECONDS = 5.0
"""Before a write that failed is tried again."""


class LiveIndex:
    """Writes the row beside the run, in a thread of its own: the run never waits for a database.

    One write at a time, of the run as it is then; what comes meanwhile goes with the next one. The row
    is behind while the database cannot be reached.

    Args:
        url: of the index.
        folder: of the run.
        say: is called in the run's own thread, once, where the index could not be brought up to date.

    Raises:
        RequestError: as `Database`.
    """

    def __init__(self, url: str, folder: RunFolder, say: Callable[[str], None]) -> None:
        # Made now or not at all: a share may be gone by the time of a write, and its place stays empty.
        self._database = Database(url, WAIT_SECONDS, makes_folder=False)
        with suppress(StoreError):  # each write says what is wrong
            self._database.make_folder()
        self._folder, self._say = folder.path, say
        self._thread: Thread | None = None
        self._changed = Condition()
        self._next: RunResult | None = None
        self._last = False
        self._problem = ""
        self._said = False

    def update(self, result: RunResult) -> None:
        """Have the row say soon what `result` says now."""
        self._give(result, last=False)
        self._tell(self._problem)

    def finish(self, result: RunResult) -> None:
        """Write the last row; returns after `FINISH_SECONDS` at the latest."""
        self._give(result, last=True)
        assert self._thread is not None
        self._thread.join(FINISH_SECONDS)
        late = self._thread.is_alive()
        self._tell(f"no answer within {FINISH_SECONDS:g} s" if late else self._problem)

    def _give(self, result: RunResult, *, last: bool) -> None:
        with self._changed:
            # The run goes on to change its own one.
            self._next, self._last = replace(result, trials=list(result.trials)), last
            self._changed.notify()
        if self._thread is None:
            # A daemon: a process that ends does not wait for a database either.
            self._thread = Thread(target=self._write_all, name="index of runs", daemon=True)
            self._thread.start()

    def _tell(self, problem: str) -> None:
        if problem and not self._said:
            self._said = True
            # The index can be made anew from the folders at any time: no reason to call a run failed.
            self._say(
                f"the index of runs was not brought up to date ({problem}); that costs the run nothing,"
                " and `loraloom runs` makes it good"
            )

    def _write_all(self) -> None:
        """What the thread does."""
        rest, last = 0.0, False
        while not last:
            result, last = self._take(rest)
            self._problem = self._write(result, last=last)
            rest = AGAIN_SECONDS if self._problem else REST_SECONDS
            if self._problem:
                with self._changed:
                    self._next = self._next or result
        self._database.close()

    def _take(self, rest: float) -> tuple[RunResult, bool]:
        """The next result to write, after `rest` seconds; the last one at once."""
        with self._changed:
            self._changed.wait_for(lambda: self._last, rest)
            self._changed.wait_for(lambda: self._next is not None)
            result, self._next = self._next, None
            assert result is not None
            return result, self._last

    def _write(self, result: RunResult, *, last: bool) -> str:
        """Write one row; returns what was wrong."""
        try:
            if not self._folder.is_dir():
                # An SQLite file might be made anew there, under the place where a share belongs.
                return f"`{self._folder}` is out of reach"
            # While the run lasts, the files may say more or less than `result`: stamp 0.
            self._database.record(result, self._folder, None if last else 0)
        except LoraloomError as error:
            return f"{error.what}: {error.got.splitlines()[0]}" if error.got else error.what
        except Exception as error:  # whatever a driver may raise costs a row, never the run
            return f"{type(error).__name__}: {first_line(error)}"
        return ""
