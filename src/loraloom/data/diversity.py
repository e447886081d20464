"""How varied the rows of a run are, and what its held-out rows have that training lacks: counts, each
with its unit. What they mean is said by `report.diversity`.
"""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from loraloom.data.groups import Repeats, relations, repeats_within
from loraloom.data.overlap import Overlap
from loraloom.data.recognise import Recognised
from loraloom.data.rows import Encoded, Example, Row
from loraloom.data.said import ANSWER, Turns, turns
from loraloom.data.split import Splits
from loraloom.data.table import Table
from loraloom.data.wording import Lacking, Wording, lacking, wording_of

MOST_ROWS, MOST_CHARACTERS = 30_000, 20_000_000
"""Rows of one split, and characters of what they say, whose words are looked at; of more, a draw."""
SCRIPT_ROWS = 2_000
"""Rows of a split whose letters are looked at."""
LENGTHS = (0, 5, 50, 95, 100)
"""Percentiles of the rows' lengths."""


@dataclass(frozen=True)
class SplitDiversity:
    """One split.

    Attributes:
        rows: as they were read.
        repeats: rows that an earlier one makes superfluous.
        lengths: percentile -> tokens of a row at full length; empty where rows could not be encoded.
        longer: rows longer than any training row.
        labels: name of the class -> rows; of a classifier.
        scripts: writing system -> share of the letters.
        sources: file -> rows.
    """

    rows: int
    repeats: Repeats
    lengths: Mapping[int, int] = field(default_factory=dict[int, int])
    longer: int = 0
    labels: Mapping[str, int] = field(default_factory=dict[str, int])
    scripts: Mapping[str, float] = field(default_factory=dict[str, float])
    sources: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Diversity:
    """All splits that have rows.

    Attributes:
        wording: of training, by what the rows do: "text", or "prompts" and "answers".
        lacking: split -> what it has that training lacks.
        overlaps: held-out rows that are related to rows of an earlier split.
        given: splits that have a source of their own.
        notes: what was looked at of more rows.
    """

    splits: Mapping[str, SplitDiversity]
    wording: Mapping[str, Wording]
    lacking: Mapping[str, Lacking]
    overlaps: tuple[Overlap, ...] = ()
    given: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Every figure, as `check --json` and a run folder hold it."""
        return {**asdict(self), "given": sorted(self.given)}


def diversity_of(
    splits: Splits,
    recognised: Recognised,
    encoded: Encoded | None,
    seed: int,
    *,
    most_rows: int = MOST_ROWS,
) -> Diversity:
    """Look at all rows of a run, but for those that are replayed: among the task's own they would hide
    what repeats there.

    Args:
        encoded: the same rows at full length; None where they could not be encoded.
        seed: of the draws.
        most_rows: of a split; of more, a draw is looked at.
    """
    tables = {name: table for name, table in splits.tables.items() if len(table)}
    notes: list[str] = []
    said: dict[str, list[Turns]] = {}
    for name, table in tables.items():
        rows = _drawn(len(table), most_rows, seed)
        said[name] = _up_to([turns(table.rows[row], recognised) for row in rows], MOST_CHARACTERS)
        if len(said[name]) < len(table):
            notes.append(
                f"words are those of {len(said[name]):,} drawn rows of {len(table):,} in {name}"
            )
    sides = _sides(said["train"])
    asked = {name: [_text(one, sides[0]) for one in each] for name, each in said.items()}
    longest = int(_lengths(encoded.train).max(initial=0)) if encoded else 0
    return Diversity(
        splits={
            name: _split(
                table,
                splits.repeats.get(name) or _repeats(table, recognised),
                [text for one in said[name][:SCRIPT_ROWS] for _, text in one],
                () if encoded is None else encoded.splits[name],
                () if encoded is None else encoded.label_names or (),
                longest,
            )
            for name, table in tables.items()
        },
        wording={side: wording_of([_text(one, side) for one in said["train"]], seed) for side in sides},
        lacking=lacking(asked["train"], {name: asked[name] for name in asked if name != "train"}),
        overlaps=splits.overlaps,
        given=splits.given,
        notes=tuple(notes),
    )


def _repeats(table: Table, recognised: Recognised) -> Repeats:
    found, _ = relations(table, recognised, "auto")
    return repeats_within(found, range(len(table)))


def _split(
    table: Table,
    repeats: Repeats,
    texts: Iterable[str],
    rows: Sequence[Example],
    label_names: Sequence[str],
    longest: int,
) -> SplitDiversity:
    lengths = _lengths(rows)
    classified = [row for row in rows if isinstance(row, Row)] if label_names else []
    labels = Counter(int(row.labels[0]) for row in classified)
    sources = Counter(prefix.removesuffix(":").removesuffix(", row ") for prefix, _ in table.places)
    return SplitDiversity(
        len(table),
        repeats,
        {share: int(np.percentile(lengths, share, method="higher")) for share in LENGTHS}
        if len(lengths)
        else {},
        int((lengths > longest).sum()),
        {name: labels[number] for number, name in enumerate(label_names) if classified},
        scripts_of(texts),
        dict(sources),
    )


def scripts_of(texts: Iterable[str]) -> dict[str, float]:
    """Writing system -> its share of the letters, the largest first, as Unicode's names say it."""
    counts: Counter[str] = Counter()
    for character, count in Counter(char for text in texts for char in text).items():
        if character.isalpha():
            counts[_script(character)] += count
    total = max(1, counts.total())
    return {script: count / total for script, count in counts.most_common()}


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    """ "Latin", "Cyrillic", "CJK": the first word of a letter's name."""
    word = unicodedata.name(letter, "unknown").split()[0].split("-")[0]
    return word if word == "CJK" else word.capitalize()


def _sides(said: Sequence[Turns]) -> tuple[str, ...]:
    answers = any(speaker == ANSWER for one in said[:100] for speaker, _ in one)
    return ("prompts", "answers") if answers else ("text",)


def _text(said: Turns, side: str) -> str:
    if side == "text":
        return " ".join(text for _, text in said)
    answers = side == "answers"
    return " ".join(
        text
        for speaker, text in said
        if (speaker == ANSWER) == answers and (answers or speaker == "user")
    )


def _lengths(rows: Sequence[Example]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([len(row) for row in rows], dtype=np.int64)


def _drawn(count: int, most: int, seed: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return sorted(random.Random(seed).sample(range(count), most))


def _up_to(said: list[Turns], most_characters: int) -> list[Turns]:
    """The first rows that say no more than so many characters; the first one in any case."""
    left = most_characters
    for number, one in enumerate(said):
        left -= sum(len(text) for _, text in one)
        if left < 0:
            return said[: max(1, number)]
    return said
