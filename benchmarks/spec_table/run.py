"""What holds of a printed table of six configurations, on a sentiment task with five seeds?

    python benchmarks/spec_table/run.py            # about 25 minutes of one core; writes result.json
    python benchmarks/spec_table/run.py --show     # the tables of the committed result
    python benchmarks/spec_table/run.py --only tuned   # one of the parts: usual, tuned, alone
    python benchmarks/spec_table/run.py --rows quantised   # with the default; other lines stay
    python benchmarks/spec_table/run.py --data D   # where the data are, if not in ../shared

Two tables: every configuration at the usual rate, and at the best of three rates for
it. README.md says how to read them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configurations import (
    CONFIGURATIONS,
    DEFAULT,
    QUANTISED,
    RATES,
    SEEDS,
    TASK,
    TEST_ROWS,
    TRAIN_ROWS,
    USUAL_RATE,
    VALIDATION_ROWS,
    Configuration,
)
from trainings import Asked, Bench, Trained, tuned_rates

from loraloom.facts.device import environment
from loraloom.search.compare import CONFIDENCE, average, mean_cost, seeds_difference, standard_error

HERE = Path(__file__).resolve().parent
PACKED, ROUNDS = 8, 3
"""Candidates of a pack whose memory and seconds are measured, and how often."""
PARTS = ("usual", "tuned", "alone")
MEASURED = ("at_usual_rate", "rates_tried", "at_tuned_rate", "alone")


def line(name: str, trained: Sequence[Trained], default: Sequence[Trained]) -> dict[str, Any]:
    """One configuration: accuracy over its seeds, and what it has over the default,
    seed by seed and row by row."""
    scores, others = [one.test for one in trained], [one.test for one in default]
    accuracies = [1 - mean_cost(score) for score in scores]
    middle = sum(accuracies) / len(accuracies)
    over_seeds = (
        sum((value - middle) ** 2 for value in accuracies) / (len(accuracies) - 1) / len(accuracies)
    )
    found: dict[str, Any] = {
        "name": name,
        "rate": trained[0].asked.rate,
        "accuracies": accuracies,
        "accuracy": middle,
        "half_width": CONFIDENCE * math.hypot(standard_error(average(scores)), math.sqrt(over_seeds)),
        "loss": sum(one.test.metrics["loss"] for one in trained) / len(trained),
    }
    if name != DEFAULT:
        # Costs are error rates: what the default has more of is the gain.
        gap = seeds_difference(others, scores)
        found |= {"over_default": gap.mean, "over_default_half_width": CONFIDENCE * gap.se}
    return found


def table_of(trained: Sequence[Trained]) -> list[dict[str, Any]]:
    """All configurations of one table."""
    by_name: dict[str, list[Trained]] = {}
    for one in trained:
        by_name.setdefault(one.asked.configuration.name, []).append(one)
    return [line(name, own, by_name[DEFAULT]) for name, own in by_name.items()]


def at_usual_rate(
    bench: Bench, configurations: Sequence[Configuration] = CONFIGURATIONS
) -> dict[str, Any]:
    """The first table."""
    asked = [Asked(made, USUAL_RATE, seed) for seed in range(SEEDS) for made in configurations]
    return {"at_usual_rate": table_of(bench.train(asked))}


def at_tuned_rate(
    bench: Bench, configurations: Sequence[Configuration] = CONFIGURATIONS
) -> dict[str, Any]:
    """The second table: a rate for each configuration with the first seed, then all
    seeds at that rate."""
    tried = bench.train([Asked(made, rate, 0) for made in configurations for rate in RATES])
    rates = tuned_rates(tried)
    kept = [one for one in tried if one.asked.rate == rates[one.asked.configuration.name]]
    others = bench.train(
        [Asked(made, rates[made.name], seed) for seed in range(1, SEEDS) for made in configurations]
    )
    choice = [
        {
            "name": one.asked.configuration.name,
            "rate": one.asked.rate,
            "validation_accuracy": one.validation.metrics["accuracy"],
        }
        for one in tried
    ]
    return {"rates_tried": choice, "at_tuned_rate": table_of([*kept, *others])}


def each_alone(data: Path) -> dict[str, Any]:
    """Memory and seconds: each configuration by itself; the default and the quantised one also in a
    pack. Rounds take turns, so that what slows the machine slows all of them."""
    arms = [(made.name, 1) for made in CONFIGURATIONS] + [
        (name, PACKED) for name in (DEFAULT, QUANTISED)
    ]
    samples: dict[tuple[str, int], list[dict[str, Any]]] = {arm: [] for arm in arms}
    for number in range(ROUNDS):
        for arm in arms if number % 2 == 0 else arms[::-1]:
            samples[arm].append(alone(*arm, data))
    return {
        "alone": [
            {
                "name": name,
                **own[0],
                "peak_bytes": statistics.median(one["peak_bytes"] for one in own),
                "epoch_seconds": [one["epoch_seconds"] for one in own],
            }
            for (name, _), own in samples.items()
        ]
    }


def alone(name: str, packed: int, data: Path) -> dict[str, Any]:
    """Memory and seconds of one arm, in a process of its own."""
    words = ["--alone", name, str(packed), "--data", str(data)]
    command = [sys.executable, str(Path(__file__).resolve()), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} alone failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half an interval, of two standard errors."""
    return statistics.fmean(values), CONFIDENCE * statistics.stdev(values) / math.sqrt(len(values))


def quantised_over_default(result: dict[str, Any], packed: int) -> dict[str, float]:
    """What the quantised base takes as a share of what the default does: memory with the base and above
    it, and seconds, round by round."""
    by_name = {one["name"]: one for one in result["alone"] if one["packed"] == packed}
    ours, theirs = by_name[QUANTISED], by_name[DEFAULT]
    ratios = [a / b for a, b in zip(ours["epoch_seconds"], theirs["epoch_seconds"], strict=True)]
    seconds, half = interval(ratios)
    whole = [one["peak_bytes"] + one["base_bytes"] for one in (ours, theirs)]
    return {"memory": whole[0] / whole[1] - 1, "seconds": seconds - 1, "half_width": half}


def merged(before: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of configurations that were measured now, among those of others that were not."""
    new, order = {line["name"] for line in lines}, [made.name for made in CONFIGURATIONS]
    kept = [line for line in before if line["name"] not in new]
    return sorted([*kept, *lines], key=lambda line: order.index(line["name"]))


def described(found: Mapping[str, Any], cpu_seconds: float) -> dict[str, Any]:
    """What was measured, and where and how."""
    known = environment()
    return {
        "benchmark": "spec_table",
        "schema_version": 1,
        "command": "python benchmarks/spec_table/run.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu_seconds": round(cpu_seconds, 1),
        "environment": {
            key: known[key] for key in ("python", "platform", "packages", "device", "cores")
        },
        "rows": {"train": TRAIN_ROWS, "validation": VALIDATION_ROWS, "test": TEST_ROWS},
        "seeds": SEEDS,
        "settings": dict(TASK),
        **{key: found[key] for key in MEASURED if key in found},
    }


def report(result: dict[str, Any]) -> str:
    """Both tables beside the printed one, in Markdown."""
    claimed = {made.name: made.claimed for made in CONFIGURATIONS}
    lines: list[str] = []
    titles = {
        "at_usual_rate": f"At the usual rate, {USUAL_RATE:g}",
        "at_tuned_rate": "At a rate tuned for each",
    }
    for key, title in titles.items():
        if key not in result:
            continue
        lines += [
            f"{title}:",
            "",
            "| configuration | rate | accuracy | over the default | printed |",
            "|" + " --- |" * 5,
        ]
        for one in result[key]:
            gap = (
                ""
                if "over_default" not in one
                else _points(one["over_default"], one["over_default_half_width"], sign="+")
            )
            said = (
                f"{claimed[one['name']].accuracy:.1f}"
                f" ({claimed[one['name']].accuracy - claimed[DEFAULT].accuracy:+.1f})"
            )
            lines.append(
                f"| {one['name']} | {one['rate']:g} | {_points(one['accuracy'], one['half_width'])} |"
                f" {gap} | {said} |"
            )
        lines.append("")
    return "\n".join([*lines, *costs(result)])


def costs(result: dict[str, Any]) -> list[str]:
    """Lines on memory and seconds; none where they were not measured."""
    if "alone" not in result:
        return []
    claimed = {made.name: made.claimed for made in CONFIGURATIONS}
    lines = [
        "| configuration | at once | parameters | share | printed | base, MB | peak above it, MB |"
        " CPU seconds an epoch |",
        "|" + " --- |" * 8,
    ]
    for one in result["alone"]:
        seconds, half = interval(one["epoch_seconds"])
        cells = (
            one["name"],
            one["packed"],
            f"{one['parameters']:,}",
            f"{100 * one['share']:.2f}%",
            f"{claimed[one['name']].share:.2f}%",
            f"{one['base_bytes'] / 1e6:.1f}",
            f"{one['peak_bytes'] / 1e6:.1f}",
            f"{seconds:.1f} +- {half:.1f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines.append("")
    for packed in (1, PACKED):
        over = quantised_over_default(result, packed)
        lines.append(
            f"quantised over the default, {packed} at once: memory {over['memory']:+.0%}, seconds"
            f" {over['seconds']:+.0%} +- {over['half_width']:.0%}"
        )
    return lines


def _points(value: float, half: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} +- {100 * half:.1f}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="A printed table of configurations, with five seeds.")
    parser.add_argument(
        "--show", action="store_true", help="print the tables of a written result and run nothing"
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, help="make these parts of the result anew; the others stay"
    )
    parser.add_argument(
        "--alone", nargs=2, metavar=("NAME", "K"), help="K of one configuration; prints JSON"
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=[made.name for made in CONFIGURATIONS],
        help="train these and the default alone; lines of the others stay",
    )
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "result.json")
    asked = parser.parse_args(arguments)
    if asked.show and not asked.out.is_file():
        print(f"no result at {asked.out}\n  next: run without --show first", file=sys.stderr)
        return 2
    if asked.show:
        print(report(json.loads(asked.out.read_text())))
        return 0
    if not asked.data.is_dir():
        print(f"no data at {asked.data}\n  next: --data FOLDER", file=sys.stderr)
        return 2
    import torch

    torch.set_num_threads(1)
    began = time.process_time()
    with tempfile.TemporaryDirectory(prefix="spec-table-") as work:
        bench = Bench(asked.data, Path(work))
        if asked.alone:
            name, packed = asked.alone
            made = next(made for made in CONFIGURATIONS if made.name == name)
            print(json.dumps(asdict(bench.alone(made, USUAL_RATE, int(packed)))))
            return 0
        chosen = [
            made for made in CONFIGURATIONS if not asked.rows or made.name in (DEFAULT, *asked.rows)
        ]
        parts = {
            "usual": lambda: at_usual_rate(bench, chosen),
            "tuned": lambda: at_tuned_rate(bench, chosen),
            "alone": lambda: each_alone(asked.data),
        }
        partly = (asked.only or asked.rows) and asked.out.is_file()
        kept = json.loads(asked.out.read_text()) if partly else {}
        before = kept.get("cpu_seconds", 0)
        for name in asked.only or PARTS:
            for key, lines in parts[name]().items():
                kept[key] = merged(kept.get(key, []) if asked.rows else [], lines)
            # After each part, so that a later one that fails takes nothing along.
            result = described(kept, before + time.process_time() - began)
            asked.out.write_text(json.dumps(result, indent=1) + "\n")
            print(f"{name}: done", file=sys.stderr, flush=True)
    print(report(kept))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
