"""The classes of a classification set: which label a row has, and which class of the
head is meant by it.

A label is compared as text, so that it is the same class wherever it was written. Its class number comes
from what made the head, wherever that is known: the adapter, the base model's config.json, or the
person. Only where nothing says it is the order taken from the data, numbers by size and words by
alphabet.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from loraloom.data.table import listed
from loraloom.errors import DataError

Spelling = Literal["words", "numbers", "quantities"]
"""How the labels of a column are read: a 1.0 is the class 1 among numbers, and a word
of its own among words."""

MOST_SHOWN = 8
"""Classes that a message lists before it breaks off."""
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")
_FRACTION = re.compile(
    r"[+-]?(([0-9]+\.[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[0-9]+e[+-]?[0-9]+)", re.IGNORECASE
)
_LEADING_ZERO = re.compile(r"[+-]?0[0-9]")
_UNNAMED = re.compile(r"LABEL_[0-9]+")
_TRUTH = {"true", "false"}


@dataclass(frozen=True)
class Known:
    """Classes that something beside the data knows, in the order of the head's outputs.

    `names` are LABEL_0, LABEL_1, ... where only their count is known, as in transformers.
    """

    names: tuple[str, ...]
    source: str
    """What knows them, for a message: "the adapter"."""
    binding: bool = True
    """Whether a label that is none of them is refused; else the data's labels get a
    head of their own."""

    @property
    def named(self) -> bool:
        return not all(_UNNAMED.fullmatch(name) for name in self.names)


@dataclass(frozen=True)
class Classes:
    """`names` by class number, and the `numbers` of the labels that the data hold."""

    names: tuple[str, ...]
    numbers: Mapping[str, int]
    note: str | None = None
    """What a person should know of the order."""


def classes_of(
    labels: Collection[str], known: Known | None = None, words: Mapping[str, str] | None = None
) -> Classes:
    """Which class each of the data's `labels` is.

    Args:
        labels: each once, as `label_text` writes them.
        known: what made the head, or asks for one.
        words: label -> how a column beside it ("label_text") or the file's own schema calls it.

    Raises:
        DataError: a label that `known`, being binding, does not have.
    """
    own = sort_labels(labels)
    words = words or {}
    if known is None:
        return Classes(
            tuple(words.get(label, label) for label in own), {label: i for i, label in enumerate(own)}
        )
    by_name = _by_name(own, known.names) or _by_name(
        [words.get(label, label) for label in own], known.names
    )
    if by_name is not None:
        return Classes(known.names, dict(zip(own, by_name, strict=True)), _goes_on(known))
    if all(_is_number(label) and 0 <= int(label) < len(known.names) for label in own):
        return _by_number(own, known, words)
    return _unlike(own, known, words) if known.named else _guessed(own, known, words)


def _by_number(own: Sequence[str], known: Known, words: Mapping[str, str]) -> Classes:
    """The labels are the numbers of the classes, as far as the data have them."""
    numbers = {label: int(label) for label in own}
    if not known.named:
        names = tuple(words.get(str(number), str(number)) for number in range(len(known.names)))
        return Classes(names, numbers, _goes_on(replace(known, names=names)))
    note = f"the labels are numbers, and {known.source} names its classes: {_numbered(known.names)}"
    return Classes(known.names, numbers, _goes_on(known) or note)


def _goes_on(known: Known) -> str | None:
    if known.binding:
        return None
    return (
        f"{known.source} is trained on as it is, with its own classes in their order:"
        f" {_numbered(known.names)}"
    )


def _numbered(names: Sequence[str]) -> str:
    return shown(f"{number} {name}" for number, name in enumerate(names))


def _unlike(own: Sequence[str], known: Known, words: Mapping[str, str]) -> Classes:
    """The labels are not the known classes."""
    if known.binding:
        strange = next((label for label in own if _by_name([label], known.names) is None), own[0])
        raise DataError(
            f"the label `{strange}` is none of the classes of {known.source}",
            got=f"the labels {shown(own)}",
            need=f"{shown(known.names)}, or their numbers from 0 to {len(known.names) - 1}",
            next="check the labels and `data.label_column`",
        )
    made = classes_of(own, None, words)
    note = (
        f"{known.source} has other classes ({shown(known.names)}): it gets a new head for"
        f" {shown(made.names)}"
    )
    return Classes(made.names, made.numbers, note)


def _guessed(own: Sequence[str], known: Known, words: Mapping[str, str]) -> Classes:
    """The number of classes is known and their names are not."""
    count = len(known.names)
    if len(own) > count:
        if not known.binding:
            return classes_of(own, None, words)
        raise DataError(
            f"the rows have {len(own)} labels, and {known.source} has {count} classes",
            got=f"the labels {shown(own)}",
            next="check `data.label_column`",
        )
    numeric = all(map(_is_number, own))
    # 0 to count - 1 were taken as they are before this; 1 to count is the other usual way to number.
    if numeric and all(1 <= int(label) <= count for label in own):
        numbers = {label: int(label) - 1 for label in own}
    else:
        numbers = {label: i for i, label in enumerate(own)}
    at = {number: label for label, number in numbers.items()}
    names = tuple(words.get(at[i], at[i]) if i in at else known.names[i] for i in range(count))
    order = "by size" if numeric else "by alphabet"
    note = (
        f"{known.source} does not say which of its {count} classes is which: their order was guessed"
        f" {order}, {_numbered(names)}; if it is another: --set 'data.label_names=[NAME, ...]'"
    )
    return Classes(names, numbers, note)


def _by_name(labels: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """The number of each label among `names`; None where one is not there. Case counts
    only where it tells names apart."""
    for form in (str, str.casefold):
        places = {form(label_text(name, "words") or name): i for i, name in enumerate(names)}
        if len(places) == len(names) and all(form(label) in places for label in labels):
            return [places[form(label)] for label in labels]
    return None


def unnamed(count: int) -> tuple[str, ...]:
    """The names of classes of which only the number is known."""
    return tuple(f"LABEL_{i}" for i in range(count))


def shown(names: Iterable[str]) -> str:
    """Names for a message; of many only the first."""
    every = list(names)
    return listed(every[:MOST_SHOWN]) + (
        f", ... ({len(every)} in all)" if len(every) > MOST_SHOWN else ""
    )


def is_missing(label: Any) -> bool:
    """Whether a label says nothing: null, blank text, or the NaN that spreadsheets and
    data frames put in a gap."""
    if isinstance(label, str):
        return not label.strip()
    return label is None or (isinstance(label, float) and not math.isfinite(label))


def label_text(label: Any, spelling: Spelling) -> str | None:
    """A label as text, the same for all its spellings; None where it says nothing.

    1 in a JSON file and "1" in a CSV file are one class, and so is the 1.0 that a data frame makes of
    whole numbers when one is missing; true, True and TRUE are one; so is a word with white space around
    it, or with its accents written apart.
    """
    if is_missing(label):
        return None
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    text = " ".join(unicodedata.normalize("NFC", str(label)).split())
    if text.casefold() in _TRUTH:
        return text.casefold()
    if spelling == "numbers":
        if text.casefold() == "nan":
            return None
        return str(int(text.partition(".")[0])) if _WHOLE.fullmatch(text) else text
    return text


def spelling_of(labels: Iterable[Any]) -> Spelling:
    """How a column of labels is to be read: whole numbers, numbers of which some are
    fractions, or words.

    A number with a leading zero is a code, and so a word.
    """
    texts = {text for label in labels if (text := label_text(label, "words")) is not None} - {
        "nan",
        "NaN",
        "NAN",
    }
    if not texts or any(_LEADING_ZERO.match(text) for text in texts):
        return "words"
    if all(map(_WHOLE.fullmatch, texts)):
        return "numbers"
    # A whole number that is too long for a count is a code of some kind.
    return (
        "quantities"
        if all(_WHOLE.fullmatch(text) or _FRACTION.fullmatch(text) for text in texts)
        else "words"
    )


def sort_labels(labels: Collection[str]) -> tuple[str, ...]:
    """In the order of their class numbers: numbers by size, words by alphabet."""
    by_number = all(map(_is_number, labels))
    return tuple(sorted(labels, key=lambda label: (int(label) if by_number else 0, label)))


def doubtful(counts: Mapping[str, int]) -> list[str]:
    """What a person should look at in labels with these numbers of rows, one sentence each."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in sort_labels(counts):
        alike[label.casefold()].append(label)
    found = [
        f"the labels {' and '.join(f'`{label}` ({counts[label]:,} rows)' for label in same)} differ in"
        " case alone and are taken for different classes"
        for same in alike.values()
        if len(same) > 1
    ]
    if {"-1", "0"} <= set(counts) and all(_is_number(label) and int(label) >= -1 for label in counts):
        found.append(
            f"{counts['-1']:,} rows have the label -1, with which `datasets` marks rows that have none:"
            " it is taken for a class; leave these rows out if it is none"
        )
    return found


def count_labels(labels: Iterable[str | None]) -> Counter[str]:
    """Rows of each label; rows without one are passed over."""
    return Counter(label for label in labels if label is not None)


def _is_number(label: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,18}", label) is not None
