"""What a model is: family, sizes, linear layers, heads and weights, from its config.json alone.

The model is built without numbers (`facts.meta_model`), so that a family that nobody here has heard of
is described as well as LLaMA. What is built like LLaMA is described without even that (`facts.llama`),
which spares the seconds that it takes to import transformers' models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.errors import ModelError
from loraloom.facts import config_fields
from loraloom.facts.config_fields import Kind
from loraloom.facts.linear import LinearFact, is_expert
from loraloom.facts.llama import LlamaLike, read_llama_like
from loraloom.facts.meta_model import (
    build_on_meta,
    expert_parameters,
    head_modules_of,
    is_stored,
    linears_of,
    paths_with_parameters,
)
from loraloom.facts.source import cause_line, fetch_weights, load_config, model_folder
from loraloom.facts.weights import Weights, find_weights
from loraloom.records import Task

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

DEFAULT_TASK: dict[Kind, Task] = {
    "decoder": "causal_lm",
    "encoder": "seq_cls",
    "encoder_decoder": "seq2seq_lm",
}
GROUP = 64
"""Numbers that share a scale, where that has to be guessed."""


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
    coded_bytes: int = 0
    """Of such a checkpoint: what its layers in few bits take. Estimated where no weights are there."""
    plain_parameters: int = 0
    """And its numbers outside of them."""
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
    kind = config_fields.kind_of(config)
    trained = config_fields.trained_task(config)
    task = task or trained or DEFAULT_TASK[kind]
    _check_task(name_or_path, config.model_type, kind, task)
    model = build_on_meta(config, task, trust_remote_code=trust_remote_code)
    folder = model_folder(name_or_path, revision)
    weights = (
        find_weights(folder) if folder else Weights(problem="the weights are not on this machine yet")
    )
    head_modules = head_modules_of(model, weights.names) if task == "seq_cls" else ()
    text = config.get_text_config()
    experts, active = expert_parameters(model, text)
    heads = config_fields.attention_heads(text)
    reads_beyond = config_fields.batch_reads_beyond(text)
    limits = [limit for limit in (config_fields.max_positions(text), reads_beyond) if limit]
    linears = linears_of(model, head_modules, experts, task)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    method = config_fields.quantization_method(config)
    coded_bytes, plain_parameters = _held_in_codes(config, linears, parameters, weights)
    return ModelFacts(
        name_or_path=name_or_path,
        revision=revision,
        task=task,
        model_type=str(config.model_type),
        architecture=type(model).__name__,
        kind=kind,
        parameters=parameters,
        hidden_size=config_fields.hidden_size(text),
        layers=config_fields.layer_count(text, kind),
        heads=heads,
        kv_heads=config_fields.size(text, "num_key_value_heads") or heads,
        intermediate_size=config_fields.intermediate_size(text),
        vocab_size=config_fields.size(text, "vocab_size"),
        max_positions=min(limits, default=None),
        batch_reads_beyond=reads_beyond,
        tied_embeddings=bool(getattr(text, "tie_word_embeddings", False)),
        linears=linears,
        modules=paths_with_parameters(model),
        head_modules=head_modules,
        has_weights=weights.problem is None,
        weight_bytes=weights.bytes,
        dtype=weights.dtype or str(getattr(config, "dtype", None) or "float32").removeprefix("torch."),
        supports_sdpa=bool(getattr(model, "_supports_sdpa", False)),
        experts=experts,
        active_expert_parameters=active,
        prequantized=method,
        coded_bytes=coded_bytes if method else 0,
        plain_parameters=plain_parameters if method else 0,
        classes=_stored_classes(config, model, head_modules, weights) if trained == task else (),
        is_local=Path(name_or_path).expanduser().is_dir(),
        weights_problem=weights.problem,
        read_config=lambda: config,
    )


def _held_in_codes(
    config: PreTrainedConfig, linears: Sequence[LinearFact], parameters: int, weights: Weights
) -> tuple[int, int]:
    """Bytes in codes, and numbers outside of them: of the files, or where those are not there, as if
    each group of 64 numbers had a scale of two bytes."""
    if weights.coded_bytes:
        return weights.coded_bytes, weights.plain_numbers
    coded = sum(linear.parameters for linear in linears if linear.takes_codes)
    bits = config_fields.quantization_bits(config) + 16 / GROUP
    return round(coded * bits / 8), parameters - coded


def _stored_classes(
    config: PreTrainedConfig, model: nn.Module, head_modules: Sequence[str], weights: Weights
) -> tuple[str, ...]:
    """What the classifier in the weights tells apart; nothing where they lack its head. Weights that
    cannot be looked into are taken at the config's word."""
    prefix = str(getattr(model, "base_model_prefix", ""))
    stored = weights.names
    known = stored is None or (bool(head_modules) and is_stored(model, head_modules[-1], prefix, stored))
    return config_fields.class_names(config) if known else ()


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


def _check_task(name: str, model_type: str, kind: Kind, task: Task) -> None:
    needed = {"causal_lm": "decoder", "seq2seq_lm": "encoder_decoder"}
    if needed.get(task, kind) == kind:
        return
    examples = {
        "causal_lm": "a decoder (LLaMA, Qwen, GPT-2, ...)",
        "seq2seq_lm": "an encoder-decoder (T5, BART, ...)",
    }
    if kind == "decoder":
        got = f"a {model_type} decoder"
    else:
        got = f"a {model_type} model, which is an {kind.replace('_', '-')}"
    raise ModelError(
        f"{name} cannot do {task}",
        got=got,
        need=examples[task],
        next=f"task: {DEFAULT_TASK[kind]}, or another model",
    )
