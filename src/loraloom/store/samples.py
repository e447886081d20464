"""What base and winner wrote for a few rows: samples.json of the run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

from loraloom.store.folder import RunFolder, write_atomically
from loraloom.store.to_json import to_json

FILE_NAME = "samples.json"


@dataclass(frozen=True)
class Sample:
    """One prompt, what the data has after it, and what the bare base and the best adapter wrote."""

    prompt: str
    wanted: str
    base: str
    best: str


def write_samples(folder: RunFolder, samples: Sequence[Sample]) -> None:
    """Keep `samples`. Raises StoreError where the disk refuses."""
    write_atomically(folder.path / FILE_NAME, to_json({"samples": samples}, indent=2) + b"\n")


def read_samples(folder: RunFolder) -> list[Sample]:
    """What was kept; empty where nothing was, or where the file cannot be read."""
    try:
        data: Any = json.loads((folder.path / FILE_NAME).read_bytes())
        names = [item.name for item in fields(Sample)]
        return [
            Sample(*(str(entry[name]) for name in names))
            for entry in cast("list[dict[str, Any]]", data["samples"])
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
