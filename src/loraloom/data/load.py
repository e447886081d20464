"""From what the user names (a file, a folder, a hub data set, a pattern, several of
these) to a table of rows."""

from __future__ import annotations

import difflib
import glob
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loraloom.data.contents import PACKED
from loraloom.data.folder import read_folder
from loraloom.data.readers import SUFFIXES, read_file
from loraloom.data.split_names import SPLIT_NAMES
from loraloom.data.table import Table, join, shortened
from loraloom.errors import DataError, LoraloomError

Source = str | Sequence[str]
"""What `load_table` reads: one name, or several that are read one after the other."""

_PATTERN = re.compile(r"[*?\[]")
_HUB_PART = r":([^:/\[\]]+(?:\[[^\]]*\])?)"
_HUB_NAME = re.compile(rf"\w[\w.-]*(/\w[\w.-]*)?(?:{_HUB_PART}){{0,2}}")


def load_table(
    source: Source, *, split: str = "train", max_rows: int | None = None, seed: int = 42
) -> Table:
    """Read every row of `source`.

    Args:
        source: a file (JSONL, JSON, CSV, TSV, Parquet, Arrow, or text with one row a paragraph; texts
            may be packed), a folder of such files or "folder:config", a pattern ("part-*.jsonl"), a hub
            data set "name[:config][:split]", or several of these.
        split: which part is meant when the source names several: a folder with files called after splits
            ("train.jsonl", "test-00000.parquet"), or a hub data set without a split in its name.
        max_rows: keep a sample of this many rows, in their order.
        seed: of that sample.

    Raises:
        DataError: nothing is there, or what is there cannot be read; the message names file and line.
    """
    if max_rows is not None and max_rows < 1:
        raise DataError(
            f"`data.max_rows` is {max_rows} but must be at least 1", next="leave it out to use all rows"
        )
    tables, notes = load_tables(source, split=split)
    return sample(as_one(source, tables, notes), max_rows, seed)


def load_tables(source: Source, *, split: str = "train") -> tuple[list[Table], list[str]]:
    """A table of each thing that `source` names, and notes on the names. Errors as in `load_table`."""
    names, notes = named(source)
    return [_load(name, split) for name in names], notes


def as_one(source: Source, tables: Sequence[Table], notes: Sequence[str] = ()) -> Table:
    """The rows of all tables, with what a person should know of how they go together."""
    told = (*notes, *_differences(tables))
    if len(tables) == 1 and not told:
        return tables[0]
    return join(shown(source), [Table("", notes=told), *tables])


def sample(table: Table, max_rows: int | None, seed: int) -> Table:
    """At most `max_rows` rows of a table, in their order."""
    if max_rows is None or max_rows >= len(table):
        return table
    return table.take(sorted(random.Random(seed).sample(range(len(table)), max_rows)))


def named(source: Source) -> tuple[list[str], list[str]]:
    """What `source` names, each once and patterns as the files they stand for; and notes on it."""
    return _once_each([part for name in _several(source) for part in _matches(name)])


def shown(source: Source | None) -> str:
    """A source as messages name it."""
    return "none" if source is None else shortened(_several(source))


def _several(source: Source) -> Sequence[str]:
    names = [source] if isinstance(source, str) else source
    if not names:
        raise DataError(
            "the list of data is empty", need="a file, a folder or a hub name", next="--data train.jsonl"
        )
    return names


def _matches(name: str) -> list[str]:
    """What a pattern stands for, by name; anything else is itself. A file that is
    called like a pattern is a file."""
    path = _path(name)
    if not _PATTERN.search(name) or _exists(path) or _looks_like_hub(name):
        return [name]
    # as a shell does it: hidden files are not meant
    found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
    if not found:
        raise DataError(f"no file matches {name}", need="at least one file", next=_closest(path))
    return found


def _once_each(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Each source once, and a note on those that were named again."""
    first: dict[str, str] = {}
    again: list[str] = []
    for name in names:
        path = _path(name)
        known = first.setdefault(str(path.resolve()) if _exists(path) else name, name)
        if known is not name:
            again.append(name)
    notes = (
        [f"{shortened(dict.fromkeys(again))} is named more than once, and read once"] if again else []
    )
    return list(first.values()), notes


def _differences(tables: Sequence[Table]) -> list[str]:
    """A note where sources do not have the same columns."""
    if len(tables) < 2:
        return []
    every = dict.fromkeys(name for table in tables for name in table.columns)
    lacking = {name: [table.source for table in tables if name not in table.columns] for name in every}
    parts = [f"`{name}` is not in {shortened(sources)}" for name, sources in lacking.items() if sources]
    return [f"the data do not have the same columns: {shortened(parts, '; ')}"] if parts else []


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"{name} cannot be opened",
            got=str(error),
            next="check the path; ~name is the home folder of that user",
        ) from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _load(source: str, split: str) -> Table:
    try:
        return _from_path(_path(source), source, split)
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, LoraloomError):
            raise
        # The name is longer than a disk allows, or a folder on the way is closed.
        raise DataError(
            f"{source} cannot be opened",
            got=getattr(error, "strerror", None) or str(error),
            next="check the path",
        ) from error


def _from_path(path: Path, source: str, split: str) -> Table:
    if path.is_dir():
        return read_folder(path, split)
    if path.is_file():
        return read_file(path, split)
    if path.exists():
        raise DataError(
            f"{source} is a pipe or a device",
            need="a file or a folder",
            next="write the rows to a file first",
        )
    before, colon, config = source.rpartition(":")
    if colon and config and (folder := _path(before)).is_dir():
        return read_folder(folder, split, config)
    if _looks_like_hub(source):
        return _from_hub(source, split)
    raise DataError(
        f"{source} does not exist", need="a file, a folder or a hub data set", next=_closest(path)
    )


def _looks_like_hub(source: str) -> bool:
    has_suffix = source.lower().endswith((*SUFFIXES, *PACKED))
    return not has_suffix and _HUB_NAME.fullmatch(source) is not None


def _from_hub(source: str, split: str) -> Table:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(
            f"{source} is no file or folder here, and reading hub data sets needs `datasets`",
            next="check the path, or: pip install loraloom[hub]",
        ) from error
    name, config, part = _hub_parts(source, split)
    try:
        rows: Any = datasets.load_dataset(name, config, split=part)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    # the library raises many kinds, and all of them mean that the data set cannot be had
    except Exception as error:
        raise DataError(
            f"the hub data set {source} cannot be loaded",
            got=str(error).split("\n", 1)[0] or type(error).__name__,
            need="name[:config][:split], and a connection or a filled cache",
            next="check the name on the hub, or name a file",
        ) from error
    if not len(rows):
        raise DataError(f"the hub data set {source} has no rows", next="choose another split")
    return Table(
        source,
        tuple(dict(row) for row in rows),
        tuple((f"{source}, row ", i) for i in range(1, len(rows) + 1)),
    )


def _hub_parts(source: str, split: str) -> tuple[str, str | None, str]:
    """name, config and split of "name[:config][:split]"; one word alone is a split when
    it is called like one."""
    name = source.split(":")[0]
    rest = re.findall(_HUB_PART, source)
    if len(rest) == 2:
        return name, rest[0], rest[1]
    if len(rest) == 1:
        word = rest[0].split("[")[0]
        if any(word in names for names in SPLIT_NAMES.values()):
            return name, None, rest[0]
        return name, rest[0], split
    return name, None, split


def _closest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either: check the path"
    near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=3)
    return (
        f"did you mean {' or '.join(str(path.parent / name) for name in near)}?"
        if near
        else "check the path"
    )
