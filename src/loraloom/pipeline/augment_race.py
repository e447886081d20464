"""The race of augmentations: the setting that is kept, trained on plain rows and on those that each
augmentation changes, over the same fresh seeds and scored on the same rows. Plain rows stay unless
others are better with 95%."""

from __future__ import annotations

from dataclasses import asdict, replace

from loraloom.config import names
from loraloom.pipeline.drive import Driver
from loraloom.pipeline.job import Job
from loraloom.pipeline.race import RaceSource, again, saved, whole
from loraloom.pipeline.run_log import RunLog
from loraloom.records import Gain
from loraloom.search.compare import mean_cost
from loraloom.search.verdict import Contender, gains_over, pick_winner
from loraloom.train.orders import ScoreSaved


def race_augmented(log: RunLog, driver: Driver, winner: str) -> str:
    """Race what `data.augment` names, and give the trial whose adapter is to be shipped: `winner`,
    unless an augmentation is better for certain."""
    kinds = [one.augmentation.name for one in log.prepared.variants]
    if not kinds:
        return winner
    records = log.recorder.records
    setting = winner.partition("s")[0]
    count = max(1, log.prepared.plan.seeds_for_finalists)
    own_seed = log.prepared.config.training.seed
    jobs: dict[tuple[int, str], Job] = {}
    for number in range(count):
        plain = again(records[setting].job, own_seed, number)
        jobs[number, ""] = plain
        for place, kind in enumerate(kinds):
            jobs[number, kind] = changed(plain, f"{plain.candidate.id}a{place}", kind)
    left = [job for job in jobs.values() if job.candidate.id not in records]
    if left and driver.expired() and not log.racing:
        log.recorder.note("augmentations were not compared: the time for it was over")
        return winner
    log.racing = True
    driver.run(RaceSource(left))
    seeds = [
        number
        for number in range(count)
        if all(whole(records.get(jobs[number, kind].candidate.id)) for kind in ("", *kinds))
    ]
    if not seeds:
        log.recorder.note("augmentations were not compared: not all of their trainings came to an end")
        return winner
    split = "confirm" if log.prepared.data.confirm else "validation"
    runs = {kind: [jobs[number, kind].candidate.id for number in seeds] for kind in ("", *kinds)}
    orders = [ScoreSaved(split, saved(log, [records[t] for t in own])) for own in runs.values()]
    reports = driver.ask(orders)
    scores = {kind: report.scores for kind, report in zip(runs, reports, strict=True)}
    price = float(records[setting].trial.trainable_parameters)
    contenders = [
        Contender(kind or "plain", tuple(own.values()), (), price) for kind, own in scores.items()
    ]
    verdict = pick_winner(contenders, "plain", fresh=True, keep="safe", called="training on plain rows")
    measure = "loss" if log.result.direction == "minimize" else "error rate"
    log.result.augmentation = [
        _told(log, kind, gain, verdict.id == kind, measure, len(seeds))
        for kind, gain in gains_over(contenders, "plain").items()
    ]
    if verdict.id == "plain":
        return winner
    own = scores[verdict.id]
    return min(own, key=lambda trial: mean_cost(own[trial]))


def changed(plain: Job, trial: str, kind: str) -> Job:
    """The same training on rows that an augmentation changes."""
    made = plain.candidate
    params = {**made.params, names.AUGMENT: kind}
    settings = {**plain.settings, names.AUGMENT: kind}
    return replace(plain, candidate=replace(made, id=trial, params=params), settings=settings)


def _told(log: RunLog, kind: str, gain: Gain, kept: bool, measure: str, seeds: int) -> dict[str, object]:
    """What run.json has of one augmentation; said in a note as well."""
    sentence = (
        f"{kind}: {measure} lower by {gain.mean:.3g} than on plain rows, 95% interval {gain.low:.3g} to"
        f" {gain.high:.3g}, better with {gain.probability:.0%} ({seeds} seeds each):"
        f" {'kept' if kept else 'not kept'}"
    )
    log.recorder.note(sentence)
    return {
        "augmentation": kind,
        "kept": kept,
        "measure": measure,
        "seeds": seeds,
        "gain": asdict(gain),
        "sentence": sentence,
    }
