"""Rows of one optimiser step, and how many of them go through the model at a time."""

from __future__ import annotations

import math

from loraloom.config.asked import Config
from loraloom.errors import MemoryBudgetError
from loraloom.plan.about import About
from loraloom.plan.inputs import Decided, Facts, bytes_text, held_by_others, memory_budget
from loraloom.plan.ladder import least
from loraloom.plan.memory import Shape
from loraloom.plan.needs import need as need_of
from loraloom.records import Advice

KEY = "training.per_device_train_batch_size"
WINDOWS = "training.gradient_accumulation_steps"
ABOUT = About(
    does=(
        "Rows that go through the model at a time; times accumulation it is the batch of one optimiser"
        " step."
    ),
    rule=(
        "4 under 500 rows, 8 under 2,000, 16 under 100,000, else 32, halved until it fits into memory. A"
        " search tries 4 to 64 with the rate moved by the square root."
    ),
    evidence=(
        "Small batches are as good with a rate made for them (arXiv:2507.07101); batch and rate have to"
        " be tuned together. In PLoRA's runs (arXiv:2508.02932) the batch alone moves 3.2 to 11.3"
        " points."
    ),
    tools={"transformers": "8", "TRL": "8", "Unsloth": "2 in its notebooks", "Tinker": "128"},
)
BY_ROWS = ((500, 4), (2_000, 8), (100_000, 16))
"""Below so many rows, this batch; with more, LARGE."""
LARGE = 32
RANGE = (4, 64)
SLACK_MIB = 32
"""A budget that is named holds in the next process too, whose libraries may take a little more."""


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    wanted = effective_batch(facts, asked)
    fits = largest_micro_batch(facts, asked, decided, wanted)
    rows = facts.data.rows
    steps = -(-rows // wanted)
    reason = f"{rows:,} rows give {steps:,} steps an epoch at {wanted} rows a step"
    if fits < wanted:
        reason += (
            f"; {fits} at a time, because {wanted} rows of {decided['data.max_length'].value:,} tokens"
            " do not fit into memory"
        )
    return Advice(
        fits, reason, "arXiv:2507.07101; TRL and Tinker defaults lie between 8 and 128", RANGE, "M"
    )


def effective_batch(facts: Facts, asked: Config) -> int:
    """Rows of one optimiser step: what the user set, else by the size of the data."""
    micro, windows = (
        asked.training.per_device_train_batch_size,
        asked.training.gradient_accumulation_steps,
    )
    if isinstance(micro, int):
        return micro * (windows if isinstance(windows, int) else 1)
    by_rows = next((batch for rows, batch in BY_ROWS if facts.data.rows < rows), LARGE)
    return max(by_rows, windows) if isinstance(windows, int) else by_rows


def largest_micro_batch(facts: Facts, asked: Config, decided: Decided, wanted: int) -> int:
    """The largest halving of `wanted` whose forecast fits the budget.

    Raises:
        MemoryBudgetError: one row at a time does not fit.
    """
    windows = asked.training.gradient_accumulation_steps
    micro = max(1, wanted // windows) if isinstance(windows, int) else wanted
    while micro > 1 and not _fits(facts, asked, decided, micro):
        micro //= 2
    if not _fits(facts, asked, decided, micro):
        raise too_little(facts, asked, decided)
    return micro


def too_little(facts: Facts, asked: Config, decided: Decided) -> MemoryBudgetError:
    """The error that says what would fit: the first cuts that do, or the smallest
    budget and the cuts that it takes."""
    need, budget = need_of(asked, facts, decided, _shape(decided, 1)), memory_budget(facts, asked)
    parts = ", ".join(
        f"{name} {bytes_text(size)}"
        for name, size in sorted(need.parts.items(), key=lambda item: -item[1])[:3]
    )
    found = least(asked, facts, {**decided, **_split_as_asked(asked)}, budget)
    smallest = f"{math.ceil(found.need.high / 2**20) + SLACK_MIB}MiB"
    cuts = ", ".join(f"{key}: {str(value).lower()}" for key, value in found.change.items())
    if found.need.high <= budget:
        wanted, advice = f"a budget of {bytes_text(need.high)}, or cuts", cuts
    else:
        wanted = f"a budget of {smallest} at least" + (f", with {cuts}" if cuts else "")
        small = asked.limits.memory != "auto" and found.need.high <= facts.device.free_bytes
        advice = (
            f"limits.memory: {smallest}"
            if small
            else "a smaller model, or a machine with more free memory"
        )
    taken = held_by_others(facts, asked)
    return MemoryBudgetError(
        f"nothing fits into {bytes_text(budget)}: one candidate with one row of"
        f" {decided['data.max_length'].value:,} tokens at a time needs {bytes_text(need.value)}",
        got=(
            f"{parts}; at most {bytes_text(need.high)} with the margin of the"
            f" forecast{f'; {taken}' if taken else ''}"
        ),
        need=wanted,
        next=advice,
    )


def _split_as_asked(asked: Config) -> dict[str, Advice]:
    """Rows at a time and their windows where the user set them, else one row: the plan
    itself goes as low."""
    micro, windows = (
        asked.training.per_device_train_batch_size,
        asked.training.gradient_accumulation_steps,
    )
    values = {
        KEY: micro if isinstance(micro, int) else 1,
        WINDOWS: windows if isinstance(windows, int) else 1,
    }
    return {key: Advice(value, "", "") for key, value in values.items()}


def micro_batch_too_large(facts: Facts, asked: Config, decided: Decided, fits: int) -> MemoryBudgetError:
    """The error for a micro-batch that the user set and that does not fit, although a
    smaller one does."""
    micro = decided[KEY].value
    need = need_of(asked, facts, decided, _shape(decided, micro))
    return MemoryBudgetError(
        f"`{KEY}` is {micro}: {micro} rows of {decided['data.max_length'].value:,} tokens need"
        f" {bytes_text(need.high)} with the margin of the forecast,"
        f" {bytes_text(memory_budget(facts, asked))} are allowed",
        got=held_by_others(facts, asked) or None,
        need=(
            f"{fits} {'row' if fits == 1 else 'rows'} at a time, or a budget of {bytes_text(need.high)}"
        ),
        next=f"{KEY}: {fits} with gradient_accumulation_steps: {-(-micro // fits)}: the same gradient",
    )


def _fits(facts: Facts, asked: Config, decided: Decided, micro: int) -> bool:
    return need_of(asked, facts, decided, _shape(decided, micro)).high <= memory_budget(facts, asked)


def _shape(decided: Decided, micro: int) -> Shape:
    return Shape(
        micro,
        decided["data.max_length"].value,
        1,
        decided["training.gradient_checkpointing"].value,
        decided["model.quantization"].value,
    )
