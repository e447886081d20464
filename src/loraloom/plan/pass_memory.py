"""Forecast of what one pass through the model holds at its widest moment: its activations, and its loss.

What a training pass keeps is counted on the model itself (`facts.activations`), not estimated from its
family; formulas stand in only for models that cannot be run without numbers. On top comes the widest
moment: the logits when the loss is formed, or the gradients of one MLP, or of one table of attention, on
the way back.
"""

from __future__ import annotations

from loraloom.facts.activations import kept_by_widest_layer, kept_bytes_per_row
from loraloom.facts.model import ModelFacts
from loraloom.plan.case import Case
from loraloom.plan.shape import Shape

EAGER_ATTENTION_BYTES = 16
"""Per row, head and pair of positions, where attention is not fused: scores, softmax
and their copies."""

INPUTS_AT_ONCE = 2
"""Blocks' inputs that are on the device while the others are kept on the host (`lora.offload`)."""


def training_activations(case: Case, shape: Shape) -> float:
    """A training pass at its widest: what all layers keep while the loss is formed, or
    one block is walked backwards.

    With checkpointing it is the input of each layer, and the loss or one whole layer beside them: that
    layer's tensors are there only while it is walked. Where inputs are kept on the host, it is those of
    the layer that is walked and of the one that comes next. What an encoder gives, and its gradient,
    stay while the decoder is: all its layers read it.
    """
    model = case.facts.model
    tokens = shape.tokens(case.facts.device.kind)
    kept = kept_by_layers(case, shape)
    walking = widest_bytes(case, shape)
    forming = loss_bytes(case, tokens)
    if not shape.checkpointing:
        return kept + max(forming, walking)
    inputs = min(INPUTS_AT_ONCE, model.layers) if shape.checkpointing == "offload" else model.layers
    staying = inputs + (2 if model.kind == "encoder_decoder" else 0)
    return staying * model.hidden_size * case.decided.dtype_bytes * tokens + max(
        forming, kept_by_a_layer(case, shape) + walking
    )


def inputs_on_host(case: Case, shape: Shape) -> float:
    """Bytes of the host's memory that the blocks' inputs take, where they are kept there."""
    tokens = shape.tokens(case.facts.device.kind)
    return case.facts.model.layers * case.facts.model.hidden_size * case.decided.dtype_bytes * tokens


def evaluation_bytes(case: Case, shape: Shape) -> float:
    """A pass that scores: forwards through the layers, and the loss."""
    from loraloom.evals.scoring import EVALUATION_FACTOR

    length = min(case.facts.data.longest_anywhere, shape.length)
    tokens = max(EVALUATION_FACTOR * shape.budget(case.facts.device.kind), shape.packed * length)
    workspaces = workspace_bytes(case, tokens) * shape.at_once
    return forward_bytes(case, tokens, length) + workspaces + loss_bytes(case, tokens)


def forward_bytes(case: Case, tokens: float, length: int) -> float:
    """A pass without gradients, without its loss: one layer at its MLP, or at its table of attention."""
    model, element = case.facts.model, case.decided.dtype_bytes
    tables = 2 * table_bytes(case, tokens, length) + 5 * model.hidden_size * element * tokens
    wide = max((3 * model.hidden_size + 3 * model.intermediate_size) * element * tokens, tables)
    if case.decided.attention == "eager":
        wide += EAGER_ATTENTION_BYTES / 2 * model.heads * length * tokens
    return wide


def kept_by_layers(case: Case, shape: Shape) -> float:
    """What all layers keep for the way back, where nothing is computed again."""
    tokens = shape.tokens(case.facts.device.kind)
    tabled = rows_in_tables(case, tokens, shape.length)
    attention = case.decided.attention
    if case.facts.device.kind == "cpu" and attention == "sdpa" and not tabled:
        attention = "rows"  # too long for a table: by blocks or fused, as the model itself decides
    kept = kept_of_a_row(case, shape.length, attention) * tokens / shape.length
    if tabled:
        kept = max(kept, kept_of_a_row(case, shape.length, "rows") * tabled)
    return kept


def kept_by_a_layer(case: Case, shape: Shape) -> float:
    """What one layer keeps: on average, or of an encoder and a decoder, a layer of the
    one that keeps more."""
    model, attention = case.facts.model, case.decided.attention
    average = kept_by_layers(case, shape) / max(1, model.layers)
    if model.kind != "encoder_decoder":
        return average
    targets = frozenset(linear.path for linear in case.linears)
    counted = kept_by_widest_layer(
        model, targets, case.decided.r, case.decided.dtype, shape.length, attention
    )
    return max(average, (counted or 0.0) * shape.tokens(case.facts.device.kind) / shape.length)


def kept_of_a_row(case: Case, length: int, attention: str) -> float:
    """Bytes that a training pass keeps of one row: counted, and by formula where that cannot be."""
    model, decided = case.facts.model, case.decided
    targets = frozenset(linear.path for linear in case.linears)
    counted = kept_bytes_per_row(model, targets, decided.r, decided.dtype, length, attention)
    return kept_by_formula(model, decided.dtype_bytes, length, attention) if counted is None else counted


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


def rows_in_tables(case: Case, tokens: float, length: int) -> float:
    """Rows of a pass whose attention keeps a table of probabilities (`lora.attention`);
    0 where the fused kernel runs.

    A pass with more rows than a table may have goes to the fused kernel whole; a smaller one of the same
    run does not, so the most that a table may have is what counts.
    """
    if case.facts.device.kind != "cpu" or case.decided.attention != "sdpa":
        return 0.0
    import torch

    from loraloom.lora.attention import most_rows

    dtype = getattr(torch, case.decided.dtype)
    return min(tokens / length, most_rows(max(1, case.facts.model.heads), length, length, dtype))


def table_bytes(case: Case, tokens: float, length: int) -> float:
    """One layer's table of probabilities [rows, H, T, T]."""
    rows = rows_in_tables(case, tokens, length)
    return rows * case.facts.model.heads * length**2 * case.decided.dtype_bytes


def widest_bytes(case: Case, shape: Shape) -> float:
    """Gradients that live at once while one block is walked backwards.

    Those of the inputs of its MLP's activation, and after a ReLU also that of its output: a ReLU keeps
    nothing but its output, while any other frees the output before. Or, after what the MLP kept is gone,
    those of the table of attention before and after the softmax, beside four of the block's width.
    """
    model = case.facts.model
    tokens = shape.tokens(case.facts.device.kind)
    d, f = model.hidden_size, model.intermediate_size
    gradients = f * (2 if is_gated(model) or has_relu(model) else 1)
    kept = f * (4 if is_gated(model) else 2)
    token = case.decided.dtype_bytes * tokens
    tables = 2 * table_bytes(case, tokens, shape.length)
    return max((gradients + d) * token, tables + (4 * d - kept) * token)


def loss_bytes(case: Case, tokens: float) -> float:
    """The loss at its widest moment, beside its table.

    The head's output for a chunk; of the supervised tokens the hidden states, their gradient and two
    more copies.
    """
    model = case.facts.model
    if case.facts.model.task == "seq_cls":
        return 0.0
    logits = loss_rows(case, tokens) * model.vocab_size
    return (logits + 4 * supervised_in(case, tokens) * model.hidden_size) * case.decided.dtype_bytes


def workspace_bytes(case: Case, tokens: float) -> float:
    """The float32 table of logits that a language model's loss keeps from pass to pass,
    where the base has another dtype."""
    from loraloom.evals.cross_entropy import BLOCK_BYTES

    if case.facts.model.task == "seq_cls" or case.decided.dtype_bytes == 4 or has_kernels(case):
        return 0.0
    rows = loss_rows(case, tokens)
    if case.facts.device.kind == "cpu":
        rows = min(rows, BLOCK_BYTES / (4 * case.facts.model.vocab_size))
    return 4 * rows * case.facts.model.vocab_size


def loss_rows(case: Case, tokens: float) -> float:
    """Supervised tokens whose logits are formed at once."""
    import torch

    from loraloom.evals.cross_entropy import chunk_rows

    device, dtype = torch.device(case.facts.device.kind), getattr(torch, case.decided.dtype)
    most = chunk_rows(case.facts.model.vocab_size, device, dtype)
    return min(most, supervised_in(case, tokens))


def supervised_in(case: Case, tokens: float) -> float:
    """Tokens of a pass that a loss is formed on."""
    return tokens * supervised_share(case)


def supervised_share(case: Case) -> float:
    """Labels over the tokens of a row's length, which of a translation is that of its
    source or its target, not of both."""
    data = case.facts.data
    return min(1.0, data.supervised_tokens / max(1.0, data.rows * data.mean_length))


def has_kernels(case: Case) -> bool:
    """Whether `lora.kernels` do the candidates' part, and the loss."""
    by_dtype = case.facts.device.refusals.get("kernels", {})
    dtype = case.decided.dtype
    return case.facts.device.kind == "cuda" and dtype in by_dtype and by_dtype[dtype] is None


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
