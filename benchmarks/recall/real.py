"""Real data: edits of real facts, facts of real countries, and corrections of what was learnt.

    python benchmarks/recall/real.py                         # all parts: 30 minutes of one core
    python benchmarks/recall/real.py --only updates          # some parts, by name
    python benchmarks/recall/real.py --edits 20 --out x.json # small: 5 minutes
    python benchmarks/recall/real.py --show                  # the tables of the committed result

Every part is written, learnt and settled by what is behind `loraloom recall write`, `learn`, `sleep`,
with one candidate of a wake instead of two, and asked after the last wake and after the sleep. An answer
is right where every token of it and its end are the model's first choice; neighbours are written freely
and compared as a whole. A part is kept in real.json when it ends, and is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from real_data import Part, counterfacts, countries, updates

from loraloom.pipeline.recall.bench import CURRENT, MemoryBench
from loraloom.pipeline.recall.learning import learn
from loraloom.pipeline.recall.sleeping import sleep
from loraloom.pipeline.recall.writing import write
from loraloom.recall.forms import NOT_KNOWN, Form
from loraloom.recall.memory import opened
from loraloom.recall.recipe import RECIPE, Recipe
from loraloom.recall.router import Router

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LORALOOM_SHARED") or HERE.parents[2] / "shared")
RESULT = HERE / "real.json"
SEED = 0
EDITS, COUNTRIES, CORRECTED = 100, 50, 20
CANDIDATES = 1


def quiet(sentence: str) -> None:
    """Nobody watches."""


def parts_of(edits: int) -> dict[str, tuple[Callable[[], Part], Recipe]]:
    """What there is to run, by name."""
    facts = SHARED / "data" / "pararel" / "counterfacts.jsonl"
    world = SHARED / "data" / "countries" / "countries.jsonl"
    unheld = replace(RECIPE, neighbours=0)
    return {
        "counterfacts, one form": (
            lambda: counterfacts(facts, edits, SEED, some_forms=False),
            RECIPE,
        ),
        "counterfacts, some forms": (
            lambda: counterfacts(facts, edits, SEED, some_forms=True),
            RECIPE,
        ),
        "counterfacts, one form, no neighbours trained": (
            lambda: counterfacts(facts, edits, SEED, some_forms=False),
            unheld,
        ),
        "countries": (lambda: countries(world, COUNTRIES, SEED), RECIPE),
        "updates": (lambda: updates(CORRECTED, SEED), RECIPE),
    }


def run(part: Part, recipe: Recipe) -> dict[str, Any]:
    """Write, learn, sleep, and ask."""
    start = time.process_time()
    refused: list[str] = []
    stages: dict[str, Any] = {}
    asking = 0.0
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "memory"
        steps = 0
        for rows in part.sessions:
            _, decisions = write(folder, str(SHARED / "models" / "tinychat-5M"), [], rows, quiet)
            refused += [one.item.question for one in decisions if one.outcome == "skip"]
            steps += learn(folder, quiet, seeds=CANDIDATES, recipe=recipe).record["steps"]
        for stage in ("after learn", "after sleep"):
            if stage == "after sleep":
                slept = sleep(folder, quiet, recipe=recipe)
                assert slept is not None
                steps += slept.record["steps"]
                stages["committed"] = slept.record["committed"]
            before = time.process_time()
            stages[stage] = measured(folder, part)
            asking += time.process_time() - before
    return {
        "items": sum(map(len, part.sessions)),
        "refused": refused,
        "steps": steps,
        "core_seconds": time.process_time() - start - asking,
        "core_seconds_asking": asking,
        "digest": part.digest,
        "recipe": asdict(recipe),
        "machine": platform.processor() or platform.machine(),
        **stages,
    }


def measured(folder: Path, part: Part) -> dict[str, Any]:
    """Shares of what is answered, and of neighbours that are as they were."""
    with opened(folder) as memory:
        forms = [Form("", one.question, one.answer) for one in part.asked]
        bench = MemoryBench(memory, forms, quiet)
        rows = bench.rows(forms)
        answers = {entry.item.answer for entry in memory.state.kept}
        bare = bench.sums(rows, [])[""]
        with bench.seated({CURRENT: bench.total}) as (trial,):
            sums = bench.sums(rows, [trial])[trial]
            was = bench.answers(part.neighbours, None)
            now = bench.answers(part.neighbours, trial)
        router = Router.of(memory.state)
    by_memory, by_base = sums.correct == sums.weight, bare.correct == bare.weight
    ours = np.array([router.route(one.question).remembered for one in part.asked])
    groups: dict[str, Any] = {}
    for group in dict.fromkeys(one.group for one in part.asked):
        of = np.array([one.group == group for one in part.asked])
        groups[group] = {
            "asked": int(of.sum()),
            "base": float(by_base[of].mean()),
            "memory": float(by_memory[of].mean()),
            "routed": float(np.where(ours, by_memory, by_base)[of].mean()),
        }
    found: dict[str, Any] = {"groups": groups}
    if part.neighbours:
        ours = [router.route(question).remembered for question in part.neighbours]
        routed = [text if mine else base for mine, text, base in zip(ours, now, was, strict=True)]
        found["neighbours"] = {
            "asked": len(was),
            "memory": compared(was, now, answers),
            "routed": compared(was, routed, answers),
            "examples": list(zip(part.neighbours[:8], was, now, strict=False)),
        }
    return found


def compared(was: Sequence[str], now: Sequence[str], answers: set[str]) -> dict[str, float]:
    """Shares of answers that are what the bare base wrote, begin so, or are of the memory."""
    stored = {_bare(one) for one in answers}
    return {
        "unchanged": _share([one == other for one, other in zip(was, now, strict=True)]),
        "two words": _share(
            [one.split()[:2] == other.split()[:2] for one, other in zip(was, now, strict=True)]
        ),
        "a stored answer": _share([_bare(one) in stored for one in now]),
        "not known": _share([_bare(one) == _bare(NOT_KNOWN) for one in now]),
    }


def _share(values: Sequence[Any]) -> float:
    return float(np.mean([bool(one) for one in values]))


def _bare(text: str) -> str:
    return text.strip(" .").casefold()


def shown(parts: dict[str, Any]) -> str:
    """A table for each part."""
    head = "| | questions | bare base | learnt | settled | settled, with the router |"
    lines: list[str] = []
    for name, one in parts.items():
        learnt, slept = one["after learn"], one["after sleep"]
        lines += [
            f"{name}: {one['items']} items, {len(one['refused'])} refused, {one['steps']} steps,"
            f" {one['core_seconds']:.0f} core-seconds",
            "",
            head,
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for group, of in slept["groups"].items():
            shares = (of["base"], learnt["groups"][group]["memory"], of["memory"], of["routed"])
            cells = " | ".join(f"{share:.3f}" for share in shares)
            lines.append(f"| {group} | {of['asked']} | {cells} |")
        if "neighbours" in slept:
            of = slept["neighbours"]
            for key in of["memory"]:
                by = (learnt["neighbours"]["memory"], of["memory"], of["routed"])
                cells = " | ".join(f"{shares[key]:.3f}" for shares in by)
                lines.append(f"| neighbours: {key} | {of['asked']} | – | {cells} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and show everything."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", help="parts, by name")
    parser.add_argument("--edits", type=int, default=EDITS)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    done = json.loads(given.out.read_text()) if given.out.is_file() else {}
    for name, (made, recipe) in {} if given.show else parts_of(given.edits).items():
        if name in (given.only or [name]) and name not in done:
            print(f"{name} ...", flush=True)
            done[name] = run(made(), recipe)
            given.out.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n")
    print(shown(done))


if __name__ == "__main__":
    main()
