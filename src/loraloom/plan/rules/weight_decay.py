"""Weight decay on the adapter."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.about import About
from loraloom.plan.inputs import Decided, Facts
from loraloom.records import Advice

KEY = "training.weight_decay"
ABOUT = About(
    does="Pulls the trained numbers towards zero at each step.",
    rule="0 for language models, 0.1 for encoders, whose new head it holds back.",
    evidence=(
        "An adapter starts at zero and stays small. Encoders are tuned with 0.1 (arXiv:2106.09685)."
    ),
    tools={"transformers": "0.0", "Unsloth": "0.01 in its notebooks"},
)


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    if facts.model.kind == "encoder":
        return Advice(
            0.1,
            "what encoder classifiers are tuned with; it holds the new head back",
            "arXiv:2106.09685",
            (0.0, 0.1),
            "A",
        )
    return Advice(
        0.0,
        "an adapter starts at zero and is small: decay hardly moves it",
        "huggingface/trl",
        (0.0, 0.01, 0.1),
        "C",
    )
