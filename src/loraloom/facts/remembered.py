"""Numbers that are measured once on a machine and kept in the user's cache folder:
nothing is lost with them."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any, cast


def recalled(name: str, key: str) -> float | None:
    """The positive number that stands under `key` in the cache file `name`. A file that
    cannot be read counts as empty."""
    return _read(_path(name)).get(key)


def keep(name: str, key: str, number: float) -> None:
    """Write it there. A file that cannot be written is left as it is."""
    _write(_path(name), _read(_path(name)) | {key: number})


def cache_folder() -> Path:
    """`loraloom` in XDG_CACHE_HOME, or in ~/.cache where that is not set, or not an absolute path."""
    asked = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (asked if asked.is_absolute() else Path.home() / ".cache") / "loraloom"


def _path(name: str) -> Path:
    return cache_folder() / f"{name}.json"


def _read(path: Path) -> dict[str, float]:
    """What of the file is a positive, finite number under a name."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    numbers = cast("dict[str, Any]", found).items()
    return {key: value for key, value in numbers if isinstance(value, float) and 0 < value < math.inf}


def _write(path: Path, numbers: dict[str, float]) -> None:
    """In one step, so that a process beside this one reads the old file or the new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(numbers, file, indent=1)
        Path(part).replace(path)
    except OSError:
        return
