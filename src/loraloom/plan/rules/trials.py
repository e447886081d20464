"""How many candidates a search tries by default: as many as one can wait for."""

from __future__ import annotations

from loraloom.config import names
from loraloom.config.units import parse_seconds
from loraloom.plan.about import About
from loraloom.plan.case import DERIVED, Case
from loraloom.plan.rules import finalist_seeds
from loraloom.plan.time import forecast_time, trainings_of
from loraloom.records import Advice
from loraloom.report.words import duration

KEY = names.TRIALS
ABOUT = About(
    does="How many candidates a search tries.",
    rule=(
        "32 where the whole search, with its race, is forecast to end within half an hour, or within the"
        " time that you allow; else 16 or 4. Most of them are trained for an eighth of their steps and"
        " cut then; with 4 nothing is cut, and only the learning rate is compared, which matters most."
    ),
    evidence=(
        "The forecast of time for your model, data and machine. 32 candidates that are cut early find a"
        " good setting more often than 16 that are cut with care, in the same time (benchmarks/search)."
    ),
    tools={"Optuna": "as many as you say", "Ray Tune": "1"},
)
LEVELS = (32, 16, 4)
"""With its race a search of 8 takes nearly as long as one of 16."""
PATIENCE = 1800.0
"""Seconds that a search may take where no limit was given."""


def advise(case: Case) -> Advice:
    allowed = parse_seconds(case.asked.limits.time)
    patience = PATIENCE if allowed is None else allowed
    seconds = {level: _seconds(case, level) for level in LEVELS}
    most = LEVELS[0]
    value = next((level for level in LEVELS if seconds[level] <= patience), LEVELS[-1])
    reason = f"{value} and their race take about {duration(seconds[value])}"
    if value < most:
        whose = "the limit where none is given" if allowed is None else "what you allow"
        reason += f"; {most} would take {duration(seconds[most])}, and {duration(patience)} is {whose}"
        reason += f": --trials {most} looks further"
    return Advice(value, reason, DERIVED, (4, 128), "M")


def _seconds(case: Case, trials: int) -> float:
    """What a search of so many candidates takes, with its race."""
    trainings = trainings_of(case, trials, finalist_seeds.value_for(case, trials))
    share = trainings / max(1, len(case.facts.workers))
    return forecast_time(case, trials=share, packed=case.decided.max_packed).value
