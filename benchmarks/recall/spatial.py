"""Routes on invented maps: what is reached of ways that were walked, that follow, and that nobody asked.

    python benchmarks/recall/spatial.py MODEL spatial.json [--seeds 0 1 2] [--arms ours ...] [--show]

Each seed is a grid of 5 x 4 cells, four of them blocked, whose places have names that say nothing of
where they lie. Trajectories are shortest paths, each tie drawn by chance, until every step was walked.
The walls are in no prompt. What is written freely is followed on the true grid.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from loraloom.pipeline.recall.bench import CURRENT, MemoryBench, base_of_model
from loraloom.pipeline.recall.exam import Answered
from loraloom.pipeline.recall.routes import route_policy
from loraloom.pipeline.recall.settle import settled
from loraloom.pipeline.recall.update import Update
from loraloom.pipeline.recall.wake import wake
from loraloom.recall.forms import trained_forms
from loraloom.recall.items import items_of
from loraloom.recall.memory import opened
from loraloom.recall.places import Pair, PlaceMap, maps_of, ways_of
from loraloom.recall.places import Path as Way
from loraloom.recall.recipe import RECIPE, Recipe
from loraloom.recall.simulator import simulated
from loraloom.recall.state import Entry

MAPS = ("Harbour", "Old Town", "Riverside", "Castle Hill", "Market Side")
NOUNS = re.findall(
    r"\w+",
    "mill well gate barn tower bridge market inn forge church dock school garden bakery field chapel"
    " square park farm hall lake cave",
)
MOVES = {"north": (0, 1), "south": (0, -1), "east": (1, 0), "west": (-1, 0)}
WIDTH, HEIGHT, BLOCKED = 5, 4, 4
TIME = "2026-01-01T00:00:00+00:00"
LONG = 3
"""Moves of a trajectory, at least."""
ARMS: dict[str, Recipe] = {
    "ours": RECIPE,
    "without walks": replace(RECIPE, left_out=("walk",)),
    "without sub-routes": replace(RECIPE, left_out=("sub_route",)),
    "without planned routes": replace(RECIPE, left_out=("planned_route",)),
    "trajectories alone": replace(RECIPE, derived=False),
    "ways at sleep only": replace(RECIPE, ways_at_wake=False),
}


def grid(seed: int) -> PlaceMap:
    """A connected grid with blocked cells; its map has steps and no routes."""
    rng = random.Random(seed)
    cells = [(x, y) for x in range(WIDTH) for y in range(HEIGHT)]
    while True:
        free = sorted(set(cells) - set(rng.sample(cells, BLOCKED)))
        name = dict(zip(free, rng.sample(NOUNS, len(free)), strict=True))
        found = PlaceMap(MAPS[seed % len(MAPS)])
        for x, y in free:
            moves = {move: name.get((x + dx, y + dy)) for move, (dx, dy) in MOVES.items()}
            found.edges[name[x, y]] = {move: there for move, there in moves.items() if there}
        if len(found.distances(name[free[0]])) == len(free):
            return found


def trajectories(world: PlaceMap, seed: int) -> list[Way]:
    """Shortest paths with ties drawn by chance, each the one of some drawn that has most new
    steps, until every step was walked."""
    rng = random.Random(seed + 1000)
    todo = {(place, move) for place, moves in world.edges.items() for move in moves}
    found: dict[Pair, Way] = {}
    while todo:
        drawn = [_drawn(world, rng, todo) for _ in range(40)]
        fresh = [path for path in drawn if (path[0], path[-1]) not in found]
        path = max(fresh, key=lambda one: len(todo & set(_steps(one))))
        if todo & set(_steps(path)):
            found[path[0], path[-1]] = path
            todo -= set(_steps(path))
    return list(found.values())


def _drawn(world: PlaceMap, rng: random.Random, todo: set[Pair]) -> Way:
    """A random shortest path that begins with a step that nobody walked yet."""
    place, move = rng.choice(sorted(todo))
    there = world.edges[place][move]
    goals = [
        goal
        for goal in world.places
        if world.distances(goal)[place] == world.distances(goal)[there] + 1 >= LONG
    ]
    if not goals:
        return place, move, there
    goal = rng.choice(goals)
    away = world.distances(goal)
    path = [place, move, there]
    while path[-1] != goal:
        here = path[-1]
        path += rng.choice(sorted(m for m in world.edges[here].items() if away[m[1]] < away[here]))
    return tuple(path)


def _steps(path: Way) -> list[Pair]:
    return list(zip(path[::2], path[1::2], strict=False))


def entries_of(world: PlaceMap, paths: Sequence[Way]) -> list[Entry]:
    """Trajectories as items of a memory."""
    rows = [{"kind": "trajectory", "map": world.name, "path": list(path)} for path in paths]
    items = items_of([(f"row {number}", row) for number, row in enumerate(rows, 1)], TIME)
    return [Entry(replace(item, id=f"m{number:04d}")) for number, item in enumerate(items, 1)]


def run(model: str, seed: int, recipe: Recipe) -> dict[str, Any]:
    """One seed under one recipe: wake, sleep, and what is reached after each."""
    world = grid(seed)
    paths = trajectories(world, seed)
    entries = entries_of(world, paths)
    known = maps_of(entry.item for entry in entries)[world.name]
    ways = ways_of(known)
    pairs = {
        "walked": list(known.routes),
        "sub_routes": ways.sub_routes,
        "planned": ways.planned,
        "unseen": ways.held_out,
    }
    content = {"edges": world.edges, "trajectories": paths, "pairs": pairs}
    start = time.process_time()
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(Path(folder) / "memory", base_of_model(model), writes=True) as memory,
    ):
        memory.record({"op": "write", "at": TIME, "decisions": [_inserted(one) for one in entries]})
        forms = [form for entry in entries for form in trained_forms(entry.item)]
        bench = MemoryBench(memory, forms, lambda said: print(f"  {said}", flush=True))
        learnt = wake(bench, entries, [], {}, candidates=1, recipe=recipe)
        slept_on = [replace(one, wake=1, loss=learnt.after.losses[one.id]) for one in entries]
        slept = settled(bench, slept_on, learnt.total, recipe=recipe)
        trained_seconds = time.process_time() - start
        after = {
            "base": _followed(bench, world, None, {"unseen": pairs["unseen"]}),
            "wake": _followed(bench, world, learnt.total, pairs),
            "sleep": _followed(bench, world, slept.update, pairs),
        }
    return {
        "seed": seed,
        "content": hashlib.blake2b(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16],
        "counts": {"trajectories": len(paths), **{name: len(one) for name, one in pairs.items()}},
        "steps": {"wake": learnt.steps, "sleep": slept.steps},
        "after": after,
        "exam": {
            "base": _exam(learnt.before),
            "wake": _exam(learnt.after),
            "sleep": _exam(slept.after),
        },
        "core_seconds_trained": round(trained_seconds),
        "core_seconds": round(time.process_time() - start),
    }


def _inserted(entry: Entry) -> dict[str, Any]:
    """What the journal says of an item that was written."""
    return {"outcome": "insert", "terms": {"score": 1.0}, "item": asdict(entry.item)}


def _followed(
    bench: MemoryBench, world: PlaceMap, update: Update | None, pairs: dict[str, list[Pair]]
) -> dict[str, Any]:
    """What is written, followed on the true grid."""
    with bench.seated({CURRENT: update}) as trials:
        policy = route_policy(bench, world, trials[0] if trials else None)
        return {name: asdict(simulated(world, some, policy)) for name, some in pairs.items()}


def _exam(answered: Answered) -> dict[str, float]:
    one = answered.result
    return {
        "perplexity": one.perplexity,
        "base_known": one.known,
        "not_known": one.not_known,
        "as_written": one.verbatim,
        "other_wordings": one.held_out,
    }


# -- tables --------------------------------------------------------------------------------------------


SEEN = ("walked", "sub_routes", "planned")


def tables(found: dict[str, Any]) -> str:
    """All arms, after learning and after the sleep, as a table in Markdown."""
    heads = ["", "walked", "sub-routes", "planned", "all of these", "unseen"]
    heads += ["length", "perplexity", "core-s"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for arm, by_seed in found["runs"].items():
        for stage, word in (("wake", "learnt"), ("sleep", "slept")):
            lines.append(_row([f"{arm}, {word}", *_cells(list(by_seed.values()), stage)]))
    return "\n".join(lines)


def _cells(runs: Sequence[dict[str, Any]], stage: str) -> list[str]:
    scores = [run["after"][stage][name] for run in runs for name in (*SEEN, "unseen")]
    reached = [one["reached"] * one["pairs"] for one in scores]
    length = sum(one["ratio"] * right for one, right in zip(scores, reached, strict=True) if right)
    length /= max(1, sum(reached))
    dearer = [run["exam"][stage]["perplexity"] / run["exam"]["base"]["perplexity"] for run in runs]
    seconds = np.mean([run["core_seconds_trained"] for run in runs])
    shares = [_reached(runs, stage, names) for names in (*((one,) for one in SEEN), SEEN, ("unseen",))]
    return [*shares, f"{length:.2f}", f"{np.mean(dearer) - 1:+.1%}", f"{seconds:.0f}"]


def _reached(runs: Sequence[dict[str, Any]], stage: str, names: Sequence[str]) -> str:
    """The share of all pairs, and where 95 of a hundred drawings with replacement lie."""
    scores = [run["after"][stage][name] for run in runs for name in names]
    pairs = sum(one["pairs"] for one in scores)
    share = sum(one["reached"] * one["pairs"] for one in scores) / pairs
    drawn = np.random.default_rng(0).binomial(pairs, share, 2000) / pairs
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{share:.2f} ({low:.2f} to {high:.2f}) of {pairs}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the results of all seeds and arms; what is in the file already is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=[*ARMS], default=[*ARMS])
    parser.add_argument("--show", action="store_true", help="only the table of what is in the file")
    asked = parser.parse_args()
    found: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {"runs": {}}
    for arm in [] if asked.show else asked.arms:
        for seed in asked.seeds:
            print(f"{arm}, seed {seed}", flush=True)
            found["runs"].setdefault(arm, {})[str(seed)] = run(asked.model, seed, ARMS[arm])
            asked.out.write_text(json.dumps(found, indent=1) + "\n")
    print(tables(found))


if __name__ == "__main__":
    main()
