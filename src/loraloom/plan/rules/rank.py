"""The rank: how many numbers the adapter has to hold what the data says."""

from __future__ import annotations

import math

from loraloom.config import names
from loraloom.facts.model import ModelFacts
from loraloom.plan.about import About
from loraloom.plan.case import Case, parameters_per_rank
from loraloom.plan.numbers import count, power_of_two_above, power_of_two_below
from loraloom.records import Advice

KEY = names.R
ABOUT = About(
    does=(
        "How many directions an adapter can change in each layer: A is r x d_in and random, B is d_out x"
        " r and zero at the start."
    ),
    rule=(
        "As many adapter parameters as supervised tokens: tokens / parameters a rank, up to a power of"
        " two, at least 16 (8 for encoders), at most 256 and a quarter of the width. Goal `quality`"
        " takes 64 at least; `retain` 16 at most; `memory` and `fastest` 8 at most."
    ),
    evidence=(
        "In a sweep of 548 runs (tinker-cookbook) 4 -> 16 gains 0.74% of the loss, 16 -> 64 0.39%, 64 ->"
        " 128 0.14%. One rank of Llama-3.2-1B is 704,512 parameters, of Llama-3-8B 2,621,440."
        " Reinforcement learning does with 1 to 32."
    ),
    tools={
        "PEFT": "8",
        "TRL": "16",
        "Unsloth": "16",
        "LLaMA-Factory": "8",
        "litgpt": "8",
        "ms-swift": "8",
        "Tinker": "32",
    },
)
FLOOR = {"encoder": 8, "decoder": 16, "encoder_decoder": 16}
CAP = 256
WIDTH_SHARE = 4
"""A rank above a quarter of the width is hardly low: no publication goes that far."""


def advise(case: Case) -> Advice:
    """As many adapter parameters as supervised tokens, as a power of two between a
    floor and what the width bears."""
    per_rank = parameters_per_rank(case.linears)
    data = case.facts.data
    # All that a pair tells is which of its answers is the better one.
    tokens = data.rows if data.task == "reward" else data.supervised_tokens
    floor = FLOOR[case.facts.model.kind]
    cap = width_cap(case.facts.model)
    needed = math.ceil(tokens / per_rank)
    value = min(max(power_of_two_above(needed), floor), cap)
    unit = {"seq_cls": "labels", "reward": "pairs"}.get(data.task, "supervised tokens")
    reason = f"{count(tokens)} {unit} over {count(per_rank)} parameters a rank ask for r >= {needed:,}"
    if value == floor > needed:
        reason += f"; {floor} is the floor, since 4 -> 16 gains 0.74% of the loss and costs little"
    elif value == cap < needed:
        reason += f"; {cap} is the limit for width {case.facts.model.hidden_size:,}"
    return Advice(
        value,
        reason,
        "thinkingmachines.ai/blog/lora; tinker-cookbook sweep",
        (min(8, cap), min(128, cap)),
        "C",
    )


def width_cap(model: ModelFacts) -> int:
    """The largest rank that is advised for this model."""
    return min(CAP, max(4, power_of_two_below(model.hidden_size / WIDTH_SHARE)))
