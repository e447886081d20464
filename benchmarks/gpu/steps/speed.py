"""PEFT's step and transformers' Trainer, then 1, 4, 16 and 32 candidates at once: a 1B
LLaMA, batch 1, 256 tokens, bfloat16."""

from __future__ import annotations

import time
import warnings
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any

import torch

from steps.bench import Bench, NotMeasuredError
from steps.packs import DTYPE, measured
from steps.training import (
    LEARNING_RATE,
    build,
    forget_peak,
    make_rows,
    peak_bytes,
    peft_step,
    synchronise,
    timed,
    with_peft,
)

WARM, STEPS = 5, 25
"""Steps of Trainer that are not timed, and that are."""


def measure(bench: Bench) -> None:
    shape, tokens = ("small", 8) if bench.small else ("1B", 256)
    model = build(shape, DTYPE, bench.device)
    bench.part("PEFT loop", lambda: peft_loop(bench, model, tokens))
    bench.part("PEFT loop, autocast", lambda: peft_loop(bench, model, tokens, autocast=True))
    bench.part("PEFT + Trainer", lambda: trainer_loop(bench, model, tokens))
    bench.part("PEFT + Trainer, bf16", lambda: trainer_loop(bench, model, tokens, bf16=True))
    for packed in (1, 2) if bench.small else (1, 4, 16, 32):
        bench.part(f"K={packed}", lambda packed=packed: measured(bench, model, shape, packed, tokens))
    most, budget = (2, tokens) if bench.small else (32, 16 * tokens)
    bench.part(f"K={most} in two passes", lambda: measured(bench, model, shape, most, tokens, budget))


def peft_loop(bench: Bench, model: Any, tokens: int, *, autocast: bool = False) -> dict[str, Any]:
    """The plain loop: what Trainer does in a step, and nothing around it."""
    forget_peak(bench)
    times = timed(bench, peft_step(model, tokens, autocast=autocast))
    return {**times, "candidates": 1, "tokens": tokens, "peak_bytes": peak_bytes(bench)}


def trainer_loop(bench: Bench, model: Any, tokens: int, *, bf16: bool = False) -> dict[str, Any]:
    """Trainer at its defaults, batch 1. Its steps are timed from one to another, with
    no wait between them."""
    if find_spec("accelerate") is None:
        raise NotMeasuredError("accelerate is not installed")
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    warm, steps = (1, 2) if bench.small else (WARM, STEPS)
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in (warm, warm + steps):
                synchronise(bench)
                ends.append(time.perf_counter())

    forget_peak(bench)
    ids = [torch.as_tensor(row.input_ids).long() for row in make_rows(tokens, model.config.vocab_size)]
    dataset: Any = [{"input_ids": row, "labels": row} for row in ids]
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers to itself
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=warm + steps,
            per_device_train_batch_size=1,
            use_cpu=not bench.on_cuda,
            bf16=bf16,
            learning_rate=LEARNING_RATE,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=with_peft(model), args=arguments, train_dataset=dataset, callbacks=[Clock()]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    first, last = ends
    run_ms = 1e3 * (last - first) / steps
    return {
        "run_ms": run_ms,
        "steps": steps,
        "candidates": 1,
        "tokens": tokens,
        "peak_bytes": peak_bytes(bench),
        "mixed_precision": str(trainer.accelerator.mixed_precision),
    }
