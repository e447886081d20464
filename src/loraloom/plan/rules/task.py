"""What the model is tuned to do."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.about import About
from loraloom.plan.inputs import DERIVED, Decided, Facts
from loraloom.records import Advice

KEY = "task"
ABOUT = About(
    does=(
        "What the model learns: to go on with a text, to name a class, or to turn one text into another."
    ),
    rule=(
        "Read off the columns of the data and the kind of the model: labels make a classification, pairs"
        " for an encoder-decoder a translation, all else language modelling."
    ),
    evidence="A count of what is there, no estimate.",
    tools={"PEFT": "none: `task_type` has to be given"},
)


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    form = f"the data are read as {facts.data.format}" if facts.data.format else "no data was given"
    kind = facts.model.kind.replace("_", "-")
    return Advice(
        facts.data.task,
        f"{form}, and {facts.model.architecture} is built on a {facts.model.model_type} {kind}",
        DERIVED,
        (facts.data.task,),
        "A",
    )
