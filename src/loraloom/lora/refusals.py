"""Models and modules that candidates cannot share, found before anything is trained.

A pack is only worth something if each candidate is what it would be alone. Where a model lets rows see each other,
or where a module would be named and never trained, the answer is an error with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from loraloom.errors import ModelError
from loraloom.lora.probe import Use

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)  # pyright: ignore[reportPrivateUsage]
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Config keys by which transformers' mixtures of experts say how many experts a layer has."""


def refuse_coupled(model: nn.Module) -> None:
    """Raises:
    ModelError: the rows of a batch see each other: by batch statistics, or by experts that they share.
    """
    for name, module in model.named_modules():
        if isinstance(module, BATCH_NORMS):
            raise ModelError(
                f"layer `{name}` ({type(module).__name__}) mixes the rows of a batch",
                need="a model whose rows do not see each other: a packed neighbour would change the result",
                next="train one at a time with PEFT",
            )
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if config is not None else None
    for key in EXPERT_COUNTS:
        experts = getattr(text, key, None)
        if isinstance(experts, int) and experts > 1:
            raise ModelError(
                f"{type(model).__name__} is a mixture of experts ({key}: {experts})",
                got="a router whose balancing loss is taken over the whole batch, and experts that see tokens out of order",
                need="a dense model: a packed neighbour would change the result",
                next="train one at a time with PEFT",
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
                f"`adapter.bias: all` reaches `{path}.bias`, of a module that does not see the rows of a batch",
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
