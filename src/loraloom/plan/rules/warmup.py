"""The share of the run in which the rate rises from zero."""

from __future__ import annotations

import math

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.records import Advice

KEY = names.WARMUP_RATIO
ABOUT = About(
    does="The share of the steps in which the rate rises from zero.",
    rule="3% (6% for encoders), but ten steps at least and 20% at most.",
    evidence=(
        "Adam's second moments are noise for the first steps. QLoRA uses 3% (arXiv:2305.14314), LoRA's"
        " encoders 6% (arXiv:2106.09685)."
    ),
    tools={"transformers": "0 steps", "Unsloth": "5 steps in its notebooks"},
)
USUAL = {"encoder": 0.06, "decoder": 0.03, "encoder_decoder": 0.03}
LEAST_STEPS = 10
MOST = 0.2


def advise(case: Case) -> Advice:
    steps = case.total_steps
    usual = USUAL[case.facts.model.kind]
    value = min(max(usual, math.ceil(1000 * LEAST_STEPS / steps) / 1000), MOST)
    reason = (
        f"{value * steps:.0f} of {steps:,} steps: Adam's moments need about {LEAST_STEPS} steps before"
        " they can be trusted"
    )
    return Advice(
        value,
        reason,
        "arXiv:2106.09685" if case.facts.model.kind == "encoder" else "arXiv:2305.14314",
        (0.03, 0.06, 0.1),
        "C",
    )
