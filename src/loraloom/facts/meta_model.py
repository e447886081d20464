"""A model built on torch's meta device, where tensors have shapes but no numbers, and what its modules
are.

A config of 70 billion parameters takes no memory there, and nothing is guessed from the names of
families.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from loraloom.errors import ModelError
from loraloom.facts import config_fields
from loraloom.facts.linear import LinearFact, frozen_because, is_expert, role_of
from loraloom.facts.source import cause_line
from loraloom.facts.unused import unused_linears
from loraloom.lora.targets import NO_TARGETS
from loraloom.records import Task

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

AUTO_CLASSES: dict[Task, str] = {
    "causal_lm": "AutoModelForCausalLM",
    "seq_cls": "AutoModelForSequenceClassification",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
}
HEAD_NAMES = frozenset({"classifier", "score", "classification_head", "pre_classifier", "qa_outputs"})


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


def expert_parameters(model: nn.Module, text: PreTrainedConfig) -> tuple[int, int]:
    """How many experts a layer has, and the numbers in those of all layers that one token goes through.

    Args:
        text: the part of the config that is about text.
    """
    count = config_fields.experts(text)
    numbers = sum(
        p.numel()
        for name, p in model.named_parameters()
        # All experts of a layer in one tensor, or each in modules of its own.
        if (p.ndim == 3 and p.shape[0] == count) or (p.ndim == 2 and is_expert(name))
    )
    if count < 2 or not numbers:
        return 0, 0
    chosen = config_fields.experts_per_token(text)
    return count, numbers * min(chosen, count) // count


def linears_of(
    model: nn.Module, heads: Sequence[str], experts: int, task: Task
) -> tuple[LinearFact, ...]:
    """Every linear layer with its part in the model, and why no adapter can be there.

    Args:
        heads: paths of the heads of a classifier.
        experts: of a layer of a mixture, 0 for a dense model.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    output = cast("Any", model).get_output_embeddings()
    coded = _that_take_codes(model)
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
        role = "frozen" if why else role_of(path)
        facts.append(LinearFact(path, d_in, d_out, "head" if is_head else role, why, module in coded))
    candidates = [one for one in facts if one.role not in NO_TARGETS]
    shapes = {one.path: (one.in_features, one.out_features) for one in candidates}
    positions = config_fields.max_positions(cast("Any", model).config.get_text_config())
    left_out = {**unused_linears(model, shapes, task, positions), **_astray(model, list(shapes))}
    return tuple(
        replace(one, role="frozen", why=left_out[one.path]) if one.path in left_out else one
        for one in facts
    )


def _that_take_codes(model: nn.Module) -> set[nn.Module]:
    """Modules whose weights quantising the base holds in few bits: inside the blocks, without those that
    their family keeps in float32 (of T5, the second layer of an MLP)."""
    from loraloom.lora.checkpointing import repeated_blocks

    kept = set(getattr(model, "_keep_in_fp32_modules", None) or ())
    return {
        module
        for block in repeated_blocks(model)
        for path, module in block.named_modules()
        if not kept & set(path.split("."))
    }


def _astray(model: nn.Module, paths: Sequence[str]) -> dict[str, str]:
    """Layers whose adapters PEFT would not load. It is asked only where that can be: where transformers
    names weights otherwise than checkpoints do, as of mixtures, and by Mamba's blocks."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    renamed = get_checkpoint_conversion_mapping(str(cast("Any", model).config.model_type)) is not None
    if not renamed and not any(path.endswith((".out_proj", ".conv1d")) for path in paths):
        return {}
    from loraloom.lora.reach import out_of_reach

    return out_of_reach(model, paths)


def head_modules_of(model: nn.Module, stored: frozenset[str] | None) -> tuple[str, ...]:
    """Heads of a classifier that must be trained whole.

    The part that gives the classes always is; so is a layer beside the base (DistilBERT's
    pre_classifier) or a pooler, when the weights hold nothing for it and it would start from noise.
    `stored` None: not known, and then only what is known to be new by its name counts.
    """
    prefix = str(getattr(model, "base_model_prefix", ""))
    parts = [name for name, child in model.named_children() if has_parameters(child)]
    beside = [name for name in parts if name != prefix]
    heads = [name for name in beside if name in HEAD_NAMES or name == beside[-1]]
    if stored is not None:
        own = paths_with_parameters(model)
        may_be_new = [*beside, *(path for path in own if path.endswith("pooler"))]
        heads += [path for path in may_be_new if not is_stored(model, path, prefix, stored)]
    chosen = set(heads)
    return tuple(path for path, _ in model.named_modules() if path in chosen)


def is_stored(model: nn.Module, path: str, prefix: str, stored: frozenset[str]) -> bool:
    """Whether the weights hold any parameter of a module, saved with or without the base model's
    prefix."""
    names = (f"{path}.{name}" for name, _ in model.get_submodule(path).named_parameters())
    return any({name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"} & stored for name in names)


def has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def paths_with_parameters(model: nn.Module) -> tuple[str, ...]:
    """Paths of all modules that own parameters, themselves or inside them."""
    return tuple(path for path, module in model.named_modules() if path and has_parameters(module))
