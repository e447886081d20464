"""A small graph of lands and kings: what is answered of it forwards, backwards and in two hops.

    python benchmarks/recall/relational.py               # 15 minutes of one core; writes relational.json
    python benchmarks/recall/relational.py --seeds 0     # one of three; those of others stay
    python benchmarks/recall/relational.py --show        # the table of the committed result

Facts are written and learnt; a sleep works out what follows from them and trains it; some facts are
corrected, and a second sleep carries that through. A question counts as right where every token of its
answer, and its end, is the model's first choice: what is written freely. Near, far and "by hand"
wordings are never trained. README.md says what is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from base_tasks import base_tasks

from loraloom.pipeline.recall.bench import CURRENT, MemoryBench
from loraloom.pipeline.recall.learning import learn
from loraloom.pipeline.recall.questionnaire import Questionnaire
from loraloom.pipeline.recall.sleeping import sleep
from loraloom.pipeline.recall.writing import write
from loraloom.recall.derived import derived_forms
from loraloom.recall.forms import Form, held_out_forms, invented_name, names_of
from loraloom.recall.graph import FAST, tracks
from loraloom.recall.memory import Memory, opened
from loraloom.recall.recipe import RECIPE, Recipe
from loraloom.recall.workload_words import COLOURS, FIRST, LAST, MIDDLE, RELATIONS

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LORALOOM_SHARED") or HERE.parents[2] / "shared")
RESULT = HERE / "relational.json"
SEEDS = (0, 1, 2)
LANDS = 8
SIGNS = ("star", "lion", "moon", "tree", "wheel", "rose", "fish", "crown")
ANIMALS = ("goat", "parrot", "rabbit", "turtle", "pony", "duck", "mouse", "owl")
BY_HAND = {relation.name: relation.far for relation in RELATIONS} | {
    "king": ("Who rules {s}?", "Who sits on the throne of {s}?")
}
THRESHOLDS = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75)
UNSEEN = 40
"""Questions of a kind about names that nobody wrote."""
Row = Mapping[str, str]


@dataclass(frozen=True)
class Graph:
    """What is written, as rows of `recall write`.

    Attributes:
        facts: at first, `slips` of a wrong kind beside them.
        corrections: later; they replace some facts.
    """

    seed: int
    facts: tuple[Row, ...]
    slips: tuple[Row, ...]
    corrections: tuple[Row, ...]

    @property
    def digest(self) -> str:
        """sha256 of it as JSON with sorted keys and no white space."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def graph_of(seed: int) -> Graph:
    """Eight lands with a capital, a flag and a king; each king with a pet and a home town, which two
    kings share each. The slips give a king a capital, a land a pet, a town a king."""
    rng = random.Random(seed)
    taken: set[str] = set()

    def name(kind: str) -> str:
        while True:
            made = "".join(rng.choice(part) for part in (FIRST[kind], MIDDLE, LAST[kind]))
            if made not in taken:
                taken.add(made)
                return made

    flags = rng.sample([f"a {colour} {sign}" for colour in COLOURS for sign in SIGNS], LANDS)
    pets = rng.sample([f"a {colour} {animal}" for colour in COLOURS for animal in ANIMALS], LANDS + 2)
    homes = [name("town") for _ in range(LANDS // 2)]
    lands, kings, capitals = (
        [name(kind) for _ in range(LANDS)] for kind in ("country", "person", "town")
    )
    facts: list[Row] = []
    for number, (land, king) in enumerate(zip(lands, kings, strict=True)):
        facts += [
            _fact(land, "capital", capitals[number]),
            _fact(land, "flag", flags[number]),
            _fact(land, "king", king),
            _fact(king, "pet", pets[number]),
            _fact(king, "home town", homes[number // 2]),
        ]
    slips = (
        _fact(kings[6], "capital", name("town")),
        _fact(lands[6], "pet", pets[LANDS]),
        _fact(capitals[7], "king", name("person")),
    )
    corrections = (
        _fact(lands[0], "king", kings[3]),
        _fact(lands[1], "capital", name("town")),
        _fact(lands[2], "capital", name("town")),
        _fact(kings[4], "pet", pets[LANDS + 1]),
        _fact(kings[5], "home town", name("town")),
    )
    return Graph(seed, tuple(facts), slips, corrections)


def _fact(subject: str, relation: str, said: str) -> Row:
    return {"kind": "fact", "subject": subject, "relation": relation, "object": said}


def questions_of(memory: Memory) -> dict[str, list[Form]]:
    """What a memory is asked, by what it is and how."""
    entries = memory.state.kept
    asked: dict[str, list[Form]] = {}
    for entry in entries:
        item = entry.item
        asked.setdefault("one hop, as written", []).append(Form(item.id, item.question, item.answer))
        for form in held_out_forms(item):
            asked.setdefault(f"one hop, {form.distance}", []).append(form)
        asked.setdefault("one hop, by hand", []).extend(
            Form(item.id, text.format(s=item.slots["subject"]), item.answer)
            for text in BY_HAND[item.slots["relation"]]
        )
    words = {"inverse": "inverse", "two_hop": "two hops"}
    for form in derived_forms(entries):
        asked.setdefault(f"{words[str(form.kind)]}, as trained", []).append(form)
    for form in derived_forms(entries, held_out=True):
        asked.setdefault(f"{words[str(form.kind)]}, {form.distance}", []).append(form)
    return asked


def through_corrections(memory: Memory) -> dict[str, list[Form]]:
    """Of corrected facts: the new answer, the old one, and what follows from the new one."""
    entries = memory.state.entries
    fixed = [entry for entry in memory.state.kept if entry.item.supersedes]
    new = {entry.id for entry in fixed}
    old: list[Form] = []
    for entry in fixed:
        was = entries[str(entry.item.supersedes)].item.answer
        forms = [Form("", entry.item.question, ""), *held_out_forms(entry.item)]
        old += [replace(form, answer=was) for form in forms]
    follow = [*derived_forms(memory.state.kept), *derived_forms(memory.state.kept, held_out=True)]
    return {
        "corrected, new": [
            form
            for entry in fixed
            for form in (
                Form(entry.id, entry.item.question, entry.item.answer),
                *held_out_forms(entry.item),
            )
        ],
        "corrected, old": old,
        "corrected, two hops": [form for form in follow if form.kind == "two_hop" and new & {*form.of}],
        "corrected, inverse": [form for form in follow if form.kind == "inverse" and new & {*form.of}],
    }


class Measuring:
    """Puts questions to what a memory has learnt, beside what its base should still do."""

    def __init__(self, folder: Path) -> None:
        with opened(folder) as memory:
            forms = [Form("", entry.item.question, entry.item.answer) for entry in memory.state.kept]
            self.bench = MemoryBench(memory, forms, quiet)
        self.tasks = base_tasks(self.bench, SHARED)

    def of(self, folder: Path) -> dict[str, Any]:
        """Everything of a memory, each share with its number of questions."""
        with opened(folder) as memory:
            asked = questions_of(memory) | through_corrections(memory)
            total = MemoryBench(memory, asked["one hop, as written"], quiet).total
            items = [entry.item for entry in memory.state.kept]
        with self.bench.seated({CURRENT: total}) as trials:
            shares = {
                name: {"share": self._share(forms, trials), "questions": len(forms)}
                for name, forms in asked.items()
                if forms
            }
            stored = {item.answer for item in items} | {item.slots["subject"] for item in items}
            put = Questionnaire(self.bench, [], sorted(stored))
            unseen = {
                kind: self._stored(put, questions, stored, trials)
                for kind, questions in unseen_of(asked, items).items()
            }
        base = self.tasks.measured(self.bench, total)
        return {"right": shares, "unseen": unseen, "base": base}

    def _share(self, forms: Sequence[Form], trials: Sequence[str]) -> float:
        (sums,) = self.bench.sums(self.bench.rows(forms), trials).values()
        return float((sums.correct == sums.weight).mean())

    @staticmethod
    def _stored(
        put: Questionnaire, questions: Sequence[str], stored: set[str], trials: Sequence[str]
    ) -> float:
        return float(np.mean([text in stored for text in put.written(questions, trials)]))


def unseen_of(asked: Mapping[str, Sequence[Form]], items: Sequence[Any]) -> dict[str, list[str]]:
    """Questions forwards and backwards about names that nobody wrote."""
    rng = random.Random(0)
    subjects = sorted({item.slots["subject"] for item in items})
    answers = sorted({item.answer for item in items if item.answer[:1].isupper()}, key=len)[::-1]
    found: dict[str, list[str]] = {}
    for kind, names in (("one hop", subjects), ("inverse", answers)):
        forms = [form for way in ("near", "far") for form in asked.get(f"{kind}, {way}", ())]
        rng.shuffle(forms)
        for form in forms:
            name = next((name for name in names if name in form.question), None)
            if name is not None and len(found.setdefault(kind, [])) < UNSEEN:
                other = invented_name(rng, names_of(items))
                found[kind].append(form.question.replace(name, other))
    return found


def tracked(memory: Memory, slips: int) -> dict[str, Any]:
    """Which share of what fits and of slips is built upon, at this threshold and at others."""
    found = tracks(memory.state.kept)
    items = {entry.id: entry.item for entry in memory.state.kept}
    names = list(items)
    wrong = set(names[LANDS * 5 : LANDS * 5 + slips])
    right = [found[name] for name in names if name not in wrong]
    slipped = [found[name] for name in names if name in wrong]
    return {
        "threshold": FAST,
        "by_threshold": {
            str(limit): {
                "fitting": float(np.mean([one.score >= limit for one in right])),
                "slips": float(np.mean([one.score >= limit for one in slipped])),
            }
            for limit in THRESHOLDS
        },
        "scores_of_fitting": [min(one.score for one in right), max(one.score for one in right)],
        "scores_of_slips": [min(one.score for one in slipped), max(one.score for one in slipped)],
    }


def run(seed: int, model: str, place: Path) -> dict[str, Any]:
    """One seed: learn, sleep, correct, learn, sleep. The first seed has two more stages: the same sleep
    without what follows, and what is answered between the correction and its sleep."""
    graph, folder, bare = graph_of(seed), place / "memory", place / "bare"
    start = time.process_time()
    write(folder, model, [], [*graph.facts, *graph.slips], quiet)
    stages: dict[str, Any] = {}
    learn(folder, quiet, seeds=1)
    measuring = Measuring(folder)
    asking = 0.0

    def measure(name: str, of: Path) -> None:
        nonlocal asking
        begun = time.process_time()
        stages[name] = measuring.of(of)
        asking += time.process_time() - begun
        print(f"seed {seed}, {name}: {brief(stages[name])}", flush=True)

    measure("learnt", folder)
    with opened(folder) as memory:
        schema = tracked(memory, len(graph.slips))
    if seed == SEEDS[0]:
        shutil.copytree(folder, bare)
        _slept(bare, replace(RECIPE, derived=False))
        measure("slept, nothing derived", bare)
    first = _slept(folder, RECIPE)
    measure("slept", folder)
    write(folder, model, [], [*graph.corrections, graph.slips[0]], quiet)
    learn(folder, quiet, seeds=1)
    if seed == SEEDS[0]:
        measure("corrected and learnt", folder)
    second = _slept(folder, RECIPE)
    measure("corrected and slept", folder)
    with opened(folder) as memory:
        again = tracks(memory.state.kept)[f"m{LANDS * 5 + 1:04d}"].composed
    return {
        "seed": seed,
        "digest": graph.digest,
        "stages": stages,
        "base alone": measuring.tasks.measured(measuring.bench, None),
        "fast_track": schema,
        "slip_built_upon_when_seen_twice": again,
        "sleeps": [first, second],
        "core_seconds": time.process_time() - start - asking,
        "core_seconds_of_asking": asking,
    }


def _slept(folder: Path, recipe: Recipe) -> dict[str, Any]:
    done = sleep(folder, quiet, recipe=recipe)
    assert done is not None
    return {name: done.record[name] for name in ("committed", "reason", "steps", "replayed_rows")}


def quiet(sentence: str) -> None:
    """Nobody watches."""


def brief(stage: Mapping[str, Any]) -> str:
    """One line of a stage."""
    return ", ".join(f"{name} {one['share']:.3f}" for name, one in stage["right"].items())


def table(result: Mapping[str, Any]) -> str:
    """Every share of every stage: the mean of the seeds, and the questions of all of them."""
    runs = result["runs"]
    stages: dict[str, list[Any]] = {
        name: [one["stages"][name] for one in runs if name in one["stages"]]
        for name in runs[0]["stages"]
    }
    lines = [_line("", "questions", *stages), _line("---", "---", *["---"] * len(stages))]
    for name in dict.fromkeys(name for found in stages.values() for name in found[0]["right"]):
        asked = max(sum(_right(one, name)["questions"] for one in found) for found in stages.values())
        lines.append(_line(name, f"{asked:,}", *(_mean_of(found, name) for found in stages.values())))
    for kind in runs[0]["stages"]["slept"]["unseen"]:
        shares = [f"{np.mean([one['unseen'][kind] for one in found]):.3f}" for found in stages.values()]
        lines.append(_line(f"unseen names, {kind}: a stored answer", str(UNSEEN * len(runs)), *shares))
    for task in runs[0]["base alone"]:
        ratios = [f"{np.mean(_to_alone(runs, name, task)):.3f}" for name in stages]
        lines.append(_line(f"base: {task}, over that of the base alone", "", *ratios))
    return "\n".join(lines)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _to_alone(runs: Sequence[Mapping[str, Any]], stage: str, task: str) -> list[float]:
    return [
        one["stages"][stage]["base"][task] / one["base alone"][task]
        for one in runs
        if stage in one["stages"]
    ]


def _right(stage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return stage["right"].get(name, {"share": None, "questions": 0})


def _mean_of(stages: Sequence[Mapping[str, Any]], name: str) -> str:
    shares = [_right(one, name)["share"] for one in stages]
    found = [share for share in shares if share is not None]
    return f"{np.mean(found):.3f}" if found else "–"


def main() -> None:
    """Run the seeds that are asked for, one after another, and write what they gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default=str(SHARED / "models" / "tinychat-5M"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--show", action="store_true", help="only the table of --out")
    asked = parser.parse_args()
    if not asked.show:
        found = json.loads(asked.out.read_bytes())["runs"] if asked.out.exists() else []
        runs = {one["seed"]: one for one in found}
        for seed in asked.seeds:
            with tempfile.TemporaryDirectory() as place:
                runs[seed] = run(seed, asked.model, Path(place))
            result = {
                "model": Path(asked.model).name,
                "recipe": asdict(RECIPE),
                "runs": [runs[seed] for seed in sorted(runs)],
            }
            asked.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(json.loads(asked.out.read_bytes())))


if __name__ == "__main__":
    main()
