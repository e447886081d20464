"""Whether pairs of a run go through the model as one row each."""

from __future__ import annotations

from loraloom.config import names
from loraloom.data.rows import Encoded
from loraloom.evals.objective import Objective
from loraloom.evals.preference import PreferenceObjective
from loraloom.plan.planner import Plan


def join_pairs(objective: Objective, plan: Plan, data: Encoded) -> None:
    """Let them, where the model reads such rows as it reads two. Noise on embeddings is drawn for each
    side's row, and its strength goes by that row's length: then they stay apart."""
    space = plan.case.asked.search.space
    noisy = plan.values()[names.NEFTUNE_NOISE_ALPHA] or names.NEFTUNE_NOISE_ALPHA in space
    if isinstance(objective, PreferenceObjective) and not noisy:
        objective.join([one for rows in data.splits.values() for one in rows])
