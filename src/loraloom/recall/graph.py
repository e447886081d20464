"""Facts as a graph: who stands in which relation to whom, and which facts may be built upon.

What a relation holds between is learnt from the facts themselves: a thing is what it does in other
facts (Norland has a capital and a flag; Olaf is a king and has a pet). A fact that fits is built upon
from the next sleep on. One that does not ("the capital of Olaf") is learnt and answered like any other,
but nothing is composed from it until it was seen twice, or is pinned: it may be a slip.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from loraloom.recall.items import MemoryItem, relation_of
from loraloom.recall.state import Entry

Side = Literal["subject", "object"]
SIDES: tuple[Side, Side] = ("subject", "object")
Status = Literal["settled", "new", "provisional", "superseded", "forgotten"]
Role = tuple[str, Side]
"""What a thing does in a fact: which relation, on which side of it."""
CONFIDENCE, FIT, RECENCY, HUB = 0.6, 0.5, 0.2, 0.4
"""Weights of the terms."""
FAST = 0.6
"""The score from which a fact is built upon at once. benchmarks/recall/relational.json has the shares
of fitting and of other facts that reach it, and how both change with it."""
SEEN_ENOUGH = 2
"""Sightings after which a fact is built upon, whatever it looks like."""
HALF_A_HUB = 16
"""Other facts about one thing that make it half a hub."""


@dataclass(frozen=True)
class Edge:
    """A fact: `object` is the `relation` of `subject`.

    Attributes:
        item: id of the item that says so.
        word: asks for the object: What, Who or Which.
        types: of subject and object, where the person gave them.
    """

    item: str
    subject: str
    relation: str
    object: str
    word: str = "What"
    types: Mapping[str, str] = field(default_factory=dict[str, str])

    def end(self, side: Side) -> str:
        """What stands there, as `plain`."""
        return plain(self.subject if side == "subject" else self.object)

    def role(self, side: Side) -> Role:
        """What that does in this fact."""
        return plain(self.relation), side


@dataclass(frozen=True)
class Track:
    """Why a fact is built upon, or not yet. Every term is between 0 and 1.

    Attributes:
        confidence: n / (n + 1) for n sightings; 1 where it is pinned.
        fit: to the schema, see `Schema.fit`.
        recency: 1 until a sleep has settled it, then 0.
        hub: d / (d + `HALF_A_HUB`), d the other facts about the end of it that has more of them: what
            is composed over a hub is much, and says little.
        score: 0.6 confidence + 0.5 fit + 0.2 recency - 0.4 hub.
        composed: it is built upon: the score reaches `FAST`, it was seen twice, is pinned, or was built
            upon before.
    """

    confidence: float
    fit: float
    recency: float
    hub: float
    score: float
    composed: bool


@dataclass(frozen=True)
class Drawn:
    """A fact as the graph shows it.

    Attributes:
        status: settled, where a sleep has built upon it; new, where the next one will; provisional,
            where none will until it is seen again; superseded or forgotten, as its item.
        track: None of what is no longer kept.
    """

    item: str
    subject: str
    relation: str
    object: str
    status: Status
    track: Track | None


def edge_of(item: MemoryItem) -> Edge | None:
    """The fact that an item states; None where it states none: an event, or any other question."""
    if item.kind != "fact":
        return None
    asked, slots = relation_of(item.question), item.slots
    subject = slots.get("subject", asked.subject if asked else "")
    relation = slots.get("relation", asked.relation if asked else "")
    if not subject or not relation:
        return None
    word = asked.word if asked else "What"
    return Edge(item.id, subject, relation, item.answer.rstrip("."), word, item.types)


def edges_of(entries: Iterable[Entry]) -> list[Edge]:
    """The facts among what is kept."""
    found = [edge_of(entry.item) for entry in entries if entry.standing == "kept"]
    return [edge for edge in found if edge is not None]


def plain(text: str) -> str:
    """A thing or a relation without what changes nothing: case, punctuation, "the"."""
    return " ".join(word for word in re.findall(r"\w+", text.casefold()) if word != "the")


@dataclass
class _Beside:
    """All facts of one relation, seen from one of its sides.

    Attributes:
        alone: whose thing there is in no other fact.
        typed: by the type that the person gave of the thing there.
        played: by what the thing there does, in this relation and in other facts.
    """

    facts: int = 0
    alone: int = 0
    typed: Counter[str] = field(default_factory=Counter[str])
    played: Counter[Role] = field(default_factory=Counter[Role])


class Schema:
    """What stands on both sides of each relation, learnt from facts."""

    def __init__(self, edges: Sequence[Edge]) -> None:
        self._roles: dict[str, Counter[Role]] = {}
        self._types: dict[str, str] = {}
        for edge in edges:
            for side in SIDES:
                self._roles.setdefault(edge.end(side), Counter())[edge.role(side)] += 1
                if side in edge.types:
                    self._types[edge.end(side)] = plain(edge.types[side])
        self._beside: dict[Role, _Beside] = {}
        for edge in edges:
            for side in SIDES:
                self._count(edge, side)

    def _count(self, edge: Edge, side: Side) -> None:
        beside = self._beside.setdefault(edge.role(side), _Beside())
        others = self._other_roles(edge, side)
        beside.facts += 1
        beside.alone += not others
        beside.played.update({*others, edge.role(side)})
        if (own := self._types.get(edge.end(side))) is not None:
            beside.typed[own] += 1

    def fit(self, edge: Edge) -> float:
        """How well a fact fits the others, from 0 to 1: as well as the side that fits less.

        A side fits by the share of the other facts of the relation whose thing there is of the same
        type, counted from one half: (same + 1/2) / (others + 1). A thing that does nothing else counts
        for a half.
        """
        return min(self._fit(edge, side) for side in SIDES)

    def hub(self, edge: Edge) -> float:
        """How much of a hub the end with more other facts is, from 0 to 1."""
        others = max(self._other_roles(edge, side).total() for side in SIDES)
        return others / (others + HALF_A_HUB)

    def _fit(self, edge: Edge, side: Side) -> float:
        # The fact itself is in every count, and no evidence for itself.
        beside = self._beside[edge.role(side)]
        others = beside.facts - 1
        own = self._types.get(edge.end(side))
        if own is not None and (typed := beside.typed.total() - 1):
            return _share(beside.typed[own] - 1, typed)
        roles = self._other_roles(edge, side)
        if not roles:  # Nothing else is known of it, which speaks against nothing.
            return max(0.5, _share(beside.alone - 1, others))
        same = max(beside.played[role] for role in roles) - 1 + beside.alone / 2
        return _share(min(same, others), others)

    def _other_roles(self, edge: Edge, side: Side) -> Counter[Role]:
        """What the thing there does in other facts, and in how many."""
        thing = edge.end(side)
        return self._roles[thing] - Counter(edge.role(one) for one in SIDES if edge.end(one) == thing)


def tracks(entries: Sequence[Entry]) -> dict[str, Track]:
    """Whether each fact among what is kept is built upon, and why, by id."""
    edges = edges_of(entries)
    schema = Schema(edges)
    of_id = {entry.id: entry for entry in entries}
    return {edge.item: _track(of_id[edge.item], edge, schema) for edge in edges}


def built_upon(entries: Sequence[Entry]) -> list[str]:
    """Ids of the facts that a sleep over these entries builds upon."""
    return [name for name, track in tracks(entries).items() if track.composed]


def drawn(entries: Sequence[Entry]) -> list[Drawn]:
    """Every fact that was ever written, in that order, with what has become of it."""
    found = tracks(entries)
    graph: list[Drawn] = []
    for entry in entries:
        edge, track = edge_of(entry.item), found.get(entry.id)
        if edge is not None:
            ends = edge.subject, edge.relation, edge.object
            graph.append(Drawn(entry.id, *ends, _status(entry, track), track))
    return graph


def _status(entry: Entry, track: Track | None) -> Status:
    if entry.standing != "kept" or track is None:
        return "superseded" if entry.standing == "superseded" else "forgotten"
    if entry.composed:
        return "settled"
    return "new" if track.composed else "provisional"


def _track(entry: Entry, edge: Edge, schema: Schema) -> Track:
    confidence = 1.0 if entry.item.pinned else entry.sightings / (entry.sightings + 1)
    fit, hub = schema.fit(edge), schema.hub(edge)
    recency = 0.0 if entry.consolidated else 1.0
    score = CONFIDENCE * confidence + FIT * fit + RECENCY * recency - HUB * hub
    enough = entry.item.pinned or entry.sightings >= SEEN_ENOUGH
    return Track(confidence, fit, recency, hub, score, entry.composed or enough or score >= FAST)


def _share(same: float, others: int) -> float:
    return (same + 0.5) / (others + 1)
