"""What every rule and every forecast looks at: the facts, what the user asked, and what
was decided so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from loraloom.config import names
from loraloom.config.asked import Config
from loraloom.config.units import parse_bytes
from loraloom.facts.data import DataFacts
from loraloom.facts.device import DeviceFacts
from loraloom.facts.initial_adapter import InitialAdapter
from loraloom.facts.linear import LinearFact
from loraloom.facts.model import ModelFacts
from loraloom.facts.weights import BYTES
from loraloom.lora.targets import resolve_targets
from loraloom.plan.numbers import bytes_text
from loraloom.records import Advice

DERIVED = "derived here"
COMMON = "common advice"
"""What is recommended again and again, without a measurement: `plan.common_advice` lists it."""
CONFIG = "config"
MUCH_TAKEN = 0.25
"""Once other processes hold this share of a device's memory, the plan says so."""


@dataclass(frozen=True)
class Facts:
    """What a plan is made for: the model, the data and the machine."""

    model: ModelFacts
    data: DataFacts
    device: DeviceFacts
    """Of one worker: what it has, where several share a machine."""
    workers: tuple[str, ...] = ()
    """Where each of several workers is, in words; empty where this process trains alone."""
    initial: InitialAdapter | None = None
    """The adapter that every candidate begins with; None where they begin with fresh weights."""


class Decided(dict[str, Advice]):
    """Advice by dotted key, of the rules that came before. The values that are read
    often have a name here."""

    @property
    def dtype(self) -> str:
        return self[names.DTYPE].value

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one number of the frozen base, where it is not quantised."""
        return BYTES[self.dtype]

    @property
    def precision(self) -> str:
        return self[names.PRECISION].value

    @property
    def quantization(self) -> str:
        return self[names.QUANTIZATION].value

    @property
    def streaming(self) -> bool:
        return self[names.STREAMING].value

    @property
    def attention(self) -> str:
        return self[names.ATTN_IMPLEMENTATION].value

    @property
    def checkpointing(self) -> bool | Literal["offload"]:
        return self[names.GRADIENT_CHECKPOINTING].value

    @property
    def length(self) -> int:
        """How many tokens of a row are used."""
        return self[names.MAX_LENGTH].value

    @property
    def target_modules(self) -> str | tuple[str, ...]:
        return self[names.TARGET_MODULES].value

    @property
    def modules_to_save(self) -> tuple[str, ...]:
        return self[names.MODULES_TO_SAVE].value

    @property
    def r(self) -> int:
        return self[names.R].value

    @property
    def alpha(self) -> float:
        return self[names.LORA_ALPHA].value

    @property
    def epochs(self) -> float:
        return self[names.NUM_TRAIN_EPOCHS].value

    @property
    def micro_batch(self) -> int:
        """Rows that go through the model at a time."""
        return self[names.PER_DEVICE_TRAIN_BATCH_SIZE].value

    @property
    def accumulation(self) -> int:
        """Micro-batches of one optimiser step."""
        return self[names.GRADIENT_ACCUMULATION_STEPS].value

    @property
    def batch(self) -> int:
        """Rows of one optimiser step."""
        return self.micro_batch * self.accumulation

    @property
    def replay_share(self) -> float:
        """Of every batch, what is from `data.replay`; 0 before it is decided."""
        return self[names.REPLAY_SHARE].value if names.REPLAY_SHARE in self else 0.0

    @property
    def max_packed(self) -> int:
        return self[names.MAX_PACKED].value

    @property
    def trials(self) -> int:
        return self[names.TRIALS].value

    @property
    def seeds_for_finalists(self) -> int:
        return self[names.SEEDS_FOR_FINALISTS].value


@dataclass(frozen=True)
class Case:
    """The one argument of rules, goals, presets and forecasts."""

    facts: Facts
    asked: Config
    decided: Decided

    def assuming(self, values: Mapping[str, Any]) -> Case:
        """The same case as if these values, by dotted key, had been decided."""
        assumed = {key: Advice(value, "assumed", DERIVED) for key, value in values.items()}
        return replace(self, decided=Decided(self.decided | assumed))

    @property
    def memory_budget(self) -> int:
        """Bytes that a worker may use: `limits.memory`, else what the device has free. On a processor
        workers share the machine's memory."""
        allowed, facts = self.asked.limits.memory, self.facts
        if allowed == "auto":
            return facts.device.free_bytes
        sharing = len(facts.workers) if facts.device.kind == "cpu" else 1
        return parse_bytes(allowed) // max(1, sharing)

    @property
    def held_by_others(self) -> str:
        """ "3.0 GiB of 23.4 GiB are free: other processes hold 19.9 GiB"; empty where
        they hold little, or a limit is set."""
        device = self.facts.device
        if self.asked.limits.memory != "auto" or device.others_bytes < MUCH_TAKEN * device.total_bytes:
            return ""
        free, total, others = map(
            bytes_text, (device.free_bytes, device.total_bytes, device.others_bytes)
        )
        return f"{free} of {total} are free: other processes hold {others}"

    @property
    def linears(self) -> tuple[LinearFact, ...]:
        """The linear layers that carry an adapter, as decided so far."""
        return target_linears(
            self.facts.model, self.decided.target_modules, self.decided.modules_to_save
        )

    @property
    def adapter_parameters(self) -> int:
        """Numbers of one candidate's A and B."""
        return self.decided.r * parameters_per_rank(self.linears)

    @property
    def trained_parameters(self) -> int:
        """Numbers that one candidate trains: its adapters, and modules that it trains whole."""
        heads = self.decided.modules_to_save
        whole = sum(
            linear.parameters + linear.out_features
            for linear in self.facts.model.linears
            if any(linear.path == head or linear.path.startswith(f"{head}.") for head in heads)
        )
        return self.adapter_parameters + whole

    @property
    def steps_per_epoch(self) -> int:
        rows = self.facts.data.epoch_rows / (1 - self.decided.replay_share)
        return max(1, math.ceil(rows / self.decided.batch - 1e-9))

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the plan's own candidate."""
        return self.asked.training.max_steps or max(
            1, math.ceil(self.steps_per_epoch * self.decided.epochs)
        )


def target_linears(
    model: ModelFacts, targets: str | tuple[str, ...], modules_to_save: tuple[str, ...]
) -> tuple[LinearFact, ...]:
    """The linear layers that a setting of `adapter.target_modules` names, in the model's order."""
    paths = frozenset(resolve_targets(model.linears, targets, modules_to_save=modules_to_save))
    return tuple(linear for linear in model.linears if linear.path in paths)


def parameters_per_rank(linears: tuple[LinearFact, ...]) -> int:
    """Adapter parameters that one more rank costs: the sum of d_in + d_out."""
    return sum(linear.in_features + linear.out_features for linear in linears)
