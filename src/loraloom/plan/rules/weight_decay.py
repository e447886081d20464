"""Weight decay on the adapter."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.basis import Decided, Facts
from loraloom.records import Advice

KEY = "training.weight_decay"


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    if facts.model.kind == "encoder":
        return Advice(
            0.1, "what encoder classifiers are tuned with; it holds the new head back", "arXiv:2106.09685", (0.0, 0.1), "A"
        )
    return Advice(0.0, "an adapter starts at zero and is small: decay hardly moves it", "huggingface/trl", (0.0, 0.01, 0.1), "C")
