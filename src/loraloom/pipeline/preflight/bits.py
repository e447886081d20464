"""Can the base and the optimiser be held in the bits that were chosen: is what makes or reads codes
here, and does it work on this device?"""

from __future__ import annotations

from loraloom.errors import RequestError
from loraloom.facts.model import ModelFacts
from loraloom.lora.quantised import bitsandbytes
from loraloom.lora.quantised_loading import require_reader
from loraloom.pipeline.preflight.result import CheckResult, refused
from loraloom.pipeline.preflight.subject import Subject
from loraloom.plan.case import Case
from loraloom.plan.numbers import bytes_text
from loraloom.plan.rules.optimiser import uses_8_bits
from loraloom.plan.weight_memory import coded_linears, weight_bytes
from loraloom.train import adamw_8bit

NAME = "bits"


def inspect(subject: Subject) -> CheckResult:
    """Fails where the package for the codes is absent, or has nothing for this device. Codes that
    nothing here reads are refused before any check."""
    model, settings = subject.facts.model, subject.plan.settings
    kind = settings.quantization
    coded = kind != "none" or model.prequantized
    if not coded and not uses_8_bits(subject.plan.case):
        return CheckResult(NAME, "skipped", "the base is held as it is stored, in no fewer bits")
    try:
        require_codes(model, kind, subject.facts.device.kind)
        require_moments(subject.plan.case)
    except RequestError as error:
        return refused(NAME, error)
    if not coded:
        return CheckResult(NAME, "ok", "the optimiser's moments can be held in 8 bits on this device")
    what = f"the files are codes of {model.prequantized}" if model.prequantized else f"held in {kind}"
    weights = bytes_text(weight_bytes(model, settings.dtype_bytes, kind))
    number = f"{len(coded_linears(model))} layers in codes, {weights} in all"
    return CheckResult(NAME, "ok", f"{what}, and can be spread on this device", number=number)


def require_codes(model: ModelFacts, quantization: str, device: str) -> None:
    """Refuse a base whose codes cannot be made or read here; others pass.

    Raises:
        RequestError: the package is not installed, or has no kernels for this device.
    """
    if model.prequantized:
        require_reader(model.prequantized, device)
    elif quantization != "none":
        bitsandbytes(device)


def require_moments(case: Case) -> None:
    """Refuse moments in 8 bits, where a candidate has them, that cannot be stepped here.

    Raises:
        RequestError: the package is not installed, or has no kernel for this device.
    """
    if uses_8_bits(case):
        adamw_8bit.require(case.facts.device.kind)
