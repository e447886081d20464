"""The rows of one candidate in a pass: what layers and kernels need to know to find them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """The rows of one adapter in a micro-batch.

    Attributes:
        trial: whose rows these are.
        start, stop: rows [start, stop) of the batch.
        seed: seeds this micro-step's dropout masks, which go by the layer's number beside it.
    """

    trial: str
    start: int
    stop: int
    seed: int = 0
