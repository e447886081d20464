"""What the diversity of a run's rows means, and what to do: one line a matter, for `check` and page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from loraloom.data.diversity import Diversity, SplitDiversity
from loraloom.data.wording import Lacking, Wording, surprise
from loraloom.diagnose.data import LEAKED_SHARE
from loraloom.report.words import share

MANY = 0.05
"""Share of the rows (or of the letters) from which a thing is worth a change."""
TEMPLATED = 0.5
"""Share of the runs of three words that other rows have too, from which rows are a template."""
UNEQUAL = 10
"""The largest class has this many times the rows of the smallest."""
MORE = 1.5
"""The share of new words is this many times the expected one."""
ERRORS = 3
"""Standard errors by which held-out rows are newer than chance would have it."""
SAME, NEAR = "the same", "nearly"
NAMED = 3
"""Files or classes that a line names."""


@dataclass(frozen=True)
class Line:
    """One matter: what was found, with its unit; what it means and what to do, where it asks for
    something; examples."""

    name: str
    found: str
    means: str = ""
    do: str = ""
    examples: str = ""

    @property
    def asks(self) -> bool:
        return bool(self.do)


def lines_of(diversity: Diversity) -> list[Line]:
    """Every matter that these rows have something to say on."""
    train = diversity.splits["train"]
    return [
        _repeats(train),
        *_shared(diversity),
        *(_wording(side, each) for side, each in diversity.wording.items() if each.words),
        *_lengths(diversity),
        *_labels(diversity),
        *_sources(train),
        *_scripts(diversity),
        *(_new(split, each) for split, each in diversity.lacking.items() if split != "confirm"),
        *(Line("drawn", note) for note in diversity.notes),
    ]


def _repeats(train: SplitDiversity) -> Line:
    same, near = train.repeats.same, train.repeats.near
    beside = f", {near:,} more nearly" if near is not None else ""
    found = f"{same:,} of {train.rows:,} training rows repeat another{beside}"
    if same + (near or 0) <= MANY * train.rows:
        return Line("repeats", found)
    key = "near" if near and near > MANY * train.rows else "true"
    return Line(
        "repeats",
        found,
        "they are learnt several times in each epoch, and count as if they were more data",
        f"--set data.deduplicate={key}, or fewer epochs",
    )


def _shared(diversity: Diversity) -> Iterator[Line]:
    held_out = [split for split in diversity.splits if split != "train"]
    counts = {split: _related(diversity, split) for split in held_out}
    if held_out and not any(map(sum, (each.values() for each in counts.values()))):
        yield Line("shared", "no held-out row says what a row of an earlier split says")
        return
    for split, kinds in counts.items():
        rows = diversity.splits[split].rows
        told = [f"{count:,} {words}" for words, count in kinds.items() if count]
        if not told:
            continue
        found = f"of {rows:,} {split} rows {', '.join(told)}, as in an earlier split"
        if kinds[SAME] + kinds[NEAR] <= LEAKED_SHARE * rows:
            yield Line("shared", found)
            continue
        source = "validation" if split == "confirm" else split
        yield Line(
            "shared",
            found,
            "scores on these rows look better than they are",
            f"take them out, or draw the rows: --set data.{source}=0.1"
            if source in diversity.given
            else "--set data.deduplicate=near",
        )


def _related(diversity: Diversity, split: str) -> dict[str, int]:
    """Rows of a split by what they have in common with a row of an earlier one."""
    words = {"content": SAME, "near": NEAR, "asked": "asked the same"}
    return dict.fromkeys(words.values(), 0) | {
        words[each.kind]: each.rows
        for each in diversity.overlaps
        if each.split == split and each.kind in words
    }


def _wording(side: str, wording: Wording) -> Line:
    distinct = " ".join(f"{each:.0%}" for each in wording.distinct.values())
    found = (
        f"different runs of 1, 2, 3 words: {distinct} of {wording.words:,} words;"
        f" {wording.repeated[3]:.0%} of the runs of 3 are in several rows"
    )
    if wording.repeated[3] <= TEMPLATED:
        return Line(side, found)
    return Line(
        side,
        found,
        "most of what these rows say is one template, filled in",
        "more different rows teach more than more epochs over these",
    )


def _lengths(diversity: Diversity) -> Iterator[Line]:
    train = diversity.splits["train"]
    if not train.lengths:
        return
    least, _, middle, most, longest = train.lengths.values()
    others = [
        f"{split} {each.lengths[50]:,}"
        for split, each in diversity.splits.items()
        if split in ("validation", "test") and each.lengths
    ]
    beside = f"; median of {', '.join(others)}" if others else ""
    found = f"{least:,} to {longest:,} tokens, median {middle:,}, 95% up to {most:,}{beside}"
    too_long = [
        f"{each.longer:,} of {each.rows:,} {split} rows"
        for split, each in diversity.splits.items()
        if each.longer > MANY * each.rows
    ]
    if not too_long:
        yield Line("lengths", found)
        return
    yield Line(
        "lengths",
        found,
        f"{' and '.join(too_long)} are longer than any training row",
        "add rows of that length to training, or the score says little about them",
    )


def _labels(diversity: Diversity) -> Iterator[Line]:
    train = diversity.splits["train"]
    total = sum(train.labels.values())
    if not total:
        return
    ranked = sorted(train.labels.items(), key=lambda one: one[1])
    (small, fewest), (large, most) = ranked[0], ranked[-1]
    found = (
        f"{len(ranked)} classes: {share(most, total)} {_named(large)} to"
        f" {share(fewest, total)} {_named(small)}"
    )
    moved = [
        f"{split} differs by {100 * by:.1f} points in {_named(label)}"
        for split, each in diversity.splits.items()
        if split in ("validation", "test") and each.labels
        for label, by, error in [_moved(train, each)]
        if by > max(MANY, ERRORS * error)
    ]
    if moved:
        means = f"{'; '.join(moved)}: scores weigh the classes otherwise than training does"
        yield Line("labels", found, means, "--set data.test=0.1, or macro_f1 beside accuracy")
    elif most >= UNEQUAL * fewest:
        means = "accuracy hardly sees the smallest class"
        yield Line(
            "labels", found, means, "read macro_f1 beside accuracy, or add rows of the small ones"
        )
    else:
        yield Line("labels", found)


def _moved(train: SplitDiversity, other: SplitDiversity) -> tuple[str, float, float]:
    """The class whose share differs most, by how much, and the standard error of that."""
    rows, others = sum(train.labels.values()), max(1, sum(other.labels.values()))

    def apart(label: str) -> float:
        return abs(train.labels[label] / rows - other.labels.get(label, 0) / others)

    label = max(train.labels, key=apart)
    usual = train.labels[label] / rows
    return label, apart(label), (usual * (1 - usual) * (1 / rows + 1 / others)) ** 0.5


def _sources(train: SplitDiversity) -> Iterator[Line]:
    if len(train.sources) < 2:
        return
    ranked = sorted(train.sources.items(), key=lambda one: -one[1])
    told = [f"{PurePath(source).name} {share(rows, train.rows)}" for source, rows in ranked]
    yield Line("sources", f"{len(ranked)} files: {_first(told)}")


def _scripts(diversity: Diversity) -> Iterator[Line]:
    train = diversity.splits["train"].scripts
    if not train:
        return
    told = [f"{script} {of_letters:.1%}" for script, of_letters in train.items()]
    found = f"{_first(told)} of the letters"
    strange = [
        f"{of_letters - train.get(script, 0.0):.0%} more {script} in {split}"
        for split, each in diversity.splits.items()
        for script, of_letters in each.scripts.items()
        if of_letters - train.get(script, 0.0) > MANY
    ]
    if strange:
        means = f"{_first(strange)}: training hardly has that language"
        yield Line("scripts", found, means, "add such rows to training, or take them out")
    else:
        yield Line("scripts", found)


def _new(split: str, lacking: Lacking) -> Line:
    """Words and openings that no training row has, beside what rows of one source would have of them."""
    found = (
        f"{share(lacking.new_words, lacking.texts)} of {lacking.texts:,} rows have a new word,"
        f" {lacking.usual_words:.0%} expected; {lacking.new_share:.1%} of the words are new,"
        f" {lacking.usual_share:.1%} expected; {share(lacking.new_openings, lacking.texts)} of the rows"
        f" begin in a new way, {lacking.usual_openings:.0%} expected"
    )
    name = f"new in {split}"
    examples = _first([f"{word} ({rows:,})" for word, rows in lacking.words], len(lacking.words))
    if lacking.openings:
        begun = [f'"{opening}" ({rows:,})' for opening, rows in lacking.openings]
        examples = f"{examples}; begin with {_first(begun, len(begun))}".removeprefix("; ")
    newer = [
        what
        for what, new, usual in (
            ("words", lacking.new_words, lacking.usual_words),
            ("openings", lacking.new_openings, lacking.usual_openings),
        )
        if new > (usual + MANY) * lacking.texts and surprise(new, lacking.texts, usual) > ERRORS
    ]
    if not newer and lacking.new_share > MORE * lacking.usual_share + 0.01:
        newer = ["words"]
    if not newer:
        return Line(name, found, examples=examples)
    means = f"more new {' and '.join(newer)} than rows of one source have: the score is of other rows"
    do = f"add rows like these to training, or draw the rows: --set data.{split}=0.1"
    return Line(name, found, means, do, examples)


def _first(told: Sequence[str], most: int = NAMED) -> str:
    more = f" and {len(told) - most:,} more" if len(told) > most else ""
    return ", ".join(told[:most]) + more


def _named(label: str) -> str:
    return label if len(label) <= 20 else f"{label[:19]}…"


def asking(lines: Iterable[Line]) -> int:
    """How many lines ask for something."""
    return sum(line.asks for line in lines)
