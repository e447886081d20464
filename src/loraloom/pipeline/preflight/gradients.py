"""Does everything that is to be trained get a finite gradient, and does it move?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from loraloom.config import names
from loraloom.pipeline.preflight.rehearsal import Rehearsal
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject

NAME = "gradients"
NAMED = 3


def inspect(subject: Subject) -> CheckResult:
    """Fails where, after a step, a tensor has no gradient, a number is not finite, or
    every B is still zero."""
    found = subject.rehearsal
    if found is None or found.ran_out or found.absent:
        why = (
            subject.unrehearsed
            if found is None
            else "memory ran out"
            if found.ran_out
            else "the model holds no numbers"
        )
        return CheckResult(NAME, "skipped", f"no batch went through the model: {why}")
    if found.bad_layer is not None:
        return _not_finite(subject, found)
    if found.unmoved and len(found.silent) < found.tensors:
        rate = subject.plan.values()[names.LEARNING_RATE]
        return CheckResult(
            NAME,
            "fail",
            "after two steps every B is still zero: the adapter does nothing",
            number=f"learning rate {rate:g}",
            cause="a step of this size is lost in rounding",
            command="--learning-rate 2e-4",
        )
    if found.silent:
        return _silent(found)
    number = f"{found.tensors} tensors, loss {found.loss:.3f}"
    return CheckResult(
        NAME, "ok", "every trained tensor gets a finite gradient, and B moves", number=number
    )


def _not_finite(subject: Subject, found: Rehearsal) -> CheckResult:
    precision = subject.plan.settings.precision
    name = subject.facts.model.name_or_path
    narrow = precision in ("fp16", "bf16")
    what = "the loss" if not math.isfinite(found.loss) else "a gradient"
    return CheckResult(
        NAME,
        "fail",
        f"{what} is not finite before anything is trained",
        number=f"first bad layer: {found.bad_layer}",
        cause=(
            f"numbers overflow in {precision}"
            if narrow
            else "the weights are damaged there: NaN or infinity is in them"
        ),
        command="--set training.precision=fp32" if narrow else f"fetch the weights of {name} again",
    )


def _silent(found: Rehearsal) -> CheckResult:
    named = ", ".join(found.silent[:NAMED]) + (", ..." if len(found.silent) > NAMED else "")
    return CheckResult(
        NAME,
        "fail",
        "parts of the adapter get no gradient: they would stay as they are",
        number=f"{len(found.silent)} of {found.tensors} tensors: {named}",
        cause=(
            "nothing of the loss depends on them: the model does not use these layers, or cuts the graph"
            " behind them"
        ),
        command=_without(found.silent),
    )


def _without(silent: Sequence[str]) -> str:
    layers = sorted({key.split(".lora_")[0] for key in silent})
    return (
        "name the other layers in adapter.target_modules: all but"
        f" {', '.join(layers[:NAMED])}{', ...' * (len(layers) > NAMED)}"
    )
