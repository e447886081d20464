"""How much loss does the learning rate of `plan` leave on the table, on a public sweep
of 18 language models?

For each model and rank the sweep has the test loss at three rates or more. A smooth curve through them
(over the logarithm of the rate) tells the loss at any rate between. The regret of a rule is its loss
above the curve's lowest point, in percent. Whatever is fitted here is fitted without the model that it
is scored on.

    python benchmarks/advice_rate/run.py [--evidence FILE] [--show]
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

from loraloom.plan.rules.rate import SWEEP_ALPHA, SWEEP_BATCH, clipped, swept_rate

HERE = Path(__file__).resolve().parent
EVIDENCE = HERE.parents[2] / "shared" / "evidence" / "sft_lr_sweep.csv"
RESULT = HERE / "result.json"
TARGETS = {"mean": 0.25, "p90": 0.8}
LEAST_RATES = 3
CONSTANTS = (4e-5, 5e-5, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4)
WIDTHS = {
    "Qwen/Qwen3-30B-A3B": 2048,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": 2048,
    "Qwen/Qwen3-32B": 5120,
    "Qwen/Qwen3-4B-Instruct-2507": 2560,
    "Qwen/Qwen3-8B-Base": 4096,
    "Qwen/Qwen3.5-35B-A3B": 2048,
    "Qwen/Qwen3.5-35B-A3B-Base": 2048,
    "Qwen/Qwen3.6-27B": 5120,
    "Qwen/Qwen3.6-35B-A3B": 2048,
    "meta-llama/Llama-3.1-8B": 4096,
    "meta-llama/Llama-3.2-3B": 3072,
    "meta-llama/Llama-3.3-70B-Instruct": 8192,
}
"""Hidden sizes of the families that Tinker's formula names."""
TINKER_POWERS = {"meta-llama": 0.781, "Qwen": 0.0775}
FIT_RATES = np.geomspace(5e-5, 1e-3, 61)
FIT_POWERS = np.linspace(0.0, 0.5, 21)
DRAWS = 2_000

Rate = Callable[["Cell"], float]


@dataclass(frozen=True)
class Cell:
    """One model at one rank: log rates, ascending, and the mean test loss at each, in nats a token."""

    model: str
    rank: int
    log_rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: bool = True
    """A cubic spline where true; else a curve that never leaves the range of neighbouring points."""

    @cached_property
    def curve(self) -> Callable[[Any], NDArray[np.float64]]:
        return (CubicSpline if self.smooth else PchipInterpolator)(self.log_rates, self.losses)

    @cached_property
    def lowest(self) -> float:
        return float(self.curve(np.linspace(self.log_rates[0], self.log_rates[-1], 2001)).min())

    @property
    def turns(self) -> bool:
        """Whether the lowest loss was measured between two rates, not at an end."""
        return 0 < int(np.argmin(self.losses)) < len(self.losses) - 1

    def regret(self, rates: Any) -> NDArray[np.float64]:
        """Percent of the lowest loss that each rate loses. Outside the measured rates
        the nearest counts."""
        inside = np.clip(np.log(rates), self.log_rates[0], self.log_rates[-1])
        return 100 * (self.curve(inside) - self.lowest) / self.lowest


def read_cells(path: Path) -> list[Cell]:
    """Cells of the sweep with rates enough for a curve; repeated rates are averaged."""
    measured: dict[tuple[str, int], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            measured[row["model"], int(row["rank"])][float(row["lr"])].append(float(row["test_nll"]))
    return [
        Cell(
            model,
            rank,
            tuple(map(math.log, sorted(found))),
            tuple(float(np.mean(found[rate])) for rate in sorted(found)),
        )
        for (model, rank), found in sorted(measured.items())
        if len(found) >= LEAST_RATES
    ]


def ours(cell: Cell) -> float:
    return clipped(swept_rate(cell.rank, SWEEP_ALPHA, SWEEP_BATCH))


def tinker(cell: Cell) -> float:
    """tinker-cookbook's `get_lr` for LoRA: 10 x 5e-5 x (2000 / width) ^ power."""
    return 10 * 5e-5 * (2000 / WIDTHS[cell.model]) ** TINKER_POWERS[cell.model.partition("/")[0]]


def left_out(cells: Sequence[Cell], powers: NDArray[np.float64]) -> Rate:
    """a r^p, with a and p chosen for the least mean regret on all models but the cell's own."""
    table = np.array(
        [
            [cell.regret(clip(FIT_RATES * (cell.rank / 16) ** power)) for power in powers]
            for cell in cells
        ]
    )  # cell x power x rate
    models = np.array([cell.model for cell in cells])

    def rate(cell: Cell) -> float:
        mean = table[models != cell.model].mean(axis=0)
        power, base = np.unravel_index(int(mean.argmin()), mean.shape)
        return float(clip(FIT_RATES[base] * (cell.rank / 16) ** powers[power]))

    return rate


def clip(rates: Any) -> Any:
    return np.clip(rates, clipped(0.0), clipped(1.0))


def summary(cells: Sequence[Cell], rate: Rate) -> dict[str, float]:
    regrets = [float(cell.regret(rate(cell))) for cell in cells]
    return {
        "mean": round(float(np.mean(regrets)), 3),
        "p90": round(float(np.quantile(regrets, 0.9)), 3),
        "max": round(max(regrets), 3),
        "cells": len(cells),
    }


def gain(cells: Sequence[Cell], rate: Rate, other: Rate) -> dict[str, float]:
    """Mean regret of `other` minus that of `rate`, with a 95% interval by drawing models anew."""
    by_model: dict[str, list[float]] = defaultdict(list)
    for cell in cells:
        by_model[cell.model].append(float(cell.regret(other(cell)) - cell.regret(rate(cell))))
    draw, models = random.Random(0), sorted(by_model)
    means = [
        np.mean([x for model in draw.choices(models, k=len(models)) for x in by_model[model]])
        for _ in range(DRAWS)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return {
        "mean": round(float(np.mean([x for one in by_model.values() for x in one])), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
    }


def rules(cells: Sequence[Cell]) -> dict[str, Rate]:
    """Every rule that can be asked for any cell."""
    return {
        "plan": ours,
        "plan's form, refitted without the model": left_out(cells, FIT_POWERS),
        "2.0e-4 r^0.257": lambda cell: 2.0e-4 * cell.rank**0.257,
        "best constant without the model": left_out(cells, np.zeros(1)),
        **{f"constant {rate:g}": lambda cell, rate=rate: rate for rate in CONSTANTS},
    }


def score(cells: Sequence[Cell]) -> dict[str, Any]:
    """Everything that the result holds but where and when it was made."""
    asked = rules(cells)
    named = [cell for cell in cells if cell.model in WIDTHS]
    plain = [Cell(cell.model, cell.rank, cell.log_rates, cell.losses, smooth=False) for cell in cells]
    turning = [cell for cell in cells if cell.turns]
    found = summary(cells, ours)
    return {
        "cells": len(cells),
        "models": len({cell.model for cell in cells}),
        "regret_percent": {name: summary(cells, rate) for name, rate in asked.items()},
        "families_that_tinker_names": {
            name: summary(named, rate) for name, rate in (("plan", ours), ("tinker", tinker))
        },
        "other_curve": {name: summary(plain, rate) for name, rate in rules(plain).items()},
        "only_cells_whose_minimum_was_bracketed": {
            name: summary(turning, rate) for name, rate in rules(turning).items()
        },
        "gain_of_plan": {
            **{
                name: gain(cells, ours, asked[name])
                for name in ("constant 0.0001", "constant 0.0002", "constant 0.0003")
            },
            "tinker": gain(named, ours, tinker),
        },
        "targets": {
            name: {"target": most, "reached": found[name], "met": found[name] <= most}
            for name, most in TARGETS.items()
        },
    }


def table(result: dict[str, Any]) -> str:
    """The result as people read it."""
    lines = [f"regret in % of the loss, {result['cells']} cells of {result['models']} models", ""]
    groups = {"": result["regret_percent"], "tinker's families: ": result["families_that_tinker_names"]}
    lines.append(f"{'rule':<45}{'mean':>7}{'p90':>7}{'max':>7}{'cells':>7}")
    for head, group in groups.items():
        for name, found in group.items():
            lines.append(
                f"{head + name:<45}{found['mean']:>7.2f}{found['p90']:>7.2f}{found['max']:>7.2f}"
                f"{found['cells']:>7}"
            )
    lines.append("")
    for name, found in result["gain_of_plan"].items():
        lines.append(
            f"plan beats {name} by {found['mean']:.2f} (95% interval {found['low']:.2f} to"
            f" {found['high']:.2f})"
        )
    for name, found in result["targets"].items():
        lines.append(
            f"target {name} <= {found['target']}: {found['reached']}"
            f" {'met' if found['met'] else 'MISSED'}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evidence", type=Path, default=EVIDENCE, help="sft_lr_sweep.csv")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the result goes")
    parser.add_argument("--show", action="store_true", help="print the committed result and leave")
    asked = parser.parse_args(arguments)
    if asked.show:
        print(table(json.loads(RESULT.read_text(encoding="utf-8"))))
        return 0
    if not asked.evidence.is_file():
        print(
            f"skipped: there is no {asked.evidence.name} (name it with --evidence FILE)", file=sys.stderr
        )
        return 0
    result = {
        "command": "python benchmarks/advice_rate/run.py",
        "date": time.strftime("%Y-%m-%d"),
        **score(read_cells(asked.evidence)),
    }
    asked.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
