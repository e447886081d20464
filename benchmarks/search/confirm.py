"""From how many validation rows on should half of them be kept from the search, for the race alone?

    python benchmarks/search/confirm.py  # resamples the committed tables; writes confirm.json (minutes)
    python benchmarks/search/confirm.py --show    # the committed result

There are two ways to use so many rows. *half*: the search chooses on one half, and the race scores its
finalists on the other, which the choice has not seen. *whole*: the search chooses on all of them, and
the race, with seeds of its own, is scored on them again. The first chooses by fewer rows. The second
judges by rows that the choice has seen, so that `pick_winner` leaves out what the search measured, and
asks more before it calls a setting better for certain.

A search is the plan's own setting and random ones of the plan's range, each with its cost on the rows at
its best checkpoint; as many of them race as in `tune`, over the table's other two seeds. Rows are drawn
anew for each search, from the 320 that no checkpoint was chosen by; the rest of these, and all seeds,
tell what is true. Nothing is cut on the way. Of `intents` the share of wrong answers is judged as well:
rows to which the right one is given less than one half. In `alike` settings differ in nothing but luck,
as large as that of `stories`: there, whatever is called better for certain is not.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from definitions import DEFINITIONS
from numpy.typing import NDArray
from tasks import SEEDS
from world import World

from loraloom.records import Score
from loraloom.search.finals import finalists_of
from loraloom.search.verdict import Contender, pick_winner

HERE = Path(__file__).resolve().parent
RESULT = HERE / "confirm.json"
ROWS = (16, 32, 48, 64, 96, 128, 192)
TRIALS = (16, 32)
WAYS = ("whole", "half")
SEARCHES = 1000
SEED_LUCK, ROW_LUCK = 0.012, 0.17
"""Standard deviations on `stories`: of a setting's cost by its seed, of a row's
difference between two settings."""
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Costs:
    """What settings P, the plan's own first, cost with seeds S on rows R.

    Attributes:
        costs: [P, S, R]. weights: [R].
        span: from the bare base to the best setting: the unit of a regret. None where
            all settings are alike.
    """

    costs: Floats
    weights: Floats
    span: float | None = None

    def mean(self, rows: Rows) -> Floats:
        """Of each setting and seed, [P, S]."""
        return self.costs[:, :, rows] @ self.weights[rows] / self.weights[rows].sum()

    def score(self, setting: int, seed: int, rows: Rows) -> Score:
        return Score(
            "rows",
            {},
            tuple(self.costs[setting, seed, rows].tolist()),
            tuple(self.weights[rows].tolist()),
        )


@cache
def read(task: str, wrong: bool = False) -> Costs:
    """A committed table; with `wrong` a row costs 1 where its right answer is given
    less than one half, else nothing."""
    world, seen = World.of(HERE, task), DEFINITIONS[task].validation_rows
    near = {world.number(world.planned.params(point)) for point in world.planned.grid(1)} - {
        world.default
    }
    costs = world.table.held[[world.default, *sorted(near)]].astype(np.float64)
    base, weights = (part[seen:].astype(np.float64) for part in (world.table.base, world.table.weights))
    if wrong:
        costs, base = (np.where(part > math.log(2), 1.0, 0.0) for part in (costs, base))
    best = (costs.mean(1) @ weights).min()
    return Costs(costs, weights, float(base @ weights - best) / float(weights.sum()))


def alike(rng: np.random.Generator) -> Costs:
    """Settings that differ in luck alone: that of the seed, and what each row makes of
    each setting, whatever its seed."""
    settings, rows = max(TRIALS), max(ROWS)
    seeds = rng.normal(10.0, SEED_LUCK, (settings, SEEDS, 1))
    return Costs(seeds + rng.normal(0.0, ROW_LUCK, (settings, 1, rows)), np.ones(rows))


TASKS: Mapping[str, Callable[[np.random.Generator], Costs]] = {
    "stories": lambda _: read("stories"),
    "intents": lambda _: read("intents"),
    "intents, share wrong": lambda _: read("intents", wrong=True),
    "alike": alike,
}


def search(rng: np.random.Generator, task: str, count: int, trials: int, way: str) -> dict[str, float]:
    """One search with so many rows and what came of it; what does not apply is left out."""
    found = TASKS[task](rng)
    drawn = rng.permutation(found.costs.shape[2])
    mine, rest = drawn[:count], drawn[count:]
    chosen_by, raced_on = (mine, mine) if way == "whole" else (mine[: count // 2], mine[count // 2 :])
    own, *fresh = rng.permutation(SEEDS).tolist()
    tried = [0, *(1 + rng.permutation(len(found.costs) - 1)[: trials - 1]).tolist()]
    looks = found.mean(chosen_by)[:, own]
    finals = {0, *sorted(tried[1:], key=lambda setting: looks[setting])[: finalists_of(trials) - 1]}
    winner = pick_winner(
        [
            Contender(
                str(setting),
                (
                    tuple(found.score(setting, seed, raced_on) for seed in fresh)
                    if setting in finals
                    else ()
                ),
                (found.score(setting, own, chosen_by),),
            )
            for setting in tried
        ],
        "0",
        fresh=way == "half",
    )
    if found.span is None:
        return {"falsely sure": winner.significant}
    truth, kept = found.mean(rest).mean(1), int(winner.id)
    gain = float(truth[0] - truth[kept])
    come = {
        "regret": float(truth[kept] - truth[tried].min()) / found.span,
        "no better": kept != 0 and gain <= 0,
        "sure": winner.significant,
        "falsely sure": winner.significant and gain <= 0,
    }
    if kept and winner.gain:
        come |= {
            "said": winner.gain.probability,
            "true": gain > 0,
            "held": winner.gain.low <= gain <= winner.gain.high,
        }
    return come


def simulate(searches: int) -> list[dict[str, object]]:
    """Means over searches, by task, candidates, rows and way; both ways are drawn
    alike, so that regrets are paired."""
    found: list[dict[str, object]] = []
    for task, trials, count in product(TASKS, TRIALS, ROWS):
        came: dict[str, list[dict[str, float]]] = {}
        for way in WAYS:
            rng = np.random.default_rng(count)
            came[way] = [search(rng, task, count, trials, way) for _ in range(searches)]
        case: dict[str, object] = {"task": task, "trials": trials, "rows": count}
        case |= {way: _means(came[way]) for way in WAYS}
        if "regret" in came["half"][0]:
            lost = np.asarray(
                [half["regret"] - whole["regret"] for whole, half in zip(*came.values(), strict=True)]
            )
            case |= {
                "lost": float(lost.mean()),
                "lost_se": float(lost.std(ddof=1)) / math.sqrt(searches),
            }
        found.append(case)
        print(case, file=sys.stderr, flush=True)
    return found


def _means(came: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in came for name in one)
    return {name: float(np.mean([one[name] for one in came if name in one])) for name in names}


def report(cases: Sequence[Mapping[str, object]]) -> str:
    """A line a case: each cell is of *whole*, then of *half*."""
    head = (
        "task",
        "candidates",
        "rows",
        "regret",
        "half loses",
        "no better",
        "said, true",
        "interval holds",
        "sure",
        "falsely sure",
    )
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for case in cases:
        whole, half = case["whole"], case["half"]
        assert isinstance(whole, dict) and isinstance(half, dict)
        pair: Callable[[str, str], str] = lambda name, form: ", ".join(  # noqa: E731
            format(one[name], form) if name in one else ""
            for one in (whole, half)  # noqa: B023
        )
        lost = f"{case['lost']:.2%} +- {case['lost_se']:.2%}" if "lost" in case else ""
        said = "; ".join(
            f"{one['said']:.0%}, {one['true']:.0%}" for one in (whole, half) if "said" in one
        )
        cells = (
            case["task"],
            case["trials"],
            case["rows"],
            pair("regret", ".2%"),
            lost,
            pair("no better", ".1%"),
            said,
            pair("held", ".0%"),
            pair("sure", ".0%"),
            pair("falsely sure", ".1%"),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Half of the validation rows for the race, or all of them for both."
    )
    parser.add_argument(
        "--show", action="store_true", help="print the committed result and simulate nothing"
    )
    parser.add_argument("--searches", type=int, default=SEARCHES, help="of each case")
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args(arguments)
    if not asked.show:
        cases = simulate(asked.searches)
        asked.out.write_text(json.dumps({"searches": asked.searches, "cases": cases}, indent=1) + "\n")
    print(report(json.loads(asked.out.read_text())["cases"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
