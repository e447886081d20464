"""Where the kernels find things: small tables of integers on the device, made from what the host knows.

`PackTables` lives as long as the same candidates sit in the pack: where each candidate's A, B and
gradients lie, layer by layer. `spans` is made for a pass: which tokens are whose. Together they let one
launch serve candidates of any rank, any number of rows and any targets. Weights and gradients stay where
they are: nothing is stacked or padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from loraloom.lora.dropout import LEVELS
from loraloom.lora.transfer import send

if TYPE_CHECKING:
    from loraloom.lora.deltas import LayerWeights
    from loraloom.lora.segment import Segment

A, B, GRAD_A, GRAD_B, BIAS, GRAD_BIAS, RANK, SCALE, THRESHOLD, FIELDS = range(10)
"""Columns of a layer's table, and their number: six addresses (0: none), the rank (0: nothing in this
layer), the scale as the bits of a float32, and how many in `dropout.LEVELS` inputs are dropped."""

CANDIDATE, FIRST, STOP, ORIGIN, SEED, SPAN_FIELDS = 0, 1, 2, 3, 4, 6
"""Columns of a span, and their number: whose tokens, from where to where, where the candidate's own
begin, and the seed of its dropout in two halves of 32 bits, the lower one first."""

TILE = 64
"""Tokens that one program of a kernel takes."""


@dataclass(frozen=True)
class LayerTable:
    """What the candidates of a pack have in one layer.

    Attributes:
        rows_KF: [candidates, FIELDS], int64, on the device.
        most_rank: the largest rank in it.
        aligned: every address and rank allows loads of 16 bytes.
        drops: a candidate has dropout here.
        biased: a candidate trains the bias.
    """

    rows_KF: Tensor
    most_rank: int
    aligned: bool
    drops: bool
    biased: bool


class PackTables:
    """The layer tables of the candidates in a pack. To be made again when one joins or leaves.

    Args:
        trials: all candidates; their order numbers them.
        layers: by a layer's number, what each candidate has in it. Layers in which
            nobody has anything may be left out.
    """

    def __init__(
        self,
        trials: Sequence[str],
        layers: Mapping[int, Mapping[str, LayerWeights]],
        device: torch.device,
    ) -> None:
        self.device = device
        self.numbers = {trial: number for number, trial in enumerate(trials)}
        table = np.zeros((len(layers), len(trials), FIELDS), np.int64)
        for rows, weights in zip(table, layers.values(), strict=True):
            for trial, weight in weights.items():
                rows[self.numbers[trial]] = _row(weight)
        on_device = send(torch.from_numpy(table), device)
        self.layers = {number: _layer(on_device[i], table[i]) for i, number in enumerate(layers)}

    def spans(self, segments: Sequence[Segment], tokens: int) -> Tensor:
        """Whose tokens are where, [spans, SPAN_FIELDS], int32: each segment whole, then
        all in tiles of at most `TILE` tokens.

        Args:
            tokens: of one row of the batch.
        """
        return send(self.host_spans(segments, tokens), self.device)

    def host_spans(self, segments: Sequence[Segment], tokens: int) -> Tensor:
        """The same on the host."""
        whole = [self._span(segment, tokens) for segment in segments]
        tiles = [
            [candidate, first, min(first + TILE, stop), origin, *seed]
            for candidate, start, stop, origin, *seed in whole
            for first in range(start, stop, TILE)
        ]
        return torch.from_numpy(np.array(whole + tiles, np.int64).astype(np.uint32).view(np.int32))

    def _span(self, segment: Segment, tokens: int) -> list[int]:
        start, stop = segment.start * tokens, segment.stop * tokens
        return [
            self.numbers[segment.trial],
            start,
            stop,
            start,
            segment.seed & 0xFFFFFFFF,
            segment.seed >> 32 & 0xFFFFFFFF,
        ]


def _row(weight: LayerWeights) -> list[int]:
    addresses = [
        weight.a_RD,
        weight.b_OR,
        weight.grad_a_RD,
        weight.grad_b_OR,
        weight.bias_O,
        weight.grad_bias_O,
    ]
    return [
        *(0 if tensor is None else tensor.data_ptr() for tensor in addresses),
        weight.a_RD.shape[0],
        int(np.float32(weight.scale).view(np.int32)),
        round(weight.dropout * LEVELS),
    ]


def _layer(rows_KF: Tensor, table: np.ndarray) -> LayerTable:
    aligned = not (table[:, :RANK] % 16).any() and not (table[:, RANK] % 8).any()
    return LayerTable(
        rows_KF,
        int(table[:, RANK].max()),
        bool(aligned),
        bool(table[:, THRESHOLD].any()),
        bool(table[:, BIAS].any()),
    )
