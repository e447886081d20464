"""What passes between those who decide over candidates and the worker that trains them:
orders and reports.

All of it is plain: no tensor and no live object, so that the two may sit in different processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loraloom.diagnose.signals import Reading
from loraloom.records import Candidate, EndStatus, Event, Finding, Score


@dataclass(frozen=True)
class Kept:
    """The whole state of a candidate in a file, from which it can go on.

    Attributes:
        file: name in the folder that the workers of a run share.
        step: how far it had come.
        cost: mean cost of its best evaluation by then; None before the first that is finite.
        sha256: of the file; empty where no other worker reads it.
    """

    file: str
    step: int
    cost: float | None
    sha256: str = ""


@dataclass(frozen=True)
class Join:
    """Begin to train a candidate. Its first micro-batch is in the next tick.

    Where there is no memory for one more beside those who train, it is not among the report's seats.

    Attributes:
        generation: grows with every handing-out. What is kept of the candidate goes by it, so that a
            worker that was given up, and works on all the same, writes over nothing.
    """

    candidate: Candidate
    generation: int = 0


@dataclass(frozen=True)
class GoOn:
    """Let one train again from what was kept of it; where there is no memory for it, it stays away."""

    trial: str
    kept: Kept
    generation: int = 0


@dataclass(frozen=True)
class Pause:
    """Let a candidate wait out of the pack: it is kept, and leaves."""

    trial: str


@dataclass(frozen=True)
class End:
    """Let a candidate go, whether it trains or waits.

    Attributes:
        settings: all of its settings by dotted key, for what is examined before it leaves.
        save_to: folder for its adapter as it was at its best, which is proven before it
            counts; None to drop it.
        kept: of one that waits.
    """

    trial: str
    status: EndStatus
    reason: str | None
    settings: Mapping[str, Any]
    save_to: Path | None = None
    kept: Kept | None = None


@dataclass(frozen=True)
class Spare:
    """A candidate should have ended for this reason, and trains on because the user wants to be told
    only."""

    trial: str
    status: EndStatus
    reason: str


@dataclass(frozen=True)
class Lend:
    """Put a candidate's best weights, whether it trains or waits, into a file for another to begin with.

    Attributes:
        start: the file, as `Candidate.start` names it.
        kept: of one that waits.
    """

    trial: str
    start: str
    kept: Kept | None = None


@dataclass(frozen=True)
class Train:
    """One tick, a micro-batch of every candidate in the pack; or as many as fit into so many seconds,
    until one of the candidates is due, has finished or has diverged."""

    seconds: float = 0.0


@dataclass(frozen=True)
class Evaluate:
    """Score those on validation that stand at one of their evaluation steps."""


@dataclass(frozen=True)
class Keep:
    """Write a checkpoint into `folder`, and in it `run`: what the sender has to know to go on."""

    folder: Path
    run: Mapping[str, Any]


@dataclass(frozen=True)
class KeepEach:
    """Keep these candidates of the pack, each by itself, so that any worker can go on with it."""

    trials: Sequence[str]


@dataclass(frozen=True)
class ScoreSaved:
    """Score adapters together, read from where they were saved; the report's scores are theirs.

    Attributes:
        split: whose rows.
        saved: candidates and the folders of their adapters; the bare base, as "", where none is named.
    """

    split: str
    saved: Sequence[tuple[Candidate, Path]] = ()


@dataclass(frozen=True)
class TakeBase:
    """What the bare base scores on validation: every candidate is held against it."""

    score: Score | None


Order = (
    Join | GoOn | Pause | End | Spare | Lend | Train | Evaluate | Keep | KeepEach | ScoreSaved | TakeBase
)


@dataclass(frozen=True)
class SeatView:
    """A candidate in the pack, in plain numbers.

    Attributes:
        best_cost: mean cost of the best evaluation so far; None before the first that is finite.
        waited: evaluations since the best one.
        best_now: the last evaluation, at this very step, was the best.
        due: it stands at one of its evaluation steps.
        finished: it has taken its last step.
        diverged: what went wrong and where, once it is past saving.
        readings: what was seen at its evaluations.
    """

    candidate: Candidate
    step: int
    planned_steps: int
    steps_per_epoch: float
    trainable_parameters: int
    tokens: int
    seconds: float
    peak_bytes: int
    first_loss: float | None
    smoothed_loss: float | None
    best_cost: float | None
    nonfinite: int
    waited: int
    best_now: bool
    due: bool
    finished: bool
    diverged: str | None
    readings: Sequence[Reading]

    @property
    def id(self) -> str:
        return self.candidate.id

    @property
    def progress(self) -> float:
        return self.step / self.planned_steps

    @property
    def epoch(self) -> float:
        return self.step / self.steps_per_epoch


@dataclass(frozen=True)
class Examined:
    """What was seen of a candidate before it left.

    Attributes:
        signals: as `diagnose.signals.Signals.to_plain` gives them.
        retained: its best checkpoint on rows that it should go on being able to do; None where there are
            none.
    """

    findings: tuple[Finding, ...]
    signals: Mapping[str, Any]
    retained: Score | None = None


@dataclass(frozen=True)
class Ended:
    """A candidate that has left.

    Attributes:
        view: as it left.
        best: its best evaluation, with the rows; None where there was none.
        examined: None where nobody looks.
        logits_difference: of the saved adapter, loaded by PEFT, to the trained one;
            None where none was saved.
    """

    view: SeatView
    order: End
    best: Score | None
    examined: Examined | None
    logits_difference: float | None


@dataclass(frozen=True)
class Report:
    """What came of some orders, and who is there now.

    Attributes:
        seats: those who train, in the order in which they joined.
        kept: what was kept while it obeyed; without orders, all who wait.
        pack_size: how many it trains at once, where the worker decides that by itself.
    """

    worker: str
    events: Sequence[Event] = ()
    scores: Mapping[str, Score] = field(default_factory=dict[str, Score])
    ended: Sequence[Ended] = ()
    seats: Mapping[str, SeatView] = field(default_factory=dict[str, SeatView])
    kept: Mapping[str, Kept] = field(default_factory=dict[str, Kept])
    pack_size: int | None = None
