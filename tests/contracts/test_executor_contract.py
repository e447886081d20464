"""What every executor has to do, wherever its workers run. A new one subclasses `ExecutorContract`."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity"))

import tiny
from engine import candidate, causal_rows, trainer

from loraloom.errors import RunError
from loraloom.execute import Executor
from loraloom.execute.inline import Inline
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
    Spare,
    Train,
)
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Seat
from loraloom.train.shelf import settled
from loraloom.train.worker import Worker

STEPS = 4


def made_trainer() -> PackTrainer:
    rows = causal_rows(12)
    return trainer(tiny.model_of("llama", torch.float32), rows, "causal_lm", validation=rows[:4])


def made_worker(taken_up: PackTrainer | None = None) -> Worker:
    """A worker whose saving leaves a file and whose examining looks away."""

    def save(seat: Seat, folder: Path) -> float:
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(seat.adapter.arena.weights.numpy().tobytes())
        return 0.25

    return Worker("w0", taken_up or made_trainer(), save, lambda seat, order: None)


class ExecutorContract:
    """Orders in, reports out; nothing that a report says can be changed by what happens later."""

    def executor(self, worker: Worker) -> Executor:
        raise NotImplementedError

    @pytest.fixture
    def worker(self) -> Worker:
        return made_worker()

    @pytest.fixture
    def turn(self, worker: Worker) -> Any:
        executor = self.executor(worker)
        (name,) = executor.workers()

        def turn(*orders: Order) -> Report:
            executor.send(name, orders)
            report = executor.next()
            assert isinstance(report, Report)
            return report

        yield turn
        executor.close()

    def joined(self, worker: Worker, name: str, **more: Any) -> Join:
        model = worker.trainer.packed.model
        return Join(
            candidate(name, model, max_steps=STEPS, evaluations=2, per_device_train_batch_size=2, **more)
        )

    def test_who_is_there_is_told_without_orders(self, worker: Worker, turn: Any) -> None:
        assert not turn().seats
        report = turn(self.joined(worker, "a"), self.joined(worker, "b"))
        assert list(report.seats) == ["a", "b"] and report.worker == "w0"
        assert report.seats["a"].planned_steps == STEPS and not report.seats["a"].finished

    def test_a_candidate_is_trained_scored_and_let_go(
        self, worker: Worker, turn: Any, tmp_path: Path
    ) -> None:
        turn(self.joined(worker, "a"))
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

    def test_one_that_waits_goes_on_where_it_was(self, worker: Worker, turn: Any) -> None:
        turn(self.joined(worker, "a"), self.joined(worker, "b"))
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

    def test_what_is_reported_stays_as_it_was_and_can_be_sent(self, worker: Worker, turn: Any) -> None:
        turn(self.joined(worker, "a"))
        before = turn(Train())
        seen = dataclasses.replace(before.seats["a"])
        turn(Train(), Evaluate())
        assert before.seats["a"] == seen
        assert pickle.loads(pickle.dumps(before)) == before
        assert not [
            value for value in vars(before.seats["a"]).values() if isinstance(value, torch.Tensor)
        ]

    def test_one_that_is_spared_remembers_the_first_reason(self, worker: Worker, turn: Any) -> None:
        turn(self.joined(worker, "a"))
        turn(Train(), Spare("a", "diverged", "first"), Spare("a", "completed", "second"))
        assert worker.trainer.seats["a"].signals.seen_exit == ("diverged", "first")

    def test_a_checkpoint_brings_another_worker_to_the_same_place(
        self, worker: Worker, turn: Any, tmp_path: Path
    ) -> None:
        worker.trainer.shelf.folder = tmp_path
        turn(self.joined(worker, "a"), self.joined(worker, "b"))
        turn(Train(), Train(), Evaluate())
        turn(Pause("b"), Keep(tmp_path, {"mark": 7}))
        kept = checkpoint.load(tmp_path)
        assert kept is not None and kept.run == {"mark": 7}
        other = made_trainer()
        other.shelf.folder = tmp_path
        other.load_state_dict(kept.trainer)
        executor = self.executor(made_worker(other))
        executor.send(executor.workers()[0], [Train()])
        mine, theirs = turn(Train()), executor.next()
        assert isinstance(theirs, Report)
        assert [event.data["loss"] for event in theirs.events] == [
            event.data["loss"] for event in mine.events
        ]

    def test_a_turn_may_be_several_ticks_until_somebody_has_to_decide(
        self, worker: Worker, turn: Any
    ) -> None:
        turn(self.joined(worker, "a"))
        assert turn(Train(seconds=60.0)).seats["a"].step == 2, "the first evaluation"
        turn(Evaluate())
        assert turn(Train(seconds=60.0)).seats["a"].finished

    def test_what_one_worker_kept_another_goes_on_with(
        self, worker: Worker, turn: Any, tmp_path: Path
    ) -> None:
        worker.trainer.shelf.folder, worker.shared = tmp_path, True
        made = self.joined(worker, "a").candidate
        turn(Join(made, generation=1))
        turn(Train(), Train(), Evaluate())
        kept = turn(KeepEach()).kept["a"]
        assert kept.step == 2 and kept.sha256 == settled(tmp_path / kept.file)
        alone = turn(Train())
        trainer = made_trainer()
        trainer.shelf.folder = tmp_path
        other = made_worker(trainer)
        other.shared = True
        executor = self.executor(other)
        executor.send(executor.workers()[0], [GoOn("a", kept, generation=2), Train(), KeepEach()])
        elsewhere = executor.next()
        assert isinstance(elsewhere, Report)
        assert [event.data["loss"] for event in elsewhere.events] == [
            event.data["loss"] for event in alone.events
        ]
        assert elsewhere.seats["a"].best_cost == alone.seats["a"].best_cost
        late = turn(KeepEach()).kept["a"]
        assert late.file != elsewhere.kept["a"].file, "one that was given up writes over nothing"

    def test_a_fault_of_the_worker_reaches_who_gave_the_order(self, worker: Worker, turn: Any) -> None:
        def fails() -> Any:
            raise RunError("planted")

        worker.trainer.tick = fails  # type: ignore[method-assign]
        with pytest.raises(RunError, match="planted"):
            turn(Train())


class TestInline(ExecutorContract):
    def executor(self, worker: Worker) -> Executor:
        return Inline(worker)
