"""Which modules are trained whole and saved with the adapter."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.about import About
from loraloom.plan.inputs import DERIVED, Decided, Facts
from loraloom.records import Advice

KEY = "adapter.modules_to_save"
ABOUT = About(
    does="Modules that are trained whole and saved beside the adapter.",
    rule="The new head of a classifier; nothing for a language model.",
    evidence=(
        "A head that starts from noise cannot be left frozen; PEFT does the same for classification."
    ),
    tools={"PEFT": "none (for `SEQ_CLS`, the names classifier and score)"},
)


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    heads = facts.model.head_modules
    if not heads:
        return Advice(
            (), "the head of a language model is pretrained and stays frozen", DERIVED, ((),), "A"
        )
    start = (
        f"knows {', '.join(facts.model.classes[:4])} already"
        if facts.model.classes
        else "starts from noise"
    )
    reason = (
        f"{', '.join(heads)} gives the classes and {start}: it is trained whole and saved with the"
        " adapter"
    )
    return Advice(heads, reason, "huggingface/peft", (heads,), "A")
