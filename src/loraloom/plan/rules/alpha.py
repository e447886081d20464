"""lora_alpha: the update is (alpha / r) B A, so a larger alpha is a larger update."""

from __future__ import annotations

from loraloom.config import names
from loraloom.plan.about import About
from loraloom.plan.case import Case
from loraloom.records import Advice

KEY = names.LORA_ALPHA
ABOUT = About(
    does=(
        "The strength of the update: what is added to a layer is (alpha / r) B A, so a larger alpha is a"
        " larger update, like a larger rate."
    ),
    rule=(
        "32 for language models, twice the rank for encoders; what counts is the scale alpha/r together"
        " with the rate, so both are shown side by side and the rate is set for the scale."
    ),
    evidence=(
        "With alpha fixed the best rate hardly moves with the rank (thinkingmachines.ai/blog/lora)."
        " Other tools' scales span 0.25 to 4 without a reason. No tool's or paper's default is 2r"
        " throughout: loralib's alpha is 1."
    ),
    tools={
        "PEFT": "8",
        "TRL": "32",
        "Unsloth": "16",
        "LLaMA-Factory": "16",
        "litgpt": "16",
        "ms-swift": "32",
        "Tinker": "32",
    },
)
DECODER_ALPHA = 32
ENCODER_SCALE = 2


def advise(case: Case) -> Advice:
    r = case.decided.r
    if case.facts.model.kind == "encoder":
        value = ENCODER_SCALE * r
        scale = f"scale alpha/r = {value}/{r} = {value / r:g}"
        reason = f"twice the rank, as in the runs that our rate for encoders comes from: {scale}"
        return Advice(value, reason, "arXiv:2106.09685", (r, 4 * r), "B")
    reason = (
        "fixed, with the rate tuned for it: the best rate then hardly moves with the rank; "
        f"scale alpha/r = {DECODER_ALPHA}/{r} = {DECODER_ALPHA / r:g} (other tools use 0.25 to 4)"
    )
    return Advice(DECODER_ALPHA, reason, "thinkingmachines.ai/blog/lora", (r // 2, 4 * r), "M")
