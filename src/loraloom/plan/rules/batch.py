"""Rows of one optimiser step, and how many of them go through the model at a time."""

from __future__ import annotations

import math

from loraloom.config import names
from loraloom.errors import MemoryBudgetError
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.plan.ladder import least
from loraloom.plan.needs import need
from loraloom.plan.numbers import bytes_text
from loraloom.plan.shape import decided_shape
from loraloom.records import Advice

KEY = names.PER_DEVICE_TRAIN_BATCH_SIZE
WINDOWS = names.GRADIENT_ACCUMULATION_STEPS
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
"""Added to a budget that an error proposes: libraries of the next process may take a little more."""


def advise(case: Case) -> Advice:
    wanted = effective_batch(case)
    fits = largest_micro_batch(case, wanted)
    rows = case.facts.data.rows
    steps = -(-rows // wanted)
    reason = f"{rows:,} rows give {steps:,} steps an epoch at {wanted} rows a step"
    if fits < wanted:
        reason += (
            f"; {fits} at a time, because {wanted} rows of {case.decided.length:,} tokens do not fit"
            " into memory"
        )
    return Advice(
        fits, reason, "arXiv:2507.07101; TRL and Tinker defaults lie between 8 and 128", RANGE, "M"
    )


def effective_batch(case: Case) -> int:
    """Rows of one optimiser step: what the user set, else by the size of the data."""
    micro, windows = (
        case.asked.training.per_device_train_batch_size,
        case.asked.training.gradient_accumulation_steps,
    )
    if isinstance(micro, int):
        return micro * (windows if isinstance(windows, int) else 1)
    by_rows = next((batch for rows, batch in BY_ROWS if case.facts.data.rows < rows), LARGE)
    return max(by_rows, windows) if isinstance(windows, int) else by_rows


def largest_micro_batch(case: Case, wanted: int) -> int:
    """The largest halving of `wanted` whose forecast fits the budget.

    Raises:
        MemoryBudgetError: one row at a time does not fit.
    """
    windows = case.asked.training.gradient_accumulation_steps
    micro = max(1, wanted // windows) if isinstance(windows, int) else wanted
    while micro > 1 and not _fits(case, micro):
        micro //= 2
    if not _fits(case, micro):
        raise too_little(case)
    return micro


def too_little(case: Case) -> MemoryBudgetError:
    """The error that says what would fit: the first cuts that do, or the smallest
    budget and the cuts that it takes."""
    budget = case.memory_budget
    needed = need(case, decided_shape(case.decided, micro_batch=1))
    largest = sorted(needed.parts, key=needed.parts.__getitem__, reverse=True)[:3]
    parts = ", ".join(f"{name} {bytes_text(needed.parts[name])}" for name in largest)
    found = least(_split_as_asked(case), budget)
    smallest = f"{math.ceil(found.need.high / 2**20) + SLACK_MIB}MiB"
    cuts = ", ".join(f"{key}: {str(value).lower()}" for key, value in found.change.items())
    if found.need.high <= budget:
        wanted = f"a budget of {bytes_text(needed.high)}, or cuts"
        advice = cuts
    else:
        wanted = f"a budget of {smallest} at least" + (f", with {cuts}" if cuts else "")
        advice = "a smaller model, or a machine with more free memory"
        # The limit that was asked for is what is short, not the machine.
        if case.asked.limits.memory != "auto" and found.need.high <= case.facts.device.free_bytes:
            advice = f"limits.memory: {smallest}"
    taken = case.held_by_others
    return MemoryBudgetError(
        f"nothing fits into {bytes_text(budget)}: one candidate with one row of {case.decided.length:,}"
        f" tokens at a time needs {bytes_text(needed.value)}",
        got=(
            f"{parts}; at most {bytes_text(needed.high)} with the margin of the"
            f" forecast{f'; {taken}' if taken else ''}"
        ),
        need=wanted,
        next=advice,
    )


def _split_as_asked(case: Case) -> Case:
    """Rows at a time and their windows where the user set them, else one row: the plan
    itself goes as low."""
    asked = case.asked.training
    micro, windows = asked.per_device_train_batch_size, asked.gradient_accumulation_steps
    return case.assuming(
        {KEY: 1 if micro == "auto" else micro, WINDOWS: 1 if windows == "auto" else windows}
    )


def micro_batch_too_large(case: Case, fits: int) -> MemoryBudgetError:
    """The error for a micro-batch that the user set and that does not fit, although a
    smaller one does."""
    micro = case.decided.micro_batch
    needed = need(case, decided_shape(case.decided))
    return MemoryBudgetError(
        f"`{KEY}` is {micro}: {micro} rows of {case.decided.length:,} tokens need"
        f" {bytes_text(needed.high)} with the margin of the forecast, {bytes_text(case.memory_budget)}"
        " are allowed",
        got=case.held_by_others or None,
        need=(
            f"{fits} {'row' if fits == 1 else 'rows'} at a time, or a budget of"
            f" {bytes_text(needed.high)}"
        ),
        next=f"{KEY}: {fits} with gradient_accumulation_steps: {-(-micro // fits)}: the same gradient",
    )


def _fits(case: Case, micro: int) -> bool:
    return need(case, decided_shape(case.decided, micro_batch=micro)).high <= case.memory_budget
