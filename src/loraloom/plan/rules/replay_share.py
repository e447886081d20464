"""How much of every batch is replayed, so that what the model was able to do is not forgotten."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import DERIVED, Case
from loraloom.records import Advice

KEY = names.REPLAY_SHARE
SHARE = 0.1
CHOICES = (0.0, 0.05, 0.1, 0.2, 0.4)
ABOUT = About(
    does=(
        "The share of every batch that is from `data.replay`. An epoch still takes every row of"
        " `data.train` once: it becomes longer by what is replayed."
    ),
    rule="0.1 where there is data to replay; a search tries 0 to 0.4, and weighs what is forgotten.",
    evidence=(
        "Continued pretraining needs 5% on data much like the old and up to 50% on data unlike it"
        " (arXiv:2403.08763), so a search finds it; here see benchmarks/mixing."
    ),
    tools={"transformers": "no replay"},
)


def advise(case: Case) -> Advice:
    if case.asked.data.replay is None:
        return Advice(0.0, "no `data.replay` is named", DERIVED, CHOICES, "M")
    reason = (
        f"of {case.facts.data.replay_rows:,} rows to replay: enough to hold most of what a model knows,"
        " and little beside the task"
    )
    return Advice(SHARE, reason, "arXiv:2403.08763", CHOICES, "B")
