"""What goes into a search and what comes out: asked trials, observations, verdicts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from loraloom.records import Score

Kind = Literal["default", "anchor", "history", "sampled", "audit", "hand"]
Action = Literal["prune", "pause", "diverged", "stop"]


@dataclass(frozen=True)
class AskedTrial:
    """A candidate to be trained.

    Attributes:
        id: "t000", "t001", ... in the order in which they were asked.
        params: the searched settings by dotted key of the config, ready for `--set`.
        kind: the plan's own setting, a fixed early point, one that won an earlier search, a sampled one,
            or a sampled one that runs to its end whatever happens (an audit: it shows what pruning would
            have cost), or one that a user made by hand.
        seed_offset: to be added to `training.seed`: 1 for the second run of a setting.
        audit: whether it is an audit.
    """

    id: str
    params: Mapping[str, Any]
    kind: Kind
    seed_offset: int = 0
    audit: bool = False


@dataclass(frozen=True)
class Observation:
    """One evaluation of a running trial.

    Attributes:
        step: optimiser steps done.
        progress: the same as a share of the trial's own planned steps, above 0 and at most 1.
        warmup_share: the share of its steps in which the learning rate still rises.
        score: on the validation split, with the costs of the same rows for every trial.
        train_loss: smoothed, in the units of `initial_train_loss` (that of the first steps).
        schedule_shape: only trials with equal shapes are compared while they run: what the learning rate
            does over progress, such as ("linear", 0.06).
    """

    trial_id: str
    step: int
    progress: float
    warmup_share: float
    score: Score
    train_loss: float
    initial_train_loss: float
    schedule_shape: Hashable = ()


@dataclass(frozen=True)
class Verdict:
    """A trial has to leave the pack: pruned (others are better), diverged (it is broken), stopped (its
    best is behind it: it is complete, and its best checkpoint counts), or paused until others have come
    as far. A paused one is handed out again by `ask` to go on from where it was, or pruned while it
    waits.
    """

    trial_id: str
    action: Action
    reason: str
    step: int
