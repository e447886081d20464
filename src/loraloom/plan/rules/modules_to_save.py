"""Which modules are trained whole and saved with the adapter."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.basis import DERIVED, Decided, Facts
from loraloom.records import Advice

KEY = "adapter.modules_to_save"


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    heads = facts.model.head_modules
    if not heads:
        return Advice((), "the head of a language model is pretrained and stays frozen", DERIVED, None, "A")
    reason = f"{', '.join(heads)} gives the classes and starts from noise: it is trained whole and saved with the adapter"
    return Advice(heads, reason, "huggingface/peft", None, "A")
