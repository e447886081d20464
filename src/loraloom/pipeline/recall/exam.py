"""What adapters answer, measured: as trained, in other words, of unseen names, and of what the base
knew before.

A question is right where every token of the answer, its end too, is the model's first choice. That is
what writing freely and always taking the likeliest token gives, in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loraloom.evals.scoring import RowSums
from loraloom.pipeline.recall.anchors import Anchors
from loraloom.pipeline.recall.as_base import filled_rows
from loraloom.recall.forms import (
    HELD_OUT_NAMES,
    Form,
    held_out_forms,
    names_of,
    trained_forms,
    unknown_forms,
)
from loraloom.recall.items import MemoryItem
from loraloom.recall.verdict import Result

if TYPE_CHECKING:
    from loraloom.pipeline.recall.bench import MemoryBench

SEED = 0


@dataclass(frozen=True)
class Answered:
    """How one adapter did.

    Attributes:
        verbatim: whether the question as it was written is answered, by id of the item.
        right: share of each item's other wordings, by id.
        losses: of the answer to the question as it was written, nats a token, by id.
    """

    result: Result
    verbatim: Mapping[str, bool]
    right: Mapping[str, float]
    losses: Mapping[str, float]


class Exam:
    """Questions about items, and what the base should still be able to do.

    Args:
        derived: held-out wordings of what follows from the items.

    Attributes:
        forms: the questions, those about unseen names last.
    """

    def __init__(
        self,
        bench: MemoryBench,
        items: Sequence[MemoryItem],
        anchors: Anchors,
        derived: Sequence[Form] = (),
    ) -> None:
        self.bench, self.items, self.anchors = bench, items, anchors
        asked = [form for item in items for form in (trained_forms(item)[0], *held_out_forms(item))]
        self.forms: list[Form] = [
            *asked,
            *derived,
            *unknown_forms(items, names_of(items), names=HELD_OUT_NAMES, seed=SEED, held_out=True),
        ]
        self.rows = filled_rows(bench, self.forms)

    def taken_by(self, trials: Sequence[str], names: Mapping[str, str] | None = None) -> list[Answered]:
        """What adapters in the pack answer; the bare base, where none is named.

        Args:
            names: what results are called, by trial; as the trial where it is not named.
        """
        rows = self.bench.sums(self.rows, trials)
        moved = self.bench.sums(self.anchors.held_out, trials)
        texts = self.bench.sums(self.anchors.texts, trials)
        known = self.bench.sums(self.anchors.known, trials)
        return [
            self._answered(
                (names or {}).get(trial, trial), *(one[trial] for one in (rows, moved, texts, known))
            )
            for trial in (trials or [""])
        ]

    def _answered(
        self, name: str, rows: RowSums, moved: RowSums, texts: RowSums, known: RowSums
    ) -> Answered:
        right = rows.correct == rows.weight
        verbatim: dict[str, bool] = {}
        losses: dict[str, float] = {}
        others: dict[str, list[bool]] = {}
        derived: dict[str, list[bool]] = {}
        unseen: list[bool] = []
        for form, fine, loss in zip(self.forms, right, rows.loss / rows.weight, strict=True):
            if form.kind is not None:
                derived.setdefault(form.kind, []).append(bool(fine))
            elif not form.item:
                unseen.append(bool(fine))
            elif form.distance == "verbatim":
                verbatim[form.item], losses[form.item] = bool(fine), float(loss)
            else:
                others.setdefault(form.item, []).append(bool(fine))
        held_out = [fine for of_item in others.values() for fine in of_item]
        followed = [fine for of_kind in derived.values() for fine in of_kind]
        result = Result(
            name,
            verbatim=_share(verbatim.values()),
            held_out=_share(held_out),
            not_known=_share(unseen),
            moved=float(moved.loss.sum() / moved.weight.sum()),
            perplexity=math.exp(texts.loss.sum() / texts.weight.sum()),
            known=_share(known.correct == known.weight),
            forms=max(1, len(held_out)),
            items=max(1, len(verbatim)),
            derived=_share(followed),
            derived_forms=len(followed),
            by_kind={kind: _share(fine) for kind, fine in derived.items()},
        )
        shares = {item: _share(fine) for item, fine in others.items()}
        return Answered(result, verbatim, shares, losses)


def _share(values: Iterable[bool]) -> float:
    """Of those that are true; 1 where there is nothing to get wrong."""
    found = np.array(list(values), dtype=np.float64)
    return float(found.mean()) if len(found) else 1.0
