"""How a memory is trained: every number and switch of learning and settling, in one value.

`RECIPE` is what the commands use. A baseline or an ablation is `replace(RECIPE, ...)` of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """What learning and settling each have of their own.

    Attributes:
        passes: over all forms of what is trained: of what is new, or of the whole journal.
        anchors: rows of a step that the bare base wrote.
        asked: rows of a step that are the base's own answers to questions about the world.
        anchor_weight, asked_weight: of the divergence from the frozen base, averaged over the step's
            rows of the kind.
    """

    passes: float
    anchors: int
    anchor_weight: float
    asked: int = 0
    asked_weight: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How wake and sleep train.

    Attributes:
        rows: of a step with something to remember.
        replayed: share of them that is replayed from the journal, where it holds older items.
        unknown: rows of a step, beside those, about names that nobody wrote.
        neighbours: rows of a step, beside those, of beginnings of sentences about other names: what the
            bare base says there.
        neighbour_weight: of their divergence from it, averaged over the step's.
        derived: what follows from several items is trained at sleep, and replayed from then on.
        ways_at_wake: ways on a map are learnt with the trajectories that they follow from, not first at
            sleep.
        left_out: kinds of what follows that are not trained.
        derived_passes: of a sleep over the wordings of it that are not answered yet. They are something
            new: with them a sleep trains at the wake's rate, and one candidate.
        way_passes: of a sleep over the ways on a map that are answered: what is right of all of them
            together is what finds others.
        derived_share: of a sleep's rows that they take, at most.
        unknown_names: names that nobody wrote for each item, and a question about each of them.
        unknown_alike: share of them that begin and end as names of the items.
        unknown_vague: share of the questions about them that are asked in words that say nothing.
        forms: wordings of an item that are trained, at most; None for all there are.
        vague_forms: of a fact, beside those: its subject among words that say nothing.
        fewest_steps: of a wake, and of a sleep.
        learnt: nats a token of an answer: below this an item is no longer drilled, only rehearsed.
        rested: how much more seldom what is learnt is drawn than what is not.
        rate: what the preset's rate is multiplied by.
        slowdown: sleep trains at the wake's rate divided by this.
        scales: a candidate of sleep for each: what the update it begins with is multiplied by.
    """

    wake: Phase = Phase(5.0, anchors=4, anchor_weight=4.0, asked=1, asked_weight=0.1)
    sleep: Phase = Phase(3.0, anchors=6, anchor_weight=5.0, asked=1, asked_weight=0.1)
    rows: int = 8
    replayed: float = 0.4
    unknown: int = 5
    neighbours: int = 2
    neighbour_weight: float = 1.0
    derived: bool = True
    ways_at_wake: bool = True
    left_out: tuple[str, ...] = ()
    derived_passes: float = 4.0
    way_passes: float = 5.0
    derived_share: float = 0.7
    unknown_names: int = 24
    unknown_alike: float = 0.7
    unknown_vague: float = 0.25
    forms: int | None = None
    vague_forms: int = 4
    fewest_steps: int = 120
    learnt: float = 0.02
    rested: int = 4
    rate: float = 1.0
    slowdown: float = 1.5
    scales: tuple[float, ...] = (1.0, 0.8)


RECIPE = Recipe()
