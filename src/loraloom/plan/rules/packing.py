"""Whether several rows share one sequence."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.about import About
from loraloom.plan.inputs import Decided, Facts
from loraloom.records import Advice

KEY = "data.packing"
ABOUT = About(
    does="Whether several rows share one sequence.",
    rule="No: rows are grouped by length instead.",
    evidence=(
        "Packed without separate attention, rows read each other: 37.6 points against 44.2 kept apart."
        " Grouping by length leaves little padding."
    ),
    tools={"TRL": "false"},
)


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
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
