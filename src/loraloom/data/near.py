"""Which texts are nearly the same: they share at least four in five of their runs of three words.

Runs that many texts have (a template, a fixed instruction) tell nothing and are passed over, and so are
texts with few runs of their own: rows that differ in one number or one name are different rows. What is
left is hashed (MinHash, in bands), and each pair that falls together is compared exactly, so that the
threshold holds. No hash of Python's own is used: the same texts give the same answer on any machine.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
"""[rows]: of each row the first row that it belongs together with, itself if there is none before it."""
Words64 = NDArray[np.uint64]

ALIKE = 0.8
"""Least Jaccard similarity: runs that two texts share, of all runs that either has."""
RUN = 3
"""Words in a run."""
FEWEST = 8
"""Runs of its own that a text needs to be compared at all."""
COMMON_ROWS, COMMON_SHARE = 20, 0.01
"""A run that is in more texts than both is common. No more texts than this are near copies of one
without being told apart from a template."""
BANDS, BAND = 10, 4
"""A pair of similarity s falls together with 1 - (1 - s**BAND)**BANDS: 0.995 at the
threshold, 0.47 at 0.5."""
NEIGHBOURS = 16
"""Within one bucket, each text is compared with this many before it: longer chains of
alike texts are still joined."""
MOST_CHARACTERS = 120_000_000
"""Characters of all texts together; of more, a sample is compared."""

# Scripts without spaces: there each character is a word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_BETWEEN = {code: " " for code in range(128) if not chr(code).isalnum()}


def near_labels(texts: Sequence[str], *, most_characters: int = MOST_CHARACTERS) -> tuple[Labels, int]:
    """Groups of texts that are nearly the same, and how many texts were compared.

    Args:
        texts: in their normal form, each different from the others.
        most_characters: of all of them; of more, a seeded sample is looked at.
    """
    chosen = _sample(texts, most_characters)
    runs, rows = _own_runs([texts[i] for i in chosen])
    kept, starts = np.unique(rows, return_index=True)
    pairs = _alike(runs, starts, _candidates(_signatures(runs, starts))) if len(kept) else []
    number = np.asarray(chosen, dtype=np.int64)
    return components(len(texts), ((int(number[kept[a]]), int(number[kept[b]])) for a, b in pairs)), len(
        chosen
    )


def components(count: int, pairs: Iterable[tuple[int, int]]) -> Labels:
    """Rows that `pairs` hold together, directly or over others."""
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for a, b in pairs:
        first, second = root(a), root(b)
        parent[max(first, second)] = min(first, second)
    return np.array([root(row) for row in range(count)], dtype=np.int64)


def _sample(texts: Sequence[str], most_characters: int) -> list[int]:
    size = sum(map(len, texts))
    if size <= most_characters:
        return list(range(len(texts)))
    return sorted(random.Random(0).sample(range(len(texts)), len(texts) * most_characters // size))


def _own_runs(texts: Sequence[str]) -> tuple[Words64, Labels]:
    """Hashes of the runs by which a text can be told, and the number of its text, ordered by text.

    Texts that cannot be nearly the same as another are left out whole: those with few runs of their own,
    and those of whose runs fewer than `ALIKE` are in any other text.
    """
    vocabulary: dict[str, int] = {}
    words = [[vocabulary.setdefault(word, len(vocabulary)) for word in words_of(text)] for text in texts]
    lengths = np.array([len(each) for each in words], dtype=np.int64)
    flat = np.fromiter(
        (word for each in words for word in each), dtype=np.uint64, count=int(lengths.sum())
    )
    rows = np.repeat(np.arange(len(texts), dtype=np.int64), lengths)

    # All texts lie in one flat array, so that runs are hashed at once; those that lie across two texts
    # are taken out afterwards.
    whole = rows[RUN - 1 :] == rows[: max(0, len(rows) - RUN + 1)]
    runs = np.zeros(len(whole), dtype=np.uint64)
    for offset in range(RUN):
        runs = mixed(runs + flat[offset : len(flat) - RUN + 1 + offset])
    runs, rows = runs[whole], rows[: len(whole)][whole]

    # Sorted by run, equal runs lie beside each other: once for each text, and how many texts have them.
    order = np.argsort(runs, kind="stable")  # stable: the texts of one run stay in order
    runs, rows = runs[order], rows[order]
    once = _changes(runs) | _changes(rows)
    runs, rows = runs[once], rows[once]
    beginnings = np.flatnonzero(_changes(runs))
    holders = np.diff(np.append(beginnings, len(runs)))
    holders = np.repeat(holders, holders)

    # Runs that many texts have are those of a template. And a text of whose own runs too few are in any
    # other cannot reach the threshold with any.
    own = holders <= max(COMMON_ROWS, COMMON_SHARE * len(texts))
    total = np.bincount(rows[own], minlength=len(texts))
    shared = np.bincount(rows[own & (holders > 1)], minlength=len(texts))
    kept = own & ((total >= FEWEST) & (shared >= ALIKE * total))[rows]
    runs, rows = runs[kept], rows[kept]
    order = np.argsort(rows, kind="stable")
    return runs[order], rows[order]


def words_of(text: str) -> list[str]:
    """The words of a text without what stands between them; in scripts without spaces each character."""
    # the first is several times as fast
    return text.translate(_BETWEEN).split() if text.isascii() else _WORD.findall(text)


def _signatures(runs: Words64, starts: NDArray[np.intp]) -> Words64:
    """The least of each of BANDS * BAND hashes of a text's runs, [BANDS * BAND, texts]."""
    multipliers = mixed(np.arange(1, BANDS * BAND + 1, dtype=np.uint64)) | np.uint64(1)
    return np.stack(
        [np.minimum.reduceat(mixed(runs * multiplier), starts) for multiplier in multipliers]
    )


def _candidates(signatures: Words64) -> NDArray[np.int64]:
    """Pairs of texts that agree in a whole band, [pairs, 2], each once."""
    count = signatures.shape[1]
    found: list[NDArray[np.int64]] = []
    for band in range(BANDS):
        key = np.zeros(count, dtype=np.uint64)
        for line in signatures[band * BAND : (band + 1) * BAND]:
            key = mixed(key + line)
        order = np.argsort(key, kind="stable")
        key = key[order]
        for apart in range(1, min(NEIGHBOURS, count - 1) + 1):
            same = np.flatnonzero(key[apart:] == key[:-apart])
            if not len(same):
                break
            found.append(order[same].astype(np.int64) * count + order[same + apart])
    pairs = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)
    return np.stack([pairs // count, pairs % count], axis=1)


def _alike(
    runs: Words64, starts: NDArray[np.intp], pairs: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Those pairs whose runs really are alike."""
    ends = np.append(starts[1:], len(runs))
    sets: dict[int, frozenset[Any]] = {}

    def runs_of(text: int) -> frozenset[Any]:
        if text not in sets:
            sets[text] = frozenset(runs[starts[text] : ends[text]].tolist())
        return sets[text]

    for first, second in pairs.tolist():
        a, b = runs_of(first), runs_of(second)
        both = len(a & b)
        if both >= ALIKE * (len(a) + len(b) - both):
            yield first, second


def _changes(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value differs from the one before it; the first always does."""
    changed = np.ones(len(values), dtype=np.bool_)
    changed[1:] = values[1:] != values[:-1]
    return changed


def mixed(values: Words64) -> Words64:
    """Every bit depends on every bit (the finaliser of splitmix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
