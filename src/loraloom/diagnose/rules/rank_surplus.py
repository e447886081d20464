"""Most of the adapter's rank is empty."""

from __future__ import annotations

from loraloom.diagnose.case import ALPHA, LEAST_STEPS, RANK, Case
from loraloom.records import Finding

NAME = "rank-surplus"
EMPTY = 0.25
MODULES = 0.8
MODULES_WITH_ADVICE = 0.5
"""Enough where the rank is also far above the advised one: the noise of single steps spreads a little of every update over all
of its rank, so that a surplus seldom shows in every layer."""
ABOVE_ADVICE = 4
FLOOR = 8
"""Below this rank there is nothing to save."""


def judge(case: Case) -> Finding | None:
    modules, r = list(case.signals.modules.values()), int(case.values[RANK])
    if not modules or r <= FLOOR or case.exit or case.steps < LEAST_STEPS:
        return None
    empty = sum(module.effective_rank < EMPTY * module.r for module in modules)
    advised = int(case.advised.get(RANK) or 0)
    far_above = bool(advised) and r >= ABOVE_ADVICE * advised
    if empty < (MODULES_WITH_ADVICE if far_above else MODULES) * len(modules):
        return None
    middle = sorted(module.effective_rank for module in modules)[len(modules) // 2]
    return Finding(
        NAME,
        "warning" if advised and r >= 2 * advised else "note",
        "the rank is larger than the task uses",
        f"the effective rank is below {EMPTY:g} r in {empty} of {len(modules)} layers; the median is {middle:.1f} at r {r}",
        f"halve r to {r // 2} at the same alpha / r: half the parameters for the same result",
        {RANK: r // 2, ALPHA: float(case.values[ALPHA]) / 2},
    )
