"""The race: the few best settings and the plan's own, trained anew over fresh shared seeds and scored on
rows that the search never used. What looked best among many is flattered by luck; this says how much of
it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loraloom.config import names
from loraloom.pipeline.drive import Driver
from loraloom.pipeline.job import Job, Record
from loraloom.pipeline.run_log import RunLog
from loraloom.pipeline.spared import spare
from loraloom.records import Candidate, EndStatus, Score
from loraloom.search.compare import mean_cost
from loraloom.search.finals import finalists_of
from loraloom.search.verdict import Contender, gains_over, pick_winner
from loraloom.store.scores import read_scores
from loraloom.train.orders import ScoreSaved, SeatView

FIRST_RACE_SEED = 1_000
"""Offset of the race's seeds: none of them was used in the search."""
ROLE = "race"
"""Why a candidate of the race is there (`Job.role`)."""


def finalists(completed: Sequence[Record], default: str, trials: int) -> list[Record]:
    """The best run of each of the best settings, the plan's own setting among them.

    `completed` is best first; the plan's setting may have been run with two seeds.
    """
    count = finalists_of(trials)
    best: list[Record] = []
    for one in completed:
        if all(not same_setting(one, other) for other in best):
            best.append(one)
    plan = next((one for one in completed if one.id == default), None)
    own = [one for one in best if plan is not None and same_setting(one, plan)]
    others = [one for one in best if one not in own]
    return sorted([*others[: count - len(own)], *own], key=completed.index)


def same_setting(one: Record, other: Record) -> bool:
    """Whether two runs differ in their seed only."""
    own, others = one.job.candidate, other.job.candidate
    return (own.params, own.start) == (others.params, others.start)


@dataclass
class RaceSource:
    """Hands out the race's jobs; nothing is pruned."""

    jobs: Sequence[Job]

    def __post_init__(self) -> None:
        self._left = iter(self.jobs)

    def ask(self) -> Job | None:
        return next(self._left, None)

    def scored(self, seat: SeatView, score: Score) -> None:
        pass

    def verdicts(self) -> Sequence[tuple[str, EndStatus, str]]:
        return ()

    def ended(self, trial: str, status: EndStatus, best: Score | None) -> None:
        pass


def race(log: RunLog, driver: Driver, chosen: Sequence[Record], default: str) -> str:
    """Race the finalists and give the trial whose adapter is to be shipped.

    With one seed for finalists (or one finalist) nothing is trained anew: the saved
    adapters are scored as they are.
    """
    seeds = log.prepared.plan.seeds_for_finalists
    records = log.recorder.records
    runs = {one.id: [one.id] for one in chosen}
    if seeds > 1 and len(chosen) > 1 and (log.racing or not driver.expired()):
        own_seed = log.prepared.config.training.seed
        jobs = [again(one.job, own_seed, number) for number in range(seeds) for one in chosen]
        if not log.racing:
            log.recorder.emit("race", finalists=list(runs), seeds=seeds)
            log.racing = True
        driver.run(RaceSource([job for job in jobs if job.candidate.id not in records]))
        complete = [
            seed for seed in range(seeds) if all(whole(records.get(f"{trial}s{seed}")) for trial in runs)
        ]
        if complete:
            runs = {trial: [f"{trial}s{seed}" for seed in complete] for trial in runs}
    raced = all(own != [trial] for trial, own in runs.items())
    split = "confirm" if log.prepared.data.confirm else "validation"
    orders = [ScoreSaved(split, saved(log, [records[t] for t in own])) for own in runs.values()]
    reports = driver.ask(orders)
    scores = {trial: report.scores for trial, report in zip(runs, reports, strict=True)}
    if split == "confirm":
        for trial, score in (pair for own in scores.values() for pair in own.items()):
            log.recorder.scored(trial, score)
    plan = records.get(default)
    reference = next((one for one in chosen if plan and same_setting(one, plan)), chosen[0]).id
    contenders = _contenders(log, {trial: tuple(own.values()) for trial, own in scores.items()})
    keep = log.prepared.config.search.keep
    measure = "loss" if log.result.direction == "minimize" else "error rate"
    new_rows = split == "confirm"
    verdict = pick_winner(
        contenders,
        reference,
        fresh=raced and new_rows,
        rows_seen=not new_rows,
        keep=keep,
        measure=measure,
    )
    log.result.verdict, log.result.significant = verdict.sentence, verdict.significant
    log.result.gain = verdict.gain
    log.recorder.emit("note", text=verdict.sentence)
    kept, why = spare(log, scores, verdict.id)
    if why is not None:
        log.result.verdict = f"{verdict.sentence}; {why}"
        log.result.gain = gains_over(contenders, reference).get(kept, log.result.gain)
        log.result.significant = False
        log.recorder.note(why)
    own = scores[kept]
    return min(own, key=lambda trial: mean_cost(own[trial]))


def saved(log: RunLog, records: Sequence[Record]) -> list[tuple[Candidate, Path]]:
    """These candidates and where their adapters lie."""
    return [(one.job.candidate, log.recorder.adapter_folder(one.id)) for one in records]


def _contenders(log: RunLog, finals: Mapping[str, tuple[Score, ...]]) -> list[Contender]:
    """Every setting that the search trained to its end, with the rows of its
    validation; the finalists with their finals."""
    finished = log.recorder.finished()
    done = [one for one in finished if one.job.role != ROLE and whole(one)]
    done += [one for one in finished if one.id in finals and one not in done]
    settings: list[list[Record]] = []
    for one in done:
        own = next((group for group in settings if same_setting(one, group[0])), None)
        settings.append([one]) if own is None else own.append(one)
    found: list[Contender] = []
    for group in settings:
        ids = [one.id for one in group]
        name = next((trial for trial in ids if trial in finals), ids[0])
        price = float(log.recorder.records[name].trial.trainable_parameters)
        found.append(Contender(name, finals.get(name, ()), _searched(log, ids), price))
    return found


def _searched(log: RunLog, trials: Sequence[str]) -> tuple[Score, ...]:
    """Validation scores of these trials, row by row as they were kept beside their adapters."""
    kept = [read_scores(log.folder.trial_folder(trial)).get("validation") for trial in trials]
    return tuple(one.score("validation", {}) for one in kept if one)


def again(job: Job, own_seed: int, number: int) -> Job:
    """The same setting from another seed: initial weights, data order and dropout all differ. The seeds
    are the same for all finalists, whatever seed a setting was searched with, so that a lucky draw is
    everybody's."""
    made = job.candidate
    training = replace(made.training, seed=own_seed + FIRST_RACE_SEED + number)
    settings = {**job.settings, names.SEED: training.seed}
    return Job(replace(made, id=f"{made.id}s{number}", training=training), settings, ROLE, job.parent)


def whole(one: Record | None) -> bool:
    """Whether a candidate came to its end: one that was cut short says nothing of its setting."""
    return one is not None and one.trial.status == "completed" and one.trial.adapter is not None
