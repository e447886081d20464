"""A base of a billion numbers in NF4 under 4 GiB: planned, loaded, and eight candidates trained.

    python benchmarks/memory/one_billion.py FOLDER

makes the base in FOLDER where it is not there yet, and prints one JSON document. Memory is the most that
Linux counted as resident, pages of weight files included.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from one_arm import forget_peak, seat, status
from random_llama import save_base, save_rows

from loraloom.config.decode import load_config
from loraloom.pipeline.prepare import prepare
from loraloom.pipeline.workbench import Workbench

LIMIT = 4 * 2**30
PACKED, RANK, TOKENS, ROWS, HELD_OUT = 8, 16, 256, 32, 8
SHAPE: dict[str, Any] = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 128_256,
    "tie_word_embeddings": True,
}
"""LLaMA 3.2 1B."""
QUICK: dict[str, Any] = SHAPE | {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 512,
}
TICKS = 2
"""Before an evaluation; one more comes after it."""


def config_of(base: Path, folder: Path, vocabulary: int, tokens: int) -> Any:
    rows = [
        save_rows(folder / f"{name}-{tokens}.jsonl", vocabulary, tokens, count, seed)
        for seed, (name, count) in enumerate((("train", ROWS), ("validation", HELD_OUT)))
    ]
    return load_config(
        None,
        {
            "model.name_or_path": str(base),
            "model.dtype": "bfloat16",
            "model.quantization": "nf4",
            "data.train": rows[0],
            "data.validation": rows[1],
            "data.max_length": tokens,
            "adapter.r": RANK,
            "adapter.target_modules": "all-linear",
            "adapter.lora_dropout": 0.0,
            "training.max_steps": 100,
            "training.per_device_train_batch_size": 1,
            "training.gradient_accumulation_steps": 1,
            "limits.memory": f"{LIMIT // 2**20}MiB",
            "limits.max_packed": PACKED,
            "search.trials": PACKED,
            "search.pruner": "none",
            "search.seeds_for_finalists": 1,
        },
    )


def measure(folder: Path, shape: dict[str, Any], tokens: int) -> dict[str, Any]:
    base = folder / "base"
    if not base.exists():
        save_base(base, shape)
    prepared = prepare(config_of(base, folder, shape["vocab_size"], tokens))
    memory, plan = prepared.plan.forecast["memory"], prepared.plan
    forget_peak()
    began = time.perf_counter()
    bench = Workbench(prepared)
    loading, loading_seconds = status("VmHWM"), time.perf_counter() - began
    forget_peak()
    names = seat(bench, PACKED)
    laps: list[float] = []
    for number in range(TICKS + 1):
        if number == TICKS:
            bench.trainer.evaluate(names)
        began = time.perf_counter()
        bench.trainer.tick()
        laps.append(time.perf_counter() - began)
    return {
        "parameters": bench.base.parameters,
        "base_bytes": bench.base.stored_bytes,
        "packed": PACKED,
        "rank": RANK,
        "tokens": tokens,
        "limit_bytes": LIMIT,
        "checkpointing": plan.settings.checkpointing,
        "forecast_bytes": memory.value,
        "forecast_high_bytes": memory.high,
        "forecast_parts": dict(memory.parts),
        "loading_bytes": loading,
        "loading_seconds": loading_seconds,
        "measured_bytes": status("VmHWM"),
        "error": memory.value / status("VmHWM") - 1,
        "tick_seconds": laps,
    }


def main(words: list[str]) -> dict[str, Any]:
    size = (QUICK, 8) if "--quick" in words else (SHAPE, TOKENS)
    return measure(Path(words[0]), *size)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
