"""Can the base be held in the bits that were chosen: is what makes or reads its codes here, and does it
work on this device?"""

from __future__ import annotations

from loraloom.errors import RequestError
from loraloom.facts.model import ModelFacts
from loraloom.lora.quantised import bitsandbytes
from loraloom.lora.quantised_loading import require_reader
from loraloom.pipeline.preflight.result import CheckResult, refused
from loraloom.pipeline.preflight.subject import Subject
from loraloom.plan.numbers import bytes_text
from loraloom.plan.weight_memory import coded_linears, weight_bytes

NAME = "bits"


def inspect(subject: Subject) -> CheckResult:
    """Fails where the package for the codes is absent, or has nothing for this device. Codes that
    nothing here reads are refused before any check."""
    model, settings = subject.facts.model, subject.plan.settings
    kind = settings.quantization
    if kind == "none" and not model.prequantized:
        return CheckResult(NAME, "skipped", "the base is held as it is stored, in no fewer bits")
    try:
        require_codes(model, kind, subject.facts.device.kind)
    except RequestError as error:
        return refused(NAME, error)
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
