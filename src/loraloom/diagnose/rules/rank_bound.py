"""Every direction of the adapter is used, held-out rows follow the training rows, and
the rank is below the advice."""

from __future__ import annotations

from loraloom.config import names
from loraloom.diagnose.case import LEAST_STEPS, SIGMAS, Case, word
from loraloom.diagnose.rules import overfit
from loraloom.records import Finding

NAME = "rank-bound"
FULL = 0.8
MODULES = 0.8
BELOW_ADVICE = 1 / 4


def judge(case: Case) -> Finding | None:
    modules = list(case.signals.modules.values())
    gap = case.gap
    if not modules or gap is None or case.exit or case.steps < LEAST_STEPS or not case.fall.sure:
        return None
    full = sum(module.effective_rank > FULL * module.r for module in modules)
    r = int(case.values[names.R])
    advised = int(case.advised.get(names.R) or 0)
    if full < MODULES * len(modules) or overfit.judge(case) or gap.mean > SIGMAS * gap.se:
        return None
    below = r <= BELOW_ADVICE * advised
    larger = max(2 * r, advised) if below else 2 * r
    # The scale alpha / r stays what it was, so that the rate need not be tuned again.
    patch = {names.R: larger, names.LORA_ALPHA: float(case.values[names.LORA_ALPHA]) * larger / r}
    return Finding(
        NAME,
        "warning" if below else "note",
        "the adapter is limited by its rank" if below else "all of the adapter's rank is in use",
        f"the effective rank is above {FULL:g} r in {full} of {len(modules)} layers at r {r}; advised r"
        f" {advised}; the training loss fell {word(gap.mean)} +- {word(gap.se)} more than that on"
        " validation",
        f"raise r to {larger} at the same alpha / r",
        patch,
    )
