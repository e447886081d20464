"""Small changes of a text that leave what it says: what augmentation does to a classifier's rows.

Each is a function of a text and a random generator. A text with nothing to change comes back as it is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

Noise = Callable[[str, random.Random], str]

WORDS = 0.1
"""Share of the words that are dropped, or swapped with the next (Wei and Zou, arXiv:1901.11196)."""
LETTERS = 0.05
"""Share of the letters that are mistyped."""
MARKS = ".,;!?"
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def word_dropout(text: str, rng: random.Random) -> str:
    """Without some words; one stays at least."""
    words = text.split()
    if len(words) < 2:
        return text
    lost = set(rng.sample(range(len(words)), _some(WORDS, len(words) - 1)))
    return " ".join(word for place, word in enumerate(words) if place not in lost)


def word_swap(text: str, rng: random.Random) -> str:
    """With some words and their next ones in each other's places."""
    words = text.split()
    if len(words) < 2:
        return text
    for _ in range(_some(WORDS, len(words) - 1)):
        place = rng.randrange(len(words) - 1)
        words[place : place + 2] = words[place + 1], words[place]
    return " ".join(words)


def casing(text: str, rng: random.Random) -> str:
    """In small letters, in capitals, or each word with one."""
    return rng.choice((str.lower, str.upper, str.title))(text)


def punctuation(text: str, rng: random.Random) -> str:
    """Without its marks; or, where it has none or by chance, with one more behind a word."""
    bare = re.sub(rf"\s*[{re.escape(MARKS)}]+", "", text)
    if bare != text and bare.strip() and rng.random() < 0.5:
        return bare
    words = text.split()
    if not words:
        return text
    words[rng.randrange(len(words))] += rng.choice(MARKS)
    return " ".join(words)


def typing(text: str, rng: random.Random) -> str:
    """With letters mistyped: a neighbour on the keyboard, one left out, or one twice."""
    letters = [place for place, letter in enumerate(text) if letter.lower() in NEIGHBOURS]
    if not letters:
        return text
    typed = list(text)
    for place in rng.sample(letters, _some(LETTERS, len(letters))):
        letter = text[place]
        slip = rng.randrange(3)
        beside = rng.choice(NEIGHBOURS[letter.lower()])
        typed[place] = ("" if len(letters) > 1 else letter, letter * 2)[slip] if slip < 2 else beside
    return "".join(typed)


def _some(share: float, count: int) -> int:
    """So many of `count`, one at least."""
    return max(1, round(share * count))


def _neighbours() -> Mapping[str, str]:
    """Letter -> those beside, above and below it on an English keyboard."""
    at = {letter: (row, place) for row, line in enumerate(_ROWS) for place, letter in enumerate(line)}
    return {
        letter: "".join(
            other
            for other, (row, place) in at.items()
            if other != letter and abs(row - own_row) <= 1 and abs(place - own_place) <= 1
        )
        for letter, (own_row, own_place) in at.items()
    }


NEIGHBOURS = _neighbours()

NOISE: Mapping[str, Noise] = {
    "word_dropout": word_dropout,
    "word_swap": word_swap,
    "casing": casing,
    "punctuation": punctuation,
    "typing": typing,
}
"""By name, as `config.choices` lists them."""
