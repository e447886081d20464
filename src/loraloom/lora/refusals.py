"""Models and modules that candidates cannot share, found before anything is trained.

A pack is only worth something if each candidate is what it would be alone. Where a model lets rows see
each other, or where a module would be named and never trained, the answer is an error with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from loraloom.errors import ModelError
from loraloom.lora.probe import Use

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
