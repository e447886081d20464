"""Whether activations are recomputed in the backward pass: a third more time for much less memory; and
whether what is kept for it waits on the host."""

from __future__ import annotations

from dataclasses import replace

from loraloom.config import names
from loraloom.errors import ConfigError
from loraloom.plan import engine
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.plan.needs import need, offloads, quantises
from loraloom.plan.numbers import bytes_text
from loraloom.plan.pass_memory import inputs_on_host
from loraloom.plan.rules.batch import effective_batch
from loraloom.plan.shape import Shape
from loraloom.records import Advice

KEY = names.GRADIENT_CHECKPOINTING
ABOUT = About(
    does=(
        "Activations are computed again on the way back instead of being kept. What is kept for it, the"
        " input of each block, can wait in the host's memory: `offload`, on CUDA."
    ),
    rule=(
        "Only where the step does not fit without it, as the first rung of the memory ladder; offload"
        " where one row does not fit otherwise."
    ),
    evidence=(
        "About a third more time for activations of one layer at a time (arXiv:1604.06174). Offload"
        " gives the same gradients; products hide its copies in models wider than about a thousand."
    ),
    tools={"TRL": "true", "Unsloth": "offloaded"},
)
SOURCE = "arXiv:1604.06174"


def advise(case: Case) -> Advice:
    length = case.decided.length
    # More rows than fill a pass are split anyway, and cost nothing: they are no reason
    # to compute anything twice.
    batch = min(effective_batch(case), max(1, engine.TOKEN_BUDGET[case.facts.device.kind] // length))
    budget = case.memory_budget
    choices = (False, True, "offload") if offloads(case) else (False, True)
    plain = need(case, Shape(batch, length))
    if plain.high <= budget:
        rows = "1 row takes" if batch == 1 else f"{batch} rows take"
        reason = (
            f"{rows} {bytes_text(plain.value)} of {bytes_text(budget)} without it, at {length:,} tokens"
        )
        return Advice(False, reason, SOURCE, choices if engine.GRADIENT_CHECKPOINTING else (False,), "B")
    if not engine.GRADIENT_CHECKPOINTING:
        reason = (
            f"{bytes_text(plain.value)} do not fit into {bytes_text(budget)}; the packed trainer splits"
            " the batch instead"
        )
        return Advice(False, reason, SOURCE, (False,), "M")
    if _offload_is_needed(case):
        return _offloaded(case, Shape(1, length, checkpointing="offload"))
    less = need(case, Shape(batch, length, checkpointing=True))
    reason = (
        f"{bytes_text(plain.value)} do not fit into {bytes_text(budget)}; with it"
        f" {bytes_text(less.value)}, a third more time"
    )
    return Advice(True, reason, SOURCE, choices, "B")


def check(case: Case) -> None:
    """Refuse `offload` where there is nothing to gain by it.

    Raises:
        ConfigError: the device has no memory apart from the host's, or PEFT's forecast is asked for.
    """
    if case.asked.training.gradient_checkpointing != "offload" or offloads(case):
        return
    device = case.facts.device
    peft = case.asked.engine == "peft"
    raise ConfigError(
        f"`{KEY}: offload` cannot be " + ("told of PEFT" if peft else "used on this device"),
        got="engine: peft" if peft else f"{device.name}, whose memory is the host's own",
        need="the packed engine" if peft else "a CUDA device: there inputs of blocks wait on the host",
        next=f"{KEY}: true",
    )


def _offload_is_needed(case: Case) -> bool:
    """Whether one row fits only so, in 16 bits or, where those do not fit at all, in four."""
    if not offloads(case):
        return False
    length, budget = case.decided.length, case.memory_budget
    kept, moved = Shape(1, length, checkpointing=True), Shape(1, length, checkpointing="offload")
    if need(case, kept).high <= budget:
        return False
    if need(case, moved).high <= budget or not quantises(case):
        return True
    return need(case, replace(kept, quantization="nf4")).high > budget


def _offloaded(case: Case, shape: Shape) -> Advice:
    kept = need(case, replace(shape, checkpointing=True))
    reason = (
        f"1 row takes {bytes_text(kept.value)} of {bytes_text(case.memory_budget)} with the inputs of"
        f" blocks, {bytes_text(need(case, shape).value)} with them on the host, where they take"
        f" {bytes_text(inputs_on_host(case, shape))}"
    )
    return Advice("offload", reason, SOURCE, (False, True, "offload"), "M")
