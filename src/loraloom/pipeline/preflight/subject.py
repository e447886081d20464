"""What the checks look at: a request, everything that was read for it, and the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loraloom.config.asked import Config
from loraloom.data.encode import Encoded, Row
from loraloom.data.recognise import Recognised
from loraloom.data.split import Splits
from loraloom.errors import LoraloomError
from loraloom.plan.case import Case
from loraloom.plan.planner import Facts, Plan

if TYPE_CHECKING:
    from loraloom.pipeline.preflight.rehearsal import Rehearsal


@dataclass(frozen=True)
class Subject:
    """One request under inspection.

    Attributes:
        plan: of the request; where a part of it was refused, of what is left.
        whole: the data at full length; None where they could not be encoded.
        data: the same, cut to the plan's length.
        replay: rows that are trained on beside them; retain: rows that are only scored.
        refused: what the program said no to on the way, by the check that it belongs to.
        disk_bytes: what the run would write.
        rehearsal: one batch through the real model; None where none was made.
        unrehearsed: why there was none.
    """

    config: Config
    facts: Facts
    plan: Plan
    splits: Splits
    recognised: Recognised
    tokenizer: Any
    whole: Encoded | None
    data: Encoded | None
    replay: tuple[Row, ...] = ()
    retain: tuple[Row, ...] = ()
    refused: Mapping[str, LoraloomError] = field(default_factory=dict[str, LoraloomError])
    disk_bytes: int = 0
    rehearsal: Rehearsal | None = None
    unrehearsed: str = "not asked for"

    @property
    def case(self) -> Case:
        """The request with what the plan decided: what forecasts are made for."""
        return Case(self.facts, self.config, self.plan.settings)
