"""Forecast of the peak memory of a run of PEFT on CUDA: `engine: peft`, beside the
forecast of our own engine.

The peak is the largest of four moments, each summed from the sizes of what is alive at it:

    forward     the end of the forward pass: what the layers keep, and the logits with their
                logarithm of softmax
    loss        the way back through the loss: two more copies of the logits, their gradients
    layer       the way back through one layer: its tensors, made again where activations are recomputed
    optimizer   the step: gradients and the moments of AdamW, and one temporary of theirs

With weights, adapters and moments, which are there all the time. Nothing here is fitted but WORKSPACE:
every other number counts copies of tensors in transformers' Llama-like layers and loss. T tokens of a
pass (rows b times length s), d width, a queries, f MLP, h heads, V vocabulary; an element has 2 bytes.
"Upcast" is what `prepare_model_for_kbit_training` does: norms, embeddings and head in float32, so that
the stream of hidden states and the logits are float32 too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from loraloom.facts.model import ModelFacts
from loraloom.plan.case import Case
from loraloom.plan.pass_memory import attention_widths, is_gated
from loraloom.plan.shape import Shape
from loraloom.records import Estimate

Quantization = Literal["none", "nf4", "nf4-dq", "int8"]

QUANTISED_BYTES = {"nf4": 0.5 + 4 / 64, "nf4-dq": 0.5 + 1 / 64 + 4 / 64 / 256, "int8": 1.0}
"""A quantised number with its share of the scales: one float32 a block of 64, or one byte and a float32
per 256 of these (arXiv:2305.14314)."""
IN_PEFT: Mapping[str, Quantization] = {"none": "none", "nf4": "nf4-dq", "int8": "int8"}
"""What our `model.quantization` is there."""
HALF, FULL = 2, 4
ADAPTER_BYTES, GRADIENT_BYTES, MOMENT_BYTES = 4, 4, 8
"""A trained number in float32, its gradient, and AdamW's two moments."""
WORKSPACE_BYTES = 17 * 2**20
"""cuBLAS's buffers, one for each way through the model, inside what torch allocates:
the only fitted number of this file."""
CONTEXT_BYTES = 0.6e9
"""CUDA's context and what the allocator reserves without using it: outside of what
torch calls allocated. Assumed."""
SPREAD = 0.06
"""Share by which the forecast may be off; the worst of the runs that
benchmarks/advice_memory scores lies within."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a decoder that decide its memory; `linear` parameters inside the
    blocks, `outside` all others."""

    hidden: int
    layers: int
    heads: int
    queries: int
    keys: int
    mlp: int
    vocab: int
    linear: int
    outside: int
    gated: bool = True

    @property
    def mlp_elements(self) -> int:
        """Numbers that an MLP keeps a token: a gated one both halves, the activation and the product."""
        return (4 if self.gated else 2) * self.mlp


@dataclass(frozen=True)
class PeftRun:
    """How PEFT trains. `trained`: numbers of the adapter.

    Attributes:
        adapted_queries: how many of the projections that read the stream for attention
            (q, k, v) carry an adapter.
        adapted_inputs: widths of the inputs that one block's adapters keep: of every adapted layer where
            they are copied (`cast_inputs`), else of the norms' outputs alone, since the other inputs are
            kept anyway.
        upcast: whether `prepare_model_for_kbit_training` has made norms, embeddings and head float32.
        cast_inputs: PEFT's adapters are float32 and get a float32 copy of their input;
            litgpt's compute in bfloat16.
        loss: "whole" forms all logits at once, "fused" never holds more than a chunk of them.
        float_logits: whether the model gives its logits back in float32, as
            transformers did until its release 4.45.
        context: bytes outside of torch's allocator; 0 to compare with `torch.cuda.max_memory_allocated`.
    """

    micro_batch: int
    length: int
    trained: int
    adapted_queries: int
    adapted_inputs: int
    quantization: Quantization = "none"
    upcast: bool = False
    checkpointing: bool = True
    attention: Literal["eager", "fused"] = "fused"
    loss: Literal["whole", "fused"] = "whole"
    cast_inputs: bool = True
    float_logits: bool = False
    context: float = CONTEXT_BYTES

    @property
    def tokens(self) -> int:
        return self.micro_batch * self.length

    @property
    def returned_logit(self) -> int:
        """Bytes of one logit that the model gives back, and that lives until the step is over."""
        return FULL if self.upcast or self.float_logits else HALF


FUSED_CHUNK = 1024
"""Tokens whose logits a fused loss forms at once."""


def forecast_peft(sizes: Sizes, run: PeftRun) -> Estimate:
    """Peak bytes as a range; `parts` sum to its value and belong to the moment that is the peak."""
    phases = peft_phases(sizes, run)
    parts = max(phases.values(), key=lambda of_phase: sum(of_phase.values()))
    value = sum(parts.values())
    return Estimate(value, value * (1 - SPREAD), value * (1 + SPREAD), "bytes", parts)


def peft_phases(sizes: Sizes, run: PeftRun) -> dict[str, dict[str, float]]:
    """Parts in bytes of each of the four moments: "forward", "loss", "layer", "optimizer"."""
    stream = FULL if run.upcast else HALF
    always = {
        "weights": weight_bytes(sizes, run),
        "adapters": float(ADAPTER_BYTES * run.trained),
        "optimizer": float(MOMENT_BYTES * run.trained),
        "overhead": WORKSPACE_BYTES + run.context,
    }
    kept = kept_bytes(sizes, run) + mask_bytes(run)
    logits = logit_bytes(sizes, run)
    gradients = float(GRADIENT_BYTES * run.trained)
    # the last norm: its float32 copy, and what the head reads
    head = (FULL + stream) * sizes.hidden * run.tokens
    held = run.tokens * sizes.vocab * float(run.returned_logit) if run.loss == "whole" else 0.0
    layer = layer_bytes(sizes, run)
    alive = {
        "forward": {"gradients": 0.0, "activations": kept + head, "logits": logits["forward"]},
        "loss": {
            "gradients": 0.0,
            "activations": kept + FULL * sizes.hidden * run.tokens,
            "logits": logits["loss"],
        },
        "layer": _widest_layer(sizes, run, kept, layer, gradients) | {"logits": held},
        "optimizer": {"gradients": 2 * gradients, "activations": mask_bytes(run), "logits": held},
    }
    return {phase: always | parts for phase, parts in alive.items()}


def weight_bytes(sizes: Sizes, run: PeftRun) -> float:
    """The frozen model: linear layers inside the blocks may be quantised, the rest is
    half precision, or upcast."""
    linear = HALF if run.quantization == "none" else QUANTISED_BYTES[run.quantization]
    return sizes.linear * linear + sizes.outside * (FULL if run.upcast else HALF)


def kept_bytes(sizes: Sizes, run: PeftRun) -> float:
    """What all layers keep for the way back: only their inputs where they are checkpointed."""
    if run.checkpointing:
        return float(sizes.layers * sizes.hidden * (FULL if run.upcast else HALF) * run.tokens)
    return sizes.layers * layer_kept_bytes(sizes, run)


def layer_kept_bytes(sizes: Sizes, run: PeftRun) -> float:
    """What one layer keeps when nothing is recomputed.

    Two norms with a float32 copy each, queries, keys, values and the output of attention, the MLP, what
    goes into adapters; with eager attention the softmax in float32 and its half-precision copy.
    """
    stream = FULL if run.upcast else HALF
    norms = 2 * (FULL + HALF) * sizes.hidden
    attention = HALF * (2 * sizes.queries + 2 * sizes.keys)
    inputs = (FULL if run.cast_inputs else HALF) * run.adapted_inputs
    scores = (FULL + HALF) * scores_of(sizes, run) if run.attention == "eager" else 0.0
    return (norms + attention + stream * sizes.mlp_elements + inputs) * run.tokens + scores


def layer_bytes(sizes: Sizes, run: PeftRun) -> float:
    """The widest moment on the way back through one layer: in its MLP, or at the
    softmax of its attention.

    At the softmax live: its float32 result, the half-precision copy, that copy's gradient, the float32
    gradient, and the gradient of the scores (half precision, or float32 where an upcast mask has made
    the scores so); of the width of the stream its gradient and the norm's copies; the adapters' inputs;
    queries, repeated keys and the values' gradient.
    """
    stream = FULL if run.upcast else HALF
    in_mlp = layer_kept_bytes(sizes, run) + 3 * stream * sizes.mlp * run.tokens
    if run.attention == "fused":
        return in_mlp
    norm = FULL if run.upcast else FULL + HALF
    cast = HALF if run.upcast else FULL
    at_softmax = (stream + norm + cast * run.adapted_queries) * sizes.hidden + 3 * HALF * sizes.queries
    copies = FULL + HALF + HALF + FULL + FULL if run.upcast else FULL + HALF + HALF + FULL + HALF
    return max(in_mlp, at_softmax * run.tokens + copies * scores_of(sizes, run))


def _widest_layer(
    sizes: Sizes, run: PeftRun, kept: float, layer: float, gradients: float
) -> dict[str, float]:
    """The last layer, which comes first on the way back, has all that is kept beside
    it; the first all gradients."""
    own = 0.0 if run.checkpointing else layer_kept_bytes(sizes, run)
    at_last = kept - own + layer
    at_first = layer + mask_bytes(run)
    if at_last >= at_first + gradients:
        return {"gradients": 0.0, "activations": at_last}
    return {"gradients": gradients, "activations": at_first}


def logit_bytes(sizes: Sizes, run: PeftRun) -> dict[str, float]:
    """Bytes of logits at the end of forward and in the loss.

    Forward holds the logits, their float32 copy (none where they are float32 already) and the logarithm
    of softmax. On the way back the copy is gone, and there are two gradients in float32: of that
    logarithm, and of the logits.
    """
    if run.loss == "fused":
        chunk = float(min(run.tokens, FUSED_CHUNK) * sizes.vocab)
        return {"forward": 2 * FULL * chunk, "loss": 2 * FULL * chunk}
    numbers = float(run.tokens * sizes.vocab)
    forward = 2 * FULL if run.returned_logit == FULL else HALF + 2 * FULL
    return {"forward": forward * numbers, "loss": (run.returned_logit + 3 * FULL) * numbers}


def scores_of(sizes: Sizes, run: PeftRun) -> float:
    """Numbers in one layer's table of attention, b h s^2."""
    return float(run.micro_batch * sizes.heads * run.length**2)


def mask_bytes(run: PeftRun) -> float:
    """The mask of eager attention, one number a row and pair of positions; a fused
    kernel knows what is causal."""
    return (
        float(run.micro_batch * run.length**2 * (FULL if run.upcast else HALF))
        if run.attention == "eager"
        else 0.0
    )


def sizes_of(model: ModelFacts) -> Sizes:
    """The sizes of any model that was described; families unlike LLaMA are taken for
    the nearest like it."""
    queries, keys = attention_widths(model)
    return Sizes(
        hidden=model.hidden_size,
        layers=model.layers,
        heads=model.heads,
        queries=queries,
        keys=keys,
        mlp=model.intermediate_size,
        vocab=model.vocab_size,
        linear=model.linear_parameters,
        outside=model.parameters - model.linear_parameters,
        gated=is_gated(model),
    )


def llama_sizes(
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    mlp: int,
    vocab: int,
    *,
    head_dim: int | None = None,
    tied: bool = False,
) -> Sizes:
    """Sizes of a LLaMA-like model from the numbers in its config."""
    head_dim = head_dim or hidden // heads
    queries, keys = heads * head_dim, kv_heads * head_dim
    linear = layers * (2 * hidden * queries + 2 * hidden * keys + 3 * hidden * mlp)
    outside = vocab * hidden * (1 if tied else 2) + (2 * layers + 1) * hidden
    return Sizes(hidden, layers, heads, queries, keys, mlp, vocab, linear, outside)


def adapted_by(
    sizes: Sizes, targets: Iterable[str], rank: int, *, cast_inputs: bool = True
) -> tuple[int, int, int]:
    """(`trained`, `adapted_queries`, `adapted_inputs`) of a `PeftRun`, from targets by LLaMA's names."""
    d, a, k, f = sizes.hidden, sizes.queries, sizes.keys, sizes.mlp
    shapes = {
        "q_proj": (d, a),
        "k_proj": (d, k),
        "v_proj": (d, k),
        "o_proj": (a, d),
        "gate_proj": (d, f),
        "up_proj": (d, f),
        "down_proj": (f, d),
    }
    chosen = {name: shapes[name] for name in targets}
    trained = rank * sizes.layers * sum(inside + out for inside, out in chosen.values())
    reading = chosen.keys() & {"q_proj", "k_proj", "v_proj"}
    gates = chosen.keys() & {"gate_proj", "up_proj"}
    if cast_inputs:
        inputs = sum(inside for inside, _ in chosen.values())
    else:
        # q, k and v read one norm's output, gate and up the other's.
        inputs = d * (bool(reading) + bool(gates))
    return trained, len(reading), inputs


def peft_run(case: Case, shape: Shape) -> PeftRun:
    """The run of PEFT and transformers' Trainer with the plan's own settings."""
    model, linears = case.facts.model, case.linears
    blocks = max(1, model.layers)
    reading = [
        one for one in linears if one.role == "attention" and one.in_features == model.hidden_size
    ]
    outputs = [one for one in reading if one.name.startswith(("o_", "out", "c_proj", "dense"))]
    return PeftRun(
        micro_batch=shape.of_sides(case.facts.data.sides).micro_batch,
        length=shape.length,
        trained=case.trained_parameters,
        adapted_queries=round((len(reading) - len(outputs)) / blocks),
        adapted_inputs=round(sum(linear.in_features for linear in linears) / blocks),
        quantization=IN_PEFT[shape.quantization],
        upcast=shape.quantization != "none",
        checkpointing=bool(shape.checkpointing),
        attention="eager" if case.decided.attention == "eager" else "fused",
        loss="whole",
    )


__all__ = [
    "PeftRun",
    "Sizes",
    "adapted_by",
    "forecast_peft",
    "llama_sizes",
    "peft_phases",
    "peft_run",
    "sizes_of",
]
