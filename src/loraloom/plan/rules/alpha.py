"""lora_alpha: the update is (alpha / r) B A, so a larger alpha is a larger update."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.basis import Decided, Facts
from loraloom.records import Advice

KEY = "adapter.lora_alpha"
DECODER_ALPHA = 32
ENCODER_SCALE = 2


def advise(facts: Facts, asked: Config, decided: Decided) -> Advice:
    r = decided["adapter.r"].value
    if facts.model.kind == "encoder":
        value = ENCODER_SCALE * r
        reason = f"twice the rank, as where our rate for encoders comes from: scale alpha/r = {value}/{r} = {value / r:g}"
        return Advice(value, reason, "arXiv:2106.09685", (r, 4 * r), "B")
    reason = (
        "fixed, with the rate tuned for it: the best rate then hardly moves with the rank; "
        f"scale alpha/r = {DECODER_ALPHA}/{r} = {DECODER_ALPHA / r:g} (other tools use 0.25 to 4)"
    )
    return Advice(DECODER_ALPHA, reason, "thinkingmachines.ai/blog/lora", (r // 2, 4 * r), "M")
