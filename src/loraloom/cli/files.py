"""Which file without a flag is the config, and which holds rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from loraloom.config.keys import keys, sections
from loraloom.errors import RequestError

ROWS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".xlsx")
"""Endings of files of rows; one for compression may follow. The readers say which of them they take."""
CONFIGS = (".yaml", ".yml", ".json")
_FIRST_KEY = re.compile(r'\s*\{\s*"(\w+)')
_ENOUGH = 1000
"""Characters of a JSON file in which its first key stands."""


def told_apart(files: Sequence[Path]) -> tuple[Path | None, Path | None]:
    """The config and the file of rows among the arguments without a flag.

    Raises:
        RequestError: there are two of a kind, or there is no such file.
    """
    for file in files:
        _refuse_neither(file)
    rows = [file for file in files if _holds_rows(file)]
    configs = [file for file in files if file not in rows]
    for kind, found in (("config", configs), ("file of rows", rows)):
        if len(found) > 1:
            raise RequestError(f"more than one {kind} was given: {', '.join(map(str, found))}", next="leave all but one out")
    return configs[0] if configs else None, rows[0] if rows else None


def _refuse_neither(file: Path) -> None:
    if not file.exists() and file.suffix.lower() not in (*CONFIGS, *ROWS):
        raise RequestError(
            f"`{file}` is neither a config nor a file of rows: there is no such file",
            next="check the path; several names for one option are written q_proj,v_proj, and a hub data set goes with --data",
        )
    if any((file / name).is_file() for name in ("run.json", "adapter_config.json")):
        raise RequestError(
            f"`{file}` is a run or an adapter, neither a config nor rows",
            next=f"--adapter {file} takes the adapter, --resume {file} goes on with the run",
        )


def _holds_rows(file: Path) -> bool:
    """By the name, a folder always; a .json is a config when it begins with one of its keys."""
    if file.is_dir():
        return True
    if any(suffix.lower() in ROWS for suffix in file.suffixes[-2:]):
        return True
    if file.suffix.lower() != ".json" or not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as text:
        first = _FIRST_KEY.match(text.read(_ENOUGH))
    return first is None or first[1] not in {*sections(), *keys()}
