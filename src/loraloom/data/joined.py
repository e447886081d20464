"""A pair as one row of a batch: what both sides begin with, the rest of the chosen side, and the rest of
the rejected one, which sees the beginning and itself alone (prefix sharing: Wang and Hegde,
arXiv:2410.20305). The prompt then goes through the model once.

    chosen a b c d, rejected a b e   ->   a b c d e, with the rejected side's own place 4 at position 2

Whether a model can read such rows is found out by `evals.joined`.
"""

from __future__ import annotations

import numpy as np

from loraloom.data.rows import Example, Ints, Pair


def shared_tokens(one: Ints, other: Ints) -> int:
    """How many ids both begin with."""
    shorter = min(len(one), len(other))
    differs = one[:shorter] != other[:shorter]
    return int(differs.argmax()) if differs.any() else shorter


def common_start(pair: Pair) -> int:
    """How many tokens both sides begin with: the prompt at least."""
    return shared_tokens(pair.chosen.input_ids, pair.rejected.input_ids)


def fork_of(pair: Pair) -> tuple[int, int]:
    """Of a joined row: tokens that both sides begin with, and the place of the first one that is the
    rejected side's own."""
    return common_start(pair), len(pair.chosen)


def joined_ids(pair: Pair) -> Ints:
    """The tokens of a joined row."""
    return np.concatenate([pair.chosen.input_ids, pair.rejected.input_ids[common_start(pair) :]])


def row_lengths(example: Example, *, joined: bool = False) -> tuple[int, ...]:
    """Tokens of each row that goes through the model for an example.

    Args:
        joined: pairs are one row each.
    """
    if joined and isinstance(example, Pair):
        return (len(example) - common_start(example),)
    return tuple(len(side) for side in example.sides)


def padded_tokens(example: Example, *, joined: bool = False) -> int:
    """Tokens that an example takes in a pass which is padded to it: each row as long as its longest."""
    lengths = row_lengths(example, joined=joined)
    return len(lengths) * max(lengths)
