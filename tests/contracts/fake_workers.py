"""Workers that only pretend: losses by a formula, turns of random length, lost workers and late reports.

An `Executor` without torch, in virtual time. It holds the driver to the protocol: one turn at a time, a
pack that is never larger than its size, a candidate with one living worker at most.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from loraloom.execute import Joined, Lost
from loraloom.records import Candidate, Event, Score
from loraloom.search.compare import mean_cost
from loraloom.train.orders import (
    End,
    Ended,
    Evaluate,
    Examined,
    GoOn,
    Join,
    Keep,
    KeepEach,
    Kept,
    Order,
    Pause,
    Report,
    SeatView,
    Spare,
    Train,
)

FIRST_LOSS = 3.0


class ProtocolError(AssertionError):
    """The driver did what the protocol forbids."""


@dataclass(frozen=True)
class Simulated:
    """How trainings go.

    Attributes:
        steps: of every candidate.
        evaluations: of every candidate, evenly over its steps.
        rows: of the validation split.
        diverging: share of the candidates that are past saving after a third of their steps.
        signals: what is seen of each as it leaves.
    """

    steps: int = 40
    evaluations: int = 8
    rows: int = 16
    diverging: float = 0.0
    signals: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def cost(self, made: Candidate, step: int) -> float:
        """A curve that falls towards an end which the learning rate decides."""
        chance = Random(f"{made.id}:{made.training.seed}").gauss(0, 0.02)
        end = 1.0 + 0.2 * math.log(made.training.learning_rate / 5e-4) ** 2 + chance
        return end + (FIRST_LOSS - end) * 0.9 * (1 - step / self.steps) ** 2

    def score(self, made: Candidate, step: int) -> Score:
        """The same rows are hard for every candidate."""
        hard, own = Random(1), Random(f"{made.id}:{step}")
        cost = self.cost(made, step)
        costs = tuple(cost * (0.5 + hard.random()) + own.gauss(0, 0.02) for _ in range(self.rows))
        weights = (1.0,) * self.rows
        return Score(
            "validation", {"loss": mean_cost(Score("validation", {}, costs, weights))}, costs, weights
        )

    def is_due(self, step: int) -> bool:
        return step % (self.steps // self.evaluations) == 0 and step > 0

    def diverges(self, made: Candidate, step: int) -> bool:
        return step > self.steps / 3 and Random(made.id).random() < self.diverging


@dataclass
class FakeSeat:
    candidate: Candidate
    generation: int
    step: int = 0
    best: Score | None = None
    best_step: int = 0
    scored_at: int = 0
    seconds: float = 0.0


@dataclass
class FakeWorker:
    """One worker; what it keeps goes to `folder`."""

    name: str
    size: int
    seconds_of_tick: float
    folder: Path
    course: Simulated
    seats: dict[str, FakeSeat] = field(default_factory=dict[str, FakeSeat])
    trained: Counter[str] = field(default_factory=Counter[str])
    """Steps by candidate."""

    def obey(self, orders: Sequence[Order]) -> tuple[Report, float]:
        """The report, and how long it takes."""
        events: list[Event] = []
        scores: dict[str, Score] = {}
        ended: list[Ended] = []
        kept: dict[str, Kept] = {}
        seconds = 0.01
        for order in orders:
            match order:
                case Join():
                    self._seat(FakeSeat(order.candidate, order.generation))
                case GoOn():
                    self._seat(self._read(order.trial, order.kept, order.generation))
                case Pause():
                    kept[order.trial] = self._keep(self.seats.pop(order.trial))
                case KeepEach():
                    kept |= {trial: self._keep(self.seats[trial]) for trial in order.trials}
                case Train():
                    told, ticks = self._train(order.seconds)
                    events += told
                    seconds += ticks * self.seconds_of_tick * (1 + len(self.seats))
                case Evaluate():
                    scores |= {
                        trial: self._score(seat) for trial, seat in self.seats.items() if self._due(seat)
                    }
                case End():
                    ended.append(self._end(order))
                case Spare() | Keep():
                    raise ProtocolError(f"{order} is nothing for one worker of several")
        views = {trial: self._view(seat) for trial, seat in self.seats.items()}
        return Report(self.name, events, scores, ended, views, kept, self.size), seconds

    def _seat(self, seat: FakeSeat) -> None:
        if seat.candidate.id in self.seats or len(self.seats) >= self.size:
            raise ProtocolError(
                f"{seat.candidate.id} has no place in {self.name}, which has {list(self.seats)}"
            )
        self.seats[seat.candidate.id] = seat

    def _train(self, seconds: float) -> tuple[list[Event], int]:
        """Ticks until one is due, or the time is up."""
        events: list[Event] = []
        for ticks in count(1):
            for trial, seat in self.seats.items():
                if seat.step >= self.course.steps:
                    raise ProtocolError(f"{trial} is trained past its {self.course.steps} steps")
                seat.step += 1
                seat.seconds += self.seconds_of_tick * (1 + len(self.seats)) / len(self.seats)
                self.trained[trial] += 1
                loss = self.course.cost(seat.candidate, seat.step)
                events.append(
                    Event("step", trial, seat.step, data={"loss": loss, "lr": 1e-4, "grad_norm": 1.0})
                )
            views = [self._view(seat) for seat in self.seats.values()]
            if (
                any(view.due or view.finished or view.diverged for view in views)
                or ticks * self.seconds_of_tick >= seconds
            ):
                return events, ticks
        raise AssertionError

    def _due(self, seat: FakeSeat) -> bool:
        return self.course.is_due(seat.step) and seat.scored_at < seat.step

    def _score(self, seat: FakeSeat) -> Score:
        score = self.course.score(seat.candidate, seat.step)
        seat.scored_at = seat.step
        if seat.best is None or mean_cost(score) < mean_cost(seat.best):
            seat.best, seat.best_step = score, seat.step
        return score

    def _end(self, order: End) -> Ended:
        if order.kept:
            self.seats[order.trial] = self._read(order.trial, order.kept, 0)
        seat = self.seats[order.trial]
        view = self._view(seat)
        del self.seats[order.trial]
        examined = Examined((), self.course.signals) if self.course.signals else None
        return Ended(view, order, seat.best, examined, 0.0 if order.save_to else None)

    def _keep(self, seat: FakeSeat) -> Kept:
        trial = seat.candidate.id
        content = json.dumps(asdict(seat)).encode()
        file = f"waiting-{trial}-{seat.step}-{seat.generation}.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / file).write_bytes(content)
        cost = None if seat.best is None else mean_cost(seat.best)
        return Kept(file, seat.step, cost, hashlib.sha256(content).hexdigest())

    def _read(self, trial: str, kept: Kept, generation: int) -> FakeSeat:
        from loraloom.train.resume import candidate_of, score_of_plain

        content = (self.folder / kept.file).read_bytes()
        if hashlib.sha256(content).hexdigest() != kept.sha256:
            raise ProtocolError(f"{kept.file} is not what was kept of {trial}")
        plain = json.loads(content)
        best = plain["best"] and score_of_plain(plain["best"])
        return FakeSeat(
            candidate_of(plain),
            generation,
            plain["step"],
            best,
            plain["best_step"],
            plain["scored_at"],
            plain["seconds"],
        )

    def _view(self, seat: FakeSeat) -> SeatView:
        due = self._due(seat)
        return SeatView(
            candidate=seat.candidate,
            step=seat.step,
            planned_steps=self.course.steps,
            steps_per_epoch=self.course.steps,
            trainable_parameters=1000 * seat.candidate.adapter.r,
            tokens=100 * seat.step,
            seconds=seat.seconds,
            peak_bytes=2**20,
            first_loss=FIRST_LOSS,
            smoothed_loss=self.course.cost(seat.candidate, seat.step) if seat.step else None,
            best_cost=None if seat.best is None else mean_cost(seat.best),
            nonfinite=0,
            waited=0,
            best_now=seat.best_step == seat.step,
            due=due,
            finished=seat.step >= self.course.steps,
            diverged="planted" if self.course.diverges(seat.candidate, seat.step) else None,
            readings=(),
        )


class FakeWorkers:
    """An `Executor` of workers that pretend.

    Args:
        sizes: of the pack of each worker.
        folder: that all of them share.
        losses: chance that a turn is the last of its worker. Its report may still come,
            late; another worker joins.
        ticks: seconds of a tick of each of the first workers; drawn for all others.
        ends_after: reports after which the machine of the driver is switched off (`PowerOff`).
    """

    several = True
    coming = False

    def __init__(
        self,
        sizes: Sequence[int],
        folder: Path,
        course: Simulated,
        *,
        seed: int = 0,
        losses: float = 0.0,
        ends_after: float = math.inf,
        ticks: Sequence[float] = (),
    ) -> None:
        self.folder, self.course, self.losses, self.ends_after = folder, course, losses, ends_after
        self.random = Random(seed)
        self.now = 0.0
        self.trained = Counter[str]()
        self.lost = self.late = self.reports = 0
        self._names = count()
        self._ticks = list(ticks)
        self._numbers = count()
        self._alive: dict[str, FakeWorker] = {}
        self._busy: set[str] = set()
        self._coming: list[tuple[float, int, Report | Lost | Joined]] = []
        for size in sizes:
            self._new(size)

    def _new(self, size: int) -> str:
        name = f"w{next(self._names)}"
        tick = self._ticks.pop(0) if self._ticks else self.random.uniform(0.05, 0.2)
        self._alive[name] = FakeWorker(name, size, tick, self.folder, self.course)
        return name

    def workers(self) -> Sequence[str]:
        return list(self._alive)

    def place_of(self, worker: str) -> str:
        return f"core {worker[1:]}"

    def send(self, worker: str, orders: Sequence[Order]) -> None:
        if worker in self._busy:
            raise ProtocolError(f"{worker} has a turn already")
        if worker not in self._alive:
            return  # it is lost, and `next` is about to say so
        self._busy.add(worker)
        one = self._alive[worker]
        report, seconds = one.obey(orders)
        self._refuse_twins()
        over = self.now + seconds * self.random.uniform(0.5, 2.0)
        if self.random.random() >= self.losses:
            self._later(over, report)
            return
        self.lost += 1
        self._drop(worker)
        self._later(self.now + seconds * self.random.random(), Lost(worker, "planted"))
        self._later(over + self.random.uniform(0, 5), Joined(self._new(one.size)))
        if self.random.random() < 0.5:
            self.late += 1
            self._later(over + self.random.uniform(0, 20), report)

    def next(self, timeout: float | None = None) -> Report | Lost | Joined | None:
        if not self._coming or (timeout is not None and self._coming[0][0] > self.now + timeout):
            return None
        self.now, _, heard = heapq.heappop(self._coming)
        if isinstance(heard, Report):
            self.reports += 1
            self._busy.discard(heard.worker)
            if self.reports >= self.ends_after:
                raise PowerOff
        return heard

    def close(self) -> None:
        for worker in list(self._alive):
            self._drop(worker)

    def _drop(self, worker: str) -> None:
        self.trained += self._alive.pop(worker).trained

    def _later(self, at: float, what: Report | Lost | Joined) -> None:
        heapq.heappush(self._coming, (at, next(self._numbers), what))

    def _refuse_twins(self) -> None:
        seated = Counter(trial for worker in self._alive.values() for trial in worker.seats)
        twins = [trial for trial, times in seated.items() if times > 1]
        if twins:
            raise ProtocolError(f"{twins} are trained by two workers at once")


class PowerOff(BaseException):
    """The end of the driver's process, at once."""
