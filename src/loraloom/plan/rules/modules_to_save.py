"""Which modules are trained whole and saved with the adapter."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import DERIVED, Case
from loraloom.records import Advice

KEY = names.MODULES_TO_SAVE
ABOUT = About(
    does="Modules that are trained whole and saved beside the adapter.",
    rule="The new head of a classifier; nothing for a language model.",
    evidence=(
        "A head that starts from noise cannot be left frozen; PEFT does the same for classification."
    ),
    tools={"PEFT": "none (for `SEQ_CLS`, the names classifier and score)"},
)


def advise(case: Case) -> Advice:
    heads = case.facts.model.head_modules
    if not heads:
        return Advice(
            (), "the head of a language model is pretrained and stays frozen", DERIVED, ((),), "A"
        )
    start = (
        f"knows {', '.join(case.facts.model.classes[:4])} already"
        if case.facts.model.classes
        else "starts from noise"
    )
    told = "the reward" if case.facts.data.task == "reward" else "the classes"
    reason = (
        f"{', '.join(heads)} gives {told} and {start}: it is trained whole and saved with the adapter"
    )
    return Advice(heads, reason, "huggingface/peft", (heads,), "A")
