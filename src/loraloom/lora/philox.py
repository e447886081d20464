"""Random numbers that are a function of a counter: any of them can be drawn at any
time, on any device, many at once.

Philox4x32 of Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", with seven rounds: the
fewest with which it passes BigCrush (table 2 there). Words of 32 bits lie in int64 here, since torch
multiplies no unsigned numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ROUNDS = 7
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFF_FFFF


def key_schedule(seeds: Sequence[int], rounds: int = ROUNDS) -> Tensor:
    """Keys of all rounds for several seeds of 64 bits: [rounds, 2, seeds], on the host."""
    halves = [(seed & WORD, seed >> 32 & WORD) for seed in seeds]
    return torch.tensor(
        [
            [[(half[k] + n * KEY_STEPS[k]) & WORD for half in halves] for k in range(2)]
            for n in range(rounds)
        ],
        dtype=torch.int64,
    )


def philox(
    counter: tuple[Tensor | int, Tensor | int, Tensor | int, Tensor | int], keys: Tensor
) -> list[Tensor]:
    """Four random words for each counter, in [0, 2^32).

    Args:
        counter: four words, of shapes that broadcast.
        keys: as `key_schedule` gives them, [rounds, 2, ...], where the rest broadcasts with the counter.
    """
    c0, c1, c2, c3 = counter
    for k0, k1 in keys:
        # Not narrowed to 32 bits in between: a product of two words has 64, which wrap
        # into int64 and are all there.
        left, right = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = (right >> 32 & WORD) ^ c1 ^ k0, right & WORD
        c2, c3 = (left >> 32 & WORD) ^ c3 ^ k1, left & WORD
    return [c0, c1, c2, c3]  # type: ignore[list-item]
