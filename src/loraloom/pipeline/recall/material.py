"""The rows that a memory trains on: forms of its items, unseen names, anchors; and what a step takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from loraloom.data.rows import Row
from loraloom.pipeline.recall.anchors import Anchors
from loraloom.pipeline.recall.as_base import filled_rows
from loraloom.pipeline.recall.bench import CURRENT, MemoryBench
from loraloom.pipeline.recall.update import Update
from loraloom.recall.composed import unknown_of_graph
from loraloom.recall.forms import AS_THE_BASE, Form, names_of, trained_forms, unknown_forms, vague_forms
from loraloom.recall.mix import Mix, Pool, StepMix, replay_weights
from loraloom.recall.places import WAY_KINDS
from loraloom.recall.recipe import Recipe
from loraloom.recall.state import Entry

SEED = 11


@dataclass(frozen=True)
class Material:
    """All rows of a course, and which are what.

    Attributes:
        of_item: numbers of the rows of each item, by id.
        derived: numbers of the rows of what follows from items, by the ids of those.
        ways: those of them that are ways on a map.
        unknown, neighbours, anchors, asked: numbers of the others.
    """

    rows: list[Row]
    of_item: Mapping[str, list[int]]
    derived: Mapping[tuple[str, ...], list[int]]
    ways: frozenset[int]
    unknown: list[int]
    neighbours: list[int]
    anchors: list[int]
    asked: list[int]

    def rows_of(self, entries: Sequence[Entry]) -> list[int]:
        """Numbers of these items' rows."""
        return [number for entry in entries for number in self.of_item[entry.id]]

    @property
    def forms(self) -> int:
        """How many rows ask for something to remember."""
        return sum(map(len, (*self.of_item.values(), *self.derived.values())))

    def fresh(self, bench: MemoryBench, update: Update) -> list[int]:
        """Numbers of the rows of what follows that an update does not answer."""
        numbers = [number for rows in self.derived.values() for number in rows]
        if not numbers:
            return []
        with bench.seated({CURRENT: update}) as trials:
            (sums,) = bench.sums([self.rows[number] for number in numbers], trials).values()
        wrong = sums.correct < sums.weight
        return [number for number, missed in zip(numbers, wrong, strict=True) if missed]

    def following(self, item: str) -> list[int]:
        """Numbers of the rows of what follows from an item, perhaps with others."""
        return [number for of, rows in self.derived.items() if item in of for number in rows]

    def drilled(self, new: Sequence[Entry]) -> list[list[int]]:
        """Numbers of the rows that are learnt with new items: of each item, and of all that follows from
        the same items, a new one among them."""
        ids = {entry.id for entry in new}
        return [
            *(self.of_item[entry.id] for entry in new),
            *(rows for of, rows in self.derived.items() if ids & set(of)),
        ]

    def order(
        self,
        mix: Mix,
        new: Sequence[Entry],
        replayed: Sequence[Entry],
        losses: Mapping[str, float],
        seed: int,
        fresh: Sequence[int] = (),
    ) -> StepMix:
        """What each step takes: pools of what is new, replayed, unknown, of neighbours and anchors, in
        this order.

        Args:
            fresh: rows of what follows that are new, too.
        """
        pools = [
            (Pool([*(row for rows in self.drilled(new) for row in rows), *fresh]), mix.new),
            (self._replay(replayed, losses, set(fresh)), mix.replayed),
            (Pool(self.unknown), mix.unknown if self.unknown else 0),
            (Pool(self.neighbours), mix.neighbours if self.neighbours else 0),
            (Pool(self.anchors), mix.anchors),
            (Pool(self.asked), mix.asked if self.asked else 0),
        ]
        return StepMix(pools, [len(row) for row in self.rows], seed)

    def _replay(self, entries: Sequence[Entry], losses: Mapping[str, float], fresh: Set[int]) -> Pool:
        """Each item weighs what it matters, and what follows from some as much as they do on average; of
        a map each way weighs as much as one wording of a trajectory, since there are many of them."""
        of_id = dict(zip((entry.id for entry in entries), replay_weights(entries, losses), strict=True))
        rows: list[int] = []
        weights: list[float] = []
        for name in of_id:
            group = self.of_item[name]
            rows += group
            weights += [of_id[name] / len(group)] * len(group)
        for of, numbers in self.derived.items():
            if of_id.keys() >= set(of):
                group = [number for number in numbers if number not in fresh]
                wordings = len(self.of_item[of[0]]) if self.ways & set(group) else len(group)
                mean = float(np.mean([of_id[name] for name in of]))
                rows += group
                weights += [mean / max(1, wordings)] * len(group)
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
    derived = [form for form in derived if form.kind not in recipe.left_out]
    forms += vague_forms(items, recipe.vague_forms)
    unknown = unknown_forms(
        items,
        names_of(items),
        names=recipe.unknown_names,
        seed=seed,
        alike=recipe.unknown_alike,
        vague_share=recipe.unknown_vague,
    )
    others = [form for form in unknown if form.answer == AS_THE_BASE]
    unknown = [form for form in unknown if form.answer != AS_THE_BASE]
    if unknown:
        unknown += unknown_of_graph(derived, names_of(items), seed=seed)
    rows = [
        *bench.rows([*forms, *derived, *unknown]),
        *_diverging(filled_rows(bench, others), mix.neighbour_weight, mix.neighbours),
        *_diverging(anchors.trained, mix.anchor_weight, mix.anchors),
        *_diverging(anchors.asked, mix.asked_weight, mix.asked),
    ]
    of_item: dict[str, list[int]] = {entry.id: [] for entry in entries}
    for number, form in enumerate(forms):
        of_item[form.item].append(number)
    follows: dict[tuple[str, ...], list[int]] = {}
    for number, form in enumerate(derived, start=len(forms)):
        follows.setdefault(form.of, []).append(number)
    ways = frozenset(
        number for number, form in enumerate(derived, start=len(forms)) if form.kind in WAY_KINDS
    )
    counts = [len(unknown), len(others), len(anchors.trained), len(anchors.asked)]
    ends = np.cumsum([len(forms) + len(derived), *counts]).tolist()
    places = [list(range(first, last)) for first, last in pairwise(ends)]
    return Material(rows, of_item, follows, ways, *places)


def _diverging(rows: Sequence[Row], weight: float, of_step: int) -> list[Row]:
    """The same rows, whose loss is their divergence from the base: all of a step weigh so much."""
    return [Row(row.input_ids, row.labels, loss="kl", weight=weight / max(1, of_step)) for row in rows]
