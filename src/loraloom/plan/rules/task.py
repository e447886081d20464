"""What the model is tuned to do."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.basis import DERIVED, Decided, Facts
from loraloom.records import Advice

KEY = "task"


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    form = f"the data are read as {facts.data.format}" if facts.data.format else "no data was given"
    kind = facts.model.kind.replace("_", "-")
    return Advice(
        facts.data.task,
        f"{form}, and {facts.model.architecture} is built on a {facts.model.model_type} {kind}",
        DERIVED,
        None,
        "A",
    )
