"""Folders of data: plain files, data sets as the hub lays them out, and what `datasets`
saves to disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from loraloom.data.readers import SUFFIXES, is_data, read_file
from loraloom.data.split_names import SPLIT_NAMES, split_of
from loraloom.data.table import Table, join, listed, shortened
from loraloom.errors import DataError

_MOST_ENTRIES = 100_000
"""Files and folders that are looked through: a home folder named by mistake should not
be read for an hour."""
_MOST_BYTES = 2**18
"""Of the part of a README that is read."""
_MOST_BRACKETS = 5000
"""In that part: YAML takes long over many that are open."""
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What `datasets` writes about the data, and is none."""


def read_folder(folder: Path, split: str, config: str | None = None) -> Table:
    """The rows of one split.

    A README.md with a `configs:` section says which files these are; else files and folders are known by
    their names (train-00000-of-00002.parquet, test/a.jsonl), and where no name is that of a split, all
    files are read.

    Args:
        config: which of the README's configs.

    Raises:
        DataError: no data are there, or none of this split, or it is not clear which are meant.
    """
    if (saved := _saved(folder, split)) is not None:
        return saved
    configs = _configs(folder)
    if configs or config is not None:
        return _of_readme(folder, configs, split, config)
    files = sorted(_files(folder))
    # A README.txt or LICENSE.txt beside real tables is not data.
    files = [file for file in files if file.suffix.lower() != ".txt"] or files
    if not files:
        raise DataError(
            f"{folder} holds no data files",
            need=f"files ending in {listed(SUFFIXES)}",
            next="name the file itself",
        )
    named = {file: _split_of(file, folder) for file in files}
    chosen = [
        file for file in files if named[file] in (split, None if not any(named.values()) else split)
    ]
    if not chosen:
        raise DataError(
            f"{folder} has no {split} file",
            got=shortened(_beneath(files, folder)),
            need=f"a name such as {' or '.join(SPLIT_NAMES[split])}",
            next="name the file itself",
        )
    # What lies beneath the files that are meant may be anything: runs, other tasks.
    chosen = [file for file in chosen if file.parent == folder] or chosen
    notes: list[str] = []
    if left := [file for file in files if file not in chosen]:
        notes.append(
            f"{shortened(_beneath(chosen, folder))} read for {split}, not"
            f" {shortened(_beneath(left, folder))}"
        )
    if len(parents := {file.parent for file in chosen}) > 1:
        places = shortened(_beneath(sorted(parents), folder))
        notes.append(f"the files of {places} are read together: name one of them to have it alone")
    return _read(folder, chosen, split, notes)


def _read(folder: Path, files: Sequence[Path], split: str, notes: Iterable[str] = ()) -> Table:
    said = Table(str(folder), notes=tuple(f"{folder}: {note}" for note in notes))
    return join(str(folder), [said, *(read_file(file, split) for file in files)])


def _files(folder: Path) -> Iterator[Path]:
    """Every data file in the folder and beneath it, hidden ones aside."""
    seen = 0
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        seen += len(folders) + len(names)
        if seen > _MOST_ENTRIES:
            raise DataError(
                f"{folder} holds more than {_MOST_ENTRIES:,} files and folders",
                next="name the folder or the file with the data",
            )
        for name in names:
            file = Path(place, name)
            if not name.startswith(".") and name not in _ABOUT and is_data(file) and file.is_file():
                yield file


def _split_of(file: Path, folder: Path) -> str | None:
    """By the file's own name, else by that of the nearest folder around it."""
    parts = file.relative_to(folder).parts
    names = (parts[-1].partition(".")[0], *reversed(parts[:-1]))
    return next((split for name in names if (split := split_of(name))), None)


def _beneath(files: Iterable[Path], folder: Path) -> list[str]:
    return [str(file.relative_to(folder)) for file in files]


# What `datasets` saves to disk


def _saved(folder: Path, split: str) -> Table | None:
    """A folder of `save_to_disk`: its Arrow files in their order; of several splits the
    one that is meant."""
    if (folder / "dataset_dict.json").is_file():
        names = _strings(_json(folder / "dataset_dict.json").get("splits"))
        chosen = [name for name in names if name == split] or [
            name for name in names if split_of(name) == split
        ]
        if len(chosen) != 1 or not (folder / chosen[0]).is_dir():
            raise DataError(
                f"{folder} has {'more than one' if len(chosen) > 1 else 'no'} {split} split",
                got=listed(names),
                next=f"name one of them: {folder / (chosen or names or ['train'])[0]}",
            )
        table = read_folder(folder / chosen[0], split)
        others = [name for name in names if name != chosen[0]]
        note = f"{folder}: {chosen[0]} read for {split}, not {listed(others)}"
        return join(str(folder), [Table(str(folder), notes=(note,) if others else ()), table])
    if not (folder / "state.json").is_file() or not (folder / "dataset_info.json").is_file():
        return None
    state = _json(folder / "state.json")
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise DataError(
            f"{folder} keeps the order of its rows in a file of its own, which an old version of"
            " `datasets` wrote",
            next=(
                "load it with `datasets` and save it again:"
                " load_from_disk(...).flatten_indices().save_to_disk(...)"
            ),
        )
    entries: Any = state.get("_data_files")
    names = (
        [entry.get("filename") for entry in entries if isinstance(entry, dict)]
        if isinstance(entries, list)
        else []
    )
    files = [folder / name for name in _strings(names) if Path(name).name == name]
    if missing := [file.name for file in files if not file.is_file()]:
        raise DataError(
            f"{folder} is incomplete",
            got=f"no {shortened(missing)}",
            need="every file that state.json names",
            next="download or save the data set again",
        )
    return _read(folder, files, split) if files else None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (RecursionError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read",
            got=str(error),
            need="what `datasets` writes",
            next="save the data set again",
        ) from error
    return cast(Mapping[str, Any], found) if isinstance(found, dict) else {}


def _strings(value: Any) -> list[str]:
    return (
        [item for item in cast(list[Any], value) if isinstance(item, str)]
        if isinstance(value, list)
        else []
    )


# What the hub reads of a README


def _configs(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The `configs:` of a data set's README by name; empty where it has none that can be read."""
    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    with readme.open("rb") as file:
        text = file.read(_MOST_BYTES).decode("utf-8-sig", errors="replace")
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    block: list[str] = []
    for line in lines[1:]:
        if line.strip() == "---" or (block and line[:1] not in (" ", "-", "")):
            break
        if block or line.startswith("configs:"):
            block.append(line)
    said = "\n".join(block)
    if said.count("[") + said.count("{") > _MOST_BRACKETS:
        return {}
    try:
        found: Any = yaml.safe_load(said)
        entries = [entry for entry in (found or {}).get("configs", ()) if isinstance(entry, dict)]
    except (AttributeError, RecursionError, TypeError, ValueError, yaml.YAMLError):
        return {}
    return {
        str(entry.get("config_name", "default")): entry for entry in entries if entry.get("data_files")
    }


def _of_readme(
    folder: Path, configs: Mapping[str, Mapping[str, Any]], split: str, config: str | None
) -> Table:
    chosen = config or _usual(configs)
    if chosen is None or chosen not in configs:
        raise DataError(
            f"{folder} has {'no such config' if config else 'several configs, and none is the default'}",
            got=config,
            need=f"one of {listed(configs)}",
            next=(
                f"name one: {folder}:{next(iter(configs), 'NAME')}"
                if configs
                else "name the folder alone"
            ),
        )
    parts = _patterns(configs[chosen].get("data_files"))
    wanted = [name for name in parts if name == split] or [
        name for name in parts if split_of(name) == split
    ]
    if len(wanted) != 1:
        raise DataError(
            f"{folder} has {'more than one' if wanted else 'no'} {split} split in its README.md",
            got=listed(parts),
            next="name the files themselves",
        )
    base = folder / str(configs[chosen].get("data_dir", ""))
    files = sorted({file for pattern in parts[wanted[0]] for file in _matching(base, pattern)})
    if not files:
        raise DataError(
            f"{folder} holds none of the files that its README.md names for {split}",
            got=listed(parts[wanted[0]]),
            need="the files as the hub has them",
            next="download the data set whole, or name the files themselves",
        )
    notes = (
        [f"config {chosen} read, not {listed(name for name in configs if name != chosen)}"]
        if len(configs) > 1
        else []
    )
    if others := [name for name in parts if name != wanted[0]]:
        notes.append(f"{wanted[0]} read for {split}, not {listed(others)}")
    return _read(folder, files, split, notes)


def _usual(configs: Mapping[str, Mapping[str, Any]]) -> str | None:
    named = [name for name, entry in configs.items() if entry.get("default") is True]
    named = (
        named
        or [name for name in configs if name == "default"]
        or (list(configs) if len(configs) == 1 else [])
    )
    return named[0] if named else None


def _patterns(data_files: Any) -> dict[str, list[str]]:
    """Split -> patterns, of the three ways in which a README may say it."""
    if isinstance(data_files, str):
        return {"train": [data_files]}
    found: dict[str, list[str]] = {}
    for entry in cast(list[Any], data_files) if isinstance(data_files, list) else []:
        if isinstance(entry, str):
            found.setdefault("train", []).append(entry)
        elif isinstance(entry, dict):
            path: Any = cast(dict[str, Any], entry).get("path")
            found.setdefault(str(cast(dict[str, Any], entry).get("split", "train")), []).extend(
                [path] if isinstance(path, str) else _strings(path)
            )
    return found


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Data files by a pattern that stays in the folder: one that leads out of it is not followed."""
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts or not pattern.strip("/."):
        return []
    places = sorted(folder.glob(pattern))
    files = [file for place in places for file in (_files(place) if place.is_dir() else [place])]
    return [file for file in files if is_data(file) and file.is_file()]
