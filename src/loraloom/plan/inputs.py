"""What every rule stands on: the facts, what the user asked, and the few amounts that
several rules need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loraloom.config.asked import Config
from loraloom.config.units import parse_bytes
from loraloom.facts.data import DataFacts
from loraloom.facts.device import DeviceFacts
from loraloom.facts.model import LinearFact, ModelFacts
from loraloom.lora.targets import resolve_targets
from loraloom.records import Advice

Decided = Mapping[str, Advice]
"""Advice by dotted key, of the rules that came before."""

DERIVED = "derived here"
CONFIG = "config"
MUCH_TAKEN = 0.25
"""Share of a device's memory from which on it is said that others hold it."""


@dataclass(frozen=True)
class Facts:
    """Everything that is: the model, the data and the machine."""

    model: ModelFacts
    data: DataFacts
    device: DeviceFacts


def asked_value(config: Config, key: str) -> Any:
    """The value of a dotted key of the request."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def is_asked(config: Config, key: str) -> bool:
    """Whether the user set this key: it is not "auto", and not what stands in an empty request."""
    value = asked_value(config, key)
    if value == "auto":
        return False
    return value != asked_value(_EMPTY, key)


def power_of_two_above(number: float) -> int:
    """The smallest power of two that is at least `number`."""
    return 2 ** max(0, math.ceil(math.log2(max(1.0, number))))


def power_of_two_below(number: float) -> int:
    """The largest power of two that is at most `number`, and at least 1."""
    return 2 ** max(0, math.floor(math.log2(max(1.0, number))))


def target_linears(
    facts: Facts, asked: str | tuple[str, ...], modules_to_save: tuple[str, ...]
) -> tuple[LinearFact, ...]:
    """The linear layers that a setting of `adapter.target_modules` names, in the model's order."""
    paths = frozenset(resolve_targets(facts.model.linears, asked, modules_to_save=modules_to_save))
    return tuple(linear for linear in facts.model.linears if linear.path in paths)


def decided_linears(facts: Facts, decided: Decided) -> tuple[LinearFact, ...]:
    """The target layers as decided so far."""
    return target_linears(
        facts, decided["adapter.target_modules"].value, decided["adapter.modules_to_save"].value
    )


def parameters_per_rank(linears: tuple[LinearFact, ...]) -> int:
    """Adapter parameters that one more rank costs: the sum of d_in + d_out."""
    return sum(linear.in_features + linear.out_features for linear in linears)


def memory_budget(facts: Facts, config: Config) -> int:
    """Bytes that a run may use: `limits.memory`, else what the device has free."""
    return (
        facts.device.free_bytes if config.limits.memory == "auto" else parse_bytes(config.limits.memory)
    )


def held_by_others(facts: Facts, config: Config) -> str:
    """ "3.0 GiB of 23.4 GiB are free: other processes hold 19.9 GiB"; empty where they
    hold little, or a limit is set."""
    device = facts.device
    if config.limits.memory != "auto" or device.others_bytes < MUCH_TAKEN * device.total_bytes:
        return ""
    free, total, others = map(bytes_text, (device.free_bytes, device.total_bytes, device.others_bytes))
    return f"{free} of {total} are free: other processes hold {others}"


def steps_per_epoch(facts: Facts, batch: int) -> int:
    return max(1, math.ceil(facts.data.rows / batch))


def total_steps(facts: Facts, config: Config, decided: Decided) -> int:
    """Optimiser steps of the plan's own candidate."""
    if config.training.max_steps:
        return config.training.max_steps
    return max(
        1,
        math.ceil(
            steps_per_epoch(facts, decided_batch(decided)) * decided["training.num_train_epochs"].value
        ),
    )


def decided_batch(decided: Decided) -> int:
    """Rows of one optimiser step."""
    return (
        decided["training.per_device_train_batch_size"].value
        * decided["training.gradient_accumulation_steps"].value
    )


def count(number: float) -> str:
    """A count as people read it: 1,204 or 1.2M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:,.0f}"


def bytes_text(number: float) -> str:
    """Bytes as people read them: 1.4 GiB, 320 MiB."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


SMALL_ENCODER = 40_000_000
"""Encoders up to this many parameters (MiniLM, small BERTs) want larger rates than the
base sizes that papers tune."""

_EMPTY = Config()
