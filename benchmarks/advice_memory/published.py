"""The forecast of `engine: peft` against peaks that others have published, less well
described than those on the T4.

None of these engines is exactly PEFT with transformers' Trainer, so each has the
nearest run that the forecast knows:

    litgpt          bfloat16 throughout, adapters too (no float32 copies of their inputs), logits as
                    a whole, PyTorch's fused attention, nothing recomputed; its figure is what torch
                    allocated, so no context is added
    Unsloth's HF    transformers, FlashAttention 2, `prepare_model_for_kbit_training` (upcast), layers
                    recomputed; the published figure is the longest row that still fits into a card
    LLaMA-Factory   FlashAttention 2, layers recomputed, and nothing upcast: norms, embeddings and
                    head stay bfloat16; logits in float32, as transformers gave them at the time
    PEFT benchmark  transformers in bfloat16, float32 adapters, nothing recomputed; every batch is
                    taken for one of full rows
    torchtune       compiled, layers recomputed, a fused loss, adapters in bfloat16
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from loraloom.plan.peft_memory import (
    CONTEXT_BYTES,
    PeftRun,
    Quantization,
    Sizes,
    adapted_by,
    forecast_peft,
    llama_sizes,
)

GB, GIB = 1e9, 2**30
MODELS: dict[str, Sizes] = {
    "Llama-2-7B": llama_sizes(4096, 32, 32, 32, 11008, 32000),
    "Llama-2-13B": llama_sizes(5120, 40, 40, 40, 13824, 32000),
    "Llama-3.1-8B": llama_sizes(4096, 32, 32, 8, 14336, 128256),
    "Llama-3.2-3B": llama_sizes(3072, 28, 24, 8, 8192, 128256, head_dim=128, tied=True),
}
QV = ("q_proj", "v_proj")
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ENGINES: dict[str, dict[str, Any]] = {
    "litgpt": {"checkpointing": False, "cast_inputs": False, "context": 0.0},
    "Unsloth's HF rows": {"upcast": True},
    "LLaMA-Factory": {"float_logits": True},
    "PEFT benchmark": {"checkpointing": False, "context": 0.0},
    "torchtune": {"loss": "fused", "cast_inputs": False, "context": 0.0},
}


@dataclass(frozen=True)
class Published:
    """One published peak in bytes; `rows` of `length` tokens."""

    engine: str
    model: str
    rows: int
    length: int
    rank: int
    targets: tuple[str, ...]
    quantization: Quantization
    bytes: float


ROWS = (
    Published("litgpt", "Llama-2-7B", 1, 1304, 8, QV, "none", 21.30 * GB),
    Published("litgpt", "Llama-2-7B", 2, 1304, 8, QV, "none", 29.07 * GB),
    Published("litgpt", "Llama-2-7B", 1, 1304, 8, QV, "nf4", 14.14 * GB),
    Published("litgpt", "Llama-2-7B", 1, 1304, 8, QV, "nf4-dq", 13.84 * GB),
    Published("litgpt", "Llama-2-13B", 1, 1304, 8, QV, "none", 38.12 * GB),
    Published("litgpt", "Llama-2-13B", 1, 1304, 8, QV, "nf4", 23.14 * GB),
    Published("Unsloth's HF rows", "Llama-3.1-8B", 1, 932, 32, ALL, "nf4", 12 * GIB),
    Published("Unsloth's HF rows", "Llama-3.1-8B", 1, 5789, 32, ALL, "nf4", 24 * GIB),
    Published("Unsloth's HF rows", "Llama-3.1-8B", 1, 28454, 32, ALL, "nf4", 80 * GIB),
    Published("LLaMA-Factory", "Llama-2-7B", 1, 1024, 8, ALL, "nf4", 6 * GB),
    Published("LLaMA-Factory", "Llama-2-7B", 1, 4096, 8, ALL, "nf4", 9 * GB),
    Published("LLaMA-Factory", "Llama-2-7B", 1, 16384, 8, ALL, "nf4", 19 * GB),
    Published("LLaMA-Factory", "Llama-2-7B", 1, 32768, 8, ALL, "nf4", 32 * GB),
    Published("LLaMA-Factory", "Llama-2-7B", 4, 1024, 8, ALL, "none", 17 * GB),
    Published("PEFT benchmark", "Llama-3.2-3B", 4, 768, 32, QV, "none", 20.8 * GIB),
    Published("torchtune", "Llama-3.1-8B", 2, 2048, 8, ALL, "none", 16.2 * GIB),
    Published("torchtune", "Llama-3.1-8B", 2, 2048, 8, ALL, "nf4", 7.4 * GIB),
)


def run_of(row: Published) -> PeftRun:
    engine = ENGINES[row.engine]
    cast = engine.get("cast_inputs", True)
    trained, queries, inputs = adapted_by(MODELS[row.model], row.targets, row.rank, cast_inputs=cast)
    run = PeftRun(
        row.rows, row.length, trained, queries, inputs, row.quantization, context=CONTEXT_BYTES
    )
    return replace(run, **engine)


def score() -> list[dict[str, Any]]:
    """One record a published peak, in GB."""
    made: list[dict[str, Any]] = []
    for row in ROWS:
        forecast = forecast_peft(MODELS[row.model], run_of(row)).value
        made.append(
            {
                "engine": row.engine,
                "model": row.model,
                "rows": row.rows,
                "length": row.length,
                "r": row.rank,
                "quantization": row.quantization,
                "forecast_gb": round(forecast / GB, 2),
                "published_gb": round(row.bytes / GB, 2),
                "error": round(forecast / row.bytes - 1, 4),
            }
        )
    return made
