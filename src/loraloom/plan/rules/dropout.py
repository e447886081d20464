"""Dropout on the adapter's input: the smaller the data and the more often it is seen, the more."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.basis import DERIVED, Decided, Facts
from loraloom.records import Advice

KEY = "adapter.lora_dropout"


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    rows, epochs = facts.data.rows, decided["training.num_train_epochs"].value
    seen = f"{rows:,} rows seen {epochs:g} {'time' if epochs == 1 else 'times'}"
    if rows < 1_000 and epochs > 1:
        value, why = 0.1, "few rows, seen often: the most that is advised"
    elif rows < 10_000 and epochs >= 2:
        value, why = 0.05, "a little against memorising"
    else:
        value, why = 0.0, "enough data that dropping inputs only slows learning"
    return Advice(value, f"{seen}: {why}", DERIVED, (0.0, 0.05, 0.1), "M")
