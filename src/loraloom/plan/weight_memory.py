"""What the frozen weights take: as they are, in few bits, and while they are spread from these.

Layers outside the blocks, embeddings and norms are held in the type in which the base computes. Bytes of
a coded layer are those of `lora.quantised`.
"""

from __future__ import annotations

import math

from loraloom.facts.linear import LinearFact
from loraloom.facts.model import ModelFacts
from loraloom.plan.case import Case
from loraloom.plan.shape import Shape

NF4_BLOCK = 64
"""Numbers that share a scale of 8 bits, bitsandbytes' own; with the scales of these scales a number
takes 0.516 bytes (arXiv:2305.14314), measured 0.517 on layers of a model of 90 million."""
SCALE_BLOCK = 256
"""Scales that share one of 32 bits."""
SCALE_MAP = 4 * 256 + 4
"""What an 8-bit scale stands for, a table of each layer, and the mean that was taken off."""
MOST_TEMPORARIES = 2
"""Blocks of a weight that are there at once while one is spread: its numbers, and those before the last
conversion."""


def weight_bytes(model: ModelFacts, element: float, quantization: str) -> float:
    """The frozen model, whose numbers outside codes take `element` bytes."""
    if model.prequantized:
        return model.coded_bytes + model.plain_parameters * element
    if quantization == "none":
        return model.parameters * element
    coded = coded_linears(model)
    plain = model.parameters - sum(map(_numbers, coded))
    return plain * element + sum(_code_bytes(linear, quantization) for linear in coded)


def spread_bytes(case: Case, shape: Shape) -> float:
    """What layers take while they are spread, one in each pass: a CPU spreads a block of a layer at a
    time, CUDA all of it."""
    from loraloom.lora.quantised import BLOCK_BYTES

    model, kind = case.facts.model, case.facts.device.kind
    if not is_spread(case, shape.quantization):
        return 0.0
    largest = case.decided.dtype_bytes * max(map(_numbers, coded_linears(model)), default=0)
    block = largest if kind == "cuda" else min(largest, BLOCK_BYTES)
    return MOST_TEMPORARIES * block * shape.at_once


def is_spread(case: Case, quantization: str) -> bool:
    """Whether weights are spread from codes, made on the way or stored."""
    return quantization != "none" or case.facts.model.prequantized is not None


def coded_linears(model: ModelFacts) -> list[LinearFact]:
    """Layers that a base in few bits holds so."""
    return [linear for linear in model.linears if linear.takes_codes]


def _numbers(linear: LinearFact) -> int:
    return linear.parameters


def _code_bytes(linear: LinearFact, quantization: str) -> int:
    numbers = linear.parameters
    if quantization == "int8":
        return numbers + 4 * linear.out_features
    scales = math.ceil(numbers / NF4_BLOCK)
    return math.ceil(numbers / 2) + scales + 4 * math.ceil(scales / SCALE_BLOCK) + SCALE_MAP
