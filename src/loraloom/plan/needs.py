"""The forecast of memory for the engine that was asked for: our own, or PEFT's, for which there is
nothing but the forecast."""

from __future__ import annotations

from dataclasses import replace

from loraloom.facts.device import DeviceFacts
from loraloom.plan import engine
from loraloom.plan.case import Case
from loraloom.plan.memory import forecast_memory, streamed_bytes
from loraloom.plan.numbers import bytes_text
from loraloom.plan.peft_memory import forecast_peft, peft_run, sizes_of
from loraloom.plan.shape import Shape
from loraloom.plan.time import DISK_BYTES, LINK_BYTES, scoring_seconds, streaming_seconds
from loraloom.records import Estimate


def need(case: Case, shape: Shape) -> Estimate:
    """Peak bytes of a run of this shape; PEFT trains one candidate at a time, whatever
    `shape` says of a pack."""
    if case.asked.engine == "peft":
        return forecast_peft(sizes_of(case.facts.model), peft_run(case, shape))
    return forecast_memory(case, scoring_less(case, shape))


def scoring_less(case: Case, shape: Shape) -> Shape:
    """`shape`, with so few tokens scored at a time that it fits, down to one row's.

    It is the first step where one candidate alone is short of memory: its training passes are its
    micro-batches, whatever a pass may have, so that only scoring takes longer. An 8B base in four bits
    leaves room in 8 GB to train, and none to score the 8,192 tokens that a GPU takes otherwise.
    """
    from loraloom.evals.scoring import EVALUATION_FACTOR

    kind = case.facts.device.kind
    if shape.packed > 1 or shape.token_budget is not None:
        return shape
    tokens = shape.budget(kind)
    while EVALUATION_FACTOR * tokens > shape.length and (
        forecast_memory(case, replace(shape, token_budget=tokens)).high > case.memory_budget
    ):
        tokens //= 2
    return shape if tokens == shape.budget(kind) else replace(shape, token_budget=tokens)


def packs_candidates(case: Case) -> bool:
    """Whether the engine trains several candidates at once on one base."""
    return case.asked.engine == "packed"


def quantises(case: Case) -> bool:
    """Whether the engine can hold the base in NF4 on this device; one that is quantised is as it is."""
    if case.facts.model.prequantized:
        return False
    return case.facts.device.kind in (engine.QUANTISING if packs_candidates(case) else ("cuda",))


def offloads(case: Case) -> bool:
    """Whether the engine can keep blocks' inputs on the host."""
    return packs_candidates(case) and case.facts.device.kind in engine.OFFLOAD


def holds_moments_in_8_bits(case: Case) -> bool:
    """Whether `adamw_8bit` can be used: by this engine, on this device, over float32 adapters."""
    known = packs_candidates(case) and case.facts.device.kind in engine.EIGHT_BIT_ADAMW
    return known and case.decided.dtype != "float64"


def streams(case: Case) -> bool:
    """Whether the engine can bring the frozen weights piece by piece: to a GPU from the host's memory,
    to a CPU from their files, where they are stored as they are computed."""
    device, decided = case.facts.device, case.decided
    if not packs_candidates(case) or device.kind not in engine.STREAMING:
        return False
    return device.kind != "cpu" or case.facts.model.dtype == decided.dtype


PARTS = {"kernels": "Triton kernels", "cuda_graphs": "CUDA graphs", "fused_base": "fused norms"}
"""Parts of a GPU's fast path, as people call them."""


def gpu_words(device: DeviceFacts, dtype: str) -> str:
    """ "NVIDIA H100: a bfloat16 base, Triton kernels"; empty on a CPU."""
    if device.kind == "cpu":
        return ""
    used = [PARTS[part] for part, by_dtype in device.refusals.items() if by_dtype[dtype] is None]
    return f"{device.name}: a {dtype} base, {', '.join(used or ['plain torch'])}"


def notes_on_device(device: DeviceFacts, dtype: str) -> tuple[str, ...]:
    """Which device is taken, where that may surprise, and what of a GPU is not used."""
    refused = {
        PARTS[part]: why for part, by_dtype in device.refusals.items() if (why := by_dtype[dtype])
    }
    notes = [device.notice] if device.notice else []
    if refused:
        # The first reason holds for all: what needs the kernels is left out with them.
        *first, last = refused
        parts = f"{', '.join(first)} and {last}" if first else last
        notes.append(f"{parts} are not used: {next(iter(refused.values()))}; plain torch does the same")
    return tuple(notes)


def notes_on_streaming(case: Case, shape: Shape) -> tuple[str, ...]:
    """What is not in the memory of a plan whose base is streamed, and what it costs."""
    if not shape.streaming:
        return ()
    size, seconds = bytes_text(streamed_bytes(case, shape)), streaming_seconds(case, shape)
    if case.facts.device.kind != "cpu":
        return (
            (
                f"{size} of weights wait in the host's memory, apart from this one, and come twice a"
                f" pass: {seconds:,.2g} seconds longer at {LINK_BYTES / 1e9:g} GB/s, none in passes of"
                " many tokens"
            ),
        )
    return (
        (
            f"{size} of weights stay in their files, apart from this memory, and are read twice a pass:"
            f" {seconds:,.1f} seconds at {DISK_BYTES / 1e9:g} GB/s. Should the disk go away, the system"
            " ends the run; --resume goes on from its last checkpoint"
        ),
    )


def notes_on_workers(case: Case, memory: Estimate) -> tuple[str, ...]:
    """Which workers there are, and what that takes of a machine's memory."""
    workers = case.facts.workers
    if not workers:
        return ()
    each = f"{len(workers)} workers, each with a base of its own: {'; '.join(workers)}"
    if len(workers) == 1:
        return (f"1 worker: {workers[0]}",)
    if case.facts.device.kind != "cpu":
        return (f"{each}. Memory is forecast for each GPU",)
    whole = bytes_text(len(workers) * memory.value)
    return (f"{each}. Memory is forecast for each; together they take {whole} of this machine",)


def notes_on_augmentation(case: Case, *, race: bool) -> tuple[str, ...]:
    """That what is asked to be tried on the rows is tried on the setting that is kept, or without a
    search just done."""
    asked = case.asked.data.augment
    if not asked:
        return ()
    if not race:
        return (
            f"`data.augment`: {next(iter(asked))} is taken as it is; `tune` holds it against plain rows",
        )
    seeds = case.decided.seeds_for_finalists
    return (
        f"`data.augment`: after a search, plain rows race against {', '.join(asked)} at the setting that"
        f" is kept ({len(asked) * seeds} more trainings); plain rows stay unless others are better"
        " with 95%",
    )


def notes_on_scoring(case: Case, shape: Shape) -> tuple[str, ...]:
    """That fewer tokens are scored at a time than the device would take, and what that costs."""
    from loraloom.evals.scoring import EVALUATION_FACTOR

    usual, tokens = (
        EVALUATION_FACTOR * one.budget(case.facts.device.kind)
        for one in (replace(shape, token_budget=None), shape)
    )
    if tokens >= usual:
        return ()
    seconds = scoring_seconds(case, tokens) - scoring_seconds(case, usual)
    return (
        f"{tokens:,} tokens are scored at a time, not {usual:,}, which would not fit: scoring takes"
        f" about {seconds:,.2g} seconds longer in all, and gives the same",
    )


def notes_on_codes(case: Case) -> tuple[str, ...]:
    """That the base's own files are in few bits, which no setting shows."""
    method = case.facts.model.prequantized
    return (f"the base is quantised by {method} already and is used as it is stored",) if method else ()


def notes_on_engine(case: Case) -> tuple[str, ...]:
    """Which engine the forecast of memory is for, where it is not our own."""
    if case.asked.engine == "packed":
        return ()
    here = "" if case.facts.device.kind == "cuda" else f"; this device is {case.facts.device.name}"
    whose = f"memory is that of PEFT on CUDA with the base in half precision{here}"
    return (f"{whose}. loraloom itself trains in another way",)
