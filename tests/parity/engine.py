"""Helpers shared by the engine's proofs: rows, candidates, training alone and together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tiny
import torch
from torch import nn

from loraloom.data.encode import Row
from loraloom.evals.objective import objective_for
from loraloom.lora.base import share_copy
from loraloom.lora.packed import PackedModel
from loraloom.lora.reach import out_of_reach
from loraloom.records import AdapterSpec, Candidate, TrainingSpec
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Seat

HEADS = ("lm_head", "embed_out", "score", "classifier", "pre_classifier", "pooler")


def causal_rows(count: int = 24, vocab: int = tiny.VOCAB, longest: int = 14, seed: int = 0) -> list[Row]:
    """Rows of different lengths, the first third of each unsupervised (a prompt)."""
    draw = np.random.default_rng(seed)
    rows: list[Row] = []
    for _ in range(count):
        ids = draw.integers(1, vocab, draw.integers(4, longest)).astype(np.int32)
        labels = ids.copy()
        labels[: len(ids) // 3] = -100
        rows.append(Row(ids, labels))
    return rows


def class_rows(
    count: int = 24, vocab: int = tiny.VOCAB, longest: int = 14, classes: int = 3, seed: int = 0
) -> list[Row]:
    draw = np.random.default_rng(seed)
    return [
        Row(
            draw.integers(1, vocab, draw.integers(4, longest)).astype(np.int32),
            np.array([draw.integers(classes)], np.int32),
        )
        for _ in range(count)
    ]


def pair_rows(count: int = 24, vocab: int = tiny.VOCAB, longest: int = 14, seed: int = 0) -> list[Row]:
    """A source and a target of another length."""
    draw = np.random.default_rng(seed)
    return [
        Row(*(draw.integers(1, vocab, draw.integers(3, longest)).astype(np.int32) for _ in range(2)))
        for _ in range(count)
    ]


def rows_for(family: str, **more: Any) -> list[Row]:
    makers = {"causal_lm": causal_rows, "seq_cls": class_rows, "seq2seq_lm": pair_rows}
    return makers[tiny.FAMILIES[family].task](**more)


def linears(model: nn.Module) -> tuple[str, ...]:
    """Paths of all linear layers outside the heads, and of a mixture of experts those
    that PEFT adapts too."""
    paths = tuple(
        name
        for name, part in model.named_modules()
        if type(part).__name__ in ("Linear", "Conv1D") and not set(name.split(".")) & set(HEADS)
    )
    astray = out_of_reach(model, paths)
    return tuple(path for path in paths if path not in astray)


def attention(model: nn.Module) -> tuple[str, ...]:
    """Some of them: those of attention."""
    return tuple(
        path for path in linears(model) if "attn" in path.lower() or "attention" in path.lower()
    )


def candidate(
    name: str,
    model: nn.Module,
    *,
    targets: Sequence[str] | None = None,
    heads: Sequence[str] = (),
    **values: Any,
) -> Candidate:
    """A candidate with sensible values; `values` override those of either spec."""
    adapter: dict[str, Any] = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0}
    training: dict[str, Any] = {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 2,
        "max_steps": 4,
        "seed": 7,
        "evaluations": 1,
    }
    params = values.pop("params", {})
    for key, value in values.items():
        (adapter if key in AdapterSpec.__dataclass_fields__ else training)[key] = value
    adapter["target_modules"] = tuple(targets if targets is not None else linears(model))
    adapter.setdefault("modules_to_save", tuple(heads))
    return Candidate(name, AdapterSpec(**adapter), TrainingSpec(**training), params)


def trainer(model: Any, rows: Sequence[Row], task: str = "causal_lm", **more: Any) -> PackTrainer:
    """A trainer over a copy of `model` that shares its weights."""
    objective = objective_for(task, model)
    fresh = more.pop("fresh_modules", ())
    packed = PackedModel(share_copy(model), fresh_modules=fresh)
    return PackTrainer(packed, rows, objective, task=task, pad_id=tiny.PAD, **more)  # type: ignore[arg-type]


def run(
    engine: PackTrainer,
    candidates: Sequence[Candidate],
    before_tick: Callable[[int], None] = lambda _: None,
) -> dict[str, Seat]:
    """Train candidates together to their ends; everything that is left of each, by id.
    Those that diverge are let go."""
    for one in candidates:
        engine.join(one)
    done: dict[str, Seat] = {}
    tick = 0
    while engine.seats:
        before_tick(tick)
        engine.tick()
        for name in {*engine.finished(), *engine.diverged()}:
            done[name] = engine.leave(name)
        tick += 1
    return done


def weights_of(seat: Seat) -> torch.Tensor:
    return seat.adapter.arena.weights


def largest_difference(left: torch.Tensor, right: torch.Tensor) -> float:
    """Relative to the larger of the two."""
    return float((left - right).abs().max() / right.abs().max().clamp(min=1e-12))
