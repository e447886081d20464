"""Train, validation, confirm and test: seeded, stratified, and without a row that stands on two sides.

Validation is what a search may look at. Confirm, half of a validation split that is large enough, is
kept for the race of its finalists; test is for the winner alone.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate

from loraloom.config.asked import Auto
from loraloom.data.classes import shown, sort_labels
from loraloom.data.groups import Repeats, groups_of, overlaps, relations, repeats_within
from loraloom.data.load import load_table
from loraloom.data.near import Labels
from loraloom.data.overlap import Overlap
from loraloom.data.recognise import Recognised, check
from loraloom.data.table import Table, join, listed
from loraloom.errors import ConfigError, DataError

LEAST_FOR_RACE = 48
"""Independent rows (groups, where rows come in groups) that the race needs for itself,
and leaves to the search.

Found by resampling searches of 16 and 32 candidates (benchmarks/search/confirm.py), against a race on
the very rows that the search chose by. With 2 x 48 rows, what is kept lacks at most 0.23% more of the
way from the base to the best setting, and intervals of 95% hold in 96 of 100 searches or more; in return
a better setting is called better for certain in 40 to 92% of searches instead of 5 to 38%, and where
leads are within the luck of a seed in 4 to 7% instead of 1 to 2%. With 2 x 32 rows 0.31% are lost and 94
intervals hold, with 2 x 24 0.49% and 92, with 2 x 16 0.64% and 89. Probabilities are honest either way,
and of settings that are all alike one is called better in at most 1.3 of 100 searches."""

MOST_VALIDATION = 0.3
"""Share of the training rows that is proposed for validation: with more there would be
too little to learn from."""

Split = float | str | tuple[str, ...] | None
"""A share of train, one source or several, or no such split."""
NO_ROWS = Table("none")


@dataclass(frozen=True)
class Splits:
    """Four disjoint tables; one that was not asked for is empty."""

    train: Table
    validation: Table = NO_ROWS
    confirm: Table = NO_ROWS
    test: Table = NO_ROWS
    given: frozenset[str] = frozenset()
    """Splits that are not drawn from the training rows, but have a source of their own."""
    overlaps: tuple[Overlap, ...] = ()
    """Held-out rows that are related to rows of an earlier split. None is a repeat, but
    in tables given apart."""
    notes: tuple[str, ...] = ()
    """What was kept together, and what could not be."""
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    """Split -> the group of each of its rows."""
    repeats: Mapping[str, Repeats] = field(default_factory=dict[str, Repeats])
    """Split -> its rows that repeat an earlier one of it; empty where there is one split alone."""

    @property
    def tables(self) -> dict[str, Table]:
        return {
            "train": self.train,
            "validation": self.validation,
            "confirm": self.confirm,
            "test": self.test,
        }

    @property
    def repeated(self) -> dict[str, int]:
        """Split -> its rows whose content stands in an earlier split too."""
        return {each.split: each.rows for each in self.overlaps if each.kind == "content"}

    @property
    def duplicates(self) -> int:
        """Rows of validation, confirm and test that repeat a row of train (or, in test,
        of validation): a warning."""
        return sum(self.repeated.values())


def split(
    train: Table,
    validation: Split,
    test: Split,
    recognised: Recognised,
    *,
    group_column: str | Auto | None = "auto",
    seed: int = 42,
    race: bool = False,
) -> Splits:
    """Make the splits of one run.

    Args:
        train: the rows of `data.train`.
        validation, test: a share of `train` between 0 and 1; a source of its own; or
            None for no such split.
        recognised: format and columns, which every source must have.
        group_column: which rows stay together (`groups.relations`).
        seed: of the draw.
        race: keep half of validation from the search, for the race of its finalists,
            where it is large enough.

    Rows with the same content (classification: the same text, whatever its label) are kept together, and
    so are those of one group. Shares are drawn label by label, and each label leaves rows to train.

    Raises:
        ConfigError: a share outside (0, 1), or shares that leave nothing to train on.
        DataError: too few groups to share, a source that does not fit, or a label that
            train does not have.
    """
    _check_shares(validation, test)
    shares: dict[str, float] = {}
    sources = {"train": train}
    for name, asked in (("validation", validation), ("test", test)):
        if isinstance(asked, str | tuple):
            sources[name] = load_table(asked, split=name)
            check(sources[name], recognised)
        elif asked is not None:
            shares[name] = asked
    if not shares and len(sources) == 1:
        return _checked(Splits(train), recognised)

    # From here on a row is its number in the table of all sources.
    whole = join(train.source, list(sources.values()))
    starts = dict(zip(sources, accumulate(map(len, sources.values()), initial=0), strict=False))
    sides: dict[str, list[int]] = {"train": [], "validation": [], "confirm": [], "test": []}
    for name, table in sources.items():
        sides[name] = list(range(starts[name], starts[name] + len(table)))
    found, notes = relations(whole, recognised, group_column)
    groups = groups_of(found, len(train), named=group_column != "auto")
    grouped = bool((groups.numbers != found[0].labels).any())
    draw = _Draw(whole, groups.numbers, recognised, seed, grouped=grouped)
    for number, name in enumerate(("test", "validation")):
        if name in shares:
            sides[name], sides["train"] = draw.share(
                sides["train"], shares[name] * len(train), str(number), name
            )
    if race and sides["validation"]:
        sides["confirm"], sides["validation"] = draw.halves(sides["validation"], LEAST_FOR_RACE)
        if not sides["confirm"]:
            notes.append(
                _none_for_race(len(sides["validation"]), draw.groups_in(sides["validation"]), validation)
            )

    home = {name: name if name in sources else "train" for name in sides}
    home["confirm"] = home["validation"]
    given = frozenset(name for name, source in home.items() if source != "train")
    notes += [
        *(groups.notes if shares else ()),
        *_without_repeats(sides, found[0].labels, given),
        *draw.notes,
    ]
    parts = {
        name: sources[home[name]].take(row - starts[home[name]] for row in rows) if rows else NO_ROWS
        for name, rows in sides.items()
    }
    numbers = {name: tuple(int(groups.numbers[row]) for row in rows) for name, rows in sides.items()}
    told = Splits(
        **parts,
        given=given,
        overlaps=overlaps(found, sides),
        notes=tuple(notes),
        groups=numbers,
        repeats={name: repeats_within(found, rows) for name, rows in sides.items() if rows},
    )
    return _checked(told, recognised)


def _check_shares(validation: Split, test: Split) -> None:
    shares = {"validation": validation, "test": test}
    for name, share in shares.items():
        if isinstance(share, float | int) and not 0 < share < 1:
            raise ConfigError(
                f"`data.{name}` is {share} but a share must lie between 0 and 1",
                next=f"try 0.1, a file, or null for no {name} split",
            )
    total = sum(share for share in shares.values() if isinstance(share, float | int))
    if total >= 1:
        raise ConfigError(
            f"`data.validation` and `data.test` together take {total:g} of the rows",
            need="less than 1",
            next="make one of the two smaller, or a file",
        )


class _Draw:
    """Draws shares of a table: whole groups, evenly over the labels."""

    def __init__(
        self, table: Table, groups: Labels, recognised: Recognised, seed: int, *, grouped: bool
    ) -> None:
        self.table = table
        self.groups = groups
        self.seed = seed
        self.grouped = grouped
        classified = recognised.task == "seq_cls"
        self.classified = classified
        labels = [(recognised.label(row) if classified else None) or "" for row in table.rows]
        # Sources that are mixed have their own part of every split, as labels have.
        parts = table.parts or ("",) * len(labels)
        self.labels = [
            f"{part}/{label}" if part else label for part, label in zip(parts, labels, strict=True)
        ]
        self.notes: list[str] = []

    def share(
        self, rows: Sequence[int], wanted: float, salt: str, name: str
    ) -> tuple[list[int], list[int]]:
        """About `wanted` of `rows`, at most one group fewer; and the others. Both in their order.

        Raises:
            DataError: no group can be spared: there is but one, or one of each label.
        """
        rng = random.Random(f"{self.seed}/{salt}")
        strata = self._strata(rows)
        rng.shuffle(strata)  # else the alphabet would decide which of many small labels are drawn from
        for groups in strata:
            rng.shuffle(groups)
        everything = [group for groups in strata for group in groups]
        left = Counter(self.labels[row] for row in rows)
        drawn: list[int] = []
        shared = wanted / len(rows)
        taken = set[int]()
        rows_seen = groups_seen = 0

        def take(group: list[int], most: float) -> None:
            counts = Counter(self.labels[row] for row in group)
            # Taken already, more rows than asked for, or the last rows of a label.
            if (
                group[0] in taken
                or len(drawn) + len(group) > round(most)
                or any(left[each] == n for each, n in counts.items())
            ):
                return
            left.subtract(counts)
            taken.add(group[0])
            drawn.extend(group)

        # Running totals round, not each label: many small labels still add up to the share. Groups are
        # held to the share too, or a text that fills half the table would leave all the others to the
        # draw.
        for groups in strata:
            rows_seen += sum(map(len, groups))
            groups_seen += len(groups)
            for group in groups:
                if len(taken) < round(shared * groups_seen):
                    take(group, shared * rows_seen)
        # What rounding left out, as long as any group still fits. Then one group at least, the smallest.
        largest = max(map(len, everything))
        for group in everything:
            if not drawn or wanted - len(drawn) >= largest:
                take(group, wanted)
        if not drawn:
            for group in sorted(everything, key=len):
                if not drawn:
                    take(group, len(rows))
            if not drawn:
                raise self._too_few(rows, len(everything), name)
            if len(drawn) > 2 * max(1.0, wanted):
                self.notes.append(
                    f"the smallest group has {len(drawn):,} rows: {name} has those, where {wanted:.0f}"
                    " were asked for"
                )
        inside = set(drawn)
        return sorted(drawn), [row for row in rows if row not in inside]

    def halves(self, rows: Sequence[int], least: int) -> tuple[list[int], list[int]]:
        """Half of `rows`, and the others; nothing and all of them where either would
        hold fewer groups than `least`."""
        if self.groups_in(rows) >= 2 * least:
            # Rows of which each has a class of its own cannot be shared out, and no one asked for that.
            with suppress(DataError):
                half, others = self.share(rows, len(rows) / 2, "confirm", "confirm")
                if min(map(self.groups_in, (half, others))) >= least:
                    return half, others
        return [], list(rows)

    def groups_in(self, rows: Iterable[int]) -> int:
        """How many groups these rows are of."""
        return len({int(self.groups[row]) for row in rows})

    def _strata(self, rows: Iterable[int]) -> list[list[list[int]]]:
        """Groups by the label of their first row, in the order of the labels. Without
        labels there is one stratum."""
        members: dict[int, list[int]] = {}
        for row in rows:
            members.setdefault(int(self.groups[row]), []).append(row)
        strata: dict[str, list[list[int]]] = {}
        for group in members.values():
            strata.setdefault(self.labels[group[0]], []).append(group)
        return [strata[label] for label in sorted(strata)]

    def _too_few(self, rows: Sequence[int], groups: int, name: str) -> DataError:
        what, which = (
            ("groups of rows", "in groups") if self.grouped else ("different rows", "different")
        )
        return DataError(
            f"{self.table.source} has too few {what} to take {name} rows from",
            got=f"{len(rows)} rows, {groups} {which}",
            need=f"at least 2 {what}{' of one label' if self.classified else ''}",
            next=f"add rows, or set `data.{name}` to a file or null"
            + (", or `data.group_column` to a finer column or null" if self.grouped else ""),
        )


def _none_for_race(rows: int, groups: int, asked: Split) -> str:
    """Why no rows are kept from the search, what follows, and what would change it."""
    what = "rows" if groups == rows else "groups"
    counted = f"{rows:,} validation rows{'' if groups == rows else f' in {groups:,} groups'}"
    follows = "a race of `tune` is scored on rows that the choice has seen"
    if groups >= 2 * LEAST_FOR_RACE:
        return (
            f"{counted} cannot be divided into halves of {LEAST_FOR_RACE} {what}, with every label in"
            f" both: {follows}"
        )
    share = (
        math.ceil(100 * asked * 2 * LEAST_FOR_RACE / groups) / 100 if isinstance(asked, float) else 1.0
    )
    more = f" (`data.validation` of {share:g} would give them)" if share <= MOST_VALIDATION else ""
    return (
        f"{counted} are too few to keep half of them for the race of `tune`, which takes"
        f" {2 * LEAST_FOR_RACE}{more}: it is scored on rows that the choice has seen"
    )


def _without_repeats(sides: dict[str, list[int]], content: Labels, given: frozenset[str]) -> list[str]:
    """Where groups had to be divided: take rows that repeat an earlier split out of the
    splits that were drawn."""
    notes: list[str] = []
    order = [name for name in sides if name not in given]
    for number, name in enumerate(order[1:], start=1):
        earlier = {int(content[row]) for each in order[:number] for row in sides[each]}
        kept = [row for row in sides[name] if int(content[row]) not in earlier]
        if len(kept) < len(sides[name]):
            notes.append(
                f"{len(sides[name]) - len(kept):,} {name} rows say what other rows say, and are left out"
            )
        sides[name] = kept
    return notes


def _checked(splits: Splits, recognised: Recognised) -> Splits:
    if recognised.task == "seq_cls":
        _check_labels(splits, recognised)
    return splits


def _check_labels(splits: Splits, recognised: Recognised) -> None:
    known = labels_of(splits.train, recognised)
    if len(known) < 2:
        raise DataError(
            f"{splits.train.source} has {'only one label' if known else 'no labels'}",
            got=(
                f"`{listed(known)}` in all {len(splits.train)} rows"
                if known
                else "rows whose label is empty, null or not a number"
            ),
            need="at least 2 labels to tell apart",
            next="check `data.label_column`",
        )
    classes = set(known)
    for name, table in splits.tables.items():
        for index, row in enumerate(table.rows):
            label = recognised.label(row)
            if label is not None and label not in classes:
                raise DataError(
                    f"the label `{label}` is in {name} but not in train",
                    where=table.origin(index),
                    need=f"one of the labels of train: {shown(known)}",
                    next=_advice(label, name),
                )


def _advice(label: str, split: str) -> str:
    if label == "-1":
        return (
            f"-1 marks rows whose labels are kept secret, which cannot be scored: set `data.{split}` to"
            " a share or null"
        )
    return "add rows with this label to train, or remove this row"


def labels_of(table: Table, recognised: Recognised) -> tuple[str, ...]:
    """The classes of a table; rows that have none are passed over."""
    return sort_labels({label for row in table.rows if (label := recognised.label(row)) is not None})
