"""Who is compared. Each gives, for the number of a replay, the course of one whole search on a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import optuna
from clock import Clock
from replay import FIRST_SEED, Course, Pack, replay, run_all
from tasks import EVALUATIONS, SEEDS
from world import Place, World

from loraloom.search.compare import mean_cost
from loraloom.search.finals import finalists_of
from loraloom.search.quiet import quiet
from loraloom.search.searcher import Searcher
from loraloom.search.space import RANK
from loraloom.search.verdict import Contender, pick_winner

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

TRIALS, SLOTS = 64, 8
"""From 64 candidates on `tune` takes TPE, below it a Gaussian process."""
BUDGETS = (8, 16, 32, TRIALS)
"""Candidates of the searches that are compared at several sizes."""
KEEP_OF, KEEP_AT = 4, 2
"""Keep-top-K: a quarter of the candidates goes on after two of the eight evaluations."""

Contestant: TypeAlias = Callable[[World, Clock, int, int], Course]
"""(world, clock, number of the replay, candidates) to the course of a search."""


@dataclass(frozen=True)
class Cell:
    """One cell of the factorial: our engine and our searcher on the plan's range, with each part there or not."""

    packing: bool
    pruning: bool
    sampler: bool

    @property
    def name(self) -> str:
        parts = (
            "packed" if self.packing else "alone",
            "pruned" if self.pruning else "whole",
            "auto" if self.sampler else "random",
        )
        return "loraloom " + ", ".join(parts)

    def __call__(self, world: World, clock: Clock, number: int, trials: int = TRIALS) -> Course:
        return replay(
            world, clock.engine, number, world.planned, trials=trials, slots=SLOTS if self.packing else 1,
            sampler="auto" if self.sampler else "random", pruner="auto" if self.pruning else "none",
        )  # fmt: skip


CELLS = tuple(Cell(*parts) for parts in [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)])
OURS = Cell(packing=True, pruning=True, sampler=True)


def default_only(world: World, clock: Clock, number: int, trials: int = 1) -> Course:
    """The plan's own setting, trained once by Trainer."""
    pack, course = Pack(world, clock.trainer), Course()
    run_all(pack, course, [(world.default, world.seed_of(number))], slots=1)
    course.seconds = pack.seconds
    return course.declare()


def sequential_random(world: World, clock: Clock, number: int, trials: int = TRIALS) -> Course:
    """Random settings of the whole grid, none twice and the plan's first, each trained to its end by Trainer."""
    return replay(world, clock.trainer, number, world.space, trials=trials, slots=1, sampler="random", pruner="none")


def sequential_usual(world: World, clock: Clock, number: int, trials: int = TRIALS) -> Course:
    """The same with the base in float32, as PEFT and Trainer come. That changes the seconds; curves are taken to stay."""
    return replay(world, clock.usual, number, world.space, trials=trials, slots=1, sampler="random", pruner="none")


def sequential_planned(world: World, clock: Clock, number: int, trials: int = TRIALS) -> Course:
    """Random settings of the plan's range only."""
    return replay(world, clock.trainer, number, world.planned, trials=trials, slots=1, sampler="random", pruner="none")


def optuna_median(world: World, clock: Clock, number: int, trials: int = TRIALS) -> Course:
    """Optuna's TPE and MedianPruner as they come, with Trainer, on the whole grid."""
    return _optuna(world, clock, number, trials, optuna.pruners.MedianPruner())


def optuna_hyperband(world: World, clock: Clock, number: int, trials: int = TRIALS) -> Course:
    """Optuna's TPE and HyperbandPruner (thirds), with Trainer, on the whole grid."""
    return _optuna(world, clock, number, trials, optuna.pruners.HyperbandPruner(1, EVALUATIONS, 3))


def keep_top(world: World, clock: Clock, number: int, trials: int = TRIALS) -> Course:
    """Random settings of the plan's range, packed; a quarter of the way, the best quarter of them goes on."""
    places = random_places(world, number, trials)
    pack, tried, course = Pack(world, clock.engine), Course(), Course()
    run_all(pack, tried, places, SLOTS, until=KEEP_AT)
    ranked = sorted(tried.ended, key=lambda one: mean_cost(world.score(one.place, KEEP_AT - 1)))
    kept = trials // KEEP_OF
    course.ended += ranked[kept:]
    run_all(pack, course, [one.place for one in ranked[:kept]], SLOTS, since=KEEP_AT)
    course.seconds = pack.seconds
    return course.declare()


def raced(world: World, clock: Clock, number: int, trials: int = TRIALS) -> Course:
    """Ours, and then its best settings, the plan's among them and as many as `tune` races, with the table's other seeds on
    rows kept for that."""
    course = OURS(world, clock, number, trials)
    done = sorted((one for one in course.ended if one.status == "completed"), key=lambda one: one.cost)
    best = list(dict.fromkeys(one.place[0] for one in done if one.place[0] != world.default))[: finalists_of(trials) - 1]
    fresh = [world.seed_of(number, offset) for offset in range(1, SEEDS)]
    settings = [world.default, *best]
    pack, race = Pack(world, clock.engine), Course()
    run_all(pack, race, [(setting, seed) for seed in fresh for setting in settings], SLOTS)
    searched: dict[int, list[Place]] = {}
    for one in done:
        searched.setdefault(one.place[0], []).append(one.place)
    contenders = [
        Contender(
            str(setting),
            tuple(world.confirm((setting, seed)) for seed in fresh) if setting in settings else (),
            tuple(world.best(place) for place in searched.get(setting, [])),
            float(world.settings[setting][RANK]),
        )
        for setting in dict.fromkeys([*settings, *searched])
    ]
    course.winner = int(pick_winner(contenders, str(world.default), fresh=True).id)
    course.seconds += pack.seconds
    return course


CONTESTANTS: dict[str, Contestant] = {
    "default only": default_only,
    "sequential random, Trainer in float32": sequential_usual,
    "sequential random, Trainer": sequential_random,
    "sequential random in the plan's range, Trainer": sequential_planned,
    "Optuna TPE + median, Trainer": optuna_median,
    "Optuna TPE + Hyperband, Trainer": optuna_hyperband,
    "keep top quarter, packed": keep_top,
    **{cell.name: cell for cell in CELLS},
    "loraloom with its race": raced,
}
LADDER = (
    "sequential random, Trainer in float32", "sequential random, Trainer", "Optuna TPE + median, Trainer", OURS.name,
    "loraloom with its race",
)  # fmt: skip
"""Who is compared at all budgets."""


def random_places(world: World, number: int, trials: int) -> list[Place]:
    """What the random search of the plan's range of this number asks for."""
    searcher = Searcher(world.planned, world.plan, trials, 1, sampler="random", pruner="none", seed=FIRST_SEED + number)
    asked = [searcher.ask() for _ in range(trials)]
    return [(world.number(one.params), world.seed_of(number)) for one in asked if one is not None]


def _optuna(world: World, clock: Clock, number: int, trials: int, pruner: BasePruner) -> Course:
    """A search by Optuna alone, the plan's setting first. A setting that is asked for again costs nothing."""
    with quiet():
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=FIRST_SEED + number), pruner=pruner)
        study.enqueue_trial(world.space.point(world.plan))
        pack, course, known = Pack(world, clock.trainer), Course(), dict[int, float | None]()
        for _ in range(trials):
            trial = study.ask()
            setting = world.number(world.space.suggest(trial))
            if setting not in known:
                known[setting] = _trained(world, pack, course, trial, (setting, world.seed_of(number)))
            cost = known[setting]
            study.tell(trial, cost, None if cost is not None else optuna.trial.TrialState.PRUNED)
    course.seconds = pack.seconds
    return course.declare()


def _trained(world: World, pack: Pack, course: Course, trial: optuna.Trial, place: Place) -> float | None:
    """Train until the end or until Optuna prunes; the lowest validation loss, or None."""
    pack.join("it", place)
    while True:
        due = pack.tick()
        if not due:
            continue
        trial.report(mean_cost(due["it"]), pack.seats["it"].turns)
        if pack.finished():
            course.ended.append(pack.leave("it", "completed"))
            return course.ended[-1].cost
        if trial.should_prune():
            course.ended.append(pack.leave("it", "pruned"))
            return None
