"""What is worth telling about a setting beyond this run's value: each rule's file
carries one `About` beside its rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class About:
    """The standing text of one setting; its value, reason, source and range come from the rule."""

    does: str
    """What the setting changes."""
    rule: str
    """How our value is found."""
    evidence: str
    """What is known, with sources."""
    tools: Mapping[str, str] = field(default_factory=dict[str, str])
    """Tool -> its default, in the tool's own words."""
