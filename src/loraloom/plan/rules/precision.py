"""In which precision the frozen base is computed. Adapters and their optimiser are always float32."""

from __future__ import annotations

from loraloom.config import names
from loraloom.config.keys import is_asked
from loraloom.plan.about import About
from loraloom.plan.case import DERIVED, Case
from loraloom.plan.numbers import bytes_text, count
from loraloom.records import Advice

KEY = names.PRECISION
ABOUT = About(
    does=(
        "The number format in which the frozen base is computed. Adapters, their gradients and moments"
        " are always float32."
    ),
    rule=(
        "bf16 where the device computes it in hardware and the model is large enough for it to matter;"
        " fp16 only on a CUDA device without bf16 where a float32 base would take over half of the"
        " memory, and never for models like T5; else fp32."
    ),
    evidence=(
        "Half the memory and time of the base. QLoRA (arXiv:2305.14314) trains with bf16 products; fp16"
        " overflows in T5's feed-forward layers, and holds no gradient below 6e-8 without a loss scale."
    ),
    tools={
        "transformers": "fp32 (`bf16` and `fp16` both false)",
        "Unsloth": "bf16 where the device has it, else fp16",
    },
)
OF_DTYPE = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}
SMALL = 100_000_000
"""Below this the step is bound by small operations, not by products or memory: half
precision saves nothing."""
ROOMY = 0.5
"""Share of the memory that a float32 base may take where the device has no bf16: float16 holds no number
below 6e-8, gradients of a mean over many tokens are that small, and nothing scales them here. It is
taken only where float32 leaves no room."""
SMALL_ON_CPU = 10_000_000
"""A CPU is bound by products much earlier: with bf16 in hardware they take half the time of float32
(430 against 210 GFLOP/s on two AMD cores, oneDNN)."""


def advise(case: Case) -> Advice:
    model, device = case.facts.model, case.facts.device
    choices = ("fp32", "bf16")
    if is_asked(case.asked, names.DTYPE):
        dtype = case.asked.model.dtype
        return Advice(OF_DTYPE[dtype], f"follows model.dtype: {dtype}", "config", choices, "M")
    if model.parameters < (SMALL_ON_CPU if device.kind == "cpu" and device.bf16_native else SMALL):
        reason = (
            f"{count(model.parameters)} parameters: half precision saves little at this size, and"
            " float32 is exact"
        )
        return Advice("fp32", reason, DERIVED, choices, "M")
    if device.bf16_native:
        saved = (
            "time of a product"
            if device.kind == "cpu"
            else f"memory of {count(model.parameters)} parameters"
        )
        reason = f"{device.name} computes bf16 in hardware: half the {saved}"
        return Advice("bf16", reason, "arXiv:2305.14314", choices, "A")
    weights = 4 * model.parameters
    if (
        device.kind == "cuda"
        and model.kind != "encoder_decoder"
        and weights > ROOMY * case.memory_budget
    ):
        reason = (
            f"{device.name} has no bf16 in hardware, and a float32 base of {bytes_text(weights)} leaves"
            " too little memory"
        )
        return Advice("fp16", reason, "huggingface/transformers", choices, "C")
    return Advice(
        "fp32",
        f"{device.name} has no bf16 in hardware: emulated, it is slower than float32",
        DERIVED,
        choices,
        "M",
    )
