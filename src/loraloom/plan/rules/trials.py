"""How many candidates a search tries where nobody says: as many as one can wait for."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.config.units import parse_seconds
from loraloom.plan.about import About
from loraloom.plan.basis import DERIVED, Decided, Facts
from loraloom.plan.rules import finalist_seeds
from loraloom.plan.time import forecast_time
from loraloom.records import Advice
from loraloom.report.words import duration
from loraloom.search.finals import race_runs

KEY = "search.trials"
ABOUT = About(
    does="How many candidates a search tries.",
    rule=(
        "16 where the whole search, with its race, is forecast to end within half an hour, or within the time that you allow; "
        "else 8, else 4. With 4 only the learning rate is compared, which matters most."
    ),
    evidence="The forecast of time for your model, data and machine, in which no candidate is pruned.",
    tools={"Optuna": "as many as you say", "Ray Tune": "1"},
)
LEVELS = (16, 8, 4)
PATIENCE = 1800.0
"""Seconds that a search may take for which nobody said how long."""


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    allowed = None if asked.limits.time is None else parse_seconds(asked.limits.time)
    patience = PATIENCE if allowed is None else allowed
    packed = decided["limits.max_packed"].value
    seconds = {
        level: forecast_time(facts, asked, decided, trials=level + race_runs(level, _seeds(asked, level)), packed=packed).value
        for level in LEVELS
    }
    most = LEVELS[0]
    value = next((level for level in LEVELS if seconds[level] <= patience), LEVELS[-1])
    reason = f"with their race {value} take about {duration(seconds[value])}"
    if value < most:
        limit = f"{duration(patience)} is {'the limit where none is given' if allowed is None else 'what you allow'}"
        reason += f"; {most} would take {duration(seconds[most])}, and {limit}: --trials {most} looks further"
    return Advice(value, reason, DERIVED, (4, 128), "M")


def _seeds(asked: Config, trials: int) -> int:
    return finalist_seeds.value_for(asked, trials)
