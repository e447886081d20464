"""Every rule about one candidate, once: causes before their effects."""

from __future__ import annotations

from collections.abc import Callable

from loraloom.diagnose.case import Case
from loraloom.diagnose.rules import (
    broken_injection,
    calibration_drift,
    diverged,
    forgetting,
    memorised,
    narrow_targets,
    noisy_steps,
    not_trained,
    nothing_learnt,
    overfit,
    rank_bound,
    rank_surplus,
    rate_too_high,
    rate_too_low,
    undertrained,
    warmup_spike,
)
from loraloom.records import Finding

Rule = Callable[[Case], Finding | None]

_ORDER = (
    broken_injection,
    not_trained,
    diverged,
    noisy_steps,
    rate_too_high,
    rate_too_low,
    nothing_learnt,
    forgetting,
    overfit,
    warmup_spike,
    narrow_targets,
    rank_bound,
    undertrained,
    rank_surplus,
    memorised,
    calibration_drift,
)

RULES: dict[str, Rule] = {module.NAME: module.judge for module in _ORDER}
"""Name of the finding -> rule."""
