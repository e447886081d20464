"""What holds of a printed table of six configurations, on a sentiment task with five seeds?

    python benchmarks/spec_table/run.py            # about 15 minutes of one core; writes result.json
    python benchmarks/spec_table/run.py --show     # the tables of the committed result
    python benchmarks/spec_table/run.py --only tuned   # one of the parts: usual, tuned, alone
    python benchmarks/spec_table/run.py --data D   # where the data are, if not in ../shared

Two tables: every configuration at the usual rate, and at the best of three rates for
it. README.md says how to read them.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configurations import (
    CONFIGURATIONS,
    DEFAULT,
    LEFT_OUT,
    RATES,
    SEEDS,
    TASK,
    TEST_ROWS,
    TRAIN_ROWS,
    USUAL_RATE,
    VALIDATION_ROWS,
)
from trainings import Asked, Bench, Trained, tuned_rates

from loraloom.facts.device import environment
from loraloom.search.compare import CONFIDENCE, average, mean_cost, seeds_difference, standard_error

HERE = Path(__file__).resolve().parent
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
    by_name = {
        made.name: [one for one in trained if one.asked.configuration.name == made.name]
        for made in CONFIGURATIONS
    }
    return [line(name, own, by_name[DEFAULT]) for name, own in by_name.items()]


def at_usual_rate(bench: Bench) -> dict[str, Any]:
    """The first table."""
    return {
        "at_usual_rate": table_of(
            bench.train(
                [Asked(made, USUAL_RATE, seed) for seed in range(SEEDS) for made in CONFIGURATIONS]
            )
        )
    }


def at_tuned_rate(bench: Bench) -> dict[str, Any]:
    """The second table: a rate for each configuration with the first seed, then all
    seeds at that rate."""
    tried = bench.train([Asked(made, rate, 0) for made in CONFIGURATIONS for rate in RATES])
    rates = tuned_rates(tried)
    kept = [one for one in tried if one.asked.rate == rates[one.asked.configuration.name]]
    others = bench.train(
        [Asked(made, rates[made.name], seed) for seed in range(1, SEEDS) for made in CONFIGURATIONS]
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
    """Memory and seconds."""
    return {"alone": {made.name: alone(made.name, data) for made in CONFIGURATIONS}}


def alone(name: str, data: Path) -> dict[str, Any]:
    """Memory and seconds of one configuration, in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--alone", name, "--data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} alone failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


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
    lines += [
        (
            "| configuration | parameters | share | printed | peak above base, MB | CPU seconds an"
            " epoch |"
        ),
        "|" + " --- |" * 6,
    ]
    for name, one in result.get("alone", {}).items():
        share = f"{100 * one['share']:.2f}% | {claimed[name].share:.2f}%"
        lines.append(
            f"| {name} | {one['parameters']:,} | {share} | {one['peak_bytes'] / 1e6:.1f} |"
            f" {one['epoch_seconds']:.1f} |"
        )
    return "\n".join(
        [*lines, "", *(f"{name}: not run; {why}" for name, why in result["left_out"].items())]
    )


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
        "--alone", choices=[made.name for made in CONFIGURATIONS], help="one solo run; prints JSON"
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
            print(
                json.dumps(
                    asdict(
                        bench.alone(
                            next(made for made in CONFIGURATIONS if made.name == asked.alone),
                            USUAL_RATE,
                        )
                    )
                )
            )
            return 0
        parts = {
            "usual": lambda: at_usual_rate(bench),
            "tuned": lambda: at_tuned_rate(bench),
            "alone": lambda: each_alone(asked.data),
        }
        kept = json.loads(asked.out.read_text()) if asked.only and asked.out.is_file() else {}
        for name in asked.only or PARTS:
            kept |= parts[name]()
            print(f"{name}: done", file=sys.stderr, flush=True)
    known = environment()
    result = {
        "benchmark": "spec_table",
        "schema_version": 1,
        "command": "python benchmarks/spec_table/run.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu_seconds": round(kept.get("cpu_seconds", 0) + time.process_time() - began, 1),
        "environment": {
            key: known[key] for key in ("python", "platform", "packages", "device", "cores")
        },
        "rows": {"train": TRAIN_ROWS, "validation": VALIDATION_ROWS, "test": TEST_ROWS},
        "seeds": SEEDS,
        "settings": dict(TASK),
        "left_out": LEFT_OUT,
        **{key: value for key, value in kept.items() if key in MEASURED},
    }
    print(report(result))
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
