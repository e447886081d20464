"""The same searches for real, in small: does a replay's clock tell the truth?

Each repeat searches a task once as `tune` does by itself, and once with PEFT + Trainer, random settings
one after another. Both report CPU seconds from the first candidate to the declared winner, the base
loaded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from clock import Clock
from contestants import LORALOOM, RANDOM, SLOTS, Ours, sequential_random
from replay import FIRST_SEED, STATUSES
from tasks import Task, settings_of
from trainer import Alone
from world import World

from loraloom.records import EndStatus
from loraloom.search.compare import mean_cost
from loraloom.search.searcher import Observation, Searcher
from loraloom.train.schedule import warmup_steps

TRIALS, REPEATS = 16, 5
ALONE = 2
"""Candidates of the random search: one after another they cost what one costs."""


@dataclass(frozen=True)
class Live:
    """One repeat of one way to search: measured seconds, what a replay says of the
    same, and the winner's true share."""

    way: str
    number: int
    seconds: float
    replayed_seconds: float
    winner: int
    share: float


def run(task: Task, world: World, clock: Clock, alone: Alone, number: int) -> list[Live]:
    """One repeat of both ways."""
    found: list[Live] = []
    for way, course, search in (
        (LORALOOM, Ours()(world, clock, number, TRIALS), lambda: search_packed(task, world, number)),
        (
            RANDOM,
            sequential_random(world, clock, number, ALONE),
            lambda: search_alone(world, alone, number),
        ),
    ):
        began = time.process_time()
        winner = search()
        seconds = time.process_time() - began
        found.append(Live(way, number, seconds, course.seconds, winner, float(world.shares[winner])))
    return found


def search_packed(task: Task, world: World, number: int) -> int:
    """Our engine and searcher on the real task; gives the winner's setting."""
    searcher = Searcher(
        world.planned, world.plan, TRIALS, SLOTS, seed=FIRST_SEED + number, base=world.base
    )
    pack, asked = task.trainer(), dict[str, int]()
    done: dict[str, float] = {}

    def fill() -> None:
        while len(pack.seats) < SLOTS and (one := searcher.ask()) is not None:
            if one.id in pack.shelf:
                pack.go_on(one.id)
            else:
                asked[one.id] = world.number(one.params)
                pack.join(task.candidate(one.id, one.params, world.seed_of(number, one.seed_offset)))

    def end(name: str, status: EndStatus) -> None:
        seat = pack.seats[name] if name in pack.seats else pack.go_on(name)
        pack.leave(name)
        searcher.tell(name, status, seat.best)
        if status == "completed" and seat.best is not None:
            done[name] = mean_cost(seat.best)

    def heed() -> None:
        for verdict in searcher.verdicts():
            if verdict.action == "pause":
                pack.pause(verdict.trial_id)
            else:
                end(verdict.trial_id, STATUSES[verdict.action])

    while True:
        fill()
        if pack.shelf and not pack.seats:
            heed()
            fill()
        if not pack.seats:
            return asked[min(done, key=lambda name: done[name])]
        pack.tick()
        due = pack.due()
        for name, score in pack.evaluate(due).items() if due else ():
            seat = pack.seats[name]
            share = warmup_steps(seat.planned_steps, world.warmup) / seat.planned_steps
            first, smoothed = seat.first_loss or 0.0, seat.smoothed_loss or 0.0
            searcher.report(
                Observation(name, seat.step, seat.progress, share, score, smoothed, first, world.shape)
            )
        if due:
            heed()
        for name in pack.diverged():
            end(name, "diverged")
        for name in pack.finished():
            end(name, "completed")


def search_alone(world: World, alone: Alone, number: int) -> int:
    """Random settings one after another; gives the winner's setting."""
    searcher = Searcher(
        world.space, world.plan, ALONE, 1, sampler="random", pruner="none", seed=FIRST_SEED + number
    )
    costs: dict[int, float] = {}
    settings = settings_of(world.space)
    while (one := searcher.ask()) is not None:
        place = world.number(one.params)
        costs[place] = alone.train(settings[place], world.seed_of(number))
    return min(costs, key=lambda place: costs[place])
