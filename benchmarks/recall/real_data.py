"""What real.py writes and asks: edits of real facts, real countries, corrections of invented facts."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loraloom.recall.forms import held_out_forms, trained_forms
from loraloom.recall.items import MemoryItem, items_of
from loraloom.recall.workload import workload
from loraloom.recall.workload_words import RELATIONS

Row = Mapping[str, Any]
TIME = "2026-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class Asked:
    """A question that measures; `group` is what its share is counted under."""

    group: str
    question: str
    answer: str


@dataclass(frozen=True)
class Part:
    """Sessions of rows as `recall write` reads them, each learnt before the next one is written.

    Attributes:
        neighbours: questions whose answer should stay what the bare base writes.
    """

    sessions: tuple[tuple[Row, ...], ...]
    asked: tuple[Asked, ...]
    neighbours: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """sha256 of everything in it, as JSON with sorted keys and no white space."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def counterfacts(path: Path, count: int, seed: int, *, some_forms: bool) -> Part:
    """Edits of real facts that are false: their prompt and new answer.

    Args:
        some_forms: all paraphrases but the last are given as forms; none, otherwise. What is asked as a
            paraphrase was given in neither case.
    """
    every = [json.loads(line) for line in path.read_text().splitlines()]
    random.Random(seed).shuffle(every)
    taken: set[str] = set()
    edits: list[dict[str, Any]] = []
    for one in every:
        asked = {one["prompt"], *one["paraphrases"]}
        if one["neighbourhood"] and not asked & taken and len(edits) < count:
            edits.append(one)
            taken |= asked
    rows: list[Row] = []
    questions: list[Asked] = []
    for one in edits:
        given = one["paraphrases"][:-1] if some_forms else []
        held = one["paraphrases"][-1:] if some_forms else one["paraphrases"]
        rows.append({"question": one["prompt"], "answer": one["target_new"], "forms": given})
        questions.append(Asked("edited", one["prompt"], one["target_new"]))
        questions += [Asked("paraphrase", text, one["target_new"]) for text in held]
    beside = dict.fromkeys(text for one in edits for text in one["neighbourhood"] if text not in taken)
    return Part((tuple(rows),), tuple(questions), tuple(beside))


FAR: Mapping[str, tuple[str, str]] = {
    "capital": ("From which city is {s} governed?", "Where does the parliament of {s} meet?"),
    "official language": (
        "What do people in {s} speak?",
        "In which tongue are the laws of {s} written?",
    ),
    "currency": ("What do people in {s} pay with?", "Which money is used in {s}?"),
    "demonym": ("How do you call somebody from {s}?", "A person who was born in {s} is called what?"),
}
"""Wordings by hand, which are never trained."""


def countries(path: Path, count: int, seed: int) -> Part:
    """Two facts of each of so many countries, and the capitals of the others as neighbours."""
    every = [json.loads(line) for line in path.read_text().splitlines()]
    whole = [one for one in every if one["capital"] and one["demonym"] and one["currencies"]]
    single = [one for one in whole if len(one["languages"]) == 1 and len(one["capital"]) == 1]
    random.Random(seed).shuffle(single)
    rows: list[Row] = []
    for number, one in enumerate(single[:count]):
        facts = {
            "capital": one["capital"][0],
            "official language": one["languages"][0],
            "currency": one["currencies"][0],
            "demonym": one["demonym"],
        }
        names = ("capital", "currency") if number % 2 else ("official language", "demonym")
        for relation in names:
            rows.append({"subject": one["name"], "relation": relation, "object": facts[relation]})
    chosen = {one["name"] for one in single[:count]}
    others = [one["name"] for one in whole if one["name"] not in chosen]
    beside = [f"What is the capital of {name}?" for name in others[:60]]
    return Part((tuple(rows),), tuple(asked_of(rows)), tuple(beside))


def asked_of(rows: Sequence[Row], *, of: str = "") -> list[Asked]:
    """As trained, near, and far by hand.

    Args:
        of: what the groups' names begin with.
    """
    far = {**FAR, **{one.name: one.far for one in RELATIONS}}
    asked: list[Asked] = []
    for row, item in zip(rows, items_of([("data", row) for row in rows], TIME), strict=True):
        by_hand = [text.format(s=row["subject"]) for text in far[row["relation"]]]
        groups = {"trained": trained(item), "near": near(item), "far": by_hand}
        asked += [
            Asked(of + group, question, item.answer)
            for group, questions in groups.items()
            for question in questions
        ]
    return asked


def trained(item: MemoryItem) -> list[str]:
    """Every question that is trained."""
    return [form.question for form in trained_forms(item)]


def near(item: MemoryItem) -> list[str]:
    """Templates that are not trained."""
    return [form.question for form in held_out_forms(item) if form.distance == "near"]


def updates(count: int, seed: int) -> Part:
    """Facts, two sessions of other things, then another answer to every fact: of the new and of the old
    answer it is asked how often they are given."""
    first = _facts(workload(seed, sessions=1, items=3 * count).sessions[0])[:count]
    pool: dict[str, list[str]] = {}
    for row in _facts(workload(seed + 1, sessions=1, items=6 * count).sessions[0]):
        pool.setdefault(row["relation"], []).append(row["object"])
    corrected: list[Row] = []
    for row in first:
        others = pool[row["relation"]]
        corrected.append({**row, "object": next(one for one in others if one != row["object"])})
        others.append(others.pop(0))
    between = workload(seed + 2, sessions=2, items=count).sessions
    asked = asked_of(corrected, of="new, ") + asked_of(first, of="old, ")
    return Part((tuple(first), *between, tuple(corrected)), tuple(asked))


def _facts(rows: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    return [row for row in rows if "relation" in row]
