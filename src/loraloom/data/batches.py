"""Which rows an optimiser step takes, whose rows go through the model together, and how they become
tensors.

The order depends on the seed and the effective batch alone: neither the micro-batch nor the company in a
pack changes what a candidate sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from loraloom.data.joined import fork_of, joined_ids
from loraloom.data.rows import IGNORED, Example, Judged, Pair, Row
from loraloom.records import PreferenceSpec, RowLoss, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK_BATCHES = 50
"""Batches that are sorted by length together: few enough that epochs differ, enough
that padding nearly vanishes."""

PADDING_LIMIT = 1.25
"""A pass may hold this many times the tokens that are not padding; beyond, longer rows get a pass of
their own."""

Numbers = NDArray[np.int64]


class RowOrder(Protocol):
    """Which rows each optimiser step takes."""

    @property
    def steps_per_epoch(self) -> int: ...
    def rows_of_step(self, step: int) -> Numbers:
        """Row numbers of optimiser step `step` (from 0); int64."""
        ...


class Order:
    """The rows of every optimiser step, as a pure function of the step.

    Epochs follow one another without end. In each, all rows come exactly once: shuffled, cut into chunks
    of `CHUNK_BATCHES` batches, sorted by length inside a chunk, cut into batches, and the batches
    shuffled. The last batch cut is short when the rows do not divide; it is kept.

    Args:
        lengths: tokens of each row, [rows].
        effective_batch: rows of one optimiser step.
        seed: of the shuffles.
    """

    def __init__(
        self, lengths: Sequence[int] | NDArray[np.integer], effective_batch: int, seed: int
    ) -> None:
        if not len(lengths):
            raise ValueError("there are no rows to order")
        if effective_batch < 1:
            raise ValueError(f"`effective_batch` is {effective_batch} but must be at least 1")
        self.lengths: Numbers = np.asarray(lengths, dtype=np.int64)
        self.effective_batch = effective_batch
        self.seed = seed
        self.steps_per_epoch = -(-len(self.lengths) // effective_batch)
        self._batches = lru_cache(maxsize=2)(self._batches_of)

    def rows_of_step(self, step: int) -> Numbers:
        """Row numbers of optimiser step `step` (from 0), near one another in length;
        int64, at most the batch."""
        epoch, index = divmod(step, self.steps_per_epoch)
        return self._batches(epoch)[index]

    def _batches_of(self, epoch: int) -> list[Numbers]:
        rng = np.random.default_rng([self.seed, epoch])
        shuffled = rng.permutation(len(self.lengths))
        size = self.effective_batch * CHUNK_BATCHES
        batches: list[Numbers] = []
        for start in range(0, len(shuffled), size):
            chunk = shuffled[start : start + size]
            chunk = chunk[np.argsort(self.lengths[chunk], kind="stable")]
            batches += [
                chunk[i : i + self.effective_batch] for i in range(0, len(chunk), self.effective_batch)
            ]
        return [batches[i] for i in rng.permutation(len(batches))]


def micro_batches(rows: Numbers, micro: int) -> list[Numbers]:
    """`rows` in pieces of at most `micro`, in their order."""
    if micro < 1:
        raise ValueError(f"`micro` is {micro} but must be at least 1")
    return [rows[start : start + micro] for start in range(0, len(rows), micro)]


def group_passes(
    micro: Mapping[str, Numbers], lengths: Sequence[int], token_budget: int
) -> list[list[str]]:
    """Group candidates whose micro-batches are of like length, within the token budget; shortest first.

    Args:
        micro: row numbers of each candidate's micro-batch.
        lengths: tokens of each row.
        token_budget: padded tokens of a pass; one with a single micro-batch may exceed it.
    """
    longest = {trial: max(lengths[i] for i in rows) for trial, rows in micro.items()}
    groups: list[list[str]] = []
    # Of the group that is being filled: tokens of each micro-batch padded to itself, and rows.
    real = rows = 0
    for trial in sorted(micro, key=lambda t: longest[t]):
        count = len(micro[trial])
        tokens = count * longest[trial]
        padded = (rows + count) * longest[trial]
        if groups and padded <= token_budget and padded <= PADDING_LIMIT * (real + tokens):
            groups[-1].append(trial)
            real += tokens
            rows += count
        else:
            groups.append([trial])
            real = tokens
            rows = count
    return groups


def next_passes(
    micro: Mapping[str, Numbers], lengths: Sequence[int], token_budget: int, workers: int
) -> list[list[str]]:
    """Who goes through the model next: one pass, or for several workers as many passes as they take at
    once.

    Several passes share the token budget, and a micro-batch that is larger than its share has a pass of
    its own. Passes are made smaller where that keeps all workers busy to the end of the tick.
    """
    if workers == 1:
        return group_passes(micro, lengths, token_budget)[:1]
    budget = token_budget // workers
    groups = group_passes(micro, lengths, budget)
    # So many passes take no longer than those of now, if all workers are busy in the last round too.
    wanted = min(len(micro), -(-len(groups) // workers) * workers)
    # The smallest budget that still gives no more of them: the work is then divided most evenly.
    low = 0
    high = budget if len(groups) < wanted else 0
    while high - low > 1:
        middle = (low + high) // 2
        smaller = group_passes(micro, lengths, middle)
        if len(smaller) <= wanted:
            groups = smaller
            high = middle
        else:
            low = middle
    return groups[:workers]


def supervised(row: Example, task: Task) -> int:
    """What an example weighs in a loss: its supervised tokens, or 1 for a class or a choice."""
    if task == "seq_cls" or not isinstance(row, Row):
        return 1
    # A decoder predicts each token from those before it: nothing predicts the first.
    labels = row.labels[1:] if task == "causal_lm" else row.labels
    return int((labels != IGNORED).sum())


@dataclass(frozen=True)
class Term:
    """What a candidate's window forms of one of its pairs or judged answers.

    Attributes:
        per_token: what a pair's negative log-likelihood is multiplied by, so that its mean over the
            window's pairs is the mean over their tokens.
        kl: how far the candidate has moved from the reference, for `kto`; in nats, at least 0.
    """

    spec: PreferenceSpec
    per_token: float = 1.0
    kl: float = 0.0


@dataclass(frozen=True, eq=False)
class Batch:
    """Right-padded tensors: B rows, T tokens of the longest, U of the longest target."""

    input_ids: Tensor
    """int64 [B, T]"""
    attention_mask: Tensor
    """bool [B, T], true on tokens"""
    labels: Tensor
    """int64: causal_lm [B, T] and seq2seq_lm [B, U], -100 where nothing is supervised; seq_cls [B], but
    where answers are compared [B, T]; of joined pairs [2 B, U], side by side"""
    host: Batch | None = None
    """The same batch on the host, where what depends on its numbers is known without
    waiting for the device."""
    losses: tuple[RowLoss, ...] = ()
    """What is formed of each row [B]; empty where it is "nll" for all."""
    examples: tuple[Pair | Judged, ...] = ()
    """What the rows are the sides of, in this order; empty where each row stands alone."""
    terms: tuple[Term, ...] = ()
    """What is formed of each of `examples`; empty where they are only scored."""
    forks: Tensor | None = None
    """int64 [B, 2], `fork_of` each row, where each is a pair whose sides are joined; else None"""

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        if str(self.input_ids.device) == str(device):
            return self
        # CUDA copies from pinned memory in its own time; from any other the host would wait for it.
        pinned = str(device).startswith("cuda")

        def moved(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(device, non_blocking=True) if pinned else tensor.to(device)

        return replace(
            self,
            input_ids=moved(self.input_ids),
            attention_mask=moved(self.attention_mask),
            labels=moved(self.labels),
            forks=None if self.forks is None else moved(self.forks),
            host=self.on_host,
        )

    @property
    def on_host(self) -> Batch:
        return self.host or self


def collate(
    examples: Sequence[Example],
    pad_id: int,
    task: Task,
    terms: Sequence[Term] = (),
    *,
    joined: bool = False,
) -> Batch:
    """Pad rows, or the sides of `examples`, on the right to one batch.

    Args:
        terms: as of a batch.
        joined: the sides of a pair are one row, where all examples are pairs.
    """
    import torch

    rows = [side for example in examples for side in example.sides]
    compared = tuple(one for one in examples if not isinstance(one, Row))
    pairs = [one for one in examples if isinstance(one, Pair)] if joined else []
    joined = joined and len(pairs) == len(examples)
    ids = [joined_ids(pair) for pair in pairs] if joined else [row.input_ids for row in rows]
    lengths = np.array([len(each) for each in ids])
    labels = (
        np.concatenate([row.labels for row in rows])
        if task == "seq_cls" and not compared
        else _padded([r.labels for r in rows], IGNORED)
    )
    losses: tuple[RowLoss, ...] = tuple(row.loss for row in rows)
    return Batch(
        torch.from_numpy(_padded(ids, pad_id)),
        torch.from_numpy(np.arange(lengths.max()) < lengths[:, None]),
        torch.from_numpy(labels.astype(np.int64)),
        losses=() if all(loss == "nll" for loss in losses) else losses,
        examples=compared,
        terms=tuple(terms),
        forks=torch.tensor([fork_of(pair) for pair in pairs]) if joined else None,
    )


def _padded(ids: Sequence[NDArray[np.int32]], fill: int) -> Numbers:
    padded = np.full((len(ids), max(len(each) for each in ids)), fill, dtype=np.int64)
    for row, each in zip(padded, ids, strict=True):
        row[: len(each)] = each
    return padded
