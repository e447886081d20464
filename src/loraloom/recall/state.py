"""What a memory holds: its journal, read from the first line to the last. Pure; the same lines always
give the same state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from loraloom.recall.items import MemoryItem, item_of_plain, key_of

Standing = Literal["kept", "superseded", "forgotten"]


@dataclass
class Entry:
    """An item and what has become of it.

    Attributes:
        wake: number of the `learn` that it was learnt in; None where it only stands in the journal.
        consolidated: a sleep has settled it.
        composed: a sleep has built upon it: what follows from it was trained, too.
        sightings: how often it was written.
        loss: of its answer when it was last rehearsed, in nats a token.
    """

    item: MemoryItem
    standing: Standing = "kept"
    wake: int | None = None
    consolidated: bool = False
    composed: bool = False
    sightings: int = 1
    loss: float | None = None

    @property
    def id(self) -> str:
        return self.item.id


@dataclass
class State:
    """All entries by id in the order of writing, and the generation of adapters that answers.

    Attributes:
        generation: number of the folder of adapters; 0 for none.
        wakes: how often something was learnt.
        sleeps: how often something was settled.
        refused: what the gate would not have, with its reason.
        told: lines that report what a training did.
        ranks: of all that was ever seen, what a write rate goes by: the score, or infinity for what has
            to be written, minus infinity for what was out of scope or had been written before.
    """

    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    generation: int = 0
    wakes: int = 0
    sleeps: int = 0
    written: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    told: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    ranks: list[float] = field(default_factory=list[float])

    @property
    def kept(self) -> list[Entry]:
        """What should be answered."""
        return [entry for entry in self.entries.values() if entry.standing == "kept"]

    @property
    def known(self) -> list[Entry]:
        """What was learnt and should be answered."""
        return [entry for entry in self.kept if entry.wake is not None]

    @property
    def unlearnt(self) -> list[Entry]:
        """What was written and waits to be learnt."""
        return [entry for entry in self.kept if entry.wake is None]

    def by_key(self) -> dict[str, Entry]:
        """What is kept, by its key."""
        return {entry.item.key: entry for entry in self.kept}

    def next_id(self, ahead: int = 0) -> str:
        """The id of the next item that is written, or of one so many places after it."""
        return f"m{self.written + 1 + ahead:04d}"


def replayed(records: Iterable[Mapping[str, Any]]) -> State:
    """The state after these lines."""
    state = State()
    for record in records:
        _APPLY[record["op"]](state, record)
    return state


def _wrote(state: State, record: Mapping[str, Any]) -> None:
    for decision in record["decisions"]:
        outcome = decision["outcome"]
        state.ranks.append(_rank(decision))
        if outcome == "skip":
            state.refused.append({**decision, "at": record["at"]})
        elif outcome == "reinforce":
            entry = state.entries[decision["other"]]
            entry.sightings += 1
            _ask_it_so_too(entry, item_of_plain(decision["item"]))
        else:
            item = item_of_plain(decision["item"])
            state.written += 1
            state.entries[item.id] = Entry(item)
            if item.supersedes is not None:
                state.entries[item.supersedes].standing = "superseded"


def _rank(decision: Mapping[str, Any]) -> float:
    terms = decision["terms"]
    scope, needed = terms.get("scope"), terms.get("scope_needed")
    is_out = scope is not None and needed is not None and scope < needed
    if decision["outcome"] == "supersede" or decision["item"].get("pinned"):
        return math.inf
    return -math.inf if is_out or decision["outcome"] == "reinforce" else terms["score"]


def _ask_it_so_too(entry: Entry, again: MemoryItem) -> None:
    """What was written again in other words is asked for in these too."""
    new = [one for one in again.asked if key_of(one) not in {key_of(own) for own in entry.item.asked}]
    if new:
        entry.item = replace(entry.item, forms=(*entry.item.forms, *new))


def _learnt(state: State, record: Mapping[str, Any]) -> None:
    state.wakes += 1
    state.generation = record["generation"]
    for name in record["learnt"]:
        entry = state.entries[name]
        # What is trained anew from the journal keeps the wake that it was first learnt in.
        entry.wake = entry.wake or state.wakes
        entry.consolidated = record["rebuilt"]
    _rehearsed(state, record)
    state.told.append(dict(record))


def _slept(state: State, record: Mapping[str, Any]) -> None:
    state.told.append(dict(record))
    if not record["committed"]:
        return
    state.sleeps += 1
    state.generation = record["generation"]
    for name in record["replayed"]:
        state.entries[name].consolidated = True
    _rehearsed(state, record)


def _forgot(state: State, record: Mapping[str, Any]) -> None:
    state.told.append(dict(record))
    if not record["committed"]:
        return
    state.entries[record["id"]].standing = "forgotten"
    state.generation = record["generation"]
    if record["rebuilt"]:
        for entry in state.known:
            entry.consolidated = True
    _rehearsed(state, record)


def _rehearsed(state: State, record: Mapping[str, Any]) -> None:
    for name in record.get("composed", ()):
        state.entries[name].composed = True
    for name, loss in record["losses"].items():
        state.entries[name].loss = loss


_APPLY = {"write": _wrote, "learn": _learnt, "sleep": _slept, "forget": _forgot}
