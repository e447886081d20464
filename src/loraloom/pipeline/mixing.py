"""Of a run that mixes sources or replays rows: what is known of them, and their order for each
candidate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from loraloom.config.asked import DataConfig
from loraloom.data.batches import Numbers, Order, RowOrder
from loraloom.data.mix import MixedOrder, Part, parts_of, with_replay
from loraloom.data.rows import Encoded, Example
from loraloom.data.table import once
from loraloom.facts.data import PERCENTILES, DataFacts, data_facts
from loraloom.records import Candidate
from loraloom.train.seat import OrderOf, shuffled

OWN = "train"
"""What the task's rows are called beside those that are replayed, where they are of one source."""


def parts_of_rows(data: DataConfig, rows: Sequence[Example], *, replays: bool) -> tuple[Part, ...]:
    """The sources of the training rows; none where one table is all there is."""
    if data.is_mixed:
        return parts_of(data, Counter(row.source for row in rows))
    return (Part(OWN, len(rows), len(rows)),) if replays else ()


def facts_with_sources(
    asked: DataConfig, facts: DataFacts, data: Encoded, replayed: Encoded | None
) -> DataFacts:
    """Facts of the training rows, with what is mixed among them and replayed beside them."""
    parts = parts_of_rows(asked, data.train, replays=replayed is not None)
    facts = replace(facts, parts=parts)
    if replayed is None:
        return facts
    beside = data_facts(replayed)
    both = {share: max(facts.percentiles[share], beside.percentiles[share]) for share in PERCENTILES}
    counts = tuple(a + b for a, b in zip(facts.label_counts, beside.label_counts, strict=True))
    return replace(
        facts,
        replay_rows=beside.rows,
        # Rows are cut and memory is planned for the longest that a step may take.
        percentiles=both,
        longest=max(facts.longest, beside.longest),
        longest_anywhere=max(facts.longest_anywhere, beside.longest_anywhere),
        label_counts=counts,
        notes=once([*facts.notes, *beside.notes]),
    )


def mixed_orders(data: DataConfig, own: Sequence[Example], replay: Sequence[Example]) -> OrderOf:
    """Which rows a candidate's steps take, of the task's own with the replayed behind them: the usual
    epochs of all rows where nothing is mixed or replayed."""
    parts = parts_of_rows(data, own, replays=bool(replay))
    if not parts:
        return shuffled([len(row) for row in own])
    lengths = np.array([len(row) for row in (*own, *replay)], dtype=np.int64)
    numbers = _numbers(own, parts)

    @lru_cache(maxsize=64)
    def order(share: float, effective: int, seed: int) -> RowOrder:
        if not data.is_mixed and not share:
            return Order(lengths[: len(own)], effective, seed)
        amounts = [part.amount for part in with_replay(parts, len(replay), share)]
        members = [*numbers, np.arange(len(own), len(lengths))]
        return MixedOrder(lengths, list(zip(members, amounts, strict=False)), effective, seed)

    def of_candidate(candidate: Candidate) -> RowOrder:
        spec = candidate.training
        effective = spec.per_device_train_batch_size * spec.gradient_accumulation_steps
        return order(spec.replay_share, effective, spec.seed)

    return of_candidate


def _numbers(own: Sequence[Example], parts: Sequence[Part]) -> list[Numbers]:
    """The row numbers of each source."""
    sources = np.array([row.source for row in own])
    if len(parts) == 1 and parts[0].name == OWN:
        return [np.arange(len(own))]
    return [np.flatnonzero(sources == part.name) for part in parts]
