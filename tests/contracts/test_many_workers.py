"""One driver over many workers: whatever happens to them, every candidate comes to one end, and none is
trained too long."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "end_to_end"))

from bases import save_bert
from doorway import write_rows
from fake_workers import FakeWorkers, PowerOff, Simulated
from kill_story import Redone

from loraloom.config import names
from loraloom.config.decode import load_config
from loraloom.errors import InterruptedRunError, RunError
from loraloom.pipeline import drive, write_timer
from loraloom.pipeline.drive import Driver
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.pipeline.recorder import Recorder
from loraloom.pipeline.resume import Reopened
from loraloom.pipeline.run_log import RunLog
from loraloom.pipeline.tune import SearchSource
from loraloom.pipeline.write_timer import WriteTimer
from loraloom.plan.case import Decided
from loraloom.plan.search_space import search_space
from loraloom.records import Score
from loraloom.store.control import Command, append, new_uuid
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult
from loraloom.train.checkpoint import load
from loraloom.train.orders import Report

TRIALS, SIZES = 24, (3, 1, 4, 2)
ENDS = {"completed", "pruned", "diverged", "failed"}


@pytest.fixture(scope="module")
def request_of(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """A real request; what it trains is only pretended."""
    home = tmp_path_factory.mktemp("request")
    sentences = [
        f"the {who} {does} here"
        for who in ("cat", "dog", "bird")
        for does in ("sleeps", "waits", "turns")
    ]
    rows = [{"text": one, "label": one.split()[1]} for one in sentences * 3]
    asked = {"data.train": write_rows(home / "rows.jsonl", rows), "data.validation": 0.3}
    model = str(save_bert(home / "bert", sentences))
    return prepare(
        load_config(None, {**asked, "model.name_or_path": model, "output_dir": str(home)}), race=True
    )


@pytest.fixture(autouse=True)
def disk_of_glass(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power fails here, and bringing files to a real disk takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def writes_now_and_then(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Runs are short here: whether it is time to write is drawn."""
    chance = Random(seed)
    monkeypatch.setattr(WriteTimer, "due", lambda self: chance.random() < 0.1)


class Run:
    """A search over fake workers in a folder, begun or gone on with."""

    def __init__(self, prepared: Prepared, folder: Path, pruner: str, trials: int = TRIALS) -> None:
        asked, settings = prepared.config, prepared.plan.settings
        settings = Decided({**settings, names.TRIALS: replace(settings[names.TRIALS], value=trials)})
        self.prepared = replace(
            prepared,
            config=replace(asked, search=replace(asked.search, pruner=pruner)),
            plan=replace(prepared.plan, settings=settings),
        )
        self.folder = RunFolder(folder)

    def go(self, workers: FakeWorkers) -> RunLog:
        folder, checkpoint = self.folder, load(self.folder.checkpoints)
        Reopened(folder, self.prepared.config, checkpoint).take_up()
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        result = RunResult(
            folder.name, "tune", "running", "fake", self.prepared.task, "2026-01-01T00:00:00+00:00"
        )
        log = RunLog(self.prepared, Recorder(folder, result, lambda event: None), checkpoint)
        with log.running(lambda kept: None):
            log.base_score = log.base_score or Score("validation", {"loss": 9.0})
            self.source = SearchSource(log, search_space(self.prepared.plan))
            Driver(workers, log).run(self.source)
            log.recorder.write()
        return log

    def events(self) -> Iterator[dict[str, Any]]:
        return map(json.loads, self.folder.events_path.read_text().splitlines())

    def require_whole(self, course: Simulated, trials: int = TRIALS) -> Counter[str]:
        """What must be true of a run that is over, whatever happened in it; how many ended how."""
        steps, scores, ends = Counter[str](), dict[str, list[int]](), Counter[str]()
        there: set[str] = set()
        for event in self.events():
            trial = event["trial"]
            if event["kind"] == "workers":
                there = set(event["data"])
            elif event["kind"] in ("trial_started", "running"):
                assert event["data"]["worker"] in there, "it is said who trains it"
            if event["kind"] == "step":
                steps[trial] += 1
                assert event["step"] == steps[trial], "each step is written down once, in order"
            elif event["kind"] == "evaluated" and trial:
                scores.setdefault(trial, []).append(event["step"])
            elif event["kind"] in ENDS:
                ends[trial] += 1
        assert sorted(ends) == [f"t{number:03d}" for number in range(trials)] and set(ends.values()) == {
            1
        }
        assert all(earlier < later for told in scores.values() for earlier, later in pairwise(told)), (
            "no score twice"
        )
        assert all(course.is_due(step) for told in scores.values() for step in told)
        result = self.folder.result()
        assert {trial.id for trial in result.trials} == set(ends)
        for trial in result.trials:
            # One that was to go part of its way again may be ended in between, but never before its last
            # score.
            assert scores.get(trial.id, [0])[-1] <= trial.steps <= steps[trial.id] <= course.steps
            assert trial.status != "completed" or (trial.steps == course.steps and trial.adapter)
        assert not self.source.searcher.searcher.ready
        return Counter(trial.status for trial in result.trials)


@pytest.mark.parametrize("pruner", ["auto", "careful", "none"])
@pytest.mark.parametrize("seed", range(2))
def test_every_candidate_comes_to_one_end(
    request_of: Prepared, pruner: str, seed: int, tmp_path: Path
) -> None:
    course = Simulated(diverging=0.1)
    workers = FakeWorkers(SIZES, tmp_path / "checkpoints", course, seed=seed)
    run = Run(request_of, tmp_path, pruner)
    run.go(workers)
    ends = run.require_whole(course)
    assert ends["completed"] and not ends["failed"]
    workers.close()
    assert sum(workers.trained.values()) == sum(trial.steps for trial in run.folder.result().trials), (
        "nothing twice"
    )


@pytest.mark.parametrize(
    ("pruner", "seed"), [("auto", 0), ("auto", 1), ("auto", 2), ("careful", 0), ("none", 0)]
)
def test_lost_workers_lose_no_candidate(
    request_of: Prepared, pruner: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraloom.pipeline.queue.LOST_LIMIT", 1000)
    writes_now_and_then(monkeypatch, seed)
    course = Simulated(diverging=0.1)
    workers = FakeWorkers(SIZES, tmp_path / "checkpoints", course, seed=seed, losses=0.05)
    run = Run(request_of, tmp_path, pruner)
    run.go(workers)
    ends = run.require_whole(course)
    assert workers.lost > 3 and ends["completed"] and not ends["failed"]


@pytest.mark.parametrize("seed", range(2))
def test_whoever_dies_an_interval_is_done_again_at_most(
    request_of: Prepared, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates are kept as they are scored, and not by the time that goes by."""
    monkeypatch.setattr("loraloom.pipeline.queue.LOST_LIMIT", 1000)
    monkeypatch.setattr(write_timer, "EVERY_SECONDS", 1e9)
    monkeypatch.setattr(write_timer, "SHARE", 10.0)
    course, chance = Simulated(), Random(seed)
    run, redone, died = Run(request_of, tmp_path, "none"), Redone(), 0
    for life in range(1000):
        ends_after, lives = chance.randrange(40, 120), 100 * seed + life
        workers = FakeWorkers(
            SIZES, tmp_path / "checkpoints", course, seed=lives, losses=0.05, ends_after=ends_after
        )
        with suppress(PowerOff):
            run.go(workers)
            break
        died += 1
        redone.lived(tmp_path)
        redone.driver_died(tmp_path)
    redone.lived(tmp_path)
    run.require_whole(course)
    assert died and 0 < redone.most <= course.steps // course.evaluations
    named = load(tmp_path / "checkpoints")
    assert named and not named.trainer["waiting"]
    left = list((tmp_path / "checkpoints").glob("waiting-*"))
    assert len(left) < TRIALS * course.evaluations / 2, "old states are removed"


def test_one_that_is_always_with_a_lost_worker_fails_and_the_run_goes_on(
    request_of: Prepared, tmp_path: Path
) -> None:
    course = Simulated()
    workers = FakeWorkers((2, 2), tmp_path / "checkpoints", course, seed=1, losses=0.2)
    run = Run(request_of, tmp_path, "none", trials=12)
    run.go(workers)
    ends = run.require_whole(course, trials=12)
    assert ends["failed"]
    failed = next(trial for trial in run.folder.result().trials if trial.status == "failed")
    assert failed.reason is not None and "lost 3 times" in failed.reason


@pytest.mark.parametrize(("pruner", "seed"), [("auto", 0), ("auto", 2), ("careful", 1), ("none", 0)])
def test_a_driver_that_dies_goes_on(
    request_of: Prepared, pruner: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again, at any time; workers are lost meanwhile."""
    monkeypatch.setattr("loraloom.pipeline.queue.LOST_LIMIT", 1000)
    writes_now_and_then(monkeypatch, seed)
    course, chance = Simulated(diverging=0.1), Random(seed)
    run, died = Run(request_of, tmp_path, pruner), 0
    for life in range(1000):
        workers = FakeWorkers(
            SIZES,
            tmp_path / "checkpoints",
            course,
            seed=100 * seed + life,
            losses=0.02,
            ends_after=chance.randrange(20, 200),
        )
        try:
            run.go(workers)
        except PowerOff:
            died += 1
        else:
            break
    assert died
    run.require_whole(course)


def test_a_run_that_is_stopped_keeps_all_and_goes_on(
    request_of: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, run = Simulated(), Run(request_of, tmp_path, "auto")

    class Stopping(FakeWorkers):
        def next(self, timeout: float | None = None) -> Any:
            heard = super().next(timeout)
            if self.reports == 40:
                asked.append(True)
            return heard

    asked: list[bool] = []
    monkeypatch.setattr(drive.Driver, "run", lambda self, source: self._run(source, lambda: bool(asked)))
    with pytest.raises(InterruptedRunError):
        run.go(Stopping(SIZES, tmp_path / "checkpoints", course))
    before = {trial.id: trial.steps for trial in run.folder.result().trials}
    asked.clear()
    workers = FakeWorkers(SIZES, tmp_path / "checkpoints", course)
    run.go(workers)
    run.require_whole(course)
    workers.close()
    done = sum(trial.steps for trial in run.folder.result().trials)
    assert before and sum(workers.trained.values()) < done, "what was kept is not trained again"


def test_an_idle_worker_takes_candidates_from_a_slow_one(
    request_of: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = Simulated()

    def minutes(name: str) -> float:
        workers = FakeWorkers((4, 4), tmp_path / name / "checkpoints", course, ticks=(0.05, 1.0))
        run = Run(request_of, tmp_path / name, "none", trials=8)
        run.go(workers)
        assert run.require_whole(course, trials=8) == {"completed": 8}
        workers.close()
        assert sum(workers.trained.values()) == 8 * course.steps, "nothing is trained twice"
        return workers.now

    balanced = minutes("balanced")
    monkeypatch.setattr("loraloom.pipeline.queue.relief", lambda *given: None)
    assert balanced < 0.4 * minutes("as-it-comes")


def test_without_any_worker_the_run_ends_and_says_so(request_of: Prepared, tmp_path: Path) -> None:
    class Dying(FakeWorkers):
        def _new(self, size: int) -> str:
            return super()._new(size) if next(self._names) < len(SIZES) else "nobody"

        def next(self, timeout: float | None = None) -> Any:
            heard = super().next(timeout)
            return None if getattr(heard, "worker", "") == "nobody" else heard

    with pytest.raises(RunError, match="all workers are lost"):
        Run(request_of, tmp_path, "none").go(
            Dying(SIZES, tmp_path / "checkpoints", Simulated(), losses=0.3)
        )


@pytest.mark.parametrize("seed", range(3))
def test_what_a_user_asks_is_done_once_whatever_dies(
    request_of: Prepared, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates are cloned, pruned and asked for while workers are lost and the driver dies."""
    monkeypatch.setattr("loraloom.pipeline.queue.LOST_LIMIT", 1000)
    monkeypatch.setattr("loraloom.pipeline.obey.LOOK_SECONDS", 0.0)
    writes_now_and_then(monkeypatch, seed)
    course, chance, asked = Simulated(diverging=0.1), Random(seed), list[Command]()
    run, heard = Run(request_of, tmp_path, "auto"), Counter[str]()

    class Steering(FakeWorkers):
        def next(self, timeout: float | None = None) -> Any:
            found = super().next(timeout)
            heard["reports"] += 1
            if (
                heard["reports"] % 20 == 0
                and len(asked) < 6
                and isinstance(found, Report)
                and found.seats
            ):
                verb, trial = (
                    ("clone", "prune", "extend")[len(asked) % 3],
                    chance.choice(list(found.seats)),
                )
                changes = {
                    "clone": {names.WEIGHT_DECAY: 0.02 * len(asked) + 0.01},
                    "extend": {"trials": 1},
                }
                about = None if verb == "extend" else trial
                asked.append(Command(new_uuid(), verb, about, changes.get(verb, {})))
                append(run.folder, asked[-1])
            return found

    for life in range(1000):
        workers = Steering(
            SIZES,
            tmp_path / "checkpoints",
            course,
            seed=100 * seed + life,
            losses=0.02,
            ends_after=chance.randrange(40, 200),
        )
        with suppress(PowerOff):
            run.go(workers)
            break
    told = [event["data"] for event in run.events() if event["kind"] == "command"]
    assert len(asked) == 6 and {one["uuid"] for one in told} == {one.uuid for one in asked}
    assert len(told) == 6, "each once"
    states = {one["uuid"]: one["state"] for one in told}
    done = Counter(one.verb for one in asked if states[one.uuid] == "applied")
    assert done["clone"] == done["extend"] == 2
    run.require_whole(course, TRIALS + 4)
    trials = run.folder.result().trials
    assert sum(trial.role == "hand" for trial in trials) == 2
    assert sum(trial.reason == "pruned by hand" for trial in trials) == done["prune"] > 0
