"""Every rule about one candidate, once: causes before their effects."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from loraloom.diagnose.case import Case
from loraloom.records import Finding

Rule = Callable[[Case], Finding | None]

_ORDER = (
    "broken_injection",
    "not_trained",
    "preference_not_learnt",
    "diverged",
    "noisy_steps",
    "rate_too_high",
    "rate_too_low",
    "beta_too_small",
    "chosen_falling",
    "nothing_learnt",
    "length_hacking",
    "forgetting",
    "overfit",
    "warmup_spike",
    "narrow_targets",
    "rank_bound",
    "undertrained",
    "rank_surplus",
    "memorised",
    "calibration_drift",
)
"""Names of the files."""
_FILES = [import_module(f"{__name__}.{name}") for name in _ORDER]

RULES: dict[str, Rule] = {module.NAME: module.judge for module in _FILES}
"""Name of the finding -> rule."""
