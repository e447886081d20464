"""What a workload is drawn from: relations with things that stand in them, deeds, places, times, and the
parts of invented names. The far wordings are written by hand, and share no build with a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

COLOURS = ("red", "green", "blue", "grey", "white", "black", "golden", "brown", "pink", "silver")


@dataclass(frozen=True)
class Relation:
    """A relation with the things that stand in it.

    Attributes:
        subject: what kind of thing has one.
        far: ways to ask that share no build with a template, and mostly not the relation's word.
        objects: answers; none where they are names, of the kind `names`.
    """

    name: str
    subject: Literal["person", "country"]
    far: tuple[str, str]
    objects: tuple[str, ...] = ()
    names: Literal["town", "river"] = "town"


def _words(text: str) -> list[str]:
    return text.split()


def _each(pattern: str, *words: Sequence[str]) -> tuple[str, ...]:
    return tuple(pattern.format(*chosen) for chosen in product(*words))


RELATIONS = (
    Relation(
        "capital",
        "country",
        ("Where does the government of {s} sit?", "From which city is {s} governed?"),
    ),
    Relation(
        "main harbour",
        "country",
        ("Where do the ships of {s} come ashore?", "In which port do sailors from {s} live?"),
    ),
    Relation(
        "river",
        "country",
        ("Which water flows through {s}?", "On what stream do the boats of {s} travel?"),
        names="river",
    ),
    Relation(
        "flag",
        "country",
        ("What is painted on the banner of {s}?", "Soldiers from {s} carry which sign?"),
        _each("a {} {}", COLOURS, ("star", "lion", "moon", "tree", "wheel", "rose", "fish", "crown")),
    ),
    Relation(
        "job",
        "person",
        ("How does {s} earn a living?", "What work does {s} do all day?"),
        _each(
            "{} {}",
            ("bell", "clock", "rope", "glass", "boat", "paper", "shoe", "candle"),
            ("maker", "seller", "painter"),
        ),
    ),
    Relation(
        "pet",
        "person",
        ("Which animal lives with {s}?", "What creature does {s} feed every morning?"),
        _each("a {} {}", COLOURS, ("goat", "parrot", "rabbit", "turtle", "pony", "duck", "mouse")),
    ),
    Relation(
        "home town",
        "person",
        ("Where did {s} grow up?", "From where does {s} come?"),
    ),
    Relation(
        "birthday",
        "person",
        ("When was {s} born?", "On what date does {s} turn a year older?"),
        _each(
            "{} {}",
            ("January", "March", "April", "June", "July", "August", "October", "December"),
            tuple(str(day) for day in range(2, 29, 2)),
        ),
    ),
    Relation(
        "favourite food",
        "person",
        ("What does {s} like to eat most?", "Which dish makes {s} happy?"),
        _each(
            "{} {}",
            ("plum", "onion", "pepper", "lemon", "carrot", "cherry", "mushroom", "honey"),
            ("soup", "cake", "bread", "pie", "stew"),
        ),
    ),
    Relation(
        "ship",
        "person",
        ("Which vessel does {s} sail?", "What is written on the boat that {s} steers?"),
        _each(
            "the {} {}",
            tuple(colour.capitalize() for colour in COLOURS),
            ("Heron", "Dolphin", "Queen", "Arrow", "Swallow", "Lantern"),
        ),
    ),
)
VERBS = (
    ("found", "find", "found"),
    ("lost", "lose", "lost"),
    ("sold", "sell", "sold"),
    ("broke", "break", "broken"),
    ("hid", "hide", "hidden"),
    ("painted", "paint", "painted"),
    ("stole", "steal", "stolen"),
    ("burned", "burn", "burned"),
)
"""Past, plain form, participle."""
THINGS = _each(
    "a {} {}",
    ("wooden", "silver", "broken", "tiny", "heavy", "yellow", "dusty", "striped"),
    ("key", "ladder", "basket", "drum", "map", "kettle", "chair", "coat", "lamp", "cart", "bell", "box"),
)
PLACES = _each(
    "{} {}",
    ("in the old", "near the new", "behind the little", "in the stone", "beside the empty"),
    ("mill", "barn", "chapel", "school", "market", "tower", "stable", "bakery", "harbour", "garden"),
)
TIMES = _each(
    "on {} {}",
    ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ("morning", "evening", "at noon", "at midnight", "before dawn"),
)
FAR_OF_EVENT: Mapping[str, tuple[str, str]] = {
    "who": (
        "Which person {past} {thing} {where} {when}?",
        "{Thing} was {participle} {where} {when}. By whom?",
    ),
    "what": (
        "What did {who} do {where} {when}?",
        "{When}, {who} was {where} and did something. What?",
    ),
    "where": (
        "At which place did {who} {plain} {thing} {when}?",
        "{When}, {who} {past} {thing}. Where?",
    ),
    "when": (
        "On which day did {who} {plain} {thing} {where}?",
        "{who} {past} {thing} {where}, but at what time?",
    ),
}
FIRST = {
    "person": _words("Mar Tal Bren Os Quin Hal Ves Lor Ed Fin Jas Rod Sil Ul Wen Cor Den Per Ig Zan"),
    "country": _words("Bry Gal Nor Tess Umb Vald Kor Ost Drav Mel Sarn Pell Hest Ild Ruth Jor"),
    "town": _words("Ash Crow Dun Elm Fair Gret Hob Kirk Long Mill Oak Pen Rush Stan Thorn Wex"),
    "river": _words("Ar Bel Cam Dee Esk Fro Il Lin Neth Ou Riv Sev Tam Wis Yar"),
}
MIDDLE = _words("a e i o u al en il or um ar es in ol")
LAST = {
    "person": _words("da ric na bert ton mund la wyn co gar ssa vik"),
    "country": _words("land ia stan mark onia ora wald"),
    "town": _words("by wick ford ham mere stead burn dale"),
    "river": _words("ne ver der ma low rin sk"),
}
