"""The rows that a memory trains on: forms of its items, unseen names, anchors; and what a step takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loraloom.data.rows import Row
from loraloom.pipeline.recall.anchors import Anchors
from loraloom.recall.forms import names_of, trained_forms, unknown_forms
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
        unknown, anchors: numbers of the others.
    """

    rows: list[Row]
    of_item: Mapping[str, list[int]]
    unknown: list[int]
    anchors: list[int]

    def rows_of(self, entries: Sequence[Entry]) -> list[int]:
        """Numbers of these items' rows."""
        return [number for entry in entries for number in self.of_item[entry.id]]

    def order(
        self,
        mix: Mix,
        new: Sequence[Entry],
        replayed: Sequence[Entry],
        losses: Mapping[str, float],
        seed: int,
    ) -> StepMix:
        """What each step takes: pools of what is new, replayed, unknown, and anchors, in this order."""
        weights = replay_weights(replayed, losses)
        counts = [len(self.of_item[entry.id]) for entry in replayed]
        replay = Pool(self.rows_of(replayed), np.repeat(weights / np.maximum(counts, 1), counts))
        pools = [
            (Pool(self.rows_of(new)), mix.new),
            (replay, mix.replayed),
            (Pool(self.unknown), mix.unknown),
            (Pool(self.anchors), mix.anchors),
        ]
        return StepMix(pools, seed)


def material_of(
    bench: MemoryBench,
    entries: Sequence[Entry],
    anchors: Anchors,
    mix: Mix,
    recipe: Recipe,
    seed: int = SEED,
) -> Material:
    """The rows for these items.

    Args:
        mix: of a step: an anchor weighs what its step gives to all, divided among them.
        seed: of the unseen names.
    """
    items = [entry.item for entry in entries]
    forms = [form for item in items for form in trained_forms(item, recipe.forms)]
    unknown = unknown_forms(items, names_of(items), names=recipe.unknown_names, seed=seed)
    kept = [
        Row(row.input_ids, row.labels, loss="kl", weight=mix.anchor_weight / max(1, mix.anchors))
        for row in anchors.trained
    ]
    rows = [*bench.rows(forms), *bench.rows(unknown), *kept]
    of_item: dict[str, list[int]] = {entry.id: [] for entry in entries}
    for number, form in enumerate(forms):
        of_item[form.item].append(number)
    first = len(forms) + len(unknown)
    return Material(rows, of_item, list(range(len(forms), first)), list(range(first, first + len(kept))))
