"""Does the machine compute in the precision that was chosen, and does every weight hold numbers?"""

from __future__ import annotations

from loraloom.config import names
from loraloom.facts.device import DeviceFacts
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject

NAME = "precision"
BF16_FROM = (8, 0)
"""Compute capability from which CUDA devices multiply in bf16; below, it is emulated or refused."""


def inspect(subject: Subject) -> CheckResult:
    """bf16 on a CUDA device below compute capability 8.0 fails, and parameters on
    `meta`; bf16 that a CPU emulates warns."""
    absent = subject.rehearsal.absent if subject.rehearsal else ()
    if absent:
        return CheckResult(
            NAME,
            "fail",
            "parameters of the model hold no numbers: they are on the meta device",
            number=f"{len(absent)} parameters, {absent[0]} first",
            cause=(
                "the weights lack them, or they were left on disk to spare memory; training would run"
                " over nothing"
            ),
            command="free memory, or fetch the weights again",
        )
    values = subject.plan.values()
    device = subject.facts.device
    precision = values[names.PRECISION]
    capability = device.compute_capability
    if precision != "bf16" or (device.bf16_native and not _too_old(capability)):
        return CheckResult(NAME, "ok", f"{device.name} computes in {precision}", number=_of(device))
    if _too_old(capability):
        return CheckResult(
            NAME,
            "fail",
            f"{device.name} has no bf16",
            number=_of(device),
            cause="torch reports it as supported, by emulation: slow, and not in every kernel",
            command="--set training.precision=fp32",
        )
    return CheckResult(
        NAME,
        "warn",
        f"{device.name} emulates bf16",
        number=_of(device),
        cause="it works, and is slower than float32",
        command="--set training.precision=fp32",
    )


def _too_old(capability: tuple[int, int] | None) -> bool:
    return capability is not None and capability < BF16_FROM


def _of(device: DeviceFacts) -> str:
    if device.compute_capability is None:
        return f"{device.cores} cores" if device.kind == "cpu" else device.kind
    return "compute capability {}.{}".format(*device.compute_capability)
