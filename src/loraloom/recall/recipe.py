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
        anchor_weight: of the divergence from the frozen base, averaged over the step's anchors.
    """

    passes: float
    anchors: int
    anchor_weight: float


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
        derived_share: of a sleep's rows that they take, at most.
        unknown_names: names that nobody wrote for each item, and a question about each of them.
        forms: wordings of an item that are trained, at most; None for all there are.
        fewest_steps: of a wake, and of a sleep.
        learnt: nats a token of an answer: below this an item is no longer drilled, only rehearsed.
        rested: how much more seldom what is learnt is drawn than what is not.
        rate: what the preset's rate is multiplied by.
        slowdown: sleep trains at the wake's rate divided by this.
        scales: a candidate of sleep for each: what the update it begins with is multiplied by.
        first_look: share of sleep's steps before which nothing is looked at.
    """

    wake: Phase = Phase(passes=6.0, anchors=4, anchor_weight=4.0)
    sleep: Phase = Phase(passes=2.0, anchors=8, anchor_weight=6.0)
    rows: int = 16
    replayed: float = 0.4
    unknown: int = 4
    neighbours: int = 8
    neighbour_weight: float = 4.0
    derived: bool = True
    ways_at_wake: bool = True
    left_out: tuple[str, ...] = ()
    derived_passes: float = 4.0
    derived_share: float = 0.7
    unknown_names: int = 6
    forms: int | None = None
    fewest_steps: int = 60
    learnt: float = 0.02
    rested: int = 4
    rate: float = 1.0
    slowdown: float = 3.0
    scales: tuple[float, ...] = (1.0, 0.8)
    first_look: float = 2 / 3


RECIPE = Recipe()
