"""Forecast of a run's peak memory, part by part, for K candidates in a pack.

    peak = weights + state of K adapters + max(training pass, evaluation pass) + runtime

What a training pass keeps is counted on the model itself (`facts.activations`), not estimated from its family;
formulas stand in only for models that cannot be run without numbers. On top comes the widest moment: the chunk of
logits when the loss is formed, or the gradients of one MLP on the way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loraloom.facts.activations import kept_bytes_per_row
from loraloom.facts.model import ModelFacts
from loraloom.plan import engine
from loraloom.plan.basis import Decided, Facts, decided_linears, parameters_per_rank
from loraloom.records import Estimate

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
ADAPTER_BYTES = 8
"""A trained number: its float32 value and gradient."""
ADAM_BYTES = 8
"""AdamW's two float32 moments."""
SNAPSHOT_BYTES = 4
"""The best weights so far, kept beside the live ones."""
NF4_BYTES = 0.516
"""A number in NF4 with double quantisation (arXiv:2305.14314)."""
EAGER_ATTENTION_BYTES = 16
"""Per row, head and pair of positions, where attention is not fused: scores, softmax and their copies."""
RUNTIME_BYTES = {"cuda": 600e6, "cpu": 500e6, "mps": 500e6}
"""What torch and its libraries take before a model is loaded."""
UNCERTAINTY = 0.10
"""Share by which a forecast without a probe may be off; a run has to fit with it."""


@dataclass(frozen=True)
class Shape:
    """What decides the memory of a pass. `packed` candidates share it."""

    micro_batch: int
    length: int
    packed: int = 1
    checkpointing: bool = False
    quantization: str = "none"

    @property
    def tokens(self) -> int:
        """Padded tokens of the largest training pass."""
        one = self.micro_batch * self.length
        return max(one, min(one * self.packed, engine.TOKEN_BUDGET))


def forecast_memory(facts: Facts, decided: Decided, shape: Shape) -> Estimate:
    """Peak bytes as a range; `parts` sum to its value."""
    model, element = facts.model, BYTES[decided["model.dtype"].value]
    trained = adapter_parameters(facts, decided)
    logits = logits_bytes(facts, shape.tokens, element)
    activations = training_activations(facts, decided, shape) + max(0.0, widest_bytes(model, shape.tokens, element) - logits)
    evaluation = evaluation_bytes(facts, decided, shape)
    parts = {
        "weights": weight_bytes(model, element, shape.quantization),
        "adapters": shape.packed * trained * (ADAPTER_BYTES + SNAPSHOT_BYTES + (element if element < 4 else 0)),
        "optimizer": shape.packed * trained * (ADAM_BYTES if decided["training.optim"].value == "adamw" else 0),
        "activations": activations,
        "logits": logits,
        "evaluation": max(0.0, evaluation - activations - logits),
        "runtime": RUNTIME_BYTES[facts.device.kind],
    }
    value = sum(parts.values())
    moving = value - parts["runtime"]
    low, high = parts["runtime"] + moving * (1 - UNCERTAINTY), parts["runtime"] + moving * (1 + UNCERTAINTY)
    return Estimate(value=value, low=low, high=high, unit="bytes", parts=parts)


def adapter_parameters(facts: Facts, decided: Decided) -> int:
    """Numbers that one candidate trains: its adapters, and modules that it trains whole."""
    heads = decided["adapter.modules_to_save"].value
    whole = sum(
        linear.parameters + linear.out_features
        for linear in facts.model.linears
        if any(linear.path == head or linear.path.startswith(f"{head}.") for head in heads)
    )
    return decided["adapter.r"].value * parameters_per_rank(decided_linears(facts, decided)) + whole


def weight_bytes(model: ModelFacts, element: float, quantization: str) -> float:
    """The frozen model. Only the linear layers inside the blocks are quantised."""
    if quantization == "none":
        return model.parameters * element
    small = {"nf4": NF4_BYTES, "int8": 1.0}[quantization]
    return model.linear_parameters * small + (model.parameters - model.linear_parameters) * element


def training_activations(facts: Facts, decided: Decided, shape: Shape) -> float:
    """Bytes that a training pass keeps: of all layers, or with checkpointing each layer's input and one layer whole."""
    model, dtype = facts.model, decided["model.dtype"].value
    attention = "eager" if decided["model.attn_implementation"].value == "eager" else "sdpa"
    targets = frozenset(linear.path for linear in decided_linears(facts, decided))
    row = kept_bytes_per_row(model, targets, decided["adapter.r"].value, dtype, shape.length, attention)
    if row is None:
        row = kept_by_formula(model, BYTES[dtype], shape.length, fused=attention == "sdpa")
    kept = row * shape.tokens / shape.length
    if shape.checkpointing:
        return model.layers * model.hidden_size * BYTES[dtype] * shape.tokens + kept / max(1, model.layers)
    return kept


def kept_by_formula(model: ModelFacts, element: float, length: int, *, fused: bool) -> float:
    """Bytes that a row keeps, from the sizes alone, with an adapter on every linear layer.

    Gated MLPs (LLaMA's kind) keep both halves, their activation and their product; plain ones the input and output of
    the activation. d width, a queries, v keys and values, f MLP: 6d + 2a + 2v + 4f or 4d + 2a + 2v + 2f a token.
    """
    queries, values = attention_widths(model)
    d, f = model.hidden_size, model.intermediate_size
    elements = (6 * d + 4 * f if is_gated(model) else 4 * d + 2 * f) + 2 * queries + 2 * values
    scores = 0 if fused else EAGER_ATTENTION_BYTES * model.heads * length
    return model.layers * length * (elements * element + scores)


def attention_widths(model: ModelFacts) -> tuple[int, int]:
    """Width of the queries and of the keys, from the linear layers themselves (heads times head size)."""
    for linear in model.linears:
        if linear.role == "attention" and linear.in_features == model.hidden_size and linear.name.startswith("q"):
            if linear.out_features <= 2 * model.hidden_size:
                width = linear.out_features
                return width, width * model.kv_heads // max(1, model.heads)
            break
    return model.hidden_size, model.hidden_size * model.kv_heads // max(1, model.heads)


def is_gated(model: ModelFacts) -> bool:
    """Whether the MLP has two parallel inputs: their outputs together are twice as wide as the product that follows."""
    into: dict[str, int] = {}
    out_of: dict[str, int] = {}
    for linear in model.linears:
        if linear.role == "mlp":
            block = linear.path.rpartition(".")[0]
            if linear.out_features == model.hidden_size:
                out_of[block] = linear.in_features
            else:
                into[block] = into.get(block, 0) + linear.out_features
    return any(into.get(block, 0) == 2 * width for block, width in out_of.items())


def widest_bytes(model: ModelFacts, tokens: int, element: float) -> float:
    """Gradients that live at once while one block is walked backwards: those of the inputs of its MLP's activation."""
    return (model.intermediate_size * (2 if is_gated(model) else 1) + model.hidden_size) * element * tokens


def logits_bytes(facts: Facts, tokens: int, element: float) -> float:
    """The loss at its widest moment.

    A decoder's is formed chunk by chunk: float32 logits of one chunk (and their copy, where the base computes in less),
    the hidden states of the supervised tokens, their gradient and one more copy. An encoder-decoder's is formed at once.
    """
    model = facts.model
    if facts.data.task == "seq_cls":
        return 0.0
    supervised = tokens * min(1.0, facts.data.supervised_tokens / max(1, facts.data.tokens))
    if facts.data.task == "seq2seq_lm":
        return supervised * model.vocab_size * (element + 8)
    chunk = min(engine.HEAD_CHUNK_BYTES, supervised * model.vocab_size * 4)
    return chunk * (1 if element >= 4 else 1.5) + 3 * supervised * model.hidden_size * element


def evaluation_bytes(facts: Facts, decided: Decided, shape: Shape) -> float:
    """A pass without gradients: the widest moment of one layer, and the stream of hidden states."""
    model, element = facts.model, BYTES[decided["model.dtype"].value]
    length = min(facts.data.longest_anywhere, shape.length)
    tokens = max(engine.EVALUATION_TOKENS, length)
    wide = (3 * model.hidden_size + 3 * model.intermediate_size) * element * tokens
    if decided["model.attn_implementation"].value == "eager":
        wide += EAGER_ATTENTION_BYTES / 2 * model.heads * length * tokens
    return wide + logits_bytes(facts, tokens, element)


def decided_shape(decided: Decided, *, packed: int = 1) -> Shape:
    """The shape of the plan's own candidate."""
    return Shape(
        micro_batch=decided["training.per_device_train_batch_size"].value,
        length=decided["data.max_length"].value,
        packed=packed,
        checkpointing=decided["training.gradient_checkpointing"].value,
        quantization=decided["model.quantization"].value,
    )


def largest(parts: Mapping[str, float]) -> str:
    """The part that takes most, by name."""
    return max(parts, key=lambda name: parts[name])


__all__ = ["Shape", "adapter_parameters", "decided_shape", "forecast_memory"]
