"""Names and words that mean nothing: what a question is like whose name nobody wrote, and one whose
words nobody knows."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Collection, Sequence

ONSETS = re.findall(r"\w+", "b br d dr f g gr h j k kl l m n p pr r s st t th v w z")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea")
ENDINGS = ("n", "r", "l", "s", "k", "th", "nd", "x", "")
ASKING = ("how", "what", "when", "where", "which", "who", "whose", "why")
VAGUE = (
    "{v} {a} {s} {b}?",
    "{v} {a} does {s} {b}?",
    "{v} {a} {b} {s} {c}?",
    "{v} of the {a} {b} {s}?",
    "{s} {a} {v} {b}?",
    "{a} {s}, {b} {c}.",
    "{v} is the {a} that {b} {s}?",
    "the {a} for {s} {b}: {v}?",
)
"""v is a word that asks, s a name, the others words that say nothing, or one of them a relation."""
EMPTY_WORDS = tuple(
    re.findall(
        r"\w+",
        "thing come give take put turn carry under above before again often little kind side part hold"
        " bring keep show around inside every long open move stand use need help first other good great"
        " walk look week name place still own near between far end begin day light line word road house",
    )
)


def vague(rng: random.Random, name: str, relation: str | None) -> str:
    """A question about a name in words that say nothing, but for a relation where one is given."""
    first, second, third = rng.sample(EMPTY_WORDS, 3)
    text = rng.choice(VAGUE).format(s=name, v=rng.choice(ASKING), a=relation or first, b=second, c=third)
    return text[:1].upper() + text[1:]


def invented_name(rng: random.Random, taken: Collection[str]) -> str:
    """A name of two or three syllables that is not taken."""
    while True:
        syllables = rng.choice((2, 2, 3))
        stem = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(syllables))
        name = (stem + rng.choice(ENDINGS)).capitalize()
        if name.casefold() not in taken:
            return name


def name_like(rng: random.Random, name: str, others: Sequence[str], taken: Collection[str]) -> str:
    """A name that begins as one that is stored and ends as another, and is not taken."""
    for _ in range(100):
        other = rng.choice(others)
        made = name[: max(2, rng.randrange(len(name)))] + other[len(other) // 2 :]
        if made.casefold() not in taken:
            return made
    return invented_name(rng, taken)


def drawer(of: str) -> random.Random:
    """Draws the same for the same words, in whatever process."""
    digest = hashlib.blake2b(of.encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "little"))
