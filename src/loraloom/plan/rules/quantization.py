"""Whether the frozen base is held in fewer bits: the last step before a smaller micro-batch."""

from __future__ import annotations

from loraloom.config import names
from loraloom.errors import ConfigError
from loraloom.plan import engine
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.plan.needs import need, packs_candidates, quantises, streams
from loraloom.plan.numbers import bytes_text, share_text
from loraloom.plan.shape import Shape
from loraloom.plan.time import spreading_share
from loraloom.plan.weight_memory import weight_bytes
from loraloom.records import Advice

KEY = names.QUANTIZATION
ABOUT = About(
    does=(
        "Holds the weights of the layers inside the blocks in few bits, about half a byte a number in"
        " NF4 and one in int8, and spreads them for each product. Embeddings, head and norms stay in"
        " model.dtype. It needs the extra `quant`."
    ),
    rule=(
        "None while one row at a time fits as it is, with gradient checkpointing; else NF4 with double"
        " quantisation, on a CPU and on CUDA. What you ask for is taken. A folder that is quantised"
        " already is trained over as it is. Q4_K_M is a format of GGUF files: to ship with, not to train"
        " in."
    ),
    evidence=(
        "Mean MMLU: bf16 53.0, NF4 with double quantisation 53.1, FP4 52.2 (arXiv:2305.14314). With"
        " PEFT the step takes about 50% longer (litgpt measured 56%); here weights are spread twice a"
        " pass for all candidates together, at 0.2 ns a number and core."
    ),
    tools={"PEFT": "none", "Unsloth": "4 bits in its notebooks"},
)
SOURCE = "arXiv:2305.14314"


def advise(case: Case) -> Advice:
    if case.facts.model.prequantized:
        return _stored(case)
    checkpointing, budget = case.decided.checkpointing, case.memory_budget
    smallest = need(case, Shape(1, case.decided.length, checkpointing=checkpointing))
    choices = ("none", *engine.QUANTIZATION)
    if smallest.high > budget and _stays_in_files(case):
        reason = (
            f"{bytes_text(smallest.value)} do not fit into {bytes_text(budget)}, nor do four bits: the"
            " weights stay in their files, as they are stored"
        )
        return Advice("none", reason, SOURCE, choices, "M")
    if smallest.high <= budget or not quantises(case):
        weights = bytes_text(smallest.parts["weights"])
        reason = (
            f"the weights take {weights} of {bytes_text(budget)} as they are, and unquantised layers are"
            " faster"
        )
        return Advice("none", reason, SOURCE, choices, "B")
    coded = Shape(1, case.decided.length, checkpointing=checkpointing, quantization="nf4")
    reason = (
        f"{bytes_text(smallest.value)} do not fit into {bytes_text(budget)}; in NF4 it is"
        f" {bytes_text(need(case, coded).value)}, a pass takes"
        f" {share_text(spreading_share(case, coded))} longer, and NF4 scores as bf16 does (MMLU 53.1,"
        " 53.0)"
    )
    return Advice("nf4", reason, SOURCE, choices, "B")


def _stored(case: Case) -> Advice:
    """Of a folder that is quantised already."""
    model = case.facts.model
    weights = bytes_text(weight_bytes(model, case.decided.dtype_bytes, "none"))
    reason = (
        f"the base is quantised by {model.prequantized} already and is trained over as it is stored:"
        f" {weights} of {bytes_text(case.memory_budget)}"
    )
    return Advice("none", reason, "the base's config.json", ("none",), "A")


def check(case: Case) -> None:
    """Refuse what cannot be held in the bits that were asked for.

    Raises:
        ModelError: LoftQ where nothing is quantised.
        ConfigError: codes of codes; 8 bits under float16; a device without a way to spread codes.
    """
    kind, method, device = case.decided.quantization, case.facts.model.prequantized, case.facts.device
    if kind != "none" and method:
        raise ConfigError(
            f"`{KEY}: {kind}` needs the full weights of the base",
            where=case.facts.model.name_or_path,
            got=f"weights that are quantised by {method} already",
            need="the base that they were made from, or these codes as they are",
            next=f"leave {KEY} out: the base is taken as it is stored",
        )
    if kind == "none" and packs_candidates(case):
        from loraloom.lora.init import LOFTQ, nothing_was_quantised

        if case.asked.adapter.init_lora_weights == LOFTQ:
            stored = f"weights that are quantised by {method} already" if method else None
            raise nothing_was_quantised(stored or "a base that is held as it is stored")
    if kind == "int8" and case.decided.dtype == "float16":
        raise ConfigError(
            f"`{KEY}: int8` over a float16 base is not offered",
            got=f"{names.DTYPE}: float16",
            need="bfloat16 or float32, in which 8-bit weights are proved here",
            next=f"{names.DTYPE}: {'bfloat16' if device.bf16_native else 'float32'}, or {KEY}: nf4",
        )
    if kind != "none" and packs_candidates(case) and device.kind not in engine.QUANTISING:
        raise ConfigError(
            f"`{KEY}: {kind}` cannot be used on this device",
            got=device.name,
            need="a CPU or a CUDA device, where weights can be spread from codes",
            next=f"{KEY}: none",
        )


def _stays_in_files(case: Case) -> bool:
    """Whether a CPU is to read the base from its files, which hold no codes."""
    if case.facts.device.kind != "cpu" or not streams(case):
        return False
    if case.asked.model.streaming != "auto":
        return case.asked.model.streaming
    coded = Shape(1, case.decided.length, checkpointing=case.decided.checkpointing, quantization="nf4")
    return not quantises(case) or need(case, coded).high > case.memory_budget
