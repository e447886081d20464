"""What the reference thinks of the pairs: where it has the chosen answers for the likelier ones already,
there is little in them to learn.

An answer counts as likelier only where it is so as a whole and a token. Length alone makes either of the
two: a whole answer is the less likely the longer it is, and tokens of a long one are easier to guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loraloom.records import Finding

NAME = "already-preferred"
SHARE = 0.95
LEAST_PAIRS = 20
"""Fewer say little."""


def already_preferred(likelier: Mapping[str, Sequence[bool]], reference: str) -> Finding | None:
    """The finding, where it holds for any of the splits.

    Args:
        likelier: by split, of each pair whether its chosen answer is likelier.
        reference: in words, what candidates begin with.
    """
    shares = {
        split: sum(pairs) / len(pairs) for split, pairs in likelier.items() if len(pairs) >= LEAST_PAIRS
    }
    if max(shares.values(), default=0.0) < SHARE:
        return None
    told = (f"{share:.0%} of {len(likelier[split]):,} {split} pairs" for split, share in shares.items())
    return Finding(
        NAME,
        "warning",
        f"{reference} prefers nearly all chosen answers before training: such pairs teach little",
        f"the chosen answer is the likelier one, as a whole and a token, in {', '.join(told)}",
        "take pairs of answers that the model writes itself, of which the better one was chosen",
    )
