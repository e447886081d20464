"""What candidates that learn to prefer are held against."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import DERIVED, Case
from loraloom.records import Advice

KEY = names.REFERENCE
BASE = "base"
ABOUT = About(
    does="What candidates are held against: the base, or the folder of an adapter.",
    rule="The base; where a run begins with an adapter (`adapter.init_from`), that adapter.",
    evidence=(
        "DPO holds a candidate against what it begins as (arXiv:2305.18290). TRL does the same: a model"
        " that has an adapter is held against a frozen copy of it."
    ),
    tools={"TRL": "the model as it is handed in"},
)


def advise(case: Case) -> Advice:
    initial = case.facts.initial
    value = BASE if initial is None else initial.place
    return Advice(value, "what every candidate begins as", DERIVED)
