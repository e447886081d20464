"""One course of training: several starts of a memory's adapter, packed, step by step together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from loraloom.data.rows import Row
from loraloom.errors import RunError
from loraloom.pipeline.recall.update import Update, place, taken
from loraloom.recall.mix import Phases, StepMix
from loraloom.records import Candidate
from loraloom.train.divergence import has_diverged
from loraloom.train.pack import PackTrainer

if TYPE_CHECKING:
    from loraloom.pipeline.recall.bench import MemoryBench
    from loraloom.plan.planner import Plan

TOLD_EVERY = 10
"""Steps between two words about how it goes."""


@dataclass(frozen=True)
class Start:
    """A candidate of a course.

    Attributes:
        update: what its slot begins with; its other ranks are drawn from the seed.
        rank: of the slot.
        held: its first ranks that are not trained.
        rate: what the plan's rate is multiplied by.
        order: the rows of its steps.
        more: other fields of its training.
    """

    name: str
    update: Update | None
    rank: int
    order: StepMix | Phases
    rate: float = 1.0
    held: int = 0
    seed: int = 0
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Course:
    """Starts that train in one pack.

    Args:
        plan: rate, schedule and steps.
        rows: all rows of all steps.

    Attributes:
        trainer: its seats go by the names of the starts.
    """

    def __init__(
        self, bench: MemoryBench, plan: Plan, rows: Sequence[Row], starts: Sequence[Start]
    ) -> None:
        self.bench, self.plan, self.starts = bench, plan, starts
        orders = {one.name: one.order for one in starts}
        self.trainer: PackTrainer = bench.trainer(rows, lambda made: orders[made.id])

    def run(self, after: Callable[[int], bool] | None = None, *, doing: str) -> None:
        """Train to the end.

        Args:
            after: called after every step, with its number from 1; false ends the course.
            doing: what is being done, in a word or two.

        Raises:
            RunError: every candidate diverged.
        """
        for one in self.starts:
            self._join(one)
        steps = max(seat.planned_steps for seat in self.trainer.seats.values())
        for step in range(1, steps + 1):
            losses: list[float] = []
            while any(seat.step < step for seat in self.trainer.seats.values()):
                events = self.trainer.tick()
                losses += [event.data["loss"] for event in events if event.kind == "step"]
            if step % TOLD_EVERY == 0 or step == steps:
                self.bench.watch(f"{doing}: step {step} of {steps}, loss {min(losses):.3f}")
            self._drop_diverged()
            if after is not None and not after(step):
                return

    def _join(self, start: Start) -> None:
        made: Candidate = self.bench.candidate(
            self.plan,
            start.name,
            rank=start.rank,
            rate=start.rate,
            rows=start.order.micro,
            seed=start.seed,
            **start.more,
        )
        seat = self.trainer.join(replace(made, id=start.name))
        if start.update is not None:
            place(start.update, seat.adapter)
        if start.held:
            seat.adapter.hold(start.held)

    def _drop_diverged(self) -> None:
        for name in [name for name, seat in self.trainer.seats.items() if has_diverged(seat)]:
            self.trainer.leave(name)
            self.bench.watch(f"{name} diverged and is left out")
        if not self.trainer.seats:
            raise RunError(
                "the training diverged, and the memory is as it was",
                got="a loss that is not finite, or far above where it began",
                next="give the command again; if it diverges again, report it with the journal",
            )

    @property
    def names(self) -> list[str]:
        """Who trains."""
        return list(self.trainer.seats)

    @property
    def tokens(self) -> int:
        """What those who still train were trained on, together."""
        return sum(seat.tokens for seat in self.trainer.seats.values())

    def update(self, name: str) -> Update:
        """What a candidate is now."""
        return taken(self.trainer.seats[name].adapter)

    def end(self) -> None:
        """Leave the pack."""
        for name in self.names:
            self.trainer.leave(name)
