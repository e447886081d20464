"""Weight decay on the adapter."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.records import Advice

KEY = names.WEIGHT_DECAY
ABOUT = About(
    does="Pulls the trained numbers towards zero at each step.",
    rule="0 for language models, 0.1 for encoders, whose new head it holds back.",
    evidence=(
        "An adapter starts at zero and stays small. Encoders are tuned with 0.1 (arXiv:2106.09685)."
    ),
    tools={"transformers": "0.0", "Unsloth": "0.01 in its notebooks"},
)


def advise(case: Case) -> Advice:
    if case.facts.model.kind == "encoder":
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
