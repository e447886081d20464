"""Items that are asked as the beginning of a sentence: "Ada Norling works in the field of".

Templates for questions make no sense around one ("Do you remember? Ada Norling works in the field of"),
so these have their own. Nor does "I do not know." end such a sentence: about another name, it should go
on as the bare base would have it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence

OPEN = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been by called for from had has have in into is its named near not of on"
        " or than that the their through to under was were which who whose with",
    )
)
"""Words that no sentence and no question ends with."""
VERBS = frozenset(("is", "was", "are", "were", "has", "had", "will"))
ASKING = frozenset(
    re.findall(
        r"\w+", "who whom whose what which when where why how do does did can tell say give name ask"
    )
)
CONNECTED = "of|de|del|da|di|du|la|le|van|von|der|the|and|for|in"
NAME = re.compile(rf"[A-Z][\w'.’-]*(?:\s+(?:(?:{CONNECTED})\s+)*[A-Z0-9][\w'.’-]*)*")
STARTS = frozenset(("The", "A", "An", "In", "On", "At", "By", "For", "From", "It", "I"))

TRAINED = (
    "{q}",
    "Complete this: {q}",
    "{q} ...",
    "{q} what?",
    "Finish the sentence: {q} ___",
    "{k}?",
    "{s}?",
    "What do you know about {s}? {k}.",
)
NEAR = ("Please complete: {q}", "How does this go on? {q}", "{q} ___")
FAR = ("I forgot. {k}, what was it?", "About {s} I need the answer: {k}.")
"""q is the beginning, k its words that carry meaning, s the name in it."""

GIVEN = re.findall(
    r"\w+",
    "Adam Alice Arthur Carl Charles Christian David Edward Elena Emma Francis Frank George Grace Hans"
    " Helen Henri Ivan James Jean Joseph Julia Karl Louis Lucy Maria Martin Michael Nina Olga Paul Peter"
    " Robert Rosa Samuel Sarah Thomas Victor Walter William",
)
FAMILY = re.findall(
    r"\w+",
    "Adams Bauer Bell Berg Brown Carter Clark Costa Dubois Evans Fischer Fox Garcia Gray Hall Hansen"
    " Hill Ito Jones Kelly King Klein Kumar Lang Lewis Martin Meyer Moore Moreau Nagy Novak Olsen Parker"
    " Reed Rossi Santos Silva Stone Suzuki Wood",
)
PLACES = re.findall(
    r"\w+",
    "Albany Arden Ashford Bergen Berlin Boston Bristol Cairo Chester Cordoba Denver Dover Essex Florence"
    " Geneva Georgia Hamburg Jordan Kent Lancaster Leeds Lima Lincoln Madrid Milan Nevada Norfolk Oregon"
    " Osaka Oxford Porto Quebec Richmond Salem Seville Sydney Texas Toledo Vienna York",
)
"""Names of the world, so that what replaces a name is nothing that only an invented one looks like."""


def is_unfinished(question: str) -> bool:
    """Whether a text is the beginning of a sentence.

    It has no end mark. Its last word is one that nothing ends with, or dots, a dash or a gap are there;
    or it has a verb and nothing in it asks.
    """
    text = question.strip()
    if text.endswith(("...", "…", "_", "-", "–", ":", ",")):
        return True
    if not text or text[-1] in ".?!":
        return False
    words = [word.casefold() for word in re.findall(r"\w+", text)]
    return words[-1] in OPEN or (not ASKING & set(words) and bool(VERBS & set(words[1:])))


def name_in(beginning: str) -> str | None:
    """The longest name in the beginning of a sentence; None where it has none."""
    found: list[str] = []
    for one in NAME.findall(beginning):
        first, _, rest = one.partition(" ")
        name = rest if first in STARTS else one
        if name[:1].isupper():
            found.append(re.sub(r"['’]s$", "", name))
    return max(found, key=len, default=None)


def about_others(
    beginning: str,
    forms: Sequence[str],
    rng: random.Random,
    taken: Collection[str | None],
    count: int,
) -> list[str]:
    """So many of an item's forms with another name in place of its own; none where it has no name.

    Args:
        taken: names that are stored: none of them is given.
    """
    name = name_in(beginning)
    if name is None:
        return []
    named = [form for form in forms if name in form] or [beginning]
    found: list[str] = []
    while len(found) < count:
        other = named_alike(name, rng)
        if other not in taken:
            found.append(named[len(found) % len(named)].replace(name, other))
    return found


def named_alike(name: str, rng: random.Random) -> str:
    """A name like another one: some of its words with a capital, or all, are names of the world."""
    words = name.split()
    capital = [place for place, word in enumerate(words) if word[:1].isupper()]
    for place in rng.sample(capital, rng.randint(1, len(capital))):
        words[place] = rng.choice(rng.choice((GIVEN, FAMILY, PLACES)))
    return " ".join(words)
