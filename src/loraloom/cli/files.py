"""Which file without a flag is the config, and which holds rows."""

from __future__ import annotations

import itertools
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


def told_apart(files: Sequence[Path]) -> tuple[Path | None, list[Path]]:
    """The config and the files of rows among the arguments without a flag.

    Raises:
        RequestError: there are two configs, or there is no such file.
    """
    for file in files:
        _refuse_neither(file)
    rows = [file for file in files if _holds_rows(file)]
    configs = [file for file in files if file not in rows]
    if len(configs) > 1:
        raise RequestError(
            f"more than one config was given: {', '.join(map(str, configs))}",
            next="leave all but one out",
        )
    return configs[0] if configs else None, rows


def pattern_of(names: Sequence[str]) -> str:
    """The pattern that a shell may have made these names of: what they begin and end with alike."""
    start = _same_start(names)
    end = _same_start([name[len(start) :][::-1] for name in names])[::-1]
    return f"{start}*{end}"


def _same_start(words: Sequence[str]) -> str:
    """The letters that all words begin with."""
    columns = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*words, strict=False))
    return "".join(letters[0] for letters in columns)


def _refuse_neither(file: Path) -> None:
    if not file.exists() and file.suffix.lower() not in (*CONFIGS, *ROWS):
        raise RequestError(
            f"`{file}` is neither a config nor a file of rows: there is no such file",
            next=(
                "check the path; several names for one option are written q_proj,v_proj, and a hub data"
                " set goes with --data"
            ),
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
