"""How varied texts are worded, and which of their words other texts lack.

Texts are in their normal form (`said.normal`), and words those of `near`: without punctuation. Runs of
words (n-grams) stay inside one text.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loraloom.data.near import mixed, words_of

MOST_WORDS = 20_000
"""Words among which runs are counted. The share of different runs falls with the number of words, so
that only equal numbers of words can be compared."""
SIZES = (1, 2, 3)
OPENING = 3
"""Words by which a text begins, that tell one way of asking from another."""
NAMED = 5
"""Words that are named as examples."""


@dataclass(frozen=True)
class Wording:
    """Runs of words of a draw of texts.

    Attributes:
        words: in the draw.
        distinct: n -> different runs of n words, as a share of all (distinct-n; Li et al.,
            arXiv:1510.03055).
        repeated: n -> share of the runs that occur in more than one text.
    """

    words: int
    distinct: Mapping[int, float]
    repeated: Mapping[int, float]


@dataclass(frozen=True)
class Lacking:
    """Held-out texts with something that no training text has.

    What is new even where both are drawn alike is estimated from training: its texts with something that
    no other training text has (leave one out; I. J. Good, Biometrika 40, 1953). Equal texts count once.

    Attributes:
        texts: looked at.
        new_words: of these, those with a word that training lacks.
        usual_words: share of the training texts with a word of their own.
        new_share, usual_share: the same of words and not of texts: how many of all are new.
        new_openings, usual_openings: texts whose first words are new.
        words: new words, with the number of texts that have each; the most frequent first.
        openings: the same of openings.
    """

    texts: int
    new_words: int
    usual_words: float
    new_share: float
    usual_share: float
    new_openings: int
    usual_openings: float
    words: tuple[tuple[str, int], ...] = ()
    openings: tuple[tuple[str, int], ...] = ()


def wording_of(texts: Sequence[str], seed: int, most_words: int = MOST_WORDS) -> Wording:
    """Distinct and repeated runs of texts drawn one after the other, until there are so many words.

    Args:
        texts: at any length.
        seed: of the draw.
        most_words: the last text is taken as far as it goes.
    """
    drawn: list[list[str]] = []
    left = most_words
    for number in random.Random(seed).sample(range(len(texts)), len(texts)):
        drawn.append(words_of(texts[number])[:left])
        left -= len(drawn[-1])
        if left <= 0:
            break
    vocabulary: dict[str, int] = {}
    ids = [np.array([vocabulary.setdefault(w, len(vocabulary)) for w in each]) for each in drawn]
    distinct: dict[int, float] = {}
    repeated: dict[int, float] = {}
    for size in SIZES:
        runs = [_runs(each, size) for each in ids]
        flat = np.concatenate(runs) if runs else np.zeros(0, dtype=np.uint64)
        _, number, count = np.unique(flat, return_inverse=True, return_counts=True)
        once = np.concatenate([np.unique(each) for each in runs]) if runs else flat
        _, texts_with = np.unique(once, return_counts=True)
        total = max(1, len(flat))
        distinct[size] = len(count) / total
        repeated[size] = float((texts_with[number] > 1).sum()) / total
    return Wording(sum(map(len, drawn)), distinct, repeated)


def lacking(train: Sequence[str], held_out: Mapping[str, Sequence[str]]) -> dict[str, Lacking]:
    """What the texts of each held-out split have that no text of `train` has."""
    words: Counter[str] = Counter()
    openings: Counter[str] = Counter()
    own = [_said(text) for text in dict.fromkeys(train)]
    for each in own:
        words.update(each.words.keys())
        openings[each.opening] += 1
    usual = _new(own, lambda word: words[word] == 1, lambda opening: openings[opening] == 1)
    texts = max(1, len(own))
    found: dict[str, Lacking] = {}
    for name in held_out:
        content = [_said(text) for text in held_out[name]]
        new = _new(content, lambda word: word not in words, lambda opening: opening not in openings)
        found[name] = Lacking(
            len(content),
            new.texts,
            usual.texts / texts,
            new.share,
            usual.share,
            new.openings.total(),
            usual.openings.total() / texts,
            _most(new.words),
            _most(new.openings),
        )
    return found


@dataclass(frozen=True)
class _Said:
    """The words of a text that are no numbers, with their counts, and how it begins."""

    words: Counter[str]
    opening: str


@dataclass(frozen=True)
class _New:
    """What is new in some texts: how many have a new word, the share of all words, and in how many texts
    each new word and opening is."""

    texts: int
    share: float
    words: Counter[str]
    openings: Counter[str]


def _new(
    texts: Sequence[_Said], is_new: Callable[[str], bool], begins_anew: Callable[[str], bool]
) -> _New:
    words: Counter[str] = Counter()
    with_new = new = total = 0
    for each in texts:
        own = [word for word in each.words if is_new(word)]
        words.update(own)
        with_new += bool(own)
        new += sum(each.words[word] for word in own)
        total += each.words.total()
    openings = Counter(each.opening for each in texts if begins_anew(each.opening))
    return _New(with_new, new / max(1, total), words, openings)


def _said(text: str) -> _Said:
    said = words_of(text)
    return _Said(Counter(word for word in said if not word.isdigit()), " ".join(said[:OPENING]))


def surprise(new: int, texts: int, usual: float) -> float:
    """By how many standard errors a share of new ones is above the usual one."""
    error = math.sqrt(max(usual * (1 - usual), 1 / max(1, texts)) / max(1, texts))
    return (new / max(1, texts) - usual) / error


def _most(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:NAMED])


def _runs(ids: NDArray[np.int64], size: int) -> NDArray[np.uint64]:
    """A hash of each run of `size` words of one text."""
    count = max(0, len(ids) - size + 1)
    runs = np.zeros(count, dtype=np.uint64)
    for offset in range(size):
        runs = mixed(runs + ids[offset : offset + count].astype(np.uint64))
    return runs
