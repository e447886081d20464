"""The forecast of `engine: peft` against 40 peaks that were measured on a T4
(../shared/evidence/t4_peft_qlora_peaks.json)."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from loraloom.plan.peft_memory import PeftRun, Sizes, adapted_by, llama_sizes, peft_phases

MIB = 2**20


def sizes_of_row(row: dict[str, Any]) -> Sizes:
    config = row["model_config"]
    return llama_sizes(
        config["hidden_size"],
        config["num_layers"],
        config["num_attention_heads"],
        config["num_kv_heads"],
        config["intermediate_size"],
        config["vocab_size"],
        head_dim=config["head_dim"],
        tied=config["tie_word_embeddings"],
    )


def run_of_row(row: dict[str, Any], sizes: Sizes) -> PeftRun:
    asked = row["run"]
    trained, queries, inputs = adapted_by(sizes, asked["lora_targets"], asked["lora_rank"])
    quantised = asked["quantization"] != "none"
    return PeftRun(
        asked["batch_size"],
        asked["seq_len"],
        trained,
        queries,
        inputs,
        quantization="nf4" if quantised else "none",
        upcast=quantised,
        checkpointing=asked["grad_checkpoint"],
        attention="eager" if asked["attn_impl"] == "eager" else "fused",
        context=0.0,
    )


def score(file: Path) -> list[dict[str, Any]]:
    """One record a measured run: the forecast and the measured peak in MiB, of the
    whole step and of its moments."""
    made: list[dict[str, Any]] = []
    for row in json.loads(file.read_text(encoding="utf-8"))["runs"]:
        sizes, measured, asked = sizes_of_row(row), row["measured"], row["run"]
        phases = {
            name: sum(parts.values()) / MIB
            for name, parts in peft_phases(sizes, run_of_row(row, sizes)).items()
        }
        forecast, peak = max(phases.values()), measured["peak_allocated_mib"]
        forward = phases["forward"] / measured["peak_forward_mib"] - 1
        backward = max(phases["loss"], phases["layer"]) / measured["peak_backward_mib"] - 1
        made.append(
            {
                "model": row["model_config"]["name"],
                "rows": asked["batch_size"],
                "length": asked["seq_len"],
                "attention": asked["kernel"],
                "quantization": asked["quantization"],
                "moment": max(phases, key=phases.__getitem__),
                "forecast_mib": round(forecast, 1),
                "measured_mib": round(peak, 1),
                "error": round(forecast / peak - 1, 4),
                "forward_error": round(forward, 4),
                "backward_error": round(backward, 4),
                "optimizer_error": round(phases["optimizer"] / measured["peak_optimizer_mib"] - 1, 4),
            }
        )
    return made


def summary(records: list[dict[str, Any]], key: str = "error") -> dict[str, float]:
    sizes = [abs(record[key]) for record in records]
    return {"rows": len(sizes), "median": round(median(sizes), 4), "worst": round(max(sizes), 4)}
