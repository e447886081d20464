"""What a model's config.json says, whatever its family calls it: kind, task, sizes, classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from loraloom.records import Task

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Kind = Literal["decoder", "encoder", "encoder_decoder"]

RELATIVE_POSITIONS = frozenset({"t5", "mt5", "umt5", "longt5"})
"""Families that know only how far tokens are apart, so that rows may be of any length."""
POSITIONS_AFTER_PAD = frozenset(
    {
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "camembert",
        "roberta-prelayernorm",
        "data2vec-text",
        "mpnet",
    }
)
"""Families that count positions from pad_token_id + 1: the first rows of their table are never used."""


def kind_of(config: PreTrainedConfig) -> Kind:
    """What a model is. One that was trained as a masked language model is an encoder, unless its config
    says that it decodes; of the others, those that are made for causal language models are decoders."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if getattr(config, "is_encoder_decoder", False):
        return "encoder_decoder"
    if getattr(config, "is_decoder", False):
        return "decoder"
    if config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "encoder"
    written_for_lm = any("CausalLM" in name or "LMHead" in name for name in config.architectures or ())
    is_decoder = written_for_lm or config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return "decoder" if is_decoder else "encoder"


def trained_task(config: PreTrainedConfig) -> Task | None:
    """seq_cls where the weights are those of a classifier; None where they may be used for anything."""
    architectures = config.architectures or ()
    classifies = any(name.endswith("ForSequenceClassification") for name in architectures)
    return "seq_cls" if classifies else None


def size(config: PreTrainedConfig, *names: str) -> int:
    """The first of several spellings of a size; 0 where the config has none of them."""
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, (list, tuple)) and value:
            # A size for each layer: the largest is what has to fit.
            value = max(cast("Sequence[int]", value))
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


def hidden_size(config: PreTrainedConfig) -> int:
    return size(config, "hidden_size", "d_model", "dim", "n_embd")


def attention_heads(config: PreTrainedConfig) -> int:
    names = ("num_attention_heads", "n_heads", "n_head", "num_heads", "encoder_attention_heads")
    return size(config, *names)


def layer_count(config: PreTrainedConfig, kind: Kind) -> int:
    """Blocks; encoder and decoder together."""
    if kind == "encoder_decoder":
        encoder = size(config, "encoder_layers", "num_layers", "num_hidden_layers")
        return encoder + (size(config, "decoder_layers", "num_decoder_layers") or encoder)
    return size(config, "num_hidden_layers", "n_layers", "n_layer", "num_layers")


def intermediate_size(config: PreTrainedConfig) -> int:
    """Width inside the MLP; four times the model's, where the config does not say."""
    names = ("intermediate_size", "d_ff", "hidden_dim", "n_inner", "ffn_dim", "encoder_ffn_dim")
    return size(config, *names) or 4 * hidden_size(config)


def experts(config: PreTrainedConfig) -> int:
    """Of a layer of a mixture."""
    return size(config, "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def experts_per_token(config: PreTrainedConfig) -> int:
    """Those that one token goes through."""
    names = ("num_experts_per_tok", "num_experts_per_token", "top_k", "moe_top_k", "moe_topk", "moe_k")
    return size(config, *names) or 1


def max_positions(config: PreTrainedConfig) -> int | None:
    """Longest row that a model has positions for; None for any."""
    relative = getattr(config, "relative_attention_num_buckets", None)
    if relative and config.model_type in RELATIVE_POSITIONS:
        return None
    positions = size(config, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    if positions and config.model_type in POSITIONS_AFTER_PAD:
        positions -= size(config, "pad_token_id") + 1
    return positions or None


def batch_reads_beyond(config: PreTrainedConfig) -> int | None:
    """Longest row that is read as it would be alone: beyond it, "longrope" and "dynamic" take other
    angles for a whole batch."""
    rope: Any = getattr(config, "rope_parameters", None) or {}
    # Some families have one for each kind of layer.
    several = all(isinstance(part, dict) for part in rope.values())
    limits: list[int] = []
    for part in rope.values() if several else (rope,):
        if part.get("rope_type") in ("longrope", "dynamic"):
            original = part.get("original_max_position_embeddings")
            limits.append(original or size(config, "max_position_embeddings"))
    return min(limits, default=None)


def class_names(config: PreTrainedConfig) -> tuple[str, ...]:
    """By number; LABEL_0, ... where the config does not name them."""
    names = cast("dict[int, Any]", config.id2label)
    return tuple(str(names.get(number, f"LABEL_{number}")) for number in range(len(names)))


def quantization_method(config: PreTrainedConfig) -> str | None:
    """With which the checkpoint itself is quantised; None where it is not."""
    stated = _quantization(config)
    if stated is None:
        return None
    method = stated.get("quant_method")
    return str(getattr(method, "value", method) or "unknown")


def quantization_bits(config: PreTrainedConfig) -> int:
    """Bits of a code of a checkpoint that is quantised: 8 where its config does not say fewer."""
    stated = _quantization(config) or {}
    bits = stated.get("bits") or (4 if stated.get("load_in_4bit") else 8)
    return bits if isinstance(bits, int) else 8


def _quantization(config: PreTrainedConfig) -> dict[str, Any] | None:
    found: Any = getattr(config, "quantization_config", None)
    return found if found is None or isinstance(found, dict) else found.to_dict()
