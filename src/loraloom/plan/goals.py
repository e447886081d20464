"""What a plan leans towards where it may choose: `goal: quality | retain | chat | memory | fastest`.

A goal changes the advice of a few rules and nothing else; what the user set by hand
wins, and a preset wins over a goal.
"""

from __future__ import annotations

import math

from loraloom.config import names
from loraloom.errors import ConfigError
from loraloom.facts.model import ModelFacts
from loraloom.plan import engine
from loraloom.plan.about import About
from loraloom.plan.adjust import Bent, Lean, at_most, to
from loraloom.plan.case import DERIVED, Case
from loraloom.plan.needs import quantises
from loraloom.plan.numbers import count
from loraloom.plan.rules import epochs
from loraloom.plan.rules.rank import width_cap
from loraloom.plan.rules.rate import around, rate_cap, rounded
from loraloom.records import Advice

SWEEP = "tinker-cookbook sweep"
FORGETS_LESS = "arXiv:2405.09673"
QUALITY_RANK = 64
RETAIN_RANK = 16
RETAIN_RATE = 0.5
SMALL_RANK = 8
NEFTUNE = 5.0
NEFTUNE_RANGE = (5.0, 15.0)
QUANTISED_FROM = 100_000_000
"""Below so many parameters the weights are a small part of the peak: fewer bits save little."""
FAST_SHARE = 95
"""Percentile of the row lengths at which `fastest` cuts."""

ABOUT = About(
    does=(
        "What the plan leans towards where it may choose. A goal changes a few rules and says so in"
        " their reasons."
    ),
    rule="None, unless you name one or a preset does.",
    evidence="Each change has its own source, in the reason of the setting that it changes.",
)


def check(case: Case) -> None:
    """Refuse a goal that does not suit the task.

    Raises:
        ConfigError: `goal: chat` without a language model.
    """
    if case.asked.goal == "chat" and case.facts.data.task != "causal_lm":
        raise ConfigError(
            "`goal: chat` is for language models",
            got=f"the task is {case.facts.data.task}",
            need="a decoder and conversations, instructions or text",
            next="goal: quality",
        )


def advise(case: Case) -> Advice:
    """What the plan shows for `goal`."""
    return Advice(case.asked.goal, GOALS[case.asked.goal].says, DERIVED, tuple(GOALS), "M")


def _more_rank(case: Case, advice: Advice) -> Bent:
    wanted = 2 * advice.value if case.facts.model.kind == "encoder" else QUALITY_RANK
    value = max(advice.value, min(wanted, width_cap(case.facts.model)))
    return Bent(
        value, "a step from 16 to 64 gains 0.39% of the loss, one from 64 to 128 only 0.14%", SWEEP, "A"
    )


def _more_epochs(case: Case, advice: Advice) -> Bent | None:
    if case.asked.training.max_steps or not case.facts.data.validation_rows:
        return None
    value = min(2 * advice.value, max(advice.value, most_epochs(case.facts.model)))
    return Bent(value, "more passes, and the best checkpoint of them is kept", "arXiv:2305.16264", "C")


def most_epochs(model: ModelFacts) -> int:
    """The most passes that are advised for this model."""
    return epochs.ENCODER_EPOCHS[1] if model.kind == "encoder" else epochs.MOST_EPOCHS


def _half_the_epochs(case: Case, advice: Advice) -> Bent | None:
    if case.asked.training.max_steps or advice.value <= 1:
        return None
    return Bent(
        math.ceil(advice.value / 2),
        "what the base knew fades with every pass over new rows",
        FORGETS_LESS,
        "C",
    )


def _half_the_rate(case: Case, advice: Advice) -> Bent:
    value = rounded(advice.value * RETAIN_RATE)
    why = "half the rate moves the base less; a rate twice off costs 0.4% of the loss"
    return Bent(value, why, SWEEP, "M", around(value, rate_cap(case.facts.model, value)))


def _only_mlp(case: Case, advice: Advice) -> Bent | None:
    if not any(linear.role == "mlp" for linear in case.facts.model.linears):
        return None
    why = (
        "where memory is short, the MLP alone is worth more than queries and values alone (49.4 against"
        " 47.8 points)"
    )
    return Bent("mlp", why, "thinkingmachines.ai/blog/lora; huggingface/peft method comparison", "B")


def _one_row(case: Case, advice: Advice) -> Bent | None:
    if case.asked.training.gradient_accumulation_steps != "auto":
        return None
    return Bent(
        1,
        "one row at a time keeps the fewest activations; accumulation gives the same gradient",
        DERIVED,
        "M",
    )


def _half_precision(case: Case, advice: Advice) -> Bent | None:
    if not case.facts.device.bf16_native or advice.value == "bf16":
        return None
    return Bent(
        "bf16",
        "two bytes for a number of the base instead of four, and the hardware computes them",
        "arXiv:2305.14314",
        "A",
    )


def _recompute(case: Case, advice: Advice) -> Bent | None:
    if not engine.GRADIENT_CHECKPOINTING:
        return None
    why = "activations are computed twice and kept for one layer at a time: about a third more time"
    return Bent(True, why, "arXiv:1604.06174", "B", (False, True))


def _four_bits(case: Case, advice: Advice) -> Bent | None:
    small = case.facts.model.parameters < QUANTISED_FROM
    if small or not quantises(case) or case.asked.model.streaming is True:
        return None
    why = (
        f"{count(case.facts.model.parameters)} parameters in about half a byte each; NF4 scores as bf16"
        " does (MMLU 53.1, 53.0)"
    )
    return Bent("nf4", why, "arXiv:2305.14314", "B", ("none", "nf4"))


def _few_epochs(case: Case, advice: Advice) -> Bent | None:
    encoder = case.facts.model.kind == "encoder"
    least = epochs.ENCODER_EPOCHS[0] if encoder else 1
    if case.asked.training.max_steps or advice.value <= least:
        return None
    # A classifier's head starts from noise: one pass is too few for it.
    value = max(least, math.ceil(advice.value / 2)) if encoder else 1
    return Bent(value, "the first pass teaches most", "arXiv:2305.16264", "C")


def _usual_length(case: Case, advice: Advice) -> Bent | None:
    usual = case.facts.data.percentiles.get(FAST_SHARE)
    value = -(-max(usual or 0, 8) // 8) * 8
    if usual is None or value >= advice.value:
        return None
    return Bent(
        value,
        f"{FAST_SHARE}% of the rows fit into {usual:,} tokens; the few longer ones are cut",
        DERIVED,
        "M",
    )


GOALS: dict[str, Lean] = {
    "auto": Lean("no preference: each rule decides by your model, data and machine", {}),
    "quality": Lean(
        "the lowest loss, at more time and memory: a larger rank and more passes",
        {names.R: _more_rank, epochs.KEY: _more_epochs},
    ),
    "retain": Lean(
        "keep what the base can do: a small rank, fewer passes, half the rate; general rows in"
        " data.replay help most, and only you can add those",
        {
            names.R: at_most(RETAIN_RANK, "a smaller rank learns less and forgets less", FORGETS_LESS),
            epochs.KEY: _half_the_epochs,
            names.LEARNING_RATE: _half_the_rate,
        },
    ),
    "chat": Lean(
        "fuller answers: noise on the embeddings while training",
        {
            names.NEFTUNE_NOISE_ALPHA: to(
                NEFTUNE,
                "noise on the embeddings makes answers of a chat model fuller",
                "arXiv:2310.05914",
                "B",
                NEFTUNE_RANGE,
            )
        },
    ),
    "memory": Lean(
        "the smallest peak: one candidate, one row at a time, few trained numbers; it takes longer",
        {
            names.TARGET_MODULES: _only_mlp,
            names.R: at_most(
                SMALL_RANK, "weights, gradients and moments shrink with the rank", DERIVED, "M"
            ),
            names.PER_DEVICE_TRAIN_BATCH_SIZE: _one_row,
            names.PRECISION: _half_precision,
            names.GRADIENT_CHECKPOINTING: _recompute,
            names.QUANTIZATION: _four_bits,
            names.MAX_PACKED: at_most(
                1, "one candidate at a time: each more needs memory of its own", DERIVED, "M"
            ),
        },
    ),
    "fastest": Lean(
        "a result soon: fewer passes, a small rank, no dropout, the longest rows cut",
        {
            names.MAX_LENGTH: _usual_length,
            names.R: at_most(SMALL_RANK, "a small adapter costs less at each step", DERIVED, "M"),
            names.LORA_DROPOUT: at_most(0.0, "no masks to draw", DERIVED, "M"),
            epochs.KEY: _few_epochs,
            names.PRECISION: _half_precision,
        },
    ),
}
"""Goal -> what it does to which rule."""
