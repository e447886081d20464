"""The share of the run in which the rate rises from zero."""

from __future__ import annotations

import math

from loraloom.config.asked import Config
from loraloom.plan.basis import Decided, Facts, total_steps
from loraloom.records import Advice

KEY = "training.warmup_ratio"
USUAL = {"encoder": 0.06, "decoder": 0.03, "encoder_decoder": 0.03}
LEAST_STEPS = 10
MOST = 0.2


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    steps, usual = total_steps(facts, asked, decided), USUAL[facts.model.kind]
    value = min(max(usual, math.ceil(1000 * LEAST_STEPS / steps) / 1000), MOST)
    reason = f"{value * steps:.0f} of {steps:,} steps: Adam's moments need about {LEAST_STEPS} steps before they can be trusted"
    return Advice(
        value, reason, "arXiv:2106.09685" if facts.model.kind == "encoder" else "arXiv:2305.14314", (0.03, 0.06, 0.1), "C"
    )
