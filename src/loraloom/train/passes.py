"""Who goes through the model together, and what goes in: pure functions from
candidates' micro-batches to one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loraloom.data.batches import Batch, Numbers, collate
from loraloom.data.encode import Row
from loraloom.evals.heads import Positions
from loraloom.lora.neftune import Noise
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment
from loraloom.records import Task
from loraloom.train.seat import Seat, micro_seed

PADDING_LIMIT = 1.25
"""A pass may hold this many times the tokens that are not padding; beyond, longer rows
get a pass of their own."""


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass. `shares` [rows], float64: what each row's loss sum is multiplied
    by. `at`: where its targets are, once somebody has looked."""

    batch: Batch
    routing: Routing
    noises: tuple[Noise, ...]
    shares: Tensor
    at: Positions | None = None


def group_passes(
    micro: Mapping[str, Numbers], lengths: Sequence[int], token_budget: int
) -> list[list[str]]:
    """Group candidates whose micro-batches are of like length, within the token budget;
    shortest first."""
    longest = {trial: max(lengths[i] for i in rows) for trial, rows in micro.items()}
    groups: list[list[str]] = []
    real = padded_rows = 0
    for trial in sorted(micro, key=lambda t: longest[t]):
        tokens, count = longest[trial] * len(micro[trial]), len(micro[trial])
        padded = (padded_rows + count) * longest[trial]
        if groups and padded <= token_budget and padded <= PADDING_LIMIT * (real + tokens):
            groups[-1].append(trial)
            real, padded_rows = real + tokens, padded_rows + count
        else:
            groups.append([trial])
            real, padded_rows = tokens, count
    return groups


def next_passes(
    micro: Mapping[str, Numbers], lengths: Sequence[int], token_budget: int, workers: int
) -> list[list[str]]:
    """Who goes through the model next: one pass, or for several workers as many passes
    as they take at once.

    Several passes share the token budget, and a micro-batch that is larger than its share has a pass of
    its own. Passes are made smaller where that keeps all workers busy to the end of the tick.
    """
    if workers == 1:
        return group_passes(micro, lengths, token_budget)[:1]
    budget = token_budget // workers
    groups = group_passes(micro, lengths, budget)
    wanted = min(len(micro), -(-len(groups) // workers) * workers)
    low, high = 0, budget if len(groups) < wanted else 0
    while high - low > 1:
        middle = (low + high) // 2
        smaller = group_passes(micro, lengths, middle)
        if len(smaller) <= wanted:
            groups, high = smaller, middle
        else:
            low = middle
    return groups[:workers]


def assemble(
    group: Sequence[Seat], micro: Mapping[str, Numbers], rows: Sequence[Row], pad_id: int, task: Task
) -> Pass:
    """The pass of these candidates' micro-batches, each one's rows beside each other."""
    batch = collate([rows[i] for seat in group for i in micro[seat.id]], pad_id, task)
    segments: list[Segment] = []
    noises: list[Noise] = []
    shares: list[float] = []
    start = 0
    for seat in group:
        stop, seed, alpha = (
            start + len(micro[seat.id]),
            micro_seed(seat),
            seat.candidate.training.neftune_noise_alpha,
        )
        segments.append(Segment(seat.id, start, stop, seed))
        if alpha:
            lengths = tuple(len(rows[i].input_ids) for i in micro[seat.id])
            noises.append(Noise(start, stop, alpha, seed, lengths))
        shares += [1 / seat.window_weight] * (stop - start)
        start = stop
    return Pass(
        batch,
        Routing(tuple(segments), training=True),
        tuple(noises),
        torch.tensor(shares, dtype=torch.float64),
    )


def supervised(row: Row, task: Task) -> int:
    """What a row weighs in a loss: its supervised tokens, or 1 for a class."""
    if task == "seq_cls":
        return 1
    labels = row.labels[1:] if task == "causal_lm" else row.labels
    return int((labels != -100).sum())
