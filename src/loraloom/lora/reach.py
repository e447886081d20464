"""Layers whose adapters PEFT would not load: what is trained there could not be used,
so it is found before training.

transformers 5 holds the experts of a mixture as one tensor where older checkpoints had a layer for each,
and PEFT reads the names of those layers as that tensor. A shared expert has layers of the same names,
which no adapter's config can then mean. Where transformers calls a layer otherwise than the checkpoint
does, PEFT reads an adapter's weights by the checkpoint's names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn


def out_of_reach(model: nn.Module, paths: Iterable[str]) -> dict[str, str]:
    """Of these layers those that PEFT does not adapt under their own names, each with the reason.
    Weights are not looked at."""
    by_name: dict[str, list[str]] = {}
    for path in paths:
        by_name.setdefault(path.rpartition(".")[2], []).append(path)
    found: dict[str, str] = {}
    for name, alike in by_name.items():
        why = _reason(model, name, alike[0])
        if why:
            found.update(dict.fromkeys(alike, why))
    return found | _renamed(
        model, [path for alike in by_name.values() for path in alike if path not in found]
    )


def _renamed(model: nn.Module, paths: list[str]) -> dict[str, str]:
    """Layers whose weights PEFT, when it loads an adapter, looks for under another name
    than it gives the layer."""
    import torch
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import (
        convert_peft_adapter_state_dict_for_transformers,
    )

    keys = {path: f"base_model.model.{path}.lora_A.weight" for path in paths}
    weights = {key: torch.empty((1, 1), device="meta") for key in keys.values()}
    read = convert_peft_adapter_state_dict_for_transformers(
        model, LoraConfig(target_modules=paths), weights
    )
    return {
        path: "PEFT would not find their weights, which it reads under other names"
        for path, key in keys.items()
        if key not in read
    }


def _reason(model: Any, name: str, path: str) -> str | None:
    """PEFT is asked; it answers by an error, or by changing the config."""
    from peft import LoraConfig
    from peft.tuners import tuners_utils
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    asked = LoraConfig(target_modules=[path])
    try:
        tuners_utils._check_lora_target_modules_mamba(asked, model, name)  # pyright: ignore[reportPrivateUsage]
    except ValueError:
        return (
            f"PEFT does not adapt `{name}` of this family, whose blocks read its weight without"
            " calling it"
        )
    fused = f"PEFT takes `{name}` of this family for a part of its fused experts"
    try:
        convert_peft_config_for_transformers(asked, model, None)
    except ValueError:
        return fused
    return None if path in (asked.target_modules or ()) else fused
