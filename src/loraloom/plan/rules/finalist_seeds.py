"""Over how many seeds the finalists of a search are trained again."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.records import Advice
from loraloom.search.finals import finalists_of, seeds_of

KEY = names.SEEDS_FOR_FINALISTS
ABOUT = About(
    does="Over how many fresh seeds each finalist of a search is trained again; 1 leaves the race out.",
    rule="3, and 2 after a search of 4 candidates.",
    evidence=(
        "The variance between seeds is large with LoRA (arXiv:2503.07329), and the best of many is"
        " flattered by luck. Three paired seeds tell a difference of about 1.5 standard deviations from"
        " chance."
    ),
    tools={"Optuna": "1", "Ray Tune": "1"},
)


def advise(case: Case) -> Advice:
    trials = case.decided.trials
    reason = (
        f"one seed cannot tell skill from luck: the best {finalists_of(trials)} of {trials} settings"
        " race"
    )
    return Advice(seeds_of(trials), reason, "arXiv:2503.07329", (1, 5), "B")


def value_for(case: Case, trials: int) -> int:
    """The seeds of a race after so many candidates: what was asked, or the rule's."""
    given = case.asked.search.seeds_for_finalists
    return seeds_of(trials) if given == "auto" else given
