"""One search, replayed: the searcher asks, the table answers, and the clock adds up
what it would have taken.

`Pack` stands where the trainer stands in a real run: candidates join, tick by tick all of them go one
step further, and those at an evaluation are scored. What each piece of work costs is measured beforehand
(`clock.py`), so a replay takes no real time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from clock import Engine, Trainer
from definitions import TRAIN_ROWS
from tasks import EVALUATIONS
from world import Place, World

from loraloom.records import EndStatus, Score
from loraloom.search.compare import mean_cost
from loraloom.search.history import Known, standings
from loraloom.search.searcher import Observation, Searcher
from loraloom.search.space import Space
from loraloom.train.schedule import warmup_steps
from loraloom.train.seat import evaluation_steps

FIRST_SEED = 1_000
"""Of replay 0."""
STATUSES: Mapping[str, EndStatus] = {"prune": "pruned", "diverged": "diverged", "stop": "completed"}
"""How a candidate ends, by what the searcher says."""


@dataclass(frozen=True)
class Ended:
    """A candidate that left: when, which, after how many evaluations, and how."""

    seconds: float
    place: Place
    turns: int
    status: EndStatus
    cost: float
    """Its lowest validation loss."""


@dataclass
class Course:
    """What a search came to: who ended when, and whom it declared the winner after so many seconds.

    `said`: how probable a race called it that the winner is better than the plan's setting; None where
    it is that, or without a race.
    """

    ended: list[Ended] = field(default_factory=list[Ended])
    seconds: float = 0.0
    winner: int = -1
    said: float | None = None

    def declare(self) -> Course:
        """The completed candidate with the lowest validation loss wins, as in any
        search without a race."""
        done = [one for one in self.ended if one.status == "completed"]
        self.winner = min(done, key=lambda one: one.cost).place[0]
        return self


@dataclass
class Seat:
    """A candidate in training."""

    place: Place
    batch: int
    evaluations: tuple[int, ...]
    step: int = 0
    turns: int = 0


class Pack:
    """Candidates of the table in training, and the seconds that have passed."""

    def __init__(self, world: World, costs: Engine | Trainer) -> None:
        self.world, self.costs = world, costs
        self.seats: dict[str, Seat] = {}
        self.waiting: dict[str, Seat] = {}
        self.seconds = 0.0

    def join(self, name: str, place: Place, turns: int = 0) -> None:
        """A candidate begins, or one that was trained elsewhere goes on after so many evaluations."""
        batch = self.world.batch_of(place[0])
        marks = marks_of(batch)
        self.seats[name] = Seat(place, batch, marks, marks[turns - 1] if turns else 0, turns)
        self.seconds += self.costs.start()

    def pause(self, name: str) -> None:
        """A candidate waits out of the pack."""
        self.waiting[name] = self.seats.pop(name)
        self.seconds += self.costs.pause()

    def go_on(self, name: str) -> None:
        """A candidate that waits gets a slot again."""
        self.seats[name] = self.waiting.pop(name)
        self.seconds += self.costs.go_on()

    def tick(self) -> dict[str, Score]:
        """One step of all; the scores of those that stand at an evaluation."""
        self.seconds += self.costs.step([seat.batch for seat in self.seats.values()])
        due: dict[str, Score] = {}
        for name, seat in self.seats.items():
            seat.step += 1
            if seat.step == seat.evaluations[seat.turns]:
                due[name] = self.world.score(seat.place, seat.turns)
                seat.turns += 1
        if due:
            self.seconds += self.costs.evaluate(len(due))
        return due

    def finished(self) -> list[str]:
        return [name for name, seat in self.seats.items() if seat.turns == EVALUATIONS]

    def diverged(self) -> list[str]:
        """Candidates that the trainer itself gave up."""
        given_up = self.world.table.diverged
        return [
            name
            for name, seat in self.seats.items()
            if given_up[seat.place] < min(seat.turns, EVALUATIONS)
        ]

    def leave(self, name: str, status: EndStatus) -> Ended:
        """A candidate ends; `tune` seats one that waits for that."""
        if name in self.waiting:
            self.go_on(name)
        seat = self.seats.pop(name)
        best = mean_cost(self.world.best(seat.place, seat.turns))
        return Ended(self.seconds, seat.place, seat.turns, status, best)


@cache
def marks_of(batch: int) -> tuple[int, ...]:
    """Steps at which a training with this batch is scored."""
    return tuple(sorted(evaluation_steps(-(-TRAIN_ROWS // batch), EVALUATIONS)))


def replay(
    world: World,
    costs: Engine | Trainer,
    number: int,
    space: Space,
    *,
    trials: int,
    pack_size: int,
    sampler: str,
    pruner: str,
    known: Sequence[Known] = (),
) -> Course:
    """A search of `space` by our searcher, as `tune` drives it, with everything that
    depends on chance drawn from `number`.

    With the pruner "none" nothing ends early, not even what diverges or overfits.
    `known`: trials of an earlier search.
    """
    searcher = Searcher(
        space,
        world.plan,
        trials,
        pack_size,
        sampler=sampler,
        pruner=pruner,
        seed=FIRST_SEED + number,
        base=world.base,
        known=known,
    )
    pack, course = Pack(world, costs), Course()

    def fill() -> None:
        while len(pack.seats) < pack_size and (asked := searcher.ask()) is not None:
            if asked.id in pack.waiting:
                pack.go_on(asked.id)
            else:
                pack.join(
                    asked.id, (world.number(asked.params), world.seed_of(number, asked.seed_offset))
                )

    def end(name: str, status: EndStatus) -> None:
        one = pack.leave(name, status)
        searcher.tell(name, status, world.best(one.place, one.turns))
        course.ended.append(one)

    def heed() -> None:
        for verdict in searcher.verdicts():
            if verdict.action == "pause":
                pack.pause(verdict.trial_id)
            else:
                end(verdict.trial_id, STATUSES[verdict.action])

    while True:
        fill()
        if pack.waiting and not pack.seats:
            # The last that the others waited for ended by itself.
            heed()
            fill()
        if not pack.seats:
            break
        due = pack.tick()
        if not due:
            continue
        for name, score in due.items():
            searcher.report(observation(world, name, pack.seats[name], score))
        if pruner != "none":
            heed()
            for name in pack.diverged():
                end(name, "diverged")
        for name in pack.finished():
            end(name, "completed")
    course.seconds = pack.seconds
    return course.declare()


def known_from(world: World, course: Course) -> list[Known]:
    """What the next search with the same base learns from one, as `tune` reads it from
    a run's folder."""

    def place(one: Ended) -> tuple[int, float, float]:
        if one.status == "completed":
            return 0, 0.0, one.cost
        return (1, -one.turns, one.cost) if one.status == "pruned" else (2, 0.0, 0.0)

    found: list[Known] = []
    for one, standing in zip(course.ended, standings([place(one) for one in course.ended]), strict=True):
        won = one.place[0] == course.winner != world.default
        found.append(
            Known({**world.plan, **world.settings[one.place[0]]}, standing, "won" if won else "")
        )
    return found


def observation(world: World, name: str, seat: Seat, score: Score) -> Observation:
    """The evaluation that a seat has just had."""
    planned = seat.evaluations[-1]
    return Observation(
        name,
        seat.step,
        seat.step / planned,
        warmup_steps(planned, world.warmup) / planned,
        score,
        float(world.table.train[seat.place][seat.turns - 1]),
        float(world.table.first[seat.place]),
        world.shape,
    )


def run_all(
    pack: Pack,
    course: Course,
    places: Sequence[Place],
    pack_size: int,
    *,
    since: int = 0,
    until: int = EVALUATIONS,
) -> None:
    """Train candidates from one evaluation to another, so many at a time; those that
    reach the last one are completed."""
    waiting = list(enumerate(places))
    while waiting or pack.seats:
        while waiting and len(pack.seats) < pack_size:
            number, place = waiting.pop(0)
            pack.join(f"{number}", place, since)
        pack.tick()
        for name in [name for name, seat in pack.seats.items() if seat.turns == until]:
            course.ended.append(pack.leave(name, "completed" if until == EVALUATIONS else "pruned"))
