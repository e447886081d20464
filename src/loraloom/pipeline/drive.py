"""Let the packs of all workers take their turns until a source has nothing left: for train and for tune.

The driver decides and workers compute: it gives orders through an `Executor` and sees plain reports,
never a live candidate. What is done with one pack stands in `pipeline.turns`; this is what several of
them need.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from loraloom.errors import RunError
from loraloom.execute import Executor, Joined, Lost
from loraloom.pipeline.initial_adapter import TRIAL as INITIAL
from loraloom.pipeline.initial_adapter import as_saved
from loraloom.pipeline.obey import Commands
from loraloom.pipeline.queue import LOST_LIMIT, Queue, Source
from loraloom.pipeline.run_log import RunLog
from loraloom.pipeline.stop import listening
from loraloom.pipeline.turns import Pack
from loraloom.pipeline.write_timer import WriteTimer
from loraloom.records import Event, Score
from loraloom.train.orders import Kept, Order, Report, ScoreSaved

PATIENCE_SECONDS = 120.0
"""How long a run without any worker waits for one, where none is on its way."""

PART = 0.2
"""Of what writing may take of a worker's time, this much of the driver's: no worker is answered
meanwhile."""


class Driver:
    """Runs candidates of a source on the workers of an executor.

    Attributes:
        expired: says that the time is up: living candidates are then ended with what they have.
        commands: what the user asks while the run goes.
    """

    def __init__(
        self, executor: Executor, log: RunLog, expired: Callable[[], bool] | None = None
    ) -> None:
        self.executor = executor
        self.log = log
        self.expired = expired or log.expired
        self._queue = Queue(log)
        self.commands = Commands(log, self._queue)
        self._packs: dict[str, Pack] = {}
        self._timer = WriteTimer(part=PART)

    @property
    def waiting(self) -> Mapping[str, Kept]:
        """Candidates that wait out of their packs."""
        return self._queue.waiting

    def ask(self, orders: Sequence[Order]) -> list[Report]:
        """Have each of these orders, which concern no pack, done by whatever worker is free; their
        reports in the same order.

        Raises:
            RunError: all workers are lost, or again and again the one that does this.
        """
        left = deque(range(len(orders)))
        found: dict[int, Report] = {}
        free, busy = list(self.executor.workers()), dict[str, int]()
        losses = Counter[int]()
        while len(found) < len(orders):
            while left and free:
                busy[free[-1]] = left.popleft()
                self.executor.send(free[-1], [orders[busy[free.pop()]]])
            match self.executor.next(None if busy else PATIENCE_SECONDS):
                case Report(worker) as report if worker in busy:
                    found[busy.pop(worker)] = report
                    free.append(worker)
                case Joined(worker):
                    free.append(worker)
                case Lost(worker, reason):
                    self.log.recorder.note(f"worker {worker} is lost: {reason}")
                    free = [other for other in free if other != worker]
                    if worker in busy:
                        number = busy.pop(worker)
                        left.append(number)
                        losses[number] += 1
                        self._require_patience(losses[number], reason)
                case _:
                    self._require_workers(bool(free or busy))
        return [found[number] for number in range(len(orders))]

    def score_base(self) -> Score:
        """The bare base on validation."""
        return self.ask([ScoreSaved("validation")])[0].scores[""]

    def score_initial(self) -> Score | None:
        """The adapter that candidates begin with, on validation; None where they begin at the base."""
        initial = as_saved(self.log.prepared.plan, self.log.folder.path)
        return self.ask([ScoreSaved("validation", initial)])[0].scores[INITIAL] if initial else None

    def run(self, source: Source) -> None:
        """Until the source has nothing left and all packs are empty.

        Raises:
            KeyboardInterrupt: Ctrl-C; all turns were finished and a checkpoint written.
            RunError: all workers are lost.
        """
        with listening() as asked:
            self._run(source, lambda: asked() or self.commands.stopping)

    def _run(self, source: Source, stop: Callable[[], bool]) -> None:
        self._queue.source = source
        self._packs = {}
        for worker in self.executor.workers():
            self._welcome(worker, stop)
        while not self._is_over(stop):
            match self.executor.next(None if self._packs else PATIENCE_SECONDS):
                case Report() as report:
                    self._hear(report, stop)
                case Joined() as joined:
                    self._welcome(joined.worker, stop)
                case Lost() as lost:
                    self._lose(lost, stop)
                case None:
                    self._require_workers(bool(self._packs))
        if not stop():
            self._queue.give_up_held("the time that was allowed was used up when its worker was lost")
        self._keep(now=True)
        if stop():
            raise KeyboardInterrupt

    def _is_over(self, stop: Callable[[], bool]) -> bool:
        """Whether nobody has anything to do, and nobody who might come would have."""
        return all(pack.idle for pack in self._packs.values()) and (bool(self._packs) or stop())

    def _welcome(self, worker: str, stop: Callable[[], bool]) -> None:
        """A worker has a pack from here on."""

        def others_idle() -> bool:
            return all(pack.idle for pack in self._packs.values() if pack.worker != worker)

        self._packs[worker] = Pack(
            worker,
            self._queue,
            self.commands,
            several=self.executor.several,
            expired=lambda: self.expired(),
            stop=stop,
            others_idle=others_idle,
        )
        self._tell_workers()
        self._advance(self._packs[worker])

    def _tell_workers(self) -> None:
        """Write down who is there, for whoever watches; no other worker is."""
        if self.executor.several:
            places = {worker: self.executor.place_of(worker) for worker in self._packs}
            self.log.recorder.send(Event("workers", data=places))

    def _advance(self, pack: Pack, report: Report | None = None) -> None:
        """Go on with a pack to its next turn."""
        orders = pack.course.send(report)
        pack.idle = orders is None
        if orders is not None:
            self.executor.send(pack.worker, orders)

    def _hear(self, report: Report, stop: Callable[[], bool]) -> None:
        pack = self._packs.get(report.worker)
        if pack is None:
            return  # late: this worker was given up, and others have its candidates
        self._advance(pack, report)
        if report.scores or report.ended or report.kept or self.log.held:
            self._wake(stop)
        if report.kept or report.ended:
            self._timer.urgent = True  # a driver that goes on knows only of what its checkpoint names
        self._keep(now=False)

    def _lose(self, lost: Lost, stop: Callable[[], bool]) -> None:
        self.log.recorder.note(f"worker {lost.worker} is lost: {lost.reason}")
        pack = self._packs.pop(lost.worker, None)
        if pack is None:
            return  # it never joined, or was given up
        self._tell_workers()
        pack.course.close()
        self._queue.take_back(lost.worker, lost.reason)
        self._wake(stop)

    def _wake(self, stop: Callable[[], bool]) -> None:
        """Something has changed: those who had nothing to do may have now. What one does not find, no
        other does."""
        awaited = self._queue.promised.values()
        for pack in sorted(self._packs.values(), key=lambda pack: pack.worker not in awaited):
            if pack.idle and not stop():
                self._advance(pack)
                if pack.idle:
                    return

    def _keep(self, *, now: bool) -> None:
        """Several workers keep each candidate by itself; the rest of the run is kept here."""
        if self.executor.several and (now or self._timer.due()):
            with self._timer.writing():
                self.log.write_checkpoint(self._queue.to_plain(), self._queue.kept)

    def _require_patience(self, losses: int, reason: str) -> None:
        if losses >= LOST_LIMIT:
            raise RunError(
                f"scoring lost its worker {losses} times",
                got=reason,
                next="see why they ended (memory?); the run goes on with --resume",
            )

    def _require_workers(self, there: bool) -> None:
        if not there and not self.executor.coming:
            raise RunError(
                "all workers are lost",
                got=f"none came back within {PATIENCE_SECONDS:g} s",
                next="see why they ended; the run goes on from its last checkpoint with --resume",
            )
