"""Dropout on the adapter's input: the smaller the data and the more often it is seen, the more."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import DERIVED, Case
from loraloom.records import Advice

KEY = names.LORA_DROPOUT
ABOUT = About(
    does="The share of the adapter's inputs that is set to zero at random while training.",
    rule=(
        "0.1 under 1,000 rows seen more than once, 0.05 under 10,000 rows seen twice or more, else 0."
        " 0 for preferences."
    ),
    evidence=(
        "Against memorising, so the more data the less: a rule derived here, and worth a search over 0,"
        " 0.05 and 0.1."
    ),
    tools={"PEFT": "0.0", "Unsloth": "0", "LLaMA-Factory": "0", "QLoRA": "0.1 up to 13B, 0.05 above"},
)


def advise(case: Case) -> Advice:
    if case.facts.data.task == "preference":
        why = (
            "noise in a difference of two log-likelihoods: the pull to the reference is what regularises"
        )
        return Advice(0.0, why, DERIVED, (0.0, 0.05), "M")
    rows, epochs = case.facts.data.rows, case.decided.epochs
    seen = f"{rows:,} rows seen {epochs:g} {'time' if epochs == 1 else 'times'}"
    if rows < 1_000 and epochs > 1:
        value, why = 0.1, "few rows, seen often: the most that is advised"
    elif rows < 10_000 and epochs >= 2:
        value, why = 0.05, "a little against memorising"
    else:
        value, why = 0.0, "enough data that dropping inputs only slows learning"
    return Advice(value, f"{seen}: {why}", DERIVED, (0.0, 0.05, 0.1), "M")
