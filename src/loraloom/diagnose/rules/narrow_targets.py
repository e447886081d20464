"""Few of the layers that could be trained are."""

from __future__ import annotations

from loraloom.config import names
from loraloom.diagnose.case import Case
from loraloom.records import Finding

NAME = "narrow-targets"
NARROW = 0.2
"""Share of the linear layers: query and value alone, the usual small choice, are more."""


def judge(case: Case) -> Finding | None:
    if case.exit or not case.adaptable or case.adapted >= NARROW * case.adaptable:
        return None
    return Finding(
        NAME,
        "warning",
        "few layers are trained: most of the model cannot adapt",
        f"{case.adapted} of {case.adaptable} linear layers are targets",
        "train all linear layers; if memory is short, lower the rank rather than the number of layers",
        {names.TARGET_MODULES: "all-linear"},
    )
