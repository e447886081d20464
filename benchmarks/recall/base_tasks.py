"""What the bare base does that a memory should leave alone: three kinds of text, and facts it knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loraloom.data.rows import IGNORED, Row, causal_row
from loraloom.pipeline.recall.bench import CURRENT, MemoryBench
from loraloom.pipeline.recall.update import Update
from loraloom.recall.forms import Form

TEXTS, TOKENS = 40, 128
"""Texts of a kind, and tokens that are read of each, at most."""
FACTS = 600
"""Facts that the base is asked; those that it gets right are what it knows."""
SHORTEST = 300
"""Characters of a paragraph of an encyclopedia: a shorter one is a headline."""


@dataclass(frozen=True)
class BaseTasks:
    """Rows of each kind of text, and of what the base answers rightly by itself."""

    texts: Mapping[str, list[Row]]
    known: list[Row]

    def measured(self, bench: MemoryBench, update: Update | None) -> dict[str, float]:
        """Perplexity of each kind of text, and `known`: the share of the known facts that is given."""
        with bench.seated({CURRENT: update}) as trials:
            found: dict[str, float] = {}
            for kind, rows in self.texts.items():
                (sums,) = bench.sums(rows, trials).values()
                found[kind] = float(np.exp(sums.loss.sum() / sums.weight.sum()))
            (sums,) = bench.sums(self.known, trials).values()
            return {**found, "known": float((sums.correct == sums.weight).mean())}


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
        "stories": [_text(bench, one) for one in stories],
        "sums": [_cut(row) for row in bench.encoded(talks)],
        "encyclopedia": [_text(bench, one) for one in articles],
    }
    return BaseTasks(texts, _known(bench, data / "pararel"))


def _known(bench: MemoryBench, folder: Path) -> list[Row]:
    """Facts that the base completes rightly, evenly out of all relations."""
    patterns = json.loads((folder / "patterns.json").read_bytes())
    facts = _lines(folder / "facts.jsonl")
    rows: list[Row] = []
    for fact in facts[:: max(1, len(facts) // FACTS)]:
        ends = [one for one in patterns[fact["relation"]] if one.rstrip(" .").endswith("[Y]")]
        if ends:
            before, _ = ends[0].split("[Y]")
            prompt = _ids(bench, before.replace("[X]", fact["subject"]).rstrip())
            answer = _ids(bench, f" {fact['object']}")
            ids = [*prompt, *answer]
            rows.append(causal_row(ids, np.arange(len(ids)) >= len(prompt)))
    sums = bench.sums(rows, [])[""]
    return [row for row, fine in zip(rows, sums.correct == sums.weight, strict=True) if fine]


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
