"""Models and modules that candidates cannot share, and options that they cannot have,
found before anything is trained.

A pack is only worth something if each candidate is what it would be alone. Where a model lets rows see
each other, or where a module would be named and never trained, the answer is an error with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from loraloom.config import names
from loraloom.errors import ModelError
from loraloom.lora.init import LOFTQ, check_init, moves_base, nothing_was_quantised
from loraloom.lora.packed_layer import linear_shape
from loraloom.lora.probe import Use
from loraloom.lora.quantised import QuantisedLinear
from loraloom.records import AdapterSpec

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)  # pyright: ignore[reportPrivateUsage]


def refuse_coupled(model: nn.Module) -> None:
    """Raises:
    ModelError: the rows of a batch see each other by batch statistics.

    Mixtures of experts are no such case: each token is routed by itself, and the loss that balances the
    experts of a whole batch is one that only `labels=` adds.
    """
    for name, module in model.named_modules():
        if isinstance(module, BATCH_NORMS):
            raise ModelError(
                f"layer `{name}` ({type(module).__name__}) mixes the rows of a batch",
                need=(
                    "a model whose rows do not see each other: a packed neighbour would change the"
                    " result"
                ),
                next="train one at a time with PEFT",
            )


def refuse_impossible(
    spec: AdapterSpec, modules: Mapping[str, nn.Module], uses: Mapping[str, Use]
) -> None:
    """Refuse what an adapter cannot be in this model.

    Args:
        modules: of the model as it came, by path.
        uses: how it calls those that run.

    Raises:
        ModelError: an option that the packed layers do not have, or a module that
            cannot take it, by name.
    """
    check_init(spec.init_lora_weights)
    if spec.use_dora and moves_base(spec.init_lora_weights):
        raise ModelError(
            f"`adapter.use_dora` with `init_lora_weights: {spec.init_lora_weights}` is not packed",
            got="two methods that each redefine the frozen weight",
            next="take one of the two",
        )
    _refuse_of_few_bits(spec, modules)
    for path in (*spec.target_modules, *spec.modules_to_save):
        key = names.TARGET_MODULES if path in spec.target_modules else names.MODULES_TO_SAVE
        if path not in modules:
            raise ModelError(
                f"`{key}` names `{path}`, which the model does not have",
                next=f"name one of its own, or leave `{key}` out",
            )
        if path not in uses:
            raise ModelError(
                f"`{key}` names `{path}`, which the model never runs: it would not be trained",
                next=(
                    "name the module that does the work (an encoder-decoder embeds with"
                    " `encoder.embed_tokens`)"
                ),
            )
    for path in spec.modules_to_save:
        if not uses[path].simple:
            raise ModelError(
                f"`adapter.modules_to_save` names `{path}`, whose rows cannot be handed to one candidate"
                " each",
                need=(
                    "a module that takes one tensor and gives one: a head, an embedding, a norm, a"
                    " linear layer"
                ),
                next="name a module inside it, or leave it out",
            )
    for path in spec.target_modules:
        _refuse_target(path, modules[path], uses[path], spec.modules_to_save)


def _refuse_of_few_bits(spec: AdapterSpec, modules: Mapping[str, nn.Module]) -> None:
    """What layers in few bits cannot do, and what only they can."""
    coded = {path for path, layer in modules.items() if isinstance(layer, QuantisedLinear)}
    inside = tuple(f"{module}." for module in spec.modules_to_save)
    whole = next((path for path in sorted(coded) if f"{path}.".startswith(inside)), None)
    if whole is not None:
        raise ModelError(
            f"`adapter.modules_to_save` reaches `{whole}`, which is held in few bits",
            need="modules whose weights are there as numbers: heads, embeddings, norms",
            next="make it a LoRA target, or set model.quantization: none",
        )
    if spec.init_lora_weights != LOFTQ:
        return
    for path in spec.target_modules:
        if getattr(modules.get(path), "full_weight", None) is None:
            why = "whose full weight is not there" if path in coded else "which is not quantised"
            raise nothing_was_quantised(f"`{path}`, {why}")


def _refuse_target(path: str, layer: nn.Module, use: Use, whole: Sequence[str]) -> None:
    """`whole`: modules that are trained whole."""
    if use.features != linear_shape(layer):
        raise ModelError(
            f"`adapter.target_modules` names `{path}`, which is no plain product of its input and"
            " weight",
            got=f"a {type(layer).__name__} with a forward of its own",
            need="a layer that gives [..., features out] for [..., features in]",
            next="take it out of `adapter.target_modules`",
        )
    if any(path == module or path.startswith(f"{module}.") for module in whole):
        raise ModelError(
            f"`{path}` is in modules_to_save and a LoRA target at once", next="name it in one of the two"
        )


def shiftable_biases(modules: Mapping[str, nn.Module], uses: Mapping[str, Use]) -> tuple[str, ...]:
    """Paths of the modules whose bias PEFT's `bias: all` trains: every parameter called "bias".

    Raises:
        ModelError: a bias that is not simply added to its module's output.
    """
    found: list[str] = []
    for path, module in modules.items():
        if "bias" not in module._parameters or module._parameters["bias"] is None:  # pyright: ignore[reportPrivateUsage]
            continue
        if path not in uses or uses[path].rowless:
            raise ModelError(
                f"`adapter.bias: all` reaches `{path}.bias`, of a module that does not see the rows of a"
                " batch",
                next="adapter.bias: lora_only, or none",
            )
        if not isinstance(module, nn.Linear | nn.LayerNorm) and type(module).__name__ != "Conv1D":
            raise ModelError(
                f"`adapter.bias: all` reaches `{path}.bias`, of a {type(module).__name__}",
                need="biases that are added to a layer's output: linear layers and layer norms",
                next="adapter.bias: lora_only, or none",
            )
        found.append(path)
    return tuple(found)
