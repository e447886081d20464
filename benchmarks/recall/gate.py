"""Keys, gate, router and partial cues: what finds, what is written, what is asked, what is filled in.

    python benchmarks/recall/gate.py                 # 5 core-minutes a seed, most of it training
    python benchmarks/recall/gate.py --untrained     # without what trains: 40 core-seconds a seed
    python benchmarks/recall/gate.py --show          # the tables of the committed result

Each seed is written as soon as it is measured; --seeds measures some of them. README.md says what is
measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gate_keys import whitening
from gate_stream import WRITTEN, Stream, stream
from gate_trained import trained
from numpy.typing import NDArray

from loraloom.pipeline.recall import keys
from loraloom.pipeline.recall.anchors import ASKED_FACTS, FACTS, TALKS, TEXTS
from loraloom.pipeline.recall.bench import MemoryBench
from loraloom.pipeline.recall.keys import Keys, vectors_of
from loraloom.pipeline.recall.writing import write
from loraloom.recall.forms import Form, trained_forms
from loraloom.recall.gate import Decision
from loraloom.recall.items import MemoryItem, same_answer
from loraloom.recall.lexicon import Lexicon
from loraloom.recall.memory import opened
from loraloom.recall.repeats import Repeats
from loraloom.recall.router import Router
from loraloom.recall.state import Entry, State
from loraloom.recall.vectors import normal
from loraloom.recall.workload import Workload, workload

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("LORALOOM_SHARED") or HERE.parents[2] / "shared")
RESULT = HERE / "gate.json"
BASE = "models/tinychat-5M"
SEEDS = (0, 1, 2)
SIZES = (1, 3, 10)
"""Sessions of twenty items that a router knows."""
EVERYDAY_NAMES = re.findall(
    r"\w+",
    "Tom Lily Ben Sam Anna Max Mia Sara Jack Lucy Tim Sue Bob Amy Leo Emma Mark Jane John Mary",
)
"""Names that stories are full of: a memory about such people is the hardest to keep out of them."""
FITTED = 64
"""Items whose trained wordings fit the whitening map."""
PROMPTS = 500
"""Of each public text, at most."""


def quiet(sentence: str) -> None:
    """Nobody watches."""


def measured(seed: int, *, with_training: bool) -> dict[str, Any]:
    """Everything of one seed."""
    began = time.process_time()
    made, told = workload(seed), stream(seed)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "memory"
        write(folder, str(SHARED / BASE), [], [dict(row) for row in told.made.sessions[0]], quiet)
        found: dict[str, Any] = {
            "workload": made.digest,
            "stream": told.digest,
            "encoder": encoder(folder, made),
            "repeats": repeats(made),
            "router": {str(20 * size): routes(made.until(size)) for size in SIZES},
            "router over everyday names": common(router_of(_everyday_people())),
            "gate before learning": gate(folder, told),
        }
        found["core_seconds"] = {"untrained": round(time.process_time() - began, 1)}
        if with_training:
            began = time.process_time()
            found["trained"] = trained(folder, told)
            found["gate"] = gate(folder, told)
            found["core_seconds"]["trained"] = round(time.process_time() - began, 1)
    return found


def encoder(folder: Path, made: Workload) -> dict[str, Any]:
    """Recall@1: how often the nearest of all stored questions is the right one, by wording."""
    items = made.items
    asked = [one for one in made.questions if one.item >= 0 and one.way != "verbatim"]
    questions, owners = [one.question for one in asked], np.array([one.item for one in asked])
    with opened(folder) as memory:
        bench = MemoryBench(memory, [Form("", one.question, one.answer) for one in asked], quiet)
        stored_ND = vectors_of(bench, [item.question for item in items])
        asked_QD = vectors_of(bench, questions)
        wordings = [
            vectors_of(bench, [form.question for form in trained_forms(item)])
            for item in items[:: -(-len(items) // FITTED)]
        ]
        shipped = [row.argmax() for row in Keys(bench, items).nearness(questions)]
    map_DD = whitening(wordings, stored_ND.shape[1])
    lexicon = Lexicon([item.question for item in items])
    nearest = {
        "hidden states": (normal(asked_QD) @ normal(stored_ND).T).argmax(1),
        "whitened": (normal(asked_QD @ map_DD) @ normal(stored_ND @ map_DD).T).argmax(1),
        "whitened and words": (
            normal(asked_QD @ map_DD) @ normal(stored_ND @ map_DD).T
            + np.array([lexicon.cosines(question) for question in questions])
        ).argmax(1),
        "words": [lexicon.cosines(question).argmax() for question in questions],
        "hidden states and words, as shipped": shipped,
    }
    kinds = np.array([f"{one.way} {items[one.item].kind}" for one in asked])
    return {
        name: {"all": _share(right), **{kind: _share(right[kinds == kind]) for kind in np.unique(kinds)}}
        for name, found in nearest.items()
        for right in [np.array(found) == owners]
    }


def repeats(made: Workload) -> dict[str, Any]:
    """How many rewordings of a stored item are recognised, and how often another one is taken for it
    though its answer is made the same."""
    items = [replace(item, id=f"m{number}") for number, item in enumerate(made.items)]
    known = Repeats([Entry(item) for item in items])
    found: dict[str, list[bool]] = {}
    for one in made.questions:
        if one.item >= 0 and one.way != "verbatim":
            item = items[one.item]
            entry = known.of(replace(item, question=one.question))
            found.setdefault(f"{one.way} {item.kind}", []).append(
                entry is not None and entry.id == item.id
            )
    pairs = [
        (one, other)
        for one in items
        for other in items
        if one.kind == other.kind and not same_answer(one.answer, other.answer)
    ]
    merged = sum(known.of(replace(one, answer=other.answer)) is not None for one, other in pairs)
    return {
        "recognised": {name: _share(right) for name, right in sorted(found.items())},
        "pairs": len(pairs),
        "false merges": merged,
    }


def gate(folder: Path, told: Stream) -> dict[str, Any]:
    """The gate on a stream: area under the curve of its order and of its terms, and what it writes."""
    rows = [dict(one.row) for one in told.told]
    _, free = write(folder, None, [], rows, quiet, write_rate=1.0, dry_run=True)
    _, rated = write(folder, None, [], rows, quiet, write_rate=told.share, dry_run=True)
    with unnamed():
        _, blind = write(folder, None, [], rows, quiet, write_rate=1.0, dry_run=True)
    wanted = np.array([one.sort in WRITTEN for one in told.told])
    outcomes: dict[str, Counter[str]] = {}
    for one, decision in zip(told.told, rated, strict=True):
        outcomes.setdefault(one.sort, Counter())[decision.outcome] += 1
    return {
        "auroc": {
            "gate": _auroc([order_of(one) for one in free], wanted),
            "gate that sees no names": _auroc([order_of(one) for one in blind], wanted),
            "surprise alone": _auroc([one.terms.surprise for one in free], wanted),
            "score without scope and repeats": _auroc([one.terms.score for one in free], wanted),
            "scope alone": _auroc([one.terms.scope or 0.0 for one in free], wanted),
        },
        "write rate": told.share,
        "outcomes": {sort: dict(counts) for sort, counts in sorted(outcomes.items())},
    }


@contextmanager
def unnamed() -> Generator[None]:
    """Scope by hidden states alone."""
    before = keys.NAMING
    keys.NAMING = 0.0
    try:
        yield
    finally:
        keys.NAMING = before


def order_of(decision: Decision) -> float:
    """Where an item stands in what the gate would write first."""
    if decision.outcome in ("skip", "reinforce"):
        return -math.inf
    return math.inf if decision.outcome == "supersede" else decision.terms.score


def routes(made: Workload) -> dict[str, Any]:
    """Shares that the router sends to the memory: by wording, and of texts that have nothing to do with
    it."""
    router = router_of(made.items)
    found: dict[str, list[bool]] = {}
    for one in made.questions:
        for way, question in ((one.way, one.question), (f"{one.way}, small", one.question.lower())):
            found.setdefault(way, []).append(router.route(question).remembered)
    return {name: _share(right) for name, right in found.items()} | common(router)


def common(router: Router) -> dict[str, float]:
    """Shares of other people's texts that go to the memory."""
    return {
        name: _share([router.route(text).remembered for text in texts])
        for name, texts in public_prompts().items()
    }


def _everyday_people() -> list[MemoryItem]:
    relations = ("dog", "favourite colour", "birthday", "home town", "job")
    return [
        MemoryItem("fact", f"What is the {relations[place % 5]} of {name}?", f"answer {place}")
        for place, name in enumerate(EVERYDAY_NAMES)
    ]


def router_of(items: Sequence[MemoryItem]) -> Router:
    """What a memory that learnt these would ask."""
    named = {f"m{number}": replace(item, id=f"m{number}") for number, item in enumerate(items)}
    return Router.of(State({name: Entry(item, wake=1) for name, item in named.items()}))


def public_prompts() -> dict[str, list[str]]:
    """Texts of other people, whole and their beginnings, and what anchors are sampled from."""
    data = SHARED / "data"
    stories = (data / "tinystories" / "stories_cased.jsonl").read_text().splitlines()
    sums = (data / "gsm8k" / "test.jsonl").read_text().splitlines()
    articles = (data / "wikitext2" / "test.txt").read_text().splitlines()
    whole = {
        "tinystories": [json.loads(line)["text"] for line in stories[:PROMPTS]],
        "gsm8k": [json.loads(line)["question"] for line in sums[:PROMPTS]],
        "wikitext": [line.strip() for line in articles if len(line) > 80][:PROMPTS],
    }
    beginnings = {f"{name}, beginning": [text[:80] for text in texts] for name, texts in whole.items()}
    return {**whole, **beginnings, "the base's own": [*TALKS, *TEXTS, *FACTS, *ASKED_FACTS]}


def _auroc(order: Sequence[float], wanted: NDArray[np.bool_]) -> float:
    """Chance that what should be written comes before what should not; equal places count half."""
    values = np.array(order)
    above = values[wanted][:, None] > values[~wanted]
    equal = values[wanted][:, None] == values[~wanted]
    return round(float(above.mean() + 0.5 * equal.mean()), 4)


def _share(right: Any) -> float:
    return round(float(np.mean(right)), 4)


def show(found: Mapping[str, Any]) -> None:
    """The mean over the seeds of every number, one a line."""
    seeds = list(found["seeds"].values())
    for name in dict.fromkeys(name for one in seeds for name in flat(one)):
        values = [flat(one)[name] for one in seeds if name in flat(one)]
        spread = ", ".join(f"{value:g}" for value in values)
        print(f"{name:<64} {np.mean(values):>9.3f}   ({spread})")


def flat(tree: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """Numbers of a tree by their path."""
    found: dict[str, float] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{name} / ")
        elif isinstance(value, int | float):
            found[before + name] = value
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--untrained", action="store_true", help="leave out what trains")
    parser.add_argument("--show", action="store_true", help="only the tables of gate.json")
    given = parser.parse_args()
    found: dict[str, Any] = {"base": BASE, "seeds": {}}
    if RESULT.exists():
        found = json.loads(RESULT.read_text())
    if not given.show:
        for seed in given.seeds:
            before = found["seeds"].get(str(seed), {})
            found["seeds"][str(seed)] = {**before, **measured(seed, with_training=not given.untrained)}
            partial = RESULT.with_suffix(".part")
            partial.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
            shutil.move(partial, RESULT)
    show(found)


if __name__ == "__main__":
    main()
