"""What the model is tuned to do."""

from __future__ import annotations

from loraloom.plan.about import About
from loraloom.plan.case import DERIVED, Case
from loraloom.records import Advice

KEY = "task"
ABOUT = About(
    does=(
        "What the model learns: to go on with a text, to name a class, to turn one text into another, or"
        " to choose between answers or to score them."
    ),
    rule=(
        "Read off the columns of the data and the kind of the model: labels make a classification, pairs"
        " for an encoder-decoder a translation, two answers a choice (of an encoder, or a base with one"
        " output, a reward model), all else language modelling."
    ),
    evidence="A count of what is there, no estimate.",
    tools={"PEFT": "none: `task_type` has to be given"},
)


def advise(case: Case) -> Advice:
    form = (
        f"the data are read as {case.facts.data.format}"
        if case.facts.data.format
        else "no data was given"
    )
    kind = case.facts.model.kind.replace("_", "-")
    return Advice(
        case.facts.data.task,
        f"{form}, and {case.facts.model.architecture} is built on a {case.facts.model.model_type}"
        f" {kind}",
        DERIVED,
        (case.facts.data.task,),
        "A",
    )
