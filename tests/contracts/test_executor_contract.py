"""What every executor has to do, wherever its workers run. A new one subclasses `ExecutorContract`."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity"))

import tiny
from contract_worker import FACTORY, LIGHT_FACTORY, Renew, RenewedWorker
from engine import candidate

from loraloom.errors import RunError
from loraloom.execute import Executor, Joined, Lost
from loraloom.execute.host import Invitation, invite, join
from loraloom.execute.inline import Inline
from loraloom.execute.processes import VAIN_STARTS, Place, Processes
from loraloom.records import Score
from loraloom.train import checkpoint
from loraloom.train.orders import (
    End,
    Evaluate,
    GoOn,
    Join,
    Keep,
    KeepEach,
    Order,
    Pause,
    Report,
    ScoreSaved,
    Spare,
    TakeBase,
    Train,
)
from loraloom.train.shelf import settled

STEPS = 4
PATIENCE_SECONDS = 120.0


class One:
    """One worker of an executor, turn by turn."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        if not executor.workers():
            joined = executor.next(PATIENCE_SECONDS)
            assert isinstance(joined, Joined)
            assert not executor.coming
        (self.name,) = executor.workers()

    def __call__(self, *orders: Order) -> Report:
        self.executor.send(self.name, orders)
        report = self.executor.next(PATIENCE_SECONDS)
        assert isinstance(report, Report)
        return report


Opened = Callable[..., One]


class ExecutorContract:
    """Orders in, reports out; nothing that a report says can be changed by what happens later."""

    @pytest.fixture(scope="class")
    @classmethod
    def two(cls) -> Iterator[tuple[One, One]]:
        """Two executors of one `contract_worker.RenewedWorker` each."""
        raise NotImplementedError

    @pytest.fixture
    def opened(self, two: tuple[One, One], tmp_path: Path) -> Opened:
        """Workers as if just made, at most two. What they keep is in one folder."""
        left = list(two)

        def opened(**request: Any) -> One:
            one = left.pop(0)
            one(Renew({"folder": str(tmp_path), **request}))  # type: ignore[arg-type]
            return one

        return opened

    @pytest.fixture
    def turn(self, opened: Opened) -> One:
        return opened()

    def joined(self, name: str, generation: int = 0, **more: Any) -> Join:
        model = tiny.model_of("llama", torch.float32)
        made = candidate(
            name, model, max_steps=STEPS, evaluations=2, per_device_train_batch_size=2, **more
        )
        return Join(made, generation)

    def test_who_is_there_is_told_without_orders(self, turn: One) -> None:
        assert not turn().seats and isinstance(turn.executor.place_of(turn.name), str)
        assert turn.executor.place_of("one that is gone") == ""
        report = turn(self.joined("a"), self.joined("b"))
        assert list(report.seats) == ["a", "b"] and report.worker == turn.name
        assert report.seats["a"].planned_steps == STEPS and not report.seats["a"].finished

    def test_a_candidate_is_trained_scored_and_let_go(
        self, turn: One, opened: Opened, tmp_path: Path
    ) -> None:
        turn(self.joined("a"))
        steps: list[Any] = []
        for number in range(1, STEPS + 1):
            report = turn(Train())
            steps += [event.data["loss"] for event in report.events if event.kind == "step"]
            assert report.seats["a"].step == number
            assert report.seats["a"].due == (number in (2, 4))
            scores = turn(Evaluate()).scores
            assert (set(scores) == {"a"}) == (number in (2, 4))
        seat = turn().seats["a"]
        assert (
            len(steps) == STEPS
            and seat.finished
            and seat.best_cost is not None
            and len(seat.readings) == 2
        )
        (ended,) = turn(End("a", "completed", None, {}, tmp_path / "a")).ended
        assert ended.best is not None and ended.best.costs and ended.logits_difference == 0.25
        assert (tmp_path / "a" / "weights").stat().st_size > 0
        assert not turn().seats

    def test_one_that_waits_goes_on_where_it_was(self, turn: One) -> None:
        turn(self.joined("a"), self.joined("b"))
        turn(Train(), Train(), Evaluate())
        report = turn(Pause("a"))
        assert list(report.seats) == ["b"] and list(report.kept) == ["a"]
        kept = report.kept["a"]
        assert kept.step == 2 and kept.cost is not None and turn().kept == {"a": kept}
        assert turn(Train()).seats["b"].step == 3
        report = turn(GoOn("a", kept))
        assert report.seats["a"].step == 2 and not turn().kept
        kept = turn(Pause("a")).kept["a"]
        (ended,) = turn(End("a", "pruned", "far behind", {}, kept=kept)).ended
        assert ended.view.step == 2 and ended.logits_difference is None and not turn().kept

    def test_what_is_reported_stays_as_it_was_and_can_be_sent(self, turn: One) -> None:
        turn(self.joined("a"))
        before = turn(Train())
        seen = dataclasses.replace(before.seats["a"])
        turn(Train(), Evaluate())
        assert before.seats["a"] == seen
        assert pickle.loads(pickle.dumps(before)) == before
        assert not [
            value for value in vars(before.seats["a"]).values() if isinstance(value, torch.Tensor)
        ]

    def test_one_that_is_spared_remembers_the_first_reason(self, turn: One) -> None:
        turn(self.joined("a"))
        turn(Train(), Spare("a", "diverged", "first"), Spare("a", "completed", "second"))
        (ended,) = turn(End("a", "pruned", None, {})).ended
        assert ended.examined and ended.examined.signals["seen_exit"] == ("diverged", "first")

    def test_saved_adapters_are_scored_and_the_bare_base_is_known(self, turn: One) -> None:
        made = self.joined("a").candidate
        assert list(turn(ScoreSaved("test", [(made, Path("a"))])).scores) == ["a"]
        base = turn(ScoreSaved("validation")).scores[""]
        assert base == Score("validation", {"loss": 1.0}, (1.0,), (1.0,))
        turn(TakeBase(base), self.joined("a"), Train())
        (ended,) = turn(End("a", "pruned", None, {})).ended
        assert ended.examined and ended.examined.signals["base"] == [base]

    def test_a_checkpoint_brings_another_worker_to_the_same_place(
        self, turn: One, opened: Opened, tmp_path: Path
    ) -> None:
        turn(self.joined("a"), self.joined("b"))
        turn(Train(), Train(), Evaluate())
        turn(Pause("b"), Keep(tmp_path, {"mark": 7}))
        kept = checkpoint.load(tmp_path)
        assert kept is not None and kept.run == {"mark": 7}
        other = opened(resumed=True)
        mine, theirs = turn(Train()), other(Train())
        assert [event.data["loss"] for event in theirs.events] == [
            event.data["loss"] for event in mine.events
        ]

    def test_a_turn_may_be_several_ticks_until_somebody_has_to_decide(self, turn: One) -> None:
        turn(self.joined("a"))
        assert turn(Train(seconds=60.0)).seats["a"].step == 2, "the first evaluation"
        turn(Evaluate())
        assert turn(Train(seconds=60.0)).seats["a"].finished

    def test_what_one_worker_kept_another_goes_on_with(self, opened: Opened, tmp_path: Path) -> None:
        turn, other = opened(shared=True), opened(shared=True)
        turn(self.joined("a", generation=1))
        turn(Train(), Train(), Evaluate())
        kept = turn(KeepEach(["a"])).kept["a"]
        assert kept.step == 2 and kept.sha256 == settled(tmp_path / kept.file)
        alone = turn(Train())
        elsewhere = other(GoOn("a", kept, generation=2), Train(), KeepEach(["a"]))
        assert [event.data["loss"] for event in elsewhere.events] == [
            event.data["loss"] for event in alone.events
        ]
        assert elsewhere.seats["a"].best_cost == alone.seats["a"].best_cost
        early = (tmp_path / kept.file).stat().st_size
        assert early < (tmp_path / elsewhere.kept["a"].file).stat().st_size, (
            "gradients and best weights are in the file where they are something else than the rest"
        )
        late = turn(KeepEach(["a"])).kept["a"]
        assert late.file != elsewhere.kept["a"].file, "one that was given up writes over nothing"

    def test_how_many_it_trains_at_once_is_told_where_it_decides_that(self, opened: Opened) -> None:
        assert opened(pack_size=3)().pack_size == 3

    def test_a_fault_of_the_worker_reaches_who_gave_the_order(self, opened: Opened) -> None:
        turn = opened(tick="ours")
        turn(self.joined("a"))
        with pytest.raises(RunError, match="planted") as told:
            turn(Train())
        assert (told.value.got, told.value.next) == ("a fault", "mend it")


class TestInline(ExecutorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def two(cls) -> tuple[One, One]:  # type: ignore[override]
        first, second = (Inline(RenewedWorker(name, {"folder": ""})) for name in ("w0", "w1"))  # type: ignore[arg-type]
        return One(first), One(second)


class TestProcesses(ExecutorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def two(cls) -> Iterator[tuple[One, One]]:  # type: ignore[override]
        invitation = invite(FACTORY, {"folder": ""})
        with (
            closing(Processes(invitation, [Place(threads=1)])) as first,
            closing(Processes(invitation, [Place(threads=1)])) as second,
        ):
            yield One(first), One(second)


@pytest.fixture
def light() -> Iterator[Callable[..., Processes]]:
    """Processes whose workers are there at once, let go at the end."""
    started: list[Processes] = []

    def light(workers: int = 1, **request: Any) -> Processes:
        started.append(Processes(invite(LIGHT_FACTORY, request), [Place(threads=1)] * workers))
        return started[-1]

    yield light
    for processes in started:
        processes.close()


Light = Callable[..., Processes]


def planted(executor: Executor, worker: str, fault: str) -> None:
    """Let a light worker do what `contract_worker.refusing` knows."""
    executor.send(worker, [fault])  # type: ignore[list-item]


def test_one_that_is_killed_is_lost_at_once_and_another_comes_in_its_place(light: Light) -> None:
    executor = light(workers=2)
    names = {executor.next(PATIENCE_SECONDS).worker for _ in range(2)}  # type: ignore[union-attr]
    assert sorted(executor.workers()) == sorted(names) == ["w0", "w1"]
    planted(executor, "w0", "waits")
    os.kill(executor.processes()["w0"], signal.SIGKILL)
    lost = executor.next(PATIENCE_SECONDS)
    assert isinstance(lost, Lost) and lost.worker == "w0" and "SIGKILL" in lost.reason
    assert list(executor.workers()) == ["w1"] and executor.coming
    executor.send("w0", [])  # nobody hears it
    assert executor.next(PATIENCE_SECONDS) == Joined("w2")
    executor.send("w2", [])
    assert executor.next(PATIENCE_SECONDS) == Report("w2")


def test_one_that_dies_again_and_again_is_not_started_for_ever(light: Light) -> None:
    executor = light(joining="dies")
    for _ in range(VAIN_STARTS - 1):
        assert isinstance(executor.next(PATIENCE_SECONDS), Lost)
        assert executor.coming
    with pytest.raises(RunError, match="no worker stays alive") as told:
        executor.next(PATIENCE_SECONDS)
    assert "ended with code 3 and said: the last words" in (told.value.got or "")


def test_an_error_that_cannot_be_sent_is_told_in_words(light: Light) -> None:
    executor = light()
    executor.next(PATIENCE_SECONDS)
    planted(executor, "w0", "own")
    with pytest.raises(RunError, match="OwnError: planted 7"):
        executor.next(PATIENCE_SECONDS)


def test_what_is_wrong_at_joining_is_raised(light: Light) -> None:
    with pytest.raises(RunError, match="planted"):
        light(joining="ours").next(PATIENCE_SECONDS)


def test_close_leaves_no_process_whatever_it_does(light: Light) -> None:
    executor = light()
    executor.next(PATIENCE_SECONDS)
    pid = executor.processes()["w0"]
    planted(executor, "w0", "waits")
    executor.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_of_another_version_does_not_join() -> None:
    here = invite(FACTORY, {})
    other = Invitation("0.0.7", here.factory, here.request, here.cwd)
    with pytest.raises(RunError, match=r"worker w9 cannot join.*another version") as told:
        join("w9", other)
    assert told.value.need == "0.0.7" and told.value.got == here.version
