"""What the preset for events stands on: seven settings of a memory learn the same things in one pack.

    python benchmarks/recall/settings.py             # 10 minutes of one core; writes settings.json
    python benchmarks/recall/settings.py --seeds 0   # one of two; those of others stay
    python benchmarks/recall/settings.py --show      # the table of the committed result

Each setting is the preset's with one value changed. All see the same rows in the same order: twenty
items of `recall.workload`, one wake of the steps that the recipe gives, no sleep.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from capacity import learnt

from loraloom.pipeline.recall.bench import SCALE, MemoryBench
from loraloom.plan.planner import Plan
from loraloom.records import Candidate

RESULT = Path(__file__).resolve().parent / "settings.json"
ITEMS, SEEDS = 20, (0, 1)
SHOWN = ("verbatim", "near", "not_known", "base_known")


@dataclass(frozen=True)
class Setting:
    """Values of one candidate.

    Attributes:
        scale: alpha over rank.
        rate: what the preset's rate is multiplied by.
    """

    rank: int = 16
    scale: float = SCALE
    rate: float = 1.0
    dropout: float = 0.0


SETTINGS = {
    "the preset: r 16, alpha 32, no dropout": Setting(),
    "r 8, alpha 16": Setting(rank=8),
    "r 32, alpha 64": Setting(rank=32),
    "alpha 16": Setting(scale=1),
    "a third of the rate": Setting(rate=1 / 3),
    "twice the rate": Setting(rate=2),
    "dropout .1": Setting(dropout=0.1),
}


class Bench(MemoryBench):
    """A bench whose candidates are called after their setting."""

    def candidate(self, plan: Plan, trial: str, **more: Any) -> Candidate:
        made = super().candidate(plan, trial, **more)
        asked = SETTINGS.get(trial)
        if asked is None:
            return made
        shape = replace(made.adapter, lora_alpha=asked.scale * asked.rank, lora_dropout=asked.dropout)
        return replace(made, adapter=shape)


def cells_of(seed: int) -> dict[str, dict[str, Any]]:
    """What each setting learns, by its name."""
    asked = {name: (one.rank, one.rate) for name, one in SETTINGS.items()}
    shared, found = learnt(seed, ITEMS, asked, Bench)
    return {
        name: {**asdict(SETTINGS[name]), **shared, **one}
        for name, one in zip(SETTINGS, found, strict=True)
    }


def shown(seeds: dict[str, dict[str, Any]]) -> str:
    """The table: means over the seeds."""
    lines = [
        f"| | {' | '.join(SHOWN).replace('_', ' ')} | perplexity |",
        "| --- |" + " ---: |" * (len(SHOWN) + 1),
    ]
    for name in SETTINGS:
        cells = [cells[name] for cells in seeds.values() if name in cells]
        values = [f"{np.mean([cell[key] for cell in cells]):.2f}" for key in SHOWN]
        moved = np.mean([cell["perplexity"] / cell["perplexity_base"] - 1 for cell in cells])
        lines.append(f"| {name} | {' | '.join(values)} | {moved:+.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and show everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--show", action="store_true", help="only the table of --out")
    given = parser.parse_args()
    found: dict[str, Any] = json.loads(given.out.read_text()) if given.out.is_file() else {}
    missing: Sequence[int] = [] if given.show else [s for s in given.seeds if str(s) not in found]
    for seed in missing:
        found[str(seed)] = cells_of(seed)
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(shown(found))


if __name__ == "__main__":
    main()
