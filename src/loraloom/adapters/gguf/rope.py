"""Rotary embeddings: what config.json says of them, in llama.cpp's keys and tensors.

transformers kept them in `rope_theta` and `rope_scaling` until 4, keeps them in `rope_parameters` since,
by the kind of layer where the kinds differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from loraloom.adapters.gguf.writer import Unsigned, Value
from loraloom.errors import ModelError

Config = Mapping[str, Any]


def parameters(config: Config, layers: str = "full_attention") -> dict[str, Any]:
    """Type, theta and factors for one kind of layer."""
    found = config.get("rope_parameters")
    if isinstance(found, Mapping):
        own: Any = found.get(layers, found)
        return {"rope_type": "default", "rope_theta": 10_000.0, **own}
    local = config.get("rope_local_base_freq")
    if layers == "sliding_attention" and local is not None:
        return {"rope_type": "default", "rope_theta": local}
    scaling: Mapping[str, Any] = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    return {
        "rope_theta": config.get("rope_theta") or 10_000.0,
        "partial_rotary_factor": config.get("partial_rotary_factor"),
        "original_max_position_embeddings": config.get("original_max_position_embeddings"),
        **scaling,
        "rope_type": "longrope" if kind == "su" else kind,
    }


def metadata(config: Config, turned: Mapping[str, Any]) -> dict[str, Value]:
    """Keys beside theta. The factors of llama3 and longrope are tensors.

    Raises:
        ModelError: a setting that llama.cpp computes otherwise.
    """
    kind, known = turned["rope_type"], turned.get("original_max_position_embeddings")
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(turned["factor"])}
    if kind == "yarn":
        fast, slow = turned.get("beta_fast") or 32, turned.get("beta_slow") or 1
        if turned.get("mscale") or turned.get("attention_factor") or (fast, slow) != (32, 1):
            raise ModelError(
                "this YaRN has settings of its own, and llama.cpp computes it with its defaults",
                got=f"rope_parameters: {dict(turned)}",
                need="no attention_factor or mscale, beta_fast 32, beta_slow 1",
                next="keep the merged safetensors: loraloom adapter merge",
            )
        return {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": float(turned["factor"]),
            "rope.scaling.original_context_length": Unsigned(int(known or _longest(config))),
        }
    if kind == "longrope":
        return {
            "rope.scaling.original_context_length": Unsigned(int(known or _longest(config))),
            "rope.scaling.attn_factor": _longrope_scale(config, turned),
        }
    return {}


def tensors(config: Config, turned: Mapping[str, Any], head: int) -> dict[str, Tensor]:
    """Factors by which the angles of each pair of numbers are divided; `head` counts its numbers."""
    if turned["rope_type"] == "llama3":
        return {"rope_freqs.weight": _llama_3(config, turned, head)}
    if turned["rope_type"] == "longrope":
        return {
            "rope_factors_long.weight": torch.tensor(turned["long_factor"], dtype=torch.float32),
            "rope_factors_short.weight": torch.tensor(turned["short_factor"], dtype=torch.float32),
        }
    return {}


def _longest(config: Config) -> int:
    return int(config.get("max_position_embeddings") or 2048)


def _longrope_scale(config: Config, turned: Mapping[str, Any]) -> float:
    """By which cosine and sine are multiplied (arXiv:2402.13753)."""
    given = turned.get("attention_factor")
    if given is not None:
        return float(given)
    known = int(turned.get("original_max_position_embeddings") or _longest(config))
    factor = float(turned.get("factor") or _longest(config) / known)
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(known))


def _llama_3(config: Config, turned: Mapping[str, Any], head: int) -> Tensor:
    """Long waves are stretched by `factor`, short ones kept, those between pass from one to the other.

    As Meta published it with Llama 3.1 (github.com/meta-llama/llama-models, models/llama3/model.py).
    """
    known = float(turned.get("original_max_position_embeddings") or _longest(config))
    low, high = float(turned["low_freq_factor"]), float(turned["high_freq_factor"])
    factor = float(turned["factor"])
    steps = torch.arange(0, head, 2, dtype=torch.float64) / head
    waves = known / (2 * math.pi * float(turned["rope_theta"]) ** steps)  # in the trained context
    kept = ((waves - low) / (high - low)).clamp(0, 1)
    return (1 / (kept + (1 - kept) / factor)).to(torch.float32)
