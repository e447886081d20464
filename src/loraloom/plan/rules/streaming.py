"""Whether the frozen base stays where there is room for it, and is brought piece by piece: the last step
before nothing fits."""

from __future__ import annotations

from dataclasses import replace

from loraloom.config import names
from loraloom.errors import ConfigError
from loraloom.plan.about import About
from loraloom.plan.case import DERIVED, Case
from loraloom.plan.memory import streamed_bytes
from loraloom.plan.needs import need, streams
from loraloom.plan.numbers import bytes_text
from loraloom.plan.shape import Shape
from loraloom.plan.time import streaming_share
from loraloom.records import Advice

KEY = names.STREAMING
ABOUT = About(
    does=(
        "The base stays where there is room for it and comes piece by piece in each pass, for all"
        " candidates of the pack together: to a CPU from its files, whose weights are in the type of"
        " model.dtype; to a CUDA device from the host's memory, with gradient checkpointing."
    ),
    rule="Only where one row of one candidate does not fit otherwise, not even over four bits.",
    evidence=(
        "The same weights, so the same adapter. Every pass brings them twice: many tokens and many"
        " candidates a pass make up for it; a GPU computes meanwhile."
    ),
    tools={"accelerate": "device_map offloads layers, for inference"},
)


def advise(case: Case) -> Advice:
    kept = Shape(
        1,
        case.decided.length,
        checkpointing=case.decided.checkpointing,
        quantization=case.decided.quantization,
    )
    streamed, budget = _streamed(case, kept), case.memory_budget
    needed = need(case, kept)
    possible = streams(case) and (case.facts.device.kind == "cpu" or case.decided.checkpointing)
    if needed.high <= budget or not possible or need(case, streamed).high > budget:
        weights = bytes_text(needed.parts["weights"])
        reason = f"the weights take {weights} of {bytes_text(budget)}, and are at hand in every pass"
        return Advice(False, reason, DERIVED, (False,), "M")
    share = streaming_share(case, streamed)
    place = "in their files" if case.facts.device.kind == "cpu" else "on the host"
    reason = (
        f"{bytes_text(needed.value)} do not fit into {bytes_text(budget)}:"
        f" {bytes_text(streamed_bytes(case, streamed))} of weights stay {place}, and a step takes"
        f" {1 + share:,.3g} times as long"
    )
    return Advice(True, reason, DERIVED, (False, True), "M")


def check(case: Case) -> None:
    """Refuse to stream a base that cannot be, once its type is decided.

    Raises:
        ConfigError: the device or the engine has no way, or the files hold other numbers.
    """
    decided = case.decided
    if decided.streaming and streams(case) and case.facts.device.kind != "cpu":
        if decided.checkpointing:
            return
        raise ConfigError(
            f"`{KEY}: true` needs gradient checkpointing",
            got=f"{names.GRADIENT_CHECKPOINTING}: false",
            need="blocks that are run again on the way back, when their weights are there",
            next=f"{names.GRADIENT_CHECKPOINTING}: true",
        )
    from_files = case.facts.device.kind == "cpu" and case.asked.engine != "peft"
    if not decided.streaming or (streams(case) and not (from_files and decided.quantization != "none")):
        return
    stored, wanted = case.facts.model.dtype, decided.dtype
    if from_files and decided.quantization != "none":
        raise ConfigError(
            f"`{KEY}: true` with `{names.QUANTIZATION}: {decided.quantization}` cannot be on a CPU",
            got="codes, which are made when the base is read and have no file",
            need="one of the two",
            next=f"{names.QUANTIZATION}: none",
        )
    if from_files:
        raise ConfigError(
            f"`{KEY}: true` needs weights that are stored as they are computed",
            got=f"{stored} in the files, {wanted} wanted: reading them would make a copy",
            need=f"{names.DTYPE}: {stored}, or files in {wanted}",
            next=f"{names.DTYPE}: {stored}",
        )
    raise ConfigError(
        f"`{KEY}: true` cannot be used here",
        got="engine: peft" if case.asked.engine == "peft" else case.facts.device.name,
        need="the packed engine on a CPU or a CUDA device",
        next=f"{KEY}: auto",
    )


def _streamed(case: Case, kept: Shape) -> Shape:
    """The same rows over a streamed base: from files it comes as it is stored."""
    on_cpu = case.facts.device.kind == "cpu"
    return replace(kept, streaming=True, quantization="none" if on_cpu else kept.quantization)
