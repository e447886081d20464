"""The index follows a run, and the run never waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loraloom.errors import StoreError
from loraloom.pipeline import live_index
from loraloom.pipeline.live_index import LiveIndex
from loraloom.records import Event, Trial
from loraloom.store.database import Database, default_url
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult


class Watched:
    """A run with its index, and what was said of that."""

    def __init__(self, root: Path) -> None:
        self.url = default_url(root)
        self.folder = RunFolder.create(root, "one")
        self.folder.lock()
        self.folder.append(Event("run_started", data={"id": "1"}))
        started = "2025-01-01T00:00:00+00:00"
        self.result = RunResult("one", "tune", "running", "tiny", "causal_lm", started, id="1")
        self.said: list[str] = []
        self.index = LiveIndex(self.url, self.folder, self.said.append)

    def ends(self, number: int, loss: float) -> None:
        """One more candidate has ended."""
        trial = Trial(f"t{number:03d}", "completed", {}, {"validation_loss": loss})
        self.folder.append(Event("evaluated", trial.id, data={"split": "validation", "loss": loss}))
        self.folder.append(Event("completed", trial.id))
        self.result.trials.append(trial)
        self.index.update(self.result)

    def finish(self) -> None:
        self.result.status = "completed"
        self.folder.write_result(self.result)
        self.index.finish(self.result)

    def row(self) -> tuple[str, int, str | None]:
        with Database(self.url) as database:
            return next(((run.status, run.trials, run.best) for run in database.runs()), ("", 0, None))

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end, self.row()
            time.sleep(0.01)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(live_index, "REST_SECONDS", 0.01)
    watched = Watched(tmp_path / "runs")
    yield watched
    watched.finish()  # no thread outlives its test
    watched.folder.unlock()


def test_a_candidate_that_has_ended_is_listed_while_the_run_goes_on(run: Watched) -> None:
    run.ends(0, 1.5)
    run.until(lambda: run.row() == ("running", 1, "t000"))
    run.ends(1, 1.25)
    run.until(lambda: run.row() == ("running", 2, "t001"))
    run.finish()
    assert run.row() == ("completed", 2, None) and run.said == []


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A database that answers no sooner than this is set."""
    answers, record = threading.Event(), Database.record

    def waits(database: Database, *given: Any) -> Any:
        answers.wait()
        return record(database, *given)

    monkeypatch.setattr(Database, "record", waits)
    return answers


def test_a_database_that_does_not_answer_is_not_waited_for(
    run: Watched, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_index, "FINISH_SECONDS", 0.05)
    for number in range(1000):
        run.ends(number, 1.5)  # each would wait for ever
    run.finish()
    assert len(run.said) == 1 and "not brought up to date (no answer within 0.05 s)" in run.said[0]
    monkeypatch.undo()
    stuck.set()


def test_what_comes_during_a_write_goes_with_the_next_one(
    run: Watched, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    record = Database.record

    def counted(database: Database, result: RunResult, *given: Any) -> Any:
        written.append(len(result.trials))
        return record(database, result, *given)

    monkeypatch.setattr(Database, "record", counted)
    run.ends(0, 1.5)
    run.until(lambda: written == [1])
    for number in range(1, 500):
        run.ends(number, 1.5)
    stuck.set()
    run.finish()
    assert written[0] == 1 and written[-1] == 500 and len(written) <= 3
    assert run.row()[:2] == ("completed", 500)


@pytest.mark.parametrize("error", [StoreError("the database refused", got="it is away"), OSError("odd")])
def test_what_failed_is_said_once_and_made_good(
    error: Exception, run: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_index, "AGAIN_SECONDS", 0.01)
    failures: list[Exception] = []
    record = Database.record

    def fails(database: Database, *given: Any) -> Any:
        if len(failures) < 3:
            failures.append(error)
            raise error
        return record(database, *given)

    monkeypatch.setattr(Database, "record", fails)
    run.ends(0, 1.5)
    run.until(lambda: len(failures) == 3)
    run.until(lambda: run.row() == ("running", 1, "t000"))
    run.ends(1, 1.25)
    run.finish()
    assert run.row()[:2] == ("completed", 2)
    assert len(run.said) <= 1


def test_a_database_that_is_away_all_the_time_is_told_once(
    run: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(database: Database, *given: Any) -> Any:
        raise StoreError("the database refused", got="it is away\nfor good")

    monkeypatch.setattr(Database, "record", fails)
    run.ends(0, 1.5)
    run.ends(1, 1.5)
    run.finish()
    assert len(run.said) == 1 and "(the database refused: it is away)" in run.said[0]


def test_a_share_that_goes_between_a_look_and_a_write_gets_no_file_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    run = Watched(share / "runs")
    look = Path.is_dir

    def is_dir(path: Path, **more: Any) -> bool:
        there = look(path, **more)
        if path == run.folder.path and there:
            share.rename(tmp_path / "away")
            share.mkdir()
        return there

    monkeypatch.setattr(Path, "is_dir", is_dir)
    run.index.update(run.result)
    run.index.finish(run.result)
    assert len(run.said) == 1 and "not brought up to date" in run.said[0]
    assert not list(share.iterdir())
