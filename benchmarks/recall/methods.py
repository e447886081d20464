"""The methods that are compared. Each learns a workload session by session and gives what it then is.

A method is called with a `Job` and returns its outcome. All train the same wordings of the same items
by the functions of `loraloom recall`; a baseline is the recipe without some of its parts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scoring import Answering, Scorer, quiet

from loraloom.config import names
from loraloom.pipeline.recall.learning import learn
from loraloom.pipeline.recall.sleeping import sleep
from loraloom.pipeline.recall.trial import in_sessions
from loraloom.pipeline.recall.update import Update
from loraloom.pipeline.recall.writing import write
from loraloom.recall.recipe import RECIPE, Phase, Recipe
from loraloom.recall.workload import Workload

Record = Mapping[str, Any]


@dataclass
class Job:
    """One method on one workload.

    Attributes:
        place: folder of its own.
        rate: in place of the preset's; None for that one.
        by_session: recall of each session so far, after each session.
        asking: core-seconds that these took.
    """

    made: Workload
    model: str
    place: Path
    scorer: Scorer
    rate: float | None = None
    by_session: list[list[float]] = field(default_factory=list[list[float]])
    asking: float = 0.0

    @property
    def folder(self) -> Path:
        return self.place / "memory"

    def recipe(self, recipe: Recipe) -> Recipe:
        """A recipe at this job's rate."""
        if self.rate is None:
            return recipe
        return replace(recipe, rate=self.rate / self.scorer.bench.plan.values()[names.LEARNING_RATE])

    def follow(self, update: Update | None) -> None:
        """Ask all sessions so far."""
        start = time.process_time()
        self.by_session.append(self.scorer.by_session(update, len(self.by_session) + 1))
        self.asking += time.process_time() - start


@dataclass
class Outcome:
    """What a method made.

    Attributes:
        stages: what answers, by name; the last one is the method's own.
        records: lines of the journal about its trainings.
    """

    stages: Mapping[str, Answering]
    records: Sequence[Record] = ()
    more: dict[str, Any] = field(default_factory=dict[str, Any])


BARE = replace(
    RECIPE,
    wake=Phase(6.0, anchors=0, anchor_weight=0.0),
    rows=16,
    unknown=0,
    neighbours=0,
    vague_forms=0,
    fewest_steps=60,
)
"""Only the items' own wordings, older ones among them."""
NAIVE = replace(BARE, replayed=0.0)
"""Only what is new."""


def sequential(recipe: Recipe) -> Callable[[Job], Outcome]:
    """One adapter that goes on training, session after session, and never sleeps."""

    def method(job: Job) -> Outcome:
        records = _sessions(job, job.recipe(recipe))
        return Outcome({"learnt": job.scorer.total(job.folder)}, records)

    return method


def with_sleep(recipe: Recipe) -> Callable[[Job], Outcome]:
    """Sessions, then one sleep."""

    def method(job: Job) -> Outcome:
        ours = job.recipe(recipe)
        records = _sessions(job, ours)
        learnt = job.scorer.total(job.folder)
        slept = sleep(job.folder, quiet, recipe=ours)
        assert slept is not None
        assert slept.record["replayed"] and slept.record["replayed_rows"] > 0
        settled = job.scorer.total(job.folder)
        more: dict[str, Any] = {"sleep": _of_sleep(slept.record)}
        if slept.record["committed"]:
            assert sleep(job.folder, quiet, recipe=ours) is None
            again = job.scorer.total(job.folder)
            assert settled is not None and again is not None
            more["second_sleep_changes_nothing"] = settled.equals(again)
        stages = {"learnt": learnt, "slept": settled, "routed": job.scorer.routed(job.folder)}
        return Outcome(stages, [*records, slept.record], more)

    return method


def _sessions(job: Job, recipe: Recipe) -> list[Record]:
    return in_sessions(
        job.folder,
        job.model,
        job.made,
        quiet,
        recipe=recipe,
        after=lambda session: job.follow(job.scorer.total(job.folder)),
    )


def _of_sleep(record: Record) -> dict[str, Any]:
    kept = ("committed", "reason", "steps", "replayed_rows", "before", "after")
    return {name: record[name] for name in kept} | {"replayed_items": len(record["replayed"])}


def no_memory(job: Job) -> Outcome:
    """The bare base."""
    return Outcome({"base": None})


def joint(steps: int) -> Callable[[Job], Outcome]:
    """Everything at once with the recipe of ours, for so many steps at most, and then its sleep."""

    def method(job: Job) -> Outcome:
        write(job.folder, job.model, [], [row for rows in job.made.sessions for row in rows], quiet)
        recipe = job.recipe(RECIPE)
        fixed = replace(recipe, fewest_steps=steps, wake=replace(recipe.wake, passes=0.0))
        record = learn(job.folder, quiet, seeds=1, recipe=fixed).record
        learnt = job.scorer.total(job.folder)
        slept = sleep(job.folder, quiet, recipe=recipe)
        assert slept is not None
        stages = {"learnt": learnt, "slept": job.scorer.total(job.folder)}
        return Outcome(stages, [record, slept.record], {"sleep": _of_sleep(slept.record)})

    return method


def merged(job: Job) -> Outcome:
    """An adapter of its own for each session; then their mean and their sum."""
    updates: list[Update] = []
    records: list[Record] = []
    for number, rows in enumerate(job.made.sessions):
        folder = job.place / f"session {number}"
        write(folder, job.model, [], rows, quiet)
        records.append(learn(folder, quiet, seeds=1, recipe=job.recipe(NAIVE)).record)
        total = job.scorer.total(folder)
        assert total is not None
        updates.append(total)
    summed = updates[0]
    for update in updates[1:]:
        summed = summed.beside(update)
    return Outcome({"sum": summed, "mean": summed.times(1 / len(updates))}, records)


ABLATIONS: Mapping[str, Recipe] = {
    "ours": RECIPE,
    "without anchors": replace(
        RECIPE,
        wake=replace(RECIPE.wake, anchors=0, asked=0),
        sleep=replace(RECIPE.sleep, anchors=0, asked=0),
    ),
    "without unknown names": replace(RECIPE, unknown=0),
    "without replay in the wake": replace(RECIPE, replayed=0.0),
    "one wording": replace(RECIPE, forms=1, vague_forms=0),
    "without empty words": replace(RECIPE, vague_forms=0, unknown_vague=0.0),
    "without derived questions": replace(RECIPE, derived=False),
}
"""Ours without one part; without sleep it is ours before its sleep."""
