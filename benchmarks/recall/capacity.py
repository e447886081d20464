"""How many things an adapter of a rank holds: so many items written once, four ranks in one pack.

    python benchmarks/recall/capacity.py                    # 50, 100, 200 items: 15 minutes of one core
    python benchmarks/recall/capacity.py --items 500 1000   # two hours of one core
    python benchmarks/recall/capacity.py --ranks 16 32 --items 1000

Items are those of `recall.workload`, of one seed. They are learnt in one wake of the steps that the
recipe gives, all forms drawn in turn, without a sleep; the four ranks see the same rows in the same
order. Each number of items is a course of its own, whose cells stand in capacity.json when it ends; a
run that was ended goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from loraloom.pipeline.recall.anchors import Anchors, anchors_of
from loraloom.pipeline.recall.bench import MemoryBench
from loraloom.pipeline.recall.course import Course, Start
from loraloom.pipeline.recall.exam import Exam
from loraloom.pipeline.recall.material import material_of
from loraloom.pipeline.recall.writing import write
from loraloom.recall.forms import Form, held_out_forms, trained_forms
from loraloom.recall.items import MemoryItem
from loraloom.recall.memory import opened
from loraloom.recall.mix import steps_for, wake_mix
from loraloom.recall.recipe import RECIPE
from loraloom.recall.workload import workload

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LORALOOM_SHARED") or HERE.parents[2] / "shared")
RESULT = HERE / "capacity.json"
ITEMS = (50, 100, 200)
RANKS = (4, 8, 16, 32)
SEED = 0
MEASURED = 200
"""Items whose near wordings are asked, spread over all: enough for two points."""


def watched(sentence: str) -> None:
    """Told of what is being done."""
    print(f"  {sentence}", flush=True)


def cells_of(items: int, ranks: Sequence[int]) -> list[dict[str, Any]]:
    """One course: a cell for each rank."""
    shared, found = learnt(SEED, items, {f"r {rank}": (rank, 1.0) for rank in ranks})
    shared |= {"recipe": asdict(RECIPE), "machine": platform.processor() or platform.machine()}
    return [{"rank": rank, **shared, **one} for rank, one in zip(ranks, found, strict=True)]


def learnt(
    seed: int,
    items: int,
    asked: Mapping[str, tuple[int, float]],
    bench_of: type[MemoryBench] = MemoryBench,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One wake over so many items, of candidates that see the same rows in the same order.

    Args:
        seed: of the items, of the candidates and of the order.
        asked: of each candidate, by its name, the rank and what the recipe's rate is multiplied by.

    Returns:
        What all have in common, and what each has learnt.
    """
    made = workload(seed, sessions=1, items=items)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "memory"
        write(place, str(SHARED / "models" / "tinychat-5M"), [], made.sessions[0], watched)
        with opened(place) as memory:
            entries = memory.state.kept
            forms = [form for entry in entries for form in trained_forms(entry.item, RECIPE.forms)]
            bench = bench_of(memory, forms, watched)
            anchors = anchors_of(bench)
            mix = wake_mix(RECIPE, has_old=False)
            material = material_of(bench, entries, anchors, mix, RECIPE)
            steps = steps_for(RECIPE, len(forms), mix.new, RECIPE.wake.passes)
            starts = [
                Start(
                    name,
                    None,
                    rank,
                    material.order(mix, entries, [], {}, seed),
                    rate=RECIPE.rate * rate,
                    seed=seed,
                )
                for name, (rank, rate) in asked.items()
            ]
            course = Course(bench, bench.planned(material.rows, steps), material.rows, starts)
            start = time.process_time()
            course.run(doing=f"learning {len(entries)} items")
            shared = {
                "items": len(entries),
                "steps": steps,
                "core_seconds": (time.process_time() - start) / len(asked),
                "digest": made.digest,
            }
            found = measured(bench, course, [entry.item for entry in entries], anchors)
            course.end()
    return shared, found


def measured(
    bench: MemoryBench, course: Course, items: Sequence[MemoryItem], anchors: Anchors
) -> list[dict[str, Any]]:
    """What each candidate answers, and what that holds: an answer has so many bits as the bare base
    needs for it."""
    written = bench.rows([Form(item.id, item.question, item.answer) for item in items])
    spread = items[:: max(1, len(items) // MEASURED)]
    forms = [form for item in spread for form in held_out_forms(item) if form.distance == "near"]
    bits = bench.sums(written, [])[""].loss / math.log(2)
    as_written, near = (bench.sums(rows, course.names) for rows in (written, bench.rows(forms)))
    exam = Exam(bench, spread, anchors)
    (bare,), results = exam.taken_by([]), exam.taken_by(course.names)
    cells: list[dict[str, Any]] = []
    for name, one in zip(course.names, results, strict=True):
        right = as_written[name].correct == as_written[name].weight
        numbers = sum(a.numel() + b.numel() for a, b in course.update(name).factors.values())
        cells.append(
            {
                "numbers": numbers,
                "verbatim": float(right.mean()),
                "near": float(np.mean(near[name].correct == near[name].weight)),
                "not_known": one.result.not_known,
                "perplexity": one.result.perplexity,
                "perplexity_base": bare.result.perplexity,
                "base_known": one.result.known,
                "bits": float(bits[right].sum()),
                "bits_a_number": float(bits[right].sum()) / numbers,
            }
        )
    return cells


def shown(cells: Sequence[dict[str, Any]]) -> str:
    """The table of all cells."""
    columns = {
        "items": "d",
        "rank": "d",
        "verbatim": ".3f",
        "near": ".3f",
        "not_known": ".3f",
        "perplexity": ".2f",
        "perplexity_base": ".2f",
        "base_known": ".3f",
        "bits_a_number": ".4f",
        "core_seconds": ".0f",
    }
    lines = [f"| {' | '.join(columns).replace('_', ' ')} |", "|" + " ---: |" * len(columns)]
    for one in sorted(cells, key=lambda cell: (cell["items"], cell["rank"])):
        lines.append(f"| {' | '.join(format(one[key], how) for key, how in columns.items())} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and show everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=ITEMS)
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    cells = json.loads(given.out.read_text()) if given.out.is_file() else []
    for items in given.items:
        missing = [
            rank
            for rank in given.ranks
            if not any((one["items"], one["rank"]) == (items, rank) for one in cells)
        ]
        if missing:
            cells += cells_of(items, missing)
            given.out.write_text(json.dumps(cells, indent=1) + "\n")
    print(shown(cells))


if __name__ == "__main__":
    main()
