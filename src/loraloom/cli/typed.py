"""Turns what a person types into our own verbs and options, before typer reads it:
other tools have other names for them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loraloom.cli.request import FLAGS
from loraloom.config.keys import Key, keys, named, nearest
from loraloom.config.words import ABSENT, OPTIONS, SETTINGS, VALUES, VERBS, plain
from loraloom.errors import RequestError

_ON, _OFF = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_TYPO = 0.8
"""Likeness of letters from which a word counts as a typing error."""


@dataclass(frozen=True)
class _Option:
    """An option in our words."""

    name: str
    """As typer knows it; "" for an argument without a name."""
    before: str = ""
    """What stands before the value: KEY= after --set."""
    takes_value: bool = True
    on: str | None = None
    """Of a switch whose value may be left out: the value then."""
    off: str | None = None
    choices: tuple[str, ...] = ()
    """Words that such a switch takes beside on, off and auto."""


def in_our_words(words: Sequence[str], commands: Mapping[str, Any]) -> list[str]:
    """A command line with verbs and options as typer knows them.

    `help VERB` and `VERB help` are `VERB --help`. An option of another tool becomes our flag, or --set
    KEY=VALUE where the key has none.

    Args:
        words: as they were typed, without the name of the program.
        commands: typer's command of each verb.

    Raises:
        RequestError: there is no such verb or option; the message names ours of that meaning.
    """
    if not words or words[0] == "help":
        return [*(_verb(word, commands) for word in words[1:2]), "--help"]
    if words[0].startswith("-"):
        return list(words)
    verb = _verb(words[0], commands)
    if hasattr(commands[verb], "commands"):
        return _of_group(verb, words[1:], commands[verb].commands)
    return (
        [verb, "--help"] if list(words[1:]) == ["help"] else [verb, *_options(words[1:], verb, commands)]
    )


def _of_group(group: str, words: Sequence[str], commands: Mapping[str, Any]) -> list[str]:
    """`adapter merge ...`: the second word is a verb too.

    Raises:
        RequestError: it is none, or has no such option.
    """
    within = {f"{group} {name}": command for name, command in commands.items()}
    asks_help = not words or words[0] == "help"
    if asks_help or words[0].startswith("-"):
        return [group, *words[1:2], "--help"] if asks_help else [group, *words]
    if "." in words[0] or "/" in words[0]:
        raise RequestError(
            f"`loraloom {group}` needs a verb",
            got=words[0],
            need=", ".join(commands),
            next=f"for example loraloom {group} {next(iter(commands))} {words[0]}",
        )
    verb = _verb(f"{group} {words[0]}", within)
    if list(words[1:]) == ["help"]:
        return [*verb.split(), "--help"]
    return [*verb.split(), *_options(words[1:], verb, within)]


def _verb(word: str, commands: Mapping[str, Any]) -> str:
    """The verb itself.

    Raises:
        RequestError: it is none.
    """
    if word in commands:
        return word
    if "." in word or "/" in word:
        raise RequestError(
            "the first word must be a command", got=word, next=f"for example loraloom tune {word}"
        )
    close = difflib.get_close_matches(word.lower(), commands, n=1, cutoff=_TYPO)
    guess = VERBS.get(word.lower(), close[0] if close else None)
    hint = f"did you mean `loraloom {guess}`?" if guess else "loraloom --help shows what there is"
    if guess == "predict":
        hint = (
            "did you mean `loraloom predict`, for rows of a file, or `loraloom generate`, for a prompt?"
        )
    raise RequestError(f"there is no command `{word}`", next=hint)


def _options(words: Sequence[str], verb: str, commands: Mapping[str, Any]) -> Iterator[str]:
    """The words behind a verb; the value of an option is passed on unread, and so is
    all that follows `--`."""
    taken = _taken(commands[verb])
    values: dict[str, str | None] = {
        option: None
        for parameter in commands[verb].params
        if not parameter.multiple
        for option in parameter.opts
    }
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            yield from (word, *rest)
            return
        # A prompt, a file, a negative number or -qv: typer reads these by itself.
        if not word.startswith("-") or not plain(word)[:1].isalpha() or _is_cluster(word, taken):
            yield word
            continue
        name, equals, given = word.partition("=")
        option = _ours(name, verb, commands)
        value = given if equals else None
        if option.on is not None:
            if value is None and rest and rest[0].lower() in (*_ON, *_OFF, "auto", *option.choices):
                value = rest.pop(0)
            value = _switched(name, option, value)
        elif value is None and option.takes_value and rest:
            value = rest.pop(0)
        # typer takes the last of several values, which would drop the others silently.
        if option.name in values and value is not None:
            if values[option.name] is not None:
                raise RequestError(
                    f"{option.name} was given twice: {values[option.name]} and {value}",
                    next="leave one of the two out",
                )
            values[option.name] = value
        if option.before and value is None:
            raise RequestError(
                f"option `{name}` needs a value", next=f"loraloom {verb} --help shows what there is"
            )
        yield from ([option.name] if option.name else [])
        yield from ([] if value is None else [option.before + value])


def _switched(name: str, option: _Option, value: str | None) -> str | None:
    """The value of a switch that may stand alone, or with true or false behind it as in
    TrainingArguments."""
    if value is None or value.lower() in _ON:
        return option.on
    if value.lower() not in _OFF:
        return value
    if option.off is None:
        raise RequestError(f"option `{name}` is turned off with {value}", next=f"leave {name} out")
    return option.off


def _ours(name: str, verb: str, commands: Mapping[str, Any]) -> _Option:
    """The option that `name` means for this verb.

    Raises:
        RequestError: none.
    """
    word = plain(name)
    taken = _taken(commands[verb])
    for spelt in (name, f"--{word.replace('_', '-')}"):
        if spelt in taken:
            return _Option(spelt, takes_value=taken[spelt])
    key = named(word, among=keys())
    off = word.removeprefix("no_")
    flag = next((f"--{flag}" for flag, known in FLAGS.items() if known.key == key), None)
    if flag in taken:
        return _Option(flag)
    if "--set" in taken:
        if key is not None and flag is None:
            return _keyed(keys()[key])
        if word in SETTINGS:
            return _Option("--set", f"{SETTINGS[word][0]}=", on=SETTINGS[word][1])
        negated = named(off, among=keys()) if off != word else None
        if negated is not None and bool in keys()[negated].kinds:
            return _Option("--set", f"{negated}=", on="false", off="true")
    ours = OPTIONS.get(word)
    if ours == "" or ours in taken:
        return _Option(ours, takes_value=taken.get(ours, True))
    raise _unknown(name, verb, flag or f"--{word.replace('_', '-')}", commands)


def _keyed(key: Key) -> _Option:
    is_switch = bool in key.kinds and str not in key.kinds
    return _Option(
        "--set",
        f"{key.name}=",
        on="true" if is_switch else None,
        off="false" if is_switch else None,
        choices=tuple(VALUES.get(key.name, ())),
    )


def _unknown(name: str, verb: str, flag: str, commands: Mapping[str, Any]) -> RequestError:
    what = f"`loraloom {verb}` has no option `{name}`"
    taken = _taken(commands[verb])
    others = [f"`{other}`" for other, command in commands.items() if flag in _taken(command)]
    if plain(name) in ABSENT:
        return RequestError(what, next=ABSENT[plain(name)])
    if others:
        return RequestError(
            what,
            got=None if name == flag else f"{flag} in our words",
            next=f"it belongs to {', '.join(others)}",
        )
    key = nearest(plain(name), among=keys()) if "--set" in taken else None
    if key is not None:
        own = next((f"--{flag}" for flag, known in FLAGS.items() if known.key == key), None)
        return RequestError(what, next=f"did you mean {own if own in taken else f'--set {key}=VALUE'}?")
    close = difflib.get_close_matches(name, taken, n=1, cutoff=_TYPO)
    return RequestError(
        what,
        next=f"did you mean {close[0]}?" if close else f"loraloom {verb} --help shows what it takes",
    )


def _taken(command: Any) -> dict[str, bool]:
    """Every option of a command, and whether a value follows it."""
    own = {
        option: not parameter.is_flag
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("-")
    }
    return {**own, "--help": False, "-h": False}


def _is_cluster(word: str, taken: Mapping[str, bool]) -> bool:
    """Whether a word is several switches of one letter: -qv."""
    return not word.startswith("--") and all(f"-{letter}" in taken for letter in word[1:])
