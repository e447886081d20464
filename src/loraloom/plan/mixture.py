"""What each source has of a training: rows, share of the batches, and passes over the whole run."""

from __future__ import annotations

from dataclasses import dataclass

from loraloom.data.mix import with_replay
from loraloom.plan.case import Case
from loraloom.plan.numbers import count

MOST_PASSES = 4
"""Repeated this often, rows are still worth nearly as much as new ones; soon after they are not
(Muennighoff et al., arXiv:2305.16264)."""


@dataclass(frozen=True)
class SourceShare:
    """One source of the plan's own candidate.

    Attributes:
        share: of every batch.
        passes: how often the run goes over its rows.
    """

    name: str
    rows: int
    share: float
    passes: float


def mixture(case: Case) -> list[SourceShare]:
    """Every source of a mix, with what is replayed; nothing where one table is all there is."""
    data = case.facts.data
    if not data.parts:
        return []
    parts = with_replay(data.parts, data.replay_rows, case.decided.replay_share)
    total = sum(part.amount for part in parts)
    rows = case.total_steps * case.decided.batch
    return [
        SourceShare(part.name, part.rows, part.amount / total, rows * part.amount / total / part.rows)
        for part in parts
    ]


def mixture_warnings(case: Case) -> list[str]:
    """Sources that come so often that their rows say little new."""
    return [
        f"{one.name} is gone over {count(one.passes)} times: beyond {MOST_PASSES} passes repeated rows"
        " add little, so give it less weight or more rows"
        for one in mixture(case)
        if one.passes > MOST_PASSES
    ]
