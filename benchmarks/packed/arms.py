"""The arms of the benchmark: the same LoRA training by PEFT + transformers.Trainer, and
by the packed engine.

An arm is measured in a process of its own, so that the memory of one is never the memory of another.
Both train r 8 on all linear layers but the head with AdamW, clipping and a linear schedule, batch 1, on
the same rows and the same base. Where a setting is not named here, each side's own default holds.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from machine import MemoryMeter, matmul_rate, synchronise
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from loraloom.data.rows import Row, causal_row
from loraloom.evals.objective import objective_for
from loraloom.lora.packed import PackedModel
from loraloom.plan.engine import TOKEN_BUDGET
from loraloom.records import AdapterSpec, Candidate, TrainingSpec
from loraloom.train.pack import PackTrainer

RANK, ALPHA, LEARNING_RATE = 8, 8, 5e-5
"""PEFT's and Trainer's defaults."""
FAR = 1_000_000
"""Steps that are planned, so that the clock ends an arm and not its schedule."""
TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "vocab_size": 32,
}


@dataclass(frozen=True)
class Arm:
    """One way to train. `adapters` is how many candidates are trained at the same time."""

    engine: Literal["peft_trainer", "loraloom"]
    precision: Literal["float32", "bfloat16"]
    adapters: int
    tokens: int
    dropout: float = 0.0

    @property
    def name(self) -> str:
        """For people, without the tokens."""
        who = "PEFT + Trainer" if self.engine == "peft_trainer" else f"loraloom K={self.adapters}"
        return f"{who} {self.precision}" + (f" dropout {self.dropout:g}" if self.dropout else "")


@dataclass(frozen=True)
class Pace:
    """How long to measure: at least so many steps and seconds, after steps that do not count."""

    warmup_steps: int
    least_steps: int
    seconds: float


@dataclass(frozen=True)
class Sample:
    """One measurement of one arm.

    Attributes:
        step_seconds: time of each step after warm-up; a step moves every adapter once.
        peak_bytes: the most memory of the training above base weights, for all adapters
            together; None if not known.
        trainable_parameters: of one adapter.
        matmul_parameters: weights of the base's matmuls, head included, embeddings not.
    """

    arm: Arm
    step_seconds: tuple[float, ...]
    peak_bytes: int | None
    trainable_parameters: int
    matmul_parameters: int

    @property
    def tokens_per_second(self) -> float:
        """By the median step."""
        return self.arm.adapters * self.arm.tokens / float(np.median(self.step_seconds))


class Stopwatch:
    """Time between the ends of steps."""

    def __init__(self, pace: Pace, device: str) -> None:
        self.pace, self.device = pace, device
        self._ends: list[float] = []

    def lap(self) -> bool:
        """A step has ended; true when there are enough."""
        synchronise(self.device)
        self._ends.append(time.perf_counter())
        laps = self.laps
        return len(laps) >= self.pace.least_steps and sum(laps) >= self.pace.seconds

    @property
    def laps(self) -> tuple[float, ...]:
        """Seconds of each step that counts, to the microsecond. The first end only starts the clock: a
        step before it is warm-up too."""
        kept = self._ends[max(0, self.pace.warmup_steps - 1) :]
        return tuple(round(end - start, 6) for start, end in pairwise(kept))


def measure(arm: Arm, shape: dict[str, Any], pace: Pace, device: str) -> Sample:
    """Run an arm in this process. A tiny training goes first, so that no library is
    loaded while memory is counted."""
    train = _train_trainer if arm.engine == "peft_trainer" else _train_packed
    tiny = build_base(TINY, arm.precision, device)
    train(arm, tiny, make_rows(arm.tokens, TINY["vocab_size"]), Stopwatch(Pace(1, 1, 0.0), device))
    base, rows = build_base(shape, arm.precision, device), make_rows(arm.tokens, shape["vocab_size"])
    matmul_parameters = sum(
        part.weight.numel() for part in base.modules() if isinstance(part, nn.Linear)
    )
    with torch.no_grad():
        base(input_ids=torch.as_tensor(rows[0].input_ids, device=device).long()[None], use_cache=False)
    meter, watch = MemoryMeter(device), Stopwatch(pace, device)
    meter.mark()
    trainable = train(arm, base, rows, watch)
    return Sample(arm, watch.laps, meter.peak(), trainable, matmul_parameters)


def measure_matmul(sides: list[int], device: str) -> float:
    """FLOP/s; here because what runs in a process of its own has to have a name."""
    return matmul_rate(sides, device)


def build_base(shape: dict[str, Any], precision: str, device: str) -> LlamaForCausalLM:
    """A LLaMA of random weights, made in its own precision: a detour through float32
    would leave a trace in memory."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, precision))
    try:
        with torch.device(device):
            return LlamaForCausalLM(LlamaConfig(**shape, max_position_embeddings=1024))
    finally:
        torch.set_default_dtype(before)


def make_rows(tokens: int, vocabulary: int, count: int = 64) -> list[Row]:
    """Random rows, every token supervised."""
    draw = np.random.default_rng(0)
    return [
        causal_row(draw.integers(1, vocabulary, tokens).tolist(), np.ones(tokens, bool))
        for _ in range(count)
    ]


def targets_of(base: LlamaForCausalLM) -> tuple[str, ...]:
    """What PEFT means by "all-linear": every linear layer but the head."""
    head = base.get_output_embeddings()
    return tuple(
        name for name, part in base.named_modules() if isinstance(part, nn.Linear) and part is not head
    )


class _Clock(TrainerCallback):
    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.watch.lap():
            control.should_training_stop = True


def _train_trainer(arm: Arm, base: LlamaForCausalLM, rows: list[Row], watch: Stopwatch) -> int:
    """One candidate by PEFT + Trainer until the watch has enough; gives the number of
    trained parameters.

    Candidates that follow one another cost this each: nothing is counted for what lies between them.
    """
    ids = [torch.as_tensor(row.input_ids).long() for row in rows]
    dataset: Any = [{"input_ids": row, "labels": row} for row in ids]
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=arm.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers to itself
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=FAR,
            per_device_train_batch_size=1,
            use_cpu=watch.device == "cpu",
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        model: Any = get_peft_model(base, config)
        trainer = Trainer(model=model, args=arguments, train_dataset=dataset, callbacks=[_Clock(watch)])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def _train_packed(arm: Arm, base: LlamaForCausalLM, rows: list[Row], watch: Stopwatch) -> int:
    """All of the arm's candidates at once, each with a data order of its own."""
    adapter = AdapterSpec(RANK, ALPHA, arm.dropout, targets_of(base))
    objective = objective_for("causal_lm", base)
    trainer = PackTrainer(
        PackedModel(base),
        rows,
        objective,
        task="causal_lm",
        pad_id=0,
        token_budget=TOKEN_BUDGET[base.device.type],
    )
    for number in range(arm.adapters):
        training = TrainingSpec(
            LEARNING_RATE, max_steps=FAR, per_device_train_batch_size=1, seed=number, evaluations=1
        )
        trainer.join(Candidate(f"t{number}", adapter, training))
    trainer.tick()
    while not watch.lap():
        trainer.tick()
    return trainer.seats["t0"].adapter.arena.numel
