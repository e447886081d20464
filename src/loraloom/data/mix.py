"""Several sources in one training: how much of it each has, and which of their rows each step takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from loraloom.config.asked import DataConfig, SourceConfig
from loraloom.config.sources import mixed_sources
from loraloom.data.batches import CHUNK_BATCHES, Numbers

REPLAY = "replay"
"""The name of the rows of `data.replay` among the sources of a run."""


@dataclass(frozen=True)
class Part:
    """One source of a training.

    Attributes:
        rows: how many training rows it has.
        amount: how many of its rows one epoch of the run takes; not always a whole number.
    """

    name: str
    rows: int
    amount: float

    @property
    def passes(self) -> float:
        """How often its rows come in one epoch of the run."""
        return self.amount / self.rows


def parts_of(data: DataConfig, rows: Mapping[str, int]) -> tuple[Part, ...]:
    """How many rows of each source one epoch of the run takes.

    A source with `epochs` gives as many passes over its rows. The others share an epoch of all their
    rows: by weight (1 where some have one and it has none), else by `data.mix`.

    Args:
        rows: training rows of each source that has any, by name.
    """
    sources = [one for one in mixed_sources(data) if rows.get(one.name or "")]
    shared = [one for one in sources if one.epochs is None]
    total = sum(rows[one.name or ""] for one in shared)
    weights = [_weight(one, data, rows[one.name or ""], shared) for one in shared]
    amounts = {
        one.name: total * weight / math.fsum(weights)
        for one, weight in zip(shared, weights, strict=True)
    }
    amounts |= {one.name: one.epochs * rows[one.name or ""] for one in sources if one.epochs}
    return tuple(Part(one.name or "", rows[one.name or ""], amounts[one.name]) for one in sources)


def _weight(one: SourceConfig, data: DataConfig, rows: int, shared: Sequence[SourceConfig]) -> float:
    """What a source has against the others. With a temperature T, its rows to the power 1/T (Raffel et
    al., arXiv:1910.10683, section 3.5.2)."""
    if any(each.weight for each in shared):
        return one.weight or 1.0
    if data.mix == "equal":
        return 1.0
    temperature = data.mix["temperature"] if isinstance(data.mix, dict) else 1.0
    return rows ** (1 / temperature)


def with_replay(parts: Sequence[Part], rows: int, share: float) -> tuple[Part, ...]:
    """`parts` with a share of every batch from rows that are replayed. An epoch still takes all that it
    took of the others: it is longer by what is replayed.

    Args:
        rows: how many rows may be replayed.
    """
    if not share:
        return tuple(parts)
    own = math.fsum(part.amount for part in parts)
    return (*parts, Part(REPLAY, rows, own * share / (1 - share)))


class MixedOrder:
    """The rows of every optimiser step of a mix, as a pure function of the step.

    Every batch is full. Each of its places goes to the source that is furthest behind its share of all
    places so far (smooth weighted round robin), so that no batch is more than a row or so off. Each
    source is walked through in epochs of its own, shuffled by seed, source and epoch. Of the rows that
    `CHUNK_BATCHES` steps take of a source, the shortest go into one batch, the next into another, and
    so on in the same order for all sources: rows of a batch are as near in length as the sources let
    them be, and lie in it by their length.

    Args:
        lengths: tokens of each row, [rows].
        members: for each source its row numbers and how many rows one epoch of the run takes of it.
        effective_batch: rows of one optimiser step.
        seed: of the shuffles.
    """

    def __init__(
        self,
        lengths: Sequence[int] | NDArray[np.integer],
        members: Sequence[tuple[Numbers, float]],
        effective_batch: int,
        seed: int,
    ) -> None:
        amounts = np.array([amount for _, amount in members], dtype=np.float64)
        if effective_batch < 1:
            raise ValueError(f"`effective_batch` is {effective_batch} but must be at least 1")
        if not members or not (amounts > 0).all() or not all(len(rows) for rows, _ in members):
            raise ValueError("every source of a mix needs rows, and a share above 0")
        self.lengths: Numbers = np.asarray(lengths, dtype=np.int64)
        self.rows = [rows for rows, _ in members]
        self.shares = amounts / amounts.sum()
        self.effective_batch = effective_batch
        self.seed = seed
        self.steps_per_epoch = max(1, math.ceil(float(amounts.sum()) / effective_batch - 1e-9))
        # What each step takes of each source, and where the next one goes on.
        self._counts: list[Numbers] = []
        self._behind = np.zeros(len(members))
        self._chunk = lru_cache(maxsize=2)(self._chunk_of)
        self._walk = lru_cache(maxsize=2 * len(members))(self._walk_of)

    def rows_of_step(self, step: int) -> Numbers:
        """Row numbers of optimiser step `step` (from 0), the shortest first; int64 [batch]."""
        chunk, index = divmod(step, CHUNK_BATCHES)
        return self._chunk(chunk)[index]

    def counts(self, steps: int) -> Numbers:
        """How many rows of each source the first `steps` steps take each, [steps, sources]."""
        while len(self._counts) < steps:
            self._counts.append(self._next_counts())
        return np.stack(self._counts[:steps]) if steps else np.zeros((0, len(self.rows)), np.int64)

    def _next_counts(self) -> Numbers:
        taken = np.zeros(len(self.rows), dtype=np.int64)
        for _ in range(self.effective_batch):
            self._behind += self.shares
            furthest = int(self._behind.argmax())
            self._behind[furthest] -= 1
            taken[furthest] += 1
        return taken

    def _chunk_of(self, chunk: int) -> list[Numbers]:
        first = chunk * CHUNK_BATCHES
        counts = self.counts(first + CHUNK_BATCHES)
        before, now = counts[:first].sum(0), counts[first:]
        by_length = np.random.default_rng([self.seed, chunk]).permutation(CHUNK_BATCHES)
        taken: list[list[Numbers]] = [[] for _ in range(CHUNK_BATCHES)]
        for source in range(len(self.rows)):
            drawn = self._drawn(source, int(before[source]), int(now[:, source].sum()))
            drawn = drawn[np.argsort(self.lengths[drawn], kind="stable")]
            ends = np.cumsum(now[by_length, source])
            for place, rows in zip(by_length, np.split(drawn, ends[:-1]), strict=True):
                taken[place].append(rows)
        batches = [np.concatenate(rows) for rows in taken]
        return [rows[np.argsort(self.lengths[rows], kind="stable")] for rows in batches]

    def _drawn(self, source: int, start: int, count: int) -> Numbers:
        """The rows that a source gives from its `start`-th on."""
        size = len(self.rows[source])
        epochs = range(start // size, (start + count) // size + 1)
        walked = np.concatenate([self._walk(source, epoch) for epoch in epochs])
        begin = start - epochs[0] * size
        return walked[begin : begin + count]

    def _walk_of(self, source: int, epoch: int) -> Numbers:
        rng = np.random.default_rng([self.seed, source, epoch])
        return self.rows[source][rng.permutation(len(self.rows[source]))]
