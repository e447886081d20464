"""What the bare base does that a memory should leave alone: three kinds of text, and facts it knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loraloom.data.rows import IGNORED, Row, causal_row
from loraloom.evals.scoring import RowSums
from loraloom.pipeline.recall.bench import CURRENT, MemoryBench
from loraloom.pipeline.recall.update import Update
from loraloom.recall.forms import Form
from loraloom.recall.router import Router

TEXTS, TOKENS = 40, 128
"""Texts of a kind, and tokens that are read of each, at most."""
FACTS = 600
"""Facts that the base is asked; those that it gets right are what it knows."""
SHORTEST = 300
"""Characters of a paragraph of an encyclopedia: a shorter one is a headline."""


@dataclass(frozen=True)
class Task:
    """What a router reads, and the row that is scored."""

    read: str
    row: Row


@dataclass(frozen=True)
class BaseTasks:
    """Each kind of text, and what the base answers rightly by itself."""

    texts: Mapping[str, list[Task]]
    known: list[Task]

    def measured(
        self, bench: MemoryBench, update: Update | None, router: Router | None = None
    ) -> dict[str, float]:
        """Perplexity of each kind of text, and `known`: the share of the known facts that is given.

        Args:
            router: what it does not find in the memory is left to the bare base.
        """
        found: dict[str, float] = {}
        for kind, tasks in self.texts.items():
            sums = _sums(bench, tasks, update, router)
            found[kind] = float(np.exp(sums.loss.sum() / sums.weight.sum()))
        sums = _sums(bench, self.known, update, router)
        return {**found, "known": float((sums.correct == sums.weight).mean())}


def _sums(
    bench: MemoryBench, tasks: list[Task], update: Update | None, router: Router | None
) -> RowSums:
    rows = [task.row for task in tasks]
    with bench.seated({CURRENT: update}) as trials:
        (own,) = bench.sums(rows, trials).values()
    if router is None:
        return own
    base = bench.sums(rows, [])[""]
    remembered = [router.route(task.read).remembered for task in tasks]
    return RowSums(
        np.where(remembered, own.loss, base.loss),
        own.weight,
        np.where(remembered, own.correct, base.correct),
    )


def base_tasks(bench: MemoryBench, shared: Path) -> BaseTasks:
    """The tasks from ../shared/data; the model was not trained on these parts of gsm8k and wikitext2."""
    data = shared / "data"
    stories = [one["text"] for one in _lines(data / "tinystories" / "stories_cased.jsonl")[-TEXTS:]]
    paragraphs = (data / "wikitext2" / "test.txt").read_text().splitlines()
    talks = [
        Form("", one["question"], one["answer"]) for one in _lines(data / "gsm8k" / "test.jsonl")[:TEXTS]
    ]
    articles = [one.strip() for one in paragraphs if len(one) >= SHORTEST][:TEXTS]
    texts = {
        "stories": [Task(one, _text(bench, one)) for one in stories],
        "sums": [
            Task(talk.question, _cut(row)) for talk, row in zip(talks, bench.encoded(talks), strict=True)
        ],
        "encyclopedia": [Task(one, _text(bench, one)) for one in articles],
    }
    return BaseTasks(texts, _known(bench, data / "pararel"))


def _known(bench: MemoryBench, folder: Path) -> list[Task]:
    """Facts that the base completes rightly, evenly out of all relations."""
    patterns = json.loads((folder / "patterns.json").read_bytes())
    facts = _lines(folder / "facts.jsonl")
    tasks: list[Task] = []
    for fact in facts[:: max(1, len(facts) // FACTS)]:
        ends = [one for one in patterns[fact["relation"]] if one.rstrip(" .").endswith("[Y]")]
        if ends:
            before, _ = ends[0].split("[Y]")
            read = before.replace("[X]", fact["subject"]).rstrip()
            prompt = _ids(bench, read)
            answer = _ids(bench, f" {fact['object']}")
            ids = [*prompt, *answer]
            tasks.append(Task(read, causal_row(ids, np.arange(len(ids)) >= len(prompt))))
    sums = bench.sums([task.row for task in tasks], [])[""]
    return [task for task, fine in zip(tasks, sums.correct == sums.weight, strict=True) if fine]


def _text(bench: MemoryBench, text: str) -> Row:
    ids = np.array(_ids(bench, text), dtype=np.int32)
    labels = ids.copy()
    labels[:1] = IGNORED
    return _cut(Row(ids, labels))


def _cut(row: Row) -> Row:
    return Row(row.input_ids[:TOKENS], row.labels[:TOKENS])


def _ids(bench: MemoryBench, text: str) -> list[int]:
    return bench.base.tokenizer([text], add_special_tokens=False)["input_ids"][0]


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
