"""How often is a setting said to be better for certain where all are alike, and how often where one is?

    python benchmarks/search/verdicts.py
        # simulates whole searches, judged by the code of `tune`; writes verdicts.json
    python benchmarks/search/verdicts.py --show    # the committed result

A search is drawn, not trained: each setting has a true cost, each run the luck of its seed, each row a
difference of its own that stays with the setting. The finalists are those that looked best, the plan's
setting among them. Every number of finalists and seeds that `tune` can choose is drawn, with noise of
seeds alone, of rows alone, of both, and of rows that come in clusters. In `null` all settings are alike:
2.5 of 100 may be called sure, 3 are the limit. In `power` one is better by as much as three runs differ
among themselves (`GAIN` standard deviations of a run): how often is it kept, and called sure?
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loraloom.records import Score
from loraloom.search.finals import finalists_of
from loraloom.search.verdict import Contender, Winner, pick_winner

HERE = Path(__file__).resolve().parent
SEARCHES = 2000
LIMIT = 0.03
GAIN = 3.0
CLUSTER = 8
"""Rows of one cluster."""
SIZES = tuple((trials, finalists_of(trials)) for trials in (4, 8, 16, 32, 128))
SEEDS = (1, 2, 3, 5)
BINS = (0.0, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class Noise:
    """Standard deviations: of a run's cost by its seed, of a row's difference, of what
    a cluster's rows share."""

    name: str
    seed: float
    row: float
    cluster: float = 0.0
    rows: int = 64

    @property
    def of_a_run(self) -> float:
        """Standard deviation of a run's mean cost by all sources together."""
        return math.sqrt(
            self.seed**2 + self.row**2 / self.rows + self.cluster**2 / (self.rows / CLUSTER)
        )


NOISES = (
    Noise("seeds", 1.0, 0.0),
    Noise("rows", 0.0, 8.0),
    Noise("both", 1.0, 8.0),
    Noise("clusters", 0.3, 2.0, 4.0),
)


@dataclass(frozen=True)
class Search:
    """What a search came to: what was kept, how sure it was called, and what is true."""

    winner: Winner
    best: bool
    """Whether the one that is truly better was kept."""
    better: bool
    """Whether what is kept (or, where the plan's setting is, the nearest rival) is
    truly better than the plan's setting."""


def draw(
    rng: np.random.Generator,
    noise: Noise,
    trials: int,
    finalists: int,
    seeds: int,
    truth: NDArray[np.float64],
) -> Search:
    """One search over settings with these true costs [trials], the plan's first; fresh
    rows for the race."""
    luck = rng.normal(0.0, noise.seed, (trials, 2))
    searched = [
        _scores(rng, noise, cost + luck[k, : 2 if k == 0 else 1]) for k, cost in enumerate(truth)
    ]
    order = [0, *sorted(range(1, trials), key=lambda k: np.mean(searched[k][0].costs))][:finalists]
    # With one seed nothing is trained anew: the same runs are scored on other rows.
    fresh = luck[:, :1] if seeds == 1 else rng.normal(0.0, noise.seed, (trials, seeds))
    finals = {k: _scores(rng, noise, truth[k] + fresh[k]) for k in order}
    contenders = [Contender(f"t{k}", finals.get(k, ()), searched[k]) for k in range(trials)]
    winner = pick_winner(contenders, "t0", fresh=seeds > 1)
    rival = int(winner.id[1:])
    return Search(winner, truth[rival] == truth.min(), bool(truth[rival] < truth[0]))


def _scores(rng: np.random.Generator, noise: Noise, costs: NDArray[np.float64]) -> tuple[Score, ...]:
    """Runs of one setting with these costs [runs] on the same rows: what a row or a cluster makes of the
    setting is the same in all of them."""
    own = rng.normal(0.0, noise.row, noise.rows)
    clusters = np.arange(noise.rows) // CLUSTER
    if noise.cluster:
        own += rng.normal(0.0, noise.cluster, noise.rows // CLUSTER)[clusters]
    numbers = tuple(clusters.tolist()) if noise.cluster else ()
    return tuple(
        Score("confirm", {}, tuple((10.0 + cost + own).tolist()), (), numbers) for cost in costs
    )


def cases() -> Iterator[tuple[Noise, int, int, int]]:
    """Every noise with every number of trials, finalists and seeds."""
    for noise in NOISES:
        for trials, finalists in SIZES:
            for seeds in SEEDS:
                yield noise, trials, finalists, seeds


def simulate(searches: int) -> dict[str, object]:
    """All cases; and, over searches whose settings really differ, how often a stated
    probability came true."""
    rng, found = np.random.default_rng(1), []
    for noise, trials, finalists, seeds in cases():
        alike = np.zeros(trials)
        other = alike.copy()
        other[1] = -GAIN * noise.of_a_run
        null = [draw(rng, noise, trials, finalists, seeds, alike) for _ in range(searches)]
        power = [draw(rng, noise, trials, finalists, seeds, other) for _ in range(searches // 10)]
        case = {"noise": noise.name, "trials": trials, "finalists": finalists, "seeds": seeds}
        case["false"] = float(np.mean([one.winner.significant for one in null]))
        case["sure"] = float(np.mean([one.winner.significant and one.best for one in power]))
        case["kept"] = float(np.mean([one.best for one in power]))
        found.append(case)
        print(case, file=sys.stderr, flush=True)
    return {
        "cases": found,
        "calibration": calibration(rng, searches),
        "noises": [asdict(noise) for noise in NOISES],
    }


def calibration(rng: np.random.Generator, searches: int) -> list[dict[str, float]]:
    """Settings whose true costs scatter as much as a run does: of the verdicts that named a probability
    in each bin, the mean of what was said and the share that was true. Where the plan's setting is kept,
    what was said of the nearest rival is not asked: it is not what was chosen."""
    said: list[float] = []
    true: list[bool] = []
    for _ in range(2 * searches):
        noise = NOISES[rng.integers(len(NOISES))]
        trials, finalists = SIZES[rng.integers(3)]
        truth = rng.normal(0.0, noise.of_a_run, trials)
        one = draw(rng, noise, trials, finalists, int(rng.integers(2, 4)), truth)
        if one.winner.id != "t0" and one.winner.gain is not None:
            said.append(one.winner.gain.probability)
            true.append(one.better)
    told, came = np.asarray(said), np.asarray(true)
    bins = zip((0.5, 0.75, 0.9, 0.975), (0.75, 0.9, 0.975, 1.01), strict=True)
    return [
        {
            "from": low,
            "searches": int(inside.sum()),
            "said": float(told[inside].mean()),
            "true": float(came[inside].mean()),
        }
        for low, high in bins
        if (inside := (told >= low) & (told < high)).any()
    ]


def report(result: dict[str, object]) -> str:
    """A line a case, and the bins."""
    lines = [
        "| noise | candidates | finalists x seeds | false, of 100 | kept and called sure | kept |",
        "|" + " --- |" * 6,
    ]
    for case in result["cases"]:  # type: ignore[attr-defined]
        lines.append(
            f"| {case['noise']} | {case['trials']} | {case['finalists']} x {case['seeds']} |"
            f" {100 * case['false']:.1f} | {case['sure']:.0%} | {case['kept']:.0%} |"
        )
    worst = max(case["false"] for case in result["cases"])  # type: ignore[attr-defined]
    lines += [
        "",
        f"most false ones: {100 * worst:.1f} of 100 (at most {100 * LIMIT:g})",
        "",
        "| said | true | searches |",
    ]
    lines.append("| --- | --- | --- |")
    for one in result["calibration"]:  # type: ignore[attr-defined]
        lines.append(f"| {one['said']:.0%} | {one['true']:.0%} | {one['searches']} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description="How often a verdict is wrong where all settings are alike."
    )
    parser.add_argument("--searches", type=int, default=SEARCHES, help="of each case")
    parser.add_argument("--show", action="store_true", help="print the committed result and run nothing")
    parser.add_argument("--out", type=Path, default=HERE / "verdicts.json")
    asked = parser.parse_args(arguments)
    if not asked.show:
        began = time.perf_counter()
        result = simulate(asked.searches) | {
            "searches": asked.searches,
            "seconds": round(time.perf_counter() - began, 1),
        }
        asked.out.write_text(
            json.dumps(result | {"command": "python benchmarks/search/verdicts.py"}, indent=1) + "\n"
        )
    print(report(json.loads(asked.out.read_text())))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
