"""Adapter folders as they come from others: found, read and checked before PEFT may load them.

PEFT trusts an adapter_config.json. It imports the library that the file names, sets up whatever rank it
asks for, matches its patterns for as long as they take, and passes over weights that fit nowhere. So the
file may hold here only what an adapter needs, and weights come from safetensors alone: the other format,
adapter_model.bin, is a pickle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open

from loraloom.config.asked import Config
from loraloom.errors import ModelError
from loraloom.lora.others import other_kind, way_from_place
from loraloom.lora.patterns import fault_of, is_plain

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
RUNS = Config().output_dir
"""Where runs lie that are called by their name alone."""
_LARGEST_CONFIG = 2**24

Test = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 1e18
        and math.isfinite(value)
    )


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int) and value >= 1


def _is_scale(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_name, cast(list[Any], value)))


def _is_layers(value: Any) -> bool:
    layers = cast(list[Any], value) if isinstance(value, list) else [value]
    return all(isinstance(layer, int) and 0 <= layer < 2**31 for layer in layers)


def _mapping_of(test: Test) -> Test:
    return lambda value: isinstance(value, dict) and all(map(test, cast(dict[str, Any], value).values()))


_FIELDS: Mapping[str, tuple[Test, str]] = {
    "peft_type": (lambda value: value == "LORA", "LORA"),
    "task_type": (_is_name, "the name of a task, or null"),
    "base_model_name_or_path": (_is_name, "a name or a folder"),
    "r": (_is_count, "a whole number of at least 1"),
    "lora_alpha": (_is_scale, "a number above 0"),
    "lora_dropout": (lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 up to 1"),
    "rank_pattern": (_mapping_of(_is_count), "a mapping of names to whole numbers of at least 1"),
    "alpha_pattern": (_mapping_of(_is_scale), "a mapping of names to numbers above 0"),
    "target_modules": (
        lambda value: _is_name(value) or _is_names(value),
        "names of modules, or one pattern",
    ),
    "exclude_modules": (
        lambda value: _is_name(value) or _is_names(value),
        "names of modules, or one pattern",
    ),
    "modules_to_save": (_is_names, "names of modules"),
    "layers_to_transform": (_is_layers, "numbers of layers"),
    "layers_pattern": (
        lambda value: all(
            _is_name(part) and is_plain(part) for part in (value if isinstance(value, list) else [value])
        ),  # pyright: ignore[reportUnknownVariableType]
        "names of lists of layers",
    ),
    "trainable_token_indices": (
        lambda value: _is_layers(value) or _mapping_of(_is_layers)(value),
        "numbers of tokens, or a mapping of names of embeddings to them",
    ),
    "ensure_weight_tying": (lambda value: isinstance(value, bool), "true or false"),
    "init_lora_weights": (
        lambda value: isinstance(value, bool) or _is_name(value),
        "true, false or the name of a method",
    ),
    "bias": (lambda value: value in ("none", "all", "lora_only"), "none, all or lora_only"),
    "use_rslora": (lambda value: isinstance(value, bool), "true or false"),
    "use_dora": (lambda value: isinstance(value, bool), "true or false"),
    "fan_in_fan_out": (lambda value: isinstance(value, bool), "true or false"),
}
"""What a LoRA adapter may say of itself; null is left to PEFT's default everywhere but in its type."""
_IGNORED = (
    "auto_mapping",
    "inference_mode",
    "peft_version",
    "revision",
    "megatron_core",
    "qalora_group_size",
)
"""Read by nobody here, or without a meaning unless a field that is refused is set."""


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def has_tokenizer(folder: Path) -> bool:
    """Whether an adapter was saved with a tokenizer; where not, its base's reads the rows."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def tokenizer_home(folder: Path | None, base: str) -> str:
    """Whose tokenizer an adapter's rows are read with: the folder's own, else that of its base."""
    return str(folder) if folder is not None and has_tokenizer(folder) else base


def adapter_folder(place: str) -> Path:
    """The folder with adapter_config.json that `place` means: itself, or best/ of a run, whose name
    under runs/ is enough.

    Raises:
        ModelError: there is none.
    """
    path = Path(place)
    try:
        for candidate in (path, path / "best", path / "adapter", Path(RUNS, place, "best")):
            if (candidate / CONFIG).is_file():
                return candidate
        got = (
            ("a file" if path.is_file() else "no such folder")
            if not path.is_dir()
            else f"files: {', '.join(sorted(p.name for p in path.iterdir())[:8]) or 'none'}"
        )
    except (OSError, ValueError) as error:
        got = getattr(error, "strerror", None) or str(error)
    need = "a folder with adapter_config.json, or a run"
    raise ModelError(
        f"`{place}` is no adapter of PEFT",
        got=got,
        need=need,
        next=way_from_place(path) or "loraloom runs",
    )


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a folder, every value of it one that a LoRA adapter may have.

    Raises:
        ModelError: it cannot be read, or says what we do not load.
    """
    path = folder / CONFIG
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"more than {_LARGEST_CONFIG // 2**20} MiB")
        found = json.loads(path.read_bytes())
    except (OSError, RecursionError, ValueError) as error:
        raise ModelError(
            "this is not the config of an adapter",
            where=str(path),
            got=str(error),
            next="restore the file",
        ) from error
    if not isinstance(found, dict):
        raise ModelError(
            "this is not the config of an adapter",
            where=str(path),
            need="a JSON object",
            next="restore the file",
        )
    config = cast(dict[str, Any], found)
    other = other_kind(config, folder)
    if other is not None:
        kind, way = other
        raise ModelError(
            f"this adapter is {kind}", where=str(path), need="a LoRA adapter in PEFT's format", next=way
        )
    for name, (is_right, need) in _FIELDS.items():
        value = config.get(name)
        if (value is not None or name == "peft_type") and not is_right(value):
            raise ModelError(
                f"`{name}` has a wrong value",
                where=str(path),
                got=json.dumps(value)[:200],
                need=need,
                next="restore the file",
            )
    for name, value in config.items():
        if name not in _FIELDS and name not in _IGNORED and value:
            raise ModelError(
                f"the adapter uses `{name}`, which is not loaded here",
                where=str(path),
                got=json.dumps(value)[:200],
                need=f"a LoRA adapter of {', '.join(list(_FIELDS)[3:])}",
                next="load it with PEFT itself, if you trust it, and save it merged",
            )
    return config


def check_adapter(folder: Path, modules: Iterable[str]) -> None:
    """See that PEFT can load the adapter in `folder` onto a model of these modules in
    bounded time and memory.

    Raises:
        ModelError: its config or its weights cannot be read, or do not fit each other.
    """
    config = read_adapter_config(folder)
    shapes = adapter_shapes(folder)
    ranks = [shape[0] for key, shape in shapes.items() if ".lora_A." in key and shape]
    ranks += [shape[0] for key, shape in shapes.items() if ".lora_embedding_A" in key and shape]
    if not ranks:
        raise ModelError(
            "there are no LoRA weights in it",
            where=str(folder / WEIGHTS),
            got=", ".join(list(shapes)[:3]) or "no tensors",
            need="tensors called base_model.model. ... .lora_A.weight",
            next="save the adapter again with PEFT",
        )
    asked = max([config.get("r") or 8, *(config.get("rank_pattern") or {}).values()])
    if asked > max(ranks):
        raise ModelError(
            f"the config asks for rank {asked:,}, the weights have at most {max(ranks):,}",
            where=str(folder / CONFIG),
            next="put back the config that belongs to these weights",
        )
    named = [config.get("target_modules"), config.get("exclude_modules")]
    patterns = [name for name in named if isinstance(name, str) and name != "all-linear"]
    patterns += [*(config.get("rank_pattern") or {}), *(config.get("alpha_pattern") or {})]
    fault = fault_of(patterns, list(modules))
    if fault is not None:
        raise ModelError(
            "a pattern of the adapter cannot be matched with the names of modules",
            where=str(folder / CONFIG),
            got=f"{fault}: {', '.join(pattern for pattern in patterns if not is_plain(pattern))}",
            next="name the modules themselves in target_modules, rank_pattern and alpha_pattern",
        )


def trained_tokens(config: Mapping[str, Any]) -> list[int]:
    """Numbers of the tokens whose embeddings an adapter trains one by one
    (`trainable_token_indices`)."""
    found = config.get("trainable_token_indices") or []
    lists: list[Any] = list(cast(dict[str, Any], found).values()) if isinstance(found, dict) else [found]
    return [token for one in lists for token in (one if isinstance(one, list) else [one])]  # pyright: ignore[reportUnknownVariableType]


def adapter_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in adapter_model.safetensors, by its name, from the header alone.

    Raises:
        ModelError: it is not there, or is no safetensors file.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        beside = (folder / "adapter_model.bin").is_file()
        raise ModelError(
            f"adapter `{folder}` has no weights",
            got="adapter_model.bin, a pickle: loading one may run anything" if beside else None,
            need=f"{WEIGHTS} beside {CONFIG}",
            next=(
                "load it with PEFT where you trust it, and save it again"
                if beside
                else "copy the file, or give another folder"
            ),
        )
    try:
        with safe_open(path, "np") as file:
            # no mapping
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(
            "this is no safetensors file, or a part of one",
            where=str(path),
            got=str(error),
            next="copy the file again",
        ) from error
