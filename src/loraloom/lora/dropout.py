"""Dropout of an adapter's inputs: a mask is a pure function of a seed, drawn once and kept as bits until the backward pass."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

LEVELS = 65536
"""Draws are 16-bit integers: p is rounded to a multiple of one in so many."""


class Mask:
    """Which inputs of one adapter are kept in one layer and micro-step, [rows * tokens, features].

    A pure function of (seed, p, rows, features) and of a token's place in its row: drawn token by token over all rows,
    so that how far neighbours made the rows be padded changes nothing before the padding. Checkpointing draws it again.

    Attributes:
        scale: 1 / (1 - p) of the rounded p, so that the mean stays exact.
    """

    def __init__(self, rows: int, tokens: int, features: int, p: float, seed: int) -> None:
        self._shape = (tokens, rows, features)
        self._threshold, self._seed = round(p * LEVELS), seed
        self.scale = LEVELS / (LEVELS - self._threshold)

    def fill(self, into_ND: Tensor) -> Tensor:
        """Write 1 where an input is kept and 0 elsewhere; gives `into_ND`."""
        tokens, rows, features = self._shape
        kept = np.unpackbits(self._bits, count=tokens * rows * features)
        into_ND.view(rows, tokens, features).copy_(torch.from_numpy(kept).view(self._shape).transpose(0, 1))
        return into_ND

    @cached_property
    def _bits(self) -> np.ndarray:
        """One bit an input. NumPy's SFC64 draws many times faster than torch's CPU generator."""
        tokens, rows, features = self._shape
        count = tokens * rows * features
        draws = np.random.SFC64(self._seed).random_raw(-(-count // 4)).view(np.int16)[:count]
        return np.packbits(draws >= self._threshold - LEVELS // 2)


def keep_mask(rows: int, tokens: int, features: int, p: float, seed: int, like: Tensor) -> Tensor:
    """The mask with its scale, for inputs of `like`'s dtype and device: 1 / (1 - p) or 0, [rows * tokens, features]."""
    mask = Mask(rows, tokens, features, p, seed)
    return mask.fill(like.new_empty(rows * tokens, features)).mul_(mask.scale)
