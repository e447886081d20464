"""What follows from the facts of a graph: each of them asked backwards, and two of them in a row.

An adapter learns a fact in the direction that it was asked in, and two facts do not compose by
themselves: what follows has to be said, too. Here it is worked out from the facts that are kept, each
time anew, so that a correction or a forgotten fact carries through.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set

from loraloom.recall.forms import NOT_KNOWN, Distance, Form, named_in
from loraloom.recall.graph import Edge, Role, built_upon, edges_of, plain
from loraloom.recall.state import Entry
from loraloom.recall.vague import drawer, invented_name, name_like

INVERSE = (
    "Whose {r} is {o}?",
    "Of which {t} is {o} the {r}?",
    "{o} is the {r} of which {t}?",
    "Which {t} has {o} as {r}?",
    "Name the {t} whose {r} is {o}.",
    "Say whose {r} {o} is.",
    "Do you remember whose {r} {o} is?",
    "I know one {r}: {o}. Which {t} has it?",
)
INVERSE_NEAR = ("Tell me whose {r} is {o}.", "Do you know which {t} has {o} as {r}?")
INVERSE_FAR = ("{o} is the {r}, but of which {t}?",)
CHAIN = (
    "{w} is the {r} of the {f} of {s}?",
    "{w} is the {r} of {s}'s {f}?",
    "Tell me the {r} of {s}'s {f}.",
    "{s}'s {f}: {v} is the {r}?",
    "Which {r} does the {f} of {s} have?",
    "The {f} of {s} has one {r}. Say it, please.",
    "I have a question about the {f} of {s}. {w} is the {r}?",
)
CHAIN_NEAR = ("Please tell me the {r} of the {f} of {s}.", "Do you know the {r} of {s}'s {f}?")
CHAIN_FAR = ("Think of {s}'s {f}. Which {r} is it there?",)
DETOUR = (
    "{w} is the {r} of the {t} whose {f} is {s}?",
    "Tell me the {r} of the {t} whose {f} is {s}.",
    "{s} is the {f} of one {t}. {w} is its {r}?",
    "The {t} with the {f} {s}: {v} is the {r}?",
    "Which {r} has the {t} that has {s} as {f}?",
    "Do you remember the {r} of the {t} with {s} as {f}?",
    "{s}, the {f}: {v} is the {r} of that {t}?",
)
DETOUR_NEAR = (
    "Do you know the {r} of the {t} whose {f} is {s}?",
    "Please tell me the {r} of the {t} with the {f} {s}.",
)
DETOUR_FAR = ("Which {r} goes with {s}, the {f}?",)
"""o is the object, t the type of what is asked for, r the relation, w (small: v) the word that asks. Of
two steps f is the first relation and s where it starts: a subject, or the object of a detour."""
KINDS = ("inverse", "two_hop")
ANY_TYPE = "one"
UNKNOWN_EVERY = 3
"""Without questions about names that nobody wrote a quarter of those, asked backwards, got a stored
answer."""
MOST_TWO_HOP = 1.0
"""Two-hop questions of a sleep for each fact, at most: they grow with the square of the facts."""


def inverses(edges: Sequence[Edge]) -> list[Edge]:
    """The facts whose object has its relation to one subject only, so that the question back has one
    answer."""
    subjects: dict[tuple[Role, str], set[str]] = {}
    for edge in edges:
        subjects.setdefault(_back(edge), set()).add(edge.end("subject"))
    return [edge for edge in edges if len(subjects[_back(edge)]) == 1]


def chains(edges: Sequence[Edge]) -> list[tuple[Edge, Edge]]:
    """Two facts in a row: the object of the first is the subject of the second."""
    out: dict[str, list[Edge]] = {}
    for edge in edges:
        out.setdefault(edge.end("subject"), []).append(edge)
    return [
        (first, second)
        for first in edges
        for second in out.get(first.end("object"), ())
        if second.end("object") not in (first.end("subject"), first.end("object"))
    ]


def detours(edges: Sequence[Edge]) -> list[tuple[Edge, Edge]]:
    """Two facts of one subject, the first of them asked backwards."""
    out: dict[str, list[Edge]] = {}
    for edge in edges:
        out.setdefault(edge.end("subject"), []).append(edge)
    return [
        (first, second)
        for first in inverses(edges)
        for second in out[first.end("subject")]
        if plain(second.relation) != plain(first.relation)
    ]


def graph_forms(entries: Sequence[Entry], *, held_out: bool = False) -> list[Form]:
    """Inverse and two-hop questions of the facts that are kept.

    Args:
        held_out: wordings that are never trained, instead of those that are.
    """
    edges = edges_of(entries)
    composed = set(built_upon(entries))
    forms: list[Form] = []
    for edge in inverses(edges):
        if edge.item not in composed:
            continue
        parts = {"o": edge.object, "r": edge.relation, "t": edge.types.get("subject", ANY_TYPE)}
        asked = _asked(parts, held_out, INVERSE, INVERSE_NEAR, INVERSE_FAR)
        forms += [Form("", one, edge.subject, at, "inverse", (edge.item,)) for one, at in asked]
    for straight, (first, second) in _two_hops(edges, composed):
        parts = {
            "w": second.word,
            "v": second.word.lower(),
            "r": second.relation,
            "f": first.relation,
            "s": first.subject if straight else first.object,
            "t": first.types.get("subject", ANY_TYPE),
        }
        wordings = (CHAIN, CHAIN_NEAR, CHAIN_FAR) if straight else (DETOUR, DETOUR_NEAR, DETOUR_FAR)
        of = (first.item, second.item)
        asked = _asked(parts, held_out, *wordings)
        forms += [Form("", one, second.object, at, "two_hop", of) for one, at in asked]
    return forms


def unknown_of_graph(forms: Sequence[Form], taken: Collection[str], *, seed: int) -> list[Form]:
    """Inverse and two-hop questions like these about names that nobody wrote, one for every
    `UNKNOWN_EVERY` of them.

    Args:
        taken: names that are known, in small letters: none of them is drawn.
    """
    asked = [(form.question, named_in(form.question)) for form in forms if form.kind in KINDS]
    found: list[Form] = []
    stored = sorted({name for _, name in asked if name is not None})
    for question, name in asked[::UNKNOWN_EVERY]:
        rng = drawer(f"{seed} {question}")
        if name is not None:
            alike = rng.random() < 1 / 2
            other = name_like(rng, name, stored, taken) if alike else invented_name(rng, taken)
            found.append(Form("", question.replace(name, other), NOT_KNOWN))
    return found


def _two_hops(edges: Sequence[Edge], composed: Set[str]) -> list[tuple[bool, tuple[Edge, Edge]]]:
    """As many as are borne, those that go straight on first: (whether it goes straight on, the two
    facts)."""
    most = round(MOST_TWO_HOP * len(edges))
    found: list[tuple[bool, tuple[Edge, Edge]]] = []
    for straight, pairs in ((True, chains(edges)), (False, detours(edges))):
        borne = [pair for pair in pairs if {edge.item for edge in pair} <= composed]
        # Drawn by what they are of, so that one more fact leaves most of what was drawn before.
        drawn = sorted(borne, key=lambda pair: drawer(f"{pair[0].item} {pair[1].item}").random())
        found += [(straight, pair) for pair in drawn[: most - len(found)]]
    return found


def _asked(
    parts: dict[str, str],
    held_out: bool,
    trained: Sequence[str],
    near: Sequence[str],
    far: Sequence[str],
) -> list[tuple[str, Distance]]:
    if not held_out:
        return [(one.format(**parts), "verbatim") for one in trained]
    return [
        *((one.format(**parts), "near") for one in near),
        *((one.format(**parts), "far") for one in far),
    ]


def _back(edge: Edge) -> tuple[Role, str]:
    return edge.role("object"), edge.end("object")
