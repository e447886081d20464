"""A target layer whose B is still 0 changes nothing: no gradient ever came to it."""

from __future__ import annotations

from loraloom.config import names
from loraloom.diagnose.case import LEAST_STEPS, Case
from loraloom.records import Finding

NAME = "adapter-not-trained"
WHOLE_STEPS = 2
"""A part of a model may wait for the row that needs it; of a whole adapter, B moves with the first
gradient, whatever its size, and the second step is at a rate above 0 in every schedule."""
SHOWN = 3


def judge(case: Case) -> Finding | None:
    modules = case.signals.modules
    dead = [path for path, module in modules.items() if module.b_norm == 0]
    whole = len(dead) == len(modules)
    if not dead or not case.fresh_b or case.steps < (WHOLE_STEPS if whole else LEAST_STEPS):
        return None
    named = ", ".join(dead[:SHOWN]) + (" ..." if len(dead) > SHOWN else "")
    return Finding(
        NAME,
        "fault" if whole else "warning",
        "no target layer was trained" if whole else "some target layers were not trained",
        f"B is exactly 0 after {case.steps} steps in {len(dead)} of {len(modules)} layers: {named}",
        "train layers that a gradient reaches: all linear ones, unless a part of the model is cut off",
        {names.TARGET_MODULES: "all-linear"} if whole else {},
    )
