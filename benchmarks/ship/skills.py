"""Two skills in one adapter: how much of each one's gain does every method of `adapter combine` keep?

Two adapters of one small base are trained on two tasks, with three seeds each. Every method combines
them, with its weights (and density) chosen on validation rows under the first seed's adapters; what is
kept is told on test rows that nothing was chosen on, with all seeds. The share of a gain that is kept:

    (loss of the bare base - of the combination) / (loss of the bare base - of the adapter alone)

    python benchmarks/ship/skills.py --work FOLDER [--shared FOLDER] [--quick] [--table]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from skill_scores import Choice, Scorer, Scores, Skills, choose, shares

from loraloom.adapters.form import Form, read_form

HERE = Path(__file__).resolve().parent
RESULT = HERE / "skills.json"
MODEL = "models/tinychat-5M"
SEEDS = (1, 2, 3)
STEPS, BATCH, RANK = 120, 8, 8
ROWS = {"train": 960, "validation": 60, "seen": 300, "test": 300}
"""`seen` were looked at while RegMean was written, and are test rows no more."""
READ = 200
"""Rows of each task that RegMean reads, of those that the adapter was trained on."""
KEPT = 0.95
"""What the best method has to keep of each gain."""
WAYS: Mapping[str, tuple[str, int | None]] = {
    "cat": ("cat", None),
    "linear": ("linear", None),
    "svd": ("svd", 2 * RANK),
    "svd, rank of one": ("svd", RANK),
    "ties": ("ties", 2 * RANK),
    "dare": ("dare", 2 * RANK),
    "knots": ("knots", 2 * RANK),
    "soup": ("soup", 2 * RANK),
    "regmean": ("regmean", None),
}
"""Method and rank of each line. cat has twice the rank of one adapter; so have the others, where they
can, that none is smaller than another."""

Row = dict[str, str]


def intents(data: Path) -> list[Row]:
    """Snips: which of seven things does somebody ask for."""
    rows = _read(data / "snips" / "train.jsonl")
    return [
        {"user": f"What does this ask for? {row['text']}", "assistant": row["label_text"]}
        for row in rows
    ]


def plays(data: Path) -> list[Row]:
    """Tiny Shakespeare: what the next person says."""
    text = (data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    speeches = text.split("\n\n")
    return [
        {"user": f"Go on with the play.\n{one}", "assistant": next_one}
        for one, next_one in pairwise(speeches)
        if "\n" in one and "\n" in next_one and len(one) < 160 and 40 < len(next_one) < 160
    ]


TASKS = {"intents": intents, "plays": plays}


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def split(rows: list[Row], counts: Mapping[str, int]) -> dict[str, list[Row]]:
    """Rows of each part, none of them in two."""
    different = list({row["user"]: row for row in rows}.values())
    random.Random(0).shuffle(different)
    found: dict[str, list[Row]] = {}
    start = 0
    for name, count in counts.items():
        found[name] = different[start : start + count]
        start += count
    return found


def train(model: Path, rows: Sequence[Row], work: Path, name: str, seed: int, steps: int) -> Form:
    """An adapter of the plan's own settings, trained by `loraloom train` unless it is there already."""
    run = work / "runs" / f"{name}-{seed}"
    if not (run / "best").is_dir():
        data = work / f"{name}.jsonl"
        messages = ([{"role": who, "content": text} for who, text in row.items()] for row in rows)
        data.write_text("".join(json.dumps({"messages": one}) + "\n" for one in messages), "utf-8")
        asked = {
            "model": model,
            "data": data,
            "validation": 0.02,
            "r": RANK,
            "max-steps": steps,
            "batch-size": BATCH,
            "seed": seed,
            "name": run.name,
            "output-dir": run.parent,
        }
        words = [word for key, value in asked.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "loraloom", "train", *words, "--quiet"]
        storage = f"sqlite:///{work / 'runs.db'}"
        subprocess.run(command, check=True, env={**os.environ, "LORALOOM_STORAGE": storage})
    return read_form(run / "best")


def measure(shared: Path, work: Path, counts: Mapping[str, int], steps: int) -> dict[str, Any]:
    """The whole experiment."""
    work.mkdir(parents=True, exist_ok=True)
    parts = {name: split(rows(shared / "data"), counts) for name, rows in TASKS.items()}
    scorer = Scorer(shared / MODEL)
    validation = {name: scorer.encoded(part["validation"]) for name, part in parts.items()}
    test = {name: scorer.encoded(part["test"]) for name, part in parts.items()}
    read = [scorer.encoded(part["train"][:READ]) for part in parts.values()]
    base = {"validation": scorer.scores(validation), "test": scorer.scores(test)}
    seeds: list[dict[str, Any]] = []
    chosen: dict[str, dict[str, Any]] = {}
    for seed in SEEDS:
        forms = [
            train(shared / MODEL, part["train"], work, name, seed, steps) for name, part in parts.items()
        ]
        alone = [scorer.scores(test, form) for form in forms]
        skills = Skills(scorer, forms, read)
        if not chosen:  # with the first seed's adapters, for those of all
            own = [scorer.scores(validation, form) for form in forms]
            aims = Choice(skills, validation, base["validation"], own)
            chosen = {name: choose(aims, *way) for name, way in WAYS.items()}
        found = {
            name: {
                "plain": scorer.scores(test, skills.combined(*way)),
                "tuned": scorer.scores(test, skills.combined(*way, **chosen[name])),
            }
            for name, way in WAYS.items()
        }
        seeds.append({"alone": alone, "ways": found})
    return summary(base["test"], seeds, chosen)


def summary(
    base: Scores, seeds: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """What is kept of each gain, over all seeds and test rows."""
    names = list(TASKS)
    own = [{name: one["alone"][i][name] for i, name in enumerate(names)} for one in seeds]
    crossed = [{name: one["alone"][1 - i][name] for i, name in enumerate(names)} for one in seeds]
    ways: dict[str, Any] = {}
    for way in WAYS:
        ways[way] = {
            kind: shares(base, own, [one["ways"][way][kind] for one in seeds])
            for kind in ("plain", "tuned")
        }
        ways[way]["chosen"] = chosen[way]
    about = {
        name: {
            "loss of the base": float(base[name].loss.mean()),
            "loss alone": float(np.mean([one[name].loss.mean() for one in own])),
            "right, base": float(base[name].right.mean()),
            "right, alone": float(np.mean([one[name].right.mean() for one in own])),
        }
        for name in names
    }
    return {
        "seeds": len(seeds),
        "tasks": about,
        "the other's adapter": shares(base, own, crossed),
        "ways": ways,
    }


def table(result: Mapping[str, Any]) -> str:
    """The section of the benchmark's page."""
    tasks = result["tasks"]
    lines = ["| task | loss of the base | of its adapter | answers right, base | its adapter |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, one in tasks.items():
        lines.append(
            f"| {name} | {one['loss of the base']:.2f} | {one['loss alone']:.2f}"
            f" | {one['right, base']:.0%} | {one['right, alone']:.0%} |"
        )
    heads = [f"{name}: {kind}" for name in tasks for kind in ("weights 1", "chosen")]
    lines += ["", f"| method | {' | '.join(heads)} | weights | met |", f"|{' --- |' * (len(heads) + 3)}"]
    for way, found in result["ways"].items():
        cells = [_interval(found[kind][name]) for name in tasks for kind in ("plain", "tuned")]
        met = all(found["tuned"][name]["share"] >= KEPT for name in tasks)
        lines.append(
            f"| {way} | {' | '.join(cells)} | {_chosen(found['chosen'])} | {'yes' if met else 'no'} |"
        )
    other = result["the other's adapter"]
    cells = [_interval(other[name]) + " | " for name in tasks]
    lines.append(f"| the other's adapter | {' | '.join(cells)} | | |")
    return "\n".join(lines) + "\n"


def _interval(found: Mapping[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['share']:.1%} ({low:.1%} to {high:.1%})"


def _chosen(found: Mapping[str, Any]) -> str:
    weights = ", ".join(f"{weight:g}" for weight in found["weights"])
    return weights + (f" at {found['density']:g}" if "density" in found else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="where runs are kept, and found again")
    parser.add_argument("--shared", type=Path, default=HERE.parents[2] / "shared")
    parser.add_argument("--quick", action="store_true", help="seconds; its numbers mean nothing")
    parser.add_argument("--table", action="store_true", help="only the table, from skills.json")
    asked = parser.parse_args()
    if not asked.table:
        quick = asked.quick
        counts = dict.fromkeys(ROWS, 8) if quick else ROWS
        result = measure(asked.shared, asked.work.resolve(), counts, 3 if quick else STEPS)
        if quick:
            print(table(result))
            return
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(json.loads(RESULT.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
