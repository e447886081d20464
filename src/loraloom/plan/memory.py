"""Forecast of a run's peak memory, part by part, for K candidates in a pack.

    peak = weights + state of K adapters + max(training pass, evaluation
    pass) + allocator + runtime

`pass_memory` tells what a pass takes.
"""

from __future__ import annotations

from collections.abc import Mapping

from loraloom.config import names
from loraloom.facts.device import CUDA_CONTEXT_BYTES
from loraloom.facts.linear import LinearFact
from loraloom.facts.model import ModelFacts
from loraloom.plan.case import Case
from loraloom.plan.pass_memory import (
    evaluation_bytes,
    has_kernels,
    kept_by_a_layer,
    training_activations,
    workspace_bytes,
)
from loraloom.plan.shape import Shape
from loraloom.plan.weight_memory import spread_bytes, weight_bytes
from loraloom.records import Estimate

ADAPTER_BYTES, GRADIENT_BYTES = 4, 4
"""A trained number in float32, and its gradient."""
STATE_BYTES = {"adamw": 8.0, "adamw_8bit": 2 * (1 + 4 / 256), "sgd": 4.0}
"""What an optimiser keeps of a trained number: two moments in float32, or in 8 bits with a scale for
each block of 256; the momentum of SGD."""
SNAPSHOT_BYTES = 4
"""The best weights so far, kept beside the live ones."""
RUNTIME_BYTES = {"cuda": float(CUDA_CONTEXT_BYTES), "cpu": 500e6, "mps": 500e6}
"""What torch and its libraries take before a model is loaded, where that was not measured
(`DeviceFacts.process_bytes`)."""
LIBRARY_BYTES = 25e6
"""What they take more once a model has run on a CPU: kernels made for its shapes, pages of code.
Measured on a model of a few hundred thousand parameters."""
TOKEN_BYTES = 200
"""Of each token of the vocabulary, for the tokenizer that is loaded with the base beside the one that
read the data: measured 5 to 11 MB for 49 thousand, 16 to 32 for 128 thousand."""
RETAINED = {"cpu": 0.45, "cuda": 0.0, "mps": 0.0}
"""Share of a pass that malloc holds on to in pieces too small to be used again: fitted on the runs that
benchmarks/advice_memory measures. CUDA's figure is what torch allocated, which has no such share."""
HOLES = {"cpu": 3.8, "cuda": 0.0, "mps": 0.0}
"""What malloc holds on to instead where layers are computed again, in units of what one layer keeps:
between the small tensors that stay, large ones come and go, and an aligned one does not fit where one of
its own size was. Fitted on seven such runs."""
PROGRAM_BYTES = 0.6e6
"""A program that oneDNN has compiled (`lora.frozen.BLOCKS`)."""
WAYS = 2
"""Products of a frozen layer: forwards and backwards."""
STATE = ("adapters", "gradients", "optimizer")
"""Parts that each candidate adds, whatever shares a pass with it."""
UNCERTAINTY = 0.10
"""Share by which a forecast without a probe may be off; a run has to fit with it."""


def forecast_memory(case: Case, shape: Shape) -> Estimate:
    """Peak bytes as a range; `parts` sum to its value."""
    shape = shape.of_sides(case.facts.data.sides)
    element = case.decided.dtype_bytes
    trained = case.trained_parameters
    # Over a base in half precision, products read a copy of A and B in its format.
    adapter_bytes = ADAPTER_BYTES + SNAPSHOT_BYTES + (element if element < 4 else 0)
    activations = training_activations(case, shape)
    logits = workspace_bytes(case, shape.tokens(case.facts.device.kind)) * shape.at_once
    evaluation = evaluation_bytes(case, shape)
    passing = max(activations + logits, evaluation)
    parts = {
        "weights": held_bytes(case, shape),
        "spread": spread_bytes(case, shape),
        "programs": program_bytes(case),
        "adapters": shape.packed * trained * adapter_bytes + stack_bytes(case, shape),
        "gradients": shape.packed * trained * GRADIENT_BYTES,
        "optimizer": shape.packed * trained * STATE_BYTES[case.decided[names.OPTIM].value],
        "activations": activations,
        "logits": logits,
        "evaluation": max(0.0, evaluation - activations - logits),
        "allocator": retained_bytes(case, shape, passing),
        "runtime": runtime_bytes(case, shape.quantization),
    }
    return estimated(parts)


def estimated(parts: Mapping[str, float]) -> Estimate:
    """The sum of `parts`, with the range of a forecast of which nothing was measured but what the
    process itself holds."""
    value = sum(parts.values())
    unsure = UNCERTAINTY * (value - parts["runtime"])
    return Estimate(value=value, low=value - unsure, high=value + unsure, unit="bytes", parts=parts)


def runtime_bytes(case: Case, quantization: str) -> float:
    """What the process holds beside the run: measured where the device's facts say so."""
    device = case.facts.device
    if not device.process_bytes:
        return RUNTIME_BYTES[device.kind]
    quantiser = 0 if quantization == "none" else device.quantiser_bytes
    tokenizer = TOKEN_BYTES * case.facts.model.vocab_size
    return device.process_bytes + quantiser + LIBRARY_BYTES + tokenizer


def held_bytes(case: Case, shape: Shape) -> float:
    """What of the frozen model is in memory: all of it, or where it is streamed, what has to be there at
    once. Of what comes from the host's memory that is two blocks (`lora.streaming`). Of what comes from
    a disk it is what one product reads, a block's weights or the head's: the system keeps more of it
    while there is room, and takes that back when there is not."""
    model, element = case.facts.model, case.decided.dtype_bytes
    if not shape.streaming:
        return weight_bytes(model, element, shape.quantization)
    if case.facts.device.kind != "cpu":
        from loraloom.lora.streaming import PLACES

        staying = weight_bytes(model, element, shape.quantization) - streamed_bytes(case, shape)
        return staying + PLACES * block_bytes(case, shape)
    return max(block_bytes(case, shape), model.vocab_size * model.hidden_size * element)


def streamed(case: Case, shape: Shape) -> Estimate:
    """The weights that are brought for each pass, apart from the memory that a run takes."""
    size = streamed_bytes(case, shape)
    return Estimate(value=size, low=size, high=size, unit="bytes", parts={"weights": size})


def block_bytes(case: Case, shape: Shape) -> float:
    """The weights of one repeated block."""
    model = case.facts.model
    return streamed_bytes(case, shape) / max(1, model.layers)


def streamed_bytes(case: Case, shape: Shape) -> float:
    """The weights that are brought for each pass: from a disk all of them, from the host the blocks'."""
    model, element = case.facts.model, case.decided.dtype_bytes
    whole = weight_bytes(model, element, shape.quantization)
    if case.facts.device.kind == "cpu":
        return whole
    return whole - (model.parameters - model.linear_parameters) * element


def program_bytes(case: Case) -> float:
    """What oneDNN compiles for frozen layers: a program for each kind, way and block of tokens."""
    from loraloom.lora.frozen import BLOCKS

    kinds = {(linear.in_features, linear.out_features) for linear in layers_in_onednn(case)}
    return PROGRAM_BYTES * len(kinds) * WAYS * len(BLOCKS)


def layers_in_onednn(case: Case) -> list[LinearFact]:
    """Frozen layers that oneDNN multiplies: those that carry an adapter, and a language model's head."""
    import torch

    from loraloom.lora.frozen import is_large, takes_onednn

    model, dtype = case.facts.model, getattr(torch, case.decided.dtype)
    if not takes_onednn(case.facts.device.kind, dtype):
        return []
    headed = model.task != "seq_cls" and not _softcapped(model)
    heads = [linear for linear in model.linears if headed and linear.role == "head"]
    chosen = {linear.path: linear for linear in (*case.linears, *heads)}
    return [linear for linear in chosen.values() if is_large(linear.parameters, dtype)]


def _softcapped(model: ModelFacts) -> bool:
    """Whether the logits are capped: such a head is run as it is."""
    if model.llama is not None or model.config is None:
        return False
    return getattr(model.config.get_text_config(), "final_logit_softcapping", None) is not None


def stack_bytes(case: Case, shape: Shape) -> float:
    """A and B of the candidates of each pass side by side, and their gradients, while
    the pass runs (`lora.pass_stack`)."""
    from loraloom.lora.pass_stack import MOST_BYTES

    if has_kernels(case):
        return 0.0  # they read A and B where they are
    row = case.decided.dtype_bytes * case.trained_parameters
    share = shape.budget(case.facts.device.kind) // shape.at_once
    candidates = min(
        -(-shape.packed // shape.at_once), share // max(1, shape.micro_batch * shape.length)
    )
    one = 2 * row * candidates
    return one * shape.at_once if candidates > 1 and one <= MOST_BYTES else 0.0


def retained_bytes(case: Case, shape: Shape, passing: float) -> float:
    """Memory that the C library has freed and not given back, of a pass that takes `passing` bytes."""
    kind = case.facts.device.kind
    if shape.checkpointing:
        return HOLES[kind] * kept_by_a_layer(case, shape)
    return RETAINED[kind] * passing
