"""How varied a run's rows are: diversity.json of the run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from loraloom.store.folder import RunFolder, write_atomically
from loraloom.store.to_json import to_json

FILE_NAME = "diversity.json"
PARTS = ("name", "found", "means", "do", "examples")


def write_diversity(folder: RunFolder, lines: Sequence[Any], figures: Any) -> None:
    """Keep what was said of the rows, and every figure. Raises StoreError where the disk refuses."""
    document = {"lines": lines, "figures": figures}
    write_atomically(folder.path / FILE_NAME, to_json(document, indent=2) + b"\n")


def read_diversity(folder: RunFolder) -> list[dict[str, str]]:
    """The lines that were kept; empty where nothing was, or where the file cannot be read."""
    try:
        data: Any = json.loads((folder.path / FILE_NAME).read_bytes())
        lines = cast("list[dict[str, Any]]", data["lines"])
        return [{part: str(line[part]) for part in PARTS} for line in lines]
    except (OSError, ValueError, KeyError, TypeError):
        return []
