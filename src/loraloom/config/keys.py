"""Every key of the config by its dotted name: what it takes, in which range, and how to say so.

All of it but the ranges is read off the dataclasses in `asked.py`, so a new field is known here at once.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from loraloom.config import names
from loraloom.config.asked import Config
from loraloom.config.words import ALIASES, plain, squashed

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
}


@dataclass(frozen=True)
class Range:
    """The numbers that a key allows, and one that is tried and true."""

    example: float | str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def holds(self, number: float) -> bool:
        return (
            (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )

    @property
    def words(self) -> str:
        limits = (
            ("at least", self.at_least),
            ("above", self.above),
            ("at most", self.at_most),
            ("below", self.below),
        )
        return " and ".join(f"{word} {limit:,g}" for word, limit in limits if limit is not None)


RANGES: dict[str, Range] = {
    names.VALIDATION: Range(0.1, above=0, below=1),
    names.TEST: Range(0.1, above=0, below=1),
    names.MAX_LENGTH: Range(512, at_least=2),
    names.MAX_ROWS: Range(1000, at_least=1),
    names.AUGMENT: Range("[typing]", above=0, at_most=1),
    names.MIX: Range("{temperature: 2}", at_least=1),
    names.REPLAY_SHARE: Range(0.1, at_least=0, at_most=0.5),
    names.R: Range(8, at_least=1),
    names.LORA_ALPHA: Range(32, above=0),
    names.LORA_DROPOUT: Range(0.05, at_least=0, at_most=0.99),
    names.RANK_PATTERN: Range("{q_proj: 16}", at_least=1),
    names.ALPHA_PATTERN: Range("{q_proj: 32}", above=0),
    names.LORA_PLUS_RATIO: Range(4, at_least=1),
    names.LEARNING_RATE: Range("2e-4", above=0, below=1),
    names.WARMUP_RATIO: Range(0.06, at_least=0, below=1),
    names.NUM_TRAIN_EPOCHS: Range(3, above=0),
    names.MAX_STEPS: Range(200, at_least=1),
    names.PER_DEVICE_TRAIN_BATCH_SIZE: Range(16, at_least=1),
    names.GRADIENT_ACCUMULATION_STEPS: Range(1, at_least=1),
    names.WEIGHT_DECAY: Range(0.01, at_least=0, below=1),
    names.MAX_GRAD_NORM: Range(1.0, above=0),
    names.SEED: Range(42, at_least=0, below=2**32),
    names.EARLY_STOPPING_PATIENCE: Range(3, at_least=1),
    names.NEFTUNE_NOISE_ALPHA: Range(5, above=0),
    names.BETA: Range(0.1, above=0, at_most=100),
    names.LABEL_SMOOTHING: Range(0.1, at_least=0, below=0.5),
    names.SIMPO_GAMMA: Range(0.5, at_least=0),
    names.CPO_ALPHA: Range(1.0, at_least=0),
    names.DESIRABLE_WEIGHT: Range(1.0, at_least=0),
    names.UNDESIRABLE_WEIGHT: Range(1.0, at_least=0),
    names.TRIALS: Range(16, at_least=1),
    names.BUDGET: Range(1800, above=0),
    names.SEEDS_FOR_FINALISTS: Range(3, at_least=1),
    names.MAX_PACKED: Range(8, at_least=1),
    names.DEVICES: Range(2, at_least=1),
}


SOURCES = (names.TRAIN, names.VALIDATION, names.TEST)
"""Keys that take one source of rows or several."""


@dataclass(frozen=True)
class Key:
    """One key: its dotted name, the type that `asked.py` declares, its default and its range."""

    name: str
    hint: Any
    default: Any
    range: Range | None

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The members of its union, `Literal`s whole."""
        return _members(self.hint)

    @property
    def only_text(self) -> bool:
        """Whether "007" is a name here, never a number."""
        return (
            str in self.kinds and not {int, float, bool}.intersection(self.kinds) and not self.takes_list
        )

    @property
    def takes_sources(self) -> bool:
        """Whether it names data; a comma may stand in the name of a file."""
        return self.name in SOURCES

    @property
    def takes_list(self) -> bool:
        return any(get_origin(kind) is tuple for kind in self.kinds)

    @property
    def takes_mapping(self) -> bool:
        return any(get_origin(kind) is dict for kind in self.kinds)

    @property
    def words(self) -> tuple[str, ...]:
        """The words that it takes as they are."""
        literals = (kind for kind in self.kinds if get_origin(kind) is Literal)
        return tuple(str(word) for kind in literals for word in get_args(kind))

    @property
    def need(self) -> str:
        """What it takes, in words: "a whole number or auto"."""
        words = _join([word for kind in self.kinds for word in _words(kind)])
        return f"one of {words}" if get_origin(self.hint) is Literal else words

    @property
    def example(self) -> str:
        """One value that is right."""
        if self.range:
            return str(self.range.example)
        choices = [
            str(choice)
            for kind in self.kinds
            if get_origin(kind) is Literal
            for choice in get_args(kind)
        ]
        if choices:
            return choices[0]
        if bool in self.kinds:
            return "true"
        return "[name]" if self.takes_list else '"text in quotes"'


@cache
def keys() -> dict[str, Key]:
    """Every key by dotted name, in the order of `asked.py`."""
    return {key.name: key for key in _walk(Config, "")}


def asked_value(config: Config, key: str) -> Any:
    """The value of a dotted key of a request."""
    return attrgetter(key)(config)


def is_asked(config: Config, key: str) -> bool:
    """Whether the user set this key: it is not "auto", and not what stands in an empty request."""
    return asked_value(config, key) not in ("auto", keys()[key].default)


@cache
def sections() -> dict[str, type]:
    """The dataclass of each section by name."""
    return {
        name: hint
        for name, hint in get_type_hints(Config).items()
        if is_dataclass(hint) and isinstance(hint, type)
    }


def nearest(name: str, *, among: Collection[str] = ()) -> str | None:
    """The known key that `name` was probably meant to be, or None.

    By meaning first: the same last word in another section, or another tool's word for it; then the
    likeliest spelling in the section that was named, then the likeliest anywhere.
    """
    known = list(among or (*keys(), *sections()))
    section, _, last = name.rpartition(".")
    meant = _meant(last)
    same = [key for key in known if squashed(_last(key)) == squashed(last) or key == meant]
    if same:
        return same[0]
    neighbours = [key for key in known if section and key.startswith(f"{section}.")]
    for candidates, cutoff in ((neighbours, 0.5), (known, 0.7)):
        by_ending = {_last(key): key for key in candidates}
        close = difflib.get_close_matches(last, by_ending, n=1, cutoff=cutoff)
        if close:
            return by_ending[close[0]]
    return None


def _meant(word: str) -> str | None:
    """The key that another tool calls `word`, written in whatever way."""
    bare = squashed(word)
    return ALIASES.get(plain(word)) or next(
        (key for alias, key in ALIASES.items() if squashed(alias) == bare), None
    )


def named(name: str, *, among: Collection[str]) -> str | None:
    """The key among these that `name` names: in full, by its last word, or by another
    tool's word for it."""
    found = [key for key in among if name in (key, _last(key)) or ALIASES.get(plain(name)) == key]
    return found[0] if found else None


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _walk(section: type, prefix: str) -> Iterator[Key]:
    hints = get_type_hints(section)
    blank = section()
    for field in fields(section):
        name = prefix + field.name
        hint = hints[field.name]
        if is_dataclass(hint) and isinstance(hint, type):
            yield from _walk(hint, f"{name}.")
        else:
            yield Key(name, hint, getattr(blank, field.name), RANGES.get(name))


def _members(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for part in get_args(hint) for member in _members(part))
    return (hint,)


def _words(kind: Any) -> list[str]:
    origin = get_origin(kind)
    if origin is Literal:
        return [str(choice) for choice in get_args(kind)]
    if kind is bool:
        return ["true", "false"]
    names_of = get_args(kind)[:1] if origin in (tuple, dict) else ()
    known = [str(one) for name in names_of if get_origin(name) is Literal for one in get_args(name)]
    if origin is tuple:
        return [f"a list of {', '.join(known)}" if known else "a list of names"]
    if origin is dict:
        value = get_args(kind)[1]
        return [
            (
                f"a mapping of names to {_WORDS[value].removeprefix('a ')}s"
                if value in _WORDS
                else "a mapping"
            )
        ]
    return [_WORDS[kind]]


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
