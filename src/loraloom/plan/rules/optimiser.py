"""The optimiser."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.basis import Decided, Facts, bytes_text, count, decided_linears, parameters_per_rank
from loraloom.records import Advice

KEY = "training.optim"


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    trained = decided["adapter.r"].value * parameters_per_rank(decided_linears(facts, decided))
    reason = f"AdamW's two moments of {count(trained)} adapter parameters take {bytes_text(8 * trained)}: too little to save on"
    return Advice("adamw", reason, "arXiv:2106.09685", None, "C")
