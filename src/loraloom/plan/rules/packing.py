"""Whether several rows share one sequence."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.records import Advice

KEY = names.PACKING
ABOUT = About(
    does="Whether several rows share one sequence.",
    rule="No: rows are grouped by length instead.",
    evidence=(
        "Packed without separate attention, rows read each other: 37.6 points against 44.2 kept apart."
        " Grouping by length leaves little padding."
    ),
    tools={"TRL": "false"},
)


def advise(case: Case) -> Advice:
    reason = (
        "rows are grouped by length instead, which leaves little padding: in one sequence, rows would"
        " read each other"
    )
    return Advice(
        False,
        reason,
        "derived here; 44.2 against 37.6 points for rows that were kept apart",
        (False,),
        "C",
    )
