"""Cases made up for the rules: a healthy one, and ways to make it ill."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from loraloom.diagnose.case import Case
from loraloom.diagnose.signals import ModuleUpdate, Reading, Signals, Trace

VALUES: dict[str, Any] = {
    "training.learning_rate": 1e-3,
    "training.num_train_epochs": 4.0,
    "training.max_steps": None,
    "training.per_device_train_batch_size": 8,
    "training.gradient_accumulation_steps": 1,
    "training.warmup_ratio": 0.1,
    "adapter.r": 8,
    "adapter.lora_alpha": 16,
    "adapter.lora_dropout": 0.0,
}
STEPS = 80


def falling(step: int) -> float:
    """A training loss that bends early."""
    return 1.0 + math.exp(-step / 10)


def trace(losses: Sequence[float], norm: float = 0.5, clipped: bool = False) -> Trace:
    """A trace at a falling rate."""
    made = Trace()
    for number, loss in enumerate(losses, 1):
        made.add(number, loss, norm, clipped, 1e-3 * (1 - number / (len(losses) + 1)))
    return made


def readings(
    losses: Sequence[float],
    *,
    se: float = 0.02,
    metrics: Sequence[float] = (),
    train: Sequence[float] = (),
    decides: str = "loss",
    gain_se: float | None = None,
) -> list[Reading]:
    """Evaluations evenly over `STEPS`; by the loss, or by what is wrong."""
    made: list[Reading] = []
    for number, loss in enumerate(losses, 1):
        step = round(STEPS * number / len(losses))
        right = metrics[number - 1] if metrics else 1 - loss / 4
        fitted = train[number - 1] if train else falling(step)
        cost = loss if decides == "loss" else 1 - right
        gain = None if not made else min(reading.cost for reading in made) - cost
        paired = se / 4 if gain_se is None else gain_se
        made.append(Reading(step, step / 20, fitted, loss, se, right, 0.01, cost, se, gain, paired))
    return made


def modules(
    r: int = 8, effective: float = 5.0, update: float = 0.05, dead: int = 0, count: int = 10
) -> dict[str, ModuleUpdate]:
    return {
        f"layer.{n}": ModuleUpdate(
            r, 0.0 if n < dead else effective, 0.0 if n < dead else update, 1 / count, float(n >= dead)
        )
        for n in range(count)
    }


def healthy() -> Case:
    """A run that went well: a curve that bends, a validation loss that follows, room in the adapter."""
    steps = [round(STEPS * n / 8) for n in range(1, 9)]
    signals = Signals(
        trace=trace([falling(step) for step in range(1, STEPS + 1)]),
        readings=readings([falling(step) + 0.02 for step in steps]),
        first_norms=(0.0, 0.3),
        modules=modules(),
        train_exact=0.4,
        held_out_exact=0.35,
    )
    return Case(
        signals=signals,
        values=VALUES,
        planned_steps=STEPS,
        warmup_steps=8,
        steps_per_epoch=20,
        rows=160,
        adapted=10,
        adaptable=10,
        task="causal_lm",
        decides="loss",
        advised={"training.learning_rate": 1e-3, "adapter.r": 8},
        base_cost=2.2,
        base_loss=2.2,
    )


def case(
    values: dict[str, Any] | None = None, signals: dict[str, Any] | None = None, **changes: Any
) -> Case:
    """The healthy case with some settings, signals and facts changed."""
    made = healthy()
    return replace(
        made,
        values={**VALUES, **(values or {})},
        signals=replace(made.signals, **(signals or {})),
        **changes,
    )


def preferring(
    values: dict[str, Any] | None = None,
    *,
    accuracy: Sequence[float] = (0.6, 0.7, 0.75, 0.78, 0.8, 0.8, 0.8, 0.8),
    chosen: Sequence[float] = (0.0, 0.01, 0.01, 0.02, 0.02, 0.02, 0.02, 0.02),
    rejected: Sequence[float] = (0.0, -0.02, -0.04, -0.06, -0.08, -0.09, -0.09, -0.09),
    margin: float = 4.0,
    correlation: float = 0.1,
    losses: Sequence[float] = (),
    **signals: Any,
) -> Case:
    """A run that learns to choose between answers; a healthy one, until something is changed."""
    made = [
        replace(
            reading,
            metric=right,
            metric_se=0.03,
            cost=1 - right,
            cost_se=0.03,
            chosen_logratio=up,
            chosen_logratio_se=0.01,
            rejected_logratio=down,
            reward_margin=margin,
            chosen_tokens=40.0,
            rejected_tokens=38.0,
            length_correlation=correlation,
            length_correlation_se=0.08,
        )
        for reading, right, up, down in zip(
            readings([0.69 - 0.02 * n for n in range(8)], decides="accuracy"),
            accuracy,
            chosen,
            rejected,
            strict=True,
        )
    ]
    trained = losses or [math.log(2) * (1 - 0.4 * step / STEPS) for step in range(STEPS)]
    return case(
        {"preference.beta": 0.1, "preference.loss_type": ("sigmoid",), **(values or {})},
        {
            "trace": trace(trained),
            "readings": made,
            "train_exact": 0.85,
            "held_out_exact": 0.8,
            **signals,
        },
        task="preference",
        decides="reward_accuracy",
        base_cost=0.5,
        base_loss=math.log(2),
        advised={"training.learning_rate": 1e-3, "adapter.r": 8, "preference.beta": 0.1},
    )
