"""The rows that a memory trains on: forms of its items, unseen names, anchors; and what a step takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loraloom.data.rows import Row
from loraloom.pipeline.recall.anchors import Anchors
from loraloom.recall.forms import Form, names_of, trained_forms, unknown_forms
from loraloom.recall.mix import Mix, Pool, StepMix, replay_weights
from loraloom.recall.recipe import Recipe
from loraloom.recall.state import Entry

if TYPE_CHECKING:
    from loraloom.pipeline.recall.bench import MemoryBench

SEED = 11


@dataclass(frozen=True)
class Material:
    """All rows of a course, and which are what.

    Attributes:
        of_item: numbers of the rows of each item, by id.
        derived: numbers of the rows of what follows from items, by the ids of those.
        unknown, anchors: numbers of the others.
    """

    rows: list[Row]
    of_item: Mapping[str, list[int]]
    derived: Mapping[tuple[str, ...], list[int]]
    unknown: list[int]
    anchors: list[int]

    def rows_of(self, entries: Sequence[Entry]) -> list[int]:
        """Numbers of these items' rows."""
        return [number for entry in entries for number in self.of_item[entry.id]]

    @property
    def forms(self) -> int:
        """How many rows ask for something to remember."""
        return sum(map(len, (*self.of_item.values(), *self.derived.values())))

    def following(self, item: str) -> list[int]:
        """Numbers of the rows of what follows from an item, perhaps with others."""
        return [number for of, rows in self.derived.items() if item in of for number in rows]

    def order(
        self,
        mix: Mix,
        new: Sequence[Entry],
        replayed: Sequence[Entry],
        losses: Mapping[str, float],
        seed: int,
    ) -> StepMix:
        """What each step takes: pools of what is new, replayed, unknown, and anchors, in this order."""
        pools = [
            (Pool(self.rows_of(new)), mix.new),
            (self._replay(replayed, losses), mix.replayed),
            (Pool(self.unknown), mix.unknown),
            (Pool(self.anchors), mix.anchors),
        ]
        return StepMix(pools, seed)

    def _replay(self, entries: Sequence[Entry], losses: Mapping[str, float]) -> Pool:
        """Each item weighs what it matters, and what follows from some as much as they do on average."""
        ids = [entry.id for entry in entries]
        of_id = dict(zip(ids, replay_weights(entries, losses), strict=True))
        groups = [((name,), self.of_item[name]) for name in ids]
        groups += [(of, rows) for of, rows in self.derived.items() if of_id.keys() >= set(of)]
        rows = [number for _, group in groups for number in group]
        weights = [
            np.mean([of_id[name] for name in of]) / len(group) for of, group in groups for _ in group
        ]
        return Pool(rows, np.array(weights, dtype=np.float64))


def material_of(
    bench: MemoryBench,
    entries: Sequence[Entry],
    anchors: Anchors,
    mix: Mix,
    recipe: Recipe,
    derived: Sequence[Form] = (),
    seed: int = SEED,
) -> Material:
    """The rows for these items.

    Args:
        mix: of a step: an anchor weighs what its step gives to all, divided among them.
        derived: what follows from the items.
        seed: of the unseen names.
    """
    items = [entry.item for entry in entries]
    forms = [form for item in items for form in trained_forms(item, recipe.forms)]
    unknown = unknown_forms(items, names_of(items), names=recipe.unknown_names, seed=seed)
    kept = [
        Row(row.input_ids, row.labels, loss="kl", weight=mix.anchor_weight / max(1, mix.anchors))
        for row in anchors.trained
    ]
    rows = [*bench.rows(forms), *bench.rows(derived), *bench.rows(unknown), *kept]
    of_item: dict[str, list[int]] = {entry.id: [] for entry in entries}
    for number, form in enumerate(forms):
        of_item[form.item].append(number)
    follows: dict[tuple[str, ...], list[int]] = {}
    for number, form in enumerate(derived, start=len(forms)):
        follows.setdefault(form.of, []).append(number)
    first = len(forms) + len(derived)
    last = first + len(unknown)
    return Material(rows, of_item, follows, list(range(first, last)), list(range(last, len(rows))))
