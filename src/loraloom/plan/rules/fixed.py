"""Settings that are the same for everyone until someone asks otherwise, each with the evidence for leaving it alone."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.plan.basis import DERIVED, asked_value
from loraloom.records import Advice, Grade

FIXED: dict[str, tuple[str, str, Grade]] = {
    "adapter.bias": ("trained biases cost 4.4 points in the one table that claims a gain", DERIVED, "C"),
    "adapter.use_dora": ("46.9 against 47.8 points, 26% slower, 2.1 GiB more", "huggingface/peft method comparison", "A"),
    "adapter.init_lora_weights": ("nine ways to start land within 1-2% once the rate is tuned", "arXiv:2602.04998", "C"),
    "adapter.rank_pattern": ("one rank for all layers works well in most settings", DERIVED, "C"),
    "adapter.alpha_pattern": ("one alpha for all layers", DERIVED, "C"),
    "adapter.lora_plus_ratio": (
        "off: gains little once the rate is tuned; 1 to 16 is worth a search",
        "arXiv:2402.12354",
        "A",
    ),
    "training.max_steps": ("the number of epochs decides", DERIVED, "M"),
    "training.max_grad_norm": ("clips rare outliers and leaves ordinary steps alone", "huggingface/transformers", "C"),
    "training.neftune_noise_alpha": (
        "off: noise on the embeddings helps chat style only (5 to 15)",
        "arXiv:2310.05914",
        "B",
    ),
    "training.seed": ("fixed, so that the run can be repeated; finalists are run over several seeds", DERIVED, "M"),
}
"""Key -> reason, source, grade. The value is the one that an empty request holds."""


def advise(key: str, asked: Config) -> Advice:
    """Advice that keeps the default of `key`."""
    reason, source, grade = FIXED[key]
    return Advice(asked_value(asked, key), reason, source, None, grade)
