"""From YAML, flags and `--set` to a `Config`. Nothing else in loraloom reads the user's YAML.

Every source is first laid flat, dotted key by dotted key, each value with the place it came from. So
precedence is one dictionary update (file < flags < `--set`), and every message can name the key, the
file and the line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml
from yaml.scanner import ScannerError

from loraloom.config import names
from loraloom.config.asked import Config
from loraloom.config.keys import Key, keys, nearest, sections
from loraloom.config.sources import check_sources, is_mixed
from loraloom.config.space import check_space
from loraloom.config.units import parse_bytes, parse_seconds
from loraloom.config.values import check_value, show
from loraloom.config.words import ABSENT, SETTINGS, plain
from loraloom.errors import ConfigError

__all__ = ["load_config", "parse_bytes", "parse_seconds", "to_plain"]

_LARGEST_FILE = 2**18
"""Bytes of a config file: a thousand times what one needs, and few enough to be read at once."""
_MOST_VALUES = 100_000
"""Values in one document, each alias counted as all that it stands for."""
_MOST_BRACKETS = 60
"""Within each other; a config needs three."""


@dataclass(frozen=True)
class _Setting:
    """A value as it was given. `inner` places the entries of a mapping."""

    value: Any
    where: str
    inner: Mapping[str, str] = field(default_factory=dict[str, str])


def load_config(
    path: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
) -> Config:
    """The request that a config file, flags and `--set` make together; the later of these wins.

    Args:
        path: YAML file, or None for no file.
        flags: dotted key -> value. Text is read as `--set` reads it; None counts as not given.
        sets: "dotted.key=value", the value in YAML.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or outside its range, a file that is
            missing or not YAML. It names key, file and line.
    """
    settings: dict[str, _Setting] = {}
    if path is not None:
        settings |= _read_file(Path(path))
    for name, value in (flags or {}).items():
        if value is not None:
            _put(settings, name, value, "command line")
    given: dict[str, str] = {}
    for assignment in sets:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(
                f"--set takes KEY=VALUE, not {assignment!r}", next="for example --set adapter.r=8"
            )
        before = given.setdefault(name.strip(), assignment)
        if before is not assignment:
            raise ConfigError(
                f"`{name.strip()}` was set twice: --set {before} and --set {assignment}",
                next="leave one of the two out",
            )
        _put(settings, name.strip(), text.strip(), f"--set {assignment}")

    values = {name: _check(keys()[name], setting) for name, setting in settings.items()}
    devices = values.get(names.DEVICES, "auto")
    if devices != "auto" and values.setdefault(names.EXECUTE, "processes") == "inline":
        raise ConfigError(
            f"`{names.DEVICES}` is {show(devices)}, but `execute` is inline, which has no workers",
            where=settings[names.DEVICES].where,
            next="leave `execute` out: several workers are processes of this host",
        )
    return _build(values)


def to_plain(config: Config) -> dict[str, Any]:
    """`config` as plain mappings, lists and scalars: what `config.yaml` holds and
    `load_config` reads back."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast(Sequence[Any], value)]
    return value


def _build(values: Mapping[str, Any]) -> Config:
    parts = {name: value for name, value in values.items() if "." not in name}
    for name, section in sections().items():
        start = f"{name}."
        parts[name] = section(
            **{key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}
        )
    return Config(**parts)


# Reading


class _Yaml(yaml.SafeLoader):
    """YAML as people expect it: 5e-5 is a number, 1:30 is not 90, `no` and 2024-01-01
    stay text, each key stands once."""

    # the base class declares it so
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:
        """An opening bracket. The scanner looks at every open one again at each token:
        their number has to have an end."""
        if self.flow_level >= _MOST_BRACKETS:
            raise ScannerError(
                None, None, f"more than {_MOST_BRACKETS} brackets within each other", self.get_mark()
            )
        super().fetch_flow_collection_start(TokenClass)


_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789")
)
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF))$"
        r"|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_Yaml.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])


class _TooMany(yaml.YAMLError):
    """YAML, but more of it than any person would write."""


def _load(text: str) -> tuple[Any, yaml.Node | None]:
    """The document in `text`, as values and as nodes. Raises yaml.YAMLError, and
    nothing else, for what is none."""
    loader = _Yaml(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        if _values_in(root, {}) > _MOST_VALUES:
            raise _TooMany
        return loader.construct_document(root), root
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # An explicit tag on what it does not fit (`!!int eight`), or brackets without end.
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


def _values_in(node: yaml.Node, seen: dict[int, float]) -> float:
    """How many values `node` holds where every alias is followed: some lines of aliases
    to aliases stand for billions."""
    if id(node) in seen:
        return seen[id(node)]
    seen[id(node)] = math.inf  # what holds itself has no end
    inner: list[Any] = node.value if isinstance(node, yaml.CollectionNode) else []
    if isinstance(node, yaml.MappingNode):
        inner = [part for pair in node.value for part in pair]
    seen[id(node)] = 1 + sum(_values_in(part, seen) for part in inner)
    return seen[id(node)]


def _file_text(path: Path) -> str:
    """The whole file; a pipe or a device is not waited for."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ConfigError(
            "this is a pipe or a device, not a config file",
            where=str(path),
            need="a YAML file",
            next="write the config to a file, and name that",
        )
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise ConfigError(
            f"a config file has at most {_LARGEST_FILE // 1024} KiB, and this one is larger",
            where=str(path),
            next=f"if these are the data: --data {path}",
        )
    return content.decode("utf-8-sig")


def _read_file(path: Path) -> dict[str, _Setting]:
    try:
        text = _file_text(path)
    except FileNotFoundError:
        raise ConfigError(
            "there is no such config file", where=str(path), next="check the path, or leave the file out"
        ) from None
    except IsADirectoryError:
        raise ConfigError(
            "this is a folder, not a config file", where=str(path), next="name the .yaml file in it"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(
            "this is not text in UTF-8",
            where=str(path),
            need="a YAML file",
            next=f"save it as UTF-8; if it is the data: --data {path}",
        ) from None
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"the config file cannot be read: {problem}", where=str(path), next="check the path"
        ) from None
    lines: dict[str, int] = {}
    try:
        document, root = _load(text)
    except yaml.YAMLError as error:
        raise _not_yaml(error, path) from None
    if document is None:
        return {}
    if not isinstance(document, dict) or not isinstance(root, yaml.MappingNode):
        raise ConfigError(
            "a config file is a mapping of keys to values",
            got=type(document).__name__,
            where=str(path),
            next="for example\n    model: {name_or_path: Qwen/Qwen2.5-0.5B-Instruct}",
        )
    _note_lines(root, "", path, lines, depth=0)
    places = {name: f"{path}:{line}" for name, line in lines.items()}
    settings: dict[str, _Setting] = {}
    for name, value in cast(dict[Any, Any], document).items():
        _lay_flat(settings, str(name), value, places, str(path))
    return settings


def _not_yaml(error: yaml.YAMLError, path: Path) -> ConfigError:
    if isinstance(error, _TooMany):
        return ConfigError(
            f"the file expands to more than {_MOST_VALUES:,} values",
            where=str(path),
            next=(
                "write values out where an alias (*name) repeats others; one that holds itself never"
                " ends"
            ),
        )
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error) or "it cannot be parsed"
    return ConfigError(
        f"this is not YAML: {problem}",
        where=f"{path}:{mark.line + 1}" if mark else str(path),
        next="look for a missing colon, an open bracket, or a tab where spaces belong",
    )


def _note_lines(
    node: yaml.MappingNode, prefix: str, path: Path, lines: dict[str, int], depth: int
) -> None:
    """Write down the line of every key down to the fourth level; an anchor that holds
    itself ends there too."""
    for key_node, value_node in node.value:
        name = f"{prefix}{key_node.value}"
        line = key_node.start_mark.line + 1
        if name in lines and depth < 2:
            raise ConfigError(
                f"`{name}` appears twice, first in line {lines[name]}",
                where=f"{path}:{line}",
                next="remove one of the two",
            )
        lines[name] = line
        if isinstance(value_node, yaml.MappingNode) and depth < 3:
            _note_lines(value_node, f"{name}.", path, lines, depth + 1)


def _lay_flat(
    settings: dict[str, _Setting], name: str, value: Any, places: Mapping[str, str], file: str
) -> None:
    where = places.get(name, file)
    if name in sections():
        if value is not None and not isinstance(value, dict):
            example = next(key for key in keys() if key.startswith(f"{name}."))
            raise ConfigError(
                f"`{name}` is {show(value)} but must be a section with keys of its own",
                where=where,
                next=(
                    f"for example\n    {name}: {{{example.partition('.')[2]}:"
                    f" {keys()[example].example}}}"
                ),
            )
        for sub, item in cast(dict[Any, Any], value or {}).items():
            _lay_flat(settings, f"{name}.{sub}", item, places, file)
    elif name in keys():
        start = f"{name}."
        inner = {
            place.removeprefix(start): at for place, at in places.items() if place.startswith(start)
        }
        settings[name] = _Setting(value, where, inner)
    else:
        raise _unknown_key(name, where)


def _put(settings: dict[str, _Setting], name: str, value: Any, where: str) -> None:
    """Set one key; a key inside a mapping (`search.space.adapter.r`) is set beside
    those already there."""
    key, entry = _locate(name, where)
    if isinstance(value, str):
        value = _parse_text(keys()[key], value, where, entry=entry)
    if entry is None:
        settings[key] = _Setting(value, where)
        return
    before = settings.get(key)
    entries = cast(dict[str, Any], before.value) if before and isinstance(before.value, dict) else {}
    settings[key] = _Setting(
        {**entries, entry: value}, where, {**(before.inner if before else {}), entry: where}
    )


def _locate(name: str, where: str) -> tuple[str, str | None]:
    """The key that `name` means, and the entry in it where that key is a mapping."""
    if name in keys():
        return name, None
    for known, key in keys().items():
        if key.takes_mapping and name.startswith(f"{known}."):
            return known, name.removeprefix(f"{known}.")
    raise _unknown_key(name, where)


def _parse_text(key: Key, text: str, where: str, *, entry: str | None) -> Any:
    if key.takes_sources and entry is None:
        return _one_or_several(key, text)
    if key.only_text and entry is None:
        return None if text in ("null", "~") and type(None) in key.kinds else text
    try:
        return _load(text)[0]
    except yaml.YAMLError:
        raise ConfigError(
            f"`{key.name}` is {show(text)}, which cannot be read as YAML",
            need=key.need,
            next="put quotes around it",
            where=where,
        ) from None


def _one_or_several(key: Key, text: str) -> Any:
    """A list where it is written as one, and what else the key takes; any other text is
    a name, whatever signs are in it."""
    try:
        value = _load(text)[0]
    except yaml.YAMLError:
        return text
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and float in key.kinds
    return (
        value
        if isinstance(value, list)
        or is_number
        or (value is None and text and type(None) in key.kinds)
        or (isinstance(value, dict) and text.startswith("{"))
        else text
    )


def _unknown_key(name: str, where: str) -> ConfigError:
    if name in sections():
        first = next(key for key in keys() if key.startswith(f"{name}."))
        return ConfigError(
            f"`{name}` is a section, not a key", where=where, next=f"name a key in it, such as {first}"
        )
    last = plain(name.rpartition(".")[2])
    if last in SETTINGS:
        return ConfigError(
            f"there is no key `{name}`",
            where=where,
            next="did you mean `{}: {}`?".format(*SETTINGS[last]),
        )
    if last in ABSENT:
        return ConfigError(f"there is no key `{name}`", where=where, next=ABSENT[last])
    guess = nearest(name)
    section = name.partition(".")[0]
    known = [key for key in keys() if key.startswith(f"{section}.")] or [
        *sections(),
        *(key for key in keys() if "." not in key),
    ]
    return ConfigError(
        f"there is no key `{name}`",
        need=None if guess else f"one of {', '.join(known)}",
        next=f"did you mean `{guess}`?" if guess else None,
        where=where,
    )


def _check(key: Key, setting: _Setting) -> Any:
    """The setting's value in the type that `asked.py` declares, inside its range."""
    if key.name == names.SPACE and setting.value != "auto":
        return check_space(setting.value, setting.where, setting.inner)
    if key.name == names.TRAIN and is_mixed(setting.value):
        return check_sources(setting.value, setting.where)
    return check_value(key, setting.value, setting.where, setting.inner)
