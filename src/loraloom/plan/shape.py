"""What decides the memory of a pass through the model, beside the model itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from loraloom.facts.device import DeviceKind
from loraloom.plan import engine
from loraloom.plan.case import Decided


@dataclass(frozen=True)
class Shape:
    """Rows, tokens a row, and how they are trained.

    Attributes:
        micro_batch: rows of one candidate.
        packed: candidates that share a pass.
        checkpointing: whether blocks are run again on the way back; "offload" keeps their
            inputs on the host.
        streaming: whether the frozen weights are brought piece by piece.
        workers: passes that run at once, if there are as many candidates.
    """

    micro_batch: int
    length: int
    packed: int = 1
    checkpointing: bool | Literal["offload"] = False
    quantization: str = "none"
    streaming: bool = False
    workers: int = 1
    token_budget: int | None = None
    """Padded tokens of a pass; None for the device's own number."""

    def of_sides(self, sides: int) -> Shape:
        """The same with so many rows for each example."""
        return replace(self, micro_batch=sides * self.micro_batch)

    @property
    def at_once(self) -> int:
        """Passes that run at once."""
        return min(self.workers, self.packed)

    def budget(self, kind: DeviceKind) -> int:
        """Padded tokens that a training pass may have."""
        return self.token_budget or engine.TOKEN_BUDGET[kind]

    def tokens(self, kind: DeviceKind) -> int:
        """Padded tokens of the largest training passes that run at once: they share the budget, and a
        candidate's rows that are more than a share have a pass of their own."""
        one = self.micro_batch * self.length
        token_budget = self.budget(kind)
        alone = one if one <= token_budget // self.at_once else one * self.at_once
        return max(alone, min(one * self.packed, token_budget))


def decided_shape(
    decided: Decided,
    *,
    micro_batch: int | None = None,
    packed: int = 1,
    workers: int = 1,
    token_budget: int | None = None,
) -> Shape:
    """The shape of the plan's own candidate, or of one with another micro-batch."""
    return Shape(
        micro_batch=micro_batch or decided.micro_batch,
        length=decided.length,
        packed=packed,
        checkpointing=decided.checkpointing,
        quantization=decided.quantization,
        streaming=decided.streaming,
        workers=workers,
        token_budget=token_budget,
    )
