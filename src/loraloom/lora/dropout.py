"""Dropout of an adapter's inputs: a mask is a pure function of a seed, and is made
again where it is needed again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from loraloom.lora.philox import key_schedule, philox
from loraloom.lora.transfer import send

LEVELS = 65536
"""Draws are 16-bit integers: p is rounded to a multiple of one in so many."""


class Mask:
    """Which inputs of one adapter are kept in one layer and micro-step, [rows * tokens, features].

    A pure function of (seed, layer, p, rows, features) and of a token's place in its row, so that how
    far neighbours made the rows be padded changes nothing before the padding. Checkpointing draws it
    again.

    Args:
        seed: of the candidate's micro-step.
        layer: the layer's number.

    Attributes:
        scale: 1 / (1 - p) of the rounded p, so that the mean stays exact.
    """

    def __init__(self, rows: int, tokens: int, features: int, p: float, seed: int, layer: int) -> None:
        self.shape = (rows, tokens, features)
        self.threshold, self.seed, self.layer = round(p * LEVELS), seed, layer
        self.scale = LEVELS / (LEVELS - self.threshold)

    def fill(self, into_ND: Tensor) -> Tensor:
        """Write 1 where an input is kept and 0 elsewhere; gives `into_ND`."""
        fill_all([self], into_ND[None])
        return into_ND

    @cached_property
    def bits(self) -> np.ndarray:
        """One bit an input, for a CPU: drawn token by token over all rows, by NumPy's SFC64, which is
        many times faster than torch's generator. Kept until the backward pass."""
        rows, tokens, features = self.shape
        count = tokens * rows * features
        draws = (
            np.random.SFC64(layer_seed(self.seed, self.layer))
            .random_raw(-(-count // 4))
            .view(np.int16)[:count]
        )
        return np.packbits(draws >= self.threshold - LEVELS // 2)


def fill_all(masks: Sequence[Mask | None], into_KND: Tensor) -> Tensor:
    """Fill the masks of K deltas of one shape, None for one that keeps all; gives `into_KND`."""
    if drawn_in_order(into_KND.device):
        for mask, into_ND in zip(masks, into_KND, strict=True):
            into_ND.fill_(1.0) if mask is None else _unpack(mask, into_ND)
        return into_KND
    some = next(mask for mask in masks if mask is not None)
    seeds = tuple(0 if mask is None else mask.seed for mask in masks)
    levels = tuple(-LEVELS // 2 if mask is None else mask.threshold - LEVELS // 2 for mask in masks)
    draws_KND = _draws(seeds, some.layer, *some.shape, into_KND.device)
    least = levels[0] if len(set(levels)) == 1 else _levels(levels, into_KND.device)
    return into_KND.copy_((draws_KND >= least).view(into_KND.shape))


def drawn_in_order(device: torch.device) -> bool:
    """Whether numbers are drawn one after another, as a CPU is fastest; a GPU draws
    them all at once, and others then."""
    return device.type == "cpu"


def _unpack(mask: Mask, into_ND: Tensor) -> None:
    rows, tokens, features = mask.shape
    kept = np.unpackbits(mask.bits, count=tokens * rows * features)
    into_ND.view(rows, tokens, features).copy_(
        torch.from_numpy(kept).view(tokens, rows, features).transpose(0, 1)
    )


def _draws(
    seeds: tuple[int, ...], layer: int, rows: int, tokens: int, features: int, device: torch.device
) -> Tensor:
    """Integers uniform in [-LEVELS / 2, LEVELS / 2), int16 [K, rows * tokens, features].

    Counted by (eight features, place in the row, row, layer): word w of the four has features 2w and 2w
    + 1. The kernels of a GPU draw the same.
    """
    keys = _keys(seeds, device)
    groups = -(-features // 8)
    counter = (
        _count(groups, device),
        _count(tokens, device)[:, None],
        _count(rows, device)[:, None, None],
        layer,
    )
    words = torch.stack(philox(counter, keys), -1)
    # The lower two of an int64's four int16, the less significant first; shifted so
    # that they may be compared as signed.
    draws = words.view(torch.int16).view(*words.shape, 4)[..., :2] + (-LEVELS // 2)
    return draws.view(len(seeds), rows * tokens, groups * 8)[..., :features]


@lru_cache(maxsize=64)
def _keys(seeds: tuple[int, ...], device: torch.device) -> Tensor:
    """The same in all layers of a pass, so that they are sent once: [rounds, 2, K, 1, 1, 1]."""
    return send(key_schedule(seeds)[..., None, None, None], device)


@lru_cache(maxsize=256)
def _levels(levels: tuple[int, ...], device: torch.device) -> Tensor:
    return send(torch.tensor(levels, dtype=torch.int16), device)[:, None, None]


@lru_cache(maxsize=256)
def _count(number: int, device: torch.device) -> Tensor:
    return torch.arange(number, device=device)


def keep_mask(
    rows: int, tokens: int, features: int, p: float, seed: int, layer: int, like: Tensor
) -> Tensor:
    """The mask with its scale, for inputs of `like`'s dtype and device: 1 / (1 - p) or
    0, [rows * tokens, features]."""
    mask = Mask(rows, tokens, features, p, seed, layer)
    return mask.fill(like.new_empty(rows * tokens, features)).mul_(mask.scale)


def layer_seed(seed: int, number: int) -> int:
    """The seed of one layer's mask in one micro-step, where masks are drawn in order."""
    return ((seed * 1_000_003 + number) * 0x9E37_79B9_7F4A_7C15) & 0x7FFF_FFFF_FFFF_FFFF
