"""What lies beside an adapter for whoever loads it and finds nothing of it in PEFT's
files: how its rows were made.

`loraloom.json` has `max_length`, `base` where that was held in few bits, and `id2label` and `label2id`
as transformers takes them, so that `from_pretrained(BASE, id2label=...)` gives the head its classes
back. PEFT and transformers pass over a file of this name; a config.json would make transformers take the
folder for a model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

NAME = "loraloom.json"
_LARGEST = 2**24


@dataclass(frozen=True)
class Record:
    """How an adapter's rows were made."""

    label_names: tuple[str, ...] = ()
    """Its classes in the order of the head; empty where it has none."""
    max_length: int | None = None
    """Tokens after which rows were cut."""
    quantization: str = "none"
    """How the base was held that it was trained over: "nf4", "int8" or "none", as its files have it."""
    dtype: str | None = None
    """Of a quantised base, in which its weights are spread and its other layers held."""
    kept_layers: tuple[str, ...] = ()
    """Of a quantised base, its linear layers that are not."""


def write_record(folder: Path, record: Record) -> None:
    """Put it beside the adapter in `folder`."""
    content: dict[str, Any] = {} if record.max_length is None else {"max_length": record.max_length}
    if record.label_names:
        content["id2label"] = dict(enumerate(record.label_names))
        content["label2id"] = {name: number for number, name in enumerate(record.label_names)}
    if record.quantization != "none":
        kept = list(record.kept_layers)
        content["base"] = {
            "quantization": record.quantization,
            "dtype": record.dtype,
            "kept_layers": kept,
        }
    (folder / NAME).write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def read_record(folder: Path) -> Record:
    """What lies beside an adapter: the file may come from anyone, and what of it makes
    no sense counts as not there."""
    path = folder / NAME
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return Record()
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError):
        return Record()
    if not isinstance(content, dict):
        return Record()
    found = cast(dict[str, Any], content)
    length = found.get("max_length")
    is_length = isinstance(length, int) and not isinstance(length, bool) and length > 1
    return Record(
        _names(found.get("id2label")), length if is_length else None, **_base(found.get("base"))
    )


def _names(found: Any) -> tuple[str, ...]:
    if not isinstance(found, dict):
        return ()
    names = cast(dict[str, Any], found)
    in_order = [names.get(str(number)) for number in range(len(names))]
    return tuple(in_order) if all(isinstance(name, str) for name in in_order) else ()  # pyright: ignore[reportReturnType]


def _base(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        return {}
    base = cast(dict[str, Any], found)
    quantization, dtype, kept = base.get("quantization"), base.get("dtype"), base.get("kept_layers")
    if quantization not in ("nf4", "int8"):
        return {}
    names = cast(list[Any], kept) if isinstance(kept, list) else []
    return {
        "quantization": quantization,
        "dtype": dtype if isinstance(dtype, str) else None,
        "kept_layers": tuple(name for name in names if isinstance(name, str)),
    }
