"""What the opened test says about validation: a winner that scores worse there than where it was chosen.

A test may simply be harder. So the way from the bare base to the winner is held against the way on
validation, row by row on either side: where the adapter gains as much on the test, the score is lower
and the choice was right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loraloom.diagnose.case import WORTH, Difference, word
from loraloom.records import Finding

NAME = "validation-unlike-test"
LEAST_DRAWS = 8
"""Independent rows of a split below which its error is a guess."""


@dataclass(frozen=True)
class Opened:
    """Costs (less is better) of winner and bare base on one split.

    Attributes:
        winner, base: mean costs with their standard errors.
        gain: by how much the winner is better than the base, paired row by row.
        draws: independent rows (groups, where rows come in groups).
    """

    winner: Difference
    base: Difference
    gain: Difference
    draws: int


def unlike_test(
    trial: str, measure: str, validation: Opened, test: Opened, differs: Sequence[str], advice: str
) -> Finding | None:
    """The finding about both splits, if there is one.

    Args:
        measure: what the costs are: "loss".
        differs: what else is known to differ between the rows.
        advice: what to do where the adapter itself gains less.
    """
    if min(validation.draws, test.draws) < LEAST_DRAWS or not (test.winner - validation.winner).sure:
        return None
    lost = validation.gain - test.gain
    known = (
        "; ".join(differs)
        or "nothing that is counted here (sources, repeats, tokens, lengths, labels, groups)"
    )
    told = (
        f"{measure} of {trial} {_pair(validation.winner)} on validation, {_pair(test.winner)} on the"
        f" test; better than before training by {_pair(validation.gain)} and {_pair(test.gain)}. What"
        f" differs: {known}"
    )
    if lost.sure and lost.mean >= WORTH * validation.gain.mean:
        symptom = "validation does not represent the test: the adapter gains less there"
        return Finding(NAME, "warning", symptom, told, advice)
    if (test.base - validation.base).sure:
        return Finding(
            NAME,
            "note",
            "the test is harder than validation, and was before training too",
            told,
            "judge the adapter by what it gained: on the test it is as large as on validation,"
            " within its error",
        )
    return None


def _pair(value: Difference) -> str:
    return f"{word(value.mean)} +- {word(value.se)}"
