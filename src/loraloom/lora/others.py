"""What people give for an adapter of PEFT and is none: what it is, told by its files,
and the way from there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

CONFIG = "adapter_config.json"
PROMPTS = (
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "ADAPTION_PROMPT",
    "CPT",
    "CARTRIDGE",
)
"""Methods of PEFT that cannot be merged into a model's weights: they hold tokens or
states of their own."""
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_MERGED = "then give the merged model as --model"


def other_kind(config: Mapping[str, Any], folder: Path) -> tuple[str, str] | None:
    """(what it is, what to do) of an adapter_config.json that is of no LoRA adapter of
    PEFT; None for one that may be."""
    kind = config.get("peft_type")
    if kind == "LORA":
        return None
    if isinstance(kind, str) and kind:
        if kind in PROMPTS:
            return (
                f"one of {kind}, which no weights can take up",
                "use it with PEFT itself, or train a LoRA adapter instead",
            )
        return (
            f"one of {kind}, another method of PEFT",
            f"PeftModel.from_pretrained(...).merge_and_unload() with PEFT, {_MERGED}",
        )
    if kind is None and ("lora_parameters" in config or "fine_tune_type" in config):
        return _mlx(config, folder)
    if (
        kind is None
        and isinstance(config.get("config"), dict)
        and ("hidden_size" in config or "model_type" in config)
    ):
        return (
            "one of AdapterHub's adapters library",
            f"merge it there (model.merge_adapter(NAME), then model.save_pretrained(FOLDER)), {_MERGED}",
        )
    return None


def _mlx(config: Mapping[str, Any], folder: Path) -> tuple[str, str]:
    """MLX keeps lora_a and lora_b the other way round, under other names, and a scale
    in place of lora_alpha / r."""
    asked = config.get("lora_parameters")
    lora = cast(dict[str, Any], asked) if isinstance(asked, dict) else {}
    told = [
        f"{name} {lora[name]}" for name in ("rank", "scale") if isinstance(lora.get(name), int | float)
    ]
    kind = config.get("fine_tune_type") or "lora"
    model = config.get("model")
    base = shlex.quote(model) if isinstance(model, str) and model else "BASE"
    fuse = (
        f"mlx_lm.fuse --model {base} --adapter-path {shlex.quote(str(folder))} --save-path FUSED, then"
        " --model FUSED"
    )
    by_hand = (
        "; or by hand: lora_A.weight is lora_a transposed, lora_B.weight lora_b transposed, lora_alpha"
        " scale x rank"
    )
    what = f"one of MLX (fine_tune_type {kind}{''.join(f', {part}' for part in told)})"
    return what, fuse + (by_hand if kind == "lora" else "")


def way_from_place(place: Path) -> str | None:
    """What to do with a file or folder that holds no adapter_config.json; None where
    nothing of it is known, or to be read."""
    try:
        return _way_from_place(place)
    except (OSError, ValueError):  # a name that no disk takes, a device, a folder that is closed
        return None


def _way_from_place(place: Path) -> str | None:
    if not place.exists():
        name = str(place)
        return (
            f"hf download {name} --local-dir FOLDER, then give the folder"
            if _HUB_NAME.fullmatch(name)
            else None
        )
    if place.is_file():
        return _way_from_file(place)
    within = sorted(
        (path.parent for path in place.glob(f"*/{CONFIG}")), key=lambda path: path.stat().st_mtime
    )
    if within:
        return f"--adapter {shlex.quote(str(within[-1]))}, the latest of {len(within)} in it"
    if not place.is_dir():
        return None
    names = {path.name for path in place.iterdir()}
    weights = next((name for name in sorted(names) if name.endswith((".safetensors", ".bin"))), None)
    if "config.json" in names and weights is not None and not weights.startswith("adapter"):
        return f"it is a whole model: --model {shlex.quote(str(place))}"
    odd = next(
        (way for name in sorted(names) if (way := _way_from_file(place / name, within=True))), None
    )
    if odd is None and weights is not None:
        return f"put the {CONFIG} that belongs to {weights} beside it"
    return odd


def _way_from_file(path: Path, *, within: bool = False) -> str | None:
    """The same for one file, by its name; a file `within` the folder that was given is
    looked at for its kind alone."""
    name = path.name
    if name.endswith(".gguf"):
        return f"{name} is for llama.cpp (--lora); give the PEFT folder that it was converted from"
    if name == "adapter_0.pt" or name.startswith("lit_model"):
        return (
            f"{name} is a checkpoint of {'torchtune' if name == 'adapter_0.pt' else 'LitGPT'}: convert"
            " it with that tool first"
        )
    if name.endswith((".ckpt", ".pt", ".pth")):
        return (
            f"{name} is a pickle: load it with the code that wrote it, and save the adapter with"
            " model.save_pretrained(FOLDER)"
        )
    if not within and name.endswith((".safetensors", ".bin", ".json")):
        return f"give its folder: --adapter {shlex.quote(str(path.parent))}"
    return None
