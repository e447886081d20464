"""Forecast of a run's peak memory, part by part, for K candidates in a pack.

    peak = weights + their layouts + state of K adapters + max(training pass, evaluation
    pass) + allocator + runtime

What a training pass keeps is counted on the model itself (`facts.activations`), not estimated from its
family; formulas stand in only for models that cannot be run without numbers. On top comes the widest
moment: the logits when the loss is formed, or the gradients of one MLP, or of one table of attention, on
the way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from loraloom.facts.activations import kept_by_widest_layer, kept_bytes_per_row
from loraloom.facts.device import CUDA_CONTEXT_BYTES, DeviceKind
from loraloom.facts.model import LinearFact, ModelFacts
from loraloom.facts.weights import BYTES
from loraloom.plan import engine
from loraloom.plan.inputs import Decided, Facts, decided_linears, parameters_per_rank
from loraloom.records import Estimate

ADAPTER_BYTES, GRADIENT_BYTES = 4, 4
"""A trained number in float32, and its gradient."""
ADAM_BYTES = 8
"""AdamW's two float32 moments."""
SNAPSHOT_BYTES = 4
"""The best weights so far, kept beside the live ones."""
NF4_BYTES = 0.516
"""A number in NF4 with double quantisation (arXiv:2305.14314)."""
EAGER_ATTENTION_BYTES = 16
"""Per row, head and pair of positions, where attention is not fused: scores, softmax
and their copies."""
RUNTIME_BYTES = {"cuda": float(CUDA_CONTEXT_BYTES), "cpu": 500e6, "mps": 500e6}
"""What torch and its libraries take before a model is loaded, where that was not measured
(`DeviceFacts.process_bytes`)."""
LIBRARY_BYTES = 25e6
"""What they take more once a model has run on a CPU: kernels made for its shapes, pages of code.
Measured on a model of a few hundred thousand parameters."""
RETAINED = {"cpu": 0.45, "cuda": 0.0, "mps": 0.0}
"""Share of a pass that malloc holds on to in pieces too small to be used again: fitted on the runs that
benchmarks/advice_memory measures. CUDA's figure is what torch allocated, which has no such share."""
HOLES = {"cpu": 3.8, "cuda": 0.0, "mps": 0.0}
"""What malloc holds on to instead where layers are computed again, in units of what one layer keeps:
between the small tensors that stay, large ones come and go, and an aligned one does not fit where one of
its own size was. Fitted on seven such runs."""
LAYOUTS = 2
"""Copies of a frozen weight that `lora.frozen` lays out anew: one for the way forward,
one for the way back."""
PROGRAM_BYTES = 0.6e6
"""A program that oneDNN has compiled (`lora.frozen.BLOCKS`)."""
LAYOUTS_SHARE = 0.6
"""Layouts are made where the forecast with them stays below this share of the budget:
speed should not cost candidates."""
STATE = ("adapters", "gradients", "optimizer")
"""Parts that each candidate adds, whatever shares a pass with it."""
UNCERTAINTY = 0.10
"""Share by which a forecast without a probe may be off; a run has to fit with it."""


@dataclass(frozen=True)
class Shape:
    """What decides the memory of a pass. `packed` candidates share it; `prepack`: frozen weights are
    laid out anew; `workers`: so many passes run at once, if there are as many candidates."""

    micro_batch: int
    length: int
    packed: int = 1
    checkpointing: bool = False
    quantization: str = "none"
    prepack: bool = False
    workers: int = 1
    token_budget: int | None = None
    """Padded tokens of a pass; None for the device's own number."""

    @property
    def at_once(self) -> int:
        """Passes that run at once."""
        return min(self.workers, self.packed)

    def budget(self, kind: DeviceKind) -> int:
        """Padded tokens that a training pass may have."""
        return self.token_budget or engine.TOKEN_BUDGET[kind]

    def tokens(self, kind: DeviceKind) -> int:
        """Padded tokens of the largest training passes that run at once: they share the budget, and a
        candidate's rows that are more than a share have a pass of their own."""
        one, token_budget = self.micro_batch * self.length, self.budget(kind)
        alone = one if one <= token_budget // self.at_once else one * self.at_once
        return max(alone, min(one * self.packed, token_budget))


def forecast_memory(facts: Facts, decided: Decided, shape: Shape) -> Estimate:
    """Peak bytes as a range; `parts` sum to its value."""
    model, element = facts.model, BYTES[decided["model.dtype"].value]
    trained = adapter_parameters(facts, decided)
    tokens = pass_tokens(facts, shape)
    tables, activations = (
        workspace_bytes(facts, decided, tokens),
        training_activations(facts, decided, shape),
    )
    evaluation = evaluation_bytes(facts, decided, shape)
    passing = max(activations + tables * shape.at_once, evaluation)
    parts = {
        "weights": weight_bytes(model, element, shape.quantization),
        "layouts": layout_bytes(facts, decided) if shape.prepack else 0.0,
        "programs": program_bytes(facts, decided) if shape.prepack else 0.0,
        "adapters": (
            shape.packed * trained * (ADAPTER_BYTES + SNAPSHOT_BYTES + (element if element < 4 else 0))
            + stack_bytes(facts, decided, shape)
        ),
        "gradients": shape.packed * trained * GRADIENT_BYTES,
        "optimizer": (
            shape.packed * trained * (ADAM_BYTES if decided["training.optim"].value == "adamw" else 0)
        ),
        "activations": activations,
        "logits": tables * shape.at_once,
        "evaluation": max(0.0, evaluation - activations - tables * shape.at_once),
        "allocator": retained_bytes(facts, decided, shape, passing),
        "runtime": runtime_bytes(facts),
    }
    return estimated(parts)


def estimated(parts: Mapping[str, float]) -> Estimate:
    """The sum of `parts`, with the range of a forecast that nothing was measured for;
    what the process itself holds was."""
    value, fixed = sum(parts.values()), parts["runtime"]
    low, high = (fixed + (value - fixed) * (1 + sign * UNCERTAINTY) for sign in (-1, 1))
    return Estimate(value=value, low=low, high=high, unit="bytes", parts=parts)


def runtime_bytes(facts: Facts) -> float:
    """What the process holds beside the run: measured where the device's facts say so."""
    held = facts.device.process_bytes
    return held + LIBRARY_BYTES if held else RUNTIME_BYTES[facts.device.kind]


def prepacks(facts: Facts, decided: Decided, shape: Shape, budget: float) -> bool:
    """Whether frozen weights are laid out anew: faster on this processor, and memory to spare."""
    import torch

    from loraloom.lora.frozen import prepacking_pays

    if not prepacking_pays(facts.device.kind, getattr(torch, decided["model.dtype"].value)):
        return False
    return forecast_memory(facts, decided, replace(shape, prepack=True)).value <= LAYOUTS_SHARE * budget


def pass_tokens(facts: Facts, shape: Shape) -> int:
    """Padded tokens of the largest training pass on this device."""
    return shape.tokens(facts.device.kind)


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


def layout_bytes(facts: Facts, decided: Decided) -> float:
    """Layouts of the frozen layers that have them; once, whatever K is."""
    numbers = sum(linear.parameters for linear in laid_out(facts, decided))
    return LAYOUTS * numbers * BYTES[decided["model.dtype"].value]


def program_bytes(facts: Facts, decided: Decided) -> float:
    """What oneDNN compiles for layouts: one program for each kind of layer, way and block of tokens."""
    from loraloom.lora.frozen import BLOCKS

    kinds = {(linear.in_features, linear.out_features) for linear in laid_out(facts, decided)}
    return PROGRAM_BYTES * len(kinds) * LAYOUTS * len(BLOCKS)


def laid_out(facts: Facts, decided: Decided) -> list[LinearFact]:
    """Frozen layers that get layouts: those that carry an adapter, and a language model's head."""
    import torch

    from loraloom.lora.frozen import has_layout

    model, dtype = facts.model, getattr(torch, decided["model.dtype"].value)
    headed = model.task != "seq_cls" and not _softcapped(model)
    heads = [linear for linear in model.linears if headed and linear.role == "head"]
    chosen = {linear.path: linear for linear in (*decided_linears(facts, decided), *heads)}
    return [linear for linear in chosen.values() if has_layout(linear.parameters, dtype)]


def _softcapped(model: ModelFacts) -> bool:
    """Whether the logits are capped: such a head is run as it is."""
    if model.llama is not None or model.config is None:
        return False
    return getattr(model.config.get_text_config(), "final_logit_softcapping", None) is not None


def stack_bytes(facts: Facts, decided: Decided, shape: Shape) -> float:
    """A and B of the candidates of each pass side by side, and their gradients, while
    the pass runs (`lora.pass_stack`)."""
    from loraloom.lora.pass_stack import MOST_BYTES

    if has_kernels(facts, decided["model.dtype"].value):
        return 0.0  # they read A and B where they are
    row = BYTES[decided["model.dtype"].value] * adapter_parameters(facts, decided)
    share = shape.budget(facts.device.kind) // shape.at_once
    candidates = min(
        -(-shape.packed // shape.at_once), share // max(1, shape.micro_batch * shape.length)
    )
    one = 2 * row * candidates
    return one * shape.at_once if candidates > 1 and one <= MOST_BYTES else 0.0


def has_kernels(facts: Facts, dtype: str) -> bool:
    """Whether `lora.kernels` do the candidates' part, and the loss."""
    by_dtype = facts.device.refusals.get("kernels", {})
    return facts.device.kind == "cuda" and dtype in by_dtype and by_dtype[dtype] is None


def training_activations(facts: Facts, decided: Decided, shape: Shape) -> float:
    """A training pass at its widest: what all layers keep while the loss is formed, or
    one block is walked backwards.

    With checkpointing it is the input of each layer, and the loss or one whole layer beside them: that
    layer's tensors are there only while it is walked. What an encoder gives, and its gradient, stay
    while the decoder is: all its layers read it.
    """
    model, tokens, element = facts.model, pass_tokens(facts, shape), BYTES[decided["model.dtype"].value]
    kept, walking = kept_by_layers(facts, decided, shape), widest_bytes(facts, decided, shape)
    forming = loss_bytes(facts, tokens, element)
    if not shape.checkpointing:
        return kept + max(forming, walking)
    staying = model.layers + (2 if model.kind == "encoder_decoder" else 0)
    return staying * model.hidden_size * element * tokens + max(
        forming, kept_by_a_layer(facts, decided, shape) + walking
    )


def retained_bytes(facts: Facts, decided: Decided, shape: Shape, passing: float) -> float:
    """Memory that the C library has freed and not given back, of a pass that takes `passing` bytes."""
    kind = facts.device.kind
    if shape.checkpointing:
        return HOLES[kind] * kept_by_a_layer(facts, decided, shape)
    return RETAINED[kind] * passing


def kept_by_layers(facts: Facts, decided: Decided, shape: Shape) -> float:
    """What all layers keep for the way back, where nothing is computed again."""
    tokens = pass_tokens(facts, shape)
    tabled = rows_in_tables(facts, decided, tokens, shape.length)
    attention = decided["model.attn_implementation"].value
    if facts.device.kind == "cpu" and attention == "sdpa" and not tabled:
        attention = "rows"  # too long for a table: by blocks or fused, as the model itself decides
    kept = kept_of_a_row(facts, decided, shape.length, attention) * tokens / shape.length
    if tabled:
        kept = max(kept, kept_of_a_row(facts, decided, shape.length, "rows") * tabled)
    return kept


def kept_by_a_layer(facts: Facts, decided: Decided, shape: Shape) -> float:
    """What one layer keeps: on average, or of an encoder and a decoder, a layer of the
    one that keeps more."""
    model, attention = facts.model, decided["model.attn_implementation"].value
    average = kept_by_layers(facts, decided, shape) / max(1, model.layers)
    if model.kind != "encoder_decoder":
        return average
    targets, dtype = (
        frozenset(linear.path for linear in decided_linears(facts, decided)),
        decided["model.dtype"].value,
    )
    counted = kept_by_widest_layer(
        model, targets, decided["adapter.r"].value, dtype, shape.length, attention
    )
    return max(average, (counted or 0.0) * pass_tokens(facts, shape) / shape.length)


def kept_of_a_row(facts: Facts, decided: Decided, length: int, attention: str) -> float:
    """Bytes that a training pass keeps of one row: counted, and by formula where that cannot be."""
    dtype, targets = (
        decided["model.dtype"].value,
        frozenset(linear.path for linear in decided_linears(facts, decided)),
    )
    counted = kept_bytes_per_row(
        facts.model, targets, decided["adapter.r"].value, dtype, length, attention
    )
    return kept_by_formula(facts.model, BYTES[dtype], length, attention) if counted is None else counted


def rows_in_tables(facts: Facts, decided: Decided, tokens: float, length: int) -> float:
    """Rows of a pass whose attention keeps a table of probabilities (`lora.attention`);
    0 where the fused kernel runs.

    A pass with more rows than a table may have goes to the fused kernel whole; a smaller one of the same
    run does not, so the most that a table may have is what counts.
    """
    if facts.device.kind != "cpu" or decided["model.attn_implementation"].value != "sdpa":
        return 0.0
    import torch

    from loraloom.lora.attention import most_rows

    dtype = getattr(torch, decided["model.dtype"].value)
    return min(tokens / length, most_rows(max(1, facts.model.heads), length, length, dtype))


def table_bytes(facts: Facts, decided: Decided, tokens: float, length: int) -> float:
    """One layer's table of probabilities [rows, H, T, T]."""
    rows, element = rows_in_tables(facts, decided, tokens, length), BYTES[decided["model.dtype"].value]
    return rows * facts.model.heads * length**2 * element


def kept_by_formula(model: ModelFacts, element: float, length: int, attention: str) -> float:
    """Bytes that a row keeps, from the sizes alone, with an adapter on every linear layer.

    Gated MLPs (LLaMA's kind) keep both halves, their activation and their product; plain ones the input
    and output of the activation. d width, a queries, v keys and values, f MLP: 6d + 2a + 2v + 4f or 4d +
    2a + 2v + 2f a token.
    """
    queries, values = attention_widths(model)
    d, f = model.hidden_size, model.intermediate_size
    elements = (6 * d + 4 * f if is_gated(model) else 4 * d + 2 * f) + 2 * queries + 2 * values
    scores = (
        {"sdpa": 0, "rows": element, "eager": EAGER_ATTENTION_BYTES}[attention] * model.heads * length
    )
    return model.layers * length * (elements * element + scores)


def attention_widths(model: ModelFacts) -> tuple[int, int]:
    """Width of the queries and of the keys, from the linear layers themselves (heads
    times head size)."""
    for linear in model.linears:
        if (
            linear.role == "attention"
            and linear.in_features == model.hidden_size
            and linear.name.startswith("q")
        ):
            if linear.out_features <= 2 * model.hidden_size:
                width = linear.out_features
                return width, width * model.kv_heads // max(1, model.heads)
            break
    return model.hidden_size, model.hidden_size * model.kv_heads // max(1, model.heads)


def is_gated(model: ModelFacts) -> bool:
    """Whether the MLP has two parallel inputs: their outputs together are twice as wide
    as the product that follows."""
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


def has_relu(model: ModelFacts) -> bool:
    """Whether the MLP's activation is a plain ReLU: what it gives tells its gradient."""
    names = ("hidden_act", "activation_function", "dense_act_fn")
    return model.llama is None and any(getattr(model.config, name, None) == "relu" for name in names)


def widest_bytes(facts: Facts, decided: Decided, shape: Shape) -> float:
    """Gradients that live at once while one block is walked backwards.

    Those of the inputs of its MLP's activation, and after a ReLU also that of its output: a ReLU keeps
    nothing but its output, while any other frees the output before. Or, after what the MLP kept is gone,
    those of the table of attention before and after the softmax, beside four of the block's width.
    """
    model, tokens = facts.model, pass_tokens(facts, shape)
    d, f = model.hidden_size, model.intermediate_size
    gradients = f * (2 if is_gated(model) or has_relu(model) else 1)
    kept = f * (4 if is_gated(model) else 2)
    token = BYTES[decided["model.dtype"].value] * tokens
    tables = 2 * table_bytes(facts, decided, tokens, shape.length)
    return max((gradients + d) * token, tables + (4 * d - kept) * token)


def supervised_in(facts: Facts, tokens: float) -> float:
    """Tokens of a pass that a loss is formed on."""
    return tokens * supervised_share(facts)


def supervised_share(facts: Facts) -> float:
    """Labels over the tokens of a row's length, which of a translation is that of its
    source or its target, not of both."""
    return min(1.0, facts.data.supervised_tokens / max(1.0, facts.data.rows * facts.data.mean_length))


def workspace_bytes(facts: Facts, decided: Decided, tokens: float) -> float:
    """The float32 table of logits that a language model's loss keeps from pass to pass,
    where the base has another dtype."""
    from loraloom.evals.cross_entropy import BLOCK_BYTES

    dtype = decided["model.dtype"].value
    if facts.data.task == "seq_cls" or BYTES[dtype] == 4 or has_kernels(facts, dtype):
        return 0.0
    rows = loss_rows(facts, tokens)
    if facts.device.kind == "cpu":
        rows = min(rows, BLOCK_BYTES / (4 * facts.model.vocab_size))
    return 4 * rows * facts.model.vocab_size


def loss_rows(facts: Facts, tokens: float) -> float:
    """Supervised tokens whose logits are formed at once."""
    import torch

    from loraloom.evals.cross_entropy import chunk_rows

    return min(
        chunk_rows(facts.model.vocab_size, torch.device(facts.device.kind)), supervised_in(facts, tokens)
    )


def loss_bytes(facts: Facts, tokens: float, element: float) -> float:
    """The loss at its widest moment, beside its table.

    The head's output for a chunk and for the one before it; of the supervised tokens the hidden states,
    their gradient and one more copy.
    """
    model = facts.model
    if facts.data.task == "seq_cls":
        return 0.0
    supervised, chunk = supervised_in(facts, tokens), loss_rows(facts, tokens)
    formed = chunk + min(chunk, supervised - chunk)
    return (formed * model.vocab_size + 3 * supervised * model.hidden_size) * element


def evaluation_bytes(facts: Facts, decided: Decided, shape: Shape) -> float:
    """A pass that scores: forwards through the layers, and the loss."""
    from loraloom.evals.scoring import EVALUATION_FACTOR

    element, length = BYTES[decided["model.dtype"].value], min(facts.data.longest_anywhere, shape.length)
    tokens = max(EVALUATION_FACTOR * shape.budget(facts.device.kind), shape.packed * length)
    wide = forward_bytes(facts, decided, tokens, length)
    return (
        wide
        + workspace_bytes(facts, decided, tokens) * shape.at_once
        + loss_bytes(facts, tokens, element)
    )


def forward_bytes(facts: Facts, decided: Decided, tokens: float, length: int) -> float:
    """A pass without gradients, without its loss: one layer at its MLP, or at its table of attention."""
    model, element = facts.model, BYTES[decided["model.dtype"].value]
    tables = 2 * table_bytes(facts, decided, tokens, length) + 5 * model.hidden_size * element * tokens
    wide = max((3 * model.hidden_size + 3 * model.intermediate_size) * element * tokens, tables)
    if decided["model.attn_implementation"].value == "eager":
        wide += EAGER_ATTENTION_BYTES / 2 * model.heads * length * tokens
    return wide


def decided_shape(
    decided: Decided,
    *,
    packed: int = 1,
    prepack: bool = False,
    workers: int = 1,
    token_budget: int | None = None,
) -> Shape:
    """The shape of the plan's own candidate."""
    return Shape(
        micro_batch=decided["training.per_device_train_batch_size"].value,
        length=decided["data.max_length"].value,
        packed=packed,
        checkpointing=decided["training.gradient_checkpointing"].value,
        quantization=decided["model.quantization"].value,
        prepack=prepack,
        workers=workers,
        token_budget=token_budget,
    )


__all__ = ["STATE", "Shape", "adapter_parameters", "decided_shape", "forecast_memory", "prepacks"]
