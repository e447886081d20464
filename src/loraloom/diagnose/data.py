"""Findings about the data alone, known before the first step."""

from __future__ import annotations

from dataclasses import dataclass

from loraloom.config import names
from loraloom.records import Finding

LEAKED_SHARE = 0.02
"""Of the held-out rows: fewer do not move a score by more than its noise."""
LOST_SHARE = 0.05
ENDED_SHARE = 0.5
DATA = ("held-out-rows-trained-on", "answers-cut-off")


@dataclass(frozen=True)
class DataSigns:
    """Counts of rows.

    Attributes:
        rows, held_out: training rows, and those of all other splits together.
        leaked: held-out rows whose content is also trained on.
        lost: share of the supervised tokens that `data.max_length` took.
        cut: training rows that it shortened.
        longest: tokens of the longest training row as it is trained on.
        ended: share of training rows whose last supervised token ends a text; None
            where rows have no end.
        positions: tokens that the model can read at once; None where it has no bound.
    """

    rows: int
    held_out: int
    leaked: int
    lost: float
    cut: int
    longest: int
    ended: float | None
    positions: int | None = None


def data_findings(signs: DataSigns) -> list[Finding]:
    """What is wrong with the rows, as far as these counts show."""
    found: list[Finding] = []
    if signs.leaked > LEAKED_SHARE * signs.held_out:
        found.append(
            Finding(
                DATA[0],
                "warning",
                "held-out rows are also trained on: scores on them look better than they are",
                f"{signs.leaked:,} of {signs.held_out:,} held-out rows repeat a training row",
                "let loraloom take the validation rows out of the training rows, or remove the repeated"
                " ones",
                {names.VALIDATION: 0.1},
            )
        )
    unended = signs.cut > 0 and signs.ended is not None and signs.ended < ENDED_SHARE
    if signs.lost > LOST_SHARE or unended:
        ends = (
            ""
            if signs.ended is None
            else f"; {signs.ended:.0%} of the rows keep the token that ends them"
        )
        longer = (
            2 * signs.longest if signs.positions is None else min(2 * signs.longest, signs.positions)
        )
        can = longer > signs.longest
        found.append(
            Finding(
                DATA[1],
                "warning",
                "answers are cut off: the model learns to break off rather than to stop",
                f"{signs.cut:,} of {signs.rows:,} rows are cut at {signs.longest:,} tokens:"
                f" {signs.lost:.0%} of all lost{ends}",
                (
                    "allow longer rows"
                    if can
                    else f"shorten the rows, or take a model with more than {longer:,} positions"
                ),
                {names.MAX_LENGTH: longer} if can else {},
            )
        )
    return found
