"""What a model is: family, sizes, linear layers, heads and weights, from its config.json alone.

The model is built on torch's meta device, where tensors have shapes but no numbers: a config of 70
billion parameters takes no memory. So nothing is guessed from the names of families, and a family that
this file has never heard of is described as well as LLaMA. What is built like LLaMA is described without
even that (`facts.llama`), which spares the seconds that it takes to import transformers' models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from loraloom.errors import ModelError
from loraloom.facts.linear import LinearFact, frozen_because, is_expert, role_of
from loraloom.facts.llama import LlamaLike, read_llama_like
from loraloom.facts.source import cause_line, fetch_weights, load_config, model_folder
from loraloom.facts.unused import unused_linears
from loraloom.facts.weights import Weights, find_weights
from loraloom.lora.targets import NO_TARGETS
from loraloom.records import Task

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

Kind = Literal["decoder", "encoder", "encoder_decoder"]

DEFAULT_TASK: dict[Kind, Task] = {
    "decoder": "causal_lm",
    "encoder": "seq_cls",
    "encoder_decoder": "seq2seq_lm",
}
AUTO_CLASSES: dict[Task, str] = {
    "causal_lm": "AutoModelForCausalLM",
    "seq_cls": "AutoModelForSequenceClassification",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
}
HEAD_NAMES = frozenset({"classifier", "score", "classification_head", "pre_classifier", "qa_outputs"})


@dataclass(frozen=True)
class ModelFacts:
    """What `plan` and the trainer need to know of a model. Counts are parameters, sizes are bytes."""

    name_or_path: str
    revision: str | None
    task: Task
    model_type: str
    architecture: str
    """Class that is built for the task: "LlamaForCausalLM"."""
    kind: Kind
    parameters: int
    hidden_size: int
    layers: int
    """Blocks; encoder and decoder together."""
    heads: int
    kv_heads: int
    intermediate_size: int
    vocab_size: int
    max_positions: int | None
    """Longest row in tokens, None where positions are relative and have no limit."""
    tied_embeddings: bool
    linears: tuple[LinearFact, ...] = field(repr=False)
    modules: tuple[str, ...] = field(repr=False)
    """Paths of all modules that own parameters, themselves or inside them."""
    head_modules: tuple[str, ...]
    """For classification: paths of the heads, and of pretrained-looking parts that the weights lack."""
    has_weights: bool
    weight_bytes: int
    dtype: str
    """Type in which the weights are stored: "float32", "bfloat16", ..."""
    supports_sdpa: bool = True
    experts: int = 0
    """Experts of a layer of a mixture, 0 for a dense model. They stay frozen, as does their router."""
    batch_reads_beyond: int | None = None
    """Where `max_positions` ends early for this reason: the longest row of a batch
    decides how all of its rows are read."""
    active_expert_parameters: int = 0
    """Numbers in the experts that one token goes through."""
    prequantized: str | None = None
    """Method with which the checkpoint itself is quantised ("gptq", "awq", ...)."""
    classes: tuple[str, ...] = ()
    """What the weights' own head tells apart, by number: LABEL_0, ... where config.json does not name
    them. Empty where the weights have no such head, or other classes were asked for."""
    is_local: bool = True
    weights_problem: str | None = None
    llama: LlamaLike | None = field(default=None, repr=False, compare=False)
    """The sizes of a model that is built like LLaMA: whoever has a use for them need not build it."""
    read_config: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def config(self) -> Any:
        """The transformers config of the model; None where none was given."""
        return self.read_config() if self.read_config else None

    @property
    def linear_parameters(self) -> int:
        """Numbers in the linear layers outside the heads, and in a token's experts:
        what its matrix products touch."""
        dense = sum(
            one.parameters for one in self.linears if one.role != "head" and not is_expert(one.path)
        )
        return dense + self.active_expert_parameters


def model_facts(
    name_or_path: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    task: Task | None = None,
    num_labels: int | None = None,
) -> ModelFacts:
    """Describe a model from its config.json, and its weight files by their headers
    where they are at hand.

    Args:
        name_or_path: folder, or name on the hub (its config is fetched by transformers,
            its weights are not).
        revision: branch, tag or commit on the hub.
        trust_remote_code: run model code that comes with the model.
        task: what the model shall do; None takes what its kind does.
        num_labels: classes of a classifier; None takes the config's.

    Raises:
        ModelError: no such model, no config.json, or a model that cannot do the task.
    """
    read_config = partial(_config, name_or_path, revision, trust_remote_code, num_labels)
    llama = read_llama_like(name_or_path) if task != "seq2seq_lm" else None
    if llama is not None:
        return _described_llama(llama, name_or_path, revision, task, num_labels, read_config)
    config = read_config()
    try:
        described = _described(config, name_or_path, revision, trust_remote_code, task)
        return described if num_labels is None else replace(described, classes=())
    except ModelError:
        raise
    # a family checks the fields that it computes with; the others may hold anything
    except Exception as fault:
        raise ModelError(
            f"the config.json of {name_or_path} cannot be used",
            got=cause_line(fault),
            need="names, numbers and lists where the family has them",
            next="restore the file",
        ) from fault


def _config(
    name_or_path: str, revision: str | None, trust_remote_code: bool, num_labels: int | None
) -> PreTrainedConfig:
    config = load_config(name_or_path, revision=revision, trust_remote_code=trust_remote_code)
    if num_labels is not None:
        config.num_labels = num_labels
    return config


def _described_llama(
    llama: LlamaLike,
    name_or_path: str,
    revision: str | None,
    task: Task | None,
    asked: int | None,
    read_config: Callable[[], Any],
) -> ModelFacts:
    task = task or llama.task or DEFAULT_TASK["decoder"]
    weights = find_weights(Path(name_or_path).expanduser())
    labels = asked or len(llama.label_names)
    is_stored = weights.names is None or "score.weight" in weights.names
    has_head = is_stored and llama.task == task == "seq_cls" and asked is None
    return ModelFacts(
        name_or_path=name_or_path,
        revision=revision,
        task=task,
        model_type=llama.family,
        architecture=llama.architecture(task),
        kind="decoder",
        parameters=llama.parameters(task, labels),
        hidden_size=llama.hidden,
        layers=llama.layers,
        heads=llama.heads,
        kv_heads=llama.kv_heads,
        intermediate_size=llama.intermediate,
        vocab_size=llama.vocabulary,
        max_positions=llama.positions,
        tied_embeddings=llama.tied,
        linears=llama.linears(task, labels),
        modules=llama.modules(task),
        head_modules=("score",) if task == "seq_cls" else (),
        has_weights=weights.problem is None,
        weight_bytes=weights.bytes,
        dtype=weights.dtype or llama.dtype or "float32",
        weights_problem=weights.problem,
        llama=llama,
        classes=llama.label_names if has_head else (),
        read_config=read_config,
    )


def _described(
    config: PreTrainedConfig,
    name_or_path: str,
    revision: str | None,
    trust_remote_code: bool,
    task: Task | None,
) -> ModelFacts:
    kind = _kind(config)
    task = task or _asked_task(config) or DEFAULT_TASK[kind]
    _check_task(name_or_path, config.model_type, kind, task)
    model = build_on_meta(config, task, trust_remote_code=trust_remote_code)
    folder = model_folder(name_or_path, revision)
    weights = (
        find_weights(folder) if folder else Weights(problem="the weights are not on this machine yet")
    )
    heads = _head_modules(model, weights.names) if task == "seq_cls" else ()
    prefix = str(getattr(model, "base_model_prefix", ""))
    is_stored = weights.names is None or (
        bool(heads) and _is_stored(model, heads[-1], prefix, weights.names)
    )
    has_head = is_stored and _asked_task(config) == task == "seq_cls"
    text = config.get_text_config()
    experts, active = _experts(model, text)
    width = _size(text, "hidden_size", "d_model", "dim", "n_embd")
    head_count = _size(
        text, "num_attention_heads", "n_heads", "n_head", "num_heads", "encoder_attention_heads"
    )
    return ModelFacts(
        name_or_path=name_or_path,
        revision=revision,
        task=task,
        model_type=str(config.model_type),
        architecture=type(model).__name__,
        kind=kind,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        hidden_size=width,
        layers=_layers(text, kind),
        heads=head_count,
        kv_heads=_size(text, "num_key_value_heads") or head_count,
        intermediate_size=_intermediate(text) or 4 * width,
        vocab_size=_size(text, "vocab_size"),
        max_positions=min(filter(None, (_max_positions(text), _rope_switch(text))), default=None),
        batch_reads_beyond=_rope_switch(text),
        tied_embeddings=bool(getattr(text, "tie_word_embeddings", False)),
        linears=_linears(model, heads, experts, task),
        modules=tuple(
            path for path, module in model.named_modules() if path and _has_parameters(module)
        ),
        head_modules=heads,
        has_weights=weights.problem is None,
        weight_bytes=weights.bytes,
        dtype=weights.dtype or str(getattr(config, "dtype", None) or "float32").removeprefix("torch."),
        supports_sdpa=bool(getattr(model, "_supports_sdpa", False)),
        experts=experts,
        active_expert_parameters=active,
        prequantized=_prequantized(config),
        classes=_class_names(config) if has_head else (),
        is_local=Path(name_or_path).expanduser().is_dir(),
        weights_problem=weights.problem,
        read_config=lambda: config,
    )


def require_weights(facts: ModelFacts) -> ModelFacts:
    """The same facts once the weights are sure to be on this machine: a hub model is
    fetched, a folder must have them.

    Raises:
        ModelError: the folder has no usable weights, or the hub refuses.
    """
    if facts.has_weights:
        return facts
    if facts.is_local:
        raise ModelError(
            f"{facts.name_or_path} has a config.json but no weights that can be used",
            got=facts.weights_problem,
            need=(
                "model.safetensors or pytorch_model.bin beside config.json, with every shard that an"
                " index names"
            ),
            next="fetch the weights again; `loraloom plan` works without them",
        )
    fetch_weights(facts.name_or_path, facts.revision)
    fetched = model_facts(facts.name_or_path, revision=facts.revision, task=facts.task)
    if not fetched.has_weights:
        return require_weights(replace(fetched, is_local=True))
    return fetched


def build_on_meta(
    config: PreTrainedConfig,
    task: Task,
    *,
    trust_remote_code: bool = False,
    attention: str | None = None,
) -> nn.Module:
    """The task's model with shapes and no numbers.

    Raises:
        ModelError: the family has no such model, or the config contradicts itself.
    """
    import torch
    import transformers

    factory = getattr(transformers, AUTO_CLASSES[task])
    try:
        with torch.device("meta"):
            model = factory.from_config(
                config, trust_remote_code=trust_remote_code, attn_implementation=attention
            )
    # a config is user input: whatever a model's constructor raises on it is a wrong request
    except Exception as fault:
        raise ModelError(
            f"a {config.model_type} model for {task} cannot be built from this config.json",
            where=str(config.name_or_path) or None,
            got=cause_line(fault),
            need="a family that transformers offers for this task, and sizes that fit each other",
            next="check `task`, or the config.json of the model",
        ) from fault
    return cast("nn.Module", model)


def _kind(config: PreTrainedConfig) -> Kind:
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
    return (
        "decoder"
        if written_for_lm or config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        else "encoder"
    )


def _asked_task(config: PreTrainedConfig) -> Task | None:
    return (
        "seq_cls"
        if any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
        else None
    )


def _check_task(name: str, model_type: str, kind: Kind, task: Task) -> None:
    wrong = (task == "causal_lm" and kind != "decoder") or (
        task == "seq2seq_lm" and kind != "encoder_decoder"
    )
    if wrong:
        needed = (
            "a decoder (LLaMA, Qwen, GPT-2, ...)"
            if task == "causal_lm"
            else "an encoder-decoder (T5, BART, ...)"
        )
        raise ModelError(
            f"{name} cannot do {task}",
            got=(
                f"a {model_type} model, which is an {kind.replace('_', '-')}"
                if kind != "decoder"
                else f"a {model_type} decoder"
            ),
            need=needed,
            next=f"task: {DEFAULT_TASK[kind]}, or another model",
        )


def _experts(model: nn.Module, text: Any) -> tuple[int, int]:
    """How many experts a layer has, and the numbers in those of all layers that one
    token goes through."""
    count = _size(text, "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    numbers = sum(
        p.numel()
        for name, p in model.named_parameters()
        if (p.ndim == 3 and p.shape[0] == count) or (p.ndim == 2 and is_expert(name))
    )
    if count < 2 or not numbers:
        return 0, 0
    chosen = (
        _size(
            text,
            "num_experts_per_tok",
            "num_experts_per_token",
            "top_k",
            "moe_top_k",
            "moe_topk",
            "moe_k",
        )
        or 1
    )
    return count, numbers * min(chosen, count) // count


def _linears(model: nn.Module, heads: Sequence[str], experts: int, task: Task) -> tuple[LinearFact, ...]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    output = cast("Any", model).get_output_embeddings()
    facts: list[LinearFact] = []
    for path, module in model.named_modules():
        if isinstance(module, Conv1D):
            d_in, d_out = (int(size) for size in module.weight.shape)
        elif isinstance(module, nn.Linear):
            d_in = module.in_features
            d_out = module.out_features
        else:
            continue
        is_head = module is output or any(path == head or path.startswith(f"{head}.") for head in heads)
        why = frozen_because(path, d_out, experts)
        role = "head" if is_head else "frozen" if why else role_of(path)
        facts.append(LinearFact(path, d_in, d_out, role, why))
    shapes = {
        one.path: (one.in_features, one.out_features) for one in facts if one.role not in NO_TARGETS
    }
    positions = _max_positions(cast("Any", model).config.get_text_config())
    left_out = {**unused_linears(model, shapes, task, positions), **_astray(model, list(shapes))}
    return tuple(
        replace(one, role="frozen", why=left_out[one.path]) if one.path in left_out else one
        for one in facts
    )


def _astray(model: nn.Module, paths: Sequence[str]) -> dict[str, str]:
    """Layers whose adapters PEFT would not load. It is asked only where that can be: where transformers
    names weights otherwise than checkpoints do, as of mixtures, and by Mamba's blocks."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    renamed = get_checkpoint_conversion_mapping(str(cast("Any", model).config.model_type)) is not None
    if not renamed and not any(path.endswith((".out_proj", ".conv1d")) for path in paths):
        return {}
    from loraloom.lora.reach import out_of_reach

    return out_of_reach(model, paths)


def _head_modules(model: nn.Module, stored: frozenset[str] | None) -> tuple[str, ...]:
    """Heads of a classifier that must be trained whole.

    The part that gives the classes always is; so is a layer beside the base (DistilBERT's
    pre_classifier) or a pooler, when the weights hold nothing for it and it would start from noise.
    `stored` None: not known, and then only what is known to be new by its name counts.
    """
    prefix = str(getattr(model, "base_model_prefix", ""))
    beside = [
        name for name, child in model.named_children() if name != prefix and _has_parameters(child)
    ]
    heads = [name for name in beside if name in HEAD_NAMES or name == beside[-1]]
    if stored is not None:
        poolers = [
            path
            for path, module in model.named_modules()
            if path.endswith("pooler") and _has_parameters(module)
        ]
        heads += [path for path in (*beside, *poolers) if not _is_stored(model, path, prefix, stored)]
    chosen = set(heads)
    return tuple(path for path, _ in model.named_modules() if path in chosen)


def _is_stored(model: nn.Module, path: str, prefix: str, stored: frozenset[str]) -> bool:
    """Whether the weights hold any parameter of a module, saved with or without the
    base model's prefix."""
    names = (f"{path}.{name}" for name, _ in model.get_submodule(path).named_parameters())
    return any({name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"} & stored for name in names)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _size(config: PreTrainedConfig, *names: str) -> int:
    """The first of several spellings of a size; 0 where the config has none of them."""
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, (list, tuple)) and value:
            value = max(cast("Sequence[int]", value))
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


def _layers(config: PreTrainedConfig, kind: Kind) -> int:
    if kind == "encoder_decoder":
        encoder = _size(config, "encoder_layers", "num_layers", "num_hidden_layers")
        return encoder + (_size(config, "decoder_layers", "num_decoder_layers") or encoder)
    return _size(config, "num_hidden_layers", "n_layers", "n_layer", "num_layers")


def _intermediate(config: PreTrainedConfig) -> int:
    return _size(
        config, "intermediate_size", "d_ff", "hidden_dim", "n_inner", "ffn_dim", "encoder_ffn_dim"
    )


def _max_positions(config: PreTrainedConfig) -> int | None:
    if getattr(config, "relative_attention_num_buckets", None) and config.model_type in {
        "t5",
        "mt5",
        "umt5",
        "longt5",
    }:
        return None
    positions = _size(config, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
    # RoBERTa's kin count positions from pad_token_id + 1, so the first rows of their
    # table are never used.
    counts_after_pad = {
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "camembert",
        "roberta-prelayernorm",
        "data2vec-text",
        "mpnet",
    }
    if positions and config.model_type in counts_after_pad:
        positions -= _size(config, "pad_token_id") + 1
    return positions or None


def _class_names(config: PreTrainedConfig) -> tuple[str, ...]:
    names = cast("dict[int, Any]", config.id2label)
    return tuple(str(names.get(number, f"LABEL_{number}")) for number in range(len(names)))


def _rope_switch(config: PreTrainedConfig) -> int | None:
    """Longest row that is read as it would be alone: beyond it, "longrope" and "dynamic" take other
    angles for a whole batch."""
    rope: Any = getattr(config, "rope_parameters", None) or {}
    kinds = rope.values() if all(isinstance(part, dict) for part in rope.values()) else (rope,)
    limits = [
        part.get("original_max_position_embeddings") or _size(config, "max_position_embeddings")
        for part in kinds
        if part.get("rope_type") in ("longrope", "dynamic")
    ]
    return min(limits, default=None)


def _prequantized(config: PreTrainedConfig) -> str | None:
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    method = (
        cast("dict[str, Any]", found).get("quant_method")
        if isinstance(found, dict)
        else getattr(found, "quant_method", None)
    )
    return str(getattr(method, "value", method) or "unknown")
