"""Forecast of the memory of what comes after training: writing answers with an adapter,
and merging one into its base.

Answers are written by the plain model with PEFT's adapter on it: there is no pack and no gradient.
An export goes from file to file, one tensor at a time.

    generation  weights + adapter + cache of keys and values + logits of the last position
                + the pass over the prompts
    export      runtime + adapter + three float32 copies of the largest layer: the weight, its update
                and their sum
    proof       the live adapter over all weights in float32
"""

from __future__ import annotations

from loraloom.evals.writing import BATCH, PROMPT_SHARE
from loraloom.facts.weights import BYTES
from loraloom.lora.frozen import PROGRAMS
from loraloom.plan.case import Case
from loraloom.plan.memory import PROGRAM_BYTES, RETAINED, estimated, runtime_bytes
from loraloom.plan.pass_memory import attention_widths, forward_bytes, is_gated
from loraloom.plan.weight_memory import weight_bytes
from loraloom.records import Estimate

FULL = BYTES["float32"]
"""PEFT holds and multiplies an adapter in float32, whatever its base is in."""
LOGIT_COPIES = 2
"""Logits of the last position in the base's precision become float32 ones, of which a
copy is searched for the likeliest."""
GROWN = {"cpu": 0.5, "cuda": 0.0, "mps": 0.0}
"""A cache grows by a token at a time, and malloc finds no use for many of the places that have become
too small: about half the size of the cache once more. CUDA's figure is what torch allocated."""
COPIES = 3
"""Of the largest layer, while an adapter is added to it."""


def forecast_afterwards(case: Case) -> dict[str, Estimate]:
    """By name: "generation", unless the task writes nothing, and "export"."""
    writes = case.facts.model.task != "seq_cls"
    return ({"generation": forecast_generation(case)} if writes else {}) | {
        "export": forecast_export(case)
    }


def forecast_generation(case: Case) -> Estimate:
    """Peak bytes while `BATCH` rows of the plan's length are answered at once, their
    first half being the prompt."""
    model, element = case.facts.model, case.decided.dtype_bytes
    length = min(case.facts.data.longest_anywhere, case.decided.length)
    kind = case.facts.device.kind
    cache = cache_bytes(case, length)
    reading = reading_bytes(case, length)
    # What an encoder reads is done with before there is a cache; a decoder's prompt
    # fills its cache as it is read.
    reading = max(0.0, reading - cache) if model.kind == "encoder_decoder" else reading
    growing = cache / 2 if model.kind == "encoder_decoder" else cache
    parts = {
        "weights": weight_bytes(model, element, case.decided.quantization),
        "adapters": float(FULL * case.trained_parameters),
        "cache": cache,
        "logits": float(BATCH * model.vocab_size * (element + LOGIT_COPIES * FULL)),
        "activations": reading,
        "programs": program_bytes(case),
        "allocator": RETAINED[kind] * reading + GROWN[kind] * growing,
        "runtime": runtime_bytes(case, case.decided.quantization),
    }
    return estimated(parts)


def program_bytes(case: Case) -> float:
    """What oneDNN compiles on a processor for products in half precision: one program more for every
    token that is written."""
    halves = case.facts.device.kind == "cpu" and case.decided.dtype in ("bfloat16", "float16")
    return PROGRAM_BYTES * int(PROGRAMS) if halves else 0.0


def reading_bytes(case: Case, length: int) -> float:
    """The pass over the prompts, at the MLP of one layer: PEFT adds an update and its scaled copy to
    each output, in float32."""
    model = case.facts.model
    prompt = length if model.kind == "encoder_decoder" else max(1, length // PROMPT_SHARE)
    widths = 3 * model.hidden_size + (5 if is_gated(model) else 4) * model.intermediate_size
    return max(widths * FULL * BATCH * prompt, forward_bytes(case, BATCH * prompt, prompt))


def cache_bytes(case: Case, length: int) -> float:
    """Keys and values of `BATCH` rows in every layer; one layer's are held twice while
    they grow by a token.

    With an encoder only the other half of the layers has a cache, but one of what is
    read and one of what is written.
    """
    _, keys = attention_widths(case.facts.model)
    return 2 * keys * case.decided.dtype_bytes * BATCH * length * (case.facts.model.layers + 1)


def forecast_export(case: Case) -> Estimate:
    """Peak bytes while one adapter is brought to a file of another format, tensor by tensor."""
    largest = max((linear.parameters for linear in case.linears), default=0)
    parts = {
        "adapters": float(FULL * case.trained_parameters),
        "merge": exporting_bytes(largest),
        "runtime": runtime_bytes(case, "none"),
    }
    return estimated(parts)


def exporting_bytes(largest: int) -> float:
    """What adding an update to a layer of so many numbers takes."""
    return float(COPIES * FULL * largest)


def proving_bytes(numbers: int) -> float:
    """What a live model of so many numbers takes while it is compared with an artefact."""
    return float(FULL * numbers)


__all__ = ["exporting_bytes", "forecast_afterwards", "proving_bytes"]
