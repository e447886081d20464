"""Who is compared. Each gives, for the number of a replay, the course of one whole search on a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import optuna
from clock import Clock
from clock import Trainer as Seconds
from replay import FIRST_SEED, Course, Pack, known_from, replay, run_all
from tasks import EVALUATIONS, SEEDS
from world import Place, World

from loraloom.search.compare import mean_cost
from loraloom.search.finals import finalists_of
from loraloom.search.optuna_guard import quiet
from loraloom.search.searcher import Searcher
from loraloom.search.space import RANK
from loraloom.search.verdict import Contender, pick_winner

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

SLOTS = 8
EARLIER = 32
"""Candidates of the search that one with history looks back on."""
KEEP_OF, KEEP_AT = 4, 2
"""Keep-top-K: a quarter of the candidates goes on after two of the eight evaluations."""

Search: TypeAlias = Callable[[World, Clock, int, int], Course]
"""(world, clock, number of the replay, candidates) to the course of a search."""
Then: TypeAlias = Callable[[World, Clock, int, int, Course], Course]
"""The same and the course of a search to another course."""


# -- the usual way: PEFT + Trainer, one after another
# --------------------------------------------------------------


def default_only(world: World, clock: Clock, number: int, trials: int = 1) -> Course:
    """The plan's own setting, trained once by Trainer."""
    pack, course = Pack(world, clock.trainer), Course()
    run_all(pack, course, [(world.default, world.seed_of(number))], pack_size=1)
    course.seconds = pack.seconds
    return course.declare()


def sequential_random(world: World, clock: Clock, number: int, trials: int) -> Course:
    """Random settings of the whole grid, none twice and the plan's first, each trained
    to its end by Trainer."""
    return replay(
        world,
        clock.trainer,
        number,
        world.space,
        trials=trials,
        pack_size=1,
        sampler="random",
        pruner="none",
    )


def in_float32(world: World, clock: Clock, number: int, trials: int, course: Course) -> Course:
    """The same search with the base in float32, as PEFT and Trainer come. That changes the seconds;
    curves are taken to stay."""
    pack, again = Pack(world, clock.usual), Course(winner=course.winner)
    run_all(pack, again, [one.place for one in course.ended], pack_size=1)
    again.seconds = pack.seconds
    return again


def sequential_planned(world: World, clock: Clock, number: int, trials: int) -> Course:
    """Random settings of the plan's range only."""
    return replay(
        world,
        clock.trainer,
        number,
        world.planned,
        trials=trials,
        pack_size=1,
        sampler="random",
        pruner="none",
    )


def optuna_median(world: World, clock: Clock, number: int, trials: int) -> Course:
    """Optuna's TPE and MedianPruner as they come, with Trainer, on the whole grid."""
    return _optuna(world, clock.trainer, number, trials, optuna.pruners.MedianPruner())


def optuna_hyperband(world: World, clock: Clock, number: int, trials: int) -> Course:
    """Optuna's TPE and HyperbandPruner (thirds), with Trainer, on the whole grid."""
    return _optuna(
        world, clock.trainer, number, trials, optuna.pruners.HyperbandPruner(1, EVALUATIONS, 3)
    )


# -- packed
# -------------------------------------------------------------------------------------------------------


def keep_top(world: World, clock: Clock, number: int, trials: int) -> Course:
    """Random settings of the plan's range, packed; a quarter of the way, the best
    quarter of them goes on."""
    places = random_places(world, number, trials)
    pack, tried, course = Pack(world, clock.engine), Course(), Course()
    run_all(pack, tried, places, SLOTS, until=KEEP_AT)
    ranked = sorted(tried.ended, key=lambda one: mean_cost(world.score(one.place, KEEP_AT - 1)))
    kept = trials // KEEP_OF
    course.ended += ranked[kept:]
    run_all(pack, course, [one.place for one in ranked[:kept]], SLOTS, since=KEEP_AT)
    course.seconds = pack.seconds
    return course.declare()


@dataclass(frozen=True)
class Ours:
    """Our engine and searcher on the plan's range."""

    pruner: str = "auto"
    sampler: str = "auto"
    pack_size: int = SLOTS

    def __call__(self, world: World, clock: Clock, number: int, trials: int) -> Course:
        return replay(
            world,
            clock.engine,
            number,
            world.planned,
            trials=trials,
            pack_size=self.pack_size,
            sampler=self.sampler,
            pruner=self.pruner,
        )


def informed(world: World, clock: Clock, number: int, trials: int) -> Course:
    """Ours, where it has searched another task of the same base before. That search is
    charged to nobody."""
    assert world.before is not None
    earlier = Ours()(world.before, clock, number + 1, EARLIER)
    return replay(
        world,
        clock.engine,
        number,
        world.planned,
        trials=trials,
        pack_size=SLOTS,
        sampler="auto",
        pruner="auto",
        known=known_from(world.before, earlier),
    )


def raced(world: World, clock: Clock, number: int, trials: int, course: Course) -> Course:
    """A search of ours, and then its best settings, the plan's among them and as many as `tune` races,
    with the table's other seeds, on rows kept for that where there are enough."""
    done = sorted((one for one in course.ended if one.status == "completed"), key=lambda one: one.cost)
    best = list(dict.fromkeys(one.place[0] for one in done if one.place[0] != world.default))[
        : finalists_of(trials) - 1
    ]
    fresh = [world.seed_of(number, offset) for offset in range(1, SEEDS)]
    settings = [world.default, *best]
    pack = Pack(world, clock.engine)
    run_all(pack, Course(), [(setting, seed) for seed in fresh for setting in settings], SLOTS)
    searched: dict[int, list[Place]] = {}
    for one in done:
        searched.setdefault(one.place[0], []).append(one.place)
    contenders = [
        Contender(
            str(setting),
            tuple(world.race((setting, seed)) for seed in fresh) if setting in settings else (),
            tuple(world.best(place) for place in searched.get(setting, [])),
            float(world.settings[setting][RANK]),
        )
        for setting in dict.fromkeys([*settings, *searched])
    ]
    verdict = pick_winner(contenders, str(world.default), fresh=world.races_apart)
    winner = int(verdict.id)
    said = verdict.gain.probability if verdict.gain and winner != world.default else None
    return Course(course.ended, course.seconds + pack.seconds, winner, said)


# -- all of them
# ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contestant:
    """A way to search.

    Attributes:
        sizes: with how many candidates it is replayed; more than the grid has are cut to that.
        then: what is made of each course besides, and what its name gets.
        looks_back: whether it needs an earlier search.
    """

    search: Search
    sizes: tuple[int, ...]
    then: tuple[str, Then] | None = None
    looks_back: bool = False


MANY, USUAL, FEW = (8, 16, 32, 64, 96, 128), (8, 16, 24, 32, 48, 64), (16, 32, 64)
RACED, FLOAT32 = " with its race", " in float32"
RANDOM, MEDIAN = "sequential random, Trainer", "Optuna TPE + median, Trainer"
LORALOOM, CAREFUL, INFORMED = "loraloom", "careful", "loraloom after another search"

CONTESTANTS: dict[str, Contestant] = {
    "default only": Contestant(default_only, (1,)),
    RANDOM: Contestant(sequential_random, MANY, (FLOAT32, in_float32)),
    "sequential random in the plan's range, Trainer": Contestant(sequential_planned, FEW),
    MEDIAN: Contestant(optuna_median, (*USUAL, 96)),
    "Optuna TPE + Hyperband, Trainer": Contestant(optuna_hyperband, FEW),
    "keep top quarter, packed": Contestant(keep_top, FEW),
    "engine alone, whole, random": Contestant(Ours("none", "random", 1), FEW),
    "engine packed, whole, random": Contestant(Ours("none", "random"), FEW),
    "engine packed, pruned, random": Contestant(Ours("auto", "random"), FEW),
    CAREFUL: Contestant(Ours("careful"), (8, 16, 32, 64), (RACED, raced)),
    LORALOOM: Contestant(Ours(), USUAL, (RACED, raced)),
    INFORMED: Contestant(informed, USUAL, looks_back=True),
}


def search(world: World, clock: Clock, name: str, trials: int, count: int) -> dict[str, list[Course]]:
    """The courses of so many replays of a search, and what is made of them besides, by
    what they are called."""
    one = CONTESTANTS[name]
    found = {name: [one.search(world, clock, number, trials) for number in range(count)]}
    if one.then:
        suffix, then = one.then
        found[name + suffix] = [
            then(world, clock, number, trials, course) for number, course in enumerate(found[name])
        ]
    return found


def called() -> dict[str, str]:
    """Everything that is judged, in the order of tables, and which search it comes from."""
    return {
        each: name
        for name, one in CONTESTANTS.items()
        for each in (name, *([name + one.then[0]] if one.then else []))
    }


def sizes_of(name: str, world: World) -> list[int]:
    """Numbers of candidates that a search is replayed with on a task; none where it cannot be."""
    one = CONTESTANTS[name]
    return (
        []
        if one.looks_back and not world.before
        else sorted({min(size, len(world.settings)) for size in one.sizes})
    )


def random_places(world: World, number: int, trials: int) -> list[Place]:
    """What the random search of the plan's range of this number asks for."""
    searcher = Searcher(
        world.planned, world.plan, trials, 1, sampler="random", pruner="none", seed=FIRST_SEED + number
    )
    asked = [searcher.ask() for _ in range(trials)]
    return [(world.number(one.params), world.seed_of(number)) for one in asked if one is not None]


def _optuna(world: World, seconds: Seconds, number: int, trials: int, pruner: BasePruner) -> Course:
    """A search by Optuna alone, the plan's setting first. A setting that is asked for
    again costs nothing."""
    with quiet():
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=FIRST_SEED + number), pruner=pruner
        )
        study.enqueue_trial(world.space.point(world.plan))
        pack, course, known = Pack(world, seconds), Course(), dict[int, float | None]()
        for _ in range(trials):
            trial = study.ask()
            setting = world.number(world.space.suggest(trial))
            if setting not in known:
                known[setting] = _trained(world, pack, course, trial, (setting, world.seed_of(number)))
            cost = known[setting]
            study.tell(trial, cost, None if cost is not None else optuna.trial.TrialState.PRUNED)
    course.seconds = pack.seconds
    return course.declare()


def _trained(
    world: World, pack: Pack, course: Course, trial: optuna.Trial, place: Place
) -> float | None:
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
