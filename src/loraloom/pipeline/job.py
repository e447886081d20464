"""A candidate on its way through a run: what it was asked to be, and the one record
that is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from loraloom.records import Candidate, Score, Trial
from loraloom.search.compare import mean_cost, standard_error
from loraloom.store.to_json import plain
from loraloom.train.resume import candidate_of, score_of_plain


@dataclass(frozen=True)
class Job:
    """A candidate to train, what its settings are called in tables, and why it is there
    (default, anchor, ...). `parent` is the trial that it was cloned from by hand."""

    candidate: Candidate
    settings: Mapping[str, object]
    role: str = "sampled"
    parent: str | None = None

    @cached_property
    def plain(self) -> Mapping[str, Any]:
        """The same for JSON. Made once: every checkpoint has all jobs of a run."""
        settings = plain(self.settings)
        made = {"candidate": asdict(self.candidate), "settings": settings, "role": self.role}
        return made if self.parent is None else {**made, "parent": self.parent}


@dataclass
class Record:
    """What is known of a candidate from the moment when it begins to train.

    Attributes:
        trial: as run.json shows it.
        best: its best evaluation, without the rows, once it has ended.
        place: its place in the order in which trials ended, from 0; None while it trains or waits.
    """

    job: Job
    trial: Trial
    best: Score | None = None
    place: int | None = None

    @property
    def id(self) -> str:
        return self.trial.id


def bare(score: Score | None) -> Score | None:
    """A score without its rows; its mean cost and that one's error stay what they are."""
    if score is None:
        return None
    return Score(
        score.split, {**score.metrics, "cost": mean_cost(score), "cost_se": standard_error(score)}
    )


def job_of_plain(kept: Mapping[str, Any]) -> Job:
    """The job whose `plain` this is, also after JSON."""
    return Job(candidate_of(kept), kept["settings"], kept["role"], kept.get("parent"))


def records_to_plain(records: Mapping[str, Record]) -> dict[str, Any]:
    """What a checkpoint keeps of all candidates beside run.json's own part: who ended,
    in order, and what the others are."""
    ended = sorted(
        (one for one in records.values() if one.place is not None), key=lambda one: one.place or 0
    )
    finished = [
        {
            **one.job.plain,
            "status": one.trial.status,
            "best": one.best and asdict(one.best),
            "adapter": one.trial.adapter,
            "seconds": one.trial.seconds,
        }
        for one in ended
    ]
    return {
        "finished": finished,
        "jobs": [one.job.plain for one in records.values() if one.place is None],
    }


def records_of_plain(kept: Mapping[str, Any], trials: Mapping[str, Trial]) -> dict[str, Record]:
    """The records of which `records_to_plain` and run.json were kept, in the order of run.json."""
    found: dict[str, Record] = {}
    for place, one in enumerate(kept["finished"]):
        job = job_of_plain(one)
        best = None if one["best"] is None else score_of_plain(one["best"])
        found[job.candidate.id] = Record(job, trials[job.candidate.id], best, place)
    for one in kept["jobs"]:
        job = job_of_plain(one)
        found[job.candidate.id] = Record(job, trials[job.candidate.id])
    return {trial: found[trial] for trial in trials}
