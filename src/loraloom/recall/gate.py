"""What is written and what is not, term by term.

    score = 0.5 surprise + 0.3 novelty + 0.2 reward + pin

after HEI-NW's neuromodulated write gate. Surprise is the mean loss of the answer's tokens under the
model as it is now, over that of guessing; novelty is how far the question lies from every stored one.
Nothing here is a label: no term says whether an item should be remembered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loraloom.recall.corrections import corrected
from loraloom.recall.items import MemoryItem, older, same_answer
from loraloom.recall.repeats import Repeats
from loraloom.recall.state import Entry, State
from loraloom.recall.vectors import Vectors

Outcome = Literal["insert", "reinforce", "supersede", "skip"]
SURPRISE, NOVELTY, REWARD, PIN = 0.5, 0.3, 0.2, 1.0
"""Weights of the terms."""
SCOPE_QUANTILE = 0.05
"""Share of the stored questions that may lie further from their nearest than is asked of a new one."""
FEWEST_FOR_SCOPE = 8
"""With fewer stored questions than this nobody can say what the memory is about."""
SEEN_LATELY = 50
"""Items, this write's among them, that a write rate goes by: scores fall as a memory fills."""
MOST_FOR_SCOPE = 2000
"""Stored questions that are compared with each other: enough for a quantile."""


@dataclass(frozen=True)
class Seen:
    """An item as the model sees it before it is written.

    Attributes:
        loss: of its answer, in nats a token.
        known: the model gives exactly this answer already.
        vector: of its question, [D].
    """

    item: MemoryItem
    loss: float
    known: bool
    vector: NDArray[np.float32]


@dataclass(frozen=True)
class Terms:
    """Why something was written or not.

    Attributes:
        scope: cosine to the nearest stored question, and `scope_needed`: what it has to reach; None
            where too little is stored to tell.
        surprise: 1 is as bad as guessing.
        novelty: 1 minus the cosine to the nearest stored question.
        reward: how much more than usual the item matters to its writer, from -1 to 1.
        pin: 1 where its writer wants it written whatever comes.
    """

    scope: float | None
    scope_needed: float | None
    surprise: float
    novelty: float
    reward: float
    pin: float
    score: float

    @property
    def in_scope(self) -> bool:
        return self.scope is None or self.scope_needed is None or self.scope >= self.scope_needed


@dataclass(frozen=True)
class Decision:
    """What becomes of an item.

    Attributes:
        other: id of the item that it repeats or replaces, or that asks nearly the same.
        threshold: what the score had to reach; None where no rate was asked for.
    """

    outcome: Outcome
    item: MemoryItem
    terms: Terms
    reason: str
    other: str | None = None
    threshold: float | None = None


def decided(
    seen: Sequence[Seen],
    state: State,
    stored: Vectors,
    everyday: Vectors,
    *,
    guessing: float,
    write_rate: float | None = None,
) -> list[Decision]:
    """What becomes of each item of one write, in their order.

    Args:
        stored: of the questions that are kept.
        everyday: of questions that have nothing to do with any memory.
        guessing: loss of guessing, log of the vocabulary's size.
        write_rate: the share that should be written of what is seen: the threshold is the score that
            this share of the last `SEEN_LATELY` reached, or of this write, where that is more. None
            writes all that is new to the model.
    """
    needed = scope_needed(stored, everyday)
    terms = [terms_of(one, stored, needed, guessing) for one in seen]
    known = dict(state.by_key())
    repeats = Repeats(state.kept)
    same = [_same(one.item, known, state, repeats) for one in seen]
    threshold = None
    if write_rate is not None:
        new = [rank_of(*one) for one in zip(seen, terms, same, strict=True)]
        before = max(0, SEEN_LATELY - len(new))
        threshold = threshold_of([*state.ranks[len(state.ranks) - before :], *new], write_rate)
    decisions: list[Decision] = []
    written = 0
    for one, term, entry in zip(seen, terms, same, strict=True):
        # What came earlier in this write counts too, where it has the same key.
        entry = entry if one.item.supersedes else known.get(one.item.key) or entry
        found = _decision(one, term, entry, threshold)
        if found.outcome == "insert":
            found = _beside(found, repeats.beside(one.item))
        if found.outcome in ("insert", "supersede"):
            item = replace(found.item, id=state.next_id(written))
            written += 1
            found = replace(found, item=item)
            known[item.key] = Entry(item)
        decisions.append(found)
    return decisions


def _same(item: MemoryItem, known: Mapping[str, Entry], state: State, repeats: Repeats) -> Entry | None:
    """The entry that asks the same as an item: the one that it says it corrects, else one that is known
    by the same key, or is recognised in other words."""
    if item.supersedes is not None:
        return state.entries[item.supersedes]
    return known.get(item.key) or repeats.of(item) or repeats.corrected_by(item)


def _beside(decision: Decision, near: Entry | None) -> Decision:
    """An item that is written, with a word of one that may be the same."""
    if near is None:
        return decision
    said = f"{decision.reason}; {near.id} asks nearly the same, which says `{near.item.answer}`"
    return replace(decision, reason=said, other=near.id)


def rank_of(one: Seen, terms: Terms, same: Entry | None) -> float:
    """What an item comes by for its place in a write rate: its score, where nothing else decides."""
    if same is not None and same_answer(same.item.answer, one.item.answer):
        return -math.inf
    if same is not None or one.item.pinned:
        return math.inf
    return terms.score if terms.in_scope and not one.known else -math.inf


def threshold_of(ranks: Sequence[float], write_rate: float) -> float:
    """The score that this share of `ranks` reaches, or the lowest one where fewer have one; 0 where
    none has."""
    place = max(1, round(write_rate * len(ranks)))
    able = sorted((rank for rank in ranks if rank > -math.inf), reverse=True)
    found = able[min(place, len(able)) - 1] if able else 0.0
    scores = [rank for rank in able if rank < math.inf]
    # Where what has to be written takes all of the share, what has a score would need to beat them all.
    return found if found < math.inf else math.nextafter(max(scores, default=0.0), math.inf)


def terms_of(one: Seen, stored: Vectors, needed: float | None, guessing: float) -> Terms:
    """The terms of one item and their sum."""
    nearest = float((stored @ one.vector).max()) if len(stored) else None
    surprise = one.loss / guessing
    novelty = 1.0 if nearest is None else 1.0 - nearest
    reward = max(-1.0, min(1.0, math.log10(one.item.salience)))
    pin = float(one.item.pinned)
    score = SURPRISE * surprise + NOVELTY * novelty + REWARD * reward + PIN * pin
    scope = nearest if needed is not None else None
    return Terms(scope, needed, surprise, novelty, reward, pin, score)


def scope_needed(stored: Vectors, everyday: Vectors) -> float | None:
    """The cosine that a question in scope has to its nearest stored one: halfway between what nearly all
    stored ones have and what everyday questions have. None where too few are stored."""
    if len(stored) < FEWEST_FOR_SCOPE:
        return None
    some = stored[:: -(-len(stored) // MOST_FOR_SCOPE)]
    cosines = some @ some.T
    np.fill_diagonal(cosines, -1.0)
    within = float(np.quantile(cosines.max(1), SCOPE_QUANTILE))
    outside = float((everyday @ some.T).max())
    return (within + outside) / 2


def _decision(one: Seen, terms: Terms, same: Entry | None, threshold: float | None) -> Decision:
    item = one.item
    if same is not None and same_answer(same.item.answer, item.answer):
        words = "" if same.item.key == item.key else ", in other words"
        return Decision("reinforce", item, terms, f"the same as {same.id}{words}", same.id, threshold)
    asked_for = item.pinned or item.supersedes is not None
    if same is not None and not asked_for and older(item, than=same.item):
        newer = f"older than {same.id}, which says `{same.item.answer}`: {item.time}, {same.item.time}"
        return Decision("skip", item, terms, newer, same.id, threshold)
    if same is not None:
        words = "" if same.item.key == item.key else "in other words, "
        was = f"{words}in place of {same.id}, which said `{same.item.answer}`"
        return Decision("supersede", corrected(same.item, item), terms, was, same.id, threshold)
    if item.pinned:
        return Decision("insert", item, terms, "pinned", None, threshold)
    if one.known:
        return Decision("skip", item, terms, "the model answers so already", None, threshold)
    if threshold is None:
        return Decision("insert", item, terms, "new", None, None)
    if not terms.in_scope:
        far = f"out of scope: {terms.scope:.2f} to the nearest question, {terms.scope_needed:.2f} needed"
        return Decision("skip", item, terms, far, None, threshold)
    said = f"score {terms.score:.2f}, {threshold:.2f} needed"
    outcome: Outcome = "insert" if terms.score >= threshold else "skip"
    return Decision(outcome, item, terms, said, None, threshold)
