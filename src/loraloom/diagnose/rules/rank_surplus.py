"""Most of the adapter's rank is empty, or far more than the rows can fill.

A direction that holds noise alone counts as used: Adam's steps are about equally long whatever the
gradient, so that small batches spread a little of every update over all of the rank. Where the rank is
also far above the advised one, which is sized by what there is to learn from, it is therefore enough
that it is not in full use.
"""

from __future__ import annotations

from loraloom.config import names
from loraloom.diagnose.case import LEAST_STEPS, Case
from loraloom.diagnose.rules.rank_bound import FULL
from loraloom.records import Finding

NAME = "rank-surplus"
EMPTY = 0.25
MODULES = 0.8
ABOVE_ADVICE = 4
FLOOR = 8
"""Below this rank there is nothing to save."""


def judge(case: Case) -> Finding | None:
    modules = list(case.signals.modules.values())
    r = int(case.values[names.R])
    if not modules or r <= FLOOR or case.exit or case.steps < LEAST_STEPS:
        return None
    advised = int(case.advised.get(names.R) or 0)
    used = FULL if advised and r >= ABOVE_ADVICE * advised else EMPTY
    empty = sum(module.effective_rank < used * module.r for module in modules)
    if empty < MODULES * len(modules):
        return None
    middle = sorted(module.effective_rank for module in modules)[len(modules) // 2]
    return Finding(
        NAME,
        "warning" if advised and r >= 2 * advised else "note",
        "the rank is larger than the task uses",
        f"the effective rank is below {used:g} r in {empty} of {len(modules)} layers; the median is"
        f" {middle:.1f} at r {r}" + (f"; advised r {advised}" if advised else ""),
        f"halve r to {r // 2} at the same alpha / r: half the parameters for the same result",
        {names.R: r // 2, names.LORA_ALPHA: float(case.values[names.LORA_ALPHA]) / 2},
    )
