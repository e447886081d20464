"""What the steps train: models of random weights made on the device, rows, candidates,
our trainer and PEFT's step."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from loraloom.data.rows import Row, causal_row
from loraloom.errors import ModelError
from loraloom.evals.objective import objective_for
from loraloom.lora.base import share_copy
from loraloom.lora.packed import PackedModel
from loraloom.plan.engine import TOKEN_BUDGET
from loraloom.records import AdapterSpec, Candidate, TrainingSpec
from loraloom.train.pack import PackTrainer
from steps.bench import Bench, NotMeasuredError

RANK, ALPHA, LEARNING_RATE = 8, 16, 1e-4
FAR = 1000
"""Steps that are planned, so that no candidate ends while it is timed."""
SHAPES: dict[str, dict[str, Any]] = {
    "1B": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "vocab_size": 128_256,
        "tie_word_embeddings": True,
    },
    "0.5B": {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
    "3B": {
        "hidden_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "vocab_size": 128_256,
        "tie_word_embeddings": True,
    },
    "8B": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14_336,
        "vocab_size": 128_256,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 256,
        "vocab_size": 512,
        "tie_word_embeddings": True,
    },
    "small": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
        "vocab_size": 128,
        "tie_word_embeddings": True,
    },
}
"""Sizes of LLaMA 3.2 1B and 3B, of LLaMA 3.1 8B and of Qwen2.5 0.5B; "tiny" is for contracts, "small"
for a processor."""


def config_of(shape: str) -> LlamaConfig:
    return LlamaConfig(**SHAPES[shape], max_position_embeddings=2048, pad_token_id=0)


def build(shape: str, dtype: str, device: str) -> LlamaForCausalLM:
    """A LLaMA of random weights, drawn on the device in its own precision."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            return LlamaForCausalLM(config_of(shape)).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def make_rows(
    tokens: int, vocabulary: int, count: int = 64, *, shortest: int | None = None, seed: int = 0
) -> list[Row]:
    """Random rows, every token supervised, of `shortest` to `tokens` tokens."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(shortest or tokens, tokens + 1, count)
    return [
        causal_row(draw.integers(1, vocabulary, length).tolist(), np.ones(length, bool))
        for length in lengths
    ]


def linears(model: nn.Module, *names: str) -> tuple[str, ...]:
    """Paths of every linear layer but the head, or of those among them with these names."""
    paths = (
        path for path, part in model.named_modules() if isinstance(part, nn.Linear) and path != "lm_head"
    )
    return tuple(path for path in paths if not names or path.rpartition(".")[2] in names)


def candidate(name: str, model: nn.Module, **values: Any) -> Candidate:
    """r 8 on all linear layers, batch 1; `values` override fields of either spec."""
    adapter: dict[str, Any] = {
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "target_modules": linears(model),
    }
    training: dict[str, Any] = {
        "learning_rate": LEARNING_RATE,
        "per_device_train_batch_size": 1,
        "max_steps": FAR,
        "evaluations": 1,
    }
    for key, value in values.items():
        (adapter if key in AdapterSpec.__dataclass_fields__ else training)[key] = value
    return Candidate(name, AdapterSpec(**adapter), TrainingSpec(**training))


def engine(
    model: Any,
    rows: Sequence[Row],
    validation: Sequence[Row] = (),
    *,
    token_budget: int | None = None,
    **switches: Any,
) -> PackTrainer:
    """A trainer on the model's device, over a copy that shares its weights.

    Args:
        token_budget: of a pass; None for the device's own number.
        switches: `kernels`, `fused`, `graphs`, by the names of the arguments of
            PackedModel and PackTrainer.

    Raises:
        NotMeasuredError: a switch that this loraloom does not have, or that cannot be on here.
    """
    packed_values, trainer_values = {}, {}
    for name, value in switches.items():
        home = next(
            (one for one in (PackedModel, PackTrainer) if name in inspect.signature(one).parameters),
            None,
        )
        if home is None:
            raise NotMeasuredError(f"this loraloom has no switch `{name}`")
        (packed_values if home is PackedModel else trainer_values)[name] = value
    objective = objective_for("causal_lm", model)
    try:
        packed = PackedModel(share_copy(model), **packed_values)
    except ModelError as error:
        if not any(packed_values.values()):
            raise
        raise NotMeasuredError(" ".join(str(error).split())) from error
    budget = token_budget or TOKEN_BUDGET[packed.device.type]
    trainer = PackTrainer(
        packed,
        rows,
        objective,
        task="causal_lm",
        pad_id=0,
        validation=validation,
        token_budget=budget,
        **trainer_values,
    )
    if switches.get("graphs") and trainer.graphs is None:
        raise NotMeasuredError(f"no CUDA graphs on {packed.device.type}")
    return trainer


def ways(trainer: PackTrainer) -> dict[str, Any]:
    """Which fast paths a trainer takes: kernels, and what became of its CUDA graphs."""
    found: dict[str, Any] = {"kernels": trainer.packed.kernels}
    graphs = getattr(trainer, "graphs", None)
    if graphs is not None:
        refused = sorted(set(graphs.refused.values()))
        found |= {
            "recorded": graphs.recorded,
            "replays": graphs.replays,
            "refused": refused,
            "stopped": graphs.stopped,
        }
    return found


def synchronise(bench: Bench) -> None:
    """Wait for all that was asked of the device."""
    if bench.on_cuda:
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Pace:
    """How long to measure: after `warmup` steps at least `least`, and as many as fit into `seconds`."""

    warmup: int = 6
    least: int = 6
    seconds: float = 1.0
    most: int = 40


SMALL_PACE = Pace(1, 2, 0.0)


def timed(bench: Bench, step: Callable[[], object], pace: Pace | None = None) -> dict[str, Any]:
    """Milliseconds of a step: the median and the spread of steps that were waited for one by one
    (`step_ms`), and the mean over as many steps with one wait at their end (`run_ms`), in which the host
    may run ahead of the device.
    """
    pace = pace or (SMALL_PACE if bench.small else Pace())
    for _ in range(pace.warmup):
        step()
    synchronise(bench)
    laps: list[float] = []
    while len(laps) < pace.least or (sum(laps) < pace.seconds and len(laps) < pace.most):
        started = time.perf_counter()
        step()
        synchronise(bench)
        laps.append(time.perf_counter() - started)
    started = time.perf_counter()
    for _ in laps:
        step()
    synchronise(bench)
    run = (time.perf_counter() - started) / len(laps)
    milliseconds = [1e3 * lap for lap in laps]
    return {
        "step_ms": median(milliseconds),
        "least_ms": min(milliseconds),
        "most_ms": max(milliseconds),
        "steps": len(laps),
        "run_ms": 1e3 * run,
    }


def pack_of(
    model: Any, trainer: PackTrainer, count: int, each: Callable[[int], dict[str, Any]] = lambda n: {}
) -> list[str]:
    """Let `count` candidates join; gives their names."""
    made = [candidate(f"t{number}", model, seed=number, **each(number)) for number in range(count)]
    for one in made:
        trainer.join(one)
    return [one.id for one in made]


def forget_peak(bench: Bench) -> None:
    if bench.on_cuda:
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(bench: Bench) -> int | None:
    """The most that torch has allocated on the device since; None on a processor."""
    return int(torch.cuda.max_memory_allocated()) if bench.on_cuda else None


# -- PEFT's step
# -------------------------------------------------------------------------------------------------------


def peft_step(model: Any, tokens: int, *, autocast: bool = False) -> Callable[[], object]:
    """One step of PEFT with what transformers' Trainer does in it: forward, backward,
    clip, fused AdamW, zero.

    Args:
        autocast: compute in bfloat16 throughout, as `TrainingArguments(bf16=True)` does.
    """
    adapted, ids = with_peft(model), batch_ids(model, tokens)
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=True)
    device = ids.device.type

    def context() -> AbstractContextManager[Any]:
        return torch.autocast(device, torch.bfloat16) if autocast else nullcontext()

    def step() -> None:
        with context():
            loss = adapted(input_ids=ids, labels=ids).loss
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def with_peft(model: Any) -> Any:
    """PEFT's adapters on a copy that shares the weights of the base, ready to be trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(share_copy(model), config).train()


def batch_ids(model: Any, tokens: int) -> torch.Tensor:
    (row,) = make_rows(tokens, model.config.vocab_size, 1)
    return torch.as_tensor(row.input_ids).long()[None].to(next(model.parameters()).device)
