"""From what the user names (a file, a folder, a hub data set) to a table of rows."""

from __future__ import annotations

import difflib
import random
import re
from pathlib import Path
from typing import Any

from loraloom.data.readers import SUFFIXES, read_file
from loraloom.data.table import Table, join, listed
from loraloom.errors import DataError, LoraloomError

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "validate", "val", "dev"),
    "test": ("test", "testing"),
}
_HUB_PART = r":([^:/\[\]]+(?:\[[^\]]*\])?)"
_HUB_NAME = re.compile(rf"\w[\w.-]*(/\w[\w.-]*)?(?:{_HUB_PART}){{0,2}}")


def load_table(source: str, *, split: str = "train", max_rows: int | None = None, seed: int = 42) -> Table:
    """Read every row of `source`.

    Args:
        source: a file (JSONL, JSON, CSV, TSV, Parquet, or text with one row a paragraph), a folder of such files,
            or a hub data set "name[:config][:split]".
        split: which part is meant when the source names several: a folder with files called after splits
            ("train.jsonl", "test-00000.parquet"), or a hub data set without a split in its name.
        max_rows: keep a sample of this many rows, in their order.
        seed: of that sample.

    Raises:
        DataError: nothing is there, or what is there cannot be read; the message names file and line.
    """
    if max_rows is not None and max_rows < 1:
        raise DataError(f"`data.max_rows` is {max_rows} but must be at least 1", next="leave it out to use all rows")
    try:
        table = _from_path(Path(source).expanduser(), source, split)
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, LoraloomError):
            raise
        # The name is longer than a disk allows, or a folder on the way is closed, or "~someone" is no user here.
        raise DataError(
            f"{source} cannot be opened", got=getattr(error, "strerror", None) or str(error), next="check the path"
        ) from error
    if max_rows is not None and max_rows < len(table):
        table = table.take(sorted(random.Random(seed).sample(range(len(table)), max_rows)))
    return table


def _from_path(path: Path, source: str, split: str) -> Table:
    if path.is_dir():
        return _from_folder(path, split)
    if path.is_file():
        return _from_file(path)
    if path.exists():
        raise DataError(f"{source} is a pipe or a device", need="a file or a folder", next="write the rows to a file first")
    if _looks_like_hub(source):
        return _from_hub(source, split)
    raise DataError(f"{source} does not exist", need="a file, a folder or a hub data set", next=_closest(path))


def _from_file(path: Path) -> Table:
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{path} has an ending that is not known",
            got=path.suffix or "no ending",
            need=f"one of {listed(SUFFIXES)}",
            next="rename the file after what it holds",
        )
    return read_file(path)


def _from_folder(folder: Path, split: str) -> Table:
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in SUFFIXES)
    # A README.txt or LICENSE.txt beside real tables is not data.
    files = [file for file in files if file.suffix.lower() != ".txt"] or files
    if not files:
        raise DataError(f"{folder} holds no data files", need=f"files ending in {listed(SUFFIXES)}", next="name the file itself")
    if any(_split_of(file) for file in files):
        chosen = [file for file in files if _split_of(file) == split]
        if not chosen:
            raise DataError(
                f"{folder} has no {split} file",
                got=listed(file.name for file in files),
                need=f"a name that begins with {' or '.join(_SPLIT_NAMES[split])}",
                next="name the file itself",
            )
        files = chosen
    return join(str(folder), [read_file(file) for file in files])


def _split_of(file: Path) -> str | None:
    word = re.split(r"[^a-z]", file.stem.lower(), maxsplit=1)[0]
    return next((split for split, names in _SPLIT_NAMES.items() if word in names), None)


def _looks_like_hub(source: str) -> bool:
    has_suffix = source.lower().endswith(SUFFIXES)
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
    except Exception as error:  # the library raises many kinds, and each of them means: not this name, not now
        raise DataError(
            f"the hub data set {source} cannot be loaded",
            got=str(error).split("\n", 1)[0] or type(error).__name__,
            need="name[:config][:split], and a connection or a filled cache",
            next="check the name on the hub, or name a file",
        ) from error
    if not len(rows):
        raise DataError(f"the hub data set {source} has no rows", next="choose another split")
    return Table(source, tuple(dict(row) for row in rows), tuple((f"{source}, row ", i) for i in range(1, len(rows) + 1)))


def _hub_parts(source: str, split: str) -> tuple[str, str | None, str]:
    """name, config and split of "name[:config][:split]"; one word alone is a split when it is called like one."""
    name, rest = source.split(":")[0], re.findall(_HUB_PART, source)
    if len(rest) == 2:
        return name, rest[0], rest[1]
    if len(rest) == 1:
        word = rest[0].split("[")[0]
        if any(word in names for names in _SPLIT_NAMES.values()):
            return name, None, rest[0]
        return name, rest[0], split
    return name, None, split


def _closest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either: check the path"
    near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=3)
    return f"did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else "check the path"
