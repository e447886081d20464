"""`loraloom tune`: many candidates on one frozen base, pruned while they run; the best one is raced, proven and kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from loraloom.config.asked import Config
from loraloom.errors import ConfigError, RunError
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.drive import Driver, Finished, Job
from loraloom.pipeline.history import finished_runs, with_history
from loraloom.pipeline.journal import Journal
from loraloom.pipeline.past_searches import tried_second, with_past_searches
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.pipeline.race import ROLE, finalists, race
from loraloom.pipeline.recorder import Watch
from loraloom.pipeline.resume import Reopened, reopened
from loraloom.pipeline.samples import show_samples
from loraloom.pipeline.session import Outcome, Session, best_folder
from loraloom.pipeline.warmup import plan_of_packs
from loraloom.plan.search_space import search_space
from loraloom.records import Score, TrialStatus
from loraloom.search.compare import mean_cost
from loraloom.search.searcher import Observation, Searcher
from loraloom.search.space import Space
from loraloom.search.values import Action
from loraloom.train.pack import Seat
from loraloom.train.schedule import warmup_steps


@device_errors()
def tune(config: Config, watch: Watch, dry_run: bool = False, resume: str | Path | None = None) -> Outcome | Prepared:
    """Search, race, prove, keep. With `dry_run` only what would be done is returned; nothing is written.

    Args:
        resume: folder of a run that is to go on where it stopped; `config` must ask for the same. An unfinished run of the
            config's own name goes on as well.

    Raises:
        RequestError: the request cannot work; nothing was started.
        RunError: it started and failed; the run folder holds what was done.
        InterruptedRunError: Ctrl-C.
    """
    with nullcontext() if dry_run else reopened(config, "tune", resume) as place:
        return _tune(config, watch, dry_run, place)


def _tune(config: Config, watch: Watch, dry_run: bool, place: Reopened | None) -> Outcome | Prepared:
    if place:
        prepared = prepare(place.config, race=True, free_bytes=place.free_bytes, trials=place.trials)
    else:
        prepared = prepare(config, race=True)
    if not prepared.data.validation:
        raise ConfigError("`tune` needs validation data to compare candidates on", next="leave `data.validation` at 0.1")
    space, kept = search_space(prepared.plan), place.past if place else None
    if dry_run:
        return with_history(prepared, kept)
    prepared = with_past_searches(prepared, (result for _, result in finished_runs(prepared.config.output_dir)), kept)
    session = Session(prepared, "tune", watch, place)
    with session.running():
        if not session.resumed:
            session.measure_baseline()
            session.slots = plan_of_packs(session)
        driver = session.driver()
        if not session.racing:
            driver.run(SearchSource(session, space))
        default = session.result.default or ""
        winner = race(session, driver, finalists(completed(session, driver), default, prepared.plan.trials), default)
        prove(session, driver, winner, default)
        return session.finish()


@dataclass
class SearchSource:
    """Stands between the searcher, which knows no torch, and the driver, which knows no search."""

    session: Session
    space: Space

    def __post_init__(self) -> None:
        asked, session = self.session.prepared.config.search, self.session
        # The study lives in memory: the journal is what lasts, and agrees with the checkpoint to the last call.
        searcher = Searcher(
            self.space, session.prepared.plan.values(), session.prepared.plan.trials, session.slots or 1,
            sampler=asked.sampler, pruner=asked.pruner, seed=session.prepared.config.training.seed, base=session.base_score,
            known=[known for search in session.prepared.past for known in search.known],
        )  # fmt: skip
        self.searcher = Journal(searcher, session.journal)
        changed = self.searcher.play()
        if changed:
            session.recorder.note(f"the sampler would now draw {changed} of the candidates otherwise; they stay as they are")

    def ask(self) -> Job | None:
        suggestion = self.searcher.ask()
        if suggestion is None:
            return None
        if suggestion.kind == "default" and self.session.result.default is None:
            self.session.result.default = suggestion.id
        again = tried_second(self.session.prepared, self.session.prepared.past) if suggestion.kind == "history" else None
        if again is not None:
            self.session.recorder.note(f"{suggestion.id} is tried again: {again.reason}")
        return self.session.job(suggestion.id, dict(suggestion.params), seed_offset=suggestion.seed_offset, role=suggestion.kind)

    def scored(self, seat: Seat, score: Score) -> None:
        spec = seat.candidate.training
        self.searcher.report(
            Observation(
                trial_id=seat.id, step=seat.step, progress=seat.progress,
                warmup_share=warmup_steps(seat.planned_steps, spec.warmup_ratio) / seat.planned_steps, score=score,
                train_loss=seat.smoothed_loss or 0.0, initial_train_loss=seat.first_loss or 0.0,
                schedule_shape=(spec.lr_scheduler_type, spec.warmup_ratio, spec.num_train_epochs),
            )
        )  # fmt: skip

    def verdicts(self) -> Sequence[tuple[str, TrialStatus, str]]:
        status: dict[Action, TrialStatus] = {
            "prune": "pruned", "pause": "waiting", "diverged": "diverged", "stop": "completed",
        }  # fmt: skip
        return [(verdict.trial_id, status[verdict.action], verdict.reason) for verdict in self.searcher.verdicts()]

    def ended(self, finished: Finished, seat: Seat, reason: str | None) -> None:
        self.searcher.tell(seat.id, finished.status, finished.best)


def completed(session: Session, driver: Driver) -> list[Finished]:
    """Candidates of the search whose adapter was saved, best first.

    Raises:
        RunError: there is none.
    """
    done = [one for one in driver.finished.values() if one.adapter is not None and one.job.role != ROLE]
    if not done:
        raise RunError(
            "no candidate finished",
            got="; ".join(f"{t.id} {t.status}: {t.reason}" for t in list(session.recorder.trials.values())[:4]),
            next="lower the rate with --set training.learning_rate=1e-4, or allow more time with --set limits.time=...",
        )
    return sorted(done, key=lambda one: mean_cost(one.best) if one.best else math.inf)


def prove(session: Session, driver: Driver, winner: str, default: str) -> None:
    """Open the test split, once: bare base, the plan's own setting, the winner. Then copy and verify best/.

    Without one, they are compared on the rows that were kept from the search.
    """
    data, result = session.prepared.data, session.result
    split, rows = ("test", data.test) if data.test else ("confirm", data.confirm)
    result.best = winner
    params = session.recorder.trials[winner].params
    session.recorder.emit("winner", winner, params=params, significant=result.significant)
    if rows:
        base = session.score_base(rows, split)
        result.baseline = {**result.baseline, **{f"{split}_{key}": value for key, value in base.metrics.items()}}
        jobs = [driver.finished[trial].job for trial in dict.fromkeys((winner, default)) if driver.finished[trial].adapter]
        scores = session.score_saved(jobs, rows, split)
        for trial, score in scores.items():
            session.recorder.scored(trial, score)
        if split == "test":
            session.diagnosis.test_opened(winner, base, scores[winner])
    best_folder(session, winner)
    show_samples(session)
