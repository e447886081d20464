"""Does the device train what the CPU trains, and a pack what a candidate trains alone?

Two trainings are compared by how far apart the weights of a candidate end, over how far they went: |w -
v| / |v - v0|, in Euclidean norms. In bfloat16 the yardstick is what bfloat16 itself costs: a training on
the CPU in bfloat16 against one in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from loraloom.lora import dropout
from loraloom.records import Candidate
from loraloom.train.pack import PackTrainer
from steps.bench import Bench, Failed, NotMeasuredError
from steps.training import build, candidate, engine, linears, make_rows, ways

TOLERANCE = {"float64": 1e-5, "float32": 5e-3}
"""Largest distance. Norms and rotary angles are float32 in models of any precision, and AdamW's first
steps take the sign of a gradient, however small it is."""
WORSE, MORE = 2.0, 0.02
"""In bfloat16: this many times what bfloat16 costs on a CPU, and so much more."""
SGD_RATE = 0.05
STEPS, REPEATED_STEPS = 3, 6
"""Of each candidate, and of those whose passes are to be recorded: a graph is made of
what has been seen before."""
LENGTH = 24

Weights = dict[str, Tensor]
"""Of each candidate, flat, float64 on the CPU."""


def measure(bench: Bench) -> None:
    # A CPU draws dropout's masks in another order: here it draws as a GPU does.
    with mock.patch.object(dropout, "drawn_in_order", return_value=False):
        trial = Trial(bench)
        for dtype in ("float64", "float32", "bfloat16"):
            bench.part(f"device as CPU, {dtype}", lambda dtype=dtype: trial.as_on_cpu(dtype))
        for dtype in ("float32", "bfloat16"):
            bench.part(f"packed as alone, {dtype}", lambda dtype=dtype: trial.as_alone(dtype))
        for name, (off, on) in SWITCHES.items():
            for dtype in ("float32", "bfloat16"):
                bench.part(
                    f"{name}, {dtype}", lambda o=off, n=on, dtype=dtype: trial.as_without(dtype, o, n)
                )
        for dtype in ("float32", "bfloat16"):
            bench.part(f"graph as eager, {dtype}", lambda dtype=dtype: trial.as_eager(dtype))


SWITCHES: dict[str, tuple[dict[str, bool], dict[str, bool]]] = {
    "kernels as AdapterDelta": ({"kernels": False}, {"kernels": True}),
    "fused as plain": ({"fused": False}, {"fused": True}),
}


def kinds(model: Any, steps: int = STEPS) -> list[Candidate]:
    """One candidate of every kind: ranks, rows, targets, accumulation, dropout, optimisers."""
    attention = linears(model, "q_proj", "k_proj", "v_proj", "o_proj")
    some: dict[str, dict[str, Any]] = {
        "plain": {},
        "rank 3": {"r": 3, "lora_alpha": 5, "rank_pattern": {linears(model)[0]: 6}},
        "rank 32, 3 rows": {"r": 32, "per_device_train_batch_size": 3},
        "attention, sgd": {"target_modules": attention, "optim": "sgd", "learning_rate": SGD_RATE},
        "accumulated": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
        "dropout": {"lora_dropout": 0.2},
        "dropout, rank 5": {
            "lora_dropout": 0.1,
            "r": 5,
            "per_device_train_batch_size": 2,
            "weight_decay": 0.1,
        },
        "dora": {"use_dora": True, "lora_plus_ratio": 4.0},
    }
    return [
        candidate(name, model, **{"learning_rate": 5e-3, "seed": number, "max_steps": steps, **values})
        for number, (name, values) in enumerate(some.items())
    ]


class Trial:
    """Trainings of the same candidates, each done once."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.shape = "small" if bench.small else "tiny"
        self._done: dict[Any, Weights] = {}
        self._first: dict[str, Tensor] = {}
        self._ways: dict[str, dict[str, Any]] = {}

    def as_on_cpu(self, dtype: str) -> dict[str, Any]:
        there = self.trained(dtype, self.bench.device)
        if dtype == "bfloat16":
            return self.judged_by_truth(there)
        return self.judged(there, self.trained(dtype, "cpu"), dict.fromkeys(there, TOLERANCE[dtype]))

    def as_alone(self, dtype: str) -> dict[str, Any]:
        together, alone = (
            self.trained(dtype, self.bench.device),
            self.trained(dtype, self.bench.device, alone=True),
        )
        return self.judged(together, alone, self.allowed(dtype))

    def as_without(self, dtype: str, off: Mapping[str, bool], on: Mapping[str, bool]) -> dict[str, Any]:
        with_it = self.trained(dtype, self.bench.device, **on)
        without = self.trained(dtype, self.bench.device, **off)
        return self.judged(with_it, without, self.allowed(dtype))

    def as_eager(self, dtype: str) -> dict[str, Any]:
        """Rows of one length, so that passes repeat.

        Raises:
            NotMeasuredError: no graph ran.
        """
        eager = self.trained(dtype, self.bench.device, repeated=True, graphs=False)
        recorded = self.trained(dtype, self.bench.device, repeated=True, graphs=True)
        taken = self._ways[dtype]
        if not taken["replays"]:
            raise NotMeasuredError(
                f"no graph ran: {taken['stopped'] or '; '.join(taken['refused']) or 'nothing repeated'}"
            )
        return {**self.judged(recorded, eager, self.allowed(dtype)), "ways": taken}

    def judged_by_truth(self, there: Weights) -> dict[str, Any]:
        """bfloat16 on the device: no further from float64 than bfloat16 on the CPU, and a little."""
        truth = self.trained("float64", "cpu")
        return self.judged(there, truth, self.allowed("bfloat16"))

    def allowed(self, dtype: str) -> dict[str, float]:
        truth = self.trained("float64", "cpu")
        if dtype in TOLERANCE:
            return dict.fromkeys(truth, TOLERANCE[dtype])
        plain = self.apart(self.trained(dtype, "cpu"), truth)
        return {name: WORSE * far + MORE for name, far in plain.items()}

    def judged(self, left: Weights, right: Weights, allowed: Mapping[str, float]) -> dict[str, Any]:
        """Raises:
        Failed: some candidate ended further away than it may.
        """
        apart = self.apart(left, right)
        found = {"apart": apart, "allowed": dict(allowed), "worst": max(apart.values())}
        wrong = [name for name, far in apart.items() if not far <= allowed[name]]
        if wrong:
            raise Failed(f"further apart than allowed: {', '.join(wrong)}", found)
        return found

    def apart(self, left: Weights, right: Weights) -> dict[str, float]:
        return {
            name: float((left[name] - end).norm() / (end - self._first[name]).norm().clamp(min=1e-30))
            for name, end in right.items()
        }

    def trained(
        self, dtype: str, device: str, *, alone: bool = False, repeated: bool = False, **switches: bool
    ) -> Weights:
        """The weights that each candidate ends with."""
        key = (dtype, device, alone, repeated, *sorted(switches.items()))
        if key not in self._done:
            # Drawn on the CPU in float64: all trainings start from the same base,
            # rounded to their own precision.
            model = build(self.shape, "float64", "cpu").to(getattr(torch, dtype)).to(device)
            rows = make_rows(
                LENGTH, model.config.vocab_size, 48, shortest=LENGTH if repeated else LENGTH // 4, seed=1
            )
            some = kinds(model, REPEATED_STEPS if repeated else STEPS)
            groups = [[one] for one in some] if alone else [some]
            self._done[key] = {}
            for group in groups:
                trainer = engine(model, rows, **switches)
                self._done[key] |= self._run(trainer, group)
                self._ways[dtype] = ways(trainer)
        return self._done[key]

    def _run(self, trainer: PackTrainer, group: Sequence[Candidate]) -> Weights:
        return finish(trainer, group, lambda name, weights: self._first.setdefault(name, weights))


def finish(
    trainer: PackTrainer,
    group: Sequence[Candidate],
    began: Callable[[str, Tensor], object] = lambda name, weights: None,
) -> Weights:
    """Train candidates to their ends; `began` is told what they start from."""
    for one in group:
        seat = trainer.join(one)
        began(one.id, flat(seat.adapter.arena.weights))
    found: Weights = {}
    while trainer.seats:
        trainer.tick()
        for name in trainer.finished():
            found[name] = flat(trainer.leave(name).adapter.arena.weights)
    return found


def flat(weights: Tensor) -> Tensor:
    return weights.detach().to("cpu", copy=True).double()
